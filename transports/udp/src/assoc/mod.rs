//! An association with another peer, sans-IO: packets in, packets out, time as an argument. Either end may ask the other for
//! media over it.
//!
//! The driver gives it what came ([`Association::handle_packet`], [`Association::handle_timeout`]), takes what is to be sent
//! ([`Association::poll_transmit`]), and does what it is told ([`Association::poll_event`]).

mod acks;
mod control;
mod cubic;
mod fetching;
mod frames;
mod inflight;
mod mtu;
mod pacer;
mod ranges;
mod replay;
mod rtt;
mod serving;
mod shape;
mod transmit;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use iceshare::icet::stream::EndCode;
use iceshare::icet::{Now, PeerKey};
use iceshare::net::pipe;
use iceshare::protocol::What;
use iceshare::stream::{BufferPool, DOUBT};

use crate::seal::Keys;
use crate::wire::datagram::AssocId;
use crate::wire::{CloseReason, MAX_DATAGRAM, MIN_DATAGRAM, Places};
use acks::Acks;
use control::{Control, Outbox};
use cubic::Cubic;
use fetching::Fetching;
pub use fetching::Read;
use inflight::InFlight;
use mtu::Mtu;
use pacer::Pacer;
use ranges::RangeSet;
use replay::Replay;
use rtt::Rtt;
use serving::Serving;
pub use serving::{AHEAD, Part};
use shape::Shape;

/// Without any packet for so long it is over.
pub const IDLE: Duration = Duration::from_secs(30);
/// Without any packet for so long while something must be acknowledged, nobody is there.
pub const SILENT: Duration = Duration::from_secs(5);
/// Who has an open request and hears nothing for so long, asks.
const QUIET: Duration = Duration::from_secs(1);
/// Packets in one direction, over which the keys are not used any more.
const PACKETS: u64 = 1 << 23;
/// New requests go over another association from half of them on, or after so long.
const OLD: Duration = Duration::from_secs(3600);
/// Requests that are served at once.
pub const REQUESTS: usize = 128;
/// Buffers of 64 KiB that wait for their next use.
const SPARE: usize = 32;
/// Bytes of one request that may wait for their reader on any path.
const UNREAD: u64 = 1 << 20;
/// Bytes of a request's body in one frame: it fits every packet, and a HELLO.
const BODY_PART: u16 = 900;

/// Why an association is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Nothing came any more.
    Silent,
    /// The other end said so.
    Closed(CloseReason),
    /// The other end broke the protocol.
    Breach(&'static str),
    /// This end said so.
    Left,
    /// Nobody answered the handshake.
    Unreachable,
    /// Somebody else answered it.
    WrongKey,
}

/// What the driver is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A request to serve: [`Association::accept`] it or [`Association::fail`] it.
    Asked(u64, Vec<u8>),
    /// A request takes more bytes, or wants a repair.
    Hungry(u64),
    /// The receiver wants no more of a request.
    Stopped(u64),
    /// A fetch has something to read.
    Readable(u64),
}

/// What a request that is served wants next.
#[derive(Debug, PartialEq, Eq)]
pub enum Want<T> {
    /// This.
    Now(T),
    /// Nothing now; [`Event::Hungry`] will come.
    Later,
    /// Nothing any more.
    Never,
}

/// Counters, for people and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets sent, and their bytes.
    pub sent: u64,
    /// Bytes of datagrams sent.
    pub sent_bytes: u64,
    /// Packets that were lost on the way.
    pub lost: u64,
    /// Packets received.
    pub received: u64,
}

/// See the module.
pub struct Association {
    id: AssocId,
    peer: PeerKey,
    remote: SocketAddr,
    remote_id: AssocId,
    keys: Option<Keys>,
    created: Now,
    heard: Now,
    over: Option<Over>,
    closing: Option<CloseReason>,
    next_number: u64,
    replay: Replay,
    acks: Acks,
    flight: InFlight,
    rtt: Rtt,
    cubic: Cubic,
    pacer: Pacer,
    mtu: Mtu,
    outbox: Outbox,
    /// Packets that may go although the window is full.
    probes: u8,
    /// There was nothing to send although the window had room.
    app_limited: bool,
    /// When the pacer lets the next packet go.
    paced: Option<Now>,
    fetching: BTreeMap<u64, Fetching>,
    next_request: u64,
    serving: BTreeMap<u64, Serving>,
    asked: RangeSet,
    /// Requests with something to send, in turn.
    ready: VecDeque<u64>,
    /// Requests whose driver waits for [`Event::Hungry`], and whether it has more than repairs.
    waiting: Vec<(u64, bool)>,
    /// Bytes that may wait here and be on their way together.
    in_hand: u64,
    events: VecDeque<Event>,
    /// The packets being written.
    out: Vec<u8>,
    /// For what came.
    buffers: BufferPool,
    stats: Stats,
}

