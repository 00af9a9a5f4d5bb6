//! What a receiver may fall back on while we are silent: hosts that hold everything, and tickets that are good only then.

use std::time::Duration;

use icet::message::{Assignment, Need};
use icet::ticket::TicketBody;
use icet::{MediaId, Now, PageSet, TicketKey};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::board::{Board, LAPSE, MediaIx, Order, PeerIx};
use super::media::{Holds, Member};

/// How long its tickets are good for, in milliseconds: hosts that lost us honour them for ten minutes more.
pub(super) const LIFE_MS: u64 = 600_000;
/// How often it is renewed for who fetches.
const RENEW: Duration = Duration::from_secs(120);
/// And how soon if it named nobody, or the publisher alone.
const SOON: Duration = Duration::from_secs(10);
/// Hosts in it.
const HOSTS: usize = 3;
/// Hosts looked at.
const DRAW: usize = 16;

impl Board {
    /// The reserve of who fetches `media`, if it is time to renew it. Costs the same however large the crowd is.
    pub(super) fn reserve(&mut self, now: Now, media: &MediaId, receiver: PeerIx) -> Vec<Assignment> {
        let Some(media) = self.ids.get(media).copied() else { return Vec::new() };
        let due = |m: &Member| m.reserve_due <= now && m.holds.part().is_some();
        if !self.member(media, receiver).is_some_and(due) {
            return Vec::new();
        }
        let hosts = self.complete_hosts(now, media, receiver);
        let pause = if hosts.len() > 1 { RENEW } else { SOON };
        if let Some(m) = self.member_mut(media, receiver) {
            m.reserve_due = now + pause;
        }
        hosts.into_iter().filter_map(|host| self.in_reserve(now, media, receiver, host)).collect()
    }

    /// Some who hold all of it and can be reached; the publisher last, so that its upload is spared.
    fn complete_hosts(&self, now: Now, media: MediaIx, receiver: PeerIx) -> Vec<PeerIx> {
        let Some(m) = self.media.get(&media) else { return Vec::new() };
        // Of its own, so that what is drawn here changes nothing of what the scheduler draws.
        let mut rng = SmallRng::seed_from_u64(now.0 ^ receiver.0);
        let complete = |h: &PeerIx| m.members.get(h).is_some_and(|x| matches!(x.holds, Holds::Full));
        let avoided = |h: &PeerIx| m.members.get(&receiver).is_none_or(|x| x.avoids(*h, now));
        let mut hosts: Vec<PeerIx> = m.able.draw(DRAW, &mut rng);
        hosts.retain(|h| *h != receiver && complete(h) && !m.is_publisher(*h) && !avoided(h));
        hosts.truncate(HOSTS - 1);
        hosts.extend(m.publisher.filter(|p| *p != receiver && m.able.has(*p)));
        hosts
    }

    fn in_reserve(&self, now: Now, media: MediaIx, receiver: PeerIx, host: PeerIx) -> Option<Assignment> {
        let mut ways = self.ways(now, host, receiver, Need::Reserve, 1 << 20);
        let r = self.peers.get(&receiver)?;
        ways.retain(|(_, way)| !r.avoids(host, way.proto, now));
        let proto = ways.into_iter().max_by(|a, b| a.0.total_cmp(&b.0))?.1.proto;
        let m = self.media.get(&media)?;
        let (first, last, id) = (0, m.pages().checked_sub(1)?, m.id);
        let (need, deadline, stand_ins) = (Need::Reserve, None, Vec::new());
        let order =
            Order { media, receiver, host, proto, first, last, need, deadline, hedge: false, stand_ins };
        let number = self.reserve_number(&order)?;
        let source = self.source(now, number, &order, host, proto)?;
        Some(Assignment {
            id: number,
            media: id,
            pages: PageSet::range(first, last),
            need,
            source,
            stand_ins: Vec::new(),
            deadline: None,
            lapse: u32::try_from(LAPSE.as_millis()).unwrap_or(u32::MAX),
        })
    }

    /// The number of a reserve's ticket: the same whenever it is renewed, so that what it buys is bought once; and no order's.
    fn reserve_number(&self, o: &Order) -> Option<u64> {
        let (h, r, m) = (self.peers.get(&o.host)?, self.peers.get(&o.receiver)?, self.media.get(&o.media)?);
        let body = TicketBody {
            tracker: self.config.tracker,
            epoch: self.config.epoch,
            assignment: 0,
            receiver: r.key,
            host: h.key,
            media: m.id,
            version: m.manifest.version,
            pages: PageSet::range(o.first, o.last),
            protocol: h.offered(o.proto)?.offer.name.clone(),
            rate: None,
            expiry: 0,
            need: o.need,
        };
        let mac = TicketKey::derive(&self.config.secret, &h.key).issue(&body).mac;
        let (number, _) = mac.0.split_first_chunk::<8>()?;
        Some(u64::from_be_bytes(*number) | 1 << 63)
    }
}
