//! The suite finds what it is there for: a transport that passes every case, and the same with one fault each, which the
//! named case must find.

mod faulty;

use faulty::Fault;
use std::time::Duration;

use iceshare_testkit::{Subject, Verdict, isolated, run, set_patience, verdict};

#[test]
fn without_a_fault_every_case_passes() {
    isolated(|| {
        let report = run(&subject());
        assert!(report.is_good(), "{report}");
        let words: Vec<_> = report.to_string().lines().map(str::to_owned).collect();
        assert!(words.iter().any(|l| l.starts_with("ranges::pages ") && l.contains(" ok ")), "{report}");
        assert!(words.iter().any(|l| l.contains("not declare spans")), "{report}");
    });
}

/// What shows by something that does not come: nobody has to wait for it as long as a busy machine may take.
const IMPATIENT: [Fault; 6] = [
    Fault::BreakUnseen,
    Fault::OneByOne,
    Fault::LeaksTasks,
    Fault::LeaksSockets,
    Fault::HalfHour,
    Fault::Patient,
];

/// The faulty transport, which waits less long where that is what is looked at.
fn subject() -> Subject {
    Subject::of(faulty::REGISTRATION).hurried("patience", "3")
}

/// A test of each fault: what the case must say.
macro_rules! found {
    ($($name:ident: $fault:ident by $case:literal: $word:literal;)*) => {$(
        #[test]
        fn $name() {
            isolated(|| {
                if IMPATIENT.contains(&Fault::$fault) {
                    set_patience(Duration::from_secs(15));
                }
                let subject = subject().set("fault", format!("{:?}", Fault::$fault));
                let find = || match verdict(&subject, $case) {
                    Verdict::Failed(why) if $word.split('|').any(|w| why.contains(w)) => Ok(()),
                    Verdict::Failed(why) => Err(format!("{} found something else: {why}", $case)),
                    other => Err(format!("{} did not find it: {other:?}", $case)),
                };
                // What a fault does in time, a machine that is busy may hide once.
                find().or_else(|_| find()).or_else(|_| find()).unwrap_or_else(|why| panic!("{why}"));
            });
        }
    )*};
}

found! {
    bytes_without_a_permit: Unpermitted by "ranges::pages": "permit";
    an_end_that_comes_early: Short by "ranges::pages": "did not come";
    bytes_left_out: Hole by "ranges::pages": "not those of the range";
    bytes_in_another_order: Swapped by "ranges::pages": "not those of the range";
    more_than_was_asked_for: TooMuch by "ranges::bytes": "asked for";
    a_wrong_page_number: WrongMark by "ranges::pages": "announces page";
    stripes_as_ranges: NoStripes by "ranges::stripes": "not those of the range";
    another_version: AnyVersion by "lookup::what_is_not_there": "instead of NoMedia";
    the_last_media_of_a_path: ByPath by "lookup::two_publishers_at_one_path": "not those of the range";
    paths_decoded_twice: Decoded by "lookup::hostile_paths": "NoMedia";
    what_it_cannot_do: Overdeclared by "declared::every_ability_works": "proofs";
    what_nobody_knows: Unknown by "declared::every_ability_works": "declares";
    keys_that_are_not_proved: ClaimsKeys by "declared::every_ability_works": "proves-key";
    what_is_missing_is_not_told: MissingUntold by "arriving::what_is_missing": "ended well";
    an_open_end_that_does_not_wait: Impatient by "arriving::open_ends_wait": "ended when pages|an end, before page";
    a_request_before_the_poll: Eager by "cancel::nothing_before_the_first_poll": "never polled";
    a_host_that_goes_on: Deaf by "cancel::dropping_stops_the_host": "still works";
    a_host_that_waits_on: DeafWaiting by "cancel::dropping_while_the_host_waits": "still works";
    a_host_that_hoards: HostHoards by "pace::a_slow_reader": "reader that pauses";
    a_receiver_that_hoards: ReceiverHoards by "pace::a_slow_reader": "reader that pauses";
    large_writes_on_a_thin_line: Lumps by "pace::a_slow_host": "nothing came for";
    a_permit_after_the_write: PermitLater by "pace::one_limit_over_two_transports": "permitted";
    a_ticket_left_at_home: NoTicket by "tickets::needed": "Denied";
    a_ticket_nobody_looks_at: TicketIgnored by "tickets::refused": "a good ticket";
    a_break_taken_for_the_end: BreakIsEnd by "attacks::host_breaks_off": "ended well";
    a_break_not_seen: BreakUnseen by "attacks::host_breaks_off": "neither a piece nor an end";
    a_length_that_is_believed: Believes by "attacks::host_sends_garbage": "memory";
    a_length_that_is_made_room_for: Reserves by "attacks::host_sends_garbage": "room was made";
    a_length_of_a_request_that_is_believed: HostBelieves by "attacks::requests_are_garbage": "room was made";
    a_request_waited_for_without_end: HalfHour by "attacks::half_a_request": "still open";
    a_reader_waited_for_without_end: Patient by "pace::a_reader_that_never_reads": "still works";
    a_host_that_never_stops: Insatiable by "attacks::host_never_stops": "at most";
    a_panic_at_a_bad_request: Panics by "attacks::requests_are_garbage": "panicked";
    one_after_the_other: OneByOne by "attacks::strangers_at_the_port": "neither a piece nor an end|beside callers";
    memory_left_behind: LeaksMemory by "leaks::a_thousand_requests": "memory";
    tasks_left_behind: LeaksTasks by "leaks::a_thousand_requests": "tasks";
    descriptors_left_behind: LeaksSockets by "leaks::a_thousand_requests": "descriptors";
    no_room_for_a_hundred: Crowded by "leaks::a_hundred_at_once": "request";
    a_task_that_outlives_its_peer: Immortal by "ending::host_shuts_down": "live on";
    a_task_that_waits_on: Lingers by "ending::nothing_holds_a_peer_up": "shutdown takes";
    a_receiver_that_cannot_leave: Stays by "ending::receiver_shuts_down": "has not ended";
}
