//! The network: lines with a rate up and down, delays, losses, and pages on their way.
//!
//! An uplink serves its transfers in turn, a page at a time, what somebody waits for before all else: per-connection fair
//! sharing in the grain of a page. A downlink takes pages in the order in which they come. A transfer stops for as long as more
//! than [`BACKLOG`] of pages waits at the receiver's downlink, and the uplink serves others meanwhile, so that what comes of it
//! is close to max-min fairness over both ends, at two events a page whatever the size of the crowd. Loss slows a connection down to
//! what TCP Reno makes of it (Padhye et al. 1998), since all carriers repair losses; slow start is left out. Peers of one machine
//! share its line, and what passes between them takes none of it.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use iceshare::engine::io::FetchEvent;
use icet::message::{Need, Outcome};
use icet::{Now, PageMap, PageNo, PageRanges, PageSet};

use crate::protocol::{Protocol, Requests, throughput};
use crate::queue::Queue;

/// How often a receiver hears that a long page is coming.
const PROGRESS: Duration = Duration::from_millis(200);
/// Of how long the queue before a downlink gets before senders wait.
const BACKLOG: Duration = Duration::from_millis(100);

/// Round trips of a call through a relay, and of the punch that it agrees on.
const PUNCH: u32 = 3;
/// After how long a receiver gives up where no punch works.
const UNPUNCHED: Duration = Duration::from_secs(3);

/// A number from 0 to 1 that a pair always has (SplitMix64: Steele, Lea and Flood 2014).
fn chance(a: usize, b: usize) -> f64 {
    let mut z = ((a as u64) << 32 | b as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) as f64 / u64::MAX as f64
}

/// A peer's line.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Upload in bytes a second; 0: it sends nothing.
    pub up: f64,
    /// Download in bytes a second.
    pub down: f64,
    /// One way from the peer to the middle of the network.
    pub delay: Duration,
    /// Share of packets that the line loses, 0 to 1.
    pub loss: f64,
}

/// How a peer answers requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Conduct {
    /// It sends what it holds.
    #[default]
    Honest,
    /// It sends altered pages.
    Alters,
    /// It takes requests and sends nothing.
    Mute,
    /// It serves nobody but those who collude with it: they say at once that they sent and got what they never did, and
    /// that they lost it a moment later.
    Colludes,
}

/// How a peer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The process was killed, or left: its connections break at once, new ones are refused.
    Process,
    /// Its line is cut: nobody hears anything.
    Line,
}

/// A request at a host: never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransferId {
    slot: u32,
    number: u32,
}

/// What happens in the network.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NetEvent {
    Request(TransferId),
    /// A page left a host's uplink.
    Sent(u32, TransferId, PageNo),
    Arrived(TransferId, PageNo),
    /// Some of a page arrived.
    Progress(TransferId),
    /// A transfer that had to wait goes on.
    Ready(TransferId),
    End(TransferId),
    Refused(TransferId, Outcome),
    Stopped(TransferId),
    /// A machine's line carries again what leaves it.
    Lit(usize),
}

/// What a receiver hears.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) node: usize,
    /// The receiver's name of the fetch.
    pub(crate) fetch: u64,
    /// Nothing came by this fetch before.
    pub(crate) first: bool,
    pub(crate) event: FetchEvent,
}

#[derive(Debug)]
struct Transfer {
    number: u32,
    receiver: usize,
    host: usize,
    fetch: u64,
    pages: PageSet,
    assignment: u64,
    need: Need,
    protocol: usize,
    /// The next page to send.
    next: Option<PageNo>,
    /// When loss lets the next page go.
    ready: Now,
    /// The receiver wants no more.
    stopped: bool,
    begun: bool,
}

