//! All associations of a peer, sans-IO: tells datagrams apart, makes and answers handshakes, bounds what strangers can take.

mod cookie;
mod crowd;
mod dial;
mod noise;
mod rate;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use iceshare::icet::{Identity, Now, PeerKey};

use crate::assoc::{Association, Event, Over};
use crate::wire::datagram::{AssocId, Datagram};
use crate::wire::{CloseReason, MAX_DATAGRAM};
use cookie::{Cookie, Cookies};
use crowd::Crowd;
use dial::Dial;
use noise::{Credentials, EARLY, Entropy};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rate::Bucket;

/// KNOCKs that wait for their answer. It is made when it can be sent, costs less of the line than the question, and keeps
/// nothing: there is no other limit.
const KNOCKS: usize = 1024;
/// HELLOs a second that are taken up: each costs an exchange of keys and a signature, and is remembered.
const HELLOS: u32 = 512;
/// HELLOs that wait for that.
const WAITING: usize = 256;
/// Datagrams that wait to be sent, beyond which no ANSWER is sent again.
const REPEATED: usize = 1024;
/// HELLOs that are remembered.
const REMEMBERED: usize = 8192;

/// What an endpoint may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Associations at once.
    pub associations: usize,
    /// Of them, those begun from one IP address (loopback aside).
    pub per_ip: usize,
    /// How long a handshake that we begin may take.
    pub connect: Duration,
    /// Largest datagram to send or take, at least 1200.
    pub largest: usize,
}

/// One call of the system: datagrams that go to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// The size of each datagram but the last, which may be shorter.
    pub size: usize,
}

/// A HELLO that was taken up.
struct Taken {
    until: Now,
    /// To be sent again if it comes again.
    answer: Vec<u8>,
}

/// A HELLO whose cookie is good, and that waits to be taken up.
struct Waiting {
    from: SocketAddr,
    initiator: AssocId,
    cookie: Cookie,
    until: Now,
    noise: Vec<u8>,
}

/// See the module.
pub struct Endpoint {
    limits: Limits,
    credentials: Credentials,
    cookies: Cookies,
    entropy: Entropy,
    associations: HashMap<AssocId, Association>,
    dials: HashMap<AssocId, Dial>,
    hellos: HashMap<(SocketAddr, AssocId), Taken>,
    /// In the order of their ends.
    taken: VecDeque<(SocketAddr, AssocId)>,
    knocks: Crowd<(SocketAddr, AssocId)>,
    waiting: Crowd<Waiting>,
    hello_rate: Bucket,
    rng: SmallRng,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Associations that may have something to send.
    stirred: VecDeque<AssocId>,
    timers: BTreeSet<(Now, AssocId)>,
    timer_of: HashMap<AssocId, Now>,
    events: VecDeque<(AssocId, Event)>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("associations", &self.associations.len()).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Of `identity`; `seed` is secret and good randomness.
    #[must_use]
    pub fn new(limits: Limits, identity: &Identity, seed: [u8; 32]) -> Endpoint {
        let entropy = Entropy::new(seed);
        let rng = SmallRng::from_seed(entropy.array());
        Endpoint {
            limits,
            credentials: Credentials::new(identity, entropy.clone()),
            cookies: Cookies::new(entropy.array()),
            entropy,
            associations: HashMap::new(),
            dials: HashMap::new(),
            hellos: HashMap::new(),
            taken: VecDeque::new(),
            knocks: Crowd::new(KNOCKS),
            waiting: Crowd::new(WAITING),
            hello_rate: Bucket::new(HELLOS),
            rng,
            out: VecDeque::new(),
            stirred: VecDeque::new(),
            timers: BTreeSet::new(),
            timer_of: HashMap::new(),
            events: VecDeque::new(),
        }
    }

    /// An association with `peer`, who is said to be at `addrs`, that takes new requests, if there is one. One that leads elsewhere
    /// is none: a program that was killed may be back at another port.
    #[must_use]
    pub fn find(&self, now: Now, peer: &PeerKey, addrs: &[SocketAddr]) -> Option<AssocId> {
        let leads = |a: &&Association| a.peer() == *peer && addrs.contains(&a.remote());
        let with = self.associations.values().filter(leads).filter(|a| a.is_fresh(now));
        with.max_by_key(|a| (a.is_open(), a.heard(), a.id())).map(Association::id)
    }

