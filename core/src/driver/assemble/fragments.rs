//! Parts of pages that did not come whole, kept until the rest came, from the same host or another. Sans-IO.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};
use icet::{PageNo, PeerKey, limits};

use crate::protocol::Span;

/// Bytes kept at most of one media; beyond, the page that waits longest is given up.
const KEPT: usize = 4 << 20;
/// What a part costs beside its bytes.
const PART: usize = 128;
/// Pages that are remembered as not to be put together from several hosts again.
const DISTRUSTED: usize = 1024;

/// Fragments of one media, shared by its fetches.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    pages: BTreeMap<PageNo, Parts>,
    /// Pages in the order in which their first part came.
    order: VecDeque<PageNo>,
    kept: usize,
    /// Pages whose parts from several hosts made no sound page: who lied is unknown, so they come whole from one.
    distrusted: BTreeSet<PageNo>,
}

#[derive(Debug, Default)]
struct Parts {
    /// By offset; no two overlap.
    parts: BTreeMap<usize, (Bytes, PeerKey)>,
    bytes: usize,
}

/// A page that was put together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    /// Whether all of it came from one host, which then answers for it.
    pub(crate) of_one_host: bool,
}

impl Parts {
    /// What of `from .. to` is not there.
    fn missing(&self, from: usize, to: usize) -> Vec<(usize, usize)> {
        let (mut at, mut out) = (from, Vec::new());
        let before = self.parts.range(..from).next_back();
        for (start, (part, _)) in before.into_iter().chain(self.parts.range(from..to)) {
            if *start > at {
                out.push((at, *start));
            }
            at = at.max(start + part.len());
        }
        if at < to {
            out.push((at, to));
        }
        out
    }
}

impl Fragments {
    /// Keeps `bytes` of `page` from `offset` on, as far as they are new.
    pub(crate) fn insert(&mut self, page: PageNo, offset: usize, bytes: &[u8], from: PeerKey) {
        let end = offset.saturating_add(bytes.len());
        if bytes.is_empty() || end > *limits::PAGE_BYTES.end() as usize {
            return;
        }
        if self.distrusted.contains(&page)
            && self.pages.get(&page).is_some_and(|p| p.parts.values().any(|(_, k)| *k != from))
        {
            self.forget(page);
        }
        if !self.pages.contains_key(&page) {
            self.order.push_back(page);
        }
        let parts = self.pages.entry(page).or_default();
        for (a, b) in parts.missing(offset, end) {
            if let Some(new) = bytes.get(a - offset..b - offset) {
                // A copy: the fragment may be a small part of a large buffer.
                parts.parts.insert(a, (Bytes::copy_from_slice(new), from));
                parts.bytes += new.len();
                self.kept += new.len() + PART;
            }
        }
        while self.kept > KEPT {
            let Some(oldest) = self.order.front().copied() else { break };
            self.forget(oldest);
        }
    }

    /// Takes `page`, of `len` bytes, out if it is whole.
    pub(crate) fn take(&mut self, page: PageNo, len: usize) -> Option<Whole> {
        let parts = self.pages.get(&page)?;
        if parts.bytes < len || !parts.missing(0, len).is_empty() {
            return None;
        }
        let mut hosts: Vec<&PeerKey> = parts.parts.values().map(|(_, from)| from).collect();
        hosts.dedup();
        let of_one_host = hosts.len() == 1;
        let mut bytes = BytesMut::with_capacity(len);
        for (part, _) in parts.parts.values() {
            bytes.extend_from_slice(part);
        }
        bytes.truncate(len);
        self.forget(page);
        Some(Whole { bytes: bytes.freeze(), of_one_host })
    }

    /// What is missing of `page`, of `len` bytes; none if nothing of it is kept.
    pub(crate) fn missing(&self, page: PageNo, len: u32) -> Option<Vec<Span>> {
        let parts = self.pages.get(&page)?;
        let span = |(a, b): (usize, usize)| {
            let (offset, len) = (u32::try_from(a).ok()?, u32::try_from(b - a).ok()?);
            Some(Span { page, offset, len })
        };
        Some(parts.missing(0, len as usize).into_iter().filter_map(span).collect())
    }

