//! What must come, compared with what comes.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use iceshare::icet::{PageNo, PageSet, frame};
use iceshare::protocol::{Piece, Span, What};

use crate::Failure;
use crate::failure::ensure;
use crate::media::Media;

/// What a request must bring.
#[derive(Debug, Clone)]
pub struct Expected {
    /// What is asked for.
    pub what: What,
    /// All bytes of the answer.
    pub bytes: Bytes,
    /// Where in them each page begins.
    pub marks: Vec<(PageNo, u64)>,
}

impl Expected {
    /// Of a media that its host holds as a whole. Time has no one right answer, and a check of its own: of it nothing is
    /// expected.
    #[must_use]
    pub fn of(media: &Media, what: What) -> Expected {
        let (bytes, marks) = match &what {
            What::Pages(set) => media.set(set),
            What::Bytes { first, last } => {
                let last = last.unwrap_or(u64::MAX).min(media.len().saturating_sub(1));
                let bytes = media.part(*first, last);
                let pages = media.page_at(*first)..=media.page_at(last);
                let marks = pages.map(|p| (p, media.offset(p))).filter(|(_, o)| *o >= *first);
                (bytes, marks.map(|(p, o)| (p, o - first)).collect())
            }
            What::Proofs { first, last } => {
                let known = (*first..=*last).filter_map(|i| media.store.proven_slice(i));
                (known.flat_map(|s| frame::encode(&s)).collect::<Vec<u8>>().into(), Vec::new())
            }
            What::Spans(spans) => {
                let one = |s: &Span| {
                    let from = media.offset(s.page) + u64::from(s.offset);
                    media.part(from, from + u64::from(s.len) - 1)
                };
                (spans.iter().map(one).collect::<Vec<_>>().concat().into(), Vec::new())
            }
            What::Time { .. } => (Bytes::new(), Vec::new()),
        };
        Expected { what, bytes, marks }
    }

    /// Where in the answer so many bytes of a page stand.
    fn locate(&self, page: PageNo, offset: u32, len: u64) -> Option<u64> {
        let offset = u64::from(offset);
        if let What::Spans(spans) = &self.what {
            let mut at = 0;
            for s in spans {
                let from = u64::from(s.offset);
                if s.page == page && from <= offset && offset + len <= from + u64::from(s.len) {
                    return Some(at + offset - from);
                }
                at += u64::from(s.len);
            }
            return None;
        }
        let at = self.marks.iter().position(|(p, _)| *p == page)?;
        let end = self.marks.get(at + 1).map_or(self.bytes.len() as u64, |(_, o)| *o);
        let begin = self.marks.get(at).map(|(_, o)| o + offset)?;
        (begin + len <= end).then_some(begin)
    }

    /// Whether these parts of the answer are all of it.
    #[must_use]
    pub fn is_all(&self, covered: &[Range<u64>]) -> bool {
        missing(self.bytes.len() as u64, covered).is_empty()
    }
}

/// Bytes in a row.
#[derive(Debug)]
enum Run {
    /// From this place in the answer on, so many so far.
    At(u64, u64),
    /// From anywhere: what came since the gap.
    Somewhere(BytesMut),
}

/// Compares pieces with what is expected: each run of bytes must stand in the answer as it is, the runs in order
/// (fragments in any),
/// and where bytes are missing there must be a gap, or the number of the page that comes next. (Where a run without a number could stand in several places the first
/// is taken: if any order fits, this one does.)
#[derive(Debug)]
pub struct Matcher<'a> {
    expected: &'a Expected,
    ordered: bool,
    run: Run,
    /// Where the next run may begin.
    from: u64,
    covered: Vec<Range<u64>>,
    bytes: u64,
    /// Whether a page number passed over others.
    jumped: bool,
}

