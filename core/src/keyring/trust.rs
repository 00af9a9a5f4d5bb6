//! What we know of others: keys of trackers and publishers, from first use on, in a small JSON file.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use icet::{IcetUrl, MediaPath, PeerKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::store::disk;

/// How a key stands to what was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Never seen before: remembered from now on.
    First,
    /// As remembered.
    Same,
    /// As the link pins it; remembered instead of another.
    Pinned,
}

/// Why a tracker or publisher is not trusted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Another key than the link names.
    #[error(
        "{who} has another key than the link says: expected {expected}, seen {seen}. Get the link anew from somebody you trust"
    )]
    NotPinned {
        /// Who was checked.
        who: String,
        /// Key in the link.
        expected: PeerKey,
        /// Key that was seen.
        seen: PeerKey,
    },
    /// Another key than the last time.
    #[error(
        "{who} has another key than before: expected {expected}, seen {seen}. If you know that it was changed, \
         run `iceshare trust --forget {forget}` and try again"
    )]
    Changed {
        /// Who was checked.
        who: String,
        /// Key that was remembered.
        expected: PeerKey,
        /// Key that was seen.
        seen: PeerKey,
        /// What to forget, and the option that says where; for a shell.
        forget: String,
    },
    /// An older version than one that was seen.
    #[error(
        "{who} is offered in version {seen}, but version {highest} was seen before: somebody serves old data. \
         If its publisher started anew, run `iceshare trust --forget {forget}` and try again"
    )]
    Rollback {
        /// Who was checked.
        who: String,
        /// Highest version seen before.
        highest: u64,
        /// Version offered.
        seen: u64,
        /// What to forget, and the option that says where; for a shell.
        forget: String,
    },
    /// The file is not ours.
    #[error("{path} is damaged ({why}): restore it, or remove it to forget all keys that were remembered")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// One thing that is remembered, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// `icet://host:port` of a tracker, `icet://host:port/path` of a media.
    pub url: String,
    /// The tracker's or publisher's key.
    pub key: PeerKey,
    /// Highest version of the media; none for a tracker.
    pub version: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    /// By `host:port`.
    #[serde(default)]
    trackers: BTreeMap<String, Key>,
    /// By `host:port/path`, the path escaped as in a URL.
    #[serde(default)]
    publishers: BTreeMap<String, Publisher>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Publisher {
    key: Key,
    version: u64,
}

/// A key as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Key(PeerKey);

impl TryFrom<String> for Key {
    type Error = icet::key::KeyParseError;
    fn try_from(s: String) -> Result<Key, icet::key::KeyParseError> {
        s.parse().map(Key)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.0.to_string()
    }
}

/// Remembers keys from first use on. Every change is on disk before it counts; several processes may share the file.
#[derive(Debug)]
pub struct TrustStore {
    path: PathBuf,
    data: Mutex<Data>,
}

impl TrustStore {
    /// Opens the file; it need not exist yet.
    ///
    /// # Errors
    /// [`TrustError::Malformed`], [`TrustError::Io`].
    pub fn open(path: impl Into<PathBuf>) -> Result<TrustStore, TrustError> {
        let path = path.into();
        let data = Mutex::new(read(&path)?);
        Ok(TrustStore { path, data })
    }

    /// `url` and our folder, as they can be pasted into a shell behind `--forget`.
    fn forgetting(&self, url: &str) -> String {
        let folder = disk::folder(&self.path).display().to_string().replace('\'', r"'\''");
        format!("'{url}' --data '{folder}'")
    }

    /// Compares the key that a tracker proved with the link's pin, or else with the one it had before. `authority` is
    /// `host:port` as [`IcetUrl::authority`] gives it.
    ///
    /// # Errors
    /// [`TrustError::NotPinned`], [`TrustError::Changed`], or the file's.
    pub fn check_tracker(
        &self,
        authority: &str,
        seen: PeerKey,
        pin: Option<PeerKey>,
    ) -> Result<Known, TrustError> {
        let who = || format!("the tracker {authority}");
        pinned(pin, seen, &who)?;
        if self.data().trackers.get(authority) == Some(&Key(seen)) {
            return Ok(Known::Same);
        }
        self.update(|data| match data.trackers.get(authority) {
            Some(known) if known.0 == seen => Ok(Known::Same),
            Some(known) if pin.is_none() => Err(TrustError::Changed {
                who: who(),
                expected: known.0,
                seen,
                forget: self.forgetting(&format!("icet://{authority}")),
            }),
            known => {
                let outcome = if known.is_some() { Known::Pinned } else { Known::First };
                data.trackers.insert(authority.to_owned(), Key(seen));
                Ok(outcome)
            }
        })
    }

