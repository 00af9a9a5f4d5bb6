//! Plans and supplies of a media of which a part is held.

use std::sync::Arc;
use std::time::Duration;

use icet::{MediaId, Now, PageSet, PeerKey, ProtocolName, ProvenSlice, Stripe};
use minicbor::Decoder;

use super::*;
use crate::protocol::Span;
use crate::shelf::{Anonymous, Clock, ShelfConfig};
use crate::store::fixture::{Fixture, PAGE_TIME};
use crate::store::{MediaStore, Store, Target};

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Now {
        Now(0)
    }
    fn wall_ms(&self) -> u64 {
        1_000_000
    }
}

pub(crate) struct Host {
    _dir: tempfile::TempDir,
    pub(crate) fixture: Fixture,
    pub(crate) media: Arc<MediaStore>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) protocol: ProtocolName,
}

const PATIENCE: Duration = Duration::from_secs(30);

impl Host {
    /// 640 pages, of which these are held.
    pub(crate) fn new(held: &[(u64, u64)]) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let fixture = Fixture::new(640, 1);
        let store = Store::open(dir.path()).unwrap();
        let media = store.fetch(fixture.manifest.clone(), Target::Own).unwrap();
        fixture.all_proven().for_each(|s| drop(media.put_slice(&s).unwrap()));
        for (a, b) in held {
            media.put_pages(*a, fixture.run(*a, *b)).unwrap();
        }
        let host = PeerKey([2; 32]);
        let config = ShelfConfig { host, up: None, anonymous: Anonymous::Allow, clock: Arc::new(Still) };
        let shelf = Shelf::new(config);
        shelf.put(media.clone());
        Host { _dir: dir, fixture, media, shelf, protocol: "test".parse().unwrap() }
    }

    fn deliver(&self, what: &What) -> Result<Delivery, Refusal> {
        let (path, media) = (self.media.path(), &self.media.id());
        let wanted = Wanted { path, media, version: 1, what, ticket: None, proved: None };
        deliver(&self.shelf, &self.protocol, &wanted, PATIENCE)
    }

    /// What is delivered, the bytes, and the offsets among them at which a page is named.
    async fn all(&self, what: &What) -> Result<(What, Vec<u8>, Vec<(usize, u64)>), Refusal> {
        let mut delivery = self.deliver(what)?;
        let (mut bytes, mut named) = (Vec::new(), Vec::new());
        while let Some(chunk) = delivery.supply.next().await.unwrap() {
            named.extend(chunk.page.map(|page| (bytes.len(), page)));
            bytes.extend_from_slice(&chunk.bytes);
        }
        Ok((delivery.what, bytes, named))
    }

    fn refused(&self, what: &What) -> Option<Refusal> {
        self.deliver(what).err()
    }
}

fn pages(first: u64, last: u64) -> What {
    What::Pages(PageSet::range(first, last))
}

#[tokio::test]
async fn pages_that_are_not_held_are_passed_over() {
    let host = Host::new(&[(10, 299), (301, 303), (305, 639)]);
    let (what, bytes, named) = host.all(&pages(12, 290)).await.unwrap();
    assert_eq!((what, named), (pages(12, 290), vec![(0, 12)]));
    assert_eq!(bytes, host.fixture.run(12, 290).concat());
    let (what, bytes, named) = host.all(&pages(8, 310)).await.unwrap();
    let run = |a, b| host.fixture.run(a, b).concat();
    let (a, b) = (run(10, 299), run(301, 303));
    assert_eq!(named, [(0, 10), (a.len(), 301), (a.len() + b.len(), 305)]);
    assert_eq!((what, bytes), (pages(8, 310), [a, b, run(305, 310)].concat()));
    assert_eq!(host.deliver(&pages(8, 310)).unwrap().left_out, Some(8));
    assert_eq!(host.deliver(&pages(10, 304)).unwrap().left_out, Some(300));
    assert_eq!(host.deliver(&pages(10, 299)).unwrap().left_out, None);
    let (what, bytes, _) = host.all(&pages(630, 5000)).await.unwrap();
    assert_eq!((what, bytes), (pages(630, 639), run(630, 639)));
    assert_eq!(host.refused(&pages(2, 9)), Some(Unavailable::Missing(2).into()));
    assert_eq!(host.refused(&pages(640, 641)), Some(Unavailable::Beyond { total: 640 }.into()));
    // Striped sets too.
    let set = PageSet { first: 296, last: Some(308), stripe: Stripe::new(0, 2, 1) };
    let (what, bytes, _) = host.all(&What::Pages(set)).await.unwrap();
    let there: Vec<u8> = [296, 298, 302, 306, 308].map(|p| run(p, p)).concat();
    assert_eq!((what, bytes), (What::Pages(set), there));
    assert_eq!(host.deliver(&What::Pages(set)).unwrap().left_out, Some(300));
}

