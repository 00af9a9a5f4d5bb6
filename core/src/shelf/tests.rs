use icet::message::Need;
use icet::ticket::TicketBody;
use icet::{MediaId, Now, PageSet, PeerKey, TicketKey};

use super::Denied;
use super::tickets::{Purse, Tickets};

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
        need: Need::Bulk,
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
fn a_reserve_is_good_from_the_loss_of_its_tracker_until_that_speaks() {
    let (mut tickets, key) = tickets();
    assert!(!tickets.may_use_reserve(&TRACKER) && !tickets.may_use_reserve(&HOST));
    assert!(!tickets.was_asked(&HOST) && tickets.was_asked(&TRACKER) && !tickets.was_asked(&TRACKER));
    tickets.lost(&TRACKER, Now(1));
    assert!(tickets.may_use_reserve(&TRACKER));
    tickets.speaks(&TRACKER);
    assert!(!tickets.may_use_reserve(&TRACKER), "a false alarm");
    tickets.lost(&TRACKER, Now(2));
    tickets.set_key(TRACKER, 6, key, 1000);
    assert!(!tickets.may_use_reserve(&TRACKER), "another session");
}

#[test]
fn an_assignment_buys_its_bytes_and_a_quarter_once() {
    let (mut tickets, _) = tickets();
    let ticket = body(1, 100_000);
    let id = tickets.begin(&ticket, 1000, 1).expect("fresh");
    assert_eq!(tickets.begin(&ticket, 1000, 1), Err(Denied::InUse));
    assert!(tickets.spend(&id, 800, Purse::Pages).is_ok());
    tickets.end(&id);
    // A broken connection may go on with what is left, but nothing begins that would be broken off.
    assert_eq!(tickets.begin(&ticket, 1000, 451), Err(Denied::Spent));
    assert_eq!(tickets.begin(&ticket, 1000, 450), Ok(id.clone()));
    assert_eq!(tickets.spend(&id, 500, Purse::Pages), Err(Denied::Spent));
    assert!(tickets.spend(&id, 450, Purse::Pages).is_ok());
    // On a way that loses a fifth, and a fifth of what is sent again, that is a quarter on average, and at times more.
    assert!(tickets.spend(&id, 1000, Purse::Again).is_ok(), "what was lost is paid for apart");
    assert_eq!(tickets.spend(&id, 1, Purse::Again), Err(Denied::Spent));
    tickets.end(&id);
    assert_eq!(tickets.begin(&ticket, 1000, 1), Err(Denied::Spent), "replayed");
    assert!(tickets.begin_proofs(&ticket, 1000).is_ok(), "proofs are paid for apart");
    assert!(tickets.spend(&id, 1 << 20, Purse::Proofs).is_ok());
    assert_eq!(tickets.begin_proofs(&ticket, 1000), Err(Denied::Spent));
}

/// Who goes over to another protocol, since this one fell silent, finds its old request open: the tracker sells it apart.
#[test]
fn an_assignment_is_bought_over_each_protocol_by_itself() {
    let (mut tickets, _) = tickets();
    let ticket = body(1, 100_000);
    let other = TicketBody { protocol: "other".parse().expect("a name"), ..body(1, 100_000) };
    let first = tickets.begin(&ticket, 1000, 1).expect("fresh");
    assert!(tickets.spend(&first, 1200, Purse::Pages).is_ok());
    let second = tickets.begin(&other, 1000, 1000).expect("of another protocol");
    assert!(tickets.spend(&second, 1250, Purse::Pages).is_ok());
    assert_eq!(tickets.spend(&second, 1, Purse::Pages), Err(Denied::Spent));
    assert_eq!(tickets.begin(&other, 1000, 1), Err(Denied::InUse));
    assert_eq!((first.assignment(), second.assignment()), (1, 1));
}

#[test]
fn memory_of_used_tickets_is_bounded_and_forgetting_reopens_none() {
    let (mut tickets, key) = tickets();
    for i in 0..200_000 {
        let ticket = body(i, 100_000 + i);
        let id = tickets.begin(&ticket, 1, 1).expect("fresh");
        let _ = tickets.spend(&id, 1, Purse::Pages);
        tickets.end(&id);
    }
    let check = |t: &Tickets, b: &TicketBody| t.check(&key.issue(b), &HOST, Now(0), 0).map(|_| ());
    assert_eq!(check(&tickets, &body(0, 100_000)), Err(Denied::Expired));
    // All at one time: nothing can be told apart, nothing grows.
    for i in 0..200_000 {
        let ticket = body(1_000_000 + i, 500_000);
        if let Ok(id) = tickets.begin(&ticket, 1, 1) {
            tickets.end(&id);
        }
    }
    assert_eq!(check(&tickets, &body(1_000_000, 500_000)), Err(Denied::Expired));
    // What one tracker hands out costs another's receivers nothing.
    let other = PeerKey([5; 32]);
    tickets.set_key(other, 1, key, 0);
    assert_eq!(check(&tickets, &TicketBody { tracker: other, ..body(1, 100_000) }), Ok(()));
}

