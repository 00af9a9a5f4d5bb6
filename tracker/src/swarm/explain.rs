//! Why a page comes from whom it comes, or does not come: told from what the board knows now, by the facts that a scheduler
//! decides by. What was known when an order was made is kept only if asked for ([`SwarmConfig::explain`]).
//!
//! A scheduler looks at some hosts drawn at random, and throws dice between equals; here some are looked at in order of
//! their arrival. So a host that is told of need not be one that was drawn, and who is best here need not have been chosen.
//!
//! [`SwarmConfig::explain`]: super::SwarmConfig::explain

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use icet::message::{Intent, Need};
use icet::{MediaId, Now, PageNo, PeerKey, ProtocolName};

use super::Swarm;
use super::board::{Board, LEAST_TRUST, MediaIx, Order, PeerIx, Run, State};
use super::peer::MOST_SERVED;

/// Hosts that are told of.
const HOSTS: usize = 16;
/// Members that are looked at for them.
const LOOKED: usize = 512;
/// Decisions that are kept for one receiver in one media, and receivers in media for which some are.
const KEPT: (usize, usize) = (32, 2048);
/// Hosts of a decision that are kept.
const KEPT_HOSTS: usize = 8;

/// Whether a host could send a page, and if not, the first reason why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It could.
    Able,
    /// It could, but failed this receiver and has sent it nothing since: it comes after others, with one small order at a time.
    Dark,
    /// It has as much to send as it can.
    NoRoom,
    /// It, or each way to it, failed this receiver a moment ago.
    Avoided,
    /// What it says it holds is not believed: several did not find it there.
    Distrusted,
    /// It altered pages, or ignored what it was asked.
    Untrusted,
    /// It does not answer the tracker.
    Silent,
    /// It gives this receiver nothing of this media now: so its user chose.
    GivesNothing,
    /// Both speak a protocol, but no address of the host was proved that this receiver may be told.
    NoRoute,
    /// Only a punch leads to it, and none came through the NATs of both a while ago.
    Apart,
    /// They speak no common protocol that the host serves.
    NoProtocol,
    /// Its session is gone.
    Gone,
    /// It does not hold the page.
    Lacks,
}

/// One possible host of a page.
#[derive(Debug, Clone)]
pub struct Considered {
    /// Who.
    pub peer: PeerKey,
    /// Whether it published the media: it is spared where others can send.
    pub publisher: bool,
    /// Whether it could send.
    pub verdict: Verdict,
    /// The best protocol between the two, if there is any.
    pub protocol: Option<ProtocolName>,
    /// How good that way is for this need, times trust: more is better, and only comparable within one explanation.
    pub score: f64,
    /// Probability that the fetch ends well.
    pub success: Option<f64>,
    /// Bytes a second of one fetch.
    pub rate: Option<f64>,
    /// Seconds until what it has to send before, and this page, would have arrived.
    pub wait: Option<f64>,
    /// 1 is full trust, 0 none.
    pub trust: f64,
}

/// An assignment that covers the page.
#[derive(Debug, Clone)]
pub struct Ordered {
    /// Its number.
    pub assignment: u64,
    /// First and last page.
    pub pages: (PageNo, PageNo),
    /// Who sends, now: a stand-in, if the host failed.
    pub host: PeerKey,
    /// Over what; none if nobody offers that any more.
    pub protocol: Option<ProtocolName>,
    /// What for.
    pub need: Need,
    /// How long ago it was made.
    pub age: Duration,
    /// Bytes of all, and of them those that were acknowledged.
    pub bytes: (u64, u64),
    /// Until when it should be there, from now; none if that has passed or none was set.
    pub deadline: Option<Duration>,
    /// It repeats what is under way from somebody slower.
    pub hedge: bool,
    /// Whether it still runs.
    pub runs: bool,
    /// Hosts named to step in, in order.
    pub stand_ins: Vec<PeerKey>,
}

/// A decision as it was made.
#[derive(Debug, Clone)]
pub struct Decided {
    /// How long ago.
    pub age: Duration,
    /// The assignment that came of it.
    pub assignment: u64,
    /// First and last page.
    pub pages: (PageNo, PageNo),
    /// Who was chosen.
    pub host: PeerKey,
    /// Over what.
    pub protocol: ProtocolName,
    /// What for.
    pub need: Need,
    /// It repeats what was under way from somebody slower.
    pub hedge: bool,
    /// The possible hosts of its first page then, the best first, at most 8.
    pub hosts: Vec<Considered>,
}

