//! What the tracker knows: peers, media with their crowds, and the assignments that run. A scheduler reads it, and orders.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use icet::message::{Assignment, Dial, Need, Shortage, Source};
use icet::ticket::TicketBody;
use icet::{HostAddr, MediaId, NetKind, Now, PageNo, PageSet, PeerKey, Scope};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::bits::Table;
use super::conduct::Absent;
use super::explain::Decisions;
use super::fair::Accounts;
use super::glance::Glance;
use super::learn::{Expected, ProtoIx, Protocols};
use super::live::{Begin, LiveRun};
use super::media::{Fetch, Media, Member};
use super::peer::{Offered, Peer};
use super::punch::{PATIENCE, Venture};
use super::reach::{self, Proof};
use super::reserve;
use super::schedule::Event;
use super::timers::Timers;
use super::{ConnId, SwarmConfig, Totals};

/// Number of a peer; never used twice, so that a stale one finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PeerIx(pub(crate) u64);

/// Number of a media; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MediaIx(pub(crate) u64);

/// An assignment lapses if it is not taken up in this time (more, if the host has much to send before).
pub(crate) const LAPSE: Duration = Duration::from_secs(2);
/// How often a running assignment is looked at.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// How long an assignment that ended is remembered, for late acknowledgements and hosts' reports.
pub(crate) const REMEMBER: Duration = Duration::from_secs(30);
/// Assignments that are remembered at most of those of which nothing more will be heard, so that a busy tracker's memory is not full of
/// them.
const PAST: usize = 32_768;
/// How long a ticket is good for.
const TICKET_LIFE_MS: u64 = 120_000;
/// Least trust of a host.
pub(crate) const LEAST_TRUST: f64 = 0.2;
/// Bytes a second of a host that nothing is known of.
pub(crate) const UNKNOWN_RATE: f64 = 500e3;

/// What happens at a given time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Look at an assignment.
    Look(u64),
    /// Forget an assignment that ended.
    Forget(u64),
    /// Hungry receivers of a media.
    Tick(MediaIx),
    /// Forget a peer that is gone.
    Purge(PeerIx),
    /// A session that said no hello.
    Hello(ConnId),
    /// A peer that was knocked at.
    Knock(PeerIx),
    /// A newcomer to whom nothing may have come since it joined then, and how often that was looked at.
    Newcomer(MediaIx, PeerIx, Now, u32),
    /// Addresses to be dialed.
    Dial(PeerIx),
    /// Write totals, sweep.
    Flush,
}

/// One of the hosts of an assignment.
#[derive(Debug, Clone)]
pub(crate) struct Tried {
    pub(crate) peer: PeerIx,
    pub(crate) key: PeerKey,
    pub(crate) proto: ProtoIx,
    /// Bytes that it says it sent.
    pub(crate) served: u64,
    /// Of them, what was acknowledged too.
    pub(crate) credited: u64,
    pub(crate) reported: bool,
}

/// How far an assignment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It runs.
    Runs,
    /// Its receiver's session is gone, or does not answer; it may run on.
    Detached,
    /// It is over; remembered for what comes late.
    Ended,
}

/// An assignment.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) media: MediaIx,
    /// Version of the media's manifest.
    pub(crate) version: u64,
    pub(crate) receiver: PeerIx,
    /// The host, and the stand-ins after it.
    pub(crate) hosts: Vec<Tried>,
    /// Which of them has it now.
    pub(crate) with: usize,
    pub(crate) first: PageNo,
    pub(crate) last: PageNo,
    pub(crate) need: Need,
    pub(crate) bytes: u64,
    pub(crate) acked: u64,
    /// Bytes that its host had to send before it.
    pub(crate) behind: u64,
    pub(crate) made: Now,
    pub(crate) progress: Option<Now>,
    /// When the receiver said that something of it comes, but no page is whole yet.
    pub(crate) coming: Option<Now>,
    pub(crate) lapse: Duration,
    pub(crate) deadline: Option<Now>,
    pub(crate) state: State,
    /// Its receiver does not answer: it does not count as what its host has to send.
    pub(crate) aside: bool,
    /// Its host does not answer: it does not count as what its receiver has under way.
    pub(crate) apart: bool,
    /// Nothing but drips comes from its last host: the receiver goes on with it, as long as nobody else sends its pages.
    pub(crate) drips: bool,
    /// Nobody knows whether its ends come together, and nothing has come yet. A free one is `aside` and `apart`.
    pub(crate) venture: Option<Venture>,
    /// Its ends came together just now.
    pub(crate) met: bool,
    /// It repeats pages that are under way from elsewhere.
    pub(crate) hedge: bool,
    /// The receiver reported its end; until when acknowledgements may still come.
    pub(crate) done: Option<Now>,
    /// The assignment by which somebody else was ordered to send some of it too.
    pub(crate) chased_by: Option<u64>,
}

