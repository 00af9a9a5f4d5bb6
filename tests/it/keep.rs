//! A broadcast that becomes a file under its link.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use iceshare_tests::media::opus_like;
use iceshare_tests::process::same;
use iceshare_tests::{Network, Proc};

use crate::live::{broadcast, is_a_stretch, pages, until};

#[test]
fn a_broadcast_that_ends_becomes_a_file_under_its_link() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 18_600, 1200, 31).expect("a source");
    let kept = network.path("kept.opus");
    let name = kept.to_string_lossy().into_owned();
    let (mut station, url) = broadcast(&network, "station", &source, &["--keep", &name]);
    let (mut live, _) = network.get("live", &url, &[]);
    live.ends_with(0);
    assert!(live.stderr().contains("the broadcast has ended"), "{}", live.stderr());
    let patience = Duration::from_secs(60);
    station.error_line_within(patience, "a file", |l| l.contains("sharing 1 file").then_some(()));
    assert!(same(&source, &kept), "what was kept is not what was broadcast");
    // The link that listeners have, with nothing known of before, and with all that is known.
    for who in ["newcomer", "live"] {
        let out = network.path(&format!("{who}.file"));
        let text = out.to_string_lossy().into_owned();
        network.run(who, &["get", &url, "-o", &text]).ends_with(0);
        assert!(same(&source, &out), "{who}");
    }
    station.signal("TERM");
    station.ends_with(0);

    // What is there is not written over.
    let (tracker, from) = (network.tracker.url.as_str(), source.to_string_lossy());
    let args = ["broadcast", "--tracker", tracker, "--as", "radio/two", "--from", &from, "--keep", &name];
    let mut again = network.run("station", &args);
    again.ends_with(1);
    assert!(again.stderr().contains("kept.opus"), "{}", again.stderr());
    assert!(same(&source, &kept));
}

#[test]
fn the_same_command_goes_on_with_the_same_file() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 33).expect("a source");
    let kept = network.path("kept.opus");
    let name = kept.to_string_lossy().into_owned();
    let args = ["--loop", "--keep", name.as_str()];
    let size = || std::fs::metadata(&kept).map_or(0, |m| m.len());
    let mut last = 0;
    for end in ["KILL", "TERM"] {
        let (mut station, _) = broadcast(&network, "station", &source, &args);
        until("more is kept", || size() > last + 8_000);
        station.signal(end);
        station.end();
        last = size();
    }
    // What a kill leaves of a page.
    let mut torn = std::fs::read(&kept).expect("kept");
    torn.extend_from_slice(b"OggS and half of a page");
    std::fs::write(&kept, torn).expect("written");
    let (mut station, url) = broadcast(&network, "station", &source, &args);
    until("more is kept", || size() > last + 8_000);
    station.signal("INT");
    station
        .error_line_within(Duration::from_secs(60), "a file", |l| l.contains("sharing 1 file").then_some(()));
    let out = network.path("file");
    let text = out.to_string_lossy().into_owned();
    network.run("newcomer", &["get", &url, "-o", &text]).ends_with(0);
    assert!(same(&kept, &out));
    assert!(is_a_stretch(&source, &out, 2) > 15);
    // (Another interrupt right behind the first one would count as the same.)
    station.signal("TERM");
    station.end();
}

