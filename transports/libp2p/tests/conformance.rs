//! The conformance suite.

use iceshare_transport_libp2p as _;

iceshare_testkit::conformance!("libp2p");
