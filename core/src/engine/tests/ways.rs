//! Hosts and carriers that fall silent in the middle of a fetch.

use std::collections::BTreeSet;

use super::*;

const B: Need = Need::Bulk;

/// Host `host` over `http` (TCP) or `quic` (UDP).
fn over(host: u8, kind: NetKind) -> Source {
    let mut s = source(host);
    let name = if kind == NetKind::Tcp { "http" } else { "quic" };
    s.host.protocol = name.parse().unwrap();
    s.host.addrs = vec![NetAddr { kind, at: "192.0.2.7:4000".parse().unwrap() }];
    s
}

/// Over UDP, with these sources to stand in.
fn ordered(id: u64, pages: (PageNo, PageNo), stand_ins: Vec<Source>) -> Assignment {
    Assignment {
        source: over(1, NetKind::Udp),
        stand_ins,
        ..assignment(id, PageSet::range(pages.0, pages.1), B, &[1])
    }
}

/// Pages of a fetch, one every 100 ms.
fn steadily(r: &mut Rig, id: FetchId, pages: std::ops::RangeInclusive<PageNo>) {
    for p in pages {
        r.millis(100);
        r.page(id, p);
    }
}

#[test]
fn what_falls_silent_goes_on_over_another_carrier_with_all_that_it_had() {
    let mut r = Rig::joined_with(Config { per_host: 4, ..config() }, 1000);
    let tcp = || vec![over(1, NetKind::Tcp)];
    r.assign(vec![ordered(1, (0, 99), tcp()), ordered(2, (100, 199), tcp())]);
    let started = r.started();
    steadily(&mut r, started[0].0, 0..=19);
    steadily(&mut r, started[1].0, 100..=119);
    assert!(r.stops.is_empty() && r.starts.is_empty(), "one thing after the other is no silence");
    r.clear();
    r.millis(950);
    assert!(r.stops.is_empty());
    r.millis(100);
    assert_eq!(r.stops.len(), 2, "both");
    let moved = r.started();
    assert_eq!(moved.iter().map(|m| (m.1, m.2)).collect::<Vec<_>>(), [(20, Some(99)), (120, Some(199))]);
    let told: Vec<_> = r.reports().iter().map(|r| (r.protocol.to_string(), r.outcome, r.last)).collect();
    assert_eq!(told, vec![("quic".to_owned(), Outcome::Stalled, false); 2]);
    // What is ordered now goes past it at once, and past other hosts over the same carrier.
    r.clear();
    r.assign(vec![ordered(3, (300, 309), vec![over(2, NetKind::Udp), over(1, NetKind::Tcp)])]);
    assert_eq!(r.started().len(), 1);
    let told: Vec<_> = r.reports().iter().map(|r| (r.host.0[0], r.outcome)).collect();
    assert_eq!(told, [(1, Outcome::Unreachable), (2, Outcome::Unreachable)]);
}

#[test]
fn a_host_that_falls_silent_is_left_for_another_over_the_same_carrier() {
    let mut r = Rig::joined_with(Config { per_host: 4, ..config() }, 1000);
    let others = || vec![over(2, NetKind::Udp), over(3, NetKind::Udp)];
    r.assign(vec![ordered(1, (0, 99), others()), ordered(2, (100, 199), others())]);
    let started = r.started();
    steadily(&mut r, started[0].0, 0..=9);
    steadily(&mut r, started[1].0, 100..=109);
    r.clear();
    r.millis(1050);
    assert_eq!(r.stops.len(), 2, "both");
    let moved = r.started();
    let to: Vec<_> = moved.iter().map(|m| (m.1, m.3)).collect();
    assert_eq!(
        to,
        [(10, 2), (110, 2)],
        "to the first of them, though nothing comes over the carrier any more"
    );
    let told: Vec<_> = r.reports().iter().map(|r| (r.host.0[0], r.outcome, r.last)).collect();
    assert_eq!(told, vec![(1, Outcome::Stalled, false); 2], "and nothing is said of who was not asked");
    steadily(&mut r, moved[0].0, 10..=19);
    // What is ordered now from the silent one is asked of the others at once.
    r.clear();
    r.assign(vec![ordered(3, (300, 309), others())]);
    assert_eq!(r.started().iter().map(|s| (s.1, s.3)).collect::<Vec<_>>(), [(300, 2)]);
    assert_eq!(r.reports().iter().map(|r| r.host.0[0]).collect::<Vec<_>>(), [1]);
}

