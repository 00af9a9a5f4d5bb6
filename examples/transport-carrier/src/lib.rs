//! Payload protocol `carrier`: pages through a directory that both ends can write to, as a network file system or a
//! folder that something else keeps in step.
//!
//! It is an example of a transport that nobody else has heard of: this crate sees nothing but crate `iceshare`, and
//! neither core nor tracker nor command know its name. `README.md` tells how it is made, step by step.
//!
//! *On the wire.* A host has a mailbox in the shared directory, named by its key. A request is a directory in it, with one
//! more for each direction ([`wire`]), and what goes through these two is pages over a reliable stream, as
//! `proto-spec/spec/stream.md` has it ([`iceshare::stream`]). The endpoint is the directory's own id: a
//! receiver goes to no place that a host names, but to the directory that its own user chose, if that is the same.
//!
//! *Trust.* Whoever may write to the directory can disturb the transfers in it; what is fetched stays right all the
//! same, since core checks each page. No key is proved.

mod config;
mod fetch;
mod serve;
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
pub const NAME: &str = "carrier";

iceshare::register_payload_protocol!(
    NAME,
    "pages through a directory that both ends can write to",
    config::SETTINGS,
    Carrier::build
);

/// The protocol with its settings.
#[derive(Debug)]
pub struct Carrier {
    config: config::Config,
}

impl Carrier {
    /// Builds it.
    ///
    /// # Errors
    /// [`SettingError`] if a value is out of range.
    pub fn build(settings: &Settings) -> Result<Arc<dyn PayloadProtocol>, SettingError> {
        Ok(Arc::new(Carrier { config: config::Config::read(settings)? }))
    }
}

impl PayloadProtocol for Carrier {
    fn abilities(&self) -> Abilities {
        [
            Abilities::BYTES,
            Abilities::TIME,
            Abilities::OPEN,
            Abilities::STRIPES,
            Abilities::PROOFS,
            Abilities::ORDERED,
        ]
        .into_iter()
        .fold(Abilities::PAGES, |a, b| a | b)
    }

    /// No address: the endpoint says all.
    fn dials(&self) -> Option<NetKind> {
        None
    }

    fn serve(&self, cx: Context, shelf: Arc<Shelf>) -> BoxFuture<'static, Result<String, TransportError>> {
        let config = self.config.clone();
        Box::pin(async move { serve::start(&cx, shelf, &config) })
    }

    fn fetch(&self, cx: Context, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
        fetch::fetch(self.config.clone(), cx, request)
    }
}
