//! What a run comes to, beside what no scheduler can do better than.

use std::fmt::Write as _;
use std::time::Duration;

use icet::Now;
use icet::message::Intent;
use serde::Serialize;

use crate::bounds::{self, Member};
use crate::chosen::{Chosen, chosen};
use crate::live::{Heard, snowball};
use crate::outage::Outage;
use crate::rarest::Local;
use crate::scenario::Scenario;
use crate::world::Sim;

/// Figures of a run. Times in seconds; none where there is nothing to tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Name of the scenario.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// Receivers that came.
    pub peers: usize,
    /// Receivers that the scenario has at a time.
    pub listeners: usize,
    /// Bytes of the media.
    pub bytes: u64,
    /// Its pages.
    pub pages: u64,
    /// Virtual seconds from the arrival of the first to the end.
    pub seconds: f64,
    /// When the crowd had everything.
    pub completion: Option<Completion>,
    /// What players heard.
    pub playback: Option<Playback>,
    /// What listeners of a broadcast heard.
    pub listening: Option<Listening>,
    /// What the origin sent.
    pub origin: Origin,
    /// Bytes of pages that were sent in all.
    pub sent: u64,
    /// Share of them that came to somebody who held them.
    pub twice: f64,
    /// Altered pages that came to somebody.
    pub altered: u64,
    /// What control took.
    pub control: Control,
    /// By class of peers.
    pub classes: Vec<Class>,
    /// By protocol, if there are several.
    pub protocols: Vec<Chosen>,
    /// What the tracker's death did.
    pub outage: Option<Outage>,
    /// Why peers were refused, if any were: the first reason.
    pub refused: Option<String>,
    /// How well uploads were used over the run.
    pub course: Vec<Used>,
}

/// How well uploads were used, in a part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Used {
    /// Its end, in seconds from the start.
    pub to: f64,
    /// Share of the origin's upload that was used.
    pub origin: f64,
    /// Share of the uploads that the crowd has, of who was there at its end.
    pub crowd: f64,
    /// Peers that had everything at its end.
    pub done: usize,
    /// Players that waited for more at its end.
    pub dry: usize,
    /// What players needed of the origin's upload at its end, at least and without prefetching, as a share of it: where that is more
    /// than 1, somebody must wait.
    pub least: f64,
}

/// When a crowd had everything.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Completion {
    /// Receivers that had everything at the end, of those who were there and wanted it.
    pub finished: usize,
    /// Of so many.
    pub wanted: usize,
    /// From the start until the last had everything; none if some had not.
    pub last: Option<f64>,
    /// Median and mean time from joining, and that within which 95 % were done.
    pub median: f64,
    /// See `median`.
    pub mean: f64,
    /// See `median`.
    pub p95: f64,
    /// Fluid bound of `last`.
    pub bound: f64,
    /// Achieved over bound.
    pub over_bound: Option<f64>,
    /// Fluid bound of `last` if the origin sends one copy.
    pub bound_of_one_copy: Option<f64>,
    /// Achieved over that.
    pub over_bound_of_one_copy: Option<f64>,
    /// The local rarest-first swarm: when its last had everything.
    pub local_last: Option<f64>,
    /// That over the fluid bound.
    pub local_over_bound: Option<f64>,
    /// Copies that its origin sent.
    pub local_copies: Option<f64>,
}

/// What players heard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Playback {
    /// From joining to sound.
    pub starts: Spread,
    /// From a seek to sound.
    pub seeks: Spread,
    /// Times that a player ran dry.
    pub stalls: u64,
    /// Share of play time that was stalled.
    pub stalled: f64,
    /// Share of players that never stalled.
    pub smooth: f64,
    /// Waits of more than half a second, and of them those for a page that no host of the crowd held, and at most three.
    pub waits: (usize, usize, usize),
    /// Shares of what the origin sent, and of what the crowd sent, that were urgent, bulk and spare.
    pub needs: [[f64; 3]; 2],
    /// Share of the origin's and the crowd's upload that was used, of who was there.
    pub used: (f64, f64),
    /// Share of received bytes that the origin sent.
    pub origin_share: f64,
    /// Least that it can be without prefetching, as players came.
    pub origin_share_bound: f64,
}