#[test]
fn a_file_that_lost_its_first_page_gets_all_of_the_broadcast() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 35).expect("a source");
    let kept = network.path("kept.opus");
    let name = kept.to_string_lossy().into_owned();
    let args = ["--loop", "--keep", name.as_str()];
    let size = || std::fs::metadata(&kept).map_or(0, |m| m.len());
    let mut before = Vec::new();
    // Nothing of it, and a part: what a kill leaves, or a full disk.
    for left in [0, 20] {
        let (mut station, _) = broadcast(&network, "station", &source, &args);
        until("more is kept", || size() > before.len() as u64 + 8_000);
        station.signal("KILL");
        station.end();
        before = std::fs::read(&kept).expect("kept");
        let whole = before.windows(4).rposition(|w| w == b"OggS").expect("a page");
        before.truncate(whole);
        std::fs::write(&kept, &before[..left]).expect("written");
    }
    let (mut station, _) = broadcast(&network, "station", &source, &args);
    until("all is kept", || size() > before.len() as u64 + 4_000);
    station.signal("KILL");
    station.end();
    assert!(std::fs::read(&kept).expect("kept").starts_with(&before), "it is not what it was");

    // Of something else nothing is touched.
    std::fs::write(&kept, b"OggX").expect("written");
    let (tracker, from) = (network.tracker.url.as_str(), source.to_string_lossy());
    let mut other = network.run(
        "station",
        &["broadcast", "--tracker", tracker, "--as", "radio/one", "--from", &from, "--keep", &name],
    );
    other.ends_with(1);
    assert!(std::fs::read(&kept).is_ok_and(|all| all == b"OggX"), "it is written over");
}

#[test]
fn an_interrupt_ends_the_broadcast_and_the_next_one_the_sharing() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 18_600, 1200, 32).expect("a source");
    let kept = network.path("kept.opus");
    let name = kept.to_string_lossy().into_owned();
    let (mut station, url) = broadcast(&network, "station", &source, &["--loop", "--keep", &name]);
    let listener = listener_that_stays(&network, "first", &url);
    station.signal("INT");
    let all = station.error_line("where it is", |l| l.contains("all of it is in").then(|| l.to_owned()));
    assert!(all.contains("kept.opus"), "{all}");
    // Who comes now comes too late for the broadcast, and gets what takes its place.
    let out = network.path("file");
    let text = out.to_string_lossy().into_owned();
    let mut late = network.run("newcomer", &["get", &url, "-o", &text]);
    late.ends_with(0);
    assert!(late.stderr().contains("the broadcast has ended; waiting"), "{}", late.stderr());
    assert!(same(&kept, &out));
    station.error_line("a file", |l| l.contains("sharing 1 file").then_some(()));
    drop(listener);
    station.signal("INT");
    station.ends_with(0);
}

/// Somebody who has heard something of a broadcast, and never says that he has heard its end.
fn listener_that_stays(network: &Network, who: &str, url: &str) -> Proc {
    let (listener, out) = network.get(who, url, &[]);
    until("something is heard", || std::fs::metadata(&out).is_ok_and(|m| m.len() > 0));
    listener.signal("STOP");
    listener
}

#[test]
fn who_asks_twice_has_the_whole_file_and_who_comes_late_is_told() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 18_600, 1200, 34).expect("a source");
    let kept = network.path("kept.opus");
    let name = kept.to_string_lossy().into_owned();
    let (mut station, url) = broadcast(&network, "station", &source, &["--loop", "--keep", &name]);
    let listener = listener_that_stays(&network, "first", &url);
    // One interrupt may come as several at once; these come until they count as two.
    until("it ends", || {
        station.signal("INT");
        station.stderr().contains("stopped at once")
    });
    station.ends_with(130);
    assert!(station.stderr().contains("kept.opus, which is not shared"), "{}", station.stderr());
    network.run("check", &["verify", &name]).ends_with(0);
    assert!(is_a_stretch(&source, &kept, 0) > 0);
    drop(listener);

    // Nothing takes the place of this one.
    let (station, url) = broadcast(&network, "station", &source, &["--loop"]);
    let _listener = listener_that_stays(&network, "second", &url);
    station.signal("INT");
    station.error_line("its end", |l| l.contains("the broadcast ends").then_some(()));
    let mut late = network.run("newcomer", &["get", &url, "-o", &network.path("none").to_string_lossy()]);
    late.ends_with(4);
    assert!(late.stderr().contains("no file has taken its place"), "{}", late.stderr());
    assert!(!network.path("none").exists());
}

