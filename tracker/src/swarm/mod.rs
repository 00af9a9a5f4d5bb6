//! Everything the tracker thinks, without IO: events in, effects out, time and randomness as arguments.
//!
//! See [`io`] for the contract with the server.

use std::collections::VecDeque;
use std::net::SocketAddr;

use icet::message::ToTracker;
use icet::{MediaId, NetKind, Now, PeerKey};

pub mod io;

pub use io::*;

/// The tracker's mind. Pure: see [`io`] for how it is driven.
#[derive(Debug)]
pub struct Swarm {
    config: SwarmConfig,
    effects: VecDeque<Effect>,
}

impl Swarm {
    /// A swarm that knows nothing yet.
    #[must_use]
    pub fn new(config: SwarmConfig) -> Swarm {
        Swarm { config, effects: VecDeque::new() }
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &SwarmConfig {
        &self.config
    }

    /// Gives back the owner of a path from the catalogue. Before any session, before [`Swarm::restore_media`].
    pub fn restore_name(&mut self, name: KnownName) {
        let _ = name;
    }

    /// Gives back a media from the catalogue. Before any session.
    pub fn restore_media(&mut self, media: KnownMedia) {
        let _ = media;
    }

    /// A session began whose key is proved. `contribution` is what the catalogue knows of the key.
    pub fn handle_connect(
        &mut self,
        now: Now,
        conn: ConnId,
        peer: PeerKey,
        from: SocketAddr,
        kind: NetKind,
        contribution: Contribution,
    ) {
        let _ = (now, conn, peer, from, kind, contribution);
    }

    /// A session ended.
    pub fn handle_disconnect(&mut self, now: Now, conn: ConnId) {
        let _ = (now, conn);
    }

    /// A message came. `wall_ms`: wall clock, milliseconds since 1970.
    pub fn handle_message(&mut self, now: Now, wall_ms: u64, conn: ConnId, message: ToTracker) {
        let _ = (now, wall_ms, conn, message);
    }

    /// A frame came that could not be decoded, but deserves an answer; `kind` is the message's number if known.
    pub fn handle_malformed(&mut self, now: Now, conn: ConnId, kind: Option<u64>, why: &str) {
        let _ = (now, conn, kind, why);
    }

    /// Outcome of an [`Effect::Dial`]; the error is a text for people.
    pub fn handle_dialed(&mut self, now: Now, dial: DialId, outcome: Result<(), String>) {
        let _ = (now, dial, outcome);
    }

    /// The moment of [`Swarm::poll_timeout`] has come (or passed).
    pub fn handle_timeout(&mut self, now: Now, wall_ms: u64) {
        let _ = (now, wall_ms);
    }

    /// The next thing to do; to be drained after each `handle_*`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Swarm::handle_timeout`] must be called at the latest; none: not before another event.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Now> {
        None
    }

    /// All media, ordered by path, from `skip` on, at most `limit`.
    #[must_use]
    pub fn media_list(&self, skip: usize, limit: usize) -> Vec<MediaView> {
        let _ = (skip, limit);
        Vec::new()
    }

    /// One media, in short: constant time.
    #[must_use]
    pub fn media_view(&self, media: &MediaId) -> Option<MediaView> {
        let _ = media;
        None
    }

    /// One media, with `parts` parts of availability (at most 1000).
    #[must_use]
    pub fn media_detail(&self, media: &MediaId, parts: usize) -> Option<MediaDetail> {
        let _ = (media, parts);
        None
    }

    /// The media at a path.
    #[must_use]
    pub fn find(&self, path: &icet::MediaPath) -> Option<MediaId> {
        let _ = path;
        None
    }

    /// Peers with a session, ordered by key, from `skip` on, at most `limit`.
    #[must_use]
    pub fn peers(&self, skip: usize, limit: usize) -> Vec<PeerView> {
        let _ = (skip, limit);
        Vec::new()
    }

    /// Each protocol that was ever offered.
    #[must_use]
    pub fn protocols(&self) -> Vec<ProtocolView> {
        Vec::new()
    }

    /// Figures of the whole tracker.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals::default()
    }
}
