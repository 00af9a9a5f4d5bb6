//! Which media there are, searchable: kept from what the catalogue announces, so that a search never asks the swarm.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use icet::{MediaId, MediaPath, SignedManifest};
use icu_normalizer::ComposingNormalizerBorrowed;

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
    /// Path, title and values of tags, a line each, as [`folded`].
    text: Arc<str>,
}

/// What to look for.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Words that must all occur in path, title or tags, as [`Query::words_of`] gives them. None: everything.
    pub words: Vec<String>,
    /// Only media whose path comes after this one (which need not be there).
    pub after: Option<MediaPath>,
    /// At most so many.
    pub limit: usize,
}

impl Query {
    /// The words of `text`, at most 16 of them: found in any case, and whether accents are letters of their own or not.
    #[must_use]
    pub fn words_of(text: &str) -> Vec<String> {
        text.split_whitespace().take(16).map(folded).collect()
    }
}

/// In lower case and in Unicode's normalization form C: file systems differ in the form of names.
fn folded(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(&text.to_lowercase()).into_owned()
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The media, by path.
    pub media: Vec<Arc<SignedManifest>>,
    /// Whether there are more after them.
    pub more: bool,
    /// Media that match in the whole index.
    pub total: usize,
}

impl Entry {
    fn new(manifest: SignedManifest) -> Entry {
        let mut text = format!("{}\n{}", manifest.path.as_str(), manifest.title);
        for (_, value) in &manifest.tags {
            text.push('\n');
            text.push_str(value);
        }
        Entry { text: folded(&text).into(), manifest: Arc::new(manifest) }
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

    /// Searches. Linear in the number of media, if there are words to look for.
    #[must_use]
    pub fn find(&self, query: &Query) -> Found {
        let inner = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let matches = |e: &Entry| query.words.iter().all(|w| e.text.contains(w.as_str()));
        let (before, from) = match &query.after {
            Some(after) => (Bound::Included(after), Bound::Excluded(after)),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let mut hits = inner
            .by_path
            .range::<MediaPath, _>((from, Bound::Unbounded))
            .map(|(_, e)| e)
            .filter(|e| matches(e));
        let media: Vec<_> = hits.by_ref().take(query.limit).map(|e| e.manifest.clone()).collect();
        let more = hits.next().is_some();
        let total = if query.words.is_empty() {
            inner.by_path.len()
        } else {
            let earlier = query.after.as_ref().map_or(0, |_| {
                let all = inner.by_path.range::<MediaPath, _>((Bound::Unbounded, before));
                all.filter(|(_, e)| matches(e)).count()
            });
            earlier + media.len() + usize::from(more) + hits.count()
        };
        Found { media, more, total }
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
        let total = |q, after: Option<&str>, limit| {
            let after = after.map(|a| MediaPath::new(a).unwrap());
            index.find(&Query { words: Query::words_of(q), after, limit }).total
        };
        for (after, limit) in [(None, 10), (None, 1), (Some("music/a.opus"), 1), (Some("x"), 1)] {
            assert_eq!(
                (total("", after, limit), total("quartet", after, limit)),
                (3, 2),
                "{after:?} {limit}"
            );
        }
        assert_eq!(total("nothing", None, 1), 0);
    }

    #[test]
    fn names_are_found_in_both_forms_of_unicode() {
        let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
        let index = Index::default();
        index.put(manifest(1, &format!("a/{composed}.opus"), 1, "", &[]));
        index.put(manifest(1, &format!("b/{decomposed}.opus"), 1, "", &[]));
        for word in [composed, decomposed, "CAF\u{c9}", "CAFE\u{301}"] {
            assert_eq!(paths(&index, word, None, 10).0.len(), 2, "{word}");
        }
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
