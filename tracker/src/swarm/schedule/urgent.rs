//! What a playhead waits for: setup pages, the window ahead of it, the tail; earliest deadline first, from whoever will have
//! sent it soonest.

use std::time::Duration;

use icet::message::{Intent, Need, Position};
use icet::{Now, PageNo};

use super::choose;
use crate::swarm::board::{Board, LEAST_TRUST, MediaIx, Order, PeerIx, Run, State};
use crate::swarm::learn::ProtoIx;
use crate::swarm::media::{Media, Member};
use crate::swarm::peer::{MOST_FETCHED, MOST_SERVED, Peer};
use crate::swarm::rarity::Rarity;

/// Most pages of the first assignment after a start or a seek, and of later ones.
const PAGES: (u64, u64) = (4, 16);
/// Seconds of a host's upload that an assignment takes at most, if it is more than a page: so that what comes later with
/// an earlier deadline need not wait long.
const SECONDS: f64 = 0.5;
/// Part of a publisher's window for pages that others have or are about to get, as long as it has some that nobody else has:
/// what it sends twice keeps those from the crowd, and soon everybody waits for them.
const DOUBLES: f64 = 0.05;
/// Seconds from the arrival of a page at somebody until the tracker has told others.
const RELAY: f64 = 0.1;
/// An order is not taken back before it is so old.
const SETTLED: Duration = Duration::from_millis(500);
/// A host has at least so long, and half as long again as expected, before stand-ins help it.
const PATIENCE: Duration = Duration::from_millis(250);
/// How much less it is worth to ask who may not come through the NATs of both.
const VENTURE: f64 = 0.01;
/// Hosts that are looked at.
const DRAW: usize = 2 * choose::DRAW;
/// Most urgent orders in one turn.
const TURN: usize = 16;
/// Most bytes of a window that are urgent at once.
const MOST: u64 = 8 << 20;
/// Bytes at the end of a media that every player reads before it plays.
const TAIL: u64 = 64 << 10;
/// How far the playhead is assumed to have moved without saying so.
const DRIFT: Duration = Duration::from_secs(30);

/// Pages wanted at once, in order of their deadlines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) first: PageNo,
    pub(super) last: PageNo,
    /// Where the span began.
    offset: u64,
    /// When the first of them is needed.
    deadline: Now,
    /// Bytes a second at which the following ones are needed.
    rate: u64,
}

impl Span {
    fn deadline_of(&self, m: &Media, page: PageNo) -> Now {
        let ahead = m.table.offset(page).saturating_sub(self.offset);
        self.deadline + Duration::from_secs_f64((ahead as f64 / self.rate as f64).min(3600.0))
    }
}

/// What a member waits for.
pub(super) fn spans(now: Now, m: &Media, member: &Member) -> Vec<Span> {
    let Some(p) = member.playhead.filter(|_| member.intent != Intent::Share) else { return Vec::new() };
    let end = m.pages().saturating_sub(1);
    let page = |byte: u64| m.table.page_at(Position::Byte(byte.min(m.manifest.bytes.saturating_sub(1))));
    let moved = now.since(p.since).min(DRIFT).as_millis();
    let drift = u64::try_from(moved).unwrap_or(0).saturating_mul(p.rate) / 1000;
    let from = m.table.offset(p.page);
    let to = from.saturating_add(p.urgent.min(MOST)).saturating_add(drift.min(MOST));
    let soon = Duration::from_millis(300);
    let mut spans = Vec::with_capacity(3);
    if m.manifest.setup > 0 {
        spans.push(Span {
            first: 0,
            offset: 0,
            last: (m.manifest.setup - 1).min(end),
            deadline: now + soon,
            rate: u64::MAX,
        });
    }
    spans.push(Span {
        first: p.page,
        offset: from,
        last: page(to).max(p.page),
        deadline: p.since + soon,
        rate: p.rate.max(1),
    });
    let tail = page(m.manifest.bytes.saturating_sub(TAIL));
    let offset = m.table.offset(tail);
    spans.push(Span { first: tail, offset, last: end, deadline: p.since + 2 * soon, rate: u64::MAX });
    spans
}

