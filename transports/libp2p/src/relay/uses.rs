//! Who has a reservation or a circuit at a relay, and who goes or is refused so that nobody can keep others from theirs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use iceshare::icet::Prefix;
use iceshare::net::{Place, Served, SlotLimits, Slots};
use libp2p::{Multiaddr, PeerId, relay};
use tokio_util::sync::CancellationToken;

use super::Limits;
use crate::gate::{self, Places};
use crate::wire;

/// How long libp2p waits for the called end of a circuit.
const ASKED: Duration = Duration::from_secs(60);

/// Circuits by the network of who asked for them. A network may have half of what is still free at most (dynamic thresholds:
/// Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998), so that there is room for
/// others however many circuits one wants.
#[derive(Debug)]
struct Shares {
    all: usize,
    /// Not answered yet: nobody says when such a circuit fails with its connection.
    asked: Vec<(PeerId, Prefix, Instant)>,
    open: HashMap<Prefix, usize>,
}

impl Shares {
    fn new(all: usize) -> Shares {
        Shares { all, asked: Vec::new(), open: HashMap::new() }
    }

    /// Whether a peer may have one more; counted from then on.
    fn ask(&mut self, peer: PeerId, network: Prefix, now: Instant) -> bool {
        self.asked.retain(|(.., since)| now.saturating_duration_since(*since) < ASKED);
        let used = self.open.values().sum::<usize>() + self.asked.len();
        let asked = self.asked.iter().filter(|(_, of, _)| *of == network).count();
        let mine = self.open.get(&network).copied().unwrap_or(0) + asked;
        let may = mine * 2 < self.all.saturating_sub(used);
        if may {
            self.asked.push((peer, network, now));
        }
        may
    }

    /// It was not to be.
    fn failed(&mut self, peer: &PeerId) -> Option<Prefix> {
        let at = self.asked.iter().position(|(of, ..)| of == peer)?;
        Some(self.asked.swap_remove(at).1)
    }

    /// A circuit stands.
    fn opened(&mut self, peer: &PeerId) -> Option<Prefix> {
        let network = self.failed(peer)?;
        *self.open.entry(network).or_default() += 1;
        Some(network)
    }

    fn closed(&mut self, network: Prefix) {
        if let Entry::Occupied(mut n) = self.open.entry(network) {
            *n.get_mut() -= 1;
            if *n.get() == 0 {
                n.remove();
            }
        }
    }
}

#[derive(Debug)]
struct Reservation {
    place: Arc<Place>,
    /// Cancelled when it ends.
    end: CancellationToken,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// What keeps both ends' connections and reservations while a circuit lasts.
#[derive(Debug)]
struct Circuit {
    network: Option<Prefix>,
    _served: Vec<Served>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Uses {
    places: Places,
    slots: Slots,
    reserved: HashMap<PeerId, Reservation>,
    /// Who came when all others had circuits: they get places as soon as circuits end.
    beyond: Vec<PeerId>,
    /// Until others have their reservations, or they end.
    taken: FuturesUnordered<BoxFuture<'static, Option<PeerId>>>,
    circuits: HashMap<(PeerId, PeerId), Vec<Circuit>>,
    shares: Arc<Mutex<Shares>>,
}

fn lock(shares: &Mutex<Shares>) -> MutexGuard<'_, Shares> {
    shares.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Uses {
    /// `places`: of the connections.
    pub(super) fn new(limits: Limits, places: Places) -> Uses {
        let for_reservations = SlotLimits { all: limits.reservations, each: limits.per_ip };
        Uses {
            places,
            slots: Slots::new(for_reservations),
            reserved: HashMap::new(),
            beyond: Vec::new(),
            taken: FuturesUnordered::new(),
            circuits: HashMap::new(),
            shares: Arc::new(Mutex::new(Shares::new(limits.circuits))),
        }
    }

    /// Says who may have one more circuit.
    pub(super) fn limiter(&self) -> Box<dyn relay::RateLimiter> {
        let shares = self.shares.clone();
        Box::new(move |peer, addr: &Multiaddr, now| {
            let network = wire::socket_of(addr).map(|(ip, ..)| Prefix::of(ip));
            network.is_none_or(|network| lock(&shares).ask(peer, network, now))
        })
    }

    /// Takes note.
    pub(super) fn hear(&mut self, event: &relay::Event) {
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id, .. } => {
                // Its connection goes for newcomers only after those of peers without reservation.
                drop(self.places.serve(src_peer_id));
                if let Some(ip) = self.places.ip(src_peer_id) {
                    self.reserve(*src_peer_id, ip);
                }
            }
            relay::Event::ReservationTimedOut { src_peer_id } => self.ended(src_peer_id),
            // Said of every connection's end.
            relay::Event::ReservationClosed { src_peer_id } if self.places.ip(src_peer_id).is_none() => {
                self.ended(src_peer_id);
            }
            relay::Event::CircuitReqAccepted { src_peer_id, dst_peer_id } => {
                let ends = [src_peer_id, dst_peer_id];
                let mut served: Vec<_> = ends.iter().flat_map(|peer| self.places.serve(peer)).collect();
                served
                    .extend(ends.iter().filter_map(|peer| Some(self.reserved.get(peer)?.place.serve(true))));
                let network = lock(&self.shares).opened(src_peer_id);
                let circuit = Circuit { network, _served: served };
                self.circuits.entry((*src_peer_id, *dst_peer_id)).or_default().push(circuit);
            }
            // That status says that it was not even counted, or that the called end refused: then its time runs out.
            relay::Event::CircuitReqDenied { src_peer_id, status, .. }
                if !matches!(status, relay::StatusCode::ResourceLimitExceeded) =>
            {
                lock(&self.shares).failed(src_peer_id);
            }
            relay::Event::CircuitClosed { src_peer_id, dst_peer_id, .. } => {
                if let Entry::Occupied(mut all) = self.circuits.entry((*src_peer_id, *dst_peer_id)) {
                    if let Some(network) = all.get_mut().pop().and_then(|circuit| circuit.network) {
                        lock(&self.shares).closed(network);
                    }
                    if all.get().is_empty() {
                        all.remove();
                    }
                }
                for peer in std::mem::take(&mut self.beyond) {
                    if let Some(ip) = self.places.ip(&peer) {
                        self.reserve(peer, ip);
                    }
                }
            }
            _ => {}
        }
    }

