//! Keeps a response from running far ahead of its player.
//!
//! GStreamer's Ogg demuxer loses the duration of a media that has arrived before it asks for the tail, and a player
//! that fills its cache at once fetches in vain when its user moves on.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes that may be sent at once: at the start, and after the media was late.
const BURST: u64 = 128 * 1024;

/// The pace of one response. Time comes in as an argument.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes a second, if there is a pace.
    rate: Option<u64>,
    /// When all that was sent would have been sent at that rate.
    due: Instant,
}

impl Pace {
    pub(crate) fn new(rate: Option<u64>, now: Instant) -> Pace {
        let mut pace = Pace { rate: rate.filter(|r| *r > 0), due: now };
        pace.due = pace.earliest(now);
        pace
    }

    /// When the next bytes may be sent, if that is later than `now`.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Instant> {
        self.due = self.due.max(self.earliest(now));
        (self.due > now).then_some(self.due)
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.due += self.time_of(bytes as u64);
    }

    fn earliest(&self, now: Instant) -> Instant {
        now.checked_sub(self.time_of(BURST)).unwrap_or(now)
    }

    fn time_of(&self, bytes: u64) -> Duration {
        self.rate.map_or(Duration::ZERO, |r| Duration::from_micros(bytes.saturating_mul(1_000_000) / r))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 32 * 1024;

    /// Sends `chunks` as soon as may be; how long that takes.
    fn send(pace: &mut Pace, mut now: Instant, chunks: usize) -> Duration {
        let start = now;
        for _ in 0..chunks {
            now = pace.next(now).unwrap_or(now);
            pace.sent(CHUNK);
        }
        now - start
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let now = Instant::now();
        let mut pace = Pace::new(Some(32 * 1024), now);
        assert_eq!(send(&mut pace, now, 5), Duration::ZERO);
        assert_eq!(send(&mut pace, now, 10), Duration::from_secs(10));
    }

    #[test]
    fn being_late_earns_one_burst_and_no_more() {
        let now = Instant::now();
        let mut pace = Pace::new(Some(32 * 1024), now);
        send(&mut pace, now, 5);
        let later = now + Duration::from_secs(1000);
        assert_eq!(send(&mut pace, later, 5), Duration::ZERO);
        assert_eq!(send(&mut pace, later, 5), Duration::from_secs(5));
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let now = Instant::now();
        for rate in [None, Some(0)] {
            assert_eq!(send(&mut Pace::new(rate, now), now, 1000), Duration::ZERO);
        }
    }
}
