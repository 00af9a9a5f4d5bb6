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
        let (stream, mut held) = node.open(&request.host).await?;
        let (read, write) = io::asking(stream);
        let answer = ask(read, write, &request, ANSWER).await?;
        held.heard();
        Ok::<_, TransportError>(answer.into_stream().inspect_ok(move |_| held.heard()))
    })
    .try_flatten()
    .boxed()
}