    /// Whether nothing is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Drops what is kept of `page`.
    pub(crate) fn forget(&mut self, page: PageNo) {
        if let Some(parts) = self.pages.remove(&page) {
            self.kept -= parts.bytes + PART * parts.parts.len();
            self.order.retain(|p| *p != page);
        }
    }

    /// The parts of `page` from several hosts made no sound page.
    pub(crate) fn distrust(&mut self, page: PageNo) {
        self.forget(page);
        if self.distrusted.len() >= DISTRUSTED {
            self.distrusted.pop_first();
        }
        self.distrusted.insert(page);
    }

    /// Whether parts of `page` from several hosts made no sound page once.
    pub(crate) fn is_distrusted(&self, page: PageNo) -> bool {
        self.distrusted.contains(&page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: PeerKey = PeerKey([1; 32]);
    const B: PeerKey = PeerKey([2; 32]);

    #[test]
    fn parts_from_two_hosts_make_a_page_and_the_rest_is_told() {
        let page: Vec<u8> = (0..=255).collect();
        let mut f = Fragments::default();
        f.insert(7, 0, &page[..100], A);
        f.insert(7, 150, &page[150..], A);
        assert_eq!(f.missing(7, 256), Some(vec![Span { page: 7, offset: 100, len: 50 }]));
        assert_eq!(f.take(7, 256), None);
        assert_eq!(f.missing(8, 256), None);
        f.insert(7, 90, &page[90..160], B);
        assert_eq!(f.take(7, 256), Some(Whole { bytes: page.into(), of_one_host: false }));
        assert!(f.is_empty() && f.kept == 0);
    }

    #[test]
    fn a_page_that_several_hosts_spoiled_comes_from_one_then() {
        let mut f = Fragments::default();
        f.distrust(7);
        f.insert(7, 0, &[1; 10], A);
        f.insert(7, 10, &[2; 10], B);
        assert_eq!(f.missing(7, 20), Some(vec![Span { page: 7, offset: 0, len: 10 }]));
        f.insert(7, 0, &[2; 10], B);
        assert!(f.take(7, 20).is_some_and(|w| w.of_one_host));
    }

    #[test]
    fn what_is_kept_is_bounded_however_small_the_parts() {
        let mut f = Fragments::default();
        for page in 0..50 {
            for offset in (0..60_000).step_by(2) {
                f.insert(page, offset, &[0], A);
            }
        }
        assert!(f.kept <= KEPT);
        let counted: usize = f.pages.values().map(|p| p.bytes + PART * p.parts.len()).sum();
        assert_eq!(f.kept, counted);
        f.insert(99, 65_000, &[0; 1000], A);
        assert_eq!(f.missing(99, 1), None, "beyond the largest page");
    }

    proptest! {
        #[test]
        fn any_parts_in_any_order_make_the_page(
            len in 1usize..2000,
            parts in prop::collection::vec((any::<prop::sample::Index>(), 1usize..600, any::<bool>()), 0..40),
        ) {
            let page: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect();
            let mut f = Fragments::default();
            let mut have = vec![false; len];
            for (at, n, from) in parts {
                let at = at.index(len);
                let end = len.min(at + n);
                f.insert(3, at, &page[at..end], if from { A } else { B });
                have[at..end].fill(true);
            }
            let len32 = u32::try_from(len).unwrap_or(0);
            let missing = f.missing(3, len32).unwrap_or(vec![Span { page: 3, offset: 0, len: len32 }]);
            let told: usize = missing.iter().map(|s| s.len as usize).sum();
            prop_assert_eq!(told, have.iter().filter(|h| !**h).count());
            for s in &missing {
                prop_assert!((s.offset..s.offset + s.len).all(|i| !have[i as usize]));
                f.insert(3, s.offset as usize, &page[s.offset as usize..(s.offset + s.len) as usize], A);
            }
            prop_assert_eq!(f.take(3, len).map(|w| w.bytes), Some(Bytes::from(page)));
        }
    }
}
