//! Swarms over payload protocol `udp`, with the real binaries.

use iceshare_tests::{Network, Proc, media, same};

/// Over which protocols a `get` fetched, and from how many hosts, as it says when it is complete.
fn flows(get: &Proc) -> (Vec<String>, usize) {
    get.error_line("its figures", |l| {
        let (_, rest) = l.split_once("; over ")?;
        let (over, rest) = rest.split_once("; from ")?;
        let names = over.split(", ").filter_map(|p| p.split(' ').next()).map(str::to_owned).collect();
        Some((names, rest.split(' ').next()?.parse().ok()?))
    })
}

#[test]
fn a_swarm_over_udp_alone() {
    let net = Network::new();
    let file = net.path("only.opus");
    media::opus_like(&file, 6_000_000, 4200, 7).unwrap_or_else(|e| panic!("{e}"));
    let (publisher, url) = net.publish("publisher", &file, &["--transport", "udp", "--up", "3MB"]);
    let more = ["--transport", "udp", "--share-for", "10m"];
    let crowd: Vec<_> = (0..4).map(|i| net.get(&format!("receiver-{i}"), &url, &more)).collect();
    let mut hosts = 0;
    for (get, out) in &crowd {
        let (over, from) = flows(get);
        assert_eq!(over, ["udp"]);
        hosts += from;
        assert!(same(&file, out));
    }
    assert!(hosts > crowd.len(), "nobody was served by another receiver");
    drop(publisher);
    // The publisher is gone: its receivers serve.
    let (mut late, out) = net.get("late", &url, &["--transport", "udp"]);
    late.ends_with(0);
    assert!(same(&file, &out));
}

#[test]
fn one_swarm_over_udp_and_http_where_some_have_only_one_of_them() {
    let net = Network::new();
    let file = net.path("mixed.opus");
    media::opus_like(&file, 3_000_000, 4200, 8).unwrap_or_else(|e| panic!("{e}"));
    let (_publisher, url) = net.publish("publisher", &file, &["--transport", "http"]);
    let get =
        |who: &str, transports: &str| net.get(who, &url, &["--transport", transports, "--share-for", "10m"]);
    // Nobody but the bridge has what the two others speak.
    let (bridge, bridged) = get("bridge", "http,udp");
    let (udp, over_udp) = get("udp", "udp");
    let (http, over_http) = get("http", "http");
    assert_eq!(flows(&udp).0, ["udp"]);
    assert_eq!(flows(&http).0, ["http"]);
    assert!(flows(&bridge).0.contains(&"http".to_owned()));
    for out in [bridged, over_udp, over_http] {
        assert!(same(&file, &out));
    }
}