#[test]
fn who_has_nobody_else_is_patient() {
    let mut r = Rig::joined(1000);
    r.assign(vec![ordered(1, (0, 99), Vec::new())]);
    let id = r.one_started();
    steadily(&mut r, id, 0..=9);
    r.millis(9_900);
    assert!(r.stops.is_empty());
    r.millis(200);
    assert_eq!(r.stops, [id]);
}

#[test]
fn a_way_that_never_brought_anything_is_not_called_silent() {
    let mut r = Rig::joined(1000);
    r.assign(vec![ordered(1, (0, 99), vec![over(1, NetKind::Tcp)])]);
    let id = r.one_started();
    r.millis(9_900);
    assert!(r.stops.is_empty(), "it may have much to send before");
    r.millis(200);
    assert_eq!(r.stops, [id]);
}

#[test]
fn patience_is_with_those_who_pause() {
    let mut r = Rig::joined(1000);
    r.assign(vec![ordered(1, (0, 99), vec![over(1, NetKind::Tcp)])]);
    let id = r.one_started();
    r.page(id, 0);
    for page in 1..6 {
        r.millis(900);
        r.page(id, page);
    }
    r.millis(2_600);
    assert!(r.stops.is_empty(), "three pauses");
    r.millis(200);
    assert_eq!(r.stops, [id]);
}

#[test]
fn one_straggler_does_not_triple_its_lateness() {
    let mut r = Rig::joined(1000);
    r.assign(vec![ordered(1, (0, 99), vec![over(1, NetKind::Tcp)])]);
    let id = r.one_started();
    steadily(&mut r, id, 0..=9);
    r.millis(840);
    r.page(id, 10);
    r.millis(1_650);
    assert!(r.stops.is_empty(), "as late as that one, and some more");
    r.millis(200);
    assert_eq!(r.stops, [id], "not 2.5 s");
}

#[test]
fn a_carrier_that_is_back_is_used_again() {
    let mut r = Rig::joined(1000);
    r.assign(vec![ordered(1, (0, 9), vec![over(1, NetKind::Tcp)])]);
    let id = r.one_started();
    steadily(&mut r, id, 0..=4);
    r.millis(1100);
    let id = r.one_started();
    steadily(&mut r, id, 5..=9);
    r.ended(id, Outcome::Done);
    r.millis(5000);
    r.clear();
    r.assign(vec![ordered(2, (100, 199), vec![over(1, NetKind::Tcp)])]);
    let id = r.one_started();
    assert!(r.reports().is_empty(), "nothing is passed by");
    // It still brings nothing: a second tells by now.
    r.millis(1100);
    assert_eq!(r.stops, [id]);
    let id = r.one_started();
    steadily(&mut r, id, 100..=149);
    r.clear();
    // The other way round.
    r.assign(vec![Assignment {
        source: over(1, NetKind::Tcp),
        ..ordered(3, (200, 299), vec![over(1, NetKind::Udp)])
    }]);
    let other = r.one_started();
    steadily(&mut r, other, 200..=205);
    r.millis(1100);
    assert!(r.stops.contains(&other));
    assert!(r.started().iter().any(|s| s.1 == 206));
}

/// Over UDP, and the same host over TCP to stand in.
fn either(id: u64, pages: (PageNo, PageNo)) -> Assignment {
    ordered(id, pages, vec![over(1, NetKind::Tcp)])
}

/// Of each fetch that was started since the last look: its first page, and whether it is the order's first source, which is
/// over UDP. (What is passed by is reported.)
fn by_udp(r: &mut Rig) -> Vec<(PageNo, bool)> {
    let passed = r.reports().iter().filter(|p| p.outcome == Outcome::Unreachable && !p.last).count();
    r.sent.clear();
    let started = r.started();
    let udp = started.len() - passed;
    started.iter().enumerate().map(|(i, s)| (s.1, i < udp)).collect()
}

