//! The IceShare tracker: who holds which pages of which media, and who fetches what from whom, over what.

pub mod catalogue;
pub mod config;
pub mod server;
pub mod swarm;
pub mod web;
