//! Floods at the ports of a host, while it serves over one payload protocol alone: what looks like the beginning of that
//! protocol, of the others that share its ports, and of nothing.

use std::net::SocketAddr;

use iceshare_tests::{Network, media, same};
use icet::Offer;

use super::floods::{Flood, Kind, Victim};
use super::stranger::{self, eventually, host_of, runtime};

/// Attempts of each kind that make it a flood.
const LEAST: u64 = 200;

/// A transfer that has begun ends well, and so does one that begins in the middle of all these floods.
fn serves_through(protocol: &str) {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 700_000, 4200, 113).expect("a file");
    let only = ["--transport", protocol, "--json"];
    let (publisher, url) = net.publish("publisher", &file, &["--transport", protocol, "--up", "300kB"]);
    let name = protocol.parse().expect("a protocol name");
    let host = host_of(&runtime(), &net.tracker.url, "song.opus", 0xf3, Offer { name, ..stranger::offer() });
    let common = host.addrs.first().expect("an address of the host").at;
    let everywhere = [
        Kind::Silent,
        Kind::Junk,
        Kind::Negotiations,
        Kind::Datagrams,
        Kind::Initials,
        Kind::Knocks,
        Kind::Hellos,
    ];
    let mut targets: Vec<_> = everywhere.map(|kind| (kind, common)).into();
    // libp2p has a UDP port of its own beside.
    if let Some((_, port)) = host.endpoint.split_once("/udp/") {
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        let own = SocketAddr::new(common.ip(), port.parse().expect("a port"));
        targets.extend([(Kind::Datagrams, own), (Kind::Initials, own)]);
    }
    let victim = Victim::new("the host", &publisher);
    let (mut get, out) = net.get("receiver", &url, &only);
    eventually("that it fetches", || {
        let stats = net.tracker.get("/api/media");
        let running = "\"assignments_running\":";
        (stats.contains(running) && !stats.contains(&format!("{running}0"))).then_some(())
    });
    let floods: Vec<_> = targets.iter().map(|(kind, to)| (*kind, Flood::start(*kind, *to))).collect();
    floods.iter().for_each(|(_, flood)| flood.further(LEAST));
    let (mut late, late_out) = net.get("late", &url, &only);
    for (get, out) in [(&mut get, &out), (&mut late, &late_out)] {
        get.ends_with(0);
        assert!(same(&file, out));
        let figures: serde_json::Value = serde_json::from_str(&get.stdout()).expect("figures");
        let over = figures["by_protocol"].as_object().expect("bytes by protocol");
        assert!(over.len() == 1 && over.contains_key(protocol), "{over:?}");
        assert_eq!(figures["bad_pages"], 0, "{figures}");
    }
    let tries: Vec<_> = floods.into_iter().map(|(kind, flood)| (kind, flood.stop())).collect();
    eprintln!("{protocol}: {tries:?} attempts; {}", late.stderr().trim());
    victim.is_well();
}

#[test]
fn a_host_over_quic_alone_serves_through_floods() {
    serves_through("quic");
}

#[test]
fn a_host_over_udp_alone_serves_through_floods() {
    serves_through("udp");
}

#[test]
fn a_host_over_libp2p_alone_serves_through_floods() {
    serves_through("libp2p");
}
