//! Floods from the receivers' own address, at the ports of a tracker, of a host and of a player's gateway, while others
//! fetch: everybody gets through, memory stays bounded, and nothing is left open.
//!
//! Every flood is bounded in count, stays on loopback, and goes on until those who mean it are through.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use iceshare::net::Context;
use iceshare::net::session::{ConnectOptions, connect_with};
use iceshare_tests::{Network, Proc, media, same};
use icet::{Identity, NetKind};
use tokio::io::AsyncReadExt as _;
use tokio::net::UdpSocket as AsyncUdpSocket;
use tokio::runtime::Runtime;

use super::stranger::{ask, eventually, net, port_of_host, read, runtime};

/// Attempts of one flood at one port, at most.
const MOST: u64 = 30_000;
/// Attempts that make it a flood.
const LEAST: u64 = 600;
/// Connections that one flood keeps open at one port.
const OPEN: usize = 700;
/// How long a flooder listens for an answer before it goes on: what keeps its pace.
const LISTEN: Duration = Duration::from_millis(1);
/// Bytes of memory by which an attacked process may grow.
const GROWTH: u64 = 64 << 20;

/// Bytes that mean nothing, always the same.
fn noise(n: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..n).map(|_| next()).collect()
}

/// What a flood has done so far, and whether it shall go on.
#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    tries: AtomicU64,
}

impl Tally {
    /// Counts one more attempt in; none when it is over.
    fn next(&self) -> Option<u64> {
        let n = self.tries.fetch_add(1, Ordering::Relaxed);
        (n < MOST && !self.stop.load(Ordering::Relaxed)).then_some(n)
    }
}

/// Connections that say what `opening` gives, and then nothing.
fn over_tcp(to: SocketAddr, tally: &Tally, opening: &dyn Fn(u64) -> Vec<u8>) {
    let mut open: VecDeque<TcpStream> = VecDeque::new();
    while let Some(n) = tally.next() {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(5)) else { continue };
        let _ = stream.set_read_timeout(Some(LISTEN));
        let _ = stream.set_write_timeout(Some(LISTEN));
        let _ = stream.write_all(&opening(n));
        let _ = stream.read(&mut [0; 512]);
        open.push_back(stream);
        if open.len() > OPEN {
            open.pop_front();
        }
    }
}

/// Datagrams as `datagram` gives them; what comes back must not be more than was sent.
fn over_udp(to: SocketAddr, tally: &Tally, datagram: &dyn Fn(u64) -> Vec<u8>) {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    udp.connect(to).expect("an address");
    udp.set_read_timeout(Some(LISTEN)).expect("a timeout");
    let (mut sent, mut came) = (0, 0);
    while let Some(n) = tally.next() {
        sent += udp.send(&datagram(n)).unwrap_or(0);
        came += udp.recv(&mut [0; 2000]).unwrap_or(0);
    }
    assert!(came <= sent, "{came} bytes came back for {sent}: the port amplifies");
}

/// What a real client says first over TLS.
fn client_hello(rt: &Runtime) -> Vec<u8> {
    rt.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("an address");
        let net = net(0xf7).await;
        let cx = net.context("test".parse().expect("a name"));
        let dial =
            tokio::spawn(
                async move { cx.connect_tls(at, Identity::from_seed(&[1; 32]).key(), icet::ALPN).await },
            );
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut hello = vec![0; 4096];
        let n = stream.read(&mut hello).await.expect("its hello");
        hello.truncate(n);
        dial.abort();
        hello
    })
}

