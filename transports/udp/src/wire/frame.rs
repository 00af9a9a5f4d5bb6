//! Frames.

use iceshare::icet::stream::EndCode;

use super::{
    ACK_RANGES, BODY, CloseReason, MAX_DATAGRAM, MAX_VARINT, REPAIR_INTERVALS, Reader, WireError, put_varint,
    varint_len,
};

/// Intervals of places, each from its start up to before its end, upwards and not adjoining.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places(pub Vec<(u64, u64)>);

impl Places {
    /// Reads at most `max` of them.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn read(r: &mut Reader<'_>, max: usize) -> Result<Places, WireError> {
        let count = r.length(max, "too many intervals")?;
        let (mut out, mut at) = (Vec::with_capacity(count), 0u64);
        for i in 0..count {
            let (gap, len) = (r.varint()?, r.varint()?);
            if len == 0 || (gap == 0 && i > 0) {
                return Err(WireError::Value("intervals of places adjoin or are empty"));
            }
            let start = at + gap;
            at = start + len;
            if at > MAX_VARINT {
                return Err(WireError::Value("a place beyond all places"));
            }
            out.push((start, at));
        }
        Ok(Places(out))
    }

    /// Appends them.
    pub fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        let mut at = 0;
        for (start, end) in &self.0 {
            put_varint(out, start.saturating_sub(at));
            put_varint(out, end.saturating_sub(*start));
            at = *end;
        }
    }
}

/// Which packets came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Ranges of packet numbers, both ends inclusive, downwards and not adjoining; never empty.
    pub ranges: Vec<(u64, u64)>,
    /// Microseconds from the receipt of the largest to the sending of this.
    pub delay: u64,
}

impl Ack {
    fn read(r: &mut Reader<'_>) -> Result<Ack, WireError> {
        const BELOW: WireError = WireError::Value("an acknowledgement of a packet before the first");
        let (largest, delay) = (r.varint()?, r.varint()?);
        let count = r.length(ACK_RANGES, "too many ranges of packets")?;
        let smallest = largest.checked_sub(r.varint()?).ok_or(BELOW)?;
        let mut ranges = Vec::with_capacity(count + 1);
        ranges.push((smallest, largest));
        let mut at = smallest;
        for _ in 0..count {
            let last = at.checked_sub(r.varint()?).and_then(|n| n.checked_sub(2)).ok_or(BELOW)?;
            at = last.checked_sub(r.varint()?).ok_or(BELOW)?;
            ranges.push((at, last));
        }
        Ok(Ack { ranges, delay })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut ranges = self.ranges.iter();
        let Some((first, largest)) = ranges.next() else { return };
        out.push(2);
        put_varint(out, *largest);
        put_varint(out, self.delay);
        put_varint(out, self.ranges.len() as u64 - 1);
        put_varint(out, largest - first);
        let mut at = *first;
        for (first, last) in ranges {
            put_varint(out, at.saturating_sub(last + 2));
            put_varint(out, last - first);
            at = *first;
        }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Nothing, one byte long.
    Padding,
    /// To be acknowledged.
    Ping,
    /// Which packets came.
    Ack(Ack),
    /// The association is over.
    Close(CloseReason),
    /// A part of a request's body.
    Request {
        /// Which request.
        request: u64,
        /// Where in the body.
        offset: usize,
        /// Length of the body.
        total: usize,
        /// The part.
        bytes: &'a [u8],
    },
    /// Nothing more is wanted.
    Stop {
        /// Of which request.
        request: u64,
    },
    /// How much may be sent.
    Credit {
        /// Of which request.
        request: u64,
        /// Bytes since its beginning.
        limit: u64,
    },
    /// What was lost.
    Repair {
        /// Of which request.
        request: u64,
        /// 1, 2, 3 …
        number: u64,
        /// What.
        places: Places,
    },
    /// The request is served.
    Accept {
        /// Which request.
        request: u64,
        /// From where.
        place: u64,
    },
    /// A repair was sent.
    Repaired {
        /// Of which request.
        request: u64,
        /// Which repair, and all before.
        number: u64,
    },
    /// More credit is needed.
    Blocked {
        /// Which request.
        request: u64,
        /// Bytes that were sent.
        sequence: u64,
    },
    /// All was sent that will be.
    End {
        /// Which request.
        request: u64,
        /// Well, or why not.
        code: EndCode,
        /// Up to where.
        place: u64,
        /// Bytes that were sent.
        sequence: u64,
    },
    /// Nothing more comes, no repairs either.
    Fail {
        /// Of which request.
        request: u64,
        /// Why.
        code: EndCode,
    },
    /// Bytes of media.
    Data(Data<'a>),
}

/// Bytes of media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a> {
    /// Of which request.
    pub request: u64,
    /// Where they begin.
    pub place: u64,
    /// Bytes of new data before; none in a repair.
    pub sequence: Option<u64>,
    /// Whether they end their unit.
    pub last: bool,
    /// The bytes.
    pub bytes: &'a [u8],
}

const LAST: u8 = 1;
const REPAIR: u8 = 2;
const DATA: u8 = 16;

/// Most bytes before those of a DATA frame of up to 16,383 bytes.
#[must_use]
pub fn data_header_len(request: u64, place: u64, sequence: Option<u64>) -> usize {
    1 + varint_len(request) + varint_len(place) + sequence.map_or(0, varint_len) + 2
}

impl Data<'_> {
    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let bit = |on, bit| if on { bit } else { 0 };
        out.push(DATA | bit(self.last, LAST) | bit(self.sequence.is_none(), REPAIR));
        put_varint(out, self.request);
        put_varint(out, self.place);
        if let Some(sequence) = self.sequence {
            put_varint(out, sequence);
        }
        put_varint(out, self.bytes.len() as u64);
        out.extend_from_slice(self.bytes);
    }
}

