//! The reserve: assignments for the time when the tracker is silent. To the tracker they do not exist: nothing of them is
//! reported, and their pages are acknowledged as from elsewhere.

use std::time::Duration;

use icet::message::{Assignment, Intent, Need, Position, Reserve};
use icet::{MediaId, Now, PageNo, PageSet};

use super::Engine;
use super::assignments::Parked;
use super::fetches::Fetch;
use super::io::Handle;
use super::media::{Media, Role};
use super::session::Link;
use super::timers::Timer;

/// How long after the end of a session the reserve is taken up: most sessions are back by then.
const PAUSE: Duration = Duration::from_secs(1);
/// Pages of one request to a host that nothing is known of, and at least and at most; the most for who does not play.
const RUN: (u64, u64, u64, u64) = (16, 8, 64, 256);
/// Seconds that a request should take, by how fast the host was before.
const SPAN: f64 = 2.0;
/// Where a player's rate is not known: beyond so many pages from the playhead it waits for the tracker.
const AHEAD: u64 = 2048;
/// How far ahead a player fetches otherwise, in seconds, and at least and at most in pages.
const WINDOW: (u64, u64, u64) = (60, 512, 8192);
/// What is due in so many seconds is in danger: it is asked of the last resort in small pieces, and of others too if it is slow to come.
const DANGER: u64 = 5;
/// A fetch is slow to bring what is in danger after this.
const SLOW: Duration = Duration::from_secs(2);
/// Hosts that refused (they may not know yet that the tracker is silent) or failed are asked again after this.
const AGAIN: Duration = Duration::from_secs(2);
/// The same of one that had nothing of what it was asked for, at first, and at most: it doubles each time. One that had some rests
/// for the first of them.
const EMPTY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// What a host lacked is not asked of it for so long, and stretches of that are remembered of a host.
const LACKS: (Duration, usize) = (Duration::from_secs(4), 8);
/// How often it is looked what is in danger.
const LOOK: Duration = Duration::from_millis(500);
/// Most assignments of a media's reserve.
const MOST: usize = 8;

/// Assignments of one media, with the tracker's epoch.
#[derive(Debug, Default)]
pub(super) struct Held {
    epoch: u64,
    assignments: Vec<Assignment>,
    /// What was found of the host of each of them.
    seen: Vec<Seen>,
}

/// What was found of a host.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// It is asked for nothing before this.
    rests: Now,
    /// How often in a row it had nothing.
    empty: u32,
    /// Pages a second of its answers.
    rate: Option<f64>,
    /// Stretches that it lacked, first and last page, until when that is believed.
    lacks: Vec<(PageNo, PageNo, Now)>,
}

impl Held {
    fn find(&self, id: u64) -> Option<usize> {
        self.assignments.iter().position(|a| a.id == id)
    }

    /// Whether it is the last of several: the last resort.
    fn is_last(&self, i: usize) -> bool {
        i > 0 && i + 1 == self.assignments.len()
    }
}

impl Engine {
    pub(super) fn keep_reserve(&mut self, m: Reserve) {
        let Some(epoch) = self.session.epoch else { return };
        let mut media: Vec<MediaId> = m.assignments.iter().map(|a| a.media).collect();
        media.dedup();
        for id in media {
            let Some(m2) = self.ids.get(&id).and_then(|h| self.media.get_mut(h)) else { continue };
            let mine: Vec<_> = m.assignments.iter().filter(|a| a.media == id).take(MOST).cloned().collect();
            m2.reserve = Held { epoch, seen: vec![Seen::default(); mine.len()], assignments: mine };
        }
    }

    /// Whether nothing is to be expected of the tracker just now.
    pub(super) fn is_silent(&self) -> bool {
        self.in_doubt || self.session.link != Link::Welcome
    }

    /// The driver doubts, or does so no more, that the session still passes.
    pub(super) fn doubt(&mut self, now: Now, doubt: bool) {
        self.in_doubt = doubt;
        if doubt {
            self.timers.set(Timer::Reserve, now);
        } else if self.session.link == Link::Welcome {
            self.end_reserve(now);
            self.begin_anew(now);
        }
    }

