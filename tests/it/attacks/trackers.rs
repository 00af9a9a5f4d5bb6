//! Trackers that alter what publishers signed, or that are not who they were.

use iceshare_tests::{Network, Proc, Tracker, binary, media, same};

use super::fake_tracker::{FakeTracker, Lie};
use super::stranger::runtime;

/// `iceshare` with its folder in `dir`.
fn run(dir: &std::path::Path, who: &str, args: &[&str]) -> Proc {
    let mut c = std::process::Command::new(binary("iceshare"));
    c.args(args).arg("--data").arg(dir.join(who)).args(["--listen", "127.0.0.1:0"]);
    Proc::start(c)
}

fn publish(dir: &std::path::Path, tracker: &str, file: &std::path::Path, path: &str) -> (Proc, String) {
    let file = file.to_string_lossy();
    let proc = run(dir, "publisher", &["publish", &file, "--tracker", tracker, "--as", path]);
    let url = proc.line("its link", |l| l.starts_with("icet://").then(|| l.trim().to_owned()));
    (proc, url)
}

/// Ends with 6 and one line with this word in it.
fn refused(proc: &mut Proc, word: &str) {
    proc.ends_with(6);
    let said = proc.stderr();
    assert!(said.contains(word), "{word:?} is not said:\n{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn what_a_tracker_alters_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let rt = runtime();
    let tracker = rt.block_on(FakeTracker::start());
    let file = dir.path().join("song.opus");
    media::opus_like(&file, 300_000, 4200, 51).expect("a file");
    let (first, url) = publish(dir.path(), &tracker.url, &file, "song.opus");
    let bare = url.split('?').next().unwrap_or_default().to_owned();
    let get = |who: &str, url: &str| {
        let out = dir.path().join(format!("{who}.out"));
        (run(dir.path(), who, &["get", url, "-o", &out.to_string_lossy(), "--json"]), out)
    };
    // It works as long as it does not lie.
    let (mut honest, out) = get("honest", &bare);
    honest.ends_with(0);
    assert!(same(&file, &out));
    // A manifest with a bit turned, with the publisher's key in the link and without.
    tracker.lie(Lie::Manifest);
    for (who, url) in [("a", &url), ("b", &bare)] {
        let (mut get, out) = get(who, url);
        refused(&mut get, "signature");
        assert!(!out.exists());
        refused(&mut run(dir.path(), who, &["info", url]), "signature");
    }
    // Slices with a bit turned: nothing of them is believed, the host's own proofs are.
    tracker.lie(Lie::Slices);
    let (mut altered, out) = get("altered", &url);
    altered.ends_with(0);
    assert!(same(&file, &out), "altered slices spoiled the file");
    // A second version, and then the first again.
    tracker.lie(Lie::Not);
    drop(first);
    media::opus_like(&file, 310_000, 4200, 52).expect("a file");
    let (second, newer) = publish(dir.path(), &tracker.url, &file, "song.opus");
    assert_eq!(newer.split('?').next(), Some(bare.as_str()));
    let (mut seen, out) = get("seen", &bare);
    seen.ends_with(0);
    assert!(same(&file, &out));
    std::fs::remove_file(&out).expect("to be fetched again");
    tracker.lie(Lie::Rollback);
    for url in [&bare, &url] {
        let (mut again, out) = get("seen", url);
        refused(&mut again, "was seen before");
        assert!(!out.exists());
    }
    refused(&mut run(dir.path(), "seen", &["info", &bare]), "trust --forget");
    // Who is told the manifest of another path, though of the same publisher.
    drop(second);
    let _third = publish(dir.path(), &tracker.url, &file, "other.opus");
    tracker.lie(Lie::OtherPath);
    let other = bare.replace("song.opus", "other.opus");
    let (mut misled, out) = get("misled", &other);
    refused(&mut misled, "another media");
    assert!(!out.exists());
}

#[test]
fn a_tracker_with_another_key_is_refused_until_it_is_accepted() {
    let mut net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 300_000, 4200, 53).expect("a file");
    let (mut publisher, url) = net.publish("publisher", &file, &[]);
    let (mut get, out) = net.get("receiver", &url, &[]);
    get.ends_with(0);
    publisher.kill();
    std::fs::remove_file(&out).expect("to be fetched again");
    // Somebody else answers at that address.
    let listen = net.tracker.listen();
    net.tracker.proc.kill();
    net.tracker = Tracker::start(&net.path("usurper"), &listen);
    let (publisher, _) = net.publish("newcomer", &file, &["--as", "else.opus"]);
    let (mut get, _) = net.get("receiver", &url, &[]);
    refused(&mut get, "another key than before");
    assert!(!out.exists());
    // What it says is what to do.
    let said = get.stderr();
    let forget = said.split("trust --forget '").nth(1).and_then(|s| s.split('\'').next());
    let forget = forget.unwrap_or_else(|| panic!("it is not said how to accept the key:\n{said}")).to_owned();
    assert_eq!(forget, net.tracker.url);
    let mut trust = net.run("receiver", &["trust", "--forget", &forget]);
    trust.ends_with(0);
    let else_where = format!("{}/else.opus", net.tracker.url);
    let (mut get, out) = net.get("receiver", &else_where, &[]);
    get.ends_with(0);
    assert!(same(&file, &out));
    drop(publisher);
}
