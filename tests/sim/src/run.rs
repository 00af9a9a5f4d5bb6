//! Runs a scenario: who comes, goes and seeks when, and what is noted on the way.

use std::time::Duration;

use iceshare::engine::io::Giving;
use icet::Now;
use icet::message::Intent;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::bounds::{self, Member};
use crate::figures::{Figures, Sample};
use crate::net::Death;
use crate::outage::Before;
use crate::peer::Spec;
use crate::queue::Queue;
use crate::rarest::{self, Local};
use crate::scenario::{PUBLISH, Scenario};
use crate::world::{Sim, Wire};

/// Notes taken of a run that takes no longer than its bound.
const SAMPLES: f64 = 150.0;

#[derive(Debug)]
enum Plan {
    Join(usize),
    /// Somebody who came goes, and another one comes.
    Replace(usize),
    Seek(usize),
    Note,
    /// The tracker dies, and is back.
    Dies,
    Returns,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The figures.
    pub figures: Figures,
    /// Notes taken on the way.
    pub samples: Vec<Sample>,
    /// Seconds from joining until each had everything; none if it had not.
    pub done: Vec<Option<f64>>,
    /// Of each receiver, bytes sent and seconds from joining until it had everything, with its class.
    pub gave: Vec<(usize, u64, Option<f64>)>,
    /// Of each player, the share of its time in which it stalled.
    pub stalls: Vec<f64>,
    /// The local rarest-first swarm beside it.
    pub local: Option<Local>,
    /// Events that were handled.
    pub events: u64,
}

/// Runs a scenario; `wire`: how messages go.
#[must_use]
pub fn run(scenario: &Scenario, wire: Wire) -> Outcome {
    let (seed, publisher, protocols) = (scenario.seed, scenario.publisher(), scenario.protocols());
    let mut sim = match scenario.stream() {
        Some(stream) => Sim::on_air(seed, stream, publisher, protocols),
        None => Sim::over(seed, scenario.pages(), publisher, protocols),
    };
    sim.wire = wire;
    if scenario.origin.once {
        sim.give(0, Giving { once: true, ..Giving::default() });
    }
    sim.buffers = scenario.buffers();
    sim.run(PUBLISH, |_| false);
    sim.go_on_air();
    let start = sim.now;
    let end = start + Duration::from_secs_f64(scenario.seconds);
    let mut crew =
        Crew { scenario, rng: SmallRng::seed_from_u64(scenario.seed ^ 0x5eed), plan: Queue::new() };
    let crowd = scenario.crowd();
    for (i, (at, _)) in crowd.iter().enumerate() {
        crew.plan.push(start + *at, Plan::Join(i));
    }
    let lasts = if scenario.is_open_ended() { scenario.seconds } else { expected(scenario, &crowd) };
    let pause = Duration::from_secs_f64((lasts / SAMPLES).clamp(0.05, 60.0));
    crew.plan.push(start, Plan::Note);
    if scenario.outage.seconds > 0.0 {
        let dies = start + Duration::from_secs_f64(scenario.outage.at);
        crew.plan.push(dies, Plan::Dies);
        crew.plan.push(dies + Duration::from_secs_f64(scenario.outage.seconds), Plan::Returns);
    }
    let mut samples = Vec::new();
    let mut coming = crowd.len();
    let (mut before, mut after) = (None, None);
    loop {
        let next = crew.plan.next_at().unwrap_or(end).min(end);
        let finite = coming == 0 && !scenario.is_open_ended();
        let done = sim.run(next.since(sim.now), |s| finite && s.is_complete());
        if done || next >= end {
            break;
        }
        match crew.plan.pop() {
            Some(Plan::Join(i)) => {
                coming -= 1;
                let spec = crowd[i].1;
                let first = sim.join(spec);
                crew.came(sim.now, first);
                let keys = scenario.crowd.class.get(spec.class).map_or(1, |c| c.keys);
                for _ in 1..keys {
                    sim.join(Spec { on: Some(first), ..spec });
                }
            }
            Some(Plan::Dies) => {
                before = Some(Before::of(&sim));
                sim.stop_tracker();
            }
            Some(Plan::Returns) => {
                after = before.take().map(|b| b.until(&sim));
                sim.start_tracker();
            }
            Some(Plan::Replace(n)) => crew.replace(&mut sim, n),
            Some(Plan::Seek(n)) => crew.seek(&mut sim, n),
            Some(Plan::Note) => {
                samples.push(Sample::of(&sim, start));
                crew.plan.push(sim.now + pause, Plan::Note);
            }
            None => break,
        }
    }
    samples.push(Sample::of(&sim, start));
    let local =
        (scenario.yardstick.run && !scenario.is_open_ended()).then(|| rarest::run(scenario, &sim.media));
    let outage = after.map(|a| a.until(&sim));
    let heard = sim.heard();
    let figures = Figures::of(scenario, &sim, heard, start, local.as_ref(), &samples, outage);
    let receivers = || 1..sim.peers.len();
    let time = |n: usize| Some(sim.done(n)?.since(sim.peers[n].joined).as_secs_f64());
    let stall = |n: usize| {
        let p = sim.peers[n].player.as_ref().filter(|_| scenario.live.kbit <= 0.0)?;
        let stalled = p.stalled_until(sim.now);
        let all = (stalled + p.played).as_secs_f64();
        (all > 0.0).then(|| stalled.as_secs_f64() / all)
    };
    Outcome {
        figures,
        samples,
        done: receivers().map(time).collect(),
        gave: receivers().map(|n| (sim.peers[n].spec.class, sim.sent(n), time(n))).collect(),
        stalls: receivers().filter_map(stall).collect(),
        local,
        events: sim.made(),
    }
}

