//! What the demo shows at one moment.

use std::time::Duration;

use iceshare::icet::PageMap;

/// One moment of the demo; all that its view needs.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// Title of the media.
    pub(crate) title: String,
    /// Length in bytes.
    pub(crate) bytes: u64,
    /// Number of pages.
    pub(crate) pages: u64,
    /// Duration; zero if it is unknown.
    pub(crate) duration: Duration,
    /// Link for a player.
    pub(crate) player: String,
    /// Link to the page with a player and the seek bar.
    pub(crate) page: String,
    /// Link to the tracker's page.
    pub(crate) tracker: String,
    /// Since the peers joined.
    pub(crate) elapsed: Duration,
    /// The origin first, then the peers.
    pub(crate) hosts: Vec<Host>,
    /// The outcome, once everything has arrived and was compared.
    pub(crate) verdict: Option<Verdict>,
}

/// The origin, or a peer.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// For people.
    pub(crate) name: String,
    /// Pages that it holds.
    pub(crate) map: PageMap,
    /// Upload limit in bytes a second.
    pub(crate) limit: u64,
    /// Bytes that it has sent.
    pub(crate) sent: u64,
    /// Bytes a second that it sends now.
    pub(crate) out: u64,
    /// What it received of each host, in the order of [`Snapshot::hosts`].
    pub(crate) from: Vec<Flow>,
    /// Pages that failed their check.
    pub(crate) bad: u64,
    /// When it had everything.
    pub(crate) complete: Option<Duration>,
}

/// From one host to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Bytes of pages that were verified and stored.
    pub(crate) bytes: u64,
    /// Bytes a second now.
    pub(crate) rate: u64,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Peers whose file equals the source, byte for byte.
    pub(crate) equal: usize,
    /// Peers.
    pub(crate) peers: usize,
}

impl Host {
    /// Bytes a second that it receives now.
    pub(crate) fn arriving(&self) -> u64 {
        self.from.iter().map(|f| f.rate).sum()
    }

    /// Bytes received.
    pub(crate) fn received(&self) -> u64 {
        self.from.iter().map(|f| f.bytes).sum()
    }
}

impl Snapshot {
    /// The peers, without the origin.
    pub(crate) fn peers(&self) -> &[Host] {
        self.hosts.get(1..).unwrap_or_default()
    }

    /// Bytes that peers received from the origin, and from each other.
    pub(crate) fn sources(&self) -> (u64, u64) {
        let origin = self.peers().iter().filter_map(|p| p.from.first()).map(|f| f.bytes).sum();
        let all: u64 = self.peers().iter().map(Host::received).sum();
        (origin, all - origin)
    }

    /// How many times the media left the origin.
    pub(crate) fn copies(&self) -> f64 {
        ratio(self.hosts.first().map_or(0, |o| o.sent), self.bytes)
    }

    /// Pages that peers hold, verified one by one as they came.
    pub(crate) fn verified(&self) -> u64 {
        self.peers().iter().map(|p| p.map.held()).sum()
    }
}

/// `a / b`, 0 if there is nothing to divide by.
#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(crate) fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}
