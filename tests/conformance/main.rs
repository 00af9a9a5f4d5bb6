//! The conformance suite over the two payload protocols that only tests have, which promise less than the real ones.

#[path = "../it/transports/gappy.rs"]
mod gappy;
#[path = "../it/transports/plain.rs"]
mod plain;

mod datagrams_with_losses {
    iceshare_testkit::conformance!(super::gappy::NAME);
}

mod bare_byte_ranges {
    iceshare_testkit::conformance!(super::plain::NAME);
}
