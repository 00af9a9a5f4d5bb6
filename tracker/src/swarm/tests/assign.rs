//! Assignments: who is sent what, tickets, acknowledgements, lapses, reconnects, contribution.

use std::collections::BTreeSet;
use std::time::Duration;

use icet::message::{
    Assignment, Dial, Got, Have, Hello, Intent, Join, Leave, Need, Outcome, Report, Served, ServedItem,
    ToPeer,
};
use icet::{Limits, NetAddr, NetKind, Offer, PageRanges, PeerKey, TicketKey};

use super::super::ConnId;
use super::fixture::{identity, media};
use super::world::{SECRET, World, have, hello, join, offer, report, tcp};

fn pages(a: &Assignment) -> std::ops::RangeInclusive<u64> {
    a.pages.first..=a.pages.last.unwrap()
}

fn hosts(all: &[Assignment]) -> BTreeSet<PeerKey> {
    all.iter().map(|a| a.source.host.key).collect()
}

fn film(w: &mut World, pages: u64) -> ConnId {
    let p = w.peer(1);
    w.publish(p, &media(&identity(1), "film", 1, pages, 4000));
    p
}

#[test]
fn a_receiver_is_fed_until_it_holds_everything() {
    let mut w = World::new();
    film(&mut w, 700);
    let r = w.peer(2);
    w.join(r, "film", Intent::Whole);
    let mut seen = BTreeSet::new();
    let mut queue = w.assigned(r);
    assert!(queue.len() >= 2, "a pipeline, not one at a time");
    while !queue.is_empty() {
        let a = queue.remove(0);
        for p in pages(&a) {
            assert!(seen.insert(p), "page {p} was ordered twice");
        }
        w.pass(Duration::from_millis(20));
        w.done(r, &a);
        queue.extend(w.assigned(r));
    }
    assert_eq!(seen.len(), 700);
    let view = &w.swarm.media_list(0, 1)[0];
    assert_eq!((view.complete, view.running), (2, 0));
    assert_eq!(view.delivered, 700 * 4000);
    // A complete copy takes no map.
    assert_eq!(w.swarm.board.totals.map_bytes, 0);
}

#[test]
fn an_assignment_says_all_that_is_needed() {
    let mut w = World::new();
    film(&mut w, 700);
    let r = w.peer(2);
    w.join(r, "film", Intent::Whole);
    let a = w.assigned(r).remove(0);
    let id = w.swarm.media_list(0, 1)[0].id;
    assert_eq!((a.media, a.need, a.deadline, a.source.dial), (id, Need::Bulk, None, Dial::Receiver));
    assert!(a.lapse >= 2000 && a.id != 0);
    let host = &a.source.host;
    assert_eq!((host.key, host.protocol.as_str()), (identity(1).key(), "http"));
    assert_eq!(host.addrs, [tcp("10.0.0.1:4000")]);
    let body = TicketKey::derive(&SECRET, &identity(1).key()).check(&a.source.ticket).unwrap();
    assert_eq!((body.assignment, body.receiver, body.host), (a.id, identity(2).key(), identity(1).key()));
    assert_eq!((body.media, body.version, body.pages, &body.protocol), (id, 1, a.pages, &host.protocol));
    assert_eq!((body.tracker, body.epoch), (identity(255).key(), 1));
    assert!(body.expiry > w.wall() + 10_000);
    assert!(TicketKey::derive(&SECRET, &identity(3).key()).check(&a.source.ticket).is_err());
}

#[test]
fn an_origin_sends_different_pages_to_different_receivers() {
    let mut w = World::new();
    film(&mut w, 2000);
    let receivers: Vec<_> = (2..6).map(|n| w.peer(n)).collect();
    for r in &receivers {
        w.join(*r, "film", Intent::Whole);
    }
    let mut seen = BTreeSet::new();
    for r in &receivers {
        let got = w.assigned(*r);
        for a in &got {
            assert!(pages(a).all(|p| seen.insert(p)), "the origin sends a page twice");
        }
    }
    assert!(seen.len() >= 64);
}

