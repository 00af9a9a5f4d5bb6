//! What shape the tree has: how many each host has room for, who goes above whom, and who goes elsewhere.

use std::collections::BTreeSet;

use icet::Now;

use super::super::board::{Board, LEAST_TRUST, MediaIx, PeerIx, Timer};
use super::tree::Place;
use super::{BEHIND, HEAD_ROOM, LOOK, PROMOTED, RENEWED, SLOTS, SOURCE};

impl Board {
    pub(super) fn live_tick(&mut self, now: Now, ix: MediaIx) {
        let Some(live) = self.live_mut(ix) else { return };
        // There may be another tick of the version before.
        if live.ticked.is_some_and(|t| now.since(t) < LOOK) {
            return;
        }
        live.ticked = Some(now);
        live.looks += 1;
        let goes_on = live.goes_on(now);
        let behind = |p: &Place| p.run.is_some() && now.since(live.heard(p)) > BEHIND;
        let behind: Vec<_> =
            live.tree.iter().filter(|(_, p)| goes_on && behind(p)).map(|(ix, _)| ix).collect();
        let bare: Vec<_> =
            live.tree.iter().filter(|(_, p)| p.bare && p.run.is_some()).map(|(ix, _)| ix).collect();
        self.at(now + LOOK, Timer::Tick(ix));
        for peer in behind {
            if let Some(host) = self.live(ix).and_then(|l| l.tree.host(peer)) {
                self.avoid_for(now, ix, peer, host);
            }
            self.live_again(now, ix, peer);
        }
        for peer in bare {
            self.live_bare(now, ix, peer);
        }
        self.live_seat(now, ix, usize::MAX);
        if goes_on {
            self.live_renew(now, ix);
            self.live_improve(now, ix);
        }
    }

    /// Orders the same anew where all stand-ins of an order are gone, or get what they have from its own receiver. A part of the members
    /// at each look.
    fn live_renew(&mut self, now: Now, ix: MediaIx) {
        let Some(live) = self.live(ix) else { return };
        let turn = live.looks % RENEWED;
        let alone = |peer: PeerIx, p: &Place| {
            let run = p.run.filter(|_| p.moving.is_none()).and_then(|id| self.live_runs.get(&id))?;
            let mut left = run.hosts.iter().skip(run.with + 1);
            let of = run.hosts.get(run.with).map(|t| (t.peer, t.proto))?;
            let lost = left.all(|t| live.tree.get(t.peer).is_none() || live.tree.is_below(t.peer, peer));
            (lost && live.tree.get(of.0).is_some()).then_some((peer, of))
        };
        let all: Vec<_> = live
            .tree
            .iter()
            .filter(|(peer, _)| peer.0 % RENEWED == turn)
            .filter_map(|(peer, p)| alone(peer, p))
            .collect();
        for (peer, host) in all {
            self.live_move(now, ix, peer, Some(host));
        }
    }

    /// Places those who wait, who can send most first.
    pub(super) fn live_seat(&mut self, now: Now, ix: MediaIx, most: usize) {
        let Some(live) = self.live(ix) else { return };
        let slots = |p: &PeerIx| live.tree.get(*p).map_or(0, |p| p.slots);
        let mut waiting: Vec<_> = live.waiting.iter().copied().collect();
        waiting.sort_by_key(|p| std::cmp::Reverse(slots(p)));
        waiting.into_iter().take(most).for_each(|peer| self.live_place(now, ix, peer));
    }

