//! A chain as one logical stream, for players that stop where a link ends (browsers do): one serial number, page numbers and positions
//! that go on, and no header packets but the first ones. That can be done as long as later links have the same setup; titles, which make
//! most links, are told beside it. Sans-IO.
//!
//! What a link says not to play at its beginning and end is left out as far as it is whole packets, since a decoder that never
//! heard of the link would play it: so the links that [`Titles`](super::Titles) makes leave no trace. What remains at a link of another
//! encoder is less than a packet (Opus: 6.5 ms as a rule).

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::ogg::ends::{End, Ends};
use crate::ogg::page::{GRANULE, MIN_PAGE_LEN, SEQUENCE, SERIAL, packet_parts, seal, segment_table};
use crate::ogg::{Codec, Format, PageHeader};

/// Where a page has its flags, and those that are used here.
const FLAGS: usize = 5;
const CONTINUED: u8 = 1;
const EOS: u8 = 4;
/// Setup packets of a link have so many bytes together at most.
const SETUP: usize = 1 << 20;
/// So many lost pages in a row are shown by page numbers; more than that is another beginning.
const LOST: u32 = 1 << 16;

/// Why the stream cannot go on as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FlatError {
    /// The next link has another codec, rate, number of channels or setup: a decoder must begin anew.
    #[error("the next link has another codec or another setup")]
    Setup,
    /// The next link, or the first one, has several logical streams, or is of a codec whose setup is not known.
    #[error("only links of one logical stream of Opus, Vorbis, FLAC or Speex can be joined")]
    Codec,
}

/// Takes the pages of a chain and gives those of one logical stream.
#[derive(Debug, Default)]
pub struct Flat {
    /// Serial number and setup packets of the first link.
    first: Option<(u32, Vec<Bytes>)>,
    link: Option<Link>,
    /// A page came that begins no logical stream.
    body: bool,
    /// Number of the next page, and position behind the last one, of what goes out.
    number: u32,
    end: i64,
    /// The last packet that went out (Vorbis).
    last: Bytes,
    failed: Option<FlatError>,
}

#[derive(Debug)]
struct Link {
    serial: u32,
    format: Format,
    ends: Ends,
    /// It is the first one, whose setup pages go out.
    is_first: bool,
    /// It cannot be joined to others: there are other logical streams beside this one, or its codec is none that is known here.
    apart: bool,
    setup: Vec<Bytes>,
    /// A setup packet that goes on.
    open: BytesMut,
    ready: bool,
    /// Number of the source's next page; none before its first page of sound.
    next: Option<u32>,
    /// What is added to positions; none before the first page that has one.
    shift: Option<i64>,
    /// Position by the link's own count behind the last packet.
    at: Option<i64>,
    /// Samples at its beginning that are not to be played, as far as they are still to come.
    skip: u64,
    /// The packet that goes on is left out.
    skips_open: bool,
    /// Something of its sound went out.
    sounds: bool,
}

impl Flat {
    /// Takes the next page of the chain; what goes out in its place.
    ///
    /// # Errors
    /// [`FlatError`], and the same for each page from then on: here the stream ends.
    pub fn page(&mut self, header: &PageHeader, bytes: &Bytes) -> Result<Option<Bytes>, FlatError> {
        if let Some(e) = self.failed {
            return Err(e);
        }
        let taken = self.take(header, bytes);
        self.failed = taken.as_ref().err().copied();
        taken
    }

