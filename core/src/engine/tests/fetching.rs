use icet::message::{Cancel, Shortage};
use icet::{MediaId, Stripe};

use super::*;

const U: Need = Need::Urgent;
const B: Need = Need::Bulk;

#[test]
fn an_assignment_is_fetched_acknowledged_and_reported() {
    let mut r = Rig::joined(100);
    r.assign(vec![assignment(3, PageSet::range(10, 12), B, &[1, 2])]);
    let id = r.one_started();
    r.millis(30);
    r.event(id, FetchEvent::FirstByte);
    r.millis(20);
    r.pages(id, 10..=12);
    r.ended(id, Outcome::Done);
    let report = &r.reports()[0];
    assert_eq!((report.first_byte, report.total, report.bytes, report.pages), (Some(30), 50, 12_000, 3));
    assert_eq!(r.outcomes(), [(3, 1, Outcome::Done, true)]);
    assert_eq!(r.acked(), [(3, vec![(10, 12)])]);
    let have = r.sent.iter().position(|m| matches!(m, ToTracker::Have(_)));
    let report = r.sent.iter().position(|m| matches!(m, ToTracker::Report(_)));
    assert!(have < report, "the report comes after what it is about");
    assert_eq!((r.e.assigned.len(), r.e.timers.len()), (0, 0));
    let tally = r.e.tally(H).unwrap();
    assert_eq!((tally.pages, tally.bytes, tally.fetches), (3, 12_000, 0));
}

#[test]
fn urgent_comes_first_then_deadlines_then_arrival() {
    let mut r = Rig::joined_with(Config { fetches: 1, per_host: 1, ..config() }, 1000);
    let mut soon = assignment(4, PageSet::range(40, 49), B, &[4]);
    soon.deadline = Some(5000);
    r.assign(vec![
        assignment(1, PageSet::range(10, 19), B, &[1]),
        assignment(2, PageSet::range(20, 29), Need::Spare, &[2]),
        assignment(3, PageSet::range(30, 39), B, &[3]),
        soon,
    ]);
    let first = r.started();
    assert_eq!(first.len(), 1);
    r.assign(vec![assignment(5, PageSet::range(50, 59), U, &[5])]);
    let urgent = r.started();
    assert_eq!(urgent[0].3, 5, "a slot is kept for it");
    r.assign(vec![assignment(6, PageSet::range(60, 69), U, &[6])]);
    assert!(r.starts.is_empty(), "but only a few");
    let mut order = Vec::new();
    let mut now = vec![first[0], urgent[0]];
    while let Some((id, from, to, host)) = now.pop() {
        order.push(host);
        r.pages(id, from..=to.unwrap());
        r.ended(id, Outcome::Done);
        now.splice(0..0, r.started());
    }
    assert_eq!(order, [5, 4, 6, 1, 3, 2]);
}

#[test]
fn hosts_are_not_overrun_and_others_pass_by() {
    let mut r = Rig::joined(1000);
    r.assign(
        (0..4)
            .map(|i| assignment(i + 1, PageSet::range(i * 10, i * 10 + 9), B, &[if i < 3 { 1 } else { 2 }]))
            .collect(),
    );
    assert_eq!(r.started().iter().map(|s| s.3).collect::<Vec<_>>(), [1, 1, 2]);
}

#[test]
fn holes_are_fetched_and_held_pages_are_not() {
    let mut r = Rig::new();
    r.join(100);
    r.connect(1);
    r.answer(1);
    let mut held = PageMap::new(100);
    held.insert_all(&PageRanges::from_runs([(0, 4), (10, 10), (20, 29), (36, 99)]));
    r.accept(held);
    r.assign(vec![assignment(1, PageSet::range(0, 200), B, &[1])]);
    // Its host refuses a ticket that is in use: one run after the other.
    let started = r.started();
    assert_eq!(started.iter().map(|s| (s.1, s.2)).collect::<Vec<_>>(), [(5, Some(19))]);
    r.clear();
    r.pages(started[0].0, 5..=19);
    r.ended(started[0].0, Outcome::Done);
    assert!(r.reports().is_empty());
    let started = r.started();
    assert_eq!(started.iter().map(|s| (s.1, s.2)).collect::<Vec<_>>(), [(30, Some(35))]);
    // It breaks: only what is missing of it goes to... nobody else here.
    r.pages(started[0].0, 30..=32);
    r.ended(started[0].0, Outcome::Broken);
    assert_eq!(r.outcomes(), [(1, 1, Outcome::Broken, true)]);
    assert_eq!(r.reports()[0].pages, 17);
}

