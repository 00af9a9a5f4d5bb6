//! The real swarm and N real engines in lock-step: whole swarms in virtual time.

use std::time::Duration;

use iceshare_sim::{Conduct, Death, Line, Pages, Sim, Spec, Wire};
use icet::message::Intent;

const MINUTE: Duration = Duration::from_secs(60);

/// Least time to bring a file to all (Kumar and Ross 2006), in seconds.
fn bound(sim: &Sim) -> f64 {
    let size = sim.media.manifest.bytes as f64;
    let origin = sim.peers[0].spec.line.up;
    let n = (sim.peers.len() - 1) as f64;
    let ups: f64 = sim.peers.iter().map(|p| p.spec.line.up).sum();
    let slowest = sim.peers[1..].iter().map(|p| p.spec.line.down).fold(f64::MAX, f64::min);
    (size / origin).max(size / slowest).max(n * size / ups)
}

fn receivers(sim: &Sim) -> std::ops::Range<usize> {
    1..sim.peers.len()
}

/// Copies of the media that the origin sent.
fn copies(sim: &Sim) -> f64 {
    sim.sent(0) as f64 / sim.media.manifest.bytes as f64
}

fn tell(name: &str, sim: &Sim) {
    let took = |n: usize| Some(sim.done(n)?.since(sim.peers[n].joined));
    let last = receivers(sim).filter_map(took).max().unwrap_or_default();
    let twice: u64 = receivers(sim).map(|n| sim.twice(n)).sum();
    let all: u64 = (0..sim.peers.len()).map(|n| sim.sent(n)).sum();
    let messages: u64 = sim.upstream.messages.values().chain(sim.downstream.messages.values()).sum();
    eprintln!(
        "{name}: N={} {:.1} MB: origin copies {:.2}, last done after {:.1} s = {:.2} x bound, {:.1} % came twice, {:.1} messages a receiver and MB",
        sim.peers.len() - 1,
        sim.media.manifest.bytes as f64 / 1e6,
        copies(sim),
        last.as_secs_f64(),
        last.as_secs_f64() / bound(sim),
        100.0 * twice as f64 / all as f64,
        messages as f64 / (sim.peers.len() - 1) as f64 / (sim.media.manifest.bytes as f64 / 1e6),
    );
}

/// A media that is published, and known to the tracker.
fn published(seed: u64, pages: u32, origin: f64) -> Sim {
    let mut sim = Sim::new(seed, Pages::small(pages), Spec::of(origin));
    sim.wire = Wire::Encoded;
    sim.run(Duration::from_secs(1), |_| false);
    sim
}

fn unfinished(sim: &Sim) -> Vec<(usize, u64, Option<String>)> {
    let lacks = |n: &usize| sim.lives(*n) && sim.done(*n).is_none();
    receivers(sim).filter(lacks).map(|n| (n, sim.held(n), sim.peers[n].refused.clone())).collect()
}

fn complete(name: &str, sim: &mut Sim, most: Duration) {
    let done = sim.run_to_completion(most);
    tell(name, sim);
    assert!(done, "{name}: not finished after {most:?}: {:?}", unfinished(sim));
}

#[test]
fn eight_peers_behind_a_slow_origin() {
    let mut sim = published(1, 1500, 250e3);
    for _ in 0..8 {
        sim.join(Spec::of(500e3));
    }
    complete("eight", &mut sim, 5 * MINUTE);
    assert!(copies(&sim) <= 2.0);
}

#[test]
fn thirty_peers_of_all_kinds_behind_a_slow_origin() {
    let mut sim = published(2, 1500, 300e3);
    for i in 0..30 {
        let up = [1e6, 500e3, 500e3, 250e3, 100e3][i % 5];
        let delay = Duration::from_millis([5, 20, 40, 80][i % 4]);
        let spec = Spec::of(up);
        sim.join(Spec { line: Line { delay, ..spec.line }, ..spec });
    }
    complete("thirty", &mut sim, 10 * MINUTE);
    assert!(copies(&sim) <= 2.0);
}

