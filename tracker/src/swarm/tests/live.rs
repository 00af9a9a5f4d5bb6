//! Live media: heads, who gets everything from whom, and what becomes of it when somebody goes.

use std::time::Duration;

use icet::key::Hash;
use icet::live::{Head, NO_BATCH, SignedHead};
use icet::message::{
    Assignment, ErrorCode, Got, Have, Intent, Join, Leave, Need, Outcome, Publish, ServedItem, ToPeer,
};
use icet::{
    Abilities, Limits, Manifest, MediaId, PageFlags, PageRanges, PageRecord, PageSet, SignedManifest,
};

use super::super::ConnId;
use super::fixture::identity;
use super::world::{World, hello, join, report, tcp};

pub(super) const SECOND: Duration = Duration::from_secs(1);
/// Pages and bytes a second.
pub(super) const RATE: (u64, u64) = (5, 10_000);

pub(super) fn manifest(version: u64) -> SignedManifest {
    let manifest = Manifest {
        version,
        ..Manifest::live(
            "radio".parse().unwrap(),
            identity(1).key(),
            Hash([u8::try_from(version).unwrap(); 32]),
        )
    };
    SignedManifest::sign(manifest, &identity(1)).unwrap()
}

pub(super) fn head_at(second: u64) -> Head {
    let record = PageRecord { len: 100, crc: 0, hash: Hash([0; 32]), flags: PageFlags::SETUP, time: 0 };
    let next = 2 + second * RATE.0;
    Head {
        broadcast: Hash([1; 32]),
        next,
        offset: 200 + second * RATE.1,
        time: i64::try_from(second).unwrap() * 1_000_000,
        last: NO_BATCH,
        link: 0,
        link_offset: 0,
        link_time: 0,
        setup: vec![record; 2],
        key: (next - 1).max(2),
        signed_at: 0,
        title: None,
        ended: None,
    }
}

fn head(second: u64) -> icet::message::Head {
    let signed = SignedHead::sign(head_at(second), &identity(1)).unwrap();
    icet::message::Head { media: manifest(1).id(), head: signed.signed().clone(), earlier: None, time: None }
}

pub(super) struct Station {
    pub(super) w: World,
    pub(super) publisher: ConnId,
    pub(super) media: MediaId,
    pub(super) second: u64,
}

impl Station {
    pub(super) fn new() -> Station {
        let mut s = Station::unheard();
        s.goes_on(4, &mut []);
        s
    }

    /// With two who listen, and one who comes after them.
    fn with_a_child() -> (Station, Vec<(ConnId, u64)>, ConnId) {
        let mut s = Station::new();
        let mut listeners = Vec::new();
        for n in 2..4 {
            let conn = s.joins(n, None);
            listeners.push((conn, standing(&s.w.assigned(conn)).0));
        }
        s.goes_on(5, &mut listeners);
        let child = s.joins(6, None);
        (s, listeners, child)
    }

    /// One that told no head yet.
    pub(super) fn unheard() -> Station {
        let mut w = World::new();
        let publisher = peer(&mut w, 1, None);
        w.say(publisher, Publish { request: 1, manifest: manifest(1).signed().clone(), slices: Vec::new() });
        assert!(w.answer(publisher).is_some());
        Station { w, publisher, media: manifest(1).id(), second: 0 }
    }

    /// Time passes, the publisher tells heads, and those who listen what they have.
    pub(super) fn goes_on(&mut self, seconds: u64, listeners: &mut [(ConnId, u64)]) {
        for _ in 0..seconds {
            self.second += 1;
            self.w.say(self.publisher, head(self.second));
            self.w.pass(SECOND);
            for (conn, run) in &mut *listeners {
                self.w.say(*conn, have(self.media, *run, head_at(self.second).next - 2));
            }
        }
    }

    /// The publisher tells a head.
    pub(super) fn tells(&mut self, head: &SignedHead) {
        let (media, head) = (self.media, head.signed().clone());
        self.w.say(self.publisher, icet::message::Head { media, head, earlier: None, time: None });
    }

    pub(super) fn joins(&mut self, n: u8, up: Option<u64>) -> ConnId {
        let conn = peer(&mut self.w, n, up);
        self.w.join(conn, "radio", Intent::Whole);
        conn
    }
}

