//! Many requests.

use std::time::Duration;

use futures_util::future::try_join_all;
use iceshare::icet::PageSet;
use iceshare::protocol::ErrorKind;

use crate::failure::ensure;
use crate::media;
use crate::receive::Expected;
use crate::world::{next, path, patience};
use crate::{Failure, Options, Subject, World, observe};

/// Requests before it is measured, and at the end.
const WARM: u64 = 200;
const REQUESTS: u64 = 1000;
/// What memory may grow by from the one to the other: the allocator's moods, not a buffer of each request.
const GROWTH: u64 = 8 << 20;
/// Tasks and descriptors that may come and go.
const FEW: usize = 8;

pub(super) async fn a_thousand_requests(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.host.publish(&path("many")?, &media::pages(6, media::even(300, 3000)))?;
    let mut base = None;
    for i in 0..REQUESTS {
        if i == WARM {
            // What is still on its way of the last ones ends first.
            let tasks =
                observe::settled(Duration::from_millis(500), patience(), || observe::tasks() as u64).await?;
            base = Some((observe::memory(), observe::descriptors(), usize::try_from(tasks).unwrap_or(0)));
        }
        let first = i * 7 % 270;
        let what = world.unit(&media, PageSet::range(first, first + 20));
        let request = world.request(&media, what.clone());
        match i % 10 {
            7 => {
                // Given up in the middle.
                let mut stream = world.stream(request);
                while !matches!(
                    next(&mut stream).await?,
                    Some(Ok(iceshare::protocol::Piece::Bytes(_))) | None
                ) {}
            }
            8 => {
                let mut unknown = request;
                unknown.version += 1;
                world.refused(unknown, ErrorKind::NoMedia).await?;
            }
            _ => {
                let expected = Expected::of(&media, what);
                let (_, end) = world.fetch(request, &expected).await?;
                end.map_err(|e| Failure::from(e).when(format!("request {i}")))?;
            }
        }
    }
    let Some((memory, descriptors, tasks)) = base else { return Ok(()) };
    observe::until(patience(), || {
        let now = observe::tasks();
        if now <= tasks + FEW {
            Ok(())
        } else {
            Err(format!("{now} tasks, {tasks} before {REQUESTS} requests"))
        }
    })
    .await?;
    if let Some(before) = descriptors {
        observe::until(patience(), || {
            let now = observe::descriptors().unwrap_or(before);
            if now <= before + FEW {
                Ok(())
            } else {
                Err(format!("{now} descriptors are open, {before} before"))
            }
        })
        .await?;
    }
    if let (Some(before), Some(now)) = (memory, observe::memory()) {
        let grown = now.saturating_sub(before);
        ensure!(grown <= GROWTH, "memory has grown by {grown} bytes in {} requests", REQUESTS - WARM);
    }
    world.end().await;
    Ok(())
}

pub(super) async fn a_hundred_at_once(s: &Subject) -> Result<(), Failure> {
    // 12 MB in all: with so much upload none is over before all have begun.
    let options = Options { up: Some(8_000_000), ..Options::default() };
    let world = World::with(s, options).await?;
    let media = world.host.publish(&path("many")?, &media::pages(6, media::even(400, 2000)))?;
    world.whole(&media, world.unit(&media, PageSet::range(0, 9))).await?;
    let (tasks, descriptors) = (observe::tasks(), observe::descriptors());
    let one = async |i: u64| {
        let what = world.unit(&media, PageSet::range(i * 3, i * 3 + 60));
        world.whole(&media, what).await.map_err(|e| e.when(format!("request {i} of 100")))
    };
    try_join_all((0..100).map(one)).await?;
    // A pool may keep some.
    let kept = 48;
    observe::until(patience(), || {
        let (t, d) = (observe::tasks(), observe::descriptors());
        if t > tasks + kept {
            Err(format!("{t} tasks are left, {tasks} were there before"))
        } else if d > descriptors.map(|d| d + kept) {
            Err(format!("{d:?} descriptors are left, {descriptors:?} were there before"))
        } else {
            Ok(())
        }
    })
    .await?;
    world.end().await;
    Ok(())
}
