use std::net::IpAddr;

use icet::ProvenSlice;
use icet::message::{Guidance, Pong, Slices, Withdraw, Withdrawn};

use super::*;

/// A slice whose first bytes are those of a slice of this index.
fn slice(index: u64, bytes: usize) -> ProvenSlice {
    let mut out = Vec::new();
    let mut e = minicbor::Encoder::new(&mut out);
    e.array(4).unwrap().u64(index).unwrap();
    out.resize(bytes.max(out.len()), 0);
    ProvenSlice { slice: out.into(), proof: Vec::new() }
}

fn publish(r: &mut Rig, pages: u64) {
    r.pages = pages;
    let command =
        Command::Publish { handle: H, manifest: Box::new(manifest(pages, 1)), slices: vec![slice(0, 100)] };
    r.command(command);
}

fn wants(r: &mut Rig) -> Vec<u64> {
    let want = |a: &Action| if let Action::WantUpload { from, .. } = a { Some(*from) } else { None };
    let out = r.rest.iter().filter_map(want).collect();
    r.rest.clear();
    out
}

fn uploads(r: &Rig) -> Vec<Slices> {
    r.sent.iter().filter_map(|m| if let ToTracker::Slices(s) = m { Some(s.clone()) } else { None }).collect()
}

fn pong(r: &mut Rig, i: usize) {
    let nonces: Vec<_> =
        r.sent.iter().filter_map(|m| if let ToTracker::Ping(p) = m { Some(p.nonce) } else { None }).collect();
    r.tell(Pong { nonce: nonces[i], time: 0 }.into());
}

#[test]
fn uploads_keep_two_messages_ahead() {
    let mut r = Rig::new();
    publish(&mut r, 64 * 300);
    r.connect(1);
    assert!(wants(&mut r).is_empty(), "nothing before the answer");
    r.answer(1);
    assert_eq!(wants(&mut r), [0]);
    r.command(Command::Upload { handle: H, slices: (0..64).map(|i| slice(i, 100)).collect() });
    assert_eq!(wants(&mut r), [64]);
    r.command(Command::Upload { handle: H, slices: (64..128).map(|i| slice(i, 100)).collect() });
    assert!(wants(&mut r).is_empty(), "two are under way");
    assert_eq!(uploads(&r).iter().map(|s| s.slices.len()).collect::<Vec<_>>(), [64, 64]);
    pong(&mut r, 0);
    assert_eq!(wants(&mut r), [128]);
    // The session breaks before the second was confirmed: it is sent again.
    r.disconnect();
    r.command(Command::Upload { handle: H, slices: vec![slice(128, 100)] });
    r.millis(4000);
    r.clear();
    r.connect(1);
    r.answer(1);
    assert_eq!(wants(&mut r), [64]);
    r.command(Command::Upload { handle: H, slices: (64..128).map(|i| slice(i, 100)).collect() });
    assert_eq!(wants(&mut r), [128]);
    r.command(Command::Upload { handle: H, slices: Vec::new() });
    pong(&mut r, 0);
    assert!(wants(&mut r).is_empty(), "the driver has no more");
    // Another epoch may have lost everything.
    r.disconnect();
    r.millis(4000);
    r.clear();
    r.connect(2);
    r.answer(1);
    assert_eq!(wants(&mut r), [0]);
}

#[test]
fn earlier_heads_go_with_the_first_of_each_session() {
    let signed =
        |n: u8| icet::media::Signed { body: vec![n].into(), signature: icet::key::Signature([0; 64]) };
    let told = |r: &Rig| -> Vec<(u8, usize)> {
        let head = |m: &ToTracker| match m {
            ToTracker::Head(h) => Some((h.head.body[0], h.earlier.as_ref().map_or(0, Vec::len))),
            _ => None,
        };
        r.sent.iter().filter_map(head).collect()
    };
    let tell = |n: u8| Command::Head {
        handle: H,
        head: signed(n),
        earlier: (0..n).map(signed).collect::<Vec<_>>().into(),
    };
    let mut r = Rig::new();
    publish(&mut r, 64);
    r.connect(1);
    r.command(tell(3));
    assert!(told(&r).is_empty(), "nothing before the answer");
    r.answer(1);
    r.command(tell(4));
    r.command(tell(5));
    assert_eq!(told(&r), [(3, 3), (4, 0), (5, 0)]);
    // A tracker that comes back may know nothing.
    r.disconnect();
    r.millis(4000);
    r.clear();
    r.connect(2);
    r.answer(1);
    r.command(tell(6));
    r.command(tell(7));
    assert_eq!(told(&r), [(6, 6), (7, 0)]);
}

