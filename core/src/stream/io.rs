//! Streams of tokio's kind.

use bytes::{Buf, Bytes, BytesMut};
use icet::stream::EndCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{Inbound, Lost, Outbound};

/// Bytes of a read buffer at first, and at most: it grows while it is filled whole.
const BUFFER: (usize, usize) = (8 << 10, 256 << 10);
/// What is left of a buffer is not read into when it is less than this.
const LEAST: usize = 4 << 10;
/// A chunk shorter than this goes out in one write with the beginning of the next, up to so much of that.
const SMALL: (usize, usize) = (512, 1 << 10);

/// Both directions of `stream`. Dropping them drops it.
pub fn halves<S: AsyncRead + AsyncWrite + Send + 'static>(
    stream: S,
) -> (IoRead<ReadHalf<S>>, IoWrite<WriteHalf<S>>) {
    let (read, write) = tokio::io::split(stream);
    (IoRead::new(read), IoWrite::new(write))
}

/// Reads into large buffers and gives them away, so that pages within one are not copied again.
#[derive(Debug)]
pub struct IoRead<R> {
    from: R,
    buffer: BytesMut,
    size: usize,
}

impl<R> IoRead<R> {
    /// Reads from `from`.
    pub fn new(from: R) -> IoRead<R> {
        IoRead { from, buffer: BytesMut::new(), size: BUFFER.0 }
    }

    /// What it reads from.
    pub fn get_ref(&self) -> &R {
        &self.from
    }
}

impl<R: AsyncRead + Send + Unpin + 'static> Inbound for IoRead<R> {
    async fn read(&mut self) -> Result<Option<Bytes>, Lost> {
        if self.buffer.len() < LEAST {
            // Zeroed once: streams that want buffers so would else have what is free of it zeroed with each read.
            self.buffer = BytesMut::zeroed(self.size);
        }
        let room = self.buffer.len();
        let n = self.from.read(&mut self.buffer).await.map_err(Lost::Broken)?;
        if n == room && room == self.size {
            self.size = (self.size * 2).min(BUFFER.1);
        }
        Ok((n > 0).then(|| self.buffer.split_to(n).freeze()))
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
