//! Ways to fetch, each a host over a protocol: which of them bring something, and which have fallen silent.
//!
//! A host whose machine dies says nothing, nor does a firewall that begins to drop UDP. A way that brought something steadily, and
//! then nothing for much longer than ever lately, is left for another host, or for another carrier, long before it would be given
//! up otherwise; and so are the others of its carrier where all of them are silent.

use std::collections::BTreeMap;
use std::time::Duration;

use icet::message::Source;
use icet::{NetKind, Now, PeerKey, ProtocolName};

use super::fetches::{HOSTS, remember};
use super::lanes::Lanes;

/// A way that could not be reached, or fell silent, comes last for so long.
const SHUNNED: Duration = Duration::from_secs(5);
/// Patience is so many times the longest pause lately.
const PAUSES: u32 = 3;
/// A pause fades by this part of the time that passes.
const FADES: u32 = 4;

/// What was idle for so long begins anew.
const IDLE: Duration = Duration::from_secs(1);

/// A host and a protocol.
pub(super) type Way = (PeerKey, ProtocolName);

/// The way to a source.
pub(super) fn way(source: &Source) -> Way {
    (source.host.key, source.host.protocol.clone())
}

/// What the packets of a source come over; none if that is its protocol's own affair, as where its endpoint says more than the
/// proved addresses.
pub(super) fn carrier(source: &Source) -> Option<NetKind> {
    let host = &source.host;
    host.addrs.first().filter(|_| host.endpoint.is_empty()).map(|a| a.kind)
}

#[derive(Debug)]
struct State {
    carrier: Option<NetKind>,
    /// Fetches under way.
    busy: u32,
    /// When it last brought something, or after that became busy.
    since: Now,
    /// The longest pause lately.
    pause: Duration,
    lanes: Lanes,
    /// Whether it ever brought something.
    proven: bool,
    /// It fell silent, and has brought nothing since.
    silent: bool,
}

/// All that fetches were made by lately.
#[derive(Debug, Default)]
pub(super) struct Ways {
    states: BTreeMap<Way, State>,
    /// Ways that were no good, until when others are preferred.
    shunned: BTreeMap<Way, Now>,
    /// Carriers over which nothing came any more, the same.
    quiet: BTreeMap<NetKind, Now>,
}

impl Ways {
    /// A fetch began.
    pub(super) fn begin(&mut self, now: Now, source: &Source) {
        if self.states.len() >= HOSTS {
            self.states.retain(|_, s| s.busy > 0);
        }
        let state = self.states.entry(way(source)).or_insert_with(|| State {
            carrier: None,
            busy: 0,
            since: now,
            pause: Duration::ZERO,
            lanes: Lanes::new(now),
            proven: false,
            silent: false,
        });
        state.carrier = carrier(source);
        if state.busy == 0 {
            // From one fetch to the next is no pause.
            if now.since(state.since) > IDLE {
                state.lanes.begin(now);
            }
            state.since = now;
        }
        state.busy += 1;
    }

    /// How much is remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.states.len() + self.shunned.len()
    }

    /// A fetch ended.
    pub(super) fn end(&mut self, way: &Way) {
        if let Some(s) = self.states.get_mut(way) {
            s.busy = s.busy.saturating_sub(1);
        }
    }

    /// A fetch brought something.
    pub(super) fn heard(&mut self, now: Now, way: &Way) {
        let Some(s) = self.states.get_mut(way) else { return };
        let pause = now.since(s.since);
        s.pause = pause.max(s.pause.saturating_sub(pause / FADES));
        (s.since, s.proven) = (now, true);
        if let Some(carrier) = s.carrier {
            self.quiet.remove(&carrier);
        }
        if std::mem::take(&mut s.silent) {
            self.shunned.remove(way);
        }
    }

    /// A page came by it, of at most `most` connections.
    pub(super) fn page(&mut self, now: Now, way: &Way, len: u32, most: usize) {
        if let Some(s) = self.states.get_mut(way) {
            s.lanes.page(now, len, most);
        }
    }

    /// How many fetches at once are worth their while, if each has a connection of its own.
    pub(super) fn lanes(&self, now: Now, way: &Way, most: usize) -> usize {
        self.states.get(way).map_or_else(|| Lanes::new(now).count(most), |s| s.lanes.count(most))
    }

    /// When it last brought something, or after that became busy.
    pub(super) fn since(&self, way: &Way) -> Now {
        self.states.get(way).map_or(Now::ZERO, |s| s.since)
    }

    /// After how long without anything it is taken to be silent; none if it never brought anything, so that nothing can be told.
    pub(super) fn patience(&self, way: &Way, least: Duration) -> Option<Duration> {
        let s = self.states.get(way)?;
        if s.silent {
            return Some(least);
        }
        s.proven.then(|| least.max(s.pause * PAUSES))
    }

    /// It has fallen silent; so has its carrier, if nothing came over that for `least`.
    pub(super) fn fell_silent(&mut self, now: Now, way: &Way, least: Duration) {
        let Some(s) = self.states.get_mut(way) else { return };
        s.pause = s.pause.max(now.since(s.since));
        s.silent = true;
        let carrier = s.carrier;
        self.shun(now, way.clone());
        let heard = |s: &State| s.carrier == carrier && s.proven && now.since(s.since) < least;
        if let Some(carrier) = carrier
            && !self.states.values().any(heard)
        {
            self.quiet.insert(carrier, now + SHUNNED);
        }
    }

    /// It could not be reached.
    pub(super) fn shun(&mut self, now: Now, way: Way) {
        remember(&mut self.shunned, now, way, SHUNNED);
    }

    /// Whether others are to be preferred.
    pub(super) fn is_shunned(&self, now: Now, source: &Source) -> bool {
        let until = |t: Option<&Now>| t.is_some_and(|t| *t > now);
        until(self.shunned.get(&way(source))) || carrier(source).is_some_and(|c| until(self.quiet.get(&c)))
    }
}
