//! A relay for peers behind NATs: circuit relay v2, for whoever runs a tracker. It connects peers that both know it; what
//! they say to each other is encrypted from end to end.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use iceshare::icet::{Identity, Scope};
use iceshare::net::{QuicLimits, SlotLimits};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{ListenerId, OrTransport, Transport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{self, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, connection_limits, identify, noise, ping, relay, tcp, yamux};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::gate::{self, Gated, Places, Rules};
use crate::quic::Quic;
use crate::transport::Joined;
use crate::wire;

mod uses;

use uses::Uses;

/// How often a port that is free for TCP but not for UDP is tried again, when any will do.
const TRIES: usize = 16;
/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long connections without reservation or circuit are kept.
const IDLE: Duration = Duration::from_secs(30);
/// Reservations and circuits that a peer or an IP address may ask for at once, and how long until one more.
const PEER_RATE: (u32, Duration) = (60, Duration::from_secs(5));
const IP_RATE: (u32, Duration) = (240, Duration::from_secs(1));
/// How long the addresses of all interfaces are waited for, and how long after the last one.
const ADDRESSES: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(100));
/// What a connection of QUIC may take: circuits both ways, 20 MB/s at a round-trip time of 50 ms, in packets that Ethernet takes of IPv6.
const QUIC: QuicLimits = QuicLimits {
    streams: 256,
    stream_window: 1 << 20,
    window: 1 << 20,
    accepted_window: 1 << 20,
    datagrams: 0,
    connections: 0,
    payload: 1452,
    batches: true,
};
/// Handshakes under way, and what libp2p itself counts as such: some of those have ended already.
const HANDSHAKES: usize = 256;
const PENDING: u32 = 2048;
/// Connections beyond those of reservations: peers that only call others.
const CALLERS: usize = 1024;

/// What a relay gives. libp2p's own defaults (16 circuits of 128 KiB and 2 minutes) are made for setting up punches;
/// these let pages through where no punch works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Peers that are reachable through it at once. Beyond so many, one without circuits goes for a newcomer; if all have circuits, nobody.
    pub reservations: usize,
    /// Circuits at once; those who come from one network (/24, /48) have half of what is still free at most.
    pub circuits: usize,
    /// Of them, those that one peer has, on either end.
    pub circuits_per_peer: usize,
    /// Bytes that one circuit carries, both ways together.
    pub circuit_bytes: u64,
    /// How long one circuit lasts.
    pub circuit_time: Duration,
    /// Connections from one IP address (loopback aside).
    pub per_ip: usize,
}

impl Default for Limits {
    /// 1024 reservations; 256 circuits, 32 of one peer, of 256 MiB and 30 minutes each; 64 connections from one address.
    fn default() -> Limits {
        Limits {
            reservations: 1024,
            circuits: 256,
            circuits_per_peer: 32,
            circuit_bytes: 256 << 20,
            circuit_time: Duration::from_secs(30 * 60),
            per_ip: 64,
        }
    }
}

/// How a relay is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its key; peers set its peer id.
    pub identity: Identity,
    /// Where it listens, TCP and UDP; port 0: any free ones.
    pub listen: Vec<SocketAddr>,
    /// IP addresses by which peers reach it; none: those of this machine's interfaces.
    pub announce: Vec<IpAddr>,
    /// What it gives.
    pub limits: Limits,
}

/// Why a relay cannot run.
#[derive(Debug, Error)]
pub enum RelayError {
    /// An address to listen on cannot be had.
    #[error("cannot listen on {addr}: {why}")]
    Listen {
        /// Which.
        addr: Multiaddr,
        /// What the system says.
        why: String,
    },
    /// The key is of no use.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// There was no listener left.
    #[error("no address to listen on is left")]
    NoListener,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    gate: gate::Behaviour,
    relay: relay::Behaviour,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// A relay that listens.
pub struct Relay {
    swarm: Swarm<Behaviour>,
    uses: Uses,
    announce: Vec<IpAddr>,
    me: PeerId,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relay({})", self.me)
    }
}

fn rates(config: relay::Config) -> relay::Config {
    let (per_peer, per_ip) = (NonZeroU32::new(PEER_RATE.0), NonZeroU32::new(IP_RATE.0));
    let config = match per_peer {
        Some(n) => config.reservation_rate_per_peer(n, PEER_RATE.1).circuit_src_per_peer(n, PEER_RATE.1),
        None => config,
    };
    match per_ip {
        Some(n) => config.reservation_rate_per_ip(n, IP_RATE.1).circuit_src_per_ip(n, IP_RATE.1),
        None => config,
    }
}

