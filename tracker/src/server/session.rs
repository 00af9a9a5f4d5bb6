//! One peer's session: what it says goes to the mind, what the mind says goes to it, in order.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use iceshare::net::session::{Listener, SendError, Sender, TrackerSession};
use icet::message::{ErrorCode, ErrorMessage, ToPeer, ToTracker};
use icet::{MediaId, NetKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::mind::Event;
use super::traffic::{Traffic, add};
use crate::catalogue::{Durable, Writer};
use crate::swarm::ConnId;

/// Messages that wait for the disk, or behind such a one, for one session, beside the 2 MiB that its carrier queues.
const QUEUE: usize = 1024;
/// About how many bytes these may be.
const QUEUE_BYTES: usize = 2 << 20;
/// Sessions that begin at once (their contribution is being read).
const BEGINNING: usize = 64;

/// Something for one session's peer.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub(super) enum Out {
    /// A message; if it must not be sent before something is durable, what.
    Message(ToPeer, Option<Durable>),
    /// A message whose slices are still to be read.
    Answer { message: ToPeer, media: MediaId, version: u64, slices: Vec<u64>, after: Option<Durable> },
    /// Close, after all that came before.
    Close(String),
}

/// The mind's end of a session.
#[derive(Debug)]
pub(super) struct Outbox {
    sender: Sender<ToPeer>,
    sent: Arc<Sent>,
    queue: mpsc::Sender<(Box<Out>, usize)>,
    /// About how many bytes wait in the queue; none: nothing does.
    waiting: Arc<AtomicUsize>,
    /// Cancelled to close at once.
    cut: CancellationToken,
}

impl Outbox {
    /// Never waits: a peer that does not read loses its session.
    pub(super) fn push(&self, out: Out, traffic: &Traffic) {
        if self.cut.is_cancelled() {
            return;
        }
        // What has nothing to wait for goes straight to the carrier. Nobody else adds to the queue meanwhile.
        if let Out::Message(message, None) = &out
            && self.waiting.load(Ordering::Acquire) == 0
        {
            let result = self.sender.try_send(message);
            if matches!(result, Err(SendError::Full)) {
                self.slow(traffic);
            }
            return self.sent.count(&self.sender, message, &result, traffic);
        }
        let size = out.size();
        let fits = self.waiting.fetch_add(size, Ordering::AcqRel) < QUEUE_BYTES;
        let full = |e| matches!(e, mpsc::error::TrySendError::Full(_));
        if !fits || self.queue.try_send((Box::new(out), size)).is_err_and(full) {
            self.slow(traffic);
        }
    }

    fn slow(&self, traffic: &Traffic) {
        add(&traffic.slow, 1);
        self.cut.cancel();
    }
}

/// What was counted of a session's bytes.
#[derive(Debug, Default)]
struct Sent(AtomicU64);

impl Sent {
    fn count(
        &self,
        sender: &Sender<ToPeer>,
        message: &ToPeer,
        result: &Result<(), SendError>,
        traffic: &Traffic,
    ) {
        match result {
            Ok(()) => {
                let all = sender.sent();
                add(&traffic.messages_out, 1);
                add(&traffic.bytes_out, all.saturating_sub(self.0.fetch_max(all, Ordering::Relaxed)));
            }
            Err(SendError::Closed(_)) => {}
            Err(e @ (SendError::Full | SendError::TooLong(_))) => {
                tracing::error!(number = message.number(), "a message was not sent: {e}");
            }
        }
    }
}

impl Out {
    /// About how many bytes it occupies while it waits (slices are read later).
    fn size(&self) -> usize {
        let message = match self {
            Out::Message(m, _) | Out::Answer { message: m, .. } => m,
            Out::Close(why) => return why.len(),
        };
        256 + match message {
            ToPeer::MediaAnswer(m) => m.manifest.body.len(),
            ToPeer::InfoAnswer(m) => m.manifest.body.len() + 64 * m.alternatives.len(),
            ToPeer::Newer(m) => m.manifest.body.len(),
            ToPeer::Assign(m) => m.assignments.iter().map(|a| 1024 * (1 + a.stand_ins.len())).sum(),
            ToPeer::Cancel(m) => 8 * m.assignments.len(),
            _ => 0,
        }
    }
}

