//! Fetches: which one to start next, what becomes of it, and who stands in.

use std::collections::BTreeMap;
use std::time::Duration;

use icet::message::{Need, Outcome, Source};
use icet::{Now, PageNo, PageSet, PeerKey};

use super::Engine;
use super::acks::Number;
use super::assignments::{Assigned, Order, Try};
use super::io::{Action, FetchEvent, FetchId, Handle};
use super::timers::Timer;
use super::ways::{self, Standing, Way};

/// Stopped fetches that are remembered.
pub(super) const GONE: usize = 256;
/// A host that sent an altered page is not used again for so long.
const BANNED: Duration = Duration::from_secs(600);
/// Hosts that are remembered in either way.
pub(super) const HOSTS: usize = 1024;
/// Times that an open-ended fetch is begun again at one source without a page in between.
const AGAIN: u32 = 3;
/// An urgent page that a slower fetch will reach only after so many others is fetched by itself.
const NEAR: u64 = 16;
/// Pages that a fetch may report as held already, which the engine had not heard of.
const UNHEARD: usize = 64;

/// One try at one host, under way.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) order: Order,
    /// Index of the source.
    pub(super) source: usize,
    pub(super) handle: Handle,
    pub(super) host: PeerKey,
    pub(super) way: Way,
    pub(super) need: Need,
    pub(super) set: PageSet,
    /// All pages of the set before this one are held.
    pub(super) low: PageNo,
    pub(super) began: Now,
    /// When something last came.
    pub(super) moved: Now,
    /// When something came that was more than a drip.
    pub(super) spoke: Now,
    /// New pages that it brought.
    pub(super) brought: u64,
    /// Others may fetch its pages, too.
    pub(super) late: bool,
    /// Since when a stand-in of its order brings something.
    pub(super) outrun: Option<Now>,
    /// Pages that it found held, but the engine does not know.
    pub(super) unheard: Vec<PageNo>,
}

/// A fetch that was stopped.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) handle: Handle,
    pub(super) number: Number,
}

/// Whether a fetch may start.
enum Room {
    Yes,
    /// The host is busy with us.
    NotThere,
    Nowhere,
}

impl Engine {
    /// Starts what can be started. To be called after every input.
    pub(super) fn pump(&mut self, now: Now) {
        while std::mem::take(&mut self.stirred) {
            let mut at = None;
            loop {
                let next = match at {
                    None => self.queue.first(),
                    Some(key) => {
                        self.queue.range((std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded)).next()
                    }
                };
                let Some(key) = next.copied() else { break };
                at = Some(key);
                if matches!(self.room(now, key.0, None), Room::Nowhere) {
                    break;
                }
                self.advance(now, key.2);
            }
        }
    }

    fn room(&self, now: Now, need: Need, source: Option<&Source>) -> Room {
        // Urgent work finds a slot even when slow work has taken all.
        let (more, more_there) =
            if need == Need::Urgent { ((self.config.fetches / 4).max(1), 1) } else { (0, 0) };
        if self.fetches.len() >= self.config.fetches.max(1) + more {
            return Room::Nowhere;
        }
        let Some(source) = source else { return Room::Yes };
        let there = || self.fetches.values().filter(|f| f.host == source.host.key);
        let mut full = there().count() >= self.config.per_host.max(1) + more_there;
        if need != Need::Urgent && self.config.connects_each.contains(&source.host.protocol) {
            let way = ways::way(source);
            let most = self.ways.lanes(now, &way, self.config.per_host);
            full |= there().filter(|f| f.way == way).count() >= most;
        }
        if full { Room::NotThere } else { Room::Yes }
    }

    /// Sets of the media's fetches whose pages a try need not ask for. A tracker that orders pages which it knows to be
    /// under way means it: somebody is to help. What another epoch's tracker ordered it does not know of.
    fn busy(&self, order: Order, source: usize, handle: Handle, need: Need) -> Vec<PageSet> {
        let epoch = |order| self.assigned.get(order).map(|a| a.number.0);
        let mut busy = Vec::new();
        for f in self.fetches.values().filter(|f| f.handle == handle) {
            let own = f.order == order && f.source == source;
            let helped = need != Need::Reserve && f.order < order && epoch(&f.order) == epoch(&order);
            if (f.late || helped) && !own {
                continue;
            }
            let mut set = PageSet { first: f.low, ..f.set };
            if !own && need == Need::Urgent && f.need != Need::Urgent {
                let reach = f.low.saturating_add(NEAR);
                set.last = Some(set.last.map_or(reach, |l| l.min(reach)));
            }
            busy.push(set);
        }
        busy
    }