    fn take(&mut self, header: &PageHeader, bytes: &Bytes) -> Result<Option<Bytes>, FlatError> {
        if header.bos {
            match self.link.as_mut().filter(|_| !self.body) {
                Some(link) => link.apart = true,
                None => {
                    let before = self.link.take();
                    self.link = Some(Link::new(header, bytes, before.as_ref()));
                }
            }
        }
        self.body = !header.bos;
        let Some(link) = &mut self.link else { return Ok(None) };
        if link.apart {
            return if link.is_first { Ok(Some(bytes.clone())) } else { Err(FlatError::Codec) };
        }
        if link.serial != header.serial {
            return Ok(None);
        }
        let ends = link.ends.page(header, bytes);
        if !link.ready {
            link.take_setup(bytes)?;
            if !link.is_first && link.ready {
                let first = self.first.as_ref().ok_or(FlatError::Codec)?;
                if !link.is_like(&first.1) {
                    return Err(FlatError::Setup);
                }
            } else if link.ready {
                self.first = Some((link.serial, link.setup.clone()));
            }
            let out = if link.is_first { whole(header, bytes, link.serial, self.number) } else { None };
            self.number = self.number.wrapping_add(u32::from(out.is_some()));
            return Ok(out);
        }
        let lost =
            link.next.replace(header.sequence.wrapping_add(1)).map(|n| header.sequence.wrapping_sub(n));
        self.number = self.number.wrapping_add(lost.filter(|n| *n < LOST).unwrap_or(0));
        let Some(kept) = link.kept(header, bytes, &ends, &self.last) else { return Ok(None) };
        if let (None, Some(begins)) = (link.shift, kept.begins) {
            link.shift = Some(self.end.saturating_sub(begins));
        }
        let granule = kept.granule.zip(link.shift).map(|(g, shift)| g.saturating_add(shift).max(0));
        self.end = granule.unwrap_or(self.end).max(self.end);
        if link.format.codec == Codec::Vorbis
            && let Some(part) = packet_parts(bytes).filter(|p| p.starts && p.ends).last()
        {
            self.last = bytes.slice_ref(part.data);
        }
        let serial = self.first.as_ref().map_or(header.serial, |(serial, _)| *serial);
        let out = kept.page(header, bytes, granule, serial, self.number);
        self.number = self.number.wrapping_add(u32::from(out.is_some()));
        Ok(out)
    }
}

impl Link {
    fn new(header: &PageHeader, page: &[u8], before: Option<&Link>) -> Link {
        let format = Format::of(packet_parts(page).next().map_or(&[], |p| p.data));
        let ends = Ends::new(header, page);
        Link {
            serial: header.serial,
            format,
            ends: match before {
                Some(before) => ends.behind(&before.ends),
                None => ends,
            },
            is_first: before.is_none(),
            apart: !matches!(format.codec, Codec::Opus | Codec::Vorbis | Codec::Flac | Codec::Speex),
            setup: Vec::new(),
            open: BytesMut::new(),
            ready: false,
            next: None,
            shift: None,
            at: None,
            skip: before.map_or(0, |_| format.pre_skip()),
            skips_open: false,
            sounds: before.is_none(),
        }
    }

    fn take_setup(&mut self, page: &[u8]) -> Result<(), FlatError> {
        for part in packet_parts(page) {
            if self.ready {
                break;
            }
            if part.starts {
                self.open.clear();
            }
            self.open.extend_from_slice(part.data);
            if self.open.len() + self.setup.iter().map(Bytes::len).sum::<usize>() > SETUP {
                return Err(FlatError::Setup);
            }
            if part.ends {
                self.setup.push(self.open.split().freeze());
                self.ready = self.format.is_set_up_by(&self.setup);
            }
        }
        Ok(())
    }

    /// Whether a decoder that was set up for another link can go on with this one.
    fn is_like(&self, first: &[Bytes]) -> bool {
        let same = |packet: usize, bytes: std::ops::Range<usize>| {
            let part = |all: &[Bytes]| all.get(packet)?.get(bytes.clone()).map(<[u8]>::to_vec);
            part(&self.setup).is_some_and(|p| part(first) == Some(p))
        };
        let rest = |packet: usize, from: usize| {
            let part = |all: &[Bytes]| all.get(packet)?.get(from..).map(<[u8]>::to_vec);
            part(&self.setup).is_some_and(|p| part(first) == Some(p))
        };
        match self.format.codec {
            // All but pre-skip and the rate that its source had.
            Codec::Opus => same(0, 0..10) && rest(0, 16),
            // All but bit rates and comments.
            Codec::Vorbis => same(0, 0..16) && rest(0, 28) && rest(2, 0),
            // Block sizes, rate, channels and bits, but no lengths, no checksum and no other blocks.
            Codec::Flac => {
                same(0, 0..7) && same(0, 17..21) && same(0, 27..30) && bits(&self.setup) == bits(first)
            }
            Codec::Speex => rest(0, 0),
            _ => false,
        }
    }