#[test]
fn a_peer_that_has_it_is_preferred_to_the_origin() {
    let mut w = World::new();
    film(&mut w, 256);
    let (a, b) = (w.peer(2), w.peer(3));
    w.say(a, Join { version: 1, have: PageRanges::one(0, 255), ..join("film", Intent::Share) });
    w.join(b, "film", Intent::Whole);
    let orders = w.assigned(b);
    assert_eq!(hosts(&orders), BTreeSet::from([identity(2).key()]));
    // The origin stands in.
    assert!(orders.iter().all(|o| o.stand_ins.iter().any(|s| s.host.key == identity(1).key())));
    for o in &orders {
        for s in &o.stand_ins {
            let body = TicketKey::derive(&SECRET, &s.host.key).check(&s.ticket).unwrap();
            assert_eq!((body.assignment, body.host), (o.id, s.host.key));
        }
    }
}

#[test]
fn what_is_not_taken_up_lapses_and_goes_elsewhere() {
    let mut w = World::new();
    film(&mut w, 64);
    let (a, b) = (w.peer(2), w.peer(3));
    w.say(a, Join { version: 1, have: PageRanges::one(0, 63), ..join("film", Intent::Share) });
    w.join(b, "film", Intent::Whole);
    let first = w.assigned(b);
    assert_eq!(hosts(&first), BTreeSet::from([identity(2).key()]));
    w.pass(Duration::from_secs(6));
    let heard = w.heard(b);
    let cancelled: BTreeSet<u64> = heard
        .iter()
        .filter_map(|m| if let ToPeer::Cancel(c) = m { Some(c.assignments.clone()) } else { None })
        .flatten()
        .collect();
    assert!(first.iter().all(|o| cancelled.contains(&o.id)));
    let again: Vec<Assignment> = heard
        .into_iter()
        .flat_map(|m| if let ToPeer::Assign(a) = m { a.assignments } else { Vec::new() })
        .collect();
    assert!(hosts(&again).contains(&identity(1).key()), "{again:?}");
    // It took nothing up at all: that costs it a little trust, and the host none.
    let trust = |w: &World, n: u8| {
        w.swarm.peers(0, 9).into_iter().find(|p| p.key == identity(n).key()).unwrap().trust
    };
    assert!(trust(&w, 3) < 1.0 && trust(&w, 3) > 0.8 && trust(&w, 2) == 1.0);
}

#[test]
fn when_one_order_from_a_silent_host_lapses_all_of_them_do() {
    let mut w = World::new();
    film(&mut w, 4000);
    let (a, b) = (w.peer(2), w.peer(3));
    w.say(a, Join { version: 1, have: PageRanges::one(0, 3999), ..join("film", Intent::Share) });
    w.join(b, "film", Intent::Whole);
    let (mut running, mut queue) = (BTreeSet::new(), w.assigned(b));
    let host = identity(2).key();
    let mine = |all: &[Assignment]| -> Vec<u64> {
        all.iter().filter(|o| o.source.host.key == host).map(|o| o.id).collect()
    };
    // It brings something for a second, so that there are orders of every age.
    for _ in 0..10 {
        running.extend(mine(&queue));
        w.pass(Duration::from_millis(100));
        let o = queue.remove(0);
        running.remove(&o.id);
        w.done(b, &o);
        queue.extend(w.assigned(b));
    }
    running.extend(mine(&queue));
    assert!(running.len() > 2, "{running:?}");
    for _ in 0..100 {
        w.pass(Duration::from_millis(50));
        w.say(b, icet::message::Ping { nonce: 1 });
        let (mut cancelled, mut again) = (BTreeSet::new(), Vec::new());
        for m in w.heard(b) {
            match m {
                ToPeer::Cancel(c) => cancelled.extend(c.assignments),
                ToPeer::Assign(o) => again.extend(o.assignments),
                _ => {}
            }
        }
        if cancelled.is_disjoint(&running) {
            running.extend(mine(&again));
            continue;
        }
        assert!(cancelled.is_superset(&running), "{cancelled:?} of {running:?}");
        assert!(!again.is_empty() && mine(&again).is_empty(), "and others have them at once: {again:?}");
        return;
    }
    panic!("nothing lapses");
}

#[test]
fn what_comes_slowly_does_not_lapse_but_not_for_ever() {
    let mut w = World::new();
    film(&mut w, 64);
    let a = w.peer(2);
    w.join(a, "film", Intent::Whole);
    let first = w.assigned(a);
    let id = first[0].id;
    let lapsed = |w: &mut World| {
        let cancelled = |m: &ToPeer| matches!(m, ToPeer::Cancel(c) if c.assignments.contains(&id));
        w.heard(a).iter().any(cancelled)
    };
    let coming = |w: &mut World| {
        let got = vec![Got { assignment: id, pages: PageRanges::new() }];
        w.say(a, Have { media: first[0].media, got, lost: PageRanges::new() });
        w.pass(Duration::from_millis(500));
    };
    for _ in 0..60 {
        coming(&mut w);
        assert!(!lapsed(&mut w));
    }
    for _ in 0..200 {
        coming(&mut w);
    }
    assert!(lapsed(&mut w), "two minutes for nothing whole");
}