pub(super) fn have(media: MediaId, assignment: u64, last: u64) -> Have {
    Have { media, got: vec![Got { assignment, pages: PageRanges::one(0, last) }], lost: PageRanges::new() }
}

pub(super) fn peer(w: &mut World, n: u8, up: Option<u64>) -> ConnId {
    let at = format!("10.0.{n}.1:4000");
    let conn = w.connect(&identity(n), &at);
    let mut hello = hello(vec![tcp(&at)]);
    let live = [Abilities::LIVE, Abilities::OPEN, Abilities::PROOFS];
    hello.offers[0].abilities = live.into_iter().fold(hello.offers[0].abilities, |a, b| a | b);
    hello.limits = Limits { up, down: None };
    w.say(conn, hello);
    w.inbox.remove(&conn);
    conn
}

/// The standing order among those that came, and whose it is.
pub(super) fn standing(all: &[Assignment]) -> (u64, icet::PeerKey) {
    let a = all.iter().find(|a| a.need == Need::Steady).unwrap_or_else(|| panic!("none in {all:?}"));
    assert_eq!(a.pages.last, None);
    (a.id, a.source.host.key)
}

#[test]
fn a_newcomer_gets_the_head_then_setup_and_everything_from_some_seconds_back() {
    let mut s = Station::new();
    let conn = s.joins(2, None);
    let heard = s.w.heard(conn);
    let kinds: Vec<u64> = heard.iter().map(ToPeer::number).collect();
    assert_eq!(kinds[..3], [101, 115, 102], "answer, head, orders");
    let ToPeer::Assign(assign) = &heard[2] else { panic!("{heard:?}") };
    let [setup, steady] = assign.assignments.as_slice() else { panic!("{assign:?}") };
    assert_eq!((setup.pages, setup.need), (PageSet::range(0, 1), Need::Urgent));
    assert_eq!((steady.pages.last, steady.need), (None, Need::Steady));
    // A second and a half ago: the last head came a second ago, and each page may be the first.
    assert_eq!(steady.pages.first, head_at(s.second).next - RATE.0.div_ceil(2));
    let listed = s.w.swarm.media_list(0, 10);
    assert_eq!((listed[0].listeners, listed[0].complete), (1, 0));
}

#[test]
fn who_came_before_the_first_head_gets_it_when_it_comes() {
    let mut w = World::new();
    let publisher = peer(&mut w, 1, None);
    w.say(publisher, Publish { request: 1, manifest: manifest(1).signed().clone(), slices: Vec::new() });
    let conn = peer(&mut w, 2, None);
    w.join(conn, "radio", Intent::Play);
    assert!(w.assigned(conn).is_empty());
    w.say(publisher, head(1));
    let heard = w.heard(conn);
    assert!(heard.iter().any(|m| matches!(m, ToPeer::Head(_))), "{heard:?}");
    assert!(heard.iter().any(|m| matches!(m, ToPeer::Assign(a) if a.assignments.len() == 2)), "{heard:?}");
}

#[test]
fn a_host_takes_a_few_and_they_take_more() {
    let mut s = Station::new();
    let mut listeners = Vec::new();
    let mut hosts: std::collections::BTreeMap<icet::PeerKey, u32> = std::collections::BTreeMap::new();
    for n in 2..20 {
        let conn = s.joins(n, None);
        let (run, host) = standing(&s.w.assigned(conn));
        *hosts.entry(host).or_default() += 1;
        listeners.push((conn, run));
        s.goes_on(4, &mut listeners);
    }
    assert!(hosts.values().all(|n| *n <= 3), "{hosts:?}");
    assert_eq!(
        hosts.get(&identity(1).key()),
        Some(&2),
        "the publisher sends two copies, however many listen"
    );
}

#[test]
fn who_gives_nothing_is_nobodys_host() {
    let mut s = Station::new();
    // Room for one copy, at the rate of the media.
    let mut listeners = Vec::new();
    for n in 2..6 {
        let conn = s.joins(n, Some(0));
        listeners.push((conn, standing(&s.w.assigned(conn)).0));
    }
    s.goes_on(5, &mut listeners);
    let late = s.joins(6, Some(0));
    let heard = s.w.heard(late);
    assert!(
        heard.iter().all(|m| !matches!(m, ToPeer::Assign(a) if !a.assignments.is_empty())),
        "nobody has room"
    );
    assert!(
        heard.iter().any(|m| matches!(m, ToPeer::Assign(a) if a.shortages.is_some())),
        "and it is told why"
    );
    // A place is free as soon as somebody leaves.
    s.w.say(listeners[0].0, Leave { media: s.media });
    s.goes_on(1, &mut listeners[1..]);
    assert_eq!(standing(&s.w.assigned(late)).1, identity(1).key());
}

