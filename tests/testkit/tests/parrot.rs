//! The transport of the tutorial (`iceshare::protocol::guide`) does what the tutorial says.

#[path = "../../../core/src/protocol/parrot.rs"]
mod parrot;

iceshare_testkit::conformance!(parrot::NAME);
