//! The conformance suite.

use iceshare_transport_libp2p as _;

iceshare_testkit::conformance!(
    iceshare_testkit::Subject::linked("libp2p")
        .hurried("request-timeout", "3")
        .hurried("idle-timeout", "3")
        .hurried("stall-timeout", "3")
);
