//! A crowd over sockets: joins, works at a pace that keeps the tracker as busy as wanted, and is measured.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use iceshare_sim::SimMedia;
use icet::message::{Ping, Publish, Slices, ToPeer, ToTracker};
use icet::{Identity, NetKind, PageRanges};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::measure::{Spent, own_cpu, quantile, rss_of};
use crate::peer::{Peer, Sent, hello};
use crate::session::{Session, Target};

/// One batch in so many carries a ping behind it, whose answer is waited for.
const PINGED: u64 = 16;

/// Of one core, what the tracker's work and its waiting for it may take together.
const FULL: f64 = 0.85;
/// Tries of a peer to join: who comes when many shake hands may have to make room.
const TRIES: u32 = 8;

/// What the crowd did, summed up.
#[derive(Debug, Default)]
struct Totals {
    batches: AtomicU64,
    pages: AtomicU64,
    assigned: AtomicU64,
    errors: AtomicU64,
    delays: Mutex<Vec<Duration>>,
}

/// How it is to be loaded.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    pub(crate) pid: u32,
    pub(crate) peers: usize,
    /// Joins and does nothing from then on: beside `peers`.
    pub(crate) idle: usize,
    /// Of the peers, so many of a hundred come over TLS on TCP, the others over QUIC.
    pub(crate) tls: usize,
    pub(crate) rate: u64,
    pub(crate) busy: f64,
    pub(crate) settle: Duration,
    pub(crate) seconds: Duration,
    pub(crate) seed: u64,
}

/// Lets the crowd go on for so long.
async fn pause(time: Duration) {
    sleep_until(Instant::now() + time).await;
}

fn identity(seed: u64, i: u64) -> Identity {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&i.to_le_bytes());
    Identity::from_seed(&bytes)
}

/// Publishes `media`; the session must be kept.
async fn publish(
    target: &Target,
    publisher: &Identity,
    media: &SimMedia,
    rate: u64,
) -> anyhow::Result<Session> {
    let mut session = target.dial(publisher, NetKind::Udp).await?;
    let first = media.slices.first().into_iter().chain(media.slices.last()).cloned().collect();
    let publish = Publish { request: 1, manifest: media.manifest.signed().clone(), slices: first };
    session.send(&[hello(rate), publish.into()]).await?;
    session.answered().await?;
    let id = media.manifest.id();
    for slices in media.slices.chunks(icet::limits::SLICES) {
        session.send(&[Slices { request: 0, media: id, slices: slices.to_vec() }.into()]).await?;
    }
    Ok(session)
}

/// Some of it, in one piece, as one who began somewhere has it.
fn part(rng: &mut SmallRng, pages: u64) -> PageRanges {
    let (first, len) = (rng.random_range(0..pages), rng.random_range(0..pages));
    PageRanges::one(first / 16 * 16, (first + len).min(pages - 1))
}

impl Crowd {
    /// Runs it against `target`; the figures as JSON.
    pub(crate) async fn run(self, target: Target, pages: u32) -> anyhow::Result<serde_json::Value> {
        let publisher = identity(self.seed, u64::MAX);
        let media = Arc::new(SimMedia::new(
            &publisher,
            "bench/load.opus",
            iceshare_sim::Pages::small(pages),
            self.seed,
        ));
        let origin = publish(&target, &publisher, &media, self.rate).await.context("cannot publish")?;
        let (sent, totals) = (Arc::<Sent>::default(), Arc::<Totals>::default());
        let (pace, go) = (Arc::new(AtomicU64::new(0)), Arc::<AtomicBool>::default());
        // The publisher only listens, and reports what it sent.
        let mut tasks = JoinSet::new();
        let shared =
            Shared { media: media.clone(), sent, totals: totals.clone(), pace: pace.clone(), go: go.clone() };
        tasks.spawn(host(origin, publisher.key(), shared.sent.clone()));
        let (rss_empty, cpu_empty) = (rss_of(self.pid)?, Spent::of(self.pid)?);
        self.join(&target, &shared, &mut tasks).await?;
        let all = self.peers + self.idle;
        pause(Duration::from_secs(2)).await;
        let (rss_joined, cpu_joined) = (rss_of(self.pid)?, Spent::of(self.pid)?);
        let mut figures = serde_json::json!({
            "joined": all,
            "tls_percent": self.tls,
            "pages": pages,
            "rss_before_mib": rss_empty as f64 / 1048576.0,
            "rss_joined_mib": rss_joined as f64 / 1048576.0,
            "bytes_per_joined_peer": rss_joined.saturating_sub(rss_empty) / (all as u64).max(1),
            "cpu_us_per_join": cpu_joined.since(cpu_empty).cpu.as_micros() as f64 / all.max(1) as f64,
        });
        if self.peers > 0 && !self.seconds.is_zero() {
            let load = self.load(&totals, &pace, &go).await?;
            if let (Some(a), Some(b)) = (figures.as_object_mut(), load.as_object()) {
                a.extend(b.clone());
            }
        }
        let errors = totals.errors.load(Ordering::Relaxed);
        anyhow::ensure!(errors == 0, "the tracker answered {errors} times with an error");
        let mut dead = 0;
        while let Some(ended) = tasks.try_join_next() {
            if let Ok(Err(e)) | Err(e) = ended.map_err(anyhow::Error::from) {
                dead += 1;
                eprintln!("a session ended: {e:#}");
            }
        }
        anyhow::ensure!(dead == 0, "{dead} sessions ended");
        tasks.abort_all();
        Ok(figures)
    }