#[test]
fn who_can_give_takes_the_place_of_who_cannot_and_that_one_misses_nothing() {
    let mut s = Station::new();
    let mut listeners = Vec::new();
    for n in 2..6 {
        let conn = s.joins(n, Some(0));
        listeners.push((conn, standing(&s.w.assigned(conn)).0));
    }
    s.goes_on(5, &mut listeners);
    listeners.iter().for_each(|(conn, _)| drop(s.w.heard(*conn)));
    let strong = s.joins(6, None);
    let (run, host) = standing(&s.w.assigned(strong));
    assert_eq!(host, identity(1).key(), "there is no other place");
    // One of the others goes below it once it has something, and keeps its old order until then.
    let quiet = |s: &mut Station, conn| s.w.heard(conn).iter().all(|m| !matches!(m, ToPeer::Assign(_)));
    assert!(listeners.iter().all(|(conn, _)| quiet(&mut s, *conn)));
    s.w.say(strong, have(s.media, run, head_at(s.second).next - 2));
    let mut moved = Vec::new();
    for (conn, old) in &listeners {
        let heard = s.w.heard(*conn);
        assert!(heard.iter().all(|m| !matches!(m, ToPeer::Cancel(_))), "{heard:?}");
        for m in heard {
            if let ToPeer::Assign(a) = m {
                moved.push((*conn, *old, a.assignments));
            }
        }
    }
    let [(conn, old, orders)] = moved.as_slice() else { panic!("{moved:?}") };
    let (new, host) = standing(orders);
    assert_eq!(host, identity(6).key());
    assert!(orders[0].deadline.is_some(), "it is told how long a silence may be");
    // Something comes of the newer one: the older one is over, and what is said of it costs nothing.
    s.w.say(*conn, have(s.media, new, head_at(s.second).next - 1));
    let order = Assignment {
        id: *old,
        source: icet::message::Source {
            host: icet::HostAddr { key: identity(1).key(), ..orders[0].source.host.clone() },
            ..orders[0].source.clone()
        },
        ..orders[0].clone()
    };
    s.w.say(*conn, report(&order, Outcome::Stopped));
    assert!(s.w.assigned(*conn).is_empty());
}

#[test]
fn pages_that_a_host_passed_by_are_fetched_from_another_one() {
    let mut s = Station::new();
    let mut listeners = Vec::new();
    for n in 2..5 {
        let conn = s.joins(n, None);
        listeners.push((conn, standing(&s.w.assigned(conn)).0));
        s.goes_on(3, &mut listeners);
    }
    let (conn, run) = listeners[2];
    s.w.heard(conn);
    let high = head_at(s.second).next - 2;
    s.second += 2;
    s.w.say(s.publisher, head(s.second));
    let (from, to) = (high + 4, head_at(s.second).next - 2);
    let got = Got { assignment: run, pages: PageRanges::one(from, to) };
    s.w.say(conn, Have { media: s.media, got: vec![got], lost: PageRanges::new() });
    let orders = s.w.assigned(conn);
    let [order] = orders.as_slice() else { panic!("{orders:?}") };
    assert_eq!((order.pages, order.need), (PageSet::range(high + 1, from - 1), Need::Urgent));
    assert!(order.deadline.is_some());
}

#[test]
fn whose_host_leaves_gets_another_one_where_it_stopped() {
    let mut s = Station::new();
    let mut listeners = Vec::new();
    for n in 2..4 {
        let conn = s.joins(n, None);
        listeners.push((conn, standing(&s.w.assigned(conn)).0));
    }
    s.goes_on(5, &mut listeners);
    let child = s.joins(6, None);
    let (run, host) = standing(&s.w.assigned(child));
    assert_ne!(host, identity(1).key());
    listeners.push((child, run));
    s.goes_on(5, &mut listeners);
    let n = (2..4).find(|n| identity(*n).key() == host).unwrap();
    let parent = listeners.remove(usize::from(n) - 2).0;
    s.w.heard(child);
    s.w.say(parent, Leave { media: s.media });
    let heard = s.w.heard(child);
    assert!(heard.iter().any(|m| matches!(m, ToPeer::Cancel(c) if c.assignments == [run])), "{heard:?}");
    let orders: Vec<Assignment> = heard
        .into_iter()
        .flat_map(|m| if let ToPeer::Assign(a) = m { a.assignments } else { vec![] })
        .collect();
    assert_eq!(orders.len(), 1, "no setup again");
    assert_eq!(orders[0].pages.first, head_at(s.second).next - 1, "behind what it said it has");
    assert_ne!(orders[0].source.host.key, host);
}

