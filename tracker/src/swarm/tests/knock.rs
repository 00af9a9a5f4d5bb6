//! Hosts that are gone without a word, and liars who say so of hosts that are not.

use std::time::Duration;

use icet::message::{Assignment, Hello, Intent, Join, Outcome, Ping, Report, ToPeer};
use icet::{PageRanges, PeerKey};

use super::super::ConnId;
use super::fixture::{identity, media};
use super::world::{World, hello, join, offer, report, tcp};

/// The same, with two protocols each, and what the receiver was sent.
fn of_two_protocols() -> (World, ConnId, ConnId, Vec<Assignment>) {
    let mut w = World::new();
    let mut peer = |n: u8| {
        let at = format!("10.0.0.{n}:4000");
        let conn = w.connect(&identity(n), &at);
        let offers = ["http", "quic"].map(offer).to_vec();
        w.say(conn, Hello { offers, ..hello(vec![tcp(&at)]) });
        conn
    };
    let (origin, host, r) = (peer(1), peer(2), peer(3));
    w.publish(origin, &media(&identity(1), "film", 1, 100_000, 4000));
    w.say(host, Join { version: 1, have: PageRanges::one(0, 99_999), ..join("film", Intent::Share) });
    w.join(r, "film", Intent::Whole);
    let got = w.assigned(r);
    (w, host, r, got)
}

/// How many of the orders of the next so many tenths of a second name the host (2), over whatever.
fn named(w: &mut World, r: ConnId, running: &mut Vec<Assignment>, tenths: u32) -> usize {
    let mut named = 0;
    for _ in 0..tenths {
        w.pass(Duration::from_millis(100));
        for a in std::mem::take(running).into_iter().filter(|a| a.source.host.key != key(2)) {
            w.done(r, &a);
        }
        running.extend(w.assigned(r));
        let names = |a: &&Assignment| a.stand_ins.iter().chain([&a.source]).any(|s| s.host.key == key(2));
        named += running.iter().filter(names).count();
    }
    named
}

#[test]
fn who_broke_off_is_ordered_from_over_no_other_protocol_before_it_speaks() {
    for (outcome, at_once) in
        [(Outcome::Broken, true), (Outcome::Unreachable, true), (Outcome::Stalled, false)]
    {
        let (mut w, host, r, got) = of_two_protocols();
        w.frozen.insert(host);
        let (mut running, mut theirs): (Vec<_>, Vec<_>) =
            got.into_iter().partition(|a| a.source.host.key != key(2));
        let first = theirs.pop().expect("an order from the host");
        w.say(r, Report { bytes: 0, pages: 0, ..report(&first, outcome) });
        if !at_once {
            // It may be there over the other carrier.
            w.pass(Duration::from_millis(600));
            let meanwhile = w.assigned(r);
            meanwhile.iter().filter(|a| a.source.host.key != key(2)).for_each(|a| w.done(r, a));
            running = w.assigned(r);
        }
        assert!(!away(&w, 2));
        assert_eq!(named(&mut w, r, &mut running, 10), 0, "{outcome:?}");
        // It has said nothing to the tracker either.
        assert!(!sent_to(&mut w, 4).contains(&key(2)), "{outcome:?}");
        w.say(host, Ping { nonce: 1 });
        assert!(named(&mut w, r, &mut running, 5) > 0, "{outcome:?}");
    }
}

/// An origin (1), a host with everything (2), and a receiver (3) with what it was sent.
fn world() -> (World, ConnId, ConnId, Vec<Assignment>) {
    let mut w = World::new();
    let origin = w.peer(1);
    w.publish(origin, &media(&identity(1), "film", 1, 2000, 4000));
    let host = w.peer(2);
    w.say(host, Join { version: 1, have: PageRanges::one(0, 1999), ..join("film", Intent::Share) });
    let r = w.peer(3);
    w.join(r, "film", Intent::Whole);
    let got = w.assigned(r);
    (w, host, r, got)
}

fn key(n: u8) -> PeerKey {
    identity(n).key()
}

fn knocks(w: &mut World, conn: ConnId) -> usize {
    w.heard(conn).iter().filter(|m| matches!(m, ToPeer::Knock(_))).count()
}

fn away(w: &World, n: u8) -> bool {
    w.swarm.peers(0, 99).into_iter().find(|p| p.key == key(n)).is_some_and(|p| p.away)
}