#[test]
fn failures_go_to_the_stand_ins_with_what_is_missing() {
    let mut r = Rig::joined(100);
    r.assign(vec![assignment(1, PageSet::range(0, 15), B, &[1, 2, 3])]);
    let id = r.one_started();
    r.pages(id, 0..=3);
    r.ended(id, Outcome::Refused);
    let next = r.started();
    assert_eq!(next[0].1..=next[0].2.unwrap(), 4..=15);
    assert_eq!(next[0].3, 2);
    assert_eq!(r.outcomes(), [(1, 1, Outcome::Refused, false)]);
    // Ended properly, but not all came.
    r.pages(next[0].0, 4..=7);
    r.ended(next[0].0, Outcome::Done);
    let next = r.started();
    assert_eq!((next[0].1, next[0].3), (8, 3));
    r.clear();
    // Nothing comes: the last one, too, is given up after the stall.
    r.pass(Duration::from_secs(10));
    assert_eq!(r.stops, [next[0].0]);
    assert_eq!(r.outcomes(), [(1, 3, Outcome::Stalled, true)]);
    assert!(r.e.assigned.is_empty());
}

#[test]
fn a_fetch_that_moves_does_not_stall_and_urgent_ones_stall_sooner() {
    let mut r = Rig::joined_with(Config { fetches: 2, ..config() }, 100);
    r.assign(vec![
        assignment(1, PageSet::range(0, 15), B, &[1, 2]),
        assignment(2, PageSet::range(20, 35), U, &[3, 4]),
    ]);
    let started = r.started();
    let (urgent, bulk) = (started[0].0, started[1].0);
    for _ in 0..10 {
        r.pass(Duration::from_millis(1900));
        r.event(urgent, FetchEvent::Progress { bytes: 4000 });
        r.event(bulk, FetchEvent::Progress { bytes: 4000 });
    }
    assert!(r.stops.is_empty());
    r.pass(Duration::from_millis(2000));
    assert_eq!(r.stops, [urgent]);
    assert_eq!(r.started()[0].3, 4);
    r.pass(Duration::from_secs(8));
    assert!(r.stops.contains(&bulk));
}