    /// Begins one with `peer`, at whichever of `addrs` answers first. Requests can be made at once.
    pub fn connect(&mut self, now: Now, peer: PeerKey, addrs: &[SocketAddr]) -> AssocId {
        let id = self.new_id();
        let first = addrs.first().copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        self.associations.insert(id, Association::new(now, id, peer, first));
        let dial = Dial::new(now, addrs, self.limits.connect);
        dial.knock(id, &mut self.out);
        self.dials.insert(id, dial);
        id
    }

    fn new_id(&self) -> AssocId {
        loop {
            let id = AssocId(u64::from_be_bytes(self.entropy.array()));
            if !self.associations.contains_key(&id) {
                return id;
            }
        }
    }

    /// An association. [`Endpoint::stir`] it after a change.
    pub fn association(&mut self, id: AssocId) -> Option<&mut Association> {
        self.associations.get_mut(&id)
    }

    /// Something about an association changed: it may have something to send, or to tell.
    pub fn stir(&mut self, id: AssocId) {
        if let Some(a) = self.associations.get_mut(&id) {
            while let Some(event) = a.poll_event() {
                self.events.push_back((id, event));
            }
            if !self.stirred.contains(&id) {
                self.stirred.push_back(id);
            }
        }
    }

    /// How many associations there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.associations.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.associations.is_empty()
    }

    /// What to do next.
    pub fn poll_event(&mut self) -> Option<(AssocId, Event)> {
        self.events.pop_front()
    }

    /// A datagram came. If it is one of an association, open or about to be, it is handled as by [`Endpoint::handle_datagram`], and
    /// so is what cannot be read; else false: it is a stranger's. (Answers come before the first packets, and both in order.)
    pub fn handle_known(&mut self, now: Now, from: SocketAddr, bytes: &mut [u8]) -> bool {
        let known = !Datagram::is_of_stranger(bytes);
        if known {
            self.handle_datagram(now, from, bytes);
        }
        known
    }

    /// A datagram came. (Its sender's address proves nothing.)
    /// Packets are decrypted where they lie.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, bytes: &mut [u8]) {
        let Ok(datagram) = Datagram::read(bytes) else { return };
        match datagram {
            Datagram::Packet { to, number, ciphertext } => {
                let header = bytes.len() - ciphertext.len();
                let Some(a) = self.associations.get_mut(&to).filter(|a| a.remote() == from) else { return };
                a.handle_packet(now, number, bytes.get_mut(header..).unwrap_or_default());
                self.stir(to);
            }
            Datagram::Knock { initiator } => self.knocks.push(&mut self.rng, from.ip(), (from, initiator)),
            Datagram::Hello { initiator, cookie, noise } => self.hello(now, from, initiator, &cookie, noise),
            Datagram::Cookie { initiator, cookie, static_key, signature } => {
                self.cookie(now, from, initiator, (cookie, static_key, signature));
            }
            Datagram::Answer { initiator, noise } => self.answer(now, from, initiator, noise),
        }
    }

    fn hello(&mut self, now: Now, from: SocketAddr, initiator: AssocId, cookie: &Cookie, noise: &[u8]) {
        self.forget_hellos(now);
        if let Some(taken) = self.hellos.get(&(from, initiator)) {
            if !taken.answer.is_empty() && self.out.len() < REPEATED {
                self.out.push_back((from, taken.answer.clone()));
            }
            return;
        }
        let Some(until) = self.cookies.check(now, cookie, initiator, from) else { return };
        let hello = Waiting { from, initiator, cookie: *cookie, until, noise: noise.to_vec() };
        self.waiting.push(&mut self.rng, from.ip(), hello);
        self.take_up(now);
    }

    /// Takes up HELLOs as far as there may be more, neighbourhoods in turn.
    fn take_up(&mut self, now: Now) {
        while !self.waiting.is_empty() && self.hello_rate.take(now) {
            let Some(hello) = self.waiting.pop() else { return };
            let Waiting { from, initiator, cookie, until, noise } = hello;
            let again = self.hellos.contains_key(&(from, initiator));
            if again || until <= now || self.hellos.len() >= REMEMBERED || !self.room_for(from) {
                continue;
            }
            // Taken up, whatever becomes of it: a cookie is good once.
            self.taken.push_back((from, initiator));
            let answer = self.introduce(now, from, initiator, &cookie, &noise).unwrap_or_default();
            if !answer.is_empty() {
                self.out.push_back((from, answer.clone()));
            }
            self.hellos.insert((from, initiator), Taken { until, answer });
        }
    }

    fn forget_hellos(&mut self, now: Now) {
        while let Some(first) = self.taken.front() {
            if self.hellos.get(first).is_some_and(|t| t.until > now) {
                return;
            }
            self.hellos.remove(first);
            self.taken.pop_front();
        }
    }

    /// Whether another association from there may begin; makes room by ending one that nobody uses.
    fn room_for(&mut self, from: SocketAddr) -> bool {
        let ip = from.ip();
        let of_one = self.associations.values().filter(|a| a.remote().ip() == ip).count();
        let crowded = of_one >= self.limits.per_ip && !ip.is_loopback();
        if !crowded && self.associations.len() < self.limits.associations {
            return true;
        }
        let fits = |a: &&Association| a.is_idle() && a.is_open() && (!crowded || a.remote().ip() == ip);
        let idle = self.associations.values().filter(fits);
        let Some(id) = idle.min_by_key(|a| (a.heard(), a.id())).map(Association::id) else { return false };
        self.remove(id);
        true
    }

    fn introduce(
        &mut self,
        now: Now,
        from: SocketAddr,
        initiator: AssocId,
        cookie: &Cookie,
        noise: &[u8],
    ) -> Option<Vec<u8>> {
        let introduced = self.credentials.introduced(initiator, cookie, noise)?;
        let (peer, largest) = (introduced.peer, introduced.largest.min(self.limits.largest));
        let frames = introduced.frames.clone();
        let id = self.new_id();
        let (keys, message) = introduced.answer(id, self.limits.largest)?;
        let mut association = Association::new(now, id, peer, from);
        association.open(now, keys, initiator, largest);
        association.handle_early(now, &frames);
        self.associations.insert(id, association);
        self.stir(id);
        Some(Datagram::Answer { initiator, noise: &message }.write())
    }

    fn cookie(
        &mut self,
        now: Now,
        from: SocketAddr,
        id: AssocId,
        (cookie, static_key, signature): (Cookie, [u8; 32], [u8; 64]),
    ) {
        let (Some(dial), Some(a)) = (self.dials.get_mut(&id), self.associations.get_mut(&id)) else { return };
        if !dial.expects_cookie(from) {
            return;
        }
        let peer = a.peer();
        if !noise::is_static_key(&peer, &static_key, &signature) {
            if dial.is_not_at(from) {
                self.fail(id, Over::WrongKey);
            }
            return;
        }
        let frames = a.early_frames(EARLY);
        a.set_remote(from);
        let hello = self.credentials.hello(&peer, (id, &cookie, &static_key), self.limits.largest, &frames);
        let Some((state, noise)) = hello else { return self.fail(id, Over::WrongKey) };
        let datagram = Datagram::Hello { initiator: id, cookie, noise: &noise }.write();
        dial.hello(now, from, state, datagram, &mut self.out);
    }

    fn answer(&mut self, now: Now, from: SocketAddr, id: AssocId, noise: &[u8]) {
        let Some(state) = self.dials.get_mut(&id).and_then(|d| d.state(from)) else { return };
        let Some(answered) = Credentials::answered(state, noise) else {
            // Whoever altered it can do so again.
            return self.fail(id, Over::Unreachable);
        };
        self.dials.remove(&id);
        if let Some(a) = self.associations.get_mut(&id) {
            let largest = answered.largest.min(self.limits.largest);
            a.open(now, answered.keys, answered.number, largest);
        }
        self.stir(id);
    }

    /// A dial came to nothing.
    fn fail(&mut self, id: AssocId, over: Over) {
        self.dials.remove(&id);
        if let Some(a) = self.associations.get_mut(&id) {
            a.end_with(over);
        }
        self.stir(id);
    }

    /// Puts datagrams that go to one address into `out`, which is empty; at most `most`.
    pub fn poll_transmit(&mut self, now: Now, out: &mut Vec<u8>, most: usize) -> Option<Transmit> {
        if let Some((to, datagram)) = self.out.pop_front() {
            let size = datagram.len();
            *out = datagram;
            return Some(Transmit { to, size });
        }
        while let Some(id) = self.stirred.pop_front() {
            let Some(a) = self.associations.get_mut(&id) else { continue };
            let size = a.poll_transmit(now, out, most);
            while let Some(event) = a.poll_event() {
                self.events.push_back((id, event));
            }
            if let Some(size) = size {
                let to = a.remote();
                // Others' turn, then its next.
                self.stirred.push_back(id);
                return Some(Transmit { to, size });
            }
            let (timeout, finished) = (a.poll_timeout(), a.is_finished());
            if finished {
                self.remove(id);
            } else {
                self.set_timer(id, timeout);
            }
        }
        let (to, datagram) = self.poll_answer(now)?;
        let size = datagram.len();
        *out = datagram;
        Some(Transmit { to, size })
    }

    /// The next answer to a stranger, of whom nothing is kept: neighbourhoods in turn. [`Endpoint::poll_transmit`] gives these
    /// when there is nothing else; where there is, it takes both, so that a flood and what is under way each have their share.
    pub fn poll_answer(&mut self, now: Now) -> Option<(SocketAddr, Vec<u8>)> {
        let (to, initiator) = self.knocks.pop()?;
        let cookie = self.cookies.issue(now, initiator, to);
        let (static_key, signature) = (self.credentials.public, self.credentials.signature);
        Some((to, Datagram::Cookie { initiator, cookie, static_key, signature }.write()))
    }

    fn set_timer(&mut self, id: AssocId, at: Option<Now>) {
        let before = match at {
            Some(at) => self.timer_of.insert(id, at),
            None => self.timer_of.remove(&id),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, id));
        }
        if let Some(at) = at {
            self.timers.insert((at, id));
        }
    }

    fn remove(&mut self, id: AssocId) {
        self.set_timer(id, None);
        self.dials.remove(&id);
        self.associations.remove(&id);
    }

    /// When [`Endpoint::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Now> {
        let dials = self.dials.values().map(Dial::next).min();
        let timers = self.timers.first().map(|(at, _)| *at);
        let more = (!self.waiting.is_empty()).then(|| self.hello_rate.refilled());
        dials.into_iter().chain(timers).chain(more).min()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.forget_hellos(now);
        self.take_up(now);
        let due: Vec<AssocId> =
            self.dials.iter().filter(|(_, d)| d.next() <= now).map(|(id, _)| *id).collect();
        for id in due {
            let Some(dial) = self.dials.get_mut(&id) else { continue };
            if dial.is_over(now) {
                let over = if dial.found_another() { Over::WrongKey } else { Over::Unreachable };
                self.fail(id, over);
            } else {
                dial.again(now, id, &mut self.out);
            }
        }
        while let Some((_, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.set_timer(id, None);
            if let Some(a) = self.associations.get_mut(&id) {
                a.handle_timeout(now);
                self.stir(id);
            }
        }
    }

    /// Ends all associations.
    pub fn close(&mut self, reason: CloseReason) {
        self.dials.clear();
        let all: Vec<AssocId> = self.associations.keys().copied().collect();
        for id in all {
            if let Some(a) = self.associations.get_mut(&id) {
                a.close(reason);
            }
            self.stir(id);
        }
    }

    /// Datagrams of any kind are at most so long.
    #[must_use]
    pub fn largest(&self) -> usize {
        self.limits.largest.min(MAX_DATAGRAM)
    }
}

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
