//! Cuts what a transport delivers into pages, sans-IO. Where records are known and nothing is missing, pages are cut by
//! their lengths, without a search and without a copy; after a gap they are found by their capture pattern and
//! matched, in order, with the records of the assigned set. Parts of pages are kept until the rest of them came.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use icet::media::SLICE_PAGES;
use icet::{PageNo, PageRecord, PageSet, PeerKey, Slice};

pub(crate) use fragments::Fragments;
use fragments::Whole;

use crate::ogg::{SplitEvent, Splitter};
use crate::protocol::Piece;

mod fragments;

/// How far ahead of the expected page a page after a gap is looked for.
const SEARCH: u64 = 4096;
/// A batch is handed on when it has so many bytes, even if more pages are complete.
const BATCH: usize = 512 * 1024;

/// What the assembler has to say.
#[derive(Debug)]
pub(crate) enum Cut {
    /// Consecutive pages, cut but not checked.
    Run {
        first: PageNo,
        pages: Vec<Bytes>,
        /// Whether this host sent all of it, and answers for it. (Else it is one page, put together from several.)
        of_one_host: bool,
    },
    /// It cannot go on without this slice.
    NeedSlice(u64),
    /// It needs more bytes.
    NeedMore,
    /// The set is complete; what follows is superfluous.
    Finished,
}

/// Pages of a set that were not cut yet: runs, first and last.
struct Left {
    set: PageSet,
    runs: BTreeMap<PageNo, PageNo>,
}

impl Left {
    fn new(set: PageSet, end: PageNo) -> Left {
        let last = set.last.unwrap_or(u64::MAX).min(end.saturating_sub(1));
        let first = set.next_from(0).filter(|p| *p <= last && *p < end);
        Left { set, runs: first.map(|f| (f, last)).into_iter().collect() }
    }

    fn remove(&mut self, page: PageNo) {
        let Some((first, last)) = self.runs.range(..=page).next_back().map(|(a, b)| (*a, *b)) else { return };
        if last < page {
            return;
        }
        self.runs.remove(&first);
        if first < page {
            self.runs.insert(first, page - 1);
        }
        if let Some(next) = self.set.next_from(page + 1).filter(|p| *p <= last) {
            self.runs.insert(next, last);
        }
    }
}

/// Where slices come from: the store, in production.
pub(crate) trait Records {
    /// Slice `index`, if it is known.
    fn slice(&self, index: u64) -> Option<Arc<Slice>>;

    /// The record of a page of live media, if it is known; none if the media is a file.
    fn live(&self, _page: PageNo) -> Option<Option<PageRecord>> {
        None
    }
}

impl Records for crate::store::MediaStore {
    fn slice(&self, index: u64) -> Option<Arc<Slice>> {
        crate::store::MediaStore::slice(self, index)
    }

    fn live(&self, page: PageNo) -> Option<Option<PageRecord>> {
        self.is_live().then(|| self.span(page).map(|s| s.record))
    }
}

enum Mode {
    /// The next byte begins page `next`.
    Aligned(Queue),
    /// The next page may begin anywhere, and be any of the set from `next` on.
    Searching(Box<Splitter>),
}

/// See the module.
pub(crate) struct Assembler {
    set: PageSet,
    end: PageNo,
    next: Option<PageNo>,
    mode: Mode,
    cached: Option<Arc<Slice>>,
    /// A page that was found and waits for the slice that it may be in.
    waiting: Option<Bytes>,
    left: Left,
    /// Whose bytes these are.
    host: PeerKey,
    fragments: Arc<Mutex<Fragments>>,
    /// Pages of which a fragment came last, to be looked at.
    touched: VecDeque<PageNo>,
}

impl Assembler {
    /// For the pages of `set` below `end` that `host` sends. `aligned`: the first byte begins the first page. What is
    /// left of pages goes to `fragments`.
    pub(crate) fn new(
        set: PageSet,
        end: PageNo,
        aligned: bool,
        host: PeerKey,
        fragments: Arc<Mutex<Fragments>>,
    ) -> Assembler {
        let next = set.next_from(0).filter(|p| *p < end);
        let mode = if aligned { Mode::Aligned(Queue::default()) } else { Mode::Searching(Box::default()) };
        let (left, touched) = (Left::new(set, end), VecDeque::new());
        Assembler { set, end, next, mode, cached: None, waiting: None, left, host, fragments, touched }
    }