#[test]
fn a_plan_without_holes_ends_at_the_first() {
    let host = Host::new(&[(10, 299), (301, 639)]);
    let planned = |first, last| plan(&host.media, &pages(first, last)).map(|p| p.what);
    assert_eq!(planned(12, 290), Ok(pages(12, 290)));
    assert_eq!(planned(290, 310), Ok(pages(290, 299)));
    assert_eq!(planned(630, 5000), Ok(pages(630, 639)));
    assert_eq!(planned(9, 12), Err(Unavailable::Missing(9)));
    assert_eq!(planned(300, 310), Err(Unavailable::Missing(300)));
    assert_eq!(planned(640, 641), Err(Unavailable::Beyond { total: 640 }));
}

#[tokio::test]
async fn many_holes_are_for_several_requests() {
    let held: Vec<(u64, u64)> = (0..320).map(|i| (2 * i, 2 * i)).collect();
    let host = Host::new(&held);
    let (what, bytes, named) = host.all(&pages(0, 639)).await.unwrap();
    assert_eq!((what, named.len()), (pages(0, 639), 320));
    let there: Vec<u8> = held.iter().flat_map(|(a, b)| host.fixture.run(*a, *b).concat()).collect();
    assert!(bytes == there);
}

#[tokio::test]
async fn stripes_name_the_page_after_each_jump() {
    let host = Host::new(&[(0, 639)]);
    let set = PageSet { first: 0, last: Some(20), stripe: Stripe::new(1, 4, 2) };
    let (what, bytes, named) = host.all(&What::Pages(set)).await.unwrap();
    assert_eq!(what, What::Pages(set));
    let want: Vec<u64> = set.iter(640).collect();
    assert_eq!(want, [2, 3, 10, 11, 18, 19]);
    let len = |range: &[u64]| -> usize { range.iter().map(|p| host.fixture.run(*p, *p)[0].len()).sum() };
    assert_eq!(named, [(0, 2), (len(&want[..2]), 10), (len(&want[..4]), 18)]);
    let parts: Vec<u8> = want.iter().flat_map(|p| host.fixture.run(*p, *p).concat()).collect();
    assert_eq!(bytes, parts);
}

