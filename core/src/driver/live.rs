//! Live media: fetching pages as they come, with the records that prove them, and reading them in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use icet::message::Outcome;
use icet::{PageFlags, PageNo, Signed, limits};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::assemble::{Assembler, Cut};
use super::fetch::Fetch;
use super::media::Stage;
use super::notice::Notice;
use super::{Media, OpenError};
use crate::engine::io::FetchEvent;
use crate::protocol::{ErrorKind, Piece, TransportError, What};
use crate::store::{LivePut, MediaStore};

/// Bytes of batches that may wait to be read: two of the largest.
const BATCHES: usize = 2 * (limits::BATCH + 128);
/// A page that is missing while later ones are here is waited for so long, then it is left out.
const PATIENCE: Duration = Duration::from_secs(6);

impl Fetch {
    /// As [`Fetch::run`] does for files: pages of live media, and batches of their records beside them.
    pub(super) async fn transfer_live(&self) -> Result<Outcome, TransportError> {
        if !self.protocol.implementation.abilities().carries_live() {
            return Err(TransportError::new(ErrorKind::Protocol, "this protocol carries no live media"));
        }
        let (host, fragments) = (self.source.host.key, self.shared.fragments.clone());
        let mut assembler = Assembler::new(self.pages, limits::PAGES, true, host, fragments);
        let mut stream =
            self.protocol.implementation.fetch(self.cx.clone(), self.request(What::Pages(self.pages))).fuse();
        let mut records = std::pin::pin!(self.follow_records());
        // Of setup pages the head has the records.
        let mut recorded = self.pages.last.is_some();
        let mut changed = self.store.changed();
        let mut seen = false;
        loop {
            let cut = assembler.next(&*self.store);
            let wants_record = matches!(cut, Cut::NeedSlice(_));
            match cut {
                Cut::Run { first, pages, of_one_host } => {
                    if !self.written(self.write(first, pages, of_one_host).await)? {
                        return Ok(Outcome::Altered);
                    }
                    continue;
                }
                Cut::Finished => return Ok(Outcome::Done),
                Cut::NeedSlice(_) | Cut::NeedMore => {}
            }
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Ok(Outcome::Stopped),
                came = &mut records, if !recorded => {
                    recorded = true;
                    came?;
                    if self.store.ended().is_none() {
                        return Err(TransportError::new(ErrorKind::Broken, "the records end before the broadcast does"));
                    }
                }
                _ = changed.changed(), if wants_record => {}
                piece = stream.next(), if !wants_record => match piece {
                    Some(piece) => {
                        let piece = piece?;
                        if let Piece::Bytes(b) = &piece {
                            if !std::mem::replace(&mut seen, true) {
                                self.tell(FetchEvent::FirstByte);
                            }
                            self.down.take(b.len()).await;
                        }
                        assembler.push(piece);
                    }
                    // It ends with the broadcast, or for a reason of the host's own.
                    None if recorded && self.store.ended().is_some() => return Ok(Outcome::Done),
                    None => return Ok(Outcome::Incomplete),
                }
            }
        }
    }

    /// Takes batches as they come, from the first that is missing on, until the host ends. Where the host lacks that one, and is to
    /// send pages from further on, what lies between is not to be had any more.
    async fn follow_records(&self) -> Result<(), TransportError> {
        let first = self.store.next_record().unwrap_or(self.pages.first);
        match self.records_from(first).await {
            Err(e) if e.kind == ErrorKind::NoRange && self.pages.first > first => {
                let lost = self.pages.first - first;
                tracing::debug!(first, lost, "nobody has the next pages any more; going on further ahead");
                self.store.begin_anew(self.pages.first);
                self.records_from(self.pages.first).await
            }
            followed => followed,
        }
    }

    async fn records_from(&self, first: PageNo) -> Result<(), TransportError> {
        let what = What::Proofs { first, last: limits::PAGES - 1 };
        let mut stream = self.protocol.implementation.fetch(self.cx.clone(), self.request(what));
        let mut buf = BytesMut::new();
        while let Some(piece) = stream.next().await {
            let Piece::Bytes(b) = piece? else { continue };
            buf.extend_from_slice(&b);
            while self.take_batch(&mut buf)? {}
        }
        if buf.is_empty() {
            Ok(())
        } else {
            Err(TransportError::new(ErrorKind::Protocol, "a batch of records that breaks off"))
        }
    }

    /// Takes the batch at the beginning of `buf`, if it came whole.
    fn take_batch(&self, buf: &mut BytesMut) -> Result<bool, TransportError> {
        if buf.is_empty() {
            return Ok(false);
        }
        let mut decoder = minicbor::Decoder::new(buf);
        let signed: Signed = match decoder.decode() {
            Ok(signed) => signed,
            Err(e) if e.is_end_of_input() && buf.len() <= BATCHES => return Ok(false),
            Err(e) => {
                return Err(TransportError::new(ErrorKind::Protocol, "malformed records").because(e));
            }
        };
        let len = decoder.position();
        buf.advance(len);
        match self.store.put_batch(signed) {
            Ok(_) => Ok(true),
            Err(e) => {
                self.wrong_records(&e);
                Err(TransportError::new(ErrorKind::Protocol, "wrong records").because(e))
            }
        }
    }

    fn wrong_records(&self, why: &LivePut) {
        tracing::warn!(host = %self.source.host.key.short(), error = %why, "records that were sent are wrong; refused");
        self.shared.counts.bad.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.tell(FetchEvent::Altered);
    }
}