/// Orders what a receiver waits for, the earliest deadline first. What it must wait for it is remembered for: pages that
/// are on their way to somebody who can pass them on sooner, or hosts that have enough to do with earlier deadlines.
pub(super) fn feed(now: Now, board: &mut Board, media: MediaIx, receiver: PeerIx) {
    let Some(m) = board.media.get_mut(&media) else { return };
    m.waiting.remove(receiver);
    let Some(member) = m.members.get(&receiver).filter(|x| x.receives() && now >= x.refuses_until) else {
        return;
    };
    if !board.peers.get(&receiver).is_some_and(Peer::is_there) {
        return;
    }
    let mut spans = spans(now, m, member);
    if spans.is_empty() {
        return;
    }
    for id in too_late(now, board, media, receiver, &spans) {
        board.cancel(id);
        board.end(now, id);
    }
    let mut waits = false;
    for _ in 0..TURN {
        let Some(m) = board.media.get(&media) else { return };
        let Some((i, gap, deadline)) = next(now, m, receiver, &spans) else { break };
        if !make_room(now, board, media, receiver) {
            break;
        }
        let Some(best) = best(now, board, media, receiver, gap, Some(deadline), None) else {
            waits = true;
            break;
        };
        if let Some(flight) = flight(now, board, media, receiver, gap.0, best.host)
            && flight.eta < best.eta
        {
            waits = true;
            spans[i].first = flight.last + 1;
            continue;
        }
        // Stand-ins send the same pages at the deadline: not before the host has had the time that it will take.
        let fair = now + PATIENCE + Duration::from_secs_f64((1.5 * best.eta).min(60.0));
        let mut order = Order {
            media,
            receiver,
            host: best.host,
            proto: best.proto,
            first: gap.0,
            last: best.last,
            need: Need::Urgent,
            deadline: Some(deadline.max(fair)),
            hedge: false,
            stand_ins: Vec::new(),
        };
        choose::stand_ins(board, now, &mut order, None);
        if board.issue(now, &order).is_none() {
            break;
        }
    }
    if waits && let Some(m) = board.media.get_mut(&media) {
        m.waiting.insert(receiver);
    }
}

/// Orders of bulk that will bring a page which is urgent by now after its deadline: they give it back, so that it can come
/// first somewhere.
fn too_late(now: Now, board: &Board, media: MediaIx, receiver: PeerIx, spans: &[Span]) -> Vec<u64> {
    let Some((m, member)) = board.media.get(&media).and_then(|m| Some((m, m.members.get(&receiver)?))) else {
        return Vec::new();
    };
    let Some(part) = member.holds.part() else { return Vec::new() };
    let late = |run: &Run, span: &Span| {
        let range = (run.first.max(span.first), run.last.min(span.last));
        let gap = if range.0 <= range.1 { part.pages.gaps(range.0, range.1).next() } else { None };
        let (Some((page, _)), Some(h)) = (gap, board.peers.get(&run.host())) else { return false };
        let before = m.table.bytes_of(run.first, page).saturating_sub(run.acked);
        let eta =
            h.up.seconds(h.up.urgent.saturating_add(before.max(h.up.bytes.saturating_sub(h.up.urgent) / 2)));
        now + Duration::from_secs_f64(eta.min(3600.0)) > span.deadline_of(m, page)
    };
    let runs = member.running.iter().filter_map(|f| Some((f.id, board.runs.get(&f.id)?)));
    let old = runs.filter(|(_, r)| r.need != Need::Urgent && now.since(r.made) > SETTLED);
    let slow = old.filter(|(_, r)| spans.iter().any(|s| late(r, s)));
    slow.map(|(id, _)| id).collect()
}

/// Feeds some of those who wait, the earliest deadline first: a host has room again, or somebody has new pages.
pub(super) fn feed_waiting(now: Now, board: &mut Board, media: MediaIx) {
    let Board { media: all, rng, .. } = board;
    let Some(m) = all.get(&media).filter(|m| !m.waiting.is_empty()) else { return };
    let mut drawn: Vec<(Now, PeerIx)> = Vec::new();
    for peer in m.waiting.draw(choose::DRAW, rng) {
        let Some(member) = m.members.get(&peer) else { continue };
        let spans = spans(now, m, member);
        drawn.push((next(now, m, peer, &spans).map_or(now, |(_, _, d)| d), peer));
    }
    drawn.sort_unstable();
    for (_, peer) in drawn {
        feed(now, board, media, peer);
    }
}

