//! QUIC: one endpoint a listening address, for connections both ways (RFC 9000, quinn).

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use icet::Identity;
use quinn::crypto::rustls::{HandshakeData, NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use thiserror::Error;
use tokio::time::timeout;
use tracing::debug;

use super::slots::{Slot, SlotLimits, Slots};
use super::udp::Demux;
use super::{Inner, bind, reset, tls};

/// A connection sends something at least so often, so that NATs keep its way open.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A connection without any packet for so long is dead.
pub const IDLE: Duration = Duration::from_secs(30);
/// Most handshakes under way at once.
const HANDSHAKES: usize = 256;
/// With so many of them, strangers must prove their address first, which costs us no memory (RFC 9000, section 8.1.2).
const RETRY_FROM: usize = 32;
/// A handshake that had to make room leaves a connection that closes, for some seconds (RFC 9000, section 10.2): so many
/// a second, and no more than so many at once, bound their number. Initials beyond that are dropped, whoever they are from;
/// clients send theirs again.
const PUSHED_OUT: (u32, u32) = (128, 64);

/// Largest and smallest UDP payload of our packets (RFC 9000, section 14). Still larger ones cost no less, and each that is
/// lost is more.
const PAYLOAD: (u16, u16) = (16_000, 1200);
/// Largest one that we take: any.
const TAKEN: u16 = 65_507;
/// Where the system does not tell how much goes through: what Ethernet takes of IPv6.
const ETHERNET: u16 = 1452;

/// What one connection may take. Memory a connection can pin down is at most `window` for what it receives (`accepted_window`
/// if others opened it) and `window` for what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuicLimits {
    /// Streams (bidirectional) that the other end may have open at once.
    pub streams: u32,
    /// Bytes in flight towards us on one stream: the ceiling of its rate is this divided by the round-trip time.
    pub stream_window: u32,
    /// Bytes in flight towards us on all streams of a connection together, and from us.
    pub window: u32,
    /// The same towards us where others opened the connection, until whoever uses it raises it.
    pub accepted_window: u32,
    /// Bytes of unreliable datagrams (RFC 9221) that wait to be read; 0: none are accepted.
    pub datagrams: usize,
    /// Connections at once, over which new ones are refused.
    pub connections: usize,
    /// Largest UDP payload that we send. A connection keeps a buffer of that size, or of ten of them with `batches`.
    pub payload: u16,
    /// Whether several packets are handed to the system at once where it can (UDP GSO).
    pub batches: bool,
}

impl QuicLimits {
    /// For peers: 4 MiB a stream, which is 40 MB/s at a round-trip time of 100 ms; 16 MiB a connection. Others who open one
    /// have little to say before we ask them something.
    pub const PEER: QuicLimits = QuicLimits {
        streams: 128,
        stream_window: 4 << 20,
        window: 16 << 20,
        accepted_window: 256 << 10,
        datagrams: 1 << 20,
        connections: 1024,
        payload: PAYLOAD.0,
        batches: true,
    };
    /// For a tracker: one stream a session, and little more than one frame of the largest size; what it says is short.
    pub const TRACKER: QuicLimits = QuicLimits {
        streams: 1,
        stream_window: 5 << 18,
        window: 5 << 18,
        accepted_window: 5 << 18,
        datagrams: 0,
        connections: 65_536,
        payload: ETHERNET,
        batches: false,
    };

    /// For a connection with `remote`, which it opened if `accepted`.
    #[must_use]
    pub fn transport(&self, remote: SocketAddr, accepted: bool) -> TransportConfig {
        // Larger packets cost less each byte: on loopback half. Discovery finds out what really goes through.
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(
            bind::path_payload(remote).unwrap_or(ETHERNET).clamp(PAYLOAD.1, self.payload.max(PAYLOAD.1)),
        );
        let window = if accepted { self.accepted_window } else { self.window };
        let mut t = TransportConfig::default();
        t.max_concurrent_bidi_streams(VarInt::from_u32(self.streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u32(window))
            .mtu_discovery_config(Some(mtu))
            .send_window(u64::from(self.window))
            .enable_segmentation_offload(self.batches)
            .keep_alive_interval(Some(KEEP_ALIVE))
            .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
            .datagram_receive_buffer_size((self.datagrams > 0).then_some(self.datagrams));
        t
    }
}

pub(super) fn client_config(
    config: rustls::ClientConfig,
    limits: &QuicLimits,
    remote: SocketAddr,
) -> Result<quinn::ClientConfig, NoInitialCipherSuite> {
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?));
    config.transport_config(Arc::new(limits.transport(remote, false)));
    Ok(config)
}