/// One end of the network.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: Line,
    pub(crate) conduct: Conduct,
    /// The node whose line it uses: itself, unless several are one machine.
    pub(crate) machine: usize,
    /// Protocols over which nothing reaches it or leaves it, a bit each.
    pub(crate) blocked: u32,
    /// Protocols that it speaks, a bit each.
    pub(crate) speaks: u32,
    /// Whether others reach it without a punch.
    pub(crate) open: bool,
    pub(crate) death: Option<Death>,
    /// Pages on its disk; none until it has the manifest.
    pub(crate) held: Option<PageMap>,
    /// When it had everything.
    pub(crate) done: Option<Now>,
    /// Bytes of pages that it sent.
    pub(crate) sent: u64,
    /// Of them, what was asked for as each need: urgent or steady, bulk, spare.
    pub(crate) by_need: [u64; 3],
    /// Bytes of pages that came and were new.
    pub(crate) got: u64,
    /// Bytes of pages that came although they were held.
    pub(crate) twice: u64,
    /// Altered pages that came to it.
    pub(crate) bad: u64,
    /// Bytes sent by assignment, since they were last asked for.
    pub(crate) served: BTreeMap<u64, u64>,
    /// Transfers waiting for the uplink, in turn: urgent ones, others.
    sending: [VecDeque<TransferId>; 2],
    busy: bool,
    down_free: Now,
    fetches: BTreeMap<u64, TransferId>,
    /// Nodes that it has a connection with, by protocol.
    known: HashSet<(usize, usize)>,
    /// Open-ended transfers that have sent all there is.
    followers: Vec<TransferId>,
    /// Until then nothing leaves its line.
    dark: Now,
}

/// All lines, and what is on them.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) nodes: Vec<Node>,
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) requests: Requests,
    /// Length of each page.
    lens: Vec<u32>,
    /// Setup pages at the beginning of live media.
    pub(crate) setup: PageNo,
    slots: Vec<Option<Transfer>>,
    free: Vec<u32>,
    last: u32,
}

impl Net {
    /// A network of pages of such lengths; no protocols: one that does nothing to transfers.
    pub(crate) fn new(lens: Vec<u32>, protocols: Vec<Protocol>) -> Net {
        let requests = Requests::default();
        Net {
            nodes: Vec::new(),
            protocols,
            requests,
            lens,
            setup: 0,
            slots: Vec::new(),
            free: Vec::new(),
            last: 0,
        }
    }

    pub(crate) fn add(&mut self, line: Line, conduct: Conduct) -> usize {
        self.nodes.push(Node {
            line,
            conduct,
            machine: self.nodes.len(),
            blocked: 0,
            speaks: u32::MAX,
            open: true,
            death: None,
            held: None,
            done: None,
            sent: 0,
            by_need: [0; 3],
            got: 0,
            twice: 0,
            bad: 0,
            served: BTreeMap::new(),
            sending: Default::default(),
            busy: false,
            down_free: Now::ZERO,
            fetches: BTreeMap::new(),
            known: HashSet::new(),
            followers: Vec::new(),
            dark: Now::ZERO,
        });
        self.nodes.len() - 1
    }

    pub(crate) fn len_of(&self, page: PageNo) -> u32 {
        usize::try_from(page).ok().and_then(|i| self.lens.get(i)).copied().unwrap_or(0)
    }

    /// One way between two nodes.
    pub(crate) fn between(&self, a: usize, b: usize) -> Duration {
        self.nodes[a].line.delay + self.nodes[b].line.delay
    }

    /// Whether a receiver gets through to a host. Behind NATs the same pair always does or never.
    fn meet(&self, host: usize, receiver: usize, protocol: usize) -> bool {
        if self.nodes[host].open {
            return true;
        }
        let punches = self.protocols.get(protocol).map_or(0.0, |p| p.punches);
        // Who is open calls back.
        punches > 0.0
            && (self.nodes[receiver].open || chance(host.min(receiver), host.max(receiver)) < punches)
    }

    fn get(&mut self, id: TransferId) -> Option<&mut Transfer> {
        self.slots.get_mut(id.slot as usize)?.as_mut().filter(|t| t.number == id.number)
    }

    fn take(&mut self, id: TransferId) -> Option<Transfer> {
        self.get(id)?;
        self.free.push(id.slot);
        self.slots.get_mut(id.slot as usize)?.take()
    }

