//! Pages on their way from a host to a receiver.

use std::time::Duration;

use iceshare::engine::io::{FetchEvent, FetchId};
use icet::message::{Need, Outcome};
use icet::{PageNo, PageSet, PeerKey};

use super::peer::Death;
use super::{Event, Sim};

/// How often a receiver hears that a long page is coming.
const PROGRESS: Duration = Duration::from_millis(200);

/// One request at a host.
#[derive(Debug)]
pub(super) struct Transfer {
    receiver: usize,
    host: usize,
    fetch: FetchId,
    pages: PageSet,
    assignment: u64,
    need: Need,
    /// The next page to send.
    next: Option<PageNo>,
    /// The receiver wants no more.
    stopped: bool,
    begun: bool,
}

impl Sim {
    pub(super) fn start_transfer(
        &mut self,
        n: usize,
        fetch: FetchId,
        pages: PageSet,
        host: PeerKey,
        (assignment, need): (u64, Need),
    ) {
        let host = self.peers.iter().position(|p| p.identity.key() == host).expect("a host of this world");
        assert_ne!(host, n, "nobody is sent to itself");
        let id = self.next;
        let next = pages.next_from(0);
        let transfer = Transfer {
            receiver: n,
            host,
            fetch,
            pages,
            assignment,
            need,
            next,
            stopped: false,
            begun: false,
        };
        self.transfers.insert(id, transfer);
        self.peers[n].fetches.insert(fetch, id);
        // A new connection takes a round trip before the request.
        let way = self.between(n, host);
        let new = self.peers[n].known.insert(host);
        self.after(if new { 3 * way } else { way }, Event::Request(id));
    }

    pub(super) fn stop_transfer(&mut self, n: usize, fetch: FetchId) {
        let Some(id) = self.peers[n].fetches.remove(&fetch) else { return };
        let Some(t) = self.transfers.get_mut(&id) else { return };
        t.stopped = true;
        let host = t.host;
        let way = self.between(n, host);
        self.after(way, Event::Stopped(id));
    }

    /// A process ended: what it sent and received breaks.
    pub(super) fn break_transfers(&mut self, n: usize) {
        let from: Vec<_> = self
            .transfers
            .iter()
            .filter(|(_, t)| t.host == n || t.receiver == n)
            .map(|(i, t)| (*i, t.receiver))
            .collect();
        for (id, receiver) in from {
            let way = self.between(n, receiver);
            self.after(way, Event::Refused(id, Outcome::Broken));
        }
        self.peers[n].sending.clear();
        for p in &mut self.peers {
            p.known.remove(&n);
        }
    }

    pub(super) fn happen_to_transfer(&mut self, event: Event) {
        match event {
            Event::Request(id) => {
                let Some(t) = self.transfers.get(&id) else { return };
                let host = t.host;
                let way = self.between(t.receiver, host);
                match self.peers[host].death {
                    Some(Death::Line) => {}
                    _ if !self.peers[host].lives() => {
                        self.after(way, Event::Refused(id, Outcome::Unreachable));
                    }
                    _ if self.peers[host].held.is_none() => {
                        self.after(way, Event::Refused(id, Outcome::Refused));
                    }
                    _ => {
                        self.peers[host].sending.push_back(id);
                        self.send_next(host);
                    }
                }
            }
            Event::Sent(host, id, page) => self.sent(host, id, page),
            Event::Arrived(id, page) => self.arrived(id, page),
            Event::Progress(id) => {
                let Some(t) = self.transfers.get(&id) else { return };
                let (n, fetch) = (t.receiver, t.fetch);
                if self.peers[n].lives() && self.peers[n].fetches.contains_key(&fetch) {
                    self.peers[n].engine.handle_fetch(self.now, fetch, FetchEvent::Progress);
                    self.drain(n);
                }
            }
            Event::End(id) => {
                let Some(t) = self.transfers.get(&id) else { return };
                let held = self.peers[t.receiver].held.as_ref();
                let all = t.pages.iter(self.media.manifest.pages).all(|p| held.is_some_and(|h| h.has(p)));
                self.end(id, if all { Outcome::Done } else { Outcome::Incomplete });
            }
            Event::Refused(id, outcome) => self.end(id, outcome),
            Event::Stopped(id) => {
                if let Some(t) = self.transfers.get_mut(&id) {
                    t.next = None;
                }
            }
            _ => {}
        }
    }