/// For a QUIC endpoint of a peer. What is of each connection's own is set when it is accepted.
///
/// # Errors
/// [`NoInitialCipherSuite`] if there is no suite for first packets (RFC 9001, section 5.2).
pub fn server_config(config: rustls::ServerConfig) -> Result<quinn::ServerConfig, NoInitialCipherSuite> {
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(config)?));
    // Handshakes that wait to be taken up hold at most 1024 * 16 KiB.
    config.max_incoming(1024).incoming_buffer_size(16 << 10).incoming_buffer_size_total(16 << 20);
    Ok(config)
}

/// Our QUIC packets, and those of peers like us, always have the fixed bit (see `udp`). We take datagrams of any length.
pub(super) fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.grease_quic_bit(false);
    // It is within what RFC 9000, section 18.2 allows.
    let _ = config.max_udp_payload_size(TAKEN);
    config
}

/// QUIC on a socket of which the datagrams of others are sorted out.
fn on(
    socket: UdpSocket,
    server: Option<quinn::ServerConfig>,
    routes: Arc<super::udp::Routes>,
    identity: &Identity,
) -> std::io::Result<(quinn::Endpoint, Arc<Demux>)> {
    let mut config = endpoint_config();
    reset::configure(&mut config, identity, socket.local_addr()?.port());
    let runtime = Arc::new(quinn::TokioRuntime);
    let inner = quinn::Runtime::wrap_udp_socket(&*runtime, socket)?;
    let demux = Arc::new(Demux { inner, routes });
    let endpoint = quinn::Endpoint::new_with_abstract_socket(config, server, demux.clone(), runtime)?;
    Ok((endpoint, demux))
}

pub(super) fn endpoint(
    sockets: bind::Sockets,
    server: quinn::ServerConfig,
    routes: Arc<super::udp::Routes>,
    identity: &Identity,
) -> Result<(quinn::Endpoint, Arc<Demux>, std::net::TcpListener), bind::BindError> {
    let (endpoint, demux) = on(sockets.udp, Some(server), routes, identity)
        .map_err(|e| bind::BindError::new("UDP", sockets.addr, e))?;
    Ok((endpoint, demux, sockets.tcp))
}

/// Opens a UDP port for QUIC of a transport's own, whose handshake is not the peer's. An IPv6 address does not take IPv4. Needs a tokio runtime.
///
/// # Errors
/// [`BindError`](super::BindError).
pub fn open_quic(
    at: SocketAddr,
    identity: &Identity,
    server: Option<quinn::ServerConfig>,
) -> Result<quinn::Endpoint, bind::BindError> {
    let open = || on(bind::udp(at, false)?, server, super::udp::Routes::new(), identity);
    open().map(|(endpoint, _)| endpoint).map_err(|e| bind::BindError::new("UDP", at, e))
}

/// Places for handshakes of QUIC under way, and how often one may have to make room for another: who comes under a flood proves its address
/// first, or comes again.
#[derive(Debug)]
pub struct QuicHandshakes {
    slots: Slots,
    most: usize,
    pushes: DefaultDirectRateLimiter,
}

impl Default for QuicHandshakes {
    fn default() -> QuicHandshakes {
        let [rate, burst] =
            [PUSHED_OUT.0, PUSHED_OUT.1].map(|n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN));
        QuicHandshakes {
            slots: Slots::new(SlotLimits { all: HANDSHAKES, each: usize::MAX }),
            most: HANDSHAKES,
            pushes: RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)),
        }
    }
}

