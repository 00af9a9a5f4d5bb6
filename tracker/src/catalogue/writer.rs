//! The thread that writes the catalogue, so that nobody else waits for the disk.
//!
//! Writes that somebody relies on (media, slices, names) go at once, together with all that gathered while the
//! last transaction was under way; figures (contribution, hits) wait for a second, and only their last value counts.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use icet::{MediaId, PeerKey, ProvenSlice};
use tokio::sync::watch;

use super::{Announce, CatalogueError, Persist};
use crate::swarm::io::{Contribution, Store};

/// Figures are written at most so long after they changed.
const FIGURES: Duration = Duration::from_secs(1);
/// Pause after a write that failed.
const RETRY: Duration = Duration::from_secs(2);
/// Waiting writes beyond which [`Writer::relaxed`] holds publishers back, in bytes.
const PRESSURE: usize = 32 << 20;
/// A contribution stays in memory for so long after its last change, so that a key that comes back finds it.
const RECENT: Duration = Duration::from_secs(120);

/// Reads and writes of the catalogue; reads see what was submitted. Clones share it; when the last is dropped, what
/// waits is still written.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Arc<Thread>,
}

struct Thread {
    shared: Arc<Shared>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.end();
    }
}

/// How far the thread has come.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// Number of the last write that is durable.
    done: u64,
    /// Why the last transaction failed, in words. Nothing behind it is written before it is.
    trouble: Option<String>,
    /// Bytes that wait.
    waiting: usize,
}

/// A place in the order of writes, to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Durable(u64);

struct Shared {
    persist: Arc<dyn Persist>,
    announce: Vec<Arc<dyn Announce>>,
    state: Mutex<State>,
    wake: Condvar,
    progress: watch::Sender<Progress>,
}

type SliceKey = (MediaId, u64, u64);

#[derive(Default)]
struct State {
    queue: Vec<Store>,
    bytes: usize,
    /// Number of the last write submitted.
    last: u64,
    /// Slices that are not durable yet, with the number of their write.
    slices: HashMap<SliceKey, (u64, ProvenSlice)>,
    hits: HashMap<MediaId, u64>,
    contribution: HashMap<PeerKey, Recent>,
    /// When the first of the waiting figures came.
    figures_since: Option<Instant>,
    closing: bool,
}

struct Recent {
    total: Contribution,
    changed: Instant,
    dirty: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("progress", &*self.shared.progress.borrow()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Tells the thread to end when all is written.
    fn end(&self) {
        self.state().closing = true;
        self.wake.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts the thread. Each write is told to all of `announce` once it is durable.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(persist: Arc<dyn Persist>, announce: Vec<Arc<dyn Announce>>) -> io::Result<Writer> {
        let shared = Arc::new(Shared {
            persist,
            announce,
            state: Mutex::default(),
            wake: Condvar::new(),
            progress: watch::Sender::new(Progress::default()),
        });
        let for_thread = shared.clone();
        let thread =
            std::thread::Builder::new().name("catalogue".to_owned()).spawn(move || for_thread.run())?;
        let thread = Thread { shared: shared.clone(), handle: Mutex::new(Some(thread)) };
        Ok(Writer { shared, thread: Arc::new(thread) })
    }

    /// Takes a write. Never blocks on the disk.
    pub fn submit(&self, write: Store) -> Durable {
        let mut state = self.shared.state();
        let now = Instant::now();
        state.last += 1;
        let number = state.last;
        match write {
            Store::Contribution { peer, contribution: total } => {
                state.contribution.insert(peer, Recent { total, changed: now, dirty: true });
                state.figures_since.get_or_insert(now);
            }
            Store::Hits { media, hits } => {
                state.hits.insert(media, hits);
                state.figures_since.get_or_insert(now);
            }
            other => {
                state.bytes += size(&other);
                match &other {
                    Store::Slice { media, version, index, slice, .. } => {
                        state.slices.insert((*media, *version, *index), (number, slice.clone()));
                    }
                    Store::Withdrawn { media } => {
                        state.hits.remove(media);
                    }
                    _ => {}
                }
                state.queue.push(other);
            }
        }
        drop(state);
        self.shared.wake.notify_one();
        Durable(number)
    }

    /// Waits until a write is durable.
    ///
    /// # Errors
    /// Why it could not be written, in words; it is tried again all the same.
    pub async fn durable(&self, at: Durable) -> Result<(), String> {
        let mut progress = self.shared.progress.subscribe();
        let seen = progress.wait_for(|p| p.done >= at.0 || p.trouble.is_some()).await;
        match seen {
            Ok(p) if p.done >= at.0 => Ok(()),
            Ok(p) => Err(p.trouble.clone().unwrap_or_default()),
            Err(_) => Err("the tracker stops".to_owned()),
        }
    }

    /// Waits while too much waits for the disk.
    pub async fn relaxed(&self) {
        // The sender lives as long as self.
        let _ = self.shared.progress.subscribe().wait_for(|p| p.waiting < PRESSURE).await;
    }

    /// Why nothing can be written at the moment, in words; none if all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.progress.borrow().trouble.clone()
    }

    /// The slices at `indexes`, those that are there, in that order. Blocks on the disk.
    ///
    /// # Errors
    /// See [`Persist::slices`].
    pub fn slices(
        &self,
        media: &MediaId,
        version: u64,
        indexes: &[u64],
    ) -> Result<Vec<ProvenSlice>, CatalogueError> {
        let waiting: HashMap<u64, ProvenSlice> = {
            let state = self.shared.state();
            let find = |i: &u64| Some((*i, state.slices.get(&(*media, version, *i))?.1.clone()));
            indexes.iter().filter_map(find).collect()
        };
        let rest: Vec<u64> = indexes.iter().copied().filter(|i| !waiting.contains_key(i)).collect();
        if rest.is_empty() {
            return Ok(indexes.iter().filter_map(|i| waiting.get(i).cloned()).collect());
        }
        if waiting.is_empty() {
            return self.shared.persist.slices(media, version, indexes);
        }
        let mut out = Vec::with_capacity(indexes.len());
        for index in indexes {
            match waiting.get(index) {
                Some(slice) => out.push(slice.clone()),
                None => out.extend(self.shared.persist.slices(media, version, &[*index])?),
            }
        }
        Ok(out)
    }

    /// What a key has given and taken, if that changed within the last two minutes. Never blocks on the disk.
    #[must_use]
    pub fn recent_contribution(&self, peer: &PeerKey) -> Option<Contribution> {
        self.shared.state().contribution.get(peer).map(|r| r.total)
    }

    /// What a key has given and taken. Blocks on the disk.
    ///
    /// # Errors
    /// See [`Persist::contribution`].
    pub fn contribution(&self, peer: &PeerKey) -> Result<Contribution, CatalogueError> {
        match self.recent_contribution(peer) {
            Some(c) => Ok(c),
            None => self.shared.persist.contribution(peer),
        }
    }

    /// Writes what waits, and ends the thread. Blocks on the disk.
    ///
    /// # Errors
    /// If the last writes failed.
    pub fn close(&self) -> Result<(), String> {
        self.shared.end();
        let thread = self.thread.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            return Err("the catalogue's thread failed".to_owned());
        }
        let progress = self.shared.progress.borrow();
        if progress.done >= self.shared.state().last {
            return Ok(());
        }
        Err(progress.trouble.clone().unwrap_or_else(|| "the catalogue's thread ended early".to_owned()))
    }
}

