//! Everything the tracker thinks, without IO: events in, effects out, time and randomness as arguments.
//!
//! See [`io`] for the contract with the server. Inside: `session` (hello, quotas, addresses), `publish` and `join`
//! (messages), `board` (facts, and orders carried out), `progress` (what becomes of orders), `schedule` (who fetches what
//! from whom).

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use icet::message::{Assign, Cancel, ErrorCode, Knock, Leave, Pong, Reserve, ToTracker};
use icet::{MediaId, MediaPath, NetAddr, NetKind, Now, PeerKey};

mod bits;
mod board;
mod conduct;
mod explain;
mod fair;
mod glance;
pub mod io;
mod join;
mod judge;
mod knock;
mod learn;
mod live;
mod media;
mod names;
mod peer;
mod progress;
mod publish;
mod punch;
mod quota;
mod rarity;
mod reach;
pub mod record;
mod reserve;
pub mod rules;
mod schedule;
mod session;
mod standing;
mod table;
#[cfg(test)]
mod tests;
mod timers;
mod view;

pub use explain::{Considered, Decided, Ordered, Reason, Verdict, Why, WhyError};
pub use io::*;

use bits::Table;
use board::{Board, PeerIx, Timer};
use names::Names;
use quota::ByAddress;
use rules::Ruled;
use schedule::{Greedy, Scheduler};
use session::{Refused, Session, media_of, refuse, request_of};

/// Most assignments in one message: with stand-ins and long endpoints it stays below the limit of a frame.
const ASSIGN: usize = 128;
/// How often totals are written down and tables swept.
const FLUSH: std::time::Duration = std::time::Duration::from_secs(1);

/// The tracker's mind. Pure: see [`io`] for how it is driven.
#[derive(Debug)]
pub struct Swarm {
    board: Board,
    scheduler: Box<dyn Scheduler>,
    sessions: Table<ConnId, Session>,
    names: Names,
    by_address: ByAddress,
    dials: HashMap<DialId, (PeerIx, NetAddr, u32)>,
    last_dial: u64,
    effects: VecDeque<Effect>,
    /// Room for events, empty between turns.
    spare: Vec<schedule::Event>,
    flushing: bool,
    ruled: Ruled,
    ranking: standing::Ranking,
}

