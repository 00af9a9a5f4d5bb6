//! What goes into packets.

use iceshare::icet::Now;

use super::control::Control;
use super::inflight::Sent;
use super::{Association, Over, PACKETS};
use crate::wire::datagram::{PACKET_OVERHEAD, packet_header};
use crate::wire::{Data, Frame, MAX_DATAGRAM, data_header_len};

/// Most bytes of datagrams that are sent with one call of the system.
const BATCH: usize = 65_000;
/// Less room than this is not worth a DATA frame.
const SCRAP: usize = 48;

/// What the packet being written has.
#[derive(Debug, Default)]
struct Draft {
    eliciting: bool,
    carried: Vec<Control>,
}

impl Association {
    /// Appends datagrams to `out`, at most `most` of them, all of the size that is returned but the last, which may be shorter. None:
    /// nothing to send now.
    pub fn poll_transmit(&mut self, now: Now, out: &mut Vec<u8>, most: usize) -> Option<usize> {
        if !self.is_open() {
            return None;
        }
        if let Some(reason) = self.closing.take() {
            self.plain.clear();
            Frame::Close(reason).write(&mut self.plain);
            let size = self.seal(out, None);
            self.end_with(Over::Left);
            return size;
        }
        if self.over.is_some() {
            return None;
        }
        self.prepare(now);
        let (size, start) = (self.mtu.current(), out.len());
        let (window, rtt) = (self.cubic.window(), self.rtt.smoothed());
        let rate = super::Pacer::rate(window, rtt, self.cubic.in_slow_start());
        if let Some(probe) = self.mtu_probe(now, out, window) {
            return Some(probe);
        }
        self.paced = None;
        for _ in 0..most.clamp(1, BATCH / size) {
            let open = self.flight.bytes() + size as u64 <= window;
            let ready = self.pacer.ready(now, rate, size);
            let content = !self.outbox.is_empty() || !self.ready.is_empty();
            let may = content && (self.probes > 0 || open && ready <= now);
            self.plain.clear();
            let room = size - PACKET_OVERHEAD;
            let mut draft = Draft::default();
            if (self.acks.is_due(now) || may && self.acks.is_wanted())
                && let Some(ack) = self.acks.take(now)
            {
                Frame::Ack(ack).write(&mut self.plain);
            }
            if may {
                self.write_controls(room, &mut draft);
                self.write_data(room, &mut draft);
            }
            if self.plain.is_empty() {
                self.app_limited = !content;
                if content && open && ready > now {
                    self.paced = Some(ready);
                }
                break;
            }
            let full = room - self.plain.len() < SCRAP && self.has_more();
            if full {
                // All datagrams of a batch are of one size.
                self.plain.resize(room, 0);
            }
            let len = self.plain.len();
            let sent = draft.eliciting.then(|| Sent {
                at: now,
                size: len + PACKET_OVERHEAD,
                carried: draft.carried,
            });
            if sent.is_some() {
                self.probes = self.probes.saturating_sub(1);
                self.pacer.sent(len + PACKET_OVERHEAD);
            }
            self.seal(out, sent)?;
            if len < room {
                self.app_limited = !self.has_more();
                break;
            }
        }
        self.feed();
        (out.len() > start).then_some(size.min(out.len() - start))
    }

    fn has_more(&self) -> bool {
        !self.outbox.is_empty() || !self.ready.is_empty()
    }

    /// What receivers' requests have to say by now.
    fn prepare(&mut self, now: Now) {
        let (largest, rtt) = (self.acks.largest(), self.rtt.smoothed());
        for (id, fetch) in &mut self.fetching {
            if fetch.stopped {
                continue;
            }
            while let Some(number) = fetch.new_repair(now, largest, rtt) {
                self.outbox.push(Control::Repair(*id, number));
            }
            if fetch.new_limit().is_some() {
                self.outbox.push(Control::Credit(*id));
            }
        }
    }

    /// A packet that shows how large datagrams may be, when it is time for one. Only who serves needs to know.
    fn mtu_probe(&mut self, now: Now, out: &mut Vec<u8>, window: u64) -> Option<usize> {
        let size = self.mtu.next_probe(now).filter(|_| !self.serving.is_empty() && self.rtt.is_known())?;
        if self.flight.bytes() + size as u64 > window {
            return None;
        }
        self.plain.clear();
        Frame::Ping.write(&mut self.plain);
        self.plain.resize(size - PACKET_OVERHEAD, 0);
        self.mtu.probed(self.next_number, size);
        self.pacer.sent(size);
        self.seal(out, Some(Sent { at: now, size, carried: Vec::new() }))
    }

    /// Writes what must arrive, as far as there is room.
    fn write_controls(&mut self, room: usize, draft: &mut Draft) {
        let count = self.outbox.len();
        for _ in 0..count {
            let Some(control) = self.outbox.pop() else { return };
            let before = self.plain.len();
            if !self.write_control(control) {
                continue;
            }
            if self.plain.len() > room {
                self.plain.truncate(before);
                self.outbox.push_front(control);
                return;
            }
            draft.eliciting = true;
            draft.carried.push(control);
        }
    }

