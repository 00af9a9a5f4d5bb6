//! Live media: the last heads, and who sends whom everything from one page on. Each receiver has one standing order at a time; hosts take
//! a few receivers each, so that a tree comes of it. What a host or a session that is gone brought goes on by stand-ins; who
//! falls behind is placed anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use icet::live::SignedHead;
use icet::message::{Assignment, ErrorCode, Head, Intent, Need, Outcome, Report, Shortage};
use icet::{Now, PageNo, PageRanges, PageSet};

use super::board::{Board, LEAST_TRUST, MediaIx, PeerIx, Timer, Tried};
use super::learn::ProtoIx;
use super::progress::newly_due;
use super::publish::Gone;
use super::schedule::Event;
use super::session::{Refused, refuse};
use super::{ConnId, Swarm};

/// Heads that are remembered, about one a second.
const MARKS: usize = 64;
/// A newcomer begins so far back: what a player should hold before it begins.
const BACK: Duration = Duration::from_millis(super::join::BUFFER_MS as u64);
/// How often who waits is looked at, and who fell behind.
const LOOK: Duration = Duration::from_secs(1);
/// Who acknowledged nothing for so long, while the broadcast went on, is placed anew.
const BEHIND: Duration = Duration::from_secs(10);
/// While no head came for so long, nobody is blamed for anything.
const STILL: Duration = Duration::from_secs(3);
/// How long a receiver is not sent again to a host that failed it.
const AVOID: Duration = Duration::from_secs(10);
/// Most receivers of one host, and of one whose upload is not known.
const SLOTS: u32 = 4;
/// Stand-ins of an order.
const STAND_INS: usize = 2;
/// A ticket is good for so long, and for so many times the rate of the media, in bytes a second at least.
const LIFE_MS: u64 = 12 * 3600 * 1000;
const RATE: (u64, u64) = (4, 256 << 10);
/// Bytes a second of a media whose rate is not known yet.
const UNKNOWN_RATE: u64 = 32 << 10;
/// What comes of an order is waited for so long.
const LAPSE_MS: u32 = 15_000;
/// Orders that ended are remembered for hosts' reports.
const REMEMBER: Duration = Duration::from_secs(30);
/// Hosts that are looked at to say why a member gets nothing.
const LOOKED_AT: usize = 64;
/// A tree is never so deep.
const DEEPEST: u32 = 64;

/// What a head said, and when it came.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Now,
    next: PageNo,
    offset: u64,
    key: PageNo,
}

/// Where a member stands in the tree.
#[derive(Debug, Default)]
struct Place {
    /// Its standing order.
    run: Option<u64>,
    /// Who carries it out.
    host: Option<PeerIx>,
    /// How many have it for their host.
    children: u32,
    /// Its first page, and the one behind the last that it said it has; 0 before it said so.
    start: PageNo,
    high: PageNo,
    heard: Now,
}

/// What is live about a media.
#[derive(Debug, Default)]
pub(crate) struct Live {
    head: Option<SignedHead>,
    marks: VecDeque<Mark>,
    /// When a page last came.
    moved: Option<Now>,
    places: BTreeMap<PeerIx, Place>,
    waiting: BTreeSet<PeerIx>,
    /// When it was last looked at.
    ticked: Option<Now>,
    /// When a head last came, or somebody got a page.
    alive: Option<Now>,
}

/// A standing order, or that for setup pages.
#[derive(Debug)]
pub(crate) struct LiveRun {
    media: MediaIx,
    receiver: PeerIx,
    hosts: Vec<Tried>,
    with: usize,
    acked: u64,
    made: Now,
    steady: bool,
    ended: bool,
    /// Hosts that said that they do not have the pages.
    lacked: usize,
}

impl Live {
    /// Bytes a second, as heads tell.
    fn rate(&self) -> u64 {
        let (Some(a), Some(b)) = (self.marks.front(), self.marks.back()) else { return UNKNOWN_RATE };
        let ms = u64::try_from(b.at.since(a.at).as_millis()).unwrap_or(u64::MAX);
        let bytes = b.offset.saturating_sub(a.offset);
        if ms < 2000 { UNKNOWN_RATE } else { (bytes.saturating_mul(1000) / ms).max(1) }
    }

