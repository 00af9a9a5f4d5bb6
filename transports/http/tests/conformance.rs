//! The conformance suite over this transport.

use iceshare_transport_http as _;

iceshare_testkit::conformance!(
    iceshare_testkit::Subject::linked("http").hurried("header-timeout", "3").hurried("stall-timeout", "3")
);
