//! The first scheduler: greedy with true counts.
//!
//! Whenever a host or a receiver has room, it looks at a few receivers or hosts drawn at random, and orders the rarest
//! pages between the best of them. A publisher sends what nobody else has; once all of it is out, it helps only where
//! nobody else has room, and rests where the crowd uploads so much that its help makes no difference. Urgent pages go before all that, see [`super::urgent`].

use std::time::Duration;

use icet::Now;
use icet::message::{Intent, Need};

use super::choose::{self, Start, Use};
use super::{Event, Scheduler, shortage, urgent};
use crate::swarm::board::{Board, MediaIx, Order, PeerIx, Run, State, Timer, UNKNOWN_RATE};
use crate::swarm::peer::Peer;

/// Most orders for one peer in one turn.
const TURN: usize = 8;
/// Media that one event may reach through a host that serves many.
const MEDIA: usize = 16;
/// How soon who went hungry is tried again, if somebody has room, and if not.
const TICK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));
/// An assignment that will take longer than this (in seconds) is not made, and if it runs somebody else is sent after it.
const TOO_SLOW: f64 = 15.0;
/// A host that would take as long is tried so often all the same: it may have become faster.
const PROBE: Duration = Duration::from_secs(20);

/// See [`Reach::Soon`].
const SOON: u64 = 15;
/// It helps all the same who was given nothing for so long: perhaps nobody else reaches it. From then on for as long again.
const STARVED: Duration = Duration::from_secs(5);
/// How much a new look at the crowd's upload counts.
const LOOKED: f64 = 0.1;

/// Bulk for players, in the order in which hosts turn to it: first what anybody needs soon. Who does not play has no ahead, and
/// is given [`Reach::All`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// From the first page on that is not under way, so many seconds ([`SOON`]).
    Soon,
    /// As far as a player is given bulk at all.
    Near,
    /// To be passed on later.
    All,
}

/// Greedy with true counts. Has no state of its own.
#[derive(Debug, Default)]
pub(crate) struct Greedy;

impl Scheduler for Greedy {
    fn handle(&mut self, now: Now, board: &mut Board, event: Event) {
        match event {
            Event::Joined { media, peer } | Event::Got { media, peer } => {
                board.refresh(now, media, peer);
                urgent::feed_waiting(now, board, media);
                feed(now, board, media, peer);
                serve(now, board, media, peer);
            }
            Event::Wants { media, peer } => {
                drop_stale(now, board, media, peer);
                board.refresh(now, media, peer);
                feed(now, board, media, peer);
            }
            Event::Room { media, host, receiver } => {
                urgent::feed_waiting(now, board, media);
                for media in missed(board, host, media, true) {
                    board.refresh(now, media, host);
                    serve(now, board, media, host);
                }
                for media in missed(board, receiver, media, false) {
                    board.refresh(now, media, receiver);
                    feed(now, board, media, receiver);
                }
            }
            Event::Ready { peer } => {
                let media: Vec<_> =
                    board.peers.get(&peer).map(|p| p.media.iter().copied().collect()).unwrap_or_default();
                for (i, media) in media.into_iter().enumerate() {
                    board.refresh(now, media, peer);
                    if i < MEDIA {
                        serve(now, board, media, peer);
                    }
                }
            }
            Event::Slow { run } => late(now, board, run),
            Event::Tick { media } => {
                let Some(m) = board.media.get_mut(&media) else { return };
                m.ticking = false;
                survey(board, media);
                urgent::feed_waiting(now, board, media);
                let Board { media: all, rng, .. } = board;
                let Some(m) = all.get(&media) else { return };
                for peer in m.hungry.draw(choose::DRAW, rng) {
                    feed(now, board, media, peer);
                }
                let Board { media: all, rng, .. } = board;
                let Some(m) = all.get(&media) else { return };
                for host in m.free.draw(choose::DRAW, rng) {
                    serve(now, board, media, host);
                }
                tick(now, board, media);
            }
        }
    }
}

/// The media in which a peer missed its turn for want of room, beginning with `media`.
fn missed(board: &mut Board, peer: PeerIx, media: MediaIx, up: bool) -> Vec<MediaIx> {
    let Board { peers, rng, .. } = board;
    let Some(p) = peers.get_mut(&peer) else { return Vec::new() };
    let (meter, pool) = if up { (&p.up, &mut p.missed_up) } else { (&p.down, &mut p.missed_down) };
    let mut out = vec![media];
    if meter.room() > 0 {
        for m in pool.draw(MEDIA, rng) {
            pool.remove(m);
            if m != media {
                out.push(m);
            }
        }
    }
    out
}

