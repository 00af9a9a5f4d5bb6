//! How often strangers are heard.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use iceshare::icet::Now;

const SECOND: Duration = Duration::from_secs(1);

/// So many in each second.
#[derive(Debug)]
pub(super) struct Bucket {
    most: u32,
    left: u32,
    until: Now,
}

impl Bucket {
    pub(super) fn new(most: u32) -> Bucket {
        Bucket { most, left: most, until: Now::ZERO }
    }

    pub(super) fn take(&mut self, now: Now) -> bool {
        if now >= self.until {
            (self.left, self.until) = (self.most, now + SECOND);
        }
        let some = self.left > 0;
        self.left -= u32::from(some);
        some
    }
}

/// So many in each second from one address. An IPv6 host has a whole /64.
#[derive(Debug)]
pub(super) struct PerAddress {
    most: u32,
    seen: HashMap<IpAddr, u32>,
    until: Now,
}

fn prefix(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}

impl PerAddress {
    pub(super) fn new(most: u32) -> PerAddress {
        PerAddress { most, seen: HashMap::new(), until: Now::ZERO }
    }

    pub(super) fn take(&mut self, now: Now, ip: IpAddr) -> bool {
        if now >= self.until {
            self.seen.clear();
            self.until = now + SECOND;
        }
        if ip.is_loopback() {
            return true;
        }
        let n = self.seen.entry(prefix(ip)).or_default();
        *n += 1;
        *n <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_share() {
        let mut bucket = Bucket::new(3);
        let taken = |b: &mut Bucket, now| (0..10).filter(|_| b.take(now)).count();
        assert_eq!((taken(&mut bucket, Now(5)), taken(&mut bucket, Now(900_000))), (3, 0));
        assert_eq!(taken(&mut bucket, Now(1_000_005)), 3);
        let mut each = PerAddress::new(2);
        let mut from = |ip: &str| (0..10).filter(|_| each.take(Now(0), ip.parse().unwrap())).count();
        assert_eq!([from("192.0.2.1"), from("192.0.2.2"), from("127.0.0.1")], [2, 2, 10]);
        assert_eq!([from("2001:db8::1"), from("2001:db8::2"), from("2001:db8:0:1::1")], [2, 0, 2]);
        each.take(Now(2_000_000), "192.0.2.1".parse().unwrap());
        assert_eq!(each.seen.len(), 1);
    }
}