impl Run {
    pub(crate) fn host(&self) -> PeerIx {
        self.hosts[self.with.min(self.hosts.len() - 1)].peer
    }

    pub(crate) fn left(&self) -> u64 {
        self.bytes.saturating_sub(self.acked)
    }

    /// Seconds until it will be complete, going by how it went so far.
    pub(crate) fn eta(&self, now: Now) -> f64 {
        if self.drips {
            return f64::MAX;
        }
        let age = now.since(self.made).as_secs_f64();
        if self.acked == 0 {
            return age + self.lapse.as_secs_f64() / 2.0;
        }
        self.left() as f64 * age.max(0.01) / self.acked as f64
    }
}

/// What a scheduler orders: `receiver` fetches `first ..= last` from `host` over `proto`.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) media: MediaIx,
    pub(crate) receiver: PeerIx,
    pub(crate) host: PeerIx,
    pub(crate) proto: ProtoIx,
    pub(crate) first: PageNo,
    pub(crate) last: PageNo,
    pub(crate) need: Need,
    pub(crate) deadline: Option<Now>,
    pub(crate) hedge: bool,
    /// At most four, each holding the pages; the host itself over another protocol may be one of them.
    pub(crate) stand_ins: Vec<(PeerIx, ProtoIx)>,
}

/// A way from a host to a receiver.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) proto: ProtoIx,
    pub(crate) expected: Expected,
}

/// A way over another carrier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Detour {
    pub(crate) proto: ProtoIx,
    /// It did not just fail the receiver.
    pub(crate) good: bool,
}

/// All facts, and what is to be sent because of orders.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) config: SwarmConfig,
    pub(crate) rng: SmallRng,
    wall: (Now, u64),
    pub(crate) peers: Table<PeerIx, Peer>,
    pub(crate) keys: HashMap<PeerKey, PeerIx>,
    pub(crate) media: Table<MediaIx, Media>,
    pub(crate) ids: HashMap<MediaId, MediaIx>,
    pub(crate) runs: Table<u64, Run>,
    /// Those of which nothing more will be heard, since when: for people who ask.
    past: VecDeque<(Now, u64, Run)>,
    pub(crate) live_runs: BTreeMap<u64, LiveRun>,
    pub(crate) protocols: Protocols,
    timers: Timers,
    pub(crate) events: Vec<Event>,
    pub(crate) assign: BTreeMap<ConnId, Vec<Assignment>>,
    pub(crate) cancel: BTreeMap<ConnId, Vec<u64>>,
    pub(crate) shortages: BTreeMap<ConnId, Vec<Shortage>>,
    /// Who is to get the head of a live media, before its orders.
    pub(crate) heads: Vec<(ConnId, MediaIx, Option<Begin>)>,
    /// Sessions to be knocked at.
    pub(crate) knocks: Vec<ConnId>,
    pub(crate) totals: Totals,
    pub(crate) absent: Absent,
    pub(crate) accounts: Accounts,
    pub(crate) decisions: Decisions,
    last_ix: u64,
    last_run: u64,
}

