//! Sessions: hello, quotas, addresses and their proof, and what remains of a peer when its session ends.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use icet::message::{Allow, ErrorCode, ErrorMessage, Hello, ReachResult, ToPeer, ToTracker, Welcome};
use icet::{Abilities, MediaId, NetAddr, NetKind, Now, Offer, PeerKey, TicketKey};

use super::board::{PeerIx, Timer};
use super::glance::Place;
use super::peer::{Fading, MOST_FETCHED, MOST_SERVED, Meter, Offered, Peer, Presence};
use super::punch::Punches;
use super::quota::Bucket;
use super::reach::{self, Proof, Reachable};
use super::schedule::Event;
use super::{ConnId, Contribution, DialId, Effect, Store, Swarm};

/// Who finds another program with its key in its place may come back after so long: by then it is known whether that is there.
const COME_BACK: Duration = Duration::from_secs(3);
const RIVAL: &str = "another program with this key is connected, from another computer or data folder: stop it, or use another key (--key)";
/// The same while nobody knows yet.
const ASKED: &str = "another program with this key has a session here; it is asked whether it is still there";
/// An answer is good for so long.
const ANSWERED: Duration = Duration::from_secs(6);
/// What a session is told when its key has a newer one.
const DISPLACED: &str = "another session of this key began; two computers need two keys";
/// Who lost its place to another program may ask after so long whether that is still there.
const ASK_AGAIN: Duration = Duration::from_secs(20);
/// A session that says no hello is closed after this.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// A session that is younger is not ended for another: its first messages are under way.
const SETTLED: Duration = Duration::from_secs(2);
/// Seconds of a peer's share of its neighbourhood's messages that it may send at once, and the least that this is.
const SHARE_BURST: (f64, f64) = (2.0, 4.0);
/// How long a peer is remembered after its session ended.
pub(crate) const LINGER: Duration = Duration::from_secs(60);
/// First pause before an address that failed may be announced again; doubles.
const REDIAL: Duration = Duration::from_secs(60);
/// Errors after which a session is closed, as they fade.
const STRIKES: f64 = 32.0;
const STRIKE: Duration = Duration::from_secs(60);

/// A session whose key is proved.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: PeerKey,
    pub(crate) observed: SocketAddr,
    pub(crate) kind: NetKind,
    pub(crate) contribution: Contribution,
    /// Once it said hello.
    pub(crate) peer: Option<PeerIx>,
    pub(crate) strikes: Fading,
    /// Closed by us: nothing of it is heard any more.
    pub(crate) closed: bool,
    since: Now,
}

/// An error that is answered; built by what handles a message.
pub(crate) type Refused = ErrorMessage;

pub(crate) fn refuse(code: ErrorCode, text: impl Into<String>) -> Refused {
    ErrorMessage { code, request: None, media: None, text: text.into(), retry: None }
}

/// Another program has the key.
fn come_back(after: Duration, text: &str) -> Refused {
    Refused { retry: u32::try_from(after.as_millis()).ok(), ..refuse(ErrorCode::FORBIDDEN, text) }
}

pub(crate) fn quota(text: impl Into<String>, wait: Duration) -> Refused {
    let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX).max(100);
    ErrorMessage { retry: Some(ms), ..refuse(ErrorCode::QUOTA, text) }
}

impl Swarm {
    pub(crate) fn connect(
        &mut self,
        now: Now,
        conn: ConnId,
        key: PeerKey,
        from: SocketAddr,
        kind: NetKind,
        contribution: Contribution,
    ) {
        let observed = SocketAddr::new(from.ip().to_canonical(), from.port());
        let quotas = &self.board.config.quotas;
        let room = self.sessions.len() < quotas.sessions;
        let counted = room
            && (self.by_address.enter(now, quotas, observed.ip(), conn)
                || self.make_room(now, observed.ip(), contribution) && self.enter_at(now, observed, conn));
        let session = Session {
            key,
            observed,
            kind,
            contribution,
            peer: None,
            strikes: Fading::default(),
            closed: false,
            since: now,
        };
        self.sessions.insert(conn, session);
        if let Err(why) = self.check_ban(&key) {
            self.send(conn, refuse(ErrorCode::FORBIDDEN, why));
            self.close(conn, why);
        } else if counted {
            self.board.at(now + HELLO_WITHIN, Timer::Hello(conn));
        } else {
            self.send(conn, quota("too many sessions from your network", Duration::from_secs(60)));
            self.close(conn, "too many sessions");
        }
    }