/// Real QUIC clients that never finish: between them and the port is one who lets through their Initials, and what asks
/// them to prove their address (Retry, RFC 9000, section 17.2.5), but no answer to their handshake.
async fn unfinished(cx: Context, to: SocketAddr, tally: Arc<Tally>) {
    while tally.next().is_some() {
        let front = AsyncUdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let back = AsyncUdpSocket::bind("127.0.0.1:0").await.expect("a port");
        back.connect(to).await.expect("an address");
        let middle = async {
            let (mut out, mut back_in) = ([0; 2000], [0; 2000]);
            let mut client = None;
            let mut initials = 0;
            while initials < 3 {
                tokio::select! {
                    Ok((n, from)) = front.recv_from(&mut out) => {
                        client = Some(from);
                        initials += 1;
                        let _ = back.send(&out[..n]).await;
                    }
                    Ok(n) = back.recv(&mut back_in) => {
                        let retry = n > 0 && back_in[0] & 0xb0 == 0xb0;
                        if let Some(client) = client.filter(|_| retry) {
                            let _ = front.send_to(&back_in[..n], client).await;
                        }
                    }
                }
            }
        };
        let at = front.local_addr().expect("an address");
        let dial = cx.connect_quic(at, Identity::from_seed(&[1; 32]).key(), icet::ALPN_DIAL_BACK);
        let both = async { tokio::join!(middle, dial) };
        let _ = tokio::time::timeout(Duration::from_millis(200), both).await;
    }
}

/// Initiators of payload protocol `udp` (udp.md, section 2) who prove their address, so that the host has to look at what
/// they say then: it is nothing.
fn hellos(to: SocketAddr, tally: &Tally) {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    udp.connect(to).expect("an address");
    udp.set_read_timeout(Some(5 * LISTEN)).expect("a timeout");
    while let Some(n) = tally.next() {
        let _ = udp.send(&knock(n, 1_200));
        let mut cookie = [0; 200];
        while udp.recv(&mut cookie).is_ok_and(|_| cookie[0] != 161 || cookie[2..10] != n.to_be_bytes()) {}
        let mut hello = noise(1_200, n);
        hello[..2].copy_from_slice(&[162, 1]);
        hello[2..42].copy_from_slice(&cookie[2..42]);
        hello[42..44].copy_from_slice(&400_u16.to_be_bytes());
        let _ = udp.send(&hello);
    }
}

/// The first datagram of an association.
fn knock(number: u64, len: usize) -> Vec<u8> {
    let mut knock = vec![0; len];
    knock[..2].copy_from_slice(&[160, 1]);
    knock[2..10].copy_from_slice(&number.to_be_bytes());
    knock
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Silent,
    Junk,
    HalfTls,
    /// The first bytes of libp2p over TCP, and then noise instead of Noise.
    Negotiations,
    Datagrams,
    Initials,
    Unfinished,
    Knocks,
    Hellos,
}

