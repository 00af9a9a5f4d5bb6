//! Media on this machine: files, page maps, slices.
//!
//! A file that is being fetched is a sparse `FILE.part` with every page at its final offset, beside one side file
//! (`FILE.part.iceshare`: manifest, page map, slices). A finished fetch *is* the original, a killed one resumes.
//! Media that is complete is served from where it stands.

mod cache;
pub(crate) mod disk;
mod error;
mod fetch;
mod files;
mod find;
#[cfg(test)]
pub(crate) mod fixture;
mod live;
#[cfg(test)]
mod live_tests;
mod media;
mod ring;
pub(crate) mod side;
#[cfg(test)]
mod tests;

pub use error::{PutError, StoreError};
pub use find::{NoSetup, PageRun, PageSpan, PageTable};
pub use live::{LivePut, Resumed};
pub use media::MediaStore;
pub use ring::Window;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use icet::{MediaId, SignedManifest};

use files::Pool;
use side::{Side, Stamp};

/// Where a fetched media goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To this file; `FILE.part` until it is complete. Never overwritten.
    File(PathBuf),
    /// Into the data directory, named by the media's id.
    Own,
    /// To this file, as with [`Target::File`], but as a copy that nothing else is to know of: all of it stays in the file's folder,
    /// until [`Store::adopt`] makes it the one in the data directory.
    Beside(PathBuf),
}

/// All media of this peer under a data directory. Files there are named by media ids, never by media paths.
/// Clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    pool: Arc<Pool>,
    open: Arc<Mutex<HashMap<MediaId, Weak<MediaStore>>>>,
}

/// Side files of media published from here, of media fetched to files elsewhere, and (with their files) of media kept here.
const FOLDERS: [&str; 3] = ["published", "placed", "fetched"];
/// Rings of live media that are listened to, and journals of own broadcasts.
const LIVE_FOLDERS: [&str; 2] = ["live", "broadcast"];

impl Store {
    /// Opens the data directory, creates it if need be.
    ///
    /// # Errors
    /// If it cannot be created or written.
    pub fn open(dir: impl AsRef<Path>) -> Result<Store, StoreError> {
        let dir = dir.as_ref();
        let dir = std::path::absolute(dir).map_err(|e| StoreError::io("find", dir, e))?;
        for folder in FOLDERS.into_iter().chain(LIVE_FOLDERS) {
            let folder = dir.join(folder);
            disk::private_dir(&folder).map_err(|e| StoreError::io("create", &folder, e))?;
        }
        Ok(Store { dir, pool: Arc::default(), open: Arc::default() })
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn pool(&self) -> Arc<Pool> {
        self.pool.clone()
    }

    pub(crate) fn published_side(&self, id: &MediaId) -> PathBuf {
        self.dir.join("published").join(format!("{id}.iceshare"))
    }

    /// The last version that was signed under an id: it outlives the side file.
    pub(crate) fn version_record(&self, id: &MediaId) -> PathBuf {
        self.dir.join("published").join(format!("{id}.version"))
    }

    fn placed_side(&self, id: &MediaId) -> PathBuf {
        self.dir.join("placed").join(format!("{id}.iceshare"))
    }

    fn fetched_side(&self, id: &MediaId) -> PathBuf {
        self.dir.join("fetched").join(format!("{id}.iceshare"))
    }

    fn fetched_file(&self, id: &MediaId) -> PathBuf {
        self.dir.join("fetched").join(format!("{id}.ogg"))
    }

    fn open_table(&self) -> MutexGuard<'_, HashMap<MediaId, Weak<MediaStore>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_media(&self, id: &MediaId) -> Option<Arc<MediaStore>> {
        self.open_table().get(id).and_then(Weak::upgrade)
    }

    fn remember(&self, media: MediaStore) -> Arc<MediaStore> {
        let media = Arc::new(media);
        let mut table = self.open_table();
        table.retain(|_, m| m.strong_count() > 0);
        table.insert(media.id(), Arc::downgrade(&media));
        media
    }

    /// A media that is served in place, by its side file; none if that is not complete, or if the file was changed.
    fn open_placed(&self, side: &Path) -> Option<MediaStore> {
        let (opened, manifest) = Side::open(File::open(side).ok()?).ok()?;
        let state = opened.state();
        let (path, stamp) = (opened.origin().ok()??, state.stamp.filter(|_| state.complete)?);
        let now = Stamp::of(&fs::metadata(&path).ok()?);
        (now == stamp).then(|| MediaStore::placed(manifest, self.pool(), path, side.to_owned(), stamp))
    }

    /// The media that was published with this side file, if its file has not changed since.
    pub(crate) fn open_published(&self, side: &Path) -> Option<Arc<MediaStore>> {
        let media = self.open_placed(side)?;
        let same =
            |m: &Arc<MediaStore>| m.manifest == media.manifest && m.file() == media.file() && !m.is_stale();
        Some(self.open_media(&media.id).filter(same).unwrap_or_else(|| self.remember(media)))
    }

