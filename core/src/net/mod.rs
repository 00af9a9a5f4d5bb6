//! A peer's (or tracker's) sockets: one UDP and one TCP port of the same number, shared by IceT and all payload
//! protocols.
//!
//! - QUIC (both ways) and raw datagrams share the UDP port: [`Context::connect_quic`], [`Context::accept_quic`],
//!   [`Context::datagrams`].
//! - TLS and plain connections share the TCP port: [`Context::connect_tls`], [`Context::accept_tls`],
//!   [`Context::accept_tcp`].
//! - [`tls`]: both ends prove their key in every QUIC and TLS handshake.
//! - [`session`]: IceT sessions, of a peer ([`session::connect`]) and of a tracker ([`session::Listener`]).
//!
//! A peer answers `iceshare-dial/1` ([`icet::ALPN_DIAL_BACK`]) on both ports by itself: the handshake proves its key.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use icet::{Identity, NetAddr, NetKind, PeerKey, ProtocolName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

mod bind;
mod context;
mod dial;
mod path;
mod quic;
mod reset;
pub mod session;
mod slots;
mod tcp;
#[cfg(test)]
mod tests;
pub mod tls;
mod udp;

pub use bind::{BindError, raise_open_files};
pub use context::Context;
pub use dial::DialError;
pub use path::{TCP_TRIP, hold_little, pipe};
pub use quic::{
    HandshakeError, IDLE, KEEP_ALIVE, Newcomer, QuicHandshakes, QuicLimits, open_quic,
    server_config as quic_server_config,
};
pub use slots::{Place, Served, Serving, Slot, SlotLimits, Slots, Standing};
pub use udp::{DatagramSender, DatagramTap, Datagrams};

/// Connections that wait for whoever registered their protocol.
const WAITING: usize = 128;
/// How long a shutdown waits for tasks that should end by themselves.
const GRACE: Duration = Duration::from_secs(2);

/// Where a peer listens and who it is.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// Addresses; port 0 means any free one. `[::]` takes IPv4 too unless an IPv4 address is listed.
    pub listen: Vec<SocketAddr>,
    /// The key that it proves.
    pub identity: Identity,
    /// What a QUIC connection may take.
    pub limits: QuicLimits,
    /// How long others may take.
    pub patience: Patience,
}

/// How long the other ends of connections that we accept may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// To say over TCP what they are.
    pub first_bytes: Duration,
    /// For the handshake of TLS or QUIC.
    pub handshake: Duration,
    /// At a tracker: for their first message after the handshake.
    pub hello: Duration,
}

impl Default for Patience {
    /// 5, 10 and 10 seconds.
    fn default() -> Patience {
        Patience {
            first_bytes: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            hello: Duration::from_secs(10),
        }
    }
}

impl NetConfig {
    /// For a peer, with the usual limits.
    #[must_use]
    pub fn new(listen: Vec<SocketAddr>, identity: Identity) -> NetConfig {
        NetConfig { listen, identity, limits: QuicLimits::PEER, patience: Patience::default() }
    }
}

type Taker<T> = mpsc::Sender<T>;
type Takers<T> = Mutex<HashMap<&'static [u8], Taker<T>>>;

#[derive(Debug)]
struct Matcher {
    matches: fn(&[u8]) -> bool,
    taker: Taker<(TcpStream, SocketAddr)>,
}

/// The two ports of one listening address.
#[derive(Debug)]
struct Port {
    addr: SocketAddr,
    endpoint: quinn::Endpoint,
    udp: Arc<udp::Demux>,
}

/// What [`Net`] and every [`Context`] share.
#[derive(Debug)]
pub(crate) struct Inner {
    identity: Identity,
    credentials: tls::Credentials,
    limits: QuicLimits,
    patience: Patience,
    ports: Vec<Port>,
    routes: Arc<udp::Routes>,
    quic: Takers<(quinn::Connection, PeerKey)>,
    quic_server: Mutex<quinn::ServerConfig>,
    tls: RwLock<Arc<rustls::ServerConfig>>,
    tls_takers: Takers<(TlsStream<TcpStream>, PeerKey)>,
    matchers: RwLock<Vec<Matcher>>,
    newcomers: tcp::Newcomers,
    quic_handshakes: quic::QuicHandshakes,
    closed: CancellationToken,
    /// Cancelled when tasks had their time to end.
    over: CancellationToken,
    tasks: TaskTracker,
    /// Tasks of transports: the only ones that a shutdown gives time.
    protocols: TaskTracker,
}

