//! What goes into the [`Swarm`](super::Swarm) and what comes out of it: the seam to the tracker's server.
//!
//! # The contract
//!
//! - *Before the first session* the server gives back what the catalogue kept: each [`KnownName`] with
//!   [`Swarm::restore_name`](super::Swarm::restore_name), then each [`KnownMedia`] with
//!   [`Swarm::restore_media`](super::Swarm::restore_media). Contributions are not loaded at the start: the server looks
//!   a key's [`Contribution`] up when that key connects.
//! - *A session*: `handle_connect` once its key is proved, `handle_message` for each decoded message (in order),
//!   `handle_malformed` for a frame that could not be decoded but deserves an answer
//!   ([`FrameError::answer`](icet::frame::FrameError::answer)), `handle_disconnect` when it is gone (also after an
//!   [`Effect::Close`]). A [`ConnId`] is never used twice.
//! - *After each `handle_*`* the server drains `poll_effect` and carries the effects out **in their order**, then asks
//!   `poll_timeout` for the moment at which `handle_timeout` must be called at the latest.
//! - *Slices are not kept in memory.* An answer that needs slices is an [`Effect::Answer`]: a message whose
//!   `slices` are still empty, and their indexes. The server reads them from the catalogue and fills them in (one that
//!   cannot be read is left out). A [`Store::Slice`] always comes before the answers that need it, so the server must
//!   read its own writes; nothing is waited for in the swarm, and the answer leaves in the same flight.
//! - Time comes in as an argument: `now` is monotonic, `wall_ms` is milliseconds since 1970 (tracker time).

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use icet::message::{Intent, ToPeer};
use icet::{MediaId, MediaPath, NetAddr, Offer, PeerKey, ProtocolName, ProvenSlice, SignedManifest};
use minicbor::{Decode, Encode};

use super::rules::Rules;

/// A session, named by the server; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// A dial-back that the swarm ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialId(pub u64);

/// Fixed facts and limits of a swarm.
#[derive(Clone)]
pub struct SwarmConfig {
    /// The tracker's own key.
    pub tracker: PeerKey,
    /// Durable secret from which hosts' ticket keys are derived.
    pub secret: [u8; 32],
    /// Grows with each start of the tracker; never 0.
    pub epoch: u64,
    /// Seed of all randomness.
    pub seed: u64,
    /// At most how long peers may hold acknowledgements back, in milliseconds.
    pub ack_delay_ms: u32,
    /// Limits on what strangers may make the tracker do.
    pub quotas: Quotas,
    /// Whether decisions are kept for [`Swarm::why`](super::Swarm::why): the last 32 of at most 2048 receivers, which may
    /// take 100 MB and costs time at each assignment.
    pub explain: bool,
    /// A broadcast whose broadcaster sends no head for so long, and of which nobody gets a page any more, is taken off.
    pub off_air: Duration,
}

/// How long a broadcaster may be gone, if nobody says otherwise.
pub const OFF_AIR: Duration = Duration::from_secs(60);

impl SwarmConfig {
    /// A configuration with default quotas.
    #[must_use]
    pub fn new(tracker: PeerKey, secret: [u8; 32], epoch: u64, seed: u64) -> SwarmConfig {
        SwarmConfig {
            tracker,
            secret,
            epoch,
            seed,
            ack_delay_ms: 250,
            quotas: Quotas::default(),
            explain: false,
            off_air: OFF_AIR,
        }
    }
}

impl fmt::Debug for SwarmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the secret.
        f.debug_struct("SwarmConfig")
            .field("tracker", &self.tracker)
            .field("epoch", &self.epoch)
            .field("seed", &self.seed)
            .field("ack_delay_ms", &self.ack_delay_ms)
            .field("quotas", &self.quotas)
            .field("explain", &self.explain)
            .field("off_air", &self.off_air)
            .finish_non_exhaustive()
    }
}

