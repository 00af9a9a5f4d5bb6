//! The driver: a thin layer of IO around the engine. It owns the ports, the sessions with trackers, the fetches and
//! the files; what to do with them the engine says.

mod assemble;
mod broadcast;
mod error;
mod fetch;
mod limit;
mod link;
mod live;
mod media;
mod notice;
mod peer;
mod proofs;
mod reader;
mod session;
mod standing;
mod standstill;
mod titles;
mod turns;
mod unwelcome;
mod watch;

pub use broadcast::{Broadcast, BroadcastError, BroadcastOptions};
pub use error::{OpenError, StartError};
pub use live::{LivePage, LiveReader};
pub use media::{Flow, Media, Progress};
pub use notice::{Notice, Notices};
pub use peer::{Giver, Info, OpenOptions, Peer, PeerConfig, PeerStats, TRUST_FILE};
pub use reader::MediaReader;
pub use standing::{Mark, Standing};
pub use standstill::FetchFailure;
pub use titles::HeardTitles;
