//! One host and one receiver that share several protocols.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use icet::message::{Assignment, Hello, Intent, Join, Outcome, Report};
use icet::{NetAddr, NetKind, Offer, PageRanges};

use super::super::ConnId;
use super::fixture::{identity, media};
use super::world::{World, hello, join, offer, report, tcp};

/// An origin and a receiver with these protocols, which fetches a film of so many pages.
fn pair(w: &mut World, protocols: &[&str], pages: u64) -> ConnId {
    let mut peer = |n: u8| {
        let at = format!("10.0.0.{n}:4000");
        let conn = w.connect(&identity(n), &at);
        let offers = protocols.iter().map(|p| offer(p)).collect();
        w.say(conn, Hello { offers, ..hello(vec![tcp(&at)]) });
        conn
    };
    let (p, r) = (peer(1), peer(2));
    w.publish(p, &media(&identity(1), "film", 1, pages, 4000));
    w.join(r, "film", Intent::Whole);
    r
}

/// The tracker learns of a host's other protocols by trying them now and then: beside the best, so that nobody waits for it.
#[test]
fn a_pair_carries_one_media_over_two_protocols_at_once() {
    let mut w = World::new();
    let r = pair(&mut w, &["http", "quic"], 20_000);
    let mut running: Vec<Assignment> = w.assigned(r);
    let (mut at_once, mut pages) = (0, BTreeMap::<String, u64>::new());
    while !running.is_empty() {
        let over = |name: &str| running.iter().any(|a| a.source.host.protocol.as_str() == name);
        at_once += u64::from(over("http") && over("quic"));
        let a = running.remove(0);
        let count = a.pages.last.expect("an end") - a.pages.first + 1;
        *pages.entry(a.source.host.protocol.to_string()).or_default() += count;
        w.pass(Duration::from_millis(20));
        w.done(r, &a);
        running.extend(w.assigned(r));
    }
    assert_eq!(pages.values().sum::<u64>(), 20_000, "{pages:?}");
    assert!(pages.len() == 2 && at_once > 0, "{pages:?}, both at once {at_once} times");
}

/// Nothing is known of any of them: all are tried, once each, with little, and beside something else that is under way.
#[test]
fn each_protocol_of_a_host_is_tried_soon() {
    let mut w = World::new();
    let r = pair(&mut w, &["http", "libp2p", "quic", "udp"], 20_000);
    let mut running: Vec<Assignment> = w.assigned(r);
    let (mut names, mut orders) = (BTreeSet::new(), 0);
    while names.len() < 4 && orders < 8 {
        for a in &running[orders..] {
            let new = names.insert(a.source.host.protocol.to_string());
            let count = a.pages.last.expect("an end") - a.pages.first + 1;
            assert!(!new || count <= 16, "{count} pages over what nothing is known of");
            orders += 1;
        }
        w.pass(Duration::from_millis(20));
        w.done(r, &running[orders - 1]);
        running.extend(w.assigned(r));
    }
    assert_eq!(names.len(), 4, "in {orders} orders: {names:?}");
}

/// A firewall begins to drop what goes over TCP, later what goes over UDP instead: when nothing comes over UDP any more, TCP is tried
/// again at once, however long it was to be avoided.
#[test]
fn what_failed_over_one_carrier_is_tried_again_when_the_other_one_fails() {
    for publisher in [true, false] {
        let mut w = World::new();
        let mut peer = |n: u8| {
            let at = format!("10.0.0.{n}:4000");
            let conn = w.connect(&identity(n), &at);
            let udp = NetAddr { kind: NetKind::Udp, at: at.parse().unwrap() };
            let offers = vec![offer("http"), Offer { dials: Some(NetKind::Udp), ..offer("quic") }];
            w.say(conn, Hello { offers, ..hello(vec![tcp(&at), udp]) });
            conn
        };
        let (p, r, h) = (peer(1), peer(2), peer(3));
        w.publish(p, &media(&identity(1), "film", 1, 60_000, 4000));
        if !publisher {
            w.say(h, Join { version: 1, have: PageRanges::one(0, 59_999), ..join("film", Intent::Share) });
            w.disconnect(p);
        }
        w.join(r, "film", Intent::Whole);
        // Orders over one of both fail, those over the other bring what they should, for so many tenths of a second.
        let mut running: Vec<Assignment> = w.assigned(r);
        let mut pass = |w: &mut World, fails: &str, tenths: u32| {
            let mut came = 0;
            for _ in 0..tenths {
                w.pass(Duration::from_millis(100));
                running.extend(w.assigned(r));
                let (bad, good): (Vec<_>, Vec<_>) = std::mem::take(&mut running)
                    .into_iter()
                    .partition(|a| a.source.host.protocol.as_str() == fails);
                for a in bad {
                    w.say(r, Report { bytes: 0, pages: 0, ..report(&a, Outcome::Stalled) });
                }
                // One after the other, so that there is something to fetch until the end.
                running = good;
                if !running.is_empty() {
                    w.done(r, &running.remove(0));
                    came += 1;
                }
            }
            came
        };
        assert!(pass(&mut w, "none", 10) > 0);
        assert!(pass(&mut w, "http", 30) > 0, "over UDP");
        // Healed: but nobody tries TCP yet.
        pass(&mut w, "none", 20);
        assert!(pass(&mut w, "quic", 10) > 0, "over TCP");
    }
}
