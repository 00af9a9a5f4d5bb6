use super::*;
use icet::message::{Focus, Position, Reserve};

fn reserve(hosts: &[u8]) -> ToPeer {
    let one = |h: &u8| assignment(100 + u64::from(*h), PageSet::range(0, 999), Need::Reserve, &[*h]);
    Reserve { assignments: hosts.iter().map(one).collect() }.into()
}

/// Two hosts in reserve for a media of 1000 pages, of which pages 0 to 9 are on their way.
fn fetching() -> (Rig, FetchId) {
    let mut r = Rig::joined(1000);
    r.assign(vec![assignment(1, PageSet::range(0, 9), Need::Bulk, &[1])]);
    let ordered = r.one_started();
    r.tell(reserve(&[2, 3]));
    r.millis(5000);
    assert!(r.started().is_empty(), "while the tracker speaks it is not used");
    r.event(ordered, FetchEvent::Progress { bytes: 4000 });
    (r, ordered)
}

#[test]
fn what_is_in_reserve_is_fetched_while_the_tracker_is_gone_and_no_longer() {
    let (mut r, ordered) = fetching();
    r.disconnect();
    r.millis(400);
    assert!(r.started().is_empty(), "most sessions are back at once");
    r.millis(700);
    let begun = r.started();
    let parts: Vec<_> = begun.iter().map(|s| (s.1, s.2, s.3)).collect();
    assert_eq!(parts, [(10, Some(25), 2), (26, Some(41), 3)], "what nobody brings, shared out");
    r.pages(begun[0].0, 10..=25);
    r.ended(begun[0].0, Outcome::Done);
    let next = r.started();
    assert_eq!(
        (next[0].1, next[0].2, next[0].3),
        (42, Some(297), 2),
        "one request after the other, of a host that is fast a long one"
    );
    // A host that does not know yet is asked again.
    r.ended(begun[1].0, Outcome::Refused);
    assert!(r.started().is_empty());
    r.millis(2500);
    assert_eq!(r.started().iter().map(|s| (s.1, s.3)).collect::<Vec<_>>(), [(26, 3)]);
    r.clear();
    r.connect(1);
    let mut stopped = std::mem::take(&mut r.stops);
    stopped.sort_unstable();
    assert_eq!(stopped.len(), 2, "the tracker orders again");
    assert!(!stopped.contains(&ordered));
    r.answer(1);
    r.ended(ordered, Outcome::Broken);
    let numbers: Vec<_> = r.reports().iter().map(|r| r.assignment).collect();
    assert_eq!(numbers, [1], "of the reserve nothing is reported");
    let join = r.sent.iter().find_map(|m| if let ToTracker::Join(j) = m { Some(j) } else { None }).unwrap();
    assert_eq!(join.running, [1]);
    r.millis(60_000);
    assert!(r.started().is_empty());
}

#[test]
fn a_session_in_doubt_is_a_silence_too() {
    let (mut r, _) = fetching();
    r.e.handle_doubt(r.now, true);
    r.millis(1);
    let begun = r.started();
    assert_eq!(begun.len(), 2);
    r.page(begun[0].0, 10);
    r.millis(2000);
    assert_eq!(r.acked()[0], (0, vec![(10, 10)]), "as from elsewhere");
    r.e.handle_doubt(r.now, false);
    r.drain();
    assert_eq!(r.stops.len(), 3, "so is what stood still with the session, to be ordered anew");
    r.millis(60_000);
    assert!(r.started().is_empty());
}

#[test]
fn what_stood_still_with_the_session_is_ordered_anew_and_nobody_is_blamed() {
    let mut r = Rig::joined(100);
    r.assign(vec![
        assignment(1, PageSet::range(0, 9), Need::Bulk, &[1]),
        assignment(2, PageSet::range(10, 19), Need::Bulk, &[1]),
        assignment(3, PageSet::range(20, 29), Need::Bulk, &[2]),
    ]);
    let begun = r.started();
    assert_eq!(begun.len(), 3);
    begun.iter().for_each(|(id, first, ..)| r.page(*id, *first));
    r.millis(600);
    r.e.handle_doubt(r.now, true);
    r.millis(1500);
    r.page(begun[2].0, 21);
    r.clear();
    r.e.handle_doubt(r.now, false);
    r.drain();
    assert_eq!(r.stops, [begun[0].0, begun[1].0], "the third brings something");
    let reports: Vec<_> = r.reports().iter().map(|r| (r.assignment, r.outcome, r.pages)).collect();
    assert_eq!(reports, [(1, Outcome::Stopped, 1), (2, Outcome::Stopped, 1)]);
}

