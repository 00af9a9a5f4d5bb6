//! What a logical stream holds, from its first packet, and how its granule positions count.
//!
//! Sources: Vorbis I specification sections 4.2.2 and A; RFC 7845 (Opus); RFC 9639 section 10.1 (FLAC); the Speex manual's Ogg chapter; the Theora
//! specification sections 6.2 and A; the Ogg Skeleton 4.0 text.

use std::num::NonZeroU32;

/// A codec that is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Vorbis I.
    Vorbis,
    /// Opus.
    Opus,
    /// FLAC in its Ogg mapping 1.
    Flac,
    /// Speex.
    Speex,
    /// Theora.
    Theora,
    /// Ogg Skeleton: no media, but a description of the other logical streams.
    Skeleton,
    /// Anything else. Its pages have no time of their own.
    Unknown,
}

impl Codec {
    /// The name in lower case: `vorbis`, `opus`, `flac`, `speex`, `theora`, `skeleton`, `unknown`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vorbis => "vorbis",
            Self::Opus => "opus",
            Self::Flac => "flac",
            Self::Speex => "speex",
            Self::Theora => "theora",
            Self::Skeleton => "skeleton",
            Self::Unknown => "unknown",
        }
    }
}

/// What the first packet of a logical stream says. A packet that contradicts itself (a rate of zero, a field cut off) is of
/// [`Codec::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Its codec.
    pub codec: Codec,
    /// Samples a second (audio); for Opus always 48,000.
    pub sample_rate: Option<NonZeroU32>,
    /// Channels (audio).
    pub channels: Option<u8>,
    /// Frames a second (video) as a fraction, numerator first.
    pub frame_rate: Option<(NonZeroU32, NonZeroU32)>,
    /// Width and height of the visible picture in pixels (video).
    pub size: Option<(u32, u32)>,
    pub(super) clock: Option<Clock>,
    pub(super) setup: SetupEnd,
    pub(super) durations: Durations,
}

/// Where a logical stream's header packets end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetupEnd {
    /// After so many packets, the first included.
    Packets(u32),
    /// After the packet that says to be the last, but at latest after so many.
    FlacLast { at_most: Option<u32> },
    /// With the link's first data page.
    FirstData,
}

/// How long a packet lasts, in samples or frames, as far as the first packet tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durations {
    Unknown,
    Fixed(u64),
    Opus,
    Flac,
    /// The two block sizes; which of them a packet has depends on the third header.
    Vorbis {
        blocks: [u16; 2],
    },
}

/// How granule positions count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// Samples up to the end of the last packet that ends on the page; the first `pre_skip` are not played.
    Samples { rate: NonZeroU32, pre_skip: u16 },
    /// Number of the last keyframe, shifted, plus the frames since; `bias` makes it a count of frames.
    Frames { rate: (NonZeroU32, NonZeroU32), shift: u8, bias: i64 },
}

impl Clock {
    /// Samples or frames before a granule position; `None` for one that cannot be.
    pub(super) fn position(self, granule: i64) -> Option<i64> {
        if granule < 0 {
            return None;
        }
        Some(match self {
            Self::Samples { .. } => granule,
            Self::Frames { shift, bias, .. } => {
                let since_keyframe = granule & ((1 << shift) - 1);
                (granule >> shift).saturating_add(since_keyframe).saturating_add(bias)
            }
        })
    }

    /// What a granule position (not a negative one) counts without any bias: samples, or frames.
    pub(super) fn units(self, granule: i64) -> i64 {
        match self {
            Self::Samples { .. } => granule,
            Self::Frames { shift, .. } => (granule >> shift).saturating_add(granule & ((1 << shift) - 1)),
        }
    }

    /// The last keyframe's part of a granule position, of video.
    pub(super) fn key(self, granule: i64) -> Option<i64> {
        match self {
            Self::Samples { .. } => None,
            Self::Frames { shift, .. } => Some(granule >> shift),
        }
    }

