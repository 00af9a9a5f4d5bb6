//! What the tracker knows of one peer: its session, its rates, and how far it is trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use icet::message::Need;
use icet::{MediaId, NetKind, Now, Offer, PeerKey, TicketKey};

use super::bits::Pool;
use super::board::{MediaIx, PeerIx, UNKNOWN_RATE};
use super::conduct::Conduct;
use super::fair::Credit;
use super::glance::Place;
use super::learn::{Arm, ProtoIx};
use super::punch::Punches;
use super::quota::Bucket;
use super::reach::{self, Reachable};
use super::{ConnId, Contribution};

/// What one direction of a peer may have under way: enough for so many times as long as it takes until the tracker hears of
/// what it ordered, at the learned rate; and at least and at most for so many seconds. Less leaves lines idle, more makes
/// queues, in which rare pages wait.
const HORIZON: (f64, f64, f64) = (2.0, 0.5, 3.0);
/// Seconds until the tracker hears of an order, as long as that was not seen.
const UNKNOWN_LAG: f64 = 0.4;
/// Bytes under way as long as the rate is unknown.
const FIRST_WINDOW: u64 = 256 << 10;
/// Bytes a second that are counted on for what somebody waits for, as long as the rate is unknown: whoever waits should not be
/// the one to find out how slow a line is.
const UNKNOWN_URGENT: f64 = 100e3;
/// Least window, so that a slow peer gets something.
pub(crate) const LEAST_WINDOW: u64 = 32 << 10;
/// Most that it can be for a player.
pub(crate) const MOST_LEAST: u64 = 8 << 20;
/// Most assignments that one host serves.
pub(crate) const MOST_SERVED: u32 = 64;
/// Most assignments that one receiver has under way; peers fetch about so many at once.
pub(crate) const MOST_FETCHED: u32 = 24;
/// Shortest and longest time over which a rate is sampled.
const SAMPLE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Pause between two doubts of a rate, and the least rate that doubt leads to.
const DISAPPOINTED: Duration = Duration::from_secs(2);
const LEAST_RATE: f64 = 4096.0;
/// The same while the rate only rises.
const RISING_SAMPLE: Duration = Duration::from_millis(100);
/// Acknowledgements come in batches: once busy, a rate over less than this is noise.
const BUSY_SAMPLE: Duration = Duration::from_millis(400);

/// One direction of a peer's line: what is under way, and the rate that was learned from acknowledgements.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    /// Most assignments at once.
    most: u32,
    /// Bytes that may be under way at least, whatever was learned: a player that starves receives slowly because its hosts are
    /// slow, and must be able to catch up.
    pub(crate) least: u64,
    /// What the peer allows, bytes a second; 0: nothing at present.
    pub(crate) limit: Option<u64>,
    /// Learned, bytes a second.
    pub(crate) rate: Option<f64>,
    /// Bytes under way.
    pub(crate) bytes: u64,
    /// Of them, what somebody waits for: it goes first.
    pub(crate) urgent: u64,
    /// Assignments under way.
    pub(crate) count: u32,
    /// Seconds from an order to its first acknowledgement, where nothing else was in its way.
    lag: Option<f64>,
    since: Now,
    acked: u64,
    fresh: bool,
    was_full: bool,
    /// No sample was below the rate yet: how fast the line is was not seen.
    rising: bool,
    disappointed: Option<Now>,
}

impl Meter {
    pub(crate) fn new(most: u32) -> Meter {
        Meter {
            most,
            least: LEAST_WINDOW,
            limit: None,
            rate: None,
            bytes: 0,
            urgent: 0,
            count: 0,
            lag: None,
            since: Now::ZERO,
            acked: 0,
            fresh: false,
            was_full: false,
            rising: true,
            disappointed: None,
        }
    }

