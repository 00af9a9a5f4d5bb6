//! Small files that are never seen half-written.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Creates a directory and what leads to it, for this user only. No error if it is there.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The folder that `path` lies in; `.` for a bare name.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `path` with `suffix` behind its name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Longest name of a file, in bytes, on all file systems that matter.
pub(crate) const NAME: usize = 255;

/// Where `path` stands while it is not complete: `NAME.part`, beside which there is room for a `.iceshare`. Of a name that is too
/// long for that the beginning and a hash stay.
pub(crate) fn part_of(path: &Path) -> PathBuf {
    const SUFFIXES: usize = ".part.iceshare".len();
    let Some(name) = path.file_name().filter(|n| n.len() > NAME - SUFFIXES) else {
        return with_suffix(path, ".part");
    };
    let hash = blake3::hash(name.as_bytes()).to_hex();
    // A name that is not UTF-8 has no beginning that is sure to be one: its hash has to do.
    let text = name.to_str().unwrap_or_default();
    let short = text.get(..text.floor_char_boundary(NAME - SUFFIXES - 17)).unwrap_or_default();
    path.with_file_name(format!("{short}~{}.part", hash.get(..16).unwrap_or_default()))
}

/// Makes names in the folder of `path` durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(folder(path))?.sync_all() {
        // Some file systems don't sync folders; they have no such promise to give.
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

/// A new file beside `path`, to be renamed to it. The name is unguessable; mode 0600.
pub(crate) fn temporary(path: &Path) -> io::Result<(File, PathBuf)> {
    let random = getrandom::u64().map_err(io::Error::other)?;
    let temp = with_suffix(path, &format!(".{random:016x}.tmp"));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temp)?;
    Ok((file, temp))
}

fn written(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let (mut file, temp) = temporary(path)?;
    match file.write_all(bytes).and_then(|()| file.sync_all()) {
        Ok(()) => Ok(temp),
        Err(e) => {
            let _ = fs::remove_file(&temp);
            Err(e)
        }
    }
}

/// Replaces the content of `path` in one step, mode 0600.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = written(path, bytes)?;
    let done = fs::rename(&temp, path).and_then(|()| sync_folder(path));
    if done.is_err() {
        let _ = fs::remove_file(&temp);
    }
    done
}

/// Creates `path` with this content in one step, mode 0600; `AlreadyExists` if it is there.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temp = written(path, bytes)?;
    let done = rename_new(&temp, path);
    if done.is_err() {
        let _ = fs::remove_file(&temp);
    }
    done
}

/// Opens a file to write to, mode 0600, created if need be, and keeps other processes (and other calls) out while it is open. None
/// if another has it.
pub(crate) fn open_locked(path: &Path) -> io::Result<Option<File>> {
    loop {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e),
        }
        // Whoever held the lock before may have given the file another name: then this is not the one that stands here.
        if stands_at(path, &file)? {
            return Ok(Some(file));
        }
    }
}

/// Whether `file` is what stands at `path`.
fn stands_at(path: &Path, file: &File) -> io::Result<bool> {
    let here = file.metadata()?;
    Ok(fs::metadata(path).is_ok_and(|m| m.ino() == here.ino() && m.dev() == here.dev()))
}

/// Removes `path` if it is `file`, and not another one that was put in its place.
pub(crate) fn remove_own(path: &Path, file: &File) -> io::Result<()> {
    if stands_at(path, file)? { fs::remove_file(path) } else { Ok(()) }
}

/// Renames `from` to `to`, durably, but never over another file: then `AlreadyExists`.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can; a link never replaces anything either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)?;
        }
        other => other?,
    }
    sync_folder(to)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_come_into_being_whole_and_are_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        create(&path, b"one").unwrap();
        assert_eq!(create(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let other = dir.path().join("b");
        create(&other, b"four").unwrap();
        assert_eq!(rename_new(&other, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        rename_new(&other, &dir.path().join("c")).unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "c"], "nothing temporary stays");
    }

    #[test]
    fn folders_of_bare_names() {
        assert_eq!(folder(Path::new("x")), Path::new("."));
        assert_eq!(folder(Path::new("d/x")), Path::new("d"));
        assert_eq!(with_suffix(Path::new("d/x.ogg"), ".part"), Path::new("d/x.ogg.part"));
    }

    #[test]
    fn parts_have_names_that_fit() {
        assert_eq!(part_of(Path::new("d/x.ogg")), Path::new("d/x.ogg.part"));
        let mut parts = std::collections::HashSet::new();
        for (name, own) in [("x".repeat(241), true), ("x".repeat(242), false), ("é".repeat(127) + "x", false)]
        {
            let part = part_of(&Path::new("d").join(&name));
            let text = part.file_name().unwrap().to_str().unwrap();
            assert_eq!(text == format!("{name}.part"), own, "{text}");
            assert!(text.len() + ".iceshare".len() <= NAME && text.ends_with(".part"), "{text}");
            assert_eq!(part.parent(), Some(Path::new("d")));
            assert!(parts.insert(part));
        }
    }
}
