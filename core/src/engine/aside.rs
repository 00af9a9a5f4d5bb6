//! Open-ended orders of live media: who is turned to beside a silent host, and which of them is kept.

use std::time::Duration;

use icet::Now;
use icet::message::{Outcome, Source};

use super::Engine;
use super::assignments::{Assigned, Order};
use super::fetches::Fetch;
use super::io::FetchId;
use super::timers::Timer;
use super::ways;

/// A host of live media that brings nothing for so long is left although nobody else brings anything.
pub(super) const LAST: Duration = Duration::from_millis(2500);
/// A stand-in brought something first: for so long the host that it stands in for may bring it, too, and is kept. Where the source was silent
/// all go on at once, and the tree stays as it is.
const GRACE: Duration = Duration::from_millis(500);

impl Engine {
    /// When a stand-in is turned to beside the host of an open-ended set that is silent, if one is left.
    pub(super) fn turns_at(&self, now: Now, order: Order, source: &Source, moved: Now) -> Option<Now> {
        let a = self.assigned.get(&order)?;
        let silent = |f: &Fetch| f.order == order && f.late && a.sources.get(f.source) == Some(source);
        let due = moved + a.patience?;
        (!self.fetches.values().any(silent) && self.elsewhere(now, order, source).is_some()).then_some(due)
    }

    /// The host of an open-ended set is silent, which may be its own host's or the source's affair: a stand-in is turned to beside it, and
    /// whoever brings something first is kept. Whether that is to be done.
    pub(super) fn turns_aside(&mut self, now: Now, id: FetchId) -> bool {
        let Some(f) = self.fetches.get_mut(&id).filter(|f| !f.late) else { return false };
        let order = f.order;
        if self.assigned.get(&order).is_none_or(|a| a.patience.is_none() || a.sources.len() <= a.tries.len())
        {
            return false;
        }
        f.late = true;
        if self.begin_try(now, order) {
            self.timers.set(Timer::Stall(id), now + LAST);
            let Some(a) = self.assigned.get(&order) else { return true };
            self.queue.insert(a.key(order));
            self.stirred = true;
            return true;
        }
        false
    }

    /// Something came of an open-ended set. From the host that was silent: that one is kept. From who was turned to meanwhile: so is this
    /// one, unless the host goes on in a moment.
    pub(super) fn brings(&mut self, now: Now, id: FetchId) {
        let Some(f) = self.fetches.get(&id) else { return };
        let (order, source) = (f.order, f.source);
        let before = self.fetches.iter_mut().filter(|(_, f)| f.order == order && f.source < source);
        match before.min_by_key(|(_, f)| f.source) {
            Some((host, f)) => {
                let until = *f.outrun.get_or_insert(now) + GRACE;
                self.timers.set_sooner(Timer::Stall(*host), until);
            }
            None => self.settle(now, id),
        }
    }

    /// Whether a host has a moment yet after a stand-in of it brought something; if it had, the stand-in is kept.
    pub(super) fn is_outrun(&mut self, now: Now, id: FetchId) -> bool {
        let Some((f, since)) = self.fetches.get(&id).and_then(|f| Some((f, f.outrun?))) else { return false };
        if now < since + GRACE {
            self.timers.set(Timer::Stall(id), since + GRACE);
            return true;
        }
        let (order, source) = (f.order, f.source);
        let by = self.fetches.iter().filter(|(_, f)| f.order == order && f.source > source);
        let by = by.filter(|(_, f)| f.moved >= since).max_by_key(|(_, f)| f.moved).map(|(by, _)| *by);
        by.into_iter().for_each(|by| self.settle(now, by));
        self.fetches.get_mut(&id).into_iter().for_each(|f| f.outrun = None);
        by.is_some()
    }

    /// Who else was turned to for an open-ended set is left.
    fn settle(&mut self, now: Now, id: FetchId) {
        let Some(f) = self.fetches.get_mut(&id) else { return };
        let (order, source) = (f.order, f.source);
        (f.late, f.outrun) = (false, None);
        let others: Vec<_> = self
            .fetches
            .iter()
            .filter(|(other, f)| f.order == order && f.source != source && **other != id)
            .map(|(other, f)| (*other, f.source))
            .collect();
        for (other, its) in others {
            self.drop_fetch(other);
            let Some(a) = self.assigned.get_mut(&order) else { return };
            if its > source && its + 1 == a.tries.len() {
                // It may be needed yet.
                a.tries.pop();
            } else if let Some(t) = a.tries.get_mut(its) {
                t.failed.get_or_insert(Outcome::Stalled);
            }
        }
        self.report_failed(now, order);
        self.takes_over(now, order);
    }

    /// A newer open-ended order brings something: what the older ones of the same pages were to bring comes by it from now on.
    fn takes_over(&mut self, now: Now, order: Order) {
        self.older(order).into_iter().for_each(|o| self.finish(now, o, Outcome::Done));
    }

    /// A newer open-ended order by the way by which the older ones bring the same pages: both would bring each of them.
    pub(super) fn renews(&mut self, now: Now, order: Order) {
        let Some(way) = self.assigned.get(&order).and_then(|a| a.sources.first()).map(ways::way) else {
            return;
        };
        for older in self.older(order) {
            let mut by = self.fetches.values().filter(|f| f.order == older).map(|f| &f.way).peekable();
            if by.peek().is_some() && by.all(|w| *w == way) {
                self.finish(now, older, Outcome::Done);
            }
        }
    }

    /// Older open-ended orders of the same pages; none if this one has an end.
    fn older(&self, order: Order) -> Vec<Order> {
        let Some(a) = self.assigned.get(&order).filter(|a| a.set.last.is_none()) else { return Vec::new() };
        let (handle, stripe) = (a.handle, a.set.stripe);
        let same = |o: &Order, a: &Assigned| {
            *o < order && a.handle == handle && a.set.last.is_none() && a.set.stripe == stripe
        };
        self.assigned.iter().filter(|(o, a)| same(o, a)).map(|(o, _)| *o).collect()
    }
}
