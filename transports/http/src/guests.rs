//! Places for requests without a ticket: half of all, and half of those of one address, so that nobody without a ticket can shut out
//! those who have one, nor those behind the same NAT.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many are served, in all and by address.
#[derive(Debug, Default)]
struct Count {
    all: usize,
    each: HashMap<IpAddr, usize>,
}

/// The places.
#[derive(Debug)]
pub(crate) struct Guests {
    all: usize,
    each: usize,
    count: Mutex<Count>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    guests: Arc<Guests>,
    ip: IpAddr,
}

impl Guests {
    /// Of so many connections in all, and from one address.
    pub(crate) fn new(connections: usize, per_ip: usize) -> Arc<Guests> {
        let (all, each) = (connections.div_ceil(2), per_ip.div_ceil(2));
        Arc::new(Guests { all, each, count: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a request from `ip`, if there is one. On loopback all may be on one machine.
    pub(crate) fn enter(self: &Arc<Guests>, ip: IpAddr) -> Option<Guest> {
        let ip = ip.to_canonical();
        let mut count = self.lock();
        let mine = count.each.get(&ip).copied().unwrap_or(0);
        if count.all >= self.all || mine >= self.each && !ip.is_loopback() {
            return None;
        }
        count.all += 1;
        count.each.insert(ip, mine + 1);
        Some(Guest { guests: self.clone(), ip })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut count = self.guests.lock();
        count.all = count.all.saturating_sub(1);
        if let Some(n) = count.each.get_mut(&self.ip) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                count.each.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_half_of_its_places_and_all_have_half_of_all() {
        let guests = Guests::new(20, 8);
        let ip = |n: u8| IpAddr::from([203, 0, 113, n]);
        let mut one: Vec<_> = (0..4).filter_map(|_| guests.enter(ip(1))).collect();
        assert_eq!(one.len(), 4);
        assert!(guests.enter(ip(1)).is_none(), "four of eight are for those with tickets");
        assert!(guests.enter("::ffff:203.0.113.1".parse().unwrap()).is_none(), "it is the same address");
        one.pop();
        assert!(guests.enter(ip(1)).is_some_and(|_| true), "a place that is free again");
        let here = IpAddr::from([127, 0, 0, 1]);
        let others: Vec<_> = (0..20).filter_map(|_| guests.enter(here)).collect();
        assert_eq!((one.len(), others.len()), (3, 7), "ten in all");
        drop((one, others));
        let count = guests.lock();
        assert!(count.all == 0 && count.each.is_empty(), "{count:?}");
    }
}
