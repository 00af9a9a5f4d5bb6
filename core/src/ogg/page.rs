//! One Ogg page: its header, its CRC, and the packets in its body (RFC 3533 section 6).

use std::ops::Range;
use std::sync::LazyLock;

use crc_fast::{CrcParams, Digest};
use thiserror::Error;

/// The four bytes that begin every page.
pub const CAPTURE_PATTERN: [u8; 4] = *b"OggS";
/// Bytes of a page header without its segment table, and so of the smallest page.
pub const MIN_PAGE_LEN: usize = 27;
/// Bytes of the longest page header: one with 255 segments.
pub const MAX_HEADER_LEN: usize = MIN_PAGE_LEN + 255;
/// Bytes of the longest page: 255 segments of 255 bytes each.
pub const MAX_PAGE_LEN: usize = MAX_HEADER_LEN + 255 * 255;

const FLAG_CONTINUED: u8 = 0x01;
const FLAG_BOS: u8 = 0x02;
const FLAG_EOS: u8 = 0x04;
/// Where a page has its position, the serial number of its logical stream, and its number in there, each least significant byte first.
pub(crate) const GRANULE: Range<usize> = 6..14;
pub(crate) const SERIAL: Range<usize> = 14..18;
pub(crate) const SEQUENCE: Range<usize> = 18..22;
const CRC_AT: usize = 22;
const CRC_END: usize = 26;

/// The header of a page, without its segment table (which [`segment_table`] borrows from the page).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    /// The page's first packet began on an earlier page.
    pub continued: bool,
    /// First page of its logical stream ("beginning of stream").
    pub bos: bool,
    /// Last page of its logical stream ("end of stream").
    pub eos: bool,
    /// Position after the last packet that ends on this page, in units of the codec. On the wire -1 means that no packet
    /// ends here: `None`. Other negative values are no valid positions, but are kept as they are.
    pub granule: Option<i64>,
    /// Number of the logical stream. Not unique: it may be used again in a later link of a chain.
    pub serial: u32,
    /// The page's number within its logical stream, modulo 2^32, as its encoder counted.
    pub sequence: u32,
    /// The checksum that the page claims; [`crc`] computes the true one.
    pub crc: u32,
    /// Number of segments, and of bytes in the segment table: 0 to 255.
    pub segments: u8,
    /// Bytes of the body: 0 to 65,025.
    pub body_len: u16,
}

/// Why bytes are not the header of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// They don't begin with [`CAPTURE_PATTERN`].
    #[error("not an Ogg page: it does not begin with \"OggS\"")]
    NoCapture,
    /// RFC 3533 defines version 0 only.
    #[error("Ogg page of version {0}, where only version 0 exists")]
    Version(u8),
    /// So far they could be one, but the header needs this many bytes (27 to 282) from its beginning.
    #[error("Ogg page header cut off: it has at least {needed} bytes")]
    Incomplete {
        /// Bytes needed from the beginning of the page before parsing can go on.
        needed: usize,
    },
}

impl PageHeader {
    /// Reads the header that `bytes` begins with; what follows the header is not looked at.
    ///
    /// # Errors
    /// See [`HeaderError`]. Never `Incomplete` if `bytes` has [`MAX_HEADER_LEN`] bytes or more.
    pub fn parse(bytes: &[u8]) -> Result<Self, HeaderError> {
        let seen = bytes.len().min(CAPTURE_PATTERN.len());
        if bytes[..seen] != CAPTURE_PATTERN[..seen] {
            return Err(HeaderError::NoCapture);
        }
        if let Some(&version) = bytes.get(4)
            && version != 0
        {
            return Err(HeaderError::Version(version));
        }
        let Some((fixed, rest)) = bytes.split_first_chunk::<MIN_PAGE_LEN>() else {
            return Err(HeaderError::Incomplete { needed: MIN_PAGE_LEN });
        };
        let segments = fixed[26];
        let Some(table) = rest.get(..usize::from(segments)) else {
            return Err(HeaderError::Incomplete { needed: MIN_PAGE_LEN + usize::from(segments) });
        };
        let granule = i64::from_le_bytes(field(fixed, 6));
        Ok(Self {
            continued: fixed[5] & FLAG_CONTINUED != 0,
            bos: fixed[5] & FLAG_BOS != 0,
            eos: fixed[5] & FLAG_EOS != 0,
            granule: (granule != -1).then_some(granule),
            serial: u32::from_le_bytes(field(fixed, 14)),
            sequence: u32::from_le_bytes(field(fixed, 18)),
            crc: u32::from_le_bytes(field(fixed, CRC_AT)),
            segments,
            body_len: table.iter().map(|&lace| u16::from(lace)).sum(),
        })
    }

    /// Bytes of the header with its segment table: 27 to 282.
    #[must_use]
    pub fn header_len(&self) -> usize {
        MIN_PAGE_LEN + usize::from(self.segments)
    }

