//! Notices that a session's carrier no longer passes, long before the carrier does: sans-IO, time as an argument.
//!
//! A firewall that begins to drop UDP, or a NAT that forgets a TCP connection, says nothing, and carriers wait half a minute
//! before they give up. But something that was sent and drew nothing for much longer than a round trip is a good reason to try
//! another way beside this one. If the old one speaks again before the other stands, it was none: then more patience.

use std::time::Duration;

use icet::Now;

use crate::net::session::Vitals;

/// After so long without a word, somebody who waits for pages asks.
const QUIET: Duration = Duration::from_secs(1);
/// Over a carrier that does not show that what was sent arrived, a question follows after so long.
const ASK: Duration = Duration::from_millis(400);
/// Least patience with something that was sent, where arrival shows by itself, and where a question is needed first.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(700), Duration::from_millis(1100));
/// And so many round trips.
const ROUND_TRIPS: u32 = 4;
/// Patience doubles with each false alarm, so often at most, but not with the first: any machine may sleep for a second.
const DOUBLINGS: u32 = 4;
const FORGIVEN: u32 = 1;
/// False alarms of before so long count no more.
const CALM: Duration = Duration::from_secs(60);
/// Pauses between two tries of another way: the first, and the longest. They double.
const TRIES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(20));

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// Ask the other end something, so that it has to answer.
    Ask,
    /// Try another way to the tracker.
    Doubt,
    /// It was a false alarm: the session lives.
    Alive,
}

/// Of one session.
#[derive(Debug)]
pub(super) struct Watch {
    sent: u64,
    heard: u64,
    /// When it last spoke.
    life: Now,
    /// Since when something is unanswered.
    owed: Option<Now>,
    asked: bool,
    /// Patience with what is owed.
    patience: Duration,
    acknowledges: bool,
    /// Doubted since.
    doubt: bool,
    /// Tries of another way that failed, and when the next one comes.
    tries: u32,
    again: Option<Now>,
    alarms: u32,
    last_alarm: Now,
}

impl Watch {
    pub(super) fn new(now: Now, vitals: &Vitals) -> Watch {
        Watch {
            sent: vitals.sent,
            heard: vitals.heard,
            life: now,
            owed: None,
            asked: false,
            patience: PATIENCE.1,
            acknowledges: vitals.acknowledges,
            doubt: false,
            tries: 0,
            again: None,
            alarms: 0,
            last_alarm: now,
        }
    }

    /// To be called after everything that was sent, and at [`Watch::next`]. `waits` tells whether an answer is waited for though
    /// nothing was asked.
    pub(super) fn look(&mut self, now: Now, vitals: &Vitals, waits: impl FnOnce() -> bool) -> Option<Sign> {
        let heard = std::mem::replace(&mut self.heard, vitals.heard) != vitals.heard;
        let sent = std::mem::replace(&mut self.sent, vitals.sent) != vitals.sent;
        if heard {
            (self.life, self.owed, self.asked) = (now, None, false);
        }
        if sent && self.owed.is_none() {
            self.owed = Some(now);
            let least = if vitals.acknowledges { PATIENCE.0 } else { PATIENCE.1 };
            let patience = least.max(vitals.rtt.saturating_mul(ROUND_TRIPS));
            if now.since(self.last_alarm) >= CALM {
                self.alarms = 0;
            }
            self.patience = patience * (1 << self.alarms.saturating_sub(FORGIVEN).min(DOUBLINGS));
        }
        if heard && std::mem::take(&mut self.doubt) {
            (self.tries, self.again) = (0, None);
            self.alarms += 1;
            self.last_alarm = now;
            return Some(Sign::Alive);
        }
        match self.owed {
            Some(owed) if !self.doubt && now.since(owed) >= self.patience => {
                self.doubt = true;
                Some(Sign::Doubt)
            }
            Some(_) if self.again.is_some_and(|at| at <= now) => {
                self.again = None;
                Some(Sign::Doubt)
            }
            Some(owed) if !self.acknowledges && !self.asked && now.since(owed) >= ASK => {
                self.asked = true;
                Some(Sign::Ask)
            }
            None if now.since(self.life) >= QUIET => {
                // Asked or not, it is looked at again after as long.
                self.life = now;
                waits().then_some(Sign::Ask)
            }
            _ => None,
        }
    }

    /// Another way was tried in vain.
    pub(super) fn failed(&mut self, now: Now) {
        let pause = TRIES.0.saturating_mul(1 << self.tries.min(8)).min(TRIES.1);
        self.tries += 1;
        self.again = Some(now + pause);
    }

    /// Whether it does not seem to pass.
    pub(super) fn in_doubt(&self) -> bool {
        self.doubt
    }

