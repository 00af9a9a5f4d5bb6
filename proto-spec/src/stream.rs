//! Pages over a reliable stream: requests, answers and pieces (`proto-spec/spec/stream.md`). Payload protocol `quic`
//! and libp2p's stream protocol are made of these.

use minicbor::decode::Error;
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::limits;
use crate::pages::{PageNo, PageSet};
use crate::path::{MediaId, MediaPath};
use crate::ticket::Ticket;

/// ALPN identifier over QUIC.
pub const ALPN: &[u8] = b"iceshare-pages/1";
/// Name of libp2p's stream protocol.
pub const PROTOCOL: &str = "/iceshare/pages/1";

/// Some bytes of one page: what is asked for again when a fragment was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Which page.
    pub page: PageNo,
    /// Offset of the first byte in the page.
    pub offset: u32,
    /// How many bytes; never 0. The span ends within the page.
    pub len: u32,
}

/// A part of a media. CBOR: a map with one key, which tells the unit: 0 pages, 1 bytes, 2 time, 3 slices, 4 spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Pages, one after the other. Needs [`Abilities::PAGES`](crate::Abilities::PAGES).
    Pages(PageSet),
    /// Bytes `first ..= last` of the physical bitstream, `last` open if none. Needs
    /// [`Abilities::BYTES`](crate::Abilities::BYTES).
    Bytes {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte, inclusive.
        last: Option<u64>,
    },
    /// Pages whose content starts in `from .. to` microseconds of media time, and before them the page that still sounds
    /// at `from`, with those that start when it does. Needs
    /// [`Abilities::TIME`](crate::Abilities::TIME).
    Time {
        /// Start, inclusive.
        from: u64,
        /// End, exclusive; open if none.
        to: Option<u64>,
    },
    /// Slices `first ..= last` with their proofs, as a CBOR sequence (RFC 8742) of [`ProvenSlice`](crate::ProvenSlice);
    /// slices that the host lacks are left out. Needs [`Abilities::PROOFS`](crate::Abilities::PROOFS).
    Proofs {
        /// First slice.
        first: u64,
        /// Last slice, inclusive.
        last: u64,
    },
    /// Bytes of pages, at most [`limits::SPANS`] spans, in order and without overlap: what is missing of pages of which
    /// fragments came before, from this host or another. Needs [`Abilities::SPANS`](crate::Abilities::SPANS).
    Spans(Vec<Span>),
}

impl<C> Encode<C> for What {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.map(1)?;
        match self {
            What::Pages(set) => e.u8(0)?.encode_with(set, ctx)?,
            What::Bytes { first, last } => e.u8(1)?.array(2)?.u64(*first)?.encode_with(last, ctx)?,
            What::Time { from, to } => e.u8(2)?.array(2)?.u64(*from)?.encode_with(to, ctx)?,
            What::Proofs { first, last } => e.u8(3)?.array(2)?.u64(*first)?.u64(*last)?,
            What::Spans(spans) => {
                e.u8(4)?.array(3 * spans.len() as u64)?;
                for s in spans {
                    e.u64(s.page)?.u32(s.offset)?.u32(s.len)?;
                }
                e
            }
        };
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for What {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, Error> {
        if d.map()? != Some(1) {
            return Err(crate::refuse("a part is a map of one entry"));
        }
        let unit = d.u64()?;
        if unit == 0 {
            return d.decode_with(ctx).map(What::Pages);
        }
        if unit == 4 {
            return spans(d).map(What::Spans);
        }
        if unit > 4 {
            return Err(crate::refuse("an unknown unit"));
        }
        if d.array()? != Some(2) {
            return Err(crate::refuse("a range is an array of 2"));
        }
        let (first, last): (u64, Option<u64>) = (d.u64()?, d.decode_with(ctx)?);
        match (unit, last) {
            (1, last) => Ok(What::Bytes { first, last }),
            (2, to) => Ok(What::Time { from: first, to }),
            (_, Some(last)) => Ok(What::Proofs { first, last }),
            (_, None) => Err(crate::refuse("slices without an end")),
        }
    }
}

fn spans(d: &mut Decoder<'_>) -> Result<Vec<Span>, Error> {
    let most = 3 * limits::SPANS as u64;
    let n = d.array()?.filter(|n| n.is_multiple_of(3) && (3..=most).contains(n));
    let n = n.ok_or_else(|| crate::refuse("spans are 1 to 128 times three numbers"))?;
    (0..n / 3).map(|_| Ok(Span { page: d.u64()?, offset: d.u32()?, len: d.u32()? })).collect()
}

impl Span {
    /// Whether it lies in a page that there can be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let end = u64::from(self.offset) + u64::from(self.len);
        self.page < limits::PAGES && self.len > 0 && end <= u64::from(*limits::PAGE_BYTES.end())
    }

    /// Whether `next` lies behind it.
    #[must_use]
    pub fn is_before(&self, next: &Span) -> bool {
        self.page < next.page || (self.page == next.page && self.offset + self.len <= next.offset)
    }
}

