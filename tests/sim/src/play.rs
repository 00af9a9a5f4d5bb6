//! Players: what they read, when they wait, and what they heard how soon.

use std::time::Duration;

use iceshare::engine::io::Command;
use icet::message::{Focus, Intent, Position};
use icet::{Now, PageMap};

use crate::net::Conduct;
use crate::peer::MEDIA;
use crate::world::{Event, Sim};

/// How often a player looks.
const PLAY: Duration = Duration::from_millis(100);

/// A player that reads the media in order, at its rate.
#[derive(Debug, Clone, Default)]
pub struct Player {
    /// Byte that is played next.
    pub at: u64,
    /// Since when it waits, if it does.
    pub waits: Option<Now>,
    /// Time from the wish to the first sound, of each start.
    pub starts: Vec<Duration>,
    /// The same of each seek.
    pub seeks: Vec<Duration>,
    /// How often it ran dry, other than after a start or a seek.
    pub stalls: u32,
    /// For how long in all.
    pub stalled: Duration,
    /// How long it played.
    pub played: Duration,
    /// How long each wait took, and how many hosts of the crowd held the page that it began with.
    pub waited: Vec<(Duration, usize)>,
    /// What it waits for, if it does.
    waits_for: Wish,
    /// Hosts of the crowd that held the page that it waits for, when the wait began.
    holders: usize,
    ticking: bool,
}

impl Player {
    /// Whether it ran dry, and waits for more.
    pub(crate) fn is_dry(&self) -> bool {
        self.waits.is_some() && self.waits_for == Wish::More
    }

    /// How long it stalled, the stall that goes on included.
    pub(crate) fn stalled_until(&self, now: Now) -> Duration {
        let since = self.waits.filter(|_| self.is_dry());
        self.stalled + since.map_or(Duration::ZERO, |t| now.since(t))
    }
}

/// What a player waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Wish {
    #[default]
    Start,
    Seek,
    More,
}

/// Media time that a player holds before sound begins, and after it ran dry.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// Before sound, after a start or a seek.
    pub start: Duration,
    /// After it ran dry.
    pub again: Duration,
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers { start: Duration::from_secs(1), again: Duration::from_secs(1) }
    }
}

impl Sim {
    /// A player jumps to a byte.
    pub fn seek(&mut self, n: usize, byte: u64) {
        let now = self.now;
        let holders = self.holders(n, byte);
        let Some(p) = self.peers[n].player.as_mut() else { return };
        let begins = p.starts.is_empty() && p.waits_for == Wish::Start && p.waits.is_none();
        if !begins {
            p.waits_for = Wish::Seek;
        }
        (p.at, p.waits, p.holders) = (byte, Some(now), holders);
        if !std::mem::replace(&mut p.ticking, true) {
            self.after(PLAY, Event::Play(n));
        }
        self.focus(n);
        self.listen(n);
    }

    fn focus(&mut self, n: usize) {
        let Some(p) = &self.peers[n].player else { return };
        let focus = Focus {
            media: self.media.manifest.id(),
            at: Position::Page(self.media.page_at(p.at)),
            rate: Some(self.media.rate()),
            urgent: 2 * self.media.rate(),
            intent: Intent::Play,
        };
        self.command(n, Command::Focus { handle: MEDIA, focus });
    }

    /// Hosts of the crowd that hold what `n` lacks first from a byte on.
    fn holders(&self, n: usize, at: u64) -> usize {
        let from = self.media.page_at(at);
        let page = self.net.nodes[n].held.as_ref().map_or(Some(from), |h| h.first_missing(from));
        let holds =
            |h: &usize| self.net.nodes[*h].held.as_ref().is_some_and(|m| page.is_some_and(|p| m.has(p)));
        (1..self.peers.len()).filter(|h| self.gives(*h) > 0.0 && self.lives(*h)).filter(holds).count()
    }

    /// Bytes a second that a peer can give to others.
    pub(crate) fn gives(&self, n: usize) -> f64 {
        let s = &self.peers[n].spec;
        let reached = s.open
            || self.net.protocols.iter().enumerate().any(|(i, p)| s.speaks >> i & 1 == 1 && p.punches > 0.0);
        if s.serves && reached && s.conduct == Conduct::Honest { s.line.up } else { 0.0 }
    }

    /// Bytes that a player could read on.
    fn ahead(&self, held: &PageMap, at: u64) -> u64 {
        let end = self.media.manifest.bytes;
        let gap = held.first_missing(self.media.page_at(at));
        let here = gap.map_or(end, |p| usize::try_from(p).map_or(end, |i| self.media.offsets[i]));
        here.saturating_sub(at)
    }

    /// A player that waits has enough, perhaps.
    pub(crate) fn listen(&mut self, n: usize) {
        let Some((since, at, wish)) =
            self.peers[n].player.as_ref().and_then(|p| Some((p.waits?, p.at, p.waits_for)))
        else {
            return;
        };
        let Some(held) = self.net.nodes[n].held.as_ref() else { return };
        let buffer = if wish == Wish::More { self.buffers.again } else { self.buffers.start };
        let enough = self.media.rate() * u64::try_from(buffer.as_millis()).unwrap_or(0) / 1000;
        if self.ahead(held, at) < enough.max(1).min(self.media.manifest.bytes.saturating_sub(at)) {
            return;
        }
        let waited = self.now.since(since);
        let Some(p) = self.peers[n].player.as_mut() else { return };
        p.waits = None;
        p.waited.push((waited, p.holders));
        match wish {
            Wish::Start => p.starts.push(waited),
            Wish::Seek => p.seeks.push(waited),
            Wish::More => p.stalled += waited,
        }
        p.waits_for = Wish::More;
    }

    /// A player eats, or waits.
    pub(crate) fn play(&mut self, n: usize) {
        if !self.lives(n) {
            return;
        }
        self.after(PLAY, Event::Play(n));
        self.listen(n);
        let (rate, end) = (self.media.rate(), self.media.manifest.bytes);
        let step = rate * u64::try_from(PLAY.as_millis()).unwrap_or(0) / 1000;
        let Some(at) = self.peers[n].player.as_ref().filter(|p| p.waits.is_none()).map(|p| p.at) else {
            return;
        };
        let Some(held) = self.net.nodes[n].held.as_ref() else { return };
        let ahead = self.ahead(held, at);
        let now = self.now;
        let Some(player) = self.peers[n].player.as_mut() else { return };
        if at >= end {
            return;
        }
        if ahead >= step.min(end - at) {
            let second = |at: u64| at / rate.max(1);
            player.at = (at + step).min(end);
            player.played += PLAY;
            if second(player.at) != second(at) {
                self.focus(n);
            }
        } else {
            (player.waits, player.waits_for, player.holders) = (Some(now), Wish::More, 0);
            player.stalls += 1;
            let at = player.at;
            let holders = self.holders(n, at);
            self.peers[n].player.iter_mut().for_each(|p| p.holders = holders);
        }
    }
}
