//! Both carriers, one flight, names that are owned, and what strangers may not do.

use icet::message::{ErrorCode, Locate, Ping, Position, ToPeer};
use icet::{MediaPath, NetKind};

use crate::client::{Client, join, publish};
use crate::samples::{identity, manifest, media};
use crate::tracker::Tracker;

#[tokio::test]
async fn published_over_quic_and_joined_over_tls_in_one_flight_each() {
    let data = tempfile::tempdir().unwrap();
    let tracker = Tracker::start(data.path()).await;
    let (m, slices) = media(1, "music/one.opus", 1, 4);

    let flight = [publish(7, &m, &slices).into()];
    let mut publisher = Client::connect(&tracker, identity(1), NetKind::Udp, &flight).await;
    let answer = publisher.answer(7).await.unwrap();
    assert_eq!((&answer.manifest, answer.media), (m.signed(), m.id()));
    publisher.until_reached().await;

    let flight = [join(9, &m.path).into()];
    let mut receiver = Client::connect(&tracker, identity(2), NetKind::Tcp, &flight).await;
    assert_eq!(receiver.welcome.observed.kind, NetKind::Tcp);
    let answer = receiver.answer(9).await.unwrap();
    assert_eq!((&answer.manifest, answer.hits, answer.listeners), (m.signed(), 1, 1));
    assert!(!answer.slices.is_empty(), "nothing for first sound");
    for slice in &answer.slices {
        slice.verify(&m).unwrap();
    }

    // The ticket admits the receiver at the publisher, and what both say of it counts for both.
    let a = receiver.assignment().await;
    assert_eq!(a.source.host.key, publisher.identity.key());
    assert!(!a.source.host.addrs.is_empty());
    publisher.served(&a, &receiver, u64::MAX).await;
    let bytes = receiver.got(&a, &m, &slices).await;
    tracker.until("/api/status", |s| !s.contains("\"pages\":0,")).await;
    let sent = publisher.info(&m.path).await.unwrap().sent;
    // Whatever the host claims: no more than the assignment had, as the page table tells it.
    assert!(sent > 0 && sent < 2 * bytes, "{sent} of {bytes}");

    // Any slice, by page, byte and time.
    for (i, at) in
        [Position::Page(130), Position::Byte(m.bytes - 1), Position::Time(70_000_000)].into_iter().enumerate()
    {
        let request = 50 + i as u64;
        receiver.send(Locate { request, media: m.id(), at }).await;
        let found = receiver
            .expect("slices", |m| match m {
                ToPeer::Slices(s) if s.request == request => Some(s.slices.clone()),
                _ => None,
            })
            .await;
        assert!(!found.is_empty(), "{at:?}");
        found.iter().for_each(|s| assert!(s.verify(&m).is_ok()));
    }
    publisher.close().await;
    receiver.close().await;
    assert_eq!(tracker.terminate().await, Some(0));
}

#[tokio::test]
async fn a_path_belongs_to_the_key_that_took_it_first() {
    let data = tempfile::tempdir().unwrap();
    let tracker = Tracker::start(data.path()).await;
    let (m, slices) = media(1, "a/path", 2, 1);
    let mut owner = Client::connect(&tracker, identity(1), NetKind::Tcp, &[]).await;
    owner.publish(&m, &slices).await.unwrap();
    let (theirs, their_slices) = media(2, "a/path", 9, 1);
    let mut other = Client::connect(&tracker, identity(2), NetKind::Udp, &[]).await;
    let e = other.publish(&theirs, &their_slices).await.unwrap_err();
    assert_eq!(e.code, ErrorCode::OWNED, "{e:?}");
    // Nor may a key publish what another signed, or roll back.
    let (old, old_slices) = media(1, "a/path", 1, 1);
    assert_eq!(owner.publish(&old, &old_slices).await.unwrap_err().code, ErrorCode::ROLLBACK);
    assert!(other.publish(&old, &old_slices).await.is_err());
    assert_eq!(other.info(&m.path).await.unwrap().manifest, *m.signed());
    let nothing = MediaPath::new("no/such").unwrap();
    assert_eq!(other.join(&nothing).await.unwrap_err().code, ErrorCode::NO_MEDIA);
}

#[tokio::test]
async fn a_tracker_that_stops_says_so() {
    let data = tempfile::tempdir().unwrap();
    let tracker = Tracker::start(data.path()).await;
    let mut peer = Client::connect(&tracker, identity(1), NetKind::Udp, &[]).await;
    peer.send(Ping { nonce: 5 }).await;
    peer.expect("pong", |m| matches!(m, ToPeer::Pong(p) if p.nonce == 5).then_some(())).await;
    let m = manifest(1, "kept", 1, "", &[]);
    peer.publish(&m, &[]).await.unwrap();
    assert_eq!(tracker.terminate().await, Some(0));
    let e = peer.end().await;
    assert!(e.contains("the tracker stops"), "{e}");
}
