//! A media that is open in a peer: what its users see of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use icet::message::{Focus, Guidance, Intent, Position, Shortage};
use icet::{IcetUrl, MediaId, MediaPath, PeerKey, ProtocolName, SignedManifest};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::OpenError;
use super::assemble::Fragments;
use super::notice::Notice;
use super::proofs::Asking;
use super::session::Order;
use super::standing::{Standing, Told};
use super::standstill::{FetchFailure, Standstill};
use super::turns::Turns;
use crate::engine::io::{Command, Handle};
use crate::store::MediaStore;

/// So many times the patience with hosts is that with a tracker.
const AWAY: u64 = 10;

/// Where a media is in its life.
#[derive(Debug, Clone)]
pub(crate) enum Stage {
    /// Asked for; the tracker has not answered.
    Opening,
    /// Its manifest was accepted.
    Open,
    /// It ended for good.
    Failed(OpenError),
}

/// Bytes and pages that came from one host over one protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes of pages that were accepted.
    pub bytes: u64,
    /// Pages that were accepted.
    pub pages: u64,
    /// Fetches under way now.
    pub active: u32,
}

/// Shared between the session's task, the fetches, and who uses the media.
pub(crate) struct Shared {
    pub(crate) handle: Handle,
    pub(crate) url: IcetUrl,
    pub(crate) store: OnceLock<Arc<MediaStore>>,
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    pub(crate) intent: Intent,
    /// How long ago what readers of live media begin with was on; none: where all do.
    pub(crate) back: Option<Duration>,
    /// The media time of that, as the tracker said it, and when it did.
    pub(crate) begins: Mutex<Option<(i64, Instant)>>,
    pub(crate) opened: Instant,
    pub(crate) counts: Counts,
    /// Whether the tracker does not answer just now.
    pub(crate) away: AtomicBool,
    /// Whose turn it is to say where the media is played.
    pub(crate) turns: Mutex<Turns>,
    /// Parts of pages, until the rest of them came.
    pub(crate) fragments: Arc<Mutex<Fragments>>,
    /// Slices that fetches are asking for.
    pub(crate) asking: Arc<Asking>,
    /// Why nothing comes.
    pub(crate) standstill: Mutex<Standstill>,
    /// How we stand with the tracker.
    pub(crate) told: Told,
    /// What readers could not give.
    pub(crate) notices: broadcast::Sender<Notice>,
}

impl Shared {
    /// Takes up where its bytes go; what that holds the first time was here before.
    pub(crate) fn stored_in(&self, store: Arc<MediaStore>) {
        let held = store.held();
        if self.store.set(store).is_ok() {
            self.counts.resumed.store(held, Ordering::Relaxed);
        }
    }

