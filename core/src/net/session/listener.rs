//! A tracker's side: sessions of peers over both carriers, on one port.

use std::net::SocketAddr;
use std::time::Duration;

use icet::{ALPN, Identity, NetAddr, NetKind};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::super::{BindError, Net, NetConfig, Patience, QuicLimits};
use super::{Session, TrackerSession};

/// Sessions that wait to be taken.
const WAITING: usize = 256;

/// Takes IceT sessions. Owns a [`Net`] of its own.
#[derive(Debug)]
pub struct Listener {
    net: Net,
    sessions: mpsc::Receiver<TrackerSession>,
}

impl Listener {
    /// Opens UDP and TCP at each address (port 0: any free one, the same for both).
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind(listen: Vec<SocketAddr>, identity: Identity) -> Result<Listener, BindError> {
        Listener::bind_with(listen, identity, Patience::default()).await
    }

    /// The same with another patience.
    ///
    /// # Errors
    /// [`BindError`].
    pub async fn bind_with(
        listen: Vec<SocketAddr>,
        identity: Identity,
        patience: Patience,
    ) -> Result<Listener, BindError> {
        let net = Net::bind(NetConfig { listen, identity, limits: QuicLimits::TRACKER, patience }).await?;
        let (found, sessions) = mpsc::channel(WAITING);
        let mut quic = net.inner.accept_quic(ALPN);
        let mut tls = net.inner.accept_tls(ALPN);
        let inner = net.inner.clone();
        let over = net.inner.closed.clone();
        net.inner.spawn(async move {
            loop {
                tokio::select! {
                    () = over.cancelled() => return,
                    Some((connection, key)) = quic.recv() => {
                        let found = found.clone();
                        inner.spawn(async move {
                            let at = connection.remote_address();
                            let at = SocketAddr::new(at.ip().to_canonical(), at.port());
                            let streams = match timeout(patience.hello, connection.accept_bi()).await {
                                Ok(Ok(streams)) => streams,
                                Ok(Err(e)) => return debug!(%at, error = %e, "no session"),
                                Err(_) => return connection.close(quinn::VarInt::from_u32(1), b"no stream came"),
                            };
                            let remote = NetAddr { kind: NetKind::Udp, at };
                            let session = Session::over_quic(connection, streams, key, remote);
                            let _ = found.send(expect_hello(session, patience.hello)).await;
                        });
                    }
                    Some((stream, key)) = tls.recv() => {
                        let Ok(at) = stream.get_ref().0.peer_addr() else { continue };
                        let at = SocketAddr::new(at.ip().to_canonical(), at.port());
                        let session = Session::over_tls(stream, key, NetAddr { kind: NetKind::Tcp, at });
                        if found.send(expect_hello(session, patience.hello)).await.is_err() {
                            return;
                        }
                    }
                    else => return,
                }
            }
        });
        Ok(Listener { net, sessions })
    }

    /// The next session; its key is proved, its first message must come within [`Patience::hello`]. None after
    /// [`Listener::shutdown`]. Cancel safe.
    pub async fn accept(&mut self) -> Option<TrackerSession> {
        self.sessions.recv().await
    }

    /// Where it listens; see [`Net::local_addrs`].
    #[must_use]
    pub fn local_addrs(&self) -> Vec<NetAddr> {
        self.net.local_addrs()
    }

    /// Its ports, for other uses.
    #[must_use]
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// Closes its ports and what is left of its sessions.
    pub async fn shutdown(&self) {
        self.net.shutdown().await;
    }
}

fn expect_hello(mut session: TrackerSession, within: Duration) -> TrackerSession {
    session.receiver.due = Some(Instant::now() + within);
    session
}
