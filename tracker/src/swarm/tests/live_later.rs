//! Who listens to live media later than the others: where it begins, from whom, and what it is to the others meanwhile.

use icet::live::{Head, SignedHead};
use icet::message::{Assignment, ErrorCode, Have, Intent, Join, Leave, Need, Outcome, Ping, ToPeer};
use icet::{PageNo, PageRanges, PageSet};

use super::super::ConnId;
use super::fixture::identity;
use super::live::{RATE, SECOND, Station, have, head_at, manifest, peer, standing};
use super::world::{join, report};

fn joins_back(s: &mut Station, n: u8, up: Option<u64>, seconds: u32) -> ConnId {
    let conn = peer(&mut s.w, n, up);
    s.w.say(conn, Join { back: Some(seconds * 1000), ..join("radio", Intent::Play) });
    conn
}

/// Heads that somebody heard, and orders.
fn heard(s: &mut Station, conn: ConnId) -> (Vec<Head>, Vec<Assignment>) {
    let (mut heads, mut orders) = (Vec::new(), Vec::new());
    for m in s.w.heard(conn) {
        match m {
            ToPeer::Head(h) => {
                heads.push((*SignedHead::verify(h.head, manifest(1).manifest()).unwrap()).clone());
            }
            ToPeer::Assign(a) => orders.extend(a.assignments),
            _ => {}
        }
    }
    (heads, orders)
}

fn near(page: PageNo, second: u64) -> bool {
    let right = head_at(second).next;
    (right.saturating_sub(3 * RATE.0)..=right).contains(&page)
}

#[test]
fn who_wants_what_was_on_begins_there_at_somebody_who_keeps_it() {
    let mut s = Station::new();
    let first = s.joins(2, None);
    let mut listeners = vec![(first, standing(&s.w.assigned(first)).0)];
    s.goes_on(60, &mut listeners);
    let second = s.joins(3, None);
    listeners.push((second, standing(&s.w.assigned(second)).0));
    s.goes_on(120, &mut listeners);
    let conn = joins_back(&mut s, 4, None, 150);
    let (heads, orders) = heard(&mut s, conn);
    assert!(heads.iter().all(|h| h.next == head_at(s.second).next), "one link, one head");
    let [setup, steady] = orders.as_slice() else { panic!("{orders:?}") };
    assert_eq!((setup.pages, setup.need), (PageSet::range(0, 1), Need::Urgent));
    assert_eq!((steady.pages.last, steady.need), (None, Need::Steady));
    assert!(near(steady.pages.first, s.second - 149), "{} at {}", steady.pages.first, s.second);
    assert_eq!(
        steady.source.host.key,
        identity(2).key(),
        "who came later does not have it, and the source has enough to do"
    );
    // Nearer than what is kept by the others: any of them.
    let conn = joins_back(&mut s, 5, None, 30);
    let (_, orders) = heard(&mut s, conn);
    assert!(near(orders[1].pages.first, s.second - 29));
    assert_ne!(orders[1].source.host.key, identity(1).key());
}

#[test]
fn who_catches_up_has_nothing_for_the_others_until_it_has() {
    let mut s = Station::new();
    s.goes_on(200, &mut []);
    let late = joins_back(&mut s, 2, None, 180);
    let (run, _) = standing(&s.w.assigned(late));
    // It is on its way, and takes one of the source's places.
    let on_its_way = head_at(s.second - 100).next;
    s.w.say(late, have(s.media, run, on_its_way));
    let mut listeners = Vec::new();
    for n in 3..6 {
        let conn = s.joins(n, Some(0));
        let (run, host) = standing(&s.w.assigned(conn));
        assert_eq!(host, identity(1).key());
        listeners.push((conn, run));
    }
    let waits = s.joins(6, Some(0));
    let is_placed = |s: &mut Station| s.w.assigned(waits).iter().any(|a| a.need == Need::Steady);
    for _ in 0..5 {
        s.goes_on(1, &mut listeners);
        s.w.say(late, have(s.media, run, on_its_way + s.second));
        assert!(!is_placed(&mut s), "at somebody who does not have it yet, or at a source that is full");
    }
    listeners.push((late, run));
    s.goes_on(2, &mut listeners);
    assert_eq!(standing(&s.w.assigned(waits)).1, identity(2).key());
}

