//! Pages of live media on disk: a ring over a window of time, addressed by page and by byte offset. Files have a fixed length;
//! those that lie before the window are removed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use icet::live::{SignedBatch, SignedHead};
use icet::{PageFlags, PageNo, PageRecord, limits};

use super::{PageSpan, PutError, StoreError};
use crate::live::{Chain, ChainError, Taken};

/// Bytes of the bitstream in one file.
const SEGMENT: u64 = 1 << 22;

/// Links of which only a head told, at most: a joiner needs two of them.
const TOLD: usize = 8;

/// Records in memory, at most (each some 60 bytes): then the older half goes, whatever the window.
const RECORDS: usize = 1 << 18;

/// How much of a live media is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// So much media time behind the newest page.
    pub time: Duration,
    /// So many bytes at most.
    pub bytes: u64,
}

impl Default for Window {
    /// 30 minutes, of 1 GiB at most.
    fn default() -> Window {
        Window { time: Duration::from_secs(30 * 60), bytes: 1 << 30 }
    }
}

/// The ring. Shared, locked inside; methods do blocking file IO, at the speed of the page cache.
#[derive(Debug)]
pub(crate) struct Ring {
    dir: PathBuf,
    window: Window,
    state: RwLock<State>,
    segments: RwLock<BTreeMap<u64, Arc<File>>>,
    /// What was read last, and where it lies: those who listen want the same newest pages, all at once.
    newest: Mutex<(u64, Bytes)>,
    /// Removed when the ring is dropped: it is nobody's journal.
    transient: bool,
    /// Keeps others out of the folder.
    lock: File,
}

#[derive(Debug, Default)]
struct State {
    chain: Chain,
    /// Runs of pages held, first to last.
    held: BTreeMap<PageNo, PageNo>,
    /// Setup pages of each link of which there may be pages, by the first of them. Never empty once there was one.
    setups: BTreeMap<PageNo, Setup>,
    /// The last head that was taken.
    head: Option<SignedHead>,
}

/// Setup pages of a link: in memory where they lie before the window.
#[derive(Debug, Clone)]
struct Setup {
    first: PageNo,
    offset: u64,
    time: i64,
    /// Times count from `time`.
    pages: Vec<(PageRecord, Option<Bytes>)>,
}

impl Setup {
    fn get(&self, page: PageNo) -> Option<(PageSpan, &Option<Bytes>)> {
        let i = usize::try_from(page.checked_sub(self.first)?).ok()?;
        let (record, bytes) = self.pages.get(i)?;
        let before: u64 = self.pages.get(..i)?.iter().map(|(r, _)| u64::from(r.len)).sum();
        let span = PageSpan { offset: self.offset + before, record: *record, time: self.time + record.time };
        Some((span, bytes))
    }

    fn has(&self, page: PageNo) -> bool {
        self.get(page).is_some_and(|(_, bytes)| bytes.is_some())
    }

    fn is_in_memory(&self) -> bool {
        self.pages.iter().all(|(_, bytes)| bytes.is_some())
    }

    fn end(&self) -> PageNo {
        self.first + self.pages.len() as u64
    }

    /// Bytes of the bitstream, if all of them are of pages held here.
    fn read(&self, offset: u64, len: usize) -> Option<Bytes> {
        let mut at = self.offset;
        let mut out = Vec::new();
        for (record, bytes) in &self.pages {
            let end = at + u64::from(record.len);
            let want = offset + out.len() as u64;
            if end > want && at <= want {
                let from = usize::try_from(want - at).ok()?;
                let rest = bytes.as_ref()?.get(from..)?;
                out.extend_from_slice(rest.get(..rest.len().min(len - out.len()))?);
            }
            at = end;
            if out.len() == len {
                return Some(out.into());
            }
        }
        None
    }
}

fn is_page(bytes: &[u8], record: &PageRecord) -> bool {
    let crc = bytes.get(22..26).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    bytes.len() as u64 == u64::from(record.len)
        && crc == Some(record.crc)
        && crate::ogg::page::crc(bytes) == record.crc
        && *blake3::hash(bytes).as_bytes() == record.hash.0
}

