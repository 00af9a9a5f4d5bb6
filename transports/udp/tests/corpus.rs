//! Replays the corpora of the fuzz targets of this crate (`fuzz/README.md`).

#[allow(unreachable_pub)]
#[path = "../../../fuzz/src/replay.rs"]
mod replay;
#[allow(unreachable_pub)] // public to the fuzz crate
#[path = "../../../fuzz/src/udp.rs"]
mod targets;

use replay::replay;

#[test]
fn wire() {
    replay("udp_wire", targets::wire);
}

#[test]
fn association() {
    replay("udp_association", targets::association);
}
