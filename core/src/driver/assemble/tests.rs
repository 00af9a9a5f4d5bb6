#![allow(clippy::cast_possible_truncation)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use icet::key::Hash;
use icet::media::{PageFlags, PageRecord, SLICE_PAGES, Slice};
use icet::{PageSet, PeerKey, Stripe};
use proptest::prelude::*;

use super::{Assembler, Cut, Fragments, Records};
use crate::protocol::Piece;

/// A media of pages with one lacing value each, some of them identical.
struct Media {
    pages: Vec<Bytes>,
    slices: BTreeMap<u64, Arc<Slice>>,
}

impl Records for Media {
    fn slice(&self, index: u64) -> Option<Arc<Slice>> {
        self.slices.get(&index).cloned()
    }
}

fn page(sequence: u32, len: u8) -> Bytes {
    let mut p = b"OggS\0\0".to_vec();
    p.extend_from_slice(&[0; 8]);
    p.extend_from_slice(&7u32.to_le_bytes());
    p.extend_from_slice(&sequence.to_le_bytes());
    p.extend_from_slice(&[0; 4]);
    p.extend_from_slice(&[1, len]);
    p.extend(std::iter::repeat_n(u8::try_from(sequence % 251).unwrap_or(0), usize::from(len)));
    let crc = crate::ogg::page::crc(&p);
    p[22..26].copy_from_slice(&crc.to_le_bytes());
    p.into()
}

fn media(lens: &[u8]) -> Media {
    // Every eighth page repeats the one before, byte for byte.
    let pages: Vec<Bytes> = (0u32..)
        .zip(lens)
        .map(|(i, len)| if i % 8 == 7 { page(i - 1, lens[i as usize - 1]) } else { page(i, *len) })
        .collect();
    let mut slices = BTreeMap::new();
    let mut offset = 0;
    for (index, chunk) in (0u64..).zip(pages.chunks(64)) {
        let records = chunk
            .iter()
            .map(|p| PageRecord {
                len: u32::try_from(p.len()).unwrap_or(0),
                crc: crate::ogg::page::crc(p),
                hash: Hash(*blake3::hash(p).as_bytes()),
                flags: PageFlags::default(),
                time: 0,
            })
            .collect();
        slices.insert(index, Arc::new(Slice { index, offset, time: 0, records }));
        offset += chunk.iter().map(|p| p.len() as u64).sum::<u64>();
    }
    Media { pages, slices }
}

const HOST: PeerKey = PeerKey([1; 32]);

fn assembler(set: PageSet, end: u64, aligned: bool) -> Assembler {
    Assembler::new(set, end, aligned, HOST, Arc::default())
}

/// Everything that comes out until more is needed.
fn drain(a: &mut Assembler, m: &Media) -> Vec<(u64, Bytes)> {
    let mut out = Vec::new();
    while let Cut::Run { first, pages, .. } = a.next(m) {
        out.extend((first..).zip(pages));
    }
    out
}