    fn put(&mut self, mut t: Transfer) -> TransferId {
        self.last += 1;
        t.number = self.last;
        let number = t.number;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer transfers than 2^32")
        });
        self.slots[slot as usize] = Some(t);
        TransferId { slot, number }
    }

    /// A receiver asks a host for pages.
    pub(crate) fn fetch<E: From<NetEvent>>(
        &mut self,
        now: Now,
        queue: &mut Queue<E>,
        (receiver, host): (usize, usize),
        fetch: u64,
        pages: PageSet,
        (assignment, need, protocol): (u64, Need, usize),
    ) {
        let id = self.transfer((receiver, host), fetch, pages, (assignment, need, protocol));
        // In range: at most 32.
        let all = u32::MAX >> (32 - self.protocols.len().clamp(1, 32));
        let common = self.nodes[host].speaks & self.nodes[receiver].speaks & all;
        if common.count_ones() > 1 {
            self.requests.add(now, protocol, common, need, pages.iter(self.lens.len() as u64).count() as u64);
        }
        // A new connection takes round trips before the request.
        let way = self.between(receiver, host);
        let new = self.nodes[receiver].known.insert((host, protocol));
        let punch = if self.nodes[host].open { 0 } else { PUNCH };
        let rounds = if new { self.protocols.get(protocol).map_or(1, |p| p.rounds + punch) } else { 0 };
        queue.push(now + (1 + 2 * rounds) * way, NetEvent::Request(id).into());
    }

    /// A host sends pages unasked.
    pub(crate) fn push<E: From<NetEvent>>(
        &mut self,
        now: Now,
        queue: &mut Queue<E>,
        (receiver, host): (usize, usize),
        fetch: u64,
        pages: PageSet,
    ) {
        let id = self.transfer((receiver, host), fetch, pages, (0, Need::Bulk, 0));
        self.enqueue(now, queue, id);
    }

    fn transfer(
        &mut self,
        (receiver, host): (usize, usize),
        fetch: u64,
        pages: PageSet,
        (assignment, need, protocol): (u64, Need, usize),
    ) -> TransferId {
        assert_ne!(host, receiver, "nobody is sent to itself");
        let next = pages.next_from(0);
        let (stopped, begun, ready) = (false, false, Now::ZERO);
        let id = self.put(Transfer {
            number: 0,
            receiver,
            host,
            fetch,
            pages,
            assignment,
            need,
            protocol,
            next,
            ready,
            stopped,
            begun,
        });
        self.nodes[receiver].fetches.insert(fetch, id);
        id
    }

    /// A receiver wants no more of a fetch.
    pub(crate) fn stop<E: From<NetEvent>>(&mut self, now: Now, queue: &mut Queue<E>, n: usize, fetch: u64) {
        let Some(id) = self.nodes[n].fetches.remove(&fetch) else { return };
        let Some(t) = self.get(id) else { return };
        t.stopped = true;
        let host = t.host;
        queue.push(now + self.between(n, host), NetEvent::Stopped(id).into());
    }

    /// A node ends.
    pub(crate) fn kill<E: From<NetEvent>>(&mut self, now: Now, queue: &mut Queue<E>, n: usize, how: Death) {
        self.nodes[n].death = Some(how);
        if how == Death::Line {
            return;
        }
        for slot in 0..self.slots.len() {
            let Some(t) = self.slots[slot].as_ref().filter(|t| t.host == n || t.receiver == n) else {
                continue;
            };
            let (number, receiver) = (t.number, t.receiver);
            let slot = u32::try_from(slot).unwrap_or(u32::MAX);
            let broken = NetEvent::Refused(TransferId { slot, number }, Outcome::Broken);
            queue.push(now + self.between(n, receiver), broken.into());
        }
        self.nodes.iter_mut().for_each(|p| p.known.retain(|(host, _)| *host != n));
    }

    /// Lets something happen; what a receiver hears of it.
    pub(crate) fn handle<E: From<NetEvent>>(
        &mut self,
        now: Now,
        queue: &mut Queue<E>,
        event: NetEvent,
    ) -> Option<Told> {
        match event {
            NetEvent::Request(id) => {
                let t = self.get(id)?;
                let (host, receiver, protocol) = (t.host, t.receiver, t.protocol);
                let way = self.between(receiver, host);
                let h = &self.nodes[host];
                if (h.blocked | self.nodes[receiver].blocked) >> protocol & 1 == 1 {
                    return None;
                }
                if !self.meet(host, receiver, protocol) {
                    self.nodes[receiver].known.remove(&(host, protocol));
                    queue.push(now + UNPUNCHED, NetEvent::Refused(id, Outcome::Unreachable).into());
                    return None;
                }
                let answer = match h.death {
                    Some(Death::Line) => return None,
                    Some(Death::Process) => Outcome::Unreachable,
                    None if h.held.is_none() || h.line.up <= 0.0 => Outcome::Refused,
                    None if self.lacks(host, id) => Outcome::Incomplete,
                    None if h.conduct == Conduct::Mute => return None,
                    None if h.conduct == Conduct::Colludes && h.machine != self.nodes[receiver].machine => {
                        Outcome::Refused
                    }
                    None => {
                        self.enqueue(now, queue, id);
                        return None;
                    }
                };
                queue.push(now + way, NetEvent::Refused(id, answer).into());
                None
            }
            NetEvent::Sent(host, id, page) => {
                self.sent(now, queue, host as usize, id, page);
                None
            }
            NetEvent::Ready(id) => {
                self.enqueue(now, queue, id);
                None
            }
            NetEvent::Arrived(id, page) => self.arrived(now, queue, id, page),
            NetEvent::Lit(machine) => {
                self.nodes[machine].busy = false;
                self.send_next(now, queue, machine);
                None
            }
            NetEvent::Progress(id) => {
                let t = self.get(id)?;
                let (node, fetch, host) = (t.receiver, t.fetch, t.host);
                // In range: lines bring less than 2^53 bytes a second.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let bytes = (self.nodes[host].line.up * PROGRESS.as_secs_f64()) as u64;
                let wanted = self.nodes[node].fetches.contains_key(&fetch);
                wanted.then_some(Told { node, fetch, first: false, event: FetchEvent::Progress { bytes } })
            }
            NetEvent::End(id) => {
                let t = self.get(id)?;
                let (pages, receiver) = (t.pages, t.receiver);
                let held = self.nodes[receiver].held.as_ref();
                let end = self.lens.len() as u64;
                let all = pages.iter(end).all(|p| held.is_some_and(|h| h.has(p)));
                self.end(id, if all { Outcome::Done } else { Outcome::Incomplete })
            }
            NetEvent::Refused(id, outcome) => self.end(id, outcome),
            NetEvent::Stopped(id) => {
                if let Some(t) = self.get(id) {
                    t.next = None;
                }
                None
            }
        }
    }

    /// Whether a host of live media has nothing as old as what is asked of it without an end.
    fn lacks(&self, host: usize, id: TransferId) -> bool {
        let t = self.slots.get(id.slot as usize).and_then(Option::as_ref);
        let first = self.nodes[host].held.as_ref().and_then(|h| h.first_held(self.setup));
        t.is_some_and(|t| t.pages.last.is_none() && first.is_none_or(|f| t.pages.first < f))
    }

    fn enqueue<E: From<NetEvent>>(&mut self, now: Now, queue: &mut Queue<E>, id: TransferId) {
        let Some(t) = self.get(id) else { return };
        let (host, bulk) = (t.host, !matches!(t.need, Need::Urgent | Need::Steady));
        let machine = self.nodes[host].machine;
        self.nodes[machine].sending[usize::from(bulk)].push_back(id);
        self.send_next(now, queue, machine);
    }

    /// The uplink of a machine is free: the next page of the next transfer in turn.
    fn send_next<E: From<NetEvent>>(&mut self, now: Now, queue: &mut Queue<E>, machine: usize) {
        if self.nodes[machine].busy {
            return;
        }
        loop {
            let [urgent, bulk] = &mut self.nodes[machine].sending;
            let Some(id) = urgent.pop_front().or_else(|| bulk.pop_front()) else { return };
            let end = self.lens.len() as u64;
            let Some(t) = self.slots.get_mut(id.slot as usize).and_then(|t| t.as_mut()) else { continue };
            let host = t.host;
            if self.nodes[host].death.is_some() {
                continue;
            }
            let Some(held) = self.nodes[host].held.as_ref().filter(|_| t.number == id.number) else {
                continue;
            };
            let mut next = t.next;
            let open = t.pages.last.is_none();
            let bulk = !matches!(t.need, Need::Urgent | Need::Steady);
            if open && !t.stopped && next.is_some_and(|p| p >= end || !held.has(p)) {
                // It goes on when the page comes.
                self.nodes[host].followers.push(id);
                continue;
            }
            while let Some(p) = next.filter(|p| *p < end && !held.has(*p)) {
                next = t.pages.next_from(p + 1);
            }
            next = next.filter(|p| *p < end);
            let (receiver, stopped, protocol) = (t.receiver, t.stopped, t.protocol);
            if stopped && next.is_none() || self.nodes[receiver].death.is_some() {
                self.take(id);
                continue;
            }
            if self.nodes[machine].dark > now {
                self.nodes[machine].busy = true;
                self.nodes[machine].sending[usize::from(bulk)].push_front(id);
                queue.push(self.nodes[machine].dark, NetEvent::Lit(machine).into());
                return;
            }
            let way = self.between(host, receiver);
            let Some(page) = next else {
                let when = (now + way).max(self.nodes[self.nodes[receiver].machine].down_free);
                queue.push(when, NetEvent::End(id).into());
                continue;
            };
            let len = f64::from(self.len_of(page));
            let time = self.sending_takes(host, receiver, protocol, len);
            let least = self.lossy(now, host, receiver, protocol).map_or(time, |cap| (len / cap).max(time));
            if let Some(t) = self.get(id) {
                t.next = t.pages.next_from(page + 1);
                t.ready = now + Duration::from_secs_f64(least);
            }
            self.nodes[machine].busy = true;
            let mut part = PROGRESS;
            while part.as_secs_f64() < time {
                queue.push(now + part + way, NetEvent::Progress(id).into());
                part += PROGRESS;
            }
            let host = u32::try_from(host).unwrap_or(u32::MAX);
            queue.push(now + Duration::from_secs_f64(time), NetEvent::Sent(host, id, page).into());
            return;
        }
    }

    /// Seconds for which a page takes a host's line, and its processor.
    fn sending_takes(&self, host: usize, receiver: usize, protocol: usize, len: f64) -> f64 {
        let h = &self.nodes[host];
        if h.machine == self.nodes[receiver].machine {
            return 0.0;
        }
        let processor = self.protocols.get(protocol).map_or(0.0, |p| p.processor);
        len / if processor > 0.0 { h.line.up.min(processor) } else { h.line.up }
    }

    /// Bytes a second of a connection that loses packets.
    fn lossy(&self, now: Now, a: usize, b: usize, protocol: usize) -> Option<f64> {
        let (a, b) = (&self.nodes[a].line, &self.nodes[b].line);
        let of_protocol = self.protocols.get(protocol).map_or(0.0, |p| p.loss_at(now));
        let loss = 1.0 - (1.0 - a.loss) * (1.0 - b.loss) * (1.0 - of_protocol);
        (loss > 0.0).then(|| throughput(2.0 * (a.delay + b.delay).as_secs_f64(), loss))
    }

    fn sent<E: From<NetEvent>>(
        &mut self,
        now: Now,
        queue: &mut Queue<E>,
        host: usize,
        id: TransferId,
        page: PageNo,
    ) {
        let machine = self.nodes[host].machine;
        self.nodes[machine].busy = false;
        if self.nodes[host].death.is_some() {
            return self.send_next(now, queue, machine);
        }
        let Some(t) = self.get(id) else { return self.send_next(now, queue, machine) };
        let (receiver, assignment, ready, last) = (t.receiver, t.assignment, t.ready, t.next.is_none());
        let need = match t.need {
            Need::Urgent | Need::Steady => 0,
            Need::Bulk => 1,
            Need::Spare | Need::Reserve => 2,
        };
        let len = u64::from(self.len_of(page));
        let way = self.between(host, receiver);
        let h = &mut self.nodes[host];
        h.sent += len;
        h.by_need[need] += len;
        *h.served.entry(assignment).or_default() += len;
        let down = self.nodes[receiver].line.down;
        let there = self.nodes[receiver].machine;
        let mut here = now + way;
        if there != machine {
            here = self.nodes[there].down_free.max(here) + Duration::from_secs_f64(len as f64 / down);
            self.nodes[there].down_free = here;
        }
        // Whole is a page when its last packet was repeated often enough.
        here = here.max(ready + way);
        queue.push(here, NetEvent::Arrived(id, page).into());
        // What would only wait at the other end does not take this line.
        let due = Now(here.0.saturating_sub(micros(way + BACKLOG))).max(ready);
        if last {
            queue.push(here, NetEvent::End(id).into());
            self.send_next(now, queue, machine);
        } else if due > now {
            queue.push(due, NetEvent::Ready(id).into());
            self.send_next(now, queue, machine);
        } else {
            self.enqueue(now, queue, id);
        }
    }

    fn arrived<E: From<NetEvent>>(
        &mut self,
        now: Now,
        queue: &mut Queue<E>,
        id: TransferId,
        page: PageNo,
    ) -> Option<Told> {
        let len = self.len_of(page);
        let t = self.get(id)?;
        let (node, fetch, host) = (t.receiver, t.fetch, t.host);
        let first = !std::mem::replace(&mut t.begun, true);
        if self.nodes[node].death.is_some() {
            return None;
        }
        let told = |event| Some(Told { node, fetch, first, event });
        if self.nodes[host].conduct == Conduct::Alters {
            self.take(id);
            self.nodes[node].fetches.remove(&fetch)?;
            self.nodes[node].bad += 1;
            return told(FetchEvent::Altered);
        }
        let n = &mut self.nodes[node];
        let held = n.held.as_mut()?;
        if !held.insert(page) {
            n.twice += u64::from(len);
            return told(FetchEvent::Duplicate { page });
        }
        n.got += u64::from(len);
        if n.held.as_ref().is_some_and(PageMap::is_full) {
            n.done = Some(now);
        }
        self.follow(now, queue, node);
        told(FetchEvent::Page { page, len })
    }

    /// Open-ended transfers of a host that has more now go on.
    fn follow<E: From<NetEvent>>(&mut self, now: Now, queue: &mut Queue<E>, host: usize) {
        for id in std::mem::take(&mut self.nodes[host].followers) {
            self.enqueue(now, queue, id);
        }
    }

    /// The source of a broadcast has a page.
    pub(crate) fn made<E: From<NetEvent>>(&mut self, now: Now, queue: &mut Queue<E>, n: usize, page: PageNo) {
        self.nodes[n].held.iter_mut().for_each(|held| {
            held.insert(page);
        });
        self.follow(now, queue, n);
    }

    /// Nothing leaves a node's line until then.
    pub(crate) fn darken(&mut self, n: usize, until: Now) {
        let machine = self.nodes[n].machine;
        self.nodes[machine].dark = until;
    }

    /// A node has pages now that came by no transfer. Whether it has everything since.
    pub(crate) fn took(&mut self, now: Now, n: usize, pages: &PageRanges) -> bool {
        let node = &mut self.nodes[n];
        let Some(held) = node.held.as_mut().filter(|h| !h.is_full()) else { return false };
        pages.pages().for_each(|p| {
            held.insert(p);
        });
        let full = held.is_full();
        if full {
            node.done = Some(now);
        }
        full
    }

    fn end(&mut self, id: TransferId, outcome: Outcome) -> Option<Told> {
        let t = self.take(id)?;
        let n = &mut self.nodes[t.receiver];
        n.fetches.remove(&t.fetch)?;
        let event = FetchEvent::Ended(outcome);
        n.death.is_none().then_some(Told { node: t.receiver, fetch: t.fetch, first: false, event })
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
