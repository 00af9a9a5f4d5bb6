//! Peers that may be gone though their sessions stand: killed, or without power.
//!
//! Whoever may be gone is asked. Who does not answer soon is silent: nothing is ordered from it, and its own orders are set aside,
//! so that hosts have room for those who wait; all of that is undone when it says something. Who does not answer at all is away:
//! its orders are over. Hosts lose nothing by what such receivers did not take.

use std::collections::BTreeSet;
use std::time::Duration;

use icet::Now;
use icet::message::Outcome;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::Swarm;
use super::board::{Board, MediaIx, PeerIx, Timer};
use super::media::Member;
use super::peer::{Peer, Presence};
use super::schedule::Event;

/// So long it may take until nothing more is ordered from it for a receiver that heard nothing from it. Over another carrier it
/// may be there; but who refused a connection or broke one off is more likely gone.
const SILENT: Duration = Duration::from_millis(500);

/// Who said nothing for so long is asked, if that matters to somebody who waits for it, or to a newcomer.
const QUIET: Duration = Duration::from_secs(2);
const QUIET_NOW: Duration = Duration::from_millis(100);
/// A receiver whose orders lapse, and that said nothing for so long, may be gone: who waits for pages says something each second.
const UNHEARD: Duration = Duration::from_millis(1500);

/// Who has not answered after so long is silent: far peers need as long for an answer.
pub(crate) const HUSH: Duration = Duration::from_millis(350);
/// So long a peer may take to say something after it was knocked at: a lost packet or two, and a slow line.
const ANSWER: Duration = Duration::from_secs(2);
/// Whose key another program has may take so long; who was refused for it comes back after half of what it was told, or later.
const GONE: Duration = Duration::from_millis(1400);
/// Pause between two questions to a peer that answers.
const AGAIN: Duration = Duration::from_millis(500);

/// When it is first looked whether something has come to a newcomer, then after twice as long each time, and how often.
const NEWCOMER: (Duration, u32) = (Duration::from_millis(100), 5);
/// Hosts that are looked at for a newcomer, beside its own and the publisher.
const DRAW: usize = 8;

impl Board {
    /// A receiver complains that nothing came from `host`: it is asked whether it is there. (Who complains may lie: that alone
    /// counts for nothing.)
    pub(crate) fn suspect(&mut self, now: Now, host: PeerIx, by: PeerIx, outcome: Outcome) {
        let Some(h) = self.peers.get_mut(&host) else { return };
        if h.conn.is_none() || h.presence == Presence::Away {
            return;
        }
        let from = if outcome == Outcome::Stalled { now + SILENT } else { now };
        // One knock at a time, however many complain: what comes meanwhile counts when that one is decided.
        if h.is_asked(now) {
            h.suspected = true;
            if h.knocked.is_some_and(|(_, answered)| !answered) {
                h.doubted.entry(by).and_modify(|at| *at = from.min(*at)).or_insert(from);
            }
            return;
        }
        h.doubted = [(by, from)].into();
        self.knock(now, host);
    }

    /// Somebody waits for a host that has no room: it may be gone, or those whom it is to send something.
    pub(crate) fn look_after(&mut self, now: Now, host: PeerIx, quiet: Duration) {
        self.ask(now, host, QUIET);
        self.ask_receivers(now, host, quiet);
    }

    fn ask_receivers(&mut self, now: Now, host: PeerIx, quiet: Duration) {
        let Some(h) = self.peers.get(&host) else { return };
        let receivers: BTreeSet<_> =
            h.serving.iter().filter_map(|id| Some(self.runs.get(id)?.receiver)).collect();
        receivers.into_iter().for_each(|r| self.ask(now, r, quiet));
    }

    /// Asks a peer of which nothing was heard for so long whether it is there.
    fn ask(&mut self, now: Now, peer: PeerIx, quiet: Duration) {
        let Some(p) = self.peers.get(&peer).filter(|p| p.is_there()) else { return };
        let lately = |at: Now| now.since(at) < quiet;
        if !lately(p.heard) && !p.sent.is_some_and(lately) && !p.is_asked(now) {
            self.knock(now, peer);
        }
    }

    /// Whether nothing was heard of a receiver for long; then it is asked.
    pub(crate) fn is_unheard(&mut self, now: Now, receiver: PeerIx) -> bool {
        let unheard = self.peers.get(&receiver).is_some_and(|r| {
            let lately = |at: Now| now.since(at) < UNHEARD;
            r.conn.is_some()
                && r.presence != Presence::Away
                && !lately(r.heard)
                && !r.sent.is_some_and(lately)
        });
        if unheard {
            self.ask(now, receiver, Duration::ZERO);
        }
        unheard
    }

