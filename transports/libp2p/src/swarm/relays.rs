//! Relays that the user set: where they are, our connections to them, and our reservations there, by which others
//! reach us.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, Swarm};
use libp2p::{Multiaddr, PeerId};

use crate::gate::{self, Gate};
use crate::wire;

/// After a failure the next try waits so long, twice as long each time up to the most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
/// How long TCP waits for UDP.
const TCP_DELAY: Duration = Duration::from_millis(400);
/// Most IP addresses of one name.
const NAMES: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be looked up and tried from then on.
    Waits(Instant),
    Resolving,
    /// Its addresses are known: to be dialed.
    Ready,
    Dialing(ConnectionId),
    Listening(ListenerId),
    Closed,
}

#[derive(Debug)]
struct Relay {
    peer: PeerId,
    /// As it was set.
    names: Vec<Multiaddr>,
    /// With IP addresses.
    addrs: Vec<Multiaddr>,
    state: State,
    failures: u32,
    /// Since when there is a reservation.
    reserved: Option<Instant>,
    /// The last one did not last: others need its places, too.
    crowded: bool,
    /// Why it is of no use just now.
    trouble: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Relays {
    all: Vec<Relay>,
    gate: Gate,
}

impl Relays {
    pub(crate) fn new(relays: &[wire::Relay], gate: Gate, now: Instant) -> Relays {
        let mut rules = gate::lock(&gate);
        let all = relays.iter().map(|r| {
            // Those without names are known at once.
            let known = r.at.iter().all(|a| wire::socket_of(a).is_some());
            let addrs = if known { r.at.clone() } else { Vec::new() };
            addrs.iter().for_each(|a| rules.relay(a, wait(a)));
            let state = if known { State::Ready } else { State::Waits(now) };
            Relay {
                peer: r.peer,
                names: r.at.clone(),
                addrs,
                state,
                failures: 0,
                reserved: None,
                crowded: false,
                trouble: None,
            }
        });
        let all = all.collect();
        drop(rules);
        Relays { all, gate }
    }

    pub(crate) fn is_one(&self, peer: &PeerId) -> bool {
        self.all.iter().any(|r| r.peer == *peer)
    }

    /// Which to look up now, by their place.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<(usize, Vec<Multiaddr>)> {
        let due = |r: &Relay| matches!(r.state, State::Waits(at) if at <= now);
        let mut out = Vec::new();
        for (i, relay) in self.all.iter_mut().enumerate().filter(|(_, r)| due(r)) {
            relay.state = State::Resolving;
            out.push((i, relay.names.clone()));
        }
        out
    }

    /// When there is something to do again.
    pub(crate) fn next_try(&self) -> Option<Instant> {
        self.all.iter().filter_map(|r| if let State::Waits(at) = r.state { Some(at) } else { None }).min()
    }

    pub(crate) fn resolved(&mut self, index: usize, addrs: Vec<Multiaddr>, now: Instant) {
        let Some(relay) = self.all.get_mut(index).filter(|r| r.state == State::Resolving) else { return };
        if addrs.is_empty() {
            relay.fail(now, "its name leads nowhere".to_owned());
            return;
        }
        let mut rules = gate::lock(&self.gate);
        addrs.iter().for_each(|a| rules.relay(a, wait(a)));
        relay.addrs = addrs;
        relay.state = State::Ready;
    }

    /// Dials those that are ready, over UDP first: only so a NAT is learned that can be punched well.
    pub(crate) fn dial<B: NetworkBehaviour>(&mut self, swarm: &mut Swarm<B>, now: Instant) {
        for relay in self.all.iter_mut().filter(|r| r.state == State::Ready) {
            let opts = DialOpts::peer_id(relay.peer)
                .condition(PeerCondition::Always)
                .addresses(relay.addrs.clone())
                .override_dial_concurrency_factor(NonZeroU8::MAX)
                .build();
            relay.state = State::Dialing(opts.connection_id());
            if let Err(e) = swarm.dial(opts) {
                relay.fail(now, wire::dial_error(&e));
            }
        }
    }

    /// The dial of a relay failed. False: it was none.
    pub(crate) fn undialed(&mut self, connection: ConnectionId, why: &DialError, now: Instant) -> bool {
        let Some(relay) = self.all.iter_mut().find(|r| r.state == State::Dialing(connection)) else {
            return false;
        };
        relay.fail(now, wire::dial_error(why));
        true
    }

