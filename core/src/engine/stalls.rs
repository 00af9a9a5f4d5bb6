//! When a fetch has stalled, and whether there is somebody else to turn to.

use icet::message::{Need, Outcome, Source};
use icet::{NetKind, Now};

use super::Engine;
use super::aside::LAST;
use super::assignments::{Assigned, Order};
use super::fetches::Fetch;
use super::io::{Action, FetchId};
use super::timers::Timer;
use super::ways::{self, Standing};

impl Engine {
    /// When a fetch that brought nothing since `moved`, and no more than drips since `spoke`, has stalled, and before that, when
    /// that is to be looked at. Who has nobody else to turn to is patient; who has another host, or the same one over another
    /// carrier, goes over as soon as a way falls silent.
    pub(super) fn stalls(
        &self,
        now: Now,
        order: Order,
        source: &Source,
        (moved, spoke): (Now, Now),
    ) -> (Now, Now) {
        let hurries = |a: &Assigned| a.need == Need::Urgent && a.sources.len() > a.tries.len();
        let most = if self.assigned.get(&order).is_some_and(hurries) {
            self.config.stall_urgent
        } else {
            self.config.stall
        };
        let most = moved + most;
        let elsewhere = self.elsewhere(now, order, source);
        let Some(good) =
            elsewhere.filter(|_| self.assigned.get(&order).is_some_and(|a| a.need != Need::Steady))
        else {
            // Live pages come at the pace of their source, which may be one a second: the tracker knows it.
            let patient = self.assigned.get(&order).is_none_or(|a| a.patience.is_none());
            let most = if patient { most } else { most.min(moved + LAST) };
            let most = match self.ways.due(&ways::way(source), moved, self.config.silence) {
                Some(due) if self.may_ask_again(order, source) => most.min(due),
                _ => most,
            };
            let due = self.turns_at(now, order, source, moved).map_or(most, |t| t.min(most));
            return (self.warns_at(order, source, (moved, spoke)).map_or(due, |w| w.min(due)), due);
        };
        let moved = spoke;
        // Who stood still already when it turned to a stand-in has no time for each of them: one may be over the carrier that is
        // blocked, without saying so.
        let stalled = |a: &Assigned| a.tries.iter().any(|t| t.failed == Some(Outcome::Stalled));
        if self.assigned.get(&order).is_some_and(stalled) && self.ways.stood_still(moved, self.config.silence)
        {
            let due = moved + self.config.silence / 2;
            return (due, due);
        }
        let least = if good { self.config.silence } else { 2 * self.config.silence };
        let due = self.ways.due(&ways::way(source), moved, least).map_or(most, |d| d.min(most));
        // Who stands still has little to lose, whatever is known against the others.
        let still = self.ways.still(moved, self.config.silence * 5 / 4).filter(|_| !good);
        let due = still.map_or(due, |still| due.min(still));
        (due.min(now + self.config.silence), due)
    }

    /// When the tracker is told that nothing but drips comes from the only source that is left, if it was not.
    fn warns_at(&self, order: Order, source: &Source, (moved, spoke): (Now, Now)) -> Option<Now> {
        let a = self.assigned.get(&order).filter(|a| !matches!(a.need, Need::Steady | Need::Reserve))?;
        // One source may be named twice.
        let mut tries = a.sources.iter().zip(&a.tries).filter(|(s, t)| *s == source && t.failed.is_none());
        let unsaid = tries.all(|(_, t)| !t.warned);
        (moved > spoke && unsaid).then(|| spoke + self.config.silence * 3 / 2)
    }

    /// Whether a stand-in is left at another host or over another carrier than this source's, and less is known against it, or
    /// nothing new.
    pub(super) fn elsewhere(&self, now: Now, order: Order, source: &Source) -> Option<bool> {
        let a = self.assigned.get(&order)?;
        let other = |s: &Source| s.host.key != source.host.key || ways::carrier(s) != ways::carrier(source);
        let best = self.best_left(now, a, other)?;
        let mut left = a.sources.iter().skip(a.tries.len());
        let better = best == Standing::Good || best < self.ways.standing(now, source);
        Some(better || left.any(|s| other(s) && self.ways.may_pass(now, s)))
    }

    /// Nothing comes over a carrier any more, as far as our session can tell.
    pub(super) fn carrier_lost(&mut self, now: Now, carrier: NetKind) {
        self.ways.gave_up(now, carrier);
        let over = |f: &Fetch| {
            let source = self.assigned.get(&f.order).and_then(|a| a.sources.get(f.source));
            source.is_some_and(|s| ways::carrier(s) == Some(carrier))
        };
        let fetches: Vec<_> = self.fetches.iter().filter(|(_, f)| over(f)).map(|(id, _)| *id).collect();
        for id in fetches {
            self.timers.set_sooner(Timer::Stall(id), now);
        }
    }

    /// The session speaks again after a silence: what stood still as well did so because of our own line, and not because of its
    /// hosts. Their connections notice only as long after the silence as that took, at worst; so orders that have nobody else go
    /// back, without a word against anybody, to be ordered anew over new connections.
    /// What has not been silent for long enough is looked at when it has.
    pub(super) fn begin_anew(&mut self, now: Now) {
        self.anew = Some(now);
        let orders: Vec<_> = self.assigned.keys().copied().filter(|o| self.stood_still(now, *o)).collect();
        orders.into_iter().for_each(|order| self.finish(now, order, Outcome::Stopped));
        let looks = self.fetches.iter().map(|(id, f)| (*id, self.last_brought(f) + self.config.silence));
        let looks: Vec<_> = looks.collect();
        looks.into_iter().for_each(|(id, at)| self.timers.set_sooner(Timer::Stall(id), at.max(now)));
    }

