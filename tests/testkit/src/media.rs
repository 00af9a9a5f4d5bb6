//! Media for the cases: sound Ogg, page by page of any length, the same for the same seed.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use iceshare::icet::{PageNo, PageSet};
use iceshare::ogg::page;
use iceshare::store::MediaStore;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in the range, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.bits() % (range.end - range.start).max(1)
    }

    /// Whether something happens that does with this probability.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are enough")]
    pub fn happens(&mut self, probability: f64) -> bool {
        ((self.bits() >> 11) as f64) < probability * (1_u64 << 53) as f64
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.bits().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

/// Smallest and largest page of Ogg (RFC 3533, section 6).
pub const SMALLEST: usize = 27;
/// See [`SMALLEST`].
pub const LARGEST: usize = 65_307;

/// Samples at 48 kHz of each packet: 20 ms.
const PACKET: u64 = 960;
/// The table of contents of an Opus packet of one frame of 20 ms (RFC 6716, section 3.1).
const TOC: u8 = 1 << 3;

/// The pages of a file before it is published.
#[derive(Debug)]
struct Maker {
    random: Random,
    serial: u32,
    sequence: u32,
    granule: u64,
    continued: bool,
    pages: Vec<Bytes>,
}

impl Maker {
    fn push(&mut self, flags: u8, granule: Option<u64>, lacing: &[u8], body: &[u8]) {
        let mut p = b"OggS\0".to_vec();
        p.push(flags);
        p.extend_from_slice(&granule.unwrap_or(u64::MAX).to_le_bytes());
        p.extend_from_slice(&self.serial.to_le_bytes());
        p.extend_from_slice(&self.sequence.to_le_bytes());
        p.extend_from_slice(&[0; 4]);
        p.push(u8::try_from(lacing.len()).unwrap_or(u8::MAX));
        p.extend_from_slice(lacing);
        p.extend_from_slice(body);
        page::seal(&mut p);
        self.sequence += 1;
        self.pages.push(p.into());
    }

    /// A page of exactly `len` bytes, of one packet or a part of one.
    fn page(&mut self, len: usize, last: bool) {
        let len = len.clamp(SMALLEST, LARGEST);
        let segments = (len - SMALLEST).div_ceil(256);
        let body = len - SMALLEST - segments;
        let mut lacing = vec![u8::MAX; segments];
        let whole = body < 255 * segments;
        if whole && let Some(end) = lacing.last_mut() {
            *end = u8::try_from(body - 255 * (segments - 1)).unwrap_or(0);
        }
        let mut bytes = self.random.bytes(body);
        if let (false, Some(first)) = (self.continued, bytes.first_mut()) {
            *first = TOC;
        }
        let flags = u8::from(self.continued && segments > 0) | if last { 4 } else { 0 };
        self.granule += if whole { PACKET } else { 0 };
        let granule = if whole || last { Some(self.granule) } else { None };
        if segments > 0 {
            self.continued = !whole;
        }
        self.push(flags, granule, &lacing, &bytes);
    }
}

/// Ogg Opus with pages of these lengths (after its two setup pages). What is in them is carried, not listened to.
#[must_use]
pub fn pages(seed: u64, lengths: impl IntoIterator<Item = usize>) -> Vec<Bytes> {
    let mut random = Random(seed);
    let serial = u32::try_from(random.bits() >> 32).unwrap_or(7);
    let mut m = Maker { random, serial, sequence: 0, granule: 0, continued: false, pages: Vec::new() };
    // RFC 7845, section 5.
    let head = [b"OpusHead".as_slice(), &[1, 2, 0, 0, 0x80, 0xbb, 0, 0, 0, 0, 0]].concat();
    m.push(2, Some(0), &[19], &head);
    let tags = [b"OpusTags".as_slice(), &3_u32.to_le_bytes(), b"kit", &0_u32.to_le_bytes()].concat();
    m.push(0, Some(0), &[19], &tags);
    let mut lengths = lengths.into_iter().peekable();
    while let Some(len) = lengths.next() {
        m.page(len, lengths.peek().is_none());
    }
    m.pages
}

/// `count` lengths as music has them, with now and then one of the smallest and of the largest.
pub fn mixed(seed: u64, count: usize) -> impl Iterator<Item = usize> {
    let mut random = Random(seed ^ 0x006d_6978_6564);
    (0..count).map(move |i| match (i % 50, random.bits() % 8) {
        (17, _) => LARGEST,
        (18 | 19, _) => SMALLEST,
        (20, _) => LARGEST - 1,
        (_, 0) => 28 + usize::try_from(random.within(0..300)).unwrap_or(0),
        _ => 1500 + usize::try_from(random.within(0..5000)).unwrap_or(0),
    })
}

/// `count` pages of `len` bytes.
pub fn even(count: usize, len: usize) -> impl Iterator<Item = usize> {
    std::iter::repeat_n(len, count)
}

/// A published media and its bytes.
#[derive(Debug, Clone)]
pub struct Media {
    /// What the host serves.
    pub store: Arc<MediaStore>,
    bytes: Bytes,
    /// Offset of each page, and the end.
    offsets: Arc<Vec<u64>>,
}

impl Media {
    pub(crate) fn new(store: Arc<MediaStore>, pages: &[Bytes]) -> Media {
        let mut offsets = vec![0];
        let mut at = 0;
        for p in pages {
            at += p.len() as u64;
            offsets.push(at);
        }
        Media { store, bytes: pages.concat().into(), offsets: Arc::new(offsets) }
    }

    /// The same as another peer holds it.
    #[must_use]
    pub fn held_as(&self, store: Arc<MediaStore>) -> Media {
        Media { store, ..self.clone() }
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.offsets.len() as u64 - 1
    }

    /// Number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Never: a media has a page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All its bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Where a page begins (for the number of pages: the end of the media).
    #[must_use]
    pub fn offset(&self, page: PageNo) -> u64 {
        let at = usize::try_from(page).unwrap_or(usize::MAX);
        self.offsets.get(at).copied().unwrap_or(self.len())
    }

    /// The page that has the byte at `offset`.
    #[must_use]
    pub fn page_at(&self, offset: u64) -> PageNo {
        (self.offsets.partition_point(|o| *o <= offset) as u64).saturating_sub(1)
    }

    /// Bytes `first ..= last`.
    #[must_use]
    pub fn part(&self, first: u64, last: u64) -> Bytes {
        let at = |o: u64| usize::try_from(o.min(self.len())).unwrap_or(0);
        self.bytes.slice(at(first)..at(last.saturating_add(1)))
    }

    /// One page.
    #[must_use]
    pub fn page(&self, page: PageNo) -> Bytes {
        self.part(self.offset(page), self.offset(page + 1).saturating_sub(1))
    }

    /// The pages of a set side by side, and where each begins.
    #[must_use]
    pub fn set(&self, set: &PageSet) -> (Bytes, Vec<(PageNo, u64)>) {
        let mut marks = Vec::new();
        if set.stripe.is_none() {
            let last = set.last.map_or(self.pages(), |l| l.saturating_add(1)).min(self.pages());
            let begin = self.offset(set.first);
            marks.extend((set.first..last).map(|p| (p, self.offset(p) - begin)));
            let end = self.offset(last.max(set.first));
            return (if end > begin { self.part(begin, end - 1) } else { Bytes::new() }, marks);
        }
        let mut out = Vec::new();
        for p in set.iter(self.pages()) {
            marks.push((p, out.len() as u64));
            out.extend_from_slice(&self.page(p));
        }
        (out.into(), marks)
    }
}
