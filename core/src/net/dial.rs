//! Handshakes that we begin: QUIC and TLS over TCP, with the other end's key pinned or learned.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use icet::{NetAddr, NetKind, PeerKey};
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsConnector, TlsStream};

use super::quic::{self, QuicLimits};
use super::tls::{self, Credentials};
use crate::protocol::{ErrorKind, TransportError};

/// How often a handshake is begun where the other end hangs up, and the first pause before another try; it doubles.
const TRIES: usize = 4;
const PAUSE: Duration = Duration::from_millis(100);

/// Why a handshake failed.
#[derive(Debug, Error)]
pub enum DialError {
    /// Nothing answered in time, or no way leads there.
    #[error("{addr} cannot be reached: {why}")]
    Unreachable {
        /// Where.
        addr: NetAddr,
        /// What happened.
        why: String,
    },
    /// Somebody else answered.
    #[error("{addr} answered with key {got}, not {expected}")]
    WrongKey {
        /// Where.
        addr: NetAddr,
        /// The pinned key.
        expected: PeerKey,
        /// The key that it proved.
        got: PeerKey,
    },
    /// Something answers there, but does not complete this handshake (another program, another version, no such
    /// protocol).
    #[error("{addr} refused the handshake: {why}")]
    Refused {
        /// Where.
        addr: NetAddr,
        /// What the TLS or QUIC library says.
        why: String,
    },
    /// It hung up in the middle of the handshake, without a reason: it has too many others, or is something else.
    #[error("{addr} closed the connection during the handshake")]
    HungUp {
        /// Where.
        addr: NetAddr,
    },
    /// Our side's fault.
    #[error("{addr}: {why}")]
    Local {
        /// Where it should have gone.
        addr: NetAddr,
        /// What is wrong.
        why: String,
    },
}

impl DialError {
    /// Where it was dialled.
    #[must_use]
    pub fn addr(&self) -> NetAddr {
        match self {
            DialError::Unreachable { addr, .. }
            | DialError::WrongKey { addr, .. }
            | DialError::Refused { addr, .. }
            | DialError::HungUp { addr }
            | DialError::Local { addr, .. } => *addr,
        }
    }

    /// What happened, for who knows where it was dialled.
    #[must_use]
    pub fn why(&self) -> String {
        match self {
            DialError::Unreachable { why, .. } | DialError::Local { why, .. } => why.clone(),
            DialError::WrongKey { got, .. } => format!("another key answers there: {got}"),
            DialError::Refused { why, .. } => format!("the handshake is refused: {why}"),
            DialError::HungUp { .. } => "the connection is closed during the handshake".to_owned(),
        }
    }
}

impl From<DialError> for TransportError {
    fn from(e: DialError) -> TransportError {
        let kind = match &e {
            DialError::Unreachable { .. } => ErrorKind::Unreachable,
            DialError::WrongKey { .. } => ErrorKind::WrongKey,
            DialError::Refused { .. } => ErrorKind::Protocol,
            DialError::HungUp { .. } => ErrorKind::Busy,
            DialError::Local { .. } => ErrorKind::Local,
        };
        TransportError::new(kind, e.to_string())
    }
}

/// Tells a wrong key from other failures of a handshake.
fn failed(addr: NetAddr, pin: Option<PeerKey>, seen: &OnceLock<PeerKey>, why: String) -> DialError {
    match (pin, seen.get()) {
        (Some(expected), Some(&got)) if expected != got => DialError::WrongKey { addr, expected, got },
        _ => DialError::Refused { addr, why },
    }
}

/// Tries again where the other end hangs up: in a flood of strangers it makes room for newer connections, and each try
/// has its chance. All tries together take no longer than `patience`.
pub(super) async fn patiently<T, F: Future<Output = Result<T, DialError>>>(
    patience: Duration,
    mut once: impl FnMut(Duration) -> F,
) -> Result<T, DialError> {
    let end = Instant::now() + patience;
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match once(end.saturating_duration_since(Instant::now())).await {
            Err(DialError::HungUp { .. }) if Instant::now() + pause < end => tokio::time::sleep(pause).await,
            other => return other,
        }
        pause *= 2;
    }
    once(end.saturating_duration_since(Instant::now())).await
}

