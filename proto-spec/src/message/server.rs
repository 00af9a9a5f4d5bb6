//! What a tracker says to a peer.

use minicbor::{Decode, Encode};

use super::Need;
use crate::limits;
use crate::media::{ProvenSlice, Signed};
use crate::net::{HostAddr, NetAddr, ProtocolName};
use crate::pages::PageSet;
use crate::path::{MediaId, MediaPath};
use crate::ticket::{Ticket, TicketKey};

type Check = Result<(), &'static str>;

/// Answer to a hello.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// Version of IceT for this session: the lower of both.
    #[n(1)]
    pub version: u32,
    /// The tracker's epoch: grows with each of its starts. Assignments of a later one supersede.
    #[n(2)]
    pub epoch: u64,
    /// Tracker time: milliseconds since 1970.
    #[n(3)]
    pub time: u64,
    /// Address that the peer is seen at.
    #[n(4)]
    pub observed: NetAddr,
    /// Key of the tickets that receivers will bring to this peer.
    #[n(5)]
    pub ticket_key: TicketKey,
    /// At most how long acknowledgements may be held back, in milliseconds.
    #[n(6)]
    pub ack_delay: u32,
}

impl Welcome {
    pub(super) fn check(&self) -> Check {
        if self.version == 0 { Err("version 0") } else { Ok(()) }
    }
}

/// Answer to a join or a publish.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct MediaAnswer {
    /// Number of the request.
    #[n(1)]
    pub request: u64,
    /// The media.
    #[n(2)]
    pub media: MediaId,
    /// Its manifest. (To a publisher: the one it sent.)
    #[n(3)]
    pub manifest: Signed,
    /// What is needed for first sound: slices of the setup pages, the focus and the tail.
    #[n(4)]
    pub slices: Vec<ProvenSlice>,
    /// Peers in the swarm that play or fetch.
    #[n(5)]
    pub listeners: u64,
    /// Times that someone joined it.
    #[n(6)]
    pub hits: u64,
    /// About how long all of it will take, in milliseconds; none if unknown.
    #[n(7)]
    pub estimate: Option<u64>,
    /// How much a player should hold before it begins, in milliseconds of media time.
    #[n(8)]
    pub buffer: u32,
}

impl MediaAnswer {
    pub(super) fn check(&self) -> Check {
        if self.slices.len() > limits::SLICES { Err("too many slices") } else { Ok(()) }
    }
}

/// Who opens the connection of an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Dial {
    /// The receiver dials the host.
    #[n(0)]
    Receiver,
    /// The host dials the receiver.
    #[n(1)]
    Host,
    /// Both at once, through their NATs.
    #[n(2)]
    Both,
}

/// A host that may serve an assignment, with the ticket for it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Source {
    /// Who and how.
    #[n(1)]
    pub host: HostAddr,
    /// Who dials.
    #[n(2)]
    pub dial: Dial,
    /// What admits the receiver there.
    #[n(3)]
    pub ticket: Ticket,
}

/// The tracker's order to a receiver. It outlives a silence of the tracker.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Assignment {
    /// Its number, unique within the tracker's epoch and never 0.
    #[n(1)]
    pub id: u64,
    /// Which media.
    #[n(2)]
    pub media: MediaId,
    /// Which pages.
    #[n(3)]
    pub pages: PageSet,
    /// What for.
    #[n(4)]
    pub need: Need,
    /// From whom.
    #[n(5)]
    pub source: Source,
    /// Who instead, in this order, should the source fail.
    #[n(6)]
    pub stand_ins: Vec<Source>,
    /// When the pages should be there, in milliseconds from receipt; none: no hurry.
    #[n(7)]
    pub deadline: Option<u32>,
    /// When the assignment ends if nothing moves, in milliseconds from receipt.
    #[n(8)]
    pub lapse: u32,
}

/// Orders, to be taken up at once and in this order.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Assign {
    /// The assignments.
    #[n(1)]
    pub assignments: Vec<Assignment>,
    /// Media of which the receiver waits for pages that nobody can be ordered to send it, and why; none: nothing new.
    #[n(2)]
    pub shortages: Option<Vec<Shortage>>,
}