impl What {
    fn check(&self) -> Result<(), Error> {
        let backwards = match self {
            What::Pages(_) => false,
            What::Bytes { first, last } => last.is_some_and(|last| last < *first),
            What::Time { from, to } => to.is_some_and(|to| to <= *from),
            What::Proofs { first, last } => last < first,
            What::Spans(spans) => {
                !spans.iter().all(Span::is_sound) || !spans.is_sorted_by(|a, b| a.is_before(b))
            }
        };
        if backwards {
            Err(crate::refuse("a range ends before it begins, or spans are not in order"))
        } else {
            Ok(())
        }
    }
}

/// What a receiver asks for: the body of a request frame.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PagesRequest {
    /// The media's path.
    #[n(1)]
    pub path: MediaPath,
    /// The media.
    #[n(2)]
    pub media: MediaId,
    /// Version of its manifest.
    #[n(3)]
    pub version: u64,
    /// Which part.
    #[n(4)]
    pub what: What,
    /// What admits the receiver.
    #[n(5)]
    pub ticket: Option<Ticket>,
}

impl PagesRequest {
    /// Decodes and checks the body of a frame.
    ///
    /// # Errors
    /// If it is not a request of this version.
    pub fn from_body(body: &[u8]) -> Result<PagesRequest, Error> {
        let request: PagesRequest = crate::frame::decode(body)?;
        request.what.check()?;
        if request.ticket.as_ref().is_some_and(|t| t.body.len() > limits::TICKET) {
            return Err(crate::refuse("ticket too long"));
        }
        Ok(request)
    }
}

/// What a host says first: the body of an answer frame. CBOR: `[0, accepted]` or `[1, ending]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PagesAnswer {
    /// Pieces follow.
    Accepted(Accepted),
    /// Nothing follows.
    Refused(Ending),
}

impl<C> Encode<C> for PagesAnswer {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self {
            PagesAnswer::Accepted(accepted) => e.array(2)?.u8(0)?.encode_with(accepted, ctx)?.ok(),
            PagesAnswer::Refused(ending) => e.array(2)?.u8(1)?.encode_with(ending, ctx)?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for PagesAnswer {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, Error> {
        match (d.array()?, d.u64()?) {
            (Some(2), 0) => d.decode_with(ctx).map(PagesAnswer::Accepted),
            (Some(2), 1) => d.decode_with(ctx).map(PagesAnswer::Refused),
            _ => Err(crate::refuse("an answer is an array of 2, and 0 or 1 begins it")),
        }
    }
}

/// What is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Accepted {
    /// What was asked for, or a part of it that begins and ends within, with its end.
    #[n(1)]
    pub what: What,
    /// How much the media has: pages, bytes, microseconds or slices, as `what` counts.
    #[n(2)]
    pub total: u64,
}

/// How an answer ends.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ending {
    /// Well, or why not.
    #[n(1)]
    pub code: EndCode,
    /// For people.
    #[n(2)]
    pub text: String,
    /// Of [`EndCode::BEYOND`]: how much the media has. Of [`EndCode::MISSING`]: the first page that was left out.
    #[n(3)]
    pub number: Option<u64>,
}

/// Why an answer ends. Unknown codes are as [`EndCode::FAILED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct EndCode(#[n(0)] pub u16);

impl EndCode {
    /// All that was accepted came.
    pub const COMPLETE: EndCode = EndCode(0);
    /// No such media, or not any more.
    pub const NO_MEDIA: EndCode = EndCode(1);
    /// Nothing of the media lies in that range.
    pub const BEYOND: EndCode = EndCode(2);
    /// Not held (yet).
    pub const MISSING: EndCode = EndCode(3);
    /// Not admitted.
    pub const DENIED: EndCode = EndCode(4);
    /// Busy, or the ticket is in use.
    pub const BUSY: EndCode = EndCode(5);
    /// The host failed.
    pub const FAILED: EndCode = EndCode(6);
    /// The request is malformed, or asks for what the host does not know.
    pub const BAD_REQUEST: EndCode = EndCode(7);
}

impl Ending {
    /// An ending with a text for people, which is cut to the limit.
    #[must_use]
    pub fn new(code: EndCode, text: &str) -> Ending {
        Ending { code, text: text[..text.floor_char_boundary(limits::TEXT)].to_owned(), number: None }
    }

    fn check(&self) -> Result<(), Error> {
        if self.text.len() > limits::TEXT { Err(crate::refuse("text too long")) } else { Ok(()) }
    }
}

impl PagesAnswer {
    /// Decodes and checks the body of a frame.
    ///
    /// # Errors
    /// If it is not an answer of this version.
    pub fn from_body(body: &[u8]) -> Result<PagesAnswer, Error> {
        let answer: PagesAnswer = crate::frame::decode(body)?;
        match &answer {
            PagesAnswer::Accepted(accepted) => accepted.what.check()?,
            PagesAnswer::Refused(ending) => ending.check()?,
        }
        Ok(answer)
    }
}

