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
/// A carrier over which nothing comes is tried again after this, and then after twice as long each time, up to that.
const QUIET: (Duration, Duration) = (SHUNNED, Duration::from_secs(60));
/// What came over a carrier so short a time ago says more than a session over it that was given up.
const FRESH: Duration = Duration::from_millis(500);
/// Patience is so many times the longest pause lately; if that was one straggler, no more than this and that pause.
const PAUSES: u32 = 3;
const MARGIN: Duration = Duration::from_millis(900);
/// A pause fades by this part of the time that passes.
const FADES: u32 = 4;

/// Bytes a second below which what comes is no word: a host that drips must not hold up what others would send at once. The
/// slowest line that is worth asking (32 kbit/s, shared by eight) brings as many.
const DRIP: f64 = 512.0;
/// After a longer silence no more than after this is expected: a page that waited for others is a word.
const MOST: f64 = 2.0;
/// Where all ways together bring little, because our own line is slow, each need bring no more than such a part of its share.
const PART: f64 = 8.0;
/// Half-life of what all ways brought.
const LATELY: f64 = 3.0;

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

/// The longest pauses lately.
#[derive(Debug, Clone, Copy, Default)]
struct Pauses {
    longest: Duration,
    second: Duration,
}

impl Pauses {
    fn passed(&mut self, pause: Duration) {
        let second = pause.min(self.longest);
        self.fade(pause);
        (self.longest, self.second) = (self.longest.max(pause), self.second.max(second));
    }

    /// So much time has passed.
    fn fade(&mut self, time: Duration) {
        self.longest = self.longest.saturating_sub(time / FADES);
        self.second = self.second.saturating_sub(time / FADES);
    }

    /// How long a silence says nothing.
    fn patience(self) -> Duration {
        let Pauses { longest, second } = self;
        (longest * PAUSES).min((second * PAUSES).max(longest + MARGIN))
    }
}

/// Bytes that came lately.
#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    sum: f64,
    at: Now,
}

impl Flow {
    fn now(self, now: Now) -> f64 {
        self.sum * (-now.since(self.at).as_secs_f64() / LATELY).exp2()
    }

    fn add(&mut self, now: Now, bytes: u64) {
        *self = Flow { sum: self.now(now) + bytes as f64, at: now };
    }

    /// Bytes a second.
    fn rate(self, now: Now) -> f64 {
        self.now(now) * std::f64::consts::LN_2 / LATELY
    }
}

#[derive(Debug)]
struct State {
    carrier: Option<NetKind>,
    /// Fetches under way.
    busy: u32,
    /// When it last brought something worth the name, or after that became busy.
    since: Now,
    /// What came since and is not: when that began, and how many bytes.
    drips: Option<(Now, u64)>,
    pauses: Pauses,
    lanes: Lanes,
    /// When it last brought something, if it ever did.
    heard: Option<Now>,
    /// It fell silent, and has brought nothing since.
    silent: bool,
}

impl State {
    fn fell_silent(&mut self, now: Now) {
        self.pauses.longest = self.pauses.longest.max(now.since(self.since));
        self.silent = true;
    }
}

/// A carrier over which nothing came any more, and has not since.
#[derive(Debug)]
struct Quiet {
    /// When that was last found.
    found: Now,
    /// Until then it comes last; from then on one fetch at a time tries it.
    until: Now,
    pause: Duration,
}

/// How far others are to be preferred to a source; the less, the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Nothing is known against it.
    Good,
    /// It fell silent, or could not be reached.
    Shunned,
    /// Nothing comes over its carrier, whoever sends.
    Quiet,
}

