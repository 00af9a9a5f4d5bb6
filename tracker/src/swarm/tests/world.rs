//! A swarm with its catalogue and scripted peers around it, in virtual time.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use icet::message::{
    Assignment, ErrorMessage, Focus, Got, Have, Hello, Intent, Join, KeyProof, MediaAnswer, Outcome, Ping,
    Position, Publish, Report, ToPeer, ToTracker,
};
use icet::{
    Abilities, Identity, Limits, MediaId, MediaPath, NetAddr, NetKind, Now, Offer, PageRanges, PeerKey,
    ProvenSlice, SignedManifest,
};

use super::super::record::{Digest, Input, Record};
use super::super::{ConnId, Contribution, DialId, Effect, Store, Swarm, SwarmConfig};
use super::fixture;

pub(crate) const SECRET: [u8; 32] = [7; 32];
pub(crate) const WALL: u64 = 1_800_000_000_000;

/// An offer that serves, over TCP.
pub(crate) fn offer(name: &str) -> Offer {
    Offer {
        name: name.parse().unwrap(),
        abilities: Abilities::PAGES | Abilities::ORDERED,
        serves: true,
        endpoint: String::new(),
        dials: Some(NetKind::Tcp),
    }
}

pub(crate) fn tcp(addr: &str) -> NetAddr {
    NetAddr { kind: NetKind::Tcp, at: addr.parse().unwrap() }
}

pub(crate) fn hello(reach: Vec<NetAddr>) -> Hello {
    Hello {
        version: 1,
        agent: "test".into(),
        proof: KeyProof::Channel,
        offers: vec![offer("http")],
        reach,
        limits: Limits::default(),
        epoch: None,
        instance: None,
    }
}

