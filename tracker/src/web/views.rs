//! What the API tells, as types: the JSON is their serialisation.

use icet::media::StreamInfo;
use icet::message::Intent;
use icet::{Abilities, Kind, Manifest, MediaId, PeerKey, SignedManifest};
use serde::Serialize;

use crate::swarm::{MediaView, MemberView, Nearness, PeerView, ProtocolView, Swarm, Totals};

/// Parts into which the availability of a media is cut.
const PARTS: usize = 64;
/// Members of a media that are listed.
const MEMBERS: usize = 200;
/// Protocols that are listed: their names come from strangers.
const PROTOCOLS: usize = 64;

/// What most views need of the swarm, at one moment.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) totals: Totals,
    pub(super) protocols: Vec<Protocol>,
}

impl Summary {
    pub(super) fn of(swarm: &Swarm) -> Summary {
        let mut protocols = swarm.protocols();
        // The ones that matter, in the order of their names.
        protocols.sort_by_key(|p| std::cmp::Reverse((p.hosts, p.bytes)));
        protocols.truncate(PROTOCOLS);
        protocols.sort_by(|a, b| a.name.cmp(&b.name));
        Summary { totals: swarm.totals(), protocols: protocols.into_iter().map(Protocol::of).collect() }
    }
}

/// One payload protocol.
#[derive(Debug, Serialize)]
pub(super) struct Protocol {
    pub(super) name: String,
    /// Peers that serve over it now.
    pub(super) hosts: u64,
    /// Assignments made for it since the start, and fetches that ended well or not.
    pub(super) assigned: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) bytes: u64,
    pub(super) first_byte_ms: Option<f64>,
    /// Bytes a second.
    pub(super) goodput: Option<f64>,
    /// 0 to 1.
    pub(super) success: f64,
    /// Reports that the estimates rest on, as they fade.
    pub(super) samples: f64,
    /// Of the pages that came lately, 0 to 1.
    pub(super) share: f64,
    /// Assignments with a deadline that came to it, and of them those that were late.
    pub(super) deadlines: u64,
    pub(super) missed: u64,
    /// By how near host and receiver are.
    pub(super) classes: Vec<Class>,
}

/// A payload protocol between peers that are so near to each other.
#[derive(Debug, Serialize)]
pub(super) struct Class {
    class: &'static str,
    samples: f64,
    success: f64,
    first_byte_ms: Option<f64>,
    goodput: Option<f64>,
}

impl Protocol {
    fn of(p: ProtocolView) -> Protocol {
        Protocol {
            name: p.name.to_string(),
            hosts: p.hosts,
            assigned: p.assigned,
            done: p.done,
            failed: p.failed,
            bytes: p.bytes,
            first_byte_ms: p.first_byte_ms,
            goodput: p.goodput,
            success: p.success,
            samples: p.samples,
            share: p.share,
            deadlines: p.deadlines,
            missed: p.missed,
            classes: p
                .near
                .iter()
                .map(|n| Class {
                    class: match n.near {
                        Nearness::Address => "address",
                        Nearness::Network => "network",
                        Nearness::Elsewhere => "elsewhere",
                    },
                    samples: n.samples,
                    success: n.success,
                    first_byte_ms: n.first_byte_ms,
                    goodput: n.goodput,
                })
                .collect(),
        }
    }
}

/// Who sent how much, in bytes acknowledged since the tracker started.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Delivered {
    pub(super) by_publisher: u64,
    pub(super) by_peers: u64,
}

/// A media's figures.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    pub(super) listeners: u64,
    pub(super) members: u64,
    /// None of live media, as of all that counts pages of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) complete_holders: Option<u64>,
    pub(super) hits: u64,
    pub(super) assignments_running: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) slices_known: Option<u64>,
    pub(super) bytes_delivered: Delivered,
    /// What is on, of live media that says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) now: Option<String>,
}

impl Figures {
    pub(super) fn of(m: &MediaView) -> Figures {
        let file = m.manifest.kind == Kind::File;
        Figures {
            listeners: m.listeners,
            members: m.members,
            complete_holders: file.then_some(m.complete),
            hits: m.hits,
            assignments_running: m.running,
            slices_known: file.then_some(m.slices),
            bytes_delivered: Delivered {
                by_publisher: m.delivered_by_publisher,
                by_peers: m.delivered.saturating_sub(m.delivered_by_publisher),
            },
            now: m.now.clone(),
        }
    }
}

/// A logical stream.
#[derive(Debug, Serialize)]
pub(super) struct Stream {
    serial: u32,
    codec: String,
    rate: Option<u64>,
    channels: Option<u8>,
    size: Option<(u32, u32)>,
}

/// Facts of a manifest.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    id: String,
    path: String,
    /// What follows `icet://HOST:PORT` in the media's link.
    link: String,
    kind: &'static str,
    mime: &'static str,
    title: String,
    tags: Vec<(String, String)>,
    publisher: String,
    version: u64,
    /// None of live media, which has no length; so of the next five.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    setup_pages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slices: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_us: Option<u64>,
    streams: Vec<Stream>,
    /// Seconds since 1970.
    signed_at: u64,
    group: Option<String>,
}

