//! Keys: our own in a key file, and those of others that we have come to know.
//!
//! A peer is its ed25519 key. Trackers and publishers are trusted on first use: what a link pins is compared, what is
//! not pinned is remembered, and another key (or an older version) later is refused.

mod file;
mod trust;

pub use file::{Claim, KeyError, KeyFile, claim, claim_one_of, create, load, load_or_create};
pub use trust::{Known, Remembered, TrustError, TrustStore};
