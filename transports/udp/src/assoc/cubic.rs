//! Congestion control: CUBIC (RFC 9438), begun by HyStart++ (RFC 9406), with the events of RFC 9002, section 7.

use std::time::Duration;

use iceshare::icet::Now;

use super::rtt::Rtt;

/// Datagrams of the initial window (RFC 6928) and of the smallest.
const INITIAL: u64 = 10;
const SMALLEST: u64 = 2;
/// RFC 9438, section 4: how fast the window grows back, and to what it is reduced.
const C: f64 = 0.4;
const BETA: f64 = 0.7;
/// RFC 9406, section 4.3.
const MIN_RTT_THRESHOLD: Duration = Duration::from_millis(4);
const MAX_RTT_THRESHOLD: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 8;
const SAMPLES: u32 = 8;
const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u32 = 5;

/// One round of HyStart++: until what was sent at its beginning is acknowledged.
#[derive(Debug, Clone, Copy)]
struct HyStart {
    /// The round ends when this packet is acknowledged.
    ends: u64,
    last_min: Duration,
    min: Duration,
    samples: u32,
    /// Conservative slow start: the baseline of its beginning, and its rounds so far.
    css: Option<(Duration, u32)>,
}

/// The window.
#[derive(Debug, Clone)]
pub(crate) struct Cubic {
    window: u64,
    threshold: u64,
    mtu: u64,
    hystart: Option<HyStart>,
    /// The window before the last reduction, in bytes.
    w_max: f64,
    /// What Reno would have.
    w_est: f64,
    epoch: Option<Epoch>,
    /// Losses of packets sent before are of the same event.
    recovery: Option<Now>,
    /// Acknowledged bytes that did not make a byte yet.
    rest: f64,
}

/// Since the window began to grow again.
#[derive(Debug, Clone, Copy)]
struct Epoch {
    start: Now,
    /// Seconds until the window is `w_max` again.
    k: f64,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "windows need no 53 bits and are positive"
)]
impl Cubic {
    pub(crate) fn new(mtu: usize) -> Cubic {
        let mtu = mtu as u64;
        Cubic {
            window: INITIAL * mtu,
            threshold: u64::MAX,
            mtu,
            hystart: Some(HyStart {
                ends: 0,
                last_min: Duration::MAX,
                min: Duration::MAX,
                samples: 0,
                css: None,
            }),
            w_max: 0.0,
            w_est: 0.0,
            epoch: None,
            recovery: None,
            rest: 0.0,
        }
    }