impl Inner {
    fn spawn(&self, f: impl Future<Output = ()> + Send + 'static) {
        let over = self.over.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = f => {}
            }
        });
    }

    /// The port from which `to` can be dialled.
    fn port_for(&self, to: SocketAddr) -> Option<&Port> {
        let fits = |p: &&Port| {
            p.addr.is_ipv6() == to.is_ipv6() && p.addr.ip().is_loopback() == to.ip().is_loopback()
        };
        let family = |p: &&Port| p.addr.is_ipv6() == to.is_ipv6();
        // An IPv6 socket may take IPv4 too; quinn translates.
        let mut ports = self.ports.iter();
        ports
            .clone()
            .find(fits)
            .or_else(|| ports.clone().find(family))
            .or_else(|| ports.find(|p| p.addr.is_ipv6()))
    }

    fn register<T>(&self, takers: &Takers<T>, alpn: &'static [u8], what: &str) -> mpsc::Receiver<T> {
        let (taker, receiver) = mpsc::channel(WAITING);
        let mut takers = takers.lock().unwrap_or_else(PoisonError::into_inner);
        if takers.get(alpn).is_some_and(|t| !t.is_closed()) {
            warn!(alpn = %String::from_utf8_lossy(alpn), "{what} protocol registered twice; the second gets nothing");
            return receiver;
        }
        takers.insert(alpn, taker);
        receiver
    }

    fn alpns<T>(takers: &Takers<T>) -> Vec<Vec<u8>> {
        let takers = takers.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(icet::ALPN_DIAL_BACK).chain(takers.keys().copied()).map(<[u8]>::to_vec).collect()
    }

    /// Nothing is handed over any more: the receivers of what was accepted end.
    fn hush(&self) {
        self.quic.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.tls_takers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.matchers.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn accept_quic(&self, alpn: &'static [u8]) -> mpsc::Receiver<(quinn::Connection, PeerKey)> {
        let receiver = self.register(&self.quic, alpn, "QUIC");
        match self.credentials.server(&Inner::alpns(&self.quic)).map(quic::server_config) {
            Ok(Ok(fresh)) => {
                let mut config = self.quic_server.lock().unwrap_or_else(PoisonError::into_inner);
                config.crypto = fresh.crypto;
                for port in &self.ports {
                    port.endpoint.set_server_config(Some(config.clone()));
                }
            }
            Ok(Err(e)) => warn!(error = %e, "cannot configure QUIC"),
            Err(e) => warn!(error = %e, "cannot configure QUIC"),
        }
        receiver
    }

    fn accept_tls(&self, alpn: &'static [u8]) -> mpsc::Receiver<(TlsStream<TcpStream>, PeerKey)> {
        let receiver = self.register(&self.tls_takers, alpn, "TLS");
        match self.credentials.server(&Inner::alpns(&self.tls_takers)) {
            Ok(fresh) => *self.tls.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh),
            Err(e) => warn!(error = %e, "cannot configure TLS"),
        }
        receiver
    }
}

/// A peer's ports. Dropping it closes them; [`Net::shutdown`] does so in good order.
#[derive(Debug)]
pub struct Net {
    inner: Arc<Inner>,
}

impl Net {
    /// Opens the ports. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`], which says which address and what to do.
    pub async fn bind(config: NetConfig) -> Result<Net, BindError> {
        if config.listen.is_empty() {
            return Err(BindError::NoAddress);
        }
        let credentials = tls::Credentials::new(&config.identity)?;
        let alpns = [icet::ALPN_DIAL_BACK.to_vec()];
        let server = quic::server_config(credentials.server(&alpns)?)
            .map_err(|e| tls::TlsError::Config(rustls::Error::General(e.to_string())))?;
        let tls = Arc::new(credentials.server(&alpns)?);
        let routes = udp::Routes::new();
        let dual = !config.listen.iter().any(SocketAddr::is_ipv4);
        let (mut ports, mut listeners) = (Vec::new(), Vec::new());
        for addr in config.listen {
            let sockets = bind::open(addr, dual)?;
            let addr = sockets.addr;
            let (endpoint, udp, tcp) =
                quic::endpoint(sockets, server.clone(), routes.clone(), &config.identity)?;
            let tcp = tokio::net::TcpListener::from_std(tcp).map_err(|e| BindError::new("TCP", addr, e))?;
            ports.push(Port { addr, endpoint, udp });
            listeners.push(tcp);
        }
        let inner = Arc::new(Inner {
            identity: config.identity,
            credentials,
            limits: config.limits,
            patience: config.patience,
            ports,
            routes,
            quic: Mutex::default(),
            quic_server: Mutex::new(server),
            tls: RwLock::new(tls),
            tls_takers: Mutex::default(),
            matchers: RwLock::default(),
            newcomers: tcp::Newcomers::new(),
            quic_handshakes: quic::QuicHandshakes::default(),
            closed: CancellationToken::new(),
            over: CancellationToken::new(),
            tasks: TaskTracker::new(),
            protocols: TaskTracker::new(),
        });
        for (i, tcp) in listeners.into_iter().enumerate() {
            inner.spawn(tcp::accept(inner.clone(), tcp));
            if let Some(port) = inner.ports.get(i) {
                inner.spawn(quic::accept(inner.clone(), port.endpoint.clone()));
            }
        }
        Ok(Net { inner })
    }