    /// The best guess at its rate: learned, else declared; none if nothing is known.
    pub(crate) fn known_rate(&self) -> Option<f64> {
        let limit = self.limit.map(|l| (l as f64).max(1.0));
        match (self.rate, limit) {
            (Some(r), Some(l)) => Some(r.min(l)),
            (r, l) => r.or(l),
        }
    }

    /// Bytes that may be under way.
    pub(crate) fn window(&self) -> u64 {
        // A declared limit alone says only what it will not exceed: begin carefully.
        let (times, least, most) = HORIZON;
        let horizon = |times: f64| (self.lag.unwrap_or(UNKNOWN_LAG) * times).clamp(least, most);
        let by_rate = |r: f64, times: f64| (r * horizon(times)).min(1e12);
        // As long as the rate rises, what is under way bounds it: twice as much then.
        let rising = if self.rising { 2.0 * times } else { times };
        let learned = self.rate.map_or(FIRST_WINDOW as f64, |r| by_rate(r, rising));
        let allowed = self.limit.map_or(f64::MAX, |l| by_rate(l as f64, times));
        // In range: between LEAST_WINDOW and 1e12.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let window = learned.min(allowed) as u64;
        window.max(self.least)
    }

    /// Bytes that may be added now.
    pub(crate) fn room(&self) -> u64 {
        if self.count >= self.most { 0 } else { self.window().saturating_sub(self.bytes) }
    }

    /// Bytes of what somebody waits for that may be added now: no more than arrives until the tracker can order the next,
    /// so that the order of deadlines is kept.
    pub(crate) fn urgent_room(&self) -> u64 {
        self.window().saturating_sub(self.urgent)
    }

    pub(crate) fn begin(&mut self, now: Now, bytes: u64, need: Need) {
        if self.count == 0 {
            (self.since, self.acked, self.fresh, self.was_full) = (now, 0, true, false);
        }
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if need == Need::Urgent {
            self.urgent = self.urgent.saturating_add(bytes);
        }
        self.was_full |= self.bytes >= self.window() / 2;
    }

    /// The first acknowledgement of something that was ordered `lag` ago, with `before` bytes in its way.
    pub(crate) fn heard(&mut self, lag: Duration, before: u64) {
        if before < self.window() / 4 {
            let lag = lag.as_secs_f64();
            self.lag = Some(self.lag.map_or(lag, |l| l + (lag - l) / 8.0));
        }
    }

    /// `bytes` of what is under way have arrived.
    pub(crate) fn progress(&mut self, now: Now, bytes: u64, need: Need) {
        self.settle(bytes, need);
        self.acked = self.acked.saturating_add(bytes);
        let span = now.since(self.since);
        // A whole window is no noise, however quickly it came.
        let least = if self.fresh || self.acked >= self.window() { SAMPLE.0 } else { BUSY_SAMPLE };
        if span < least || (span < SAMPLE.1 && self.acked < self.window() / 2) {
            return;
        }
        let sample = self.acked as f64 / span.as_secs_f64();
        // What waits longer than it takes to hear of it is a queue, however wide the window (Little's law): one that came of a
        // rate taken too high is never filled, since receivers who wait for this host have no room for more.
        let lag = self.lag.unwrap_or(UNKNOWN_LAG).max(HORIZON.1 / 2.0);
        self.was_full |= self.bytes as f64 >= 2.0 * sample * lag;
        self.rising &= self.rate.is_none_or(|r| sample > r || !self.was_full);
        self.rate = Some(match self.rate {
            None => sample,
            // So that a long line is filled after few rounds, not many.
            Some(r) if self.rising && sample > r && span >= RISING_SAMPLE => sample,
            Some(r) if sample > r => r + (sample - r) * 0.5,
            // Less than before counts only if there was enough to do.
            Some(r) if self.was_full => r + (sample - r) * 0.35,
            Some(r) => r,
        });
        (self.since, self.acked, self.fresh) = (now, 0, false);
        self.was_full = self.bytes >= self.window() / 2;
    }