/// One page, as a [`LiveReader`] gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePage {
    /// Its number.
    pub number: PageNo,
    /// Media time at which its content starts, in microseconds from page 0 of the broadcast.
    pub time: i64,
    /// Whether it is setup, sent ahead for who joined in the middle.
    pub ahead: bool,
    /// All of it.
    pub bytes: Bytes,
}

/// So much later than asked for a reader may begin without a word.
const NEAR: i64 = 5_000_000;
/// Pages before the one asked for, among which is looked for one where decoding can begin.
const KEY_WITHIN: PageNo = 4096;
/// So far back a reader begins.
const EDGE: Duration = Duration::from_secs(3);

/// Live media in order from where this peer came in, or so much earlier as it was opened with: the setup pages of the link first, then page
/// after page, as fast as they are here and taken. A page that is late is left out whole.
#[derive(Debug)]
pub struct LiveReader {
    media: Media,
    next: Option<PageNo>,
    setup: VecDeque<PageNo>,
    /// First page of the link whose setup was given last.
    link: Option<PageNo>,
    /// The page that was due when the window had moved past it, and its time.
    fell_behind: Option<(PageNo, i64)>,
    /// Media time of the page that was given last.
    time: i64,
    /// Somebody else says what it left out.
    quiet: bool,
    /// It begins with what was on so many microseconds ago.
    back: Option<i64>,
    made: Instant,
}

impl LiveReader {
    pub(super) fn new(media: Media) -> LiveReader {
        let back = media.shared.back.map(|back| i64::try_from(back.as_micros()).unwrap_or(i64::MAX));
        LiveReader {
            media,
            back,
            made: Instant::now(),
            next: None,
            setup: VecDeque::new(),
            link: None,
            fell_behind: None,
            time: 0,
            quiet: false,
        }
    }

    /// The same, that says nothing of pages that it leaves out: for who reads beside another one.
    #[must_use]
    pub fn quiet(self) -> LiveReader {
        LiveReader { quiet: true, ..self }
    }

    /// The same, from this page on, and without setup in front: for who has what is before it.
    #[must_use]
    pub fn from_page(self, page: PageNo) -> LiveReader {
        LiveReader { next: Some(page), ..self }
    }