    fn enter_at(&mut self, now: Now, observed: SocketAddr, conn: ConnId) -> bool {
        self.by_address.enter(now, &self.board.config.quotas, observed.ip(), conn)
    }

    /// Ends a session of a full neighbourhood that is of less account than a newcomer: one in no swarm, whose key never
    /// sent anything; if the newcomer's key did send, else one whose key did not. Else one flooder with many keys could shut
    /// out all its neighbours.
    fn make_room(&mut self, now: Now, ip: IpAddr, newcomer: Contribution) -> bool {
        let account = |conn: &ConnId| {
            let s = self.sessions.get(conn).filter(|s| !s.closed && now.since(s.since) >= SETTLED)?;
            let peer = s.peer.and_then(|ix| self.board.peers.get(&ix));
            let sent = peer.map_or(s.contribution.sent, |p| p.contribution.sent);
            Some((sent > 0, peer.is_some_and(|p| !p.media.is_empty())))
        };
        let some = self.by_address.some_of(ip);
        let least = some.iter().filter_map(|c| Some((account(c)?, *c))).min();
        match least {
            Some(((sent, joined), conn)) if !sent && (!joined || newcomer.sent > 0) => {
                self.send(conn, quota("too many sessions from your network", Duration::from_secs(60)));
                self.close(conn, "others of your network wait");
                self.by_address.leave(ip, conn);
                true
            }
            _ => false,
        }
    }

    pub(crate) fn close(&mut self, conn: ConnId, why: &str) {
        if let Some(s) = self.sessions.get_mut(&conn).filter(|s| !s.closed) {
            s.closed = true;
            // Orders of this turn would come after the close.
            self.board.assign.remove(&conn);
            self.board.cancel.remove(&conn);
            self.effects.push_back(Effect::Close { conn, why: why.to_owned() });
        }
    }

    pub(crate) fn disconnect(&mut self, now: Now, conn: ConnId) {
        let Some(session) = self.sessions.remove(&conn) else { return };
        self.by_address.leave(session.observed.ip(), conn);
        if let Some(peer) = session.peer {
            self.part(now, peer, conn);
        }
    }

    /// Ends what a peer did in session `conn`; it is remembered for a while, should it come back.
    fn part(&mut self, now: Now, ix: PeerIx, conn: ConnId) {
        let Some(peer) = self.board.peers.get(&ix).filter(|p| p.conn == Some(conn)) else { return };
        let wall = self.board.wall(now);
        for media in peer.media.iter().copied().collect::<Vec<_>>() {
            if let Some(m) = self.board.media.get(&media).filter(|m| m.is_publisher(ix)) {
                let path = m.manifest.path.clone();
                self.used(&path, wall);
            }
            self.leave_swarm(media, ix);
        }
        self.store_contribution(ix);
        let Some(peer) = self.board.peers.get_mut(&ix) else { return };
        peer.conn = None;
        peer.gone = Some(now);
        peer.servable = false;
        for o in std::mem::take(&mut peer.offers) {
            self.count_offer(&o, false);
        }
        if let Some(peer) = self.board.peers.get_mut(&ix) {
            for r in std::mem::take(&mut peer.reach) {
                if let Proof::Dialing(d) = r.proof {
                    self.dials.remove(&d);
                }
            }
        }
        self.board.assign.remove(&conn);
        self.board.cancel.remove(&conn);
        self.board.at(now + LINGER, Timer::Purge(ix));
    }

    fn count_offer(&mut self, o: &Offered, add: bool) {
        if let Some(p) = self.board.protocols.get_mut(o.proto) {
            let count = |n: &mut u64, yes: bool| {
                if yes {
                    *n = if add { *n + 1 } else { n.saturating_sub(1) };
                }
            };
            count(&mut p.peers, true);
            count(&mut p.hosts, o.offer.serves);
        }
    }

    /// Forgets a peer that did not come back.
    pub(crate) fn purge(&mut self, now: Now, ix: PeerIx) {
        let Some(peer) = self.board.peers.get(&ix) else { return };
        if peer.conn.is_some() || peer.gone.is_none_or(|g| now.since(g) < LINGER) {
            return;
        }
        self.store_contribution(ix);
        if let Some(peer) = self.board.peers.remove(&ix) {
            self.board.keys.remove(&peer.key);
            self.board.absent.keep(now, peer.key, peer.conduct);
        }
    }

