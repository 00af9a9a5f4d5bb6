//! Whatever comes in whatever order, the promises hold.

use std::collections::{BTreeMap, BTreeSet};

use icet::Stripe;
use icet::message::Cancel;
use proptest::prelude::*;

use super::*;
use crate::engine::fetches::GONE;
use crate::engine::pages::Pages;
use crate::engine::session::Link;

const PAGES: u64 = 160;

/// Number, pages, need, hosts, deadline, lapse.
type Given = (u64, PageSet, u8, Vec<u8>, Option<u32>, u32);

#[derive(Debug, Clone)]
enum Event {
    Assign(Vec<Given>),
    Cancel(Vec<u64>),
    /// Which running fetch, and what of it.
    Fetch(usize, Kind),
    /// A page of a fetch that was stopped.
    Late(usize, u64),
    Pass(u64),
    Disconnect,
    Connect(bool),
    Answer,
    Held(u64, u64, bool),
    Served(u64, u64),
    Message(u8, u64),
    Reopen,
}

#[derive(Debug, Clone)]
enum Kind {
    /// The next missing pages.
    Next(u8),
    Any(u64),
    Duplicate(u64),
    Progress,
    FirstByte,
    Altered,
    Ended(u8),
}

fn set() -> impl Strategy<Value = PageSet> {
    let stripe = prop_oneof![
        5 => Just(None),
        1 => (0u16..3, 1u16..4, 1u16..20).prop_map(|(i, of, g)| Stripe::new(i, of, g)),
    ];
    (0..PAGES + 10, proptest::option::weighted(0.9, 0..40u64), stripe)
        .prop_map(|(first, len, stripe)| PageSet { first, last: len.map(|l| first + l), stripe })
}

fn event() -> impl Strategy<Value = Event> {
    let hosts = proptest::collection::vec(1u8..7, 1..5);
    let one = (
        0..60u64,
        set(),
        0..4u8,
        hosts,
        proptest::option::of(0..3000u32),
        prop_oneof![Just(0), 0..30_000u32, Just(u32::MAX)],
    );
    let kind = prop_oneof![
        6 => (1..30u8).prop_map(Kind::Next),
        1 => (0..PAGES + 20).prop_map(Kind::Any),
        1 => (0..PAGES + 20).prop_map(Kind::Duplicate),
        1 => Just(Kind::Progress),
        1 => Just(Kind::FirstByte),
        1 => Just(Kind::Altered),
        4 => (0..8u8).prop_map(Kind::Ended),
    ];
    prop_oneof![
        6 => proptest::collection::vec(one, 1..6).prop_map(Event::Assign),
        1 => proptest::collection::vec(0..60u64, 1..4).prop_map(Event::Cancel),
        12 => (0..32usize, kind).prop_map(|(i, k)| Event::Fetch(i, k)),
        1 => (0..32usize, 0..PAGES).prop_map(|(i, p)| Event::Late(i, p)),
        4 => (0..4000u64).prop_map(Event::Pass),
        1 => Just(Event::Disconnect),
        2 => any::<bool>().prop_map(Event::Connect),
        2 => Just(Event::Answer),
        1 => (0..PAGES, 0..30u64, any::<bool>()).prop_map(|(p, n, lost)| Event::Held(p, p + n, lost)),
        1 => (0..9u64, 0..9u64).prop_map(|(a, b)| Event::Served(a, b)),
        1 => (0..10u8, 0..50u64).prop_map(|(k, n)| Event::Message(k, n)),
        1 => Just(Event::Reopen),
    ]
}

/// What a driver and a tracker know.
struct World {
    r: Rig,
    epoch: u64,
    held: BTreeSet<u64>,
    running: BTreeMap<FetchId, Started>,
    stopped: Vec<FetchId>,
    /// Acknowledged in this epoch.
    acked: BTreeSet<u64>,
    /// Stated by the last join, or acknowledged since.
    known: BTreeSet<u64>,
    /// The tracker dropped messages: they are said again.
    dropped: bool,
    /// A join without an answer.
    asked: Option<u64>,
    /// How often each number was given, and ended, in this epoch.
    given: BTreeMap<u64, (u32, u32)>,
}

impl World {
    fn new() -> World {
        let mut w = World {
            r: Rig::joined(PAGES),
            epoch: 1,
            held: BTreeSet::new(),
            running: BTreeMap::new(),
            stopped: Vec::new(),
            acked: BTreeSet::new(),
            known: BTreeSet::new(),
            dropped: false,
            asked: None,
            given: BTreeMap::new(),
        };
        w.look();
        w
    }

