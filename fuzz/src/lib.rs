//! What the fuzz targets do, so that plain tests can replay their corpora: each crate's `tests/corpus.rs` takes its
//! module from here by path.

pub mod http;
pub mod icet;
pub mod libp2p;
pub mod ogg;
pub mod peer;
pub mod tracker;
pub mod udp;