/// Makes sure that somebody comes back to who is hungry.
fn tick(now: Now, board: &mut Board, media: MediaIx) {
    let Some(m) = board.media.get_mut(&media) else { return };
    if m.hungry.is_empty() && m.waiting.is_empty() || m.ticking {
        return;
    }
    m.ticking = true;
    let wait = if m.free.is_empty() { TICK.1 } else { TICK.0 };
    board.at(now + wait, Timer::Tick(media));
}

/// Gives a receiver what it should have under way.
fn feed(now: Now, board: &mut Board, media: MediaIx, receiver: PeerIx) {
    if !board.peers.get(&receiver).is_some_and(Peer::is_there) {
        return;
    }
    urgent::feed(now, board, media, receiver);
    for _ in 0..TURN {
        let wants = board.member(media, receiver).is_some_and(|m| m.may_be_given(now));
        let room = board.peers.get(&receiver).is_some_and(|p| p.conn.is_some() && p.down.room() > 0);
        if !wants || !room || !choose::is_in_turn(board, now, media, receiver) {
            break;
        }
        if !feed_bulk(now, board, media, receiver) {
            break;
        }
    }
    shortage::tell(now, board, media, receiver);
    tick(now, board, media);
}

/// One order of bulk for a receiver, from whoever fits best. False if nobody has room and pages for it.
fn feed_bulk(now: Now, board: &mut Board, media: MediaIx, receiver: PeerIx) -> bool {
    let hosts = choose::hosts(board, now, media, receiver);
    let Some(m) = board.media.get(&media) else { return false };
    let plays = m.members.get(&receiver).is_some_and(|x| x.intent == Intent::Play);
    // What goes further than soon is the hosts' choice, who look at several: others may need something soon.
    let reaches: &[Reach] = match plays {
        false => &[Reach::All],
        true if m.listeners() > 1 => &[Reach::Soon],
        true => &[Reach::Soon, Reach::Near, Reach::All],
    };
    reaches.iter().any(|reach| {
        hosts.iter().any(|host| {
            let publisher = board.media.get(&media).is_some_and(|m| m.is_publisher(*host));
            let help = if publisher { helps(now, board, media, *host, receiver) } else { Help::No };
            let ways: &[Use] = match help {
                _ if !publisher => &[Use::Any],
                Help::No => &[Use::Fresh],
                Help::Willing | Help::Relied => &[Use::Fresh, Use::Help],
            };
            let mut order = |how| {
                let bytes = order_bulk(now, board, media, (*host, receiver), how, *reach, Some(&hosts));
                if how == Use::Help && help == Help::Relied {
                    let p = board.peers.get_mut(host);
                    p.into_iter().for_each(|p| p.rely(now, bytes.unwrap_or(0)));
                }
                bytes.is_some()
            };
            ways.iter().any(|how| order(*how))
        })
    })
}

/// Looks at what some hosts can upload, to know about how much all can.
fn survey(board: &mut Board, media: MediaIx) {
    let Board { media: all, peers, rng, .. } = board;
    let Some(m) = all.get_mut(&media) else { return };
    let mut drawn = m.able.draw(choose::DRAW, rng);
    drawn.retain(|h| m.publisher != Some(*h));
    let rate = |h: &PeerIx| peers.get(h).map_or(0.0, |p| p.up.known_rate().unwrap_or(UNKNOWN_RATE));
    let sum: f64 = drawn.iter().map(rate).sum();
    let hosts = m.able.len() - usize::from(m.publisher.is_some_and(|p| m.able.has(p)));
    let all = if drawn.is_empty() { 0.0 } else { sum / drawn.len() as f64 * hosts as f64 };
    m.upload += (all - m.upload) * LOOKED;
}

/// Whether a publisher should send what others have, too; see [`helps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Help {
    No,
    /// It makes a difference to the crowd, and it is willing; or the receiver starves.
    Willing,
    /// The receiver says that others failed it.
    Relied,
}

