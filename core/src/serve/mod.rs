//! Serving, as far as it is the same over all payload protocols: a request against what a media has ([`plan`]), the
//! shelf's consent, and the bytes in large pieces as the upload limit lets them pass ([`Supply`]).
//!
//! A transport that names media, version and part in one request needs [`deliver`] only. One that cuts answers its own
//! way (HTTP) plans by itself, asks [`Shelf::admit`] and makes a [`Supply`] of what it planned.

mod plan;
mod supply;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use icet::{MediaId, MediaPath, PageNo, PeerKey, ProtocolName, Ticket};
use thiserror::Error;

pub use plan::{
    Part, Plan, Source, Unavailable, first_missing, pages_of_time, plan, plan_around_holes, plan_live,
};
pub use supply::{Again, Chunk, SLICES, Supply, SupplyError, slices};

use crate::protocol::{ErrorKind, What};
use crate::shelf::{Ask, Denied, Shelf};

/// A request, as a transport read it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The media's path.
    pub path: &'a MediaPath,
    /// The media.
    pub media: &'a MediaId,
    /// Version of its manifest.
    pub version: u64,
    /// Which part.
    pub what: &'a What,
    /// The ticket, if one was brought.
    pub ticket: Option<&'a Ticket>,
    /// The requester's key, if the transport proved it.
    pub proved: Option<PeerKey>,
}

/// Why nothing of a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No media of this path, id and version.
    #[error("no such media here")]
    NoMedia,
    /// The range is not there.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The shelf's decision.
    #[error(transparent)]
    Denied(#[from] Denied),
}

impl Refusal {
    /// What a transport tells the requester.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Refusal::NoMedia => ErrorKind::NoMedia,
            Refusal::Unavailable(_) => ErrorKind::NoRange,
            Refusal::Denied(why) => why.kind(),
        }
    }
}

/// A request that is served.
#[derive(Debug)]
pub struct Delivery {
    /// What is delivered: what was asked for, or a beginning of it, with its end.
    pub what: What,
    /// How much the media has of it: pages, bytes, microseconds or slices, as `what` counts.
    pub total: u64,
    /// The first page that is left out because it is not held.
    pub left_out: Option<PageNo>,
    /// The bytes; where pages are left out, the page behind them is named.
    pub supply: Supply,
}

/// Looks the media up, plans the answer around what is not held, and asks the shelf. Pages that are waited for may take `patience` each.
///
/// # Errors
/// [`Refusal`].
pub fn deliver(
    shelf: &Arc<Shelf>,
    protocol: &ProtocolName,
    wanted: &Wanted<'_>,
    patience: Duration,
) -> Result<Delivery, Refusal> {
    let media = shelf.find_id(wanted.media).ok_or(Refusal::NoMedia)?;
    if media.path() != wanted.path || media.manifest().version != wanted.version {
        return Err(Refusal::NoMedia);
    }
    let (Plan { what, total, source }, left_out) = plan_around_holes(&media, wanted.what)?;
    let ask = Ask { media: &media, protocol, what: &what, ticket: wanted.ticket, proved: wanted.proved };
    let admission = shelf.admit(ask)?;
    Ok(Delivery { what, total, left_out, supply: Supply::new(media, admission, source, patience) })
}
