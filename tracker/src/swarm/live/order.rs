//! Orders of live media: from whom each member gets everything, and who stands in.

use std::collections::BTreeSet;
use std::time::Duration;

use icet::message::{Assignment, Intent, Need, Shortage};
use icet::{Now, PageNo, PageRanges, PageSet};

use super::super::ConnId;
use super::super::board::{Board, LEAST_TRUST, MediaIx, PeerIx, Tried};
use super::super::learn::ProtoIx;
use super::super::peer::Presence;
use super::super::reach;
use super::{
    Begin, CANDIDATES, HEARD, LAPSE_MS, LIFE_MS, LOOKED_AT, Live, LiveRun, PATIENCE, RATE, STAND_INS,
    USEFUL_MS,
};

/// A host, and over what.
type Way = (PeerIx, ProtoIx);

impl Board {
    /// The best protocol over which `host` can send live pages to `receiver`, of those that `may`.
    fn live_way_if(
        &self,
        now: Now,
        host: PeerIx,
        receiver: PeerIx,
        may: impl Fn(ProtoIx) -> bool,
    ) -> Option<ProtoIx> {
        let (h, r) = (self.peers.get(&host)?, self.peers.get(&receiver)?);
        let ways = self.ways(now, host, receiver, Need::Steady, 1 << 16);
        let can = |proto| {
            let offers = h.offered(proto).into_iter().chain(r.offered(proto));
            offers.filter(|o| o.offer.abilities.carries_live()).count() == 2 && may(proto)
        };
        let best = ways.into_iter().filter(|(_, way)| can(way.proto)).max_by(|a, b| a.0.total_cmp(&b.0));
        best.map(|(_, way)| way.proto)
    }

    /// The best that has not failed just now.
    fn live_way(&self, now: Now, host: PeerIx, receiver: PeerIx) -> Option<ProtoIx> {
        let r = self.peers.get(&receiver)?;
        self.live_way_if(now, host, receiver, |proto| !r.avoids(host, proto, now))
    }

    /// Over what a member can get everything from `start` on from another one, if it can.
    pub(super) fn live_good(
        &self,
        now: Now,
        ix: MediaIx,
        host: PeerIx,
        receiver: PeerIx,
        start: PageNo,
    ) -> Option<ProtoIx> {
        let media = self.media.get(&ix)?;
        let live = media.live.as_deref()?;
        let (place, p) = (live.tree.get(host)?, self.peers.get(&host)?);
        let after_setup = live.head.as_ref().map_or(0, |h| h.after_setup());
        // What is far back not everybody keeps.
        let late = live.tree.get(receiver).is_some_and(|p| p.late);
        let kept = if late { live.oldest(place) <= start } else { place.root || place.start <= start };
        // It may wait for the source itself: that changes nothing of what was on.
        let has = if late { place.holds() && place.high > start } else { place.has() };
        let good = host != receiver
            && kept
            && (place.root || has && (late || place.high >= after_setup))
            && (place.root || !live.goes_on(now) || now.since(live.heard(place)) < HEARD)
            && (late || !live.tree.is_stranded(host))
            && p.conn.is_some()
            && p.servable
            && p.trust(now) >= LEAST_TRUST
            && self.gives(ix, p)
            && media.members.get(&host).is_some_and(|m| !m.distrusted)
            && media.members.get(&receiver).is_some_and(|m| !m.avoids(host, now))
            && !live.tree.is_below(host, receiver);
        if good { self.live_way(now, host, receiver) } else { None }
    }

