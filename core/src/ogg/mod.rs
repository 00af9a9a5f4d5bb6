//! Ogg pages: find them, check them, and tell the time by them (RFC 3533).
//!
//! - [`page`]: the header of one page, its CRC, the packets in it.
//! - [`split`]: pages out of network data, which may have gaps.
//! - [`scan`]: pages out of files, with exact offsets of what is damaged.
//! - [`codec`]: what a logical stream holds, from its first packet.
//! - [`comment`]: titles and tags.
//! - [`time`]: the media time, link and logical stream of every page.
//!
//! - `ends`: where each packet of a page ends, and at what position.
//!
//! Everything here is sans-IO, except [`scan::scan_reader`]. Pages are never altered: what comes out is what stood in
//! the source, byte for byte.

pub mod codec;
pub mod comment;
pub(crate) mod ends;
pub(crate) mod packet;
pub mod page;
pub mod scan;
pub mod split;
mod stream;
pub mod time;
mod walk;

pub use codec::{Codec, Format};
pub use comment::Comments;
pub use page::{MAX_PAGE_LEN, MIN_PAGE_LEN, PageHeader};
pub use scan::{ScanError, ScanEvent, ScanMode, ScanStats, ScannedPage, Scanner, scan_reader, scan_slice};
pub use split::{SplitEvent, Splitter};
pub use time::{Link, LogicalStream, PagePlace, Timeline};
pub use walk::Damage;

#[cfg(test)]
pub(crate) mod tests;
