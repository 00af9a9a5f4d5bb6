//! Peers that do not read, and a disk that is full.

use std::time::Duration;

use icet::message::{ErrorCode, InfoRequest, Ping, ToPeer};
use icet::{NetKind, SignedManifest};

use crate::client::Client;
use crate::samples::{identity, manifest, media};
use crate::tracker::Tracker;

/// A manifest of about 60 kB.
fn large(path: &str) -> SignedManifest {
    let value = "x".repeat(1000);
    let tags: Vec<(&str, &str)> = (0..60).map(|_| ("COMMENT", value.as_str())).collect();
    manifest(1, path, 1, "large", &tags)
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_and_nobody_waits_for_it() {
    let data = tempfile::tempdir().unwrap();
    let tracker = Tracker::start(data.path()).await;
    let m = large("large");
    let mut good = Client::connect(&tracker, identity(1), NetKind::Udp, &[]).await;
    good.publish(&m, &[]).await.unwrap();
    let mut lazy = Vec::new();
    for (i, carrier) in [NetKind::Udp, NetKind::Tcp].into_iter().enumerate() {
        let peer = Client::connect(&tracker, identity(10 + u8::try_from(i).unwrap()), carrier, &[]).await;
        // 60 MB of answers, none of which is taken.
        for request in 0..1000 {
            peer.send(InfoRequest { request, path: m.path.clone() }).await;
        }
        lazy.push(peer);
        good.send(Ping { nonce: i as u64 }).await;
        good.expect("pong", |m| matches!(m, ToPeer::Pong(p) if p.nonce == i as u64).then_some(())).await;
    }
    tracker.until("/api/status", |s| s.contains("\"cut_for_not_reading\":2")).await;
    tracker.until("/api/status", |s| s.contains("\"sessions\":1,")).await;
    for mut peer in lazy {
        peer.end().await;
    }
    good.info(&m.path).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_confirmed() {
    let data = tempfile::tempdir().unwrap();
    // Files may not grow beyond 512 KiB (1024 blocks of 512 bytes), which fails as a full disk does.
    let tracker = Tracker::start_limited(data.path(), "trap '' XFSZ; ulimit -f 1024").await;
    let mut peer = Client::connect(&tracker, identity(1), NetKind::Udp, &[]).await;
    let kept = manifest(1, "kept", 1, "", &[]);
    peer.publish(&kept, &[]).await.unwrap();
    let mut refused = None;
    for i in 0..40 {
        match peer.publish(&large(&format!("large/{i}")), &[]).await {
            Ok(_) => {}
            Err(e) => {
                refused = Some(e);
                break;
            }
        }
    }
    let e = refused.expect("40 manifests of 60 kB fit into 512 KiB");
    assert_eq!(e.code, ErrorCode::INTERNAL, "{e:?}");
    assert!(e.text.contains("the tracker cannot keep it") && e.retry.is_some(), "{e:?}");
    let (status, body, _) = tracker.request("/healthz").await;
    assert_eq!(status, 503, "{body}");
    // It goes on with what it has, and says so when it is stopped.
    peer.info(&kept.path).await.unwrap();
    assert_eq!(tracker.terminate().await, Some(1));

    // With room again it has what it had confirmed.
    let tracker = Tracker::start(data.path()).await;
    let mut peer = Client::connect(&tracker, identity(1), NetKind::Tcp, &[]).await;
    assert_eq!(peer.info(&kept.path).await.unwrap().manifest, *kept.signed());
    assert_eq!(tracker.request("/healthz").await.0, 200);
}

/// Not a judgement, a figure: `cargo test -p icetracker --test program -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "measures"]
async fn measure() {
    let data = tempfile::tempdir().unwrap();
    let tracker = Tracker::start(data.path()).await;
    // As many slices as 1 GiB of 4 KiB pages has.
    let (m, slices) = media(1, "gib", 1, 4096);
    let mut peer = Client::connect(&tracker, identity(1), NetKind::Udp, &[]).await;
    let start = std::time::Instant::now();
    peer.publish(&m, &slices[..1]).await.unwrap();
    for chunk in slices[1..].chunks(64) {
        peer.send(icet::message::Slices { media: m.id(), request: 0, slices: chunk.to_vec() }).await;
    }
    tracker.until_written("slices", 4096).await;
    eprintln!("4096 slices published and durable: {:?}", start.elapsed());
    let start = std::time::Instant::now();
    for nonce in 0..2000 {
        peer.send(Ping { nonce }).await;
        peer.expect("pong", |m| matches!(m, ToPeer::Pong(p) if p.nonce == nonce).then_some(())).await;
    }
    eprintln!("round trip of a message: {:?}", start.elapsed() / 2000);
    let mut took = Duration::ZERO;
    for i in 0..20 {
        let (start, carrier) =
            (std::time::Instant::now(), if i % 2 == 0 { NetKind::Udp } else { NetKind::Tcp });
        let flight = [crate::client::join(1, &m.path).into()];
        let mut other = Client::connect(&tracker, identity(100 + i), carrier, &flight).await;
        other.answer(1).await.unwrap();
        took += start.elapsed();
    }
    eprintln!("from nothing to the answer of a join: {:?}", took / 20);
}
