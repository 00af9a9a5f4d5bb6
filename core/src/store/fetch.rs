//! Begins fetches, and resumes them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use icet::{Kind, PageMap, SignedManifest};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::files::Files;
use super::media::Output;
use super::side::{Map, Side, SideError, Stamp};
use super::{MediaStore, Store, StoreError, Target, disk};
use crate::hash::hash_pages;

/// What a folder on disk says of a fetch that was begun before.
struct Begun {
    side: Side,
    clean: Option<Stamp>,
}

impl Store {
    /// Begins to fetch, or resumes: pages that stand on disk are held. Blocking: verifies what a killed process left,
    /// at the speed of BLAKE3.
    ///
    /// Asked for a media that is being fetched to the same place, gives that one. [`Target::Own`] gives a complete media if it is
    /// there already; an older version of it is removed.
    ///
    /// # Errors
    /// [`StoreError`], e.g. an output that exists or a part file of another version.
    pub fn fetch(&self, manifest: SignedManifest, target: Target) -> Result<Arc<MediaStore>, StoreError> {
        if manifest.kind != Kind::File {
            return Err(StoreError::NotAFile);
        }
        let id = manifest.id();
        let own = target == Target::Own;
        let absolute =
            |path: PathBuf| std::path::absolute(&path).map_err(|e| StoreError::io("find", &path, e));
        let beside = |path: &Path| disk::with_suffix(&disk::part_of(path), ".iceshare");
        let (output, side) = match target {
            Target::File(path) => {
                let path = absolute(path)?;
                let side = beside(&path);
                (Output { path, side: self.placed_side(&id) }, side)
            }
            Target::Beside(path) => {
                let path = absolute(path)?;
                let side = beside(&path);
                (Output { path, side: side.clone() }, side)
            }
            Target::Own => {
                let side = self.fetched_side(&id);
                (Output { path: self.fetched_file(&id), side: side.clone() }, side)
            }
        };
        let same = |m: &Arc<MediaStore>| {
            m.output() == output.path && m.is_open() && m.manifest.root == manifest.root && !m.is_stale()
        };
        if let Some(media) = self.open_media(&id).filter(same) {
            return Ok(media);
        }
        if own {
            if let Some(media) = self.open_placed(&side).filter(|m| m.manifest.root == manifest.root) {
                return Ok(self.remember(media));
            }
        } else {
            self.check_output(&output, &side)?;
        }
        let part = disk::part_of(&output.path);
        let media = self.begin(manifest, own, part, side, output)?;
        Ok(self.remember(media))
    }

    /// That a fetch may go to a file that the user named.
    fn check_output(&self, output: &Output, side: &Path) -> Result<(), StoreError> {
        let folder = disk::folder(&output.path);
        if output.path.file_name().is_some_and(|n| n.len() > disk::NAME) {
            return Err(StoreError::LongName(output.path.clone()));
        }
        match fs::metadata(folder) {
            Ok(m) if m.is_dir() => {}
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                return Err(StoreError::io("look into", folder, e));
            }
            _ => return Err(StoreError::NoFolder(folder.to_owned())),
        }
        if fs::symlink_metadata(&output.path).is_err() {
            return Ok(());
        }
        // A fetch that was killed right after it was complete may have left its side file here.
        if self.open_placed(side).is_some_and(|m| m.file() == output.path) {
            let _ = super::media::move_side(side, &output.side);
        }
        Err(StoreError::Exists(output.path.clone()))
    }

    fn begin(
        &self,
        manifest: SignedManifest,
        own: bool,
        part: PathBuf,
        side: PathBuf,
        output: Output,
    ) -> Result<MediaStore, StoreError> {
        let side_file = disk::open_locked(&side).map_err(|e| StoreError::io("create", &side, e))?;
        let side_file = side_file.ok_or_else(|| StoreError::InUse(part.clone()))?;
        let blank = side_file.metadata().is_ok_and(|m| m.len() == 0);
        let begun = self.begin_locked(manifest, own, part, &side, side_file, output);
        if begun.is_err() && blank {
            // Not even begun: leave nothing behind.
            let _ = fs::remove_file(&side);
        }
        begun
    }

    fn begin_locked(
        &self,
        manifest: SignedManifest,
        own: bool,
        part: PathBuf,
        side: &Path,
        side_file: File,
        output: Output,
    ) -> Result<MediaStore, StoreError> {
        let there = fs::symlink_metadata(&part);
        let begun = match Side::open(side_file.try_clone().map_err(|e| StoreError::io("open", side, e))?) {
            Err(SideError::Io(e)) => return Err(StoreError::reading(side, e)),
            Err(SideError::Damaged(why)) if !own => {
                return Err(StoreError::Damaged { path: side.to_owned(), why });
            }
            Err(_) if !own && there.as_ref().is_ok_and(|m| m.len() > 0) => {
                return Err(StoreError::Foreign(part));
            }
            Err(_) => None,
            Ok((held, old)) => reusable(held, &old, &manifest, own, &part)?,
        };
        if own && begun.is_none() {
            // An older version, or what cannot be understood any more.
            remove(&output.path)?;
            remove(&part)?;
        } else if own && there.is_err() && fs::symlink_metadata(&output.path).is_ok() {
            // It was complete, but somebody changed it: what is still good of it is kept.
            fs::rename(&output.path, &part).map_err(|e| StoreError::io("rename", &output.path, e))?;
        }
        let used = there.map(|m| m.blocks().saturating_mul(512)).unwrap_or_default();
        check_space(&part, manifest.bytes.saturating_sub(used), begun.is_none() && !own)?;
        let fail_side = |e| StoreError::io("write", side, e);
        let begun = match begun {
            Some(begun) => begun,
            None => {
                side_file.set_len(0).map_err(fail_side)?;
                Begun { side: Side::create(side_file, &manifest, true).map_err(fail_side)?, clean: None }
            }
        };
        let fail_part = |e| StoreError::io("write", &part, e);
        let media = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part)
            .map_err(|e| StoreError::io("create", &part, e))?;
        let stamp = Stamp::of(&media.metadata().map_err(fail_part)?);
        let clean = begun.clean == Some(stamp);
        begun.side.set_state(false, None).map_err(fail_side)?;
        if stamp.size() != manifest.bytes {
            media.set_len(manifest.bytes).map_err(fail_part)?;
        }
        let known = begun.side.read_map(Map::Slices).map_err(fail_side)?;
        let held = if clean {
            begun.side.read_map(Map::Pages).map_err(fail_side)?
        } else {
            let held = verify_part(&media, &begun.side, &manifest, &known)
                .map_err(|e| StoreError::reading(&part, e))?;
            begun.side.write_map(Map::Pages, &held, 0, manifest.pages - 1).map_err(fail_side)?;
            held
        };
        let files = Files::new(media, begun.side, None);
        Ok(MediaStore::fetching(manifest, self.pool(), files, (part, side.to_owned()), output, (held, known)))
    }
}

