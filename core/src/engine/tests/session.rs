use icet::message::{Allow, Cancel, Focus, InfoAnswer, Join, Knock, Position, Standing, Withdrawn};

use super::*;
use crate::engine::io::{Giving, Refusal, Share};

fn joins(r: &Rig) -> Vec<Join> {
    r.sent.iter().filter_map(|m| if let ToTracker::Join(j) = m { Some(j.clone()) } else { None }).collect()
}

fn focus(page: u64) -> Command {
    let focus = Focus {
        media: manifest(1, 1).id(),
        at: Position::Page(page),
        rate: None,
        urgent: 1000,
        intent: Intent::Play,
    };
    Command::Focus { handle: H, focus }
}

fn foci(r: &Rig) -> Vec<Position> {
    r.sent.iter().filter_map(|m| if let ToTracker::Focus(f) = m { Some(f.at) } else { None }).collect()
}

#[test]
fn connects_first_and_sends_one_flight() {
    let mut e = Engine::new(config());
    assert!(matches!(e.poll_action(), Some(Action::Connect)));
    let mut r = Rig::new();
    r.join(100);
    r.command(Command::Info { handle: Handle(8), path: path() });
    assert!(r.sent.is_empty());
    r.e.handle_connected(r.now, tracker());
    r.drain();
    let kinds: Vec<_> = r.sent.iter().map(ToTracker::number).collect();
    assert_eq!(kinds, [0, 2, 11], "hello, join, info in one flight");
}

#[test]
fn backs_off_doubling_with_jitter_and_starts_anew_after_a_good_session() {
    let mut r = Rig::new();
    let mut pauses = Vec::new();
    for _ in 0..10 {
        r.disconnect();
        let at = r.e.poll_timeout().unwrap();
        pauses.push(at.since(r.now).as_millis());
        r.pass(at.since(r.now));
        assert!(matches!(r.rest.pop(), Some(Action::Connect)));
    }
    for (i, p) in pauses.iter().enumerate() {
        let full = (500u128 << i).min(60_000);
        assert!((full / 2..=full).contains(p), "{pauses:?}");
    }
    // Other seeds, other pauses.
    let mut other = Rig::with(Config { seed: 2, ..config() });
    other.disconnect();
    assert_ne!(other.e.poll_timeout().unwrap().since(other.now).as_millis(), pauses[0]);
    // A session that breaks at once does not make it hurry.
    r.connect(1);
    r.disconnect();
    assert!(r.e.poll_timeout().unwrap().since(r.now) >= Duration::from_secs(30));
    r.pass(Duration::from_secs(60));
    r.connect(1);
    r.millis(6000);
    r.disconnect();
    assert!(r.e.poll_timeout().unwrap().since(r.now) <= Duration::from_millis(500));
}

#[test]
fn a_reconnect_states_pages_and_running_assignments() {
    let mut r = Rig::joined(100);
    r.assign(vec![
        assignment(5, PageSet::range(0, 9), Need::Bulk, &[1]),
        assignment(6, PageSet::range(20, 29), Need::Bulk, &[2]),
    ]);
    let started = r.started();
    r.pages(started[0].0, 0..=4);
    r.disconnect();
    assert!(r.stops.is_empty(), "fetches go on during a silence");
    r.pages(started[0].0, 5..=9);
    r.ended(started[0].0, Outcome::Done);
    r.clear();
    r.millis(500);
    r.e.handle_connected(r.now, tracker());
    r.drain();
    let ToTracker::Hello(hello) = &r.sent[0] else { panic!("{:?}", r.sent[0]) };
    assert_eq!(hello.epoch, Some(1));
    let join = &joins(&r)[0];
    assert_eq!(join.have.runs().collect::<Vec<_>>(), [(0, 9)]);
    assert_eq!((join.version, &join.running[..]), (1, &[6][..]));
    assert!(r.reports().is_empty(), "the epoch is not known yet");
    r.tell(welcome(1));
    // Assignment 5 ended in the meantime, and its host is credited with pages that the join stated already.
    assert_eq!(r.outcomes(), [(5, 1, Outcome::Done, true)]);
    assert_eq!(r.acked(), [(5, vec![(0, 9)])]);
}