/// Limits per key, and per address prefix (/24 of IPv4, /48 of IPv6; loopback is exempt from the prefix limits).
/// What exceeds one is answered with [`ErrorCode::QUOTA`](icet::message::ErrorCode::QUOTA) and a time to try again.
#[derive(Debug, Clone)]
pub struct Quotas {
    /// Messages a second of one key, in the long run (acknowledgements and reports count for a tenth each).
    pub messages_per_second: f64,
    /// Messages that one key may send at once.
    pub message_burst: f64,
    /// Messages a second of all keys of one prefix together.
    pub prefix_messages_per_second: f64,
    /// Joins a minute of one key, in the long run (its burst is as large).
    pub joins_per_minute: f64,
    /// Manifests a minute of one key, in the long run (its burst is as large).
    pub publishes_per_minute: f64,
    /// Swarms that one key may be in at once.
    pub memberships: usize,
    /// Media that one key may own.
    pub media_per_key: usize,
    /// Bytes of page maps that the tracker keeps in memory for one key.
    pub map_bytes_per_key: usize,
    /// Bytes of page maps that the tracker keeps in memory in all.
    pub map_bytes: usize,
    /// Sessions from one prefix at once.
    pub sessions_per_prefix: usize,
    /// Sessions in all.
    pub sessions: usize,
    /// Media in all.
    pub media: usize,
    /// Dial-backs a minute to one IP address (its burst is as large).
    pub dials_per_ip_per_minute: f64,
    /// Dial-backs a minute to one prefix (its burst is as large).
    pub dials_per_prefix_per_minute: f64,
    /// Dial-backs under way at once.
    pub dials: usize,
}

impl Default for Quotas {
    fn default() -> Quotas {
        Quotas {
            messages_per_second: 400.0,
            message_burst: 8000.0,
            prefix_messages_per_second: 10_000.0,
            joins_per_minute: 120.0,
            publishes_per_minute: 600.0,
            memberships: 10_000,
            media_per_key: 100_000,
            map_bytes_per_key: 64 << 20,
            map_bytes: 4 << 30,
            sessions_per_prefix: 4096,
            sessions: 200_000,
            media: 1_000_000,
            dials_per_ip_per_minute: 120.0,
            dials_per_prefix_per_minute: 1200.0,
            dials: 256,
        }
    }
}

/// Position of a slice, as the catalogue keeps it beside the slice: 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceMark {
    /// Byte offset of its first page.
    pub offset: u64,
    /// Media time of its first page, in microseconds.
    pub time: i64,
}

/// Who owns a path, as the catalogue kept it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownName {
    /// The path.
    pub path: MediaPath,
    /// The key that published it first.
    pub owner: PeerKey,
    /// Highest version ever published there by the owner.
    pub version: u64,
    /// When it was last published, joined or withdrawn: wall clock, milliseconds since 1970. After 90 days without
    /// use any key may take the path.
    pub used_ms: u64,
    /// Where its media went, if it was withdrawn as moved.
    pub moved: Option<MediaPath>,
}

/// A media, as the catalogue kept it.
#[derive(Debug, Clone)]
pub struct KnownMedia {
    /// Its manifest.
    pub manifest: SignedManifest,
    /// Index and mark of each slice of this version that the catalogue holds, in any order.
    pub slices: Vec<(u64, SliceMark)>,
    /// Times that someone joined it.
    pub hits: u64,
}

/// What a key has sent and received on this tracker, as far as it was confirmed by both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contribution {
    /// Bytes sent to other peers.
    pub sent: u64,
    /// Bytes received from other peers.
    pub received: u64,
}

/// How near a host and a receiver are, by the addresses that they are seen at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nearness {
    /// One address: one machine, or behind one NAT.
    Address,
    /// One network: /24 of IPv4, /48 of IPv6.
    Network,
    /// Neither.
    Elsewhere,
}

/// Decayed estimates, as the catalogue keeps them.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
#[cbor(array)]
pub struct KnownArm {
    /// Fetches that ended well, as they fade.
    #[n(0)]
    pub ok: f64,
    /// Fetches that failed, as they fade.
    #[n(1)]
    pub bad: f64,
    /// Natural logarithm of bytes a second, mean and samples.
    #[n(2)]
    pub rate: (f64, f64),
    /// Natural logarithm of seconds to the first byte, mean and samples.
    #[n(3)]
    pub first: (f64, f64),
}

/// What was learned of a payload protocol, as the catalogue keeps it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct KnownProtocol {
    /// Its name.
    #[n(0)]
    pub name: ProtocolName,
    /// When that was: milliseconds since 1970.
    #[n(1)]
    pub wall_ms: u64,
    /// Assignments made for it.
    #[n(2)]
    pub assigned: u64,
    /// Reports of fetches that ended well.
    #[n(3)]
    pub done: u64,
    /// Reports of failures.
    #[n(4)]
    pub failed: u64,
    /// Bytes that receivers acknowledged.
    #[n(5)]
    pub bytes: u64,
    /// Assignments with a deadline that came to it.
    #[n(6)]
    pub deadlines: u64,
    /// Of them, those that were late.
    #[n(7)]
    pub missed: u64,
    /// Estimates over all hosts.
    #[n(8)]
    pub world: KnownArm,
    /// The same by [`Nearness`], in its order.
    #[n(9)]
    pub near: Vec<KnownArm>,
}

