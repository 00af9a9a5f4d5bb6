//! This process as a peer.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use iceshare::icet::{IcetUrl, Identity};
use iceshare::{OpenError, Peer, PeerConfig, StartError, keyring};

use crate::config::Settings;
use crate::failure::{FAILED, Failure};
use crate::output::note;
use crate::transports;

/// What trackers and other peers see us as.
pub(crate) const AGENT: &str = concat!("iceshare ", env!("CARGO_PKG_VERSION"));

/// Starts a peer by the settings.
pub(crate) async fn start(settings: &Settings) -> Result<(Peer, Identity), Failure> {
    let protocols = transports::chosen(settings)?;
    let key = settings.key.clone();
    let key = tokio::task::spawn_blocking(move || keyring::load_or_create(&key))
        .await
        .map_err(|e| Failure::failed(format!("internal error: {e}")))?
        .map_err(|e| Failure::from_error(FAILED, &e))?;
    if let Some(warning) = &key.warning {
        note(format!("iceshare: {warning}"));
    }
    let listen = if settings.listen.is_empty() { vec![anywhere()] } else { settings.listen.clone() };
    let config = PeerConfig {
        identity: key.identity.clone(),
        data_dir: settings.data.clone(),
        listen,
        up: settings.up.map(|r| r.0),
        down: settings.down.map(|r| r.0),
        protocols,
        anonymous: settings.anonymous,
        agent: AGENT.to_owned(),
    };
    let peer = Peer::start(config).await.map_err(started)?;
    Ok((peer, key.identity))
}

/// All addresses, any port: IPv6 takes IPv4 too, where there is IPv6.
fn anywhere() -> SocketAddr {
    let dual = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    if UdpSocket::bind(dual).is_ok() { dual } else { (Ipv4Addr::UNSPECIFIED, 0).into() }
}

pub(crate) fn started(e: StartError) -> Failure {
    Failure::from_error(FAILED, &e)
}

pub(crate) fn opened(e: OpenError) -> Failure {
    Failure::from_error(e.exit_code(), &e)
}

/// The tracker that the command line or the configuration names.
pub(crate) fn tracker(given: &Option<IcetUrl>, settings: &Settings) -> Result<IcetUrl, Failure> {
    given.clone().or_else(|| settings.tracker.clone()).ok_or_else(|| {
        Failure::usage(
            "say where to publish: --tracker icet://HOST:PORT (or tracker = … in the configuration)",
        )
    })
}
