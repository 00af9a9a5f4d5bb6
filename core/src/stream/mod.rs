//! Pages over any reliable stream (`proto-spec/spec/stream.md`): one request a stream, answered by [`Server`], made by
//! [`ask`]. Payload protocol `quic` is this over QUIC's streams; over another carrier, only [`Inbound`] and [`Outbound`]
//! differ. For what is `AsyncRead + AsyncWrite`, [`halves`] makes both (of futures' kind with `tokio_util::compat`).

mod ask;
mod doubt;
mod intake;
mod io;
mod pool;
mod server;
#[cfg(test)]
mod tests;

use std::future::Future;

use bytes::Bytes;
use icet::stream::EndCode;
use thiserror::Error;

pub use ask::{Answer, ask};
pub use doubt::{DOUBT, Doubt, Listening};
pub use icet::stream::{ALPN, PROTOCOL};
pub use io::{IoRead, IoWrite, halves};
pub use pool::BufferPool;
pub use server::{Ended, Server, Timing};

use crate::protocol::ErrorKind;

/// Why a direction of a stream ended before its time.
#[derive(Debug, Error)]
pub enum Lost {
    /// The other end gave it up, with this code where the carrier has codes.
    #[error("the other end gave the stream up")]
    GivenUp(Option<EndCode>),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] std::io::Error),
}

impl Lost {
    fn kind(&self) -> ErrorKind {
        match self {
            Lost::GivenUp(Some(code)) if *code != EndCode::COMPLETE => kind_of(*code),
            _ => ErrorKind::Broken,
        }
    }
}

/// The direction that we read. Dropping it tells the other end that nothing more is wanted.
pub trait Inbound: Send + 'static {
    /// The next bytes, never empty; none at the end. Cancel safe.
    ///
    /// # Errors
    /// [`Lost`].
    fn read(&mut self) -> impl Future<Output = Result<Option<Bytes>, Lost>> + Send;
}

/// The direction that we write.
pub trait Outbound: Send + 'static {
    /// Writes from the front of `chunks` as much as there is room for, at least one byte, and takes it off them. Cancel safe.
    /// At least one of them is not empty.
    ///
    /// # Errors
    /// [`Lost`].
    fn write(&mut self, chunks: &mut [Bytes]) -> impl Future<Output = Result<(), Lost>> + Send;

    /// Sees to it that what was written leaves.
    ///
    /// # Errors
    /// [`Lost`].
    fn flush(&mut self) -> impl Future<Output = Result<(), Lost>> + Send {
        async { Ok(()) }
    }

    /// Ends the direction in the orderly way.
    ///
    /// # Errors
    /// [`Lost`].
    fn finish(&mut self) -> impl Future<Output = Result<(), Lost>> + Send;

    /// Ends the direction at once; what was not sent yet may be discarded. Dropping it unfinished should do the same.
    fn reset(&mut self, code: EndCode);

    /// Returns when the other end wants no more, where the carrier tells without a write.
    fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }
}

/// What an ending means to who asked.
#[must_use]
pub fn kind_of(code: EndCode) -> ErrorKind {
    match code {
        EndCode::NO_MEDIA => ErrorKind::NoMedia,
        EndCode::BEYOND | EndCode::MISSING => ErrorKind::NoRange,
        EndCode::DENIED => ErrorKind::Denied,
        EndCode::BUSY => ErrorKind::Busy,
        EndCode::BAD_REQUEST => ErrorKind::Protocol,
        _ => ErrorKind::Broken,
    }
}

/// How to tell an error to who asked.
#[must_use]
pub fn code_of(kind: ErrorKind) -> EndCode {
    match kind {
        ErrorKind::NoMedia => EndCode::NO_MEDIA,
        ErrorKind::NoRange => EndCode::MISSING,
        ErrorKind::Denied => EndCode::DENIED,
        ErrorKind::Busy => EndCode::BUSY,
        ErrorKind::Protocol => EndCode::BAD_REQUEST,
        _ => EndCode::FAILED,
    }
}
