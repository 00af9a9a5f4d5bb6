//! One logical stream as its pages go by: which of them are setup, and when each ends.

use super::codec::{Clock, Codec, Durations, Format, SetupEnd};
use super::comment::{Comments, Reader};
use super::packet::{Counter, MODES_LEN, Modes};
use super::page::{PacketPart, PageHeader, packet_parts, segment_table};

/// Where a stream stands.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    format: Format,
    phase: Phase,
    /// Setup packets that have ended.
    packets: u32,
    modes: Option<Modes>,
    comments: Option<Comments>,
}

#[derive(Debug, Clone)]
enum Phase {
    Setup(Packet),
    /// Data, but no page with a granule position yet.
    Beginning(Counter),
    Running,
}

/// What is kept of the setup packet that goes on.
#[derive(Debug, Clone, Default)]
struct Packet {
    comments: Option<Reader>,
    tail: Option<Vec<u8>>,
    last: bool,
}

/// What a page is to its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// It has a part of a setup packet.
    pub(super) setup: bool,
    /// Decoding can begin on it.
    pub(super) keyframe: bool,
    /// Samples or frames from the beginning of the stream to the end of the page.
    pub(super) position: Option<i64>,
    /// Given once, with the first `position`: where the stream begins.
    pub(super) first: Option<i64>,
}

/// A stream whose first position is farther than this is taken for one cut out of a longer one, if it can't be told exactly: in microseconds.
const SURELY_CUT: i64 = 10_000_000;

impl Stream {
    /// The stream whose first page is this. Without the BOS flag, nothing can be known of it.
    pub(super) fn new(header: &PageHeader, page: &[u8]) -> Self {
        let format = match packet_parts(page).next() {
            Some(packet) if header.bos => Format::of(packet.data),
            _ => Format::unknown(),
        };
        let phase = if header.bos { Phase::Setup(Packet::default()) } else { Phase::Running };
        Self { format, phase, packets: 0, modes: None, comments: None }
    }

    pub(super) fn format(&self) -> &Format {
        &self.format
    }

    pub(super) fn clock(&self) -> Option<Clock> {
        self.format.clock
    }

    /// A counter of what its packets hold, for the first one behind its setup.
    pub(super) fn counter(&self) -> Counter {
        Counter::new(self.format.durations, self.modes)
    }

    /// The comments, once, when they are complete.
    pub(super) fn take_comments(&mut self) -> Option<Comments> {
        self.comments.take()
    }

    /// Looks at the next page. `data_seen`: the link has had a data page.
    pub(super) fn page(&mut self, header: &PageHeader, page: &[u8], data_seen: bool) -> Seen {
        let mut seen = Seen { setup: header.bos, keyframe: false, position: None, first: None };
        if let Phase::Running = self.phase {
            seen.keyframe = self.keyframe(header, page);
            seen.position = self.position(header);
            return seen;
        }
        if self.format.setup == SetupEnd::FirstData && data_seen && !header.bos {
            self.phase = Phase::Running;
            return seen;
        }
        let mut data = false;
        for part in packet_parts(page) {
            data |= !self.part(part, &mut seen);
        }
        // A page without packets among the setup (Skeleton ends with one) is setup too.
        seen.setup |= header.segments == 0 && matches!(self.phase, Phase::Setup(_));
        if data {
            seen.keyframe = self.keyframe(header, page);
        }
        if let Phase::Beginning(counter) = &self.phase
            && (data || !seen.setup)
            && let (Some(position), Some(clock)) = (self.position(header), self.format.clock)
        {
            seen.position = Some(position);
            seen.first = Some(match counter.total() {
                Some(count) => position.saturating_sub(count).max(0),
                None if clock.micros(position) > SURELY_CUT => position,
                None => 0,
            });
            self.phase = Phase::Running;
        }
        seen
    }

