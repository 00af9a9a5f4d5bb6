//! What a peer says to a tracker.

use minicbor::{Decode, Encode};

use super::Position;
use crate::key::{Hash, PeerKey};
use crate::limits;
use crate::media::{ProvenSlice, Signed};
use crate::net::{Ip, Limits, NetAddr, Offer, ProtocolName};
use crate::pages::PageRanges;
use crate::path::{MediaId, MediaPath};

type Check = Result<(), &'static str>;

fn at_most(n: usize, limit: usize, what: &'static str) -> Check {
    if n > limit { Err(what) } else { Ok(()) }
}

/// How a peer proves its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum KeyProof {
    /// By the handshake of the channel (TLS 1.3 with a self-signed certificate of the key).
    #[n(0)]
    Channel,
}

/// First message of a session, in one flight with what follows it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Highest version of IceT that the peer speaks.
    #[n(1)]
    pub version: u32,
    /// Program and version, for people.
    #[n(2)]
    pub agent: String,
    /// How the key is proved.
    #[n(3)]
    pub proof: KeyProof,
    /// Protocols that the peer has.
    #[n(4)]
    pub offers: Vec<Offer>,
    /// Where it listens. The tracker hands out what its dial-back proved.
    #[n(5)]
    pub reach: Vec<NetAddr>,
    /// Its rates.
    #[n(6)]
    pub limits: Limits,
    /// Epoch of the session that it had before with this tracker, if any.
    #[n(7)]
    pub epoch: Option<u64>,
    /// The same whenever this program runs in this place, another one elsewhere: two with one key are told apart by it.
    #[n(8)]
    pub instance: Option<Hash>,
}

impl Hello {
    pub(super) fn check(&self) -> Check {
        at_most(self.agent.len(), limits::TEXT, "agent too long")?;
        at_most(self.offers.len(), limits::OFFERS, "too many offers")?;
        at_most(self.reach.len(), limits::REACH, "too many addresses")?;
        if self.offers.iter().any(|o| o.endpoint.len() > limits::ENDPOINT) {
            return Err("endpoint too long");
        }
        let mut names: Vec<_> = self.offers.iter().map(|o| &o.name).collect();
        names.sort_unstable();
        if names.windows(2).any(|w| w[0] == w[1]) {
            return Err("a protocol offered twice");
        }
        Ok(())
    }
}

/// The peer's addresses changed.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Reach {
    /// All of them, as in [`Hello::reach`].
    #[n(1)]
    pub reach: Vec<NetAddr>,
}

impl Reach {
    pub(super) fn check(&self) -> Check {
        at_most(self.reach.len(), limits::REACH, "too many addresses")
    }
}

/// A publisher announces a media, or a newer version of it; answered with [`super::MediaAnswer`]. It holds all pages.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Publish {
    /// Number that the answer repeats.
    #[n(1)]
    pub request: u64,
    /// The signed manifest.
    #[n(2)]
    pub manifest: Signed,
    /// Slices of the setup pages and of the tail at least; the others follow in [`Slices`].
    #[n(3)]
    pub slices: Vec<ProvenSlice>,
}

impl Publish {
    pub(super) fn check(&self) -> Check {
        at_most(self.slices.len(), limits::SLICES, "too many slices")
    }
}

/// What a peer wants of a media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Intent {
    /// All of it (`get`).
    #[n(0)]
    Whole,
    /// What the focus asks for (`play`): a window ahead of the playhead first; more only where there is room to spare.
    #[n(1)]
    Play,
    /// Nothing: only to share what it holds.
    #[n(2)]
    Share,
}

/// A peer joins the swarm of a media; answered with [`super::MediaAnswer`] and first assignments.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Join {
    /// Number that the answer repeats.
    #[n(1)]
    pub request: u64,
    /// Which media.
    #[n(2)]
    pub path: MediaPath,
    /// Its publisher, if the peer knows: another one's media is not what it wants.
    #[n(3)]
    pub publisher: Option<PeerKey>,
    /// The version whose pages it holds, 0 if none.
    #[n(4)]
    pub version: u64,
    /// What it holds (more may follow in [`Have`]).
    #[n(5)]
    pub have: PageRanges,
    /// What it wants.
    #[n(6)]
    pub intent: Intent,
    /// Where the player will begin; the beginning if absent.
    #[n(7)]
    pub at: Option<Position>,
    /// Assignments of an earlier session that still run.
    #[n(8)]
    pub running: Vec<u64>,
    /// Of live media, if it holds nothing: it wants to begin with what was on so many milliseconds ago, by the clock.
    #[n(9)]
    pub back: Option<u32>,
}

