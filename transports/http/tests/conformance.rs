//! The conformance suite over this transport.

use iceshare_transport_http as _;

iceshare_testkit::conformance!("http");