    /// Hosts with room for a receiver that wants everything from `start` on: the best, and those who are to stand in for it.
    fn live_hosts(
        &self,
        now: Now,
        ix: MediaIx,
        receiver: PeerIx,
        start: PageNo,
        host: Option<Way>,
    ) -> Option<(Way, Vec<Way>)> {
        let live = self.live(ix)?;
        let ip = self.peers.get(&receiver)?.ip();
        // Who is behind waits for nobody's newest page: the source has the others for that.
        let late = live.tree.get(receiver).is_some_and(|p| p.late);
        let root = |h: PeerIx| live.tree.get(h).is_some_and(|p| p.root);
        let spare = live.tree.spare().take(CANDIDATES.0).filter(|h| !late || !root(*h));
        let roots = live.tree.spare().filter(|h| late && root(*h));
        let waiting = live.tree.iter().filter(|(_, p)| late && p.holds() && !p.has() && !p.is_full());
        let mut found: Vec<Way> = spare
            .chain(roots)
            .chain(waiting.map(|(h, _)| h))
            .filter_map(|h| Some((h, self.live_good(now, ix, h, receiver, start)?)))
            .take(CANDIDATES.1 + STAND_INS)
            .collect();
        // Of those that are about as good, one of the same machine or network.
        let near = |h: PeerIx| self.peers.get(&h).is_some_and(|p| reach::near(p.ip(), ip));
        let nearest = found.iter().take(CANDIDATES.1).position(|(h, _)| near(*h) && !(late && root(*h)));
        let nearest = nearest.unwrap_or(0);
        let host = match host {
            Some(host) => host,
            None if found.is_empty() => return None,
            None => found.remove(nearest),
        };
        // What is below the host falls silent with it; the source has enough to do.
        let last = |h: PeerIx| (live.tree.is_below(h, host.0), live.tree.get(h).is_some_and(|p| p.root));
        found.retain(|(h, _)| *h != host.0);
        found.sort_by_key(|(h, _)| last(*h));
        if found.first().is_none_or(|(h, _)| live.tree.is_below(*h, host.0)) {
            // One of those that have this host goes to its host if it is lost, the others to that one: no stampede.
            let eldest = live.tree.get(host.0).and_then(|p| p.children.first()).copied();
            let kin = eldest.filter(|e| *e != receiver && live.tree.host(*e) == Some(host.0));
            let kin = kin.or_else(|| live.tree.host(host.0));
            let way = kin.and_then(|k| Some((k, self.live_good(now, ix, k, receiver, start)?)));
            if let Some(way) = way {
                found.retain(|(h, _)| *h != way.0);
                found.insert(0, way);
            }
        }
        found.truncate(STAND_INS);
        Some((host, found))
    }

    /// Orders everything from now on for a member that has no order, or lets it wait.
    pub(super) fn live_place(&mut self, now: Now, ix: MediaIx, peer: PeerIx) {
        let Some(member) = self.member(ix, peer) else { return };
        let shares =
            member.intent == Intent::Share || self.media.get(&ix).is_some_and(|m| m.is_publisher(peer));
        let Some(conn) = self.peers.get(&peer).and_then(|p| p.conn) else { return };
        self.live_weigh(now, ix, peer);
        let Some(live) = self.live_mut(ix) else { return };
        live.waiting.remove(&peer);
        let Some(place) = live.tree.get(peer).filter(|p| !shares && p.run.is_none()) else { return };
        let late = place.late;
        let Some(start) = live.begin(now, peer).filter(|_| live.head.is_some()) else {
            live.waiting.insert(peer);
            return;
        };
        let found = self.live_hosts(now, ix, peer, start, None);
        let placed = match found {
            Some((host, _)) => self.live_order(now, ix, peer, host),
            None => {
                let weak = self.live(ix).and_then(|l| l.tree.weaker(peer)).filter(|_| !late);
                weak.is_some_and(|weak| self.live_displace(now, ix, peer, weak))
            }
        };
        if !placed {
            let Some(live) = self.live_mut(ix) else { return };
            live.waiting.insert(peer);
            let roots: Vec<_> = live.tree.iter().filter(|(_, p)| p.root).map(|(ix, _)| ix).collect();
            roots.into_iter().for_each(|root| self.live_weigh(now, ix, root));
            // While somebody waits the source has a place more.
            if let Some((host, _)) = self.live_hosts(now, ix, peer, start, None)
                && self.live_order(now, ix, peer, host)
            {
                self.live_mut(ix).into_iter().for_each(|l| {
                    l.waiting.remove(&peer);
                });
                return;
            }
            self.live_short(now, ix, peer, conn);
        }
    }

    /// While the source is silent so is everybody: a member that gave up stays where something came from last, so that all is as it was
    /// when the source goes on. Whether it does.
    pub(super) fn live_stay(&mut self, now: Now, ix: MediaIx, peer: PeerIx, host: Way) -> bool {
        let there = self.peers.get(&host.0).is_some_and(|p| p.conn.is_some() && p.presence != Presence::Away);
        let stays = self
            .live(ix)
            .is_some_and(|l| l.pauses(now) && l.tree.get(host.0).is_some() && !l.tree.is_below(host.0, peer));
        there && stays && self.live_order(now, ix, peer, host)
    }