#[test]
fn a_session_that_moves_to_another_carrier_loses_nothing() {
    let mut r = Rig::joined(100);
    r.assign(vec![
        assignment(5, PageSet::range(0, 9), Need::Bulk, &[1]),
        assignment(6, PageSet::range(20, 29), Need::Bulk, &[2]),
    ]);
    let started = r.started();
    r.pages(started[0].0, 0..=4);
    // What was said last is lost with the carrier.
    r.command(Command::Info { handle: Handle(8), path: path() });
    r.clear();
    r.e.handle_moved(r.now, tracker());
    r.drain();
    assert!(r.rest.is_empty(), "nothing is dialled: {:?}", r.rest);
    assert!(r.stops.is_empty(), "fetches go on");
    let kinds: Vec<_> = r.sent.iter().map(ToTracker::number).collect();
    assert_eq!(kinds, [0, 2, 11], "hello, join and the question in one flight");
    let join = &joins(&r)[0];
    assert_eq!(join.have.runs().collect::<Vec<_>>(), [(0, 4)]);
    assert_eq!((join.version, &join.running[..]), (1, &[5, 6][..]));
    r.tell(welcome(1));
    r.pages(started[0].0, 5..=9);
    r.ended(started[0].0, Outcome::Done);
    assert_eq!(r.outcomes(), [(5, 1, Outcome::Done, true)]);
    // An end of that session is an end as any other.
    r.disconnect();
    assert!(r.e.poll_timeout().is_some());
    assert!(r.stops.is_empty());
}

#[test]
fn numbers_of_an_older_epoch_are_not_told_to_a_new_tracker() {
    let mut r = Rig::joined(100);
    r.assign(vec![
        assignment(5, PageSet::range(0, 9), Need::Bulk, &[1]),
        assignment(6, PageSet::range(20, 29), Need::Bulk, &[2]),
    ]);
    let started = r.started();
    r.pages(started[0].0, 0..=4);
    r.disconnect();
    r.pages(started[0].0, 5..=9);
    r.ended(started[0].0, Outcome::Done);
    r.millis(500);
    r.clear();
    r.e.handle_connected(r.now, tracker());
    r.drain();
    r.page(started[1].0, 20);
    r.tell(welcome(2));
    r.answer(1);
    assert!(r.reports().is_empty());
    assert_eq!(r.acked(), [(0, vec![(20, 20)])], "what the join stated is not told again");
    // The new tracker's assignment covers what still runs: only what nobody fetches is started.
    r.assign(vec![assignment(6, PageSet::range(18, 35), Need::Bulk, &[3])]);
    let new = r.started();
    assert_eq!(new.iter().map(|s| (s.1, s.2, s.3)).collect::<Vec<_>>(), [(18, Some(19), 3)]);
    r.clear();
    r.pages(started[1].0, 21..=29);
    r.pages(new[0].0, 18..=19);
    r.ended(new[0].0, Outcome::Done);
    let new = r.started();
    assert_eq!(new.iter().map(|s| (s.1, s.2, s.3)).collect::<Vec<_>>(), [(30, Some(35), 3)]);
    r.ended(started[1].0, Outcome::Done);
    r.pages(new[0].0, 30..=35);
    r.ended(new[0].0, Outcome::Done);
    assert_eq!(r.outcomes(), [(6, 3, Outcome::Done, true)]);
}

