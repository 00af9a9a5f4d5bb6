//! Nobody can be aimed: which addresses may be dialed back, and to whom one may be told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use icet::{NetAddr, Now, Prefix, Scope};

use super::DialId;

/// Whether two addresses lie in the same private network, as far as that can be told without its mask.
pub(crate) fn same_private_network(a: IpAddr, b: IpAddr) -> bool {
    fn block4(ip: Ipv4Addr) -> u8 {
        match ip.octets() {
            [10, ..] => 1,
            [172, ..] => 2,
            [192, ..] => 3,
            [169, ..] => 4,
            _ => 5,
        }
    }
    fn block6(ip: Ipv6Addr) -> [u16; 3] {
        let [a, b, c, ..] = ip.segments();
        [a, b, c]
    }
    if Scope::of(a) != Scope::Private || Scope::of(b) != Scope::Private {
        return false;
    }
    match (a.to_canonical(), b.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => block4(a) == block4(b),
        (IpAddr::V6(a), IpAddr::V6(b)) => block6(a) == block6(b),
        _ => false,
    }
}

/// Whether the tracker may dial `addr` on behalf of a peer that it sees at `observed`.
///
/// # Errors
/// Why not, for people.
pub(crate) fn may_dial(addr: NetAddr, observed: IpAddr) -> Result<(), &'static str> {
    let (ip, observed) = (addr.at.ip().to_canonical(), observed.to_canonical());
    if addr.at.port() == 0 {
        return Err("port 0 is no address");
    }
    match Scope::of(ip) {
        Scope::Never => Err("not an address of one peer"),
        Scope::Loopback if observed.is_loopback() => Ok(()),
        Scope::Loopback => Err("a loopback address is for peers on the tracker's own machine"),
        // A peer on the tracker's own machine could dial these itself.
        Scope::Private if observed.is_loopback() || ip == observed || same_private_network(ip, observed) => {
            Ok(())
        }
        Scope::Private => Err("a private address is for peers in the tracker's own private network"),
        Scope::Public if ip != observed && addr.at.port() < 1024 && !observed.is_loopback() => {
            Err("an address that you do not come from needs a port from 1024 on")
        }
        Scope::Public => Ok(()),
    }
}

/// Whether two addresses are of one public network, /24 or /48.
pub(crate) fn neighbours(a: IpAddr, b: IpAddr) -> bool {
    Scope::of(a) == Scope::Public && Prefix::of(a) == Prefix::of(b)
}

/// Whether a receiver is in a host's own network, by where they are seen.
pub(crate) fn near(host: IpAddr, receiver: IpAddr) -> bool {
    let (host, receiver) = (host.to_canonical(), receiver.to_canonical());
    let local = |ip| matches!(Scope::of(ip), Scope::Private | Scope::Loopback);
    host == receiver
        || same_private_network(host, receiver)
        || (local(host) && local(receiver) && (host.is_loopback() || receiver.is_loopback()))
}

/// Whether a proved address of a host seen at `host` may be told to a receiver seen at `receiver`.
pub(crate) fn may_tell(ip: IpAddr, host: IpAddr, receiver: IpAddr) -> bool {
    let (host, receiver) = (host.to_canonical(), receiver.to_canonical());
    // A receiver on loopback is on the machine whose dial-back just worked.
    receiver.is_loopback()
        || match Scope::of(ip) {
            Scope::Public => true,
            Scope::Loopback | Scope::Never => false,
            Scope::Private => {
                host == receiver
                    || (same_private_network(ip, receiver)
                        && (host.is_loopback() || Scope::of(host) == Scope::Private))
            }
        }
}

/// How far the proof of an address has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// To be dialed, not before.
    Waits(Now),
    /// Being dialed.
    Dialing(DialId),
    /// The peer's key answered there.
    Proved,
    /// It did not; counts the failures so far.
    Failed { tries: u32, at: Now },
    /// May not be dialed.
    Refused,
}

/// An announced address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reachable {
    pub(crate) addr: NetAddr,
    pub(crate) proof: Proof,
}

#[cfg(test)]
mod tests {
    use icet::NetKind;

    use super::*;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    fn dial(a: &str, from: &str) -> bool {
        may_dial(NetAddr { kind: NetKind::Udp, at: a.parse().unwrap() }, ip(from)).is_ok()
    }

    #[test]
    fn who_may_have_what_dialed() {
        assert!(dial("127.0.0.1:4000", "127.0.0.1"));
        assert!(!dial("127.0.0.1:4000", "198.51.100.7"));
        assert!(!dial("127.0.0.1:4000", "192.168.1.7"));
        assert!(dial("192.168.1.9:4000", "192.168.1.7"));
        assert!(dial("192.168.1.9:4000", "127.0.0.1"));
        assert!(!dial("10.0.0.9:4000", "192.168.1.7"));
        assert!(!dial("192.168.1.9:4000", "198.51.100.7"));
        assert!(dial("198.51.100.7:80", "198.51.100.7"));
        assert!(!dial("198.51.100.8:80", "198.51.100.7"));
        assert!(dial("198.51.100.8:4000", "198.51.100.7"));
        assert!(!dial("198.51.100.7:0", "198.51.100.7"));
        assert!(!dial("224.0.0.1:4000", "127.0.0.1"));
    }

    #[test]
    fn who_is_near() {
        let near = |host: &str, receiver: &str| near(ip(host), ip(receiver));
        assert!(near("198.51.100.7", "198.51.100.7") && !near("198.51.100.7", "198.51.100.8"));
        assert!(near("192.168.1.9", "192.168.1.10") && !near("192.168.1.9", "10.0.0.1"));
        // One of them on the tracker's own machine.
        assert!(near("192.168.1.9", "127.0.0.1") && near("127.0.0.1", "192.168.1.9"));
        assert!(!near("198.51.100.7", "127.0.0.1") && !near("127.0.0.1", "198.51.100.7"));
        assert!(near("::ffff:198.51.100.7", "198.51.100.7"));
    }

    #[test]
    fn who_may_be_told_what() {
        let tell = |a: &str, host: &str, receiver: &str| may_tell(ip(a), ip(host), ip(receiver));
        assert!(tell("198.51.100.7", "198.51.100.7", "203.0.113.5"));
        assert!(tell("127.0.0.1", "127.0.0.1", "127.0.0.1"));
        assert!(!tell("127.0.0.1", "127.0.0.1", "198.51.100.7"));
        // Behind one NAT, or seen on the same private network.
        assert!(tell("192.168.1.9", "198.51.100.7", "198.51.100.7"));
        assert!(!tell("192.168.1.9", "198.51.100.7", "198.51.100.8"));
        assert!(tell("192.168.1.9", "192.168.1.9", "192.168.1.10"));
        assert!(tell("192.168.1.9", "127.0.0.1", "192.168.1.10"));
        assert!(!tell("192.168.1.9", "127.0.0.1", "203.0.113.5"));
        assert!(!tell("192.168.1.9", "192.168.1.9", "10.0.0.1"));
        assert!(tell("192.168.1.9", "192.168.1.9", "127.0.0.1"));
    }
}
