//! The specification says what the code does, where both have a number for it.

use iceshare_transport_udp::assoc::{IDLE, REQUESTS, SILENT};
use iceshare_transport_udp::wire::datagram::{AssocId, Datagram, FIRST_BYTES, KNOCK_LEN, VERSION};
use iceshare_transport_udp::wire::{
    ACK_RANGES, BODY, CloseReason, Data, Frame, MAX_DATAGRAM, MIN_DATAGRAM, Places, REPAIR_INTERVALS, UNIT,
};

fn text() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto-spec/spec/udp.md");
    // Lines are broken anywhere.
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn frames_have_the_numbers_of_the_table() {
    let text = text();
    let code = iceshare::icet::stream::EndCode::COMPLETE;
    let data = Data { request: 0, place: 0, sequence: Some(0), last: false, bytes: &[] };
    let ack = iceshare_transport_udp::wire::Ack { ranges: vec![(0, 0)], delay: 0 };
    for (name, frame) in [
        ("PADDING", Frame::Padding),
        ("PING", Frame::Ping),
        ("ACK", Frame::Ack(ack)),
        ("CLOSE", Frame::Close(CloseReason::Idle)),
        ("REQUEST", Frame::Request { request: 0, offset: 0, total: 0, bytes: &[] }),
        ("STOP", Frame::Stop { request: 0 }),
        ("CREDIT", Frame::Credit { request: 0, limit: 0 }),
        ("REPAIR", Frame::Repair { request: 0, number: 1, places: Places::default() }),
        ("ACCEPT", Frame::Accept { request: 0, place: 0 }),
        ("REPAIRED", Frame::Repaired { request: 0, number: 1 }),
        ("BLOCKED", Frame::Blocked { request: 0, sequence: 0 }),
        ("END", Frame::End { request: 0, code, place: 0, sequence: 0 }),
        ("FAIL", Frame::Fail { request: 0, code }),
    ] {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        assert!(text.contains(&format!("\n| {} | {name} |", bytes[0])), "{name} is {}", bytes[0]);
    }
    let mut all = Vec::new();
    for (last, sequence) in [(false, Some(0)), (true, Some(0)), (false, None), (true, None)] {
        Data { last, sequence, ..data }.write(&mut all);
    }
    let kinds: Vec<u8> = iceshare_transport_udp::wire::Frames::new(&all)
        .map(|f| {
            let mut bytes = Vec::new();
            f.unwrap().write(&mut bytes);
            bytes[0]
        })
        .collect();
    assert_eq!(kinds, [16, 17, 18, 19]);
    assert!(text.contains("\n| 16 to 19 | DATA |"));
}

#[test]
fn limits_are_those_of_the_text() {
    let text = text().replace('\n', " ");
    let (first, last) = (FIRST_BYTES.start(), FIRST_BYTES.end());
    for (name, datagram) in [
        ("KNOCK", Datagram::Knock { initiator: AssocId(0) }),
        ("HELLO", Datagram::Hello { initiator: AssocId(0), cookie: [0; 32], noise: &[] }),
        ("ANSWER", Datagram::Answer { initiator: AssocId(0), noise: &[] }),
        ("PACKET", Datagram::Packet { to: AssocId(0), number: 0, ciphertext: &[] }),
    ] {
        assert!(text.contains(&format!("| {} | {name} |", datagram.write()[0])), "{name}");
    }
    for said in [
        format!("This protocol has {first} to {last}"),
        format!("the version is {VERSION}"),
        format!("zeros up to {KNOCK_LEN} bytes or more"),
        format!("zeros up to {MIN_DATAGRAM} bytes or more"),
        format!("at most {BODY} bytes"),
        format!("place = number of the page or slice × {UNIT} + offset in it"),
        format!("at most {REPAIR_INTERVALS} intervals"),
        format!("At most {ACK_RANGES} further ranges"),
        format!("more than {REQUESTS} requests"),
        format!("when nothing was received for {} seconds", IDLE.as_secs()),
        format!("when nothing was received for {} seconds", SILENT.as_secs()),
        format!("1452, 1472, and once 500 packets were acknowledged {MAX_DATAGRAM}"),
    ] {
        assert!(text.contains(&said), "it does not say: {said}");
    }
}
