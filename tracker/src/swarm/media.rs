//! One media: its manifest, where its slices lie, and the crowd around it.

use std::net::IpAddr;

use icet::message::{Intent, Shortage};
use icet::{Kind, MediaId, Now, PageNo, PageRanges, SignedManifest};

use super::bits::{Bits, Pool, Table};
use super::board::{MediaIx, PeerIx};
use super::glance::Glance;
use super::live::Live;
use super::rarity::{self, Rarity};
use super::table::SliceTable;

/// Which pages a member has, and which it needs no more orders for.
#[derive(Debug)]
pub(crate) struct Part {
    /// Pages of a unit.
    unit: u64,
    /// Pages held.
    pub(crate) pages: Bits,
    /// Pages held or under way to it.
    pub(crate) claimed: Bits,
    /// Units held in full.
    pub(crate) units: Bits,
    /// Units with a page that is not claimed.
    pub(crate) open: Bits,
}

/// What a member holds.
#[derive(Debug)]
pub(crate) enum Holds {
    /// All.
    Full,
    /// Some.
    Part(Box<Part>),
}

impl Part {
    fn new(pages: u64, unit: u64) -> Part {
        let units = pages.div_ceil(unit);
        let (held, units, open) = (Bits::new(pages), Bits::new(units), Bits::full(units));
        Part { unit, claimed: held.clone(), pages: held, units, open }
    }

    fn claim(&mut self, first: PageNo, last: PageNo) {
        let unit = self.unit;
        self.claimed.set(first, last);
        for u in first / unit..=last / unit {
            if self.claimed.all(u * unit, u * unit + unit - 1) {
                self.open.clear(u, u);
            }
        }
    }
}

impl Holds {
    /// Memory of a map of a media's pages, in bytes.
    pub(crate) fn cost(media: &Media) -> u64 {
        2 * Bits::bytes(media.pages()) + 2 * Bits::bytes(media.units())
    }

    pub(crate) fn all(&self, first: PageNo, last: PageNo) -> bool {
        match self {
            Holds::Full => true,
            Holds::Part(p) => p.pages.all(first, last),
        }
    }

    pub(crate) fn part(&self) -> Option<&Part> {
        match self {
            Holds::Full => None,
            Holds::Part(p) => Some(p),
        }
    }
}

/// Where a player is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Playhead {
    /// Its page.
    pub(crate) page: PageNo,
    /// Bytes a second that it eats.
    pub(crate) rate: u64,
    /// Bytes from `page` on that are wanted at once.
    pub(crate) urgent: u64,
    /// When it was there.
    pub(crate) since: Now,
}

/// An assignment under way to a member: what is asked of it so often that nobody should have to look it up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetch {
    pub(crate) id: u64,
    /// Who has it now.
    pub(crate) host: PeerIx,
    pub(crate) first: PageNo,
    pub(crate) last: PageNo,
}

/// One peer in the crowd of a media.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) intent: Intent,
    pub(crate) holds: Holds,
    pub(crate) playhead: Option<Playhead>,
    /// Assignments by which it fetches.
    pub(crate) running: Vec<Fetch>,
    /// Hosts that it shall not be sent to again before the given time.
    pub(crate) avoid: Vec<(PeerIx, Now)>,
    /// Who found lately that it holds what it says (or does not), and when: the last of each address.
    pub(crate) voices: Vec<Voice>,
    /// Pages that it said it holds, and no longer.
    pub(crate) disowned: u64,
    /// Its map is not believed: it counts as no copy, and is nobody's host.
    pub(crate) distrusted: bool,
    /// Others can fetch from it: what only others hold is as good as at the publisher only.
    pub(crate) serves: bool,
    /// No bulk is ordered for it before this (assignments of an earlier epoch may still run).
    pub(crate) hold_until: Now,
    /// It gave orders back untouched: none for it before this.
    pub(crate) refuses_until: Now,
    /// When it last was given something, or joined.
    pub(crate) fed: Now,
    /// When it gets a new reserve.
    pub(crate) reserve_due: Now,
    /// It starved: a publisher that rests helps it until then.
    pub(crate) helped_until: Now,
    /// Why it gets nothing, as it was told since it last was given something; and when that is looked at again.
    pub(crate) told: Option<Shortage>,
    pub(crate) look_at: Now,
}

