//! The key file: one header line, then the ed25519 seed (RFC 8032, section 5.1.5) as 64 hexadecimal digits. Mode 0600.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use icet::{Identity, PeerKey};
use thiserror::Error;

use crate::store::disk;

const HEADER: &str =
    "# IceShare secret key (ed25519). Whoever has it can sign as you: give it to nobody, keep a copy.";
const MARK: &str = "# IceShare secret key (ed25519)";
/// More than any key file has.
const MOST: u64 = 4096;

/// A key that was loaded or created.
#[derive(Debug, Clone)]
pub struct KeyFile {
    /// The key pair.
    pub identity: Identity,
    /// Whether it was created just now.
    pub created: bool,
    /// Something that the user should know, e.g. that others can read the file.
    pub warning: Option<String>,
}

/// Why there is no key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No such file.
    #[error("there is no key file {0}")]
    Missing(PathBuf),
    /// To be created, but there.
    #[error("{0} exists and is never overwritten: move it away first, or use another name")]
    Exists(PathBuf),
    /// Not a key file.
    #[error(
        "{path} is no IceShare key file ({why}): restore it from a copy, or move it away to start with a new key"
    )]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// The system refused.
    #[error("cannot {doing} the key file {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has claimed it.
    #[error("another program is using the key {0}")]
    InUse(PathBuf),
    /// No randomness.
    #[error("the system gives no randomness for a new key: {0}")]
    Random(io::Error),
}

/// Loads a key file.
///
/// # Errors
/// See [`KeyError`].
pub fn load(path: &Path) -> Result<KeyFile, KeyError> {
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => KeyError::Missing(path.to_owned()),
        _ => KeyError::Io { doing: "read", path: path.to_owned(), source },
    };
    let malformed = |why| KeyError::Malformed { path: path.to_owned(), why };
    let file = File::open(path).map_err(fail)?;
    let mode = file.metadata().map_err(fail)?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MOST {
        return Err(malformed("too large"));
    }
    let text = String::from_utf8(bytes).map_err(|_| malformed("not text"))?;
    let mut lines = text.lines().map(str::trim);
    if !lines.next().is_some_and(|l| l.starts_with(MARK)) {
        return Err(malformed("its first line is not that of a key file"));
    }
    let mut rest = lines.filter(|l| !l.is_empty() && !l.starts_with('#'));
    let (Some(seed), None) = (rest.next(), rest.next()) else {
        return Err(malformed("there must be one line with the key"));
    };
    // The seed has the shape of a key's text: 64 hexadecimal digits.
    let seed = seed.parse::<PeerKey>().map_err(|_| malformed("a key is 64 hexadecimal digits"))?;
    let warning = (mode & 0o077 != 0)
        .then(|| format!("others can read the secret key in {0}: run `chmod 600 {0}`", path.display()));
    Ok(KeyFile { identity: Identity::from_seed(&seed.0), created: false, warning })
}

/// Creates a key file with a new key, and the folders that lead to it.
///
/// # Errors
/// [`KeyError::Exists`] if the file is there; see [`KeyError`].
pub fn create(path: &Path) -> Result<KeyFile, KeyError> {
    let fail = |doing, source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists(path.to_owned()),
        _ => KeyError::Io { doing, path: path.to_owned(), source },
    };
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| KeyError::Random(io::Error::other(e)))?;
    let identity = Identity::from_seed(&seed);
    disk::private_dir(disk::folder(path)).map_err(|e| fail("create the folder of", e))?;
    let text = format!("{HEADER}\n# Its public key: {}\n{}\n", identity.key(), PeerKey(seed));
    disk::create(path, text.as_bytes()).map_err(|e| fail("write", e))?;
    Ok(KeyFile { identity, created: true, warning: None })
}

