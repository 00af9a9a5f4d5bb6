//! Nodes of their own on loopback, and a relay between them.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{AsyncReadExt, AsyncWriteExt};
use iceshare::icet::{Abilities, Identity, NetAddr, PeerKey};
use iceshare::net::{Net, NetConfig};
use iceshare::protocol::Settings;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};

use super::*;
use crate::relay::{Limits, Options, Relay, RelayError};

const PATIENCE: Duration = Duration::from_secs(60);

/// A peer that says a word on each stream that is opened to it.
struct Peer {
    net: Net,
    node: Node,
    endpoint: String,
    streams: JoinHandle<()>,
    over: CancellationToken,
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn peer(seed: u8, settings: &[(&str, &str)]) -> Peer {
    let settings = Settings(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
    let config = Config::read(&settings).expect("settings");
    let net = Net::bind(NetConfig::new(vec![any()], Identity::from_seed(&[seed; 32]))).await.expect("ports");
    let cx = net.context(crate::NAME.parse().expect("a name"));
    let Started { node, endpoint, mut inbound, over } =
        Node::start(&cx, &config, u64::MAX).await.expect("a node");
    let streams = tokio::spawn(async move {
        while let Some((_, mut stream, _)) = inbound.recv().await {
            let _ = stream.write_all(b"hello").await;
            let _ = stream.close().await;
        }
    });
    Peer { net, node, endpoint, streams, over }
}

fn key(seed: u8) -> PeerKey {
    Identity::from_seed(&[seed; 32]).key()
}

fn id(seed: u8) -> PeerId {
    wire::peer_id(&key(seed)).expect("a point")
}

impl Peer {
    fn host(&self, seed: u8, tcp: Vec<SocketAddr>) -> HostAddr {
        let addr = |at| NetAddr { kind: NetKind::Tcp, at };
        HostAddr {
            key: key(seed),
            protocol: crate::NAME.parse().expect("a name"),
            addrs: tcp.into_iter().map(addr).collect(),
            endpoint: self.endpoint.clone(),
            abilities: Abilities::default(),
        }
    }

    fn tcp(&self) -> SocketAddr {
        self.net.local_addrs().iter().find(|a| a.kind == NetKind::Tcp).expect("a TCP port").at
    }

    async fn hear(&self, host: &HostAddr) -> Result<String, TransportError> {
        let (mut stream, _) = timeout(PATIENCE, self.node.open(host)).await.expect("an end")?;
        let mut word = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut word)).await.expect("an end").expect("a word");
        Ok(word)
    }

    async fn way(&self, host: u8) -> Option<Way> {
        let (reply, answer) = oneshot::channel();
        self.node.orders.send(Order::Way(id(host), reply)).await.ok()?;
        answer.await.ok()?
    }

    /// Asks until a stream opens: a reservation takes a moment.
    async fn hear_soon(&self, host: &HostAddr) -> String {
        let (until, mut ticks) = (Instant::now() + PATIENCE, interval(Duration::from_millis(100)));
        loop {
            ticks.tick().await;
            match self.hear(host).await {
                Ok(word) => return word,
                Err(e) => assert!(Instant::now() < until, "{e}"),
            }
        }
    }

    async fn end(self) {
        self.over.cancel();
        self.net.shutdown().await;
        self.streams.await.expect("its streams ended");
    }
}

struct Running {
    addrs: String,
    at: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RelayError>>,
}

async fn relay(seed: u8, listen: SocketAddr, limits: Limits) -> Running {
    let identity = Identity::from_seed(&[seed; 32]);
    let options = Options { identity, listen: vec![listen], announce: Vec::new(), limits };
    let (until, mut ticks) = (Instant::now() + PATIENCE, interval(Duration::from_millis(50)));
    let relay = loop {
        match Relay::start(options.clone()).await {
            Ok(relay) => break relay,
            // The port of one that just ended may be taken for a moment.
            Err(e) => assert!(Instant::now() < until, "{e}"),
        }
        ticks.tick().await;
    };
    let addrs = relay.addresses();
    assert_eq!(addrs.len(), 2, "{addrs:?}");
    let (ip, port, _) = wire::socket_of(&addrs[0]).expect("an address");
    let stop = CancellationToken::new();
    let addrs = addrs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    Running { addrs, at: SocketAddr::new(ip, port), task: tokio::spawn(relay.run(stop.clone())), stop }
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("an orderly end");
    }
}