/// All that fetches were made by lately.
#[derive(Debug, Default)]
pub(super) struct Ways {
    states: BTreeMap<Way, State>,
    /// Ways that were no good, until when others are preferred.
    shunned: BTreeMap<Way, Now>,
    quiet: BTreeMap<NetKind, Quiet>,
    /// When something last came, by any of them, and the pauses lately that were no standstill.
    life: Option<(Now, Pauses)>,
    all: Flow,
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
            drips: None,
            pauses: Pauses::default(),
            lanes: Lanes::new(now),
            heard: None,
            silent: false,
        });
        state.carrier = carrier(source);
        if state.busy == 0 {
            // From one fetch to the next is no pause.
            if now.since(state.since) > IDLE {
                state.lanes.begin(now);
            }
            (state.since, state.drips) = (now, None);
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

    /// A fetch brought so many bytes. Whether that counts: not if no more comes by this way than drips.
    pub(super) fn came(&mut self, now: Now, way: &Way, bytes: u64) -> bool {
        self.all.add(now, bytes);
        let Some(s) = self.states.get_mut(way) else { return false };
        let (began, before) = s.drips.unwrap_or((now, 0));
        let bytes = before.saturating_add(bytes);
        s.drips = Some((began, bytes));
        let (bytes, seconds) = (bytes as f64, now.since(s.since).as_secs_f64().min(MOST));
        let counts = bytes > 0.0 && (bytes >= DRIP * seconds || bytes >= self.least(now) * seconds);
        if counts {
            self.heard(now, way);
        }
        counts
    }

    /// Bytes a second that a way has to bring.
    fn least(&self, now: Now) -> f64 {
        let busy = self.states.values().filter(|s| s.busy > 0).count().max(1);
        let all = self.all.rate(now);
        if all < DRIP { DRIP } else { all / (PART * busy as f64) }
    }

    /// A fetch brought something.
    pub(super) fn heard(&mut self, now: Now, way: &Way) {
        let Some(s) = self.states.get_mut(way) else { return };
        s.drips = None;
        s.pauses.passed(now.since(s.since));
        (s.since, s.heard) = (now, Some(now));
        let (last, mut pauses) = self.life.unwrap_or((now, Pauses::default()));
        let pause = now.since(last);
        // A longer one is over because fetches went on elsewhere: nobody is slow like that.
        if pause < IDLE {
            pauses.passed(pause);
        } else {
            pauses.fade(pause);
        }
        self.life = Some((now, pauses));
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

    /// When a fetch by it that brought nothing since `moved` is taken to have fallen silent, after `least` at the soonest. If it
    /// never brought anything, that can be told only where nothing comes by any other one either: then somebody stands still,
    /// and it does no better than the rest. None: nothing can be told.
    pub(super) fn due(&self, way: &Way, moved: Now, least: Duration) -> Option<Now> {
        let s = self.states.get(way)?;
        if s.silent || s.carrier.is_some_and(|c| self.quiet.contains_key(&c)) {
            return Some(moved + least);
        }
        if s.heard.is_some() {
            return Some(moved + least.max(s.pauses.patience()));
        }
        // It has begun to send, so nothing else is before us; and this is all.
        let drips = s.drips.map(|(began, _)| began + least);
        drips.into_iter().chain(self.still(moved, least)).min()
    }

    /// It has fallen silent, for all one knows since its protocol does not notice that its way is cut: it is asked once more, over a new connection,
    /// and nothing is held against it. False: it was, and brought nothing.
    pub(super) fn is_asked_again(&mut self, now: Now, way: &Way) -> bool {
        let Some(s) = self.states.get_mut(way).filter(|s| !s.silent) else { return false };
        s.fell_silent(now);
        true
    }

    /// Whether a way whose packets are its protocol's own affair brought something, and did not fall silent.
    pub(super) fn may_be_cut(&self, source: &Source) -> bool {
        let state = self.states.get(&way(source));
        carrier(source).is_none() && state.is_some_and(|s| s.heard.is_some() && !s.silent)
    }

    /// It has fallen silent; so has its carrier, if nothing came over that for `least`. `live`: where that is not known and nothing came by any
    /// way, the source of all may have paused, and who was named first is no worse than others who wait for the same.
    pub(super) fn fell_silent(&mut self, now: Now, way: &Way, least: Duration, live: bool) {
        let all_silent = !self.came_within(now, least);
        let Some(s) = self.states.get_mut(way) else { return };
        s.fell_silent(now);
        let carrier = s.carrier;
        if !(live && carrier.is_none() && all_silent) {
            self.shun(now, way.clone());
        }
        if let Some(carrier) = carrier {
            self.lost(now, carrier, least);
        }
    }

    /// A session over this carrier was given up for one over another.
    pub(super) fn gave_up(&mut self, now: Now, carrier: NetKind) {
        self.lost(now, carrier, FRESH);
    }

    /// A session over this carrier was set up.
    pub(super) fn passes(&mut self, carrier: NetKind) {
        self.quiet.remove(&carrier);
    }

    /// Nothing comes over a carrier any more, unless something did less than `fresh` ago.
    fn lost(&mut self, now: Now, carrier: NetKind, fresh: Duration) {
        let heard = |s: &State| s.carrier == Some(carrier) && s.heard.is_some_and(|at| now.since(at) < fresh);
        if self.states.values().any(heard) {
            return;
        }
        let quiet = self.quiet.entry(carrier).or_insert(Quiet { found: now, until: now, pause: QUIET.0 / 2 });
        // Of several that fall silent one after the other only the first counts.
        if quiet.until <= now {
            quiet.found = now;
            quiet.pause = (quiet.pause * 2).min(QUIET.1);
            quiet.until = now + quiet.pause;
        }
    }

    /// It could not be reached.
    pub(super) fn shun(&mut self, now: Now, way: Way) {
        // It is looked through for each source.
        self.shunned.retain(|_, until| *until > now);
        remember(&mut self.shunned, now, way, SHUNNED);
    }

    /// Whether something came lately from a host that is not `named`.
    pub(super) fn others_bring(&self, now: Now, named: impl Fn(&PeerKey) -> bool) -> bool {
        let brings = |s: &State| !s.silent && s.heard.is_some_and(|at| now.since(at) < SHUNNED);
        self.states.iter().any(|((host, _), s)| brings(s) && !named(host))
    }

    /// Whether anything came by any way less than `d` ago.
    pub(super) fn came_within(&self, now: Now, d: Duration) -> bool {
        self.life.is_some_and(|(last, _)| now.since(last) < d)
    }

    /// Whether anything ever came from a host.
    pub(super) fn knows(&self, host: &PeerKey) -> bool {
        self.states.iter().any(|((h, _), s)| h == host && s.heard.is_some())
    }

    /// From when on somebody stands still whose fetch brought nothing since `moved`: nothing came by any way for `least`, or for
    /// much longer than ever lately.
    pub(super) fn still(&self, moved: Now, least: Duration) -> Option<Now> {
        self.life.map(|(last, pauses)| moved.max(last) + least.max(pauses.patience()))
    }

    /// Whether nothing had come by any way for so long, at that time.
    pub(super) fn stood_still(&self, at: Now, silence: Duration) -> bool {
        self.life.is_some_and(|(last, _)| last < at && at.since(last) >= silence)
    }

    /// Whether so much time has passed since nothing came over a source's carrier that it may pass again, for all one knows.
    pub(super) fn may_pass(&self, now: Now, source: &Source) -> bool {
        let quiet = carrier(source).and_then(|c| self.quiet.get(&c));
        quiet.is_some_and(|q| now.since(q.found) >= SHUNNED)
    }

    /// Whether nothing comes from a host any more, though something does from others over the same carrier: its other ways are no better.
    /// After a while it is asked again.
    fn is_dead(&self, now: Now, host: &PeerKey) -> bool {
        let fails = |s: &State| {
            let speaks = |((h, _), o): (&Way, &State)| h == host && o.heard > Some(s.since);
            let passes = |((h, _), o): (&Way, &State)| {
                h != host && (s.carrier.is_none() || o.carrier == s.carrier) && o.heard > Some(s.since)
            };
            s.silent && !self.states.iter().any(speaks) && self.states.iter().any(passes)
        };
        let shunned = self.shunned.iter().filter(|((h, _), until)| h == host && **until > now);
        shunned.filter_map(|(way, _)| self.states.get(way)).any(fails)
    }

    /// How far others are to be preferred.
    pub(super) fn standing(&self, now: Now, source: &Source) -> Standing {
        let tried = |c| self.states.values().any(|s| s.carrier == Some(c) && s.busy > 0);
        let quiet = |c| self.quiet.get(&c).is_some_and(|q| q.until > now || tried(c));
        if carrier(source).is_some_and(quiet) {
            Standing::Quiet
        } else if self.shunned.get(&way(source)).is_some_and(|until| *until > now)
            || self.is_dead(now, &source.host.key)
        {
            Standing::Shunned
        } else {
            Standing::Good
        }
    }
}
