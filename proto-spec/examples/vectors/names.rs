//! Vectors of names, links and sets of pages.

use icet::{IcetUrl, MediaId, MediaPath, PageRanges, PageSet, Stripe};
use serde_json::{Value, json};

use super::meaning;
use super::world::{cbor, hex, id, identity, path};

/// Media paths: decoded, and as in a URL.
pub(crate) const PATHS: &[(&str, &str)] = &[
    ("a", "a"),
    ("music/song.opus", "music/song.opus"),
    ("music/Søren – Étude №1.opus", "music/S%C3%B8ren%20%E2%80%93%20%C3%89tude%20%E2%84%961.opus"),
    ("a b/100%/c?d#e", "a%20b/100%25/c%3Fd%23e"),
    ("%2e%2e/x", "%252e%252e/x"),
    ("...", "..."),
    (".hidden/~x", ".hidden/~x"),
    ("x!$&()*+,;=:@", "x!$&()*+,;=:@"),
    ("it's", "it%27s"),
];

/// Other spellings of a path in a URL, and the path.
pub(crate) const SPELLINGS: &[(&str, &str)] = &[
    ("/music/song.opus", "music/song.opus"),
    ("%6Dusic%2fsong.opus", "music/song.opus"),
    ("%c3%a9", "é"),
    ("it's", "it's"),
];

/// Texts that are no path in a URL.
pub(crate) const BAD_PATHS: &[(&str, &str)] = &[
    ("", "empty"),
    ("/", "empty"),
    ("//a", "an empty segment"),
    ("a//b", "an empty segment"),
    ("a/", "an empty segment"),
    ("a/./b", "a . segment"),
    ("../a", "a .. segment"),
    ("%2e%2e/a", "a .. segment, escaped"),
    ("a%2f%2e%2E", "a .. segment behind an escaped slash"),
    ("a%2f", "an empty segment behind an escaped slash"),
    ("a%00", "a control character"),
    ("a%0d%0ab", "control characters"),
    ("a%c2%9bb", "a C1 control character"),
    ("a%5cb", "a backslash"),
    ("%e2%80%aea", "a bidirectional override"),
    ("a%d8%9cb", "an Arabic letter mark"),
    ("a%", "a cut-off escape"),
    ("a%g0", "no hexadecimal digit"),
    ("a%+1", "no hexadecimal digit"),
    ("%ff", "not UTF-8"),
    ("%c0%ae%c0%ae", "not UTF-8: an overlong dot"),
    ("%ed%a0%80", "not UTF-8: a surrogate"),
];

/// Links: text, and host, port, path.
pub(crate) fn urls() -> Vec<(String, IcetUrl)> {
    let url = |host: &str, port, path: Option<&str>, key, tracker| IcetUrl {
        host: host.to_owned(),
        port,
        path: path.map(|p| MediaPath::new(p).expect("a media path")),
        key,
        tracker,
    };
    let key = Some(identity(1).key());
    let tracker = Some(identity(2).key());
    let hex_key = hex(&identity(1).key().0);
    vec![
        ("icet://tracker.example".into(), url("tracker.example", 4237, None, None, None)),
        ("icet://tracker.example/".into(), url("tracker.example", 4237, None, None, None)),
        ("icet://tracker.example:4237/a.ogg".into(), url("tracker.example", 4237, Some("a.ogg"), None, None)),
        ("ICET://Tracker.Example/A.ogg".into(), url("tracker.example", 4237, Some("A.ogg"), None, None)),
        ("icet://127.0.0.1:9/a%20b".into(), url("127.0.0.1", 9, Some("a b"), None, None)),
        ("icet://[2001:db8::1]/a".into(), url("2001:db8::1", 4237, Some("a"), None, None)),
        ("icet://[::1]:65535/a".into(), url("::1", 65_535, Some("a"), None, None)),
        (format!("icet://t/a?key={hex_key}"), url("t", 4237, Some("a"), key, None)),
        (
            format!(
                "icet://t/a?later=1&tracker={}&key={}",
                hex(&identity(2).key().0),
                hex_key.to_uppercase()
            ),
            url("t", 4237, Some("a"), key, tracker),
        ),
    ]
}

