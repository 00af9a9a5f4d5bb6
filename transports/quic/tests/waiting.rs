//! Requests that are not read hold up no other: one connection carries all of them.

use std::time::Duration;

use iceshare::icet::PageSet;
use iceshare::protocol::What;
use iceshare_testkit::world::{next, path};
use iceshare_testkit::{Failure, Subject, World, media, observe};
use iceshare_transport_quic as _;

/// As many as core has under way at one host.
const WAITING: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_pages_is_sent_their_proofs_meanwhile() -> Result<(), Failure> {
    let world = World::new(&Subject::linked("quic")).await?;
    let media = world.host.publish(&path("large")?, &media::pages(4, media::even(80, media::LARGEST)))?;
    let mut waiting = Vec::new();
    for _ in 0..WAITING {
        let what = What::Pages(PageSet::range(0, media.pages() - 1));
        let mut stream = world.stream(world.request(&media, what));
        if next(&mut stream).await?.transpose()?.is_none() {
            return Err(Failure::new("it ended before anything came"));
        }
        waiting.push(stream);
    }
    // Until all buffers are full.
    observe::settled(Duration::from_millis(1500), Duration::from_secs(60), || world.host.served()).await?;
    let last = media.store.manifest().slices() - 1;
    world.whole(&media, What::Proofs { first: 0, last }).await?;
    drop(waiting);
    world.end().await;
    Ok(())
}
