//! The conformance suite over this transport.

use iceshare_transport_quic as _;

iceshare_testkit::conformance!("quic");