    /// The granule position of so many [`units`](Self::units), where the last keyframe was at `key`; none if there is no such one.
    pub(super) fn granule(self, units: i64, key: Option<i64>) -> Option<i64> {
        match self {
            Self::Samples { .. } => Some(units),
            Self::Frames { shift, .. } => {
                let (key, since) = (key?, units.checked_sub(key?)?);
                let fits = (0..1 << shift).contains(&since) && (0..=i64::MAX >> shift).contains(&key);
                fits.then_some((key << shift) | since)
            }
        }
    }

    /// How long `position` samples or frames last, in microseconds, rounded down.
    pub(super) fn micros(self, position: i64) -> i64 {
        let (units, seconds) = match self {
            Self::Samples { rate, .. } => (rate.get(), 1),
            Self::Frames { rate: (units, seconds), .. } => (units.get(), seconds.get()),
        };
        // Within 63 + 32 + 20 bits.
        let micros = i128::from(position) * i128::from(seconds) * 1_000_000 / i128::from(units);
        i64::try_from(micros).unwrap_or(if position < 0 { i64::MIN } else { i64::MAX })
    }

    /// Samples at the beginning of the stream that are decoded but not played.
    pub(super) fn pre_skip(self) -> i64 {
        match self {
            Self::Samples { pre_skip, .. } => pre_skip.into(),
            Self::Frames { .. } => 0,
        }
    }
}

impl Format {
    /// Recognises the first packet of a logical stream (the one on its BOS page).
    #[must_use]
    pub fn of(packet: &[u8]) -> Self {
        let known = vorbis(packet)
            .or_else(|| opus(packet))
            .or_else(|| theora(packet))
            .or_else(|| flac(packet))
            .or_else(|| speex(packet));
        known.unwrap_or_else(|| {
            if packet.starts_with(b"fishead\0") {
                Self { setup: SetupEnd::FirstData, ..Self::without_time(Codec::Skeleton) }
            } else {
                Self::unknown()
            }
        })
    }

    /// Samples at its beginning that are decoded but not played.
    pub(crate) fn pre_skip(&self) -> u64 {
        self.clock.map_or(0, |clock| u64::try_from(clock.pre_skip()).unwrap_or(0))
    }

    /// Whether these are all of its setup packets; of Skeleton that cannot be told.
    pub(crate) fn is_set_up_by(&self, packets: &[bytes::Bytes]) -> bool {
        let count = u32::try_from(packets.len()).unwrap_or(u32::MAX);
        match self.setup {
            SetupEnd::Packets(needed) => count >= needed,
            SetupEnd::FlacLast { at_most } => {
                let last = packets.last().filter(|_| count > 1).and_then(|p| p.first());
                last.is_some_and(|kind| kind & 0x80 != 0) || at_most.is_some_and(|most| count >= most)
            }
            SetupEnd::FirstData => false,
        }
    }

    /// The granule position behind one more frame that is no keyframe, of video; where there is no such one, the same.
    pub(crate) fn next_frame(&self, granule: i64) -> i64 {
        match self.clock {
            Some(Clock::Frames { shift, .. }) if !granule & ((1 << shift) - 1) != 0 => {
                granule.saturating_add(1)
            }
            _ => granule,
        }
    }

    pub(super) fn unknown() -> Self {
        Self::without_time(Codec::Unknown)
    }

    fn without_time(codec: Codec) -> Self {
        Self {
            codec,
            sample_rate: None,
            channels: None,
            frame_rate: None,
            size: None,
            clock: None,
            setup: SetupEnd::Packets(1),
            durations: Durations::Unknown,
        }
    }

    fn audio(codec: Codec, rate: u32, channels: u8, pre_skip: u16) -> Option<Self> {
        let rate = NonZeroU32::new(rate)?;
        Some(Self {
            sample_rate: Some(rate),
            channels: Some(channels),
            clock: Some(Clock::Samples { rate, pre_skip }),
            ..Self::without_time(codec)
        })
    }
}

fn array<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..)?.first_chunk().copied()
}

fn le_u32(packet: &[u8], at: usize) -> Option<u32> {
    array(packet, at).map(u32::from_le_bytes)
}

