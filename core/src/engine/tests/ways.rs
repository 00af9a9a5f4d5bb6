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
    for page in 0..5 {
        r.millis(900);
        r.page(id, page);
    }
    r.millis(2_600);
    assert!(r.stops.is_empty(), "three pauses");
    r.millis(200);
    assert_eq!(r.stops, [id]);
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
