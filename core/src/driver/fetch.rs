//! The data path of one fetch: bytes from a transport, cut into pages, checked, stored. The engine hears of page
//! numbers and outcomes only.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, Fuse};
use icet::media::SLICE_PAGES;
use icet::message::Outcome;
use icet::{Abilities, PageNo, PageSet, limits};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::assemble::{Assembler, Cut};
use super::limit::DownLimit;
use super::media::Shared;
use super::session::Order;
use crate::engine::io::{FetchEvent, FetchId};
use crate::net::Context;
use crate::protocol::{ErrorKind, Piece, Protocol, Request, Span, TransportError, What};
use crate::store::{MediaStore, PutError};

/// How long the end of a stream is waited for after its last page.
const LAST_WORD: Duration = Duration::from_millis(100);
/// What comes fast is gathered before it is cut into a run, so that many pages are checked and written at once, however small
/// the pieces are: so many bytes, and what comes while a run is on its way to the disk and for [`PAUSE`] after the last one.
const GATHER: usize = 256 * 1024;
/// See [`GATHER`]. After a pause longer than this a page is cut as soon as it is whole.
const PAUSE: Duration = Duration::from_millis(2);
/// The engine is told that a fetch is alive at most so often.
pub(super) const PROGRESS: Duration = Duration::from_millis(200);

/// A run on its way to the disk.
pub(super) type Writing = JoinHandle<Written>;
/// What became of it, and whether the host answers for all of it.
pub(super) type Written = (PageNo, Vec<Bytes>, Result<u64, PutError>, bool);

/// How receiving ended.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    /// The stream, the set, or our interest ended.
    End,
    /// A page was altered.
    Altered,
}

/// All that a fetch works with.
pub(crate) struct Fetch {
    pub(crate) id: FetchId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Arc<MediaStore>,
    pub(crate) pages: PageSet,
    pub(crate) source: icet::message::Source,
    pub(crate) protocol: Protocol,
    pub(crate) cx: Context,
    pub(crate) down: Arc<DownLimit>,
    pub(crate) events: mpsc::UnboundedSender<Order>,
    /// Fires when the engine wants it no longer: what has arrived is still stored.
    pub(crate) cancel: CancellationToken,
}

impl Fetch {
    /// Runs to its end. Dropping the future cancels the request.
    pub(crate) async fn run(self) {
        let flow = |active: bool| {
            self.shared.counts.flow(self.source.host.key, &self.source.host.protocol, |f| {
                f.active = if active { f.active + 1 } else { f.active.saturating_sub(1) };
            });
        };
        flow(true);
        let _guard = Guard(|| flow(false));
        let outcome = match self.transfer().await {
            Ok(outcome) => outcome,
            Err(e) => {
                tracing::debug!(fetch = self.id.0, host = %self.source.host.key.short(), kind = ?e.kind, error = %e, "fetch failed");
                let kind = e.kind;
                if kind != ErrorKind::Local {
                    let now = std::time::Instant::now();
                    self.shared.standstill().failed(now, self.source.host.key, &self.source.host.protocol, e);
                }
                match kind {
                    ErrorKind::Unreachable | ErrorKind::WrongKey => Outcome::Unreachable,
                    ErrorKind::NoMedia | ErrorKind::Denied | ErrorKind::Busy => Outcome::Refused,
                    ErrorKind::NoRange => Outcome::Incomplete,
                    ErrorKind::Local => Outcome::Stopped,
                    _ => Outcome::Broken,
                }
            }
        };
        self.tell(FetchEvent::Ended(outcome));
    }

    pub(super) fn tell(&self, event: FetchEvent) {
        // Of a fetch that was stopped only the pages count that had come already: they go another way.
        if self.cancel.is_cancelled() {
            return;
        }
        let _ = self.events.send(Order::Fetch(self.id, event));
    }

    pub(super) fn request(&self, what: What) -> Request {
        Request {
            host: self.source.host.clone(),
            path: self.store.path().clone(),
            media: self.store.id(),
            version: self.store.manifest().version,
            what,
            ticket: Some(self.source.ticket.clone()),
        }
    }

    pub(super) fn can(&self, ability: Abilities) -> bool {
        self.source.host.abilities.has(ability) && self.protocol.implementation.abilities().has(ability)
    }