#[test]
fn a_receiver_that_vanishes_says_nothing_of_its_host() {
    let mut w = World::new();
    film(&mut w, 20_000);
    let up = |w: &World| {
        let all = w.swarm.peers(0, 9);
        all.into_iter().find(|p| p.key == identity(1).key()).and_then(|p| p.up).unwrap_or(0.0)
    };
    let a = w.peer(2);
    w.join(a, "film", Intent::Whole);
    for _ in 0..40 {
        w.pass(Duration::from_millis(20));
        for order in w.assigned(a).into_iter().take(4) {
            w.done(a, &order);
        }
    }
    let learned = up(&w);
    assert!(learned > 1e6, "{learned}");
    // It is gone without a word: its session is still there.
    w.frozen.insert(a);
    w.pass(Duration::from_secs(25));
    assert_eq!(w.swarm.totals().running, 0);
    assert_eq!(up(&w), learned);
    // The next one is given as much as if nothing had been.
    let b = w.peer(3);
    w.join(b, "film", Intent::Whole);
    let orders = w.assigned(b);
    let pages: u64 = orders.iter().map(|o| o.pages.count(u64::MAX)).sum();
    assert!(pages >= 64, "{pages} pages at first");
}

#[test]
fn a_failed_fetch_is_ordered_from_somebody_else() {
    for outcome in
        [Outcome::Unreachable, Outcome::Refused, Outcome::Broken, Outcome::Stalled, Outcome::Incomplete]
    {
        let mut w = World::new();
        film(&mut w, 64);
        let (a, b) = (w.peer(2), w.peer(3));
        w.say(a, Join { version: 1, have: PageRanges::one(0, 63), ..join("film", Intent::Share) });
        w.join(b, "film", Intent::Whole);
        let orders = w.assigned(b);
        w.say(b, report(&orders[0], outcome));
        let again = w.assigned(b);
        assert!(
            !again.is_empty() && again.iter().any(|x| pages(x).contains(&orders[0].pages.first)),
            "{outcome:?}"
        );
        assert_eq!(hosts(&again), BTreeSet::from([identity(1).key()]), "{outcome:?}");
    }
}

#[test]
fn what_a_lossy_protocol_lost_is_asked_for_again_at_once() {
    let mut w = World::new();
    let radio = icet::Offer { abilities: icet::Abilities::PAGES, ..offer("radio") };
    let enter = |w: &mut World, n: u8| {
        let at = format!("10.0.0.{n}:4000");
        let conn = w.connect(&identity(n), &at);
        w.say(conn, icet::message::Hello { offers: vec![radio.clone()], ..hello(vec![tcp(&at)]) });
        conn
    };
    let origin = enter(&mut w, 1);
    w.publish(origin, &media(&identity(1), "film", 1, 64, 4000));
    let r = enter(&mut w, 2);
    w.join(r, "film", Intent::Whole);
    for o in w.assigned(r) {
        w.say(r, report(&o, Outcome::Incomplete));
    }
    let again = w.assigned(r);
    assert!(!again.is_empty(), "something came: at once");
    for o in &again {
        w.say(r, Report { bytes: 0, pages: 0, ..report(o, Outcome::Incomplete) });
    }
    assert!(w.assigned(r).is_empty(), "nothing came: after a pause");
    w.pass(Duration::from_millis(1100));
    assert!(!w.assigned(r).is_empty(), "a short one");
}

