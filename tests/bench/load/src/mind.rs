//! The swarm alone: the same peers, in virtual time, without sockets, frames and keys' handshakes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iceshare_sim::SimMedia;
use icet::message::{Publish, Slices, ToPeer, ToTracker};
use icet::{Identity, NetKind, Now, PageRanges};
use icetracker::swarm::{ConnId, Contribution, Effect, Swarm, SwarmConfig};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::measure::{cost_of_looking, own_cpu};
use crate::peer::{Peer, Sent, hello};

/// Milliseconds since 1970, at the beginning.
const WALL: u64 = 1_700_000_000_000;

struct Run {
    swarm: Swarm,
    peers: Vec<(Peer, icet::PeerKey)>,
    now: Now,
    /// When a peer's next batch, or (second value) its report as a host, is due.
    due: BinaryHeap<Reverse<(Now, usize, bool)>>,
    waits: Vec<bool>,
    assigned: u64,
    spent: Duration,
    /// That of looking at the clock, which does not count.
    looking: Duration,
}

impl Run {
    fn timed<T>(&mut self, what: impl FnOnce(&mut Swarm, Now) -> T) -> T {
        let before = own_cpu();
        let out = what(&mut self.swarm, self.now);
        self.spent += own_cpu().saturating_sub(before).saturating_sub(self.looking);
        out
    }

    fn say(&mut self, conn: usize, message: ToTracker) {
        let wall = WALL + self.now.0 / 1000;
        self.timed(|s, now| s.handle_message(now, wall, ConnId(conn as u64), message));
        self.hear();
    }

    fn hear(&mut self) {
        let effects = self.timed(|s, _| std::iter::from_fn(|| s.poll_effect()).collect::<Vec<_>>());
        for effect in effects {
            let Effect::Send { conn, message } = effect else { continue };
            if let ToPeer::ErrorMessage(e) = &message {
                // A fault of the harness: it is to be seen.
                eprintln!("{}: {}", conn.0, e.text);
            }
            let Some(i) = usize::try_from(conn.0).ok().filter(|i| *i < self.peers.len()) else { continue };
            let before = self.peers[i].0.assigned;
            self.peers[i].0.take(&message);
            self.assigned += self.peers[i].0.assigned - before;
            if self.peers[i].0.is_busy() && !std::mem::replace(&mut self.waits[i], true) {
                self.due.push(Reverse((self.now + Duration::from_millis(50), i, false)));
            }
        }
    }
}

/// `rate`: bytes a second of each peer, both ways. Figures of `seconds` of virtual time, after as many of warming up.
pub(crate) fn run(peers: u64, pages: u32, rate: u64, seconds: u64, seed: u64) -> serde_json::Value {
    let publisher = Identity::from_seed(&[9; 32]);
    let media =
        Arc::new(SimMedia::new(&publisher, "bench/load.opus", iceshare_sim::Pages::small(pages), seed));
    let sent = Arc::<Sent>::default();
    let keys = (0..peers).map(|i| {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&i.to_le_bytes());
        Identity::from_seed(&bytes).key()
    });
    let peers: Vec<_> = keys.map(|k| (Peer::new(media.clone(), sent.clone()), k)).collect();
    let tracker = Identity::from_seed(&[8; 32]).key();
    let mut run = Run {
        swarm: Swarm::new(SwarmConfig::new(tracker, [3; 32], 1, seed)),
        waits: vec![false; peers.len()],
        peers,
        now: Now(1),
        due: BinaryHeap::new(),
        assigned: 0,
        spent: Duration::ZERO,
        looking: cost_of_looking(),
    };
    let mut rng = SmallRng::seed_from_u64(seed);
    let connect = |run: &mut Run, conn: usize, key| {
        let [.., high, low] = conn.to_be_bytes();
        let ip = [127, 1, high, low];
        let from = SocketAddr::from((ip, 1024));
        run.swarm.handle_connect(
            run.now,
            ConnId(conn as u64),
            key,
            from,
            NetKind::Udp,
            Contribution::default(),
        );
        run.say(conn, hello(rate));
    };
    let origin = run.peers.len();
    connect(&mut run, origin, publisher.key());
    run.say(
        origin,
        Publish { request: 1, manifest: media.manifest.signed().clone(), slices: Vec::new() }.into(),
    );
    for slices in media.slices.chunks(icet::limits::SLICES) {
        run.say(origin, Slices { request: 0, media: media.manifest.id(), slices: slices.to_vec() }.into());
    }
    run.due.push(Reverse((run.now, origin, true)));
    for i in 0..run.peers.len() {
        let key = run.peers[i].1;
        connect(&mut run, i, key);
        let all = u64::from(pages);
        let (first, len) = (rng.random_range(0..all), rng.random_range(0..all));
        let have = PageRanges::one(first / 16 * 16, (first + len).min(all - 1));
        let join = run.peers[i].0.join(have);
        run.say(i, join);
        run.due.push(Reverse((run.now + Duration::from_millis(rng.random_range(0..1000)), i, true)));
    }
    // A batch of 64 KiB takes so long.
    let pace = 65_536_000_000 / rate.max(1);
    let mut from = (0, Duration::ZERO, 0u64, Instant::now());
    let (mut batches, mut begun) = (0u64, false);
    let end = Now(2 * seconds * 1_000_000);
    while run.now < end {
        let next = run.due.peek().map_or(end, |Reverse((at, ..))| *at);
        let timer = run.swarm.poll_timeout().unwrap_or(end);
        run.now = run.now.max(next.min(timer));
        if !begun && run.now.0 >= seconds * 1_000_000 {
            begun = true;
            from = (run.assigned, run.spent, batches, Instant::now());
        }
        if timer <= next {
            let wall = WALL + run.now.0 / 1000;
            run.timed(|s, now| s.handle_timeout(now, wall));
            run.hear();
            continue;
        }
        let Some(Reverse((_, i, host))) = run.due.pop() else { break };
        if host {
            let key = if i == origin { publisher.key() } else { run.peers[i].1 };
            if let Some(served) = sent.report(&key) {
                run.say(i, served);
            }
            run.due.push(Reverse((run.now + Duration::from_secs(1), i, true)));
            continue;
        }
        let (said, _) = run.peers[i].0.batch();
        batches += u64::from(!said.is_empty());
        run.waits[i] = true;
        for message in said {
            run.say(i, message);
        }
        run.waits[i] = run.peers[i].0.is_busy();
        if run.waits[i] {
            run.due.push(Reverse((run.now + Duration::from_micros(pace), i, false)));
        }
    }
    let (assigned, spent, batches) = (run.assigned - from.0, run.spent - from.1, batches - from.2);
    serde_json::json!({
        "peers": run.peers.len(),
        "assignments": assigned,
        "batches": batches,
        "batches_per_virtual_second": batches as f64 / seconds as f64,
        "cpu_us_per_assignment": spent.as_secs_f64() * 1e6 / assigned.max(1) as f64,
        "assignments_per_second_a_core": assigned as f64 / spent.as_secs_f64().max(1e-9),
        "wall_seconds": from.3.elapsed().as_secs_f64(),
    })
}
