//! Payload protocol `udp`: fragments of pages in encrypted datagrams.
//!
//! Media bytes are sent once; the receiver finds out what was lost and asks for it again, or asks somebody else. Both ends
//! prove their keys. Normative text: `proto-spec/spec/udp.md`.
//!
//! [`wire`] has the formats, [`assoc`] an association with one peer and [`endpoint`] all of them, both sans-IO; the rest is
//! a thin driver.

pub mod assoc;
mod config;
pub mod endpoint;
mod fetch;
mod hub;
pub mod seal;
mod serve;
pub mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use iceshare::icet::PeerKey;
use iceshare::net::Context;
use iceshare::protocol::{
    Abilities, NetKind, PayloadProtocol, Piece, Request, SettingError, Settings, TransportError,
};
use iceshare::shelf::Shelf;

use hub::Hub;

/// The protocol's name.
pub const NAME: &str = "udp";

iceshare::register_payload_protocol!(
    NAME,
    "fragments of pages in encrypted datagrams; what is lost is asked for again",
    config::SETTINGS,
    Udp::build
);

/// The protocol with its settings.
#[derive(Debug)]
pub struct Udp {
    config: config::Config,
    /// One for each peer of this process that uses this value.
    hubs: Arc<Hubs>,
}

type Hubs = Mutex<HashMap<PeerKey, Weak<Hub>>>;

impl Udp {
    /// Builds it.
    ///
    /// # Errors
    /// [`SettingError`] if a value is out of range.
    pub fn build(settings: &Settings) -> Result<Arc<dyn PayloadProtocol>, SettingError> {
        Ok(Arc::new(Udp { config: config::Config::read(settings)?, hubs: Arc::default() }))
    }
}

/// The peer's endpoint; it is started when it is used first.
fn hub(hubs: &Hubs, cx: &Context, config: config::Config) -> Result<Arc<Hub>, TransportError> {
    let mut hubs = hubs.lock().unwrap_or_else(PoisonError::into_inner);
    let key = cx.identity().key();
    if let Some(hub) = hubs.get(&key).and_then(Weak::upgrade).filter(|h| !h.is_closed()) {
        return Ok(hub);
    }
    let hub = Hub::start(cx, config)?;
    hubs.retain(|_, hub| hub.strong_count() > 0);
    hubs.insert(key, Arc::downgrade(&hub));
    Ok(hub)
}

impl PayloadProtocol for Udp {
    fn abilities(&self) -> Abilities {
        [
            Abilities::BYTES,
            Abilities::TIME,
            Abilities::OPEN,
            Abilities::STRIPES,
            Abilities::PROOFS,
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
        let (hubs, config) = (self.hubs.clone(), self.config);
        Box::pin(async move {
            hub(&hubs, &cx, config)?.serve_from(shelf);
            Ok(String::new())
        })
    }

    fn fetch(&self, cx: Context, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
        let (hubs, config) = (self.hubs.clone(), self.config);
        fetch::fetch(move || hub(&hubs, &cx, config), request)
    }
}
