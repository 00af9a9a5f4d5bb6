//! "I got it": acknowledgements in batches, and what this host served.

use std::collections::BTreeMap;
use std::time::Duration;

use icet::message::{Got, Have, Need, Served as ServedMessage, ServedItem};
use icet::{Now, PageNo, PageRanges, limits};

use super::Engine;
use super::assignments::Assigned;
use super::io::Handle;
use super::pages::Pages;
use super::session::Link;
use super::timers::Timer;

/// What a playhead waits for is soon told: others may wait for it too, and get it from here.
const URGENT: Duration = Duration::from_millis(20);
/// Of live media a high-water mark is told, as it moves.
const LIVE: Duration = Duration::from_secs(2);
/// So many pages are acknowledged without waiting for more, if that is a [`SHARE`] of what is still assigned.
const PAGES: u64 = 64;
/// Of so many pages assigned, one may wait: the faster a line, the more is assigned, and the fewer messages a page cost.
const SHARE: u64 = 16;
/// So many never wait for more.
const MOST_PAGES: u64 = 4096;
/// So many ranges do not wait, either.
const RANGES: usize = 64;
/// Pause between two words that something of an assignment comes, if no page of it is whole yet.
const COMING: Duration = Duration::from_millis(500);
/// Pause between reports of what was served.
const SERVED: Duration = Duration::from_secs(1);
/// So many items are told at once.
const SERVED_ITEMS: usize = 256;
/// Most items that are kept while the tracker is silent; further ones count as without assignment.
const SERVED_KEPT: usize = 4096;

/// Epoch and number of an assignment; `(0, 0)`: none.
pub(super) type Number = (u64, u64);

/// Pages of one media that the tracker has not been told of.
#[derive(Debug)]
pub(super) struct Acks {
    pending: BTreeMap<Number, PageRanges>,
    /// Those that the last join stated, while it is open if the tracker still knows their assignments.
    stated: BTreeMap<Number, PageRanges>,
    pages: u64,
    /// So many do not wait for more.
    enough: u64,
    /// The assignment of live media that something last came of.
    last: Number,
}

impl Default for Acks {
    fn default() -> Acks {
        Acks { pending: BTreeMap::new(), stated: BTreeMap::new(), pages: 0, enough: PAGES, last: (0, 0) }
    }
}

impl Acks {
    fn add(&mut self, number: Number, page: PageNo) {
        let known = self.pending.contains_key(&number) || self.pending.len() < limits::ITEMS;
        self.pending.entry(if known { number } else { (0, 0) }).or_default().insert(page, page);
        self.pages += 1;
    }

    /// Something of an assignment came, but no whole page.
    fn coming(&mut self, number: Number) {
        if self.pending.len() < limits::ITEMS {
            self.pending.entry(number).or_default();
        }
    }

    fn are_many(&self) -> bool {
        self.pages >= self.enough || self.pending.values().map(|r| r.runs().len()).sum::<usize>() >= RANGES
    }

    /// A join stated all pages held. In a known epoch only its own assignments are still worth naming.
    pub(super) fn stated(&mut self, epoch: Option<u64>) {
        match epoch {
            Some(epoch) => self.pending.retain(|(e, _), _| *e == epoch),
            None => self.stated.append(&mut self.pending),
        }
    }

    fn forget(&mut self, pages: &[PageNo]) {
        for ranges in self.pending.values_mut().chain(self.stated.values_mut()) {
            if pages.iter().any(|p| ranges.has(*p)) {
                let kept = ranges.pages().filter(|p| pages.binary_search(p).is_err());
                *ranges = PageRanges::from_runs(kept.map(|p| (p, p)));
            }
        }
    }

    /// What to say in `epoch`, in messages that the wire can carry.
    fn take(&mut self, epoch: u64) -> Vec<Vec<Got>> {
        let mut all: BTreeMap<u64, PageRanges> = BTreeMap::new();
        let stated = std::mem::take(&mut self.stated).into_iter().filter(|((e, _), _)| *e == epoch);
        for ((e, number), ranges) in std::mem::take(&mut self.pending).into_iter().chain(stated) {
            let got = all.entry(if e == epoch { number } else { 0 }).or_default();
            *got =
                if got.is_empty() { ranges } else { PageRanges::from_runs(got.runs().chain(ranges.runs())) };
        }
        self.pages = 0;
        let (mut out, mut part, mut runs) = (Vec::new(), Vec::new(), 0);
        for (assignment, ranges) in all {
            if ranges.is_empty() {
                // It comes: nothing more is known of it yet.
                if assignment > 0 && part.len() < limits::ITEMS {
                    part.push(Got { assignment, pages: ranges });
                }
                continue;
            }
            for pages in ranges.chunks(limits::RANGES) {
                let n = pages.runs().len();
                if !part.is_empty() && (runs + n > limits::RANGES || part.len() >= limits::ITEMS) {
                    out.push(std::mem::take(&mut part));
                    runs = 0;
                }
                runs += n;
                part.push(Got { assignment, pages });
            }
        }
        if !part.is_empty() {
            out.push(part);
        }
        out
    }
}

