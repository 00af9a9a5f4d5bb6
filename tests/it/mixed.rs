//! Swarms in which payload protocols are mixed, with the real binaries.

use std::collections::BTreeMap;

use iceshare::keyring;
use iceshare_tests::{Network, Proc, media, same};

/// What `get --json` says once it is complete, also while it shares on.
fn figures(get: &Proc) -> serde_json::Value {
    get.line("its figures", |l| (l == "}").then_some(()));
    serde_json::from_str(&get.stdout()).unwrap_or_else(|e| panic!("{e}: {}", get.stdout()))
}

/// Pages by host and protocol.
fn flows(figures: &serde_json::Value) -> Vec<(String, String, u64)> {
    let text = |v: &serde_json::Value| v.as_str().expect("a text").to_owned();
    let flow = |f: &serde_json::Value| {
        (text(&f["host"]), text(&f["protocol"]), f["pages"].as_u64().expect("a number of pages"))
    };
    figures["flows"].as_array().expect("flows").iter().map(flow).collect()
}

/// Twelve receivers, each with other protocols than any other, each a host of the others as soon as it has something.
#[test]
fn a_swarm_of_twelve_each_with_another_set_of_protocols() {
    const SETS: [&str; 12] = [
        "http",
        "quic",
        "udp",
        "libp2p",
        "http,quic",
        "http,libp2p",
        "quic,udp",
        "udp,libp2p",
        "http,quic,udp",
        "http,udp,libp2p",
        "quic,udp,libp2p",
        "http,libp2p,quic,udp",
    ];
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 1_500_000, 4200, 12).unwrap_or_else(|e| panic!("{e}"));
    // It needs longer for two copies than the swarm for all.
    let (_origin, url) = net.publish("origin", &file, &["--up", "250kB"]);
    let mut sets = BTreeMap::new();
    let origin = origin_of(&url);
    sets.insert(origin.clone(), SETS[11]);
    let gets: Vec<_> = SETS
        .iter()
        .map(|set| {
            let key = net.path(&format!("{set}.key"));
            let file = keyring::load_or_create(&key).unwrap_or_else(|e| panic!("{e}"));
            sets.insert(file.identity.key().to_string(), *set);
            let key = key.to_string_lossy().into_owned();
            let more = ["--transport", set, "--key", &key, "--json", "--share-for", "10m"];
            net.get(set, &url, &more)
        })
        .collect();
    let (mut from_origin, mut from_all) = (0, 0);
    for (set, (get, out)) in SETS.iter().zip(&gets) {
        let figures = figures(get);
        assert!(same(&file, out), "{set}");
        let (flows, pages) = (flows(&figures), figures["pages"].as_u64().expect("pages"));
        let mut by_protocol: BTreeMap<String, u64> = BTreeMap::new();
        for (host, protocol, pages) in &flows {
            let both = [set, sets.get(host).unwrap_or_else(|| panic!("{host} is none of them"))];
            let all_have = both.iter().all(|set| set.split(',').any(|p| p == protocol));
            assert!(all_have, "{set} fetched over {protocol} from one who has {}", both[1]);
            *by_protocol.entry(protocol.clone()).or_default() += pages;
            from_all += pages;
            from_origin += if *host == origin { *pages } else { 0 };
        }
        let said: BTreeMap<String, u64> =
            serde_json::from_value(figures["pages_by_protocol"].clone()).expect("pages by protocol");
        assert_eq!(said, by_protocol, "{set}");
        let duplicates = figures["duplicate_pages"].as_u64().expect("a number");
        assert_eq!(said.values().sum::<u64>(), pages + duplicates, "{set}: {figures}");
        assert_eq!(figures["resumed_pages"], 0, "{set}: {figures}");
        // People are told the same.
        let (over, n) = by_protocol.iter().max_by_key(|(_, n)| **n).expect("a protocol");
        get.error_line("over what it came", |l| {
            (l.contains(&format!("{n} page")) && l.contains(over)).then_some(())
        });
        eprintln!(
            "{set}: {} ms, {said:?} from {} hosts, {duplicates} twice",
            figures["elapsed_ms"],
            figures["by_host"].as_object().map_or(0, serde_json::Map::len)
        );
    }
    eprintln!("{from_origin} of {from_all} pages came from the origin");
    assert!(2 * from_origin < from_all, "most comes from the origin");
}

