//! How this peer stands with a tracker, for people.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use icet::message::{self, MarkReason};
use serde::Serialize;

/// It is asked for so often at most for who only looks.
const AGAIN: Duration = Duration::from_secs(5);

/// How this peer stands with a tracker, as that last told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// Bytes given to others, over all sessions of this key, as far as the tracker could confirm it with both ends.
    pub given: u64,
    /// Bytes received, counted the same way.
    pub received: u64,
    /// How much this peer counts by what it gives, where uploads are scarce; a newcomer counts 1.
    pub weight: f64,
    /// Other peers at the tracker.
    pub peers: u64,
    /// Of them, those that count for more.
    pub ahead: u64,
    /// How far the tracker trusts this peer: 1 where nothing speaks against it.
    pub trust: f64,
    /// What speaks against it.
    pub marks: Vec<Mark>,
}

/// Something that speaks against this peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// Why, in a word.
    pub reason: &'static str,
    /// How many, as the reason says.
    pub count: u64,
}

impl Standing {
    /// What its contribution does for this peer, as a sentence without capital and stop.
    #[must_use]
    pub fn effect(&self) -> String {
        let w = self.weight;
        let than = if w > 1.05 {
            format!("{} × a newcomer", decimals(w))
        } else if w < 0.95 {
            format!("only {} × a newcomer: giving more raises it", decimals(w))
        } else {
            "as a newcomer".to_owned()
        };
        let place = match (self.peers, self.ahead) {
            (0, _) => "nobody else is here now".to_owned(),
            (n, 0) => format!("none of the {n} other peers comes before us"),
            (n, ahead) => {
                format!(
                    "{ahead} of the {n} other peers {} before us",
                    if ahead == 1 { "comes" } else { "come" }
                )
            }
        };
        format!("where uploads are scarce we count {than}; {place}")
    }

    /// Why the tracker trusts this peer less, as a sentence without capital and stop; none: it trusts it fully.
    #[must_use]
    pub fn doubts(&self) -> Option<String> {
        if self.trust > 0.995 && self.marks.is_empty() {
            return None;
        }
        let marks: Vec<_> = self.marks.iter().filter_map(Mark::sentence).collect();
        let why = if marks.is_empty() { "it does not say why".to_owned() } else { marks.join("; ") };
        // Our word may be doubted where our pages are not.
        if self.trust > 0.995 {
            return Some(format!("the tracker trusts our pages, but not all that we say: {why}"));
        }
        // Rounded down, so that what is less than full never reads as full.
        Some(format!("the tracker trusts us by {:.0} %: {why}", (self.trust * 100.0 - 0.5).max(0.0)))
    }
}

