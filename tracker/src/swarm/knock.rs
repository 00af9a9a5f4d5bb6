//! Hosts that may be gone though their sessions stand: killed, or without power.

use std::time::Duration;

use icet::Now;
use icet::message::Outcome;

use super::Swarm;
use super::board::{Board, PeerIx, Timer};

/// So long it may take until nothing more is ordered from it for a receiver that heard nothing from it. Over another carrier it
/// may be there; but who refused a connection or broke one off is more likely gone.
const SILENT: Duration = Duration::from_millis(500);

/// Who said nothing for so long may be gone.
const QUIET: Duration = Duration::from_secs(2);

/// So long a host may take to say something after it was knocked at: a lost packet or two, and a slow line.
const ANSWER: Duration = Duration::from_secs(2);

impl Board {
    /// A receiver complains that nothing came from `host`: it is asked whether it is there. (Who complains may lie: that alone
    /// counts for nothing.)
    pub(crate) fn suspect(&mut self, now: Now, host: PeerIx, by: PeerIx, outcome: Outcome) {
        let Some(h) = self.peers.get_mut(&host) else { return };
        if h.conn.is_none() || h.away {
            return;
        }
        let from = if outcome == Outcome::Stalled { now + SILENT } else { now };
        // One knock at a time, however many complain: what comes meanwhile counts when that one is decided.
        if let Some((_, answered)) = h.knocked.filter(|(at, _)| now.since(*at) < ANSWER) {
            h.suspected = true;
            if !answered {
                h.doubted.entry(by).and_modify(|at| *at = from.min(*at)).or_insert(from);
            }
            return;
        }
        h.doubted = [(by, from)].into();
        self.knock(now, host);
    }

    /// Somebody waits for a host that has no room: if nothing was heard of it lately, it is asked whether it is there.
    pub(crate) fn look_after(&mut self, now: Now, host: PeerIx) {
        let Some(h) = self.peers.get(&host) else { return };
        let lately = |at: Now| now.since(at) < QUIET;
        let asked = h.knocked.is_some_and(|(at, _)| lately(at));
        if !lately(h.heard) && !h.sent.is_some_and(lately) && !asked {
            self.knock(now, host);
        }
    }

    /// Asks a host whether it is there.
    fn knock(&mut self, now: Now, host: PeerIx) {
        let Some(h) = self.peers.get_mut(&host) else { return };
        let Some(conn) = h.conn.filter(|_| !h.away) else { return };
        h.suspected = false;
        h.knocked = Some((now, false));
        self.knocks.push(conn);
        self.at(now + ANSWER, Timer::Knock(host));
    }
}

impl Swarm {
    /// Looks whether a host has answered, or sent anybody anything since: else nothing is ordered from it until it says
    /// something, and what was is free for others.
    pub(crate) fn look_for(&mut self, now: Now, ix: PeerIx) {
        let Some(h) = self.board.peers.get(&ix).filter(|h| h.conn.is_some() && !h.away) else { return };
        let Some((knocked, answered)) = h.knocked.filter(|(at, _)| now.since(*at) >= ANSWER) else { return };
        if answered || h.sent.is_some_and(|at| at > knocked) {
            let again = h.suspected;
            self.board.peers.get_mut(&ix).into_iter().for_each(|h| h.doubted.clear());
            if again {
                self.board.knock(now, ix);
            }
            return;
        }
        let serving = h.serving.clone();
        if let Some(h) = self.board.peers.get_mut(&ix) {
            h.away = true;
            h.doubted.clear();
        }
        self.set_servable(now, ix);
        for id in serving {
            self.board.cancel(id);
            self.board.end(now, id);
        }
    }
}
