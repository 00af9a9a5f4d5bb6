//! How many samples or frames a packet holds, without decoding it.
//!
//! Needed once per logical stream: only so can be told whether a stream begins at zero or was cut out of a longer one.

use super::codec::Durations;
use super::page::PacketPart;

/// Bytes at the end of a Vorbis setup packet that are sure to hold its modes: 6 + 64 * 41 + 1 bits, and padding.
pub(super) const MODES_LEN: usize = 332;

/// The modes of a Vorbis stream: which of the two block sizes each has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Modes {
    /// Bit n: mode n has long blocks.
    long: u64,
    /// Bits of a mode number in an audio packet.
    bits: u32,
}

impl Modes {
    /// Reads the modes from the end of a setup packet (Vorbis I specification section 4.2.4; the last [`MODES_LEN`] bytes do).
    ///
    /// What stands before them can only be skipped by decoding it all, so they are read backwards: a framing bit, then modes, each of
    /// which must have 32 zero bits in it, and then their number.
    pub(super) fn from_setup(packet: &[u8]) -> Option<Self> {
        // Bits fill each byte from its low end, so that the framing bit is the highest one set in the last byte.
        let (&last, _) = packet.split_last()?;
        let mut at = (packet.len() * 8).checked_sub(1 + usize::try_from(last.leading_zeros()).ok()?)?;
        if last == 0 {
            return None;
        }
        let bits_at = |from: usize, count: usize| {
            (0..count).fold(0_u64, |bits, i| {
                let at = from + i;
                bits | u64::from(packet[at / 8] >> (at % 8) & 1) << i
            })
        };
        let mut long = 0_u64;
        let mut found = None;
        for count in 1..=64_u32 {
            let Some(start) = at.checked_sub(41).filter(|start| *start >= 6) else { break };
            at = start;
            let (flag, zeros, mapping) = (bits_at(at, 1), bits_at(at + 1, 32), bits_at(at + 33, 8));
            if zeros != 0 || mapping > 63 {
                break;
            }
            long = long << 1 | flag;
            // The number may stand here by chance: the longest list that fits is the right one.
            if bits_at(at - 6, 6) + 1 == u64::from(count) {
                found = Some(Self { long, bits: u32::BITS - (count - 1).leading_zeros() });
            }
        }
        found
    }

    fn block(self, packet: &[u8], blocks: [u16; 2]) -> Option<u16> {
        let &first = packet.first()?;
        if first & 1 != 0 {
            return None;
        }
        let mode = first >> 1 & ((1 << self.bits) - 1);
        Some(blocks[usize::from(self.long >> mode & 1 == 1)])
    }
}

/// Samples of an Opus packet at 48 kHz (RFC 6716 section 3.1), at most 5,760.
pub(crate) fn opus_samples(packet: &[u8]) -> Option<u64> {
    let &toc = packet.first()?;
    let config = toc >> 3;
    let frame: u64 = match config {
        0..12 => [480, 960, 1920, 2880][usize::from(config & 3)],
        12..16 => [480, 960][usize::from(config & 1)],
        _ => 120 << (config & 3),
    };
    let frames = match toc & 3 {
        0 => 1,
        3 => packet.get(1)? & 0x3f,
        _ => 2,
    };
    Some(frame * u64::from(frames)).filter(|samples| (1..=5760).contains(samples))
}

/// Samples of a FLAC frame (RFC 9639 section 9.1.1), at most 65,536.
fn flac_samples(packet: &[u8]) -> Option<u64> {
    let [0xff, second, third, _, number, ..] = *packet else { return None };
    if second & 0xfe != 0xf8 {
        return None;
    }
    // After the frame's number, coded like a character of UTF-8, may come the block size.
    let number_len = match number.leading_ones() {
        0 => 1,
        ones @ 2..=7 => ones,
        _ => return None,
    };
    let after = 4 + usize::try_from(number_len).ok()?;
    Some(match third >> 4 {
        0 => return None,
        1 => 192,
        code @ 2..=5 => 576 << (code - 2),
        6 => u64::from(*packet.get(after)?) + 1,
        7 => u64::from(u16::from_be_bytes(*packet.get(after..)?.first_chunk()?)) + 1,
        code => 256 << (code - 8),
    })
}

/// Counts the samples or frames of a stream's first packets, up to the first page that has a granule position.
#[derive(Debug, Clone)]
pub(super) struct Counter {
    durations: Durations,
    modes: Option<Modes>,
    /// Those of packets that have ended.
    count: u64,
    /// Those of the packet that goes on.
    open: Option<u64>,
    /// Block size of the packet before (Vorbis: a packet gives the overlap with the one before it, the first packet nothing).
    previous: Option<u16>,
    known: bool,
}

impl Counter {
    pub(super) fn new(durations: Durations, modes: Option<Modes>) -> Self {
        let known = durations != Durations::Unknown;
        Self { durations, modes, count: 0, open: None, previous: None, known }
    }

    /// The same, of packets that come behind others.
    pub(super) fn behind(self, before: Option<Counter>) -> Counter {
        Counter { previous: before.and_then(|b| b.previous), ..self }
    }