/// Two decimals at most.
fn decimals(n: f64) -> String {
    let text = format!("{n:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Mark {
    fn sentence(&self) -> Option<String> {
        let count =
            |one: &str, more: &str| format!("{} {}", self.count, if self.count == 1 { one } else { more });
        Some(match self.reason {
            "altered" => {
                format!(
                    "{} that pages from here were altered (`iceshare verify` tells if files here are broken)",
                    count("receiver says", "receivers say")
                )
            }
            "unheeded" => {
                format!("{} nothing was taken up of", count("order to us that", "orders to us that"))
            }
            "accuses" => {
                format!(
                    "{} altered, more than it believes one peer",
                    count("page was told from here as", "pages were told from here as")
                )
            }
            "complains" => {
                "so many failures were told from here that they are not believed any more".to_owned()
            }
            "lacks" => format!("several did not find here what we said we hold, in {} media", self.count),
            _ => return None,
        })
    }
}

impl From<message::Standing> for Standing {
    fn from(m: message::Standing) -> Standing {
        let reason = |r| match r {
            MarkReason::ALTERED => "altered",
            MarkReason::UNHEEDED => "unheeded",
            MarkReason::ACCUSES => "accuses",
            MarkReason::COMPLAINS => "complains",
            MarkReason::LACKS => "lacks",
            _ => "other",
        };
        Standing {
            given: m.sent,
            received: m.received,
            weight: f64::from(m.weight) / 1000.0,
            peers: m.peers,
            ahead: m.ahead.min(m.peers),
            trust: f64::from(m.trust.min(1000)) / 1000.0,
            marks: m.marks.iter().map(|m| Mark { reason: reason(m.reason), count: m.count }).collect(),
        }
    }
}

/// The last that a tracker told, and when it was asked.
#[derive(Debug, Default)]
pub(crate) struct Told(Mutex<(Option<Instant>, Option<Standing>)>);

impl Told {
    fn lock(&self) -> MutexGuard<'_, (Option<Instant>, Option<Standing>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, standing: Standing) {
        self.lock().1 = Some(standing);
    }

    pub(crate) fn last(&self) -> Option<Standing> {
        self.lock().1.clone()
    }

    /// Whether it is time to ask again; it counts as asked then.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let asked = &mut self.lock().0;
        let due = asked.is_none_or(|at| now.duration_since(at) >= AGAIN);
        if due {
            *asked = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(weight: u32, peers: u64, ahead: u64, trust: u32, marks: &[(MarkReason, u64)]) -> Standing {
        let marks =
            marks.iter().map(|(reason, count)| message::Mark { reason: *reason, count: *count }).collect();
        let m = message::Standing { request: 1, sent: 3, received: 4, weight, peers, ahead, trust, marks };
        m.into()
    }

    #[test]
    fn the_effect_is_told_in_words() {
        let effect = |w, p, a| told(w, p, a, 1000, &[]).effect();
        assert_eq!(
            effect(1520, 12, 3),
            "where uploads are scarce we count 1.52 × a newcomer; 3 of the 12 other peers come before us"
        );
        assert_eq!(
            effect(1000, 0, 0),
            "where uploads are scarce we count as a newcomer; nobody else is here now"
        );
        assert!(effect(200, 5, 1).contains("only 0.2 × a newcomer: giving more raises it; 1 of the 5"));
        assert!(effect(250, 5, 1).contains("only 0.25 × a newcomer:"));
        assert!(effect(2000, 5, 1).contains(" 2 × a newcomer;"));
        assert!(effect(200, 5, 1).contains("peers comes before us"));
        // A tracker's nonsense stays readable.
        assert!(effect(u32::MAX, 1, 7).contains("1 of the 1"));
    }

    #[test]
    fn doubts_are_told_with_their_reasons() {
        assert_eq!(told(1000, 1, 0, 1000, &[]).doubts(), None);
        let doubts = told(1000, 1, 0, 607, &[(MarkReason::ALTERED, 1), (MarkReason::UNHEEDED, 12)]).doubts();
        assert_eq!(
            doubts.as_deref(),
            Some(
                "the tracker trusts us by 60 %: 1 receiver says that pages from here were altered (`iceshare verify` tells if \
                 files here are broken); 12 orders to us that nothing was taken up of"
            )
        );
        let many = told(1000, 1, 0, 500, &[(MarkReason::ACCUSES, 12)]).doubts();
        assert!(many.is_some_and(|d| {
            d.ends_with("12 pages were told from here as altered, more than it believes one peer")
        }));
        let word = told(1000, 1, 0, 1000, &[(MarkReason::COMPLAINS, 60)]).doubts();
        assert!(
            word.is_some_and(|d| d.starts_with("the tracker trusts our pages, but not all that we say: so"))
        );
        let later = told(1000, 1, 0, 990, &[(MarkReason(900), 1)]).doubts();
        assert_eq!(later.as_deref(), Some("the tracker trusts us by 98 %: it does not say why"));
    }

    #[test]
    fn who_only_looks_asks_now_and_then() {
        let (told, start) = (Told::default(), Instant::now());
        assert!(told.is_due(start) && !told.is_due(start + AGAIN / 2) && told.is_due(start + AGAIN));
    }
}
