//! Choices: how much, which pages, which host, which receiver.

use std::time::Duration;

use icet::message::{Intent, Need, Position};
use icet::{Now, PageNo};
use rand::Rng;

use crate::swarm::Nearness;
use crate::swarm::bits::Pool;
use crate::swarm::board::{Board, MediaIx, Order, PeerIx, UNKNOWN_RATE};
use crate::swarm::glance::{Glance, Place};
use crate::swarm::media::{Holds, Media, Member};
use crate::swarm::peer::Meter;
use crate::swarm::rarity::CLASSES;

/// Candidates looked at in one decision.
pub(super) const DRAW: usize = 12;
/// Most assignments from one host to one receiver.
pub(super) const PER_PAIR: usize = 8;
/// A publisher that would add less than this share to what the crowd uploads rests once others have what it has.
const HELP: f64 = 0.05;
/// Most pages of an assignment of bulk; at least it is a unit, since a part of one is no copy that could be passed on.
const PAGES: u64 = 4096;
/// No assignment takes more than such a part of what is left to order.
const ENDGAME: f64 = 8.0;
/// Most bytes of an assignment.
const MOST_BYTES: f64 = 16e6;
/// Words of a bitmap (64 units, about 4 MB, each) that are searched at most for one class of copies.
const SEARCH: usize = 2048;
/// How far ahead of the playhead bulk goes, in seconds, and at least and at most in bytes.
const AHEAD: (f64, u64, u64) = (30.0, 1 << 20, 8 << 20);

/// How much it counts that a receiver had more than its share, as a factor of the natural logarithm of how many times as
/// much as others, and that at most; and bytes that are little.
const EXCESS: (f64, f64) = (3.0, 6.0);
const LITTLE: f64 = 64e3;
/// Who was given nothing for so long looks for hosts with room all the same.
const STARVED: Duration = Duration::from_secs(5);
/// Seconds that a player is ahead from which on it does not matter how many more.
const LEAD: f64 = 32.0;

/// How a host that holds everything may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Any page that it holds.
    Any,
    /// The publisher: only what nobody else has or is about to get.
    Fresh,
    /// The publisher, since nobody else has room: anything but what is just on its way to somebody who can pass it on.
    Help,
}

/// Where a search for pages begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Where chance will have it, so that many get different pages.
    Anywhere,
    /// At the beginning.
    First,
}

/// About how many pages `host` should send `receiver` in one assignment.
pub(super) fn size(board: &Board, media: &Media, host: PeerIx, receiver: PeerIx) -> u64 {
    // A quarter of what may be under way: several at once, which share the line, so that each takes about 0.5 s.
    let part = |p: Option<&Meter>| p.filter(|p| p.rate.is_some()).map(|p| p.window() as f64 / 4.0);
    let unit = (media.unit * media.table.mean_page()) as f64;
    let by_host = part(board.peers.get(&host).map(|p| &p.up)).unwrap_or(unit);
    let by_receiver = part(board.peers.get(&receiver).map(|p| &p.down)).unwrap_or(f64::MAX);
    // Many receivers trade better with many pieces.
    let crowd = (8 * media.listeners().clamp(1, 16)) as f64;
    let by_crowd =
        if media.listeners() > 1 { (media.manifest.bytes as f64 / crowd).max(unit) } else { f64::MAX };
    // The last ones are small, so that they end at about the same time, whichever goes slowly.
    let open = media.members.get(&receiver).and_then(|x| x.holds.part()).map_or(0, |p| p.open.ones());
    let by_rest = (open as f64 * unit / ENDGAME).max(unit);
    let bytes = by_host.min(by_receiver).min(by_crowd).min(by_rest).clamp(1.0, MOST_BYTES);
    // In range: at most 16e6.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes = bytes as u64;
    (bytes / media.table.mean_page()).clamp(media.unit, PAGES)
}