#[test]
fn what_the_session_met_fetches_need_not_meet() {
    let mut r = Rig::joined_with(Config { per_host: 6, fetches: 8, ..config() }, 1000);
    r.assign(vec![Assignment { source: over(1, NetKind::Tcp), ..ordered(1, (0, 99), Vec::new()) }]);
    let tcp = r.one_started();
    steadily(&mut r, tcp, 0..=4);
    r.assign(vec![either(2, (100, 109))]);
    let udp = r.one_started();
    r.millis(500);
    r.page(tcp, 5);
    // The session was over UDP, and goes on over TCP.
    r.e.handle_carrier(r.now, NetKind::Udp, false);
    r.e.handle_carrier(r.now, NetKind::Tcp, true);
    r.drain();
    r.clear();
    r.assign(vec![either(3, (200, 209))]);
    assert_eq!(by_udp(&mut r), [(200, false)], "past it at once");
    // What is under way has its second, though pages come over TCP and it never brought anything.
    steadily(&mut r, tcp, 6..=9);
    assert!(r.stops.is_empty());
    steadily(&mut r, tcp, 10..=10);
    assert_eq!(r.stops, [udp]);
    // Who hears something over UDP does not care what the session met.
    let mut r = Rig::joined_with(Config { per_host: 6, fetches: 8, ..config() }, 1000);
    r.assign(vec![either(1, (0, 99))]);
    let udp = r.one_started();
    steadily(&mut r, udp, 0..=4);
    r.e.handle_carrier(r.now, NetKind::Udp, false);
    r.clear();
    r.assign(vec![either(2, (200, 209))]);
    assert_eq!(by_udp(&mut r), [(200, true)]);
}

#[test]
fn a_carrier_that_fell_silent_is_tried_by_one_fetch_at_a_time_and_ever_more_seldom() {
    let mut r = Rig::joined_with(Config { per_host: 6, fetches: 8, ..config() }, 9000);
    r.assign(vec![either(1, (0, 9))]);
    let id = r.one_started();
    steadily(&mut r, id, 0..=4);
    r.millis(1000);
    assert_eq!(r.stops, [id]);
    let id = r.one_started();
    r.pages(id, 5..=9);
    r.ended(id, Outcome::Done);
    for (round, pause) in (1..).zip([5, 10, 20, 40, 60, 60]) {
        let at = round * 1000;
        r.millis(pause * 1000 - 1);
        r.clear();
        r.assign(vec![either(round * 10, (at, at + 9))]);
        assert_eq!(by_udp(&mut r), [(at, false)], "not yet, in round {round}");
        r.millis(1);
        r.clear();
        r.assign(vec![
            either(round * 10 + 1, (at + 10, at + 19)),
            either(round * 10 + 2, (at + 20, at + 29)),
        ]);
        assert_eq!(by_udp(&mut r), [(at + 10, true), (at + 20, false)], "in round {round}");
        // The trial costs its own pages a second, and nobody else's anything.
        r.clear();
        r.millis(999);
        assert!(r.stops.is_empty());
        r.millis(1);
        assert_eq!(r.stops.len(), 1);
        assert_eq!(r.started().iter().map(|s| s.1).collect::<Vec<_>>(), [at + 10]);
        let all: Vec<_> = r.e.fetches.iter().map(|(id, f)| (*id, f.set.first, f.set.last)).collect();
        for (id, first, last) in all {
            r.pages(id, first..=last.unwrap_or(first));
            r.ended(id, Outcome::Done);
        }
    }
    // One page is enough.
    r.millis(60_000);
    r.clear();
    r.assign(vec![either(900, (8000, 8009))]);
    let id = r.one_started();
    r.page(id, 8000);
    r.assign(vec![either(901, (8010, 8019)), either(902, (8020, 8029))]);
    assert_eq!(by_udp(&mut r), [(8010, true), (8020, true)]);
}

#[test]
fn what_waits_for_its_turn_does_not_begin_by_a_way_that_fell_silent_meanwhile() {
    let mut r = Rig::joined(1000);
    r.assign((0..4).map(|i| either(i + 1, (i * 100, i * 100 + 9))).collect());
    let started = r.started();
    assert_eq!(started.iter().map(|s| s.1).collect::<Vec<_>>(), [0, 100], "two at a host");
    steadily(&mut r, started[0].0, 0..=4);
    r.clear();
    r.millis(1000);
    assert_eq!(r.stops.len(), 2);
    let mut begun = r.started();
    while let Some((id, first, last, _)) = begun.pop() {
        r.pages(id, first..=last.unwrap());
        r.ended(id, Outcome::Done);
        begun.extend(r.started());
    }
    let told: Vec<_> =
        r.reports().iter().map(|r| (r.assignment, r.protocol.to_string(), r.outcome)).collect();
    for id in [3, 4] {
        assert!(told.contains(&(id, "quic".to_owned(), Outcome::Unreachable)), "{told:?}");
        assert!(told.contains(&(id, "http".to_owned(), Outcome::Done)), "{told:?}");
    }
}

