//! Publishing: a file becomes a signed media.

use std::path::PathBuf;
use std::sync::Arc;

use icet::{Identity, MediaPath, SignedManifest};
use thiserror::Error;

use crate::store::{MediaStore, Store, StoreError};

/// What to publish, as what.
#[derive(Debug, Clone)]
pub struct Publish {
    /// The file; it is served from where it stands.
    pub file: PathBuf,
    /// Its name on the tracker.
    pub path: MediaPath,
    /// Title for people; none: taken from the file's tags, else empty.
    pub title: Option<String>,
    /// If the file is damaged: write its clean pages into this new file, and publish that.
    pub repair_to: Option<PathBuf>,
}

/// How far a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanProgress {
    /// Bytes scanned.
    pub bytes: u64,
    /// Bytes of the file.
    pub total: u64,
    /// Pages found.
    pub pages: u64,
}

/// Why a file was not published.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A file that is ready to be announced: scanned, signed, and served from where it stands.
#[derive(Debug, Clone)]
pub struct Prepared {
    media: Arc<MediaStore>,
    rescanned: bool,
}

impl Prepared {
    /// The signed manifest.
    #[must_use]
    pub fn manifest(&self) -> &SignedManifest {
        self.media.manifest()
    }

    /// The media, complete: to be put on a shelf.
    #[must_use]
    pub fn media(&self) -> Arc<MediaStore> {
        self.media.clone()
    }

    /// Whether the file was read; false if it was known and has not changed.
    #[must_use]
    pub fn rescanned(&self) -> bool {
        self.rescanned
    }
}

/// Scans and signs a file, unless that was done before and the file has not changed since (same place, size and modification time).
/// The version is 1 at first, and one more whenever the content or the title has changed. Blocking; `progress` is called
/// about every MiB. Memory does not grow with the file.
///
/// # Errors
/// [`PublishError`]: not Ogg, damaged (with the offsets), unreadable, disk full.
pub fn scan(
    store: &Store,
    identity: &Identity,
    publish: &Publish,
    progress: &mut dyn FnMut(ScanProgress),
) -> Result<Prepared, PublishError> {
    let _ = (store, identity, publish, progress);
    Err(StoreError::NotAFile.into())
}
