//! One media on this machine.

use std::fs;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use bytes::Bytes;
use icet::media::SLICE_PAGES;
use icet::{MediaId, MediaPath, PageMap, PageNo, ProvenSlice, SignedManifest, Slice};
use tokio::sync::watch;

use super::cache::SliceCache;
use super::files::{Files, Pool};
use super::ring::Ring;
use super::side::{Map, Stamp};
use super::{PageSpan, PutError, StoreError, disk};
use crate::hash::hash_pages;

/// Most buffers that a system takes in one call (`IOV_MAX`).
const MOST_BUFFERS: usize = 1024;

/// One media on this machine: its file, its page map, its slices. Shared by `Arc`, locked inside; methods do blocking
/// file IO, mostly at the speed of the page cache.
///
/// Memory: one bit a page and one a slice while it is fetched, none for what was complete from the beginning, and the slices
/// used last (at most 1 MB). Records and Merkle hashes stay on disk.
#[derive(Debug)]
pub struct MediaStore {
    pub(super) manifest: SignedManifest,
    pub(super) id: MediaId,
    pool: Arc<Pool>,
    /// Held for reading while pages are written, so that nothing is written any more once it was held for writing.
    handle: RwLock<Handle>,
    /// Pages held; none: all.
    pages: RwLock<Option<PageMap>>,
    /// Slices known; none: all.
    slices: RwLock<Option<PageMap>>,
    cache: Mutex<SliceCache>,
    /// Where the pages of live media are.
    pub(super) ring: Option<Ring>,
    changed: watch::Sender<u64>,
    /// Grows when it becomes complete: whoever waits for that need not be woken by every page.
    completed: watch::Sender<u64>,
}

/// In which of its lives the media is.
#[derive(Debug)]
enum Handle {
    /// Being fetched, into `files`, whose name is `part`.
    Fetch { files: Arc<Files>, part: PathBuf, side: PathBuf, output: Output },
    /// Not fetched any more, though not complete.
    Closed { files: Arc<Files>, part: PathBuf, side: PathBuf, output: Output },
    /// Complete, and read from where it stands.
    Placed { files: Mutex<Weak<Files>>, path: PathBuf, side: PathBuf, stamp: Stamp },
    /// Live: pages are in the ring, in this folder.
    Live { dir: PathBuf },
}