#[test]
fn who_stands_still_does_not_wait_for_a_way_that_never_brought_anything() {
    let mut r = Rig::joined_with(Config { per_host: 6, fetches: 8, ..config() }, 1000);
    r.assign(vec![Assignment { source: over(1, NetKind::Tcp), ..ordered(1, (0, 9), Vec::new()) }]);
    let first = r.one_started();
    steadily(&mut r, first, 0..=4);
    r.assign(vec![either(2, (100, 109))]);
    let new = r.one_started();
    // It may have much to send before: as long as others bring something, that is no matter.
    steadily(&mut r, first, 5..=9);
    r.ended(first, Outcome::Done);
    r.millis(999);
    assert!(r.stops.is_empty());
    r.millis(1);
    assert_eq!(r.stops, [new], "a second after the last page");
    assert_eq!(r.started().len(), 1);
}

#[test]
fn who_stands_still_turns_to_the_third_sooner() {
    let mut r = Rig::joined_with(Config { per_host: 6, fetches: 8, ..config() }, 1000);
    // Over a protocol of which nobody knows what it comes over.
    let all = vec![over(1, NetKind::Tcp), over(1, NetKind::Udp)];
    let mut unknown = source(1);
    unknown.host.protocol = "libp2p".parse().unwrap();
    r.assign(vec![Assignment { source: unknown, ..ordered(1, (0, 99), all) }]);
    let id = r.one_started();
    steadily(&mut r, id, 0..=9);
    r.millis(1000);
    assert_eq!(r.stops, [id]);
    let second = r.one_started();
    r.millis(499);
    assert!(r.starts.is_empty());
    r.millis(1);
    assert_eq!(r.stops, [id, second]);
    let third = r.one_started();
    // There is nobody after it.
    r.millis(5000);
    assert!(r.stops.len() == 2);
    steadily(&mut r, third, 10..=20);
}

#[test]
fn who_stands_still_turns_to_what_fell_silent_before() {
    let mut r = Rig::joined_with(Config { per_host: 6, fetches: 8, ..config() }, 1000);
    // UDP fell silent a moment ago, TCP does now.
    r.assign(vec![either(1, (0, 9))]);
    let id = r.one_started();
    steadily(&mut r, id, 0..=4);
    r.millis(1000);
    let id = r.one_started();
    steadily(&mut r, id, 5..=9);
    r.ended(id, Outcome::Done);
    r.clear();
    let tcp = |id, pages| Assignment {
        source: over(1, NetKind::Tcp),
        ..ordered(id, pages, vec![over(1, NetKind::Udp)])
    };
    r.assign(vec![tcp(2, (100, 199)), tcp(3, (200, 299))]);
    let started = r.started();
    steadily(&mut r, started[0].0, 100..=104);
    // As long as something comes by the same way, none of them is silent.
    steadily(&mut r, started[1].0, 200..=209);
    r.millis(1249);
    assert!(r.stops.is_empty());
    r.millis(1);
    assert_eq!(r.stops.len(), 2);
    assert_eq!(r.started().len(), 2);
}

#[test]
fn where_all_of_a_broadcast_is_silent_its_hosts_are_asked_as_the_tracker_names_them() {
    let mut r = Rig::joined(1000);
    let by = |host| {
        let mut s = source(host);
        s.host.protocol = "libp2p".parse().unwrap();
        s
    };
    let live = |id, first| {
        let pages = PageSet { last: None, ..PageSet::range(first, first) };
        let source = by(1);
        Assignment { source, stand_ins: vec![by(2)], ..assignment(id, pages, Need::Steady, &[1]) }
    };
    r.assign(vec![live(1, 0)]);
    let id = r.one_started();
    steadily(&mut r, id, 0..=9);
    r.clear();
    r.millis(60_000);
    assert!(r.reports().iter().any(|p| (p.host.0[0], p.outcome) == (1, Outcome::Stalled)));
    r.clear();
    r.assign(vec![live(2, 10)]);
    let id = r.one_started();
    assert_eq!(r.e.fetches.get(&id).map(|f| f.host.0[0]), Some(1));
    // While something comes from others, who falls silent has that against it.
    r.assign(vec![Assignment { source: by(3), ..live(3, 10) }]);
    let other = r.one_started();
    steadily(&mut r, id, 10..=19);
    let mut page = 20;
    while !r.stops.contains(&id) {
        assert!(page < 2000);
        steadily(&mut r, other, page..=page);
        page += 1;
    }
    r.clear();
    r.assign(vec![live(4, page)]);
    assert!(r.reports().iter().any(|p| (p.assignment, p.outcome) == (4, Outcome::Unreachable)));
}

