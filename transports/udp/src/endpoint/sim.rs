//! Two endpoints with a network between them, in lock-step: virtual time, a seeded network with a bottleneck.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;
use iceshare::icet::stream::EndCode;
use iceshare::icet::{Identity, MediaId, PageSet};
use iceshare::protocol::{Piece, What};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::assoc::{Part, Read, Want};
use crate::wire::{Body, UNIT};

/// One direction of a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    /// Bytes a second; none: no bottleneck.
    pub(crate) rate: Option<u64>,
    pub(crate) delay: Duration,
    /// Bytes that wait at the bottleneck; more are dropped.
    pub(crate) queue: u64,
    pub(crate) loss: f64,
    /// Datagrams that take up to four times as long.
    pub(crate) disorder: f64,
    pub(crate) twice: f64,
    /// Larger datagrams vanish.
    pub(crate) mtu: usize,
}

pub(crate) fn link(ms: u64) -> Link {
    Link {
        rate: None,
        delay: Duration::from_millis(ms),
        queue: u64::MAX,
        loss: 0.0,
        disorder: 0.0,
        twice: 0.0,
        mtu: 1472,
    }
}

/// With IP and UDP headers, for the bottleneck.
const HEADERS: u64 = 28;

/// What a host has: pages with a content that says where it is from.
pub(crate) fn page_len(page: u64) -> usize {
    match page % 10 {
        0 => 27 + usize::try_from(page % 200).unwrap_or(0),
        9 => 9000,
        n => 3000 + 300 * usize::try_from(n).unwrap_or(0),
    }
}

pub(crate) fn content(page: u64) -> Bytes {
    let byte = |i: usize| (page.wrapping_mul(31).wrapping_add(i as u64) % 253) as u8;
    (0..page_len(page)).map(byte).collect::<Vec<u8>>().into()
}

/// A request that is served.
struct Served {
    pages: Box<dyn Iterator<Item = u64>>,
    set: PageSet,
    ended: bool,
}

/// A request that was made.
#[derive(Default)]
pub(crate) struct Fetched {
    pub(crate) pages: BTreeMap<u64, Vec<(usize, Bytes)>>,
    pub(crate) bytes: usize,
    pub(crate) end: Option<EndCode>,
    pub(crate) over: Option<Over>,
    /// The page that bytes are of, and their offset.
    at: (u64, usize),
    set: Option<PageSet>,
    /// Nobody reads.
    pub(crate) paused: bool,
    pub(crate) first: Option<Now>,
}

impl Fetched {
    fn take(&mut self, now: Now, piece: Piece) {
        match piece {
            Piece::Page(page) => self.at = (page, 0),
            Piece::Bytes(mut bytes) => {
                self.first.get_or_insert(now);
                self.bytes += bytes.len();
                while !bytes.is_empty() {
                    let (page, offset) = self.at;
                    let n = bytes.len().min(page_len(page) - offset);
                    self.pages.entry(page).or_default().push((offset, bytes.split_to(n)));
                    self.at = if offset + n == page_len(page) {
                        (self.set.and_then(|s| s.next_from(page + 1)).unwrap_or(u64::MAX), 0)
                    } else {
                        (page, offset + n)
                    };
                }
            }
            Piece::Fragment { page, offset, bytes } => {
                self.bytes += bytes.len();
                self.pages.entry(page).or_default().push((offset as usize, bytes));
            }
            Piece::Gap => panic!("this protocol tells places, not gaps"),
        }
    }

    /// Whether each page of the set came whole, once, and right.
    pub(crate) fn check(mut self, set: PageSet) {
        assert_eq!((self.end, self.over), (Some(EndCode::COMPLETE), None));
        for page in set.iter(set.last.unwrap() + 1) {
            let mut parts = self.pages.remove(&page).unwrap_or_else(|| panic!("page {page} did not come"));
            parts.sort_by_key(|(o, _)| *o);
            let mut whole = Vec::new();
            for (offset, part) in parts {
                assert_eq!(offset, whole.len(), "page {page}");
                whole.extend_from_slice(&part);
            }
            assert!(whole == content(page), "page {page}");
        }
        assert!(self.pages.is_empty());
    }
}

