//! In the network laboratory (`tests/lab`): what needs true delays. Skipped where no lab can run (it takes root).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use iceshare_tests::{Proc, binary, have, media, repo, same};

/// One lab, of a name of its own; gone when it is dropped.
struct Lab {
    name: String,
    /// Namespace and address of each host.
    hosts: BTreeMap<String, (String, String)>,
    dir: tempfile::TempDir,
}

fn netlab(name: &str) -> Command {
    let mut c = Command::new("python3");
    c.arg(repo().join("tests/lab/netlab")).args(["--lab", name]).stdin(Stdio::null());
    c
}

impl Lab {
    /// A lab of this topology; none, with a word, if this machine can run none.
    fn up(name: &str, topology: &str) -> Option<Lab> {
        let check = netlab(name).arg("check").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !check.is_ok_and(|s| s.success()) {
            // Root and a kernel that can are nothing that a script installs: no error in CI either.
            eprintln!("skipped: no network laboratory can run here");
            return None;
        }
        let name = format!("{name}{}", std::process::id());
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        let file = dir.path().join("topology.toml");
        std::fs::write(&file, topology).unwrap_or_else(|e| panic!("{e}"));
        let mut lab = Lab { name, hosts: BTreeMap::new(), dir };
        lab.verb(&["up", &file.to_string_lossy()]);
        let shown: serde_json::Value = serde_json::from_str(&lab.verb(&["show", "--json"])).expect("JSON");
        for (host, about) in shown.as_object().into_iter().flatten() {
            let text = |key: &str| about[key].as_str().unwrap_or_default().to_owned();
            lab.hosts.insert(host.clone(), (text("namespace"), text("address")));
        }
        Some(lab)
    }

