//! One module a command.

mod protocols;

pub(crate) use protocols::protocols;
