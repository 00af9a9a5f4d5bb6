//! Random events: no panic, and the invariants of the board hold after each.

use std::collections::BTreeMap;
use std::time::Duration;

use icet::message::{
    Assignment, Focus, Got, Have, Intent, Join, Leave, Outcome, Position, Report, Served, ServedItem,
};
use icet::{PageRanges, TicketKey};
use proptest::prelude::*;

use super::super::ConnId;
use super::super::board::State;
use super::super::media::Holds;
use super::super::peer::{MOST_FETCHED, MOST_SERVED};
use super::fixture::{identity, media};
use super::world::{SECRET, World, join, report};

const PEERS: u8 = 6;
const PAGES: u64 = 400;

#[derive(Debug, Clone)]
enum Op {
    Connect(u8),
    Disconnect(u8),
    Join(u8, u8, u8, Vec<(u64, u64)>),
    Leave(u8, u8),
    Republish(u8),
    /// Executes the nth open assignment of a peer, to some extent.
    Work(u8, usize, u8, u8),
    Focus(u8, u8, u64, u64, u8),
    Have(u8, u8, u64, Vec<(u64, u64)>, Vec<(u64, u64)>),
    Served(u8, u64, u64),
    Pass(u64),
}

fn runs() -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec((0..PAGES + 20, 0u64..200).prop_map(|(a, n)| (a, a + n)), 0..4)
}

fn op() -> impl Strategy<Value = Op> {
    let p = || 1..=PEERS;
    prop_oneof![
        3 => p().prop_map(Op::Connect),
        1 => p().prop_map(Op::Disconnect),
        5 => (p(), 0u8..2, 0u8..3, runs()).prop_map(|(p, m, i, r)| Op::Join(p, m, i, r)),
        1 => (p(), 0u8..2).prop_map(|(p, m)| Op::Leave(p, m)),
        1 => (0u8..2).prop_map(Op::Republish),
        20 => (p(), 0usize..10, 0u8..8, any::<u8>()).prop_map(|(p, n, o, x)| Op::Work(p, n, o, x)),
        2 => (p(), 0u8..2, 0..PAGES + 9, 0u64..1_000_000, 0u8..3).prop_map(|(p, m, a, u, i)| Op::Focus(p, m, a, u, i)),
        2 => (p(), 0u8..2, 0u64..40, runs(), runs()).prop_map(|(p, m, n, a, b)| Op::Have(p, m, n, a, b)),
        2 => (p(), 0u64..40, any::<u64>()).prop_map(|(p, n, b)| Op::Served(p, n, b)),
        5 => (0u64..5000).prop_map(Op::Pass),
    ]
}

fn intent(n: u8) -> Intent {
    [Intent::Whole, Intent::Play, Intent::Share][usize::from(n % 3)]
}

struct Chaos {
    w: World,
    conns: BTreeMap<u8, ConnId>,
    open: BTreeMap<u8, Vec<Assignment>>,
    version: u64,
}

impl Chaos {
    fn new() -> Chaos {
        let mut c = Chaos { w: World::new(), conns: BTreeMap::new(), open: BTreeMap::new(), version: 1 };
        c.run(&Op::Connect(1));
        c.run(&Op::Republish(0));
        c.run(&Op::Republish(1));
        c
    }

