//! The world: the real swarm and N real engines between a network and a clock that is only counted.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use iceshare::engine::io::{Action, Command, FetchEvent, FetchId, Giving, Refusal};
use icet::message::{Intent, ToPeer, ToTracker};
use icet::{Now, PageMap, PageNo, PageRanges, PeerKey};
use icetracker::swarm::{ConnId, DialId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::live::{self, Live, Stream};
use crate::media::{Pages, SimMedia};
use crate::net::{Death, Net, NetEvent, Told};
use crate::peer::{self, MEDIA, Peer, Spec};
use crate::play::Buffers;
use crate::protocol::Protocol;
use crate::queue::Queue;
use crate::tracker::{Out, Tracker};

/// One way from the middle of the network to the tracker.
const TRACKER: Duration = Duration::from_millis(10);
/// How long until a silent session is given up.
const IDLE: Duration = Duration::from_secs(10);
/// How often hosts say what they served.
const SERVED: Duration = Duration::from_secs(1);

/// What happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    ToTracker(ConnId, Box<ToTracker>),
    ToPeer(usize, ConnId, Box<ToPeer>),
    Dialed(DialId, bool),
    /// A try to connect comes to its end.
    Connected(usize, u64),
    /// A session broke, as the peer sees it.
    Lost(usize, ConnId),
    /// The same as the tracker sees it.
    Gone(ConnId),
    /// An engine's timeout, if it is still the one that is set.
    Alarm(usize),
    Served(usize),
    /// Pages that were said to come by a fetch, and did not.
    Feigned(usize, FetchId, icet::PageSet),
    /// They are said to be lost.
    Disowned(usize, PageRanges),
    Play(usize),
    /// The source of a broadcast has a page; it says how far it is; counting begins; its line is cut for so long.
    Source(PageNo),
    Head,
    Settled,
    Dark(Duration),
    Net(NetEvent),
}

impl From<NetEvent> for Event {
    fn from(e: NetEvent) -> Event {
        Event::Net(e)
    }
}

/// How messages go between peers and tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wire {
    /// As types.
    #[default]
    Types,
    /// As types; their encoded lengths are counted.
    Counted,
    /// Through the wire's encoding and back.
    Encoded,
}

/// Messages in one direction.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// How many, by number of the message.
    pub messages: BTreeMap<u64, u64>,
    /// Bytes of their frames, unless they go as types.
    pub bytes: u64,
}

/// A swarm and its network.
#[derive(Debug)]
pub struct Sim {
    /// Now.
    pub now: Now,
    /// What is shared.
    pub media: SimMedia,
    /// All peers, dead ones too; the first is the publisher.
    pub peers: Vec<Peer>,
    /// How messages go.
    pub wire: Wire,
    /// Messages to the tracker.
    pub upstream: Traffic,
    /// Messages to peers.
    pub downstream: Traffic,
    /// What players wait for before sound.
    pub buffers: Buffers,
    pub(crate) net: Net,
    pub(crate) live: Option<Live>,
    seed: u64,
    tracker: Tracker,
    rng: SmallRng,
    pub(crate) events: Queue<Event>,
    conns: HashMap<ConnId, usize>,
    keys: HashMap<PeerKey, usize>,
    /// Receivers that want everything, live, and lack something.
    lacking: usize,
    scratch: Vec<u8>,
    /// When the first receiver had everything, and what each was served until then.
    scarce: Option<Now>,
    then: Vec<u64>,
    /// Assignments that were told of by epoch, those that were so twice, and the numbers of the present epoch's, a bit each.
    assigned: Vec<u64>,
    assigned_twice: u64,
    told: Vec<u64>,
}

impl Sim {
    /// A tracker, and a publisher of a media of such pages.
    #[must_use]
    pub fn new(seed: u64, pages: Pages, publisher: Spec) -> Sim {
        Sim::over(seed, pages, publisher, vec![Protocol::named("http")])
    }

