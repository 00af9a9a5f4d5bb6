//! The conformance suite over this transport, each case in a directory of its own.

use std::sync::atomic::{AtomicU32, Ordering};

use iceshare_testkit::Subject;
use iceshare_transport_carrier as _;

fn carrier() -> Subject {
    static CASE: AtomicU32 = AtomicU32::new(0);
    let case = CASE.fetch_add(1, Ordering::Relaxed);
    let dir = format!("{}/carrier-{}-{case}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    Subject::linked("carrier").set("dir", dir)
}

iceshare_testkit::conformance!(carrier());