    /// About how many bytes lie before `page`.
    fn offset(&self, page: PageNo) -> u64 {
        let part = |of: u64, n: u64, all: u64| {
            u64::try_from(u128::from(of) * u128::from(n) / u128::from(all.max(1))).unwrap_or(u64::MAX)
        };
        let i = self.marks.partition_point(|m| m.next <= page);
        let before = i.checked_sub(1).and_then(|i| self.marks.get(i));
        match (before, self.marks.get(i)) {
            (Some(a), Some(b)) => {
                let (bytes, pages) = (b.offset.saturating_sub(a.offset), b.next.saturating_sub(a.next));
                a.offset.saturating_add(part(bytes, page.saturating_sub(a.next), pages))
            }
            (None, Some(b)) => part(b.offset, page, b.next),
            (a, None) => a.map_or(0, |a| a.offset),
        }
    }

    /// Where a newcomer begins: some seconds back, where decoding can begin, behind the setup of the current link.
    fn start(&self, now: Now) -> Option<PageNo> {
        let head = self.head.as_ref()?;
        let old = self.marks.iter().rev().find(|m| now.since(m.at) >= BACK).or(self.marks.front());
        Some(old.map_or(head.key, |m| m.key).max(head.after_setup()))
    }

    fn depth(&self, peer: PeerIx) -> u32 {
        let mut at = peer;
        for depth in 0..DEEPEST {
            match self.places.get(&at).and_then(|p| p.host) {
                Some(host) => at = host,
                None => return depth,
            }
        }
        DEEPEST
    }

    fn is_below(&self, peer: PeerIx, above: PeerIx) -> bool {
        let mut at = peer;
        for _ in 0..DEEPEST {
            if at == above {
                return true;
            }
            match self.places.get(&at).and_then(|p| p.host) {
                Some(host) => at = host,
                None => return false,
            }
        }
        true
    }

    fn set_host(&mut self, peer: PeerIx, host: Option<PeerIx>) {
        let Some(place) = self.places.get_mut(&peer) else { return };
        let before = std::mem::replace(&mut place.host, host);
        if let Some(p) = before.and_then(|h| self.places.get_mut(&h)) {
            p.children = p.children.saturating_sub(1);
        }
        if let Some(p) = host.and_then(|h| self.places.get_mut(&h)) {
            p.children += 1;
        }
    }

    fn goes_on(&self, now: Now) -> bool {
        self.moved.is_some_and(|m| now.since(m) < STILL)
    }
}

impl Swarm {
    /// A publisher says how far its broadcast is.
    pub(crate) fn head(&mut self, now: Now, peer: PeerIx, m: Head) -> Result<(), Refused> {
        let ix = self.find_media(&m.media)?;
        let Some(media) = self.board.media.get_mut(&ix) else { return Ok(()) };
        if !media.is_publisher(peer) {
            return Err(refuse(ErrorCode::FORBIDDEN, "only a media's own publisher says how far it is"));
        }
        let Some(live) = &mut media.live else {
            return Err(refuse(ErrorCode::BAD_MESSAGE, "this media is a file"));
        };
        let head = SignedHead::verify(m.head, media.manifest.manifest())
            .map_err(|e| refuse(ErrorCode::FORGED, e.to_string()))?;
        let before = live.head.as_ref().map(|h| (h.next, h.offset));
        if before.is_some_and(|(next, offset)| head.next < next || head.offset < offset) {
            return Ok(());
        }
        let before = before.map(|(next, _)| next);
        if before != Some(head.next) {
            live.moved = Some(now);
            live.marks.push_back(Mark { at: now, next: head.next, offset: head.offset, key: head.key });
            if live.marks.len() > MARKS {
                live.marks.pop_front();
            }
        }
        (live.head, live.alive) = (Some(head), Some(now));
        if let Some(p) = live.places.get_mut(&peer) {
            (p.high, p.heard) = (live.head.as_ref().map_or(0, |h| h.next), now);
        }
        if before.is_none() {
            // Who came before there was anything to hear.
            let waiting: Vec<_> = live.waiting.iter().copied().collect();
            for peer in waiting {
                let conn = self.board.peers.get(&peer).and_then(|p| p.conn);
                conn.into_iter().for_each(|conn| self.send_head(conn, ix));
                self.board.events.push(Event::Wants { media: ix, peer });
            }
        }
        Ok(())
    }

