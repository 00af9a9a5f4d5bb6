//! What a transport gets of the peer's sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use icet::{Identity, NetAddr, NetKind, PeerKey, ProtocolName};
use quinn::AsyncUdpSocket;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

use super::udp::{DatagramSender, Datagrams};
use super::{DialError, Inner, Matcher, WAITING, dial};
use crate::protocol::{ErrorKind, Piece, TransportError};

/// How long a dial may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The peer's identity, sockets and tasks, for one payload protocol. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    inner: Arc<Inner>,
    protocol: ProtocolName,
}

impl Context {
    pub(super) fn new(inner: Arc<Inner>, protocol: ProtocolName) -> Context {
        Context { inner, protocol }
    }

    /// Who we are.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// The protocol's name.
    #[must_use]
    pub fn protocol(&self) -> &ProtocolName {
        &self.protocol
    }

    /// Runs a task for as long as the peer lives. When [`Context::closed`] says so it has about 2 seconds to end by
    /// itself, then it is dropped.
    pub fn spawn(&self, f: impl Future<Output = ()> + Send + 'static) {
        let over = self.inner.over.clone();
        self.inner.protocols.spawn(async move {
            tokio::select! {
                () = over.cancelled() => {}
                () = f => {}
            }
        });
    }

    /// Cancelled when the peer shuts down.
    #[must_use]
    pub fn closed(&self) -> &CancellationToken {
        &self.inner.closed
    }

    /// The pieces of a fetch, until the peer shuts down: then an error ends them. For transports whose own sockets do not see
    /// to that.
    pub fn while_open(
        &self,
        pieces: BoxStream<'static, Result<Piece, TransportError>>,
    ) -> BoxStream<'static, Result<Piece, TransportError>> {
        let closed = self.closed().clone();
        let next = move |pieces: Option<BoxStream<'static, _>>| {
            let closed = closed.clone();
            async move {
                let mut pieces = pieces?;
                tokio::select! {
                    biased;
                    () = closed.cancelled() => {
                        Some((Err(TransportError::new(ErrorKind::Local, "this peer shuts down")), None))
                    }
                    piece = pieces.next() => piece.map(|piece| (piece, Some(pieces))),
                }
            }
        };
        stream::unfold(Some(pieces), next).boxed()
    }

    /// Where the peer listens; see [`super::Net::local_addrs`].
    #[must_use]
    pub fn local_addrs(&self) -> Vec<NetAddr> {
        let both = |at: SocketAddr| [NetKind::Udp, NetKind::Tcp].map(|kind| NetAddr { kind, at });
        self.inner.ports.iter().flat_map(|p| both(p.addr)).collect()
    }

    /// Opens a QUIC connection from the peer's UDP port to whoever holds `key`, within 5 seconds.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`], [`ErrorKind::WrongKey`], or [`ErrorKind::Protocol`] if the other end has no such
    /// protocol.
    pub async fn connect_quic(
        &self,
        addr: SocketAddr,
        key: PeerKey,
        alpn: &'static [u8],
    ) -> Result<quinn::Connection, TransportError> {
        let (inner, port) = (&self.inner, self.inner.port_for(addr));
        let none = || DialError::Unreachable {
            addr: NetAddr { kind: NetKind::Udp, at: addr },
            why: "no UDP socket of this address family".to_owned(),
        };
        let endpoint = &port.ok_or_else(none)?.endpoint;
        let dialled = dial::patiently(PATIENCE, |patience| {
            dial::dial_quic(endpoint, &inner.credentials, &inner.limits, addr, Some(key), alpn, patience)
        });
        Ok(dialled.await?.0)
    }

    /// QUIC connections that others open with this ALPN, and the key that each proved. At most 128 wait; more are
    /// closed. The first to register an ALPN has it, a second gets a receiver that is closed.
    #[must_use]
    pub fn accept_quic(&self, alpn: &'static [u8]) -> mpsc::Receiver<(quinn::Connection, PeerKey)> {
        self.inner.accept_quic(alpn)
    }

    /// Opens a TLS connection over TCP to whoever holds `key`, within 5 seconds.
    ///
    /// # Errors
    /// As [`Context::connect_quic`].
    pub async fn connect_tls(
        &self,
        addr: SocketAddr,
        key: PeerKey,
        alpn: &'static [u8],
    ) -> Result<TlsStream<TcpStream>, TransportError> {
        let dialled = dial::patiently(PATIENCE, |patience| {
            dial::dial_tls(&self.inner.credentials, addr, Some(key), alpn, patience)
        });
        Ok(dialled.await?.0)
    }

    /// TLS connections over TCP that others open with this ALPN; see [`Context::accept_quic`].
    #[must_use]
    pub fn accept_tls(&self, alpn: &'static [u8]) -> mpsc::Receiver<(TlsStream<TcpStream>, PeerKey)> {
        self.inner.accept_tls(alpn)
    }

    /// Plain TCP connections whose first bytes `matches` knows. It sees 1 to 16 bytes, none of them taken, and may
    /// be asked again with more of them; it says yes only when it is sure. The first registered that says yes has
    /// the connection. A first byte 0x16 is TLS and not asked for.
    #[must_use]
    pub fn accept_tcp(&self, matches: fn(&[u8]) -> bool) -> mpsc::Receiver<(TcpStream, SocketAddr)> {
        let (taker, receiver) = mpsc::channel(WAITING);
        let mut matchers = self.inner.matchers.write().unwrap_or_else(PoisonError::into_inner);
        matchers.push(Matcher { matches, taker });
        receiver
    }

    /// Raw datagrams on the peer's UDP socket whose first byte lies in `first`: within 0 to 63 or 128 to 191 (the
    /// rest is QUIC's, RFC 9443).
    ///
    /// # Errors
    /// [`ErrorKind::Local`] if the range is QUIC's or taken.
    pub fn datagrams(&self, first: RangeInclusive<u8>) -> Result<Datagrams, TransportError> {
        let sockets = self.inner.ports.iter().map(|p| p.udp.inner.clone() as Arc<dyn AsyncUdpSocket>);
        let sender = DatagramSender::new(sockets.collect(), &first);
        let taken =
            format!("first bytes {} to {} of datagrams are QUIC's or taken", first.start(), first.end());
        self.inner.routes.register(first, sender).ok_or_else(|| TransportError::new(ErrorKind::Local, taken))
    }
}
