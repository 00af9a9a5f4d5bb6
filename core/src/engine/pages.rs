//! Which pages the engine knows to be held, and which run to fetch next.

use std::collections::BTreeMap;

use icet::{PageMap, PageNo, PageRanges, PageSet};

/// Most runs that are kept of a live media; beyond them the oldest gap counts as given up.
const LIVE_RUNS: usize = 1024;
/// Most steps of one search; what lies behind them is found by the next one.
const STEPS: usize = 4096;

/// Pages held: of a file, or of a live media, whose pages have no end.
#[derive(Debug)]
pub(super) enum Pages {
    /// A bit a page.
    File(PageMap),
    /// Runs, first to last; what lies below the first of them has not been asked for or was given up.
    Live(BTreeMap<PageNo, PageNo>),
}

impl Pages {
    /// A map without pages is that of a live media.
    pub(super) fn new(map: PageMap) -> Pages {
        if map.pages() == 0 { Pages::Live(BTreeMap::new()) } else { Pages::File(map) }
    }

    /// The last page that there can be; none if live.
    pub(super) fn last(&self) -> Option<PageNo> {
        match self {
            Pages::File(map) => Some(map.pages() - 1),
            Pages::Live(_) => None,
        }
    }

    pub(super) fn has(&self, page: PageNo) -> bool {
        match self {
            Pages::File(map) => map.has(page),
            Pages::Live(runs) => runs.range(..=page).next_back().is_some_and(|(_, last)| page <= *last),
        }
    }

    /// Whether the page is new (and can be).
    pub(super) fn insert(&mut self, page: PageNo) -> bool {
        match self {
            Pages::File(map) => map.insert(page),
            Pages::Live(_) if self.has(page) || page >= icet::limits::PAGES => false,
            Pages::Live(runs) => {
                let last = runs.remove(&(page + 1)).unwrap_or(page);
                match runs.range_mut(..page).next_back() {
                    Some((_, before)) if *before + 1 == page => *before = last,
                    _ => {
                        runs.insert(page, last);
                    }
                }
                if runs.len() > LIVE_RUNS
                    && let (Some((first, _)), Some((_, last))) = (runs.pop_first(), runs.pop_first())
                {
                    runs.insert(first, last);
                }
                true
            }
        }
    }

    /// Whether the page was held.
    pub(super) fn remove(&mut self, page: PageNo) -> bool {
        match self {
            Pages::File(map) => map.remove(page),
            Pages::Live(runs) => {
                let Some((first, last)) = runs.range(..=page).next_back().map(|(a, b)| (*a, *b)) else {
                    return false;
                };
                if page > last {
                    return false;
                }
                runs.remove(&first);
                if first < page {
                    runs.insert(first, page - 1);
                }
                if page < last {
                    runs.insert(page + 1, last);
                }
                true
            }
        }
    }

    /// The first missing page that is `>= from`; none if there is none up to the end.
    pub(super) fn first_missing(&self, from: PageNo) -> Option<PageNo> {
        match self {
            Pages::File(map) => map.first_missing(from),
            Pages::Live(runs) => Some(match runs.range(..=from).next_back() {
                Some((_, last)) if from <= *last => last + 1,
                _ => from,
            }),
        }
    }

    /// The first held page that is `>= from`.
    fn first_held(&self, from: PageNo) -> Option<PageNo> {
        match self {
            Pages::File(map) => map.first_held(from),
            Pages::Live(_) if self.has(from) => Some(from),
            Pages::Live(runs) => runs.range(from..).next().map(|(first, _)| *first),
        }
    }

    pub(super) fn to_ranges(&self) -> PageRanges {
        match self {
            Pages::File(map) => map.to_ranges(),
            Pages::Live(runs) => PageRanges::from_runs(runs.iter().map(|(a, b)| (*a, *b))),
        }
    }

    /// The first page of `set` from `from` on that is missing; none: all of it is held. Beyond [`STEPS`] it names a
    /// page that may be held: whoever calls again from there gets to the truth.
    pub(super) fn next_missing(&self, set: &PageSet, from: PageNo) -> Option<PageNo> {
        let mut page = set.next_from(from)?;
        for _ in 0..STEPS {
            let missing = set.next_from(self.first_missing(page)?)?;
            if !self.has(missing) {
                return Some(missing);
            }
            page = missing;
        }
        Some(page)
    }

    /// The next run of `set` to fetch, from `from` on: it begins and ends with a page that is missing and in none of
    /// the sets `busy`. Holes of up to `bridge` held pages are taken along, since a request more costs more than
    /// they do. Open-ended if the set is and nothing is held or busy ahead.
    pub(super) fn next_run(
        &self,
        set: &PageSet,
        from: PageNo,
        busy: &[PageSet],
        bridge: u64,
    ) -> Option<PageSet> {
        let busy: Vec<_> = busy.iter().filter(|b| may_meet(b, set)).collect();
        let mut first = set.next_from(from)?;
        let mut steps = 0;
        loop {
            steps += 1;
            if steps > STEPS {
                return None;
            }
            let missing = set.next_from(self.first_missing(first)?)?;
            if missing != first {
                first = missing;
            } else if let Some(b) = busy.iter().find(|b| b.has(first)) {
                first = set.next_from(end_of_stretch(b, first)?.checked_add(1)?)?;
            } else {
                break;
            }
        }
        let run = |last| Some(PageSet { first, last, stripe: set.stripe });
        let next_busy = |from| busy.iter().filter_map(|b| b.next_from(from)).min();
        let mut last = first;
        for _ in 0..STEPS {
            // All of the set is missing from `last` up to the next held page, and free up to the next busy one.
            let after = last + 1;
            let (held, taken) = (self.first_held(after), next_busy(after));
            let Some(stop) = held.into_iter().chain(taken).min() else { return run(set.last) };
            if let Some(end) = set.last
                && stop > end
            {
                return run(Some(end));
            }
            if set.stripe.is_some() {
                // Held and busy pages of other stripes lie in between: page by page.
                match set.next_from(after) {
                    None => return run(Some(last)),
                    Some(next) if self.has(next) || busy.iter().any(|b| b.has(next)) => {
                        return run(Some(last));
                    }
                    Some(next) => last = next,
                }
                continue;
            }
            last = stop - 1;
            if Some(stop) == taken {
                return run(Some(last));
            }
            match self.first_missing(stop) {
                Some(m) if m - stop <= bridge && set.has(m) && !busy.iter().any(|b| b.has(m)) => last = m,
                _ => return run(Some(last)),
            }
        }
        run(Some(last))
    }
}

/// Whether two sets can have a page in common (never a false "no").
pub(super) fn may_meet(a: &PageSet, b: &PageSet) -> bool {
    if a.last.is_some_and(|l| l < b.first) || b.last.is_some_and(|l| l < a.first) {
        return false;
    }
    match (a.stripe, b.stripe) {
        (Some(x), Some(y)) if x.of == y.of && x.group == y.group => x.index == y.index,
        _ => true,
    }
}

/// The last page of the stretch of `set` around `page` (one of its pages); none: it goes on for ever.
fn end_of_stretch(set: &PageSet, page: PageNo) -> Option<PageNo> {
    let Some(s) = set.stripe.filter(|s| s.of > 1) else { return set.last };
    let group = u64::from(s.group);
    let end = (page / group).checked_add(1)?.checked_mul(group)? - 1;
    Some(set.last.map_or(end, |l| l.min(end)))
}