impl Member {
    /// Whether it wants pages at all, and lacks some.
    pub(crate) fn receives(&self) -> bool {
        self.intent != Intent::Share && matches!(self.holds, Holds::Part(_))
    }

    /// Whether it wants pages, and has none yet.
    pub(crate) fn is_new(&self) -> bool {
        self.intent != Intent::Share && self.holds.part().is_some_and(|p| p.pages.ones() == 0)
    }

    /// Whether there is a page it wants and nobody was told to send it.
    pub(crate) fn has_open(&self) -> bool {
        self.intent != Intent::Share && self.holds.part().is_some_and(|p| p.open.ones() > 0)
    }

    /// Whether bulk may be ordered for it now.
    pub(crate) fn may_be_given(&self, now: Now) -> bool {
        self.has_open() && now >= self.hold_until && now >= self.refuses_until
    }

    /// Whether what it holds counts as copies.
    pub(crate) fn counts(&self) -> bool {
        self.serves && !self.distrusted
    }

    pub(crate) fn avoids(&self, host: PeerIx, now: Now) -> bool {
        self.avoid.iter().any(|(h, until)| *h == host && *until > now)
    }

    /// Nothing speaks against sending it to `host`.
    pub(crate) fn forgive(&mut self, host: PeerIx) {
        self.avoid.retain(|(h, _)| *h != host);
    }

    /// Sends it to `host` no more before `until`.
    pub(crate) fn avoid(&mut self, host: PeerIx, now: Now, until: Now) {
        self.avoid.retain(|(h, u)| *h != host && *u > now);
        if self.avoid.len() < 64 {
            self.avoid.push((host, until));
        }
    }
}

/// What somebody found of what a member says it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Voice {
    pub(crate) by: PeerIx,
    pub(crate) from: IpAddr,
    pub(crate) good: bool,
    pub(crate) at: Now,
}

/// A media and its crowd.
#[derive(Debug)]
pub(crate) struct Media {
    pub(crate) ix: MediaIx,
    pub(crate) id: MediaId,
    pub(crate) manifest: SignedManifest,
    pub(crate) table: SliceTable,
    /// Pages of a unit; see [`rarity::unit`].
    pub(crate) unit: u64,
    pub(crate) hits: u64,
    pub(crate) hits_stored: u64,
    pub(crate) members: Table<PeerIx, Member>,
    /// Members other than the publisher that hold everything.
    pub(crate) complete: u64,
    /// Of them, those whose copy counts.
    pub(crate) seeds: u64,
    /// Members that hold a part.
    parts: u64,
    /// Members that play or fetch.
    listeners: u64,
    /// The publisher, while it is a member.
    pub(crate) publisher: Option<PeerIx>,
    /// Counts of copies; none while nobody holds a part.
    pub(crate) rarity: Option<Box<Rarity>>,
    /// Hosts that can serve what they hold, room aside.
    pub(crate) able: Pool<PeerIx>,
    /// Of them, those that may have room for another assignment.
    pub(crate) free: Pool<PeerIx, Glance>,
    /// Receivers that may have room for another assignment, and lack one.
    pub(crate) hungry: Pool<PeerIx>,
    /// Receivers of which a player waits for pages that nobody was ordered to send it yet.
    pub(crate) waiting: Pool<PeerIx>,
    /// Players that fetch from the publisher while we are silent, and feed others.
    pub(crate) feeders: Pool<PeerIx>,
    /// Whether a tick is due for hungry receivers.
    pub(crate) ticking: bool,
    /// About how many bytes a second its hosts can upload, the publisher aside: smoothed, of those that were looked at.
    pub(crate) upload: f64,
    pub(crate) running: u64,
    pub(crate) delivered: u64,
    pub(crate) delivered_by_publisher: u64,
    /// Of live media; its members count as holding everything, so that nothing is ordered for them as of a file.
    pub(crate) live: Option<Box<Live>>,
}

