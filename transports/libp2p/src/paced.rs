//! Connections over TCP that hold little while there is an upload limit: Noise keeps up to 128 KiB before the socket and yamux ten writes of each
//! stream, and all of that leaves at once when a line comes back that was cut. So a stream takes a write only when all that was written before
//! is with the system, which holds little too.

use std::future::{Pending, Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures_util::{AsyncRead, AsyncWrite};
use iceshare::net::hold_little;
use libp2p::Multiaddr;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use tokio::net::TcpStream;
use tokio_util::compat::Compat;

/// What a connection holds above its socket.
#[derive(Debug, Default)]
struct State {
    /// Bytes that streams wrote and the socket has not taken. What is between the two only adds to them, so none is left over.
    before: usize,
    gone: bool,
    waiting: Vec<Waker>,
}

impl State {
    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

/// Of one connection. None: it may hold as much as it likes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held(Option<Arc<Mutex<State>>>);

impl Held {
    fn lock(&self) -> Option<MutexGuard<'_, State>> {
        self.0.as_ref().map(|s| s.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A write, as soon as it may come.
    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Some(mut state) = self.lock() else { return write(cx) };
        if state.before > 0 && !state.gone {
            if state.waiting.iter().all(|w| !w.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        // The socket may take it at once, and is told of only afterwards.
        let written = ready!(write(cx));
        state.before += *written.as_ref().unwrap_or(&0);
        Poll::Ready(written)
    }

    fn left(&self, bytes: usize) {
        if let Some(mut state) = self.lock() {
            state.before = state.before.saturating_sub(bytes);
            if state.before == 0 {
                state.wake();
            }
        }
    }

    fn gone(&self) {
        if let Some(mut state) = self.lock() {
            state.gone = true;
            state.wake();
        }
    }
}

/// The lower end of a connection.
#[derive(Debug)]
pub(crate) struct Socket<S = Compat<TcpStream>> {
    inner: S,
    held: Held,
}

impl Socket {
    /// The system may hold so many bytes of it; without an upload limit that is any number.
    pub(crate) fn new(inner: Compat<TcpStream>, in_hand: u64) -> Socket {
        hold_little(inner.get_ref(), in_hand);
        Socket::over(inner, in_hand < u64::MAX)
    }
}

impl<S> Socket<S> {
    fn over(inner: S, limited: bool) -> Socket<S> {
        Socket { inner, held: Held(limited.then(Arc::default)) }
    }

    pub(crate) fn held(&self) -> Held {
        self.held.clone()
    }
}

impl<S> Drop for Socket<S> {
    fn drop(&mut self) {
        self.held.gone();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf));
        self.held.left(*written.as_ref().unwrap_or(&0));
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// The upper end.
#[derive(Debug)]
pub(crate) struct Paced<M> {
    inner: M,
    held: Held,
}

impl<M> Paced<M> {
    pub(crate) fn new(inner: M, held: Held) -> Paced<M> {
        Paced { inner, held }
    }
}

impl<M: StreamMuxer<Substream: Unpin> + Unpin> StreamMuxer for Paced<M> {
    type Substream = Paced<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, M::Error>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_inbound(cx));
        Poll::Ready(stream.map(|s| Paced::new(s, self.held.clone())))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, M::Error>> {
        let stream = ready!(Pin::new(&mut self.inner).poll_outbound(cx));
        Poll::Ready(stream.map(|s| Paced::new(s, self.held.clone())))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut write = |cx: &mut Context<'_>| Pin::new(&mut this.inner).poll_write(cx, buf);
        // Writing nothing asks whether the stream is still there.
        if buf.is_empty() { write(cx) } else { this.held.poll_write(cx, write) }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// A transport of one connection that is there already: so it becomes one of libp2p's, with what is known of it beside.
pub(crate) struct Once<S>(pub(crate) Option<S>);

impl<S> Transport for Once<S> {
    type Output = S;
    type Error = io::Error;
    type ListenerUpgrade = Pending<io::Result<S>>;
    type Dial = Ready<io::Result<S>>;

    fn listen_on(&mut self, _: ListenerId, addr: Multiaddr) -> Result<(), TransportError<io::Error>> {
        Err(TransportError::MultiaddrNotSupported(addr))
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, _: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<io::Error>> {
        Ok(ready(self.0.take().ok_or_else(|| io::ErrorKind::NotConnected.into())))
    }

    fn poll(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures_util::io::{AllowStdIo, Cursor};
    use futures_util::task::noop_waker;

    use super::*;

    type Buffer = AllowStdIo<Vec<u8>>;

    fn pair(limited: bool) -> (Socket<Buffer>, Paced<Cursor<Vec<u8>>>) {
        let socket = Socket::over(AllowStdIo::new(Vec::new()), limited);
        let stream = Paced::new(Cursor::new(Vec::new()), socket.held());
        (socket, stream)
    }

    fn write(to: &mut (impl AsyncWrite + Unpin), bytes: usize) -> Option<usize> {
        match Pin::new(to).poll_write(&mut Context::from_waker(&noop_waker()), &vec![0; bytes]) {
            Poll::Ready(n) => Some(n.expect("a write")),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_write_waits_until_the_socket_has_the_one_before() {
        let (mut socket, mut stream) = pair(true);
        let mut other = Paced::new(Cursor::new(Vec::new()), socket.held());
        // Handshakes are no writes of streams.
        assert_eq!(write(&mut socket, 500), Some(500));
        assert_eq!(write(&mut stream, 1700), Some(1700));
        assert_eq!((write(&mut stream, 1700), write(&mut other, 1)), (None, None));
        assert_eq!(write(&mut stream, 0), Some(0), "which is a question");
        assert_eq!((write(&mut socket, 1000), write(&mut other, 1)), (Some(1000), None));
        assert_eq!((write(&mut socket, 730), write(&mut other, 1)), (Some(730), Some(1)));
        assert_eq!(write(&mut stream, 1), None);
        drop(socket);
        assert_eq!(write(&mut stream, 1), Some(1), "what then becomes of it the stream tells");
    }

    #[test]
    fn without_a_limit_nothing_waits() {
        let (_socket, mut stream) = pair(false);
        assert_eq!((write(&mut stream, 1 << 20), write(&mut stream, 1)), (Some(1 << 20), Some(1)));
    }
}