fn be_u16(packet: &[u8], at: usize) -> Option<u16> {
    array(packet, at).map(u16::from_be_bytes)
}

fn be_u24(packet: &[u8], at: usize) -> Option<u32> {
    array(packet, at).map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
}

fn vorbis(packet: &[u8]) -> Option<Format> {
    if !packet.starts_with(b"\x01vorbis") || le_u32(packet, 7)? != 0 {
        return None;
    }
    let blocks = *packet.get(28)?;
    // Sizes are powers of two, 64 to 8192, the shorter one first.
    let (short, long) = (blocks & 15, blocks >> 4);
    if !(6..=13).contains(&short) || !(short..=13).contains(&long) {
        return None;
    }
    Some(Format {
        setup: SetupEnd::Packets(3),
        durations: Durations::Vorbis { blocks: [1 << short, 1 << long] },
        ..Format::audio(Codec::Vorbis, le_u32(packet, 12)?, *packet.get(11)?, 0)?
    })
}

fn opus(packet: &[u8]) -> Option<Format> {
    // The upper half of the version changes when the format does.
    if !packet.starts_with(b"OpusHead") || *packet.get(8)? >= 16 || packet.len() < 19 {
        return None;
    }
    let pre_skip = u16::from_le_bytes(array(packet, 10)?);
    Some(Format {
        setup: SetupEnd::Packets(2),
        durations: Durations::Opus,
        ..Format::audio(Codec::Opus, 48_000, *packet.get(9)?, pre_skip)?
    })
}

fn flac(packet: &[u8]) -> Option<Format> {
    // 0x7f "FLAC", version, number of further headers or 0, "fLaC", a block header, and STREAMINFO.
    if !packet.starts_with(b"\x7fFLAC\x01") || packet.get(9..13)? != b"fLaC" {
        return None;
    }
    let further = u32::from(be_u16(packet, 7)?);
    let setup = if packet.get(13)? & 0x80 != 0 {
        SetupEnd::Packets(1)
    } else {
        SetupEnd::FlacLast { at_most: (further > 0).then_some(further + 1) }
    };
    let [a, b, c, d] = array(packet, 27)?;
    let rate = u32::from_be_bytes([a, b, c, d]) >> 12;
    Some(Format {
        setup,
        durations: Durations::Flac,
        ..Format::audio(Codec::Flac, rate, ((c >> 1) & 7) + 1, 0)?
    })
}

fn speex(packet: &[u8]) -> Option<Format> {
    if !packet.starts_with(b"Speex   ") {
        return None;
    }
    let channels = u8::try_from(le_u32(packet, 48)?).ok()?;
    let frame = le_u32(packet, 56)?;
    let frames = le_u32(packet, 64)?;
    let extra = le_u32(packet, 68)?;
    let samples = u64::from(frame) * u64::from(frames);
    Some(Format {
        setup: SetupEnd::Packets(extra.saturating_add(2)),
        // A packet of Speex has 20 ms times a few; without a bound, a lie could push the first page back by hours.
        durations: if (1..=1 << 20).contains(&samples) {
            Durations::Fixed(samples)
        } else {
            Durations::Unknown
        },
        ..Format::audio(Codec::Speex, le_u32(packet, 36)?, channels, 0)?
    })
}

