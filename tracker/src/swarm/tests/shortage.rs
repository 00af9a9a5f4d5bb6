//! What a receiver is told that nothing can be ordered for.

use std::time::Duration;

use icet::message::{Allow, Hello, Intent, Outcome, Report, Shortage, ToPeer};
use icet::{NetAddr, PageRanges};

use super::super::{ConnId, Reason, Verdict};
use super::fixture::{identity, media};
use super::world::{World, focus, have, hello, join, offer, report, tcp};

/// Somebody at `10.0.0.n:4000` with these protocols, whose address the tracker reaches or not.
fn peer(w: &mut World, n: u8, protocols: &[&str], reachable: bool) -> ConnId {
    let at = format!("10.0.0.{n}:4000");
    let conn = w.connect(&identity(n), &at);
    let reach: Vec<NetAddr> = if reachable { vec![tcp(&at)] } else { Vec::new() };
    let offers = protocols.iter().map(|p| offer(p)).collect();
    w.say(conn, Hello { offers, ..hello(reach) });
    conn
}

fn told(w: &mut World, conn: ConnId) -> Vec<Shortage> {
    let shortages = |m| if let ToPeer::Assign(a) = m { a.shortages } else { None };
    w.heard(conn).into_iter().filter_map(shortages).flatten().collect()
}

fn counts(s: &Shortage) -> (u32, u32, u32, u32, String) {
    let names: Vec<_> = s.protocols.iter().map(ToString::to_string).collect();
    (s.hosts, s.unshared, s.unreachable, s.failed, names.join(","))
}

#[test]
fn a_receiver_is_told_what_keeps_hosts_from_it() {
    let mut w = World::new();
    let film = media(&identity(1), "film", 1, 256, 4000);
    let p = peer(&mut w, 1, &["udp"], true);
    w.publish(p, &film);
    let all = |r| icet::message::Join { version: 1, have: PageRanges::one(0, 255), ..r };
    let both = peer(&mut w, 2, &["udp", "quic"], true);
    w.say(both, all(join("film", Intent::Share)));
    let hidden = peer(&mut w, 3, &["http"], false);
    w.say(hidden, all(join("film", Intent::Share)));
    // Without a page it is nobody's host.
    let other = peer(&mut w, 4, &["http"], true);
    w.join(other, "film", Intent::Share);
    let r = peer(&mut w, 9, &["http"], true);
    w.join(r, "film", Intent::Whole);
    assert!(told(&mut w, r).is_empty(), "not before it is sure");
    w.pass(Duration::from_secs(2));
    let first = told(&mut w, r);
    assert_eq!(first.iter().map(counts).collect::<Vec<_>>(), [(3, 2, 1, 0, "quic,udp".to_owned())]);
    assert_eq!(first[0].media, film.0.id());
    w.pass(Duration::from_secs(30));
    assert!(told(&mut w, r).is_empty(), "once is enough");
    // Of what changes it hears, and that nobody is left.
    w.disconnect(hidden);
    w.disconnect(both);
    w.pass(Duration::from_secs(3));
    assert_eq!(told(&mut w, r).iter().map(counts).collect::<Vec<_>>(), [(1, 1, 0, 0, "udp".to_owned())]);
    w.disconnect(p);
    w.pass(Duration::from_secs(3));
    assert_eq!(told(&mut w, r).iter().map(counts).collect::<Vec<_>>(), [(0, 0, 0, 0, String::new())]);
    // Somebody who fits ends it: what is ordered says so by itself, and the end is told anew.
    let good = peer(&mut w, 5, &["http"], true);
    w.say(good, all(join("film", Intent::Share)));
    w.pass(Duration::from_secs(1));
    let heard = w.assigned(r);
    assert!(!heard.is_empty());
    w.disconnect(good);
    for a in heard {
        w.say(r, report(&a, Outcome::Unreachable));
    }
    w.pass(Duration::from_secs(3));
    assert_eq!(told(&mut w, r).len(), 1);
}

#[test]
fn a_host_that_failed_and_one_that_is_busy_are_told_apart() {
    let mut w = World::new();
    let p = w.peer(1);
    w.publish(p, &media(&identity(1), "film", 1, 256, 4000));
    let r = w.peer(2);
    w.join(r, "film", Intent::Whole);
    let mut said = Vec::new();
    for _ in 0..20 {
        for a in w.heard(r) {
            let ToPeer::Assign(a) = a else { continue };
            said.extend(a.shortages.iter().flatten().map(counts));
            for a in a.assignments {
                w.say(r, report(&a, Outcome::Unreachable));
            }
        }
        w.pass(Duration::from_millis(500));
    }
    assert!(said.len() >= 2, "again after each time that it is tried: {said:?}");
    assert!(said.iter().all(|s| *s == (1, 0, 0, 1, String::new())), "{said:?}");
}

