//! Payload protocol `libp2p`: pages over streams of libp2p, with relays and hole punching for peers behind NATs.
//!
//! A peer's id is its IceShare key, and every connection proves it. Hosts are dialed at the TCP address that the tracker
//! proved, at libp2p's own QUIC port beside it, or through a relay that the user set; never where a stranger points to
//! ([`wire::Endpoint`]). [`relay`] is the relay itself. Normative text: `proto-spec/spec/libp2p.md`.

mod config;
mod fetch;
mod gate;
mod io;
mod paced;
mod quic;
pub mod relay;
mod serve;
mod streams;
mod swarm;
mod transport;
pub mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use iceshare::net::{Context, TCP_TRIP};
use iceshare::protocol::{
    Abilities, ErrorKind, NetKind, PayloadProtocol, PeerKey, Piece, Request, SettingError, Settings,
    TransportError,
};
use iceshare::shelf::Shelf;
use tokio::sync::Mutex;

/// The protocol's name.
pub const NAME: &str = "libp2p";

iceshare::register_payload_protocol!(
    NAME,
    "streams of libp2p; reaches peers behind NATs through relays and hole punching",
    config::SETTINGS,
    Libp2p::build
);

/// The protocol with its settings and, once it serves, its node.
#[derive(Debug)]
pub struct Libp2p {
    config: config::Config,
    /// By the key of the peer: one value may be given to several.
    nodes: Arc<Mutex<HashMap<PeerKey, swarm::Node>>>,
}

impl Libp2p {
    /// Builds it.
    ///
    /// # Errors
    /// [`SettingError`] if a value is out of range.
    pub fn build(settings: &Settings) -> Result<Arc<dyn PayloadProtocol>, SettingError> {
        Ok(Arc::new(Libp2p { config: config::Config::read(settings)?, nodes: Arc::default() }))
    }
}

impl PayloadProtocol for Libp2p {
    fn abilities(&self) -> Abilities {
        let all = [
            Abilities::BYTES,
            Abilities::TIME,
            Abilities::OPEN,
            Abilities::STRIPES,
            Abilities::PROOFS,
            Abilities::ORDERED,
            Abilities::LIVE,
            Abilities::PROVES_KEY,
        ];
        let relayed = if self.config.relays.is_empty() { Abilities::PAGES } else { Abilities::RELAYED };
        all.into_iter().fold(Abilities::PAGES | relayed, |a, b| a | b)
    }

    fn dials(&self) -> Option<NetKind> {
        Some(NetKind::Tcp)
    }

    fn serve(&self, cx: Context, shelf: Arc<Shelf>) -> BoxFuture<'static, Result<String, TransportError>> {
        let (config, nodes) = (self.config.clone(), self.nodes.clone());
        Box::pin(async move {
            let started = swarm::Node::start(&cx, &config, shelf.in_hand(TCP_TRIP)).await?;
            let mut nodes = nodes.lock().await;
            nodes.retain(|_, node| node.is_open());
            nodes.insert(cx.identity().key(), started.node);
            cx.spawn(serve::run(cx.clone(), shelf, config, started.inbound, started.over));
            Ok(started.endpoint)
        })
    }

    fn fetch(&self, cx: Context, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
        let nodes = self.nodes.clone();
        stream::once(async move {
            let node = nodes.lock().await.get(&cx.identity().key()).cloned();
            let none = || TransportError::new(ErrorKind::Local, "libp2p has not begun to serve here");
            Ok::<_, TransportError>(fetch::fetch(node.ok_or_else(none)?, request))
        })
        .try_flatten()
        .boxed()
    }
}
