//! A request that this peer made: what came, what is missing, how much may come.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use iceshare::icet::stream::EndCode;
use iceshare::icet::{Now, PageNo};
use iceshare::protocol::Piece;
use iceshare::stream::BufferPool;

use super::shape::Shape;
use crate::wire::{Data, Places, REPAIR_INTERVALS, UNIT};

/// Holes at once, beyond which the host is broken.
const HOLES: usize = 4096;
/// Packets after the one that showed a hole that make it lost (with that one, three: RFC 9002, section 6.1.1).
const THRESHOLD: u64 = 2;
const MAX_THRESHOLD: u64 = 64;
/// Shortest time after which it is lost without them.
const REORDERING: Duration = Duration::from_millis(2);
/// Bytes are handed on in buffers of this size, if they come so fast.
const BUFFER: usize = 64 * 1024;
/// What a piece costs beside its bytes.
const PIECE: usize = 64;

/// The host broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Breach(pub(crate) &'static str);

/// Why bytes are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hole {
    /// This packet, at this time, showed it.
    Seen { number: u64, at: Now },
    /// It was asked for in this repair.
    Asked(u64),
}

/// What a read of a fetch gives.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// The next piece.
    Piece(Piece),
    /// Nothing yet.
    Pending,
    /// Nothing more.
    End(EndCode),
}

/// The receiver's side of a request.
#[derive(Debug)]
pub(crate) struct Fetching {
    pub(crate) body: Bytes,
    shape: Shape,
    window: u64,
    /// The limit that the host knows, or will.
    limit: u64,
    /// Where the newest bytes end in the sequence of what the host sent, and most that it says it has sent.
    sequence: u64,
    told: u64,
    blocked: bool,
    /// Where new bytes are expected.
    cursor: Option<u64>,
    /// Place and sequence of the first bytes, as far as it is known.
    first: Option<(u64, u64)>,
    accepted: bool,
    holes: BTreeMap<u64, (u64, Hole)>,
    /// Repairs that were not acknowledged yet.
    pub(crate) repairs: BTreeMap<u64, Places>,
    last_repair: u64,
    threshold: u64,
    patience: u32,
    end: Option<(EndCode, u64, u64)>,
    failed: Option<EndCode>,
    out: Out,
    /// Bytes that are ahead of their order, by place (only where order matters).
    ahead: BTreeMap<u64, (Bytes, bool)>,
    ahead_bytes: usize,
    /// Places at which nothing is, from and up to before (only where order matters).
    skips: BTreeMap<u64, u64>,
    /// Nobody reads it any more; kept until the host heard so.
    pub(crate) stopped: bool,
}

/// Pieces on their way to the reader.
#[derive(Debug)]
struct Out {
    queue: VecDeque<Piece>,
    run: Vec<u8>,
    pool: BufferPool,
    /// Where bytes continue the run.
    run_next: Option<u64>,
    fragment: BytesMut,
    fragment_at: u64,
    bytes: usize,
}

impl Out {
    fn new(pool: BufferPool) -> Out {
        Out {
            queue: VecDeque::new(),
            run: Vec::new(),
            pool,
            run_next: None,
            fragment: BytesMut::new(),
            fragment_at: 0,
            bytes: 0,
        }
    }

    fn flush_run(&mut self) {
        if self.run.is_empty() {
            return;
        }
        let bytes = if self.run.len() < self.run.capacity() / 2 {
            // Not a large buffer for a few bytes.
            let bytes = Bytes::copy_from_slice(&self.run);
            self.run.clear();
            bytes
        } else {
            self.pool.lend(std::mem::take(&mut self.run))
        };
        self.queue.push_back(Piece::Bytes(bytes));
    }

    fn flush_fragment(&mut self) {
        if !self.fragment.is_empty() {
            let (page, offset) =
                (self.fragment_at / UNIT, u32::try_from(self.fragment_at % UNIT).unwrap_or(0));
            self.queue.push_back(Piece::Fragment { page, offset, bytes: self.fragment.split().freeze() });
        }
    }

