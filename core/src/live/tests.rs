//! A broadcaster and who listens, in virtual time; and what nobody may get through.

use std::time::Duration;

use bytes::Bytes;
use icet::key::Hash;
use icet::live::{Batch, NO_BATCH, SignedBatch, SignedHead};
use icet::media::MediaError;
use icet::{Identity, Manifest, Now, PageFlags, PageNo, SignedManifest};
use proptest::prelude::*;

use super::*;
use crate::ogg::page::seal;
use crate::ogg::{SplitEvent, Splitter};

pub(crate) fn identity() -> Identity {
    Identity::from_seed(&[1; 32])
}

pub(crate) fn manifest(broadcast: u8) -> SignedManifest {
    let manifest = Manifest {
        version: u64::from(broadcast),
        ..Manifest::live("radio".parse().unwrap(), identity().key(), Hash([broadcast; 32]))
    };
    SignedManifest::sign(manifest, &identity()).unwrap()
}

fn page(serial: u32, sequence: u32, flags: u8, granule: i64, packets: &[Vec<u8>]) -> Bytes {
    let mut bytes = b"OggS\0".to_vec();
    bytes.push(flags);
    bytes.extend_from_slice(&granule.to_le_bytes());
    bytes.extend_from_slice(&serial.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.push(u8::try_from(packets.len()).unwrap());
    bytes.extend(packets.iter().map(|p| u8::try_from(p.len()).unwrap()));
    packets.iter().for_each(|p| bytes.extend_from_slice(p));
    seal(&mut bytes);
    bytes.into()
}

/// An Opus stream: two pages of setup, then `count` pages of 20 ms.
pub(crate) fn opus(serial: u32, count: u32) -> Vec<Bytes> {
    let head = [b"OpusHead".as_slice(), &[1, 2, 0x38, 1, 0x80, 0xbb, 0, 0, 0, 0, 0]].concat();
    let tags = [b"OpusTags".as_slice(), &1u32.to_le_bytes(), b"x", &0u32.to_le_bytes()].concat();
    let mut all = vec![page(serial, 0, 2, 0, &[head]), page(serial, 1, 0, 0, &[tags])];
    for i in 0..count {
        let granule = 312 + 960 * i64::from(i + 1);
        all.push(page(serial, i + 2, 0, granule, &[vec![8, u8::try_from(i % 251).unwrap(), 3]]));
    }
    all
}

/// Runs pages through a broadcaster, `gap` apart; what it signed, and its last head.
pub(crate) fn sign(
    mut b: Broadcaster,
    pages: &[Bytes],
    gap: Duration,
    ends: bool,
) -> (Vec<Signed>, Option<SignedHead>) {
    let (mut now, mut out) = (Now::ZERO, Vec::new());
    for bytes in pages {
        let mut splitter = Splitter::new();
        splitter.push(bytes.clone());
        let Some(SplitEvent::Page { header, bytes }) = splitter.next() else { panic!("no page") };
        b.page(now, &header, bytes).unwrap();
        now = now + gap;
        while let Some(signed) = b.poll(now).unwrap() {
            out.push(signed);
        }
    }
    if ends {
        b.end();
    } else if let Some(t) = b.poll_timeout() {
        now = now.max(t);
    }
    while let Some(signed) = b.poll(now).unwrap() {
        out.push(signed);
    }
    assert_eq!(b.has_ended(), ends);
    let head = b.head(now, 7).unwrap();
    (out, head)
}

fn broadcaster() -> Broadcaster {
    Broadcaster::new(&manifest(1), identity(), DELAY)
}

fn chain_of(signed: &[Signed]) -> Chain {
    let mut chain = Chain::default();
    for s in signed {
        assert_eq!(chain.take(s.batch.clone()), Ok(Taken::New));
    }
    chain
}

#[test]
fn pages_wait_for_a_signature_as_long_as_was_said_and_no_longer() {
    let pages = opus(7, 100);
    let (signed, head) = sign(broadcaster(), &pages, Duration::from_millis(20), true);
    let out: Vec<Bytes> = signed.iter().flat_map(|s| s.pages.clone()).collect();
    let (last, rest) = out.split_last().unwrap();
    assert_eq!(rest, pages, "all pages, in order");
    let last = crate::ogg::PageHeader::parse(last).unwrap();
    assert!(
        last.eos && last.segments == 1 && last.sequence == 102 && last.granule == Some(312 + 960 * 100),
        "an end that the source did not give: {last:?}"
    );
    // 250 ms at 20 ms a page.
    assert!(
        signed.iter().rev().skip(1).all(|s| s.batch.records.len() == 13),
        "{:?}",
        signed.iter().map(|s| s.batch.records.len()).collect::<Vec<_>>()
    );
    let chain = chain_of(&signed);
    assert!(chain.ended() && chain.records() == pages.len() + 1);
    let head = head.unwrap();
    assert_eq!((head.next, head.link, head.setup.len()), (103, 0, 2));
    assert!((101..=102).contains(&head.key), "{}", head.key);
    assert_eq!(head.last, signed.last().unwrap().batch.hash());
    assert!(chain.place(1).unwrap().record.flags.has(PageFlags::SETUP));
    let sounds = chain.page_at_time(1_000_000).unwrap();
    let time = |page| chain.place(page).unwrap().time;
    assert!(time(sounds) <= 1_000_000 && time(sounds + 1) > 1_000_000);
    // As fast as it comes, batches are full instead.
    let (signed, _) = sign(broadcaster(), &pages, Duration::ZERO, false);
    assert_eq!(signed[0].batch.records.len(), 64);
}

#[test]
fn heads_say_when_nothing_is_on_and_when_nothing_comes_any_more() {
    let (mut b, mut titles) = (broadcaster(), crate::live::Titles::default());
    for (i, page) in opus(7, 9).into_iter().enumerate() {
        let header = crate::ogg::PageHeader::parse(&page).unwrap();
        if i == 4 {
            titles.set(vec![("TITLE".to_owned(), "song".to_owned())]).unwrap();
        }
        for (header, page) in titles.page(&header, page) {
            b.page(Now::ZERO, &header, page).unwrap();
        }
    }
    let at = |b: &mut Broadcaster, seconds| {
        let now = Now::ZERO + Duration::from_secs(seconds);
        while b.poll(now).unwrap().is_some() {}
        let head = b.head(now, 0).unwrap().unwrap();
        (head.title.clone(), head.ended)
    };
    assert_eq!(at(&mut b, 1), (Some("song".to_owned()), None));
    assert_eq!(at(&mut b, 9), (Some("song".to_owned()), None), "a long page may be on its way");
    assert_eq!(at(&mut b, 11), (None, None), "the source pauses");
    b.end();
    assert_eq!(at(&mut b, 11), (None, Some(true)));
}

#[test]
fn a_source_that_comes_back_is_another_link_and_time_goes_on() {
    let mut b = broadcaster();
    let mut signed = Vec::new();
    for (serial, count) in [(7, 50), (8, 30)] {
        for bytes in opus(serial, count) {
            let header = crate::ogg::PageHeader::parse(&bytes).unwrap();
            b.page(Now::ZERO, &header, bytes).unwrap();
        }
        while let Some(s) = b.poll(Now::ZERO + DELAY).unwrap() {
            signed.push(s);
        }
    }
    let (chain, head) = (chain_of(&signed), b.head(Now::ZERO + DELAY, 0).unwrap().unwrap());
    assert_eq!((head.link, head.setup.len(), head.next), (53, 2, 85), "the first link has an end now");
    let times: Vec<_> = (0..85).map(|p| chain.place(p).unwrap().time).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(chain.place(53).unwrap().offset, head.link_offset);
    // What is no beginning is none.
    let middle = opus(9, 1).pop().unwrap();
    let header = crate::ogg::PageHeader::parse(&middle).unwrap();
    assert_eq!(broadcaster().page(Now::ZERO, &header, middle), Err(SourceError::NoBeginning));
}

/// Serial and sequence number of each page, of which the checksum is right.
fn labels(signed: &[Signed]) -> Vec<(u32, u32)> {
    let pages = signed.iter().flat_map(|s| &s.pages);
    let label = |p: &Bytes| {
        assert!(crate::ogg::page::verify(p));
        let header = crate::ogg::PageHeader::parse(p).unwrap();
        (header.serial, header.sequence)
    };
    pages.map(label).collect()
}

#[test]
fn links_of_a_broadcast_have_serial_numbers_of_their_own() {
    let pages = opus(7, 10);
    let over_and_over = [pages.clone(), pages.clone(), pages.clone()].concat();
    let (mut signed, head) = sign(broadcaster(), &over_and_over, Duration::from_millis(20), false);
    let all = labels(&signed);
    // Each but the last has an end that the source did not give.
    let links: Vec<_> = all.chunks(13).map(|link| link[0].0).collect();
    assert!(links[0] == 7 && links[1] != 7 && links[2] != 7 && links[1] != links[2], "{links:?}");
    for (link, serial) in all.chunks(13).zip(&links) {
        let count = u32::try_from(link.len()).unwrap();
        assert_eq!(link, (0..count).map(|i| (*serial, i)).collect::<Vec<_>>());
    }
    let out: Vec<Bytes> = signed.iter().flat_map(|s| s.pages.clone()).collect();
    assert_eq!(out[..12], pages, "the first one is as it was");
    let audio = |p: &Bytes| p.slice(27..);
    assert!(out[26..].iter().map(audio).eq(pages.iter().map(audio)), "and so is all that is in the others");
    assert_eq!(head.unwrap().link, 26);

    // After a crash nobody knows what was used; and the mount gives setup pages, and then pages from the middle.
    let last = signed.last().unwrap().batch.clone();
    let again = Broadcaster::resume(&manifest(1), identity(), DELAY, &last);
    let back = [&pages[..2], &pages[7..]].concat();
    let (more, _) = sign(again, &back, Duration::from_millis(20), true);
    let back = labels(&more);
    assert!(!links.contains(&back[0].0), "{back:?}");
    assert_eq!(
        back,
        (0..8).map(|i| (back[0].0, i)).collect::<Vec<_>>(),
        "numbered as if nothing were missing"
    );
    signed.extend(more);
    assert!(chain_of(&signed).ended());
}

#[test]
fn a_broadcast_goes_on_behind_its_last_batch() {
    let pages = opus(7, 100);
    let (mut signed, _) = sign(broadcaster(), &pages, Duration::from_millis(20), false);
    let last = signed.last().unwrap().batch.clone();
    let again = Broadcaster::resume(&manifest(1), identity(), DELAY, &last);
    let (more, head) = sign(again, &opus(8, 10), Duration::from_millis(20), true);
    signed.extend(more);
    assert!(chain_of(&signed).ended());
    assert_eq!(head.unwrap().link, 102);
}

#[test]
fn who_joins_in_the_middle_verifies_from_there() {
    let (signed, _) = sign(broadcaster(), &opus(7, 100), Duration::from_millis(20), true);
    let mut chain = Chain::default();
    assert_eq!(chain.take(signed[3].batch.clone()), Ok(Taken::New));
    assert_eq!(chain.take(signed[1].batch.clone()), Ok(Taken::Old), "before its time");
    assert_eq!(chain.take(signed[3].batch.clone()), Ok(Taken::Known));
    assert_eq!(chain.take(signed[4].batch.clone()), Ok(Taken::New));
    let (expected, first) = (signed[5].batch.first, signed[6].batch.first);
    assert_eq!(chain.take(signed[6].batch.clone()), Err(ChainError::Gap { expected, first }), "dropped");
    assert_eq!(chain.take(signed[5].batch.clone()), Ok(Taken::New));
    assert_eq!(chain.base(), Some(signed[3].batch.first));
    chain.forget_before(signed[5].batch.first);
    assert_eq!((chain.base(), chain.len()), (Some(signed[5].batch.first), 1));
}

#[test]
fn two_histories_of_one_publisher_do_not_mix() {
    let (a, _) = sign(broadcaster(), &opus(7, 60), Duration::from_millis(20), false);
    let (b, _) = sign(broadcaster(), &opus(8, 60), Duration::from_millis(20), false);
    let mut chain = chain_of(&a[..2]);
    let first = b[1].batch.first;
    assert_eq!(chain.take(b[1].batch.clone()), Err(ChainError::Fork { first }));
    assert_eq!(chain.take(b[2].batch.clone()), Err(ChainError::Fork { first: b[2].batch.first }));
    assert_eq!(chain.take(a[2].batch.clone()), Ok(Taken::New));
}

#[test]
fn forged_and_foreign_batches_are_none() {
    let (signed, head) = sign(broadcaster(), &opus(7, 20), Duration::from_millis(20), false);
    let good = signed[1].batch.signed().clone();
    let impossible = |what| Err(MediaError::Impossible(what));
    assert!(SignedBatch::verify(good.clone(), &manifest(1)).is_ok());
    assert_eq!(SignedBatch::verify(good.clone(), &manifest(2)), impossible("batch: of another broadcast"));
    let head = head.unwrap().signed().clone();
    assert_eq!(
        SignedHead::verify(head.clone(), &manifest(2)).err(),
        Some(MediaError::Impossible("head: of another broadcast"))
    );
    // One is not the other, and nobody else can sign either.
    assert_eq!(SignedBatch::verify(head, &manifest(1)), Err(MediaError::Signature));
    let stranger = Identity::from_seed(&[2; 32]);
    let forged = SignedBatch::sign((*signed[1].batch).clone(), &stranger).unwrap();
    assert_eq!(SignedBatch::verify(forged.signed().clone(), &manifest(1)), Err(MediaError::Signature));
}

#[test]
fn a_link_with_too_much_setup_is_refused() {
    let mut b = broadcaster();
    let head = [b"OpusHead".as_slice(), &[1, 2, 0x38, 1, 0x80, 0xbb, 0, 0, 0, 0, 0]].concat();
    let first = page(7, 0, 2, 0, &[head]);
    let header = crate::ogg::PageHeader::parse(&first).unwrap();
    b.page(Now::ZERO, &header, first).unwrap();
    // A comment packet that never ends.
    let mut refused = None;
    for i in 1..200u32 {
        let mut bytes = b"OggS\0".to_vec();
        bytes.push(u8::from(i > 1));
        bytes.extend_from_slice(&(-1i64).to_le_bytes());
        bytes.extend_from_slice(&7u32.to_le_bytes());
        bytes.extend_from_slice(&i.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&[1, 255]);
        let packet = if i == 1 { [b"OpusTags".to_vec(), vec![9; 247]].concat() } else { vec![9; 255] };
        bytes.extend_from_slice(&packet);
        seal(&mut bytes);
        let header = crate::ogg::PageHeader::parse(&bytes).unwrap();
        if let Err(e) = b.page(Now::ZERO, &header, bytes.into()) {
            refused = Some((i, e));
            break;
        }
    }
    assert_eq!(refused, Some((64, SourceError::Setup)));
}

proptest! {
    /// However batches come, a chain has a stretch of the publisher's history without a hole, and nothing else.
    #[test]
    fn a_chain_is_a_stretch_of_history(order in proptest::collection::vec(0usize..16, 1..60), start in 0usize..16) {
        let (signed, _) = sign(broadcaster(), &opus(7, 190), Duration::from_millis(20), true);
        let all: Vec<_> = signed.iter().map(|s| s.batch.clone()).collect();
        let mut chain = Chain::default();
        chain.take(all[start.min(all.len() - 1)].clone()).unwrap();
        let base = chain.base().unwrap();
        for i in order {
            let batch = &all[i.min(all.len() - 1)];
            let next = chain.last().unwrap().next();
            let ended = chain.ended();
            match chain.take(batch.clone()) {
                Ok(Taken::New) => prop_assert_eq!(batch.first, next),
                Ok(Taken::Known) => prop_assert!(batch.first >= base && batch.next() <= next),
                Ok(Taken::Old) => prop_assert!(batch.next() <= base),
                Err(ChainError::Gap { expected, first }) => {
                    prop_assert!(expected == next && first == batch.first && first > next && !ended);
                }
                Err(e) => prop_assert!(false, "{}", e),
            }
        }
        for page in base..chain.last().unwrap().next() {
            let place = chain.place(page).unwrap();
            prop_assert_eq!(chain.page_at_byte(place.offset), Some(page));
            let bytes = signed.iter().flat_map(|s| &s.pages).nth(usize::try_from(page).unwrap()).unwrap();
            prop_assert_eq!(*blake3::hash(bytes).as_bytes(), place.record.hash.0);
        }
    }
}

#[test]
fn an_empty_batch_can_only_be_the_last() {
    let batch = |first: PageNo, ends, previous| Batch {
        broadcast: Hash([1; 32]),
        first,
        offset: if first == 0 { 0 } else { 100 },
        time: 0,
        previous,
        records: Vec::new(),
        ends,
    };
    assert!(SignedBatch::sign(batch(5, true, Hash([3; 32])), &identity()).is_ok());
    assert!(SignedBatch::sign(batch(5, false, Hash([3; 32])), &identity()).is_err());
    assert!(SignedBatch::sign(batch(0, true, NO_BATCH), &identity()).is_err());
}