/// Which pages a player wants in bulk: from what is urgent so far ahead.
pub(super) fn window(media: &Media, member: &Member) -> (PageNo, PageNo) {
    let end = media.pages().saturating_sub(1);
    let (Intent::Play, Some(p)) = (member.intent, member.playhead) else { return (0, end) };
    // In range: clamped to AHEAD.2.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let ahead = ((p.rate as f64 * AHEAD.0) as u64).clamp(AHEAD.1, AHEAD.2);
    let urgent = media.table.offset(p.page).saturating_add(p.urgent);
    let page = |byte| media.table.page_at(Position::Byte(byte)).max(p.page);
    (page(urgent), page(urgent.saturating_add(ahead)))
}

/// What a player wants soon of `window`: from the first page on that it neither has nor was ordered, so many seconds.
pub(super) fn soon(
    media: &Media,
    member: &Member,
    window: (PageNo, PageNo),
    seconds: u64,
) -> Option<(PageNo, PageNo)> {
    let (part, p) = (member.holds.part()?, member.playhead?);
    let first = part.claimed.next_clear(window.0).filter(|p| *p <= window.1)?;
    let end = media.table.offset(first).saturating_add(p.rate.saturating_mul(seconds));
    Some((first, media.table.page_at(Position::Byte(end)).clamp(first, window.1)))
}

/// Whether the crowd eats more than a publisher can send: then it sends first what nobody else has.
pub(super) fn is_short(board: &Board, media: MediaIx, publisher: PeerIx, receiver: PeerIx) -> bool {
    let Some(m) = board.media.get(&media) else { return false };
    let rate = m.members.get(&receiver).and_then(|x| x.playhead).map_or(0, |p| p.rate);
    let own = board.peers.get(&publisher).and_then(|p| p.up.known_rate()).unwrap_or(UNKNOWN_RATE);
    m.listeners() as f64 * rate as f64 > own
}

/// Whether a publisher leaves to others what they have: it wants to, or makes no difference to the crowd.
pub(super) fn rests(board: &Board, media: MediaIx, publisher: PeerIx) -> bool {
    let (Some(p), Some(m)) = (board.peers.get(&publisher), board.media.get(&media)) else { return true };
    let own = p.up.known_rate().unwrap_or(UNKNOWN_RATE);
    // To one alone nobody else sends anything.
    let may = !p.once || m.able.len() <= 1;
    !may || own < HELP * (own + m.upload)
}

/// Seconds that a player can go on with what it has or was ordered; none of who does not play, or has all to its end.
pub(super) fn lead(now: Now, media: &Media, member: &Member) -> Option<f64> {
    let p = member.playhead.filter(|_| member.intent == Intent::Play)?;
    let gap = member.holds.part()?.claimed.next_clear(p.page)?;
    let ahead =
        media.table.offset(gap).saturating_sub(media.table.offset(p.page)) as f64 / p.rate.max(1) as f64;
    Some(ahead - now.since(p.since).as_secs_f64().min(30.0))
}

/// Some who hold the first pages that a player lacks, and may be few.
fn named(board: &Board, media: MediaIx, receiver: PeerIx) -> Vec<PeerIx> {
    const UNITS: u64 = 4;
    let Some((m, x)) = board.media.get(&media).and_then(|m| Some((m, m.members.get(&receiver)?))) else {
        return Vec::new();
    };
    let (Some(p), Some(part), Some(rarity)) = (x.playhead, x.holds.part(), m.rarity.as_ref()) else {
        return Vec::new();
    };
    if x.intent != Intent::Play {
        return Vec::new();
    }
    let Some(gap) = part.claimed.next_clear(p.page) else { return Vec::new() };
    let unit = gap / m.unit;
    (unit..unit + UNITS).flat_map(|u| rarity.named(u)).collect()
}