impl State {
    fn span(&self, page: PageNo) -> Option<PageSpan> {
        let place = self.chain.place(page);
        place.map(|p| PageSpan { offset: p.offset, record: p.record, time: p.time }).or_else(|| {
            let (span, _) = self.setup_at(page)?.get(page)?;
            Some(span)
        })
    }

    /// Setup of the link that `page` is in, as far as is known.
    fn setup_at(&self, page: PageNo) -> Option<&Setup> {
        self.setups.range(..=page).next_back().map(|(_, setup)| setup)
    }

    fn run_of(&self, page: PageNo) -> Option<PageNo> {
        self.held.range(..=page).next_back().map(|(_, last)| *last).filter(|last| page <= *last)
    }

    fn has(&self, page: PageNo) -> bool {
        self.run_of(page).is_some() || self.setup_at(page).is_some_and(|s| s.has(page))
    }

    fn mark(&mut self, page: PageNo) -> bool {
        if self.run_of(page).is_some() {
            return false;
        }
        let last = self.held.remove(&(page + 1)).unwrap_or(page);
        match self.held.range_mut(..page).next_back() {
            Some((_, before)) if *before + 1 == page => *before = last,
            _ => {
                self.held.insert(page, last);
            }
        }
        true
    }

    /// Knows the setup pages of a link from a head. False if it knew them, or batches tell.
    fn setup_of(&mut self, head: &SignedHead) -> bool {
        let less = self.setups.get(&head.link).is_none_or(|s| s.pages.len() < head.setup.len());
        // With batches, it is the link in which they begin, or one that is over.
        let of_use = self
            .chain
            .base()
            .is_none_or(|base| head.link < base && self.setups.range(head.link + 1..=base).next().is_none());
        if !less || !of_use {
            return false;
        }
        let known = self.setups.remove(&head.link).map(|s| s.pages).unwrap_or_default();
        let kept = known.into_iter().map(|(_, bytes)| bytes).chain(std::iter::repeat(None));
        let pages = head.setup.iter().copied().zip(kept).collect();
        let setup = Setup { first: head.link, offset: head.link_offset, time: head.link_time, pages };
        self.setups.insert(head.link, setup);
        while self.chain.is_empty() && self.setups.len() > TOLD {
            self.setups.pop_first();
        }
        true
    }

    /// Looks for the beginnings of links, and for their setup pages, in a batch.
    fn follow_links(&mut self, batch: &SignedBatch) {
        for (page, record) in (batch.first..).zip(&batch.records) {
            let span = self.chain.place(page);
            let before = page.checked_sub(1).and_then(|p| self.chain.place(p));
            let after_data = page == 0 || before.is_some_and(|b| !b.record.flags.has(PageFlags::BOS));
            if record.flags.has(PageFlags::BOS) && after_data && !self.setups.contains_key(&page) {
                let Some(place) = span else { continue };
                let setup = Setup { first: page, offset: place.offset, time: place.time, pages: Vec::new() };
                self.setups.insert(page, setup);
            }
            let Some(setup) = self.setups.range_mut(..=page).next_back().map(|(_, setup)| setup) else {
                continue;
            };
            if record.flags.has(PageFlags::SETUP) && (setup.end()..setup.first + 64).contains(&page) {
                for p in setup.end()..=page {
                    let Some(place) = self.chain.place(p) else { return };
                    let record = PageRecord { time: place.time - setup.time, ..place.record };
                    setup.pages.push((record, None));
                }
            }
        }
    }
}