    /// Something under way lapsed: the line is slower than was thought. What lapses together says so once.
    pub(crate) fn disappoint(&mut self, now: Now) {
        if self.disappointed.is_some_and(|at| now.since(at) < DISAPPOINTED) {
            return;
        }
        (self.disappointed, self.rising) = (Some(now), false);
        self.rate = Some((self.rate.unwrap_or(FIRST_WINDOW as f64) / 4.0).max(LEAST_RATE));
    }

    /// An assignment ended of which `bytes` never arrived.
    pub(crate) fn end(&mut self, now: Now, bytes: u64, need: Need) {
        self.settle(bytes, need);
        self.count = self.count.saturating_sub(1);
        if self.count == 0 {
            // All that there was to do took less time than a sample: the line is at least so fast.
            let least = self.acked as f64 / now.since(self.since).max(SAMPLE.0).as_secs_f64();
            self.rate = self.rate.map(|r| if least > r { r + (least - r) * 0.5 } else { r });
            self.acked = 0;
            (self.bytes, self.urgent) = (0, 0);
        }
    }

    /// An assignment counts no longer, through no fault of this end: the time that it took says nothing of the line.
    pub(crate) fn excuse(&mut self, now: Now, bytes: u64, need: Need) {
        self.end(now, bytes, need);
        (self.since, self.acked, self.fresh, self.was_full) = (now, 0, true, false);
    }

    fn settle(&mut self, bytes: u64, need: Need) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if need == Need::Urgent {
            self.urgent = self.urgent.saturating_sub(bytes);
        }
    }

    /// Seconds that `bytes` bytes take.
    pub(crate) fn seconds(&self, bytes: u64) -> f64 {
        bytes as f64 / self.known_rate().unwrap_or(UNKNOWN_RATE).max(1.0)
    }

    /// Seconds until what is under way, and `more` bytes of a need behind it, will have arrived.
    pub(crate) fn eta(&self, more: u64, need: Need) -> f64 {
        let before = if need == Need::Urgent { self.urgent } else { self.bytes };
        if need == Need::Urgent && self.known_rate().is_none() {
            return before.saturating_add(more) as f64 / UNKNOWN_URGENT;
        }
        self.seconds(before.saturating_add(more))
    }
}

/// A sum that fades with a half-life.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fading {
    value: f64,
    at: Now,
}

impl Fading {
    pub(crate) fn now(&self, now: Now, half_life: Duration) -> f64 {
        if self.value == 0.0 {
            return 0.0;
        }
        self.value * (-now.since(self.at).as_secs_f64() / half_life.as_secs_f64()).exp2()
    }

    pub(crate) fn add(&mut self, now: Now, half_life: Duration, n: f64) {
        self.value = self.now(now, half_life) + n;
        self.at = now;
    }

    /// Makes it `part` of what it is.
    pub(crate) fn scale(&mut self, now: Now, half_life: Duration, part: f64) {
        self.add(now, half_life, 0.0);
        self.value *= part;
    }

    /// When it last changed.
    pub(crate) fn at(&self) -> Now {
        self.at
    }
}

/// Ways that one receiver is kept from at once, at most.
const MOST_AVOIDED: usize = 64;
/// How long it is remembered that one was kept from a way, after that.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Half-life of what a publisher sends on receivers' word, and the seconds of its upload that may be at most, as that fades: a quarter in the
/// long run.
const RELIED: (Duration, f64) = (Duration::from_secs(30), 11.0);
/// Half-life of distrust.
pub(crate) const DISTRUST: Duration = Duration::from_secs(600);

/// An offer, with what was learned of this host over it.
#[derive(Debug, Clone)]
pub(crate) struct Offered {
    pub(crate) offer: Offer,
    pub(crate) proto: ProtoIx,
    pub(crate) arm: Arm,
    /// Whether anything was ordered from it over this one, since it said hello.
    pub(crate) tried: bool,
}