    /// The same with payload protocols, in the order of their numbers; at most 32.
    #[must_use]
    pub fn over(seed: u64, pages: Pages, publisher: Spec, protocols: Vec<Protocol>) -> Sim {
        let first = Peer::new(0, seed, Spec { intent: Intent::Share, ..publisher }, Now::ZERO, &protocols);
        let media = SimMedia::new(&first.identity, "sim/media.ogg", pages, seed);
        let mut sim = Sim::with(seed, first, media, None, protocols);
        sim.net.nodes[0].held = Some(PageMap::full(u64::from(pages.pages)));
        sim
    }

    /// The same with a publisher who broadcasts.
    #[must_use]
    pub fn on_air(seed: u64, stream: Stream, publisher: Spec, protocols: Vec<Protocol>) -> Sim {
        let first = Peer::new(0, seed, Spec { intent: Intent::Share, ..publisher }, Now::ZERO, &protocols);
        let media = live::media(&first.identity, &stream, seed);
        let live = Live::new(stream, first.identity.clone(), &media);
        let pages = media.lens.len() as u64;
        let mut sim = Sim::with(seed, first, media, Some(live), protocols);
        sim.net.setup = live::SETUP.0;
        sim.net.nodes[0].held = Some(PageMap::new(pages));
        sim
    }

    fn with(seed: u64, first: Peer, media: SimMedia, live: Option<Live>, protocols: Vec<Protocol>) -> Sim {
        let mut sim = Sim {
            now: Now::ZERO,
            net: Net::new(media.lens.clone(), protocols),
            media,
            live,
            peers: Vec::new(),
            wire: Wire::default(),
            upstream: Traffic::default(),
            downstream: Traffic::default(),
            buffers: Buffers::default(),
            seed,
            tracker: Tracker::new(seed),
            rng: SmallRng::seed_from_u64(seed),
            events: Queue::new(),
            conns: HashMap::new(),
            keys: HashMap::new(),
            lacking: 0,
            scratch: Vec::new(),
            scarce: None,
            then: Vec::new(),
            assigned: vec![0],
            assigned_twice: 0,
            told: Vec::new(),
        };
        sim.add(first);
        let setup = [sim.media.slices.first(), sim.media.slices.last()];
        let command = Command::Publish {
            handle: MEDIA,
            manifest: Box::new(sim.media.manifest.clone()),
            slices: setup.into_iter().flatten().cloned().collect(),
        };
        sim.command(0, command);
        sim
    }

    /// What a peer gives from now on.
    pub fn give(&mut self, n: usize, giving: Giving) {
        self.command(n, Command::Give(giving));
    }

    fn add(&mut self, peer: Peer) -> usize {
        let n = self.peers.len();
        self.net.add(peer.spec.line, peer.spec.conduct);
        let node = &mut self.net.nodes[n];
        node.machine = peer.spec.on.unwrap_or(n);
        (node.speaks, node.blocked, node.open) = (peer.spec.speaks, peer.spec.blocked, peer.spec.open);
        self.keys.insert(peer.identity.key(), n);
        self.peers.push(peer);
        self.drain(n);
        self.after(SERVED, Event::Served(n));
        n
    }

    /// A peer joins; its number.
    pub fn join(&mut self, spec: Spec) -> usize {
        let n = self.add(Peer::new(self.peers.len(), self.seed, spec, self.now, &self.net.protocols));
        self.lacking += usize::from(spec.intent == Intent::Whole);
        let command = Command::Join {
            handle: MEDIA,
            path: self.media.manifest.path.clone(),
            publisher: None,
            version: 0,
            held: PageRanges::new(),
            intent: spec.intent,
            at: None,
            back: None,
        };
        self.command(n, command);
        if self.live.is_some() {
            self.listens(n);
        } else if spec.intent == Intent::Play {
            self.seek(n, 0);
        }
        n
    }

    fn gone(&mut self, n: usize) {
        self.hangs_up(n);
        self.lacking -= usize::from(self.lacks(n));
    }

