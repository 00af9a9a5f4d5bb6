//! A peer of a simulation: the real engine, and what a driver would do for it.

use std::time::Duration;

use iceshare::engine::Engine;
use iceshare::engine::io::{Config, Handle};
use icet::message::{Hello, Intent, KeyProof};
use icet::{Abilities, Identity, Limits, NetAddr, NetKind, Now, Offer};
use icetracker::swarm::ConnId;

use crate::net::{Conduct, Line};
use crate::play::Player;
use crate::protocol::Protocol;

/// The only media that a simulated peer opens.
pub const MEDIA: Handle = Handle(1);

/// A peer's line and wishes.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Its line.
    pub line: Line,
    /// What it wants.
    pub intent: Intent,
    /// How it answers requests.
    pub conduct: Conduct,
    /// Whether others can reach it; if not, its addresses are never proved, and only protocols that punch lead to it.
    pub open: bool,
    /// Whether it offers to serve at all.
    pub serves: bool,
    /// Whether it tells the tracker how fast its line is, as a user does who sets limits.
    pub declares: bool,
    /// Protocols that it speaks, a bit each, by their number in the simulation.
    pub speaks: u32,
    /// Protocols whose packets do not pass its NAT or firewall, in either direction; a bit each.
    pub blocked: u32,
    /// The peer on whose machine it is another key, and whose line it shares.
    pub on: Option<usize>,
    /// Number of its class, for figures.
    pub class: usize,
}

impl Spec {
    /// A peer that wants everything, over a line of so many bytes a second up, and ten times as many down.
    #[must_use]
    pub fn of(up: f64) -> Spec {
        Spec {
            line: Line { up, down: 10.0 * up, delay: Duration::from_millis(15), loss: 0.0 },
            intent: Intent::Whole,
            conduct: Conduct::Honest,
            open: true,
            serves: true,
            declares: false,
            speaks: u32::MAX,
            blocked: 0,
            on: None,
            class: 0,
        }
    }
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    /// Its line and wishes.
    pub spec: Spec,
    /// Its key.
    pub identity: Identity,
    /// Its engine.
    pub engine: Engine,
    /// Whether it left the swarm on purpose.
    pub left: bool,
    /// When it joined.
    pub joined: Now,
    /// Its player, if it plays.
    pub player: Option<Player>,
    /// Why the tracker refused it, if it did.
    pub refused: Option<String>,
    pub(crate) conn: Option<ConnId>,
    /// A try to connect that is still wanted.
    pub(crate) connecting: u64,
    /// The alarm that is set for its engine.
    pub(crate) alarm: Option<Now>,
}

impl Peer {
    pub(crate) fn new(number: usize, seed: u64, spec: Spec, now: Now, protocols: &[Protocol]) -> Peer {
        let mut bytes = [0x5e; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_le_bytes());
        bytes[8..16].copy_from_slice(&seed.to_le_bytes());
        let identity = Identity::from_seed(&bytes);
        // In range: rates of lines.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let declared = |rate: f64| spec.declares.then_some(rate as u64);
        let kind = |p: &Protocol| if p.udp { NetKind::Udp } else { NetKind::Tcp };
        let offer = |(_, p): (usize, &Protocol)| {
            let punches = p.punches > 0.0;
            let relayed = if punches { Abilities::RELAYED } else { Abilities::PAGES };
            Offer {
                name: p.name.parse().expect("a protocol name"),
                abilities: [Abilities::LIVE, Abilities::OPEN, Abilities::PROOFS, Abilities::ORDERED, relayed]
                    .into_iter()
                    .fold(Abilities::PAGES, |a, b| a | b),
                serves: spec.serves,
                endpoint: if punches { "at a relay".to_owned() } else { String::new() },
                dials: Some(kind(p)),
            }
        };
        let mut kinds: Vec<NetKind> = protocols.iter().map(kind).collect();
        kinds.dedup();
        let hello = Hello {
            version: icet::VERSION,
            agent: "sim".into(),
            proof: KeyProof::Channel,
            offers: protocols
                .iter()
                .enumerate()
                .filter(|(i, _)| spec.speaks >> i & 1 == 1)
                .map(offer)
                .collect(),
            reach: kinds.into_iter().map(|kind| NetAddr { kind, at: address(number, &spec) }).collect(),
            limits: Limits { up: declared(spec.line.up), down: declared(spec.line.down) },
            epoch: None,
            instance: None,
        };
        // As the driver has it.
        let config = Config {
            hello,
            fetches: 24,
            per_host: 6,
            connects_each: std::collections::BTreeSet::new(),
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
            left: false,
            joined: now,
            player: (spec.intent == Intent::Play).then(Player::default),
            refused: None,
            conn: None,
            connecting: 0,
            alarm: None,
        }
    }
}

/// Each machine has a network of its own.
pub(crate) fn address(number: usize, spec: &Spec) -> std::net::SocketAddr {
    let n = u32::try_from(spec.on.unwrap_or(number)).unwrap_or(u32::MAX) << 8;
    // In range: a machine has few keys.
    let port = spec.on.map_or(0, |on| u16::try_from(number - on).unwrap_or(u16::MAX - 4000));
    std::net::SocketAddr::from((std::net::Ipv4Addr::from(0x1400_0001 + n), 4000 + port))
}