    /// Takes a broadcast off whose broadcaster is gone for too long, and of which nobody gets anything. Says whether it did.
    pub(crate) fn off_air(&mut self, now: Now, ix: MediaIx) -> bool {
        let after = self.board.config.off_air;
        let Some(media) = self.board.media.get_mut(&ix) else { return false };
        let Some(live) = &mut media.live else { return false };
        if now.since(*live.alive.get_or_insert(now)) < after {
            return false;
        }
        let path = media.manifest.path.clone();
        self.remove_media(now, ix, &Gone::OffAir);
        if let Some(name) = self.names.get(&path) {
            let known = name.known.clone();
            self.names.put(known, None, 0);
        }
        true
    }

    /// Hands out the head of a live media.
    pub(crate) fn send_head(&mut self, conn: ConnId, ix: MediaIx) {
        let Some(media) = self.board.media.get(&ix) else { return };
        let head = media.live.as_ref().and_then(|l| l.head.as_ref()).map(|h| h.signed().clone());
        if let Some(head) = head {
            let media = media.id;
            self.send(conn, Head { media, head });
        }
    }
}

impl Board {
    fn live(&self, ix: MediaIx) -> Option<&Live> {
        self.media.get(&ix)?.live.as_deref()
    }

    fn live_mut(&mut self, ix: MediaIx) -> Option<&mut Live> {
        self.media.get_mut(&ix)?.live.as_deref_mut()
    }

    /// A media is new here: if it is live, it is looked at from now on.
    pub(crate) fn live_begin(&mut self, now: Now, ix: MediaIx) {
        if self.live(ix).is_some_and(|l| l.ticked.is_none()) {
            self.at(now + LOOK, Timer::Tick(ix));
        }
    }

    /// A host that began anew sends nothing of what it was ordered before, and what was wrong with it before says nothing of it now.
    fn live_anew(&mut self, now: Now, ix: MediaIx, host: PeerIx) {
        let Some(media) = self.media.get_mut(&ix) else { return };
        media.members.values_mut().for_each(|m| m.forgive(host));
        let members: Vec<_> = media.members.keys().copied().collect();
        for member in members {
            if let Some(p) = self.peers.get_mut(&member) {
                p.forgive(host);
            }
            let Some(live) = self.live(ix) else { return };
            if live.places.get(&member).and_then(|p| p.host) == Some(host) {
                self.live_again(now, ix, member);
            } else if live.waiting.contains(&member) {
                self.live_place(now, ix, member);
            }
        }
    }

    /// A peer became a member. `have` and `running`: what it says it has, and which orders it still carries out.
    pub(crate) fn live_join(
        &mut self,
        now: Now,
        ix: MediaIx,
        peer: PeerIx,
        have: &PageRanges,
        running: &[u64],
    ) {
        let publisher = self.media.get(&ix).is_some_and(|m| m.is_publisher(peer));
        let mine = |r: &LiveRun| r.media == ix && r.receiver == peer && r.steady && !r.ended;
        let still = running.iter().copied().find(|id| self.live_runs.get(id).is_some_and(mine));
        let host =
            still.and_then(|id| self.live_runs.get(&id)).and_then(|r| r.hosts.get(r.with)).map(|t| t.peer);
        let fresh = self.peers.get(&peer).is_some_and(|p| p.fresh);
        let Some(live) = self.live_mut(ix) else { return };
        let known = live.places.contains_key(&peer);
        let (first, end) = have.runs().last().map_or((0, 0), |(a, b)| (a, b + 1));
        let end = live.head.as_ref().map_or(0, |h| end.min(h.next));
        let high = if publisher { live.head.as_ref().map_or(0, |h| h.next) } else { end };
        let children =
            u32::try_from(live.places.values().filter(|p| p.host == Some(peer)).count()).unwrap_or(0);
        live.places.insert(peer, Place { run: still, host: None, children, start: first, high, heard: now });
        live.set_host(peer, host);
        if fresh && !known && (publisher || children > 0) {
            self.live_anew(now, ix, peer);
        }
    }

