//! Who may speak to the gateway: programs of this machine that call it by a loopback name, and its own page.
//!
//! A web page elsewhere can make a browser send requests here. It cannot hide where it comes from (`Origin`,
//! `Sec-Fetch-Site`), and if it points a name of its own at 127.0.0.1 (DNS rebinding), `Host` gives it away.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};

/// Checks a request's `Host`, target and origin; the error is the status to refuse it with.
pub(crate) fn check(headers: &HeaderMap, uri: &Uri, port: u16) -> Result<(), StatusCode> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(StatusCode::MISDIRECTED_REQUEST);
    };
    let host = host.to_str().map_err(|_| StatusCode::MISDIRECTED_REQUEST)?;
    let ours = |a: &str| a.parse().is_ok_and(|a: Authority| is_ours(&a, port));
    if !ours(host) || uri.authority().is_some_and(|a| !is_ours(a, port)) {
        return Err(StatusCode::MISDIRECTED_REQUEST);
    }
    let own = format!("http://{host}");
    if headers.get_all(ORIGIN).iter().any(|o| !o.as_bytes().eq_ignore_ascii_case(own.as_bytes())) {
        return Err(StatusCode::FORBIDDEN);
    }
    let at_home = |site: &[u8]| site == b"same-origin" || site == b"none";
    if headers.get_all("sec-fetch-site").iter().any(|s| !at_home(s.as_bytes())) {
        return Err(StatusCode::FORBIDDEN);
    }
    Ok(())
}

/// Whether an authority is a loopback literal or `localhost`, at our port.
fn is_ours(authority: &Authority, port: u16) -> bool {
    if authority.as_str().contains('@') || authority.port_u16().unwrap_or(80) != port {
        return false;
    }
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(uri: &str, pairs: &[(&'static str, &str)]) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header value"));
        }
        check(&headers, &uri.parse().expect("a target"), 8000).err().map(|s| s.as_u16())
    }

    #[test]
    fn host_must_be_a_loopback_name_at_our_port() {
        for host in ["127.0.0.1:8000", "127.9.9.9:8000", "[::1]:8000", "localhost:8000", "LocalHost:8000"] {
            assert_eq!(answer("/", &[("host", host)]), None, "{host}");
        }
        for host in [
            "",
            "127.0.0.1",
            "localhost",
            "127.0.0.1:8001",
            "evil.example:8000",
            "localhost.evil.example:8000",
            "127.0.0.1.evil.example:8000",
            "0.0.0.0:8000",
            "[::]:8000",
            "[::ffff:127.0.0.1]:8000",
            "192.168.1.2:8000",
            "2130706433:8000",
            "user@127.0.0.1:8000",
            "127.0.0.1:8000/",
        ] {
            assert_eq!(answer("/", &[("host", host)]), Some(421), "{host}");
        }
        assert_eq!(answer("/", &[]), Some(421));
        assert_eq!(answer("/", &[("host", "localhost:8000"), ("host", "localhost:8000")]), Some(421));
        assert_eq!(answer("http://evil.example:8000/", &[("host", "localhost:8000")]), Some(421));
        assert_eq!(answer("http://127.0.0.1:8000/", &[("host", "localhost:8000")]), None);
    }

    #[test]
    fn foreign_pages_are_refused() {
        let with = |name, value| answer("/", &[("host", "127.0.0.1:8000"), (name, value)]);
        assert_eq!(with("origin", "http://127.0.0.1:8000"), None);
        for origin in [
            "null",
            "http://evil.example",
            "https://127.0.0.1:8000",
            "http://127.0.0.1",
            "http://127.0.0.1:9000",
            "http://localhost:8000",
            "http://127.0.0.1:8000.evil.example",
        ] {
            assert_eq!(with("origin", origin), Some(403), "{origin}");
        }
        assert_eq!(with("sec-fetch-site", "same-origin"), None);
        assert_eq!(with("sec-fetch-site", "none"), None);
        for site in ["cross-site", "same-site", "", "anything"] {
            assert_eq!(with("sec-fetch-site", site), Some(403), "{site}");
        }
    }
}
