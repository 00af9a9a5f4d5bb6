//! A libp2p stream as core wants it. What is special: over yamux a stream that was closed in one direction tells the other
//! end nothing more when it is dropped, neither a reset nor that what still comes is for nobody.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use iceshare::icet::stream::EndCode;
use iceshare::stream::{Inbound, IoRead, IoWrite, Lost, Outbound};
use libp2p::swarm::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

/// Either direction of a stream. Both are used by one task.
#[derive(Debug)]
pub(crate) struct Half<S = Compat<Stream>>(Arc<Mutex<S>>);

impl<S> Half<S> {
    fn lock(&self) -> MutexGuard<'_, S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Half<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Half<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.lock()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.lock()).poll_shutdown(cx)
    }
}

fn split<S>(stream: S) -> (Half<S>, Half<S>) {
    let one = Arc::new(Mutex::new(stream));
    (Half(one.clone()), Half(one))
}

/// The receiver's end: its direction stays open until all has come, so that dropping it is a reset.
pub(crate) fn asking(stream: Stream) -> (IoRead<Half>, Open<IoWrite<Half>>) {
    let (read, write) = split(stream.compat());
    (IoRead::new(read), Open(IoWrite::new(write)))
}

/// The host's end, which hears of a reset also while it has nothing to write.
pub(crate) fn answering(stream: Stream) -> (Watched<Compat<Stream>>, IoWrite<Half>) {
    let (read, write) = split(stream.compat());
    (Watched(IoRead::new(read)), IoWrite::new(write))
}

/// A direction that does not end before it is dropped.
#[derive(Debug)]
pub(crate) struct Open<O>(O);

impl<O: Outbound> Outbound for Open<O> {
    fn write(&mut self, chunks: &mut [Bytes]) -> impl Future<Output = Result<(), Lost>> + Send {
        self.0.write(chunks)
    }

    fn flush(&mut self) -> impl Future<Output = Result<(), Lost>> + Send {
        self.0.flush()
    }

    fn finish(&mut self) -> impl Future<Output = Result<(), Lost>> + Send {
        self.0.flush()
    }

    fn reset(&mut self, code: EndCode) {
        self.0.reset(code);
    }
}

/// A direction at whose end it is looked whether the other one is still wanted: libp2p's streams read a reset as an end.
#[derive(Debug)]
pub(crate) struct Watched<S>(IoRead<Half<S>>);

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Inbound for Watched<S> {
    async fn read(&mut self) -> Result<Option<Bytes>, Lost> {
        if let Some(bytes) = self.0.read().await? {
            return Ok(Some(bytes));
        }
        let half = self.0.get_ref();
        // Of a stream that was reset, writing nothing fails.
        let written = poll_fn(|cx| Pin::new(&mut *half.lock()).poll_write(cx, &[])).await;
        written.map(|_| None).map_err(|_| Lost::GivenUp(None))
    }
}