#[test]
fn what_is_still_silent_a_second_after_the_session_spoke_again_is_ordered_anew_too() {
    let mut r = Rig::joined(100);
    r.assign(vec![
        assignment(1, PageSet::range(0, 9), Need::Bulk, &[1]),
        assignment(2, PageSet::range(20, 29), Need::Bulk, &[2]),
    ]);
    let begun = r.started();
    begun.iter().for_each(|(id, first, ..)| r.page(*id, *first));
    r.millis(200);
    r.e.handle_doubt(r.now, true);
    r.millis(500);
    r.e.handle_doubt(r.now, false);
    r.drain();
    assert!(r.stops.is_empty(), "a pause so far");
    r.millis(200);
    r.page(begun[1].0, 21);
    r.clear();
    r.millis(200);
    assert_eq!(r.stops, [begun[0].0], "the other brings something");
    let reports: Vec<_> = r.reports().iter().map(|r| (r.assignment, r.outcome, r.pages)).collect();
    assert_eq!(reports, [(1, Outcome::Stopped, 1)]);
}

#[test]
fn a_player_fetches_from_its_playhead_on_and_not_everything() {
    let mut r = Rig::joined(10_000);
    let media = manifest(1, 1).id();
    let focus = Focus { media, at: Position::Page(5000), rate: None, urgent: 100_000, intent: Intent::Play };
    r.command(Command::Focus { handle: H, focus });
    let all = assignment(9, PageSet::range(0, 9999), Need::Reserve, &[2]);
    r.tell(Reserve { assignments: vec![all] }.into());
    r.disconnect();
    r.millis(1100);
    let mut reached = 5000;
    while let Some((id, first, last, _)) = r.started().pop() {
        assert_eq!(first, reached);
        reached = last.unwrap() + 1;
        r.pages(id, first..=last.unwrap());
        r.ended(id, Outcome::Done);
        r.millis(10);
    }
    assert_eq!(reached, 5000 + 2048 + 1);
}

#[test]
fn the_latest_reserve_counts_and_one_of_another_version_does_not() {
    let (mut r, _) = fetching();
    r.tell(reserve(&[4]));
    r.disconnect();
    r.millis(1100);
    assert_eq!(r.started().iter().map(|s| s.3).collect::<Vec<_>>(), [4]);
    r.connect(2);
    r.answer(2);
    r.clear();
    r.disconnect();
    r.millis(5000);
    assert!(r.started().is_empty(), "the driver has not taken the new version yet");
}

#[test]
fn what_a_host_lacks_is_asked_of_others_and_a_host_that_had_nothing_rests() {
    let (mut r, _) = fetching();
    r.disconnect();
    r.millis(1100);
    let begun = r.started();
    let (second, third) = (begun[0].0, begun[1].0);
    // The third has the first half of what it was asked for.
    r.ended(second, Outcome::Incomplete);
    r.pages(third, 26..=33);
    r.ended(third, Outcome::Incomplete);
    assert!(r.started().is_empty(), "who had some goes on in a moment");
    r.millis(900);
    assert!(r.started().is_empty());
    r.millis(700);
    let next: Vec<_> = r.started().iter().map(|s| (s.1, s.2, s.3)).collect();
    // Neither is asked again for what it lacked a moment ago.
    assert_eq!(next, [(34, Some(49), 2), (10, Some(25), 3)]);
}

#[test]
fn a_player_asks_the_last_resort_for_what_is_due_and_of_others_what_one_is_slow_to_bring() {
    let mut r = Rig::joined(10_000);
    let media = manifest(1, 1).id();
    // 10 pages a second.
    let focus =
        Focus { media, at: Position::Page(100), rate: Some(40_000), urgent: 80_000, intent: Intent::Play };
    r.command(Command::Focus { handle: H, focus: focus.clone() });
    let one = |h: u8| assignment(u64::from(h), PageSet::range(0, 9999), Need::Reserve, &[h]);
    r.tell(Reserve { assignments: [2, 3, 9].map(one).to_vec() }.into());
    r.disconnect();
    r.millis(1100);
    let begun = r.started();
    let parts: Vec<_> = begun.iter().map(|s| (s.1, s.2, s.3)).collect();
    assert_eq!(parts, [(100, Some(115), 2), (116, Some(131), 3), (132, Some(147), 9)]);
    r.pages(begun[2].0, 132..=147);
    r.ended(begun[2].0, Outcome::Done);
    let due = r.started();
    assert_eq!(due.iter().map(|s| (s.1, s.2, s.3)).collect::<Vec<_>>(), [(148, Some(150), 9)]);
    r.pages(due[0].0, 148..=150);
    r.ended(due[0].0, Outcome::Done);
    assert!(r.started().is_empty(), "the rest is not due");
    // The second host is slow: what it was to bring, and is due, others are asked for as well.
    r.pages(begun[1].0, 116..=131);
    r.ended(begun[1].0, Outcome::Done);
    assert_eq!(
        r.started().iter().map(|s| (s.1, s.3)).collect::<Vec<_>>(),
        [(151, 3)],
        "the others run ahead"
    );
    r.page(begun[0].0, 100);
    r.millis(2600);
    let helped: Vec<_> = r.started().iter().map(|s| (s.1, s.3)).collect();
    assert_eq!(helped, [(101, 9)]);
}
