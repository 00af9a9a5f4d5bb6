//! Who comes together through the NATs of both. Nobody knows before they have tried, and then it mostly stays as it was: so it is
//! tried with an order of one unit, which takes nobody's place until something comes by it; who did not come together is not sent
//! there again for a while, and nobody is blamed.

use std::time::Duration;

use icet::message::{Outcome, Report};
use icet::{Abilities, Now};

use super::bits::Table;
use super::board::{Board, MediaIx, PeerIx};
use super::learn::{ProtoIx, Sample};
use super::peer::{Offered, Peer};
use super::reach::{self, Proof};

/// Tries at once of one receiver; of one host, those that count nowhere.
const AT_ONCE: u8 = 4;
/// So long a try may take before it lapses, beside what its host has to send: transports give up before.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long a pair is not tried again: the first time, how many times longer each further time, and at most.
const APART: (Duration, u32, Duration) = (Duration::from_secs(60), 4, Duration::from_secs(600));
/// The same of a publisher, who may be the only one to have the pages.
const FROM_PUBLISHER: (Duration, u32, Duration) = (Duration::from_secs(2), 2, Duration::from_secs(60));
/// Pairs that are remembered of one peer: some 8 KiB.
const MOST: usize = 224;

/// How a pair came together.
#[derive(Debug, Clone, Copy)]
struct Met {
    /// When that was last seen.
    at: Now,
    /// It did not: until when it is not tried again.
    apart: Option<Now>,
    /// How often in a row it did not.
    times: u32,
}

/// An order whose ends may not come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Venture {
    /// It counts at neither, until something comes.
    Free,
    /// It counts as any other.
    Counted,
}

/// Whom one peer came together with by punches, and with whom it did not.
#[derive(Debug, Default)]
pub(crate) struct Punches {
    met: Table<(PeerIx, ProtoIx), Met>,
    /// Pairs that did not come together.
    failed: usize,
    /// Tries under way: as a receiver, and as a host.
    fetching: u8,
    serving: u8,
}

impl Punches {
    fn passes(&self, other: PeerIx, proto: ProtoIx) -> bool {
        self.met.get(&(other, proto)).is_some_and(|m| m.apart.is_none())
    }

    fn fails(&self, now: Now, other: PeerIx, proto: ProtoIx) -> bool {
        self.failed > 0 && self.met.get(&(other, proto)).is_some_and(|m| m.apart.is_some_and(|t| t > now))
    }

    /// Whether it did not come together with anybody.
    pub(crate) fn some_fail(&self) -> bool {
        self.failed > 0
    }

    fn put(&mut self, now: Now, key: (PeerIx, ProtoIx), apart: Option<(Duration, u32, Duration)>) {
        let before = self.met.remove(&key);
        self.failed -= usize::from(before.is_some_and(|m| m.apart.is_some()));
        if self.met.len() >= MOST {
            // What was seen last is worth most.
            let oldest = self.met.iter().map(|(key, m)| (m.at, *key)).min();
            let gone = oldest.and_then(|(_, key)| self.met.remove(&key));
            self.failed -= usize::from(gone.is_some_and(|m| m.apart.is_some()));
        }
        let times = before.map_or(0, |m| m.times);
        let pause = |(least, factor, most): (Duration, u32, Duration)| {
            now + least.saturating_mul(factor.saturating_pow(times)).min(most)
        };
        let met =
            Met { at: now, apart: apart.map(pause), times: if apart.is_some() { times + 1 } else { 0 } };
        self.failed += usize::from(met.apart.is_some());
        self.met.insert(key, met);
    }

    /// It is behind another NAT now.
    pub(super) fn forget_all(&mut self) {
        self.met.clear();
        self.failed = 0;
    }

    fn forget(&mut self, key: (PeerIx, ProtoIx)) {
        let before = self.met.remove(&key);
        self.failed -= usize::from(before.is_some_and(|m| m.apart.is_some()));
    }
}

/// How an offer leads from a host to a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leads {
    Nowhere,
    /// To an address that was proved, or one that only the protocol knows.
    Straight,
    /// By a relay that both use, and the punch that they agree on there.
    Punched,
}

fn leads(h: &Peer, r: &Peer, offered: &Offered) -> Leads {
    let Some(theirs) = r.offered(offered.proto).filter(|_| offered.offer.serves) else {
        return Leads::Nowhere;
    };
    let Some(kind) = offered.offer.dials else { return Leads::Straight };
    let proved = h.reach.iter().any(|a| {
        a.addr.kind == kind && a.proof == Proof::Proved && reach::may_tell(a.addr.at.ip(), h.ip(), r.ip())
    });
    let relayed = |o: &Offered| o.offer.abilities.has(Abilities::RELAYED);
    match proved {
        true => Leads::Straight,
        false if relayed(offered) && relayed(theirs) => Leads::Punched,
        false => Leads::Nowhere,
    }
}

impl Board {
    /// Whether an offer of `h` leads to `r`, as far as is known.
    pub(super) fn leads(now: Now, host: PeerIx, h: &Peer, r: &Peer, offered: &Offered) -> bool {
        match leads(h, r, offered) {
            Leads::Nowhere => false,
            Leads::Straight => true,
            Leads::Punched => !r.punches.fails(now, host, offered.proto),
        }
    }

    /// Whether a way leads only by a punch of which nobody knows whether it passes.
    pub(crate) fn is_venture(&self, host: PeerIx, receiver: PeerIx, proto: ProtoIx) -> bool {
        let Some((h, r)) = self.peers.get(&host).zip(self.peers.get(&receiver)) else { return false };
        !r.punches.passes(host, proto) && h.offered(proto).is_some_and(|o| leads(h, r, o) == Leads::Punched)
    }