    /// Compares publisher and version of a manifest (whose signature was checked) with the link's pin, or else with what
    /// was seen of this media before. A pinned key may replace another; an older version of the same key is always refused.
    ///
    /// # Errors
    /// [`TrustError::NotPinned`], [`TrustError::Changed`], [`TrustError::Rollback`], or the file's.
    pub fn check_publisher(
        &self,
        authority: &str,
        path: &MediaPath,
        seen: PeerKey,
        version: u64,
        pin: Option<PeerKey>,
    ) -> Result<Known, TrustError> {
        let name = media_name(authority, path);
        let who = || format!("the publisher of icet://{name}");
        pinned(pin, seen, &who)?;
        let now = Publisher { key: Key(seen), version };
        if self.data().publishers.get(&name) == Some(&now) {
            return Ok(Known::Same);
        }
        self.update(|data| {
            let outcome = match data.publishers.get(&name) {
                None => Known::First,
                Some(known) if known.key.0 == seen => {
                    if version < known.version {
                        return Err(TrustError::Rollback {
                            who: format!("icet://{name}"),
                            highest: known.version,
                            seen: version,
                            forget: self.forgetting(&format!("icet://{name}")),
                        });
                    }
                    Known::Same
                }
                Some(known) if pin.is_none() => {
                    return Err(TrustError::Changed {
                        who: who(),
                        expected: known.key.0,
                        seen,
                        forget: self.forgetting(&format!("icet://{name}")),
                    });
                }
                Some(_) => Known::Pinned,
            };
            data.publishers.insert(name.clone(), now);
            Ok(outcome)
        })
    }

    /// The publisher and highest version that are remembered of a media, to be asked for when joining.
    #[must_use]
    pub fn publisher(&self, authority: &str, path: &MediaPath) -> Option<(PeerKey, u64)> {
        self.data().publishers.get(&media_name(authority, path)).map(|p| (p.key.0, p.version))
    }

    /// Forgets what `url` names: a media's publisher, or without a path a tracker's key. Says whether there was such.
    ///
    /// # Errors
    /// The file's.
    pub fn forget(&self, url: &IcetUrl) -> Result<bool, TrustError> {
        let authority = url.authority();
        self.update(|data| {
            Ok(match &url.path {
                Some(path) => data.publishers.remove(&media_name(&authority, path)).is_some(),
                None => data.trackers.remove(&authority).is_some(),
            })
        })
    }

    /// All that is remembered: trackers, then media.
    #[must_use]
    pub fn remembered(&self) -> Vec<Remembered> {
        let data = self.data();
        let trackers = data.trackers.iter().map(|(name, key)| (name, key.0, None));
        let media = data.publishers.iter().map(|(name, p)| (name, p.key.0, Some(p.version)));
        trackers
            .chain(media)
            .map(|(name, key, version)| Remembered { url: format!("icet://{name}"), key, version })
            .collect()
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the file as it is now, with other processes kept out; what `change` refuses leaves it as it was.
    fn update<T>(&self, change: impl FnOnce(&mut Data) -> Result<T, TrustError>) -> Result<T, TrustError> {
        let mut held = self.data();
        let fail = |doing| move |source| TrustError::Io { doing, path: self.path.clone(), source };
        disk::private_dir(disk::folder(&self.path)).map_err(fail("create the folder of"))?;
        let _lock = lock(&disk::with_suffix(&self.path, ".lock")).map_err(fail("lock"))?;
        let before = read(&self.path)?;
        let mut after = before.clone();
        let result = change(&mut after);
        if result.is_ok() && after != before {
            let mut text = serde_json::to_vec_pretty(&after).map_err(|e| fail("write")(e.into()))?;
            text.push(b'\n');
            disk::replace(&self.path, &text).map_err(fail("write"))?;
        }
        *held = if result.is_ok() { after } else { before };
        result
    }
}

fn media_name(authority: &str, path: &MediaPath) -> String {
    format!("{authority}/{}", path.to_url_path())
}

fn pinned(pin: Option<PeerKey>, seen: PeerKey, who: &dyn Fn() -> String) -> Result<(), TrustError> {
    match pin {
        Some(expected) if expected != seen => Err(TrustError::NotPinned { who: who(), expected, seen }),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<Data, TrustError> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|e| TrustError::Malformed { path: path.to_owned(), why: e.to_string() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Data::default()),
        Err(source) => Err(TrustError::Io { doing: "read", path: path.to_owned(), source }),
    }
}

/// Held until it is dropped. The lock file stays: removing it would let two in.
fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(dir: &tempfile::TempDir) -> TrustStore {
        TrustStore::open(dir.path().join("known.json")).unwrap()
    }