/// A way that failed a receiver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avoided {
    pub(crate) host: PeerIx,
    pub(crate) proto: ProtoIx,
    /// When it failed last.
    pub(crate) since: Now,
    pub(crate) until: Now,
    /// It did so again when it was tried anew, or dripped: after that time it is tried with one small order.
    pub(crate) again: bool,
    /// Nothing came from that host since, over whatever protocol.
    pub(crate) dark: bool,
}

/// Whether a peer is there, as far as it has said since it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Nothing speaks against it.
    There,
    /// It has not answered yet. Nothing is ordered from it, and what it was ordered counts for nobody; nothing is taken back.
    Silent,
    /// It did not answer at all: its orders are over.
    Away,
}

/// A peer whose session said hello, or that did so a short while ago.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) key: PeerKey,
    /// Of the tickets that receivers bring to it.
    pub(crate) ticket_key: TicketKey,
    /// Its session; none if it is gone.
    pub(crate) conn: Option<ConnId>,
    pub(crate) gone: Option<Now>,
    pub(crate) observed: SocketAddr,
    /// The same, in short.
    pub(crate) place: Place,
    /// How surely something comes of it, as a [`Glance`](super::glance::Glance) has it, and when that was told.
    pub(crate) surety: (Option<Now>, f64),
    pub(crate) kind: NetKind,
    pub(crate) agent: String,
    /// Which of several programs with its key it is, if it says.
    pub(crate) instance: Option<icet::key::Hash>,
    pub(crate) offers: Vec<Offered>,
    pub(crate) reach: Vec<Reachable>,
    /// Whether somebody could fetch from it: an offer that needs no address, or one whose address was proved.
    pub(crate) servable: bool,
    /// Whether its program began with this session.
    pub(crate) fresh: bool,
    /// When it was last asked whether it is there, and whether it has said anything since.
    pub(crate) knocked: Option<(Now, bool)>,
    /// Somebody complained of it since.
    pub(crate) suspected: bool,
    /// Receivers that nothing came to from it, and from when on nothing more is ordered for them until it answers.
    pub(crate) doubted: BTreeMap<PeerIx, Now>,
    /// Whether it answers.
    pub(crate) presence: Presence,
    /// Whether it gives only to receivers in its own network.
    pub(crate) near: bool,
    /// Media of which it gives nothing.
    pub(crate) withheld: BTreeSet<MediaId>,
    /// Whether it sends, of what it publishes, only what nobody else can.
    pub(crate) once: bool,
    pub(crate) up: Meter,
    pub(crate) down: Meter,
    pub(crate) conduct: Conduct,
    /// When something was last ordered from it although it is too slow.
    pub(crate) probed: Now,
    /// When it last acknowledged something that was assigned.
    pub(crate) acked: Now,
    /// When it last told how a host did.
    pub(crate) told: Now,
    /// When somebody last acknowledged something of it.
    pub(crate) sent: Option<Now>,
    /// When it last said anything.
    pub(crate) heard: Now,
    pub(crate) contribution: Contribution,
    /// What counts of what it gave since it is known here.
    pub(crate) credit: Credit,
    /// Bytes that it was ordered to fetch lately.
    pub(crate) lately: Fading,
    /// Bytes that receivers had of it as a publisher lately because all others failed them, on their word; see [`Peer::may_be_relied_on`].
    pub(crate) relied: Fading,
    pub(crate) contribution_stored: Contribution,
    pub(crate) media: BTreeSet<MediaIx>,
    /// Assignments to it that may run, though it left or its session ended.
    pub(crate) detached: Vec<u64>,
    pub(crate) punches: Punches,
    /// Ways that failed it: hosts over a protocol, that it shall not be sent to again before the given time.
    pub(crate) avoid: Vec<Avoided>,
    /// Assignments by which others fetch from it.
    pub(crate) serving: Vec<u64>,
    /// Media in which it was wanted as a host, but had no room.
    pub(crate) missed_up: Pool<MediaIx>,
    /// Media in which it could have been fed, but had no room.
    pub(crate) missed_down: Pool<MediaIx>,
    /// Bytes of page maps held for it.
    pub(crate) map_bytes: u64,
    pub(crate) messages: Bucket,
    /// Messages that it may send whatever its neighbours send.
    pub(crate) share: Bucket,
    pub(crate) joins: Bucket,
    pub(crate) publishes: Bucket,
}