    /// Whether nothing but a punch leads from `host` to `receiver`, and none came through.
    pub(super) fn did_part(&self, host: PeerIx, receiver: PeerIx) -> bool {
        let Some((h, r)) = self.peers.get(&host).zip(self.peers.get(&receiver)) else { return false };
        let apart = |o: &Offered| r.punches.met.get(&(host, o.proto)).is_some_and(|m| m.apart.is_some());
        h.offers.iter().any(|o| leads(h, r, o) == Leads::Punched && apart(o))
    }

    /// Whether another try may begin between two. Where too many are under way to one host, as of keys that only pretend, each
    /// receiver may all the same have one that counts as any other order does: nobody is kept from anybody by what others do.
    pub(super) fn may_venture(&self, host: PeerIx, receiver: PeerIx) -> bool {
        let tries = self.peers.get(&receiver).map_or(AT_ONCE, |p| p.punches.fetching);
        tries == 0 || tries < AT_ONCE && self.is_free_to_venture(host)
    }

    /// Whether a try may count nowhere.
    pub(super) fn is_free_to_venture(&self, host: PeerIx) -> bool {
        self.peers.get(&host).is_some_and(|p| p.punches.serving < AT_ONCE)
    }

    /// A try begins, or is over.
    pub(super) fn count_venture(&mut self, host: PeerIx, receiver: PeerIx, of: Venture, begins: bool) {
        let count = |n: u8| if begins { n.saturating_add(1) } else { n.saturating_sub(1) };
        if let Some(r) = self.peers.get_mut(&receiver) {
            r.punches.fetching = count(r.punches.fetching);
        }
        if let Some(h) = self.peers.get_mut(&host).filter(|_| of == Venture::Free) {
            h.punches.serving = count(h.punches.serving);
        }
    }

    /// Something came from `host` to `receiver`.
    pub(super) fn met(&mut self, now: Now, host: PeerIx, receiver: PeerIx, proto: ProtoIx) {
        if !self.is_venture(host, receiver, proto) {
            return;
        }
        // A connection carries both directions.
        for (a, b) in [(receiver, host), (host, receiver)] {
            if let Some(p) = self.peers.get_mut(&a) {
                p.punches.put(now, (b, proto), None);
            }
        }
    }

    /// Whether a report says no more than that two did not come together, and what is to be learned of that. Of those who
    /// did before it says that something else is wrong.
    pub(super) fn did_not_meet(
        &mut self,
        now: Now,
        media: MediaIx,
        (host, proto): (PeerIx, ProtoIx),
        receiver: PeerIx,
        report: &Report,
    ) -> bool {
        let nothing = report.first_byte.is_none() && report.bytes == 0;
        if !matches!(report.outcome, Outcome::Unreachable | Outcome::Stalled) || !nothing {
            return false;
        }
        if !self.is_venture(host, receiver, proto) {
            if report.outcome == Outcome::Unreachable
                && let Some(r) = self.peers.get_mut(&receiver)
            {
                r.punches.forget((host, proto));
            }
            return false;
        }
        self.part(now, media, (host, proto), receiver);
        // It is counted, and nothing else is learned: neither end is worse for it.
        let near = self.nearness(host, receiver);
        let sample = Sample { ok: Some(false), weight: 0.0, rate: None, first: None };
        self.protocols.learn(now, proto, near, None, sample);
        true
    }

    /// Two did not come together by a punch.
    pub(super) fn part(
        &mut self,
        now: Now,
        media: MediaIx,
        (host, proto): (PeerIx, ProtoIx),
        receiver: PeerIx,
    ) {
        let publisher = self.media.get(&media).is_some_and(|m| m.is_publisher(host));
        let pause = if publisher { FROM_PUBLISHER } else { APART };
        if let Some(r) = self.peers.get_mut(&receiver) {
            r.punches.put(now, (host, proto), Some(pause));
        }
        // Who is behind no NAT itself reaches others for other reasons, or not.
        let back = self.is_venture(receiver, host, proto);
        if let Some(h) = self.peers.get_mut(&host).filter(|_| back) {
            h.punches.put(now, (receiver, proto), Some(pause));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_met_whom_is_kept_of_few_and_the_latest() {
        let (mut p, proto) = (Punches::default(), ProtoIx(1));
        for n in 0..10_000 {
            let apart = (n % 3 == 0).then_some(APART);
            p.put(Now(n), (PeerIx(n), proto), apart);
            assert!(p.met.len() <= MOST);
            assert_eq!(p.failed, p.met.values().filter(|m| m.apart.is_some()).count());
        }
        assert!(p.fails(Now(10_000), PeerIx(9999), proto) && p.passes(PeerIx(9998), proto));
        assert!(!p.passes(PeerIx(9000), proto));
    }

    #[test]
    fn a_pair_is_left_alone_for_longer_each_time_and_not_for_ever() {
        let (mut p, key) = (Punches::default(), (PeerIx(1), ProtoIx(1)));
        let mut now = Now(0);
        for seconds in [60, 240, 600, 600] {
            p.put(now, key, Some(APART));
            let apart = Duration::from_secs(seconds);
            assert!(p.fails(now + (apart - Duration::from_secs(1)), key.0, key.1));
            now = now + apart;
            assert!(!p.fails(now, key.0, key.1) && !p.passes(key.0, key.1));
        }
        p.put(now, key, None);
        assert!(p.passes(key.0, key.1) && !p.some_fail());
        p.put(now, key, Some(APART));
        assert!(!p.fails(now + APART.0, key.0, key.1), "it begins anew");
    }
}
