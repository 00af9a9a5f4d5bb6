//! Live media: a source that makes pages at its rate, and listeners who hear them as late as their buffers are deep.

use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use iceshare::engine::io::Command;
use icet::key::Hash;
use icet::live::{Head, NO_BATCH, SignedHead};
use icet::{Identity, Manifest, MediaPath, Now, PageFlags, PageMap, PageNo, PageRecord, SignedManifest};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::media::SimMedia;
use crate::peer::MEDIA;
use crate::world::{Event, Sim};

/// Setup pages, and what each of them takes in bytes.
pub(crate) const SETUP: (PageNo, u32) = (2, 1500);
/// How often the source tells the tracker how far it is, as the driver does.
const HEAD: Duration = Duration::from_millis(1000);
/// A page that is missing while later ones are here is waited for so long, as the reader does.
const PATIENCE: Duration = Duration::from_secs(6);
/// Who hears nothing for so long after joining counts as stalled from then on.
const SILENT: Duration = Duration::from_secs(5);
/// Delays are counted by the millisecond up to here.
const LONGEST: usize = 20_000;

/// What a source sends.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// Bytes a second.
    pub rate: f64,
    /// Media time of a page.
    pub page: Duration,
    /// For how long.
    pub lasts: Duration,
    /// Media that a player holds before sound.
    pub buffer: Duration,
    /// Delays and stalls count from then on.
    pub settles: Duration,
    /// From when on nothing leaves the source's line, and for how long.
    pub dark: Option<(Duration, Duration)>,
}

/// What is heard of a broadcast.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) stream: Stream,
    /// When the source had its first page.
    began: Now,
    /// When counting begins.
    from: Now,
    identity: Identity,
    lens: Vec<u32>,
    offsets: Vec<u64>,
    pub(crate) listeners: HashMap<usize, Listener>,
    /// Pages that came so many milliseconds after the source had them.
    delays: Vec<u64>,
    /// What the source had sent when counting began.
    before: u64,
}

/// One who listens.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    joined: Now,
    /// Its first page behind the setup, and the next one that is to sound.
    first: Option<PageNo>,
    next: PageNo,
    /// When it first had sound.
    pub(crate) sound: Option<Now>,
    /// When `first` would sound had all sounded that far without a stall.
    base: Now,
    stalled: Duration,
    played: Duration,
    /// Pages left out.
    pub(crate) lost: u64,
    stalls: u64,
    /// Since when a page is missing although later ones are here.
    hole: Option<Now>,
    gone: bool,
    /// It heard nothing, for longer than that may take.
    silent: bool,
}

/// Made-up pages of live media under a true manifest.
pub(crate) fn media(publisher: &Identity, stream: &Stream, seed: u64) -> SimMedia {
    let mut rng = SmallRng::seed_from_u64(seed);
    // In range: lengths of pages and of broadcasts.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let (len, pages) = (
        (stream.rate * stream.page.as_secs_f64()).max(64.0) as u32,
        (stream.lasts.as_secs_f64() / stream.page.as_secs_f64()).ceil() as usize,
    );
    let mut lens = vec![SETUP.1; usize::try_from(SETUP.0).unwrap_or(0)];
    lens.extend((0..pages).map(|_| rng.random_range(len * 9 / 10..=len * 11 / 10)));
    let mut offsets = vec![0];
    offsets.extend(lens.iter().scan(0, |at, l| {
        *at += u64::from(*l);
        Some(*at)
    }));
    let manifest = Manifest {
        version: 1,
        ..Manifest::live(MediaPath::new("sim/live").expect("a media path"), publisher.key(), Hash([9; 32]))
    };
    let manifest = SignedManifest::sign(manifest, publisher).expect("a manifest within its limits");
    SimMedia { manifest, slices: Vec::new(), lens, offsets }
}

