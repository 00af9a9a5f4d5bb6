//! What comes in packets.

use iceshare::icet::Now;
use iceshare::icet::stream::EndCode;

use super::control::Control;
use super::fetching::Breach;
use super::inflight::Sent;
use super::serving::Serving;
use super::{Association, Event, Over, REQUESTS};
use crate::wire::{Ack, Frame, Frames};

impl Association {
    /// A datagram with our number: its packet number and ciphertext, which is decrypted where it lies.
    pub fn handle_packet(&mut self, now: Now, number: u32, ciphertext: &mut [u8]) {
        let number = u64::from(number);
        let Some(keys) = self.keys.as_ref().filter(|_| self.over.is_none() && self.replay.is_new(number))
        else {
            return;
        };
        // Not ours, altered, or junk: as if it had not come.
        let Some(plaintext) = keys.open(number, ciphertext) else { return };
        if !self.replay.note(number) {
            return;
        }
        self.handle_plaintext(now, number, plaintext);
    }

    /// The frames of an authentic packet that came for the first time.
    pub fn handle_plaintext(&mut self, now: Now, number: u64, plaintext: &[u8]) {
        self.heard = now;
        self.stats.received += 1;
        let mut eliciting = false;
        for frame in Frames::new(plaintext) {
            let Ok(frame) = frame else { return self.breach("a malformed frame") };
            eliciting |= frame.is_eliciting();
            if let Err(Breach(why)) = self.frame(now, number, &frame) {
                return self.breach(why);
            }
            if self.over.is_some() {
                return;
            }
        }
        self.acks.received(now, number, eliciting);
    }

    /// Frames that came in the first message of the handshake.
    pub(crate) fn handle_early(&mut self, now: Now, frames: &[u8]) {
        for frame in Frames::new(frames) {
            match frame {
                Ok(Frame::Padding) => {}
                Ok(frame @ Frame::Request { .. }) => {
                    if let Err(Breach(why)) = self.frame(now, 0, &frame) {
                        return self.breach(why);
                    }
                }
                _ => return self.breach("another frame than REQUEST in a HELLO"),
            }
        }
    }

    fn frame(&mut self, now: Now, number: u64, frame: &Frame<'_>) -> Result<(), Breach> {
        match frame {
            Frame::Padding | Frame::Ping => {}
            Frame::Ack(ack) => return self.acked(now, ack),
            Frame::Close(reason) => self.end_with(Over::Closed(*reason)),
            Frame::Request { request, offset, total, bytes } => {
                return self.asked(now, *request, *offset, *total, bytes);
            }
            Frame::Stop { request } => {
                self.asked.insert(*request, request + 1);
                self.forget(*request);
                self.events.push_back(Event::Stopped(*request));
            }
            Frame::Credit { request, limit } => {
                if let Some(s) = self.serving.get_mut(request) {
                    s.raise(*limit);
                    s.heard = now;
                    self.is_ready(*request);
                }
            }
            Frame::Repair { request, number, places } => {
                if let Some(s) = self.serving.get_mut(request) {
                    s.heard = now;
                    if !s.ask(*number, places.clone()) {
                        return Err(Breach("a repair of what was not sent"));
                    }
                    self.feed();
                }
            }
            Frame::Accept { request, place } => {
                return self.fetch(*request, |f| f.accept(now, number, *place));
            }
            Frame::Repaired { request, number: repair } => {
                return self.fetch(*request, |f| {
                    f.repaired(now, number, *repair);
                    Ok(())
                });
            }
            Frame::Blocked { request, sequence } => {
                return self.fetch(*request, |f| f.blocked(*sequence));
            }
            Frame::End { request, code, place, sequence } => {
                return self.fetch(*request, |f| f.end(now, number, (*code, *place, *sequence)));
            }
            Frame::Fail { request, code } => {
                return self.fetch(*request, |f| {
                    f.fail(*code);
                    Ok(())
                });
            }
            Frame::Data(data) => return self.fetch(data.request, |f| f.data(now, number, data)),
        }
        Ok(())
    }

