use iceshare::icet::stream::{EndCode, PagesRequest};
use iceshare::icet::{MediaId, PageSet, Ticket};
use iceshare::protocol::{Span, What};
use proptest::prelude::*;

use super::datagram::{AssocId, Datagram, packet_header};
use super::*;

fn varint() -> impl Strategy<Value = u64> {
    prop_oneof![0..100u64, 0..100_000u64, 0..=MAX_VARINT]
}

fn places(max: usize) -> impl Strategy<Value = Places> {
    prop::collection::vec((1..1u64 << 40, 1..1u64 << 30), 0..max).prop_map(|pairs| {
        let mut at = 0;
        let one = |(gap, len)| {
            let start = at + gap;
            at = start + len;
            (start, at)
        };
        Places(pairs.into_iter().map(one).collect())
    })
}

fn ack() -> impl Strategy<Value = Ack> {
    (prop::collection::vec((0..1000u64, 0..1000u64), 1..ACK_RANGES + 1), varint()).prop_map(
        |(steps, delay)| {
            let mut at = 10_000_000;
            let one = |(gap, len)| {
                let last = at - gap - 2;
                at = last - len;
                (at, last)
            };
            Ack { ranges: steps.into_iter().map(one).collect(), delay }
        },
    )
}

/// A frame that borrows from `bytes`.
fn frame<'a>(kind: u8, n: [u64; 4], ack: &Ack, places: &Places, bytes: &'a [u8]) -> Frame<'a> {
    let [request, a, b, c] = n;
    let code = EndCode(u16::try_from(a % 70_000).unwrap_or(6));
    match kind {
        0 => Frame::Padding,
        1 => Frame::Ping,
        2 => Frame::Ack(ack.clone()),
        3 => Frame::Close(CloseReason::from_code(a)),
        4 => {
            let offset = usize::try_from(a).unwrap_or(0) % (BODY - bytes.len());
            Frame::Request { request, offset, total: BODY, bytes }
        }
        5 => Frame::Stop { request },
        6 => Frame::Credit { request, limit: a },
        7 => Frame::Repair { request, number: a, places: places.clone() },
        8 => Frame::Accept { request, place: a },
        9 => Frame::Repaired { request, number: a },
        10 => Frame::Blocked { request, sequence: a },
        11 => Frame::End { request, code, place: b, sequence: c },
        12 => Frame::Fail { request, code },
        _ => Frame::Data(Data {
            request,
            place: a.min(1 << 60),
            sequence: (b % 2 == 0).then_some(c),
            last: c % 2 == 0,
            bytes,
        }),
    }
}

proptest! {
    #[test]
    fn frames_survive(
        parts in prop::collection::vec((0u8..14, [varint(), varint(), varint(), varint()], prop::collection::vec(any::<u8>(), 0..300)), 1..8),
        ack in ack(),
        places in places(REPAIR_INTERVALS),
    ) {
        let frames: Vec<Frame<'_>> = parts.iter().map(|(k, n, b)| frame(*k, *n, &ack, &places, b)).collect();
        let mut bytes = Vec::new();
        frames.iter().for_each(|f| f.write(&mut bytes));
        let read: Result<Vec<_>, _> = Frames::new(&bytes).collect();
        prop_assert_eq!(read.as_ref(), Ok(&frames));
        // Cut off anywhere, it is never anything else than a beginning of the same frames.
        for cut in 0..bytes.len() {
            let read: Vec<_> = Frames::new(&bytes[..cut]).map_while(Result::ok).collect();
            prop_assert!(read.len() <= frames.len() && frames[..read.len()] == read[..]);
        }
    }

    #[test]
    fn headers_of_data_are_as_long_as_said(place in 0..1u64 << 60, sequence in prop::option::of(varint()), bytes in prop::collection::vec(any::<u8>(), 64..1500)) {
        let mut out = Vec::new();
        Data { request: 3, place, sequence, last: true, bytes: &bytes }.write(&mut out);
        prop_assert_eq!(out.len(), data_header_len(3, place, sequence) + bytes.len());
    }

    #[test]
    fn arbitrary_bytes_are_frames_or_errors(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for frame in Frames::new(&bytes).map_while(Result::ok) {
            let mut out = Vec::new();
            frame.write(&mut out);
            prop_assert_eq!(Frames::new(&out).collect::<Vec<_>>(), [Ok(frame)]);
        }
        let _ = Body::read(&bytes);
        let _ = Datagram::read(&bytes);
    }

    #[test]
    fn datagrams_survive(initiator in any::<u64>(), noise in prop::collection::vec(any::<u8>(), 0..1400), number in any::<u32>()) {
        let initiator = AssocId(initiator);
        let (cookie, static_key, signature) = ([1; 32], [2; 32], [3; 64]);
        for datagram in [
            Datagram::Knock { initiator },
            Datagram::Cookie { initiator, cookie, static_key, signature },
            Datagram::Hello { initiator, cookie, noise: &noise },
            Datagram::Answer { initiator, noise: &noise },
            Datagram::Packet { to: initiator, number, ciphertext: &noise },
        ] {
            let bytes = datagram.write();
            prop_assert!(datagram::FIRST_BYTES.contains(&bytes[0]));
            prop_assert_eq!(Datagram::read(&bytes), Ok(datagram));
        }
        let header = packet_header(initiator, number);
        prop_assert_eq!(Datagram::read(&header), Ok(Datagram::Packet { to: initiator, number, ciphertext: &[] }));
    }
}

