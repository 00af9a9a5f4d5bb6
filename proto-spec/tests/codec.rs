//! Every message survives the wire; nothing from the wire breaks the decoder; later versions are understood.

mod common;
#[path = "common/messages.rs"]
mod messages;

use icet::frame::{self, FrameError};
use icet::media::{Manifest, Signed, Slice};
use icet::message::{ToPeer, ToTracker};
use icet::ticket::{Ticket, TicketBody};
use icet::{PageRanges, PageSet, ProvenSlice, limits};
use messages::{to_peer, to_tracker};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use proptest::collection::vec;
use proptest::prelude::*;

/// The same item with a field that nobody knows in every map of it.
fn with_later_fields(d: &mut Decoder<'_>, e: &mut Encoder<Vec<u8>>) {
    let start = d.position();
    match d.datatype().unwrap() {
        Type::Array => {
            let n = d.array().unwrap().unwrap();
            e.array(n).unwrap();
            (0..n).for_each(|_| with_later_fields(d, e));
        }
        Type::Map => {
            let n = d.map().unwrap().unwrap();
            e.map(n + 1).unwrap();
            e.u32(4000).unwrap().begin_array().unwrap().str("later").unwrap().end().unwrap();
            (0..2 * n).for_each(|_| with_later_fields(d, e));
        }
        _ => {
            d.skip().unwrap();
            e.writer_mut().extend_from_slice(&d.input()[start..d.position()]);
        }
    }
}

fn later(body: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    with_later_fields(&mut Decoder::new(body), &mut e);
    e.into_writer()
}

/// Decodes `bytes` as everything that a stranger may send.
fn decode_all(bytes: &[u8]) {
    let _ = ToTracker::from_body(bytes);
    let _ = ToPeer::from_body(bytes);
    let _ = frame::decode::<Manifest>(bytes);
    let _ = frame::decode::<Signed>(bytes);
    let _ = frame::decode::<ProvenSlice>(bytes);
    let _ = Slice::from_bytes(bytes);
    let _ = frame::decode::<Ticket>(bytes);
    let _ = frame::decode::<TicketBody>(bytes);
    let _ = frame::decode::<PageSet>(bytes);
    let _ = frame::decode::<PageRanges>(bytes);
}

proptest! {
    #[test]
    fn a_message_to_a_tracker_survives(m in to_tracker()) {
        let body = frame::encode(&m);
        prop_assert_eq!(ToTracker::from_body(&body), Ok(m.clone()));
        prop_assert_eq!(ToTracker::from_body(&later(&body)), Ok(m));
        prop_assert!(body.len() <= limits::FRAME);
    }

    #[test]
    fn a_message_to_a_peer_survives(m in to_peer()) {
        let body = frame::encode(&m);
        prop_assert_eq!(ToPeer::from_body(&body), Ok(m.clone()));
        prop_assert_eq!(ToPeer::from_body(&later(&body)), Ok(m));
        prop_assert!(body.len() <= limits::FRAME);
    }

    #[test]
    fn a_message_cut_short_is_refused(m in to_tracker(), at in any::<prop::sample::Index>()) {
        let body = frame::encode(&m);
        let cut = &body[..at.index(body.len())];
        let is_refused = matches!(ToTracker::from_body(cut), Err(FrameError::Malformed { .. }));
        prop_assert!(is_refused);
    }

    #[test]
    fn an_altered_message_breaks_nothing(m in to_tracker(), n in to_peer(), at in any::<prop::sample::Index>(), byte: u8) {
        for mut body in [frame::encode(&m), frame::encode(&n)] {
            let i = at.index(body.len());
            body[i] = byte;
            decode_all(&body);
            // What is still taken is within the limits, and so can be sent on.
            if let Ok(m) = ToTracker::from_body(&body) && !matches!(m, ToTracker::Unknown(_)) {
                prop_assert_eq!(ToTracker::from_body(&frame::encode(&m)), Ok(m));
            }
            if let Ok(m) = ToPeer::from_body(&body) && !matches!(m, ToPeer::Unknown(_)) {
                prop_assert_eq!(ToPeer::from_body(&frame::encode(&m)), Ok(m));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_break_nothing(bytes in vec(any::<u8>(), 0..400), number in 0u8..120) {
        decode_all(&bytes);
        let head: &[u8] = if number < 24 { &[0x82, number] } else { &[0x82, 0x18, number] };
        decode_all(&[head, &bytes].concat());
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_cut(
        messages in vec(to_tracker(), 0..6),
        cuts in vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut stream = Vec::new();
        messages.iter().for_each(|m| m.write(&mut stream));
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let (mut buffer, mut out) = (Vec::new(), Vec::new());
        for pair in cuts.windows(2) {
            buffer.extend_from_slice(&stream[pair[0]..pair[1]]);
            while let Some((body, taken)) = frame::split(&buffer).unwrap() {
                out.push(ToTracker::from_body(body).unwrap());
                buffer.drain(..taken);
            }
        }
        prop_assert_eq!(out, messages);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn a_frame_header_asks_for_no_more_than_the_limit(header: [u8; 4], body in vec(any::<u8>(), 0..64)) {
        let len = u32::from_be_bytes(header) as usize;
        match frame::split(&[&header[..], &body].concat()) {
            Err(e) => prop_assert_eq!((e, len > limits::FRAME), (FrameError::TooLong(len), true)),
            Ok(None) => prop_assert!(len > body.len() && len <= limits::FRAME),
            Ok(Some((b, taken))) => prop_assert_eq!((b, taken), (&body[..len], 4 + len)),
        }
    }
}

/// What fills a message to its limits still fits a frame, so that no peer can be made to send what it must not.
#[test]
fn the_largest_lists_fit_a_frame() {
    let key = icet::PeerKey([0xff; 32]);
    let addr = icet::NetAddr {
        kind: icet::NetKind::Tcp,
        at: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(),
    };
    let runs = (0..limits::RANGES as u64)
        .map(|i| (limits::PAGES - 1 - i * 67_000_000, limits::PAGES - 1 - i * 67_000_000));
    let ranges = PageRanges::from_runs(runs);
    assert_eq!(ranges.runs().len(), limits::RANGES);
    let join = icet::message::Join {
        request: u64::MAX,
        path: icet::MediaPath::new("x".repeat(limits::PATH)).unwrap(),
        publisher: Some(key),
        version: u64::MAX,
        have: ranges,
        intent: icet::message::Intent::Whole,
        at: None,
        running: vec![u64::MAX; limits::ITEMS],
        back: Some(u32::MAX),
    };
    assert!(frame::encode(&ToTracker::from(join)).len() <= limits::FRAME);
    let slice = ProvenSlice {
        slice: vec![0; limits::SLICE].into(),
        proof: vec![icet::key::Hash([0; 32]); limits::PROOF],
    };
    let slices = icet::message::Slices {
        media: icet::MediaId([0; 32]),
        request: u64::MAX,
        slices: vec![slice; limits::SLICES],
    };
    assert!(frame::encode(&ToPeer::Slices(slices)).len() <= limits::FRAME);
    let reach = icet::message::Reach { reach: vec![addr; limits::REACH] };
    assert!(frame::encode(&ToTracker::from(reach)).len() <= limits::FRAME);
}
