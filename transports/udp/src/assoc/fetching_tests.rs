use iceshare::icet::PageSet;
use iceshare::protocol::What;

use super::super::shape::END;
use super::*;

const RTT: Duration = Duration::from_millis(40);

/// A host's side of a request, by hand.
struct Host {
    sequence: u64,
    number: u64,
}

fn place(page: u64, offset: u64) -> u64 {
    page * UNIT + offset
}

fn content(page: u64, offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(|o| u8::try_from((page * 7 + o) % 251).unwrap()).collect()
}

impl Host {
    fn new() -> Host {
        Host { sequence: 0, number: 0 }
    }

    /// Sends bytes of a page; `lost`: they do not arrive.
    fn data(&mut self, f: &mut Fetching, (page, offset, len): (u64, u64, usize), last: bool, lost: bool) {
        let sequence = Some(self.sequence);
        self.sequence += len as u64;
        self.number += 1;
        if !lost {
            let bytes = content(page, offset, len);
            let data = Data { request: 0, place: place(page, offset), sequence, last, bytes: &bytes };
            f.data(Now(self.number * 1000), self.number, &data).unwrap();
        }
    }

    fn repair(&mut self, f: &mut Fetching, (page, offset, len): (u64, u64, usize), last: bool) {
        self.number += 1;
        let bytes = content(page, offset, len);
        let data = Data { request: 0, place: place(page, offset), sequence: None, last, bytes: &bytes };
        f.data(Now(self.number * 1000), self.number, &data).unwrap();
    }

    fn end(&mut self, f: &mut Fetching, code: EndCode, page: u64) {
        self.number += 1;
        f.end(Now(self.number * 1000), self.number, (code, place(page, 0), self.sequence)).unwrap();
    }

    fn now(&self) -> Now {
        Now(self.number * 1000)
    }
}

fn fetching(what: &What) -> Fetching {
    Fetching::new(Bytes::new(), Shape::of(what), 100_000, BufferPool::new(2))
}

fn pages(first: u64, last: u64) -> Fetching {
    fetching(&What::Pages(PageSet::range(first, last)))
}

/// Pieces until there is none.
fn read(f: &mut Fetching) -> (Vec<Piece>, Read) {
    let mut out: Vec<Piece> = Vec::new();
    loop {
        match f.read() {
            Read::Piece(Piece::Bytes(b)) => match out.last_mut() {
                Some(Piece::Bytes(before)) => *before = [&before[..], &b].concat().into(),
                _ => out.push(Piece::Bytes(b)),
            },
            Read::Piece(p) => out.push(p),
            end => return (out, end),
        }
    }
}

fn bytes(page: u64, offset: u64, len: usize) -> Piece {
    Piece::Bytes(content(page, offset, len).into())
}

#[test]
fn pages_in_order_are_bytes_after_one_number() {
    let (mut f, mut h) = (pages(3, 4), Host::new());
    f.accept(Now(0), 0, place(3, 0)).unwrap();
    h.data(&mut f, (3, 0, 1000), false, false);
    h.data(&mut f, (3, 1000, 500), true, false);
    h.data(&mut f, (4, 0, 800), true, false);
    h.end(&mut f, EndCode::COMPLETE, 5);
    let all = [content(3, 0, 1500), content(4, 0, 800)].concat();
    assert_eq!(read(&mut f), (vec![Piece::Page(3), Piece::Bytes(all.into())], Read::End(EndCode::COMPLETE)));
    assert!(f.is_done() && f.new_repair(Now(1 << 40), 1000, RTT).is_none());
}

