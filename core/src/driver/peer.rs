//! The peer: its ports, its media, its sessions with trackers.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use icet::live::SignedHead;
use icet::message::{Hello, InfoAnswer, Intent, KeyProof, Position, ReachResult, Welcome};
use icet::{IcetUrl, Identity, Limits, NetAddr, Now, Offer, PeerKey, ProtocolName, SignedManifest};
use tokio::sync::{mpsc, oneshot, watch};

use super::limit::DownLimit;
use super::media::{Counts, Media, Shared, Stage};
use super::session::{Order, Task};
use super::standing::{Standing, Told};
use super::{OpenError, StartError};
use crate::engine::io::{Command, Config, Handle};
use crate::keyring::TrustStore;
use crate::net::{Context, Net, NetConfig, session::ConnectError};
use crate::protocol::Protocol;
use crate::publish::{self, Prepared};
use crate::shelf::{Anonymous, Clock, Giving, ServedTotals, Shelf, ShelfConfig};
use crate::store::{MediaStore, Store, Target, Window};

/// Where first-use trust is kept, in the data folder.
pub const TRUST_FILE: &str = "trust.json";
/// So long is waited for a tracker's word on how we stand, once it has answered the rest.
const STANDING: Duration = Duration::from_secs(1);
/// How often hosts tell trackers what they served.
const SERVED: Duration = Duration::from_millis(500);

/// What a peer is made with.
#[derive(Debug)]
pub struct PeerConfig {
    /// Its key.
    pub identity: Identity,
    /// Where it keeps media, slices and what it trusts.
    pub data_dir: PathBuf,
    /// Where it listens, UDP and TCP; port 0: any free one.
    pub listen: Vec<SocketAddr>,
    /// Upload limit in bytes a second, over all protocols together.
    pub up: Option<u64>,
    /// Download limit in bytes a second.
    pub down: Option<u64>,
    /// The payload protocols to use.
    pub protocols: Vec<Protocol>,
    /// What requests without a ticket may have.
    pub anonymous: Anonymous,
    /// Program and version, for people.
    pub agent: String,
}

/// How to open a media.
#[derive(Debug)]
pub struct OpenOptions {
    /// All of it, or what a player asks for.
    pub intent: Intent,
    /// Where its bytes go.
    pub target: Target,
    /// Where a player will begin.
    pub at: Option<Position>,
    /// Of live media: it begins with what was on so long ago.
    pub back: Option<Duration>,
    /// Of live media: how much is kept.
    pub window: Window,
}

impl OpenOptions {
    /// From the beginning of a file, and from now on of live media.
    #[must_use]
    pub fn new(intent: Intent, target: Target) -> OpenOptions {
        OpenOptions { intent, target, at: None, back: None, window: Window::default() }
    }
}

/// The same for this data folder as long as the system is not started anew, and for no other one; none if the system does not tell.
fn instance(data: &std::path::Path) -> Option<icet::key::Hash> {
    use std::os::unix::fs::MetadataExt;
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    let folder = std::fs::metadata(data).ok()?;
    let mut h = blake3::Hasher::new_derive_key("IceShare instance of a peer");
    h.update(&boot).update(&folder.dev().to_le_bytes()).update(&folder.ino().to_le_bytes());
    Some(icet::key::Hash(*h.finalize().as_bytes()))
}

/// What a tracker tells of a media.
#[derive(Debug, Clone)]
pub struct Info {
    /// Its manifest, checked.
    pub manifest: SignedManifest,
    /// Its link, with the publisher's key.
    pub url: IcetUrl,
    /// Figures.
    pub answer: InfoAnswer,
    /// Of live media: what is on, as its publisher signed it.
    pub now: Option<String>,
    /// Of live media: whether it has ended, and is about to be taken off.
    pub ended: bool,
    /// How this peer's key stands with the tracker; none if that does not tell.
    pub standing: Option<Standing>,
}