    fn extend_run(&mut self, bytes: &[u8]) {
        if self.run.capacity() - self.run.len() < bytes.len() {
            self.flush_run();
            if self.run.capacity() < bytes.len() {
                self.run = self.pool.take().unwrap_or_default();
                self.run.clear();
                self.run.reserve(BUFFER.max(bytes.len()));
            }
        }
        self.run.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    fn page(&mut self, page: PageNo) {
        self.flush_run();
        self.queue.push_back(Piece::Page(page));
        self.bytes += PIECE;
    }

    fn pop(&mut self) -> Option<Piece> {
        if self.queue.is_empty() {
            self.flush_run();
            self.flush_fragment();
        }
        let piece = self.queue.pop_front()?;
        self.bytes -= match &piece {
            Piece::Bytes(b) => b.len(),
            Piece::Fragment { bytes, .. } => bytes.len() + PIECE,
            _ => PIECE,
        };
        Some(piece)
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.run.is_empty() && self.fragment.is_empty()
    }
}

impl Fetching {
    pub(crate) fn new(body: Bytes, shape: Shape, window: u64, pool: BufferPool) -> Fetching {
        Fetching {
            body,
            shape,
            window,
            limit: window,
            sequence: 0,
            told: 0,
            blocked: false,
            cursor: None,
            first: None,
            accepted: false,
            holes: BTreeMap::new(),
            repairs: BTreeMap::new(),
            last_repair: 0,
            threshold: THRESHOLD,
            patience: 1,
            end: None,
            failed: None,
            out: Out::new(pool),
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
            skips: BTreeMap::new(),
            stopped: false,
        }
    }

    /// The host serves the request from `place` on.
    pub(crate) fn accept(&mut self, now: Now, number: u64, place: u64) -> Result<(), Breach> {
        if self.accepted {
            return Ok(());
        }
        self.accepted = true;
        let place = self.shape.next(place);
        match self.first.replace((place, 0)) {
            Some((first, _)) if place > first => {
                return Err(Breach("bytes from before where the request begins"));
            }
            // New bytes overtook it.
            Some((first, 1..)) => self.hole(now, number, place, first)?,
            Some((first, _)) => self.skip(place, first),
            None => {
                self.cursor = Some(place);
                self.close_tail(now, number)?;
            }
        }
        self.drain_ahead();
        Ok(())
    }

    /// What lies between the last new bytes and the end is missing.
    fn close_tail(&mut self, now: Now, number: u64) -> Result<(), Breach> {
        let (Some((_, place, sequence @ 1..)), Some(cursor)) = (self.end, self.cursor) else { return Ok(()) };
        if cursor < place {
            self.cursor = Some(self.shape.next(place).max(place));
            if sequence > self.sequence {
                self.hole(now, number, cursor, place)?;
            }
        }
        self.sequence = sequence;
        Ok(())
    }

    fn hole(&mut self, now: Now, number: u64, start: u64, end: u64) -> Result<(), Breach> {
        if start < end {
            self.holes.insert(start, (end, Hole::Seen { number, at: now }));
        }
        if self.holes.len() > HOLES { Err(Breach("too many holes at once")) } else { Ok(()) }
    }

    /// Bytes came in packet `number`.
    pub(crate) fn data(&mut self, now: Now, number: u64, data: &Data<'_>) -> Result<(), Breach> {
        let len = data.bytes.len() as u64;
        if !self.shape.covers(data.place, len) {
            return Err(Breach("bytes that were not asked for"));
        }
        let after = self.shape.after(data.place, len, data.last);
        let Some(sequence) = data.sequence else {
            self.fill(data, after);
            return Ok(());
        };
        if sequence + len > self.limit {
            return Err(Breach("more bytes than were allowed"));
        }
        let (first, first_sequence) = *self.first.get_or_insert((data.place, sequence));
        let cursor = *self.cursor.get_or_insert(data.place);
        if sequence >= self.sequence {
            if data.place < cursor {
                return Err(Breach("bytes out of order"));
            }
            if sequence > self.sequence && first != data.place {
                self.hole(now, number, cursor, data.place)?;
            } else {
                self.skip(cursor, data.place);
            }
            self.sequence = sequence + len;
            self.cursor = Some(after);
            self.deliver(data.place, data.bytes, data.last, false);
        } else if !self.accepted && sequence < first_sequence {
            // The very first packets in another order.
            if after > first {
                return Err(Breach("bytes out of order"));
            }
            self.first = Some((data.place, sequence));
            if sequence + len < first_sequence {
                self.hole(now, number, after, first)?;
            } else {
                self.skip(after, first);
            }
            self.deliver(data.place, data.bytes, data.last, true);
        } else if self.fill(data, after) {
            // What was taken for lost was late: be more patient.
            self.threshold = (self.threshold * 2).min(MAX_THRESHOLD);
            self.patience = (self.patience * 2).min(8);
        }
        Ok(())
    }