fn cut(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Bytes> {
    let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
    at.sort_unstable();
    let mut from = 0;
    let mut out: Vec<Bytes> = Vec::new();
    for end in at.into_iter().chain([bytes.len()]) {
        out.push(Bytes::copy_from_slice(&bytes[from..end]));
        from = end;
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_cuts_give_exactly_the_pages_of_the_set(
        lens in prop::collection::vec(0u8..200, 1..200),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        first in any::<prop::sample::Index>(),
        stripe in prop::option::of((0u16..3, 1u16..4)),
        aligned in any::<bool>(),
    ) {
        let m = media(&lens);
        let n = m.pages.len() as u64;
        let first = first.index(m.pages.len()) as u64;
        let stripe = stripe.and_then(|(of, group)| Stripe::new(of, 3, group));
        let set = PageSet { first, last: Some(n - 1), stripe };
        let wanted: Vec<_> = set.iter(n).map(|p| (p, m.pages[p as usize].clone())).collect();
        let stream: Vec<u8> = wanted.iter().flat_map(|(_, b)| b.to_vec()).collect();
        let mut a = assembler(set, n, aligned);
        let mut got = Vec::new();
        for piece in cut(&stream, &cuts) {
            a.push(Piece::Bytes(piece));
            got.extend(drain(&mut a, &m));
        }
        // Identical neighbours may be taken for one another only where the set leaves one of them out.
        if aligned || stripe.is_none() {
            prop_assert_eq!(got, wanted);
            prop_assert!(matches!(a.next(&m), Cut::Finished) || set.iter(n).next().is_none());
        }
    }

    #[test]
    fn after_a_gap_every_page_that_came_whole_is_found(
        lens in prop::collection::vec(0u8..200, 10..150),
        hole in any::<prop::sample::Index>(),
        cut_at in any::<prop::sample::Index>(),
    ) {
        let m = media(&lens);
        let n = m.pages.len() as u64;
        let hole = hole.index(m.pages.len());
        let before: Vec<u8> = m.pages[..hole].iter().flat_map(|b| b.to_vec()).collect();
        // The page in the hole breaks off somewhere.
        let broken = &m.pages[hole][..cut_at.index(m.pages[hole].len())];
        let after: Vec<u8> = m.pages[hole + 1..].iter().flat_map(|b| b.to_vec()).collect();
        let mut a = assembler(PageSet::range(0, n - 1), n, true);
        a.push(Piece::Bytes(Bytes::from([&before, broken].concat())));
        let mut got = drain(&mut a, &m);
        a.push(Piece::Gap);
        a.push(Piece::Bytes(after.into()));
        got.extend(drain(&mut a, &m));
        let bytes: Vec<_> = got.iter().map(|(_, b)| b.clone()).collect();
        let wanted: Vec<_> = m.pages.iter().enumerate().filter(|(i, _)| *i != hole).map(|(_, b)| b.clone()).collect();
        prop_assert_eq!(bytes, wanted);
        prop_assert!(got.windows(2).all(|w| w[0].0 < w[1].0));
        for (page, bytes) in got {
            prop_assert_eq!(&m.pages[page as usize], &bytes);
        }
    }
}

#[test]
fn it_says_which_slice_it_lacks_and_goes_on_when_that_came() {
    let mut m = media(&[50; 100]);
    let second = m.slices.remove(&1);
    let mut a = assembler(PageSet::range(60, 70), 100, true);
    let stream: Vec<u8> = m.pages[60..=70].iter().flat_map(|b| b.to_vec()).collect();
    a.push(Piece::Bytes(stream.into()));
    assert!(matches!(a.next(&m), Cut::Run { first: 60, pages, .. } if pages.len() == 4));
    assert!(matches!(a.next(&m), Cut::NeedSlice(1)));
    m.slices.extend(second.map(|s| (1, s)));
    assert!(matches!(a.next(&m), Cut::Run { first: SLICE_PAGES, pages, .. } if pages.len() == 7));
    assert!(matches!(a.next(&m), Cut::Finished));
}

#[test]
fn a_hint_moves_on_but_never_back_out_of_the_set() {
    let m = media(&[50; 100]);
    let mut a = assembler(PageSet::range(10, 20), 100, true);
    a.push(Piece::Page(15));
    a.push(Piece::Bytes(m.pages[15].clone()));
    assert!(matches!(a.next(&m), Cut::Run { first: 15, .. }));
    a.push(Piece::Page(90));
    a.push(Piece::Bytes(m.pages[16].clone()));
    assert!(matches!(a.next(&m), Cut::Run { first: 16, .. }));
}

#[test]
fn a_page_with_a_hole_is_whole_when_the_hole_came_and_others_did_not_wait() {
    let m = media(&[200; 10]);
    let page = |p: u64| m.pages[p as usize].clone();
    let fragment = |p: u64, from: usize, to: usize| {
        let offset = u32::try_from(from).unwrap_or(0);
        Piece::Fragment { page: p, offset, bytes: page(p).slice(from..to) }
    };
    let mut a = assembler(PageSet::range(0, 4), 10, false);
    a.push(Piece::Page(0));
    a.push(Piece::Bytes([page(0), page(1).slice(..90)].concat().into()));
    assert!(matches!(a.next(&m), Cut::Run { first: 0, of_one_host: true, .. }));
    a.push(fragment(1, 150, 228));
    a.push(Piece::Page(2));
    a.push(Piece::Bytes([page(2), page(3)].concat().into()));
    assert_eq!(drain(&mut a, &m), [(2, page(2)), (3, page(3))]);
    a.push(Piece::Page(4));
    a.push(Piece::Bytes(page(4)));
    assert_eq!(drain(&mut a, &m), [(4, page(4))]);
    assert!(matches!(a.next(&m), Cut::NeedMore) && !a.is_finished(), "page 1 is not here");
    a.push(fragment(7, 0, 10));
    a.push(fragment(1, 80, 160));
    assert!(matches!(a.next(&m), Cut::Run { first: 1, pages, of_one_host: true } if pages == [page(1)]));
    assert!(matches!(a.next(&m), Cut::Finished) && a.is_finished());
}

#[test]
fn the_last_page_is_whole_when_its_beginning_is_followed_by_nothing_but_fragments() {
    let m = media(&[200; 2]);
    let page = m.pages[1].clone();
    let mut a = assembler(PageSet::range(0, 1), 2, true);
    a.push(Piece::Bytes([m.pages[0].clone(), page.slice(..90)].concat().into()));
    assert_eq!(drain(&mut a, &m), [(0, m.pages[0].clone())]);
    a.push(Piece::Fragment { page: 1, offset: 150, bytes: page.slice(150..) });
    a.push(Piece::Fragment { page: 1, offset: 90, bytes: page.slice(90..150) });
    assert!(matches!(a.next(&m), Cut::NeedMore));
    // The stream ended.
    a.keep_rest();
    assert_eq!(drain(&mut a, &m), [(1, page)]);
    assert!(a.is_finished());
}

#[test]
fn what_is_kept_whole_needs_nothing_more_to_come() {
    let m = media(&[200; 3]);
    let kept: Arc<Mutex<Fragments>> = Arc::default();
    kept.lock().unwrap().insert(1, 0, &m.pages[1], HOST);
    let mut a = Assembler::new(PageSet::range(1, 1), 3, false, HOST, kept);
    a.look_at(1);
    assert_eq!(drain(&mut a, &m), [(1, m.pages[1].clone())]);
    assert!(a.is_finished());
}

#[test]
fn what_one_host_left_another_completes_and_none_answers_for_it_alone() {
    let m = media(&[200; 3]);
    let kept = Arc::default();
    let page = m.pages[1].clone();
    let mut first = Assembler::new(PageSet::range(1, 1), 3, true, HOST, Arc::clone(&kept));
    first.push(Piece::Bytes(page.slice(..100)));
    assert!(matches!(first.next(&m), Cut::NeedMore));
    first.keep_rest();
    let mut second = Assembler::new(PageSet::range(1, 1), 3, false, PeerKey([2; 32]), kept);
    second.push(Piece::Fragment { page: 1, offset: 100, bytes: page.slice(100..) });
    let cut = second.next(&m);
    assert!(matches!(cut, Cut::Run { first: 1, pages, of_one_host: false } if pages == [page]));
    assert!(second.is_finished());
}

#[test]
fn pages_of_a_stripe_that_were_skipped_are_told() {
    let m = media(&[50; 40]);
    let set = PageSet { first: 0, last: Some(39), stripe: Stripe::new(1, 4, 2) };
    let mut a = assembler(set, 40, true);
    a.push(Piece::Page(11));
    a.push(Piece::Bytes(m.pages[11].clone()));
    let mut got = drain(&mut a, &m);
    for page in set.iter(40).filter(|p| *p != 11) {
        assert!(!a.is_finished());
        a.push(Piece::Page(page));
        a.push(Piece::Bytes(m.pages[page as usize].clone()));
        got.extend(drain(&mut a, &m));
    }
    assert!(a.is_finished());
    got.sort();
    let pages: Vec<u64> = got.iter().map(|(p, _)| *p).collect();
    assert_eq!(pages, set.iter(40).collect::<Vec<_>>());
}
