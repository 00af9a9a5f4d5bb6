//! Payload protocol `http`: HTTP/1.1 at the media path, with ranges of pages, bytes, time and proofs.
//!
//! Any HTTP client fetches and resumes with byte ranges; peers ask for pages. The bytes on the wire are those of the
//! file, so integrity is core's: every page is checked against its record. Nothing is encrypted and no key is proved.
//! Normative text: `proto-spec/spec/http.md`.

mod body;
mod config;
mod fetch;
mod guests;
mod plan;
mod serve;
mod watch;
pub mod wire;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use iceshare::net::Context;
use iceshare::protocol::{
    Abilities, NetKind, PayloadProtocol, Piece, Request, SettingError, Settings, TransportError,
};
use iceshare::shelf::Shelf;

/// The protocol's name.
pub const NAME: &str = "http";

iceshare::register_payload_protocol!(
    NAME,
    "HTTP/1.1 with page ranges; any browser or curl is a client",
    config::SETTINGS,
    Http::build
);

/// The protocol with its settings and its pool of connections.
#[derive(Debug)]
pub struct Http {
    config: config::Config,
    pool: Arc<fetch::Pool>,
}

impl Http {
    /// Builds it.
    ///
    /// # Errors
    /// [`SettingError`] if a value is out of range.
    pub fn build(settings: &Settings) -> Result<Arc<dyn PayloadProtocol>, SettingError> {
        let config = config::Config::read(settings)?;
        Ok(Arc::new(Http { config, pool: Arc::new(fetch::Pool::new(config.connect_timeout)) }))
    }
}

impl PayloadProtocol for Http {
    fn abilities(&self) -> Abilities {
        [
            Abilities::BYTES,
            Abilities::TIME,
            Abilities::OPEN,
            Abilities::STRIPES,
            Abilities::PROOFS,
            Abilities::ORDERED,
            Abilities::LIVE,
        ]
        .into_iter()
        .fold(Abilities::PAGES, |a, b| a | b)
    }

    fn dials(&self) -> Option<NetKind> {
        Some(NetKind::Tcp)
    }

    fn serve(&self, cx: Context, shelf: Arc<Shelf>) -> BoxFuture<'static, Result<String, TransportError>> {
        let config = self.config;
        Box::pin(async move {
            serve::start(&cx, &shelf, config);
            Ok(String::new())
        })
    }

    fn connects_each(&self) -> bool {
        true
    }

    fn fetch(&self, cx: Context, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
        fetch::fetch(self.pool.clone(), cx, request)
    }
}