impl Board {
    pub(crate) fn new(config: SwarmConfig) -> Board {
        Board {
            rng: SmallRng::seed_from_u64(config.seed),
            config,
            wall: (Now::ZERO, 0),
            peers: Table::default(),
            keys: HashMap::new(),
            media: Table::default(),
            ids: HashMap::new(),
            runs: Table::default(),
            past: VecDeque::new(),
            live_runs: BTreeMap::new(),
            protocols: Protocols::default(),
            timers: Timers::default(),
            events: Vec::new(),
            assign: BTreeMap::new(),
            cancel: BTreeMap::new(),
            shortages: BTreeMap::new(),
            heads: Vec::new(),
            knocks: Vec::new(),
            totals: Totals::default(),
            absent: Absent::default(),
            accounts: Accounts::default(),
            decisions: Decisions::default(),
            last_ix: 0,
            last_run: 0,
        }
    }

    pub(crate) fn next_ix(&mut self) -> u64 {
        self.last_ix += 1;
        self.last_ix
    }

    pub(crate) fn set_wall(&mut self, now: Now, wall_ms: u64) {
        self.wall = (now, wall_ms);
    }

    /// Tracker time in milliseconds, carried on from when it was last told.
    pub(crate) fn wall(&self, now: Now) -> u64 {
        let since = u64::try_from(now.since(self.wall.0).as_millis()).unwrap_or(u64::MAX);
        self.wall.1.saturating_add(since)
    }

    /// The latest time that the wall clock was told at.
    pub(crate) fn latest(&self) -> Now {
        self.wall.0
    }

    pub(crate) fn at(&mut self, when: Now, timer: Timer) {
        self.timers.put(when, timer);
    }

    pub(crate) fn due(&mut self, now: Now) -> Option<Timer> {
        self.timers.due(now)
    }

    pub(crate) fn next_timer(&self) -> Option<Now> {
        self.timers.first().map(|(when, _)| when)
    }

    pub(crate) fn by_id(&self, id: &MediaId) -> Option<&Media> {
        self.media.get(self.ids.get(id)?)
    }

    pub(crate) fn member(&self, media: MediaIx, peer: PeerIx) -> Option<&Member> {
        self.media.get(&media)?.members.get(&peer)
    }

    pub(crate) fn member_mut(&mut self, media: MediaIx, peer: PeerIx) -> Option<&mut Member> {
        self.media.get_mut(&media)?.members.get_mut(&peer)
    }

    /// Whether a peer gives anything of a media.
    pub(crate) fn gives(&self, media: MediaIx, peer: &Peer) -> bool {
        peer.withheld.is_empty() || self.media.get(&media).is_some_and(|m| !peer.withheld.contains(&m.id))
    }

    /// Puts a member into the pools that it belongs to now: hosts with room, receivers with room that lack something.
    pub(crate) fn refresh(&mut self, now: Now, media: MediaIx, peer: PeerIx) {
        let Board { media: all, peers, protocols, .. } = self;
        let (Some(m), Some(p)) = (all.get_mut(&media), peers.get_mut(&peer)) else { return };
        let member = m.members.get(&peer);
        let holds = |x: &Member| !x.distrusted && x.holds.part().is_none_or(|p| p.pages.ones() > 0);
        let serves = member.is_some_and(holds)
            && p.conn.is_some()
            && p.servable
            && p.trust(now) >= LEAST_TRUST
            && !p.withheld.contains(&m.id);
        let lacks = p.conn.is_some() && p.is_there() && member.is_some_and(Member::has_open);
        if serves {
            m.able.insert(peer);
        } else {
            m.able.remove(peer);
        }
        if serves && p.up.room() > 0 {
            m.free.put(peer, Glance::of(now, p, protocols));
        } else {
            m.free.remove(peer);
            if serves {
                p.missed_up.insert(media);
            }
        }
        if lacks && p.down.room() > 0 {
            m.hungry.insert(peer);
        } else {
            m.hungry.remove(peer);
            if lacks {
                p.missed_down.insert(media);
            }
        }
    }

    /// Puts an assignment aside if all of it came, and both ends said so. Most orders end like that: what is looked up all the
    /// time is so a second's orders, not half a minute's, and fits into a processor's caches.
    pub(crate) fn settle(&mut self, now: Now, id: u64) {
        // Lengths of pages are estimated here, and counted there.
        let close = |r: &Run| r.hosts.iter().map(|t| t.credited).sum::<u64>() >= r.acked - r.acked / 16;
        let reported = |r: &Run| r.hosts.get(r.with).is_some_and(|t| t.reported);
        let over = |r: &Run| r.state == State::Ended && r.left() == 0 && reported(r) && close(r);
        if self.runs.get(&id).is_some_and(over)
            && let Some(run) = self.runs.remove(&id)
        {
            if self.past.len() >= PAST {
                self.past.pop_front();
            }
            self.past.push_back((now, id, run));
        }
    }