/// About how long it takes, in seconds: the bound.
fn expected(scenario: &Scenario, crowd: &[(Duration, Spec)]) -> f64 {
    let member = |(at, spec): &(Duration, Spec)| Member {
        arrives: at.as_secs_f64(),
        up: spec.line.up,
        down: spec.line.down,
    };
    let members: Vec<Member> = crowd.iter().map(member).collect();
    bounds::fluid(scenario.media.bytes as f64, scenario.publisher().line.up, &members)
}

/// What the crowd is up to.
struct Crew<'a> {
    scenario: &'a Scenario,
    rng: SmallRng,
    plan: Queue<Plan>,
}

impl Crew<'_> {
    /// Time until something that happens `rate` times a second.
    fn pause(&mut self, rate: f64) -> Duration {
        let u: f64 = self.rng.random_range(1e-12..1.0);
        Duration::from_secs_f64((-u.ln() / rate).min(1e6))
    }

    fn came(&mut self, now: Now, n: usize) {
        if self.scenario.churn.minute > 0.0 {
            let pause = self.pause(self.scenario.churn.minute / 60.0);
            self.plan.push(now + pause, Plan::Replace(n));
        }
        if self.scenario.crowd.plays && self.rng.random_bool(self.scenario.play.seekers.clamp(0.0, 1.0)) {
            self.plan.push(now + Duration::from_secs_f64(self.scenario.play.every), Plan::Seek(n));
        }
    }

    fn replace(&mut self, sim: &mut Sim, n: usize) {
        let class = sim.peers[n].spec.class;
        if !self.rng.random_bool(self.scenario.churn.abrupt.clamp(0.0, 1.0)) {
            sim.leave(n);
        } else if self.rng.random_bool(0.5) {
            sim.kill(n, Death::Process);
        } else {
            sim.kill(n, Death::Line);
        }
        let spec = self.scenario.member(class, &mut self.rng);
        let n = sim.join(spec);
        self.came(sim.now, n);
    }

    fn seek(&mut self, sim: &mut Sim, n: usize) {
        if !sim.lives(n) {
            return;
        }
        if sim.peers[n].spec.intent == Intent::Play {
            let bytes = sim.media.manifest.bytes;
            let at = self.rng.random_range(0..bytes.max(2) * 9 / 10);
            sim.seek(n, at);
        }
        self.plan.push(sim.now + Duration::from_secs_f64(self.scenario.play.every), Plan::Seek(n));
    }
}
