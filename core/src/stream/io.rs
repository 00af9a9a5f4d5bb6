//! Streams of tokio's kind.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use icet::stream::EndCode;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};

use super::{BufferPool, Inbound, Lost, Outbound};

/// Bytes of a read buffer at first, and at most: it grows while it is filled whole.
const BUFFER: (usize, usize) = (8 << 10, 128 << 10);
/// A buffer of which less than one in so many bytes is used is not given away.
const SPARSE: usize = 4;
/// Buffers that wait for their next use.
const SPARE: usize = 8;
/// A chunk shorter than this goes out in one write with the beginning of the next, up to so much of that.
const SMALL: (usize, usize) = (512, 1 << 10);

/// Both directions of `stream`. Dropping them drops it.
pub fn halves<S: AsyncRead + AsyncWrite + Send + 'static>(
    stream: S,
) -> (IoRead<ReadHalf<S>>, IoWrite<WriteHalf<S>>) {
    let (read, write) = tokio::io::split(stream);
    (IoRead::new(read), IoWrite::new(write))
}

/// Reads into large buffers and gives them away, so that pages within one are not copied again. Takes all that is there at
/// once.
#[derive(Debug)]
pub struct IoRead<R> {
    from: R,
    buffer: Vec<u8>,
    size: usize,
    pool: BufferPool,
    /// What ended it, behind the bytes that came before.
    ended: Option<io::Error>,
}

impl<R> IoRead<R> {
    /// Reads from `from`.
    pub fn new(from: R) -> IoRead<R> {
        IoRead { from, buffer: Vec::new(), size: BUFFER.0, pool: BufferPool::new(SPARE), ended: None }
    }

    /// What it reads from.
    pub fn get_ref(&self) -> &R {
        &self.from
    }

    /// A buffer to read into.
    fn refill(&mut self) {
        self.buffer = self.pool.take().filter(|b| b.len() == self.size).unwrap_or_else(|| vec![0; self.size]);
    }

    /// The first `n` bytes of the buffer, which were read.
    fn give(&mut self, n: usize) -> Bytes {
        if n < self.buffer.len() / SPARSE {
            return Bytes::copy_from_slice(self.buffer.get(..n).unwrap_or_default());
        }
        if n == self.buffer.len() {
            self.size = (self.size * 2).min(BUFFER.1);
        }
        self.pool.lend(std::mem::take(&mut self.buffer)).slice(..n)
    }
}

impl<R: AsyncRead + Unpin> IoRead<R> {
    /// How many bytes were read into the buffer: all that are there, and at least one; 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(e) = self.ended.take() {
            return Poll::Ready(Err(e));
        }
        let mut buffer = ReadBuf::new(&mut self.buffer);
        loop {
            let before = buffer.filled().len();
            let read = Pin::new(&mut self.from).poll_read(cx, &mut buffer);
            let filled = buffer.filled().len();
            match read {
                Poll::Ready(Err(e)) if filled > 0 => self.ended = Some(e),
                Poll::Pending if filled > 0 => {}
                read => {
                    ready!(read)?;
                    if filled > before && buffer.remaining() > 0 {
                        continue;
                    }
                }
            }
            return Poll::Ready(Ok(filled));
        }
    }
}

impl<R: AsyncRead + Send + Unpin + 'static> Inbound for IoRead<R> {
    async fn read(&mut self) -> Result<Option<Bytes>, Lost> {
        if self.buffer.is_empty() {
            self.refill();
        }
        let n = poll_fn(|cx| self.poll_fill(cx)).await.map_err(Lost::Broken)?;
        Ok((n > 0).then(|| self.give(n)))
    }
}

/// Writes to anything.
#[derive(Debug)]
pub struct IoWrite<W>(W);

impl<W> IoWrite<W> {
    /// Writes to `to`.
    pub fn new(to: W) -> IoWrite<W> {
        IoWrite(to)
    }

    /// What it writes to.
    pub fn get_ref(&self) -> &W {
        &self.0
    }
}

impl<W: AsyncWrite + Send + Unpin + 'static> Outbound for IoWrite<W> {
    async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), Lost> {
        let mut left = chunks.iter_mut().filter(|c| !c.is_empty());
        let Some(first) = left.next() else { return Ok(()) };
        if first.len() < SMALL.0
            && let Some(next) = left.next()
        {
            let part = next.split_to(next.len().min(SMALL.1));
            *first = [&first[..], &part].concat().into();
        }
        match self.0.write(first).await.map_err(Lost::Broken)? {
            0 => Err(Lost::GivenUp(None)),
            n => {
                first.advance(n);
                Ok(())
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Lost> {
        self.0.flush().await.map_err(Lost::Broken)
    }

    async fn finish(&mut self) -> Result<(), Lost> {
        self.0.shutdown().await.map_err(Lost::Broken)
    }

    /// Nothing: it is the drop of both directions that resets.
    fn reset(&mut self, _: EndCode) {}
}
