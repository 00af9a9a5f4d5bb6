//! Heads of a broadcast that are kept, so that a tracker that knows nothing of it can be told what was on when. Sans-IO.

use std::collections::VecDeque;

use icet::live::SignedHead;
use icet::media::Signed;
use icet::{PageNo, limits};

/// Milliseconds between two of them at least, but for links and pauses; and so many are to reach over all that is kept.
const SPACING: (u64, u64) = (5000, limits::EARLIER as u64 / 2);
/// Where the clock is ahead of media time by so much more than before, in milliseconds, the source paused.
const PAUSE: u64 = 1500;

/// Some of the heads that a broadcaster signed: of each link, around each pause, and now and then, at most [`limits::EARLIER`].
#[derive(Debug, Clone, Default)]
pub struct Earlier {
    kept: VecDeque<SignedHead>,
    /// The one that said last that something is new.
    last: Option<SignedHead>,
}

impl Earlier {
    /// Those that were kept by an earlier run, oldest first.
    #[must_use]
    pub fn resume(kept: Vec<SignedHead>) -> Earlier {
        Earlier { last: kept.last().cloned(), kept: kept.into() }
    }

    /// Takes the next head, of a broadcaster that keeps pages from `base` on. Says whether other ones are kept now than before.
    pub fn note(&mut self, head: &SignedHead, base: PageNo) -> bool {
        let Some(last) = self.last.replace(head.clone()) else {
            self.kept.push_back(head.clone());
            return true;
        };
        if head.next <= last.next {
            self.last = Some(last);
            return false;
        }
        let clock = head.signed_at.saturating_sub(last.signed_at);
        let media = u64::try_from(head.time.saturating_sub(last.time) / 1000).unwrap_or(0);
        let paused = clock > media.saturating_add(PAUSE);
        let spacing = self.spacing();
        let due = self
            .kept
            .back()
            .is_none_or(|kept| kept.link != head.link || head.signed_at.abs_diff(kept.signed_at) >= spacing);
        if !paused && !due {
            return false;
        }
        if paused && self.kept.back().is_none_or(|kept| kept.next < last.next) {
            self.kept.push_back(last);
        }
        self.kept.push_back(head.clone());
        // Of what is before the window only the head of the link in which that begins is of use.
        while self.kept.get(1).is_some_and(|second| second.next <= base) {
            self.kept.pop_front();
        }
        if self.kept.len() > limits::EARLIER {
            self.thin();
        }
        true
    }

    fn spacing(&self) -> u64 {
        let ends = self.kept.front().zip(self.kept.back());
        let all = ends.map_or(0, |(first, last)| last.signed_at.saturating_sub(first.signed_at));
        SPACING.0.max(all / SPACING.1)
    }

    /// Leaves out every other one of those that are not the first of a link; the oldest, if that is not enough.
    fn thin(&mut self) {
        let (mut link, mut odd) = (None, false);
        self.kept.retain(|head| {
            odd = !odd;
            link.replace(head.link) != Some(head.link) || odd
        });
        while self.kept.len() > limits::EARLIER {
            self.kept.pop_front();
        }
    }

    /// All that are kept, oldest first.
    pub fn signed(&self) -> impl Iterator<Item = &Signed> {
        self.kept.iter().map(SignedHead::signed)
    }
}

#[cfg(test)]
mod tests {
    use icet::key::Hash;
    use icet::live::{Head, NO_BATCH};
    use icet::{Identity, PageFlags, PageRecord};

    use super::*;

    fn head(clock: u64, seconds: u64, link: PageNo) -> SignedHead {
        let record = PageRecord { len: 100, crc: 0, hash: Hash([0; 32]), flags: PageFlags::SETUP, time: 0 };
        let next = 2 + seconds * 5;
        let head = Head {
            broadcast: Hash([1; 32]),
            next,
            offset: 1000 + next * 1000,
            time: i64::try_from(seconds).unwrap() * 1_000_000,
            last: NO_BATCH,
            link,
            link_offset: link,
            link_time: 0,
            setup: vec![record; 2],
            key: next,
            signed_at: 1_000_000 + clock * 1000,
            title: None,
            ended: None,
        };
        SignedHead::sign(head, &Identity::from_seed(&[7; 32])).unwrap()
    }

    fn kept(e: &Earlier) -> Vec<(u64, i64)> {
        e.kept.iter().map(|h| (h.signed_at / 1000 - 1000, h.time / 1_000_000)).collect()
    }

    #[test]
    fn some_are_kept_and_both_ends_of_a_pause() {
        let mut e = Earlier::default();
        for second in 0..=12 {
            e.note(&head(second, second, 0), 0);
        }
        for paused in 13..40 {
            assert!(!e.note(&head(paused, 12, 0), 0), "nothing new, nothing to keep");
        }
        for second in 13..=20 {
            e.note(&head(second + 27, second, 0), 0);
        }
        assert_eq!(kept(&e), [(0, 0), (5, 5), (10, 10), (12, 12), (40, 13), (45, 18)]);
        // A new program goes on from what the old one kept.
        let mut e = Earlier::resume(e.kept.into());
        assert!(e.note(&head(100, 21, 0), 0));
        assert_eq!(kept(&e)[5..], [(45, 18), (100, 21)]);
    }

    #[test]
    fn they_are_few_however_long_it_lasts_and_none_of_a_link_is_lost() {
        let mut e = Earlier::default();
        for second in 0..4000 {
            e.note(&head(second, second, second / 1000), 0);
        }
        assert!((limits::EARLIER / 4..=limits::EARLIER).contains(&e.kept.len()), "{}", e.kept.len());
        for link in 0..4 {
            let first = e.kept.iter().find(|h| h.link == link).expect("one of each");
            assert!(first.time <= (i64::try_from(link).unwrap() * 1000 + 1) * 1_000_000);
        }
        // As many links as there is room for, and more.
        for second in 4000..4300 {
            e.note(&head(second, second, second), 0);
        }
        assert_eq!(e.kept.back().unwrap().time, 4_299_000_000);
        assert!(e.kept.len() <= limits::EARLIER);
        // What is before the window is of no use.
        e.note(&head(4400, 4400, 4299), 2 + 4290 * 5);
        assert!(e.kept.len() < 15 && e.kept[0].next <= 2 + 4290 * 5, "{:?}", kept(&e));
    }
}