    /// The manifest that was published last under an id, whatever became of the file.
    pub(crate) fn last_published(&self, id: &MediaId) -> Option<SignedManifest> {
        let (_, manifest) = Side::open(File::open(self.published_side(id)).ok()?).ok()?;
        Some(manifest)
    }

    /// The media of this id, if it is complete here: published, or fetched and neither changed nor removed since.
    #[must_use]
    pub fn get(&self, id: &MediaId) -> Option<Arc<MediaStore>> {
        if let Some(media) = self.open_media(id).filter(|m| m.is_complete() && !m.is_stale()) {
            return Some(media);
        }
        let sides = [self.published_side(id), self.placed_side(id), self.fetched_side(id)];
        sides.iter().find_map(|side| self.open_placed(side)).map(|m| self.remember(m))
    }

    /// Ids of all media that [`Store::get`] would find.
    ///
    /// # Errors
    /// If the data directory cannot be read.
    pub fn list(&self) -> Result<Vec<MediaId>, StoreError> {
        let mut ids = Vec::new();
        for folder in FOLDERS {
            let folder = self.dir.join(folder);
            let fail = |e| StoreError::reading(&folder, e);
            for entry in fs::read_dir(&folder).map_err(fail)? {
                let path = entry.map_err(fail)?.path();
                let id = path.file_stem().and_then(|s| s.to_str()).and_then(MediaId::from_hex);
                let is_side = path.extension().is_some_and(|e| e == "iceshare");
                if let Some(id) = id.filter(|_| is_side && self.open_placed(&path).is_some()) {
                    ids.push(id);
                }
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Forgets a media, and removes its file if that lies in the data directory (never a file elsewhere). What is being read
    /// from it goes on.
    ///
    /// # Errors
    /// If files cannot be removed.
    pub fn remove(&self, id: &MediaId) -> Result<(), StoreError> {
        self.open_table().remove(id);
        let file = self.fetched_file(id);
        let part = disk::part_of(&file);
        for path in [self.published_side(id), self.placed_side(id), self.fetched_side(id), file, part] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", path, e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a copy that was fetched with [`Target::Beside`], and was finished or closed, the one in the data directory. If that has
    /// the whole media already, or if some of it stands there and the copy is not complete, it stays as it is.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if the one in the data directory is being written, or the disk's.
    pub fn adopt(&self, copy: &MediaStore) -> Result<(), StoreError> {
        let (id, side) = (copy.id(), self.fetched_side(&copy.id()));
        let (own, complete) = (self.fetched_file(&id), copy.is_complete());
        let locked = disk::open_locked(&side).map_err(|e| StoreError::io("create", &side, e))?;
        let locked = locked.ok_or_else(|| StoreError::InUse(disk::part_of(&own)))?;
        let begun = locked.metadata().is_ok_and(|m| m.len() > 0);
        if begun && (!complete || self.open_placed(&side).is_some()) {
            return Ok(());
        }
        let (from, to) = if complete { (copy.file(), own) } else { (copy.file(), disk::part_of(&own)) };
        let from_side = copy.side_file();
        if complete {
            let file = File::options().read(true).write(true).open(&from_side);
            let noted = file.map_err(side::SideError::Io).and_then(|f| {
                Side::open(f).and_then(|(opened, _)| opened.set_origin(&to).map_err(side::SideError::Io))
            });
            match noted {
                Ok(()) => {}
                Err(side::SideError::Io(e)) => return Err(StoreError::io("write", from_side, e)),
                Err(_) => return Err(StoreError::Damaged { path: from_side, why: "it cannot be read" }),
            }
        }
        // The side file last: without it what stands there is as good as nothing.
        fs::rename(&from, &to).map_err(|e| StoreError::io("rename", from, e))?;
        fs::rename(&from_side, &side).map_err(|e| StoreError::io("rename", from_side, e))
    }

    /// Forgets media that were fetched to files which are gone, and tells which files those were.
    ///
    /// # Errors
    /// If the data directory cannot be read or written.
    pub fn forget_gone(&self) -> Result<Vec<PathBuf>, StoreError> {
        let folder = self.dir.join("placed");
        let fail = |e| StoreError::reading(&folder, e);
        let mut gone = Vec::new();
        for entry in fs::read_dir(&folder).map_err(fail)? {
            let record = entry.map_err(fail)?.path();
            if record.extension().is_none_or(|e| e != "iceshare") {
                continue;
            }
            let side = File::open(&record).ok().and_then(|f| Side::open(f).ok());
            let Some(file) = side.and_then(|(side, _)| side.origin().ok().flatten()) else { continue };
            if fs::symlink_metadata(&file).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
                match fs::remove_file(&record) {
                    Ok(()) => gone.push(file),
                    // Another process was faster.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(StoreError::io("remove", record, e)),
                }
            }
        }
        Ok(gone)
    }
}
