//! The session with the tracker: connecting and reconnecting, the first flight, requests and their answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use icet::message::{
    Audience, Guidance, InfoAnswer, InfoRequest, Locate, Position, Report, Slices, Standing, StandingRequest,
    Welcome, Withdraw,
};
use icet::{Ip, MediaPath, Now, PeerKey, limits};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Engine;
use super::io::{Action, Handle};
use super::timers::Timer;

/// A tracker that owes an answer and says nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// A session that held for so long was a good one: the next try comes soon after its end.
const GOOD: Duration = Duration::from_secs(5);
/// Requests to open a media that wait for their answer at the same time.
const OPENING: usize = 64;
/// Lookups and questions that are kept; further ones push the oldest out.
const ASKED: usize = 1024;
/// Reports that are kept for the time when the tracker is back.
const REPORTS: usize = 1024;
/// Withdrawals that are kept for the time when the tracker is back.
const WITHDRAWALS: usize = 65_536;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// Waiting for the next try.
    Down,
    Connecting,
    /// Open; the tracker's epoch is not known yet.
    Up,
    Welcome,
}

#[derive(Debug, Clone)]
pub(super) enum Asked {
    /// Join or publish.
    Open(Handle),
    Locate(Handle, Position),
    Info(Handle, MediaPath),
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: Link,
    attempts: u32,
    /// The next try comes no sooner than after this: the tracker said so.
    pub(super) patience: Duration,
    tracker: Option<PeerKey>,
    /// Of the last welcome.
    pub(super) epoch: Option<u64>,
    /// Times in a row that it was told that another program is there.
    pub(super) refusals: u32,
    /// When a session last took the place of another one.
    pub(super) moved: Option<Now>,
    since: Now,
    heard: Now,
    pub(super) ack_delay: Duration,
    next_request: u64,
    /// Requests without an answer, by number; sent again in the next session.
    pub(super) requests: BTreeMap<u64, Asked>,
    /// Those of them that were sent in this session.
    pub(super) owed: BTreeSet<u64>,
    /// Those of them that wait before they are sent again.
    pub(super) waiting: BTreeSet<u64>,
    /// Media to be opened: publishers' ones after the others.
    to_open: BTreeSet<(bool, Handle)>,
    /// Reports that could not be sent, with the epoch of their assignments.
    reports: VecDeque<(u64, Report)>,
    /// Pings under way: nonce, and the media whose upload it confirms.
    pub(super) pings: BTreeMap<u64, Handle>,
    /// Withdrawals that wait for the next session.
    withdrawals: Vec<Withdraw>,
    /// Whether our standing is to be asked for once a session is up.
    wants_standing: bool,
    /// The request for it that was sent last in this session, if its answer is due.
    pub(super) standing: Option<u64>,
    /// Requests for guidance in this session whose answers are due.
    pub(super) guidance: BTreeMap<Handle, u64>,
    rng: SmallRng,
}

impl Session {
    pub(super) fn new(seed: u64, ack_delay: Duration) -> Session {
        Session {
            link: Link::Connecting,
            attempts: 0,
            patience: Duration::ZERO,
            tracker: None,
            epoch: None,
            refusals: 0,
            moved: None,
            since: Now::ZERO,
            heard: Now::ZERO,
            ack_delay,
            next_request: 1,
            requests: BTreeMap::new(),
            owed: BTreeSet::new(),
            waiting: BTreeSet::new(),
            to_open: BTreeSet::new(),
            reports: VecDeque::new(),
            pings: BTreeMap::new(),
            withdrawals: Vec::new(),
            wants_standing: false,
            standing: None,
            guidance: BTreeMap::new(),
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.link, Link::Up | Link::Welcome)
    }

    /// Whether the join or publish of a handle is still to be sent in this session.
    pub(super) fn is_to_open(&self, handle: Handle) -> bool {
        self.to_open.iter().any(|(_, h)| *h == handle)
    }

    /// The same, or its answer is due.
    pub(super) fn is_opening(&self, handle: Handle) -> bool {
        self.is_to_open(handle) || self.requests.values().any(|a| matches!(a, Asked::Open(h) if *h == handle))
    }

