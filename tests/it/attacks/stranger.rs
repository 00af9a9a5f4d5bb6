//! A stranger: speaks IceT and HTTP by hand, under a key of its own, and keeps to no rule.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use iceshare::driver::{Peer, PeerConfig};
use iceshare::net::session::{self, PeerSession};
use iceshare::net::{Net, NetConfig};
use iceshare::protocol::Registry;
use iceshare::shelf::Anonymous;
use iceshare_tests::{Network, PATIENCE};
use iceshare_transport_http as _;
use icet::message::{
    Assignment, Hello, InfoRequest, Intent, Join, KeyProof, MediaAnswer, Ping, ToPeer, ToTracker,
};
use icet::{
    Abilities, HostAddr, Identity, Limits, MediaPath, NetAddr, NetKind, Offer, PageRanges, ProtocolName,
    SignedManifest,
};
use tokio::runtime::Runtime;

/// Where strangers' tasks run while the test itself waits.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

pub(super) fn http() -> ProtocolName {
    "http".parse().expect("a protocol name")
}

/// What a peer says it has that serves nothing but whole ranges of pages over HTTP.
pub(super) fn offer() -> Offer {
    Offer {
        name: http(),
        abilities: Abilities::PAGES,
        serves: true,
        endpoint: String::new(),
        dials: Some(NetKind::Tcp),
    }
}

/// A port of its own on loopback, under the key of this seed.
pub(super) async fn net(seed: u8) -> Net {
    let listen = vec!["127.0.0.1:0".parse().expect("an address")];
    Net::bind(NetConfig::new(listen, Identity::from_seed(&[seed; 32]))).await.expect("a free port")
}

/// A peer in this process, with HTTP and a folder of its own.
pub(crate) async fn peer(network: &Network, who: &str, seed: u8, down: Option<u64>) -> Peer {
    let registry = Registry::linked().expect("a registry");
    let config = PeerConfig {
        identity: Identity::from_seed(&[seed; 32]),
        data_dir: network.path(who),
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        up: None,
        down,
        protocols: registry.build(&["http".to_owned()], &[]).expect("protocols"),
        anonymous: Anonymous::Allow,
        agent: who.into(),
    };
    Peer::start(config).await.expect("a peer")
}

/// A session with a tracker.
pub(super) struct Stranger {
    session: PeerSession,
    /// Orders that came so far.
    pub(super) assigned: Vec<Assignment>,
    requests: u64,
}

impl Stranger {
    /// Says hello to the tracker at `url` and announces `reach`.
    pub(super) async fn meet(net: &Net, url: &str, reach: Vec<NetAddr>) -> Stranger {
        Stranger::meet_offering(net, url, reach, offer()).await
    }

    /// The same with another protocol.
    async fn meet_offering(net: &Net, url: &str, reach: Vec<NetAddr>, offer: Offer) -> Stranger {
        let authority = url.trim_start_matches("icet://");
        let session = session::connect(net, authority, None, &[]).await.expect("a session");
        let mut stranger = Stranger { session, assigned: Vec::new(), requests: 0 };
        let hello = Hello {
            version: icet::VERSION,
            agent: "stranger".into(),
            proof: KeyProof::Channel,
            offers: vec![offer],
            reach,
            limits: Limits::default(),
            epoch: None,
            instance: None,
        };
        stranger.send(hello).await;
        stranger.until("a welcome", |m| matches!(m, ToPeer::Welcome(_)).then_some(())).await;
        stranger
    }

    pub(super) async fn send(&self, message: impl Into<ToTracker>) {
        self.session.send(&message.into()).await.expect("the tracker listens");
    }