impl Media {
    pub(crate) fn new(ix: MediaIx, manifest: SignedManifest, hits: u64) -> Media {
        Media {
            ix,
            id: manifest.id(),
            table: SliceTable::new(&manifest),
            unit: rarity::unit(&manifest),
            live: (manifest.kind == Kind::Live).then(Box::default),
            manifest,
            hits,
            hits_stored: hits,
            members: Table::default(),
            complete: 0,
            seeds: 0,
            parts: 0,
            listeners: 0,
            publisher: None,
            rarity: None,
            able: Pool::default(),
            free: Pool::default(),
            hungry: Pool::default(),
            waiting: Pool::default(),
            feeders: Pool::default(),
            ticking: false,
            upload: 0.0,
            running: 0,
            delivered: 0,
            delivered_by_publisher: 0,
        }
    }

    /// Memory that a media takes beside its members' page maps, in bytes: marks of slices, counts of copies.
    pub(crate) fn cost(manifest: &SignedManifest) -> u64 {
        SliceTable::cost(manifest) + Rarity::bytes(manifest.pages.div_ceil(rarity::unit(manifest)))
    }

    pub(crate) fn pages(&self) -> u64 {
        self.manifest.pages
    }

    pub(crate) fn units(&self) -> u64 {
        self.pages().div_ceil(self.unit)
    }

    /// Members that hold everything, the publisher too; nobody does of live media.
    pub(crate) fn holders(&self) -> u64 {
        if self.live.is_some() { 0 } else { self.complete + u64::from(self.publisher.is_some()) }
    }

    pub(crate) fn listeners(&self) -> u64 {
        self.listeners
    }

    /// A member wants something else than before.
    pub(crate) fn set_intent(&mut self, peer: PeerIx, intent: Intent) {
        if let Some(m) = self.members.get_mut(&peer) {
            self.listeners -= u64::from(m.intent != Intent::Share);
            self.listeners += u64::from(intent != Intent::Share);
            m.intent = intent;
        }
    }

    pub(crate) fn is_publisher(&self, peer: PeerIx) -> bool {
        self.publisher == Some(peer)
    }

    /// Whether nobody but the publisher has a unit, nor is about to get it.
    pub(crate) fn is_fresh(&self, unit: u64) -> bool {
        self.seeds == 0 && self.rarity.as_ref().is_none_or(|r| r.copies(unit) == 0 && r.flying(unit) == 0)
    }

    /// Adds a member that holds nothing yet, or everything.
    pub(crate) fn add(&mut self, now: Now, peer: PeerIx, intent: Intent, full: bool, publisher: bool) {
        let holds = if full {
            Holds::Full
        } else {
            let units = self.units();
            self.rarity.get_or_insert_with(|| Box::new(Rarity::new(units)));
            self.parts += 1;
            Holds::Part(Box::new(Part::new(self.pages(), self.unit)))
        };
        self.listeners += u64::from(intent != Intent::Share);
        if publisher {
            self.publisher = Some(peer);
        } else if full {
            self.complete += 1;
        }
        let member = Member {
            intent,
            holds,
            playhead: None,
            running: Vec::new(),
            avoid: Vec::new(),
            voices: Vec::new(),
            disowned: 0,
            distrusted: false,
            serves: false,
            hold_until: now,
            refuses_until: now,
            fed: now,
            reserve_due: now,
            helped_until: now,
            told: None,
            look_at: now,
        };
        self.members.insert(peer, member);
    }