    pub(crate) fn store_contribution(&mut self, ix: PeerIx) {
        if let Some(p) = self.board.peers.get_mut(&ix).filter(|p| p.contribution != p.contribution_stored) {
            p.contribution_stored = p.contribution;
            let (peer, contribution) = (p.key, p.contribution);
            self.effects.push_back(Effect::Store(Store::Contribution { peer, contribution }));
        }
    }

    /// Checks quotas of a message, and finds who it is from. Errors are answered here.
    pub(crate) fn admit(&mut self, now: Now, conn: ConnId, message: &ToTracker) -> Option<PeerIx> {
        let session = self.sessions.get(&conn).filter(|s| !s.closed)?;
        let (ip, peer) = (session.observed.ip(), session.peer);
        let Some(peer) = peer else {
            if let ToTracker::Hello(hello) = message {
                self.hello(now, conn, hello);
            } else {
                self.send(conn, refuse(ErrorCode::BAD_MESSAGE, "a session begins with a hello"));
                self.close(conn, "no hello");
            }
            return None;
        };
        if matches!(message, ToTracker::Hello(_)) {
            self.send(conn, refuse(ErrorCode::BAD_MESSAGE, "a second hello"));
            self.close(conn, "a second hello");
            return None;
        }
        if let Some(p) = self.board.peers.get_mut(&peer) {
            p.heard = now;
            p.knocked.iter_mut().for_each(|(_, answered)| *answered = true);
            let doubted = !std::mem::take(&mut p.doubted).is_empty();
            if !p.is_there() {
                self.came_back(now, peer);
            } else if doubted {
                self.board.events.push(Event::Ready { peer });
            }
        }
        let full = match message {
            ToTracker::Have(h) => self.board.by_id(&h.media).and_then(|m| m.members.get(&peer)),
            _ => None,
        };
        let cost = weight(message, full.is_some_and(|m| m.holds.part().is_none()));
        let quotas = &self.board.config.quotas;
        // Within its share of the neighbourhood's messages a peer does not depend on what its neighbours do.
        let share = self.by_address.share(quotas, ip);
        let (by_key, modest) = self.board.peers.get_mut(&peer).map_or((Ok(()), true), |p| {
            let burst = (share * SHARE_BURST.0).max(SHARE_BURST.1);
            let modest = p.share.take(now, share, burst, cost).is_ok();
            (p.messages.take(now, quotas.messages_per_second, quotas.message_burst, cost), modest)
        });
        let by_prefix = match by_key {
            Ok(()) => self.by_address.message(now, quotas, ip, cost),
            Err(_) => Ok(()),
        };
        let refused = by_key.err().or(by_prefix.err().filter(|_| !modest));
        if let Some(wait) = refused {
            self.board.totals.refused += 1;
            let mut error = quota("too many messages; slow down", wait);
            error.request = request_of(message);
            error.media = media_of(message).copied();
            self.send(conn, error);
            // That others of its network send much is no fault of its own.
            if by_key.is_err() {
                self.strike(now, conn);
            }
            return None;
        }
        Some(peer)
    }

    /// An error was the peer's own fault; too many end its session.
    pub(crate) fn strike(&mut self, now: Now, conn: ConnId) {
        let Some(s) = self.sessions.get_mut(&conn) else { return };
        s.strikes.add(now, STRIKE, 1.0);
        if s.strikes.now(now, STRIKE) >= STRIKES {
            self.close(conn, "too many errors");
        }
    }

