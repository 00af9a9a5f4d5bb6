//! quinn.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, MtuDiscoveryConfig, RecvStream, Runtime,
    SendStream, ServerConfig, TokioRuntime, TransportConfig, UdpPoller, VarInt,
};
use rustix::net::sockopt;
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::carrier::{Read, Write};
use crate::{Failure, ready, send, take};

/// UDP payload of packets: larger ones cost no less.
const PAYLOAD: u16 = 16_000;
/// The most of UDP that the kernel takes at once.
const LARGEST: usize = 65_507;
/// What the kernel buffers.
const BUFFER: usize = 4 << 20;
const WINDOW: u32 = 16 << 20;
const STREAM_WINDOW: u32 = 4 << 20;

impl Read for RecvStream {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        Ok(RecvStream::read(self, into).await?.unwrap_or(0))
    }
}

impl Write for SendStream {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        Ok(self.write_chunk(bytes).await?)
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        Ok(SendStream::finish(self)?)
    }
}

/// As quinn comes, or `tuned`.
fn transport(tuned: bool) -> Arc<TransportConfig> {
    let mut t = TransportConfig::default();
    if tuned {
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(PAYLOAD);
        t.mtu_discovery_config(Some(mtu))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(WINDOW))
            .send_window(WINDOW.into());
    }
    Arc::new(t)
}

fn endpoint(server: Option<ServerConfig>, tuned: bool) -> Result<Endpoint, Failure> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let runtime = Arc::new(TokioRuntime);
    if !tuned {
        return Ok(Endpoint::new(EndpointConfig::default(), server, socket, runtime)?);
    }
    let _ = sockopt::set_socket_recv_buffer_size(&socket, BUFFER);
    let _ = sockopt::set_socket_send_buffer_size(&socket, BUFFER);
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(65_507)?;
    let socket = Arc::new(Large(runtime.wrap_udp_socket(socket)?));
    Ok(Endpoint::new_with_abstract_socket(config, server, socket, runtime)?)
}

/// quinn gives ten segments at once, however large they are; the kernel takes 64 KiB.
#[derive(Debug)]
struct Large(Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for Large {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.0.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(segment) = transmit.segment_size.filter(|_| transmit.contents.len() > LARGEST) else {
            return self.0.try_send(transmit);
        };
        transmit.contents.chunks((LARGEST / segment).max(1) * segment).try_for_each(|contents| {
            let segment_size = (contents.len() > segment).then_some(segment);
            self.0.try_send(&Transmit { contents, segment_size, ..*transmit })
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.0.max_transmit_segments()
    }

    /// Buffers are so many times as large as the largest datagram; one takes all that the kernel merges.
    fn max_receive_segments(&self) -> usize {
        1
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}

/// Prints address and certificate, in one word.
pub(crate) async fn serve(file: &str, tuned: bool) -> Result<(), Failure> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport(tuned));
    let endpoint = endpoint(Some(config), tuned)?;
    let hex: String = made.cert.der().iter().map(|b| format!("{b:02x}")).collect();
    ready(format!("{}/{hex}", endpoint.local_addr()?))?;
    while let Some(incoming) = endpoint.accept().await {
        let connection = incoming.await?;
        let (mut stream, _) = connection.accept_bi().await?;
        send(file, &mut stream).await?;
        connection.closed().await;
    }
    Ok(())
}

/// An address and a certificate.
pub(crate) struct Host(SocketAddr, CertificateDer<'static>);

impl std::str::FromStr for Host {
    type Err = Failure;

    fn from_str(s: &str) -> Result<Host, Failure> {
        let (addr, hex) = s.split_once('/').ok_or("an address and a certificate, please")?;
        let byte = |pair: &[u8]| Ok::<_, Failure>(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?);
        let der = hex.as_bytes().chunks(2).map(byte).collect::<Result<Vec<u8>, _>>()?;
        Ok(Host(addr.parse()?, der.into()))
    }
}

pub(crate) async fn fetch(host: Host, out: &str, tuned: bool) -> Result<(), Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(host.1)?;
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport(tuned));
    let endpoint = endpoint(None, tuned)?;
    let connection = endpoint.connect_with(config, host.0, "localhost")?.await?;
    let (mut ask, mut stream) = connection.open_bi().await?;
    ask.write_all(b"all").await?;
    take(&mut stream, out).await?;
    connection.close(VarInt::from_u32(0), b"");
    endpoint.wait_idle().await;
    Ok(())
}
