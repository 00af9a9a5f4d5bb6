//! Peers behind NATs, whose ends come together by punches or not.

use std::time::Duration;

use icet::message::{Assignment, Hello, Intent, Join, Outcome, Report};
use icet::{Abilities, Offer, PageRanges};

use super::super::ConnId;
use super::fixture::{identity, media};
use super::world::{World, hello, join, offer, report, tcp};

/// Pages of a unit.
const UNIT: u64 = 16;

/// Somebody behind a NAT, who has a relay.
fn behind(w: &mut World, n: u8) -> ConnId {
    let conn = w.connect(&identity(n), &format!("198.51.100.{n}:4000"));
    let abilities = Abilities::PAGES | Abilities::ORDERED | Abilities::RELAYED;
    let relayed = Offer { abilities, endpoint: "at a relay".into(), ..offer("libp2p") };
    w.say(conn, Hello { offers: vec![offer("http"), relayed], ..hello(Vec::new()) });
    conn
}

/// Somebody whom everybody reaches.
fn in_the_open(w: &mut World, n: u8) -> ConnId {
    let at = format!("203.0.113.{n}:4000");
    let conn = w.connect(&identity(n), &at);
    w.say(conn, hello(vec![tcp(&at)]));
    conn
}

/// A publisher (1) who gives only what nobody else has, two hosts behind NATs with everything (2, 3), and who wants it, behind
/// another one (9).
fn crowd() -> (World, ConnId) {
    let mut w = World::new();
    let origin = in_the_open(&mut w, 1);
    w.publish(origin, &media(&identity(1), "film", 1, 4000, 4000));
    for n in [2, 3] {
        let host = behind(&mut w, n);
        w.say(host, Join { version: 1, have: PageRanges::one(0, 3999), ..join("film", Intent::Share) });
    }
    let r = behind(&mut w, 9);
    w.join(r, "film", Intent::Whole);
    (w, r)
}

fn is_of(a: &Assignment, n: u8) -> bool {
    a.source.host.key == identity(n).key()
}

fn shut(a: &Assignment) -> Report {
    Report { bytes: 0, pages: 0, first_byte: None, total: 3000, ..report(a, Outcome::Unreachable) }
}

/// Lets so many seconds pass; what host `n` is ordered to send meanwhile, if everybody else sends at once.
fn pass(w: &mut World, r: ConnId, seconds: u64, n: u8, first: Vec<Assignment>) -> Vec<Assignment> {
    let (mut theirs, mut orders) = (Vec::new(), first);
    for _ in 0..seconds * 10 {
        for a in std::mem::take(&mut orders) {
            if is_of(&a, n) {
                theirs.push(a);
            } else if is_of(&a, 1) {
                w.done(r, &a);
            }
        }
        w.pass(Duration::from_millis(100));
        orders = w.assigned(r);
    }
    theirs
}

#[test]
fn a_way_that_only_a_punch_opens_is_tried_with_one_unit_that_takes_nobodys_place() {
    let (mut w, r) = crowd();
    let orders = w.assigned(r);
    for n in [2, 3] {
        let theirs: Vec<_> = orders.iter().filter(|a| is_of(a, n)).collect();
        assert_eq!(theirs.len(), 1, "{orders:?}");
        let a = theirs[0];
        assert!(a.pages.count(u64::MAX) <= UNIT && a.stand_ins.is_empty(), "{a:?}");
        let b = &w.swarm.board;
        let up = &b.peers[&b.keys[&identity(n).key()]].up;
        assert_eq!((up.bytes, up.count), (0, 0));
    }
    let b = &w.swarm.board;
    let down = &b.peers[&b.keys[&identity(9).key()]].down;
    let others: Vec<_> = orders.iter().filter(|a| is_of(a, 1)).collect();
    assert_eq!(down.count as usize, others.len());
    assert!(others.iter().all(|a| !a.stand_ins.iter().any(|s| s.host.key != identity(1).key())));

    // It opened: now it counts, and more is ordered at once.
    let a = orders.iter().find(|a| is_of(a, 2)).unwrap().clone();
    w.done(r, &a);
    let rest = orders.into_iter().filter(|a| is_of(a, 1)).collect();
    let more = pass(&mut w, r, 1, 2, rest);
    let b = &w.swarm.board;
    let up = &b.peers[&b.keys[&identity(2).key()]].up;
    assert!(more.len() > 1 && up.count as usize == more.len() && up.bytes > 0, "{more:?}");
}

