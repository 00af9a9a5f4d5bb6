//! What the death of the tracker did to a swarm.

use std::collections::BTreeMap;

use icet::{Now, PeerKey};
use icetracker::swarm::Contribution;
use serde::Serialize;

use crate::world::Sim;

/// What came of a tracker that was dead for a while.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outage {
    /// Seconds for which it was dead.
    pub seconds: f64,
    /// Players that played when it died.
    pub players: usize,
    /// Of them, those that ran dry while it was dead.
    pub dry: usize,
    /// Share of their play time that was stalled before, meanwhile, and afterwards.
    pub stalled: [f64; 3],
    /// Bytes that all received meanwhile, and those of them that the origin sent.
    pub received: u64,
    /// See `received`.
    pub from_origin: u64,
    /// Bytes sent by contributions when it died, and when it was back: what its catalogue knew.
    pub contributions: [u64; 2],
    /// Peers of whom it knew less than before when it was back.
    pub forgotten: usize,
    /// Fetches that statistics of protocols counted when it died, and at the end.
    pub fetches: [u64; 2],
    /// Assignments that peers were told of under each epoch.
    pub assigned: Vec<u64>,
    /// Of all, those told of twice.
    pub assigned_twice: u64,
}

/// Seconds that a player played and stalled.
type Heard = (f64, f64);

/// Notes of the moment in which it died.
#[derive(Debug)]
pub(crate) struct Before {
    at: Now,
    players: Vec<Option<Heard>>,
    received: u64,
    from_origin: u64,
    contributions: BTreeMap<PeerKey, Contribution>,
    fetches: u64,
}

fn players(sim: &Sim) -> Vec<Option<Heard>> {
    let one = |n: usize| {
        let p = sim.peers[n].player.as_ref().filter(|_| sim.lives(n))?;
        Some((p.played.as_secs_f64(), p.stalled_until(sim.now).as_secs_f64()))
    };
    (0..sim.peers.len()).map(one).collect()
}

fn received(sim: &Sim) -> u64 {
    (1..sim.peers.len()).map(|n| sim.received(n)).sum()
}

fn sent(of: &BTreeMap<PeerKey, Contribution>) -> u64 {
    of.values().map(|c| c.sent).sum()
}

fn fetches(sim: &Sim) -> u64 {
    sim.believed().iter().map(|p| p.done + p.failed).sum()
}

/// Share of play time stalled between two notes.
fn stalled(from: &[Option<Heard>], to: &[Option<Heard>]) -> f64 {
    let both = from.iter().zip(to).filter_map(|(a, b)| Some(((*a)?, (*b)?)));
    let (played, stalled) = both.fold((0.0, 0.0), |(p, s), (a, b)| (p + b.0 - a.0, s + b.1 - a.1));
    stalled / (played + stalled).max(1e-9)
}

/// The same when it came back.
#[derive(Debug)]
pub(crate) struct After {
    before: Before,
    at: Now,
    players: Vec<Option<Heard>>,
    received: u64,
    from_origin: u64,
}

impl Before {
    pub(crate) fn of(sim: &Sim) -> Before {
        Before {
            at: sim.now,
            players: players(sim),
            received: received(sim),
            from_origin: sim.sent(0),
            contributions: sim.contributions(),
            fetches: fetches(sim),
        }
    }

    pub(crate) fn until(self, sim: &Sim) -> After {
        After {
            before: self,
            at: sim.now,
            players: players(sim),
            received: received(sim),
            from_origin: sim.sent(0),
        }
    }
}

impl After {
    pub(crate) fn until(self, sim: &Sim) -> Outage {
        let b = &self.before;
        let start: Vec<_> = b.players.iter().map(|p| p.map(|_| (0.0, 0.0))).collect();
        let runs_dry = |(a, b): (&Option<Heard>, &Option<Heard>)| a.zip(*b).is_some_and(|(a, b)| b.1 > a.1);
        let now = sim.contributions();
        let less = |(key, c): &(&PeerKey, &Contribution)| now.get(key).is_none_or(|n| n.sent < c.sent);
        let (assigned, assigned_twice) = sim.assigned();
        Outage {
            seconds: self.at.since(b.at).as_secs_f64(),
            players: b.players.iter().flatten().count(),
            dry: b.players.iter().zip(&self.players).filter(|p| runs_dry(*p)).count(),
            stalled: [
                stalled(&start, &b.players),
                stalled(&b.players, &self.players),
                stalled(&self.players, &players(sim)),
            ],
            received: self.received - b.received,
            from_origin: self.from_origin - b.from_origin,
            contributions: [sent(&b.contributions), sent(&now)],
            forgotten: b.contributions.iter().filter(less).count(),
            fetches: [b.fetches, fetches(sim)],
            assigned,
            assigned_twice,
        }
    }
}

impl Outage {
    /// For people: a text for each line of figures.
    pub(crate) fn lines(&self) -> Vec<String> {
        let [before, meanwhile, after] = self.stalled.map(|s| format!("{:.3} %", 100.0 * s));
        let mb = |b: u64| b as f64 / 1e6;
        vec![
            format!(
                "{:.0} s; of {} players {} ran dry; stalled {before} before, {meanwhile} meanwhile, {after} after",
                self.seconds, self.players, self.dry
            ),
            format!(
                "{:.1} MB received meanwhile, {:.1} of them from the origin",
                mb(self.received),
                mb(self.from_origin)
            ),
            format!(
                "contributions {:.1} MB before, {:.1} at the end, {} peers with less; {} fetches counted before, {} at the end",
                mb(self.contributions[0]),
                mb(self.contributions[1]),
                self.forgotten,
                self.fetches[0],
                self.fetches[1]
            ),
            format!("assignments by epoch {:?}, {} told twice", self.assigned, self.assigned_twice),
        ]
    }
}
