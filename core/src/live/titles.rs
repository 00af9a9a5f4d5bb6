//! Titles that come beside a stream, written into it: the link that is on ends, and another one begins with the same setup and other
//! tags. Of the sound nothing is lost and nothing comes twice: what a decoder needs to go on in the middle stands at the new link's
//! beginning, marked as not to be played. Sans-IO.
//!
//! - Opus: the packets of the last 400 ms once more, all of them pre-skip (RFC 7845, section 4.2). The 80 ms that it asks for leave a
//!   difference that can be measured; after 400 ms the decoder's state is what it was.
//! - Vorbis: the last packet once more. The first packet of a link gives no sound, and the second one the overlap of both: just what was due.
//! - FLAC: nothing, for each frame stands by itself.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::ogg::packet::opus_samples;
use crate::ogg::page::{GRANULE, MIN_PAGE_LEN, SEQUENCE, packet_parts, seal, segment_table};
use crate::ogg::{Codec, Format, PageHeader};

/// Samples (of 48 kHz) of Opus that are decoded before those that are heard.
const ROLL: u64 = 19_200;
/// Setup packets of a link are kept up to so many bytes, and packets of sound for the next link.
const SETUP: usize = 1 << 20;
const PACKET: usize = 1 << 16;
/// Segments of a page.
const SEGMENTS: usize = 255;
/// Where a page has its flags, and what they are.
const FLAGS: usize = 5;
const CONTINUED: u8 = 1;
const BOS: u8 = 2;
const EOS: u8 = 4;
/// A tag with its value has so many bytes at most.
const TAG: usize = 4096;

/// Why a title cannot be written into a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TitleError {
    /// No link is on whose setup is whole, or its last page has come.
    #[error("nothing is on the air that could have a title")]
    Nothing,
    /// It is another codec, or there are several logical streams.
    #[error("titles are written into streams of Opus, Vorbis or FLAC alone")]
    Codec,
    /// A name is none.
    #[error("this is no tag that could be written: a name is printable ASCII without =")]
    Tag,
    /// It is too long.
    #[error("it has more than {TAG} bytes, the most that a tag may have: send a shorter one")]
    Long,
}

/// A link as it comes from the source.
#[derive(Debug)]
struct Link {
    codec: Codec,
    serial: u32,
    several: bool,
    setup: Vec<Vec<u8>>,
    setup_len: usize,
    ready: bool,
    ended: bool,
    /// A packet that goes on on the next page.
    open: Vec<u8>,
    /// The packets of sound that came last; their samples, of Opus.
    last: VecDeque<(Vec<u8>, u64)>,
    samples: u64,
    /// The source's position behind the last packet.
    granule: Option<i64>,
    /// What is added to positions.
    shift: i64,
    /// What is decoded and not heard at the beginning of the next page (Vorbis).
    roll: Vec<Vec<u8>>,
    /// Number of the next page that goes out; none: as they come.
    next: u32,
    changed: bool,
}

/// Takes pages of a source and gives those to be broadcast: the same, until a title is set.
#[derive(Debug, Default)]
pub struct Titles {
    link: Option<Link>,
    /// A page came that begins no logical stream.
    body: bool,
    tags: Option<Vec<(String, String)>>,
}

impl Titles {
    /// Sets tags, in place of those that have their names: from behind the next page on with whose end a packet ends, which is the last
    /// one of its link. A title or an artist that is not among them is left out, for it was that of something else.
    ///
    /// # Errors
    /// [`TitleError`]; nothing changes then.
    pub fn set(&mut self, tags: Vec<(String, String)>) -> Result<(), TitleError> {
        let link = self.link.as_ref().filter(|l| !l.ended).ok_or(TitleError::Nothing)?;
        if link.several || !matches!(link.codec, Codec::Opus | Codec::Vorbis | Codec::Flac) {
            return Err(TitleError::Codec);
        }
        if !link.ready {
            return Err(TitleError::Nothing);
        }
        let is_name = |n: &str| !n.is_empty() && n.bytes().all(|b| (0x20..=0x7d).contains(&b) && b != b'=');
        if tags.iter().any(|(name, _)| !is_name(name)) {
            return Err(TitleError::Tag);
        }
        if tags.iter().any(|(name, value)| name.len() + value.len() >= TAG) {
            return Err(TitleError::Long);
        }
        self.tags = Some(tags);
        Ok(())
    }

