//! The libp2p node of a peer: one task that owns the swarm, opens streams to hosts and keeps reservations at relays.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU8;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use iceshare::net::{Context, QuicLimits, SlotLimits};
use iceshare::protocol::{ErrorKind, HostAddr, NetKind, TransportError};
use libp2p::core::transport::ListenerId;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    self, ConnectionId, DialError, NetworkBehaviour, Stream, Swarm, SwarmEvent, behaviour::toggle::Toggle,
};
use libp2p::{Multiaddr, PeerId, connection_limits, dcutr, identify, ping, relay};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::gate::{self, Gate, Places, Rules};
use crate::quic::Quic;
use crate::streams::{self, Held, Reply, Way};
use crate::transport;
use crate::wire::{self, Endpoint};

mod relays;
#[cfg(test)]
mod tests;

use relays::Relays;

/// Orders to the driver that wait.
const ORDERS: usize = 256;
/// Streams of others that wait to be looked at.
const INBOUND: usize = 128;
/// Connections of QUIC beside those that have a place: handshakes, and what closes.
const LINGERING: usize = 1024;
/// Connections that one peer may have to us.
const PER_PEER: u32 = 8;
/// What libp2p itself counts as handshakes under way, some of which have ended already: those that go on are bounded by [`gate::Gated`].
const PENDING: u32 = 1024;
/// How long QUIC and relays wait while TCP is tried, which costs less.
const QUIC_DELAY: Duration = Duration::from_millis(300);
const RELAY_DELAY: Duration = Duration::from_millis(1000);
/// How long the ports of libp2p's own are waited for.
const LISTEN_TIME: Duration = Duration::from_secs(3);
#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    gate: gate::Behaviour,
    streams: streams::Behaviour,
    relay: relay::client::Behaviour,
    dcutr: Toggle<dcutr::Behaviour>,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// Runs libp2p's tasks as the peer's.
struct Tasks(Context);

impl swarm::Executor for Tasks {
    fn exec(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(task);
    }
}

/// A stream to a host.
struct Wish {
    host: PeerId,
    /// Where it is dialed, and after what delay.
    direct: Vec<(Multiaddr, Duration)>,
    relays: Vec<PeerId>,
    reply: Reply,
}

/// What the driver is asked for.
enum Order {
    Open(Wish),
    /// The addresses of a relay by its place in the list.
    Resolved(usize, Vec<Multiaddr>),
    /// The best way to a peer that is open.
    #[cfg(test)]
    Way(PeerId, oneshot::Sender<Option<Way>>),
}

/// A peer's libp2p node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    orders: mpsc::Sender<Order>,
}

/// A node that has begun, and what it is for.
pub(crate) struct Started {
    pub(crate) node: Node,
    /// What it announces.
    pub(crate) endpoint: String,
    /// Streams that others open.
    pub(crate) inbound: mpsc::Receiver<streams::Asked>,
    /// To be cancelled when the last answer has ended: the node ends then.
    pub(crate) over: CancellationToken,
}

fn local(what: impl Into<String>) -> TransportError {
    TransportError::new(ErrorKind::Local, what)
}

