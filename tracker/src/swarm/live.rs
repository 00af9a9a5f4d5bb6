//! Live media: its heads, and who sends whom everything from one page on. Each receiver has one standing order, and hosts take
//! as many receivers as their lines can feed, so that a tree comes of it. Those who can send much take the places of those who can
//! send little, and a newer order runs before the older one ends. What a host or a session that is gone brought goes on by
//! stand-ins; who falls behind is placed anew. Who wants to begin further back gets all from there on by one order, and has nothing for the
//! others until it has caught up.

mod order;
mod past;
mod shape;
mod tree;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use icet::live::SignedHead;
use icet::message::{ErrorCode, Head, Outcome, Report};
use icet::{Now, PageNo, PageRanges};

use super::board::{Board, MediaIx, PeerIx, Timer, Tried};
use super::progress::newly_due;
use super::publish::Gone;
use super::schedule::Event;
use super::session::{Refused, refuse};
use super::{ConnId, Swarm};
use past::Past;
use tree::{Place, Tree};

/// Heads that are remembered, about one a second.
const MARKS: usize = 64;
/// A newcomer begins so far back: what it hears is that old, and what a player has in hand when its host is lost.
const BACK: Duration = Duration::from_millis(1500);
/// How often who waits is looked at, and who fell behind.
const LOOK: Duration = Duration::from_secs(1);
/// Who acknowledged nothing for so long, while the broadcast went on, is placed anew.
const BEHIND: Duration = Duration::from_secs(10);
/// Who acknowledged nothing for so long, while the broadcast went on, is sent nobody else.
const HEARD: Duration = Duration::from_secs(5);
/// While no head came for so long, nobody is blamed for anything.
const STILL: Duration = Duration::from_millis(2500);
/// While none came for so long and a page, who hears nothing stays where it is: heads come each second, and after the pages they are about.
const PAUSE: Duration = Duration::from_millis(1300);
/// Who gave up in a pause may say so for so long after it: a head comes sooner than the pages that others pass on.
const AFTER: Duration = Duration::from_secs(3);
/// How long a receiver is not sent again to a host that failed it.
const AVOID: Duration = Duration::from_secs(10);
/// Of a line a third is left free: for newcomers' first seconds, for orphans, and for what else it carries.
const HEAD_ROOM: (u64, u64) = (3, 2);
/// Most receivers of one host, and of one whose upload is not known.
const SLOTS: (u32, u32) = (24, 3);
/// Receivers of the source, and most of them while nobody else has room.
const SOURCE: (u32, u32) = (2, 4);
/// Stand-ins of an order.
const STAND_INS: usize = 2;
/// Hosts with room that are looked at for a receiver, and those of them that are compared.
const CANDIDATES: (usize, usize) = (256, 4);
/// A host may be silent for so many pages, and no less than this, before a stand-in is turned to; longer by so much for each host above
/// it, since what one of those lost comes by the time its own receivers have turned to theirs.
const PATIENCE: (u64, Duration, Duration) = (3, Duration::from_millis(600), Duration::from_millis(150));
/// Each member's stand-ins are looked at once in so many looks.
const RENEWED: u64 = 4;
/// Members that go to a better place in one look, and one more of so many.
const PROMOTED: (usize, usize) = (4, 64);
/// A ticket is good for so long, and for so many times the rate of the media, in bytes a second at least: what is known of that in the first
/// seconds, or from a link before, may be a hundredth of what comes.
const LIFE_MS: u64 = 12 * 3600 * 1000;
const RATE: (u64, u64) = (4, 4 << 20);
/// Bytes a second of a media whose rate is not known yet.
const UNKNOWN_RATE: u64 = 32 << 10;
/// Most pages in a row, and most rows, that are fetched from elsewhere after a host passed them by.
const LACKS: u64 = 32;
const LACKING: usize = 4;
/// Such a page is of no use later.
const USEFUL_MS: u32 = 1500;
/// What comes of an order is waited for so long.
const LAPSE_MS: u32 = 15_000;
/// Orders that ended are remembered for hosts' reports.
const REMEMBER: Duration = Duration::from_secs(30);
/// Hosts that are looked at to say why a member gets nothing.
const LOOKED_AT: usize = 64;
/// Members keep so much media time, in microseconds; the source perhaps more.
const WINDOW: i64 = 30 * 60 * 1_000_000;
/// Who is so much media time behind has nothing for the others, until it is as near as that.
const LATE: (i64, u64) = (30 * 1_000_000, 3000);
/// What a head said, and when it came.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Now,
    next: PageNo,
    offset: u64,
    key: PageNo,
}

