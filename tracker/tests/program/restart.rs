//! A tracker that is killed and started again has lost nothing that it answered for.

use icet::message::{ErrorCode, Locate, Position, ToPeer};
use icet::{MediaPath, NetKind};

use crate::client::Client;
use crate::samples::{identity, media};
use crate::tracker::Tracker;

#[tokio::test]
async fn media_slices_hits_contribution_and_owners_survive_a_kill() {
    let data = tempfile::tempdir().unwrap();
    let tracker = Tracker::start(data.path()).await;
    let key = tracker.key;
    let (m, slices) = media(1, "kept.opus", 3, 6);
    let mut publisher = Client::connect(&tracker, identity(1), NetKind::Udp, &[]).await;
    let epoch = publisher.welcome.epoch;
    let ticket_key = publisher.welcome.ticket_key;
    publisher.until_reached().await;
    publisher.publish(&m, &slices).await.unwrap();
    let mut receiver = Client::connect(&tracker, identity(2), NetKind::Tcp, &[]).await;
    receiver.join(&m.path).await.unwrap();
    let a = receiver.assignment().await;
    publisher.served(&a, &receiver, u64::MAX).await;
    receiver.got(&a, &m, &slices).await;
    receiver.close().await;
    // Figures are written within a second or two: hits, and the contribution of both.
    tracker.until_written("hits", 1).await;
    tracker.until_written("contributions", 2).await;
    let sent = publisher.info(&m.path).await.unwrap().sent;
    assert!(sent > 0);
    // What is answered is durable at that moment.
    let (last, last_slices) = media(1, "published/just/before.opus", 1, 2);
    publisher.publish(&last, &last_slices).await.unwrap();
    tracker.kill().await;

    let tracker = Tracker::start(data.path()).await;
    assert_eq!(tracker.key, key);
    let mut publisher = Client::connect(&tracker, identity(1), NetKind::Tcp, &[]).await;
    assert!(publisher.welcome.epoch > epoch);
    assert_eq!(publisher.welcome.ticket_key, ticket_key, "tickets of before must stay good");
    let info = publisher.info(&m.path).await.unwrap();
    assert_eq!((&info.manifest, info.hits, info.sent), (m.signed(), 1, sent));
    assert_eq!(publisher.info(&last.path).await.unwrap().manifest, *last.signed());
    let mut receiver = Client::connect(&tracker, identity(2), NetKind::Udp, &[]).await;
    assert_eq!(receiver.info(&m.path).await.unwrap().received, sent);
    for page in [0, 100, 383] {
        receiver.send(Locate { request: page, media: m.id(), at: Position::Page(page) }).await;
        let found = receiver
            .expect("slices", |m| match m {
                ToPeer::Slices(s) if s.request == page => Some(s.slices.clone()),
                _ => None,
            })
            .await;
        let at = found.iter().find(|s| s.verify(&m).unwrap().page(page).is_some());
        assert!(at.is_some(), "page {page}");
    }
    let (theirs, their_slices) = media(2, "kept.opus", 9, 1);
    let refused = receiver.publish(&theirs, &their_slices).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::OWNED);
    let list = tracker.get("/api/media").await;
    assert_eq!(list["total"], 2);

    // Joining counts on.
    let answer = receiver.join(&MediaPath::new("kept.opus").unwrap()).await.unwrap();
    assert_eq!(answer.hits, 2);
}