/// Figures of a peer.
#[derive(Debug, Clone)]
pub struct PeerStats {
    /// Its key.
    pub key: PeerKey,
    /// Where it listens.
    pub local: Vec<NetAddr>,
    /// What it serves over, as it says to trackers.
    pub offers: Vec<Offer>,
    /// What trackers proved or could not.
    pub reach: Vec<ReachResult>,
    /// Where trackers see it.
    pub observed: Option<NetAddr>,
    /// Sessions that are up.
    pub sessions: usize,
    /// What it has sent.
    pub served: ServedTotals,
}

/// A peer: hosts what it has, fetches what it opens. Dropping it ends it without a word; see [`Peer::shutdown`].
#[derive(Debug)]
pub struct Peer {
    inner: Arc<Inner>,
    trackers: Mutex<HashMap<String, mpsc::UnboundedSender<Order>>>,
    handles: AtomicU64,
}

pub(crate) struct Inner {
    pub(crate) identity: Identity,
    pub(crate) net: Arc<Net>,
    pub(crate) store: Store,
    pub(crate) shelf: Arc<Shelf>,
    clock: Arc<dyn Clock>,
    pub(crate) trust: TrustStore,
    pub(crate) down: Arc<DownLimit>,
    protocols: HashMap<ProtocolName, (Protocol, Context)>,
    hello: Hello,
    sessions: Mutex<HashMap<PeerKey, mpsc::UnboundedSender<Order>>>,
    reach: Mutex<HashMap<NetAddr, ReachResult>>,
    observed: Mutex<Option<NetAddr>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peer({})", self.identity.key().short())
    }
}

