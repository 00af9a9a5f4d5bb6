//! What reports teach about protocols: decayed estimates per (protocol), and per (host, protocol) how it differs from those.
//! What happens to a protocol everywhere is so learned from all hosts, and believed of all of them at once. Those per (protocol,
//! nearness) are kept for people to see, and choose nothing yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use icet::message::Need;
use icet::{Now, Prefix, ProtocolName};

use super::peer::Fading;
use super::{KnownArm, KnownProtocol, Nearness};

/// Number of a protocol's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ProtoIx(pub(crate) u32);

/// Half-lives: of what is known of one host's protocol, and of a protocol at large.
const HOST: Duration = Duration::from_secs(90);
const WORLD: Duration = Duration::from_secs(600);
/// Half-life of what tells over which protocol pages come now.
const NOW: Duration = Duration::from_secs(20);
/// How often what was learned is written down.
const STORED: Duration = Duration::from_secs(5);
/// Samples that the estimate of the level above is worth.
const PRIOR: f64 = 4.0;
/// Samples of one host, and of a protocol at large, that weigh as long as they are not older than the half-life; what is
/// beyond that fades at once. A busy protocol is so known by its last seconds, however many reports an hour brings.
const MEMORY: (f64, f64) = (16.0, 64.0);
const AT_ONCE: Duration = Duration::from_secs(1);
/// Pause between two tries of a protocol that mostly fails.
const PROBE: Duration = Duration::from_secs(1);
/// Less than this part of fetches that end well is mostly failing.
const FAILS: f64 = 0.3;
/// Names that are remembered; strangers choose them.
const MOST_NAMES: usize = 1024;
/// Bytes a second, and seconds to the first byte, of what nobody ever tried.
const UNKNOWN_RATE: f64 = 1e6;
const UNKNOWN_FIRST: f64 = 0.1;

/// Decayed estimates of one way to fetch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Arm {
    ok: Fading,
    bad: Fading,
    /// Assignments with a deadline that were in time, and that were late.
    hit: Fading,
    late: Fading,
    /// Natural logarithm of bytes a second, and of seconds to the first byte; means over about the last 16 samples. Of a host, how
    /// they differ from those of the protocol at large.
    rate: Mean,
    first: Mean,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    mean: f64,
    n: f64,
    /// Mean square of what samples differ from the mean.
    spread: f64,
}

impl Mean {
    fn add(&mut self, x: f64, weight: f64) {
        self.n = (self.n + weight).min(16.0);
        if self.n > 0.0 {
            let off = x - self.mean;
            self.spread += (off * off - self.spread) * weight / self.n;
            self.mean += off * weight / self.n;
        }
    }

    /// The mean if there are enough samples, else something between it and 0.
    fn shrunk(&self) -> f64 {
        self.mean * self.n / (self.n + PRIOR)
    }

    /// Standard deviation of the samples, if there are enough of them; else between that and `above`.
    fn deviation(&self, above: f64) -> f64 {
        ((self.spread * self.n + above * above * PRIOR) / (self.n + PRIOR)).sqrt()
    }

    fn value(&self) -> Option<f64> {
        (self.n > 0.0).then(|| self.mean.exp())
    }
}

/// One report, as it is learned from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Whether it ended well; none: it was stopped.
    pub(crate) ok: Option<bool>,
    /// How much it counts, 0 to 1.
    pub(crate) weight: f64,
    /// Bytes a second, if enough came to tell.
    pub(crate) rate: Option<f64>,
    /// Seconds to the first byte.
    pub(crate) first: Option<f64>,
}

/// Adds to one of two sums that fade, of which both together remember no more than so many samples for long.
fn add(
    (one, other): (&mut Fading, &mut Fading),
    now: Now,
    (half_life, memory): (Duration, f64),
    weight: f64,
) {
    let all = one.now(now, half_life) + other.now(now, half_life);
    if all > memory {
        let since = now.since(one.at().max(other.at()));
        let left = (all - memory) * (-since.as_secs_f64() / AT_ONCE.as_secs_f64()).exp2();
        let part = (memory + left) / all;
        one.scale(now, half_life, part);
        other.scale(now, half_life, part);
    }
    one.add(now, half_life, weight);
}