/// Where a fetch ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    /// The file.
    pub(super) path: PathBuf,
    /// The side file, so that the media can be shared from now on.
    pub(super) side: PathBuf,
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl MediaStore {
    /// A media that is complete, at `path`.
    pub(super) fn placed(
        manifest: SignedManifest,
        pool: Arc<Pool>,
        path: PathBuf,
        side: PathBuf,
        stamp: Stamp,
    ) -> MediaStore {
        let handle = Handle::Placed { files: Mutex::default(), path, side, stamp };
        MediaStore::new(manifest, pool, handle, None, None)
    }

    /// A media that is being fetched, with what is held of it.
    pub(super) fn fetching(
        manifest: SignedManifest,
        pool: Arc<Pool>,
        files: Files,
        names: (PathBuf, PathBuf),
        output: Output,
        held: (PageMap, PageMap),
    ) -> MediaStore {
        let (part, side) = names;
        let handle = Handle::Fetch { files: Arc::new(files), part, side, output };
        MediaStore::new(manifest, pool, handle, Some(held.0), Some(held.1))
    }

    /// A live media, with what is held of it.
    pub(super) fn in_ring(manifest: SignedManifest, pool: Arc<Pool>, ring: Ring) -> MediaStore {
        let handle = Handle::Live { dir: ring.dir().to_owned() };
        let none = Some(PageMap::new(0));
        let mut media = MediaStore::new(manifest, pool, handle, none.clone(), none);
        media.ring = Some(ring);
        media
    }

    fn new(
        manifest: SignedManifest,
        pool: Arc<Pool>,
        handle: Handle,
        pages: Option<PageMap>,
        slices: Option<PageMap>,
    ) -> MediaStore {
        MediaStore {
            id: manifest.id(),
            manifest,
            pool,
            handle: RwLock::new(handle),
            pages: RwLock::new(pages),
            slices: RwLock::new(slices),
            cache: Mutex::default(),
            ring: None,
            changed: watch::Sender::new(0),
            completed: watch::Sender::new(0),
        }
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &SignedManifest {
        &self.manifest
    }

    /// The media's id.
    #[must_use]
    pub fn id(&self) -> MediaId {
        self.id
    }

    /// The media's path on its tracker.
    #[must_use]
    pub fn path(&self) -> &MediaPath {
        &self.manifest.manifest().path
    }

    /// The file that its pages stand in (`FILE.part` while it is fetched).
    #[must_use]
    pub fn file(&self) -> PathBuf {
        match &*read(&self.handle) {
            Handle::Fetch { part, .. } | Handle::Closed { part, .. } => part.clone(),
            Handle::Placed { path, .. } | Handle::Live { dir: path } => path.clone(),
        }
    }

    /// The file that the fetch ends in, or that the media is served from.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        match &*read(&self.handle) {
            Handle::Fetch { output, .. } | Handle::Closed { output, .. } => output.path.clone(),
            Handle::Placed { path, .. } | Handle::Live { dir: path } => path.clone(),
        }
    }

    /// Whether pages can still be put.
    pub(super) fn is_open(&self) -> bool {
        !matches!(&*read(&self.handle), Handle::Closed { .. })
    }

    /// Whether `page` is held.
    #[must_use]
    pub fn has(&self, page: PageNo) -> bool {
        if let Some(ring) = &self.ring {
            return ring.has(page);
        }
        read(&self.pages).as_ref().map_or(page < self.manifest.pages, |m| m.has(page))
    }

    /// The page map as it is now.
    #[must_use]
    pub fn map(&self) -> PageMap {
        read(&self.pages).clone().unwrap_or_else(|| PageMap::full(self.manifest.pages))
    }

    /// Looks at the page map without a copy; none: all pages are held. Nothing can be put meanwhile.
    pub(super) fn with_map<T>(&self, f: impl FnOnce(Option<&PageMap>) -> T) -> T {
        f(read(&self.pages).as_ref())
    }

    /// The first page from `from` on that is missing; none if all are held.
    #[must_use]
    pub fn first_missing(&self, from: PageNo) -> Option<PageNo> {
        if let Some(ring) = &self.ring {
            return Some(ring.first_missing(from));
        }
        read(&self.pages).as_ref().and_then(|m| m.first_missing(from))
    }

    /// The first page from `from` on that is held; none if none is.
    #[must_use]
    pub fn first_held(&self, from: PageNo) -> Option<PageNo> {
        if let Some(ring) = &self.ring {
            return ring.first_held(from);
        }
        let all = || Some(from).filter(|p| *p < self.manifest.pages);
        read(&self.pages).as_ref().map_or_else(all, |m| m.first_held(from))
    }

    /// Number of pages held.
    #[must_use]
    pub fn held(&self) -> u64 {
        if let Some(ring) = &self.ring {
            return ring.held();
        }
        read(&self.pages).as_ref().map_or(self.manifest.pages, PageMap::held)
    }

    /// Whether all pages are held; never of live media.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.ring.is_none() && read(&self.pages).as_ref().is_none_or(PageMap::is_full)
    }

    /// A number that grows when pages or slices arrive.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A number that grows when it becomes complete.
    #[must_use]
    pub fn completed(&self) -> watch::Receiver<u64> {
        self.completed.subscribe()
    }

    fn files(&self) -> io::Result<Arc<Files>> {
        match &*read(&self.handle) {
            Handle::Fetch { files, .. } | Handle::Closed { files, .. } => Ok(files.clone()),
            Handle::Live { .. } => Err(io::ErrorKind::Unsupported.into()),
            Handle::Placed { files, path, side, stamp } => {
                let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(open) = files.upgrade() {
                    return Ok(open);
                }
                let open = Arc::new(Files::open(path, side, *stamp)?);
                *files = Arc::downgrade(&open);
                self.pool.keep(open.clone());
                Ok(open)
            }
        }
    }

    fn cache(&self) -> MutexGuard<'_, SliceCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the slice with this index is known here.
    #[must_use]
    pub fn has_slice(&self, index: u64) -> bool {
        read(&self.slices).as_ref().map_or(index < self.manifest.slices(), |m| m.has(index))
    }

    /// The first slice from `from` on that is known here.
    pub(super) fn first_known_slice(&self, from: u64) -> Option<u64> {
        let all = || Some(from).filter(|i| *i < self.manifest.slices());
        read(&self.slices).as_ref().map_or_else(all, |m| m.first_held(from))
    }

    /// The slice with this index, if it is known here.
    #[must_use]
    pub fn slice(&self, index: u64) -> Option<Arc<Slice>> {
        if let Some(slice) = self.cache().get(index) {
            return Some(slice);
        }
        self.load(index).map(|(_, slice)| slice)
    }

    /// The slice with its proof, as a host hands it out.
    #[must_use]
    pub fn proven_slice(&self, index: u64) -> Option<ProvenSlice> {
        self.load(index).map(|(proven, _)| proven)
    }

    /// Reads a slice, and verifies it if it is not one of those used last; one that was damaged on disk is unknown from then on.
    fn load(&self, index: u64) -> Option<(ProvenSlice, Arc<Slice>)> {
        if !self.has_slice(index) {
            return None;
        }
        let slot = self.files().and_then(|f| f.side.read_slot(index));
        let known = self.cache().get(index);
        let why = match slot {
            Ok(Some(proven)) if let Some(slice) = known => return Some((proven, slice)),
            Ok(Some(proven)) => match proven.verify(&self.manifest) {
                Ok(slice) if slice.index == index => {
                    let slice = Arc::new(slice);
                    self.cache().put(slice.clone());
                    return Some((proven, slice));
                }
                Ok(_) => "another slice stands in its place".to_owned(),
                Err(e) => e.to_string(),
            },
            Ok(None) => "it is not there".to_owned(),
            Err(e) => e.to_string(),
        };
        tracing::warn!(media = %self.id, index, why, "a slice on disk is damaged");
        if let Some(known) = write(&self.slices).as_mut() {
            known.remove(index);
        }
        None
    }

    /// Takes up a slice, after it was verified against the manifest.
    ///
    /// # Errors
    /// [`StoreError::Slice`] if it is not the publisher's; else the disk's.
    pub fn put_slice(&self, proven: &ProvenSlice) -> Result<Arc<Slice>, StoreError> {
        let slice = Arc::new(proven.verify(&self.manifest)?);
        let index = slice.index;
        if self.has_slice(index) {
            return Ok(self.slice(index).unwrap_or(slice));
        }
        let handle = read(&self.handle);
        let Handle::Fetch { files, side, .. } = &*handle else { return Ok(slice) };
        let fail = |e| StoreError::io("write", side, e);
        files.side.write_slot(index, &proven.slice, &proven.proof).map_err(fail)?;
        if let Some(known) = write(&self.slices).as_mut()
            && known.insert(index)
        {
            files.side.write_map(Map::Slices, known, index, index).map_err(|e| {
                known.remove(index);
                fail(e)
            })?;
        }
        drop(handle);
        self.cache().put(slice.clone());
        self.bump();
        Ok(slice)
    }

    pub(super) fn bump(&self) {
        self.changed.send_modify(|generation| *generation += 1);
        if self.is_complete() {
            self.completed.send_modify(|times| *times += 1);
        }
    }

    /// Where `page` stands; none if its slice is unknown here.
    #[must_use]
    pub fn span(&self, page: PageNo) -> Option<PageSpan> {
        if let Some(ring) = &self.ring {
            return ring.span(page);
        }
        let slice = self.slice(page / SLICE_PAGES)?;
        let (record, offset) = slice.page(page)?;
        Some(PageSpan { offset, record, time: slice.time + record.time })
    }

    /// Stores consecutive pages from `first` on, after all of them were checked against their records: length, the CRC in the
    /// header, and BLAKE3 of the whole. (That the CRC fits the page was seen by the splitter that found it; a page with the
    /// publisher's hash has the publisher's CRC anyway.) Returns how many of them are new; others are not written again.
    /// Nothing is copied on the way to the kernel, and each run of new pages takes two calls: one for the pages, one for the map.
    ///
    /// # Errors
    /// [`PutError`]; then none of the pages counts as held that was not before.
    pub fn put_pages(&self, first: PageNo, pages: &[Bytes]) -> Result<u64, PutError> {
        if let Some(ring) = &self.ring {
            let new = ring.put_pages(first, pages)?;
            self.bump();
            return Ok(new);
        }
        let Some(start) = self.check_pages(first, pages)? else { return Ok(0) };
        let handle = read(&self.handle);
        let Handle::Fetch { files, part, side, .. } = &*handle else {
            let all_held = (first..).zip(pages).all(|(page, _)| self.has(page));
            return if all_held { Ok(0) } else { Err(StoreError::Closed.into()) };
        };
        let (mut new, mut offset, mut at) = (0, start, 0);
        while at < pages.len() {
            let page = first + at as u64;
            let held = self.has(page);
            let rest = &pages[at..];
            let run = (page..).zip(rest).take_while(|(p, _)| self.has(*p) == held).count().max(1);
            let bytes: u64 = rest[..run].iter().map(|b| b.len() as u64).sum();
            if !held {
                let turn = files.writing.lock().unwrap_or_else(PoisonError::into_inner);
                let written = write_all(&files.media, &rest[..run], offset);
                drop(turn);
                written.map_err(|e| StoreError::io("write", part, e))?;
                new += self
                    .mark(files, page, page + run as u64 - 1)
                    .map_err(|e| StoreError::io("write", side, e))?;
            }
            at += run;
            offset += bytes;
        }
        drop(handle);
        if new > 0 {
            self.bump();
        }
        Ok(new)
    }

    /// Checks all pages of a run; says where it begins, or none if it is empty.
    fn check_pages(&self, first: PageNo, pages: &[Bytes]) -> Result<Option<u64>, PutError> {
        if first >= self.manifest.pages {
            return Err(PutError::Beyond { page: first });
        }
        let mut slice: Option<Arc<Slice>> = None;
        let mut start = None;
        let hashes = hash_pages(pages);
        for ((page, bytes), hash) in (first..).zip(pages).zip(hashes) {
            if page >= self.manifest.pages {
                return Err(PutError::Beyond { page });
            }
            let index = page / SLICE_PAGES;
            if slice.as_ref().is_none_or(|s| s.index != index) {
                slice = self.slice(index);
            }
            let found = slice.as_ref().and_then(|s| s.page(page));
            let (record, offset) = found.ok_or(PutError::UnknownSlice { page })?;
            start.get_or_insert(offset);
            let crc = bytes.get(22..26).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
            if bytes.len() as u64 != u64::from(record.len)
                || crc != Some(record.crc)
                || crate::ogg::page::crc(bytes) != record.crc
                || hash != record.hash
            {
                return Err(PutError::Altered { page });
            }
        }
        Ok(start)
    }

    /// Notes that the pages `first ..= last` are held. If the map can't be written they are not.
    fn mark(&self, files: &Files, first: PageNo, last: PageNo) -> io::Result<u64> {
        let mut guard = write(&self.pages);
        let Some(map) = guard.as_mut() else { return Ok(0) };
        let new: Vec<PageNo> = (first..=last).filter(|p| map.insert(*p)).collect();
        // Under the lock, so that no older state of a word overtakes a newer one.
        if let Err(e) = files.side.write_map(Map::Pages, map, first, last) {
            new.iter().for_each(|p| {
                map.remove(*p);
            });
            return Err(e);
        }
        Ok(new.len() as u64)
    }

    /// Reads up to `len` bytes at `offset`; fewer only at the end of the media. The caller has checked that the pages are held.
    ///
    /// # Errors
    /// The disk's, and if a file served in place was changed ([`MediaStore::is_stale`] then says so too).
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        if let Some(ring) = &self.ring {
            return ring.read(offset, len);
        }
        let files = self.checked_files()?;
        let len = self.clamp(offset, len);
        let mut out = Vec::with_capacity(len);
        while out.len() < len {
            let at = offset + out.len() as u64;
            match rustix::io::pread(&files.media, rustix::buffer::spare_capacity(&mut out), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        out.truncate(len);
        Ok(out.into())
    }

    /// As [`MediaStore::read`], but only what the system has in memory: without a wait, so that no thread need be kept for it.
    /// None if it would have to wait for a disk, or cannot tell.
    #[must_use]
    pub fn read_ready(&self, offset: u64, len: usize) -> Option<io::Result<Bytes>> {
        if let Some(ring) = &self.ring {
            // Written moments ago: in the page cache.
            return Some(ring.read(offset, len));
        }
        let files = match &*read(&self.handle) {
            Handle::Fetch { files, .. } | Handle::Closed { files, .. } => files.clone(),
            Handle::Live { .. } => return None,
            Handle::Placed { files, .. } => files.lock().unwrap_or_else(PoisonError::into_inner).upgrade()?,
        };
        if let Err(e) = files.check(&self.file()) {
            return Some(Err(e));
        }
        files.read_ready(self.clamp(offset, len), offset).map(|out| Ok(out.into()))
    }

    /// As [`MediaStore::read`], into a buffer.
    ///
    /// # Errors
    /// As [`MediaStore::read`].
    pub fn read_into(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(ring) = &self.ring {
            let bytes = ring.read(offset, buf.len())?;
            buf.copy_from_slice(&bytes);
            return Ok(bytes.len());
        }
        let files = self.checked_files()?;
        let len = self.clamp(offset, buf.len());
        match super::side::read_at_most(&files.media, &mut buf[..len], offset)? {
            n if n < len => Err(io::ErrorKind::UnexpectedEof.into()),
            n => Ok(n),
        }
    }

    fn clamp(&self, offset: u64, len: usize) -> usize {
        let left = self.manifest.bytes.saturating_sub(offset);
        usize::try_from(left).unwrap_or(usize::MAX).min(len)
    }

    fn checked_files(&self) -> io::Result<Arc<Files>> {
        let files = self.files()?;
        if files.stamp.is_some() {
            files.check(&self.file())?;
        }
        Ok(files)
    }

    /// Where its side file is.
    pub(super) fn side_file(&self) -> PathBuf {
        match &*read(&self.handle) {
            Handle::Fetch { side, .. } | Handle::Closed { side, .. } | Handle::Placed { side, .. } => {
                side.clone()
            }
            Handle::Live { dir } => dir.clone(),
        }
    }

    /// Whether a file served in place was changed, moved or removed since it was scanned: withdraw it then.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        match &*read(&self.handle) {
            Handle::Placed { path, stamp, .. } => {
                fs::metadata(path).map(|m| Stamp::of(&m)).ok() != Some(*stamp)
            }
            _ => false,
        }
    }

    /// Ends a complete fetch: syncs, and renames `FILE.part` to `FILE` (never over another file). The media can be served
    /// from there. Returns where the file is. Doing it twice does no harm.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`], [`StoreError::Exists`], or the disk's.
    pub fn finish(&self) -> Result<PathBuf, StoreError> {
        let missing = self.manifest.pages - self.held();
        if missing > 0 {
            return Err(StoreError::Incomplete { missing });
        }
        // It may take long, and readers should not wait for it. Nothing but pages that came twice is written meanwhile.
        self.sync()?;
        let mut handle = write(&self.handle);
        let (files, part, side, output) = match &*handle {
            Handle::Placed { path, .. } => return Ok(path.clone()),
            Handle::Live { .. } => return Err(StoreError::Closed),
            Handle::Fetch { files, part, side, output } => (files.clone(), part, side, output),
            Handle::Closed { .. } => return Err(StoreError::Closed),
        };
        let path = output.path.clone();
        files.media.sync_data().map_err(|e| StoreError::io("sync", part, e))?;
        let stamp =
            files.media.metadata().map(|m| Stamp::of(&m)).map_err(|e| StoreError::reading(part, e))?;
        // First the side file says that all is there, then the name does: in between, a resume only has to rename again.
        place_side(&files, &path, stamp).map_err(|e| StoreError::io("write", side, e))?;
        disk::rename_new(part, &path).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => StoreError::Exists(path.clone()),
            _ => StoreError::io("rename", part, e),
        })?;
        let side = match move_side(side, &output.side) {
            Ok(()) => output.side.clone(),
            Err(e) => {
                // The user has the file; only sharing it after a restart suffers.
                tracing::warn!(side = %side.display(), "cannot keep the side file in the data directory: {e}");
                side.clone()
            }
        };
        let mut placed = Files::open(&path, &side, stamp).map(Arc::new);
        if let Ok(files) = &mut placed {
            self.pool.keep(files.clone());
        }
        let files = Mutex::new(placed.as_ref().map(Arc::downgrade).unwrap_or_default());
        *handle = Handle::Placed { files, path: path.clone(), side, stamp };
        *write(&self.pages) = None;
        drop(handle);
        self.bump();
        Ok(path)
    }

    /// Sees to it that what was fetched outlives a loss of power.
    fn sync(&self) -> Result<(), StoreError> {
        let (files, part) = match &*read(&self.handle) {
            Handle::Fetch { files, part, .. } => (files.clone(), part.clone()),
            _ => return Ok(()),
        };
        files.media.sync_data().map_err(|e| StoreError::io("sync", part, e))
    }

    /// Ends an unfinished fetch in an orderly way: syncs, and marks the part file as clean so that a later resume need not
    /// verify it again. Without it nothing is lost but that time. Nothing can be put afterwards. If no page is held, nothing of
    /// the fetch stays on disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn close(&self) -> Result<(), StoreError> {
        self.sync()?;
        let mut handle = write(&self.handle);
        let Handle::Fetch { files, part, side, output } = &*handle else { return Ok(()) };
        let sync = || {
            files.media.sync_data()?;
            if self.held() == 0 {
                // Under the lock of the side file, which goes last: it says whose the other is.
                disk::remove_own(part, &files.media)?;
                return disk::remove_own(side, files.side.file());
            }
            let stamp = Stamp::of(&files.media.metadata()?);
            files.side.set_state(false, Some(stamp))?;
            files.side.file().sync_data()?;
            files.side.file().unlock()
        };
        let result = sync().map_err(|e| StoreError::io("close", side, e));
        *handle = Handle::Closed {
            files: files.clone(),
            part: part.clone(),
            side: side.clone(),
            output: output.clone(),
        };
        result
    }
}

