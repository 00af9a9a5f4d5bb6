//! Who may write how much, when: sans-IO, time as an argument.
//!
//! A token bucket that may go into debt (so that it is exact in the long run whatever the size of a write), and two
//! queues. Each request has at most one write waiting, so a queue in order of arrival is a round robin over requests:
//! a slow reader holds nobody up. Ticketed requests come before anonymous ones; those have a bucket of their own besides.

use std::collections::VecDeque;
use std::time::Duration;

use icet::Now;

/// Bytes that may be sent at once after a pause: 50 ms of the rate, at least this.
const BURST: f64 = 64.0 * 1024.0;

/// A write that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Wait(pub(super) u64);

/// Whose turn comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Ticketed,
    Anonymous,
}

/// Tokens that flow in at a rate; taking them may leave a debt.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Now,
}

impl Bucket {
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn new(rate: u64, now: Now) -> Bucket {
        let rate = (rate as f64).max(1.0);
        let burst = (rate / 20.0).max(BURST.min(rate));
        Bucket { rate, burst, tokens: burst, at: now }
    }

    fn refill(&mut self, now: Now) {
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * self.rate).min(self.burst);
        self.at = self.at.max(now);
    }

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn take(&mut self, now: Now, bytes: usize) {
        self.refill(now);
        self.tokens -= bytes as f64;
    }

    /// When there is no debt; not before `now`.
    pub(super) fn ready(&self, now: Now) -> Now {
        let mut later = self.clone();
        later.refill(now);
        if later.tokens > 0.0 {
            return now;
        }
        // A microsecond more, so that rounding never leaves a debt of nothing.
        now + Duration::from_secs_f64(-later.tokens / later.rate) + Duration::from_micros(1)
    }
}

#[derive(Debug)]
struct Waiting {
    wait: Wait,
    bytes: usize,
    /// Not before: the ticket's own rate.
    after: Now,
}

/// The upload of a peer over all protocols.
#[derive(Debug)]
pub(super) struct Limiter {
    all: Option<Bucket>,
    anonymous: Option<Bucket>,
    ticketed_queue: VecDeque<Waiting>,
    anonymous_queue: VecDeque<Waiting>,
    next: u64,
}

