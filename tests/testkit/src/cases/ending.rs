//! Shutdowns.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use iceshare::icet::PageSet;
use iceshare::protocol::{Piece, TransportError};
use iceshare::shelf::Anonymous;
use tokio::time::{Instant, timeout};

use super::cancel::released;
use crate::failure::ensure;
use crate::media::{self, Media};
use crate::world::{next, path};
use crate::{Failure, Options, Peer, Subject, World, observe};

/// How soon all must be over.
const SOON: Duration = Duration::from_secs(10);

type Stream = BoxStream<'static, Result<Piece, TransportError>>;

/// Requests that take a minute, each with a first piece.
async fn running(s: &Subject) -> Result<(World, Media, PageSet, Vec<Stream>), Failure> {
    let world = World::with(s, Options { up: Some(100_000), anonymous: Anonymous::Deny }).await?;
    let media = world.host.publish(&path("long")?, &media::pages(3, media::even(1500, 4000)))?;
    let all = PageSet::range(0, media.pages() - 1);
    let mut streams = Vec::new();
    for number in 1..=3 {
        let mut stream = world.stream(world.ticketed(&media, world.unit(&media, all), all, number));
        let first = next(&mut stream).await?;
        ensure!(matches!(first, Some(Ok(_))), "a good request: {first:?}");
        streams.push(stream);
    }
    Ok((world, media, all, streams))
}

async fn all_end(streams: &mut [Stream], media: &Media) -> Result<(), Failure> {
    for stream in streams {
        let mut came = 0;
        let end = timeout(SOON, async {
            loop {
                match stream.next().await {
                    Some(Ok(Piece::Bytes(b))) => came += b.len() as u64,
                    Some(Ok(_)) => {}
                    Some(Err(e)) => return Err(e),
                    None => return Ok(()),
                }
            }
        });
        match end.await {
            Err(_) => return Err(Failure::new(format!("a fetch has not ended {} s later", SOON.as_secs()))),
            Ok(Err(_)) => {}
            Ok(Ok(())) => {
                ensure!(came >= media.len() / 2, "a fetch ended well, though the rest of it never came");
            }
        }
    }
    Ok(())
}

async fn shut_down(peer: &Peer, who: &str) -> Result<(), Failure> {
    let late = |_| Failure::new(format!("the {who}'s shutdown takes more than {} s", SOON.as_secs()));
    timeout(SOON, peer.net.shutdown()).await.map_err(late)
}

/// All tasks but this case are over.
async fn nothing_left() -> Result<(), Failure> {
    observe::until(SOON, || match observe::tasks() {
        0 | 1 => Ok(()),
        n => Err(format!("{} tasks live on after the shutdown: use Context::spawn", n - 1)),
    })
    .await
}

pub(super) async fn host_shuts_down(s: &Subject) -> Result<(), Failure> {
    let (world, media, _, mut streams) = running(s).await?;
    shut_down(&world.host, "host").await?;
    all_end(&mut streams, &media).await?;
    drop(streams);
    shut_down(&world.receiver, "receiver").await?;
    drop(world);
    nothing_left().await
}

pub(super) async fn receiver_shuts_down(s: &Subject) -> Result<(), Failure> {
    let (world, media, all, mut streams) = running(s).await?;
    shut_down(&world.receiver, "receiver").await?;
    all_end(&mut streams, &media).await?;
    drop(streams);
    // Who asks all the same is told.
    let request = world.ticketed(&media, world.unit(&media, all), all, 9);
    let (_, end) = world.anything(request, media.len(), SOON).await?;
    ensure!(matches!(end, Some(Err(_))), "a fetch after the shutdown: {end:?}");
    // The host has ended what it served: another receiver may use the tickets.
    let World { subject, host, receiver, .. } = world;
    let identity = receiver.identity.clone();
    drop(receiver);
    let receiver = Peer::start_as(&subject, identity, Options::default()).await?;
    let world = World { subject, host, receiver, route: None, network: None };
    for number in 1..=3 {
        released(&world, &media, all, number).await?;
    }
    shut_down(&world.receiver, "receiver").await?;
    shut_down(&world.host, "host").await?;
    drop(world);
    nothing_left().await
}

/// Well below the grace that tasks have: who takes that much waits for something that does not come.
const AT_ONCE: Duration = Duration::from_millis(1500);

pub(super) async fn nothing_holds_a_peer_up(s: &Subject) -> Result<(), Failure> {
    let mut slowest = (Duration::ZERO, "");
    // The machine may be busy with something else, but not every time.
    for _ in 0..3 {
        let world = World::new(s).await?;
        let media = world.music(60)?;
        for _ in 0..3 {
            world.whole(&media, world.unit(&media, PageSet::range(0, 20))).await?;
        }
        slowest = (Duration::ZERO, "");
        for (peer, who) in [(&world.receiver, "receiver"), (&world.host, "host")] {
            let begun = Instant::now();
            shut_down(peer, who).await?;
            slowest = slowest.max((begun.elapsed(), who));
        }
        if slowest.0 <= AT_ONCE {
            return Ok(());
        }
    }
    Err(Failure::new(format!("with nothing to do, the {}'s shutdown takes {:?}", slowest.1, slowest.0)))
}
