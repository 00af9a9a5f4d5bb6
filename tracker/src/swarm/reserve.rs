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
/// Hosts in it that hold everything, of those that fetch from the publisher, and in all.
const HOSTS: (usize, usize, usize) = (3, 3, 7);
/// Hosts looked at, and of those that fetch from the publisher.
const DRAW: (usize, usize) = (32, 12);
/// What is needed next, in seconds from the playhead on, and at least this part of it that a host must hold.
const NEXT: f64 = 120.0;
const PART: f64 = 0.1;
/// Players that are at most so many seconds apart can give each other what comes.
const NEAR: f64 = 30.0;
/// How likely one is named that is near, but not in front, as a part of how likely it would be if it held all.
const BESIDE: f64 = 0.25;
/// Part of a publisher's upload for those who are to feed others while we are silent, and how many they are at most.
const FEEDS: (f64, usize) = (0.6, 64);
/// They can send what they play so many times over, at least; and who can send so much more than one of them takes its place.
const TIMES: f64 = 2.0;

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

/// How likely `host`, which holds a part, is of use to `member`: 1 if it holds all that is needed next, or plays what is needed
/// before it is.
fn fit(now: Now, m: &Media, member: &Member, host: PeerIx) -> f64 {
    let next = next(m, member);
    let held = m.held_of(host, next.0, next.1) as f64 / (next.1 - next.0 + 1) as f64;
    let held = if held >= PART { held } else { 0.0 };
    let Some(x) = m.members.get(&host).filter(|x| x.intent == Intent::Play) else { return held };
    let (Some(a), Some(b)) = (member.playhead, x.playhead) else { return held };
    let apart = m.table.offset(a.page).abs_diff(m.table.offset(b.page)) as f64 / a.rate.max(1) as f64;
    if member.intent != Intent::Play || apart > NEAR || now.since(b.since).as_secs_f64() > NEAR {
        return held;
    }
    // Who is in front of it all the way has what it lacks.
    let gap = |x: &Member, from| x.holds.part().and_then(|p| p.claimed.next_clear(from));
    let before = match (gap(member, a.page), gap(x, a.page.max(b.page))) {
        (Some(a), Some(b)) => b > a,
        _ => true,
    };
    held.max(if before { 1.0 } else { BESIDE })
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

    /// Some who hold all of it and can be reached, some who hold much of what is needed next or will have it sooner, and the
    /// publisher last, so that its upload is spared; or first, for those who are to feed others. And whether there are some of
    /// the second kind.
    fn hosts_in_reserve(&mut self, now: Now, media: MediaIx, receiver: PeerIx) -> (Vec<PeerIx>, bool) {
        let feeds = self.is_to_feed(now, media, receiver);
        let none = (Vec::new(), false);
        let Some(m) = self.media.get(&media) else { return none };
        let Some(member) = m.members.get(&receiver) else { return none };
        // Of its own, so that what is drawn here changes nothing of what the scheduler draws.
        let mut rng = SmallRng::seed_from_u64(now.0 ^ receiver.0);
        let complete = |h: &PeerIx| m.members.get(h).is_some_and(|x| matches!(x.holds, Holds::Full));
        let fits = |h: &PeerIx| *h != receiver && !m.is_publisher(*h) && !member.avoids(*h, now);
        let mut drawn: Vec<PeerIx> = m.able.draw(DRAW.0, &mut rng);
        let feeders =
            m.feeders.draw(DRAW.1, &mut rng).into_iter().filter(|h| m.able.has(*h) && !drawn.contains(h));
        let feeders: Vec<PeerIx> = feeders.collect();
        drawn.extend(feeders);
        drawn.retain(fits);
        let (mut hosts, parts): (Vec<_>, Vec<_>) = drawn.into_iter().partition(complete);
        hosts.truncate(HOSTS.0 - 1);
        // The faster, and the more it holds, the likelier: everybody's reserve together should not ask more of a host than
        // it can send.
        let mut drawn: Vec<(f64, PeerIx)> = Vec::new();
        for host in parts {
            let fit = fit(now, m, member, host);
            let rate = self.peers.get(&host).and_then(|p| p.up.known_rate()).unwrap_or(UNKNOWN_RATE);
            let lot: f64 = rng.random_range(f64::EPSILON..1.0);
            if fit > 0.0 {
                drawn.push((-lot.ln() / (fit * rate), host));
            }
        }
        drawn.sort_by(|a, b| a.0.total_cmp(&b.0));
        let most = HOSTS.2 - 1 - hosts.len();
        let (mut some, others): (Vec<_>, Vec<_>) =
            drawn.into_iter().map(|(_, h)| h).partition(|h| m.feeders.has(*h));
        let (rest, most_of) = (some.split_off(some.len().min(HOSTS.1)), most.saturating_sub(some.len()));
        some.extend(others.into_iter().chain(rest).take(most_of));
        some.truncate(most);
        let parts = !some.is_empty();
        hosts.extend(some);
        let publisher = m.publisher.filter(|p| *p != receiver && m.able.has(*p));
        match publisher {
            Some(p) if feeds => hosts.insert(0, p),
            p => hosts.extend(p),
        }
        (hosts, parts)
    }

    /// Whether a player is one of the few who fetch from the publisher while we are silent: as many as that can feed, of those
    /// who can send the most.
    fn is_to_feed(&mut self, now: Now, media: MediaIx, receiver: PeerIx) -> bool {
        let Board { media: all, peers, .. } = self;
        let Some(m) = all.get_mut(&media) else { return false };
        let up = |h: PeerIx| peers.get(&h).and_then(|p| p.up.known_rate()).unwrap_or(0.0);
        let play = m.members.get(&receiver).filter(|x| x.intent == Intent::Play).and_then(|x| x.playhead);
        let (Some(play), Some(publisher)) = (play, m.publisher) else {
            m.feeders.remove(receiver);
            return false;
        };
        let (rate, own) = (play.rate.max(1) as f64, up(receiver));
        if !m.able.has(receiver) || own < TIMES * rate {
            m.feeders.remove(receiver);
            return false;
        }
        // In range: a float to integer cast saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let most = ((FEEDS.0 * up(publisher) / rate) as usize).min(FEEDS.1);
        if m.feeders.has(receiver) {
            return true;
        }
        if m.feeders.len() >= most {
            let mut rng = SmallRng::seed_from_u64(now.0 ^ receiver.0);
            let weakest =
                m.feeders.draw(DRAW.1, &mut rng).into_iter().min_by(|a, b| up(*a).total_cmp(&up(*b)));
            let Some(weakest) = weakest.filter(|w| TIMES * up(*w) < own) else { return false };
            m.feeders.remove(weakest);
        }
        m.feeders.insert(receiver);
        true
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