impl Peer {
    pub(crate) fn ip(&self) -> IpAddr {
        self.observed.ip()
    }

    /// Whether it gives anything to `receiver` now.
    pub(crate) fn gives_to(&self, receiver: &Peer) -> bool {
        self.up.limit != Some(0) && (!self.near || reach::near(self.ip(), receiver.ip()))
    }

    /// Whether it does not answer, as far as `receiver` is concerned.
    pub(crate) fn is_silent(&self, now: Now, receiver: PeerIx) -> bool {
        !self.is_there() || self.is_doubted(now, receiver)
    }

    /// Whether nothing speaks against its being there.
    pub(crate) fn is_there(&self) -> bool {
        self.presence == Presence::There
    }

    /// Whether nothing came from it to `receiver` a moment ago, and it has not said or sent anything since it was asked.
    pub(crate) fn is_doubted(&self, now: Now, receiver: PeerIx) -> bool {
        let Some((knocked, false)) = self.knocked else { return false };
        self.doubted.get(&receiver).is_some_and(|from| now >= *from)
            && self.sent.is_none_or(|at| at <= knocked)
    }

    /// 1 is full trust, 0 none.
    pub(crate) fn trust(&self, now: Now) -> f64 {
        (-self.conduct.distrust.now(now, DISTRUST)).exp()
    }

    pub(crate) fn offered(&self, proto: ProtoIx) -> Option<&Offered> {
        self.offers.iter().find(|o| o.proto == proto)
    }

    pub(crate) fn avoids(&self, host: PeerIx, proto: ProtoIx, now: Now) -> bool {
        self.avoid.iter().any(|a| (a.host, a.proto) == (host, proto) && a.until > now)
    }

    /// Whether this way is to be tried with one small order before more is ordered over it.
    pub(crate) fn is_on_trial(&self, host: PeerIx, proto: ProtoIx) -> bool {
        self.avoid.iter().any(|a| (a.host, a.proto) == (host, proto) && a.again)
    }

    /// Whether `host` failed it, and has sent it nothing since.
    pub(crate) fn is_dark(&self, host: PeerIx) -> bool {
        self.avoid.iter().any(|a| a.host == host && a.dark)
    }

    /// Whether a publisher that leaves to others what they have may be asked for it by who says that they failed: whoever lies gets
    /// no more than a part of its upload, all of them together.
    pub(crate) fn may_be_relied_on(&self, now: Now) -> bool {
        let rate = self.up.known_rate().unwrap_or(UNKNOWN_RATE);
        self.relied.now(now, RELIED.0) < rate * RELIED.1
    }

    /// It is to send so many bytes on somebody's word.
    pub(crate) fn rely(&mut self, now: Now, bytes: u64) {
        self.relied.add(now, RELIED.0, bytes as f64);
    }

    /// The same of a host that failed it just now.
    pub(crate) fn is_darkened(&self, host: PeerIx, now: Now) -> bool {
        self.avoid.iter().any(|a| a.host == host && a.dark && a.until > now)
    }

    /// How many hosts failed it just now and have sent it nothing since.
    pub(crate) fn dark_hosts(&self, now: Now) -> usize {
        let dark = self.avoid.iter().filter(|a| a.dark && a.until > now);
        let mut hosts: Vec<_> = dark.map(|a| a.host).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.len()
    }

    /// Something came from `host` over this protocol.
    pub(crate) fn got_from(&mut self, now: Now, host: PeerIx, proto: ProtoIx) {
        self.avoid.retain(|a| (a.host, a.proto) != (host, proto) || a.until > now);
        self.avoid.iter_mut().filter(|a| a.host == host).for_each(|a| a.dark = false);
    }

