//! The tree of a broadcast: who has whom for a host, how late each is expected to have a page, and where there is room.
//!
//! A place costs as long as a page is expected to take until it is there: what its host's place costs, a hop, and a page's time on the
//! host's line for each receiver that comes before. The cheapest free place first makes shallow trees below fast lines, and deeper ones
//! below slow ones, much as a page spreads soonest if whoever has it sends it on at once.

use std::collections::{BTreeMap, BTreeSet};

use icet::{Now, PageNo};

use super::super::board::PeerIx;

/// Microseconds of a hop, apart from the time that a page takes on a line.
const HOP: u64 = 40_000;
/// A tree is never so deep.
const DEEPEST: u32 = 64;

/// Where a member stands in the tree.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Its standing order.
    pub(super) run: Option<u64>,
    /// Who carries it out.
    pub(super) host: Option<PeerIx>,
    /// A newer standing order, that is to replace it, and its host.
    pub(super) moving: Option<(u64, PeerIx)>,
    /// Whose place it takes once it has something: that one is to move below it.
    pub(super) displaces: Option<PeerIx>,
    /// Who is to take its place.
    pub(super) yields: Option<PeerIx>,
    /// Those that have it for their host, or are to.
    pub(super) children: BTreeSet<PeerIx>,
    /// So many it may have.
    pub(super) slots: u32,
    /// Microseconds that a page takes on its line.
    pub(super) takes: u64,
    /// Whether it has the setup pages.
    pub(super) ready: bool,
    /// It was ordered those in vain.
    pub(super) bare: bool,
    /// Whether it is the source itself.
    pub(super) root: bool,
    /// It wants to begin so many microseconds behind the newest page.
    pub(super) back: Option<i64>,
    /// It is far behind the others, of its own will or not, and catches up: it has nothing for them.
    pub(super) late: bool,
    /// Who asked it for what is before this page found that it does not keep that.
    pub(super) keeps: PageNo,
    /// Its first page, and the one behind the last that it said it has; 0 before it said so.
    pub(super) start: PageNo,
    pub(super) high: PageNo,
    pub(super) heard: Now,
    pub(super) cost: u64,
    /// How it stands in the lists of the tree.
    pub(super) spare: Option<u64>,
    pub(super) rank: Option<(u32, u64)>,
}

impl Place {
    /// How far it can be told from others by what it can send: those who can send much more go above it.
    fn class(&self) -> u32 {
        if self.slots == 0 { 0 } else { self.slots.ilog2() + 1 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.children.len() >= self.slots as usize
    }

    /// Whether it keeps what was on, from its first page on.
    pub(super) fn holds(&self) -> bool {
        self.root || !self.late && self.ready && self.high > self.start
    }

    /// Whether it has something to send on.
    pub(super) fn has(&self) -> bool {
        self.root || self.holds() && (self.run.is_some() || self.moving.is_some())
    }
}

/// All places.
#[derive(Debug, Default)]
pub(super) struct Tree {
    places: BTreeMap<PeerIx, Place>,
    /// Those with room, by what a place below them costs.
    spare: BTreeSet<(u64, PeerIx)>,
    /// Those that have a host, by class and cost.
    ranks: BTreeSet<(u32, u64, PeerIx)>,
}

impl Tree {
    pub(super) fn get(&self, peer: PeerIx) -> Option<&Place> {
        self.places.get(&peer)
    }

