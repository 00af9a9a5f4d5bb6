//! How a fetch went, in figures.

use std::collections::BTreeMap;
use std::time::Duration;

use iceshare::{Flow, Progress, Standing};
use indicatif::DecimalBytes;
use serde::Serialize;

/// Of a fetch that ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Bytes of the media.
    pub(crate) bytes: u64,
    /// Pages of the media.
    pub(crate) pages: u64,
    /// Pages that were held when it began.
    pub(crate) resumed_pages: u64,
    /// Milliseconds from the start of the fetch to its end.
    pub(crate) elapsed_ms: u64,
    /// Milliseconds from the start to the first verified page.
    pub(crate) first_page_ms: Option<u64>,
    /// Bytes received of pages that were verified, by payload protocol.
    pub(crate) by_protocol: BTreeMap<String, u64>,
    /// The pages themselves, counted the same way.
    pub(crate) pages_by_protocol: BTreeMap<String, u64>,
    /// The same by the sender's key.
    pub(crate) by_host: BTreeMap<String, u64>,
    /// What came from each host over each protocol.
    pub(crate) flows: Vec<FlowFigures>,
    /// Pages that failed their check.
    pub(crate) bad_pages: u64,
    /// Pages that came twice.
    pub(crate) duplicate_pages: u64,
    /// How our key stood with the tracker at the end; null if it does not tell.
    pub(crate) standing: Option<Standing>,
}

/// Of one host over one protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FlowFigures {
    /// The sender's key.
    pub(crate) host: String,
    pub(crate) protocol: String,
    /// Bytes of pages that were verified.
    pub(crate) bytes: u64,
    /// Pages that were verified.
    pub(crate) pages: u64,
}

impl Figures {
    pub(crate) fn new(
        progress: &Progress,
        bytes: u64,
        elapsed: Duration,
        standing: Option<Standing>,
    ) -> Figures {
        let (mut by_protocol, mut by_host) = (BTreeMap::new(), BTreeMap::new());
        let (mut pages_by_protocol, mut flows) = (BTreeMap::new(), Vec::new());
        for ((host, protocol), flow) in progress.flows.iter().filter(|(_, f)| f.bytes > 0) {
            let (host, protocol, Flow { bytes, pages, .. }) = (host.to_string(), protocol.to_string(), *flow);
            *by_protocol.entry(protocol.clone()).or_default() += bytes;
            *pages_by_protocol.entry(protocol.clone()).or_default() += pages;
            *by_host.entry(host.clone()).or_default() += bytes;
            flows.push(FlowFigures { host, protocol, bytes, pages });
        }
        Figures {
            bytes,
            pages: progress.pages,
            resumed_pages: progress.resumed,
            elapsed_ms: millis(elapsed),
            first_page_ms: progress.first_page.map(millis),
            by_protocol,
            pages_by_protocol,
            by_host,
            flows,
            bad_pages: progress.bad,
            duplicate_pages: progress.duplicates,
            standing,
        }
    }

    /// One line for people: of a fetch that was waited for.
    pub(crate) fn line(&self) -> String {
        let fetched = self.fetched();
        let seconds = Duration::from_millis(self.elapsed_ms).as_secs_f64();
        let rate = DecimalBytes(fetched.saturating_mul(1000) / self.elapsed_ms.max(1));
        self.details(format!("{} fetched in {seconds:.2} s ({rate}/s)", DecimalBytes(fetched)))
    }

    /// One line for people: of a fetch that went along with a player.
    pub(crate) fn played_line(&self) -> String {
        self.details(format!("{} of {} fetched", DecimalBytes(self.fetched()), DecimalBytes(self.bytes)))
    }

    /// Lines for people on how we stand with the tracker.
    pub(crate) fn standing_lines(&self) -> Vec<String> {
        let mut lines = standing_lines(self.standing.as_ref());
        if self.standing.as_ref().is_some_and(|s| s.received < self.fetched()) {
            lines.push(
                "not all of this fetch is counted: hosts tell what they gave within two seconds, and what passes within one \
                 public network never counts"
                    .to_owned(),
            );
        }
        lines
    }

    fn fetched(&self) -> u64 {
        self.by_protocol.values().sum()
    }