    /// Whether all that an assignment lacks is being brought by somebody.
    pub(super) fn is_covered(&self, order: Order) -> bool {
        let Some(a) = self.assigned.get(&order) else { return false };
        let Some(pages) = self.media.get(&a.handle).and_then(|m| m.pages.as_ref()) else { return false };
        let busy = self.busy(order, usize::MAX, a.handle, a.need);
        !busy.is_empty() && pages.next_run(&a.set, a.low, &busy, 0).is_none()
    }

    /// Starts what an assignment still needs, or ends it. It leaves the queue unless it waits for room.
    fn advance(&mut self, now: Now, order: Order) {
        loop {
            let Some(a) = self.assigned.get_mut(&order) else { return };
            let key = a.key(order);
            let Some(m) = self.media.get(&a.handle) else { return };
            let Some(pages) = &m.pages else { return };
            match pages.next_missing(&a.set, a.low) {
                Some(low) => a.low = low,
                None if a.running() == 0 => return self.finish(now, order, Outcome::Done),
                None => {
                    self.queue.remove(&key);
                    return;
                }
            }
            if self.passes_by(now, order) {
                continue;
            }
            let Some(a) = self.assigned.get(&order) else { return };
            if a.active() == 0 && !self.begin_try(now, order) {
                let Some(a) = self.assigned.get(&order) else { return };
                if a.running() == 0 {
                    return self.finish(now, order, Outcome::Stopped);
                }
                self.queue.remove(&key);
                return;
            }
            let Some(a) = self.assigned.get(&order) else { return };
            let Some(m) = self.media.get(&a.handle) else { return };
            let Some(pages) = &m.pages else { return };
            let (mut blocked, mut start) = (false, None);
            // A stand-in that helps goes first: whom it helps is late.
            let active = a.tries.iter().enumerate().rev().filter(|(_, t)| t.failed.is_none());
            for (source, _) in active {
                let busy = self.busy(order, source, a.handle, a.need);
                // A ticket is good for one request at a time over each protocol; what is left is asked for after it.
                if a.tries.get(source).is_some_and(|t| t.fetches > 0) {
                    continue;
                }
                let run = if a.need == Need::Reserve {
                    m.run_in_reserve(now, a.number.1, &a.set, a.low, &busy)
                } else {
                    pages.next_run(&a.set, a.low, &busy, m.bridge)
                };
                let Some(run) = run else { continue };
                match self.room(now, a.need, a.sources.get(source)) {
                    Room::Yes => {
                        start = Some((source, run));
                        break;
                    }
                    Room::NotThere | Room::Nowhere => blocked = true,
                }
            }
            match start {
                Some((source, run)) => self.start(now, order, source, run),
                None => {
                    if !blocked {
                        self.queue.remove(&key);
                    }
                    return;
                }
            }
        }
    }

    /// How the best source of an assignment stands that was not turned to yet; none: there is none.
    pub(super) fn best_left(
        &self,
        now: Now,
        a: &Assigned,
        fits: impl Fn(&Source) -> bool,
    ) -> Option<Standing> {
        let banned = |s: &Source| self.banned.get(&s.host.key).is_some_and(|t| *t > now);
        let left = a.sources.iter().skip(a.tries.len()).filter(|s| !banned(s) && fits(s));
        left.map(|s| self.ways.standing(now, s)).min()
    }

    /// Leaves a source that was turned to before something became known against it, if nothing is asked of it and there is a
    /// better one.
    fn passes_by(&mut self, now: Now, order: Order) -> bool {
        let Some(a) = self.assigned.get(&order) else { return false };
        let mut active = a.tries.iter().enumerate().filter(|(_, t)| t.failed.is_none());
        let (Some((i, t)), None) = (active.next(), active.next()) else { return false };
        let stands = a.sources.get(i).map_or(Standing::Good, |s| self.ways.standing(now, s));
        if t.fetches > 0
            || stands == Standing::Good
            || self.best_left(now, a, |_| true).is_none_or(|b| b >= stands)
        {
            return false;
        }
        let t = self.assigned.get_mut(&order).and_then(|a| a.tries.get_mut(i));
        t.into_iter().for_each(|t| t.failed = Some(Outcome::Unreachable));
        true
    }