    /// Takes a member out. Its assignments are the caller's to end before.
    pub(crate) fn remove(&mut self, peer: PeerIx) -> Option<Member> {
        let member = self.members.remove(&peer)?;
        self.listeners -= u64::from(member.intent != Intent::Share);
        let units = self.units();
        if let Some(r) = self.rarity.as_mut() {
            r.unname(0, units.saturating_sub(1), peer);
        }
        match &member.holds {
            Holds::Full if self.is_publisher(peer) || member.distrusted => {}
            Holds::Full => {
                self.complete -= 1;
                self.seeds -= u64::from(member.serves);
            }
            Holds::Part(p) => {
                self.parts -= 1;
                if member.counts()
                    && let Some(r) = self.rarity.as_mut()
                {
                    p.units.runs(0, u64::MAX).for_each(|(a, b)| (a..=b).for_each(|u| r.remove_copy(u)));
                }
            }
        }
        if self.is_publisher(peer) {
            self.publisher = None;
        }
        if self.running == 0 && self.parts == 0 {
            self.rarity = None;
        }
        self.able.remove(peer);
        self.free.remove(peer);
        self.hungry.remove(peer);
        self.waiting.remove(peer);
        self.feeders.remove(peer);
        Some(member)
    }

    /// A member holds pages now. Calls `new` with each run of pages that it did not hold before; says whether it completed
    /// its copy by it.
    pub(crate) fn insert(
        &mut self,
        peer: PeerIx,
        first: PageNo,
        last: PageNo,
        mut new: impl FnMut(PageNo, PageNo),
    ) -> bool {
        let last = last.min(self.pages().saturating_sub(1));
        let (publisher, unit) = (self.is_publisher(peer), self.unit);
        let Some(member) = self.members.get_mut(&peer) else { return false };
        let (believed, counts) = (!member.distrusted, member.counts());
        let holds = &mut member.holds;
        let Holds::Part(part) = &mut *holds else { return false };
        if first > last {
            return false;
        }
        let gaps: Vec<_> = part.pages.gaps(first, last).collect();
        for (a, b) in gaps {
            part.pages.set(a, b);
            part.claim(a, b);
            new(a, b);
            for u in a / unit..=b / unit {
                if part.pages.all(u * unit, u * unit + unit - 1) && part.units.set(u, u) == 1 && counts {
                    self.rarity.iter_mut().for_each(|r| {
                        r.add_copy(u);
                        r.name(u, peer);
                    });
                }
            }
        }
        if !part.pages.is_full() {
            return false;
        }
        if counts && let Some(r) = self.rarity.as_mut() {
            part.units.runs(0, u64::MAX).for_each(|(a, b)| (a..=b).for_each(|u| r.remove_copy(u)));
        }
        *holds = Holds::Full;
        self.parts -= 1;
        self.complete += u64::from(!publisher && believed);
        self.seeds += u64::from(!publisher && counts);
        true
    }

    /// A member holds pages no longer; `still`: ranges that are under way to it. Says whether its copy was complete before.
    pub(crate) fn lose(&mut self, peer: PeerIx, ranges: &PageRanges, still: &[(PageNo, PageNo)]) -> bool {
        let (pages, publisher) = (self.pages(), self.is_publisher(peer));
        let lost: Vec<_> =
            ranges.runs().filter(|(a, _)| *a < pages).map(|(a, b)| (a, b.min(pages - 1))).collect();
        let (unit, units) = (self.unit, self.units());
        let Some(member) = self.members.get_mut(&peer) else { return false };
        let (believed, counts) = (!member.distrusted, member.counts());
        let Member { holds, disowned, .. } = member;
        if lost.is_empty() {
            return false;
        }
        let rarity = self.rarity.get_or_insert_with(|| Box::new(Rarity::new(units)));
        let was_full = matches!(holds, Holds::Full);
        if was_full {
            let mut part = Part::new(pages, unit);
            part.claim(0, pages - 1);
            part.pages.set(0, pages - 1);
            part.units.set(0, units - 1);
            if counts {
                (0..units).for_each(|u| rarity.add_copy(u));
            }
            *holds = Holds::Part(Box::new(part));
            self.parts += 1;
            self.complete -= u64::from(!publisher && believed);
            self.seeds -= u64::from(!publisher && counts);
        }
        let Holds::Part(part) = holds else { return false };
        for (a, b) in lost {
            let cleared = part.pages.clear(a, b);
            *disowned += cleared;
            if cleared > 0 {
                part.claimed.clear(a, b);
                for u in a / unit..=b / unit {
                    if !part.pages.all(u * unit, u * unit + unit - 1) && part.units.clear(u, u) == 1 && counts
                    {
                        rarity.remove_copy(u);
                        rarity.unname(u, u, peer);
                    }
                    if !part.claimed.all(u * unit, u * unit + unit - 1) {
                        part.open.set(u, u);
                    }
                }
            }
        }
        for (a, b) in still {
            part.claim(*a, *b);
        }
        was_full
    }