#[test]
fn what_is_lost_is_asked_for_again_until_it_came_and_pages_behind_it_do_not_wait() {
    let (mut f, mut h) = (pages(3, 6), Host::new());
    f.accept(Now(0), 0, place(3, 0)).unwrap();
    h.data(&mut f, (3, 0, 1000), false, false);
    h.data(&mut f, (3, 1000, 1000), false, true);
    h.data(&mut f, (3, 2000, 500), true, false);
    h.data(&mut f, (4, 0, 900), true, false);
    let fragment = |page, offset: u32, len| Piece::Fragment {
        page,
        offset,
        bytes: content(page, u64::from(offset), len).into(),
    };
    let got =
        vec![Piece::Page(3), bytes(3, 0, 1000), fragment(3, 2000, 500), Piece::Page(4), bytes(4, 0, 900)];
    assert_eq!(read(&mut f), (got, Read::Pending));
    // The packet that showed the hole and one more: not lost yet.
    assert_eq!(f.new_repair(h.now(), h.number, RTT), None);
    assert_eq!(f.timeout(RTT), Some(Now(3000) + Duration::from_millis(5)));
    h.data(&mut f, (5, 0, 900), true, true);
    h.data(&mut f, (6, 0, 900), true, false);
    assert_eq!(f.new_repair(h.now(), h.number, RTT), Some(1));
    assert_eq!(f.repairs[&1], Places(vec![(place(3, 1000), place(3, 2000))]));
    assert_eq!(f.new_repair(h.now(), h.number, RTT), None, "asked once");
    h.end(&mut f, EndCode::COMPLETE, 7);
    // Time passes: page 5 is lost too.
    assert_eq!(f.new_repair(Now(1_000_000), h.number, RTT), Some(2));
    assert_eq!(f.repairs[&2], Places(vec![(place(5, 0), place(6, 0))]));
    assert_eq!(f.timeout(RTT), None, "all was asked for");
    // Of the first repair half is lost again.
    h.repair(&mut f, (3, 1000, 400), false);
    h.number += 1;
    f.repaired(Now(1_000_000), h.number, 1);
    assert_eq!(f.new_repair(Now(1_000_000), h.number + 2, RTT), Some(3));
    assert_eq!(f.repairs[&3], Places(vec![(place(3, 1400), place(3, 2000))]));
    h.repair(&mut f, (5, 0, 900), true);
    h.repair(&mut f, (3, 1400, 600), false);
    h.repair(&mut f, (3, 1400, 600), false);
    let (got, end) = read(&mut f);
    let want = [
        Piece::Page(6),
        bytes(6, 0, 900),
        fragment(3, 1000, 400),
        fragment(5, 0, 900),
        fragment(3, 1400, 600),
    ];
    assert_eq!((got, end), (want.to_vec(), Read::End(EndCode::COMPLETE)));
}