#[test]
fn varints_are_those_of_rfc_9000() {
    // Appendix A.1.
    for (bytes, n) in [
        (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
        (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
        (&[0x7b, 0xbd], 15_293),
        (&[0x25], 37),
    ] {
        assert_eq!(Reader(bytes).varint(), Ok(n));
        let mut out = Vec::new();
        put_varint(&mut out, n);
        assert_eq!((out.as_slice(), varint_len(n)), (bytes, bytes.len()));
    }
    assert_eq!(Reader(&[0x40, 0x25]).varint(), Ok(37));
    assert_eq!(Reader(&[0x9d, 0x7f, 0x3e]).varint(), Err(WireError::Short));
}

#[test]
fn knocks_are_larger_than_cookies_and_hellos_than_answers() {
    let initiator = AssocId(1);
    let cookie = Datagram::Cookie { initiator, cookie: [0; 32], static_key: [0; 32], signature: [0; 64] };
    assert!(cookie.write().len() <= datagram::KNOCK_LEN);
    assert!(Datagram::read(&Datagram::Knock { initiator }.write()[..datagram::KNOCK_LEN - 1]).is_err());
    let hello = Datagram::Hello { initiator, cookie: [0; 32], noise: &[1; 300] }.write();
    assert!(hello.len() == MIN_DATAGRAM && Datagram::read(&hello[..MIN_DATAGRAM - 1]).is_err());
    assert!(Datagram::Answer { initiator, noise: &[0; 58] }.write().len() < MIN_DATAGRAM);
}

#[test]
fn bodies_survive_and_the_largest_fits() {
    let span = |n: u64| Span { page: (1 << 40) - 1 - n, offset: 65_000, len: 300 };
    let largest = PagesRequest {
        path: "a".repeat(1024).parse().unwrap(),
        media: MediaId([1; 32]),
        version: u64::MAX,
        what: What::Spans((0..128).rev().map(span).collect()),
        ticket: Some(Ticket { body: vec![0; 512].into(), mac: iceshare::icet::key::Hash([0; 32]) }),
    };
    let small = PagesRequest { what: What::Pages(PageSet::range(1, 2)), ticket: None, ..largest.clone() };
    for request in [largest, small] {
        let body = Body { credit: MAX_VARINT, request };
        let bytes = body.write();
        assert!(bytes.len() <= BODY);
        assert_eq!(Body::read(&bytes), Ok(body));
        assert!(Body::read(&[&bytes[..], &[0]].concat()).is_err());
        assert!((0..bytes.len()).all(|cut| Body::read(&bytes[..cut]).is_err()));
    }
}