#[test]
fn a_new_tracker_supersedes_what_has_not_started() {
    let mut r = Rig::joined_with(Config { fetches: 1, ..config() }, 100);
    r.assign(vec![
        assignment(1, PageSet::range(0, 9), Need::Bulk, &[1]),
        assignment(2, PageSet::range(10, 19), Need::Bulk, &[1]),
        assignment(3, PageSet::range(50, 59), Need::Bulk, &[1]),
    ]);
    let first = r.one_started();
    r.disconnect();
    r.millis(500);
    r.connect(2);
    r.answer(1);
    r.assign(vec![assignment(1, PageSet::range(10, 14), Need::Bulk, &[2])]);
    r.pages(first, 0..=9);
    r.ended(first, Outcome::Done);
    let next = r.started();
    assert_eq!((next[0].1, next[0].3), (50, 1), "what the new tracker did not touch goes on");
    r.pages(next[0].0, 50..=59);
    r.ended(next[0].0, Outcome::Done);
    let next = r.started();
    assert_eq!((next[0].1, next[0].2, next[0].3), (10, Some(14), 2));
}

#[test]
fn assignments_wait_until_the_media_is_accepted() {
    let mut r = Rig::new();
    r.join(100);
    r.connect(1);
    r.answer(1);
    assert!(r.rest.iter().any(|a| matches!(a, Action::Joined { handle: H, .. })));
    r.assign(vec![assignment(1, PageSet::range(0, 9), Need::Bulk, &[1])]);
    r.assign((2..400).map(|i| assignment(i, PageSet::range(10, 19), Need::Bulk, &[1])).collect());
    r.tell(Cancel { assignments: vec![2] }.into());
    assert!(r.starts.is_empty());
    let back = r.outcomes();
    assert!(back.len() > 100 && back.iter().all(|(_, _, o, last)| *o == Outcome::Stopped && *last));
    r.clear();
    let mut held = PageMap::new(100);
    held.insert(3);
    r.accept(held);
    assert_eq!(r.acked(), [(0, vec![(3, 3)])], "the tracker learns what stood on the disk");
    let started = r.started();
    assert_eq!((started[0].1, started[0].2), (0, Some(9)), "one held page is cheaper than two requests");
}

#[test]
fn errors_with_a_time_are_tried_again_and_others_refuse() {
    let mut r = Rig::new();
    r.join(100);
    r.connect(1);
    let first = joins(&r)[0].request;
    r.tell(error(ErrorCode::QUOTA, first, Some(3000)));
    r.clear();
    r.millis(2999);
    assert!(r.sent.is_empty());
    r.millis(1);
    let second = joins(&r)[0].request;
    assert!(r.rest.iter().all(|a| !matches!(a, Action::Postponed { .. })), "so little is not told");
    r.tell(error(ErrorCode::QUOTA, second, Some(3_600_000)));
    let told = Duration::from_secs(600);
    assert!(matches!(r.rest.pop(), Some(Action::Postponed { handle: H, pause, .. }) if pause == told));
    r.clear();
    r.millis(600_000);
    let third = joins(&r)[0].request;
    r.tell(error(ErrorCode::NO_MEDIA, third, None));
    assert!(matches!(
        r.rest.pop(),
        Some(Action::Refused { handle: H, why: Refusal::Error(e) }) if e.code == ErrorCode::NO_MEDIA
    ));
    assert_eq!(r.e.tally(H), None);
    r.disconnect();
    r.clear();
    r.millis(500);
    r.connect(1);
    assert!(joins(&r).is_empty(), "a refused media is not joined again");
}

#[test]
fn a_media_that_worked_is_asked_for_again_while_a_restarted_tracker_waits_for_its_publisher() {
    let mut r = Rig::joined(100);
    r.disconnect();
    r.millis(500);
    r.connect(2);
    let mut tries = 0;
    while r.rest.iter().all(|a| !matches!(a, Action::Refused { .. })) {
        let Some(join) = joins(&r).pop() else {
            r.millis(1000);
            continue;
        };
        r.clear();
        r.tell(error(ErrorCode::NO_MEDIA, join.request, None));
        tries += 1;
    }
    assert_eq!(tries, 7);
}

