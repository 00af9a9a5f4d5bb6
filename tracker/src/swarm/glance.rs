//! What is known at a glance of a host with room: enough to choose between many, of which few are then looked up.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use icet::{Now, Prefix};

use super::Nearness;
use super::bits::OwnHasher;
use super::board::UNKNOWN_RATE;
use super::learn::Protocols;
use super::peer::Peer;

/// How long it is believed how surely something comes of a host: it costs some exponentials to tell, and changes slowly.
const BELIEVED: Duration = Duration::from_millis(500);

/// Where a peer is seen, so far as it matters who is near it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    address: u32,
    network: u32,
}

fn short(x: impl Hash) -> u32 {
    let mut h = OwnHasher::default();
    x.hash(&mut h);
    // The upper half.
    u32::try_from(h.finish() >> 32).unwrap_or_default()
}

impl Place {
    pub(crate) fn of(ip: IpAddr) -> Place {
        Place { address: short(ip), network: short(Prefix::of(ip)) }
    }

    /// How near two are. Of four thousand million strangers one is taken for near.
    pub(crate) fn nearness(self, other: Place) -> Nearness {
        if self == other {
            Nearness::Address
        } else if self.network == other.network {
            Nearness::Network
        } else {
            Nearness::Elsewhere
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Glance {
    /// How good it is for bulk, nearness aside: by trust, by how surely something comes of it, by rate, and by room.
    pub(crate) worth: f32,
    pub(crate) place: Place,
}

impl Glance {
    pub(crate) fn of(now: Now, p: &mut Peer, protocols: &Protocols) -> Glance {
        if p.surety.0.is_none_or(|at| now.since(at) >= BELIEVED) {
            let offers = p.offers.iter().filter(|o| o.offer.serves);
            let success = offers.map(|o| protocols.expect(now, o.proto, &o.arm).success);
            p.surety = (Some(now), p.trust(now) * success.fold(0.0, f64::max));
        }
        let rate = p.up.known_rate().unwrap_or(UNKNOWN_RATE);
        let window = p.up.window();
        let free = p.up.room() as f64 / window as f64;
        // In range: a rate's root.
        #[allow(clippy::cast_possible_truncation)]
        let worth = (p.surety.1 * rate.sqrt() * (0.3 + free)) as f32;
        Glance { worth, place: p.place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_tell_who_is_near_as_addresses_do() {
        let ip = |s: &str| s.parse::<IpAddr>().unwrap();
        for a in
            ["192.0.2.1", "192.0.2.200", "192.0.3.1", "2001:db8:1:2::1", "2001:db8:1:3::1", "2001:db8:2::1"]
        {
            for b in ["192.0.2.1", "192.0.3.7", "2001:db8:1:3::1", "127.0.0.1"] {
                let by_place = Place::of(ip(a)).nearness(Place::of(ip(b)));
                assert_eq!(by_place, Nearness::of(ip(a), ip(b)), "{a} {b}");
            }
        }
    }
}
