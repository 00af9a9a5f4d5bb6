//! Runs the endpoint on a peer's UDP socket: one task that receives and sends, whoever fetches and serves beside it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use iceshare::icet::stream::EndCode;
use iceshare::icet::{Now, PeerKey};
use iceshare::net::{Context, DatagramSender, DatagramTap, Datagrams};
use iceshare::protocol::{ErrorKind, TransportError};
use iceshare::shelf::Shelf;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::assoc::{Association, Event, Want};
use crate::config::Config;
use crate::endpoint::{Endpoint, Limits};
use crate::serve;
use crate::wire::CloseReason;
use crate::wire::datagram::{AssocId, FIRST_BYTES};

/// Datagrams that are taken at once, before others have their turn.
const TAKE: usize = 512;
/// Calls of the system for sending, before it looks what came.
const SEND: usize = 16;
/// Answers to strangers in between: a flood takes no more of the time than what is under way, and half of a full inbox is heard.
const ANSWERS: usize = TAKE / 2;
/// Bytes that all fetches together may hold for their readers.
const HELD: u64 = 64 << 20;
/// Requests that are served at once: more are refused as busy; and beyond so many each reads little ahead.
const SERVED: (usize, usize) = (4096, 256);
/// Smallest window of a fetch.
const LEAST: u64 = 256 << 10;

/// A request: its association, and its number there.
pub(crate) type RequestId = (AssocId, u64);

/// A peer's endpoint, and who waits for it.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) cx: Context,
    pub(crate) config: Config,
    origin: Instant,
    state: Mutex<State>,
    wake: Notify,
    shelf: OnceLock<Arc<Shelf>>,
}

#[derive(Debug)]
struct State {
    endpoint: Endpoint,
    /// Fetches; their readers, if they wait.
    readers: HashMap<RequestId, Option<Waker>>,
    /// Requests that are served.
    served: HashMap<RequestId, Arc<Waiting>>,
}

/// What a request that is served waits for.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) room: Notify,
    pub(crate) repair: Notify,
    pub(crate) stopped: CancellationToken,
}

impl Hub {
    /// Begins to run.
    pub(crate) fn start(cx: &Context, config: Config) -> Result<Arc<Hub>, TransportError> {
        let datagrams = cx.datagrams(FIRST_BYTES)?;
        let mut seed = [0; 32];
        let random = |e| TransportError::new(ErrorKind::Local, format!("no randomness: {e}"));
        getrandom::fill(&mut seed).map_err(random)?;
        let limits = Limits {
            associations: config.associations,
            per_ip: config.per_ip,
            connect: config.connect_timeout,
            largest: config.max_datagram,
        };
        let endpoint = Endpoint::new(limits, cx.identity(), seed);
        let state = State { endpoint, readers: HashMap::new(), served: HashMap::new() };
        let hub = Arc::new(Hub {
            cx: cx.clone(),
            config,
            origin: Instant::now(),
            state: Mutex::new(state),
            wake: Notify::new(),
            shelf: OnceLock::new(),
        });
        let tap: Arc<dyn DatagramTap> = Arc::new(Tap(hub.clone()));
        datagrams.tap(Arc::downgrade(&tap));
        cx.spawn(hub.clone().run(datagrams, tap));
        Ok(hub)
    }

    /// Requests are answered from this shelf from now on.
    pub(crate) fn serve_from(&self, shelf: Arc<Shelf>) {
        let _ = self.shelf.set(shelf);
    }

    pub(crate) fn shelf(&self) -> Option<&Arc<Shelf>> {
        self.shelf.get()
    }

    /// Whether its peer shuts down.
    pub(crate) fn is_closed(&self) -> bool {
        self.cx.closed().is_cancelled()
    }

