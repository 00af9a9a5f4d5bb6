//! A peer that announces addresses of others, so that the tracker or its peers run against them.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use iceshare_tests::{Network, media, same};
use icet::message::{Intent, Reach, ToPeer};
use icet::{NetAddr, NetKind, PageRanges};

use super::stranger::{Stranger, net, runtime};

/// Somebody who has nothing to do with it, and counts what comes.
struct Victim {
    at: SocketAddr,
    connections: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Victim {
    fn new() -> Victim {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let at = listener.local_addr().expect("an address");
        let (connections, bytes) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (c, b) = (connections.clone(), bytes.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                c.fetch_add(1, Ordering::Relaxed);
                let b = b.clone();
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(n @ 1..) = stream.read(&mut buffer) {
                        b.fetch_add(n as u64, Ordering::Relaxed);
                    }
                });
            }
        });
        Victim { at, connections, bytes }
    }
}

fn tcp(at: &str) -> NetAddr {
    NetAddr { kind: NetKind::Tcp, at: at.parse().expect("an address") }
}

#[test]
fn a_victim_is_dialed_back_a_few_times_and_told_to_nobody() {
    let network = Network::new();
    let file = network.path("song.opus");
    media::opus_like(&file, 400_000, 4200, 101).expect("a file");
    let (_publisher, url) = network.publish("publisher", &file, &[]);
    let victim = Victim::new();
    let target = NetAddr { kind: NetKind::Tcp, at: victim.at };
    let never =
        ["224.0.0.1:4000", "255.255.255.255:4000", "0.1.2.3:4000", "[ff02::1]:4000", "[2002:a00:1::1]:4000"];
    let mut reach: Vec<NetAddr> = never.iter().map(|a| tcp(a)).collect();
    reach.push(target);
    let rt = runtime();
    rt.block_on(async {
        let attacker_net = net(0xa1).await;
        let mut attacker = Stranger::meet(&attacker_net, &network.tracker.url, reach.clone()).await;
        // Each of them is found to be no address of the attacker's.
        let mut open: Vec<NetAddr> = reach.clone();
        attacker
            .until("a result for each address", |m| {
                if let ToPeer::ReachResult(r) = m {
                    assert!(!r.proved, "{} was proved", r.addr);
                    open.retain(|a| *a != r.addr);
                }
                open.is_empty().then_some(())
            })
            .await;
        let pages = attacker.join("song.opus", PageRanges::one(0, 60), Intent::Share).await;
        assert!(!pages.manifest.body.is_empty());
        // Insisting does not help, nor does another order, or coming again.
        for round in 0..100 {
            reach.rotate_left(round % 3);
            attacker.send(Reach { reach: reach.clone() }).await;
        }
        attacker.settle().await;
        for seed in 0xa2..0xaa {
            let again_net = net(seed).await;
            let mut again = Stranger::meet(&again_net, &network.tracker.url, vec![target; 1]).await;
            again.join("song.opus", PageRanges::one(0, 60), Intent::Share).await;
            again.settle().await;
        }
        // Somebody who fetches is sent to the publisher only.
        let receiver_net = net(0xb1).await;
        let mut receiver = Stranger::meet(&receiver_net, &network.tracker.url, Vec::new()).await;
        receiver.join("song.opus", PageRanges::new(), Intent::Whole).await;
        receiver.assignment().await;
        receiver.settle().await;
        for a in &receiver.assigned {
            for source in std::iter::once(&a.source).chain(&a.stand_ins) {
                assert!(
                    !source.host.addrs.iter().any(|x| reach.contains(x)),
                    "aimed at {:?}",
                    source.host.addrs
                );
            }
        }
    });
    let (mut get, out) = network.get("receiver", &url, &[]);
    get.ends_with(0);
    assert!(same(&file, &out));
    let (connections, bytes) =
        (victim.connections.load(Ordering::Relaxed), victim.bytes.load(Ordering::Relaxed));
    eprintln!("the victim saw {connections} connections and {bytes} bytes");
    assert!(connections <= 10, "{connections} connections to the victim");
    assert!(bytes <= connections * 2_000, "{bytes} bytes to the victim in {connections} connections");
}

/// An address of this machine that is not loopback, if it has one.
fn outer_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent by this.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[test]
fn a_peer_from_elsewhere_has_no_loopback_address_dialed() {
    let Some(ip) = outer_address() else {
        eprintln!("skipped: this machine has no address but loopback");
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let tracker = iceshare_tests::Tracker::start(dir.path(), &format!("{ip}:0"));
    let victim = Victim::new();
    let target = NetAddr { kind: NetKind::Tcp, at: victim.at };
    runtime().block_on(async {
        let listen = vec![SocketAddr::new(ip, 0)];
        let identity = icet::Identity::from_seed(&[0xa0; 32]);
        let net = iceshare::net::Net::bind(iceshare::net::NetConfig::new(listen, identity)).await;
        let net = net.expect("a free port");
        let mut attacker = Stranger::meet(&net, &tracker.url, vec![target]).await;
        let refused = |m: &ToPeer| match m {
            ToPeer::ReachResult(r) if r.addr == target => Some(r.clone()),
            _ => None,
        };
        let result = attacker.until("a result", refused).await;
        assert!(!result.proved);
        assert!(result.why.contains("loopback"), "{}", result.why);
        attacker.settle().await;
    });
    assert_eq!(victim.connections.load(Ordering::Relaxed), 0);
}