impl From<Vec<Assignment>> for Assign {
    fn from(assignments: Vec<Assignment>) -> Assign {
        Assign { assignments, shortages: None }
    }
}

/// Why nothing is ordered for a receiver that lacks pages of a media. Counts are of connected peers that hold some of the pages
/// and are not the receiver, as far as the tracker looked; who is in none of the parts is only busy. It holds until the tracker
/// says another one, or orders something of that media.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Shortage {
    /// Which media.
    #[n(1)]
    pub media: MediaId,
    /// Hosts.
    #[n(2)]
    pub hosts: u32,
    /// Of them, those that serve over no protocol that the receiver has.
    #[n(3)]
    pub unshared: u32,
    /// Of the others, those of which no address is proved that the receiver may be told.
    #[n(4)]
    pub unreachable: u32,
    /// Of the others, those that failed this receiver a moment ago.
    #[n(5)]
    pub failed: u32,
    /// Over what those of `unshared` serve, each name once.
    #[n(6)]
    pub protocols: Vec<ProtocolName>,
    /// Of the others, those that give the receiver nothing of this media now, as their users chose; absent: none.
    #[n(7)]
    pub unwilling: Option<u32>,
    /// Of the others, those that do not answer the tracker; absent: none.
    #[n(8)]
    pub silent: Option<u32>,
}

/// Assignments that are taken up only while the tracker is silent. They take the place of those that the peer had in reserve of
/// the same media.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Reserve {
    /// The assignments, each of need [`Need::Reserve`].
    #[n(1)]
    pub assignments: Vec<Assignment>,
}

impl Reserve {
    pub(super) fn check(&self) -> Check {
        if self.assignments.iter().any(|a| a.need != Need::Reserve) {
            return Err("a reserve of another need");
        }
        check_assignments(&self.assignments)
    }
}

impl Assign {
    pub(super) fn check(&self) -> Check {
        if self.assignments.iter().any(|a| a.need == Need::Reserve) {
            return Err("a reserve among orders");
        }
        let shortages = self.shortages.as_deref().unwrap_or_default();
        if shortages.len() > limits::ITEMS || shortages.iter().any(|s| s.protocols.len() > limits::OFFERS) {
            return Err("too many shortages");
        }
        check_assignments(&self.assignments)
    }
}

fn check_assignments(assignments: &[Assignment]) -> Check {
    if assignments.len() > limits::ITEMS {
        return Err("too many assignments");
    }
    let good = |s: &Source| {
        s.host.addrs.len() <= limits::REACH
            && s.host.endpoint.len() <= limits::ENDPOINT
            && s.ticket.body.len() <= limits::TICKET
    };
    let fine = |a: &Assignment| {
        a.id != 0 && a.stand_ins.len() <= limits::STAND_INS && good(&a.source) && a.stand_ins.iter().all(good)
    };
    if assignments.iter().all(fine) { Ok(()) } else { Err("an assignment beyond its limits") }
}

/// Assignments that are wanted no longer. What is under way of a page may end.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Cancel {
    /// Their numbers.
    #[n(1)]
    pub assignments: Vec<u64>,
}

impl Cancel {
    pub(super) fn check(&self) -> Check {
        if self.assignments.len() > limits::ITEMS { Err("too many assignments") } else { Ok(()) }
    }
}

/// Answer to an info request.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct InfoAnswer {
    /// Number of the request.
    #[n(1)]
    pub request: u64,
    /// The media's manifest.
    #[n(2)]
    pub manifest: Signed,
    /// Peers in the swarm that play or fetch.
    #[n(3)]
    pub listeners: u64,
    /// Times that someone joined it.
    #[n(4)]
    pub hits: u64,
    /// Peers that hold all of it.
    #[n(5)]
    pub complete: u64,
    /// Bytes that the asker has sent, as far as the tracker could confirm it.
    #[n(6)]
    pub sent: u64,
    /// Bytes that the asker has received.
    #[n(7)]
    pub received: u64,
    /// Paths of the alternatives, in order of preference.
    #[n(8)]
    pub alternatives: Vec<MediaPath>,
    /// Of live media: the last head, if there is one.
    #[n(9)]
    pub head: Option<Box<Signed>>,
}