    fn hello(&mut self, now: Now, conn: ConnId, hello: &Hello) {
        if hello.version == 0 {
            self.send(conn, refuse(ErrorCode::VERSION, "this tracker speaks IceT version 1"));
            self.close(conn, "no common version");
            return;
        }
        let Some(session) = self.sessions.get(&conn) else { return };
        let (key, observed, kind, contribution) =
            (session.key, session.observed, session.kind, session.contribution);
        let before = self.board.keys.get(&key).and_then(|ix| Some((*ix, self.board.peers.get(ix)?)));
        if let Some((ix, old, instance, knocked)) =
            before.and_then(|(ix, p)| Some((ix, p.conn?, p.instance, p.knocked)))
        {
            // The newest session of a key wins, by when its carrier stood: a hello may come late.
            if conn < old {
                self.send(conn, refuse(ErrorCode::FORBIDDEN, DISPLACED));
                self.close(conn, "another session of this key began");
                return;
            }
            // But of two programs with one key the first, as long as it is there.
            let rival = hello.instance.zip(instance).is_some_and(|(a, b)| a != b);
            if rival && !self.board.is_gone(now, ix) {
                let is_there = knocked.is_some_and(|(at, answered)| answered && now.since(at) < ANSWERED);
                let text = if is_there { RIVAL } else { ASKED };
                self.send(conn, come_back(COME_BACK, text));
                self.close(conn, "another program with this key is connected");
                return;
            }
            let displaced =
                if rival { come_back(ASK_AGAIN, DISPLACED) } else { refuse(ErrorCode::FORBIDDEN, DISPLACED) };
            self.send(old, displaced);
            self.close(old, "another session of this key began");
            if let Some(ix) = self.sessions.get_mut(&old).and_then(|s| s.peer.take()) {
                self.part(now, ix, old);
            }
        }
        let quotas = &self.board.config.quotas;
        let (messages, joins, publishes) =
            (quotas.message_burst, quotas.joins_per_minute, quotas.publishes_per_minute);
        let mut offers = Vec::with_capacity(hello.offers.len());
        for offer in &hello.offers {
            if let Some(proto) = self.board.protocols.intern(&offer.name) {
                let arm = super::learn::Arm::default();
                let offered = Offered { offer: offer.clone(), proto, arm, tried: false };
                self.count_offer(&offered, true);
                offers.push(offered);
            }
        }
        let ix = self.board.keys.get(&key).copied().filter(|ix| self.board.peers.contains_key(ix));
        let ix = ix.unwrap_or_else(|| {
            let ix = PeerIx(self.board.next_ix());
            let peer = Peer {
                key,
                ticket_key: TicketKey::derive(&self.board.config.secret, &key),
                conn: None,
                gone: None,
                observed,
                place: Place::of(observed.ip()),
                surety: (None, 0.0),
                kind,
                agent: String::new(),
                instance: None,
                offers: Vec::new(),
                reach: Vec::new(),
                servable: false,
                fresh: false,
                knocked: None,
                suspected: false,
                doubted: std::collections::BTreeMap::new(),
                presence: Presence::There,
                near: false,
                withheld: std::collections::BTreeSet::new(),
                once: false,
                up: Meter::new(MOST_SERVED),
                down: Meter::new(MOST_FETCHED),
                conduct: self.board.absent.take(&key),
                probed: now,
                acked: now,
                sent: None,
                contribution,
                credit: super::fair::Credit::default(),
                lately: Fading::default(),
                contribution_stored: contribution,
                media: std::collections::BTreeSet::new(),
                detached: Vec::new(),
                relied: Fading::default(),
                punches: Punches::default(),
                avoid: Vec::new(),
                told: now,
                missed_up: super::bits::Pool::default(),
                missed_down: super::bits::Pool::default(),
                serving: Vec::new(),
                heard: now,
                map_bytes: 0,
                messages: Bucket::full(messages, now),
                share: Bucket::full(SHARE_BURST.1, now),
                joins: Bucket::full(joins, now),
                publishes: Bucket::full(publishes, now),
            };
            self.board.peers.insert(ix, peer);
            self.board.keys.insert(key, ix);
            ix
        });
        if let Some(p) = self.board.peers.get_mut(&ix) {
            p.conn = Some(conn);
            p.instance = hello.instance;
            p.heard = now;
            p.gone = None;
            if p.ip() != observed.ip() {
                p.punches.forget_all();
            }
            (p.observed, p.kind) = (observed, kind);
            p.place = Place::of(observed.ip());
            p.agent.clone_from(&hello.agent);
            p.offers = offers;
            p.up.limit = hello.limits.up;
            p.down.limit = hello.limits.down;
            (p.knocked, p.presence) = (None, Presence::There);
            // Who goes on with a session names the epoch of the one before.
            p.fresh = hello.epoch.is_none();
            p.doubted.clear();
            (p.near, p.withheld, p.once) = (false, std::collections::BTreeSet::new(), false);
        }
        if let Some(s) = self.sessions.get_mut(&conn) {
            s.peer = Some(ix);
        }
        let config = &self.board.config;
        let welcome = Welcome {
            version: hello.version.min(icet::VERSION),
            epoch: config.epoch,
            time: self.board.wall(now),
            observed: NetAddr { kind, at: observed },
            ticket_key: TicketKey::derive(&config.secret, &key),
            ack_delay: config.ack_delay_ms,
        };
        self.send(conn, welcome);
        self.set_reach(now, ix, &hello.reach);
    }

