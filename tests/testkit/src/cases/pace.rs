//! Fast and slow: the upload limit, and readers that pause.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use iceshare::icet::{Abilities, HostAddr, NetAddr, NetKind, PageSet};
use iceshare::protocol::{Piece, Protocol, Registry, Request, What};
use tokio::time::Instant;

use crate::failure::ensure;
use crate::media;
use crate::receive::{Expected, Matcher};
use crate::world::{next, path, patience};
use crate::{Failure, Options, Subject, World, observe, reference};

/// The second protocol at the same host.
async fn beside(world: &World) -> Result<(Protocol, HostAddr), Failure> {
    let second = Registry::of([reference::REGISTRATION])?.build(&[], &[])?.remove(0);
    let cx = world.host.net.context(second.name.clone());
    let endpoint = second.implementation.serve(cx, world.host.shelf.clone()).await?;
    let at = world.host.port(NetKind::Tcp).ok_or_else(|| Failure::new("the host has no TCP port"))?;
    let host = HostAddr {
        key: world.host.key(),
        protocol: second.name.clone(),
        addrs: vec![NetAddr { kind: NetKind::Tcp, at }],
        endpoint,
        abilities: second.implementation.abilities(),
    };
    Ok((second, host))
}

pub(super) async fn one_limit_over_two_transports(s: &Subject) -> Result<(), Failure> {
    let up = 400_000;
    let world = World::with(s, Options { up: Some(up), ..Options::default() }).await?;
    let media = world.host.publish(&path("shared")?, &media::pages(4, media::even(300, 2000)))?;
    let (second, host) = beside(&world).await?;
    let what = world.unit(&media, PageSet::range(0, media.pages() - 1));
    let bytes = What::Bytes { first: 0, last: Some(media.len() - 1) };
    let mut first = world.stream(world.request(&media, what));
    let request = Request { host, ..world.request(&media, bytes) };
    let mut other = second.implementation.fetch(world.receiver.net.context(second.name.clone()), request);
    let begun = Instant::now();
    let (mut came, mut beside) = (0_u64, 0_u64);
    let (mut first_over, mut other_over) = (false, false);
    let mut at_first_end = None;
    let served = |name| world.host.shelf.served_totals().by_protocol.get(name).copied().unwrap_or(0);
    while !(first_over && other_over) {
        tokio::select! {
            piece = first.next(), if !first_over => match piece {
                Some(Ok(Piece::Bytes(b))) => came += b.len() as u64,
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(e.into()),
                None => first_over = true,
            },
            piece = other.next(), if !other_over => match piece {
                Some(Ok(Piece::Bytes(b))) => beside += b.len() as u64,
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(Failure::from(e).when("the suite's own protocol")),
                None => other_over = true,
            },
            () = tokio::time::sleep_until(begun + Duration::from_secs(60)) => {
                return Err(Failure::new(format!("after 60 s, {came} and {beside} bytes of {} came", media.len())));
            }
        }
        ensure!(came <= served(world.host.name()), "{came} bytes came, more than the shelf permitted so far");
        if first_over != other_over {
            at_first_end.get_or_insert((came, beside));
        }
    }
    let total = came + beside;
    let took = begun.elapsed();
    let due = Duration::from_millis((total.saturating_sub(up / 5)) * 1000 / up);
    ensure!(
        took >= due.mul_f64(0.95),
        "{total} bytes came in {took:?}: at {up} bytes a second that takes {due:?}"
    );
    let (mine, its) = at_first_end.unwrap_or((came, beside));
    ensure!(
        mine * 5 > its && its * 5 > mine,
        "when one of them had ended, {mine} bytes had come over this protocol and {its} over the other: not a fair share"
    );
    world.end().await;
    Ok(())
}

