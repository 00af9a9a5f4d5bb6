//! The catalogue as one redb file: copy-on-write B-trees whose commits survive a kill and a power cut.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use icet::media::Signed;
use icet::{MediaId, MediaPath, PeerKey, ProvenSlice, SignedManifest, frame};
use redb::{Database, DatabaseError, ReadableDatabase, StorageError};

use super::tables::{self, FORMAT, Raw};
use super::{CatalogueError, Contents, Persist};
use crate::swarm::io::{Contribution, KnownMedia, KnownName, KnownProtocol, SliceMark, Store};

/// Name of the catalogue within the data folder.
const FILE: &str = "catalogue.redb";
/// redb's page cache, in bytes. Its default of 1 GiB is too much for a tracker on a small machine.
const CACHE: usize = 64 << 20;
/// Up to this size in bytes the whole file is checked at each start (it is always after a crash).
const CHECKED: u64 = 256 << 20;

/// A catalogue in a folder.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    file: PathBuf,
    /// None after a write that failed: redb wants to be opened anew then.
    db: RwLock<Option<Arc<Database>>>,
}

impl Disk {
    /// Opens the catalogue in `dir`, made if it is not there. Reads all of it if it is small or was left by a crash.
    ///
    /// # Errors
    /// See [`CatalogueError`].
    pub fn open(dir: &Path) -> Result<Disk, CatalogueError> {
        let folder = |why| CatalogueError::Folder { dir: dir.to_owned(), why };
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir).map_err(folder)?;
        let file = dir.join(FILE);
        let db = open(dir, &file)?;
        Ok(Disk { dir: dir.to_owned(), file, db: RwLock::new(Some(Arc::new(db))) })
    }

    fn io(&self, why: impl Display) -> CatalogueError {
        CatalogueError::Io { file: self.file.clone(), why: why.to_string() }
    }

    fn damaged(&self, why: impl Display) -> CatalogueError {
        CatalogueError::Damaged { file: self.file.clone(), why: why.to_string() }
    }

    fn db(&self) -> Result<Arc<Database>, CatalogueError> {
        if let Some(db) = &*self.db.read().unwrap_or_else(PoisonError::into_inner) {
            return Ok(db.clone());
        }
        let mut slot = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(db) = &*slot {
            return Ok(db.clone());
        }
        let db = Arc::new(open(&self.dir, &self.file)?);
        *slot = Some(db.clone());
        Ok(db)
    }

    fn read(&self, db: &Database) -> Result<Contents, CatalogueError> {
        let (format, secret, epoch) = tables::begin(db).map_err(|e| self.io(e))?;
        if format != FORMAT {
            return Err(CatalogueError::Format { file: self.file.clone(), format, known: FORMAT });
        }
        let raw = Raw::read(db).map_err(|e| self.io(e))?;
        let mut out = Contents { secret, epoch, ..Contents::default() };
        for (path, row) in raw.names {
            let path = MediaPath::new(path).map_err(|e| self.damaged(e))?;
            let moved = Some(row.moved).filter(|m| !m.is_empty()).map(MediaPath::new);
            let moved = moved.transpose().map_err(|e| self.damaged(e))?;
            let (owner, version, used_ms) = (PeerKey(row.owner), row.version, row.used_ms);
            out.names.push(KnownName { path, owner, version, used_ms, moved });
        }
        let mut marks = raw.marks.into_iter().peekable();
        for (id, signed) in raw.manifests {
            let manifest = frame::decode::<Signed>(&signed)
                .map_err(|e| e.to_string())
                .and_then(|s| SignedManifest::verify(s).map_err(|e| e.to_string()))
                .map_err(|e| self.damaged(format!("manifest {}: {e}", MediaId(id))))?;
            // Both tables are in the order of their media ids.
            let mut slices = Vec::new();
            while let Some(m) = marks.next_if(|m| m.media <= id) {
                if m.media == id && m.version == manifest.version {
                    slices.push((m.index, SliceMark { offset: m.offset, time: m.time }));
                }
            }
            out.media.push(KnownMedia { manifest, slices, hits: raw.hits.get(&id).copied().unwrap_or(0) });
        }
        if let Some(rules) = raw.rules {
            // Who is banned must not get in because of a damage.
            out.rules =
                frame::decode(&rules).map_err(|e| self.damaged(format!("the operator's rules: {e}")))?;
        }
        for row in raw.protocols {
            match frame::decode::<KnownProtocol>(&row) {
                Ok(known) => out.protocols.push(known),
                Err(e) => {
                    tracing::warn!("what was learned of a protocol cannot be read, and is forgotten: {e}")
                }
            }
        }
        Ok(out)
    }
}

fn open(dir: &Path, file: &Path) -> Result<Database, CatalogueError> {
    let folder = |why| CatalogueError::Folder { dir: dir.to_owned(), why };
    let damaged = |why: String| CatalogueError::Damaged { file: file.to_owned(), why };
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // The secret of the tickets is in it.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let size = options.open(file).and_then(|f| f.metadata()).map_err(folder)?.len();
    let make = || {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE).set_check_integrity_on_open(size <= CHECKED).create(file)
    };
    // redb may panic on a large damaged file, whose check is left out.
    match catch_unwind(AssertUnwindSafe(make)) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch)) => {
            Err(CatalogueError::Locked(dir.to_owned()))
        }
        Ok(Err(DatabaseError::Storage(StorageError::Io(e)))) => match e.kind() {
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                Err(damaged(e.to_string()))
            }
            _ => Err(folder(e)),
        },
        Ok(Err(e)) => Err(damaged(e.to_string())),
        Err(_) => Err(damaged("its structure makes no sense".to_owned())),
    }
}

impl Persist for Disk {
    fn begin(&self) -> Result<Contents, CatalogueError> {
        let db = self.db()?;
        catch_unwind(AssertUnwindSafe(|| self.read(&db)))
            .unwrap_or_else(|_| Err(self.damaged("its structure makes no sense")))
    }

    fn commit(&self, writes: &[Store]) -> Result<(), CatalogueError> {
        let db = self.db()?;
        let result = tables::apply(&db, writes);
        if result.is_err() {
            self.db.write().unwrap_or_else(PoisonError::into_inner).take();
        }
        result.map_err(|e| self.io(e))
    }

    fn slices(
        &self,
        media: &MediaId,
        version: u64,
        indexes: &[u64],
    ) -> Result<Vec<ProvenSlice>, CatalogueError> {
        let db = self.db()?;
        let table = db.begin_read().map_err(|e| self.io(e))?;
        let table = table.open_table(tables::SLICES).map_err(|e| self.io(e))?;
        let mut out = Vec::with_capacity(indexes.len());
        for index in indexes {
            if let Some(bytes) = table.get((&media.0, version, *index)).map_err(|e| self.io(e))? {
                out.push(frame::decode(bytes.value()).map_err(|e| self.damaged(e))?);
            }
        }
        Ok(out)
    }

    fn contribution(&self, peer: &PeerKey) -> Result<Contribution, CatalogueError> {
        let db = self.db()?;
        let table = db.begin_read().map_err(|e| self.io(e))?;
        let table = table.open_table(tables::CONTRIBUTION).map_err(|e| self.io(e))?;
        let row = table.get(&peer.0).map_err(|e| self.io(e))?.map(|c| c.value());
        Ok(row.map(|(sent, received)| Contribution { sent, received }).unwrap_or_default())
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
pub(crate) mod tests;
