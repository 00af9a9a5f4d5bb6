//! The peer engine: one session with one tracker, the media opened through it, and the fetches that the tracker
//! assigned. Sans-IO: no socket, no clock, no runtime, no randomness but the seed's.
//!
//! # The contract
//!
//! **After every `handle_*` call, drain [`Engine::poll_action`] until it gives none and carry the actions out in
//! their order; then ask [`Engine::poll_timeout`], and call [`Engine::handle_timeout`] at that moment at the
//! latest.** Time never runs backwards. Beside that:
//!
//! - Each [`Action::Connect`] is answered once, with `handle_connected` or `handle_disconnected`; a session that is
//!   up ends once, with `handle_disconnected`, with `handle_moved` when another one has taken its place, or by [`Action::Disconnect`], after which nothing more is reported of it.
//! - Each [`Action::Start`] is answered by events of that fetch, the last of which is [`FetchEvent::Ended`] (or
//!   [`FetchEvent::Altered`]), unless [`Action::Stop`] comes first. A page that is stored after a stop may still be
//!   told under the fetch's name: it is then credited to who sent it.
//! - [`FetchEvent::Page`] comes after the page was verified and stored: what it names is promised to others at once.
//! - The engine sees page numbers and outcomes, never bytes.
//!
//! # What it promises
//!
//! - No page is asked for that is held, and none that is under way, unless that fetch is late (past the deadline of
//!   an urgent assignment) or far from a page that is urgent; small holes aside, which cost less than a request.
//! - Each page is acknowledged once in a tracker's epoch, unless the tracker drops messages; a reconnect states all
//!   pages anew.
//! - Each assignment ends with exactly one report marked as its last, and each host tried has one.
//! - A tracker that is silent, gone, restarted or hostile costs bounded memory, no panic, and no fetch that runs.

mod acks;
mod aside;
mod assignments;
mod doors;
mod errors;
mod fetches;
mod giving;
pub mod io;
mod lanes;
mod media;
mod pages;
mod reserve;
mod session;
mod stalls;
#[cfg(test)]
mod tests;
mod timers;
mod upload;
mod ways;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use icet::message::{Allow, Need, Ping, ToPeer, ToTracker};
use icet::{MediaId, NetKind, Now, PeerKey};

use acks::Served;
use assignments::{Assigned, Order};
use fetches::{Fetch, Gone};
use io::{Action, Command, Config, FetchEvent, FetchId, Giving, Handle, Tally};
use media::Media;
use session::Session;
use timers::{Timer, Timers};
use ways::Ways;

/// See the [module](self).
#[derive(Debug)]
pub struct Engine {
    config: Config,
    session: Session,
    timers: Timers,
    actions: VecDeque<Action>,
    media: BTreeMap<Handle, Media>,
    ids: BTreeMap<MediaId, Handle>,
    /// Assignments under way or waiting, by order of arrival.
    assigned: BTreeMap<Order, Assigned>,
    /// By epoch and the tracker's number.
    numbers: BTreeMap<(u64, u64), Order>,
    /// Assignments that could start a fetch, most wanted first.
    queue: BTreeSet<(Need, Now, Order)>,
    next_order: u64,
    fetches: BTreeMap<FetchId, Fetch>,
    next_fetch: u64,
    /// Fetches that were stopped lately: a last page may come.
    gone: BTreeMap<FetchId, Gone>,
    /// Hosts that sent an altered page, until when they are not used.
    banned: BTreeMap<PeerKey, Now>,
    ways: Ways,
    served: Served,
    /// Something changed that may let a fetch start.
    stirred: bool,
    /// Whether the driver doubts that the session still passes.
    in_doubt: bool,
    /// When it last spoke again after that.
    anew: Option<Now>,
    /// What this peer gives, and the last that was said of it in this session.
    giving: Giving,
    doors: doors::Doors,
    allowed: Option<Allow>,
}

impl Engine {
    /// An engine that has yet to meet its tracker: its first action is [`Action::Connect`].
    #[must_use]
    pub fn new(config: Config) -> Engine {
        let session = Session::new(config.seed, config.ack_delay);
        Engine {
            config,
            session,
            timers: Timers::default(),
            actions: VecDeque::from([Action::Connect]),
            media: BTreeMap::new(),
            ids: BTreeMap::new(),
            assigned: BTreeMap::new(),
            numbers: BTreeMap::new(),
            queue: BTreeSet::new(),
            next_order: 0,
            fetches: BTreeMap::new(),
            next_fetch: 0,
            gone: BTreeMap::new(),
            banned: BTreeMap::new(),
            ways: Ways::default(),
            served: Served::default(),
            stirred: false,
            in_doubt: false,
            anew: None,
            giving: Giving::default(),
            doors: doors::Doors::default(),
            allowed: None,
        }
    }

    /// Takes a wish of the driver. One about a handle that is not open is ignored.
    pub fn handle_command(&mut self, now: Now, c: Command) {
        match c {
            Command::Join { handle, path, publisher, version, held, intent, at, back } => {
                self.join(now, handle, media::JoinWish { path, publisher, intent, at, back }, version, held);
            }
            Command::Publish { handle, manifest, slices } => self.publish(now, handle, manifest, slices),
            Command::Upload { handle, slices } => self.upload(now, handle, slices),
            Command::Accept { handle, held, bytes, version } => {
                self.accept(now, handle, held, bytes, version);
            }
            Command::Focus { handle, focus } => self.focus(now, handle, focus),
            Command::Locate { handle, at } => self.locate(now, handle, at),
            Command::Held { handle, got, lost } => self.held(now, handle, &got, &lost),
            Command::Info { handle, path } => self.ask_info(now, handle, path),
            Command::Head { handle, head, earlier } => self.tell_head(handle, Some((head, earlier))),
            Command::Give(giving) => self.give(giving),
            Command::Standing => self.ask_standing(),
            Command::Audience { handle, addresses } => self.ask_guidance(handle, addresses),
            Command::Served { items } => self.note_served(now, items),
            Command::Leave { handle } => self.leave(now, handle),
            Command::Withdraw { handle, moved, release } => self.withdraw(now, handle, moved, release),
        }
        self.pump(now);
    }