pub(crate) struct Side {
    pub(crate) at: SocketAddr,
    pub(crate) key: PeerKey,
    pub(crate) endpoint: Endpoint,
    served: BTreeMap<(AssocId, u64), Served>,
    pub(crate) fetched: BTreeMap<(AssocId, u64), Fetched>,
    pub(crate) link: Link,
    busy: Now,
    waiting: u64,
    /// Datagrams sent, their bytes, and those that the bottleneck dropped.
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) dropped: u64,
}

enum Flying {
    /// It leaves the bottleneck of this side.
    Leaves(usize, u64),
    Arrives(usize, SocketAddr, Vec<u8>),
}

/// The network, and who is in it.
pub(crate) struct Net {
    pub(crate) now: Now,
    pub(crate) sides: Vec<Side>,
    random: SmallRng,
    flying: BinaryHeap<Reverse<(Now, u64)>>,
    cargo: BTreeMap<u64, Flying>,
    next: u64,
    /// One bottleneck for all sides' sending, if there is one: rate and queue in bytes.
    pub(crate) shared: Option<(u64, u64)>,
    shared_busy: Now,
    shared_waiting: u64,
}

pub(crate) fn limits() -> Limits {
    Limits { associations: 64, per_ip: 64, connect: Duration::from_secs(3), largest: MAX_DATAGRAM }
}

impl Net {
    pub(crate) fn new(seed: u64, links: &[Link]) -> Net {
        let side = |(i, link): (usize, &Link)| {
            let i = u8::try_from(i).unwrap();
            let identity = Identity::from_seed(&[i + 1; 32]);
            let endpoint = Endpoint::new(limits(), &identity, [i + 9; 32]);
            Side {
                at: SocketAddr::from(([192, 0, 2, i + 1], 4237)),
                key: identity.key(),
                endpoint,
                served: BTreeMap::new(),
                fetched: BTreeMap::new(),
                link: *link,
                busy: Now(0),
                waiting: 0,
                sent: 0,
                sent_bytes: 0,
                dropped: 0,
            }
        };
        Net {
            now: Now(0),
            sides: links.iter().enumerate().map(side).collect(),
            random: SmallRng::seed_from_u64(seed),
            flying: BinaryHeap::new(),
            cargo: BTreeMap::new(),
            next: 0,
            shared: None,
            shared_busy: Now(0),
            shared_waiting: 0,
        }
    }

    fn fly(&mut self, at: Now, what: Flying) {
        self.next += 1;
        self.flying.push(Reverse((at, self.next)));
        self.cargo.insert(self.next, what);
    }

    /// A datagram is sent by a side.
    pub(crate) fn send(&mut self, from: usize, to: SocketAddr, bytes: &[u8]) {
        let Some(target) = self.sides.iter().position(|s| s.at == to) else { return };
        let size = bytes.len() as u64 + HEADERS;
        let side = &mut self.sides[from];
        side.sent += 1;
        side.sent_bytes += bytes.len() as u64;
        let (link, at) = (side.link, side.at);
        if bytes.len() > link.mtu {
            return;
        }
        let mut leaves = self.now;
        let queues = if let Some((rate, queue)) = self.shared.filter(|_| bytes.len() > 200) {
            Some((rate, queue, &mut self.shared_busy, &mut self.shared_waiting, usize::MAX))
        } else {
            link.rate.map(|rate| (rate, link.queue, &mut side.busy, &mut side.waiting, from))
        };
        if let Some((rate, queue, busy, waiting, who)) = queues {
            if *waiting + size > queue {
                side.dropped += 1;
                return;
            }
            *waiting += size;
            leaves = leaves.max(*busy) + Duration::from_secs_f64(size as f64 / rate as f64);
            *busy = leaves;
            self.fly(leaves, Flying::Leaves(who, size));
        }
        if self.random.random_bool(link.loss) {
            return;
        }
        let copies = if self.random.random_bool(link.twice) { 2 } else { 1 };
        for _ in 0..copies {
            let slow = self.random.random_bool(link.disorder);
            let factor = if slow { self.random.random_range(1.0..4.0) } else { 1.0 };
            let arrives = leaves + link.delay.mul_f64(factor);
            self.fly(arrives, Flying::Arrives(target, at, bytes.to_vec()));
        }
    }

