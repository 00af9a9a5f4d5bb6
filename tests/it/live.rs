//! Live media with real programs: what listeners get is what the source sent, from where they came in.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use iceshare::ogg::{SplitEvent, Splitter, Timeline};
use iceshare_tests::media::opus_like;
use iceshare_tests::{Network, PATIENCE, Proc, have};

/// The pages of a file, and how many of them are setup.
fn pages(file: &Path) -> (Vec<Bytes>, usize) {
    let mut splitter = Splitter::new();
    splitter.push(std::fs::read(file).expect("a file").into());
    splitter.gap();
    let (mut pages, mut setup, mut timeline) = (Vec::new(), 0, Timeline::new());
    while let Some(event) = splitter.next() {
        let SplitEvent::Page { header, bytes } = event else { panic!("{}: {event:?}", file.display()) };
        if timeline.page(&header, &bytes).setup && timeline.link_count() == 1 {
            setup = pages.len() + 1;
        }
        pages.push(bytes);
    }
    (pages, setup)
}

/// Waits until something is true of the disk.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

fn broadcast(network: &Network, who: &str, from: &Path, more: &[&str]) -> (Proc, String) {
    let from = from.to_string_lossy();
    let args =
        [&["broadcast", "--tracker", &network.tracker.url, "--as", "radio/one", "--from", &from], more]
            .concat();
    let proc = network.run(who, &args);
    let url = proc.line("its link", |l| l.starts_with("icet://").then(|| l.trim().to_owned()));
    (proc, url)
}

/// Checks that `recorded` is the setup pages of the source and then pages of it in a row, the source over and over; `restarts` times it
/// may begin anew in the middle. How many pages are behind the setup.
fn is_a_stretch(source: &Path, recorded: &Path, mut restarts: usize) -> usize {
    let (source, setup) = pages(source);
    let (recorded, _) = pages(recorded);
    assert!(recorded.len() > setup, "only {} pages", recorded.len());
    assert_eq!(recorded[..setup], source[..setup], "setup pages come first");
    let rest = &recorded[setup..];
    let mut at = source.iter().position(|p| *p == rest[0]).expect("a page of the source");
    for (i, page) in rest.iter().enumerate() {
        if restarts > 0 && *page != source[at] && *page == source[0] {
            (restarts, at) = (restarts - 1, 0);
        }
        assert!(*page == source[at], "page {i} behind the setup: a gap, a repeat, or altered");
        at = (at + 1) % source.len();
    }
    assert_eq!(restarts, 0, "it never began anew");
    rest.len()
}

#[test]
fn who_comes_in_the_middle_misses_nothing_from_there_on() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 7).expect("a source");
    let (_broadcast, url) = broadcast(&network, "station", &source, &["--loop", "--delay", "100ms"]);
    let (mut first, a) = network.get("first", &url, &["--for", "9s"]);
    let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
    until("the first listener hears something", || size(&a) > 6000);
    let (mut second, b) = network.get("second", &url, &["--for", "4s"]);
    second.ends_with(0);
    first.ends_with(0);
    let (first, second) = (is_a_stretch(&source, &a, 0), is_a_stretch(&source, &b, 0));
    assert!(first > second, "9 s are {first} pages, 4 s are {second}");
}

#[test]
fn a_broadcaster_that_is_killed_goes_on_and_so_do_its_listeners() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 8).expect("a source");
    let (mut station, url) = broadcast(&network, "station", &source, &["--loop"]);
    let (mut listener, out) = network.get("listener", &url, &["--for", "10s"]);
    let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
    until("the listener hears something", || size(&out) > 4000);
    station.kill();
    let (_station, again) = broadcast(&network, "station", &source, &["--loop"]);
    assert_eq!(again, url);
    listener.ends_with(0);
    // Without a word of the system on its restarts a new broadcast begins instead.
    if Path::new("/proc/sys/kernel/random/boot_id").exists() {
        is_a_stretch(&source, &out, 1);
    }
}

#[test]
fn what_cannot_be_broadcast_is_told() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 9).expect("a source");
    let (_station, url) = broadcast(&network, "station", &source, &["--loop"]);
    let tracker = network.tracker.url.as_str();
    let text = source.to_string_lossy();
    let mut other = network
        .run("other", &["broadcast", "--tracker", tracker, "--as", "radio/one", "--from", &text, "--loop"]);
    other.ends_with(6);
    assert!(other.stderr().contains("another key owns radio/one"), "{}", other.stderr());
    // MP3, or anything else that is not Ogg.
    let garbage = network.path("garbage");
    std::fs::write(&garbage, vec![0x55; 300_000]).expect("a file");
    let garbage = garbage.to_string_lossy();
    let mut none = network.run("none", &["broadcast", "--tracker", tracker, "--as", "x", "--from", &garbage]);
    none.ends_with(1);
    assert!(none.stderr().contains("is not Ogg"), "{}", none.stderr());
    // Over a protocol that carries no live media nobody listens, and is told so.
    let info = network.run("info", &["info", &url]).end();
    assert_eq!(info, Some(0));
    let (mut deaf, out) = network.get("deaf", &url, &["--transport", "http", "--for", "3s"]);
    deaf.error_line("why nothing comes", |l| {
        l.contains("none of them speaks http (they speak").then_some(())
    });
    assert!(out.exists());
    deaf.signal("INT");
    deaf.ends_with(130);
    assert!(!out.exists(), "an empty file would be in the way");
    let mut file = network.run("file", &["publish", &text, "--tracker", tracker, "--as", "a/file"]);
    let link = file.line("its link", |l| l.starts_with("icet://").then(|| l.trim().to_owned()));
    let (mut get, _) = network.get("get", &link, &["--for", "3s"]);
    get.ends_with(2);
    file.signal("TERM");
    file.ends_with(130);
}

/// What ffmpeg makes of a file: samples of 16 bits, one channel.
pub(crate) fn decoded(file: &Path) -> Vec<u8> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(file).args(["-f", "s16le", "-ac", "1", "-"]);
    let out = ffmpeg.output().expect("ffmpeg");
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn the_sound_of_a_listener_in_the_middle_is_the_source_s() {
    if !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let source = network.path("source.oga");
    // A tone that rises, so that no stretch is like another; FLAC, so that samples are equal.
    let tone = "aevalsrc=0.5*sin(2*PI*(200+30*t)*t):d=30:s=16000";
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", tone, "-c:a", "flac", "-page_duration", "200000"]);
    assert!(ffmpeg.arg(&source).status().is_ok_and(|s| s.success()));
    let (_station, url) = broadcast(&network, "station", &source, &[]);
    let (mut first, a) = network.get("first", &url, &["--for", "3s"]);
    first.ends_with(0);
    let (mut second, b) = network.get("second", &url, &["--for", "4s"]);
    second.ends_with(0);
    let whole = decoded(&source);
    for (file, seconds) in [(a, 3), (b, 4)] {
        let sound = decoded(&file);
        assert!(sound.len() >= seconds * 16_000 * 2, "{} bytes of {seconds} s", sound.len());
        let from =
            whole.windows(64).step_by(2).position(|w| *w == sound[..64]).expect("a place in the source");
        assert!(
            whole[2 * from..].starts_with(&sound),
            "a gap, a repeat, or another sound, from sample {from} on"
        );
    }
}
