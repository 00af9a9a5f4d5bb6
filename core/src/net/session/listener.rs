//! A tracker's side: sessions of peers over both carriers, on one port.

use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use icet::{ALPN, Identity, NetAddr, NetKind};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::super::slots::{SlotLimits, Slots, Standing};
use super::super::{BindError, Net, NetConfig, Patience, QuicLimits, bind};
use super::{Session, TrackerSession};

/// Sessions that wait to be taken.
const WAITING: usize = 256;
/// Most sessions that have not yet said anything; fewer where few files may be open.
const SILENT: usize = 1024;

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
        // Half of them may be TCP connections, which take a file each.
        let all = (bind::open_files() / 8).clamp(16, SILENT);
        let silent = Slots::new(SlotLimits { all, each: usize::MAX });
        net.inner.spawn(async move {
            loop {
                // What has a key but has not said hello is still a stranger: keys cost nothing.
                let hello = |remote: NetAddr, session: BoxFuture<'static, Option<TrackerSession>>| {
                    let (slot, found) = (silent.enter(remote.at.ip()), found.clone());
                    inner.spawn(async move {
                        let Some(slot) = slot else { return };
                        let first = async {
                            let mut session = session.await?;
                            session.receiver.due = Some(Instant::now() + patience.hello);
                            session.wait().await;
                            Some(session)
                        };
                        match slot.hold(first).await {
                            Some(Some(session)) => {
                                slot.stand(Standing::Served);
                                let _ = found.send(session).await;
                            }
                            Some(None) => {}
                            None => debug!(%remote, "a newer session took the place of one without hello"),
                        }
                    });
                };
                tokio::select! {
                    () = over.cancelled() => return,
                    Some((connection, key)) = quic.recv() => {
                        let at = connection.remote_address();
                        let remote = NetAddr { kind: NetKind::Udp, at: SocketAddr::new(at.ip().to_canonical(), at.port()) };
                        hello(remote, Box::pin(async move {
                            match timeout(patience.hello, connection.accept_bi()).await {
                                Ok(Ok(streams)) => Some(Session::over_quic(connection, streams, key, remote)),
                                Ok(Err(e)) => {
                                    debug!(%remote, error = %e, "no session");
                                    None
                                }
                                Err(_) => {
                                    connection.close(quinn::VarInt::from_u32(1), b"no stream came");
                                    None
                                }
                            }
                        }));
                    }
                    Some((stream, key)) = tls.recv() => {
                        let Ok(at) = stream.get_ref().0.peer_addr() else { continue };
                        let remote = NetAddr { kind: NetKind::Tcp, at: SocketAddr::new(at.ip().to_canonical(), at.port()) };
                        hello(remote, Box::pin(async move { Some(Session::over_tls(stream, key, remote)) }));
                    }
                    else => return,
                }
            }
        });
        Ok(Listener { net, sessions })
    }

    /// The next session; its key is proved, and its first message is there, or the error that came in its place
    /// (none within [`Patience::hello`], say). None after [`Listener::shutdown`]. Cancel safe.
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
