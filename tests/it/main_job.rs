//! The main job with the real binaries: publish, fetch, get the identical file.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use iceshare_tests::{Network, PATIENCE, fixture, media, same};

/// Every codec and shape among the fixtures that is a sound Ogg file.
fn sound_fixtures() -> Vec<std::path::PathBuf> {
    let folder = fixture("");
    let mut all: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| {
            p.extension().is_some_and(|x| ["ogg", "opus", "oga", "ogv", "spx", "ogx"].iter().any(|y| x == *y))
        })
        .filter(|p| !p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("damaged")))
        .collect();
    all.sort();
    assert!(all.len() >= 8, "too few fixtures in {}: {all:?}", folder.display());
    all
}

#[test]
fn every_codec_arrives_identical_as_a_file() {
    let net = Network::new();
    let files = sound_fixtures();
    let names: Vec<String> = files.iter().map(|f| f.to_string_lossy().into_owned()).collect();
    let mut args: Vec<&str> = vec!["publish"];
    args.extend(names.iter().map(String::as_str));
    args.extend(["--tracker", &net.tracker.url]);
    let publisher = net.run("publisher", &args);
    for (i, file) in files.iter().enumerate() {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let url = publisher.line(&format!("the link of {name}"), |l| {
            (l.starts_with("icet://") && l.contains(&format!("/{name}?"))).then(|| l.trim().to_owned())
        });
        let (mut get, out) = net.get(&format!("receiver-{i}"), &url, &[]);
        get.ends_with(0);
        assert!(same(file, &out), "{name} arrived altered");
        assert!(!net.path(&format!("receiver-{i}.out.part")).exists(), "{name}: a part file was left behind");
    }
}

#[test]
fn a_pipe_gets_the_identical_bytes_in_order() {
    let net = Network::new();
    let file = net.path("pipe.opus");
    media::opus_like(&file, 3_000_000, 4200, 3).unwrap_or_else(|e| panic!("{e}"));
    let (_publisher, url) = net.publish("publisher", &file, &[]);
    let got = net.path("piped");
    let sink = std::fs::File::create(&got).unwrap_or_else(|e| panic!("{e}"));
    let mut command: Command = net.command("receiver", &["get", &url, "-o", "-"]);
    let status = command.stdout(Stdio::from(sink)).stderr(Stdio::null()).status();
    assert!(status.is_ok_and(|s| s.success()));
    assert!(same(&file, &got));
}

#[test]
fn a_receiver_is_served_by_another_receiver_when_the_publisher_is_gone() {
    let net = Network::new();
    let file = net.path("shared.opus");
    media::opus_like(&file, 2_000_000, 4200, 4).unwrap_or_else(|e| panic!("{e}"));
    let (mut publisher, url) = net.publish("publisher", &file, &[]);
    let (first, out) = net.get("first", &url, &["--share-for", "10m"]);
    first.error_line("that it is complete and shares", |l| l.contains("sharing").then_some(()));
    assert!(same(&file, &out));
    publisher.kill();
    let (mut second, out) = net.get("second", &url, &[]);
    second.ends_with(0);
    assert!(same(&file, &out));
}

#[test]
fn eight_receivers_at_once_take_at_most_two_copies_from_a_slow_origin() {
    let net = Network::new();
    let file = net.path("crowd.opus");
    media::opus_like(&file, 20_000_000, 4200, 5).unwrap_or_else(|e| panic!("{e}"));
    let (publisher, url) = net.publish("publisher", &file, &["--up", "1MB"]);
    let mut crowd: Vec<_> = (0..8)
        .map(|i| net.get(&format!("receiver-{i}"), &url, &["--up", "4MB", "--share-for", "10m"]))
        .collect();
    for (get, out) in &mut crowd {
        get.error_line("that it is complete and shares", |l| l.contains("sharing").then_some(()));
        assert!(same(&file, out));
    }
    let path = url.split('?').next().and_then(|u| u.rsplit('/').next()).unwrap_or_default().to_owned();
    let view: serde_json::Value = serde_json::from_str(&net.tracker.get(&format!("/api/media/{path}")))
        .unwrap_or_else(|e| panic!("the tracker's figures: {e}"));
    let from_origin = view["bytes_delivered"]["by_publisher"].as_u64();
    let (Some(from_origin), Some(size)) = (from_origin, view["bytes"].as_u64()) else {
        panic!("no figures in {view}")
    };
    #[allow(clippy::cast_precision_loss)]
    let copies = from_origin as f64 / size as f64;
    eprintln!("the origin sent {copies:.2} copies to 8 receivers");
    assert!(copies <= 2.0, "the origin sent {copies:.2} copies");
    drop(publisher);
}

