//! The transport of the tutorial (`iceshare::protocol::guide`) does what the tutorial says.

#[path = "../../../core/src/protocol/parrot.rs"]
mod parrot;

/// Its deadlines are fixed: half a minute is for long runs.
fn parrot() -> iceshare_testkit::Subject {
    let subject = iceshare_testkit::Subject::linked(parrot::NAME);
    if std::env::var_os("ICESHARE_LONG").is_some_and(|v| v == "1") {
        return subject;
    }
    subject.without("pace::a_reader_that_never_reads", "it takes half a minute; see ICESHARE_LONG")
}

iceshare_testkit::conformance!(parrot());