    /// Bytes of the body: 0 to 65,025.
    #[must_use]
    pub fn body_len(&self) -> usize {
        usize::from(self.body_len)
    }

    /// Bytes of the whole page: 27 to 65,307.
    #[must_use]
    pub fn total_len(&self) -> usize {
        self.header_len() + self.body_len()
    }
}

/// `N` bytes from a fixed place of the fixed part of a header.
fn field<const N: usize>(fixed: &[u8; MIN_PAGE_LEN], at: usize) -> [u8; N] {
    std::array::from_fn(|i| fixed[at + i])
}

/// The page's segment table ("lacing values"); empty if `page` does not begin with a whole header.
#[must_use]
pub fn segment_table(page: &[u8]) -> &[u8] {
    let count = page.get(MIN_PAGE_LEN - 1).copied().unwrap_or(0);
    page.get(MIN_PAGE_LEN..MIN_PAGE_LEN + usize::from(count)).unwrap_or(&[])
}

// CRC-32 with the polynomial 0x04c11db7, unreflected, nothing inverted (RFC 3533 section 6, field 7). Making the folding keys is
// costly, so that one digest is made and copied.
static DIGEST: LazyLock<Digest> = LazyLock::new(|| {
    Digest::new_with_params(CrcParams::new("CRC-32/OGG", 32, 0x04c1_1db7, 0, false, 0, 0x89a1_897f))
});

/// The checksum of a page (or of any bytes), its CRC field (bytes 22 to 25) taken as zero.
#[must_use]
pub fn crc(page: &[u8]) -> u32 {
    let mut digest = *DIGEST;
    match page.split_at_checked(CRC_END) {
        Some((head, rest)) => {
            // Zeros ahead of everything don't change a CRC that starts at zero: they fill a whole vector register.
            let mut padded = [0; 32];
            padded[6..6 + CRC_AT].copy_from_slice(&head[..CRC_AT]);
            digest.update(&padded);
            digest.update(rest);
        }
        None => digest.update(&page[..page.len().min(CRC_AT)]),
    }
    u32::try_from(digest.finalize()).unwrap_or_default()
}

/// Whether `page` is exactly one page, and its checksum is right.
#[must_use]
pub fn verify(page: &[u8]) -> bool {
    PageHeader::parse(page).is_ok_and(|header| header.total_len() == page.len() && header.crc == crc(page))
}

/// Writes the right checksum into a page that was built or rewritten. Does nothing to what is shorter than a header.
pub fn seal(page: &mut [u8]) {
    let crc = crc(page).to_le_bytes();
    if page.len() >= MIN_PAGE_LEN {
        page[CRC_AT..CRC_END].copy_from_slice(&crc);
    }
}

/// What one page holds of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketPart<'a> {
    /// The bytes of the packet that lie in this page.
    pub data: &'a [u8],
    /// The packet begins here.
    pub starts: bool,
    /// The packet ends here.
    pub ends: bool,
}

/// Iterates over the packets of a page; made by [`packet_parts`].
#[derive(Debug, Clone)]
pub struct PacketParts<'a> {
    table: &'a [u8],
    body: &'a [u8],
    starts: bool,
}

/// The packets, or parts of packets, in a page's body. Yields nothing for what is not a page, and stops where a page is cut off.
#[must_use]
pub fn packet_parts(page: &[u8]) -> PacketParts<'_> {
    let body =
        PageHeader::parse(page).ok().and_then(|header| Some((header, page.get(header.header_len()..)?)));
    match body {
        Some((header, body)) => PacketParts { table: segment_table(page), body, starts: !header.continued },
        None => PacketParts { table: &[], body: &[], starts: false },
    }
}

impl<'a> Iterator for PacketParts<'a> {
    type Item = PacketPart<'a>;

