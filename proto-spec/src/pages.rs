//! Page numbers, and sets of them.

use std::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::limits;

/// Index of a page in the physical bitstream, from 0. Never a serial or Ogg sequence number: those collide.
pub type PageNo = u64;

/// Every `of`-th group of pages, beginning with group `index`. Group *g* is the pages `g * group .. (g+1) * group`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stripe {
    /// Which residue, `0 <= index < of`.
    pub index: u16,
    /// How many stripes there are, 1 to 1024.
    pub of: u16,
    /// Pages in a group, 1 to 65535.
    pub group: u16,
}

impl Stripe {
    /// A stripe within the allowed ranges, else none.
    #[must_use]
    pub fn new(index: u16, of: u16, group: u16) -> Option<Stripe> {
        (index < of && of <= 1024 && group >= 1).then_some(Stripe { index, of, group })
    }

    /// Whether `page` lies in the stripe.
    #[must_use]
    pub fn has(&self, page: PageNo) -> bool {
        page / u64::from(self.group) % u64::from(self.of) == u64::from(self.index)
    }
}

/// What an assignment orders and a request asks for: from `first` to `last` (inclusive), or open-ended, of one
/// stripe or of all pages. CBOR: `[first, last / null, ? [index, of, group]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageSet {
    /// First page.
    pub first: PageNo,
    /// Last page, inclusive; none: as they come, without end.
    pub last: Option<PageNo>,
    /// Only the pages of this stripe.
    pub stripe: Option<Stripe>,
}

impl PageSet {
    /// The pages `first ..= last`.
    #[must_use]
    pub fn range(first: PageNo, last: PageNo) -> PageSet {
        PageSet { first, last: Some(last), stripe: None }
    }

    /// Whether `page` belongs to the set.
    #[must_use]
    pub fn has(&self, page: PageNo) -> bool {
        page >= self.first && self.last.is_none_or(|l| page <= l) && self.stripe.is_none_or(|s| s.has(page))
    }

    /// The smallest page of the set that is `>= from`; none if the set (or the numbering, at 2^40) ends before.
    #[must_use]
    pub fn next_from(&self, from: PageNo) -> Option<PageNo> {
        let mut page = from.max(self.first);
        if let Some(s) = self.stripe {
            let (group, of) = (u64::from(s.group), u64::from(s.of));
            let at = page / group;
            let ahead = (u64::from(s.index) + of - at % of) % of;
            if ahead > 0 {
                page = at.checked_add(ahead)?.checked_mul(group)?;
            }
        }
        (page < limits::PAGES && self.last.is_none_or(|l| page <= l)).then_some(page)
    }

    /// The pages of the set below `end`, in order.
    pub fn iter(self, end: PageNo) -> impl Iterator<Item = PageNo> {
        let mut at = self.next_from(0).filter(|p| *p < end);
        std::iter::from_fn(move || {
            let page = at?;
            at = self.next_from(page + 1).filter(|p| *p < end);
            Some(page)
        })
    }

    /// How many pages of the set lie below `end`. Constant time.
    #[must_use]
    pub fn count(&self, end: PageNo) -> u64 {
        let end = self.last.map_or(end, |l| end.min(l.saturating_add(1)));
        if end <= self.first {
            return 0;
        }
        let Some(s) = self.stripe else { return end - self.first };
        let (group, of) = (u64::from(s.group), u64::from(s.of));
        // Pages of the stripe below x.
        let below = |x: u64| {
            let (cycle, rest) = (x / (group * of), x % (group * of));
            cycle * group + rest.saturating_sub(u64::from(s.index) * group).min(group)
        };
        below(end) - below(self.first)
    }
}

impl fmt::Display for PageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-", self.first)?;
        if let Some(last) = self.last {
            write!(f, "{last}")?;
        }
        if let Some(s) = self.stripe {
            write!(f, ";stripe={}/{}", s.index, s.of)?;
            if s.group != 1 {
                write!(f, "/{}", s.group)?;
            }
        }
        Ok(())
    }
}