    /// Forgets an assignment that ended, and those that were put aside as long ago.
    pub(crate) fn forget(&mut self, now: Now, id: u64) {
        self.runs.remove(&id);
        self.live_runs.remove(&id);
        while self.past.front().is_some_and(|(at, ..)| now.since(*at) >= REMEMBER) {
            self.past.pop_front();
        }
    }

    /// All assignments that are remembered.
    pub(crate) fn remembered(&self) -> impl Iterator<Item = (u64, &Run)> {
        let past = self.past.iter().map(|(_, id, run)| (*id, run));
        self.runs.iter().map(|(id, run)| (*id, run)).chain(past)
    }

    /// Whether nothing was ordered from `host` over this protocol yet, though something was over others.
    pub(crate) fn is_untried(&self, host: PeerIx, proto: ProtoIx) -> bool {
        let Some(h) = self.peers.get(&host) else { return false };
        h.offered(proto).is_some_and(|o| !o.tried) && h.offers.iter().any(|o| o.tried)
    }

    /// Whether `host` failed `receiver`, and has sent it nothing since.
    pub(crate) fn is_dark(&self, host: PeerIx, receiver: PeerIx) -> bool {
        self.peers.get(&receiver).is_some_and(|r| r.is_dark(host))
    }

    /// Whether something is ordered from `host` to `receiver`, over this protocol.
    fn is_under_way(&self, host: PeerIx, receiver: PeerIx, proto: ProtoIx) -> bool {
        let runs = self.peers.get(&host).map(|h| h.serving.as_slice()).unwrap_or_default();
        let runs = runs.iter().filter_map(|id| self.runs.get(id)).filter(|r| r.receiver == receiver);
        runs.map(|r| r.hosts.get(r.with)).any(|t| t.is_some_and(|t| t.proto == proto))
    }

    /// Whether this way did not just fail the receiver, nor is being tried by it; nor would be tried, with enough others.
    fn may_use(
        &self,
        now: Now,
        host: PeerIx,
        r: &Peer,
        receiver: PeerIx,
        proto: ProtoIx,
        need: Need,
    ) -> bool {
        let trial = || r.is_on_trial(host, proto) && self.is_under_way(host, receiver, proto);
        let venture = || {
            need >= Need::Bulk
                && self.is_venture(host, receiver, proto)
                && (!self.may_venture(host, receiver) || self.is_under_way(host, receiver, proto))
        };
        !r.avoids(host, proto, now) && !trial() && !venture()
    }

    /// The best way from `host` to `receiver` that did not just fail it, if there is one; of bulk, one that was never tried but
    /// promises well, and now and then another one.
    pub(crate) fn route(
        &mut self,
        now: Now,
        host: PeerIx,
        receiver: PeerIx,
        need: Need,
        bytes: u64,
    ) -> Option<Route> {
        const EXPLORE: f64 = 0.03;
        /// What promises so much of the best is tried once in any case.
        const PROMISING: f64 = 0.5;
        let mut ways = self.ways(now, host, receiver, need, bytes);
        let r = self.peers.get(&receiver)?;
        ways.retain(|(_, route)| self.may_use(now, host, r, receiver, route.proto, need));
        // What failed over one carrier is tried over another one first.
        let failed: Vec<_> = r
            .avoid
            .iter()
            .filter(|a| a.host == host && a.dark)
            .map(|a| self.carrier(host, a.proto))
            .collect();
        if !failed.is_empty() {
            let other = |route: &Route| !failed.contains(&self.carrier(host, route.proto));
            if ways.iter().any(|(_, route)| other(route)) {
                ways.retain(|(_, route)| other(route));
            }
        }
        ways.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (most, best) = *ways.first()?;
        // Beside something else that is under way, so that nobody waits for what may turn out badly.
        if need >= Need::Bulk && ways.len() > 1 && r.down.count > 0 {
            let new = |(score, w): &&(f64, Route)| {
                *score >= PROMISING * most
                    && self.is_untried(host, w.proto)
                    && self.protocols.may_be_tried(now, w.proto, &w.expected)
            };
            if let Some((_, route)) = ways.iter().find(new) {
                return Some(*route);
            }
        }
        if need >= Need::Bulk && ways.len() > 1 && self.rng.random_bool(EXPLORE) {
            let i = self.rng.random_range(1..ways.len());
            let other = ways.get(i).map(|w| w.1);
            let may = |w: &Route| self.protocols.may_be_tried(now, w.proto, &w.expected);
            return Some(other.filter(may).unwrap_or(best));
        }
        Some(best)
    }

