//! Attacks: peers, trackers and web pages that mean harm, against the real programs and the real driver.

mod aim;
mod dripper;
mod fake_tracker;
mod floods;
mod gateway;
mod hosts;
mod liar;
mod paths;
mod ports;
mod publishers;
pub(crate) mod stranger;
mod tickets;
mod trackers;