#[test]
fn a_stand_in_takes_over_without_the_tracker() {
    let mut w = World::new();
    film(&mut w, 64);
    let (a, b) = (w.peer(2), w.peer(3));
    w.say(a, Join { version: 1, have: PageRanges::one(0, 63), ..join("film", Intent::Share) });
    w.join(b, "film", Intent::Whole);
    let orders = w.assigned(b);
    let o = &orders[0];
    w.say(b, Report { last: false, ..report(o, Outcome::Unreachable) });
    assert!(w.assigned(b).iter().all(|x| !pages(x).any(|p| pages(o).contains(&p))), "the stand-in has it");
    let origin = w.swarm.board.peers.values().find(|p| p.key == identity(1).key()).unwrap();
    assert!(origin.up.bytes > 0, "the load moved to the stand-in");
    w.say(
        b,
        Have {
            media: o.media,
            got: vec![Got { assignment: o.id, pages: PageRanges::one(o.pages.first, o.pages.last.unwrap()) }],
            lost: PageRanges::new(),
        },
    );
    w.say(b, Report { host: o.stand_ins[0].host.key, ..report(o, Outcome::Done) });
    let id = w.swarm.media_list(0, 1)[0].clone();
    assert!(id.delivered_by_publisher > 0);
}

/// A firewall may begin to drop a carrier's packets: its own host stands in over another one, and is asked by that from then on.
#[test]
fn a_way_that_fails_is_avoided_and_another_one_to_the_same_host_is_not() {
    let mut w = World::new();
    let peer = |w: &mut World, n: u8| {
        let at = format!("10.0.0.{n}:4000");
        let conn = w.connect(&identity(n), &at);
        let udp = NetAddr { kind: NetKind::Udp, at: at.parse().unwrap() };
        let quic = Offer { dials: Some(NetKind::Udp), ..offer("quic") };
        w.say(conn, Hello { offers: vec![quic, offer("http")], ..hello(vec![tcp(&at), udp]) });
        w.inbox.remove(&conn);
        conn
    };
    let origin = peer(&mut w, 1);
    w.publish(origin, &media(&identity(1), "film", 1, 2000, 4000));
    let r = peer(&mut w, 2);
    w.join(r, "film", Intent::Whole);
    let names = |a: &Assignment| {
        let names = std::iter::once(&a.source).chain(&a.stand_ins).map(|s| s.host.protocol.to_string());
        names.collect::<BTreeSet<_>>()
    };
    let both = BTreeSet::from(["http".to_owned(), "quic".to_owned()]);
    let mut orders = w.assigned(r);
    let bad = orders[0].source.host.protocol.clone();
    let mut round = 0;
    while !orders.is_empty() {
        let (failed, good): (Vec<_>, Vec<_>) = orders.iter().partition(|a| a.source.host.protocol == bad);
        assert_eq!(failed.is_empty(), round > 0, "ordered over a way that just failed");
        for a in &orders {
            assert_eq!((names(a), a.stand_ins.len()), (both.clone(), 1));
            let body = TicketKey::derive(&SECRET, &identity(1).key()).check(&a.stand_ins[0].ticket).unwrap();
            assert_eq!((body.assignment, &body.protocol), (a.id, &a.stand_ins[0].host.protocol));
        }
        for a in &failed {
            w.say(r, Report { last: false, bytes: 0, pages: 0, ..report(a, Outcome::Stalled) });
        }
        for (a, by) in failed.iter().map(|a| (a, &a.stand_ins[0])).chain(good.iter().map(|a| (a, &a.source)))
        {
            let pages = PageRanges::one(a.pages.first, a.pages.last.unwrap());
            let got = vec![Got { assignment: a.id, pages }];
            w.say(r, Have { media: a.media, got, lost: PageRanges::new() });
            w.say(r, Report { protocol: by.host.protocol.clone(), ..report(a, Outcome::Done) });
        }
        w.pass(Duration::from_millis(100));
        orders = w.assigned(r);
        round += 1;
    }
    assert!(round > 1 && w.swarm.totals().acked_pages == 2000, "it comes by the other one: {round}");
}