impl Live {
    pub(crate) fn new(stream: Stream, identity: Identity, media: &SimMedia) -> Live {
        Live {
            stream,
            began: Now::ZERO,
            from: Now::ZERO + stream.settles,
            identity,
            lens: media.lens.clone(),
            offsets: media.offsets.clone(),
            listeners: HashMap::new(),
            delays: vec![0; LONGEST + 1],
            before: 0,
        }
    }

    /// When the source has a page.
    fn made(&self, page: PageNo) -> Now {
        self.began + self.time(page.saturating_sub(SETUP.0))
    }

    /// Media time of so many pages.
    fn time(&self, pages: u64) -> Duration {
        Duration::from_micros(u64::try_from(self.stream.page.as_micros()).unwrap_or(0) * pages)
    }

    fn head(&self, next: PageNo) -> SignedHead {
        let record = |len| PageRecord { len, crc: 0, hash: Hash([7; 32]), flags: PageFlags::SETUP, time: 0 };
        let at = usize::try_from(next).unwrap_or(usize::MAX).min(self.offsets.len() - 1);
        let head = Head {
            broadcast: Hash([9; 32]),
            next,
            offset: self.offsets[at],
            time: 0,
            last: NO_BATCH,
            link: 0,
            link_offset: 0,
            link_time: 0,
            setup: (0..SETUP.0).map(|_| record(SETUP.1)).collect(),
            key: (next - 1).max(SETUP.0),
            signed_at: 0,
            title: None,
            ended: None,
        };
        SignedHead::sign(head, &self.identity).expect("a head within its limits")
    }

    fn arrived(&mut self, now: Now, n: usize, page: PageNo, held: &PageMap) {
        let made = self.made(page);
        let (buffer, from) = (self.stream.buffer, self.from);
        let time = |pages: u64| {
            Duration::from_micros(u64::try_from(self.stream.page.as_micros()).unwrap_or(0) * pages)
        };
        let Some(l) = self.listeners.get_mut(&n) else { return };
        if page < SETUP.0 {
            return l.may_begin(now, held, buffer, time);
        }
        if made >= from && l.sound.is_some_and(|s| s <= made) {
            let ms = usize::try_from(now.since(made).as_millis()).unwrap_or(LONGEST).min(LONGEST);
            self.delays[ms] += 1;
        }
        l.first = Some(l.first.map_or(page, |f| if l.sound.is_some() { f } else { f.min(page) }));
        l.may_begin(now, held, buffer, time);
        l.hear(now, held, from, time);
    }
}

impl Listener {
    fn may_begin(&mut self, now: Now, held: &PageMap, buffer: Duration, time: impl Fn(u64) -> Duration) {
        let Some(first) = self.first.filter(|_| self.sound.is_none()) else { return };
        let gap = held.first_missing(first).unwrap_or(first);
        if held.first_missing(0).is_none_or(|p| p >= SETUP.0) && time(gap - first) >= buffer {
            (self.sound, self.base, self.next) = (Some(now), now, first);
        }
    }

    /// Plays on over what is here; whoever was waited for has come, or is left out.
    fn hear(&mut self, now: Now, held: &PageMap, from: Now, time: impl Fn(u64) -> Duration) {
        let (Some(first), Some(_)) = (self.first, self.sound) else { return };
        loop {
            let due = self.base + time(self.next - first);
            if held.has(self.next) {
                self.hole = None;
                self.late(now, due, from);
                self.next += 1;
                continue;
            }
            let Some(later) = held.first_held(self.next) else { return };
            let since = *self.hole.get_or_insert(now);
            if now.since(since) < PATIENCE {
                return;
            }
            self.hole = None;
            self.late(now, due, from);
            self.lost += later - self.next;
            // What is left out takes no time.
            self.base = Now(self.base.0.saturating_sub(micros(time(later - self.next))));
            self.next = later;
        }
    }

