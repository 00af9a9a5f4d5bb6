//! Liars: hosts that alter or lack what they claim, and receivers that slander.

use std::collections::BTreeSet;

use icet::message::{Intent, Join, Leave, Outcome, Report};
use icet::{PageRanges, PeerKey};

use super::super::ConnId;
use super::fixture::{identity, media};
use super::world::{World, join, report};

fn trust(w: &World, n: u8) -> f64 {
    w.swarm.peers(0, 99).into_iter().find(|p| p.key == identity(n).key()).unwrap().trust
}

/// An origin (1) and a host with everything (2).
fn two_hosts() -> (World, ConnId) {
    let mut w = World::new();
    let p = w.peer(1);
    w.publish(p, &media(&identity(1), "film", 1, 640, 4000));
    let h = w.peer(2);
    w.say(h, full("film"));
    (w, h)
}

fn full(path: &str) -> Join {
    Join { version: 1, have: PageRanges::one(0, 639), ..join(path, Intent::Share) }
}

/// Joins as `n` and reports everything that comes from `host` with `outcome`; says whom it was sent to at last.
fn complain(w: &mut World, n: u8, host: u8, outcome: Outcome) -> BTreeSet<PeerKey> {
    let r = w.peer(n);
    w.join(r, "film", Intent::Whole);
    let mut last = BTreeSet::new();
    for _ in 0..10 {
        let got = w.assigned(r);
        if got.is_empty() {
            break;
        }
        last = got.iter().map(|a| a.source.host.key).collect();
        for a in got.iter().filter(|a| a.source.host.key == identity(host).key()) {
            w.say(r, Report { bytes: 0, pages: 0, ..report(a, outcome) });
        }
    }
    let media = w.swarm.media_list(0, 1)[0].id;
    w.say(r, Leave { media });
    last
}

#[test]
fn two_witnesses_of_altered_pages_are_enough() {
    let (mut w, _) = two_hosts();
    let to = complain(&mut w, 3, 2, Outcome::Altered);
    assert!(!to.contains(&identity(2).key()), "who was cheated is not sent there again");
    assert!(trust(&w, 2) > 0.5, "one voice may lie: {}", trust(&w, 2));
    complain(&mut w, 4, 2, Outcome::Altered);
    assert!(trust(&w, 2) < 0.2);
    let r = w.peer(5);
    w.join(r, "film", Intent::Whole);
    let hosts: BTreeSet<_> = w.assigned(r).iter().map(|a| a.source.host.key).collect();
    assert_eq!(hosts, BTreeSet::from([identity(1).key()]));
    // It is forgiven in time.
    w.pass(std::time::Duration::from_secs(3600));
    assert!(trust(&w, 2) > 0.8);
}

#[test]
fn to_leave_and_come_back_clears_no_liar_and_no_slanderer() {
    let (mut w, host) = two_hosts();
    complain(&mut w, 3, 2, Outcome::Altered);
    complain(&mut w, 4, 2, Outcome::Altered);
    let before = trust(&w, 2);
    assert!(before < 0.2);
    w.disconnect(host);
    // Longer than a peer that is gone is kept.
    w.pass(5 * super::super::session::LINGER);
    assert!(w.swarm.peers(0, 99).iter().all(|p| p.key != identity(2).key()), "it is still kept");
    let back = w.peer(2);
    assert!((before..0.5).contains(&trust(&w, 2)), "{} instead of {before}", trust(&w, 2));
    w.say(back, full("film"));
    let r = w.peer(5);
    w.join(r, "film", Intent::Whole);
    let hosts: BTreeSet<_> = w.assigned(r).iter().map(|a| a.source.host.key).collect();
    assert_eq!(hosts, BTreeSet::from([identity(1).key()]));
}

#[test]
fn the_same_voice_counts_once_and_slander_wears_out() {
    let mut w = World::new();
    let p = w.peer(1);
    w.publish(p, &media(&identity(1), "film", 1, 640, 4000));
    for n in 2..12 {
        let h = w.peer(n);
        w.say(h, full("film"));
    }
    let r = w.peer(50);
    w.join(r, "film", Intent::Whole);
    for _ in 0..40 {
        for a in w.assigned(r) {
            w.say(r, report(&a, Outcome::Altered));
            w.say(r, report(&a, Outcome::Altered));
        }
        w.pass(std::time::Duration::from_millis(100));
    }
    let hurt = (1..12).filter(|n| trust(&w, *n) < 0.99).count();
    assert!(hurt <= 4, "{hurt} hosts were hurt by one slanderer");
    assert!((1..12).all(|n| trust(&w, n) > 0.5));
}

#[test]
fn who_lacks_what_it_claims_is_not_believed_for_long() {
    let (mut w, h) = two_hosts();
    assert_eq!(w.swarm.media_list(0, 1)[0].complete, 2);
    for n in 3..6 {
        complain(&mut w, n, 2, Outcome::Incomplete);
    }
    assert_eq!(w.swarm.media_list(0, 1)[0].complete, 1);
    let r = w.peer(7);
    w.join(r, "film", Intent::Whole);
    assert!(w.assigned(r).iter().all(|a| a.source.host.key == identity(1).key()));
    // It may state its map anew.
    w.say(h, full("film"));
    assert_eq!(w.swarm.media_list(0, 1)[0].complete, 2);
}

#[test]
fn reports_of_others_assignments_count_for_nothing() {
    let (mut w, _) = two_hosts();
    let (a, b) = (w.peer(3), w.peer(4));
    w.join(a, "film", Intent::Whole);
    let orders = w.assigned(a);
    for o in &orders {
        w.say(b, report(o, Outcome::Altered));
        w.say(b, Report { assignment: o.id + 1000, ..report(o, Outcome::Altered) });
        w.say(a, Report { host: identity(77).key(), ..report(o, Outcome::Altered) });
    }
    assert!((1..5).all(|n| trust(&w, n) == 1.0));
    assert_eq!(w.swarm.totals().running, orders.len() as u64);
    assert_eq!(w.swarm.protocols()[0].failed, 0);
}

#[test]
fn a_protocol_that_fails_is_used_less() {
    let mut w = World::new();
    let offers = vec![super::world::offer("good"), super::world::offer("bad")];
    let say = |w: &mut World, n: u8| {
        let at = format!("10.0.0.{n}:4000");
        let c = w.connect(&identity(n), &at);
        let hello = super::world::hello(vec![super::world::tcp(&at)]);
        w.say(c, icet::message::Hello { offers: offers.clone(), ..hello });
        c
    };
    let p = say(&mut w, 1);
    w.publish(p, &media(&identity(1), "film", 1, 6400, 4000));
    let r = say(&mut w, 2);
    w.join(r, "film", Intent::Whole);
    let mut used = Vec::new();
    for _ in 0..200 {
        for a in w.assigned(r) {
            let good = a.source.host.protocol.as_str() == "good";
            used.push(good);
            if good {
                w.done(r, &a);
            } else {
                w.say(r, report(&a, Outcome::Broken));
            }
        }
        w.pass(std::time::Duration::from_millis(500));
    }
    let late = &used[used.len() / 2..];
    let share = late.iter().filter(|g| **g).count() as f64 / late.len() as f64;
    assert!(used.len() > 20 && share > 0.85, "{share} of {} over what works", used.len());
    let stats = w.swarm.protocols();
    let of = |n: &str| stats.iter().find(|p| p.name.as_str() == n).unwrap();
    assert!(of("good").success > 0.9 && of("good").bytes > 0 && of("good").goodput.is_some());
    assert!(of("bad").failed == 0 || of("bad").success < 0.9);
}
