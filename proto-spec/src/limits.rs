//! Limits of the wire, normative (`proto-spec/spec/icet.md`, "Limits"). A decoder refuses what exceeds them.

/// Largest frame body, in bytes.
pub const FRAME: usize = 1 << 20;
/// Longest media path, in bytes of UTF-8.
pub const PATH: usize = 1024;
/// Longest protocol name, in bytes.
pub const PROTOCOL: usize = 32;
/// Longest opaque endpoint, in bytes.
pub const ENDPOINT: usize = 512;
/// Most protocols a peer may offer.
pub const OFFERS: usize = 32;
/// Most network addresses of a peer.
pub const REACH: usize = 16;
/// Longest text for people (titles, tag values, error texts, agents), in bytes.
pub const TEXT: usize = 1024;
/// Bytes of the title in a head.
pub const TITLE: usize = 256;
/// Most tags of a manifest.
pub const TAGS: usize = 64;
/// Most logical streams that a manifest describes.
pub const STREAMS: usize = 32;
/// Largest manifest, in bytes of its CBOR.
pub const MANIFEST: usize = 96 * 1024;
/// Most pages of a media: 2^40.
pub const PAGES: u64 = 1 << 40;
/// Most pages of a file (a page map of 8 MiB; 280 GB at a mean page of 4 KiB): 2^26.
pub const FILE_PAGES: u64 = 1 << 26;
/// Most ranges in one set of pages on the wire.
pub const RANGES: usize = 16_384;
/// Most slices in one message.
pub const SLICES: usize = 128;
/// Largest encoded slice, in bytes.
pub const SLICE: usize = 4096;
/// Most hashes in a proof (a tree of 2^40 pages has 34 levels above its slices).
pub const PROOF: usize = 40;
/// Most page records in a batch of live media, and in a head.
pub const RECORDS: usize = 64;
/// Furthest media time of live media from page 0, and of a record from its batch's or link's, in microseconds: 36,000 years, of
/// which sums and differences fit.
pub const TIME: i64 = 1 << 60;
/// Largest batch of records, and largest head, in bytes of their CBOR.
pub const BATCH: usize = 4096;
/// Most earlier heads beside one.
pub const EARLIER: usize = 128;
/// Most assignments, acknowledgements or reports in one message.
pub const ITEMS: usize = 1024;
/// Most stand-ins of an assignment.
pub const STAND_INS: usize = 4;
/// Marks of a standing.
pub const MARKS: usize = 16;
/// Largest ticket, in bytes.
pub const TICKET: usize = 512;
/// Smallest and largest Ogg page, in bytes (RFC 3533, section 6).
pub const PAGE_BYTES: std::ops::RangeInclusive<u32> = 27..=65_307;
/// Largest frame of a request for pages over a stream, or of its answer, in bytes.
pub const STREAM_FRAME: usize = 4096;
/// Most spans of pages in one request.
pub const SPANS: usize = 128;