#[test]
fn a_request_is_no_sign_of_life() {
    let mut r = Rig::joined_with(Config { per_host: 6, fetches: 8, ..config() }, 1000);
    // Two hosts over UDP bring something; one of them is asked again only after the block.
    r.assign(vec![either(1, (0, 9))]);
    let one = r.one_started();
    r.assign(vec![Assignment { source: over(2, NetKind::Udp), ..either(2, (100, 109)) }]);
    let two = r.one_started();
    steadily(&mut r, one, 0..=4);
    r.pages(two, 100..=109);
    r.ended(two, Outcome::Done);
    r.page(one, 5);
    r.millis(600);
    let again = Assignment { source: over(2, NetKind::Udp), ..either(3, (200, 209)) };
    r.assign(vec![again]);
    assert_eq!(r.started().len(), 1);
    r.millis(400);
    assert_eq!(r.stops, [one]);
    // So nothing comes over UDP any more.
    r.clear();
    r.assign(vec![Assignment { source: over(3, NetKind::Udp), ..either(4, (300, 309)) }]);
    let told: Vec<_> = r.reports().iter().map(|r| (r.assignment, r.host.0[0], r.outcome)).collect();
    assert_eq!(told, [(4, 3, Outcome::Unreachable)]);
}

/// Host 1 over TCP, of which each request takes a connection.
fn few(pages: u64) -> Rig {
    let connects_each = BTreeSet::from(["http".parse().unwrap()]);
    Rig::joined_with(Config { fetches: 20, per_host: 6, connects_each, ..config() }, pages)
}

fn by_http(id: u64, pages: (PageNo, PageNo), need: Need) -> Assignment {
    Assignment { source: over(1, NetKind::Tcp), need, ..ordered(id, pages, Vec::new()) }
}

#[test]
fn of_requests_with_a_connection_each_few_are_made_at_once_and_urgent_ones() {
    let mut r = few(1000);
    r.assign((0..8).map(|i| by_http(i + 1, (i * 10, i * 10 + 9), B)).collect());
    let running = r.started();
    assert_eq!(running.len(), 4);
    r.assign(vec![by_http(20, (500, 509), Need::Urgent)]);
    let urgent = r.one_started();
    r.pages(urgent, 500..=509);
    r.ended(urgent, Outcome::Done);
    assert!(r.starts.is_empty(), "what somebody waits for does not wait, nor does it make room");
    let (id, first, last, _) = running[0];
    r.pages(id, first..=last.unwrap());
    r.ended(id, Outcome::Done);
    assert_eq!(r.started().len(), 1, "one after the other");
    // Over a protocol that shares a connection, as many as ever.
    let mut r = few(1000);
    r.assign((0..8).map(|i| ordered(i + 1, (i * 10, i * 10 + 9), Vec::new())).collect());
    assert_eq!(r.started().len(), 6);
}

/// What comes of a fetch, so many bytes at a time.
fn drips(r: &mut Rig, id: FetchId, bytes: u64, every: u64, times: usize) {
    for _ in 0..times {
        r.millis(every);
        r.event(id, FetchEvent::Progress { bytes });
    }
}