    /// What of a page of sound is to be heard; nothing: `None`.
    fn kept(&mut self, header: &PageHeader, page: &[u8], ends: &[End], last: &[u8]) -> Option<Kept> {
        let table = segment_table(page);
        let mut kept = Kept { from: 0, segments: table.len(), begins: None, granule: header.granule };
        if self.at.is_none() {
            self.at = begins(header, ends, self.format.codec);
        }
        let mut heard = ends.iter().peekable();
        let mut parts = packet_parts(page).filter(|p| p.ends);
        // From its beginning: what is not to be played.
        while !self.sounds
            && let Some(end) = heard.peek().copied()
        {
            let packet = parts.next().map_or(&[][..], |p| p.data);
            let open = std::mem::take(&mut self.skips_open);
            let again = self.format.codec == Codec::Vorbis && kept.from == 0 && packet == last;
            let skipped = (1..=self.skip).contains(&end.units);
            if !again && !skipped && !open {
                break;
            }
            self.skip = self.skip.saturating_sub(end.units);
            self.at = self.at.map(|at| at.saturating_add(units(end)));
            kept.from = end.segments;
            heard.next();
        }
        if !self.sounds && heard.peek().is_none() && self.skip > 0 && table.last() == Some(&255) {
            // It goes on on the next page, and is to be skipped as a whole.
            self.skips_open = true;
            return None;
        }
        kept.begins = self.at;
        if let Some((granule, before)) = header.granule.zip(self.at).filter(|_| header.eos) {
            // To its end: what lies behind the last position. What is played begins before that.
            let (mut at, mut segments) = (before, kept.from);
            for end in heard {
                let empty = end.segments == segments + 1 && table.get(segments) == Some(&0);
                if empty || end.units > 0 && at >= granule {
                    break;
                }
                (at, segments) = (at.saturating_add(units(end)), end.segments);
            }
            kept.segments = segments;
            // Where pages were lost, what was counted lags behind.
            let end = if segments > kept.from { at.max(granule) } else { before };
            (kept.granule, self.at) = (Some(end), Some(end));
        } else if header.granule.is_some() {
            self.at = header.granule;
        }
        let kept = Some(kept).filter(|k| k.from < k.segments);
        self.sounds |= kept.is_some();
        kept
    }
}

/// The position at which the first packet begins that ends on a page; what is not known of lengths is taken for nothing.
fn begins(header: &PageHeader, ends: &[End], codec: Codec) -> Option<i64> {
    let first = ends.first()?;
    let from_first = first.granule.map(|g| g.saturating_sub(units(first)));
    from_first.or_else(|| {
        let sum = ends.iter().map(units).sum();
        let at = header.granule?.saturating_sub(sum);
        // What is cut off at the end was never counted. (In Vorbis the first packet of a link counts for nothing, there.)
        let least = if codec == Codec::Vorbis { -units(first) } else { 0 };
        Some(if header.eos { at.max(least) } else { at })
    })
}

fn units(end: &End) -> i64 {
    i64::try_from(end.units).unwrap_or(0)
}

/// The part of the byte of FLAC's STREAMINFO that tells of its samples' size.
fn bits(setup: &[Bytes]) -> Option<u8> {
    setup.first()?.get(30).map(|b| b & 0xf0)
}

/// A part of a page.
#[derive(Debug)]
struct Kept {
    from: usize,
    /// The segment behind it.
    segments: usize,
    /// Where it begins and ends, by the link's count.
    begins: Option<i64>,
    granule: Option<i64>,
}