    fn verb(&self, args: &[&str]) -> String {
        let out = netlab(&self.name).args(args).output().unwrap_or_else(|e| panic!("netlab: {e}"));
        assert!(out.status.success(), "netlab {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn address(&self, host: &str) -> &str {
        self.hosts.get(host).map_or("", |(_, address)| address)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program of ours on a host, with a data folder of its own.
    fn run(&self, host: &str, program: &str, args: &[&str]) -> Proc {
        let namespace = self.hosts.get(host).map_or("", |(n, _)| n);
        let mut c = Command::new("ip");
        c.args(["netns", "exec", namespace]).arg(binary(program)).args(args);
        Proc::start(c)
    }

    /// A tracker on host `tracker`; its link.
    fn tracker(&self) -> (Proc, String) {
        let data = self.path("tracker");
        let listen = format!("{}:4237", self.address("tracker"));
        let proc =
            self.run("tracker", "icetracker", &["--listen", &listen, "--data", &data.to_string_lossy()]);
        proc.line("icetracker ready", |l| l.starts_with("icetracker ready").then_some(()));
        (proc, format!("icet://{listen}"))
    }

    fn publish(&self, host: &str, file: &std::path::Path, tracker: &str, more: &[&str]) -> (Proc, String) {
        let data = self.path(&format!("{host}.data")).to_string_lossy().into_owned();
        let file = file.to_string_lossy();
        let args = [&["publish", &file, "--tracker", tracker, "--data", &data], more].concat();
        let proc = self.run(host, "iceshare", &args);
        let link = proc.line("its link", |l| l.starts_with("icet://").then(|| l.trim().to_owned()));
        (proc, link)
    }

    /// Fetches as a newcomer; what `get --json` says.
    fn get(&self, host: &str, link: &str, number: usize, more: &[&str]) -> (serde_json::Value, PathBuf) {
        let out = self.path(&format!("{host}-{number}.out"));
        let data = self.path(&format!("{host}-{number}.data"));
        let (o, d) = (out.to_string_lossy().into_owned(), data.to_string_lossy().into_owned());
        let args = [&["get", link, "-o", &o, "--data", &d, "--json"], more].concat();
        let mut get = self.run(host, "iceshare", &args);
        get.ends_with(0);
        (serde_json::from_str(&get.stdout()).expect("figures"), out)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = netlab(&self.name).arg("down").stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Two lines of a half per cent and 12.5 ms each way make one of 1 % and a round trip of 50 ms.
#[test]
fn over_each_protocol_alone_a_broadcast_is_heard_over_lossy_lines_without_a_stall() {
    let check = netlab("check").arg("check").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !check.is_ok_and(|s| s.success()) {
        eprintln!("skipped: no network laboratory can run here");
        return;
    }
    if !have("ffmpeg") {
        return;
    }
    let programs = binary("iceshare").parent().map(PathBuf::from).unwrap_or_default();
    let crowd = |over: &str| {
        let mut c = Command::new("python3");
        c.arg(repo().join("tests/lab/crowd")).arg("--bin").arg(&programs);
        c.args([
            "--peers", "3", "--copies", "0", "--loss", "0.5", "--rtt", "50", "--calm", "10", "--most", "0",
        ]);
        let out = c.args(["--over", over]).stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{e}"));
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "over {over}: {said}{}", String::from_utf8_lossy(&out.stderr));
        eprintln!("over {over}: {said}");
    };
    std::thread::scope(|s| {
        for over in ["http", "quic", "udp", "libp2p"] {
            s.spawn(move || crowd(over));
        }
    });
}

#[test]
fn a_newcomer_at_50_ms_has_its_first_page_after_a_few_round_trips() {
    let host = |name: &str| format!("[[host]]\nname = \"{name}\"\ndelay = \"12500us\"\n");
    let topology = ["tracker", "origin", "first", "second"].map(host).concat();
    let Some(lab) = Lab::up("join", &topology) else { return };
    let file = lab.path("song.opus");
    media::opus_like(&file, 1_000_000, 4200, 7).unwrap_or_else(|e| panic!("{e}"));
    let (_tracker, url) = lab.tracker();
    let (_origin, link) = lab.publish("origin", &file, &url, &[]);
    // The origin's address is proved when somebody has fetched from it.
    let (_, out) = lab.get("first", &link, 0, &[]);
    assert!(same(&file, &out));
    let mut all = Vec::new();
    for i in 1..=5 {
        let (figures, out) = lab.get("second", &link, i, &[]);
        assert!(same(&file, &out));
        all.push(figures["first_page_ms"].as_u64().expect("a first page"));
    }
    all.sort_unstable();
    eprintln!(
        "round trip 50 ms: first page {all:?} ms after the start, {:.1} round trips at the median (QUIC to the tracker, all questions at once, TCP to a host, the request: at least 4)",
        all[2] as f64 / 50.0
    );
    assert!(all[2] >= 150, "the lab delays packets");
}

/// Both ends behind NATs, and a relay beside the tracker: where the NATs can be punched, over UDP or over TCP, the relay is
/// soon done without; where not, it carries the pages.
#[test]
fn libp2p_passes_nats_punched_or_relayed() {
    let nat = |name: &str, nat: &str, host: &str| {
        format!(
            "[[gateway]]\nname = \"{name}\"\nnat = \"{nat}\"\nhosts = [\"{host}\"]\ndelay = \"5ms\"\nrate = \"20mbit\"\n"
        )
    };
    let topology = [
        "[[host]]\nname = \"tracker\"\n".to_owned(),
        nat("home-a", "port-restricted", "alice"),
        nat("home-b", "port-restricted", "bob"),
        nat("home-c", "symmetric", "carol"),
        nat("home-d", "udp-blocked", "dave"),
    ];
    let Some(lab) = Lab::up("nats", &topology.concat()) else { return };
    let file = lab.path("song.opus");
    let size = 16_000_000;
    media::opus_like(&file, size, 4200, 7).unwrap_or_else(|e| panic!("{e}"));
    let (_tracker, url) = lab.tracker();
    let key = lab.path("relay.key").to_string_lossy().into_owned();
    let listen = format!("{}:4238", lab.address("tracker"));
    let relay = lab.run("tracker", "iceshare-relay", &["--listen", &listen, "--key", &key]);
    let at = relay.line("its addresses", |l| l.strip_prefix("iceshare-relay ready ").map(str::to_owned));
    let set = format!("libp2p.relay={at}");
    let more = ["--transport", "libp2p", "--set", &set, "--listen", "0.0.0.0:0"];
    let (alice, link) = lab.publish("alice", &file, &url, &[&more[..], &["-v"]].concat());
    alice.error_line("its reservation", |l| l.contains("reachable through a relay").then_some(()));
    let relayed = || {
        let all: serde_json::Value = serde_json::from_str(&lab.verb(&["stats", "--json"])).expect("JSON");
        all["tracker"]["bytes_out"].as_u64().expect("bytes")
    };
    for (number, (host, punched)) in [("bob", true), ("carol", false), ("dave", true)].into_iter().enumerate()
    {
        let before = relayed();
        let (figures, out) = lab.get(host, &link, number, &more);
        assert!(same(&file, &out), "{host}");
        let carried = relayed() - before;
        eprintln!(
            "{host}: first page after {} ms, all after {} ms, {carried} bytes from the tracker's machine",
            figures["first_page_ms"], figures["elapsed_ms"]
        );
        // A punch takes its time on a busy machine; what was begun before it may end over the relay.
        let fits = if punched { carried < size * 3 / 4 } else { carried >= size };
        assert!(fits, "{host}: {carried} of {size} bytes went through the relay");
    }
}

/// A firewall before the receiver swallows all UDP in the middle of a fetch, and later all TCP instead: each time the session with
/// the tracker and the pages go on over what passes.
#[test]
fn a_fetch_and_its_session_go_round_a_firewall() {
    let host = |name: &str| format!("[[host]]\nname = \"{name}\"\ndelay = \"10ms\"\n");
    let topology = ["tracker", "origin", "receiver"].map(host).concat();
    let Some(lab) = Lab::up("wall", &topology) else { return };
    let file = lab.path("song.opus");
    media::opus_like(&file, 6_000_000, 4200, 8).unwrap_or_else(|e| panic!("{e}"));
    let (_tracker, url) = lab.tracker();
    let (_origin, link) = lab.publish("origin", &file, &url, &[]);
    let (out, data) = (lab.path("out"), lab.path("data"));
    let (o, d) = (out.to_string_lossy().into_owned(), data.to_string_lossy().into_owned());
    let more = ["--down", "250kB", "--progress", "lines", "--json", "-v"];
    let args = [&["get", &link, "-o", &o, "--data", &d], &more[..]].concat();
    let mut get = lab.run("receiver", "iceshare", &args);
    let swallow = |kind: &str| {
        let chain = |hook: &str| {
            format!("chain {hook} {{ type filter hook {hook} priority 0; meta l4proto {kind} drop\n}}\n")
        };
        let chains = [chain("input"), chain("output")].concat();
        let file = lab.path("wall.nft");
        let rules = format!("table inet wall\ndelete table inet wall\ntable inet wall {{\n{chains}}}\n");
        std::fs::write(&file, rules).unwrap_or_else(|e| panic!("{e}"));
        let namespace = lab.hosts.get("receiver").map_or("", |(n, _)| n);
        let nft = Command::new("ip").args(["netns", "exec", namespace, "nft", "-f"]).arg(&file).output();
        assert!(nft.as_ref().is_ok_and(|o| o.status.success()), "no firewall: {nft:?}");
        Instant::now()
    };
    // Pages that came over protocols of UDP, of TCP, and libp2p, which has both, so far, as the receiver last said.
    let so_far = || get.stderr().lines().rev().find_map(over).unwrap_or_default();
    let until = |what: &str, enough: &dyn Fn([u64; 3]) -> bool| {
        get.error_line(what, |l| over(l).filter(|o| enough(*o)).map(|_| ()));
    };
    // More than what was on its way.
    let some = 20;
    let session_on = |carrier: &str| {
        let carrier = format!("carrier={carrier}");
        get.error_line(&carrier, |l| {
            (l.contains("goes on over another carrier") && l.contains(&carrier)).then_some(())
        });
    };
    until("some pages", &|[udp, tcp, both]| udp + tcp + both > 100);
    let (from, [_, tcp, both]) = (swallow("udp"), so_far());
    until("pages without UDP", &|[_, t, b]| t + b > tcp + both + some);
    let pages_by_tcp = from.elapsed();
    session_on("Tcp");
    let session_by_tcp = from.elapsed();
    // Long enough that nothing is held against UDP any more.
    until("more pages without UDP", &|[_, t, b]| t + b > tcp + both + 600);
    let (from, [udp, _, both]) = (swallow("tcp"), so_far());
    until("pages without TCP", &|[u, _, b]| u + b > udp + both + some);
    let pages_by_udp = from.elapsed();
    session_on("Udp");
    let session_by_udp = from.elapsed();
    get.ends_with(0);
    assert!(same(&file, &out));
    eprintln!(
        "round trip 40 ms: without UDP, {some} pages had come over TCP after {pages_by_tcp:?}, and the session was on TLS after {session_by_tcp:?}; without TCP, {some} pages had come over UDP after {pages_by_udp:?}, and the session was on QUIC after {session_by_udp:?}"
    );
    // The carriers themselves would have waited for half a minute.
    let all = [pages_by_tcp, session_by_tcp, pages_by_udp, session_by_udp];
    assert!(all.iter().all(|t| *t < Duration::from_secs(15)), "{all:?}");
}

/// Pages that came over protocols of UDP, of TCP, and libp2p, if this line of progress says so.
fn over(line: &str) -> Option<[u64; 3]> {
    let pages = crate::mixed::pages_over(line)?;
    let of = |names: &[&str]| names.iter().filter_map(|n| pages.get(*n)).sum();
    Some([of(&["quic", "udp"]), of(&["http"]), of(&["libp2p"])])
}
