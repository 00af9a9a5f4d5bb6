//! The peer engine: sans-IO.

pub mod io;
