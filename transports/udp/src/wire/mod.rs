//! What goes over the wire: datagrams, frames, requests (`proto-spec/spec/udp.md`). No IO, no state.

pub mod datagram;
mod frame;
mod request;
mod varint;

use thiserror::Error;

pub use frame::{Ack, Data, Frame, Frames, Places, data_header_len};
pub use request::Body;
pub use varint::{Reader, put_varint, varint_len};

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// They end early.
    #[error("it ends early")]
    Short,
    /// A frame of a type that there is not.
    #[error("frame type {0} is unknown")]
    UnknownFrame(u8),
    /// A value that its field cannot have.
    #[error("{0}")]
    Value(&'static str),
}

/// Largest variable-length integer.
pub const MAX_VARINT: u64 = (1 << 62) - 1;
/// Places of a page or slice.
pub const UNIT: u64 = 1 << 16;
/// Most intervals in one REPAIR.
pub const REPAIR_INTERVALS: usize = 64;
/// Most ranges beside the first in one ACK.
pub const ACK_RANGES: usize = 32;
/// Longest body of a request.
pub const BODY: usize = 8 + iceshare::icet::limits::STREAM_FRAME;
/// Smallest datagram that every path carries, and the size of a HELLO.
pub const MIN_DATAGRAM: usize = 1200;
/// Largest datagram that anything here makes or takes.
pub const MAX_DATAGRAM: usize = 8952;

/// Why an association ends, in a CLOSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// No longer needed.
    Idle,
    /// The other end broke the protocol.
    Protocol,
    /// The peer shuts down.
    Shutdown,
    /// The peer has too many.
    Busy,
    /// A reason that is not known here.
    Other(u64),
}

impl CloseReason {
    /// As a number.
    #[must_use]
    pub fn code(self) -> u64 {
        match self {
            CloseReason::Idle => 0,
            CloseReason::Protocol => 1,
            CloseReason::Shutdown => 2,
            CloseReason::Busy => 3,
            CloseReason::Other(n) => n,
        }
    }

    /// From a number.
    #[must_use]
    pub fn from_code(n: u64) -> CloseReason {
        match n {
            0 => CloseReason::Idle,
            1 => CloseReason::Protocol,
            2 => CloseReason::Shutdown,
            3 => CloseReason::Busy,
            n => CloseReason::Other(n),
        }
    }
}

#[cfg(test)]
mod tests;