impl Swarm {
    /// A swarm that knows nothing yet.
    #[must_use]
    pub fn new(config: SwarmConfig) -> Swarm {
        Swarm {
            board: Board::new(config),
            scheduler: Box::new(Greedy),
            sessions: Table::default(),
            names: Names::default(),
            by_address: ByAddress::default(),
            dials: HashMap::new(),
            last_dial: 0,
            effects: VecDeque::new(),
            spare: Vec::new(),
            flushing: false,
            ruled: Ruled::default(),
            ranking: standing::Ranking::default(),
        }
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &SwarmConfig {
        &self.board.config
    }

    /// Gives back the owner of a path from the catalogue. Before any session, before [`Swarm::restore_media`].
    pub fn restore_name(&mut self, name: KnownName) {
        self.names.put(name, None, 0);
    }

    /// Gives back a media from the catalogue. Before any session.
    pub fn restore_media(&mut self, media: KnownMedia) {
        let path = media.manifest.path.clone();
        let known = self.names.get(&path).map(|n| n.known.clone()).unwrap_or(KnownName {
            path,
            owner: media.manifest.publisher,
            version: media.manifest.version,
            used_ms: 0,
            moved: None,
        });
        let cost = media::Media::cost(&media.manifest);
        let ix = self.add_media(media.manifest, media.hits);
        if let Some(m) = self.board.media.get_mut(&ix) {
            media.slices.into_iter().for_each(|(i, mark)| m.table.put(i, mark));
        }
        self.names.put(known, Some(ix), cost);
        self.board.live_begin(Now(0), ix);
    }

    /// Gives back what the catalogue kept of a protocol, aged to now ([`KnownProtocol::aged`]). Before any session.
    pub fn restore_protocol(&mut self, known: &KnownProtocol) {
        self.board.protocols.restore(known);
    }

    /// A session began whose key is proved. `contribution` is what the catalogue knows of the key.
    pub fn handle_connect(
        &mut self,
        now: Now,
        conn: ConnId,
        peer: PeerKey,
        from: SocketAddr,
        kind: NetKind,
        contribution: Contribution,
    ) {
        if !std::mem::replace(&mut self.flushing, true) {
            self.board.at(now + FLUSH, Timer::Flush);
        }
        self.connect(now, conn, peer, from, kind, contribution);
    }

    /// A session ended.
    pub fn handle_disconnect(&mut self, now: Now, conn: ConnId) {
        self.disconnect(now, conn);
        self.turn(now);
    }

    /// A message came. `wall_ms`: wall clock, milliseconds since 1970.
    pub fn handle_message(&mut self, now: Now, wall_ms: u64, conn: ConnId, message: ToTracker) {
        self.board.set_wall(now, wall_ms);
        self.board.totals.messages += 1;
        if let Some(peer) = self.admit(now, conn, &message) {
            let request = request_of(&message);
            let media = media_of(&message).copied();
            if let Err(error) = self.obey(now, conn, peer, message) {
                self.board.totals.refused += u64::from(error.code == ErrorCode::QUOTA);
                let fault =
                    !matches!(error.code, ErrorCode::NOT_YET | ErrorCode::NO_MEDIA | ErrorCode::UNSUPPORTED);
                self.answer(conn, request, media, error);
                if fault {
                    self.strike(now, conn);
                }
            }
        }
        self.turn(now);
    }

    /// A frame came that could not be decoded, but deserves an answer; `kind` is the message's number if known.
    pub fn handle_malformed(&mut self, now: Now, conn: ConnId, kind: Option<u64>, why: &str) {
        let what = kind.map_or_else(|| "a message".to_owned(), |k| format!("message {k}"));
        let text = join::truncated(format!("{what} is malformed: {why}"));
        self.send(conn, refuse(ErrorCode::BAD_MESSAGE, text));
        self.strike(now, conn);
    }

    /// Outcome of an [`Effect::Dial`]; the error is a text for people.
    pub fn handle_dialed(&mut self, now: Now, dial: DialId, outcome: Result<(), String>) {
        self.dialed(now, dial, outcome);
        self.turn(now);
    }

    /// The moment of [`Swarm::poll_timeout`] has come (or passed).
    pub fn handle_timeout(&mut self, now: Now, wall_ms: u64) {
        self.board.set_wall(now, wall_ms);
        while let Some(timer) = self.board.due(now) {
            match timer {
                Timer::Look(id) => self.board.look(now, id),
                Timer::Forget(id) => self.board.forget(now, id),
                Timer::Tick(media) if self.off_air(now, media) => {}
                Timer::Tick(media) => self.board.events.push(schedule::Event::Tick { media }),
                Timer::Purge(peer) => self.purge(now, peer),
                Timer::Hello(conn) => {
                    if self.sessions.get(&conn).is_some_and(|s| s.peer.is_none()) {
                        self.close(conn, "no hello in time");
                    }
                }
                Timer::Dial(peer) => self.dial(now, peer),
                Timer::Knock(peer) => self.look_for(now, peer),
                Timer::Newcomer(media, peer, joined, times) => {
                    self.board.look_after_newcomer(now, media, peer, joined, times);
                }
                Timer::Flush => self.flush(now),
            }
        }
        self.turn(now);
    }

    /// The next thing to do; to be drained after each `handle_*`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Swarm::handle_timeout`] must be called at the latest; none: not before another event.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Now> {
        self.board.next_timer()
    }

    fn obey(&mut self, now: Now, conn: ConnId, peer: PeerIx, message: ToTracker) -> Result<(), Refused> {
        match message {
            ToTracker::Publish(m) => self.publish(now, conn, peer, m)?,
            ToTracker::Join(m) => self.join(now, conn, peer, m)?,
            ToTracker::Focus(m) => self.focus(now, peer, &m)?,
            ToTracker::Have(m) => self.have(now, peer, &m)?,
            ToTracker::Report(m) => self.board.report(now, peer, &m),
            ToTracker::Served(m) => {
                m.items.iter().for_each(|i| self.board.served(now, peer, i.assignment, i.bytes));
            }
            ToTracker::Leave(Leave { media }) => {
                let ix = self.find_media(&media)?;
                self.board.end_all(now, ix, peer);
                self.leave_swarm(ix, peer);
                self.board.live_left(now, ix, peer);
            }
            ToTracker::Slices(m) => self.upload(peer, &m)?,
            ToTracker::Head(m) => self.head(now, peer, m)?,
            ToTracker::Locate(m) => self.locate(conn, &m)?,
            ToTracker::Withdraw(m) => self.withdraw(now, peer, &m)?,
            ToTracker::InfoRequest(m) => self.info(conn, peer, &m)?,
            ToTracker::Ping(m) => self.send(conn, Pong { nonce: m.nonce, time: self.board.wall(now) }),
            ToTracker::Reach(m) => self.set_reach(now, peer, &m.reach),
            ToTracker::Allow(m) => self.allow(now, peer, &m),
            ToTracker::StandingRequest(m) => self.standing(now, conn, peer, &m),
            ToTracker::Audience(m) => self.audience(now, conn, peer, &m)?,
            // Hello is handled before; whatever else there is comes from a later version.
            other => {
                return Err(refuse(
                    ErrorCode::UNSUPPORTED,
                    format!("message {} is not known here", other.number()),
                ));
            }
        }
        Ok(())
    }

