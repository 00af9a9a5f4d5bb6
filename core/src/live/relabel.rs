//! Serial numbers of a broadcast. Each logical stream of a physical bitstream has one of its own (RFC 3533, section 4), and so must the
//! links of a chain; but a file that is broadcast over and over, and a source that comes back, brings the same ones again. Those get
//! others here: the broadcaster is the source, so its pages may still be changed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use icet::PageNo;
use icet::key::Hash;

use crate::ogg::page::{GRANULE, MIN_PAGE_LEN, SEQUENCE, SERIAL, crc, packet_parts, seal};
use crate::ogg::{Codec, Format, PageHeader};

/// Serials that are remembered; where there are more, all that come are replaced.
const MOST: usize = 1 << 16;

/// A logical stream of the present link.
#[derive(Debug, Clone)]
struct Stream {
    serial: u32,
    /// Whether its pages are changed.
    other: bool,
    /// By how much its page sequence numbers are lower than the source's, and the source's next one.
    shift: u32,
    next: u32,
    /// Whether a page had a position, so that its setup is over.
    begun: bool,
    /// What was broadcast of it last: position, packet, and the number of the next page; whether its last page was marked as such.
    format: Format,
    granule: Option<i64>,
    last: Bytes,
    out: u32,
    ended: bool,
}

/// Gives serials that were used before in a broadcast a new one.
#[derive(Debug)]
pub(crate) struct Relabel {
    broadcast: Hash,
    used: BTreeSet<u32>,
    /// Others came before that are not known any more.
    all: bool,
    /// By the source's serial.
    open: BTreeMap<u32, Stream>,
    /// A page came that begins no logical stream.
    body: bool,
}

impl Stream {
    /// A last page. A packet ends on it, if there is one of which nothing is heard: validators want that.
    fn end(&self) -> Option<(PageHeader, Bytes)> {
        let (packet, granule) = match (self.format.codec, self.granule) {
            // The packet before once more; the position says that all of it is cut off (RFC 7845, section 4.4).
            (Codec::Opus, Some(granule)) => (Some(&self.last[..]), granule),
            // An empty packet is no sound.
            (Codec::Vorbis, Some(granule)) => (Some(&[][..]), granule),
            // And it is the picture before once more.
            (Codec::Theora, Some(granule)) => (Some(&[][..]), self.format.next_frame(granule)),
            _ => (None, -1),
        };
        let packet = packet.filter(|p| p.len() / 255 < 255);
        let laces =
            packet.map(|p| [vec![255; p.len() / 255], vec![u8::try_from(p.len() % 255).unwrap_or(0)]]);
        let laces = laces.map(|l| l.concat()).unwrap_or_default();
        let mut page = BytesMut::zeroed(MIN_PAGE_LEN);
        page.get_mut(..6)?.copy_from_slice(b"OggS\0\x04");
        page.get_mut(GRANULE)?.copy_from_slice(&packet.map_or(-1, |_| granule).to_le_bytes());
        page.get_mut(SERIAL)?.copy_from_slice(&self.serial.to_le_bytes());
        page.get_mut(SEQUENCE)?.copy_from_slice(&self.out.to_le_bytes());
        *page.get_mut(MIN_PAGE_LEN - 1)? = u8::try_from(laces.len()).ok()?;
        page.extend_from_slice(&laces);
        page.extend_from_slice(packet.unwrap_or_default());
        seal(&mut page);
        Some((PageHeader::parse(&page).ok()?, page.freeze()))
    }
}

impl Relabel {
    /// `all`: of a broadcast that goes on, of which it is not known which serials were used.
    pub(crate) fn new(broadcast: Hash, all: bool) -> Relabel {
        Relabel { broadcast, used: BTreeSet::new(), all, open: BTreeMap::new(), body: false }
    }

    /// The page as it is to be broadcast as page `number`.
    pub(crate) fn page(&mut self, number: PageNo, header: &PageHeader, bytes: Bytes) -> (PageHeader, Bytes) {
        if header.bos {
            self.begin(number, header, &bytes);
        } else {
            self.body = true;
        }
        let as_it_is = |bytes| (*header, bytes);
        let Some(stream) = self.open.get_mut(&header.serial) else { return as_it_is(bytes) };
        stream.granule = header.granule.filter(|g| *g > 0).or(stream.granule);
        stream.ended |= header.eos;
        if let Some(part) = packet_parts(&bytes).filter(|p| p.starts && p.ends).last() {
            stream.last = bytes.slice_ref(part.data);
        }
        stream.out = header.sequence.wrapping_add(1);
        if !stream.other {
            return as_it_is(bytes);
        }
        // Who joins a mount gets setup pages, and then pages from the middle: that is no loss.
        if !stream.begun && header.sequence != stream.next {
            stream.shift = stream.shift.wrapping_add(header.sequence.wrapping_sub(stream.next));
        }
        stream.next = header.sequence.wrapping_add(1);
        stream.begun |= header.granule.is_some_and(|g| g > 0);
        let sequence = header.sequence.wrapping_sub(stream.shift);
        stream.out = sequence.wrapping_add(1);
        let mut page = BytesMut::from(&bytes[..]);
        for (at, value) in [(SERIAL, stream.serial), (SEQUENCE, sequence)] {
            let Some(field) = page.get_mut(at) else { return as_it_is(bytes) };
            field.copy_from_slice(&value.to_le_bytes());
        }
        seal(&mut page);
        let crc = crc(&page);
        (PageHeader { serial: stream.serial, sequence, crc, ..*header }, page.freeze())
    }

    fn begin(&mut self, number: PageNo, header: &PageHeader, page: &[u8]) {
        if std::mem::take(&mut self.body) {
            self.open.clear();
        }
        if self.used.len() >= MOST {
            (self.all, self.used) = (true, BTreeSet::new());
        }
        let other = self.all || self.used.contains(&header.serial);
        let serial = if other { self.fresh(number) } else { header.serial };
        self.used.insert(serial);
        let shift = if other { header.sequence } else { 0 };
        let stream = Stream {
            serial,
            other,
            shift,
            next: header.sequence,
            begun: false,
            format: Format::of(packet_parts(page).next().map_or(&[], |p| p.data)),
            granule: None,
            last: Bytes::new(),
            out: 0,
            ended: false,
        };
        self.open.insert(header.serial, stream);
    }

    /// Whether the next page that begins a logical stream begins another link.
    pub(crate) fn is_in_a_link(&self) -> bool {
        self.body
    }

    /// Last pages for the streams that the source left without one: who finds none lacks an end, or takes the next link for a part of
    /// this one. Nothing is heard of what they hold.
    pub(crate) fn close(&mut self) -> Vec<(PageHeader, Bytes)> {
        let open = self.open.values_mut().filter(|s| !s.ended);
        open.filter_map(|s| {
            s.ended = true;
            s.end()
        })
        .collect()
    }

    /// One that was not used; another one for each page of each broadcast.
    fn fresh(&self, number: PageNo) -> u32 {
        let mut n = 0_u64;
        loop {
            let mut h = blake3::Hasher::new_derive_key("IceShare serial number of a link");
            h.update(&self.broadcast.0).update(&number.to_le_bytes()).update(&n.to_le_bytes());
            let [a, b, c, d, ..] = *h.finalize().as_bytes();
            let serial = u32::from_le_bytes([a, b, c, d]);
            if !self.used.contains(&serial) {
                return serial;
            }
            n += 1;
        }
    }
}
