//! A relay between receiver and host that breaks off, alters, adds or swallows what passes.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use iceshare::icet::NetKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use crate::Failure;
use crate::media::Random;

/// What happens to the bytes of one direction, once so many have passed (on TCP of each connection).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tamper {
    /// The connection closes; datagrams pass no more, in neither direction.
    Cut,
    /// A bit flips in every 997th byte; in each datagram one bit.
    Garble,
    /// So many random bytes come in between; datagrams: of random content, as many bytes.
    Insert(u64),
    /// So many bytes never arrive.
    Swallow(u64),
    /// One byte comes with these bits flipped.
    Flip(u8),
    /// Digits come in behind one byte: if that is a digit itself, a number gets larger than anything.
    Raise,
    /// Nothing more passes, and the connection stays open.
    Stall,
    /// Random bytes come instead of all others.
    Replace,
    /// Random bytes come without end (up to [`ENDLESS`]).
    Endless,
    /// Nothing.
    Nothing,
}

/// Bytes after which what never stops stops: a suite must end.
pub const ENDLESS: u64 = 96 << 20;
/// Datagrams of garbage that are sent at once, and how often.
const BURST: (usize, Duration) = (64, Duration::from_millis(2));

/// Towards whom the bytes go that are tampered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Host to receiver.
    Down,
    /// Receiver to host.
    Up,
}

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What.
    pub tamper: Tamper,
    /// After how many bytes.
    pub after: u64,
    /// To which bytes.
    pub direction: Direction,
    /// Where random bytes come from.
    pub seed: u64,
}