/// What a protocol comes over may be its own affair: then it may be the one that is blocked, and what failed before stands in too.
#[test]
fn a_stand_in_over_nobody_knows_what_is_not_the_only_one() {
    let mut w = World::new();
    let peer = |w: &mut World, n: u8| {
        let at = format!("10.0.0.{n}:4000");
        let conn = w.connect(&identity(n), &at);
        let udp = NetAddr { kind: NetKind::Udp, at: at.parse().unwrap() };
        let quic = Offer { dials: Some(NetKind::Udp), ..offer("quic") };
        let own = Offer { endpoint: "somewhere".into(), ..offer("own") };
        w.say(conn, Hello { offers: vec![quic, offer("http"), own], ..hello(vec![tcp(&at), udp]) });
        conn
    };
    let origin = peer(&mut w, 1);
    w.publish(origin, &media(&identity(1), "film", 1, 20_000, 4000));
    let r = peer(&mut w, 2);
    w.join(r, "film", Intent::Whole);
    let mut seen = 0;
    for _ in 0..20 {
        for a in w.assigned(r) {
            let by = a.source.host.protocol.to_string();
            if by == "quic" {
                w.say(r, Report { bytes: 0, pages: 0, ..report(&a, Outcome::Stalled) });
                continue;
            }
            let names: BTreeSet<_> = a.stand_ins.iter().map(|s| s.host.protocol.to_string()).collect();
            if by == "http" && w.now.0 > 2_000_000 {
                seen += 1;
                assert!(names.contains("own") && names.contains("quic"), "{names:?}");
            }
            w.done(r, &a);
        }
        w.pass(Duration::from_millis(200));
    }
    assert!(seen > 0, "nothing was ordered over http");
}

#[test]
fn an_order_given_back_is_not_repeated_at_once() {
    let mut w = World::new();
    film(&mut w, 64);
    let r = w.peer(2);
    w.join(r, "film", Intent::Whole);
    let mut given = 0;
    for _ in 0..20 {
        for a in w.assigned(r) {
            given += 1;
            w.say(r, Report { bytes: 0, pages: 0, first_byte: None, ..report(&a, Outcome::Stopped) });
        }
    }
    assert!(given <= 8, "{given} orders in no time");
    w.pass(Duration::from_secs(1));
    assert!(!w.assigned(r).is_empty(), "but it is tried again");
}

#[test]
fn receivers_without_a_common_way_get_nothing() {
    let mut w = World::new();
    film(&mut w, 64);
    // Another protocol.
    let r = w.connect(&identity(2), "10.0.0.2:1");
    w.say(r, icet::message::Hello { offers: vec![offer("pigeon")], ..hello(vec![]) });
    w.join(r, "film", Intent::Whole);
    assert!(w.answer(r).is_some());
    assert!(w.assigned(r).is_empty());
    // An origin on a private network, and a receiver out on the Internet.
    let r = w.connect(&identity(3), "198.51.100.3:1");
    w.say(r, hello(vec![]));
    w.join(r, "film", Intent::Whole);
    assert!(w.assigned(r).is_empty());
    w.pass(Duration::from_secs(10));
    assert!(w.assigned(r).is_empty());
    // A protocol that needs no address reaches everybody.
    let mut w = World::new();
    w.reachable = false;
    let p = w.connect(&identity(1), "10.0.0.1:1");
    let no_address = icet::Offer { dials: None, endpoint: "abc".into(), ..offer("relay") };
    w.say(p, icet::message::Hello { offers: vec![no_address.clone()], ..hello(vec![]) });
    w.publish(p, &media(&identity(1), "film", 1, 64, 4000));
    let r = w.connect(&identity(3), "198.51.100.3:1");
    w.say(r, icet::message::Hello { offers: vec![no_address], ..hello(vec![]) });
    w.join(r, "film", Intent::Whole);
    let got = w.assigned(r);
    assert!(
        !got.is_empty()
            && got.iter().all(|a| a.source.host.endpoint == "abc" && a.source.host.addrs.is_empty())
    );
}

#[test]
fn behind_a_relay_only_those_meet_who_both_use_relays() {
    let mut w = World::new();
    w.reachable = false;
    let p = w.connect(&identity(1), "198.51.100.1:1");
    let relayed = |endpoint: &str| icet::Offer {
        abilities: icet::Abilities::PAGES | icet::Abilities::RELAYED,
        endpoint: endpoint.into(),
        ..offer("libp2p")
    };
    w.say(p, icet::message::Hello { offers: vec![relayed("abc")], ..hello(vec![tcp("198.51.100.1:4000")]) });
    w.publish(p, &media(&identity(1), "film", 1, 64, 4000));
    let without = w.connect(&identity(2), "198.51.100.2:1");
    w.say(without, icet::message::Hello { offers: vec![offer("libp2p")], ..hello(vec![]) });
    w.join(without, "film", Intent::Whole);
    assert!(w.assigned(without).is_empty(), "it knows no relay, and no address was proved");
    let with = w.connect(&identity(3), "198.51.100.3:1");
    w.say(with, icet::message::Hello { offers: vec![relayed("")], ..hello(vec![]) });
    w.join(with, "film", Intent::Whole);
    let got = w.assigned(with);
    let right =
        |a: &icet::message::Assignment| a.source.host.endpoint == "abc" && a.source.host.addrs.is_empty();
    assert!(!got.is_empty() && got.iter().all(right));
}

