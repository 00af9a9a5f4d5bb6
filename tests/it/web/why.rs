//! Why a page came from whom it came.

use iceshare_tests::{Network, media, same};

use super::json;

#[test]
fn the_tracker_tells_why_a_page_came_from_its_host() {
    let net = Network::with(&["--explain"]);
    let file = net.path("told.opus");
    media::opus_like(&file, 1_000_000, 4200, 7).unwrap_or_else(|e| panic!("{e}"));
    let (_publisher, url) = net.publish("publisher", &file, &[]);
    let (get, out) = net.get("receiver", &url, &["--share-for", "10m"]);
    get.error_line("that it is complete and shares", |l| l.contains("sharing").then_some(()));
    assert!(same(&file, &out));
    let view = json(&net, "/api/media/told.opus");
    let publisher = &view["publisher"].as_str().unwrap_or_default()[..8];
    let members = view["swarm"].as_array().cloned().unwrap_or_default();
    let peers: Vec<_> = members.iter().filter_map(|m| m["peer"].as_str()).collect();
    let receiver = peers.iter().find(|p| **p != publisher).unwrap_or_else(|| panic!("no receiver: {view}"));
    let why = json(&net, &format!("/api/media/told.opus/why?peer={receiver}&page=100"));
    assert_eq!(
        (why["reason"].as_str(), why["decisions_kept"].as_bool()),
        (Some("held"), Some(true)),
        "{why}"
    );
    let order = &why["decisions"][0];
    assert_eq!(order["host"].as_str(), Some(publisher), "{why}");
    assert!(order["protocol"].is_string() && order["need"] == "bulk", "{why}");
    assert_eq!(why["hosts"][0]["verdict"], "able", "{why}");
    for (query, word) in [
        ("peer=zz&page=1", "no such peer"),
        ("page=1", "peer is missing"),
        ("peer=zz", "page is missing"),
        ("", "ask as in /api/media/PATH/why?peer="),
        (&format!("peer={receiver}&page=100000"), "pages, counted from 0"),
    ] {
        let refused = json(&net, &format!("/api/media/told.opus/why?{query}"));
        assert!(refused["error"].as_str().is_some_and(|e| e.contains(word)), "{query}: {refused}");
    }
}
