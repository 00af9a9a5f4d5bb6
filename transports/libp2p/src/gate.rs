//! Nobody can be aimed, nor kept out: which addresses this peer dials, how many connections one address may open to it, and whose
//! handshakes go on.
//!
//! libp2p dials what other peers name, in hole punching above all (DCUtR sends the addresses to be dialed). Here all
//! dials pass one gate. What the driver orders (addresses that a tracker proved, relays that the user set) passes;
//! anything else only as a punch: a public address with a port from 1024 on, as often as a budget allows.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use iceshare::icet::Scope;
use iceshare::net::{Place, Served, SlotLimits, Slots};
use libp2p::core::Endpoint;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{
    Boxed, DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent,
};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use tokio_util::sync::CancellationToken;

use crate::wire;

/// Punches at once, and how long until another may follow.
const PUNCHES: (f64, Duration) = (64.0, Duration::from_secs(1));

/// What may be dialed.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Whether punches are allowed.
    punch: bool,
    /// What is being dialed on the driver's order: how often, and how long it waits before.
    ordered: HashMap<Multiaddr, (u32, Duration)>,
    /// Relays, and how long each address waits before.
    relays: HashMap<Multiaddr, Duration>,
    /// Where relays are: peers that meet at a relay in a private network may be in it too.
    scopes: Vec<Scope>,
    tokens: f64,
    refilled: Instant,
}

pub(crate) type Gate = Arc<Mutex<Rules>>;

/// Locks the rules.
pub(crate) fn lock(gate: &Gate) -> MutexGuard<'_, Rules> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Without the id of who is expected there.
fn bare(addr: &Multiaddr) -> Multiaddr {
    let mut addr = addr.clone();
    if matches!(addr.iter().last(), Some(Protocol::P2p(_))) {
        addr.pop();
    }
    addr
}

impl Rules {
    pub(crate) fn new(punch: bool, now: Instant) -> Gate {
        Arc::new(Mutex::new(Rules {
            punch,
            ordered: HashMap::new(),
            relays: HashMap::new(),
            scopes: vec![Scope::Public],
            tokens: PUNCHES.0,
            refilled: now,
        }))
    }

    /// Lets a relay be dialed from now on, after a delay.
    pub(crate) fn relay(&mut self, addr: &Multiaddr, delay: Duration) {
        if let Some((ip, ..)) = wire::socket_of(addr)
            && !self.scopes.contains(&Scope::of(ip))
        {
            self.scopes.push(Scope::of(ip));
        }
        self.relays.insert(bare(addr), delay);
    }

    /// Lets an address be dialed until [`Rules::done`], after a delay.
    pub(crate) fn order(&mut self, addr: &Multiaddr, delay: Duration) {
        let (n, wait) = self.ordered.entry(bare(addr)).or_insert((0, delay));
        *n += 1;
        *wait = delay.min(*wait);
    }

    /// The end of an order.
    pub(crate) fn done(&mut self, addr: &Multiaddr) {
        let addr = bare(addr);
        if let Some((n, _)) = self.ordered.get_mut(&addr) {
            *n -= 1;
            if *n == 0 {
                self.ordered.remove(&addr);
            }
        }
    }

    /// Whether the address may be dialed, and how long to wait before.
    fn permit(&mut self, addr: &Multiaddr, now: Instant) -> Option<Duration> {
        let addr = bare(addr);
        if let Some((_, delay)) = self.ordered.get(&addr) {
            return Some(*delay);
        }
        if let Some(delay) = self.relays.get(&addr) {
            return Some(*delay);
        }
        wire::punchable(&addr).filter(|ip| self.punch && self.scopes.contains(&Scope::of(*ip)))?;
        let gained = now.saturating_duration_since(self.refilled).as_secs_f64() / PUNCHES.1.as_secs_f64();
        self.tokens = (self.tokens + gained).min(PUNCHES.0);
        self.refilled = now;
        if self.tokens < 1.0 {
            return None;
        }
        self.tokens -= 1.0;
        Some(Duration::ZERO)
    }
}

/// A transport that dials only what the rules allow, and in which nobody keeps others from their handshakes over TCP: beyond so many at once
/// somebody else's ends for each newcomer (see [`Slots`]).
pub(crate) struct Gated {
    gate: Gate,
    handshakes: Slots,
    inner: Boxed<(PeerId, StreamMuxerBox)>,
}

impl Gated {
    pub(crate) fn new(gate: Gate, handshakes: usize, inner: Boxed<(PeerId, StreamMuxerBox)>) -> Gated {
        let handshakes = Slots::new(SlotLimits { all: handshakes, each: handshakes / 2 });
        Gated { gate, handshakes, inner }
    }