/// What listeners of a broadcast heard, once it had settled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listening {
    /// From the source to listeners, of the pages that they waited for: median, 95 %, 99 % and the longest, in seconds.
    pub delay: [f64; 4],
    /// Snowball bound of the crowd: median, 95 % and the last.
    pub bound: [f64; 3],
    /// 95 % of pages came within so many times the bound of the last.
    pub over_bound: f64,
    /// Copies that the source sent.
    pub copies: f64,
    /// From joining to sound.
    pub starts: Spread,
    /// From the source to sound, the player's buffer included.
    pub behind: Spread,
    /// Share of play time that was stalled.
    pub stalled: f64,
    /// Times that somebody waited for a page.
    pub stalls: u64,
    /// Pages left out by those who had waited for them.
    pub lost: u64,
    /// Listeners that heard nothing.
    pub silent: usize,
}

/// How times spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Default)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// Half are below.
    pub median: f64,
    /// 95 % are below.
    pub p95: f64,
    /// The longest.
    pub worst: f64,
}

/// What the origin sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Origin {
    /// Copies of the media.
    pub copies: f64,
    /// Copies over the one that is needed.
    pub over_bound: f64,
    /// Share of all bytes sent.
    pub share: f64,
}

/// What control took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Control {
    /// Messages to the tracker.
    pub to_tracker: u64,
    /// Messages from it.
    pub from_tracker: u64,
    /// Bytes of both over bytes of pages received; none if messages went as types.
    pub share: Option<f64>,
    /// Bytes that the tracker sent for each receiver; none as well.
    pub from_tracker_each: Option<f64>,
}

/// One class of peers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Receivers of it that came.
    pub peers: usize,
    /// Mean time from joining to the end, of those who had everything.
    pub mean: Option<f64>,
    /// The longest.
    pub last: Option<f64>,
    /// Bytes sent over bytes received.
    pub ratio: f64,
    /// Bytes a second that each was served, at the mean, until the first receiver of all had everything; by machine.
    pub served: f64,
    /// Median of the time to sound, of those who play.
    pub starts: Option<f64>,
    /// Share of play time that was stalled.
    pub stalled: Option<f64>,
}

/// A note taken on the way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Seconds from the start.
    pub at: f64,
    /// Bytes that the origin sent.
    pub origin: u64,
    /// Bytes that all sent.
    pub all: u64,
    /// Peers that have everything.
    pub done: usize,
    /// Players that wait for more.
    pub dry: usize,
    /// Bytes a second that the crowd can upload.
    pub up: f64,
    /// Bytes a second that the origin must send players at least, without prefetching.
    pub least: f64,
}

/// What was used between notes.
fn course(samples: &[Sample], origin: f64) -> Vec<Used> {
    let used = |bytes: u64, rate: f64, time: f64| if rate > 0.0 { bytes as f64 / (rate * time) } else { 0.0 };
    let parts = samples.windows(2).filter(|w| w[1].at > w[0].at);
    parts
        .map(|w| {
            let (a, b) = (w[0], w[1]);
            let (time, from_origin) = (b.at - a.at, b.origin - a.origin);
            Used {
                to: b.at,
                origin: used(from_origin, origin, time),
                crowd: used(b.all - a.all - from_origin, b.up, time),
                done: b.done,
                dry: b.dry,
                least: b.least / origin.max(1.0),
            }
        })
        .collect()
}