    /// The peer says what it gives and takes from now on.
    pub(crate) fn allow(&mut self, now: Now, ix: PeerIx, m: &Allow) {
        let Some(p) = self.board.peers.get_mut(&ix) else { return };
        (p.up.limit, p.down.limit, p.near) = (m.up, m.down, m.near);
        p.withheld = m.withheld.iter().copied().collect();
        p.once = m.once == Some(true);
        for media in p.media.iter().copied().collect::<Vec<_>>() {
            self.board.refresh(now, media, ix);
        }
        self.set_servable(now, ix);
    }

    /// The peer announces all its addresses.
    pub(crate) fn set_reach(&mut self, now: Now, ix: PeerIx, announced: &[NetAddr]) {
        let Some(p) = self.board.peers.get_mut(&ix) else { return };
        let (conn, seen) = (p.conn, p.ip());
        let before = std::mem::take(&mut p.reach);
        let mut refused = Vec::new();
        let mut reach: Vec<Reachable> = Vec::new();
        for a in announced {
            let mut addr = *a;
            if addr.at.ip().is_unspecified() {
                addr.at.set_ip(seen);
            }
            addr.at.set_ip(addr.at.ip().to_canonical());
            if reach.iter().any(|r| r.addr == addr) {
                continue;
            }
            let known = before.iter().find(|r| r.addr == addr).map(|r| r.proof);
            let proof = match (known, reach::may_dial(addr, seen)) {
                (_, Err(why)) => {
                    refused.push((addr, why));
                    Proof::Refused
                }
                (Some(Proof::Failed { tries, at }), _) if now.since(at) < REDIAL * (1 << tries.min(8)) => {
                    refused.push((addr, "it failed a short while ago"));
                    Proof::Failed { tries, at }
                }
                (Some(known @ (Proof::Proved | Proof::Dialing(_) | Proof::Failed { .. })), _) => known,
                _ => Proof::Waits(now),
            };
            reach.push(Reachable { addr, proof });
        }
        for r in &before {
            if let Proof::Dialing(d) = r.proof
                && !reach.iter().any(|n| n.proof == r.proof)
            {
                self.dials.remove(&d);
            }
        }
        p.reach = reach;
        if let Some(conn) = conn {
            for (addr, why) in refused {
                self.send(conn, ReachResult { addr, proved: false, why: why.to_owned() });
            }
        }
        self.set_servable(now, ix);
        self.dial(now, ix);
    }

    /// Dials what waits to be dialed, as far as quotas let.
    pub(crate) fn dial(&mut self, now: Now, ix: PeerIx) {
        let Some(p) = self.board.peers.get_mut(&ix).filter(|p| p.conn.is_some()) else { return };
        let (key, seen) = (p.key, p.ip());
        // The likeliest first: where the peer comes from.
        p.reach.sort_by_key(|r| r.addr.at.ip() != seen);
        let mut later: Option<Duration> = None;
        for r in &mut p.reach {
            let again = match r.proof {
                Proof::Waits(at) => at <= now,
                Proof::Failed { tries, at } => now.since(at) >= REDIAL * (1 << tries.min(8)) && tries < 4,
                _ => false,
            };
            if !again {
                continue;
            }
            let quotas = &self.board.config.quotas;
            let wait = if self.dials.len() >= quotas.dials {
                Err(Duration::from_secs(1))
            } else {
                self.by_address.dial(now, quotas, r.addr.at.ip())
            };
            match wait {
                Ok(()) => {
                    self.last_dial += 1;
                    let id = DialId(self.last_dial);
                    let tries = if let Proof::Failed { tries, .. } = r.proof { tries } else { 0 };
                    r.proof = Proof::Dialing(id);
                    self.dials.insert(id, (ix, r.addr, tries));
                    self.board.totals.dials += 1;
                    self.effects.push_back(Effect::Dial { id, addr: r.addr, key });
                }
                Err(wait) => {
                    let wait = wait.max(Duration::from_millis(100));
                    if matches!(r.proof, Proof::Waits(_)) {
                        r.proof = Proof::Waits(now + wait);
                    }
                    later = Some(later.map_or(wait, |l| l.min(wait)));
                }
            }
        }
        if let Some(wait) = later {
            self.board.at(now + wait, Timer::Dial(ix));
        }
    }