/// Why nothing is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The receiver holds the page.
    Held,
    /// It is under way.
    Ordered,
    /// The receiver only shares: it wants no pages.
    WantsNone,
    /// The receiver has no session.
    Gone,
    /// The receiver came with assignments of an earlier start of the tracker: these may bring it.
    EarlierOrders,
    /// The receiver gave orders back, or was silent: it gets none for a moment.
    Paused,
    /// The receiver has as much under way as its line takes.
    ReceiverFull,
    /// No member with a session holds it.
    NobodyHolds,
    /// Nobody who holds it shares a protocol with the receiver.
    NoProtocol,
    /// Nobody who holds it has an address that the receiver may be told.
    NoRoute,
    /// Nobody who holds it gives this receiver anything of this media now.
    GiveNothing,
    /// Nobody who holds it answers the tracker.
    HostsSilent,
    /// All who hold it failed the receiver a moment ago, or are not trusted.
    Avoided,
    /// All who hold it have as much to send as they can.
    HostsFull,
    /// Somebody could send it: other pages come first (nearer the playhead, or rarer), or it lies beyond what a player needs.
    Waits,
}

/// Why a page is where it is.
#[derive(Debug, Clone)]
pub struct Why {
    /// The receiver.
    pub receiver: PeerKey,
    /// The page.
    pub page: PageNo,
    /// In a word.
    pub reason: Reason,
    /// Assignments that cover the page and run, or ended within the last half minute (on a busy tracker: were among the last 32,768); the newest first.
    pub orders: Vec<Ordered>,
    /// Who could send it now, the best first; at most 16.
    pub hosts: Vec<Considered>,
    /// What was decided about it, the newest first; empty unless decisions are kept.
    pub decided: Vec<Decided>,
    /// Whether decisions are kept.
    pub kept: bool,
}

/// Why there is no explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WhyError {
    /// No such media.
    #[error("no such media")]
    NoMedia,
    /// No such member.
    #[error(
        "no such peer in this media's swarm: give its key, or the first digits of it as api/peers shows them"
    )]
    NoPeer,
    /// The digits are not enough.
    #[error("several peers have keys that begin so: give more digits")]
    Ambiguous,
    /// No such page.
    #[error("the media has {0} pages, counted from 0")]
    NoPage(u64),
}

#[derive(Debug)]
struct Kept {
    made: Now,
    assignment: u64,
    pages: (PageNo, PageNo),
    host: PeerKey,
    protocol: ProtocolName,
    need: Need,
    hedge: bool,
    hosts: Vec<Considered>,
}

/// Decisions that are kept, while their receivers are members.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    rings: BTreeMap<(MediaIx, PeerIx), VecDeque<Kept>>,
}

impl Decisions {
    /// Nothing of a member is asked for any more.
    pub(crate) fn forget(&mut self, media: MediaIx, peer: PeerIx) {
        self.rings.remove(&(media, peer));
    }

    fn keep(&mut self, media: MediaIx, receiver: PeerIx, decision: Kept) {
        if self.rings.len() >= KEPT.1 && !self.rings.contains_key(&(media, receiver)) {
            return;
        }
        let ring = self.rings.entry((media, receiver)).or_default();
        if ring.len() >= KEPT.0 {
            ring.pop_front();
        }
        ring.push_back(decision);
    }
}

impl Board {
    /// Keeps why an order is made, if that is asked for. To be called before the order changes anything.
    pub(crate) fn note(&mut self, now: Now, assignment: u64, order: &Order) {
        if !self.config.explain {
            return;
        }
        let mut hosts =
            self.considered(now, order.media, order.receiver, order.first, order.need, Some(order.host));
        hosts.truncate(KEPT_HOSTS);
        let (Some(host), Some(protocol)) = (self.peers.get(&order.host), self.protocols.name(order.proto))
        else {
            return;
        };
        let decision = Kept {
            made: now,
            assignment,
            pages: (order.first, order.last),
            host: host.key,
            protocol: protocol.clone(),
            need: order.need,
            hedge: order.hedge,
            hosts,
        };
        self.decisions.keep(order.media, order.receiver, decision);
    }