    /// The host has nothing there.
    fn skip(&mut self, from: u64, to: u64) {
        if from < to && self.shape.is_ordered() {
            self.skips.insert(from, to);
            self.drain_ahead();
        }
    }

    /// Takes of `data` what is missing. Says whether something of it had been asked for again.
    fn fill(&mut self, data: &Data<'_>, after: u64) -> bool {
        let (mut asked, mut at) = (false, data.place);
        while let Some((start, end, hole)) = self.hole_at(at, after) {
            self.holes.remove(&start);
            let (a, b) = (start.max(data.place), end.min(after));
            if start < a {
                self.holes.insert(start, (a, hole));
            }
            if b < end {
                self.holes.insert(b, (end, hole));
            }
            asked |= matches!(hole, Hole::Asked(_));
            let len = data.bytes.len() as u64;
            let (from, to) = (a - data.place, (b - data.place).min(len));
            let cut = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            if let Some(bytes) = data.bytes.get(cut(from)..cut(to)) {
                self.deliver(a, bytes, data.last && to == len, true);
                if bytes.is_empty() {
                    self.skip(a, b);
                }
            }
            at = b;
        }
        asked
    }

    /// The first hole that reaches into `from .. to`.
    fn hole_at(&self, from: u64, to: u64) -> Option<(u64, u64, Hole)> {
        let before = self.holes.range(..=from).next_back().filter(|(_, (end, _))| *end > from);
        let next = before.or_else(|| self.holes.range(from..to).next())?;
        (*next.0 < to).then_some((*next.0, next.1.0, next.1.1))
    }

    /// Hands bytes on. `late`: those behind them were before.
    fn deliver(&mut self, place: u64, bytes: &[u8], last: bool, late: bool) {
        if self.stopped || bytes.is_empty() {
            return;
        }
        if self.shape.is_ordered() {
            self.ahead_bytes += bytes.len() + PIECE;
            self.ahead.insert(place, (Bytes::copy_from_slice(bytes), last));
            return self.drain_ahead();
        }
        let apart = matches!(self.shape, Shape::Spans(_));
        let after = self.shape.after(place, bytes.len() as u64, last);
        let out = &mut self.out;
        if out.run_next == Some(place) {
            out.extend_run(bytes);
            out.run_next = Some(after);
        } else if place.is_multiple_of(UNIT) && !late && !apart {
            out.page(place / UNIT);
            out.extend_run(bytes);
            out.run_next = Some(after);
        } else {
            let at = out.fragment_at + out.fragment.len() as u64;
            if out.fragment.is_empty() || at != place {
                out.flush_run();
                out.flush_fragment();
                out.fragment_at = place;
                out.bytes += PIECE;
            }
            out.fragment.extend_from_slice(bytes);
            out.bytes += bytes.len();
            if last {
                out.flush_fragment();
            }
        }
    }

    /// Where order matters: what became next.
    fn drain_ahead(&mut self) {
        while let Some(next) = self.out.run_next.or(self.first.filter(|_| self.accepted).map(|(p, _)| p)) {
            if let Some(to) = self.skips.remove(&next) {
                self.out.run_next = Some(to);
                continue;
            }
            let Some((bytes, last)) = self.ahead.remove(&next) else { return };
            self.ahead_bytes -= bytes.len() + PIECE;
            self.out.extend_run(&bytes);
            self.out.run_next = Some(self.shape.after(next, bytes.len() as u64, last));
        }
    }

    /// A repair was sent, all of it before packet `number`.
    pub(crate) fn repaired(&mut self, now: Now, number: u64, repair: u64) {
        for (_, hole) in self.holes.values_mut() {
            if matches!(hole, Hole::Asked(n) if *n <= repair) {
                *hole = Hole::Seen { number, at: now };
            }
        }
    }

    /// The host waits for credit.
    pub(crate) fn blocked(&mut self, sequence: u64) -> Result<(), Breach> {
        if sequence > self.limit {
            return Err(Breach("more bytes than were allowed"));
        }
        self.told = self.told.max(sequence);
        self.blocked = true;
        Ok(())
    }

