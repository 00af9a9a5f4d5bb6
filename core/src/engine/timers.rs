//! The engine's alarms: at most one of each name.

use std::collections::{BTreeMap, BTreeSet};

use icet::Now;

use super::assignments::Order;
use super::io::{FetchId, Handle};

/// What an alarm is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Try to reach the tracker.
    Connect,
    /// The tracker owes an answer.
    Silence,
    /// Tell what was served.
    Served,
    /// Send a request again.
    Retry(u64),
    /// Send the last focus of a storm.
    Focus(Handle),
    /// Send acknowledgements.
    Ack(Handle),
    /// Say again what may have been lost.
    Restate,
    /// Go on with an upload.
    Upload(Handle),
    /// Nothing came for too long.
    Stall(FetchId),
    /// Urgent pages should be there.
    Deadline(Order),
    /// An assignment ends unless it moved.
    Lapse(Order),
    /// The tracker is silent: what is in reserve is taken up.
    Reserve,
    /// Announce addresses again that were not reached.
    Announce,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Now, Timer)>,
    due: BTreeMap<Timer, Now>,
    /// Nothing is set to go off at or before the moment being handled: handling it always ends.
    floor: Now,
}

impl Timers {
    /// Sets an alarm, or moves it.
    pub(super) fn set(&mut self, timer: Timer, at: Now) {
        let at = at.max(self.floor);
        if let Some(old) = self.due.insert(timer, at) {
            self.queue.remove(&(old, timer));
        }
        self.queue.insert((at, timer));
    }

    /// Sets an alarm unless it goes off sooner anyway.
    pub(super) fn set_sooner(&mut self, timer: Timer, at: Now) {
        if self.due.get(&timer).is_none_or(|due| at < *due) {
            self.set(timer, at);
        }
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.due.remove(&timer) {
            self.queue.remove(&(at, timer));
        }
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.due.contains_key(&timer)
    }

    pub(super) fn next(&self) -> Option<Now> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// The next alarm that is due; to be called until there is none.
    pub(super) fn pop(&mut self, now: Now) -> Option<Timer> {
        self.floor = Now(now.0.saturating_add(1));
        let (at, timer) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first();
        self.due.remove(&timer);
        Some(timer)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}