    /// Believes a member's map no longer, until it leaves.
    pub(crate) fn distrust(&mut self, peer: PeerIx) {
        let publisher = self.is_publisher(peer);
        let Some(member) = self.members.get_mut(&peer).filter(|m| !m.distrusted && !publisher) else {
            return;
        };
        self.complete -= u64::from(matches!(member.holds, Holds::Full));
        self.set_serves(peer, false);
        self.members.get_mut(&peer).into_iter().for_each(|m| m.distrusted = true);
        self.able.remove(peer);
        self.free.remove(peer);
    }

    /// Others can fetch from a member now, or no longer: what it holds counts as copies or not.
    pub(crate) fn set_serves(&mut self, peer: PeerIx, serves: bool) {
        let (publisher, units) = (self.is_publisher(peer), self.units());
        let Some(member) = self.members.get_mut(&peer).filter(|m| m.serves != serves && !m.distrusted) else {
            return;
        };
        member.serves = serves;
        match (&member.holds, self.rarity.as_mut()) {
            (Holds::Full, rarity) => {
                let all = u64::from(!publisher);
                self.seeds = if serves { self.seeds + all } else { self.seeds - all };
                if let Some(r) = rarity.filter(|_| !serves) {
                    r.unname(0, units.saturating_sub(1), peer);
                }
            }
            (Holds::Part(p), Some(r)) => {
                for u in p.units.runs(0, u64::MAX).flat_map(|(a, b)| a..=b) {
                    if serves {
                        r.add_copy(u);
                        r.name(u, peer);
                    } else {
                        r.remove_copy(u);
                        r.unname(u, u, peer);
                    }
                }
            }
            (Holds::Part(_), None) => {}
        }
    }

    /// Pages are under way to a member.
    pub(crate) fn claim(&mut self, peer: PeerIx, first: PageNo, last: PageNo) {
        let unit = self.unit;
        if let Some(Holds::Part(p)) = self.members.get_mut(&peer).map(|m| &mut m.holds) {
            p.claim(first, last);
        }
        self.rarity.iter_mut().for_each(|r| r.take_off(first / unit, last / unit));
    }

    /// They are under way no longer, by assignment `id`; by others they may be.
    pub(crate) fn unclaim(&mut self, peer: PeerIx, id: u64, first: PageNo, last: PageNo) {
        let unit = self.unit;
        self.rarity.iter_mut().for_each(|r| r.land(first / unit, last / unit));
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.running.retain(|f| f.id != id);
        let Holds::Part(p) = &mut member.holds else { return };
        let Part { pages, claimed, open, .. } = &mut **p;
        for (a, b) in pages.gaps(first, last) {
            claimed.clear(a, b);
            open.set(a / unit, b / unit);
        }
        for f in member.running.iter().filter(|f| f.first <= last && f.last >= first) {
            p.claim(f.first, f.last);
        }
    }

    /// Pages of `first ..= last` that a member holds.
    pub(crate) fn held_of(&self, peer: PeerIx, first: PageNo, last: PageNo) -> u64 {
        match self.members.get(&peer).map(|m| &m.holds) {
            Some(Holds::Full) => last - first + 1,
            Some(Holds::Part(p)) => p.pages.runs(first, last).map(|(a, b)| b - a + 1).sum(),
            None => 0,
        }
    }

    /// Memory of its members' page maps, in bytes.
    #[cfg(test)]
    pub(crate) fn map_bytes(&self) -> u64 {
        let maps = self.members.values().filter(|m| m.holds.part().is_some()).count() as u64;
        assert_eq!(maps, self.parts);
        maps * Holds::cost(self)
    }
}