#[test]
fn a_lookup_that_fails_leaves_the_media_alone() {
    let mut r = Rig::joined(100);
    r.command(Command::Locate { handle: H, at: Position::Time(5) });
    let Some(ToTracker::Locate(m)) = r.sent.pop() else { panic!() };
    r.tell(error(ErrorCode::INTERNAL, m.request, None));
    assert!(matches!(
        r.rest.pop(),
        Some(Action::Refused { why: Refusal::Locate { at: Position::Time(5), .. }, .. })
    ));
    assert!(r.e.tally(H).is_some());
    r.command(Command::Locate { handle: H, at: Position::Time(6) });
    let Some(ToTracker::Locate(m)) = r.sent.pop() else { panic!() };
    // Lost with the session, asked again in the next.
    r.disconnect();
    r.millis(500);
    r.clear();
    r.connect(1);
    assert!(r.sent.contains(&ToTracker::Locate(m)));
}

#[test]
fn info_is_answered_by_number() {
    let mut r = Rig::new();
    r.connect(1);
    r.command(Command::Info { handle: Handle(1), path: path() });
    r.command(Command::Info { handle: Handle(2), path: path() });
    let Some(ToTracker::InfoRequest(m)) = r.sent.pop() else { panic!() };
    let answer = InfoAnswer {
        request: m.request,
        manifest: manifest(5, 1).signed().clone(),
        listeners: 0,
        hits: 0,
        complete: 0,
        sent: 0,
        received: 0,
        alternatives: Vec::new(),
        head: None,
    };
    r.tell(answer.clone().into());
    assert!(matches!(r.rest.pop(), Some(Action::Info { handle: Handle(2), .. })));
    r.clear();
    r.tell(answer.into());
    assert!(r.rest.is_empty(), "nobody asked twice");
}

#[test]
fn a_standing_is_asked_for_once_and_a_tracker_that_tells_none_is_heard() {
    let standing = |request| Standing {
        request,
        sent: 1,
        received: 2,
        weight: 1000,
        peers: 0,
        ahead: 0,
        trust: 1000,
        marks: Vec::new(),
    };
    let asked = |r: &mut Rig| match r.sent.pop() {
        Some(ToTracker::StandingRequest(m)) => m.request,
        other => panic!("{other:?}"),
    };
    let mut r = Rig::new();
    // Before there is a session: in its first flight.
    r.command(Command::Standing);
    assert!(r.sent.is_empty());
    r.connect(1);
    let request = asked(&mut r);
    r.clear();
    r.tell(standing(request + 1).into());
    assert!(r.rest.is_empty(), "of another request");
    r.tell(standing(request).into());
    assert!(matches!(r.rest.pop(), Some(Action::Standing(Some(s))) if s.sent == 1));
    r.tell(standing(request).into());
    assert!(r.rest.is_empty(), "nobody asked twice");
    // An earlier revision does not know the message, and cannot say which request it was.
    r.command(Command::Standing);
    asked(&mut r);
    let unknown = ErrorMessage {
        code: ErrorCode::UNSUPPORTED,
        request: None,
        media: None,
        text: "message 14 is not known here".into(),
        retry: None,
    };
    r.tell(unknown.into());
    assert!(matches!(r.rest.pop(), Some(Action::Standing(None))));
    // Or says nothing at all: that costs no session.
    r.command(Command::Standing);
    r.clear();
    r.pass(Duration::from_secs(120));
    assert!(!r.rest.iter().any(|a| matches!(a, Action::Disconnect)));
    assert!(r.sent.is_empty(), "{:?}", r.sent);
}

