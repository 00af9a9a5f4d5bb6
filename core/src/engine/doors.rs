//! Addresses that the tracker could not reach are announced again, now and then: a port may have been opened meanwhile.

use std::time::Duration;

use icet::message::{Reach, ReachResult};
use icet::{NetKind, Now};

use super::Engine;
use super::io::Action;
use super::timers::Timer;

/// Pause before addresses that failed are announced again; doubles each time, [`MOST`] times. A tracker dials none that failed less than
/// two minutes ago, and that doubles, too.
const AGAIN: Duration = Duration::from_secs(130);
const MOST: u32 = 6;

/// What came of what was announced in this session.
#[derive(Debug, Default)]
pub(super) struct Doors {
    proved: Vec<NetKind>,
    again: u32,
}

impl Engine {
    /// The tracker tried an address.
    pub(super) fn reached(&mut self, now: Now, m: ReachResult) {
        if m.proved && !self.doors.proved.contains(&m.addr.kind) {
            self.doors.proved.push(m.addr.kind);
        }
        if !m.proved {
            self.timers.set(Timer::Announce, now + AGAIN * 2u32.pow(self.doors.again.min(MOST)));
        }
        self.actions.push_back(Action::Reached(m));
    }

    /// Announces all addresses again if some carrier of them was not reached at any.
    pub(super) fn announce(&mut self) {
        let reach = &self.config.hello.reach;
        let shut = reach.iter().any(|a| !self.doors.proved.contains(&a.kind));
        if shut && self.session.is_up() {
            self.doors.again += 1;
            let reach = reach.clone();
            self.send(Reach { reach });
        }
    }
}