    /// Makes the tree better, a little at a time: hosts with too many receivers lose one, and those who can send much go above
    /// those who can send little.
    fn live_improve(&mut self, now: Now, ix: MediaIx) {
        let Some(live) = self.live(ix) else { return };
        let most = PROMOTED.0 + live.tree.iter().count() / PROMOTED.1;
        for host in live.tree.overfull().into_iter().take(most) {
            let Some(live) = self.live(ix) else { return };
            let Some(place) = live.tree.get(host) else { continue };
            let still =
                |p: &&PeerIx| live.tree.get(**p).is_some_and(|c| c.moving.is_none() && c.run.is_some());
            let least = |p: &&PeerIx| live.tree.get(**p).map_or((0, 0), |c| (c.slots, c.children.len()));
            if let Some(child) = place.children.iter().filter(still).min_by_key(least).copied() {
                self.live_move(now, ix, child, None);
            }
        }
        let mut tried = BTreeSet::new();
        while tried.len() < most {
            let Some((strong, weak)) = self.live(ix).and_then(|l| l.tree.to_promote(&tried)) else { return };
            tried.insert(strong);
            self.live_displace(now, ix, strong, weak);
        }
    }

    /// Gives a member the host of a weaker one, which is to go below it. Whether it could.
    pub(super) fn live_displace(&mut self, now: Now, ix: MediaIx, strong: PeerIx, weak: PeerIx) -> bool {
        let Some(live) = self.live(ix) else { return false };
        let Some(start) = live.begin(now, strong) else { return false };
        let Some(host) = live.tree.host(weak).filter(|_| !live.tree.is_below(weak, strong)) else {
            return false;
        };
        let Some(way) = self.live_good(now, ix, host, strong, start) else { return false };
        let done = match self.live(ix).and_then(|l| l.tree.get(strong)).map(|p| p.run.is_some()) {
            Some(true) => self.live_move(now, ix, strong, Some((host, way))),
            _ => self.live_order(now, ix, strong, (host, way)),
        };
        if done && let Some(live) = self.live_mut(ix) {
            if let Some(p) = live.tree.get_mut(strong) {
                p.displaces = Some(weak);
            }
            if let Some(p) = live.tree.get_mut(weak) {
                p.yields = Some(strong);
            }
        }
        done
    }

    /// A member has something by its newest order: whom it displaced goes below it.
    pub(super) fn live_displaced(&mut self, now: Now, ix: MediaIx, strong: PeerIx) {
        let Some(live) = self.live_mut(ix) else { return };
        let Some(weak) = live.tree.get_mut(strong).and_then(|p| p.displaces.take()) else { return };
        let host = live.tree.host(strong);
        let Some(p) = live.tree.get_mut(weak).filter(|p| p.yields == Some(strong)) else { return };
        p.yields = None;
        if p.host != host || p.moving.is_some() || p.run.is_none() {
            return;
        }
        let start = p.high;
        if let Some(way) = self.live_good(now, ix, strong, weak, start) {
            self.live_move(now, ix, weak, Some((strong, way)));
        }
    }

    /// What is known of a member's line, and so how many it can send to.
    pub(super) fn live_weigh(&mut self, now: Now, ix: MediaIx, peer: PeerIx) {
        let Some((media, p)) = self.media.get(&ix).zip(self.peers.get(&peer)) else { return };
        let Some(live) = media.live.as_deref() else { return };
        let Some(place) = live.tree.get(peer) else { return };
        let rate = live.rate();
        let gives = p.conn.is_some() && p.servable && p.trust(now) >= LEAST_TRUST && self.gives(ix, p);
        // In range: rates of lines.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let known = p.up.known_rate().map(|r| r as u64);
        let least = rate.saturating_mul(HEAD_ROOM.0) / HEAD_ROOM.1;
        let unknown = if place.root { SOURCE.1 } else { SLOTS.1 };
        let fits =
            known.map_or(unknown, |up| u32::try_from(up / least.max(1)).unwrap_or(SLOTS.0).min(SLOTS.0));
        let most =
            if place.root { if live.waiting.is_empty() { SOURCE.0 } else { SOURCE.1 } } else { SLOTS.0 };
        let slots = if gives { fits.min(most) } else { 0 };
        let takes = live.takes(known.unwrap_or(least.saturating_mul(u64::from(SLOTS.1))));
        if let Some(live) = self.live_mut(ix) {
            if let Some(p) = live.tree.get_mut(peer) {
                (p.slots, p.takes) = (slots, takes);
            }
            live.tree.list(peer);
        }
    }
}
