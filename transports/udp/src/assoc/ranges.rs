//! Sets of numbers as intervals.

use std::collections::BTreeMap;

/// A set of `u64` as intervals, each from its start up to before its end, none adjoining another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// Adds `start .. end`. Says whether anything of it was new.
    pub(crate) fn insert(&mut self, start: u64, end: u64) -> bool {
        if start >= end {
            return false;
        }
        // What comes in order is the most of it.
        if let Some(mut last) = self.0.last_entry().filter(|l| *l.get() == start) {
            *last.get_mut() = end;
            return true;
        }
        let (mut start, mut end) = (start, end);
        if let Some((a, b)) = self.0.range(..=start).next_back().map(|(a, b)| (*a, *b))
            && b >= start
        {
            if b >= end {
                return false;
            }
            start = a;
        }
        while let Some((a, b)) = self.0.range(start..=end).next().map(|(a, b)| (*a, *b)) {
            self.0.remove(&a);
            end = end.max(b);
        }
        self.0.insert(start, end);
        true
    }

    /// Takes `start .. end` out.
    #[cfg(test)]
    pub(crate) fn remove(&mut self, start: u64, end: u64) {
        for (a, b) in self.within(start, end) {
            let whole = self.0.range(..=a).next_back().map(|(x, y)| (*x, *y));
            if let Some((x, y)) = whole {
                self.0.remove(&x);
                self.insert(x, a);
                self.insert(b, y);
            }
        }
    }

    pub(crate) fn contains(&self, n: u64) -> bool {
        self.0.range(..=n).next_back().is_some_and(|(_, end)| *end > n)
    }

    /// What of `start .. end` is in the set.
    pub(crate) fn within(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        if start >= end {
            return Vec::new();
        }
        let before = self.0.range(..start).next_back().filter(|(_, b)| **b > start);
        let cut = |(a, b): (&u64, &u64)| ((*a).max(start), (*b).min(end));
        before.into_iter().chain(self.0.range(start..end)).map(cut).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// From the highest down.
    pub(crate) fn iter_down(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().rev().map(|(a, b)| (*a, *b))
    }

    pub(crate) fn pop_first(&mut self) -> Option<(u64, u64)> {
        self.0.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set(ops in prop::collection::vec((any::<bool>(), 0..200u64, 0..20u64), 0..100)) {
            let (mut ranges, mut plain) = (RangeSet::default(), BTreeSet::new());
            for (add, start, len) in ops {
                if add {
                    let new = (start..start + len).filter(|n| !plain.contains(n)).count() > 0;
                    prop_assert_eq!(ranges.insert(start, start + len), new);
                    plain.extend(start..start + len);
                } else {
                    ranges.remove(start, start + len);
                    plain.retain(|n| !(start..start + len).contains(n));
                }
                let down: Vec<_> = ranges.iter_down().collect();
                prop_assert!(down.windows(2).all(|w| w[1].1 < w[0].0), "adjoining or unsorted: {:?}", down);
                prop_assert!((0..230).all(|n| ranges.contains(n) == plain.contains(&n)));
                let told: Vec<u64> = ranges.within(50, 120).into_iter().flat_map(|(a, b)| a..b).collect();
                prop_assert_eq!(told, plain.range(50..120).copied().collect::<Vec<_>>());
            }
        }
    }
}
