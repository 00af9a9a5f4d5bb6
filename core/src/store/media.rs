//! One media on this machine.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use icet::{MediaId, MediaPath, PageMap, PageNo, PageRecord, ProvenSlice, SignedManifest, Slice};
use tokio::sync::watch;

use super::{PutError, StoreError};

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

/// One media on this machine: its file, its page map, its slices. Shared by `Arc`, locked inside; methods do blocking
/// file IO, mostly at the speed of the page cache.
#[derive(Debug)]
pub struct MediaStore {
    manifest: SignedManifest,
    changed: watch::Sender<u64>,
}

impl MediaStore {
    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &SignedManifest {
        &self.manifest
    }

    /// The media's id.
    #[must_use]
    pub fn id(&self) -> MediaId {
        self.manifest.id()
    }

    /// The media's path on its tracker.
    #[must_use]
    pub fn path(&self) -> &MediaPath {
        &self.manifest.manifest().path
    }

    /// The file that its pages stand in (`FILE.part` while it is fetched).
    #[must_use]
    pub fn file(&self) -> PathBuf {
        PathBuf::new()
    }

    /// Whether `page` is held.
    #[must_use]
    pub fn has(&self, page: PageNo) -> bool {
        let _ = page;
        false
    }

    /// The page map as it is now.
    #[must_use]
    pub fn map(&self) -> PageMap {
        PageMap::new(self.manifest.pages)
    }

    /// Number of pages held.
    #[must_use]
    pub fn held(&self) -> u64 {
        0
    }

    /// Whether all pages are held.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        false
    }

    /// The slice with this index, if it is known here.
    #[must_use]
    pub fn slice(&self, index: u64) -> Option<Arc<Slice>> {
        let _ = index;
        None
    }

    /// The slice with its proof, as a host hands it out.
    #[must_use]
    pub fn proven_slice(&self, index: u64) -> Option<ProvenSlice> {
        let _ = index;
        None
    }

    /// Takes up a slice, after it was verified against the manifest.
    ///
    /// # Errors
    /// [`StoreError::Slice`] if it is not the publisher's; else the disk's.
    pub fn put_slice(&self, slice: &ProvenSlice) -> Result<Arc<Slice>, StoreError> {
        Ok(Arc::new(slice.verify(&self.manifest)?))
    }

    /// Where `page` stands; none if its slice is unknown here.
    #[must_use]
    pub fn span(&self, page: PageNo) -> Option<PageSpan> {
        let _ = page;
        None
    }

    /// The page that has the byte at `offset`; none beyond the end or if its slice is unknown here.
    #[must_use]
    pub fn page_at_byte(&self, offset: u64) -> Option<PageNo> {
        let _ = offset;
        None
    }

    /// The last page whose content starts at or before `us` microseconds; none if that is not known here.
    #[must_use]
    pub fn page_at_time(&self, us: u64) -> Option<PageNo> {
        let _ = us;
        None
    }

    /// Stores consecutive pages from `first` on, after all of them were checked against their records (length, CRC field and
    /// BLAKE3 of the whole). Returns how many of them are new. Nothing is copied on the way to the kernel.
    ///
    /// # Errors
    /// [`PutError`]; then none of the pages counts as held.
    pub fn put_pages(&self, first: PageNo, pages: &[Bytes]) -> Result<u64, PutError> {
        let _ = pages;
        Err(PutError::UnknownSlice { page: first })
    }

    /// Reads up to `len` bytes at `offset`; fewer only at the end of the media. The caller has checked that the pages are held.
    ///
    /// # Errors
    /// The disk's, and if a file served in place was changed.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let _ = (offset, len);
        Err(io::ErrorKind::NotFound.into())
    }

    /// As [`MediaStore::read`], into a buffer.
    ///
    /// # Errors
    /// As [`MediaStore::read`].
    pub fn read_into(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let _ = (offset, buf);
        Err(io::ErrorKind::NotFound.into())
    }

    /// A number that grows when pages or slices arrive.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Which parts are here, for a seek bar.
    #[must_use]
    pub fn table(&self) -> PageTable {
        let m = self.manifest.manifest();
        PageTable { pages: m.pages, bytes: m.bytes, duration: m.duration, runs: Vec::new() }
    }

    /// Whether a file served in place was changed, moved or removed since it was scanned: withdraw it then.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        false
    }

    /// Ends a complete fetch: syncs, and renames `FILE.part` to `FILE` (never over another file). The media can be served
    /// from there. Returns where the file is. Doing it twice does no harm.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`], [`StoreError::Exists`], or the disk's.
    pub fn finish(&self) -> Result<PathBuf, StoreError> {
        Err(StoreError::Incomplete { missing: self.manifest.pages })
    }

    /// Ends an unfinished fetch in an orderly way: syncs, and marks the part file as clean so that a later resume need not
    /// verify it again. Without it nothing is lost but that time. Nothing can be put afterwards.
    ///
    /// # Errors
    /// The disk's.
    pub fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