/// The rarest pages within `range` that `host` holds and `receiver` lacks, at most `size` in a row.
pub(super) fn rarest(
    board: &mut Board,
    media: MediaIx,
    (host, receiver): (PeerIx, PeerIx),
    range: (PageNo, PageNo),
    size: u64,
    how: Use,
    start: Start,
) -> Option<(PageNo, PageNo)> {
    let Board { media: all, rng, .. } = board;
    let m = all.get(&media)?;
    let held = match &m.members.get(&host)?.holds {
        Holds::Full => None,
        Holds::Part(p) => Some(&p.units),
    };
    let wants = m.members.get(&receiver)?.holds.part()?;
    let rarity = m.rarity.as_ref()?;
    let (low, high) = (range.0 / m.unit, range.1 / m.unit);
    let index = |u: u64| usize::try_from(u / 64).unwrap_or(usize::MAX);
    let words = index(high) - index(low) + 1;
    // Many trade better with different pieces; one alone wants them in order.
    let start = if m.listeners() > 1 && start == Start::Anywhere { rng.random_range(0..words) } else { 0 };
    let usable = |unit: u64| match how {
        Use::Any => true,
        Use::Fresh => m.is_fresh(unit),
        Use::Help => m.seeds > 0 || rarity.copies(unit) > 0 || rarity.flying(unit) == 0,
    };
    if how == Use::Fresh && m.seeds > 0 {
        return None;
    }
    // The rarest, and of equal ones the first: in one pass, since most words hold nothing of use.
    let mut rarer = if how == Use::Fresh { 1 } else { CLASSES };
    let mut found = None;
    for i in 0..words.min(SEARCH) {
        let w = index(low) + (start + i) % words;
        let useful = wants.open.word_at(w) & held.map_or(u64::MAX, |h| h.word_at(w));
        if useful == 0 {
            continue;
        }
        let classes = rarer;
        for class in 0..classes {
            let mut word = rarity.class(class).word_at(w) & useful;
            let run = std::iter::from_fn(|| {
                let unit = (word != 0).then(|| w as u64 * 64 + u64::from(word.trailing_zeros()))?;
                word &= word - 1;
                Some(unit)
            });
            let mut run = run.filter(|u| (low..=high).contains(u) && usable(*u));
            if let Some(run) = run.find_map(|u| extend(m, wants, held, u, class, range, size, &usable)) {
                (rarer, found) = (class, Some(run));
                break;
            }
        }
        if rarer == 0 {
            break;
        }
    }
    found
}

/// From the first open page of `unit` on, as long as units are as rare.
#[allow(clippy::too_many_arguments)]
fn extend(
    m: &Media,
    wants: &crate::swarm::media::Part,
    held: Option<&crate::swarm::bits::Bits>,
    unit: u64,
    class: usize,
    range: (PageNo, PageNo),
    size: u64,
    usable: &impl Fn(u64) -> bool,
) -> Option<(PageNo, PageNo)> {
    let rarity = m.rarity.as_ref()?;
    let pages = m.unit;
    let first = wants.claimed.next_clear((unit * pages).max(range.0))?;
    if first > range.1 || first / pages != unit {
        return None;
    }
    let free_to = wants.claimed.next_set(first).map_or(range.1, |p| (p - 1).min(range.1));
    let most = free_to.min(first + size - 1);
    let mut last = most.min(unit * pages + pages - 1);
    let good =
        |u: u64| held.is_none_or(|h| h.get(u)) && usable(u) && (0..=class).any(|c| rarity.class(c).get(u));
    // Whole units: half of one is no copy that could be passed on.
    while last < most && good(last / pages + 1) && (last + pages <= most || most == free_to) {
        last = most.min(last + pages);
    }
    Some((first, last))
}

/// How much it counts that two are near.
fn near(a: Place, b: Place) -> f64 {
    match a.nearness(b) {
        Nearness::Address => 1.5,
        Nearness::Network => 1.3,
        Nearness::Elsewhere => 1.0,
    }
}