    async fn join(
        &self,
        target: &Target,
        shared: &Shared,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        /// Below the number from which the tracker lets strangers prove their address first.
        const AT_ONCE: usize = 24;
        let pages = shared.media.manifest.manifest().pages;
        let mut joining: JoinSet<anyhow::Result<(usize, Session, Peer, Identity)>> = JoinSet::new();
        let mut rng = SmallRng::seed_from_u64(self.seed);
        let all = self.peers + self.idle;
        let mut next = 0;
        while next < all || !joining.is_empty() {
            while next < all && joining.len() < AT_ONCE {
                let (i, seed, rate, target) = (next, self.seed, self.rate, target.clone());
                let carrier = if i % 100 < self.tls { NetKind::Tcp } else { NetKind::Udp };
                let mut peer = Peer::new(shared.media.clone(), shared.sent.clone());
                let join = peer.join(part(&mut rng, pages));
                joining.spawn(async move {
                    let me = identity(seed, i as u64);
                    let first = [hello(rate), join];
                    let mut tries = 0;
                    loop {
                        let begun = async {
                            let mut session = target.dial(&me, carrier).await?;
                            session.send(&first).await?;
                            session.answered().await?;
                            anyhow::Ok(session)
                        };
                        match begun.await {
                            Ok(session) => return Ok((i, session, peer, me)),
                            Err(e) if tries == TRIES => return Err(e),
                            Err(_) => tries += 1,
                        }
                        pause(Duration::from_millis(100 << tries)).await;
                    }
                });
                next += 1;
            }
            let Some(joined) = joining.join_next().await else { break };
            let (i, session, peer, me) = joined?.context("cannot join")?;
            if i < self.peers {
                tasks.spawn(work(session, peer, me, shared.clone(), self.seed ^ i as u64));
            } else {
                tasks.spawn(idle(session));
            }
        }
        Ok(())
    }