    /// The best ways over other carriers than `carrier`, one over each: what is silent over one may pass over another. Those
    /// first that did not just fail, and of which is known what they come over.
    pub(crate) fn detours(
        &self,
        now: Now,
        host: PeerIx,
        receiver: PeerIx,
        bytes: u64,
        carrier: Option<NetKind>,
    ) -> Vec<Detour> {
        let Some(r) = self.peers.get(&receiver) else { return Vec::new() };
        if let Some(proto) = self.only(now, host, receiver) {
            let detour = Detour { proto, good: !r.avoids(host, proto, now) };
            return if self.carrier(host, proto) == carrier { Vec::new() } else { vec![detour] };
        }
        let mut best: Vec<(Option<NetKind>, f64, Detour)> = Vec::new();
        for (score, Route { proto, .. }) in self.ways(now, host, receiver, Need::Urgent, bytes) {
            let detour = Detour { proto, good: !r.avoids(host, proto, now) };
            let over = self.carrier(host, proto);
            match best.iter_mut().find(|(other, ..)| *other == over) {
                _ if over == carrier => {}
                Some((_, than, d)) if (d.good, *than) < (detour.good, score) => (*than, *d) = (score, detour),
                Some(_) => {}
                None => best.push((over, score, detour)),
            }
        }
        best.sort_by(|(a, x, d), (b, y, e)| {
            (e.good, b.is_some()).cmp(&(d.good, a.is_some())).then(y.total_cmp(x))
        });
        best.into_iter().map(|(_, _, d)| d).collect()
    }

    /// What the packets of a host's protocol come over; none if that is its own affair, as where its endpoint says more.
    pub(crate) fn carrier(&self, host: PeerIx, proto: ProtoIx) -> Option<NetKind> {
        let offer = &self.peers.get(&host)?.offered(proto)?.offer;
        offer.dials.filter(|_| offer.endpoint.is_empty())
    }

    /// The offers over which `receiver` can fetch from `host`.
    fn offers(&self, now: Now, host: PeerIx, receiver: PeerIx) -> impl Iterator<Item = &Offered> {
        let both = self.peers.get(&host).zip(self.peers.get(&receiver));
        let willing = both.filter(|(h, r)| h.gives_to(r) && !h.is_silent(now, receiver));
        willing
            .into_iter()
            .flat_map(move |(h, r)| h.offers.iter().filter(move |o| Board::leads(now, host, h, r, o)))
    }

    /// Whether any way leads from `host` to `receiver`.
    pub(crate) fn leads_to(&self, now: Now, host: PeerIx, receiver: PeerIx) -> bool {
        self.offers(now, host, receiver).next().is_some()
    }

    /// All ways from `host` to `receiver`, with how good they are.
    pub(crate) fn ways(
        &self,
        now: Now,
        host: PeerIx,
        receiver: PeerIx,
        need: Need,
        bytes: u64,
    ) -> Vec<(f64, Route)> {
        let way = |o: &Offered| {
            let expected = self.protocols.expect(now, o.proto, &o.arm);
            (expected.score(need, bytes), Route { proto: o.proto, expected })
        };
        self.offers(now, host, receiver).map(way).collect()
    }

