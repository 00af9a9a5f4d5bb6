//! What was on when: which page came at what media time, as heads told, and of each link its last head. For those who listen later.

use std::collections::{BTreeMap, VecDeque};

use icet::PageNo;
use icet::live::SignedHead;

/// Marks that are kept; beyond them every other one goes, so that all of a broadcast stays addressable.
const MARKS: usize = 1024;
/// Media time between two of them at first, in microseconds.
const SPACING: i64 = 2_000_000;
/// Links that are remembered, each with a head of some 400 bytes (4 KiB at most).
const LINKS: usize = 256;

/// A page and its media time.
#[derive(Debug, Clone, Copy)]
struct Mark {
    time: i64,
    page: PageNo,
    /// Where decoding could begin last before it.
    key: PageNo,
}

/// The past of a broadcast, as far as it is known.
#[derive(Debug)]
pub(super) struct Past {
    marks: VecDeque<Mark>,
    spacing: i64,
    links: BTreeMap<PageNo, SignedHead>,
}

impl Default for Past {
    fn default() -> Past {
        Past { marks: VecDeque::new(), spacing: SPACING, links: BTreeMap::new() }
    }
}

impl Past {
    /// Takes the next head.
    pub(super) fn note(&mut self, head: &SignedHead) {
        let begin = head.after_setup();
        if !self.links.contains_key(&head.link) {
            // It says when its link began, whoever told the heads before to whom.
            self.push(Mark { time: head.link_time, page: begin, key: begin }, 0);
        }
        self.links.insert(head.link, head.clone());
        if self.links.len() > LINKS {
            self.links.pop_first();
            let first = self.links.first_key_value().map_or(0, |(first, _)| *first);
            self.marks.retain(|m| m.page >= first);
        }
        self.push(Mark { time: head.time, page: head.next, key: head.key }, self.spacing);
    }

    fn push(&mut self, mark: Mark, spacing: i64) {
        let good = |m: &Mark| mark.time >= m.time.saturating_add(spacing) && mark.page > m.page;
        if !self.marks.back().is_none_or(good) {
            return;
        }
        self.marks.push_back(mark);
        if self.marks.len() > MARKS {
            let mut odd = false;
            self.marks.retain(|_| {
                odd = !odd;
                odd
            });
            self.spacing = self.spacing.saturating_mul(2);
        }
    }

    /// A page at which one can begin who wants what was on at `time`: about that one, or one before it; the first that is known
    /// of, if that is later.
    pub(super) fn page_at(&self, time: i64) -> Option<PageNo> {
        let i = self.marks.partition_point(|m| m.time <= time);
        let Some(a) = i.checked_sub(1).and_then(|i| self.marks.get(i)) else {
            return self.marks.front().map(|m| self.behind_setup(m.page));
        };
        let page = match self.marks.get(i) {
            // Where each page may be the first, it need not be one at which a head was told.
            Some(b) if a.key + 1 >= a.page && b.key + 1 >= b.page => {
                let (part, all) = (time.abs_diff(a.time), b.time.abs_diff(a.time).max(1));
                let more = u128::from(b.page - a.page) * u128::from(part) / u128::from(all);
                a.page.saturating_add(u64::try_from(more).unwrap_or(0))
            }
            _ => a.key,
        };
        Some(self.behind_setup(page))
    }

    /// The same page, or the first behind the setup that it is in.
    pub(super) fn behind_setup(&self, page: PageNo) -> PageNo {
        let first = self.links.values().next();
        self.head_of(page).or(first).map_or(page, |h| page.max(h.after_setup()))
    }

    /// A head of the link that `page` is in.
    pub(super) fn head_of(&self, page: PageNo) -> Option<&SignedHead> {
        self.links.range(..=page).next_back().map(|(_, head)| head)
    }
}
