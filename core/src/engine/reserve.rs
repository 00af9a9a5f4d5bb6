//! The reserve: assignments for the time when the tracker is silent. To the tracker they do not exist: nothing of them is
//! reported, and their pages are acknowledged as from elsewhere.

use std::time::Duration;

use icet::message::{Assignment, Intent, Need, Position, Reserve};
use icet::{MediaId, Now, PageNo, PageSet};

use super::Engine;
use super::assignments::Parked;
use super::io::Handle;
use super::media::{Media, Role};
use super::session::Link;
use super::timers::Timer;

/// How long after the end of a session the reserve is taken up: most sessions are back by then.
const PAUSE: Duration = Duration::from_secs(1);
/// Pages of one fetch: little enough that several hosts share the work, and that a player which moves is followed soon.
const RUN: u64 = 256;
/// Beyond so many pages from the playhead a player waits for the tracker.
const AHEAD: u64 = 2048;
/// Hosts that refused (they may not know yet that the tracker is silent) or failed are asked again after this.
const AGAIN: Duration = Duration::from_secs(2);
/// Most assignments of a media's reserve.
const MOST: usize = 8;

/// Assignments of one media, with the tracker's epoch.
#[derive(Debug, Default)]
pub(super) struct Held {
    epoch: u64,
    assignments: Vec<Assignment>,
}

impl Engine {
    pub(super) fn keep_reserve(&mut self, m: Reserve) {
        let Some(epoch) = self.session.epoch else { return };
        let mut media: Vec<MediaId> = m.assignments.iter().map(|a| a.media).collect();
        media.dedup();
        for id in media {
            let Some(m2) = self.ids.get(&id).and_then(|h| self.media.get_mut(h)) else { continue };
            let mine = m.assignments.iter().filter(|a| a.media == id).take(MOST).cloned();
            m2.reserve = Held { epoch, assignments: mine.collect() };
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
            let Some(m) = self.media.get(&handle) else { continue };
            let (epoch, all) = (m.reserve.epoch, m.reserve.assignments.clone());
            for assignment in all {
                any = true;
                if !self.numbers.contains_key(&(epoch, assignment.id)) {
                    self.take_up(now, handle, Parked { at: now, epoch, assignment });
                }
            }
        }
        if any {
            self.timers.set(Timer::Reserve, now + AGAIN);
        }
    }
}

impl Media {
    /// What a fetch of the reserve asks for: from the playhead on, and then what was passed over.
    pub(super) fn run_in_reserve(&self, set: &PageSet, low: PageNo, busy: &[PageSet]) -> Option<PageSet> {
        let end = set.last.unwrap_or(PageNo::MAX);
        let (Role::Join(wish), Some(pages)) = (&self.role, &self.pages) else { return None };
        let (intent, at) = match &self.focus {
            Some(focus) => (focus.intent, Some(&focus.at)),
            None => (wish.intent, wish.at.as_ref()),
        };
        let head = match at {
            Some(Position::Page(page)) => *page,
            _ => set.first,
        };
        let to = match intent {
            Intent::Whole => end,
            Intent::Play => end.min(head.saturating_add(AHEAD)),
            Intent::Share => return None,
        };
        let next = |from: PageNo| {
            let run = pages.next_run(set, from.max(low), busy, self.bridge)?;
            let last = run.last.unwrap_or(PageNo::MAX).min(run.first.saturating_add(RUN - 1)).min(to);
            (run.first <= last).then_some(PageSet { last: Some(last), ..run })
        };
        next(head).or_else(|| if intent == Intent::Whole { next(set.first) } else { None })
    }
}