#[test]
fn what_is_given_is_told_in_each_session_and_only_if_it_is_not_all() {
    let allows = |r: &Rig| -> Vec<Allow> {
        r.sent
            .iter()
            .filter_map(|m| if let ToTracker::Allow(a) = m { Some(a.clone()) } else { None })
            .collect()
    };
    let up = |r: &Rig| match &r.sent[0] {
        ToTracker::Hello(h) => h.limits.up,
        other => panic!("{other:?}"),
    };
    let mut r = Rig::joined(100);
    assert!(allows(&r).is_empty());
    r.command(Command::Give(Giving::default()));
    assert!(allows(&r).is_empty());
    let rest = Giving { rests: true, ..Giving::default() };
    r.command(Command::Give(rest.clone()));
    r.command(Command::Give(rest));
    assert_eq!(
        allows(&r),
        [Allow { up: Some(0), down: None, near: false, withheld: Vec::new(), once: None }]
    );
    r.disconnect();
    r.millis(500);
    r.clear();
    r.connect(1);
    assert_eq!(up(&r), Some(0), "trackers of an earlier revision understand so much");
    assert_eq!(allows(&r).len(), 1);
    r.clear();
    let media = vec![(path(), Share::Nothing)];
    r.command(Command::Give(Giving { near: true, media, once: true, rests: false }));
    let id = manifest(1, 1).id();
    assert_eq!(
        allows(&r),
        [Allow { up: None, down: None, near: true, withheld: vec![id], once: Some(true) }]
    );
    r.clear();
    r.command(Command::Give(Giving::default()));
    assert_eq!(allows(&r), [Allow { up: None, down: None, near: false, withheld: Vec::new(), once: None }]);
}

#[test]
fn who_is_knocked_at_answers_at_once() {
    let mut r = Rig::joined(100);
    r.clear();
    r.tell(Knock {}.into());
    assert!(matches!(r.sent.as_slice(), [ToTracker::Ping(_)]), "{:?}", r.sent);
}

#[test]
fn a_storm_of_seeks_is_told_first_and_last() {
    let mut r = Rig::joined(1000);
    for page in 0..50 {
        r.command(focus(page));
        r.millis(1);
    }
    assert_eq!(foci(&r), [Position::Page(0)]);
    r.millis(100);
    assert_eq!(foci(&r), [Position::Page(0), Position::Page(49)]);
    r.millis(1000);
    r.command(focus(77));
    assert_eq!(foci(&r).last(), Some(&Position::Page(77)));
    // The next session begins where the player is.
    r.disconnect();
    r.millis(500);
    r.clear();
    r.connect(1);
    assert_eq!(joins(&r)[0].at, Some(Position::Page(77)));
    assert_eq!(foci(&r), [Position::Page(77)]);
}

#[test]
fn a_tracker_that_owes_an_answer_and_says_nothing_is_given_up() {
    let mut r = Rig::new();
    r.join(100);
    r.connect(1);
    r.clear();
    r.pass(Duration::from_secs(31));
    assert!(matches!(r.rest[..], [Action::Disconnect, Action::Connect]), "{:?}", r.rest);
    let mut quiet = Rig::joined(100);
    quiet.pass(Duration::from_secs(3600));
    assert!(quiet.rest.is_empty(), "a tracker that owes nothing may be silent: {:?}", quiet.rest);
}

#[test]
fn a_withdrawn_media_ends() {
    let mut r = Rig::joined(100);
    r.assign(vec![assignment(1, PageSet::range(0, 9), Need::Bulk, &[1])]);
    let id = r.one_started();
    let moved = Some(MediaPath::new("elsewhere").unwrap());
    let media = manifest(1, 1).id();
    r.tell(Withdrawn { media, moved: moved.clone(), operator: None, off_air: None }.into());
    assert_eq!(r.stops, [id]);
    assert!(matches!(r.rest.pop(), Some(Action::Refused { why: Refusal::Withdrawn(m), .. }) if m == moved));
    // The operator's doing is not blamed on the publisher.
    let mut r = Rig::joined(100);
    r.tell(Withdrawn { media, moved: None, operator: Some(true), off_air: None }.into());
    assert!(matches!(r.rest.pop(), Some(Action::Refused { why: Refusal::TakenOff, .. })));
    // Nor is it that a broadcaster is gone.
    let mut r = Rig::joined(100);
    r.tell(Withdrawn { media, moved: None, operator: None, off_air: Some(true) }.into());
    assert!(matches!(r.rest.pop(), Some(Action::Refused { why: Refusal::OffAir, .. })));
}