impl Join {
    pub(super) fn check(&self) -> Check {
        at_most(self.running.len(), limits::ITEMS, "too many running assignments")
    }
}

/// Where the player is, and how fast it eats. Replaces the focus before it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Focus {
    /// Which media.
    #[n(1)]
    pub media: MediaId,
    /// The playhead.
    #[n(2)]
    pub at: Position,
    /// Bytes a second that the player eats; none: as the media's mean rate.
    #[n(3)]
    pub rate: Option<u64>,
    /// Bytes from `at` on that are wanted at once; what comes after them is bulk.
    #[n(4)]
    pub urgent: u64,
    /// What is wanted beside it.
    #[n(5)]
    pub intent: Intent,
}

impl Focus {
    pub(super) fn check(&self) -> Check {
        Ok(())
    }
}

/// Pages of one assignment that the peer holds now.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct Got {
    /// The assignment; 0: from nobody (a map after a join, a file it had).
    #[n(0)]
    pub assignment: u64,
    /// The pages.
    #[n(1)]
    pub pages: PageRanges,
}

/// "I got it": pages that were verified and can be served.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Have {
    /// Which media.
    #[n(1)]
    pub media: MediaId,
    /// What, by assignment.
    #[n(2)]
    pub got: Vec<Got>,
    /// Pages that it holds no longer.
    #[n(3)]
    pub lost: PageRanges,
}

impl Have {
    pub(super) fn check(&self) -> Check {
        at_most(self.got.len(), limits::ITEMS, "too many acknowledgements")
    }
}

/// How an assignment ended for the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Outcome {
    /// All pages came.
    #[n(0)]
    Done,
    /// The receiver stopped it (seek, cancel, pages came from elsewhere); says nothing about the host.
    #[n(1)]
    Stopped,
    /// No connection, or the host proved another key.
    #[n(2)]
    Unreachable,
    /// The host refused (no such media, no ticket accepted, busy).
    #[n(3)]
    Refused,
    /// The connection broke.
    #[n(4)]
    Broken,
    /// Nothing came for too long.
    #[n(5)]
    Stalled,
    /// Some pages never came, though the host ended properly.
    #[n(6)]
    Incomplete,
    /// A page or proof was wrong: altered by the host.
    #[n(7)]
    Altered,
}

impl Outcome {
    /// Whether it speaks against the host or the protocol.
    #[must_use]
    pub fn is_failure(self) -> bool {
        !matches!(self, Outcome::Done | Outcome::Stopped)
    }
}

/// What became of an assignment, once for each host tried.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Report {
    /// Which media.
    #[n(1)]
    pub media: MediaId,
    /// The assignment.
    #[n(2)]
    pub assignment: u64,
    /// Who served it: the assignment's host or a stand-in.
    #[n(3)]
    pub host: PeerKey,
    /// Over what.
    #[n(4)]
    pub protocol: ProtocolName,
    /// How it ended.
    #[n(5)]
    pub outcome: Outcome,
    /// Bytes of pages that were accepted.
    #[n(6)]
    pub bytes: u64,
    /// Pages that were accepted.
    #[n(7)]
    pub pages: u64,
    /// Pages that were refused.
    #[n(8)]
    pub bad: u64,
    /// Milliseconds from the request to the first byte; none if none came.
    #[n(9)]
    pub first_byte: Option<u32>,
    /// Milliseconds from the request to the end.
    #[n(10)]
    pub total: u32,
    /// Whether this ends the assignment (false: a stand-in goes on).
    #[n(11)]
    pub last: bool,
}

impl Report {
    pub(super) fn check(&self) -> Check {
        Ok(())
    }
}

/// What a host sent for one assignment since it last said so.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct ServedItem {
    /// The assignment, 0 for all requests without a ticket.
    #[n(0)]
    pub assignment: u64,
    /// Bytes of pages.
    #[n(1)]
    pub bytes: u64,
}

/// A host's report.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Served {
    /// What it sent.
    #[n(1)]
    pub items: Vec<ServedItem>,
}

impl Served {
    pub(super) fn check(&self) -> Check {
        at_most(self.items.len(), limits::ITEMS, "too many items")
    }
}

/// A peer leaves a swarm: it neither wants nor serves its pages any longer.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Leave {
    /// Which media.
    #[n(1)]
    pub media: MediaId,
}

impl Leave {
    pub(super) fn check(&self) -> Check {
        Ok(())
    }
}