/// Takes sessions.
pub(super) struct Accept {
    pub(super) events: mpsc::Sender<Event>,
    pub(super) writer: Writer,
    pub(super) traffic: Arc<Traffic>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Accept {
    /// Until it is stopped; gives the listener back, so that what is under way can end.
    pub(super) async fn run(self, mut listener: Listener) -> Listener {
        let this = Arc::new(self);
        let beginning = Arc::new(Semaphore::new(BEGINNING));
        let mut last = 0;
        loop {
            let next = async {
                let permit = beginning.clone().acquire_owned().await.ok()?;
                Some((listener.accept().await?, permit))
            };
            let next = tokio::select! {
                () = this.stop.cancelled() => None,
                next = next => next,
            };
            let Some((session, permit)) = next else { return listener };
            last += 1;
            let (accept, conn) = (this.clone(), ConnId(last));
            this.tasks.spawn(async move { accept.session(conn, session, permit).await });
        }
    }

    async fn session(&self, conn: ConnId, session: TrackerSession, beginning: OwnedSemaphorePermit) {
        let (peer, remote) = (session.peer(), session.remote());
        let carrier = match remote.kind {
            NetKind::Udp => &self.traffic.sessions_quic,
            NetKind::Tcp => &self.traffic.sessions_tls,
        };
        add(carrier, 1);
        let (sender, mut receiver) = session.split();
        // The listener waited for it: who says nothing takes no part of the swarm's time.
        let mut first = match receiver.recv().await {
            Ok(first) => Some(first),
            Err(e) => return tracing::debug!(peer = %peer.short(), error = %e, "no session"),
        };
        let writer = self.writer.clone();
        let contribution = match tokio::task::spawn_blocking(move || writer.contribution(&peer)).await {
            Ok(Ok(c)) => c,
            // To begin at zero would overwrite what stands in the catalogue.
            Ok(Err(e)) => {
                tracing::error!("{e}");
                sender.close("the tracker cannot read its catalogue; try again later");
                return sender.closed().await;
            }
            Err(_) => return,
        };
        let (outbox, writing) = outbox(sender.clone(), self.writer.clone(), self.traffic.clone());
        let cut = outbox.cut.clone();
        let begun = Event::Connected { conn, peer, remote, contribution, outbox };
        if self.events.send(begun).await.is_err() {
            return;
        }
        drop(beginning);
        self.tasks.spawn(writing.run());
        let mut taken = 0;
        // Made once, not for each message.
        let mut over = pin!(async {
            tokio::select! {
                () = sender.closed() => {}
                () = cut.cancelled() => {}
            }
        });
        loop {
            let message = match first.take() {
                Some(first) => Ok(first),
                None => tokio::select! {
                    () = &mut over => break,
                    message = receiver.recv() => message,
                },
            };
            let message = match message {
                Ok(m) => m,
                Err(e) => {
                    tracing::debug!(peer = %peer.short(), error = %e, "session ended");
                    break;
                }
            };
            add(&self.traffic.messages_in, 1);
            add(&self.traffic.bytes_in, receiver.taken() - taken);
            taken = receiver.taken();
            if matches!(message, ToTracker::Publish(_) | ToTracker::Slices(_)) {
                // The disk is slower than the net: hold publishers back, nobody else.
                tokio::select! {
                    () = &mut over => break,
                    () = self.writer.relaxed() => {}
                }
            }
            if self.events.send(Event::Message { conn, message }).await.is_err() {
                break;
            }
        }
        sender.close("");
        let _ = self.events.send(Event::Disconnected { conn }).await;
    }
}

/// Both ends of what goes to one peer; the task must run for what has to wait.
fn outbox(sender: Sender<ToPeer>, writer: Writer, traffic: Arc<Traffic>) -> (Outbox, Writing) {
    let (queue, out) = mpsc::channel(QUEUE);
    let (sent, waiting, cut) =
        (Arc::<Sent>::default(), Arc::<AtomicUsize>::default(), CancellationToken::new());
    let outbox = Outbox {
        sender: sender.clone(),
        sent: sent.clone(),
        queue,
        waiting: waiting.clone(),
        cut: cut.clone(),
    };
    (outbox, Writing { sender, sent, out, waiting, writer, traffic, cut })
}

/// The task that writes to one peer what has to wait for something.
struct Writing {
    sender: Sender<ToPeer>,
    sent: Arc<Sent>,
    out: mpsc::Receiver<(Box<Out>, usize)>,
    waiting: Arc<AtomicUsize>,
    writer: Writer,
    traffic: Arc<Traffic>,
    cut: CancellationToken,
}

impl Writing {
    async fn run(mut self) {
        let (cut, sender) = (self.cut.clone(), self.sender.clone());
        let why = tokio::select! {
            () = cut.cancelled() => "you do not read what the tracker sends".to_owned(),
            () = sender.closed() => return,
            why = self.pump() => why,
        };
        sender.close(&why);
    }

