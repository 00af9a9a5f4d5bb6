//! Pages out of files, and where a file is damaged.

use std::io::{self, Read};
use std::ops::ControlFlow;

use thiserror::Error;

use super::page::{MAX_PAGE_LEN, PageHeader};
use super::walk::{Damage, Step, Walk};

/// The first sound page begins within so many bytes of a file's beginning, or the file is taken for something else than Ogg.
pub const SEARCH_LIMIT: u64 = 1 << 20;
/// Bytes read at once by [`scan_reader`]: few enough to stay in a core's own cache between reading and summing up.
pub const BLOCK_LEN: usize = 1 << 18;

/// A page with the right checksum.
#[derive(Debug, Clone, Copy)]
pub struct ScannedPage<'a> {
    /// Where it begins, in bytes from the beginning of the file.
    pub offset: u64,
    /// Its header.
    pub header: PageHeader,
    /// All of it, header included.
    pub bytes: &'a [u8],
}

/// What a scan found. The extents of pages and damage follow each other without a hole.
#[derive(Debug, Clone, Copy)]
pub enum ScanEvent<'a> {
    /// The next page.
    Page(ScannedPage<'a>),
    /// Something else than a page. [`Damage::NotOgg`] is the last event.
    Damage(Damage),
}

/// What damage does to a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanMode {
    /// The first damage ends it, as an error.
    Strict,
    /// All damage is told, as events; only a file that is not Ogg at all is an error.
    Lenient,
}

/// Sums of a scan that came to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanStats {
    /// Sound pages.
    pub pages: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Those of them that belong to no sound page.
    pub damaged: u64,
}

/// Why a scan did not come to the end.
#[derive(Debug, Error)]
pub enum ScanError {
    /// The file is damaged, or not Ogg.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The file can't be read.
    #[error("cannot read at offset {offset}")]
    Io {
        /// Where, in bytes.
        offset: u64,
        /// What the system says.
        source: io::Error,
    },
}

/// Scans a file fed in blocks: fill [`space`](Self::space), say how much with [`filled`](Self::filled) (or [`finish`](Self::finish) at the end), then call
/// [`next`](Self::next) until `None`. Holds one block and one page, whatever the file's size.
#[derive(Debug)]
pub struct Scanner {
    walk: Walk,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    finished: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new(BLOCK_LEN)
    }
}

impl Scanner {
    /// A scanner that takes about `block` bytes at once.
    #[must_use]
    pub fn new(block: usize) -> Self {
        let buffer = vec![0; block.max(1) + MAX_PAGE_LEN].into();
        Self { walk: Walk::new(Some(SEARCH_LIMIT)), buffer, start: 0, end: 0, finished: false }
    }

    /// Room for the next bytes of the file. Never empty once [`next`](Self::next) has given `None`.
    pub fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }

    /// The first `len` bytes of [`space`](Self::space) have been written (never more than it has).
    pub fn filled(&mut self, len: usize) {
        self.end = self.buffer.len().min(self.end.saturating_add(len));
    }

    /// The file ends here.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The next page or damage; `None` when more bytes are needed, or at the end of a finished file.
    #[expect(clippy::should_implement_trait, reason = "it lends, and `None` is no end")]
    pub fn next(&mut self) -> Option<ScanEvent<'_>> {
        loop {
            let offset = self.walk.offset();
            match self.walk.step(&self.buffer[self.start..self.end], self.finished) {
                Step::Page(header) => {
                    let bytes = &self.buffer[self.start..self.start + header.total_len()];
                    self.start += bytes.len();
                    return Some(ScanEvent::Page(ScannedPage { offset, header, bytes }));
                }
                Step::Damage(damage) => return Some(ScanEvent::Damage(damage)),
                Step::Skip(len) => self.start += len,
                Step::Need(_) | Step::End => return None,
            }
        }
    }

    /// What was found so far.
    #[must_use]
    pub fn stats(&self) -> ScanStats {
        stats(&self.walk)
    }
}

fn stats(walk: &Walk) -> ScanStats {
    ScanStats { pages: walk.pages(), bytes: walk.offset(), damaged: walk.damaged() }
}