#[test]
fn what_was_only_late_is_no_repair_and_makes_patient() {
    let (mut f, mut h) = (pages(0, 9), Host::new());
    f.accept(Now(0), 0, 0).unwrap();
    h.data(&mut f, (0, 0, 100), true, false);
    let late = content(1, 0, 100);
    let late = Data { request: 0, place: place(1, 0), sequence: Some(100), last: true, bytes: &late };
    h.data(&mut f, (1, 0, 100), true, true);
    for page in 2..5 {
        h.data(&mut f, (page, 0, 100), true, false);
    }
    assert_eq!(f.new_repair(h.now(), h.number, RTT), Some(1));
    f.data(h.now(), h.number, &late).unwrap();
    assert!(f.holes.is_empty() && f.threshold == 2 * THRESHOLD && f.patience == 2);
    f.data(h.now(), h.number, &late).unwrap();
    let total: usize = read(&mut f)
        .0
        .iter()
        .map(|p| match p {
            Piece::Bytes(bytes) | Piece::Fragment { bytes, .. } => bytes.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(total, 500, "what came twice counts once");
}

#[test]
fn pages_that_the_host_passes_over_are_no_losses() {
    let (mut f, mut h) = (pages(0, 9), Host::new());
    f.accept(Now(0), 0, 0).unwrap();
    h.data(&mut f, (0, 0, 100), true, false);
    h.data(&mut f, (4, 0, 100), true, false);
    h.end(&mut f, EndCode::MISSING, 10);
    let got = vec![Piece::Page(0), bytes(0, 0, 100), Piece::Page(4), bytes(4, 0, 100)];
    assert_eq!(read(&mut f), (got, Read::End(EndCode::MISSING)));
    // Both at once: the host says so in the repair.
    let (mut f, mut h) = (pages(0, 9), Host::new());
    f.accept(Now(0), 0, 0).unwrap();
    h.data(&mut f, (2, 0, 100), true, true);
    h.data(&mut f, (9, 0, 100), true, false);
    h.end(&mut f, EndCode::MISSING, 10);
    assert_eq!(f.new_repair(Now(1 << 30), h.number, RTT), Some(1));
    assert_eq!(f.repairs[&1], Places(vec![(0, place(9, 0))]));
    for page in [0, 1, 3, 4, 5, 6, 7, 8] {
        h.repair(&mut f, (page, 0, 0), true);
    }
    assert!(!f.is_done());
    h.repair(&mut f, (2, 0, 100), true);
    assert_eq!(read(&mut f).1, Read::End(EndCode::MISSING));
}

#[test]
fn the_beginning_and_the_end_may_be_lost_too() {
    let (mut f, mut h) = (pages(5, 7), Host::new());
    h.data(&mut f, (5, 0, 100), true, true);
    h.data(&mut f, (6, 0, 100), true, false);
    h.data(&mut f, (7, 0, 100), true, true);
    assert_eq!(f.new_repair(Now(1 << 30), 99, RTT), None, "where it begins is not known yet");
    h.end(&mut f, EndCode::COMPLETE, 8);
    f.accept(Now(9000), 9, place(5, 0)).unwrap();
    assert_eq!(f.new_repair(Now(1 << 30), 99, RTT), Some(1));
    assert_eq!(f.repairs[&1], Places(vec![(place(5, 0), place(6, 0)), (place(7, 0), place(8, 0))]));
    h.repair(&mut f, (5, 0, 100), true);
    assert!(!f.is_done());
    h.repair(&mut f, (7, 0, 100), true);
    assert!(f.is_done());
    // Nothing of it arrived but the end.
    let (mut f, mut h) = (pages(5, 7), Host::new());
    h.data(&mut f, (5, 0, 100), true, true);
    h.end(&mut f, EndCode::COMPLETE, 6);
    assert!(!f.is_done());
    f.accept(Now(0), 2, place(5, 0)).unwrap();
    assert_eq!(f.new_repair(Now(1 << 30), 99, RTT), Some(1));
    // Refused at once; and given up in the middle.
    let mut f = pages(5, 7);
    f.fail(EndCode::DENIED);
    assert_eq!(f.read(), Read::End(EndCode::DENIED));
    let (mut f, mut h) = (pages(5, 7), Host::new());
    f.accept(Now(0), 0, place(5, 0)).unwrap();
    h.data(&mut f, (5, 0, 100), true, true);
    h.data(&mut f, (6, 0, 100), true, false);
    h.end(&mut f, EndCode::COMPLETE, 7);
    f.fail(EndCode::DENIED);
    assert_eq!(read(&mut f), (vec![Piece::Page(6), bytes(6, 0, 100)], Read::End(EndCode::DENIED)));
}

#[test]
fn bytes_come_in_order() {
    let mut f = fetching(&What::Bytes { first: 1000, last: Some(1999) });
    let all: Vec<u8> = (0..1000u64).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let part = |from: usize, to: usize, new: bool| Data {
        request: 0,
        place: 1000 + from as u64,
        sequence: new.then_some(from as u64),
        last: false,
        bytes: &all[from..to],
    };
    f.data(Now(0), 2, &part(300, 600, true)).unwrap();
    assert_eq!(f.read(), Read::Pending);
    f.data(Now(0), 3, &part(0, 300, true)).unwrap();
    f.accept(Now(0), 3, 1000).unwrap();
    assert_eq!(f.read(), Read::Piece(Piece::Bytes(all[..600].to_vec().into())));
    f.data(Now(0), 5, &part(800, 1000, true)).unwrap();
    f.end(Now(0), 6, (EndCode::COMPLETE, 2000, 1000)).unwrap();
    assert_eq!((f.read(), f.cursor), (Read::Pending, Some(END)));
    assert_eq!(f.new_repair(Now(1 << 30), 9, RTT), Some(1));
    assert_eq!(f.repairs[&1], Places(vec![(1600, 1800)]));
    f.data(Now(0), 9, &part(600, 800, false)).unwrap();
    assert_eq!(f.read(), Read::Piece(Piece::Bytes(all[600..].to_vec().into())));
    assert_eq!(f.read(), Read::End(EndCode::COMPLETE));
}

#[test]
fn slices_that_are_not_known_are_passed_over() {
    let mut f = fetching(&What::Proofs { first: 2, last: 9 });
    f.accept(Now(0), 0, place(2, 0)).unwrap();
    let mut h = Host::new();
    h.data(&mut f, (3, 0, 50), false, false);
    h.data(&mut f, (3, 50, 10), true, true);
    h.data(&mut f, (7, 0, 20), true, false);
    h.end(&mut f, EndCode::COMPLETE, 10);
    assert_eq!(read(&mut f), (vec![bytes(3, 0, 50)], Read::Pending));
    assert_eq!(f.new_repair(Now(1 << 30), h.number, RTT), Some(1));
    assert_eq!(f.repairs[&1], Places(vec![(place(3, 50), place(7, 0))]));
    h.repair(&mut f, (3, 50, 10), true);
    for slice in 4..7 {
        h.repair(&mut f, (slice, 0, 0), true);
    }
    let rest = [content(3, 50, 10), content(7, 0, 20)].concat();
    assert_eq!(read(&mut f), (vec![Piece::Bytes(rest.into())], Read::End(EndCode::COMPLETE)));
}

#[test]
fn what_was_not_asked_for_or_allowed_is_a_breach() {
    let data = |place, sequence, last, bytes| Data { request: 0, place, sequence, last, bytes };
    let page = [7u8; 100];
    let breach = |d: Data<'_>| {
        let mut f = pages(5, 7);
        f.accept(Now(0), 0, place(5, 0)).unwrap();
        f.data(Now(0), 1, &data(place(5, 0), Some(0), true, &page)).unwrap();
        f.data(Now(0), 2, &d).is_err()
    };
    assert!(!breach(data(place(6, 0), Some(100), true, &page)));
    assert!(breach(data(place(8, 0), Some(100), true, &page)), "not in the set");
    assert!(breach(data(place(4, 0), None, true, &page)), "not in the set, as a repair");
    assert!(breach(data(place(6, 65_300), Some(100), true, &page)), "beyond the largest page");
    assert!(breach(data(place(6, 0), Some(99_950), true, &page)), "beyond the credit");
    assert!(breach(data(place(5, 0), Some(100), true, &page)), "backwards");
    assert!(!breach(data(place(5, 0), None, true, &page)), "a repair that nobody asked for is dropped");
    let mut f = pages(0, 1 << 30);
    let mut n = 0;
    while f.data(Now(0), n, &data(place(2 * n, 0), Some(3 * n), true, &page[..1])).is_ok() {
        n += 1;
    }
    assert_eq!(n, HOLES as u64 + 1);
}

#[test]
fn credit_follows_the_reader() {
    let (mut f, mut h) = (pages(0, 1000), Host::new());
    f.accept(Now(0), 0, 0).unwrap();
    for page in 0..90 {
        h.data(&mut f, (page, 0, 1000), true, page % 2 == 1);
    }
    let held = f.held();
    assert!((45_000..50_000).contains(&held), "{held}: lost bytes take none");
    assert_eq!(f.new_limit(), Some(89_000 + 100_000 - held));
    assert_eq!(f.new_limit(), None, "nobody reads");
    while let Read::Piece(_) = f.read() {}
    assert_eq!((f.new_limit(), f.held()), (Some(89_000 + 100_000), 0));
    assert_eq!(f.new_limit(), None);
    // The host says that it is at the limit (what it sent is lost): that is worth a word.
    f.blocked(100_000).unwrap();
    assert_eq!(f.new_limit(), Some(200_000));
    assert!(f.blocked(200_001).is_err());
    f.stop();
    assert_eq!(f.held(), 0);
}