#[test]
fn the_setup_is_that_of_the_link_that_was_on_then() {
    let mut s = Station::new();
    s.goes_on(60, &mut []);
    // The next link begins; its first two pages are setup.
    let link = head_at(s.second);
    for _ in 0..60 {
        s.second += 1;
        let plain = head_at(s.second);
        let head = Head {
            link: link.next,
            link_offset: link.offset,
            link_time: link.time,
            key: (plain.next - 1).max(link.next + 2),
            ..plain
        };
        let signed = SignedHead::sign(head, &identity(1)).unwrap();
        s.tells(&signed);
        s.w.pass(SECOND);
    }
    let conn = joins_back(&mut s, 2, None, 90);
    let (heads, orders) = heard(&mut s, conn);
    let links: Vec<_> = heads.iter().map(|h| h.link).collect();
    assert_eq!(links[links.len() - 2..], [0, link.next], "that of the old link comes before the last one");
    assert_eq!(orders[0].pages, PageSet::range(0, 1));
    assert!(near(orders[1].pages.first, s.second - 89));
    // Within the setup of the next link nobody begins.
    let conn = joins_back(&mut s, 3, None, 60);
    let (heads, orders) = heard(&mut s, conn);
    assert_eq!(heads.last().map(|h| h.link), Some(link.next));
    let first = orders[1].pages.first;
    assert!(first < link.next || first >= link.next + 2, "{first}");
    assert!(
        near(first, s.second - 59) || (link.next + 2..link.next + 2 + RATE.0).contains(&first),
        "{first}"
    );
}

/// Heads as somebody hears them who joins late: the last media time that it is told to begin at.
fn begins_at(s: &mut Station, conn: ConnId) -> (i64, PageNo) {
    let heard = s.w.heard(conn);
    let time = heard.iter().rev().find_map(|m| if let ToPeer::Head(h) = m { h.time } else { None });
    let first = heard.iter().find_map(|m| match m {
        ToPeer::Assign(a) => a.assignments.iter().find(|a| a.need == Need::Steady).map(|a| a.pages.first),
        _ => None,
    });
    (time.expect("a media time"), first.expect("an order"))
}

#[test]
fn what_was_on_is_told_by_the_clock_though_the_source_paused() {
    let mut s = Station::new();
    s.goes_on(100, &mut []);
    // It says each second that there is nothing new.
    for _ in 0..60 {
        s.tells(&signed(s.second, 0));
        s.w.pass(SECOND);
    }
    let second = s.second;
    s.goes_on(30, &mut []);
    for (ago, was) in [(20, second + 10), (60, second), (85, second), (110, second - 20), (150, second - 60)]
    {
        let n = u8::try_from(ago).unwrap();
        let conn = joins_back(&mut s, n, None, ago);
        let (time, first) = begins_at(&mut s, conn);
        let wanted = i64::try_from(was).unwrap() * 1_000_000;
        assert!(
            (wanted - 1_500_000..=wanted + 1_500_000).contains(&time),
            "{time} {ago} s ago, not {wanted}"
        );
        assert!(near(first, was + 1), "{first} {ago} s ago, not {}", head_at(was).next);
        s.w.say(conn, Leave { media: s.media });
    }
    // While it pauses, too.
    for _ in 0..40 {
        s.tells(&signed(s.second, 0));
        s.w.pass(SECOND);
    }
    let conn = joins_back(&mut s, 200, None, 60);
    let (_, first) = begins_at(&mut s, conn);
    assert!(near(first, second + 10 + 1), "{first}");
}

#[test]
fn a_source_that_is_ahead_of_the_clock_was_on_in_time_for_what_came_last() {
    let mut s = Station::new();
    s.second += 120;
    s.goes_on(3, &mut []);
    let conn = joins_back(&mut s, 2, None, 60);
    let (_, first) = begins_at(&mut s, conn);
    assert!(near(first, s.second - 59), "{first}");
}

/// A head, signed so many seconds by the publisher's clock.
fn signed(second: u64, clock: u64) -> SignedHead {
    let head = Head { signed_at: 1_767_225_600_000 + clock * 1000, ..head_at(second) };
    SignedHead::sign(head, &identity(1)).unwrap()
}

/// A tracker that knows nothing, and a broadcaster that was on before: 0 to 300 s, away for ten minutes, and back.
fn back_again(edit: impl Fn(&mut Vec<icet::media::Signed>)) -> Station {
    let mut s = Station::unheard();
    let mut earlier = (10..=300).step_by(10).map(|n| signed(n, n).signed().clone()).collect();
    edit(&mut earlier);
    s.second = 301;
    let head = signed(301, 901).signed().clone();
    s.w.say(s.publisher, icet::message::Head { media: s.media, head, earlier: Some(earlier), time: None });
    s
}

#[test]
fn what_was_on_before_a_broadcaster_was_away_is_still_to_be_had() {
    let mut s = back_again(|_| {});
    s.goes_on(30, &mut []);
    for (ago, was) in [(20, 311), (100, 300), (600, 300), (632, 298), (700, 230), (900, 30)] {
        let conn = joins_back(&mut s, 2, None, ago);
        let (_, first) = begins_at(&mut s, conn);
        assert!(near(first, was + 1), "{first} {ago} s ago, not {}", head_at(was).next);
        s.w.say(conn, Leave { media: s.media });
    }
}

