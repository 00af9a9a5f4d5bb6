//! Live media: what a broadcaster signs, and what a receiver believes. Sans-IO; pages and batches are kept by
//! [`store`](crate::store), moved by [`driver`](crate::driver).
//!
//! - [`Broadcaster`]: pages in, signed batches of their records and heads out.
//! - [`Repage`]: pages of an encoder in shorter ones.
//! - [`Titles`]: titles that come beside the stream, as links of it.
//! - [`Flat`]: a chain as one logical stream, for players that stop where a link ends.
//! - [`Ending`]: marks the last pages of a recording that stops before the broadcast does.
//! - [`Unended`]: ends for the logical streams of a player where a broadcast breaks off.
//! - [`NowOn`]: which title is on.
//! - [`Earlier`]: heads that are kept, to tell what was on when.
//! - [`Chain`]: batches that follow each other.
//!
//! The protocol: `proto-spec/spec/icet.md`, section 16.

mod broadcaster;
mod chain;
mod earlier;
mod ending;
mod flat;
mod now;
mod relabel;
mod repage;
#[cfg(test)]
pub(crate) mod tests;
mod titles;
mod unended;

pub use broadcaster::{Broadcaster, DELAY, Signed, SourceError};
pub use chain::{Chain, ChainError, Place, Taken};
pub use earlier::Earlier;
pub use ending::Ending;
pub use flat::{Flat, FlatError};
pub use now::NowOn;
pub use repage::Repage;
pub use titles::{TitleError, Titles};
pub use unended::Unended;
