//! What a host gives, and what is ordered from it then.

use std::collections::BTreeSet;
use std::time::Duration;

use icet::message::{Allow, Intent, Join, ToPeer};
use icet::{Limits, MediaId, PageRanges, PeerKey};

use super::super::ConnId;
use super::fixture::{identity, media};
use super::world::{World, hello, join, tcp};

fn allow(up: Option<u64>, near: bool, withheld: Vec<MediaId>) -> Allow {
    Allow { up, down: None, near, withheld, once: None }
}

/// An origin (1) and a host with everything (2).
fn two_hosts() -> (World, ConnId, ConnId) {
    let mut w = World::new();
    let origin = w.peer(1);
    w.publish(origin, &media(&identity(1), "film", 1, 640, 4000));
    let host = w.peer(2);
    w.say(host, Join { version: 1, have: PageRanges::one(0, 639), ..join("film", Intent::Share) });
    (w, origin, host)
}

/// From whom somebody new is sent something, stand-ins too.
fn hosts_of(w: &mut World, n: u8, intent: Intent) -> BTreeSet<PeerKey> {
    let r = w.peer(n);
    w.join(r, "film", intent);
    w.pass(Duration::from_secs(3));
    let all = w.assigned(r);
    all.iter().flat_map(|a| a.stand_ins.iter().chain([&a.source])).map(|s| s.host.key).collect()
}

#[test]
fn who_gives_nothing_is_ordered_nothing_until_it_gives_again() {
    let (mut w, origin, host) = two_hosts();
    w.say(host, allow(Some(0), false, Vec::new()));
    for (n, intent) in [(3, Intent::Whole), (4, Intent::Play)] {
        assert_eq!(hosts_of(&mut w, n, intent), BTreeSet::from([identity(1).key()]), "{intent:?}");
    }
    w.say(origin, allow(Some(0), false, Vec::new()));
    let waits = w.peer(5);
    w.join(waits, "film", Intent::Whole);
    w.pass(Duration::from_secs(5));
    let heard = w.heard(waits);
    let orders = |m: &&ToPeer| matches!(m, ToPeer::Assign(a) if !a.assignments.is_empty());
    assert_eq!(heard.iter().filter(orders).count(), 0, "{heard:?}");
    let short = heard.iter().find_map(|m| if let ToPeer::Assign(a) = m { a.shortages.clone() } else { None });
    // They are there, and only busy as far as anybody else is concerned.
    assert!(short.is_some_and(|s| (s[0].hosts, s[0].unreachable, s[0].failed) == (2, 0, 0)));
    w.say(host, allow(None, false, Vec::new()));
    assert!(w.assigned(waits).iter().all(|a| a.source.host.key == identity(2).key()));
    w.pass(Duration::from_secs(1));
    assert!(w.swarm.totals().running > 0, "it waits though there is a host again");
}

#[test]
fn a_hello_may_say_that_nothing_is_given() {
    let (mut w, _, host) = two_hosts();
    w.disconnect(host);
    let at = "10.0.0.2:4000";
    let again = w.connect(&identity(2), at);
    w.say(again, icet::message::Hello { limits: Limits { up: Some(0), down: None }, ..hello(vec![tcp(at)]) });
    w.say(again, Join { version: 1, have: PageRanges::one(0, 639), ..join("film", Intent::Share) });
    assert_eq!(hosts_of(&mut w, 3, Intent::Whole), BTreeSet::from([identity(1).key()]));
}

#[test]
fn of_media_that_are_withheld_nothing_is_ordered() {
    let (mut w, origin, host) = two_hosts();
    let id = w.swarm.media_list(0, 1)[0].id;
    w.say(host, allow(None, false, vec![id]));
    assert_eq!(hosts_of(&mut w, 3, Intent::Play), BTreeSet::from([identity(1).key()]));
    w.say(host, allow(None, false, Vec::new()));
    w.say(origin, allow(None, false, vec![id]));
    for (n, intent) in [(4, Intent::Whole), (5, Intent::Play)] {
        assert!(!hosts_of(&mut w, n, intent).contains(&identity(1).key()), "{intent:?}");
    }
}

#[test]
fn who_gives_only_nearby_is_ordered_nothing_for_others() {
    let mut w = World::new();
    let at = "198.51.100.1:4000";
    let origin = w.connect(&identity(1), at);
    w.say(origin, hello(vec![tcp(at)]));
    w.say(origin, allow(None, true, Vec::new()));
    w.publish(origin, &media(&identity(1), "film", 1, 640, 4000));
    let far = w.connect(&identity(2), "203.0.113.2:4000");
    w.say(far, hello(Vec::new()));
    w.join(far, "film", Intent::Whole);
    let here = w.connect(&identity(3), "198.51.100.1:5000");
    w.say(here, hello(Vec::new()));
    w.join(here, "film", Intent::Whole);
    w.pass(Duration::from_secs(2));
    assert!(w.assigned(far).is_empty());
    assert!(!w.assigned(here).is_empty());
}

#[test]
fn a_publisher_that_gives_once_leaves_to_others_what_they_have_as_long_as_they_send() {
    let (mut w, origin, host) = two_hosts();
    let (first, second) = (identity(1).key(), identity(2).key());
    let r = w.peer(3);
    w.say(origin, Allow { once: Some(true), ..allow(None, false, Vec::new()) });
    w.join(r, "film", Intent::Whole);
    let of = |w: &mut World| w.assigned(r).iter().map(|a| a.source.host.key).collect::<BTreeSet<_>>();
    assert_eq!(of(&mut w), BTreeSet::from([second]), "it would be asked for half");
    // Nothing comes of the other: who starves is helped after all.
    for _ in 0..8 {
        w.pass(Duration::from_secs(1));
        w.say(host, Allow { up: Some(0), ..allow(None, false, Vec::new()) });
    }
    assert!(of(&mut w).contains(&first));
    w.say(origin, allow(None, false, Vec::new()));
    let r = w.peer(4);
    w.join(r, "film", Intent::Whole);
    let hosts = w.assigned(r).iter().map(|a| a.source.host.key).collect::<BTreeSet<_>>();
    assert!(hosts.contains(&first), "it may help again");
}
