//! What goes wrong at the start gives one clear line and the right exit code.

use std::process::Output;

use tokio::time::timeout;

use crate::tracker::{PATIENCE, Tracker, command};

async fn run(args: &[&str]) -> Output {
    let mut command = command();
    timeout(PATIENCE, command.args(args).output()).await.expect("it does not end").unwrap()
}

async fn refused(args: &[&str], code: i32, what: &str) {
    let out = run(args).await;
    let err = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(code), "{args:?}: {err}");
    assert!(err.contains(what), "{args:?}: {err}");
    assert!(out.stdout.is_empty(), "{args:?}");
    if code == 1 || err.starts_with("icetracker: ") {
        assert_eq!(err.lines().count(), 1, "{args:?}: {err}");
        assert!(err.starts_with("icetracker: "), "{err}");
    }
}

#[tokio::test]
async fn a_start_that_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let tracker = Tracker::start(&dir.path().join("taken")).await;
    let any = ["--listen", "127.0.0.1:0", "--data"];

    refused(&[&any[..], &[&at("taken")]].concat(), 1, "another icetracker runs on the data folder").await;
    let icet = tracker.icet.to_string();
    refused(&["--listen", &icet, "--data", &at("other")], 1, "is in use").await;
    let web = tracker.web.to_string();
    refused(&[&any[..], &[&at("other"), "--web", &web]].concat(), 1, "cannot listen for the web on").await;

    std::fs::write(at("file"), b"x").unwrap();
    refused(&[&any[..], &[&at("file")]].concat(), 1, "cannot use the data folder").await;
    std::fs::create_dir(at("bad key")).unwrap();
    std::fs::write(at("bad key/tracker.key"), b"x").unwrap();
    refused(&[&any[..], &[&at("bad key")]].concat(), 1, "tracker.key is damaged").await;
    std::fs::create_dir(at("bad catalogue")).unwrap();
    std::fs::write(at("bad catalogue/catalogue.redb"), vec![7; 5000]).unwrap();
    refused(&[&any[..], &[&at("bad catalogue")]].concat(), 1, "catalogue.redb is damaged").await;
    std::fs::write(at("bad.toml"), b"listen = 3").unwrap();
    refused(&["--config", &at("bad.toml")], 2, "bad.toml: listen = 3: it takes a text or a list of texts")
        .await;
    refused(&["--config", &at("no.toml")], 2, "cannot read the configuration").await;

    let record = ["--record".to_owned(), at("file")];
    let record: Vec<&str> = record.iter().map(String::as_str).collect();
    let what = "exists already, and no log is overwritten: name another file";
    refused(&[&any[..], &[&at("recorded")], &record].concat(), 1, what).await;
    refused(&["--listen", "nonsense"], 2, "--listen").await;
    refused(&["--no-such-flag"], 2, "--no-such-flag").await;
    refused(&["file"], 2, "unrecognized subcommand").await;
    refused(&["replay", &at("file")], 1, "is no log of a swarm").await;
    refused(&["replay", &at("none")], 1, "cannot read").await;
    // None of that harmed the one that runs.
    assert_eq!(tracker.request("/healthz").await.1, "ok\n");
}

#[tokio::test]
async fn without_a_web_the_first_line_has_no_web() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("t.toml");
    std::fs::write(&config, "listen = \"127.0.0.1:0\"\ndata = \"d\"\n").unwrap();
    let mut child =
        command().arg("--config").arg(&config).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, out.next_line()).await.unwrap().unwrap().unwrap();
    let addr = line.strip_prefix("icetracker ready icet://").unwrap();
    let addr: std::net::SocketAddr = addr.parse().unwrap();
    assert!(addr.port() != 0);
    assert!(dir.path().join("d/tracker.key").exists());
    child.kill().await.unwrap();
}