#[test]
fn who_does_not_come_together_is_not_sent_there_for_a_while_and_nobody_is_blamed() {
    let (mut w, r) = crowd();
    let orders = w.assigned(r);
    let a = orders.iter().find(|a| is_of(a, 2)).unwrap().clone();
    w.say(r, shut(&a));
    let rest: Vec<_> = orders.into_iter().filter(|o| !is_of(o, 2)).collect();
    let again = pass(&mut w, r, 50, 2, rest);
    assert!(again.is_empty(), "{again:?}");
    let b = &w.swarm.board;
    let (host, receiver) = (&b.peers[&b.keys[&identity(2).key()]], &b.peers[&b.keys[&identity(9).key()]]);
    assert!(host.trust(w.now) > 0.999 && receiver.trust(w.now) > 0.99 && host.up.rate.is_none());
    assert!(receiver.avoid.iter().all(|a| a.host != b.keys[&identity(2).key()]), "it failed nobody");

    // Others are sent there all the same, whatever one says; and the host, to its receiver, is not.
    let other = behind(&mut w, 8);
    w.join(other, "film", Intent::Whole);
    let theirs = w.assigned(other);
    assert!(theirs.iter().any(|a| is_of(a, 2)), "{theirs:?}");
    let b = &w.swarm.board;
    let ix = |n| b.keys[&identity(n).key()];
    assert!(!b.leads_to(w.now, ix(9), ix(2)) && b.leads_to(w.now, ix(8), ix(2)));
}

#[test]
fn keys_that_only_pretend_keep_nobody_from_a_host() {
    let (mut w, _) = crowd();
    // They take what they are sent to, and say nothing of it.
    let mut held = 0;
    for n in 20..40 {
        let one = behind(&mut w, n);
        w.join(one, "film", Intent::Whole);
        held += w.assigned(one).iter().filter(|a| is_of(a, 2) || is_of(a, 3)).count();
    }
    // As many as count nowhere, and a window of those that count.
    assert!((8..=24).contains(&held), "{held}");
    let honest = behind(&mut w, 50);
    w.join(honest, "film", Intent::Whole);
    let rest = w.assigned(honest);
    let theirs = pass(&mut w, honest, 15, 2, rest).len();
    assert!(theirs > 0, "it has its turn");
    w.pass(Duration::from_secs(60));
    let b = &w.swarm.board;
    let free = |n: u8| b.is_free_to_venture(b.keys[&identity(n).key()]);
    assert!(free(2) && free(3), "and those that lapsed are counted no longer");
}

#[test]
fn a_try_that_nobody_hears_of_lapses_and_slows_nobody_down() {
    let (mut w, r) = crowd();
    let orders = w.assigned(r);
    let tried = orders.iter().filter(|a| is_of(a, 2)).count();
    let later = pass(&mut w, r, 30, 2, orders);
    assert_eq!((tried, later.len()), (1, 1), "once in half a minute: {later:?}");
    let b = &w.swarm.board;
    let host = &b.peers[&b.keys[&identity(2).key()]];
    assert!(host.up.rate.is_none() && host.up.count == 0, "{:?}", host.up);
}

#[test]
fn who_is_reached_without_a_punch_is_as_before() {
    let mut w = World::new();
    let origin = in_the_open(&mut w, 1);
    w.publish(origin, &media(&identity(1), "film", 1, 4000, 4000));
    let r = behind(&mut w, 9);
    w.join(r, "film", Intent::Whole);
    let orders = w.assigned(r);
    let b = &w.swarm.board;
    let down = &b.peers[&b.keys[&identity(9).key()]].down;
    assert!(!orders.is_empty() && down.count as usize == orders.len() && down.bytes > 0, "{orders:?}");
}
