//! The agent beside a real Icecast server: whoever shares keeps a place, and nobody needs the agent or the tracker to listen.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use iceshare_tests::process::http_get;
use iceshare_tests::{Network, PATIENCE, Proc, binary, have};
use serde_json::Value;

use crate::source::{encoder, icecast, told_link};

struct Stage {
    network: Network,
    ice: String,
    _encoder: Proc,
    _server: Proc,
}

impl Stage {
    fn new() -> Stage {
        let network = Network::new();
        let (server, ice) = icecast(&network);
        let encoder = encoder("s3cret", &ice);
        // The server may take a while to listen.
        let there = || std::net::TcpStream::connect(&ice).is_ok();
        wait("the mount is there", || {
            (there() && http_get(&ice, "/status-json.xsl").contains("live.oga")).then_some(())
        });
        Stage { network, ice, _encoder: encoder, _server: server }
    }

    /// The agent, its link, and where its page and its door are.
    fn agent(&self, more: &[&str]) -> (Proc, String, String, String) {
        let server = format!("http://{}", self.ice);
        let args =
            ["icecast", "--tracker", &self.network.tracker.url, "--server", &server, "--admin-user", "a"];
        let args = [&args[..], &["--admin-password", "s3cret", "--door", "127.0.0.1:0"], more].concat();
        let agent = self.network.run("agent", &args);
        let at = |what: &str| {
            agent.error_line(what, |l| {
                Some(l.strip_prefix(what)?.trim_matches([':', '/', ' ', '\n']).to_owned())
            })
        };
        let at = |what: &str| at(what).trim_start_matches("http://").to_owned();
        let (web, door) = (at("what becomes of whom, and why"), at("door for listeners"));
        let link = told_link(&agent);
        (agent, link, web, door)
    }

    /// Somebody at 127.0.0.N who listens at the server.
    fn listen(&self, n: u8) -> (Proc, PathBuf) {
        let out = self.network.path(&format!("listener-{n}.oga"));
        let mut curl = Command::new("curl");
        curl.args(["-sSf", "--max-time", "120", "--interface", &format!("127.0.0.{n}"), "-o"]).arg(&out);
        curl.arg(format!("http://{}/live.oga", self.ice));
        (Proc::start(curl), out)
    }

    /// Somebody at 127.0.0.N who listens in the swarm.
    fn share(&self, n: u8, link: &str) -> Proc {
        let (out, data) =
            (self.network.path(&format!("share-{n}.oga")), self.network.path(&format!("share-{n}")));
        let mut get = Command::new(binary("iceshare"));
        get.arg("get").arg(link).arg("-o").arg(out).arg("--data").arg(data);
        get.args(["--listen", &format!("127.0.0.{n}:0"), "--up", "1MB"]);
        Proc::start(get)
    }
}

/// Asks until there is something.
fn wait<T>(what: &str, mut f: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = f() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: never");
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
}

/// The agent's report on the mount, once `f` likes it.
fn report(web: &str, what: &str, f: impl Fn(&Value) -> bool) -> Value {
    let mut last = String::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = http_get(web, "/report.json");
        let report: Value = serde_json::from_str(&text).unwrap_or_default();
        if f(&report["mounts"][0]) {
            return report["mounts"][0].clone();
        }
        last.clone_from(&text);
        assert!(Instant::now() < deadline, "{what}: never; at last {last}");
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
}

fn verdicts(mount: &Value) -> Vec<(String, String)> {
    let all = mount["decisions"].as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut all: Vec<_> = all.iter().map(|d| (text(&d["ip"]), text(&d["verdict"]))).collect();
    all.sort();
    all
}

