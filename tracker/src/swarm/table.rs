//! Where the slices of a media lie: 16 bytes a slice, enough to find a page by byte or time and to tell how long pages
//! are.

use icet::message::Position;
use icet::{Manifest, PageNo};

use super::SliceMark;
use super::bits::Bits;

const SLICE_PAGES: u64 = icet::media::SLICE_PAGES;

/// Marks of the slices that the catalogue holds.
#[derive(Debug)]
pub(crate) struct SliceTable {
    marks: Vec<SliceMark>,
    known: Bits,
    pages: u64,
    bytes: u64,
    duration: u64,
}

/// Answer to a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The slice.
    Slice(u64),
    /// It was not uploaded yet.
    NotYet,
    /// Beyond the end of the media.
    Beyond,
}

impl SliceTable {
    /// Memory that the table of a media takes, in bytes.
    pub(crate) fn cost(manifest: &Manifest) -> u64 {
        16 * manifest.slices()
    }

    pub(crate) fn new(manifest: &Manifest) -> SliceTable {
        let n = usize::try_from(manifest.slices()).unwrap_or(usize::MAX);
        SliceTable {
            marks: vec![SliceMark { offset: 0, time: 0 }; n],
            known: Bits::new(manifest.slices()),
            pages: manifest.pages,
            bytes: manifest.bytes,
            duration: manifest.duration,
        }
    }

    pub(crate) fn known(&self) -> u64 {
        self.known.ones()
    }

    pub(crate) fn has(&self, slice: u64) -> bool {
        self.known.get(slice)
    }

    pub(crate) fn put(&mut self, slice: u64, mark: SliceMark) {
        if let Some(m) = usize::try_from(slice).ok().and_then(|i| self.marks.get_mut(i)) {
            *m = mark;
            self.known.set(slice, slice);
        }
    }

    fn mark(&self, slice: u64) -> Option<SliceMark> {
        self.has(slice)
            .then(|| usize::try_from(slice).ok().and_then(|i| self.marks.get(i).copied()))
            .flatten()
    }

    /// The last known slice for which `before` holds (it must hold for a beginning of them).
    fn last_known(&self, before: impl Fn(SliceMark) -> bool) -> Option<u64> {
        let (mut low, mut high) = (0, self.known.len());
        let mut best = None;
        while low < high {
            let middle = low + (high - low) / 2;
            match self.known.next_set(middle).filter(|k| *k < high) {
                Some(k) if self.mark(k).is_some_and(&before) => {
                    best = Some(k);
                    low = k + 1;
                }
                _ => high = middle,
            }
        }
        best
    }

    fn exact(&self, slice: Option<u64>) -> Found {
        // The neighbour above must be known too, else a slice in between may be meant.
        match slice {
            Some(s) if s + 1 == self.known.len() || self.has(s + 1) => Found::Slice(s),
            _ => Found::NotYet,
        }
    }

    /// The slice at a position.
    pub(crate) fn locate(&self, at: Position) -> Found {
        match at {
            Position::Page(p) if p >= self.pages => Found::Beyond,
            Position::Page(p) if self.has(p / SLICE_PAGES) => Found::Slice(p / SLICE_PAGES),
            Position::Page(_) => Found::NotYet,
            Position::Byte(b) if b >= self.bytes => Found::Beyond,
            Position::Byte(b) => self.exact(self.last_known(|m| m.offset <= b)),
            Position::Time(t) => {
                let t = i64::try_from(t).unwrap_or(i64::MAX);
                // Times may begin below or above 0: what lies before the first slice is in it.
                let found = self.last_known(|m| m.time <= t).or(self.has(0).then_some(0));
                self.exact(found)
            }
        }
    }

    /// About which page lies at a position (never beyond the last).
    pub(crate) fn page_at(&self, at: Position) -> PageNo {
        let share = |x: u64, of: u64| {
            u64::try_from(u128::from(x.min(of)) * u128::from(self.pages) / u128::from(of.max(1))).unwrap_or(0)
        };
        let page = match at {
            Position::Page(p) => p,
            Position::Byte(b) => match self.locate(at) {
                Found::Slice(s) => {
                    let (from, to) = (self.offset(s * SLICE_PAGES), self.offset((s + 1) * SLICE_PAGES));
                    let within =
                        b.saturating_sub(from).saturating_mul(SLICE_PAGES) / to.saturating_sub(from).max(1);
                    s * SLICE_PAGES + within.min(SLICE_PAGES - 1)
                }
                _ => share(b, self.bytes),
            },
            Position::Time(t) => match self.locate(at) {
                // Decoding may have to begin a little before: take the slice's share of time, rounded down.
                Found::Slice(s) => {
                    let from = self.mark(s).map_or(0, |m| m.time);
                    let to =
                        self.mark(s + 1).map_or(i64::try_from(self.duration).unwrap_or(i64::MAX), |m| m.time);
                    let (span, into) =
                        (to.saturating_sub(from), i64::try_from(t).unwrap_or(i64::MAX).saturating_sub(from));
                    let within = if span > 0 { i128::from(into) * 64 / i128::from(span) } else { 0 };
                    s * SLICE_PAGES + u64::try_from(within.clamp(0, 63)).unwrap_or(0)
                }
                _ => share(t, self.duration),
            },
        };
        page.min(self.pages.saturating_sub(1))
    }