impl Arm {
    fn add(&mut self, now: Now, kept: (Duration, f64), s: Sample, above: Option<Arm>) {
        match s.ok {
            Some(true) => add((&mut self.ok, &mut self.bad), now, kept, s.weight),
            Some(false) => add((&mut self.bad, &mut self.ok), now, kept, s.weight),
            None => {}
        }
        let usual =
            |m: fn(&Arm) -> &Mean| above.as_ref().map(m).filter(|m| m.n > 0.0).map_or(0.0, |m| m.mean);
        if let Some(r) = s.rate.filter(|r| *r > 0.0) {
            self.rate.add(r.ln() - usual(|a| &a.rate), s.weight);
        }
        if let Some(f) = s.first {
            self.first.add(f.max(1e-4).ln() - usual(|a| &a.first), s.weight);
        }
    }

    fn deadline(&mut self, now: Now, kept: (Duration, f64), met: bool) {
        let (one, other) =
            if met { (&mut self.hit, &mut self.late) } else { (&mut self.late, &mut self.hit) };
        add((one, other), now, kept, 1.0);
    }

    /// Probability that a deadline is met.
    fn timely(&self, now: Now, half_life: Duration, above: f64) -> f64 {
        let (hit, late) = (self.hit.now(now, half_life), self.late.now(now, half_life));
        (hit + PRIOR * above) / (hit + late + PRIOR)
    }

    /// Samples, as they fade.
    pub(crate) fn weight(&self, now: Now) -> f64 {
        self.ok.now(now, WORLD) + self.bad.now(now, WORLD)
    }

    /// Of a protocol at large, or at one nearness: probability that it ends well, bytes a second, seconds to the first byte.
    pub(crate) fn told(&self, now: Now) -> (f64, Option<f64>, Option<f64>) {
        (self.success(now, WORLD, 0.9), self.rate.value(), self.first.value())
    }

    fn success(&self, now: Now, half_life: Duration, above: f64) -> f64 {
        let (ok, bad) = (self.ok.now(now, half_life), self.bad.now(now, half_life));
        (ok + PRIOR * above) / (ok + bad + PRIOR)
    }
}

impl Nearness {
    /// How near two peers are, by the addresses that they are seen at.
    pub(crate) fn of(a: IpAddr, b: IpAddr) -> Nearness {
        if a == b {
            Nearness::Address
        } else if Prefix::of(a) == Prefix::of(b) {
            Nearness::Network
        } else {
            Nearness::Elsewhere
        }
    }

    fn index(self) -> usize {
        match self {
            Nearness::Address => 0,
            Nearness::Network => 1,
            Nearness::Elsewhere => 2,
        }
    }
}

impl Arm {
    fn known(&self, now: Now) -> KnownArm {
        KnownArm {
            ok: self.ok.now(now, WORLD),
            bad: self.bad.now(now, WORLD),
            rate: (self.rate.mean, self.rate.n),
            first: (self.first.mean, self.first.n),
        }
    }

    fn restored(known: &KnownArm) -> Arm {
        let mut arm = Arm::default();
        arm.ok.add(Now::ZERO, WORLD, known.ok);
        arm.bad.add(Now::ZERO, WORLD, known.bad);
        arm.rate = Mean { mean: known.rate.0, n: known.rate.1, spread: 0.0 };
        arm.first = Mean { mean: known.first.0, n: known.first.1, spread: 0.0 };
        arm
    }
}

impl KnownArm {
    fn is_sound(&self) -> bool {
        let counts = [self.ok, self.bad, self.rate.1, self.first.1];
        counts.iter().all(|n| n.is_finite() && *n >= 0.0)
            && self.rate.0.is_finite()
            && self.first.0.is_finite()
    }
}

impl KnownProtocol {
    /// The same at a later time: reports that it comes from weigh less.
    #[must_use]
    pub fn aged(mut self, wall_ms: u64) -> KnownProtocol {
        let age = Duration::from_millis(wall_ms.saturating_sub(self.wall_ms));
        let left = (-age.as_secs_f64() / WORLD.as_secs_f64()).exp2();
        for arm in std::iter::once(&mut self.world).chain(&mut self.near) {
            arm.ok *= left;
            arm.bad *= left;
        }
        self.wall_ms = self.wall_ms.max(wall_ms);
        self
    }
}