    fn answer(&mut self, conn: ConnId, request: Option<u64>, media: Option<MediaId>, error: Refused) {
        self.send(
            conn,
            Refused { request: error.request.or(request), media: error.media.or(media), ..error },
        );
    }

    /// Lets the scheduler answer to what changed, and sends what it ordered.
    fn turn(&mut self, now: Now) {
        // Orders change the board in turn; what they change is told in the next round. Each round only ends or begins
        // assignments, of which there is a bounded number, but a scheduler's fault must not hang the tracker.
        let mut events = std::mem::take(&mut self.spare);
        for _ in 0..64 {
            std::mem::swap(&mut events, &mut self.board.events);
            if events.is_empty() {
                break;
            }
            events.sort_unstable();
            events.dedup();
            for event in events.drain(..) {
                if self.board.live_event(now, &event) {
                    continue;
                }
                self.scheduler.handle(now, &mut self.board, event);
            }
        }
        self.spare = events;
        for (conn, assignments) in std::mem::take(&mut self.board.cancel) {
            for some in assignments.chunks(icet::limits::ITEMS) {
                self.send(conn, Cancel { assignments: some.to_vec() });
            }
        }
        for (conn, media, begin) in std::mem::take(&mut self.board.heads) {
            self.send_head(conn, media, begin);
        }
        for conn in std::mem::take(&mut self.board.knocks) {
            self.send(conn, Knock {});
        }
        for (conn, shortages) in std::mem::take(&mut self.board.shortages) {
            for some in shortages.chunks(ASSIGN) {
                self.send(conn, Assign { assignments: Vec::new(), shortages: Some(some.to_vec()) });
            }
        }
        for (conn, mut assignments) in std::mem::take(&mut self.board.assign) {
            let mut media: Vec<MediaId> = assignments.iter().map(|a| a.media).collect();
            media.dedup();
            while !assignments.is_empty() {
                let rest = assignments.split_off(assignments.len().min(ASSIGN));
                self.send(conn, Assign::from(std::mem::replace(&mut assignments, rest)));
            }
            let Some(peer) = self.sessions.get(&conn).and_then(|s| s.peer) else { continue };
            for media in media {
                let assignments = self.board.reserve(now, &media, peer);
                if !assignments.is_empty() {
                    self.send(conn, Reserve { assignments });
                }
            }
        }
    }

    fn flush(&mut self, now: Now) {
        self.by_address.sweep(now);
        self.board.absent.sweep(now);
        self.board.accounts.sweep(now);
        let changed = self.board.peers.iter().filter(|(_, p)| p.contribution != p.contribution_stored);
        let mut changed: Vec<PeerIx> = changed.map(|(ix, _)| *ix).collect();
        changed.sort_unstable();
        changed.into_iter().for_each(|ix| self.store_contribution(ix));
        let mut hits: Vec<_> = self.board.media.values_mut().filter(|m| m.hits != m.hits_stored).collect();
        hits.sort_unstable_by_key(|m| m.ix);
        for m in hits {
            m.hits_stored = m.hits;
            self.effects.push_back(Effect::Store(Store::Hits { media: m.id, hits: m.hits }));
        }
        let wall = self.board.wall(now);
        let learned = self.board.protocols.take_changed(now, wall);
        self.effects.extend(learned.into_iter().map(|p| Effect::Store(Store::Protocol(p))));
        self.board.at(now + FLUSH, Timer::Flush);
    }

    /// The media at a path.
    #[must_use]
    pub fn find(&self, path: &MediaPath) -> Option<MediaId> {
        Some(self.board.media.get(&self.names.media(path)?)?.id)
    }
}