    /// Bytes that may be in flight.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    pub(crate) fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// Datagrams are larger or smaller now.
    pub(crate) fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu as u64;
        self.window = self.window.max(SMALLEST * self.mtu);
    }

    /// A packet of `bytes`, sent at `sent`, was acknowledged. `limited`: the window was what held the sender back. `next`: the packet
    /// number that will be sent next.
    pub(crate) fn acked(
        &mut self,
        now: Now,
        (number, sent, bytes): (u64, Now, u64),
        rtt: &Rtt,
        limited: bool,
        next: u64,
    ) {
        if self.recovery.is_some_and(|r| sent <= r) {
            return;
        }
        if !limited {
            // What is not used does not grow; and the time passes that CUBIC counts (RFC 9438, section 5.8).
            self.epoch = None;
            return;
        }
        if self.in_slow_start() {
            self.slow_start(number, bytes, rtt, next);
        } else {
            self.avoidance(now, bytes, rtt);
        }
    }

    fn slow_start(&mut self, number: u64, bytes: u64, rtt: &Rtt, next: u64) {
        let mut growth = bytes;
        if let Some(h) = &mut self.hystart {
            h.min = h.min.min(rtt.latest());
            h.samples += 1;
            let enough = h.samples >= SAMPLES && h.last_min < Duration::MAX && h.min < Duration::MAX;
            let threshold = (h.last_min.min(Duration::from_secs(60)) / MIN_RTT_DIVISOR)
                .clamp(MIN_RTT_THRESHOLD, MAX_RTT_THRESHOLD);
            match &mut h.css {
                None if enough && h.min >= h.last_min + threshold => h.css = Some((h.min, 0)),
                // It was noise: back to slow start.
                Some((baseline, _)) if h.samples >= SAMPLES && h.min < *baseline => h.css = None,
                _ => {}
            }
            if h.css.is_some() {
                growth = bytes / CSS_GROWTH_DIVISOR;
            }
            if number >= h.ends {
                (h.ends, h.last_min, h.min, h.samples) = (next, h.min, Duration::MAX, 0);
                if let Some((_, rounds)) = &mut h.css {
                    *rounds += 1;
                    if *rounds >= CSS_ROUNDS {
                        self.threshold = self.window;
                        self.hystart = None;
                    }
                }
            }
        }
        self.window = self.window.saturating_add(growth);
    }

    fn avoidance(&mut self, now: Now, bytes: u64, rtt: &Rtt) {
        let (mtu, window) = (self.mtu as f64, self.window as f64);
        if self.epoch.is_none() {
            // After a reduction, or after slow start or a pause (then W_max is where we are).
            self.w_max = self.w_max.max(window);
            let k = ((self.w_max - window) / mtu / C).cbrt();
            self.epoch = Some(Epoch { start: now, k });
            self.w_est = window;
        }
        let Some(epoch) = self.epoch else { return };
        let cubic = |t: Duration| C * (t.as_secs_f64() - epoch.k).powi(3) * mtu + self.w_max;
        let t = now.since(epoch.start);
        // The Reno-friendly region (section 4.3).
        let alpha = if self.w_est >= self.w_max { 1.0 } else { 3.0 * (1.0 - BETA) / (1.0 + BETA) };
        self.w_est += alpha * bytes as f64 / window * mtu;
        let target = cubic(t + rtt.smoothed()).clamp(window, 1.5 * window);
        let growth = if cubic(t) < self.w_est {
            (self.w_est - window).max(0.0)
        } else {
            (target - window) / window * bytes as f64
        };
        self.rest += growth;
        let whole = self.rest.floor().max(0.0);
        self.rest -= whole;
        self.window = self.window.saturating_add(whole as u64);
    }

    /// A packet that was sent at `sent` was lost. Says whether that began a new recovery.
    pub(crate) fn lost(&mut self, now: Now, sent: Now) -> bool {
        if self.recovery.is_some_and(|r| sent <= r) {
            return false;
        }
        self.recovery = Some(now);
        let window = self.window as f64;
        // Fast convergence (section 4.7): who comes later gets room.
        self.w_max = if window < self.w_max { window * (1.0 + BETA) / 2.0 } else { window };
        self.window = ((window * BETA) as u64).max(SMALLEST * self.mtu);
        self.threshold = self.window;
        self.hystart = None;
        self.epoch = None;
        self.rest = 0.0;
        true
    }

    /// Nothing came through for a long while (RFC 9002, section 7.6).
    pub(crate) fn persistent_congestion(&mut self) {
        self.window = SMALLEST * self.mtu;
        self.recovery = None;
        self.epoch = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u64 = 1000;

    fn rtt(ms: u64) -> Rtt {
        let mut rtt = Rtt::default();
        rtt.sample(Duration::from_millis(ms), Duration::ZERO);
        rtt
    }

    /// A round trip in which the whole window is acknowledged.
    fn round(cubic: &mut Cubic, number: &mut u64, now: &mut Now, rtt: &Rtt) {
        let next = *number + cubic.window() / MTU;
        let sent = *now;
        *now = *now + rtt.latest();
        while *number < next {
            cubic.acked(*now, (*number, sent, MTU), rtt, true, next);
            *number += 1;
        }
    }

    #[test]
    fn slow_start_doubles_until_delay_grows_and_then_goes_carefully() {
        let (mut c, mut n, mut now) = (Cubic::new(1000), 0, Now(0));
        for doubled in [20, 40, 80, 160] {
            round(&mut c, &mut n, &mut now, &rtt(50));
            assert_eq!(c.window(), doubled * MTU);
        }
        // The queue fills: quarter speed, five rounds long.
        let before = c.window();
        round(&mut c, &mut n, &mut now, &rtt(60));
        round(&mut c, &mut n, &mut now, &rtt(60));
        assert!(c.window() < before * 7 / 4, "{}", c.window());
        for _ in 0..5 {
            round(&mut c, &mut n, &mut now, &rtt(60));
        }
        assert!(!c.in_slow_start());
        let before = c.window();
        round(&mut c, &mut n, &mut now, &rtt(60));
        assert!(c.window() < before + 3 * MTU);
    }

    #[test]
    fn noise_does_not_end_slow_start() {
        let (mut c, mut n, mut now) = (Cubic::new(1000), 0, Now(0));
        for ms in [50, 50, 57, 50, 50] {
            round(&mut c, &mut n, &mut now, &rtt(ms));
        }
        assert!(c.in_slow_start() && c.window() > 160 * MTU, "{}", c.window());
    }

    #[test]
    fn the_window_comes_back_along_a_cubic() {
        let (mut c, mut n, mut now) = (Cubic::new(1000), 0, Now(0));
        c.window = 1000 * MTU;
        assert!(c.lost(now, now) && c.window() == 700 * MTU);
        assert!(!c.lost(now, now), "the same event");
        let rtt = rtt(100);
        now = now + Duration::from_millis(100);
        // K = cbrt(W_max * (1 - beta) / C) = cbrt(300 / 0.4) = 9.09 s (equation 2).
        let start = now;
        while c.window() < 995 * MTU {
            round(&mut c, &mut n, &mut now, &rtt);
            assert!(now.since(start) < Duration::from_secs(20), "{}", c.window());
        }
        let took = now.since(start).as_secs_f64();
        assert!((6.5..9.5).contains(&took), "{took}");
        // Flat around W_max, then faster and faster.
        let flat = c.window();
        (0..10).for_each(|_| round(&mut c, &mut n, &mut now, &rtt));
        let first = c.window() - flat;
        (0..50).for_each(|_| round(&mut c, &mut n, &mut now, &rtt));
        let before = c.window();
        (0..10).for_each(|_| round(&mut c, &mut n, &mut now, &rtt));
        assert!(first < 5 * MTU && c.window() - before > 20 * MTU, "{first} {}", c.window() - before);
    }

    #[test]
    fn on_short_paths_it_is_no_slower_than_reno() {
        let (mut c, mut n, mut now) = (Cubic::new(1000), 0, Now(0));
        c.window = 20 * MTU;
        c.lost(now, now);
        now = now + Duration::from_millis(1);
        // Reno with beta 0.7 gains about 0.53 datagrams a round trip: 6 in 12 rounds of 5 ms; CUBIC alone would take K = 2.5 s.
        for _ in 0..14 {
            round(&mut c, &mut n, &mut now, &rtt(5));
        }
        assert!(c.window() >= 20 * MTU, "{}", c.window());
    }

    #[test]
    fn what_is_not_used_does_not_grow() {
        let mut c = Cubic::new(1000);
        c.acked(Now(5), (0, Now(0), MTU), &rtt(5), false, 1);
        assert_eq!(c.window(), 10 * MTU);
        for n in 1..100 {
            c.lost(Now(n * 10), Now(n * 10));
        }
        assert_eq!(c.window(), 2 * MTU);
        c.persistent_congestion();
        assert_eq!(c.window(), 2 * MTU);
    }
}