/// A flood that runs until it is told to stop.
pub(super) struct Flood {
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    pub(super) fn start(kind: Kind, to: SocketAddr) -> Flood {
        let tally = Arc::<Tally>::default();
        let mine = tally.clone();
        let thread = std::thread::spawn(move || match kind {
            Kind::Silent => over_tcp(to, &mine, &|_| Vec::new()),
            Kind::Junk => over_tcp(to, &mine, &|n| match n % 8 {
                0 => noise(2_000, n),
                1 => noise(10, n),
                2 => b"GET ".to_vec(),
                3 => b"GET /song.opus HTTP/1.1\r\nHost: x\r\nX-Slow: ".to_vec(),
                4 => [b"GET /song.opus HTTP/1.1\r\n".as_slice(), &b"X: y\r\n".repeat(5_000)].concat(),
                5 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
                6 => [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], noise(600, n).as_slice()].concat(),
                _ => vec![0; 10_000],
            }),
            Kind::HalfTls => {
                let hello = client_hello(&runtime());
                over_tcp(to, &mine, &|n| {
                    // Some stop in the middle of their hello, most after it.
                    let end = if n % 4 == 0 { hello.len() / 2 } else { hello.len() };
                    hello[..end].to_vec()
                });
            }
            Kind::Negotiations => over_tcp(to, &mine, &|n| {
                let begin = b"\x13/multistream/1.0.0\n\x07/noise\n".as_slice();
                match n % 4 {
                    0 => begin[..20].to_vec(),
                    1 => begin.to_vec(),
                    // A first message of Noise, and one that cannot be decrypted.
                    2 => [begin, &[0, 32], &noise(32, n), &[0, 64], &noise(64, n)].concat(),
                    _ => [begin, &noise(2_000, n)].concat(),
                }
            }),
            Kind::Knocks => over_udp(to, &mine, &|n| knock(n, 1_200)),
            Kind::Hellos => hellos(to, &mine),
            Kind::Datagrams => over_udp(to, &mine, &|n| {
                let mut datagram = noise([1, 20, 64, 300, 1_200, 1_500][(n / 256 % 6) as usize], n);
                datagram[0] = n.to_le_bytes()[0];
                datagram
            }),
            Kind::Initials => over_udp(to, &mine, &|n| {
                let mut datagram = noise(1_200, n);
                // A long header of version 1 with connection ids of 8 bytes and no token (RFC 9000, section 17.2.2).
                let first = 0xc0 | datagram[0] & 3;
                datagram[..6].copy_from_slice(&[first, 0, 0, 0, 1, 8]);
                datagram[14] = 8;
                datagram[23..26].copy_from_slice(&[0, 0x44, 0x96]);
                datagram
            }),
            Kind::Unfinished => {
                let rt = runtime();
                rt.block_on(async {
                    let net = net(0xf8).await;
                    let cx = net.context("test".parse().expect("a name"));
                    let clients = (0..48).map(|_| tokio::spawn(unfinished(cx.clone(), to, mine.clone())));
                    for client in clients.collect::<Vec<_>>() {
                        client.await.expect("a client");
                    }
                });
            }
        });
        Flood { tally, thread: Some(thread) }
    }

    fn tries(&self) -> u64 {
        self.tally.tries.load(Ordering::Relaxed)
    }

    /// Waits until so many attempts more were made.
    pub(super) fn further(&self, n: u64) {
        let from = self.tries();
        eventually("a flood", || (self.tries() >= (from + n).min(MOST)).then_some(()));
    }

    pub(super) fn stop(mut self) -> u64 {
        self.tally.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join).expect("once").expect("a flood that ran to its end");
        self.tries()
    }
}

/// A figure of a process in bytes: `VmRSS`, or `VmHWM`, the highest that it ever was.
fn memory(proc: &Proc, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proc.id())).expect("it runs");
    let line = status.lines().find_map(|l| l.strip_prefix(what)).expect("a figure");
    let kib: String = line.chars().filter(char::is_ascii_digit).collect();
    kib.parse::<u64>().expect("a number") * 1024
}

fn files(proc: &Proc) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proc.id())).expect("it runs").count()
}

/// An attacked process, and how it was before.
pub(super) struct Victim<'a> {
    name: &'static str,
    proc: &'a Proc,
    memory: u64,
    files: usize,
}

impl Victim<'_> {
    pub(super) fn new<'a>(name: &'static str, proc: &'a Proc) -> Victim<'a> {
        Victim { name, proc, memory: memory(proc, "VmHWM:"), files: files(proc) }
    }

    /// After the flood it is as it was before.
    pub(super) fn is_well(&self) {
        let grown = memory(self.proc, "VmHWM:").saturating_sub(self.memory);
        eprintln!("{}: {} KiB more than before at its height", self.name, grown >> 10);
        assert!(grown <= GROWTH, "{} grew by {grown} bytes", self.name);
        // A few for sessions that came or went meanwhile.
        let what = format!("{} has as few files open as before ({})", self.name, self.files);
        eventually(&what, || (files(self.proc) <= self.files + 8).then_some(()));
        assert!(!self.proc.stderr().contains("panicked"), "{}: {}", self.name, self.proc.stderr());
    }
}