/// What is expected of a way to fetch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// Probability that it ends well.
    pub(crate) success: f64,
    /// Bytes a second.
    pub(crate) rate: f64,
    /// Seconds to the first byte.
    pub(crate) first: f64,
    /// Probability that a deadline is met.
    timely: f64,
    /// Standard deviation of the natural logarithm of the rate.
    unsteady: f64,
}

impl Expected {
    /// How good it is for `bytes` bytes: more is better. A playhead wants it soon and surely, before its deadline; live media
    /// want it soon, surely, and each time alike; bulk wants throughput.
    pub(crate) fn score(&self, need: Need, bytes: u64) -> f64 {
        let seconds = self.first + bytes as f64 / self.rate.max(1.0);
        match need {
            Need::Urgent => self.success.powi(3) * self.timely / seconds,
            Need::Steady => self.success.powi(3) / (seconds * self.unsteady.exp()),
            Need::Bulk | Need::Spare | Need::Reserve => self.success * bytes as f64 / seconds,
        }
    }
}

/// Statistics of a protocol over all hosts.
#[derive(Debug, Clone)]
pub(crate) struct Proto {
    pub(crate) name: ProtocolName,
    pub(crate) arm: Arm,
    /// Peers with a session that offer it.
    pub(crate) peers: u64,
    /// Peers with a session that serve over it.
    pub(crate) hosts: u64,
    pub(crate) assigned: u64,
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) bytes: u64,
    /// Assignments with a deadline that came to it, and of them those that were late.
    pub(crate) deadlines: u64,
    pub(crate) missed: u64,
    /// By [`Nearness`].
    pub(crate) near: [Arm; 3],
    /// Pages that came lately.
    recent: Fading,
    /// When something that nobody waits for was last ordered over it.
    probed: Option<Now>,
    /// Whether something was learned since it was written down, and when that was.
    changed: bool,
    stored: Now,
}

/// All protocols that were ever offered (of which the first 1024 names in use are remembered).
#[derive(Debug, Default)]
pub(crate) struct Protocols {
    by_name: BTreeMap<ProtocolName, ProtoIx>,
    protos: BTreeMap<ProtoIx, Proto>,
    last: u32,
}

impl Protocols {
    /// The number of a name; none if there are too many names in use.
    pub(crate) fn intern(&mut self, name: &ProtocolName) -> Option<ProtoIx> {
        if let Some(ix) = self.by_name.get(name) {
            return Some(*ix);
        }
        if self.by_name.len() >= MOST_NAMES {
            let protos = &mut self.protos;
            self.by_name.retain(|_, ix| {
                let used = protos.get(ix).is_some_and(|p| p.peers > 0);
                if !used {
                    protos.remove(ix);
                }
                used
            });
            if self.by_name.len() >= MOST_NAMES {
                return None;
            }
        }
        self.last += 1;
        let ix = ProtoIx(self.last);
        self.by_name.insert(name.clone(), ix);
        self.protos.insert(ix, Proto::new(name.clone()));
        Some(ix)
    }

    /// The number of a name, if it is in use.
    pub(crate) fn find(&self, name: &ProtocolName) -> Option<ProtoIx> {
        self.by_name.get(name).copied()
    }

    /// The name of a number, if it is in use.
    pub(crate) fn name(&self, ix: ProtoIx) -> Option<&ProtocolName> {
        self.protos.get(&ix).map(|p| &p.name)
    }

    pub(crate) fn get_mut(&mut self, ix: ProtoIx) -> Option<&mut Proto> {
        self.protos.get_mut(&ix)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ProtocolName, &Proto)> {
        self.by_name.iter().filter_map(|(n, ix)| Some((n, self.protos.get(ix)?)))
    }

    /// Gives back what the catalogue kept; what makes no sense is left out.
    pub(crate) fn restore(&mut self, k: &KnownProtocol) {
        let sound = k.world.is_sound() && k.near.len() == 3 && k.near.iter().all(KnownArm::is_sound);
        let Some(p) = self.intern(&k.name).filter(|_| sound).and_then(|ix| self.protos.get_mut(&ix)) else {
            return;
        };
        (p.assigned, p.done, p.failed, p.bytes) = (k.assigned, k.done, k.failed, k.bytes);
        (p.deadlines, p.missed) = (k.deadlines, k.missed);
        p.arm = Arm::restored(&k.world);
        for (arm, known) in p.near.iter_mut().zip(&k.near) {
            *arm = Arm::restored(known);
        }
    }

