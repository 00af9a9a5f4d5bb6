//! Who owns a path.

use std::collections::{BTreeMap, HashMap};

use icet::{MediaPath, PeerKey};

use super::KnownName;
use super::board::MediaIx;

/// A path that was not used for so long is free: 90 days, in milliseconds.
pub(crate) const FREE_AFTER_MS: u64 = 90 * 24 * 3600 * 1000;
/// The use of a path is written down at most so often.
const WRITE_EVERY_MS: u64 = 3600 * 1000;

/// A path and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) known: KnownName,
    /// Its media, unless withdrawn.
    pub(crate) media: Option<MediaIx>,
    /// Memory that the media takes, in bytes.
    pub(crate) cost: u64,
    stored_ms: u64,
}

/// All paths, in order.
#[derive(Debug, Default)]
pub(crate) struct Names {
    all: BTreeMap<MediaPath, Name>,
    /// Paths of a key, and the memory that their media take.
    owned: HashMap<PeerKey, (usize, u64)>,
    cost: u64,
}

impl Names {
    pub(crate) fn get(&self, path: &MediaPath) -> Option<&Name> {
        self.all.get(path)
    }

    pub(crate) fn media(&self, path: &MediaPath) -> Option<MediaIx> {
        self.all.get(path)?.media
    }

    /// How many paths `key` owns, and the memory that their media take in bytes.
    pub(crate) fn owned_by(&self, key: &PeerKey) -> (usize, u64) {
        self.owned.get(key).copied().unwrap_or_default()
    }

    /// Memory that all media take, in bytes.
    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    /// Sets what is known of a path; `cost` is the memory that its media takes.
    pub(crate) fn put(&mut self, known: KnownName, media: Option<MediaIx>, cost: u64) {
        self.remove(&known.path);
        let owned = self.owned.entry(known.owner).or_default();
        owned.0 += 1;
        owned.1 += cost;
        self.cost += cost;
        let name = Name { stored_ms: known.used_ms, known, media, cost };
        self.all.insert(name.known.path.clone(), name);
    }

    pub(crate) fn remove(&mut self, path: &MediaPath) -> Option<Name> {
        let name = self.all.remove(path)?;
        if let Some(n) = self.owned.get_mut(&name.known.owner) {
            n.0 -= 1;
            n.1 -= name.cost;
            if n.0 == 0 {
                self.owned.remove(&name.known.owner);
            }
        }
        self.cost -= name.cost;
        Some(name)
    }

    /// The path is in use now; returns what should be written down, if it is time for that.
    pub(crate) fn touch(&mut self, path: &MediaPath, wall_ms: u64) -> Option<KnownName> {
        let name = self.all.get_mut(path)?;
        name.known.used_ms = name.known.used_ms.max(wall_ms);
        if name.known.used_ms.saturating_sub(name.stored_ms) < WRITE_EVERY_MS {
            return None;
        }
        name.stored_ms = name.known.used_ms;
        Some(name.known.clone())
    }

    /// Whether the path's owner has left it unused for too long.
    pub(crate) fn expired(name: &Name, wall_ms: u64) -> bool {
        // 0: the catalogue did not tell. That is no reason to give a path away.
        name.known.used_ms > 0 && wall_ms.saturating_sub(name.known.used_ms) > FREE_AFTER_MS
    }

    /// Media, in order of their paths.
    pub(crate) fn media_in_order(&self) -> impl Iterator<Item = MediaIx> + '_ {
        self.all.values().filter_map(|n| n.media)
    }
}
