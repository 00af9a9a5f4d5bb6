//! Assignments: taking them up, and ending them with one last report.

use std::time::Duration;

use icet::message::{Assign, Assignment, Cancel, Need, Outcome, Report, Source};
use icet::{Now, PageNo, PageSet, limits};

use super::acks::Number;
use super::fetches::{GONE, Gone};
use super::io::{Action, FetchId, Handle};
use super::pages::may_meet;
use super::reserve::Held;
use super::session::Link;
use super::timers::Timer;
use super::{Engine, millis, ways};

/// Most assignments at once; what a tracker orders beyond is given back.
const ASSIGNED: usize = 4096;
/// Most assignments of a media that wait for the driver to accept it.
const PARKED: usize = 256;
/// Bounds of an assignment's lapse.
const LAPSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3600));

/// Order of arrival: the engine's own name of an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Order(pub(super) u64);

/// An assignment that waits for its media to be accepted.
#[derive(Debug)]
pub(super) struct Parked {
    /// When it was received.
    pub(super) at: Now,
    pub(super) epoch: u64,
    pub(super) assignment: Assignment,
}

/// An assignment under way, or waiting for its turn.
#[derive(Debug)]
pub(super) struct Assigned {
    /// Epoch and the tracker's number.
    pub(super) number: Number,
    pub(super) handle: Handle,
    pub(super) set: PageSet,
    pub(super) need: Need,
    pub(super) deadline: Option<Now>,
    /// Of an open-ended set: a silence of its host after which a stand-in is turned to.
    pub(super) patience: Option<Duration>,
    lapse: Duration,
    /// When it was received, or something of it came.
    pub(super) moved: Now,
    /// Source, then stand-ins.
    pub(super) sources: Vec<Source>,
    /// One for each source begun, in the same order.
    pub(super) tries: Vec<Try>,
    /// All pages of the set before this one are held.
    pub(super) low: PageNo,
    /// Past its deadline: a stand-in helps.
    pub(super) overdue: bool,
}

/// What came of one source.
#[derive(Debug, Default)]
pub(super) struct Try {
    /// Why it is not used any longer.
    pub(super) failed: Option<Outcome>,
    /// Whether a fetch was stopped before it had all of its pages.
    pub(super) stopped: bool,
    /// Fetches under way.
    pub(super) fetches: usize,
    pub(super) started: Option<Now>,
    pub(super) first_byte: Option<Now>,
    pub(super) bytes: u64,
    pub(super) pages: u64,
    pub(super) bad: u64,
    /// Times that an open-ended fetch was begun again without a page in between.
    pub(super) again: u32,
    pub(super) reported: bool,
    /// The tracker was told that it drips, and that there is nobody else to turn to.
    pub(super) warned: bool,
}

impl Assigned {
    pub(super) fn key(&self, order: Order) -> (Need, Now, Order) {
        (self.need, self.deadline.unwrap_or(Now(u64::MAX)), order)
    }

    /// Whether the tracker orders its pages anew where it goes back.
    pub(super) fn may_go_back(&self) -> bool {
        matches!(self.need, Need::Urgent | Need::Bulk | Need::Spare)
    }

    /// What its pages are acknowledged with: those of a reserve are from elsewhere.
    pub(super) fn credited(&self) -> Number {
        if self.need == Need::Reserve { (0, 0) } else { self.number }
    }

    /// Pages that may still come, at most; none are counted of a set without end.
    pub(super) fn left(&self) -> u64 {
        self.set.last.map_or(0, |last| (last + 1).saturating_sub(self.low))
    }

    /// Sources that are being used.
    pub(super) fn active(&self) -> usize {
        self.tries.iter().filter(|t| t.failed.is_none()).count()
    }

    pub(super) fn running(&self) -> usize {
        self.tries.iter().map(|t| t.fetches).sum()
    }
}

