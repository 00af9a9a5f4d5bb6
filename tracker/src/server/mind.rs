//! The task that owns the swarm: events in, effects out, nothing that waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use iceshare::net::session::Dialer;
use icet::message::{ToPeer, ToTracker};
use icet::{MediaId, NetAddr, Now, PeerKey};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::record::Recorder;
use super::session::{Out, Outbox};
use super::traffic::{Traffic, add};
use crate::catalogue::{Durable, Writer};
use crate::swarm::record::Input;
use crate::swarm::rules::{Operation, OperationError};
use crate::swarm::{ConnId, Contribution, DialId, Effect, Store, Swarm};

/// Events that wait; whoever brings more is made to wait.
const EVENTS: usize = 4096;
/// Events that are handled between two looks at the clock.
const BATCH: usize = 256;
/// Questions of observers that wait.
const ASKS: usize = 16;
/// A dial-back is given up after so long.
const DIAL: Duration = Duration::from_secs(5);

/// What happens to the swarm.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub(super) enum Event {
    Connected { conn: ConnId, peer: PeerKey, remote: NetAddr, contribution: Contribution, outbox: Outbox },
    Message { conn: ConnId, message: ToTracker },
    Disconnected { conn: ConnId },
    Dialed { id: DialId, outcome: Result<(), String> },
    Operation { operation: Operation, answer: oneshot::Sender<Result<Option<Durable>, OperationError>> },
}

/// Does for the swarm what only an operator may: whoever has one knows the token, or may check if somebody does. Clone.
#[derive(Clone)]
pub struct Operator {
    /// Hash of the token: hashes are compared in constant time.
    token: blake3::Hash,
    events: mpsc::Sender<Event>,
    writer: Writer,
}

/// Why an operator's wish is not done, or not for good.
#[derive(Debug, Clone, Error)]
pub enum OperateError {
    /// The tracker has stopped.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// It makes no sense.
    #[error(transparent)]
    Refused(#[from] OperationError),
    /// It is done, but may be gone after a restart.
    #[error("it is done, but the tracker cannot keep it over a restart: {0}")]
    NotKept(String),
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Operator(..)")
    }
}

impl Operator {
    pub(super) fn new(token: &[u8], events: mpsc::Sender<Event>, writer: Writer) -> Operator {
        Operator { token: blake3::hash(token), events, writer }
    }

    /// Whether this is the token. Takes as long whatever is wrong with it.
    #[must_use]
    pub fn knows(&self, token: &[u8]) -> bool {
        blake3::hash(token) == self.token
    }

    /// Does something, and returns when it is on disk.
    ///
    /// # Errors
    /// [`OperateError`].
    pub async fn operate(&self, operation: Operation) -> Result<(), OperateError> {
        let (answer, answered) = oneshot::channel();
        self.events.send(Event::Operation { operation, answer }).await.map_err(|_| Busy)?;
        let written = answered.await.map_err(|_| Busy)??;
        match written {
            Some(written) => self.writer.durable(written).await.map_err(OperateError::NotKept),
            None => Ok(()),
        }
    }
}

type Ask = Box<dyn FnOnce(&Swarm) + Send>;

/// Looks into the swarm from outside, without being able to hold it up: questions take at most a quarter of the
/// swarm's time, and are refused when too many wait. Clone.
#[derive(Debug, Clone)]
pub struct Observer(mpsc::Sender<Ask>);

/// The swarm has no time for a question now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the tracker is busy; ask again in a second")]
pub struct Busy;

impl Observer {
    /// What `look` sees. It runs in the swarm's task: it must be quick, and what it returns bounded.
    ///
    /// # Errors
    /// [`Busy`], also when the tracker has stopped.
    pub async fn ask<T, F>(&self, look: F) -> Result<T, Busy>
    where
        T: Send + 'static,
        F: FnOnce(&Swarm) -> T + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let ask = move |swarm: &Swarm| {
            if !tell.is_closed() {
                let _ = tell.send(look(swarm));
            }
        };
        self.0.try_send(Box::new(ask)).map_err(|_| Busy)?;
        told.await.map_err(|_| Busy)
    }
}

/// Both clocks.
#[derive(Debug, Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn now(self) -> Now {
        Now::from_origin(self.0.elapsed())
    }
    fn at(self, now: Now) -> Instant {
        self.0 + Duration::from_micros(now.0)
    }
}

/// Milliseconds since 1970.
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

struct Mind {
    swarm: Swarm,
    recorder: Option<Recorder>,
    clock: Clock,
    sessions: HashMap<ConnId, Outbox>,
    writer: Writer,
    dialer: Arc<Dialer>,
    traffic: Arc<Traffic>,
    tasks: TaskTracker,
    events: mpsc::Sender<Event>,
}

/// Starts the task. It ends when `stop` is cancelled, after it said goodbye to all sessions.
pub(super) fn start(
    swarm: Swarm,
    recorder: Option<Recorder>,
    writer: Writer,
    dialer: Dialer,
    traffic: Arc<Traffic>,
    tasks: TaskTracker,
    stop: CancellationToken,
) -> (mpsc::Sender<Event>, Observer, JoinHandle<()>) {
    let (events, incoming) = mpsc::channel(EVENTS);
    let (ask, asks) = mpsc::channel(ASKS);
    let mind = Mind {
        swarm,
        recorder,
        clock: Clock(Instant::now()),
        sessions: HashMap::new(),
        writer,
        dialer: Arc::new(dialer),
        traffic,
        tasks,
        events: events.clone(),
    };
    let task = tokio::spawn(mind.run(incoming, asks, stop));
    (events, Observer(ask), task)
}

