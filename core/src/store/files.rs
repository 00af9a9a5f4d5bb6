//! Open files: always for what is fetched, on demand for what is served in place (there may be thousands of those).

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
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
}

impl Files {
    /// Opens what is served in place.
    pub(crate) fn open(media: &Path, side: &Path, stamp: Stamp) -> io::Result<Files> {
        let file = File::open(media)?;
        let (side, _) = Side::open(File::open(side)?).map_err(|e| match e {
            SideError::Io(e) => e,
            SideError::Damaged(why) => io::Error::other(StoreError::Damaged { path: side.to_owned(), why }),
            SideError::Blank => io::Error::other(StoreError::Damaged { path: side.to_owned(), why: "empty" }),
        })?;
        let files = Files { media: file, side, stamp: Some(stamp) };
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
    /// Reads at most as much of the media as the buffer takes, if that needs no wait for a disk; none if it does, or if the
    /// system cannot tell.
    pub(crate) fn read_ready(&self, buffer: &mut [u8], offset: u64) -> Option<usize> {
        use rustix::io::{Errno, ReadWriteFlags};
        let mut buffers = [io::IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.media, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
            Ok(n) => Some(n),
            // A file system in memory has no disk to wait for.
            Err(Errno::OPNOTSUPP) if rustix::fs::fstatfs(&self.media).is_ok_and(|s| s.f_type == TMPFS) => {
                rustix::io::pread(&self.media, buffer, offset).ok()
            }
            Err(_) => None,
        }
    }
}

/// `TMPFS_MAGIC` of Linux.
#[cfg(target_os = "linux")]
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

#[cfg(not(target_os = "linux"))]
impl Files {
    /// Other systems do not tell.
    pub(crate) fn read_ready(&self, _: &mut [u8], _: u64) -> Option<usize> {
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