    /// A member is gone. Whom it sends to has stand-ins, and is not told anything: only its session may be gone.
    pub(crate) fn live_leave(&mut self, ix: MediaIx, peer: PeerIx) {
        let Some(live) = self.live_mut(ix) else { return };
        live.set_host(peer, None);
        live.waiting.remove(&peer);
        live.places.remove(&peer);
    }

    /// A member left of its own will: whom it sent to is placed anew at once.
    pub(crate) fn live_left(&mut self, now: Now, ix: MediaIx, peer: PeerIx) {
        let Some(live) = self.live(ix) else { return };
        let below: Vec<_> =
            live.places.iter().filter(|(_, p)| p.host == Some(peer)).map(|(ix, _)| *ix).collect();
        let gone: Vec<u64> = self
            .live_runs
            .iter()
            .filter(|(_, r)| r.media == ix && r.receiver == peer)
            .map(|(id, _)| *id)
            .collect();
        gone.into_iter().for_each(|id| self.live_end(now, id));
        for child in below {
            self.live_again(now, ix, child);
        }
    }

    /// What changed, if it is about a live media. Says whether it was.
    pub(crate) fn live_event(&mut self, now: Now, event: &Event) -> bool {
        let (ix, peer) = match event {
            Event::Joined { media, peer } | Event::Wants { media, peer } => (*media, Some(*peer)),
            Event::Got { media, .. } | Event::Room { media, .. } => (*media, None),
            Event::Tick { media } => {
                if self.live(*media).is_some() {
                    self.live_tick(now, *media);
                    return true;
                }
                return false;
            }
            Event::Ready { peer } => {
                let all: Vec<_> =
                    self.peers.get(peer).map(|p| p.media.iter().copied().collect()).unwrap_or_default();
                for ix in all {
                    let waiting: Vec<_> =
                        self.live(ix).map(|l| l.waiting.iter().copied().collect()).unwrap_or_default();
                    waiting.into_iter().for_each(|peer| self.live_place(now, ix, peer));
                }
                return false;
            }
            Event::Slow { .. } => return false,
        };
        if self.live(ix).is_none() {
            return false;
        }
        if let Some(peer) = peer {
            self.live_place(now, ix, peer);
        }
        true
    }

    fn live_tick(&mut self, now: Now, ix: MediaIx) {
        let Some(live) = self.live_mut(ix) else { return };
        // There may be another tick of the version before.
        if live.ticked.is_some_and(|t| now.since(t) < LOOK) {
            return;
        }
        live.ticked = Some(now);
        let waiting: Vec<_> = live.waiting.iter().copied().collect();
        let goes_on = live.goes_on(now);
        let behind = |p: &Place| p.run.is_some() && now.since(p.heard) > BEHIND;
        let behind: Vec<_> =
            live.places.iter().filter(|(_, p)| goes_on && behind(p)).map(|(ix, _)| *ix).collect();
        self.at(now + LOOK, Timer::Tick(ix));
        for peer in behind {
            if let Some(host) = self.live(ix).and_then(|l| l.places.get(&peer)).and_then(|p| p.host) {
                self.avoid_for(now, ix, peer, host);
            }
            self.live_again(now, ix, peer);
        }
        for peer in waiting {
            self.live_place(now, ix, peer);
        }
    }

    fn avoid_for(&mut self, now: Now, ix: MediaIx, peer: PeerIx, host: PeerIx) {
        if let Some(m) = self.member_mut(ix, peer) {
            m.avoid(host, now, now + AVOID);
        }
    }

    /// Takes back a member's standing order, and looks for another host.
    fn live_again(&mut self, now: Now, ix: MediaIx, peer: PeerIx) {
        let run = self.live(ix).and_then(|l| l.places.get(&peer)).and_then(|p| p.run);
        if let Some(id) = run {
            let conn = self.peers.get(&peer).and_then(|p| p.conn);
            conn.into_iter().for_each(|conn| self.cancel.entry(conn).or_default().push(id));
            self.live_end(now, id);
        }
        self.live_place(now, ix, peer);
    }

