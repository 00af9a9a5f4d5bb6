//! Replays the corpora of the fuzz targets of this crate (`fuzz/README.md`).

#[allow(unreachable_pub)]
#[path = "../../../fuzz/src/replay.rs"]
mod replay;
#[allow(unreachable_pub)] // public to the fuzz crate
#[path = "../../../fuzz/src/libp2p.rs"]
mod targets;

use replay::replay;

#[test]
fn endpoints() {
    replay("libp2p_endpoint", targets::endpoint);
}