    /// The session is gone.
    pub(super) fn expect_silence(&mut self, now: Now) {
        self.in_doubt = false;
        if self.media.values().any(|m| !m.reserve.assignments.is_empty()) {
            self.timers.set_sooner(Timer::Reserve, now + PAUSE);
        }
    }

    /// The tracker is there again: its orders count, and nothing else.
    pub(super) fn end_reserve(&mut self, now: Now) {
        self.in_doubt = false;
        self.timers.cancel(Timer::Reserve);
        let of_reserve = self.assigned.iter().filter(|(_, a)| a.need == Need::Reserve);
        for order in of_reserve.map(|(o, _)| *o).collect::<Vec<_>>() {
            self.finish(now, order, icet::message::Outcome::Stopped);
        }
    }

    /// Takes up what is in reserve and does not run.
    pub(super) fn use_reserve(&mut self, now: Now) {
        if !self.is_silent() {
            return;
        }
        let lacking = |m: &&Handle| {
            let pages = self.media.get(m).filter(|m| m.accepts()).and_then(|m| m.pages.as_ref());
            pages.is_some_and(|p| p.first_missing(0).is_some())
        };
        let handles: Vec<Handle> = self.media.keys().filter(lacking).copied().collect();
        let mut any = false;
        for handle in handles {
            self.endangered(now, handle);
            let Some(m) = self.media.get(&handle) else { continue };
            let rested = |(a, s): &(&Assignment, &Seen)| (s.rests <= now).then(|| Assignment::clone(a));
            let all = m.reserve.assignments.iter().zip(&m.reserve.seen);
            let (epoch, all) = (m.reserve.epoch, all.filter_map(|x| rested(&x)).collect::<Vec<_>>());
            any |= !m.reserve.assignments.is_empty();
            for assignment in all {
                match self.numbers.get(&(epoch, assignment.id)) {
                    None => self.take_up(now, handle, Parked { at: now, epoch, assignment }),
                    Some(order) => {
                        let keys = self.assigned.get(order).map(|a| a.key(*order));
                        self.queue.extend(keys);
                        self.stirred = true;
                    }
                }
            }
        }
        if any {
            self.timers.set(Timer::Reserve, now + LOOK);
        }
    }

    /// What a player needs soon and somebody is slow to bring may come from others, too.
    fn endangered(&mut self, now: Now, handle: Handle) {
        let Some(m) = self.media.get(&handle) else { return };
        let Some((head, soon)) = m.in_danger() else { return };
        for f in self.fetches.values_mut().filter(|f| f.handle == handle) {
            f.late |= (head..=soon).contains(&f.low) && now.since(f.began) > SLOW;
        }
    }

    /// A request to a host of the reserve was answered, as far as the host could.
    pub(super) fn answered_in_reserve(&mut self, now: Now, f: &Fetch, number: u64) {
        let Some(m) = self.media.get_mut(&f.handle) else { return };
        let Some(pages) = &m.pages else { return };
        let (first, end) = (pages.next_missing(&f.set, f.low), f.set.last.unwrap_or(f.set.first));
        let ends = pages.has(end);
        let Some(seen) = m.reserve.find(number).and_then(|i| m.reserve.seen.get_mut(i)) else { return };
        if f.brought > 0 {
            let rate = f.brought as f64 / now.since(f.began).as_secs_f64().max(0.01);
            seen.rate = Some(seen.rate.map_or(rate, |r| (r + rate) / 2.0));
        }
        let Some(first) = first else { return seen.empty = 0 };
        seen.lacks.retain(|(_, _, until)| *until > now);
        if seen.lacks.len() >= LACKS.1 {
            seen.lacks.remove(0);
        }
        seen.lacks.push((first, end, now + LACKS.0));
        if f.brought == 0 {
            seen.rests = now + (EMPTY.0 * 2u32.pow(seen.empty.min(8))).min(EMPTY.1);
            seen.empty += 1;
        } else {
            seen.empty = 0;
            // It will have more when it has gone on.
            seen.rests = if ends { now } else { now + EMPTY.0 };
        }
    }

