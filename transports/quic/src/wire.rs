//! QUIC's streams as core takes them.

use std::io;

use bytes::Bytes;
use iceshare::icet::stream::EndCode;
use iceshare::stream::{Inbound, Lost, Outbound};
use quinn::{Connection, ReadError, RecvStream, SendStream, VarInt, WriteError};

/// What a connection buffers for sending at least, and of its congestion window as a multiple: enough that nothing waits
/// for us, and no more than soon leaves, so that a request that is cancelled stops soon and a slow receiver costs little.
const SEND_WINDOW: (u64, u64) = (512 << 10, 2);

/// A code of an application: a stream's as icet's, else as a failure.
fn code(n: VarInt) -> EndCode {
    u16::try_from(n.into_inner()).map_or(EndCode::FAILED, EndCode)
}

fn broken(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Lost {
    Lost::Broken(io::Error::other(e))
}

/// The direction that we read.
#[derive(Debug)]
pub(crate) struct Receiving<const N: usize> {
    from: RecvStream,
    /// Chunks that came, each of one packet, and not handed on yet: up to `N` are taken at once.
    ready: [Bytes; N],
    next: usize,
}

impl<const N: usize> Receiving<N> {
    pub(crate) fn new(from: RecvStream) -> Receiving<N> {
        Receiving { from, ready: std::array::from_fn(|_| Bytes::new()), next: N }
    }
}

impl<const N: usize> Inbound for Receiving<N> {
    async fn read(&mut self) -> Result<Option<Bytes>, Lost> {
        if let Some(chunk) = self.ready.get_mut(self.next).map(std::mem::take).filter(|c| !c.is_empty()) {
            self.next += 1;
            return Ok(Some(chunk));
        }
        let read = self.from.read_chunks(&mut self.ready).await.map_err(|e| match e {
            ReadError::Reset(n) => Lost::GivenUp(Some(code(n))),
            e => broken(e),
        })?;
        self.next = 1;
        Ok(read.and_then(|_| self.ready.first_mut().map(std::mem::take)))
    }
}

/// The direction that we write.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) stream: SendStream,
    pub(crate) connection: Connection,
    /// Most bytes that the connection buffers.
    pub(crate) window: u64,
}

impl Outbound for Sending {
    async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), Lost> {
        let begin = chunks.iter().position(|c| !c.is_empty()).unwrap_or(0);
        self.stream.write_chunks(chunks.get_mut(begin..).unwrap_or_default()).await.map_err(|e| match e {
            WriteError::Stopped(n) => Lost::GivenUp(Some(code(n))),
            e => broken(e),
        })?;
        let (least, times) = SEND_WINDOW;
        let in_flight = self.connection.stats().path.cwnd.saturating_mul(times);
        self.connection.set_send_window(in_flight.max(least).min(self.window));
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Lost> {
        self.stream.finish().map_err(broken)
    }

    fn reset(&mut self, code: EndCode) {
        // Who has ended it before does no harm.
        let _ = self.stream.reset(VarInt::from_u32(code.0.into()));
    }

    fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.stream.stopped();
        async move {
            let _ = stopped.await;
        }
    }
}
