//! What a peer is told of its own standing.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use icet::Now;
use icet::message::{Audience, ErrorCode, Givers, Guidance, Mark, MarkReason, Standing, StandingRequest};

use super::board::PeerIx;
use super::conduct::{ACCUSATIONS, COMPLAINTS, MINUTE, REMEMBERED};
use super::peer::{DISTRUST, Peer};
use super::session::{Refused, refuse};
use super::{ConnId, Swarm};

/// Up to so many peers are weighed anew whenever one asks.
const FEW: usize = 1000;
/// More of them at most so often.
const AGAIN: Duration = Duration::from_secs(10);

/// Weights of all that have a session, ascending; as of a moment.
#[derive(Debug, Default)]
pub(crate) struct Ranking {
    at: Option<Now>,
    weights: Vec<u32>,
}

/// Thousandths, as the wire has them.
fn thousandths(x: f64) -> u32 {
    // In range: clamped to 0 to 1e6 thousandths.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let n = (x * 1000.0).round().clamp(0.0, 1e6) as u32;
    n
}

impl Swarm {
    pub(crate) fn standing(&mut self, now: Now, conn: ConnId, ix: PeerIx, m: &StandingRequest) {
        let stale = self.ranking.at.is_none_or(|at| now.since(at) >= AGAIN);
        if stale || self.board.peers.len() <= FEW {
            let connected = self.board.peers.values().filter(|p| p.conn.is_some());
            self.ranking.weights.clear();
            self.ranking.weights.extend(connected.map(|p| thousandths(self.board.weight_of(now, p))));
            self.ranking.weights.sort_unstable();
            self.ranking.at = Some(now);
        }
        let Some(peer) = self.board.peers.get(&ix) else { return };
        let (weight, all) = (thousandths(self.board.weight_of(now, peer)), &self.ranking.weights);
        let ahead = all.len() - all.partition_point(|w| *w <= weight);
        let lacks = peer.media.iter().filter(|m| self.board.member(**m, ix).is_some_and(|x| x.distrusted));
        let standing = Standing {
            request: m.request,
            sent: peer.contribution.sent,
            received: peer.contribution.received,
            weight,
            peers: all.len().saturating_sub(1) as u64,
            ahead: ahead as u64,
            trust: thousandths(peer.trust(now)),
            marks: marks(peer, now, lacks.count() as u64),
        };
        self.send(conn, standing);
    }
}

impl Swarm {
    /// Which of a publisher's other listeners give in its swarm, by where they are seen.
    pub(crate) fn audience(
        &mut self,
        now: Now,
        conn: ConnId,
        asker: PeerIx,
        m: &Audience,
    ) -> Result<(), Refused> {
        let ix = self.find_media(&m.media)?;
        let Some(media) = self.board.media.get(&ix) else { return Ok(()) };
        if !media.is_publisher(asker) {
            return Err(refuse(ErrorCode::FORBIDDEN, "only a media's own publisher may ask for guidance"));
        }
        let mut places: HashMap<IpAddr, u32> = HashMap::new();
        for (index, ip) in (0..).zip(&m.addresses) {
            places.entry(ip.0.to_canonical()).or_insert(index);
        }
        let mut givers: BTreeMap<u32, Givers> = BTreeMap::new();
        for (peer, _) in media.members.iter().filter(|(_, m)| m.counts()) {
            let Some(p) = self.board.peers.get(peer) else { continue };
            let Some(index) = places.get(&p.ip().to_canonical()) else { continue };
            if *peer == asker || p.conn.is_none() || p.up.limit == Some(0) || !self.board.gives(ix, p) {
                continue;
            }
            let g = givers.entry(*index).or_insert(Givers { index: *index, peers: 0, sent: 0, weight: 0 });
            g.peers += 1;
            g.sent = g.sent.saturating_add(p.contribution.sent);
            g.weight = g.weight.max(thousandths(self.board.weight_of(now, p)));
        }
        let guidance = Guidance {
            request: m.request,
            listeners: media.listeners(),
            hits: media.hits,
            givers: givers.into_values().collect(),
        };
        self.send(conn, guidance);
        Ok(())
    }
}

/// What speaks against a peer; `lacks`: media in which its map is not believed.
fn marks(peer: &Peer, now: Now, lacks: u64) -> Vec<Mark> {
    let c = &peer.conduct;
    let accusers = c.accusers.iter().filter(|(_, _, at)| now.since(*at) < REMEMBERED).count() as u64;
    // In range: sums that fade stay far below 2^53.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let beyond = |sum: f64, from: f64| if sum >= from { sum.round() as u64 } else { 0 };
    let all = [
        (MarkReason::ALTERED, accusers),
        (MarkReason::UNHEEDED, beyond(c.unheeded.now(now, DISTRUST), 0.5)),
        (MarkReason::ACCUSES, beyond(c.accused.now(now, DISTRUST), ACCUSATIONS)),
        (MarkReason::COMPLAINS, beyond(c.complaints.now(now, MINUTE), COMPLAINTS)),
        (MarkReason::LACKS, lacks),
    ];
    all.into_iter().filter(|(_, n)| *n > 0).map(|(reason, count)| Mark { reason, count }).collect()
}