    /// All was sent that will be.
    pub(crate) fn end(
        &mut self,
        now: Now,
        number: u64,
        (reason, place, sequence): (EndCode, u64, u64),
    ) -> Result<(), Breach> {
        if self.end.is_some() {
            return Ok(());
        }
        if sequence < self.sequence || sequence > self.limit {
            return Err(Breach("an end that does not fit what was sent"));
        }
        self.end = Some((reason, place, sequence));
        // Without its beginning (which will be said again) nothing is known to be missing.
        self.close_tail(now, number)
    }

    /// Nothing more comes, no repairs either.
    pub(crate) fn fail(&mut self, code: EndCode) {
        self.failed.get_or_insert(code);
        self.holes.clear();
        self.repairs.clear();
    }

    /// Whether all came that will.
    fn is_complete(&self) -> bool {
        match self.end {
            _ if self.failed.is_some() => true,
            Some((_, _, 0)) => true,
            Some((_, place, _)) => {
                self.accepted && self.holes.is_empty() && self.cursor.is_some_and(|c| c >= place)
            }
            None => false,
        }
    }

    /// Whether the host may forget the request: all came, or nobody wants it.
    pub(crate) fn is_done(&self) -> bool {
        self.stopped || self.is_complete()
    }

    /// Whether [`Fetching::read`] has something.
    pub(crate) fn is_readable(&self) -> bool {
        !self.out.is_empty() || self.is_complete()
    }

    /// The next piece.
    pub(crate) fn read(&mut self) -> Read {
        if let Some(piece) = self.out.pop() {
            return Read::Piece(piece);
        }
        match (self.failed, self.end) {
            (Some(code), _) => Read::End(code),
            (None, Some((code, _, _))) if self.is_complete() => Read::End(code),
            _ => Read::Pending,
        }
    }

    /// Bytes held for the reader.
    fn held(&self) -> u64 {
        (self.out.bytes + self.ahead_bytes) as u64
    }

    /// The limit to be told, if it is worth telling.
    pub(crate) fn new_limit(&mut self) -> Option<u64> {
        let limit = self.sequence.max(self.told) + self.window.saturating_sub(self.held());
        let step = if self.blocked { 1 } else { self.window / 4 };
        if self.end.is_some() || self.failed.is_some() || limit < self.limit + step.max(1) {
            return None;
        }
        self.blocked = false;
        self.limit = limit;
        Some(limit)
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// How long a hole is waited for.
    fn delay(&self, rtt: Duration) -> Duration {
        (rtt / 8 * self.patience).max(REORDERING)
    }

    /// The number of a new repair, if something is to be asked for again. `largest`: the highest packet number that came.
    pub(crate) fn new_repair(&mut self, now: Now, largest: u64, rtt: Duration) -> Option<u64> {
        if self.stopped {
            return None;
        }
        let (delay, threshold, next) = (self.delay(rtt), self.threshold, self.last_repair + 1);
        let mut places = Vec::new();
        for (start, (end, hole)) in &mut self.holes {
            let lost = matches!(hole, Hole::Seen { number, at } if *number + threshold <= largest || *at + delay <= now);
            if lost && places.len() < REPAIR_INTERVALS {
                *hole = Hole::Asked(next);
                match places.last_mut() {
                    Some((_, before)) if before == start => *before = *end,
                    _ => places.push((*start, *end)),
                }
            }
        }
        if places.is_empty() {
            return None;
        }
        self.last_repair = next;
        self.repairs.insert(next, Places(places));
        Some(next)
    }

    /// When a hole is to be taken for lost, if nothing comes.
    pub(crate) fn timeout(&self, rtt: Duration) -> Option<Now> {
        if self.stopped {
            return None;
        }
        let delay = self.delay(rtt);
        let seen = self.holes.values().filter_map(|(_, hole)| match hole {
            Hole::Seen { at, .. } => Some(*at + delay),
            Hole::Asked(_) => None,
        });
        seen.min()
    }

    /// Nobody reads any more.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
        self.holes.clear();
        self.ahead.clear();
        self.skips.clear();
        self.repairs.clear();
        self.out = Out::new(self.out.pool.clone());
        self.ahead_bytes = 0;
    }
}

#[cfg(test)]
#[path = "fetching_tests.rs"]
mod tests;
