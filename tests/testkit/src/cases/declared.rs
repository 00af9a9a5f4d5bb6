//! What a transport says of itself.

use std::time::Duration;

use iceshare::icet::{Abilities, MediaPath, PageSet, Stripe, limits};
use iceshare::protocol::{ErrorKind, Registry, Request, Span, What};

use crate::failure::ensure;
use crate::{Failure, Subject, World};

pub(super) async fn registration_is_sound(s: &Subject) -> Result<(), Failure> {
    let r = s.registration();
    ensure!(!r.about.is_empty() && !r.about.contains('\n'), "it needs one line for people");
    ensure!(!r.krate.is_empty() && !r.version.is_empty(), "it does not say from which crate it is");
    s.build()?;
    let registry = Registry::of([*r])?;
    for setting in r.settings {
        ensure!(!setting.about.is_empty(), "setting {:?} needs a word on what it does", setting.key);
        ensure!(
            r.settings.iter().filter(|o| o.key == setting.key).count() == 1,
            "setting {:?} is there twice",
            setting.key
        );
        if !setting.default.is_empty() {
            let given = (r.name.to_owned(), setting.key.to_owned(), setting.default.to_owned());
            let built = registry.build(&[], &[given]);
            built.map_err(|e| Failure::from(e).when("its own default is refused"))?;
        }
    }
    let world = World::new(s).await?;
    let endpoint = world.host.endpoint.len();
    ensure!(
        endpoint <= limits::ENDPOINT,
        "the endpoint has {endpoint} bytes, the wire takes {}",
        limits::ENDPOINT
    );
    let again = world.subject.build()?.implementation;
    ensure!(
        again.abilities() == world.host.abilities()
            && again.dials() == world.host.protocol.implementation.dials(),
        "abilities and what it dials must be constant"
    );
    world.end().await;
    Ok(())
}

pub(super) async fn every_ability_works(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let declared = world.host.abilities();
    let media = world.music(300)?;
    let (mut used, mut wanting) = (Abilities(0), Vec::new());
    let one = |what| world.whole(&media, what);
    let set = |last, stripe| What::Pages(PageSet { first: 3, last, stripe });
    for (bit, name) in Abilities::NAMES.into_iter().filter(|(bit, _)| declared.has(*bit)) {
        let result = match bit {
            Abilities::PAGES => one(set(Some(90), None)).await,
            Abilities::BYTES => one(What::Bytes { first: 1000, last: Some(150_000) }).await,
            Abilities::TIME => super::ranges::of_time(&world, &media, 400_000, Some(1_000_000)).await,
            Abilities::OPEN if declared.has(Abilities::PAGES) => one(set(None, None)).await,
            Abilities::OPEN => one(What::Bytes { first: 1000, last: None }).await,
            Abilities::STRIPES if declared.has(Abilities::PAGES) => {
                one(set(Some(90), Stripe::new(1, 3, 2))).await
            }
            Abilities::STRIPES => Err(Failure::new("stripes are of pages, which it does not take")),
            Abilities::PROOFS => one(What::Proofs { first: 0, last: 2 }).await,
            Abilities::ORDERED => one(world.unit(&media, PageSet::range(0, 200))).await,
            Abilities::SPANS => one(What::Spans(vec![Span { page: 9, offset: 5, len: 20 }])).await,
            Abilities::LIVE => super::live::comes(&world).await,
            Abilities::PROVES_KEY => super::tickets::wrong_key(&world, &media).await,
            _ => Err(Failure::new("the suite does not know how to use it")),
        };
        match result {
            Ok(()) => used = used | bit,
            Err(e) => wanting.push(format!("{name}: {e}")),
        }
    }
    let units = Abilities::PAGES.0 | Abilities::BYTES.0 | Abilities::TIME.0;
    ensure!(declared.0 & units != 0, "it takes neither pages nor bytes nor time");
    ensure!(
        used == declared,
        "it declares {declared} ({:#x}), of which was of use only {used} ({:#x})\n  {}",
        declared.0,
        used.0,
        wanting.join("\n  ")
    );
    world.end().await;
    Ok(())
}

pub(super) async fn what_is_not_declared_is_refused(s: &Subject) -> Result<(), Failure> {
    let world = World::new(s).await?;
    let media = world.music(100)?;
    let set = |last, stripe| What::Pages(PageSet { first: 0, last, stripe });
    for (needs, what) in [
        (Abilities::PAGES, set(Some(9), None)),
        (Abilities::BYTES, What::Bytes { first: 0, last: Some(99) }),
        (Abilities::TIME, What::Time { from: 0, to: Some(1_000_000) }),
        (Abilities::PROOFS, What::Proofs { first: 0, last: 0 }),
        (Abilities::SPANS, What::Spans(vec![Span { page: 9, offset: 5, len: 20 }])),
        (Abilities::STRIPES, set(Some(9), Stripe::new(0, 2, 1))),
    ] {
        if world.can(needs) {
            continue;
        }
        // The driver never asks; who does all the same gets an answer. If it is the right one, so much the better.
        let request =
            Request { path: MediaPath::clone(media.store.path()), ..world.request(&media, what.clone()) };
        let (bytes, end) = world.anything(request, media.len(), Duration::from_secs(20)).await?;
        match end {
            Some(Err(e)) => ensure!(e.kind != ErrorKind::WrongKey, "{what:?}: {e}"),
            Some(Ok(())) if bytes > 0 => {}
            Some(Ok(())) => return Err(Failure::new(format!("{what:?}: nothing came, and no error"))),
            None => return Err(Failure::new(format!("{what:?}: it hangs"))),
        }
    }
    world.end().await;
    Ok(())
}
