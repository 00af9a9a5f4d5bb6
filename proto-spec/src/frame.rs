//! Framing: a frame is a `uint32`, big endian, the length of the body (at most 1 MiB), and the body: one CBOR item.

use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::limits;

/// Bytes of the length before each body.
pub const HEADER: usize = 4;

/// Why bytes are not a frame or its body not a message. Whether it deserves an answer: see [`FrameError::answer`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length exceeds the limit.
    #[error("a frame of {0} bytes exceeds the limit of {limit}", limit = limits::FRAME)]
    TooLong(usize),
    /// The body is not CBOR of the shape of its message.
    #[error("malformed message {kind:?}: {why}")]
    Malformed {
        /// The message's number, if that could be read.
        kind: Option<u64>,
        /// What was wrong.
        why: String,
    },
}

impl FrameError {
    /// Whether the sender could understand an error message about it (and the connection can go on after it).
    #[must_use]
    pub fn answer(&self) -> bool {
        matches!(self, FrameError::Malformed { kind: Some(_), .. })
    }
}

/// CBOR of `value`.
#[must_use]
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    // Writing to a Vec cannot fail, and no encoder here makes an error of its own.
    let result = minicbor::encode(value, &mut out);
    debug_assert!(result.is_ok());
    out
}

/// The value whose CBOR is all of `bytes`.
///
/// # Errors
/// If it is not, or if something follows it.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, minicbor::decode::Error> {
    let mut d = minicbor::Decoder::new(bytes);
    let value = d.decode()?;
    if d.position() != bytes.len() {
        return Err(crate::refuse("something follows the item"));
    }
    Ok(value)
}

/// Appends a frame with `value` as its body.
pub fn write<T: Encode<()>>(value: &T, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend_from_slice(&[0; HEADER]);
    let result = minicbor::encode(value, &mut *out);
    debug_assert!(result.is_ok());
    let len = u32::try_from(out.len() - at - HEADER).unwrap_or(u32::MAX);
    out[at..at + HEADER].copy_from_slice(&len.to_be_bytes());
}

/// Looks for a frame at the beginning of `bytes`: its body, and how many bytes it takes with its header.
/// None: more bytes are needed.
///
/// # Errors
/// [`FrameError::TooLong`], after which the connection can only be closed.
pub fn split(bytes: &[u8]) -> Result<Option<(&[u8], usize)>, FrameError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let len = u32::from_be_bytes(*head) as usize;
    if len > limits::FRAME {
        return Err(FrameError::TooLong(len));
    }
    Ok(rest.get(..len).map(|body| (body, HEADER + len)))
}