    fn lacks(&self, n: usize) -> bool {
        let whole = self.peers[n].spec.intent == Intent::Whole;
        whole && self.lives(n) && self.net.nodes[n].done.is_none()
    }

    /// A peer leaves in order.
    pub fn leave(&mut self, n: usize) {
        self.command(n, Command::Leave { handle: MEDIA });
        self.gone(n);
        self.peers[n].left = true;
        if let Some(conn) = self.peers[n].conn.take() {
            let delay = self.to_tracker(n);
            self.after(delay, Event::Gone(conn));
        }
        self.net.kill(self.now, &mut self.events, n, Death::Process);
    }

    /// A peer dies.
    pub fn kill(&mut self, n: usize, how: Death) {
        self.gone(n);
        if let Some(conn) = self.peers[n].conn.take() {
            let delay = if how == Death::Process { self.to_tracker(n) } else { IDLE };
            self.after(delay, Event::Gone(conn));
        }
        self.net.kill(self.now, &mut self.events, n, how);
    }

    /// The tracker is killed; its catalogue stays.
    pub fn stop_tracker(&mut self) {
        self.tracker.stop();
        let mut conns: Vec<_> = std::mem::take(&mut self.conns).into_iter().collect();
        conns.sort_unstable();
        for (conn, n) in conns {
            let delay = self.to_tracker(n);
            self.after(delay, Event::Lost(n, conn));
        }
    }

    /// The tracker starts again, under the next epoch.
    pub fn start_tracker(&mut self) {
        self.tracker.start();
        self.assigned.push(0);
        self.told.clear();
    }

    /// A random number.
    pub fn random(&mut self, range: std::ops::Range<usize>) -> usize {
        self.rng.random_range(range)
    }

    /// Whether a peer takes part.
    #[must_use]
    pub fn lives(&self, n: usize) -> bool {
        self.net.nodes[n].death.is_none() && !self.peers[n].left
    }

    /// Pages that a peer holds.
    #[must_use]
    pub fn held(&self, n: usize) -> u64 {
        self.net.nodes[n].held.as_ref().map_or(0, PageMap::held)
    }

    /// When a peer had everything.
    #[must_use]
    pub fn done(&self, n: usize) -> Option<Now> {
        self.net.nodes[n].done
    }

    /// Bytes of pages that a peer sent.
    #[must_use]
    pub fn sent(&self, n: usize) -> u64 {
        self.net.nodes[n].sent
    }

    /// Bytes of pages that a peer sent as urgent, bulk and spare.
    #[must_use]
    pub fn sent_by_need(&self, n: usize) -> [u64; 3] {
        self.net.nodes[n].by_need
    }

    /// Bytes of pages that came to a peer although it held them.
    #[must_use]
    pub fn twice(&self, n: usize) -> u64 {
        self.net.nodes[n].twice
    }

    /// Altered pages that came to a peer.
    #[must_use]
    pub fn bad(&self, n: usize) -> u64 {
        self.net.nodes[n].bad
    }

    /// Bytes of pages that a peer holds.
    #[must_use]
    pub fn received(&self, n: usize) -> u64 {
        self.net.nodes[n].got
    }

    /// Bytes that a peer had of others: with what other keys of its machine had, for the first of them.
    #[must_use]
    pub fn service(&self, n: usize) -> u64 {
        let several = self.peers.iter().any(|p| p.spec.on == Some(n));
        if several { self.of_machine(n) } else { self.received(n) }
    }

    /// Bytes a second that a peer was served as long as all wanted: from when it joined until the first had everything.
    #[must_use]
    pub fn served(&self, n: usize) -> f64 {
        let to = self.scarce.unwrap_or(self.now);
        let bytes = if self.scarce.is_some() { self.then.get(n).copied() } else { Some(self.service(n)) };
        let time = to.since(self.peers[n].joined).as_secs_f64();
        if time > 0.0 { bytes.unwrap_or(0) as f64 / time } else { 0.0 }
    }