    fn is_up(&self) -> bool {
        self.r.e.session.is_up()
    }

    /// Takes note of what the engine did, and checks it.
    fn look(&mut self) {
        for id in std::mem::take(&mut self.r.stops) {
            if self.running.remove(&id).is_some() {
                self.stopped.push(id);
            }
        }
        for s in std::mem::take(&mut self.r.starts) {
            if self.r.e.fetches.contains_key(&s.id) {
                self.check_start(&s);
            }
            self.running.insert(s.id, s);
        }
        self.running.retain(|id, _| self.r.e.fetches.contains_key(id));
        for m in std::mem::take(&mut self.r.sent) {
            let mut bytes = Vec::new();
            m.write(&mut bytes);
            assert_eq!(ToTracker::from_body(&bytes[4..]).as_ref(), Ok(&m), "a message that the wire carries");
            match m {
                ToTracker::Join(j) => {
                    self.known = j.have.pages().collect();
                    self.asked = Some(j.request);
                }
                ToTracker::Have(h) => {
                    for p in h.lost.pages() {
                        self.acked.remove(&p);
                        self.known.remove(&p);
                    }
                    for (g, p) in h.got.iter().flat_map(|g| g.pages.pages().map(|p| (g.assignment, p))) {
                        assert!(self.held.contains(&p), "page {p} was promised and is not held");
                        let again = self.dropped && g == 0;
                        assert!(self.acked.insert(p) || again, "page {p} was acknowledged twice");
                        self.known.insert(p);
                    }
                }
                ToTracker::Report(r) if r.last => {
                    let (given, ended) = self.given.entry(r.assignment).or_default();
                    *ended += 1;
                    assert!(
                        *ended <= *given,
                        "assignment {} ended more often than it was given",
                        r.assignment
                    );
                }
                _ => {}
            }
        }
        self.r.rest.clear();
        self.check_bounds();
    }

    fn check_start(&self, s: &Started) {
        let e = &self.r.e;
        let last = s.pages.last.expect("a file has an end");
        assert!(last < PAGES && s.pages.first <= last);
        assert!(!self.held.contains(&s.pages.first) && !self.held.contains(&last), "{s:?}");
        let mine = &e.fetches[&s.id];
        let mut hole = 0;
        for p in s.pages.iter(PAGES) {
            hole = if self.held.contains(&p) { hole + 1 } else { 0 };
            assert!(hole <= e.media[&H].bridge, "held pages are fetched: {s:?}");
            for (id, f) in e.fetches.iter().filter(|(id, _)| **id != s.id) {
                if f.handle == H && f.set.has(p) && p >= f.low && !self.held.contains(&p) {
                    let helps = e.assigned[&f.order].number.0 == e.assigned[&mine.order].number.0;
                    let far = mine.need == Need::Urgent && f.need != Need::Urgent && p > f.low + 16;
                    // Started later in the same call, to help with what this one is late with.
                    let later = *id > s.id && mine.late;
                    let reverse = *id > s.id && f.need == Need::Urgent && mine.need != Need::Urgent;
                    assert!(f.late || helps || far || later || reverse, "page {p} is under way: {s:?} {f:?}");
                }
            }
        }
    }