    /// Nothing speaks against sending it to `host`.
    pub(crate) fn forgive(&mut self, host: PeerIx) {
        self.avoid.retain(|a| a.host != host);
    }

    /// Sends it to `host` over this protocol no more before `until`; if it `drips`, or was avoided before and has sent nothing
    /// since, not before `long`.
    pub(crate) fn avoid(
        &mut self,
        (host, proto): (PeerIx, ProtoIx),
        now: Now,
        until: Now,
        long: Now,
        drips: bool,
    ) {
        let before = self.avoid.iter().find(|a| (a.host, a.proto) == (host, proto)).copied();
        let again = drips || before.is_some_and(|a| a.again || a.until <= now);
        self.avoid.retain(|a| (a.host, a.proto) != (host, proto) && now.since(a.until) < REMEMBERED);
        if self.avoid.len() >= MOST_AVOIDED {
            self.avoid.retain(|a| a.until > now);
        }
        if self.avoid.len() < MOST_AVOIDED {
            let until = if again { until.max(long) } else { until };
            self.avoid.push(Avoided { host, proto, since: now, until, again, dark: true });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Now {
        Now(n * 1000)
    }

    #[test]
    fn a_meter_learns_the_rate_of_a_line() {
        for rate in [10_000.0, 1e6, 1e8] {
            let mut m = Meter::new(MOST_SERVED);
            let mut now = 0;
            for _ in 0..400 {
                // Keep it full, and let a tenth of a second's bytes arrive.
                while m.room() > 0 {
                    m.begin(ms(now), (m.window() / 4).max(1), Need::Bulk);
                }
                now += 50;
                #[allow(clippy::cast_possible_truncation)]
                let got = f64::min(rate * 0.05, m.bytes as f64) as u64;
                m.progress(ms(now), got, Need::Bulk);
                while m.count > 4 {
                    m.end(ms(now), 0, Need::Bulk);
                }
            }
            let learned = m.rate.unwrap();
            assert!((0.7..1.5).contains(&(learned / rate)), "learned {learned} of {rate}");
        }
    }

    #[test]
    fn what_receivers_that_are_gone_did_not_take_says_nothing_of_a_line() {
        let mut m = Meter { rate: Some(1e6), rising: false, ..Meter::new(MOST_SERVED) };
        for _ in 0..4 {
            m.begin(ms(0), 500_000, Need::Bulk);
        }
        // For three seconds next to nothing comes of what three of them were to take.
        m.progress(ms(100), 100, Need::Bulk);
        for _ in 0..3 {
            m.excuse(ms(3000), 500_000, Need::Bulk);
        }
        m.progress(ms(3100), 100_000, Need::Bulk);
        m.progress(ms(3500), 399_000, Need::Bulk);
        assert!(m.rate.unwrap() > 0.9e6, "{:?}", m.rate);
    }

    #[test]
    fn a_declared_limit_bounds_the_window() {
        let m = Meter { limit: Some(50_000), rate: Some(1e7), ..Meter::new(1) };
        assert_eq!(m.window(), 40_000);
        assert_eq!(m.known_rate(), Some(50_000.0));
        let m = Meter { limit: Some(1), ..Meter::new(1) };
        assert_eq!(m.window(), LEAST_WINDOW);
        let m = Meter { limit: Some(u64::MAX), rate: Some(f64::MAX), ..Meter::new(1) };
        assert!(m.window() > 0);
    }

    #[test]
    fn what_fades_halves() {
        let mut f = Fading::default();
        f.add(ms(0), Duration::from_secs(10), 4.0);
        assert!((f.now(ms(10_000), Duration::from_secs(10)) - 2.0).abs() < 1e-9);
        f.add(ms(10_000), Duration::from_secs(10), 1.0);
        assert!((f.now(ms(20_000), Duration::from_secs(10)) - 1.5).abs() < 1e-9);
    }
}
