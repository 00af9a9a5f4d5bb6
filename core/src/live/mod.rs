//! Live media: what a broadcaster signs, and what a receiver believes. Sans-IO; pages and batches are kept by
//! [`store`](crate::store), moved by [`driver`](crate::driver).
//!
//! - [`Broadcaster`]: pages in, signed batches of their records and heads out.
//! - [`Titles`]: titles that come beside the stream, as links of it.
//! - [`Chain`]: batches that follow each other.
//!
//! The protocol: `proto-spec/spec/icet.md`, section 16.

mod broadcaster;
mod chain;
mod relabel;
#[cfg(test)]
pub(crate) mod tests;
mod titles;

pub use broadcaster::{Broadcaster, DELAY, Signed, SourceError};
pub use chain::{Chain, ChainError, Place, Taken};
pub use titles::{TitleError, Titles};