impl Sample {
    pub(crate) fn of(sim: &Sim, start: Now) -> Sample {
        let players = sim.peers.iter().filter_map(|p| p.player.as_ref());
        let ups: Vec<f64> = (1..sim.peers.len()).filter(|n| sim.lives(*n)).map(|n| sim.gives(n)).collect();
        Sample {
            at: sim.now.since(start).as_secs_f64(),
            origin: sim.sent(0),
            all: (0..sim.peers.len()).map(|n| sim.sent(n)).sum(),
            done: (1..sim.peers.len()).filter(|n| sim.done(*n).is_some()).count(),
            dry: players.filter(|p| p.is_dry()).count(),
            up: ups.iter().sum(),
            least: if sim.media.manifest.duration > 0 {
                bounds::origin_of_players(sim.media.rate() as f64, &ups)
            } else {
                0.0
            },
        }
    }
}

fn spread(mut of: Vec<Duration>) -> Spread {
    of.sort_unstable();
    let at = |share: f64| quantile(&of, share).map_or(0.0, |d| d.as_secs_f64());
    Spread { count: of.len(), median: at(0.5), p95: at(0.95), worst: at(1.0) }
}

/// Of sorted values that below which a share of them lies.
pub(crate) fn quantile<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    // In range: at most the length.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let i = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(i.clamp(1, sorted.len().max(1)) - 1).copied()
}

fn mean(of: &[f64]) -> Option<f64> {
    (!of.is_empty()).then(|| of.iter().sum::<f64>() / of.len() as f64)
}

impl Figures {
    pub(crate) fn of(
        scenario: &Scenario,
        sim: &Sim,
        heard: Option<Heard>,
        start: Now,
        local: Option<&Local>,
        samples: &[Sample],
        outage: Option<Outage>,
    ) -> Figures {
        let receivers = 1..sim.peers.len();
        let bytes = sim.media.offsets.last().copied().unwrap_or(0).max(1);
        let sent: u64 = (0..sim.peers.len()).map(|n| sim.sent(n)).sum();
        let twice: u64 = receivers.clone().map(|n| sim.twice(n)).sum();
        let received: u64 = receivers.clone().map(|n| sim.received(n)).sum();
        let copies = sim.sent(0) as f64 / bytes as f64;
        let control = sim.upstream.bytes + sim.downstream.bytes;
        let counted = control > 0;
        let each = sim.downstream.bytes as f64 / (sim.peers.len() - 1).max(1) as f64;
        Figures {
            scenario: scenario.name.clone(),
            seed: scenario.seed,
            peers: receivers.len(),
            listeners: scenario.crowd.peers,
            bytes,
            pages: sim.media.lens.len() as u64,
            seconds: sim.now.since(start).as_secs_f64(),
            completion: completion(sim, start, local),
            playback: if heard.is_some() { None } else { playback(sim, received, samples) },
            listening: heard.map(|h| listening(scenario, sim, h)),
            origin: Origin { copies, over_bound: copies, share: sim.sent(0) as f64 / sent.max(1) as f64 },
            sent,
            twice: twice as f64 / sent.max(1) as f64,
            altered: receivers.clone().map(|n| sim.bad(n)).sum(),
            control: Control {
                to_tracker: sim.upstream.messages.values().sum(),
                from_tracker: sim.downstream.messages.values().sum(),
                share: counted.then(|| control as f64 / received.max(1) as f64),
                from_tracker_each: counted.then_some(each),
            },
            classes: scenario.crowd.class.iter().enumerate().map(|(i, c)| class(sim, i, &c.name)).collect(),
            protocols: chosen(sim),
            outage,
            refused: sim.peers.iter().find_map(|p| p.refused.clone()),
            course: course(samples, sim.peers[0].spec.line.up),
        }
    }

