//! What a carrier's stream does, and the plainest one: TCP.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{Failure, ready, send, take};

/// The receiving end.
pub(crate) trait Read {
    /// Bytes that came; 0 at the end.
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Failure>;
}

/// The sending end.
pub(crate) trait Write {
    /// All of `bytes`.
    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure>;
    /// That is all.
    async fn finish(&mut self) -> Result<(), Failure>;
}

impl Read for TcpStream {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        Ok(AsyncReadExt::read(self, into).await?)
    }
}

impl Write for TcpStream {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        Ok(self.write_all(&bytes).await?)
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.shutdown().await?)
    }
}

pub(crate) async fn serve_tcp(file: &str) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    ready(listener.local_addr()?)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        send(file, &mut stream).await?;
    }
}

pub(crate) async fn fetch_tcp(from: &str, out: &str) -> Result<(), Failure> {
    take(&mut TcpStream::connect(from).await?, out).await
}
