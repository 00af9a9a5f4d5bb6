//! Media of any size, made on the spot and always the same for the same seed.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use ogg::writing::{PacketWriteEndInfo, PacketWriter};

/// A small generator of bytes (SplitMix64): payload that does not compress and repeats with its seed.
#[derive(Debug)]
struct Bytes(u64);

impl Bytes {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let bytes = (z ^ (z >> 31)).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// Writes an Ogg Opus file of about `bytes` bytes: right headers, pages of about `page` bytes with right checksums,
/// granules of 20 ms a packet, random payload (it is carried, not listened to).
///
/// # Errors
/// If the file cannot be written.
pub fn opus_like(path: &Path, bytes: u64, page: usize, seed: u64) -> io::Result<()> {
    let mut random = Bytes(seed);
    let mut out = PacketWriter::new(BufWriter::new(File::create(path)?));
    let serial = 0x1ce5_0000 | u32::try_from(seed & 0xffff).unwrap_or(0);
    let head = [b"OpusHead".as_slice(), &[1, 2, 0x38, 1, 0x80, 0xbb, 0, 0, 0, 0, 0]].concat();
    out.write_packet(head, serial, PacketWriteEndInfo::EndPage, 0)?;
    let tags = [b"OpusTags".as_slice(), &8u32.to_le_bytes(), b"IceShare", &0u32.to_le_bytes()].concat();
    out.write_packet(tags, serial, PacketWriteEndInfo::EndPage, 0)?;
    // At most 255 lacing values a page: packets of a 40th of a page keep well below.
    let packet = (page / 40).clamp(1, 1500);
    let per_page = (page / (packet + packet / 255 + 1)).clamp(1, 200);
    let mut granule = 312u64;
    let mut written = 0u64;
    while written < bytes {
        for i in 0..per_page {
            let mut data = vec![0; packet];
            random.fill(&mut data);
            granule += 960;
            written += packet as u64 + 1;
            let last = written >= bytes && i + 1 == per_page;
            let end = match (i + 1 == per_page, last) {
                (true, true) => PacketWriteEndInfo::EndStream,
                (true, false) => PacketWriteEndInfo::EndPage,
                _ => PacketWriteEndInfo::NormalPacket,
            };
            out.write_packet(data, serial, end, granule)?;
        }
    }
    out.into_inner().flush()
}