    /// The figures for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "  {name:<22} {value}");
        };
        let over = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.3}"));
        if let Some(c) = &self.completion {
            let last = c.last.map_or("never".to_owned(), |t| format!("{t:.1} s"));
            line("finished", format!("{} of {}", c.finished, c.wanted));
            line("last completion", format!("{last} / {:.1} s bound = {}", c.bound, over(c.over_bound)));
            if let Some(bound) = c.bound_of_one_copy {
                let over = over(c.over_bound_of_one_copy);
                line("  of one origin copy", format!("{last} / {bound:.1} s bound = {over}"));
            }
            if let (Some(l), Some(copies)) = (c.local_last, c.local_copies) {
                let over = over(c.local_over_bound);
                line("  local rarest-first", format!("{l:.1} s = {over}, {copies:.2} origin copies"));
            }
            line(
                "completion",
                format!("median {:.1} s, mean {:.1} s, 95 % {:.1} s", c.median, c.mean, c.p95),
            );
        }
        line(
            "origin",
            format!("{:.3} copies / 1 bound, {:.1} % of all", self.origin.copies, 100.0 * self.origin.share),
        );
        if let Some(l) = &self.listening {
            let ms = |s: f64| format!("{:.0}", 1000.0 * s);
            let [d50, d95, d99, all] = l.delay.map(ms);
            line("delay added", format!("median {d50} ms, 95 % {d95} ms, 99 % {d99} ms, longest {all} ms"));
            let [b50, b95, last] = l.bound.map(ms);
            line(
                "  snowball bound",
                format!("median {b50} ms, 95 % {b95} ms, last {last} ms; 95 % over it {:.2}", l.over_bound),
            );
            let times =
                |s: &Spread| format!("median {:.2} s, 95 % {:.2} s, worst {:.2} s", s.median, s.p95, s.worst);
            line("copies of the source", format!("{:.2}", l.copies));
            line("join to sound", format!("{} of them: {}", l.starts.count, times(&l.starts)));
            line("behind the source", times(&l.behind));
            line(
                "stalls",
                format!(
                    "{}, {:.3} % of play time; {} pages left out; {} heard nothing",
                    l.stalls,
                    100.0 * l.stalled,
                    l.lost,
                    l.silent
                ),
            );
        }
        if let Some(p) = &self.playback {
            let times = |s: &Spread| {
                format!(
                    "{} of them: median {:.2} s, 95 % {:.2} s, worst {:.2} s",
                    s.count, s.median, s.p95, s.worst
                )
            };
            line("join to sound", times(&p.starts));
            line("seek to sound", times(&p.seeks));
            let smooth = 100.0 * p.smooth;
            line(
                "stalls",
                format!(
                    "{}, {:.3} % of play time; {smooth:.1} % of players none",
                    p.stalls,
                    100.0 * p.stalled
                ),
            );
            let (all, none, few) = p.waits;
            line("waits over 0.5 s", format!("{all}; for a page at no host {none}, at 1 to 3 {few}"));
            let percent = |(a, b)| format!("origin {:.1} %, crowd {:.1} %", 100.0 * a, 100.0 * b);
            line("uploads in use", percent(p.used));
            let [origin, crowd] = p.needs.map(|n| n.map(|x| format!("{:.1}", 100.0 * x)).join("/"));
            line("  urgent/bulk/spare", format!("origin {origin} %, crowd {crowd} %"));
            let (share, bound) = (100.0 * p.origin_share, 100.0 * p.origin_share_bound);
            line("origin's share", format!("{share:.1} % / {bound:.1} % bound"));
        }
        line("sent twice", format!("{:.2} %", 100.0 * self.twice));
        if self.altered > 0 {
            line("altered pages", self.altered.to_string());
        }
        let share =
            self.control.share.map_or(String::new(), |s| format!(", {:.2} % of page bytes", 100.0 * s));
        let each =
            self.control.from_tracker_each.map_or(String::new(), |b| format!(", {b:.0} bytes down to each"));
        line(
            "control",
            format!(
                "{} messages up, {} down{share}{each}",
                self.control.to_tracker, self.control.from_tracker
            ),
        );
        for c in &self.classes {
            let mut text = format!("{} peers, sent/received {:.2}", c.peers, c.ratio);
            let _ = write!(text, ", {:.1} kB/s in scarcity", c.served / 1e3);
            if let Some(first) = self.classes.first().filter(|f| f.served > 0.0 && f.name != c.name) {
                let _ = write!(text, " ({:.2} of {}'s)", c.served / first.served, first.name);
            }
            if let (Some(mean), Some(last)) = (c.mean, c.last) {
                let _ = write!(text, ", done after {mean:.1} s at the mean, {last:.1} s at last");
            }
            if let Some(s) = c.starts {
                let _ = write!(text, ", sound after {s:.2} s");
            }
            if let Some(s) = c.stalled {
                let _ = write!(text, ", stalled {:.3} %", 100.0 * s);
            }
            line(&c.name, text);
        }
        for p in &self.protocols {
            p.lines().into_iter().for_each(|text| line(&p.name, text));
        }
        if let Some(o) = &self.outage {
            o.lines().into_iter().for_each(|text| line("outage", text));
        }
        if let Some(why) = &self.refused {
            line("refused", why.clone());
        }
        out
    }
}