impl Node {
    /// Begins, with the sockets that the settings want. Each connection may hold so many bytes.
    pub(crate) async fn start(
        cx: &Context,
        config: &Config,
        in_hand: u64,
    ) -> Result<Started, TransportError> {
        let keys = Keypair::ed25519_from_bytes(cx.identity().seed())
            .map_err(|e| local("the key is none for libp2p").because(e))?;
        let me = keys.public().to_peer_id();
        let gate = Rules::new(config.punch, Instant::now());
        let (relayed, relay) = relay::client::new(me);
        let common = transport::Common::new(cx.accept_tcp(transport::is_libp2p));
        let connections = config.connections as usize + LINGERING;
        let limits = QuicLimits { connections, ..QuicLimits::PEER };
        let quic = Quic::new(cx.identity(), &keys, limits, (config.connect_timeout, in_hand))
            .map_err(|e| local("QUIC cannot be set up").because(e))?;
        let stack =
            transport::build(&keys, common, relayed, quic, gate.clone(), (config.connect_timeout, in_hand))
                .map_err(|e| local("Noise cannot be set up").because(e))?;
        let (to_inbound, inbound) = mpsc::channel(INBOUND);
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING))
            .with_max_established_per_peer(Some(PER_PEER));
        let identify = identify::Config::new(wire::FAMILY.to_owned(), keys.public())
            .with_agent_version(wire::AGENT.to_owned())
            // What others say of third parties is not dialed, and our interfaces are nobody's business.
            .with_cache_size(0)
            .with_hide_listen_addrs(true);
        let punch = config.punch && !config.relays.is_empty();
        let places_for = SlotLimits { all: config.connections as usize, each: config.per_ip };
        let places = Places::default();
        let behaviour = Behaviour {
            limits: connection_limits::Behaviour::new(limits),
            gate: gate::Behaviour::new(places_for, places.clone()),
            streams: streams::Behaviour::new(to_inbound, places),
            relay,
            dcutr: punch.then(|| dcutr::Behaviour::new(me)).into(),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::default(),
        };
        let settings =
            swarm::Config::with_executor(Tasks(cx.clone())).with_idle_connection_timeout(config.idle_timeout);
        let mut swarm = Swarm::new(stack, behaviour, me, settings);
        let open = listen(&mut swarm, cx, config)?;
        let (quic4, quic6) = timeout(LISTEN_TIME, ports(&mut swarm, &open)).await.unwrap_or_default();
        if config.quic_port.is_some() && quic4.is_none() && quic6.is_none() {
            tracing::warn!("libp2p has no port for QUIC; it goes on over TCP alone");
        }
        let endpoint = Endpoint { quic4, quic6, relays: config.relays.iter().map(|r| r.peer).collect() };
        let (orders, from_node) = mpsc::channel(ORDERS);
        let node = Node { orders };
        let over = CancellationToken::new();
        let relays = Relays::new(&config.relays, gate.clone(), Instant::now());
        let driver = Driver {
            swarm,
            gate,
            relays,
            dials: HashMap::new(),
            parked: Vec::new(),
            cx: cx.clone(),
            to_self: node.orders.downgrade(),
        };
        cx.spawn(driver.run(from_node, over.clone()));
        tracing::debug!(peer = %me, "libp2p node started");
        Ok(Started { node, endpoint: endpoint.to_text(&me), inbound, over })
    }

    /// Whether its task still runs.
    pub(crate) fn is_open(&self) -> bool {
        !self.orders.is_closed()
    }

    /// Opens a stream to a host, over a connection that is there or a new one.
    ///
    /// # Errors
    /// As [`iceshare::protocol::PayloadProtocol::fetch`] gives them.
    pub(crate) async fn open(&self, host: &HostAddr) -> Result<(Stream, Held), TransportError> {
        let peer = wire::peer_id(&host.key)
            .ok_or_else(|| TransportError::new(ErrorKind::Unreachable, "the host's key is no ed25519 key"))?;
        let endpoint = Endpoint::parse(&host.endpoint, &peer);
        let direct = direct(host, &endpoint);
        let gone = || local("the libp2p node has ended");
        // A connection may end at the moment that it is chosen: then once more.
        for _ in 0..2 {
            let (reply, answer) = oneshot::channel();
            let wish = Wish { host: peer, direct: direct.clone(), relays: endpoint.relays.clone(), reply };
            self.orders.send(Order::Open(wish)).await.map_err(|_| gone())?;
            match answer.await {
                Ok(Err(e)) if e.kind == ErrorKind::Broken => {}
                Ok(result) => return result,
                Err(_) if !self.is_open() => return Err(gone()),
                Err(_) => {}
            }
        }
        Err(TransportError::new(ErrorKind::Broken, "the connection to the host broke"))
    }
}