    /// What was learned and is not written down yet.
    pub(crate) fn take_changed(&mut self, now: Now, wall_ms: u64) -> Vec<KnownProtocol> {
        let due = self.protos.values_mut().filter(|p| p.changed && now.since(p.stored) >= STORED);
        due.map(|p| {
            (p.changed, p.stored) = (false, now);
            p.known(now, wall_ms)
        })
        .collect()
    }

    /// Learns from a report about a host that is so near to the receiver.
    pub(crate) fn learn(
        &mut self,
        now: Now,
        ix: ProtoIx,
        near: Nearness,
        host: Option<&mut Arm>,
        sample: Sample,
    ) {
        let mut above = None;
        if let Some(p) = self.protos.get_mut(&ix) {
            p.changed = true;
            above = Some(p.arm).filter(|a| a.rate.n > 0.0 || a.first.n > 0.0);
            p.arm.add(now, (WORLD, MEMORY.1), sample, None);
            p.near[near.index()].add(now, (WORLD, MEMORY.1), sample, None);
            above = above.or(Some(p.arm));
            p.done += u64::from(sample.ok == Some(true));
            p.failed += u64::from(sample.ok == Some(false));
        }
        if let Some(arm) = host {
            arm.add(now, (HOST, MEMORY.0), sample, above);
        }
    }

    /// An assignment with a deadline ended.
    pub(crate) fn deadline(&mut self, now: Now, ix: ProtoIx, host: Option<&mut Arm>, met: bool) {
        if let Some(p) = self.protos.get_mut(&ix) {
            p.deadlines += 1;
            p.missed += u64::from(!met);
            p.changed = true;
            p.arm.deadline(now, (WORLD, MEMORY.1), met);
        }
        if let Some(arm) = host {
            arm.deadline(now, (HOST, MEMORY.0), met);
        }
    }

    /// Whether a protocol may be tried with something that nobody waits for, to learn of it: one that mostly fails only now
    /// and then.
    pub(crate) fn may_be_tried(&self, now: Now, ix: ProtoIx, expected: &Expected) -> bool {
        let probed = self.protos.get(&ix).and_then(|p| p.probed);
        expected.success > FAILS || probed.is_none_or(|at| now.since(at) >= PROBE)
    }

    /// Something that nobody waits for was ordered over it.
    pub(crate) fn tried(&mut self, now: Now, ix: ProtoIx) {
        if let Some(p) = self.protos.get_mut(&ix) {
            p.probed = Some(now);
        }
    }

    /// What to expect of a host's protocol.
    pub(crate) fn expect(&self, now: Now, ix: ProtoIx, host: &Arm) -> Expected {
        let world = self.protos.get(&ix).map(|p| p.arm).unwrap_or_default();
        // Who was never tried is expected to do well: else nobody new is ever tried.
        let success = host.success(now, HOST, world.success(now, WORLD, 0.9));
        let timely = host.timely(now, HOST, world.timely(now, WORLD, 0.9));
        let usual = |m: &Mean, unknown: f64| if m.n > 0.0 { m.mean } else { unknown.ln() };
        let rate = (usual(&world.rate, UNKNOWN_RATE) + host.rate.shrunk()).exp();
        let first = (usual(&world.first, UNKNOWN_FIRST) + host.first.shrunk()).exp();
        let unsteady = host.rate.deviation(world.rate.deviation(0.5));
        Expected { success, rate, first, timely, unsteady }
    }
}

impl Proto {
    fn new(name: ProtocolName) -> Proto {
        Proto {
            name,
            arm: Arm::default(),
            peers: 0,
            hosts: 0,
            assigned: 0,
            done: 0,
            failed: 0,
            bytes: 0,
            deadlines: 0,
            missed: 0,
            near: [Arm::default(); 3],
            recent: Fading::default(),
            probed: None,
            changed: false,
            stored: Now::ZERO,
        }
    }

    /// Pages came over it.
    pub(crate) fn delivered(&mut self, now: Now, bytes: u64, pages: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.recent.add(now, NOW, pages as f64);
    }

    /// Pages that came lately, as they fade.
    pub(crate) fn recent(&self, now: Now) -> f64 {
        self.recent.now(now, NOW)
    }