impl<'a> Matcher<'a> {
    /// `ordered`: nothing may be missing.
    #[must_use]
    pub fn new(expected: &'a Expected, ordered: bool) -> Matcher<'a> {
        Matcher {
            expected,
            ordered,
            run: Run::At(0, 0),
            from: 0,
            covered: Vec::new(),
            bytes: 0,
            jumped: false,
        }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// If it cannot be part of the answer.
    pub fn push(&mut self, piece: &Piece) -> Result<(), Failure> {
        let all = &self.expected.bytes;
        match piece {
            Piece::Bytes(b) => {
                self.bytes += b.len() as u64;
                ensure!(
                    self.bytes <= all.len() as u64,
                    "{} bytes came, {} were asked for",
                    self.bytes,
                    all.len()
                );
                match &mut self.run {
                    Run::At(start, len) => {
                        let at = usize::try_from(*start + *len).unwrap_or(usize::MAX);
                        let same = all.get(at..).is_some_and(|rest| rest.starts_with(b));
                        ensure!(same, "the {} bytes from {at} on are not those of the range", b.len());
                        *len += b.len() as u64;
                    }
                    Run::Somewhere(held) => held.extend_from_slice(b),
                }
            }
            Piece::Gap => {
                ensure!(
                    !self.ordered,
                    "a gap, though it declares that it delivers in order and without gaps"
                );
                self.close()?;
                self.run = Run::Somewhere(BytesMut::new());
            }
            Piece::Fragment { page, offset, bytes } => {
                // Of spans, fragments are all that there is.
                ensure!(
                    !self.ordered || matches!(self.expected.what, What::Spans(_)),
                    "a fragment, though it declares that it delivers in order and without gaps"
                );
                self.bytes += bytes.len() as u64;
                let len = bytes.len() as u64;
                let Some(at) = self.expected.locate(*page, *offset, len) else {
                    let what =
                        format!("{len} bytes from {offset} on of page {page}, which were not asked for");
                    return Err(Failure::new(what));
                };
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                let same = all.get(from..).is_some_and(|rest| rest.starts_with(bytes));
                ensure!(same, "the {len} bytes from {offset} on of page {page} are not those of the page");
                self.covered.push(at..at + len);
            }
            Piece::Page(page) => {
                let mark = self.expected.marks.iter().find(|(p, _)| p == page);
                let Some((_, offset)) = mark else {
                    return Err(Failure::new(format!("it announces page {page}, which was not asked for")));
                };
                self.close()?;
                ensure!(
                    *offset >= self.from,
                    "it announces page {page}, which begins at byte {offset}, after byte {}",
                    self.from
                );
                self.jumped |= *offset > self.from;
                self.run = Run::At(*offset, 0);
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Failure> {
        let (start, len) = match &self.run {
            Run::At(start, len) => (*start, *len),
            Run::Somewhere(held) => {
                let from = usize::try_from(self.from).unwrap_or(usize::MAX);
                let rest = self.expected.bytes.get(from..).unwrap_or_default();
                let Some(found) = memchr::memmem::find(rest, held) else {
                    return Err(Failure::new(format!(
                        "{} bytes after a gap stand nowhere in the range behind byte {from}",
                        held.len()
                    )));
                };
                (self.from + found as u64, held.len() as u64)
            }
        };
        if len > 0 {
            self.from = start + len;
            match self.covered.last_mut() {
                Some(before) if before.end == start => before.end = self.from,
                _ => self.covered.push(start..self.from),
            }
        }
        Ok(())
    }

    /// Checks the end: who delivers without gaps may pass over pages that the host lacks only where it ends with an error.
    ///
    /// # Errors
    /// If it ended well all the same.
    pub fn end(&self, well: bool) -> Result<(), Failure> {
        ensure!(
            !(well && self.jumped && self.ordered),
            "pages were passed over, and it ended well, though it declares that it delivers without gaps"
        );
        Ok(())
    }

    /// How many bytes came.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends it: the parts of the answer that came.
    ///
    /// # Errors
    /// If what came last can be no part of it.
    pub fn finish(mut self) -> Result<Vec<Range<u64>>, Failure> {
        self.close()?;
        Ok(self.covered)
    }
}

/// The parts of `0 .. len` that are in none of `covered`.
pub(crate) fn missing(len: u64, covered: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut covered = covered.to_vec();
    covered.sort_unstable_by_key(|r| r.start);
    let (mut out, mut at) = (Vec::new(), 0);
    for r in covered {
        if r.start > at {
            out.push(at..r.start);
        }
        at = at.max(r.end);
    }
    if at < len {
        out.push(at..len);
    }
    out
}

/// What to ask for next, where the part `gap` of the answer is missing. `bytes`: it may be asked for by bytes, too; the media's
/// byte at which the answer begins is known then.
pub(crate) fn rest(expected: &Expected, gap: &Range<u64>, base: Option<u64>) -> What {
    if let Some(base) = base {
        return What::Bytes { first: base + gap.start, last: Some(base + gap.end - 1) };
    }
    let page = expected.marks.iter().rev().find(|(_, o)| *o <= gap.start).map(|(p, _)| *p);
    match &expected.what {
        What::Pages(set) => What::Pages(PageSet { first: page.unwrap_or(set.first), ..*set }),
        What::Bytes { first, .. } => {
            What::Bytes { first: first + gap.start, last: Some(first + gap.end - 1) }
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages 7 to 9, of 4 bytes each.
    fn expected() -> Expected {
        let what = What::Pages(PageSet::range(7, 9));
        Expected { what, bytes: Bytes::from_static(b"aaaabbbbaacc"), marks: vec![(7, 0), (8, 4), (9, 8)] }
    }

    fn bytes(b: &'static [u8]) -> Piece {
        Piece::Bytes(Bytes::from_static(b))
    }

    fn came(ordered: bool, pieces: &[Piece]) -> Result<Vec<Range<u64>>, String> {
        let expected = expected();
        let mut matcher = Matcher::new(&expected, ordered);
        for piece in pieces {
            matcher.push(piece).map_err(|e| e.to_string())?;
        }
        matcher.end(true).map_err(|e| e.to_string())?;
        matcher.finish().map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_right_is_taken() {
        let only = |run| std::iter::once(run).collect::<Vec<_>>();
        let all = only(0..12);
        assert_eq!(came(true, &[bytes(b"aaaa"), bytes(b"bbb"), bytes(b"baacc")]).as_ref(), Ok(&all));
        assert_eq!(
            came(true, &[Piece::Page(7), bytes(b"aaaa"), Piece::Page(8), bytes(b"bbbbaacc")]),
            Ok(all)
        );
        assert_eq!(came(true, &[bytes(b"aaaab")]), Ok(only(0..5)));
        assert_eq!(came(true, &[]), Ok(vec![]));
        assert_eq!(
            came(false, &[Piece::Gap, bytes(b"bb"), Piece::Gap, bytes(b"cc")]),
            Ok(vec![4..6, 10..12])
        );
        assert_eq!(came(false, &[bytes(b"a"), Piece::Page(9), bytes(b"aa")]), Ok(vec![0..1, 8..10]));
        // Where it could stand in two places, the first; and then what follows has to be behind it.
        assert_eq!(came(false, &[Piece::Gap, bytes(b"aa"), Piece::Gap, bytes(b"aa")]), Ok(only(0..4)));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (ordered, pieces, why) in [
            (true, vec![bytes(b"aaab")], "not those of the range"),
            (true, vec![bytes(b"aaaabbbbaaccd")], "13 bytes came, 12 were asked for"),
            (true, vec![Piece::Gap], "a gap, though"),
            (true, vec![bytes(b"aaaa"), Piece::Page(9), bytes(b"aacc")], "passed over"),
            (false, vec![Piece::Page(6)], "not asked for"),
            (false, vec![bytes(b"aaaabb"), Piece::Page(8)], "after byte 6"),
            (false, vec![Piece::Gap, bytes(b"cc"), Piece::Gap, bytes(b"bb")], "stand nowhere"),
            (false, vec![Piece::Gap, bytes(b"bbaa"), Piece::Gap, bytes(b"aa")], "stand nowhere"),
        ] {
            let end = came(ordered, &pieces);
            assert!(end.as_ref().is_err_and(|e| e.contains(why)), "{pieces:?}: {end:?}");
        }
    }

    #[test]
    fn what_is_missing_lies_between() {
        assert_eq!(missing(10, &[]), vec![0..10]);
        assert_eq!(missing(10, &[4..6, 0..2, 1..3, 9..10]), vec![3..4, 6..9]);
        assert!(missing(10, &[0..4, 4..10]).is_empty() && missing(0, &[]).is_empty());
    }
}