impl Relay {
    /// Opens the ports, and waits until they are there. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`RelayError`].
    pub async fn start(options: Options) -> Result<Relay, RelayError> {
        let key_error = |e: &dyn std::error::Error| RelayError::Key(e.to_string());
        let keys = Keypair::ed25519_from_bytes(options.identity.seed()).map_err(|e| key_error(&e))?;
        let me = keys.public().to_peer_id();
        let limits = options.limits;
        let tcp = tcp::tokio::Transport::new(tcp::Config::default())
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(&keys).map_err(|e| key_error(&e))?)
            .multiplex(yamux::Config::default())
            .timeout(PATIENCE)
            .boxed();
        let all = limits.reservations.saturating_add(CALLERS);
        let quic = Quic::new(
            &options.identity,
            &keys,
            QuicLimits { connections: all.saturating_add(HANDSHAKES * 2), ..QUIC },
            (PATIENCE, u64::MAX),
        )
        .map_err(|e| key_error(&e))?
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
        // It never dials: who calls or is called comes to it.
        let nobody = Rules::new(false, Instant::now());
        let stack = Gated::new(nobody, HANDSHAKES, OrTransport::new(tcp, quic).joined()).boxed();
        let places = Places::default();
        let uses = Uses::new(limits, places.clone());
        let config = rates(relay::Config {
            // libp2p refuses whoever comes when there are so many, renewals too: `Uses` makes room instead.
            max_reservations: usize::MAX,
            max_circuits: limits.circuits,
            max_circuits_per_peer: limits.circuits_per_peer,
            max_circuit_duration: limits.circuit_time,
            max_circuit_bytes: limits.circuit_bytes,
            reservation_rate_limiters: Vec::new(),
            circuit_src_rate_limiters: vec![uses.limiter()],
            ..relay::Config::default()
        });
        let connections = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING))
            .with_max_established_per_peer(Some(8));
        let places_for = SlotLimits { all, each: limits.per_ip };
        let behaviour = Behaviour {
            limits: connection_limits::Behaviour::new(connections),
            gate: gate::Behaviour::new(places_for, places),
            relay: relay::Behaviour::new(me, config),
            identify: identify::Behaviour::new(
                identify::Config::new(wire::FAMILY.to_owned(), keys.public())
                    .with_agent_version(wire::AGENT.to_owned())
                    .with_cache_size(0),
            ),
            ping: ping::Behaviour::default(),
        };
        let settings = swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE);
        let mut relay =
            Relay { swarm: Swarm::new(stack, behaviour, me, settings), uses, announce: options.announce, me };
        relay.listen(&options.listen).await?;
        relay.settle().await;
        for ip in &relay.announce {
            if relay.swarm.external_addresses().all(|a| wire::socket_of(a).is_none_or(|(at, ..)| at != *ip)) {
                tracing::warn!(%ip, "nothing listens for what comes to this address: name one of its kind (IPv4, IPv6) too");
            }
        }
        Ok(relay)
    }

    async fn listen(&mut self, at: &[SocketAddr]) -> Result<(), RelayError> {
        for at in at {
            let mut tries = TRIES;
            // One number for both, so that one firewall rule and one line say all.
            while let Err(e) = self.listen_both(*at).await {
                tries -= 1;
                if at.port() != 0 || tries == 0 {
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    async fn listen_both(&mut self, at: SocketAddr) -> Result<(), RelayError> {
        let (id, tcp) = self.open(Multiaddr::from(at.ip()).with(Protocol::Tcp(at.port()))).await?;
        let port = wire::socket_of(&tcp).map_or(at.port(), |(_, port, _)| port);
        let udp = Multiaddr::from(at.ip()).with(Protocol::Udp(port)).with(Protocol::QuicV1);
        let opened = self.open(udp).await;
        if opened.is_err() {
            self.swarm.remove_listener(id);
            self.swarm.remove_external_address(&tcp);
        }
        opened.map(|_| ())
    }

    /// Listens, and waits for the first address that it means.
    async fn open(&mut self, addr: Multiaddr) -> Result<(ListenerId, Multiaddr), RelayError> {
        let fail = |why: String| RelayError::Listen { addr: addr.clone(), why };
        let id = self.swarm.listen_on(addr.clone()).map_err(|e| fail(wire::root(&e)))?;
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { listener_id, address } => {
                    self.announce(&address);
                    if listener_id == id {
                        return Ok((id, address));
                    }
                }
                SwarmEvent::ListenerClosed { listener_id, reason, .. } if listener_id == id => {
                    let why = reason.err().map_or_else(|| "it was closed".to_owned(), |e| e.to_string());
                    return Err(fail(why));
                }
                _ => {}
            }
        }
    }

    /// Waits until an unspecified address has become those of the interfaces: they come one by one, those of QUIC after those of
    /// TCP.
    async fn settle(&mut self) {
        let deadline = tokio::time::Instant::now() + ADDRESSES.0;
        loop {
            let ips = |wanted| {
                let all = self.swarm.listeners().filter_map(wire::socket_of);
                all.filter(|(.., udp)| *udp == wanted).map(|(ip, ..)| ip).collect::<BTreeSet<_>>()
            };
            let quiet = if ips(true) == ips(false) { ADDRESSES.1 } else { ADDRESSES.0 };
            let until = deadline.min(tokio::time::Instant::now() + quiet);
            match tokio::time::timeout_at(until, self.swarm.select_next_some()).await {
                Ok(SwarmEvent::NewListenAddr { address, .. }) => self.announce(&address),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// Tells peers of an address at which we listen, or of those that the operator names instead.
    fn announce(&mut self, address: &Multiaddr) {
        let Some((ip, ..)) = wire::socket_of(address) else { return };
        if self.announce.is_empty() && Scope::of(ip) != Scope::Never {
            self.swarm.add_external_address(address.clone());
        }
        for named in self.announce.iter().filter(|named| named.is_ipv4() == ip.is_ipv4()) {
            let addr = address.iter().skip(1).fold(Multiaddr::from(*named), Multiaddr::with);
            self.swarm.add_external_address(addr);
        }
    }

    /// Its id.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.me
    }

    /// What peers set as `libp2p.relay`: QUIC first, since only over it a NAT can be punched well. Loopback only if there is
    /// nothing else.
    #[must_use]
    pub fn addresses(&self) -> Vec<Multiaddr> {
        let mut all: Vec<_> = self.swarm.external_addresses().cloned().collect();
        let rank = |a: &Multiaddr| {
            let (ip, _, udp) = wire::socket_of(a).unwrap_or((IpAddr::from([0; 4]), 0, false));
            (Scope::of(ip) == Scope::Loopback, Scope::of(ip) != Scope::Public, !udp, a.to_string())
        };
        all.sort_by_key(rank);
        if all.iter().any(|a| !rank(a).0) {
            all.retain(|a| !rank(a).0);
        }
        all.into_iter().map(|a| a.with(Protocol::P2p(self.me))).collect()
    }

    /// Relays until told to stop.
    ///
    /// # Errors
    /// If no listener is left.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), RelayError> {
        loop {
            let event = tokio::select! {
                event = self.swarm.select_next_some() => event,
                peer = self.uses.displaced() => {
                    tracing::info!(%peer, "others have its reservation");
                    let _ = self.swarm.disconnect_peer_id(peer);
                    continue;
                }
                () = stop.cancelled() => return Ok(()),
            };
            match event {
                SwarmEvent::NewListenAddr { address, .. } => self.announce(&address),
                SwarmEvent::ExpiredListenAddr { address, .. } => self.swarm.remove_external_address(&address),
                SwarmEvent::ListenerClosed { reason, addresses, .. } => {
                    tracing::warn!(?addresses, ?reason, "a listener closed");
                    if self.swarm.listeners().next().is_none() {
                        return Err(RelayError::NoListener);
                    }
                }
                SwarmEvent::Behaviour(BehaviourEvent::Relay(event)) => {
                    self.uses.hear(&event);
                    log(&event);
                }
                _ => {}
            }
        }
    }
}

fn log(event: &relay::Event) {
    match event {
        relay::Event::ReservationReqAccepted { src_peer_id, renewed: false } => {
            tracing::info!(peer = %src_peer_id, "reservation");
        }
        relay::Event::ReservationReqDenied { src_peer_id, status } => {
            tracing::info!(peer = %src_peer_id, ?status, "reservation denied");
        }
        relay::Event::ReservationClosed { src_peer_id }
        | relay::Event::ReservationTimedOut { src_peer_id } => {
            tracing::info!(peer = %src_peer_id, "reservation ended");
        }
        relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id } => {
            tracing::info!(from = %src_peer_id, to = %dst_peer_id, "circuit");
        }
        relay::Event::CircuitReqDenied { src_peer_id, dst_peer_id, status } => {
            tracing::info!(from = %src_peer_id, to = %dst_peer_id, ?status, "circuit denied");
        }
        relay::Event::CircuitClosed { src_peer_id, dst_peer_id, error } => {
            let error = error.as_ref().map(io::Error::to_string);
            tracing::info!(from = %src_peer_id, to = %dst_peer_id, error, "circuit ended");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn addresses(listen: &str, announce: &[IpAddr]) -> Vec<(IpAddr, u16, bool)> {
        let options = Options {
            identity: Identity::from_seed(&[7; 32]),
            listen: vec![listen.parse().expect("an address")],
            announce: announce.to_vec(),
            limits: Limits::default(),
        };
        let relay = Relay::start(options).await.unwrap_or_else(|e| panic!("{e}"));
        relay.addresses().iter().map(|a| wire::socket_of(a).expect("an IP address")).collect()
    }

    #[tokio::test]
    async fn every_address_is_told_over_both_carriers() {
        // Whatever interfaces this machine has: they come one after the other.
        let told = addresses("0.0.0.0:0", &[]).await;
        let over = |wanted| told.iter().filter(|a| a.2 == wanted).map(|a| a.0).collect::<BTreeSet<_>>();
        assert!(!told.is_empty() && over(true) == over(false), "{told:?}");
        let loopback = told.iter().filter(|a| Scope::of(a.0) == Scope::Loopback).count();
        assert!(loopback == 0 || loopback == told.len(), "{told:?}");
        let public: IpAddr = [203, 0, 113, 9].into();
        let told = addresses("0.0.0.0:0", &[public]).await;
        let port = told.first().map_or(0, |a| a.1);
        assert_eq!(told, [(public, port, true), (public, port, false)]);
        let told = addresses("127.0.0.1:0", &[]).await;
        assert_eq!(told.iter().map(|a| a.2).collect::<Vec<_>>(), [true, false], "{told:?}");
    }
}