/// What the server shall do.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub enum Effect {
    /// Send a message in a session. To be dropped if the session is gone.
    Send {
        /// The session.
        conn: ConnId,
        /// The message.
        message: ToPeer,
    },
    /// Send a [`ToPeer::MediaAnswer`] or [`ToPeer::Slices`] after filling its empty `slices` from the catalogue.
    Answer {
        /// The session.
        conn: ConnId,
        /// The message, without its slices.
        message: ToPeer,
        /// The media.
        media: MediaId,
        /// The version of its manifest.
        version: u64,
        /// Indexes of the slices, at most [`icet::limits::SLICES`].
        slices: Vec<u64>,
    },
    /// Close a session, after what was sent in it before.
    Close {
        /// The session.
        conn: ConnId,
        /// Why, for logs and for the transport's close reason.
        why: String,
    },
    /// Prove that `key` answers at `addr` (ALPN `iceshare-dial/1`), and tell
    /// [`Swarm::handle_dialed`](super::Swarm::handle_dialed). Exactly one handshake, given up after 5 s.
    Dial {
        /// Name of the dial.
        id: DialId,
        /// Where.
        addr: NetAddr,
        /// Who must be there.
        key: PeerKey,
    },
    /// Write to the catalogue.
    Store(Store),
}

/// A write to the catalogue.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub enum Store {
    /// A path's owner, replacing what was known of the path.
    Name(KnownName),
    /// A path is free again.
    Forget {
        /// The path.
        path: MediaPath,
    },
    /// A new media or version. Slices of other versions of the same media are to be deleted.
    Manifest {
        /// Its manifest.
        manifest: SignedManifest,
    },
    /// A slice that was proved under the current manifest.
    Slice {
        /// Which media.
        media: MediaId,
        /// Version of the manifest.
        version: u64,
        /// Its index.
        index: u64,
        /// Where it lies.
        mark: SliceMark,
        /// The slice with its proof, as received.
        slice: ProvenSlice,
    },
    /// A media left the tracker: delete manifest, slices and hits.
    Withdrawn {
        /// Which media.
        media: MediaId,
    },
    /// How often a media was joined (a total, not an increment).
    Hits {
        /// Which media.
        media: MediaId,
        /// The total.
        hits: u64,
    },
    /// The operator's rules, all of them.
    Rules(Rules),
    /// What was learned of a payload protocol. Written now and then.
    Protocol(KnownProtocol),
    /// What a key has given and taken (totals, not increments). Written now and then, and when a key disconnects.
    Contribution {
        /// Whose.
        peer: PeerKey,
        /// The totals.
        contribution: Contribution,
    },
}

/// A media, for lists.
#[derive(Debug, Clone)]
pub struct MediaView {
    /// Its id.
    pub id: MediaId,
    /// The manifest.
    pub manifest: SignedManifest,
    /// Slices that the catalogue holds; complete when equal to `manifest.slices()`.
    pub slices: u64,
    /// Members that play or fetch.
    pub listeners: u64,
    /// Members in all.
    pub members: u64,
    /// Members that hold all pages.
    pub complete: u64,
    /// Times that someone joined it.
    pub hits: u64,
    /// Assignments that run.
    pub running: u64,
    /// Bytes that receivers acknowledged, since the tracker started.
    pub delivered: u64,
    /// Bytes of them that its publisher sent.
    pub delivered_by_publisher: u64,
    /// Of live media: what is on, as its publisher says.
    pub now: Option<String>,
}

/// One media in detail.
#[derive(Debug, Clone)]
pub struct MediaDetail {
    /// The summary.
    pub media: MediaView,
    /// Its members, at most 1000 of them.
    pub members: Vec<MemberView>,
    /// Copies of pages along the media, cut into as many equal parts as were asked for: least and mean copies of each.
    pub availability: Vec<Availability>,
    /// Who sends to whom now, among these members; at most 1000.
    pub flows: Vec<FlowView>,
}

/// What one member sends another now, over one protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowView {
    /// Who sends.
    pub from: PeerKey,
    /// To whom.
    pub to: PeerKey,
    /// Over what.
    pub protocol: ProtocolName,
    /// Assignments that run.
    pub assignments: u32,
    /// Bytes of them that were not acknowledged yet.
    pub left: u64,
}

