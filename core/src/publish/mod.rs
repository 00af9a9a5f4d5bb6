//! Publishing: a file becomes a signed media.

mod repair;
mod scan;
mod tree;

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use icet::media::MediaError;
use icet::{Identity, MediaId, MediaPath, SignedManifest};
use thiserror::Error;

pub(crate) use scan::{flags, sign, streams};

use crate::ogg::{Damage, ScanError};
use crate::store::{MediaStore, Store, StoreError, disk};

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

/// Damages that an error lists; the others are only counted.
pub const LISTED_DAMAGES: usize = 20;

/// Why a file was not published.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// Where the repaired copy should go, there is another file.
    #[error("{0} is there, and is not the repaired copy of the file as it is now: move it away")]
    NotTheCopy(PathBuf),
    /// It is a folder, a device or the like.
    #[error("{0} is not a file: name an Ogg file, or share a folder with serve")]
    NotAFile(PathBuf),
    /// Something else than Ogg.
    #[error("{file} is not an Ogg file: no Ogg page in its first {searched} bytes")]
    NotOgg {
        /// Which.
        file: PathBuf,
        /// How far was searched.
        searched: u64,
    },
    /// Ogg, but damaged.
    #[error("{file} is damaged in {count} place{s}: {list}; `iceshare publish --repair` publishes a copy of its clean pages", s = if *count == 1 { "" } else { "s" }, list = listed(damages, *count))]
    Damaged {
        /// Which.
        file: PathBuf,
        /// The first damages, at most [`LISTED_DAMAGES`].
        damages: Vec<Damage>,
        /// How many there are.
        count: u64,
    },
    /// More than a media may have.
    #[error("{file} has more than {limit} pages, the most that a media can have", limit = icet::limits::FILE_PAGES)]
    TooManyPages {
        /// Which.
        file: PathBuf,
    },
    /// Somebody wrote to it.
    #[error("{0} changed while it was read: publish it when it is complete")]
    Changed(PathBuf),
    /// The title.
    #[error("a title has at most {limit} bytes, this one has {0}", limit = icet::limits::TEXT)]
    Title(usize),
    /// A manifest that cannot be signed.
    #[error(transparent)]
    Manifest(#[from] MediaError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn listed(damages: &[Damage], count: u64) -> String {
    let mut out = String::new();
    for (i, damage) in damages.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = write!(out, "{}{damage}", if i == 0 { "" } else { "; " });
    }
    if count > damages.len() as u64 {
        let _ = write!(out, "; and {} more", count - damages.len() as u64);
    }
    out
}

impl PublishError {
    fn of_scan(file: &Path, error: ScanError) -> PublishError {
        let file = file.to_owned();
        match error {
            ScanError::Damage(Damage::NotOgg { searched }) => PublishError::NotOgg { file, searched },
            ScanError::Damage(damage) => PublishError::Damaged { file, damages: vec![damage], count: 1 },
            ScanError::Io { source, .. } => StoreError::reading(file, source).into(),
        }
    }
}

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// The new file.
    pub file: PathBuf,
    /// Bytes of the old one that belong to no clean page.
    pub left_out: u64,
}

/// A file that is ready to be announced: scanned, signed, and served from where it stands.
#[derive(Debug, Clone)]
pub struct Prepared {
    media: Arc<MediaStore>,
    rescanned: bool,
    repaired: Option<Repaired>,
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

    /// The repaired copy that is published instead of the file, if there is one.
    #[must_use]
    pub fn repaired(&self) -> Option<&Repaired> {
        self.repaired.as_ref()
    }
}

/// Scans and signs a file, unless that was done before and the file has not changed since (same place, size and modification time).
/// The version grows whenever the content or the title has changed: the time in seconds since 1970, or one more than the last.
/// Blocking; `progress` is called
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
    if let Some(title) = publish.title.as_ref().filter(|t| t.len() > icet::limits::TEXT) {
        return Err(PublishError::Title(title.len()));
    }
    let found = one(store, identity, &publish.file, publish, progress);
    let (Err(PublishError::Damaged { .. }), Some(to)) = (&found, &publish.repair_to) else { return found };
    let left_out = repair::repair(&publish.file, to)?;
    let prepared = one(store, identity, to, publish, progress)?;
    Ok(Prepared { repaired: Some(Repaired { file: to.clone(), left_out }), ..prepared })
}

fn one(
    store: &Store,
    identity: &Identity,
    file: &Path,
    publish: &Publish,
    progress: &mut dyn FnMut(ScanProgress),
) -> Result<Prepared, PublishError> {
    let file = fs::canonicalize(file).map_err(|e| StoreError::io("find", file, e))?;
    // Before it is opened: opening a pipe would wait for a writer.
    let meta = fs::metadata(&file).map_err(|e| StoreError::reading(&file, e))?;
    if !meta.is_file() {
        return Err(PublishError::NotAFile(file));
    }
    let id = MediaId::of(&identity.key(), &publish.path);
    let side = store.published_side(&id);
    let recorded = last_version(store, &id)?;
    // Something else was published under this id since, if another version is on record.
    let good = |m: &Arc<MediaStore>| m.file() == file && m.id() == id && m.manifest().version >= recorded;
    if let Some(media) = store.open_published(&side).filter(good) {
        let manifest = media.manifest().manifest();
        if manifest.title == scan::title(publish, &manifest.tags) {
            return Ok(Prepared { media, rescanned: false, repaired: None });
        }
    }
    scan::scan(store, identity, &file, publish, progress)?;
    match store.open_published(&side) {
        Some(media) => Ok(Prepared { media, rescanned: true, repaired: None }),
        None => Err(PublishError::Changed(file)),
    }
}

/// The version after the last one, from the record that outlives the media's side file; at least `time`, the wall clock in
/// seconds since 1970. So a publisher that lost its data folder, but not its key, still goes above what receivers have seen.
/// (To take a tracker's word for what it saw last would let it use up all numbers with one answer.)
fn next_version(store: &Store, id: &MediaId, time: u64) -> Result<u64, StoreError> {
    let last = store.last_published(id).map_or(0, |m| m.version);
    Ok(last_version(store, id)?.max(last).saturating_add(1).max(time))
}

/// The highest version on record; 0: none.
pub(crate) fn last_version(store: &Store, id: &MediaId) -> Result<u64, StoreError> {
    let path = store.version_record(id);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse::<u64>() {
            Ok(version) => Ok(version),
            Err(_) => Err(StoreError::Damaged { path, why: "it is not a number" }),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(StoreError::reading(path, e)),
    }
}

/// Puts a version on record, so that what is signed next is above it. Blocking.
pub(crate) fn record_version(store: &Store, id: &MediaId, version: u64) -> Result<(), StoreError> {
    let path = store.version_record(id);
    if last_version(store, id)? >= version {
        return Ok(());
    }
    disk::replace(&path, format!("{version}\n").as_bytes()).map_err(|e| StoreError::io("write", path, e))
}

#[cfg(test)]
mod tests;
