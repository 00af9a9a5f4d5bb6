//! The tracker's proof that a key answers at an address, before the address is handed to anybody.

use std::net::SocketAddr;
use std::time::Duration;

use icet::{ALPN_DIAL_BACK, Identity, NetAddr, NetKind, PeerKey};

use super::super::{BindError, DialError, QuicLimits, bind, dial, quic, tls};

/// Dials announced addresses from ports of its own: a way that only the session's own NAT entry opens is no way for
/// other peers, so it must not pass.
#[derive(Debug)]
pub struct Dialer {
    credentials: tls::Credentials,
    v4: Option<quinn::Endpoint>,
    v6: Option<quinn::Endpoint>,
}

impl Dialer {
    /// Opens an ephemeral UDP port for each address family that the machine has. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] if there is none at all.
    pub fn new(identity: &Identity) -> Result<Dialer, BindError> {
        let credentials = tls::Credentials::new(identity)?;
        let open = |v6: bool| {
            let addr = SocketAddr::new(bind::any(v6), 0);
            let fail = |e| BindError::new("UDP", addr, e);
            let socket = bind::udp(addr, false).map_err(fail)?;
            let runtime = std::sync::Arc::new(quinn::TokioRuntime);
            quinn::Endpoint::new(quic::endpoint_config(), None, socket, runtime).map_err(fail)
        };
        match (open(false), open(true)) {
            (Err(e), Err(_)) => Err(e),
            (v4, v6) => Ok(Dialer { credentials, v4: v4.ok(), v6: v6.ok() }),
        }
    }

    /// Completes one handshake (ALPN `iceshare-dial/1`) with whoever answers at `addr`, then closes. `Ok`: `key` is
    /// there. It tries once, and takes at most `patience`.
    ///
    /// # Errors
    /// [`DialError`]. [`DialError::Unreachable`] too for addresses that nobody can be at (unspecified, multicast,
    /// port 0); policy about private addresses is the caller's.
    pub async fn dial_back(&self, addr: NetAddr, key: PeerKey, patience: Duration) -> Result<(), DialError> {
        let ip = addr.at.ip();
        let broadcast = matches!(ip, std::net::IpAddr::V4(v4) if v4.is_broadcast());
        if ip.is_unspecified() || ip.is_multicast() || broadcast || addr.at.port() == 0 {
            return Err(DialError::Unreachable { addr, why: "no single host can be there".to_owned() });
        }
        match addr.kind {
            NetKind::Udp => {
                let endpoint = if ip.is_ipv6() { &self.v6 } else { &self.v4 };
                let none = || DialError::Local { addr, why: "no socket of this address family".to_owned() };
                let endpoint = endpoint.as_ref().ok_or_else(none)?;
                let dialled = dial::dial_quic(
                    endpoint,
                    &self.credentials,
                    &QuicLimits::TRACKER,
                    addr.at,
                    Some(key),
                    ALPN_DIAL_BACK,
                    patience,
                );
                dialled.await?.0.close(quinn::VarInt::from_u32(0), b"proved");
            }
            NetKind::Tcp => {
                dial::dial_tls(&self.credentials, addr.at, Some(key), ALPN_DIAL_BACK, patience).await?;
            }
        }
        Ok(())
    }
}