#[test]
fn deaths_of_hosts_do_not_stop_the_others() {
    let mut sim = published(3, 1500, 300e3);
    for _ in 0..20 {
        sim.join(Spec::of(500e3));
    }
    let third = |s: &Sim| receivers(s).all(|n| s.held(n) > 400);
    assert!(sim.run(5 * MINUTE, third));
    for n in 1..=3 {
        sim.kill(n, Death::Line);
        sim.kill(n + 3, Death::Process);
    }
    sim.leave(7);
    complete("deaths", &mut sim, 10 * MINUTE);
    assert!(copies(&sim) <= 2.0);
}

#[test]
fn a_swarm_goes_on_without_its_tracker_and_after_its_restart() {
    let mut sim = published(4, 3000, 400e3);
    for _ in 0..12 {
        sim.join(Spec::of(600e3));
    }
    let some = |s: &Sim| receivers(s).all(|n| s.held(n) > 500);
    assert!(sim.run(5 * MINUTE, some));
    let held = |s: &Sim| receivers(s).map(|n| s.held(n)).sum::<u64>();
    let before = held(&sim);
    sim.stop_tracker();
    sim.run(Duration::from_secs(20), |_| false);
    let during = held(&sim) - before;
    eprintln!("restart: {during} pages came while the tracker was away");
    assert!(during > 100, "what was assigned goes on");
    sim.start_tracker();
    complete("restart", &mut sim, 10 * MINUTE);
    assert!(copies(&sim) <= 2.0);
}

#[test]
fn hosts_that_alter_pages_are_found_out() {
    let mut sim = published(8, 1500, 400e3);
    for i in 0..20 {
        let conduct = if i % 5 == 4 { Conduct::Alters } else { Conduct::Honest };
        sim.join(Spec { conduct, ..Spec::of(500e3) });
    }
    complete("altered", &mut sim, 10 * MINUTE);
    let bad: u64 = receivers(&sim).map(|n| sim.bad(n)).sum();
    eprintln!("altered: {bad} altered pages were refused");
    assert!(bad > 0, "the test has a point");
    // None takes from one host twice: a page of each assignment that ran when it was found out.
    assert!(bad <= 19 * 4 * 6);
    assert!(copies(&sim) <= 2.0);
}

#[test]
fn hundreds_of_peers() {
    let n = if iceshare_tests::long() { 1000 } else { 150 };
    let mut sim = published(9, 600, 500e3);
    for i in 0..n {
        sim.join(Spec::of([1e6, 500e3, 250e3, 100e3][i % 4]));
    }
    complete("hundreds", &mut sim, 10 * MINUTE);
    assert!(copies(&sim) <= 3.0);
}

#[test]
fn peers_come_and_go() {
    let mut sim = published(5, 1000, 400e3);
    for round in 0..40 {
        sim.join(Spec::of([800e3, 400e3, 200e3][round % 3]));
        sim.run(Duration::from_secs(2), |_| false);
        if round % 3 == 2 {
            let alive: Vec<_> = (1..sim.peers.len()).filter(|n| sim.lives(*n)).collect();
            let n = alive[sim.random(0..alive.len())];
            match round % 4 {
                0 => sim.kill(n, Death::Line),
                1 => sim.kill(n, Death::Process),
                _ => sim.leave(n),
            }
        }
    }
    complete("churn", &mut sim, 10 * MINUTE);
    assert!(copies(&sim) <= 4.0);
}

