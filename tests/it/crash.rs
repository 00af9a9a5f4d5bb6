//! Processes that die: receivers, hosts, the tracker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use iceshare_tests::{Network, Proc, Tracker, media, same};

/// How many pages the last line of progress names.
fn figure_now(get: &Proc) -> u64 {
    get.stderr().lines().filter_map(|l| figure(l, "held")).next_back().unwrap_or(0)
}

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
    let sum: u64 = figures["pages_by_protocol"]
        .as_object()
        .map_or(0, |by| by.values().filter_map(serde_json::Value::as_u64).sum());
    let twice = figures["duplicate_pages"].as_u64().expect("a number");
    assert_eq!(figures["pages"].as_u64().map(|all| all + twice), Some(resumed + sum), "{figures}");
}

/// Bytes sent and received by key, once the tracker has so many peers, and some have sent and received.
fn contribution(tracker: &Tracker, peers: usize) -> BTreeMap<String, (u64, u64)> {
    tracker.until("/api/peers", &format!("what {peers} peers have given"), |body| {
        let told: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
        let of = |p: &serde_json::Value| {
            Some((p["key"].as_str()?.to_owned(), (p["sent"].as_u64()?, p["received"].as_u64()?)))
        };
        let told: BTreeMap<_, _> = told["peers"].as_array()?.iter().filter_map(of).collect();
        let all = told.values().fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        (told.len() == peers && all.0 > 0 && all.1 > 0).then_some(told)
    })
}

