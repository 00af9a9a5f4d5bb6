//! Cuts what a transport delivers into pages, sans-IO. Where records are known and nothing is missing, pages are cut by
//! their lengths, without a search and without a copy; after a gap they are found by their capture pattern and
//! matched, in order, with the records of the assigned set.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use icet::media::SLICE_PAGES;
use icet::{PageNo, PageRecord, PageSet, Slice};

use crate::ogg::{SplitEvent, Splitter};
use crate::protocol::Piece;

/// How far ahead of the expected page a page after a gap is looked for.
const SEARCH: u64 = 4096;
/// A batch is handed on when it has so many bytes, even if more pages are complete.
const BATCH: usize = 512 * 1024;

/// What the assembler has to say.
#[derive(Debug)]
pub(crate) enum Cut {
    /// Consecutive pages, cut but not checked.
    Run { first: PageNo, pages: Vec<Bytes> },
    /// It cannot go on without this slice.
    NeedSlice(u64),
    /// It needs more bytes.
    NeedMore,
    /// The set is complete; what follows is superfluous.
    Finished,
}

/// Where slices come from: the store, in production.
pub(crate) trait Records {
    /// Slice `index`, if it is known.
    fn slice(&self, index: u64) -> Option<Arc<Slice>>;
}

impl Records for crate::store::MediaStore {
    fn slice(&self, index: u64) -> Option<Arc<Slice>> {
        crate::store::MediaStore::slice(self, index)
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
}

impl Assembler {
    /// For the pages of `set` below `end`. `aligned`: the first byte begins the first page.
    pub(crate) fn new(set: PageSet, end: PageNo, aligned: bool) -> Assembler {
        let next = set.next_from(0).filter(|p| *p < end);
        let mode = if aligned { Mode::Aligned(Queue::default()) } else { Mode::Searching(Box::default()) };
        Assembler { set, end, next, mode, cached: None, waiting: None }
    }

    /// The page expected next; none at the end of the set.
    pub(crate) fn next_page(&self) -> Option<PageNo> {
        self.next
    }

    /// Takes what the transport delivered.
    pub(crate) fn push(&mut self, piece: Piece) {
        match piece {
            Piece::Bytes(b) => match &mut self.mode {
                Mode::Aligned(queue) => queue.push(b),
                Mode::Searching(splitter) => splitter.push(b),
            },
            Piece::Gap => match &mut self.mode {
                // What is left of a page that broke off is of no use.
                Mode::Aligned(_) => self.mode = Mode::Searching(Box::default()),
                Mode::Searching(splitter) => splitter.gap(),
            },
            Piece::Page(page) => {
                let clean = match &self.mode {
                    Mode::Aligned(queue) => queue.len == 0,
                    Mode::Searching(_) => false,
                };
                if !clean || Some(page) != self.next {
                    // A hint only: a page outside the set, or behind us, is not believed.
                    if let Some(at) = self.set.next_from(page).filter(|p| *p == page && *p < self.end) {
                        self.next = Some(at);
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
                Step::Page(page, data) => {
                    bytes += data.len();
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
            Some((first, pages)) => Cut::Run { first, pages },
            None => Cut::NeedMore,
        }
    }

    fn record(&mut self, records: &impl Records, page: PageNo) -> Option<PageRecord> {
        let index = page / SLICE_PAGES;
        if self.cached.as_ref().is_none_or(|s| s.index != index) {
            self.cached = Some(records.slice(index)?);
        }
        let slice = self.cached.as_ref()?;
        usize::try_from(page % SLICE_PAGES).ok().and_then(|i| slice.records.get(i).copied())
    }

    fn step(&mut self, records: &impl Records) -> Step {
        let Some(next) = self.next else { return Step::Cut(Cut::Finished) };
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
