//! Page sets, ranges and maps against the naive thing.

use std::collections::BTreeSet;

use icet::{PageMap, PageRanges, PageSet, Stripe, frame, limits};
use proptest::collection::vec;
use proptest::prelude::*;

fn stripe(of: u16, group: u16) -> impl Strategy<Value = Stripe> {
    (1..=of, 1..=group)
        .prop_flat_map(|(of, group)| (0..of, Just(of), Just(group)))
        .prop_map(|(index, of, group)| Stripe::new(index, of, group).expect("within the ranges"))
}

fn set(first: u64, len: u64, of: u16, group: u16) -> impl Strategy<Value = PageSet> {
    (0..first, prop::option::of(0..len), prop::option::of(stripe(of, group)))
        .prop_map(|(first, len, stripe)| PageSet { first, last: len.map(|l| first + l), stripe })
}

fn runs() -> impl Strategy<Value = Vec<(u64, u64)>> {
    vec((0u64..200, 0u64..12).prop_map(|(a, n)| (a, a + n)), 0..20)
}

fn pages_of(runs: &[(u64, u64)]) -> BTreeSet<u64> {
    runs.iter().flat_map(|(a, b)| *a..=*b).collect()
}

/// Runs as the type promises them: sorted, disjoint, not adjacent.
fn is_canonical(r: &PageRanges) -> bool {
    let runs: Vec<_> = r.runs().collect();
    runs.iter().all(|(a, b)| a <= b) && runs.windows(2).all(|w| w[0].1 + 1 < w[1].0)
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u64),
    Remove(u64),
    All(Vec<(u64, u64)>),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        (0u64..220).prop_map(Op::Insert),
        (0u64..220).prop_map(Op::Remove),
        runs().prop_map(Op::All),
    ];
    vec(op, 0..40)
}

