//! Manifests, slices, trees and tickets: what was made is taken, and no altered bit of it is.

mod common;

use icet::key::Hash;
use icet::media::{MediaError, PageFlags, SLICE_PAGES, Signed, StreamInfo};
use icet::merkle::{self, Tree};
use icet::ticket::{TicketBody, TicketError};
use icet::{
    Identity, Kind, Manifest, MediaPath, PageRecord, ProvenSlice, SignedManifest, Slice, TicketKey, frame,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::Index;

fn flip(bytes: &mut [u8], at: Index) {
    let bit = at.index(bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
}

fn record() -> impl Strategy<Value = PageRecord> {
    (27u32..=65_307, any::<u32>(), any::<[u8; 32]>(), any::<u8>(), -1_000_000i64..1_000_000_000).prop_map(
        |(len, crc, hash, flags, time)| PageRecord {
            len,
            crc,
            hash: Hash(hash),
            flags: PageFlags(flags),
            time,
        },
    )
}

/// The slices of a media whose pages have these records.
fn slices(records: &[PageRecord]) -> Vec<Slice> {
    let mut offset = 0;
    let mut out = Vec::new();
    for (index, records) in records.chunks(64).enumerate() {
        let s = Slice { index: index as u64, offset, time: index as i64 * 1_000, records: records.to_vec() };
        offset += s.bytes();
        out.push(s);
    }
    out
}

fn manifest(identity: &Identity, slices: &[Slice], tree: &Tree) -> Manifest {
    Manifest {
        kind: Kind::File,
        path: MediaPath::new("a").unwrap(),
        publisher: identity.key(),
        version: 1,
        pages: slices.iter().map(|s| s.records.len() as u64).sum(),
        bytes: slices.iter().map(Slice::bytes).sum(),
        duration: 0,
        root: tree.root(),
        setup: 1,
        links: 1,
        streams: Vec::new(),
        title: String::new(),
        tags: Vec::new(),
        signed_at: 0,
        group: None,
    }
}

proptest! {
    #[test]
    fn every_slice_is_proved_and_no_altered_one(records in vec(record(), 1..400), at: Index, bit: Index, other: Index) {
        let slices = slices(&records);
        let tree = Tree::new(slices.iter().map(|s| merkle::leaf(&s.to_bytes())).collect()).unwrap();
        let manifest = manifest(&Identity::from_seed(&[1; 32]), &slices, &tree);
        let proven = |i: usize| ProvenSlice {
            slice: slices[i].to_bytes().into(),
            proof: tree.proof(i as u64).unwrap(),
        };
        for (i, s) in slices.iter().enumerate() {
            prop_assert_eq!(proven(i).verify(&manifest), Ok(s.clone()));
            prop_assert_eq!(Slice::from_bytes(&s.to_bytes()), Ok(s.clone()));
        }
        let i = at.index(slices.len());
        let mut altered = proven(i);
        flip(&mut altered.slice, bit);
        prop_assert!(altered.verify(&manifest).is_err());
        if !tree.proof(i as u64).unwrap().is_empty() {
            let mut altered = proven(i);
            let n = altered.proof.len();
            flip(&mut altered.proof[bit.index(n)].0, bit);
            prop_assert_eq!(altered.verify(&manifest), Err(MediaError::Proof(i as u64)));
        }
        let j = other.index(slices.len());
        let mixed = ProvenSlice { slice: proven(i).slice, proof: proven(j).proof };
        prop_assert_eq!(mixed.verify(&manifest).is_ok(), i == j);
        // Pages lie where the lengths before them add up to.
        let mut offset = 0;
        for (page, r) in records.iter().enumerate() {
            let page = page as u64;
            let s = &slices[usize::try_from(page / SLICE_PAGES).unwrap()];
            prop_assert_eq!(s.page(page), Some((*r, offset)));
            offset += u64::from(r.len);
        }
        prop_assert_eq!(slices[0].page(SLICE_PAGES), None);
        prop_assert_eq!(slices.last().unwrap().page(records.len() as u64), None);
    }

    #[test]
    fn a_tree_proves_each_leaf_at_its_place_only(n in 1u64..200, at: Index, other: Index, extra: [u8; 32]) {
        let leaf = |i: u64| merkle::leaf(&i.to_be_bytes());
        let tree = Tree::new((0..n).map(leaf).collect()).unwrap();
        let root = tree.root();
        let i = at.index(usize::try_from(n).unwrap()) as u64;
        let proof = tree.proof(i).unwrap();
        prop_assert!(merkle::verify(&root, n, i, leaf(i), &proof));
        let j = other.index(usize::try_from(n).unwrap()) as u64;
        prop_assert_eq!(merkle::verify(&root, n, j, leaf(i), &proof), i == j);
        prop_assert_eq!(merkle::verify(&root, n, i, leaf(j), &proof), i == j);
        prop_assert!(!merkle::verify(&root, n, n, leaf(i), &proof));
        prop_assert!(!merkle::verify(&root, i, i, leaf(i), &proof));
        prop_assert!(!merkle::verify(&root, 0, 0, leaf(i), &proof));
        prop_assert_eq!(tree.proof(n), None);
        let longer = [&proof[..], &[Hash(extra)]].concat();
        prop_assert!(!merkle::verify(&root, n, i, leaf(i), &longer));
        if let Some((_, shorter)) = proof.split_last() {
            prop_assert!(!merkle::verify(&root, n, i, leaf(i), shorter));
        }
        // A tree of more leaves has another root, so that a signed root stands for one number of leaves.
        let grown = Tree::new((0..=n).map(leaf).collect()).unwrap();
        prop_assert_ne!(grown.root(), root);
        // Twice as many leaves need one more hash for each.
        prop_assert!(!merkle::verify(&root, 2 * n, i, leaf(i), &proof));
    }

    #[test]
    fn a_manifest_is_taken_as_signed_and_not_altered(
        texts in (common::path(), any::<String>(), vec((any::<String>(), any::<String>()), 0..4)),
        numbers in (0u64.., 1u64..1000, any::<u64>(), 0u64..1000, any::<u32>(), 0u64..1 << 40),
        more in (of(common::path()), of(any::<u64>()), of(any::<u8>()), of(any::<(u32, u32)>())),
        bit: Index,
        seed: [u8; 32],
    ) {
        let identity = Identity::from_seed(&seed);
        let short = |s: String| s.chars().take(200).collect::<String>();
        let (path, title, tags) = texts;
        let (version, pages, signed_at, setup, serial, duration) = numbers;
        let (group, rate, channels, size) = more;
        let manifest = Manifest {
            kind: Kind::File,
            path,
            publisher: identity.key(),
            version,
            pages,
            bytes: pages * 100,
            duration,
            root: Hash(seed),
            setup: setup.min(pages),
            links: 1,
            streams: vec![StreamInfo { serial, codec: "theora".to_owned(), rate, channels, size }],
            title: short(title),
            tags: tags.into_iter().map(|(n, v)| (short(n), short(v))).collect(),
            signed_at,
            group,
        };
        let signed = SignedManifest::sign(manifest.clone(), &identity).unwrap();
        prop_assert_eq!(signed.manifest(), &manifest);
        prop_assert_eq!(SignedManifest::verify(signed.signed().clone()), Ok(signed.clone()));
        let again: Signed = frame::decode(&frame::encode(signed.signed())).unwrap();
        prop_assert_eq!(&again, signed.signed());
        let mut altered = signed.signed().clone();
        flip(&mut altered.body, bit);
        prop_assert!(SignedManifest::verify(altered).is_err());
        let mut altered = signed.signed().clone();
        flip(&mut altered.signature.0, bit);
        prop_assert_eq!(SignedManifest::verify(altered), Err(MediaError::Signature));
        let stranger = Identity::from_seed(&[0; 32]);
        prop_assert!(SignedManifest::sign(manifest, &stranger).is_err() || stranger.key() == identity.key());
    }

    #[test]
    fn a_ticket_is_good_at_its_host_only(
        keys in any::<[[u8; 32]; 4]>(), numbers in any::<[u64; 4]>(), pages in common::page_set(), rate in of(any::<u64>()),
        protocol in common::protocol(), media in common::media(), need in common::need(), bit: Index,
    ) {
        let [tracker, receiver, host, other] = keys.map(icet::PeerKey);
        let [epoch, assignment, version, expiry] = numbers;
        let body = TicketBody { tracker, epoch, assignment, receiver, host, media, version, pages, protocol, rate, expiry, need };
        let key = TicketKey::derive(&[5; 32], &host);
        let ticket = key.issue(&body);
        prop_assert!(ticket.body.len() <= icet::limits::TICKET);
        prop_assert_eq!(key.check(&ticket), Ok(body));
        prop_assert_eq!(TicketKey::derive(&[5; 32], &other).check(&ticket), Err(TicketError::Forged));
        prop_assert_eq!(TicketKey::derive(&[6; 32], &host).check(&ticket), Err(TicketError::Forged));
        let mut altered = ticket.clone();
        flip(&mut altered.body, bit);
        prop_assert_eq!(key.check(&altered), Err(TicketError::Forged));
        let mut altered = ticket;
        flip(&mut altered.mac.0, bit);
        prop_assert_eq!(key.check(&altered), Err(TicketError::Forged));
    }
}

#[test]
fn secrets_do_not_show() {
    let identity = Identity::from_seed(&[0x5a; 32]);
    let key = TicketKey::derive(&identity.seed(), &identity.key());
    let shown = format!("{identity:?} {key:?}").to_lowercase();
    assert!(!shown.contains("5a5a5a") && !shown.contains("90, 90"));
    let secret: String = key.0.iter().take(4).map(|b| format!("{b:02x}")).collect();
    assert!(!shown.contains(&secret));
}

/// A key of small order would make one signature good for many messages: strict verification refuses it.
#[test]
fn a_key_of_small_order_signs_nothing() {
    let mut identity_point = [0u8; 32];
    identity_point[0] = 1;
    let mut signature = [0u8; 64];
    signature[0] = 1;
    for key in [[0u8; 32], identity_point] {
        assert!(!icet::PeerKey(key).verify(b"IceShare/1 manifest\0", b"anything", &signature));
    }
}