impl InfoAnswer {
    pub(super) fn check(&self) -> Check {
        if self.alternatives.len() > limits::ITEMS { Err("too many alternatives") } else { Ok(()) }
    }
}

/// Error codes, `uint` on the wire. Codes that a peer does not know are errors all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct ErrorCode(#[n(0)] pub u16);

impl ErrorCode {
    /// The message was malformed or out of order.
    pub const BAD_MESSAGE: ErrorCode = ErrorCode(1);
    /// No common version.
    pub const VERSION: ErrorCode = ErrorCode(2);
    /// The message is of a kind that this tracker does not know.
    pub const UNSUPPORTED: ErrorCode = ErrorCode(3);
    /// No such media.
    pub const NO_MEDIA: ErrorCode = ErrorCode(4);
    /// Another key owns the path.
    pub const OWNED: ErrorCode = ErrorCode(5);
    /// A manifest of a lower version than the tracker has, or another one of the same version.
    pub const ROLLBACK: ErrorCode = ErrorCode(6);
    /// A signature or a proof is wrong.
    pub const FORGED: ErrorCode = ErrorCode(7);
    /// A quota is used up; see `retry`.
    pub const QUOTA: ErrorCode = ErrorCode(8);
    /// This key may not do that.
    pub const FORBIDDEN: ErrorCode = ErrorCode(9);
    /// The tracker failed.
    pub const INTERNAL: ErrorCode = ErrorCode(10);
    /// The media has another publisher than the join named.
    pub const OTHER_PUBLISHER: ErrorCode = ErrorCode(11);
    /// Known later; see `retry`. (A slice that its publisher has not uploaded yet.)
    pub const NOT_YET: ErrorCode = ErrorCode(12);
}

/// Something went wrong.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct ErrorMessage {
    /// What.
    #[n(1)]
    pub code: ErrorCode,
    /// Which request, if it answers one.
    #[n(2)]
    pub request: Option<u64>,
    /// Which media, if it concerns one.
    #[n(3)]
    pub media: Option<MediaId>,
    /// For people.
    #[n(4)]
    pub text: String,
    /// When to try again, in milliseconds; none: not at all.
    #[n(5)]
    pub retry: Option<u32>,
}

impl ErrorMessage {
    pub(super) fn check(&self) -> Check {
        if self.text.len() > limits::TEXT { Err("text too long") } else { Ok(()) }
    }
}

/// A media is gone from the tracker.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Withdrawn {
    /// Which.
    #[n(1)]
    pub media: MediaId,
    /// Where it went, if it moved.
    #[n(2)]
    pub moved: Option<MediaPath>,
    /// Whether the tracker's operator took it off; absent or false: its publisher.
    #[n(3)]
    pub operator: Option<bool>,
    /// Whether it is a broadcast whose broadcaster is gone for too long; absent or false: it is not that.
    #[n(4)]
    pub off_air: Option<bool>,
}

impl Withdrawn {
    pub(super) fn check(&self) -> Check {
        Ok(())
    }
}

/// A newer manifest of a media that the peer has joined.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Newer {
    /// The manifest.
    #[n(1)]
    pub manifest: Signed,
}

impl Newer {
    pub(super) fn check(&self) -> Check {
        Ok(())
    }
}

/// Answer to a ping.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Pong {
    /// The ping's nonce.
    #[n(1)]
    pub nonce: u64,
    /// Tracker time: milliseconds since 1970.
    #[n(2)]
    pub time: u64,
}

impl Pong {
    pub(super) fn check(&self) -> Check {
        Ok(())
    }
}

/// What the tracker's dial-back of an announced address found.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct ReachResult {
    /// The address.
    #[n(1)]
    pub addr: NetAddr,
    /// Whether the peer's key answered there.
    #[n(2)]
    pub proved: bool,
    /// Why not, for people.
    #[n(3)]
    pub why: String,
}

impl ReachResult {
    pub(super) fn check(&self) -> Check {
        if self.why.len() > limits::TEXT { Err("text too long") } else { Ok(()) }
    }
}

