//! What goes into the engine and what comes out of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use icet::media::Signed;
use icet::message::{Focus, Intent, MediaAnswer, Need, Outcome, Position, Source, ToTracker};
use icet::{MediaPath, Now, PageMap, PageNo, PageRanges, PageSet, PeerKey, ProtocolName, ProvenSlice};

pub use crate::shelf::{Giving, Share};

/// A fetch that the engine ordered: one try at one host for (the rest of) an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FetchId(pub u64);

/// A media that the driver opened, before and after its id is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u64);

/// What the driver tells the engine to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// Join the swarm of `path`. Answered by [`Action::Joined`] or [`Action::Refused`]; re-joined by itself after a
    /// reconnect.
    Join {
        /// The driver's name for it.
        handle: Handle,
        /// Which media.
        path: MediaPath,
        /// Publisher, if pinned or known.
        publisher: Option<PeerKey>,
        /// Version held already (0: none) and the pages held of it.
        version: u64,
        /// See `version`.
        held: PageRanges,
        /// What is wanted.
        intent: Intent,
        /// Where to begin.
        at: Option<Position>,
        /// Of live media: it begins with what was on so long ago.
        back: Option<Duration>,
    },
    /// Publish; `slices` are those of the setup and the tail. Answered as a join. The engine then uploads the
    /// other slices as it gets them from [`Command::Upload`].
    Publish {
        /// The driver's name for it.
        handle: Handle,
        /// Signed manifest.
        manifest: Box<icet::SignedManifest>,
        /// First slices.
        slices: Vec<ProvenSlice>,
    },
    /// Slices that [`Action::WantUpload`] asked for; empty: there are no more.
    Upload {
        /// Which media.
        handle: Handle,
        /// The slices, at most 64.
        slices: Vec<ProvenSlice>,
    },
    /// The driver accepted the manifest of [`Action::Joined`] (signature, pins, version), and holds `held`.
    /// Only then assignments of this media are taken up.
    Accept {
        /// Which media.
        handle: Handle,
        /// Pages held and how many there are.
        held: PageMap,
        /// Bytes of the media, to estimate lengths of pages.
        bytes: u64,
        /// Version of the manifest.
        version: u64,
    },
    /// Where the player is. Debounced by the engine (100 ms after the first of a storm).
    Focus {
        /// Which media.
        handle: Handle,
        /// The focus; its `media` field is filled in by the engine.
        focus: Focus,
    },
    /// Ask the tracker for the slice at a position. Answered by [`Action::Slices`] or [`Action::Refused`].
    Locate {
        /// Which media.
        handle: Handle,
        /// Where.
        at: Position,
    },
    /// Pages held by other means than fetches, or lost.
    Held {
        /// Which media.
        handle: Handle,
        /// Held now.
        got: PageRanges,
        /// Held no longer.
        lost: PageRanges,
    },
    /// Ask for figures without joining. Answered by [`Action::Info`] or [`Action::Refused`].
    Info {
        /// The driver's name for the request.
        handle: Handle,
        /// Which media.
        path: MediaPath,
    },
    /// The head of a live media that is published here: told now, or when the tracker has answered.
    Head {
        /// Which media.
        handle: Handle,
        /// The signed head.
        head: Signed,
        /// Those that are kept of what was told before, oldest first: told with the first head of each session.
        earlier: Arc<[Signed]>,
    },
    /// What this peer gives from now on; told in each session.
    Give(Giving),
    /// Ask how we stand with the tracker. Answered by [`Action::Standing`], or not at all: it is asked once, in this session or
    /// the next, and an answer that is lost is not asked for again.
    Standing,
    /// Ask which of the listeners that are served by other means give in the swarm of our own media. Answered by [`Action::Guidance`], or not at
    /// all: it is asked once, if a session stands.
    Audience {
        /// The media.
        handle: Handle,
        /// From where they come; of more than 1024, the first.
        addresses: Vec<std::net::IpAddr>,
    },
    /// What this host served; sent on in batches.
    Served {
        /// Assignment (0: without ticket) and bytes.
        items: Vec<(u64, u64)>,
    },
    /// Leave a swarm.
    Leave {
        /// Which media.
        handle: Handle,
    },
    /// Take own media off the tracker.
    Withdraw {
        /// Which media.
        handle: Handle,
        /// Where it went.
        moved: Option<MediaPath>,
        /// Give up the path.
        release: bool,
    },
}

/// What the driver tells of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchEvent {
    /// The first byte came.
    FirstByte,
    /// So many bytes came since this was last said, of whatever page.
    Progress {
        /// How many.
        bytes: u64,
    },
    /// A page was verified and stored.
    Page {
        /// Which.
        page: PageNo,
        /// Its length in bytes.
        len: u32,
    },
    /// A page came that we hold already.
    Duplicate {
        /// Which.
        page: PageNo,
    },
    /// A page failed its check (CRC or hash), or a proof did. The driver has stopped the fetch.
    Altered,
    /// The fetch ended; nothing more of it follows.
    Ended(Outcome),
}

