//! The end of a broadcast that breaks off, for players.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::ogg::page::seal;
use crate::ogg::{MIN_PAGE_LEN, PageHeader, SplitEvent, Splitter};

/// Logical streams at once of which an end is owed; who begins more of them than any player plays is no broadcast.
const MOST: usize = 64;

/// Follows the pages that a player is given, so that each logical stream can be given an end where nothing more comes: an empty last page
/// (RFC 3533, section 6). Players wait for it, and take a connection that closes without for a fault.
#[derive(Debug, Default)]
pub struct Unended {
    /// Sequence numbers that come next, by serial number.
    open: BTreeMap<u32, u32>,
    /// A page came that begins no logical stream.
    body: bool,
    splitter: Splitter,
}

impl Unended {
    /// The next bytes that were given, of whole pages or parts of them.
    pub fn bytes(&mut self, bytes: Bytes) {
        self.splitter.push(bytes);
        while let Some(event) = self.splitter.next() {
            if let SplitEvent::Page { header, .. } = event {
                self.page(&header);
            }
        }
    }

    /// The next page that was given.
    pub fn page(&mut self, header: &PageHeader) {
        if header.bos && std::mem::take(&mut self.body) {
            // Another link: the one before has its end, from its broadcaster.
            self.open.clear();
        }
        self.body |= !header.bos;
        if header.eos {
            self.open.remove(&header.serial);
        } else if self.open.len() < MOST || self.open.contains_key(&header.serial) {
            self.open.insert(header.serial, header.sequence.wrapping_add(1));
        }
    }

    /// Nothing more comes: the pages that are missing for that, if any are.
    pub fn close(&mut self) -> Option<Bytes> {
        let pages: Vec<_> =
            std::mem::take(&mut self.open).into_iter().map(|(s, n)| last_page(s, n)).collect();
        (!pages.is_empty()).then(|| pages.concat().into())
    }
}

/// A page without packets that ends its logical stream.
fn last_page(serial: u32, sequence: u32) -> Bytes {
    let fields = [
        &b"OggS\0\x04"[..],
        // No packet ends on it.
        &(-1_i64).to_le_bytes(),
        &serial.to_le_bytes(),
        &sequence.to_le_bytes(),
    ];
    let mut page = BytesMut::from(&fields.concat()[..]);
    page.resize(MIN_PAGE_LEN, 0);
    seal(&mut page);
    page.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ogg::tests::build::PageBuilder;

    fn give(unended: &mut Unended, pages: Vec<PageBuilder>) -> Vec<(u32, u32)> {
        for page in pages {
            unended.bytes(page.build().into());
        }
        let ends = unended.close().unwrap_or_default();
        let headers = ends.chunks(MIN_PAGE_LEN).map(|page| {
            let header = PageHeader::parse(page).expect("a page");
            assert!(header.eos && !header.bos && header.granule.is_none());
            assert_eq!(crate::ogg::page::crc(page), header.crc);
            (header.serial, header.sequence)
        });
        headers.collect()
    }

    fn page(serial: u32, sequence: u32) -> PageBuilder {
        PageBuilder::new(serial).sequence(sequence).granule(960).packet(&[7; 20])
    }

    #[test]
    fn streams_that_lack_an_end_get_one_behind_their_last_page() {
        let link = || vec![page(1, 0).bos(), page(2, 0).bos(), page(1, 1), page(2, 1), page(1, 2)];
        assert_eq!(give(&mut Unended::default(), link()), [(1, 3), (2, 2)]);
        let mut ended = link();
        ended.push(page(1, 3).eos());
        assert_eq!(give(&mut Unended::default(), ended), [(2, 2)]);
    }

    #[test]
    fn of_links_before_nothing_is_said() {
        let pages = vec![page(1, 0).bos(), page(1, 1), page(2, 0).bos(), page(2, 1)];
        let mut unended = Unended::default();
        assert_eq!(give(&mut unended, pages), [(2, 2)]);
        assert!(unended.close().is_none(), "once");
        assert!(Unended::default().close().is_none());
    }
}