    /// Turns to the next source that is not known to be bad; if something is known against all that are left, to the first of
    /// those of which the least is, or to nobody, see [`Engine::gives_back`]. False: there is none.
    pub(super) fn begin_try(&mut self, now: Now, order: Order) -> bool {
        let best = self.assigned.get(&order).and_then(|a| self.best_left(now, a, |_| true));
        let gives_back = best.is_some_and(|best| best != Standing::Good) && self.gives_back(now, order);
        let Some(best) = best.filter(|_| !gives_back) else {
            let a = self.assigned.get_mut(&order);
            let failed = Some(if gives_back { Outcome::Stopped } else { Outcome::Altered });
            a.into_iter().for_each(|a| {
                let passed = || Try { failed, reported: gives_back, ..Try::default() };
                a.tries.resize_with(a.sources.len(), passed);
            });
            return false;
        };
        let mut found = false;
        while !found {
            let Some(a) = self.assigned.get_mut(&order) else { return false };
            let Some(source) = a.sources.get(a.tries.len()) else { break };
            let failed = if self.banned.get(&source.host.key).is_some_and(|t| *t > now) {
                Some(Outcome::Altered)
            } else {
                (self.ways.standing(now, source) > best).then_some(Outcome::Unreachable)
            };
            found = failed.is_none();
            a.tries.push(Try { failed, ..Try::default() });
        }
        if found {
            self.report_failed(now, order);
        }
        found
    }

    /// Whether an order that failed at somebody goes back to the tracker, rather than to one who will hardly do better: others bring
    /// something, and it knows them; or may know some.
    fn gives_back(&self, now: Now, order: Order) -> bool {
        let failed = |a: &Assigned| a.tries.iter().any(|t| t.failed.is_some_and(|f| f != Outcome::Altered));
        let may = |a: &&Assigned| a.may_go_back() && failed(a);
        let named = |a: &Assigned, host: &PeerKey| a.sources.iter().any(|s| s.host.key == *host);
        let others = |a: &&Assigned| self.ways.others_bring(now, |host| named(a, host));
        // Two hosts failed it, and of whoever is left something is known, too: whom to ask now the tracker knows best.
        let failed = |a: &Assigned| {
            let tried =
                a.sources.iter().zip(&a.tries).filter(|(_, t)| t.started.is_some() && t.failed.is_some());
            let hosts: std::collections::BTreeSet<_> = tried.map(|(s, _)| s.host.key).collect();
            hosts.len() >= 2
        };
        let goes = |a: &Assigned| may(&a) && (others(&a) || failed(a));
        self.session.is_up() && self.assigned.get(&order).is_some_and(goes)
    }

    fn start(&mut self, now: Now, order: Order, source: usize, pages: PageSet) {
        let Some(a) = self.assigned.get_mut(&order) else { return };
        let (Some(from), Some(t)) = (a.sources.get(source), a.tries.get_mut(source)) else { return };
        t.started.get_or_insert(now);
        t.fetches += 1;
        let fetch = FetchId(self.next_fetch);
        self.next_fetch += 1;
        let f = Fetch {
            order,
            source,
            handle: a.handle,
            host: from.host.key,
            way: ways::way(from),
            need: a.need,
            set: pages,
            low: pages.first,
            began: now,
            moved: now,
            spoke: now,
            brought: 0,
            late: false,
            outrun: None,
            unheard: Vec::new(),
        };
        a.moved = now;
        let (handle, need, assignment) = (a.handle, a.need, a.number.1);
        let source: Source = from.clone();
        self.fetches.insert(fetch, f);
        self.ways.begin(now, &source);
        let look = self.stalls(now, order, &source, (now, now)).0;
        let first = now + self.config.silence / 2;
        let look = if self.ways.knows(&source.host.key) { look } else { look.min(first) };
        self.timers.set(Timer::Stall(fetch), look);
        self.actions.push_back(Action::Start { fetch, handle, pages, source, need, assignment });
    }

