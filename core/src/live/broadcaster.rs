//! From pages to batches and heads: the broadcaster's mind. Sans-IO.

use std::time::Duration;

use bytes::Bytes;
use icet::key::Hash;
use icet::live::{Batch, Head, NO_BATCH, SignedBatch, SignedHead};
use icet::media::MediaError;
use icet::{Identity, Manifest, Now, PageFlags, PageNo, PageRecord, limits};
use thiserror::Error;

use super::relabel::Relabel;
use crate::ogg::{Codec, PageHeader, Timeline};
use crate::publish::flags;

/// How long a page waits for the signature of its batch, if nobody says otherwise.
pub const DELAY: Duration = Duration::from_millis(250);
/// A batch is signed when its pages have so many bytes, however few they are.
const BYTES: u64 = 256 * 1024;
/// When no page came for so long, nothing is on. Some encoders send a page in several seconds only.
const PAUSE: Duration = Duration::from_secs(10);

/// Why a page is not broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SourceError {
    /// A source begins with a page that begins a logical stream.
    #[error("the source does not begin with a first page of a logical stream")]
    NoBeginning,
    /// The header packets of a link lie on too many pages.
    #[error("the setup of a link spans more than {limit} pages: it cannot be broadcast (are there pictures in its tags?)", limit = limits::RECORDS)]
    Setup,
    /// The broadcast has ended, or has as many pages as one can have.
    #[error("the broadcast has ended")]
    Ended,
}

/// A batch with its pages, to be written down and then shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The batch.
    pub batch: SignedBatch,
    /// Its pages.
    pub pages: Vec<Bytes>,
}

/// The link that listeners are in.
#[derive(Debug, Clone)]
struct LinkPlace {
    first: PageNo,
    offset: u64,
    time: i64,
    /// Records of its first pages, at most [`limits::RECORDS`], with times from `time` on.
    records: Vec<PageRecord>,
    /// How many of them are setup, or lie before setup.
    setup: usize,
    key: Option<PageNo>,
}

/// A page that waits for its batch.
#[derive(Debug, Clone)]
struct Pending {
    /// Its time counts from page 0.
    record: PageRecord,
    bytes: Bytes,
    begins_link: bool,
    /// Decoding can begin here, of video if there is any.
    key: bool,
}

/// Takes pages, and signs batches of their records and heads. After each call, [`poll`](Self::poll) until it gives none, and again
/// at [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Broadcaster {
    identity: Identity,
    broadcast: Hash,
    delay: Duration,
    timeline: Timeline,
    relabel: Relabel,
    /// Setup pages of the link that the source is in, as it sent them.
    setup: Vec<(PageHeader, Bytes)>,
    /// Media time at which the timeline of the present source begins.
    base: i64,
    /// Link of the timeline that the last page was in; none: the next page begins one.
    link_no: Option<u64>,
    pending: Vec<Pending>,
    pending_bytes: u64,
    /// When the first of them came.
    since: Option<Now>,
    /// Page, offset and time behind the last batch.
    next: PageNo,
    offset: u64,
    time: i64,
    last: Hash,
    link: Option<LinkPlace>,
    /// What is on.
    title: Option<String>,
    /// When the last page came.
    heard: Option<Now>,
    ending: bool,
    ended: bool,
}

impl Broadcaster {
    /// A broadcaster of a new broadcast, that of `manifest`.
    #[must_use]
    pub fn new(manifest: &Manifest, identity: Identity, delay: Duration) -> Broadcaster {
        Broadcaster {
            identity,
            broadcast: manifest.root,
            delay,
            timeline: Timeline::new(),
            relabel: Relabel::new(manifest.root, false),
            setup: Vec::new(),
            base: 0,
            link_no: None,
            pending: Vec::new(),
            pending_bytes: 0,
            since: None,
            next: 0,
            offset: 0,
            time: 0,
            last: NO_BATCH,
            link: None,
            title: None,
            heard: None,
            ending: false,
            ended: false,
        }
    }