    fn live_end(&mut self, now: Now, id: u64) {
        let Some(run) = self.live_runs.get_mut(&id).filter(|r| !r.ended) else { return };
        run.ended = true;
        let (ix, receiver) = (run.media, run.receiver);
        self.at(now + REMEMBER, Timer::Forget(id));
        if let Some(live) = self.live_mut(ix)
            && let Some(place) = live.places.get_mut(&receiver).filter(|p| p.run == Some(id))
        {
            place.run = None;
            live.set_host(receiver, None);
        }
    }

    /// A member fell behind what its `hosts` keep, which is nobody's fault: it begins anew, as a newcomer does.
    fn live_anew_for(&mut self, now: Now, ix: MediaIx, peer: PeerIx, hosts: &[PeerIx]) {
        if let Some(m) = self.member_mut(ix, peer) {
            hosts.iter().for_each(|host| m.forgive(*host));
        }
        let conn = self.peers.get(&peer).and_then(|p| p.conn);
        if let Some(place) = self.live_mut(ix).and_then(|l| l.places.get_mut(&peer)) {
            place.high = 0;
            self.heads.extend(conn.map(|conn| (conn, ix)));
        }
        self.live_place(now, ix, peer);
    }

    /// The protocol over which `host` can send live pages to `receiver`, the best first.
    fn live_way(&self, now: Now, host: PeerIx, receiver: PeerIx) -> Option<ProtoIx> {
        let (h, r) = (self.peers.get(&host)?, self.peers.get(&receiver)?);
        let ways = self.ways(now, host, receiver, Need::Steady, 1 << 16);
        let can = |proto| {
            let offers = h.offered(proto).into_iter().chain(r.offered(proto));
            offers.filter(|o| o.offer.abilities.carries_live()).count() == 2 && !r.avoids(host, proto, now)
        };
        let best = ways.into_iter().filter(|(_, way)| can(way.proto)).max_by(|a, b| a.0.total_cmp(&b.0));
        best.map(|(_, way)| way.proto)
    }

    /// Hosts for a receiver that wants everything from `start` on: those with a free place first, the nearest to the source first.
    fn live_hosts(
        &self,
        now: Now,
        ix: MediaIx,
        receiver: PeerIx,
        start: PageNo,
    ) -> Vec<(bool, PeerIx, ProtoIx)> {
        let Some((media, live)) = self.media.get(&ix).and_then(|m| Some((m, m.live.as_deref()?))) else {
            return Vec::new();
        };
        let after_setup = live.head.as_ref().map_or(0, |h| h.after_setup());
        let rate = live.rate();
        let mut found = Vec::new();
        for (peer, place) in &live.places {
            let Some(p) = self.peers.get(peer) else { continue };
            let publisher = media.is_publisher(*peer);
            let has =
                publisher || (place.high >= after_setup && place.high > place.start && place.start <= start);
            let fed = publisher || place.run.is_some();
            let member = media.members.get(peer);
            let good = *peer != receiver
                && has
                && fed
                && p.conn.is_some()
                && p.servable
                && p.trust(now) >= LEAST_TRUST
                && self.gives(ix, p)
                && member.is_some_and(|m| !m.distrusted)
                && media.members.get(&receiver).is_some_and(|m| !m.avoids(*peer, now))
                && !live.is_below(*peer, receiver);
            if !good {
                continue;
            }
            let slots =
                p.up.limit.map_or(SLOTS, |l| u32::try_from(l / rate.max(1)).unwrap_or(SLOTS).min(SLOTS));
            if let Some(proto) = self.live_way(now, *peer, receiver) {
                found.push((place.children >= slots, live.depth(*peer), place.children, *peer, proto));
            }
        }
        found.sort_unstable_by_key(|(full, depth, children, peer, _)| (*full, *depth, *children, *peer));
        found.into_iter().map(|(full, _, _, peer, proto)| (full, peer, proto)).collect()
    }