impl Kept {
    fn page(
        &self,
        header: &PageHeader,
        page: &[u8],
        granule: Option<i64>,
        serial: u32,
        number: u32,
    ) -> Option<Bytes> {
        let table = segment_table(page);
        let len = |laces: &[u8]| laces.iter().map(|l| usize::from(*l)).sum::<usize>();
        let (before, laces) = (table.get(..self.from)?, table.get(self.from..self.segments)?);
        let body = page.get(header.header_len()..)?.get(len(before)..)?.get(..len(laces))?;
        let mut out = BytesMut::with_capacity(MIN_PAGE_LEN + laces.len() + body.len());
        out.put_slice(page.get(..MIN_PAGE_LEN)?);
        *out.get_mut(FLAGS)? &= !(EOS | if self.from > 0 { CONTINUED } else { 0 });
        out.get_mut(GRANULE)?.copy_from_slice(&granule.unwrap_or(-1).to_le_bytes());
        out.get_mut(SERIAL)?.copy_from_slice(&serial.to_le_bytes());
        out.get_mut(SEQUENCE)?.copy_from_slice(&number.to_le_bytes());
        *out.get_mut(MIN_PAGE_LEN - 1)? = u8::try_from(laces.len()).ok()?;
        out.put_slice(laces);
        out.put_slice(body);
        seal(&mut out);
        Some(out.freeze())
    }
}

