//! Why nothing is ordered for somebody who lacks pages: told to the receiver, for its people.

use std::collections::BTreeSet;
use std::time::Duration;

use icet::message::{Intent, Need, Shortage};
use icet::{Now, PageNo, limits};

use super::{choose, urgent};
use crate::swarm::board::{Board, LEAST_TRUST, MediaIx, PeerIx};
use crate::swarm::media::{Media, Member};

/// So long without an order before it is looked for a reason, and how often that is looked for again.
const PATIENCE: Duration = Duration::from_secs(1);
/// Members and gaps that are looked at.
const MEMBERS: usize = 256;
const GAPS: usize = 16;

/// Queues what stands in the way of a receiver that has nothing under way, if that is something new.
pub(super) fn tell(now: Now, board: &mut Board, media: MediaIx, receiver: PeerIx) {
    let Some(member) = board.member(media, receiver) else { return };
    let idle = member.receives() && member.running.is_empty() && now >= member.refuses_until;
    if !idle || now.since(member.fed) < PATIENCE || now < member.look_at {
        return;
    }
    let (found, busy) = look(now, board, media, receiver).unzip();
    // Whoever has no room for it may be gone, and what it was ordered lies there.
    for host in busy.into_iter().flatten() {
        board.look_after(now, host, PATIENCE / 2);
    }
    let Some(member) = board.member_mut(media, receiver) else { return };
    member.look_at = now + PATIENCE;
    let Some(found) = found.filter(|s| member.told.as_ref() != Some(s)) else { return };
    member.told = Some(found.clone());
    if let Some(conn) = board.peers.get(&receiver).and_then(|p| p.conn) {
        board.shortages.entry(conn).or_default().push(found);
    }
}

/// Some of the pages that a member waits for, as ranges.
fn wanted(now: Now, m: &Media, member: &Member) -> Vec<(PageNo, PageNo)> {
    let Some(part) = member.holds.part() else { return Vec::new() };
    let mut ranges: Vec<_> = urgent::spans(now, m, member).iter().map(|s| (s.first, s.last)).collect();
    ranges.push(choose::window(m, member));
    if member.intent == Intent::Whole {
        ranges = vec![(0, m.pages().saturating_sub(1))];
    }
    ranges.into_iter().flat_map(|(a, b)| part.claimed.gaps(a, b)).take(GAPS).collect()
}

/// What stands in the way, and hosts with which nothing is wrong but that they have no room; none if nothing is wanted.
fn look(now: Now, board: &Board, media: MediaIx, receiver: PeerIx) -> Option<(Shortage, Vec<PeerIx>)> {
    let (m, r) = (board.media.get(&media)?, board.peers.get(&receiver)?);
    let member = m.members.get(&receiver)?;
    let wanted = wanted(now, m, member);
    if wanted.is_empty() {
        return None;
    }
    let (mut hosts, mut unshared, mut unreachable, mut failed) = (0, 0, 0, 0);
    let (mut unwilling, mut silent, mut busy) = (0, 0, Vec::new());
    let mut protocols = BTreeSet::new();
    let publisher = m.publisher.and_then(|p| Some((p, m.members.get(&p)?)));
    let others = m.members.iter().map(|(ix, x)| (*ix, x)).filter(|(ix, _)| m.publisher != Some(*ix));
    for (host, x) in publisher.into_iter().chain(others).take(MEMBERS) {
        let Some(h) = board.peers.get(&host).filter(|h| h.conn.is_some() && host != receiver) else {
            continue;
        };
        let holds = match x.holds.part() {
            None => true,
            Some(p) => wanted.iter().any(|(a, b)| p.pages.next_set(*a).is_some_and(|page| page <= *b)),
        };
        let serving = || h.offers.iter().filter(|o| o.offer.serves);
        if !holds || x.distrusted || h.trust(now) < LEAST_TRUST || serving().next().is_none() {
            continue;
        }
        hosts += 1;
        let ways = board.ways(now, host, receiver, Need::Bulk, 64 << 10);
        if !serving().any(|o| r.offered(o.proto).is_some()) {
            unshared += 1;
            protocols.extend(serving().map(|o| &o.offer.name));
        } else if h.is_silent(now, receiver) {
            silent += 1;
        } else if !h.gives_to(r) || !board.gives(media, h) {
            unwilling += 1;
        } else if ways.is_empty() {
            unreachable += 1;
        } else if member.avoids(host, now) || ways.iter().all(|(_, w)| r.avoids(host, w.proto, now)) {
            failed += 1;
        } else {
            busy.push(host);
        }
    }
    let protocols = protocols.into_iter().take(limits::OFFERS).cloned().collect();
    let some = |n: u32| Some(n).filter(|n| *n > 0);
    let (unwilling, silent) = (some(unwilling), some(silent));
    let shortage =
        Shortage { media: m.id, hosts, unshared, unreachable, failed, protocols, unwilling, silent };
    Some((shortage, busy))
}
