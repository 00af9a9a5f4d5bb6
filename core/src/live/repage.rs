//! Shorter pages: what an encoder packed into pages of a second goes out in pages of, say, 200 ms, so that whoever passes it on can do so
//! sooner. Packets are not touched: pages are cut behind packets, and each part gets the position of its last packet. Sans-IO.
//!
//! The broadcaster is the source, so this is the one place where it may be done. Setup pages stay as they are (the mappings of Vorbis,
//! Opus, FLAC and Theora want sound and pictures to begin on a page of their own), and so do pages of which positions within cannot be
//! told: those of unknown codecs, and of streams that contradict themselves. Of a single logical stream nothing waits: a page's parts go out
//! when the page comes. Where several are interleaved, parts go out in the order of their ends, as pages of the source did: they wait until
//! all streams are so far, which a player has to do as well.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::ogg::PageHeader;
use crate::ogg::ends::{End, Ends};
use crate::ogg::page::{GRANULE, MIN_PAGE_LEN, SEQUENCE, seal, segment_table};
use crate::ogg::time::MAX_STREAMS;

/// Where a page has its flags, and those that one part of it has only.
const FLAGS: usize = 5;
const CONTINUED: u8 = 1;
const EOS: u8 = 4;
/// A part waits for other streams while they lag no more than so many microseconds, and no more parts than that wait.
const LAG: i64 = 2_000_000;
const WAITING: usize = 512;

/// Takes pages of a source and gives shorter ones.
#[derive(Debug)]
pub struct Repage {
    /// In microseconds.
    page_time: i64,
    /// The logical streams of the present link, by serial number.
    streams: BTreeMap<u32, Stream>,
    /// Parts that wait for other streams, by their ends.
    waiting: VecDeque<(i64, (PageHeader, Bytes))>,
    /// A page came that begins no logical stream.
    body: bool,
}

#[derive(Debug)]
struct Stream {
    ends: Ends,
    /// How many pages there are more than the source had.
    more: u32,
    /// End of its last page, in microseconds; none before its first page of sound or pictures.
    end: Option<i64>,
    ended: bool,
}

/// A part of a page: so many segments from its beginning, and the position of the last packet that ends there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    segments: usize,
    granule: i64,
}

impl Repage {
    /// No page is to last longer than `page_time`, unless a single packet does.
    #[must_use]
    pub fn new(page_time: Duration) -> Repage {
        let page_time = i64::try_from(page_time.as_micros()).unwrap_or(i64::MAX);
        Repage { page_time, streams: BTreeMap::new(), waiting: VecDeque::new(), body: false }
    }

    /// Takes the next page of the source; what is to be broadcast in its place: itself, or its parts in order.
    pub fn page(&mut self, header: &PageHeader, bytes: Bytes) -> Vec<(PageHeader, Bytes)> {
        let mut out = Vec::new();
        if header.bos {
            if std::mem::take(&mut self.body) {
                out = self.end();
                self.streams.clear();
            }
            if self.streams.len() < MAX_STREAMS {
                let ends = Ends::new(header, &bytes);
                self.streams.insert(header.serial, Stream { ends, more: 0, end: None, ended: false });
            }
        } else {
            self.body = true;
        }
        let parts = match self.streams.get_mut(&header.serial) {
            Some(stream) => stream.parts(header, bytes, self.page_time),
            None => vec![(*header, bytes)],
        };
        if self.streams.values().filter(|s| s.ends.has_clock()).count() < 2 {
            out.extend(parts);
        } else {
            self.wait(header, parts);
            out.extend(self.due());
        }
        out
    }

    /// The source has ended: what still waits.
    pub fn end(&mut self) -> Vec<(PageHeader, Bytes)> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, part)| part).collect()
    }

    /// Puts the parts of a page behind all that end no later.
    fn wait(&mut self, header: &PageHeader, parts: Vec<(PageHeader, Bytes)>) {
        let last = self.waiting.back().map_or(i64::MIN, |(end, _)| *end);
        for part in parts {
            let end = match self.streams.get_mut(&header.serial).filter(|s| s.ends.has_clock()) {
                // Within a stream the order stays, whatever its positions say.
                Some(stream) => {
                    let end = part.0.granule.filter(|_| !header.bos).and_then(|g| stream.ends.time(g));
                    stream.end = end.max(stream.end);
                    stream.end.unwrap_or(i64::MIN)
                }
                None => last,
            };
            let at = self.waiting.partition_point(|(other, _)| *other <= end);
            self.waiting.insert(at, (end, part));
        }
        if let Some(stream) = self.streams.get_mut(&header.serial) {
            stream.ended |= header.eos;
        }
    }

    /// The parts that no page of another stream can come before any more.
    fn due(&mut self) -> Vec<(PageHeader, Bytes)> {
        let (mut least, mut most) = (i64::MAX, i64::MIN);
        for stream in self.streams.values().filter(|s| s.ends.has_clock()) {
            let end = stream.end.unwrap_or(i64::MIN);
            // Nobody waits for a stream that has ended; how far it went counts all the same.
            (least, most) = (if stream.ended { least } else { least.min(end) }, most.max(end));
        }
        let until = least.max(most.saturating_sub(LAG));
        let mut out = Vec::new();
        while self.waiting.front().is_some_and(|(end, _)| *end <= until) || self.waiting.len() > WAITING {
            out.extend(self.waiting.pop_front().map(|(_, part)| part));
        }
        out
    }
}

