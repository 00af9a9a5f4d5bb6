//! The media time of every page, and to which logical stream and link it belongs.

use super::codec::{Codec, Format};
use super::comment::Comments;
use super::page::PageHeader;
use super::stream::Stream;

/// Most logical streams of one link that are told apart; what comes beyond has no time and shares one index, which is this number.
pub const MAX_STREAMS: usize = 32;
/// Most links that are remembered with their streams, besides the current one: the first ones.
pub const MAX_LINKS: usize = 1024;
/// The latest media time, in microseconds (285 years). Granule positions that would give a later one are hostile.
pub const MAX_TIME: i64 = 1 << 53;

/// What a page is in its bitstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagePlace {
    /// Link of the chain, from 0.
    pub link: u64,
    /// Index of the logical stream in its link ([`Link::streams`]); [`MAX_STREAMS`] for those that are not told apart.
    pub stream: usize,
    /// It holds (a part of) a header packet: a decoder needs it before any data page of the link. All pages of Skeleton are setup.
    pub setup: bool,
    /// Decoding can begin here: a keyframe begins on it (Theora), or any packet (other codecs).
    pub keyframe: bool,
    /// First page of a logical stream.
    pub bos: bool,
    /// Last page of a logical stream.
    pub eos: bool,
    /// Begins with the rest of a packet.
    pub continued: bool,
    /// Media time at which its content starts, in microseconds from page 0, 0 to [`MAX_TIME`]: the end of the page before it in its logical stream.
    /// Never goes back within a logical stream; it may between interleaved ones. A page whose stream has no times has that of the page before it,
    /// or of the last such page of the link if that is later.
    pub time: i64,
}

/// A logical stream of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalStream {
    /// Its serial number.
    pub serial: u32,
    /// What it holds. A stream without a BOS page is [`Codec::Unknown`].
    pub format: Format,
    /// Pages with (a part of) a header packet so far.
    pub setup_pages: u64,
    /// Pages so far.
    pub pages: u64,
    /// Its end so far, in microseconds from page 0.
    pub end: i64,
    /// Its EOS page has come.
    pub ended: bool,
}

/// A link of a chain: logical streams that begin together. A file that is not chained has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Number of its first page.
    pub first_page: u64,
    /// Pages from its first one up to the last one with setup, so far.
    pub setup_span: u64,
    /// When it begins, in microseconds from page 0: where the link before it ends.
    pub start: i64,
    /// Its logical streams, in the order of their first pages; at most [`MAX_STREAMS`].
    pub streams: Vec<LogicalStream>,
}

/// Follows a physical bitstream page by page and tells the time. Sans-IO; memory is bounded however long it runs.
///
/// A link whose first granule position is not near zero (a cut out of a live stream, a chain whose links count on) is moved back, so that
/// it begins where the link before it ended, page 0 at time 0. How far is computed from the lengths of the first packets.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    pages: u64,
    past: Vec<Link>,
    current: Option<Current>,
    first_comments: Comments,
}

#[derive(Debug, Clone)]
struct Current {
    number: u64,
    link: Link,
    /// In parallel to the link's streams.
    states: Vec<Stream>,
    /// Time by the streams' own clocks at which the link starts; known once a stream has begun.
    base: Option<i64>,
    /// BOS pages stand together at the beginning of a link; one after any other page begins the next.
    past_bos: bool,
    data_seen: bool,
    time: i64,
    /// Time of the last page whose stream has none.
    borrowed: i64,
    end: i64,
    comments: Comments,
}

impl Timeline {
    /// A timeline that has seen no page.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next page of the bitstream: its header, and all its bytes.
    pub fn page(&mut self, header: &PageHeader, page: &[u8]) -> PagePlace {
        let current = match self.current.take() {
            Some(current) if !current.ends_before(header) => current,
            before => self.next_link(before),
        };
        let number = self.pages;
        self.pages += 1;
        let current = self.current.insert(current);
        let (place, comments) = current.page(header, page, number);
        if let Some(comments) = comments {
            if current.number == 0 {
                self.first_comments.merge(comments.clone());
            }
            current.comments.merge(comments);
        }
        place
    }