    /// Takes a part of a packet, before the stream is running; false if it is data.
    fn part(&mut self, part: PacketPart<'_>, seen: &mut Seen) -> bool {
        if matches!(self.phase, Phase::Setup(_)) && part.starts && !self.is_setup(part.data) {
            self.begin();
        }
        let packet = match &mut self.phase {
            Phase::Setup(packet) => packet,
            Phase::Beginning(counter) => {
                counter.part(part);
                return false;
            }
            Phase::Running => return false,
        };
        seen.setup = true;
        if part.starts {
            *packet = Packet::begin(&self.format, self.packets, part.data);
        }
        if let Some(comments) = &mut packet.comments {
            comments.push(part.data);
        }
        if let Some(tail) = &mut packet.tail {
            tail.extend_from_slice(&part.data[part.data.len().saturating_sub(MODES_LEN)..]);
            tail.drain(..tail.len().saturating_sub(MODES_LEN));
        }
        if part.ends {
            let packet = std::mem::take(packet);
            self.packets = self.packets.saturating_add(1);
            self.comments = packet.comments.map(Reader::finish).or(self.comments.take());
            self.modes = packet.tail.and_then(|tail| Modes::from_setup(&tail)).or(self.modes);
            let complete = match self.format.setup {
                SetupEnd::Packets(count) => self.packets >= count,
                SetupEnd::FlacLast { at_most } => {
                    packet.last || at_most.is_some_and(|most| self.packets >= most)
                }
                SetupEnd::FirstData => false,
            };
            if complete {
                self.begin();
            }
        }
        true
    }

    fn begin(&mut self) {
        self.phase = match self.format.clock {
            Some(_) => Phase::Beginning(Counter::new(self.format.durations, self.modes)),
            None => Phase::Running,
        };
    }

    /// Whether a packet that begins so is a setup packet. Some streams lack theirs.
    fn is_setup(&self, packet: &[u8]) -> bool {
        match self.format.codec {
            _ if self.packets == 0 => true,
            Codec::Vorbis => packet.first().is_some_and(|kind| kind & 1 == 1),
            Codec::Opus => packet.starts_with(b"OpusTags"),
            Codec::Flac => packet.first() != Some(&0xff),
            Codec::Theora => packet.first().is_some_and(|kind| kind & 0x80 != 0),
            Codec::Speex | Codec::Skeleton | Codec::Unknown => true,
        }
    }

    fn position(&self, header: &PageHeader) -> Option<i64> {
        self.format.clock?.position(header.granule?)
    }

    fn keyframe(&self, header: &PageHeader, page: &[u8]) -> bool {
        match self.format.codec {
            Codec::Skeleton => false,
            // Bit 7 tells headers from frames, bit 6 predicted frames from keyframes; an empty packet repeats the frame before.
            Codec::Theora => packet_parts(page)
                .any(|part| part.starts && part.data.first().is_some_and(|kind| kind & 0xc0 == 0)),
            _ if header.continued => {
                // A packet begins behind the one that goes on.
                let table = segment_table(page);
                table.iter().position(|&lace| lace < 255).is_some_and(|end| end + 1 < table.len())
            }
            _ => header.segments > 0,
        }
    }
}

impl Packet {
    fn begin(format: &Format, number: u32, data: &[u8]) -> Self {
        let first = data.first().copied().unwrap_or(0);
        // Where the comments begin in the packet that has them.
        let prefix = match format.codec {
            Codec::Vorbis if data.starts_with(b"\x03vorbis") => Some(7),
            Codec::Theora if data.starts_with(b"\x81theora") => Some(7),
            Codec::Opus if data.starts_with(b"OpusTags") => Some(8),
            Codec::Flac if number > 0 && first & 0x7f == 4 => Some(4),
            Codec::Speex if number == 1 => Some(0),
            _ => None,
        };
        let has_modes =
            matches!(format.durations, Durations::Vorbis { .. }) && data.starts_with(b"\x05vorbis");
        Self {
            comments: prefix.map(Reader::new),
            tail: has_modes.then(Vec::new),
            last: number > 0 && first & 0x80 != 0,
        }
    }
}