    /// Notes verified pages that a host sent, `new` of which were not held.
    pub(crate) fn brought(&self, host: PeerKey, protocol: &ProtocolName, pages: &[Bytes], new: u64) {
        let (c, bytes, pages) =
            (&self.counts, pages.iter().map(|p| p.len() as u64).sum::<u64>(), pages.len() as u64);
        c.flow(host, protocol, |f| {
            (f.bytes, f.pages) = (f.bytes + bytes, f.pages + pages);
            c.duplicates.fetch_add(pages.saturating_sub(new), Ordering::Relaxed);
            c.bytes.fetch_add(bytes, Ordering::Relaxed);
        });
        let since = u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        let _ = c.first_page.compare_exchange(0, since, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The tracker says what was on when readers are to begin.
    pub(crate) fn begins_at(&self, time: i64) {
        *self.begins.lock().unwrap_or_else(PoisonError::into_inner) = Some((time, Instant::now()));
    }

    /// Media time at which a reader begins that was made at `made`, where the newest page is at `newest`.
    pub(crate) fn begin_of(&self, back: i64, made: Instant, newest: i64) -> i64 {
        match *self.begins.lock().unwrap_or_else(PoisonError::into_inner) {
            // Who comes later begins as much later.
            Some((time, said)) => {
                let later = made.saturating_duration_since(said).as_micros();
                time.saturating_add(i64::try_from(later).unwrap_or(i64::MAX)).min(newest)
            }
            None => newest.saturating_sub(back),
        }
    }

    pub(crate) fn standstill(&self) -> MutexGuard<'_, Standstill> {
        self.standstill.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Figures that fetches add to.
#[derive(Default)]
pub(crate) struct Counts {
    /// Held while pages are stored and then counted: who waits for it sees both or neither.
    pub(crate) storing: RwLock<()>,
    /// Pages that were held when it was opened.
    pub(crate) resumed: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) bad: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    /// Microseconds from opening to the first page, 0: none yet.
    pub(crate) first_page: AtomicU64,
    pub(crate) listeners: AtomicU64,
    pub(crate) hits: AtomicU64,
    pub(crate) buffer: AtomicU64,
    pub(crate) flows: Mutex<BTreeMap<(PeerKey, ProtocolName), Flow>>,
}

impl Counts {
    pub(crate) fn flow(&self, host: PeerKey, protocol: &ProtocolName, f: impl FnOnce(&mut Flow)) {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        f(flows.entry((host, protocol.clone())).or_default());
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Media({})", self.url)
    }
}

/// A media that is open: being fetched, played, or shared. Clones are the same media; it stays open until
/// [`Media::leave`] or the peer's end.
#[derive(Debug, Clone)]
pub struct Media {
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Arc<MediaStore>,
}

/// How far a media is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Pages held.
    pub held: u64,
    /// Pages there are.
    pub pages: u64,
    /// Pages that were held when it was opened.
    pub resumed: u64,
    /// Bytes of pages accepted in this session.
    pub bytes: u64,
    /// Pages that failed a check.
    pub bad: u64,
    /// Pages that came twice.
    pub duplicates: u64,
    /// Time from opening to the first page stored.
    pub first_page: Option<Duration>,
    /// Peers in the swarm that play or fetch, when the tracker last said so.
    pub listeners: u64,
    /// Times that someone joined it.
    pub hits: u64,
    /// How much media time a player should hold before it begins.
    pub buffer: Duration,
    /// By host and protocol.
    pub flows: BTreeMap<(PeerKey, ProtocolName), Flow>,
}

impl Media {
    /// Its signed manifest.
    #[must_use]
    pub fn manifest(&self) -> &SignedManifest {
        self.store.manifest()
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> MediaId {
        self.store.id()
    }

    /// Its link, with the publisher's key.
    #[must_use]
    pub fn url(&self) -> IcetUrl {
        let manifest = self.manifest();
        IcetUrl {
            path: Some(manifest.path.clone()),
            key: Some(manifest.publisher),
            ..self.shared.url.clone()
        }
    }

    /// Its pages on this machine.
    #[must_use]
    pub fn store(&self) -> &Arc<MediaStore> {
        &self.store
    }

    /// A reader from its beginning; see [`MediaReader`](super::MediaReader).
    #[must_use]
    pub fn reader(&self) -> super::MediaReader {
        super::MediaReader::new(self.clone())
    }

    /// Why it ended, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<OpenError> {
        match &*self.shared.stage.borrow() {
            Stage::Failed(e) => Some(e.clone()),
            _ => None,
        }
    }

    /// Whether its tracker does not answer just now. It is tried again, and then everything goes on.
    #[must_use]
    pub fn tracker_is_away(&self) -> bool {
        self.shared.away.load(Ordering::Relaxed)
    }

    /// Why its tracker orders nothing, as it last said since it last ordered something; for people.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        self.shared.standstill().shortage.clone()
    }

    /// Ways (host and protocol) by which fetches failed and nothing came since, the latest first; for people.
    #[must_use]
    pub fn failures(&self) -> Vec<FetchFailure> {
        self.shared.standstill().failures()
    }

    /// How this peer stands with the tracker, as that last told; asks it anew now and then.
    #[must_use]
    pub fn standing(&self) -> Option<Standing> {
        if self.shared.told.is_due(Instant::now()) {
            self.command(Command::Standing);
        }
        self.shared.told.last()
    }

    /// Asks the tracker how this peer stands, and waits for its answer so long at most; else gives the last that it told.
    pub async fn ask_standing(&self, patience: Duration) -> Option<Standing> {
        if !self.tracker_is_away() {
            let (answer, told) = oneshot::channel();
            let _ = self.shared.orders.send(Order::Standing(answer));
            if let Ok(Ok(standing)) = tokio::time::timeout(patience, told).await {
                return Some(standing);
            }
        }
        self.shared.told.last()
    }

    /// Of our own media: asks the tracker which of the listeners that are served by other means, from `addresses` (1024 at most), give in its swarm, and
    /// waits for its answer so long at most. None: it said nothing, and nobody knows.
    pub async fn guidance(&self, addresses: Vec<IpAddr>, patience: Duration) -> Option<Guidance> {
        let (answer, told) = oneshot::channel();
        let handle = self.shared.handle;
        let _ = self.shared.orders.send(Order::Audience { handle, addresses, answer });
        tokio::time::timeout(patience, told).await.ok().and_then(Result::ok)
    }

