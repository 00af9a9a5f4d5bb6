//! Round-trip time (RFC 9002, section 5).

use std::time::Duration;

/// Longest that the other end may hold an acknowledgement back.
pub(crate) const MAX_ACK_DELAY: Duration = Duration::from_millis(25);
/// Timer granularity.
pub(crate) const GRANULARITY: Duration = Duration::from_millis(1);
/// Assumed before there is a sample.
const INITIAL: Duration = Duration::from_millis(333);

/// Estimates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rtt {
    latest: Duration,
    smoothed: Option<Duration>,
    variance: Duration,
    min: Duration,
}

impl Default for Rtt {
    fn default() -> Rtt {
        Rtt { latest: INITIAL, smoothed: None, variance: INITIAL / 2, min: Duration::MAX }
    }
}

impl Rtt {
    /// A sample, and how long the other end says that it held the acknowledgement back.
    pub(crate) fn sample(&mut self, rtt: Duration, delay: Duration) {
        self.latest = rtt;
        self.min = self.min.min(rtt);
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(rtt);
            self.variance = rtt / 2;
            return;
        };
        let delay = delay.min(MAX_ACK_DELAY);
        let adjusted = if rtt >= self.min + delay { rtt - delay } else { rtt };
        self.variance = (self.variance * 3 + smoothed.abs_diff(adjusted)) / 4;
        self.smoothed = Some((smoothed * 7 + adjusted) / 8);
    }

    pub(crate) fn smoothed(&self) -> Duration {
        self.smoothed.unwrap_or(INITIAL)
    }

    pub(crate) fn latest(&self) -> Duration {
        self.latest
    }

    /// The shortest sample; a very long time before there is one.
    pub(crate) fn shortest(&self) -> Duration {
        self.min
    }

    /// Whether there was a sample.
    pub(crate) fn is_known(&self) -> bool {
        self.smoothed.is_some()
    }

    /// A packet that was sent so long before one that was acknowledged is lost (section 6.1.2).
    pub(crate) fn loss_delay(&self) -> Duration {
        (self.latest.max(self.smoothed()) * 9 / 8).max(GRANULARITY)
    }

    /// Probe timeout without backoff (section 6.2.1).
    pub(crate) fn probe_timeout(&self) -> Duration {
        self.smoothed() + (self.variance * 4).max(GRANULARITY) + MAX_ACK_DELAY
    }

    /// Longer than this without any acknowledgement is persistent congestion (section 7.6.1).
    pub(crate) fn persistent(&self) -> Duration {
        self.probe_timeout() * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_follow_the_samples() {
        let ms = Duration::from_millis;
        let mut rtt = Rtt::default();
        assert!(!rtt.is_known() && rtt.probe_timeout() >= ms(333));
        rtt.sample(ms(100), ms(90));
        assert_eq!((rtt.smoothed(), rtt.probe_timeout()), (ms(100), ms(100 + 200 + 25)));
        // Held back for 20 ms: not the path's.
        rtt.sample(ms(120), ms(20));
        assert_eq!(rtt.smoothed(), ms(100));
        // More than is allowed is not believed, and nothing goes below the least that was seen.
        rtt.sample(ms(150), ms(1000));
        assert!(rtt.smoothed() > ms(103));
        for _ in 0..50 {
            rtt.sample(ms(10), ms(25));
        }
        assert!(rtt.smoothed() < ms(11) && rtt.loss_delay() < ms(12));
        rtt.sample(Duration::ZERO, Duration::ZERO);
        assert!(rtt.loss_delay() >= GRANULARITY);
    }
}