    /// The range to ask for, in the best unit that both sides have. Bytes need the offsets, and so the slices.
    fn what(&self, p: PageSet) -> Option<(What, bool)> {
        if let Some(spans) = self.spans(p) {
            return Some((What::Spans(spans), false));
        }
        if self.can(Abilities::PAGES)
            && (p.stripe.is_none() || self.can(Abilities::STRIPES))
            && (p.last.is_some() || self.can(Abilities::OPEN))
        {
            return Some((What::Pages(p), self.can(Abilities::ORDERED)));
        }
        let last = p.last.unwrap_or(self.store.manifest().pages - 1);
        if self.can(Abilities::BYTES) {
            let first = self.store.span(p.first)?;
            let last = self.store.span(last)?.end() - 1;
            return Some((What::Bytes { first: first.offset, last: Some(last) }, p.stripe.is_none()));
        }
        let from = self.store.span(p.first)?.time;
        // The next page's time bounds the range; pages of one time cannot be told apart by it.
        let to = self.store.span(last + 1).map(|s| s.time.max(from) + 1);
        let clamp = |t: i64| u64::try_from(t).unwrap_or(0);
        Some((What::Time { from: clamp(from), to: to.map(clamp) }, false))
    }

    /// What is missing of the set, if parts of some of its pages are kept and the host can send just the rest.
    fn spans(&self, pages: PageSet) -> Option<Vec<Span>> {
        let kept = self.shared.fragments.lock().unwrap_or_else(PoisonError::into_inner);
        let last = pages.last.filter(|_| self.can(Abilities::SPANS) && !kept.is_empty())?;
        if pages.count(last + 1) > limits::SPANS as u64 {
            return None;
        }
        let (mut spans, mut parts) = (Vec::new(), false);
        for page in pages.iter(last + 1).filter(|p| !self.store.has(*p)) {
            let len = self.store.span(page)?.record.len;
            match kept.missing(page, len).filter(|_| !kept.is_distrusted(page)) {
                Some(missing) => {
                    parts = true;
                    spans.extend(missing);
                }
                None => spans.push(Span { page, offset: 0, len }),
            }
        }
        (parts && spans.len() <= limits::SPANS).then_some(spans)
    }

