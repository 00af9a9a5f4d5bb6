//! What a tracker refuses, and what the engine makes of it.

use std::time::Duration;

use icet::Now;
use icet::message::{ErrorCode, ErrorMessage};

use super::Engine;
use super::io::{Action, Handle, Refusal};
use super::session::{Asked, Link};
use super::timers::Timer;

/// Bounds of the pause that an error's `retry` asks for.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));
/// Who waits for so long is told.
const TOLD: Duration = Duration::from_secs(5);
/// How often an accepted media that the tracker does not know (yet: it may have restarted) is asked for again.
const REJOINS: u32 = 6;
/// Pause after the tracker preferred another session of our key and names none: two programs must not push each other out
/// for ever; a ban is not lifted soon either.
const RIVAL: Duration = Duration::from_secs(60);
/// The same where it names one each time, and this is no longer the first time: how soon the end of the other is noticed.
const IN_VAIN: Duration = Duration::from_secs(20);
/// So soon after we went over to another session, what is said of rivals is said of the one before.
const OWN: Duration = Duration::from_secs(10);
/// A program that never got in for another one gives up after so many tries.
const REFUSALS: u32 = 3;

fn pause(m: &ErrorMessage) -> Option<Duration> {
    m.retry.map(|ms| Duration::from_millis(u64::from(ms)).clamp(RETRY.0, RETRY.1))
}

impl Engine {
    pub(super) fn error(&mut self, now: Now, m: ErrorMessage) {
        if let Some(request) = m.request {
            self.request_error(now, request, m);
        } else if let Some(handle) = m.media.and_then(|id| self.ids.get(&id).copied()) {
            self.media_error(now, handle, &m);
        } else if m.media.is_none() {
            self.general_error(now, m);
        }
    }

    fn request_error(&mut self, now: Now, request: u64, m: ErrorMessage) {
        let Some(asked) = self.session.requests.get(&request).cloned() else { return };
        if let Some(pause) = pause(&m).or_else(|| {
            // What worked before may be back soon: a tracker that restarts without a catalogue waits for publishers.
            let Asked::Open(handle) = asked else { return None };
            let passing = m.code == ErrorCode::NO_MEDIA || m.code == ErrorCode::INTERNAL;
            self.rejoin_pause(handle).filter(|_| passing)
        }) {
            if pause >= TOLD
                && let Asked::Open(handle) | Asked::Info(handle, _) = asked
            {
                self.actions.push_back(Action::Postponed { handle, text: m.text, pause });
            }
            self.session.owed.remove(&request);
            self.session.waiting.insert(request);
            self.timers.set(Timer::Retry(request), now + pause);
            self.open_more(now);
            return;
        }
        self.session.take(request);
        self.timers.cancel(Timer::Retry(request));
        let why = match asked {
            Asked::Open(handle) => return self.refuse(now, handle, Refusal::Error(m)),
            Asked::Locate(handle, at) => (handle, Refusal::Locate { at, error: m }),
            Asked::Info(handle, _) => (handle, Refusal::Error(m)),
        };
        self.actions.push_back(Action::Refused { handle: why.0, why: why.1 });
    }

    /// When to join a media again that was accepted before; none: not any more.
    fn rejoin_pause(&mut self, handle: Handle) -> Option<Duration> {
        let media = self.media.get_mut(&handle).filter(|m| m.pages.is_some())?;
        media.rejoins += 1;
        (media.rejoins <= REJOINS).then(|| Duration::from_secs(1 << media.rejoins.min(6)))
    }

    /// Something that was said about a media was refused.
    fn media_error(&mut self, now: Now, handle: Handle, m: &ErrorMessage) {
        if self.media.get(&handle).is_some_and(super::Media::publishes) {
            if let Some(pause) = pause(m) {
                self.postpone_upload(handle, now + pause);
            }
            return;
        }
        // We are not in the swarm (any longer), it seems.
        let out = m.code == ErrorCode::QUOTA || m.code == ErrorCode::FORBIDDEN;
        if !out || self.session.is_opening(handle) {
            return;
        }
        if let Some(pause) = pause(m).or_else(|| self.rejoin_pause(handle)) {
            let request = self.session.number();
            self.session.requests.insert(request, Asked::Open(handle));
            self.session.waiting.insert(request);
            self.timers.set(Timer::Retry(request), now + pause);
        }
    }

    /// The session itself is meant, or a message that has no request.
    fn general_error(&mut self, now: Now, m: ErrorMessage) {
        match m.code {
            ErrorCode::VERSION => self.version_error(now, &m),
            ErrorCode::FORBIDDEN => self.forbidden(now, m),
            // A tracker of an earlier revision, which cannot tell what request that was.
            ErrorCode::UNSUPPORTED if self.session.standing.take().is_some() => {
                self.actions.push_back(Action::Standing(None));
            }
            ErrorCode::QUOTA => {
                let pause = pause(&m).unwrap_or(RETRY.0);
                self.session.patience = pause;
                // A message was dropped, it is not said which: what is lost by that is said again.
                if self.session.link == Link::Welcome {
                    self.timers.set_sooner(Timer::Restate, now + pause);
                    for handle in self.media.keys().copied().collect::<Vec<_>>() {
                        self.postpone_upload(handle, now + pause);
                    }
                }
            }
            _ => {}
        }
    }

    /// The tracker has no session for our key: it prefers another one of it, or bans it.
    fn forbidden(&mut self, now: Now, m: ErrorMessage) {
        // What we left a moment ago may be told so late that it is heard here: no rival, then.
        if self.session.moved.is_some_and(|at| now.since(at) < OWN) {
            return;
        }
        self.session.refusals += 1;
        // Another program may be dead without the tracker knowing yet; who is banned is not told to come back.
        let in_vain = self.session.refusals >= REFUSALS || m.retry.is_none();
        let least = if self.session.refusals >= REFUSALS { IN_VAIN } else { Duration::ZERO };
        self.session.patience = pause(&m).map_or(RIVAL, |pause| pause.max(least));
        if in_vain && self.session.epoch.is_none() {
            for handle in self.media.keys().copied().collect::<Vec<_>>() {
                self.refuse(now, handle, Refusal::Error(m.clone()));
            }
        }
    }

    fn version_error(&mut self, now: Now, m: &ErrorMessage) {
        // No use to hurry back; who never got in is told.
        self.session.patience = self.config.backoff.1;
        let fresh = |m: &super::Media| m.pages.is_none();
        let media: Vec<_> = self.media.iter().filter(|(_, m)| fresh(m)).map(|(h, _)| *h).collect();
        let info = |(n, a): (&u64, &Asked)| if let Asked::Info(h, _) = a { Some((*n, *h)) } else { None };
        let infos: Vec<_> = self.session.requests.iter().filter_map(info).collect();
        for handle in media {
            self.refuse(now, handle, Refusal::Error(m.clone()));
        }
        for (request, handle) in infos {
            self.session.take(request);
            self.actions.push_back(Action::Refused { handle, why: Refusal::Error(m.clone()) });
        }
    }

    /// Says again what may have been dropped: pages held, and where players are.
    pub(super) fn restate(&mut self, now: Now) {
        if self.session.link != Link::Welcome {
            return;
        }
        for handle in self.media.keys().copied().collect::<Vec<_>>() {
            if !self.session.is_opening(handle) {
                self.restate_media(now, handle);
            }
        }
    }
}
