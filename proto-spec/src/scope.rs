//! What an IP address is good for: section 12 of the specification, "nobody can be aimed".

use std::net::IpAddr;

/// What an address is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This machine only.
    Loopback,
    /// A private, link-local or carrier's network.
    Private,
    /// The Internet.
    Public,
    /// Not an address of one peer: unspecified, multicast, broadcast, reserved, or one that embeds another.
    Never,
}

impl Scope {
    /// The scope of an address.
    #[must_use]
    pub fn of(ip: IpAddr) -> Scope {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                if ip.is_loopback() {
                    Scope::Loopback
                } else if a == 0 || a >= 224 {
                    Scope::Never
                } else if ip.is_private() || ip.is_link_local() || (a == 100 && b & 0xc0 == 64) {
                    Scope::Private
                } else {
                    Scope::Public
                }
            }
            IpAddr::V6(ip) => {
                let s = ip.segments();
                if ip.is_loopback() {
                    Scope::Loopback
                } else if ip.is_unspecified()
                    || ip.is_multicast()
                    || s[0] == 0x2002
                    || s[..2] == [0x64, 0xff9b]
                {
                    // 6to4 and NAT64 (RFC 3056, RFC 6052) lead to any IPv4 address there is.
                    Scope::Never
                } else if s[..6] == [0; 6] {
                    Scope::Never
                } else if s[0] & 0xfe00 == 0xfc00 || s[0] & 0xffc0 == 0xfe80 {
                    Scope::Private
                } else {
                    Scope::Public
                }
            }
        }
    }
}

/// The neighbourhood that an address counts for where strangers are limited: /24 of IPv4 (mapped into IPv6 or not), /48 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prefix {
    /// Of IPv4.
    V4([u8; 3]),
    /// Of IPv6.
    V6([u8; 6]),
}

impl Prefix {
    /// That of `ip`.
    #[must_use]
    pub fn of(ip: IpAddr) -> Prefix {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Prefix::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Prefix::V6([a, b, c, d, e, f])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        for (s, is) in [
            ("127.0.0.1", Scope::Loopback),
            ("::1", Scope::Loopback),
            ("::ffff:127.0.0.1", Scope::Loopback),
            ("10.1.2.3", Scope::Private),
            ("172.16.0.1", Scope::Private),
            ("172.32.0.1", Scope::Public),
            ("192.168.1.1", Scope::Private),
            ("169.254.1.1", Scope::Private),
            ("100.64.0.1", Scope::Private),
            ("100.128.0.1", Scope::Public),
            ("fd00::1", Scope::Private),
            ("fe80::1", Scope::Private),
            ("2001:db8::1", Scope::Public),
            ("8.8.8.8", Scope::Public),
            ("0.0.0.0", Scope::Never),
            ("0.1.2.3", Scope::Never),
            ("224.0.0.1", Scope::Never),
            ("255.255.255.255", Scope::Never),
            ("240.0.0.1", Scope::Never),
            ("::", Scope::Never),
            ("ff02::1", Scope::Never),
            ("::10.0.0.1", Scope::Never),
            ("2002:0a00:0001::1", Scope::Never),
            ("64:ff9b::a00:1", Scope::Never),
        ] {
            assert_eq!(Scope::of(s.parse().unwrap()), is, "{s}");
        }
    }
}