    fn next_link(&mut self, before: Option<Current>) -> Current {
        let (number, start) = before.as_ref().map_or((0, 0), |before| (before.number + 1, before.end));
        if let Some(before) = before
            && self.past.len() < MAX_LINKS
        {
            self.past.push(before.link);
        }
        Current {
            number,
            link: Link { first_page: self.pages, setup_span: 0, start, streams: Vec::new() },
            states: Vec::new(),
            base: None,
            past_bos: false,
            data_seen: false,
            time: start,
            borrowed: start,
            end: start,
            comments: Comments::default(),
        }
    }

    /// Pages so far.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// How long it lasts so far, in microseconds; 0 if no page had a time.
    #[must_use]
    pub fn duration(&self) -> i64 {
        self.current.as_ref().map_or(0, |current| current.end)
    }

    /// Links so far.
    #[must_use]
    pub fn link_count(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.number + 1)
    }

    /// The first [`MAX_LINKS`] links and the current one.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.past.iter().chain(self.link())
    }

    /// The current link; `None` before the first page.
    #[must_use]
    pub fn link(&self) -> Option<&Link> {
        self.current.as_ref().map(|current| &current.link)
    }

    /// Tags of the first link, all its logical streams together.
    #[must_use]
    pub fn comments(&self) -> &Comments {
        &self.first_comments
    }

    /// Tags of the current link: for live media, what is on now.
    #[must_use]
    pub fn link_comments(&self) -> Option<&Comments> {
        self.current.as_ref().map(|current| &current.comments)
    }
}

impl Current {
    /// Whether the page begins the next link.
    fn ends_before(&self, header: &PageHeader) -> bool {
        let streams = &self.link.streams;
        header.bos
            && (self.past_bos
                || streams.iter().all(|stream| stream.ended)
                || streams.iter().any(|stream| stream.serial == header.serial))
    }

    fn page(&mut self, header: &PageHeader, page: &[u8], number: u64) -> (PagePlace, Option<Comments>) {
        self.past_bos |= !header.bos;
        let stream = self.stream(header, page);
        let mut place = PagePlace {
            link: self.number,
            stream,
            setup: header.bos,
            keyframe: false,
            bos: header.bos,
            eos: header.eos,
            continued: header.continued,
            time: self.time.max(self.borrowed),
        };
        let mut comments = None;
        let mut timed = false;
        if let (Some(info), Some(state)) = (self.link.streams.get_mut(stream), self.states.get_mut(stream)) {
            let seen = state.page(header, page, self.data_seen);
            comments = state.take_comments();
            (place.setup, place.keyframe) = (seen.setup, seen.keyframe);
            info.pages += 1;
            info.setup_pages += u64::from(seen.setup);
            info.ended |= header.eos;
            if let Some(clock) = state.clock() {
                place.time = info.end;
                timed = true;
                if let Some(first) = seen.first {
                    let first = clock.micros(first);
                    self.base = Some(self.base.map_or(first, |base| base.min(first)));
                }
                if let Some(position) = seen.position {
                    let end = clock.micros(position.saturating_sub(clock.pre_skip()));
                    let within = end.saturating_sub(self.base.unwrap_or(0));
                    let end = self.link.start.saturating_add(within.max(0)).min(MAX_TIME);
                    info.end = info.end.max(end);
                    self.end = self.end.max(info.end);
                }
            }
        }
        if place.setup {
            self.link.setup_span = number - self.link.first_page + 1;
        } else if self.link.streams.get(stream).is_some_and(|info| info.format.codec != Codec::Unknown) {
            // (Which pages of an unknown codec are setup is unknown too.)
            self.data_seen = true;
        }
        self.time = place.time;
        if !timed {
            self.borrowed = place.time;
        }
        (place, comments)
    }

    /// Index of the page's stream, which may be a new one.
    fn stream(&mut self, header: &PageHeader, page: &[u8]) -> usize {
        let streams = &mut self.link.streams;
        if let Some(index) = streams.iter().position(|stream| stream.serial == header.serial) {
            return index;
        }
        let index = streams.len();
        if index < MAX_STREAMS {
            let state = Stream::new(header, page);
            streams.push(LogicalStream {
                serial: header.serial,
                format: *state.format(),
                setup_pages: 0,
                pages: 0,
                end: self.link.start,
                ended: false,
            });
            self.states.push(state);
        }
        index
    }
}

impl LogicalStream {
    /// Whether its pages have times.
    #[must_use]
    pub fn has_times(&self) -> bool {
        !matches!(self.format.codec, Codec::Skeleton | Codec::Unknown)
    }
}