/// About how many bytes a write occupies.
fn size(write: &Store) -> usize {
    match write {
        Store::Slice { slice, .. } => 128 + slice.slice.len() + 32 * slice.proof.len(),
        Store::Manifest { manifest } => 256 + manifest.signed().body.len(),
        _ => 256,
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let (batch, number, closing) = self.gather();
            if batch.is_empty() {
                self.progress.send_modify(|p| p.done = p.done.max(number));
                if closing {
                    return;
                }
                continue;
            }
            // The same batch until it is written: it must not be overtaken.
            while let Err(e) = self.persist.commit(&batch) {
                tracing::error!("{e}; trying again");
                self.progress.send_modify(|p| p.trouble = Some(e.to_string()));
                let state = self.state();
                if state.closing {
                    return;
                }
                drop(self.wake.wait_timeout_while(state, RETRY, |s| !s.closing));
            }
            self.committed(&batch, number);
        }
    }

    /// Waits until something is due, and takes it.
    fn gather(&self) -> (Vec<Store>, u64, bool) {
        let mut state = self.state();
        loop {
            let due = state.figures_since.map(|since| FIGURES.saturating_sub(since.elapsed()));
            if state.closing || !state.queue.is_empty() || due == Some(Duration::ZERO) {
                break;
            }
            let wait = due.unwrap_or(RECENT);
            state = self.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            let prune = |_: &PeerKey, r: &mut Recent| r.dirty || r.changed.elapsed() < RECENT;
            if due.is_none() {
                state.contribution.retain(prune);
            }
        }
        let mut batch = std::mem::take(&mut state.queue);
        batch.extend(state.hits.drain().map(|(media, hits)| Store::Hits { media, hits }));
        for (peer, recent) in state.contribution.iter_mut().filter(|(_, r)| r.dirty) {
            recent.dirty = false;
            batch.push(Store::Contribution { peer: *peer, contribution: recent.total });
        }
        state.figures_since = None;
        let (number, closing, waiting) = (state.last, state.closing, state.bytes);
        drop(state);
        self.progress.send_modify(|p| p.waiting = waiting);
        (batch, number, closing)
    }

    fn committed(&self, batch: &[Store], number: u64) {
        let mut state = self.state();
        for write in batch {
            state.bytes = state.bytes.saturating_sub(match write {
                Store::Hits { .. } | Store::Contribution { .. } => 0,
                other => size(other),
            });
            if let Store::Slice { media, version, index, .. } = write {
                let key = (*media, *version, *index);
                if state.slices.get(&key).is_some_and(|(n, _)| *n <= number) {
                    state.slices.remove(&key);
                }
            }
        }
        state.contribution.retain(|_, r| r.dirty || r.changed.elapsed() < RECENT);
        let waiting = state.bytes;
        drop(state);
        for write in batch {
            self.announce.iter().for_each(|a| a.announce(write));
        }
        self.progress.send_modify(|p| {
            p.done = number;
            p.trouble = None;
            p.waiting = waiting;
        });
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