    pub(crate) fn dialed(&mut self, now: Now, id: DialId, outcome: Result<(), String>) {
        let Some((ix, addr, tries)) = self.dials.remove(&id) else { return };
        let Some(p) = self.board.peers.get_mut(&ix) else { return };
        let Some(r) = p.reach.iter_mut().find(|r| r.proof == Proof::Dialing(id)) else { return };
        let proved = outcome.is_ok();
        r.proof = if proved { Proof::Proved } else { Proof::Failed { tries: tries + 1, at: now } };
        let why = super::join::truncated(outcome.err().unwrap_or_default());
        if let Some(conn) = p.conn {
            self.send(conn, ReachResult { addr, proved, why });
        }
        self.set_servable(now, ix);
    }

    pub(crate) fn set_servable(&mut self, now: Now, ix: PeerIx) {
        let Some(p) = self.board.peers.get_mut(&ix) else { return };
        let proved = |kind| p.reach.iter().any(|r| r.addr.kind == kind && r.proof == Proof::Proved);
        let reachable = |o: &Offer| o.abilities.has(Abilities::RELAYED) || o.dials.is_none_or(proved);
        let gives = p.up.limit != Some(0) && p.presence != Presence::Away;
        let servable = gives && p.offers.iter().any(|o| o.offer.serves && reachable(&o.offer));
        let before = std::mem::replace(&mut p.servable, servable);
        if servable != before {
            for media in &p.media {
                self.board.media.get_mut(media).into_iter().for_each(|m| m.set_serves(ix, servable));
            }
        }
        if servable {
            // Even if it was before: another address may reach other receivers.
            self.board.events.push(Event::Ready { peer: ix });
        } else if before {
            for media in p.media.iter().copied().collect::<Vec<_>>() {
                self.board.refresh(now, media, ix);
            }
        }
    }

    pub(crate) fn send(&mut self, conn: ConnId, message: impl Into<ToPeer>) {
        if self.sessions.get(&conn).is_some_and(|s| !s.closed) {
            self.effects.push_back(Effect::Send { conn, message: message.into() });
        }
    }
}

/// The request that a message makes, for the error that answers it.
pub(crate) fn request_of(message: &ToTracker) -> Option<u64> {
    match message {
        ToTracker::Publish(m) => Some(m.request),
        ToTracker::Join(m) => Some(m.request),
        ToTracker::Locate(m) => Some(m.request),
        ToTracker::InfoRequest(m) => Some(m.request),
        ToTracker::StandingRequest(m) => Some(m.request),
        ToTracker::Audience(m) => Some(m.request),
        _ => None,
    }
}

/// The media that a message is about.
pub(crate) fn media_of(message: &ToTracker) -> Option<&MediaId> {
    match message {
        ToTracker::Focus(m) => Some(&m.media),
        ToTracker::Have(m) => Some(&m.media),
        ToTracker::Report(m) => Some(&m.media),
        ToTracker::Leave(m) => Some(&m.media),
        ToTracker::Slices(m) => Some(&m.media),
        ToTracker::Locate(m) => Some(&m.media),
        ToTracker::Withdraw(m) => Some(&m.media),
        ToTracker::Head(m) => Some(&m.media),
        ToTracker::Audience(m) => Some(&m.media),
        _ => None,
    }
}

/// How many tokens a message costs: 1, and more for what takes long to work through. `full`: its sender holds all pages.
fn weight(message: &ToTracker, full: bool) -> f64 {
    // 64 pages a word of a map: a unit for each 256 words that ranges touch.
    let pages = |r: &icet::PageRanges| r.runs().map(|(a, b)| (b - a) / 16_384 + 1).sum::<u64>();
    let heavy = match message {
        ToTracker::Have(h) => {
            let got: u64 = h.got.iter().map(|g| pages(&g.pages)).sum();
            (if full { 0 } else { got / 64 }) + pages(&h.lost) / 16
        }
        ToTracker::Join(j) => pages(&j.have) / 64,
        ToTracker::Served(s) => s.items.len() as u64 / 64,
        ToTracker::Slices(s) => s.slices.len() as u64 / 8,
        // All members are looked at.
        ToTracker::Audience(a) => 4 + a.addresses.len() as u64 / 64,
        // Each is verified, if the tracker knows none yet.
        ToTracker::Head(h) => h.earlier.as_ref().map_or(0, Vec::len) as u64 / 2,
        ToTracker::Publish(p) => 4 + p.slices.len() as u64 / 8,
        _ => 0,
    };
    // What work brings with it comes in numbers: a fast line acknowledges hundreds of times a second.
    let each = match message {
        ToTracker::Have(_) | ToTracker::Report(_) | ToTracker::Served(_) => 0.1,
        _ => 1.0,
    };
    each + heavy as f64
}