    /// The next page; none when the broadcast has ended, or is off the air ([`Media::is_off_air`]) and all that came of it was given.
    ///
    /// # Errors
    /// If the media was taken off or refused, or its pages cannot be read.
    pub async fn next(&mut self) -> Result<Option<LivePage>, OpenError> {
        let store = self.media.store().clone();
        let mut changed = store.changed();
        let mut stage = self.media.shared.stage.subscribe();
        let mut missing: Option<(PageNo, Instant)> = None;
        loop {
            changed.borrow_and_update();
            if let Some(page) = self.step(&store) {
                let (number, ahead) = page;
                let Some(span) = store.span(number) else { continue };
                let reading = store.clone();
                let read = move || reading.read(span.offset, span.record.len as usize);
                let bytes = tokio::task::spawn_blocking(read).await.map_err(|_| OpenError::Closed)?;
                // The window may move past it meanwhile.
                if bytes.is_err() && store.is_gone(number) {
                    continue;
                }
                let bytes = bytes.map_err(|e| OpenError::Store(e.to_string()))?;
                self.time = if ahead { self.time } else { span.time };
                return Ok(Some(LivePage { number, time: span.time, ahead, bytes }));
            }
            if let (Some(next), Some(end)) = (self.next, store.ended())
                && next >= end
            {
                return Ok(None);
            }
            // It does not come any more, nor do those up to the window.
            if let Some(next) = self.next.filter(|n| store.is_gone(*n)) {
                (self.next, self.fell_behind) = (None, Some((next, self.time)));
                continue;
            }
            match &*stage.borrow_and_update() {
                // Its broadcaster takes it off when it has ended, its tracker when that is gone: what has not come by now does not
                // come, and what lies behind it is given at once.
                Stage::Failed(OpenError::Withdrawn(_) | OpenError::OffAir) => {
                    let Some(further) = self.next.and_then(|next| store.first_held(next)) else {
                        return Ok(None);
                    };
                    // It may have come just now.
                    if self.next != Some(further) {
                        self.left_out(Some(further));
                    }
                    continue;
                }
                Stage::Failed(e) => return Err(e.clone()),
                _ => {}
            }
            // Later ones are here: this one is late.
            let late = self.next.filter(|n| store.last_held().is_some_and(|last| last > *n));
            missing = late.map(|n| match missing {
                Some((m, since)) if m == n => (m, since),
                _ => (n, Instant::now()),
            });
            if let Some((page, since)) = missing
                && since.elapsed() >= PATIENCE
            {
                self.left_out(store.first_held(page));
                continue;
            }
            let deadline = missing.map_or_else(|| Instant::now() + PATIENCE, |(_, since)| since + PATIENCE);
            tokio::select! {
                r = changed.changed() => if r.is_err() { return Err(OpenError::Closed) },
                r = stage.changed() => if r.is_err() { return Err(OpenError::Closed) },
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// Goes on with page `next`, those before it being missing.
    fn left_out(&mut self, next: Option<PageNo>) {
        let page = std::mem::replace(&mut self.next, next);
        if let Some(first) = page.filter(|_| !self.quiet) {
            self.media.notice(Notice::LeftOut { first, pages: next.map(|next| next.saturating_sub(first)) });
        }
    }

    /// The next page that is here.
    fn step(&mut self, store: &Arc<MediaStore>) -> Option<(PageNo, bool)> {
        if self.next.is_none() {
            self.begin(store)?;
        }
        if let Some(page) = self.setup.pop_front() {
            return Some((page, true));
        }
        let page = self.next.filter(|p| store.has(*p))?;
        self.link = store.live_setup_at(page).map(|(first, _)| first);
        self.next = Some(page + 1);
        Some((page, false))
    }

    /// Begins, once the setup is whole and a page behind it is here.
    fn begin(&mut self, store: &Arc<MediaStore>) -> Option<()> {
        let base = store.live_base()?;
        let start = match (self.fell_behind, self.back) {
            (Some(_), _) => ahead_of_the_edge(store, store.first_held(base)?),
            (None, Some(back)) => further_back(store, base, self.wanted(store, back)?)?,
            (None, None) => {
                let (_, end) = store.live_setup()?;
                live_edge(store, store.first_held(base.max(end))?)
            }
        };
        let (first, end) = store.live_setup_at(start)?;
        if first == end || (first..end).any(|p| !store.has(p)) {
            return None;
        }
        let start = store.first_held(start.max(end))?;
        if !self.quiet {
            self.tell(store, start);
        }
        self.fell_behind = None;
        self.next = Some(start);
        if self.link.replace(first) != Some(first) {
            self.setup = (first..end).collect();
        }
        Some(())
    }

    /// Media time of what was on so many microseconds ago.
    fn wanted(&self, store: &MediaStore, back: i64) -> Option<i64> {
        Some(self.media.shared.begin_of(back, self.made.into_std(), store.newest_time()?))
    }

    /// Says so where it does not begin where it should.
    fn tell(&self, store: &MediaStore, start: PageNo) {
        let Some(time) = store.span(start).map(|s| s.time) else { return };
        if let Some((page, before)) = self.fell_behind {
            let (pages, lost) = (start.saturating_sub(page), since(time, before));
            self.media.notice(Notice::FellBehind { pages, lost });
        } else if let Some(back) = self.back
            && let Some(late) = self.wanted(store, back).map(|wanted| time.saturating_sub(wanted))
            && late > NEAR
        {
            self.media.notice(Notice::BeginsLater { back: since(back, 0), later: since(late, 0) });
        }
    }
}

/// The time between two media times, in microseconds.
fn since(later: i64, earlier: i64) -> Duration {
    Duration::from_micros(u64::try_from(later.saturating_sub(earlier)).unwrap_or(0))
}

/// The page at a media time, or the oldest there is; none while it has not come.
fn further_back(store: &MediaStore, base: PageNo, wanted: i64) -> Option<PageNo> {
    if store.span(base)?.time >= wanted {
        return store.first_held(base);
    }
    let last = store.next_record()?.checked_sub(1)?;
    if store.ended().is_none() && store.span(last)?.time < wanted {
        return None;
    }
    let page = u64::try_from(wanted).ok().and_then(|t| store.page_at_time(t)).unwrap_or(base);
    let begins =
        |p: &PageNo| store.has(*p) && store.span(*p).is_some_and(|s| s.record.flags.has(PageFlags::KEYFRAME));
    let key = (base.max(page.saturating_sub(KEY_WITHIN))..=page).rev().find(begins);
    store.first_held(key.unwrap_or(page))
}

/// Where a reader begins that came after its peer did: not at the beginning of the window that begins with `first`, but some
/// seconds back, where decoding can begin.
fn live_edge(store: &MediaStore, first: PageNo) -> PageNo {
    let time = |page| store.span(page).map(|s| s.time);
    let Some((last, newest)) = store.last_held().and_then(|p| Some((p, time(p)?))) else { return first };
    let back = newest.saturating_sub(i64::try_from(EDGE.as_micros()).unwrap_or(0));
    if time(first).is_none_or(|t| t >= newest.saturating_sub(2 * (newest - back))) {
        return first;
    }
    let from = u64::try_from(back).ok().and_then(|t| store.page_at_time(t)).unwrap_or(first).max(first);
    let begins = |p: &PageNo| store.span(*p).is_some_and(|s| s.record.flags.has(PageFlags::KEYFRAME));
    (from..=last).find(begins).unwrap_or(first)
}

/// Where a reader goes on whose page the window has moved past: a little behind the oldest page `held`, so that it is not overtaken
/// again at once, where decoding can begin.
fn ahead_of_the_edge(store: &MediaStore, held: PageNo) -> PageNo {
    let Some((last, oldest)) = store.last_held().zip(store.span(held)) else { return held };
    let from = oldest.time.saturating_add(i64::try_from(EDGE.as_micros()).unwrap_or(0));
    let good = |p: &PageNo| {
        store.has(*p)
            && store.span(*p).is_some_and(|s| s.time >= from && s.record.flags.has(PageFlags::KEYFRAME))
    };
    (held..=last).find(good).unwrap_or(held)
}

impl Media {
    /// Whether it is live: then it has no length, and a [`Media::live_reader`] instead of a reader.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.store.is_live()
    }

    /// Whether it is live and its tracker gave it up: its broadcaster was gone for too long before the broadcast had ended.
    #[must_use]
    pub fn is_off_air(&self) -> bool {
        self.is_live() && self.store.ended().is_none() && matches!(self.failure(), Some(OpenError::OffAir))
    }

    /// Reads live media from where this peer came in.
    #[must_use]
    pub fn live_reader(&self) -> LiveReader {
        LiveReader::new(self.clone())
    }

    /// Waits for the first page of live media that was verified. False: none came before `deadline`.
    pub async fn sounds(&self, deadline: Instant) -> bool {
        let mut changed = self.store.changed();
        while self.store.last_held().is_none() {
            if !matches!(timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }
}
