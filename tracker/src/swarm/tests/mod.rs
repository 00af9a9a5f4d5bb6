//! Lock-step tests of the swarm: scripted peers, virtual time.

mod allow;
mod assign;
mod dark;
mod drips;
mod fair;
pub(crate) mod fixture;
mod knock;
mod learned;
mod live;
mod live_later;
mod pair;
mod play;
mod publish;
mod punch;
mod random;
mod record;
mod reserve;
mod rules;
mod session;
mod shortage;
mod sim;
mod standing;
mod trust;
mod why;
mod world;