/// What the engine wants done.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub enum Action {
    /// Open the session to the tracker; answer with `connected` or `disconnected`.
    Connect,
    /// Close it.
    Disconnect,
    /// Send a message in the session.
    Send(ToTracker),
    /// Begin to fetch.
    Start {
        /// Name of the fetch.
        fetch: FetchId,
        /// Which media.
        handle: Handle,
        /// What is still missing of the assignment: request this set, skip pages that are held.
        pages: PageSet,
        /// From whom and how.
        source: Source,
        /// What for.
        need: Need,
        /// Assignment, for logs.
        assignment: u64,
    },
    /// Drop a fetch; its `Ended` need not be reported.
    Stop {
        /// Name of the fetch.
        fetch: FetchId,
    },
    /// A media was joined or published: check the manifest and slices, then [`Command::Accept`] or [`Command::Leave`].
    Joined {
        /// Which.
        handle: Handle,
        /// The tracker's answer.
        answer: MediaAnswer,
    },
    /// The head of a live media from the tracker, unverified: where to begin.
    Head {
        /// Which media.
        handle: Handle,
        /// The head.
        head: Signed,
        /// Media time of what was on when we want to begin, in microseconds from page 0.
        time: Option<i64>,
    },
    /// A newer manifest; to be checked as in `Joined` (accept again, or leave).
    Newer {
        /// Which.
        handle: Handle,
        /// The manifest.
        manifest: icet::media::Signed,
    },
    /// Slices from the tracker, unverified.
    Slices {
        /// Which media.
        handle: Handle,
        /// The slices.
        slices: Vec<ProvenSlice>,
    },
    /// The tracker can take more slices of a published media, from this index on: [`Command::Upload`].
    WantUpload {
        /// Which.
        handle: Handle,
        /// First slice not uploaded.
        from: u64,
    },
    /// The tracker has nothing to order for a media, and says why. Over with the next [`Action::Start`] of it.
    Short {
        /// Which.
        handle: Handle,
        /// Why.
        shortage: icet::message::Shortage,
    },
    /// Figures.
    Info {
        /// Which request.
        handle: Handle,
        /// The answer.
        answer: icet::message::InfoAnswer,
    },
    /// The tracker refused a request, or withdrew the media. The engine has forgotten the handle (no leave is
    /// needed), except after [`Refusal::Locate`].
    Refused {
        /// Which.
        handle: Handle,
        /// Why.
        why: Refusal,
    },
    /// The tracker does not take a request now, and says why: it is made again after this time.
    Postponed {
        /// Of which media.
        handle: Handle,
        /// The tracker's words.
        text: String,
        /// From now.
        pause: Duration,
    },
    /// The session began: what the tracker told of itself and of us.
    Welcome(icet::message::Welcome),
    /// How we stand with the tracker; none: it does not tell.
    Standing(Option<icet::message::Standing>),
    /// Which of the listeners that were told of give.
    Guidance {
        /// The media.
        handle: Handle,
        /// The tracker's answer.
        answer: icet::message::Guidance,
    },
    /// Dial-back result, for the user.
    Reached(icet::message::ReachResult),
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// The tracker's error.
    Error(icet::message::ErrorMessage),
    /// Its publisher withdrew the media, or moved it.
    Withdrawn(Option<MediaPath>),
    /// The tracker's operator withdrew the media.
    TakenOff,
    /// Its broadcaster is gone for too long.
    OffAir,
    /// A [`Command::Locate`] failed; the media itself goes on.
    Locate {
        /// What was looked for.
        at: Position,
        /// The tracker's error.
        error: icet::message::ErrorMessage,
    },
}

/// Fixed facts and limits of an engine.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the hello says.
    pub hello: icet::message::Hello,
    /// Most fetches at once, over all media.
    pub fetches: usize,
    /// Most fetches at once from one host.
    pub per_host: usize,
    /// Protocols whose requests have a connection each: no more of them are made to one host at once than keep a line busy.
    pub connects_each: BTreeSet<ProtocolName>,
    /// A fetch without a byte for so long has stalled (first byte and later ones alike).
    pub stall: Duration,
    /// The same for urgent pages.
    pub stall_urgent: Duration,
    /// A way (host and protocol) that brought something before has fallen silent after so long, where another host can be turned
    /// to, or the same one over another carrier; more, the less steadily it brought something.
    pub silence: Duration,
    /// Acknowledgements are held back at most so long (the tracker's welcome may lower it).
    pub ack_delay: Duration,
    /// First and longest pause between tries to reach the tracker; doubled and jittered in between.
    pub backoff: (Duration, Duration),
    /// Seed of the jitter.
    pub seed: u64,
}

/// Progress of one media, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Bytes of pages accepted.
    pub bytes: u64,
    /// Pages accepted.
    pub pages: u64,
    /// Pages refused.
    pub bad: u64,
    /// Pages that came twice.
    pub duplicates: u64,
    /// Fetches under way.
    pub fetches: u64,
    /// Distinct hosts among them.
    pub hosts: u64,
    /// When the first page was stored.
    pub first_page: Option<Now>,
}