#[test]
fn large_slices_make_smaller_messages() {
    let mut r = Rig::new();
    publish(&mut r, 64 * 300);
    r.connect(1);
    r.answer(1);
    wants(&mut r);
    r.command(Command::Upload { handle: H, slices: (0..200).map(|i| slice(i, 4096)).collect() });
    let uploads = uploads(&r);
    assert_eq!(uploads.iter().map(|s| s.slices.len()).sum::<usize>(), 200);
    for u in uploads {
        assert!(u.slices.len() <= 64);
        let mut out = Vec::new();
        ToTracker::from(u).write(&mut out);
        assert!(out.len() <= 560 * 1024);
    }
}

#[test]
fn a_quota_on_uploads_is_waited_for() {
    let mut r = Rig::new();
    publish(&mut r, 64 * 300);
    r.connect(1);
    r.answer(1);
    wants(&mut r);
    r.command(Command::Upload { handle: H, slices: (0..64).map(|i| slice(i, 100)).collect() });
    wants(&mut r);
    let media = Some(manifest(1, 1).id());
    let quota =
        ErrorMessage { code: ErrorCode::QUOTA, request: None, media, text: String::new(), retry: Some(5000) };
    r.tell(quota.into());
    r.command(Command::Upload { handle: H, slices: (64..128).map(|i| slice(i, 100)).collect() });
    r.millis(4999);
    assert!(wants(&mut r).is_empty());
    r.millis(1);
    assert_eq!(wants(&mut r), [0], "from the first that was not confirmed");
}

#[test]
fn publishers_do_not_flood_a_tracker_that_restarts() {
    let mut r = Rig::new();
    for i in 0..1000 {
        let mut m = manifest(100, 1).manifest().clone();
        m.path = MediaPath::new(format!("m{i}")).unwrap();
        let m = SignedManifest::sign(m, &publisher()).unwrap();
        r.command(Command::Publish { handle: Handle(i), manifest: Box::new(m), slices: Vec::new() });
    }
    r.e.handle_connected(r.now, tracker());
    r.drain();
    let count = |r: &Rig| r.sent.iter().filter(|m| matches!(m, ToTracker::Publish(_))).count();
    assert_eq!(count(&r), 64);
    for done in 0..1000 {
        let published =
            r.sent.iter().filter_map(|m| if let ToTracker::Publish(p) = m { Some(p.request) } else { None });
        let request = published.collect::<Vec<_>>()[done];
        r.tell(error(ErrorCode::QUOTA, request, Some(600_000)));
    }
    assert_eq!(count(&r), 1000);
}

#[test]
fn a_withdrawal_survives_a_silence() {
    let mut r = Rig::new();
    publish(&mut r, 100);
    r.connect(1);
    r.answer(1);
    r.disconnect();
    r.command(Command::Withdraw { handle: H, moved: None, release: true });
    r.millis(4000);
    r.clear();
    r.connect(1);
    let withdraw = Withdraw { media: manifest(1, 1).id(), moved: None, release: true };
    assert!(r.sent.contains(&withdraw.into()));
    assert!(r.sent.iter().all(|m| !matches!(m, ToTracker::Publish(_))));
}

