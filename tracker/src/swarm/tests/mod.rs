//! Lock-step tests of the swarm: scripted peers, virtual time.

pub(crate) mod fixture;
mod session;
mod sim;
mod world;
