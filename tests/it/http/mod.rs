//! The HTTP transport against itself: what is asked for comes, and nothing else.

mod attacks;
mod clients;
mod cut;
mod live;
mod raw;

use std::sync::Arc;

use futures_util::StreamExt;
use iceshare::icet::message::Need;
use iceshare::icet::{PageSet, ProvenSlice, Stripe, limits};
use iceshare::protocol::{ErrorKind, Piece, Registration, Registry, What};
use iceshare::shelf::Anonymous;
use iceshare::store::MediaStore;
use iceshare_tests::{fixture, media};

use crate::host::{Host, Made, TRACKER, bytes, content, give};

/// As it is linked in.
pub(crate) fn http() -> Registration {
    let _ = iceshare_transport_http::NAME;
    *Registry::linked().unwrap().registrations().iter().find(|r| r.name == "http").unwrap()
}

/// A host of a media of 300 pages, and a receiver.
async fn pair(made: Made) -> (Host, Arc<MediaStore>, Host) {
    let host = Host::start(1, made).await;
    let file = host.dir.path().join("a.opus");
    media::opus_like(&file, 1_250_000, 4200, 5).unwrap();
    let published = host.publish(&file, "music/a b.opus");
    assert!(published.manifest().pages > 250);
    (host, published, Host::start(2, Made::of(http())).await)
}

fn pages(first: u64, last: Option<u64>, stripe: Option<Stripe>) -> What {
    What::Pages(PageSet { first, last, stripe })
}

#[tokio::test]
async fn pages_come_as_they_were_asked_for() {
    let (host, media, receiver) = pair(Made::of(http())).await;
    let n = media.manifest().pages;
    let third = Stripe::new(1, 3, 1);
    let groups = Stripe::new(1, 4, 16);
    for (what, want) in [
        (pages(10, Some(19), None), (10..20).collect()),
        (pages(0, Some(0), None), vec![0]),
        (pages(n - 1, Some(n - 1), None), vec![n - 1]),
        (pages(n - 5, None, None), (n - 5..n).collect()),
        (pages(0, None, None), (0..n).collect()),
        (pages(10, Some(40), third), (10..=40).filter(|p| p % 3 == 1).collect()),
        (pages(11, None, third), (11..n).filter(|p| p % 3 == 1).collect()),
        (pages(0, Some(200), groups), (0..=200).filter(|p| p / 16 % 4 == 1).collect::<Vec<u64>>()),
    ] {
        let (pieces, end) = receiver.fetch(host.request(&media, what.clone())).await;
        assert!(end.is_ok(), "{what:?}: {end:?}");
        assert_eq!(pieces.first(), Some(&Piece::Page(want[0])), "{what:?}");
        assert!(bytes(&pieces) == content(&media, want), "{what:?}");
    }
    let beyond = receiver.fetch(host.request(&media, pages(n, Some(n + 3), None))).await;
    assert_eq!(beyond.1.unwrap_err().kind, ErrorKind::NoRange);
}

#[tokio::test]
async fn bytes_time_and_proofs_come_too() {
    let (host, media, receiver) = pair(Made::of(http())).await;
    let len = media.manifest().bytes;
    for (first, last) in [(0, Some(0)), (1000, Some(99_999)), (len - 1, None), (0, None), (5, Some(len * 2))]
    {
        let (pieces, end) = receiver.fetch(host.request(&media, What::Bytes { first, last })).await;
        assert!(end.is_ok(), "{first}: {end:?}");
        let n = usize::try_from(last.unwrap_or(u64::MAX).min(len - 1) - first + 1).unwrap();
        assert!(bytes(&pieces) == media.read(first, n).unwrap());
    }
    let (from, to) = (2_000_000, 3_500_000);
    let (pieces, end) = receiver.fetch(host.request(&media, What::Time { from, to: Some(to) })).await;
    assert!(end.is_ok(), "{end:?}");
    let (a, b) = (media.page_at_time(from).unwrap(), media.page_at_time(to - 1).unwrap());
    assert!(b > a && bytes(&pieces) == content(&media, a..=b));

    let slices = media.manifest().slices();
    let (pieces, end) =
        receiver.fetch(host.request(&media, What::Proofs { first: 1, last: slices - 1 })).await;
    assert!(end.is_ok(), "{end:?}");
    let got = bytes(&pieces);
    let mut at = 0;
    for index in 1..slices {
        let mut want = iceshare::icet::frame::encode(&media.proven_slice(index).unwrap());
        assert!(got[at..].starts_with(&want), "slice {index}");
        at += want.len();
        let proven: ProvenSlice = iceshare::icet::frame::decode(&want).unwrap();
        assert_eq!(proven.verify(media.manifest()).unwrap().index, index);
        want.clear();
    }
    assert_eq!(at, got.len());
}

