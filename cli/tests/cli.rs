//! The real binary: what it says, and how it ends.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `iceshare` with `args` and a data folder of its own.
fn iceshare(args: &[&str]) -> Ended {
    let data = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_iceshare"))
        .args(args)
        .env("ICESHARE_DATA", data.path())
        .env_remove("ICESHARE_CONFIG")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("the command runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn fixture(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name);
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn usage_errors_end_with_2_and_say_what_to_do() {
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage"),
        (&["fetch"], "unrecognized subcommand"),
        (&["get"], "<URL>"),
        (&["get", "http://host/a.ogg"], "icet://"),
        (&["get", "icet://host"], "no media on it"),
        (&["get", "icet://host/../a.ogg"], "no . or .. segment"),
        (&["publish", "--tracker", "icet://host"], "<FILE>"),
        (&["publish", "a.ogg", "--tracker", "icet://host/path"], "no path"),
        (&["publish", "a.ogg", "--tracker", "icet://host", "--as", "a//b"], "empty segment"),
        (&["play", "icet://host/a", "--gateway", "nowhere"], "--gateway"),
        (&["protocols", "--up", "1mb"], "bits or bytes"),
        (&["protocols", "--up", "0"], "no limit"),
        (&["protocols", "--set", "http"], "NAME.key=value"),
        (&["protocols", "--listen", "localhost"], "--listen"),
        (&["protocols", "--config", "/nonexistent/config.toml"], "/nonexistent/config.toml"),
        (&["demo", "--peers", "1"], "--peers"),
        (&["get", "icet://host/a", "--share-for", "soon"], "10m"),
        (&["get", "icet://host/a", "-o", ""], "-o is empty"),
        (&["publish", "a.ogg", "--tracker", "icet://a,icet://b"], "one tracker"),
    ];
    for (args, word) in cases {
        let ended = iceshare(args);
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.err);
        assert!(ended.err.contains(word), "{args:?}: {}", ended.err);
        assert_eq!(ended.out, "", "{args:?}");
    }
}

