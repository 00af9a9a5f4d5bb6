//! What a receiver makes of an answer: checks against what was asked for, no IO.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use icet::stream::{Accepted, EndCode, Ending, Piece as Said, PieceReader, Span, What};
use icet::{PageNo, PageSet, limits};

use super::kind_of;
use crate::protocol::{ErrorKind, Piece, TransportError};

/// Bytes that a slice with its proof can take: the slice, its siblings, and the CBOR around them.
const SLICE: u64 = (limits::SLICE + limits::PROOF * 34 + 16) as u64;

/// The pieces of one accepted request.
#[derive(Debug)]
pub(super) struct Intake {
    reader: PieceReader,
    rest: Bytes,
    accepted: Accepted,
    /// Bytes that may still come.
    left: u64,
    /// The last page mark.
    mark: Option<PageNo>,
    /// What was asked for and is not sent.
    short: Option<&'static str>,
    /// Of spans: those that the next bytes are of, and bytes that came and were not handed on.
    spans: VecDeque<Span>,
    pending: Bytes,
}

/// What it says next.
#[derive(Debug)]
pub(super) enum Next {
    /// A piece.
    Piece(Piece),
    /// It needs more bytes.
    More,
    /// The answer ended well.
    End,
}

pub(super) fn misbehaved(what: impl Into<String>) -> TransportError {
    TransportError::new(ErrorKind::Protocol, what)
}

/// What an ending that is not good means.
pub(super) fn ended(ending: &Ending) -> TransportError {
    // A stranger's text: shown escaped.
    TransportError::new(
        kind_of(ending.code),
        format!("the host ends with code {}: {:?}", ending.code.0, ending.text),
    )
}

impl Intake {
    /// Checks that what is accepted is what was asked for, or a part of it.
    pub(super) fn new(asked: &What, accepted: Accepted) -> Result<Intake, TransportError> {
        let total = accepted.total;
        let wrong = || misbehaved("the host accepts what was not asked for");
        let (within, left, reaches) = match (asked, &accepted.what) {
            (What::Pages(asked), What::Pages(PageSet { first, last: Some(last), stripe })) => (
                *first >= asked.first
                    && first <= last
                    && *last < total
                    && total <= limits::PAGES
                    && asked.last.is_none_or(|l| *last <= l)
                    && *stripe == asked.stripe,
                PageSet { first: *first, last: Some(*last), stripe: *stripe }
                    .count(total)
                    .saturating_mul(u64::from(*limits::PAGE_BYTES.end())),
                Some(*last) == asked.last || last.saturating_add(1) == total,
            ),
            (What::Bytes { first: from, last: to }, What::Bytes { first, last: Some(last) }) => (
                first == from && first <= last && *last < total && to.is_none_or(|to| *last <= to),
                (last - first).saturating_add(1),
                Some(*last) == *to || last.saturating_add(1) == total,
            ),
            (What::Time { from, to }, What::Time { from: first, to: Some(last) }) => {
                (first >= from && *last <= total && to.is_none_or(|to| *last <= to), u64::MAX, {
                    Some(*last) == *to || *last == total
                })
            }
            (What::Proofs { first: from, last: to }, What::Proofs { first, last }) => (
                first >= from && last <= to && *last < total,
                (last - first).saturating_add(1).saturating_mul(SLICE),
                last == to || last.saturating_add(1) == total,
            ),
            (What::Spans(asked), What::Spans(spans)) => (
                !spans.is_empty() && asked.starts_with(spans),
                spans.iter().map(|s| u64::from(s.len)).sum(),
                asked.len() == spans.len(),
            ),
            _ => return Err(wrong()),
        };
        if !within {
            return Err(wrong());
        }
        let short = (!reaches).then_some("the host sends a part of the range only");
        let spans = match &accepted.what {
            What::Spans(spans) => spans.iter().copied().collect(),
            _ => VecDeque::new(),
        };
        let (reader, rest) = (PieceReader::default(), Bytes::new());
        Ok(Intake { reader, rest, accepted, left, mark: None, short, spans, pending: Bytes::new() })
    }

    /// Takes what came. All before must have been read.
    pub(super) fn push(&mut self, bytes: Bytes) {
        debug_assert!(self.rest.is_empty());
        self.rest = bytes;
    }

    fn marked(&self) -> bool {
        matches!(self.accepted.what, What::Pages(_) | What::Time { .. })
    }

    /// The next piece.
    pub(super) fn next(&mut self) -> Result<Next, TransportError> {
        if let Some(fragment) = self.fragment() {
            return Ok(Next::Piece(fragment));
        }
        if self.rest.is_empty() {
            return Ok(Next::More);
        }
        let read = self.reader.read(&self.rest);
        let (piece, taken) = read.map_err(|e| misbehaved("the host sends no piece").because(e))?;
        let piece = match piece {
            None => Next::More,
            Some(Said::Bytes(n)) => {
                if self.marked() && self.mark.is_none() {
                    return Err(misbehaved("the host does not tell which page it begins with"));
                }
                self.left = (self.left.checked_sub(n as u64))
                    .ok_or_else(|| misbehaved("the host sends more than was asked for"))?;
                self.rest.advance(taken - n);
                let bytes = self.rest.split_to(n);
                if !self.spans.is_empty() {
                    self.pending = bytes;
                    return self.next();
                }
                return Ok(Next::Piece(Piece::Bytes(bytes)));
            }
            Some(Said::Page(page)) => {
                let of_set = match &self.accepted.what {
                    What::Pages(set) => set.has(page),
                    What::Time { .. } => true,
                    _ => false,
                };
                if !of_set || self.mark.is_some_and(|m| page <= m) {
                    return Err(misbehaved(format!("the host marks page {page}, which is out of place")));
                }
                self.mark = Some(page);
                Next::Piece(Piece::Page(page))
            }
            Some(Said::Gap) => Next::Piece(Piece::Gap),
            Some(Said::Ending(ending)) => {
                if taken < self.rest.len() {
                    return Err(misbehaved("the host sends something after the ending"));
                }
                self.end(&ending)?;
                Next::End
            }
        };
        self.rest.advance(taken);
        Ok(piece)
    }

    /// Bytes of one span, if some came.
    fn fragment(&mut self) -> Option<Piece> {
        let span = self.spans.front_mut().filter(|_| !self.pending.is_empty())?;
        let (page, offset) = (span.page, span.offset);
        let bytes = self.pending.split_to(self.pending.len().min(span.len as usize));
        let len = u32::try_from(bytes.len()).unwrap_or(span.len);
        (span.offset, span.len) = (offset + len, span.len - len);
        if span.len == 0 {
            self.spans.pop_front();
        }
        Some(Piece::Fragment { page, offset, bytes })
    }

    fn end(&self, ending: &Ending) -> Result<(), TransportError> {
        if ending.code != EndCode::COMPLETE {
            return Err(ended(ending));
        }
        if matches!(self.accepted.what, What::Bytes { .. } | What::Spans(_)) && self.left > 0 {
            let why = format!("{} bytes of the range did not come", self.left);
            return Err(TransportError::new(ErrorKind::Broken, why));
        }
        self.short.map_or(Ok(()), |why| Err(TransportError::new(ErrorKind::NoRange, why)))
    }
}