#[test]
fn an_overdue_urgent_assignment_gets_help_and_the_first_wins() {
    let mut r = Rig::joined(100);
    let mut a = assignment(1, PageSet::range(0, 3), U, &[1, 2, 3]);
    a.deadline = Some(300);
    r.assign(vec![a]);
    let slow = r.one_started();
    r.page(slow, 0);
    r.millis(299);
    assert!(r.starts.is_empty());
    r.millis(1);
    let helper = r.started();
    assert_eq!((helper[0].1, helper[0].2, helper[0].3), (1, Some(3), 2));
    assert!(r.stops.is_empty(), "the first is not given up");
    r.page(slow, 1);
    r.pages(helper[0].0, 2..=3);
    assert_eq!(r.stops, [slow], "it has nothing more to bring");
    r.ended(helper[0].0, Outcome::Done);
    assert_eq!(r.outcomes(), [(1, 1, Outcome::Stopped, false), (1, 2, Outcome::Done, true)]);
    assert_eq!(r.reports().iter().map(|t| t.pages).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn help_that_fails_is_replaced_while_sources_last() {
    let mut r = Rig::joined(100);
    let mut a = assignment(1, PageSet::range(0, 3), U, &[1, 2, 3]);
    a.deadline = Some(300);
    r.assign(vec![a]);
    let slow = r.one_started();
    r.millis(300);
    let helper = r.one_started();
    r.ended(helper, Outcome::Unreachable);
    let third = r.started();
    assert_eq!(third[0].3, 3);
    r.ended(slow, Outcome::Broken);
    assert!(r.starts.is_empty(), "the third is at it already");
    r.pages(third[0].0, 0..=3);
    r.ended(third[0].0, Outcome::Done);
    assert_eq!(
        r.outcomes(),
        [(1, 2, Outcome::Unreachable, false), (1, 1, Outcome::Broken, false), (1, 3, Outcome::Done, true)]
    );
}

#[test]
fn a_host_that_alters_pages_is_not_used_again() {
    let mut r = Rig::joined(100);
    r.assign(vec![
        assignment(1, PageSet::range(0, 9), B, &[1, 2]),
        assignment(2, PageSet::range(10, 19), B, &[1, 3]),
    ]);
    let started = r.started();
    r.event(started[0].0, FetchEvent::Altered);
    assert_eq!(r.stops, [started[1].0]);
    assert_eq!(r.started().iter().map(|s| s.3).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(r.outcomes(), [(1, 1, Outcome::Altered, false), (2, 1, Outcome::Altered, false)]);
    assert_eq!(r.reports().iter().map(|t| t.bad).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(r.e.tally(H).unwrap().bad, 1);
    r.clear();
    r.assign(vec![
        assignment(3, PageSet::range(30, 39), B, &[1, 4]),
        assignment(4, PageSet::range(40, 49), B, &[1]),
    ]);
    assert_eq!(r.started()[0].3, 4);
    assert_eq!(r.outcomes(), [(3, 1, Outcome::Altered, false), (4, 1, Outcome::Altered, true)]);
    r.pass(Duration::from_secs(601));
    r.clear();
    r.assign(vec![assignment(5, PageSet::range(50, 59), B, &[1])]);
    assert_eq!(r.started()[0].3, 1, "not for ever");
}

#[test]
fn an_unreachable_host_is_passed_by_for_a_while_if_another_can_do_it() {
    let mut r = Rig::joined(100);
    r.assign(vec![assignment(1, PageSet::range(0, 9), B, &[1])]);
    let id = r.one_started();
    r.ended(id, Outcome::Unreachable);
    r.clear();
    r.assign(vec![
        assignment(2, PageSet::range(0, 9), B, &[1, 2]),
        assignment(3, PageSet::range(10, 19), B, &[1]),
    ]);
    assert_eq!(r.started().iter().map(|s| s.3).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(r.outcomes(), [(2, 1, Outcome::Unreachable, false)]);
}

#[test]
fn cancelled_assignments_stop_and_a_page_in_the_middle_is_credited() {
    let mut r = Rig::joined(100);
    r.assign(vec![
        assignment(1, PageSet::range(0, 9), B, &[1]),
        assignment(2, PageSet::range(10, 19), B, &[1]),
    ]);
    let started = r.started();
    r.page(started[0].0, 0);
    r.tell(Cancel { assignments: vec![1, 77] }.into());
    assert_eq!(r.stops, [started[0].0]);
    assert_eq!(r.outcomes(), [(1, 1, Outcome::Stopped, true)]);
    r.page(started[0].0, 1);
    r.millis(200);
    assert_eq!(r.acked(), [(1, vec![(0, 0)]), (1, vec![(1, 1)])]);
    r.ended(started[0].0, Outcome::Done);
    r.event(FetchId(12345), FetchEvent::Altered);
    assert_eq!(r.outcomes().len(), 1);
}

#[test]
fn pages_under_way_from_before_a_restart_are_not_fetched_twice_and_their_assignment_ends_with_them() {
    let mut r = Rig::joined(100);
    r.assign(vec![assignment(1, PageSet::range(0, 15), B, &[1])]);
    let id = r.one_started();
    r.restart();
    r.assign(vec![assignment(2, PageSet::range(4, 7), B, &[2])]);
    assert!(r.starts.is_empty());
    r.pass(Duration::from_secs(9));
    r.pages(id, 0..=15);
    r.ended(id, Outcome::Done);
    assert_eq!(r.outcomes(), [(2, 2, Outcome::Stopped, true)]);
}

#[test]
fn a_tracker_that_orders_what_is_under_way_wants_help() {
    let mut r = Rig::joined(100);
    r.assign(vec![assignment(1, PageSet::range(0, 15), B, &[1])]);
    let slow = r.one_started();
    r.page(slow, 0);
    r.assign(vec![assignment(2, PageSet::range(8, 15), B, &[2])]);
    let help = r.one_started();
    r.pages(help, 8..=15);
    r.ended(help, Outcome::Done);
    assert!(r.stops.is_empty() && r.starts.is_empty());
    r.pages(slow, 1..=3);
    // It broke: what help brought is not asked for again.
    r.assign(vec![assignment(3, PageSet::range(40, 41), B, &[3])]);
    r.clear();
    r.pages(slow, 4..=7);
    r.ended(slow, Outcome::Broken);
    assert_eq!(r.outcomes(), [(1, 1, Outcome::Done, true)]);
}

#[test]
fn what_another_fetch_did_not_bring_is_fetched_then() {
    let mut r = Rig::joined(100);
    r.assign(vec![assignment(1, PageSet::range(0, 15), B, &[1])]);
    let id = r.one_started();
    r.restart();
    r.assign(vec![assignment(2, PageSet::range(4, 20), B, &[2])]);
    let other = r.one_started();
    r.pages(id, 0..=6);
    r.ended(id, Outcome::Broken);
    assert!(r.starts.is_empty(), "the ticket is in use");
    r.pages(other, 16..=20);
    r.ended(other, Outcome::Done);
    let next = r.started();
    assert_eq!((next[0].1, next[0].2, next[0].3), (7, Some(15), 2));
}

#[test]
fn an_urgent_page_far_down_a_slow_fetch_is_fetched_by_itself() {
    let mut r = Rig::joined(1000);
    r.assign(vec![assignment(1, PageSet::range(0, 999), B, &[1])]);
    let bulk = r.one_started();
    r.pages(bulk, 0..=9);
    r.restart();
    r.assign(vec![
        assignment(2, PageSet::range(12, 15), U, &[2]),
        assignment(3, PageSet::range(500, 503), U, &[2]),
        assignment(4, PageSet::range(600, 603), B, &[2]),
    ]);
    let started = r.started();
    assert_eq!(started.iter().map(|s| s.1).collect::<Vec<_>>(), [500]);
}

#[test]
fn lapsed_assignments_are_given_back() {
    let mut r = Rig::joined_with(Config { fetches: 1, stall: Duration::from_secs(100), ..config() }, 100);
    let mut queued = assignment(2, PageSet::range(20, 29), B, &[2]);
    queued.lapse = 2000;
    r.assign(vec![assignment(1, PageSet::range(0, 9), B, &[1, 3]), queued]);
    let id = r.one_started();
    r.pass(Duration::from_millis(1999));
    assert!(r.outcomes().is_empty());
    r.pass(Duration::from_millis(1));
    assert_eq!(r.outcomes(), [(2, 2, Outcome::Stopped, true)]);
    r.pass(Duration::from_millis(17_999));
    assert!(r.stops.is_empty());
    r.pass(Duration::from_millis(1));
    assert_eq!(r.stops, [id]);
    assert_eq!(r.outcomes().last(), Some(&(1, 1, Outcome::Stalled, true)));
}

#[test]
fn nothing_lapses_in_the_queue_while_the_tracker_is_away() {
    let mut r = Rig::joined_with(Config { fetches: 1, ..config() }, 100);
    let mut queued = assignment(2, PageSet::range(20, 29), B, &[2]);
    queued.lapse = 0;
    r.assign(vec![assignment(1, PageSet::range(0, 9), B, &[1]), queued]);
    let id = r.one_started();
    r.disconnect();
    r.pass(Duration::from_secs(9));
    r.pages(id, 0..=9);
    r.ended(id, Outcome::Done);
    assert_eq!(r.started()[0].3, 2);
}

#[test]
fn nonsense_from_a_tracker_is_given_back() {
    let mut r = Rig::joined(100);
    let mut none = assignment(3, PageSet::range(5, 5), B, &[1]);
    none.id = 0;
    r.assign(vec![
        assignment(1, PageSet::range(100, 200), B, &[1]),
        assignment(2, PageSet { first: 50, last: Some(51), stripe: Stripe::new(0, 4, 10) }, B, &[1]),
        none,
        assignment(4, PageSet { first: 90, last: None, stripe: None }, B, &[1]),
        assignment(4, PageSet::range(0, 5), B, &[1]),
    ]);
    assert_eq!(r.started().iter().map(|s| (s.1, s.2)).collect::<Vec<_>>(), [(90, Some(99))]);
    assert_eq!(
        r.outcomes(),
        [(1, 1, Outcome::Stopped, true), (2, 1, Outcome::Stopped, true), (0, 1, Outcome::Stopped, true)]
    );
    r.clear();
    for i in 0..8 {
        r.assign((0..1000).map(|j| assignment(100 + i * 1000 + j, PageSet::range(0, 80), B, &[1])).collect());
    }
    assert_eq!(r.e.assigned.len(), 4096);
    assert_eq!(r.outcomes().len(), 8000 - 4095);
}

#[test]
fn an_open_ended_fetch_is_begun_again_and_then_handed_on() {
    let mut r = Rig::new();
    r.join(100);
    r.connect(1);
    r.answer(1);
    r.pages = 0;
    // A live media has no number of pages.
    r.accept(PageMap::new(0));
    r.clear();
    let stripe = Stripe::new(1, 4, 1);
    let set = |first| PageSet { first, last: None, stripe };
    let other = |first| PageSet { first, last: None, stripe: Stripe::new(2, 4, 1) };
    r.assign(vec![
        assignment(1, set(1000), Need::Steady, &[1, 2]),
        assignment(2, other(1000), Need::Steady, &[3]),
    ]);
    let started = r.starts.clone();
    assert_eq!(started.iter().map(|s| s.pages).collect::<Vec<_>>(), [set(1001), other(1002)]);
    r.starts.clear();
    let mut id = started[0].id;
    r.page(id, 1001);
    r.page(started[1].id, 1002);
    r.page(id, 1005);
    r.ended(id, Outcome::Done);
    for _ in 0..3 {
        assert_eq!((r.starts[0].pages.last, r.starts[0].host), (None, 1));
        assert_eq!(r.starts[0].pages.next_from(0), Some(1009));
        id = r.one_started();
        r.ended(id, Outcome::Broken);
    }
    assert_eq!((r.starts[0].pages.next_from(0), r.starts[0].host), (Some(1009), 2));
    assert_eq!(r.outcomes(), [(1, 1, Outcome::Broken, false)]);
    r.millis(200);
    assert_eq!(r.acked()[0], (1, vec![(1001, 1001), (1005, 1005)]));
}

#[test]
fn a_renewed_order_of_the_same_host_takes_the_older_one_s_place_at_once() {
    let mut r = Rig::new();
    r.join(100);
    r.connect(1);
    r.answer(1);
    r.pages = 0;
    r.accept(PageMap::new(0));
    r.clear();
    let open = |first| PageSet { first, last: None, stripe: None };
    r.assign(vec![assignment(1, open(1000), Need::Steady, &[1])]);
    let first = r.one_started();
    r.page(first, 1000);
    // The same host, with a stand-in: two fetches would bring each page twice.
    r.assign(vec![assignment(2, open(1000), Need::Steady, &[1, 2])]);
    assert_eq!(r.stops, [first]);
    assert_eq!((r.starts[0].host, r.starts[0].pages.next_from(0)), (1, Some(1001)));
    let second = r.one_started();
    assert_eq!(r.outcomes(), [(1, 1, Outcome::Stopped, true)]);
    // Another host is tried beside this one, which is left when something comes.
    r.assign(vec![assignment(3, open(1000), Need::Steady, &[3])]);
    assert_eq!(r.stops, [first]);
    let third = r.one_started();
    r.page(third, 1001);
    assert_eq!(r.stops, [first, second]);
    assert_eq!(r.outcomes(), [(1, 1, Outcome::Stopped, true), (2, 1, Outcome::Stopped, true)]);
}

#[test]
fn pages_that_the_driver_holds_unknown_to_the_engine_do_not_make_a_fetch_fail() {
    let mut r = Rig::joined(100);
    r.assign(vec![assignment(1, PageSet::range(0, 3), B, &[1, 2])]);
    let id = r.one_started();
    r.pages(id, 0..=1);
    r.event(id, FetchEvent::Duplicate { page: 2 });
    r.page(id, 3);
    r.ended(id, Outcome::Done);
    assert_eq!(r.outcomes(), [(1, 1, Outcome::Done, true)]);
    assert_eq!(r.acked(), [(0, vec![(2, 2)]), (1, vec![(0, 1), (3, 3)])]);
}

#[test]
fn a_fault_of_ours_ends_the_assignment_without_blaming_anyone() {
    let mut r = Rig::joined(100);
    r.assign(vec![assignment(1, PageSet::range(0, 3), B, &[1, 2])]);
    let id = r.one_started();
    r.ended(id, Outcome::Stopped);
    assert_eq!(r.outcomes(), [(1, 1, Outcome::Stopped, true)]);
    assert!(r.starts.is_empty());
}

#[test]
fn leaving_stops_reports_and_leaves() {
    let mut r = Rig::joined(100);
    r.assign(vec![assignment(1, PageSet::range(0, 9), B, &[1])]);
    let id = r.one_started();
    r.page(id, 0);
    r.command(Command::Leave { handle: H });
    assert_eq!(r.stops, [id]);
    let kinds: Vec<_> = r.sent.iter().map(ToTracker::number).collect();
    assert_eq!(kinds, [4, 5, 7], "have, report, leave");
    assert_eq!(r.e.poll_timeout(), None);
    assert!(r.e.ids.is_empty() && r.e.media.is_empty() && r.e.fetches.is_empty());
}

#[test]
fn what_the_tracker_says_of_a_shortage_is_passed_on() {
    let mut r = Rig::joined(1000);
    r.clear();
    let shortage = |media| Shortage {
        media,
        hosts: 2,
        unshared: 2,
        unreachable: 0,
        failed: 0,
        protocols: vec!["udp".parse().unwrap()],
        unwilling: None,
        silent: None,
    };
    let (ours, other) = (shortage(manifest(1000, 1).id()), shortage(MediaId([9; 32])));
    r.tell(Assign { assignments: Vec::new(), shortages: Some(vec![other, ours.clone()]) }.into());
    let told: Vec<_> = std::mem::take(&mut r.rest);
    assert!(
        matches!(&told[..], [Action::Short { shortage, .. }] if *shortage == ours),
        "one of a media that nobody opened is nobody's: {told:?}"
    );
}
