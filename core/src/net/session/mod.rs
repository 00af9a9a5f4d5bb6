//! IceT sessions: messages both ways over a QUIC stream or TLS on TCP, the same type for both carriers and ends.
//!
//! A peer dials with [`connect`]; a tracker takes sessions from a [`Listener`], and proves addresses with a [`Dialer`].

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use icet::frame::{self, FrameError};
use icet::message::{ErrorCode, ErrorMessage, ToPeer, ToTracker};
use icet::{NetAddr, PeerKey};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsStream;

mod connect;
mod dial_back;
mod listener;
mod out;
#[cfg(test)]
mod tests;

pub use connect::{ConnectError, ConnectOptions, connect, connect_with};
pub use dial_back::Dialer;
pub use listener::Listener;
pub use out::{SendError, Sender};

use out::{Shared, WriteHalf};

/// How long the rest of a frame may take after its first byte.
const FRAME_TIME: Duration = Duration::from_secs(30);
/// Malformed messages that a session survives.
const MALFORMED: u32 = 16;
/// Bytes that are read at once, and at most while a long frame comes. Most are short, and a tracker has a buffer for each
/// of its sessions.
const READ: (usize, usize) = (1 << 10, 16 << 10);

/// A message of one direction.
pub trait Message: Sized + Send + 'static {
    /// Appends it as a frame.
    fn write(&self, out: &mut Vec<u8>);
    /// Decodes the body of a frame.
    ///
    /// # Errors
    /// [`FrameError::Malformed`].
    fn from_body(body: &[u8]) -> Result<Self, FrameError>;
    /// The message of this direction that answers a malformed one of the other, if there is such a thing.
    fn complaint(_about: &FrameError) -> Option<Self> {
        None
    }
}

impl Message for ToTracker {
    fn write(&self, out: &mut Vec<u8>) {
        ToTracker::write(self, out);
    }
    fn from_body(body: &[u8]) -> Result<Self, FrameError> {
        ToTracker::from_body(body)
    }
}

impl Message for ToPeer {
    fn write(&self, out: &mut Vec<u8>) {
        ToPeer::write(self, out);
    }
    fn from_body(body: &[u8]) -> Result<Self, FrameError> {
        ToPeer::from_body(body)
    }
    fn complaint(about: &FrameError) -> Option<Self> {
        let mut text = about.to_string();
        while text.len() > icet::limits::TEXT {
            text.pop();
        }
        let code = ErrorCode::BAD_MESSAGE;
        Some(ErrorMessage { code, request: None, media: None, text, retry: None }.into())
    }
}

/// Why nothing more comes.
#[derive(Debug, Error)]
pub enum RecvError {
    /// The other end closed the session in good order; its reason, if the carrier told one.
    #[error("the other end closed the session{}", if reason.is_empty() { String::new() } else { format!(": {reason}") })]
    Closed {
        /// For people; may be empty.
        reason: String,
    },
    /// The connection broke or went silent.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// The other end does not keep to the framing, or sent too many malformed messages.
    #[error("the other end does not keep to the protocol")]
    Frame(#[from] FrameError),
    /// A frame began and did not end within 30 seconds, or (at a tracker) none came in time after the handshake.
    #[error("a message did not arrive in time")]
    Slow,
}

/// The receiving half of a session.
pub struct Receiver<S, R> {
    read: Box<dyn AsyncRead + Send + Sync + Unpin>,
    quic: Option<quinn::Connection>,
    buffer: BytesMut,
    /// Until when the frame that has begun must be complete.
    due: Option<Instant>,
    malformed: u32,
    taken: u64,
    /// Bytes that came, whole frames or not.
    heard: u64,
    shared: Arc<Shared>,
    ended: bool,
    /// What came while nobody asked.
    first: Option<Box<Result<R, RecvError>>>,
    messages: PhantomData<fn(S) -> R>,
}

impl<S, R> std::fmt::Debug for Receiver<S, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl<S: Message, R: Message> Receiver<S, R> {
    /// The next message. A malformed one is answered if the other end could understand that
    /// ([`FrameError::answer`]), and skipped; after 16 of them, or one without a readable number, the session ends.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`RecvError`]; after it, nothing more comes and the session is closed.
    pub async fn recv(&mut self) -> Result<R, RecvError> {
        if let Some(first) = self.first.take() {
            return *first;
        }
        if self.ended {
            return Err(RecvError::Closed { reason: String::new() });
        }
        let result = self.next().await;
        if let Err(e) = &result {
            self.ended = true;
            self.shared.close(&e.to_string());
        }
        result
    }

    /// Bytes of all frames that came so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    async fn next(&mut self) -> Result<R, RecvError> {
        loop {
            if let Some((body, taken)) = frame::split(&self.buffer)? {
                let message = R::from_body(body);
                let _ = self.buffer.split_to(taken);
                self.taken += taken as u64;
                self.due = (!self.buffer.is_empty()).then(|| Instant::now() + FRAME_TIME);
                match message {
                    Ok(message) => return Ok(message),
                    Err(e) => self.survive(e)?,
                }
                continue;
            }
            // Memory grows with what has come, not with what a length announces.
            if self.buffer.is_empty() && self.buffer.capacity() > 2 * READ.0 {
                self.buffer = BytesMut::new();
            }
            self.buffer.reserve(self.buffer.len().clamp(READ.0, READ.1));
            let read = self.read.read_buf(&mut self.buffer);
            let read = match self.due {
                Some(due) => timeout_at(due, read).await.map_err(|_| RecvError::Slow)?,
                None => read.await,
            };
            match read {
                Ok(0) => return Err(self.end().await),
                Ok(n) => {
                    self.heard += n as u64;
                    self.due.get_or_insert_with(|| Instant::now() + FRAME_TIME);
                }
                Err(e) => return Err(self.broken(e)),
            }
        }
    }

