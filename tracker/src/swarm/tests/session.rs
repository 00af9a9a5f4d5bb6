//! Hello, quotas, addresses.

use std::time::Duration;

use icet::message::{ErrorCode, Ping, Reach, ReachResult, ToPeer, ToTracker};
use icet::{Now, TicketKey};

use super::super::Contribution;
use super::fixture::{identity, media};
use super::world::{SECRET, World, hello, tcp};

#[test]
fn a_hello_is_welcomed_with_what_the_peer_needs() {
    let mut w = World::new();
    let conn = w.connect(&identity(2), "[::ffff:10.0.0.2]:4000");
    w.say(conn, hello(vec![]));
    let heard = w.heard(conn);
    let [ToPeer::Welcome(welcome)] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((welcome.version, welcome.epoch, welcome.time), (1, 1, w.wall()));
    assert_eq!(welcome.observed.at, "10.0.0.2:4000".parse().unwrap());
    assert_eq!(welcome.ticket_key, TicketKey::derive(&SECRET, &identity(2).key()));
    assert_eq!(w.swarm.totals().peers, 1);
}

#[test]
fn what_comes_before_a_hello_ends_the_session() {
    let mut w = World::new();
    let conn = w.connect(&identity(2), "10.0.0.2:1");
    w.say(conn, Ping { nonce: 1 });
    assert_eq!(w.error(conn).unwrap().code, ErrorCode::BAD_MESSAGE);
    assert!(w.closed.contains_key(&conn));
    // Nothing after it is heard.
    w.say(conn, hello(vec![]));
    assert!(w.heard(conn).is_empty());

    let conn = w.peer(3);
    w.say(conn, hello(vec![]));
    assert_eq!(w.error(conn).unwrap().code, ErrorCode::BAD_MESSAGE);
    assert!(w.closed.contains_key(&conn));

    let conn = w.connect(&identity(4), "10.0.0.4:1");
    w.say(conn, icet::message::Hello { version: 0, ..hello(vec![]) });
    assert_eq!(w.error(conn).unwrap().code, ErrorCode::VERSION);
    assert!(w.closed.contains_key(&conn));

    let conn = w.connect(&identity(5), "10.0.0.5:1");
    w.pass(Duration::from_secs(11));
    assert!(w.closed.contains_key(&conn), "a session that says nothing is closed");
}

#[test]
fn unknown_messages_are_answered_politely() {
    let mut w = World::new();
    let conn = w.peer(2);
    w.say(conn, ToTracker::Unknown(77));
    assert_eq!(w.error(conn).unwrap().code, ErrorCode::UNSUPPORTED);
    w.say(conn, Ping { nonce: 9 });
    assert!(matches!(w.heard(conn).as_slice(), [ToPeer::Pong(p)] if p.nonce == 9));
    w.swarm.handle_malformed(w.now, conn, Some(3), "a map is missing");
    w.drain();
    assert_eq!(w.error(conn).unwrap().code, ErrorCode::BAD_MESSAGE);
    assert!(!w.closed.contains_key(&conn));
}

#[test]
fn the_newest_session_of_a_key_wins() {
    let mut w = World::new();
    let old = w.peer(2);
    let new = w.peer(2);
    assert!(w.closed.contains_key(&old) && !w.closed.contains_key(&new));
    // The end of the old one does not hurt the new one.
    w.disconnect(old);
    w.say(new, Ping { nonce: 1 });
    assert!(matches!(w.heard(new).as_slice(), [ToPeer::Pong(_)]));
    assert_eq!(w.swarm.peers(0, 10).len(), 1);
}

#[test]
fn a_hello_that_comes_late_does_not_end_the_session_that_replaced_it() {
    let mut w = World::new();
    let late = w.connect(&identity(2), "10.0.0.2:4000");
    let new = w.peer(2);
    w.say(late, hello(vec![tcp("10.0.0.2:4000")]));
    assert!(w.closed.contains_key(&late) && !w.closed.contains_key(&new));
    w.say(new, Ping { nonce: 1 });
    assert!(matches!(w.heard(new).as_slice(), [ToPeer::Pong(_)]));
}