impl Stream {
    /// The page, or its parts.
    fn parts(&mut self, header: &PageHeader, bytes: Bytes, page_time: i64) -> Vec<(PageHeader, Bytes)> {
        let ends = self.ends.page(header, &bytes);
        let cuts = self.cuts(&ends, page_time);
        if cuts.is_empty() && self.more == 0 {
            return vec![(*header, bytes)];
        }
        let first = header.sequence.wrapping_add(self.more);
        self.more = self.more.wrapping_add(u32::try_from(cuts.len()).unwrap_or(0));
        // (All that comes here is whole pages.)
        parts(header, &bytes, &cuts, first).unwrap_or_else(|| vec![(*header, bytes)])
    }

    /// Where to cut: as late as a part stays within `page_time`, and before keyframes, at which listeners begin.
    fn cuts(&self, ends: &[End], page_time: i64) -> Vec<Cut> {
        let (mut cuts, mut units, mut before) = (Vec::new(), 0_u64, None);
        for end in ends {
            let with = units.saturating_add(end.units);
            if let Some(cut) = before
                && (end.keyframe || self.ends.micros(with) > page_time)
            {
                cuts.push(cut);
                units = end.units;
            } else {
                units = with;
            }
            before = end.granule.map(|granule| Cut { segments: end.segments, granule });
        }
        cuts
    }
}