    pub(super) fn fetch_event(&mut self, now: Now, id: FetchId, e: FetchEvent) {
        let Some(f) = self.fetches.get_mut(&id) else {
            if let (Some(gone), FetchEvent::Page { page, len }) = (self.gone.get(&id), e) {
                let (handle, number) = (gone.handle, gone.number);
                self.page(now, handle, number, page, len, None);
            }
            return;
        };
        f.moved = now;
        let (order, handle, source) = (f.order, f.handle, f.source);
        let speaks = match e {
            FetchEvent::Ended(_) => true,
            FetchEvent::FirstByte if f.need != Need::Steady => self.ways.came(now, &f.way, 0),
            FetchEvent::Progress { bytes } if f.need != Need::Steady => self.ways.came(now, &f.way, bytes),
            FetchEvent::Page { len, .. } if f.need != Need::Steady => {
                self.ways.came(now, &f.way, u64::from(len))
            }
            // Live pages come at the pace of their source.
            _ => {
                self.ways.heard(now, &f.way);
                true
            }
        };
        // While there is nobody else to ask, a drip is better than nothing.
        let mut moves = speaks;
        if speaks {
            f.spoke = now;
        } else {
            let look = self.fetches.get(&id).and_then(|f| self.stalls_at(now, f));
            look.into_iter().for_each(|(look, _)| self.timers.set_sooner(Timer::Stall(id), look));
            moves = !self.may_turn(now, order, source);
        }
        let Some(f) = self.fetches.get_mut(&id) else { return };
        let Some(a) = self.assigned.get_mut(&order) else { return };
        if moves {
            a.moved = now;
        }
        let Some(t) = a.tries.get_mut(source) else { return };
        match e {
            FetchEvent::Progress { .. } => {
                let number = a.credited();
                // Of drips the tracker hears nothing: it may know somebody else, where we do not.
                if speaks {
                    self.coming(now, handle, number);
                }
            }
            FetchEvent::FirstByte => {
                t.first_byte.get_or_insert(now);
            }
            FetchEvent::Page { page, len } => {
                t.first_byte.get_or_insert(now);
                t.again = 0;
                let number = a.credited();
                self.ways.page(now, &f.way, len, self.config.per_host);
                if self.page(now, handle, number, page, len, Some(id)) {
                    self.fetches.get_mut(&id).into_iter().for_each(|f| f.brought += 1);
                    self.fetched(order, source, page, len);
                }
                if self.fetches.get(&id).is_some_and(|f| f.set.last.is_none()) {
                    self.brings(now, id);
                }
            }
            FetchEvent::Duplicate { page } => {
                t.first_byte.get_or_insert(now);
                if f.unheard.len() < UNHEARD && f.set.has(page) {
                    f.unheard.push(page);
                }
                let open = f.set.last.is_none();
                if let Some(m) = self.media.get_mut(&handle) {
                    m.tally.duplicates += 1;
                }
                if open {
                    self.brings(now, id);
                }
            }
            FetchEvent::Altered => {
                t.bad += 1;
                let host = f.host;
                if let Some(m) = self.media.get_mut(&handle) {
                    m.tally.bad += 1;
                }
                self.ended(now, id, Outcome::Altered);
                self.ban(now, host);
            }
            FetchEvent::Ended(outcome) => {
                let unheard = std::mem::take(&mut f.unheard);
                // The driver holds them: what told so was lost.
                for page in unheard {
                    let pages = self.media.get_mut(&handle).and_then(|m| m.pages.as_mut());
                    if pages.is_some_and(|p| p.insert(page)) {
                        self.arrived(handle, page, Some(id));
                        self.acknowledge(now, handle, (0, 0), page, Need::Bulk);
                    }
                }
                self.ended(now, id, outcome);
            }
        }
    }

    /// A page was stored. Whether it is new to the engine.
    fn page(
        &mut self,
        now: Now,
        handle: Handle,
        number: Number,
        page: PageNo,
        len: u32,
        by: Option<FetchId>,
    ) -> bool {
        let need = by.and_then(|id| self.fetches.get(&id)).map_or(Need::Bulk, |f| f.need);
        let Some(m) = self.media.get_mut(&handle) else { return false };
        let Some(pages) = &mut m.pages else { return false };
        if !pages.insert(page) {
            m.tally.duplicates += 1;
            return false;
        }
        m.tally.pages += 1;
        m.tally.bytes += u64::from(len);
        m.tally.first_page.get_or_insert(now);
        self.arrived(handle, page, by);
        self.acknowledge(now, handle, number, page, need);
        true
    }

    /// Credits a page to its source; urgent ones that complete their assignment are acknowledged at once.
    fn fetched(&mut self, order: Order, source: usize, page: PageNo, len: u32) {
        let Some(a) = self.assigned.get_mut(&order) else { return };
        if let Some(t) = a.tries.get_mut(source) {
            t.pages += 1;
            t.bytes += u64::from(len);
        }
        let handle = a.handle;
        let Some(pages) = self.media.get(&handle).and_then(|m| m.pages.as_ref()) else { return };
        if a.set.last.is_none() {
            // What an open-ended fetch passed by is not waited for, but told: somebody else may have it.
            let passed = page > a.low && a.low > a.set.first;
            a.low = a.low.max(page.saturating_add(1));
            if passed {
                self.flush_acks(handle);
            }
        } else {
            match pages.next_missing(&a.set, a.low) {
                Some(low) => a.low = low,
                None if a.need == Need::Urgent => self.flush_acks(handle),
                None => {}
            }
        }
    }

