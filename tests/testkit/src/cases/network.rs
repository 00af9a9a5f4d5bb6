//! The transfer cases again, over a network that is not perfect.

use std::time::Duration;

use futures_util::future::{BoxFuture, try_join_all};
use iceshare::icet::Abilities;

use super::{arriving, cancel, leaks, ranges, tickets};
use crate::emulator::Link;
use crate::{Failure, Subject};

type Run = for<'a> fn(&'a Subject) -> BoxFuture<'a, Result<(), Failure>>;

const BOTH: Abilities = Abilities(Abilities::OPEN.0 | Abilities::PAGES.0);

/// What has to work over any network, and what it needs.
const TRANSFERS: [(&str, Abilities, Run); 11] = [
    ("pages", Abilities::PAGES, |s| Box::pin(ranges::pages(s))),
    ("bytes", Abilities::BYTES, |s| Box::pin(ranges::bytes(s))),
    ("without an end", Abilities::OPEN, |s| Box::pin(ranges::without_an_end(s))),
    ("stripes", Abilities::STRIPES, |s| Box::pin(ranges::stripes(s))),
    ("proofs", Abilities::PROOFS, |s| Box::pin(ranges::proofs(s))),
    ("sizes of pages", Abilities(0), |s| Box::pin(ranges::smallest_and_largest_pages(s))),
    ("repeated pages", Abilities(0), |s| Box::pin(ranges::repeated_pages(s))),
    ("what is missing", Abilities(0), |s| Box::pin(arriving::what_is_missing(s))),
    ("open ends", BOTH, |s| Box::pin(arriving::open_ends_wait(s))),
    ("cancelling", Abilities(0), |s| Box::pin(cancel::dropping_stops_the_host(s))),
    ("tickets", Abilities(0), |s| Box::pin(tickets::needed(s))),
];

async fn over(s: &Subject, link: Link, some: &[&str]) -> Result<(), Failure> {
    let (subject, abilities) = (s.clone().over(link), s.abilities()?);
    let chosen = |name, needs| abilities.has(needs) && (some.is_empty() || some.contains(&name));
    // Side by side, each in a world and over a network of its own: they wait much and do little.
    let each =
        TRANSFERS.iter().filter(|(name, needs, _)| chosen(*name, *needs)).map(async |(name, _, run)| {
            run(&subject).await.map_err(|e| e.when(format!("{name}, over {link:?}")))
        });
    try_join_all(each).await?;
    Ok(())
}

pub(super) async fn long_way(s: &Subject) -> Result<(), Failure> {
    let link = Link { delay: Duration::from_millis(20), seed: 11, ..Link::PERFECT };
    over(s, link, &["pages", "bytes", "proofs", "open ends", "cancelling", "tickets"]).await
}

pub(super) async fn disorder(s: &Subject) -> Result<(), Failure> {
    let delay = Duration::from_millis(2);
    over(s, Link { reorder: 0.2, duplicate: 0.1, delay, seed: 12, ..Link::PERFECT }, &[]).await?;
    let link = Link { reorder: 0.1, loss: 0.01, delay, seed: 13, ..Link::PERFECT };
    leaks::a_hundred_at_once(&s.clone().over(link)).await.map_err(|e| e.when("100 at once"))
}

pub(super) async fn losses(s: &Subject) -> Result<(), Failure> {
    let link = |loss, seed| Link { loss, seed, delay: Duration::from_millis(2), ..Link::PERFECT };
    over(s, link(0.01, 14), &[]).await?;
    over(s, link(0.05, 15), &["pages", "bytes", "stripes", "proofs", "open ends", "tickets"]).await?;
    over(s, link(0.2, 16), &["pages", "bytes", "proofs"]).await
}
