//! A QUIC connection as libp2p sees it: streams that both ends open.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;
use futures_util::{AsyncRead, AsyncWrite, FutureExt};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::io::ReadBuf;

/// So many bytes of an answer to us, and the connection is one that pages come over.
const ANSWER: usize = 64 << 10;

type Opening = BoxFuture<'static, Result<(SendStream, RecvStream), ConnectionError>>;

/// One connection.
pub(crate) struct Muxer {
    connection: Connection,
    /// What its window becomes once it brings us what we asked for; before, others can make us keep little.
    window: u32,
    inbound: Option<Opening>,
    outbound: Option<Opening>,
    closing: Option<BoxFuture<'static, ConnectionError>>,
}

impl std::fmt::Debug for Muxer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Muxer({})", self.connection.remote_address())
    }
}

impl Muxer {
    pub(super) fn new(connection: Connection, window: u32) -> Muxer {
        Muxer { connection, window, inbound: None, outbound: None, closing: None }
    }
}

impl StreamMuxer for Muxer {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Stream, ConnectionError>> {
        let connection = self.connection.clone();
        let opening = self.inbound.get_or_insert_with(|| async move { connection.accept_bi().await }.boxed());
        let opened = ready!(opening.poll_unpin(cx));
        self.inbound = None;
        let (send, recv) = opened?;
        Poll::Ready(Ok(Stream { send, recv, closed: false, answer: None }))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        let connection = self.connection.clone();
        let opening = self.outbound.get_or_insert_with(|| async move { connection.open_bi().await }.boxed());
        let opened = ready!(opening.poll_unpin(cx));
        self.outbound = None;
        let (send, recv) = opened?;
        let answer = Answer { connection: self.connection.clone(), window: self.window, missing: ANSWER };
        Poll::Ready(Ok(Stream { send, recv, closed: false, answer: Some(answer) }))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        // Addresses do not change: migration is off.
        Poll::Pending
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        let connection = self.connection.clone();
        let closing = self.closing.get_or_insert_with(|| {
            connection.close(VarInt::from_u32(0), &[]);
            async move { connection.closed().await }.boxed()
        });
        match ready!(closing.poll_unpin(cx)) {
            ConnectionError::LocallyClosed => Poll::Ready(Ok(())),
            e => Poll::Ready(Err(e)),
        }
    }
}

/// What comes on a stream that we opened.
#[derive(Debug)]
struct Answer {
    connection: Connection,
    window: u32,
    missing: usize,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    send: SendStream,
    recv: RecvStream,
    /// What is closed twice is closed once.
    closed: bool,
    /// None: the other end opened it, or the window is open.
    answer: Option<Answer>,
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(buf);
        ready!(tokio::io::AsyncRead::poll_read(Pin::new(&mut self.recv), cx, &mut into))?;
        let read = into.filled().len();
        if let Some(answer) = &mut self.answer {
            answer.missing = answer.missing.saturating_sub(read);
            if answer.missing == 0 {
                answer.connection.set_receive_window(VarInt::from_u32(answer.window));
                self.answer = None;
            }
        }
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        tokio::io::AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        tokio::io::AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        let end = ready!(tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx));
        self.closed = end.is_ok();
        Poll::Ready(end)
    }
}