/// The page in parts, of which the first has this number in its stream.
fn parts(header: &PageHeader, page: &[u8], cuts: &[Cut], first: u32) -> Option<Vec<(PageHeader, Bytes)>> {
    let (head, table) = (page.get(..MIN_PAGE_LEN)?, segment_table(page));
    let mut body = page.get(header.header_len()..header.total_len())?;
    let mut out = Vec::with_capacity(cuts.len() + 1);
    let whole = Cut { segments: table.len(), granule: header.granule.unwrap_or(-1) };
    let (mut from, mut number) = (0, first);
    for (i, cut) in cuts.iter().chain([&whole]).enumerate() {
        let laces = table.get(from..cut.segments)?;
        let (data, rest) = body.split_at_checked(laces.iter().map(|l| usize::from(*l)).sum())?;
        let mut part = BytesMut::with_capacity(MIN_PAGE_LEN + laces.len() + data.len());
        part.put_slice(head);
        let (is_first, is_last) = (i == 0, i == cuts.len());
        let flags = part.get_mut(FLAGS)?;
        *flags &= !(if is_first { 0 } else { CONTINUED } | if is_last { 0 } else { EOS });
        part.get_mut(GRANULE)?.copy_from_slice(&cut.granule.to_le_bytes());
        part.get_mut(SEQUENCE)?.copy_from_slice(&number.to_le_bytes());
        *part.get_mut(MIN_PAGE_LEN - 1)? = u8::try_from(laces.len()).ok()?;
        part.put_slice(laces);
        part.put_slice(data);
        seal(&mut part);
        out.push((PageHeader::parse(&part).ok()?, part.freeze()));
        (from, body, number) = (cut.segments, rest, number.wrapping_add(1));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ogg::page::packet_parts;
    use crate::ogg::tests::build::{PageBuilder, any_page};
    use crate::ogg::{SplitEvent, Splitter, Timeline};

    fn run(pages: &[Bytes], page_time: Duration) -> Vec<(PageHeader, Bytes)> {
        let mut repage = Repage::new(page_time);
        let mut out: Vec<_> =
            pages.iter().flat_map(|p| repage.page(&PageHeader::parse(p).unwrap(), p.clone())).collect();
        out.extend(repage.end());
        out
    }

    fn pages_of(file: &[u8]) -> Vec<Bytes> {
        let mut splitter = Splitter::new();
        splitter.push(Bytes::copy_from_slice(file));
        splitter.gap();
        std::iter::from_fn(|| splitter.next())
            .filter_map(|e| if let SplitEvent::Page { bytes, .. } = e { Some(bytes) } else { None })
            .collect()
    }

    /// What pages hold, for each serial number: bytes of packets, where each ends, and what is cut off at the end.
    fn packets<'a>(pages: impl Iterator<Item = &'a Bytes>) -> BTreeMap<u32, (Vec<Vec<u8>>, Vec<u8>)> {
        let mut all: BTreeMap<u32, (Vec<Vec<u8>>, Vec<u8>)> = BTreeMap::new();
        for page in pages {
            let (done, open) = all.entry(PageHeader::parse(page).unwrap().serial).or_default();
            for part in packet_parts(page) {
                open.extend_from_slice(part.data);
                if part.ends {
                    done.push(std::mem::take(open));
                }
            }
        }
        all
    }

    /// A stream as its encoder means it: its setup pages, and packets with the position behind each.
    #[derive(Debug, Clone)]
    struct Meant {
        setup: Vec<Vec<u8>>,
        packets: Vec<(Vec<u8>, i64)>,
        /// By how much the last page says less.
        trimmed: i64,
    }

    /// Opus from a position on, the packets of 2.5 to 60 ms.
    fn opus() -> impl Strategy<Value = Meant> {
        let packets = proptest::collection::vec((0_u8..32, 0_usize..900), 1..60);
        // (Of a single page, a beginning that is less than what is cut off at the end cannot be told from zero.)
        (packets, prop_oneof![Just(0_i64), 100..1_i64 << 40], 0_i64..100).prop_map(
            |(packets, start, trimmed)| {
                let mut at = start;
                let packets = packets.into_iter().map(|(config, len)| {
                    let packet = [vec![config << 3], vec![config; len]].concat();
                    at += i64::try_from(crate::ogg::packet::opus_samples(&packet).unwrap()).unwrap();
                    (packet, at)
                });
                let head = [b"OpusHead".as_slice(), &[1, 2, 0, 0, 0x80, 0xbb, 0, 0, 0, 0, 0]].concat();
                let tags = [b"OpusTags".as_slice(), &[0; 8]].concat();
                Meant { packets: packets.collect(), setup: vec![head, tags], trimmed }
            },
        )
    }

    /// FLAC with blocks of many sizes.
    fn flac() -> impl Strategy<Value = Meant> {
        proptest::collection::vec((2_u8..6, 20_usize..2000), 1..40).prop_map(|packets| {
            let mut at = 0;
            let packets = packets.into_iter().map(|(code, len)| {
                at += 576_i64 << (code - 2);
                ([&[0xff, 0xf8, code << 4, 0, 0][..], &vec![code; len]].concat(), at)
            });
            let info = [&[0_u8; 10][..], &(48_000_u32 << 12 | 1 << 9).to_be_bytes(), &[0; 20]].concat();
            let head = [b"\x7fFLAC\x01\0\0\0fLaC\0\0\0\x22", &info[..]].concat();
            Meant { packets: packets.collect(), setup: vec![head, vec![0x84, 0, 0, 0]], trimmed: 0 }
        })
    }

    /// Theora with a keyframe now and then, and frames that are repeated.
    fn theora() -> impl Strategy<Value = Meant> {
        proptest::collection::vec((0_u8..12, 1_usize..3000), 1..60).prop_map(|packets| {
            let (mut frames, mut key) = (0_i64, 0);
            let packets = packets.into_iter().enumerate().map(|(i, (kind, len))| {
                frames += 1;
                let keyframe = kind == 0 || i == 0;
                if keyframe {
                    key = frames;
                }
                let packet = if kind == 1 && !keyframe {
                    Vec::new()
                } else {
                    [vec![if keyframe { 0 } else { 0x40 }], vec![kind; len]].concat()
                };
                (packet, key << 6 | (frames - key))
            });
            let mut head = b"\x80theora\x03\x02\x01".to_vec();
            head.extend([0, 20, 0, 15, 0, 1, 0x36, 0, 0, 0xf0, 0, 0]);
            head.extend([0, 0, 0, 25, 0, 0, 0, 1]);
            head.extend([0; 10]);
            head.extend((6_u16 << 5).to_be_bytes());
            let setup = vec![head, b"\x81theora".to_vec(), b"\x82theora".to_vec()];
            Meant { packets: packets.collect(), setup, trimmed: 0 }
        })
    }

    /// Lays a stream onto pages that end after so many segments each, over and over.
    fn lay(serial: u32, meant: &Meant, breaks: &[usize]) -> Vec<Bytes> {
        let mut pages: Vec<Bytes> = Vec::new();
        for (i, packet) in meant.setup.iter().enumerate() {
            let page = PageBuilder::new(serial).sequence(u32::try_from(i).unwrap()).packet(packet);
            pages.push(if i == 0 { page.bos() } else { page }.build().into());
        }
        // (segment, position behind it if a packet ends with it)
        let mut segments: Vec<(&[u8], Option<i64>)> = Vec::new();
        for (packet, position) in &meant.packets {
            segments.extend(packet.chunks_exact(255).map(|c| (c, None)));
            segments.push((packet.chunks_exact(255).remainder(), Some(*position)));
        }
        let (mut rest, mut open) = (&segments[..], false);
        for take in breaks.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (these, others) = rest.split_at((*take).min(rest.len()));
            rest = others;
            let granule = these.iter().rev().find_map(|s| s.1).unwrap_or(-1);
            let mut page = PageBuilder::new(serial).sequence(u32::try_from(pages.len()).unwrap());
            page = page.granule(if rest.is_empty() { granule - meant.trimmed } else { granule });
            if rest.is_empty() {
                page = page.eos();
            }
            if open {
                page = page.continued();
            }
            open = these.last().is_some_and(|s| s.1.is_none());
            let laces: Vec<u8> = these.iter().map(|s| u8::try_from(s.0.len()).unwrap()).collect();
            page = page.laces(&laces);
            pages.push(these.iter().fold(page, |p, s| p.body(s.0)).build().into());
        }
        pages
    }

    /// What must hold of pages that came of others.
    fn sound(before: &[Bytes], after: &[(PageHeader, Bytes)]) -> Result<(), TestCaseError> {
        prop_assert!(packets(before.iter()) == packets(after.iter().map(|(_, p)| p)), "packets differ");
        let mut next = BTreeMap::new();
        for (header, page) in after {
            prop_assert!(crate::ogg::page::verify(page));
            prop_assert_eq!(PageHeader::parse(page).unwrap(), *header);
            let (number, open) = next.entry(header.serial).or_insert((header.sequence, false));
            prop_assert_eq!(*number, header.sequence, "numbers follow");
            prop_assert_eq!(*open, header.continued);
            *number += 1;
            *open = segment_table(page).last() == Some(&255);
            let ends = packet_parts(page).any(|p| p.ends);
            prop_assert_eq!(ends, header.granule.is_some(), "a position where a packet ends, and there only");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn packets_stay_and_each_page_says_where_it_ends(
            meant in prop_oneof![opus(), flac(), theora()],
            breaks in proptest::collection::vec(1_usize..255, 1..6),
            millis in 1_u64..1500,
        ) {
            let before = lay(7, &meant, &breaks);
            let after = run(&before, Duration::from_millis(millis));
            sound(&before, &after)?;
            prop_assert!(after.iter().zip(&before).take(meant.setup.len()).all(|((_, a), b)| a == b), "setup");
            // The position of each page is that of the last packet on it.
            let (mut ended, mut begun) = (0, 0);
            for (i, (header, page)) in after.iter().enumerate().skip(meant.setup.len()) {
                let ends = packet_parts(page).filter(|p| p.ends).count();
                ended += ends;
                let is_last = i + 1 == after.len();
                prop_assert_eq!(header.eos, is_last);
                if let Some(granule) = header.granule {
                    let meant_here = meant.packets[ended - 1].1 - if is_last { meant.trimmed } else { 0 };
                    prop_assert_eq!(granule, meant_here, "page {}", i);
                }
                // Several packets last no longer than they may.
                let micros = |packets: usize| {
                    let units = |g: i64| if meant.setup.len() == 3 { (g >> 6) + (g & 63) } else { g };
                    let rate = if meant.setup.len() == 3 { 25 } else { 48_000 };
                    packets.checked_sub(1).map(|p| units(meant.packets[p].1) * 1_000_000 / rate)
                };
                // (Where the first page of sound begins is not known, nor what is cut off at the end.)
                if ends > 1 && begun > 0 && !is_last {
                    let lasts = micros(ended).unwrap() - micros(begun).unwrap();
                    prop_assert!(lasts <= i64::try_from(millis).unwrap() * 1000 + 1, "page {} lasts {} us", i, lasts);
                }
                begun = ended;
            }
        }

        #[test]
        fn nothing_is_made_of_nonsense(pages in proptest::collection::vec(any_page(), 1..12), serial in 0_u32..2) {
            let pages: Vec<Bytes> = pages
                .into_iter()
                .map(|mut p| {
                    p[14..18].copy_from_slice(&serial.to_le_bytes());
                    seal(&mut p);
                    p.into()
                })
                .collect();
            let after = run(&pages, Duration::from_millis(1));
            prop_assert!(packets(pages.iter()) == packets(after.iter().map(|(_, p)| p)));
            prop_assert!(after.iter().all(|(_, p)| crate::ogg::page::verify(p)));
        }
    }

    #[test]
    fn files_of_real_encoders_keep_packets_length_and_setup() {
        for name in [
            "vorbis.ogg",
            "opus.opus",
            "flac.oga",
            "speex.spx",
            "vorbis-ffmpeg.ogg",
            "opus-ffmpeg.opus",
            "flac-ffmpeg.oga",
            "speex-ffmpeg.spx",
            "theora-vorbis.ogv",
            "skeleton.ogv",
            "chained-vorbis.ogg",
            "chained-opus.opus",
        ] {
            let before = pages_of(&crate::ogg::tests::fixtures::read(name));
            let after = run(&before, Duration::from_millis(100));
            assert!(after.len() > before.len(), "{name}: {} pages", after.len());
            assert!(packets(before.iter()) == packets(after.iter().map(|(_, p)| p)), "{name}");
            let (mut old, mut new) = (Timeline::new(), Timeline::new());
            for p in &before {
                old.page(&PageHeader::parse(p).unwrap(), p);
            }
            let mut longest = 0;
            let mut ends = BTreeMap::new();
            for (header, page) in &after {
                assert!(crate::ogg::page::verify(page), "{name}");
                let place = new.page(header, page);
                let link = new.link().unwrap();
                if let Some(stream) = link.streams.get(place.stream).filter(|_| !place.setup) {
                    let key = (place.link, place.stream);
                    let before = ends.insert(key, stream.end).unwrap_or(link.start);
                    assert!(stream.end >= before, "{name}");
                    if !header.eos {
                        longest = longest.max(stream.end - before);
                    }
                }
            }
            assert_eq!((new.link_count(), new.duration()), (old.link_count(), old.duration()), "{name}");
            let setup = |t: &Timeline| t.links().map(|l| l.setup_span).collect::<Vec<_>>();
            assert_eq!(setup(&new), setup(&old), "{name}");
            // Some packets last longer: blocks of FLAC at 16 kHz 256 ms, packets of Speex in one of these files 200 ms.
            let most = if name.starts_with("speex") || name.starts_with("flac") { 260_000 } else { 100_000 };
            assert!(longest <= most, "{name}: a page of {longest} us");
        }
    }

    #[test]
    fn parts_of_several_streams_come_in_the_order_of_their_ends() {
        let before = pages_of(&crate::ogg::tests::fixtures::read("theora-vorbis.ogv"));
        let after = run(&before, Duration::from_millis(100));
        let (mut timeline, mut last, mut turns, mut of) = (Timeline::new(), 0, 0, 0);
        for (header, page) in &after {
            let place = timeline.page(header, page);
            let end = timeline.link().unwrap().streams[place.stream].end;
            assert!(place.setup || end >= last, "{end} behind {last}");
            turns += usize::from(std::mem::replace(&mut of, place.stream) != place.stream);
            last = last.max(end);
        }
        assert!(turns > 30, "{turns} turns in {} pages", after.len());
    }

    #[test]
    fn a_stream_that_lags_holds_nothing_up_for_long() {
        let file = pages_of(&crate::ogg::tests::fixtures::read("theora-vorbis.ogv"));
        let serial = |p: &Bytes| PageHeader::parse(p).unwrap().serial;
        let sound = serial(&file[1]);
        // Setup, and then sound alone.
        let pages: Vec<_> = file
            .iter()
            .enumerate()
            .filter(|(i, p)| *i < 4 || serial(p) == sound)
            .map(|(_, p)| p.clone())
            .collect();
        let mut repage = Repage::new(Duration::from_millis(100));
        let mut out: Vec<_> = Vec::new();
        for p in &pages {
            out.extend(repage.page(&PageHeader::parse(p).unwrap(), p.clone()));
        }
        let rest = repage.end();
        let whole = packets(pages.iter());
        assert!(packets(out.iter().chain(&rest).map(|(_, p)| p)) == whole);
        assert!(out.len() > 4 && rest.len() <= 25, "{} at once, {} in the end", out.len(), rest.len());
    }

    #[test]
    fn what_is_short_already_stays_as_it_is() {
        let pages = crate::live::tests::opus(7, 50);
        assert!(run(&pages, Duration::from_millis(20)).iter().map(|(_, p)| p).eq(&pages));
    }
}