#[test]
fn one_user_publishes_fetches_plays_and_asks_at_once() {
    let net = Network::new();
    let file = net.path("mine.opus");
    media::opus_like(&file, 2_000_000, 4200, 5).unwrap_or_else(|e| panic!("{e}"));
    let (_publisher, url) = net.publish("me", &file, &["--up", "400kB"]);
    let play = net.run("me", &["play", &url]);
    play.line("its http:// link", |l| l.starts_with("http://").then_some(()));
    let (mut get, out) = net.get("me", &url, &[]);
    // The same once more, and into a pipe: each with a copy of its own, which is gone after it.
    let mut pipe = net.run("me", &["get", &url, "-o", "-"]);
    let again = net.run("me", &["play", &url]);
    again.line("its http:// link", |l| l.starts_with("http://").then_some(()));
    net.run("me", &["info", &url]).ends_with(0);
    // A second one that publishes under the same key would push the first one out: it says so, and leaves it alone.
    let other = net.path("other.opus");
    media::opus_like(&other, 50_000, 4200, 6).unwrap_or_else(|e| panic!("{e}"));
    let mut second = net.run("me", &["publish", &other.to_string_lossy(), "--tracker", &net.tracker.url]);
    second.ends_with(1);
    assert!(second.stderr().contains("another iceshare is using the key"), "{}", second.stderr());
    get.ends_with(0);
    assert!(same(&file, &out));
    pipe.ends_with(0);
    let mut again = again;
    again.signal("INT");
    again.ends_with(130);
    let beside = || {
        let names = std::fs::read_dir(net.path("me")).into_iter().flatten().flatten().map(|e| e.file_name());
        names.filter(|n| n.to_string_lossy().starts_with("beside-")).count()
    };
    assert_eq!(beside(), 0);
}

/// A part of what an `http://` link gives.
fn part(link: &str, first: u64, count: usize) -> Vec<u8> {
    let (authority, path) = link.strip_prefix("http://").and_then(|l| l.split_once('/')).expect("a link");
    let mut stream = std::net::TcpStream::connect(authority).unwrap_or_else(|e| panic!("{authority}: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap_or_else(|e| panic!("{authority}: {e}"));
    let last = first + count as u64 - 1;
    let head = format!("Host: {authority}\r\nRange: bytes={first}-{last}\r\nConnection: close");
    write!(stream, "GET /{path} HTTP/1.1\r\n{head}\r\n\r\n").unwrap_or_else(|e| panic!("{authority}: {e}"));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_else(|e| panic!("{first}-{last}, {} bytes: {e}", answer.len()));
    let body = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    answer.split_off(body)
}

/// Two players on one link want different places of a slow origin: neither starves the other.
#[test]
fn two_readers_of_one_link_both_get_on() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 3_000_000, 16_000, 5).unwrap_or_else(|e| panic!("{e}"));
    let (_publisher, url) = net.publish("origin", &file, &["--up", "60kB"]);
    let play = net.run("me", &["play", &url]);
    let link = play.line("its http:// link", |l| l.starts_with("http://").then(|| l.trim().to_owned()));
    let source = std::fs::read(&file).unwrap_or_else(|e| panic!("{e}"));
    let link = link.as_str();
    std::thread::scope(|scope| {
        let readers =
            [0, 2_000_000].map(|first| (first, scope.spawn(move || part(link, first as u64, 80_000))));
        for (first, reader) in readers {
            let got = reader.join().unwrap_or_else(|_| panic!("the reader at {first}"));
            assert!(got == source[first..first + 80_000], "{} bytes from {first}", got.len());
        }
    });
}
