//! A request that this peer serves: what is to be sent, within the receiver's credit.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use iceshare::icet::Now;
use iceshare::icet::stream::EndCode;

use crate::wire::Places;

/// Bytes that are read ahead for one request.
pub const AHEAD: usize = 256 * 1024;
/// The same where many are served, by an association or in all: a stranger costs us memory only as long as he costs little.
const AHEAD_IN_A_CROWD: usize = 8 * 1024;

/// Consecutive bytes of one unit (or of the media, where there are none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where they begin.
    pub place: u64,
    /// The bytes.
    pub bytes: Bytes,
    /// Whether they end their unit.
    pub last: bool,
}

#[derive(Debug)]
enum Repair {
    Part(Part),
    /// The repair of this number is complete.
    Done(u64),
}

/// What goes into a packet next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) place: u64,
    pub(crate) sequence: Option<u64>,
    pub(crate) last: bool,
    pub(crate) bytes: Bytes,
}

/// The host's side of a request.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    /// The body, until it is complete: bytes and which of them came.
    pub(crate) body: Option<Gathered>,
    limit: u64,
    sequence: u64,
    queue: VecDeque<Part>,
    queued: usize,
    /// Whether there are many others.
    pub(crate) in_a_crowd: bool,
    repairs: VecDeque<Repair>,
    repairs_queued: usize,
    /// Repairs that the driver did not take up yet.
    asked: VecDeque<(u64, Places)>,
    last_asked: u64,
    pub(crate) accepted: Option<u64>,
    /// Up to where new bytes were sent.
    sent_to: u64,
    pub(crate) end: Option<(EndCode, u64)>,
    end_said: bool,
    /// Why nothing more comes of it.
    pub(crate) failed: Option<EndCode>,
    pub(crate) repaired: u64,
    /// Whether BLOCKED was said at this sequence.
    blocked_at: Option<u64>,
    /// When something was heard of it last.
    pub(crate) heard: Now,
}

/// A body in parts.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) bytes: Vec<u8>,
    pub(crate) have: super::ranges::RangeSet,
}

impl Serving {
    pub(crate) fn new(total: usize, now: Now) -> Serving {
        let body = Some(Gathered { bytes: vec![0; total], have: super::ranges::RangeSet::default() });
        Serving { body, heard: now, ..Serving::default() }
    }

    /// A part of the body came. The whole, once it is.
    pub(crate) fn gather(&mut self, offset: usize, total: usize, part: &[u8]) -> Option<Vec<u8>> {
        let g = self.body.as_mut()?;
        if g.bytes.len() != total {
            return None;
        }
        g.bytes.get_mut(offset..offset + part.len())?.copy_from_slice(part);
        g.have.insert(offset as u64, (offset + part.len()) as u64);
        (g.have.within(0, total as u64) == [(0, total as u64)]).then(|| self.body.take().map(|g| g.bytes))?
    }

    pub(crate) fn raise(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes that wait to be sent.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    fn most(&self) -> usize {
        if self.in_a_crowd { AHEAD_IN_A_CROWD } else { AHEAD }
    }

    /// Bytes that may be given to [`Serving::supply`] now.
    pub(crate) fn room(&self) -> usize {
        self.most().saturating_sub(self.queued)
    }

    /// The same of [`Serving::repair`].
    pub(crate) fn repair_room(&self) -> usize {
        AHEAD.saturating_sub(self.repairs_queued)
    }

    /// New bytes, in order.
    pub(crate) fn supply(&mut self, part: Part) {
        self.queued += part.bytes.len();
        self.queue.push_back(part);
    }

    /// Bytes of a repair.
    pub(crate) fn repair(&mut self, part: Part) {
        self.repairs_queued += part.bytes.len();
        self.repairs.push_back(Repair::Part(part));
    }

    /// All of a repair was given.
    pub(crate) fn repair_done(&mut self, number: u64) {
        self.repairs.push_back(Repair::Done(number));
    }

    /// A REPAIR frame. False: its number does not follow, or it is of what was not sent yet.
    pub(crate) fn ask(&mut self, number: u64, places: Places) -> bool {
        if number <= self.last_asked || self.asked.iter().any(|(n, _)| *n == number) {
            // Said again.
            return true;
        }
        // Of what was passed over up to the end nothing can come, but the receiver cannot know.
        let to =
            self.end.filter(|_| self.end_said).map_or(self.sent_to, |(_, place)| place.max(self.sent_to));
        let sent = places.0.last().is_some_and(|(_, end)| *end <= to);
        if !sent || self.asked.len() >= 64 {
            return sent;
        }
        // Later ones may overtake: each is answered by itself, and the highest number told once all before it are.
        let at = self.asked.partition_point(|(n, _)| *n < number);
        self.asked.insert(at, (number, places));
        true
    }

    /// The repair to be read next.
    pub(crate) fn next_asked(&mut self) -> Option<(u64, Places)> {
        if self.asked.front().is_none_or(|(n, _)| *n != self.last_asked + 1) {
            return None;
        }
        self.last_asked += 1;
        self.asked.pop_front()
    }

    /// Whether DATA could go now.
    pub(crate) fn is_ready(&self) -> bool {
        !self.repairs.is_empty() || self.queue.front().is_some_and(|p| self.allows(p))
    }

    fn allows(&self, part: &Part) -> bool {
        self.sequence < self.limit || part.bytes.is_empty()
    }

    /// Whether only credit is missing and the receiver was not told yet.
    pub(crate) fn becomes_blocked(&mut self) -> bool {
        let blocked = self.queue.front().is_some_and(|p| !self.allows(p));
        if blocked && self.blocked_at != Some(self.sequence) {
            self.blocked_at = Some(self.sequence);
            return true;
        }
        false
    }

    /// Whether BLOCKED still is true.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked_at == Some(self.sequence) && self.sequence >= self.limit
    }