impl Ring {
    /// A ring in the folder `dir`, of which `lock` keeps others out.
    pub(crate) fn new(dir: PathBuf, window: Window, transient: bool, lock: File) -> Ring {
        let (state, segments) = (RwLock::default(), RwLock::default());
        Ring { dir, window, state, segments, newest: Mutex::default(), transient, lock }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What keeps others out of the folder, for another ring there.
    pub(crate) fn lock(&self) -> io::Result<File> {
        self.lock.try_clone()
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a batch whose signature was checked.
    pub(crate) fn put_batch(&self, batch: SignedBatch) -> Result<Taken, ChainError> {
        let mut state = self.state_mut();
        let copy = batch.clone();
        let taken = state.chain.take(batch)?;
        if taken == Taken::New {
            state.follow_links(&copy);
            self.slide(&mut state);
        }
        Ok(taken)
    }

    /// Takes a head whose signature was checked: where to begin, and the setup of its link. False if it tells nothing new.
    pub(crate) fn put_head(&self, head: &SignedHead) -> bool {
        let mut state = self.state_mut();
        let setup = state.setup_of(head);
        if state.head.as_ref().is_some_and(|h| head.next < h.next) {
            return setup;
        }
        state.head = Some(head.clone());
        true
    }

    /// Forgets everything but the setup of the current link, to begin anew at `page`. False if that follows what is known.
    pub(crate) fn begin_anew(&self, page: PageNo) -> bool {
        let mut state = self.state_mut();
        if state.chain.last().is_none_or(|b| page <= b.next()) {
            return false;
        }
        // Of the links before, the last may still be on.
        let last = state.setups.keys().next_back().copied();
        last.into_iter().for_each(|first| self.remember(&mut state, first));
        state.setups.retain(|first, _| Some(*first) == last);
        (state.chain, state.held) = (Chain::default(), BTreeMap::new());
        if let Some(head) = state.head.clone() {
            state.setup_of(&head);
        }
        let segments = std::mem::take(&mut *self.segments.write().unwrap_or_else(PoisonError::into_inner));
        for index in segments.into_keys() {
            // A file that stays costs its room only.
            let _ = fs::remove_file(self.segment_path(index));
        }
        true
    }

    /// Checks and keeps consecutive pages; says how many are new.
    pub(crate) fn put_pages(&self, first: PageNo, pages: &[Bytes]) -> Result<u64, PutError> {
        let mut spans = Vec::with_capacity(pages.len());
        {
            let state = self.state();
            for (page, bytes) in (first..).zip(pages) {
                let span = state.span(page).ok_or(PutError::UnknownSlice { page })?;
                if !is_page(bytes, &span.record) {
                    return Err(PutError::Altered { page });
                }
                spans.push(span);
            }
        }
        for (span, bytes) in spans.iter().zip(pages) {
            self.write(span.offset, bytes)?;
        }
        let mut state = self.state_mut();
        let mut new = 0;
        for (page, bytes) in (first..).zip(pages) {
            if state.chain.base().is_some_and(|b| page >= b) {
                new += u64::from(state.mark(page));
            } else if let Some((_, setup)) = state.setups.range_mut(..=page).next_back()
                && let Some((_, kept)) =
                    page.checked_sub(setup.first).and_then(|i| setup.pages.get_mut(usize::try_from(i).ok()?))
            {
                // What lies before the first record is here for its setup only.
                new += u64::from(kept.replace(bytes.clone()).is_none());
            }
        }
        self.slide(&mut state);
        Ok(new)
    }

    /// Takes the setup pages of the link that begins with `first` into memory: their files may go.
    fn remember(&self, state: &mut State, first: PageNo) {
        let Some(mut setup) = state.setups.remove(&first) else { return };
        let mut at = setup.offset;
        for (page, (record, kept)) in (setup.first..).zip(&mut setup.pages) {
            if kept.is_none() && state.run_of(page).is_some() {
                *kept = self.read_segments(at, record.len as usize).ok().filter(|b| is_page(b, record));
            }
            at += u64::from(record.len);
        }
        state.setups.insert(first, setup);
    }

    /// Forgets what lies before the window.
    fn slide(&self, state: &mut State) {
        // Records may be far ahead of pages: what is to come by them stays.
        let newest = state.held.last_key_value().and_then(|(_, last)| state.chain.place(*last));
        let (newest, end) = match newest {
            Some(page) => (page.time, page.offset + u64::from(page.record.len)),
            None if state.chain.records() > RECORDS => (i64::MIN, 0),
            None => return,
        };
        let window = i64::try_from(self.window.time.as_micros()).unwrap_or(i64::MAX);
        let (oldest, least) = (newest.saturating_sub(window), end.saturating_sub(self.window.bytes));
        let keep = |b: &SignedBatch| {
            let last = b.records.last().map_or(b.time, |r| b.time + r.time);
            last >= oldest && b.offset >= least
        };
        let Some(mut first) = state.chain.batches().find(|b| keep(b)).map(|b| b.first) else { return };
        if state.chain.records() > RECORDS {
            let half = state.chain.batches().rev().take(state.chain.len() / 2);
            first = half.last().map_or(first, |b| b.first).max(first);
        }
        if state.chain.base() >= Some(first) {
            return;
        }
        if let Some(link) = state.setups.range(..=first).next_back().map(|(link, _)| *link) {
            state.setups = state.setups.split_off(&link);
            if state.setups.get(&link).is_some_and(|s| !s.is_in_memory()) {
                self.remember(state, link);
            }
        }
        state.chain.forget_before(first);
        let rest = state.held.split_off(&first);
        let cut = state.held.last_key_value().map(|(_, last)| *last).filter(|last| *last >= first);
        state.held = rest;
        if let Some(last) = cut {
            state.held.insert(first, last);
        }
        let Some(from) = state.chain.batches().next().map(|b| b.offset / SEGMENT) else { return };
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let kept = segments.split_off(&from);
        for index in std::mem::replace(&mut *segments, kept).into_keys() {
            // A file that stays costs its room only.
            let _ = fs::remove_file(self.segment_path(index));
        }
    }

    fn segment_path(&self, index: u64) -> PathBuf {
        self.dir.join(format!("{index:010}.pages"))
    }

    fn segment(&self, index: u64, create: bool) -> io::Result<Arc<File>> {
        if let Some(file) = self.segments.read().unwrap_or_else(PoisonError::into_inner).get(&index) {
            return Ok(file.clone());
        }
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = segments.get(&index) {
            return Ok(file.clone());
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).truncate(false);
        let file = Arc::new(options.open(self.segment_path(index))?);
        segments.insert(index, file.clone());
        Ok(file)
    }

    /// Writes bytes where they belong, before anything says that they are there.
    pub(crate) fn write(&self, offset: u64, mut bytes: &[u8]) -> Result<(), StoreError> {
        {
            let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            if offset < newest.0 + newest.1.len() as u64 && newest.0 < offset + bytes.len() as u64 {
                *newest = (0, Bytes::new());
            }
        }
        let mut at = offset;
        while !bytes.is_empty() {
            let (index, within) = (at / SEGMENT, at % SEGMENT);
            let n = usize::try_from(SEGMENT - within).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(n);
            self.segment(index, true)
                .and_then(|f| write_all(&f, now, within))
                .map_err(|e| StoreError::io("write", self.segment_path(index), e))?;
            (bytes, at) = (rest, at + n as u64);
        }
        Ok(())
    }

    fn read_segments(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut out = vec![0; len];
        let mut at = 0;
        while at < len {
            let place = offset + at as u64;
            let (index, within) = (place / SEGMENT, place % SEGMENT);
            let n = usize::try_from(SEGMENT - within).unwrap_or(usize::MAX).min(len - at);
            let part = out.get_mut(at..at + n).unwrap_or_default();
            let read = super::side::read_at_most(&*self.segment(index, false)?, part, within)?;
            if read < n {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += n;
        }
        Ok(out.into())
    }

    /// `len` bytes of pages that are held. (At most the largest answer at once: the caller's affair.)
    pub(crate) fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let newest = || self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |(at, bytes): &(u64, Bytes)| {
            let from = usize::try_from(offset.checked_sub(*at)?).ok()?;
            let to = from.checked_add(len).filter(|to| *to <= bytes.len())?;
            Some(bytes.slice(from..to))
        };
        if let Some(bytes) = known(&newest()) {
            return Ok(bytes);
        }
        if let Some(bytes) = self.state().setups.values().find_map(|s| s.read(offset, len)) {
            return Ok(bytes);
        }
        let bytes = self.read_segments(offset, len)?;
        *newest() = (offset, bytes.clone());
        Ok(bytes)
    }

    pub(crate) fn has(&self, page: PageNo) -> bool {
        self.state().has(page)
    }

    pub(crate) fn held(&self) -> u64 {
        self.state().held.iter().map(|(a, b)| b - a + 1).sum()
    }

    pub(crate) fn span(&self, page: PageNo) -> Option<PageSpan> {
        self.state().span(page)
    }

    pub(crate) fn first_missing(&self, from: PageNo) -> PageNo {
        let state = self.state();
        let mut page = from;
        while state.has(page) {
            page = state.run_of(page).unwrap_or(page) + 1;
        }
        page
    }

    pub(crate) fn first_held(&self, from: PageNo) -> Option<PageNo> {
        let state = self.state();
        if state.has(from) {
            return Some(from);
        }
        let next = state.held.range(from..).next().map(|(first, _)| *first);
        let setup =
            state.setups.values().find_map(|s| (s.first.max(from)..s.end().max(from)).find(|p| s.has(*p)));
        next.into_iter().chain(setup).min()
    }

    /// The last page held.
    pub(crate) fn last_held(&self) -> Option<PageNo> {
        self.state().held.last_key_value().map(|(_, last)| *last)
    }

    /// The page behind the last of a broadcast that ended, as far as is known.
    pub(crate) fn end(&self) -> PageNo {
        let state = self.state();
        let ended = state.chain.last().filter(|b| b.ends);
        ended.map_or(limits::PAGES, |b| b.next())
    }

    /// The batch that has a page, or says that none has.
    pub(crate) fn batch_of(&self, page: PageNo) -> Option<SignedBatch> {
        self.state().chain.batch_of(page).cloned()
    }

    /// The first page with a record.
    pub(crate) fn base(&self) -> Option<PageNo> {
        self.state().chain.base()
    }

    /// The page behind the last with a record.
    pub(crate) fn next_record(&self) -> Option<PageNo> {
        self.state().chain.last().map(|b| b.next())
    }

    /// Setup pages of the current link: the first, and the one behind the last.
    pub(crate) fn setup(&self) -> Option<(PageNo, PageNo)> {
        self.setup_at(PageNo::MAX)
    }

    /// Those of the link that `page` is in.
    pub(crate) fn setup_at(&self, page: PageNo) -> Option<(PageNo, PageNo)> {
        self.state().setup_at(page).map(|s| (s.first, s.end()))
    }

    /// Whether the last head said that no page comes any more; none without a head.
    pub(crate) fn ended_by_head(&self) -> Option<bool> {
        self.state().head.as_ref().map(|h| h.ended == Some(true))
    }

    /// Media time behind the newest page that is known of, held or not.
    pub(crate) fn newest_time(&self) -> Option<i64> {
        let state = self.state();
        let known = state.chain.last().map(|b| b.records.last().map_or(b.time, |r| b.time + r.time));
        state.head.as_ref().map(|h| h.time).into_iter().chain(known).max()
    }

    pub(crate) fn page_at_byte(&self, offset: u64) -> Option<PageNo> {
        self.state().chain.page_at_byte(offset)
    }

    pub(crate) fn page_at_time(&self, us: u64) -> Option<PageNo> {
        self.state().chain.page_at_time(i64::try_from(us).unwrap_or(i64::MAX))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.transient {
            // What stays is swept by the next one.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn write_all(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = bytes.get(n..).unwrap_or_default();
                offset += n as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