    /// Who could send `page` to `receiver`: `chosen` and the publisher in any case, the best first.
    fn considered(
        &self,
        now: Now,
        media: MediaIx,
        receiver: PeerIx,
        page: PageNo,
        need: Need,
        chosen: Option<PeerIx>,
    ) -> Vec<Considered> {
        let Some(m) = self.media.get(&media) else { return Vec::new() };
        let holds = |p: &PeerIx| m.members.get(p).is_some_and(|x| x.holds.all(page, page));
        let first = [chosen, m.publisher].into_iter().flatten();
        let holders = m.members.keys().copied().take(LOOKED).filter(holds);
        let mut seen = Vec::new();
        for peer in first.chain(holders).filter(|p| *p != receiver) {
            if !seen.contains(&peer) {
                seen.push(peer);
            }
            if seen.len() >= HOSTS * 4 {
                break;
            }
        }
        let mut out: Vec<Considered> =
            seen.into_iter().filter_map(|h| self.consider(now, media, receiver, page, need, h)).collect();
        let able = |c: &Considered| c.verdict == Verdict::Able;
        out.sort_by(|a, b| able(b).cmp(&able(a)).then(b.score.total_cmp(&a.score)));
        // Who was chosen is told of in any case.
        let chosen = chosen.and_then(|c| self.peers.get(&c)).map(|p| p.key);
        if let Some(at) = out.iter().position(|c| Some(c.peer) == chosen).filter(|at| *at >= KEPT_HOSTS) {
            let it = out.remove(at);
            out.insert(KEPT_HOSTS - 1, it);
        }
        out.truncate(HOSTS);
        out
    }

    fn consider(
        &self,
        now: Now,
        media: MediaIx,
        receiver: PeerIx,
        page: PageNo,
        need: Need,
        host: PeerIx,
    ) -> Option<Considered> {
        let m = self.media.get(&media)?;
        let (h, r) = (self.peers.get(&host)?, self.peers.get(&receiver)?);
        let member = m.members.get(&host)?;
        let bytes = m.table.bytes_of(page, page);
        let mut ways = self.ways(now, host, receiver, need, bytes);
        let any_way = !ways.is_empty();
        let common = h.offers.iter().any(|o| o.offer.serves && r.offered(o.proto).is_some());
        ways.retain(|(_, route)| !r.avoids(host, route.proto, now));
        let avoided = m.members.get(&receiver).is_some_and(|x| x.avoids(host, now));
        let best = ways.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        let trust = h.trust(now);
        let room = match need {
            Need::Urgent => h.up.count < MOST_SERVED && h.up.urgent_room() > 0,
            _ => h.up.room() > 0,
        };
        let verdict = if !member.holds.all(page, page) {
            Verdict::Lacks
        } else if h.conn.is_none() {
            Verdict::Gone
        } else if !common {
            Verdict::NoProtocol
        } else if h.is_silent(now, receiver) {
            Verdict::Silent
        } else if !h.gives_to(r) || !self.gives(media, h) {
            Verdict::GivesNothing
        } else if !any_way && self.did_part(host, receiver) {
            Verdict::Apart
        } else if !any_way || !h.servable {
            Verdict::NoRoute
        } else if trust < LEAST_TRUST {
            Verdict::Untrusted
        } else if member.distrusted {
            Verdict::Distrusted
        } else if avoided || best.is_none() {
            Verdict::Avoided
        } else if !room {
            Verdict::NoRoom
        } else if r.is_dark(host) {
            Verdict::Dark
        } else {
            Verdict::Able
        };
        let expected = best.map(|(_, route)| route.expected);
        Some(Considered {
            peer: h.key,
            publisher: m.is_publisher(host),
            verdict,
            protocol: best.and_then(|(_, route)| self.protocols.name(route.proto)).cloned(),
            score: best.map_or(0.0, |(score, _)| score) * trust,
            success: expected.map(|e| e.success),
            rate: expected.map(|e| e.rate),
            wait: expected.map(|e| e.first + h.up.eta(bytes, need).max(bytes as f64 / e.rate.max(1.0))),
            trust,
        })
    }

