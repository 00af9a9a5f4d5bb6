//! Datagrams as such: the headers before what is encrypted.

use std::ops::RangeInclusive;

use super::{MIN_DATAGRAM, Reader, WireError};

/// First bytes of this protocol's datagrams (RFC 9443 leaves them to us).
pub const FIRST_BYTES: RangeInclusive<u8> = 160..=167;
/// The version that is spoken here.
pub const VERSION: u8 = 1;
/// Smallest KNOCK: eight times its answer, so that nobody fills a host's line upwards without filling it downwards first.
pub const KNOCK_LEN: usize = MIN_DATAGRAM;
/// Bytes before the ciphertext of a packet.
pub const PACKET_HEADER: usize = 13;
/// Bytes of a packet that are not frames: header and authentication tag.
pub const PACKET_OVERHEAD: usize = PACKET_HEADER + crate::seal::TAG;

const KNOCK: u8 = 160;
const COOKIE: u8 = 161;
const HELLO: u8 = 162;
const ANSWER: u8 = 163;
const PACKET: u8 = 164;

/// Number of an association, as the peer that receives packets with it knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssocId(pub u64);

/// Length of a Noise public key or identity.
pub type Key = [u8; 32];

/// A datagram, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<'a> {
    /// May I?
    Knock {
        /// The initiator's number.
        initiator: AssocId,
    },
    /// Say so again with this.
    Cookie {
        /// The initiator's number.
        initiator: AssocId,
        /// Good for this address and number.
        cookie: [u8; 32],
        /// The responder's X25519 key.
        static_key: Key,
        /// The responder's signature of it.
        signature: [u8; 64],
    },
    /// The first message of the handshake.
    Hello {
        /// The initiator's number.
        initiator: AssocId,
        /// From the responder.
        cookie: [u8; 32],
        /// Noise message.
        noise: &'a [u8],
    },
    /// The second message of the handshake.
    Answer {
        /// The initiator's number.
        initiator: AssocId,
        /// Noise message.
        noise: &'a [u8],
    },
    /// Frames.
    Packet {
        /// The number that its receiver gave.
        to: AssocId,
        /// Packet number.
        number: u32,
        /// Encrypted frames.
        ciphertext: &'a [u8],
    },
}

impl<'a> Datagram<'a> {
    /// Whether these may be the bytes of a KNOCK, a COOKIE or a HELLO.
    #[must_use]
    pub fn is_of_stranger(bytes: &[u8]) -> bool {
        matches!(bytes.first(), Some(&(KNOCK..=HELLO)))
    }

    /// Takes a datagram apart.
    ///
    /// # Errors
    /// [`WireError`]: to be dropped without an answer.
    pub fn read(bytes: &'a [u8]) -> Result<Datagram<'a>, WireError> {
        let mut r = Reader(bytes);
        let kind = r.u8()?;
        if kind == PACKET {
            let to = AssocId(u64::from_be_bytes(r.array()?));
            let number = u32::from_be_bytes(r.array()?);
            return Ok(Datagram::Packet { to, number, ciphertext: r.0 });
        }
        if !(KNOCK..=ANSWER).contains(&kind) || r.u8()? != VERSION {
            return Err(WireError::Value("no datagram of this version"));
        }
        let initiator = AssocId(u64::from_be_bytes(r.array()?));
        let noise = |mut r: Reader<'a>| {
            let len = u16::from_be_bytes(r.array()?);
            r.bytes(usize::from(len))
        };
        match kind {
            KNOCK if bytes.len() >= KNOCK_LEN => Ok(Datagram::Knock { initiator }),
            COOKIE => {
                let (cookie, static_key, signature) = (r.array()?, r.array()?, r.array()?);
                Ok(Datagram::Cookie { initiator, cookie, static_key, signature })
            }
            HELLO if bytes.len() >= MIN_DATAGRAM => {
                let cookie = r.array()?;
                Ok(Datagram::Hello { initiator, cookie, noise: noise(r)? })
            }
            ANSWER => Ok(Datagram::Answer { initiator, noise: noise(r)? }),
            _ => Err(WireError::Short),
        }
    }

    /// Writes it. `Hello` comes out with 1200 bytes or more, `Knock` with 1200.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MIN_DATAGRAM);
        let noise = |out: &mut Vec<u8>, noise: &[u8]| {
            let len = u16::try_from(noise.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&noise[..usize::from(len)]);
        };
        let head = |out: &mut Vec<u8>, kind, initiator: &AssocId| {
            out.extend_from_slice(&[kind, VERSION]);
            out.extend_from_slice(&initiator.0.to_be_bytes());
        };
        match self {
            Datagram::Knock { initiator } => {
                head(&mut out, KNOCK, initiator);
                out.resize(KNOCK_LEN, 0);
            }
            Datagram::Cookie { initiator, cookie, static_key, signature } => {
                head(&mut out, COOKIE, initiator);
                out.extend_from_slice(cookie);
                out.extend_from_slice(static_key);
                out.extend_from_slice(signature);
            }
            Datagram::Hello { initiator, cookie, noise: message } => {
                head(&mut out, HELLO, initiator);
                out.extend_from_slice(cookie);
                noise(&mut out, message);
                out.resize(out.len().max(MIN_DATAGRAM), 0);
            }
            Datagram::Answer { initiator, noise: message } => {
                head(&mut out, ANSWER, initiator);
                noise(&mut out, message);
            }
            Datagram::Packet { to, number, ciphertext } => {
                out.extend_from_slice(&packet_header(*to, *number));
                out.extend_from_slice(ciphertext);
            }
        }
        out
    }
}

/// What stands before the ciphertext of a packet.
#[must_use]
pub fn packet_header(to: AssocId, number: u32) -> [u8; PACKET_HEADER] {
    let mut out = [PACKET; PACKET_HEADER];
    out[1..9].copy_from_slice(&to.0.to_be_bytes());
    out[9..].copy_from_slice(&number.to_be_bytes());
    out
}
