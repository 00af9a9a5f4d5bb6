//! The conformance suite over this transport, over a network that loses and reorders too.

use iceshare_transport_udp as _;

/// The protocol says half a minute for requests of which nothing is heard: that is for long runs.
fn udp() -> iceshare_testkit::Subject {
    let subject = iceshare_testkit::Subject::linked("udp").hurried("stall-timeout", "3");
    if std::env::var_os("ICESHARE_LONG").is_some_and(|v| v == "1") {
        return subject;
    }
    subject.without("pace::a_reader_that_never_reads", "it takes half a minute; see ICESHARE_LONG")
}

iceshare_testkit::conformance!(udp());