impl<C> Encode<C> for PageSet {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(if self.stripe.is_some() { 3 } else { 2 })?.u64(self.first)?.encode_with(self.last, ctx)?;
        if let Some(s) = self.stripe {
            e.array(3)?.u16(s.index)?.u16(s.of)?.u16(s.group)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for PageSet {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        let n = d.array()?;
        let first = d.u64()?;
        let last: Option<u64> = d.decode_with(ctx)?;
        let stripe = match n {
            Some(2) => None,
            Some(3) if d.array()? == Some(3) => {
                Some(Stripe::new(d.u16()?, d.u16()?, d.u16()?).ok_or(crate::refuse("not a stripe"))?)
            }
            _ => return Err(crate::refuse("a page set is an array of 2 or 3")),
        };
        if first >= limits::PAGES || last.is_some_and(|l| l < first || l >= limits::PAGES) {
            return Err(crate::refuse("a page set ends before it begins, or beyond 2^40"));
        }
        Ok(PageSet { first, last, stripe })
    }
}

/// Sorted, disjoint, non-adjacent runs of pages: the wire form of a page map and of acknowledgements.
/// CBOR: an array of `uint`: for each run the number of missing pages before it (since the end of the previous
/// run; 0 only for the first) and its length (never 0). At most 16,384 runs. Pages from 2^40 on are left out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PageRanges(Vec<(PageNo, PageNo)>);

/// The part of a run that is below 2^40; none if nothing is, or if it ends before it begins.
fn clamp((first, last): (PageNo, PageNo)) -> Option<(PageNo, PageNo)> {
    let last = last.min(limits::PAGES - 1);
    (first <= last).then_some((first, last))
}

impl PageRanges {
    /// The empty set.
    #[must_use]
    pub fn new() -> PageRanges {
        PageRanges::default()
    }

    /// The pages `first ..= last`, none if it ends before it begins.
    #[must_use]
    pub fn one(first: PageNo, last: PageNo) -> PageRanges {
        PageRanges(clamp((first, last)).into_iter().collect())
    }

    /// From any order of pages or runs `(first, last)`, both inclusive; runs that end before they begin are left out.
    pub fn from_runs(runs: impl IntoIterator<Item = (PageNo, PageNo)>) -> PageRanges {
        let mut runs: Vec<_> = runs.into_iter().filter_map(clamp).collect();
        runs.sort_unstable();
        let mut out: Vec<(PageNo, PageNo)> = Vec::with_capacity(runs.len());
        for (a, b) in runs {
            match out.last_mut() {
                Some(l) if a <= l.1 + 1 => l.1 = l.1.max(b),
                _ => out.push((a, b)),
            }
        }
        PageRanges(out)
    }

    /// Adds `first ..= last` (nothing if it ends before it begins). Cheap at the end, linear elsewhere.
    pub fn insert(&mut self, first: PageNo, last: PageNo) {
        let Some((first, last)) = clamp((first, last)) else { return };
        match self.0.last_mut() {
            Some(l) if first >= l.0 && first <= l.1 + 1 => l.1 = l.1.max(last),
            Some(l) if first <= l.1 => {
                let runs = std::mem::take(&mut self.0);
                *self = PageRanges::from_runs(runs.into_iter().chain([(first, last)]));
            }
            _ => self.0.push((first, last)),
        }
    }

    /// Runs in order, both ends inclusive.
    pub fn runs(&self) -> impl ExactSizeIterator<Item = (PageNo, PageNo)> + '_ {
        self.0.iter().copied()
    }

    /// Pages in order.
    pub fn pages(&self) -> impl Iterator<Item = PageNo> + '_ {
        self.0.iter().flat_map(|(a, b)| *a..=*b)
    }

    /// Number of pages.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(a, b)| b - a + 1).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `page` is in the set.
    #[must_use]
    pub fn has(&self, page: PageNo) -> bool {
        let i = self.0.partition_point(|(a, _)| *a <= page);
        i > 0 && page <= self.0[i - 1].1
    }

    /// The last page.
    #[must_use]
    pub fn last(&self) -> Option<PageNo> {
        self.0.last().map(|(_, b)| *b)
    }

    /// Splits into sets of at most `n` runs each, so that each fits a message.
    pub fn chunks(&self, n: usize) -> impl Iterator<Item = PageRanges> + '_ {
        self.0.chunks(n.max(1)).map(|c| PageRanges(c.to_vec()))
    }
}

impl<C> Encode<C> for PageRanges {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2 * self.0.len() as u64)?;
        let mut at = 0;
        for (a, b) in &self.0 {
            e.u64(a - at)?.u64(b - a + 1)?;
            at = b + 1;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for PageRanges {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let n = d.array()?.ok_or(crate::refuse("page ranges have a definite length"))?;
        if n % 2 != 0 || n > 2 * limits::RANGES as u64 {
            return Err(crate::refuse("page ranges: an odd number, or too many"));
        }
        let mut out = Vec::new();
        let mut at = 0u64;
        for i in 0..n / 2 {
            let (skip, len) = (d.u64()?, d.u64()?);
            let first = at.checked_add(skip).filter(|_| skip > 0 || i == 0);
            let end = first.and_then(|f| f.checked_add(len)).filter(|e| len > 0 && *e <= limits::PAGES);
            let (Some(first), Some(end)) = (first, end) else {
                return Err(crate::refuse("page ranges: an empty run, or one beyond 2^40"));
            };
            out.push((first, end - 1));
            at = end;
        }
        Ok(PageRanges(out))
    }
}