    /// Orders everything from now on from a host, and the setup for a newcomer. Whether it could.
    pub(super) fn live_order(&mut self, now: Now, ix: MediaIx, peer: PeerIx, host: Way) -> bool {
        let Some(conn) = self.peers.get(&peer).and_then(|p| p.conn) else { return false };
        let Some(live) = self.live(ix) else { return false };
        let Some((head, place)) = live.head.as_ref().zip(live.tree.get(peer)) else { return false };
        let (high, late) = (place.high, place.late);
        let Some(start) = live.begin(now, peer) else { return false };
        let time = place.back.and_then(|back| live.on_ago(now, back));
        let head = live.past.head_of(start).filter(|_| late).unwrap_or(head);
        let setup = (high == 0).then(|| PageSet::range(head.link, head.after_setup().saturating_sub(1)));
        let Some((host, others)) = self.live_hosts(now, ix, peer, start, Some(host)) else { return false };
        if late && high == 0 {
            self.heads.push((conn, ix, Some(Begin { page: start, time })));
        }
        if let Some(setup) = setup {
            self.live_issue(now, ix, peer, conn, setup, Need::Urgent, host, &others);
        }
        let standing = PageSet { first: start, last: None, stripe: None };
        let Some(run) = self.live_issue(now, ix, peer, conn, standing, Need::Steady, host, &others) else {
            return false;
        };
        if let Some(live) = self.live_mut(ix) {
            if let Some(place) = live.tree.get_mut(peer) {
                (place.run, place.heard) = (Some(run), now);
                if high == 0 {
                    place.start = start;
                }
            }
            live.tree.set_host(peer, Some(host.0));
            live.tree.list(peer);
        }
        if let Some(m) = self.member_mut(ix, peer) {
            (m.fed, m.told) = (now, None);
        }
        true
    }

    /// Orders the same once more from another host (the best, if none is named): the older order ends when something came of the
    /// newer one. Whether it could.
    pub(super) fn live_move(&mut self, now: Now, ix: MediaIx, peer: PeerIx, to: Option<Way>) -> bool {
        let Some(conn) = self.peers.get(&peer).and_then(|p| p.conn) else { return false };
        let Some(place) = self.live(ix).and_then(|l| l.tree.get(peer)) else { return false };
        if place.run.is_none() || place.moving.is_some() || place.high == 0 {
            return false;
        }
        let (start, old) = (place.high, place.host.filter(|_| to.is_none()));
        let Some((host, others)) = self.live_hosts(now, ix, peer, start, to) else { return false };
        let renews = to.is_some_and(|(to, _)| self.live(ix).and_then(|l| l.tree.host(peer)) == Some(to));
        if Some(host.0) == old || renews && others.is_empty() {
            return false;
        }
        let standing = PageSet { first: start, last: None, stripe: None };
        let Some(run) = self.live_issue(now, ix, peer, conn, standing, Need::Steady, host, &others) else {
            return false;
        };
        if let Some(live) = self.live_mut(ix) {
            live.tree.set_moving(peer, Some((run, host.0)));
        }
        true
    }

    /// Orders the setup pages once more for who was ordered them in vain.
    pub(super) fn live_bare(&mut self, now: Now, ix: MediaIx, peer: PeerIx) {
        let Some(conn) = self.peers.get(&peer).and_then(|p| p.conn) else { return };
        let Some(live) = self.live_mut(ix) else { return };
        let Some(place) = live.tree.get_mut(peer) else { return };
        place.bare = false;
        let (start, late) = (place.start, place.late);
        let Some(head) = &live.head else { return };
        let head = live.past.head_of(start).filter(|_| late).unwrap_or(head);
        let setup = PageSet::range(head.link, head.after_setup().saturating_sub(1));
        if let Some((host, others)) = self.live_hosts(now, ix, peer, start, None) {
            self.live_issue(now, ix, peer, conn, setup, Need::Urgent, host, &others);
        } else if let Some(place) = self.live_mut(ix).and_then(|l| l.tree.get_mut(peer)) {
            place.bare = true;
        }
    }

    /// Orders what a host passed by, as somebody waits for it, from others that have it.
    pub(super) fn live_fill(&mut self, now: Now, ix: MediaIx, peer: PeerIx, lacks: &PageRanges) {
        let Some(conn) = self.peers.get(&peer).and_then(|p| p.conn) else { return };
        let runs: Vec<_> = lacks.runs().collect();
        for (first, last) in runs {
            let Some(live) = self.live(ix) else { return };
            let host = live.tree.host(peer);
            let has = |h: &PeerIx| {
                Some(*h) != host && live.tree.get(*h).is_some_and(|p| p.high > last && p.start <= first)
            };
            let roots = live.tree.iter().filter(|(_, p)| p.root).map(|(root, _)| root);
            let above = host.and_then(|h| live.tree.host(h));
            let mut ways = live
                .tree
                .spare()
                .take(CANDIDATES.0)
                .chain(above)
                .chain(roots)
                .filter(has)
                .filter_map(|h| Some((h, self.live_good(now, ix, h, peer, first)?)))
                .take(1 + STAND_INS)
                .collect::<Vec<_>>()
                .into_iter();
            let Some(way) = ways.next() else { continue };
            let others: Vec<_> = ways.filter(|(h, _)| *h != way.0).collect();
            self.live_issue(now, ix, peer, conn, PageSet::range(first, last), Need::Urgent, way, &others);
        }
    }