    fn check_bounds(&self) {
        let e = &self.r.e;
        let c = &e.config;
        assert!(e.fetches.len() <= c.fetches + (c.fetches / 4).max(1));
        for host in 1..7 {
            let n = e.fetches.values().filter(|f| f.host.0[0] == host).count();
            assert!(n <= c.per_host + 1);
        }
        assert_eq!(e.fetches.keys().collect::<Vec<_>>(), self.running.keys().collect::<Vec<_>>());
        assert!(e.gone.len() <= GONE);
        assert_eq!(e.numbers.len(), e.assigned.len());
        assert!(e.queue.iter().all(|(_, _, o)| e.assigned.contains_key(o)));
        assert!(e.timers.len() <= 2 * e.assigned.len() + e.fetches.len() + 8);
        assert!(e.session.load() < 1200 && e.served.len() < 20);
        assert!(e.banned.len() <= 6 && e.ways.len() <= 18);
        for (order, a) in &e.assigned {
            let mine = e.fetches.values().filter(|f| f.order == *order).count();
            assert_eq!(a.running(), mine);
            assert!(mine > 0 || e.queue.contains(&a.key(*order)) || e.is_covered(*order), "stuck: {a:?}");
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Assign(list) => {
                let list: Vec<_> = list
                    .into_iter()
                    .map(|(id, pages, need, hosts, deadline, lapse)| {
                        let need = [Need::Urgent, Need::Steady, Need::Bulk, Need::Spare][usize::from(need)];
                        let a = assignment(id, pages, need, &hosts);
                        Assignment { deadline, lapse, ..a }
                    })
                    .collect();
                if self.is_up() {
                    list.iter().for_each(|a| self.given.entry(a.id).or_default().0 += 1);
                }
                self.r.assign(list);
            }
            Event::Cancel(assignments) => self.r.tell(Cancel { assignments }.into()),
            Event::Fetch(i, kind) => self.fetch(i, kind),
            Event::Late(i, page) => {
                if !self.stopped.is_empty() {
                    let id = self.stopped[i % self.stopped.len()];
                    // Too long ago, and nobody knows whose it was: then the driver says that it is held.
                    if self.r.e.gone.contains_key(&id) {
                        self.held.insert(page);
                        self.r.page(id, page);
                    }
                }
            }
            Event::Pass(ms) => {
                // Alarm by alarm, to see each step.
                let end = self.r.now + Duration::from_millis(ms);
                while let Some(t) = self.r.e.poll_timeout().filter(|t| *t <= end) {
                    let d = t.since(self.r.now);
                    self.r.pass(d);
                    self.look();
                }
                self.r.now = end;
            }
            Event::Disconnect => self.r.disconnect(),
            Event::Connect(same) => self.connect(same),
            Event::Answer => {
                if let Some(request) = self.asked.take() {
                    self.r.answer_to(request, 1);
                }
            }
            Event::Held(first, last, lost) => {
                let last = last.min(PAGES - 1);
                let range = PageRanges::one(first, last);
                if lost {
                    (first..=last).for_each(|p| {
                        self.held.remove(&p);
                        self.acked.remove(&p);
                    });
                    self.r.command(Command::Held { handle: H, got: PageRanges::new(), lost: range });
                } else {
                    self.held.extend(first..=last);
                    self.r.command(Command::Held { handle: H, got: range, lost: PageRanges::new() });
                }
            }
            Event::Served(a, b) => self.r.command(Command::Served { items: vec![(a, b)] }),
            Event::Message(k, n) => self.message(k, n),
            Event::Reopen => {
                let mut held = PageMap::new(PAGES);
                self.held.iter().for_each(|p| {
                    held.insert(*p);
                });
                self.r.accept(held);
            }
        }
        self.look();
    }

    fn connect(&mut self, same: bool) {
        if self.is_up() {
            return;
        }
        while self.r.e.session.link == Link::Down {
            let t = self.r.e.poll_timeout().expect("a session that is down is tried again");
            self.r.pass(t.since(self.r.now));
            self.look();
        }
        if !same {
            self.epoch += 1;
            self.acked.clear();
            self.given.clear();
        }
        self.r.connect(self.epoch);
        self.look();
    }

    fn message(&mut self, k: u8, n: u64) {
        let m: ToPeer = match k {
            0 => error(ErrorCode(u16::try_from(n % 12).unwrap()), n, Some(7)),
            1 => error(ErrorCode::INTERNAL, n, None),
            2 => icet::message::Pong { nonce: n, time: n }.into(),
            3 => ToPeer::Unknown(n),
            4 => icet::message::Slices { media: manifest(1, 1).id(), request: n, slices: Vec::new() }.into(),
            5 => welcome(n),
            8 => quota(None, n),
            9 => quota(Some(manifest(1, 1).id()), n),
            6 => icet::message::Newer { manifest: manifest(PAGES, 1).signed().clone() }.into(),
            _ => icet::message::Withdrawn {
                media: icet::MediaId([1; 32]),
                moved: None,
                operator: None,
                off_air: None,
            }
            .into(),
        };
        self.dropped |= k >= 8;
        self.r.tell(m);
    }