    fn next(&mut self) -> Option<PacketPart<'a>> {
        if self.table.is_empty() {
            return None;
        }
        // A packet ends with the first segment shorter than 255 bytes.
        let last = self.table.iter().position(|&lace| lace < 255);
        let (laces, table) = self.table.split_at(last.map_or(self.table.len(), |last| last + 1));
        let len = laces.iter().map(|&lace| usize::from(lace)).sum();
        let Some((data, body)) = self.body.split_at_checked(len) else {
            self.table = &[];
            return None;
        };
        (self.table, self.body) = (table, body);
        let starts = std::mem::replace(&mut self.starts, true);
        Some(PacketPart { data, starts, ends: last.is_some() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ogg::tests::build::PageBuilder;

    /// The CRC bit by bit, straight from the RFC's words.
    fn slow_crc(bytes: &[u8]) -> u32 {
        bytes.iter().fold(0, |crc, &byte| {
            (0..8).fold(crc ^ (u32::from(byte) << 24), |crc: u32, _| {
                if crc >> 31 == 1 { (crc << 1) ^ 0x04c1_1db7 } else { crc << 1 }
            })
        })
    }

    #[test]
    fn crc_matches_the_catalogue() {
        // Check value of CRC-32/OGG: "123456789" after the zeroed field. The field's bytes must not count.
        let mut page = vec![0; 26];
        page[22..26].copy_from_slice(&[1, 2, 3, 4]);
        page.extend_from_slice(b"123456789");
        assert_eq!(crc(&page), 0x89a1_897f);
    }

    #[test]
    fn fields_stand_where_the_rfc_puts_them() {
        let mut bytes = b"OggS\0".to_vec();
        bytes.push(FLAG_CONTINUED | FLAG_EOS);
        bytes.extend_from_slice(&0x0102_0304_0506_0708_i64.to_le_bytes());
        bytes.extend_from_slice(&0xdead_beef_u32.to_le_bytes());
        bytes.extend_from_slice(&7_u32.to_le_bytes());
        bytes.extend_from_slice(&0x1122_3344_u32.to_le_bytes());
        bytes.extend_from_slice(&[3, 255, 255, 4]);
        let header = PageHeader::parse(&bytes).unwrap();
        let expected = PageHeader {
            continued: true,
            bos: false,
            eos: true,
            granule: Some(0x0102_0304_0506_0708),
            serial: 0xdead_beef,
            sequence: 7,
            crc: 0x1122_3344,
            segments: 3,
            body_len: 514,
        };
        assert_eq!(header, expected);
        assert_eq!((header.header_len(), header.body_len(), header.total_len()), (30, 514, 544));
        assert_eq!(segment_table(&bytes), [255, 255, 4]);
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let page = PageBuilder::new(1).bos().eos().packet(&[0; 300]).build();
        for (bytes, error) in [
            (&b"OggX"[..], HeaderError::NoCapture),
            (b"x", HeaderError::NoCapture),
            (b"OggS\x01", HeaderError::Version(1)),
            (b"", HeaderError::Incomplete { needed: 27 }),
            (b"Og", HeaderError::Incomplete { needed: 27 }),
            (&page[..26], HeaderError::Incomplete { needed: 27 }),
            (&page[..28], HeaderError::Incomplete { needed: 29 }),
        ] {
            assert_eq!(PageHeader::parse(bytes), Err(error));
        }
    }

    #[test]
    fn limits_are_those_of_the_format() {
        let largest = PageBuilder::new(1).laces(&[255; 255]).body(&[7; 255 * 255]).build();
        assert_eq!(largest.len(), MAX_PAGE_LEN);
        assert_eq!(PageHeader::parse(&largest).unwrap().total_len(), 65_307);
        assert!(verify(&largest));
        let smallest = PageBuilder::new(1).build();
        assert_eq!(smallest.len(), MIN_PAGE_LEN);
        assert!(verify(&smallest));
    }

    #[test]
    fn packets_are_cut_at_short_segments() {
        let page = PageBuilder::new(1).continued().laces(&[3, 0, 255, 0, 255]).body(&[9; 513]).build();
        let parts: Vec<_> =
            packet_parts(&page).map(|part| (part.data.len(), part.starts, part.ends)).collect();
        assert_eq!(parts, [(3, false, true), (0, true, true), (255, true, true), (255, true, false)]);
        // A page cut off in its body gives only the whole parts.
        assert_eq!(packet_parts(&page[..40]).count(), 2);
        assert_eq!(packet_parts(b"OggS").count(), 0);
    }

    proptest! {
        #[test]
        fn crc_equals_the_slow_one(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut zeroed = bytes.clone();
            let end = zeroed.len().min(26);
            if end > 22 {
                zeroed[22..end].fill(0);
            }
            if bytes.len() >= 26 {
                prop_assert_eq!(crc(&bytes), slow_crc(&zeroed));
            } else {
                prop_assert_eq!(crc(&bytes), slow_crc(&bytes[..bytes.len().min(22)]));
            }
        }

        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), page in any::<bool>()) {
            let mut bytes = bytes;
            if page && bytes.len() > 5 {
                bytes[..5].copy_from_slice(b"OggS\0");
            }
            let _ = PageHeader::parse(&bytes);
            let _ = (segment_table(&bytes), packet_parts(&bytes).count(), verify(&bytes));
            seal(&mut bytes);
        }

        #[test]
        fn any_altered_byte_is_seen(packet in proptest::collection::vec(any::<u8>(), 0..3000), at in any::<prop::sample::Index>(), change in 1_u8..) {
            let mut page = PageBuilder::new(5).granule(77).packet(&packet).build();
            prop_assert!(verify(&page));
            let at = at.index(page.len());
            page[at] ^= change;
            prop_assert!(!verify(&page));
        }
    }
}
