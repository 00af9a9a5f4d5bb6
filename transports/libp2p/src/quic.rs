//! QUIC of libp2p (libp2p specs, `quic` and `tls`), on ports of its own. In place of libp2p's own transport, which keeps something of each first
//! packet that anybody sends: here strangers meet what they meet at the peer's common port ([`QuicHandshakes`]).

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, Ready, ready as at_once};
use futures_util::stream::{SelectAll, Stream};
use iceshare::icet::Identity;
use iceshare::net::{
    BindError, HandshakeError, Newcomer, QuicHandshakes, QuicLimits, open_quic, quic_server_config,
};
use if_watch::IfEvent;
use if_watch::tokio::IfWatcher;
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, tls};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig};
use quinn::rustls::pki_types::CertificateDer;
use quinn::{ConnectionError, IdleTimeout, TransportConfig, VarInt};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::wire;

mod muxer;
#[cfg(test)]
mod tests;

pub(crate) use muxer::Muxer;

/// As others that speak libp2p have it: a connection without any packet for so long is dead, and one is sent so often.
const IDLE: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Connections that wait for the node.
const WAITING: usize = 32;
/// No name is asked for, but the TLS library wants one.
const NO_NAME: &str = "l";
/// Why there is no QUIC.
#[derive(Debug, Error)]
pub(crate) enum SetupError {
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] tls::certificate::GenError),
    /// The TLS library cannot.
    #[error(transparent)]
    Suite(#[from] NoInitialCipherSuite),
}