/// Whether a publisher should send a receiver what others have, too.
fn helps(now: Now, board: &mut Board, media: MediaIx, publisher: PeerIx, receiver: PeerIx) -> Help {
    if !choose::rests(board, media, publisher) {
        return Help::Willing;
    }
    let Some(p) = board.peers.get(&publisher) else { return Help::No };
    let Some(m) = board.media.get_mut(&media) else { return Help::No };
    // To who was failed by half of all others nobody else sends anything, either.
    let dark = board.peers.get(&receiver).map_or(0, |r| r.dark_hosts(now));
    let relied = if p.may_be_relied_on(now) { Help::Relied } else { Help::No };
    if dark > 0 && 2 * dark + 1 >= m.able.len() {
        return relied;
    }
    let Some(r) = m.members.get_mut(&receiver) else { return Help::No };
    if now.since(r.fed) > STARVED {
        r.helped_until = now + STARVED;
    }
    match now < r.helped_until {
        true if dark > 0 => relied,
        true => Help::Willing,
        false => Help::No,
    }
}

/// Gives a host something to send, as long as it has room.
fn serve(now: Now, board: &mut Board, media: MediaIx, host: PeerIx) {
    for _ in 0..TURN {
        let has_room = board.media.get(&media).is_some_and(|m| m.free.has(host))
            && board.peers.get(&host).is_some_and(|p| p.up.room() > 0);
        if !has_room {
            break;
        }
        let publisher = board.media.get(&media).is_some_and(|m| m.is_publisher(host));
        let how = if publisher { Use::Fresh } else { Use::Any };
        let receivers = choose::receivers(board, now, media, host);
        let served = [Reach::Soon, Reach::Near, Reach::All].iter().any(|reach| {
            receivers.iter().any(|r| order_bulk(now, board, media, (host, *r), how, *reach, None).is_some())
        }) || (publisher && receivers.iter().take(4).any(|r| feed_bulk(now, board, media, *r)));
        if !served {
            break;
        }
    }
    tick(now, board, media);
}

/// Orders bulk from a host to a receiver, if there are pages for it: how many bytes. `seen`: hosts with room.
#[allow(clippy::too_many_arguments)]
fn order_bulk(
    now: Now,
    board: &mut Board,
    media: MediaIx,
    (host, receiver): (PeerIx, PeerIx),
    how: Use,
    reach: Reach,
    seen: Option<&[PeerIx]>,
) -> Option<u64> {
    let m = board.media.get(&media)?;
    let member = m.members.get(&receiver).filter(|x| x.has_open())?;
    let (size, unit) = (choose::size(board, m, host, receiver), m.unit);
    let all = (0, m.pages() - 1);
    let near = choose::window(m, member);
    let soon = choose::soon(m, member, near, SOON);
    let (play, from) = (member.intent == Intent::Play, member.playhead.map_or(0, |p| p.page));
    // What is to be passed on goes in the grain of copies, so that many can pass on a little.
    let (ranges, size, need, start): (&[_], _, _, _) = match reach {
        Reach::All if !play => (&[all], size, Need::Bulk, Start::Anywhere),
        _ if !play => return None,
        Reach::All if how == Use::Fresh && choose::is_short(board, media, host, receiver) => {
            (&[(from, all.1), all], unit, Need::Spare, Start::First)
        }
        _ if how == Use::Fresh => (&[near], size, Need::Bulk, Start::Anywhere),
        Reach::Soon => (soon.as_slice(), size, Need::Bulk, Start::Anywhere),
        Reach::Near => (&[near], size, Need::Bulk, Start::Anywhere),
        Reach::All if may_spare(board, media, host) => (&[all], size.min(unit), Need::Spare, Start::Anywhere),
        Reach::All => return None,
    };
    let found =
        ranges.iter().find_map(|r| choose::rarest(board, media, (host, receiver), *r, size, how, start));
    let (first, mut last) = found?;
    if !choose::may_send(board, now, media, (host, receiver)) {
        return None;
    }
    let proto = board.protocol(now, host, receiver, need, 64 << 10)?;
    // Little is risked to learn of a protocol, or of a host that was slow to death: a unit.
    let trial = |r: &Peer| r.is_on_trial(host, proto) || r.is_dark(host);
    let trial = board.peers.get(&receiver).is_some_and(trial);
    let venture = board.is_venture(host, receiver, proto);
    if trial || venture || board.is_untried(host, proto) {
        last = last.min(first + unit - 1);
    }
    let bytes = board.media.get(&media).map_or(0, |m| m.table.bytes_of(first, last));
    if !is_quick(now, board, media, host, bytes) {
        return None;
    }
    let stand_ins = Vec::new();
    let mut order =
        Order { media, receiver, host, proto, first, last, need, deadline: None, hedge: false, stand_ins };
    // Whom it fails has enough else under way.
    if !venture {
        choose::stand_ins(board, now, &mut order, seen);
    }
    board.issue(now, &order).map(|_| bytes)
}

