//! The sending half of a session: a bounded queue of encoded frames, written by one task in as few writes as it can.

use std::io;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use icet::{frame, limits};
use thiserror::Error;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Message;

/// Bytes of frames that may wait; a frame is taken while fewer wait, so it is this and one frame at most.
const QUEUE: usize = 2 << 20;
/// Bytes that go to the carrier at once.
const WRITE: usize = 64 << 10;
/// A buffer that grew longer is given back when it is written: a tracker has two for each of its sessions.
const KEPT: usize = 1 << 10;
/// How long the other end may take no byte at all.
const STUCK: Duration = Duration::from_secs(30);
/// How long a closing session waits for what is queued to be taken, and for the goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// Why a message was not queued.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// The session is closed.
    #[error("the session is closed: {0}")]
    Closed(String),
    /// The other end does not read as fast as we write ([`Sender::try_send`] only).
    #[error("2 MiB of messages wait for the other end")]
    Full,
    /// The message exceeds the limit of a frame, 1 MiB.
    #[error("a message of {0} bytes exceeds the limit of a frame")]
    TooLong(usize),
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Bytes that the writing task has taken and not yet written.
    writing: usize,
    /// Bytes of all frames that were ever queued.
    sent: u64,
    closed: Option<String>,
}

#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    work: Notify,
    room: Notify,
    /// The writing task has ended.
    over: CancellationToken,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push<S: Message>(&self, message: &S) -> Result<(), SendError> {
        let mut q = self.lock();
        if let Some(why) = &q.closed {
            return Err(SendError::Closed(why.clone()));
        }
        if q.bytes.len() + q.writing >= QUEUE {
            return Err(SendError::Full);
        }
        let at = q.bytes.len();
        message.write(&mut q.bytes);
        let body = q.bytes.len() - at - frame::HEADER;
        if body > limits::FRAME {
            q.bytes.truncate(at);
            return Err(SendError::TooLong(body));
        }
        q.sent += (body + frame::HEADER) as u64;
        drop(q);
        self.work.notify_one();
        Ok(())
    }

    pub(super) fn close(&self, reason: &str) {
        self.lock().closed.get_or_insert_with(|| reason.to_owned());
        self.work.notify_one();
        self.room.notify_waiters();
    }
}

/// Closes the session when the last sender is dropped.
#[derive(Debug)]
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.close("");
    }
}

/// Sends messages of a session. Clones share it.
#[derive(Debug)]
pub struct Sender<S> {
    shared: Arc<Last>,
    messages: PhantomData<fn(S)>,
}

impl<S> Clone for Sender<S> {
    fn clone(&self) -> Sender<S> {
        Sender { shared: self.shared.clone(), messages: PhantomData }
    }
}

impl<S: Message> Sender<S> {
    /// Queues a message; waits while 2 MiB are queued. `Ok` does not mean that it has arrived. Cancel safe: a
    /// message is queued whole or not at all.
    ///
    /// # Errors
    /// [`SendError::Closed`], [`SendError::TooLong`].
    pub async fn send(&self, message: &S) -> Result<(), SendError> {
        loop {
            let room = self.shared.0.room.notified();
            tokio::pin!(room);
            // Before the look, so that no notice between both is missed.
            room.as_mut().enable();
            match self.try_send(message) {
                Err(SendError::Full) => room.await,
                other => return other,
            }
        }
    }

    /// Queues a message if there is room.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn try_send(&self, message: &S) -> Result<(), SendError> {
        self.shared.0.push(message)
    }

    /// Bytes that wait to be taken by the other end.
    #[must_use]
    pub fn queued(&self) -> usize {
        let q = self.shared.0.lock();
        q.bytes.len() + q.writing
    }

    /// Bytes of all frames queued so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.0.lock().sent
    }

    /// Closes the session after what is queued; see [`super::Session::close`].
    pub fn close(&self, reason: &str) {
        self.shared.0.close(reason);
    }

    /// Waits until the session is closed and nothing more is written.
    pub async fn closed(&self) {
        self.shared.0.over.cancelled().await;
    }

    /// Whether it is.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.0.lock().closed.is_some()
    }
}

/// Where the frames go.
pub(super) enum WriteHalf {
    Quic(quinn::SendStream, quinn::Connection),
    Tls(tokio::io::WriteHalf<TlsStream<TcpStream>>),
}

pub(super) fn start<S>(write: WriteHalf) -> (Sender<S>, Arc<Shared>) {
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        work: Notify::new(),
        room: Notify::new(),
        over: CancellationToken::new(),
    });
    let sender = Sender { shared: Arc::new(Last(shared.clone())), messages: PhantomData };
    tokio::spawn(run(write, shared.clone()));
    (sender, shared)
}

async fn run(mut write: WriteHalf, shared: Arc<Shared>) {
    let over = shared.over.clone().drop_guard();
    let result = match &mut write {
        WriteHalf::Quic(send, _) => pump(send, &shared).await,
        WriteHalf::Tls(tls) => pump(tls, &shared).await,
    };
    if let Err(e) = &result {
        shared.close(&e.to_string());
    }
    let reason = shared.lock().closed.clone().unwrap_or_default();
    match write {
        WriteHalf::Quic(mut send, connection) => {
            if result.is_ok() && send.finish().is_ok() {
                // Closing the connection would discard what the other end has not yet got.
                let _ = timeout(GOODBYE, send.stopped()).await;
            }
            let reason = reason.as_bytes();
            connection.close(quinn::VarInt::from_u32(0), reason.get(..256).unwrap_or(reason));
        }
        WriteHalf::Tls(mut tls) => {
            let _ = timeout(GOODBYE, tls.shutdown()).await;
        }
    }
    drop(over);
}

/// Writes until the session is closed and the queue empty.
async fn pump(write: &mut (impl AsyncWrite + Unpin), shared: &Shared) -> io::Result<()> {
    let mut chunk = Vec::new();
    loop {
        let closed = {
            let mut q = shared.lock();
            chunk.clear();
            std::mem::swap(&mut chunk, &mut q.bytes);
            q.writing = chunk.len();
            q.closed.is_some()
        };
        if chunk.is_empty() {
            if closed {
                return Ok(());
            }
            shared.work.notified().await;
            continue;
        }
        let patience = if closed { GOODBYE } else { STUCK };
        let stuck = |_| io::Error::new(io::ErrorKind::TimedOut, "the other end does not read");
        for piece in chunk.chunks(WRITE) {
            timeout(patience, write.write_all(piece)).await.map_err(stuck)??;
            let mut q = shared.lock();
            q.writing -= piece.len();
            drop(q);
            shared.room.notify_waiters();
        }
        timeout(patience, write.flush()).await.map_err(stuck)??;
        if chunk.capacity() > KEPT {
            chunk = Vec::new();
        }
    }
}
