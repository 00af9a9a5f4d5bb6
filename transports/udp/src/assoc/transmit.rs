//! What goes into packets.

use iceshare::icet::Now;
use iceshare::net::pipe;

use super::control::Control;
use super::inflight::Sent;
use super::{Association, Over, PACKETS};
use crate::wire::datagram::{PACKET_HEADER, PACKET_OVERHEAD, packet_header};
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
        // Frames are written where the packet is sealed and sent.
        std::mem::swap(&mut self.out, out);
        let size = self.transmit(now, most);
        std::mem::swap(&mut self.out, out);
        size
    }

    fn transmit(&mut self, now: Now, most: usize) -> Option<usize> {
        if !self.is_open() {
            return None;
        }
        let start = self.out.len();
        if let Some(reason) = self.closing.take() {
            let at = self.begin();
            if let Some(at) = at {
                Frame::Close(reason).write(&mut self.out);
                self.seal(at, None);
            }
            self.end_with(Over::Left);
            return at.map(|_| self.out.len() - start);
        }
        if self.over.is_some() {
            return None;
        }
        self.prepare(now);
        let size = self.mtu.current();
        let window = self.cubic.window().min(pipe(self.rtt.shortest()));
        let rtt = self.rtt.smoothed();
        let rate = super::Pacer::rate(window, rtt, self.cubic.in_slow_start());
        if let Some(probe) = self.mtu_probe(now, window) {
            return Some(probe);
        }
        self.paced = None;
        for _ in 0..most.clamp(1, BATCH / size) {
            let open = self.flight.bytes() + size as u64 <= window;
            let ready = self.pacer.ready(now, rate, size);
            let content = !self.outbox.is_empty() || !self.ready.is_empty();
            let may = content && (self.probes > 0 || open && ready <= now);
            let Some(at) = self.begin() else { break };
            let end = at + size - PACKET_OVERHEAD;
            let mut draft = Draft::default();
            if (self.acks.is_due(now) || may && self.acks.is_wanted())
                && let Some(ack) = self.acks.take(now)
            {
                Frame::Ack(ack).write(&mut self.out);
            }
            if may {
                self.write_controls(end, &mut draft);
                self.write_data(end, &mut draft);
            }
            if self.out.len() == at {
                self.out.truncate(at - PACKET_HEADER);
                self.app_limited = !content;
                if content && open && ready > now {
                    self.paced = Some(ready);
                }
                break;
            }
            if end - self.out.len() < SCRAP && self.has_more() {
                // All datagrams of a batch are of one size.
                self.out.resize(end, 0);
            }
            let full = self.out.len() == end;
            let size = self.out.len() - at + PACKET_OVERHEAD;
            let sent = draft.eliciting.then_some(Sent { at: now, size, carried: draft.carried });
            if sent.is_some() {
                self.probes = self.probes.saturating_sub(1);
                self.pacer.sent(size);
            }
            if !self.seal(at, sent) {
                break;
            }
            if !full {
                self.app_limited = !self.has_more();
                break;
            }
        }
        self.feed();
        (self.out.len() > start).then_some(size.min(self.out.len() - start))
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
    fn mtu_probe(&mut self, now: Now, window: u64) -> Option<usize> {
        let size = self.mtu.next_probe(now).filter(|_| !self.serving.is_empty() && self.rtt.is_known())?;
        if self.flight.bytes() + size as u64 > window {
            return None;
        }
        let at = self.begin()?;
        Frame::Ping.write(&mut self.out);
        self.out.resize(at + size - PACKET_OVERHEAD, 0);
        self.mtu.probed(self.next_number, size);
        self.pacer.sent(size);
        self.seal(at, Some(Sent { at: now, size, carried: Vec::new() })).then_some(size)
    }

    /// Writes what must arrive, as far as it fits before `end`.
    fn write_controls(&mut self, end: usize, draft: &mut Draft) {
        let count = self.outbox.len();
        for _ in 0..count {
            let Some(control) = self.outbox.pop() else { return };
            let before = self.out.len();
            if !self.write_control(control) {
                continue;
            }
            if self.out.len() > end {
                self.out.truncate(before);
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
        frame.inspect(|f| f.write(&mut self.out)).is_some()
    }

    /// REQUEST frames that were not sent yet, as far as `room` reaches: for the HELLO.
    pub(crate) fn early_frames(&mut self, room: usize) -> Vec<u8> {
        let start = self.out.len();
        for _ in 0..self.outbox.len() {
            let Some(control) = self.outbox.pop() else { break };
            let before = self.out.len();
            match control {
                Control::Request(..) if self.write_control(control) && self.out.len() - start > room => {
                    self.out.truncate(before);
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
        self.out.split_off(start)
    }

    /// Fills a packet up to `end` with DATA, from each request in turn.
    fn write_data(&mut self, end: usize, draft: &mut Draft) {
        while end.saturating_sub(self.out.len()) >= SCRAP {
            let Some(id) = self.ready.front().copied() else { return };
            let Some(s) = self.serving.get_mut(&id) else {
                self.ready.pop_front();
                continue;
            };
            match s.take(end - self.out.len(), |place, sequence| data_header_len(id, place, sequence)) {
                Ok(Some(piece)) => {
                    let data = Data {
                        request: id,
                        place: piece.place,
                        sequence: piece.sequence,
                        last: piece.last,
                        bytes: &piece.bytes,
                    };
                    data.write(&mut self.out);
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

    /// Begins a packet; where its frames begin. None: no more packets with these keys.
    fn begin(&mut self) -> Option<usize> {
        let number = u32::try_from(self.next_number).ok().filter(|_| self.next_number < PACKETS)?;
        self.out.extend_from_slice(&packet_header(self.remote_id, number));
        Some(self.out.len())
    }

    /// Encrypts the packet whose frames begin at `at`. False: it was not, and is gone.
    fn seal(&mut self, at: usize, sent: Option<Sent>) -> bool {
        let number = self.next_number;
        if !self.keys.as_ref().is_some_and(|k| k.seal(number, &mut self.out, at)) {
            self.out.truncate(at - PACKET_HEADER);
            return false;
        }
        let size = self.out.len() - at + PACKET_HEADER;
        debug_assert!(size <= MAX_DATAGRAM);
        self.next_number += 1;
        self.stats.sent += 1;
        self.stats.sent_bytes += size as u64;
        self.flight.sent(number, sent);
        true
    }
}
