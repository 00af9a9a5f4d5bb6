//! The keys of an association: packets sealed and opened where they lie. (The library of the handshake does the same, but
//! copies every packet once at each end.)

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use snow::HandshakeState;

/// Bytes that sealing adds.
pub const TAG: usize = 16;

/// Keys of both directions, AES-256-GCM with the packet's number as nonce (The Noise Protocol Framework, sections 5.1 and 12.4).
pub struct Keys {
    seal: LessSafeKey,
    open: LessSafeKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

fn key(bytes: [u8; 32]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, &bytes).ok().map(LessSafeKey::new)
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

impl Keys {
    /// Of a handshake that is complete (section 5.2, `Split`). None: it is not.
    pub(crate) fn split(state: &mut HandshakeState) -> Option<Keys> {
        if !state.is_handshake_finished() {
            return None;
        }
        let initiator = state.is_initiator();
        let (first, second) = state.dangerously_get_raw_split();
        let (ours, theirs) = if initiator { (first, second) } else { (second, first) };
        Some(Keys { seal: key(ours)?, open: key(theirs)? })
    }

    /// Encrypts `out` from `at` on, and appends the tag. Each number is for one packet only. False: it is not encrypted, and
    /// must not be sent.
    #[must_use]
    pub fn seal(&self, number: u64, out: &mut Vec<u8>, at: usize) -> bool {
        let Some(plain) = out.get_mut(at..) else { return false };
        match self.seal.seal_in_place_separate_tag(nonce(number), Aad::empty(), plain) {
            Ok(tag) => {
                out.extend_from_slice(tag.as_ref());
                true
            }
            Err(_) => false,
        }
    }

    /// Decrypts in place. None: it was not sealed with this number by the other end; then what `packet` holds is of no use.
    pub fn open<'p>(&self, number: u64, packet: &'p mut [u8]) -> Option<&'p mut [u8]> {
        self.open.open_in_place(nonce(number), Aad::empty(), packet).ok()
    }
}