/// A port where nobody is.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind(any()).and_then(|l| l.local_addr()).expect("a port")
}

#[tokio::test]
async fn proved_addresses_are_dialed_and_quic_beside_them() {
    let (host, receiver) = (peer(1, &[]).await, peer(2, &[("quic-port", "off")]).await);
    assert!(
        receiver.endpoint.is_empty() && host.endpoint.starts_with("/ip4/0.0.0.0/udp/"),
        "{}",
        host.endpoint
    );
    assert_eq!(receiver.hear(&host.host(1, vec![host.tcp()])).await.expect("a word"), "hello");
    assert_eq!(receiver.way(1).await, Some(Way::Tcp));
    // TCP is blocked, the address is the host's all the same.
    let other = peer(3, &[]).await;
    assert_eq!(other.hear(&host.host(1, vec![nobody()])).await.expect("a word"), "hello");
    assert_eq!(other.way(1).await, Some(Way::Quic));
    // Without a proved address nothing is dialed.
    let last = peer(4, &[]).await;
    let e = last.hear(&host.host(1, vec![])).await.expect_err("no way");
    assert_eq!(e.kind, ErrorKind::Unreachable);
    // Connections serve both ends: the host needs no address of who dialed it.
    assert_eq!(host.hear(&receiver.host(2, vec![])).await.expect("a word"), "hello");
    for p in [host, receiver, other, last] {
        p.end().await;
    }
}

#[tokio::test]
async fn somebody_elses_key_ends_it() {
    let (host, receiver) = (peer(1, &[]).await, peer(2, &[]).await);
    let mut wrong = host.host(3, vec![host.tcp()]);
    for endpoint in [host.endpoint.clone(), String::new()] {
        wrong.endpoint = endpoint;
        let e = receiver.hear(&wrong).await.expect_err("another key answers");
        assert_eq!(e.kind, ErrorKind::WrongKey);
        assert!(e.to_string().contains(&key(1).short()), "{e}");
    }
    assert_eq!(receiver.way(3).await, None);
    // Nobody at all, and a key that is none.
    let e = receiver.hear(&host.host(3, vec![nobody()])).await.expect_err("nobody is there");
    assert_eq!(e.kind, ErrorKind::Unreachable);
    let none = HostAddr { key: PeerKey([2; 32]), ..host.host(1, vec![host.tcp()]) };
    assert_eq!(receiver.hear(&none).await.expect_err("no key").kind, ErrorKind::Unreachable);
    let itself = receiver.host(2, vec![receiver.tcp()]);
    assert_eq!(receiver.hear(&itself).await.expect_err("it is us").kind, ErrorKind::WrongKey);
    host.end().await;
    receiver.end().await;
}

#[tokio::test]
async fn a_relay_leads_to_those_without_an_address() {
    let relay = relay(9, any(), Limits::default()).await;
    let settings = [("relay", relay.addrs.as_str()), ("punch", "off")];
    let (host, receiver) = (peer(1, &settings).await, peer(2, &settings).await);
    let address = host.host(1, vec![]);
    assert!(address.endpoint.ends_with(&format!("/p2p/{}/p2p-circuit/p2p/{}", id(9), id(1))));
    assert_eq!(receiver.hear_soon(&address).await, "hello");
    assert_eq!(receiver.way(1).await, Some(Way::Relayed));
    // Where there is an address, the relay is not asked.
    let other = peer(3, &settings).await;
    assert_eq!(other.hear(&host.host(1, vec![host.tcp()])).await.expect("a word"), "hello");
    assert_eq!(other.way(1).await, Some(Way::Tcp));
    // And the relayed connection gives way to it.
    assert_eq!(receiver.hear(&host.host(1, vec![host.tcp()])).await.expect("a word"), "hello");
    assert_eq!(receiver.way(1).await, Some(Way::Tcp));
    // Who does not know the relay is not led to it by the host.
    let without = peer(4, &[]).await;
    let e = without.hear(&address).await.expect_err("a relay of the host's choosing");
    assert!(e.kind == ErrorKind::Unreachable && e.to_string().contains("libp2p.relay"), "{e}");
    for p in [host, receiver, other, without] {
        p.end().await;
    }
    relay.end().await;
}

