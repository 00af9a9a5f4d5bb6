//! Shares: what is held for and against whom.

use icet::message::{Intent, Served, ServedItem};

use super::super::ConnId;
use super::fixture::{identity, media};
use super::world::{World, hello, tcp};

/// A peer with key `n` that is seen at `at`.
fn peer(w: &mut World, n: u8, at: &str) -> ConnId {
    let conn = w.connect(&identity(n), at);
    w.say(conn, hello(vec![tcp(at)]));
    conn
}

fn share(w: &World, n: u8) -> f64 {
    let b = &w.swarm.board;
    b.share(b.latest(), b.keys[&identity(n).key()])
}

/// `host` sends all that is ordered of it to who wants it, and both say so.
fn fetch_all(w: &mut World, receivers: &[ConnId]) {
    for _ in 0..200 {
        w.pass(std::time::Duration::from_millis(100));
        for r in receivers {
            for a in w.assigned(*r) {
                let bytes = (a.pages.last.expect("an end") - a.pages.first + 1) * 4000;
                let host = a.source.host.key;
                let conn = w.swarm.board.peers.get(&w.swarm.board.keys[&host]).and_then(|p| p.conn);
                w.done(*r, &a);
                let items = vec![ServedItem { assignment: a.id, bytes }];
                w.say(conn.expect("a host with a session"), Served { items });
            }
        }
    }
}

#[test]
fn who_takes_and_gives_nothing_has_a_quarter_and_who_gives_has_all() {
    let mut w = World::new();
    let p = peer(&mut w, 1, "198.51.100.1:4000");
    w.publish(p, &media(&identity(1), "film", 1, 2000, 4000));
    let r = peer(&mut w, 2, "203.0.113.1:4000");
    assert!(share(&w, 2) >= 1.0, "who is new");
    w.join(r, "film", Intent::Whole);
    fetch_all(&mut w, &[r]);
    assert!((share(&w, 2) - 0.25).abs() < 0.01, "{}", share(&w, 2));
    assert!(share(&w, 1) >= 1.0, "the publisher gave");
    // A key that comes from there anew is no newcomer, one from elsewhere is.
    peer(&mut w, 3, "203.0.113.1:4001");
    peer(&mut w, 4, "203.0.113.2:4000");
    assert!(share(&w, 3) < 0.3, "{}", share(&w, 3));
    assert!(share(&w, 4) >= 1.0);
}

#[test]
fn what_passes_within_one_network_earns_nothing() {
    let mut w = World::new();
    let p = peer(&mut w, 1, "198.51.100.1:4000");
    w.publish(p, &media(&identity(1), "film", 1, 2000, 4000));
    let (near, far) = (peer(&mut w, 2, "198.51.100.2:4000"), peer(&mut w, 3, "203.0.113.1:4000"));
    let sent = |w: &World| {
        let b = &w.swarm.board;
        b.peers.get(&b.keys[&identity(1).key()]).expect("a peer").contribution.sent
    };
    w.join(near, "film", Intent::Whole);
    fetch_all(&mut w, &[near]);
    assert_eq!(sent(&w), 0);
    assert!(share(&w, 2) >= 1.0, "nor costs anything");
    w.disconnect(near);
    w.join(far, "film", Intent::Whole);
    fetch_all(&mut w, &[far]);
    assert!(sent(&w) > 7_000_000, "{}", sent(&w));
}