    /// Orders everything from now on for a member that has no order, or lets it wait.
    fn live_place(&mut self, now: Now, ix: MediaIx, peer: PeerIx) {
        let Some(member) = self.member(ix, peer) else { return };
        let shares =
            member.intent == Intent::Share || self.media.get(&ix).is_some_and(|m| m.is_publisher(peer));
        let Some(conn) = self.peers.get(&peer).and_then(|p| p.conn) else { return };
        let Some(live) = self.live_mut(ix) else { return };
        live.waiting.remove(&peer);
        let Some(place) = live.places.get(&peer).filter(|p| !shares && p.run.is_none()) else { return };
        let high = place.high;
        let (start, setup) = match (live.start(now), &live.head) {
            (Some(start), Some(head)) if high == 0 => {
                (start, Some(PageSet::range(head.link, head.after_setup().saturating_sub(1))))
            }
            (Some(_), _) => (high, None),
            _ => {
                live.waiting.insert(peer);
                return;
            }
        };
        let hosts = self.live_hosts(now, ix, peer, start);
        let Some((false, host, proto)) = hosts.first().copied() else {
            if let Some(live) = self.live_mut(ix) {
                live.waiting.insert(peer);
            }
            self.live_short(now, ix, peer, conn);
            return;
        };
        let others: Vec<_> =
            hosts.iter().filter(|h| h.1 != host).map(|h| (h.1, h.2)).take(STAND_INS).collect();
        if let Some(setup) = setup {
            self.live_issue(now, ix, peer, conn, setup, Need::Urgent, (host, proto), &others);
        }
        let standing = PageSet { first: start, last: None, stripe: None };
        let run = self.live_issue(now, ix, peer, conn, standing, Need::Steady, (host, proto), &others);
        if let Some(live) = self.live_mut(ix) {
            if let Some(place) = live.places.get_mut(&peer) {
                (place.run, place.heard) = (run, now);
                if high == 0 {
                    place.start = start;
                }
            }
            live.set_host(peer, run.map(|_| host));
        }
        if let Some(m) = self.member_mut(ix, peer) {
            (m.fed, m.told) = (now, None);
        }
    }