    /// Appends a control frame; false: it does not matter any more.
    fn write_control(&mut self, control: Control) -> bool {
        let (serving, fetching) = (&self.serving, &self.fetching);
        let frame = match control {
            Control::Ping => Some(Frame::Ping),
            Control::Request(request, part) => {
                let fetch = fetching.get(&request).filter(|f| !f.stopped);
                let (offset, len) = (usize::from(part.offset), usize::from(part.len));
                fetch.and_then(|f| {
                    let bytes = f.body.get(offset..offset + len)?;
                    Some(Frame::Request { request, offset, total: f.body.len(), bytes })
                })
            }
            Control::Stop(request) => Some(Frame::Stop { request }),
            Control::Credit(request) => {
                let fetch = fetching.get(&request).filter(|f| !f.stopped);
                fetch.map(|f| Frame::Credit { request, limit: f.limit() })
            }
            Control::Repair(request, number) => {
                let places = fetching.get(&request).and_then(|f| f.repairs.get(&number));
                places.map(|p| Frame::Repair { request, number, places: p.clone() })
            }
            Control::Accept(request) => {
                let place = serving.get(&request).and_then(|s| s.accepted);
                place.map(|place| Frame::Accept { request, place })
            }
            Control::Repaired(request) => {
                serving.get(&request).map(|s| Frame::Repaired { request, number: s.repaired })
            }
            Control::Blocked(request) => {
                let s = serving.get(&request).filter(|s| s.is_blocked());
                s.map(|s| Frame::Blocked { request, sequence: s.sequence() })
            }
            Control::End(request) => serving.get(&request).filter(|s| s.is_over()).and_then(|s| {
                let (code, place) = s.end?;
                Some(Frame::End { request, code, place, sequence: s.sequence() })
            }),
            Control::Fail(request) => {
                let code = serving.get(&request).and_then(|s| s.failed);
                code.map(|code| Frame::Fail { request, code })
            }
        };
        frame.inspect(|f| f.write(&mut self.plain)).is_some()
    }

    /// REQUEST frames that were not sent yet, as far as `room` reaches: for the HELLO.
    pub(crate) fn early_frames(&mut self, room: usize) -> Vec<u8> {
        self.plain.clear();
        for _ in 0..self.outbox.len() {
            let Some(control) = self.outbox.pop() else { break };
            let before = self.plain.len();
            match control {
                Control::Request(..) if self.write_control(control) && self.plain.len() > room => {
                    self.plain.truncate(before);
                    self.outbox.push(control);
                }
                Control::Request(..) => {}
                // Nobody has heard of it.
                Control::Stop(id) => {
                    self.fetching.remove(&id);
                }
                other => self.outbox.push(other),
            }
        }
        self.plain.clone()
    }

    /// Fills the rest of a packet with DATA, from each request in turn.
    fn write_data(&mut self, room: usize, draft: &mut Draft) {
        while room.saturating_sub(self.plain.len()) >= SCRAP {
            let Some(id) = self.ready.front().copied() else { return };
            let Some(s) = self.serving.get_mut(&id) else {
                self.ready.pop_front();
                continue;
            };
            match s.take(room - self.plain.len(), |place, sequence| data_header_len(id, place, sequence)) {
                Ok(Some(piece)) => {
                    let data = Data {
                        request: id,
                        place: piece.place,
                        sequence: piece.sequence,
                        last: piece.last,
                        bytes: &piece.bytes,
                    };
                    data.write(&mut self.plain);
                    draft.eliciting = true;
                }
                Ok(None) => {}
                Err(_) => self.outbox.push(Control::Repaired(id)),
            }
            if s.ends() {
                self.outbox.push(Control::End(id));
            }
            if !s.is_ready() {
                self.ready.pop_front();
                if s.becomes_blocked() {
                    self.outbox.push(Control::Blocked(id));
                }
            }
        }
        // The next packet is another request's.
        if self.ready.len() > 1 {
            self.ready.rotate_left(1);
        }
    }

    /// Encrypts `self.plain` into a datagram.
    fn seal(&mut self, out: &mut Vec<u8>, sent: Option<Sent>) -> Option<usize> {
        let keys = self.keys.as_ref()?;
        let number = self.next_number;
        let header = packet_header(self.remote_id, u32::try_from(number).ok().filter(|_| number < PACKETS)?);
        let start = out.len();
        out.extend_from_slice(&header);
        let at = out.len();
        out.resize(at + self.plain.len() + 16, 0);
        debug_assert!(out.len() - start <= MAX_DATAGRAM);
        keys.write_message(number, &self.plain, out.get_mut(at..)?).ok()?;
        self.next_number += 1;
        self.stats.sent += 1;
        self.stats.sent_bytes += (out.len() - start) as u64;
        self.flight.sent(number, sent);
        Some(out.len() - start)
    }
}