proptest! {
    #[test]
    fn a_set_counts_and_lists_its_pages(s in set(100, 100, 6, 5), end in 0u64..250, from in 0u64..250) {
        let naive: Vec<u64> = (0..end).filter(|p| s.has(*p)).collect();
        prop_assert_eq!(s.count(end), naive.len() as u64);
        prop_assert_eq!(s.iter(end).collect::<Vec<_>>(), naive);
        // A stripe comes round within of * group pages, so 250 + 30 is beyond the next page of any open set.
        let next = (from..700).find(|p| s.has(*p));
        prop_assert_eq!(s.next_from(from), next);
    }

    #[test]
    fn a_large_set_is_consistent(s in set(limits::PAGES, limits::PAGES, 1024, u16::MAX), at in any::<u64>()) {
        if let Some(next) = s.next_from(at) {
            prop_assert!(next >= at && s.has(next) && next < limits::PAGES);
            prop_assert_eq!(s.count(next), s.count(at.min(next)));
            prop_assert_eq!(s.count(next + 1), s.count(next) + 1);
        }
        prop_assert!(s.count(at) <= at);
    }

    #[test]
    fn a_set_survives_the_wire(first in 0..limits::PAGES, len in prop::option::of(0..limits::PAGES), stripe in prop::option::of(stripe(1024, u16::MAX))) {
        let s = PageSet { first, last: len.map(|l| (first + l).min(limits::PAGES - 1)), stripe };
        prop_assert_eq!(frame::decode::<PageSet>(&frame::encode(&s)).unwrap(), s);
    }

    #[test]
    fn ranges_hold_what_was_put_in(runs in runs()) {
        let naive = pages_of(&runs);
        let all = PageRanges::from_runs(runs.iter().copied());
        let mut one_by_one = PageRanges::new();
        for (a, b) in &runs {
            one_by_one.insert(*a, *b);
        }
        for r in [&all, &one_by_one] {
            prop_assert!(is_canonical(r));
            prop_assert_eq!(r.pages().collect::<BTreeSet<_>>(), naive.clone());
            prop_assert_eq!(r.count(), naive.len() as u64);
            prop_assert_eq!(r.last(), naive.last().copied());
            prop_assert_eq!(r.is_empty(), naive.is_empty());
            prop_assert!((0..220).all(|p| r.has(p) == naive.contains(&p)));
        }
        prop_assert_eq!(&all, &one_by_one);
        prop_assert_eq!(frame::decode::<PageRanges>(&frame::encode(&all)).unwrap(), all);
    }

    #[test]
    fn ranges_take_any_numbers(runs in vec((any::<u64>(), any::<u64>()), 0..10)) {
        let mut r = PageRanges::new();
        for (a, b) in &runs {
            r.insert(*a, *b);
        }
        prop_assert!(is_canonical(&r));
        prop_assert_eq!(&r, &PageRanges::from_runs(runs.iter().copied()));
        prop_assert!(r.count() <= limits::PAGES);
        prop_assert!(r.last().is_none_or(|l| l < limits::PAGES));
        prop_assert_eq!(frame::decode::<PageRanges>(&frame::encode(&r)).unwrap(), r);
        if let Some((a, b)) = runs.first() {
            prop_assert_eq!(PageRanges::one(*a, *b), PageRanges::from_runs([(*a, *b)]));
        }
    }

    #[test]
    fn chunks_together_are_the_whole(runs in runs(), n in 0usize..8) {
        let all = PageRanges::from_runs(runs);
        let chunks: Vec<_> = all.chunks(n).collect();
        prop_assert!(chunks.iter().all(|c| c.runs().len() <= n.max(1) && !c.is_empty()));
        prop_assert_eq!(PageRanges::from_runs(chunks.iter().flat_map(|c| c.runs().collect::<Vec<_>>())), all);
    }

    #[test]
    fn decoded_ranges_are_canonical(numbers in vec(prop_oneof![0u64..4, any::<u64>(), Just(limits::PAGES - 2)], 0..12)) {
        if let Ok(r) = frame::decode::<PageRanges>(&frame::encode(&numbers)) {
            prop_assert!(is_canonical(&r));
            prop_assert!(r.last().is_none_or(|l| l < limits::PAGES));
            prop_assert_eq!(frame::encode(&r), frame::encode(&numbers));
        }
    }

    #[test]
    fn a_map_is_a_set_of_pages(pages in 0u64..210, ops in ops(), from in 0u64..260) {
        let mut map = PageMap::new(pages);
        let mut naive = BTreeSet::new();
        for op in ops {
            match op {
                Op::Insert(p) => prop_assert_eq!(map.insert(p), p < pages && naive.insert(p)),
                Op::Remove(p) => prop_assert_eq!(map.remove(p), naive.remove(&p)),
                Op::All(runs) => {
                    let before = naive.len();
                    naive.extend(pages_of(&runs).into_iter().filter(|p| *p < pages));
                    let new = map.insert_all(&PageRanges::from_runs(runs));
                    prop_assert_eq!(new, (naive.len() - before) as u64);
                }
            }
        }
        prop_assert_eq!(map.held(), naive.len() as u64);
        prop_assert_eq!(map.is_full(), naive.len() as u64 == pages);
        prop_assert!((0..260).all(|p| map.has(p) == naive.contains(&p)));
        prop_assert_eq!(map.first_held(from), naive.range(from..).next().copied());
        prop_assert_eq!(map.first_missing(from), (from..pages).find(|p| !naive.contains(p)));
        prop_assert_eq!(map.to_ranges().pages().collect::<BTreeSet<_>>(), naive);
        prop_assert!(is_canonical(&map.to_ranges()));
        let mut again = PageMap::new(pages);
        again.insert_all(&map.to_ranges());
        prop_assert_eq!(&again, &map);
        again.insert_all(&PageRanges::one(0, u64::MAX));
        prop_assert_eq!(again, PageMap::full(pages));
    }
}

#[test]
fn the_ends_of_the_numbers_do_not_overflow() {
    let everything = PageSet { first: 0, last: None, stripe: None };
    assert_eq!(everything.count(u64::MAX), u64::MAX);
    assert_eq!(everything.next_from(u64::MAX), None);
    let last = PageSet { first: u64::MAX, last: Some(u64::MAX), stripe: Stripe::new(1023, 1024, u16::MAX) };
    assert_eq!(last.next_from(0), None);
    assert_eq!(last.count(u64::MAX), 0);
    assert!(PageMap::new(0).is_full());
    assert_eq!(PageMap::full(0).insert_all(&PageRanges::one(0, 9)), 0);
}
