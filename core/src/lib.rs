//! IceShare: spreads Ogg media, files and live streams, from listener to listener at the level of the Ogg page.
//!
//! This crate is what a player embeds. It names no transport: payload protocols register themselves
//! ([`protocol`]). Logic is sans-IO ([`engine`]); IO lives in thin drivers.

pub mod driver;
pub mod engine;
pub mod hash;
pub mod html;
pub mod keyring;
pub mod live;
pub mod net;
pub mod ogg;
pub mod protocol;
pub mod publish;
pub mod serve;
pub mod shelf;
pub mod store;
pub mod stream;
pub mod verify;

pub use driver::{
    Broadcast, BroadcastError, BroadcastOptions, FetchFailure, Flow, Giver, HeardTitles, Info, LivePage,
    LiveReader, Media, MediaReader, Notice, Notices, OpenError, OpenOptions, Peer, PeerConfig, PeerStats,
    Progress, Standing, StartError,
};
pub use icet;