/// A broadcast of what comes in through `input`, kept in `kept`.
fn piped(network: &Network, input: impl Into<std::process::Stdio>, kept: &Path, more: &[&str]) -> Proc {
    let (tracker, kept) = (network.tracker.url.as_str(), kept.to_string_lossy());
    let args = ["broadcast", "--tracker", tracker, "--as", "radio/one", "--from", "-", "--keep", &kept];
    Proc::fed(network.command("station", &[&args, more].concat()), input)
}

#[test]
fn all_that_comes_at_once_is_kept() {
    let network = Network::new();
    // Half a minute, and many times what the window has.
    for (name, bytes, window) in [("short", 48_000, "30m"), ("long", 1_200_000, "1m")] {
        let (source, kept) = (network.path(&format!("{name}.source")), network.path(&format!("{name}.opus")));
        opus_like(&source, bytes, 1200, 35).expect("a source");
        let mut station =
            piped(&network, File::open(&source).expect("a source"), &kept, &["--window", window]);
        station.error_line("a file", |l| l.contains("sharing 1 file").then_some(()));
        assert!(station.stderr().contains("all of it is in"), "{}", station.stderr());
        assert!(same(&source, &kept), "{name}: {} of {bytes} bytes", kept.metadata().map_or(0, |m| m.len()));
        station.signal("TERM");
        station.ends_with(0);
    }
}

#[test]
fn what_is_kept_goes_on_behind_a_link_of_setup_only() {
    let network = Network::new();
    let (silent, source) = (network.path("silent.opus"), network.path("source.opus"));
    opus_like(&silent, 6000, 1200, 36).expect("a source");
    opus_like(&source, 18_600, 1200, 37).expect("a source");
    let ((silent, setup), (all, _)) = (pages(&silent), pages(&source));
    let kept = network.path("kept.opus");
    let (input, mut say) = std::io::pipe().expect("a pipe");
    let mut station = piped(&network, input, &kept, &[]);
    let first = [&silent[..setup], &all[..6]].concat();
    say.write_all(&first.concat()).expect("taken");
    let is_there = |page: &[u8]| {
        let kept = std::fs::read(&kept).unwrap_or_default();
        kept.windows(page.len()).any(|w| w == page)
    };
    until("all is kept that came", || is_there(&all[5]));
    station.kill();
    for page in &first {
        assert!(is_there(page), "a page that came is not kept");
    }
    let before = std::fs::read(&kept).expect("kept");

    let station = piped(&network, File::open(&source).expect("a source"), &kept, &[]);
    station.error_line("a file", |l| l.contains("sharing 1 file").then_some(()));
    assert!(station.stderr().contains("all of it is in"), "{}", station.stderr());
    let after = std::fs::read(&kept).expect("kept");
    assert!(after.starts_with(&before) && after.len() > before.len() + 18_600);
}

#[test]
fn a_file_goes_on_that_was_begun_later_than_its_broadcast() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 38).expect("a source");
    let kept = network.path("kept.opus");
    let name = kept.to_string_lossy().into_owned();
    let size = || std::fs::metadata(&kept).map_or(0, |m| m.len());
    let (mut station, url) = broadcast(&network, "station", &source, &["--loop"]);
    let listener = listener_that_stays(&network, "first", &url);
    station.kill();
    drop(listener);
    let args = ["--loop", "--keep", name.as_str()];
    let mut last = 0;
    for begun in [false, true] {
        let (mut station, _) = broadcast(&network, "station", &source, &args);
        until("more is kept", || size() > last + 4000);
        if begun {
            station.signal("INT");
            let what = "what was kept of it is in";
            station.error_line("what there is", |l| l.contains(what).then_some(()));
            assert!(!station.stderr().contains("is new"), "{}", station.stderr());
        } else {
            station.error_line("what lacks", |l| l.contains("is new: it gets what comes").then_some(()));
            station.kill();
        }
        last = size();
    }
    network.run("check", &["verify", &name]).ends_with(0);
}