    /// Something about a request of ours.
    fn fetch(
        &mut self,
        id: u64,
        tell: impl FnOnce(&mut super::Fetching) -> Result<(), Breach>,
    ) -> Result<(), Breach> {
        let Some(fetch) = self.fetching.get_mut(&id) else {
            if id >= self.next_request {
                return Err(Breach("an answer to a request that was not made"));
            }
            // It was not heard that we are through with it.
            self.outbox.push(Control::Stop(id));
            return Ok(());
        };
        tell(fetch)?;
        if !fetch.stopped && fetch.is_readable() && !self.events.contains(&Event::Readable(id)) {
            self.events.push_back(Event::Readable(id));
        }
        Ok(())
    }

    fn asked(&mut self, now: Now, id: u64, offset: usize, total: usize, part: &[u8]) -> Result<(), Breach> {
        if !self.serving.contains_key(&id) {
            if self.asked.contains(id) {
                return Ok(());
            }
            if self.asked.len() > REQUESTS {
                return Err(Breach("request numbers that leave too many out"));
            }
            self.asked.insert(id, id + 1);
            if self.serving.len() >= 2 * REQUESTS {
                return Err(Breach("too many requests at once"));
            }
            self.serving.insert(id, Serving::new(total, now));
        }
        let busy = self.serving.len() > REQUESTS;
        let Some(s) = self.serving.get_mut(&id) else { return Ok(()) };
        s.heard = now;
        if let Some(body) = s.gather(offset, total, part) {
            if busy {
                self.fail(id, EndCode::BUSY);
            } else {
                self.events.push_back(Event::Asked(id, body));
            }
        }
        Ok(())
    }

    /// The credit that a request's body gives.
    pub fn first_credit(&mut self, id: u64, limit: u64) {
        if let Some(s) = self.serving.get_mut(&id) {
            s.raise(limit);
        }
    }

    fn acked(&mut self, now: Now, ack: &Ack) -> Result<(), Breach> {
        let fate = self.flight.acked(now, ack, &mut self.rtt, self.next_number);
        let fate = fate.map_err(|()| Breach("an acknowledgement of what was not sent"))?;
        let numbers: Vec<u64> = fate.acked.iter().map(|(n, _)| *n).collect();
        for (number, sent) in fate.acked {
            let size = self.mtu.current();
            self.mtu.acked(number, sent.size);
            if self.mtu.current() != size {
                self.cubic.set_mtu(self.mtu.current());
            }
            let packet = (number, sent.at, sent.size as u64);
            self.cubic.acked(now, packet, &self.rtt, !self.app_limited, self.next_number);
            for control in sent.carried {
                self.arrived(control);
            }
        }
        self.lost(now, fate.lost, &numbers);
        Ok(())
    }

    /// What must arrive, did.
    fn arrived(&mut self, control: Control) {
        match control {
            Control::Stop(id) => {
                self.fetching.remove(&id);
            }
            Control::Repair(id, number) => {
                if let Some(f) = self.fetching.get_mut(&id) {
                    f.repairs.remove(&number);
                }
            }
            _ => {}
        }
    }

    /// Packets were lost. `acked`: those that were acknowledged with the same word.
    pub(super) fn lost(&mut self, now: Now, lost: Vec<(u64, Sent)>, acked: &[u64]) {
        let (mut first, mut last) = (None, None);
        for (number, sent) in lost {
            let size = self.mtu.current();
            if self.mtu.lost(now, number, sent.size) {
                continue;
            }
            self.stats.lost += 1;
            if self.mtu.current() != size {
                self.cubic.set_mtu(self.mtu.current());
            }
            self.cubic.lost(now, sent.at);
            first.get_or_insert((number, sent.at));
            last = Some((number, sent.at));
            for control in sent.carried {
                self.outbox.push(control);
            }
        }
        if let (Some((a, from)), Some((b, to))) = (first, last)
            && self.rtt.is_known()
            && to.since(from) > self.rtt.persistent()
            && !acked.iter().any(|n| (a..b).contains(n))
        {
            self.cubic.persistent_congestion();
        }
    }
}