pub(super) async fn a_slow_host(s: &Subject) -> Result<(), Failure> {
    let up = 40_000;
    let world = World::with(s, Options { up: Some(up), ..Options::default() }).await?;
    let media = world.host.publish(&path("slow")?, &media::pages(4, media::even(100, 4000)))?;
    let what = world.unit(&media, PageSet::range(0, media.pages() - 1));
    let expected = Expected::of(&media, what.clone());
    let ordered = world.can(Abilities::ORDERED);
    let mut matcher = Matcher::new(&expected, ordered);
    let mut stream = world.stream(world.request(&media, what));
    let mut last = Instant::now();
    let mut longest = Duration::ZERO;
    while let Some(piece) = next(&mut stream).await? {
        matcher.push(&piece?)?;
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    // A player's patience; write little at a time where permits take long.
    ensure!(longest < Duration::from_secs(8), "nothing came for {longest:?}, at {up} bytes a second");
    let covered = matcher.finish()?;
    ensure!(!ordered || expected.is_all(&covered), "only {covered:?} came");
    world.end().await;
    Ok(())
}

/// What host, system and receiver may hold of one request together while its reader pauses.
const UNDER_WAY: u64 = 16 << 20;

pub(super) async fn a_slow_reader(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.host.publish(&path("large")?, &media::pages(4, media::even(640, media::LARGEST)))?;
    let what = world.unit(&media, PageSet::range(0, media.pages() - 1));
    world.whole(&media, world.unit(&media, PageSet::range(0, 3))).await?;
    let (memory, served) = (observe::Peak::watch(), world.host.served());
    let expected = Expected::of(&media, what.clone());
    let ordered = world.can(Abilities::ORDERED);
    let mut matcher = Matcher::new(&expected, ordered);
    let mut stream = world.stream(world.request(&media, what));
    while matcher.bytes() == 0 {
        match next(&mut stream).await? {
            Some(piece) => matcher.push(&piece?)?,
            None => return Err(Failure::new("it ended before anything came")),
        }
    }
    // Until all buffers are full, or (where things may get lost) all is sent.
    let quiet = Duration::from_millis(1500);
    let sent = observe::settled(quiet, Duration::from_secs(60), || world.host.served()).await? - served;
    if ordered {
        let held = sent - matcher.bytes();
        ensure!(
            held <= UNDER_WAY,
            "{held} bytes were sent to a reader that pauses; at most {UNDER_WAY} may wait for it"
        );
    }
    let grown = memory.as_ref().map_or(0, observe::Peak::growth);
    ensure!(grown <= 2 * UNDER_WAY, "memory has grown by {grown} bytes while the reader paused");
    // And it goes on.
    while let Some(piece) = next(&mut stream).await? {
        matcher.push(&piece?)?;
    }
    let covered = matcher.finish()?;
    ensure!(!ordered || expected.is_all(&covered), "only {covered:?} came");
    world.end().await;
    Ok(())
}

pub(super) async fn a_reader_that_never_reads(s: &Subject) -> Result<(), Failure> {
    let world = World::new(&s.in_a_hurry()).await?;
    let media = world.host.publish(&path("large")?, &media::pages(4, media::even(640, media::LARGEST)))?;
    let what = world.unit(&media, PageSet::range(0, media.pages() - 1));
    let mut stream = world.stream(world.request(&media, what.clone()));
    while !matches!(next(&mut stream).await?, Some(Ok(Piece::Bytes(_) | Piece::Fragment { .. })) | None) {}
    // Who is served holds the shelf, and lets it go at the end of it. All buffers are full first.
    let quiet = Duration::from_millis(1000);
    let sent = observe::settled(quiet, patience(), || world.host.served()).await?;
    let holders = Arc::strong_count(&world.host.shelf);
    if sent < media.len() {
        observe::until(patience(), || {
            if Arc::strong_count(&world.host.shelf) < holders {
                Ok(())
            } else {
                Err("the host still works for a reader that takes nothing".to_owned())
            }
        })
        .await?;
    }
    // Nothing is left that keeps another from being served.
    let visitor = world.visitor().await?;
    let little = world.unit(&media, PageSet::range(0, 3));
    let expected = Expected::of(&media, little.clone());
    let (_, end) = world.fetch_as(&visitor, world.request(&media, little), &expected).await?;
    end.map_err(|e| Failure::from(e).when("beside a reader that takes nothing"))?;
    drop(stream);
    world.end().await;
    Ok(())
}
