//! Which packets came: a sliding window (RFC 4303, section 3.4.3), as a ring of words as RFC 6479 has it.

/// Words of the ring.
const WORDS: usize = 64;
/// How many numbers behind the highest are told apart. (One word of the ring is being cleared.)
pub(crate) const WINDOW: u64 = (WORDS as u64 - 1) * 64;

/// The window.
#[derive(Debug, Clone)]
pub(crate) struct Replay {
    ring: [u64; WORDS],
    /// One more than the highest number noted.
    next: u64,
}

impl Default for Replay {
    fn default() -> Replay {
        Replay { ring: [0; WORDS], next: 0 }
    }
}

fn place(n: u64) -> (usize, u64) {
    // Below WORDS, so the cast loses nothing.
    ((n / 64 % WORDS as u64) as usize, 1 << (n % 64))
}

impl Replay {
    /// Whether `n` is neither seen nor too old.
    pub(crate) fn is_new(&self, n: u64) -> bool {
        if n >= self.next {
            return true;
        }
        let (word, bit) = place(n);
        self.next - n <= WINDOW && self.ring.get(word).is_some_and(|w| w & bit == 0)
    }

    /// Notes an authentic packet. False: it came before, or is too old.
    pub(crate) fn note(&mut self, n: u64) -> bool {
        if !self.is_new(n) {
            return false;
        }
        if n >= self.next {
            let (from, to) = (self.next.div_ceil(64), n / 64);
            for word in from..=to.min(from + WORDS as u64 - 1) {
                let (word, _) = place(word * 64);
                if let Some(w) = self.ring.get_mut(word) {
                    *w = 0;
                }
            }
            self.next = n + 1;
        }
        let (word, bit) = place(n);
        if let Some(w) = self.ring.get_mut(word) {
            *w |= bit;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_number_passes_once(steps in prop::collection::vec((0..6u8, 0..10_000u64), 1..400)) {
            let (mut window, mut seen, mut at) = (Replay::default(), BTreeSet::new(), 0u64);
            for (kind, far) in steps {
                let n = match kind {
                    0 => at + far,
                    1 => at.saturating_sub(far),
                    2 => at.saturating_sub(far % 64),
                    3 => at + far % 3,
                    4 => at.saturating_sub(WINDOW - far % 2),
                    _ => at + 1,
                };
                let highest = seen.last().copied();
                let old = highest.is_some_and(|h: u64| h + 1 > n && h + 1 - n > WINDOW);
                prop_assert_eq!(window.is_new(n), !old && !seen.contains(&n), "{} of {:?}", n, highest);
                if window.note(n) {
                    prop_assert!(seen.insert(n));
                }
                at = at.max(n);
            }
        }
    }
}
