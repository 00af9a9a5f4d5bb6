//! Processes that die: receivers, hosts, the tracker.

use iceshare_tests::{Network, Tracker, media, same};

/// Pages that a line of `get`'s progress or final figures names, as `KEY=NUMBER`.
fn figure(line: &str, key: &str) -> Option<u64> {
    line.split_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

#[test]
fn a_killed_receiver_resumes_and_fetches_no_verified_page_again() {
    let net = Network::new();
    let file = net.path("long.opus");
    media::opus_like(&file, 6_000_000, 4200, 9).unwrap_or_else(|e| panic!("{e}"));
    let (_publisher, url) = net.publish("publisher", &file, &["--up", "2MB"]);
    let (mut get, out) = net.get("receiver", &url, &["--progress", "lines"]);
    let before = get.error_line("a third of the pages", |l| figure(l, "held").filter(|n| *n > 450));
    get.kill();
    assert!(!out.exists());
    let (mut get, _) = net.get("receiver", &url, &["--json"]);
    get.ends_with(0);
    assert!(same(&file, &out));
    let figures: serde_json::Value = serde_json::from_str(&get.stdout()).unwrap_or_else(|e| panic!("{e}"));
    let resumed = figures["resumed_pages"].as_u64().unwrap_or_else(|| panic!("no figures: {figures}"));
    assert!(
        resumed >= before,
        "{before} pages were held, but only {resumed} were not fetched again: {figures}"
    );
}

#[test]
fn a_swarm_outlives_its_tracker_and_comes_back_to_it_by_itself() {
    let mut net = Network::new();
    let file = net.path("long.opus");
    media::opus_like(&file, 8_000_000, 4200, 10).unwrap_or_else(|e| panic!("{e}"));
    let (_publisher, url) = net.publish("publisher", &file, &["--up", "2MB"]);
    let (mut get, out) = net.get("receiver", &url, &["--progress", "lines"]);
    let at = get.error_line("some pages", |l| figure(l, "held").filter(|n| *n > 100));
    let (listen, data) = (net.tracker.listen(), net.tracker.data.clone());
    net.tracker.proc.kill();
    // What was assigned goes on without it.
    get.error_line("more pages", |l| figure(l, "held").filter(|n| *n > at));
    net.tracker = Tracker::start(&data, &listen);
    get.ends_with(0);
    assert!(same(&file, &out));
    let view = net.tracker.get("/api/media/long.opus");
    let view: serde_json::Value = serde_json::from_str(&view).unwrap_or_else(|e| panic!("{e}: {view}"));
    assert!(view["hits"].as_u64().is_some_and(|h| h >= 1), "hits are lost: {view}");
}

#[test]
fn pages_of_a_host_that_dies_or_stalls_come_from_others() {
    for how in ["KILL", "STOP"] {
        let net = Network::new();
        let file = net.path("long.opus");
        media::opus_like(&file, 4_000_000, 4200, 11).unwrap_or_else(|e| panic!("{e}"));
        let (_publisher, url) = net.publish("publisher", &file, &["--up", "1MB"]);
        let (host, seed) = net.get("host", &url, &["--up", "1MB", "--share-for", "10m"]);
        host.error_line("that it shares", |l| l.contains("sharing").then_some(()));
        assert!(same(&file, &seed));
        let (mut get, out) = net.get("receiver", &url, &["--progress", "lines"]);
        get.error_line("some pages", |l| figure(l, "held").filter(|n| *n > 50));
        host.signal(how);
        get.ends_with(0);
        assert!(same(&file, &out));
    }
}