#[test]
fn a_host_counts_once_its_address_is_proved() {
    let mut w = World::new();
    w.reachable = false;
    let p = w.connect(&identity(1), "10.0.0.1:1");
    let udp = icet::NetAddr { kind: NetKind::Udp, ..tcp("10.0.0.1:4000") };
    w.say(p, hello(vec![tcp("10.0.0.1:4000"), udp]));
    w.publish(p, &media(&identity(1), "film", 1, 64, 4000));
    let r = w.peer(2);
    w.join(r, "film", Intent::Whole);
    assert!(w.assigned(r).is_empty());
    let dials: Vec<_> = w.dials.drain(..).filter(|d| d.2 == identity(1).key()).collect();
    for (id, addr, _) in &dials {
        let ok = if addr.kind == NetKind::Udp { Ok(()) } else { Err("filtered".into()) };
        w.swarm.handle_dialed(w.now, *id, ok);
        w.drain();
    }
    assert!(w.assigned(r).is_empty(), "http dials TCP, and that was not proved");
    w.say(p, icet::message::Reach { reach: vec![tcp("10.0.0.1:4001")] });
    let (id, ..) = w.dials.pop().unwrap();
    w.swarm.handle_dialed(w.now, id, Ok(()));
    w.drain();
    let got = w.assigned(r);
    assert!(!got.is_empty() && got[0].source.host.addrs == [tcp("10.0.0.1:4001")]);
}

#[test]
fn after_a_reconnect_nothing_runs_twice() {
    let mut w = World::new();
    film(&mut w, 700);
    let r = w.peer(2);
    w.join(r, "film", Intent::Whole);
    let before = w.assigned(r);
    w.say(r, have(before[0].media, 0, 3));
    w.disconnect(r);
    w.pass(Duration::from_millis(500));
    let r = w.peer(2);
    let running = before.iter().map(|a| a.id).collect();
    w.say(r, Join { version: 1, have: PageRanges::one(0, 3), running, ..join("film", Intent::Whole) });
    let after = w.assigned(r);
    let old: BTreeSet<u64> = before.iter().flat_map(pages).collect();
    assert!(after.iter().flat_map(pages).all(|p| !old.contains(&p)), "{before:?} {after:?}");
    for a in &before {
        w.done(r, a);
    }
    assert!(w.swarm.totals().acked_pages > 0, "what still ran is credited");

    // After a restart of the tracker the numbers mean nothing: the map is believed, and bulk waits a little.
    let mut w = World::with(|c| c.epoch = 2);
    film(&mut w, 700);
    let r = w.peer(2);
    w.say(
        r,
        Join { version: 1, have: PageRanges::one(0, 99), running: vec![5, 6], ..join("film", Intent::Whole) },
    );
    assert!(w.assigned(r).is_empty());
    w.say(r, have(before[0].media, 100, 131));
    w.pass(Duration::from_millis(2600));
    let after = w.assigned(r);
    assert!(!after.is_empty() && after.iter().flat_map(pages).all(|p| p > 131), "{after:?}");
}

/// Reports that are lost with a session keep no host busy: what the receiver does not list is over.
#[test]
fn what_a_receiver_that_comes_back_does_not_list_is_over() {
    let mut w = World::new();
    film(&mut w, 7000);
    let r = w.peer(2);
    w.join(r, "film", Intent::Whole);
    let before = w.assigned(r);
    assert!(before.len() > 1 && w.swarm.totals().running == before.len() as u64);
    // All it was told arrived, and of that nothing was heard; one it still carries out.
    let last = before.last().unwrap();
    let have = before.iter().filter(|a| a.id != last.id).flat_map(pages);
    let have = have.fold(PageRanges::new(), |mut all, p| {
        all.insert(p, p);
        all
    });
    let again = w.peer(2);
    let join = Join { version: 1, have, running: vec![last.id], ..join("film", Intent::Whole) };
    w.say(again, join.clone());
    let after = w.assigned(again);
    let (told, got): (BTreeSet<u64>, BTreeSet<u64>) =
        (after.iter().flat_map(pages).collect(), before.iter().flat_map(pages).collect());
    assert!(told.len() >= got.len() / 2 && told.is_disjoint(&got), "the host has room at once: {told:?}");
    assert_eq!(w.swarm.totals().running, 1 + after.len() as u64);
    // Nor does one that left for good and joins anew.
    w.disconnect(again);
    let r = w.peer(2);
    w.say(r, Join { running: Vec::new(), ..join });
    assert_eq!(w.swarm.totals().running, w.assigned(r).len() as u64);
}

