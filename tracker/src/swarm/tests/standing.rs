//! What a peer is told of its own standing.

use icet::message::{
    Allow, Audience, ErrorCode, Givers, Intent, Join, Leave, MarkReason, Outcome, Report, Served, ServedItem,
    Standing, StandingRequest, ToPeer,
};
use icet::{Ip, PageRanges};

use super::super::{ConnId, Contribution};
use super::fixture::{identity, media};
use super::world::{World, hello, join, report, tcp};

fn ask(w: &mut World, conn: ConnId) -> Standing {
    w.heard(conn);
    w.say(conn, StandingRequest { request: 77 });
    let heard = w.heard(conn);
    let found = heard.into_iter().find_map(|m| if let ToPeer::Standing(s) = m { Some(s) } else { None });
    let standing = found.expect("an answer");
    assert_eq!(standing.request, 77);
    standing
}

/// A session of one whom the catalogue knows.
fn known(w: &mut World, n: u8, sent: u64, received: u64) -> ConnId {
    let at = format!("10.0.0.{n}:4000");
    let conn = w.connect_known(&identity(n), &at, Contribution { sent, received });
    w.say(conn, hello(vec![tcp(&at)]));
    conn
}

#[test]
fn who_gives_counts_for_more_and_is_told_its_place() {
    let mut w = World::new();
    let newcomer = w.peer(1);
    let s = ask(&mut w, newcomer);
    assert_eq!((s.sent, s.received, s.weight, s.peers, s.ahead), (0, 0, 1000, 0, 0));
    assert_eq!((s.trust, s.marks), (1000, Vec::new()));
    let giver = known(&mut w, 2, 80_000_000, 8_000_000);
    let taker = known(&mut w, 3, 0, 12_000_000);
    let gone = known(&mut w, 4, 80_000_000, 0);
    w.disconnect(gone);
    let (g, n, t) = (ask(&mut w, giver), ask(&mut w, newcomer), ask(&mut w, taker));
    assert_eq!((g.sent, g.received), (80_000_000, 8_000_000));
    assert_eq!((g.weight, g.peers, g.ahead), (2000, 2, 0));
    assert_eq!((n.weight, n.peers, n.ahead), (1000, 2, 1));
    assert_eq!((t.weight, t.peers, t.ahead), (250, 2, 2));
}

#[test]
fn only_what_both_ends_confirm_is_counted() {
    let mut w = World::new();
    let host = w.peer(1);
    w.publish(host, &media(&identity(1), "film", 1, 64, 4000));
    let receiver = w.peer(2);
    w.join(receiver, "film", Intent::Whole);
    let a = w.assigned(receiver).remove(0);
    w.done(receiver, &a);
    assert_eq!(ask(&mut w, receiver).received, 0, "the host has said nothing");
    w.say(host, Served { items: vec![ServedItem { assignment: a.id, bytes: 1000 }] });
    assert_eq!((ask(&mut w, host).sent, ask(&mut w, receiver).received), (1000, 1000));
}

#[test]
fn what_lowered_the_trust_is_named_but_not_who_said_it() {
    let mut w = World::new();
    let p = w.peer(1);
    w.publish(p, &media(&identity(1), "film", 1, 640, 4000));
    let host = w.peer(2);
    w.say(host, Join { version: 1, have: PageRanges::one(0, 639), ..join("film", Intent::Share) });
    let accuse = |w: &mut World, n: u8| {
        let r = w.peer(n);
        w.join(r, "film", Intent::Whole);
        for _ in 0..10 {
            let got = w.assigned(r);
            for a in got.iter().filter(|a| a.source.host.key == identity(2).key()) {
                w.say(r, Report { bytes: 0, pages: 0, ..report(a, Outcome::Altered) });
            }
        }
        let media = w.swarm.media_list(0, 1)[0].id;
        w.say(r, Leave { media });
    };
    accuse(&mut w, 3);
    let one = ask(&mut w, host);
    assert!((500..1000).contains(&one.trust), "{one:?}");
    accuse(&mut w, 4);
    let two = ask(&mut w, host);
    assert!(two.trust < 200, "{two:?}");
    let marks: Vec<_> = two.marks.iter().map(|m| (m.reason, m.count)).collect();
    assert_eq!(marks, [(MarkReason::ALTERED, 2)]);
    w.pass(std::time::Duration::from_secs(3600));
    let later = ask(&mut w, host);
    assert!(later.trust > 800 && later.marks.is_empty(), "{later:?}");
}

#[test]
fn orders_that_were_not_taken_up_are_told() {
    let mut w = World::new();
    let p = w.peer(1);
    w.publish(p, &media(&identity(1), "film", 1, 640, 4000));
    let idle = w.peer(2);
    w.join(idle, "film", Intent::Whole);
    assert!(!w.assigned(idle).is_empty());
    w.pass(std::time::Duration::from_secs(30));
    let s = ask(&mut w, idle);
    assert!(s.trust < 1000, "{s:?}");
    assert!(s.marks.iter().any(|m| m.reason == MarkReason::UNHEEDED && m.count > 0), "{s:?}");
}

#[test]
fn a_publisher_hears_which_addresses_give_and_nobody_else_does() {
    let mut w = World::new();
    let station = w.peer(1);
    let live = media(&identity(1), "radio", 1, 64, 4000);
    w.publish(station, &live);
    let id = live.0.id();
    // Two behind one address, one who gives nothing, one who only looks at something else, one gone.
    let giver = known(&mut w, 2, 80_000_000, 8_000_000);
    let second = w.connect(&identity(3), "10.0.0.2:4001");
    w.say(second, hello(vec![tcp("10.0.0.2:4001")]));
    let miser = w.peer(4);
    let (stranger, gone) = (w.peer(5), w.peer(6));
    for conn in [giver, second, miser, gone] {
        w.join(conn, "radio", Intent::Whole);
    }
    w.say(miser, Allow { up: Some(0), down: None, near: false, withheld: Vec::new(), once: None });
    w.disconnect(gone);
    let ip = |n: u8| Ip(format!("10.0.0.{n}").parse().unwrap());
    let ask = |w: &mut World, conn| {
        w.heard(conn);
        w.say(conn, Audience { request: 5, media: id, addresses: (1..8).map(ip).collect() });
        w.heard(conn)
    };
    let heard = ask(&mut w, station);
    let [ToPeer::Guidance(g)] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((g.request, g.listeners, g.hits), (5, 3, 4));
    assert_eq!(g.givers, [Givers { index: 1, peers: 2, sent: 80_000_000, weight: 2000 }]);
    for conn in [giver, stranger] {
        let heard = ask(&mut w, conn);
        let refused = |m: &ToPeer| matches!(m, ToPeer::ErrorMessage(e) if e.code == ErrorCode::FORBIDDEN && e.request == Some(5));
        assert!(matches!(heard.as_slice(), [m] if refused(m)), "{heard:?}");
    }
}