    /// The only protocol over which `receiver` can fetch from `host`, if there is just one: none need be compared.
    fn only(&self, now: Now, host: PeerIx, receiver: PeerIx) -> Option<ProtoIx> {
        let mut offers = self.offers(now, host, receiver);
        offers.next().filter(|_| offers.next().is_none()).map(|o| o.proto)
    }

    /// The protocol of [`Board::route`].
    pub(crate) fn protocol(
        &mut self,
        now: Now,
        host: PeerIx,
        receiver: PeerIx,
        need: Need,
        bytes: u64,
    ) -> Option<ProtoIx> {
        match self.only(now, host, receiver) {
            Some(proto) => {
                let r = self.peers.get(&receiver)?;
                self.may_use(now, host, r, receiver, proto, need).then_some(proto)
            }
            None => Some(self.route(now, host, receiver, need, bytes)?.proto),
        }
    }

    pub(crate) fn source(
        &self,
        now: Now,
        id: u64,
        o: &Order,
        host: PeerIx,
        proto: ProtoIx,
    ) -> Option<Source> {
        let life = if o.need == Need::Reserve { reserve::LIFE_MS } else { TICKET_LIFE_MS };
        let pages = PageSet::range(o.first, o.last);
        self.source_of(now, id, o.media, o.receiver, (host, proto), pages, o.need, None, life)
    }

    /// The number of the next assignment.
    pub(crate) fn next_run(&mut self) -> u64 {
        self.last_run += 1;
        self.last_run
    }

