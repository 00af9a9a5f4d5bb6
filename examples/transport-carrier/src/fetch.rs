//! Fetching: a request in the host's mailbox.

use std::io;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use iceshare::net::Context;
use iceshare::protocol::{ErrorKind, Piece, Request, TransportError};
use iceshare::stream::{Answer, ask};

use crate::config::Config;
use crate::wire::{ALIVE, Place, Reader, Shared, Watch, Writer};

/// How long an answer may take to begin.
const PATIENCE: Duration = Duration::from_secs(15);

/// See [`PayloadProtocol::fetch`](iceshare::protocol::PayloadProtocol::fetch).
pub(crate) fn fetch(
    config: Config,
    cx: Context,
    request: Request,
) -> BoxStream<'static, Result<Piece, TransportError>> {
    let begun = async move { begin(&config, request).await.map(Answer::into_stream) };
    cx.while_open(stream::once(begun).try_flatten().boxed())
}

async fn begin(config: &Config, request: Request) -> Result<Answer<Reader, Writer>, TransportError> {
    let local = |e: io::Error| {
        let what = format!("cannot use the shared directory {}", config.dir.display());
        TransportError::new(ErrorKind::Local, what).because(e)
    };
    let shared = Shared::open(&config.dir).map_err(local)?;
    if shared.id != request.host.endpoint {
        let why = "the host's shared directory is not the one that we use";
        return Err(TransportError::new(ErrorKind::Unreachable, why));
    }
    let mailbox = shared.mailbox(&request.host.key);
    if !mailbox.join(ALIVE).exists() {
        return Err(TransportError::new(ErrorKind::Unreachable, "the host has no mailbox in the directory"));
    }
    let place = Place::make(&mailbox).map_err(local)?;
    let outbound = Writer::new(place.path().join("up"));
    let inbound = Reader::new(place.path().join("down"), Some((place, Watch::new(&mailbox))));
    ask(inbound, outbound, &request, PATIENCE).await
}