    async fn load(
        &self,
        totals: &Totals,
        pace: &AtomicU64,
        go: &AtomicBool,
    ) -> anyhow::Result<serde_json::Value> {
        // As fast as they say that their lines are, until it is seen what that costs.
        let fastest = 16.0 * 4096.0 / self.rate as f64 * 1e6;
        let mut interval = 4.0 * fastest;
        // In range: microseconds of a batch.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let set = |interval: f64| pace.store(interval as u64, Ordering::Relaxed);
        set(interval);
        go.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        while begun.elapsed() < self.settle {
            let (before, from) = (Spent::of(self.pid)?, Instant::now());
            pause(Duration::from_millis(1000)).await;
            let spent = Spent::of(self.pid)?.since(before);
            let share = |d: Duration| d.as_secs_f64() / from.elapsed().as_secs_f64();
            // Where others keep it from the processor, queues would only grow.
            let over = (share(spent.cpu) / self.busy).max(share(spent.cpu + spent.kept) / FULL);
            interval = (interval * over.clamp(0.5, 2.0)).clamp(fastest, 1e7);
            set(interval);
        }
        totals.delays.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let read = || (count(&totals.batches), count(&totals.pages), count(&totals.assigned));
        let (before, cpu, own, from) = (read(), Spent::of(self.pid)?, own_cpu(), Instant::now());
        pause(self.seconds).await;
        let (after, spent, own) = (read(), Spent::of(self.pid)?.since(cpu), (own_cpu() - own).as_secs_f64());
        let cpu = spent.cpu.as_secs_f64();
        let span = from.elapsed().as_secs_f64();
        go.store(false, Ordering::Relaxed);
        let (batches, pages, assigned) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
        let mut delays = std::mem::take(&mut *totals.delays.lock().unwrap_or_else(PoisonError::into_inner));
        delays.sort_unstable();
        let ms = |share| quantile(&delays, share).as_secs_f64() * 1e3;
        Ok(serde_json::json!({
            "busy": cpu / span,
            "kept_waiting": spent.kept.as_secs_f64() / span,
            "generator_busy": own / span,
            "batches_per_second": batches as f64 / span,
            "assignments_per_batch": assigned as f64 / (batches as f64).max(1.0),
            "pages_per_batch": pages as f64 / (batches as f64).max(1.0),
            "cpu_us_per_batch": cpu * 1e6 / (batches as f64).max(1.0),
            "pages_per_second_a_core": pages as f64 / cpu.max(1e-6),
            "answer_ms": { "median": ms(0.5), "p99": ms(0.99), "most": ms(1.0), "of": delays.len() },
            "rss_loaded_mib": rss_of(self.pid)? as f64 / 1048576.0,
        }))
    }
}

/// What the tasks share.
#[derive(Debug, Clone)]
struct Shared {
    media: Arc<SimMedia>,
    sent: Arc<Sent>,
    totals: Arc<Totals>,
    /// Microseconds between two batches of a peer.
    pace: Arc<AtomicU64>,
    go: Arc<AtomicBool>,
}

async fn idle(mut session: Session) -> anyhow::Result<()> {
    loop {
        session.recv().await?;
    }
}

async fn host(mut session: Session, key: icet::PeerKey, sent: Arc<Sent>) -> anyhow::Result<()> {
    let mut report = Instant::now();
    loop {
        tokio::select! {
            message = session.recv() => drop(message?),
            () = sleep_until(report) => {
                report = Instant::now() + Duration::from_secs(1);
                if let Some(served) = sent.report(&key) {
                    session.send(&[served]).await?;
                }
            }
        }
    }
}

async fn work(
    mut session: Session,
    mut peer: Peer,
    me: Identity,
    shared: Shared,
    seed: u64,
) -> anyhow::Result<()> {
    let (key, totals) = (me.key(), shared.totals.clone());
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut next = Instant::now();
    let mut report = Instant::now() + Duration::from_millis(rng.random_range(0..1000));
    let (mut batches, mut pings) = (rng.random_range(0..PINGED), std::collections::HashMap::new());
    loop {
        let wake = if peer.is_busy() { next.min(report) } else { report };
        tokio::select! {
            message = session.recv() => {
                let message = message?;
                let before = peer.assigned;
                if !peer.take(&message) {
                    totals.errors.fetch_add(1, Ordering::Relaxed);
                    eprintln!("{message:?}");
                }
                totals.assigned.fetch_add(peer.assigned - before, Ordering::Relaxed);
                if let ToPeer::Pong(pong) = message
                    && let Some(at) = pings.remove(&pong.nonce)
                {
                    totals.delays.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now() - at);
                }
            }
            () = sleep_until(wake) => {
                let now = Instant::now();
                let mut out: Vec<ToTracker> = Vec::new();
                if now >= report {
                    report = now + Duration::from_secs(1);
                    out.extend(shared.sent.report(&key));
                }
                if now >= next && peer.is_busy() && shared.go.load(Ordering::Relaxed) {
                    let (said, pages) = peer.batch();
                    out.extend(said);
                    totals.batches.fetch_add(1, Ordering::Relaxed);
                    totals.pages.fetch_add(pages, Ordering::Relaxed);
                    batches += 1;
                    if batches % PINGED == 0 {
                        pings.insert(batches, Instant::now());
                        out.push(Ping { nonce: batches }.into());
                    }
                }
                if now >= next {
                    let pace = shared.pace.load(Ordering::Relaxed).max(1000);
                    next = now + Duration::from_micros(rng.random_range(pace / 2..pace * 3 / 2));
                }
                if !out.is_empty() {
                    session.send(&out).await?;
                }
            }
        }
    }
}