    /// What the tracker's catalogue knows of what peers gave and took.
    #[must_use]
    pub fn contributions(&self) -> BTreeMap<PeerKey, icetracker::swarm::Contribution> {
        self.tracker.contributions()
    }

    /// Assignments that peers were told of, by epoch, and those of them that were told twice.
    pub(crate) fn assigned(&self) -> (Vec<u64>, u64) {
        (self.assigned.clone(), self.assigned_twice)
    }

    /// What the tracker believes of protocols; nothing while it is down.
    #[must_use]
    pub fn believed(&self) -> Vec<icetracker::swarm::ProtocolView> {
        self.tracker.protocols()
    }

    /// Events that were made so far.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.events.made()
    }

    fn to_tracker(&self, n: usize) -> Duration {
        self.peers[n].spec.line.delay + TRACKER
    }

    pub(crate) fn after(&mut self, d: Duration, event: Event) {
        self.events.push(self.now + d, event);
    }

    /// Runs until `done`, at most for `most`. Whether `done` came true.
    pub fn run(&mut self, most: Duration, mut done: impl FnMut(&Sim) -> bool) -> bool {
        let end = self.now + most;
        while !done(self) {
            let event = self.events.next_at();
            let swarm = self.tracker.poll_timeout();
            let Some(next) = event.into_iter().chain(swarm).min() else { return false };
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            if swarm == Some(next) {
                self.tracker.timeout(self.now);
                self.drain_tracker();
            } else if let Some(event) = self.events.pop() {
                self.happen(event);
            }
        }
        true
    }

    /// Whether every living receiver that wants everything has it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.lacking == 0
    }

    /// Runs until all living receivers have everything.
    pub fn run_to_completion(&mut self, most: Duration) -> bool {
        self.run(most, Sim::is_complete)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToTracker(conn, m) => {
                if self.conns.contains_key(&conn) {
                    self.tracker.message(self.now, conn, *m);
                    self.drain_tracker();
                }
            }
            Event::ToPeer(n, conn, m) => {
                if self.peers[n].conn == Some(conn) && self.lives(n) {
                    self.peers[n].engine.handle_message(self.now, *m);
                    self.drain(n);
                }
            }
            Event::Dialed(id, ok) => {
                self.tracker.dialed(self.now, id, ok);
                self.drain_tracker();
            }
            Event::Connected(n, attempt) => self.connected(n, attempt),
            Event::Lost(n, conn) => {
                if self.peers[n].conn == Some(conn) {
                    self.peers[n].conn = None;
                    self.peers[n].engine.handle_disconnected(self.now);
                    self.drain(n);
                }
            }
            Event::Gone(conn) => {
                if self.conns.remove(&conn).is_some() {
                    self.tracker.gone(self.now, conn);
                    self.drain_tracker();
                }
            }
            Event::Alarm(n) => {
                if self.peers[n].alarm == Some(self.now) && self.lives(n) {
                    self.peers[n].alarm = None;
                    if self.peers[n].engine.poll_timeout().is_some_and(|t| t <= self.now) {
                        self.peers[n].engine.handle_timeout(self.now);
                    }
                    self.drain(n);
                }
            }
            Event::Served(n) => {
                if self.lives(n) {
                    self.share(n);
                    let items: Vec<_> = std::mem::take(&mut self.net.nodes[n].served).into_iter().collect();
                    if !items.is_empty() {
                        self.command(n, Command::Served { items });
                    }
                    self.after(SERVED, Event::Served(n));
                }
            }
            Event::Feigned(n, fetch, pages) => self.feigned(n, fetch, pages),
            Event::Disowned(n, feigned) => {
                let held = self.net.nodes[n].held.as_ref();
                let mut lost = PageRanges::new();
                let gone = |p: &u64| !held.is_some_and(|h| h.has(*p));
                feigned.pages().filter(gone).for_each(|p| lost.insert(p, p));
                if self.lives(n) && !lost.is_empty() {
                    self.command(n, Command::Held { handle: MEDIA, got: PageRanges::new(), lost });
                }
            }
            Event::Play(n) => self.play(n),
            Event::Source(page) => self.source(page),
            Event::Head => self.tell_head(),
            Event::Settled => self.settled(),
            Event::Dark(lasts) => self.darken(lasts),
            Event::Net(e) => {
                if let Some(told) = self.net.handle(self.now, &mut self.events, e) {
                    self.tell(told);
                }
            }
        }
    }

    /// Tells an engine what came.
    fn tell(&mut self, told: Told) {
        let (n, fetch) = (told.node, FetchId(told.fetch));
        if !self.lives(n) {
            return;
        }
        let engine = &mut self.peers[n].engine;
        if told.first {
            engine.handle_fetch(self.now, fetch, FetchEvent::FirstByte);
        }
        engine.handle_fetch(self.now, fetch, told.event);
        if let FetchEvent::Page { page, .. } = told.event {
            self.sounds(n, page);
            self.completed(n, self.net.nodes[n].done == Some(self.now));
            self.listen(n);
        }
        self.drain(n);
    }

    /// A peer has everything since now, if it is `done`.
    pub(crate) fn completed(&mut self, n: usize, done: bool) {
        if done && self.peers[n].spec.intent == Intent::Whole {
            self.lacking -= 1;
            if self.scarce.is_none() {
                self.scarce = Some(self.now);
                self.then = (0..self.peers.len()).map(|n| self.service(n)).collect();
            }
        }
    }

    fn connected(&mut self, n: usize, attempt: u64) {
        if self.peers[n].connecting != attempt || !self.lives(n) {
            return;
        }
        let from = peer::address(n, &self.peers[n].spec);
        let key = self.peers[n].identity.key();
        match self.tracker.connect(self.now, key, from) {
            Some(conn) => {
                self.conns.insert(conn, n);
                self.peers[n].conn = Some(conn);
                self.peers[n].engine.handle_connected(self.now, self.tracker.key());
                self.drain_tracker();
            }
            None => self.peers[n].engine.handle_disconnected(self.now),
        }
        self.drain(n);
    }

    /// A peer is told of an assignment of the present epoch.
    fn count(&mut self, id: u64) {
        *self.assigned.last_mut().expect("there is an epoch") += 1;
        // In range: numbers of assignments that were made in memory.
        let word = usize::try_from(id / 64).unwrap_or(usize::MAX);
        if word >= self.told.len() {
            self.told.resize(word + 1, 0);
        }
        let bit = 1 << (id % 64);
        self.assigned_twice += u64::from(self.told[word] & bit != 0);
        self.told[word] |= bit;
    }

    pub(crate) fn command(&mut self, n: usize, c: Command) {
        self.peers[n].engine.handle_command(self.now, c);
        self.drain(n);
    }

    /// Does what a peer's engine wants done.
    fn drain(&mut self, n: usize) {
        while let Some(action) = self.peers[n].engine.poll_action() {
            match action {
                Action::Connect => {
                    self.peers[n].connecting += 1;
                    let delay = 3 * self.to_tracker(n);
                    self.after(delay, Event::Connected(n, self.peers[n].connecting));
                }
                Action::Disconnect => {
                    if let Some(conn) = self.peers[n].conn.take() {
                        let delay = self.to_tracker(n);
                        self.after(delay, Event::Gone(conn));
                    }
                }
                Action::Send(m) => {
                    let Some(conn) = self.peers[n].conn else { continue };
                    let m = self.pass_up(m);
                    let delay = self.to_tracker(n);
                    self.after(delay, Event::ToTracker(conn, Box::new(m)));
                }
                Action::Start { fetch, pages, source, need, assignment, .. } => {
                    let host = *self.keys.get(&source.host.key).expect("a host of this world");
                    let name = source.host.protocol.to_string();
                    let protocol = self.net.protocols.iter().position(|p| p.name == name);
                    let what = (assignment, need, protocol.expect("a protocol of this world"));
                    if self.collude(n, host) {
                        self.feign((n, host), fetch, pages, assignment);
                    } else {
                        self.net.fetch(self.now, &mut self.events, (n, host), fetch.0, pages, what);
                    }
                }
                Action::Stop { fetch } => self.net.stop(self.now, &mut self.events, n, fetch.0),
                Action::Joined { answer, .. } => {
                    let (pages, bytes) = (self.media.lens.len() as u64, self.media.manifest.bytes);
                    assert_eq!(answer.manifest, *self.media.manifest.signed());
                    let held = self.net.nodes[n].held.get_or_insert_with(|| PageMap::new(pages));
                    let held = if self.live.is_some() { PageMap::new(0) } else { held.clone() };
                    let accept = Command::Accept { handle: MEDIA, held, bytes, version: 1 };
                    self.peers[n].engine.handle_command(self.now, accept);
                }
                Action::WantUpload { from, .. } => {
                    let from = usize::try_from(from).unwrap_or(usize::MAX);
                    let slices = self.media.slices.iter().skip(from).take(64).cloned().collect();
                    self.peers[n].engine.handle_command(self.now, Command::Upload { handle: MEDIA, slices });
                }
                Action::Refused { why, .. } => {
                    self.peers[n].refused = Some(match why {
                        Refusal::Error(e) => e.text,
                        other => format!("{other:?}"),
                    });
                }
                Action::Head { .. }
                | Action::Newer { .. }
                | Action::Slices { .. }
                | Action::Info { .. }
                | Action::Short { .. }
                | Action::Postponed { .. }
                | Action::Welcome(_)
                | Action::Reached(_)
                | Action::Guidance { .. }
                | Action::Standing(_) => {}
            }
        }
        if !self.lives(n) {
            return;
        }
        let p = &mut self.peers[n];
        // One that was moved to later wakes too soon, and is set anew then.
        if let Some(due) = p.engine.poll_timeout().map(|t| t.max(self.now))
            && p.alarm.is_none_or(|a| due < a)
        {
            p.alarm = Some(due);
            self.events.push(due, Event::Alarm(n));
        }
    }

    fn pass_up(&mut self, m: ToTracker) -> ToTracker {
        *self.upstream.messages.entry(m.number()).or_default() += 1;
        if self.wire == Wire::Types {
            return m;
        }
        self.scratch.clear();
        m.write(&mut self.scratch);
        self.upstream.bytes += self.scratch.len() as u64;
        if self.wire == Wire::Counted {
            return m;
        }
        ToTracker::from_body(&self.scratch[icet::frame::HEADER..]).expect("engines keep the wire's limits")
    }

    fn pass_down(&mut self, m: ToPeer) -> ToPeer {
        *self.downstream.messages.entry(m.number()).or_default() += 1;
        if self.wire == Wire::Types {
            return m;
        }
        self.scratch.clear();
        m.write(&mut self.scratch);
        self.downstream.bytes += self.scratch.len() as u64;
        if self.wire == Wire::Counted {
            return m;
        }
        ToPeer::from_body(&self.scratch[icet::frame::HEADER..]).expect("the swarm keeps the wire's limits")
    }

    fn drain_tracker(&mut self) {
        for (conn, message) in self.tracker.drain() {
            let Some(n) = self.conns.get(&conn).copied() else { continue };
            let delay = self.to_tracker(n);
            match message {
                Out::Message(m) => {
                    if let ToPeer::Assign(a) = &m {
                        a.assignments.iter().for_each(|a| self.count(a.id));
                    }
                    let m = self.pass_down(m);
                    self.after(delay, Event::ToPeer(n, conn, Box::new(m)));
                }
                Out::Close => {
                    self.conns.remove(&conn);
                    self.tracker.gone(self.now, conn);
                    self.after(delay, Event::Lost(n, conn));
                }
            }
        }
        for (id, key) in self.tracker.dials() {
            let n = self.keys.get(&key).copied();
            let ok = n.is_some_and(|n| self.lives(n) && self.peers[n].spec.open);
            self.after(Duration::from_millis(80), Event::Dialed(id, ok));
        }
    }
}