#[test]
fn a_host_that_drips_is_left_within_two_seconds_however_it_began() {
    for (first, each, every) in [(1, 1, 500), (2000, 1, 500), (200_000, 1, 100), (1, 10, 100)] {
        let mut r = Rig::joined_with(Config { per_host: 4, ..config() }, 1000);
        let others = || vec![over(2, NetKind::Udp)];
        let mut orders = vec![ordered(1, (0, 99), others()), ordered(2, (100, 199), others())];
        orders.push(Assignment { source: over(3, NetKind::Udp), ..ordered(3, (200, 299), others()) });
        r.assign(orders);
        let started = r.started();
        // Somebody else sends as ever.
        steadily(&mut r, started[2].0, 200..=201);
        r.event(started[0].0, FetchEvent::FirstByte);
        r.event(started[0].0, FetchEvent::Progress { bytes: first });
        r.millis(50);
        r.clear();
        let mut left = 0;
        for page in 202..222 {
            drips(&mut r, started[0].0, each, every, usize::try_from(500 / every).unwrap());
            r.page(started[2].0, page);
            left = page;
            if !r.stops.is_empty() {
                break;
            }
        }
        let about = format!("{first} and then {each} bytes every {every} ms");
        assert!(left < 207, "{about}: {} ms", 500 * (left - 201));
        assert_eq!(r.stops.len(), 2, "{about}: both of its orders");
        assert!(r.started().iter().all(|s| s.3 == 2), "{about}");
        let told: Vec<_> = r.reports().iter().map(|r| (r.host.0[0], r.outcome)).collect();
        assert_eq!(told, vec![(1, Outcome::Stalled); 2], "{about}");
        // What came first may be said to come, but no drip is.
        let said = r.acked().iter().filter(|(id, _)| *id == 1).count();
        assert!(said <= usize::from(first > 1), "{about}: {said} times");
    }
}

#[test]
fn a_slow_line_is_no_drip_and_a_drip_is_better_than_nothing() {
    // 32 kbit/s, and pages of 64 KiB: the first is whole after 16 s.
    let mut r = Rig::joined(1000);
    r.assign(vec![ordered(1, (0, 9), vec![over(2, NetKind::Udp)])]);
    let id = r.one_started();
    r.event(id, FetchEvent::FirstByte);
    drips(&mut r, id, 800, 200, 80);
    assert!(r.stops.is_empty());
    // A packet now and then, of a host that has many to send to.
    drips(&mut r, id, 1_400, 900, 20);
    assert!(r.stops.is_empty());
    // We know nobody else, and go on; but perhaps the tracker does.
    let mut r = Rig::joined(1000);
    r.assign(vec![ordered(1, (0, 9), Vec::new())]);
    let id = r.one_started();
    r.event(id, FetchEvent::FirstByte);
    r.clear();
    drips(&mut r, id, 1, 500, 4);
    let said = |r: &Rig| r.reports().iter().map(|r| (r.outcome, r.last)).collect::<Vec<_>>();
    assert_eq!(said(&r), [(Outcome::Stalled, false)], "it is told soon");
    drips(&mut r, id, 1, 500, 60);
    assert!(r.stops.is_empty());
    assert_eq!(said(&r).len(), 1, "and once");
    assert!(r.acked().is_empty(), "the tracker hears that something comes");
    // It does know somebody else.
    r.assign(
        vec![ordered(2, (0, 9), Vec::new())]
            .into_iter()
            .map(|a| Assignment { source: over(2, NetKind::Udp), ..a })
            .collect(),
    );
    let other = r.one_started();
    r.pages(other, 0..=9);
    assert!(r.stops.contains(&id));
}

#[test]
fn where_our_own_line_is_slow_each_way_need_bring_only_part_of_its_share() {
    let mut r = Rig::joined_with(Config { fetches: 8, ..config() }, 1000);
    let order = |n: u8| Assignment {
        source: over(n, NetKind::Udp),
        stand_ins: vec![over(n + 10, NetKind::Udp)],
        ..ordered(u64::from(n), (u64::from(n) * 100, u64::from(n) * 100 + 9), Vec::new())
    };
    r.assign((1..=8).map(order).collect());
    let started = r.started();
    assert_eq!(started.len(), 8);
    started.iter().for_each(|s| r.page(s.0, s.1));
    // 200 bytes a second each.
    for _ in 0..100 {
        r.millis(200);
        started.iter().for_each(|s| r.event(s.0, FetchEvent::Progress { bytes: 40 }));
    }
    assert!(r.stops.is_empty());
}

#[test]
fn a_newcomer_does_not_wait_for_a_first_host_that_may_be_dead() {
    let mut r = Rig::joined_with(Config { per_host: 4, ..config() }, 1000);
    let others = || vec![over(2, NetKind::Udp)];
    r.assign(vec![ordered(1, (0, 99), others()), ordered(2, (100, 199), others())]);
    r.clear();
    r.millis(490);
    assert!(r.started().is_empty());
    r.millis(20);
    let help = r.started();
    assert_eq!(help.iter().map(|s| (s.1, s.3)).collect::<Vec<_>>(), [(0, 2)], "one order, at the stand-in");
    assert!(r.stops.is_empty() && r.reports().is_empty(), "nothing is said against the first");
    // It helps; and who was late is left as soon as it is known that others send.
    steadily(&mut r, help[0].0, 0..=99);
    r.ended(help[0].0, Outcome::Done);
    assert_eq!(r.outcomes().iter().filter(|o| o.1 == 2).count(), 1);
}