    /// `way`: a host over a protocol; `life`: of the ticket, in milliseconds.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn source_of(
        &self,
        now: Now,
        id: u64,
        media: MediaIx,
        receiver: PeerIx,
        (host, proto): (PeerIx, ProtoIx),
        pages: PageSet,
        need: Need,
        rate: Option<u64>,
        life: u64,
    ) -> Option<Source> {
        let (h, r, m) = (self.peers.get(&host)?, self.peers.get(&receiver)?, self.media.get(&media)?);
        let offer = &h.offered(proto)?.offer;
        let tell = |ip| reach::may_tell(ip, h.ip(), r.ip());
        let proved = h.reach.iter().filter(|a| a.proof == Proof::Proved && Some(a.addr.kind) == offer.dials);
        let mut addrs: Vec<_> = proved.map(|a| a.addr).filter(|a| tell(a.at.ip())).collect();
        // The nearest first.
        addrs.sort_by_key(|a| match Scope::of(a.at.ip()) {
            Scope::Loopback => 0,
            Scope::Private => 1,
            _ => 2,
        });
        let ticket = h.ticket_key.issue(&TicketBody {
            tracker: self.config.tracker,
            epoch: self.config.epoch,
            assignment: id,
            receiver: r.key,
            host: h.key,
            media: m.id,
            version: m.manifest.version,
            pages,
            protocol: offer.name.clone(),
            rate,
            expiry: self.wall(now).saturating_add(life),
            need,
        });
        let host = HostAddr {
            key: h.key,
            protocol: offer.name.clone(),
            addrs,
            endpoint: offer.endpoint.clone(),
            abilities: offer.abilities,
        };
        Some(Source { host, dial: Dial::Receiver, ticket })
    }

    /// Carries out an order: claims its pages, counts its bytes, and queues the assignment for its receiver. None if it
    /// cannot be (somebody is gone, or the host does not hold the pages).
    pub(crate) fn issue(&mut self, now: Now, order: &Order) -> Option<u64> {
        let id = self.last_run + 1;
        let m = self.media.get(&order.media)?;
        let conn = self.peers.get(&order.receiver)?.conn?;
        let holds = |h: PeerIx| m.members.get(&h).is_some_and(|x| x.holds.all(order.first, order.last));
        let fits = order.first <= order.last && order.last < m.pages() && order.host != order.receiver;
        if !fits || !holds(order.host) || !m.members.get(&order.receiver).is_some_and(Member::receives) {
            debug_assert!(false, "an order that cannot be carried out: {order:?}");
            return None;
        }
        let source = self.source(now, id, order, order.host, order.proto)?;
        let stand_ins: Vec<_> = order
            .stand_ins
            .iter()
            .filter(|(h, p)| (*h, *p) != (order.host, order.proto) && *h != order.receiver && holds(*h))
            .filter_map(|(h, p)| Some((*h, *p, self.source(now, id, order, *h, *p)?)))
            .collect();
        let bytes = m.table.bytes_of(order.first, order.last);
        let (media_id, version, proto) = (m.id, m.manifest.version, order.proto);
        let mut hosts = vec![(order.host, proto, source.host.key)];
        hosts.extend(stand_ins.iter().map(|(h, p, s)| (*h, *p, s.host.key)));
        let up = &self.peers.get(&order.host)?.up;
        let behind = if order.need == Need::Urgent { up.urgent } else { up.bytes };
        let wait = up.eta(bytes, order.need).min(8.0);
        let venture = order.need >= Need::Bulk && self.is_venture(order.host, order.receiver, proto);
        let free = self.is_free_to_venture(order.host);
        let venture = venture.then_some(if free { Venture::Free } else { Venture::Counted });
        let lapse = if venture.is_some() { PATIENCE } else { LAPSE } + Duration::from_secs_f64(wait);
        self.note(now, id, order);
        self.last_run = id;
        let host = self.peers.get_mut(&order.host)?;
        if venture != Some(Venture::Free) {
            host.up.begin(now, bytes, order.need);
        }
        host.serving.push(id);
        host.offers.iter_mut().filter(|o| o.proto == proto).for_each(|o| o.tried = true);
        if let Some(of) = venture {
            self.count_venture(order.host, order.receiver, of, true);
        }
        if venture != Some(Venture::Free) {
            self.peers.get_mut(&order.receiver)?.down.begin(now, bytes, order.need);
        }
        self.give(now, order.receiver, bytes as f64);
        let m = self.media.get_mut(&order.media)?;
        m.claim(order.receiver, order.first, order.last);
        m.running += 1;
        if let Some(member) = m.members.get_mut(&order.receiver) {
            member.running.push(Fetch { id, host: order.host, first: order.first, last: order.last });
            member.fed = now;
            member.told = None;
        }
        let tried = |(peer, proto, key)| Tried { peer, key, proto, served: 0, credited: 0, reported: false };
        let run = Run {
            media: order.media,
            version,
            receiver: order.receiver,
            hosts: hosts.into_iter().map(tried).collect(),
            with: 0,
            first: order.first,
            last: order.last,
            need: order.need,
            bytes,
            acked: 0,
            behind,
            made: now,
            progress: None,
            coming: None,
            lapse,
            deadline: order.deadline,
            state: State::Runs,
            aside: venture == Some(Venture::Free),
            apart: venture == Some(Venture::Free),
            venture,
            met: false,
            drips: false,
            hedge: order.hedge,
            done: None,
            chased_by: None,
        };
        self.runs.insert(id, run);
        let look = if order.need == Need::Urgent { LOOK / 3 } else { LOOK };
        self.at(now + look, Timer::Look(id));
        self.totals.assigned += 1;
        self.totals.running += 1;
        if let Some(p) = self.protocols.get_mut(proto) {
            p.assigned += 1;
        }
        if order.need >= Need::Bulk {
            self.protocols.tried(now, proto);
        }
        // What was to be told of it is no longer true.
        self.shortages.get_mut(&conn).into_iter().for_each(|s| s.retain(|s| s.media != media_id));
        let ms = |d: Duration| u32::try_from(d.as_millis()).unwrap_or(u32::MAX);
        self.assign.entry(conn).or_default().push(Assignment {
            id,
            media: media_id,
            pages: PageSet::range(order.first, order.last),
            need: order.need,
            source,
            stand_ins: stand_ins.into_iter().map(|(_, _, s)| s).collect(),
            deadline: order.deadline.map(|d| ms(d.since(now)).max(1)),
            lapse: ms(lapse),
        });
        self.refresh(now, order.media, order.host);
        self.refresh(now, order.media, order.receiver);
        Some(id)
    }

    /// Whether `host` holds `first ..= last` of `media`.
    pub(crate) fn holds(&self, media: MediaIx, host: PeerIx, first: PageNo, last: PageNo) -> bool {
        self.member(media, host).is_some_and(|m| m.holds.all(first, last))
    }
}
