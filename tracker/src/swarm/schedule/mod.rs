//! Who fetches what from whom: the trait, and its first implementation.
//!
//! The [`Board`] keeps the facts (page maps, counts of copies, what is under way, learned rates) and carries orders out.
//! A scheduler is told what changed, looks at the board, and orders with [`Board::issue`]; it takes back with
//! [`Board::cancel`] and [`Board::end`]. It may keep state of its own, has no clock, and draws from [`Board::rng`] only, so
//! that the same events give the same orders.

use std::fmt;

use icet::Now;

use super::board::{Board, MediaIx, PeerIx};

mod choose;
mod greedy;
mod shortage;
mod urgent;

pub(crate) use greedy::Greedy;

/// What changed on the board. In the order in which several at once are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A peer joined, or joined anew.
    Joined { media: MediaIx, peer: PeerIx },
    /// A player moved, or a member wants something else.
    Wants { media: MediaIx, peer: PeerIx },
    /// A member holds new pages.
    Got { media: MediaIx, peer: PeerIx },
    /// Something under way from `host` to `receiver` arrived or ended: both have more room.
    Room { media: MediaIx, host: PeerIx, receiver: PeerIx },
    /// An address of a host was proved.
    Ready { peer: PeerIx },
    /// A running assignment was looked at, and is not complete.
    Slow { run: u64 },
    /// Time to try again for who went hungry.
    Tick { media: MediaIx },
}

/// Decides who fetches what from whom.
pub(crate) trait Scheduler: fmt::Debug + Send {
    /// Something changed. Cost must not grow with the size of the crowd.
    fn handle(&mut self, now: Now, board: &mut Board, event: Event);
}