#[test]
fn another_media_than_the_one_asked_for_is_refused() {
    let mut r = Rig::new();
    r.pages = 10;
    let other = PeerKey([3; 32]);
    r.command(Command::Join {
        handle: H,
        path: path(),
        publisher: Some(other),
        version: 0,
        held: PageRanges::new(),
        intent: Intent::Whole,
        at: None,
        back: None,
    });
    r.connect(1);
    r.answer(1);
    assert!(matches!(
        r.rest.pop(),
        Some(Action::Refused { why: Refusal::Error(e), .. }) if e.code == ErrorCode::FORGED
    ));
}

#[test]
fn a_second_handle_for_one_media_is_refused() {
    let mut r = Rig::joined(100);
    r.command(Command::Join {
        handle: Handle(8),
        path: path(),
        publisher: Some(publisher().key()),
        version: 0,
        held: PageRanges::new(),
        intent: Intent::Whole,
        at: None,
        back: None,
    });
    assert!(matches!(r.rest.pop(), Some(Action::Refused { handle: Handle(8), .. })));
    assert!(r.sent.is_empty(), "the tracker hears nothing of it");
}

#[test]
fn a_newer_version_stops_the_older_when_it_is_accepted() {
    let mut r = Rig::joined(100);
    r.assign(vec![assignment(1, PageSet::range(0, 9), Need::Bulk, &[1])]);
    let old = r.one_started();
    r.page(old, 0);
    r.tell(icet::message::Newer { manifest: manifest(120, 2).signed().clone() }.into());
    assert!(matches!(r.rest.pop(), Some(Action::Newer { handle: H, .. })));
    r.assign(vec![assignment(2, PageSet::range(0, 9), Need::Bulk, &[1])]);
    assert!(r.starts.is_empty() && r.stops.is_empty());
    r.clear();
    r.pages = 120;
    r.command(Command::Accept { handle: H, held: PageMap::new(120), bytes: 480_000, version: 2 });
    assert_eq!(r.stops, [old]);
    assert!(joins(&r).is_empty(), "we are in the swarm of the new version already");
    assert!(r.acked().is_empty(), "pages of the old version are nothing to the new one");
    let started = r.started();
    assert_eq!((started[0].1, started[0].2), (0, Some(9)));
}

#[test]
fn a_tracker_that_is_full_or_prefers_a_rival_is_not_hurried() {
    for (code, retry, least) in [(ErrorCode::QUOTA, Some(45_000), 22), (ErrorCode::FORBIDDEN, None, 30)] {
        let mut r = Rig::new();
        r.join(100);
        r.connect(1);
        r.millis(10_000);
        r.tell(ErrorMessage { code, request: None, media: None, text: String::new(), retry }.into());
        r.disconnect();
        let pause = r.e.poll_timeout().unwrap().since(r.now);
        assert!(pause >= Duration::from_secs(least), "{pause:?}");
    }
}

#[test]
fn who_finds_another_program_in_its_place_gives_up_after_a_while() {
    let mut r = Rig::new();
    r.join(100);
    let (code, text) = (ErrorCode::FORBIDDEN, "another program".to_owned());
    let there = ErrorMessage { code, request: None, media: None, text, retry: Some(5000) };
    for n in 1..=3 {
        r.e.handle_connected(r.now, tracker());
        r.drain();
        r.rest.clear();
        r.tell(there.clone().into());
        let refused = r.rest.iter().any(|a| matches!(a, Action::Refused { .. }));
        assert_eq!(refused, n == 3, "{n}: {:?}", r.rest);
        if n < 3 {
            r.disconnect();
            let pause = r.e.poll_timeout().unwrap().since(r.now);
            assert!((2500..=5000).contains(&pause.as_millis()), "{pause:?}");
            r.millis(5000);
        }
    }
}

#[test]
fn who_had_a_session_and_finds_another_program_in_its_place_hurries_back_twice_and_keeps_asking() {
    let mut r = Rig::new();
    r.join(100);
    r.connect(1);
    r.disconnect();
    let (code, text) = (ErrorCode::FORBIDDEN, "another program".to_owned());
    let there = ErrorMessage { code, request: None, media: None, text, retry: Some(3000) };
    for n in 1..=5 {
        r.millis(60_000);
        r.e.handle_connected(r.now, tracker());
        r.drain();
        r.rest.clear();
        r.tell(there.clone().into());
        assert!(!r.rest.iter().any(|a| matches!(a, Action::Refused { .. })), "{n}: {:?}", r.rest);
        r.disconnect();
        let pause = r.e.poll_timeout().unwrap().since(r.now).as_millis();
        let between = if n < 3 { 1500..=3000 } else { 10_000..=20_000 };
        assert!(between.contains(&pause), "{n}: {pause}");
    }
}

