//! The page records that a fetch needs, with their proofs: from the host beside its pages, else from the tracker.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use icet::message::Position;
use icet::{Abilities, ProvenSlice};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::fetch::{Fetch, PROGRESS};
use super::media::until;
use super::session::Order;
use crate::engine::io::{Command, FetchEvent};
use crate::protocol::{ErrorKind, Piece, TransportError, What};

use icet::media::SLICE_PAGES;

/// Most bytes that one answer of proofs may have: 128 slices.
const BYTES: usize = icet::limits::SLICES * (icet::limits::SLICE + 2048);
/// How many slices beyond the needed ones are asked for with them, at most.
const AHEAD: u64 = 31;
/// How long a fetch waits for slices that neither host nor tracker sends.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long it waits for one that another fetch asked for. Whoever that is may not get it, and meanwhile nothing tells that this
/// fetch's own host is there; a slice that comes twice costs little.
const OTHERS: Duration = Duration::from_millis(500);

/// Slices of one media that fetches are asking for: each comes once, not with every fetch that waits for it.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    state: Mutex<State>,
    /// Somebody has an answer, or has given up.
    over: Notify,
}

#[derive(Debug, Default)]
struct State {
    now: BTreeSet<u64>,
    /// How many came so far.
    came: u64,
}

/// A question for slices, which is answered, or was given up, when it is dropped.
struct Asked {
    all: Arc<Asking>,
    slices: (u64, u64),
}

impl Asking {
    /// Asks for `at`, those needed after it up to `last`, and some ahead: as many as came before, so that on a slow line the
    /// first page does not wait for records of the thousandth. None: somebody asked for `at`, and that is waited for.
    fn ask(self: &Arc<Asking>, at: u64, last: u64, end: u64, patient: bool) -> Option<Asked> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if patient && state.now.contains(&at) {
            return None;
        }
        let most = last.max(at + state.came.min(AHEAD)).min(end).min(at + 127);
        // Not `at + 1..=most`: if `most` is `at`, that is no range to a set but a panic.
        let taken = state.now.range(at + 1..most + 1).next().copied();
        let slices = (at, taken.map_or(most, |t| t - 1));
        state.now.extend(slices.0..=slices.1);
        Some(Asked { all: self.clone(), slices })
    }

    fn came(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).came += 1;
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.all.state.lock().unwrap_or_else(PoisonError::into_inner);
        (self.slices.0..=self.slices.1).for_each(|i| {
            state.now.remove(&i);
        });
        drop(state);
        self.all.over.notify_waiters();
    }
}

impl Fetch {
    /// Sees to it that slices `first ..= last` are known: from the host if it sends proofs, else from the tracker.
    pub(super) async fn need_slices(&self, first: u64, last: u64) -> Result<(), TransportError> {
        let deadline = Instant::now() + PATIENCE;
        let mut changed = self.store.changed();
        let mut ask_host = self.can(Abilities::PROOFS);
        let (mut asked_tracker, mut waits) = (None, None);
        let mut at = first;
        while at <= last {
            if self.store.slice(at).is_some() {
                (at, waits) = (at + 1, None);
                continue;
            }
            if ask_host {
                let end = self.store.manifest().slices() - 1;
                let patient = waits.is_none_or(|until| until > Instant::now());
                // From before the look on, so that nothing is missed.
                let over = self.shared.asking.over.notified();
                let Some(asked) = self.shared.asking.ask(at, last, end, patient) else {
                    // Whoever asked may have a slower host.
                    let until = *waits.get_or_insert(Instant::now() + OTHERS);
                    tokio::select! {
                        _ = changed.changed() => {}
                        () = over => {}
                        () = sleep_until(until) => {}
                    }
                    continue;
                };
                let came = self.proofs(asked.slices.0, asked.slices.1).await;
                drop(asked);
                match came {
                    Ok(true) => continue,
                    Ok(false) => ask_host = false,
                    Err(e) if e.kind == ErrorKind::Protocol => return Err(e),
                    Err(_) => ask_host = false,
                }
                continue;
            }
            if asked_tracker != Some(at) {
                asked_tracker = Some(at);
                let command =
                    Command::Locate { handle: self.shared.handle, at: Position::Page(at * SLICE_PAGES) };
                let _ = self.shared.orders.send(Order::Engine(command));
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = until(Some(deadline)) => {
                    return Err(TransportError::new(ErrorKind::NoRange, format!("nobody sent the page records of slice {at}")));
                }
            }
        }
        Ok(())
    }

