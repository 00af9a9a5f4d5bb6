//! Which files of a folder tree are to be shared, and under which names.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use iceshare::icet::MediaPath;

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// None if there is no such regular file, or it cannot be looked at.
    pub(crate) fn of(path: &Path) -> Option<Stamp> {
        fs::metadata(path).ok().filter(Metadata::is_file).map(|m| Stamp {
            device: m.dev(),
            inode: m.ino(),
            len: m.len(),
            changed: (m.mtime(), m.mtime_nsec()),
        })
    }
}

/// The regular files below a folder by their media paths, and those left out with the reason.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) files: BTreeMap<MediaPath, PathBuf>,
    pub(crate) left_out: Vec<(PathBuf, String)>,
}

/// Walks the tree. Hidden files and part files are passed over; a link is followed to a file that lies within the
/// tree itself, never out of it and never to a folder.
///
/// # Errors
/// If the folder itself cannot be read; of folders below that is only told.
pub(crate) fn walk(root: &Path) -> io::Result<Tree> {
    let root = root.canonicalize()?;
    let mut tree = Tree::default();
    let mut folders = vec![(root.clone(), fs::read_dir(&root)?)];
    while let Some((folder, entries)) = folders.pop() {
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) => {
                    tree.left_out.push((folder.clone(), e.to_string()));
                    break;
                }
            };
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if name.starts_with('.') || name.ends_with(".part") || name.ends_with(".part.iceshare") {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => match fs::read_dir(&path) {
                    Ok(entries) => folders.push((path, entries)),
                    Err(e) => tree.left_out.push((path, e.to_string())),
                },
                Ok(kind) if kind.is_file() => take(&mut tree, &root, &path, path.clone()),
                Ok(kind) if kind.is_symlink() => match path.canonicalize() {
                    Ok(target) if !target.starts_with(&root) => {
                        tree.left_out.push((path, "a link out of the folder".into()));
                    }
                    Ok(target) if target.is_file() => take(&mut tree, &root, &path, target),
                    Ok(_) => tree.left_out.push((path, "a link to a folder".into())),
                    Err(e) => tree.left_out.push((path, format!("a link to nothing ({e})"))),
                },
                Ok(_) => tree.left_out.push((path, "not a regular file".into())),
                Err(e) => tree.left_out.push((path, e.to_string())),
            }
        }
    }
    Ok(tree)
}

fn take(tree: &mut Tree, root: &Path, path: &Path, file: PathBuf) {
    let relative = path.strip_prefix(root).unwrap_or(path);
    match relative.to_str().map(MediaPath::new) {
        Some(Ok(media)) => {
            tree.files.insert(media, file);
        }
        Some(Err(e)) => tree.left_out.push((path.to_owned(), e.to_string())),
        None => tree.left_out.push((path.to_owned(), "its name is not UTF-8".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn files_of_the_tree_and_nothing_outside() {
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join("secret.ogg"), "x").expect("written");
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path();
        fs::create_dir_all(root.join("a/b")).expect("made");
        fs::create_dir(root.join(".hidden")).expect("made");
        for file in
            ["top.ogg", "a/b/deep one.opus", ".dot.ogg", ".hidden/x.ogg", "x.ogg.part", "back\\slash.ogg"]
        {
            fs::write(root.join(file), "x").expect("written");
        }
        symlink(outside.path().join("secret.ogg"), root.join("out.ogg")).expect("a link");
        symlink(outside.path(), root.join("outdir")).expect("a link");
        symlink("../../top.ogg", root.join("a/b/in.ogg")).expect("a link");
        symlink("..", root.join("a/loop")).expect("a link");
        symlink("nowhere", root.join("dead.ogg")).expect("a link");
        let tree = walk(root).expect("walked");
        let names: Vec<_> = tree.files.keys().map(MediaPath::as_str).collect();
        assert_eq!(names, ["a/b/deep one.opus", "a/b/in.ogg", "top.ogg"]);
        let canonical = root.canonicalize().expect("there");
        assert!(tree.files.values().all(|f| f.starts_with(&canonical)));
        let mut out: Vec<_> = tree.left_out.iter().filter_map(|(p, _)| p.file_name()?.to_str()).collect();
        out.sort_unstable();
        assert_eq!(out, ["back\\slash.ogg", "dead.ogg", "loop", "out.ogg", "outdir"]);
        assert!(walk(&root.join("none")).is_err());
    }

    #[test]
    fn stamps_tell_changes_and_survive_moves() {
        let dir = tempfile::tempdir().expect("a folder");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "x").expect("written");
        let before = Stamp::of(&a);
        fs::rename(&a, &b).expect("moved");
        assert_eq!((Stamp::of(&a), Stamp::of(&b)), (None, before));
        fs::write(&b, "xy").expect("written");
        assert_ne!(Stamp::of(&b), before);
        assert_eq!(Stamp::of(dir.path()), None);
    }
}