/// Which pages of a file a peer holds: one bit a page, in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct PageMap {
    words: Vec<u64>,
    pages: u64,
    held: u64,
}

impl PageMap {
    /// An empty map of a media of `pages` pages.
    #[must_use]
    pub fn new(pages: u64) -> PageMap {
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or(usize::MAX);
        PageMap { words: vec![0; words], pages, held: 0 }
    }

    /// A full one.
    #[must_use]
    pub fn full(pages: u64) -> PageMap {
        let mut map = PageMap::new(pages);
        map.words.fill(u64::MAX);
        if !pages.is_multiple_of(64)
            && let Some(last) = map.words.last_mut()
        {
            *last = (1 << (pages % 64)) - 1;
        }
        map.held = pages;
        map
    }

    /// Pages of the media.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Pages held.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Whether all are held.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.held == self.pages
    }

    /// Whether `page` is held; false beyond the end.
    #[must_use]
    pub fn has(&self, page: PageNo) -> bool {
        let word = usize::try_from(page / 64).ok().and_then(|i| self.words.get(i));
        word.is_some_and(|w| w >> (page % 64) & 1 == 1)
    }

    /// Adds `page`; says whether it is new. Pages beyond the end are ignored.
    pub fn insert(&mut self, page: PageNo) -> bool {
        if page >= self.pages || self.has(page) {
            return false;
        }
        if let Some(w) = usize::try_from(page / 64).ok().and_then(|i| self.words.get_mut(i)) {
            *w |= 1 << (page % 64);
            self.held += 1;
        }
        true
    }

    /// Removes `page`; says whether it was held.
    pub fn remove(&mut self, page: PageNo) -> bool {
        if !self.has(page) {
            return false;
        }
        if let Some(w) = usize::try_from(page / 64).ok().and_then(|i| self.words.get_mut(i)) {
            *w &= !(1 << (page % 64));
            self.held -= 1;
        }
        true
    }

    /// Adds all of `ranges` that lie within the media; returns how many were new. Takes words, not pages, at a time.
    pub fn insert_all(&mut self, ranges: &PageRanges) -> u64 {
        let before = self.held;
        for (a, b) in ranges.runs() {
            let end = self.pages.min(b + 1);
            let mut at = a;
            while at < end {
                // The bits of this word from `at` to `end` or to its last one.
                let bits = (end - at).min(64 - at % 64);
                let mask = (u64::MAX >> (64 - bits)) << (at % 64);
                if let Some(w) = usize::try_from(at / 64).ok().and_then(|i| self.words.get_mut(i)) {
                    self.held += u64::from((mask & !*w).count_ones());
                    *w |= mask;
                }
                at += bits;
            }
        }
        self.held - before
    }

    /// The first held (`want = true`) or missing (`false`) page that is `>= from`.
    fn find(&self, from: PageNo, want: bool) -> Option<PageNo> {
        let flip = if want { 0 } else { u64::MAX };
        let mut i = usize::try_from(from / 64).ok()?;
        let mut word = (self.words.get(i)? ^ flip) & (u64::MAX << (from % 64));
        loop {
            if word != 0 {
                let page = i as u64 * 64 + u64::from(word.trailing_zeros());
                return (page < self.pages).then_some(page);
            }
            i += 1;
            word = self.words.get(i)? ^ flip;
        }
    }

    /// The first missing page that is `>= from`.
    #[must_use]
    pub fn first_missing(&self, from: PageNo) -> Option<PageNo> {
        self.find(from, false)
    }

    /// The first held page that is `>= from`.
    #[must_use]
    pub fn first_held(&self, from: PageNo) -> Option<PageNo> {
        self.find(from, true)
    }

    /// Held pages as runs.
    #[must_use]
    pub fn to_ranges(&self) -> PageRanges {
        let mut runs = Vec::new();
        let mut at = self.first_held(0);
        while let Some(first) = at {
            let end = self.first_missing(first).unwrap_or(self.pages);
            runs.push((first, end - 1));
            at = self.first_held(end);
        }
        PageRanges(runs)
    }

    /// The bits, 64 pages a word, least significant first.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}

impl fmt::Debug for PageMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageMap({}/{})", self.held, self.pages)
    }
}
