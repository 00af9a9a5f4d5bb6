//! Who may write how much, when: sans-IO, time as an argument.
//!
//! A token bucket that may go into debt by one write (so that it is exact in the long run whatever the size of writes),
//! and start-time fair queueing over requests (Goyal, Vin, Cheng: "Start-time Fair Queuing", SIGCOMM 1996): a request whose reader is
//! slow, or that writes little at a time, neither holds others up nor loses its share. What somebody waits for (as its ticket
//! says) comes first, then other ticketed requests, then anonymous ones; those have a bucket of their own besides.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use icet::Now;

/// For how long the rate may be made up for after a pause: a rate is a promise about any second, and the line behind it has a queue no longer.
const BURST_SECONDS: f64 = 0.05;
/// Smallest and largest write that is granted at once, and for how long it keeps the line busy in between.
const QUANTUM: (f64, f64) = (4.0 * 1024.0, 256.0 * 1024.0);
const QUANTUM_SECONDS: f64 = 0.03;
/// Who comes after others gets one part in so many at least, once a second at most: nobody is kept waiting for ever.
const LEAST_PART: f64 = 32.0;
/// What a packet carries, and what it has besides: headers of IP and of what is above, and what proves it.
const PACKET: (usize, usize) = (1400, 60);

/// A request: its writes are one flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow(pub(super) u64);

/// A write that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Wait {
    class: Class,
    /// Virtual time at which it may start, in bytes; then order of arrival.
    place: (u64, u64),
}

/// Whose turn comes first, the first first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Urgent,
    Ticketed,
    Anonymous,
}

impl Class {
    const ALL: [Class; 3] = [Class::Urgent, Class::Ticketed, Class::Anonymous];
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
    #[expect(clippy::cast_precision_loss, reason = "rates need no 53 bits")]
    pub(super) fn new(rate: u64, now: Now) -> Bucket {
        let rate = (rate as f64).max(1.0);
        let burst = rate * BURST_SECONDS;
        Bucket { rate, burst, tokens: burst, at: now }
    }

    /// Bytes that are worth granting at once.
    pub(super) fn quantum(&self) -> usize {
        quantum(self.rate)
    }

    fn refill(&mut self, now: Now) {
        self.tokens = (self.tokens + now.since(self.at).as_secs_f64() * self.rate).min(self.burst);
        self.at = self.at.max(now);
    }

    #[expect(clippy::cast_precision_loss, reason = "writes need no 53 bits")]
    pub(super) fn take(&mut self, now: Now, bytes: usize) {
        self.refill(now);
        self.tokens -= bytes as f64;
    }

    /// When there is no debt; not before `now`.
    pub(super) fn ready(&self, now: Now) -> Now {
        let tokens = self.tokens + now.since(self.at).as_secs_f64() * self.rate;
        if tokens > 0.0 {
            return now;
        }
        // A microsecond more, so that rounding never leaves a debt of nothing. A rate of a byte a second and a debt of gigabytes
        // are still decades, which a Duration holds.
        now + Duration::from_secs_f64(-tokens / self.rate) + Duration::from_micros(1)
    }
}

/// Waiting writes of one class.
#[derive(Debug, Default)]
struct Queue {
    /// Bytes of each, by place.
    writes: BTreeMap<(u64, u64), usize>,
    /// Virtual time: where the write that was granted last started.
    time: u64,
    /// Since when somebody waits here and nobody gets anything.
    since: Now,
}

/// The upload of a peer over all protocols.
#[derive(Debug)]
pub(super) struct Limiter {
    all: Option<Bucket>,
    anonymous: Option<Bucket>,
    quantum: usize,
    /// By class.
    queues: [Queue; Class::ALL.len()],
    /// Virtual time at which each flow's last write ends.
    ends: HashMap<Flow, u64>,
    next: u64,
}