    fn ended(&mut self, peer: &PeerId) {
        self.reserved.remove(peer);
        self.beyond.retain(|p| p != peer);
    }

    fn reserve(&mut self, peer: PeerId, ip: IpAddr) {
        if self.reserved.contains_key(&peer) {
            return;
        }
        let Some(slot) = self.slots.enter(ip) else {
            if !self.beyond.contains(&peer) {
                self.beyond.push(peer);
            }
            return;
        };
        let (place, end) = (Place::new(slot), CancellationToken::new());
        // Who was called once has no more right to it than others: anybody can have itself called.
        drop(place.serve(true));
        self.reserved.insert(peer, Reservation { place: place.clone(), end: end.clone() });
        self.taken.push(gate::until_taken(place, end, peer).boxed());
    }

    /// Waits until a newcomer has somebody's reservation: that peer is to be disconnected.
    pub(super) async fn displaced(&mut self) -> PeerId {
        loop {
            match self.taken.next().await {
                Some(Some(peer)) => {
                    self.reserved.remove(&peer);
                    return peer;
                }
                Some(None) => {}
                None => std::future::pending::<()>().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(n: u8) -> Prefix {
        Prefix::of([198, 51, n, 7].into())
    }

    fn most(shares: &mut Shares, n: u8, now: Instant) -> usize {
        let peer = PeerId::random();
        (0..1000).take_while(|_| shares.ask(peer, network(n), now) && shares.opened(&peer).is_some()).count()
    }

    #[tokio::test]
    async fn the_network_with_most_reservations_makes_room() {
        let limits = Limits { reservations: 4, ..Limits::default() };
        let mut uses = Uses::new(limits, Places::default());
        let ip = |n: u8, host: u8| IpAddr::from([198, 51, n, host]);
        let honest = PeerId::random();
        uses.reserve(honest, ip(1, 1));
        for host in 0..100 {
            uses.reserve(PeerId::random(), ip(2, host));
        }
        for _ in 0..97 {
            assert_ne!(uses.displaced().await, honest);
        }
        assert!(uses.displaced().now_or_never().is_none());
        assert_eq!((uses.reserved.len(), uses.slots.len()), (4, 4));
        // It has one already.
        uses.reserve(honest, ip(1, 1));
        assert_eq!(uses.slots.len(), 4);
    }

    #[tokio::test]
    async fn who_is_beyond_the_places_gets_one_when_a_circuit_ends() {
        let limits = Limits { reservations: 2, ..Limits::default() };
        let mut uses = Uses::new(limits, Places::default());
        let [a, b, c, d] = [1, 2, 3, 4].map(|_| PeerId::random());
        let ip = IpAddr::from([198, 51, 100, 7]);
        uses.reserve(a, ip);
        uses.reserve(b, ip);
        uses.hear(&relay::Event::CircuitReqAccepted { src_peer_id: a, dst_peer_id: b });
        uses.reserve(c, ip);
        uses.reserve(d, ip);
        assert_eq!((uses.reserved.len(), uses.beyond.len()), (2, 2));
        assert!(uses.displaced().now_or_never().is_none(), "nobody has to go while they have circuits");
        uses.hear(&relay::Event::ReservationTimedOut { src_peer_id: d });
        assert_eq!(uses.beyond, [c], "nothing is kept of who is gone");
        // (Nobody has a connection here: whoever is gone gets none.)
        uses.hear(&relay::Event::CircuitClosed { src_peer_id: a, dst_peer_id: b, error: None });
        assert!(uses.beyond.is_empty() && uses.displaced().now_or_never().is_none());
        uses.reserve(c, ip);
        let gone = uses.displaced().await;
        assert!(gone == a || gone == b);
        assert_eq!(uses.reserved.len(), 2);
    }

    #[test]
    fn one_network_leaves_circuits_to_others() {
        let now = Instant::now();
        let mut shares = Shares::new(256);
        let had: Vec<_> = (0..12).map(|n| most(&mut shares, n, now)).collect();
        assert_eq!(had, [86, 57, 38, 25, 17, 11, 8, 5, 3, 2, 2, 1]);
        (0..86).for_each(|_| shares.closed(network(0)));
        assert_eq!(most(&mut shares, 20, now), 29, "what one gives back others may have");
    }

    #[test]
    fn circuits_that_nobody_answers_count_until_their_time_is_over() {
        let now = Instant::now();
        let mut shares = Shares::new(6);
        let peer = PeerId::random();
        assert!(shares.ask(peer, network(1), now));
        assert!(shares.ask(peer, network(1), now + ASKED / 2));
        assert!(!shares.ask(peer, network(1), now + ASKED / 2));
        assert!(shares.ask(peer, network(1), now + ASKED));
        assert_eq!(shares.failed(&peer), Some(network(1)));
        assert!(shares.ask(peer, network(1), now + ASKED));
        assert_eq!(shares.failed(&PeerId::random()), None);
    }
}
