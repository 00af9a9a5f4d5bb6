//! Media for tests: pages of arbitrary lengths with everything that belongs to them.

use bytes::Bytes;
use icet::key::Hash;
use icet::media::{SLICE_PAGES, StreamInfo};
use icet::merkle::{Tree, leaf};
use icet::{Identity, Kind, Manifest, PageFlags, PageNo, PageRecord, ProvenSlice, SignedManifest, Slice};
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};

use crate::ogg::page;

/// A media and all that proves it.
pub(crate) struct Fixture {
    pub(crate) manifest: SignedManifest,
    pub(crate) pages: Vec<Bytes>,
    slices: Vec<Vec<u8>>,
    tree: Tree,
}

/// Microseconds of each page.
pub(crate) const PAGE_TIME: i64 = 20_000;

fn ogg_page(number: usize, random: &mut SmallRng) -> Bytes {
    let segments = random.random_range(0..20_u8);
    let mut bytes = b"OggS\0\0".to_vec();
    bytes.extend_from_slice(&(number as u64 * 960).to_le_bytes());
    bytes.extend_from_slice(&7_u32.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(number).unwrap().to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.push(segments);
    bytes.extend((0..segments).map(|_| 200));
    let header = bytes.len();
    bytes.resize(header + 200 * usize::from(segments), 0);
    random.fill_bytes(&mut bytes[header..]);
    page::seal(&mut bytes);
    assert!(page::verify(&bytes));
    bytes.into()
}

impl Fixture {
    /// `count` pages; the same seed gives the same pages.
    pub(crate) fn new(count: usize, seed: u64) -> Fixture {
        Fixture::version(count, seed, 1)
    }

    /// The same with a version of the manifest.
    pub(crate) fn version(count: usize, seed: u64, version: u64) -> Fixture {
        let mut random = SmallRng::seed_from_u64(seed);
        let pages: Vec<Bytes> = (0..count).map(|n| ogg_page(n, &mut random)).collect();
        let mut slices = Vec::new();
        let mut offset = 0;
        for (index, pages) in pages.chunks(64).enumerate() {
            let records = pages.iter().enumerate().map(|(i, p)| PageRecord {
                len: u32::try_from(p.len()).unwrap(),
                crc: page::crc(p),
                hash: Hash(*blake3::hash(p).as_bytes()),
                flags: PageFlags::default(),
                time: i as i64 * PAGE_TIME,
            });
            let time = index as i64 * 64 * PAGE_TIME;
            let slice = Slice { index: index as u64, offset, time, records: records.collect() };
            offset += slice.bytes();
            slices.push(slice.to_bytes());
        }
        let tree = Tree::new(slices.iter().map(|s| leaf(s)).collect()).unwrap();
        let identity = Identity::from_seed(&[9; 32]);
        let manifest = Manifest {
            kind: Kind::File,
            path: "music/song.ogg".parse().unwrap(),
            publisher: identity.key(),
            version,
            pages: count as u64,
            bytes: offset,
            duration: count as u64 * PAGE_TIME.unsigned_abs(),
            root: tree.root(),
            setup: 1,
            links: 1,
            streams: vec![StreamInfo {
                serial: 7,
                codec: "opus".into(),
                rate: Some(48_000),
                channels: Some(2),
                size: None,
            }],
            title: String::new(),
            tags: Vec::new(),
            signed_at: 1_700_000_000,
            group: None,
        };
        Fixture { manifest: SignedManifest::sign(manifest, &identity).unwrap(), pages, slices, tree }
    }

    /// A slice with its proof.
    pub(crate) fn proven(&self, index: u64) -> ProvenSlice {
        let slice = self.slices[usize::try_from(index).unwrap()].clone();
        ProvenSlice { slice: slice.into(), proof: self.tree.proof(index).unwrap() }
    }

    /// All slices.
    pub(crate) fn all_proven(&self) -> impl Iterator<Item = ProvenSlice> + '_ {
        (0..self.manifest.slices()).map(|i| self.proven(i))
    }

    /// Some pages.
    pub(crate) fn run(&self, first: PageNo, last: PageNo) -> &[Bytes] {
        &self.pages[usize::try_from(first).unwrap()..=usize::try_from(last).unwrap()]
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.pages.concat()
    }

    /// Offset of a page.
    pub(crate) fn offset(&self, page: PageNo) -> u64 {
        self.pages[..usize::try_from(page).unwrap()].iter().map(|p| p.len() as u64).sum()
    }

    /// Where slice 1 begins, and so on.
    pub(crate) const SLICE: u64 = SLICE_PAGES;
}