/// A transfer that has begun ends well, and so does one that begins in the middle of a flood of this kind, at the
/// tracker and at the only host.
fn fetch_through(kind: Kind) {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 1_500_000, 4200, 111).expect("a file");
    let (publisher, url) = net.publish("publisher", &file, &["--up", "500kB"]);
    let host = port_of_host(&runtime(), &net.tracker.url, "song.opus", 0xf1);
    let tracker: SocketAddr = net.tracker.listen().parse().expect("an address");
    let victims = [Victim::new("the tracker", &net.tracker.proc), Victim::new("the host", &publisher)];
    let (mut get, out) = net.get("receiver", &url, &["--json"]);
    eventually("that it fetches", || {
        let stats = net.tracker.get("/api/media");
        let running = "\"assignments_running\":";
        (stats.contains(running) && !stats.contains(&format!("{running}0"))).then_some(())
    });
    let floods = [host, tracker].map(|to| Flood::start(kind, to));
    floods.iter().for_each(|f| f.further(LEAST));
    // Each way in lets in who means it, also alone, and not only by luck.
    let rt = runtime();
    let own = rt.block_on(super::stranger::net(0xf2));
    let authority = net.tracker.listen();
    let session = |only| {
        let options = ConnectOptions { only: Some(only), ..ConnectOptions::default() };
        rt.block_on(connect_with(&own, &authority, None, &[], options)).is_ok()
    };
    let head = format!("HEAD /song.opus HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let ways: [(&str, &dyn Fn() -> bool); 3] = [
        ("a session over QUIC", &|| session(NetKind::Udp)),
        ("a session over TLS", &|| session(NetKind::Tcp)),
        ("an answer over HTTP", &|| ask(host, head.as_bytes()).status == 200),
    ];
    for (what, way) in ways {
        let got = (0..10).filter(|_| way()).count();
        assert!(got >= 8, "{what} came {got} times of 10");
    }
    let (mut late, late_out) = net.get("late", &url, &["--json"]);
    late.ends_with(0);
    assert!(same(&file, &late_out));
    get.ends_with(0);
    assert!(same(&file, &out));
    let tries = floods.map(Flood::stop);
    eprintln!("{kind:?}: {tries:?} attempts; {}", late.stdout().trim());
    victims.iter().for_each(Victim::is_well);
    assert_eq!(net.tracker.get("/healthz").trim(), "ok");
}

#[test]
fn connections_that_say_nothing_keep_nobody_out() {
    fetch_through(Kind::Silent);
}

#[test]
fn garbage_over_tcp_keeps_nobody_out() {
    fetch_through(Kind::Junk);
}

#[test]
fn half_a_tls_handshake_keeps_nobody_out() {
    fetch_through(Kind::HalfTls);
}

#[test]
fn datagrams_of_every_first_byte_keep_nobody_out() {
    fetch_through(Kind::Datagrams);
}

#[test]
fn datagrams_that_look_like_initials_keep_nobody_out() {
    fetch_through(Kind::Initials);
}

#[test]
fn quic_clients_that_never_finish_keep_nobody_out() {
    fetch_through(Kind::Unfinished);
}

/// A player that is served goes on, and another one gets in.
#[test]
fn a_flood_at_the_gateway_keeps_no_player_out() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 900_000, 4200, 112).expect("a file");
    let (_publisher, url) = net.publish("publisher", &file, &["--up", "300kB"]);
    let play = net.run("player", &["play", &url]);
    let link = play.line("a link", |l| l.starts_with("http://").then(|| l.trim().to_owned()));
    let (authority, target) = link.trim_start_matches("http://").split_once('/').expect("a path");
    let at: SocketAddr = authority.parse().expect("an address");
    let request = format!("GET /{target} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    let victim = Victim::new("the player", &play);
    let whole = read(&file);
    let mut first = TcpStream::connect(at).expect("the gateway");
    first.write_all(request.as_bytes()).expect("a request");
    let mut got = vec![0; 4096];
    first.read_exact(&mut got).expect("an answer");
    for kind in [Kind::Silent, Kind::Junk, Kind::HalfTls] {
        let flood = Flood::start(kind, at);
        flood.further(LEAST);
        let late = ask(at, request.as_bytes());
        assert_eq!(late.status, 200, "{kind:?}: {}", late.head);
        assert!(late.body == whole, "{kind:?}: another file came");
        flood.stop();
    }
    first.read_to_end(&mut got).expect("the rest");
    assert!(got.ends_with(&whole), "who was served before got another file");
    drop(first);
    victim.is_well();
}