impl fmt::Debug for Association {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Association({} at {})", self.peer.short(), self.remote)
    }
}

impl Association {
    /// One with `peer` at `remote`, whose packets to us bear `id`. Nothing is sent before [`Association::open`].
    #[must_use]
    pub fn new(now: Now, id: AssocId, peer: PeerKey, remote: SocketAddr) -> Association {
        Association {
            id,
            peer,
            remote,
            remote_id: AssocId(0),
            keys: None,
            created: now,
            heard: now,
            over: None,
            closing: None,
            next_number: 0,
            replay: Replay::default(),
            acks: Acks::default(),
            flight: InFlight::default(),
            rtt: Rtt::default(),
            cubic: Cubic::new(MIN_DATAGRAM),
            pacer: Pacer::new(now),
            mtu: Mtu::new(MIN_DATAGRAM),
            outbox: Outbox::default(),
            probes: 0,
            app_limited: true,
            paced: None,
            fetching: BTreeMap::new(),
            next_request: 0,
            serving: BTreeMap::new(),
            asked: RangeSet::default(),
            ready: VecDeque::new(),
            waiting: Vec::new(),
            in_hand: u64::MAX,
            events: VecDeque::new(),
            out: Vec::new(),
            buffers: BufferPool::new(SPARE),
            stats: Stats::default(),
        }
    }

    /// The handshake is done: the other end takes packets under `remote_id` of at most `largest` bytes.
    pub fn open(&mut self, now: Now, keys: Keys, remote_id: AssocId, largest: usize) {
        (self.keys, self.remote_id, self.heard) = (Some(keys), remote_id, now);
        self.mtu = Mtu::new(largest.min(MAX_DATAGRAM));
    }

    /// It turned out which of the other end's addresses answers.
    pub(crate) fn set_remote(&mut self, remote: SocketAddr) {
        self.remote = remote;
    }

    /// Its number here.
    #[must_use]
    pub fn id(&self) -> AssocId {
        self.id
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> PeerKey {
        self.peer
    }

    /// Where the other end is.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Whether the handshake is done.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.keys.is_some()
    }

    /// Why it is over, if it is.
    #[must_use]
    pub fn over(&self) -> Option<Over> {
        self.over
    }

    /// Whether new requests may go over it. Not while the other end is silent though it should have answered: if the way between
    /// us was cut, a new association is sooner there than this one notices that it passes again.
    #[must_use]
    pub fn is_fresh(&self, now: Now) -> bool {
        self.over.is_none()
            && self.flight.oldest().is_none_or(|oldest| now.since(oldest.max(self.heard)) < DOUBT)
            && self.closing.is_none()
            && self.next_number < PACKETS / 2
            && now.since(self.created) < OLD
    }

