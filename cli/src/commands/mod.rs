//! One module a command.

mod get;
mod info;
mod play;
mod protocols;
mod publish;
mod trust;
mod verify;

pub(crate) use get::get;
pub(crate) use info::info;
pub(crate) use play::play;
pub(crate) use protocols::protocols;
pub(crate) use publish::{publish, serve};
pub(crate) use trust::trust;
pub(crate) use verify::verify;
