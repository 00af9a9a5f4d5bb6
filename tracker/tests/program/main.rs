//! The real binary, spoken to over real sockets with messages made by hand.

#[path = "../../src/catalogue/samples.rs"]
#[allow(dead_code)]
mod samples;

mod client;
mod embedded;
mod options;
mod restart;
mod sessions;
mod strain;
mod tracker;
mod web;