#[test]
fn who_gets_nothing_from_hosts_that_it_does_not_know_is_helped_out_one_order_after_the_other() {
    let mut r = Rig::joined_with(Config { per_host: 4, ..config() }, 1000);
    let origin = || vec![over(2, NetKind::Udp)];
    r.assign(vec![ordered(1, (0, 9), origin()), ordered(2, (100, 109), origin())]);
    let asked = r.started();
    assert_eq!(asked.iter().map(|s| s.3).collect::<Vec<_>>(), [1, 1]);
    r.clear();
    r.millis(500);
    let first = r.one_started();
    (0..=9).for_each(|p| r.page(first, p));
    r.ended(first, Outcome::Done);
    r.clear();
    r.millis(499);
    assert!(r.starts.is_empty(), "something came just now");
    // Timers look four times a second.
    r.millis(251);
    let second = r.started();
    assert_eq!(second.iter().map(|s| (s.1, s.3)).collect::<Vec<_>>(), [(100, 2)]);
}

#[test]
fn what_a_dead_host_was_to_bring_goes_back_to_the_tracker_while_others_bring_something() {
    let mut r = Rig::joined_with(Config { per_host: 4, ..config() }, 1000);
    let alive = Assignment { source: over(3, NetKind::Udp), ..ordered(1, (0, 199), Vec::new()) };
    r.assign(vec![alive, ordered(2, (200, 299), vec![over(1, NetKind::Tcp), over(1, NetKind::Udp)])]);
    let started = r.started();
    let (alive, dead) = (started[0].0, started[1].0);
    steadily(&mut r, dead, 200..=204);
    r.clear();
    steadily(&mut r, alive, 0..=15);
    assert_eq!(r.stops, [dead]);
    assert!(r.starts.is_empty(), "over the other carrier it would be as dead");
    let told: Vec<_> = r.reports().iter().map(|r| (r.host.0[0], r.outcome, r.pages, r.last)).collect();
    assert_eq!(told, [(1, Outcome::Stalled, 5, true)]);
    // Not for ever: what it is ordered after that, it is asked for.
    steadily(&mut r, alive, 16..=70);
    r.clear();
    r.assign(vec![ordered(3, (300, 309), vec![over(3, NetKind::Udp)])]);
    assert_eq!(r.started().iter().map(|s| s.3).collect::<Vec<_>>(), [1]);
}

#[test]
fn what_two_hosts_failed_is_the_trackers_to_order_anew() {
    let mut r = Rig::joined_with(Config { per_host: 4, ..config() }, 1000);
    r.assign(vec![ordered(1, (0, 99), vec![over(2, NetKind::Udp), over(3, NetKind::Udp)])]);
    let first = r.one_started();
    steadily(&mut r, first, 0..=9);
    r.millis(1050);
    let second = r.one_started();
    r.clear();
    r.millis(1050);
    assert_eq!(r.stops, [second]);
    assert!(r.starts.is_empty(), "the third is over the same carrier, over which nothing comes");
    let told: Vec<_> = r.reports().iter().map(|r| (r.host.0[0], r.outcome, r.last)).collect();
    assert_eq!(told, [(2, Outcome::Stalled, true)]);
}

#[test]
fn who_may_be_cut_off_is_asked_once_more_before_it_is_blamed() {
    let mut r = Rig::joined(1000);
    let order = |id, first| {
        let mut a = assignment(id, PageSet::range(first, first + 99), Need::Bulk, &[1]);
        a.source.host.protocol = "libp2p".parse().unwrap();
        a.source.host.addrs = Vec::new();
        a
    };
    r.assign(vec![order(1, 0)]);
    let id = r.one_started();
    steadily(&mut r, id, 0..=9);
    r.clear();
    r.millis(1500);
    assert_eq!(r.outcomes(), [(1, 1, Outcome::Stopped, true)], "back, and nobody is blamed");
    r.clear();
    r.assign(vec![order(2, 100)]);
    assert!(!r.started().is_empty(), "it is asked again at once");
    r.clear();
    r.millis(15_000);
    assert_eq!(r.outcomes(), [(2, 1, Outcome::Stalled, true)]);
}
