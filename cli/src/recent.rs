//! A source that broke off and is back: what it sends once more, and whether it is the same stream that goes on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use iceshare::ogg::PageHeader;
use tokio::time::Instant;

/// A source that comes back is recognised by the pages of so long: Icecast sends its headers and some 64 KB once more. Of more pages than
/// that the older ones are forgotten.
const RECENT: Duration = Duration::from_secs(60);
const RECENT_PAGES: usize = 8192;
/// Setup pages that are held back until it is known whether another link begins with them.
const HELD: usize = 256;

/// Pages that came lately, of a source that may send them once more.
#[derive(Default)]
pub(crate) struct Recent {
    order: VecDeque<(Instant, [u8; 32])>,
    known: HashSet<[u8; 32]>,
    /// Setup pages of the present link.
    setup: HashSet<[u8; 32]>,
    data_seen: bool,
    /// Number of the last page of each of its logical streams.
    last: HashMap<u32, u32>,
    /// It came back, and nothing new was seen since; then whether something of before was, and the setup pages that came again.
    back: bool,
    same: bool,
    held: Vec<(PageHeader, Bytes)>,
}

impl Recent {
    /// The source is back.
    pub(crate) fn is_back(&mut self) {
        (self.back, self.same) = (true, false);
        self.held.clear();
    }

    /// What is new with the next page: nothing, it, or what was held back and it. Icecast numbers a stream's pages anew for each
    /// source, under a serial number that may be that of the one before, with the same setup: only its page numbers, which go back, tell
    /// such a stream from one that goes on.
    pub(crate) fn page(
        &mut self,
        now: Instant,
        header: PageHeader,
        bytes: Bytes,
    ) -> impl Iterator<Item = (PageHeader, Bytes)> {
        let too_old = |o: &VecDeque<(Instant, _)>| {
            o.len() > RECENT_PAGES || o.front().is_some_and(|(at, _)| now.duration_since(*at) > RECENT)
        };
        while too_old(&self.order)
            && let Some((_, old)) = self.order.pop_front()
        {
            self.known.remove(&old);
        }
        let hash = *blake3::hash(&bytes).as_bytes();
        let mut held = Vec::new();
        if self.back && self.setup.contains(&hash) && self.held.len() < HELD {
            self.held.push((header, bytes));
            return held.into_iter().chain(None);
        }
        if self.back && self.known.contains(&hash) {
            self.same = true;
            return held.into_iter().chain(None);
        }
        if std::mem::take(&mut self.back) {
            held = std::mem::take(&mut self.held);
            let is_later = |last: &u32| header.sequence.wrapping_sub(*last).cast_signed() > 0;
            let goes_on = !header.bos && (self.same || self.last.get(&header.serial).is_none_or(is_later));
            if goes_on {
                held.clear();
            }
            held.iter().for_each(|(header, bytes)| self.note(now, header, *blake3::hash(bytes).as_bytes()));
        }
        self.note(now, &header, hash);
        held.into_iter().chain(Some((header, bytes)))
    }

    fn note(&mut self, now: Instant, header: &PageHeader, hash: [u8; 32]) {
        if header.bos && std::mem::take(&mut self.data_seen) {
            self.setup.clear();
            self.last.clear();
        }
        self.last.insert(header.serial, header.sequence);
        // Setup is what has no position yet: the first pages of a link.
        if header.bos || (!self.data_seen && header.granule.is_none_or(|g| g == 0)) {
            self.setup.insert(hash);
        } else {
            self.data_seen = true;
        }
        if self.known.insert(hash) {
            self.order.push_back((now, hash));
        }
    }
}

#[cfg(test)]
mod tests {
    use iceshare::ogg::page::seal;

    use super::*;

    /// A page with a body of four bytes.
    fn page(serial: u32, sequence: u32, granule: i64, body: u32) -> Bytes {
        let mut page = b"OggS\0".to_vec();
        page.push(if sequence == 0 { 2 } else { 0 });
        page.extend_from_slice(&granule.to_le_bytes());
        page.extend_from_slice(&serial.to_le_bytes());
        page.extend_from_slice(&sequence.to_le_bytes());
        page.extend_from_slice(&[0, 0, 0, 0, 1, 4]);
        page.extend_from_slice(&body.to_le_bytes());
        seal(&mut page);
        page.into()
    }

    fn run(recent: &mut Recent, pages: &[Bytes]) -> Vec<Bytes> {
        let header = |p: &Bytes| PageHeader::parse(p).expect("a page");
        pages
            .iter()
            .flat_map(|p| {
                recent.page(Instant::now(), header(p), p.clone()).map(|(_, p)| p).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Setup, and pages of sound from `first` on.
    fn stream(tags: u32, first: u32, sound: u32) -> Vec<Bytes> {
        let setup = [page(7, 0, 0, 0), page(7, 1, 0, tags)];
        let data = (first..first + 3).map(|n| page(7, n, i64::from(n) * 960, sound + n));
        setup.into_iter().chain(data).collect()
    }

    #[test]
    fn what_is_sent_once_more_is_left_out() {
        let mut recent = Recent::default();
        assert_eq!(run(&mut recent, &stream(1, 40, 0)), stream(1, 40, 0));
        recent.is_back();
        assert_eq!(run(&mut recent, &stream(1, 41, 0)), stream(1, 41, 0)[4..], "two of three are known");
        // Some were missed.
        recent.is_back();
        assert_eq!(run(&mut recent, &stream(1, 90, 0)), stream(1, 90, 0)[2..]);
        // It breaks off before anything new came.
        recent.is_back();
        assert!(run(&mut recent, &stream(1, 90, 0)[..3]).is_empty());
        recent.is_back();
        assert_eq!(run(&mut recent, &stream(1, 91, 0)), stream(1, 91, 0)[4..]);
    }

    #[test]
    fn another_stream_under_the_same_serial_number_is_another_link() {
        let mut recent = Recent::default();
        run(&mut recent, &stream(1, 40, 0));
        // Another encoder's, with the same setup: Icecast began anew.
        recent.is_back();
        assert_eq!(run(&mut recent, &stream(1, 2, 5000)), stream(1, 2, 5000));
        // With other tags: so has its first page, which is the same.
        recent.is_back();
        assert_eq!(run(&mut recent, &stream(2, 2, 9000)), stream(2, 2, 9000));
        recent.is_back();
        assert_eq!(run(&mut recent, &stream(2, 3, 9000)), stream(2, 3, 9000)[4..], "and then it goes on");
    }
}
