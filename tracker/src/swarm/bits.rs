//! Bitmaps with operations on ranges, and sets that can be sampled.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use rand::rngs::SmallRng;

/// Hasher of the tracker's own numbers: quick, and the same in every run, so that a replay takes the same path. Not
/// for what strangers choose.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct OwnHasher(u64);

impl Hasher for OwnHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(5) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 29;
    }
}

/// A map keyed by the tracker's own numbers.
pub(crate) type Table<K, V> = HashMap<K, V, BuildHasherDefault<OwnHasher>>;

/// One bit for each of `len` numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: u64,
    ones: u64,
}

fn word(i: u64) -> usize {
    // Lengths are at most 2^26 (limits::FILE_PAGES), so an index fits.
    usize::try_from(i / 64).unwrap_or(usize::MAX)
}

/// The bits `first % 64 ..` of its word up to `last`, if `last` lies in the same word.
fn mask(first: u64, last: u64, w: u64) -> u64 {
    let low = if first / 64 == w { u64::MAX << (first % 64) } else { u64::MAX };
    let high = if last / 64 == w { u64::MAX >> (63 - last % 64) } else { u64::MAX };
    low & high
}

impl Bits {
    pub(crate) fn new(len: u64) -> Bits {
        Bits { words: vec![0; word(len.div_ceil(64) * 64)], len, ones: 0 }
    }

    pub(crate) fn full(len: u64) -> Bits {
        let mut bits = Bits::new(len);
        if len > 0 {
            bits.set(0, len - 1);
        }
        bits
    }

    /// Bytes that one of `len` bits takes.
    pub(crate) fn bytes(len: u64) -> u64 {
        len.div_ceil(64) * 8
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn ones(&self) -> u64 {
        self.ones
    }

    pub(crate) fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// The word of 64 bits at `i`, 0 beyond the end.
    pub(crate) fn word_at(&self, i: usize) -> u64 {
        self.words.get(i).copied().unwrap_or(0)
    }

    pub(crate) fn get(&self, i: u64) -> bool {
        self.word_at(word(i)) >> (i % 64) & 1 == 1
    }

    fn each(&mut self, first: u64, last: u64, mut f: impl FnMut(&mut u64, u64)) {
        let last = last.min(self.len.saturating_sub(1));
        if first > last || self.len == 0 {
            return;
        }
        for w in first / 64..=last / 64 {
            if let Some(x) = self.words.get_mut(word(w * 64)) {
                f(x, mask(first, last, w));
            }
        }
    }

    /// Sets `first ..= last` (cut at the end); says how many were new.
    pub(crate) fn set(&mut self, first: u64, last: u64) -> u64 {
        let mut new = 0;
        self.each(first, last, |w, m| {
            new += u64::from((m & !*w).count_ones());
            *w |= m;
        });
        self.ones += new;
        new
    }

    /// Clears `first ..= last` (cut at the end); says how many were set.
    pub(crate) fn clear(&mut self, first: u64, last: u64) -> u64 {
        let mut old = 0;
        self.each(first, last, |w, m| {
            old += u64::from((m & *w).count_ones());
            *w &= !m;
        });
        self.ones -= old;
        old
    }

    /// Whether all of `first ..= last` (cut at the end) are set.
    pub(crate) fn all(&self, first: u64, last: u64) -> bool {
        self.next_clear(first).is_none_or(|p| p > last)
    }

    fn find(&self, from: u64, flip: u64) -> Option<u64> {
        let mut i = word(from);
        let mut w = (self.words.get(i)? ^ flip) & (u64::MAX << (from % 64));
        while w == 0 {
            i += 1;
            w = self.words.get(i)? ^ flip;
        }
        let at = i as u64 * 64 + u64::from(w.trailing_zeros());
        (at < self.len).then_some(at)
    }

    /// The first set bit at or after `from`.
    pub(crate) fn next_set(&self, from: u64) -> Option<u64> {
        self.find(from, 0)
    }

    /// The first clear bit at or after `from`.
    pub(crate) fn next_clear(&self, from: u64) -> Option<u64> {
        self.find(from, u64::MAX)
    }

    /// Runs of set bits within `first ..= last`.
    pub(crate) fn runs(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = self.next_set(first);
        std::iter::from_fn(move || {
            let a = at.filter(|a| *a <= last)?;
            let end = self.next_clear(a).unwrap_or(self.len);
            at = self.next_set(end);
            Some((a, last.min(end - 1)))
        })
    }

    /// Runs of clear bits within `first ..= last`.
    pub(crate) fn gaps(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let last = last.min(self.len.saturating_sub(1));
        let mut at = self.next_clear(first);
        std::iter::from_fn(move || {
            let a = at.filter(|a| *a <= last)?;
            let end = self.next_set(a).unwrap_or(self.len);
            at = self.next_clear(end);
            Some((a, last.min(end - 1)))
        })
    }
}

/// A set from which members can be drawn at random, all in constant time; with each something that is known of it, so that
/// many can be looked at and few must be looked up.
#[derive(Debug, Clone)]
pub(crate) struct Pool<T, V = ()> {
    items: Vec<(T, V)>,
    at: Table<T, usize>,
}

impl<T: Copy + Eq + Hash, V: Copy> Default for Pool<T, V> {
    fn default() -> Self {
        Pool { items: Vec::new(), at: Table::default() }
    }
}

impl<T: Copy + Eq + Hash> Pool<T> {
    /// Says whether it is new.
    pub(crate) fn insert(&mut self, item: T) -> bool {
        self.put(item, ())
    }
}

impl<T: Copy + Eq + Hash, V: Copy> Pool<T, V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn has(&self, item: T) -> bool {
        self.at.contains_key(&item)
    }