    /// Whether an order has nobody else, and all that it has brought was before the session spoke again, and long ago.
    fn stood_still(&self, now: Now, order: Order) -> bool {
        let mut mine = self.fetches.values().filter(|f| f.order == order).peekable();
        self.assigned.get(&order).is_some_and(Assigned::may_go_back)
            && mine.peek().is_some()
            && mine.all(|f| {
                let brought = self.last_brought(f);
                self.anew.is_some_and(|anew| brought < anew)
                    && now.since(brought) >= self.config.silence
                    && !self.may_turn(now, order, f.source)
            })
    }

    /// When something last came of a fetch. A host may send one thing after the other: what comes over the same way is a sign of life.
    fn last_brought(&self, f: &Fetch) -> Now {
        f.moved.max(self.ways.since(&f.way))
    }

    /// See [`Engine::stalls`].
    pub(super) fn stalls_at(&self, now: Now, f: &Fetch) -> Option<(Now, Now)> {
        let source = self.assigned.get(&f.order)?.sources.get(f.source)?;
        let spoke = f.spoke.max(self.ways.since(&f.way));
        Some(self.stalls(now, f.order, source, (self.last_brought(f), spoke)))
    }

    /// Whether there is anybody to go on at; see [`Engine::elsewhere`].
    pub(super) fn may_turn(&self, now: Now, order: Order, source: usize) -> bool {
        let source = self.assigned.get(&order).and_then(|a| a.sources.get(source));
        source.is_some_and(|source| self.elsewhere(now, order, source).is_some())
    }

    /// Whether nothing comes of all that was asked for, from hosts that never brought anything, though there are others: whoever was
    /// ordered from may be dead, and the tracker not know it yet.
    fn waits_alone(&self, now: Now, f: &Fetch) -> bool {
        let source = self.assigned.get(&f.order).and_then(|a| a.sources.get(f.source));
        let elsewhere = || source.and_then(|s| self.elsewhere(now, f.order, s));
        !self.ways.came_within(now, self.config.silence / 2)
            && !self.fetches.values().any(|o| self.ways.knows(&o.host))
            && matches!(f.need, Need::Urgent | Need::Bulk)
            && now.since(f.began) >= self.config.silence / 2
            && self.fetches.len() < self.config.fetches
            && !self.fetches.values().any(|o| o.late)
            && elsewhere() == Some(true)
    }

    /// Whether an order may go back because its way may be cut.
    fn may_ask_again(&self, order: Order, source: &Source) -> bool {
        !self.is_silent()
            && self.assigned.get(&order).is_some_and(Assigned::may_go_back)
            && self.ways.may_be_cut(source)
    }

    /// A way that may be cut, with nobody else to turn to: its orders go back, without a word against anybody, and are ordered anew over a new
    /// connection.
    fn asks_again(&mut self, now: Now, id: FetchId) -> bool {
        let Some(f) = self.fetches.get(&id) else { return false };
        let way = f.way.clone();
        let stands_alone = |f: &Fetch| {
            let source = self.assigned.get(&f.order).and_then(|a| a.sources.get(f.source));
            source.is_some_and(|s| self.may_ask_again(f.order, s)) && !self.may_turn(now, f.order, f.source)
        };
        if !stands_alone(f) {
            return false;
        }
        let orders: std::collections::BTreeSet<_> =
            self.fetches.values().filter(|o| o.way == way && stands_alone(o)).map(|o| o.order).collect();
        if !self.ways.is_asked_again(now, &way) {
            return false;
        }
        orders.into_iter().for_each(|order| self.finish(now, order, Outcome::Stopped));
        true
    }

    pub(super) fn stall(&mut self, now: Now, id: FetchId) {
        if self.is_outrun(now, id) {
            return;
        }
        let Some(f) = self.fetches.get(&id) else { return };
        if self.stood_still(now, f.order) {
            return self.finish(now, f.order, Outcome::Stopped);
        }
        let Some((look, due)) = self.stalls_at(now, f) else { return };
        if due > now {
            if self.waits_alone(now, f) {
                // One order is helped out, and nothing is said against anybody.
                let order = f.order;
                self.deadline(now, order);
            } else if look <= now {
                let (order, source) = (f.order, f.source);
                self.warn(now, order, source);
            }
            let Some(f) = self.fetches.get(&id) else { return };
            let look = self.stalls_at(now, f).map_or(due, |(look, _)| look);
            // One after the other is helped out.
            let soon = now + self.config.silence / 4;
            let look = if self.ways.knows(&f.host) { look } else { look.min(soon) };
            self.timers.set(Timer::Stall(id), look);
            return;
        }
        if self.turns_aside(now, id) {
            return;
        }
        if self.asks_again(now, id) {
            return;
        }
        let Some(f) = self.fetches.get(&id) else { return };
        let source_of = |f: &Fetch| self.assigned.get(&f.order).and_then(|a| a.sources.get(f.source));
        let (way, live) = (f.way.clone(), f.need == Need::Steady);
        // Whatever else is fetched by it will fare no better.
        let fares_so = |o: &Fetch| {
            o.way == way && source_of(o).is_some_and(|source| self.elsewhere(now, o.order, source).is_some())
        };
        let all = self.fetches.iter().filter(|(other, o)| **other == id || fares_so(o));
        let all: Vec<_> = all.map(|(id, _)| *id).collect();
        self.ways.fell_silent(now, &way, self.config.silence, live);
        for id in all {
            if self.fetches.contains_key(&id) {
                self.actions.push_back(Action::Stop { fetch: id });
                self.ended(now, id, Outcome::Stalled);
            }
        }
    }
}