#[test]
fn more_assignments_at_once_than_can_be_remembered_are_refused() {
    let (mut tickets, _) = tickets();
    let busy =
        (0..70_000).filter(|i| tickets.begin(&body(*i, 100_000 + i), 1, 1) == Err(Denied::Busy)).count();
    assert_eq!(busy, 70_000 - 65_536);
}

mod admit {
    use std::sync::Arc;
    use std::time::Duration;

    use icet::{ProtocolName, Stripe, Ticket};
    use tokio::time::Instant;

    use super::super::*;
    use super::{HOST, TRACKER, body};
    use crate::protocol::What;
    use crate::store::fixture::{Fixture, PAGE_TIME};
    use crate::store::{Store, Target};
    use icet::{PageSet, ticket::TicketBody};

    /// Tokio's clock, which tests can stop.
    #[derive(Debug)]
    struct TestClock(Instant);

    impl Clock for TestClock {
        fn now(&self) -> Now {
            Now::from_origin(self.0.elapsed())
        }
        fn wall_ms(&self) -> u64 {
            1_000_000 + u64::try_from(self.0.elapsed().as_millis()).unwrap()
        }
    }

    struct Host {
        _dir: tempfile::TempDir,
        shelf: Arc<Shelf>,
        media: Arc<MediaStore>,
        key: TicketKey,
        protocol: ProtocolName,
    }

    impl Host {
        fn new(up: Option<u64>, anonymous: Anonymous) -> Host {
            let dir = tempfile::tempdir().unwrap();
            let fixture = Fixture::new(640, 1);
            let store = Store::open(dir.path()).unwrap();
            let media = store.fetch(fixture.manifest.clone(), Target::Own).unwrap();
            fixture.all_proven().for_each(|s| drop(media.put_slice(&s).unwrap()));
            media.put_pages(0, &fixture.pages).unwrap();
            media.finish().unwrap();
            let clock = Arc::new(TestClock(Instant::now()));
            let shelf = Shelf::new(ShelfConfig { host: HOST, up, anonymous, clock });
            shelf.put(media.clone());
            let key = TicketKey::derive(&[9; 32], &HOST);
            shelf.set_ticket_key(TRACKER, 5, key, 0);
            Host { _dir: dir, shelf, media, key, protocol: "http".parse().unwrap() }
        }

        fn body(&self, assignment: u64, pages: PageSet) -> TicketBody {
            TicketBody { media: self.media.id(), pages, ..body(assignment, 2_000_000) }
        }

        fn ticket(&self, assignment: u64, pages: PageSet) -> Ticket {
            self.key.issue(&self.body(assignment, pages))
        }

        fn ask(
            &self,
            what: &What,
            ticket: Option<&Ticket>,
            proved: Option<PeerKey>,
        ) -> Result<Admission, Denied> {
            self.shelf.admit(Ask { media: &self.media, protocol: &self.protocol, what, ticket, proved })
        }

        fn denied(&self, what: &What, ticket: &Ticket) -> Option<Denied> {
            self.ask(what, Some(ticket), None).err()
        }
    }

    fn pages(first: u64, last: u64) -> What {
        What::Pages(PageSet::range(first, last))
    }

    #[tokio::test]
    async fn a_ticket_admits_to_its_media_pages_protocol_and_receiver_only() {
        let host = Host::new(None, Anonymous::Deny);
        let set = PageSet::range(10, 19);
        let good = host.ticket(1, set);
        assert!(host.ask(&pages(10, 19), Some(&good), None).unwrap().is_ticketed());
        assert!(host.ask(&pages(12, 12), Some(&good), Some(PeerKey([3; 32]))).is_ok());
        assert_eq!(host.ask(&pages(12, 12), Some(&good), Some(HOST)).err(), Some(Denied::OtherReceiver));
        assert_eq!(host.ask(&pages(12, 12), None, None).err(), Some(Denied::NoTicket));
        for what in
            [pages(9, 12), pages(12, 20), What::Pages(PageSet { first: 12, last: None, stripe: None })]
        {
            assert_eq!(host.denied(&what, &good), Some(Denied::OtherPages));
        }
        let other = |change: &dyn Fn(&mut TicketBody)| {
            let mut body = host.body(2, set);
            change(&mut body);
            host.denied(&pages(10, 10), &host.key.issue(&body))
        };
        assert_eq!(other(&|b| b.media = MediaId([0; 32])), Some(Denied::OtherMedia));
        assert_eq!(other(&|b| b.version = 2), Some(Denied::OtherMedia));
        assert_eq!(other(&|b| b.protocol = "quic".parse().unwrap()), Some(Denied::OtherProtocol));
        assert_eq!(other(&|b| b.host = PeerKey([8; 32])), Some(Denied::OtherHost));
        assert_eq!(other(&|b| b.expiry = 900_000), Some(Denied::Expired));
        assert_eq!(other(&|_| {}), None);
        assert_eq!(host.shelf.served_totals().denied, 10);
    }