    /// Lets everybody do what there is to do now.
    pub(crate) fn work(&mut self) {
        for i in 0..self.sides.len() {
            loop {
                let now = self.now;
                let side = &mut self.sides[i];
                side.apps(now);
                let mut out = Vec::new();
                let Some(t) = side.endpoint.poll_transmit(now, &mut out, 10) else { break };
                for datagram in out.chunks(t.size) {
                    self.send(i, t.to, datagram);
                }
            }
        }
    }

    /// Goes on to the next event. False: there is none before `until`.
    pub(crate) fn step(&mut self, until: Now) -> bool {
        self.work();
        let timers = self.sides.iter().filter_map(|s| s.endpoint.poll_timeout()).min();
        let flying = self.flying.peek().map(|Reverse((at, _))| *at);
        let Some(next) = timers.into_iter().chain(flying).min().filter(|n| *n <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        for side in &mut self.sides {
            if side.endpoint.poll_timeout().is_some_and(|t| t <= self.now) {
                side.endpoint.handle_timeout(self.now);
            }
        }
        while let Some(Reverse((at, n))) =
            self.flying.peek().copied().filter(|Reverse((at, _))| *at <= self.now)
        {
            self.flying.pop();
            assert!(at <= self.now);
            match self.cargo.remove(&n) {
                Some(Flying::Leaves(usize::MAX, size)) => self.shared_waiting -= size,
                Some(Flying::Leaves(side, size)) => self.sides[side].waiting -= size,
                Some(Flying::Arrives(side, from, mut bytes)) => {
                    self.sides[side].endpoint.handle_datagram(self.now, from, &mut bytes);
                }
                None => {}
            }
        }
        true
    }

    /// Goes on until something holds; false: not within so many seconds.
    pub(crate) fn run(&mut self, seconds: f64, done: impl Fn(&Net) -> bool) -> bool {
        let until = self.now + Duration::from_secs_f64(seconds);
        loop {
            self.work();
            if done(self) {
                return true;
            }
            if !self.step(until) {
                return done(self);
            }
        }
    }

    /// Side `of` asks `host` for pages.
    pub(crate) fn fetch(&mut self, of: usize, host: usize, set: PageSet, window: u64) -> (AssocId, u64) {
        let (key, at) = (self.sides[host].key, self.sides[host].at);
        let side = &mut self.sides[of];
        let id = side
            .endpoint
            .find(self.now, &key, &[at])
            .unwrap_or_else(|| side.endpoint.connect(self.now, key, &[at]));
        let what = What::Pages(set);
        let request = iceshare::icet::stream::PagesRequest {
            path: "a/b.opus".parse().unwrap(),
            media: MediaId([7; 32]),
            version: 1,
            what: what.clone(),
            ticket: None,
        };
        let body = Body { credit: window, request }.write();
        let n = side.endpoint.association(id).unwrap().request(body.into(), &what, window);
        side.endpoint.stir(id);
        side.fetched.insert((id, n), Fetched { set: Some(set), ..Fetched::default() });
        (id, n)
    }

    pub(crate) fn fetched(&mut self, of: usize, fetch: (AssocId, u64)) -> Fetched {
        self.sides[of].fetched.remove(&fetch).unwrap()
    }
}

impl Side {
    /// What the driver and those behind it do.
    fn apps(&mut self, now: Now) {
        while let Some((id, event)) = self.endpoint.poll_event() {
            match event {
                Event::Asked(n, body) => self.asked(id, n, &body),
                Event::Hungry(n) => self.feed(id, n),
                Event::Stopped(n) => {
                    self.served.remove(&(id, n));
                }
                Event::Readable(n) => self.read(now, id, n),
            }
        }
    }