    /// A page is held now: fetches that were to bring it too, and have nothing else to bring, are stopped.
    pub(super) fn arrived(&mut self, handle: Handle, page: PageNo, by: Option<FetchId>) {
        let Some(pages) = self.media.get(&handle).and_then(|m| m.pages.as_ref()) else { return };
        let mut useless = Vec::new();
        for (id, f) in self.fetches.iter_mut().filter(|(_, f)| f.handle == handle && f.set.has(page)) {
            if f.set.last.is_none() && by == Some(*id) {
                f.low = f.low.max(page.saturating_add(1));
            }
            match pages.next_missing(&f.set, f.low) {
                Some(low) => f.low = low,
                // Who brought it ends by itself.
                None if by == Some(*id) => {}
                None => useless.push(*id),
            }
        }
        for id in useless {
            self.drop_fetch(id);
        }
    }

    /// A fetch is over.
    pub(super) fn ended(&mut self, now: Now, id: FetchId, outcome: Outcome) {
        let Some(f) = self.fetches.remove(&id) else { return };
        self.ways.end(&f.way);
        self.timers.cancel(Timer::Stall(id));
        self.stirred = true;
        let Some(pages) = self.media.get(&f.handle).and_then(|m| m.pages.as_ref()) else { return };
        let complete = pages.next_missing(&f.set, f.low).is_none();
        let Some(a) = self.assigned.get_mut(&f.order) else { return };
        let Some(t) = a.tries.get_mut(f.source) else { return };
        t.fetches = t.fetches.saturating_sub(1);
        let outcome = match outcome {
            Outcome::Altered => Outcome::Altered,
            // A fault of ours (a full disk): nobody else would do better.
            Outcome::Stopped => return self.finish(now, f.order, Outcome::Stopped),
            _ if complete => Outcome::Done,
            Outcome::Done => Outcome::Incomplete,
            o => o,
        };
        let broke_off = matches!(outcome, Outcome::Incomplete | Outcome::Broken);
        let lacks = matches!(outcome, Outcome::Done | Outcome::Incomplete);
        if f.need == Need::Reserve && lacks {
            let number = a.number.1;
            self.answered_in_reserve(now, &f, number);
        } else if f.set.last.is_none() && broke_off && t.again < AGAIN {
            t.again += 1;
        } else if outcome != Outcome::Done {
            if t.failed.is_none() || outcome == Outcome::Altered {
                t.failed = Some(outcome);
            }
            let number = a.number.1;
            let hedge = a.overdue && a.active() == 1;
            if outcome == Outcome::Unreachable {
                self.ways.shun(now, f.way.clone());
            }
            if f.need == Need::Reserve {
                self.failed_in_reserve(now, f.handle, number);
            }
            if !broke_off && outcome != Outcome::Stalled {
                // The host's other requests will fare no better.
                let same = |o: &Fetch| o.order == f.order && o.source == f.source;
                let same: Vec<_> = self.fetches.iter().filter(|(_, o)| same(o)).map(|(id, _)| *id).collect();
                for id in same {
                    self.drop_fetch(id);
                }
            }
            if hedge {
                self.begin_try(now, f.order);
            }
        }
        if self.assigned.get(&f.order).is_some_and(|a| a.active() > 0) {
            self.report_failed(now, f.order);
        }
        self.wake(f.handle, Some(&f.set));
    }

    /// A host sent what it must not: nothing more is taken from it.
    fn ban(&mut self, now: Now, host: PeerKey) {
        remember(&mut self.banned, now, host, BANNED);
        let from: Vec<_> = self.fetches.iter().filter(|(_, f)| f.host == host).map(|(id, _)| *id).collect();
        for id in from {
            if self.fetches.contains_key(&id) {
                self.actions.push_back(Action::Stop { fetch: id });
                self.ended(now, id, Outcome::Altered);
            }
        }
    }
}

/// Notes `name` for so long, in a map that stays small.
pub(super) fn remember<K: Ord>(map: &mut BTreeMap<K, Now>, now: Now, name: K, d: Duration) {
    if map.len() >= HOSTS {
        map.retain(|_, until| *until > now);
        if map.len() >= HOSTS {
            map.pop_first();
        }
    }
    map.insert(name, now + d);
}
