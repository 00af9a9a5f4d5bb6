//! The limiter in real time: a thin shell.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use icet::Now;
use tokio::sync::{Notify, oneshot};

use super::Clock;
use super::limiter::{Class, Flow, Limiter, Wait, on_the_wire};

/// Lets writes go when it is their turn.
#[derive(Debug)]
pub(super) struct Upload {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    earlier: Notify,
}

#[derive(Debug)]
struct State {
    limiter: Limiter,
    waiting: HashMap<Wait, oneshot::Sender<()>>,
    /// While the pump runs: when it looks again.
    pump: Option<Now>,
    flows: u64,
}

impl State {
    /// Lets go whatever may go now. Says whether `mine` was among it.
    fn grant(&mut self, now: Now, mine: Option<Wait>) -> bool {
        let mut granted = false;
        while let Some(wait) = self.limiter.grant(now) {
            granted |= Some(wait) == mine;
            if let Some(sender) = self.waiting.remove(&wait) {
                // Who gave up waiting has taken itself out before.
                let _ = sender.send(());
            }
        }
        granted
    }
}

impl Upload {
    pub(super) fn new(up: Option<u64>, share: Option<f64>, clock: Arc<dyn Clock>) -> Arc<Upload> {
        let limiter = Limiter::new(up, share, clock.now());
        let state = State { limiter, waiting: HashMap::new(), pump: None, flows: 0 };
        Arc::new(Upload { clock, state: Mutex::new(state), earlier: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new request.
    pub(super) fn flow(&self) -> Flow {
        let mut state = self.lock();
        state.flows += 1;
        Flow(state.flows)
    }

    /// A request ended.
    pub(super) fn end(&self, flow: Flow) {
        self.lock().limiter.end(flow);
    }

    /// Most bytes to ask for at once.
    pub(super) fn quantum(&self) -> usize {
        self.lock().limiter.quantum()
    }

    /// What left without having asked.
    pub(super) fn owe(&self, bytes: usize) {
        let now = self.clock.now();
        self.lock().limiter.owe(now, bytes);
    }

    /// Waits until a request may write so much, and whatever its packets have besides.
    pub(super) async fn turn(self: &Arc<Upload>, flow: Flow, class: Class, bytes: usize) {
        let quantum = {
            let state = self.lock();
            if state.limiter.is_free() {
                return;
            }
            state.limiter.quantum()
        };
        let mut left = on_the_wire(bytes);
        while left > 0 {
            let part = left.min(quantum);
            self.part(flow, class, part).await;
            left -= part;
        }
    }

    async fn part(self: &Arc<Upload>, flow: Flow, class: Class, bytes: usize) {
        let (wait, granted) = {
            let now = self.clock.now();
            let mut state = self.lock();
            let wait = state.limiter.ask(now, flow, class, bytes);
            if state.grant(now, Some(wait)) {
                return;
            }
            let (sender, granted) = oneshot::channel();
            state.waiting.insert(wait, sender);
            let next = state.limiter.next_at(now).unwrap_or(now);
            match state.pump {
                Some(at) if at <= next => {}
                Some(_) => self.earlier.notify_one(),
                None => {
                    state.pump = Some(next);
                    tokio::spawn(pump(Arc::downgrade(self)));
                }
            }
            (wait, granted)
        };
        let _out = Queued { upload: self, wait };
        // The sender is only dropped unsent with the whole shelf.
        let _ = granted.await;
    }
}

/// One task for all who wait: it sleeps until the next write may go. Ends when nobody waits.
async fn pump(upload: Weak<Upload>) {
    let mut running = Running(Some(upload.clone()));
    while let Some(upload) = upload.upgrade() {
        let pause = {
            let now = upload.clock.now();
            let mut state = upload.lock();
            state.grant(now, None);
            state.pump = state.limiter.next_at(now);
            match state.pump {
                Some(next) => next.since(now),
                None => {
                    running.0 = None;
                    return;
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = upload.earlier.notified() => {}
        }
    }
}

/// If the pump's runtime goes away, the next one who waits starts another.
struct Running(Option<Weak<Upload>>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(upload) = self.0.take().and_then(|u| u.upgrade()) {
            upload.lock().pump = None;
        }
    }
}

/// Takes a write out of the queue when its request goes away.
struct Queued<'a> {
    upload: &'a Upload,
    wait: Wait,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let mut state = self.upload.lock();
        if state.waiting.remove(&self.wait).is_some() {
            state.limiter.forget(self.wait);
        }
    }
}
