//! What can go wrong with files, in sentences that say what to do.

use std::io;
use std::path::{Path, PathBuf};

use icet::PageNo;
use icet::media::MediaError;
use thiserror::Error;

/// Why the store could not do something.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk is full, or a quota is used up. Nothing that was not written counts as held.
    #[error("no space left for {path}: free some and start again, what is there is kept")]
    NoSpace {
        /// What could not grow.
        path: PathBuf,
    },
    /// Before a fetch: the file will not fit.
    #[error(
        "{path} needs {needed} more bytes, but its disk has {free}: free some, or choose another place with -o"
    )]
    TooLarge {
        /// Where it should go.
        path: PathBuf,
        /// Bytes that are missing yet.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The folder or file may not be written.
    #[error("{path} cannot be written ({source}): choose another place, or change its permissions")]
    ReadOnly {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file may not be read.
    #[error("{path} cannot be read ({source}): change its permissions, or run this as its owner")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The output is there already.
    #[error("{0} exists and is never overwritten: move it away, or choose another name with -o")]
    Exists(PathBuf),
    /// The folder for the output is not there.
    #[error("there is no folder {0}: create it, or choose another place with -o")]
    NoFolder(PathBuf),
    /// No file can have such a name.
    #[error("{0}: the name is too long for a file; choose another one with -o")]
    LongName(PathBuf),
    /// The part file belongs to another media.
    #[error(
        "{part} belongs to another media, {held}: move it and {part}.iceshare away, or choose another name with -o"
    )]
    OtherMedia {
        /// The part file.
        part: PathBuf,
        /// The path of the media that it belongs to.
        held: String,
    },
    /// The part file holds pages of another version.
    #[error(
        "{part} was begun with version {held} of the media, which has version {wanted} now: \
         remove it and {part}.iceshare to fetch the new one"
    )]
    OtherVersion {
        /// The part file.
        part: PathBuf,
        /// Version in it.
        held: u64,
        /// Version asked for.
        wanted: u64,
    },
    /// A file of unknown origin stands where the part file should go.
    #[error("{0} is there, but was not begun by iceshare: move it away, or choose another name with -o")]
    Foreign(PathBuf),
    /// Another process writes to it.
    #[error("{0} is being written by another iceshare: wait for it, or choose another name with -o")]
    InUse(PathBuf),
    /// A side file that cannot be what we wrote.
    #[error("{path} is damaged ({why}): remove it and start again")]
    Damaged {
        /// The side file.
        path: PathBuf,
        /// In which way.
        why: &'static str,
    },
    /// A slice that is not the publisher's.
    #[error(transparent)]
    Slice(#[from] MediaError),
    /// Not all pages are held.
    #[error("{missing} pages are still missing")]
    Incomplete {
        /// How many.
        missing: u64,
    },
    /// A file that is served in place was changed or moved.
    #[error("{0} was changed, moved or removed after it was scanned: publish it again")]
    Stale(PathBuf),
    /// The fetch was closed before.
    #[error("the fetch was closed")]
    Closed,
    /// Live media have no file to fetch.
    #[error("this media is a live stream: the store keeps files only")]
    NotAFile,
    /// Anything else that the system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    /// The error for `source`, as it came up when `doing` something with `path`.
    #[must_use]
    pub fn io(doing: &'static str, path: impl AsRef<Path>, source: io::Error) -> StoreError {
        let path = path.as_ref().to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                StoreError::NoSpace { path }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::ReadOnly { path, source }
            }
            _ => StoreError::Io { doing, path, source },
        }
    }

    /// The same where `path` was only read.
    #[must_use]
    pub fn reading(path: impl AsRef<Path>, source: io::Error) -> StoreError {
        match source.kind() {
            io::ErrorKind::PermissionDenied => {
                StoreError::Unreadable { path: path.as_ref().to_owned(), source }
            }
            _ => StoreError::io("read", path, source),
        }
    }
}

/// Why pages were not stored. None of the run was, then.
#[derive(Debug, Error)]
pub enum PutError {
    /// The page is not the one that the publisher signed: length, CRC or hash differ. Whoever sent it lies or is broken.
    #[error("page {page} was altered: it is not the page that the publisher signed")]
    Altered {
        /// Which page.
        page: PageNo,
    },
    /// The slice of the page is not known here yet: put the slice first, then the page again.
    #[error("page {page} cannot be checked yet: its slice is not known")]
    UnknownSlice {
        /// The first page that could not be checked.
        page: PageNo,
    },
    /// No such page.
    #[error("page {page} lies beyond the end of the media")]
    Beyond {
        /// Which page.
        page: PageNo,
    },
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}
