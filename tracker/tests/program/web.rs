//! The page, the JSON API and the metrics.

use icet::NetKind;

use crate::client::Client;
use crate::samples::{identity, manifest, media};
use crate::tracker::Tracker;

#[tokio::test]
async fn the_api_tells_what_there_is() {
    let data = tempfile::tempdir().unwrap();
    let tracker = Tracker::start(data.path()).await;
    assert_eq!(tracker.request("/healthz").await.1, "ok\n");
    let mut publisher = Client::connect(&tracker, identity(1), NetKind::Udp, &[]).await;
    let (m, slices) = media(1, "a b/ü.opus", 1, 2);
    publisher.publish(&m, &slices).await.unwrap();
    let hostile = "<script>alert(1)</script>\u{1b}[2J\"";
    publisher.publish(&manifest(1, "b/hostile", 1, hostile, &[("ARTIST", "Nobody")]), &[]).await.unwrap();
    for i in 0..5 {
        let path = format!("many/{i}");
        publisher.publish(&manifest(1, &path, 1, "One of many", &[]), &[]).await.unwrap();
    }
    publisher.until_reached().await;
    let mut receiver = Client::connect(&tracker, identity(2), NetKind::Tcp, &[]).await;
    receiver.join(&m.path).await.unwrap();
    tracker.until("/api/status", |s| s.contains("\"listeners\":1,")).await;

    let status = tracker.get("/api/status").await;
    assert_eq!((&status["key"], &status["media"]), (&tracker.key.to_string().into(), &7.into()));
    assert_eq!(status["sessions_opened"], serde_json::json!({"quic": 1, "tls": 1, "cut_for_not_reading": 0}));
    assert_eq!(status["port"], tracker.icet.port());

    // Search, paging.
    let found = tracker.get("/api/media?q=NOBODY%20hostile").await;
    assert_eq!(found["media"][0]["title"], hostile);
    assert_eq!(found["media"].as_array().unwrap().len(), 1);
    assert_eq!(found["total"], 1);
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = tracker.get(&format!("/api/media?limit=3{after}")).await;
        seen.extend(page["media"].as_array().unwrap().iter().map(|m| m["path"].as_str().unwrap().to_owned()));
        assert_eq!(page["total"], 7);
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen, ["a b/ü.opus", "b/hostile", "many/0", "many/1", "many/2", "many/3", "many/4"]);

    // One media.
    let one = tracker.get("/api/media/a%20b/%C3%BC.opus").await;
    assert_eq!(
        (&one["id"], &one["listeners"], &one["hits"]),
        (&m.id().to_string().into(), &1.into(), &1.into())
    );
    assert_eq!((&one["pages"], &one["bytes"]), (&m.pages.into(), &m.bytes.into()));
    assert_eq!(one["complete_holders"], 1);
    let availability = one["availability"].as_array().unwrap();
    assert!((1..=64).contains(&availability.len()), "{one}");
    assert!(availability.iter().all(|a| a["least"] == 1), "{one}");
    let link: icet::IcetUrl = format!("icet://x{}", one["link"].as_str().unwrap()).parse().unwrap();
    assert_eq!(
        (link.path.as_ref(), link.key, link.tracker),
        (Some(&m.path), Some(m.publisher), Some(tracker.key))
    );

    // Peers: who, never where.
    let peers = tracker.get("/api/peers").await;
    assert_eq!(peers["total"], 2);
    let shorts: Vec<_> = peers["peers"].as_array().unwrap().iter().map(|p| p["key"].clone()).collect();
    assert!(shorts.contains(&identity(1).key().short().into()), "{peers}");
    assert!(!peers.to_string().contains("127.0.0.1"), "{peers}");
    let protocols = tracker.get("/api/protocols").await;
    assert_eq!(protocols["protocols"][0]["name"], "http");
    assert_eq!(protocols["protocols"][0]["hosts"], 2);

    let metrics = tracker.request("/metrics").await.1;
    for line in [
        "icetracker_media 7",
        "icetracker_sessions 2",
        "icetracker_sessions_opened_total{carrier=\"quic\"} 1",
        "icetracker_protocol_hosts{protocol=\"http\"} 2",
        "icetracker_catalogue_writes_total{kind=\"manifests\"} 7",
    ] {
        assert!(metrics.lines().any(|l| l == line), "no {line:?} in\n{metrics}");
    }
}

#[tokio::test]
async fn the_page_is_whole_and_closed_to_foreign_scripts() {
    let data = tempfile::tempdir().unwrap();
    let tracker = Tracker::start(data.path()).await;
    let (status, page, headers) = tracker.request("/").await;
    assert_eq!((status, &headers["content-type"]), (200, &"text/html; charset=utf-8".parse().unwrap()));
    assert!(headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["access-control-allow-origin"], "*");
    // What it loads is there, and comes from nowhere else.
    for (name, kind) in
        [("page.js", "text/javascript; charset=utf-8"), ("page.css", "text/css; charset=utf-8")]
    {
        assert!(page.contains(name));
        let (status, text, headers) = tracker.request(&format!("/{name}")).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (200, kind));
        assert!(!text.contains("http:") && !text.contains("https:") && !text.contains("innerHTML"), "{name}");
    }
    assert!(!page.contains("http:") && !page.contains("https:"));
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_in_json() {
    let data = tempfile::tempdir().unwrap();
    let tracker = Tracker::start(data.path()).await;
    let long = format!("/api/media?q={}", "x".repeat(300));
    let much = format!("/api/media?q={}", "x".repeat(10_000));
    for (path, status) in [
        ("/api/media/no/such", 404),
        ("/api/media/..%2f..%2fetc", 400),
        ("/api/media/%ff", 400),
        ("/api/media?limit=many", 400),
        ("/api/media?limit=0", 400),
        ("/api/media?limit=1&limit=2", 400),
        ("/api/peers?skip=-1", 400),
        ("/api/media?limit=201", 400),
        ("/api/peers?limit=0", 400),
        (&long, 400),
        ("/elsewhere", 404),
        (&much, 414),
    ] {
        let (got, body, headers) = tracker.request(path).await;
        assert_eq!(got, status, "{path}: {body}");
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(body["error"].is_string(), "{path}: {body}");
    }
}