/// Where a session stopped passing, orders are over to one end only: they are taken back, and nobody waits for them.
#[test]
fn what_a_receiver_that_comes_back_lists_though_it_is_over_holds_nothing_up() {
    let mut w = World::new();
    film(&mut w, 7000);
    let r = w.peer(2);
    w.join(r, "film", Intent::Whole);
    let before = w.assigned(r);
    let (over, runs) = (&before[0], before.last().unwrap());
    w.done(r, over);
    w.pass(Duration::from_millis(500));
    let have = PageRanges::one(over.pages.first, over.pages.last.unwrap());
    let again = w.peer(2);
    let running = vec![over.id, runs.id];
    w.say(again, Join { version: 1, have, running, ..join("film", Intent::Whole) });
    let (mut cancelled, mut ordered) = (Vec::new(), 0);
    for m in w.heard(again) {
        match m {
            ToPeer::Cancel(c) => cancelled.extend(c.assignments),
            ToPeer::Assign(o) => ordered += o.assignments.len(),
            _ => {}
        }
    }
    assert_eq!(cancelled, [over.id], "the other one still runs");
    assert!(ordered > 0, "orders come at once");
}

#[test]
fn contribution_is_what_both_ends_confirm() {
    let mut w = World::new();
    let p = film(&mut w, 700);
    let r = w.peer(2);
    w.join(r, "film", Intent::Whole);
    let orders = w.assigned(r);
    let sum = |w: &World, n: u8| {
        w.swarm.peers(0, 9).into_iter().find(|p| p.key == identity(n).key()).unwrap().contribution
    };
    let served = |a: &Assignment, bytes| Served { items: vec![ServedItem { assignment: a.id, bytes }] };
    // One side alone counts for nothing; nor do assignments that never were, or were others'.
    w.say(p, served(&orders[0], 10_000));
    w.say(r, served(&orders[0], 10_000));
    w.say(
        p,
        Served {
            items: vec![
                ServedItem { assignment: 999, bytes: 1 << 40 },
                ServedItem { assignment: 0, bytes: 7 },
            ],
        },
    );
    w.done(r, &orders[1]);
    assert_eq!((sum(&w, 1).sent, sum(&w, 2).received), (0, 0));
    // Both: the lesser.
    w.done(r, &orders[0]);
    assert_eq!((sum(&w, 1).sent, sum(&w, 2).received), (10_000, 10_000));
    w.say(p, served(&orders[0], u64::MAX));
    let whole = orders[0].pages.count(u64::MAX) * 4000;
    assert_eq!((sum(&w, 1).sent, sum(&w, 2).received), (whole, whole));
    w.say(p, served(&orders[1], 8000));
    assert_eq!(sum(&w, 1).sent, whole + 8000);
    assert_eq!(sum(&w, 1).received, 0);
    w.disconnect(p);
    assert!(w.stores.iter().any(|s| matches!(s, super::super::Store::Contribution { peer, contribution }
        if *peer == identity(1).key() && contribution.sent == whole + 8000)));
}

#[test]
fn leaving_ends_what_one_wanted_and_served() {
    let mut w = World::new();
    film(&mut w, 700);
    let (a, b) = (w.peer(2), w.peer(3));
    w.join(a, "film", Intent::Whole);
    let orders = w.assigned(a);
    w.say(a, Leave { media: orders[0].media });
    w.pass(Duration::from_secs(40));
    assert!(w.assigned(a).is_empty());
    assert_eq!(
        (w.swarm.board.runs.len(), w.swarm.board.totals.map_bytes, w.swarm.board.totals.members),
        (0, 0, 1)
    );
    // Whoever is gone is nobody's host.
    w.say(a, Join { version: 1, have: PageRanges::one(0, 699), ..join("film", Intent::Share) });
    w.disconnect(a);
    w.join(b, "film", Intent::Whole);
    assert_eq!(hosts(&w.assigned(b)), BTreeSet::from([identity(1).key()]));
}

