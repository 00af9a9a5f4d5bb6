//! What goes wrong says so in a clear line, with the right exit code, and leaves nothing half-written.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use iceshare_tests::{Network, Proc, Tracker, binary, fixture, media};

/// One line on stderr that a person can act on: no panic, no debug dump.
fn clear(proc: &Proc, needle: &str) {
    let err = proc.stderr();
    assert!(err.to_lowercase().contains(&needle.to_lowercase()), "{needle:?} is not said:\n{err}");
    assert!(!err.contains("panicked") && !err.contains("Error {"), "not for people:\n{err}");
}

#[test]
fn unreachable_tracker_is_3_unknown_media_4_usage_2() {
    let net = Network::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .unwrap_or_else(|e| panic!("{e}"));
    let mut get =
        net.run("a", &["get", &format!("icet://{free}/x.ogg"), "-o", &net.path("x").to_string_lossy()]);
    get.ends_with(3);
    clear(&get, &free.to_string());
    let url = format!("{}/not/there.ogg", net.tracker.url);
    let (mut get, out) = net.get("b", &url, &[]);
    get.ends_with(4);
    clear(&get, "no such media");
    assert!(!out.exists());
    let mut get = net.run("c", &["get", "http://example/x.ogg"]);
    get.ends_with(2);
    clear(&get, "icet://");
    let mut get = net.run("d", &["get", &url, "--transport", "carrier-pigeon"]);
    get.ends_with(2);
    clear(&get, "http");
}

#[test]
fn a_file_that_is_not_ogg_is_refused_and_so_is_a_damaged_one() {
    let net = Network::new();
    let file = net.path("noise.ogg");
    std::fs::write(&file, vec![0x55; 300_000]).unwrap_or_else(|e| panic!("{e}"));
    let mut publish = net.run("a", &["publish", &file.to_string_lossy(), "--tracker", &net.tracker.url]);
    publish.ends_with(1);
    clear(&publish, "not an Ogg file");
    let damaged: Vec<_> = std::fs::read_dir(fixture(""))
        .unwrap_or_else(|e| panic!("{e}"))
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("damaged")))
        .collect();
    assert!(!damaged.is_empty());
    for file in damaged {
        let mut publish = net.run("b", &["publish", &file.to_string_lossy(), "--tracker", &net.tracker.url]);
        publish.ends_with(1);
        clear(&publish, "--repair");
    }
}

#[test]
fn nothing_is_overwritten_unasked() {
    let net = Network::new();
    let file = net.path("a.opus");
    media::opus_like(&file, 100_000, 4200, 6).unwrap_or_else(|e| panic!("{e}"));
    let (_publisher, url) = net.publish("publisher", &file, &[]);
    let out = net.path("receiver.out");
    std::fs::write(&out, b"precious").unwrap_or_else(|e| panic!("{e}"));
    let (mut get, _) = net.get("receiver", &url, &[]);
    get.ends_with(1);
    clear(&get, "exists");
    assert_eq!(std::fs::read(&out).ok().as_deref(), Some(b"precious".as_slice()));
}

#[test]
fn a_full_disk_is_said_and_leaves_no_file_under_the_final_name() {
    let net = Network::new();
    let file = net.path("big.opus");
    media::opus_like(&file, 3_000_000, 4200, 7).unwrap_or_else(|e| panic!("{e}"));
    let (_publisher, url) = net.publish("publisher", &file, &[]);
    // A file size limit stands in for a full disk where no small file system can be mounted: both fail the write.
    let out = net.path("limited.out");
    let get = net.command("receiver", &["get", &url, "-o", &out.to_string_lossy()]);
    let mut line = format!("trap '' XFSZ; ulimit -f 1000; exec '{}'", get.get_program().to_string_lossy());
    for arg in get.get_args() {
        line.push_str(&format!(" '{}'", arg.to_string_lossy()));
    }
    let mut sh = Command::new("bash");
    sh.args(["-c", &line]);
    let mut get = Proc::start(sh);
    get.ends_with(1);
    assert!(!out.exists());
    assert!(!get.stderr().contains("panicked"), "{}", get.stderr());
}

#[test]
fn a_folder_that_cannot_be_written_is_said() {
    let net = Network::new();
    let file = net.path("a.opus");
    media::opus_like(&file, 100_000, 4200, 8).unwrap_or_else(|e| panic!("{e}"));
    let (_publisher, url) = net.publish("publisher", &file, &[]);
    let folder = net.path("locked");
    std::fs::create_dir(&folder).unwrap_or_else(|e| panic!("{e}"));
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o555)).unwrap_or_else(|e| panic!("{e}"));
    if std::fs::write(folder.join("probe"), b"").is_ok() {
        eprintln!("skipped: this user may write anywhere");
        // As root, a path through a file stands in.
        let mut get = net.run("r", &["get", &url, "-o", &file.join("out").to_string_lossy()]);
        get.ends_with(1);
        clear(&get, "a.opus");
        return;
    }
    let mut get = net.run("r", &["get", &url, "-o", &folder.join("out").to_string_lossy()]);
    get.ends_with(1);
    clear(&get, "locked");
}

#[test]
fn a_taken_port_and_a_data_folder_in_use_are_said() {
    let net = Network::new();
    let mut second = Command::new(binary("icetracker"));
    second.args(["--listen", &net.tracker.listen(), "--data"]).arg(net.path("other"));
    let mut second = Proc::start(second);
    second.ends_with(1);
    clear(&second, "in use");
    let mut second = Command::new(binary("icetracker"));
    second.args(["--listen", "127.0.0.1:0", "--data"]).arg(&net.tracker.data);
    let mut second = Proc::start(second);
    second.ends_with(1);
    clear(&second, "icetracker");
    let _: &Tracker = &net.tracker;
}

#[test]
fn who_waits_is_told_for_what() {
    let net = Network::new();
    let file = net.path("a.opus");
    media::opus_like(&file, 100_000, 4200, 8).unwrap_or_else(|e| panic!("{e}"));
    let (mut publisher, url) = net.publish("publisher", &file, &["--transport", "udp"]);
    let (mut get, _) = net.get("without", &url, &["--transport", "http,quic"]);
    get.error_line("what to choose", |l| l.contains("try --transport http,quic,udp").then_some(()));
    clear(&get, "none of them speaks http or quic (they speak udp)");
    get.signal("INT");
    get.ends_with(130);
    publisher.signal("INT");
    let _ = publisher.end();
    let (publisher, url) = net.publish("publisher", &file, &["--transport", "http"]);
    // It was there once, so that its port is not taken for one behind a NAT.
    let (mut first, _) = net.get("first", &url, &["--transport", "http"]);
    first.ends_with(0);
    // Gone without a word: the tracker takes it for a host for a while, but its port is closed.
    drop(publisher);
    let (get, _) = net.get("behind", &url, &["--transport", "http"]);
    get.error_line("what happened", |l| {
        let why = l.contains("waiting: ") && l.contains("over http: no connection to 127.0.0.1:");
        (why && l.contains("refused")).then_some(())
    });
}