    #[tokio::test]
    async fn a_share_of_nothing_is_a_refusal() {
        let share = Anonymous::Share;
        for (up, share, served) in [
            (None, share(0.0), false),
            (None, share(0.1), true),
            (Some(1_000_000), share(0.0), false),
            (Some(1_000_000), share(0.01), true),
            (Some(100), share(0.001), false),
        ] {
            let host = Host::new(up, share);
            assert_eq!(host.ask(&pages(1, 1), None, None).is_ok(), served, "{share:?} of {up:?}");
        }
    }

    #[tokio::test]
    async fn bytes_and_times_are_rounded_to_pages() {
        let host = Host::new(None, Anonymous::Deny);
        let good = host.ticket(1, PageSet::range(100, 199));
        let (start, end) = (host.media.span(100).unwrap().offset, host.media.span(199).unwrap().end());
        let bytes = |first, last| What::Bytes { first, last };
        assert_eq!(host.denied(&bytes(start, Some(end - 1)), &good), None);
        assert_eq!(host.denied(&bytes(start + 5, Some(start + 9)), &good), None);
        assert_eq!(host.denied(&bytes(start - 1, Some(start + 9)), &good), Some(Denied::OtherPages));
        assert_eq!(host.denied(&bytes(start, Some(end)), &good), Some(Denied::OtherPages));
        assert_eq!(host.denied(&bytes(start, None), &good), Some(Denied::OtherPages));
        let time = |page: u64| page * PAGE_TIME.unsigned_abs();
        let times = |from, to| What::Time { from: time(from), to: Some(time(to)) };
        assert_eq!(host.denied(&times(100, 200), &good), None);
        assert_eq!(host.denied(&times(300, 310), &good), Some(Denied::OtherPages));
        assert_eq!(host.denied(&times(100, 400), &good), Some(Denied::OtherPages));
        // A stripe admits to its own pages, also to some of them.
        let stripe = Stripe::new(1, 4, 2);
        let striped = host.ticket(2, PageSet { first: 0, last: Some(639), stripe });
        assert_eq!(host.denied(&What::Pages(PageSet { first: 8, last: Some(500), stripe }), &striped), None);
        assert_eq!(host.denied(&pages(2, 3), &striped), None);
        assert_eq!(host.denied(&pages(2, 4), &striped), Some(Denied::OtherPages));
        assert_eq!(host.denied(&pages(0, 639), &striped), Some(Denied::OtherPages));
        // Open ends reach to the end of the file.
        let open = host.ticket(3, PageSet { first: 600, last: None, stripe: None });
        assert_eq!(host.denied(&pages(630, 639), &open), None);
        assert_eq!(host.denied(&What::Pages(PageSet { first: 601, last: None, stripe: None }), &open), None);
    }

    #[tokio::test]
    async fn a_ticket_is_used_once_and_buys_a_quarter_more_than_its_bytes() {
        let host = Host::new(None, Anonymous::Deny);
        let good = host.ticket(1, PageSet::range(10, 19));
        let len = usize::try_from(host.media.bytes_between(10, 19).unwrap()).unwrap();
        let first = host.ask(&pages(10, 19), Some(&good), None).unwrap();
        assert_eq!(host.denied(&pages(10, 19), &good), Some(Denied::InUse));
        // Proofs may run beside it.
        let proofs = host.ask(&What::Proofs { first: 0, last: 9 }, Some(&good), None).unwrap();
        assert_eq!(proofs.permit(40_000).await, Ok(()));
        assert_eq!(first.permit(len / 2).await, Ok(()));
        drop(first);
        // Three quarters are left: not enough for all of it, but for its second half.
        assert_eq!(host.denied(&pages(10, 19), &good), Some(Denied::Spent));
        let span = |page| host.media.span(page).unwrap();
        let bytes = What::Bytes { first: span(10).offset, last: Some(span(19).end() - 1) };
        assert_eq!(host.denied(&bytes, &good), Some(Denied::Spent));
        let second = host.ask(&pages(15, 19), Some(&good), None).unwrap();
        assert_eq!(second.permit(len / 2).await, Ok(()));
        assert_eq!(second.permit(len / 4 + 10).await, Err(Denied::Spent));
        assert_eq!(second.permit(len / 4 - 10).await, Ok(()));
        drop(second);
        let served: u64 = host.shelf.drain_served().iter().map(|s| s.bytes).sum();
        assert_eq!(served, host.shelf.served_totals().bytes);
        assert_eq!(host.shelf.served_totals().by_receiver[&PeerKey([3; 32])], served);
        assert!(host.shelf.drain_served().is_empty());
    }