/// Where a host is dialed, and after what delay: its proved TCP addresses; libp2p's own QUIC at their IP addresses.
fn direct(host: &HostAddr, endpoint: &Endpoint) -> Vec<(Multiaddr, Duration)> {
    let mut all = Vec::new();
    let proved = || host.addrs.iter().filter(|a| a.kind == NetKind::Tcp).map(|a| a.at);
    for at in proved() {
        all.push((Multiaddr::from(at.ip()).with(Protocol::Tcp(at.port())), Duration::ZERO));
    }
    for ip in proved().map(|at| at.ip()) {
        if let Some(port) = if ip.is_ipv4() { endpoint.quic4 } else { endpoint.quic6 } {
            let addr = Multiaddr::from(ip).with(Protocol::Udp(port)).with(Protocol::QuicV1);
            if all.iter().all(|(a, _)| *a != addr) {
                all.push((addr, QUIC_DELAY));
            }
        }
    }
    all
}

/// Opens the sockets: the common TCP port always; beside it QUIC, and TCP for punches if there are relays.
fn listen(
    swarm: &mut Swarm<Behaviour>,
    cx: &Context,
    config: &Config,
) -> Result<Vec<ListenerId>, TransportError> {
    swarm
        .listen_on(transport::common())
        .map_err(|e| local("the common TCP port cannot be used").because(e))?;
    let mut ips: Vec<IpAddr> = cx.local_addrs().iter().map(|a| a.at.ip()).collect();
    ips.sort_unstable();
    ips.dedup();
    if let [IpAddr::V6(ip)] = &ips[..]
        && ip.is_unspecified()
    {
        // That one takes IPv4 too, which libp2p's sockets don't.
        ips.push(Ipv4Addr::UNSPECIFIED.into());
    }
    if let Some(port) = config.quic_port.filter(|port| cx.local_addrs().iter().any(|a| a.at.port() == *port))
    {
        let what = format!(
            "libp2p.quic-port={port} is this peer's own port (--listen): name another, or 0 for any free one"
        );
        return Err(local(what));
    }
    let mut open = Vec::new();
    for ip in ips {
        if let Some(port) = config.quic_port {
            let addr = Multiaddr::from(ip).with(Protocol::Udp(port)).with(Protocol::QuicV1);
            match swarm.listen_on(addr) {
                Ok(id) => open.push(id),
                Err(e) if port == 0 => tracing::warn!(%ip, error = %e, "no UDP port for libp2p"),
                Err(e) => {
                    let what = format!("libp2p.quic-port={port} cannot be had (0 is any free one, off none)");
                    return Err(local(what).because(e));
                }
            }
        }
        if config.punch && !config.relays.is_empty() {
            // Of this port nobody is told; it is what a NAT is made to open.
            if let Err(e) = swarm.listen_on(Multiaddr::from(ip).with(Protocol::Tcp(0))) {
                tracing::warn!(%ip, error = %e, "no TCP port for hole punching");
            }
        }
    }
    Ok(open)
}

/// Waits until the QUIC listeners say which ports they got: over IPv4, and over IPv6.
async fn ports(swarm: &mut Swarm<Behaviour>, open: &[ListenerId]) -> (Option<u16>, Option<u16>) {
    let mut waiting = open.to_vec();
    let (mut quic4, mut quic6) = (None, None);
    while !waiting.is_empty() {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { listener_id, address } if waiting.contains(&listener_id) => {
                waiting.retain(|id| *id != listener_id);
                match wire::socket_of(&address) {
                    Some((IpAddr::V4(_), port, _)) => quic4 = Some(port),
                    Some((IpAddr::V6(_), port, _)) => quic6 = Some(port),
                    None => {}
                }
            }
            SwarmEvent::ListenerClosed { listener_id, .. } => waiting.retain(|id| *id != listener_id),
            _ => {}
        }
    }
    (quic4, quic6)
}

