//! The operator's rules: what they forbid, what peers hear, and that they last.

use icet::message::{ErrorCode, Intent, Publish, ToPeer};
use icet::{Identity, SignedManifest};

use super::super::rules::{Limits, Operation, OperationError, Rules};
use super::super::{ConnId, Store};
use super::fixture::{identity, media};
use super::world::World;

fn operate(w: &mut World, operation: Operation) -> Result<(), OperationError> {
    let result = w.swarm.handle_operation(w.now, w.wall(), operation);
    w.drain();
    result
}

fn publish(w: &mut World, conn: ConnId, who: &Identity, path: &str) -> Result<(), (ErrorCode, String)> {
    let (manifest, _): (SignedManifest, _) = media(who, path, 1, 70, 4000);
    w.heard(conn);
    w.say(conn, Publish { request: 9, manifest: manifest.signed().clone(), slices: Vec::new() });
    match w.error(conn) {
        Some(e) => {
            assert_eq!(e.request, Some(9), "{e:?}");
            Err((e.code, e.text))
        }
        None => Ok(()),
    }
}

fn stored(w: &World) -> Rules {
    let rules = |s: &Store| if let Store::Rules(r) = s { Some(r.clone()) } else { None };
    w.stores.iter().rev().find_map(rules).unwrap()
}

#[test]
fn a_banned_key_is_out_and_stays_out() {
    let mut w = World::new();
    let (bad, good) = (w.peer(1), w.peer(2));
    publish(&mut w, bad, &identity(1), "bad").unwrap();
    publish(&mut w, good, &identity(2), "good").unwrap();
    w.join(good, "bad", Intent::Whole);
    w.heard(good);
    operate(&mut w, Operation::Ban(identity(1).key())).unwrap();
    let heard = w.error(bad).unwrap();
    assert_eq!(heard.code, ErrorCode::FORBIDDEN);
    assert!(heard.text.contains("banned") && w.closed.contains_key(&bad));
    let by_operator = |m: &ToPeer| matches!(m, ToPeer::Withdrawn(w) if w.operator == Some(true));
    assert!(w.heard(good).iter().any(by_operator), "members are told, and by whom");
    w.join(good, "bad", Intent::Whole);
    assert!(w.error(good).unwrap().text.contains("has banned its publisher"));
    assert!(
        w.swarm.find(&"bad".parse().unwrap()).is_none() && w.swarm.find(&"good".parse().unwrap()).is_some()
    );
    w.disconnect(bad);
    let again = w.connect(&identity(1), "10.0.0.1:4000");
    assert_eq!(w.error(again).map(|e| e.code), Some(ErrorCode::FORBIDDEN));
    assert!(w.closed.contains_key(&again));
    w.disconnect(again);
    // The catalogue keeps it.
    let rules = stored(&w);
    let bytes = icet::frame::encode(&rules);
    let mut next = World::new();
    next.swarm.restore_rules(icet::frame::decode(&bytes).unwrap());
    let conn = next.connect(&identity(1), "10.0.0.1:4000");
    assert!(next.closed.contains_key(&conn));
    // Lifted, it may come and publish again.
    operate(&mut w, Operation::Lift(identity(1).key())).unwrap();
    assert_eq!(operate(&mut w, Operation::Lift(identity(1).key())), Err(OperationError::NotBanned));
    let back = w.peer(1);
    publish(&mut w, back, &identity(1), "bad").unwrap();
}

#[test]
fn only_listed_keys_publish_where_that_is_ruled() {
    let mut w = World::new();
    let (a, b) = (w.peer(1), w.peer(2));
    publish(&mut w, a, &identity(1), "before").unwrap();
    let only = |publishers| Operation::Publishers { listed_only: true, publishers };
    operate(&mut w, only(vec![identity(2).key(), identity(2).key()])).unwrap();
    assert_eq!(w.swarm.rules().publishers.len(), 1);
    let (code, text) = publish(&mut w, a, &identity(1), "after").unwrap_err();
    assert!(code == ErrorCode::FORBIDDEN && text.contains(&identity(1).key().to_string()), "{text}");
    assert!(w.swarm.find(&"before".parse().unwrap()).is_some(), "what is there stays");
    publish(&mut w, b, &identity(2), "after").unwrap();
    operate(&mut w, Operation::Publishers { listed_only: false, publishers: Vec::new() }).unwrap();
    publish(&mut w, a, &identity(1), "at last").unwrap();
    let many = vec![identity(1).key(); 10_001];
    assert_eq!(operate(&mut w, only(many)), Err(OperationError::TooMany));
}

#[test]
fn what_is_withdrawn_does_not_come_back_by_itself() {
    let mut w = World::new();
    let a = w.peer(1);
    publish(&mut w, a, &identity(1), "film").unwrap();
    let path = || "film".parse().unwrap();
    operate(&mut w, Operation::Withdraw(path())).unwrap();
    assert!(w.swarm.find(&path()).is_none());
    assert_eq!(operate(&mut w, Operation::Withdraw(path())), Err(OperationError::NoMedia));
    let (code, text) = publish(&mut w, a, &identity(1), "film").unwrap_err();
    assert!(code == ErrorCode::FORBIDDEN && text.contains("withdrawn film"), "{text}");
    operate(&mut w, Operation::Allow(path())).unwrap();
    publish(&mut w, a, &identity(1), "film").unwrap();
}

#[test]
fn limits_hold_at_once_and_can_be_taken_back() {
    let mut w = World::new();
    let a = w.peer(1);
    let limit = |n| Operation::Limits(Limits { media_per_key: n, ..Limits::default() });
    operate(&mut w, limit(Some(1))).unwrap();
    publish(&mut w, a, &identity(1), "one").unwrap();
    assert_eq!(publish(&mut w, a, &identity(1), "two").unwrap_err().0, ErrorCode::QUOTA);
    operate(&mut w, limit(None)).unwrap();
    publish(&mut w, a, &identity(1), "two").unwrap();
    let zero = Operation::Limits(Limits { sessions: Some(0), ..Limits::default() });
    assert_eq!(operate(&mut w, zero), Err(OperationError::Zero));
}