    /// Nothing may have come to a newcomer yet, since those that it was sent to, or those who have the line that it could have,
    /// were killed a moment ago: they are asked.
    pub(crate) fn look_after_newcomer(
        &mut self,
        now: Now,
        media: MediaIx,
        peer: PeerIx,
        joined: Now,
        times: u32,
    ) {
        let waits = self.peers.get(&peer).is_some_and(|p| p.conn.is_some() && p.acked <= joined);
        let Some(m) = self.media.get(&media).filter(|_| waits) else { return };
        let Some(member) = m.members.get(&peer).filter(|x| x.receives()) else { return };
        let its: BTreeSet<_> = member.running.iter().map(|f| f.host).collect();
        if times < NEWCOMER.1 {
            self.at(now + NEWCOMER.0 * (1 << times), Timer::Newcomer(media, peer, joined, times + 1));
        }
        if times == 0 {
            return;
        }
        let Some(m) = self.media.get(&media) else { return };
        // A chance of its own: that somebody is asked changes nothing of what is ordered.
        let mut others = m.able.draw(DRAW, &mut SmallRng::seed_from_u64(now.0 ^ peer.0));
        others.extend(m.publisher.filter(|p| !others.contains(p)));
        its.into_iter().for_each(|host| self.ask(now, host, QUIET_NOW));
        for host in others {
            self.ask(now, host, QUIET_NOW);
            if self.peers.get(&host).is_some_and(|h| h.up.room() == 0) {
                self.ask_receivers(now, host, QUIET_NOW);
            }
        }
    }

    /// Whether a peer is gone, in whose place another program with its key would come; if that is not known, it is asked.
    pub(crate) fn is_gone(&mut self, now: Now, peer: PeerIx) -> bool {
        let Some(p) = self.peers.get(&peer) else { return true };
        let unanswered =
            p.knocked.filter(|(at, answered)| !answered && p.sent.is_none_or(|sent| sent <= *at));
        if p.presence == Presence::Away || unanswered.is_some_and(|(at, _)| now.since(at) >= GONE) {
            return true;
        }
        if !p.is_asked(now) {
            self.knock(now, peer);
        }
        false
    }

    /// Asks a peer whether it is there.
    fn knock(&mut self, now: Now, peer: PeerIx) {
        let Some(p) = self.peers.get_mut(&peer) else { return };
        let Some(conn) = p.conn.filter(|_| p.presence != Presence::Away) else { return };
        p.suspected = false;
        p.knocked = Some((now, false));
        self.knocks.push(conn);
        self.at(now + HUSH, Timer::Knock(peer));
        self.at(now + ANSWER, Timer::Knock(peer));
    }

    /// It has not answered yet.
    fn hush(&mut self, now: Now, peer: PeerIx) {
        let Some(p) = self.peers.get_mut(&peer) else { return };
        p.presence = Presence::Silent;
        self.set_aside(now, peer);
        self.set_apart(now, peer);
    }
}

impl Peer {
    /// Whether it was asked so lately that it need not be asked again.
    fn is_asked(&self, now: Now) -> bool {
        let Some((at, answered)) = self.knocked else { return false };
        now.since(at) < if answered { AGAIN } else { ANSWER }
    }
}

impl Swarm {
    /// Looks whether a peer that was knocked at has answered, or sent anybody anything since.
    pub(crate) fn look_for(&mut self, now: Now, ix: PeerIx) {
        let Some(p) = self.board.peers.get(&ix) else { return };
        if p.conn.is_none() || p.presence == Presence::Away {
            return;
        }
        let Some((knocked, answered)) = p.knocked else { return };
        let there = answered || p.sent.is_some_and(|at| at > knocked);
        if now.since(knocked) < ANSWER {
            if !there && p.is_there() && now.since(knocked) >= HUSH {
                self.board.hush(now, ix);
            }
            return;
        }
        if there {
            let (again, silent) = (p.suspected, !p.is_there());
            self.board.peers.get_mut(&ix).into_iter().for_each(|p| p.doubted.clear());
            if silent {
                self.came_back(now, ix);
            }
            if again {
                self.board.knock(now, ix);
            }
            return;
        }
        self.board.set_aside(now, ix);
        let Some(p) = self.board.peers.get_mut(&ix) else { return };
        p.presence = Presence::Away;
        p.doubted.clear();
        let (serving, detached) = (p.serving.clone(), p.detached.clone());
        self.set_servable(now, ix);
        for id in serving.into_iter().chain(detached) {
            self.board.cancel(id);
            self.board.end(now, id);
        }
    }

    /// A peer that did not answer speaks again.
    pub(crate) fn came_back(&mut self, now: Now, ix: PeerIx) {
        let Some(p) = self.board.peers.get_mut(&ix) else { return };
        let media = p.media.clone();
        p.presence = Presence::There;
        self.board.take_up(now, ix);
        self.board.put_all_together(now, ix);
        self.set_servable(now, ix);
        for media in media {
            self.board.refresh(now, media, ix);
            if self.board.member(media, ix).is_some_and(Member::receives) {
                self.board.events.push(Event::Wants { media, peer: ix });
            }
        }
    }
}