/// Slices of a media: from its publisher after [`Publish`], or from the tracker as the answer to [`Locate`].
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Slices {
    /// Which media.
    #[n(1)]
    pub media: MediaId,
    /// Number of the request that this answers, 0 from a publisher.
    #[n(2)]
    pub request: u64,
    /// The slices.
    #[n(3)]
    pub slices: Vec<ProvenSlice>,
}

impl Slices {
    pub(super) fn check(&self) -> Check {
        at_most(self.slices.len(), limits::SLICES, "too many slices")
    }
}

/// Which slice holds this page, byte or time? Answered with [`Slices`].
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Locate {
    /// Number that the answer repeats.
    #[n(1)]
    pub request: u64,
    /// Which media.
    #[n(2)]
    pub media: MediaId,
    /// What is looked for.
    #[n(3)]
    pub at: Position,
}

impl Locate {
    pub(super) fn check(&self) -> Check {
        Ok(())
    }
}

/// A publisher takes its media off the tracker, or says where it went.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Withdraw {
    /// Which media.
    #[n(1)]
    pub media: MediaId,
    /// Its new path, if it moved (published there already, by the same key).
    #[n(2)]
    pub moved: Option<MediaPath>,
    /// Whether the publisher gives up the path, so that another key may own it.
    #[n(3)]
    pub release: bool,
}

impl Withdraw {
    pub(super) fn check(&self) -> Check {
        Ok(())
    }
}

/// Asks for a media's description and figures without joining; answered with [`super::InfoAnswer`].
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct InfoRequest {
    /// Number that the answer repeats.
    #[n(1)]
    pub request: u64,
    /// Which media.
    #[n(2)]
    pub path: MediaPath,
}

impl InfoRequest {
    pub(super) fn check(&self) -> Check {
        Ok(())
    }
}

/// Is anyone there?
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Ping {
    /// Repeated in the answer.
    #[n(1)]
    pub nonce: u64,
}

impl Ping {
    pub(super) fn check(&self) -> Check {
        Ok(())
    }
}

/// How does this key stand? Answered with [`super::Standing`].
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct StandingRequest {
    /// Number that the answer repeats.
    #[n(1)]
    pub request: u64,
}

impl StandingRequest {
    pub(super) fn check(&self) -> Check {
        Ok(())
    }
}

/// What the peer gives and takes from now on: replaces the limits of its hello, and what it allowed before in this session.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Allow {
    /// Upload over all protocols together, bytes a second; 0: it gives nothing at present; none: unlimited or unknown.
    #[n(1)]
    pub up: Option<u64>,
    /// Download, bytes a second; none: unlimited or unknown.
    #[n(2)]
    pub down: Option<u64>,
    /// Whether it gives only to receivers in its own network.
    #[n(3)]
    pub near: bool,
    /// Media of which it gives nothing.
    #[n(4)]
    pub withheld: Vec<MediaId>,
    /// Whether, of what it publishes, it is to send only what nobody else can.
    #[n(5)]
    pub once: Option<bool>,
}

impl Allow {
    pub(super) fn check(&self) -> Check {
        at_most(self.withheld.len(), limits::ITEMS, "too many withheld media")
    }
}

/// The head of a live media: from its publisher about once a second, and from the tracker to who joins.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Head {
    /// Which media.
    #[n(1)]
    pub media: MediaId,
    /// The signed [`Head`](crate::live::Head).
    #[n(2)]
    pub head: Signed,
    /// Those that its publisher signed before, oldest first: for a tracker that knows none.
    #[n(3)]
    pub earlier: Option<Vec<Signed>>,
    /// From a tracker to who wants to begin further back: media time of what was on then, in microseconds from page 0.
    #[n(4)]
    pub time: Option<i64>,
}

impl Head {
    pub(super) fn check(&self) -> Check {
        let earlier = self.earlier.as_deref().unwrap_or_default();
        at_most(earlier.len(), limits::EARLIER, "too many earlier heads")?;
        let longest = earlier.iter().chain([&self.head]).map(|h| h.body.len()).max();
        at_most(longest.unwrap_or(0), limits::BATCH, "head too long")
    }
}

/// Listeners whom the publisher of a media serves by other means than this swarm, an Icecast server say: who of them gives in it?
/// Answered with [`super::Guidance`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Audience {
    /// Number that the answer repeats.
    #[n(1)]
    pub request: u64,
    /// The media; the asker is its publisher.
    #[n(2)]
    pub media: MediaId,
    /// From where they come.
    #[n(3)]
    pub addresses: Vec<Ip>,
}

impl Audience {
    pub(super) fn check(&self) -> Check {
        at_most(self.addresses.len(), limits::ITEMS, "too many addresses")
    }
}
