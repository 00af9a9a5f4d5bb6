//! Ranges of every unit.

use iceshare::icet::media::SLICE_PAGES;
use iceshare::icet::{Abilities, PageSet, Stripe};
use iceshare::protocol::{ErrorKind, Piece, Span, What};

use crate::failure::ensure;
use crate::media::{self, LARGEST, Media, SMALLEST};
use crate::world::{next, path};
use crate::{Failure, Subject, World};

pub(super) async fn pages(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(400)?;
    let n = media.pages();
    for (first, last) in [
        (0, 0),
        (1, 1),
        (n - 1, n - 1),
        (0, n - 1),
        (10, 19),
        (SLICE_PAGES - 1, SLICE_PAGES),
        (SLICE_PAGES, 3 * SLICE_PAGES - 1),
        (60, 300),
        (n - 5, n - 1),
    ] {
        world.whole(&media, What::Pages(PageSet::range(first, last))).await?;
    }
    world.end().await;
    Ok(())
}

pub(super) async fn bytes(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(400)?;
    let len = media.len();
    for (first, last) in [
        (0, Some(0)),
        (0, Some(26)),
        (1, Some(1)),
        (1000, Some(99_999)),
        (12_345, Some(12_345 + 700_000)),
        (len - 1, Some(len - 1)),
        (0, Some(len - 1)),
        (media.offset(70), Some(media.offset(71) - 1)),
    ] {
        world.whole(&media, What::Bytes { first, last }).await?;
    }
    world.end().await;
    Ok(())
}

/// Whole pages, from the one that sounds at `from` (or the first that starts there) to the last that starts before `to`.
pub(super) async fn of_time(world: &World, media: &Media, from: u64, to: Option<u64>) -> Result<(), Failure> {
    let shown = format!("time {from} to {to:?} µs");
    let mut stream = world.stream(world.request(media, What::Time { from, to }));
    let mut got = Vec::new();
    while let Some(piece) = next(&mut stream).await? {
        match piece.map_err(|e| Failure::from(e).when(&shown))? {
            Piece::Bytes(b) => got.extend_from_slice(&b),
            Piece::Page(_) => {}
            Piece::Fragment { .. } => {
                return Err(Failure::new(format!("{shown}: a fragment on a perfect line")));
            }
            Piece::Gap => return Err(Failure::new(format!("{shown}: a gap on a perfect line"))),
        }
        ensure!(got.len() as u64 <= media.len(), "{shown}: more than the whole media came");
    }
    let start = |page| media.store.span(page).map_or(0, |span| u64::try_from(span.time).unwrap_or(0));
    let inside = |page: &u64| (from..to.unwrap_or(u64::MAX)).contains(&start(*page));
    let wanted: Vec<u64> = (0..media.pages()).filter(inside).collect();
    let (Some(first), Some(last)) = (wanted.first().copied(), wanted.last().copied()) else {
        return Err(Failure::new(format!("{shown}: the suite asks for nothing")));
    };
    let end = media.offset(last + 1);
    // Pages that start before `from` may come first, if sound of them reaches beyond it: the one before, and those without
    // a packet's end beside it.
    let before = (0..first).rev().take_while(|p| start(*p) == start(first - 1)).last().unwrap_or(first);
    let begins = (before..=first).find(|p| got[..] == media.part(media.offset(*p), end - 1)[..]);
    ensure!(
        begins.is_some(),
        "{shown}: {} bytes, which are not pages {first} to {last} ({} bytes)",
        got.len(),
        end - media.offset(first)
    );
    Ok(())
}

pub(super) async fn time(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.host.publish(&path("t")?, &media::pages(5, media::even(500, 2000)))?;
    let duration = media.store.manifest().duration;
    for (from, to) in [
        (0, Some(1)),
        (0, Some(1_000_000)),
        (500_000, Some(520_000)),
        (511_000, Some(1_777_000)),
        (3_000_000, None),
        (0, None),
        (duration - 30_000, Some(duration + 1_000_000)),
    ] {
        of_time(&world, &media, from, to).await?;
    }
    let beyond = What::Time { from: duration + 1, to: None };
    world.refused(world.request(&media, beyond), ErrorKind::NoRange).await?;
    world.end().await;
    Ok(())
}

