//! Live media as one logical stream, with titles beside it: for browsers, which stop where a link of a chain ends, and for players that
//! lose sound there or play it twice.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use iceshare::live::{Flat, FlatError, NowOn, Unended};
use iceshare::ogg::page::packet_parts;
use iceshare::ogg::{Codec, Format, PageHeader};
use tokio::sync::watch;

use crate::playable::Pages;

/// Bytes between two titles, where they are asked for in the stream (`Icy-MetaData: 1`).
pub(crate) const EVERY: usize = 16_000;

/// What becomes of a chain where the codec or its setup changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The stream ends, for who would stop there without a word.
    One,
    /// Another link begins where rate, channels or setup change, and only there. At another codec the stream ends: ffmpeg and mpv would end
    /// there with an error, VLC and ffplay go silent; and who asks again gets the new one.
    Setups,
}

/// Where a response had to end though the broadcast goes on: who comes again soon goes on there.
#[derive(Debug)]
pub(crate) struct Left {
    /// The first page of the link that could not be joined, and when its time had come.
    at: Mutex<Option<(u64, Instant)>>,
    /// How many responses ended so.
    pub(crate) count: watch::Sender<u64>,
}

/// So long after it players come again; later ones begin where all do.
const SOON: Duration = Duration::from_secs(15);

impl Default for Left {
    fn default() -> Left {
        Left { at: Mutex::default(), count: watch::Sender::new(0) }
    }
}

impl Left {
    fn here(&self, page: u64) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some((page, Instant::now()));
        self.count.send_modify(|n| *n += 1);
    }

    /// Where who comes now begins, if it matters.
    pub(crate) fn page(&self) -> Option<u64> {
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.filter(|(_, at)| at.elapsed() < SOON).map(|(page, _)| page)
    }
}

/// Pages of a chain as they are; where the last link breaks off its logical streams are given an end.
pub(crate) fn links(pages: Pages) -> BoxStream<'static, io::Result<Bytes>> {
    let out = stream::try_unfold(Some((pages, Unended::default())), |state| async move {
        let Some((mut pages, mut unended)) = state else { return Ok(None) };
        if let Some((_, page)) = pages.next().await.transpose()? {
            if let Ok(header) = PageHeader::parse(&page) {
                unended.page(&header);
            }
            return Ok(Some((page, Some((pages, unended)))));
        }
        Ok(unended.close().map(|end| (end, None)))
    });
    out.boxed()
}

/// Pages of a chain as those of one logical stream, as far as that can go on.
pub(crate) fn flat(
    pages: Pages,
    joined: Joined,
    titles: bool,
    left: Arc<Left>,
) -> BoxStream<'static, io::Result<Bytes>> {
    // Each page with the first one of its link.
    let (mut link, mut begun) = (0, false);
    let pages = pages.map_ok(move |(number, page)| {
        let begins = PageHeader::parse(&page).is_ok_and(|h| h.bos);
        if begins && !std::mem::replace(&mut begun, begins) {
            link = number;
        }
        begun = begins;
        (link, page)
    });
    let given = Given { icy: titles.then(Icy::default), ..Given::default() };
    let state = (pages, Joiner::new(joined), NowOn::default(), given, left);
    let out = stream::try_unfold(Some(state), |state| async move {
        let Some((mut pages, mut joiner, mut now, mut given, left)) = state else { return Ok(None) };
        while let Some((link, page)) = pages.next().await.transpose()? {
            let Ok(header) = PageHeader::parse(&page) else { continue };
            if let Some(icy) = given.icy.as_mut().filter(|_| now.page(&header, &page)) {
                icy.set(now.title());
            }
            match joiner.page(&header, &page) {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    let bytes = given.next(bytes);
                    return Ok(Some((bytes, Some((pages, joiner, now, given, left)))));
                }
                Err(why) => {
                    tracing::debug!(%why, "a live stream ends for who wants one logical stream");
                    left.here(link);
                    break;
                }
            }
        }
        Ok(given.end().map(|end| (end, None)))
    });
    out.boxed()
}

/// Most bytes of a link's beginning that are kept until it is known whether it can be joined: [`Flat`] takes a mebibyte of setup.
const BEGINNING: usize = 2 << 20;

/// Joins links, and begins anew where that cannot be done, if so wanted.
struct Joiner {
    flat: Flat,
    joined: Joined,
    /// The last link's pages up to its first page of sound, as long as none came.
    setup: Vec<(PageHeader, Bytes)>,
    setup_bytes: usize,
    begins: bool,
    /// Of the last link, and of what was joined before.
    codec: Option<Codec>,
    joined_codec: Option<Codec>,
}

impl Joiner {
    fn new(joined: Joined) -> Joiner {
        Joiner {
            flat: Flat::default(),
            joined,
            setup: Vec::new(),
            setup_bytes: 0,
            begins: false,
            codec: None,
            joined_codec: None,
        }
    }

    fn forget(&mut self) {
        self.setup.clear();
        self.setup_bytes = 0;
    }

