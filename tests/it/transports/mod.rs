//! Two payload protocols that only tests have, as different from HTTP as the trait allows: one pushes pages over bare
//! datagrams and loses some, the other knows byte ranges only.

mod gappy;
mod plain;
mod swarm;

use std::sync::Arc;

use futures_util::StreamExt;
use iceshare::icet::{PageSet, Stripe};
use iceshare::ogg;
use iceshare::protocol::{ErrorKind, Piece, Registration, Registry, What};
use iceshare::shelf::Anonymous;
use iceshare::store::MediaStore;
use iceshare_tests::media;

use crate::host::{Host, Made, bytes, content, give};

fn registered(name: &str) -> Registration {
    *Registry::linked().unwrap().registrations().iter().find(|r| r.name == name).unwrap()
}

/// `gappy`: pages by number, open-ended, over datagrams of the shared UDP port; loses whole pages on purpose
/// (`gappy.loss` per cent, `gappy.seed`). No proofs, no byte ranges.
pub(crate) fn registration_gappy() -> Registration {
    registered(gappy::NAME)
}

/// `plain-bytes`: byte ranges with an end or without, over bare TCP. No pages, no proofs.
pub(crate) fn registration_bytes() -> Registration {
    registered(plain::NAME)
}

async fn pair(made: Made) -> (Host, Arc<MediaStore>, Host) {
    let registration = made.registration;
    let host = Host::start(1, made).await;
    let file = host.dir.path().join("a.opus");
    media::opus_like(&file, 1_250_000, 4200, 5).unwrap();
    let published = host.publish(&file, "music/a b.opus");
    (host, published, Host::start(2, Made::of(registration)).await)
}

fn lossless() -> Made {
    Made { settings: vec![("loss", "0")], ..Made::of(registration_gappy()) }
}

fn pages(first: u64, last: Option<u64>, stripe: Option<Stripe>) -> What {
    What::Pages(PageSet { first, last, stripe })
}

#[tokio::test]
async fn datagrams_bring_what_was_asked_for() {
    let (host, media, receiver) = pair(lossless()).await;
    let n = media.manifest().pages;
    let stripe = Stripe::new(1, 3, 1);
    for (what, want) in [
        (pages(10, Some(19), None), (10..20).collect()),
        (pages(n - 5, None, None), (n - 5..n).collect()),
        (pages(0, Some(90), stripe), (0..=90).filter(|p| p % 3 == 1).collect::<Vec<u64>>()),
    ] {
        let (pieces, end) = receiver.fetch(host.request(&media, what.clone())).await;
        assert!(end.is_ok(), "{what:?}: {end:?}");
        if !pieces.contains(&Piece::Gap) {
            assert!(bytes(&pieces) == content(&media, want), "{what:?}");
        }
    }
    let beyond = receiver.fetch(host.request(&media, pages(n, None, None))).await;
    assert_eq!(beyond.1.unwrap_err().kind, ErrorKind::NoRange);
    let mut other = host.request(&media, pages(0, None, None));
    other.version += 1;
    assert_eq!(receiver.fetch(other).await.1.unwrap_err().kind, ErrorKind::NoMedia);
}

/// Pages are lost, gaps are told, and what lies between them is whole pages of the media, in order.
#[tokio::test]
async fn lost_pages_are_gaps_and_nothing_else() {
    let made = Made { settings: vec![("loss", "30"), ("seed", "7")], ..Made::of(registration_gappy()) };
    let (host, media, receiver) = pair(made).await;
    let n = media.manifest().pages;
    let (pieces, end) = receiver.fetch(host.request(&media, pages(0, None, None))).await;
    assert!(end.is_ok(), "{end:?}");
    let gaps = pieces.iter().filter(|p| **p == Piece::Gap).count();
    assert!(gaps as u64 > n / 10, "{gaps} gaps of {n} pages");
    let (mut splitter, mut came, mut at) = (ogg::Splitter::new(), 0u64, 0u64);
    let mut take = |splitter: &mut ogg::Splitter| {
        while let Some(event) = splitter.next() {
            let ogg::SplitEvent::Page { bytes: page, .. } = event else { continue };
            while page[..] != content(&media, [at])[..] {
                at += 1;
                assert!(at < n, "a page that is not of the media, or not in order");
            }
            at += 1;
            came += 1;
        }
    };
    for piece in pieces {
        match piece {
            Piece::Bytes(b) => splitter.push(b),
            Piece::Gap => splitter.gap(),
            Piece::Page(_) | Piece::Fragment { .. } => {}
        }
        take(&mut splitter);
    }
    assert!(came > n / 2 && came < n, "{came} of {n} pages came");
}

