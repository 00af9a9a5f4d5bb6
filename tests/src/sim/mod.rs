//! A simulator of whole swarms: the real `icetracker::swarm` and N real peer engines, under a seeded network in memory
//! with rates, delays, deaths and restarts, in virtual time. Same seed, same run.
//!
//! Every message goes through the wire's encoding. Pages are not moved: what is simulated is when each would arrive. A
//! host's uplink serves its transfers in turn, page by page; a receiver's downlink takes what comes in order.

mod media;
mod peer;
mod tracker;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use iceshare::engine::io::{Action, Command, Refusal};
use icet::message::{Focus, Intent, Position, ToPeer, ToTracker};
use icet::{Now, PageMap, PageRanges};
use icetracker::swarm::{ConnId, DialId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub use media::{Pages, SimMedia};
pub use peer::{Death, MEDIA, Peer, Player, Spec};

use tracker::Tracker;
use transfer::Transfer;

/// One way from the middle of the network to the tracker.
const TRACKER: Duration = Duration::from_millis(10);
/// How long until a silent session is given up.
const IDLE: Duration = Duration::from_secs(10);
/// How often a player looks.
const PLAY: Duration = Duration::from_millis(100);
/// Media time that a player holds before it begins.
const BUFFER: Duration = Duration::from_millis(1000);

/// What happens at a time.
#[derive(Debug)]
enum Event {
    ToTracker(ConnId, ToTracker),
    ToPeer(usize, ConnId, ToPeer),
    Dialed(DialId, bool),
    /// A try to connect comes to its end.
    Connected(usize, u64),
    /// A session broke, as the peer sees it.
    Lost(usize, ConnId),
    /// The same as the tracker sees it.
    Gone(ConnId),
    Request(u64),
    /// A page left a host's uplink.
    Sent(usize, u64, u64),
    Arrived(u64, u64),
    /// Some of a page arrived.
    Progress(u64),
    End(u64),
    Refused(u64, icet::message::Outcome),
    Stopped(u64),
    Served(usize),
    Play(usize),
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
    /// Messages between peers and tracker, by direction and number.
    pub messages: BTreeMap<(bool, u64), u64>,
    tracker: Tracker,
    rng: SmallRng,
    events: BTreeMap<(Now, u64), Event>,
    alarms: BTreeSet<(Now, usize)>,
    next: u64,
    transfers: BTreeMap<u64, Transfer>,
    conns: BTreeMap<ConnId, usize>,
}

impl Sim {
    /// A tracker, and a publisher of a media of such pages.
    #[must_use]
    pub fn new(seed: u64, pages: Pages, publisher: Spec) -> Sim {
        let first = Peer::new(0, Spec { intent: Intent::Share, ..publisher }, Now::ZERO);
        let media = SimMedia::new(&first.identity, "sim/media.ogg", pages, seed);
        let mut sim = Sim {
            now: Now::ZERO,
            media,
            peers: Vec::new(),
            messages: BTreeMap::new(),
            tracker: Tracker::new(seed),
            rng: SmallRng::seed_from_u64(seed),
            events: BTreeMap::new(),
            alarms: BTreeSet::new(),
            next: 0,
            transfers: BTreeMap::new(),
            conns: BTreeMap::new(),
        };
        sim.add(first);
        let setup = [sim.media.slices.first(), sim.media.slices.last()];
        let command = Command::Publish {
            handle: MEDIA,
            manifest: Box::new(sim.media.manifest.clone()),
            slices: setup.into_iter().flatten().cloned().collect(),
        };
        sim.peers[0].held = Some(PageMap::full(u64::from(pages.pages)));
        sim.command(0, command);
        sim
    }

    fn add(&mut self, peer: Peer) -> usize {
        let n = self.peers.len();
        self.peers.push(peer);
        self.drain(n);
        self.after(Duration::from_secs(1), Event::Served(n));
        n
    }

    /// A peer joins; its number.
    pub fn join(&mut self, spec: Spec) -> usize {
        let n = self.add(Peer::new(self.peers.len(), spec, self.now));
        let command = Command::Join {
            handle: MEDIA,
            path: self.media.manifest.path.clone(),
            publisher: None,
            version: 0,
            held: PageRanges::new(),
            intent: spec.intent,
            at: None,
        };
        self.command(n, command);
        if spec.intent == Intent::Play {
            self.seek(n, 0);
            self.after(PLAY, Event::Play(n));
        }
        n
    }

    /// A player jumps to a byte.
    pub fn seek(&mut self, n: usize, byte: u64) {
        let now = self.now;
        if let Some(p) = self.peers[n].player.as_mut() {
            (p.at, p.waits, p.starting) = (byte, Some(now), true);
        }
        self.focus(n);
    }

    fn focus(&mut self, n: usize) {
        let Some(p) = &self.peers[n].player else { return };
        let focus = Focus {
            media: self.media.manifest.id(),
            at: Position::Page(self.media.page_at(p.at)),
            rate: Some(self.media.rate()),
            urgent: 2 * self.media.rate(),
            intent: Intent::Play,
        };
        self.command(n, Command::Focus { handle: MEDIA, focus });
    }

    /// A peer leaves in order.
    pub fn leave(&mut self, n: usize) {
        self.command(n, Command::Leave { handle: MEDIA });
        self.peers[n].left = true;
        if let Some(conn) = self.peers[n].conn.take() {
            let delay = self.to_tracker(n);
            self.after(delay, Event::Gone(conn));
        }
        self.break_transfers(n);
    }

    /// A peer dies.
    pub fn kill(&mut self, n: usize, how: Death) {
        self.peers[n].death = Some(how);
        if let Some(conn) = self.peers[n].conn.take() {
            let delay = if how == Death::Process { self.to_tracker(n) } else { IDLE };
            self.after(delay, Event::Gone(conn));
        }
        if how == Death::Process {
            self.break_transfers(n);
        }
    }

    /// The tracker is killed; its catalogue stays.
    pub fn stop_tracker(&mut self) {
        self.tracker.stop();
        for (conn, n) in std::mem::take(&mut self.conns) {
            let delay = self.to_tracker(n);
            self.after(delay, Event::Lost(n, conn));
        }
    }

    /// The tracker starts again, under the next epoch.
    pub fn start_tracker(&mut self) {
        self.tracker.start();
    }

    /// A random number.
    pub fn random(&mut self, range: std::ops::Range<usize>) -> usize {
        self.rng.random_range(range)
    }

    fn to_tracker(&self, n: usize) -> Duration {
        self.peers[n].spec.delay + TRACKER
    }

    fn between(&self, a: usize, b: usize) -> Duration {
        self.peers[a].spec.delay + self.peers[b].spec.delay
    }

    fn at(&mut self, when: Now, event: Event) {
        self.next += 1;
        self.events.insert((when, self.next), event);
    }

    fn after(&mut self, d: Duration, event: Event) {
        self.at(self.now + d, event);
    }

    /// Runs until `done`, at most for `most`. Whether `done` came true.
    pub fn run(&mut self, most: Duration, mut done: impl FnMut(&Sim) -> bool) -> bool {
        let end = self.now + most;
        while !done(self) {
            let event = self.events.first_key_value().map(|((t, _), _)| *t);
            let alarm = self.alarms.first().map(|(t, _)| *t);
            let swarm = self.tracker.poll_timeout();
            let Some(next) = event.into_iter().chain(alarm).chain(swarm).min() else { return false };
            if next > end {
                self.now = end;
                return false;
            }
            self.now = self.now.max(next);
            if swarm == Some(next) {
                self.tracker.timeout(self.now);
                self.drain_tracker();
            } else if alarm == Some(next) {
                if let Some((_, n)) = self.alarms.pop_first() {
                    self.peers[n].alarm = None;
                    if self.peers[n].lives() {
                        self.peers[n].engine.handle_timeout(self.now);
                        self.drain(n);
                    }
                }
            } else if let Some((_, event)) = self.events.pop_first() {
                self.happen(event);
            }
        }
        true
    }

    /// Runs until all living receivers have everything.
    pub fn run_to_completion(&mut self, most: Duration) -> bool {
        self.run(most, |s| {
            s.peers
                .iter()
                .all(|p| !p.lives() || p.done.is_some() || p.held.as_ref().is_some_and(PageMap::is_full))
        })
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToTracker(conn, m) => {
                if self.conns.contains_key(&conn) {
                    self.tracker.message(self.now, conn, m);
                    self.drain_tracker();
                }
            }
            Event::ToPeer(n, conn, m) => {
                if self.peers[n].conn == Some(conn) && self.peers[n].lives() {
                    self.peers[n].engine.handle_message(self.now, m);
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
            Event::Served(n) => {
                if self.peers[n].lives() {
                    let items: Vec<_> = std::mem::take(&mut self.peers[n].served).into_iter().collect();
                    if !items.is_empty() {
                        self.command(n, Command::Served { items });
                    }
                    self.after(Duration::from_secs(1), Event::Served(n));
                }
            }
            Event::Play(n) => self.play(n),
            transfer => self.happen_to_transfer(transfer),
        }
    }

    fn connected(&mut self, n: usize, attempt: u64) {
        if self.peers[n].connecting != attempt || !self.peers[n].lives() {
            return;
        }
        let from = peer::address(n);
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

    fn command(&mut self, n: usize, c: Command) {
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
                    *self.messages.entry((true, m.number())).or_default() += 1;
                    let mut frame = Vec::new();
                    m.write(&mut frame);
                    let m = ToTracker::from_body(&frame[4..]).expect("engines keep the wire's limits");
                    let delay = self.to_tracker(n);
                    self.after(delay, Event::ToTracker(conn, m));
                }
                Action::Start { fetch, pages, source, need, assignment, .. } => {
                    self.start_transfer(n, fetch, pages, source.host.key, (assignment, need));
                }
                Action::Stop { fetch } => self.stop_transfer(n, fetch),
                Action::Joined { answer, .. } => {
                    let (pages, bytes) = (self.media.manifest.pages, self.media.manifest.bytes);
                    assert_eq!(answer.manifest, *self.media.manifest.signed());
                    let held = self.peers[n].held.get_or_insert_with(|| PageMap::new(pages)).clone();
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
                Action::Newer { .. }
                | Action::Slices { .. }
                | Action::Info { .. }
                | Action::Welcome(_)
                | Action::Reached(_) => {}
            }
        }
        let alarm = self.peers[n].engine.poll_timeout().filter(|_| self.peers[n].lives());
        if alarm != self.peers[n].alarm {
            if let Some(old) = std::mem::replace(&mut self.peers[n].alarm, alarm) {
                self.alarms.remove(&(old, n));
            }
            self.alarms.extend(alarm.map(|t| (t, n)));
        }
    }

    fn drain_tracker(&mut self) {
        for (conn, message) in self.tracker.drain() {
            let Some(n) = self.conns.get(&conn).copied() else { continue };
            let delay = self.to_tracker(n);
            match message {
                tracker::Out::Message(m) => {
                    *self.messages.entry((false, m.number())).or_default() += 1;
                    let mut frame = Vec::new();
                    m.write(&mut frame);
                    let m = ToPeer::from_body(&frame[4..]).expect("the swarm keeps the wire's limits");
                    self.after(delay, Event::ToPeer(n, conn, m));
                }
                tracker::Out::Close => {
                    self.conns.remove(&conn);
                    self.tracker.gone(self.now, conn);
                    self.after(delay, Event::Lost(n, conn));
                }
            }
        }
        for (id, key) in self.tracker.dials() {
            let n = self.peers.iter().position(|p| p.identity.key() == key);
            let ok = n.is_some_and(|n| self.peers[n].lives());
            self.after(Duration::from_millis(80), Event::Dialed(id, ok));
        }
    }

    /// A player eats, or waits.
    fn play(&mut self, n: usize) {
        if !self.peers[n].lives() {
            return;
        }
        self.after(PLAY, Event::Play(n));
        let (rate, end) = (self.media.rate(), self.media.manifest.bytes);
        let Some(held) = self.peers[n].held.clone() else { return };
        let Some(player) = self.peers[n].player.as_mut() else { return };
        if player.at >= end {
            return;
        }
        let here = held
            .first_missing(self.media.page_at(player.at))
            .map_or(end, |p| usize::try_from(p).map_or(end, |i| self.media.offsets[i]));
        let ahead = here.saturating_sub(player.at);
        let step = rate * u64::try_from(PLAY.as_millis()).unwrap_or(0) / 1000;
        if let Some(since) = player.waits {
            let enough = rate * u64::try_from(BUFFER.as_millis()).unwrap_or(0) / 1000;
            if ahead >= enough.min(end - player.at) {
                player.waits = None;
                let waited = self.now.since(since);
                if std::mem::take(&mut player.starting) {
                    player.starts.push(waited);
                } else {
                    player.stalled += waited;
                }
            }
        } else if ahead >= step.min(end - player.at) {
            let second = |at: u64| at / rate.max(1);
            let before = second(player.at);
            player.at = (player.at + step).min(end);
            if second(player.at) != before {
                self.focus(n);
            }
        } else {
            player.waits = Some(self.now);
            player.stalls += 1;
        }
    }
}
