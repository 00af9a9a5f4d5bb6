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

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// What arrives of datagrams that are sent one after the other, each when the fate of the last is known, and the counts.
    async fn over(link: Link, count: u16) -> Result<(Vec<u16>, [u64; 4]), Failure> {
        let host = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let network = Emulator::start(host.local_addr()?, link).await?;
        let receiver = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        receiver.connect(network.addr()).await?;
        let counts = || {
            let c = network.counts();
            [&c.came, &c.lost, &c.late, &c.twice].map(|c| c.load(Ordering::Relaxed))
        };
        let (mut arrived, mut buf) = (Vec::new(), [0; 8]);
        let read = |b: &[u8]| b.try_into().ok().map(u16::from_be_bytes);
        for number in 0..count {
            receiver.send(&number.to_be_bytes()).await?;
            while counts()[0] <= u64::from(number) {
                tokio::task::yield_now().await;
            }
            // The system does not keep many.
            while let Ok((n, _)) = host.try_recv_from(&mut buf) {
                arrived.extend(buf.get(..n).and_then(read));
            }
        }
        while {
            let [came, lost, _, twice] = counts();
            arrived.len() as u64 != came - lost + twice
        } {
            let (n, _) = timeout(PATIENCE, host.recv_from(&mut buf)).await??;
            arrived.extend(buf.get(..n).and_then(read));
        }
        Ok((arrived, counts()))
    }

    #[tokio::test]
    async fn a_seed_decides_what_becomes_of_each_datagram() -> Result<(), Failure> {
        let link = Link { loss: 0.2, duplicate: 0.1, seed: 5, ..Link::PERFECT };
        let (first, counts) = over(link, 500).await?;
        let (second, same) = over(link, 500).await?;
        assert_eq!((&first, counts), (&second, same));
        assert!((60..140).contains(&counts[1]) && (20..80).contains(&counts[3]), "{counts:?}");
        let (other, _) = over(Link { seed: 6, ..link }, 500).await?;
        assert_ne!(first, other);
        Ok(())
    }

    #[tokio::test]
    async fn late_ones_are_overtaken_and_a_perfect_link_does_nothing() -> Result<(), Failure> {
        let (arrived, counts) = over(Link { reorder: 0.3, seed: 7, ..Link::PERFECT }, 300).await?;
        assert_eq!((arrived.len(), counts[1]), (300, 0));
        assert!(!arrived.is_sorted(), "nobody was overtaken");
        let (arrived, counts) = over(Link::PERFECT, 300).await?;
        assert_eq!((arrived, counts), ((0..300).collect(), [300, 0, 0, 0]));
        Ok(())
    }

    #[tokio::test]
    async fn answers_find_back_after_their_delay() -> Result<(), Failure> {
        let host = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let delay = Duration::from_millis(30);
        let network = Emulator::start(host.local_addr()?, Link { delay, ..Link::PERFECT }).await?;
        let mut receivers = Vec::new();
        let begun = Instant::now();
        for name in 0..3_u8 {
            let receiver = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
            receiver.send_to(&[name], network.addr()).await?;
            receivers.push(receiver);
        }
        let mut buf = [0; 8];
        for _ in 0..receivers.len() {
            let (n, from) = timeout(PATIENCE, host.recv_from(&mut buf)).await??;
            host.send_to(buf.get(..n).unwrap_or_default(), from).await?;
        }
        for (name, receiver) in (0..).zip(&receivers) {
            let (n, from) = timeout(PATIENCE, receiver.recv_from(&mut buf)).await??;
            assert_eq!((buf.get(..n), from), (Some(&[name][..]), network.addr()));
        }
        assert!(begun.elapsed() >= 2 * delay, "{:?}", begun.elapsed());
        Ok(())
    }
}