    /// A handshake that lasts as long as its place is its own.
    fn hold(&self, remote: &Multiaddr, handshake: Handshake) -> Handshake {
        // What a relay brings has no address of its own; QUIC's have ended.
        let Some((ip, _, false)) = wire::socket_of(remote) else { return handshake };
        let Some(slot) = self.handshakes.enter(ip) else {
            return async { Err(io::ErrorKind::ConnectionRefused.into()) }.boxed();
        };
        async move {
            let newcomers = || io::Error::new(io::ErrorKind::TimedOut, "newcomers have its place");
            slot.hold(handshake).await.unwrap_or_else(|| Err(newcomers()))
        }
        .boxed()
    }
}

/// The other end's part of a connection that it opens.
type Handshake = <Boxed<Opened> as Transport>::ListenerUpgrade;

type Opened = (PeerId, StreamMuxerBox);

impl Transport for Gated {
    type Output = Opened;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<Opened> as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<Opened>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, addr)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        let Some(delay) = lock(&self.gate).permit(&addr, Instant::now()) else {
            tracing::debug!(%addr, "an address that somebody named is not dialed");
            let why = "addresses of somebody's choosing are not dialed";
            return Err(TransportError::Other(io::Error::new(io::ErrorKind::PermissionDenied, why)));
        };
        let dial = self.inner.dial(addr, opts)?;
        if delay.is_zero() {
            return Ok(dial.boxed());
        }
        Ok(async move {
            tokio::time::sleep(delay).await;
            dial.await
        }
        .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        match Pin::new(&mut self.inner).poll(cx) {
            Poll::Ready(TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr }) => {
                let upgrade =
                    if wire::is_relayed(&local_addr) { upgrade } else { self.hold(&send_back_addr, upgrade) };
                Poll::Ready(TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr })
            }
            other => other,
        }
    }
}

/// A connection that another peer opened.
#[derive(Debug)]
struct Taken {
    peer: PeerId,
    ip: IpAddr,
    place: Arc<Place>,
    /// Cancelled when it ends.
    end: CancellationToken,
}

/// Whose place it was, once somebody else has it; none if it ended before.
pub(crate) async fn until_taken<T>(place: Arc<Place>, end: CancellationToken, whose: T) -> Option<T> {
    tokio::select! {
        biased;
        () = end.cancelled() => None,
        () = place.taken() => Some(whose),
    }
}