#[test]
fn a_session_that_is_gone_costs_nobody_its_host_and_one_that_comes_back_goes_on() {
    let mut s = Station::new();
    let conn = s.joins(2, None);
    let (run, _) = standing(&s.w.assigned(conn));
    let mut listeners = [(conn, run)];
    s.goes_on(5, &mut listeners);
    s.w.disconnect(conn);
    let again = peer(&mut s.w, 2, None);
    let high = head_at(s.second).next - 2;
    let back = icet::message::Join {
        version: 1,
        have: PageRanges::one(2, high),
        running: vec![run],
        ..join("radio", Intent::Whole)
    };
    s.w.say(again, back.clone());
    assert!(s.w.assigned(again).is_empty(), "what runs goes on");
    // Without it, from where it is.
    s.w.disconnect(again);
    let again = peer(&mut s.w, 2, None);
    s.w.say(again, icet::message::Join { running: Vec::new(), ..back });
    let orders = s.w.assigned(again);
    assert_eq!((orders.len(), orders[0].pages.first), (1, high + 1));
}

#[test]
fn a_host_that_fails_is_left_and_silence_of_the_source_is_nobodys_fault() {
    let (mut s, mut listeners, child) = Station::with_a_child();
    let orders = s.w.assigned(child);
    let (run, host) = standing(&orders);
    listeners.push((child, run));
    s.goes_on(3, &mut listeners);
    let order = orders.iter().find(|a| a.id == run).unwrap();
    s.w.say(child, report(order, Outcome::Stalled));
    let (_, other) = standing(&s.w.assigned(child));
    assert_ne!(other, host);
    // The source pauses: everybody stalls, and is sent to the same hosts again.
    s.w.pass(Duration::from_secs(20));
    let (conn, run) = listeners[0];
    let order = Assignment { id: run, ..order.clone() };
    let order = Assignment {
        source: icet::message::Source {
            host: icet::HostAddr { key: identity(1).key(), ..order.source.host.clone() },
            ..order.source.clone()
        },
        ..order
    };
    // It was ordered the same anew, with stand-ins that there were none of when it came.
    let newer: Vec<_> = s.w.assigned(conn).into_iter().filter(|a| a.need == Need::Steady).collect();
    s.w.say(conn, report(&order, Outcome::Stalled));
    for newer in newer {
        s.w.say(conn, report(&newer, Outcome::Stalled));
    }
    assert_eq!(standing(&s.w.assigned(conn)).1, identity(1).key());
}

/// Who says right after a pause that nothing came stays too: the host had nothing, and has it now.
#[test]
fn who_gave_up_in_a_pause_stays_where_it_is_when_the_source_goes_on() {
    let (mut s, mut listeners, child) = Station::with_a_child();
    let orders = s.w.assigned(child);
    let (run, host) = standing(&orders);
    assert_ne!(host, identity(1).key());
    listeners.push((child, run));
    s.goes_on(3, &mut listeners);
    s.w.assigned(child);
    s.w.pass(Duration::from_secs(3));
    s.goes_on(1, &mut []);
    let order = orders.iter().find(|a| a.id == run).unwrap();
    s.w.say(child, report(order, Outcome::Stalled));
    assert_eq!(standing(&s.w.assigned(child)).1, host);
}

#[test]
fn who_falls_behind_is_placed_anew() {
    let mut s = Station::new();
    let conn = s.joins(2, None);
    let (run, _) = standing(&s.w.assigned(conn));
    s.goes_on(3, &mut [(conn, run)]);
    s.goes_on(13, &mut []);
    let heard = s.w.heard(conn);
    assert!(
        heard.iter().any(|m| matches!(m, ToPeer::Cancel(c) if c.assignments.contains(&run))),
        "{heard:?}"
    );
}