/// Hosts with room for bulk to `receiver`, the best first, the publisher last: as they look at a glance. What else there is to
/// say of a host and this receiver is asked of those that turn out to have pages, see [`may_send`].
pub(super) fn hosts(board: &mut Board, now: Now, media: MediaIx, receiver: PeerIx) -> Vec<PeerIx> {
    let named = named(board, media, receiver);
    let Board { media: all, peers, rng, .. } = board;
    let (Some(m), Some(r)) = (all.get(&media), peers.get(&receiver)) else { return Vec::new() };
    let mut seen: Vec<(PeerIx, Glance)> = Vec::with_capacity(DRAW + 1 + named.len());
    seen.extend(m.free.drawn(DRAW, rng));
    for host in named.into_iter().chain(m.publisher) {
        if !seen.iter().any(|(h, _)| *h == host) {
            seen.extend(m.free.get(host).map(|g| (host, g)));
        }
    }
    seen.retain(|(h, _)| *h != receiver);
    let score = |(host, g): (PeerIx, Glance)| {
        let score = f64::from(g.worth) * near(g.place, r.place) * rng.random_range(0.9..1.1);
        // Who failed it comes after whoever else has it.
        let rank = u8::from(m.is_publisher(host)) + 2 * u8::from(r.is_darkened(host, now));
        (rank, score, host)
    };
    let mut scored: Vec<(u8, f64, PeerIx)> = seen.into_iter().map(score).collect();
    scored.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)));
    let shut = r.punches.some_fail();
    let mut found: Vec<PeerIx> = scored.into_iter().map(|(_, _, h)| h).collect();
    if shut {
        found.retain(|h| board.leads_to(now, *h, receiver));
    }
    found
}

/// Whether bulk may go from `host` to `receiver` now: the host did not just fail it, has room, and does not send it enough.
pub(super) fn may_send(
    board: &mut Board,
    now: Now,
    media: MediaIx,
    (host, receiver): (PeerIx, PeerIx),
) -> bool {
    if board.member(media, receiver).is_none_or(|x| x.avoids(host, now)) {
        return false;
    }
    if board.peers.get(&host).is_none_or(|p| p.up.room() == 0) {
        // What another media took since shows only now.
        board.refresh(now, media, host);
        return false;
    }
    // One that failed it is tried with one order at a time.
    let most = if board.is_dark(host, receiver) { 1 } else { PER_PAIR };
    pairs(board, media, host, receiver) < most
}

/// Assignments that run from `host` to `receiver` in this media.
pub(super) fn pairs(board: &Board, media: MediaIx, host: PeerIx, receiver: PeerIx) -> usize {
    let running = board.member(media, receiver).map(|m| m.running.as_slice()).unwrap_or_default();
    running.iter().filter(|f| f.host == host).count()
}

/// What peers with a full share were given lately: the mean of those among some. If there are none, the least that anybody
/// was over what is due to it: many keys of few machines are no measure.
fn usual(board: &Board, now: Now, some: &[PeerIx]) -> f64 {
    let full: Vec<f64> =
        some.iter().filter(|p| board.share(now, **p) >= 1.0).map(|p| board.had(now, *p)).collect();
    if full.is_empty() {
        return some.iter().map(|p| board.had(now, *p)).reduce(f64::min).unwrap_or(0.0);
    }
    full.iter().sum::<f64>() / full.len() as f64
}

/// How much a receiver with less than a full share had more of it lately than others; 0 if it had no more.
fn excess(board: &Board, now: Now, receiver: PeerIx, usual: f64) -> f64 {
    if board.share(now, receiver) >= 1.0 {
        return 0.0;
    }
    EXCESS.0 * ((board.had(now, receiver) + LITTLE) / (usual + LITTLE)).ln().clamp(0.0, EXCESS.1)
}

/// Whether it is a receiver's turn to look for hosts with room, or that of others who want too.
pub(super) fn is_in_turn(board: &mut Board, now: Now, media: MediaIx, receiver: PeerIx) -> bool {
    if board.share(now, receiver) >= 1.0 || now.since(board.given(receiver)) > STARVED {
        return true;
    }
    let Board { media: all, rng, .. } = board;
    let Some(m) = all.get(&media) else { return false };
    let mut others = m.hungry.draw(DRAW, rng);
    others.retain(|r| *r != receiver);
    others.is_empty() || excess(board, now, receiver, usual(board, now, &others)) <= 0.0
}

