//! Players: what is urgent, seeks, how far ahead.

use std::time::Duration;

use icet::PageRanges;
use icet::message::{Assignment, Focus, Intent, Join, Need, Position, ToPeer};

use super::super::ConnId;
use super::fixture::{identity, media};
use super::world::{World, focus, join};

const PAGES: u64 = 20_000;

/// 20,000 pages of 4000 bytes and 100 ms: 40 KB/s, 80 MB.
fn film(w: &mut World) -> icet::MediaId {
    let p = w.peer(1);
    let m = media(&identity(1), "film", 1, PAGES, 4000);
    w.publish(p, &m);
    m.0.id()
}

fn covers(all: &[Assignment], page: u64) -> Option<&Assignment> {
    all.iter().find(|a| a.pages.has(page))
}

/// Executes everything that comes, in the order in which a peer would, until nothing comes any more.
fn play_on(w: &mut World, r: ConnId, mut queue: Vec<Assignment>, most: usize) -> Vec<Assignment> {
    let mut done = Vec::new();
    while !queue.is_empty() && done.len() < most {
        queue.sort_by_key(|a| (a.need, a.deadline, a.id));
        let a = queue.remove(0);
        w.pass(Duration::from_millis(10));
        w.done(r, &a);
        done.push(a);
        queue.extend(w.assigned(r));
    }
    done
}

#[test]
fn first_sound_first() {
    let mut w = World::new();
    film(&mut w);
    let r = w.peer(2);
    w.say(r, Join { at: Some(Position::Page(5000)), ..join("film", Intent::Play) });
    let got = w.assigned(r);
    // Setup, the playhead and the tail are urgent; the playhead's first assignment is small.
    for page in [0, 1, 5000, PAGES - 1] {
        assert_eq!(covers(&got, page).map(|a| a.need), Some(Need::Urgent), "page {page}");
    }
    let first = covers(&got, 5000).unwrap();
    assert!(first.pages.count(u64::MAX) <= 4 && first.deadline.is_some());
    let deadline = |p| covers(&got, p).and_then(|a| a.deadline).unwrap();
    assert!(deadline(5000) <= deadline(5010) && deadline(5010) <= deadline(5030));
}

#[test]
fn a_player_is_kept_ahead_but_not_given_everything() {
    let mut w = World::new();
    let id = film(&mut w);
    let r = w.peer(2);
    w.join(r, "film", Intent::Play);
    let first = w.assigned(r);
    let done = play_on(&mut w, r, first, 3000);
    let held: u64 = done.iter().map(|a| a.pages.count(u64::MAX)).sum();
    // 30 s ahead of 4 s, and the tail: not 2000 s. (A little is spare, while the origin has nothing else to do.)
    let bulk: u64 = done.iter().filter(|a| a.need != Need::Spare).map(|a| a.pages.count(u64::MAX)).sum();
    assert!((340..700).contains(&bulk), "{bulk} pages of {held}");
    for p in 0..340 {
        assert!(covers(&done, p).is_some(), "page {p} is within 34 s of the playhead");
    }
    // The playhead moves: more comes.
    w.say(r, focus(id, 500, 160_000));
    assert!(w.assigned(r).iter().any(|a| a.pages.first >= 340 && a.pages.first < 1000));
}

#[test]
fn a_seek_drops_what_is_stale_and_comes_first() {
    let mut w = World::new();
    let id = film(&mut w);
    let r = w.peer(2);
    w.join(r, "film", Intent::Play);
    let before = w.assigned(r);
    assert!(before.len() > 3);
    w.say(r, focus(id, 12_000, 160_000));
    let heard = w.heard(r);
    let cancelled: Vec<u64> = heard
        .iter()
        .filter_map(|m| if let ToPeer::Cancel(c) = m { Some(c.assignments.clone()) } else { None })
        .flatten()
        .collect();
    let stale = before.iter().filter(|a| (200..10_000).contains(&a.pages.first));
    assert!(stale.clone().all(|a| cancelled.contains(&a.id)));
    assert!(!cancelled.contains(&covers(&before, PAGES - 1).unwrap().id), "the tail is wanted still");
    let after: Vec<Assignment> = heard
        .into_iter()
        .flat_map(|m| if let ToPeer::Assign(a) = m { a.assignments } else { Vec::new() })
        .collect();
    assert_eq!(covers(&after, 12_000).map(|a| a.need), Some(Need::Urgent));
    assert!(covers(&after, 12_039).is_some(), "all of the urgent window is ordered");
}

#[test]
fn a_focus_in_bytes_or_time_finds_its_page() {
    let mut w = World::new();
    let id = film(&mut w);
    let r = w.peer(2);
    w.join(r, "film", Intent::Whole);
    w.heard(r);
    for (at, page) in [(Position::Byte(4000 * 9000 + 17), 9000), (Position::Time(1_500_000_000), 15_000)] {
        w.say(r, Focus { media: id, at, rate: Some(50_000), urgent: 100_000, intent: Intent::Whole });
        let got = w.assigned(r);
        assert_eq!(covers(&got, page).map(|a| a.need), Some(Need::Urgent), "{at:?}");
    }
}

#[test]
fn share_wants_nothing() {
    let mut w = World::new();
    let id = film(&mut w);
    let r = w.peer(2);
    w.say(r, Join { version: 1, have: PageRanges::one(0, 63), ..join("film", Intent::Share) });
    assert!(w.assigned(r).is_empty());
    w.join(r, "film", Intent::Whole);
    assert!(!w.assigned(r).is_empty());
    w.say(r, Focus { intent: Intent::Share, ..focus(id, 0, 0) });
    let heard = w.heard(r);
    assert!(heard.iter().any(|m| matches!(m, ToPeer::Cancel(_))));
    assert!(!heard.iter().any(|m| matches!(m, ToPeer::Assign(_))));
    assert_eq!(w.swarm.totals().running, 0);
}

#[test]
fn a_slow_host_does_not_hold_up_a_playhead() {
    let mut w = World::new();
    film(&mut w);
    let (slow, r) = (w.peer(2), w.peer(3));
    w.say(slow, Join { version: 1, have: PageRanges::one(0, PAGES - 1), ..join("film", Intent::Share) });
    w.join(r, "film", Intent::Play);
    let first = w.assigned(r);
    let late = covers(&first, 0).unwrap().clone();
    // All others work; this one does not move. Before long somebody else is asked for its pages too.
    for a in first.iter().filter(|a| a.id != late.id) {
        w.done(r, a);
    }
    let mut hedged = false;
    for _ in 0..20 {
        w.pass(Duration::from_millis(100));
        for a in w.assigned(r) {
            hedged |= a.pages.has(late.pages.first) && a.source.host.key != late.source.host.key;
            w.done(r, &a);
        }
    }
    assert!(hedged, "nobody else was asked within 2 s");
}
