//! Tickets: what lets a receiver use an assignment at a host, checked offline with one keyed hash.
//!
//! The tracker derives a key for each host from its durable secret, hands it to the host in its session, and
//! MACs each assignment under it. The receiver carries the ticket to the host (over HTTP as a bearer token).

use std::fmt;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::key::{Hash, PeerKey, fixed_bytes};
use crate::limits;
use crate::message::Need;
use crate::net::ProtocolName;
use crate::pages::PageSet;
use crate::path::MediaId;
use minicbor::{Decoder, Encoder};

/// What a ticket says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TicketBody {
    /// The tracker's key.
    #[n(1)]
    pub tracker: PeerKey,
    /// The tracker's epoch: grows with each of its starts.
    #[n(2)]
    pub epoch: u64,
    /// The assignment, unique within tracker and epoch.
    #[n(3)]
    pub assignment: u64,
    /// Who may use it.
    #[n(4)]
    pub receiver: PeerKey,
    /// Where.
    #[n(5)]
    pub host: PeerKey,
    /// Which media.
    #[n(6)]
    pub media: MediaId,
    /// Which version of its manifest.
    #[n(7)]
    pub version: u64,
    /// Which pages.
    #[n(8)]
    pub pages: PageSet,
    /// Over which protocol.
    #[n(9)]
    pub protocol: ProtocolName,
    /// At most how many bytes a second; none: as fast as the host likes.
    #[n(10)]
    pub rate: Option<u64>,
    /// Until when: tracker time, milliseconds since 1970.
    #[n(11)]
    pub expiry: u64,
    /// Why the pages are wanted: a host with little upload serves [`Need::Urgent`] and [`Need::Steady`] first.
    #[n(12)]
    pub need: Need,
}

/// Key of a host's tickets at one tracker, 32 secret bytes. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TicketKey(pub [u8; 32]);
fixed_bytes!(TicketKey, 32, "a ticket key is 32 bytes");

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(..)")
    }
}

/// A ticket as it travels: the body's bytes and their MAC.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Ticket {
    /// CBOR of a [`TicketBody`].
    #[n(0)]
    pub body: ByteVec,
    /// Keyed BLAKE3 of `IceShare/1 ticket\0` and the body.
    #[n(1)]
    pub mac: Hash,
}

/// Why a ticket was refused, as far as the ticket alone tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TicketError {
    /// Not a ticket.
    #[error("malformed ticket")]
    Malformed,
    /// Not made by the tracker for this host.
    #[error("forged ticket, or one for another host")]
    Forged,
}

/// What the MAC of a ticket begins with.
const CONTEXT: &[u8] = b"IceShare/1 ticket\0";

impl TicketKey {
    /// The key for `host` under the tracker's durable `secret`.
    #[must_use]
    pub fn derive(secret: &[u8; 32], host: &PeerKey) -> TicketKey {
        let mut h = blake3::Hasher::new_keyed(secret);
        h.update(b"IceShare/1 ticket key\0").update(&host.0);
        TicketKey(*h.finalize().as_bytes())
    }

    fn mac(&self, body: &[u8]) -> blake3::Hash {
        // At one go: short as it is, a hasher that could go on costs as much again.
        let mut all = Vec::with_capacity(CONTEXT.len() + body.len());
        all.extend_from_slice(CONTEXT);
        all.extend_from_slice(body);
        blake3::keyed_hash(&self.0, &all)
    }

    /// Makes a ticket.
    #[must_use]
    pub fn issue(&self, body: &TicketBody) -> Ticket {
        let body = crate::frame::encode(body);
        Ticket { mac: Hash(*self.mac(&body).as_bytes()), body: body.into() }
    }

    /// What a ticket says, if it was made under this key. Expiry, media and use are the host's to check.
    ///
    /// # Errors
    /// [`TicketError`].
    pub fn check(&self, ticket: &Ticket) -> Result<TicketBody, TicketError> {
        if ticket.body.len() > limits::TICKET {
            return Err(TicketError::Malformed);
        }
        // Comparison of blake3::Hash takes constant time.
        if self.mac(&ticket.body) != blake3::Hash::from_bytes(ticket.mac.0) {
            return Err(TicketError::Forged);
        }
        crate::frame::decode(&ticket.body).map_err(|_| TicketError::Malformed)
    }
}
