//! Serving a request: what the shelf lets pass, cut into the parts that go into packets.

use std::collections::VecDeque;
use std::sync::Arc;

use iceshare::icet::stream::{EndCode, PagesRequest};
use iceshare::icet::{PageNo, PeerKey, frame};
use iceshare::protocol::{Span, What};
use iceshare::serve::{Again, Chunk, Plan, SLICES, Source, Supply, SupplyError, plan_around_holes, slices};
use iceshare::shelf::Ask;
use iceshare::store::MediaStore;
use iceshare::stream::code_of;

use crate::assoc::{AHEAD, Part, Want};
use crate::hub::{Hub, RequestId, Waiting};
use crate::wire::{Body, Places, UNIT};

/// How a request ends: well or not, and behind which place.
type End = (EndCode, u64);

/// Serves a request to its end.
pub(crate) async fn request(
    hub: Arc<Hub>,
    id: RequestId,
    peer: PeerKey,
    body: Vec<u8>,
    waiting: Arc<Waiting>,
) {
    let work = async {
        match Job::new(&hub, id, peer, &body) {
            Ok((mut job, supply)) => {
                let again = job.again.clone();
                let shape = job.shape.clone();
                let repairs = repairs(&hub, id, &waiting, &again, &shape);
                let all = async {
                    match job.run(&hub, &waiting, supply).await {
                        Ok((code, place)) => hub.with(id.0, |a| a.end(id.1, code, place)),
                        Err(code) => hub.with(id.0, |a| a.fail(id.1, code)),
                    };
                    std::future::pending().await
                };
                // Repairs go on until the receiver has enough.
                tokio::select! {
                    () = repairs => {}
                    () = all => {}
                }
            }
            Err(code) => {
                hub.with(id.0, |a| a.fail(id.1, code));
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = waiting.stopped.cancelled() => {}
    }
    hub.served(id);
}

/// What the bytes of a request are of.
#[derive(Clone)]
enum Shape {
    /// Pages: those of a set, or all from one on.
    Pages(Option<iceshare::icet::PageSet>),
    Spans(Vec<Span>),
    Bytes,
    Slices(u64, u64),
    /// Batches of live media: that of this page, and all after it.
    Batches(PageNo),
}

/// A request that was admitted.
struct Job {
    id: RequestId,
    media: Arc<MediaStore>,
    again: Again,
    shape: Shape,
    /// The next byte's place.
    at: u64,
    /// Spans that were not sent yet.
    spans: VecDeque<Span>,
    end: End,
}

impl Job {
    fn new(hub: &Arc<Hub>, id: RequestId, peer: PeerKey, body: &[u8]) -> Result<(Job, Supply), EndCode> {
        let Body { credit, request } = Body::read(body).map_err(|_| EndCode::BAD_REQUEST)?;
        let PagesRequest { path, media, version, what, ticket } = request;
        let shelf = hub.shelf().ok_or(EndCode::NO_MEDIA)?;
        let media = shelf.find_id(&media).ok_or(EndCode::NO_MEDIA)?;
        if media.path() != &path || media.manifest().version != version {
            return Err(EndCode::NO_MEDIA);
        }
        let planned = plan_around_holes(&media, &what).map_err(|e| match e {
            iceshare::serve::Unavailable::Beyond { .. } => EndCode::BEYOND,
            iceshare::serve::Unavailable::Missing(_) => EndCode::MISSING,
        })?;
        let (Plan { what: covered, total, source }, left_out) = planned;
        let ask = Ask {
            media: &media,
            protocol: hub.cx.protocol(),
            what: &covered,
            ticket: ticket.as_ref(),
            proved: Some(peer),
        };
        let admission = shelf.admit(ask).map_err(|e| code_of(e.kind()))?;
        let short = left_out.is_some() || is_short(&what, &covered, total);
        let code = if short { EndCode::MISSING } else { EndCode::COMPLETE };
        let first = first_page(&source);
        let (shape, at, end) = match &covered {
            // These end where the broadcast does.
            What::Pages(set) if media.is_live() && matches!(source, Source::Pages(_)) => {
                (Shape::Pages(Some(*set)), set.next_from(0).unwrap_or(set.first) * UNIT, 0)
            }
            What::Pages(set) => {
                let last = set.last.unwrap_or(total.saturating_sub(1));
                (Shape::Pages(Some(*set)), set.next_from(0).unwrap_or(set.first) * UNIT, (last + 1) * UNIT)
            }
            // It ends where it ends.
            What::Time { .. } => (Shape::Pages(None), first.unwrap_or(0) * UNIT, 0),
            What::Bytes { first, last } => (Shape::Bytes, *first, last.map_or(0, |l| l + 1)),
            What::Proofs { first, .. } if media.is_live() => (Shape::Batches(*first), first * UNIT, 0),
            What::Proofs { first, last } => (Shape::Slices(*first, *last), first * UNIT, (last + 1) * UNIT),
            What::Spans(spans) => {
                let place = |s: &Span, n: u32| s.page * UNIT + u64::from(s.offset + n);
                let (first, last) = (spans.first(), spans.last());
                let at = first.map_or(0, |s| place(s, 0));
                (Shape::Spans(spans.clone()), at, last.map_or(0, |s| place(s, s.len)))
            }
        };
        let spans = if let What::Spans(spans) = covered { spans.into() } else { VecDeque::new() };
        let supply = Supply::new(media.clone(), admission, source, hub.config.stall_timeout);
        let accepted = hub.with(id.0, |a| {
            a.first_credit(id.1, credit);
            a.accept(id.1, at);
        });
        accepted.ok_or(EndCode::FAILED)?;
        Ok((Job { id, media, again: supply.again(), shape, at, spans, end: (code, end) }, supply))
    }

    /// Gives all of it, as room and limits allow.
    async fn run(&mut self, hub: &Hub, waiting: &Waiting, mut supply: Supply) -> Result<End, EndCode> {
        let result = match self.shape {
            Shape::Slices(first, last) => self.slices(hub, waiting, first, last).await,
            Shape::Batches(first) => self.batches(hub, waiting, &mut supply, first).await,
            _ => self.bytes(hub, waiting, &mut supply).await,
        };
        match result {
            Ok(()) => Ok((self.end.0, self.end.1.max(self.at))),
            // What was sent can still be repaired.
            Err(SupplyError::Late(_)) => Ok((EndCode::MISSING, self.at)),
            Err(e) => Err(code_of(e.kind())),
        }
    }

    async fn bytes(&mut self, hub: &Hub, waiting: &Waiting, supply: &mut Supply) -> Result<(), SupplyError> {
        while let Some(room) = self.room(hub, waiting).await {
            let Some(chunk) = supply.next_within(room).await? else { break };
            let (parts, all) = self.cut(chunk);
            hub.with(self.id.0, |a| parts.into_iter().for_each(|part| a.supply(self.id.1, part)));
            if !all {
                // The window of live media moved past it meanwhile: the rest cannot be named.
                return Err(SupplyError::Gone(self.at / UNIT));
            }
        }
        Ok(())
    }

    /// Batches as they come, each a unit that has the number of its first page.
    async fn batches(
        &mut self,
        hub: &Hub,
        waiting: &Waiting,
        supply: &mut Supply,
        first: PageNo,
    ) -> Result<(), SupplyError> {
        let mut next = first;
        while self.room(hub, waiting).await.is_some() {
            let Some(chunk) = supply.next().await? else { break };
            let part = Part { place: next * UNIT, bytes: chunk.bytes, last: true };
            self.at = (next + 1) * UNIT;
            hub.with(self.id.0, |a| a.supply(self.id.1, part));
            next = self.media.batch_of(next).map(|b| b.next()).ok_or(SupplyError::Gone(next))?;
        }
        Ok(())
    }

    async fn slices(
        &mut self,
        hub: &Hub,
        waiting: &Waiting,
        first: u64,
        last: u64,
    ) -> Result<(), SupplyError> {
        let mut next = first;
        while next <= last {
            if self.room(hub, waiting).await.is_none() {
                break;
            }
            let to = last.min(next + SLICES - 1);
            for (index, bytes) in slices(&self.media, next, to).await? {
                if self.room(hub, waiting).await.is_none() {
                    return Ok(());
                }
                self.again.permit(bytes.len()).await?;
                let part = Part { place: index * UNIT, bytes: bytes.into(), last: true };
                self.at = (index + 1) * UNIT;
                hub.with(self.id.0, |a| a.supply(self.id.1, part));
            }
            next = to + 1;
        }
        Ok(())
    }

    /// Waits for room, in bytes; none: nobody wants more.
    async fn room(&self, hub: &Hub, waiting: &Waiting) -> Option<usize> {
        loop {
            match hub.room(self.id) {
                Some(Want::Now(room)) => return Some(room),
                Some(Want::Later) => waiting.room.notified().await,
                Some(Want::Never) | None => return None,
            }
        }
    }

    /// Cuts bytes of the media where their pages end; whether that is all of them.
    fn cut(&mut self, chunk: Chunk) -> (Vec<Part>, bool) {
        let mut bytes = chunk.bytes;
        let mut parts = Vec::with_capacity(bytes.len() / 2048 + 1);
        if let Shape::Bytes = self.shape {
            parts.push(Part { place: self.at, bytes: bytes.clone(), last: false });
            self.at += bytes.len() as u64;
            return (parts, true);
        }
        if let Some(page) = chunk.page {
            self.at = page * UNIT;
        }
        while !bytes.is_empty() {
            if let Some(span) = self.spans.front() {
                self.at = span.page * UNIT + u64::from(span.offset);
            }
            let (page, offset) = (self.at / UNIT, self.at % UNIT);
            let len = page_len(&self.media, page);
            let left = self.spans.front().map_or(len.saturating_sub(offset), |s| u64::from(s.len));
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            if n == 0 {
                return (parts, false);
            }
            let last = offset + n as u64 == len;
            parts.push(Part { place: self.at, bytes: bytes.split_to(n), last });
            if let Some(span) = self.spans.front_mut() {
                let n = u32::try_from(n).unwrap_or(span.len);
                (span.offset, span.len) = (span.offset + n, span.len - n);
                if span.len == 0 {
                    self.spans.pop_front();
                }
            }
            self.at = match &self.shape {
                _ if !last => self.at + n as u64,
                Shape::Pages(Some(set)) if set.stripe.is_some() => {
                    // Behind its last page there is the end.
                    set.next_from(page + 1).unwrap_or(page + 1) * UNIT
                }
                _ => (page + 1) * UNIT,
            };
        }
        (parts, true)
    }
}

/// Whether less is covered than was asked for and the media has.
fn is_short(asked: &What, covered: &What, total: u64) -> bool {
    match (asked, covered) {
        (What::Pages(asked), What::Pages(covered)) => {
            let want = asked.last.unwrap_or(u64::MAX).min(total.saturating_sub(1));
            covered.last.is_some_and(|l| l < want)
        }
        (What::Bytes { last: asked, .. }, What::Bytes { last: covered, .. }) => {
            let want = asked.unwrap_or(u64::MAX).min(total.saturating_sub(1));
            covered.is_some_and(|l| l < want)
        }
        (What::Spans(asked), What::Spans(covered)) => covered.len() < asked.len(),
        (What::Proofs { last: asked, .. }, What::Proofs { last: covered, .. }) => {
            *covered < (*asked).min(total.saturating_sub(1))
        }
        _ => false,
    }
}

fn first_page(source: &Source) -> Option<PageNo> {
    match source {
        Source::Parts { parts, .. } => match parts.first() {
            Some(iceshare::serve::Part::Span { page, .. }) => *page,
            _ => None,
        },
        Source::Pages(set) => set.next_from(0),
        Source::Live { .. } | Source::Batches(_) | Source::Slices { .. } => None,
    }
}

fn page_len(media: &MediaStore, page: PageNo) -> u64 {
    media.span(page).map_or(0, |s| u64::from(s.record.len))
}

/// Sends again what the receiver asks for, until it has enough.
async fn repairs(hub: &Hub, id: RequestId, waiting: &Waiting, again: &Again, shape: &Shape) {
    loop {
        match hub.with(id.0, |a| a.next_repair(id.1)) {
            Some(Want::Now((number, places))) => {
                if let Err(e) = repair(hub, id, again, shape, &places).await {
                    hub.with(id.0, |a| a.fail(id.1, code_of(e.kind())));
                    return;
                }
                hub.with(id.0, |a| a.repair_done(id.1, number));
            }
            Some(Want::Later) => waiting.repair.notified().await,
            Some(Want::Never) | None => return,
        }
    }
}

async fn repair(
    hub: &Hub,
    id: RequestId,
    again: &Again,
    shape: &Shape,
    places: &Places,
) -> Result<(), SupplyError> {
    let media = again.media();
    let give = |part: Part| hub.with(id.0, |a| a.repair(id.1, part));
    for (start, end) in &places.0 {
        if let Shape::Bytes = shape {
            let mut at = *start;
            while at < *end {
                let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(AHEAD / 4);
                let bytes = again.read(at, len).await?;
                give(Part { place: at, bytes, last: false });
                at += len as u64;
            }
            continue;
        }
        // The units between, of which the first and the last may be asked for in part.
        let mut unit = Some(start / UNIT);
        while let Some(n) = unit.filter(|n| n * UNIT < *end) {
            let from = start.saturating_sub(n * UNIT);
            let to = (end - n * UNIT).min(UNIT);
            let part = match shape {
                Shape::Slices(..) => {
                    let known = slices(media, n, n).await?.into_iter().next();
                    known.map(|(_, bytes)| (bytes.len() as u64, Some(bytes)))
                }
                Shape::Batches(first) => {
                    let known = media.batch_of(n).filter(|b| b.first.max(*first) == n);
                    known.map(|b| frame::encode(b.signed())).map(|bytes| (bytes.len() as u64, Some(bytes)))
                }
                _ => media.span(n).filter(|_| media.has(n)).map(|s| (u64::from(s.record.len), None)),
            };
            // Nothing of what was passed over.
            let (len, bytes) = part.unwrap_or((0, None));
            let to = to.min(len);
            let cut = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            let bytes = match bytes {
                _ if to <= from => bytes::Bytes::new(),
                Some(bytes) => {
                    again.permit(cut(to - from)).await?;
                    bytes::Bytes::from(bytes).slice(cut(from)..cut(to))
                }
                None => {
                    let offset = media.span(n).map_or(0, |s| s.offset);
                    again.read(offset + from, cut(to - from)).await?
                }
            };
            if !bytes.is_empty() || len == 0 {
                give(Part { place: n * UNIT + from, bytes, last: to == len });
            }
            unit = match shape {
                Shape::Pages(Some(set)) => set.next_from(n + 1),
                Shape::Spans(spans) => spans.iter().map(|s| s.page).find(|p| *p > n),
                _ => Some(n + 1),
            };
        }
    }
    Ok(())
}
