//! One module a command.

mod broadcast;
mod get;
mod icecast;
mod info;
mod keep;
mod late;
mod play;
mod protocols;
mod publish;
mod record;
mod trust;
mod verify;

pub(crate) use broadcast::broadcast;
pub(crate) use get::get;
pub(crate) use icecast::icecast;
pub(crate) use info::info;
pub(crate) use play::play;
pub(crate) use protocols::protocols;
pub(crate) use publish::{publish, serve};
pub(crate) use trust::trust;
pub(crate) use verify::verify;