#[test]
fn help_and_version_are_results() {
    let help = iceshare(&["--help"]);
    assert_eq!(help.code, Some(0));
    for word in
        ["publish", "serve", "get", "play", "info", "protocols", "verify", "trust", "demo", "Exit codes"]
    {
        assert!(help.out.contains(word), "{word}: {}", help.out);
    }
    let version = iceshare(&["--version"]);
    assert_eq!(
        (version.code, version.out.trim()),
        (Some(0), concat!("iceshare ", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn verify_says_where_a_file_is_bad() {
    let good = iceshare(&["verify", &fixture("vorbis.ogg")]);
    assert_eq!((good.code, good.err.as_str()), (Some(0), ""));
    assert!(good.out.contains("sound") && good.out.contains("vorbis"), "{}", good.out);
    for (name, word) in [
        ("damaged-crc.opus", "(checksum)"),
        ("damaged-cut-off.opus", "cut off at offset"),
        ("damaged-junk.opus", "no Ogg page at offset"),
    ] {
        let bad = iceshare(&["verify", &fixture(name)]);
        assert_eq!(bad.code, Some(1), "{name}");
        assert!(bad.out.contains(word), "{name}: {}", bad.out);
        assert!(bad.err.contains("is damaged"), "{name}: {}", bad.err);
    }
    // Each page sound, but one of them twice.
    let bytes = std::fs::read(fixture("opus.opus")).expect("a fixture");
    let starts: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"OggS")).collect();
    let doubled = tempfile::NamedTempFile::new().expect("a file");
    let twice = [&bytes[..starts[4]], &bytes[starts[3]..]].concat();
    std::fs::write(doubled.path(), twice).expect("written");
    let gap = iceshare(&["verify", doubled.path().to_str().expect("UTF-8")]);
    assert_eq!(gap.code, Some(1), "{}", gap.out);
    assert!(gap.out.contains("goes back by 1 page: number 4 should follow"), "{}", gap.out);
    assert!(gap.err.contains("or has some twice"), "{}", gap.err);
    let text = iceshare(&["verify", &fixture("README.md")]);
    assert_eq!((text.code, text.out.as_str()), (Some(1), ""));
    assert!(text.err.contains("not an Ogg file"), "{}", text.err);
    let missing = iceshare(&["verify", "/nonexistent/a.ogg"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("/nonexistent/a.ogg"), "{}", missing.err);
}

#[test]
fn verify_for_programs() {
    let files = [fixture("theora-vorbis.ogv"), fixture("damaged-junk.opus")];
    let ended = iceshare(&["verify", "--json", &files[0], &files[1]]);
    assert_eq!(ended.code, Some(1));
    let reports: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(reports[0]["sound"], true);
    assert_eq!(reports[0]["codecs"].as_array().map(Vec::len), Some(2));
    assert_eq!(reports[1]["sound"], false);
    assert_eq!(reports[1]["damages"][0]["what"], "junk");
    let size = std::fs::metadata(&files[1]).expect("there").len();
    assert_eq!(reports[1]["bytes"], size);
}

#[test]
fn protocols_are_listed_and_unknown_ones_are_told_from_them() {
    let list = iceshare(&["protocols"]);
    assert_eq!((list.code, list.err.as_str()), (Some(0), ""));
    let from = concat!(
        "finds hosts by their tcp addresses; from iceshare-transport-http ",
        env!("CARGO_PKG_VERSION")
    );
    for said in ["http ", "can: pages", from, "--set http.connections=512: connections"] {
        assert!(list.out.contains(said), "{said}: {}", list.out);
    }
    let json = iceshare(&["protocols", "--json", "--transport", "http"]);
    let entries: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    let http = &entries[0];
    assert_eq!((&http["name"], &http["dials"]), (&"http".into(), &"tcp".into()));
    assert_eq!(http["crate"], "iceshare-transport-http");
    assert_eq!(http["version"], env!("CARGO_PKG_VERSION"));
    assert!(http["about"].as_str().is_some_and(|a| a.contains("HTTP")));
    let has = |list: &str, what: &dyn Fn(&serde_json::Value) -> bool| {
        http[list].as_array().is_some_and(|all| all.iter().any(what))
    };
    assert!(has("abilities", &|a| a == "pages") && has("abilities", &|a| a == "ordered"), "{}", json.out);
    let settable = |s: &serde_json::Value| {
        s["key"] == "per-ip" && s["default"] == "64" && s["about"].as_str().is_some_and(|a| !a.is_empty())
    };
    assert!(has("settings", &settable), "{}", json.out);
    let set = iceshare(&["protocols", "--set", "http.connections=0"]);
    assert_eq!(set.code, Some(2), "{}", set.err);
    assert!(set.err.contains("http.connections=0") && set.err.contains("from 1 to"), "{}", set.err);
    for args in [
        &["protocols", "--transport", "http,pigeon"][..],
        &["protocols", "--set", "pigeon.speed=1"],
        &["get", "icet://127.0.0.1:1/a.ogg", "--transport", "pigeon"],
    ] {
        let ended = iceshare(args);
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.err);
        assert!(ended.err.contains("pigeon") && ended.err.contains("this build has: http"), "{}", ended.err);
    }
    // What holds, beside what would; and what it takes.
    let args = ["protocols", "--transport", "http, quic", "--set", "http.connections=7"];
    let given = iceshare(&args);
    let shown = "--set http.connections=7 [default: 512]: connections that may be open to us at once (a whole number from 1 to 65536)";
    assert!(given.out.contains(shown) && given.out.contains("quic "), "{}{}", given.out, given.err);
    let json = iceshare(&[&args[..], &["--json"]].concat());
    let entries: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    let all = entries[0]["settings"].as_array().expect("settings").clone();
    let one = all.iter().find(|s| s["key"] == "connections").expect("the setting");
    assert_eq!((&one["value"], &one["default"]), (&"7".into(), &"512".into()));
    // Also of what is not used; and each once.
    for (args, word) in [
        (&["--transport", "quic", "--set", "http.connections=0"][..], "from 1 to 65536"),
        (&["--transport", "quic", "--set", "http.speed=1"], "it has: "),
        (&["--set", "http.per-ip=1", "--set", "http.per-ip=2"], "--set http.per-ip is given twice"),
        (&["--transport", "http,"], "a name is missing"),
        (&["--transport", "quic, quic"], "\"quic\" is given twice"),
    ] {
        let ended = iceshare(&[&["protocols"], args].concat());
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.err);
        assert!(ended.err.contains(word), "{args:?}: {}", ended.err);
    }
    let setting = iceshare(&["protocols", "--set", "http.speed=1"]);
    assert_eq!(setting.code, Some(2));
    assert!(setting.err.contains("speed") && setting.err.contains("it has: "), "{}", setting.err);
}

#[test]
fn trackers_that_do_not_answer_end_with_3() {
    // A port that was free a moment ago, and that nobody listens on.
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let tracker = format!("icet://127.0.0.1:{port}");
    let media = format!("{tracker}/a.ogg");
    let file = fixture("opus.opus");
    for args in [
        &["info", &media][..],
        &["play", &media],
        &["get", &media, "-o", "/nonexistent.ogg"],
        &["publish", &file, "--tracker", &tracker],
    ] {
        let ended = iceshare(&[args, &["--listen", "127.0.0.1:0"]].concat());
        assert_eq!(ended.code, Some(3), "{args:?}: {}", ended.err);
        assert!(ended.err.contains(&port.to_string()), "{args:?}: {}", ended.err);
        assert_eq!(ended.out, "", "{args:?}");
    }
}

#[test]
fn files_that_cannot_be_published_are_refused_before_anything_is_said() {
    for (name, word) in
        [("README.md", "not an Ogg file"), ("damaged-crc.opus", "--repair"), ("nothing.ogg", "nothing.ogg")]
    {
        let ended = iceshare(&[
            "publish",
            &fixture(name),
            "--tracker",
            "icet://127.0.0.1:1",
            "--listen",
            "127.0.0.1:0",
        ]);
        assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{name}: {}", ended.err);
        assert!(ended.err.contains(word), "{name}: {}", ended.err);
    }
    let none = iceshare(&["publish", &fixture("opus.opus")]);
    assert_eq!(none.code, Some(2));
    assert!(none.err.contains("--tracker"), "{}", none.err);
}

#[test]
fn outputs_that_exist_are_never_overwritten() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("a.ogg");
    std::fs::write(&file, "mine").expect("written");
    for output in [file.to_str().expect("UTF-8"), dir.path().to_str().expect("UTF-8")] {
        let ended = iceshare(&["get", "icet://127.0.0.1:1/a.ogg", "-o", output]);
        assert_eq!(ended.code, Some(1), "{}", ended.err);
        assert!(ended.err.contains("never overwritten"), "{}", ended.err);
    }
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "mine");
}

