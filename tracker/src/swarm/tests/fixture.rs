//! Media and peers for tests.

use icet::key::Hash;
use icet::media::{Kind, SLICE_PAGES};
use icet::merkle::{Tree, leaf};
use icet::{Identity, Manifest, MediaPath, PageFlags, PageRecord, ProvenSlice, SignedManifest, Slice};

/// The identity number `n`.
pub(crate) fn identity(n: u8) -> Identity {
    Identity::from_seed(&[n; 32])
}

/// A manifest of identity 1 (with no page table behind it).
pub(crate) fn manifest(path: &str, version: u64, pages: u64, bytes: u64, duration: u64) -> Manifest {
    Manifest {
        kind: Kind::File,
        path: MediaPath::new(path).unwrap(),
        publisher: identity(1).key(),
        version,
        pages,
        bytes,
        duration,
        root: Hash([0; 32]),
        setup: 2.min(pages),
        links: 1,
        streams: Vec::new(),
        title: String::new(),
        tags: Vec::new(),
        signed_at: 0,
        group: None,
    }
}

/// A media of `pages` pages of `len` bytes and 100 ms each, published by `publisher`, with all its slices.
pub(crate) fn media(
    publisher: &Identity,
    path: &str,
    version: u64,
    pages: u64,
    len: u32,
) -> (SignedManifest, Vec<ProvenSlice>) {
    let slices: Vec<Slice> = (0..pages.div_ceil(SLICE_PAGES))
        .map(|index| {
            let first = index * SLICE_PAGES;
            let record = |page: u64| PageRecord {
                len,
                crc: u32::try_from(page).unwrap(),
                hash: Hash([u8::try_from(version % 256).unwrap(); 32]),
                flags: PageFlags::default(),
                time: i64::try_from((page - first) * 100_000).unwrap(),
            };
            Slice {
                index,
                offset: first * u64::from(len),
                time: i64::try_from(first * 100_000).unwrap(),
                records: (first..pages.min(first + SLICE_PAGES)).map(record).collect(),
            }
        })
        .collect();
    let bytes: Vec<Vec<u8>> = slices.iter().map(Slice::to_bytes).collect();
    let tree = Tree::new(bytes.iter().map(|b| leaf(b)).collect()).unwrap();
    let manifest = Manifest {
        publisher: publisher.key(),
        root: tree.root(),
        ..manifest(path, version, pages, pages * u64::from(len), pages * 100_000)
    };
    let proven =
        (0..).zip(bytes).map(|(i, b)| ProvenSlice { slice: b.into(), proof: tree.proof(i).unwrap() });
    (SignedManifest::sign(manifest, publisher).unwrap(), proven.collect())
}
