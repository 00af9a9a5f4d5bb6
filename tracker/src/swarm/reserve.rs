//! What a receiver may fall back on while we are silent: hosts that hold everything, others that hold much of what it needs
//! next, and tickets that are good only then. Those others go on fetching from theirs, so that pages flow down.

use std::time::Duration;

use icet::message::{Assignment, Intent, Need, Position};
use icet::ticket::TicketBody;
use icet::{MediaId, Now, PageNo, PageSet, TicketKey};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::board::{Board, LAPSE, MediaIx, Order, PeerIx, UNKNOWN_RATE};
use super::media::{Holds, Media, Member};

/// How long its tickets are good for, in milliseconds: hosts that lost us honour them for ten minutes more.
pub(super) const LIFE_MS: u64 = 600_000;
/// How often it is renewed for who fetches.
const RENEW: Duration = Duration::from_secs(120);
/// And how soon if it named nobody, or the publisher alone.
const SOON: Duration = Duration::from_secs(10);
/// The same if it named some who do not hold everything: what they hold and what is needed changes.
const CHANGES: Duration = Duration::from_secs(30);
/// Hosts in it that hold everything, and in all.
const HOSTS: (usize, usize) = (3, 7);
/// Hosts looked at.
const DRAW: usize = 32;
/// What is needed next, in seconds from the playhead on, and at least this part of it that a host must hold.
const NEXT: f64 = 120.0;
const PART: f64 = 0.1;

/// The pages that a member needs next: from its playhead on, or all.
fn next(m: &Media, member: &Member) -> (PageNo, PageNo) {
    let end = m.pages().saturating_sub(1);
    let (Intent::Play, Some(p)) = (member.intent, member.playhead) else { return (0, end) };
    // In range: a float to integer cast saturates.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let ahead = (p.rate as f64 * NEXT) as u64;
    let to = m.table.offset(p.page).saturating_add(ahead);
    (p.page.min(end), m.table.page_at(Position::Byte(to)).clamp(p.page.min(end), end))
}

impl Board {
    /// The reserve of who fetches `media`, if it is time to renew it. Costs the same however large the crowd is.
    pub(super) fn reserve(&mut self, now: Now, media: &MediaId, receiver: PeerIx) -> Vec<Assignment> {
        let Some(media) = self.ids.get(media).copied() else { return Vec::new() };
        let due = |m: &Member| m.reserve_due <= now && m.holds.part().is_some();
        if !self.member(media, receiver).is_some_and(due) {
            return Vec::new();
        }
        let (hosts, parts) = self.hosts_in_reserve(now, media, receiver);
        let pause = match (hosts.len(), parts) {
            (0 | 1, _) => SOON,
            (_, true) => CHANGES,
            _ => RENEW,
        };
        if let Some(m) = self.member_mut(media, receiver) {
            m.reserve_due = now + pause;
        }
        hosts.into_iter().filter_map(|host| self.in_reserve(now, media, receiver, host)).collect()
    }

    /// Some who hold all of it and can be reached, some who hold much of what is needed next, and the publisher last, so that
    /// its upload is spared. And whether there are some of the second kind.
    fn hosts_in_reserve(&self, now: Now, media: MediaIx, receiver: PeerIx) -> (Vec<PeerIx>, bool) {
        let none = (Vec::new(), false);
        let Some(m) = self.media.get(&media) else { return none };
        let Some(member) = m.members.get(&receiver) else { return none };
        // Of its own, so that what is drawn here changes nothing of what the scheduler draws.
        let mut rng = SmallRng::seed_from_u64(now.0 ^ receiver.0);
        let complete = |h: &PeerIx| m.members.get(h).is_some_and(|x| matches!(x.holds, Holds::Full));
        let mut drawn: Vec<PeerIx> = m.able.draw(DRAW, &mut rng);
        drawn.retain(|h| *h != receiver && !m.is_publisher(*h) && !member.avoids(*h, now));
        let (mut hosts, parts): (Vec<_>, Vec<_>) = drawn.into_iter().partition(complete);
        hosts.truncate(HOSTS.0 - 1);
        // The faster, and the more it holds, the likelier: everybody's reserve together should not ask more of a host than
        // it can send.
        let next = next(m, member);
        let all = (next.1 - next.0 + 1) as f64;
        let mut drawn: Vec<(f64, PeerIx)> = Vec::new();
        for host in parts {
            let held = m.held_of(host, next.0, next.1) as f64 / all;
            let rate = self.peers.get(&host).and_then(|p| p.up.known_rate()).unwrap_or(UNKNOWN_RATE);
            let lot: f64 = rng.random_range(f64::EPSILON..1.0);
            if held >= PART {
                drawn.push((-lot.ln() / (held * rate), host));
            }
        }
        drawn.sort_by(|a, b| a.0.total_cmp(&b.0));
        drawn.truncate(HOSTS.1 - 1 - hosts.len());
        let parts = !drawn.is_empty();
        hosts.extend(drawn.into_iter().map(|(_, h)| h));
        hosts.extend(m.publisher.filter(|p| *p != receiver && m.able.has(*p)));
        (hosts, parts)
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