    /// The same, going on behind `last`.
    #[must_use]
    pub fn resume(
        manifest: &Manifest,
        identity: Identity,
        delay: Duration,
        last: &SignedBatch,
    ) -> Broadcaster {
        let time = last.records.last().map_or(last.time, |r| last.time + r.time);
        Broadcaster {
            relabel: Relabel::new(manifest.root, true),
            base: time,
            next: last.next(),
            offset: last.end(),
            time,
            last: last.hash(),
            ended: last.ends,
            ..Broadcaster::new(manifest, identity, delay)
        }
    }

    /// A broadcaster of another broadcast, that of `manifest`, which goes on with what the same source sends next: setup of the link that
    /// the source is in is taken already.
    ///
    /// # Errors
    /// Those of [`page`](Self::page), which took the same before.
    pub fn anew(&self, manifest: &Manifest, now: Now) -> Result<Broadcaster, SourceError> {
        let mut anew = Broadcaster::new(manifest, self.identity.clone(), self.delay);
        self.setup.iter().try_for_each(|(header, bytes)| anew.page(now, header, bytes.clone()))?;
        Ok(anew)
    }

    /// Setup pages of the link that the source is in.
    #[must_use]
    pub fn setup(&self) -> &[(PageHeader, Bytes)] {
        &self.setup
    }

    /// Takes the next page of the source. It is broadcast as it is, unless its logical stream has a serial number that was used before:
    /// then that, the page's number in it, and the checksum are other ones.
    ///
    /// # Errors
    /// [`SourceError`]; the page is left out then.
    pub fn page(&mut self, now: Now, header: &PageHeader, bytes: Bytes) -> Result<(), SourceError> {
        if self.ended || self.ending || self.next + self.pending.len() as u64 + 64 >= limits::PAGES {
            return Err(SourceError::Ended);
        }
        if self.timeline.pages() == 0 && !header.bos {
            return Err(SourceError::NoBeginning);
        }
        if header.bos && self.relabel.is_in_a_link() {
            self.close(Some(now));
            self.setup.clear();
        }
        let sent = (*header, bytes.clone());
        let (header, bytes) = self.relabel.page(self.next + self.pending.len() as u64, header, bytes);
        if self.take(Some(now), header, bytes)? {
            self.setup.push(sent);
        }
        Ok(())
    }

    /// Ends the link of a source that broke off in the middle.
    fn close(&mut self, now: Option<Now>) {
        for (header, bytes) in self.relabel.close() {
            // A link that was taken so far has no more setup by it.
            let _ = self.take(now, header, bytes);
        }
    }

    /// Whether the page is setup.
    fn take(&mut self, now: Option<Now>, header: PageHeader, bytes: Bytes) -> Result<bool, SourceError> {
        let place = self.timeline.page(&header, &bytes);
        let begins_link = self.link_no.replace(place.link) != Some(place.link);
        let record = PageRecord {
            len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            crc: header.crc,
            hash: Hash(*blake3::hash(&bytes).as_bytes()),
            flags: flags(&place),
            time: self.base.saturating_add(place.time),
        };
        if self.timeline.link().is_some_and(|l| l.setup_span > limits::RECORDS as u64) {
            return Err(SourceError::Setup);
        }
        let theora = |s: &crate::ogg::LogicalStream| s.format.codec == Codec::Theora;
        if !place.setup {
            self.title = self.timeline.link_comments().and_then(super::now::title);
        }
        let streams = self.timeline.link().map(|l| l.streams.as_slice()).unwrap_or_default();
        let key =
            place.keyframe && (streams.get(place.stream).is_some_and(theora) || !streams.iter().any(theora));
        self.since = self.since.or(now);
        self.heard = now.or(self.heard);
        self.pending_bytes += bytes.len() as u64;
        self.pending.push(Pending { record, bytes, begins_link, key });
        Ok(place.setup)
    }

    /// No page comes any more: the last batch says so.
    pub fn end(&mut self) {
        if !self.ended {
            self.close(None);
        }
        self.ending = true;
    }