    /// Whether all was sent that was given, and the end is known: END may go.
    pub(crate) fn is_over(&self) -> bool {
        self.end.is_some() && self.queue.is_empty() && self.failed.is_none()
    }

    /// Whether END is to be said now, for the first time.
    pub(crate) fn ends(&mut self) -> bool {
        let ends = self.is_over() && !self.end_said;
        self.end_said |= ends;
        ends
    }

    /// Whether its driver has something to do: a repair, or (if it has `more`) enough room to be worth a read.
    pub(crate) fn is_hungry(&self, more: bool) -> bool {
        let repair = self.asked.front().is_some_and(|(n, _)| *n == self.last_asked + 1);
        repair && self.repair_room() > 0 || more && self.room() >= self.most() / 2
    }

    /// Whether the receiver, whose turn it is, was not heard of for too long.
    pub(crate) fn is_stale(&self, now: Now) -> bool {
        let over = self.end_said || self.failed.is_some();
        let theirs = over || self.is_blocked() || self.body.is_some();
        theirs && now.since(self.heard) >= super::IDLE
    }

    /// Nothing more comes of it.
    pub(crate) fn fail(&mut self, code: EndCode) {
        self.failed.get_or_insert(code);
        self.queue.clear();
        self.repairs.clear();
        self.asked.clear();
        (self.queued, self.repairs_queued) = (0, 0);
    }

    /// Takes at most `room` bytes of one unit, `header(place, sequence)` of which are the frame's. `Err`: a repair is complete, its number.
    pub(crate) fn take(
        &mut self,
        room: usize,
        header: impl Fn(u64, Option<u64>) -> usize,
    ) -> Result<Option<Piece>, u64> {
        if let Some(Repair::Done(number)) = self.repairs.front() {
            let number = *number;
            self.repairs.pop_front();
            self.repaired = self.repaired.max(number);
            return Err(number);
        }
        if let Some(Repair::Part(part)) = self.repairs.front_mut() {
            let room = room.saturating_sub(header(part.place, None));
            let (piece, done) = cut(part, None, room);
            self.repairs_queued -= piece.as_ref().map_or(0, |p| p.bytes.len());
            if done {
                self.repairs.pop_front();
            }
            return Ok(piece);
        }
        let credit = usize::try_from(self.limit.saturating_sub(self.sequence)).unwrap_or(usize::MAX);
        let sequence = self.sequence;
        let Some(part) = self.queue.front_mut() else { return Ok(None) };
        let room = room.saturating_sub(header(part.place, Some(sequence)));
        let (piece, done) = cut(part, Some(sequence), room.min(credit));
        if let Some(piece) = &piece {
            self.queued -= piece.bytes.len();
            self.sequence += piece.bytes.len() as u64;
            self.sent_to = if piece.last {
                (piece.place / crate::wire::UNIT + 1) * crate::wire::UNIT
            } else {
                piece.place + piece.bytes.len() as u64
            };
        }
        if done {
            self.queue.pop_front();
        }
        Ok(piece)
    }
}