/// The gap with the earliest deadline: the span that it is in, at most so many pages, and until when they are needed.
fn next(now: Now, m: &Media, receiver: PeerIx, spans: &[Span]) -> Option<(usize, (PageNo, PageNo), Now)> {
    let part = m.members.get(&receiver)?.holds.part()?;
    let end = m.pages().saturating_sub(1);
    let gaps = spans.iter().enumerate().filter_map(|(i, span)| {
        let (a, mut b) = part.claimed.gaps(span.first, span.last).next()?;
        let most = if a == span.first { PAGES.0 } else { PAGES.1 };
        if b == span.last && span.rate < u64::MAX {
            // Rather some pages more than an order for each that becomes urgent.
            b = part.claimed.next_set(a).map_or(end, |c| c - 1);
        }
        Some((i, (a, b.min(a + most - 1)), span.deadline_of(m, a).max(now)))
    });
    // Of equal ones the first: setup pages, then the playhead.
    gaps.min_by_key(|(i, _, deadline)| (*deadline, *i))
}

/// Pages that are on their way from a host to somebody else.
struct Flight {
    /// Seconds until the first of them could be here, passed on.
    eta: f64,
    last: PageNo,
}

/// If `host` is sending `page` to somebody who can pass it on to `receiver`: when it would be here by that way.
fn flight(
    now: Now,
    board: &mut Board,
    media: MediaIx,
    receiver: PeerIx,
    page: PageNo,
    host: PeerIx,
) -> Option<Flight> {
    let h = board.peers.get(&host)?;
    let m = board.media.get(&media)?;
    let runs = h.serving.iter().filter_map(|id| board.runs.get(id));
    let urgent = runs.clone().filter(|r| r.need == Need::Urgent).count().max(1) as u64;
    let covers = |r: &&Run| {
        r.media == media
            && r.state == State::Runs
            && r.receiver != receiver
            && (r.first..=r.last).contains(&page)
            && m.members.contains_key(&r.receiver)
    };
    let mut found: Vec<(f64, PeerIx, PageNo)> = Vec::new();
    for run in runs.filter(covers) {
        let before = m.table.bytes_of(run.first, page).saturating_sub(run.acked);
        // All urgent requests share the line; bulk comes after them.
        let bytes = match run.need {
            Need::Urgent => (before * urgent).min(h.up.urgent),
            _ => h.up.urgent.saturating_add(before),
        };
        found.push((h.up.seconds(bytes), run.receiver, run.last));
    }
    let bytes = m.table.bytes_of(page, page);
    let mut best: Option<Flight> = None;
    for (there, by, last) in found {
        let Some(p) = board.peers.get(&by).filter(|p| p.servable && p.up.urgent_room() > 0) else { continue };
        let on = p.up.eta(bytes, Need::Urgent);
        let Some(route) = board.route(now, by, receiver, Need::Urgent, bytes) else { continue };
        let eta = there + RELAY + route.expected.first + on;
        if best.as_ref().is_none_or(|b| eta < b.eta) {
            best = Some(Flight { eta, last });
        }
    }
    best
}

/// Whether a receiver can take another urgent order; bulk that has not begun gives way to it.
fn make_room(now: Now, board: &mut Board, media: MediaIx, receiver: PeerIx) -> bool {
    let Some(down) = board.peers.get(&receiver).map(|p| &p.down) else { return false };
    let running = board.member(media, receiver).map(|m| m.running.as_slice()).unwrap_or_default();
    let runs = || running.iter().filter_map(|f| Some((f.id, board.runs.get(&f.id)?)));
    let urgent: u64 = runs().filter(|(_, r)| r.need == Need::Urgent).map(|(_, r)| r.left()).sum();
    if urgent > 2 * down.window() {
        return false;
    }
    if down.count < MOST_FETCHED + MOST_FETCHED / 4 {
        return true;
    }
    let idle = runs().filter(|(_, r)| r.need != Need::Urgent && r.acked == 0).map(|(id, _)| id).max();
    let Some(id) = idle else { return false };
    board.cancel(id);
    board.end(now, id);
    true
}

