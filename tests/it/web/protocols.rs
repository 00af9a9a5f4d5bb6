//! What the tracker believes of protocols: told, and kept over a restart.

use iceshare_tests::{Network, Tracker, media, same};
use serde_json::Value;

fn learned(text: &str) -> Option<Value> {
    let all: Value = serde_json::from_str(text).ok()?;
    all["protocols"].as_array()?.iter().find(|p| p["done"].as_u64() > Some(0)).cloned()
}

#[test]
fn what_was_learned_of_protocols_survives_a_restart() {
    let mut net = Network::new();
    let file = net.path("told.opus");
    media::opus_like(&file, 2_000_000, 4200, 9).unwrap_or_else(|e| panic!("{e}"));
    let (publisher, url) = net.publish("publisher", &file, &[]);
    let (mut get, out) = net.get("receiver", &url, &[]);
    get.ends_with(0);
    assert!(same(&file, &out));
    let before = net.tracker.until("/api/protocols", "that a fetch ended well", learned);
    assert!(before["goodput"].as_f64() > Some(0.0) && before["classes"][0]["class"] == "address", "{before}");
    let metrics = net.tracker.get("/metrics");
    for name in ["goodput_bytes", "first_byte_seconds", "success_ratio", "page_share_ratio"] {
        assert!(metrics.contains(&format!("icetracker_protocol_{name}{{protocol=")), "{name}: {metrics}");
    }
    net.tracker.until("/metrics", "that it is on disk", |m| {
        let line =
            m.lines().find(|l| l.starts_with("icetracker_catalogue_writes_total{kind=\"protocols\"}"))?;
        line.split(' ').next_back().filter(|n| *n != "0").map(drop)
    });
    drop(publisher);
    net.tracker.proc.signal("TERM");
    net.tracker.proc.ends_with(0);
    let again = Tracker::start(&net.tracker.data, "127.0.0.1:0");
    let after = learned(&again.get("/api/protocols")).unwrap_or_else(|| panic!("nothing was kept"));
    assert_eq!((&after["name"], after["done"].as_u64() > Some(0)), (&before["name"], true), "{after}");
    assert!(after["samples"].as_f64() > Some(0.0) && after["goodput"].as_f64() > Some(0.0), "{after}");
}