fn complain(w: &mut World, r: ConnId, got: &[Assignment], outcome: Outcome) {
    for a in got.iter().filter(|a| a.source.host.key == key(2)) {
        w.say(r, Report { bytes: 0, pages: 0, ..report(a, outcome) });
    }
}

/// Whom a newcomer is sent to.
fn sent_to(w: &mut World, n: u8) -> Vec<PeerKey> {
    let r = w.peer(n);
    w.join(r, "film", Intent::Whole);
    w.pass(Duration::from_secs(1));
    let all = w.assigned(r);
    all.iter().flat_map(|a| a.stand_ins.iter().chain([&a.source])).map(|s| s.host.key).collect()
}

#[test]
fn a_host_that_does_not_answer_is_ordered_nothing_more_until_it_speaks() {
    for outcome in [Outcome::Unreachable, Outcome::Broken, Outcome::Stalled] {
        let (mut w, host, r, got) = world();
        assert!(got.iter().any(|a| a.source.host.key == key(2)));
        w.frozen.insert(host);
        complain(&mut w, r, &got, outcome);
        assert_eq!(knocks(&mut w, host), 1, "once, however many assignments failed");
        w.pass(Duration::from_millis(2100));
        assert!(away(&w, 2));
        let to = sent_to(&mut w, 4);
        assert!(!to.is_empty() && !to.contains(&key(2)), "{outcome:?}");
        // It was only frozen.
        w.say(host, Ping { nonce: 1 });
        assert!(!away(&w, 2));
        assert!(sent_to(&mut w, 5).contains(&key(2)), "{outcome:?}");
    }
}

/// Complains of the first order from the host, and gives the others.
fn complain_once(w: &mut World, r: ConnId, got: &[Assignment]) -> Vec<Assignment> {
    let mut mine: Vec<_> = got.iter().filter(|a| a.source.host.key == key(2)).cloned().collect();
    let first = mine.remove(0);
    w.say(r, Report { bytes: 0, pages: 0, ..report(&first, Outcome::Broken) });
    assert!(!mine.is_empty());
    mine
}

#[test]
fn what_was_ordered_from_a_host_that_is_gone_is_free_for_others() {
    let (mut w, host, r, got) = world();
    w.frozen.insert(host);
    let others = complain_once(&mut w, r, &got);
    assert_eq!(knocks(&mut w, host), 1);
    w.heard(r);
    w.pass(Duration::from_millis(2100));
    assert!(away(&w, 2));
    let heard = w.heard(r);
    let cancelled = |m: ToPeer| if let ToPeer::Cancel(c) = m { c.assignments } else { Vec::new() };
    let cancelled: Vec<u64> = heard.into_iter().flat_map(cancelled).collect();
    assert!(others.iter().all(|a| cancelled.contains(&a.id)), "{others:?} of {cancelled:?}");
}

#[test]
fn a_complaint_soon_after_a_false_one_counts_too() {
    let (mut w, host, r, got) = world();
    let others = complain_once(&mut w, r, &got);
    w.pass(Duration::from_secs(1));
    w.frozen.insert(host);
    w.say(r, Report { bytes: 0, pages: 0, ..report(&others[0], Outcome::Broken) });
    w.pass(Duration::from_millis(1100));
    assert!(!away(&w, 2), "it has answered the first one");
    w.pass(Duration::from_millis(2100));
    assert!(away(&w, 2));
}

#[test]
fn liars_throw_nobody_out() {
    let (mut w, host, r, mut got) = world();
    let mut knocked = 0;
    for _ in 0..20 {
        complain(&mut w, r, &got, Outcome::Broken);
        w.pass(Duration::from_secs(3));
        knocked += knocks(&mut w, host);
        assert!(!away(&w, 2));
        got = w.assigned(r);
    }
    assert!((1..=30).contains(&knocked), "{knocked} times in a minute");
    assert!(sent_to(&mut w, 4).contains(&key(2)));
}

#[test]
fn a_host_that_sends_somebody_something_is_there_though_its_session_is_silent() {
    let (mut w, host, r, got) = world();
    w.frozen.insert(host);
    let others = complain_once(&mut w, r, &got);
    w.pass(Duration::from_secs(1));
    w.done(r, &others[0]);
    w.pass(Duration::from_millis(1100));
    assert!(!away(&w, 2), "it has just sent something");
}

