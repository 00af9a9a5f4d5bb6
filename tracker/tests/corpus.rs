//! Replays the corpora of the fuzz targets of this crate (`fuzz/README.md`).

#[allow(unreachable_pub)]
#[path = "../../fuzz/src/replay.rs"]
mod replay;
#[allow(unreachable_pub)] // public to the fuzz crate
#[path = "../../fuzz/src/tracker.rs"]
mod targets;

use replay::replay;

#[test]
fn swarm() {
    replay("tracker_swarm", targets::swarm);
}

#[test]
fn record() {
    replay("tracker_record", targets::record);
}