    async fn transfer(&self) -> Result<Outcome, TransportError> {
        if self.store.is_live() {
            return self.transfer_live().await;
        }
        let outcome = self.ask(self.pages).await?;
        if outcome != Outcome::Done {
            return Ok(outcome);
        }
        // All was cut, so what is not there was spoiled by parts that other hosts had sent. This one shall not stand there as if it
        // lacked them: it sends them whole, and answers for them.
        for spoiled in self.missing() {
            let mut again = self.ask(spoiled).await;
            if again.as_ref().is_err_and(|e| e.kind == ErrorKind::Busy) {
                // To the host the request before may not be quite over.
                tokio::time::sleep(LAST_WORD).await;
                again = self.ask(spoiled).await;
            }
            match again {
                Ok(Outcome::Done) => {}
                Ok(outcome) => return Ok(outcome),
                // The ticket is used up, say.
                Err(e) if matches!(e.kind, ErrorKind::Busy | ErrorKind::Denied) => {
                    return Ok(Outcome::Incomplete);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(Outcome::Done)
    }

    /// What is not there of the set, as runs.
    fn missing(&self) -> Vec<PageSet> {
        let pages = self.store.manifest().pages;
        let mut runs: Vec<(PageNo, PageNo)> = Vec::new();
        for page in self.pages.iter(pages).filter(|p| !self.store.has(*p)) {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == page => *last = page,
                _ => runs.push((page, page)),
            }
        }
        runs.into_iter().map(|(first, last)| PageSet::range(first, last)).collect()
    }

    /// One request for `set`, to its end.
    async fn ask(&self, set: PageSet) -> Result<Outcome, TransportError> {
        let pages = self.store.manifest().pages;
        let last = set.last.unwrap_or(pages - 1).min(pages - 1);
        let slices = (set.first / SLICE_PAGES, last / SLICE_PAGES);
        let by_pages = self.can(Abilities::PAGES);
        if !by_pages {
            self.or_cancelled(self.need_slices(slices.0, slices.1)).await?;
        }
        let Some((what, aligned)) = self.what(set) else {
            return Err(TransportError::new(ErrorKind::NoRange, "no offset of the pages is known"));
        };
        let (host, fragments) = (self.source.host.key, self.shared.fragments.clone());
        let mut assembler = Assembler::new(set, pages, aligned, host, fragments);
        if let What::Spans(_) = &what {
            let (held, open): (Vec<_>, Vec<_>) = set.iter(last + 1).partition(|p| self.store.has(*p));
            held.into_iter().for_each(|p| assembler.leave_out(p));
            open.into_iter().for_each(|p| assembler.look_at(p));
        }
        // Of pages that are kept whole, and only wait for their proof, nothing is asked for.
        let stream = match &what {
            What::Spans(spans) if spans.is_empty() => futures_util::stream::empty().boxed(),
            _ => self.protocol.implementation.fetch(self.cx.clone(), self.request(what)),
        };
        // Its end may be met here and looked for again below, and not every stream bears that.
        let mut stream = stream.fuse();
        let mut writing = None;
        let ended = self.receive(&mut stream, &mut assembler, slices, &mut writing).await;
        assembler.keep_rest();
        // Whatever ended it: what is on its way to the disk counts.
        if let Some(job) = writing.take()
            && !self.written(job.await)?
        {
            return Ok(Outcome::Altered);
        }
        if ended? == Received::Altered {
            return Ok(Outcome::Altered);
        }
        if !assembler.is_finished() {
            return Ok(Outcome::Incomplete);
        }
        // A transport that sees its end keeps the connection for the next request.
        let _ = tokio::time::timeout(LAST_WORD, stream.next()).await;
        Ok(Outcome::Done)
    }

    /// Takes the stream apart until it ends, the set is complete, or the fetch is stopped. Proofs and pages are asked
    /// for in one flight; pages wait for their proof.
    async fn receive(
        &self,
        stream: &mut Fuse<BoxStream<'static, Result<Piece, TransportError>>>,
        assembler: &mut Assembler,
        slices: (u64, u64),
        writing: &mut Option<Writing>,
    ) -> Result<Received, TransportError> {
        let mut proofs = std::pin::pin!(self.need_slices(slices.0, slices.1));
        let mut proved = false;
        let mut seen = false;
        let (mut told, mut untold) = (Instant::now(), 0);
        let mut gathered = 0;
        // Whether what was gathered is to be cut, and until when it is not.
        let mut dry = true;
        let mut pause = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        // What comes behind bytes that were not cut yet, and tells of a break there.
        let mut behind: Option<Piece> = None;
        // How it ended, if it did; what had come whole is still cut.
        let (mut over, mut rested) = (None::<Result<Received, TransportError>>, false);
        loop {
            let more = over.is_none() && behind.is_none() && gathered < GATHER;
            let gathers = more && (writing.is_some() || !dry);
            let cut = if gathers { Cut::NeedMore } else { assembler.next(&*self.store) };
            match cut {
                Cut::Run { first, pages, of_one_host } => {
                    if let Some(job) = writing.take()
                        && !self.written(job.await)?
                    {
                        return Ok(Received::Altered);
                    }
                    (gathered, dry) = (0, true);
                    pause.as_mut().reset(tokio::time::Instant::now() + PAUSE);
                    *writing = Some(self.write(first, pages, of_one_host));
                }
                Cut::NeedSlice(index) if !matches!(over, Some(Err(_))) => {
                    if proved {
                        // The batch did not have it (an open-ended set, say).
                        self.or_cancelled(self.need_slices(index, index)).await?;
                    } else {
                        self.or_cancelled(proofs.as_mut()).await?;
                        proved = true;
                    }
                }
                Cut::Finished => return Ok(Received::End),
                Cut::NeedSlice(_) | Cut::NeedMore => {
                    if over.is_some() && !rested {
                        // What there is of the last page may be all that was missing of it.
                        rested = true;
                        assembler.keep_rest();
                        continue;
                    }
                    if let Some(over) = over {
                        return over;
                    }
                    if let Some(piece) = behind.take() {
                        assembler.push(piece);
                        continue;
                    }
                    let piece = tokio::select! {
                        biased;
                        r = &mut proofs, if !proved => {
                            proved = true;
                            if let Err(e) = r {
                                over = Some(Err(e));
                            }
                            continue;
                        }
                        () = self.cancel.cancelled() => {
                            over = Some(Ok(Received::End));
                            continue;
                        }
                        written = ready(writing), if writing.is_some() => {
                            *writing = None;
                            // Told at once, not with the next page: on a slow line that is a while.
                            if let Some(written) = written
                                && !self.written(written)?
                            {
                                return Ok(Received::Altered);
                            }
                            continue;
                        }
                        piece = stream.next() => piece,
                        () = passes(pause.as_mut()), if gathers && writing.is_none() => {
                            dry = true;
                            continue;
                        }
                    };
                    dry = false;
                    let piece = match piece {
                        Some(Ok(piece)) => piece,
                        ended => {
                            over = Some(ended.transpose().map(|_| Received::End));
                            continue;
                        }
                    };
                    if let Piece::Bytes(b) | Piece::Fragment { bytes: b, .. } = &piece {
                        gathered += b.len();
                        untold += b.len() as u64;
                        if !seen || told.elapsed() > PROGRESS {
                            if !std::mem::replace(&mut seen, true) {
                                self.tell(FetchEvent::FirstByte);
                            }
                            told = Instant::now();
                            self.tell(FetchEvent::Progress { bytes: std::mem::take(&mut untold) });
                        }
                        // Who stops does not wait for a limit; what has come is still stored.
                        tokio::select! {
                            () = self.down.take(b.len()) => {}
                            () = self.cancel.cancelled() => {}
                        }
                    }
                    if gathers && !matches!(piece, Piece::Bytes(_)) {
                        behind = Some(piece);
                    } else {
                        assembler.push(piece);
                    }
                }
            }
        }
    }

    async fn or_cancelled<T>(
        &self,
        f: impl Future<Output = Result<T, TransportError>>,
    ) -> Result<T, TransportError> {
        tokio::select! {
            r = f => r,
            () = self.cancel.cancelled() => Err(TransportError::new(ErrorKind::Local, "stopped")),
        }
    }

    /// Checks and stores a run beside the network: hashing one batch while the next arrives.
    pub(super) fn write(&self, first: PageNo, pages: Vec<Bytes>, of_one_host: bool) -> Writing {
        let (store, shared, source) = (self.store.clone(), self.shared.clone(), self.source.host.clone());
        tokio::task::spawn_blocking(move || {
            // Counted here, and not by who waits for it: that fetch may be over sooner, and so may the whole media.
            let storing = shared.counts.storing.read();
            let result = store.put_pages(first, &pages);
            if let Ok(new) = result {
                shared.brought(source.key, &source.protocol, &pages, new);
            }
            drop(storing);
            (first, pages, result, of_one_host)
        })
    }

    /// What became of a run. False: a page was altered.
    pub(super) fn written(&self, job: Result<Written, JoinError>) -> Result<bool, TransportError> {
        let (first, pages, result, of_one_host) =
            job.map_err(|e| TransportError::new(ErrorKind::Local, "a write was given up").because(e))?;
        match result {
            Ok(_) => {
                self.shared.standstill().came(self.source.host.key, &self.source.host.protocol);
                let mut kept = self.shared.fragments.lock().unwrap_or_else(PoisonError::into_inner);
                if !kept.is_empty() {
                    (first..).zip(&pages).for_each(|(page, _)| kept.forget(page));
                }
                drop(kept);
                let lens = pages.iter().map(|p| u32::try_from(p.len()).unwrap_or(0)).collect();
                let _ = self.events.send(Order::Stored(self.id, first, lens));
                Ok(true)
            }
            Err(PutError::Altered { page, .. }) if !of_one_host => {
                tracing::debug!(page, "parts of a page from several hosts do not fit; it will come from one");
                self.shared.fragments.lock().unwrap_or_else(PoisonError::into_inner).distrust(page);
                self.shared.counts.bad.fetch_add(1, Ordering::Relaxed);
                Ok(true)
            }
            Err(PutError::Altered { page, .. }) => {
                tracing::warn!(page, host = %self.source.host.key.short(), "a page that was sent is not the publisher's; refused");
                self.shared.counts.bad.fetch_add(1, Ordering::Relaxed);
                self.tell(FetchEvent::Altered);
                Ok(false)
            }
            Err(e) => {
                let _ = self.events.send(Order::Disk(self.shared.handle, e.to_string()));
                Err(TransportError::new(ErrorKind::Local, e.to_string()))
            }
        }
    }
}

/// Waits until a pause is over: not by its timer alone, which is up to a millisecond late.
async fn passes(pause: std::pin::Pin<&mut tokio::time::Sleep>) {
    if pause.deadline() > tokio::time::Instant::now() {
        pause.await;
    }
}

/// What became of the run that is being written, if one is. Cancel-safe.
async fn ready(writing: &mut Option<Writing>) -> Option<Result<Written, JoinError>> {
    match writing {
        Some(job) => Some(job.await),
        None => None,
    }
}

struct Guard<F: FnMut()>(F);

impl<F: FnMut()> Drop for Guard<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