/// Of a fetch that was given up before its first page nothing stays.
impl Drop for MediaStore {
    fn drop(&mut self) {
        let begun = matches!(&*read(&self.handle), Handle::Fetch { .. });
        if begun && self.held() == 0 {
            // What is left in spite of that is found by the next one to fetch it.
            let _ = self.close();
        }
    }
}

#[cfg(test)]
impl MediaStore {
    /// Lets writes go somewhere else, e.g. to a disk that is full.
    pub(super) fn swap_media_file(&self, file: fs::File) {
        if let Handle::Fetch { files, .. } = &mut *write(&self.handle) {
            Arc::get_mut(files).unwrap().media = file;
        }
    }

    pub(super) fn has_open_files(&self) -> bool {
        match &*read(&self.handle) {
            Handle::Placed { files, .. } => files.lock().unwrap().strong_count() > 0,
            _ => true,
        }
    }
}

fn place_side(files: &Files, path: &Path, stamp: Stamp) -> io::Result<()> {
    files.side.set_origin(path)?;
    files.side.set_state(true, Some(stamp))?;
    files.side.file().sync_data()
}

/// Moves a side file, to another file system if need be.
pub(super) fn move_side(from: &Path, to: &Path) -> io::Result<()> {
    if from == to {
        return Ok(());
    }
    match fs::rename(from, to) {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
        other => return other.and_then(|()| disk::sync_folder(to)),
    }
    let (mut file, temp) = disk::temporary(to)?;
    let copied = fs::File::open(from)
        .and_then(|mut f| io::copy(&mut f, &mut file))
        .and_then(|_| file.sync_all())
        .and_then(|()| fs::rename(&temp, to));
    match copied {
        Ok(()) => fs::remove_file(from),
        Err(e) => {
            let _ = fs::remove_file(&temp);
            Err(e)
        }
    }
}

/// Writes all of `parts` one behind the other at `offset`, in as few calls as possible.
fn write_all(file: &fs::File, parts: &[Bytes], mut offset: u64) -> io::Result<()> {
    for parts in parts.chunks(MOST_BUFFERS) {
        let mut buffers: Vec<IoSlice<'_>> = parts.iter().map(|p| IoSlice::new(p)).collect();
        let mut left = &mut buffers[..];
        while !left.is_empty() {
            match rustix::io::pwritev(file, left, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    IoSlice::advance_slices(&mut left, n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}