    /// When to look at the latest.
    pub(super) fn next(&self) -> Option<Now> {
        match self.owed {
            None => Some(self.life + QUIET),
            Some(_) if self.doubt => self.again,
            Some(owed) if !self.acknowledges && !self.asked => Some(owed + ASK.min(self.patience)),
            Some(owed) => Some(owed + self.patience),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session under watch, and what it saw.
    struct Scene {
        watch: Watch,
        vitals: Vitals,
        now: Now,
        waits: bool,
    }

    fn scene(acknowledges: bool) -> Scene {
        let vitals = Vitals { sent: 0, heard: 0, rtt: Duration::from_millis(20), acknowledges };
        Scene { watch: Watch::new(Now(0), &vitals), vitals, now: Now(0), waits: false }
    }

    impl Scene {
        fn look(&mut self) -> Option<Sign> {
            self.watch.look(self.now, &self.vitals, || self.waits)
        }

        fn say(&mut self) -> Option<Sign> {
            self.vitals.sent += 10;
            self.look()
        }

        fn hear(&mut self) -> Option<Sign> {
            self.vitals.heard += 1;
            self.look()
        }

        /// Looks whenever it should, for so long; signs and when they came, in milliseconds from now.
        fn pass(&mut self, d: Duration) -> Vec<(Sign, u128)> {
            let (start, end) = (self.now, self.now + d);
            let mut signs = Vec::new();
            while let Some(at) = self.watch.next().filter(|at| *at <= end) {
                self.now = self.now.max(at);
                if let Some(sign) = self.look() {
                    signs.push((sign, self.now.since(start).as_millis()));
                    if sign == Sign::Ask {
                        assert_eq!(self.say(), None);
                    }
                }
            }
            self.now = end;
            signs
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_unanswered_for_long_raises_a_doubt() {
        let mut s = scene(true);
        assert_eq!(s.say(), None);
        assert_eq!(s.pass(SECOND * 60), [(Sign::Doubt, 700)]);
        // Over TCP a question comes first, and it too is unanswered.
        let mut s = scene(false);
        assert_eq!(s.say(), None);
        assert_eq!(s.pass(SECOND * 60), [(Sign::Ask, 400), (Sign::Doubt, 1100)]);
        // A long way takes longer.
        let mut s = scene(true);
        s.vitals.rtt = Duration::from_millis(600);
        assert_eq!(s.say(), None);
        assert_eq!(s.pass(SECOND * 60), [(Sign::Doubt, 2400)]);
    }

    #[test]
    fn whoever_answers_is_not_doubted() {
        for acknowledges in [true, false] {
            let mut s = scene(acknowledges);
            for _ in 0..1000 {
                assert_eq!(s.say(), None);
                assert!(s.pass(Duration::from_millis(300)).is_empty());
                assert_eq!(s.hear(), None);
                assert_eq!(s.say(), None, "sent after it was heard: that is another matter");
                assert_eq!(s.hear(), None);
            }
        }
        // Nothing was said, and nobody waits.
        let mut s = scene(true);
        assert!(s.pass(SECOND * 100).is_empty());
    }

    #[test]
    fn who_waits_for_pages_asks_now_and_then() {
        let mut s = scene(true);
        s.waits = true;
        assert_eq!(s.pass(SECOND * 60), [(Sign::Ask, 1000), (Sign::Doubt, 1700)]);
        assert_eq!(s.hear(), Some(Sign::Alive));
        assert_eq!(s.pass(SECOND), [(Sign::Ask, 1000)]);
    }

    #[test]
    fn false_alarms_teach_patience_and_calm_forgets_them() {
        let mut s = scene(true);
        for patience in [700, 700, 1400, 2800, 5600, 11_200, 11_200] {
            assert_eq!(s.say(), None);
            assert_eq!(s.pass(SECOND * 12), [(Sign::Doubt, patience)]);
            assert_eq!(s.hear(), Some(Sign::Alive));
        }
        s.pass(SECOND * 61);
        assert_eq!(s.say(), None);
        assert_eq!(s.pass(SECOND), [(Sign::Doubt, 700)]);
    }

    #[test]
    fn where_no_way_leads_tries_become_rare() {
        let mut s = scene(true);
        assert_eq!(s.say(), None);
        assert_eq!(s.pass(SECOND), [(Sign::Doubt, 700)]);
        for pause in [2, 4, 8, 16, 20, 20] {
            s.watch.failed(s.now);
            assert_eq!(s.pass(SECOND * 30), [(Sign::Doubt, pause * 1000)]);
        }
        assert_eq!(s.hear(), Some(Sign::Alive));
        assert!(s.pass(SECOND * 30).is_empty());
    }
}