    /// Waits until every page is held, verified and on disk under its final name.
    ///
    /// # Errors
    /// If the media is withdrawn, or (with `patience`) no good page came for that long, though there is a tracker; where it
    /// does not answer, ten times as long.
    pub async fn complete(&self, patience: Option<Duration>) -> Result<(), OpenError> {
        let mut completed = self.store.completed();
        let mut stage = self.shared.stage.subscribe();
        let mut idle_since = tokio::time::Instant::now();
        let mut held = self.store.held();
        let mut away = 0;
        loop {
            if self.store.is_complete() {
                let (store, shared) = (self.store.clone(), self.shared.clone());
                let done = tokio::task::spawn_blocking(move || {
                    // The last pages are on disk; they are counted, too, once nobody stores any.
                    drop(shared.counts.storing.write());
                    store.finish()
                });
                let done = done.await;
                return match done {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(e)) => Err(OpenError::Store(e.to_string())),
                    Err(_) => Err(OpenError::Closed),
                };
            }
            if let Stage::Failed(e) = &*stage.borrow_and_update() {
                return Err(e.clone());
            }
            if self.store.held() != held {
                held = self.store.held();
                (idle_since, away) = (tokio::time::Instant::now(), 0);
            }
            let deadline = patience.map(|p| idle_since + p);
            let look = patience.map(|p| tokio::time::Instant::now() + p / 8);
            tokio::select! {
                _ = completed.changed() => {}
                r = stage.changed() => if r.is_err() { return Err(OpenError::Closed) },
                () = until(look) => {
                    let now = tokio::time::Instant::now();
                    if self.store.held() != held || deadline.is_none_or(|d| now < d) {
                        continue;
                    }
                    let seconds = patience.unwrap_or_default().as_secs();
                    // Nobody can be blamed for pages that nobody was asked for.
                    if self.tracker_is_away() {
                        away += 1;
                        if away >= AWAY {
                            let why = format!("it has not done so for {} s, and pages are missing", seconds * AWAY);
                            return Err(OpenError::Tracker { tracker: self.shared.url.authority(), why });
                        }
                        idle_since = tokio::time::Instant::now();
                        continue;
                    }
                    return Err(OpenError::NoData(seconds, held, self.manifest().pages));
                }
            }
        }
    }

    /// Of live media that was just opened: whether the broadcast had ended by then. Waits so long at most for what the tracker knows of
    /// it, which comes behind its answer if there is anything.
    pub async fn came_too_late(&self, patience: Duration) -> bool {
        let mut changed = self.store.changed();
        let told = async {
            loop {
                if let Some(over) = self.store.is_announced_as_over() {
                    return over;
                }
                if changed.changed().await.is_err() {
                    return false;
                }
            }
        };
        self.is_live() && tokio::time::timeout(patience, told).await.unwrap_or(false)
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let c = &self.shared.counts;
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let flows = c.flows.lock().unwrap_or_else(PoisonError::into_inner);
        Progress {
            held: self.store.held(),
            pages: self.manifest().pages,
            resumed: get(&c.resumed),
            bytes: get(&c.bytes),
            bad: get(&c.bad),
            duplicates: get(&c.duplicates),
            first_page: Some(get(&c.first_page)).filter(|t| *t > 0).map(Duration::from_micros),
            listeners: get(&c.listeners),
            hits: get(&c.hits),
            buffer: Duration::from_millis(get(&c.buffer)),
            flows: flows.clone(),
        }
    }

    /// Says where a player is. [`MediaReader`](super::MediaReader) does so by itself.
    pub fn focus(&self, at: Position, urgent: u64) {
        let focus = Focus { media: self.id(), at, rate: None, urgent, intent: self.shared.intent };
        self.command(Command::Focus { handle: self.shared.handle, focus });
    }

    pub(crate) fn locate(&self, at: Position) {
        self.command(Command::Locate { handle: self.shared.handle, at });
    }

    pub(crate) fn command(&self, c: Command) {
        // A closed channel means that the peer is gone; who waits learns it from the stage.
        let _ = self.shared.orders.send(Order::Engine(c));
    }

    /// Leaves the swarm: fetches stop, nothing more is served of it. What was fetched stays on disk.
    pub fn leave(&self) {
        let _ = self.shared.orders.send(Order::Leave(self.shared.handle));
    }

    /// Takes own media off the tracker (`release`: and gives up its path).
    pub fn withdraw(&self, release: bool) {
        let _ = self.shared.orders.send(Order::Withdraw { handle: self.shared.handle, moved: None, release });
    }

    /// The same for media that are published as `to` now: the tracker tells those who ask for the old path.
    pub fn moved(&self, to: MediaPath) {
        let _ = self.shared.orders.send(Order::Withdraw {
            handle: self.shared.handle,
            moved: Some(to),
            release: false,
        });
    }
}

pub(crate) async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