/// The places of connections that others opened. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<HashMap<ConnectionId, Taken>>>);

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That of a connection, if another peer opened it, and no relay brought it.
    pub(crate) fn of(&self, id: ConnectionId) -> Option<Arc<Place>> {
        self.lock().get(&id).map(|taken| taken.place.clone())
    }

    /// All connections of a peer are of use as long as the guards live.
    pub(crate) fn serve(&self, peer: &PeerId) -> Vec<Served> {
        self.lock()
            .values()
            .filter(|taken| taken.peer == *peer)
            .map(|taken| taken.place.serve(true))
            .collect()
    }

    /// Where one of a peer's connections comes from.
    pub(crate) fn ip(&self, peer: &PeerId) -> Option<IpAddr> {
        self.lock().values().find(|taken| taken.peer == *peer).map(|taken| taken.ip)
    }

    fn leave(&self, id: ConnectionId) {
        if let Some(taken) = self.lock().remove(&id) {
            taken.end.cancel();
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("all connections are of use, and there are enough of them")]
struct Full;

/// Gives connections that others open their places (who is of no use goes for newcomers, see [`Slots`]), and hands on what relays say of
/// our own address.
#[derive(Debug)]
pub(crate) struct Behaviour {
    slots: Slots,
    places: Places,
    /// Until others have their places, or they end.
    taken: FuturesUnordered<BoxFuture<'static, Option<(PeerId, ConnectionId)>>>,
    observed: VecDeque<Multiaddr>,
}

impl Behaviour {
    /// `limits`: of connections that others open.
    pub(crate) fn new(limits: SlotLimits, places: Places) -> Behaviour {
        let (taken, observed) = (FuturesUnordered::new(), VecDeque::new());
        Behaviour { slots: Slots::new(limits), places, taken, observed }
    }

    /// A relay sees us at this address: what a punch can aim at. (`identify` tells it too, but puts our own port in
    /// its place where a NAT has changed it.)
    pub(crate) fn observed(&mut self, addr: Multiaddr) {
        self.observed.push_back(addr);
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // What a relay brings has no address of its own.
        if let Some((ip, ..)) = wire::socket_of(remote).filter(|_| !wire::is_relayed(local)) {
            let place = Place::new(self.slots.enter(ip).ok_or_else(|| ConnectionDenied::new(Full))?);
            let end = CancellationToken::new();
            let taken = Taken { peer, ip, place: place.clone(), end: end.clone() };
            self.places.lock().insert(id, taken);
            self.taken.push(until_taken(place, end, (peer, id)).boxed());
        }
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(e) => self.places.leave(e.connection_id),
            // Another behaviour refused it behind us.
            FromSwarm::ListenFailure(e) => self.places.leave(e.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        while let Poll::Ready(Some(over)) = self.taken.poll_next_unpin(cx) {
            if let Some((peer_id, id)) = over {
                tracing::debug!(peer = %peer_id, "others have its place; a connection is closed");
                return Poll::Ready(ToSwarm::CloseConnection {
                    peer_id,
                    connection: CloseConnection::One(id),
                });
            }
        }
        match self.observed.pop_front() {
            Some(addr) => Poll::Ready(ToSwarm::NewExternalAddrCandidate(addr)),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(s: &str) -> Multiaddr {
        s.parse().expect("a multiaddr")
    }

    #[test]
    fn only_what_is_ordered_is_dialed_and_punches_within_bounds() {
        let now = Instant::now();
        let gate = Rules::new(true, now);
        let mut rules = lock(&gate);
        let host = addr("/ip4/192.168.1.2/tcp/80");
        assert_eq!(rules.permit(&host, now), None);
        rules.order(&host, Duration::from_millis(300));
        rules.order(&host, Duration::ZERO);
        assert_eq!(rules.permit(&host, now), Some(Duration::ZERO));
        rules.done(&host);
        assert!(rules.permit(&host, now).is_some());
        rules.done(&host);
        assert_eq!(rules.permit(&host, now), None);
        for never in [
            "/ip4/127.0.0.1/tcp/5000",
            "/ip4/10.0.0.1/udp/5000/quic-v1",
            "/ip4/224.0.0.1/udp/5000/quic-v1",
            "/ip6/64:ff9b::a00:1/tcp/5000",
            "/ip4/198.51.100.7/tcp/443",
            "/ip4/198.51.100.7/udp/5000",
            "/ip4/198.51.100.7/tcp/5000/ws",
            "/dns4/victim.example/tcp/5000",
        ] {
            assert_eq!(rules.permit(&addr(never), now), None, "{never}");
        }
        let punch = addr("/ip4/198.51.100.7/udp/5000/quic-v1");
        let allowed = (0..1000).filter(|_| rules.permit(&punch, now).is_some()).count();
        assert_eq!(allowed, 64);
        assert!(rules.permit(&punch, now + Duration::from_secs(2)).is_some());
        assert!(rules.permit(&punch, now + Duration::from_secs(2)).is_some());
        assert!(rules.permit(&punch, now + Duration::from_secs(2)).is_none());
    }

    #[tokio::test]
    async fn who_says_nothing_makes_room_for_newcomers() {
        let keys = libp2p::identity::Keypair::generate_ed25519();
        let inner = libp2p::tcp::tokio::Transport::new(libp2p::tcp::Config::default())
            .upgrade(libp2p::core::upgrade::Version::V1Lazy)
            .authenticate(libp2p::noise::Config::new(&keys).expect("Noise"))
            .multiplex(libp2p::yamux::Config::default())
            .boxed();
        let mut gated = Gated::new(Rules::new(false, Instant::now()), 4, inner);
        gated.listen_on(ListenerId::next(), addr("/ip4/127.0.0.1/tcp/0")).expect("a port");
        let mut gated = Pin::new(&mut gated);
        let mut silent = Vec::new();
        let mut handshakes = FuturesUnordered::new();
        let mut at = None;
        while handshakes.len() < 9 {
            match futures_util::future::poll_fn(|cx| gated.as_mut().poll(cx)).await {
                TransportEvent::NewAddress { listen_addr, .. } => {
                    let (ip, port, _) = wire::socket_of(&listen_addr).expect("an address");
                    at = Some((ip, port));
                    for _ in 0..9 {
                        silent.push(tokio::net::TcpStream::connect((ip, port)).await.expect("a connection"));
                    }
                }
                TransportEvent::Incoming { upgrade, .. } => handshakes.push(upgrade),
                other => panic!("{other:?}"),
            }
        }
        assert!(at.is_some());
        // Nine came, and four have a place; which ones is chance.
        for _ in 0..5 {
            let end = handshakes.next().await.expect("one that makes room");
            assert_eq!(end.map(|_| ()).map_err(|e| e.kind()), Err(io::ErrorKind::TimedOut));
        }
        assert!(handshakes.next().now_or_never().is_none(), "the others stay");
    }

    #[test]
    fn a_relay_in_a_private_network_lets_its_peers_meet_there() {
        let now = Instant::now();
        let gate = Rules::new(true, now);
        let mut rules = lock(&gate);
        let peer = addr("/ip4/10.0.0.9/udp/5000/quic-v1");
        assert_eq!(rules.permit(&peer, now), None);
        let relay = addr("/ip4/10.0.0.1/tcp/80/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN");
        rules.relay(&relay, Duration::ZERO);
        assert_eq!(rules.permit(&relay, now), Some(Duration::ZERO));
        assert!(rules.permit(&peer, now).is_some());
        let off = Rules::new(false, now);
        lock(&off).relay(&relay, Duration::ZERO);
        assert_eq!(lock(&off).permit(&peer, now), None);
    }
}