#[test]
fn a_declared_limit_is_respected() {
    let mut w = World::new();
    let p = w.connect(&identity(1), "10.0.0.1:1");
    let limits = Limits { up: Some(100_000), down: None };
    w.say(p, icet::message::Hello { limits, ..hello(vec![tcp("10.0.0.1:4000")]) });
    w.publish(p, &media(&identity(1), "film", 1, 2000, 4000));
    let receivers: Vec<_> = (2..10).map(|n| w.peer(n)).collect();
    receivers.iter().for_each(|r| w.join(*r, "film", Intent::Whole));
    let bytes: u64 =
        receivers.iter().flat_map(|r| w.assigned(*r)).map(|a| a.pages.count(u64::MAX) * 4000).sum();
    assert!(bytes > 0 && bytes <= 200_000, "{bytes} bytes under way at 100 KB/s");
}

#[test]
fn pages_that_are_lost_are_ordered_again() {
    let mut w = World::new();
    film(&mut w, 64);
    let r = w.peer(2);
    w.say(r, Join { version: 1, have: PageRanges::one(0, 63), ..join("film", Intent::Whole) });
    assert!(w.assigned(r).is_empty());
    let media = w.swarm.media_list(0, 1)[0].id;
    w.say(r, Have { media, got: Vec::new(), lost: PageRanges::one(10, 12) });
    let got = w.assigned(r);
    assert_eq!(got.iter().flat_map(pages).collect::<Vec<_>>(), [10, 11, 12]);
    assert_eq!(w.swarm.media_list(0, 1)[0].complete, 1);
    w.done(r, &got[0]);
    assert_eq!(w.swarm.media_list(0, 1)[0].complete, 2);
}

#[test]
fn who_drips_is_left_alone_for_a_minute_and_then_tried_with_one_small_order() {
    for (outcome, total) in [(Outcome::Stalled, 1100), (Outcome::Stopped, 2500)] {
        let mut w = World::new();
        film(&mut w, 20_000);
        let sharers = [2, 3].map(|n| w.peer(n));
        for host in sharers {
            w.say(host, Join { version: 1, have: PageRanges::one(0, 19_999), ..join("film", Intent::Share) });
        }
        let r = w.peer(4);
        let theirs = |all: &[Assignment]| -> Vec<Assignment> {
            all.iter().filter(|a| a.source.host.key == identity(2).key()).cloned().collect()
        };
        w.join(r, "film", Intent::Whole);
        let orders = w.assigned(r);
        let dripping = theirs(&orders);
        assert!(!dripping.is_empty() && dripping.len() < orders.len(), "{outcome:?}");
        let unit = dripping.iter().map(|a| a.pages.count(u64::MAX)).min().unwrap();
        w.pass(Duration::from_millis(u64::from(total)));
        for a in &dripping {
            let told = Report { bytes: 0, pages: 0, first_byte: Some(10), total, ..report(a, outcome) };
            w.say(r, told);
        }
        let at = |w: &mut World, seconds| {
            w.heard(r);
            w.say(r, Leave { media: orders[0].media });
            w.pass(Duration::from_secs(seconds));
            w.join(r, "film", Intent::Whole);
            let mut got = w.assigned(r);
            w.pass(Duration::from_millis(600));
            got.extend(w.assigned(r));
            assert!(!got.is_empty(), "others send");
            theirs(&got)
        };
        assert_eq!(at(&mut w, 20).len(), 0, "{outcome:?}: not after 20 s");
        assert_eq!(at(&mut w, 30).len(), 0, "{outcome:?}: not after 50 s");
        // Now only the publisher is better.
        w.disconnect(sharers[1]);
        let trial = at(&mut w, 15);
        assert_eq!(trial.len(), 1, "{outcome:?}: one order");
        assert!(trial[0].pages.count(u64::MAX) <= unit, "{outcome:?}: a small one");
        // It does well: nothing is against it any more.
        w.done(r, &trial[0]);
        let (mut next, mut most) = (theirs(&w.assigned(r)), 0);
        for _ in 0..40 {
            next.into_iter().for_each(|a| w.done(r, &a));
            w.pass(Duration::from_millis(100));
            next = theirs(&w.assigned(r));
            most = most.max(next.iter().map(|a| a.pages.count(u64::MAX)).sum());
        }
        assert!(most > unit, "{outcome:?}: {most} pages at once, where a small order has {unit}");
    }
}
