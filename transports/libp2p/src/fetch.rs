//! Fetching: one stream a request.

use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use iceshare::protocol::{Piece, Request, TransportError};
use iceshare::stream::ask;

use crate::io;
use crate::swarm::Node;

/// How long an answer may take to begin.
const ANSWER: Duration = Duration::from_secs(15);

/// Carries out a request; dropping the stream resets it.
pub(crate) fn fetch(node: Node, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
    stream::once(async move {
        let (read, write) = io::asking(node.open(&request.host).await?);
        Ok::<_, TransportError>(ask(read, write, &request, ANSWER).await?.into_stream())
    })
    .try_flatten()
    .boxed()
}
