//! Payload protocol `quic`: one QUIC stream a request, on the peer's one UDP port, both keys proved.
//!
//! What is said on a stream is core's (`iceshare::stream`); here are connections: who may have how many, how they are
//! reused, also against the direction in which they were opened, and when they close. Normative text:
//! `proto-spec/spec/stream.md`.

mod config;
mod fetch;
mod link;
mod serve;
mod wire;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use iceshare::net::Context;
use iceshare::protocol::{
    Abilities, NetKind, PayloadProtocol, Piece, Request, SettingError, Settings, TransportError,
};
use iceshare::shelf::Shelf;

/// The protocol's name.
pub const NAME: &str = "quic";

iceshare::register_payload_protocol!(
    NAME,
    "QUIC streams on the peer's UDP port, encrypted, both keys proved",
    config::SETTINGS,
    Quic::build
);

/// The protocol with its settings and its connections.
#[derive(Debug)]
pub struct Quic {
    links: Arc<link::Links>,
}

impl Quic {
    /// Builds it.
    ///
    /// # Errors
    /// [`SettingError`] if a value is out of range.
    pub fn build(settings: &Settings) -> Result<Arc<dyn PayloadProtocol>, SettingError> {
        let config = config::Config::read(settings)?;
        Ok(Arc::new(Quic { links: Arc::new(link::Links::new(config)) }))
    }
}

impl PayloadProtocol for Quic {
    fn abilities(&self) -> Abilities {
        [
            Abilities::BYTES,
            Abilities::TIME,
            Abilities::OPEN,
            Abilities::STRIPES,
            Abilities::PROOFS,
            Abilities::ORDERED,
            Abilities::PROVES_KEY,
            Abilities::SPANS,
            Abilities::LIVE,
        ]
        .into_iter()
        .fold(Abilities::PAGES, |a, b| a | b)
    }

    fn dials(&self) -> Option<NetKind> {
        Some(NetKind::Udp)
    }

    fn serve(&self, cx: Context, shelf: Arc<Shelf>) -> BoxFuture<'static, Result<String, TransportError>> {
        let links = self.links.clone();
        Box::pin(async move {
            serve::start(&cx, &shelf, &links);
            Ok(String::new())
        })
    }

    fn fetch(&self, cx: Context, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
        fetch::fetch(self.links.clone(), cx, request)
    }
}
