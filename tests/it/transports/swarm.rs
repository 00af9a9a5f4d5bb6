//! Whole swarms (tracker, publisher, receivers, all in this process) over protocols that only tests have.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use iceshare::icet::message::Intent;
use iceshare::icet::{IcetUrl, Identity};
use iceshare::protocol::{Registration, Registry};
use iceshare::publish::{Publish, scan};
use iceshare::shelf::Anonymous;
use iceshare::store::Target;
use iceshare::{OpenOptions, Peer, PeerConfig};
use iceshare_tests::{PATIENCE, media, same};
use tempfile::TempDir;

use super::{registration_bytes, registration_gappy};

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn peer(seed: u8, folder: &Path, protocols: &[Registration]) -> Peer {
    Peer::start(PeerConfig {
        identity: Identity::from_seed(&[seed; 32]),
        data_dir: folder.join(format!("peer-{seed}")),
        listen: vec![any_port()],
        up: None,
        down: None,
        protocols: Registry::of(protocols.iter().copied()).unwrap().build(&[], &[]).unwrap(),
        anonymous: Anonymous::Deny,
        agent: "test".to_owned(),
    })
    .await
    .unwrap()
}

/// One publisher, two receivers: each ends with the identical file, over these protocols and no other.
async fn fetch_over(protocols: &[Registration]) {
    let dir = TempDir::new().unwrap();
    let options = icetracker::server::Options {
        listen: vec![any_port()],
        web: None,
        ..icetracker::server::Options::new(dir.path().join("tracker"))
    };
    let tracker = icetracker::server::run(options).await.unwrap();
    let at = tracker.icet()[0];
    let url = IcetUrl {
        host: at.ip().to_string(),
        port: at.port(),
        path: None,
        key: None,
        tracker: Some(tracker.key()),
    };
    let file = dir.path().join("a.opus");
    media::opus_like(&file, 1_000_000, 4200, 5).unwrap();
    let origin = peer(1, dir.path(), protocols).await;
    let publish =
        Publish { file: file.clone(), path: "music/a.opus".parse().unwrap(), title: None, repair_to: None };
    let (store, identity) = (origin.store().clone(), Identity::from_seed(&[1; 32]));
    let prepared = scan(&store, &identity, &publish, &mut |_| {}).unwrap();
    let published = origin.publish(&url, &prepared).await.unwrap();
    let mut receivers = Vec::new();
    for seed in [2, 3] {
        let receiver = peer(seed, dir.path(), protocols).await;
        let out = dir.path().join(format!("out-{seed}.opus"));
        let options = OpenOptions::new(Intent::Whole, Target::File(out.clone()));
        let media = receiver.open(&published.url(), options).await.unwrap();
        receivers.push((receiver, media, out));
    }
    for (_, media, out) in &receivers {
        let done = tokio::time::timeout(PATIENCE, media.complete(Some(Duration::from_secs(60)))).await;
        assert!(matches!(done, Ok(Ok(()))), "{done:?}, {:?}", media.progress());
        assert!(same(&file, out));
        let progress = media.progress();
        let came: u64 = progress.flows.values().map(|f| f.pages).sum();
        assert_eq!((progress.resumed, came), (0, progress.pages + progress.duplicates), "{progress:?}");
        let used: Vec<_> = progress.flows.into_keys().map(|(_, p)| p.to_string()).collect();
        assert!(used.iter().all(|u| protocols.iter().any(|p| p.name == u)), "{used:?}");
    }
    for (receiver, ..) in receivers {
        receiver.shutdown().await;
    }
    origin.shutdown().await;
}

#[tokio::test]
async fn a_swarm_over_lossy_datagrams_alone() {
    fetch_over(&[registration_gappy()]).await;
}

#[tokio::test]
async fn a_swarm_over_bare_byte_ranges_alone() {
    fetch_over(&[registration_bytes()]).await;
}

#[tokio::test]
async fn a_swarm_over_everything_at_once() {
    fetch_over(&[registration_gappy(), registration_bytes(), crate::http::http()]).await;
}
