//! The conformance suite over this transport, over a network that loses and reorders too.

use iceshare_transport_udp as _;

iceshare_testkit::conformance!("udp");