/// Bytes a second that a part (0 to 1) of `up` comes to; none without an upload rate.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates need no 53 bits and are positive"
)]
pub(super) fn rate_of(part: f64, up: Option<u64>) -> Option<u64> {
    up.map(|up| (part.clamp(0.0, 1.0) * up as f64) as u64)
}

/// Bytes that are worth granting at once, at so many a second.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between the two")]
fn quantum(rate: f64) -> usize {
    (rate * QUANTUM_SECONDS).clamp(QUANTUM.0, QUANTUM.1) as usize
}

/// What a write takes of a line.
pub(super) fn on_the_wire(bytes: usize) -> usize {
    bytes.saturating_add(bytes.div_ceil(PACKET.0).saturating_mul(PACKET.1))
}

impl Limiter {
    /// `up`: bytes a second in all; `share`: of them, at most this part for anonymous requests.
    pub(super) fn new(up: Option<u64>, share: Option<f64>, now: Now) -> Limiter {
        let part = share.and_then(|s| rate_of(s, up));
        let all = up.map(|r| Bucket::new(r, now));
        Limiter {
            quantum: quantum(all.as_ref().map_or(f64::INFINITY, |b| b.rate)),
            all,
            anonymous: part.map(|r| Bucket::new(r, now)),
            queues: Default::default(),
            ends: HashMap::new(),
            next: 0,
        }
    }

    /// Whether nothing is ever held back.
    pub(super) fn is_free(&self) -> bool {
        self.all.is_none()
    }

    /// Most bytes to ask for at once, so that all get their turn soon.
    pub(super) fn quantum(&self) -> usize {
        self.quantum
    }

    fn queue(&mut self, class: Class) -> &mut Queue {
        &mut self.queues[class as usize]
    }

    /// When a class that somebody waits in may have something.
    fn ready(&self, class: Class, now: Now) -> Now {
        let own = if class == Class::Anonymous { self.anonymous.as_ref() } else { None };
        self.all.iter().chain(own).map(|b| b.ready(now)).max().unwrap_or(now)
    }

    /// The class whose turn it is, and when its next write may go.
    fn turn(&self, now: Now) -> Option<(Class, Now)> {
        let mut waiting = Class::ALL.into_iter().filter(|c| !self.queues[*c as usize].writes.is_empty());
        let first = waiting.next()?;
        let ready = self.ready(first, now);
        // Who has waited for long comes once before those who come first.
        let since = |c: &Class| self.queues[*c as usize].since;
        let passed_over = waiting
            .filter(|c| now.since(since(c)) >= self.longest_wait() && self.ready(*c, now) <= ready)
            .min_by_key(since);
        Some((passed_over.unwrap_or(first), ready))
    }

    /// How long others may come first.
    #[expect(clippy::cast_precision_loss, reason = "rates need no 53 bits")]
    fn longest_wait(&self) -> Duration {
        let seconds = self.all.as_ref().map_or(0.0, |b| LEAST_PART * self.quantum as f64 / b.rate);
        Duration::try_from_secs_f64(seconds.max(1.0)).unwrap_or(Duration::MAX)
    }

    /// Queues a write.
    pub(super) fn ask(&mut self, now: Now, flow: Flow, class: Class, bytes: usize) -> Wait {
        self.next += 1;
        let number = self.next;
        let end = self.ends.get(&flow).copied().unwrap_or(0);
        let queue = self.queue(class);
        if queue.writes.is_empty() {
            queue.since = now;
        }
        let start = queue.time.max(end);
        queue.writes.insert((start, number), bytes);
        self.ends.insert(flow, start.saturating_add(bytes as u64));
        Wait { class, place: (start, number) }
    }

    /// Takes a write out of its queue, if it is still there.
    pub(super) fn forget(&mut self, wait: Wait) {
        self.queue(wait.class).writes.remove(&wait.place);
    }

    /// What left without having asked.
    pub(super) fn owe(&mut self, now: Now, bytes: usize) {
        self.all.iter_mut().for_each(|bucket| bucket.take(now, bytes));
    }