    /// Waits for a message for which `f` gives something.
    pub(super) async fn until<T>(&mut self, what: &str, mut f: impl FnMut(&ToPeer) -> Option<T>) -> T {
        let wait = async {
            loop {
                let message = self.session.recv().await.unwrap_or_else(|e| panic!("no {what}: {e}"));
                if let ToPeer::Assign(a) = &message {
                    self.assigned.extend(a.assignments.iter().cloned());
                }
                if let Some(found) = f(&message) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no {what} in time"))
    }

    /// Hears the tracker out until one of both goes.
    pub(super) async fn linger(&mut self) {
        while self.session.recv().await.is_ok() {}
    }

    /// Waits until the tracker has answered all that was sent.
    pub(super) async fn settle(&mut self) {
        self.requests += 1;
        let nonce = 7_000 + self.requests;
        self.send(Ping { nonce }).await;
        self.until("a pong", |m| matches!(m, ToPeer::Pong(p) if p.nonce == nonce).then_some(())).await;
    }

    /// The current version of what is at `path`.
    async fn version(&mut self, path: &MediaPath) -> u64 {
        self.requests += 1;
        let request = self.requests;
        self.send(InfoRequest { request, path: path.clone() }).await;
        let answer = |m: &ToPeer| match m {
            ToPeer::InfoAnswer(a) if a.request == request => Some(a.manifest.clone()),
            _ => None,
        };
        let manifest = self.until("figures of the media", answer).await;
        SignedManifest::verify(manifest).expect("the publisher's").version
    }

    /// Joins `path` and claims to hold `have` of its current version.
    pub(super) async fn join(&mut self, path: &str, have: PageRanges, intent: Intent) -> MediaAnswer {
        let path: MediaPath = path.parse().expect("a media path");
        let version = if have.is_empty() { 0 } else { self.version(&path).await };
        self.requests += 1;
        let request = self.requests;
        let join = Join {
            request,
            path,
            publisher: None,
            version,
            have,
            intent,
            at: None,
            running: Vec::new(),
            back: None,
        };
        self.send(join).await;
        let answer = |m: &ToPeer| match m {
            ToPeer::MediaAnswer(a) if a.request == request => Some(Ok(a.clone())),
            ToPeer::ErrorMessage(e) => Some(Err(e.text.clone())),
            _ => None,
        };
        self.until("an answer to a join", answer).await.expect("a join that is taken")
    }

    /// Waits for an order, and keeps it.
    pub(super) async fn assignment(&mut self) -> Assignment {
        if self.assigned.is_empty() {
            self.until("an assignment", |m| matches!(m, ToPeer::Assign(_)).then_some(())).await;
        }
        self.assigned.first().cloned().expect("an assignment")
    }
}

/// The port on which the first peer that has pages of `path` serves HTTP, as a tracker tells a newcomer.
pub(super) fn port_of_host(rt: &Runtime, tracker: &str, path: &str, seed: u8) -> SocketAddr {
    host_of(rt, tracker, path, seed, offer()).addrs.first().expect("an address of the host").at
}

/// The first peer that has pages of `path` and serves them over this protocol, as a tracker tells a newcomer.
pub(super) fn host_of(rt: &Runtime, tracker: &str, path: &str, seed: u8, offer: Offer) -> HostAddr {
    rt.block_on(async {
        let net = net(seed).await;
        let mut asker = Stranger::meet_offering(&net, tracker, Vec::new(), offer).await;
        asker.join(path, PageRanges::new(), Intent::Whole).await;
        asker.assignment().await.source.host
    })
}

/// An HTTP answer, as it came.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

/// A request whose bytes are the caller's own, on a connection of its own.
pub(super) fn ask(to: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(to).expect("somebody listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    // Who refuses early may close before all was sent.
    let _ = stream.write_all(request);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").map_or(all.len(), |i| i + 4);
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Answer { status, head, body: all.split_off(end) }
}

/// A GET of `target` with further header lines.
pub(super) fn get(to: SocketAddr, target: &str, headers: &[&str]) -> Answer {
    let mut request = format!("GET {target} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|h| h.starts_with("Host:")) {
        request.push_str(&format!("Host: {to}\r\n"));
    }
    headers.iter().for_each(|h| request.push_str(&format!("{h}\r\n")));
    request.push_str("\r\n");
    ask(to, request.as_bytes())
}

pub(super) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Between two looks at what is waited for.
const PACE: Duration = Duration::from_millis(5);

/// Looks until there is what is waited for.
pub(crate) fn eventually<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = f() {
            return found;
        }
        assert!(std::time::Instant::now() < end, "never: {what}");
        std::thread::park_timeout(PACE);
    }
}