/// Hungry receivers that `host` may feed, who should get something first.
pub(super) fn receivers(board: &mut Board, now: Now, media: MediaIx, host: PeerIx) -> Vec<PeerIx> {
    let Board { media: all, rng, .. } = board;
    let Some(m) = all.get(&media) else { return Vec::new() };
    let publisher = m.is_publisher(host);
    let drawn = m.hungry.draw(DRAW, rng);
    // Where all have a full share, nobody had more than it.
    let full = drawn.iter().all(|r| board.share(now, *r) >= 1.0);
    let usual = if full { 0.0 } else { usual(board, now, &drawn) };
    let mut scored: Vec<(f64, PeerIx)> = Vec::new();
    for r in drawn {
        let Some(p) = board.peers.get(&r).filter(|p| p.down.room() > 0) else {
            board.refresh(now, media, r);
            continue;
        };
        let Some(m) = board.media.get(&media) else { break };
        let Some(x) = m.members.get(&r) else { continue };
        let pairs = pairs(board, media, host, r);
        let shut = p.punches.some_fail() && !board.leads_to(now, host, r);
        if r == host || shut || x.avoids(host, now) || !x.may_be_given(now) || pairs >= PER_PAIR {
            continue;
        }
        let held = x.holds.part().map_or(m.pages(), |p| p.pages.ones());
        // Who gives most comes first; who is new gets enough to begin to give; nobody waits for ever, but who had more than its
        // share waits until others had theirs.
        let excess = if full { 0.0 } else { excess(board, now, r, usual) };
        let mut score = 0.5 * board.weight(now, r) + 1.0 - held as f64 / m.pages() as f64 - excess;
        if x.intent == Intent::Play && !publisher {
            // Who will run dry first.
            let lead = lead(now, m, x).unwrap_or(LEAD).clamp(0.0, LEAD);
            score += 6.0 * (1.0 - lead / LEAD);
        } else if excess <= 0.0 {
            score += if held < 4 * m.unit { 1.5 } else { 0.0 };
            score += if p.down.count == 0 { 1.0 } else { 0.0 };
            score += 0.5 * now.since(x.fed).as_secs_f64().min(6.0);
        }
        // Whose upload is idle has nothing that others lack: what it gets now is spread soonest.
        let speed = (p.up.known_rate().unwrap_or(UNKNOWN_RATE / 2.0) / UNKNOWN_RATE).min(1.0);
        // From whom nobody gets what it says it holds, nothing is spread.
        let spreads = p.servable && !x.distrusted;
        let idle = if spreads { speed * p.up.room() as f64 / p.up.window() as f64 } else { 0.0 };
        score += if publisher { 2.0 * idle } else { 0.5 * idle };
        if publisher {
            // To those who spread it fastest, and spread over them.
            let rate = if x.distrusted { 0.0 } else { p.up.known_rate().unwrap_or(UNKNOWN_RATE) };
            score += 0.3 * (rate / UNKNOWN_RATE).max(0.01).ln();
            score += if spreads { 1.0 } else { 0.0 } - 0.5 * pairs as f64;
        }
        let h = board.peers.get(&host);
        score += h.map_or(0.0, |h| h.trust(now) * (near(h.place, p.place) - 1.0));
        scored.push((score + board.rng.random_range(0.0..0.2), r));
    }
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().map(|(_, r)| r).collect()
}

/// Tries some of a pool, drawn one by one, until one is what was looked for.
fn any_of<V: Copy>(
    board: &mut Board,
    media: MediaIx,
    pool: impl Fn(&Media) -> &Pool<PeerIx, V>,
    mut is_it: impl FnMut(&mut Board, PeerIx) -> bool,
) -> bool {
    let Board { media: all, rng, .. } = board;
    let len = all.get(&media).map_or(0, |m| pool(m).len());
    if len == 0 {
        return false;
    }
    let mut i = rng.random_range(0..len);
    for _ in 0..len.min(DRAW) {
        let Some(one) = board.media.get(&media).and_then(|m| pool(m).nth(i)) else { return false };
        if is_it(board, one) {
            return true;
        }
        // Of few each.
        i = if len <= DRAW { (i + 1) % len } else { board.rng.random_range(0..len) };
    }
    false
}

