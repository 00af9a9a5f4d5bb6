//! Media paths and media ids: what a media is called, on every protocol alike.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Decoder, Encode, Encoder};
use thiserror::Error;

use crate::key::{PeerKey, fixed_bytes, from_hex};
use crate::limits;

/// A media path: UTF-8, `/`-separated, no empty, `.` or `..` segment, no control character, no backslash, at
/// most 1024 bytes, without a leading slash. Decoded once; it is never a path of a file system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaPath(String);

/// Why a text is not a media path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    /// Nothing there.
    #[error("a media path must not be empty")]
    Empty,
    /// More than 1024 bytes.
    #[error("a media path has at most {limit} bytes, this has {0}", limit = limits::PATH)]
    TooLong(usize),
    /// `//`, a leading or a trailing slash.
    #[error("a media path has no empty segment (check for // or a slash at an end)")]
    EmptySegment,
    /// `.` or `..`.
    #[error("a media path has no . or .. segment")]
    DotSegment,
    /// A control character, a backslash or a bidirectional override.
    #[error("a media path has no control characters and no backslash")]
    Control,
    /// A broken percent escape, or one that is not UTF-8.
    #[error("a media path in a URL needs valid percent escapes of UTF-8")]
    Escape,
}

/// Whether a character turns the reading direction (Unicode, Bidi_Control): what it stands in reads as something else.
#[must_use]
pub fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Characters that could fool a terminal, a page or a file system.
fn is_harmful(c: char) -> bool {
    c.is_control() || c == '\\' || is_bidi_control(c)
}

impl MediaPath {
    /// Checks a decoded text.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn new(s: impl Into<String>) -> Result<MediaPath, PathError> {
        let s = s.into();
        if s.is_empty() {
            return Err(PathError::Empty);
        }
        if s.len() > limits::PATH {
            return Err(PathError::TooLong(s.len()));
        }
        if s.chars().any(is_harmful) {
            return Err(PathError::Control);
        }
        for segment in s.split('/') {
            match segment {
                "" => return Err(PathError::EmptySegment),
                "." | ".." => return Err(PathError::DotSegment),
                _ => {}
            }
        }
        Ok(MediaPath(s))
    }

    /// Reads the path component of a URL: at most one leading slash, percent escapes (RFC 3986, section 2.1)
    /// decoded exactly once. An escaped slash is a slash, and so makes no segment that hides one.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn from_url_path(s: &str) -> Result<MediaPath, PathError> {
        let s = s.strip_prefix('/').unwrap_or(s);
        if s.len() > 3 * limits::PATH {
            return Err(PathError::TooLong(s.len()));
        }
        let mut out = Vec::with_capacity(s.len());
        let mut bytes = s.bytes();
        while let Some(b) = bytes.next() {
            if b == b'%' {
                let mut digit =
                    || bytes.next().and_then(|c| char::from(c).to_digit(16)).ok_or(PathError::Escape);
                let value = digit()? * 16 + digit()?;
                out.push(u8::try_from(value).map_err(|_| PathError::Escape)?);
            } else {
                out.push(b);
            }
        }
        MediaPath::new(String::from_utf8(out).map_err(|_| PathError::Escape)?)
    }

    /// The path as it stands in a URL, escaped, without a leading slash. A single quote is escaped too, so that a link can be
    /// pasted into a shell between such quotes.
    #[must_use]
    pub fn to_url_path(&self) -> String {
        let mut out = String::with_capacity(self.0.len());
        for b in self.0.bytes() {
            if b.is_ascii_alphanumeric() || b"-._~/!$&()*+,;=:@".contains(&b) {
                out.push(char::from(b));
            } else {
                out.push_str(&format!("%{b:02X}"));
            }
        }
        out
    }

    /// The decoded text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment, to name a file after.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for MediaPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MediaPath {
    type Err = PathError;
    fn from_str(s: &str) -> Result<Self, PathError> {
        MediaPath::new(s)
    }
}

impl<C> Encode<C> for MediaPath {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for MediaPath {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        MediaPath::new(d.str()?).map_err(|_| crate::refuse("not a media path"))
    }
}

/// Identity of a media: BLAKE3 of `IceShare/1 media\0`, the publisher's key and the path. 32 bytes, hexadecimal
/// for people. This, not the path, is what most messages carry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaId(pub [u8; 32]);
fixed_bytes!(MediaId, 32, "a media id is 32 bytes");

impl MediaId {
    /// The id of what `publisher` calls `path`.
    #[must_use]
    pub fn of(publisher: &PeerKey, path: &MediaPath) -> MediaId {
        let mut h = blake3::Hasher::new();
        h.update(b"IceShare/1 media\0").update(&publisher.0).update(path.as_str().as_bytes());
        MediaId(*h.finalize().as_bytes())
    }

    /// Reads 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(s: &str) -> Option<MediaId> {
        from_hex(s).map(MediaId)
    }
}

impl fmt::Display for MediaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for MediaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MediaId({})", PeerKey(self.0).short())
    }
}