/// The clocks of this machine.
#[derive(Debug)]
struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now::from_origin(self.0.elapsed())
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    /// Binds the ports, opens the store, and begins to serve over all protocols.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: PeerConfig) -> Result<Peer, StartError> {
        let net = Net::bind(NetConfig::new(config.listen, config.identity.clone())).await?;
        let store = Store::open(&config.data_dir)?;
        let trust = TrustStore::open(config.data_dir.join(TRUST_FILE))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock(Instant::now()));
        let shelf = Shelf::new(ShelfConfig {
            host: config.identity.key(),
            up: config.up,
            anonymous: config.anonymous,
            clock: clock.clone(),
        });
        let (mut protocols, mut offers) = (HashMap::new(), Vec::new());
        for protocol in config.protocols {
            let cx = net.context(protocol.name.clone());
            let implementation = &protocol.implementation;
            let served = implementation.serve(cx.clone(), shelf.clone()).await;
            let endpoint = served.map_err(|e| StartError::Serve(protocol.name.clone(), e))?;
            offers.push(Offer {
                name: protocol.name.clone(),
                abilities: implementation.abilities(),
                serves: true,
                endpoint,
                dials: implementation.dials(),
            });
            protocols.insert(protocol.name.clone(), (protocol, cx));
        }
        let hello = Hello {
            version: icet::VERSION,
            agent: config.agent,
            proof: KeyProof::Channel,
            offers,
            reach: net.local_addrs(),
            limits: Limits { up: config.up, down: config.down },
            epoch: None,
            instance: instance(&config.data_dir),
        };
        let inner = Arc::new(Inner {
            identity: config.identity,
            net: Arc::new(net),
            store,
            shelf,
            clock,
            trust,
            down: Arc::new(DownLimit::new(config.down)),
            protocols,
            hello,
            sessions: Mutex::default(),
            reach: Mutex::default(),
            observed: Mutex::default(),
        });
        tokio::spawn(report_served(Arc::downgrade(&inner)));
        Ok(Peer { inner, trackers: Mutex::default(), handles: AtomicU64::new(1) })
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> PeerKey {
        self.inner.identity.key()
    }

    /// Its shelf: what it serves from.
    #[must_use]
    pub fn shelf(&self) -> &Arc<Shelf> {
        &self.inner.shelf
    }

    /// Its media on disk.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What of its upload is given from now on; trackers are told. At first: all.
    pub fn give(&self, giving: Giving) {
        self.giver().give(giving);
    }

    /// To say so without the peer itself.
    #[must_use]
    pub fn giver(&self) -> Giver {
        Giver(Arc::downgrade(&self.inner))
    }

    fn tracker(&self, url: &IcetUrl) -> mpsc::UnboundedSender<Order> {
        let mut trackers = lock(&self.trackers);
        if let Some(orders) = trackers.get(&url.authority()).filter(|o| !o.is_closed()) {
            return orders.clone();
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "fed by our own commands and by a few dozen fetches, each paced by the writes that it tells of"
        )]
        let (tx, rx) = mpsc::unbounded_channel();
        trackers.insert(url.authority(), tx.clone());
        let base = IcetUrl { path: None, key: None, ..url.clone() };
        tokio::spawn(Task::live(self.inner.clone(), base, tx.clone(), rx));
        tx
    }

    fn shared(
        &self,
        url: &IcetUrl,
        intent: Intent,
        back: Option<Duration>,
        orders: mpsc::UnboundedSender<Order>,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            handle: self.handle(),
            url: url.clone(),
            store: OnceLock::new(),
            stage: watch::Sender::new(Stage::Opening),
            orders,
            intent,
            back,
            begins: Mutex::default(),
            opened: Instant::now(),
            counts: Counts::default(),
            away: AtomicBool::new(false),
            turns: Mutex::default(),
            fragments: Arc::default(),
            asking: Arc::default(),
            standstill: Mutex::default(),
            told: Told::default(),
            notices: tokio::sync::broadcast::Sender::new(super::notice::WAITING),
        })
    }

    fn handle(&self) -> Handle {
        Handle(self.handles.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits until the tracker has answered.
    async fn opened(shared: Arc<Shared>) -> Result<Media, OpenError> {
        let mut stage = shared.stage.subscribe();
        let reached = stage.wait_for(|s| !matches!(s, Stage::Opening)).await;
        match reached.as_deref() {
            Ok(Stage::Open) => {}
            Ok(Stage::Failed(e)) => return Err(e.clone()),
            _ => return Err(OpenError::Closed),
        }
        drop(reached);
        let store = shared.store.get().cloned().ok_or(OpenError::Closed)?;
        Ok(Media { shared, store })
    }

    /// Puts a prepared file on the shelf and announces it. Shared until [`Media::leave`] or [`Media::withdraw`].
    ///
    /// # Errors
    /// See [`OpenError`]. After [`OpenError::Outdated`] another [`scan`](crate::publish::scan) signs a version that is higher than what
    /// the tracker knows of this key.
    pub async fn publish(&self, tracker: &IcetUrl, prepared: &Prepared) -> Result<Media, OpenError> {
        let opened = self.announce(tracker, prepared.media()).await;
        if let Err(OpenError::Outdated(_)) = &opened {
            self.outdated(tracker, prepared.manifest()).await?;
        }
        opened
    }

    /// The tracker knows a higher version of a media of ours (signed from another data folder, or by a clock that was wrong): puts on
    /// record what is to be exceeded. The tracker's word is not enough for that, or one answer could use up all numbers; a manifest
    /// that we signed is.
    pub(super) async fn outdated(
        &self,
        tracker: &IcetUrl,
        refused: &SignedManifest,
    ) -> Result<(), OpenError> {
        let (path, key) = (Some(refused.path.clone()), Some(self.key()));
        let known = self.info(&IcetUrl { path, key, ..tracker.clone() }).await;
        let ours = known.ok().filter(|i| i.manifest.publisher == self.key());
        let version = ours.map_or(0, |i| i.manifest.version).max(refused.version.saturating_add(1));
        let (store, id) = (self.store().clone(), refused.id());
        let noted = tokio::task::spawn_blocking(move || publish::record_version(&store, &id, version));
        noted.await.map_err(|_| OpenError::Closed)?.map_err(|e| OpenError::of_store(&e))
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// Puts a media on the shelf, and tells the tracker.
    pub(super) async fn announce(
        &self,
        tracker: &IcetUrl,
        store: Arc<MediaStore>,
    ) -> Result<Media, OpenError> {
        self.inner.shelf.put(store.clone());
        let orders = self.tracker(tracker);
        let shared = self.shared(tracker, Intent::Share, None, orders.clone());
        orders.send(Order::Publish { shared: shared.clone(), store }).map_err(|_| OpenError::Closed)?;
        Peer::opened(shared).await
    }

    /// Joins the swarm of a media.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self, url: &IcetUrl, options: OpenOptions) -> Result<Media, OpenError> {
        let path = url.path.clone().ok_or(OpenError::NoPath)?;
        let orders = self.tracker(url);
        let shared = self.shared(url, options.intent, options.back, orders.clone());
        let order = Order::Open { shared: shared.clone(), path, options };
        orders.send(order).map_err(|_| OpenError::Closed)?;
        Peer::opened(shared).await
    }

    /// Asks a tracker for a media's description and figures.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn info(&self, url: &IcetUrl) -> Result<Info, OpenError> {
        let path = url.path.clone().ok_or(OpenError::NoPath)?;
        let (answer, got) = oneshot::channel();
        let order = Order::Info { handle: self.handle(), path: path.clone(), answer };
        let orders = self.tracker(url);
        orders.send(order).map_err(|_| OpenError::Closed)?;
        let (told, standing) = oneshot::channel();
        orders.send(Order::Standing(told)).map_err(|_| OpenError::Closed)?;
        let answer = got.await.map_err(|_| OpenError::Closed)??;
        let manifest = self.inner.accept_manifest(url, &path, url, answer.manifest.clone())?;
        let url = IcetUrl { path: Some(path), key: Some(manifest.publisher), ..url.clone() };
        // Asked in the same flight: a tracker that tells it has told it by now, or is about to.
        let standing = tokio::time::timeout(STANDING, standing).await.ok().and_then(Result::ok);
        let head = answer.head.clone().and_then(|head| SignedHead::verify(*head, &manifest).ok());
        let ended = head.as_ref().is_some_and(|head| head.ended == Some(true));
        let now = head.and_then(|head| head.title.clone());
        Ok(Info { manifest, url, answer, now, ended, standing })
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> PeerStats {
        PeerStats {
            key: self.key(),
            local: self.inner.net.local_addrs(),
            offers: self.inner.hello.offers.clone(),
            reach: lock(&self.inner.reach).values().cloned().collect(),
            observed: *lock(&self.inner.observed),
            sessions: lock(&self.inner.sessions).len(),
            served: self.inner.shelf.served_totals(),
        }
    }

    /// Says what is still to be reported, leaves all swarms, and closes the ports.
    pub async fn shutdown(self) {
        report(&self.inner);
        let trackers: Vec<_> = lock(&self.trackers).drain().map(|(_, o)| o).collect();
        for orders in trackers {
            let (done, wait) = oneshot::channel();
            if orders.send(Order::Shutdown(done)).is_ok() {
                let _ = tokio::time::timeout(Duration::from_secs(3), wait).await;
            }
        }
        self.inner.net.shutdown().await;
    }
}

/// Says what a peer gives, as long as there is that peer.
#[derive(Debug, Clone)]
pub struct Giver(std::sync::Weak<Inner>);

impl Giver {
    /// What of its upload is given from now on; see [`Peer::give`].
    pub fn give(&self, giving: Giving) {
        let Some(inner) = self.0.upgrade() else { return };
        inner.shelf.give(giving.clone());
        for orders in lock(&inner.sessions).values() {
            let _ = orders.send(Order::Engine(Command::Give(giving.clone())));
        }
    }
}

/// Tells each tracker what was served on its assignments, while the peer lives.
async fn report_served(inner: std::sync::Weak<Inner>) {
    let mut tick = tokio::time::interval(SERVED);
    loop {
        tick.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        report(&inner);
    }
}

fn report(inner: &Inner) {
    let mut by_tracker: HashMap<PeerKey, Vec<(u64, u64)>> = HashMap::new();
    for served in inner.shelf.drain_served() {
        if let Some(tracker) = served.tracker {
            by_tracker.entry(tracker).or_default().push((served.assignment, served.bytes));
        }
    }
    let sessions = lock(&inner.sessions);
    for (tracker, items) in by_tracker {
        if let Some(orders) = sessions.get(&tracker) {
            let _ = orders.send(Order::Engine(Command::Served { items }));
        }
    }
}

impl Inner {
    pub(crate) fn protocol(&self, name: &ProtocolName) -> Option<(Protocol, Context)> {
        self.protocols.get(name).cloned()
    }

    fn connects_each(&self) -> BTreeSet<ProtocolName> {
        let each = self.protocols.iter().filter(|(_, (p, _))| p.implementation.connects_each());
        each.map(|(name, _)| name.clone()).collect()
    }

    /// For a session with the tracker at `tracker`.
    pub(crate) fn engine_config(&self, tracker: Option<IpAddr>) -> Config {
        let mut seed = [0; 8];
        // Only the jitter of reconnects hangs on it.
        let _ = getrandom::fill(&mut seed);
        let mut hello = self.hello.clone();
        if let Some(ip) = tracker {
            hello.reach = self.net.reach(ip);
        }
        Config {
            hello,
            fetches: 24,
            per_host: 6,
            connects_each: self.connects_each(),
            stall: Duration::from_secs(4),
            // Not shorter: a thin uplink shared by a few urgent requests is slow, not dead.
            stall_urgent: Duration::from_secs(4),
            silence: Duration::from_secs(1),
            ack_delay: Duration::from_millis(250),
            backoff: (Duration::from_millis(300), Duration::from_secs(20)),
            seed: u64::from_le_bytes(seed),
        }
    }

    pub(crate) fn trust_tracker(&self, url: &IcetUrl, key: PeerKey) -> Result<(), String> {
        self.trust.check_tracker(&url.authority(), key, url.tracker).map(drop).map_err(|e| e.to_string())
    }

    /// A sentence for a tracker that proved another key than the pinned one.
    pub(crate) fn wrong_tracker(&self, url: &IcetUrl, e: &ConnectError) -> String {
        match e {
            ConnectError::WrongKey { got, .. } => {
                self.trust_tracker(url, *got).err().unwrap_or_else(|| e.to_string())
            }
            _ => e.to_string(),
        }
    }

    pub(crate) fn session_up(&self, tracker: PeerKey, orders: &mpsc::UnboundedSender<Order>) {
        lock(&self.sessions).insert(tracker, orders.clone());
    }

    pub(crate) fn session_down(&self, tracker: PeerKey) {
        lock(&self.sessions).remove(&tracker);
        self.shelf.tracker_lost(&tracker);
    }

    pub(crate) fn welcomed(&self, tracker: PeerKey, w: &Welcome) {
        let here = i64::try_from(self.clock.wall_ms()).unwrap_or(i64::MAX);
        let offset = i64::try_from(w.time).unwrap_or(i64::MAX).saturating_sub(here);
        self.shelf.set_ticket_key(tracker, w.epoch, w.ticket_key, offset);
        *lock(&self.observed) = Some(w.observed);
    }

    pub(crate) fn reached(&self, r: &ReachResult) {
        if r.proved {
            tracing::debug!(addr = %r.addr, "the tracker reaches us");
        } else {
            tracing::info!(addr = %r.addr, why = %r.why, "the tracker does not reach us; we fetch, and serve only where we can be reached");
        }
        let mut reach = lock(&self.reach);
        if reach.len() < 64 || reach.contains_key(&r.addr) {
            reach.insert(r.addr, r.clone());
        }
    }
}