    /// Whether it is over, and nobody has anything to read of it any more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.over.is_some() && self.closing.is_none() && self.fetching.values().all(|f| f.stopped)
    }

    /// Whether nobody asks anything.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.fetching.is_empty() && self.serving.is_empty()
    }

    /// When something came last.
    #[must_use]
    pub fn heard(&self) -> Now {
        self.heard
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Bytes that may be in flight, smoothed round-trip time, and largest datagram.
    #[must_use]
    pub fn path(&self) -> (u64, Duration, usize) {
        (self.cubic.window(), self.rtt.smoothed(), self.mtu.current())
    }

    /// Bytes of one request that may wait for their reader, if `most` were to be allowed.
    #[must_use]
    pub fn reading_window(&self, most: u64) -> u64 {
        most.min(pipe(self.rtt.shortest()).max(UNREAD))
    }

    /// Ends it, and tells the other end.
    pub fn close(&mut self, reason: CloseReason) {
        if self.over.is_none() {
            self.closing.get_or_insert(reason);
            if !self.is_open() {
                self.end_with(Over::Left);
            }
        }
    }

    /// Ends it without a word.
    pub fn end_with(&mut self, over: Over) {
        self.over.get_or_insert(over);
        for id in self.fetching.keys() {
            self.events.push_back(Event::Readable(*id));
        }
        for id in self.serving.keys() {
            self.events.push_back(Event::Stopped(*id));
        }
    }

    fn breach(&mut self, why: &'static str) {
        tracing::debug!(peer = %self.peer.short(), why, "a peer broke the udp protocol");
        if self.over.is_none() {
            self.closing = Some(CloseReason::Protocol);
            self.end_with(Over::Breach(why));
        }
    }

    /// What to do next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    // The receiver's side.

    /// Asks for `what`; `body` is the whole request with `window` as its credit. The request's number.
    pub fn request(&mut self, body: Bytes, what: &What, window: u64) -> u64 {
        let id = self.next_request;
        self.next_request += 1;
        let len = u16::try_from(body.len()).unwrap_or(u16::MAX);
        for offset in (0..len.max(1)).step_by(usize::from(BODY_PART)) {
            let len = (len - offset).min(BODY_PART);
            self.outbox.push(Control::Request(id, control::Part { offset, len }));
        }
        self.fetching.insert(id, Fetching::new(body, Shape::of(what), window, self.buffers.clone()));
        id
    }

    /// The next piece of a fetch; none if there is no such fetch.
    pub fn read(&mut self, id: u64) -> Option<Read> {
        let fetch = self.fetching.get_mut(&id)?;
        let read = fetch.read();
        if let Read::End(_) = read {
            self.outbox.push(Control::Stop(id));
            fetch.stop();
        }
        Some(read)
    }

    /// Whether telling the host how much more it may send is due, after reads.
    #[must_use]
    pub fn wants_to_talk(&mut self, id: u64) -> bool {
        let Some(fetch) = self.fetching.get_mut(&id).filter(|f| !f.stopped) else {
            return !self.outbox.is_empty();
        };
        if fetch.new_limit().is_some() {
            self.outbox.push(Control::Credit(id));
        }
        !self.outbox.is_empty()
    }

    /// Nothing more of a fetch is wanted.
    pub fn stop(&mut self, id: u64) {
        if let Some(fetch) = self.fetching.get_mut(&id)
            && !fetch.stopped
        {
            fetch.stop();
            self.outbox.push(Control::Stop(id));
        }
    }

    // The host's side.

    /// Serves a request, from `place` on.
    pub fn accept(&mut self, id: u64, place: u64) {
        if let Some(s) = self.serving.get_mut(&id) {
            s.accepted = Some(place);
            self.outbox.push(Control::Accept(id));
        }
    }

    /// How many new bytes a request takes now. `crowd`: many others are served in other associations; `in_hand`: so many bytes may wait
    /// in this one and be on their way together.
    pub fn room(&mut self, id: u64, crowd: bool, in_hand: u64) -> Want<usize> {
        let crowd = crowd || self.serving.values().map(Serving::queued).sum::<usize>() >= 2 * AHEAD;
        self.in_hand = in_hand;
        let free = self.free();
        let Some(s) = self.serving.get_mut(&id) else { return Want::Never };
        s.in_a_crowd = crowd;
        match s.room().min(free) {
            0 => self.wait(id, true),
            room => Want::Now(room),
        }
    }

    /// What is left of the bytes that may be in hand, as soon as that is worth a read.
    fn free(&self) -> usize {
        let queued = self.serving.values().map(|s| s.queued() as u64).sum::<u64>();
        let free = self.in_hand.saturating_sub(queued.saturating_add(self.flight.bytes()));
        if free < self.in_hand / 4 { 0 } else { usize::try_from(free).unwrap_or(usize::MAX) }
    }

    /// The shortest round trip so far.
    #[must_use]
    pub fn shortest_trip(&self) -> Duration {
        self.rtt.shortest()
    }

    /// What a receiver asks for again: the repair's number and the places. Then comes [`Association::repair_done`].
    pub fn next_repair(&mut self, id: u64) -> Want<(u64, Places)> {
        let Some(s) = self.serving.get_mut(&id) else { return Want::Never };
        match if s.repair_room() > 0 { s.next_asked() } else { None } {
            Some(repair) => Want::Now(repair),
            None => self.wait(id, false),
        }
    }

    /// Its driver waits: for room, or for repairs only.
    fn wait<T>(&mut self, id: u64, room: bool) -> Want<T> {
        match self.waiting.iter_mut().find(|(w, _)| *w == id) {
            Some((_, before)) => *before |= room,
            None => self.waiting.push((id, room)),
        }
        Want::Later
    }

    /// New bytes of a request, in order.
    pub fn supply(&mut self, id: u64, part: Part) {
        if let Some(s) = self.serving.get_mut(&id) {
            s.supply(part);
            self.is_ready(id);
        }
    }

    /// Bytes of a repair.
    pub fn repair(&mut self, id: u64, part: Part) {
        if let Some(s) = self.serving.get_mut(&id) {
            s.repair(part);
            self.is_ready(id);
        }
    }

    /// A repair is complete.
    pub fn repair_done(&mut self, id: u64, number: u64) {
        if let Some(s) = self.serving.get_mut(&id) {
            s.repair_done(number);
            self.is_ready(id);
        }
    }

    /// Nothing more will be given: all up to before `place` was.
    pub fn end(&mut self, id: u64, code: EndCode, place: u64) {
        if let Some(s) = self.serving.get_mut(&id) {
            s.end.get_or_insert((code, place));
            if s.ends() {
                self.outbox.push(Control::End(id));
            }
        }
    }

    /// Nothing more comes of a request, no repairs either.
    pub fn fail(&mut self, id: u64, code: EndCode) {
        if let Some(s) = self.serving.get_mut(&id) {
            s.fail(code);
            self.outbox.push(Control::Fail(id));
        }
    }

    /// Puts a request in the queue of those that may send.
    fn is_ready(&mut self, id: u64) {
        let Some(s) = self.serving.get_mut(&id) else { return };
        if s.is_ready() {
            if !self.ready.contains(&id) {
                self.ready.push_back(id);
            }
        } else if s.becomes_blocked() {
            self.outbox.push(Control::Blocked(id));
        }
    }

    /// Tells drivers that wait, if it is worth it.
    fn feed(&mut self) {
        let free = self.waiting.iter().any(|(_, more)| *more) && self.free() > 0;
        let serving = &mut self.serving;
        let events = &mut self.events;
        self.waiting.retain(|(id, more)| {
            let hungry = serving.get(id).is_none_or(|s| s.is_hungry(*more && free));
            if hungry {
                events.push_back(Event::Hungry(*id));
            }
            !hungry
        });
    }

    // Time.

    /// When [`Association::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Now> {
        if self.over.is_some() {
            return None;
        }
        let mut at = self.heard + IDLE;
        let mut earlier = |t: Option<Now>| at = t.map_or(at, |t| t.min(at));
        if !self.is_open() {
            return Some(at);
        }
        earlier(self.acks.deadline());
        earlier(self.flight.loss_at());
        earlier(self.flight.probe_at(&self.rtt));
        earlier(self.paced);
        earlier(self.silent_at());
        earlier(self.quiet_at());
        let rtt = self.rtt.smoothed();
        self.fetching.values().for_each(|f| earlier(f.timeout(rtt)));
        Some(at)
    }

    /// When nobody is there.
    fn silent_at(&self) -> Option<Now> {
        self.flight.oldest().map(|oldest| oldest.max(self.heard) + SILENT)
    }

    /// When to ask whether somebody is there.
    fn quiet_at(&self) -> Option<Now> {
        let open = self.fetching.values().any(|f| !f.is_done());
        (open && !self.flight.is_waiting()).then_some(self.heard + QUIET)
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let due = |t: Option<Now>| t.is_some_and(|t| t <= now);
        if self.over.is_some() {
            return;
        }
        if now.since(self.heard) >= IDLE || due(self.silent_at()) || self.next_number >= PACKETS {
            return self.end_with(Over::Silent);
        }
        if due(self.paced) {
            self.paced = None;
        }
        if due(self.flight.loss_at()) {
            let lost = self.flight.lost(now, &self.rtt);
            self.lost(now, lost, &[]);
        }
        if due(self.flight.probe_at(&self.rtt)) {
            for control in self.flight.probe() {
                self.outbox.push(control);
            }
            self.probes = 2;
            if self.outbox.is_empty() && self.ready.is_empty() {
                self.outbox.push(Control::Ping);
            }
        }
        if due(self.quiet_at()) {
            self.outbox.push(Control::Ping);
        }
        // A host need not wait for ever for a receiver that forgot to say STOP.
        let stale: Vec<u64> =
            self.serving.iter().filter(|(_, s)| s.is_stale(now)).map(|(id, _)| *id).collect();
        for id in stale {
            match self.serving.get_mut(&id) {
                // It takes nothing: it is told so, and then forgotten.
                Some(s) if s.is_blocked() && s.failed.is_none() => {
                    s.heard = now;
                    self.fail(id, EndCode::FAILED);
                }
                _ => self.forget(id),
            }
            self.events.push_back(Event::Stopped(id));
        }
    }

    fn forget(&mut self, id: u64) {
        self.serving.remove(&id);
        self.ready.retain(|r| *r != id);
    }
}
