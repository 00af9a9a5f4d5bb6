//! Read-only views for the web page.

use icet::MediaId;

use super::board::MediaIx;
use super::media::{Holds, Media};
use super::peer::Presence;
use super::reach::Proof;
use super::{
    Availability, FlowView, MediaDetail, MediaView, MemberView, NearView, Nearness, PeerView, ProtocolView,
    Swarm, Totals,
};

/// Most members in a detail, most parts of availability, and most flows.
const MOST: usize = 1000;
/// Members whose page maps are told.
const MAPS: usize = 48;

/// Shares of `parts` equal parts of a media that a member holds.
fn map(m: &Media, holds: &Holds, parts: usize) -> Vec<f64> {
    let parts = (parts.min(MOST) as u64).min(m.units());
    let Some(part) = holds.part() else { return vec![1.0; usize::try_from(parts).unwrap_or(MOST)] };
    let share = |i: u64| {
        let (first, end) = (m.pages() * i / parts, m.pages() * (i + 1) / parts);
        let held: u64 = part.pages.runs(first, end.max(first + 1) - 1).map(|(a, b)| b - a + 1).sum();
        held as f64 / (end - first).max(1) as f64
    };
    (0..parts).map(share).collect()
}

fn view(m: &Media) -> MediaView {
    MediaView {
        id: m.id,
        manifest: m.manifest.clone(),
        slices: m.table.known(),
        listeners: m.listeners(),
        members: m.members.len() as u64,
        complete: m.holders(),
        hits: m.hits,
        running: m.running,
        delivered: m.delivered,
        delivered_by_publisher: m.delivered_by_publisher,
        now: m.live.as_ref().and_then(|l| l.head()).and_then(|h| h.title.clone()),
    }
}

fn availability(m: &Media, parts: usize) -> Vec<Availability> {
    let units = m.units();
    let parts = (parts.min(MOST) as u64).min(units);
    // The publisher's copy, like those of complete members, is everywhere; its map may be a part after a loss.
    let publisher =
        m.publisher.and_then(|p| m.members.get(&p)).is_some_and(|p| matches!(p.holds, Holds::Full));
    let everywhere = u32::try_from(m.complete + u64::from(publisher)).unwrap_or(u32::MAX);
    let copies = |u| m.rarity.as_ref().map_or(0, |r| u32::from(r.copies(u))).saturating_add(everywhere);
    (0..parts)
        .map(|i| {
            let (first, end) = (units * i / parts, units * (i + 1) / parts);
            // Of a long part some units stand for all.
            let step = usize::try_from((end - first).div_ceil(1024)).unwrap_or(1).max(1);
            let seen: Vec<u32> = (first..end).step_by(step).map(copies).collect();
            let sum: f64 = seen.iter().map(|c| f64::from(*c)).sum();
            Availability {
                least: seen.iter().copied().min().unwrap_or(0),
                mean: sum / seen.len().max(1) as f64,
            }
        })
        .collect()
}

impl Swarm {
    /// All media, ordered by path, from `skip` on, at most `limit`.
    #[must_use]
    pub fn media_list(&self, skip: usize, limit: usize) -> Vec<MediaView> {
        let all = self.names.media_in_order().filter_map(|ix| self.board.media.get(&ix));
        all.skip(skip).take(limit).map(view).collect()
    }

    /// One media, in short: constant time.
    #[must_use]
    pub fn media_view(&self, media: &MediaId) -> Option<MediaView> {
        self.board.by_id(media).map(view)
    }

    /// One media, with `parts` parts of availability (at most 1000; fewer if the media is short).
    #[must_use]
    pub fn media_detail(&self, media: &MediaId, parts: usize) -> Option<MediaDetail> {
        let m = self.board.by_id(media)?;
        let members = m.members.iter().take(MOST).enumerate().filter_map(|(i, (ix, x))| {
            let p = self.board.peers.get(ix)?;
            Some(MemberView {
                publisher: m.is_publisher(*ix),
                map: if i < MAPS { map(m, &x.holds, parts) } else { Vec::new() },
                peer: p.key,
                intent: x.intent,
                held: x.holds.part().map_or(m.pages(), |p| p.pages.ones()),
                at: x.playhead.map(|p| p.page),
                fetching: u32::try_from(x.running.len()).unwrap_or(u32::MAX),
                serving: p.up.count,
            })
        });
        Some(MediaDetail {
            media: view(m),
            members: members.collect(),
            availability: availability(m, parts),
            flows: self.flows(m),
        })
    }

