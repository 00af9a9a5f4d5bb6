use std::sync::Mutex;

use icet::ticket::TicketBody;
use icet::{MediaId, Now, PageSet, PeerKey, TicketKey};

use super::Denied;
use super::tickets::Tickets;

const HOST: PeerKey = PeerKey([1; 32]);
const TRACKER: PeerKey = PeerKey([2; 32]);

fn body(assignment: u64, expiry: u64) -> TicketBody {
    TicketBody {
        tracker: TRACKER,
        epoch: 5,
        assignment,
        receiver: PeerKey([3; 32]),
        host: HOST,
        media: MediaId([4; 32]),
        version: 1,
        pages: PageSet::range(0, 15),
        protocol: "http".parse().expect("a name"),
        rate: None,
        expiry,
    }
}

fn tickets() -> (Tickets, TicketKey) {
    let key = TicketKey::derive(&[9; 32], &HOST);
    let mut tickets = Tickets::default();
    tickets.set_key(TRACKER, 5, key, 1000);
    (tickets, key)
}

#[test]
fn a_genuine_ticket_is_good_until_it_expires_by_the_trackers_clock() {
    let (tickets, key) = tickets();
    let ticket = key.issue(&body(1, 100_000));
    // Our clock is a second behind.
    assert!(tickets.check(&ticket, &HOST, Now(0), 98_000).is_ok());
    assert!(tickets.check(&ticket, &HOST, Now(0), 103_900).is_ok(), "within the allowed skew");
    assert_eq!(tickets.check(&ticket, &HOST, Now(0), 104_100), Err(Denied::Expired));
}

#[test]
fn forged_foreign_and_old_tickets_are_refused() {
    let (tickets, key) = tickets();
    let mut forged = key.issue(&body(1, 100_000));
    forged.mac.0[0] ^= 1;
    assert_eq!(tickets.check(&forged, &HOST, Now(0), 0), Err(Denied::Forged));
    let other = TicketKey::derive(&[9; 32], &PeerKey([7; 32])).issue(&body(1, 100_000));
    assert_eq!(tickets.check(&other, &HOST, Now(0), 0), Err(Denied::Forged));
    let elsewhere = key.issue(&TicketBody { host: PeerKey([7; 32]), ..body(1, 100_000) });
    assert_eq!(tickets.check(&elsewhere, &HOST, Now(0), 0), Err(Denied::OtherHost));
    let stranger = key.issue(&TicketBody { tracker: PeerKey([8; 32]), ..body(1, 100_000) });
    assert_eq!(tickets.check(&stranger, &HOST, Now(0), 0), Err(Denied::UnknownTracker));
    let before = key.issue(&TicketBody { epoch: 4, ..body(1, 100_000) });
    assert!(tickets.check(&before, &HOST, Now(0), 0).is_ok(), "assignments outlive one restart");
    let history = key.issue(&TicketBody { epoch: 3, ..body(1, 100_000) });
    assert_eq!(tickets.check(&history, &HOST, Now(0), 0), Err(Denied::OldEpoch));
}

#[test]
fn tickets_outlive_their_lost_tracker_by_ten_minutes() {
    let (mut tickets, key) = tickets();
    let (good, stale) = (key.issue(&body(1, 100_000)), key.issue(&body(2, 30_000)));
    tickets.lost(&TRACKER, Now(95_000_000));
    let minutes = |m: u64| (Now(95_000_000 + m * 60_000_000), 95_000 + m * 60_000);
    for (m, works) in [(0, true), (5, true), (9, true), (11, false)] {
        let (now, wall) = minutes(m);
        assert_eq!(tickets.check(&good, &HOST, now, wall).is_ok(), works, "after {m} minutes");
    }
    let (now, wall) = minutes(5);
    assert_eq!(tickets.check(&stale, &HOST, now, wall), Err(Denied::Expired), "expired before the silence");
    tickets.set_key(TRACKER, 6, key, 1000);
    assert_eq!(tickets.check(&good, &HOST, now, wall), Err(Denied::Expired), "the tracker is back");
}

#[test]
fn an_assignment_buys_its_bytes_and_a_quarter_once() {
    let (mut tickets, _) = tickets();
    let ticket = body(1, 100_000);
    let id = tickets.begin(&ticket, 1000).expect("fresh");
    assert_eq!(tickets.begin(&ticket, 1000), Err(Denied::InUse));
    assert!(tickets.spend(&id, 800, false).is_ok());
    tickets.end(&id);
    // A broken connection may go on with what is left.
    assert_eq!(tickets.begin(&ticket, 1000), Ok(id));
    assert_eq!(tickets.spend(&id, 500, false), Err(Denied::Spent));
    assert!(tickets.spend(&id, 450, false).is_ok());
    tickets.end(&id);
    assert_eq!(tickets.begin(&ticket, 1000), Err(Denied::Spent), "replayed");
    assert!(tickets.begin_proofs(&ticket, 1000).is_ok(), "proofs are paid for apart");
    assert!(tickets.spend(&id, 1 << 20, true).is_ok());
    assert_eq!(tickets.begin_proofs(&ticket, 1000), Err(Denied::Spent));
}

#[test]
fn memory_of_used_tickets_is_bounded_and_forgetting_reopens_none() {
    let tickets = Mutex::new(tickets());
    let (tickets, key) = &mut *tickets.lock().expect("no panic");
    for i in 0..200_000 {
        let ticket = body(i, 100_000 + i);
        let id = tickets.begin(&ticket, 1).expect("fresh");
        let _ = tickets.spend(&id, 1, false);
        tickets.end(&id);
    }
    assert_eq!(tickets.check(&key.issue(&body(0, 100_000)), &HOST, Now(0), 0), Err(Denied::Expired));
}