/// Whether a fetch that was begun before can go on as one of `manifest`. None: not, but it is ours to throw away.
fn reusable(
    held: Side,
    old: &SignedManifest,
    manifest: &SignedManifest,
    own: bool,
    part: &Path,
) -> Result<Option<Begun>, StoreError> {
    let same = old.root == manifest.root && old.pages == manifest.pages && old.bytes == manifest.bytes;
    if old.id() == manifest.id() && same {
        let clean = held.state().stamp;
        let mut held = held;
        if old.version < manifest.version {
            held.set_manifest(manifest).map_err(|e| StoreError::io("write", part, e))?;
        }
        return Ok(Some(Begun { side: held, clean }));
    }
    if own {
        return Ok(None);
    }
    Err(if old.id() == manifest.id() {
        StoreError::OtherVersion { part: part.to_owned(), held: old.version, wanted: manifest.version }
    } else {
        StoreError::OtherMedia { part: part.to_owned(), held: old.path.to_string() }
    })
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// A file that the user named must fit; what goes into the data directory may be played in part only.
fn check_space(part: &Path, needed: u64, strict: bool) -> Result<(), StoreError> {
    let Ok(fs) = rustix::fs::statvfs(disk::folder(part)) else { return Ok(()) };
    let free = fs.f_bavail.saturating_mul(fs.f_frsize);
    if strict && free < needed {
        return Err(StoreError::TooLarge { path: part.to_owned(), needed, free });
    }
    Ok(())
}

/// Which pages stand in a part file whose page map may be behind or ahead of it, by their hashes. Holes are skipped.
fn verify_part(part: &File, side: &Side, manifest: &SignedManifest, known: &PageMap) -> io::Result<PageMap> {
    let mut held = PageMap::new(manifest.pages);
    let mut buffer = Vec::new();
    let mut data = 0;
    let mut next = known.first_held(0);
    while let Some(index) = next {
        next = known.first_held(index + 1);
        let Some(proven) = side.read_slot(index)? else { continue };
        let Ok(slice) = proven.verify(manifest) else { continue };
        if slice.index != index {
            continue;
        }
        let end = slice.offset + slice.bytes();
        if data < slice.offset {
            data = match rustix::fs::seek(part, SeekFrom::Data(slice.offset)) {
                Ok(at) => at,
                Err(Errno::NXIO) => break,
                Err(_) => slice.offset,
            };
        }
        if data >= end {
            continue;
        }
        // At most 64 pages of 65,307 bytes.
        buffer.resize(usize::try_from(slice.bytes()).unwrap_or_default(), 0);
        part.read_exact_at(&mut buffer, slice.offset)?;
        let mut rest = &buffer[..];
        let pages: Vec<&[u8]> =
            slice.records.iter().map_while(|r| rest.split_off(..r.len as usize)).collect();
        for ((page, record), hash) in (slice.first_page()..).zip(&slice.records).zip(hash_pages(&pages)) {
            if hash == record.hash {
                held.insert(page);
            }
        }
    }
    Ok(held)
}