/// What is live about a media.
#[derive(Debug, Default)]
pub(crate) struct Live {
    head: Option<SignedHead>,
    marks: VecDeque<Mark>,
    past: Past,
    /// When a page last came, and when one came after a pause.
    moved: Option<Now>,
    resumed: Option<Now>,
    tree: Tree,
    waiting: BTreeSet<PeerIx>,
    /// When it was last looked at, and how often it was.
    ticked: Option<Now>,
    looks: u64,
    /// When a head last came, or somebody got a page.
    alive: Option<Now>,
}

/// Where somebody begins that wanted to begin further back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begin {
    page: PageNo,
    /// Media time of what was on then.
    time: Option<i64>,
}

/// A standing order, or that for setup pages.
#[derive(Debug)]
pub(crate) struct LiveRun {
    media: MediaIx,
    receiver: PeerIx,
    first: PageNo,
    hosts: Vec<Tried>,
    with: usize,
    /// Who brought something last.
    fed: usize,
    acked: u64,
    made: Now,
    steady: bool,
    setup: bool,
    ended: bool,
    /// Hosts that said that they do not have the pages.
    lacked: usize,
}

impl Live {
    /// The last head.
    pub(crate) fn head(&self) -> Option<&SignedHead> {
        self.head.as_ref()
    }

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

    /// Where a newcomer begins: a little back, where decoding can begin, behind the setup of the current link.
    fn start(&self, now: Now) -> Option<PageNo> {
        let head = self.head.as_ref()?;
        let at = |m: &Mark| now.since(m.at) >= BACK;
        let old = self.marks.iter().rev().find(|m| at(m)).or(self.marks.front());
        // Where each page may be the first, it need not be one at which a head was told.
        let every = self.marks.iter().all(|m| m.key + 1 >= m.next);
        let (a, b) = (self.marks.front(), self.marks.back());
        let page = match (a, b, old) {
            (Some(a), Some(b), Some(old)) if every && b.at > a.at && at(old) => {
                let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
                let ago = ms(now.since(old.at)).saturating_sub(ms(BACK));
                let more = (b.next - a.next).saturating_mul(ago) / ms(b.at.since(a.at)).max(1);
                old.next.saturating_add(more).min(head.next).max(old.key)
            }
            (_, _, old) => old.map_or(head.key, |m| m.key),
        };
        Some(page.max(head.after_setup()))
    }

    /// Where a member's next order begins: behind what it has, or where it wants to begin.
    fn begin(&self, now: Now, peer: PeerIx) -> Option<PageNo> {
        let place = self.tree.get(peer)?;
        match place.back {
            _ if place.high > 0 => Some(place.high),
            Some(back) => self.further_back(now, back),
            None => self.start(now),
        }
    }

    /// Media time of what was on so many microseconds ago.
    fn on_ago(&self, now: Now, back: i64) -> Option<i64> {
        Some(self.past.time_at(clock(now).saturating_sub(back))?.min(self.head.as_ref()?.time))
    }

    /// The page that was on so many microseconds ago, or the oldest that somebody keeps.
    fn further_back(&self, now: Now, back: i64) -> Option<PageNo> {
        let wanted = self.past.page_at(self.on_ago(now, back)?)?;
        let has = self.tree.iter().filter(|(_, p)| p.holds()).map(|(_, p)| self.oldest(p));
        Some(self.past.behind_setup(wanted.max(has.min()?)))
    }

    /// The first page that a member should have.
    fn oldest(&self, p: &Place) -> PageNo {
        let window = || self.head.as_ref().and_then(|h| self.past.page_at(h.time.saturating_sub(WINDOW)));
        let first = if p.root { 0 } else { p.start.max(window().unwrap_or(0)) };
        first.max(p.keeps)
    }