impl Mind {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut asks: mpsc::Receiver<Ask>,
        stop: CancellationToken,
    ) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut asks_from = Instant::now();
        // What the catalogue brought may have effects already.
        self.carry_out();
        loop {
            let now = Instant::now();
            if self.swarm.poll_timeout().is_some_and(|t| self.clock.at(t) <= now) {
                self.feed(Input::Timeout { now: self.clock.now(), wall_ms: wall_ms() });
            }
            self.recorder.iter_mut().for_each(Recorder::flush);
            let far = now + Duration::from_secs(3600);
            let due = self.swarm.poll_timeout().map_or(far, |t| self.clock.at(t));
            let open = asks_from <= now;
            let wake = if open { due } else { due.min(asks_from) };
            tokio::select! {
                () = stop.cancelled() => break,
                n = events.recv_many(&mut batch, BATCH) => {
                    if n == 0 {
                        break;
                    }
                    for event in batch.drain(..) {
                        self.handle(event);
                    }
                    // A steady stream of events must not keep this thread's other tasks waiting.
                    tokio::task::yield_now().await;
                }
                Some(ask) = asks.recv(), if open => {
                    let before = Instant::now();
                    ask(&self.swarm);
                    asks_from = Instant::now() + 3 * before.elapsed();
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        self.goodbye();
    }

    /// Gives the swarm an input, and does what comes of it.
    fn feed(&mut self, input: Input) {
        if let Some(recorder) = &mut self.recorder {
            recorder.input(&input);
        }
        self.swarm.feed(input);
        self.carry_out();
    }

    fn handle(&mut self, event: Event) {
        let now = self.clock.now();
        match event {
            Event::Connected { conn, peer, remote, contribution, outbox } => {
                // Another session of the key may have ended since it was read.
                let contribution = self.writer.recent_contribution(&peer).unwrap_or(contribution);
                self.sessions.insert(conn, outbox);
                let (from, kind) = (remote.at, remote.kind);
                self.feed(Input::Connect { now, conn, peer, from, kind, contribution });
            }
            Event::Message { conn, message } => {
                self.feed(Input::Message { now, wall_ms: wall_ms(), conn, message });
            }
            Event::Disconnected { conn } => {
                self.sessions.remove(&conn);
                self.feed(Input::Disconnect { now, conn });
            }
            Event::Dialed { id, outcome } => self.feed(Input::Dialed { now, id, outcome }),
            Event::Operation { operation, answer } => {
                let wall_ms = wall_ms();
                if let Some(recorder) = &mut self.recorder {
                    recorder.input(&Input::Operation { now, wall_ms, operation: operation.clone() });
                }
                tracing::info!(?operation, "the operator");
                let result = self.swarm.handle_operation(now, wall_ms, operation);
                let written = self.carry_out();
                let _ = answer.send(result.map(|()| written));
            }
        }
    }

    /// Does what the swarm wants done; the last write of it.
    fn carry_out(&mut self) -> Option<Durable> {
        // Manifests stored since the last drain, and the last write since then: who published one is answered
        // when it is durable.
        let mut stored: Vec<MediaId> = Vec::new();
        let mut last: Option<Durable> = None;
        while let Some(effect) = self.swarm.poll_effect() {
            if let Some(recorder) = &mut self.recorder {
                recorder.effect(&effect);
            }
            let relies = |message: &ToPeer, stored: &[MediaId]| match message {
                ToPeer::MediaAnswer(m) => stored.contains(&m.media),
                _ => false,
            };
            match effect {
                Effect::Send { conn, message } => {
                    let after = last.filter(|_| relies(&message, &stored));
                    self.push(conn, Out::Message(message, after));
                }
                Effect::Answer { conn, message, media, version, slices } => {
                    let after = last.filter(|_| relies(&message, &stored));
                    self.push(conn, Out::Answer { message, media, version, slices, after });
                }
                Effect::Close { conn, why } => {
                    tracing::debug!(?conn, why, "closing a session");
                    self.push(conn, Out::Close(why));
                }
                Effect::Dial { id, addr, key } => self.dial(id, addr, key),
                Effect::Store(store) => {
                    if let Store::Manifest { manifest } = &store {
                        stored.push(manifest.id());
                    }
                    last = Some(self.writer.submit(store));
                }
            }
        }
        self.recorder.iter_mut().for_each(Recorder::check);
        last
    }

    fn push(&self, conn: ConnId, out: Out) {
        if let Some(outbox) = self.sessions.get(&conn) {
            outbox.push(out, &self.traffic);
        }
    }

    /// How many run at once is the swarm's quota.
    fn dial(&self, id: DialId, addr: NetAddr, key: PeerKey) {
        let (dialer, traffic, events) = (self.dialer.clone(), self.traffic.clone(), self.events.clone());
        self.tasks.spawn(async move {
            let outcome = dialer.dial_back(addr, key, DIAL).await.map_err(|e| e.why());
            add(if outcome.is_ok() { &traffic.dials_proved } else { &traffic.dials_failed }, 1);
            let _ = events.send(Event::Dialed { id, outcome }).await;
        });
    }

    /// All sessions end; what they contributed is written.
    fn goodbye(mut self) {
        let sessions: Vec<ConnId> = self.sessions.keys().copied().collect();
        for conn in sessions {
            self.push(conn, Out::Close("the tracker stops; come back later".to_owned()));
            self.sessions.remove(&conn);
            self.feed(Input::Disconnect { now: self.clock.now(), conn });
        }
        if let Some(recorder) = self.recorder.take() {
            recorder.finish();
        }
    }
}