    #[tokio::test]
    async fn what_leaves_the_shelf_is_served_no_longer() {
        let host = Host::new(None, Anonymous::Allow);
        let running = host.ask(&pages(0, 9), None, None).unwrap();
        assert!(!running.is_ticketed() && running.permit(100).await.is_ok());
        assert!(Arc::ptr_eq(&host.shelf.find(host.media.path()).unwrap(), &host.media));
        host.shelf.remove(&host.media.id());
        assert_eq!(running.permit(100).await, Err(Denied::Withdrawn));
        assert_eq!(host.ask(&pages(0, 9), None, None).err(), Some(Denied::Withdrawn));
        assert!(host.shelf.find(host.media.path()).is_none());
        host.shelf.put(host.media.clone());
        assert!(host.ask(&pages(0, 9), None, None).is_ok());
        std::fs::remove_file(host.media.file()).unwrap();
        assert_eq!(host.ask(&pages(0, 9), None, None).err(), Some(Denied::Withdrawn));
    }

    /// Serves `writes` of 16 KiB to each, all at once; how long it took for each.
    async fn serve(admissions: Vec<Admission>, writes: usize) -> Vec<Duration> {
        let start = Instant::now();
        let all: Vec<_> = admissions
            .into_iter()
            .map(|admission| {
                tokio::spawn(async move {
                    for _ in 0..writes {
                        admission.permit(16_384).await.unwrap();
                    }
                    start.elapsed()
                })
            })
            .collect();
        let mut took = Vec::new();
        for task in all {
            took.push(task.await.unwrap());
        }
        took
    }

    #[tokio::test(start_paused = true)]
    async fn the_upload_limit_holds_over_all_requests() {
        let host = Host::new(Some(1_000_000), Anonymous::Allow);
        let admissions = (0..10).map(|_| host.ask(&pages(0, 639), None, None).unwrap()).collect();
        // 10 times 1.64 MB at 1 MB a second, and 4 % for what packets have besides.
        let took = serve(admissions, 100).await;
        let seconds: Vec<f64> = took.iter().map(Duration::as_secs_f64).collect();
        assert!(seconds.iter().all(|s| (16.5..17.3).contains(s)), "{seconds:?}");
        assert_eq!(host.shelf.served_totals().anonymous, 10 * 100 * 16_384);
    }

    #[tokio::test(start_paused = true)]
    async fn tickets_go_first_and_keep_to_their_own_rate() {
        let host = Host::new(Some(1_000_000), Anonymous::Allow);
        let all = PageSet::range(0, 639);
        let slow = host.key.issue(&TicketBody { rate: Some(100_000), ..host.body(1, all) });
        let fast = host.ticket(2, all);
        let admissions = vec![
            host.ask(&pages(0, 639), None, None).unwrap(),
            host.ask(&pages(0, 639), Some(&slow), None).unwrap(),
            host.ask(&pages(0, 639), Some(&fast), None).unwrap(),
        ];
        // 60 times 16 KiB each: 0.98 MB.
        let took: Vec<f64> = serve(admissions, 60).await.iter().map(Duration::as_secs_f64).collect();
        assert!((8.5..10.0).contains(&took[1]), "the slow ticket by its rate: {took:?}");
        assert!((0.9..1.25).contains(&took[2]), "the fast one at almost the whole rate: {took:?}");
        assert!(took[0] > 1.9 && took[0] < 2.6, "without a ticket after it: {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_costs_nothing() {
        let host = Host::new(Some(100_000), Anonymous::Allow);
        let ask = || host.ask(&pages(0, 639), None, None).unwrap();
        let (giving_up, staying) = (ask(), ask());
        staying.permit(100_000).await.unwrap();
        let start = Instant::now();
        let gave_up = tokio::time::timeout(Duration::from_millis(10), giving_up.permit(10_000_000)).await;
        assert!(gave_up.is_err());
        drop(giving_up);
        staying.permit(100_000).await.unwrap();
        let took = start.elapsed().as_secs_f64();
        assert!((0.5..1.6).contains(&took), "{took}");
    }
}