    fn name(m: u8) -> &'static str {
        ["one", "two"][usize::from(m % 2)]
    }

    fn id(&self, m: u8) -> icet::MediaId {
        icet::MediaId::of(&identity(1).key(), &icet::MediaPath::new(Chaos::name(m)).unwrap())
    }

    fn run(&mut self, op: &Op) {
        let conn = |p: &u8| self.conns.get(p).copied();
        match op {
            Op::Connect(p) => {
                let c = self.w.peer(*p);
                self.conns.insert(*p, c);
            }
            Op::Disconnect(p) => {
                if let Some(c) = self.conns.remove(p) {
                    self.w.disconnect(c);
                }
            }
            Op::Join(p, m, i, have) => {
                let Some(c) = conn(p) else { return };
                let have = PageRanges::from_runs(have.iter().copied());
                let running = self.open.get(p).into_iter().flatten().map(|a| a.id).take(5).collect();
                let join = Join { version: self.version, have, running, ..join(Chaos::name(*m), intent(*i)) };
                self.w.say(c, join);
            }
            Op::Leave(p, m) => {
                let id = self.id(*m);
                conn(p).into_iter().for_each(|c| self.w.say(c, Leave { media: id }));
            }
            Op::Republish(m) => {
                let Some(c) = conn(&1) else { return };
                self.version += 1;
                let media =
                    media(&identity(1), Chaos::name(*m), self.version, PAGES + self.version % 7, 1000);
                self.w.publish(c, &media);
            }
            Op::Work(p, n, o, x) => self.work(*p, *n, *o, *x),
            Op::Focus(p, m, at, urgent, i) => {
                let media = self.id(*m);
                let focus = Focus {
                    media,
                    at: Position::Page(*at),
                    rate: Some(*urgent),
                    urgent: *urgent,
                    intent: intent(*i),
                };
                conn(p).into_iter().for_each(|c| self.w.say(c, focus.clone()));
            }
            Op::Have(p, m, assignment, got, lost) => {
                let media = self.id(*m);
                let got =
                    vec![Got { assignment: *assignment, pages: PageRanges::from_runs(got.iter().copied()) }];
                let lost = PageRanges::from_runs(lost.iter().copied());
                conn(p)
                    .into_iter()
                    .for_each(|c| self.w.say(c, Have { media, got: got.clone(), lost: lost.clone() }));
            }
            Op::Served(p, assignment, bytes) => {
                let items = vec![ServedItem { assignment: *assignment, bytes: *bytes }];
                conn(p).into_iter().for_each(|c| self.w.say(c, Served { items: items.clone() }));
            }
            Op::Pass(ms) => self.w.pass(Duration::from_millis(*ms)),
        }
        for (p, c) in self.conns.clone() {
            let got = self.w.assigned(c);
            for a in &got {
                let hosts = std::iter::once(&a.source).chain(&a.stand_ins);
                for s in hosts {
                    let body = TicketKey::derive(&SECRET, &s.host.key).check(&s.ticket).unwrap();
                    assert_eq!((body.assignment, body.receiver), (a.id, identity(p).key()));
                    assert!(s.host.key != identity(p).key() && !s.host.addrs.is_empty());
                }
            }
            self.open.entry(p).or_default().extend(got);
        }
        self.check();
    }

    fn work(&mut self, p: u8, n: usize, o: u8, x: u8) {
        let Some(c) = self.conns.get(&p).copied() else { return };
        let open = self.open.entry(p).or_default();
        if open.is_empty() {
            return;
        }
        let a = open.remove(n % open.len());
        let (first, last) = (a.pages.first, a.pages.last.unwrap());
        let to = if o == 0 { last } else { first + u64::from(x) % (last - first + 1) };
        let pages = PageRanges::one(first, to);
        self.w.say(
            c,
            Have { media: a.media, got: vec![Got { assignment: a.id, pages }], lost: PageRanges::new() },
        );
        let outcome = [
            Outcome::Done,
            Outcome::Stopped,
            Outcome::Unreachable,
            Outcome::Refused,
            Outcome::Broken,
            Outcome::Stalled,
            Outcome::Incomplete,
            Outcome::Altered,
        ][usize::from(o)];
        self.w.say(c, Report { last: !x.is_multiple_of(3) || a.stand_ins.is_empty(), ..report(&a, outcome) });
    }

    fn check(&self) {
        let b = &self.w.swarm.board;
        let mut maps = 0;
        for (ix, m) in &b.media {
            maps += m.map_bytes();
            let mut flying = vec![0u16; usize::try_from(m.units()).unwrap()];
            let mut copies = flying.clone();
            let mut running = 0;
            for (peer, x) in &m.members {
                assert!(b.peers[peer].media.contains(ix));
                running += x.running.len() as u64;
                for f in &x.running {
                    let r = &b.runs[&f.id];
                    assert_eq!((r.state, r.media, r.receiver), (State::Runs, *ix, *peer));
                    assert_eq!((f.host, f.first, f.last), (r.host(), r.first, r.last));
                    (r.first / m.unit..=r.last / m.unit)
                        .for_each(|u| flying[usize::try_from(u).unwrap()] += 1);
                }
                let Holds::Part(part) = &x.holds else { continue };
                for u in 0..m.units() {
                    let end = u * m.unit + m.unit - 1;
                    assert_eq!(part.units.get(u), part.pages.all(u * m.unit, end));
                    assert_eq!(part.open.get(u), !part.claimed.all(u * m.unit, end));
                    let counts = part.units.get(u) && !x.distrusted && x.serves;
                    copies[usize::try_from(u).unwrap()] += u16::from(counts);
                }
                for p in 0..m.pages() {
                    let here = part.pages.get(p);
                    let coming = || x.running.iter().any(|f| f.first <= p && f.last >= p);
                    assert_eq!(part.claimed.get(p), here || coming(), "page {p}");
                }
            }
            assert_eq!(m.running, running);
            if let Some(r) = &m.rarity {
                for u in 0..m.units() {
                    let i = usize::try_from(u).unwrap();
                    assert_eq!((r.copies(u), r.flying(u)), (copies[i], flying[i]), "unit {u}");
                    assert_eq!((0..8).filter(|c| r.class(*c).get(u)).count(), 1);
                }
            }
            let listening = m.members.values().filter(|x| x.intent != Intent::Share).count() as u64;
            assert_eq!(m.listeners(), listening);
        }
        assert_eq!(b.totals.map_bytes, maps);
        self.check_runs();
    }

    fn check_runs(&self) {
        let b = &self.w.swarm.board;
        let alive = || b.runs.values().filter(|r| r.state != State::Ended);
        assert_eq!(alive().count() as u64, b.totals.running);
        for (ix, p) in &b.peers {
            let serving = alive().filter(|r| r.host() == *ix).count();
            let fetching = alive().filter(|r| r.receiver == *ix).count();
            assert_eq!((p.up.count as usize, p.down.count as usize), (serving, fetching));
            assert!(p.up.count <= 2 * MOST_SERVED && p.down.count <= 2 * MOST_FETCHED);
            let left: u64 = alive().filter(|r| r.host() == *ix).map(super::super::board::Run::left).sum();
            assert_eq!(p.up.bytes, left);
        }
        for r in alive().filter(|r| r.state == State::Runs && !r.hedge) {
            let member = &b.media[&r.media].members[&r.receiver];
            let overlap = member
                .running
                .iter()
                .map(|f| &b.runs[&f.id])
                .filter(|o| !o.hedge && o.first <= r.last && o.last >= r.first);
            assert_eq!(overlap.count(), 1, "pages {}-{} run twice", r.first, r.last);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_books_balance(ops in proptest::collection::vec(op(), 1..80)) {
        let mut c = Chaos::new();
        for op in &ops {
            c.run(op);
        }
        for p in 1..=PEERS {
            c.run(&Op::Disconnect(p));
        }
        c.w.pass(Duration::from_secs(300));
        c.check();
        let b = &c.w.swarm.board;
        prop_assert_eq!((b.peers.len(), b.runs.len(), b.totals.running, b.totals.members), (0, 0, 0, 0));
        prop_assert_eq!(b.totals.map_bytes, 0);
        prop_assert!(b.media.values().all(|m| m.rarity.is_none() && m.members.is_empty()));
    }
}