/// Loads a key file, or creates it if it is not there. Safe against another process that does the same.
///
/// # Errors
/// See [`KeyError`].
pub fn load_or_create(path: &Path) -> Result<KeyFile, KeyError> {
    match load(path) {
        Err(KeyError::Missing(_)) if fs::symlink_metadata(path).is_err() => match create(path) {
            Err(KeyError::Exists(_)) => load(path),
            other => other,
        },
        other => other,
    }
}

/// A key that no other process has claimed, as long as this is kept. A tracker has one session for a key: two processes
/// with the same one would push each other out.
#[derive(Debug)]
pub struct Claim {
    /// The key.
    pub key: KeyFile,
    _lock: File,
}

/// Loads a key file, or creates it, for this process alone.
///
/// # Errors
/// [`KeyError::InUse`] if another process has claimed it; see [`KeyError`].
pub fn claim(path: &Path) -> Result<Claim, KeyError> {
    let key = load_or_create(path)?;
    let fail = |source| KeyError::Io { doing: "lock", path: path.to_owned(), source };
    let lock = File::open(path).map_err(fail)?;
    match lock.try_lock() {
        Ok(()) => Ok(Claim { key, _lock: lock }),
        Err(fs::TryLockError::WouldBlock) => Err(KeyError::InUse(path.to_owned())),
        Err(fs::TryLockError::Error(e)) => Err(fail(e)),
    }
}

/// Claims the first key that is free of `path`, `path-2`, `path-3` …, at most `most` of them.
///
/// # Errors
/// [`KeyError::InUse`] if all are claimed; see [`KeyError`].
pub fn claim_one_of(path: &Path, most: u32) -> Result<Claim, KeyError> {
    for n in 1..=most {
        let path = if n == 1 { path.to_owned() } else { disk::with_suffix(path, &format!("-{n}")) };
        match claim(&path) {
            Err(KeyError::InUse(_)) => {}
            other => return other,
        }
    }
    Err(KeyError::InUse(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_loaded_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/key");
        assert!(matches!(load(&path), Err(KeyError::Missing(_))));
        let made = load_or_create(&path).unwrap();
        assert!(made.created && made.warning.is_none());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = load_or_create(&path).unwrap();
        assert!(!again.created && again.warning.is_none());
        assert_eq!(again.identity.key(), made.identity.key());
        assert!(matches!(create(&path), Err(KeyError::Exists(_))));
    }

    #[test]
    fn bad_files_are_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let (long, digits) = ("0".repeat(5000), "ab".repeat(32));
        for text in [
            String::new(),
            digits.clone(),
            format!("{HEADER}\n"),
            format!("{HEADER}\n{digits}\n{digits}\n"),
            format!("{HEADER}\n{}\n", &digits[1..]),
            format!("{HEADER}\n{long}\n"),
        ] {
            fs::write(&path, &text).unwrap();
            assert!(matches!(load_or_create(&path), Err(KeyError::Malformed { .. })), "{text:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(load(&path), Err(KeyError::Malformed { why: "not text", .. })));
        assert!(matches!(load(dir.path()), Err(KeyError::Io { .. })));
    }

    #[test]
    fn a_readable_key_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load(&path).unwrap().warning.unwrap().contains("chmod 600"));
    }

    #[test]
    fn a_claimed_key_is_nobody_elses_until_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let first = claim(&path).unwrap();
        assert!(matches!(claim(&path), Err(KeyError::InUse(p)) if p == path));
        let second = claim_one_of(&path, 2).unwrap();
        assert_ne!(second.key.identity.key(), first.key.identity.key());
        assert!(matches!(claim_one_of(&path, 2), Err(KeyError::InUse(_))));
        let key = first.key.identity.key();
        drop(first);
        assert_eq!(claim_one_of(&path, 2).unwrap().key.identity.key(), key);
    }

    #[test]
    fn creators_that_race_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let keys: Vec<_> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..8).map(|_| s.spawn(|| load_or_create(&path).unwrap())).collect();
            threads.into_iter().map(|t| t.join().unwrap().identity.key()).collect()
        });
        assert!(keys.iter().all(|k| *k == keys[0]));
    }
}