/// The whole: what the server would do, and what came to each session.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) swarm: Swarm,
    pub(crate) now: Now,
    pub(crate) inbox: BTreeMap<ConnId, VecDeque<ToPeer>>,
    pub(crate) closed: BTreeMap<ConnId, String>,
    pub(crate) dials: Vec<(DialId, NetAddr, PeerKey)>,
    /// Who does not answer when it is knocked at: all others do at once.
    pub(crate) frozen: BTreeSet<ConnId>,
    /// Whether dials succeed by themselves.
    pub(crate) reachable: bool,
    pub(crate) stores: Vec<Store>,
    slices: HashMap<(MediaId, u64, u64), ProvenSlice>,
    last_conn: u64,
    /// Time that the swarm itself took for messages and timers.
    pub(crate) spent: Duration,
    /// Records of all inputs, if they are kept.
    pub(crate) log: Option<(Vec<Vec<u8>>, Digest)>,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut SwarmConfig)) -> World {
        let mut config = SwarmConfig::new(fixture::identity(255).key(), SECRET, 1, 42);
        change(&mut config);
        World {
            swarm: Swarm::new(config),
            now: Now::ZERO,
            inbox: BTreeMap::new(),
            closed: BTreeMap::new(),
            dials: Vec::new(),
            frozen: BTreeSet::new(),
            reachable: true,
            stores: Vec::new(),
            slices: HashMap::new(),
            last_conn: 0,
            spent: Duration::ZERO,
            log: None,
        }
    }

    /// Keeps a log from now on: before anything else.
    pub(crate) fn record(&mut self) {
        let made = Record::Made(self.swarm.config().clone()).to_bytes();
        self.log = Some((vec![made], Digest::default()));
    }

    fn feed(&mut self, input: Input) {
        if let Some((records, _)) = &mut self.log {
            records.push(input.to_bytes());
        }
        let began = Instant::now();
        self.swarm.feed(input);
        self.spent += began.elapsed();
    }

    pub(crate) fn wall(&self) -> u64 {
        WALL + self.now.0 / 1000
    }

    pub(crate) fn drain(&mut self) {
        let mut any = false;
        while let Some(effect) = self.swarm.poll_effect() {
            any = true;
            self.log.iter_mut().for_each(|(_, digest)| digest.add(&effect));
            match effect {
                Effect::Send { conn, message } => self.deliver(conn, message),
                Effect::Answer { conn, mut message, media, version, slices } => {
                    let found: Vec<_> = slices
                        .iter()
                        .filter_map(|i| self.slices.get(&(media, version, *i)).cloned())
                        .collect();
                    assert_eq!(found.len(), slices.len(), "an answer needs slices that were never stored");
                    match &mut message {
                        ToPeer::MediaAnswer(a) => a.slices = found,
                        ToPeer::Slices(a) => a.slices = found,
                        other => panic!("no slices go with {other:?}"),
                    }
                    self.deliver(conn, message);
                }
                Effect::Close { conn, why } => {
                    self.closed.insert(conn, why);
                }
                Effect::Dial { id, addr, key } => {
                    if self.reachable {
                        self.feed(Input::Dialed { now: self.now, id, outcome: Ok(()) });
                    } else {
                        self.dials.push((id, addr, key));
                    }
                }
                Effect::Store(s) => {
                    if let Store::Slice { media, version, index, slice, .. } = &s {
                        self.slices.insert((*media, *version, *index), slice.clone());
                    }
                    self.stores.push(s);
                }
            }
        }
        if let Some((records, digest)) = self.log.as_mut().filter(|_| any) {
            records.push(Record::Check(digest.check()).to_bytes());
        }
    }

    fn deliver(&mut self, conn: ConnId, message: ToPeer) {
        let mut out = Vec::new();
        message.write(&mut out);
        assert!(out.len() <= icet::limits::FRAME, "what goes out must fit the wire");
        if matches!(message, ToPeer::Knock(_)) && !self.frozen.contains(&conn) {
            let (now, wall_ms, message) = (self.now, self.wall(), Ping { nonce: 0 }.into());
            self.feed(Input::Message { now, wall_ms, conn, message });
        }
        self.inbox.entry(conn).or_default().push_back(message);
    }

    /// A session of `who` from `from`, before its hello.
    pub(crate) fn connect(&mut self, who: &Identity, from: &str) -> ConnId {
        self.connect_known(who, from, Contribution::default())
    }

    /// The same of somebody whom the catalogue knows.
    pub(crate) fn connect_known(&mut self, who: &Identity, from: &str, known: Contribution) -> ConnId {
        self.last_conn += 1;
        let conn = ConnId(self.last_conn);
        let from: SocketAddr = from.parse().unwrap();
        let (now, peer, kind) = (self.now, who.key(), NetKind::Udp);
        self.feed(Input::Connect { now, conn, peer, from, kind, contribution: known });
        self.drain();
        conn
    }

    /// A session that said hello, with one address that can be dialed: `10.0.0.n:4000`.
    pub(crate) fn peer(&mut self, n: u8) -> ConnId {
        let at = format!("10.0.0.{n}:4000");
        let conn = self.connect(&fixture::identity(n), &at);
        self.say(conn, hello(vec![tcp(&at)]));
        self.inbox.remove(&conn);
        conn
    }

    pub(crate) fn say(&mut self, conn: ConnId, message: impl Into<ToTracker>) {
        let (now, wall_ms, message) = (self.now, self.wall(), message.into());
        self.feed(Input::Message { now, wall_ms, conn, message });
        self.drain();
    }

    pub(crate) fn disconnect(&mut self, conn: ConnId) {
        self.feed(Input::Disconnect { now: self.now, conn });
        self.drain();
    }

    /// Lets time pass, with all timers on the way.
    pub(crate) fn pass(&mut self, d: Duration) {
        let end = self.now + d;
        while let Some(t) = self.swarm.poll_timeout().filter(|t| *t <= end) {
            self.now = self.now.max(t);
            self.feed(Input::Timeout { now: self.now, wall_ms: self.wall() });
            self.drain();
        }
        self.now = end;
    }

    pub(crate) fn heard(&mut self, conn: ConnId) -> Vec<ToPeer> {
        self.inbox.remove(&conn).map(Vec::from).unwrap_or_default()
    }

    /// The assignments that came since last asked; other messages are dropped.
    pub(crate) fn assigned(&mut self, conn: ConnId) -> Vec<Assignment> {
        let heard = self.heard(conn);
        heard
            .into_iter()
            .flat_map(|m| if let ToPeer::Assign(a) = m { a.assignments } else { Vec::new() })
            .collect()
    }

    pub(crate) fn error(&mut self, conn: ConnId) -> Option<ErrorMessage> {
        self.heard(conn)
            .into_iter()
            .find_map(|m| if let ToPeer::ErrorMessage(e) = m { Some(e) } else { None })
    }

    pub(crate) fn answer(&mut self, conn: ConnId) -> Option<MediaAnswer> {
        let heard = self.heard(conn);
        let (mut answer, mut rest) = (None, VecDeque::new());
        for m in heard {
            match m {
                ToPeer::MediaAnswer(a) => answer = Some(a),
                other => rest.push_back(other),
            }
        }
        self.inbox.insert(conn, rest);
        answer
    }

    /// Publishes with all slices.
    pub(crate) fn publish(&mut self, conn: ConnId, media: &(SignedManifest, Vec<ProvenSlice>)) {
        let (manifest, slices) = media;
        let first = slices.iter().take(2).cloned().collect();
        self.say(conn, Publish { request: 1, manifest: manifest.signed().clone(), slices: first });
        for some in slices.chunks(128) {
            let slices = some.to_vec();
            self.say(conn, icet::message::Slices { media: manifest.id(), request: 0, slices });
        }
    }

    pub(crate) fn join(&mut self, conn: ConnId, path: &str, intent: Intent) {
        self.say(conn, join(path, intent));
    }

    /// The receiver says that it got all of an assignment.
    pub(crate) fn done(&mut self, conn: ConnId, a: &Assignment) {
        let pages = PageRanges::one(a.pages.first, a.pages.last.unwrap());
        self.say(
            conn,
            Have { media: a.media, got: vec![Got { assignment: a.id, pages }], lost: PageRanges::new() },
        );
        self.say(conn, report(a, Outcome::Done));
    }
}

pub(crate) fn join(path: &str, intent: Intent) -> Join {
    Join {
        request: 5,
        path: MediaPath::new(path).unwrap(),
        publisher: None,
        version: 0,
        have: PageRanges::new(),
        intent,
        at: None,
        back: None,
        running: Vec::new(),
    }
}

pub(crate) fn focus(media: MediaId, page: u64, urgent: u64) -> Focus {
    Focus { media, at: Position::Page(page), rate: None, urgent, intent: Intent::Play }
}

pub(crate) fn have(media: MediaId, first: u64, last: u64) -> Have {
    let got = vec![Got { assignment: 0, pages: PageRanges::one(first, last) }];
    Have { media, got, lost: PageRanges::new() }
}

pub(crate) fn report(a: &Assignment, outcome: Outcome) -> Report {
    Report {
        media: a.media,
        assignment: a.id,
        host: a.source.host.key,
        protocol: a.source.host.protocol.clone(),
        outcome,
        bytes: 50_000,
        pages: 10,
        bad: 0,
        first_byte: Some(20),
        total: 100,
        last: true,
    }
}