impl Engine {
    /// Notes a new page of an assignment, which came for `need`.
    pub(super) fn acknowledge(&mut self, now: Now, handle: Handle, number: Number, page: PageNo, need: Need) {
        let Some(m) = self.media.get_mut(&handle) else { return };
        m.acks.add(number, page);
        if self.session.link != Link::Welcome {
            return;
        }
        let live = matches!(m.pages, Some(Pages::Live(_)));
        // The first page of an order is told soon: others wait for what this host can send on, or go over from it.
        let first = live && need == Need::Steady && std::mem::replace(&mut m.acks.last, number) != number;
        let need = if first { Need::Urgent } else { need };
        if live && need != Need::Urgent {
            self.timers.set_sooner(Timer::Ack(handle), now + LIVE);
        } else if m.acks.are_many() {
            self.flush_acks(handle);
        } else {
            let delay = self.session.ack_delay;
            let delay = if need == Need::Urgent { delay.min(URGENT) } else { delay };
            self.timers.set_sooner(Timer::Ack(handle), now + delay);
        }
    }

    /// Notes that bytes of an assignment come. On a slow line a page takes its time, and the tracker would give it up.
    pub(super) fn coming(&mut self, now: Now, handle: Handle, number: Number) {
        let Some(m) = self.media.get_mut(&handle) else { return };
        if self.session.link == Link::Welcome && self.session.epoch == Some(number.0) {
            m.acks.coming(number);
            self.timers.set_sooner(Timer::Ack(handle), now + COMING);
        }
    }

    /// Tells the tracker what it does not know yet, if it can be told.
    pub(super) fn flush_acks(&mut self, handle: Handle) {
        let (Link::Welcome, Some(epoch)) = (self.session.link, self.session.epoch) else { return };
        if self.session.is_to_open(handle) {
            return;
        }
        let Some(m) = self.media.get_mut(&handle) else { return };
        let Some(media) = m.id else { return };
        self.timers.cancel(Timer::Ack(handle));
        let assigned = self.assigned.values().filter(|a| a.handle == handle).map(Assigned::left);
        m.acks.enough = (assigned.fold(0, u64::saturating_add) / SHARE).clamp(PAGES, MOST_PAGES);
        for got in m.acks.take(epoch) {
            self.send(Have { media, got, lost: PageRanges::new() });
        }
    }

    pub(super) fn forget_acks(&mut self, handle: Handle) {
        if let Some(m) = self.media.get_mut(&handle) {
            m.acks = Acks::default();
        }
    }

    /// Tells that pages (in order) are held no longer; what is said of them later counts.
    pub(super) fn lost(&mut self, handle: Handle, pages: &[PageNo]) {
        let Some(m) = self.media.get_mut(&handle) else { return };
        m.acks.forget(pages);
        let Some(media) = m.id else { return };
        if !self.session.is_up() || self.session.is_to_open(handle) {
            return;
        }
        self.flush_acks(handle);
        let lost = PageRanges::from_runs(pages.iter().map(|p| (*p, *p)));
        for lost in lost.chunks(limits::RANGES) {
            self.send(Have { media, got: Vec::new(), lost });
        }
    }

    pub(super) fn note_served(&mut self, now: Now, items: Vec<(u64, u64)>) {
        self.served.add(items);
        if self.session.link == Link::Welcome && !self.served.items.is_empty() {
            if self.served.items.len() >= SERVED_ITEMS {
                self.flush_served(now);
            } else {
                self.timers.set_sooner(Timer::Served, now + SERVED);
            }
        }
    }

    pub(super) fn flush_served(&mut self, _: Now) {
        if self.session.link != Link::Welcome {
            return;
        }
        self.timers.cancel(Timer::Served);
        let mut items = std::mem::take(&mut self.served.items)
            .into_iter()
            .map(|(assignment, bytes)| ServedItem { assignment, bytes })
            .peekable();
        while items.peek().is_some() {
            let items = items.by_ref().take(limits::ITEMS).collect();
            self.send(ServedMessage { items });
        }
    }
}

/// What this host sent since it last said so.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// Bytes by assignment.
    items: BTreeMap<u64, u64>,
}

impl Served {
    fn add(&mut self, items: Vec<(u64, u64)>) {
        for (assignment, bytes) in items.into_iter().filter(|(_, bytes)| *bytes > 0) {
            let known = self.items.contains_key(&assignment) || self.items.len() < SERVED_KEPT;
            let sum = self.items.entry(if known { assignment } else { 0 }).or_default();
            *sum = sum.saturating_add(bytes);
        }
    }

    /// Another epoch: the numbers mean nothing any longer, the bytes do.
    pub(super) fn forget_numbers(&mut self) {
        let sum = std::mem::take(&mut self.items).into_values().fold(0, u64::saturating_add);
        if sum > 0 {
            self.items.insert(0, sum);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }
}