impl Frame<'_> {
    /// Whether a packet with it is acknowledged.
    #[must_use]
    pub fn is_eliciting(&self) -> bool {
        !matches!(self, Frame::Padding | Frame::Ack(_) | Frame::Close(_))
    }

    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut fields = |kind: u8, fields: &[u64]| {
            out.push(kind);
            fields.iter().for_each(|f| put_varint(out, *f));
        };
        match self {
            Frame::Padding => out.push(0),
            Frame::Ping => out.push(1),
            Frame::Ack(ack) => ack.write(out),
            Frame::Close(reason) => fields(3, &[reason.code()]),
            Frame::Request { request, offset, total, bytes } => {
                fields(4, &[*request, *offset as u64, *total as u64, bytes.len() as u64]);
                out.extend_from_slice(bytes);
            }
            Frame::Stop { request } => fields(5, &[*request]),
            Frame::Credit { request, limit } => fields(6, &[*request, *limit]),
            Frame::Repair { request, number, places } => {
                fields(7, &[*request, *number]);
                places.write(out);
            }
            Frame::Accept { request, place } => fields(8, &[*request, *place]),
            Frame::Repaired { request, number } => fields(9, &[*request, *number]),
            Frame::Blocked { request, sequence } => fields(10, &[*request, *sequence]),
            Frame::End { request, code, place, sequence } => {
                fields(11, &[*request, u64::from(code.0), *place, *sequence]);
            }
            Frame::Fail { request, code } => fields(12, &[*request, u64::from(code.0)]),
            Frame::Data(data) => data.write(out),
        }
    }
}

/// The frames of a packet. Ends after the first error.
#[derive(Debug)]
pub struct Frames<'a>(Reader<'a>);

impl<'a> Frames<'a> {
    /// Of this plaintext.
    #[must_use]
    pub fn new(plaintext: &'a [u8]) -> Frames<'a> {
        Frames(Reader(plaintext))
    }

    fn read(&mut self) -> Result<Frame<'a>, WireError> {
        let r = &mut self.0;
        Ok(match r.u8()? {
            0 => Frame::Padding,
            1 => Frame::Ping,
            2 => Frame::Ack(Ack::read(r)?),
            3 => Frame::Close(CloseReason::from_code(r.varint()?)),
            4 => {
                let request = r.varint()?;
                let offset = r.length(BODY, "a request beyond its length")?;
                let total = r.length(BODY, "a request that is too long")?;
                let len = r.length(total.saturating_sub(offset), "a request beyond its length")?;
                Frame::Request { request, offset, total, bytes: r.bytes(len)? }
            }
            5 => Frame::Stop { request: r.varint()? },
            6 => Frame::Credit { request: r.varint()?, limit: r.varint()? },
            7 => {
                let (request, number) = (r.varint()?, r.varint()?);
                Frame::Repair { request, number, places: Places::read(r, REPAIR_INTERVALS)? }
            }
            8 => Frame::Accept { request: r.varint()?, place: r.varint()? },
            9 => Frame::Repaired { request: r.varint()?, number: r.varint()? },
            10 => Frame::Blocked { request: r.varint()?, sequence: r.varint()? },
            11 => {
                let request = r.varint()?;
                Frame::End { request, code: code(r)?, place: r.varint()?, sequence: r.varint()? }
            }
            12 => Frame::Fail { request: r.varint()?, code: code(r)? },
            kind @ DATA..=19 => {
                let (request, place) = (r.varint()?, r.varint()?);
                let sequence = if kind & REPAIR == 0 { Some(r.varint()?) } else { None };
                let len = r.length(MAX_DATAGRAM, "more bytes than a datagram has")?;
                let bytes = r.bytes(len)?;
                if place.saturating_add(bytes.len() as u64) > MAX_VARINT {
                    return Err(WireError::Value("a place beyond all places"));
                }
                Frame::Data(Data { request, place, sequence, last: kind & LAST != 0, bytes })
            }
            kind => return Err(WireError::UnknownFrame(kind)),
        })
    }
}

fn code(r: &mut Reader<'_>) -> Result<EndCode, WireError> {
    Ok(u16::try_from(r.varint()?).map_or(EndCode::FAILED, EndCode))
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let frame = self.read();
        if frame.is_err() {
            self.0 = Reader(&[]);
        }
        Some(frame)
    }
}