#[test]
fn a_player_that_has_what_it_wants_is_told_nothing() {
    let mut w = World::new();
    let p = peer(&mut w, 1, &["udp"], true);
    let film = media(&identity(1), "film", 1, 4000, 4000);
    w.publish(p, &film);
    let r = peer(&mut w, 2, &["http"], true);
    w.join(r, "film", Intent::Play);
    w.say(r, have(film.0.id(), 0, 3000));
    w.say(r, have(film.0.id(), 3900, 3999));
    w.say(r, focus(film.0.id(), 10, 64 << 10));
    w.pass(Duration::from_secs(20));
    assert!(told(&mut w, r).is_empty());
    w.say(r, focus(film.0.id(), 3500, 64 << 10));
    w.pass(Duration::from_secs(3));
    assert_eq!(told(&mut w, r).iter().map(counts).collect::<Vec<_>>(), [(1, 1, 0, 0, "udp".to_owned())]);
}

/// What is said last of an origin that does not give, and of one that is silent: to the receiver, and to who asks why.
fn of_a_host(from: &str, act: impl Fn(&mut World, ConnId, &icet::MediaId)) -> (Shortage, Reason, Verdict) {
    let mut w = World::new();
    let film = media(&identity(1), "film", 1, 256, 4000);
    let p = w.peer(1);
    w.publish(p, &film);
    act(&mut w, p, &film.0.id());
    let r = w.connect(&identity(2), from);
    w.say(r, hello(vec![tcp(from)]));
    w.join(r, "film", Intent::Whole);
    for a in w.assigned(r) {
        w.say(r, Report { bytes: 0, pages: 0, ..report(&a, Outcome::Stalled) });
    }
    w.pass(Duration::from_secs(5));
    let why = w.swarm.why(&film.0.id(), &identity(2).key().to_string(), 7).unwrap();
    (told(&mut w, r).pop().expect("a shortage"), why.reason, why.hosts[0].verdict)
}

#[test]
fn who_does_not_give_and_who_is_silent_are_not_called_busy() {
    let allow = |up, near, withheld| Allow { up, down: None, near, withheld, once: None };
    let (here, elsewhere) = ("10.0.0.2:4000", "198.51.100.2:4000");
    let nothing = (here, allow(Some(0), false, Vec::new()));
    let near = (elsewhere, allow(None, true, Vec::new()));
    for (from, m) in [nothing, near] {
        let (s, reason, verdict) = of_a_host(from, |w, p, _| w.say(p, m.clone()));
        assert_eq!((s.hosts, s.unwilling, s.silent), (1, Some(1), None), "{m:?}");
        assert_eq!((reason, verdict), (Reason::GiveNothing, Verdict::GivesNothing), "{m:?}");
    }
    let withheld = |w: &mut World, p, id: &icet::MediaId| w.say(p, allow(None, false, vec![*id]));
    let (s, reason, verdict) = of_a_host(here, withheld);
    assert_eq!((s.hosts, s.unwilling, s.silent), (1, Some(1), None));
    assert_eq!((reason, verdict), (Reason::GiveNothing, Verdict::GivesNothing));
    let (s, reason, verdict) = of_a_host(here, |w, p, _| assert!(w.frozen.insert(p)));
    assert_eq!((s.hosts, s.unwilling, s.silent), (1, None, Some(1)));
    assert_eq!((reason, verdict), (Reason::HostsSilent, Verdict::Silent));
}

/// A host and who fetched from it are both gone without a word: who comes then is not told for long that the host is busy.
#[test]
fn a_host_that_is_gone_is_not_called_busy() {
    let mut w = World::new();
    let film = media(&identity(1), "film", 1, 20_000, 4000);
    let p = peer(&mut w, 1, &["http"], true);
    w.publish(p, &film);
    let gone = peer(&mut w, 2, &["http"], true);
    w.join(gone, "film", Intent::Whole);
    assert!(!w.assigned(gone).is_empty());
    w.pass(Duration::from_secs(1));
    w.frozen.extend([p, gone]);
    // All the room that the host has is taken by then.
    let before = w.swarm.totals().running;
    let r = peer(&mut w, 9, &["http"], true);
    w.join(r, "film", Intent::Whole);
    let mut heard = Vec::new();
    for _ in 0..50 {
        w.pass(Duration::from_millis(100));
        w.say(r, icet::message::Ping { nonce: 1 });
        for s in told(&mut w, r) {
            heard.push((s.hosts, s.failed, s.silent));
        }
    }
    assert!(before > 0);
    assert_eq!(heard.last(), Some(&(1, 0, Some(1))), "{heard:?}");
}
