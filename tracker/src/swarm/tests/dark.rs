//! Hosts that answer the tracker and swallow what they are to send.

use std::time::Duration;

use icet::PageRanges;
use icet::message::{Assignment, Intent, Join, Outcome, Report};

use super::super::ConnId;
use super::fixture::{identity, media};
use super::world::{World, join, report};

/// A publisher (1), two hosts with everything (2, 3), and who wants it (9).
fn crowd() -> (World, ConnId) {
    let mut w = World::new();
    let origin = w.peer(1);
    w.publish(origin, &media(&identity(1), "film", 1, 2000, 4000));
    for n in [2, 3] {
        let host = w.peer(n);
        w.say(host, Join { version: 1, have: PageRanges::one(0, 1999), ..join("film", Intent::Share) });
    }
    let r = w.peer(9);
    w.join(r, "film", Intent::Whole);
    (w, r)
}

fn is_of(a: &Assignment, n: u8) -> bool {
    a.source.host.key == identity(n).key()
}

fn silent(a: &Assignment, outcome: Outcome, total: u32) -> Report {
    Report { bytes: 0, pages: 0, first_byte: None, total, ..report(a, outcome) }
}

#[test]
fn a_newcomer_may_rely_on_the_publisher() {
    let (mut w, r) = crowd();
    let orders = w.assigned(r);
    let publisher = identity(1).key();
    let named = |a: &Assignment| a.stand_ins.iter().any(|s| s.host.key == publisher) || is_of(a, 1);
    assert!(!orders.is_empty() && orders.iter().all(named), "{orders:?}");
}

#[test]
fn who_was_failed_by_all_others_is_sent_to_the_publisher_and_to_them_one_small_order_at_a_time() {
    for (outcome, total) in [(Outcome::Stalled, 2000), (Outcome::Stopped, 700)] {
        let (mut w, r) = crowd();
        let mut orders = w.assigned(r);
        let unit = 16;
        let mut from_publisher = 0;
        for _ in 0..40 {
            w.pass(Duration::from_millis(u64::from(total)));
            for a in std::mem::take(&mut orders) {
                if is_of(&a, 1) {
                    w.done(r, &a);
                    from_publisher += a.pages.count(u64::MAX);
                } else {
                    // Overtaken by a stand-in, which is left then, too.
                    let last = outcome == Outcome::Stalled || a.stand_ins.is_empty();
                    w.say(r, Report { last, ..silent(&a, outcome, total) });
                    for (i, s) in a.stand_ins.iter().enumerate().filter(|_| !last) {
                        let (host, protocol) = (s.host.key, s.host.protocol.clone());
                        let last = i + 1 == a.stand_ins.len();
                        w.say(r, Report { host, protocol, last, ..silent(&a, outcome, 0) });
                    }
                }
            }
            orders = w.assigned(r);
            for n in [2, 3] {
                let theirs: Vec<_> = orders.iter().filter(|a| is_of(a, n)).collect();
                let small = theirs.iter().all(|a| a.pages.count(u64::MAX) <= unit);
                assert!(theirs.len() <= 1 && small || from_publisher == 0, "{outcome:?}: {theirs:?}");
            }
        }
        assert!(from_publisher > 1000, "{outcome:?}: {from_publisher} pages");
        let b = &w.swarm.board;
        let trust = b.peers.get(&b.keys[&identity(9).key()]).map(|p| p.trust(b.latest()));
        assert!(trust > Some(0.99), "what it told is true: {trust:?}");
    }
}

#[test]
fn who_lies_that_all_others_failed_it_gets_a_part_of_what_a_publisher_can_send_that_gives_once() {
    const RATE: u64 = 100_000;
    let mut w = World::new();
    let origin = w.peer(1);
    let limits =
        |up| icet::message::Allow { up, down: None, near: false, withheld: Vec::new(), once: Some(true) };
    w.say(origin, limits(Some(RATE)));
    w.publish(origin, &media(&identity(1), "film", 1, 4000, 4000));
    for n in [2, 3, 4, 5] {
        let host = w.peer(n);
        w.say(host, Join { version: 1, have: PageRanges::one(0, 3999), ..join("film", Intent::Share) });
    }
    let liars: Vec<_> = (9..12).map(|n| w.peer(n)).collect();
    liars.iter().for_each(|l| w.join(*l, "film", Intent::Whole));
    // What the publisher is to send, in order.
    let mut queue = std::collections::VecDeque::new();
    let (mut given, mut room) = (0, 0);
    for second in 0..180 {
        w.pass(Duration::from_secs(1));
        for (i, liar) in liars.iter().enumerate() {
            for a in w.assigned(*liar) {
                let hosts: Vec<_> = std::iter::once(&a.source).chain(&a.stand_ins).collect();
                let relied = hosts.iter().position(|s| s.host.key == identity(1).key());
                for (i, s) in hosts.iter().enumerate().take(relied.unwrap_or(hosts.len())) {
                    let (host, protocol) = (s.host.key, s.host.protocol.clone());
                    let last = relied.is_none() && i + 1 == hosts.len();
                    w.say(*liar, Report { host, protocol, last, ..silent(&a, Outcome::Stalled, 1000) });
                }
                if relied.is_some() {
                    queue.push_back((i, a));
                }
            }
        }
        room += RATE;
        while let Some((i, a)) = queue.pop_front_if(|(_, a)| a.pages.count(u64::MAX) * 4000 <= room) {
            let bytes = a.pages.count(u64::MAX) * 4000;
            (room, given) = (room - bytes, given + bytes);
            w.done(liars[i], &a);
        }
        room = room.min(4 * RATE);
        let most = RATE * (20 + second / 4);
        assert!(given <= most, "{given} bytes after {second} s");
    }
    assert!(given > 20 * RATE, "it may be true: {given}");
}
