//! What is told of protocols, and what of it is written down.

use std::time::Duration;

use icet::message::{Intent, Need};

use super::super::{Nearness, Store};
use super::fixture::{identity, media};
use super::world::{World, focus};

#[test]
fn what_is_told_of_a_protocol_is_what_happened() {
    let mut w = World::new();
    let p = w.peer(1);
    let m = media(&identity(1), "film", 1, 700, 4000);
    w.publish(p, &m);
    let r = w.peer(2);
    w.join(r, "film", Intent::Play);
    w.say(r, focus(m.0.id(), 300, 100_000));
    let urgent =
        |w: &mut World| -> Vec<_> { w.assigned(r).into_iter().filter(|a| a.need == Need::Urgent).collect() };
    let first = urgent(&mut w);
    assert!(!first.is_empty());
    first.iter().for_each(|a| w.done(r, a));
    let told = |w: &World| w.swarm.protocols().remove(0);
    let t = told(&w);
    // Some are taken back, when others bring their pages sooner: these say nothing.
    assert!((1..=first.len() as u64).contains(&t.deadlines) && t.missed == 0, "{t:?}");
    let met = t.deadlines;
    assert!((t.share - 1.0).abs() < 1e-9 && t.samples > 0.9, "{t:?}");
    assert_eq!(t.near.len(), 1);
    assert_eq!(t.near[0].near, Nearness::Network);
    // And then nothing of what was ordered comes in time.
    w.say(r, focus(m.0.id(), 500, 100_000));
    let rest = urgent(&mut w);
    assert!(!rest.is_empty());
    w.pass(Duration::from_secs(120));
    let t = told(&w);
    assert!(t.missed > 0 && t.deadlines == met + t.missed, "{t:?}");
    // What was learned is written down, and no more often than need be.
    let stored = |w: &World| w.stores.iter().filter(|s| matches!(s, Store::Protocol(_))).count();
    let n = stored(&w);
    assert!((1..=25).contains(&n), "{n}");
    w.disconnect(r);
    w.pass(Duration::from_secs(120));
    let n = stored(&w);
    w.pass(Duration::from_secs(120));
    assert_eq!(stored(&w), n, "nothing new was learned");
}
