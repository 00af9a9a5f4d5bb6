//! IceT version 1: the control protocol between an IceShare peer and a tracker, as types.
//!
//! The normative text is `proto-spec/spec/`; this crate is one implementation of it. It has no socket,
//! no runtime and no clock: what it depends on proves it. Both ends (the peer in crate `iceshare`, the
//! tracker in crate `icetracker`) and every test speak through these types.
//!
//! - [`path`], [`url`], [`key`]: names: media paths, `icet://` links, peers' keys.
//! - [`pages`]: page numbers, sets of them on the wire ([`PageSet`], [`PageRanges`]) and in memory ([`PageMap`]).
//! - [`media`], [`merkle`]: what a publisher signs, and how a page is proved under it.
//! - [`live`]: what the publisher of live media signs while it goes on.
//! - [`message`], [`frame`]: the conversation, and its framing on a byte stream.
//! - [`scope`]: what an IP address is good for.
//! - [`ticket`]: what lets a receiver use an assignment at a host.
//! - [`stream`]: pages over a reliable stream, for payload protocols made of such.
//!
//! ```
//! use icet::message::{Ping, ToTracker};
//!
//! let mut stream = Vec::new();
//! ToTracker::from(Ping { nonce: 7 }).write(&mut stream);
//!
//! let (body, taken) = icet::frame::split(&stream)?.expect("a whole frame");
//! assert_eq!(ToTracker::from_body(body)?, ToTracker::Ping(Ping { nonce: 7 }));
//! assert_eq!(taken, stream.len());
//! # Ok::<(), icet::frame::FrameError>(())
//! ```
//!
//! Everything that comes from a stranger is checked where it enters: a value of one of these types that came
//! out of a decoder is within the limits of [`limits`].

pub mod frame;
pub mod key;
pub mod limits;
pub mod live;
pub mod media;
pub mod merkle;
pub mod message;
pub mod net;
pub mod pages;
pub mod path;
pub mod scope;
pub mod stream;
pub mod ticket;
pub mod time;
pub mod url;

pub use key::{Identity, PeerKey};
pub use media::{Kind, Manifest, PageFlags, PageRecord, ProvenSlice, Signed, SignedManifest, Slice};
pub use net::{Abilities, HostAddr, Ip, Limits, NetAddr, NetKind, Offer, ProtocolName};
pub use pages::{PageMap, PageNo, PageRanges, PageSet, Stripe};
pub use path::{MediaId, MediaPath};
pub use scope::{Prefix, Scope};
pub use ticket::{Ticket, TicketKey};
pub use time::Now;
pub use url::IcetUrl;

/// Version of the protocol that this crate speaks.
pub const VERSION: u32 = 1;
/// ALPN identifier of IceT, on QUIC and on TLS over TCP.
pub const ALPN: &[u8] = b"icet/1";
/// ALPN of the handshake by which a tracker proves that a key answers at an address (no data follows).
pub const ALPN_DIAL_BACK: &[u8] = b"iceshare-dial/1";
/// Default port of a tracker.
pub const DEFAULT_PORT: u16 = 4237;

/// Crate-private: a value that a decoder refused, as a minicbor error with a reason.
pub(crate) fn refuse(why: &'static str) -> minicbor::decode::Error {
    minicbor::decode::Error::message(why)
}