impl QuicHandshakes {
    /// None: too many came at once.
    fn enter(&self, ip: IpAddr) -> Option<Slot> {
        (self.slots.len() < self.most || self.pushes.check().is_ok()).then(|| self.slots.enter(ip))?
    }

    /// The next who may begin; none once the endpoint is closed. Beyond `connections` that are open newcomers are refused. Cancel safe.
    pub async fn next(&self, endpoint: &quinn::Endpoint, connections: usize) -> Option<Newcomer> {
        while let Some(incoming) = endpoint.accept().await {
            if endpoint.open_connections() >= connections {
                incoming.refuse();
                continue;
            }
            let unproved = !incoming.remote_address_validated() && incoming.may_retry();
            if unproved && self.slots.len() >= RETRY_FROM {
                let _ = incoming.retry();
                continue;
            }
            match self.enter(incoming.remote_address().ip()) {
                Some(slot) => return Some(Newcomer { incoming, slot }),
                // A refusal would be final; who means it tries again.
                None => incoming.ignore(),
            }
        }
        None
    }
}

/// Who may begin a handshake of QUIC.
#[derive(Debug)]
pub struct Newcomer {
    incoming: quinn::Incoming,
    slot: Slot,
}

/// Why a handshake of QUIC came to nothing.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// It failed.
    #[error(transparent)]
    Failed(#[from] quinn::ConnectionError),
    /// It lasted too long.
    #[error("the handshake is too slow")]
    TooSlow,
    /// There are too many, and it was one of those that had to go.
    #[error("a newer handshake has its place")]
    MadeRoom,
}

impl Newcomer {
    /// Where it comes from.
    #[must_use]
    pub fn from(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// The connection, and its place among the handshakes, to be dropped when whoever it is for has it.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn accept(
        self,
        config: Arc<quinn::ServerConfig>,
        patience: Duration,
    ) -> Result<(quinn::Connection, Slot), HandshakeError> {
        let Newcomer { incoming, slot } = self;
        let accepted = async { incoming.accept_with(config)?.await };
        let connection = slot.hold(timeout(patience, accepted)).await.ok_or(HandshakeError::MadeRoom)?;
        Ok((connection.map_err(|_| HandshakeError::TooSlow)??, slot))
    }
}

/// Takes connections until the endpoint closes, and hands each to whoever registered its ALPN.
pub(super) async fn accept(inner: Arc<Inner>, endpoint: quinn::Endpoint) {
    while let Some(newcomer) = inner.quic_handshakes.next(&endpoint, inner.limits.connections).await {
        let inner = inner.clone();
        inner.clone().spawn(async move {
            let from = newcomer.from();
            let mut config =
                inner.quic_server.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            config.transport_config(Arc::new(inner.limits.transport(from, true)));
            let handshake = async {
                let (connection, slot) = newcomer.accept(Arc::new(config), inner.patience.handshake).await?;
                slot.hold(hand_over(&inner, connection)).await.ok_or(HandshakeError::MadeRoom)
            };
            if let Err(e) = handshake.await {
                debug!(%from, error = %e, "no QUIC connection");
            }
        });
    }
}

async fn hand_over(inner: &Inner, connection: quinn::Connection) {
    let data = connection.handshake_data().and_then(|d| d.downcast::<HandshakeData>().ok());
    let alpn = data.and_then(|d| d.protocol).unwrap_or_default();
    let key = match tls::key_of_quic(&connection) {
        Ok(key) => key,
        Err(e) => return connection.close(VarInt::from_u32(1), e.to_string().as_bytes()),
    };
    if alpn == icet::ALPN_DIAL_BACK {
        // The handshake was the answer; who asked closes.
        if timeout(inner.patience.first_bytes, connection.closed()).await.is_err() {
            connection.close(VarInt::from_u32(0), b"proved");
        }
        return;
    }
    let taker = inner.quic.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&alpn[..]).cloned();
    match taker.map(|t| t.try_send((connection.clone(), key))) {
        Some(Ok(())) => {}
        Some(Err(_)) => connection.close(VarInt::from_u32(2), b"busy"),
        None => connection.close(VarInt::from_u32(1), b"no such protocol"),
    }
}