    fn details(&self, head: String) -> String {
        let fetched = self.fetched();
        let mut parts = vec![head];
        if let Some(ms) = self.first_page_ms {
            parts.push(format!("first page after {ms} ms"));
        }
        let list = |map: &BTreeMap<String, u64>, pages: Option<&BTreeMap<String, u64>>, most: usize| {
            let mut all: Vec<_> = map.iter().collect();
            all.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
            let name = |n: &str| n.chars().take(12).collect::<String>();
            let pages = |n: &str| match pages.and_then(|p| p.get(n)) {
                Some(1) => " in 1 page".to_owned(),
                Some(pages) => format!(" in {pages} pages"),
                None => String::new(),
            };
            let one = |(n, b): &(&String, &u64)| format!("{} {}{}", name(n), DecimalBytes(**b), pages(n));
            let mut text: Vec<_> = all.iter().take(most).map(one).collect();
            if all.len() > most {
                text.push(format!("{} more", all.len() - most));
            }
            text.join(", ")
        };
        if fetched > 0 {
            parts.push(format!("over {}", list(&self.by_protocol, Some(&self.pages_by_protocol), 8)));
            let hosts = self.by_host.len();
            let s = if hosts == 1 { "" } else { "s" };
            parts.push(format!("from {hosts} host{s}: {}", list(&self.by_host, None, 6)));
        }
        if self.resumed_pages > 0 {
            parts.push(format!("{} pages were here already", self.resumed_pages));
        }
        parts.push(format!("{} bad and {} duplicate pages", self.bad_pages, self.duplicate_pages));
        parts.join("; ")
    }
}

/// Lines for people on how we stand with the tracker.
pub(crate) fn standing_lines(standing: Option<&Standing>) -> Vec<String> {
    let Some(s) = standing else { return Vec::new() };
    let (given, received) = (DecimalBytes(s.given), DecimalBytes(s.received));
    let counted =
        format!("the tracker counts {given} given and {received} received for this key; {}", s.effect());
    std::iter::once(counted).chain(s.doubts()).collect()
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iceshare::icet::PeerKey;

    #[test]
    fn figures_say_where_everything_came_from() {
        let flow = |bytes, pages| Flow { bytes, pages, active: 0 };
        let http = || "http".parse().expect("a name");
        let progress = Progress {
            // One more than flows have was held and is not counted yet: it was not here before.
            held: 11,
            pages: 11,
            resumed: 2,
            bytes: 3000,
            bad: 1,
            duplicates: 2,
            first_page: Some(Duration::from_millis(120)),
            listeners: 0,
            hits: 0,
            buffer: Duration::ZERO,
            flows: [
                ((PeerKey([1; 32]), http()), flow(1000, 3)),
                ((PeerKey([2; 32]), http()), flow(2000, 5)),
                ((PeerKey([3; 32]), http()), flow(0, 0)),
            ]
            .into(),
        };
        let standing = Standing {
            given: 5000,
            received: 3000,
            weight: 1.0,
            peers: 2,
            ahead: 0,
            trust: 1.0,
            marks: Vec::new(),
        };
        let figures = Figures::new(&progress, 4000, Duration::from_secs(2), Some(standing));
        assert_eq!(
            figures.standing_lines(),
            [
                "the tracker counts 5.00 kB given and 3.00 kB received for this key; where uploads are scarce we count as a \
                 newcomer; none of the 2 other peers comes before us"
            ]
        );
        let early = Standing { received: 0, ..figures.standing.clone().expect("a standing") };
        let early = Figures { standing: Some(early), ..figures.clone() }.standing_lines();
        assert!(early.len() == 2 && early[1].contains("not all of this fetch is counted: "), "{early:?}");
        assert_eq!(figures.resumed_pages, 2);
        assert_eq!(figures.by_protocol, [("http".to_owned(), 3000)].into());
        assert_eq!(figures.pages_by_protocol, [("http".to_owned(), 8)].into());
        assert_eq!(figures.by_host.len(), 2);
        assert_eq!(figures.flows.len(), 2);
        assert_eq!((figures.flows[1].bytes, figures.flows[1].pages), (2000, 5));
        assert_eq!(
            figures.line(),
            "3.00 kB fetched in 2.00 s (1.50 kB/s); first page after 120 ms; over http 3.00 kB in 8 pages; from 2 hosts: \
             020202020202 2.00 kB, 010101010101 1.00 kB; 2 pages were here already; 1 bad and 2 duplicate pages"
        );
    }
}
