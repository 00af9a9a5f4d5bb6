//! Token buckets, per key and per address prefix.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use icet::{Now, Prefix};

use super::ConnId;

/// A token bucket: filled at a rate, up to a burst.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    level: f64,
    at: Now,
}

impl Bucket {
    pub(crate) fn full(burst: f64, now: Now) -> Bucket {
        Bucket { level: burst, at: now }
    }

    /// Takes `n` tokens of a bucket that fills by `rate` a second up to `burst`.
    ///
    /// # Errors
    /// How long to wait until there are enough. Nothing was taken.
    pub(crate) fn take(&mut self, now: Now, rate: f64, burst: f64, n: f64) -> Result<(), Duration> {
        self.level = (self.level + rate * now.since(self.at).as_secs_f64()).min(burst);
        self.at = self.at.max(now);
        // What exceeds the burst would never be let through: it costs all there is.
        let n = n.min(burst);
        if self.level >= n {
            self.level -= n;
            Ok(())
        } else {
            Err(Duration::from_secs_f64(((n - self.level) / rate.max(1e-6)).min(3600.0)))
        }
    }
}

/// Sessions that are looked at, to find one that makes room for another.
const LOOKED_AT: usize = 256;

#[derive(Debug)]
struct Neighbours {
    sessions: BTreeSet<ConnId>,
    /// Up to where they were looked at last.
    looked: ConnId,
    messages: Bucket,
    dials: Bucket,
}

/// What is counted by address.
#[derive(Debug, Default)]
pub(crate) struct ByAddress {
    prefixes: HashMap<Prefix, Neighbours>,
    dialed: HashMap<IpAddr, Bucket>,
}

impl ByAddress {
    fn of(&mut self, now: Now, q: &super::Quotas, ip: IpAddr) -> &mut Neighbours {
        self.prefixes.entry(Prefix::of(ip)).or_insert_with(|| Neighbours {
            sessions: BTreeSet::new(),
            looked: ConnId(0),
            messages: Bucket::full(2.0 * q.prefix_messages_per_second, now),
            dials: Bucket::full(q.dials_per_prefix_per_minute, now),
        })
    }

    /// Counts a session in. False: there are too many from there, unless one of [`ByAddress::some_of`] goes.
    pub(crate) fn enter(&mut self, now: Now, q: &super::Quotas, ip: IpAddr, conn: ConnId) -> bool {
        let here = self.of(now, q, ip);
        if here.sessions.len() >= q.sessions_per_prefix && !ip.is_loopback() {
            return false;
        }
        here.sessions.insert(conn);
        true
    }

    /// Counts a session out, if it was counted in.
    pub(crate) fn leave(&mut self, ip: IpAddr, conn: ConnId) {
        if let Some(n) = self.prefixes.get_mut(&Prefix::of(ip)) {
            n.sessions.remove(&conn);
        }
    }

    /// Some sessions of the neighbourhood, in time others than before.
    pub(crate) fn some_of(&mut self, ip: IpAddr) -> Vec<ConnId> {
        let Some(n) = self.prefixes.get_mut(&Prefix::of(ip)) else { return Vec::new() };
        let after = (Bound::Excluded(n.looked), Bound::Unbounded);
        let turn = n.sessions.range(after).chain(n.sessions.range(..=n.looked));
        let some: Vec<ConnId> = turn.take(LOOKED_AT).copied().collect();
        n.looked = some.last().copied().unwrap_or(n.looked);
        some
    }

    /// Messages a second that one session of the neighbourhood may always send, whatever the others do.
    pub(crate) fn share(&self, q: &super::Quotas, ip: IpAddr) -> f64 {
        let sessions = self.prefixes.get(&Prefix::of(ip)).map_or(1, |n| n.sessions.len().max(1));
        q.prefix_messages_per_second / sessions as f64
    }

    /// Takes tokens for messages.
    pub(crate) fn message(
        &mut self,
        now: Now,
        q: &super::Quotas,
        ip: IpAddr,
        n: f64,
    ) -> Result<(), Duration> {
        if ip.is_loopback() {
            return Ok(());
        }
        let rate = q.prefix_messages_per_second;
        self.of(now, q, ip).messages.take(now, rate, 2.0 * rate, n)
    }

    /// Takes a token for a dial-back to `ip`.
    pub(crate) fn dial(&mut self, now: Now, q: &super::Quotas, ip: IpAddr) -> Result<(), Duration> {
        let burst = q.dials_per_ip_per_minute;
        let one = self.dialed.entry(ip).or_insert_with(|| Bucket::full(burst, now));
        one.take(now, burst / 60.0, burst, 1.0)?;
        if ip.is_loopback() {
            return Ok(());
        }
        let burst = q.dials_per_prefix_per_minute;
        self.of(now, q, ip).dials.take(now, burst / 60.0, burst, 1.0)
    }

    /// Forgets what has not been used for two minutes: all its buckets are full again.
    pub(crate) fn sweep(&mut self, now: Now) {
        let old = |b: &Bucket| now.since(b.at) > Duration::from_secs(120);
        self.prefixes.retain(|_, n| !n.sessions.is_empty() || !old(&n.messages) || !old(&n.dials));
        self.dialed.retain(|_, b| !old(b));
    }

    /// Prefixes and addresses that are remembered.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.prefixes.len() + self.dialed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut b = Bucket::full(3.0, Now(0));
        for _ in 0..3 {
            assert!(b.take(Now(0), 2.0, 3.0, 1.0).is_ok());
        }
        let wait = b.take(Now(0), 2.0, 3.0, 1.0).unwrap_err();
        assert_eq!(wait, Duration::from_millis(500));
        assert!(b.take(Now(499_000), 2.0, 3.0, 1.0).is_err());
        assert!(b.take(Now(500_000), 2.0, 3.0, 1.0).is_ok());
    }

    #[test]
    fn prefixes_are_24_and_48_bits() {
        let p = |s: &str| Prefix::of(s.parse().unwrap());
        assert_eq!(p("192.0.2.1"), p("192.0.2.200"));
        assert_ne!(p("192.0.2.1"), p("192.0.3.1"));
        assert_eq!(p("::ffff:192.0.2.1"), p("192.0.2.9"));
        assert_eq!(p("2001:db8:1:2::1"), p("2001:db8:1:3::1"));
        assert_ne!(p("2001:db8:1::1"), p("2001:db8:2::1"));
    }

    #[test]
    fn what_is_not_used_is_forgotten() {
        let (mut a, q) = (ByAddress::default(), super::super::Quotas::default());
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(a.enter(Now(0), &q, ip, ConnId(1)));
        assert!(a.dial(Now(0), &q, ip).is_ok());
        a.leave(ip, ConnId(1));
        a.sweep(Now(1));
        assert_eq!(a.len(), 2);
        a.sweep(Now(121_000_000));
        assert_eq!(a.len(), 0);
    }
}
