//! Which protocols were chosen when, where there was a choice, and what the tracker believes of them.

use std::fmt::Write as _;
use std::time::Duration;

use icet::Now;
use serde::Serialize;

use crate::protocol::{PART, Protocol};
use crate::scenario::PUBLISH;
use crate::world::Sim;

/// Loss from which on a protocol is one to be left.
const BAD: f64 = 0.05;
/// What a share is taken over, to tell when it changed, and before a change.
const WINDOW: Duration = Duration::from_secs(2);
const BEFORE: Duration = Duration::from_secs(10);
/// How much of what it had a protocol keeps that is left, and has that is taken back.
const LEFT: f64 = 0.1;
const BACK: f64 = 0.5;

/// One protocol. Shares are those of pages asked for, where host and receiver spoke it and others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// Its share of urgent pages, and of others, over the run.
    pub urgent: f64,
    /// See `urgent`.
    pub bulk: f64,
    /// What the tracker believes at the end: probability that a fetch ends well, bytes a second, milliseconds to the first byte.
    pub success: f64,
    /// See `success`.
    pub goodput: Option<f64>,
    /// See `success`.
    pub first_byte: Option<f64>,
    /// Seconds from the start until it was first asked for, if ever.
    pub first: Option<f64>,
    /// What came of each time that it lost much.
    pub spells: Vec<Spell>,
    /// Its share of urgent pages, and of others, by minute.
    pub minutes: Vec<(f64, f64)>,
}

/// A time in which a protocol lost much.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spell {
    /// When it began and ended, in seconds from the start.
    pub from: f64,
    /// See `from`.
    pub to: f64,
    /// Share of packets that it lost.
    pub loss: f64,
    /// Its share of urgent pages before.
    pub before: f64,
    /// Seconds until nine tenths of that had left it for the rest of the spell.
    pub left: Option<f64>,
    /// Pages asked for over it from then on, and its share of all.
    pub probes: u64,
    /// See `probes`.
    pub probed: f64,
    /// Seconds after it healed until it had half of what it had before.
    pub back: Option<f64>,
}

fn share((mine, all): (u64, u64)) -> f64 {
    mine as f64 / all.max(1) as f64
}

pub(crate) fn chosen(sim: &Sim) -> Vec<Chosen> {
    if sim.net.protocols.len() < 2 {
        return Vec::new();
    }
    let end = sim.now.since(Now::ZERO);
    let believed = sim.believed();
    let one = |(i, p): (usize, &Protocol)| {
        let asked = |kind| sim.net.requests.between(Duration::ZERO, end, i, kind);
        let view = believed.iter().find(|v| v.name.to_string() == p.name);
        let minute = |m: u32| {
            let (from, to) =
                (PUBLISH + m * Duration::from_secs(60), PUBLISH + (m + 1) * Duration::from_secs(60));
            let share = |kind| share(sim.net.requests.between(from, to, i, kind));
            (share(0), share(1))
        };
        let minutes = u32::try_from(end.saturating_sub(PUBLISH).as_secs().div_ceil(60)).unwrap_or(0);
        Chosen {
            name: p.name.clone(),
            urgent: share(asked(0)),
            bulk: share(asked(1)),
            success: view.map_or(0.0, |v| v.success),
            goodput: view.and_then(|v| v.goodput),
            first_byte: view.and_then(|v| v.first_byte_ms),
            first: steps(PUBLISH, end).find(|t| asked_in(sim, i, *t, *t + PART).0 > 0).map(since_start),
            spells: spells(sim, i, p, end),
            minutes: (0..minutes).map(minute).collect(),
        }
    };
    sim.net.protocols.iter().enumerate().map(one).collect()
}

fn since_start(t: Duration) -> f64 {
    t.saturating_sub(PUBLISH).as_secs_f64()
}

fn steps(from: Duration, to: Duration) -> impl Iterator<Item = Duration> {
    let n = u32::try_from(to.saturating_sub(from).as_millis() / PART.as_millis()).unwrap_or(u32::MAX);
    (0..n).map(move |i| from + i * PART)
}

/// Pages of any need.
fn asked_in(sim: &Sim, i: usize, from: Duration, to: Duration) -> (u64, u64) {
    let [a, b] = [0, 1].map(|kind| sim.net.requests.between(from, to, i, kind));
    (a.0 + b.0, a.1 + b.1)
}

fn spells(sim: &Sim, i: usize, p: &Protocol, end: Duration) -> Vec<Spell> {
    let urgent = |from, to| share(sim.net.requests.between(from, to, i, 0));
    // What it always did is no change.
    let bad = p.loss.iter().enumerate().filter(|(_, (from, loss))| *loss >= BAD && *from > PUBLISH);
    bad.filter(|(_, (from, _))| *from < end)
        .map(|(k, (from, loss))| {
            let (from, next) = (*from, p.loss.get(k + 1).map(|(at, _)| *at));
            let to = next.unwrap_or(end).min(end);
            let before = urgent(from.saturating_sub(BEFORE), from);
            let most = LEFT * before;
            let gone = |t: &Duration| urgent(*t, *t + WINDOW) <= most && urgent(*t, to) <= most;
            let left = steps(from, to).find(gone);
            let (probes, all) = asked_in(sim, i, left.unwrap_or(from), to);
            let has = |t: &Duration| urgent(*t, *t + WINDOW) >= BACK * before;
            let back = next.filter(|t| *t < end).and_then(|_| steps(to, end).find(has));
            Spell {
                from: since_start(from),
                to: since_start(to),
                loss: *loss,
                before,
                left: left.map(|t| (t - from).as_secs_f64()),
                probes,
                probed: share((probes, all)),
                back: back.map(|t| (t - to).as_secs_f64()),
            }
        })
        .collect()
}

impl Chosen {
    /// For people: a text for each line of figures.
    pub(crate) fn lines(&self) -> Vec<String> {
        let percent = |x: f64| format!("{:.1} %", 100.0 * x);
        let seconds = |t: Option<f64>| t.map_or("never".to_owned(), |t| format!("{t:.1} s"));
        let mut text = format!("{} of urgent pages, {} of others", percent(self.urgent), percent(self.bulk));
        let _ = write!(text, "; believed: {} end well", percent(self.success));
        if let (Some(rate), Some(first)) = (self.goodput, self.first_byte) {
            let _ = write!(text, ", {:.0} kB/s, first byte after {first:.0} ms", rate / 1e3);
        }
        let mut lines = vec![text];
        for s in &self.spells {
            lines.push(format!(
                "{} lost from {:.0} s: {} of urgent pages before, nine tenths left after {}; {} pages ({}) meanwhile; healed at {:.0} s, taken back after {}",
                percent(s.loss),
                s.from,
                percent(s.before),
                seconds(s.left),
                s.probes,
                percent(s.probed),
                s.to,
                seconds(s.back),
            ));
        }
        let minutes: Vec<String> =
            self.minutes.iter().map(|(a, b)| format!("{:.0}/{:.0}", 100.0 * a, 100.0 * b)).collect();
        let first = seconds(self.first);
        lines.push(format!(
            "first asked for after {first}; % of urgent/other pages by minute: {}",
            minutes.join(" ")
        ));
        lines
    }
}
