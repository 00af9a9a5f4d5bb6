//! Media that the host does not hold as a whole yet.

use futures_util::StreamExt;
use iceshare::icet::{Abilities, PageNo, PageSet, Stripe};
use iceshare::protocol::{ErrorKind, What};

use crate::failure::ensure;
use crate::media::{self, Media};
use crate::receive::{Expected, Matcher};
use crate::world::{next, path};
use crate::{Failure, Peer, Subject, World};

/// A world whose host has all slices of a media, and no page.
pub(super) async fn begun(s: &Subject, count: usize) -> Result<(World, Peer, Media), Failure> {
    let world = World::new(s).await?;
    let origin = Peer::start(s, crate::Options::default()).await?;
    let pages = media::pages(21, media::even(count, 1800));
    let media = origin.publish(&path("arriving")?, &pages)?;
    let mine = world.host.join(&media, 0..media.store.manifest().slices())?;
    Ok((world, origin, mine))
}

/// Lets pages arrive.
pub(super) fn give(media: &Media, first: PageNo, last: PageNo) -> Result<(), Failure> {
    let pages: Vec<_> = (first..=last).map(|p| media.page(p)).collect();
    media.store.put_pages(first, &pages)?;
    Ok(())
}

pub(super) async fn what_is_missing(s: &Subject) -> Result<(), Failure> {
    let (world, _origin, media) = begun(s, 200).await?;
    give(&media, 10, 79)?;
    for (first, last) in [(0, 5), (80, 99), (150, 150)] {
        let what = world.unit(&media, PageSet::range(first, last));
        world.refused(world.request(&media, what), ErrorKind::NoRange).await?;
    }
    // What is held of it may come, the end tells that it is not all.
    for (first, last) in [(70, 99), (9, 12), (5, 79), (0, 150)] {
        let asked = world.unit(&media, PageSet::range(first, last));
        let expected = Expected::of(&media, asked.clone());
        let (came, end) = world.fetch(world.request(&media, asked.clone()), &expected).await?;
        let base = media.offset(first);
        let held = (media.offset(10).max(base) - base)..(media.offset(80) - base);
        let outside = came.iter().find(|r| r.start < held.start || r.end > held.end);
        ensure!(outside.is_none(), "{asked:?}: bytes {outside:?} of it came, the host holds {held:?}");
        match end {
            Err(e) => ensure!(e.kind == ErrorKind::NoRange, "{asked:?}: {:?} ({e}), not NoRange", e.kind),
            Ok(()) => return Err(Failure::new(format!("{asked:?}: it ended well, with {came:?} of it"))),
        }
    }
    world.whole(&media, world.unit(&media, PageSet::range(10, 79))).await?;
    world.end().await;
    Ok(())
}

/// Pages arrive in parts while they are fetched.
async fn as_they_come(s: &Subject, open: PageSet, by_bytes: bool) -> Result<(), Failure> {
    let (world, _origin, media) = begun(s, 254).await?;
    let parts = [(0, 63), (64, 64), (65, 140), (141, media.pages() - 1)];
    let (what, base) = if by_bytes {
        (What::Bytes { first: media.offset(open.first), last: None }, media.offset(open.first))
    } else {
        (What::Pages(open), 0)
    };
    let expected = Expected::of(&media, what.clone());
    let mut stream = world.stream(world.request(&media, what));
    let ordered = world.can(Abilities::ORDERED);
    let mut matcher = Matcher::new(&expected, ordered);
    for (first, last) in parts {
        give(&media, first, last)?;
        if last == media.pages() - 1 {
            break;
        }
        let there = if by_bytes {
            media.offset(last + 1).saturating_sub(base)
        } else {
            media.set(&PageSet { last: Some(last), ..open }).0.len() as u64
        };
        // Who may lose something shows that it waits, and goes on.
        let enough = if ordered { there } else { there / 4 };
        while matcher.bytes() < enough {
            match next(&mut stream).await.map_err(|e| e.when(format!("pages up to {last} have come")))? {
                Some(Ok(piece)) => matcher.push(&piece)?,
                Some(Err(e)) => return Err(Failure::from(e).when(format!("pages up to {last} have come"))),
                None => return Err(Failure::new(format!("it ended when pages up to {last} had come"))),
            }
        }
        if ordered {
            // Nothing of what has not come.
            let early = futures_util::future::poll_immediate(stream.next()).await;
            ensure!(early.is_none(), "{early:?} came, or an end, before page {} did", last + 1);
        }
    }
    while let Some(piece) = next(&mut stream).await? {
        matcher.push(&piece.map_err(|e| Failure::from(e).when("all pages have come"))?)?;
    }
    let covered = matcher.finish()?;
    ensure!(!ordered || expected.is_all(&covered), "only {covered:?} of {} bytes came", expected.bytes.len());
    world.end().await;
    Ok(())
}

pub(super) async fn open_ends_wait(s: &Subject) -> Result<(), Failure> {
    let abilities = s.abilities()?;
    for first in [0, 40] {
        let open = PageSet { first, last: None, stripe: None };
        if abilities.has(Abilities::PAGES) {
            as_they_come(s, open, false).await.map_err(|e| e.when("pages"))?;
        }
        if abilities.has(Abilities::BYTES) {
            as_they_come(s, open, true).await.map_err(|e| e.when("bytes"))?;
        }
    }
    Ok(())
}

pub(super) async fn open_stripes_wait(s: &Subject) -> Result<(), Failure> {
    for (index, of, group) in [(0, 2, 1), (1, 3, 4)] {
        as_they_come(s, PageSet { first: 0, last: None, stripe: Stripe::new(index, of, group) }, false)
            .await?;
    }
    Ok(())
}