/// A running relay; ends when dropped.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    heard: Heard,
    told: Heard,
    open: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// Of TCP, a connection to the host that is open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Open {
        count.fetch_add(1, Ordering::Relaxed);
        Open(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one end said so far, as it came: datagrams, or reads of a connection.
type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

/// Bytes of it that are kept.
const KEPT: usize = 64 * 1024;

fn keep(heard: &Heard, bytes: &[u8]) {
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    if heard.iter().map(Vec::len).sum::<usize>() + bytes.len() <= KEPT {
        heard.push(bytes.to_vec());
    }
}

impl Relay {
    /// A relay to the port `to` of this kind; receivers dial [`Relay::addr`].
    ///
    /// # Errors
    /// If there is no socket.
    pub async fn start(kind: NetKind, to: SocketAddr, plan: Plan) -> Result<Relay, Failure> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (heard, told, open) = (Heard::default(), Heard::default(), Arc::<AtomicUsize>::default());
        let both = (heard.clone(), told.clone());
        let (addr, task) = match kind {
            NetKind::Tcp => {
                let listener = TcpListener::bind(any).await?;
                (listener.local_addr()?, tokio::spawn(accept(listener, to, plan, both, open.clone())))
            }
            NetKind::Udp => {
                let front = UdpSocket::bind(any).await?;
                (front.local_addr()?, tokio::spawn(datagrams(front, to, plan, both)))
            }
        };
        Ok(Relay { addr, heard, told, open, task })
    }

    /// Where to dial.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections to the host that are open now (of TCP).
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// What receivers said so far, at least the beginning of it: datagrams, or what a connection brought at a time.
    #[must_use]
    pub fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same of what the host said.
    #[must_use]
    pub fn told(&self) -> Vec<Vec<u8>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    to: SocketAddr,
    plan: Plan,
    (heard, told): (Heard, Heard),
    open: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let (heard, told, open) = (heard.clone(), told.clone(), open.clone());
        connections.spawn(async move {
            let Ok(far) = TcpStream::connect(to).await else { return };
            let _open = Open::new(&open);
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            let (up, down) = match plan.direction {
                Direction::Up => (Some(plan), None),
                Direction::Down => (None, Some(plan)),
            };
            // Either end closes both: a host that breaks off does not read on.
            tokio::select! {
                () = copy(near_in, far_out, up, heard) => {}
                () = copy(far_in, near_out, down, told) => {}
            }
        });
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, plan: Option<Plan>, heard: Heard) {
    let mut buf = vec![0; 16 * 1024];
    let mut passed = 0_u64;
    let mut random = Random(plan.map_or(0, |p| p.seed));
    let mut inserted = false;
    loop {
        let n = match from.read(&mut buf).await {
            // A receiver that is gone closes nothing either.
            Ok(0) | Err(_) if plan.is_some_and(|p| p.tamper == Tamper::Stall) => pending().await,
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        let Some(mut bytes) = buf.get(..n).map(<[u8]>::to_vec) else { break };
        keep(&heard, &bytes);
        if let Some(plan) = plan {
            let clean = usize::try_from(plan.after.saturating_sub(passed)).unwrap_or(usize::MAX).min(n);
            passed += n as u64;
            if clean < n {
                let mut rest = bytes.split_off(clean);
                let behind = passed - plan.after;
                match plan.tamper {
                    Tamper::Cut => {
                        let _ = to.write_all(&bytes).await;
                        return;
                    }
                    Tamper::Stall => rest.clear(),
                    Tamper::Garble => {
                        let first = behind - rest.len() as u64;
                        for (i, b) in (first..).zip(&mut rest) {
                            if i % 997 == 0 {
                                *b ^= 1 << (i % 8);
                            }
                        }
                    }
                    Tamper::Insert(count) if !inserted => {
                        inserted = true;
                        bytes.extend(random.bytes(usize::try_from(count).unwrap_or(0)));
                    }
                    Tamper::Swallow(count) => {
                        let gone = count.saturating_sub(behind - rest.len() as u64);
                        rest.drain(..usize::try_from(gone).unwrap_or(usize::MAX).min(rest.len()));
                    }
                    Tamper::Replace => rest = random.bytes(rest.len()),
                    Tamper::Endless => {
                        if to.write_all(&bytes).await.is_ok() {
                            let block = random.bytes(64 * 1024);
                            let mut sent = 0;
                            while sent < ENDLESS && to.write_all(&block).await.is_ok() {
                                sent += block.len() as u64;
                            }
                        }
                        return;
                    }
                    Tamper::Flip(bits) => {
                        if let (true, Some(b)) = (behind == rest.len() as u64, rest.first_mut()) {
                            *b ^= bits;
                        }
                    }
                    Tamper::Raise if behind == rest.len() as u64 => drop(rest.splice(1..1, DIGITS)),
                    Tamper::Raise => {}
                    Tamper::Insert(_) | Tamper::Nothing => {}
                }
                bytes.extend(rest);
            }
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// What comes in behind a digit.
const DIGITS: [u8; 8] = *b"99999999";

/// One receiver, one host: the last who spoke from outside is the receiver.
async fn datagrams(front: UdpSocket, to: SocketAddr, plan: Plan, (heard, told): (Heard, Heard)) {
    let Ok(far) = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await else { return };
    if far.connect(to).await.is_err() {
        return;
    }
    let near = Mutex::new(None);
    let (front, far) = (Arc::new(front), Arc::new(far));
    let shared = Shared { front, far, near, passed: AtomicU64::new(0), plan, heard, told };
    tokio::join!(shared.up(), shared.down(), shared.flood());
}

struct Shared {
    front: Arc<UdpSocket>,
    far: Arc<UdpSocket>,
    near: Mutex<Option<SocketAddr>>,
    /// Bytes of the direction that is tampered with.
    passed: AtomicU64,
    plan: Plan,
    heard: Heard,
    told: Heard,
}

impl Shared {
    fn near(&self) -> Option<SocketAddr> {
        *self.near.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.passed.load(Ordering::Relaxed) >= self.plan.after
    }

    /// What arrives instead of a datagram.
    fn tampered(&self, direction: Direction, datagram: &[u8], random: &mut Random) -> Vec<Vec<u8>> {
        let over = self.is_over();
        if over && self.plan.tamper == Tamper::Cut {
            return Vec::new();
        }
        if direction != self.plan.direction {
            return vec![datagram.to_vec()];
        }
        let before = self.passed.fetch_add(datagram.len() as u64, Ordering::Relaxed);
        let mut bytes = datagram.to_vec();
        if let Tamper::Flip(bits) = self.plan.tamper {
            let at = self.plan.after.checked_sub(before).and_then(|at| usize::try_from(at).ok());
            if let Some(b) = at.and_then(|at| bytes.get_mut(at)) {
                *b ^= bits;
            }
        }
        if self.plan.tamper == Tamper::Raise {
            let at = self.plan.after.checked_sub(before).and_then(|at| usize::try_from(at).ok());
            if let Some(at) = at.filter(|at| *at < bytes.len()) {
                bytes.splice(at + 1..at + 1, DIGITS);
            }
        }
        if !over {
            return vec![bytes];
        }
        match self.plan.tamper {
            Tamper::Cut | Tamper::Stall => Vec::new(),
            Tamper::Garble => {
                let at = random.within(0..datagram.len().max(1) as u64);
                if let Some(b) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
                    *b ^= 1 << random.within(0..8);
                }
                vec![bytes]
            }
            Tamper::Insert(count) if before - self.plan.after < count => {
                // Of the same kind, as far as the first byte tells.
                let mut noise = random.bytes(datagram.len());
                if let (Some(to), Some(from)) = (noise.first_mut(), datagram.first()) {
                    *to = *from;
                }
                vec![noise, bytes]
            }
            Tamper::Swallow(count) if before - self.plan.after < count => Vec::new(),
            Tamper::Replace => vec![random.bytes(datagram.len())],
            _ => vec![bytes],
        }
    }

    async fn up(&self) {
        let (mut buf, mut random) = (vec![0; 65_535], Random(self.plan.seed));
        loop {
            let Ok((n, from)) = self.front.recv_from(&mut buf).await else { continue };
            *self.near.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
            keep(&self.heard, buf.get(..n).unwrap_or_default());
            for datagram in self.tampered(Direction::Up, buf.get(..n).unwrap_or_default(), &mut random) {
                let _ = self.far.send(&datagram).await;
            }
        }
    }

    async fn down(&self) {
        let (mut buf, mut random) = (vec![0; 65_535], Random(self.plan.seed ^ 1));
        loop {
            let Ok(n) = self.far.recv(&mut buf).await else { continue };
            keep(&self.told, buf.get(..n).unwrap_or_default());
            for datagram in self.tampered(Direction::Down, buf.get(..n).unwrap_or_default(), &mut random) {
                if let Some(near) = self.near() {
                    let _ = self.front.send_to(&datagram, near).await;
                }
            }
        }
    }

    /// Garbage without end.
    async fn flood(&self) {
        if self.plan.tamper != Tamper::Endless {
            return;
        }
        let (mut random, mut sent) = (Random(self.plan.seed ^ 2), 0);
        let mut ticks = interval(BURST.1);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while sent < ENDLESS {
            ticks.tick().await;
            if !self.is_over() {
                continue;
            }
            for _ in 0..BURST.0 {
                let len = usize::try_from(random.within(1..1400)).unwrap_or(1);
                let noise = random.bytes(len);
                sent += noise.len() as u64;
                let _ = match (self.plan.direction, self.near()) {
                    (Direction::Up, _) => self.far.send(&noise).await,
                    (Direction::Down, Some(near)) => self.front.send_to(&noise, near).await,
                    (Direction::Down, None) => Ok(0),
                };
            }
        }
    }
}