/// Who will have sent something soonest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Best {
    pub(super) host: PeerIx,
    pub(super) proto: ProtoIx,
    /// The last page of what was asked for that it holds, and should be asked for at once.
    pub(super) last: PageNo,
    /// Seconds until the first page (with `but`: all of it) will be here.
    pub(super) eta: f64,
}

/// The host for `want` (or a beginning of it), other than `but`.
pub(super) fn best(
    now: Now,
    board: &mut Board,
    media: MediaIx,
    receiver: PeerIx,
    want: (PageNo, PageNo),
    deadline: Option<Now>,
    but: Option<PeerIx>,
) -> Option<Best> {
    let Board { media: all, rng, .. } = board;
    let m = all.get(&media)?;
    let publisher = m.publisher;
    let mut candidates = m.able.draw(DRAW, rng);
    let named = m.rarity.iter().flat_map(|r| r.named(want.0 / m.unit));
    let named: Vec<_> = named.filter(|h| m.able.has(*h) && !candidates.contains(h)).collect();
    candidates.extend(named);
    candidates.extend(publisher.filter(|p| !candidates.contains(p)));
    let slack = deadline.map_or(60.0, |d| d.since(now).as_secs_f64());
    let mut found: Option<(f64, Best)> = None;
    for host in candidates {
        let m = board.media.get(&media)?;
        let (Some(h), Some(x)) = (board.peers.get(&host), m.members.get(&host)) else { continue };
        let avoided = m.members.get(&receiver).is_none_or(|x| x.avoids(host, now));
        let usable = h.conn.is_some() && h.servable && !x.distrusted && h.trust(now) >= LEAST_TRUST;
        let usable = usable && board.gives(media, h);
        let elsewhere = |r: &Rarity| r.class(0).ones() > 0 && !r.class(0).get(want.0 / m.unit);
        let doubles = Some(host) == publisher
            && m.seeds == 0
            && m.rarity.as_deref().is_some_and(elsewhere)
            && h.up.urgent as f64 >= h.up.window() as f64 * DOUBLES
            && choose::is_short(board, media, host, receiver);
        let busy = h.up.count >= MOST_SERVED
            || doubles
            || h.up.urgent_room() == 0
            || choose::pairs(board, media, host, receiver) >= 2 * choose::PER_PAIR;
        if host == receiver || Some(host) == but || avoided || !usable || busy {
            continue;
        }
        let held = match x.holds.part() {
            None => want.1,
            Some(p) if p.pages.get(want.0) => {
                p.pages.next_clear(want.0).map_or(want.1, |c| (c - 1).min(want.1))
            }
            Some(_) => continue,
        };
        let first = m.table.bytes_of(want.0, want.0);
        // Pages of a slice are taken to be of one length.
        let pages = (SECONDS / h.up.seconds(first.max(1))).clamp(1.0, PAGES.1 as f64);
        // In range: at most PAGES.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let last = if but.is_some() { held } else { held.min(want.0 + pages as u64 - 1) };
        let bytes = if but.is_some() { m.table.bytes_of(want.0, last) } else { first };
        let (queue, trust) = (h.up.eta(bytes, Need::Urgent), h.trust(now));
        let Some(route) = board.route(now, host, receiver, Need::Urgent, bytes) else { continue };
        let eta = route.expected.first + queue.max(bytes as f64 / route.expected.rate.max(1.0));
        let mut score = route.expected.success.powi(3) * trust / eta;
        // Nobody should wait for who may never come together with him, where there are others.
        if board.is_venture(host, receiver, route.proto) {
            if but.is_some() {
                continue;
            }
            score *= VENTURE;
        }
        // Where there is time, a publisher is spared.
        if Some(host) != publisher && eta < slack {
            score *= 4.0;
        }
        if found.is_none_or(|(s, _)| score > s) {
            found = Some((score, Best { host, proto: route.proto, last, eta }));
        }
    }
    found.map(|(_, b)| b)
}