#[test]
fn earlier_heads_are_believed_only_with_the_first_and_if_they_are_the_publishers() {
    let mut s = back_again(|earlier| earlier[3].body[40] ^= 1);
    assert!(
        matches!(s.w.heard(s.publisher).pop(), Some(ToPeer::ErrorMessage(e)) if e.code == ErrorCode::FORGED)
    );
    // Nothing of it counts.
    s.second = 301;
    s.goes_on(30, &mut []);
    let conn = joins_back(&mut s, 2, None, 700);
    assert!(begins_at(&mut s, conn).1 <= 2);
    // A tracker that has a head believes itself.
    let mut s = Station::unheard();
    s.goes_on(30, &mut []);
    let earlier = Some(vec![signed(20, 20).signed().clone()]);
    let head = signed(31, 2000).signed().clone();
    s.w.say(s.publisher, icet::message::Head { media: s.media, head, earlier, time: None });
    let conn = joins_back(&mut s, 2, None, 10);
    assert!(near(begins_at(&mut s, conn).1, 22));
}

#[test]
fn what_a_source_that_is_gone_had_is_to_be_had_from_listeners_who_wait_for_it() {
    let mut s = Station::new();
    let first = s.joins(2, None);
    let orders = s.w.assigned(first);
    let mut listeners = vec![(first, standing(&orders).0)];
    s.goes_on(100, &mut listeners);
    // One that came later, and keeps less.
    let second = s.joins(3, None);
    let later = s.w.assigned(second);
    listeners.push((second, standing(&later).0));
    s.goes_on(20, &mut listeners);
    s.w.disconnect(s.publisher);
    // Both gave it up.
    for (conn, orders) in [(first, &orders), (second, &later)] {
        let steady = orders.iter().find(|a| a.need == Need::Steady).unwrap();
        s.w.say(conn, report(steady, Outcome::Unreachable));
    }
    let mut now = s.second + 1;
    for (n, seconds) in [(4, 0), (5, 3), (6, 8)] {
        for _ in 0..seconds {
            s.w.pass(SECOND);
            // They are there.
            listeners.iter().for_each(|(conn, _)| s.w.say(*conn, Ping { nonce: 1 }));
        }
        now += seconds;
        let conn = joins_back(&mut s, n, Some(0), 90);
        let (_, orders) = heard(&mut s, conn);
        assert_eq!(standing(&orders).1, identity(2).key());
        let first = orders.iter().find(|a| a.need == Need::Steady).unwrap().pages.first;
        assert!(near(first, now - 90), "{first} {seconds} s later, not {}", head_at(now - 90).next);
        s.w.say(conn, Leave { media: s.media });
    }
}

#[test]
fn who_asks_for_more_than_anybody_keeps_gets_the_oldest() {
    let mut s = Station::new();
    s.goes_on(2400, &mut []);
    let conn = joins_back(&mut s, 2, None, 7200);
    let orders = s.w.assigned(conn);
    let [_, steady] = orders.as_slice() else { panic!("{orders:?}") };
    assert_eq!(steady.pages.first, 2, "the source may keep all of it");
    // It does not: step by step what it has is found.
    let oldest = head_at(s.second - 100).next;
    let (mut order, mut tries) = (steady.clone(), 0);
    while order.pages.first < oldest {
        tries += 1;
        assert!(tries < 12, "{order:?}");
        s.w.say(conn, report(&order, Outcome::Incomplete));
        let orders = s.w.assigned(conn);
        order = orders.into_iter().find(|a| a.need == Need::Steady).expect("another try");
    }
    assert!(order.pages.first < head_at(s.second - 40).next, "half of what there is at least: {order:?}");
}

#[test]
fn who_holds_something_goes_on_where_it_was_whatever_it_asked_for_once() {
    let mut s = Station::new();
    s.goes_on(200, &mut []);
    let high = head_at(150).next;
    let conn = peer(&mut s.w, 2, None);
    let have = PageRanges::one(head_at(50).next, high);
    s.w.say(conn, Join { version: 1, have, back: Some(150_000), ..join("radio", Intent::Play) });
    let orders = s.w.assigned(conn);
    assert_eq!((orders.len(), orders[0].pages.first), (1, high + 1));
    // What it says it has got is behind what others want.
    let more = Have { lost: PageRanges::new(), ..super::live::have(s.media, orders[0].id, high + 20) };
    s.w.say(conn, more);
    let newcomer = s.joins(3, None);
    assert_eq!(standing(&s.w.assigned(newcomer)).1, identity(1).key());
}
