//! What hosts serve from, and who may have how much of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use icet::{MediaId, MediaPath, Now, PeerKey, ProtocolName, Ticket, TicketKey};
use thiserror::Error;

use crate::protocol::{ErrorKind, What};
use crate::store::MediaStore;

/// Time, for the shelf.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// Monotonic time.
    fn now(&self) -> Now;
    /// Wall clock, milliseconds since 1970.
    fn wall_ms(&self) -> u64;
}

/// What requests without a ticket get.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Anonymous {
    /// Nothing.
    Deny,
    /// At most this part (0 to 1) of the upload rate, after all ticketed requests. Without an upload rate: as `Allow`.
    Share(f64),
    /// Whatever ticketed requests leave.
    Allow,
}

/// Settings of a shelf.
#[derive(Debug, Clone)]
pub struct ShelfConfig {
    /// This peer: tickets must be for it.
    pub host: PeerKey,
    /// Upload over all protocols together, in bytes a second; none: unlimited.
    pub up: Option<u64>,
    /// What requests without a ticket get.
    pub anonymous: Anonymous,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// A request, as a transport understood it.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The media, from [`Shelf::find`].
    pub media: &'a MediaStore,
    /// Over which protocol.
    pub protocol: &'a ProtocolName,
    /// Which part.
    pub what: &'a What,
    /// The ticket, if one was brought.
    pub ticket: Option<&'a Ticket>,
    /// The requester's key, if the transport proved it.
    pub proved: Option<PeerKey>,
}

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Denied {
    /// Without a ticket nothing is served here.
    #[error("a ticket is needed: ask the tracker for an assignment")]
    NoTicket,
    /// Malformed, or not made by the tracker for this host.
    #[error("the ticket is forged, or was made for another host")]
    Forged,
    /// From a tracker that this host has no session with.
    #[error("the ticket is from a tracker that this host is not in a session with")]
    UnknownTracker,
    /// From before the tracker's restart.
    #[error("the ticket is from an earlier life of the tracker")]
    OldEpoch,
    /// Expired.
    #[error("the ticket has expired")]
    Expired,
    /// For another host.
    #[error("the ticket is for another host")]
    OtherHost,
    /// For another media, or another version of it.
    #[error("the ticket is for another media or version")]
    OtherMedia,
    /// For another protocol.
    #[error("the ticket is for another protocol")]
    OtherProtocol,
    /// For another receiver than the connection's key.
    #[error("the ticket is for another receiver")]
    OtherReceiver,
    /// The request reaches beyond the ticket's pages.
    #[error("the request reaches beyond the ticket's pages")]
    OtherPages,
    /// The ticket is being used by another request right now.
    #[error("the ticket is in use by another request")]
    InUse,
    /// The ticket's bytes are used up.
    #[error("the ticket is used up")]
    Spent,
    /// This host is too busy.
    #[error("this host is busy")]
    Busy,
    /// The media was taken off the shelf, or its file changed.
    #[error("the media is no longer served here")]
    Withdrawn,
}

impl Denied {
    /// What a transport tells the requester.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Denied::InUse | Denied::Busy => ErrorKind::Busy,
            Denied::Withdrawn => ErrorKind::NoMedia,
            _ => ErrorKind::Denied,
        }
    }
}

/// Bytes served under one assignment (or without ticket) since they were last asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The tracker of the ticket; none without ticket.
    pub tracker: Option<PeerKey>,
    /// The assignment; 0 without ticket.
    pub assignment: u64,
    /// The media.
    pub media: MediaId,
    /// Bytes.
    pub bytes: u64,
}

/// What was served since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServedTotals {
    /// All bytes.
    pub bytes: u64,
    /// Bytes without ticket.
    pub anonymous: u64,
    /// Bytes by protocol.
    pub by_protocol: BTreeMap<ProtocolName, u64>,
    /// Bytes by receiver (of a ticket), at most the 4096 that came first.
    pub by_receiver: BTreeMap<PeerKey, u64>,
    /// Requests refused.
    pub denied: u64,
}

/// What hosts serve from, and who may have how much of it. One for all protocols of a peer.
#[derive(Debug)]
pub struct Shelf {
    config: ShelfConfig,
}

impl Shelf {
    /// An empty shelf.
    #[must_use]
    pub fn new(config: ShelfConfig) -> Arc<Shelf> {
        Arc::new(Shelf { config })
    }

    /// Puts a media on the shelf; replaces another version of it.
    pub fn put(&self, media: Arc<MediaStore>) {
        let _ = media;
    }

    /// Takes a media off; requests under way end at their next [`Admission::permit`].
    pub fn remove(&self, id: &MediaId) {
        let _ = id;
    }

    /// The media at `path`, the one put last if several publishers use that path.
    #[must_use]
    pub fn find(&self, path: &MediaPath) -> Option<Arc<MediaStore>> {
        self.find_for(path, None)
    }

    /// The media at `path` that `ticket` names, where several publishers use that path.
    #[must_use]
    pub fn find_for(&self, path: &MediaPath, ticket: Option<&Ticket>) -> Option<Arc<MediaStore>> {
        let _ = (path, ticket);
        None
    }

    /// The media with this id.
    #[must_use]
    pub fn find_id(&self, id: &MediaId) -> Option<Arc<MediaStore>> {
        let _ = id;
        None
    }

    /// All media on the shelf.
    #[must_use]
    pub fn media(&self) -> Vec<Arc<MediaStore>> {
        Vec::new()
    }

    /// Whether a request is served. To be asked before anything of it is sent.
    ///
    /// # Errors
    /// [`Denied`] says why not.
    pub fn admit(self: &Arc<Shelf>, ask: Ask<'_>) -> Result<Admission, Denied> {
        let _ = (ask, &self.config);
        Err(Denied::NoTicket)
    }

    /// The key of the tickets that `tracker` hands out for this host, from the welcome of a session, and how far tracker time
    /// is ahead of the wall clock in milliseconds. Ends [`Shelf::tracker_lost`].
    pub fn set_ticket_key(&self, tracker: PeerKey, epoch: u64, key: TicketKey, tracker_time_offset: i64) {
        let _ = (tracker, epoch, key, tracker_time_offset);
    }

    /// The session with `tracker` broke: for 10 minutes, tickets that were valid then stay valid.
    pub fn tracker_lost(&self, tracker: &PeerKey) {
        let _ = tracker;
    }

    /// What was served since the last call.
    #[must_use]
    pub fn drain_served(&self) -> Vec<Served> {
        Vec::new()
    }

    /// What was served since the start.
    #[must_use]
    pub fn served_totals(&self) -> ServedTotals {
        ServedTotals::default()
    }
}

/// A request that is served. Dropping it ends the request.
#[derive(Debug)]
pub struct Admission {
    ticketed: bool,
}

impl Admission {
    /// Waits until `bytes` may be written, and counts them as served.
    ///
    /// # Errors
    /// [`Denied::Spent`] once the ticket's bytes are used up, [`Denied::Withdrawn`] if the media is no longer served.
    pub async fn permit(&self, bytes: usize) -> Result<(), Denied> {
        let _ = bytes;
        Ok(())
    }

    /// Whether the request came with a ticket.
    #[must_use]
    pub fn is_ticketed(&self) -> bool {
        self.ticketed
    }
}
