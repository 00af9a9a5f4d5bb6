//! How large datagrams may be: a search from 1200 bytes up (RFC 8899).

use std::time::Duration;

use iceshare::icet::Now;

use crate::wire::MIN_DATAGRAM;

/// Sizes that paths are likely to have: Ethernet under IPv6 and IPv4.
const LIKELY: [usize; 2] = [1452, 1472];
/// And where all of a path has jumbo frames: tried once, if much is sent.
const JUMBO: usize = 8952;
const MUCH: u64 = 500;
/// The search ends when it knows the size within so many bytes.
const CLOSE: usize = 16;
/// Probes of one size.
const PROBES: u8 = 3;
/// Larger datagrams than 1200 bytes lost in a row that mean that the path carries them no longer.
const BLACK_HOLE: u8 = 3;
/// After that the search begins again.
const AGAIN: Duration = Duration::from_secs(60);

/// The state of the search.
#[derive(Debug, Clone)]
pub(crate) struct Mtu {
    /// Largest size that was acknowledged.
    current: usize,
    /// Largest that both ends take.
    max: usize,
    /// Smallest size that failed, if one did.
    failed: Option<usize>,
    /// Packets that were acknowledged.
    count: u64,
    /// The probe on its way: packet number and size.
    probe: Option<(u64, usize)>,
    /// Probes of this size that were lost.
    lost: u8,
    /// Large packets lost since one was acknowledged.
    black: u8,
    /// Not before.
    after: Now,
}

impl Mtu {
    pub(crate) fn new(max: usize) -> Mtu {
        let max = max.max(MIN_DATAGRAM);
        Mtu {
            current: MIN_DATAGRAM,
            max,
            failed: None,
            count: 0,
            probe: None,
            lost: 0,
            black: 0,
            after: Now(0),
        }
    }

    pub(crate) fn current(&self) -> usize {
        self.current
    }

    /// The size to probe now, if one is to be probed.
    pub(crate) fn next_probe(&self, now: Now) -> Option<usize> {
        if self.probe.is_some() || now < self.after {
            return None;
        }
        let below = |n: &&usize| **n > self.current && **n <= self.max && self.failed.is_none_or(|f| **n < f);
        if let Some(likely) = LIKELY.iter().find(below) {
            return Some(*likely);
        }
        if self.count >= MUCH && below(&&JUMBO) {
            return Some(JUMBO);
        }
        // Sizes between are worth a search only where a likely one failed.
        let top = self.failed.filter(|f| *f < JUMBO)?;
        (top > self.current + CLOSE).then_some(self.current + (top - self.current) / 2)
    }

    pub(crate) fn probed(&mut self, number: u64, size: usize) {
        self.probe = Some((number, size));
    }

    /// A packet was acknowledged.
    pub(crate) fn acked(&mut self, number: u64, size: usize) {
        self.count += 1;
        if self.probe.is_some_and(|(n, _)| n == number) {
            self.probe = None;
            self.lost = 0;
            self.current = self.current.max(size);
        }
        if size > MIN_DATAGRAM {
            self.black = 0;
        }
    }

    /// A packet was lost. Says whether it was the probe (and so no sign of congestion).
    pub(crate) fn lost(&mut self, now: Now, number: u64, size: usize) -> bool {
        if let Some((n, size)) = self.probe
            && n == number
        {
            self.probe = None;
            self.lost += 1;
            if self.lost >= PROBES || size == JUMBO {
                self.lost = 0;
                self.failed = Some(size);
            }
            return true;
        }
        // What was sent before the size fell says no more of it.
        if size > MIN_DATAGRAM && self.current > MIN_DATAGRAM {
            self.black += 1;
            if self.black >= BLACK_HOLE {
                *self = Mtu { after: now + AGAIN, ..Mtu::new(self.max) };
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches on a path that carries `path` bytes; what it ends with, and after how many probes.
    fn search(path: usize, max: usize) -> (usize, usize) {
        let (mut mtu, mut probes) = (Mtu { count: MUCH, ..Mtu::new(max) }, 0);
        while let Some(size) = mtu.next_probe(Now(0)) {
            probes += 1;
            assert!(size <= max && probes < 100);
            mtu.probed(probes as u64, size);
            assert_eq!(mtu.next_probe(Now(0)), None, "one at a time");
            if size <= path {
                mtu.acked(probes as u64, size);
            } else {
                assert!(mtu.lost(Now(0), probes as u64, size));
            }
        }
        (mtu.current(), probes)
    }

    #[test]
    fn what_the_path_carries_is_found() {
        assert_eq!(search(1472, 1472), (1472, 2));
        assert_eq!(search(65_507, 8952), (8952, 3));
        assert_eq!(search(1200, 1200), (1200, 0));
        assert_eq!(search(8000, 8952), (1472, 3));
        for path in [1200, 1232, 1300, 1400, 1451, 1460] {
            let (found, probes) = search(path, 8952);
            assert!(found <= path && found + CLOSE > path && probes < 30, "{path}: {found} after {probes}");
        }
    }

    #[test]
    fn all_that_was_under_way_may_be_lost() {
        let mut mtu = Mtu { current: JUMBO, ..Mtu::new(JUMBO) };
        for number in 0..1000 {
            mtu.lost(Now(0), number, JUMBO);
        }
        assert_eq!((mtu.current, mtu.black), (MIN_DATAGRAM, 0));
    }

    #[test]
    fn a_path_that_shrinks_is_noticed_and_looked_at_again() {
        let mut mtu = Mtu::new(8952);
        assert_eq!(mtu.next_probe(Now(0)), Some(1452));
        for size in [1452, 1472] {
            mtu.probed(size as u64, size);
            mtu.acked(size as u64, size);
        }
        assert_eq!(mtu.next_probe(Now(0)), None, "not before much was sent");
        assert!(!mtu.lost(Now(0), 1, 1472) && !mtu.lost(Now(0), 2, 1200) && !mtu.lost(Now(0), 3, 1472));
        mtu.acked(4, 1472);
        for n in 5..8 {
            assert_eq!(mtu.current(), 1472);
            assert!(!mtu.lost(Now(9), n, 1472));
        }
        assert_eq!((mtu.current(), mtu.next_probe(Now(10))), (1200, None));
        assert_eq!(mtu.next_probe(Now(9) + AGAIN), Some(1452));
    }
}
