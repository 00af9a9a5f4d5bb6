//! Explanations: what is told is what is so.

use std::time::Duration;

use icet::message::{Intent, Need, Outcome, Report, Served, ServedItem};
use icet::{Identity, Offer};

use super::super::{ConnId, Reason, Verdict, Why, WhyError};
use super::fixture::{identity, media};
use super::world::{World, hello, offer, report, tcp};

fn why(w: &World, who: &Identity, page: u64) -> Why {
    let id = w.swarm.find(&"film".parse().unwrap()).unwrap();
    w.swarm.why(&id, &who.key().to_string(), page).unwrap()
}

fn verdict(y: &Why, n: u8) -> Option<Verdict> {
    y.hosts.iter().find(|h| h.peer == identity(n).key()).map(|h| h.verdict)
}

/// A publisher, and a receiver with protocols of these names.
fn pair(names: &[&str], explain: bool) -> (World, ConnId, ConnId) {
    let mut w = World::with(|c| c.explain = explain);
    let p = w.peer(1);
    w.publish(p, &media(&identity(1), "film", 1, 700, 4000));
    let r = w.connect(&identity(2), "10.0.0.2:4000");
    let offers: Vec<Offer> = names.iter().map(|n| offer(n)).collect();
    w.say(r, icet::message::Hello { offers, ..hello(vec![tcp("10.0.0.2:4000")]) });
    w.join(r, "film", Intent::Whole);
    (w, p, r)
}

#[test]
fn an_order_is_told_with_its_host_and_what_became_of_it() {
    let (mut w, _, r) = pair(&["http"], true);
    let mut queue = w.assigned(r);
    let a = queue.remove(0);
    let y = why(&w, &identity(2), a.pages.first);
    assert_eq!((y.reason, y.kept), (Reason::Ordered, true));
    let o = &y.orders[0];
    assert_eq!((o.assignment, o.host, o.need, o.runs), (a.id, identity(1).key(), Need::Bulk, true));
    assert_eq!(o.protocol.as_ref().map(ToString::to_string).as_deref(), Some("http"));
    let d = &y.decided[0];
    assert_eq!((d.assignment, d.host, d.hosts.len()), (a.id, identity(1).key(), 1));
    assert_eq!((d.hosts[0].verdict, d.hosts[0].publisher), (Verdict::Able, true));
    w.done(r, &a);
    let y = why(&w, &identity(2), a.pages.first);
    assert_eq!((y.reason, y.orders[0].runs), (Reason::Held, false), "which brought it is told for a while");
    assert_eq!(y.orders[0].bytes.0, y.orders[0].bytes.1);
    let mut last = a;
    queue.extend(w.assigned(r));
    while !queue.is_empty() {
        last = queue.remove(0);
        w.done(r, &last);
        queue.extend(w.assigned(r));
    }
    w.pass(Duration::from_secs(60));
    let y = why(&w, &identity(2), last.pages.first);
    assert!(y.orders.is_empty() && y.decided[0].assignment == last.id, "and kept where that was asked for");
    // What the first one holds now, a third can have from it.
    let third = w.peer(3);
    w.join(third, "film", Intent::Whole);
    let y = why(&w, &identity(3), 699);
    assert_eq!(y.hosts.len(), 2);
    assert!(matches!(verdict(&y, 2), Some(Verdict::Able | Verdict::NoRoom)), "{y:?}");
}

#[test]
fn what_both_ends_said_all_of_is_put_aside_and_still_told() {
    let (mut w, p, r) = pair(&["http"], false);
    let a = w.assigned(r).remove(0);
    let bytes = a.pages.count(u64::MAX) * 4000;
    let served = |bytes| Served { items: vec![ServedItem { assignment: a.id, bytes }] };
    let known = |w: &World| w.swarm.board.runs.contains_key(&a.id);
    w.say(p, served(bytes / 2));
    w.done(r, &a);
    assert!(known(&w), "the host has not said yet that it sent the rest");
    w.say(p, served(bytes - bytes / 2));
    assert!(!known(&w));
    let sent =
        w.swarm.peers(0, 9).into_iter().find(|v| v.key == identity(1).key()).unwrap().contribution.sent;
    assert_eq!(sent, bytes, "all of it is credited");
    let y = why(&w, &identity(2), a.pages.first);
    assert_eq!((y.orders[0].assignment, y.orders[0].runs), (a.id, false));
    w.pass(Duration::from_secs(60));
    assert!(why(&w, &identity(2), a.pages.first).orders.is_empty());
}

