//! How many connections at once are worth their while, where each request takes one: each has a congestion control of its own, so
//! that many take more of a shared line than their part, and one may be too few for a long one.
//!
//! Learned by trials: with one fewer, or one more, while the rate is steady. A line that is full carries as much with one fewer; one
//! on which connections are slow by themselves carries less in proportion. Half of that proportion decides, so that what is only
//! taken from others does not count as a gain: beside one flow of TCP a third connection brings an eighth, not half.

use std::time::Duration;

use icet::Now;

/// Where it begins, and bounds.
const FIRST: usize = 4;
const FEWEST: usize = 2;
/// Rates are means over at least so long, and so many pages.
const PERIOD: (Duration, u32) = (Duration::from_millis(1500), 24);
/// What comes so soon after a change tells nothing of it yet.
const SETTLES: Duration = Duration::from_millis(1000);
/// A rate that changes by such a part is not steady.
const RISES: f64 = 1.15;
/// Periods between two trials, after one that changed nothing in either direction.
const RESTS: u32 = 6;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Trial {
    /// None; how many periods until the next one.
    Rests(u32),
    /// With one fewer or one more than before, when the rate was so.
    Runs { before: usize, rate: f64 },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lanes {
    now: usize,
    trial: Trial,
    /// Whether the next trial is with one more.
    up: bool,
    /// Trials in a row that changed nothing.
    vain: u32,
    since: Now,
    bytes: u64,
    pages: u32,
    /// Bytes a second in the last period.
    rate: Option<f64>,
}

impl Lanes {
    pub(super) fn new(now: Now) -> Lanes {
        Lanes {
            now: FIRST,
            trial: Trial::Rests(0),
            up: false,
            vain: 0,
            since: now,
            bytes: 0,
            pages: 0,
            rate: None,
        }
    }

    /// How many connections there may be at once, if `most` at most.
    pub(super) fn count(&self, most: usize) -> usize {
        self.now.clamp(FEWEST, most.max(FEWEST))
    }

    /// Nothing was under way: what was measured across the pause says nothing.
    pub(super) fn begin(&mut self, now: Now) {
        if let Trial::Runs { before, .. } = self.trial {
            (self.now, self.trial) = (before, Trial::Rests(1));
        }
        self.rate = None;
        self.restart(now);
    }

    fn restart(&mut self, at: Now) {
        (self.since, self.bytes, self.pages) = (at, 0, 0);
    }

    /// A page came.
    pub(super) fn page(&mut self, now: Now, len: u32, most: usize) {
        if now < self.since {
            return;
        }
        self.bytes += u64::from(len);
        self.pages += 1;
        let span = now.since(self.since);
        if span < PERIOD.0 || self.pages < PERIOD.1 {
            return;
        }
        let rate = self.bytes as f64 / span.as_secs_f64();
        let last = self.rate.replace(rate);
        self.restart(now);
        match self.trial {
            Trial::Runs { before, rate: then } => {
                let half = 0.5 / before as f64;
                let keeps =
                    if self.now > before { rate >= then * (1.0 + half) } else { rate >= then * (1.0 - half) };
                if keeps {
                    // The same way on.
                    (self.vain, self.trial) = (0, Trial::Rests(0));
                } else {
                    self.now = before;
                    self.up = !self.up;
                    self.vain += 1;
                    self.trial = Trial::Rests(if self.vain < 2 { 0 } else { RESTS });
                    self.rate = None;
                    self.restart(now + SETTLES);
                }
            }
            Trial::Rests(n) if n > 0 => self.trial = Trial::Rests(n - 1),
            Trial::Rests(_) => {
                let steady = last.is_some_and(|last| rate < last * RISES && rate > last / RISES);
                if !steady {
                    return;
                }
                let before = self.count(most);
                self.up = if before <= FEWEST { true } else { self.up && before < most };
                self.now = if self.up { before + 1 } else { before - 1 };
                self.now = self.count(most);
                if self.now == before {
                    self.trial = Trial::Rests(RESTS);
                    return;
                }
                self.trial = Trial::Runs { before, rate: (rate + last.unwrap_or(rate)) / 2.0 };
                self.restart(now + SETTLES);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where it ends up after so many seconds on a line that carries `rate(n)` bytes a second with `n` connections, within 5 %.
    fn settles(seconds: u64, rate: impl Fn(usize) -> f64) -> f64 {
        let mut lanes = Lanes::new(Now(0));
        let (mut now, mut seen) = (0.0, Vec::new());
        let mut noise = 0.0f64;
        while now < seconds as f64 {
            noise += 0.7;
            now += 4000.0 / (rate(lanes.count(6)) * (1.0 + 0.05 * noise.sin()));
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            lanes.page(Now((now * 1e6) as u64), 4000, 6);
            if now > seconds as f64 / 2.0 {
                seen.push(lanes.count(6) as f64);
            }
        }
        seen.iter().sum::<f64>() / seen.len() as f64
    }

    #[test]
    fn as_many_as_the_line_gains_from() {
        // Full with any.
        let n = settles(60, |_| 1e6);
        assert!(n < 2.5, "{n}");
        // Beside one flow of TCP: more only take from it.
        let n = settles(60, |n| 1.2e6 * n as f64 / (n as f64 + 1.0));
        assert!(n < 2.5, "{n}");
        // Each is slow by itself.
        let n = settles(60, |n| 2e5 * n as f64);
        assert!(n > 5.0, "{n}");
        // Until four fill it.
        let n = settles(60, |n| (2.5e5 * n as f64).min(1e6));
        assert!((3.5..4.5).contains(&n), "{n}");
    }

    #[test]
    fn a_pause_ends_a_trial() {
        let mut lanes = Lanes::new(Now(0));
        let mut now = 0;
        while !matches!(lanes.trial, Trial::Runs { .. }) {
            now += 10_000;
            lanes.page(Now(now), 4000, 6);
        }
        assert_eq!(lanes.count(6), FIRST - 1);
        lanes.begin(Now(now));
        assert_eq!(lanes.count(6), FIRST);
        assert_eq!(lanes.count(1), FEWEST);
    }
}