    /// Says why a member gets nothing, once.
    fn live_short(&mut self, now: Now, ix: MediaIx, peer: PeerIx, conn: ConnId) {
        let Some(live) = self.live(ix) else { return };
        let others: Vec<_> = live.places.keys().copied().filter(|p| *p != peer).take(LOOKED_AT).collect();
        let (mut unshared, mut unreachable, mut unwilling, mut silent) = (0, 0, 0, 0);
        let mut names = BTreeSet::new();
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
            } else if self.live_way(now, *other, peer).is_none() {
                unreachable += 1;
            }
        }
        let Some(media) = self.media.get_mut(&ix) else { return };
        let shortage = Shortage {
            media: media.id,
            hosts: u32::try_from(others.len()).unwrap_or(u32::MAX),
            unshared,
            unreachable,
            failed: 0,
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
        host: (PeerIx, ProtoIx),
        others: &[(PeerIx, ProtoIx)],
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
        let media = self.media.get(&ix)?.id;
        self.totals.assigned += 1;
        let run = LiveRun {
            media: ix,
            receiver,
            hosts,
            with: 0,
            acked: 0,
            made: now,
            steady: pages.last.is_none(),
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
            deadline: None,
            lapse: LAPSE_MS,
        });
        Some(id)
    }

    /// A member says what it has. Counted is how far its high-water mark moved.
    pub(crate) fn live_got(&mut self, now: Now, ix: MediaIx, peer: PeerIx, id: u64, pages: &PageRanges) {
        let Some(live) = self.live_mut(ix) else { return };
        let Some((next, link, after_setup)) = live.head.as_ref().map(|h| (h.next, h.link, h.after_setup()))
        else {
            return;
        };
        // A head is up to a second old; what is far ahead of it is a lie.
        let most = next.saturating_add(next - live.marks.front().map_or(next, |m| m.next)).saturating_add(64);
        let end = pages.runs().map(|(_, b)| b + 1).filter(|e| *e > after_setup || *e <= link).max();
        let Some(end) = end.map(|e| e.min(most)) else { return };
        let Some(place) = live.places.get(&peer) else { return };
        let from = place.high.max(place.start);
        let bytes = live.offset(end).saturating_sub(live.offset(from));
        let Some(place) = live.places.get_mut(&peer) else { return };
        if end > place.high && end > place.start {
            place.high = end;
        }
        place.heard = now;
        if end > from {
            live.alive = Some(now);
        }
        let Some(place) = live.places.get(&peer) else { return };
        let run = if id > 0 { Some(id) } else { place.run };
        let count = end.saturating_sub(from);
        self.totals.acked_pages += count;
        self.totals.acked_bytes += bytes;
        let by_publisher = run
            .and_then(|id| self.live_runs.get(&id))
            .and_then(|r| r.hosts.get(r.with))
            .is_some_and(|t| self.media.get(&ix).is_some_and(|m| m.is_publisher(t.peer)));
        if let Some(m) = self.media.get_mut(&ix) {
            m.delivered += bytes;
            if by_publisher {
                m.delivered_by_publisher += bytes;
                self.totals.acked_from_publisher += bytes;
            }
        }
        if let Some(id) = run
            && let Some(r) = self.live_runs.get_mut(&id).filter(|r| r.receiver == peer)
        {
            r.acked += bytes;
            self.live_credit(now, id);
        }
    }

    /// A host says that it sent something of a live order. False: it is none.
    pub(crate) fn live_served(&mut self, now: Now, peer: PeerIx, id: u64, bytes: u64) -> bool {
        let Some(run) = self.live_runs.get_mut(&id) else { return false };
        if let Some(t) = run.hosts.iter_mut().find(|t| t.peer == peer) {
            t.served = t.served.saturating_add(bytes);
            self.live_credit(now, id);
        }
        true
    }

    /// Credits what both ends said, as of files.
    fn live_credit(&mut self, now: Now, id: u64) {
        let Some(run) = self.live_runs.get_mut(&id) else { return };
        let receiver = run.receiver;
        for (host, bytes) in newly_due(&mut run.hosts, run.acked) {
            self.confirm(now, host, receiver, bytes);
        }
    }

    /// A receiver says how one host did with a live order. False: it is none.
    pub(crate) fn live_report(&mut self, now: Now, peer: PeerIx, report: &Report) -> bool {
        let Some(run) = self.live_runs.get_mut(&report.assignment) else { return false };
        let named = |t: &Tried| t.key == report.host && !t.reported;
        let Some(i) = run.hosts.iter().position(named).filter(|_| run.receiver == peer) else { return true };
        let (ix, steady, made) = (run.media, run.steady, run.made);
        let mut to = None;
        if let Some(t) = run.hosts.get_mut(i) {
            t.reported = true;
            to = Some((t.peer, t.proto));
        }
        run.lacked += usize::from(report.outcome == Outcome::Incomplete);
        let lacking: Vec<PeerIx> = run.hosts.iter().map(|t| t.peer).collect();
        let all_lack = run.lacked == lacking.len();
        let Some((host, proto)) = to else { return true };
        let goes_on = self.live(ix).is_some_and(|l| l.goes_on(now) && l.moved.is_some_and(|m| m > made));
        if report.outcome.is_failure() && goes_on {
            self.judge(now, peer, host, proto, ix, report, report.bytes);
            self.avoid_for(now, ix, peer, host);
        }
        if report.last {
            let ours = self
                .live(ix)
                .and_then(|l| l.places.get(&peer))
                .is_some_and(|p| p.run == Some(report.assignment));
            self.live_end(now, report.assignment);
            if steady && ours && self.member(ix, peer).is_some() {
                if all_lack && goes_on {
                    self.live_anew_for(now, ix, peer, &lacking);
                } else if report.outcome.is_failure() {
                    self.live_place(now, ix, peer);
                } else if let Some(live) = self.live_mut(ix) {
                    live.waiting.insert(peer);
                }
            }
            return true;
        }
        let next = self.live_runs.get_mut(&report.assignment).and_then(|r| {
            r.with = (i + 1).max(r.with);
            r.hosts.get(r.with).map(|t| t.peer)
        });
        let current = |l: &Live| l.places.get(&peer).is_some_and(|p| p.run == Some(report.assignment));
        if let Some(live) = self.live_mut(ix)
            && current(live)
        {
            live.set_host(peer, next);
        }
        true
    }
}
