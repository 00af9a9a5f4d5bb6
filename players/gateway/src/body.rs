//! A response's bytes, read only as fast as the client takes them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use iceshare::net::Serving;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::pace::Pace;
use crate::playable::{Playable, Reader};

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// At most so much is read at once: what a client that goes away has cost in vain stays small.
const CHUNK: usize = 32 * 1024;

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Keeps `serving` until the body was sent, or nobody wants it any more.
pub(crate) fn keeping(body: Body, serving: Serving) -> Body {
    Kept { body, _serving: serving }.boxed_unsync()
}

struct Kept {
    body: Body,
    _serving: Serving,
}

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Source {
    reader: Box<dyn Reader>,
    /// Where to seek to before the first read.
    start: Option<u64>,
    left: u64,
    buffer: BytesMut,
    pace: Pace,
}

impl Source {
    async fn next(&mut self) -> io::Result<Bytes> {
        if let Some(start) = self.start.take()
            && start > 0
        {
            self.reader.seek(io::SeekFrom::Start(start)).await?;
        }
        if let Some(at) = self.pace.next(Instant::now()) {
            tokio::time::sleep_until(at).await;
        }
        let want = usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK);
        self.buffer.reserve(want);
        let n = (&mut self.reader).take(want as u64).read_buf(&mut self.buffer).await?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the media ended before its length"));
        }
        self.left -= n as u64;
        self.pace.sent(n);
        Ok(self.buffer.split().freeze())
    }
}

/// What a live media gives, until it ends or `gone` is cancelled.
pub(crate) fn live(
    pages: BoxStream<'static, io::Result<Bytes>>,
    gone: CancellationToken,
    reading: Arc<()>,
) -> Body {
    let frames = stream::unfold(Some((pages, gone, reading)), |state| async move {
        let (mut pages, gone, reading) = state?;
        let step = tokio::select! {
            biased;
            () = gone.cancelled() => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the media was closed")),
            page = pages.next() => page?,
        };
        let on = step.is_ok().then_some((pages, gone, reading));
        Some((step.map(Frame::data), on))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// `left` bytes from offset `start` on. It waits where the reader waits; once `gone` is cancelled, or the reader
/// fails, it ends with an error, and the connection closes before the promised length.
pub(crate) fn read(media: &dyn Playable, start: u64, left: u64, gone: CancellationToken) -> Body {
    let (reader, pace) = (media.open_reader(), Pace::new(media.pace(), Instant::now()));
    let source = Source { reader, start: Some(start), left, buffer: BytesMut::new(), pace };
    let frames = stream::unfold((source, gone), |(mut source, gone)| async move {
        if source.left == 0 {
            return None;
        }
        let step = tokio::select! {
            biased;
            () = gone.cancelled() => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the media was closed")),
            step = source.next() => step,
        };
        if let Err(error) = &step {
            tracing::debug!(%error, left = source.left, "response ends early");
            source.left = 0;
        }
        Some((step.map(Frame::data), (source, gone)))
    });
    StreamBody::new(frames).boxed_unsync()
}