/// Hands events on as the mode says.
struct Delivery {
    mode: ScanMode,
    /// Junk before any page: only a page behind it shows that the file is Ogg at all.
    leading: Option<Damage>,
}

impl Delivery {
    fn new(mode: ScanMode) -> Self {
        Self { mode, leading: None }
    }

    fn deliver<B>(
        &mut self,
        event: ScanEvent<'_>,
        each: &mut impl FnMut(ScanEvent<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, Damage> {
        match event {
            ScanEvent::Damage(damage @ Damage::NotOgg { .. }) => Err(damage),
            ScanEvent::Damage(damage @ Damage::Junk { offset: 0, .. }) if self.mode == ScanMode::Strict => {
                self.leading = Some(damage);
                Ok(ControlFlow::Continue(()))
            }
            ScanEvent::Damage(damage) if self.mode == ScanMode::Strict && self.leading.is_none() => {
                Err(damage)
            }
            ScanEvent::Damage(_) if self.mode == ScanMode::Strict => Ok(ControlFlow::Continue(())),
            ScanEvent::Page(_) => match self.leading {
                Some(damage) => Err(damage),
                None => Ok(each(event)),
            },
            ScanEvent::Damage(_) => Ok(each(event)),
        }
    }
}

/// Scans a file from its beginning, in blocks of [`BLOCK_LEN`]. Gives each page (and, if lenient, each damage) to `each`, in order, until that breaks
/// off; its value is then handed on.
///
/// # Errors
/// [`ScanError`]. Pages given before an error were sound all the same.
pub fn scan_reader<B>(
    mut reader: impl Read,
    mode: ScanMode,
    mut each: impl FnMut(ScanEvent<'_>) -> ControlFlow<B>,
) -> Result<ControlFlow<B, ScanStats>, ScanError> {
    let mut scanner = Scanner::default();
    let mut delivery = Delivery::new(mode);
    let mut read = 0;
    while !scanner.finished {
        match reader.read(scanner.space()) {
            Ok(0) => scanner.finish(),
            Ok(len) => {
                scanner.filled(len);
                read += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(ScanError::Io { offset: read, source }),
        }
        while let Some(event) = scanner.next() {
            if let ControlFlow::Break(value) = delivery.deliver(event, &mut each)? {
                return Ok(ControlFlow::Break(value));
            }
        }
    }
    Ok(ControlFlow::Continue(scanner.stats()))
}

/// [`scan_reader`] for a file that is in memory, or mapped into it: nothing is copied.
///
/// # Errors
/// [`Damage`], as [`ScanMode`] says.
pub fn scan_slice<B>(
    file: &[u8],
    mode: ScanMode,
    mut each: impl FnMut(ScanEvent<'_>) -> ControlFlow<B>,
) -> Result<ControlFlow<B, ScanStats>, Damage> {
    let mut walk = Walk::new(Some(SEARCH_LIMIT));
    let mut delivery = Delivery::new(mode);
    let mut window = file;
    loop {
        let offset = walk.offset();
        let event = match walk.step(window, true) {
            Step::Page(header) => {
                let (bytes, rest) = window.split_at(header.total_len());
                window = rest;
                ScanEvent::Page(ScannedPage { offset, header, bytes })
            }
            Step::Damage(damage) => ScanEvent::Damage(damage),
            Step::Skip(len) => {
                window = &window[len..];
                continue;
            }
            Step::Need(_) | Step::End => return Ok(ControlFlow::Continue(stats(&walk))),
        };
        if let ControlFlow::Break(value) = delivery.deliver(event, &mut each)? {
            return Ok(ControlFlow::Break(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::ogg::tests::build::{PageBuilder, any_page};

    type Found = (Vec<(u64, Vec<u8>)>, Vec<Damage>);

    /// Scans with a small block, a slice and a reader that gives a few bytes a time; all must agree.
    fn scan(file: &[u8], block: usize) -> (Found, Result<ScanStats, Damage>) {
        let collect = |found: &mut Found, event: ScanEvent<'_>| match event {
            ScanEvent::Page(page) => found.0.push((page.offset, page.bytes.to_vec())),
            ScanEvent::Damage(damage) => found.1.push(damage),
        };
        let mut by_slice = Found::default();
        let slice_end = scan_slice(file, ScanMode::Lenient, |event| {
            collect(&mut by_slice, event);
            ControlFlow::<Infallible>::Continue(())
        });
        let ControlFlow::Continue(slice_end) = slice_end.map_or_else(
            |damage| ControlFlow::Continue(Err(damage)),
            |ControlFlow::Continue(stats)| ControlFlow::<Infallible, _>::Continue(Ok(stats)),
        );

        let mut scanner = Scanner::new(block);
        let mut by_blocks = Found::default();
        let mut rest = file;
        while !scanner.finished {
            let len = rest.len().min(scanner.space().len()).min(block);
            scanner.space()[..len].copy_from_slice(&rest[..len]);
            rest = &rest[len..];
            if len == 0 {
                scanner.finish()
            } else {
                scanner.filled(len)
            }
            while let Some(event) = scanner.next() {
                collect(&mut by_blocks, event);
            }
        }
        if let Err(damage) = slice_end {
            by_slice.1.push(damage);
        }
        assert_eq!(by_slice, by_blocks);
        assert!(slice_end.is_err() || slice_end == Ok(scanner.stats()));
        (by_slice, slice_end)
    }

    fn page(len: usize) -> Vec<u8> {
        PageBuilder::new(1).packet(&vec![3; len]).build()
    }

    #[test]
    fn damage_has_exact_extents() {
        let mut bad = page(400);
        bad[200] ^= 1;
        let bad_len = bad.len() as u64;
        let (a, b, z) = (page(100), page(1000), page(70));
        let (a_len, b_len) = (a.len() as u64, b.len() as u64);
        let cases: [(Vec<&[u8]>, Vec<Damage>); 8] = [
            (vec![&a, &b], vec![]),
            (vec![b"junk!", &a], vec![Damage::Junk { offset: 0, len: 5 }]),
            (vec![&a, b"junk", &b], vec![Damage::Junk { offset: a_len, len: 4 }]),
            (vec![&a, &bad, &b], vec![Damage::BadCrc { offset: a_len, len: bad_len }]),
            (
                vec![&a, &bad, &bad, b"jk", &b],
                vec![
                    Damage::BadCrc { offset: a_len, len: bad_len },
                    Damage::BadCrc { offset: a_len + bad_len, len: bad_len },
                    Damage::Junk { offset: a_len + 2 * bad_len, len: 2 },
                ],
            ),
            // A page that lost its end, in the middle and at the end of the file; and a bare beginning of one.
            (vec![&a, &b[..500], &z], vec![Damage::BadCrc { offset: a_len, len: 500 }]),
            (vec![&a, &b[..500]], vec![Damage::Truncated { offset: a_len, len: 500, expected: b_len }]),
            (vec![&a, b"Ogg"], vec![Damage::Truncated { offset: a_len, len: 3, expected: 27 }]),
        ];
        for (parts, expected) in cases {
            let file = parts.concat();
            for block in [1, 30, 100_000] {
                let ((_, damage), end) = scan(&file, block);
                assert_eq!(damage, expected);
                assert_eq!(end.unwrap().bytes, file.len() as u64);
            }
            let strict = scan_slice(&file, ScanMode::Strict, |_| ControlFlow::<()>::Continue(()));
            assert_eq!(strict.err(), expected.first().copied());
        }
    }

    #[test]
    fn what_is_not_ogg_is_known_soon() {
        for len in [0, 1, 5000] {
            let file = vec![b'x'; len];
            assert_eq!(scan(&file, 4096).1, Err(Damage::NotOgg { searched: len as u64 }));
        }
        // Text that happens to hold the pattern, or to end in a part of it.
        for file in ["about OggS\0 pages", "LOGO", "seen: Ogg"] {
            let searched = file.len() as u64;
            let strict = scan_slice(file.as_bytes(), ScanMode::Strict, |_| ControlFlow::<()>::Continue(()));
            assert_eq!(strict, Err(Damage::NotOgg { searched }));
        }
        // Endless files are read no further than needed, even if full of false captures.
        for unit in [&b"x"[..], b"OggS\0", &page(0)[..26]] {
            let mut endless = Endless { unit, read: 0 };
            let result = scan_reader(&mut endless, ScanMode::Lenient, |_| ControlFlow::<()>::Continue(()));
            assert!(
                matches!(result, Err(ScanError::Damage(Damage::NotOgg { searched: SEARCH_LIMIT }))),
                "{result:?}"
            );
            assert!(endless.read <= SEARCH_LIMIT + 2 * BLOCK_LEN as u64);
        }
        // A page that begins just within the limit makes it Ogg, one beyond does not, however it is read.
        for (junk, is_ogg) in [(SEARCH_LIMIT - 1, true), (SEARCH_LIMIT, false)] {
            let mut file = vec![b'x'; usize::try_from(junk).unwrap()];
            file.extend(page(10));
            assert_eq!(scan(&file, 100_000).1.is_ok(), is_ogg);
        }
    }

    struct Endless<'a> {
        unit: &'a [u8],
        read: u64,
    }

    impl Read for Endless<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = buffer.len() / self.unit.len() * self.unit.len();
            buffer[..len]
                .chunks_exact_mut(self.unit.len())
                .for_each(|chunk| chunk.copy_from_slice(self.unit));
            self.read += len as u64;
            Ok(len)
        }
    }

    #[test]
    fn a_read_error_tells_where() {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::PermissionDenied.into())
            }
        }
        let first = page(100);
        let result = scan_reader(first.chain(Fails), ScanMode::Strict, |_| ControlFlow::<()>::Continue(()));
        assert!(matches!(result, Err(ScanError::Io { offset: 128, .. })), "{result:?}");
    }

    #[test]
    fn the_caller_can_stop() {
        let file = page(5).repeat(10);
        let mut seen = 0;
        let result = scan_reader(&file[..], ScanMode::Strict, |_| {
            seen += 1;
            if seen == 3 { ControlFlow::Break("enough") } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(result, Ok(ControlFlow::Break("enough"))));
        assert_eq!(seen, 3);
    }

    proptest! {
        #[test]
        fn blocks_change_nothing_and_every_byte_is_told(
            parts in proptest::collection::vec((any_page(), 0..5_u8, any::<prop::sample::Index>()), 0..10),
            block in 1_usize..5000,
        ) {
            let mut file = Vec::new();
            let mut sound = Vec::new();
            for (mut page, mut fate, at) in parts {
                let at = at.index(page.len());
                // A page cut off before an "O" or "g" may be mended by the first bytes of the next.
                if fate == 1 && b"Og".contains(&page[at]) {
                    fate = 4;
                }
                match fate {
                    0 => page[at] ^= 0x80,
                    1 => page.truncate(at),
                    2 => file.extend_from_slice(&page[1..at.max(1)]),
                    _ => {}
                }
                if fate > 1 { sound.push((file.len() as u64, page.clone())) }
                file.extend_from_slice(&page);
            }
            let ((pages, damage), end) = scan(&file, block);
            prop_assert_eq!(&pages, &sound);
            prop_assert_eq!(end.is_err(), sound.is_empty());
            let mut extents: Vec<_> = pages.iter().map(|(offset, page)| (*offset, page.len() as u64)).collect();
            extents.extend(damage.iter().filter_map(|damage| match *damage {
                Damage::Junk { offset, len } | Damage::BadCrc { offset, len } | Damage::Truncated { offset, len, .. } => Some((offset, len)),
                Damage::NotOgg { .. } => None,
            }));
            extents.sort_unstable();
            if end.is_ok() {
                let reached = extents.iter().try_fold(0, |at, &(offset, len)| (at == offset).then_some(offset + len));
                prop_assert_eq!(reached, Some(file.len() as u64));
            }
        }

        #[test]
        fn any_bytes_are_survived(file in proptest::collection::vec(prop_oneof![Just(b'O'), Just(b'g'), Just(b'S'), Just(0), any::<u8>()], 0..2000), block in 1_usize..300) {
            let _ = scan(&file, block);
        }
    }
}