    pub(super) fn get_mut(&mut self, peer: PeerIx) -> Option<&mut Place> {
        self.places.get_mut(&peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerIx, &Place)> {
        self.places.iter().map(|(peer, place)| (*peer, place))
    }

    pub(super) fn host(&self, peer: PeerIx) -> Option<PeerIx> {
        self.places.get(&peer)?.host
    }

    pub(super) fn insert(&mut self, peer: PeerIx, place: Place) {
        self.remove(peer);
        let children = self.places.iter().filter(|(_, p)| p.host == Some(peer)).map(|(ix, _)| *ix);
        let children = children.collect();
        self.places.insert(peer, Place { children, ..place });
        self.list(peer);
    }

    /// Those below it stay below it by name, in case it comes back.
    pub(super) fn remove(&mut self, peer: PeerIx) {
        self.displaces_nobody(peer);
        self.set_host(peer, None);
        self.set_moving(peer, None);
        self.unlist(peer);
        self.places.remove(&peer);
    }

    /// A member takes nobody's place after all.
    pub(super) fn displaces_nobody(&mut self, peer: PeerIx) {
        let weak = self.places.get_mut(&peer).and_then(|p| p.displaces.take());
        if let Some(w) = weak.and_then(|w| self.places.get_mut(&w)).filter(|w| w.yields == Some(peer)) {
            w.yields = None;
        }
    }

    fn unlist(&mut self, peer: PeerIx) {
        let Some(p) = self.places.get_mut(&peer) else { return };
        if let Some(cost) = p.spare.take() {
            self.spare.remove(&(cost, peer));
        }
        if let Some((class, cost)) = p.rank.take() {
            self.ranks.remove(&(class, cost, peer));
        }
    }

    /// Notes anew how it stands, after anything about it changed.
    pub(super) fn list(&mut self, peer: PeerIx) {
        self.unlist(peer);
        let Some(p) = self.places.get_mut(&peer) else { return };
        if !p.is_full() && p.has() {
            let cost = p.cost + HOP + p.takes * (p.children.len() as u64 + 1);
            p.spare = Some(cost);
            self.spare.insert((cost, peer));
        }
        if p.host.is_some() {
            p.rank = Some((p.class(), p.cost));
            self.ranks.insert((p.class(), p.cost, peer));
        }
    }

    fn drop_child(&mut self, host: PeerIx, child: PeerIx) {
        let still = self
            .places
            .get(&child)
            .is_some_and(|p| p.host == Some(host) || p.moving.is_some_and(|(_, h)| h == host));
        if !still && let Some(h) = self.places.get_mut(&host) {
            h.children.remove(&child);
            self.list(host);
        }
    }

    pub(super) fn set_host(&mut self, peer: PeerIx, host: Option<PeerIx>) {
        let Some(place) = self.places.get_mut(&peer) else { return };
        let before = std::mem::replace(&mut place.host, host);
        if before == host {
            return;
        }
        if let Some(h) = before {
            self.drop_child(h, peer);
        }
        if let Some(h) = host.and_then(|h| self.places.get_mut(&h)) {
            h.children.insert(peer);
        }
        host.into_iter().for_each(|h| self.list(h));
        self.weigh(peer, 0);
    }

    pub(super) fn set_moving(&mut self, peer: PeerIx, moving: Option<(u64, PeerIx)>) {
        let Some(place) = self.places.get_mut(&peer) else { return };
        if let Some((_, host)) = std::mem::replace(&mut place.moving, moving) {
            self.drop_child(host, peer);
        }
        if let Some(h) = moving.and_then(|(_, h)| self.places.get_mut(&h)) {
            h.children.insert(peer);
        }
        moving.into_iter().for_each(|(_, h)| self.list(h));
    }

    /// The newer order of a member replaces the older one.
    pub(super) fn moved(&mut self, peer: PeerIx) {
        let Some(place) = self.places.get_mut(&peer) else { return };
        if let Some((run, host)) = place.moving.take() {
            place.run = Some(run);
            self.set_host(peer, Some(host));
        }
    }

    /// What places cost from this one on down.
    fn weigh(&mut self, peer: PeerIx, depth: u32) {
        let Some(p) = self.places.get(&peer) else { return };
        // Who lost its host will have one as good again.
        let cost = p
            .host
            .and_then(|h| self.places.get(&h))
            .map_or(p.cost, |h| h.cost + HOP + h.takes * (h.children.range(..peer).count() as u64 + 1));
        let below: Vec<_> = p.children.iter().copied().collect();
        if let Some(p) = self.places.get_mut(&peer) {
            p.cost = cost;
        }
        self.list(peer);
        if depth < DEEPEST {
            for child in below {
                if self.host(child) == Some(peer) {
                    self.weigh(child, depth + 1);
                }
            }
        }
    }

    /// Hosts between a member and the source.
    pub(super) fn depth(&self, peer: PeerIx) -> u32 {
        let mut at = peer;
        for depth in 0..DEEPEST {
            match self.host(at) {
                Some(host) => at = host,
                None => return depth,
            }
        }
        DEEPEST
    }

    /// Whether a member, or one by way of whom everything comes to it, waits for a host.
    pub(super) fn is_stranded(&self, peer: PeerIx) -> bool {
        let mut at = peer;
        for _ in 0..DEEPEST {
            let Some(p) = self.places.get(&at) else { return false };
            match p.moving.map(|(_, h)| h).or(p.host) {
                Some(host) => at = host,
                None => return !p.root && p.run.is_none(),
            }
        }
        true
    }

    pub(super) fn is_below(&self, peer: PeerIx, above: PeerIx) -> bool {
        let mut at = peer;
        for _ in 0..DEEPEST {
            if at == above {
                return true;
            }
            // Where it goes counts as where it is.
            match self.places.get(&at).and_then(|p| p.moving.map(|(_, h)| h).or(p.host)) {
                Some(host) => at = host,
                None => return false,
            }
        }
        true
    }

    /// Hosts with room, the cheapest place first.
    pub(super) fn spare(&self) -> impl Iterator<Item = PeerIx> {
        self.spare.iter().map(|(_, peer)| *peer)
    }

    /// Who stands nearest to the source of those that can send much less than `peer`, and nobody else is to replace.
    pub(super) fn weaker(&self, peer: PeerIx) -> Option<PeerIx> {
        let class = self.places.get(&peer)?.class();
        let first = |class: u32| {
            let mut of = self.ranks.range((class, 0, PeerIx(0))..(class + 1, 0, PeerIx(0)));
            of.find(|(_, _, w)| {
                self.places.get(w).is_some_and(|p| p.yields.is_none() && p.moving.is_none() && !p.late)
                    && *w != peer
            })
        };
        (0..class).filter_map(first).min_by_key(|(_, cost, _)| *cost).map(|(_, _, w)| *w)
    }

    /// Who would gain most by the place of somebody weaker, and whose.
    pub(super) fn to_promote(&self, tried: &BTreeSet<PeerIx>) -> Option<(PeerIx, PeerIx)> {
        let mut at = self.ranks.last()?.0;
        while at > 0 {
            let of = self.ranks.range((at, 0, PeerIx(0))..(at + 1, 0, PeerIx(0))).rev();
            let still = |p: &Place| p.moving.is_none() && p.displaces.is_none() && p.has();
            let deep =
                of.take(64).find(|(_, _, x)| !tried.contains(x) && self.places.get(x).is_some_and(still));
            if let Some((_, cost, deep)) = deep
                && let Some(weak) = self.weaker(*deep)
                && let Some(w) = self.places.get(&weak)
                && w.cost + HOP < *cost
            {
                return Some((*deep, weak));
            }
            at -= 1;
        }
        None
    }

    /// Hosts with more receivers than they should have.
    pub(super) fn overfull(&self) -> Vec<PeerIx> {
        let leaves = |host: PeerIx, child: &PeerIx| {
            let child = self.places.get(child);
            child.is_none_or(|c| c.yields.is_some() || c.moving.is_some_and(|(_, h)| h != host))
        };
        let over = |(ix, p): (PeerIx, &Place)| {
            p.children.len() > p.slots as usize + p.children.iter().filter(|c| leaves(ix, c)).count()
        };
        self.places.iter().filter(|(ix, p)| over((**ix, p))).map(|(ix, _)| *ix).collect()
    }
}