/// A host that is being dialed.
struct Dial {
    connection: ConnectionId,
    /// What the gate lets through for it.
    addrs: Vec<Multiaddr>,
    /// Its relays.
    relays: Vec<PeerId>,
    waiting: Vec<Reply>,
}

struct Driver {
    swarm: Swarm<Behaviour>,
    gate: Gate,
    relays: Relays,
    dials: HashMap<PeerId, Dial>,
    /// Wait until a relay is reached.
    parked: Vec<Wish>,
    cx: Context,
    to_self: mpsc::WeakSender<Order>,
}

impl Driver {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>, over: CancellationToken) {
        let mut closing = false;
        loop {
            for (index, names) in self.relays.take_due(Instant::now()) {
                self.resolve(index, names);
            }
            self.relays.dial(&mut self.swarm, Instant::now());
            let next = self.relays.next_try();
            let wake = async {
                match next {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                order = orders.recv() => match order {
                    Some(order) => self.on_order(order),
                    None => return,
                },
                () = wake => {}
                () = over.cancelled() => return,
                () = self.cx.closed().cancelled(), if !closing => {
                    closing = true;
                    self.relays.close(&mut self.swarm);
                }
            }
        }
    }

    fn resolve(&self, index: usize, names: Vec<Multiaddr>) {
        let Some(orders) = self.to_self.upgrade() else { return };
        self.cx.spawn(async move {
            let addrs = relays::resolve(&names).await;
            drop(orders.send(Order::Resolved(index, addrs)).await);
        });
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Open(wish) => self.open(wish),
            Order::Resolved(index, addrs) => {
                self.relays.resolved(index, addrs, Instant::now());
                self.unpark();
            }
            #[cfg(test)]
            Order::Way(peer, reply) => drop(reply.send(self.swarm.behaviour().streams.way(&peer))),
        }
    }

    fn open(&mut self, wish: Wish) {
        let host = wish.host;
        if let Some(dial) = self.dials.get_mut(&host) {
            dial.waiting.push(wish.reply);
            return;
        }
        let streams = &mut self.swarm.behaviour_mut().streams;
        let way = streams.way(&host);
        if way.is_some_and(|w| w != Way::Relayed || wish.direct.is_empty()) {
            return streams.open(host, wish.reply);
        }
        let mut addrs = wish.direct.clone();
        if way.is_none() {
            let delay = if addrs.is_empty() { Duration::ZERO } else { RELAY_DELAY };
            addrs.extend(self.relays.circuits(&wish.relays).map(|a| (a, delay)));
        }
        if addrs.is_empty() {
            if self.relays.pending(&wish.relays) && self.parked.len() < ORDERS {
                self.parked.push(wish);
                return;
            }
            let why = if wish.relays.is_empty() {
                "the host has no address here".to_owned()
            } else if wish.relays.iter().any(|r| self.relays.is_one(r)) {
                let why = self.relays.trouble(&wish.relays).unwrap_or_default();
                format!("the host is behind relays that cannot be reached: {why}")
            } else {
                "the host is behind relays that are not set here (libp2p.relay)".to_owned()
            };
            let _ = wish.reply.send(Err(TransportError::new(ErrorKind::Unreachable, why)));
            return;
        }
        let opts = DialOpts::peer_id(host)
            .condition(PeerCondition::Always)
            .addresses(addrs.iter().map(|(a, _)| a.clone()).collect())
            .override_dial_concurrency_factor(NonZeroU8::MAX)
            .build();
        let connection = opts.connection_id();
        let mut rules = gate::lock(&self.gate);
        for (addr, delay) in &addrs {
            rules.order(addr, *delay);
        }
        drop(rules);
        let addrs = addrs.into_iter().map(|(a, _)| a).collect();
        let dialed = self.swarm.dial(opts);
        self.dials.insert(host, Dial { connection, addrs, relays: wish.relays, waiting: vec![wish.reply] });
        if let Err(e) = dialed {
            self.failed(host, connection, &e);
        }
    }

    /// Something changed with a relay: those who wait for it are looked at again.
    fn unpark(&mut self) {
        for wish in std::mem::take(&mut self.parked) {
            if !wish.reply.is_closed() {
                self.open(wish);
            }
        }
    }

    /// The end of a dial that we ordered.
    fn undial(&mut self, host: &PeerId) -> Vec<Reply> {
        let Some(dial) = self.dials.remove(host) else { return Vec::new() };
        let mut rules = gate::lock(&self.gate);
        dial.addrs.iter().for_each(|a| rules.done(a));
        dial.waiting
    }

    fn failed(&mut self, host: PeerId, connection: ConnectionId, error: &DialError) {
        if self.dials.get(&host).is_none_or(|d| d.connection != connection) {
            return;
        }
        let trouble = self.dials.get(&host).and_then(|d| self.relays.trouble(&d.relays));
        let waiting = self.undial(&host);
        let streams = &mut self.swarm.behaviour_mut().streams;
        for reply in waiting {
            if streams.way(&host).is_some() {
                streams.open(host, reply);
            } else {
                let mut why = why(error);
                trouble.iter().for_each(|t| why.context = format!("{}; {t}", why.context));
                let _ = reply.send(Err(why));
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                tracing::debug!(peer = %peer_id, at = %endpoint.get_remote_address(), "connected");
                // Another connection than the dialed one will do, unless it is a relayed one that should be replaced.
                let ours = self.dials.get(&peer_id).is_some_and(|d| d.connection == connection_id);
                if ours || !endpoint.is_relayed() {
                    for reply in self.undial(&peer_id) {
                        self.swarm.behaviour_mut().streams.open(peer_id, reply);
                    }
                }
                let at = endpoint.get_remote_address();
                if endpoint.is_dialer()
                    && !endpoint.is_relayed()
                    && self.relays.connected(&peer_id, at, &mut self.swarm, Instant::now())
                {
                    self.unpark();
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), connection_id, error } => {
                tracing::debug!(%peer, %error, "a dial failed");
                if self.relays.undialed(connection_id, &error, Instant::now()) {
                    self.unpark();
                }
                self.failed(peer, connection_id, &error);
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                self.relays.lost(listener_id, reason, Instant::now());
            }
            SwarmEvent::Behaviour(BehaviourEvent::Relay(relay::client::Event::ReservationReqAccepted {
                relay_peer_id,
                renewal,
                ..
            })) => {
                if !renewal {
                    tracing::info!(relay = %relay_peer_id, "reachable through a relay");
                }
                self.relays.reserved(&relay_peer_id, Instant::now());
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) if self.relays.is_one(&peer_id) => {
                self.swarm.behaviour_mut().gate.observed(info.observed_addr);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Dcutr(event)) => match event.result {
                Ok(_) => {
                    tracing::debug!(peer = %event.remote_peer_id, "a direct connection replaces a relayed one")
                }
                Err(e) => tracing::debug!(peer = %event.remote_peer_id, error = %e, "no way but the relay"),
            },
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(e) }))
                if !matches!(e, ping::Failure::Unsupported) =>
            {
                tracing::debug!(%peer, error = %e, "the peer does not answer; its connection is closed");
                self.swarm.close_connection(connection);
            }
            _ => {}
        }
    }
}

/// What a failed dial means.
fn why(error: &DialError) -> TransportError {
    let text = wire::dial_error(error);
    match error {
        DialError::WrongPeerId { .. } | DialError::LocalPeerId { .. } => {
            TransportError::new(ErrorKind::WrongKey, text)
        }
        DialError::Denied { .. } | DialError::DialPeerConditionFalse(_) | DialError::Aborted => local(text),
        DialError::Transport(_) | DialError::NoAddresses => {
            TransportError::new(ErrorKind::Unreachable, format!("no connection to the host: {text}"))
        }
    }
}