#[test]
fn without_being_asked_nothing_is_kept() {
    let (mut w, _, r) = pair(&["http"], false);
    let a = w.assigned(r).remove(0);
    let y = why(&w, &identity(2), a.pages.first);
    assert!(y.decided.is_empty() && !y.kept && !y.orders.is_empty());
}

#[test]
fn what_stands_in_the_way_is_named() {
    let (w, ..) = pair(&["other"], false);
    let y = why(&w, &identity(2), 5);
    assert_eq!((y.reason, verdict(&y, 1)), (Reason::NoProtocol, Some(Verdict::NoProtocol)));
    assert_eq!(why(&w, &identity(1), 5).reason, Reason::Held);

    // The publisher is gone.
    let (mut w, p, _) = pair(&["http"], false);
    w.disconnect(p);
    w.pass(Duration::from_secs(30));
    assert_eq!(why(&w, &identity(2), 600).reason, Reason::NobodyHolds);

    // Its address could not be proved.
    let mut w = World::new();
    w.reachable = false;
    let p = w.peer(1);
    w.publish(p, &media(&identity(1), "film", 1, 700, 4000));
    let r = w.peer(2);
    w.join(r, "film", Intent::Whole);
    let y = why(&w, &identity(2), 5);
    assert_eq!((y.reason, verdict(&y, 1)), (Reason::NoRoute, Some(Verdict::NoRoute)));

    // It refused a moment ago.
    let (mut w, _, r) = pair(&["http"], false);
    for a in w.assigned(r) {
        w.say(r, report(&a, Outcome::Refused));
    }
    let y = why(&w, &identity(2), 5);
    assert_eq!((y.reason, verdict(&y, 1)), (Reason::Avoided, Some(Verdict::Avoided)));

    // It sent nothing: then it is left alone for a moment, and tried again.
    let (mut w, _, r) = pair(&["http"], false);
    for a in w.assigned(r) {
        w.say(r, Report { bytes: 0, pages: 0, ..report(&a, Outcome::Stalled) });
    }
    let found = |w: &World| verdict(&why(w, &identity(2), 600), 1);
    assert_eq!(found(&w), Some(Verdict::Avoided));
    w.pass(Duration::from_secs(3));
    assert_eq!(found(&w), Some(Verdict::Dark));

    // It has enough to do.
    let (mut w, _, r) = pair(&["http"], false);
    drop(w.assigned(r));
    let y = why(&w, &identity(2), 699);
    assert!(matches!(y.reason, Reason::HostsFull | Reason::ReceiverFull), "{y:?}");

    // Who only shares wants none.
    let (mut w, _, r) = pair(&["http"], false);
    w.join(r, "film", Intent::Share);
    assert_eq!(why(&w, &identity(2), 699).reason, Reason::WantsNone);
}

#[test]
fn questions_that_make_no_sense_are_refused() {
    let (w, ..) = pair(&["http"], false);
    let id = w.swarm.find(&"film".parse().unwrap()).unwrap();
    let error = |peer: &str, page| w.swarm.why(&id, peer, page).unwrap_err();
    assert_eq!(error(&identity(2).key().to_string(), 700), WhyError::NoPage(700));
    assert_eq!(error("", 1), WhyError::NoPeer);
    assert_eq!(error("nobody", 1), WhyError::NoPeer);
    assert!(w.swarm.why(&id, &identity(2).key().short(), 1).is_ok(), "some digits are enough");
}

#[test]
fn what_is_kept_is_bounded() {
    let (mut w, _, r) = pair(&["http"], true);
    let mut queue = w.assigned(r);
    let mut made = 0;
    while let Some(a) = queue.pop() {
        made += 1;
        // Given back, so that the same is ordered again and again.
        w.say(r, report(&a, Outcome::Stopped));
        w.pass(Duration::from_secs(1));
        queue.extend(w.assigned(r));
        if made > 100 {
            break;
        }
    }
    let most = (0..700).map(|page| why(&w, &identity(2), page).decided.len()).max();
    assert!(made > 100 && most <= Some(32), "{made} {most:?}");
    let id = w.swarm.find(&"film".parse().unwrap()).unwrap();
    w.say(r, icet::message::Leave { media: id });
    assert!(w.swarm.why(&id, &identity(2).key().to_string(), 1).is_err());
}