    pub(super) fn withdraw_later(&mut self, m: Withdraw) {
        if self.withdrawals.len() < WITHDRAWALS {
            self.withdrawals.push(m);
        }
    }

    /// Forgets a request.
    pub(super) fn take(&mut self, request: u64) -> Option<Asked> {
        self.owed.remove(&request);
        self.waiting.remove(&request);
        self.requests.remove(&request)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request - 1
    }

    #[cfg(test)]
    pub(super) fn load(&self) -> usize {
        self.requests.len() + self.waiting.len() + self.to_open.len() + self.reports.len() + self.pings.len()
    }
}

impl Engine {
    pub(super) fn connected(&mut self, now: Now, tracker: PeerKey) {
        if self.session.link != Link::Connecting {
            return;
        }
        self.timers.cancel(Timer::Connect);
        if self.session.tracker.replace(tracker).is_some_and(|t| t != tracker) {
            // Another tracker: its numbers mean nothing to the assignments that run.
            self.session.epoch = None;
        }
        let s = &mut self.session;
        s.link = Link::Up;
        s.since = now;
        s.heard = now;
        // Media are opened under new numbers; lookups and questions keep theirs.
        s.requests.retain(|_, a| !matches!(a, Asked::Open(_)));
        s.waiting.clear();
        s.owed.clear();
        s.to_open = self.media.iter().map(|(h, m)| (m.publishes(), *h)).collect();
        let again: Vec<_> = s.requests.keys().copied().collect();
        let hello = self.hello();
        self.send(hello);
        self.allow();
        for m in std::mem::take(&mut self.session.withdrawals) {
            self.send(m);
        }
        self.open_more(now);
        for request in again {
            self.ask(now, request);
        }
        self.session.standing = None;
        self.session.guidance.clear();
        if std::mem::take(&mut self.session.wants_standing) {
            self.ask_standing();
        }
        self.expect(now);
    }

    pub(super) fn disconnected(&mut self, now: Now) {
        let s = &mut self.session;
        if s.link == Link::Down {
            return;
        }
        if s.link == Link::Welcome && now.since(s.since) >= GOOD {
            s.attempts = 0;
        }
        s.link = Link::Down;
        s.pings.clear();
        let waiting = std::mem::take(&mut s.waiting);
        let (min, max) = self.config.backoff;
        let pause = min.saturating_mul(1 << s.attempts.min(20)).min(max).max(min);
        let pause = pause.max(std::mem::take(&mut s.patience));
        s.attempts += 1;
        // Half of it is chance: peers that lost their tracker together do not come back together.
        let pause = pause.mul_f64(s.rng.random_range(0.5..=1.0)).max(Duration::from_millis(1));
        for request in waiting {
            self.timers.cancel(Timer::Retry(request));
        }
        self.timers.cancel(Timer::Silence);
        self.timers.set(Timer::Connect, now + pause);
        self.expect_silence(now);
        self.pause_uploads();
    }

    /// Another session has taken the place of the one that was up.
    pub(super) fn moved(&mut self, now: Now, tracker: PeerKey) {
        if self.session.is_up() {
            self.session.pings.clear();
            for request in std::mem::take(&mut self.session.waiting) {
                self.timers.cancel(Timer::Retry(request));
            }
            self.timers.cancel(Timer::Silence);
            self.pause_uploads();
        }
        self.session.link = Link::Connecting;
        self.session.moved = Some(now);
        self.connected(now, tracker);
    }

    pub(super) fn reconnect(&mut self) {
        if self.session.link == Link::Down {
            self.session.link = Link::Connecting;
            self.actions.push_back(Action::Connect);
        }
    }

    /// Whether a message counts.
    pub(super) fn heard(&mut self, now: Now) -> bool {
        self.session.heard = now;
        self.session.is_up()
    }

    /// The tracker owes an answer.
    pub(super) fn expect(&mut self, now: Now) {
        if !self.timers.is_set(Timer::Silence) {
            self.timers.set(Timer::Silence, now + SILENCE);
        }
    }

    /// The tracker said something: perhaps all that it owed.
    pub(super) fn calm(&mut self) {
        let s = &self.session;
        if s.link == Link::Welcome && s.owed.is_empty() && s.pings.is_empty() {
            self.timers.cancel(Timer::Silence);
        }
    }