#[test]
fn of_eight_listeners_for_five_places_those_stay_who_share() {
    if !have("icecast2") || !have("ffmpeg") || !have("curl") {
        return;
    }
    let mut stage = Stage::new();
    let (mut agent, link, web, door) = stage.agent(&["--limit", "5", "--mount", "/live.oga"]);
    let sharers: Vec<_> = [12, 13, 14].map(|n| stage.share(n, &link)).into();
    // Five who share nothing are there first, one after the other.
    let mut early = Vec::new();
    for n in [2, 3, 4, 5, 6] {
        early.push(stage.listen(n));
        let all = usize::from(n - 1);
        report(&web, "a listener more", |m| m["decisions"].as_array().is_some_and(|d| d.len() == all));
    }
    report(&web, "three in the swarm", |m| m["listeners_swarm"] == 3);
    // While it is full, the door has a place for one who shares only.
    let at_door = |n: u8| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--interface", &format!("127.0.0.{n}")]);
        let out = curl.arg(format!("http://{door}/live.oga")).output().expect("curl");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!((at_door(30), at_door(12)), ("503".to_owned(), "302".to_owned()));
    let late: Vec<_> = [12, 13, 14].map(|n| stage.listen(n)).into();
    let seen = report(&web, "five are left", |m| {
        m["sent_away"] == 3 && m["decisions"].as_array().is_some_and(|d| d.len() == 5)
    });
    let stays = |n: u8, why: &str| (format!("127.0.0.{n}"), why.to_owned());
    let expected =
        [stays(12, "gives"), stays(13, "gives"), stays(14, "gives"), stays(2, "place"), stays(3, "place")];
    assert_eq!(verdicts(&seen), expected);
    for (curl, _) in &mut early[2..] {
        assert!(curl.end().is_some(), "sent away");
    }
    let why = agent.stderr();
    assert!(
        why.contains("127.0.0.6 at /live.oga (curl/") && why.contains("gives nothing in the swarm"),
        "{why}"
    );

    // The station's own tools see both kinds of listeners; the page says the same to people.
    let status: Value = serde_json::from_str(&http_get(&web, "/status-json.xsl")).expect("JSON");
    let source = &status["icestats"]["source"];
    assert_eq!((&source["listeners"], &source["listeners_swarm"]), (&8.into(), &3.into()), "{status}");
    assert!(http_get(&web, "/metrics").contains("iceshare_icecast_sent_away_total{mount=\"/live.oga\"} 3"));
    assert!(http_get(&web, "/").contains("stays: gives in the swarm"));

    // The tracker is gone: nobody knows who gives, and nobody is sent away.
    stage.network.tracker.proc.kill();
    report(&web, "the tracker is missed", |m| m["guided"] == false);
    let more: Vec<_> = [20, 21, 22].map(|n| stage.listen(n)).into();
    let seen = report(&web, "eight listeners", |m| m["decisions"].as_array().is_some_and(|d| d.len() == 8));
    assert!(verdicts(&seen).iter().all(|(_, v)| v == "unguided"), "{seen}");
    assert_eq!(seen["sent_away"], 3);

    // The agent is gone: the server goes on, for who was there and for who comes.
    agent.kill();
    let come = stage.listen(23);
    for (_, out) in early[..2].iter().chain(&late).chain(&more).chain([&come]) {
        let size = || std::fs::metadata(out).map_or(0, |m| m.len());
        let before = size();
        wait("the sound goes on", || (size() > before).then_some(()));
    }
    drop(sharers);
}

#[test]
fn what_is_wrong_with_the_server_is_said_at_once() {
    if !have("icecast2") {
        return;
    }
    let network = Network::new();
    let (_server, ice) = icecast(&network);
    let tracker = network.tracker.url.as_str();
    let server = format!("http://{ice}");
    let args = ["icecast", "--tracker", tracker, "--server", &server, "--admin-password"];
    let mut agent = network.run("agent", &[&args[..], &["wrong"]].concat());
    agent.ends_with(2);
    assert!(agent.stderr().contains("<admin-password>"), "{}", agent.stderr());
    // Something else answers there.
    let web = network.tracker.web.clone();
    let args = ["icecast", "--tracker", tracker, "--server", &web, "--admin-password", "x"];
    let mut agent = network.run("agent", &args);
    agent.ends_with(1);
    assert!(agent.stderr().contains("is not Icecast's"), "{}", agent.stderr());
}
