//! A peer of a simulation: the real engine, and what a driver would do for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use iceshare::engine::Engine;
use iceshare::engine::io::{Config, FetchId, Handle};
use icet::message::{Hello, Intent, KeyProof};
use icet::{Abilities, Identity, Limits, NetAddr, NetKind, Now, Offer, PageMap};
use icetracker::swarm::ConnId;

/// The only media that a simulated peer opens.
pub const MEDIA: Handle = Handle(1);

/// A peer's line and wishes.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Upload in bytes a second.
    pub up: f64,
    /// Download in bytes a second.
    pub down: f64,
    /// One way from the peer to the middle of the network.
    pub delay: Duration,
    /// What it wants.
    pub intent: Intent,
    /// Whether it sends altered pages.
    pub alters: bool,
}

impl Spec {
    /// A peer that wants everything, over a line of so many bytes a second up, and ten times as many down.
    #[must_use]
    pub fn of(up: f64) -> Spec {
        Spec { up, down: 10.0 * up, delay: Duration::from_millis(15), intent: Intent::Whole, alters: false }
    }
}

/// How a peer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The process was killed: its connections break at once, new ones are refused.
    Process,
    /// Its line is cut: nobody hears anything.
    Line,
}

/// A player that reads the media in order, at its rate.
#[derive(Debug, Clone, Default)]
pub struct Player {
    /// Byte that is played next.
    pub at: u64,
    /// Since when it waits, if it does.
    pub waits: Option<Now>,
    /// Time from the wish (a start or a seek) to the first sound, of each.
    pub starts: Vec<Duration>,
    /// How often it ran dry, other than after a start or a seek.
    pub stalls: u32,
    /// For how long in all.
    pub stalled: Duration,
    pub(super) starting: bool,
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    /// Its line.
    pub spec: Spec,
    /// Its key.
    pub identity: Identity,
    /// Its engine.
    pub engine: Engine,
    /// Pages on its disk; none until it has the manifest.
    pub held: Option<PageMap>,
    /// Whether it lives.
    pub death: Option<Death>,
    /// Whether it left the swarm on purpose.
    pub left: bool,
    /// When it had everything.
    pub done: Option<Now>,
    /// When it joined.
    pub joined: Now,
    /// Bytes of pages that it sent.
    pub sent: u64,
    /// Bytes of pages that came although they were held.
    pub twice: u64,
    /// Altered pages that came to it.
    pub bad: u64,
    /// Its player, if it plays.
    pub player: Option<Player>,
    /// Why the tracker refused it, if it did.
    pub refused: Option<String>,
    pub(super) conn: Option<ConnId>,
    /// A try to connect that is still wanted.
    pub(super) connecting: u64,
    /// Transfers waiting for the uplink, in turn.
    pub(super) sending: VecDeque<u64>,
    pub(super) busy: bool,
    pub(super) down_free: Now,
    pub(super) served: BTreeMap<u64, u64>,
    pub(super) fetches: BTreeMap<FetchId, u64>,
    /// Peers that it has a connection with.
    pub(super) known: BTreeSet<usize>,
    pub(super) alarm: Option<Now>,
}

impl Peer {
    pub(super) fn new(number: usize, spec: Spec, now: Now) -> Peer {
        let mut seed = [0x5e; 32];
        seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let identity = Identity::from_seed(&seed);
        let hello = Hello {
            version: icet::VERSION,
            agent: "sim".into(),
            proof: KeyProof::Channel,
            offers: vec![Offer {
                name: "http".parse().expect("a protocol name"),
                abilities: Abilities::PAGES,
                serves: true,
                endpoint: String::new(),
                dials: Some(NetKind::Tcp),
            }],
            reach: vec![NetAddr { kind: NetKind::Tcp, at: address(number) }],
            limits: Limits::default(),
            epoch: None,
        };
        // As the driver has it.
        let config = Config {
            hello,
            fetches: 24,
            per_host: 6,
            stall: Duration::from_secs(4),
            stall_urgent: Duration::from_millis(1500),
            silence: Duration::from_secs(1),
            ack_delay: Duration::from_millis(250),
            backoff: (Duration::from_millis(300), Duration::from_secs(20)),
            seed: number as u64,
        };
        Peer {
            spec,
            identity,
            engine: Engine::new(config),
            held: None,
            death: None,
            left: false,
            done: None,
            joined: now,
            sent: 0,
            twice: 0,
            bad: 0,
            player: (spec.intent == Intent::Play).then(Player::default),
            refused: None,
            conn: None,
            connecting: 0,
            sending: VecDeque::new(),
            busy: false,
            down_free: Now::ZERO,
            served: BTreeMap::new(),
            fetches: BTreeMap::new(),
            known: BTreeSet::new(),
            alarm: None,
        }
    }

    /// Whether it takes part.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.death.is_none() && !self.left
    }
}

/// Each peer has a network of its own.
pub(super) fn address(number: usize) -> std::net::SocketAddr {
    let n = u32::try_from(number).unwrap_or(u32::MAX) << 8;
    std::net::SocketAddr::from((std::net::Ipv4Addr::from(0x1400_0001 + n), 4000))
}