/// Tells a host to open the connection of somebody's assignment ([`Dial::Host`], [`Dial::Both`]).
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Invite {
    /// The assignment.
    #[n(1)]
    pub assignment: u64,
    /// Which media.
    #[n(2)]
    pub media: MediaId,
    /// Who waits for it, where and over what.
    #[n(3)]
    pub receiver: HostAddr,
    /// Who dials.
    #[n(4)]
    pub dial: Dial,
    /// When to give up, in milliseconds from receipt.
    #[n(5)]
    pub lapse: u32,
}

impl Invite {
    pub(super) fn check(&self) -> Check {
        if self.receiver.addrs.len() > limits::REACH || self.receiver.endpoint.len() > limits::ENDPOINT {
            return Err("an invitation beyond its limits");
        }
        Ok(())
    }
}

/// How the asker stands with the tracker: answer to a standing request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Standing {
    /// Number of the request.
    #[n(1)]
    pub request: u64,
    /// Bytes that the asker has sent, as far as the tracker could confirm it.
    #[n(2)]
    pub sent: u64,
    /// Bytes that the asker has received.
    #[n(3)]
    pub received: u64,
    /// How much the asker counts by what it gives, when uploads are scarce: thousandths of what a newcomer counts.
    #[n(4)]
    pub weight: u32,
    /// Other peers that have a session now.
    #[n(5)]
    pub peers: u64,
    /// Of them, those that weigh more.
    #[n(6)]
    pub ahead: u64,
    /// How far the tracker trusts the asker, in thousandths; 1000: nothing speaks against it.
    #[n(7)]
    pub trust: u32,
    /// What speaks against it.
    #[n(8)]
    pub marks: Vec<Mark>,
}

impl Standing {
    pub(super) fn check(&self) -> Check {
        if self.marks.len() > limits::MARKS { Err("too many marks") } else { Ok(()) }
    }
}

/// Who of an audience gives in the swarm: answer to [`super::Audience`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Guidance {
    /// Number of the request.
    #[n(1)]
    pub request: u64,
    /// Peers in the swarm that play or fetch.
    #[n(2)]
    pub listeners: u64,
    /// Times that someone joined it.
    #[n(3)]
    pub hits: u64,
    /// Those addresses of the audience from which somebody gives, in the order asked.
    #[n(4)]
    pub givers: Vec<Givers>,
}

impl Guidance {
    pub(super) fn check(&self) -> Check {
        if self.givers.len() > limits::ITEMS {
            return Err("too many addresses");
        }
        if !self.givers.is_sorted_by(|a, b| a.index < b.index) {
            return Err("addresses out of order");
        }
        Ok(())
    }
}

/// Members of a swarm that give, and are seen at one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Givers {
    /// Which address of the audience, from 0.
    #[n(0)]
    pub index: u32,
    /// How many they are.
    #[n(1)]
    pub peers: u64,
    /// Bytes that they sent on this tracker, as far as it could confirm it.
    #[n(2)]
    pub sent: u64,
    /// Weight of the one that counts most, in thousandths, as in [`Standing`].
    #[n(3)]
    pub weight: u32,
}

/// Something that speaks against a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Mark {
    /// What.
    #[n(0)]
    pub reason: MarkReason,
    /// How many, as the reason says.
    #[n(1)]
    pub count: u64,
}

/// Why a peer is trusted less, `uint` on the wire. Those that a peer does not know are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct MarkReason(#[n(0)] pub u16);

impl MarkReason {
    /// Receivers said that pages of its were altered; counted are receivers.
    pub const ALTERED: MarkReason = MarkReason(1);
    /// It took up nothing of what was ordered for it; counted are orders, as they fade.
    pub const UNHEEDED: MarkReason = MarkReason(2);
    /// It accused hosts of altering pages so often that its word weighs nothing; counted are accusations, as they fade.
    pub const ACCUSES: MarkReason = MarkReason(3);
    /// It complained so often of hosts that its word weighs nothing; counted are complaints, as they fade.
    pub const COMPLAINS: MarkReason = MarkReason(4);
    /// Several receivers did not find at it what it said it holds; counted are media.
    pub const LACKS: MarkReason = MarkReason(5);
}

/// Is the peer still there? To be answered at once with whatever it has to say, or a ping.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Knock {}

impl Knock {
    #[allow(clippy::unused_self)]
    pub(super) fn check(&self) -> Check {
        Ok(())
    }
}