    /// What was due then comes now.
    fn late(&mut self, now: Now, due: Now, from: Now) {
        if now > due {
            let late = now.since(due);
            self.base = self.base + late;
            if now > from {
                self.stalled += now.since(due.max(from));
                self.stalls += 1;
            }
        }
    }

    /// Until when it listened.
    fn ends(&mut self, now: Now, from: Now, time: impl Fn(u64) -> Duration) {
        if std::mem::replace(&mut self.gone, true) {
            return;
        }
        if let (Some(first), Some(sound)) = (self.first, self.sound) {
            let due = self.base + time(self.next - first);
            self.late(now, due, from);
            self.played = now.since(sound.max(from).min(now)).saturating_sub(self.stalled);
        } else {
            self.stalled += now.since((self.joined + SILENT).max(from).min(now));
            self.silent = now.since(self.joined) > SILENT;
        }
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

/// What came of a broadcast, counted from when it had settled.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Heard {
    pub(crate) delay: [f64; 4],
    pub(crate) pages: u64,
    pub(crate) starts: Vec<Duration>,
    pub(crate) behind: Vec<Duration>,
    pub(crate) stalled: Duration,
    pub(crate) played: Duration,
    pub(crate) stalls: u64,
    pub(crate) lost: u64,
    pub(crate) silent: usize,
    pub(crate) copies: f64,
}

impl Sim {
    /// The broadcast begins.
    pub(crate) fn go_on_air(&mut self) {
        let (now, sent) = (self.now, self.sent(0));
        let Some(live) = &mut self.live else { return };
        (live.began, live.from, live.before) = (now, now + live.stream.settles, sent);
        let (settles, dark) = (live.stream.settles, live.stream.dark);
        for page in 0..SETUP.0 {
            self.net.made(now, &mut self.events, 0, page);
        }
        self.after(Duration::ZERO, Event::Source(SETUP.0));
        self.after(Duration::from_millis(1), Event::Head);
        self.after(settles, Event::Settled);
        if let Some((at, lasts)) = dark {
            self.after(at, Event::Dark(lasts));
        }
    }

    pub(crate) fn source(&mut self, page: PageNo) {
        let Some(live) = &self.live else { return };
        if page >= live.lens.len() as u64 {
            return;
        }
        let pause = live.stream.page;
        self.net.made(self.now, &mut self.events, 0, page);
        self.after(pause, Event::Source(page + 1));
    }

    pub(crate) fn tell_head(&mut self) {
        let Some(live) = &self.live else { return };
        let next = self.net.nodes[0].held.as_ref().and_then(|h| h.first_missing(0));
        let head = live.head(next.unwrap_or(live.lens.len() as u64)).signed().clone();
        self.command(0, Command::Head { handle: MEDIA, head, earlier: std::sync::Arc::default() });
        self.after(HEAD, Event::Head);
    }

    pub(crate) fn settled(&mut self) {
        let sent = self.sent(0);
        self.live.iter_mut().for_each(|l| l.before = sent);
    }

    pub(crate) fn darken(&mut self, lasts: Duration) {
        self.net.darken(0, self.now + lasts);
    }

    /// Somebody listens from now on.
    pub(crate) fn listens(&mut self, n: usize) {
        let joined = self.now;
        if let Some(live) = &mut self.live {
            live.listeners.insert(n, Listener { joined, ..Listener::default() });
        }
    }

    /// A page is there.
    pub(crate) fn sounds(&mut self, n: usize, page: PageNo) {
        if let (Some(live), Some(held)) = (&mut self.live, &self.net.nodes[n].held) {
            live.arrived(self.now, n, page, held);
        }
    }

    /// Somebody listens no longer.
    pub(crate) fn hangs_up(&mut self, n: usize) {
        let Some(live) = &mut self.live else { return };
        let page = live.stream.page;
        let time = |pages: u64| Duration::from_micros(micros(page) * pages);
        if let Some(l) = live.listeners.get_mut(&n) {
            l.ends(self.now, live.from, time);
        }
    }