    /// A host of the reserve refused, or failed.
    pub(super) fn failed_in_reserve(&mut self, now: Now, handle: Handle, number: u64) {
        let Some(m) = self.media.get_mut(&handle) else { return };
        let seen = m.reserve.find(number).and_then(|i| m.reserve.seen.get_mut(i));
        seen.into_iter().for_each(|s| s.rests = now + AGAIN);
    }
}

impl Media {
    /// Where the member wants to be served, and what for.
    fn wish(&self) -> Option<(Intent, Option<PageNo>)> {
        let Role::Join(wish) = &self.role else { return None };
        let (intent, at) = match &self.focus {
            Some(focus) => (focus.intent, Some(&focus.at)),
            None => (wish.intent, wish.at.as_ref()),
        };
        let head = if let Some(Position::Page(page)) = at { Some(*page) } else { None };
        Some((intent, head))
    }

    /// Pages that a player eats in so many seconds, if that can be told.
    fn pages_of(&self, seconds: u64) -> Option<u64> {
        let rate = self.focus.as_ref()?.rate.filter(|r| *r > 0)?;
        (self.mean > 0).then(|| rate.saturating_mul(seconds) / self.mean)
    }

    /// Of a player: its playhead, and the last page that it needs soon.
    fn in_danger(&self) -> Option<(PageNo, PageNo)> {
        let (Intent::Play, Some(head)) = self.wish()? else { return None };
        Some((head, head.saturating_add(self.pages_of(DANGER).unwrap_or(RUN.2))))
    }

    /// What a request to a host of the reserve asks for: from the playhead on, and then what was passed over.
    pub(super) fn run_in_reserve(
        &self,
        now: Now,
        number: u64,
        set: &PageSet,
        low: PageNo,
        busy: &[PageSet],
    ) -> Option<PageSet> {
        let end = set.last.unwrap_or(PageNo::MAX);
        let pages = self.pages.as_ref()?;
        let i = self.reserve.find(number)?;
        let seen = self.reserve.seen.get(i).filter(|s| s.rests <= now)?;
        let (intent, head) = self.wish()?;
        let head = head.unwrap_or(set.first);
        let soon = self.in_danger().map(|(_, soon)| soon);
        let to = match intent {
            Intent::Whole => end,
            Intent::Play if self.reserve.is_last(i) => end.min(soon.unwrap_or(end)),
            Intent::Play => {
                let ahead = self.pages_of(WINDOW.0).map_or(AHEAD, |n| n.clamp(WINDOW.1, WINDOW.2));
                end.min(head.saturating_add(ahead))
            }
            Intent::Share => return None,
        };
        let lacks = seen.lacks.iter().filter(|(_, _, until)| *until > now);
        let busy: Vec<_> =
            lacks.map(|(a, b, _)| PageSet::range(*a, *b)).chain(busy.iter().copied()).collect();
        // In range: clamped.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let usual = seen.rate.map_or(RUN.0, |r| (r * SPAN) as u64);
        let next = |from: PageNo| {
            let run = pages.next_run(set, from.max(low), &busy, self.bridge)?;
            let most = match soon {
                _ if intent == Intent::Whole => usual.clamp(RUN.1, RUN.3),
                Some(soon) if run.first <= soon => usual.clamp(RUN.1, RUN.0),
                _ => usual.clamp(RUN.1, RUN.2),
            };
            let last = run.last.unwrap_or(PageNo::MAX).min(run.first.saturating_add(most - 1)).min(to);
            (run.first <= last).then_some(PageSet { last: Some(last), ..run })
        };
        next(head).or_else(|| if intent == Intent::Whole { next(set.first) } else { None })
    }
}