impl Engine {
    pub(super) fn assign(&mut self, now: Now, m: Assign) {
        // Before the welcome it is not known whose numbers they are.
        let (Link::Welcome, Some(epoch)) = (self.session.link, self.session.epoch) else { return };
        for shortage in m.shortages.unwrap_or_default() {
            if let Some(handle) = self.ids.get(&shortage.media).copied() {
                self.actions.push_back(Action::Short { handle, shortage });
            }
        }
        for a in m.assignments {
            let Some(handle) = self.ids.get(&a.media).copied() else { continue };
            let Some(media) = self.media.get_mut(&handle) else { continue };
            if self.numbers.contains_key(&(epoch, a.id)) {
                continue;
            }
            if media.accepts() {
                self.take_up(now, handle, Parked { at: now, epoch, assignment: a });
            } else if media.parked.len() < PARKED {
                if media.parked.iter().all(|p| (p.epoch, p.assignment.id) != (epoch, a.id)) {
                    media.parked.push(Parked { at: now, epoch, assignment: a });
                }
            } else {
                self.give_back(epoch, &a);
            }
        }
    }

    /// Takes up an assignment of an accepted media.
    pub(super) fn take_up(&mut self, now: Now, handle: Handle, parked: Parked) {
        let Parked { at, epoch, assignment: a } = parked;
        let number = (epoch, a.id);
        let Some(pages) = self.media.get(&handle).and_then(|m| m.pages.as_ref()) else { return };
        if self.numbers.contains_key(&number) {
            return;
        }
        let last = match (a.pages.last, pages.last()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let set = PageSet { last, ..a.pages };
        let empty = last.is_some_and(|l| l < set.first) || set.next_from(0).is_none();
        if empty || a.id == 0 || a.stand_ins.len() > limits::STAND_INS || self.assigned.len() >= ASSIGNED {
            return self.give_back(epoch, &a);
        }
        if self.session.epoch == Some(epoch) && a.need != Need::Reserve {
            self.supersede(now, handle, &set, epoch);
        }
        let order = Order(self.next_order);
        self.next_order += 1;
        let lapse = Duration::from_millis(u64::from(a.lapse)).clamp(LAPSE.0, LAPSE.1);
        let patience = a.deadline.filter(|_| last.is_none()).map(|ms| Duration::from_millis(u64::from(ms)));
        let deadline = a.deadline.filter(|_| last.is_some());
        let deadline = deadline.map(|ms| at + Duration::from_millis(u64::from(ms)));
        let assigned = Assigned {
            number,
            handle,
            set,
            need: a.need,
            deadline,
            patience,
            lapse,
            moved: now,
            sources: std::iter::once(a.source).chain(a.stand_ins).collect(),
            tries: Vec::new(),
            low: set.first,
            overdue: false,
        };
        self.timers.set(Timer::Lapse(order), now + lapse);
        if let Some(deadline) = deadline.filter(|_| a.need == Need::Urgent) {
            self.timers.set(Timer::Deadline(order), deadline);
        }
        self.numbers.insert(number, order);
        self.queue.insert(assigned.key(order));
        self.assigned.insert(order, assigned);
        self.renews(now, order);
        self.stirred = true;
    }

    /// Older epochs' assignments that have not started give way to a new tracker's.
    fn supersede(&mut self, now: Now, handle: Handle, set: &PageSet, epoch: u64) {
        let old = |a: &Assigned| {
            a.handle == handle && a.number.0 != epoch && a.running() == 0 && may_meet(&a.set, set)
        };
        let old: Vec<_> = self.assigned.iter().filter(|(_, a)| old(a)).map(|(o, _)| *o).collect();
        for order in old {
            self.finish(now, order, Outcome::Stopped);
        }
    }

    /// Tells the tracker that an assignment will not be taken up.
    fn give_back(&mut self, epoch: u64, a: &Assignment) {
        if a.need == Need::Reserve {
            return;
        }
        let report = Report {
            media: a.media,
            assignment: a.id,
            host: a.source.host.key,
            protocol: a.source.host.protocol.clone(),
            outcome: Outcome::Stopped,
            bytes: 0,
            pages: 0,
            bad: 0,
            first_byte: None,
            total: 0,
            last: true,
        };
        self.report(epoch, report);
    }

    pub(super) fn cancel(&mut self, now: Now, m: &Cancel) {
        let Some(epoch) = self.session.epoch else { return };
        for id in &m.assignments {
            if let Some(order) = self.numbers.get(&(epoch, *id)).copied() {
                self.finish(now, order, Outcome::Stopped);
                continue;
            }
            let parked = self.media.values_mut().find_map(|m| {
                let i = m.parked.iter().position(|p| (p.epoch, p.assignment.id) == (epoch, *id))?;
                Some(m.parked.remove(i).assignment)
            });
            if let Some(a) = parked {
                self.give_back(epoch, &a);
            }
        }
    }

    /// The tracker's numbers of a media's assignments, for a join.
    pub(super) fn running(&self, handle: Handle) -> Vec<u64> {
        let ordered = |a: &Assigned| a.need != Need::Reserve && Some(a.number.0) == self.session.epoch;
        let mine = |a: &&Assigned| a.handle == handle && ordered(a);
        self.assigned.values().filter(mine).map(|a| a.number.1).take(limits::ITEMS).collect()
    }

    /// Ends all assignments of a media.
    pub(super) fn end_all(&mut self, now: Now, handle: Handle) {
        let mine: Vec<_> =
            self.assigned.iter().filter(|(_, a)| a.handle == handle).map(|(o, _)| *o).collect();
        for order in mine {
            self.finish(now, order, Outcome::Stopped);
        }
        self.gone.retain(|_, g| g.handle != handle);
        if let Some(m) = self.media.get_mut(&handle) {
            m.parked.clear();
            m.reserve = Held::default();
        }
    }

    pub(super) fn lapse(&mut self, now: Now, order: Order) {
        let Some(a) = self.assigned.get(&order) else { return };
        // One that waits behind others of the same host is not idle while those move.
        let way = a.sources.get(a.tries.len().saturating_sub(1)).map(ways::way);
        let same = self.fetches.values().filter(|f| Some(&f.way) == way.as_ref()).map(|f| f.moved).max();
        let due = a.moved.max(same.unwrap_or(a.moved)) + a.lapse;
        // While the tracker is away nobody would order the pages anew; and what others bring may still come.
        let waits = a.running() == 0 && (self.session.link != Link::Welcome || self.is_covered(order));
        if due > now || waits {
            let again = if waits { now + a.lapse } else { due };
            self.timers.set(Timer::Lapse(order), again);
        } else {
            let outcome = if a.running() > 0 { Outcome::Stalled } else { Outcome::Stopped };
            self.finish(now, order, outcome);
        }
    }

    /// Urgent pages are not there in time: whoever was to bring them is not waited for alone any longer.
    pub(super) fn deadline(&mut self, now: Now, order: Order) {
        let Some(a) = self.assigned.get_mut(&order) else { return };
        a.overdue = true;
        let (handle, set, low) = (a.handle, a.set, a.low);
        let Some(pages) = self.media.get(&handle).and_then(|m| m.pages.as_ref()) else { return };
        if pages.next_missing(&set, low).is_none() {
            return;
        }
        let missing = PageSet { first: low, ..set };
        for f in self.fetches.values_mut().filter(|f| f.handle == handle && may_meet(&f.set, &missing)) {
            f.late = true;
        }
        if self.assigned.get(&order).is_some_and(|a| a.running() > 0 && a.active() == 1) {
            self.begin_try(now, order);
        }
        self.wake(handle, None);
    }

    /// The tracker is back: what waited for it, or for its turn, has all its time again.
    pub(super) fn after_silence(&mut self, now: Now) {
        for (order, a) in self.assigned.iter_mut().filter(|(_, a)| a.running() == 0) {
            a.moved = now;
            self.timers.set(Timer::Lapse(*order), now + a.lapse);
        }
    }

    /// Looks at a media's assignments (in `set`) again: what others were to bring may have come, or not.
    pub(super) fn wake(&mut self, handle: Handle, set: Option<&PageSet>) {
        for (order, a) in &self.assigned {
            if a.handle == handle && set.is_none_or(|s| may_meet(&a.set, s)) {
                self.queue.insert(a.key(*order));
                self.stirred = true;
            }
        }
    }

    /// Pages (in order) were lost: what was complete may not be.
    pub(super) fn rewind(&mut self, handle: Handle, lost: &[PageNo]) {
        for a in self.assigned.values_mut().filter(|a| a.handle == handle) {
            a.low = a.set.first;
        }
        for f in self.fetches.values_mut().filter(|f| f.handle == handle) {
            f.unheard.retain(|p| lost.binary_search(p).is_err());
        }
    }

    /// Ends an assignment. `outcome` is that of the sources still in use: [`Outcome::Done`] if all pages are there.
    pub(super) fn finish(&mut self, now: Now, order: Order, outcome: Outcome) {
        self.stop_fetches(order);
        let Some(mut a) = self.assigned.remove(&order) else { return };
        self.numbers.remove(&a.number);
        self.queue.remove(&a.key(order));
        self.timers.cancel(Timer::Lapse(order));
        self.timers.cancel(Timer::Deadline(order));
        self.flush_acks(a.handle);
        if a.tries.is_empty() {
            a.tries.push(Try::default());
        }
        let open: Vec<_> = (0..a.tries.len()).filter(|i| !a.tries[*i].reported).collect();
        for i in &open {
            let t = &a.tries[*i];
            let done = t.started.is_some() && !t.stopped;
            let asked = t.started.is_some() || outcome != Outcome::Stalled;
            let plain = if outcome == Outcome::Done && !done || !asked { Outcome::Stopped } else { outcome };
            self.report_try(now, &a, *i, t.failed.unwrap_or(plain), Some(i) == open.last());
        }
        self.wake(a.handle, Some(&a.set));
    }

    /// Reports sources that failed while others go on.
    pub(super) fn report_failed(&mut self, now: Now, order: Order) {
        let Some(mut a) = self.assigned.remove(&order) else { return };
        for i in 0..a.tries.len() {
            let t = &mut a.tries[i];
            if let Some(outcome) = t.failed
                && t.fetches == 0
                && !t.reported
            {
                t.reported = true;
                self.flush_acks(a.handle);
                self.report_try(now, &a, i, outcome, false);
            }
        }
        self.assigned.insert(order, a);
    }

    /// Tells the tracker that the only source that is left drips: perhaps it knows another one.
    pub(super) fn warn(&mut self, now: Now, order: Order, source: usize) {
        let Some(mut a) = self.assigned.remove(&order) else { return };
        if let Some(t) = a.tries.get_mut(source) {
            t.warned = true;
            self.flush_acks(a.handle);
            self.report_try(now, &a, source, Outcome::Stalled, false);
        }
        self.assigned.insert(order, a);
    }

    fn report_try(&mut self, now: Now, a: &Assigned, i: usize, outcome: Outcome, last: bool) {
        let (Some(t), Some(source)) = (a.tries.get(i), a.sources.get(i)) else { return };
        let Some(media) = self.media.get(&a.handle).and_then(|m| m.id) else { return };
        if a.need == Need::Reserve {
            return;
        }
        let report = Report {
            media,
            assignment: a.number.1,
            host: source.host.key,
            protocol: source.host.protocol.clone(),
            outcome,
            bytes: t.bytes,
            pages: t.pages,
            bad: t.bad,
            first_byte: t.started.zip(t.first_byte).map(|(s, f)| millis(f.since(s))),
            total: t.started.map_or(0, |s| millis(now.since(s))),
            last,
        };
        self.report(a.number.0, report);
    }

    /// Drops the fetches of an assignment.
    fn stop_fetches(&mut self, order: Order) {
        let mine: Vec<_> = self.fetches.iter().filter(|(_, f)| f.order == order).map(|(id, _)| *id).collect();
        for id in mine {
            self.drop_fetch(id);
        }
    }

    /// Stops a fetch; a page that is stored all the same is credited to its host.
    pub(super) fn drop_fetch(&mut self, id: FetchId) {
        let Some(f) = self.fetches.remove(&id) else { return };
        self.ways.end(&f.way);
        self.timers.cancel(Timer::Stall(id));
        self.stirred = true;
        if let Some(a) = self.assigned.get_mut(&f.order) {
            let number = a.credited();
            self.gone.insert(id, Gone { handle: f.handle, number });
            if let Some(t) = a.tries.get_mut(f.source) {
                t.fetches = t.fetches.saturating_sub(1);
                t.stopped = true;
            }
        }
        if self.gone.len() > GONE {
            self.gone.pop_first();
        }
        self.actions.push_back(Action::Stop { fetch: id });
        self.wake(f.handle, Some(&f.set));
    }
}
