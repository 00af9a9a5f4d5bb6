//! Replays the corpora of the fuzz targets of this crate (`fuzz/README.md`).

#[allow(unreachable_pub)]
#[path = "../../fuzz/src/replay.rs"]
mod replay;
#[allow(unreachable_pub)] // public to the fuzz crate
#[path = "../../fuzz/src/icet.rs"]
mod targets;

use replay::replay;

#[test]
fn messages() {
    replay("icet_message", targets::message);
}

#[test]
fn media() {
    replay("icet_media", targets::media);
}

#[test]
fn pages() {
    replay("icet_pages", targets::pages);
}

#[test]
fn names() {
    replay("icet_names", targets::names);
}

#[test]
fn stream() {
    replay("icet_stream", targets::stream);
}