    pub(super) fn silence(&mut self, now: Now) {
        if !self.session.is_up() {
            return;
        }
        let due = self.session.heard + SILENCE;
        if due > now {
            self.timers.set(Timer::Silence, due);
        } else {
            self.actions.push_back(Action::Disconnect);
            self.disconnected(now);
        }
    }

    pub(super) fn welcome(&mut self, now: Now, m: Welcome) {
        if self.session.link == Link::Welcome {
            return;
        }
        let s = &mut self.session;
        let same = s.epoch == Some(m.epoch);
        let moved = s.moved.is_some_and(|at| now.since(at) < SILENCE);
        s.link = Link::Welcome;
        s.epoch = Some(m.epoch);
        s.refusals = 0;
        s.ack_delay = self.config.ack_delay.min(Duration::from_millis(u64::from(m.ack_delay)));
        let reports = std::mem::take(&mut s.reports);
        if !same {
            // Numbers of another epoch mean nothing to this tracker, or something else.
            self.served.forget_numbers();
            self.restart_uploads();
        }
        for handle in self.media.keys().copied().collect::<Vec<_>>() {
            self.flush_acks(handle);
        }
        for (_, report) in reports.into_iter().filter(|(epoch, _)| *epoch == m.epoch) {
            self.send(report);
        }
        self.flush_served(now);
        self.actions.push_back(Action::Welcome(m));
        self.after_silence(now);
        self.end_reserve(now);
        if moved {
            self.begin_anew(now);
        }
    }

    /// Sends a report, or keeps it until the tracker is back.
    pub(super) fn report(&mut self, epoch: u64, report: Report) {
        let s = &mut self.session;
        if s.link == Link::Welcome {
            if s.epoch == Some(epoch) {
                self.send(report);
            }
        } else if s.epoch == Some(epoch) {
            if s.reports.len() >= REPORTS {
                s.reports.pop_front();
            }
            s.reports.push_back((epoch, report));
        }
    }

    /// Opens a media: now, when earlier ones were answered, or when the session is up.
    pub(super) fn open(&mut self, now: Now, handle: Handle) {
        let Some(m) = self.media.get(&handle) else { return };
        self.session.to_open.insert((m.publishes(), handle));
        self.open_more(now);
    }

    pub(super) fn open_more(&mut self, now: Now) {
        if !self.session.is_up() {
            return;
        }
        let s = &self.session;
        let opening = |n: &&u64| matches!(s.requests.get(n), Some(Asked::Open(_)));
        let mut free = OPENING.saturating_sub(s.owed.iter().filter(opening).count());
        while free > 0
            && let Some((_, handle)) = self.session.to_open.pop_first()
        {
            free -= 1;
            let request = self.session.number();
            self.session.requests.insert(request, Asked::Open(handle));
            self.session.owed.insert(request);
            self.send_open(now, handle, request);
            self.expect(now);
        }
    }

    /// Forgets what was asked about a handle.
    pub(super) fn forget_requests(&mut self, now: Now, handle: Handle) {
        let s = &mut self.session;
        s.to_open.retain(|(_, h)| *h != handle);
        s.pings.retain(|_, h| *h != handle);
        let about = |a: &Asked| match a {
            Asked::Open(h) | Asked::Locate(h, _) | Asked::Info(h, _) => *h == handle,
        };
        let gone: Vec<_> = s.requests.iter().filter(|(_, a)| about(a)).map(|(n, _)| *n).collect();
        for n in gone {
            self.session.take(n);
            self.timers.cancel(Timer::Retry(n));
        }
        self.open_more(now);
    }

    pub(super) fn locate(&mut self, now: Now, handle: Handle, at: Position) {
        if self.media.contains_key(&handle) {
            self.note(now, Asked::Locate(handle, at));
        }
    }

    pub(super) fn ask_info(&mut self, now: Now, handle: Handle, path: MediaPath) {
        self.note(now, Asked::Info(handle, path));
    }

