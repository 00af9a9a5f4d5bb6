use icet::limits;

use super::*;

#[test]
fn acknowledgements_go_in_batches_after_the_delay() {
    let mut r = Rig::joined(1000);
    r.assign(vec![assignment(1, PageSet::range(0, 99), Need::Bulk, &[1])]);
    let id = r.one_started();
    r.pages(id, 0..=4);
    assert!(r.haves().is_empty());
    r.millis(199);
    assert!(r.haves().is_empty());
    r.millis(1);
    assert_eq!(r.acked(), [(1, vec![(0, 4)])]);
    r.pages(id, 5..=5);
    r.page(id, 5);
    r.millis(200);
    assert_eq!(r.acked()[1..], [(1, vec![(5, 5)])], "a page that comes twice is acknowledged once");
    assert_eq!(r.e.tally(H).unwrap().duplicates, 1);
}

#[test]
fn on_a_slow_line_the_tracker_hears_that_something_comes() {
    let mut r = Rig::joined(1000);
    r.assign(vec![assignment(1, PageSet::range(0, 9), Need::Bulk, &[1])]);
    let id = r.one_started();
    for _ in 0..4 {
        r.event(id, FetchEvent::Progress { bytes: 4000 });
        r.millis(250);
    }
    assert_eq!(r.acked(), [(1, vec![]), (1, vec![])], "twice a second");
    r.clear();
    r.event(id, FetchEvent::Progress { bytes: 4000 });
    r.pages(id, 0..=0);
    r.millis(1000);
    assert_eq!(r.acked(), [(1, vec![(0, 0)])], "a page says so too");
}

#[test]
fn many_pages_or_ranges_do_not_wait() {
    let mut r = Rig::joined(1000);
    r.assign(vec![assignment(1, PageSet::range(0, 399), Need::Bulk, &[1])]);
    let id = r.one_started();
    r.pages(id, 0..=63);
    assert_eq!(r.acked(), [(1, vec![(0, 63)])]);
    r.clear();
    (0..64).for_each(|i| r.page(id, 70 + 2 * i));
    assert_eq!(r.acked()[0].1.len(), 64);
}

#[test]
fn the_more_is_assigned_the_more_pages_a_message_has() {
    let mut r = Rig::joined(100_000);
    r.assign(vec![assignment(1, PageSet::range(0, 6399), Need::Bulk, &[1])]);
    let id = r.one_started();
    r.pages(id, 0..=6399);
    let lens: Vec<u64> =
        r.acked().iter().map(|(_, runs)| runs.iter().map(|(a, b)| b - a + 1).sum()).collect();
    assert!(lens[1] > 300, "{lens:?}");
    assert_eq!(*lens.last().unwrap(), 64, "towards the end as soon as ever: {lens:?}");
    assert!(lens.len() < 50, "{}", lens.len());
}

#[test]
fn a_complete_urgent_assignment_does_not_wait_even_for_its_end() {
    let mut r = Rig::joined(1000);
    r.assign(vec![
        assignment(1, PageSet::range(0, 3), Need::Urgent, &[1]),
        assignment(2, PageSet::range(10, 13), Need::Bulk, &[2]),
    ]);
    let started = r.started();
    r.pages(started[1].0, 10..=13);
    assert!(r.haves().is_empty());
    r.pages(started[0].0, 0..=3);
    assert_eq!(r.acked(), [(1, vec![(0, 3)]), (2, vec![(10, 13)])]);
    r.clear();
    r.ended(started[0].0, Outcome::Done);
    r.ended(started[1].0, Outcome::Done);
    assert!(r.haves().is_empty());
    assert_eq!(r.outcomes(), [(1, 1, Outcome::Done, true), (2, 2, Outcome::Done, true)]);
}

#[test]
fn the_tracker_may_shorten_the_delay() {
    let mut r = Rig::new();
    r.join(100);
    r.e.handle_connected(r.now, tracker());
    r.drain();
    let ToPeer::Welcome(mut w) = welcome(1) else { panic!() };
    w.ack_delay = 20;
    r.tell(w.into());
    r.answer(1);
    r.accept(PageMap::new(100));
    r.assign(vec![assignment(1, PageSet::range(0, 50), Need::Bulk, &[1])]);
    let id = r.one_started();
    r.page(id, 0);
    r.clear();
    r.millis(20);
    assert_eq!(r.acked(), [(1, vec![(0, 0)])]);
}