    /// Whether every page of the set was cut.
    pub(crate) fn is_finished(&self) -> bool {
        self.left.runs.is_empty()
    }

    /// A page of the set that is not asked for.
    pub(crate) fn leave_out(&mut self, page: PageNo) {
        self.left.remove(page);
    }

    /// A page of the set of which parts are kept, perhaps all.
    pub(crate) fn look_at(&mut self, page: PageNo) {
        self.touched.push_back(page);
    }

    fn kept(&self) -> MutexGuard<'_, Fragments> {
        self.fragments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the beginning of the page that broke off, if one did. With fragments that came it may make a page.
    pub(crate) fn keep_rest(&mut self) {
        let (Mode::Aligned(queue), Some(page)) = (&mut self.mode, self.next) else { return };
        if let Some(rest) = (queue.len > 0).then(|| queue.take(queue.len)).flatten() {
            self.keep(page, 0, &rest);
        }
    }

    fn keep(&mut self, page: PageNo, offset: usize, bytes: &[u8]) {
        self.kept().insert(page, offset, bytes, self.host);
        if self.touched.back() != Some(&page) {
            self.touched.push_back(page);
        }
    }

    /// Takes what the transport delivered.
    pub(crate) fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Bytes(b) => match &mut self.mode {
                Mode::Aligned(queue) => queue.push(b),
                Mode::Searching(splitter) => splitter.push(b),
            },
            Piece::Gap => {
                self.keep_rest();
                match &mut self.mode {
                    Mode::Aligned(_) => self.mode = Mode::Searching(Box::default()),
                    Mode::Searching(splitter) => splitter.gap(),
                }
            }
            Piece::Fragment { page, offset, bytes } => {
                if self.set.has(page) && page < self.end {
                    self.keep(page, offset as usize, &bytes);
                }
            }
            Piece::Page(page) => {
                let clean = match &self.mode {
                    Mode::Aligned(queue) => queue.len == 0,
                    Mode::Searching(_) => false,
                };
                if !clean || Some(page) != self.next {
                    // A hint only: a page outside the set, or behind us, is not believed.
                    if self.set.has(page) && page < self.end {
                        self.keep_rest();
                        self.next = Some(page);
                        self.mode = Mode::Aligned(Queue::default());
                    }
                }
            }
        }
    }

    /// The next run of pages, or what it waits for.
    pub(crate) fn next(&mut self, records: &impl Records) -> Cut {
        let mut run: Option<(PageNo, Vec<Bytes>)> = None;
        let mut bytes = 0;
        loop {
            let step = self.step(records);
            match step {
                Step::Whole(page, whole) => {
                    // Before any page that is cut: by itself, since another host may answer for it.
                    self.left.remove(page);
                    let (pages, of_one_host) = (vec![whole.bytes], whole.of_one_host);
                    return Cut::Run { first: page, pages, of_one_host };
                }
                Step::Page(page, data) => {
                    bytes += data.len();
                    self.left.remove(page);
                    self.next = self.set.next_from(page + 1).filter(|p| *p < self.end);
                    match &mut run {
                        None => run = Some((page, vec![data])),
                        Some((_, pages)) => pages.push(data),
                    }
                    let consecutive = self.next == Some(page + 1) && matches!(self.mode, Mode::Aligned(_));
                    if bytes >= BATCH || !consecutive {
                        break;
                    }
                }
                Step::Cut(cut) => match run {
                    None => return cut,
                    Some(_) => break,
                },
            }
        }
        match run {
            Some((first, pages)) => Cut::Run { first, pages, of_one_host: true },
            None => Cut::NeedMore,
        }
    }

    fn record(&mut self, records: &impl Records, page: PageNo) -> Option<PageRecord> {
        if let Some(record) = records.live(page) {
            return record;
        }
        let index = page / SLICE_PAGES;
        if self.cached.as_ref().is_none_or(|s| s.index != index) {
            self.cached = Some(records.slice(index)?);
        }
        let slice = self.cached.as_ref()?;
        usize::try_from(page % SLICE_PAGES).ok().and_then(|i| slice.records.get(i).copied())
    }

    fn step(&mut self, records: &impl Records) -> Step {
        if self.is_finished() {
            return Step::Cut(Cut::Finished);
        }
        while let Some(page) = self.touched.front().copied() {
            let Some(record) = self.record(records, page) else {
                return Step::Cut(Cut::NeedSlice(page / SLICE_PAGES));
            };
            self.touched.pop_front();
            let whole = self.kept().take(page, record.len as usize);
            if let Some(whole) = whole {
                return Step::Whole(page, whole);
            }
        }
        let Some(next) = self.next else {
            // What comes behind the last page is of no use; parts of pages before may still come.
            self.mode = Mode::Aligned(Queue::default());
            return Step::Cut(Cut::NeedMore);
        };
        if let Mode::Aligned(queue) = &self.mode {
            if queue.len == 0 {
                return Step::Cut(Cut::NeedMore);
            }
            let Some(record) = self.record(records, next) else {
                return Step::Cut(Cut::NeedSlice(next / SLICE_PAGES));
            };
            let Mode::Aligned(queue) = &mut self.mode else { return Step::Cut(Cut::NeedMore) };
            return match queue.take(record.len as usize) {
                Some(data) => Step::Page(next, data),
                None => Step::Cut(Cut::NeedMore),
            };
        }
        loop {
            let Mode::Searching(splitter) = &mut self.mode else { return Step::Cut(Cut::NeedMore) };
            let data = match self.waiting.take() {
                Some(data) => data,
                None => match splitter.next() {
                    Some(SplitEvent::Page { bytes, .. }) => bytes,
                    Some(SplitEvent::Skipped(_)) => continue,
                    None => return Step::Cut(Cut::NeedMore),
                },
            };
            match self.find(records, next, &data) {
                Ok(Some(page)) => return Step::Page(page, data),
                Ok(None) => {} // not of this set: left out
                Err(slice) => {
                    self.waiting = Some(data);
                    return Step::Cut(Cut::NeedSlice(slice));
                }
            }
        }
    }

    /// The first page of the set from `next` on that `data` could be; `Err`: a slice is needed to tell.
    fn find(&mut self, records: &impl Records, next: PageNo, data: &Bytes) -> Result<Option<PageNo>, u64> {
        let Some(crc) = data.get(22..26).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(u32::from_le_bytes)
        else {
            return Ok(None);
        };
        let set = PageSet { first: next, ..self.set };
        for page in set.iter(self.end.min(next.saturating_add(SEARCH))) {
            let Some(record) = self.record(records, page) else { return Err(page / SLICE_PAGES) };
            if record.crc == crc && record.len as usize == data.len() {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }
}

enum Step {
    Page(PageNo, Bytes),
    Whole(PageNo, Whole),
    Cut(Cut),
}

/// Pieces in a row. A page that lies within one piece is taken without a copy.
#[derive(Default)]
struct Queue {
    pieces: VecDeque<Bytes>,
    len: usize,
}

impl Queue {
    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.len += piece.len();
            self.pieces.push_back(piece);
        }
    }

    fn take(&mut self, n: usize) -> Option<Bytes> {
        if self.len < n {
            return None;
        }
        self.len -= n;
        let front = self.pieces.front_mut()?;
        if front.len() > n {
            return Some(front.split_to(n));
        }
        if front.len() == n {
            return self.pieces.pop_front();
        }
        let mut out = BytesMut::with_capacity(n);
        while out.len() < n {
            let front = self.pieces.front_mut()?;
            let part = front.len().min(n - out.len());
            out.extend_from_slice(&front[..part]);
            front.advance(part);
            if front.is_empty() {
                self.pieces.pop_front();
            }
        }
        Some(out.freeze())
    }
}

#[cfg(test)]
mod tests;