#[test]
fn of_two_programs_with_one_key_the_first_stays_as_long_as_it_answers() {
    let mut w = World::new();
    let mut places = 0;
    let mut begin = |w: &mut World, instance: u8| {
        places += 1;
        let conn = w.connect(&identity(2), &format!("10.0.{places}.2:4000"));
        let instance = Some(icet::key::Hash([instance; 32]));
        w.say(conn, icet::message::Hello { instance, ..hello(vec![tcp("10.0.0.2:4000")]) });
        conn
    };
    let is_asked = |w: &mut World, conn| w.heard(conn).iter().any(|m| matches!(m, ToPeer::Knock(_)));
    let first = begin(&mut w, 1);
    // However long it has said nothing, and however often the other one comes.
    for (nonce, pause) in [(0, 600), (1, 2), (2, 2), (3, 3600)] {
        w.pass(Duration::from_secs(pause));
        let second = begin(&mut w, 2);
        let refused = w.error(second).unwrap();
        assert_eq!((refused.code, refused.retry), (ErrorCode::FORBIDDEN, Some(3000)));
        let text = if pause > 6 { "it is asked" } else { "another program with this key is connected" };
        assert!(refused.text.contains(text), "{}", refused.text);
        assert!(w.closed.contains_key(&second) && !w.closed.contains_key(&first));
        assert!(is_asked(&mut w, first));
        w.pass(Duration::from_millis(600));
        w.say(first, Ping { nonce });
    }
    // The same one, begun again, need not wait.
    let again = begin(&mut w, 1);
    assert!(w.closed.contains_key(&first) && !w.closed.contains_key(&again));
    // Nor does another one for long, once the first does not answer: the knock is a question, not what was said before.
    w.pass(Duration::from_millis(700));
    w.say(again, Ping { nonce: 9 });
    w.frozen.insert(again);
    let early = begin(&mut w, 2);
    assert!(is_asked(&mut w, again));
    w.pass(Duration::from_millis(1300));
    let early_too = begin(&mut w, 2);
    assert!(w.closed.contains_key(&early) && w.closed.contains_key(&early_too));
    w.pass(Duration::from_millis(100));
    assert!(!w.closed.contains_key(&again));
    let second = begin(&mut w, 2);
    assert!(w.closed.contains_key(&again) && !w.closed.contains_key(&second));
    // Who is known to be away is not asked again.
    w.frozen.insert(second);
    w.pass(Duration::from_secs(1));
    let refused = begin(&mut w, 3);
    w.pass(Duration::from_secs(30));
    let third = begin(&mut w, 3);
    assert!(
        w.closed.contains_key(&refused) && w.closed.contains_key(&second) && !w.closed.contains_key(&third)
    );
}

#[test]
fn too_many_messages_cost_a_wait_and_then_the_session() {
    let mut w = World::with(|c| {
        c.quotas.message_burst = 10.0;
        c.quotas.messages_per_second = 1.0;
    });
    let conn = w.peer(2);
    for nonce in 0..10 {
        w.say(conn, Ping { nonce });
    }
    assert!(w.error(conn).is_none());
    w.say(conn, Ping { nonce: 10 });
    let e = w.error(conn).unwrap();
    assert_eq!((e.code, e.retry), (ErrorCode::QUOTA, Some(1000)));
    w.pass(Duration::from_secs(2));
    w.say(conn, Ping { nonce: 11 });
    assert!(matches!(w.heard(conn).as_slice(), [ToPeer::Pong(_)]));
    for nonce in 0..100 {
        w.say(conn, Ping { nonce });
    }
    assert!(w.closed.contains_key(&conn));
    assert!(w.swarm.totals().refused >= 30);
}

/// One who is not within its share is refused; its neighbours, who are, are not.
#[test]
fn a_flood_of_messages_does_not_silence_neighbours() {
    let mut w = World::with(|c| c.quotas.prefix_messages_per_second = 20.0);
    let (loud, modest) = (w.peer(2), w.peer(3));
    for second in 0..60 {
        for nonce in 0..50 {
            w.say(loud, Ping { nonce });
        }
        w.say(modest, Ping { nonce: second });
        let heard = w.heard(modest);
        assert!(matches!(heard.as_slice(), [ToPeer::Pong(_)]), "in second {second}: {heard:?}");
        w.pass(Duration::from_secs(1));
    }
    assert!(w.swarm.totals().refused > 500);
}

#[test]
fn who_has_sent_comes_before_who_has_not() {
    let mut w = World::with(|c| c.quotas.sessions_per_prefix = 2);
    let p = w.peer(1);
    w.publish(p, &media(&identity(1), "film", 1, 64, 4000));
    let joined = w.peer(2);
    w.join(joined, "film", icet::message::Intent::Whole);
    w.pass(Duration::from_secs(3));
    let c = w.connect(&identity(3), "10.0.0.3:1");
    assert!(w.closed.contains_key(&c), "both are in a swarm");
    let c = w.connect_known(&identity(4), "10.0.0.4:1", Contribution { sent: 1, received: 0 });
    assert!(!w.closed.contains_key(&c));
    assert_eq!(w.closed.contains_key(&p) as u8 + w.closed.contains_key(&joined) as u8, 1);
}

