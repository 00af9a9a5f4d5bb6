//! Payload protocol `libp2p` with real programs: a swarm over it alone, and a stranger's receiver.

use std::process::Command;

use iceshare::icet::{IcetUrl, MediaId};
use iceshare_tests::{Network, Proc, binary, media, same};

fn figures(get: &Proc) -> serde_json::Value {
    serde_json::from_str(&get.stdout()).unwrap_or_else(|e| panic!("{e}: {}", get.stdout()))
}

#[test]
fn a_swarm_over_libp2p_alone() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 6_000_000, 4200, 3).unwrap_or_else(|e| panic!("{e}"));
    let only = ["--transport", "libp2p"];
    // An origin that takes longer for each copy than one receiver needs to pass it on.
    let (_origin, url) = net.publish("origin", &file, &[&only[..], &["--up", "3MB"]].concat());
    let mut gets: Vec<_> = (0..4)
        .map(|i| net.get(&format!("r{i}"), &url, &["--transport", "libp2p", "--json", "--share-for", "20s"]))
        .collect();
    let mut hosts = 0;
    for (get, out) in &mut gets {
        get.ends_with(0);
        assert!(same(&file, out));
        let figures = figures(get);
        let over = figures["by_protocol"].as_object().expect("bytes by protocol");
        assert!(over.keys().all(|name| name == "libp2p") && !over.is_empty(), "{over:?}");
        hosts += figures["by_host"].as_object().map_or(0, serde_json::Map::len);
    }
    assert!(hosts > gets.len(), "receivers fetched from the origin alone");
}

/// Pages come with rust-libp2p and a CBOR library, in a program that was written from the specification.
#[test]
fn a_program_that_knows_only_the_specification_fetches_pages() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 400_000, 4200, 3).unwrap_or_else(|e| panic!("{e}"));
    let name = file.to_string_lossy();
    let to = ["publish", &name, "--tracker", &net.tracker.url, "-vv"];
    let origin = net.run("origin", &[&to[..], &["--transport", "libp2p", "--anonymous", "allow"]].concat());
    let link = origin.line("its link", |l| l.starts_with("icet://").then(|| l.trim().to_owned()));
    // Nobody tells the program where the peer is; its log does.
    let port: u16 = origin.error_line("its TCP port", |l| {
        let at = l.contains("the tracker reaches us").then(|| l.split_once("tcp:127.0.0.1:"))??.1;
        at.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    });
    let url: IcetUrl = link.parse().unwrap_or_else(|e| panic!("{link}: {e}"));
    let (key, path) = (url.key.expect("the publisher's key"), url.path.expect("a path"));
    let info: serde_json::Value = {
        let mut info = net.run("info", &["info", &link, "--json"]);
        info.ends_with(0);
        figures(&info)
    };
    let version = info["version"].as_u64().expect("a version").to_string();
    let media: String = MediaId::of(&key, &path).0.iter().map(|b| format!("{b:02x}")).collect();
    let run = |key: &str, first: &str, last: &str| {
        let mut command = Command::new(binary("libp2p-receiver"));
        command.args(["127.0.0.1", &port.to_string(), key, path.as_str(), &media, &version, first, last]);
        command.output().unwrap_or_else(|e| panic!("{e}"))
    };
    let got = run(&key.to_string(), "0", "1000000");
    let said = String::from_utf8_lossy(&got.stderr).into_owned();
    let whole = std::fs::read(&file).unwrap_or_else(|e| panic!("{e}"));
    assert!(
        got.status.success() && got.stdout == whole,
        "{} of {} bytes: {said}",
        got.stdout.len(),
        whole.len()
    );
    let offset = |page: usize| -> usize { pages(&whole).iter().take(page).sum() };
    let got = run(&key.to_string(), "7", "9");
    assert!(got.status.success() && got.stdout == whole[offset(7)..offset(10)]);
    // Beyond the end; and with another key than the peer's.
    let got = run(&key.to_string(), "1000000", "1000001");
    assert!(!got.status.success() && String::from_utf8_lossy(&got.stderr).contains("refused"));
    let got = run(&"07".repeat(32), "0", "1");
    assert!(!got.status.success() && got.stdout.is_empty());
}

/// Lengths of the pages.
fn pages(file: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    let mut at = 0;
    while let Some(head) = file.get(at..at + 27) {
        let segments = usize::from(head[26]);
        let table = &file[at + 27..at + 27 + segments];
        let len = 27 + segments + table.iter().map(|l| usize::from(*l)).sum::<usize>();
        lengths.push(len);
        at += len;
    }
    lengths
}
