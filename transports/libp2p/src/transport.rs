//! The stack below the streams: the peer's common TCP port, sockets of libp2p's own, relays; Noise and yamux over TCP.

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, Pending};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{
    Boxed, DialOpts, ListenerId, OrTransport, PortUse, Transport, TransportError, TransportEvent,
};
use libp2p::core::upgrade::Version;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, noise, relay, tcp, yamux};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use crate::gate::{Gate, Gated};
use crate::paced::{Once, Paced, Socket};
use crate::quic::Quic;

/// How connections of libp2p begin that others open: with the length and name of multistream-select 1.0.0. A matcher
/// sees 16 bytes at most.
const MULTISTREAM: &[u8] = b"\x13/multistream/1.";

/// Handshakes of others under way over TCP.
const HANDSHAKES: usize = 128;

/// Whether a connection to the common TCP port is libp2p's.
pub(crate) fn is_libp2p(seen: &[u8]) -> bool {
    seen.starts_with(MULTISTREAM)
}

/// The address that stands for the peer's common TCP port, which is open already.
pub(crate) fn common() -> Multiaddr {
    Multiaddr::empty().with(Protocol::Memory(1))
}

/// Connections that the peer accepts at its common TCP port, as a transport.
#[derive(Debug)]
pub(crate) struct Common {
    incoming: mpsc::Receiver<(TcpStream, SocketAddr)>,
    listener: Option<ListenerId>,
}

impl Common {
    pub(crate) fn new(incoming: mpsc::Receiver<(TcpStream, SocketAddr)>) -> Common {
        Common { incoming, listener: None }
    }
}

fn tcp_addr(at: SocketAddr) -> Multiaddr {
    Multiaddr::from(at.ip().to_canonical()).with(Protocol::Tcp(at.port()))
}

impl Transport for Common {
    type Output = Compat<TcpStream>;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<Compat<TcpStream>>>;
    type Dial = Pending<io::Result<Compat<TcpStream>>>;

    fn listen_on(&mut self, id: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        if addr != common() {
            return Err(TransportError::MultiaddrNotSupported(addr));
        }
        self.listener = Some(id);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listener.take_if(|mine| *mine == id).is_some()
    }

    fn dial(&mut self, addr: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(addr))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        while let Some(listener_id) = self.listener {
            match self.incoming.poll_recv(cx) {
                Poll::Ready(Some((stream, from))) => {
                    // A connection that is gone already has no address.
                    let Ok(at) = stream.local_addr() else { continue };
                    return Poll::Ready(TransportEvent::Incoming {
                        listener_id,
                        upgrade: ready(Ok(stream.compat())),
                        local_addr: tcp_addr(at),
                        send_back_addr: tcp_addr(from),
                    });
                }
                Poll::Ready(None) => {
                    self.listener = None;
                    return Poll::Ready(TransportEvent::ListenerClosed { listener_id, reason: Ok(()) });
                }
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }
}

/// The whole stack. A connection over TCP may hold so many bytes.
pub(crate) fn build(
    keys: &Keypair,
    common: Common,
    relayed: relay::client::Transport,
    quic: Quic,
    gate: Gate,
    (patience, in_hand): (Duration, u64),
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let noise = noise::Config::new(keys)?;
    let own = tcp::tokio::Transport::new(tcp::Config::default()).map(|stream, _| stream.0.compat());
    let secured = noise.clone();
    let tcp = OrTransport::new(common, own).and_then(move |stream, point| {
        let (Either::Left(stream) | Either::Right(stream)) = stream;
        over_tcp(Socket::new(stream, in_hand), point, secured).boxed()
    });
    let tcp = TransportTimeout::new(tcp, patience).boxed();
    let relayed = relayed
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .timeout(patience)
        .boxed();
    let quic = quic.map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    // A relayed address begins like a direct one: it has to be asked first.
    let all = relayed.or_transport(tcp).joined().or_transport(quic).joined();
    Ok(Gated::new(gate, HANDSHAKES, all).boxed())
}

/// Noise and yamux over a connection.
async fn over_tcp(
    socket: Socket,
    point: ConnectedPoint,
    noise: noise::Config,
) -> io::Result<(PeerId, StreamMuxerBox)> {
    let role = match point {
        ConnectedPoint::Dialer { role_override, .. } => role_override,
        ConnectedPoint::Listener { .. } => Endpoint::Listener,
    };
    let held = socket.held();
    let mut once =
        Once(Some(socket)).upgrade(Version::V1Lazy).authenticate(noise).multiplex(yamux::Config::default());
    let opened = once.dial(Multiaddr::empty(), DialOpts { role, port_use: PortUse::New });
    let (peer, muxer) = opened.map_err(io::Error::other)?.await.map_err(io::Error::other)?;
    Ok((peer, StreamMuxerBox::new(Paced::new(muxer, held))))
}

/// Two transports of the same output as one.
pub(crate) trait Joined {
    fn joined(self) -> Boxed<(PeerId, StreamMuxerBox)>;
}

impl<A, B> Joined for OrTransport<A, B>
where
    A: Transport<Output = (PeerId, StreamMuxerBox)> + Send + Unpin + 'static,
    B: Transport<Output = (PeerId, StreamMuxerBox)> + Send + Unpin + 'static,
    A::Error: Send + Sync + 'static,
    B::Error: Send + Sync + 'static,
    A::Dial: Send,
    B::Dial: Send,
    A::ListenerUpgrade: Send,
    B::ListenerUpgrade: Send,
{
    fn joined(self) -> Boxed<(PeerId, StreamMuxerBox)> {
        self.map(|either, _| match either {
            Either::Left(opened) | Either::Right(opened) => opened,
        })
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_known_by_multistream_select() {
        assert!(is_libp2p(b"\x13/multistream/1.0"));
        for other in
            [&b"\x13/multistream/"[..], b"\x13/multistream/2.", b"GET / HTTP/1.1\r\n", b"\x16\x03", b""]
        {
            assert!(!is_libp2p(other));
        }
    }
}