    fn key(n: u8) -> PeerKey {
        PeerKey([n; 32])
    }

    #[test]
    fn trackers_keep_their_key() {
        let dir = tempfile::tempdir().unwrap();
        let (a, pin) = ("host:4237", Some(key(2)));
        assert_eq!(store(&dir).check_tracker(a, key(1), None).unwrap(), Known::First);
        assert_eq!(store(&dir).check_tracker(a, key(1), None).unwrap(), Known::Same);
        assert_eq!(store(&dir).check_tracker("host:4238", key(2), None).unwrap(), Known::First);
        let error = store(&dir).check_tracker(a, key(2), None).unwrap_err();
        assert!(
            matches!(error, TrustError::Changed { expected, seen, .. } if expected == key(1) && seen == key(2))
        );
        let advice = format!("iceshare trust --forget 'icet://host:4237' --data '{}'", dir.path().display());
        assert!(error.to_string().contains(&advice), "{error}");
        assert!(matches!(store(&dir).check_tracker(a, key(1), pin), Err(TrustError::NotPinned { .. })));
        // A pin that matches overrides what was remembered.
        assert_eq!(store(&dir).check_tracker(a, key(2), pin).unwrap(), Known::Pinned);
        assert_eq!(store(&dir).check_tracker(a, key(2), None).unwrap(), Known::Same);
        assert!(store(&dir).forget(&"icet://host".parse().unwrap()).unwrap());
        assert!(!store(&dir).forget(&"icet://host".parse().unwrap()).unwrap());
        assert_eq!(store(&dir).check_tracker(a, key(3), None).unwrap(), Known::First);
    }

    #[test]
    fn publishers_keep_key_and_versions_only_grow() {
        let dir = tempfile::tempdir().unwrap();
        let path: MediaPath = "music/a b.opus".parse().unwrap();
        let check = |k, v, pin| store(&dir).check_publisher("h:1", &path, key(k), v, pin);
        assert_eq!(check(1, 5, None).unwrap(), Known::First);
        assert_eq!(check(1, 5, None).unwrap(), Known::Same);
        assert_eq!(check(1, 7, None).unwrap(), Known::Same);
        assert!(matches!(check(1, 6, None), Err(TrustError::Rollback { highest: 7, seen: 6, .. })));
        assert!(matches!(check(1, 6, Some(key(1))), Err(TrustError::Rollback { .. })), "a pin is no excuse");
        assert!(matches!(check(2, 9, None), Err(TrustError::Changed { .. })));
        assert_eq!(store(&dir).publisher("h:1", &path), Some((key(1), 7)));
        assert_eq!(check(2, 1, Some(key(2))).unwrap(), Known::Pinned);
        assert_eq!(check(2, 1, None).unwrap(), Known::Same);
        let list = store(&dir).remembered();
        assert_eq!(
            list,
            [Remembered { url: "icet://h:1/music/a%20b.opus".into(), key: key(2), version: Some(1) }]
        );
        assert!(store(&dir).forget(&list[0].url.parse().unwrap()).unwrap());
        assert_eq!(check(3, 1, None).unwrap(), Known::First);
    }

    #[test]
    fn two_open_stores_see_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (store(&dir), store(&dir));
        assert_eq!(a.check_tracker("h:1", key(1), None).unwrap(), Known::First);
        assert_eq!(b.check_tracker("h:1", key(1), None).unwrap(), Known::Same);
        assert!(b.forget(&"icet://h:1".parse().unwrap()).unwrap());
        // What `a` still has in memory does not count against what was forgotten.
        assert_eq!(a.check_tracker("h:1", key(2), None).unwrap(), Known::First);
        assert!(matches!(b.check_tracker("h:1", key(1), None), Err(TrustError::Changed { .. })));
        std::thread::scope(|s| {
            for n in 0..8 {
                let store = if n % 2 == 0 { &a } else { &b };
                s.spawn(move || store.check_tracker(&format!("t{n}:1"), key(n), None).unwrap());
            }
        });
        assert_eq!(store(&dir).remembered().len(), 9);
    }

    #[test]
    fn a_damaged_file_is_neither_trusted_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known.json");
        for text in ["", "{", "7", r#"{"trackers": {"h:1": "short"}}"#, r#"{"other": 1}"#] {
            fs::write(&path, text).unwrap();
            assert!(matches!(TrustStore::open(&path), Err(TrustError::Malformed { .. })), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::remove_file(&path).unwrap();
        let open = store(&dir);
        fs::write(&path, "{").unwrap();
        assert!(matches!(open.check_tracker("h:1", key(1), None), Err(TrustError::Malformed { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{");
    }
}