/// A film at an origin (1), and receivers (11 to 18) that have got some of it until now, and have as much under way as it sends.
fn crowd() -> (World, Vec<ConnId>) {
    let mut w = World::new();
    let origin = w.peer(1);
    w.publish(origin, &media(&identity(1), "film", 1, 20_000, 4000));
    let all: Vec<ConnId> = (11..19).map(|n| w.peer(n)).collect();
    let mut running: Vec<(ConnId, Assignment)> = Vec::new();
    for r in &all {
        w.join(*r, "film", Intent::Whole);
    }
    for _ in 0..60 {
        w.pass(Duration::from_millis(50));
        for r in &all {
            running.extend(w.assigned(*r).into_iter().map(|a| (*r, a)));
        }
        let n = running.len().min(12);
        for (r, a) in running.drain(..n) {
            w.done(r, &a);
        }
    }
    (w, all)
}

fn up(w: &World, n: u8) -> f64 {
    w.swarm.peers(0, 99).into_iter().find(|p| p.key == key(n)).and_then(|p| p.up).unwrap_or(0.0)
}

fn cancels(w: &mut World, conn: ConnId) -> Vec<u64> {
    let cancelled = |m| if let ToPeer::Cancel(c) = m { c.assignments } else { Vec::new() };
    w.heard(conn).into_iter().flat_map(cancelled).collect()
}

#[test]
fn receivers_that_were_killed_take_nothing_from_who_comes_next() {
    let (mut w, all) = crowd();
    w.frozen.extend(all.iter().copied());
    let learned = up(&w, 1);
    assert!(learned > 0.0);
    let r = w.peer(3);
    w.join(r, "film", Intent::Whole);
    let (joined, mut first, mut last) = (w.now, None, w.now);
    let mut queue = std::collections::VecDeque::new();
    for _ in 0..60 {
        w.pass(Duration::from_millis(50));
        let (origins, others): (Vec<_>, Vec<_>) =
            w.assigned(r).into_iter().partition(|a| a.source.host.key == key(1));
        // From others nothing comes.
        let soon = w.now.since(joined) < Duration::from_millis(600);
        assert!(soon || others.is_empty(), "one that is silent is named");
        queue.extend(origins);
        if let Some(a) = queue.pop_front() {
            w.done(r, &a);
            first.get_or_insert(w.now.since(joined));
            assert!(w.now.since(last) < Duration::from_millis(600), "{last:?}, {:?}", w.now);
            last = w.now;
        }
    }
    let first = first.expect("something of the origin");
    assert!(first < Duration::from_millis(600), "{first:?}");
    assert!(w.now.since(last) < Duration::from_millis(600), "{last:?}, {:?}", w.now);
    assert!(up(&w, 1) >= learned, "{} of {learned}", up(&w, 1));
    assert!((11..19).all(|n| away(&w, n)));
    // One of them was only frozen.
    let back = all[4];
    w.frozen.remove(&back);
    w.heard(back);
    w.say(back, Ping { nonce: 1 });
    assert!(!away(&w, 15) && !w.assigned(back).is_empty());
}

#[test]
fn orders_of_a_receiver_that_is_gone_without_a_word_end_though_nobody_waits() {
    let (mut w, all) = crowd();
    w.frozen.extend(all.iter().copied());
    let learned = up(&w, 1);
    assert!(w.swarm.totals().running > 0);
    w.pass(Duration::from_secs(16));
    assert_eq!(w.swarm.totals().running, 0);
    assert!((11..19).all(|n| away(&w, n)));
    assert!(up(&w, 1) >= learned, "{} of {learned}", up(&w, 1));
}

/// A receiver's line is cut, and somebody waits for what its host sends.
#[test]
fn a_receiver_that_speaks_again_goes_on_with_its_orders() {
    let (mut w, all) = crowd();
    let (r, others) = all.split_first().expect("some");
    w.frozen.insert(*r);
    let running = w.swarm.totals().running;
    let waits = w.peer(3);
    w.join(waits, "film", Intent::Whole);
    w.heard(*r);
    w.pass(Duration::from_millis(1500));
    assert!(!away(&w, 11));
    assert!(
        w.inbox[r].iter().any(|m| matches!(m, ToPeer::Knock(_))),
        "nobody asked, so that nothing is tested"
    );
    w.frozen.remove(r);
    w.say(*r, Ping { nonce: 1 });
    assert_eq!(cancels(&mut w, *r), [0; 0]);
    assert!(w.swarm.totals().running >= running);
    for other in others {
        assert_eq!(cancels(&mut w, *other), [0; 0], "who answers loses nothing");
    }
}