    /// Takes the next page of the source; what is to be broadcast in its place.
    pub fn page(&mut self, header: &PageHeader, bytes: Bytes) -> Vec<(PageHeader, Bytes)> {
        if header.bos {
            match self.link.as_mut().filter(|_| !self.body) {
                Some(link) => link.several = true,
                None => (self.link, self.tags) = (Some(Link::new(header)), None),
            }
        }
        self.body = !header.bos;
        let Some(link) = self.link.as_mut().filter(|l| l.serial == header.serial && !l.several) else {
            return vec![(*header, bytes)];
        };
        link.note(header, &bytes);
        let tags = if link.may_change(header) { self.tags.take() } else { None };
        let mut out = Vec::new();
        link.relabelled(header, bytes, tags.is_some(), &mut out);
        if let Some(tags) = tags {
            link.change(&tags, &mut out);
        }
        out
    }
}

impl Link {
    fn new(header: &PageHeader) -> Link {
        Link {
            codec: Codec::Unknown,
            serial: header.serial,
            several: false,
            setup: Vec::new(),
            setup_len: 0,
            ready: false,
            ended: false,
            open: Vec::new(),
            last: VecDeque::new(),
            samples: 0,
            granule: None,
            shift: 0,
            roll: Vec::new(),
            next: 0,
            changed: false,
        }
    }

    /// Whether another link can begin behind this page, which was noted: it has sound, and no packet goes on.
    fn may_change(&self, header: &PageHeader) -> bool {
        self.ready
            && !self.ended
            && header.granule.is_some_and(|g| g > 0)
            && self.open.is_empty()
            && self.granule == header.granule
            && !self.last.is_empty()
    }

    /// Looks at a page of the source.
    fn note(&mut self, header: &PageHeader, bytes: &[u8]) {
        for part in packet_parts(bytes) {
            if part.starts {
                self.open.clear();
            }
            let most = if self.ready { PACKET } else { SETUP };
            if self.open.len() + part.data.len() > most {
                // Not to be kept: what came before it neither.
                self.open.clear();
                self.last.clear();
                continue;
            }
            self.open.extend_from_slice(part.data);
            if part.ends {
                let packet = std::mem::take(&mut self.open);
                self.packet(packet);
            }
        }
        if self.ready && header.granule.is_some_and(|g| g >= 0) && !self.last.is_empty() {
            self.granule = header.granule;
        }
        self.ended |= header.eos;
    }

    fn packet(&mut self, packet: Vec<u8>) {
        if !self.ready {
            if self.setup.is_empty() {
                self.codec = Format::of(&packet).codec;
            }
            self.setup_len += packet.len();
            let flac_last = self.codec == Codec::Flac
                && match self.setup.len() {
                    0 => packet.get(13).is_some_and(|b| b & 0x80 != 0),
                    _ => packet.first().is_some_and(|b| b & 0x80 != 0),
                };
            self.setup.push(packet);
            let needed = match self.codec {
                Codec::Opus => 2,
                Codec::Vorbis => 3,
                Codec::Flac => usize::MAX,
                _ => 0,
            };
            self.ready = self.setup.len() == needed || flac_last;
            // Neither that nor what is no codec of ours is kept.
            if self.setup_len > SETUP || needed == 0 {
                self.several = true;
                self.setup.clear();
            }
            return;
        }
        // A packet of nothing stands for what was lost, or is left out.
        let samples = if self.codec == Codec::Opus { opus_samples(&packet).unwrap_or(0) } else { 1 };
        self.last.push_back((packet, samples));
        self.samples += samples;
        let enough = if self.codec == Codec::Opus { ROLL } else { 1 };
        while let Some((_, first)) = self.last.front()
            && self.samples - first >= enough
        {
            self.samples -= first;
            self.last.pop_front();
        }
    }