fn theora(packet: &[u8]) -> Option<Format> {
    if !packet.starts_with(b"\x80theora\x03") {
        return None;
    }
    let version = be_u24(packet, 7)?;
    let units = NonZeroU32::new(u32::from_be_bytes(array(packet, 22)?))?;
    let seconds = NonZeroU32::new(u32::from_be_bytes(array(packet, 26)?))?;
    // Six bits of quality, then five of the granule shift.
    let shift = u8::try_from((be_u16(packet, 40)? >> 5) & 31).ok()?;
    // Before 3.2.1 a granule position was the number of the frame, not the count up to it.
    let bias = i64::from(version < 0x03_02_01);
    Some(Format {
        frame_rate: Some((units, seconds)),
        size: Some((be_u24(packet, 14)?, be_u24(packet, 17)?)),
        clock: Some(Clock::Frames { rate: (units, seconds), shift, bias }),
        setup: SetupEnd::Packets(3),
        durations: Durations::Fixed(1),
        ..Format::without_time(Codec::Theora)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vorbis_packet(rate: u32, blocks: u8) -> Vec<u8> {
        [b"\x01vorbis\0\0\0\0\x02", &rate.to_le_bytes()[..], &[0; 12], &[blocks, 1]].concat()
    }

    fn theora_packet(revision: u8, shift: u16) -> Vec<u8> {
        let mut packet = b"\x80theora\x03\x02".to_vec();
        packet.push(revision);
        packet.extend([0, 20, 0, 15, 0, 1, 0x36, 0, 0, 0xf0, 0, 0]); // 20 × 15 macroblocks, 310 × 240 pixels
        packet.extend([0, 0, 0x75, 0x30, 0, 0, 0x03, 0xe9]); // 30000 / 1001
        packet.extend([0; 10]);
        packet.extend((shift << 5).to_be_bytes());
        packet
    }

    #[test]
    fn first_packets_are_recognised() {
        let format = Format::of(&vorbis_packet(44_100, 0xb8));
        assert_eq!(
            (format.codec, format.sample_rate.unwrap().get(), format.channels),
            (Codec::Vorbis, 44_100, Some(2))
        );
        assert_eq!(format.durations, Durations::Vorbis { blocks: [256, 2048] });

        let opus = b"OpusHead\x01\x02\x38\x01\x44\xac\0\0\0\0\0";
        let format = Format::of(opus);
        assert_eq!((format.codec, format.sample_rate.unwrap().get()), (Codec::Opus, 48_000));
        assert_eq!(format.clock.unwrap().pre_skip(), 312);

        let format = Format::of(&theora_packet(1, 6));
        assert_eq!((format.codec, format.size), (Codec::Theora, Some((310, 240))));
        let clock = format.clock.unwrap();
        // Keyframe 64, 3 frames after it: 67 frames of 1001/30000 s.
        assert_eq!(clock.position(64 << 6 | 3), Some(67));
        assert_eq!(clock.micros(67), 2_235_566);
        assert_eq!(Format::of(&theora_packet(0, 6)).clock.unwrap().position(64 << 6 | 3), Some(68));
        assert_eq!(Format::of(b"fishead\0").codec, Codec::Skeleton);
    }

    #[test]
    fn impossible_packets_are_unknown() {
        for packet in [
            vorbis_packet(0, 0xb8),
            vorbis_packet(44_100, 0x8b),
            vorbis_packet(44_100, 0xf1),
            b"OpusHead\x10\x02\x38\x01\x44\xac\0\0\0\0\0".to_vec(),
            b"OpusHead\x01".to_vec(),
            b"Speex   1.2".to_vec(),
            b"\x7fFLAC\x01\0\0\0fLaC".to_vec(),
            theora_packet(1, 6)[..30].to_vec(),
            Vec::new(),
            b"BBCD".to_vec(),
        ] {
            assert_eq!(Format::of(&packet), Format::unknown(), "{packet:?}");
        }
    }

    #[test]
    fn hostile_positions_do_not_overflow() {
        for shift in [0, 31] {
            let clock = Format::of(&theora_packet(0, shift)).clock.unwrap();
            assert!(clock.position(i64::MAX).is_some());
            assert_eq!(clock.position(-2), None);
            assert_eq!(clock.micros(i64::MAX), i64::MAX);
            assert_eq!(clock.micros(i64::MIN), i64::MIN);
        }
    }

    proptest! {
        #[test]
        fn no_packet_panics(which in 0..6_usize, rest in proptest::collection::vec(any::<u8>(), 0..100), granule in any::<i64>()) {
            let start: &[u8] = [&b"\x01vorbis\0\0\0\0"[..], b"OpusHead", b"\x7fFLAC\x01", b"Speex   ", b"\x80theora\x03", b""][which];
            let format = Format::of(&[start, &rest].concat());
            if let Some(clock) = format.clock && let Some(position) = clock.position(granule) {
                clock.micros(position);
            }
        }
    }
}