    /// The session is up, and `tracker` proved its key. (Whether that is the right key is the driver's to check first.)
    pub fn handle_connected(&mut self, now: Now, tracker: PeerKey) {
        self.connected(now, tracker);
        self.pump(now);
    }

    /// The session could not be opened, or is gone.
    pub fn handle_disconnected(&mut self, now: Now) {
        self.disconnected(now);
        self.pump(now);
    }

    /// The session that was up is over, and another one with the same tracker has taken its place without a pause: nothing of
    /// what runs is touched. As [`Engine::handle_connected`] if none was up.
    pub fn handle_moved(&mut self, now: Now, tracker: PeerKey) {
        self.moved(now, tracker);
        self.pump(now);
    }

    /// A session was given up over a carrier (`passes`: false), or set up over one that was in doubt. What sessions meet, fetches
    /// will meet too: those over a carrier that does not pass are left early, and what is ordered next passes it by, until
    /// something comes over it again.
    pub fn handle_carrier(&mut self, now: Now, carrier: NetKind, passes: bool) {
        if passes {
            self.ways.passes(carrier);
        } else {
            self.carrier_lost(now, carrier);
        }
        self.pump(now);
    }

    /// Something that was sent drew no answer for much longer than a round trip, or the session speaks again after that: while
    /// it is in doubt, what is in reserve is fetched.
    pub fn handle_doubt(&mut self, now: Now, doubt: bool) {
        self.doubt(now, doubt);
        self.pump(now);
    }

    /// A message of the tracker. Ignored while no session is up.
    pub fn handle_message(&mut self, now: Now, m: ToPeer) {
        if !self.heard(now) {
            return;
        }
        match m {
            ToPeer::Welcome(m) => self.welcome(now, m),
            ToPeer::MediaAnswer(m) => self.media_answer(now, m),
            ToPeer::Assign(m) => self.assign(now, m),
            ToPeer::Cancel(m) => self.cancel(now, &m),
            ToPeer::Reserve(m) => self.keep_reserve(m),
            ToPeer::Slices(m) => self.slices(m),
            ToPeer::InfoAnswer(m) => self.info_answer(m),
            ToPeer::ErrorMessage(m) => self.error(now, m),
            ToPeer::Withdrawn(m) => self.withdrawn(now, m),
            ToPeer::Pong(m) => self.pong(now, &m),
            ToPeer::ReachResult(m) => self.reached(now, m),
            ToPeer::Newer(m) => self.newer(m),
            ToPeer::Head(m) => self.head(m),
            ToPeer::Standing(m) => self.standing(m),
            ToPeer::Guidance(m) => self.guidance(m),
            ToPeer::Knock(_) => {
                let nonce = self.session.number();
                self.send(Ping { nonce });
            }
            // Connections that a host opens, and messages of later versions, are not ours to answer yet.
            _ => {}
        }
        self.calm();
        self.pump(now);
    }

    /// Something happened to a fetch. One that the engine does not know is ignored.
    pub fn handle_fetch(&mut self, now: Now, fetch: FetchId, e: FetchEvent) {
        self.fetch_event(now, fetch, e);
        self.pump(now);
    }

    /// The moment of [`Engine::poll_timeout`] has come (or passed; too early does no harm).
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Connect => self.reconnect(),
                Timer::Silence => self.silence(now),
                Timer::Served => self.flush_served(now),
                Timer::Retry(request) => self.retry(now, request),
                Timer::Focus(handle) => self.send_focus(now, handle),
                Timer::Ack(handle) => self.flush_acks(handle),
                Timer::Restate => self.restate(now),
                Timer::Upload(handle) => self.want_upload(handle),
                Timer::Stall(fetch) => self.stall(now, fetch),
                Timer::Deadline(order) => self.deadline(now, order),
                Timer::Lapse(order) => self.lapse(now, order),
                Timer::Reserve => self.use_reserve(now),
                Timer::Announce => self.announce(),
            }
        }
        self.pump(now);
    }

    /// Whether the tracker should say something soon though nothing was asked: pages are under way or wanted.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.fetches.is_empty() || !self.assigned.is_empty() || self.media.values().any(Media::wants)
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Engine::handle_timeout`] at the latest; none: nothing is pending.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Now> {
        self.timers.next()
    }

    /// Progress of a media; none if the handle is not open.
    #[must_use]
    pub fn tally(&self, h: Handle) -> Option<Tally> {
        let mut tally = self.media.get(&h)?.tally;
        let mine = || self.fetches.values().filter(|f| f.handle == h);
        tally.fetches = mine().count() as u64;
        tally.hosts = mine().map(|f| f.host).collect::<BTreeSet<_>>().len() as u64;
        Some(tally)
    }

    fn send(&mut self, m: impl Into<ToTracker>) {
        self.actions.push_back(Action::Send(m.into()));
    }
}

/// Milliseconds, as the wire has them.
fn millis(d: std::time::Duration) -> u32 {
    u32::try_from(d.as_millis()).unwrap_or(u32::MAX)
}
