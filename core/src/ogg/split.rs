//! Pages out of network data.

use std::collections::VecDeque;

use bytes::Bytes;

use super::page::PageHeader;
use super::walk::{Damage, Step, Walk};

/// Cuts a bitstream that arrives in pieces, perhaps with gaps, into pages.
///
/// Push what comes, then call [`next`](Self::next) until it gives `None`. A page that lies within one piece is a slice of that piece, not a copy
/// (so it keeps the whole piece in memory); a page that lies over several pieces is copied once. After `None`, less than one page is
/// kept: at most 65,306 bytes. Junk, damaged pages and gaps are passed over; a page is only given when its checksum is right.
///
/// The time that hostile bytes can cost is bounded: when checksums fail too often, what such pages claim to be is skipped whole.
#[derive(Debug)]
pub struct Splitter {
    walk: Walk,
    /// The beginning of a page that goes on in the queue.
    carry: Vec<u8>,
    queue: VecDeque<Input>,
}

#[derive(Debug)]
enum Input {
    Piece(Bytes),
    Gap,
}

/// What a [`Splitter`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitEvent {
    /// A whole page with the right checksum.
    Page {
        /// Its header.
        header: PageHeader,
        /// All of it, header included, as it came.
        bytes: Bytes,
    },
    /// Bytes that were passed over; told once their extent is known. Offsets count the bytes pushed, gaps not included.
    /// Never [`Damage::NotOgg`]. A page cut off by a gap is [`Damage::Truncated`].
    Skipped(Damage),
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new()
    }
}

impl Splitter {
    /// A splitter for a bitstream from its beginning or from anywhere in it.
    #[must_use]
    pub fn new() -> Self {
        Self { walk: Walk::new(None), carry: Vec::new(), queue: VecDeque::new() }
    }