    /// Says why a member gets nothing, once.
    fn live_short(&mut self, now: Now, ix: MediaIx, peer: PeerIx, conn: ConnId) {
        let Some(live) = self.live(ix) else { return };
        let others: Vec<_> =
            live.tree.iter().map(|(p, _)| p).filter(|p| *p != peer).take(LOOKED_AT).collect();
        let (mut unshared, mut unreachable, mut failed, mut unwilling, mut silent) = (0, 0, 0, 0, 0);
        let mut names = BTreeSet::new();
        let member = self.media.get(&ix).and_then(|m| m.members.get(&peer));
        let avoids = |other: PeerIx| member.is_some_and(|m| m.avoids(other, now));
        for other in &others {
            let (Some(h), Some(r)) = (self.peers.get(other), self.peers.get(&peer)) else { continue };
            let served = || h.offers.iter().filter(|o| o.offer.serves && o.offer.abilities.carries_live());
            if served().all(|o| r.offered(o.proto).is_none_or(|o| !o.offer.abilities.carries_live())) {
                unshared += 1;
                names.extend(served().map(|o| o.offer.name.clone()));
            } else if !h.gives_to(r) || !self.gives(ix, h) {
                unwilling += 1;
            } else if h.is_silent(now, peer) {
                silent += 1;
            } else if self.live_way_if(now, *other, peer, |_| true).is_none() {
                unreachable += 1;
            } else if self.live_way(now, *other, peer).is_none() || avoids(*other) {
                failed += 1;
            }
        }
        let Some(media) = self.media.get_mut(&ix) else { return };
        let shortage = Shortage {
            media: media.id,
            hosts: u32::try_from(others.len()).unwrap_or(u32::MAX),
            unshared,
            unreachable,
            failed,
            unwilling: Some(unwilling).filter(|n| *n > 0),
            silent: Some(silent).filter(|n| *n > 0),
            protocols: names.into_iter().take(icet::limits::OFFERS).collect(),
        };
        let Some(m) = media.members.get_mut(&peer) else { return };
        if m.told.as_ref() != Some(&shortage) {
            m.told = Some(shortage.clone());
            self.shortages.entry(conn).or_default().push(shortage);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn live_issue(
        &mut self,
        now: Now,
        ix: MediaIx,
        receiver: PeerIx,
        conn: ConnId,
        pages: PageSet,
        need: Need,
        host: Way,
        others: &[Way],
    ) -> Option<u64> {
        let rate = self.live(ix)?.rate().saturating_mul(RATE.0).max(RATE.1);
        let id = self.next_run();
        let ways: Vec<_> = std::iter::once(host).chain(others.iter().copied()).collect();
        let mut sources = Vec::new();
        let mut hosts = Vec::new();
        for (peer, proto) in ways {
            let made = self.source_of(now, id, ix, receiver, (peer, proto), pages, need, Some(rate), LIFE_MS);
            if let Some(source) = made {
                let key = source.host.key;
                hosts.push(Tried { peer, key, proto, served: 0, credited: 0, reported: false });
                sources.push(source);
            }
        }
        let mut sources = sources.into_iter();
        let source = sources.next()?;
        let link = self.live(ix).and_then(|l| l.past.head_of(pages.first));
        let fills = link.is_none_or(|h| pages.first >= h.after_setup());
        let deadline = if pages.last.is_some() {
            fills.then_some(USEFUL_MS)
        } else {
            Some({
                let live = self.live(ix);
                let silence =
                    PATIENCE.1.max(Duration::from_millis(PATIENCE.0 * live.map_or(0, Live::page_ms)));
                let above = live.map_or(0, |l| l.tree.depth(host.0));
                u32::try_from((silence + PATIENCE.2 * above).as_millis()).unwrap_or(u32::MAX)
            })
        };
        let media = self.media.get(&ix)?.id;
        self.totals.assigned += 1;
        let run = LiveRun {
            media: ix,
            receiver,
            first: pages.first,
            hosts,
            with: 0,
            fed: 0,
            acked: 0,
            made: now,
            steady: pages.last.is_none(),
            setup: pages.last.is_some() && !fills,
            ended: false,
            lacked: 0,
        };
        self.live_runs.insert(id, run);
        self.assign.entry(conn).or_default().push(Assignment {
            id,
            media,
            pages,
            need,
            source,
            stand_ins: sources.collect(),
            deadline,
            lapse: LAPSE_MS,
        });
        Some(id)
    }
}