    /// Whether a member that has all before `end` is late; none if it is neither near nor far.
    fn is_late(&self, end: PageNo) -> Option<bool> {
        let head = self.head.as_ref()?;
        let near = LATE.1 / self.page_ms().max(1) + 1;
        let far = || self.past.page_at(head.time.saturating_sub(LATE.0)).is_some_and(|p| end < p);
        if end.saturating_add(near) >= head.next { Some(false) } else { far().then_some(true) }
    }

    /// Milliseconds of a page, as heads tell.
    fn page_ms(&self) -> u64 {
        let (Some(a), Some(b)) = (self.marks.front(), self.marks.back()) else { return 0 };
        let ms = u64::try_from(b.at.since(a.at).as_millis()).unwrap_or(u64::MAX);
        ms / b.next.saturating_sub(a.next).max(1)
    }

    /// Microseconds for which a page takes a line of so many bytes a second.
    fn takes(&self, up: u64) -> u64 {
        let bytes = self.rate().saturating_mul(self.page_ms()) / 1000;
        bytes.saturating_mul(1_000_000) / up.max(1)
    }

    /// When something was heard of a member; of what it did in a pause of the source nothing can be told.
    fn heard(&self, p: &Place) -> Now {
        self.resumed.map_or(p.heard, |resumed| p.heard.max(resumed))
    }

    /// Whether the source itself may have fallen silent, or had until a moment ago.
    fn pauses(&self, now: Now) -> bool {
        self.moved.is_none_or(|m| now.since(m) >= PAUSE + Duration::from_millis(self.page_ms()))
            || self.resumed.is_some_and(|resumed| now.since(resumed) < AFTER)
    }

    fn goes_on(&self, now: Now) -> bool {
        self.moved.is_some_and(|m| now.since(m) < STILL)
    }
}

/// Microseconds that may be counted back to before the tracker began.
fn clock(now: Now) -> i64 {
    i64::try_from(now.0).unwrap_or(i64::MAX)
}