    fn note(&mut self, now: Now, asked: Asked) {
        let s = &mut self.session;
        if s.requests.len() >= ASKED + OPENING
            && let Some(n) = s.requests.iter().find(|(_, a)| !matches!(a, Asked::Open(_))).map(|(n, _)| *n)
        {
            s.take(n);
            self.timers.cancel(Timer::Retry(n));
        }
        let request = self.session.number();
        self.session.requests.insert(request, asked);
        if self.session.is_up() {
            self.ask(now, request);
        }
    }

    /// Sends a lookup or question (again).
    fn ask(&mut self, now: Now, request: u64) {
        match self.session.requests.get(&request).cloned() {
            Some(Asked::Locate(handle, at)) => {
                // Without an id yet: when the answer brings it.
                let Some(media) = self.media.get(&handle).and_then(|m| m.id) else { return };
                self.send(Locate { request, media, at });
            }
            Some(Asked::Info(_, path)) => self.send(InfoRequest { request, path }),
            Some(Asked::Open(_)) | None => return,
        }
        self.session.owed.insert(request);
        self.expect(now);
    }

    /// Sends the lookups that waited for the media's id.
    pub(super) fn ask_located(&mut self, now: Now, handle: Handle) {
        let mine = |a: &Asked| matches!(a, Asked::Locate(h, _) if *h == handle);
        let requests: Vec<_> =
            self.session.requests.iter().filter(|(_, a)| mine(a)).map(|(n, _)| *n).collect();
        for request in requests {
            self.ask(now, request);
        }
    }

    pub(super) fn retry(&mut self, now: Now, request: u64) {
        if !self.session.waiting.remove(&request) {
            return;
        }
        match self.session.requests.get(&request) {
            Some(Asked::Open(handle)) => {
                let handle = *handle;
                self.session.take(request);
                self.open(now, handle);
            }
            _ => self.ask(now, request),
        }
    }

    /// The media that an answer to [`Asked::Open`] is about.
    pub(super) fn answered_open(&mut self, now: Now, request: u64) -> Option<Handle> {
        let Some(Asked::Open(handle)) = self.session.requests.get(&request) else { return None };
        let handle = *handle;
        self.session.take(request);
        self.timers.cancel(Timer::Retry(request));
        self.open_more(now);
        Some(handle)
    }

    pub(super) fn slices(&mut self, m: Slices) {
        if let Some(Asked::Locate(handle, _)) = self.session.requests.get(&m.request) {
            let handle = *handle;
            self.session.take(m.request);
            self.actions.push_back(Action::Slices { handle, slices: m.slices });
        } else if let Some(handle) = self.ids.get(&m.media) {
            self.actions.push_back(Action::Slices { handle: *handle, slices: m.slices });
        }
    }

    pub(super) fn info_answer(&mut self, m: InfoAnswer) {
        if let Some(Asked::Info(handle, _)) = self.session.requests.get(&m.request) {
            let handle = *handle;
            self.session.take(m.request);
            self.actions.push_back(Action::Info { handle, answer: m });
        }
    }

    /// Nothing waits for the answer: a tracker of an earlier revision gives none.
    pub(super) fn ask_standing(&mut self) {
        if !self.session.is_up() {
            self.session.wants_standing = true;
            return;
        }
        let request = self.session.number();
        self.session.standing = Some(request);
        self.send(StandingRequest { request });
    }

    pub(super) fn standing(&mut self, m: Standing) {
        if self.session.standing == Some(m.request) {
            self.session.standing = None;
            self.actions.push_back(Action::Standing(Some(m)));
        }
    }

    /// As with standings, nothing waits for the answer; what was asked before is forgotten.
    pub(super) fn ask_guidance(&mut self, handle: Handle, addresses: Vec<IpAddr>) {
        let Some(media) = self.media.get(&handle).and_then(|m| m.id).filter(|_| self.session.is_up()) else {
            return;
        };
        let request = self.session.number();
        self.session.guidance.insert(handle, request);
        let addresses = addresses.into_iter().take(limits::ITEMS).map(Ip).collect();
        self.send(Audience { request, media, addresses });
    }

    pub(super) fn guidance(&mut self, answer: Guidance) {
        let asked = self.session.guidance.iter().find(|(_, request)| **request == answer.request);
        if let Some(handle) = asked.map(|(handle, _)| *handle) {
            self.session.guidance.remove(&handle);
            self.actions.push_back(Action::Guidance { handle, answer });
        }
    }
}