    pub(crate) fn now(&self) -> Now {
        Now::from_origin(self.origin.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with an association; then it may have something to send. None: it is gone.
    pub(crate) fn with<T>(&self, id: AssocId, f: impl FnOnce(&mut Association) -> T) -> Option<T> {
        let mut state = self.lock();
        let done = state.endpoint.association(id).map(f);
        state.endpoint.stir(id);
        drop(state);
        self.wake.notify_one();
        done
    }

    /// See [`Association::room`].
    pub(crate) fn room(&self, (id, number): RequestId) -> Option<Want<usize>> {
        let mut state = self.lock();
        let crowd = state.served.len() > SERVED.1;
        let association = state.endpoint.association(id)?;
        let in_hand = self.shelf().map_or(u64::MAX, |s| s.in_hand(association.shortest_trip()));
        Some(association.room(number, crowd, in_hand))
    }

    /// Begins a request to `peer` at one of `addrs`, over an association that is there or a new one. `make` is given the
    /// window.
    pub(crate) fn request(
        &self,
        peer: PeerKey,
        addrs: &[SocketAddr],
        make: impl FnOnce(&mut Association, u64) -> u64,
    ) -> Option<RequestId> {
        let now = self.now();
        let mut state = self.lock();
        let window = HELD / (state.readers.len() as u64 + 1);
        let window = window.clamp(LEAST.min(self.config.window), self.config.window);
        let found = state.endpoint.find(now, &peer, addrs);
        let id = found.unwrap_or_else(|| state.endpoint.connect(now, peer, addrs));
        let association = state.endpoint.association(id)?;
        let window = association.reading_window(window);
        let number = make(association, window);
        state.readers.insert((id, number), None);
        state.endpoint.stir(id);
        drop(state);
        self.wake.notify_one();
        Some((id, number))
    }

    /// Reads a fetch with `f`, which says whether there was something; if not, `waker` is told when there is.
    pub(crate) fn read<T>(
        &self,
        (id, number): RequestId,
        waker: &Waker,
        f: impl FnOnce(&mut Association) -> Option<T>,
    ) -> Option<Option<T>> {
        let mut state = self.lock();
        let association = state.endpoint.association(id)?;
        let got = f(association);
        if association.wants_to_talk(number) {
            state.endpoint.stir(id);
            self.wake.notify_one();
        }
        if got.is_none()
            && let Some(reader) = state.readers.get_mut(&(id, number))
        {
            *reader = Some(waker.clone());
        }
        Some(got)
    }

    /// A fetch is over, or nobody wants it any more.
    pub(crate) fn forget(&self, (id, number): RequestId) {
        self.lock().readers.remove(&(id, number));
        self.with(id, |a| a.stop(number));
    }

    /// A request that was served ended.
    pub(crate) fn served(&self, id: RequestId) {
        self.lock().served.remove(&id);
    }

    /// `tap` sees what comes as long as this runs.
    async fn run(self: Arc<Hub>, mut datagrams: Datagrams, tap: Arc<dyn DatagramTap>) {
        let sender = datagrams.sender();
        let (mut inbox, mut out) = (Vec::with_capacity(TAKE), Vec::new());
        loop {
            self.take(&mut inbox);
            let more = self.send(&sender, &mut out).await;
            self.dispatch();
            let deadline = self.lock().endpoint.poll_timeout();
            let until = deadline.map(|d| tokio::time::Instant::from_std(self.origin) + d.since(Now::ZERO));
            tokio::select! {
                biased;
                () = self.cx.closed().cancelled() => break,
                n = datagrams.recv_many(&mut inbox, TAKE) => if n == 0 { break },
                () = std::future::ready(()), if more => {}
                () = self.wake.notified() => {}
                () = sleep_until(until) => {}
            }
        }
        drop(tap);
        self.lock().endpoint.close(CloseReason::Shutdown);
        while self.send(&sender, &mut out).await {}
        self.dispatch();
        let served: Vec<_> = self.lock().served.drain().collect();
        served.iter().for_each(|(_, w)| w.stopped.cancel());
        let readers: Vec<_> = self.lock().readers.drain().filter_map(|(_, w)| w).collect();
        readers.into_iter().for_each(Waker::wake);
    }

    /// Handles what came, and what time brought.
    fn take(self: &Arc<Hub>, inbox: &mut Vec<(Bytes, SocketAddr)>) {
        let now = self.now();
        let mut state = self.lock();
        for (datagram, from) in inbox.drain(..) {
            state.endpoint.handle_datagram(now, from, &mut datagram.to_vec());
        }
        if state.endpoint.poll_timeout().is_some_and(|t| t <= now) {
            state.endpoint.handle_timeout(now);
        }
        drop(state);
        self.dispatch();
    }

    /// Sends what there is to send; true: there may be more.
    async fn send(&self, sender: &DatagramSender, out: &mut Vec<u8>) -> bool {
        for _ in 0..ANSWERS {
            let now = self.now();
            let answer = self.lock().endpoint.poll_answer(now);
            let Some((to, datagram)) = answer else { break };
            if let Err(e) = sender.send_to(&datagram, to).await {
                tracing::debug!(%to, error = %e, "cannot send");
            }
        }
        for _ in 0..SEND {
            out.clear();
            let now = self.now();
            let transmit = self.lock().endpoint.poll_transmit(now, out, sender.max_segments());
            let Some(t) = transmit else { return false };
            let sent = if out.len() > t.size {
                sender.send_many(out, t.size, t.to).await
            } else {
                sender.send_to(out, t.to).await
            };
            if let Err(e) = sent {
                // As good as lost on the way.
                tracing::debug!(to = %t.to, error = %e, "cannot send");
            }
        }
        true
    }

    /// Tells those who wait.
    fn dispatch(self: &Arc<Hub>) {
        let mut wake = Vec::new();
        let mut state = self.lock();
        while let Some((id, event)) = state.endpoint.poll_event() {
            match event {
                Event::Readable(n) => {
                    wake.extend(state.readers.get_mut(&(id, n)).and_then(Option::take));
                }
                Event::Hungry(n) => {
                    if let Some(w) = state.served.get(&(id, n)) {
                        w.room.notify_one();
                        w.repair.notify_one();
                    }
                }
                Event::Stopped(n) => {
                    if let Some(w) = state.served.remove(&(id, n)) {
                        w.stopped.cancel();
                    }
                }
                Event::Asked(n, _) if state.served.len() >= SERVED.0 => {
                    if let Some(a) = state.endpoint.association(id) {
                        a.fail(n, EndCode::BUSY);
                    }
                    state.endpoint.stir(id);
                }
                Event::Asked(n, body) => {
                    let Some(peer) = state.endpoint.association(id).map(|a| a.peer()) else { continue };
                    let waiting = Arc::new(Waiting::default());
                    state.served.insert((id, n), waiting.clone());
                    self.cx.spawn(serve::request(self.clone(), (id, n), peer, body, waiting));
                }
            }
        }
        drop(state);
        wake.into_iter().for_each(Waker::wake);
    }
}

/// Takes packets of associations where the socket's reader has them, so that they are not copied and take no way over another
/// task. What strangers send is costly to answer, and waits in the queue.
#[derive(Debug)]
struct Tap(Arc<Hub>);

impl DatagramTap for Tap {
    fn take(&self, now: Instant, datagram: &mut [u8], from: SocketAddr) -> bool {
        let now = Now::from_origin(now.saturating_duration_since(self.0.origin));
        self.0.lock().endpoint.handle_known(now, from, datagram)
    }

    fn flush(&self) {
        self.0.dispatch();
        self.0.wake.notify_one();
    }
}

async fn sleep_until(until: Option<tokio::time::Instant>) {
    match until {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