/// Pages that a member passed by: between those that it has, and behind those that it had.
fn holes(high: PageNo, got: &PageRanges) -> PageRanges {
    let (mut at, mut lacks) = (high, PageRanges::new());
    for (first, last) in got.runs() {
        if at > 0 && first > at && first - at <= LACKS && lacks.runs().len() < LACKING {
            lacks.insert(at, first - 1);
        }
        at = at.max(last + 1);
    }
    lacks
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
        // Where nothing is known yet, what was on before is told with the first head.
        if live.head.is_none() {
            let verified = |h| SignedHead::verify(h, media.manifest.manifest());
            let earlier: Result<Vec<_>, _> =
                m.earlier.unwrap_or_default().into_iter().map(verified).collect();
            for earlier in earlier.map_err(|e| refuse(ErrorCode::FORGED, e.to_string()))? {
                let ago = head.signed_at.saturating_sub(earlier.signed_at).saturating_mul(1000);
                let ago = i64::try_from(ago).unwrap_or(i64::MAX);
                live.past.note(&earlier, clock(now).saturating_sub(ago));
            }
        }
        let before = live.head.as_ref().map(|h| (h.next, h.offset));
        if before.is_some_and(|(next, offset)| head.next < next || head.offset < offset) {
            return Ok(());
        }
        let before = before.map(|(next, _)| next);
        let resumes = !live.goes_on(now) && before.is_some_and(|next| next != head.next);
        if resumes {
            live.resumed = Some(now);
        }
        if before != Some(head.next) {
            live.moved = Some(now);
            live.marks.push_back(Mark { at: now, next: head.next, offset: head.offset, key: head.key });
            if live.marks.len() > MARKS {
                live.marks.pop_front();
            }
        }
        live.past.note(&head, clock(now));
        (live.head, live.alive) = (Some(head), Some(now));
        if let Some(p) = live.tree.get_mut(peer) {
            (p.high, p.heard) = (live.head.as_ref().map_or(0, |h| h.next), now);
        }
        self.board.live_weigh(now, ix, peer);
        if resumes {
            self.board.live_seat(now, ix, usize::MAX);
        }
        let Some(live) = self.board.live_mut(ix) else { return Ok(()) };
        if before.is_none() {
            // Who came before there was anything to hear.
            let waiting: Vec<_> = live.waiting.iter().copied().collect();
            for peer in waiting {
                let conn = self.board.peers.get(&peer).and_then(|p| p.conn);
                conn.into_iter().for_each(|conn| self.send_head(conn, ix, None));
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

    /// Hands out the head of a live media, and before it one of the link in which somebody begins, if that is another.
    pub(crate) fn send_head(&mut self, conn: ConnId, ix: MediaIx, begin: Option<Begin>) {
        let Some(media) = self.board.media.get(&ix) else { return };
        let Some((live, head)) = media.live.as_ref().and_then(|l| Some((l, l.head.as_ref()?))) else {
            return;
        };
        let old = begin.and_then(|b| live.past.head_of(b.page)).filter(|old| old.link != head.link);
        let time = begin.and_then(|b| b.time);
        let heads: Vec<_> = old.into_iter().chain([head]).map(|h| h.signed().clone()).collect();
        let media = media.id;
        for head in heads {
            self.send(conn, Head { media, head, earlier: None, time });
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
            if live.tree.host(member) == Some(host) {
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
        back: Option<i64>,
    ) {
        let publisher = self.media.get(&ix).is_some_and(|m| m.is_publisher(peer));
        let mine = |r: &LiveRun| r.media == ix && r.receiver == peer && r.steady && !r.ended;
        let still = running.iter().copied().find(|id| self.live_runs.get(id).is_some_and(mine));
        let host =
            still.and_then(|id| self.live_runs.get(&id)).and_then(|r| r.hosts.get(r.with)).map(|t| t.peer);
        let fresh = self.peers.get(&peer).is_some_and(|p| p.fresh);
        let Some(live) = self.live_mut(ix) else { return };
        let known = live.tree.get(peer).is_some();
        let (first, end) = have.runs().last().map_or((0, 0), |(a, b)| (a, b + 1));
        // Who hears it has the setup, also where the head is not there yet: after a tracker's restart members may come before it.
        let ready = publisher || end > 0;
        let end = live.head.as_ref().map_or(0, |h| end.min(h.next));
        let high = if publisher { live.head.as_ref().map_or(0, |h| h.next) } else { end };
        let back = back.filter(|_| high == 0 && !publisher);
        let late = !publisher && (back.is_some() || high > 0 && live.is_late(high) == Some(true));
        let place = Place {
            ready,
            run: still,
            start: first,
            high,
            heard: now,
            root: publisher,
            back,
            late,
            ..Place::default()
        };
        live.tree.insert(peer, place);
        live.tree.set_host(peer, host);
        let children = live.tree.get(peer).map_or(0, |p| p.children.len());
        self.live_weigh(now, ix, peer);
        if fresh && !known && (publisher || children > 0) {
            self.live_anew(now, ix, peer);
        }
    }

    /// A member is gone. Whom it sends to has stand-ins, and is not told anything: only its session may be gone.
    pub(crate) fn live_leave(&mut self, ix: MediaIx, peer: PeerIx) {
        let Some(live) = self.live_mut(ix) else { return };
        live.waiting.remove(&peer);
        live.tree.remove(peer);
    }

    /// A member left of its own will: whom it sent to is placed anew at once.
    pub(crate) fn live_left(&mut self, now: Now, ix: MediaIx, peer: PeerIx) {
        let Some(live) = self.live(ix) else { return };
        let below: Vec<_> =
            live.tree.iter().filter(|(_, p)| p.host == Some(peer)).map(|(ix, _)| ix).collect();
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
                    self.live_weigh(now, ix, *peer);
                    let Some(live) = self.live(ix) else { continue };
                    let waits = live.waiting.contains(peer);
                    let room = live.tree.get(*peer).filter(|p| p.has()).map_or(0, |p| p.slots as usize);
                    if waits {
                        self.live_place(now, ix, *peer);
                    }
                    self.live_seat(now, ix, room);
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

    fn avoid_for(&mut self, now: Now, ix: MediaIx, peer: PeerIx, host: PeerIx) {
        if let Some(m) = self.member_mut(ix, peer) {
            m.avoid(host, now, now + AVOID);
        }
    }

    /// Takes back a member's standing order, and looks for another host.
    fn live_again(&mut self, now: Now, ix: MediaIx, peer: PeerIx) {
        let place = self.live(ix).and_then(|l| l.tree.get(peer));
        let runs = place.map(|p| (p.run, p.moving.map(|(run, _)| run)));
        let (run, moving) = runs.unwrap_or_default();
        for id in run.into_iter().chain(moving) {
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
        let Some(live) = self.live_mut(ix) else { return };
        let Some(place) = live.tree.get_mut(receiver) else { return };
        if place.moving.is_some_and(|(run, _)| run == id) {
            live.tree.set_moving(receiver, None);
            live.tree.displaces_nobody(receiver);
            return;
        }
        if place.run != Some(id) {
            return;
        }
        place.run = None;
        live.tree.set_host(receiver, None);
        // What is to replace it does.
        live.tree.moved(receiver);
    }

    /// A member fell behind what its `hosts` keep, which is nobody's fault: it begins anew, as a newcomer does.
    fn live_anew_for(&mut self, now: Now, ix: MediaIx, peer: PeerIx, hosts: &[PeerIx]) {
        if let Some(m) = self.member_mut(ix, peer) {
            hosts.iter().for_each(|host| m.forgive(*host));
        }
        let conn = self.peers.get(&peer).and_then(|p| p.conn);
        if let Some(live) = self.live_mut(ix)
            && let Some(place) = live.tree.get_mut(peer)
        {
            place.high = 0;
            live.tree.list(peer);
            self.heads.extend(conn.map(|conn| (conn, ix, None)));
        }
        self.live_place(now, ix, peer);
    }

    /// None of `hosts` keeps page `first` any more: one begins half as far back from now on.
    fn live_keep_less(&mut self, ix: MediaIx, hosts: &[PeerIx], first: PageNo) {
        let Some(live) = self.live_mut(ix) else { return };
        let next = live.head.as_ref().map_or(0, |h| h.next);
        for host in hosts {
            if let Some(p) = live.tree.get_mut(*host) {
                p.keeps = p.keeps.max(first + next.saturating_sub(first).div_ceil(2));
            }
        }
    }

    /// A member says what it has. Counted is how far its high-water mark moved.
    pub(crate) fn live_got(&mut self, now: Now, ix: MediaIx, peer: PeerIx, id: u64, pages: &PageRanges) {
        let Some(live) = self.live_mut(ix) else { return };
        let Some((next, link, after_setup)) = live.head.as_ref().map(|h| (h.next, h.link, h.after_setup()))
        else {
            return;
        };
        let lacks = live.tree.get(peer).map_or_else(PageRanges::new, |p| holes(p.high, pages));
        // A head is up to a second old; what is far ahead of it is a lie.
        let most = next.saturating_add(next - live.marks.front().map_or(next, |m| m.next)).saturating_add(64);
        let end = pages.runs().map(|(_, b)| b + 1).filter(|e| *e > after_setup || *e <= link).max();
        let with_setup = after_setup > 0 && pages.has(after_setup - 1);
        let Some(end) = end.map(|e| e.min(most)) else {
            if with_setup && let Some(place) = live.tree.get_mut(peer) {
                place.ready = true;
                self.live_begins(now, ix, peer);
            }
            return;
        };
        let Some(place) = live.tree.get(peer) else { return };
        let from = place.high.max(place.start);
        let bytes = live.offset(end).saturating_sub(live.offset(from));
        let late = live.is_late(end.max(live.tree.get(peer).map_or(0, |p| p.high)));
        let Some(place) = live.tree.get_mut(peer) else { return };
        let had = place.has();
        place.ready |= with_setup;
        place.late = late.unwrap_or(place.late) && !place.root;
        place.back = place.back.filter(|_| place.late);
        if end > place.high && end > place.start {
            place.high = end;
        }
        place.heard = now;
        let begins = !had && place.has();
        let run = if id > 0 { Some(id) } else { place.run };
        let moved = place.moving.filter(|(run, _)| *run == id);
        let old = place.run.filter(|_| moved.is_some());
        if end > from {
            live.alive = Some(now);
        }
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
            r.fed = r.with;
            self.live_credit(now, id);
        }
        old.into_iter().for_each(|old| self.live_end(now, old));
        self.live_fill(now, ix, peer, &lacks);
        self.live_weigh(now, ix, peer);
        if begins {
            self.live_begins(now, ix, peer);
        } else if moved.is_some() {
            self.live_displaced(now, ix, peer);
        }
    }

    /// What a member has by now, others can have of it.
    fn live_begins(&mut self, now: Now, ix: MediaIx, peer: PeerIx) {
        self.live_weigh(now, ix, peer);
        let place = self.live(ix).and_then(|l| l.tree.get(peer)).filter(|p| p.has());
        let Some(room) = place.map(|p| p.slots as usize) else { return };
        self.live_displaced(now, ix, peer);
        self.live_seat(now, ix, room);
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
        let (ix, steady, setup, made, first) = (run.media, run.steady, run.setup, run.made, run.first);
        let mut to = None;
        if let Some(t) = run.hosts.get_mut(i) {
            t.reported = true;
            to = Some((t.peer, t.proto));
        }
        let fed = run.hosts.get(run.fed).map(|t| (t.peer, t.proto));
        run.lacked += usize::from(report.outcome == Outcome::Incomplete);
        let lacking: Vec<PeerIx> = run.hosts.iter().map(|t| t.peer).collect();
        let all_lack = run.lacked == lacking.len();
        let Some((host, proto)) = to else { return true };
        let goes_on = self.live(ix).is_some_and(|l| l.goes_on(now) && l.moved.is_some_and(|m| m > made));
        // While the source is silent so are all hosts; but who is not there is not there.
        let gone = matches!(report.outcome, Outcome::Unreachable | Outcome::Refused | Outcome::Altered);
        let stalled = report.outcome == Outcome::Stalled;
        let blamed = goes_on && !(stalled && self.live(ix).is_some_and(|l| l.pauses(now)));
        if report.outcome.is_failure() && (blamed || gone) {
            self.judge(now, peer, host, proto, ix, report, report.bytes);
            self.avoid_for(now, ix, peer, host);
        }
        if report.last {
            let place = self.live(ix).and_then(|l| l.tree.get(peer));
            let ours = place.is_some_and(|p| p.run == Some(report.assignment) && p.moving.is_none());
            let moved = place.is_some_and(|p| p.run == Some(report.assignment) && p.moving.is_some());
            self.live_end(now, report.assignment);
            if setup
                && report.outcome != Outcome::Done
                && let Some(p) = self.live_mut(ix).and_then(|l| l.tree.get_mut(peer))
            {
                p.bare = !p.ready;
            }
            if steady && ours && self.member(ix, peer).is_some() {
                let place = self.live(ix).and_then(|l| l.tree.get(peer));
                let (late, high) = place.map_or((false, 0), |p| (p.late, p.high));
                if all_lack && late {
                    self.live_keep_less(ix, &lacking, first.max(high));
                }
                if all_lack && (goes_on || late) {
                    self.live_anew_for(now, ix, peer, &lacking);
                } else if report.outcome.is_failure() {
                    if !stalled || !fed.is_some_and(|fed| self.live_stay(now, ix, peer, fed)) {
                        self.live_place(now, ix, peer);
                    }
                } else if let Some(live) = self.live_mut(ix) {
                    live.waiting.insert(peer);
                }
            }
            if moved {
                self.live_displaced(now, ix, peer);
            }
            return true;
        }
        let next = self.live_runs.get_mut(&report.assignment).and_then(|r| {
            r.with = (i + 1).max(r.with);
            r.hosts.get(r.with).map(|t| t.peer)
        });
        let Some(live) = self.live_mut(ix) else { return true };
        let Some(place) = live.tree.get(peer) else { return true };
        if place.moving.is_some_and(|(run, _)| run == report.assignment) {
            live.tree.set_moving(peer, next.map(|next| (report.assignment, next)));
        } else if place.run == Some(report.assignment) {
            let around = next.is_some_and(|next| live.tree.is_below(next, peer));
            live.tree.set_host(peer, next);
            let full = next
                .and_then(|next| live.tree.get(next))
                .is_some_and(|p| p.children.len() > p.slots as usize);
            // Nothing comes by way of oneself; and who has too many keeps this one until it has a better place.
            if around {
                self.live_again(now, ix, peer);
            } else if full {
                self.live_move(now, ix, peer, None);
            }
        }
        true
    }
}
