//! Sessions as a peer has them, over either carrier; many share one UDP port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use iceshare::net::tls::{Credentials, SERVER_NAME};
use icet::message::{ToPeer, ToTracker};
use icet::{ALPN, Identity, NetKind, PeerKey, frame};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The tracker under load.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    pub(crate) key: PeerKey,
    pub(crate) endpoint: quinn::Endpoint,
}

/// One session.
pub(crate) struct Session {
    read: Box<dyn AsyncRead + Send + Unpin>,
    write: Box<dyn AsyncWrite + Send + Unpin>,
    buffer: Vec<u8>,
    out: Vec<u8>,
    _quic: Option<quinn::Connection>,
}

impl Target {
    pub(crate) async fn dial(&self, identity: &Identity, carrier: NetKind) -> anyhow::Result<Session> {
        let (config, _) = Credentials::new(identity)?.client(Some(self.key), ALPN)?;
        let (read, write, quic): (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>, _) =
            match carrier {
                NetKind::Udp => {
                    let mut transport = quinn::TransportConfig::default();
                    transport
                        .keep_alive_interval(Some(Duration::from_secs(10)))
                        .max_concurrent_uni_streams(0u32.into());
                    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?));
                    config.transport_config(Arc::new(transport));
                    let connection = self.endpoint.connect_with(config, self.addr, SERVER_NAME)?.await?;
                    let (send, recv) = connection.open_bi().await?;
                    (Box::new(recv), Box::new(send), Some(connection))
                }
                NetKind::Tcp => {
                    let stream = TcpStream::connect(self.addr).await?;
                    stream.set_nodelay(true)?;
                    let name = ServerName::try_from(SERVER_NAME)?;
                    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
                    let (read, write) = tokio::io::split(stream);
                    (Box::new(read), Box::new(write), None)
                }
            };
        Ok(Session { read, write, buffer: Vec::new(), out: Vec::new(), _quic: quic })
    }
}

impl Session {
    /// Sends all of them in one write.
    pub(crate) async fn send(&mut self, messages: &[ToTracker]) -> anyhow::Result<()> {
        self.out.clear();
        messages.iter().for_each(|m| m.write(&mut self.out));
        self.write.write_all(&self.out).await?;
        // TLS buffers what it encrypts.
        Ok(self.write.flush().await?)
    }

    /// The next message. Cancel safe.
    pub(crate) async fn recv(&mut self) -> anyhow::Result<ToPeer> {
        loop {
            if let Some((body, len)) = frame::split(&self.buffer)? {
                let message = ToPeer::from_body(body)?;
                self.buffer.drain(..len);
                return Ok(message);
            }
            let n = self.read.read_buf(&mut self.buffer).await?;
            anyhow::ensure!(n > 0, "the tracker closed the session");
        }
    }

    /// The answer to a join or publish, or why there is none.
    pub(crate) async fn answered(&mut self) -> anyhow::Result<()> {
        loop {
            match self.recv().await.context("no answer")? {
                ToPeer::MediaAnswer(_) => return Ok(()),
                ToPeer::ErrorMessage(e) => anyhow::bail!("refused: {}", e.text),
                _ => {}
            }
        }
    }
}