    /// The page under its link's position and number; `ends`: it is the link's last one.
    fn relabelled(
        &mut self,
        header: &PageHeader,
        bytes: Bytes,
        ends: bool,
        out: &mut Vec<(PageHeader, Bytes)>,
    ) {
        if !self.changed && !ends {
            self.next = header.sequence.wrapping_add(1);
            out.push((*header, bytes));
            return;
        }
        let granule = header.granule.map(|g| g.saturating_add(self.shift).max(0));
        if !self.changed {
            self.next = header.sequence;
        }
        let roll = std::mem::take(&mut self.roll);
        let mut page = behind(&roll, header, &bytes).unwrap_or_else(|| {
            self.lay(&roll, 0, 0, out);
            BytesMut::from(&bytes[..])
        });
        let sequence = self.number();
        let fields = [
            (GRANULE, granule.unwrap_or(-1).to_le_bytes().to_vec()),
            (SEQUENCE, sequence.to_le_bytes().to_vec()),
        ];
        for (at, value) in fields {
            if let Some(field) = page.get_mut(at) {
                field.copy_from_slice(&value);
            }
        }
        if ends && let Some(flags) = page.get_mut(FLAGS) {
            *flags |= EOS;
        }
        seal(&mut page);
        // It was one before, and has only other numbers now.
        out.push((PageHeader::parse(&page).unwrap_or(*header), page.freeze()));
    }

    fn number(&mut self) -> u32 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        number
    }

    /// Begins the next link.
    fn change(&mut self, tags: &[(String, String)], out: &mut Vec<(PageHeader, Bytes)>) {
        let Some(granule) = self.granule else { return };
        let (packets, roll) = (self.packets(tags), self.roll());
        let skipped = roll.iter().map(|(_, samples)| *samples).sum::<u64>();
        let skipped = if self.codec == Codec::Opus { i64::try_from(skipped).unwrap_or(0) } else { 0 };
        (self.next, self.changed, self.shift) = (0, true, skipped.saturating_sub(granule));
        if let Some((first, rest)) = packets.split_first() {
            self.lay(std::slice::from_ref(first), BOS, 0, out);
            self.lay(rest, 0, 0, out);
        }
        let roll: Vec<Vec<u8>> = roll.into_iter().map(|(packet, _)| packet).collect();
        if self.codec == Codec::Vorbis {
            // On a page of its own its position would be zero, which some take for a mistake.
            self.roll = roll;
        } else {
            self.lay(&roll, 0, skipped, out);
        }
    }

    /// What is decoded and not heard at the beginning of the next link.
    fn roll(&self) -> Vec<(Vec<u8>, u64)> {
        if self.codec == Codec::Flac { Vec::new() } else { self.last.iter().cloned().collect() }
    }

    /// The setup packets of the next link.
    fn packets(&self, tags: &[(String, String)]) -> Vec<Vec<u8>> {
        let mut all = self.setup.clone();
        match self.codec {
            Codec::Opus => {
                let skip: u64 = self.last.iter().map(|(_, samples)| *samples).sum();
                let skip = u16::try_from(skip).unwrap_or(u16::MAX);
                if let Some(field) = all.first_mut().and_then(|head| head.get_mut(10..12)) {
                    field.copy_from_slice(&skip.to_le_bytes());
                }
                if let Some(packet) = all.get_mut(1) {
                    *packet = [b"OpusTags", &comment(packet.get(8..).unwrap_or_default(), tags)[..]].concat();
                }
            }
            Codec::Vorbis => {
                if let Some(packet) = all.get_mut(1) {
                    let body = comment(packet.get(7..).unwrap_or_default(), tags);
                    *packet = [b"\x03vorbis", &body[..], &[1]].concat();
                }
            }
            Codec::Flac => {
                // Neither its length nor its checksum are those of the new link.
                if let Some(head) = all.first_mut() {
                    head.iter_mut().skip(31).take(20).for_each(|b| *b = 0);
                    head.iter_mut().skip(30).take(1).for_each(|b| *b &= 0xf0);
                }
                for packet in all.iter_mut().skip(1) {
                    let (Some(&kind), Some(body)) = (packet.first(), packet.get(4..)) else { continue };
                    if kind & 0x7f == 4 {
                        let body = comment(body, tags);
                        let len = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
                        *packet = [&[kind], &len[1..], &body[..]].concat();
                    }
                }
            }
            _ => {}
        }
        all
    }

    /// Lays packets onto pages, the last of which has this position.
    fn lay(&mut self, packets: &[Vec<u8>], flags: u8, granule: i64, out: &mut Vec<(PageHeader, Bytes)>) {
        // Segments, and whether a packet ends with each.
        let mut segments: Vec<&[u8]> = Vec::new();
        for packet in packets {
            segments.extend(packet.chunks(255));
            if packet.len().is_multiple_of(255) {
                segments.push(&[]);
            }
        }
        let mut continued = false;
        for part in segments.chunks(SEGMENTS) {
            let ends = part.iter().any(|s| s.len() < 255);
            let mut page = BytesMut::with_capacity(MIN_PAGE_LEN + part.len() * 256);
            page.put_slice(b"OggS\0");
            page.put_u8(flags | if continued { CONTINUED } else { 0 });
            page.put_i64_le(if ends { granule } else { -1 });
            page.put_u32_le(self.serial);
            page.put_u32_le(self.number());
            page.put_u32_le(0);
            page.put_u8(u8::try_from(part.len()).unwrap_or(u8::MAX));
            part.iter().for_each(|s| page.put_u8(u8::try_from(s.len()).unwrap_or(u8::MAX)));
            part.iter().for_each(|s| page.put_slice(s));
            seal(&mut page);
            continued = part.last().is_some_and(|s| s.len() == 255);
            if let Ok(header) = PageHeader::parse(&page) {
                out.push((header, page.freeze()));
            }
        }
    }
}

