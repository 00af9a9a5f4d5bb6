//! Small media for tests, also for those of the program: real manifests, trees and slices.

use icet::key::Hash;
use icet::{
    Identity, Kind, Manifest, MediaPath, PageFlags, PageRecord, ProvenSlice, SignedManifest, Slice, merkle,
};

pub(crate) fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

fn sign(seed: u8, path: &str, version: u64, slices: &[Slice], root: Hash) -> Manifest {
    let pages: u64 = slices.iter().map(|s| s.records.len() as u64).sum();
    Manifest {
        kind: Kind::File,
        path: MediaPath::new(path).unwrap(),
        publisher: identity(seed).key(),
        version,
        pages,
        bytes: slices.iter().map(Slice::bytes).sum(),
        duration: pages * 1_000_000,
        root,
        setup: 1,
        links: 1,
        streams: Vec::new(),
        title: String::new(),
        tags: Vec::new(),
        signed_at: 1,
        group: None,
    }
}

/// A media of `count` slices of 64 pages, and its slices.
pub(crate) fn media(seed: u8, path: &str, version: u64, count: u64) -> (SignedManifest, Vec<ProvenSlice>) {
    let mut offset = 0;
    let mut slices = Vec::new();
    for index in 0..count {
        let record = |i: u8| PageRecord {
            len: 100 + u32::from(i),
            crc: 7,
            hash: Hash([i; 32]),
            flags: PageFlags::default(),
            time: 0,
        };
        let slice = Slice {
            index,
            offset,
            time: i64::try_from(index * 64_000_000).unwrap(),
            records: (0..64).map(record).collect(),
        };
        offset += slice.bytes();
        slices.push(slice);
    }
    let tree = merkle::Tree::new(slices.iter().map(|s| merkle::leaf(&s.to_bytes())).collect()).unwrap();
    let manifest = sign(seed, path, version, &slices, tree.root());
    let manifest = SignedManifest::sign(manifest, &identity(seed)).unwrap();
    let prove = |s: &Slice| {
        let slice = ProvenSlice { slice: s.to_bytes().into(), proof: tree.proof(s.index).unwrap() };
        assert_eq!(slice.verify(&manifest).as_ref(), Ok(s));
        slice
    };
    let proven = slices.iter().map(prove).collect();
    (manifest, proven)
}

/// A media of one slice of 64 pages with a title and tags.
pub(crate) fn manifest(
    seed: u8,
    path: &str,
    version: u64,
    title: &str,
    tags: &[(&str, &str)],
) -> SignedManifest {
    let (m, _) = media(seed, path, version, 1);
    let mut m = m.manifest().clone();
    m.title = title.to_owned();
    m.tags = tags.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    SignedManifest::sign(m, &identity(seed)).unwrap()
}
