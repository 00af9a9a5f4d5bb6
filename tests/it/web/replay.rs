//! A tracker's log replays: what a fresh swarm makes of the same is the same, bit by bit.

use std::path::Path;
use std::process::Command;

use iceshare_tests::{Network, binary, media, same};

/// Exit code and both outputs of `icetracker replay`.
fn replay(log: &Path) -> (Option<i32>, String, String) {
    let out = Command::new(binary("icetracker")).arg("replay").arg(log).output();
    let out = out.unwrap_or_else(|e| panic!("icetracker replay: {e}"));
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn a_run_of_real_peers_replays_bit_by_bit() {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let log = dir.path().join("swarm.log");
    let mut net = Network::with(&["--record", &log.to_string_lossy()]);
    let file = net.path("told.opus");
    media::opus_like(&file, 3_000_000, 4200, 8).unwrap_or_else(|e| panic!("{e}"));
    let (publisher, url) = net.publish("publisher", &file, &[]);
    let crowd: Vec<_> =
        (0..3).map(|i| net.get(&format!("receiver-{i}"), &url, &["--share-for", "10m"])).collect();
    for (get, out) in &crowd {
        get.error_line("that it is complete and shares", |l| l.contains("sharing").then_some(()));
        assert!(same(&file, out));
    }
    drop((crowd, publisher));
    net.tracker.proc.signal("TERM");
    net.tracker.proc.ends_with(0);
    let (code, told, error) = replay(&log);
    assert_eq!(code, Some(0), "{told}{error}");
    assert!(told.contains("all the same; the log ends with the tracker"), "{told}");
    let inputs: u64 = told.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!(inputs > 50, "{told}");
    let bytes = std::fs::read(&log).unwrap_or_else(|e| panic!("{e}"));

    let cut = dir.path().join("cut.log");
    std::fs::write(&cut, &bytes[..bytes.len() * 2 / 3]).unwrap_or_else(|e| panic!("{e}"));
    let (code, told, _) = replay(&cut);
    assert_eq!(code, Some(0));
    assert!(told.contains("all the same; the log is cut off there"), "{told}");

    // Garbage, and a log in which something was changed.
    std::fs::write(&cut, [7; 5000]).unwrap_or_else(|e| panic!("{e}"));
    let (code, _, error) = replay(&cut);
    assert_eq!(code, Some(1));
    assert!(error.contains("is no log of a swarm"), "{error}");
    let mut changed = bytes.clone();
    let at = bytes.len() / 2;
    changed[at..at + 64].fill(0xff);
    std::fs::write(&cut, &changed).unwrap_or_else(|e| panic!("{e}"));
    let (code, _, error) = replay(&cut);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("record ") && !error.contains("panicked"), "{error}");
}