/// Texts that are no link.
pub(crate) fn bad_urls() -> Vec<(String, &'static str)> {
    let key = hex(&identity(1).key().0);
    vec![
        ("".into(), "no scheme"),
        ("tracker.example/a".into(), "no scheme"),
        ("http://tracker.example/a".into(), "another scheme"),
        ("icet:/t/a".into(), "no authority"),
        ("icet:///a".into(), "no host"),
        ("icet://:4237/a".into(), "no host"),
        ("icet://a b/a".into(), "a space in the host"),
        ("icet://t\u{e9}/a".into(), "a host that is not ASCII: use its A-label"),
        ("icet://[::1/a".into(), "a bracket that is not closed"),
        ("icet://[nonsense]/a".into(), "no IPv6 address"),
        ("icet://[::1]x/a".into(), "something after the bracket"),
        ("icet://t:0/a".into(), "port 0"),
        ("icet://t:/a".into(), "an empty port"),
        ("icet://t:65536/a".into(), "a port beyond 65535"),
        ("icet://t:+1/a".into(), "a port that is no number"),
        ("icet://user@t/a".into(), "a user name"),
        ("icet://t/a#b".into(), "a fragment"),
        ("icet://t/a/../b".into(), "a bad path"),
        ("icet://t/a%00".into(), "a bad path"),
        ("icet://t/a?key=1234".into(), "a key that is too short"),
        (format!("icet://t/a?key={}g", &key[..63]), "a key with a digit that is none"),
        (format!("icet://t/a?key={key}&key={key}"), "a key twice"),
        ("icet://t/a?tracker=".into(), "an empty key"),
    ]
}

pub(crate) fn file() -> Value {
    let url = |(text, u): &(String, IcetUrl)| {
        json!({
            "url": text, "host": u.host, "port": u.port, "path": u.path.as_ref().map(MediaPath::as_str),
            "key": u.key.map(|k| hex(&k.0)), "tracker": u.tracker.map(|k| hex(&k.0)), "canonical": u.to_string(),
        })
    };
    let id_of = |n: u8, p: &str| {
        let publisher = identity(n).key();
        let media = MediaId::of(&publisher, &MediaPath::new(p).expect("a media path"));
        json!({ "publisher": hex(&publisher.0), "path": p, "media": hex(&media.0) })
    };
    let bad = |(text, why): &(String, &str)| json!({ "url": text, "why": why });
    assert_eq!(id(), MediaId::of(&identity(1).key(), &path()));
    json!({
        "paths": {
            "valid": PATHS.iter().map(|(p, u)| json!({ "path": p, "url": u })).collect::<Vec<_>>(),
            "other_spellings": SPELLINGS.iter().map(|(u, p)| json!({ "path": p, "url": u })).collect::<Vec<_>>(),
            "invalid": BAD_PATHS.iter().map(|(u, why)| json!({ "url": u, "why": why })).collect::<Vec<_>>(),
        },
        "media_ids": [id_of(1, "a"), id_of(2, "a"), id_of(1, "music/Søren – Étude №1.opus")],
        "urls": { "valid": urls().iter().map(url).collect::<Vec<_>>(), "invalid": bad_urls().iter().map(bad).collect::<Vec<_>>() },
        "protocol_names": {
            "valid": ["http", "quic", "a", "x-carrier.pigeon2", "a".repeat(32)],
            "invalid": ["", "HTTP", "2udp", "-a", "a_b", "a b", "é", "a".repeat(33)],
        },
    })
}

/// Page sets with a bound below which their pages are listed.
pub(crate) fn sets() -> Vec<(PageSet, u64)> {
    let stripe =
        |first, last, index, of, group| PageSet { first, last, stripe: Stripe::new(index, of, group) };
    vec![
        (PageSet::range(0, 0), 5),
        (PageSet::range(10, 19), 230),
        (PageSet::range(10, 19), 15),
        (PageSet { first: 3, last: None, stripe: None }, 8),
        (PageSet::range((1 << 40) - 1, (1 << 40) - 1), 1 << 40),
        (stripe(0, None, 0, 1, 1), 4),
        (stripe(10, None, 1, 4, 1), 30),
        (stripe(5, Some(40), 2, 3, 4), 100),
        (stripe(33, Some(33), 2, 3, 4), 100),
        (stripe(36, Some(40), 2, 3, 4), 100),
        (stripe(0, None, 1023, 1024, 65_535), 1 << 27),
    ]
}

pub(crate) fn pages() -> Value {
    let set = |(s, end): &(PageSet, u64)| {
        let few = s.count(*end) <= 40;
        let listed = few.then(|| s.iter(*end).collect::<Vec<_>>());
        json!({
            "hex": hex(&cbor(s)), "fields": meaning::page_set(s), "text": s.to_string(), "below": end,
            "count": s.count(*end), "pages": listed,
        })
    };
    let runs: [&[(u64, u64)]; 6] = [
        &[],
        &[(0, 0)],
        &[(5, 9)],
        &[(0, 1), (64, 70), (129, 129)],
        &[(0, (1 << 40) - 1)],
        &[(23, 24), (26, 300), (70_000, 5_000_000_000)],
    ];
    let ranges: Vec<_> = runs
        .iter()
        .map(|r| {
            let r = PageRanges::from_runs(r.iter().copied());
            json!({ "hex": hex(&cbor(&r)), "runs": meaning::ranges(&r), "count": r.count() })
        })
        .collect();
    json!({
        "sets": sets().iter().map(set).collect::<Vec<_>>(),
        "ranges": ranges,
        "invalid": "see messages.json: set-*, stripe-*, ranges-*",
    })
}