fn completion(sim: &Sim, start: Now, local: Option<&Local>) -> Option<Completion> {
    let wanted: Vec<usize> = (1..sim.peers.len())
        .filter(|n| sim.peers[*n].spec.intent == Intent::Whole && (sim.lives(*n) || sim.done(*n).is_some()))
        .collect();
    if wanted.is_empty() {
        return None;
    }
    let mut times: Vec<f64> = Vec::new();
    let mut last = Now::ZERO;
    for n in &wanted {
        if let Some(t) = sim.done(*n) {
            times.push(t.since(sim.peers[*n].joined).as_secs_f64());
            last = last.max(t);
        }
    }
    times.sort_by(f64::total_cmp);
    let complete = times.len() == wanted.len();
    let churned = (1..sim.peers.len()).any(|n| !sim.lives(n));
    let last = (complete && !churned).then(|| last.since(start).as_secs_f64());
    let size = sim.media.manifest.bytes as f64;
    let members: Vec<Member> = wanted
        .iter()
        .map(|n| Member {
            arrives: sim.peers[*n].joined.since(start).as_secs_f64(),
            up: sim.gives(*n),
            down: sim.peers[*n].spec.line.down,
        })
        .collect();
    let origin = sim.peers[0].spec.line.up;
    let bound = bounds::fluid(size, origin, &members);
    let one = Some(bounds::capped(size, origin, &members, 1.0)).filter(|t| t.is_finite());
    let local_last = local.and_then(|l| l.done.iter().copied().try_fold(0.0, |m, t| Some(f64::max(m, t?))));
    Some(Completion {
        finished: times.len(),
        wanted: wanted.len(),
        last,
        median: quantile(&times, 0.5).unwrap_or(0.0),
        mean: mean(&times).unwrap_or(0.0),
        p95: quantile(&times, 0.95).unwrap_or(0.0),
        bound,
        over_bound: last.map(|t| t / bound),
        bound_of_one_copy: one,
        over_bound_of_one_copy: last.zip(one).map(|(t, b)| t / b),
        local_last,
        local_over_bound: local_last.map(|t| t / bound),
        local_copies: local.map(|l| l.origin as f64 / size),
    })
}