    fn asked(&mut self, id: AssocId, n: u64, body: &[u8]) {
        let body = Body::read(body).unwrap();
        let What::Pages(set) = body.request.what else { panic!() };
        let a = self.endpoint.association(id).unwrap();
        a.first_credit(n, body.credit);
        a.accept(n, set.next_from(0).unwrap() * UNIT);
        let pages = Box::new(set.iter(set.last.unwrap() + 1));
        self.served.insert((id, n), Served { pages, set, ended: false });
        self.feed(id, n);
    }

    fn feed(&mut self, id: AssocId, n: u64) {
        let Some(served) = self.served.get_mut(&(id, n)) else { return };
        let Some(a) = self.endpoint.association(id) else { return };
        loop {
            if let Want::Now(_) = if served.ended { Want::Later } else { a.room(n, false, u64::MAX) } {
                match served.pages.next() {
                    Some(page) => {
                        a.supply(n, Part { place: page * UNIT, bytes: content(page), last: true });
                    }
                    None => {
                        served.ended = true;
                        a.end(n, EndCode::COMPLETE, (served.set.last.unwrap() + 1) * UNIT);
                    }
                }
            }
            match a.next_repair(n) {
                Want::Now((number, places)) => {
                    for (start, end) in places.0 {
                        for page in served.set.iter(end.div_ceil(UNIT)).filter(|p| *p >= start / UNIT) {
                            let len = page_len(page) as u64;
                            let from = start.saturating_sub(page * UNIT).min(len);
                            let to = (end - page * UNIT).min(len);
                            let cut = usize::try_from(from).unwrap()..usize::try_from(to).unwrap();
                            let bytes = content(page).slice(cut);
                            a.repair(n, Part { place: page * UNIT + from, bytes, last: to == len });
                        }
                    }
                    a.repair_done(n, number);
                }
                Want::Never => break,
                Want::Later if served.ended || a.room(n, false, u64::MAX) == Want::Later => break,
                Want::Later => {}
            }
        }
        self.endpoint.stir(id);
    }

    pub(crate) fn read(&mut self, now: Now, id: AssocId, n: u64) {
        let Some(fetched) = self.fetched.get_mut(&(id, n)) else { return };
        let Some(a) = self.endpoint.association(id) else { return };
        if fetched.paused {
            return;
        }
        loop {
            match a.read(n) {
                Some(Read::Piece(piece)) => fetched.take(now, piece),
                Some(Read::End(code)) => {
                    fetched.end = Some(code);
                    break;
                }
                Some(Read::Pending) | None => break,
            }
        }
        if let Some(over) = a.over().filter(|_| fetched.end.is_none()) {
            fetched.over = Some(over);
            a.stop(n);
        }
        if a.wants_to_talk(n) || fetched.over.is_some() || fetched.end.is_some() {
            self.endpoint.stir(id);
        }
    }

    /// Nobody reads a fetch any more.
    pub(crate) fn stop(&mut self, (id, n): (AssocId, u64)) {
        self.endpoint.association(id).unwrap().stop(n);
        self.endpoint.stir(id);
    }

    pub(crate) fn stats(&mut self) -> crate::assoc::Stats {
        self.endpoint.associations.values().map(Association::stats).fold(Default::default(), |mut a, b| {
            a.sent += b.sent;
            a.sent_bytes += b.sent_bytes;
            a.lost += b.lost;
            a.received += b.received;
            a
        })
    }
}
