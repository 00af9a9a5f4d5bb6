//! Open files: always for what is fetched, on demand for what is served in place (there may be thousands of those).

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, PoisonError};

use super::StoreError;
use super::side::{Side, SideError, Stamp};

/// A media's file and its side file.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) media: File,
    pub(crate) side: Side,
    /// Set once the media is served in place: what its file must look like.
    pub(crate) stamp: Option<Stamp>,
    /// Held while pages are written: the system lets one write at a time into a file, and others would spin in it.
    pub(crate) writing: Mutex<()>,
    /// Whether they lie on a file system without a disk, once somebody asked.
    #[cfg(target_os = "linux")]
    in_memory: OnceLock<bool>,
}

impl Files {
    pub(crate) fn new(media: File, side: Side, stamp: Option<Stamp>) -> Files {
        Files {
            media,
            side,
            stamp,
            writing: Mutex::new(()),
            #[cfg(target_os = "linux")]
            in_memory: OnceLock::new(),
        }
    }

    /// Opens what is served in place.
    pub(crate) fn open(media: &Path, side: &Path, stamp: Stamp) -> io::Result<Files> {
        let file = File::open(media)?;
        let (side, _) = Side::open(File::open(side)?).map_err(|e| match e {
            SideError::Io(e) => e,
            SideError::Damaged(why) => io::Error::other(StoreError::Damaged { path: side.to_owned(), why }),
            SideError::Blank => io::Error::other(StoreError::Damaged { path: side.to_owned(), why: "empty" }),
        })?;
        let files = Files::new(file, side, Some(stamp));
        files.check(media)?;
        Ok(files)
    }

    /// That the open file was not changed.
    pub(crate) fn check(&self, path: &Path) -> io::Result<()> {
        match self.stamp {
            Some(stamp) if Stamp::of(&self.media.metadata()?) != stamp => {
                Err(io::Error::other(StoreError::Stale(path.to_owned())))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(target_os = "linux")]
impl Files {
    /// Reads `len` bytes of the media if that needs no wait for a disk; none if it does, if the system cannot tell, or if the
    /// media is shorter.
    pub(crate) fn read_ready(&self, len: usize, offset: u64) -> Option<Vec<u8>> {
        use rustix::io::ReadWriteFlags;
        if self.is_in_memory() {
            let mut out = Vec::with_capacity(len);
            let n = rustix::io::pread(&self.media, rustix::buffer::spare_capacity(&mut out), offset).ok()?;
            return (n >= len).then(|| {
                out.truncate(len);
                out
            });
        }
        let mut out = vec![0; len];
        let mut buffers = [io::IoSliceMut::new(&mut out)];
        let n = rustix::io::preadv2(&self.media, &mut buffers, offset, ReadWriteFlags::NOWAIT).ok()?;
        (n == len).then_some(out)
    }

    /// Whether the file system has no disk to wait for.
    fn is_in_memory(&self) -> bool {
        let tell = || rustix::fs::fstatfs(&self.media).is_ok_and(|s| s.f_type == TMPFS);
        *self.in_memory.get_or_init(tell)
    }
}

/// `TMPFS_MAGIC` of Linux.
#[cfg(target_os = "linux")]
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

#[cfg(not(target_os = "linux"))]
impl Files {
    /// Other systems do not tell.
    pub(crate) fn read_ready(&self, _: usize, _: u64) -> Option<Vec<u8>> {
        None
    }
}

/// Most media that are kept open although nobody reads them just now; two descriptors each.
const MOST: usize = 128;

/// Keeps files open that were opened last.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<VecDeque<Arc<Files>>>);

impl Pool {
    pub(crate) fn keep(&self, files: Arc<Files>) {
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.push_back(files);
        if pool.len() > MOST {
            pool.pop_front();
        }
    }
}