/// Copies of the pages of one part of a media.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Availability {
    /// Copies of its rarest page.
    pub least: u32,
    /// Mean number of copies.
    pub mean: f64,
}

/// A member of a media's swarm.
#[derive(Debug, Clone)]
pub struct MemberView {
    /// Who.
    pub peer: PeerKey,
    /// What it wants.
    pub intent: Intent,
    /// Whether it published the media.
    pub publisher: bool,
    /// Pages held.
    pub held: u64,
    /// Of as many equal parts as availability has: share of the pages that it holds, 0 to 1. Empty but for the first 48
    /// members.
    pub map: Vec<f64>,
    /// The playhead's page, if it plays.
    pub at: Option<u64>,
    /// Assignments by which it fetches now.
    pub fetching: u32,
    /// Assignments by which it serves now.
    pub serving: u32,
}

/// A peer with a session.
#[derive(Debug, Clone)]
pub struct PeerView {
    /// Its key.
    pub key: PeerKey,
    /// Its program.
    pub agent: String,
    /// The address it is seen at.
    pub observed: SocketAddr,
    /// Announced addresses: whether each was proved (none: not known yet).
    pub reach: Vec<(NetAddr, Option<bool>)>,
    /// Its protocols.
    pub offers: Vec<Offer>,
    /// Swarms it is in.
    pub media: u32,
    /// What it has given and taken.
    pub contribution: Contribution,
    /// Upload in bytes a second, as learned.
    pub up: Option<f64>,
    /// Download in bytes a second, as learned.
    pub down: Option<f64>,
    /// 1 is full trust, 0 none.
    pub trust: f64,
    /// Whether it did not answer when it was asked whether it is there, and has said nothing since.
    pub away: bool,
}

/// How one payload protocol does, over all hosts.
#[derive(Debug, Clone)]
pub struct ProtocolView {
    /// Its name.
    pub name: ProtocolName,
    /// Peers with a session that serve over it.
    pub hosts: u64,
    /// Assignments made for it.
    pub assigned: u64,
    /// Reports of fetches that ended well.
    pub done: u64,
    /// Reports of failures.
    pub failed: u64,
    /// Bytes that receivers acknowledged.
    pub bytes: u64,
    /// Time from request to first byte, in milliseconds (decayed mean).
    pub first_byte_ms: Option<f64>,
    /// Bytes a second of one assignment (decayed mean).
    pub goodput: Option<f64>,
    /// Share of fetches that end well (decayed), 0 to 1.
    pub success: f64,
    /// Reports that the estimates rest on, as they fade.
    pub samples: f64,
    /// Its share of the pages that came lately, 0 to 1.
    pub share: f64,
    /// Assignments with a deadline that came to it.
    pub deadlines: u64,
    /// Of them, those that were late.
    pub missed: u64,
    /// The same by how near host and receiver were, where something is known.
    pub near: Vec<NearView>,
}

/// How a payload protocol does between peers that are so near to each other.
#[derive(Debug, Clone)]
pub struct NearView {
    /// How near.
    pub near: Nearness,
    /// Reports that the estimates rest on, as they fade.
    pub samples: f64,
    /// Share of fetches that end well (decayed), 0 to 1.
    pub success: f64,
    /// Time from request to first byte, in milliseconds (decayed mean).
    pub first_byte_ms: Option<f64>,
    /// Bytes a second of one assignment (decayed mean).
    pub goodput: Option<f64>,
}

/// Figures of the whole tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Sessions.
    pub sessions: u64,
    /// Different keys that have a session.
    pub peers: u64,
    /// Media in the catalogue.
    pub media: u64,
    /// Memberships over all swarms.
    pub members: u64,
    /// Of them, those that play or fetch.
    pub listeners: u64,
    /// Assignments that run.
    pub running: u64,
    /// Assignments made since the start.
    pub assigned: u64,
    /// Pages acknowledged since the start (of assignments).
    pub acked_pages: u64,
    /// Their bytes, estimated from the page table.
    pub acked_bytes: u64,
    /// Bytes of them that came from the media's publisher.
    pub acked_from_publisher: u64,
    /// Messages handled since the start.
    pub messages: u64,
    /// Messages refused for a quota since the start.
    pub refused: u64,
    /// Dial-backs ordered since the start.
    pub dials: u64,
    /// Bytes of page maps in memory.
    pub map_bytes: u64,
}