#[tokio::test]
async fn a_punch_replaces_the_relay() {
    let relay = relay(9, any(), Limits::default()).await;
    let settings = [("relay", relay.addrs.as_str())];
    let (host, receiver) = (peer(1, &settings).await, peer(2, &settings).await);
    let address = host.host(1, vec![]);
    assert_eq!(receiver.hear_soon(&address).await, "hello");
    let (until, mut ticks) = (Instant::now() + PATIENCE, interval(Duration::from_millis(50)));
    while receiver.way(1).await == Some(Way::Relayed) {
        assert!(Instant::now() < until, "no direct connection came");
        ticks.tick().await;
    }
    // It does without the relay from now on.
    relay.end().await;
    assert_eq!(receiver.hear(&address).await.expect("a word"), "hello");
    assert!(matches!(receiver.way(1).await, Some(Way::Tcp | Way::Quic)));
    host.end().await;
    receiver.end().await;
}

#[tokio::test]
async fn a_relay_that_was_away_is_used_again() {
    let limits = Limits::default();
    let first = relay(9, any(), limits).await;
    let (at, addrs) = (first.at, first.addrs.clone());
    let settings = [("relay", addrs.as_str()), ("punch", "off")];
    let host = peer(1, &settings).await;
    let address = host.host(1, vec![]);
    let receiver = peer(2, &settings).await;
    assert_eq!(receiver.hear_soon(&address).await, "hello");
    first.end().await;
    let again = relay(9, at, limits).await;
    let fresh = peer(3, &settings).await;
    assert_eq!(fresh.hear_soon(&address).await, "hello");
    for p in [host, receiver, fresh] {
        p.end().await;
    }
    again.end().await;
}

#[tokio::test]
async fn a_full_relay_has_a_place_for_newcomers() {
    let relay = relay(9, any(), Limits { reservations: 2, ..Limits::default() }).await;
    let settings = [("relay", relay.addrs.as_str()), ("punch", "off")];
    let early = [peer(1, &settings).await, peer(2, &settings).await];
    let known = [early[0].host(1, vec![]), early[1].host(2, vec![])];
    // Both have a reservation, and a circuit.
    assert_eq!(early[0].hear_soon(&known[1]).await, "hello");
    assert_eq!(early[1].hear_soon(&known[0]).await, "hello");
    let (host, caller) = (peer(3, &settings).await, peer(4, &settings).await);
    assert_eq!(caller.hear_soon(&host.host(3, vec![])).await, "hello");
    for p in early.into_iter().chain([host, caller]) {
        p.end().await;
    }
    relay.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_host_lets_newcomers_in_and_others_go() {
    let host = peer(1, &[("connections", "2")]).await;
    let addr = host.host(1, vec![host.tcp()]);
    let mut peers = Vec::new();
    for seed in 2..=4 {
        let peer = peer(seed, &[]).await;
        // It may be the one that goes, until it is served.
        assert_eq!(peer.hear_soon(&addr).await, "hello");
        peers.push(peer);
    }
    let mut ticks = interval(Duration::from_millis(50));
    let until = Instant::now() + PATIENCE;
    loop {
        ticks.tick().await;
        let mut open = 0;
        for seed in 2..=4 {
            open += usize::from(host.way(seed).await.is_some());
        }
        if open == 2 {
            break;
        }
        assert!(Instant::now() < until, "{open} are open");
    }
    for peer in peers {
        peer.end().await;
    }
    host.end().await;
}
