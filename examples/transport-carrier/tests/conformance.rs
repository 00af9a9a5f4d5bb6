//! The conformance suite over this transport, each case in a directory of its own.

use std::sync::atomic::{AtomicU32, Ordering};

use iceshare_testkit::Subject;
use iceshare_transport_carrier as _;

fn carrier() -> Subject {
    static CASE: AtomicU32 = AtomicU32::new(0);
    let case = CASE.fetch_add(1, Ordering::Relaxed);
    let dir = format!("{}/carrier-{}-{case}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    let subject = Subject::linked("carrier").set("dir", dir);
    // Its deadlines are fixed: half a minute is for long runs.
    if std::env::var_os("ICESHARE_LONG").is_some_and(|v| v == "1") {
        return subject;
    }
    subject.without("pace::a_reader_that_never_reads", "it takes half a minute; see ICESHARE_LONG")
}

iceshare_testkit::conformance!(carrier());
