//! What this peer gives, as the tracker is told.

use icet::limits;
use icet::message::{Allow, Hello};

use super::Engine;
use super::io::{Giving, Share};
use super::media::Role;
use super::timers::Timer;

impl Engine {
    pub(super) fn give(&mut self, giving: Giving) {
        self.giving = giving;
        self.allow();
    }

    /// The hello of a session that begins.
    pub(super) fn hello(&mut self) -> Hello {
        self.allowed = None;
        self.doors = super::doors::Doors::default();
        self.timers.cancel(Timer::Announce);
        let mut hello = Hello { epoch: self.session.epoch, ..self.config.hello.clone() };
        if self.giving.rests {
            hello.limits.up = Some(0);
        }
        hello
    }

    /// Says what is given, if that is something else than what was said in this session.
    pub(super) fn allow(&mut self) {
        if !self.session.is_up() {
            return;
        }
        let withheld = self.media.values().filter_map(|m| {
            let path = match &m.role {
                Role::Join(wish) => &wish.path,
                Role::Publish { manifest, .. } => &manifest.path,
            };
            m.id.filter(|_| self.giving.share(path) == Some(Share::Nothing))
        });
        let limits = &self.config.hello.limits;
        let allow = Allow {
            up: if self.giving.rests { Some(0) } else { limits.up },
            down: limits.down,
            near: self.giving.near,
            withheld: withheld.take(limits::ITEMS).collect(),
            once: self.giving.once.then_some(true),
        };
        // As the hello says, which is all that trackers of an earlier revision understand.
        let usual = Allow { up: limits.up, down: limits.down, near: false, withheld: Vec::new(), once: None };
        if *self.allowed.as_ref().unwrap_or(&usual) != allow {
            self.allowed = Some(allow.clone());
            self.send(allow);
        }
    }
}