    fn flows(&self, m: &Media) -> Vec<FlowView> {
        let mut flows = std::collections::BTreeMap::new();
        for (to, member) in m.members.iter().take(MOST) {
            for run in member.running.iter().filter_map(|f| self.board.runs.get(&f.id)) {
                let Some(with) = run.hosts.get(run.with) else { continue };
                let sum = flows.entry((with.peer, *to, with.proto)).or_insert((0, 0));
                *sum = (sum.0 + 1, run.left().saturating_add(sum.1));
            }
        }
        let told = flows.into_iter().filter_map(|((from, to, proto), (assignments, left))| {
            let key = |ix| self.board.peers.get(ix).map(|p| p.key);
            let protocol = self.board.protocols.name(proto)?.clone();
            Some(FlowView { from: key(&from)?, to: key(&to)?, protocol, assignments, left })
        });
        told.take(MOST).collect()
    }

    /// Peers with a session, ordered by when they came, from `skip` on, at most `limit`.
    #[must_use]
    pub fn peers(&self, skip: usize, limit: usize) -> Vec<PeerView> {
        let now = self.board.latest();
        let mut all: Vec<_> = self.board.peers.iter().filter(|(_, p)| p.conn.is_some()).collect();
        all.sort_unstable_by_key(|(ix, _)| **ix);
        let proved = |p: &Proof| match p {
            Proof::Proved => Some(true),
            Proof::Failed { .. } | Proof::Refused => Some(false),
            Proof::Waits(_) | Proof::Dialing(_) => None,
        };
        all.into_iter()
            .skip(skip)
            .take(limit)
            .map(|(_, p)| PeerView {
                key: p.key,
                agent: p.agent.clone(),
                observed: p.observed,
                reach: p.reach.iter().map(|r| (r.addr, proved(&r.proof))).collect(),
                offers: p.offers.iter().map(|o| o.offer.clone()).collect(),
                media: u32::try_from(p.media.len()).unwrap_or(u32::MAX),
                contribution: p.contribution,
                up: p.up.known_rate(),
                down: p.down.known_rate(),
                trust: p.trust(now),
                away: p.presence == Presence::Away,
            })
            .collect()
    }

    /// Each protocol that is offered, or was lately.
    #[must_use]
    pub fn protocols(&self) -> Vec<ProtocolView> {
        let now = self.board.latest();
        let all: f64 = self.board.protocols.iter().map(|(_, p)| p.recent(now)).sum();
        let near = |p: &super::learn::Proto| {
            let kinds = [Nearness::Address, Nearness::Network, Nearness::Elsewhere];
            let view = |(near, arm): (Nearness, &super::learn::Arm)| {
                let (samples, (success, goodput, first)) = (arm.weight(now), arm.told(now));
                NearView { near, samples, success, first_byte_ms: first.map(|s| s * 1000.0), goodput }
            };
            kinds.into_iter().zip(&p.near).map(view).filter(|v| v.samples > 0.01).collect()
        };
        let view = |(name, p): (&icet::ProtocolName, &super::learn::Proto)| ProtocolView {
            samples: p.samples(now),
            // Less than a page is nothing.
            share: if all < 1.0 { 0.0 } else { p.recent(now) / all },
            deadlines: p.deadlines,
            missed: p.missed,
            near: near(p),
            name: name.clone(),
            hosts: p.hosts,
            assigned: p.assigned,
            done: p.done,
            failed: p.failed,
            bytes: p.bytes,
            first_byte_ms: p.first_byte_ms(),
            goodput: p.goodput(),
            success: p.success(now),
        };
        self.board.protocols.iter().map(view).collect()
    }

    /// Figures of the whole tracker.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let listeners = |ix: &MediaIx| self.board.media.get(ix).map_or(0, Media::listeners);
        Totals {
            sessions: self.sessions.len() as u64,
            media: self.board.media.len() as u64,
            listeners: self.board.media.keys().map(listeners).sum(),
            peers: self.board.peers.values().filter(|p| p.conn.is_some()).count() as u64,
            map_bytes: self.board.totals.map_bytes + self.names.cost(),
            ..self.board.totals
        }
    }
}
