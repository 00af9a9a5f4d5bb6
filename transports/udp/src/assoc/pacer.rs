//! Spreads packets over the round trip (RFC 9002, section 7.7): a bucket that fills at the rate of the window.

use std::time::Duration;

use iceshare::icet::Now;

/// Bursts last so long at the paced rate, or have so many datagrams.
const BURST: Duration = Duration::from_millis(2);
const BURST_DATAGRAMS: f64 = 10.0;

/// The bucket. It may go into debt by what was sent since it was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pacer {
    tokens: f64,
    at: Now,
}

#[expect(clippy::cast_precision_loss, reason = "rates need no 53 bits")]
impl Pacer {
    pub(crate) fn new(now: Now) -> Pacer {
        Pacer { tokens: f64::MAX, at: now }
    }

    /// Bytes a second of a `window` in a round trip, with a little to spare so that the window stays the limit.
    pub(crate) fn rate(window: u64, rtt: Duration, slow_start: bool) -> f64 {
        let factor = if slow_start { 2.0 } else { 1.25 };
        factor * window as f64 / rtt.as_secs_f64().max(1e-6)
    }

    /// When the next datagram of `mtu` bytes may go: not before `now`.
    pub(crate) fn ready(&mut self, now: Now, rate: f64, mtu: usize) -> Now {
        let burst = (rate * BURST.as_secs_f64()).max(BURST_DATAGRAMS * mtu as f64);
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * rate).min(burst);
        self.at = self.at.max(now);
        if self.tokens >= 0.0 {
            return now;
        }
        now + Duration::from_secs_f64((-self.tokens / rate).min(1.0)) + Duration::from_micros(1)
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.tokens -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_and_bursts_are_short() {
        let rate = Pacer::rate(125_000, Duration::from_millis(100), false);
        let mut pacer = Pacer::new(Now(0));
        let (mut now, mut sent, mut burst, mut longest) = (Now(0), 0usize, 0usize, 0usize);
        while now < Now(2_000_000) {
            let at = pacer.ready(now, rate, 1200);
            if at > now {
                burst = 0;
                now = at;
                continue;
            }
            pacer.sent(1200);
            sent += 1200;
            burst += 1200;
            longest = longest.max(burst);
        }
        let wanted = 2.0 * rate;
        let sent = sent as f64;
        assert!((wanted..wanted * 1.01 + 14_000.0).contains(&sent), "{sent} of {wanted}");
        assert!(longest <= 11 * 1200 + 1200, "{longest}");
    }
}