/// Whether a host will send so much in a reasonable time; now and then one that will not gets a try. Where nobody else has
/// anything, slow is better than not at all.
fn is_quick(now: Now, board: &mut Board, media: MediaIx, host: PeerIx, bytes: u64) -> bool {
    let alone = board.media.get(&media).is_some_and(|m| m.able.len() <= 1);
    let Some(h) = board.peers.get_mut(&host) else { return false };
    let slow = h.up.rate.is_some_and(|r| bytes as f64 / r.max(1.0) > TOO_SLOW);
    if slow && !alone && now.since(h.probed) < PROBE {
        return false;
    }
    if slow {
        h.probed = now;
    }
    true
}

/// Whether a host has so much room that it may send what nobody waits for. A publisher rests instead.
fn may_spare(board: &Board, media: MediaIx, host: PeerIx) -> bool {
    let publisher = board.media.get(&media).is_some_and(|m| m.is_publisher(host));
    !publisher && board.peers.get(&host).is_some_and(|h| h.up.bytes < h.up.window() / 4)
}

/// After a seek: takes back what is wanted no longer.
fn drop_stale(now: Now, board: &mut Board, media: MediaIx, receiver: PeerIx) {
    let Some(m) = board.media.get(&media) else { return };
    let Some(member) = m.members.get(&receiver) else { return };
    let mut wanted: Vec<_> = urgent::spans(now, m, member).iter().map(|s| (s.first, s.last)).collect();
    if member.intent == Intent::Play {
        wanted.push(choose::window(m, member));
    }
    // Who wants all of it only gets rid of what hurried for another place.
    let droppable = |r: &Run| member.intent != Intent::Whole || (r.need == Need::Urgent && r.acked == 0);
    let stale: Vec<u64> = member
        .running
        .iter()
        .filter(|f| {
            let near = |r: &Run| wanted.iter().any(|(a, b)| r.first <= *b && r.last >= *a);
            board.runs.get(&f.id).is_some_and(|r| droppable(r) && !near(r))
        })
        .map(|f| f.id)
        .collect();
    for id in stale {
        board.cancel(id);
        board.end(now, id);
    }
}

/// An assignment is slow: sends another host after it if it holds up the end or a deadline, or would take for ever.
fn late(now: Now, board: &mut Board, id: u64) {
    let chased = |r: &Run| {
        let by = r.chased_by.and_then(|c| board.runs.get(&c));
        r.hedge || by.is_some_and(|c| c.state == State::Runs)
    };
    let running = board.runs.get(&id).filter(|r| r.state == State::Runs && r.done.is_none());
    let Some(run) = running.filter(|r| !chased(r)) else { return };
    let (media, receiver, host, eta) = (run.media, run.receiver, run.host(), run.eta(now));
    let (range, need, deadline, moves) = ((run.first, run.last), run.need, run.deadline, run.acked > 0);
    let Some(m) = board.media.get(&media) else { return };
    // Who came back only to share lets its assignments run on, but wants no more.
    let Some(member) = m.members.get(&receiver).filter(|m| m.receives()) else { return };
    let in_danger = deadline.is_some_and(|d| now + Duration::from_secs_f64(eta.min(600.0)) > d);
    let holds_up_the_end = !member.has_open();
    if !(in_danger || holds_up_the_end || eta > TOO_SLOW) || eta < 0.75 {
        return;
    }
    // What is missing at the end of it; the slow host goes on from the beginning.
    let Some(part) = member.holds.part() else { return };
    let Some((a, b)) = part.pages.gaps(range.0, range.1).last() else { return };
    let first = if in_danger || !moves || b - a < 8 { a } else { a + (b - a) / 2 };
    let Some(best) = urgent::best(now, board, media, receiver, (first, b), deadline, Some(host)) else {
        return;
    };
    if best.eta > eta / 2.0 || best.last < b {
        return;
    }
    // What a publisher that rests sends a second time, for nobody's playhead, is no help.
    let publisher = board.media.get(&media).is_some_and(|m| m.is_publisher(best.host));
    if publisher && !in_danger && helps(now, board, media, best.host, receiver) == Help::No {
        return;
    }
    let (host, proto) = (best.host, best.proto);
    let order = Order {
        media,
        receiver,
        host,
        proto,
        first,
        last: b,
        need,
        deadline,
        hedge: true,
        stand_ins: Vec::new(),
    };
    let chaser = board.issue(now, &order);
    if let Some(run) = board.runs.get_mut(&id) {
        run.chased_by = chaser.or(run.chased_by);
    }
}