#[tokio::test]
async fn open_ends_go_on_with_what_arrives() {
    for stripe in [None, Stripe::new(0, 2, 1)] {
        let host = Host::new(&[(0, 99)]);
        let set = PageSet { first: 90, last: None, stripe };
        let mut delivery = host.deliver(&What::Pages(set)).unwrap();
        let (mut bytes, mut named) = (Vec::new(), Vec::new());
        let (media, rest) = (host.media.clone(), host.fixture.run(100, 639).to_vec());
        // Each time all is drained, the next pages come.
        let mut came = 100;
        loop {
            let next = delivery.supply.next();
            tokio::pin!(next);
            let chunk = match futures_util::poll!(next.as_mut()) {
                std::task::Poll::Ready(chunk) => chunk,
                std::task::Poll::Pending => {
                    if came < 640 {
                        let at = usize::try_from(came - 100).unwrap();
                        media.put_pages(came, &rest[at..at + 60]).unwrap();
                        came += 60;
                    }
                    next.await
                }
            };
            let Some(chunk) = chunk.unwrap() else { break };
            named.extend(chunk.page);
            bytes.extend_from_slice(&chunk.bytes);
        }
        let want: Vec<u8> = set.iter(640).flat_map(|p| host.fixture.run(p, p).concat()).collect();
        assert!(bytes == want, "stripe {stripe:?}");
        match stripe {
            None => assert_eq!(named, [90]),
            Some(_) => assert_eq!(named, set.iter(640).collect::<Vec<u64>>()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_arrive_ends_the_answer() {
    let host = Host::new(&[(0, 99)]);
    let mut delivery = host.deliver(&What::Bytes { first: 0, last: None }).unwrap();
    let error = loop {
        match delivery.supply.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it cannot be whole"),
            Err(e) => break e,
        }
    };
    assert_eq!(host.shelf.served_totals().bytes, host.fixture.offset(100));
    assert!(matches!(error, SupplyError::Late(PATIENCE)) && error.kind() == ErrorKind::NoRange);
    host.shelf.remove(&host.media.id());
    let (path, media) = (host.media.path(), &host.media.id());
    let wanted = Wanted { path, media, version: 1, what: &pages(0, 1), ticket: None, proved: None };
    let refusal = deliver(&host.shelf, &host.protocol, &wanted, PATIENCE).err();
    assert_eq!(refusal, Some(Refusal::NoMedia));
}

#[tokio::test]
async fn bytes_times_and_proofs() {
    let host = Host::new(&[(0, 99)]);
    let (held, whole) = (host.fixture.offset(100), host.fixture.bytes());
    let bytes = |first, last| What::Bytes { first, last: Some(last) };
    let (what, got, named) = host.all(&bytes(5, held + 10)).await.unwrap();
    let end = usize::try_from(held).unwrap();
    assert_eq!((what, &got[..], named), (bytes(5, held - 1), &whole[5..end], vec![]));
    assert_eq!(host.refused(&bytes(held, held + 9)), Some(Unavailable::Missing(100).into()));
    let total = whole.len() as u64;
    assert_eq!(host.refused(&bytes(total, total + 9)), Some(Unavailable::Beyond { total }.into()));
    let time = |page: u64| page * PAGE_TIME.unsigned_abs();
    let (what, got, named) = host.all(&What::Time { from: time(3), to: Some(time(7)) }).await.unwrap();
    assert_eq!((what, named), (What::Time { from: time(3), to: Some(time(7)) }, vec![(0, 3)]));
    assert_eq!(got, host.fixture.run(3, 6).concat());
    let none = What::Time { from: time(5), to: Some(time(5)) };
    assert_eq!(host.refused(&none), Some(Unavailable::Beyond { total: time(640) }.into()));
    let (what, got, _) = host.all(&What::Proofs { first: 2, last: 99 }).await.unwrap();
    assert_eq!(what, What::Proofs { first: 2, last: 9 });
    let mut decoder = Decoder::new(&got);
    let mut slices: Vec<ProvenSlice> = Vec::new();
    while decoder.position() < got.len() {
        slices.push(decoder.decode().unwrap());
    }
    assert_eq!(slices, (2..10).map(|i| host.fixture.proven(i)).collect::<Vec<_>>());
}

#[tokio::test]
async fn spans_of_pages_and_the_same_bytes_again() {
    let host = Host::new(&[(0, 9)]);
    let span = |page, offset, len| Span { page, offset, len };
    let page = |p| host.fixture.run(p, p)[0].clone();
    let len = u32::try_from(page(7).len()).unwrap();
    let asked = What::Spans(vec![span(3, 5, 10), span(7, 0, len), span(9, len, 0), span(10, 0, 1)]);
    assert_eq!(host.refused(&asked), Some(Unavailable::Beyond { total: 640 }.into()), "an empty span");
    let asked = vec![span(3, 5, 10), span(7, 0, len), span(10, 0, 1)];
    let (what, bytes, named) = host.all(&What::Spans(asked.clone())).await.unwrap();
    assert_eq!((what, named), (What::Spans(asked[..2].to_vec()), vec![]));
    assert_eq!(bytes, [&page(3)[5..15], &page(7)].concat());
    assert_eq!(host.refused(&What::Spans(vec![span(10, 0, 1)])), Some(Unavailable::Missing(10).into()));
    let beyond = What::Spans(vec![span(7, 1, len)]);
    assert_eq!(host.refused(&beyond), Some(Unavailable::Beyond { total: 640 }.into()));
    let mut delivery = host.deliver(&pages(0, 9)).unwrap();
    let again = delivery.supply.again();
    while delivery.supply.next().await.unwrap().is_some() {}
    let before = host.shelf.served_totals().bytes;
    assert_eq!(again.read(host.fixture.offset(3) + 5, 10).await.unwrap(), page(3)[5..15]);
    assert_eq!(host.shelf.served_totals().bytes, before + 10, "it is paid for");
}

#[tokio::test]
async fn another_path_id_or_version_is_another_media() {
    let host = Host::new(&[(0, 639)]);
    let (path, id, what) = (host.media.path(), host.media.id(), pages(0, 1));
    let other: MediaPath = "music/other.ogg".parse().unwrap();
    let ask = |path, media, version| {
        let wanted = Wanted { path, media, version, what: &what, ticket: None, proved: None };
        deliver(&host.shelf, &host.protocol, &wanted, PATIENCE).err()
    };
    assert_eq!(ask(path, &id, 1), None);
    for refused in [ask(&other, &id, 1), ask(path, &MediaId([0; 32]), 1), ask(path, &id, 2)] {
        assert_eq!(refused, Some(Refusal::NoMedia));
    }
}