    /// About where `page` begins, in bytes; the media's length from its end on. Exact at the first page of a known slice.
    pub(crate) fn offset(&self, page: PageNo) -> u64 {
        if page >= self.pages {
            return self.bytes;
        }
        let slice = page / SLICE_PAGES;
        let below = self.mark(slice).map(|m| (slice * SLICE_PAGES, m.offset));
        let after = ((slice + 1) * SLICE_PAGES).min(self.pages);
        let above =
            if after == self.pages { Some(self.bytes) } else { self.mark(slice + 1).map(|m| m.offset) };
        let (p0, b0, p1, b1) = match (below, above) {
            (Some((p, b)), Some(end)) => (p, b, after, end),
            // Not known nearby: as if all pages were equally long.
            _ => (0, 0, self.pages, self.bytes),
        };
        let part = u128::from(b1.saturating_sub(b0)) * u128::from(page - p0) / u128::from((p1 - p0).max(1));
        b0.saturating_add(u64::try_from(part).unwrap_or(u64::MAX))
    }

    /// About how many bytes the pages `first ..= last` have; at least 1.
    pub(crate) fn bytes_of(&self, first: PageNo, last: PageNo) -> u64 {
        self.offset(last.saturating_add(1)).saturating_sub(self.offset(first)).max(1)
    }

    /// Mean length of a page in bytes.
    pub(crate) fn mean_page(&self) -> u64 {
        (self.bytes / self.pages.max(1)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fixture::manifest;
    use super::*;

    fn table(known: &[u64]) -> SliceTable {
        // 10 slices of 64 pages of 100 bytes, 10 ms each; the last has 10 pages.
        let mut t = SliceTable::new(&manifest("a", 1, 586, 58_600, 5_860_000));
        for s in known {
            t.put(*s, SliceMark { offset: s * 6400, time: i64::try_from(s * 640_000).unwrap() });
        }
        t
    }

    #[test]
    fn finds_slices_by_page_byte_and_time() {
        let t = table(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        for (at, slice) in [
            (Position::Page(0), 0),
            (Position::Page(64), 1),
            (Position::Page(585), 9),
            (Position::Byte(6399), 0),
            (Position::Byte(6400), 1),
            (Position::Byte(58_599), 9),
            (Position::Time(639_999), 0),
            (Position::Time(640_000), 1),
            (Position::Time(999_999_999), 9),
        ] {
            assert_eq!(t.locate(at), Found::Slice(slice), "{at:?}");
        }
        assert_eq!(t.locate(Position::Page(586)), Found::Beyond);
        assert_eq!(t.locate(Position::Byte(58_600)), Found::Beyond);
    }

    #[test]
    fn does_not_guess_between_slices_it_does_not_know() {
        let t = table(&[0, 1, 4, 5, 9]);
        assert_eq!(t.locate(Position::Byte(100)), Found::Slice(0));
        assert_eq!(t.locate(Position::Byte(7000)), Found::NotYet);
        assert_eq!(t.locate(Position::Byte(4 * 6400)), Found::Slice(4));
        assert_eq!(t.locate(Position::Byte(58_000)), Found::Slice(9));
        assert_eq!(t.locate(Position::Page(130)), Found::NotYet);
        assert_eq!(table(&[]).locate(Position::Time(0)), Found::NotYet);
    }

    #[test]
    fn tells_lengths_even_of_what_it_does_not_know() {
        for t in [table(&[0, 1, 4, 5, 9]), table(&[])] {
            assert_eq!(t.bytes_of(0, 585), 58_600);
            assert_eq!(t.bytes_of(64, 127), 6400);
            assert_eq!(t.page_at(Position::Byte(12_800)), 128);
            assert_eq!(t.page_at(Position::Byte(u64::MAX)), 585);
            assert_eq!(t.page_at(Position::Time(u64::MAX)), 585);
            assert_eq!(t.page_at(Position::Page(u64::MAX)), 585);
        }
    }
}
