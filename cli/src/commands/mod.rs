//! One module a command.

mod protocols;
mod verify;

pub(crate) use protocols::protocols;
pub(crate) use verify::verify;
