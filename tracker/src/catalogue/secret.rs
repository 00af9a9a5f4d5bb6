//! The tracker's identity key, as a file of its own so that it can be backed up and kept apart.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use icet::Identity;

use super::CatalogueError;

/// Name of the key file within the data folder: 64 hexadecimal digits, the ed25519 secret.
const FILE: &str = "tracker.key";

/// The tracker's identity in `dir`: read, or made at the first start (readable by its owner only).
///
/// # Errors
/// [`CatalogueError::Folder`], or [`CatalogueError::Damaged`] if the file is no key. A key is never replaced.
pub fn load_or_create_identity(dir: &Path) -> Result<Identity, CatalogueError> {
    let file = dir.join(FILE);
    let io = |why| CatalogueError::Folder { dir: dir.to_owned(), why };
    match File::open(&file) {
        Ok(f) => {
            let mut text = String::new();
            // A key is 65 bytes; whatever is longer is none, however long.
            let read = f.take(256).read_to_string(&mut text);
            let damaged = |why: &str| CatalogueError::Damaged { file: file.clone(), why: why.to_owned() };
            match read {
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                    return Err(damaged("it is no key of 64 hexadecimal digits"));
                }
                Err(e) => return Err(io(e)),
            }
            // A secret has the same text form as a public key.
            let seed: icet::PeerKey =
                text.trim().parse().map_err(|_| damaged("it is no key of 64 hexadecimal digits"))?;
            Ok(Identity::from_seed(&seed.0))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => create(dir, &file).map_err(io),
        Err(e) => Err(io(e)),
    }
}

fn create(dir: &Path, file: &Path) -> std::io::Result<Identity> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
    // Written beside and renamed: a crash leaves no half key behind.
    let new = dir.join(format!("{FILE}.new"));
    let mut options = OpenOptions::new();
    // A left-over may have another mode, and is nobody's key yet.
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut f = options.open(&new)?;
    writeln!(f, "{}", icet::PeerKey(seed))?;
    f.sync_all()?;
    std::fs::rename(&new, file)?;
    File::open(dir)?.sync_all()?;
    Ok(Identity::from_seed(&seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let a = load_or_create_identity(dir.path()).unwrap();
        let b = load_or_create_identity(dir.path()).unwrap();
        assert_eq!(a.key(), b.key());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        for bad in [&b"abc"[..], b"", b"\xff\xfe", &[b'0'; 1000]] {
            std::fs::write(dir.path().join(FILE), bad).unwrap();
            let e = load_or_create_identity(dir.path()).unwrap_err();
            assert!(e.to_string().contains("tracker.key is damaged"), "{e}");
            assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), bad);
        }
    }
}