    /// What was heard in all; the run is over.
    pub(crate) fn heard(&mut self) -> Option<Heard> {
        let all: Vec<usize> = self.live.as_ref()?.listeners.keys().copied().collect();
        all.into_iter()
            .filter(|n| self.lives(*n))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|n| self.hangs_up(n));
        let (now, sent) = (self.now, self.sent(0));
        let live = self.live.as_ref()?;
        let mut heard = Heard::default();
        for l in live.listeners.values() {
            heard.stalled += l.stalled;
            heard.played += l.played;
            heard.stalls += l.stalls;
            heard.lost += l.lost;
            match (l.sound, l.first) {
                (Some(sound), Some(first)) => {
                    heard.starts.push(sound.since(l.joined));
                    let base = if l.base > sound { l.base } else { sound };
                    heard.behind.push(base.since(live.made(first).min(base)));
                }
                _ => heard.silent += usize::from(l.silent),
            }
        }
        heard.pages = live.delays.iter().sum();
        let at = |share: f64| {
            let mut left = share * heard.pages as f64;
            let i = live.delays.iter().position(|n| {
                left -= *n as f64;
                left <= 0.0
            });
            i.unwrap_or(LONGEST) as f64 / 1000.0
        };
        heard.delay = [at(0.5), at(0.95), at(0.99), at(1.0)];
        let counted = now.since(live.from.min(now)).as_secs_f64() * live.stream.rate;
        heard.copies = (sent - live.before.min(sent)) as f64 / counted.max(1.0);
        Some(heard)
    }
}

/// Seconds after which half, 95 % and all of such peers can have one page of `len` bytes at the soonest: whoever has it sends it to one
/// after the other, the fastest first (Liu's snowball). `ways`: seconds one way between two; uploads in bytes a second.
#[must_use]
pub fn snowball(len: f64, origin: f64, ups: &[f64], way: f64) -> [f64; 3] {
    let mut ups: Vec<f64> = ups.to_vec();
    ups.sort_by(|a, b| b.total_cmp(a));
    // Earliest first: microseconds and upload.
    let micros = |s: f64| {
        // In range: delays of pages.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let us = (s * 1e6).round().clamp(0.0, 1e15) as u64;
        us
    };
    let mut senders = BinaryHeap::new();
    let push = |senders: &mut BinaryHeap<_>, at: f64, up: f64| {
        if up > 0.0 {
            senders.push((std::cmp::Reverse(micros(at + len / up)), micros(up)));
        }
    };
    push(&mut senders, 0.0, origin);
    let mut times = Vec::with_capacity(ups.len());
    for up in &ups {
        let Some((std::cmp::Reverse(end), sender)) = senders.pop() else { break };
        let end = end as f64 / 1e6;
        times.push(end + way);
        push(&mut senders, end, sender as f64 / 1e6);
        push(&mut senders, end + way, *up);
    }
    times.sort_by(f64::total_cmp);
    [0.5, 0.95, 1.0].map(|share| crate::figures::quantile(&times, share).unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::snowball;

    #[test]
    fn a_snowball_doubles() {
        // Equal uploads, no way: ⌈log2 (N + 1)⌉ times what a page takes, with the origin among them.
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-3, "{a} {b}");
        near(snowball(1000.0, 10_000.0, &[10_000.0; 7], 0.0)[2], 0.3);
        near(snowball(1000.0, 10_000.0, &[10_000.0; 8], 0.0)[2], 0.4);
        // The table of 64 kbit/s in pages of 250 ms over uploads of 1 Mbit/s: 0.21 s.
        near((snowball(2000.0, 1_250_000.0, &[125_000.0; 1000], 0.03)[2] * 100.0).round(), 21.0);
        assert!(snowball(1000.0, 10_000.0, &[0.0; 3], 0.0)[2] > 0.29, "one after the other");
    }
}