#[test]
fn players_start_soon_seek_fast_and_do_not_stall() {
    let mut sim = published(6, 2400, 400e3);
    for _ in 0..4 {
        sim.join(Spec::of(400e3));
    }
    sim.run(Duration::from_secs(60), |_| false);
    let players: Vec<_> =
        (0..12).map(|_| sim.join(Spec { intent: Intent::Play, ..Spec::of(200e3) })).collect();
    sim.run(Duration::from_secs(20), |_| false);
    for (i, n) in players.iter().enumerate() {
        let byte = sim.media.offsets[200 + 150 * i];
        sim.seek(*n, byte);
        sim.run(Duration::from_millis(1300), |_| false);
    }
    sim.run(MINUTE, |_| false);
    let mut starts: Vec<_> = players.iter().flat_map(|n| waits(&sim, *n)).collect();
    starts.sort_unstable();
    let stalls: u32 = players.iter().filter_map(|n| sim.peers[*n].player.as_ref()).map(|p| p.stalls).sum();
    let stalled: Duration =
        players.iter().filter_map(|n| sim.peers[*n].player.as_ref()).map(|p| p.stalled).sum();
    eprintln!(
        "players: {} starts and seeks, median {:?}, worst {:?}; {stalls} stalls, {stalled:?} in all; origin copies {:.2}",
        starts.len(),
        starts[starts.len() / 2],
        starts.last(),
        copies(&sim)
    );
    assert_eq!(starts.len(), 24, "every start and seek was answered");
    assert!(starts[12] <= Duration::from_millis(800));
    assert!(*starts.last().unwrap() <= Duration::from_secs(4));
    assert!(stalled <= Duration::from_secs(5));
}

/// From each start and seek of a player to sound.
fn waits(sim: &Sim, n: usize) -> Vec<Duration> {
    let player = sim.peers[n].player.clone().unwrap_or_default();
    [player.starts, player.seeks].concat()
}

/// Time from each start and seek to sound, and stalls.
fn told(name: &str, sim: &Sim, players: &[usize]) -> (Vec<Duration>, Duration) {
    let of = |n: &usize| sim.peers[*n].player.clone().unwrap_or_default();
    let mut starts: Vec<_> = players.iter().flat_map(|n| waits(sim, *n)).collect();
    starts.sort_unstable();
    let stalls: u32 = players.iter().map(|n| of(n).stalls).sum();
    let stalled: Duration = players.iter().map(|n| of(n).stalled).sum();
    eprintln!(
        "{name}: starts and seeks {starts:?}; {stalls} stalls, {stalled:?} in all; origin copies {:.2}",
        copies(sim)
    );
    (starts, stalled)
}

/// 400 s of 256 kbit/s in pages of a second, as ffmpeg makes them.
const LARGE: Pages = Pages { pages: 400, len: 32_000, time: 1_000_000 };

#[test]
fn a_seek_on_a_thin_uplink_takes_as_long_as_the_pages_it_needs() {
    let mut sim = Sim::new(11, LARGE, Spec::of(100e3));
    sim.run(Duration::from_secs(1), |_| false);
    let player = sim.join(Spec { intent: Intent::Play, ..Spec::of(400e3) });
    for page in [0, 360, 100, 200, 150, 300, 250] {
        let byte = sim.media.offsets[page];
        sim.seek(player, byte);
        sim.run(Duration::from_millis(3500), |_| false);
    }
    let (starts, _) = told("seeks", &sim, &[player]);
    assert_eq!(starts.len(), 7, "every start and seek was answered");
    // A second of it takes 0.32 s on the line, two pages twice that; the start brings setup pages and the tail besides.
    assert!(starts[5] <= Duration::from_millis(1300) && starts[6] <= Duration::from_millis(2000));
}

#[test]
fn players_share_an_origin_that_is_little_faster_than_the_media() {
    let mut sim = Sim::new(12, LARGE, Spec::of(40e3));
    sim.run(Duration::from_secs(1), |_| false);
    let players: Vec<_> =
        (0..6).map(|_| sim.join(Spec { intent: Intent::Play, ..Spec::of(400e3) })).collect();
    sim.run(MINUTE, |_| false);
    let (starts, stalled) = told("six players", &sim, &players);
    assert_eq!(starts.len(), 6);
    // One copy of a page leaves the origin, and is passed on: else the last would wait six times as long as the first.
    assert!(starts[5] <= Duration::from_secs(5));
    // The origin has a fifth to spare: who waits at the start catches up slowly.
    assert!(stalled <= Duration::from_secs(30), "of 360 s");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut sim = published(7, 300, 300e3);
        for _ in 0..6 {
            sim.join(Spec::of(300e3));
        }
        assert!(sim.run_to_completion(5 * MINUTE));
        (
            sim.now,
            sim.upstream.messages.clone(),
            (0..sim.peers.len()).map(|n| sim.sent(n)).collect::<Vec<_>>(),
        )
    };
    assert_eq!(run(), run());
}
