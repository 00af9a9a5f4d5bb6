//! Which media there are, searchable: kept from what the catalogue announces, so that a search never asks the swarm.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use icet::{MediaId, MediaPath, SignedManifest};

use super::Announce;
use crate::swarm::io::Store;

/// All media by path. Several publishers cannot have the same path at once.
#[derive(Debug, Default)]
pub struct Index(RwLock<Inner>);

#[derive(Debug, Default)]
struct Inner {
    by_path: BTreeMap<MediaPath, Entry>,
    paths: HashMap<MediaId, MediaPath>,
}

/// A media in the index.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its manifest.
    pub manifest: Arc<SignedManifest>,
    /// Path, title and values of tags in lower case, a line each.
    text: Arc<str>,
}

/// What to look for.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Words that must all occur in path, title or tags, in any case. None: everything.
    pub words: Vec<String>,
    /// Only media whose path comes after this one (which need not be there).
    pub after: Option<MediaPath>,
    /// At most so many.
    pub limit: usize,
}

impl Query {
    /// The words of `text`, at most 16 of them.
    #[must_use]
    pub fn words_of(text: &str) -> Vec<String> {
        text.split_whitespace().take(16).map(str::to_lowercase).collect()
    }
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The media, by path.
    pub media: Vec<Arc<SignedManifest>>,
    /// Whether there are more after them.
    pub more: bool,
    /// Media in the whole index.
    pub total: usize,
}

impl Entry {
    fn new(manifest: SignedManifest) -> Entry {
        let mut text = format!("{}\n{}", manifest.path.as_str(), manifest.title);
        for (_, value) in &manifest.tags {
            text.push('\n');
            text.push_str(value);
        }
        Entry { text: text.to_lowercase().into(), manifest: Arc::new(manifest) }
    }
}

impl Index {
    /// Puts a media into it, in place of what was at its path.
    pub fn put(&self, manifest: SignedManifest) {
        let entry = Entry::new(manifest);
        let (id, path) = (entry.manifest.id(), entry.manifest.path.clone());
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = inner.by_path.insert(path.clone(), entry) {
            inner.paths.remove(&old.manifest.id());
        }
        inner.paths.insert(id, path);
    }

    /// Takes a media out.
    pub fn remove(&self, id: &MediaId) {
        let mut inner = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = inner.paths.remove(id) {
            inner.by_path.remove(&path);
        }
    }

    /// The media at `path`.
    #[must_use]
    pub fn get(&self, path: &MediaPath) -> Option<Arc<SignedManifest>> {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        inner.by_path.get(path).map(|e| e.manifest.clone())
    }

    /// Searches. Linear in the number of media after `query.after`.
    #[must_use]
    pub fn find(&self, query: &Query) -> Found {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let from = query.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut hits = inner
            .by_path
            .range::<MediaPath, _>((from, Bound::Unbounded))
            .filter(|(_, e)| query.words.iter().all(|w| e.text.contains(w.as_str())))
            .map(|(_, e)| e.manifest.clone());
        let media: Vec<_> = hits.by_ref().take(query.limit).collect();
        Found { more: hits.next().is_some(), media, total: inner.by_path.len() }
    }
}

impl Announce for Index {
    fn announce(&self, write: &Store) {
        match write {
            Store::Manifest { manifest } => self.put(manifest.clone()),
            Store::Withdrawn { media } => self.remove(media),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::samples::manifest;

    fn paths(index: &Index, q: &str, after: Option<&str>, limit: usize) -> (Vec<String>, bool) {
        let query =
            Query { words: Query::words_of(q), after: after.map(|a| MediaPath::new(a).unwrap()), limit };
        let found = index.find(&query);
        (found.media.iter().map(|m| m.path.as_str().to_owned()).collect(), found.more)
    }

    #[test]
    fn search_and_paging() {
        let index = Index::default();
        for (path, title, artist) in [
            ("music/b.opus", "Zweiter Satz", "Ärzte"),
            ("music/a.opus", "First movement", "Quartet"),
            ("talk/c.opus", "First talk", "Quartet"),
        ] {
            index.put(manifest(1, path, 1, title, &[("ARTIST", artist)]));
        }
        let all = ["music/a.opus", "music/b.opus", "talk/c.opus"].map(str::to_owned).to_vec();
        assert_eq!(paths(&index, "", None, 10), (all.clone(), false));
        assert_eq!(paths(&index, "", None, 2), (all[..2].to_vec(), true));
        assert_eq!(paths(&index, "", Some("music/b.opus"), 2), (all[2..].to_vec(), false));
        assert_eq!(paths(&index, "FIRST quartet", None, 10).0, ["music/a.opus", "talk/c.opus"]);
        assert_eq!(paths(&index, "ärzte", None, 10).0, ["music/b.opus"]);
        assert_eq!(paths(&index, "first ärzte", None, 10).0, Vec::<String>::new());
    }

    #[test]
    fn a_new_owner_replaces_and_a_late_withdrawal_of_the_old_one_does_no_harm() {
        let index = Index::default();
        let (a, b) = (manifest(1, "x", 1, "a", &[]), manifest(2, "x", 1, "b", &[]));
        let (id_a, id_b) = (a.id(), b.id());
        index.put(a);
        index.put(b);
        index.remove(&id_a);
        assert_eq!(index.get(&MediaPath::new("x").unwrap()).unwrap().title, "b");
        index.remove(&id_b);
        assert!(index.get(&MediaPath::new("x").unwrap()).is_none());
    }
}
