//! Strangers who wait to be heard: a bounded number, of whom no neighbourhood keeps the others out.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use iceshare::icet::Prefix;
use rand::Rng;

/// Who waits. Prefixes have their turns one after the other; where all places are taken, one goes by chance of the prefix that
/// has most, so that in any flood each newcomer has a chance, and another one with the next try.
#[derive(Debug)]
pub(super) struct Crowd<T> {
    most: usize,
    count: usize,
    waiting: HashMap<Prefix, VecDeque<T>>,
    /// Prefixes of which somebody waits, in the order of their turns.
    turns: VecDeque<Prefix>,
    /// Those of which more than one does, by how many.
    crowded: BTreeSet<(usize, Prefix)>,
}

impl<T> Crowd<T> {
    pub(super) fn new(most: usize) -> Crowd<T> {
        let (waiting, turns) = (HashMap::new(), VecDeque::new());
        Crowd { most, count: 0, waiting, turns, crowded: BTreeSet::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn push(&mut self, rng: &mut impl Rng, ip: IpAddr, one: T) {
        let prefix = Prefix::of(ip);
        let mine = self.waiting.entry(prefix).or_default();
        if mine.is_empty() {
            self.turns.push_back(prefix);
        }
        mine.push_back(one);
        let now = mine.len();
        self.resized(prefix, now - 1, now);
        if self.count > self.most {
            self.push_out(rng);
        }
    }

    fn resized(&mut self, prefix: Prefix, before: usize, now: usize) {
        self.count = self.count + now - before;
        if before > 1 {
            self.crowded.remove(&(before, prefix));
        }
        match now {
            0 => {
                self.waiting.remove(&prefix);
            }
            1 => {}
            _ => {
                self.crowded.insert((now, prefix));
            }
        }
    }

    fn push_out(&mut self, rng: &mut impl Rng) {
        if let Some((n, prefix)) = self.crowded.last().copied() {
            if let Some(group) = self.waiting.get_mut(&prefix) {
                group.remove(rng.random_range(0..n));
                self.resized(prefix, n, n - 1);
            }
        } else if !self.turns.is_empty()
            && let Some(prefix) = self.turns.swap_remove_back(rng.random_range(0..self.turns.len()))
        {
            self.resized(prefix, 1, 0);
        }
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let prefix = self.turns.pop_front()?;
        let group = self.waiting.get_mut(&prefix)?;
        let one = group.pop_front()?;
        let left = group.len();
        if left > 0 {
            self.turns.push_back(prefix);
        }
        self.resized(prefix, left + 1, left);
        Some(one)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn a_flood_of_one_neighbourhood_takes_nobody_elses_turn() {
        let (mut crowd, mut rng) = (Crowd::new(64), SmallRng::seed_from_u64(1));
        for i in 0..10_000 {
            crowd.push(&mut rng, v4(0x0a00_0000 + i % 256), u32::MAX);
            if i == 7000 {
                crowd.push(&mut rng, v4(0xc000_0201), 1);
                crowd.push(&mut rng, "2001:db8::1".parse().unwrap(), 2);
            }
        }
        assert_eq!(crowd.len(), 64);
        let first: Vec<_> = (0..3).filter_map(|_| crowd.pop()).collect();
        assert!(first.contains(&1) && first.contains(&2), "{first:?}");
        while crowd.pop().is_some() {}
        assert!(
            crowd.is_empty()
                && crowd.waiting.is_empty()
                && crowd.turns.is_empty()
                && crowd.crowded.is_empty()
        );
    }

    #[test]
    fn in_a_flood_from_everywhere_each_has_a_chance() {
        let mut rng = SmallRng::seed_from_u64(2);
        let mut heard = 0;
        for newcomer in 0..100 {
            // Twice as many come as there are places.
            let mut crowd = Crowd::new(64);
            for i in 0..128 {
                let one = if i == newcomer { 1 } else { 0 };
                let from = rng.random();
                crowd.push(&mut rng, v4(from), one);
            }
            heard += std::iter::from_fn(|| crowd.pop()).sum::<i32>();
        }
        assert!((35..=65).contains(&heard), "{heard} of 100");
        // Of one's own neighbourhood as well.
        let mut crowd = Crowd::new(64);
        (0..128).for_each(|i| crowd.push(&mut rng, v4(i), i));
        let kept: Vec<_> = std::iter::from_fn(|| crowd.pop()).collect();
        assert!(kept.iter().any(|i| *i < 64) && kept.iter().any(|i| *i >= 64), "{kept:?}");
    }
}
