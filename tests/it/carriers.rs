//! Carriers of a session that stop passing in its middle, and start again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use iceshare_tests::{Network, media, same};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::attacks::stranger::runtime;

/// A firewall before a tracker: passes UDP and TCP of one port number, or swallows it without a word.
struct Firewall {
    addr: SocketAddr,
    udp: watch::Sender<bool>,
    tcp: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Firewall {
    async fn start(to: SocketAddr) -> Firewall {
        let (listener, socket) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let addr = listener.local_addr().expect("an address");
            if let Ok(socket) = UdpSocket::bind(addr).await {
                break (listener, socket);
            }
        };
        let addr = listener.local_addr().expect("an address");
        let (udp, tcp) = (watch::Sender::new(true), watch::Sender::new(true));
        let mut tasks = JoinSet::new();
        tasks.spawn(datagrams(socket, to, udp.subscribe()));
        tasks.spawn(connections(listener, to, tcp.subscribe()));
        Firewall { addr, udp, tcp, _tasks: tasks }
    }

    fn set(&self, udp: bool, tcp: bool) {
        self.udp.send_replace(udp);
        self.tcp.send_replace(tcp);
    }
}

/// Of each client, over a socket of its own.
async fn datagrams(front: UdpSocket, to: SocketAddr, open: watch::Receiver<bool>) {
    let front = std::sync::Arc::new(front);
    let mut clients = std::collections::HashMap::new();
    let (mut tasks, mut buf) = (JoinSet::new(), vec![0; 65_536]);
    while let Ok((n, from)) = front.recv_from(&mut buf).await {
        if !*open.borrow() {
            continue;
        }
        let back = match clients.get(&from) {
            Some(back) => back,
            None => {
                let back = std::sync::Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
                back.connect(to).await.expect("an address");
                let (front, from_tracker, open) = (front.clone(), back.clone(), open.clone());
                tasks.spawn(async move {
                    let mut buf = vec![0; 65_536];
                    while let Ok(n) = from_tracker.recv(&mut buf).await {
                        if *open.borrow() {
                            let _ = front.send_to(&buf[..n], from).await;
                        }
                    }
                });
                clients.entry(from).or_insert(back)
            }
        };
        let _ = back.send(&buf[..n]).await;
    }
}

async fn connections(listener: TcpListener, to: SocketAddr, open: watch::Receiver<bool>) {
    let mut tasks = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let open = open.clone();
        tasks.spawn(async move {
            let tracker = TcpStream::connect(to).await.expect("the tracker");
            let ((from, back), (answers, on)) = (client.into_split(), tracker.into_split());
            tokio::join!(pipe(from, on, open.clone()), pipe(answers, back, open));
        });
    }
}

async fn pipe(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut open: watch::Receiver<bool>,
) {
    let mut buf = vec![0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut buf).await {
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&buf[..n]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Sessions that were opened over QUIC and over TLS, as the tracker counts them.
fn opened(metrics: &str) -> (u64, u64) {
    let of = |carrier: &str| {
        let metric = format!("icetracker_sessions_opened_total{{carrier=\"{carrier}\"}} ");
        metrics.lines().find_map(|l| l.strip_prefix(&metric)?.parse().ok()).unwrap_or(0)
    };
    (of("quic"), of("tls"))
}

#[test]
fn a_session_goes_on_over_the_carrier_that_passes() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 4_000_000, 4200, 131).expect("a file");
    let (_publisher, url) = net.publish("publisher", &file, &["--up", "250kB"]);
    let rt = runtime();
    let firewall = rt.block_on(Firewall::start(net.tracker.listen().parse().expect("an address")));
    let url = url.replace(&net.tracker.listen(), &firewall.addr.to_string());
    let before = opened(&net.tracker.get("/metrics"));
    let (mut get, out) = net.get("receiver", &url, &["--json"]);
    let more = |quic, tls, what: &str| {
        let began = Instant::now();
        net.tracker.until("/metrics", what, |m| {
            let (q, t) = opened(m);
            (q >= before.0 + quic && t >= before.1 + tls).then_some(())
        });
        began.elapsed()
    };
    more(1, 0, "that the receiver came over QUIC");
    net.tracker.until("/api/media", "that it fetches", |m| {
        let running = "\"assignments_running\":";
        (m.contains(running) && !m.contains(&format!("{running}0"))).then_some(())
    });
    firewall.set(false, true);
    let to_tcp = more(1, 1, "that its session went on over TLS");
    firewall.set(true, false);
    let to_quic = more(2, 1, "that its session went on over QUIC again");
    // A network that is down for a while loses nobody either.
    firewall.set(false, false);
    firewall.set(true, true);
    get.ends_with(0);
    assert!(same(&file, &out));
    let figures: serde_json::Value = serde_json::from_str(&get.stdout()).expect("figures");
    assert_eq!(figures["duplicate_pages"], 0, "nothing was ordered twice: {figures}");
    eprintln!("without UDP, the session was on TLS after {to_tcp:?}; without TCP, on QUIC after {to_quic:?}");
    // The carriers themselves would have waited for half a minute.
    assert!(to_tcp.max(to_quic) < Duration::from_secs(15), "{to_tcp:?}, {to_quic:?}");
}
