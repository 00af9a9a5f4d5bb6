//! The end of a recording that stops before the broadcast does.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::ogg::PageHeader;
use crate::ogg::page::seal;

/// Where a page has its flags, and that of the last page (RFC 3533, section 6).
const FLAGS: usize = 5;
const EOS: u8 = 4;
/// Pages and bytes that wait at most for a stream of which nothing more comes.
const MOST: (usize, usize) = (512, 4 << 20);

/// Holds back the last page of each logical stream until another one comes, so that where a recording stops it can be marked as the last one
/// (RFC 3533, section 4), which players and validators look for.
#[derive(Debug, Default)]
pub struct Ending {
    /// Pages in order, with serial number and whether that stream needs no other end.
    held: VecDeque<(u32, bool, Bytes)>,
    bytes: usize,
    /// A page came that begins no logical stream.
    body: bool,
}

impl Ending {
    /// The next page of the broadcast: what of it, and of those before, may be written now. What is no page is passed on.
    pub fn page(&mut self, page: Bytes) -> Vec<Bytes> {
        let mut out = Vec::new();
        let Ok(header) = PageHeader::parse(&page) else {
            out.extend(self.held.drain(..).map(|(.., page)| page));
            out.push(page);
            self.bytes = 0;
            return out;
        };
        if header.bos && std::mem::take(&mut self.body) {
            // Another link: the one before has its end, from its broadcaster.
            out.extend(self.held.drain(..).map(|(.., page)| page));
            self.bytes = 0;
        }
        self.body |= !header.bos;
        self.bytes += page.len();
        for before in self.held.iter_mut().filter(|(serial, ..)| *serial == header.serial) {
            before.1 = true;
        }
        self.held.push_back((header.serial, header.eos, page));
        while let Some((_, goes, first)) = self.held.front()
            && (*goes || self.held.len() > MOST.0 || self.bytes > MOST.1)
        {
            self.bytes -= first.len();
            out.extend(self.held.pop_front().map(|(.., page)| page));
        }
        out
    }

    /// Nothing more comes: what was held back, with its ends marked.
    pub fn close(&mut self) -> Vec<Bytes> {
        self.bytes = 0;
        let ends = |(_, has_one, page): (u32, bool, Bytes)| {
            if has_one {
                return page;
            }
            let mut page = BytesMut::from(&page[..]);
            page.get_mut(FLAGS).into_iter().for_each(|flags| *flags |= EOS);
            seal(&mut page);
            page.freeze()
        };
        self.held.drain(..).map(ends).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ogg::tests::build::PageBuilder;

    fn page(serial: u32, sequence: u32) -> PageBuilder {
        PageBuilder::new(serial).sequence(sequence).granule(960).packet(&[7; 20])
    }

    fn run(pages: Vec<PageBuilder>) -> (Vec<Bytes>, Vec<Bytes>) {
        let mut ending = Ending::default();
        let out = pages.into_iter().flat_map(|p| ending.page(p.build().into())).collect();
        (out, ending.close())
    }

    fn told(pages: &[Bytes]) -> Vec<(u32, u32, bool)> {
        let headers = pages.iter().map(|p| PageHeader::parse(p).expect("a page"));
        headers.map(|h| (h.serial, h.sequence, h.eos)).collect()
    }

    #[test]
    fn the_last_page_of_each_stream_is_marked_where_it_stops() {
        let pages =
            vec![page(1, 0).bos(), page(2, 0).bos(), page(1, 80), page(2, 3), page(2, 4), page(1, 81)];
        let (out, last) = run(pages);
        assert_eq!(told(&out), [(1, 0, false), (2, 0, false), (1, 80, false), (2, 3, false)]);
        assert_eq!(told(&last), [(2, 4, true), (1, 81, true)]);
    }

    #[test]
    fn what_has_an_end_is_passed_on_as_it_is() {
        let pages =
            || vec![page(1, 0).bos(), page(1, 1).eos(), page(2, 0).bos(), page(2, 1), page(2, 2).eos()];
        let (out, last) = run(pages());
        let all: Vec<Bytes> = pages().into_iter().map(|p| p.build().into()).collect();
        assert_eq!((out, last.len()), (all, 0));
        // A link that stops is its broadcaster's affair.
        let (out, last) = run(vec![page(1, 0).bos(), page(1, 1), page(1, 0).bos(), page(1, 1)]);
        assert_eq!(told(&out), [(1, 0, false), (1, 1, false), (1, 0, false)]);
        assert_eq!(told(&last), [(1, 1, true)]);
    }

    #[test]
    fn a_stream_that_says_nothing_more_holds_up_only_so_much() {
        let mut ending = Ending::default();
        ending.page(page(1, 0).bos().build().into());
        let mut held = 1;
        for n in 0..2000 {
            held += 1;
            held -= ending.page(page(2, n).build().into()).len();
            assert!(held <= MOST.0 && held == ending.held.len());
        }
        assert_eq!(told(&ending.close()).last(), Some(&(2, 1999, true)));
        assert!(ending.close().is_empty());
        assert_eq!(ending.page(Bytes::from_static(b"no page")), [Bytes::from_static(b"no page")]);
    }
}