/// Looks for a frame of this protocol at the beginning of `bytes`, as [`crate::frame::split`] does.
///
/// # Errors
/// If it is longer than [`limits::STREAM_FRAME`]; then the stream can only be ended.
pub fn split(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, crate::frame::FrameError> {
    let len = bytes.first_chunk().map_or(0, |head| u32::from_be_bytes(*head) as usize);
    if len > limits::STREAM_FRAME {
        return Err(crate::frame::FrameError::TooLong(len));
    }
    crate::frame::split(bytes)
}

/// What comes after an accepting answer, as a [`PieceReader`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of the input continue the ones before.
    Bytes(usize),
    /// The next byte begins this page.
    Page(PageNo),
    /// Bytes are missing here.
    Gap,
    /// The end.
    Ending(Ending),
}

impl Piece {
    /// The head of a byte string of `len` bytes.
    #[must_use]
    pub fn bytes_head(len: u32) -> Vec<u8> {
        let mut e = Encoder::new(Vec::with_capacity(5));
        // Writing to a Vec cannot fail.
        let _ = e.bytes_len(u64::from(len));
        e.into_writer()
    }

    /// A page mark.
    #[must_use]
    pub fn page_mark(page: PageNo) -> Vec<u8> {
        crate::frame::encode(&page)
    }
}

/// A gap.
pub const GAP: u8 = 0xf6;

/// Reads pieces from a stream that is cut anywhere. Holds no more than the head of one of them.
#[derive(Debug, Default)]
pub struct PieceReader {
    /// Bytes that are left of a byte string.
    left: usize,
    /// The beginning of a piece that goes on.
    begun: Vec<u8>,
    ended: bool,
}

/// The largest piece that is not a byte string: an ending.
const LARGEST: usize = limits::STREAM_FRAME;

impl PieceReader {
    /// The next piece at the beginning of `input`, and how many bytes of it were taken. Without a piece all were.
    ///
    /// # Errors
    /// If that is no piece; then the stream can only be ended.
    pub fn read(&mut self, input: &[u8]) -> Result<(Option<Piece>, usize), Error> {
        if input.is_empty() {
            return Ok((None, 0));
        }
        if self.ended {
            return Err(crate::refuse("something follows the ending"));
        }
        if self.left > 0 {
            let n = self.left.min(input.len());
            self.left -= n;
            return Ok((Some(Piece::Bytes(n)), n));
        }
        let before = self.begun.len();
        let found = if before == 0 {
            head(input)?
        } else {
            let more = input.len().min(LARGEST - before);
            self.begun.extend_from_slice(&input[..more]);
            head(&self.begun)?
        };
        let Some((head, len)) = found else {
            if before == 0 {
                self.begun.extend_from_slice(&input[..input.len().min(LARGEST)]);
            }
            if before + input.len() >= LARGEST {
                return Err(crate::refuse("an ending is too long"));
            }
            return Ok((None, input.len()));
        };
        self.begun.clear();
        let taken = len - before;
        match head {
            Head::Bytes(len) => {
                self.left = len;
                let (piece, n) = self.read(&input[taken..])?;
                Ok((piece, taken + n))
            }
            Head::Piece(piece) => {
                self.ended = matches!(piece, Piece::Ending(_));
                Ok((Some(piece), taken))
            }
        }
    }

    /// Whether the ending came: nothing may follow.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }
}

enum Head {
    Bytes(usize),
    Piece(Piece),
}

/// The piece, or the head of the byte string, at the beginning of `bytes`, and its length; none if that is cut off.
fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Error> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let mut d = Decoder::new(bytes);
    let head = match first >> 5 {
        0 => d.u64().and_then(|page| match page {
            page if page < limits::PAGES => Ok(Head::Piece(Piece::Page(page))),
            _ => Err(crate::refuse("a page beyond 2^40")),
        }),
        2 => bytes_len(bytes).map(|(len, at)| {
            d.set_position(at);
            Head::Bytes(len)
        }),
        5 => d.decode::<Ending>().and_then(|ending| {
            ending.check()?;
            Ok(Head::Piece(Piece::Ending(ending)))
        }),
        7 if *first == GAP => d.null().map(|()| Head::Piece(Piece::Gap)),
        _ => Err(crate::refuse("no piece begins like this")),
    };
    match head {
        Ok(head) => Ok(Some((head, d.position()))),
        Err(e) if e.is_end_of_input() => Ok(None),
        Err(e) => Err(e),
    }
}

/// The length that the head of a byte string tells, and the head's own.
fn bytes_len(bytes: &[u8]) -> Result<(usize, usize), Error> {
    // The same head as an unsigned integer's, but for the major type.
    let mut as_uint = [0; 9];
    let n = bytes.len().min(as_uint.len());
    as_uint[..n].copy_from_slice(&bytes[..n]);
    as_uint[0] &= 0x1f;
    let mut d = Decoder::new(&as_uint[..n]);
    let len = usize::try_from(d.u64()?).unwrap_or(usize::MAX);
    if len == 0 || len > limits::FRAME {
        return Err(crate::refuse("a byte string of 0 bytes, or of more than are allowed"));
    }
    Ok((len, d.position()))
}
