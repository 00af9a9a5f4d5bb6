//! Packets of the UDP transport, as strangers and as peers with a key may send them.

use std::time::Duration;

use bytes::Bytes;
use iceshare::protocol::{Span, What};
use iceshare_transport_udp::assoc::{Association, Event, Part, Read, Want};
use iceshare_transport_udp::wire::datagram::{AssocId, Datagram};
use iceshare_transport_udp::wire::{Body, Frames, UNIT};
use icet::{Now, PageSet, PeerKey, Stripe};

/// A datagram as it comes from the network: what is read is written the same. Then the same bytes as what an
/// authenticated peer may send: frames, and the body of a request.
pub fn wire(data: &[u8]) {
    if let Ok(datagram) = Datagram::read(data) {
        let again = datagram.write();
        assert_eq!(Datagram::read(&again), Ok(datagram), "datagrams survive");
    }
    let mut out = Vec::new();
    let frames: Vec<_> = Frames::new(data).map_while(Result::ok).collect();
    frames.iter().for_each(|f| f.write(&mut out));
    assert_eq!(Frames::new(&out).collect::<Result<Vec<_>, _>>().as_ref(), Ok(&frames), "frames survive");
    if let Ok(body) = Body::read(data) {
        assert_eq!(Body::read(&body.write()), Ok(body), "requests survive");
    }
}

/// Most that a fetch may hold for its reader.
const WINDOW: u64 = 20_000;

/// Packets of a peer that proved its key and may say what it likes, to a receiver with requests open and to a host.
/// Each packet is a length (2 bytes, of which the highest bit lets time pass) and so many bytes of frames.
pub fn association(data: &[u8]) {
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let mut a = Association::new(Now(0), AssocId(1), PeerKey([1; 32]), at);
    let (mut now, mut number, mut rest) = (Now(0), 0, data);
    let set = PageSet { first: 3, last: Some(20), stripe: Stripe::new(1, 2, 2) };
    for what in [
        What::Pages(PageSet::range(0, 9)),
        What::Pages(set),
        What::Bytes { first: 5, last: Some(5000) },
        What::Proofs { first: 0, last: 3 },
        What::Spans(vec![Span { page: 3, offset: 5, len: 20 }, Span { page: 4, offset: 0, len: 9 }]),
        What::Time { from: 0, to: None },
    ] {
        a.request(Bytes::from_static(b"body"), &what, WINDOW);
    }
    while let [high, low, after @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([high & 0x07, *low]));
        let (packet, next) = after.split_at(len.min(after.len()));
        rest = next;
        if high & 0x80 != 0 {
            now = now + Duration::from_millis(u64::from(*low) * 4);
            a.handle_timeout(now);
        }
        if !packet.is_empty() && a.over().is_none() {
            a.handle_plaintext(now, number, packet);
            number += 1;
        }
        serve(&mut a);
        if high & 0x40 != 0 {
            for id in 0..6 {
                let mut bytes = 0;
                while let Some(Read::Piece(piece)) = a.read(id) {
                    if let iceshare::protocol::Piece::Bytes(b) = piece {
                        bytes += b.len() as u64;
                    }
                }
                assert!(bytes <= 2 * WINDOW, "more than its window was held");
                let _ = a.wants_to_talk(id);
            }
        }
        let _ = a.poll_timeout();
    }
}

/// A host that gives each request a little, and repairs.
fn serve(a: &mut Association) {
    while let Some(event) = a.poll_event() {
        let (Event::Asked(id, _) | Event::Hungry(id)) = event else { continue };
        a.first_credit(id, 1000);
        a.accept(id, 0);
        if let Want::Now(_) = a.room(id, id % 2 == 1, if id % 3 == 0 { 5_000 } else { u64::MAX }) {
            a.supply(id, Part { place: id % 1000 * UNIT, bytes: Bytes::from_static(&[7; 300]), last: true });
        }
        if let Want::Now((number, _)) = a.next_repair(id) {
            a.repair_done(id, number);
        }
    }
}
