//! Frames that must arrive: what is said, and said again while it matters.

use std::collections::VecDeque;

/// What a control frame says; its values are taken from the association when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// Something to be acknowledged.
    Ping,
    /// Part of a request's body.
    Request(u64, Part),
    /// Nothing more of a request is wanted.
    Stop(u64),
    /// How much of a request may be sent.
    Credit(u64),
    /// A repair, with its number.
    Repair(u64, u64),
    /// A request is served.
    Accept(u64),
    /// Repairs of a request were sent.
    Repaired(u64),
    /// A request needs credit.
    Blocked(u64),
    /// A request was served.
    End(u64),
    /// A request failed.
    Fail(u64),
}

/// Bytes of a body: offset and length, which fit 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) offset: u16,
    pub(crate) len: u16,
}

/// What waits to be said, each once.
#[derive(Debug, Default)]
pub(crate) struct Outbox(VecDeque<Control>);

impl Outbox {
    pub(crate) fn push(&mut self, control: Control) {
        if !self.0.contains(&control) {
            self.0.push_back(control);
        }
    }

    /// Back to its place, since it did not fit.
    pub(crate) fn push_front(&mut self, control: Control) {
        self.0.push_front(control);
    }

    pub(crate) fn pop(&mut self) -> Option<Control> {
        self.0.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
