//! Two computers with one key: a publisher's key file that was copied.

use std::path::Path;
use std::time::{Duration, Instant};

use iceshare_tests::{Network, Proc, media, same};

use crate::live::{broadcast, is_a_stretch};

/// Publishes with a copy of `first`'s key from a data folder of its own: to the tracker, another computer.
fn publish_from_a_copy(net: &Network, first: &str, file: &Path) -> Proc {
    let copy = net.path("copied-key");
    std::fs::copy(net.path(first).join("key"), &copy).unwrap_or_else(|e| panic!("{e}"));
    let (file, copy) = (file.to_string_lossy(), copy.to_string_lossy());
    net.run("elsewhere", &["publish", &file, "--tracker", &net.tracker.url, "--key", &copy])
}

fn song(net: &Network) -> std::path::PathBuf {
    let file = net.path("song.opus");
    media::opus_like(&file, 300_000, 4200, 31).unwrap_or_else(|e| panic!("{e}"));
    file
}

/// A publisher that nobody fetches from says nothing for minutes; it is there all the same.
#[test]
fn a_copy_of_the_key_of_an_idle_publisher_is_refused() {
    let net = Network::new();
    let file = song(&net);
    let (publisher, url) = net.publish("publisher", &file, &[]);
    let mut second = publish_from_a_copy(&net, "publisher", &file);
    second.ends_with(6);
    let said = second.stderr();
    assert!(said.contains("refuses this key: another program with this key is connected"), "{said}");
    assert!(said.contains("use another key (--key)"), "{said}");
    assert!(!publisher.stderr().contains("ends the session"), "{}", publisher.stderr());
    let (mut get, out) = net.get("receiver", &url, &[]);
    get.ends_with(0);
    assert!(same(&file, &out));
}

/// What was killed, or lost its network, keeps nobody out, though its session still stands.
#[test]
fn who_comes_back_from_elsewhere_gets_in_once_the_first_does_not_answer() {
    let net = Network::new();
    let file = song(&net);
    let (publisher, url) = net.publish("publisher", &file, &[]);
    publisher.signal("STOP");
    let began = Instant::now();
    let second = publish_from_a_copy(&net, "publisher", &file);
    let again = second.line("its link", |l| l.starts_with("icet://").then(|| l.trim().to_owned()));
    let took = began.elapsed();
    eprintln!("in after {} ms", took.as_millis());
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(url, again);
    let (mut get, out) = net.get("receiver", &url, &[]);
    get.ends_with(0);
    assert!(same(&file, &out));
    // The first one hears of it, and does not push the other one out.
    publisher.signal("CONT");
    publisher.error_line("that another one has its place", |l| l.contains("ends the session").then_some(()));
    publisher.error_line("what that means", |l| {
        l.contains("nothing is shared through it meanwhile").then_some(())
    });
    let (mut get, out) = net.get("another receiver", &url, &[]);
    get.ends_with(0);
    assert!(same(&file, &out));
    assert!(!second.stderr().contains("another session of this key began"), "{}", second.stderr());
    // Once the other one is gone it is back, and says so.
    drop(second);
    publisher.error_line("that it is back", |l| l.contains("has let this program in").then_some(()));
    let (mut get, out) = net.get("a later receiver", &url, &[]);
    get.ends_with(0);
    assert!(same(&file, &out));
}

/// A broadcast cannot go on behind what another program put in its place: it begins anew, and who knows its link hears it.
#[test]
fn a_broadcast_that_was_displaced_begins_anew() {
    let net = Network::new();
    let source = net.path("source.opus");
    media::opus_like(&source, 25_000, 1200, 62).unwrap_or_else(|e| panic!("{e}"));
    let (station, url) = broadcast(&net, "station", &source, &["--loop"]);
    let (copy, from) = (net.path("copied-key"), source.to_string_lossy());
    std::fs::copy(net.path("station").join("key"), &copy).unwrap_or_else(|e| panic!("{e}"));
    let copy = copy.to_string_lossy();
    // The first one does not answer.
    station.signal("STOP");
    let args = ["broadcast", "--tracker", &net.tracker.url, "--as", "radio/one", "--from", &from, "--loop"];
    let second = net.run("elsewhere", &[&args[..], &["--key", &copy]].concat());
    second.line("its link", |l| (l.trim() == url).then_some(()));
    station.signal("CONT");
    station.error_line("that another one has its place", |l| l.contains("ends the session").then_some(()));
    let (mut heard, out) = net.get("listener", &url, &["--for", "3s"]);
    heard.ends_with(0);
    is_a_stretch(&source, &out, 0);
    drop(second);
    station.error_line("that it is back", |l| {
        l.contains("from now on a new broadcast of ours is").then_some(())
    });
    let (mut heard, out) = net.get("later", &url, &["--for", "3s"]);
    heard.ends_with(0);
    is_a_stretch(&source, &out, 0);
}

/// Begun again in its place, it need not wait for anything.
#[test]
fn a_killed_publisher_is_back_at_once() {
    let net = Network::new();
    let file = song(&net);
    let (mut publisher, url) = net.publish("publisher", &file, &[]);
    publisher.kill();
    let began = Instant::now();
    let (_again, same_url) = net.publish("publisher", &file, &[]);
    let took = began.elapsed();
    eprintln!("back after {} ms", took.as_millis());
    assert_eq!(url, same_url);
    assert!(took < Duration::from_secs(2), "{took:?}");
}