pub(super) async fn without_an_end(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(200)?;
    let n = media.pages();
    for first in [0, 1, 63, 100, n - 1] {
        if world.can(Abilities::PAGES) {
            world.whole(&media, What::Pages(PageSet { first, last: None, stripe: None })).await?;
        }
        if world.can(Abilities::BYTES) {
            world.whole(&media, What::Bytes { first: media.offset(first) + 5, last: None }).await?;
        }
    }
    world.end().await;
    Ok(())
}

pub(super) async fn stripes(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(300)?;
    let n = media.pages();
    for (first, last, index, of, group) in [
        (0, Some(99), 0, 2, 1),
        (0, Some(99), 1, 2, 1),
        (7, Some(200), 2, 3, 5),
        (0, Some(n - 1), 3, 4, 16),
        (150, Some(299), 0, 4, 64),
        (0, Some(n - 1), 0, 1, 1),
        (5, Some(5), 5, 7, 1),
    ] {
        let stripe = Stripe::new(index, of, group);
        world.whole(&media, What::Pages(PageSet { first, last, stripe })).await?;
        if world.can(Abilities::OPEN) {
            world.whole(&media, What::Pages(PageSet { first, last: None, stripe })).await?;
        }
    }
    // Of these pages the stripe has none.
    let none = PageSet { first: 0, last: Some(0), stripe: Stripe::new(1, 2, 1) };
    world.refused(world.request(&media, What::Pages(none)), ErrorKind::NoRange).await?;
    world.end().await;
    Ok(())
}

pub(super) async fn proofs(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(500)?;
    let slices = media.store.manifest().slices();
    for (first, last) in [(0, 0), (0, slices - 1), (2, 4), (slices - 1, slices - 1)] {
        world.whole(&media, What::Proofs { first, last }).await?;
    }
    let beyond = What::Proofs { first: slices, last: slices + 3 };
    world.refused(world.request(&media, beyond), ErrorKind::NoRange).await?;
    // Another peer knows some of them only: the others are left out.
    let half = World::new(s).await?;
    let part = half.host.join(&media, (0..slices).filter(|i| i % 2 == 1))?;
    half.whole(&part, What::Proofs { first: 0, last: slices - 1 }).await?;
    half.end().await;
    world.end().await;
    Ok(())
}

pub(super) async fn spans(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(200)?;
    let len = |page| u32::try_from(media.page(page).len()).unwrap_or(0);
    let span = |page, offset, len| Span { page, offset, len };
    let whole = |page| span(page, 0, len(page));
    for spans in [
        vec![span(20, 0, 1)],
        vec![span(20, len(20) - 1, 1)],
        vec![span(20, 3, 20)],
        vec![whole(20)],
        vec![whole(20), whole(21), whole(22), whole(70)],
        vec![span(20, 0, 10), span(20, 15, 5), span(21, 7, 3), whole(30), span(150, 1, 9)],
        (0..128).map(whole).collect(),
        (0..128).map(|p| span(p, 5, 20)).collect(),
    ] {
        world.whole(&media, What::Spans(spans)).await?;
    }
    for beyond in [span(media.pages(), 0, 1), span(20, len(20), 1), span(20, 1, len(20))] {
        world.refused(world.request(&media, What::Spans(vec![beyond])), ErrorKind::NoRange).await?;
    }
    // Of pages that are not held there are no bytes; a ticket is for its pages, in parts too.
    let part = World::new(s).await?;
    let held = part.host.join(&media, 0..media.store.manifest().slices())?;
    part.refused(part.request(&held, What::Spans(vec![whole(20)])), ErrorKind::NoRange).await?;
    part.end().await;
    let foreign = What::Spans(vec![whole(20), span(30, 0, 1)]);
    let request = world.ticketed(&media, foreign, PageSet::range(20, 29), 1);
    world.refused(request, ErrorKind::Denied).await?;
    world.end().await;
    Ok(())
}