/// Why there is no connection, or no port.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// The port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It could not be begun.
    #[error(transparent)]
    Connect(#[from] quinn::ConnectError),
    /// It broke, or was refused.
    #[error(transparent)]
    Broken(#[from] ConnectionError),
    /// No answer in time.
    #[error("no answer")]
    TooSlow,
    /// What is no certificate of libp2p.
    #[error("the other end does not prove who it is")]
    Certificate,
    /// The system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

type Opened = (PeerId, Muxer);

/// What all connections begin with.
#[derive(Clone)]
struct Setup {
    client: Arc<QuicClientConfig>,
    server: quinn::ServerConfig,
    limits: QuicLimits,
    patience: Duration,
    /// What a connection may have unsent and unacknowledged, as the upload limit wants it.
    in_hand: u64,
}

impl Setup {
    fn transport(&self, remote: SocketAddr, accepted: bool) -> Arc<TransportConfig> {
        let mut transport = self.limits.transport(remote, accepted);
        transport
            .send_window(self.in_hand.min(u64::from(self.limits.window)))
            .keep_alive_interval(Some(KEEP_ALIVE))
            .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
            .allow_spin(false);
        Arc::new(transport)
    }

    /// Who it is with: the certificate was checked in the handshake.
    fn opened(&self, connection: quinn::Connection) -> Result<Opened, Error> {
        let chain =
            connection.peer_identity().and_then(|i| i.downcast::<Vec<CertificateDer<'static>>>().ok());
        let first = chain.as_ref().and_then(|c| c.first()).ok_or(Error::Certificate)?;
        let peer = tls::certificate::parse(first).map_err(|_| Error::Certificate)?.peer_id();
        Ok((peer, Muxer::new(connection, self.limits.window)))
    }

    async fn dial(self, endpoint: quinn::Endpoint, at: SocketAddr) -> Result<Opened, Error> {
        let mut config = quinn::ClientConfig::new(self.client.clone());
        config.transport_config(self.transport(at, false));
        let connecting = endpoint.connect_with(config, at, NO_NAME)?;
        let connection = timeout(self.patience, connecting).await.map_err(|_| Error::TooSlow)??;
        self.opened(connection)
    }

    /// Takes connections until the endpoint is closed or nobody wants them.
    async fn accept(
        self,
        endpoint: quinn::Endpoint,
        handshakes: Arc<QuicHandshakes>,
        found: mpsc::Sender<(Opened, SocketAddr)>,
    ) {
        loop {
            let newcomer = tokio::select! {
                newcomer = handshakes.next(&endpoint, self.limits.connections) => newcomer,
                () = found.closed() => None,
            };
            let Some(newcomer) = newcomer else { return };
            let (setup, found) = (self.clone(), found.clone());
            tokio::spawn(async move {
                let from = newcomer.from();
                tokio::select! {
                    taken = setup.take(newcomer, &found) => if let Err(e) = taken {
                        tracing::debug!(%from, error = %e, "no QUIC connection of libp2p");
                    },
                    () = found.closed() => {}
                }
            });
        }
    }

    async fn take(
        &self,
        newcomer: Newcomer,
        found: &mpsc::Sender<(Opened, SocketAddr)>,
    ) -> Result<(), HandshakeError> {
        let from = newcomer.from();
        let mut config = self.server.clone();
        config.transport_config(self.transport(from, true));
        let (connection, slot) = newcomer.accept(Arc::new(config), self.patience).await?;
        match self.opened(connection) {
            Ok(opened) => {
                // Its place is kept until the node knows of it.
                slot.hold(found.send((opened, from))).await.ok_or(HandshakeError::MadeRoom).map(drop)
            }
            Err(e) => {
                tracing::debug!(%from, error = %e, "a QUIC connection of nobody");
                Ok(())
            }
        }
    }
}

/// The transport.
pub(crate) struct Quic {
    setup: Setup,
    identity: Identity,
    handshakes: Arc<QuicHandshakes>,
    listeners: SelectAll<Listener>,
    /// Where no listener fits: from where IPv4 and IPv6 addresses are dialed.
    dialers: [Option<quinn::Endpoint>; 2],
    waker: Option<Waker>,
}

/// None if it is no address of QUIC. Whoever is expected there is looked at by libp2p.
fn parse(addr: &Multiaddr) -> Option<SocketAddr> {
    let (ip, port, _) = wire::socket_of(addr).filter(|(.., udp)| *udp)?;
    let rest: Vec<_> = addr.iter().skip(2).collect();
    matches!(rest[..], [Protocol::QuicV1] | [Protocol::QuicV1, Protocol::P2p(_)])
        .then_some(SocketAddr::new(ip, port))
}

fn multiaddr(at: SocketAddr) -> Multiaddr {
    Multiaddr::from(at.ip()).with(Protocol::Udp(at.port())).with(Protocol::QuicV1)
}

impl Quic {
    /// `patience`: for a handshake, whoever begins it; `in_hand`: bytes that a connection may hold.
    pub(crate) fn new(
        identity: &Identity,
        keys: &Keypair,
        limits: QuicLimits,
        (patience, in_hand): (Duration, u64),
    ) -> Result<Quic, SetupError> {
        let client = Arc::new(QuicClientConfig::try_from(tls::make_client_config(keys, None)?)?);
        let mut server = quic_server_config(tls::make_server_config(keys)?)?;
        // libp2p knows a connection by its addresses.
        server.migration(false);
        Ok(Quic {
            setup: Setup { client, server, limits, patience, in_hand },
            identity: identity.clone(),
            handshakes: Arc::default(),
            listeners: SelectAll::new(),
            dialers: [None, None],
            waker: None,
        })
    }

    /// A listener that packets to `to` can leave from: always the same, so that a NAT makes one way of them.
    fn listener_for(&self, to: SocketAddr) -> Option<&Listener> {
        let here = to.ip().is_loopback();
        let leads = |l: &&Listener| {
            if here { l.ips.iter().any(IpAddr::is_loopback) } else { !l.at.ip().is_loopback() }
        };
        let same = |l: &&Listener| !l.closed && l.at.is_ipv6() == to.is_ipv6();
        self.listeners.iter().filter(same).filter(leads).min_by_key(|l| l.at)
    }

    /// Where a connection to `to` begins.
    fn endpoint_for(&mut self, to: SocketAddr, port: PortUse) -> Result<quinn::Endpoint, Error> {
        let any: IpAddr =
            if to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let fresh = || Ok(open_quic(SocketAddr::new(any, 0), &self.identity, None)?);
        if port == PortUse::New {
            return fresh();
        }
        if let Some(listener) = self.listener_for(to) {
            return Ok(listener.endpoint.clone());
        }
        let [v4, v6] = &self.dialers;
        if let Some(endpoint) = if to.is_ipv6() { v6 } else { v4 } {
            return Ok(endpoint.clone());
        }
        let endpoint = fresh()?;
        let [v4, v6] = &mut self.dialers;
        *if to.is_ipv6() { v6 } else { v4 } = Some(endpoint.clone());
        Ok(endpoint)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Transport for Quic {
    type Output = Opened;
    type Error = Error;
    type ListenerUpgrade = Ready<Result<Opened, Error>>;
    type Dial = BoxFuture<'static, Result<Opened, Error>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<Error>> {
        let Some(at) = parse(&addr) else { return Err(TransportError::MultiaddrNotSupported(addr)) };
        let listener = Listener::open(id, at, &self.identity, &self.setup, &self.handshakes);
        self.listeners.push(listener.map_err(TransportError::Other)?);
        // From now on the port that is open is where connections begin.
        let [v4, v6] = &mut self.dialers;
        *if at.is_ipv6() { v6 } else { v4 } = None;
        self.wake();
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let Some(listener) = self.listeners.iter_mut().find(|l| l.id == id && !l.closed) else {
            return false;
        };
        listener.closed = true;
        listener.endpoint.close(VarInt::from_u32(0), &[]);
        listener.wake();
        true
    }

    fn dial(&mut self, addr: Multiaddr, opts: DialOpts) -> Result<Self::Dial, TransportError<Error>> {
        let at = parse(&addr).filter(|at| at.port() != 0 && !at.ip().is_unspecified());
        let Some(at) = at else { return Err(TransportError::MultiaddrNotSupported(addr)) };
        // A punch too: both ends dial from the ports that listen, and their first packets open the NATs.
        let endpoint = self.endpoint_for(at, opts.port_use).map_err(TransportError::Other)?;
        Ok(Box::pin(self.setup.clone().dial(endpoint, at)))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Error>> {
        if let Poll::Ready(Some(event)) = self.listeners.poll_next_unpin(cx) {
            return Poll::Ready(event);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

type Event = TransportEvent<Ready<Result<Opened, Error>>, Error>;

/// One port.
struct Listener {
    id: ListenerId,
    at: SocketAddr,
    endpoint: quinn::Endpoint,
    found: mpsc::Receiver<(Opened, SocketAddr)>,
    /// Of a port at all addresses: which ones those are.
    watcher: Option<IfWatcher>,
    ips: HashSet<IpAddr>,
    /// The one address that was not told yet.
    untold: Option<SocketAddr>,
    closed: bool,
    over: bool,
    waker: Option<Waker>,
}

impl Listener {
    fn open(
        id: ListenerId,
        at: SocketAddr,
        identity: &Identity,
        setup: &Setup,
        handshakes: &Arc<QuicHandshakes>,
    ) -> Result<Listener, Error> {
        let endpoint = open_quic(at, identity, Some(setup.server.clone()))?;
        let at = endpoint.local_addr()?;
        let all = at.ip().is_unspecified();
        let watcher = if all { Some(IfWatcher::new()?) } else { None };
        let (to_us, found) = mpsc::channel(WAITING);
        tokio::spawn(setup.clone().accept(endpoint.clone(), handshakes.clone(), to_us));
        Ok(Listener {
            id,
            at,
            endpoint,
            found,
            watcher,
            ips: (!all).then(|| at.ip()).into_iter().collect(),
            untold: (!all).then_some(at),
            closed: false,
            over: false,
            waker: None,
        })
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What changed with the addresses of this machine.
    fn poll_addrs(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let listener_id = self.id;
        if let Some(at) = self.untold.take() {
            return Poll::Ready(TransportEvent::NewAddress { listener_id, listen_addr: multiaddr(at) });
        }
        let Some(watcher) = &mut self.watcher else { return Poll::Pending };
        loop {
            let at = |ip| SocketAddr::new(ip, self.at.port());
            let event = match ready!(watcher.poll_if_event(cx)) {
                Ok(IfEvent::Up(net)) if net.addr().is_ipv6() == self.at.is_ipv6() => {
                    self.ips.insert(net.addr());
                    TransportEvent::NewAddress { listener_id, listen_addr: multiaddr(at(net.addr())) }
                }
                Ok(IfEvent::Down(net)) if net.addr().is_ipv6() == self.at.is_ipv6() => {
                    self.ips.remove(&net.addr());
                    TransportEvent::AddressExpired { listener_id, listen_addr: multiaddr(at(net.addr())) }
                }
                Ok(_) => continue,
                Err(e) => TransportEvent::ListenerError { listener_id, error: e.into() },
            };
            return Poll::Ready(event);
        }
    }
}

impl Stream for Listener {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.over {
            return Poll::Ready(None);
        }
        if !self.closed {
            if let Poll::Ready(event) = self.poll_addrs(cx) {
                return Poll::Ready(Some(event));
            }
            match self.found.poll_recv(cx) {
                Poll::Ready(Some((opened, from))) => {
                    return Poll::Ready(Some(TransportEvent::Incoming {
                        listener_id: self.id,
                        upgrade: at_once(Ok(opened)),
                        local_addr: multiaddr(self.at),
                        send_back_addr: multiaddr(from),
                    }));
                }
                Poll::Ready(None) => self.closed = true,
                Poll::Pending => {}
            }
        }
        if self.closed {
            self.over = true;
            return Poll::Ready(Some(TransportEvent::ListenerClosed {
                listener_id: self.id,
                reason: Ok(()),
            }));
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