#[test]
fn lost_pages_are_told_and_acknowledged_again_when_they_come_back() {
    let mut r = Rig::joined(100);
    r.assign(vec![assignment(1, PageSet::range(0, 20), Need::Bulk, &[1])]);
    let id = r.one_started();
    r.pages(id, 0..=5);
    let lost = PageRanges::one(2, 3);
    r.command(Command::Held { handle: H, got: PageRanges::one(50, 51), lost: lost.clone() });
    let haves = r.haves();
    assert_eq!(r.acked(), [(1, vec![(0, 1), (4, 5)])], "what is lost was never promised");
    assert_eq!(haves.last().unwrap().lost, lost);
    r.clear();
    r.command(Command::Held { handle: H, got: PageRanges::one(0, 3), lost: PageRanges::new() });
    r.millis(200);
    assert_eq!(r.acked(), [(0, vec![(2, 3), (50, 51)])]);
}

#[test]
fn a_map_of_many_ranges_is_split_over_messages() {
    let mut r = Rig::new();
    let pages = 100_000;
    r.pages = pages;
    let held = PageRanges::from_runs((0..50_000).map(|i| (2 * i, 2 * i)));
    r.command(Command::Join {
        handle: H,
        path: path(),
        publisher: None,
        version: 1,
        held: held.clone(),
        intent: Intent::Whole,
        at: None,
        back: None,
    });
    r.connect(1);
    assert!(r.haves().is_empty(), "the media's id is not known yet");
    r.answer(1);
    let mut said: Vec<_> = r.acked().into_iter().flat_map(|(_, runs)| runs).collect();
    for m in &r.sent {
        if let ToTracker::Join(j) = m {
            said.extend(j.have.runs());
        }
        let mut out = Vec::new();
        m.write(&mut out);
        let decoded = ToTracker::from_body(&out[4..]);
        assert_eq!(decoded.as_ref(), Ok(m), "the wire carries it");
    }
    assert_eq!(PageRanges::from_runs(said), held);
}

#[test]
fn acknowledgements_of_a_long_silence_fit_messages() {
    let mut r = Rig::joined_with(Config { fetches: 2000, per_host: 2000, ..config() }, 100_000);
    r.assign(
        (0..1000).map(|i| assignment(i + 1, PageSet::range(i * 40, i * 40 + 39), Need::Bulk, &[1])).collect(),
    );
    let started = r.started();
    assert_eq!(started.len(), 1000);
    r.disconnect();
    for (id, first, _, _) in started {
        (0..40).step_by(2).for_each(|i| r.page(id, first + i));
    }
    r.millis(500);
    r.clear();
    r.connect(1);
    let haves = r.haves();
    assert!(haves.len() >= 2);
    for h in haves {
        assert!(h.got.len() <= limits::ITEMS);
        assert!(h.got.iter().map(|g| g.pages.runs().len()).sum::<usize>() <= limits::RANGES);
    }
    // Beside what the join could not carry.
    let acked: Vec<_> = r.acked().into_iter().filter(|(a, _)| *a != 0).collect();
    assert_eq!(acked.iter().flat_map(|(_, runs)| runs).count(), 20_000);
    assert!(acked.iter().all(|(a, runs)| runs.iter().all(|(first, _)| first / 40 + 1 == *a)));
}

#[test]
fn what_was_served_last_is_told_before_leaving() {
    let mut r = Rig::joined(100);
    r.command(Command::Served { items: vec![(5, 7)] });
    assert!(!r.sent.iter().any(|m| matches!(m, ToTracker::Served(_))), "it is batched");
    r.clear();
    r.command(Command::Leave { handle: H });
    let at = |f: &dyn Fn(&ToTracker) -> bool| r.sent.iter().position(f);
    let served = at(&|m| matches!(m, ToTracker::Served(s) if s.items.len() == 1 && s.items[0].bytes == 7));
    assert!(served.is_some() && served < at(&|m| matches!(m, ToTracker::Leave(_))), "{:?}", r.sent);
}

#[test]
fn served_bytes_are_told_once_a_second() {
    let mut r = Rig::joined(100);
    let served = |r: &Rig| -> Vec<Vec<(u64, u64)>> {
        let items = |m: &ToTracker| match m {
            ToTracker::Served(s) => Some(s.items.iter().map(|i| (i.assignment, i.bytes)).collect()),
            _ => None,
        };
        r.sent.iter().filter_map(items).collect()
    };
    r.command(Command::Served { items: vec![(0, 10), (5, 7)] });
    r.command(Command::Served { items: vec![(5, 3), (6, 0)] });
    assert!(served(&r).is_empty());
    r.millis(1000);
    assert_eq!(served(&r), [[(0, 10), (5, 10)]]);
    r.clear();
    r.command(Command::Served { items: (1..=256).map(|i| (i, 1)).collect() });
    assert_eq!(served(&r)[0].len(), 256);
    r.clear();
    // Numbers of another epoch would be somebody else's.
    r.command(Command::Served { items: vec![(5, 3), (9, 4)] });
    r.disconnect();
    r.millis(500);
    r.connect(2);
    assert_eq!(served(&r), [[(0, 7)]]);
}