/// A setup page of the first link under its number.
fn whole(header: &PageHeader, page: &[u8], serial: u32, number: u32) -> Option<Bytes> {
    let segments = usize::from(header.segments);
    let kept = Kept { from: 0, segments, begins: None, granule: header.granule };
    kept.page(header, page, header.granule, serial, number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::live::tests::opus;
    use crate::live::{Repage, Titles};
    use crate::ogg::tests::build::any_page;
    use crate::ogg::tests::fixtures;
    use crate::ogg::{SplitEvent, Splitter, Timeline};

    fn header(page: &Bytes) -> PageHeader {
        PageHeader::parse(page).unwrap()
    }

    fn pages_of(file: &[u8]) -> Vec<Bytes> {
        let mut splitter = Splitter::new();
        splitter.push(Bytes::copy_from_slice(file));
        std::iter::from_fn(|| splitter.next())
            .filter_map(|e| if let SplitEvent::Page { bytes, .. } = e { Some(bytes) } else { None })
            .collect()
    }

    fn packets(pages: &[Bytes]) -> Vec<Vec<u8>> {
        let (mut all, mut open) = (Vec::new(), Vec::new());
        for part in pages.iter().flat_map(|p| packet_parts(p)) {
            open.extend_from_slice(part.data);
            // (ffmpeg ends FLAC with a packet of nothing.)
            if part.ends {
                all.extend(Some(std::mem::take(&mut open)).filter(|p| !p.is_empty()));
            }
        }
        all
    }

    fn flat(pages: &[Bytes]) -> (Vec<Bytes>, Option<FlatError>) {
        let (mut flat, mut out) = (Flat::default(), Vec::new());
        for page in pages {
            match flat.page(&header(page), page) {
                Ok(page) => out.extend(page),
                Err(e) => return (out, Some(e)),
            }
        }
        (out, None)
    }

    /// One logical stream, and how long it lasts.
    fn is_one(pages: &[Bytes]) -> i64 {
        let mut timeline = Timeline::new();
        for (i, page) in pages.iter().enumerate() {
            assert!(crate::ogg::page::verify(page));
            let h = header(page);
            assert_eq!((h.sequence as usize, h.bos, h.eos), (i, i == 0, false), "page {i}");
            assert_eq!(h.serial, header(&pages[0]).serial);
            timeline.page(&h, page);
        }
        assert_eq!(timeline.link_count(), 1);
        timeline.duration()
    }

    #[test]
    fn of_titles_nothing_is_left() {
        for name in [
            "opus.opus",
            "vorbis.ogg",
            "flac.oga",
            "opus-ffmpeg.opus",
            "vorbis-ffmpeg.ogg",
            "flac-ffmpeg.oga",
        ] {
            let plain = pages_of(&fixtures::read(name));
            let (mut repage, mut titles) =
                (Repage::new(std::time::Duration::from_millis(110)), Titles::default());
            let (mut chain, mut links) = (Vec::new(), 0_u32);
            for (i, page) in plain.iter().flat_map(|p| repage.page(&header(p), p.clone())).enumerate() {
                if [5, 6, 8].contains(&i) {
                    titles.set(vec![("TITLE".to_owned(), format!("{i}"))]).unwrap();
                }
                for (h, page) in titles.page(&page.0, page.1) {
                    links += u32::from(h.bos);
                    // As a broadcast does: each link has a serial number of its own.
                    let mut page = BytesMut::from(&page[..]);
                    page[SERIAL].copy_from_slice(&links.to_le_bytes());
                    seal(&mut page);
                    chain.push(page.freeze());
                }
            }
            assert_eq!(links, 4, "{name}");
            let (out, failed) = flat(&chain);
            assert_eq!(failed, None, "{name}");
            assert!(packets(&out) == packets(&plain), "{name}: packets");
            let mut timeline = Timeline::new();
            for p in &plain {
                timeline.page(&header(p), p);
            }
            // An end that is cut off within a packet is not, here.
            let more = is_one(&out) - timeline.duration();
            assert!((0..100_000).contains(&more), "{name}: {more} us more");
        }
    }

    #[test]
    fn links_of_other_encoders_go_on_and_those_with_another_setup_do_not() {
        let (one, two) = (opus(7, 50), opus(9, 30));
        let (out, failed) = flat(&[one.clone(), two.clone()].concat());
        assert_eq!((failed, out.len()), (None, 2 + 50 + 30));
        assert_eq!(packets(&out), [packets(&one), packets(&two[2..])].concat());
        // Of the second link all is played, of the first one all but its pre-skip.
        assert_eq!(is_one(&out), 80 * 20_000 - 6_500);
        assert_eq!(header(&out[81]).granule, Some(80 * 960));

        // Stereo, then mono.
        let mut mono = opus(9, 30);
        let mut first = BytesMut::from(&mono[0][..]);
        first[28 + 9] = 1;
        seal(&mut first);
        mono[0] = first.freeze();
        let (out, failed) = flat(&[one.clone(), mono].concat());
        assert_eq!((failed, out.len()), (Some(FlatError::Setup), 52));
        let other = pages_of(&fixtures::read("vorbis.ogg"));
        let (out, failed) = flat(&[one, other].concat());
        assert_eq!((failed, out.len()), (Some(FlatError::Setup), 52));
    }

    #[test]
    fn who_comes_in_the_middle_hears_from_zero_on_and_losses_are_seen() {
        let all = opus(7, 60);
        let (out, _) = flat(&[&all[..2], &all[22..30], &all[31..]].concat());
        let numbers: Vec<_> = out.iter().map(|p| header(p).sequence).collect();
        assert_eq!(numbers, (0..10).chain(11..42).collect::<Vec<_>>());
        let positions: Vec<_> = out[2..].iter().map(|p| header(p).granule.unwrap()).collect();
        assert_eq!((positions[0], positions[8], *positions.last().unwrap()), (960, 960 * 10, 960 * 40));
    }

    #[test]
    fn pictures_and_sound_stay_as_they_are_until_another_link_comes() {
        let film = pages_of(&fixtures::read("theora-vorbis.ogv"));
        let (out, failed) = flat(&[film.clone(), opus(7, 5)].concat());
        assert_eq!((out, failed), (film, Some(FlatError::Codec)));
    }

    proptest! {
        #[test]
        fn nothing_panics(pages in proptest::collection::vec((any_page(), 0_u32..2), 1..20), real in any::<bool>()) {
            let mut all = if real { opus(0, 3) } else { Vec::new() };
            all.extend(pages.into_iter().map(|(mut p, serial)| {
                p[14..18].copy_from_slice(&serial.to_le_bytes());
                seal(&mut p);
                Bytes::from(p)
            }));
            let (out, _) = flat(&all);
            prop_assert!(out.iter().all(|p| crate::ogg::page::verify(p)));
        }
    }
}
