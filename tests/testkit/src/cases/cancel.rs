//! Dropping a stream cancels its request.

use std::time::Duration;

use iceshare::icet::PageSet;
use iceshare::protocol::{ErrorKind, Piece, What};
use iceshare::shelf::Anonymous;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::arriving::{begun, give};
use crate::failure::ensure;
use crate::media::{self, Media};
use crate::receive::Expected;
use crate::world::{next, path};
use crate::{Failure, Options, Subject, World, observe};

/// How soon a host must have heard of it: a round trip, on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(5);

/// Waits until the ticket is free: the host has then ended the request that used it.
pub(super) async fn released(
    world: &World,
    media: &Media,
    pages: PageSet,
    number: u64,
) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let probe = world.unit(media, PageSet::range(0, 0));
    let expected = Expected::of(media, probe.clone());
    let mut ticks = interval(Duration::from_millis(50));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let request = world.ticketed(media, probe.clone(), pages, number);
        match world.fetch(request, &expected).await?.1 {
            Ok(()) => return Ok(begun.elapsed()),
            Err(e) if e.kind == ErrorKind::Busy => {}
            Err(e) => return Err(Failure::from(e).when("another request with the ticket")),
        }
        ensure!(
            begun.elapsed() < SOON,
            "{} s after it was dropped, the host still works on the request",
            SOON.as_secs()
        );
    }
}

pub(super) async fn nothing_before_the_first_poll(s: &Subject) -> Result<(), Failure> {
    let world = World::with(s, Options { anonymous: Anonymous::Deny, ..Options::default() }).await?;
    let media = world.music(60)?;
    let all = PageSet::range(0, 40);
    let what = world.unit(&media, all);
    let idle = world.stream(world.ticketed(&media, what.clone(), all, 1));
    // The ticket would be in use.
    let expected = Expected::of(&media, what.clone());
    let (_, end) = world.fetch(world.ticketed(&media, what, all, 1), &expected).await?;
    end.map_err(|e| Failure::from(e).when("the second stream, while the first was never polled"))?;
    drop(idle);
    let denied = world.host.shelf.served_totals().denied;
    ensure!(
        denied == 0,
        "one request was sent, and {denied} denied: another came of the stream that was never polled"
    );
    world.end().await;
    Ok(())
}

pub(super) async fn dropping_stops_the_host(s: &Subject) -> Result<(), Failure> {
    let up = 1_000_000;
    let options = Options { up: Some(up), anonymous: Anonymous::Deny };
    let world = World::with(s, options).await?;
    let media = world.host.publish(&path("long")?, &media::pages(3, media::even(2000, 6000)))?;
    let all = PageSet::range(0, media.pages() - 1);
    for number in 1..=3 {
        let mut stream = world.stream(world.ticketed(&media, world.unit(&media, all), all, number));
        let mut came = 0;
        while came < 100_000 {
            match next(&mut stream).await? {
                Some(Ok(Piece::Bytes(b))) => came += b.len(),
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(e.into()),
                None => return Err(Failure::new(format!("it ended after {came} of {} bytes", media.len()))),
            }
        }
        let served = world.host.served();
        drop(stream);
        let took = released(&world, &media, all, number).await?;
        let most = up / 1000 * u64::try_from(took.as_millis()).unwrap_or(u64::MAX) + 512 * 1024;
        let more = world.host.served() - served;
        ensure!(more <= most, "{more} bytes were served after the stream was dropped, in {took:?}");
    }
    world.end().await;
    Ok(())
}

pub(super) async fn dropping_while_the_host_waits(s: &Subject) -> Result<(), Failure> {
    let (world, _origin, media) = begun(s, 100).await?;
    give(&media, 0, 49)?;
    let open = PageSet { first: 0, last: None, stripe: None };
    let mut stream = world.stream(world.ticketed(&media, What::Pages(open), open, 1));
    let held = media.offset(50);
    let mut came = 0;
    // Half, where something may be lost.
    while came < held / 2 {
        match next(&mut stream).await? {
            Some(Ok(Piece::Bytes(b))) => came += b.len() as u64,
            Some(Ok(_)) => {}
            Some(Err(e)) => return Err(e.into()),
            None => return Err(Failure::new("it ended before all pages had come")),
        }
    }
    // All that is there is sent, and the host waits.
    observe::settled(Duration::from_millis(500), SOON, || world.host.served()).await?;
    drop(stream);
    released(&world, &media, open, 1).await?;
    world.end().await;
    Ok(())
}
