//! What a playhead waits for: setup pages, the window ahead of it, the tail; earliest deadline first, from whoever will have
//! sent it soonest.

use std::time::Duration;

use icet::message::{Intent, Need, Position};
use icet::{Now, PageNo};

use super::choose;
use crate::swarm::board::{Board, LEAST_TRUST, MediaIx, Order, PeerIx, UNKNOWN_RATE};
use crate::swarm::learn::ProtoIx;
use crate::swarm::media::{Media, Member};
use crate::swarm::peer::{MOST_FETCHED, MOST_SERVED};

/// Pages of the first assignment after a start or a seek, and of later ones.
const PAGES: (u64, u64) = (4, 16);
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
    /// When the first of them is needed.
    deadline: Now,
    /// Bytes a second at which the following ones are needed.
    rate: u64,
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
            last: (m.manifest.setup - 1).min(end),
            deadline: now + soon,
            rate: u64::MAX,
        });
    }
    spans.push(Span {
        first: p.page,
        last: page(to).max(p.page),
        deadline: p.since + soon,
        rate: p.rate.max(1),
    });
    let tail = page(m.manifest.bytes.saturating_sub(TAIL));
    spans.push(Span { first: tail, last: end, deadline: p.since + 2 * soon, rate: u64::MAX });
    spans
}

/// Orders what a receiver waits for.
pub(super) fn feed(now: Now, board: &mut Board, media: MediaIx, receiver: PeerIx) {
    let Some(m) = board.media.get(&media) else { return };
    let Some(member) = m.members.get(&receiver).filter(|x| x.receives() && now >= x.refuses_until) else {
        return;
    };
    let mut left = TURN;
    for span in spans(now, m, member) {
        let mut at = span.first;
        while left > 0 {
            let Some(m) = board.media.get(&media) else { return };
            let Some(part) = m.members.get(&receiver).and_then(|x| x.holds.part()) else { return };
            let Some((a, b)) = part.claimed.gaps(at, span.last).next() else { break };
            if !make_room(now, board, media, receiver) {
                return;
            }
            let Some(m) = board.media.get(&media) else { return };
            let pages = if a == span.first { PAGES.0 } else { PAGES.1 };
            let ahead = m.table.offset(a).saturating_sub(m.table.offset(span.first));
            let seconds = ahead as f64 / span.rate as f64;
            let deadline = (span.deadline + Duration::from_secs_f64(seconds.min(3600.0))).max(now);
            let want = (a, b.min(a + pages - 1));
            let Some(best) = best(now, board, media, receiver, want, Some(deadline), None) else { break };
            let mut order = Order {
                media,
                receiver,
                host: best.host,
                proto: best.proto,
                first: a,
                last: best.last,
                need: Need::Urgent,
                deadline: Some(deadline),
                hedge: false,
                stand_ins: Vec::new(),
            };
            choose::stand_ins(board, now, &mut order);
            if board.issue(now, &order).is_none() {
                break;
            }
            at = best.last + 1;
            left -= 1;
        }
    }
}

/// Whether a receiver can take another urgent order; bulk that has not begun gives way to it.
fn make_room(now: Now, board: &mut Board, media: MediaIx, receiver: PeerIx) -> bool {
    let Some(down) = board.peers.get(&receiver).map(|p| &p.down) else { return false };
    let running = board.member(media, receiver).map(|m| m.running.as_slice()).unwrap_or_default();
    let runs = || running.iter().filter_map(|id| Some((*id, board.runs.get(id)?)));
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
    /// The last page of what was asked for that it holds.
    pub(super) last: PageNo,
    /// Seconds until it will be here.
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
    let mut candidates = choose::draw_free(board, now, media);
    // The publisher is asked even if it has no room: somebody waits.
    let publisher = board.media.get(&media)?.publisher;
    candidates.extend(publisher.filter(|p| !candidates.contains(p)));
    let slack = deadline.map_or(60.0, |d| d.since(now).as_secs_f64());
    let mut found: Option<(f64, Best)> = None;
    for host in candidates {
        let m = board.media.get(&media)?;
        let (Some(h), Some(x)) = (board.peers.get(&host), m.members.get(&host)) else { continue };
        let avoided = m.members.get(&receiver).is_none_or(|x| x.avoids(host, now));
        let usable = h.conn.is_some() && h.servable && !x.distrusted && h.trust(now) >= LEAST_TRUST;
        let busy =
            h.up.count >= MOST_SERVED || choose::pairs(board, media, host, receiver) >= 2 * choose::PER_PAIR;
        if host == receiver || Some(host) == but || avoided || !usable || busy {
            continue;
        }
        let last = match x.holds.part() {
            None => want.1,
            Some(p) if p.pages.get(want.0) => {
                p.pages.next_clear(want.0).map_or(want.1, |c| (c - 1).min(want.1))
            }
            Some(_) => continue,
        };
        let bytes = m.table.bytes_of(want.0, last);
        let (queue, trust) = (h.up.eta(bytes, UNKNOWN_RATE), h.trust(now));
        let Some(route) = board.route(now, host, receiver, Need::Urgent, bytes) else { continue };
        let eta = route.expected.first + queue.max(bytes as f64 / route.expected.rate.max(1.0));
        let mut score = route.expected.success.powi(3) * trust / eta;
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