/// Changes of contributions that are on disk.
fn written(metrics: &str) -> u64 {
    let metric = "icetracker_catalogue_writes_total{kind=\"contributions\"} ";
    metrics.lines().find_map(|l| l.strip_prefix(metric)?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_swarm_outlives_its_tracker_and_comes_back_to_it_by_itself() {
    const PEERS: usize = 3;
    let mut net = Network::new();
    let file = net.path("long.opus");
    media::opus_like(&file, 12_000_000, 4200, 10).unwrap_or_else(|e| panic!("{e}"));
    let (_publisher, url) = net.publish("publisher", &file, &["--up", "1MB"]);
    let more = ["--progress", "lines", "--share-for", "10m"];
    let mut crowd: Vec<_> = (0..2).map(|i| net.get(&format!("receiver-{i}"), &url, &more)).collect();
    let held =
        |get: &Proc, more: u64| get.error_line("more pages", |l| figure(l, "held").filter(|n| *n > more));
    for (get, _) in &crowd {
        held(get, 100);
    }
    let before = contribution(&net.tracker, PEERS);
    // A write holds every key at most once: with the third one from now, these figures are on disk.
    let write = written(&net.tracker.get("/metrics"));
    let enough = |metrics: &str| (written(metrics) >= write + 3 * PEERS as u64).then_some(());
    net.tracker.until("/metrics", "that it wrote contributions", enough);
    let (listen, data) = (net.tracker.listen(), net.tracker.data.clone());
    net.tracker.proc.kill();
    // Fetches go on without it: what was assigned (half a second's work), and then from who was held in reserve.
    for (get, _) in &crowd {
        let at = figure_now(get);
        held(get, at + 300);
    }
    net.tracker = Tracker::start(&data, &listen);
    let after = contribution(&net.tracker, PEERS);
    for (key, (sent, received)) in &before {
        let kept = after.get(key).is_some_and(|(s, r)| s >= sent && r >= received);
        assert!(kept, "{key} had sent {sent} and received {received} bytes; now {after:?}");
    }
    for (get, out) in &mut crowd {
        get.error_line("that it is complete and shares", |l| l.contains("sharing").then_some(()));
        assert!(same(&file, out));
    }
    let view = net.tracker.get("/api/media/long.opus");
    let view: serde_json::Value = serde_json::from_str(&view).unwrap_or_else(|e| panic!("{e}: {view}"));
    // Each receiver once: it came back, that is no other hit.
    assert_eq!(view["hits"], crowd.len(), "hits: {view}");
}

#[test]
fn receivers_that_are_killed_take_nothing_from_who_comes_next() {
    let cases: &[&str] = if iceshare_tests::long() { &["quic", "udp", "libp2p", "http"] } else { &["quic"] };
    for protocol in cases {
        let net = Network::new();
        let file = net.path("long.opus");
        media::opus_like(&file, 30_000_000, 4200, 12).unwrap_or_else(|e| panic!("{e}"));
        let (_publisher, url) = net.publish("publisher", &file, &["--up", "2MB"]);
        let more = ["--transport", protocol, "--progress", "lines"];
        let held = |get: &Proc, more: u64| {
            get.error_line("more pages", |l| figure(l, "held").filter(|n| *n > more));
        };
        let mut crowd: Vec<_> = (0..8).map(|i| net.get(&format!("receiver-{i}"), &url, &more).0).collect();
        crowd.iter().for_each(|get| held(get, 0));
        crowd.iter_mut().for_each(Proc::kill);
        let from = Instant::now();
        let (get, _) = net.get("next", &url, &more);
        held(&get, 0);
        let first = from.elapsed();
        // About 4 MB: what all eight were ordered, and did not take, is no more than that.
        held(&get, 1000);
        let after = from.elapsed();
        eprintln!("{protocol}: its first page after {first:?}, 1000 pages after {after:?}");
        // About 0.6 and 2.7 s; a busy machine takes its time.
        assert!(
            first < Duration::from_secs(3) && after < Duration::from_secs(8),
            "{protocol}: {first:?}, {after:?}"
        );
    }
}

#[test]
fn pages_of_a_host_that_dies_or_stalls_come_from_others() {
    // Over everything, and where there is only one protocol, so that nobody can go over to another carrier.
    const ALL: &str = "http,libp2p,quic,udp";
    let mut cases = vec![(ALL, "STOP"), ("quic", "KILL"), ("udp", "STOP")];
    if iceshare_tests::long() {
        let others = [(ALL, "KILL"), ("quic", "STOP"), ("udp", "KILL"), ("libp2p", "STOP")];
        cases.extend(others.into_iter().chain([("libp2p", "KILL"), ("http", "STOP"), ("http", "KILL")]));
    }
    for (protocols, how) in cases {
        let net = Network::new();
        let file = net.path("long.opus");
        media::opus_like(&file, 2_500_000, 4200, 11).unwrap_or_else(|e| panic!("{e}"));
        let (_publisher, url) = net.publish("publisher", &file, &[]);
        // Who holds all is asked before the publisher.
        let (mut host, seed) = net.get("host", &url, &["--share-for", "10m"]);
        host.error_line("that it shares", |l| l.contains("sharing").then_some(()));
        assert!(same(&file, &seed));
        let more = ["--progress", "lines", "--transport", protocols, "--down", "1MB"];
        let (mut get, out) = net.get("receiver", &url, &more);
        get.error_line("some pages", |l| figure(l, "held").filter(|n| *n > 50));
        let (from, at) = (Instant::now(), figure_now(&get));
        host.signal(how);
        // More than what was on its way from the other one.
        get.error_line("pages of others", |l| figure(l, "held").filter(|n| *n > at + 250));
        let after = from.elapsed();
        get.ends_with(0);
        assert!(same(&file, &out));
        // A frozen host's session still stands, and a killed one's over QUIC. The tracker has asked after it.
        let away = |body: &str| {
            let told: serde_json::Value =
                serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}"));
            told["peers"].as_array()?.iter().filter(|p| p["away"] == true).count().checked_sub(1)
        };
        if how == "STOP" && iceshare_tests::long() {
            net.tracker.until("/api/peers", "that a host does not answer", away);
            host.signal("CONT");
            net.tracker
                .until("/api/peers", "that it answers again", |body| away(body).is_none().then_some(()));
        }
        host.kill();
        eprintln!("{how} of a host, over {protocols}: 250 more pages after {after:?}");
        // It takes a second to notice, and another one to send; a busy machine takes its time.
        assert!(after < Duration::from_secs(15), "{how}, {protocols}: {after:?}");
    }
}