    /// The one at `i`: less than [`Pool::len`], in no order.
    pub(crate) fn nth(&self, i: usize) -> Option<T> {
        self.items.get(i).map(|(item, _)| *item)
    }

    /// What is known of one that is there.
    pub(crate) fn get(&self, item: T) -> Option<V> {
        Some(self.items.get(*self.at.get(&item)?)?.1)
    }

    /// Puts it in, with what is known of it now. Says whether it is new.
    pub(crate) fn put(&mut self, item: T, known: V) -> bool {
        let i = *self.at.entry(item).or_insert(self.items.len());
        if let Some(old) = self.items.get_mut(i) {
            old.1 = known;
            return false;
        }
        self.items.push((item, known));
        true
    }

    /// Says whether it was there.
    pub(crate) fn remove(&mut self, item: T) -> bool {
        let Some(i) = self.at.remove(&item) else { return false };
        self.items.swap_remove(i);
        if let Some((moved, _)) = self.items.get(i) {
            self.at.insert(*moved, i);
        }
        true
    }

    /// At most `k` different ones, drawn at random (all, in random order, if there are no more).
    pub(crate) fn draw(&self, k: usize, rng: &mut SmallRng) -> Vec<T> {
        self.drawn(k, rng).map(|(item, _)| item).collect()
    }

    /// The same, with what is known of each.
    pub(crate) fn drawn(&self, k: usize, rng: &mut SmallRng) -> impl Iterator<Item = (T, V)> {
        let n = self.items.len();
        let drawn = rand::seq::index::sample(rng, n, k.min(n));
        drawn.into_iter().filter_map(|i| self.items.get(i).copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_do_as_a_vector_of_bools(
            len in 1u64..300,
            ops in proptest::collection::vec((any::<bool>(), 0u64..310, 0u64..310), 0..20),
        ) {
            let mut bits = Bits::new(len);
            let mut model = vec![false; usize::try_from(len).unwrap()];
            for (on, a, b) in ops {
                let changed = if on { bits.set(a, b) } else { bits.clear(a, b) };
                let mut expected = 0;
                for (i, m) in (0..).zip(model.iter_mut()) {
                    if i >= a && i <= b && *m != on {
                        *m = on;
                        expected += 1;
                    }
                }
                prop_assert_eq!(changed, expected);
            }
            prop_assert_eq!(bits.ones(), model.iter().filter(|m| **m).count() as u64);
            for i in 0..len {
                let tail = || (i..).zip(&model[usize::try_from(i).unwrap()..]);
                prop_assert_eq!(bits.next_set(i), tail().find(|(_, m)| **m).map(|(i, _)| i));
                prop_assert_eq!(bits.next_clear(i), tail().find(|(_, m)| !**m).map(|(i, _)| i));
            }
            let held: u64 = bits.runs(0, len - 1).map(|(a, b)| b - a + 1).sum();
            let open: u64 = bits.gaps(0, len - 1).map(|(a, b)| b - a + 1).sum();
            prop_assert_eq!((held, open), (bits.ones(), len - bits.ones()));
        }
    }

    #[test]
    fn a_pool_keeps_what_was_put_in() {
        use rand::SeedableRng;
        let mut rng = SmallRng::seed_from_u64(1);
        let mut pool = Pool::default();
        for i in 0..10u64 {
            assert!(pool.insert(i));
            assert!(!pool.insert(i));
        }
        assert!(pool.remove(3) && !pool.remove(3));
        let mut all = pool.draw(100, &mut rng);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
        assert_eq!(pool.draw(4, &mut rng).len(), 4);
    }
}