#[test]
fn what_both_ends_say_is_credited() {
    let mut s = Station::new();
    let mut listeners = Vec::new();
    let conn = s.joins(2, None);
    let (run, _) = standing(&s.w.assigned(conn));
    listeners.push((conn, run));
    s.goes_on(10, &mut listeners);
    s.w.say(
        s.publisher,
        icet::message::Served { items: vec![ServedItem { assignment: run, bytes: 60_000 }] },
    );
    let info = |w: &mut World, conn| {
        w.heard(conn);
        w.say(conn, icet::message::InfoRequest { request: 9, path: "radio".parse().unwrap() });
        let heard = w.heard(conn);
        let found =
            heard.into_iter().find_map(|m| if let ToPeer::InfoAnswer(a) = m { Some(a) } else { None });
        found.map(|a| (a.sent, a.received)).unwrap()
    };
    let (sent, _) = info(&mut s.w, s.publisher);
    let (_, received) = info(&mut s.w, conn);
    assert_eq!((sent, received), (60_000, 60_000));
    let totals = s.w.swarm.totals();
    assert!(totals.acked_bytes > 60_000);
    assert_eq!(totals.acked_from_publisher, totals.acked_bytes, "nobody else sends");
    // Neither can claim more alone.
    s.w.say(
        s.publisher,
        icet::message::Served { items: vec![ServedItem { assignment: run, bytes: 1 << 40 }] },
    );
    let (sent, _) = info(&mut s.w, s.publisher);
    assert!(sent < 200_000, "{sent}");
}

#[test]
fn heads_of_others_forged_or_old_are_refused() {
    let mut s = Station::new();
    let conn = s.joins(2, None);
    s.w.heard(conn);
    s.w.say(conn, head(9));
    assert_eq!(s.w.error(conn).map(|e| e.code), Some(ErrorCode::FORBIDDEN));
    let mut forged = head(9);
    forged.head.body[40] ^= 1;
    s.w.say(s.publisher, forged);
    assert_eq!(s.w.error(s.publisher).map(|e| e.code), Some(ErrorCode::FORGED));
    // An old one is no error, and changes nothing.
    s.w.say(s.publisher, head(1));
    assert_eq!(s.w.error(s.publisher).map(|e| e.code), None);
    let late = s.joins(3, None);
    let heads: Vec<_> =
        s.w.heard(late)
            .into_iter()
            .filter_map(|m| if let ToPeer::Head(h) = m { Some(h) } else { None })
            .collect();
    assert_eq!(heads, [head(s.second)]);
}

#[test]
fn a_new_broadcast_begins_with_nothing() {
    let mut s = Station::new();
    let conn = s.joins(2, None);
    let (run, _) = standing(&s.w.assigned(conn));
    s.goes_on(3, &mut [(conn, run)]);
    s.w.say(s.publisher, Publish { request: 2, manifest: manifest(2).signed().clone(), slices: Vec::new() });
    let heard = s.w.heard(conn);
    assert!(heard.iter().any(|m| matches!(m, ToPeer::Newer(_))), "{heard:?}");
    // Heads of the one before count for nothing.
    s.w.say(s.publisher, head(30));
    assert_eq!(s.w.error(s.publisher).map(|e| e.code), Some(ErrorCode::FORGED));
}

#[test]
fn the_same_inputs_give_the_same_orders() {
    let run = || {
        let mut s = Station::new();
        let mut all = Vec::new();
        let mut listeners = Vec::new();
        for n in 2..12 {
            let conn = s.joins(n, Some(u64::from(n) * 9_000));
            let orders = s.w.assigned(conn);
            if let Some(a) = orders.iter().find(|a| a.need == Need::Steady) {
                listeners.push((conn, a.id));
            }
            all.extend(orders);
            s.goes_on(3, &mut listeners);
        }
        all
    };
    assert_eq!(run(), run());
}

#[test]
fn heads_may_say_any_number_and_never_go_back() {
    let mut s = Station::new();
    let listener = s.joins(2, None);
    let run = standing(&s.w.assigned(listener)).0;
    let tell = |s: &mut Station, next: u64, offset: u64| {
        let head = Head { next, offset, key: next, ..head_at(s.second) };
        let signed = SignedHead::sign(head, &identity(1)).unwrap();
        s.tells(&signed);
        s.w.pass(SECOND);
        s.w.say(listener, have(s.media, run, next - 2));
        s.w.swarm.media_list(0, 10)[0].clone()
    };
    let most = icet::limits::PAGES;
    tell(&mut s, most / 2, most / 2 * 65_000);
    let far = tell(&mut s, most - 1, (most - 1) * 65_000);
    let back = tell(&mut s, most - 1, 5000);
    assert_eq!((far.listeners, back.listeners), (1, 1));
    assert!(s.w.swarm.totals().acked_bytes <= most * 65_000);
}

