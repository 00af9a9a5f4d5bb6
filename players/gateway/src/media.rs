//! An open media as the gateway serves it.

use std::io;

use futures_util::stream::{self, BoxStream, StreamExt};
use iceshare::store::PageRun;
use iceshare::{Media, Standing};

use crate::playable::{Pages, Playable, Reader, Run, Sender, State, Stats, Table};

/// A player is fed at most so many times faster than it plays ...
const PACE: u64 = 32;
/// ... but always so fast, in bytes a second.
const PACE_FLOOR: u64 = 2_000_000;

impl Playable for Media {
    fn length(&self) -> u64 {
        self.manifest().bytes
    }

    fn mime(&self) -> &str {
        self.manifest().mime()
    }

    fn etag(&self) -> String {
        // The root of the page table stands for every byte.
        self.manifest().root.0.iter().fold(String::new(), |t, b| t + &format!("{b:02x}"))
    }

    fn name(&self) -> String {
        self.manifest().path.file_name().to_owned()
    }

    fn title(&self) -> String {
        self.manifest().title.clone()
    }

    fn open_reader(&self) -> Box<dyn Reader> {
        Box::new(self.reader())
    }

    fn open_live(&self, from: Option<u64>) -> Option<Pages> {
        let reader = Media::is_live(self).then(|| self.live_reader())?;
        let reader = if let Some(from) = from { reader.from_page(from) } else { reader };
        let pages = stream::try_unfold(reader, |mut reader| async move {
            let page = reader.next().await.map_err(io::Error::other)?;
            Ok(page.map(|p| ((p.number, p.bytes), reader)))
        });
        Some(pages.boxed())
    }

    fn open_titles(&self) -> Option<BoxStream<'static, Option<String>>> {
        let titles = Media::is_live(self).then(|| self.heard_titles())?;
        let titles = stream::unfold(titles, |mut titles| async move { Some((titles.next().await?, titles)) });
        Some(titles.boxed())
    }

    fn is_live(&self) -> bool {
        Media::is_live(self)
    }

    fn pace(&self) -> Option<u64> {
        let m = self.manifest();
        let mean = m.bytes.saturating_mul(1_000_000).checked_div(m.duration)?;
        Some(mean.saturating_mul(PACE).max(PACE_FLOOR))
    }

    fn table(&self) -> Table {
        let table = self.store().table();
        let runs = runs(&table.runs, table.duration);
        let held = runs.iter().map(|r| r.held).sum();
        Table { pages: table.pages, held, duration_us: table.duration, runs }
    }

    fn standing(&self) -> Option<Standing> {
        Media::standing(self)
    }

    fn stats(&self) -> Stats {
        let progress = self.progress();
        let mut hosts: Vec<Sender> = progress
            .flows
            .iter()
            .filter(|(_, flow)| flow.bytes > 0)
            .map(|((host, protocol), flow)| Sender {
                host: host.short(),
                protocol: protocol.to_string(),
                bytes: flow.bytes,
            })
            .collect();
        hosts.sort_by_key(|h| std::cmp::Reverse(h.bytes));
        Stats {
            fetched: progress.bytes,
            first_page_ms: progress.first_page.and_then(|d| u64::try_from(d.as_millis()).ok()),
            bad: progress.bad,
            duplicates: progress.duplicates,
            listeners: progress.listeners,
            hosts,
        }
    }
}

/// A run ends in time where the next one begins.
fn runs(pages: &[PageRun], duration: u64) -> Vec<Run> {
    // Where logical streams are interleaved, a page may begin a little before the first one: a seek bar does not.
    let at = |r: &PageRun| r.time.map(|t| u64::try_from(t).unwrap_or(0));
    let ends = pages.iter().skip(1).map(at).chain([(duration > 0).then_some(duration)]);
    pages
        .iter()
        .zip(ends)
        .map(|(r, to_us)| Run {
            first: r.first,
            last: r.last,
            held: if r.held { r.last - r.first + 1 } else { 0 },
            state: if r.held { State::Held } else { State::Missing },
            from_us: at(r),
            to_us,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_a_beginning_and_an_end_in_time() {
        let run = |first, last, held, time| PageRun { first, last, held, offset: None, time };
        let table =
            runs(&[run(0, 4, true, Some(-3)), run(5, 9, false, None), run(10, 10, true, Some(900))], 1000);
        let got: Vec<_> = table.iter().map(|r| (r.held, r.state, r.from_us, r.to_us)).collect();
        assert_eq!(
            got,
            [
                (5, State::Held, Some(0), None),
                (0, State::Missing, None, Some(900)),
                (1, State::Held, Some(900), Some(1000))
            ]
        );
    }
}