    /// Media time of what was taken so far, in microseconds.
    #[must_use]
    pub fn duration(&self) -> i64 {
        self.base.saturating_add(self.timeline.duration())
    }

    /// Whether its last batch was signed.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether nothing comes any more, and nothing ever came.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended || self.ending && self.next == 0 && self.pending.is_empty()
    }

    /// When the next batch is due; none while no page waits.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Now> {
        self.since.map(|since| since + self.delay)
    }

    /// The next batch, if it is due.
    ///
    /// # Errors
    /// [`MediaError`] if it cannot be signed, which does not happen with pages that were taken.
    pub fn poll(&mut self, now: Now) -> Result<Option<Signed>, MediaError> {
        let full = self.pending.len() >= limits::RECORDS || self.pending_bytes >= BYTES;
        let due = full || self.ending || self.poll_timeout().is_some_and(|t| t <= now);
        if !due || self.ended || (self.pending.is_empty() && (!self.ending || self.next == 0)) {
            return Ok(None);
        }
        let taken: Vec<Pending> = self.pending.drain(..self.pending.len().min(limits::RECORDS)).collect();
        self.pending_bytes = self.pending.iter().map(|p| p.bytes.len() as u64).sum();
        self.since = self.since.filter(|_| !self.pending.is_empty());
        let time = taken.first().map_or(self.time, |p| p.record.time);
        let records =
            taken.iter().map(|p| PageRecord { time: p.record.time.saturating_sub(time), ..p.record });
        let batch = Batch {
            broadcast: self.broadcast,
            first: self.next,
            offset: self.offset,
            time,
            previous: self.last,
            records: records.collect(),
            ends: self.ending && self.pending.is_empty(),
        };
        let batch = SignedBatch::sign(batch, &self.identity)?;
        for p in &taken {
            self.note(p);
        }
        (self.last, self.ended) = (batch.hash(), batch.ends);
        Ok(Some(Signed { pages: taken.into_iter().map(|p| p.bytes).collect(), batch }))
    }

    fn note(&mut self, p: &Pending) {
        let (page, offset) = (self.next, self.offset);
        if p.begins_link {
            let time = p.record.time;
            self.link =
                Some(LinkPlace { first: page, offset, time, records: Vec::new(), setup: 0, key: None });
        }
        if let Some(link) = &mut self.link {
            let setup = p.record.flags.has(PageFlags::SETUP);
            if link.records.len() < limits::RECORDS {
                let time = p.record.time.saturating_sub(link.time);
                link.records.push(PageRecord { time, ..p.record });
            }
            if setup {
                (link.setup, link.key) = (link.records.len(), None);
            } else if p.key {
                link.key = Some(page);
            }
        }
        self.next += 1;
        self.offset += u64::from(p.record.len);
        self.time = self.time.max(p.record.time);
    }

    /// The head as it is now; none before the first batch with a link's setup. In a pause of the source nothing is on. `wall_ms`: wall
    /// clock, milliseconds since 1970.
    ///
    /// # Errors
    /// [`MediaError`] if it cannot be signed, which does not happen with pages that were taken.
    pub fn head(&self, now: Now, wall_ms: u64) -> Result<Option<SignedHead>, MediaError> {
        let Some(link) = self.link.as_ref().filter(|l| l.setup > 0) else { return Ok(None) };
        let pauses = self.heard.is_none_or(|heard| now.since(heard) >= PAUSE);
        let head = Head {
            broadcast: self.broadcast,
            next: self.next,
            offset: self.offset,
            time: self.time,
            last: self.last,
            link: link.first,
            link_offset: link.offset,
            link_time: link.time,
            setup: link.records.get(..link.setup).unwrap_or_default().to_vec(),
            key: link.key.unwrap_or(self.next),
            signed_at: wall_ms,
            title: self.title.clone().filter(|_| !pauses && !self.ended),
            ended: self.ended.then_some(true),
        };
        SignedHead::sign(head, &self.identity).map(Some)
    }
}