fn origin_of(url: &str) -> String {
    let url: iceshare::icet::IcetUrl = url.parse().unwrap_or_else(|e| panic!("{url}: {e}"));
    url.key.expect("the publisher's key").to_string()
}

/// One host has only HTTP, the other only QUIC: a receiver that has both fetches from both at the same time.
#[test]
fn two_hosts_send_one_media_over_two_protocols_at_once() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 2_500_000, 4200, 13).unwrap_or_else(|e| panic!("{e}"));
    let (mut publisher, url) = net.publish("publisher", &file, &["--transport", "quic"]);
    let (helper, copy) =
        net.get("helper", &url, &["--transport", "quic", "--up", "300kB", "--share-for", "10m"]);
    helper.error_line("that it shares", |l| l.contains("sharing").then_some(()));
    assert!(same(&file, &copy));
    publisher.signal("INT");
    let _ = publisher.end();
    let (_publisher, again) = net.publish("publisher", &file, &["--transport", "http", "--up", "300kB"]);
    assert_eq!(url, again);
    let more = ["--transport", "http,quic", "--progress", "lines", "--json"];
    let (mut get, out) = net.get("receiver", &url, &more);
    get.ends_with(0);
    assert!(same(&file, &out));
    let figures = figures(&get);
    let from = flows(&figures);
    let over: BTreeMap<&str, &str> = from.iter().map(|(h, p, _)| (p.as_str(), h.as_str())).collect();
    assert_eq!((over.keys().copied().collect::<Vec<_>>(), from.len()), (vec!["http", "quic"], 2), "{from:?}");
    assert_eq!(over["http"], origin_of(&url));
    assert_ne!(over["quic"], origin_of(&url));
    let both = fifths_with_both(&get);
    eprintln!("{} ms: {from:?}; both at once in {both} fifths of a second", figures["elapsed_ms"]);
    assert!(both >= 3, "one after the other: {}", get.stderr());
}

/// A publisher and a receiver that have the same two protocols: nobody else is there, and pages come over both.
#[test]
fn one_host_sends_one_media_over_two_protocols_at_once() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 2_500_000, 4200, 14).unwrap_or_else(|e| panic!("{e}"));
    let both = ["--transport", "http,quic"];
    let (_publisher, url) = net.publish("publisher", &file, &[&both[..], &["--up", "500kB"]].concat());
    let (mut get, out) = net.get("receiver", &url, &[&both[..], &["--progress", "lines", "--json"]].concat());
    get.ends_with(0);
    assert!(same(&file, &out));
    let figures = figures(&get);
    let from = flows(&figures);
    let origin = origin_of(&url);
    assert!(from.len() == 2 && from.iter().all(|(host, ..)| *host == origin), "{from:?}");
    let over: BTreeMap<&str, u64> = from.iter().map(|(_, p, n)| (p.as_str(), *n)).collect();
    assert!(over.contains_key("http") && over.contains_key("quic"), "{over:?}");
    let both = fifths_with_both(&get);
    eprintln!("{} ms: {over:?}; both at once in {both} fifths of a second", figures["elapsed_ms"]);
    assert!(both >= 1, "one after the other: {}", get.stderr());
}

/// Between how many of its lines of progress, a fifth of a second apart, pages came over `http` and over `quic`.
fn fifths_with_both(get: &Proc) -> usize {
    let lines: Vec<_> = get.stderr().lines().filter_map(pages_over).collect();
    let grew = |protocol: &str, w: &[BTreeMap<String, u64>]| {
        let n = |of: &BTreeMap<String, u64>| of.get(protocol).copied().unwrap_or(0);
        n(&w[1]) > n(&w[0])
    };
    lines.windows(2).filter(|w| grew("http", w) && grew("quic", w)).count()
}

/// Pages by protocol, if this line of progress says so.
pub(crate) fn pages_over(line: &str) -> Option<BTreeMap<String, u64>> {
    let (_, over) = line.split_once(" over=").filter(|(before, _)| before.contains("progress held="))?;
    let parts = over.trim().split(',').filter_map(|part| part.split_once(':'));
    parts.map(|(name, pages)| Some((name.to_owned(), pages.parse().ok()?))).collect()
}
