//! One task a tracker: it owns the engine of that session, and does what the engine wants done.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use icet::media::Signed;
use icet::message::{Guidance, InfoAnswer, MediaAnswer, Outcome, ToPeer};
use icet::{
    IcetUrl, Kind, MediaPath, NetKind, Now, PageNo, PageRanges, PeerKey, ProvenSlice, SignedManifest,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::OpenError;
use super::fetch::Fetch;
use super::link::{Link, LinkEvent, Up};
use super::media::{Shared, Stage, until};
use super::peer::{Inner, OpenOptions};
use super::standing::Standing;
use super::unwelcome::Unwelcome;
use crate::engine::Engine;
use crate::engine::io::{Action, Command, FetchEvent, FetchId, Handle, Refusal};
use crate::net::Net;
use crate::net::session::{self, ConnectError, ConnectOptions, PeerSession};
use crate::store::{MediaStore, Target, Window};

/// Most heads that wait for a store.
const HEADS: usize = 4;
/// So much longer than a listener is behind the newest page its window is at least, for its pauses.
const PAUSES: Duration = Duration::from_secs(120);
/// Slices in one upload.
const UPLOAD: u64 = 64;

/// What reaches a session's task, apart from the tracker's messages.
pub(crate) enum Order {
    /// To the engine.
    Engine(Command),
    /// Open a media; `shared` tells how it goes.
    Open { shared: Arc<Shared>, path: MediaPath, options: OpenOptions },
    /// Publish a media that the shelf already has.
    Publish { shared: Arc<Shared>, store: Arc<MediaStore> },
    /// A store for an opened media was made.
    Ready { handle: Handle, result: Result<Arc<MediaStore>, OpenError>, slices: Vec<ProvenSlice> },
    /// Figures of a media.
    Info { handle: Handle, path: MediaPath, answer: oneshot::Sender<Result<InfoAnswer, OpenError>> },
    /// How we stand with the tracker. Dropped if it does not tell.
    Standing(oneshot::Sender<Standing>),
    /// Which listeners that come from elsewhere give in a swarm. Dropped if the tracker does not tell.
    Audience { handle: Handle, addresses: Vec<IpAddr>, answer: oneshot::Sender<Guidance> },
    /// From a fetch.
    Fetch(FetchId, FetchEvent),
    /// From a fetch: consecutive pages were verified and stored, the first and the length of each.
    Stored(FetchId, PageNo, Vec<u32>),
    /// Our own disk failed a media.
    Disk(Handle, String),
    /// See [`super::Media::leave`].
    Leave(Handle),
    /// See [`super::Media::withdraw`].
    Withdraw { handle: Handle, moved: Option<MediaPath>, release: bool },
    /// Leave everything and end; answered when the last message was sent.
    Shutdown(oneshot::Sender<()>),
}

struct Entry {
    shared: Arc<Shared>,
    path: MediaPath,
    /// Where its bytes go, until its store is there.
    target: Option<(Target, Window)>,
    /// Heads that came before its store was there.
    heads: Vec<Signed>,
}

pub(crate) struct Task {
    inner: Arc<Inner>,
    url: IcetUrl,
    pin: Option<PeerKey>,
    engine: Engine,
    origin: Instant,
    link: Link,
    tracker: Option<PeerKey>,
    medias: HashMap<Handle, Entry>,
    infos: HashMap<Handle, (MediaPath, oneshot::Sender<Result<InfoAnswer, OpenError>>)>,
    /// Who waits to hear how we stand.
    curious: Vec<oneshot::Sender<Standing>>,
    /// Who waits for guidance.
    audiences: HashMap<Handle, oneshot::Sender<Guidance>>,
    fetches: HashMap<FetchId, CancellationToken>,
    orders: mpsc::UnboundedReceiver<Order>,
    me: mpsc::UnboundedSender<Order>,
    /// Whether a session was ever up: before that a failure to connect fails what waits.
    met: bool,
    /// Whether the tracker does not answer just now.
    away: bool,
    /// Whether the session that stands does not seem to pass.
    in_doubt: bool,
    unwelcome: Unwelcome,
}

impl Task {
    /// Runs until shut down.
    pub(crate) async fn live(
        inner: Arc<Inner>,
        url: IcetUrl,
        me: mpsc::UnboundedSender<Order>,
        orders: mpsc::UnboundedReceiver<Order>,
    ) {
        // What we say of where we listen hangs on the tracker's address.
        let found = tokio::net::lookup_host(url.authority()).await.ok().and_then(|mut a| a.next());
        let engine = Engine::new(inner.engine_config(found.map(|a| a.ip())));
        let pin = url.tracker;
        let task = Task {
            inner,
            url,
            pin,
            engine,
            origin: Instant::now(),
            link: Link::Down,
            tracker: None,
            medias: HashMap::new(),
            infos: HashMap::new(),
            curious: Vec::new(),
            audiences: HashMap::new(),
            fetches: HashMap::new(),
            orders,
            me,
            met: false,
            away: false,
            in_doubt: false,
            unwelcome: Unwelcome::default(),
        };
        task.run().await;
    }

    fn now(&self) -> Now {
        Now::from_origin(self.origin.elapsed())
    }

    async fn run(mut self) {
        loop {
            self.act();
            self.watch();
            let watch = if let Link::Up(up) = &self.link { up.next() } else { None };
            let next = [self.engine.poll_timeout(), watch].into_iter().flatten().min();
            let deadline =
                next.map(|t| tokio::time::Instant::from_std(self.origin) + Duration::from_micros(t.0));
            tokio::select! {
                order = self.orders.recv() => match order {
                    None => return,
                    Some(Order::Shutdown(done)) => {
                        self.shut_down().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(order) => {
                        self.order(order);
                        // What piled up is taken in one go: the engine's answers then fit fewer messages.
                        for _ in 0..256 {
                            match self.orders.try_recv() {
                                Ok(Order::Shutdown(done)) => {
                                    self.shut_down().await;
                                    let _ = done.send(());
                                    return;
                                }
                                Ok(order) => self.order(order),
                                Err(_) => break,
                            }
                        }
                    }
                },
                event = self.link.event() => self.link_event(event),
                () = until(deadline) => {
                    let now = self.now();
                    self.engine.handle_timeout(now);
                }
            }
        }
    }

    /// Looks whether the session's carrier still passes; where that is in doubt, another one is dialled.
    fn watch(&mut self) {
        let now = self.now();
        let (net, authority, pin) = (&self.inner.net, &self.url, self.pin);
        if let Link::Up(up) = &mut self.link {
            let (engine, shelf, key) = (&self.engine, &self.inner.shelf, &self.tracker);
            up.look(
                now,
                || key.is_some_and(|k| shelf.was_asked_in_reserve(&k)) || engine.is_waiting(),
                |first| dial(net.clone(), authority.authority(), pin, first),
            );
            let doubt = up.in_doubt();
            if std::mem::replace(&mut self.in_doubt, doubt) != doubt {
                self.engine.handle_doubt(now, doubt);
                match &self.tracker {
                    Some(key) if doubt => shelf.tracker_lost(key),
                    Some(key) => shelf.tracker_speaks(key),
                    None => {}
                }
            }
        } else {
            self.in_doubt = false;
        }
    }

    /// Tells those who wait for pages whether the tracker is there.
    fn away(&mut self, away: bool) {
        if std::mem::replace(&mut self.away, away) != away {
            self.medias.values().for_each(|e| e.shared.away.store(away, Ordering::Relaxed));
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        let now = self.now();
        match event {
            LinkEvent::Up(session) => {
                let key = session.peer();
                if let Err(e) = self.inner.trust_tracker(&self.url, key) {
                    // Whoever waits is told, and says it.
                    tracing::debug!(tracker = %self.url.authority(), error = %e, "the tracker is not trusted");
                    self.fail_all(&OpenError::Trust(e));
                    self.link = Link::Down;
                    self.engine.handle_disconnected(now);
                    return;
                }
                tracing::debug!(tracker = %self.url.authority(), "session up");
                self.pin = Some(key);
                self.tracker = Some(key);
                self.met = true;
                self.inner.session_up(key, &self.me);
                self.link = Link::Up(Box::new(Up::new(now, session)));
                self.away(false);
                self.engine.handle_command(now, Command::Give(self.inner.shelf.giving()));
                self.engine.handle_connected(now, key);
            }
            LinkEvent::Moved(session) => {
                // Its key is pinned to that of the session before.
                let key = session.peer();
                tracing::info!(tracker = %self.url.authority(), carrier = ?session.remote().kind, "the session goes on over another carrier");
                self.inner.session_up(key, &self.me);
                let to = session.remote().kind;
                if let Link::Up(up) = &self.link
                    && up.session.remote().kind != to
                {
                    self.engine.handle_carrier(now, up.session.remote().kind, false);
                    self.engine.handle_carrier(now, to, true);
                }
                self.link = Link::Up(Box::new(Up::new(now, session)));
                self.away(false);
                self.engine.handle_moved(now, key);
            }
            LinkEvent::Stuck(e) => {
                tracing::debug!(tracker = %self.url.authority(), error = %e, "no other way to the tracker");
                self.away(true);
                if let Link::Up(up) = &mut self.link {
                    up.stuck(now);
                }
            }
            LinkEvent::Failed(e) => {
                tracing::debug!(tracker = %self.url.authority(), error = %e, "no session");
                self.link = Link::Down;
                let wrong = matches!(e, ConnectError::WrongKey { .. });
                if !self.met || wrong {
                    let error = if wrong {
                        OpenError::Trust(self.inner.wrong_tracker(&self.url, &e))
                    } else {
                        OpenError::Tracker { tracker: self.url.authority(), why: e.to_string() }
                    };
                    self.fail_opening(&error);
                }
                self.engine.handle_disconnected(now);
            }
            LinkEvent::Message(m) => {
                self.away(false);
                if let Some(text) = self.unwelcome.hear(&m) {
                    tracing::warn!(tracker = %self.url.authority(), "{text}");
                }
                match &m {
                    ToPeer::Assign(a) => {
                        let ids = a.assignments.iter().map(|a| a.id);
                        tracing::trace!(ids = ?ids.collect::<Vec<_>>(), shortages = ?a.shortages, "ordered");
                    }
                    ToPeer::Cancel(c) => tracing::trace!(ids = ?c.assignments, "cancelled"),
                    _ => {}
                }
                self.engine.handle_message(now, m);
            }
            LinkEvent::Lost(why) => {
                tracing::info!(tracker = %self.url.authority(), why, "the tracker is gone; what runs goes on");
                self.link = Link::Down;
                self.away(true);
                if let Some(key) = self.tracker {
                    self.inner.session_down(key);
                }
                self.engine.handle_disconnected(now);
            }
        }
    }

    fn order(&mut self, order: Order) {
        let now = self.now();
        match order {
            Order::Engine(c) => self.engine.handle_command(now, c),
            Order::Fetch(id, event) => {
                if let FetchEvent::Ended(outcome) = event {
                    tracing::trace!(fetch = id.0, ?outcome, "a fetch ended");
                    self.fetches.remove(&id);
                }
                self.engine.handle_fetch(now, id, event);
            }
            Order::Stored(id, first, lens) => {
                tracing::trace!(fetch = id.0, first, pages = lens.len(), "pages stored");
                for (page, len) in (first..).zip(lens) {
                    self.engine.handle_fetch(now, id, FetchEvent::Page { page, len });
                }
            }
            Order::Open { shared, path, options } => {
                let OpenOptions { target, at, back, window, .. } = options;
                let least = back.map_or(Duration::ZERO, |back| back.saturating_add(PAUSES));
                let window = Window { time: window.time.max(least), ..window };
                let handle = shared.handle;
                let command = Command::Join {
                    handle,
                    path: path.clone(),
                    publisher: shared.url.key,
                    version: 0,
                    held: PageRanges::new(),
                    intent: shared.intent,
                    at,
                    back,
                };
                shared.away.store(self.away, Ordering::Relaxed);
                self.medias.insert(
                    handle,
                    Entry { shared, path, target: Some((target, window)), heads: Vec::new() },
                );
                self.engine.handle_command(now, command);
            }
            Order::Publish { shared, store } => {
                let handle = shared.handle;
                let manifest = store.manifest().clone();
                let slices = first_slices(&store);
                let path = manifest.path.clone();
                shared.stored_in(store);
                self.medias.insert(handle, Entry { shared, path, target: None, heads: Vec::new() });
                let command = Command::Publish { handle, manifest: Box::new(manifest), slices };
                self.engine.handle_command(now, command);
            }
            Order::Ready { handle, result, slices } => self.ready(handle, result, &slices),
            Order::Info { handle, path, answer } => {
                self.infos.insert(handle, (path.clone(), answer));
                self.engine.handle_command(now, Command::Info { handle, path });
            }
            Order::Standing(answer) => {
                self.curious.retain(|a| !a.is_closed());
                self.curious.push(answer);
                self.engine.handle_command(now, Command::Standing);
            }
            Order::Audience { handle, addresses, answer } => {
                self.audiences.insert(handle, answer);
                self.engine.handle_command(now, Command::Audience { handle, addresses });
            }
            Order::Disk(handle, why) => self.fail(handle, OpenError::Store(why)),
            Order::Leave(handle) => self.leave(handle),
            Order::Withdraw { handle, moved, release } => {
                self.engine.handle_command(now, Command::Withdraw { handle, moved, release });
                self.leave(handle);
            }
            Order::Shutdown(_) => {}
        }
    }

    fn leave(&mut self, handle: Handle) {
        if let Some(entry) = self.medias.remove(&handle) {
            if let Some(store) = entry.shared.store.get() {
                self.inner.shelf.remove(&store.id());
            }
            entry.shared.stage.send_if_modified(|s| {
                let ended = matches!(s, Stage::Failed(_));
                if !ended {
                    *s = Stage::Failed(OpenError::Closed);
                }
                !ended
            });
            let now = self.now();
            self.engine.handle_command(now, Command::Leave { handle });
        }
    }

    fn fail(&mut self, handle: Handle, why: OpenError) {
        if let Some(entry) = self.medias.get(&handle) {
            tracing::debug!(media = %entry.path, error = %why, "media failed");
            entry.shared.stage.send_replace(Stage::Failed(why.clone()));
            self.leave(handle);
        }
        if let Some((_, answer)) = self.infos.remove(&handle) {
            let _ = answer.send(Err(why));
        }
    }

    fn fail_all(&mut self, why: &OpenError) {
        let handles: Vec<_> = self.medias.keys().chain(self.infos.keys()).copied().collect();
        handles.into_iter().for_each(|h| self.fail(h, why.clone()));
    }

    /// Fails what the tracker has never answered.
    fn fail_opening(&mut self, why: &OpenError) {
        let opening = |e: &Entry| matches!(*e.shared.stage.borrow(), Stage::Opening);
        let handles: Vec<_> = self.medias.iter().filter(|(_, e)| opening(e)).map(|(h, _)| *h).collect();
        handles.into_iter().chain(self.infos.keys().copied().collect::<Vec<_>>()).for_each(|h| {
            self.fail(h, why.clone());
        });
    }

    /// Does what the engine wants done.
    fn act(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Connect => {
                    let (net, authority) = (self.inner.net.clone(), self.url.authority());
                    self.link = Link::Dialing(dial(net, authority, self.pin, NetKind::Udp));
                }
                Action::Disconnect => self.link = Link::Down,
                Action::Send(m) => {
                    if let icet::message::ToTracker::Report(r) = &m {
                        tracing::trace!(assignment = r.assignment, host = %r.host.short(), by = %r.protocol, outcome = ?r.outcome, pages = r.pages, last = r.last, "reported");
                    }
                    if let Link::Up(up) = &self.link
                        && let Err(e) = up.session.sender().try_send(&m)
                    {
                        // Messages build on each other: one that is lost costs the session, which is then set up anew.
                        tracing::debug!(error = %e, "a message to the tracker was not sent");
                        self.link_event(LinkEvent::Lost(e.to_string()));
                    }
                }
                Action::Start { fetch, handle, pages, source, need, assignment } => {
                    tracing::trace!(fetch = fetch.0, assignment, host = %source.host.key.short(), by = %source.host.protocol, first = pages.first, last = pages.last, ?need, "a fetch begins");
                    self.start(fetch, handle, pages, source);
                }
                Action::Stop { fetch } => {
                    tracing::trace!(fetch = fetch.0, "a fetch is stopped");
                    if let Some(token) = self.fetches.remove(&fetch) {
                        token.cancel();
                    }
                }
                Action::Joined { handle, answer } => self.joined(handle, answer),
                Action::Head { handle, head, time } => self.head(handle, head, time),
                Action::Newer { handle, manifest } => self.newer(handle, manifest),
                Action::Slices { handle, slices } => {
                    if let Some(store) = self.medias.get(&handle).and_then(|e| e.shared.store.get()) {
                        put_slices(store, &slices);
                    }
                }
                Action::WantUpload { handle, from } => self.upload(handle, from),
                Action::Short { handle, shortage } => {
                    if let Some(entry) = self.medias.get(&handle) {
                        entry.shared.standstill().shortage = Some(shortage);
                    }
                }
                Action::Info { handle, answer } => {
                    if let Some((_, to)) = self.infos.remove(&handle) {
                        let _ = to.send(Ok(answer));
                    }
                }
                Action::Refused { handle, why } => self.refused(handle, why),
                Action::Postponed { handle, text, pause } => self.postponed(handle, &text, pause),
                Action::Welcome(w) => {
                    if let Some(text) = self.unwelcome.welcome() {
                        tracing::warn!(tracker = %self.url.authority(), "{text}");
                    }
                    if let Some(key) = self.tracker {
                        self.inner.welcomed(key, &w);
                    }
                }
                Action::Standing(told) => {
                    let told = told.map(Standing::from);
                    for answer in self.curious.drain(..) {
                        let _ = told.clone().map(|told| answer.send(told));
                    }
                    if let Some(told) = told {
                        self.medias.values().for_each(|e| e.shared.told.set(told.clone()));
                    }
                }
                Action::Guidance { handle, answer } => {
                    let _ = self.audiences.remove(&handle).map(|to| to.send(answer));
                }
                Action::Reached(r) => self.inner.reached(&r),
            }
        }
    }

    /// The path of what was asked for.
    fn path_of(&self, handle: Handle) -> Option<&MediaPath> {
        self.medias.get(&handle).map(|e| &e.path).or(self.infos.get(&handle).map(|(p, _)| p))
    }

    fn postponed(&self, handle: Handle, text: &str, pause: Duration) {
        let Some(path) = self.path_of(handle) else { return };
        // A stranger's text: shown escaped.
        tracing::warn!(
            tracker = %self.url.authority(),
            "the tracker does not take {path} now: {}; trying again in {} s",
            text.escape_debug(),
            pause.as_secs()
        );
    }

    fn refused(&mut self, handle: Handle, why: Refusal) {
        let path = self.path_of(handle);
        if let Some(path) = path {
            if let Refusal::Locate { at, error } = &why {
                tracing::debug!(?at, error = %error.text, "the tracker knows no slice there");
                return;
            }
            let error = OpenError::from_refusal(&self.url, path, why);
            self.fail(handle, error);
        }
    }

    fn joined(&mut self, handle: Handle, answer: MediaAnswer) {
        let Some(entry) = self.medias.get_mut(&handle) else { return };
        entry.shared.standstill().shortage = None;
        let c = &entry.shared.counts;
        c.listeners.store(answer.listeners, Ordering::Relaxed);
        c.hits.store(answer.hits, Ordering::Relaxed);
        c.buffer.store(u64::from(answer.buffer), Ordering::Relaxed);
        let manifest =
            match self.inner.accept_manifest(&self.url, &entry.path, &entry.shared.url, answer.manifest) {
                Ok(m) => m,
                Err(e) => return self.fail(handle, e),
            };
        if let Some(store) = entry.shared.store.get() {
            if store.manifest().signed() == manifest.signed() {
                let store = store.clone();
                return self.ready(handle, Ok(store), &answer.slices);
            }
            let why = "its publisher replaced it by a newer version; run the command again to fetch that"
                .to_owned();
            return self.fail(handle, OpenError::Refused(why));
        }
        let Some((target, window)) = entry.target.take() else { return };
        let (inner, me, slices) = (self.inner.clone(), self.me.clone(), answer.slices);
        tokio::task::spawn_blocking(move || {
            let store = match manifest.kind {
                Kind::File => inner.store.fetch(manifest, target),
                Kind::Live => inner.store.listen(manifest, window),
            };
            let result = store.map_err(|e| OpenError::of_store(&e));
            let _ = me.send(Order::Ready { handle, result, slices });
        });
    }

    fn head(&mut self, handle: Handle, head: Signed, time: Option<i64>) {
        let Some(entry) = self.medias.get_mut(&handle) else { return };
        if let Some(time) = time {
            entry.shared.begins_at(time);
        }
        match entry.shared.store.get() {
            Some(store) => put_head(store, head),
            // One of the link that it begins in, and the last one.
            None if entry.heads.len() < HEADS => entry.heads.push(head),
            None => {}
        }
    }

    fn newer(&mut self, handle: Handle, manifest: Signed) {
        let Some(entry) = self.medias.get(&handle) else { return };
        match self.inner.accept_manifest(&self.url, &entry.path, &entry.shared.url, manifest) {
            Ok(m) if entry.shared.store.get().is_some_and(|s| s.manifest().signed() == m.signed()) => {}
            Ok(_) => {
                let why = "its publisher replaced it by a newer version; run the command again to fetch that";
                self.fail(handle, OpenError::Refused(why.to_owned()));
            }
            Err(e) => self.fail(handle, e),
        }
    }

    fn ready(&mut self, handle: Handle, result: Result<Arc<MediaStore>, OpenError>, slices: &[ProvenSlice]) {
        let Some(entry) = self.medias.get_mut(&handle) else { return };
        let store = match result {
            Ok(store) => store,
            Err(e) => return self.fail(handle, e),
        };
        put_slices(&store, slices);
        std::mem::take(&mut entry.heads).into_iter().for_each(|head| put_head(&store, head));
        let command = Command::Accept {
            handle,
            held: store.map(),
            bytes: store.manifest().bytes,
            version: store.manifest().version,
        };
        self.inner.shelf.put(store.clone());
        entry.shared.stored_in(store);
        entry.shared.stage.send_replace(Stage::Open);
        let now = self.now();
        self.engine.handle_command(now, command);
    }

    fn upload(&mut self, handle: Handle, from: u64) {
        let Some(store) = self.medias.get(&handle).and_then(|e| e.shared.store.get()) else { return };
        let end = store.manifest().slices().min(from.saturating_add(UPLOAD));
        let slices = (from..end).filter_map(|i| store.proven_slice(i)).collect();
        let now = self.now();
        self.engine.handle_command(now, Command::Upload { handle, slices });
    }

    fn start(&mut self, id: FetchId, handle: Handle, pages: icet::PageSet, source: icet::message::Source) {
        let now = self.now();
        let entry = self.medias.get(&handle);
        let store = entry.and_then(|e| e.shared.store.get().cloned());
        let protocol = self.inner.protocol(&source.host.protocol);
        let (Some(entry), Some(store), Some((protocol, cx))) = (entry, store, protocol) else {
            self.engine.handle_fetch(now, id, FetchEvent::Ended(Outcome::Refused));
            return;
        };
        entry.shared.standstill().shortage = None;
        let cancel = CancellationToken::new();
        self.fetches.insert(id, cancel.clone());
        let fetch = Fetch {
            id,
            shared: entry.shared.clone(),
            store,
            pages,
            source,
            protocol,
            cx,
            down: self.inner.down.clone(),
            events: self.me.clone(),
            cancel,
        };
        tokio::spawn(fetch.run());
    }

    async fn shut_down(&mut self) {
        let handles: Vec<_> = self.medias.keys().copied().collect();
        for token in self.fetches.values() {
            token.cancel();
        }
        handles.into_iter().for_each(|h| self.leave(h));
        self.act();
        if let Link::Up(up) = std::mem::replace(&mut self.link, Link::Down) {
            up.session.close("leaving").await;
        }
    }
}

/// Dials a tracker, by carrier `first` first.
fn dial(
    net: Arc<Net>,
    authority: String,
    pin: Option<PeerKey>,
    first: NetKind,
) -> AbortOnDropHandle<Result<PeerSession, ConnectError>> {
    let options = ConnectOptions { first, ..ConnectOptions::default() };
    AbortOnDropHandle::new(tokio::spawn(async move {
        session::connect_with(&net, &authority, pin, &[], options).await
    }))
}

/// Slices of the setup pages and of the tail: what a player reads first.
fn first_slices(store: &MediaStore) -> Vec<ProvenSlice> {
    let m = store.manifest();
    let Some(last) = m.slices().checked_sub(1) else { return Vec::new() };
    let setup = m.setup / icet::media::SLICE_PAGES;
    let head = 0..=setup.min(last).min(16);
    let mut wanted: Vec<_> = head.chain(last.saturating_sub(1)..=last).collect();
    wanted.dedup();
    wanted.sort_unstable();
    wanted.dedup();
    wanted.into_iter().filter_map(|i| store.proven_slice(i)).collect()
}

fn put_head(store: &MediaStore, head: Signed) {
    if let Err(e) = store.put_head(head) {
        tracing::warn!(error = %e, "a head from the tracker was refused");
    }
}

fn put_slices(store: &MediaStore, slices: &[ProvenSlice]) {
    for slice in slices {
        if let Err(e) = store.put_slice(slice) {
            // Never stored, never shown: the tracker altered it, or our disk failed.
            tracing::warn!(error = %e, "a slice from the tracker was refused");
        }
    }
}

impl Inner {
    /// Checks a manifest from a tracker: signature, path, pinned and remembered publisher, version.
    pub(super) fn accept_manifest(
        &self,
        tracker: &IcetUrl,
        path: &MediaPath,
        url: &IcetUrl,
        signed: Signed,
    ) -> Result<SignedManifest, OpenError> {
        let manifest = SignedManifest::verify(signed).map_err(|e| OpenError::Trust(e.to_string()))?;
        if manifest.path != *path {
            return Err(OpenError::Trust(format!(
                "the tracker answered for {path} with the manifest of another media"
            )));
        }
        self.trust
            .check_publisher(&tracker.authority(), path, manifest.publisher, manifest.version, url.key)
            .map_err(|e| OpenError::Trust(e.to_string()))?;
        Ok(manifest)
    }
}
