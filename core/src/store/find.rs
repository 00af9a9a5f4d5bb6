//! Pages by byte and by time, and what a seek bar shows.

use std::ops::Range;
use std::sync::Arc;

use icet::media::SLICE_PAGES;
use icet::{PageFlags, PageNo, PageRecord, Slice};

use super::MediaStore;

/// Where a page stands, and what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSpan {
    /// Offset of its first byte in the physical bitstream.
    pub offset: u64,
    /// Its record.
    pub record: PageRecord,
    /// Media time at which its content starts, in microseconds from page 0.
    pub time: i64,
}

impl PageSpan {
    /// Offset of the first byte behind the page.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.record.len)
    }
}

/// Consecutive pages in one state, for a seek bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRun {
    /// First page.
    pub first: PageNo,
    /// Last page, inclusive.
    pub last: PageNo,
    /// Whether they are held.
    pub held: bool,
    /// Offset of the first page in bytes, if known.
    pub offset: Option<u64>,
    /// Media time of the first page in microseconds, if known.
    pub time: Option<i64>,
}

/// Which parts of a media are here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageTable {
    /// Pages of the media.
    pub pages: u64,
    /// Bytes of the media.
    pub bytes: u64,
    /// Duration in microseconds, 0 if unknown.
    pub duration: u64,
    /// Runs that cover all pages, in order.
    pub runs: Vec<PageRun>,
}

/// Why it is not known here which setup pages a decoder needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSetup {
    /// The slice of this page would have to be known.
    Unknown(PageNo),
    /// The link begins further back than is looked.
    Far,
}

/// Slices in which the beginning of a chained media's link is looked for: 65,536 pages.
const LINK_SLICES: u64 = 1024;

/// Runs of a page table whose offset and time are looked up; more than a seek bar has pixels.
const LOCATED_RUNS: usize = 4096;

impl MediaStore {
    /// The last slice that is known here and for which `before` holds; it must hold for all slices up to some point and for
    /// none behind it. Few slices are read: their number is halved at each step.
    fn last_slice(&self, before: impl Fn(&Slice) -> bool) -> Option<Arc<Slice>> {
        let (mut low, mut high, mut best) = (0, self.manifest.slices(), None);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(index) = self.first_known_slice(middle).filter(|i| *i < high) else {
                high = middle;
                continue;
            };
            match self.slice(index) {
                Some(slice) if before(&slice) => {
                    low = index + 1;
                    best = Some(slice);
                }
                Some(_) => high = middle,
                // Damaged on disk, and so not known any more: look again. Where that cannot be noted, pass over it.
                None if self.has_slice(index) => low = index + 1,
                None => {}
            }
        }
        best
    }

    /// The page that has the byte at `offset`; none beyond the end or if its slice is unknown here.
    #[must_use]
    pub fn page_at_byte(&self, offset: u64) -> Option<PageNo> {
        if let Some(ring) = &self.ring {
            return ring.page_at_byte(offset);
        }
        let slice = self.last_slice(|s| s.offset <= offset)?;
        let mut end = slice.offset;
        slice
            .records
            .iter()
            .position(|r| {
                end += u64::from(r.len);
                offset < end
            })
            .map(|i| slice.first_page() + i as u64)
    }

    /// The last page whose content starts at or before `us` microseconds of media time; none if that is not known here, or if
    /// the media has no such page.
    #[must_use]
    pub fn page_at_time(&self, us: u64) -> Option<PageNo> {
        if let Some(ring) = &self.ring {
            return ring.page_at_time(us);
        }
        let us = i64::try_from(us).unwrap_or(i64::MAX);
        let before = |slice: &Slice| {
            let last = slice.records.iter().rposition(|r| slice.time + r.time <= us)?;
            Some((slice.first_page() + last as u64, last + 1 == slice.records.len()))
        };
        let slice = self.last_slice(|s| s.time <= us)?;
        let (page, at_end) = before(&slice)?;
        // Where logical streams are interleaved, a slice may begin a little later than the next one's first pages. And if all of the
        // slice lies before, so may the beginning of the next one.
        let next = slice.index + 1;
        if next == self.manifest.slices() {
            return Some(page);
        }
        match self.slice(next) {
            Some(next) => Some(before(&next).map_or(page, |(p, _)| p)),
            None => Some(page).filter(|_| !at_end),
        }
    }

    /// The setup pages that a decoder needs first if it begins at `page`: those of its link, as far as they lie before it.
    ///
    /// # Errors
    /// [`NoSetup`]: of a chained media, slices are read back to the beginning of the link.
    pub fn setup_before(&self, page: PageNo) -> Result<Range<PageNo>, NoSetup> {
        if self.manifest.links <= 1 {
            return Ok(0..self.manifest.setup.min(page));
        }
        let mut slice: Option<Arc<Slice>> = None;
        let mut has = |page: PageNo, flag: PageFlags| {
            let index = page / SLICE_PAGES;
            if slice.as_ref().is_none_or(|s| s.index != index) {
                slice = self.slice(index);
            }
            let record = slice.as_ref().and_then(|s| s.page(page));
            record.map(|(record, _)| record.flags.has(flag)).ok_or(NoSetup::Unknown(page))
        };
        let back_to = page.saturating_sub(LINK_SLICES * SLICE_PAGES);
        let mut first = page;
        while !has(first, PageFlags::BOS)? {
            if first == back_to {
                return Err(if first == 0 { NoSetup::Unknown(0) } else { NoSetup::Far });
            }
            first -= 1;
        }
        // Logical streams begin side by side.
        while first > back_to && has(first - 1, PageFlags::BOS)? {
            first -= 1;
        }
        let mut end = first;
        while end < page && has(end, PageFlags::SETUP)? {
            end += 1;
        }
        Ok(first..end)
    }

    /// Which parts are here, for a seek bar.
    #[must_use]
    pub fn table(&self) -> PageTable {
        let m = self.manifest.manifest();
        let held = self.with_map(|map| match map {
            None => vec![(0, m.pages - 1)],
            Some(map) => map.to_ranges().runs().collect(),
        });
        let mut runs: Vec<(PageNo, PageNo, bool)> = Vec::with_capacity(2 * held.len() + 1);
        let mut at = 0;
        for (first, last) in held {
            if at < first {
                runs.push((at, first - 1, false));
            }
            runs.push((first, last, true));
            at = last + 1;
        }
        if at < m.pages {
            runs.push((at, m.pages - 1, false));
        }
        let locate = runs.len() <= LOCATED_RUNS;
        let runs = runs.into_iter().map(|(first, last, held)| {
            let span = if locate { self.span(first) } else { None };
            PageRun { first, last, held, offset: span.map(|s| s.offset), time: span.map(|s| s.time) }
        });
        PageTable { pages: m.pages, bytes: m.bytes, duration: m.duration, runs: runs.collect() }
    }

    /// Bytes of the pages `first ..= last`; none if a slice at either end is unknown here.
    #[must_use]
    pub fn bytes_between(&self, first: PageNo, last: PageNo) -> Option<u64> {
        let (first, last) = (self.span(first)?, self.span(last)?);
        Some(last.end().saturating_sub(first.offset))
    }

    /// Slices that the pages `first ..= last` lie in, first and last.
    #[must_use]
    pub fn slices_of(first: PageNo, last: PageNo) -> (u64, u64) {
        (first / SLICE_PAGES, last / SLICE_PAGES)
    }
}