#[test]
fn who_is_banned_is_told_at_once() {
    let mut r = Rig::new();
    r.join(100);
    r.e.handle_connected(r.now, tracker());
    let (code, text) = (ErrorCode::FORBIDDEN, "banned".to_owned());
    r.tell(ErrorMessage { code, request: None, media: None, text, retry: None }.into());
    assert!(r.rest.iter().any(|a| matches!(a, Action::Refused { .. })), "{:?}", r.rest);
}

#[test]
fn what_is_silent_when_the_session_moves_to_another_carrier_is_ordered_anew() {
    let mut r = Rig::joined(100);
    r.assign(vec![
        assignment(5, PageSet::range(0, 9), Need::Bulk, &[1]),
        assignment(6, PageSet::range(20, 29), Need::Bulk, &[2]),
    ]);
    let started = r.started();
    started.iter().for_each(|(id, first, ..)| r.page(*id, *first));
    r.millis(800);
    r.e.handle_moved(r.now, tracker());
    r.tell(welcome(1));
    r.clear();
    r.page(started[1].0, 21);
    r.millis(200);
    assert_eq!(r.stops, [started[0].0]);
    assert_eq!(r.outcomes(), [(5, 1, Outcome::Stopped, true)]);
}

#[test]
fn an_own_session_that_ends_late_is_no_rival() {
    let mut r = Rig::new();
    r.join(100);
    r.connect(1);
    r.millis(10_000);
    r.e.handle_moved(r.now, tracker());
    let code = ErrorCode::FORBIDDEN;
    r.tell(ErrorMessage { code, request: None, media: None, text: String::new(), retry: None }.into());
    r.disconnect();
    let pause = r.e.poll_timeout().unwrap().since(r.now);
    assert!(pause < Duration::from_secs(2), "{pause:?}");
}

#[test]
fn who_was_put_out_of_a_swarm_joins_again() {
    let mut r = Rig::joined(100);
    let media = Some(manifest(1, 1).id());
    let out =
        ErrorMessage { code: ErrorCode::QUOTA, request: None, media, text: String::new(), retry: Some(5000) };
    r.tell(out.clone().into());
    r.tell(out.into());
    r.millis(4999);
    assert!(joins(&r).is_empty());
    r.millis(1);
    assert_eq!(joins(&r).len(), 1);
}

#[test]
fn addresses_that_were_not_reached_are_announced_again_ever_more_seldom() {
    use icet::message::ReachResult;
    let at = |kind| NetAddr { kind, at: "198.51.100.1:4238".parse().unwrap() };
    let reach = vec![at(NetKind::Tcp), at(NetKind::Udp)];
    let hello = Hello { reach: reach.clone(), ..config().hello };
    let mut r = Rig::joined_with(Config { hello, ..config() }, 100);
    let say = |r: &mut Rig, proved| {
        for addr in reach.clone() {
            r.tell(ReachResult { addr, proved, why: String::new() }.into());
        }
    };
    let announced = |r: &Rig| r.sent.iter().filter(|m| matches!(m, ToTracker::Reach(_))).count();
    say(&mut r, false);
    for (pause, n) in [(129_000, 0), (1_000, 1)] {
        r.millis(pause);
        assert_eq!(announced(&r), n);
    }
    say(&mut r, false);
    r.millis(259_000);
    assert_eq!(announced(&r), 1);
    r.millis(1_000);
    assert_eq!(announced(&r), 2);
    // It is open now.
    say(&mut r, true);
    r.millis(3_600_000);
    assert_eq!(announced(&r), 2);
}
