//! The conformance suite over this transport.

use iceshare_transport_quic as _;

iceshare_testkit::conformance!(
    iceshare_testkit::Subject::linked("quic")
        .hurried("request-timeout", "3")
        .hurried("idle-timeout", "3")
        .hurried("stall-timeout", "3")
);
