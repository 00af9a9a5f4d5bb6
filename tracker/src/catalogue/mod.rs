//! What a tracker keeps over its restarts, and what it tells the world about it.
//!
//! Two small traits, so that trackers that outgrow one machine can share both through an existing distributed
//! engine: [`Persist`] (reads and batches of writes) and [`Announce`] (what changed, for whoever cares). Here
//! are the first implementations: [`Disk`] (one redb file), and [`Index`] (search), [`Journal`] (lines in the log)
//! and [`Written`] (counters), which listen to the announcements.
//!
//! The swarm never waits for a disk: [`Writer`] owns a thread that gathers writes into transactions.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use icet::{MediaId, PeerKey, ProvenSlice};
use thiserror::Error;

use crate::swarm::io::{Contribution, KnownMedia, KnownName, KnownProtocol, Store};
use crate::swarm::rules::Rules;

mod disk;
mod index;
#[cfg(test)]
pub(crate) mod samples;
mod secret;
mod tables;
mod writer;

pub use disk::Disk;
pub use index::{Entry, Found, Index, Query};
pub use secret::load_or_create_identity;
pub use writer::{Durable, Writer};

/// Why the catalogue cannot be used.
#[derive(Debug, Error)]
pub enum CatalogueError {
    /// The folder cannot be made, read or written.
    #[error("cannot use the data folder {}: {why} (choose another one with --data)", .dir.display())]
    Folder {
        /// Which.
        dir: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// Somebody else has it open.
    #[error("another icetracker runs on the data folder {} (stop it, or choose another one with --data)", .0.display())]
    Locked(PathBuf),
    /// A file that is no catalogue, or is damaged.
    #[error("{} is damaged ({why}); put a backup there, or move it away to begin anew", .file.display())]
    Damaged {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Written by a later version of the program.
    #[error("{} was written by a later icetracker (format {format}, this one knows {known})", .file.display())]
    Format {
        /// Which.
        file: PathBuf,
        /// Its format.
        format: u64,
        /// Ours.
        known: u64,
    },
    /// Reading or writing failed while the tracker ran.
    #[error("cannot write the catalogue {}: {why}", .file.display())]
    Io {
        /// Which.
        file: PathBuf,
        /// What happened.
        why: String,
    },
}

/// All that a tracker must know to go on. Slices and contributions are read when they are needed.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Secret that the keys of tickets are derived from.
    pub secret: [u8; 32],
    /// Grows with each start: this start's.
    pub epoch: u64,
    /// Who owns which path.
    pub names: Vec<KnownName>,
    /// The media; the signatures of their manifests were checked again.
    pub media: Vec<KnownMedia>,
    /// What was learned of protocols.
    pub protocols: Vec<KnownProtocol>,
    /// What the operator ruled.
    pub rules: Rules,
}

/// What a tracker persists.
pub trait Persist: Send + Sync + 'static {
    /// Begins an epoch, durably, and reads what was kept. Called once.
    ///
    /// # Errors
    /// See [`CatalogueError`].
    fn begin(&self) -> Result<Contents, CatalogueError>;

    /// Makes all of `writes` durable, in order, or none; repeating them does no harm. May take as long as a disk takes.
    ///
    /// # Errors
    /// [`CatalogueError::Io`]; the same writes may be tried again later.
    fn commit(&self, writes: &[Store]) -> Result<(), CatalogueError>;

    /// The slices at `indexes`, those that are there, in that order.
    ///
    /// # Errors
    /// [`CatalogueError::Io`] or [`CatalogueError::Damaged`].
    fn slices(
        &self,
        media: &MediaId,
        version: u64,
        indexes: &[u64],
    ) -> Result<Vec<ProvenSlice>, CatalogueError>;

    /// What a key has sent and received; nothing if it is not known.
    ///
    /// # Errors
    /// [`CatalogueError::Io`].
    fn contribution(&self, peer: &PeerKey) -> Result<Contribution, CatalogueError>;
}

/// What a tracker announces once it is durable: to other trackers later, to its operator now.
pub trait Announce: Send + Sync + 'static {
    /// Something changed. Must not block.
    fn announce(&self, write: &Store);
}

/// Announces publications and withdrawals in the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Journal;

impl Announce for Journal {
    fn announce(&self, write: &Store) {
        match write {
            Store::Manifest { manifest: m } => {
                let (pages, bytes) = (m.pages, m.bytes);
                tracing::info!(path = ?m.path.as_str(), version = m.version, publisher = %m.publisher.short(), pages, bytes, "published");
            }
            Store::Withdrawn { media } => tracing::info!(?media, "withdrawn"),
            Store::Forget { path } => tracing::info!(path = ?path.as_str(), "path given up"),
            _ => {}
        }
    }
}

/// Counts what became durable, by kind.
#[derive(Debug, Default)]
pub struct Written {
    names: AtomicU64,
    manifests: AtomicU64,
    slices: AtomicU64,
    withdrawals: AtomicU64,
    hits: AtomicU64,
    contributions: AtomicU64,
    protocols: AtomicU64,
    rules: AtomicU64,
}

impl Written {
    /// Each kind with its count.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 8] {
        [
            ("names", &self.names),
            ("manifests", &self.manifests),
            ("slices", &self.slices),
            ("withdrawals", &self.withdrawals),
            ("hits", &self.hits),
            ("contributions", &self.contributions),
            ("protocols", &self.protocols),
            ("rules", &self.rules),
        ]
        .map(|(kind, n)| (kind, n.load(Ordering::Relaxed)))
    }
}

impl Announce for Written {
    fn announce(&self, write: &Store) {
        let counter = match write {
            Store::Name(_) | Store::Forget { .. } => &self.names,
            Store::Manifest { .. } => &self.manifests,
            Store::Slice { .. } => &self.slices,
            Store::Withdrawn { .. } => &self.withdrawals,
            Store::Hits { .. } => &self.hits,
            Store::Contribution { .. } => &self.contributions,
            Store::Protocol(_) => &self.protocols,
            Store::Rules(_) => &self.rules,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