    /// Who we are.
    #[must_use]
    pub fn key(&self) -> PeerKey {
        self.inner.identity.key()
    }

    /// Where we listen: UDP and TCP for each listening address, with the port that was taken. An unspecified
    /// address stays as it is (in a hello it means "the one you see me come from").
    #[must_use]
    pub fn local_addrs(&self) -> Vec<NetAddr> {
        let both = |at: SocketAddr| [NetKind::Udp, NetKind::Tcp].map(|kind| NetAddr { kind, at });
        self.inner.ports.iter().flat_map(|p| both(p.addr)).collect()
    }

    /// What a hello to the tracker at `tracker` should say of where we listen: [`Net::local_addrs`], and beside an
    /// unspecified address those from which we reach the tracker (on a LAN behind one router it differs from the
    /// one that the tracker sees), and the world over the other IP version, which the tracker does not see.
    #[must_use]
    pub fn reach(&self, tracker: IpAddr) -> Vec<NetAddr> {
        /// Addresses of nobody (RFC 5737, RFC 3849): nothing is sent there.
        const NOBODY: [IpAddr; 2] = [
            IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        ];
        let mut out = self.local_addrs();
        let tracker = tracker.to_canonical();
        let other = NOBODY.into_iter().find(|ip| ip.is_ipv6() != tracker.is_ipv6());
        let sources = [Some(tracker), other].into_iter().flatten();
        let sources: Vec<IpAddr> =
            sources.filter_map(|ip| bind::source_ip(SocketAddr::new(ip, icet::DEFAULT_PORT))).collect();
        // Who listens on IPv6 alone takes IPv4 there too.
        let dual = self.inner.ports.iter().all(|p| p.addr.is_ipv6());
        for p in self.inner.ports.iter().filter(|p| p.addr.ip().is_unspecified()) {
            let taken = |ip: &&IpAddr| ip.is_ipv6() == p.addr.is_ipv6() || (dual && ip.is_ipv4());
            for ip in sources.iter().filter(taken) {
                let at = SocketAddr::new(*ip, p.addr.port());
                out.extend([NetKind::Udp, NetKind::Tcp].map(|kind| NetAddr { kind, at }));
            }
        }
        out.dedup();
        out.truncate(icet::limits::REACH);
        out
    }

    /// What a transport of this name gets.
    #[must_use]
    pub fn context(&self, protocol: ProtocolName) -> Context {
        Context::new(self.inner.clone(), protocol)
    }

    /// Closes: tells tasks to end, closes connections, and waits for both at most about 2 seconds each.
    pub async fn shutdown(&self) {
        self.inner.closed.cancel();
        self.inner.hush();
        self.inner.tasks.close();
        self.inner.protocols.close();
        let _ = tokio::time::timeout(GRACE, self.inner.protocols.wait()).await;
        for port in &self.inner.ports {
            port.endpoint.close(quinn::VarInt::from_u32(0), b"leaving");
        }
        for port in &self.inner.ports {
            let _ = tokio::time::timeout(GRACE, port.endpoint.wait_idle()).await;
        }
        self.inner.over.cancel();
        self.inner.tasks.wait().await;
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.inner.closed.cancel();
        self.inner.hush();
        self.inner.over.cancel();
        for port in &self.inner.ports {
            port.endpoint.close(quinn::VarInt::from_u32(0), b"leaving");
        }
    }
}