pub(super) async fn past_the_end(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(60)?;
    let (n, len) = (media.pages(), media.len());
    let mut cases = Vec::new();
    if world.can(Abilities::PAGES) {
        for (first, last) in [(n, n), (n, n + 10), (1 << 39, (1 << 40) - 1)] {
            cases.push(What::Pages(PageSet::range(first, last)));
        }
        if world.can(Abilities::OPEN) {
            cases.push(What::Pages(PageSet { first: n, last: None, stripe: None }));
        }
    }
    if world.can(Abilities::BYTES) {
        for (first, last) in [(len, len), (len + 5, len + 9), (u64::MAX - 1, u64::MAX)] {
            cases.push(What::Bytes { first, last: Some(last) });
        }
        if world.can(Abilities::OPEN) {
            cases.push(What::Bytes { first: len, last: None });
        }
    }
    for what in cases {
        world.refused(world.request(&media, what), ErrorKind::NoRange).await?;
    }
    // What begins within it ends with it; it is not told whether that is an end, or the want of the rest.
    let mut cases = Vec::new();
    if world.can(Abilities::PAGES) {
        cases.push((What::Pages(PageSet::range(n - 3, n + 100)), What::Pages(PageSet::range(n - 3, n - 1))));
    }
    if world.can(Abilities::BYTES) {
        let bytes = |last| What::Bytes { first: len - 100, last: Some(last) };
        cases.push((bytes(u64::MAX), bytes(len - 1)));
    }
    for (what, there) in cases {
        let expected = crate::receive::Expected::of(&media, there);
        for _ in 0..40 {
            let request = world.request(&media, what.clone());
            let (came, end) = world.fetch(request, &expected).await?;
            if let Err(e) = end {
                ensure!(e.kind == ErrorKind::NoRange, "{what:?}: {:?} ({e}), not NoRange", e.kind);
            }
            if expected.is_all(&came) {
                break;
            }
            ensure!(!world.can(Abilities::ORDERED), "{what:?}: only {came:?} came");
        }
    }
    world.end().await;
    Ok(())
}

pub(super) async fn smallest_and_largest_pages(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    for (i, lengths) in [
        vec![SMALLEST; 300],
        vec![LARGEST; 12],
        (0..60).map(|i| if i % 2 == 0 { SMALLEST } else { LARGEST }).collect(),
        vec![28, 282, 283, 284, 1199, 1200, 1201, 1472, 1473, 16_383, 16_384, 16_385, 65_306, 65_307],
    ]
    .into_iter()
    .enumerate()
    {
        let pages = media::pages(i as u64, lengths);
        let media = world.host.publish(&path(&format!("sizes/{i}"))?, &pages)?;
        world.whole(&media, world.unit(&media, PageSet { first: 0, last: None, stripe: None })).await?;
        world.whole(&media, world.unit(&media, PageSet::range(3, 8))).await?;
    }
    world.end().await;
    Ok(())
}

pub(super) async fn repeated_pages(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let mut pages = media::pages(8, media::even(40, 1500));
    // The same page many times, and a run of pages many times, as after a reconnecting source.
    let again: Vec<_> = pages[10..20].to_vec();
    for _ in 0..10 {
        pages.push(pages[30].clone());
    }
    for _ in 0..5 {
        pages.extend(again.iter().cloned());
    }
    let media = world.host.publish(&path("repeated")?, &pages)?;
    let n = media.pages();
    for (first, last) in [(0, n - 1), (35, 60), (45, 45), (44, 46), (60, n - 1)] {
        world.whole(&media, world.unit(&media, PageSet::range(first, last))).await?;
    }
    world.end().await;
    Ok(())
}

pub(super) async fn one_page(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let pages = media::pages(9, media::even(0, 0));
    let media = world.host.publish(&path("one")?, &pages[..1])?;
    world.whole(&media, world.unit(&media, PageSet::range(0, 0))).await?;
    world.end().await;
    Ok(())
}
