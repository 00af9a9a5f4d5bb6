//! Telling the other ends of connections that an earlier start of this program had that they are over (RFC 9000, section
//! 10.3): they come back at once, instead of waiting until the connection has been idle for too long.
//!
//! For that, a start must recognise the connection ids of the one before it, and give the same tokens for them. Both follow
//! from the identity's secret and the port. The port is in it so that no other program of this identity, on another port,
//! can be made to tell the token of a connection that lives here (section 10.3.2).

use std::sync::Arc;

use icet::Identity;
use quinn::EndpointConfig;
use quinn::crypto::{CryptoError, HmacKey};
use quinn_proto::HashedConnectionIdGenerator;

/// Makes both follow from `identity` and `port`.
pub(super) fn configure(config: &mut EndpointConfig, identity: &Identity, port: u16) {
    let secret = [&identity.seed()[..], &port.to_be_bytes()].concat();
    let [a, b, c, d, e, f, g, h, ..] = blake3::derive_key("IceShare/1 QUIC connection ids", &secret);
    let ids = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config.reset_key(Arc::new(ResetKey(blake3::derive_key("IceShare/1 QUIC stateless resets", &secret))));
}

/// Makes the token of a connection id.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        let hash = blake3::keyed_hash(&self.0, data);
        signature.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let given = blake3::Hash::from_slice(signature).map_err(|_| CryptoError)?;
        // Compared in constant time.
        if blake3::keyed_hash(&self.0, data) == given { Ok(()) } else { Err(CryptoError) }
    }
}
