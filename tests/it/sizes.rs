//! Large media of every codec: the copy is identical, and memory does not grow with the file. Long tests.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use iceshare_tests::{Network, Proc, fixture, have, long, same};

/// Bytes resident at most, in a program that publishes or fetches a media of any size.
const MOST: u64 = 64 << 20;
/// For a gibibyte on a slow machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// A fixture again and again, one stream of at least `bytes`, in pages of 200 ms.
fn looped(net: &Network, name: &str, bytes: u64) -> PathBuf {
    let (source, file) = (fixture(name), net.path(name));
    let once = std::fs::metadata(&source).map_or(1, |m| m.len()).max(1);
    // What is copied is paged anew, and may take less.
    let mut times = bytes / once + 1;
    loop {
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-y", "-v", "error", "-nostdin", "-stream_loop", &times.to_string(), "-i"]).arg(&source);
        ffmpeg.args(["-map", "0", "-c", "copy", "-page_duration", "200000"]).arg(&file);
        assert!(ffmpeg.status().is_ok_and(|s| s.success()), "{ffmpeg:?}");
        let made = std::fs::metadata(&file).map_or(1, |m| m.len()).max(1);
        if made >= bytes {
            return file;
        }
        times = times * bytes / made + 1;
    }
}

/// A fixture many times side by side: as many links.
fn chained(net: &Network, name: &str, bytes: u64) -> PathBuf {
    let file = net.path(name);
    let once = std::fs::read(fixture(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut out = File::create(&file).unwrap_or_else(|e| panic!("{name}: {e}"));
    for _ in 0..=bytes / once.len() as u64 {
        out.write_all(&once).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    file
}

/// Publishes the file and fetches it, and looks at the copy and at the memory of both.
fn goes_through(net: &Network, file: &Path) {
    let (publisher, url) = net.publish("publisher", file, &[]);
    let (get, out) = net.get("receiver", &url, &["--share-for", "1h"]);
    let sharing = |l: &str| l.contains("sharing").then_some(());
    get.error_line_within(PATIENCE, "that it is complete and shares", sharing);
    let name = file.display();
    assert!(same(file, &out), "{name} arrived altered");
    let peaks = [("publish", &publisher), ("get", &get)].map(|(who, p): (_, &Proc)| (who, p.peak_memory()));
    let size = std::fs::metadata(file).map_or(0, |m| m.len());
    eprintln!("{name}: {size} bytes; most memory of {peaks:?}");
    for (who, peak) in peaks {
        assert!(peak <= MOST, "{name}, {size} bytes: {who} had {peak} bytes resident");
    }
    drop((publisher, get));
    let _ = std::fs::remove_file(out);
}

#[test]
fn tens_of_megabytes_of_every_codec_arrive_identical() {
    if !long() || !have("ffmpeg") {
        return;
    }
    let bytes = 40_000_000;
    for name in
        ["vorbis-ffmpeg.ogg", "opus-ffmpeg.opus", "flac-ffmpeg.oga", "speex-ffmpeg.spx", "theora-vorbis.ogv"]
    {
        let net = Network::new();
        goes_through(&net, &looped(&net, name, bytes));
    }
    for name in ["chained-codecs.ogg", "chained-same-serial.opus"] {
        let net = Network::new();
        goes_through(&net, &chained(&net, name, bytes));
    }
}

#[test]
fn a_gibibyte_arrives_identical_in_little_memory() {
    if !long() || !have("ffmpeg") {
        return;
    }
    let net = Network::new();
    goes_through(&net, &looped(&net, "vorbis-ffmpeg.ogg", 1 << 30));
}