impl Facts {
    pub(super) fn of(m: &SignedManifest, tracker: &PeerKey) -> Facts {
        let stream = |s: &StreamInfo| Stream {
            serial: s.serial,
            codec: s.codec.clone(),
            rate: s.rate,
            channels: s.channels,
            size: s.size,
        };
        let manifest: &Manifest = m;
        let of_file = |n| (manifest.kind == Kind::File).then_some(n);
        Facts {
            id: manifest.id().to_string(),
            path: manifest.path.to_string(),
            link: format!("/{}?key={}&tracker={tracker}", manifest.path.to_url_path(), manifest.publisher),
            kind: match manifest.kind {
                Kind::File => "file",
                Kind::Live => "live",
            },
            mime: manifest.mime(),
            title: manifest.title.clone(),
            tags: manifest.tags.clone(),
            publisher: manifest.publisher.to_string(),
            version: manifest.version,
            bytes: of_file(manifest.bytes),
            pages: of_file(manifest.pages),
            setup_pages: of_file(manifest.setup),
            slices: of_file(manifest.slices()),
            links: of_file(manifest.links),
            duration_us: of_file(manifest.duration),
            streams: manifest.streams.iter().map(stream).collect(),
            signed_at: manifest.signed_at,
            group: manifest.group.as_ref().map(ToString::to_string),
        }
    }
}

/// A media in a list.
#[derive(Debug, Serialize)]
pub(super) struct Item {
    #[serde(flatten)]
    pub(super) facts: Facts,
    /// None for a moment after a publication.
    #[serde(flatten)]
    pub(super) figures: Option<Figures>,
}

/// A member of a swarm, without address.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Member {
    peer: String,
    publisher: bool,
    intent: &'static str,
    /// None of live media, as all that counts pages of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pages_held: Option<u64>,
    /// A digit for each part of `availability`: 0 none of its pages, 9 all. Of the first 48 members only.
    map: Option<String>,
    at_page: Option<u64>,
    fetching: u32,
    serving: u32,
}

/// Copies of the pages of one part.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Copies {
    least: u32,
    mean: f64,
}

/// What the swarm knows of one media.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Detail {
    #[serde(flatten)]
    figures: Figures,
    /// Equal parts of the media, from its beginning: 64, fewer if it is short.
    availability: Vec<Copies>,
    /// At most 200.
    swarm: Vec<Member>,
    /// Who sends to whom now, among these; at most 1000.
    flows: Vec<Flow>,
}

/// What one member sends another.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Flow {
    from: String,
    to: String,
    protocol: String,
    assignments: u32,
    /// None of live media, which goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_left: Option<u64>,
}

/// Shares as digits: only none is 0, only all is 9.
fn digits(map: &[f64]) -> Option<String> {
    let digit = |share: &f64| match *share {
        s if s <= 0.0 => '0',
        s if s >= 1.0 => '9',
        // In range: 0 to 7.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        s => char::from(b'1' + (s * 8.0) as u8),
    };
    (!map.is_empty()).then(|| map.iter().map(digit).collect())
}

impl Detail {
    pub(super) fn of(swarm: &Swarm, media: &MediaId) -> Option<Detail> {
        let detail = swarm.media_detail(media, PARTS)?;
        let file = detail.media.manifest.kind == Kind::File;
        // Who hears live media has all of it that there is.
        let counted = if file { detail.availability.as_slice() } else { &[] };
        let member = |m: &MemberView| Member {
            peer: m.peer.short(),
            intent: match m.intent {
                Intent::Whole => "whole",
                Intent::Play => "play",
                Intent::Share => "share",
            },
            publisher: m.publisher,
            pages_held: file.then_some(m.held),
            map: if file { digits(&m.map) } else { None },
            at_page: m.at,
            fetching: m.fetching,
            serving: m.serving,
        };
        Some(Detail {
            figures: Figures::of(&detail.media),
            availability: counted.iter().map(|a| Copies { least: a.least, mean: a.mean }).collect(),
            swarm: detail.members.iter().take(MEMBERS).map(member).collect(),
            flows: detail
                .flows
                .iter()
                .map(|f| Flow {
                    from: f.from.short(),
                    to: f.to.short(),
                    protocol: f.protocol.to_string(),
                    assignments: f.assignments,
                    bytes_left: file.then_some(f.left),
                })
                .collect(),
        })
    }
}

/// A protocol that a peer has.
#[derive(Debug, Serialize)]
struct Offered {
    name: String,
    serves: bool,
    abilities: Vec<&'static str>,
}

/// A peer: who, what it can do and gives, never where.
#[derive(Debug, Serialize)]
pub(super) struct Peer {
    key: String,
    agent: String,
    /// Whether a dial-back found it at an address that it announced.
    reachable: bool,
    protocols: Vec<Offered>,
    media: u32,
    sent: u64,
    received: u64,
    /// Bytes a second, as learned.
    up: Option<f64>,
    down: Option<f64>,
    trust: f64,
    /// Whether it does not answer the tracker.
    away: bool,
}

impl Peer {
    pub(super) fn of(p: PeerView) -> Peer {
        let abilities =
            |a: Abilities| Abilities::NAMES.iter().filter(|(b, _)| a.has(*b)).map(|(_, n)| *n).collect();
        Peer {
            key: p.key.short(),
            agent: p.agent,
            reachable: p.reach.iter().any(|(_, proved)| *proved == Some(true)),
            protocols: p
                .offers
                .iter()
                .map(|o| Offered {
                    name: o.name.to_string(),
                    serves: o.serves,
                    abilities: abilities(o.abilities),
                })
                .collect(),
            media: p.media,
            sent: p.contribution.sent,
            received: p.contribution.received,
            up: p.up,
            down: p.down,
            trust: p.trust,
            away: p.away,
        }
    }
}