/// At most `room` bytes of a part, and whether that was all of it.
fn cut(part: &mut Part, sequence: Option<u64>, room: usize) -> (Option<Piece>, bool) {
    let n = part.bytes.len().min(room);
    if n == 0 && !part.bytes.is_empty() {
        return (None, false);
    }
    let done = n == part.bytes.len();
    let piece = Piece { place: part.place, sequence, last: done && part.last, bytes: part.bytes.slice(..n) };
    part.bytes.advance(n);
    part.place += n as u64;
    (Some(piece), done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(place: u64, n: usize, last: bool) -> Part {
        Part { place, bytes: Bytes::from(vec![7; n]), last }
    }

    fn take(s: &mut Serving, room: usize) -> Option<(u64, Option<u64>, bool, usize)> {
        s.take(room, |_, _| 10).unwrap().map(|p| (p.place, p.sequence, p.last, p.bytes.len()))
    }

    #[test]
    fn new_bytes_wait_for_credit_and_repairs_come_first() {
        let mut s = Serving::new(0, Now(0));
        s.supply(part(65_536, 100, true));
        s.supply(part(131_072, 50, false));
        assert!(!s.is_ready() && s.becomes_blocked() && !s.becomes_blocked() && s.is_blocked());
        s.raise(120);
        assert!(s.is_ready() && !s.is_blocked());
        assert_eq!(take(&mut s, 70), Some((65_536, Some(0), false, 60)));
        assert_eq!(take(&mut s, 70), Some((65_596, Some(60), true, 40)));
        assert_eq!(take(&mut s, 70), Some((131_072, Some(100), false, 20)));
        assert!(!s.is_ready() && s.becomes_blocked());
        assert!(!s.ask(1, Places(vec![(65_536, 131_093)])), "not sent yet");
        assert!(s.ask(2, Places(vec![(65_590, 65_600)])) && s.next_asked().is_none());
        assert!(s.ask(1, Places(vec![(65_536, 131_092)])));
        assert_eq!(s.next_asked().map(|(n, _)| n), Some(1));
        assert_eq!(s.next_asked().map(|(n, _)| n), Some(2));
        assert!(s.ask(2, Places::default()) && s.next_asked().is_none(), "said again");
        s.repair(part(65_536, 100, true));
        s.repair_done(1);
        assert_eq!(take(&mut s, 200), Some((65_536, None, true, 100)));
        assert_eq!(s.take(200, |_, _| 10), Err(1));
        assert_eq!((s.repaired, s.room()), (1, AHEAD - 30));
        s.raise(1000);
        s.end = Some((EndCode::COMPLETE, 0));
        assert!(!s.is_over());
        assert_eq!(take(&mut s, 70), Some((131_092, Some(120), false, 30)));
        assert!(s.is_over());
    }

    #[test]
    fn a_unit_without_bytes_is_told_and_a_full_packet_takes_none() {
        let mut s = Serving::new(0, Now(0));
        s.supply(part(65_536, 0, true));
        assert_eq!(take(&mut s, 10), Some((65_536, Some(0), true, 0)));
        s.raise(10);
        s.supply(part(131_072, 5, true));
        assert_eq!(take(&mut s, 10), None);
        assert_eq!(take(&mut s, 15), Some((131_072, Some(0), true, 5)));
    }

    #[test]
    fn bodies_come_in_parts_in_any_order() {
        let mut s = Serving::new(10, Now(0));
        assert_eq!(s.gather(5, 10, b"fghij"), None);
        assert_eq!(s.gather(0, 11, b"abcde"), None, "another length");
        assert_eq!(s.gather(5, 10, b"fghij"), None);
        assert_eq!(s.gather(0, 10, b"abcde"), Some(b"abcdefghij".to_vec()));
        assert_eq!(s.gather(0, 10, b"abcde"), None, "once");
    }

    #[test]
    fn in_a_crowd_little_is_read_ahead() {
        let mut s = Serving::new(0, Now(0));
        assert!(s.room() == AHEAD && s.is_hungry(true));
        s.in_a_crowd = true;
        assert!(s.room() == AHEAD_IN_A_CROWD && s.is_hungry(true));
        s.supply(Part { place: 0, bytes: Bytes::from(vec![0; AHEAD_IN_A_CROWD]), last: false });
        assert!(s.room() == 0 && !s.is_hungry(true), "it waits, and is not looked at again and again");
        s.in_a_crowd = false;
        assert_eq!(s.room(), AHEAD - AHEAD_IN_A_CROWD);
    }
}
