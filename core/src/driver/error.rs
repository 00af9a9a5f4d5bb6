//! What can go wrong for who uses a peer.

use std::path::PathBuf;

use icet::message::{ErrorCode, ErrorMessage};
use icet::{IcetUrl, MediaPath};
use thiserror::Error;

use crate::engine::io::Refusal;
use crate::store::StoreError;

/// What trackers say of a media of which there is nothing else to say.
const NOTHING_MORE: &str = "no such media here";

/// Why a peer could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The ports.
    #[error(transparent)]
    Bind(#[from] crate::net::BindError),
    /// The data directory.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The trust store.
    #[error(transparent)]
    Trust(#[from] crate::keyring::TrustError),
    /// A protocol could not begin to serve.
    #[error("the payload protocol {0} cannot serve")]
    Serve(icet::ProtocolName, #[source] crate::protocol::TransportError),
}

/// Why a media could not be opened, fetched or published.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The link names no media.
    #[error("the link names no media: icet://HOST[:PORT]/PATH")]
    NoPath,
    /// No session with the tracker.
    #[error("no tracker answers at {tracker}: {why}")]
    Tracker {
        /// Host and port.
        tracker: String,
        /// What happened.
        why: String,
    },
    /// The tracker does not know it.
    #[error("no such media on {tracker}: {path}{}", .why.as_ref().map(|why| format!("; {why}")).unwrap_or_default())]
    NoMedia {
        /// Host and port.
        tracker: String,
        /// Its path.
        path: MediaPath,
        /// What the tracker says of it beside that: that it moved, or that the operator withdrew it.
        why: Option<String>,
    },
    /// It was taken off the tracker.
    #[error("the media was withdrawn by its publisher{}", .0.as_ref().map(|p| format!("; it is now at {p}")).unwrap_or_default())]
    Withdrawn(Option<MediaPath>),
    /// The tracker's operator took it off.
    #[error("the media was withdrawn by the operator of the tracker")]
    TakenOff,
    /// Its broadcaster has been gone for too long.
    #[error("the broadcast is off the air: its broadcaster is gone, and nothing comes any more")]
    OffAir,
    /// The key of tracker or publisher, or the manifest's version or signature, is not what it must be.
    #[error("{0}")]
    Trust(String),
    /// The tracker knows a higher version, or another manifest of the same one.
    #[error("{0}")]
    Outdated(String),
    /// The tracker has no session for this key: another program has it, or the operator bans it.
    #[error("the tracker refuses this key: {0}")]
    KeyRefused(String),
    /// The tracker refused for another reason.
    #[error("the tracker refused: {0}")]
    Refused(String),
    /// Nobody had good data for too long.
    #[error(
        "nobody has sent a good page of it for {0} s; held: {1} of {2} pages (run the same command again to resume)"
    )]
    NoData(u64, u64, u64),
    /// Our own disk.
    #[error("{0}")]
    Store(String),
    /// Another process of ours fetches it to the same place.
    #[error("{} is being written by another iceshare: wait for it, or choose another name with -o", .0.display())]
    InUse(PathBuf),
    /// The peer was shut down.
    #[error("the peer was shut down")]
    Closed,
}

impl OpenError {
    /// The exit code that a command ends with.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            OpenError::NoPath => 2,
            OpenError::Tracker { .. } => 3,
            OpenError::NoMedia { .. } | OpenError::Withdrawn(_) | OpenError::TakenOff => 4,
            OpenError::NoData(..) | OpenError::OffAir => 5,
            OpenError::Trust(_) | OpenError::Outdated(_) | OpenError::KeyRefused(_) => 6,
            OpenError::Refused(_) | OpenError::Store(_) | OpenError::InUse(_) | OpenError::Closed => 1,
        }
    }

    pub(crate) fn of_store(e: &StoreError) -> OpenError {
        match e {
            StoreError::InUse(path) => OpenError::InUse(path.clone()),
            e => OpenError::Store(e.to_string()),
        }
    }

    pub(crate) fn from_refusal(url: &IcetUrl, path: &MediaPath, why: Refusal) -> OpenError {
        match why {
            Refusal::Withdrawn(moved) => OpenError::Withdrawn(moved),
            Refusal::TakenOff => OpenError::TakenOff,
            Refusal::OffAir => OpenError::OffAir,
            Refusal::Locate { error, .. } => OpenError::Refused(error.text),
            Refusal::Error(ErrorMessage { code, request, text, .. }) => match code {
                ErrorCode::NO_MEDIA => OpenError::NoMedia {
                    tracker: url.authority(),
                    path: path.clone(),
                    why: Some(text).filter(|t| !t.is_empty() && t != NOTHING_MORE),
                },
                // Of the whole session, not of what was asked in it.
                ErrorCode::FORBIDDEN if request.is_none() => OpenError::KeyRefused(text),
                ErrorCode::ROLLBACK => OpenError::Outdated(text),
                ErrorCode::OWNED | ErrorCode::FORGED | ErrorCode::OTHER_PUBLISHER => OpenError::Trust(text),
                _ => OpenError::Refused(text),
            },
        }
    }
}