    /// A request ended.
    pub(super) fn end(&mut self, flow: Flow) {
        self.ends.remove(&flow);
    }

    /// The next write that may go now.
    pub(super) fn grant(&mut self, now: Now) -> Option<Wait> {
        let (class, _) = self.turn(now).filter(|(_, at)| *at <= now)?;
        let queue = self.queue(class);
        let (place, bytes) = queue.writes.pop_first()?;
        (queue.time, queue.since) = (place.0, now);
        let own = if class == Class::Anonymous { self.anonymous.as_mut() } else { None };
        self.all.as_mut().into_iter().chain(own).for_each(|bucket| bucket.take(now, bytes));
        Some(Wait { class, place })
    }

    /// When [`Limiter::grant`] is worth another try; none if nothing waits.
    pub(super) fn next_at(&self, now: Now) -> Option<Now> {
        Some(self.turn(now)?.1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Now {
        Now(ms * 1000)
    }

    /// A request: its class, how much it writes at once, and how long its reader takes each time, in milliseconds.
    type Asker = (Class, usize, u64);

    /// Lets all write again and again for `seconds`; bytes of each, and the most that was sent beyond the rate up to any moment.
    fn run(limiter: &mut Limiter, rate: u64, seconds: u64, askers: &[Asker]) -> (Vec<u64>, u64) {
        let mut got = vec![0; askers.len()];
        let mut waits: HashMap<Wait, usize> = HashMap::new();
        let mut later: BTreeMap<(Now, usize), ()> = (0..askers.len()).map(|i| ((at(0), i), ())).collect();
        let (mut now, mut beyond) = (at(0), 0);
        while now < at(1000 * seconds) {
            while let Some(entry) = later.first_entry().filter(|e| e.key().0 <= now) {
                let (_, i) = *entry.key();
                entry.remove();
                waits.insert(limiter.ask(now, Flow(i as u64), askers[i].0, askers[i].1), i);
            }
            match limiter.grant(now) {
                Some(wait) => {
                    let i = waits.remove(&wait).expect("granted once");
                    got[i] += askers[i].1 as u64;
                    later.insert((now + Duration::from_millis(askers[i].2), i), ());
                    beyond = beyond.max(got.iter().sum::<u64>().saturating_sub(rate * now.0 / 1_000_000));
                }
                None => {
                    let next = limiter.next_at(now).filter(|n| *n > now);
                    let ask = later.keys().next().map(|(t, _)| *t);
                    now = next
                        .into_iter()
                        .chain(ask)
                        .min()
                        .expect("something comes")
                        .max(now + Duration::from_micros(1));
                }
            }
        }
        (got, beyond)
    }

    const SMALL: usize = 4096;
    const LARGE: usize = 16384;

    #[test]
    fn the_rate_holds_in_the_long_run_and_requests_share_it_by_bytes() {
        let mut limiter = Limiter::new(Some(2_000_000), None, at(0));
        // Whether they write much or little at a time.
        let askers = [(Class::Ticketed, LARGE, 0), (Class::Ticketed, SMALL, 0), (Class::Ticketed, 10_000, 0)];
        let (got, beyond) = run(&mut limiter, 2_000_000, 5, &askers);
        let sum: u64 = got.iter().sum();
        assert!((9_980_000..=10_150_000).contains(&sum), "{sum}");
        assert!(beyond <= 100_000 + LARGE as u64, "{beyond}");
        assert!(got.iter().all(|g| g.abs_diff(sum / 3) <= 2 * LARGE as u64), "{got:?}");
    }

    #[test]
    fn a_slow_reader_holds_nobody_up() {
        let mut limiter = Limiter::new(Some(2_000_000), None, at(0));
        let askers = [(Class::Ticketed, LARGE, 500), (Class::Ticketed, LARGE, 0)];
        let (got, _) = run(&mut limiter, 2_000_000, 1, &askers);
        assert!(got[0] <= 3 * LARGE as u64 && got[1] >= 1_900_000, "{got:?}");
    }

    #[test]
    fn who_comes_late_or_rested_gets_a_fair_share_and_no_more() {
        let mut limiter = Limiter::new(Some(1_000_000), None, at(0));
        run(&mut limiter, 1_000_000, 3, &[(Class::Ticketed, LARGE, 0)]);
        let mut limiter_now = limiter;
        // Flow 1 is new; flow 0 has had three million bytes. From now on it is half and half. (Time goes on from 3 s.)
        let mut got = [0_u64; 2];
        let mut waits = HashMap::new();
        for i in 0..2 {
            waits.insert(limiter_now.ask(at(0), Flow(i), Class::Ticketed, LARGE), i);
        }
        let mut now = at(3000);
        while now < at(4000) {
            if let Some(wait) = limiter_now.grant(now) {
                let Some(i) = waits.remove(&wait) else { continue };
                got[usize::try_from(i).expect("small")] += LARGE as u64;
                waits.insert(limiter_now.ask(now, Flow(i), Class::Ticketed, LARGE), i);
            } else {
                now = limiter_now.next_at(now).expect("both wait").max(now + Duration::from_micros(1));
            }
        }
        assert!(got[0].abs_diff(got[1]) <= 2 * LARGE as u64 && got[0] > 400_000, "{got:?}");
    }

    #[test]
    fn tickets_come_first_and_the_anonymous_share_is_a_limit() {
        let mut limiter = Limiter::new(Some(2_000_000), None, at(0));
        let askers = [(Class::Ticketed, LARGE, 0), (Class::Anonymous, LARGE, 0)];
        let (got, _) = run(&mut limiter, 2_000_000, 1, &askers);
        assert!(got[1] <= LARGE as u64, "{got:?}");
        let mut limiter = Limiter::new(Some(2_000_000), Some(0.1), at(0));
        let askers = [(Class::Ticketed, LARGE, 100), (Class::Anonymous, LARGE, 0)];
        let (got, _) = run(&mut limiter, 2_000_000, 5, &askers);
        assert!((990_000..=1_100_000).contains(&got[1]), "{got:?}");
        let mut limiter = Limiter::new(Some(2_000_000), Some(0.1), at(0));
        let (got, _) = run(&mut limiter, 2_000_000, 5, &[(Class::Anonymous, SMALL, 0); 4]);
        assert!((990_000..=1_100_000).contains(&got.iter().sum::<u64>()), "{got:?}");
    }

    #[test]
    fn what_somebody_waits_for_overtakes_all_else() {
        let mut limiter = Limiter::new(Some(1_000_000), None, at(0));
        let askers = [(Class::Ticketed, LARGE, 0), (Class::Urgent, LARGE, 50), (Class::Anonymous, LARGE, 0)];
        let (got, _) = run(&mut limiter, 1_000_000, 5, &askers);
        // One write every 50 ms, or little longer: it waits for the debt of the write before it only. Who comes last has one a second.
        assert!(got[1] >= 70 * LARGE as u64 && got[2] <= 5 * LARGE as u64, "{got:?}");
        assert!(got[0] + got[1] >= 4_900_000, "{got:?}");
    }

    #[test]
    fn a_write_larger_than_the_burst_leaves_a_debt_and_is_not_refused() {
        let mut limiter = Limiter::new(Some(100_000), None, at(0));
        let wait = limiter.ask(at(0), Flow(0), Class::Ticketed, 300_000);
        assert_eq!(limiter.grant(at(0)), Some(wait));
        limiter.ask(at(0), Flow(0), Class::Ticketed, 1);
        assert_eq!(limiter.grant(at(0)), None);
        let next = limiter.next_at(at(0)).expect("something waits");
        assert!((at(2900)..at(3000)).contains(&next), "{next:?}");
        assert!(limiter.grant(next).is_some());
    }

    #[test]
    fn no_second_has_more_than_the_rate_and_a_write_after_any_pause() {
        // A broadcaster's: two and a half copies of 64 kbit/s, in pages of 200 ms.
        let (rate, page) = (20_000, 1700);
        let mut limiter = Limiter::new(Some(rate), None, at(0));
        let (mut now, mut sent) = (at(3000), Vec::new());
        let mut wait = limiter.ask(now, Flow(0), Class::Urgent, page);
        while now < at(6000) {
            if limiter.grant(now) == Some(wait) {
                sent.push(now);
                wait = limiter.ask(now, Flow(0), Class::Urgent, page);
            } else {
                now = limiter.next_at(now).expect("one waits").max(now + Duration::from_micros(1));
            }
        }
        let within = |from: &Now| {
            sent.iter().filter(|t| **t >= *from && t.since(*from) < Duration::from_secs(1)).count()
        };
        let most = sent.iter().map(within).max().expect("some went") * page;
        assert!(most <= 20_000 + 1000 + page, "{most}");
        assert!(sent.len() * page > 58_000, "{}", sent.len() * page);
    }

    #[test]
    fn who_comes_last_is_not_kept_waiting_for_ever() {
        for (rate, seconds) in [(1_000_000, 2), (20_000, 8)] {
            let mut limiter = Limiter::new(Some(rate), None, at(0));
            let busy = [(Class::Ticketed, limiter.quantum(), 0); 3];
            let stranger = (Class::Anonymous, limiter.quantum(), 0);
            let askers = [busy[0], busy[1], busy[2], stranger];
            let (got, _) = run(&mut limiter, rate, 60, &askers);
            let part = got[3] as f64 / (rate * 60) as f64;
            assert!((0.02..0.04).contains(&part), "{part}");
            // The first byte too.
            let one = (Class::Anonymous, 100, 1_000_000);
            let mut limiter = Limiter::new(Some(rate), None, at(0));
            let (got, _) = run(&mut limiter, rate, seconds, &[busy[0], one]);
            assert_eq!(got[1], 100);
        }
    }

    #[test]
    fn what_left_without_asking_is_paid_by_who_asks_next() {
        let mut limiter = Limiter::new(Some(10_000), None, at(0));
        limiter.owe(at(0), 10_500);
        limiter.ask(at(0), Flow(0), Class::Urgent, 1);
        assert_eq!(limiter.grant(at(900)), None);
        assert!(limiter.grant(at(1001)).is_some());
    }

    #[test]
    fn forgotten_writes_take_nothing_and_ended_requests_leave_nothing() {
        let mut limiter = Limiter::new(Some(1000), None, at(0));
        let wait = limiter.ask(at(0), Flow(7), Class::Anonymous, 10);
        limiter.forget(wait);
        limiter.end(Flow(7));
        assert_eq!((limiter.grant(at(0)), limiter.next_at(at(0))), (None, None));
        assert!(limiter.ends.is_empty());
    }

    proptest! {
        /// Whatever they ask, the rate is kept, used, and nobody who always asks gets much less than another.
        #[test]
        fn any_mix_is_served_fairly(
            rate in 20_000..5_000_000_u64,
            askers in proptest::collection::vec((1..40_000_usize, prop_oneof![4 => Just(0), 1 => 1..300_u64]), 1..8),
        ) {
            let askers: Vec<Asker> = askers.into_iter().map(|(bytes, pause)| (Class::Ticketed, bytes, pause)).collect();
            let mut limiter = Limiter::new(Some(rate), None, at(0));
            let (got, beyond) = run(&mut limiter, rate, 2, &askers);
            prop_assert!(beyond <= rate / 20 + 40_000 + 1);
            let greedy: Vec<u64> = got.iter().zip(&askers).filter(|(_, a)| a.2 == 0).map(|(g, _)| *g).collect();
            if let (Some(least), Some(most)) = (greedy.iter().min(), greedy.iter().max()) {
                prop_assert!(most - least <= 2 * 40_000, "{:?}", greedy);
                prop_assert!(got.iter().sum::<u64>() + 40_000 >= 2 * rate);
            }
        }
    }
}
