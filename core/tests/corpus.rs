//! Replays the corpora of the fuzz targets of this crate (`fuzz/README.md`).

#[allow(unreachable_pub)] // public to the fuzz crate
#[path = "../../fuzz/src/ogg.rs"]
mod ogg;
#[allow(unreachable_pub)]
#[path = "../../fuzz/src/peer.rs"]
mod peer;
#[allow(unreachable_pub)]
#[path = "../../fuzz/src/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn scan() {
    replay("ogg_scan", ogg::scan);
}

#[test]
fn timeline() {
    replay("ogg_timeline", ogg::timeline);
}

#[test]
fn engine() {
    replay("peer_engine", peer::engine);
}