#[tokio::test]
async fn datagrams_wait_for_pages_and_stop_when_told() {
    let (_host, media, receiver) = pair(lossless()).await;
    let partial = Host::start(3, Made { anonymous: Anonymous::Deny, ..lossless() }).await;
    let part = partial.join(&media);
    give(&media, &part, 0, 4);
    let open = PageSet { first: 0, last: None, stripe: None };
    let mut request = partial.request(&part, What::Pages(open));
    assert_eq!(receiver.fetch(request.clone()).await.1.unwrap_err().kind, ErrorKind::Denied);
    request.ticket = Some(partial.ticket(&part, &receiver, open, 1));
    let mut stream = receiver.protocol.implementation.fetch(receiver.cx.clone(), request.clone());
    let mut got = Vec::new();
    while bytes(&got).len() < content(&media, 0..5).len() {
        got.push(stream.next().await.unwrap().unwrap());
    }
    give(&media, &part, 5, 9);
    while bytes(&got).len() < content(&media, 0..10).len() {
        got.push(stream.next().await.unwrap().unwrap());
    }
    assert!(bytes(&got) == content(&media, 0..10));
    drop(stream);
    // The ticket is free again as soon as the host has heard that nobody listens.
    request.what = pages(0, Some(0), None);
    loop {
        match receiver.fetch(request.clone()).await.1 {
            Ok(()) => break,
            Err(e) => assert_eq!(e.kind, ErrorKind::Busy, "{e}"),
        }
    }
}

#[tokio::test]
async fn bare_byte_ranges() {
    let (host, media, receiver) = pair(Made::of(registration_bytes())).await;
    let len = media.manifest().bytes;
    for (first, last) in [(0, Some(0)), (1000, Some(99_999)), (len - 1, None), (0, None)] {
        let (pieces, end) = receiver.fetch(host.request(&media, What::Bytes { first, last })).await;
        assert!(end.is_ok(), "{end:?}");
        let n = usize::try_from(last.unwrap_or(len - 1) - first + 1).unwrap();
        assert!(bytes(&pieces) == media.read(first, n).unwrap());
    }
    let beyond = host.request(&media, What::Bytes { first: len, last: None });
    assert_eq!(receiver.fetch(beyond).await.1.unwrap_err().kind, ErrorKind::NoRange);
    let by_page = receiver.fetch(host.request(&media, pages(0, None, None))).await;
    assert_eq!(by_page.1.unwrap_err().kind, ErrorKind::Local, "it never declared pages");
    let denying = Made { anonymous: Anonymous::Deny, ..Made::of(registration_bytes()) };
    let (host, media, receiver) = pair(denying).await;
    let mut request = host.request(&media, What::Bytes { first: 0, last: Some(9) });
    assert_eq!(receiver.fetch(request.clone()).await.1.unwrap_err().kind, ErrorKind::Denied);
    request.ticket = Some(host.ticket(&media, &receiver, PageSet::range(0, 3), 1));
    assert!(receiver.fetch(request).await.1.is_ok());
}

#[test]
fn they_declare_what_they_can_do() {
    for (registration, has, lacks) in [
        (registration_gappy(), "pages open-ended stripes", ["bytes", "ordered", "proofs"]),
        (registration_bytes(), "bytes ordered", ["pages", "time", "proofs"]),
    ] {
        let built = Registry::of([registration]).unwrap().build(&[], &[]).unwrap().remove(0);
        let abilities = built.implementation.abilities().to_string();
        assert_eq!(abilities, has);
        assert!(lacks.iter().all(|l| !abilities.contains(l)));
    }
}
