//! A swarm over a protocol that its tracker has never heard of: the stock `icetracker`, one who publishes and some who
//! fetch, each the command of this crate in a process of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde_json::Value;

/// How long anything may take on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);
const COMMAND: &str = env!("CARGO_BIN_EXE_iceshare-carrier");
const RECEIVERS: usize = 4;

/// A process, killed when dropped, and its lines.
struct Running {
    name: String,
    child: Child,
    lines: mpsc::Receiver<String>,
    /// Whether a part of it did.
    panicked: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A task that panics may leave a program that still ends well.
        assert!(
            std::thread::panicking() || !self.panicked.load(Ordering::Relaxed),
            "a part of {} failed",
            self.name
        );
    }
}

impl Running {
    fn start(name: &str, command: &mut Command) -> Running {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("{name}: {e}"));
        let (told, lines) = mpsc::sync_channel(1000);
        let out = child.stdout.take().expect("a pipe");
        std::thread::spawn(move || {
            BufReader::<ChildStdout>::new(out).lines().map_while(Result::ok).try_for_each(|l| told.send(l))
        });
        let err = child.stderr.take().expect("a pipe");
        let panicked = Arc::new(AtomicBool::new(false));
        let seen = panicked.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                seen.fetch_or(line.contains("panicked at"), Ordering::Relaxed);
                eprintln!("{line}");
            }
        });
        Running { name: name.to_owned(), child, lines, panicked }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{}: no line, {e}", self.name))
    }

    /// The JSON on its output, over however many lines.
    fn json(&self) -> Value {
        let mut text = String::new();
        loop {
            text += &self.line();
            if let Ok(value) = serde_json::from_str(&text) {
                return value;
            }
        }
    }
}

/// The stock tracker: `ICETRACKER`, or the one that lies beside our own program, built if need be.
fn icetracker() -> PathBuf {
    if let Some(path) = std::env::var_os("ICETRACKER") {
        return path.into();
    }
    let beside = Path::new(COMMAND).with_file_name("icetracker");
    let target = beside.parent().and_then(Path::parent).expect("target/PROFILE/NAME");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "-q", "-p", "icetracker", "--target-dir"]).arg(target).current_dir(repository);
    assert!(cargo.status().is_ok_and(|s| s.success()), "icetracker cannot be built");
    beside
}

fn iceshare(dir: &Path, name: &str) -> Command {
    let mut command = Command::new(COMMAND);
    let shared = format!("carrier.dir={}", dir.join("shared").display());
    command.args(["--transport", "carrier", "--set", &shared, "--listen", "127.0.0.1:0", "--data"]);
    command.arg(dir.join(name)).env_remove("ICESHARE_CONFIG").env_remove("RUST_LOG");
    command
}

#[test]
fn a_stock_tracker_directs_a_swarm_over_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path();
    let mut tracker = Command::new(icetracker());
    tracker.args(["--listen", "127.0.0.1:0", "--web", "127.0.0.1:0", "--data"]).arg(dir.join("tracker"));
    let tracker = Running::start("icetracker", &mut tracker);
    let ready = tracker.line();
    let url = ready.split(' ').find(|w| w.starts_with("icet://")).expect("where it listens").to_owned();

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cli/assets/sample.opus");
    let mut origin = iceshare(dir, "origin");
    // Slow enough for the others to help each other.
    origin.args(["--up", "400KB", "publish", "--tracker", &url, "--as", "music/a b.opus"]).arg(&file);
    let origin = Running::start("publish", &mut origin);
    let media = origin.line();

    let receivers: Vec<(PathBuf, Running)> = (0..RECEIVERS)
        .map(|i| {
            let out = dir.join(format!("copy-{i}.opus"));
            let mut get = iceshare(dir, &format!("receiver-{i}"));
            get.args(["get", &media, "--json", "--share-for", "1h", "-o"]).arg(&out);
            (out, Running::start(&format!("get {i}"), &mut get))
        })
        .collect();
    let original = std::fs::read(&file).expect("the sample");
    let mut hosts: BTreeMap<String, u64> = BTreeMap::new();
    for (out, receiver) in &receivers {
        let figures = receiver.json();
        assert_eq!(figures["bad_pages"], 0, "{figures}");
        let protocols = figures["by_protocol"].as_object().expect("a map");
        assert_eq!(protocols.keys().collect::<Vec<_>>(), ["carrier"], "{figures}");
        for (host, bytes) in figures["by_host"].as_object().expect("a map") {
            *hosts.entry(host.clone()).or_default() += bytes.as_u64().unwrap_or(0);
        }
        assert!(std::fs::read(out).is_ok_and(|copy| copy == original), "{figures}: not an exact copy");
    }
    assert!(hosts.len() > 1, "nobody but the publisher sent anything: {hosts:?}");
}

#[test]
fn the_command_knows_it_as_it_knows_its_own() {
    let list = Command::new(COMMAND).args(["protocols", "--json"]).output().expect("it runs");
    let list: Value = serde_json::from_slice(&list.stdout).expect("JSON");
    let all = list.as_array().expect("a list");
    let carrier = all.iter().find(|p| p["name"] == "carrier").expect("carrier is linked");
    assert_eq!((&carrier["crate"], &carrier["dials"]), (&"iceshare-transport-carrier".into(), &Value::Null));
    assert!(all.iter().any(|p| p["name"] == "http"), "{list}");
    let refused = Command::new(COMMAND).args(["protocols", "--set", "carrier.requests=0"]).output();
    let refused = refused.expect("it runs");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("carrier.requests=0"));
}