    fn survive(&mut self, e: FrameError) -> Result<(), RecvError> {
        self.malformed += 1;
        if !e.answer() || self.malformed > MALFORMED {
            return Err(e.into());
        }
        tracing::debug!(error = %e, "malformed message");
        if let Some(complaint) = S::complaint(&e) {
            // If it cannot be queued, the other end does not listen anyway.
            let _ = self.shared.push(&complaint);
        }
        Ok(())
    }

    /// What the end of the stream means.
    async fn end(&mut self) -> RecvError {
        if !self.buffer.is_empty() {
            return RecvError::Broken(io::ErrorKind::UnexpectedEof.into());
        }
        let mut reason = String::new();
        if let Some(quic) = &self.quic
            && let Ok(quinn::ConnectionError::ApplicationClosed(c)) =
                timeout(Duration::from_millis(500), quic.closed()).await
        {
            reason = String::from_utf8_lossy(&c.reason).into_owned();
        }
        RecvError::Closed { reason }
    }

    fn broken(&self, e: io::Error) -> RecvError {
        match self.quic.as_ref().and_then(quinn::Connection::close_reason) {
            Some(quinn::ConnectionError::ApplicationClosed(c)) => {
                RecvError::Closed { reason: String::from_utf8_lossy(&c.reason).into_owned() }
            }
            Some(other) => RecvError::Broken(io::Error::other(other)),
            None => RecvError::Broken(e),
        }
    }
}

/// Signs of life of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vitals {
    /// Bytes of all frames that were queued so far.
    pub sent: u64,
    /// Grows with everything that comes from the other end.
    pub heard: u64,
    /// Round-trip time as far as the carrier knows it, else zero.
    pub rtt: Duration,
    /// Whether what is sent makes the other end send something, so that `heard` grows without an answer (QUIC).
    pub acknowledges: bool,
}

/// One end of a session: sends `S`, receives `R`.
#[derive(Debug)]
pub struct Session<S, R> {
    peer: PeerKey,
    remote: NetAddr,
    sender: Sender<S>,
    receiver: Receiver<S, R>,
}

/// A session as a peer has it.
pub type PeerSession = Session<ToTracker, ToPeer>;
/// A session as a tracker has it.
pub type TrackerSession = Session<ToPeer, ToTracker>;

impl<S: Message, R: Message> Session<S, R> {
    fn new(
        peer: PeerKey,
        remote: NetAddr,
        read: Box<dyn AsyncRead + Send + Sync + Unpin>,
        write: WriteHalf,
        quic: Option<quinn::Connection>,
    ) -> Session<S, R> {
        let (sender, shared) = out::start(write);
        let receiver = Receiver {
            read,
            quic,
            buffer: BytesMut::new(),
            due: None,
            malformed: 0,
            taken: 0,
            heard: 0,
            shared,
            ended: false,
            first: None,
            messages: PhantomData,
        };
        Session { peer, remote, sender, receiver }
    }

    fn over_quic(
        connection: quinn::Connection,
        (send, recv): (quinn::SendStream, quinn::RecvStream),
        peer: PeerKey,
        remote: NetAddr,
    ) -> Session<S, R> {
        let write = WriteHalf::Quic(send, connection.clone());
        Session::new(peer, remote, Box::new(recv), write, Some(connection))
    }

    fn over_tls(stream: TlsStream<TcpStream>, peer: PeerKey, remote: NetAddr) -> Session<S, R> {
        let (read, write) = tokio::io::split(stream);
        Session::new(peer, remote, Box::new(read), WriteHalf::Tls(write), None)
    }

    /// The key that the other end proved.
    #[must_use]
    pub fn peer(&self) -> PeerKey {
        self.peer
    }

    /// Where the other end is, and over which carrier: UDP means QUIC, TCP means TLS.
    #[must_use]
    pub fn remote(&self) -> NetAddr {
        self.remote
    }

    /// How it does. Over TLS `heard` grows only while [`Session::recv`] is waited for.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let sent = self.sender.sent();
        match &self.receiver.quic {
            Some(quic) => {
                let stats = quic.stats();
                Vitals { sent, heard: stats.udp_rx.datagrams, rtt: stats.path.rtt, acknowledges: true }
            }
            None => Vitals { sent, heard: self.receiver.heard, rtt: Duration::ZERO, acknowledges: false },
        }
    }

    /// A sending half; as many as wanted.
    #[must_use]
    pub fn sender(&self) -> Sender<S> {
        self.sender.clone()
    }

    /// Both halves, for two tasks. When every sender is dropped, what is queued still goes out, then the session
    /// closes.
    #[must_use]
    pub fn split(self) -> (Sender<S>, Receiver<S, R>) {
        (self.sender, self.receiver)
    }

    /// See [`Sender::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, message: &S) -> Result<(), SendError> {
        self.sender.send(message).await
    }

    /// See [`Receiver::recv`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv(&mut self) -> Result<R, RecvError> {
        self.receiver.recv().await
    }

    /// Waits until [`Session::recv`] has something to give. Not cancel safe.
    async fn wait(&mut self) {
        self.receiver.first = Some(Box::new(self.receiver.recv().await));
    }

    /// Sends what is queued, then closes; the other end is told `reason` where the carrier can (QUIC). Waits for
    /// that at most about 3 seconds.
    pub async fn close(self, reason: &str) {
        self.sender.close(reason);
        self.sender.closed().await;
    }
}