    /// Takes the next bytes. Without a [`gap`](Self::gap) between, they continue the previous ones.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.queue.push_back(Input::Piece(piece));
        }
    }

    /// Bytes are missing here, no matter how many. Also to be called at the end, to learn of a page that was cut off.
    pub fn gap(&mut self) {
        self.queue.push_back(Input::Gap);
    }

    /// The next page, or what was passed over; `None` when more bytes are needed.
    #[expect(clippy::should_implement_trait, reason = "`None` is no end here: more may be pushed")]
    pub fn next(&mut self) -> Option<SplitEvent> {
        loop {
            let (window, last): (&[u8], bool) = if self.carry.is_empty() {
                match self.queue.front()? {
                    Input::Piece(piece) => (piece, matches!(self.queue.get(1), Some(Input::Gap))),
                    Input::Gap => (&[], true),
                }
            } else {
                (&self.carry, matches!(self.queue.front(), Some(Input::Gap)))
            };
            match self.walk.step(window, last) {
                Step::Page(header) => {
                    return Some(SplitEvent::Page { header, bytes: self.take(header.total_len()) });
                }
                Step::Damage(damage) => return Some(SplitEvent::Skipped(damage)),
                Step::Skip(len) => {
                    self.take(len);
                }
                Step::Need(len) => {
                    self.carry_up_to(len);
                    if self.carry.len() < len && self.queue.is_empty() {
                        return None;
                    }
                }
                // Only a gap ends a walk.
                Step::End => {
                    self.queue.pop_front();
                }
            }
        }
    }

    /// Bytes pushed that were neither given in a page nor passed over.
    #[must_use]
    pub fn buffered(&self) -> usize {
        let queued = self.queue.iter().map(|input| match input {
            Input::Piece(piece) => piece.len(),
            Input::Gap => 0,
        });
        self.carry.len() + queued.sum::<usize>()
    }

    /// How many bytes were passed over so far, those not told of yet included. A host that sends nothing else is of no use.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.walk.damaged()
    }

    /// Takes bytes from the window. Those behind them stay the window.
    fn take(&mut self, len: usize) -> Bytes {
        if !self.carry.is_empty() {
            let mut bytes = Bytes::from(std::mem::take(&mut self.carry));
            let taken = bytes.split_to(len.min(bytes.len()));
            if !bytes.is_empty() {
                self.queue.push_front(Input::Piece(bytes));
            }
            return taken;
        }
        let Some(Input::Piece(piece)) = self.queue.front_mut() else { return Bytes::new() };
        if len < piece.len() {
            return piece.split_to(len);
        }
        let whole = std::mem::take(piece);
        self.queue.pop_front();
        whole
    }

    /// Copies from the queue until the carry has `len` bytes, or a gap or the queue's end is reached.
    fn carry_up_to(&mut self, len: usize) {
        while let Some(missing) = len.checked_sub(self.carry.len()).filter(|&missing| missing > 0) {
            let Some(Input::Piece(piece)) = self.queue.front_mut() else { return };
            self.carry.reserve_exact(missing);
            let part = piece.split_to(piece.len().min(missing));
            self.carry.extend_from_slice(&part);
            if piece.is_empty() {
                self.queue.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ogg::page::MAX_PAGE_LEN;
    use crate::ogg::tests::build::{PageBuilder, any_page};

    fn drain(splitter: &mut Splitter) -> (Vec<Bytes>, Vec<Damage>) {
        let (mut pages, mut skipped) = (Vec::new(), Vec::new());
        while let Some(event) = splitter.next() {
            match event {
                SplitEvent::Page { header, bytes } => {
                    assert_eq!(PageHeader::parse(&bytes), Ok(header));
                    pages.push(bytes);
                }
                SplitEvent::Skipped(damage) => skipped.push(damage),
            }
        }
        (pages, skipped)
    }

    fn page(number: u32, len: usize) -> Vec<u8> {
        PageBuilder::new(9).sequence(number).packet(&vec![0x55; len]).build()
    }

    #[test]
    fn a_page_within_a_piece_is_not_copied() {
        let piece = Bytes::from([page(0, 100), page(1, 1000), page(2, 0)].concat());
        let mut splitter = Splitter::new();
        splitter.push(piece.clone());
        let (pages, skipped) = drain(&mut splitter);
        assert_eq!((pages.len(), skipped.len()), (3, 0));
        let memory = piece.as_ptr_range();
        assert!(pages.iter().all(|page| memory.contains(&page.as_ptr())));
    }

    #[test]
    fn only_the_page_over_a_seam_is_copied() {
        let bytes = Bytes::from([page(0, 100), page(1, 100), page(2, 100)].concat());
        let mut splitter = Splitter::new();
        splitter.push(bytes.slice(..200));
        assert_eq!(drain(&mut splitter).0.len(), 1);
        splitter.push(bytes.slice(200..));
        let (pages, _) = drain(&mut splitter);
        let memory = bytes.as_ptr_range();
        let inside: Vec<_> = pages.iter().map(|page| memory.contains(&page.as_ptr())).collect();
        assert_eq!(inside, [false, true]);
        assert_eq!(pages.concat(), bytes[128..]);
    }

    #[test]
    fn a_gap_ends_a_page_and_the_next_is_found() {
        let bytes = Bytes::from([page(0, 500), page(1, 500), page(2, 500)].concat());
        let len = bytes.len() as u64 / 3;
        let mut splitter = Splitter::new();
        splitter.push(bytes.slice(..600));
        splitter.gap();
        splitter.push(bytes.slice(700..));
        splitter.gap();
        let (pages, skipped) = drain(&mut splitter);
        assert_eq!(pages, [page(0, 500), page(2, 500)]);
        assert_eq!(
            skipped,
            [
                Damage::Truncated { offset: len, len: 600 - len, expected: len },
                Damage::Junk { offset: 600, len: 2 * len - 700 },
            ]
        );
        assert_eq!(splitter.skipped(), 600 - len + 2 * len - 700);
    }

    #[test]
    fn small_pages_hidden_in_a_false_one_are_found() {
        // A header that claims 65,307 bytes, then small sound pages: none of them may be lost.
        let mut bytes = PageBuilder::new(1).laces(&[255; 255]).build();
        let small: Vec<_> = (0..300).map(|n| page(n, 300)).collect();
        bytes.extend(small.concat());
        for cut in [1, 7, 1000, 65_306, 65_307, bytes.len()] {
            let mut splitter = Splitter::new();
            let mut pages = Vec::new();
            for piece in bytes.chunks(cut) {
                splitter.push(Bytes::copy_from_slice(piece));
                pages.extend(drain(&mut splitter).0);
                assert!(splitter.buffered() < MAX_PAGE_LEN);
            }
            assert_eq!(pages, small, "cut {cut}");
        }
    }

    #[test]
    fn hostile_headers_cost_bounded_work() {
        // 4 MiB of headers that each claim the most: 10 GB to sum up if every one were believed. Afterwards, pages are found again.
        let header = &PageBuilder::new(1).laces(&[255; 255]).build()[..27];
        let mut splitter = Splitter::new();
        for piece in header.repeat(4 << 20 >> 5).chunks(32 << 10) {
            splitter.push(Bytes::copy_from_slice(piece));
            assert_eq!(drain(&mut splitter).0.len(), 0);
        }
        splitter.push(Bytes::from(vec![0; MAX_PAGE_LEN]));
        splitter.push(Bytes::from(page(3, 3)));
        assert_eq!(drain(&mut splitter).0, [page(3, 3)]);
        assert!(splitter.walk.summed < 5 * (4 << 20) + (16 << 20) + 5 * MAX_PAGE_LEN as u64);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            pages in proptest::collection::vec(any_page(), 1..12),
            cuts in proptest::collection::vec(1_usize..4000, 1..20),
        ) {
            let stream = Bytes::from(pages.concat());
            let mut splitter = Splitter::new();
            let mut rest = stream;
            let mut found = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                splitter.push(rest.split_to(rest.len().min(*cut)));
                let (more, skipped) = drain(&mut splitter);
                prop_assert!(skipped.is_empty());
                prop_assert!(splitter.buffered() < MAX_PAGE_LEN);
                found.extend(more);
            }
            prop_assert_eq!(splitter.buffered(), 0);
            prop_assert_eq!(found, pages);
        }

        /// Junk, lost bytes and gaps anywhere: no page that came whole is lost, what is given is sound, every byte is accounted for,
        /// and the cuts don't matter.
        #[test]
        fn damage_costs_only_what_it_hits(
            parts in proptest::collection::vec((any_page(), 0..4_u8, any::<prop::sample::Index>()), 1..10),
            cut in 1_usize..3000,
        ) {
            let mut expected = Vec::new();
            let mut segments = vec![Vec::new()];
            for (mut page, fate, at) in parts {
                let at = at.index(page.len());
                let segment = segments.last_mut().unwrap();
                match fate {
                    0 => page[at] ^= 0x10,
                    1 => segment.extend_from_slice(&b"OggOggS\0xyzO"[..at % 12]),
                    2 => {
                        segment.extend_from_slice(&page[..at]);
                        segments.push(page[at + 1..].to_vec());
                        continue;
                    }
                    _ => {}
                }
                if fate != 0 { expected.push(Bytes::from(page.clone())) }
                segment.extend_from_slice(&page);
            }
            let total: usize = segments.iter().map(Vec::len).sum();
            let mut outcomes = Vec::new();
            for cut in [cut, usize::MAX] {
                let mut splitter = Splitter::new();
                let mut events = Vec::new();
                for segment in &segments {
                    for piece in segment.chunks(cut) {
                        splitter.push(Bytes::copy_from_slice(piece));
                        while let Some(event) = splitter.next() { events.push(event) }
                    }
                    splitter.gap();
                }
                while let Some(event) = splitter.next() { events.push(event) }
                outcomes.push(events);
            }
            prop_assert_eq!(&outcomes[0], &outcomes[1]);
            let mut found = Vec::new();
            let mut position = 0;
            for event in &outcomes[0] {
                match event {
                    SplitEvent::Page { bytes, .. } => {
                        found.push(bytes.clone());
                        position += bytes.len() as u64;
                    }
                    SplitEvent::Skipped(Damage::Junk { offset, len } | Damage::BadCrc { offset, len } | Damage::Truncated { offset, len, .. }) => {
                        prop_assert_eq!(*offset, position);
                        position += len;
                    }
                    SplitEvent::Skipped(Damage::NotOgg { .. }) => prop_assert!(false),
                }
            }
            prop_assert_eq!(position, total as u64);
            prop_assert_eq!(found, expected);
        }
    }
}