    pub(super) fn part(&mut self, part: PacketPart<'_>) {
        if part.starts {
            self.open = self.samples(part.data);
            self.known &= self.open.is_some();
        }
        if part.ends {
            // Of a packet whose beginning is missing, nothing can be played; but video counts its frame.
            let lost = if let Durations::Fixed(samples) = self.durations { samples } else { 0 };
            self.count = self.count.saturating_add(self.open.take().unwrap_or(lost));
        }
    }

    /// Those of the next packet, of which this is the beginning.
    pub(super) fn samples(&mut self, packet: &[u8]) -> Option<u64> {
        match self.durations {
            Durations::Unknown => None,
            Durations::Fixed(samples) => Some(samples),
            Durations::Opus => opus_samples(packet),
            Durations::Flac => flac_samples(packet),
            Durations::Vorbis { blocks } => {
                let block = self.modes?.block(packet, blocks)?;
                let previous = self.previous.replace(block);
                Some(previous.map_or(0, |previous| (u64::from(previous) + u64::from(block)) / 4))
            }
        }
    }

    /// Samples or frames in the packets that have ended; `None` if that can't be told.
    pub(super) fn total(&self) -> Option<i64> {
        i64::try_from(self.count).ok().filter(|_| self.known)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes bits as Vorbis does, from the low end of each byte.
    fn pack(fields: &[(u64, usize)]) -> Vec<u8> {
        let bits: Vec<bool> =
            fields.iter().flat_map(|&(value, count)| (0..count).map(move |i| value >> i & 1 == 1)).collect();
        bits.chunks(8)
            .map(|byte| byte.iter().enumerate().fold(0, |b, (i, &bit)| b | u8::from(bit) << i))
            .collect()
    }

    fn setup_packet(lead: &[(u64, usize)], flags: &[u64]) -> Vec<u8> {
        let mut fields = lead.to_vec();
        fields.push((flags.len() as u64 - 1, 6));
        for &flag in flags {
            fields.extend([(flag, 1), (0, 32), (1, 8)]);
        }
        fields.push((1, 1));
        pack(&fields)
    }

    #[test]
    fn modes_are_read_from_the_end() {
        for lead in 0..8 {
            let packet = setup_packet(&[(0x5a5a, 60), (1, lead)], &[0, 1]);
            assert_eq!(Modes::from_setup(&packet), Some(Modes { long: 0b10, bits: 1 }));
        }
        let one = Modes::from_setup(&setup_packet(&[(!0, 64)], &[1])).unwrap();
        assert_eq!(one, Modes { long: 1, bits: 0 });
        assert_eq!(one.block(&[0], [256, 2048]), Some(2048));
        assert_eq!(one.block(&[1], [256, 2048]), None);
        let most = setup_packet(&[(!0, 64)], &[1; 64]);
        assert!(most.len() - 8 <= MODES_LEN);
        assert_eq!(Modes::from_setup(&most), Some(Modes { long: u64::MAX, bits: 6 }));
        for packet in [&[][..], &[0], &[1], &[0xff; 200], &[0, 0, 0, 0, 0, 1]] {
            assert_eq!(Modes::from_setup(packet), None);
        }
    }

    #[test]
    fn opus_packets_by_their_first_bytes() {
        for (packet, samples) in [
            (&[0x78, 0][..], Some(960)),     // CELT-only wideband... 20 ms, one frame
            (&[0x00], Some(480)),            // SILK 10 ms
            (&[0x19], Some(2 * 2880)),       // SILK 60 ms, two frames
            (&[0xe3, 0x30], Some(48 * 120)), // CELT 2.5 ms, 48 frames: 120 ms
            (&[0xe3, 0x31], None),           // more than 120 ms
            (&[0xe3, 0], None),
            (&[0xe3], None),
            (&[], None),
        ] {
            assert_eq!(opus_samples(packet), samples, "{packet:x?}");
        }
    }

    #[test]
    fn flac_frames_by_their_block_size_code() {
        for (packet, samples) in [
            (&[0xff, 0xf8, 0xc9, 0xa8, 0][..], Some(4096)),
            (&[0xff, 0xf9, 0x19, 0xa8, 0], Some(192)),
            (&[0xff, 0xf8, 0x59, 0xa8, 0], Some(4608)),
            (&[0xff, 0xf8, 0x69, 0xa8, 0x7f, 15], Some(16)),
            (&[0xff, 0xf8, 0x79, 0xa8, 0xc3, 0x80, 0x10, 0x00], Some(4097)),
            (&[0xff, 0xf8, 0x79, 0xa8, 0xc3, 0x80, 0x10], None),
            (&[0xff, 0xf8, 0x09, 0xa8, 0], None),
            (&[0xff, 0xf8, 0xc9, 0xa8, 0x80], None),
            (&[0x84, 0, 0, 0, 0], None),
            (&[0xff], None),
        ] {
            assert_eq!(flac_samples(packet), samples, "{packet:x?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = (opus_samples(&bytes), flac_samples(&bytes));
            if let Some(modes) = Modes::from_setup(&bytes) {
                modes.block(&bytes, [64, 8192]);
            }
        }
    }
}