    /// The transfer whose turn it is: what somebody waits for comes before all else.
    fn turn(&mut self, host: usize) -> Option<u64> {
        let waited = |t: &Transfer| matches!(t.need, Need::Urgent | Need::Steady);
        let sending = &mut self.peers[host].sending;
        let urgent = sending.iter().position(|id| self.transfers.get(id).is_some_and(waited));
        sending.remove(urgent.unwrap_or(0))
    }

    /// The uplink is free: the next page of the next transfer in turn.
    fn send_next(&mut self, host: usize) {
        if self.peers[host].busy || !self.peers[host].lives() {
            return;
        }
        while let Some(id) = self.turn(host) {
            let Some(t) = self.transfers.get_mut(&id) else { continue };
            let Some(held) = &self.peers[host].held else { continue };
            let mut next = t.next;
            while let Some(p) = next.filter(|p| !held.has(*p)) {
                next = t.pages.next_from(p + 1);
            }
            let receiver = t.receiver;
            if t.stopped && next.is_none() || !self.peers[receiver].lives() {
                self.transfers.remove(&id);
                continue;
            }
            match next {
                Some(page) => {
                    t.next = t.pages.next_from(page + 1);
                    let time = f64::from(self.media.len_of(page)) / self.peers[host].spec.up;
                    self.peers[host].busy = true;
                    let way = self.between(host, receiver);
                    let mut part = PROGRESS;
                    while part.as_secs_f64() < time {
                        self.after(part + way, Event::Progress(id));
                        part += PROGRESS;
                    }
                    self.after(Duration::from_secs_f64(time), Event::Sent(host, id, page));
                    return;
                }
                None => {
                    let when = (self.now + self.between(host, receiver)).max(self.peers[receiver].down_free);
                    self.at(when, Event::End(id));
                }
            }
        }
    }

    fn sent(&mut self, host: usize, id: u64, page: PageNo) {
        self.peers[host].busy = false;
        if !self.peers[host].lives() {
            return;
        }
        let Some(t) = self.transfers.get(&id) else { return self.send_next(host) };
        let (receiver, assignment) = (t.receiver, t.assignment);
        let len = self.media.len_of(page);
        let way = self.between(host, receiver);
        let h = &mut self.peers[host];
        h.sent += u64::from(len);
        *h.served.entry(assignment).or_default() += u64::from(len);
        h.sending.push_back(id);
        let r = &mut self.peers[receiver];
        let here = r.down_free.max(self.now + way) + Duration::from_secs_f64(f64::from(len) / r.spec.down);
        r.down_free = here;
        self.at(here, Event::Arrived(id, page));
        self.send_next(host);
    }

    fn arrived(&mut self, id: u64, page: PageNo) {
        let len = self.media.len_of(page);
        let Some(t) = self.transfers.get_mut(&id) else { return };
        let (n, fetch) = (t.receiver, t.fetch);
        let first = !std::mem::replace(&mut t.begun, true);
        let host = t.host;
        let p = &mut self.peers[n];
        if !p.lives() {
            return;
        }
        if first {
            p.engine.handle_fetch(self.now, fetch, FetchEvent::FirstByte);
        }
        if self.peers[host].spec.alters {
            self.transfers.remove(&id);
            let p = &mut self.peers[n];
            if p.fetches.remove(&fetch).is_some() {
                p.bad += 1;
                p.engine.handle_fetch(self.now, fetch, FetchEvent::Altered);
            }
            return self.drain(n);
        }
        let p = &mut self.peers[n];
        let Some(held) = p.held.as_mut() else { return };
        if held.insert(page) {
            if held.is_full() {
                p.done = Some(self.now);
            }
            p.engine.handle_fetch(self.now, fetch, FetchEvent::Page { page, len });
        } else {
            p.twice += u64::from(len);
            p.engine.handle_fetch(self.now, fetch, FetchEvent::Duplicate { page });
        }
        self.drain(n);
    }

    fn end(&mut self, id: u64, outcome: Outcome) {
        let Some(t) = self.transfers.remove(&id) else { return };
        if self.peers[t.receiver].fetches.remove(&t.fetch).is_some() && self.peers[t.receiver].lives() {
            self.peers[t.receiver].engine.handle_fetch(self.now, t.fetch, FetchEvent::Ended(outcome));
            self.drain(t.receiver);
        }
    }
}
