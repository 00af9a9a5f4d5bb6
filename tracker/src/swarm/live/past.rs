//! What was on when: which page came at what media time and when, as heads told, and of each link its last head. For those who listen
//! later.

use std::collections::{BTreeMap, VecDeque};

use icet::PageNo;
use icet::live::SignedHead;

/// Marks that are kept; beyond them every other one goes, so that all of a broadcast stays addressable.
const MARKS: usize = 1024;
/// Media time between two of them at first, in microseconds.
const SPACING: i64 = 2_000_000;
/// Links that are remembered, each with a head of some 400 bytes (4 KiB at most).
const LINKS: usize = 256;

/// Where the clock is ahead of media time by so much more than before, in microseconds, the source paused.
const PAUSE: i64 = 1_500_000;

/// A page, its media time, and when it was on.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Microseconds by the tracker's clock, of what was on before that began too.
    at: i64,
    time: i64,
    page: PageNo,
    /// Where decoding could begin last before it.
    key: PageNo,
}

/// The past of a broadcast, as far as it is known.
#[derive(Debug)]
pub(super) struct Past {
    marks: VecDeque<Mark>,
    /// What the last head told that had something new.
    last: Option<Mark>,
    spacing: i64,
    links: BTreeMap<PageNo, SignedHead>,
}

impl Default for Past {
    fn default() -> Past {
        Past { marks: VecDeque::new(), last: None, spacing: SPACING, links: BTreeMap::new() }
    }
}

impl Past {
    /// Takes the next head, that came at `at`.
    pub(super) fn note(&mut self, head: &SignedHead, at: i64) {
        let begin = head.after_setup();
        let mark = Mark { at, time: head.time, page: head.next, key: head.key };
        let last = self.last.filter(|last| last.page < mark.page);
        let plays = |last: &Mark| head.time.saturating_sub(last.time).saturating_add(PAUSE);
        let paused = last.filter(|last| at.saturating_sub(last.at) > plays(last));
        paused.into_iter().for_each(|last| self.push(last, 0));
        if !self.links.contains_key(&head.link) {
            // It says when its link began, whoever told the heads before to whom.
            let began = at.saturating_sub(head.time.saturating_sub(head.link_time));
            self.push(Mark { at: began, time: head.link_time, page: begin, key: begin }, 0);
        }
        self.links.insert(head.link, head.clone());
        if self.links.len() > LINKS {
            self.links.pop_first();
            let first = self.links.first_key_value().map_or(0, |(first, _)| *first);
            self.marks.retain(|m| m.page >= first);
        }
        self.push(mark, if paused.is_some() { 0 } else { self.spacing });
        if self.last.is_none_or(|last| last.page < mark.page) {
            self.last = Some(mark);
        }
    }

    /// Media time of what was on at `at`. What came faster than it plays was on in time for what came last.
    pub(super) fn time_at(&self, at: i64) -> Option<i64> {
        let marked = self.marks.back().map_or(0, |m| m.page);
        let last = self.last.filter(|last| last.page > marked);
        let mut backwards = last.into_iter().chain(self.marks.iter().rev().copied());
        let mut after = backwards.next()?;
        if after.at <= at {
            return Some(after.time);
        }
        for mark in backwards {
            let plays = after.time.saturating_sub(mark.time);
            let on = mark.at.min(after.at.saturating_sub(plays));
            if on <= at {
                return Some(mark.time.saturating_add(at.saturating_sub(on).min(plays)));
            }
            after = Mark { at: on, ..mark };
        }
        Some(after.time.saturating_sub(after.at.saturating_sub(at)))
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
