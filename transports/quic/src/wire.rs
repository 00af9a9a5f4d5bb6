//! QUIC's streams as core takes them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use iceshare::icet::stream::EndCode;
use iceshare::net::pipe;
use iceshare::shelf::Shelf;
use iceshare::stream::{Inbound, Lost, Outbound};
use quinn::{Connection, ReadError, RecvStream, SendStream, VarInt, WriteError};

/// What a connection buffers for sending at least, and of its congestion window as a multiple: enough that nothing waits
/// for us, and no more than soon leaves, so that a request that is cancelled stops soon and a slow receiver costs little.
const SEND_WINDOW: (u64, u64) = (512 << 10, 2);
/// What was seen of a connection's path.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The shortest round trip, in microseconds.
    shortest: AtomicU64,
    /// Bytes that were lost, and so sent once more.
    lost: AtomicU64,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen { shortest: AtomicU64::new(u64::MAX), lost: AtomicU64::new(0) }
    }
}

impl Seen {
    /// The shortest round trip, with one more that was measured.
    fn shortest(&self, rtt: Duration) -> Duration {
        let rtt = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.shortest.fetch_min(rtt, Ordering::Relaxed).min(rtt))
    }

    /// Of `lost` bytes in all, those that nobody was told of.
    fn newly_lost(&self, lost: u64) -> u64 {
        lost.saturating_sub(self.lost.fetch_max(lost, Ordering::Relaxed))
    }
}

/// What a connection may buffer for sending, given its congestion window, its shortest round trip, and the most that is allowed.
fn send_window(cwnd: u64, shortest: Duration, most: u64) -> u64 {
    let (least, times) = SEND_WINDOW;
    cwnd.saturating_mul(times).max(least).min(pipe(shortest)).min(most)
}

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
    /// Of the connection.
    pub(crate) seen: Arc<Seen>,
    /// Most bytes that the connection buffers.
    pub(crate) window: u64,
    /// Whose upload limit holds.
    pub(crate) shelf: Option<Arc<Shelf>>,
}

impl Sending {
    /// Sees to it that no more is buffered than is useful and allowed; what was lost and is sent again is counted.
    fn keep_window(&self) {
        let path = self.connection.stats().path;
        let trip = self.seen.shortest(path.rtt);
        let mut window = send_window(path.cwnd, trip, self.window);
        if let Some(shelf) = &self.shelf {
            window = window.min(shelf.in_hand(trip));
            shelf.sent_again(self.seen.newly_lost(path.lost_bytes));
        }
        self.connection.set_send_window(window);
    }
}

impl Outbound for Sending {
    async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), Lost> {
        self.keep_window();
        let begin = chunks.iter().position(|c| !c.is_empty()).unwrap_or(0);
        self.stream.write_chunks(chunks.get_mut(begin..).unwrap_or_default()).await.map_err(|e| match e {
            WriteError::Stopped(n) => Lost::GivenUp(Some(code(n))),
            e => broken(e),
        })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_buffered_than_the_path_can_hold() {
        let most = 16 << 20;
        let trip = Seen::default();
        // Loopback: a congestion window that nothing bounds, and queues that make later round trips longer.
        assert_eq!(send_window(100 << 20, trip.shortest(Duration::from_micros(150)), most), 512 << 10);
        assert_eq!(send_window(100 << 20, trip.shortest(Duration::from_millis(30)), most), 512 << 10);
        // 100 Mbit/s and 100 ms: the congestion window decides, and at last the user.
        let far = Seen::default();
        assert_eq!(send_window(1_250_000, far.shortest(Duration::from_millis(100)), most), 2_500_000);
        assert_eq!(send_window(12_500_000, far.shortest(Duration::from_millis(110)), most), most);
        assert_eq!(send_window(12_500_000, far.shortest(Duration::from_millis(110)), 1 << 20), 1 << 20);
    }

    #[test]
    fn what_is_lost_is_told_once() {
        let seen = Seen::default();
        assert_eq!((seen.newly_lost(100), seen.newly_lost(100), seen.newly_lost(130)), (100, 0, 30));
    }
}
