//! A host over QUIC streams that has all pages, and sends them by drops. It gets them as everybody does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use iceshare::driver::{OpenOptions, Peer, PeerConfig};
use iceshare::icet::message::Intent;
use iceshare::icet::stream::EndCode;
use iceshare::icet::{Abilities, Identity, NetKind};
use iceshare::net::Context;
use iceshare::protocol::{
    PayloadProtocol, Piece, Registration, Registry, Request, SettingError, Settings, TransportError,
};
use iceshare::shelf::{Anonymous, Shelf};
use iceshare::store::Target;
use iceshare::stream::{ALPN, IoRead, IoWrite, Lost, Outbound, Server, Timing};
use iceshare_tests::{Network, PATIENCE};

use super::liar::Drops;

/// Fetches as QUIC does, and serves by drops: 1 byte every half second after 3000.
#[derive(Debug)]
struct Dripping(Arc<dyn PayloadProtocol>);

const DROPS: Drops = Drops { free: 3000, each: 1, every: Duration::from_millis(500), head: false };

fn build(settings: &Settings) -> Result<Arc<dyn PayloadProtocol>, SettingError> {
    Ok(Arc::new(Dripping(iceshare_transport_quic::Quic::build(settings)?)))
}

struct Tap<O> {
    out: O,
    free: usize,
    pace: tokio::time::Interval,
}

impl<O: Outbound + Sync> Outbound for Tap<O> {
    async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), Lost> {
        let most = if self.free > 0 {
            self.free
        } else {
            self.pace.tick().await;
            DROPS.each
        };
        let Some(front) = chunks.iter_mut().find(|c| !c.is_empty()) else { return Ok(()) };
        let n = most.min(front.len());
        self.free = self.free.saturating_sub(n);
        let mut part = [front.split_to(n)];
        while !part[0].is_empty() {
            self.out.write(&mut part).await?;
        }
        self.out.flush().await
    }

    async fn finish(&mut self) -> Result<(), Lost> {
        self.out.finish().await
    }

    fn reset(&mut self, code: EndCode) {
        self.out.reset(code);
    }
}

impl PayloadProtocol for Dripping {
    fn abilities(&self) -> Abilities {
        self.0.abilities()
    }

    fn dials(&self) -> Option<NetKind> {
        self.0.dials()
    }

    fn serve(&self, cx: Context, shelf: Arc<Shelf>) -> BoxFuture<'static, Result<String, TransportError>> {
        let mut incoming = cx.accept_quic(ALPN);
        let server = Server { shelf, protocol: cx.protocol().clone(), timing: Timing::default() };
        cx.clone().spawn(async move {
            while let Some((connection, key)) = incoming.recv().await {
                let (server, spawner) = (server.clone(), cx.clone());
                cx.spawn(async move {
                    while let Ok((send, receive)) = connection.accept_bi().await {
                        let server = server.clone();
                        spawner.spawn(async move {
                            let pace = tokio::time::interval(DROPS.every);
                            let out = Tap { out: IoWrite::new(send), free: DROPS.free, pace };
                            let _ = server.answer(IoRead::new(receive), out, Some(key)).await;
                        });
                    }
                });
            }
        });
        Box::pin(async { Ok(String::new()) })
    }

    fn fetch(&self, cx: Context, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
        self.0.fetch(cx, request)
    }
}

/// A peer in this process that has got all of `url`, and is ready to let others wait.
pub(super) async fn join(network: &Network, url: &str) -> Peer {
    let registration = *Registry::linked()
        .expect("a registry")
        .registrations()
        .iter()
        .find(|r| r.name == iceshare_transport_quic::NAME)
        .expect("quic is linked");
    let registration = Registration { build, ..registration };
    let peer = Peer::start(PeerConfig {
        identity: Identity::from_seed(&[0xab; 32]),
        data_dir: network.path("dripper"),
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        up: None,
        down: None,
        protocols: Registry::of([registration]).expect("a registry").build(&[], &[]).expect("protocols"),
        anonymous: Anonymous::Deny,
        agent: "dripper".into(),
    })
    .await
    .expect("a peer");
    let target = Target::File(network.path("dripper.out"));
    let options = OpenOptions::new(Intent::Whole, target);
    let media = peer.open(&url.parse().expect("a link"), options).await.expect("a media");
    let done = tokio::time::timeout(PATIENCE, media.complete(None)).await;
    assert!(matches!(done, Ok(Ok(()))), "{done:?}");
    // It stays in the swarm as long as the peer is there.
    std::mem::forget(media);
    peer
}