#[test]
fn who_heard_a_host_that_begins_anew_is_ordered_from_it_at_once() {
    let mut s = Station::new();
    let conn = s.joins(2, None);
    let orders = s.w.assigned(conn);
    let order = orders.into_iter().find(|a| a.need == Need::Steady).unwrap();
    s.goes_on(3, &mut [(conn, order.id)]);
    // It was killed; its listener may have noticed, or not.
    for complains in [true, false] {
        if complains {
            s.w.say(conn, report(&order, Outcome::Stalled));
        }
        s.w.heard(conn);
        s.publisher = peer(&mut s.w, 1, None);
        s.w.say(
            s.publisher,
            Publish { request: 1, manifest: manifest(1).signed().clone(), slices: Vec::new() },
        );
        let (_, host) = standing(&s.w.assigned(conn));
        assert_eq!(host, identity(1).key(), "complains: {complains}");
    }
}

#[test]
fn a_broadcast_without_heads_is_off_the_air_after_a_minute() {
    let mut s = Station::new();
    let conn = s.joins(2, None);
    let run = standing(&s.w.assigned(conn)).0;
    s.goes_on(3, &mut [(conn, run)]);
    // As long as somebody gets pages all is well, whatever the tracker hears from the broadcaster.
    let last = head_at(s.second).next - 2;
    for page in 1..=7 {
        s.w.pass(10 * SECOND);
        s.w.say(conn, have(s.media, run, last + page));
    }
    s.w.pass(59 * SECOND);
    let gone =
        |heard: &[ToPeer]| heard.iter().any(|m| matches!(m, ToPeer::Withdrawn(w) if w.off_air == Some(true)));
    assert!(!gone(&s.w.heard(conn)) && s.w.swarm.media_list(0, 10).len() == 1);
    s.w.pass(3 * SECOND);
    assert!(gone(&s.w.heard(conn)) && s.w.swarm.media_list(0, 10).is_empty());
    // It may come back, and be listened to.
    s.publisher = peer(&mut s.w, 1, None);
    s.w.say(s.publisher, Publish { request: 1, manifest: manifest(1).signed().clone(), slices: Vec::new() });
    assert!(s.w.answer(s.publisher).is_some());
    s.goes_on(2, &mut []);
    let again = s.joins(3, None);
    standing(&s.w.assigned(again));
    // One that nobody ever heard goes, too.
    s.w.pass(62 * SECOND);
    assert!(s.w.swarm.media_list(0, 10).is_empty());
}

#[test]
fn who_fell_behind_the_window_of_its_hosts_begins_anew() {
    let mut s = Station::new();
    let conn = s.joins(2, None);
    let order = s.w.assigned(conn).into_iter().find(|a| a.need == Need::Steady).unwrap();
    s.goes_on(2, &mut [(conn, order.id)]);
    s.goes_on(5, &mut []);
    // Its only host lacks what it needs next: nothing would ever come.
    s.w.heard(conn);
    s.w.say(conn, report(&order, Outcome::Incomplete));
    let heard = s.w.heard(conn);
    let at = |what: fn(&ToPeer) -> bool| heard.iter().position(what);
    let (head, orders) = (at(|m| matches!(m, ToPeer::Head(_))), at(|m| matches!(m, ToPeer::Assign(_))));
    assert!(head.is_some() && head < orders, "the head of the link that it will be in first: {heard:?}");
    let Some(ToPeer::Assign(assign)) = orders.map(|i| &heard[i]) else { panic!("{heard:?}") };
    let (run, host) = standing(&assign.assignments);
    assert_eq!(host, identity(1).key(), "nobody is blamed");
    let first = assign.assignments.iter().find(|a| a.id == run).unwrap().pages.first;
    assert_eq!(first, head_at(s.second).next - RATE.0.div_ceil(2), "where a newcomer begins");
    assert!(
        assign.assignments.iter().any(|a| a.pages == PageSet::range(0, 1)),
        "and setup, in case it is another"
    );
    // From there on as ever.
    s.goes_on(5, &mut [(conn, run)]);
    assert!(s.w.assigned(conn).is_empty());
}