#[test]
fn one_network_cannot_take_all_sessions() {
    let mut w = World::with(|c| c.quotas.sessions_per_prefix = 2);
    let a = w.peer(2);
    let b = w.peer(3);
    let c = w.connect(&identity(4), "10.0.0.4:1");
    assert!(w.closed.contains_key(&c) && !w.closed.contains_key(&a) && !w.closed.contains_key(&b));
    assert!(w.error(c).is_some_and(|e| e.code == ErrorCode::QUOTA && e.retry.is_some()));
    w.disconnect(c);
    w.disconnect(a);
    let d = w.peer(5);
    assert!(!w.closed.contains_key(&d));
    // Who is in no swarm and never sent anything makes room, once it had the time to join one.
    w.pass(Duration::from_secs(3));
    let e = w.peer(6);
    assert!(!w.closed.contains_key(&e) && w.closed.contains_key(&b));
    assert!(w.error(b).is_some_and(|e| e.code == ErrorCode::QUOTA && e.retry.is_some()));
    assert!(!w.closed.contains_key(&d), "one is enough");
    // Loopback is not a network of strangers.
    for n in 6..10 {
        let e = w.connect(&identity(n), "127.0.0.1:1");
        assert!(!w.closed.contains_key(&e));
    }
}

#[test]
fn addresses_are_dialed_back_before_they_count() {
    let mut w = World::new();
    w.reachable = false;
    let conn = w.connect(&identity(2), "198.51.100.2:999");
    // Unspecified means "as you see me"; one address twice is one address.
    w.say(
        conn,
        hello(vec![
            tcp("0.0.0.0:4000"),
            tcp("198.51.100.2:4000"),
            tcp("127.0.0.1:4000"),
            tcp("224.0.0.1:4000"),
        ]),
    );
    let dials = std::mem::take(&mut w.dials);
    assert_eq!(dials.iter().map(|d| d.1).collect::<Vec<_>>(), [tcp("198.51.100.2:4000")]);
    assert_eq!(dials[0].2, identity(2).key());
    let refused: Vec<_> = results(&mut w, conn).into_iter().map(|r| (r.addr, r.proved)).collect();
    assert_eq!(refused, [(tcp("127.0.0.1:4000"), false), (tcp("224.0.0.1:4000"), false)]);
    assert!(!w.swarm.peers(0, 1)[0].reach.iter().any(|r| r.1 == Some(true)));

    w.swarm.handle_dialed(w.now, dials[0].0, Ok(()));
    w.drain();
    assert!(results(&mut w, conn).iter().all(|r| r.proved));
    assert_eq!(w.swarm.peers(0, 1)[0].reach[0], (tcp("198.51.100.2:4000"), Some(true)));
    // A dial that nobody ordered, or one that was answered before, changes nothing.
    w.swarm.handle_dialed(w.now, dials[0].0, Err("late".into()));
    assert_eq!(w.swarm.peers(0, 1)[0].reach[0].1, Some(true));
}

#[test]
fn a_failed_dial_is_not_repeated_soon() {
    let mut w = World::new();
    w.reachable = false;
    let conn = w.connect(&identity(2), "198.51.100.2:999");
    let reach = vec![tcp("198.51.100.2:4000")];
    w.say(conn, hello(reach.clone()));
    let (id, ..) = w.dials.pop().unwrap();
    w.swarm.handle_dialed(w.now, id, Err("nobody there".into()));
    w.drain();
    let r = results(&mut w, conn);
    assert_eq!((r[0].proved, r[0].why.as_str()), (false, "nobody there"));
    w.say(conn, Reach { reach: reach.clone() });
    assert!(w.dials.is_empty());
    assert!(!results(&mut w, conn)[0].proved);
    w.pass(Duration::from_secs(600));
    assert!(w.dials.is_empty(), "only a new announcement makes it try again");
    w.say(conn, Reach { reach });
    assert_eq!(w.dials.len(), 1);
}

#[test]
fn nobody_can_be_aimed_at_often() {
    let mut w = World::with(|c| c.quotas.dials_per_ip_per_minute = 3.0);
    w.reachable = false;
    // Many keys announce one victim.
    for n in 1..=20 {
        let conn = w.connect(&identity(n), &format!("198.51.100.{n}:999"));
        w.say(conn, hello((0..10).map(|p| tcp(&format!("203.0.113.9:{}", 4000 + p))).collect()));
    }
    assert_eq!(w.dials.len(), 3);
    w.pass(Duration::from_secs(60));
    assert!(w.dials.len() <= 7, "{}", w.dials.len());
}

fn results(w: &mut World, conn: super::super::ConnId) -> Vec<ReachResult> {
    let heard = w.heard(conn).into_iter();
    heard.filter_map(|m| if let ToPeer::ReachResult(r) = m { Some(r) } else { None }).collect()
}

#[test]
fn nothing_is_left_of_peers_that_are_gone() {
    let mut w = World::new();
    for n in 2..50 {
        let conn = w.peer(n);
        w.disconnect(conn);
    }
    w.pass(Duration::from_secs(200));
    assert!(w.swarm.board.peers.is_empty() && w.swarm.board.keys.is_empty() && w.swarm.sessions.is_empty());
    assert_eq!(w.swarm.by_address.len(), 0);
    assert!(w.now > Now::ZERO && w.swarm.dials.is_empty());
}