    /// What goes out in the place of a page: nothing, a page, or all that begins another link.
    fn page(&mut self, header: &PageHeader, page: &Bytes) -> Result<Bytes, FlatError> {
        let before = std::mem::replace(&mut self.begins, header.bos);
        if header.bos && !before {
            self.forget();
            self.codec = Some(Format::of(packet_parts(page).next().map_or(&[], |p| p.data)).codec);
            self.joined_codec = self.joined_codec.or(self.codec);
        }
        let out = self.flat.page(header, page);
        if self.joined == Joined::One {
            return out.map(Option::unwrap_or_default);
        }
        match out {
            Ok(out) => {
                if out.is_some() {
                    self.forget();
                } else if self.setup_bytes + page.len() <= BEGINNING {
                    self.setup_bytes += page.len();
                    self.setup.push((*header, page.clone()));
                }
                Ok(out.unwrap_or_default())
            }
            Err(why) if self.codec != self.joined_codec => Err(why),
            Err(_) => {
                self.flat = Flat::default();
                let mut link = BytesMut::new();
                let setup = std::mem::take(&mut self.setup);
                self.forget();
                for (header, page) in &setup {
                    link.extend_from_slice(&self.flat.page(header, page)?.unwrap_or_default());
                }
                link.extend_from_slice(&self.flat.page(header, page)?.unwrap_or_default());
                Ok(link.freeze())
            }
        }
    }
}

/// What goes out of a stream whose links are joined, which have lost the marks at their ends.
#[derive(Default)]
struct Given {
    unended: Unended,
    icy: Option<Icy>,
}

impl Given {
    /// Pages, as they go out.
    fn next(&mut self, pages: Bytes) -> Bytes {
        self.unended.bytes(pages.clone());
        self.mixed(pages)
    }

    /// What is missing at the end.
    fn end(&mut self) -> Option<Bytes> {
        let pages = self.unended.close()?;
        Some(self.mixed(pages))
    }

    fn mixed(&mut self, pages: Bytes) -> Bytes {
        self.icy.as_mut().map(|icy| icy.mixed(&pages)).unwrap_or(pages)
    }
}

/// Titles between the bytes, as SHOUTcast began it and Icecast, ffmpeg, mpv and VLC know it: behind each [`EVERY`] bytes one byte, how many
/// times 16 bytes of text follow.
#[derive(Debug)]
struct Icy {
    /// Bytes up to the next title.
    left: usize,
    /// What it will be; none: as before.
    text: Option<Vec<u8>>,
}

impl Default for Icy {
    fn default() -> Icy {
        Icy { left: EVERY, text: None }
    }
}

impl Icy {
    fn set(&mut self, title: Option<&str>) {
        // Nothing in it may end the quotes.
        let title: String = title.unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        self.text = Some(format!("StreamTitle='{}';", title.replace('\'', "\u{2019}")).into_bytes());
    }

    fn mixed(&mut self, mut bytes: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(bytes.len() + 320);
        while bytes.len() >= self.left {
            let (before, rest) = bytes.split_at(self.left);
            out.put_slice(before);
            (bytes, self.left) = (rest, EVERY);
            let text = self.text.take().unwrap_or_default();
            let blocks = text.len().div_ceil(16).min(255);
            out.put_u8(u8::try_from(blocks).unwrap_or(0));
            out.put_slice(text.get(..blocks * 16).unwrap_or(&text));
            out.put_bytes(0, (blocks * 16).saturating_sub(text.len()));
        }
        out.put_slice(bytes);
        self.left -= bytes.len();
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of Opus.
    fn page(flags: u8, sequence: u32, granule: i64, packets: &[&[u8]]) -> Bytes {
        let mut page = b"OggS\0".to_vec();
        page.push(flags);
        page.extend(granule.to_le_bytes());
        page.extend(7_u32.to_le_bytes());
        page.extend(sequence.to_le_bytes());
        page.extend([0; 4]);
        page.push(u8::try_from(packets.len()).expect("few packets"));
        page.extend(packets.iter().map(|p| u8::try_from(p.len()).expect("a short packet")));
        page.extend(packets.concat());
        iceshare::ogg::page::seal(&mut page);
        page.into()
    }

    #[tokio::test]
    async fn where_joined_links_break_off_their_stream_is_given_an_end() {
        let sound: &[u8] = &[0xfc; 20];
        let broken_off = || {
            let all = [
                page(2, 0, 0, &[b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0"]),
                page(0, 1, 0, &[b"OpusTags\0\0\0\0\0\0\0\0"]),
                page(0, 2, 1920, &[sound; 2]),
                page(0, 3, 3840, &[sound; 2]),
            ];
            stream::iter(all.into_iter().zip(0..).map(|(page, n)| Ok((n, page)))).boxed()
        };
        for joined in [Joined::One, Joined::Setups] {
            for titles in [false, true] {
                let out = flat(broken_off(), joined, titles, Arc::default());
                let out: Vec<Bytes> = out.try_collect().await.expect("pages");
                let last = PageHeader::parse(out.last().expect("pages")).expect("a page");
                assert_eq!(
                    (out.len(), last.eos, last.segments, last.sequence),
                    (5, true, 0, 4),
                    "{joined:?}"
                );
            }
        }
    }

    #[test]
    fn titles_stand_between_the_bytes() {
        let mut icy = Icy::default();
        icy.set(Some("it's\n on"));
        let bytes: Vec<u8> = (0..2 * EVERY + 7).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect();
        let mixed: Vec<u8> = bytes.chunks(7_777).flat_map(|c| icy.mixed(c)).collect();
        let (first, rest) = mixed.split_at(EVERY);
        let text = "StreamTitle='it\u{2019}s on';";
        assert_eq!(usize::from(rest[0]), text.len().div_ceil(16));
        let (title, rest) = rest[1..].split_at(text.len().div_ceil(16) * 16);
        assert_eq!(std::str::from_utf8(title).map(|t| t.trim_end_matches('\0')), Ok(text));
        // Nothing new: no text.
        let (second, rest) = rest.split_at(EVERY);
        assert_eq!((rest[0], &rest[1..]), (0, &bytes[2 * EVERY..]));
        assert_eq!([first, second].concat(), bytes[..2 * EVERY]);
    }
}