#[test]
fn after_the_tracker_s_restart_who_listened_before_feeds_newcomers() {
    let mut w = World::new();
    // The source can send once.
    let publisher = peer(&mut w, 1, Some(RATE.1 * 3 / 2));
    w.say(publisher, Publish { request: 1, manifest: manifest(1).signed().clone(), slices: Vec::new() });
    assert!(w.answer(publisher).is_some());
    // What it hears comes by an order of the tracker before; and no head is here yet.
    let old = peer(&mut w, 2, Some(10 * RATE.1));
    w.say(old, Join { version: 1, have: PageRanges::one(2, 21), ..join("radio", Intent::Whole) });
    let mut s = Station { w, publisher, media: manifest(1).id(), second: 4 };
    let listens = |s: &mut Station| {
        for _ in 0..3 {
            let last = head_at(s.second).next;
            s.goes_on(1, &mut []);
            let pages = PageRanges::one(last, head_at(s.second).next - 1);
            let got = vec![Got { assignment: 0, pages }];
            s.w.say(old, Have { media: s.media, got, lost: PageRanges::new() });
        }
    };
    listens(&mut s);
    let newcomer = s.joins(3, None);
    let mut orders = s.w.assigned(newcomer);
    listens(&mut s);
    orders.extend(s.w.assigned(newcomer));
    assert_eq!(standing(&orders).1, identity(2).key());
}

#[test]
fn after_a_pause_of_the_source_nobody_waits_for_who_waits_for_others() {
    let mut s = Station::new();
    let mut listeners: Vec<(ConnId, u64)> = Vec::new();
    let mut orders = std::collections::HashMap::new();
    for n in 2..14 {
        let conn = s.joins(n, Some(40_000));
        let a = s.w.assigned(conn).into_iter().find(|a| a.need == Need::Steady).expect("an order");
        listeners.push((conn, a.id));
        orders.insert(conn, a);
        s.goes_on(2, &mut listeners);
    }
    for (conn, run) in &mut listeners {
        for a in s.w.assigned(*conn).into_iter().filter(|a| a.need == Need::Steady) {
            *run = a.id;
            orders.insert(*conn, a);
        }
    }
    s.goes_on(1, &mut listeners);
    // All have the same when the source falls silent, for longer than anybody remembers; each gives up, host by host.
    for _ in 0..6 {
        s.w.pass(Duration::from_millis(2500));
        for (conn, _) in &listeners {
            for a in s.w.assigned(*conn).into_iter().filter(|a| a.need == Need::Steady) {
                orders.insert(*conn, a);
            }
            if let Some(a) = orders.remove(conn) {
                s.w.say(*conn, report(&a, Outcome::Stalled));
            }
        }
    }
    // It goes on: who is ordered something gets it, from the source or from who gets it.
    let names: std::collections::HashMap<_, _> =
        listeners.iter().zip(2..).map(|((conn, _), n)| (identity(n).key(), *conn)).collect();
    let mut hosts = std::collections::HashMap::new();
    for _ in 0..4 {
        s.second += 1;
        s.w.say(s.publisher, head(s.second));
        for _ in 0..12 {
            for (conn, _) in &listeners {
                for a in s.w.assigned(*conn).into_iter().filter(|a| a.need == Need::Steady) {
                    hosts.insert(*conn, (a.source.host.key, a.id));
                }
            }
            for (conn, (host, run)) in &hosts {
                let mut at = *host;
                let way =
                    |key: &icet::PeerKey| names.get(key).and_then(|c| hosts.get(c)).map(|(key, _)| *key);
                for _ in 0..12 {
                    at = way(&at).unwrap_or(at);
                }
                if at == identity(1).key() {
                    s.w.say(*conn, have(s.media, *run, head_at(s.second).next - 2));
                }
            }
        }
        s.w.pass(SECOND);
    }
    assert_eq!(hosts.len(), listeners.len(), "somebody still waits");
    for (conn, (host, _)) in &hosts {
        let (mut at, mut steps) = (*host, 0);
        while at != identity(1).key() {
            at = hosts[&names[&at]].0;
            steps += 1;
            assert!(steps < 12, "{conn:?} waits for somebody who waits for it");
        }
    }
}
