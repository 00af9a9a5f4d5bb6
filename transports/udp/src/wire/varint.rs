//! Variable-length integers (RFC 9000, section 16) and reading in order.

use super::{MAX_VARINT, WireError};

/// Bytes that `n` takes.
#[must_use]
pub const fn varint_len(n: u64) -> usize {
    match n {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Appends `n`, which must be at most [`MAX_VARINT`] (a larger one is written as that).
pub fn put_varint(out: &mut Vec<u8>, n: u64) {
    let n = n.min(MAX_VARINT);
    let bytes = n.to_be_bytes();
    let len = varint_len(n);
    let at = out.len();
    out.extend_from_slice(&bytes[8 - len..]);
    let prefix = match len {
        1 => 0,
        2 => 0x40,
        4 => 0x80,
        _ => 0xc0,
    };
    if let Some(first) = out.get_mut(at) {
        *first |= prefix;
    }
}

/// Takes bytes apart from the front.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[b]| b)
    }

    /// The next variable-length integer.
    ///
    /// # Errors
    /// [`WireError::Short`].
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let first = *self.0.first().ok_or(WireError::Short)?;
        let len = 1usize << (first >> 6);
        let bytes = self.bytes(len)?;
        let rest = bytes.get(1..).unwrap_or_default();
        Ok(rest.iter().fold(u64::from(first & 0x3f), |n, b| n << 8 | u64::from(*b)))
    }

    /// The next variable-length integer, as a length of at most `max`.
    ///
    /// # Errors
    /// [`WireError::Short`], or [`WireError::Value`] saying `what`.
    pub fn length(&mut self, max: usize, what: &'static str) -> Result<usize, WireError> {
        let n = self.varint()?;
        usize::try_from(n).ok().filter(|n| *n <= max).ok_or(WireError::Value(what))
    }
}