    /// Returns why the session is to be closed.
    async fn pump(&mut self) -> String {
        while let Some((out, size)) = self.out.recv().await {
            let message = match *out {
                Out::Close(why) => return why,
                Out::Message(message, after) => self.once_durable(message, after).await,
                Out::Answer { message, media, version, slices, after } => {
                    let message = self.fill(message, media, version, slices).await;
                    self.once_durable(message, after).await
                }
            };
            let result = self.sender.send(&message).await;
            self.sent.count(&self.sender, &message, &result, &self.traffic);
            if let Err(SendError::Closed(why)) = result {
                return why;
            }
            // From now on what comes next may go past the queue, if that is empty.
            self.waiting.fetch_sub(size, Ordering::Release);
        }
        String::new()
    }

    /// The message once what it relies on is on disk, or an error in its place.
    async fn once_durable(&self, message: ToPeer, after: Option<Durable>) -> ToPeer {
        let Some(after) = after else { return message };
        let Err(why) = self.writer.durable(after).await else { return message };
        let ToPeer::MediaAnswer(answer) = &message else { return message };
        let mut text = format!("the tracker cannot keep it: {why}");
        text.truncate(text.floor_char_boundary(icet::limits::TEXT));
        let (request, media) = (Some(answer.request), Some(answer.media));
        ErrorMessage { code: ErrorCode::INTERNAL, request, media, text, retry: Some(5000) }.into()
    }

    async fn fill(&self, mut message: ToPeer, media: MediaId, version: u64, indexes: Vec<u64>) -> ToPeer {
        let writer = self.writer.clone();
        let read = tokio::task::spawn_blocking(move || writer.slices(&media, version, &indexes)).await;
        let found = match read {
            Ok(Ok(found)) => found,
            Ok(Err(e)) => {
                // The peer asks its hosts for proofs then.
                tracing::error!("{e}");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        match &mut message {
            ToPeer::MediaAnswer(m) => m.slices = found,
            ToPeer::Slices(s) => s.slices = found,
            _ => {}
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use iceshare::net::session::connect;
    use iceshare::net::{Net, NetConfig};
    use icet::message::{Ping, Pong};
    use icet::{Identity, PeerKey, ProvenSlice};

    use super::*;
    use crate::catalogue::{CatalogueError, Contents, Persist};
    use crate::swarm::{Contribution, Store};

    /// A disk that writes when the test lets it.
    struct Gate(Mutex<mpsc::Receiver<()>>);

    impl Persist for Gate {
        fn begin(&self) -> Result<Contents, CatalogueError> {
            Ok(Contents::default())
        }
        fn commit(&self, _: &[Store]) -> Result<(), CatalogueError> {
            let _ = self.0.lock().unwrap().recv();
            Ok(())
        }
        fn slices(&self, _: &MediaId, _: u64, _: &[u64]) -> Result<Vec<ProvenSlice>, CatalogueError> {
            Ok(Vec::new())
        }
        fn contribution(&self, _: &PeerKey) -> Result<Contribution, CatalogueError> {
            Ok(Contribution::default())
        }
    }

    #[tokio::test]
    async fn what_need_not_wait_stays_behind_what_waits() {
        let listen = || vec![([127, 0, 0, 1], 0).into()];
        let identity = |seed| Identity::from_seed(&[seed; 32]);
        let mut listener = Listener::bind(listen(), identity(1)).await.unwrap();
        let net = Net::bind(NetConfig::new(listen(), identity(2))).await.unwrap();
        let tracker = listener.local_addrs()[0].at.to_string();
        let mut peer = connect(&net, &tracker, None, &[Ping { nonce: 0 }.into()]).await.unwrap();
        let (sender, _receiver) = listener.accept().await.unwrap().split();

        let (allow, gate) = mpsc::channel();
        let writer = Writer::start(Arc::new(Gate(Mutex::new(gate))), Vec::new()).unwrap();
        let traffic = Arc::<Traffic>::default();
        let (outbox, writing) = outbox(sender.clone(), writer.clone(), traffic.clone());
        let task = tokio::spawn(writing.run());
        let pong = |nonce| ToPeer::from(Pong { nonce, time: 0 });
        let push = |nonce, after| outbox.push(Out::Message(pong(nonce), after), &traffic);

        push(1, None);
        assert_eq!(peer.recv().await.unwrap(), pong(1));
        let contribution = Contribution::default();
        let write = writer.submit(Store::Contribution { peer: identity(3).key(), contribution });
        push(2, Some(write));
        push(3, None);
        assert_eq!(traffic.messages_out.load(Ordering::Relaxed), 1, "neither may overtake the disk");
        allow.send(()).unwrap();
        for nonce in 2..=3 {
            assert_eq!(peer.recv().await.unwrap(), pong(nonce));
        }
        // Whether or not the queue is empty by now.
        push(4, None);
        assert_eq!(peer.recv().await.unwrap(), pong(4));
        drop(outbox);
        task.await.unwrap();
        assert_eq!(traffic.messages_out.load(Ordering::Relaxed), 4);
        assert_eq!(traffic.bytes_out.load(Ordering::Relaxed), sender.sent());
    }
}
