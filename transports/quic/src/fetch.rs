//! Fetching: one stream a request, on a connection that is there or a new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use iceshare::net::{Context, QuicLimits, Served};
use iceshare::protocol::{ErrorKind, Piece, Request, TransportError};
use iceshare::stream::{Answer, Listening, ask};
use quinn::VarInt;
use tokio::time::timeout;

use crate::link::{Busy, Link, Links};
use crate::wire::{Receiving, Sending};

/// How long an answer may take to begin, and a stream to open where the host allows no more of them at once.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// QUIC chunks that are read at once: of packets of Ethernet's size about 90 KiB.
const CHUNKS: usize = 64;

/// Requests a range; see [`iceshare::protocol::PayloadProtocol::fetch`].
pub(crate) fn fetch(
    links: Arc<Links>,
    cx: Context,
    request: Request,
) -> BoxStream<'static, Result<Piece, TransportError>> {
    let begun = async move {
        let coming = begin(&links, &cx, &request).await?;
        let pieces = stream::try_unfold(coming, |mut coming| async move {
            let piece = coming.answer.next().await?;
            coming.listening.heard();
            Ok(piece.map(|piece| (piece, coming)))
        });
        Ok::<_, TransportError>(pieces)
    };
    stream::once(begun).try_flatten().boxed()
}

/// An answer on its way.
struct Coming {
    answer: Answer<Receiving<CHUNKS>, Sending>,
    listening: Listening,
    _busy: Busy,
    _counted: Counted,
    /// A connection over which we fetch is of use.
    _served: Option<Served>,
}

/// One of the requests of ours on a connection.
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn begin(links: &Arc<Links>, cx: &Context, request: &Request) -> Result<Coming, TransportError> {
    loop {
        let (link, reused) = links.to(cx, &request.host).await?;
        let busy = link.begin();
        match on(links, &link, busy, request).await {
            Ok(coming) => return Ok(coming),
            // The other end may have closed a kept connection just now: then a fresh one is tried.
            Err(e) if reused && e.kind == ErrorKind::Broken && !link.is_open() => links.remove(&link),
            Err(_) if link.was_one_too_many() => {
                return Err(TransportError::new(ErrorKind::Busy, "the host has too many connections"));
            }
            Err(e) => return Err(e),
        }
    }
}

/// Asks over one connection.
async fn on(links: &Links, link: &Link, busy: Busy, request: &Request) -> Result<Coming, TransportError> {
    let connection = &link.connection;
    // Opened by the other end, it may have been given a small window. Each request's stream has room in it: a reader that
    // waits (for proofs, say, which come over this connection too) holds up none of the others.
    let fetches = link.fetches.fetch_add(1, Ordering::Relaxed).saturating_add(2);
    let counted = Counted(link.fetches.clone());
    let room = fetches.saturating_mul(QuicLimits::PEER.stream_window);
    connection.set_receive_window(VarInt::from_u32(links.config.window.max(room)));
    let full = |_| TransportError::new(ErrorKind::Busy, "the host allows no more requests at once");
    let opened = timeout(ANSWER_TIME, connection.open_bi()).await.map_err(full)?;
    let lost = |e| TransportError::new(ErrorKind::Broken, "the connection broke").because(e);
    let (stream, receive) = opened.map_err(lost)?;
    let (seen, window) = (link.seen.clone(), links.config.window.into());
    let send = Sending { stream, connection: connection.clone(), seen, window, shelf: None };
    let (served, mut listening) = (link.serve(true), link.doubt.listen());
    let answer = ask(Receiving::new(receive), send, request, ANSWER_TIME).await?;
    listening.heard();
    Ok(Coming { answer, listening, _busy: busy, _counted: counted, _served: served })
}