impl Limiter {
    /// `up`: bytes a second in all; `share`: of them, at most this part for anonymous requests.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(super) fn new(up: Option<u64>, share: Option<f64>, now: Now) -> Limiter {
        let part = share.zip(up).map(|(s, up)| (s.clamp(0.0, 1.0) * up as f64) as u64);
        Limiter {
            all: up.map(|r| Bucket::new(r, now)),
            anonymous: part.map(|r| Bucket::new(r, now)),
            ticketed_queue: VecDeque::new(),
            anonymous_queue: VecDeque::new(),
            next: 0,
        }
    }

    /// Whether `class` is never held back.
    pub(super) fn is_free(&self, class: Class) -> bool {
        self.all.is_none() && (class == Class::Ticketed || self.anonymous.is_none())
    }

    /// Queues a write.
    pub(super) fn ask(&mut self, class: Class, bytes: usize, after: Now) -> Wait {
        self.next += 1;
        let wait = Wait(self.next);
        self.queue(class).push_back(Waiting { wait, bytes, after });
        wait
    }

    fn queue(&mut self, class: Class) -> &mut VecDeque<Waiting> {
        match class {
            Class::Ticketed => &mut self.ticketed_queue,
            Class::Anonymous => &mut self.anonymous_queue,
        }
    }

    /// Takes a write out of the queue, if it is still there.
    pub(super) fn forget(&mut self, wait: Wait) {
        self.ticketed_queue.retain(|w| w.wait != wait);
        self.anonymous_queue.retain(|w| w.wait != wait);
    }

    /// The next write that may go now.
    pub(super) fn grant(&mut self, now: Now) -> Option<Wait> {
        if self.all.as_ref().is_some_and(|b| b.ready(now) > now) {
            return None;
        }
        let first = |q: &VecDeque<Waiting>| q.iter().position(|w| w.after <= now);
        let granted = if let Some(i) = first(&self.ticketed_queue) {
            self.ticketed_queue.remove(i)
        } else if self.anonymous.as_ref().is_none_or(|b| b.ready(now) <= now) {
            let granted = first(&self.anonymous_queue).and_then(|i| self.anonymous_queue.remove(i));
            if let (Some(bucket), Some(w)) = (&mut self.anonymous, &granted) {
                bucket.take(now, w.bytes);
            }
            granted
        } else {
            None
        }?;
        if let Some(bucket) = &mut self.all {
            bucket.take(now, granted.bytes);
        }
        Some(granted.wait)
    }

    /// When [`Limiter::grant`] is worth another try; none if nothing waits.
    pub(super) fn next_at(&self, now: Now) -> Option<Now> {
        let all = self.all.as_ref().map_or(now, |b| b.ready(now));
        let of = |q: &VecDeque<Waiting>| q.iter().map(|w| w.after).min();
        let ticketed = of(&self.ticketed_queue).map(|t| t.max(all));
        let own = self.anonymous.as_ref().map_or(now, |b| b.ready(now));
        let anonymous = of(&self.anonymous_queue).map(|t| t.max(all).max(own));
        ticketed.into_iter().chain(anonymous).min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn at(ms: u64) -> Now {
        Now(ms * 1000)
    }

    /// Lets everyone in `asks` write 16 KiB again and again for a second; bytes by asker.
    fn second(limiter: &mut Limiter, asks: &[(Class, u64)]) -> Vec<u64> {
        let mut got = vec![0; asks.len()];
        let mut waits: BTreeMap<Wait, usize> = BTreeMap::new();
        for (i, (class, _)) in asks.iter().enumerate() {
            waits.insert(limiter.ask(*class, 16384, at(0)), i);
        }
        let mut now = at(0);
        while now < at(1000) {
            while let Some(wait) = limiter.grant(now) {
                let i = waits.remove(&wait).expect("granted once");
                got[i] += 16384;
                // A slow reader asks again only later.
                waits.insert(limiter.ask(asks[i].0, 16384, now + Duration::from_millis(asks[i].1)), i);
            }
            now = limiter.next_at(now).expect("everyone asks again").max(now + Duration::from_micros(1));
        }
        got
    }

    #[test]
    fn the_rate_holds_in_the_long_run_and_requests_share_it_evenly() {
        let mut limiter = Limiter::new(Some(2_000_000), None, at(0));
        let got = second(&mut limiter, &[(Class::Ticketed, 0); 4]);
        let sum: u64 = got.iter().sum();
        assert!((2_000_000..=2_150_000).contains(&sum), "{sum}");
        assert!(got.iter().all(|g| g.abs_diff(sum / 4) <= 16384), "{got:?}");
    }

    #[test]
    fn a_slow_reader_holds_nobody_up() {
        let mut limiter = Limiter::new(Some(2_000_000), None, at(0));
        let got = second(&mut limiter, &[(Class::Ticketed, 500), (Class::Ticketed, 0)]);
        assert!(got[0] <= 3 * 16384 && got[1] >= 1_900_000, "{got:?}");
    }

    #[test]
    fn tickets_come_first_and_the_anonymous_share_is_a_limit() {
        let mut limiter = Limiter::new(Some(2_000_000), None, at(0));
        let got = second(&mut limiter, &[(Class::Ticketed, 0), (Class::Anonymous, 0)]);
        assert_eq!(got[1], 0, "{got:?}");
        let mut limiter = Limiter::new(Some(2_000_000), Some(0.1), at(0));
        let got = second(&mut limiter, &[(Class::Ticketed, 100), (Class::Anonymous, 0)]);
        assert!((180_000..=300_000).contains(&got[1]), "{got:?}");
    }

    #[test]
    fn a_write_larger_than_the_burst_leaves_a_debt_and_is_not_refused() {
        let mut limiter = Limiter::new(Some(100_000), None, at(0));
        let wait = limiter.ask(Class::Ticketed, 300_000, at(0));
        assert_eq!(limiter.grant(at(0)), Some(wait));
        limiter.ask(Class::Ticketed, 1, at(0));
        assert_eq!(limiter.grant(at(0)), None);
        let next = limiter.next_at(at(0)).expect("something waits");
        assert!((at(2200)..at(2400)).contains(&next), "{next:?}");
        assert!(limiter.grant(next).is_some());
    }

    #[test]
    fn forgotten_writes_take_nothing() {
        let mut limiter = Limiter::new(Some(1000), None, at(0));
        let wait = limiter.ask(Class::Anonymous, 10, at(0));
        limiter.forget(wait);
        assert_eq!((limiter.grant(at(0)), limiter.next_at(at(0))), (None, None));
    }
}
