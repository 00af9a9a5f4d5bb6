//! Where each packet of a page ends: in the page, and by the clock of its logical stream.

use super::codec::{Clock, Codec};
use super::packet::Counter;
use super::page::{PageHeader, packet_parts};
use super::stream::Stream;

/// The end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Segments of the page up to it.
    pub(crate) segments: usize,
    /// Granule position behind it, where that can be told.
    pub(crate) granule: Option<i64>,
    /// How long the packet lasts, in samples or frames; 0 where that cannot be told.
    pub(crate) units: u64,
    /// It is a keyframe of video.
    pub(crate) keyframe: bool,
}

/// Tells the ends of the packets of one logical stream, page by page.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    stream: Stream,
    /// From the first page behind setup on.
    counter: Option<Counter>,
    /// That of the stream before it, if its packets follow those.
    before: Option<Counter>,
    /// So that its first packet, which it counts for nothing itself (Vorbis), has a length here.
    is_behind: bool,
    /// The packet that goes on on the next page: its length, and whether it is a keyframe.
    open: Option<(Option<u64>, bool)>,
    /// Number of the next page, if none is lost.
    next: u32,
    /// Samples or frames up to the last granule position, and (video) up to the last keyframe.
    position: Option<i64>,
    key: Option<i64>,
}

impl Ends {
    /// Of the stream that begins with this page, which is to be given to [`page`](Self::page) too.
    pub(crate) fn new(header: &PageHeader, page: &[u8]) -> Ends {
        let stream = Stream::new(header, page);
        Ends {
            stream,
            counter: None,
            before: None,
            is_behind: false,
            open: None,
            next: header.sequence,
            position: None,
            key: None,
        }
    }

    /// The same, of a stream that is decoded as if it were the rest of another one. Its first packet lasts as long as it does there.
    pub(crate) fn behind(self, before: &Ends) -> Ends {
        let is_behind = self.codec() == Codec::Vorbis;
        Ends { before: before.counter.clone(), is_behind, ..self }
    }

    /// What the stream holds.
    pub(crate) fn codec(&self) -> Codec {
        self.stream.format().codec
    }

    /// Whether its pages have times.
    pub(crate) fn has_clock(&self) -> bool {
        self.stream.clock().is_some()
    }

    /// When a granule position sounds, by the stream's own clock, in microseconds.
    pub(crate) fn time(&self, granule: i64) -> Option<i64> {
        let clock = self.stream.clock()?;
        Some(clock.micros(clock.position(granule)?.saturating_sub(clock.pre_skip())))
    }

    /// How long so many samples or frames last, in microseconds.
    pub(crate) fn micros(&self, units: u64) -> i64 {
        let units = i64::try_from(units).unwrap_or(i64::MAX);
        self.stream.clock().map_or(0, |clock| clock.micros(units))
    }

    /// The ends of packets on the next page; none on pages with setup, and where the stream has no clock.
    pub(crate) fn page(&mut self, header: &PageHeader, page: &[u8]) -> Vec<End> {
        if std::mem::replace(&mut self.next, header.sequence.wrapping_add(1)) != header.sequence {
            (self.open, self.key) = (None, None);
        }
        if !header.continued {
            self.open = None;
        }
        let seen = self.stream.page(header, page, true);
        let Some(clock) = self.stream.clock().filter(|_| !seen.setup) else { return Vec::new() };
        let theora = self.codec() == Codec::Theora;
        let counter = self.counter.get_or_insert_with(|| self.stream.counter().behind(self.before.take()));
        let (mut ends, mut segments) = (Vec::new(), 0);
        for part in packet_parts(page) {
            segments += part.data.len() / 255 + usize::from(part.ends);
            if part.starts {
                let keyframe = theora && part.data.first().is_some_and(|kind| kind & 0xc0 == 0);
                self.open = Some((counter.samples(part.data), keyframe));
            }
            if part.ends {
                let (units, keyframe) = self.open.take().unwrap_or((None, false));
                ends.push((segments, units, keyframe));
            }
        }
        self.placed(header, clock, &ends)
    }

    /// Gives each its granule position. The page has that of the last one. On a last page that may be less than what its packets hold,
    /// so that there the others count from the page before.
    fn placed(&mut self, header: &PageHeader, clock: Clock, ends: &[(usize, Option<u64>, bool)]) -> Vec<End> {
        let mut placed: Vec<End> = ends
            .iter()
            .map(|&(segments, units, keyframe)| End {
                segments,
                granule: None,
                units: units.unwrap_or(0),
                keyframe,
            })
            .collect();
        let Some(last) = header.granule.filter(|g| *g >= 0 && !ends.is_empty()) else { return placed };
        let end = clock.units(last);
        let begun = self.position.replace(end);
        let length = |units: &Option<u64>| units.and_then(|u| i64::try_from(u).ok());
        // From the end back, as far as lengths are known.
        let mut positions: Vec<Option<i64>> = vec![None; ends.len()];
        let mut at = Some(end);
        for (position, (_, units, _)) in positions.iter_mut().zip(ends).rev() {
            *position = at;
            at = at.zip(length(units)).and_then(|(at, len)| at.checked_sub(len));
        }
        if header.eos {
            // A stream with but one page of data begins at zero, if that has no more than its packets hold; else it was cut out of a longer one.
            let zero = if self.is_behind {
                ends.first().and_then(|(_, units, _)| length(units)).unwrap_or(0)
            } else {
                0
            };
            let mut at = begun.or(at.filter(|begins| *begins <= 0).map(|_| -zero));
            for (position, (_, units, _)) in positions.iter_mut().zip(ends) {
                at = at.zip(length(units)).and_then(|(at, len)| at.checked_add(len));
                // Where pages were lost, the way back is the right one.
                *position = position.zip(at).map(|(back, forth)| back.max(forth));
            }
        }
        let Some((most, others)) = positions.split_last_mut() else { return placed };
        *most = Some(end);
        for position in others {
            *position = position.filter(|p| *p > 0 && *p < end && begun.is_none_or(|b| *p >= b));
        }
        for (place, position) in placed.iter_mut().zip(positions) {
            let Some(position) = position else {
                if place.keyframe {
                    self.key = None;
                }
                continue;
            };
            if place.keyframe {
                self.key = Some(position);
            }
            place.granule = clock.granule(position, self.key);
        }
        // What the page says is so, whatever was counted.
        let agree = placed.last().is_some_and(|p| p.granule == Some(last));
        if !agree {
            placed.iter_mut().for_each(|p| p.granule = None);
        }
        self.key = clock.key(last);
        if let Some(place) = placed.last_mut() {
            place.granule = Some(last);
        }
        placed
    }
}
