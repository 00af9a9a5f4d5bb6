//! Media paths, links, keys and names: what goes out comes in again, and no text of a stranger gets further than it should.

use icet::{IcetUrl, MediaPath, PeerKey, ProtocolName, limits};
use proptest::prelude::*;

/// Text that is likely to hit the rules.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "([a-c%./?#&=@:é\\\\ \u{202e}\u{0}\u{9b}]|%2[eEfF]|%0[0aAdD]|%5[cC]|\\.\\.|//){0,24}",
        "(icet|http|ICET)://([a-z.]{0,6}|\\[[0-9a-f:]{0,9}\\])(:[0-9]{0,6})?(/[a-z%2e./]{0,12})?(\\?[a-z=&0-9]{0,80})?",
    ]
}

fn media_path() -> impl Strategy<Value = MediaPath> {
    prop_oneof![hostile(), "[a-z./%é ?#]{1,30}"].prop_filter_map("a media path", |s| MediaPath::new(s).ok())
}

fn key() -> impl Strategy<Value = PeerKey> {
    any::<[u8; 32]>().prop_map(PeerKey)
}

/// The rules of the specification, written down a second time.
fn is_path(s: &str) -> bool {
    let bad = |c: char| {
        c.is_control()
            || "\\\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}"
                .contains(c)
    };
    (1..=limits::PATH).contains(&s.len())
        && !s.contains(bad)
        && !s.split('/').any(|segment| ["", ".", ".."].contains(&segment))
}

proptest! {
    #[test]
    fn a_path_is_what_the_rules_say(s in hostile()) {
        prop_assert_eq!(MediaPath::new(s.clone()).is_ok(), is_path(&s));
    }

    #[test]
    fn what_a_url_names_is_a_path(s in hostile()) {
        if let Ok(p) = MediaPath::from_url_path(&s) {
            prop_assert!(is_path(p.as_str()));
        }
    }

    #[test]
    fn a_path_survives_a_url(p in media_path()) {
        let url = p.to_url_path();
        prop_assert!(url.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"'<>\\^`{|}".contains(&b)), "{}", url);
        prop_assert_eq!(MediaPath::from_url_path(&url), Ok(p.clone()));
        prop_assert_eq!(MediaPath::from_url_path(&format!("/{url}")), Ok(p.clone()));
        prop_assert!(p.as_str().ends_with(p.file_name()) && !p.file_name().contains('/'));
    }

    #[test]
    fn a_long_path_is_refused(n in limits::PATH - 2..limits::PATH * 4) {
        let s = "a".repeat(n);
        prop_assert_eq!(MediaPath::new(s.clone()).is_ok(), n <= limits::PATH);
        prop_assert_eq!(MediaPath::from_url_path(&s).is_ok(), n <= limits::PATH);
        let escaped = "%61".repeat(n);
        prop_assert_eq!(MediaPath::from_url_path(&escaped).is_ok(), n <= limits::PATH);
    }

    #[test]
    fn any_text_may_claim_to_be_a_link(s in hostile()) {
        if let Ok(u) = s.parse::<IcetUrl>() {
            prop_assert!(u.port != 0);
            prop_assert_eq!(u.to_string().parse::<IcetUrl>(), Ok(u.clone()), "{}", u);
        }
    }

    #[test]
    fn a_link_survives_its_text(
        host in prop_oneof!["[a-z0-9-]{1,10}(\\.[a-z0-9]{1,5}){0,3}", any::<std::net::Ipv6Addr>().prop_map(|a| a.to_string())],
        port in 1u16..,
        path in prop::option::of(media_path()),
        key in prop::option::of(key()),
        tracker in prop::option::of(key()),
    ) {
        let url = IcetUrl { host, port, path, key, tracker };
        prop_assert_eq!(url.to_string().parse(), Ok(url));
    }

    #[test]
    fn a_key_survives_its_text(k in key(), s in "[0-9a-fA-Fg]{62,66}") {
        prop_assert_eq!(k.to_string().parse(), Ok(k));
        let good = s.len() == 64 && !s.contains('g');
        prop_assert_eq!(s.parse::<PeerKey>().map(|k| k.to_string()), if good { Ok(s.to_lowercase()) } else { Err(icet::key::KeyParseError) });
    }

    #[test]
    fn a_protocol_name_is_what_the_rules_say(s in prop_oneof![any::<String>(), "[a-zA-Z0-9.-]{0,34}"]) {
        let good = (1..=32).contains(&s.len())
            && s.as_bytes()[0].is_ascii_lowercase()
            && s.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
        prop_assert_eq!(s.parse::<ProtocolName>().is_ok(), good);
    }
}