/// A page with packets in front of its own, if it has room for them, unsealed.
fn behind(packets: &[Vec<u8>], header: &PageHeader, page: &[u8]) -> Option<BytesMut> {
    let mut laces = Vec::new();
    for packet in packets {
        laces.extend(std::iter::repeat_n(255, packet.len() / 255));
        laces.push(u8::try_from(packet.len() % 255).ok()?);
    }
    laces.extend_from_slice(segment_table(page));
    let mut out = BytesMut::from(page.get(..MIN_PAGE_LEN)?);
    *out.get_mut(MIN_PAGE_LEN - 1)? = u8::try_from(laces.len()).ok()?;
    out.extend_from_slice(&laces);
    packets.iter().for_each(|p| out.extend_from_slice(p));
    out.extend_from_slice(page.get(header.header_len()..)?);
    Some(out)
}

/// A list of comments with other tags: vendor and what else it has are kept, but for a title and an artist.
fn comment(old: &[u8], tags: &[(String, String)]) -> Vec<u8> {
    let mut rest = old;
    let vendor = field(&mut rest).unwrap_or_default();
    let count = number(&mut rest).unwrap_or(0);
    let mut all: Vec<&[u8]> = Vec::new();
    // What is cut off ends it, whatever was claimed.
    for _ in 0..count {
        let Some(one) = field(&mut rest) else { break };
        let name = one.split(|b| *b == b'=').next().unwrap_or_default();
        let replaced = |n: &str| name.eq_ignore_ascii_case(n.as_bytes());
        if !replaced("TITLE") && !replaced("ARTIST") && !tags.iter().any(|(n, _)| replaced(n)) {
            all.push(one);
        }
    }
    let new: Vec<String> = tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    all.extend(new.iter().map(String::as_bytes));
    let mut out = Vec::new();
    let mut put = |bytes: &[u8]| {
        out.put_u32_le(u32::try_from(bytes.len()).unwrap_or(0));
        out.put_slice(bytes);
    };
    put(vendor);
    let mut list = Vec::new();
    list.put_u32_le(u32::try_from(all.len()).unwrap_or(0));
    for one in all {
        list.put_u32_le(u32::try_from(one.len()).unwrap_or(0));
        list.put_slice(one);
    }
    out.extend_from_slice(&list);
    out
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (len, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(u32::from_le_bytes(*len))
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(number(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::tests::opus;
    use crate::ogg::{SplitEvent, Splitter, Timeline};

    fn run(pages: &[Bytes], titles: &[(usize, &str)]) -> Vec<(PageHeader, Bytes)> {
        let (mut t, mut out) = (Titles::default(), Vec::new());
        for (i, page) in pages.iter().enumerate() {
            for (_, title) in titles.iter().filter(|(at, _)| *at == i) {
                t.set(vec![("TITLE".to_owned(), (*title).to_owned())]).unwrap();
            }
            out.extend(t.page(&PageHeader::parse(page).unwrap(), page.clone()));
        }
        out
    }

    #[test]
    fn without_a_title_pages_stay_as_they_are() {
        let pages = opus(7, 50);
        assert!(run(&pages, &[]).iter().map(|(_, p)| p).eq(&pages));
    }

    #[test]
    fn a_title_begins_a_link_that_plays_on_without_a_gap_or_a_repeat() {
        let pages = opus(7, 200);
        let out = run(&pages, &[(40, "one"), (41, "two"), (150, "three")]);
        let (mut splitter, mut timeline, mut titles) = (Splitter::new(), Timeline::new(), Vec::new());
        let (mut expected, mut end) = (None, 0);
        for (header, bytes) in &out {
            assert!(crate::ogg::page::verify(bytes));
            splitter.push(bytes.clone());
            let Some(SplitEvent::Page { header: seen, .. }) = splitter.next() else { panic!("no page") };
            assert_eq!(seen, *header);
            if header.bos {
                assert_eq!(header.sequence, 0);
                expected = None;
            }
            assert!(expected.is_none_or(|n| n == header.sequence), "numbers follow");
            expected = Some(header.sequence + 1);
            timeline.page(header, bytes);
            let title = timeline.link_comments().and_then(|c| c.title()).map(str::to_owned);
            if title.is_some() && titles.last() != title.as_ref() {
                titles.extend(title);
            }
            end = timeline.duration();
        }
        assert_eq!(titles, ["one", "two", "three"]);
        let mut plain = Timeline::new();
        for page in &pages {
            plain.page(&PageHeader::parse(page).unwrap(), page);
        }
        // Not one sample more or less.
        assert_eq!((timeline.link_count(), end), (4, plain.duration()));
        let closed = out.iter().filter(|(h, _)| h.eos).count();
        assert_eq!(closed, 3, "each link but the last has an end");
        // The packets of the last 400 ms come once more, and are not heard.
        let roll = out.iter().filter(|(h, _)| h.granule == Some(19_200) && h.segments == 20).count();
        assert_eq!(roll, 3);
    }

    #[test]
    fn other_tags_and_the_vendor_stay() {
        let list = |vendor: &str, tags: &[&str]| {
            let mut out = Vec::new();
            out.put_u32_le(u32::try_from(vendor.len()).unwrap());
            out.put_slice(vendor.as_bytes());
            out.put_u32_le(u32::try_from(tags.len()).unwrap());
            for t in tags {
                out.put_u32_le(u32::try_from(t.len()).unwrap());
                out.put_slice(t.as_bytes());
            }
            out
        };
        let old = list("v", &["Title=old", "ALBUM=a", "artist=b", "x=1"]);
        let new = comment(&old, &[("TITLE".into(), "new = ü".into())]);
        assert_eq!(new, list("v", &["ALBUM=a", "x=1", "TITLE=new = ü"]));
        // What is cut off or claims too much is left out.
        assert_eq!(comment(&old[..20], &[]), list("v", &[]));
        assert_eq!(comment(&[255; 9], &[("A".into(), "b".into())]), list("", &["A=b"]));
    }

    #[test]
    fn what_can_have_no_title_is_told() {
        let mut t = Titles::default();
        let title = || vec![("TITLE".to_owned(), "x".to_owned())];
        assert_eq!(t.set(title()), Err(TitleError::Nothing));
        let pages = opus(7, 3);
        let give = |t: &mut Titles, page: &Bytes| t.page(&PageHeader::parse(page).unwrap(), page.clone());
        give(&mut t, &pages[0]);
        assert_eq!(t.set(title()), Err(TitleError::Nothing));
        give(&mut t, &pages[1]);
        assert_eq!(t.set(vec![("A=B".to_owned(), "x".to_owned())]), Err(TitleError::Tag));
        assert_eq!(t.set(vec![("A".to_owned(), "x".repeat(5000))]), Err(TitleError::Long));
        // Two logical streams side by side.
        let mut t = Titles::default();
        give(&mut t, &opus(8, 1)[0]);
        give(&mut t, &opus(9, 1)[0]);
        assert_eq!(t.set(title()), Err(TitleError::Codec));
    }
}