    fn fetch(&mut self, i: usize, kind: Kind) {
        if self.running.is_empty() {
            return;
        }
        let s = self.running.values().nth(i % self.running.len()).unwrap().clone();
        match kind {
            Kind::Next(n) => {
                for page in
                    s.pages.iter(PAGES).filter(|p| !self.held.contains(p)).take(n.into()).collect::<Vec<_>>()
                {
                    if self.running.contains_key(&s.id) {
                        self.held.insert(page);
                        self.r.page(s.id, page);
                        self.look();
                    }
                }
            }
            Kind::Any(page) if page < PAGES => {
                self.held.insert(page);
                self.r.page(s.id, page);
            }
            Kind::Any(page) => self.r.page(s.id, page),
            Kind::Duplicate(page) => {
                if self.held.contains(&page) {
                    self.r.event(s.id, FetchEvent::Duplicate { page });
                }
            }
            Kind::Progress => self.r.event(s.id, FetchEvent::Progress { bytes: 1500 }),
            Kind::FirstByte => self.r.event(s.id, FetchEvent::FirstByte),
            Kind::Altered => self.r.event(s.id, FetchEvent::Altered),
            Kind::Ended(o) => {
                let outcomes = [
                    Outcome::Done,
                    Outcome::Stopped,
                    Outcome::Unreachable,
                    Outcome::Refused,
                    Outcome::Broken,
                    Outcome::Stalled,
                    Outcome::Incomplete,
                    Outcome::Altered,
                ];
                self.r.ended(s.id, outcomes[usize::from(o)]);
            }
        }
    }

    /// Nothing more happens but time.
    fn end(mut self) {
        self.connect(true);
        self.look();
        for _ in 0..8000 {
            self.connect(true);
            self.step(Event::Answer);
            let Some(t) = self.r.e.poll_timeout() else { break };
            let d = t.since(self.r.now);
            self.r.pass(d);
            self.look();
        }
        assert!(self.r.e.assigned.is_empty(), "{:?}", self.r.e.assigned);
        assert!(self.r.e.fetches.is_empty());
        assert!(self.given.values().all(|(given, ended)| *given == 0 || *ended > 0), "{:?}", self.given);
        assert_eq!(self.known, self.held, "the tracker knows what is held");
        assert_eq!(self.r.e.poll_timeout(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold(events in proptest::collection::vec(event(), 1..120)) {
        let mut w = World::new();
        for event in events {
            w.step(event);
        }
        w.end();
    }

    /// Against the plain definition, page by page.
    #[test]
    fn runs_to_fetch_are_missing_and_free(
        set in set(),
        held in proptest::collection::vec((0..PAGES, 0..20u64), 0..8),
        busy in proptest::collection::vec(set(), 0..4),
        live in any::<bool>(),
        bridge in 0..4u64,
        from in 0..PAGES,
    ) {
        let map = PageMap::new(if live { 0 } else { PAGES });
        let mut pages = Pages::new(map);
        for (first, n) in held {
            for p in first..(first + n).min(PAGES) {
                pages.insert(p);
            }
        }
        let set = PageSet { last: if live { set.last } else { Some(set.last.unwrap_or(PAGES).min(PAGES - 1)) }, ..set };
        prop_assume!(set.last.is_none_or(|l| l >= set.first));
        let wanted = |p: &u64| !pages.has(*p) && !busy.iter().any(|b| b.has(*p));
        let first = set.iter(4 * PAGES).filter(|p| *p >= from).find(wanted);
        let run = pages.next_run(&set, from, &busy, bridge);
        prop_assert_eq!(run.map(|r| r.first), first);
        if let Some(run) = run {
            let end = run.last.unwrap_or(4 * PAGES);
            let mut hole = 0;
            for p in run.iter(end + 1) {
                prop_assert!(!busy.iter().any(|b| b.has(p)));
                hole = if pages.has(p) { hole + 1 } else { 0 };
                prop_assert!(hole <= bridge);
            }
            prop_assert!(run.last.is_none_or(|l| !set.has(l) || !pages.has(l)));
            prop_assert!(run.last.is_some() || set.last.is_none());
            // It could not go on.
            if set.stripe.is_none() && let Some(next) = run.last.and_then(|l| set.next_from(l + 1)) {
                prop_assert!(!wanted(&next), "{:?} stops short of {}", run, next);
            }
        }
    }

    #[test]
    fn a_live_map_is_a_set(ops in proptest::collection::vec((any::<bool>(), 0..60u64), 0..200)) {
        let mut pages = Pages::new(PageMap::new(0));
        let mut model = BTreeSet::new();
        for (add, p) in ops {
            if add {
                prop_assert_eq!(pages.insert(p), model.insert(p));
            } else {
                prop_assert_eq!(pages.remove(p), model.remove(&p));
            }
            prop_assert_eq!(pages.to_ranges().pages().collect::<BTreeSet<_>>(), model.clone());
            prop_assert_eq!(pages.first_missing(p), (p..).find(|q| !model.contains(q)));
        }
    }
}

fn quota(media: Option<icet::MediaId>, retry: u64) -> ToPeer {
    let retry = u32::try_from(retry).ok();
    ErrorMessage { code: ErrorCode::QUOTA, request: None, media, text: String::new(), retry }.into()
}