    /// Asks the host for slices, and keeps each as it comes. False: it had not the first of them.
    async fn proofs(&self, first: u64, last: u64) -> Result<bool, TransportError> {
        let mut stream =
            self.protocol.implementation.fetch(self.cx.clone(), self.request(What::Proofs { first, last }));
        let mut buf = BytesMut::new();
        let (mut total, mut told, mut untold) = (0, Instant::now(), 0);
        while let Some(piece) = stream.next().await {
            let Piece::Bytes(b) = piece? else { continue };
            total += b.len();
            if total > BYTES {
                return Err(TransportError::new(ErrorKind::Protocol, "more proofs than were asked for"));
            }
            untold += b.len() as u64;
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                self.tell(FetchEvent::Progress { bytes: std::mem::take(&mut untold) });
            }
            buf.extend_from_slice(&b);
            while self.take_slice(&mut buf)? {}
        }
        if !buf.is_empty() {
            return Err(TransportError::new(ErrorKind::Protocol, "proofs that break off"));
        }
        Ok(self.store.slice(first).is_some())
    }

    /// Keeps the slice at the beginning of `buf`, if it came whole.
    fn take_slice(&self, buf: &mut BytesMut) -> Result<bool, TransportError> {
        if buf.is_empty() {
            return Ok(false);
        }
        let mut decoder = minicbor::Decoder::new(buf);
        let slice: ProvenSlice = match decoder.decode() {
            Ok(slice) => slice,
            Err(e) if e.is_end_of_input() && buf.len() <= BYTES / icet::limits::SLICES => return Ok(false),
            Err(e) => {
                return Err(TransportError::new(ErrorKind::Protocol, "malformed proofs").because(e));
            }
        };
        let len = decoder.position();
        buf.advance(len);
        if let Err(e) = self.store.put_slice(&slice) {
            tracing::warn!(host = %self.source.host.key.short(), error = %e, "a proof that was sent is wrong");
            self.shared.counts.bad.fetch_add(1, Ordering::Relaxed);
            self.tell(FetchEvent::Altered);
            return Err(TransportError::new(ErrorKind::Protocol, "a wrong proof"));
        }
        self.shared.asking.came();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slice_is_asked_for_once_and_more_are_asked_for_as_they_come() {
        let asking = Arc::new(Asking::default());
        let first = asking.ask(0, 0, 999, true).unwrap();
        assert_eq!(first.slices, (0, 0));
        assert!(asking.ask(0, 5, 999, true).is_none());
        assert_eq!(asking.ask(1, 1, 999, true).map(|a| a.slices), Some((1, 1)), "one alone, beside another");
        let later = asking.ask(1, 5, 999, true).unwrap();
        assert_eq!(later.slices, (1, 5));
        // Whoever waited for too long asks all the same.
        assert_eq!(asking.ask(0, 3, 999, false).map(|a| a.slices), Some((0, 0)));
        drop((first, later));
        (0..6).for_each(|_| asking.came());
        let seventh = asking.ask(6, 6, 999, true).unwrap();
        assert_eq!(seventh.slices, (6, 12));
        assert_eq!(asking.ask(3, 3, 999, true).map(|a| a.slices), Some((3, 5)), "up to what is on its way");
        (0..90).for_each(|_| asking.came());
        assert_eq!(asking.ask(100, 100, 999, true).map(|a| a.slices), Some((100, 131)));
        assert_eq!(asking.ask(990, 990, 999, true).map(|a| a.slices), Some((990, 999)));
    }

    #[tokio::test]
    async fn who_waits_for_an_answer_hears_that_it_was_given_up() {
        let asking = Arc::new(Asking::default());
        let first = asking.ask(0, 5, 999, true).unwrap();
        let over = asking.over.notified();
        assert!(asking.ask(0, 0, 999, true).is_none());
        // Before it is waited for.
        drop(first);
        over.await;
        assert_eq!(asking.ask(0, 0, 999, true).map(|a| a.slices), Some((0, 0)));
    }
}
