//! A simulator of whole swarms: the real `icetracker::swarm` and N real peer engines, over a seeded network in memory with
//! rates, delays, losses, deaths and restarts, in virtual time. Same seed, same run, byte by byte.
//!
//! Pages are not moved: what is simulated is when each would arrive ([the network](Line)). Messages between engines and
//! swarm go as types, or through the wire's encoding ([`Wire`]). A [`Scenario`] says who comes and what they do, [`run`] what
//! comes of it, beside fluid [`bounds`] and a local rarest-first swarm in the same network. Tests may drive a [`Sim`]
//! themselves.

pub mod bounds;
mod cheat;
mod chosen;
mod figures;
mod live;
mod media;
mod net;
mod outage;
mod peer;
mod play;
mod plot;
mod protocol;
mod queue;
mod rarest;
mod run;
mod scenario;
mod tracker;
mod world;

pub use chosen::{Chosen, Spell};
pub use figures::{Class, Completion, Control, Figures, Listening, Origin, Playback, Sample, Spread};
pub use live::{Stream, snowball};
pub use media::{Pages, SimMedia};
pub use net::{Conduct, Death, Line};
pub use outage::Outage;
pub use peer::{MEDIA, Peer, Spec};
pub use play::{Buffers, Player};
pub use plot::{delays, plot};
pub use protocol::Protocol;
pub use rarest::Local;
pub use run::{Outcome, run};
pub use scenario::Scenario;
pub use world::{Sim, Traffic, Wire};

/// The parts of a [`Scenario`].
pub mod parts {
    pub use crate::scenario::{
        Answers, Churn, Class, Crowd, Live, Media, Origin, Outage, Play, Protocol, Yardstick,
    };
}