#[tokio::test]
async fn every_fixture_is_served_whole() {
    let host = Host::start(1, Made::of(http())).await;
    let receiver = Host::start(2, Made::of(http())).await;
    for name in ["vorbis.ogg", "chained-codecs.ogg", "skeleton.ogv", "one-page.ogg", "tiny-pages.ogg"] {
        let media = host.publish(&fixture(name), name);
        let (pieces, end) = receiver.fetch(host.request(&media, pages(0, None, None))).await;
        assert!(end.is_ok(), "{name}: {end:?}");
        assert!(bytes(&pieces) == std::fs::read(fixture(name)).unwrap(), "{name}");
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let made = Made { settings: vec![("connections", "1")], ..Made::of(http()) };
    let (host, media, receiver) = pair(made).await;
    for page in 0..50 {
        // With a second connection it would be refused.
        let (pieces, end) = receiver.fetch(host.request(&media, pages(page, Some(page), None))).await;
        assert!(end.is_ok(), "{page}: {end:?}");
        assert!(bytes(&pieces) == content(&media, [page]));
    }
}

#[tokio::test]
async fn tickets_admit_to_what_they_are_for() {
    let made = Made { anonymous: Anonymous::Deny, ..Made::of(http()) };
    let (host, media, receiver) = pair(made).await;
    let kind = |end: Result<(), iceshare::protocol::TransportError>| end.map_err(|e| e.kind);
    let ask = |ticket, what| {
        let mut request = host.request(&media, what);
        request.ticket = ticket;
        receiver.fetch(request)
    };
    let set = PageSet::range(10, 19);
    let ticket = |id| Some(host.ticket(&media, &receiver, set, id));
    let what = || pages(10, Some(19), None);
    assert_eq!(kind(ask(None, what()).await.1), Err(ErrorKind::Denied));
    let (pieces, end) = ask(ticket(1), what()).await;
    assert!(end.is_ok() && bytes(&pieces) == content(&media, 10..20), "{end:?}");
    assert_eq!(kind(ask(ticket(2), pages(10, Some(20), None)).await.1), Err(ErrorKind::Denied));
    let mut forged = ticket(3);
    if let Some(t) = &mut forged {
        t.mac.0[0] ^= 1;
    }
    assert_eq!(kind(ask(forged, what()).await.1), Err(ErrorKind::Denied));
    // An id buys its bytes once, and a quarter more: the next request is refused, or cut off when that is used up.
    let (pieces, end) = ask(ticket(1), what()).await;
    assert!(matches!(kind(end), Err(ErrorKind::Denied | ErrorKind::Broken)));
    assert!(bytes(&pieces).len() <= content(&media, 10..20).len() / 4);
    assert!(ask(ticket(4), What::Proofs { first: 0, last: 0 }).await.1.is_ok());
    let served = host.shelf.served_totals();
    assert_eq!(served.anonymous, 0);
    assert_eq!(served.by_receiver.keys().copied().collect::<Vec<_>>(), [receiver.identity.key()]);
}

#[tokio::test]
async fn what_is_in_reserve_is_served_only_while_the_tracker_is_silent() {
    let (host, media, receiver) = pair(Made::of(http())).await;
    let set = PageSet::range(0, media.manifest().pages - 1);
    let ask = || {
        let mut request = host.request(&media, pages(10, Some(19), None));
        request.ticket = Some(host.ticket_of(&media, &receiver, set, 1, Need::Reserve));
        receiver.fetch(request)
    };
    assert!(!host.shelf.was_asked_in_reserve(&TRACKER));
    assert_eq!(ask().await.1.unwrap_err().kind, ErrorKind::Busy, "or receivers could help themselves");
    assert_eq!(host.shelf.served_totals().bytes, 0);
    assert!(host.shelf.was_asked_in_reserve(&TRACKER) && !host.shelf.was_asked_in_reserve(&TRACKER));
    host.shelf.tracker_lost(&TRACKER);
    let (pieces, end) = ask().await;
    assert!(end.is_ok() && bytes(&pieces) == content(&media, 10..20), "{end:?}");
    host.shelf.tracker_speaks(&TRACKER);
    assert_eq!(ask().await.1.unwrap_err().kind, ErrorKind::Busy);
}

#[tokio::test]
async fn another_version_or_publisher_is_no_media() {
    let (host, media, receiver) = pair(Made::of(http())).await;
    let mut request = host.request(&media, pages(0, Some(0), None));
    request.version += 1;
    assert_eq!(receiver.fetch(request).await.1.unwrap_err().kind, ErrorKind::NoMedia);
    let mut request = host.request(&media, pages(0, Some(0), None));
    request.media.0[0] ^= 1;
    assert_eq!(receiver.fetch(request).await.1.unwrap_err().kind, ErrorKind::NoMedia);
    // Two publishers, one path: each gets asked for its own.
    let other = Host::start(3, Made::of(http())).await;
    let file = other.dir.path().join("b.opus");
    media::opus_like(&file, 50_000, 4200, 6).unwrap();
    let theirs = other.publish(&file, "music/a b.opus");
    host.shelf.put(theirs.clone());
    for m in [&media, &theirs] {
        let (pieces, end) = receiver.fetch(host.request(m, pages(3, Some(3), None))).await;
        assert!(end.is_ok() && bytes(&pieces) == content(m, [3]), "{end:?}");
    }
}

#[tokio::test]
async fn a_host_that_holds_a_part_sends_that_and_waits_where_the_end_is_open() {
    let (host, media, receiver) = pair(Made::of(http())).await;
    let partial = Host::start(3, Made::of(http())).await;
    let part = partial.join(&media);
    give(&media, &part, 10, 14);
    let (pieces, end) = receiver.fetch(partial.request(&part, pages(10, Some(19), None))).await;
    assert!(bytes(&pieces) == content(&media, 10..15));
    assert_eq!(end.unwrap_err().kind, ErrorKind::NoRange);
    let (pieces, end) = receiver.fetch(partial.request(&part, pages(9, Some(19), None))).await;
    assert_eq!((pieces.len(), end.unwrap_err().kind), (0, ErrorKind::NoRange));
    let span = media.span(12).unwrap();
    let (pieces, end) = receiver
        .fetch(
            partial.request(&part, What::Bytes { first: span.offset + 5, last: Some(span.end() + 999_999) }),
        )
        .await;
    assert!(bytes(&pieces) == content(&media, 12..15)[5..]);
    assert_eq!(end.unwrap_err().kind, ErrorKind::NoRange);
    // Open-ended: what is missing comes as it arrives at the host.
    let n = media.manifest().pages;
    let request = partial.request(&part, pages(10, None, None));
    let mut stream = receiver.protocol.implementation.fetch(receiver.cx.clone(), request);
    let mut got = Vec::new();
    while bytes(&got).len() < content(&media, 10..15).len() {
        got.push(stream.next().await.unwrap().unwrap());
    }
    give(&media, &part, 15, 99);
    give(&media, &part, 100, n - 1);
    while let Some(piece) = stream.next().await {
        got.push(piece.unwrap());
    }
    assert!(bytes(&got) == content(&media, 10..n));
    drop(host);
}

#[tokio::test]
async fn a_dropped_fetch_ends_at_the_host() {
    let (_host, media, receiver) = pair(Made::of(http())).await;
    let partial = Host::start(3, Made { anonymous: Anonymous::Deny, ..Made::of(http()) }).await;
    let part = partial.join(&media);
    give(&media, &part, 0, 1);
    let open = PageSet { first: 0, last: None, stripe: None };
    let mut request = partial.request(&part, What::Pages(open));
    request.ticket = Some(partial.ticket(&part, &receiver, open, 1));
    let mut stream = receiver.protocol.implementation.fetch(receiver.cx.clone(), request.clone());
    assert!(stream.next().await.unwrap().is_ok());
    // One ticket, one request at a time.
    assert_eq!(receiver.fetch(request.clone()).await.1.unwrap_err().kind, ErrorKind::Busy);
    drop(stream);
    request.what = pages(0, Some(0), None);
    loop {
        match receiver.fetch(request.clone()).await.1 {
            Ok(()) => break,
            Err(e) => assert_eq!(e.kind, ErrorKind::Busy, "{e}"),
        }
    }
}

#[tokio::test]
async fn the_upload_limit_holds() {
    let made = Made { up: Some(400_000), ..Made::of(http()) };
    let (host, media, receiver) = pair(made).await;
    let before = std::time::Instant::now();
    let (pieces, end) =
        receiver.fetch(host.request(&media, What::Bytes { first: 0, last: Some(799_999) })).await;
    assert!(end.is_ok() && bytes(&pieces).len() == 800_000, "{end:?}");
    let took = before.elapsed().as_secs_f64();
    assert!(took > 1.0, "800 kB at 400 kB/s (with a burst allowed) took {took} s");
    assert!(host.shelf.served_totals().bytes >= 800_000);
}

#[test]
fn the_last_page_that_can_be_asked_for_is_the_open_end() {
    assert_eq!(iceshare_transport_http::wire::ENDLESS, limits::PAGES - 1);
}