fn playback(sim: &Sim, received: u64, samples: &[Sample]) -> Option<Playback> {
    let players: Vec<_> = sim.peers.iter().filter_map(|p| p.player.as_ref()).collect();
    if players.is_empty() {
        return None;
    }
    let stalled = |p: &crate::play::Player| p.stalled_until(sim.now).as_secs_f64();
    let stall: f64 = players.iter().map(|p| stalled(p)).sum();
    let played: f64 = players.iter().map(|p| p.played.as_secs_f64()).sum();
    let ups: Vec<f64> = (1..sim.peers.len()).filter(|n| sim.lives(*n)).map(|n| sim.gives(n)).collect();
    let rate = sim.media.rate() as f64;
    let waits: Vec<usize> = players
        .iter()
        .flat_map(|p| p.waited.iter().filter(|(d, _)| d.as_millis() > 500).map(|(_, holders)| *holders))
        .collect();
    let up = |of: &dyn Fn(usize) -> u64| (of(0) as f64, (1..sim.peers.len()).map(of).sum::<u64>() as f64);
    let sent = up(&|n| sim.sent(n));
    let needs = [0, 1, 2].map(|i| up(&|n| sim.sent_by_need(n)[i]));
    let seconds = samples.last().map_or(0.0, |s| s.at);
    let could: f64 = samples.windows(2).map(|w| (w[1].at - w[0].at) * w[1].up).sum();
    let part = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    Some(Playback {
        waits: (
            waits.len(),
            waits.iter().filter(|h| **h == 0).count(),
            waits.iter().filter(|h| (1..=3).contains(*h)).count(),
        ),
        needs: [needs.map(|n| part(n.0, sent.0)), needs.map(|n| part(n.1, sent.1))],
        used: (part(sent.0, seconds * sim.peers[0].spec.line.up), part(sent.1, could)),
        starts: spread(players.iter().flat_map(|p| p.starts.clone()).collect()),
        seeks: spread(players.iter().flat_map(|p| p.seeks.clone()).collect()),
        stalls: players.iter().map(|p| u64::from(p.stalls)).sum(),
        stalled: stall / (stall + played).max(1e-9),
        smooth: players.iter().filter(|p| p.stalls == 0).count() as f64 / players.len() as f64,
        origin_share: sim.sent(0) as f64 / received.max(1) as f64,
        origin_share_bound: bounds::origin_of_players(rate, &ups) / (rate * ups.len().max(1) as f64),
    })
}

fn listening(scenario: &Scenario, sim: &Sim, heard: Heard) -> Listening {
    let ups: Vec<f64> = (1..sim.peers.len()).filter(|n| sim.lives(*n)).map(|n| sim.gives(n)).collect();
    let way = scenario.crowd.rtt.iter().sum::<f64>() / 4000.0;
    let len = scenario.stream().map_or(0.0, |s| s.rate * s.page.as_secs_f64());
    let bound = snowball(len, sim.peers[0].spec.line.up, &ups, way);
    let (stalled, played) = (heard.stalled.as_secs_f64(), heard.played.as_secs_f64());
    Listening {
        delay: heard.delay,
        bound,
        over_bound: heard.delay[1] / bound[2].max(1e-9),
        copies: heard.copies,
        starts: spread(heard.starts),
        behind: spread(heard.behind),
        stalled: stalled / (stalled + played).max(1e-9),
        stalls: heard.stalls,
        lost: heard.lost,
        silent: heard.silent,
    }
}

fn class(sim: &Sim, class: usize, name: &str) -> Class {
    let mine: Vec<usize> = (1..sim.peers.len()).filter(|n| sim.peers[*n].spec.class == class).collect();
    let times: Vec<f64> =
        mine.iter().filter_map(|n| Some(sim.done(*n)?.since(sim.peers[*n].joined).as_secs_f64())).collect();
    let (sent, got) = mine.iter().fold((0, 0), |(s, g), n| (s + sim.sent(*n), g + sim.received(*n)));
    let machines = mine.iter().filter(|n| sim.peers[**n].spec.on.is_none());
    let served: Vec<f64> = machines.map(|n| sim.served(*n)).collect();
    let players: Vec<_> = mine.iter().filter_map(|n| sim.peers[*n].player.as_ref()).collect();
    let starts = spread(players.iter().flat_map(|p| p.starts.clone()).collect());
    let stalled: f64 = players.iter().map(|p| p.stalled_until(sim.now).as_secs_f64()).sum();
    let played: f64 = players.iter().map(|p| p.played.as_secs_f64()).sum();
    Class {
        name: name.to_owned(),
        peers: mine.len(),
        mean: mean(&times),
        last: times.iter().copied().reduce(f64::max),
        ratio: sent as f64 / got.max(1) as f64,
        served: mean(&served).unwrap_or(0.0),
        starts: (starts.count > 0).then_some(starts.median),
        stalled: (played > 0.0).then(|| stalled / (stalled + played)),
    }
}