    /// Fetches that the estimates rest on, as they fade.
    pub(crate) fn samples(&self, now: Now) -> f64 {
        self.arm.weight(now)
    }

    fn known(&self, now: Now, wall_ms: u64) -> KnownProtocol {
        KnownProtocol {
            name: self.name.clone(),
            wall_ms,
            assigned: self.assigned,
            done: self.done,
            failed: self.failed,
            bytes: self.bytes,
            deadlines: self.deadlines,
            missed: self.missed,
            world: self.arm.known(now),
            near: self.near.iter().map(|a| a.known(now)).collect(),
        }
    }

    /// Decayed share of fetches that end well.
    pub(crate) fn success(&self, now: Now) -> f64 {
        self.arm.success(now, WORLD, 0.9)
    }

    /// Decayed mean of bytes a second.
    pub(crate) fn goodput(&self) -> Option<f64> {
        self.arm.rate.value()
    }

    /// Decayed mean of milliseconds to the first byte.
    pub(crate) fn first_byte_ms(&self) -> Option<f64> {
        self.arm.first.value().map(|s| s * 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_that_fails_is_expected_to_fail_and_is_forgiven() {
        let mut all = Protocols::default();
        let (a, b) = (all.intern(&"a".parse().unwrap()).unwrap(), all.intern(&"b".parse().unwrap()).unwrap());
        let (mut good, mut bad) = (Arm::default(), Arm::default());
        let sample = |ok: bool| Sample {
            ok: Some(ok),
            weight: 1.0,
            rate: ok.then_some(2e6),
            first: ok.then_some(0.02),
        };
        for i in 0..10 {
            all.learn(Now(i * 100_000), a, Nearness::Network, Some(&mut good), sample(true));
            all.learn(Now(i * 100_000), b, Nearness::Elsewhere, Some(&mut bad), sample(false));
        }
        let now = Now(1_000_000);
        let (ea, eb) = (all.expect(now, a, &good), all.expect(now, b, &bad));
        assert!(ea.success > 0.9 && eb.success < 0.3, "{ea:?} {eb:?}");
        for need in [Need::Urgent, Need::Bulk] {
            assert!(ea.score(need, 65_536) > 2.0 * eb.score(need, 65_536));
        }
        // After an hour little of it weighs.
        let later = Now(3_600_000_000);
        assert!(all.expect(later, b, &bad).success > 0.7);
    }

    #[test]
    fn what_befalls_a_protocol_everywhere_is_believed_of_all_its_hosts() {
        let mut all = Protocols::default();
        let (a, b) = (all.intern(&"a".parse().unwrap()).unwrap(), all.intern(&"b".parse().unwrap()).unwrap());
        let (mut hosts, mut others) = (vec![Arm::default(); 20], vec![Arm::default(); 20]);
        let sample = |rate| Sample { ok: Some(true), weight: 1.0, rate: Some(rate), first: Some(0.05) };
        let mut now = Now::ZERO;
        for _ in 0..50 {
            for (x, y) in hosts.iter_mut().zip(&mut others) {
                now = now + Duration::from_millis(10);
                all.learn(now, a, Nearness::Elsewhere, Some(x), sample(4e5));
                all.learn(now, b, Nearness::Elsewhere, Some(y), sample(1e5));
            }
        }
        let better = |all: &Protocols, now, x: &Arm, y: &Arm| {
            let score = |ix, arm| all.expect(now, ix, arm).score(Need::Urgent, 16_384);
            score(a, x) > score(b, y)
        };
        assert!(hosts.iter().zip(&others).all(|(x, y)| better(&all, now, x, y)));
        // Some of them bring little now: nobody asks the others any more.
        for host in hosts.iter_mut().take(8) {
            for _ in 0..4 {
                now = now + Duration::from_millis(20);
                all.learn(now, a, Nearness::Elsewhere, Some(host), sample(6e3));
            }
        }
        assert!(hosts.iter().zip(&others).all(|(x, y)| !better(&all, now, x, y)));
        // And back, by tries of few hosts.
        for _ in 0..8 {
            for host in hosts.iter_mut().take(8) {
                now = now + Duration::from_millis(200);
                all.learn(now, a, Nearness::Elsewhere, Some(host), sample(4e5));
            }
        }
        assert!(hosts.iter().zip(&others).skip(8).all(|(x, y)| better(&all, now, x, y)));
    }

    #[test]
    fn needs_are_told_apart() {
        let mut all = Protocols::default();
        let (even, wild) =
            (all.intern(&"e".parse().unwrap()).unwrap(), all.intern(&"w".parse().unwrap()).unwrap());
        let (mut e, mut w) = (Arm::default(), Arm::default());
        for i in 0..40_u32 {
            let now = Now(u64::from(i) * 100_000);
            let sample = |rate| Sample { ok: Some(true), weight: 1.0, rate: Some(rate), first: Some(0.02) };
            all.learn(now, even, Nearness::Elsewhere, Some(&mut e), sample(2e5));
            // Faster at the mean, and now and then very slow; a third of its deadlines are missed.
            all.learn(
                now,
                wild,
                Nearness::Elsewhere,
                Some(&mut w),
                sample(if i % 3 == 0 { 4e4 } else { 8e5 }),
            );
            all.deadline(now, even, Some(&mut e), true);
            all.deadline(now, wild, Some(&mut w), i % 3 > 0);
        }
        let now = Now(4_000_000);
        let score = |need, bytes| {
            (all.expect(now, even, &e).score(need, bytes), all.expect(now, wild, &w).score(need, bytes))
        };
        let (bulk, steady, urgent) =
            (score(Need::Bulk, 1 << 20), score(Need::Steady, 16_384), score(Need::Urgent, 4096));
        assert!(bulk.1 > bulk.0, "goodput: {bulk:?}");
        assert!(steady.0 > steady.1, "steadiness: {steady:?}");
        assert!(urgent.0 > urgent.1, "deadlines: {urgent:?}");
    }

    #[test]
    fn what_was_learned_survives_a_restart_and_fades_meanwhile() {
        let mut all = Protocols::default();
        let ix = all.intern(&"a".parse().unwrap()).unwrap();
        for i in 0..20 {
            let sample = Sample { ok: Some(i % 4 > 0), weight: 1.0, rate: Some(3e6), first: Some(0.03) };
            all.learn(Now(i * 1000), ix, Nearness::Network, None, sample);
        }
        let now = Now(6_000_000);
        let known = all.take_changed(now, 1_000_000).remove(0);
        assert!(all.take_changed(now, 1_000_000).is_empty(), "once");
        let bytes = icet::frame::encode(&known);
        let known: KnownProtocol = icet::frame::decode(&bytes).unwrap();
        let before = all.expect(now, ix, &Arm::default());
        let restored = |known: &KnownProtocol| {
            let mut all = Protocols::default();
            all.restore(known);
            let ix = all.find(&"a".parse().unwrap()).unwrap();
            (all.expect(Now::ZERO, ix, &Arm::default()), all.protos[&ix].clone())
        };
        let (after, p) = restored(&known.clone().aged(1_000_000));
        assert!((before.success - after.success).abs() < 1e-9, "{before:?} {after:?}");
        assert!(
            (before.rate / after.rate - 1.0).abs() < 1e-9 && (before.first / after.first - 1.0).abs() < 1e-9
        );
        assert_eq!((p.done, p.failed), (15, 5));
        assert!(p.near[1].weight(Now::ZERO) > 19.0 && p.near[0].weight(Now::ZERO) == 0.0);
        // A day later little of it weighs, but rates are the best guess still.
        let (later, _) = restored(&known.clone().aged(86_400_000));
        assert!(later.success > 0.89 && later.rate == after.rate, "{later:?}");
        // What makes no sense is left out.
        let mut bad = known.clone();
        bad.world.ok = f64::NAN;
        let mut all = Protocols::default();
        all.restore(&bad);
        let ix = all.find(&"a".parse().unwrap()).unwrap();
        assert_eq!(all.protos[&ix].done, 0);
    }

    #[test]
    fn strangers_cannot_fill_the_memory_with_names() {
        let mut all = Protocols::default();
        for i in 0..5000 {
            let ix = all.intern(&format!("x{i}").parse().unwrap());
            if i == 7 {
                all.get_mut(ix.unwrap()).unwrap().peers = 1;
            }
        }
        assert!(all.by_name.len() <= MOST_NAMES && all.protos.len() == all.by_name.len());
        assert!(all.by_name.contains_key(&"x7".parse().unwrap()));
    }
}