#[test]
fn gateways_are_for_this_machine() {
    let ended = iceshare(&["play", "icet://127.0.0.1:1/a.ogg", "--gateway", "0.0.0.0:0"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("loopback"), "{}", ended.err);
    let quotes = iceshare(&["play", "icet://127.0.0.1:1/a.ogg", "--player", "mpv 'x"]);
    assert_eq!(quotes.code, Some(2), "{}", quotes.err);
}

#[test]
fn nothing_is_trusted_at_first() {
    let list = iceshare(&["trust", "--json"]);
    assert_eq!((list.code, list.out.trim()), (Some(0), "[]"));
    let forget = iceshare(&["trust", "--forget", "icet://nowhere.example"]);
    assert_eq!(forget.code, Some(1));
    assert!(forget.err.contains("no key of icet://nowhere.example"), "{}", forget.err);
}

#[test]
fn what_a_killed_command_left_is_removed_at_the_next_start() {
    let data = tempfile::tempdir().expect("a folder");
    let folder = |name: &str| {
        let folder = data.path().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("copy.ogg.part"), "pages").expect("written");
        folder
    };
    let (left, used) = (folder("beside-left"), folder("beside-used"));
    let lock = std::fs::File::open(&used).expect("opened");
    lock.lock().expect("locked");
    let path = data.path().to_str().expect("UTF-8");
    let refused =
        iceshare(&["get", "icet://127.0.0.1:1/a", "-o", "-", "--data", path, "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.code, Some(3), "{}", refused.err);
    assert!(!left.exists() && used.join("copy.ogg.part").exists(), "{}", refused.err);
}

#[test]
fn an_interrupted_demo_tells_how_far_it_came() {
    // Far too thin an uplink to be through before it is stopped.
    let mut demo = Command::new(env!("CARGO_BIN_EXE_iceshare"))
        .args(["demo", "--up", "5kB"])
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command runs");
    let mut out = BufReader::new(demo.stdout.take().expect("its output"));
    let mut line = String::new();
    out.read_line(&mut line).expect("read");
    assert!(line.starts_with("http://127.0.0.1:"), "{line}");
    let kill = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().expect("kill runs");
    assert!(kill.success());
    let mut figures = String::new();
    out.read_to_string(&mut figures).expect("read");
    assert_eq!(demo.wait().expect("it ends").code(), Some(130), "{figures}");
    assert!(figures.contains("stopped          after") && figures.contains("0 of 6 copies"), "{figures}");
}

#[test]
fn the_demo_ends_by_itself_with_equal_copies() {
    // A generous uplink: the point is that all of it works, not to watch it.
    let ended = iceshare(&["demo", "--once", "--up", "1MB"]);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    assert!(ended.out.starts_with("http://127.0.0.1:"), "{}", ended.out);
    assert!(ended.out.contains("6 of 6 copies"), "{}", ended.out);
}
