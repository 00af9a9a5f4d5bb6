//! A network between two UDP ports that loses, delays, reorders and repeats datagrams: a relay in this process, whose
//! every decision comes from a seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::Failure;
use crate::media::Random;

/// What a network does to datagrams, in each direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Part of the datagrams that is lost (0 to 1).
    pub loss: f64,
    /// Part that comes so late that others overtake it.
    pub reorder: f64,
    /// Part that comes twice.
    pub duplicate: f64,
    /// How long each takes.
    pub delay: Duration,
    /// Where the decisions come from.
    pub seed: u64,
}

impl Link {
    /// A perfect one.
    pub const PERFECT: Link =
        Link { loss: 0.0, reorder: 0.0, duplicate: 0.0, delay: Duration::ZERO, seed: 1 };
}

/// How much later a datagram comes that others overtake.
const LATE: (u64, u64) = (2_000, 9_000);
/// Datagrams that may be on their way; more are lost, as in a router's queue.
const QUEUE: usize = 4096;
/// Largest datagram.
const DATAGRAM: usize = 65_535;
/// Senders that are told apart.
const SENDERS: usize = 256;

/// What it did.
#[derive(Debug, Default)]
pub struct Counts {
    /// Datagrams that came.
    pub came: AtomicU64,
    /// Of them lost.
    pub lost: AtomicU64,
    /// Of them late.
    pub late: AtomicU64,
    /// Of them sent twice.
    pub twice: AtomicU64,
}

/// A running network; ends when dropped.
#[derive(Debug)]
pub struct Emulator {
    addr: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

/// A datagram on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    due: Instant,
    number: u64,
    /// Who sent it, or will get it, on the receiver's side.
    near: SocketAddr,
    /// Towards the host.
    up: bool,
    datagram: Vec<u8>,
}

/// Towards the receiver: who, and what.
type Back = (SocketAddr, Vec<u8>);

struct Running {
    to: SocketAddr,
    front: UdpSocket,
    link: Link,
    random: Random,
    counts: Arc<Counts>,
    flying: BinaryHeap<Reverse<Flying>>,
    number: u64,
    /// A socket for each sender, so that the host tells them apart.
    sockets: HashMap<SocketAddr, Arc<UdpSocket>>,
    readers: JoinSet<()>,
    back: mpsc::Sender<Back>,
}

impl Emulator {
    /// A network to the UDP port `to`; receivers dial [`Emulator::addr`].
    ///
    /// # Errors
    /// If there is no socket.
    pub async fn start(to: SocketAddr, link: Link) -> Result<Emulator, Failure> {
        let front = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let (addr, counts) = (front.local_addr()?, Arc::new(Counts::default()));
        let (back, inbound) = mpsc::channel(QUEUE);
        let running = Running {
            to,
            front,
            link,
            random: Random(link.seed),
            counts: counts.clone(),
            flying: BinaryHeap::new(),
            number: 0,
            sockets: HashMap::new(),
            readers: JoinSet::new(),
            back,
        };
        Ok(Emulator { addr, counts, task: tokio::spawn(running.run(inbound)) })
    }

    /// Where to dial.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    async fn run(mut self, mut inbound: mpsc::Receiver<Back>) {
        let mut buf = vec![0; DATAGRAM];
        loop {
            let due = self.flying.peek().map(|f| f.0.due);
            tokio::select! {
                // Errors of UDP sockets (a port that is closed) are of single datagrams.
                came = self.front.recv_from(&mut buf) => {
                    if let Ok((n, from)) = came && let Some(datagram) = buf.get(..n) {
                        self.decide(from, true, datagram.to_vec());
                    }
                }
                came = inbound.recv() => {
                    let Some((near, datagram)) = came else { return };
                    self.decide(near, false, datagram);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            while self.flying.peek().is_some_and(|f| f.0.due <= Instant::now()) {
                let Some(Reverse(flying)) = self.flying.pop() else { break };
                self.land(flying).await;
            }
        }
    }

    fn decide(&mut self, near: SocketAddr, up: bool, datagram: Vec<u8>) {
        let count = |c: &AtomicU64| c.fetch_add(1, Ordering::Relaxed);
        count(&self.counts.came);
        if self.random.happens(self.link.loss) || self.flying.len() >= QUEUE {
            count(&self.counts.lost);
            return;
        }
        let copies = if self.random.happens(self.link.duplicate) {
            count(&self.counts.twice);
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut due = Instant::now() + self.link.delay;
            if self.random.happens(self.link.reorder) {
                count(&self.counts.late);
                due += Duration::from_micros(self.random.within(LATE.0..LATE.1));
            }
            self.number += 1;
            self.flying.push(Reverse(Flying {
                due,
                number: self.number,
                near,
                up,
                datagram: datagram.clone(),
            }));
        }
    }

    async fn land(&mut self, flying: Flying) {
        if !flying.up {
            let _ = self.front.send_to(&flying.datagram, flying.near).await;
            return;
        }
        let socket = match self.sockets.get(&flying.near) {
            Some(socket) => socket.clone(),
            None => {
                if self.sockets.len() >= SENDERS {
                    return;
                }
                let Ok(socket) = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await else { return };
                if socket.connect(self.to).await.is_err() {
                    return;
                }
                let socket = Arc::new(socket);
                self.sockets.insert(flying.near, socket.clone());
                self.readers.spawn(read(socket.clone(), flying.near, self.back.clone()));
                socket
            }
        };
        let _ = socket.send(&flying.datagram).await;
    }
}

async fn read(socket: Arc<UdpSocket>, near: SocketAddr, back: mpsc::Sender<Back>) {
    let mut buf = vec![0; DATAGRAM];
    loop {
        // An error is of a datagram that we sent: nobody listened.
        let Ok(n) = socket.recv(&mut buf).await else { continue };
        let Some(datagram) = buf.get(..n) else { continue };
        if back.send((near, datagram.to_vec())).await.is_err() {
            return;
        }
    }
}
