//! Cookies: who can read what we send to its address. Nothing is kept of who asks.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use iceshare::icet::Now;

use crate::wire::datagram::AssocId;

/// A cookie is good for so long.
pub(crate) const LIFE: Duration = Duration::from_secs(10);

/// A cookie.
pub(crate) type Cookie = [u8; 32];

/// Makes and checks them: time of making (8 bytes, microseconds) and a keyed hash of it, number and address.
pub(crate) struct Cookies([u8; 32]);

impl Cookies {
    /// With a secret of its own.
    pub(crate) fn new(secret: [u8; 32]) -> Cookies {
        Cookies(secret)
    }

    fn mac(&self, time: [u8; 8], initiator: AssocId, at: SocketAddr) -> blake3::Hash {
        let mut h = blake3::Hasher::new_keyed(&self.0);
        h.update(&time).update(&initiator.0.to_be_bytes()).update(&at.port().to_be_bytes());
        match at.ip() {
            IpAddr::V4(ip) => h.update(&ip.octets()),
            IpAddr::V6(ip) => h.update(&ip.octets()),
        };
        h.finalize()
    }

    pub(crate) fn issue(&self, now: Now, initiator: AssocId, at: SocketAddr) -> Cookie {
        let (time, mut cookie) = (now.0.to_be_bytes(), [0; 32]);
        cookie[..8].copy_from_slice(&time);
        cookie[8..].copy_from_slice(&self.mac(time, initiator, at).as_bytes()[..24]);
        cookie
    }

    /// Until when the cookie is good; none if it is not ours, of somebody else, or old.
    pub(crate) fn check(&self, now: Now, cookie: &Cookie, initiator: AssocId, at: SocketAddr) -> Option<Now> {
        let (time, mac) = cookie.split_first_chunk::<8>()?;
        let wanted = self.mac(*time, initiator, at);
        // In constant time.
        let mut whole = *wanted.as_bytes();
        whole.get_mut(..24)?.copy_from_slice(mac);
        let until = Now(u64::from_be_bytes(*time)) + LIFE;
        (wanted == blake3::Hash::from_bytes(whole) && now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_one_number_at_one_address_for_a_while() {
        let cookies = Cookies::new([5; 32]);
        let at = SocketAddr::from(([192, 0, 2, 1], 4237));
        let (n, now) = (AssocId(1), Now(1_000_000));
        let cookie = cookies.issue(now, n, at);
        assert_eq!(cookies.check(now, &cookie, n, at), Some(now + LIFE));
        assert_eq!(cookies.check(now + LIFE, &cookie, n, at), None);
        assert_eq!(cookies.check(now, &cookie, AssocId(2), at), None);
        assert_eq!(cookies.check(now, &cookie, n, SocketAddr::from(([192, 0, 2, 1], 4238))), None);
        assert_eq!(cookies.check(now, &cookie, n, SocketAddr::from(([192, 0, 2, 2], 4237))), None);
        assert_eq!(Cookies::new([6; 32]).check(now, &cookie, n, at), None);
        for bit in 0..256 {
            let mut cookie = cookie;
            cookie[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(cookies.check(now, &cookie, n, at), None, "{bit}");
        }
    }
}