    /// A direct connection to somebody stands: of a relay a reservation is asked for. False: it is none.
    pub(crate) fn connected<B: NetworkBehaviour>(
        &mut self,
        peer: &PeerId,
        at: &Multiaddr,
        swarm: &mut Swarm<B>,
        now: Instant,
    ) -> bool {
        let Some(relay) = self.all.iter_mut().find(|r| r.peer == *peer) else { return false };
        let waits = relay.crowded && matches!(relay.state, State::Waits(until) if now < until);
        if waits || matches!(relay.state, State::Listening(_) | State::Closed) {
            return true;
        }
        relay.look_from_tcp(at, swarm);
        let mut addr = at.clone();
        if !matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
            addr.push(Protocol::P2p(relay.peer));
        }
        match swarm.listen_on(addr.with(Protocol::P2pCircuit)) {
            Ok(id) => relay.state = State::Listening(id),
            Err(e) => {
                relay.fail(now, wire::root(&e));
            }
        }
        true
    }

    /// Whether one of a host's relays is about to be reached.
    pub(crate) fn pending(&self, of_host: &[PeerId]) -> bool {
        let soon = |r: &Relay| matches!(r.state, State::Ready | State::Resolving | State::Dialing(_));
        self.all.iter().any(|r| of_host.contains(&r.peer) && soon(r))
    }

    pub(crate) fn reserved(&mut self, relay: &PeerId, now: Instant) {
        self.all.iter_mut().filter(|r| r.peer == *relay).for_each(|r| {
            r.reserved.get_or_insert(now);
            if r.trouble.take().is_some() {
                // As loud as what was told of the trouble.
                tracing::warn!(relay = %r.peer, "a relay is of use again: others reach this program through it");
            }
        });
    }

    /// A reservation, or the hope for it, has ended.
    pub(crate) fn lost(&mut self, listener: ListenerId, reason: io::Result<()>, now: Instant) {
        for relay in self.all.iter_mut().filter(|r| r.state == State::Listening(listener)) {
            let why = match reason.as_ref().err().map(|e| wire::root(e)) {
                Some(why) if !why.starts_with("closed by peer") => why,
                _ => "it closed the connection: it ended, or has more peers than places (its operator sets how many, by \
                      --reservations)"
                    .to_owned(),
            };
            // A relay with too few places gives them in turn: who loses its own soon is not to take another's at once.
            if let Some(since) = relay.reserved.take() {
                relay.crowded = now.saturating_duration_since(since) < RETRY.1;
                relay.failures = if relay.crowded { relay.failures } else { 0 };
            }
            relay.fail(now, format!("no reservation there: {why}"));
        }
    }

    /// What is wrong with those of a host's relays that are set here; none if nothing is.
    pub(crate) fn trouble(&self, of_host: &[PeerId]) -> Option<String> {
        let theirs = self.all.iter().filter(|r| of_host.contains(&r.peer));
        let all: Vec<_> =
            theirs.filter_map(|r| Some(format!("relay {}: {}", r.peer, r.trouble.as_ref()?))).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Gives all reservations up.
    pub(crate) fn close<B: NetworkBehaviour>(&mut self, swarm: &mut Swarm<B>) {
        for relay in &mut self.all {
            if let State::Listening(id) = std::mem::replace(&mut relay.state, State::Closed) {
                swarm.remove_listener(id);
            }
        }
    }

    /// Addresses that lead through those of a host's relays that are known here and not just being reached.
    pub(crate) fn circuits(&self, of_host: &[PeerId]) -> impl Iterator<Item = Multiaddr> {
        // Who has no reservation at a relay (it may have none left) can call others through it all the same.
        let ready = |r: &&Relay| matches!(r.state, State::Listening(_) | State::Waits(_));
        let known = self.all.iter().filter(|r| of_host.contains(&r.peer)).filter(ready);
        known.filter_map(|r| {
            // The connection that is there is used, whatever address stands here.
            let any = r.addrs.first()?.clone();
            Some(any.with(Protocol::P2p(r.peer)).with(Protocol::P2pCircuit))
        })
    }
}

impl Relay {
    /// Lets the relay see us over TCP too, once: for punches where the other end has no UDP. That connection is not kept.
    fn look_from_tcp<B: NetworkBehaviour>(&self, connected: &Multiaddr, swarm: &mut Swarm<B>) {
        let udp = |a: &Multiaddr| wire::socket_of(a).is_some_and(|(.., udp)| udp);
        let tcp: Vec<_> = self.addrs.iter().filter(|a| !udp(a)).cloned().collect();
        if udp(connected) && !tcp.is_empty() {
            let opts = DialOpts::peer_id(self.peer).condition(PeerCondition::Always).addresses(tcp).build();
            if let Err(e) = swarm.dial(opts) {
                tracing::debug!(relay = %self.peer, error = %e, "a relay is not seen over TCP");
            }
        }
    }

    fn fail(&mut self, now: Instant, why: String) {
        // Told once: it is tried again and again.
        if self.trouble.is_none() {
            let at: Vec<_> = self.names.iter().map(ToString::to_string).collect();
            tracing::warn!(relay = %self.peer, at = at.join(" "), why, "a relay is of no use now; it is tried again");
        } else {
            tracing::info!(relay = %self.peer, why, "a relay is of no use now");
        }
        self.trouble = Some(why);
        let wait = RETRY.0.saturating_mul(1 << self.failures.min(16)).min(RETRY.1);
        self.failures = self.failures.saturating_add(1);
        // Not all peers of a relay that was away come back in the same moment: half to three halves of it.
        let part = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
        self.state = State::Waits(now + wait.mul_f64(0.5 + part));
    }
}

/// How long a dial waits for another one that has advantages.
fn wait(addr: &Multiaddr) -> Duration {
    if wire::socket_of(addr).is_some_and(|(.., udp)| udp) { Duration::ZERO } else { TCP_DELAY }
}

/// The addresses with their names looked up.
pub(crate) async fn resolve(names: &[Multiaddr]) -> Vec<Multiaddr> {
    let mut out = Vec::new();
    for addr in names {
        let (name, wants): (String, fn(&IpAddr) -> bool) = match addr.iter().next() {
            Some(Protocol::Dns(name)) => (name.into_owned(), |_| true),
            Some(Protocol::Dns4(name)) => (name.into_owned(), IpAddr::is_ipv4),
            Some(Protocol::Dns6(name)) => (name.into_owned(), IpAddr::is_ipv6),
            _ => {
                out.push(addr.clone());
                continue;
            }
        };
        match tokio::net::lookup_host((name.as_str(), 0)).await {
            Ok(found) => {
                for ip in found.map(|at| at.ip()).filter(wants).take(NAMES) {
                    out.push(addr.iter().skip(1).fold(Multiaddr::from(ip), Multiaddr::with));
                }
            }
            Err(e) => tracing::warn!(name, error = %e, "the name of a relay is not found"),
        }
    }
    out
}