/// QUIC, with the client's and the server's key proved.
pub(super) async fn dial_quic(
    endpoint: &quinn::Endpoint,
    credentials: &Credentials,
    limits: &QuicLimits,
    at: SocketAddr,
    pin: Option<PeerKey>,
    alpn: &[u8],
    patience: Duration,
) -> Result<(quinn::Connection, PeerKey), DialError> {
    let addr = NetAddr { kind: NetKind::Udp, at };
    let local = |why: String| DialError::Local { addr, why };
    let (config, seen) = credentials.client(pin, alpn).map_err(|e| local(e.to_string()))?;
    let config = quic::client_config(config, limits, at).map_err(|e| local(e.to_string()))?;
    let connecting = endpoint
        .connect_with(config, at, tls::SERVER_NAME)
        .map_err(|e| DialError::Unreachable { addr, why: e.to_string() })?;
    let connection = match timeout(patience, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(quinn::ConnectionError::TimedOut | quinn::ConnectionError::Reset)) | Err(_) => {
            return Err(DialError::Unreachable { addr, why: "no answer".to_owned() });
        }
        // Codes of RFC 9000, section 20.1.
        Ok(Err(quinn::ConnectionError::ConnectionClosed(close)))
            if matches!(
                close.error_code,
                quinn::TransportErrorCode::CONNECTION_REFUSED | quinn::TransportErrorCode::APPLICATION_ERROR
            ) =>
        {
            return Err(DialError::HungUp { addr });
        }
        Ok(Err(e)) => return Err(failed(addr, pin, &seen, e.to_string())),
    };
    let key = tls::key_of_quic(&connection).map_err(|e| DialError::Refused { addr, why: e.to_string() })?;
    Ok((connection, key))
}

/// TLS over TCP, with the client's and the server's key proved. The first half of the patience is for TCP.
pub(super) async fn dial_tls(
    credentials: &Credentials,
    at: SocketAddr,
    pin: Option<PeerKey>,
    alpn: &[u8],
    patience: Duration,
) -> Result<(TlsStream<TcpStream>, PeerKey), DialError> {
    let addr = NetAddr { kind: NetKind::Tcp, at };
    let unreachable = |why: String| DialError::Unreachable { addr, why };
    let refused = |why: String| DialError::Refused { addr, why };
    let (config, seen) =
        credentials.client(pin, alpn).map_err(|e| DialError::Local { addr, why: e.to_string() })?;
    let name =
        ServerName::try_from(tls::SERVER_NAME).map_err(|e| DialError::Local { addr, why: e.to_string() })?;
    let work = async {
        let tcp = match timeout(patience / 2, TcpStream::connect(at)).await {
            Ok(Ok(tcp)) => tcp,
            Ok(Err(e)) => return Err(unreachable(e.to_string())),
            Err(_) => return Err(unreachable("no answer".to_owned())),
        };
        tame(&tcp);
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
        let stream = stream.map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                DialError::HungUp { addr }
            }
            _ => failed(addr, pin, &seen, e.to_string()),
        })?;
        if stream.get_ref().1.alpn_protocol() != Some(alpn) {
            return Err(refused("it speaks TLS, but not this protocol".to_owned()));
        }
        let key = tls::key_of_tls(stream.get_ref().1).map_err(|e| refused(e.to_string()))?;
        Ok((TlsStream::Client(stream), key))
    };
    match timeout(patience, work).await {
        Ok(result) => result,
        Err(_) => Err(refused("the handshake was not completed in time".to_owned())),
    }
}

/// No delay for small writes; a dead other end is noticed within about half a minute, as QUIC does.
pub(super) fn tame(tcp: &TcpStream) {
    use rustix::net::sockopt;
    // Best effort: a connection works without.
    let _ = tcp.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(tcp, true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let _ = sockopt::set_tcp_keepidle(tcp, Duration::from_secs(10));
        let _ = sockopt::set_tcp_keepintvl(tcp, Duration::from_secs(5));
        let _ = sockopt::set_tcp_keepcnt(tcp, 4);
        let _ = sockopt::set_tcp_user_timeout(tcp, 30_000);
    }
}