    fn ordered(&self, now: Now, id: u64, run: &Run) -> Option<Ordered> {
        let with = run.hosts.get(run.with)?;
        Some(Ordered {
            assignment: id,
            pages: (run.first, run.last),
            host: with.key,
            protocol: self.protocols.name(with.proto).cloned(),
            need: run.need,
            age: now.since(run.made),
            bytes: (run.bytes, run.acked),
            deadline: run.deadline.filter(|d| *d > now).map(|d| d.since(now)),
            hedge: run.hedge,
            runs: run.state != State::Ended,
            stand_ins: run.hosts.iter().skip(run.with + 1).map(|t| t.key).collect(),
        })
    }
}

/// What keeps all hosts from sending, from the point of view of the one that is nearest to it.
fn in_their_way(hosts: &[Considered]) -> Reason {
    let any = |verdicts: &[Verdict]| hosts.iter().any(|h| verdicts.contains(&h.verdict));
    if any(&[Verdict::Able, Verdict::Dark]) {
        Reason::Waits
    } else if any(&[Verdict::NoRoom]) {
        Reason::HostsFull
    } else if any(&[Verdict::Avoided, Verdict::Apart, Verdict::Untrusted, Verdict::Distrusted]) {
        Reason::Avoided
    } else if any(&[Verdict::NoRoute]) {
        Reason::NoRoute
    } else if any(&[Verdict::GivesNothing]) {
        Reason::GiveNothing
    } else if any(&[Verdict::Silent]) {
        Reason::HostsSilent
    } else if any(&[Verdict::NoProtocol]) {
        Reason::NoProtocol
    } else {
        Reason::NobodyHolds
    }
}

impl Swarm {
    /// Why `page` of `media` is, or is not, under way to the member whose key begins with the hexadecimal digits `peer`.
    ///
    /// # Errors
    /// [`WhyError`].
    pub fn why(&self, media: &MediaId, peer: &str, page: PageNo) -> Result<Why, WhyError> {
        let now = self.board.latest();
        let m = self.board.by_id(media).ok_or(WhyError::NoMedia)?;
        let mut found: Option<PeerIx> = None;
        if peer.is_empty() {
            return Err(WhyError::NoPeer);
        }
        for ix in m.members.keys() {
            let is = self.board.peers.get(ix).is_some_and(|p| p.key.to_string().starts_with(peer));
            if is && found.replace(*ix).is_some() {
                return Err(WhyError::Ambiguous);
            }
        }
        let ix = found.ok_or(WhyError::NoPeer)?;
        if page >= m.pages() {
            return Err(WhyError::NoPage(m.pages()));
        }
        let (Some(member), Some(r)) = (m.members.get(&ix), self.board.peers.get(&ix)) else {
            return Err(WhyError::NoPeer);
        };
        let mut orders: Vec<Ordered> = self
            .board
            .remembered()
            .filter(|(_, x)| x.receiver == ix && x.media == m.ix && (x.first..=x.last).contains(&page))
            .filter_map(|(id, x)| self.board.ordered(now, id, x))
            .collect();
        orders.sort_unstable_by_key(|o| std::cmp::Reverse((o.runs, o.assignment)));
        orders.truncate(KEPT.0);
        let need = orders.first().map_or(Need::Bulk, |o| o.need);
        let hosts = self.board.considered(now, m.ix, ix, page, need, None);
        let reason = if member.holds.all(page, page) {
            Reason::Held
        } else if orders.iter().any(|o| o.runs) {
            Reason::Ordered
        } else if member.intent == Intent::Share {
            Reason::WantsNone
        } else if r.conn.is_none() {
            Reason::Gone
        } else if now < member.hold_until {
            Reason::EarlierOrders
        } else if now < member.refuses_until || !r.is_there() {
            Reason::Paused
        } else {
            match in_their_way(&hosts) {
                Reason::Waits if r.down.room() == 0 => Reason::ReceiverFull,
                other => other,
            }
        };
        let ring = self.board.decisions.rings.get(&(m.ix, ix));
        let of_page = ring.into_iter().flatten().rev().filter(|d| (d.pages.0..=d.pages.1).contains(&page));
        let decided = of_page
            .map(|d| Decided {
                age: now.since(d.made),
                assignment: d.assignment,
                pages: d.pages,
                host: d.host,
                protocol: d.protocol.clone(),
                need: d.need,
                hedge: d.hedge,
                hosts: d.hosts.clone(),
            })
            .collect();
        Ok(Why { receiver: r.key, page, reason, orders, hosts, decided, kept: self.board.config.explain })
    }
}