/// Up to two others that hold the pages of an order, and its own host over another carrier. Those over another carrier come
/// first: a firewall that begins to drop packets drops those of all hosts. `seen`: those that were drawn of the hosts with room
/// just now, if any were.
pub(super) fn stand_ins(board: &mut Board, now: Now, order: &mut Order, seen: Option<&[PeerIx]>) {
    const BYTES: u64 = 64 << 10;
    const OTHERS: usize = 2;
    let carrier = board.carrier(order.host, order.proto);
    let (mut detours, mut others) = (Vec::new(), Vec::new());
    let mut known: Vec<PeerIx> = vec![order.host, order.receiver];
    // Who has nothing yet, or was failed by somebody, can rely on the publisher, if on anybody.
    let publisher = board.media.get(&order.media).and_then(|m| m.publisher);
    let able = |p: &PeerIx| board.media.get(&order.media).is_some_and(|m| m.able.has(*p));
    // One that rests stands in only as often as it may be asked for on somebody's word.
    let spent = publisher.filter(|p| {
        let may = board.peers.get(p).is_some_and(|p| p.may_be_relied_on(now));
        !may && rests(board, order.media, *p)
    });
    known.extend(spent);
    let relies = publisher.filter(able).filter(|_| {
        board.peers.get(&order.receiver).is_some_and(|r| r.dark_hosts(now) > 0)
            || board.member(order.media, order.receiver).is_some_and(Member::is_new)
    });
    let mut find = |board: &mut Board, host: PeerIx| {
        if known.contains(&host) {
            return false;
        }
        known.push(host);
        let avoided = board.member(order.media, order.receiver).is_none_or(|m| m.avoids(host, now));
        if avoided || !board.holds(order.media, host, order.first, order.last) {
            return false;
        }
        // Who may not come together with it is no help.
        let sure = |proto| order.need < Need::Bulk || !board.is_venture(host, order.receiver, proto);
        let detours_of = board.detours(now, host, order.receiver, BYTES, carrier);
        let detour = detours_of.into_iter().find(|d| d.good && sure(d.proto));
        if let Some(detour) = detour {
            detours.push((host, detour.proto));
        } else if let Some(proto) = board.protocol(now, host, order.receiver, Need::Urgent, BYTES)
            && (order.need < Need::Bulk || !board.is_venture(host, order.receiver, proto))
        {
            others.push((host, proto));
        }
        detours.len() + others.len() >= OTHERS
    };
    // Some are known to hold it, chance finds others; first those with room.
    let Some(m) = board.media.get(&order.media) else { return };
    let named = m.rarity.iter().flat_map(|r| r.named(order.first / m.unit)).collect::<Vec<_>>();
    let free: Vec<_> = named.iter().copied().filter(|h| m.free.has(*h)).collect();
    let some = relies.into_iter().chain(free).chain(seen.into_iter().flatten().copied());
    let enough = some.into_iter().any(|host| find(board, host))
        || seen.is_none()
            && (any_of(board, order.media, |m| &m.free, |board, host| find(board, host))
                || publisher
                    .filter(|p| board.media.get(&order.media).is_some_and(|m| m.free.has(*p)))
                    .is_some_and(|p| find(board, p)));
    if !enough {
        // Who has enough to do now is better than nobody: when a host dies, much may have changed.
        let able = |board: &Board, h: PeerIx| board.media.get(&order.media).is_some_and(|m| m.able.has(h));
        let _ = named.into_iter().any(|h| able(board, h) && find(board, h))
            || any_of(board, order.media, |m| &m.able, |board, host| find(board, host));
    }
    // Where the order's own carrier is not known, or the stand-in's, either may be the one that is silent.
    let own = board.detours(now, order.host, order.receiver, BYTES, carrier);
    let known = own.first().is_some_and(|d| board.carrier(order.host, d.proto).is_some());
    let most = if carrier.is_none() || !known { 2 } else { 1 };
    let own = own
        .into_iter()
        .filter(|d| order.need < Need::Bulk || !board.is_venture(order.host, order.receiver, d.proto));
    detours.extend(own.take(most).map(|d| (order.host, d.proto)));
    detours.append(&mut others);
    order.stand_ins = detours;
}