#[test]
fn a_withdrawal_does_not_end_what_is_published_in_its_place() {
    let mut r = Rig::new();
    publish(&mut r, 100);
    r.connect(1);
    r.answer(1);
    r.command(Command::Withdraw { handle: H, moved: None, release: false });
    r.clear();
    let next = Handle(8);
    r.command(Command::Publish { handle: next, manifest: Box::new(manifest(100, 2)), slices: Vec::new() });
    assert!(matches!(r.sent[..], [ToTracker::Publish(_)]), "{:?}", r.sent);
    // The tracker tells all members of the old one, also who withdrew it.
    let gone = || Withdrawn { media: manifest(100, 1).id(), moved: None, operator: None, off_air: None };
    r.tell(gone().into());
    assert!(r.rest.is_empty(), "{:?}", r.rest);
    r.answer(2);
    r.clear();
    r.tell(gone().into());
    assert!(matches!(r.rest[..], [Action::Refused { handle, .. }] if handle == next), "{:?}", r.rest);
}

#[test]
fn what_a_tracker_dropped_for_too_many_messages_is_said_again() {
    let slow = |retry| {
        ToPeer::from(ErrorMessage {
            code: ErrorCode::QUOTA,
            request: None,
            media: None,
            text: String::new(),
            retry: Some(retry),
        })
    };
    let mut r = Rig::new();
    publish(&mut r, 64 * 300);
    r.connect(1);
    r.answer(1);
    wants(&mut r);
    r.command(Command::Upload { handle: H, slices: (0..64).map(|i| slice(i, 100)).collect() });
    r.command(Command::Upload { handle: H, slices: (64..128).map(|i| slice(i, 100)).collect() });
    pong(&mut r, 0);
    wants(&mut r);
    // The second was dropped, or its ping was: nothing waits for a pong that may never come.
    r.tell(slow(2000));
    r.command(Command::Upload { handle: H, slices: vec![slice(128, 100)] });
    r.millis(2000);
    assert_eq!(wants(&mut r), [64]);
    r.pass(Duration::from_secs(100));
    assert!(r.rest.is_empty());

    let mut r = Rig::joined(100);
    r.assign(vec![assignment(1, PageSet::range(0, 9), Need::Bulk, &[1])]);
    let id = r.one_started();
    r.pages(id, 0..=9);
    r.ended(id, Outcome::Done);
    r.clear();
    r.tell(slow(2000));
    r.millis(1999);
    assert!(r.sent.is_empty());
    r.millis(1);
    assert_eq!(r.acked(), [(0, vec![(0, 9)])]);
}

#[test]
fn guidance_is_asked_for_in_a_session_and_only_the_last_answer_counts() {
    let guidance = |request| Guidance { request, listeners: 7, hits: 9, givers: Vec::new() };
    let ask = |r: &mut Rig, n: usize| {
        let addresses = vec![IpAddr::from([192, 0, 2, 1]); n];
        r.command(Command::Audience { handle: H, addresses });
        match r.sent.pop() {
            Some(ToTracker::Audience(a)) => Some((a.request, a.addresses.len())),
            _ => None,
        }
    };
    let mut r = Rig::new();
    publish(&mut r, 64);
    assert_eq!(ask(&mut r, 1), None, "there is no tracker");
    r.connect(1);
    r.answer(1);
    r.clear();
    let (first, _) = ask(&mut r, 1).unwrap();
    let (second, n) = ask(&mut r, 2000).unwrap();
    assert_eq!(n, 1024);
    r.tell(guidance(first).into());
    assert!(r.rest.is_empty(), "of an earlier question");
    r.tell(guidance(second).into());
    assert!(matches!(r.rest.pop(), Some(Action::Guidance { handle: H, answer }) if answer.listeners == 7));
    r.tell(guidance(second).into());
    assert!(r.rest.is_empty(), "nobody asked twice");
    let (third, _) = ask(&mut r, 1).unwrap();
    r.disconnect();
    r.millis(4000);
    r.connect(1);
    r.answer(1);
    r.clear();
    r.tell(guidance(third).into());
    assert!(r.rest.is_empty(), "of an earlier session");
}
