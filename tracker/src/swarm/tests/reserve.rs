//! The reserve: whom it names, and what its tickets say.

use std::time::Duration;

use icet::message::{Assignment, Hello, Intent, Need, ToPeer};
use icet::ticket::TicketBody;
use icet::{Limits, Offer, PageSet, PeerKey, TicketKey};

use super::super::ConnId;
use super::fixture::{identity, media};
use super::world::{SECRET, World, focus, hello, offer, tcp};

/// What `conn` was given in reserve last.
fn reserve(w: &mut World, conn: ConnId) -> Vec<Assignment> {
    let of_reserve = |m| if let ToPeer::Reserve(r) = m { Some(r.assignments) } else { None };
    w.heard(conn).into_iter().filter_map(of_reserve).next_back().unwrap_or_default()
}

fn ticket(host: u8, a: &Assignment) -> TicketBody {
    TicketKey::derive(&SECRET, &identity(host).key()).check(&a.source.ticket).unwrap()
}

#[test]
fn who_fetches_has_hosts_of_everything_in_reserve() {
    let mut w = World::new();
    let p = w.peer(1);
    w.publish(p, &media(&identity(1), "film", 1, 700, 4000));
    // One holds everything, one a part.
    let (seed, part) = (w.peer(2), w.peer(3));
    w.join(seed, "film", Intent::Whole);
    let mut queue = w.assigned(seed);
    while let Some(a) = queue.pop() {
        w.done(seed, &a);
        queue.extend(w.assigned(seed));
    }
    w.join(part, "film", Intent::Whole);
    let r = w.peer(4);
    w.join(r, "film", Intent::Whole);
    let first = reserve(&mut w, r);
    let hosts: Vec<_> = first.iter().map(|a| a.source.host.key).collect();
    assert_eq!(hosts, [identity(2).key(), identity(1).key()], "the publisher last");
    for (host, a) in [2, 1].into_iter().zip(&first) {
        assert_eq!((a.need, a.pages, a.stand_ins.len()), (Need::Reserve, PageSet::range(0, 699), 0));
        let body = ticket(host, a);
        assert_eq!((body.need, body.assignment, body.pages), (Need::Reserve, a.id, a.pages));
        assert!(body.expiry >= w.wall() + 600_000);
        assert!(icet::frame::encode(a).len() < 400, "what it takes on the wire, and to remember");
    }
    // Renewed while it fetches, it buys no more: its numbers stay.
    let id = first[0].media;
    let mut renewed = Vec::new();
    for page in 0..150 {
        w.pass(Duration::from_secs(1));
        w.say(r, super::world::have(id, page, page));
        let new = reserve(&mut w, r);
        if !new.is_empty() {
            renewed.push(new);
        }
    }
    assert_eq!(renewed.len(), 1, "every two minutes");
    // Who of them is in it depends on chance: this receiver takes up no orders, and those from whom nothing came are left out.
    let new = &renewed[0][0];
    let host = [1, 2].into_iter().find(|n| identity(*n).key() == new.source.host.key).unwrap();
    let old = first.iter().find(|a| a.source.host.key == new.source.host.key).unwrap();
    assert_eq!(old.id, new.id);
    assert!(ticket(host, new).expiry > ticket(host, old).expiry);
    assert!(reserve(&mut w, p).is_empty() && reserve(&mut w, seed).is_empty(), "who has all needs none");
}

/// What a protocol's packets travel over may be its own affair, as that of `libp2p` is.
#[test]
fn a_host_is_in_reserve_whatever_its_protocol_dials() {
    let mut w = World::new();
    let offers = vec![Offer { dials: None, endpoint: "somewhere".into(), ..offer("own") }];
    let mut peer = |n: u8| {
        let at = format!("10.0.0.{n}:4000");
        let conn = w.connect(&identity(n), &at);
        w.say(conn, icet::message::Hello { offers: offers.clone(), ..hello(vec![tcp(&at)]) });
        conn
    };
    let (p, r) = (peer(1), peer(2));
    w.publish(p, &media(&identity(1), "film", 1, 700, 4000));
    w.join(r, "film", Intent::Whole);
    let names: Vec<_> = reserve(&mut w, r).iter().map(|a| a.source.host.protocol.to_string()).collect();
    assert_eq!(names, ["own"]);
}

/// Players of whom one can send much more than it plays, and others less than twice that: whom each has in reserve after a while.
#[test]
fn a_player_who_can_send_much_is_to_feed_others() {
    let mut w = World::new();
    let mut peer = |n: u8, up: u64| {
        let at = format!("10.0.{n}.1:4000");
        let conn = w.connect(&identity(n), &at);
        let limits = Limits { up: Some(up), down: None };
        w.say(conn, Hello { limits, ..hello(vec![tcp(&at)]) });
        conn
    };
    // They play 40 kB a second.
    let p = peer(1, 400_000);
    let players = [peer(2, 1_000_000), peer(3, 60_000), peer(4, 60_000)];
    let film = media(&identity(1), "film", 1, 20_000, 4000);
    w.publish(p, &film);
    players.iter().for_each(|r| w.join(*r, "film", Intent::Play));
    let mut named: Vec<Vec<PeerKey>> = vec![Vec::new(); players.len()];
    for second in 0..60 {
        for (r, named) in players.iter().zip(&mut named) {
            w.say(*r, focus(film.0.id(), 10 * second, 80_000));
            for m in w.heard(*r) {
                match m {
                    ToPeer::Assign(m) => m.assignments.iter().for_each(|a| w.done(*r, a)),
                    ToPeer::Reserve(m) => *named = m.assignments.iter().map(|a| a.source.host.key).collect(),
                    _ => {}
                }
            }
        }
        w.pass(Duration::from_secs(1));
    }
    let [fast, slow, other] = [2, 3, 4].map(|n| identity(n).key());
    let publisher = identity(1).key();
    assert_eq!(named[0].first(), Some(&publisher), "who feeds others turns to the publisher first");
    for (named, beside) in named[1..].iter().zip([other, slow]) {
        assert_eq!(named.last(), Some(&publisher), "the last resort of others");
        assert!(named.contains(&fast) && named.contains(&beside), "{named:?}");
    }
}
