//! A media of made-up pages with a true page table: the tracker checks its slices as it would any.

use icet::key::Hash;
use icet::media::{Kind, SLICE_PAGES};
use icet::merkle::{Tree, leaf};
use icet::{
    Identity, Manifest, MediaPath, PageFlags, PageNo, PageRecord, ProvenSlice, SignedManifest, Slice,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// What is published in a simulation.
#[derive(Debug, Clone)]
pub struct SimMedia {
    /// Its manifest.
    pub manifest: SignedManifest,
    /// All slices.
    pub slices: Vec<ProvenSlice>,
    /// Length of each page in bytes.
    pub lens: Vec<u32>,
    /// Offset of each page, and of the end.
    pub offsets: Vec<u64>,
}

/// The pages of a media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages {
    /// How many.
    pub pages: u32,
    /// Mean length of one in bytes.
    pub len: u32,
    /// Media time of one in microseconds.
    pub time: u64,
}

impl Pages {
    /// So many of 250 ms, of 4 KB each.
    #[must_use]
    pub fn small(pages: u32) -> Pages {
        Pages { pages, len: 4096, time: 250_000 }
    }
}

impl SimMedia {
    /// A media by `publisher`.
    ///
    /// # Panics
    /// If it has no pages or the path is none.
    #[must_use]
    pub fn new(publisher: &Identity, path: &str, kind: Pages, seed: u64) -> SimMedia {
        let Pages { pages, len, time: page_time } = kind;
        let mut rng = SmallRng::seed_from_u64(seed);
        let lens: Vec<u32> = (0..pages).map(|_| rng.random_range(len * 3 / 4..len * 5 / 4)).collect();
        let mut offsets = vec![0];
        offsets.extend(lens.iter().scan(0, |at, l| {
            *at += u64::from(*l);
            Some(*at)
        }));
        let slices: Vec<Slice> = (0u64..)
            .zip(lens.chunks(64))
            .map(|(index, lens)| {
                let record = |(i, len): (u64, &u32)| PageRecord {
                    len: *len,
                    crc: 0,
                    hash: Hash([7; 32]),
                    flags: PageFlags::default(),
                    time: i64::try_from(i * page_time).unwrap_or(0),
                };
                let first = index * SLICE_PAGES;
                Slice {
                    index,
                    offset: usize::try_from(first).map_or(0, |i| offsets[i]),
                    time: i64::try_from(first * page_time).unwrap_or(0),
                    records: (0..).zip(lens).map(record).collect(),
                }
            })
            .collect();
        let encoded: Vec<Vec<u8>> = slices.iter().map(Slice::to_bytes).collect();
        let tree = Tree::new(encoded.iter().map(|b| leaf(b)).collect()).expect("at least one page");
        let manifest = Manifest {
            kind: Kind::File,
            path: MediaPath::new(path).expect("a media path"),
            publisher: publisher.key(),
            version: 1,
            pages: u64::from(pages),
            bytes: *offsets.last().unwrap_or(&0),
            duration: u64::from(pages) * page_time,
            root: tree.root(),
            setup: 2.min(u64::from(pages)),
            links: 1,
            streams: Vec::new(),
            title: String::new(),
            tags: Vec::new(),
            signed_at: 0,
            group: None,
        };
        let proof = |i: u64| tree.proof(i).unwrap_or_default();
        let slices =
            (0..).zip(encoded).map(|(i, b)| ProvenSlice { slice: b.into(), proof: proof(i) }).collect();
        let manifest = SignedManifest::sign(manifest, publisher).expect("a manifest within its limits");
        SimMedia { manifest, slices, lens, offsets }
    }

    /// Length of a page in bytes; 0 beyond the end.
    #[must_use]
    pub fn len_of(&self, page: PageNo) -> u32 {
        usize::try_from(page).ok().and_then(|i| self.lens.get(i)).copied().unwrap_or(0)
    }

    /// The page that holds a byte.
    #[must_use]
    pub fn page_at(&self, byte: u64) -> PageNo {
        let i = self.offsets.partition_point(|o| *o <= byte);
        (i.max(1) - 1).min(self.lens.len() - 1) as PageNo
    }

    /// Bytes a second at which it plays.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.manifest.bytes * 1_000_000 / self.manifest.duration
    }
}
