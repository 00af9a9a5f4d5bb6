//! Receivers that nobody but drippers sends anything, as far as they know.

use std::collections::BTreeSet;
use std::time::Duration;

use icet::PageRanges;
use icet::message::{Assignment, Intent, Join, Outcome, Ping, Report, ToPeer};

use super::fixture::{identity, media};
use super::world::{World, join, report};

/// All that one receiver is ordered comes by drops, from the host and from who stands in for it; the origin, too, drips. A host that
/// says nothing of itself (5) has everything.
#[test]
fn what_only_drips_from_the_last_stand_in_is_ordered_from_somebody_else_at_once() {
    let mut w = World::new();
    let origin = w.peer(1);
    w.publish(origin, &media(&identity(1), "film", 1, 64, 4000));
    let seed = |w: &mut World, n: u8| {
        let conn = w.peer(n);
        w.say(conn, Join { version: 1, have: PageRanges::one(0, 63), ..join("film", Intent::Share) });
    };
    seed(&mut w, 2);
    seed(&mut w, 3);
    let r = w.peer(4);
    w.join(r, "film", Intent::Whole);
    let orders = w.assigned(r);
    let first: BTreeSet<u64> = orders.iter().flat_map(|a| a.pages.first..=a.pages.last.unwrap()).collect();
    assert_eq!(first.len(), 64, "all of it is under way");
    seed(&mut w, 5);
    let drip = |a: &Assignment, source: usize, ms| {
        let s = [&a.source].into_iter().chain(&a.stand_ins).nth(source).unwrap();
        let (host, protocol) = (s.host.key, s.host.protocol.clone());
        Report { host, protocol, bytes: 0, pages: 0, last: false, total: ms, ..report(a, Outcome::Stalled) }
    };
    let mut sent = BTreeSet::new();
    for a in &orders {
        for source in 0..=a.stand_ins.len() {
            w.say(r, drip(a, source, 2000));
        }
        // Said once more, it is no other news.
        w.say(r, drip(a, a.stand_ins.len(), 2500));
    }
    for i in 0..15 {
        w.say(r, Ping { nonce: 1 });
        for m in w.heard(r) {
            match m {
                ToPeer::Cancel(c) => assert!(i > 0, "a drip is better than nothing: {c:?}"),
                ToPeer::Assign(m) => {
                    for a in m.assignments.iter().filter(|a| a.source.host.key == identity(5).key()) {
                        sent.extend(a.pages.first..=a.pages.last.unwrap());
                        w.done(r, a);
                    }
                }
                _ => {}
            }
        }
        w.pass(Duration::from_millis(100));
    }
    assert_eq!(sent, first, "within a second and a half");
}
