//! Announces to a BitTorrent tracker over UDP (BEP 15): a connect and an announce in turn, as clients do.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use crate::measure::Spent;

/// Requests under way at once.
const WINDOW: usize = 64;
const PROTOCOL: u64 = 0x0417_2710_1980;

/// Info hash number `i`: made up, but always the same.
pub(crate) fn info_hash(i: u64) -> [u8; 20] {
    let mut hash = [0x5a; 20];
    hash[..8].copy_from_slice(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    hash
}

struct Client {
    socket: UdpSocket,
    connection: Option<u64>,
    torrents: u64,
    ports: u16,
    rng: SmallRng,
}

impl Client {
    fn request(&mut self) -> Vec<u8> {
        let id = self.rng.random::<u32>();
        let Some(connection) = self.connection.take() else {
            return [&PROTOCOL.to_be_bytes()[..], &0u32.to_be_bytes(), &id.to_be_bytes()].concat();
        };
        let torrent = self.rng.random_range(0..self.torrents);
        let port = self.rng.random_range(1024..1024 + self.ports);
        let mut peer = [b'-'; 20];
        peer[..2].copy_from_slice(&port.to_be_bytes());
        let left = u64::from(self.rng.random_bool(0.7));
        [
            &connection.to_be_bytes()[..],
            &1u32.to_be_bytes(),
            &id.to_be_bytes(),
            &info_hash(torrent),
            &peer,
            &0u64.to_be_bytes(),
            &left.to_be_bytes(),
            &0u64.to_be_bytes(),
            &0u32.to_be_bytes(),
            &0u32.to_be_bytes(),
            &0u32.to_be_bytes(),
            &30i32.to_be_bytes(),
            &port.to_be_bytes(),
        ]
        .concat()
    }

    /// Sends one request and takes one answer; whether it came, and how many peers it names.
    async fn exchange(&mut self) -> anyhow::Result<Option<u64>> {
        let request = self.request();
        self.socket.send(&request).await?;
        let mut answer = [0; 2048];
        let Ok(n) = timeout(Duration::from_secs(1), self.socket.recv(&mut answer)).await else {
            return Ok(None);
        };
        let n = n?;
        let kind = answer.first_chunk::<4>().map(|b| u32::from_be_bytes(*b));
        match kind {
            Some(0) => {
                self.connection = answer.get(8..16).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
                Ok(Some(0))
            }
            Some(1) => Ok(Some((n as u64).saturating_sub(20) / 6)),
            _ => anyhow::bail!(
                "the tracker refuses: {}",
                String::from_utf8_lossy(answer.get(8..n).unwrap_or_default())
            ),
        }
    }
}

/// Fills the tracker, then measures what an answer costs it.
pub(crate) async fn run(
    pid: u32,
    addr: SocketAddr,
    torrents: u64,
    settle: Duration,
    seconds: Duration,
    seed: u64,
) -> anyhow::Result<serde_json::Value> {
    let end = Instant::now() + settle + seconds;
    let measured = Instant::now() + settle;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..WINDOW {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        socket.connect(addr).await?;
        let rng = SmallRng::seed_from_u64(seed + i as u64);
        let mut client = Client { socket, connection: None, torrents, ports: 20, rng };
        tasks.spawn(async move {
            let (mut answers, mut peers, mut lost) = (0u64, 0u64, 0u64);
            while Instant::now() < end {
                let counts = Instant::now() >= measured;
                match client.exchange().await? {
                    Some(n) if counts => (answers, peers) = (answers + 1, peers + n),
                    None if counts => lost += 1,
                    _ => {}
                }
            }
            anyhow::Ok((answers, peers, lost))
        });
    }
    tokio::time::sleep_until(measured).await;
    let before = Spent::of(pid)?;
    tokio::time::sleep_until(end).await;
    let spent = Spent::of(pid)?.since(before);
    let cpu = spent.cpu.as_secs_f64();
    let (mut answers, mut peers, mut lost) = (0, 0, 0);
    while let Some(done) = tasks.join_next().await {
        let (a, p, l) = done?.context("announces")?;
        (answers, peers, lost) = (answers + a, peers + p, lost + l);
    }
    anyhow::ensure!(answers > 0, "no answer at all");
    Ok(serde_json::json!({
        "answers_per_second": answers as f64 / seconds.as_secs_f64(),
        "busy": cpu / seconds.as_secs_f64(),
        "kept_waiting": spent.kept.as_secs_f64() / seconds.as_secs_f64(),
        "cpu_us_per_answer": cpu * 1e6 / answers as f64,
        "peers_per_announce": peers as f64 / (answers as f64 / 2.0),
        "lost": lost,
    }))
}
