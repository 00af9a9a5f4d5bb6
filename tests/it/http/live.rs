//! Live media over HTTP: between peers, and for clients that know nothing of us.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use iceshare_tests::media::opus_like;
use iceshare_tests::{Network, PATIENCE, Proc, have};

use crate::live::{broadcast, is_a_stretch, until};

/// A station that serves over HTTP only, where it does, and its link.
fn station(network: &Network, source: &Path) -> (Proc, SocketAddr, String) {
    // It does not tell its port: one that is free is given to it.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let at = free.to_string();
    let (proc, url) =
        broadcast(network, "station", source, &["--loop", "--transport", "http", "--listen", &at]);
    (proc, free, url)
}

/// Waits for the first pages: before them a host says that it has none yet.
fn on_the_air(at: SocketAddr) {
    until("pages", || {
        let mut stream = TcpStream::connect(at).expect("a connection");
        stream.write_all(b"HEAD /radio/one HTTP/1.0\r\n\r\n").expect("taken");
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        assert!(said.contains(" 200 ") || said.contains(" 503 "), "{said}");
        said.contains(" 200 ")
    });
}

#[test]
fn listeners_hear_each_other_over_http_alone() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 21).expect("a source");
    let (_station, _, url) = station(&network, &source);
    let get = |who: &str, time: &str| network.get(who, &url, &["--transport", "http", "--for", time]);
    let (mut first, a) = get("first", "8s");
    let (mut second, b) = get("second", "4s");
    second.ends_with(0);
    first.ends_with(0);
    assert!(is_a_stretch(&source, &a, 0) > is_a_stretch(&source, &b, 0));
}

/// What a plain client hears: the head of the answer, and a file of that many bytes of sound.
fn hear(network: &Network, at: SocketAddr, head: &str, bytes: usize) -> (String, std::path::PathBuf) {
    let mut stream = TcpStream::connect(at).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // HTTP/1.0: no chunks, so that what follows is sound.
    stream.write_all(format!("GET /radio/one HTTP/1.0\r\n{head}\r\n").as_bytes()).expect("taken");
    let (mut got, mut buf) = (Vec::new(), [0; 4096]);
    while got.len() < bytes {
        let n = stream.read(&mut buf).expect("sound");
        assert!(n > 0, "it ends: {}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buf[..n]);
    }
    let end = got.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let said = String::from_utf8_lossy(&got[..end]).into_owned();
    let out = network.path("heard.opus");
    // What was read may end within a page.
    let sound = &got[end + 4..];
    let last = sound.windows(4).rposition(|w| w == b"OggS").expect("a page");
    std::fs::write(&out, &sound[..last]).expect("written");
    (said, out)
}

#[test]
fn any_client_hears_a_host() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 22).expect("a source");
    let (_station, at, _url) = station(&network, &source);
    on_the_air(at);
    // A player asks for bytes from 0 on, and takes 200 for what it is.
    for head in ["", "Range: bytes=0-\r\nIcy-MetaData: 1\r\n"] {
        let (said, out) = hear(&network, at, head, 20_000);
        assert!(said.starts_with("HTTP/1.0 200"), "{said}");
        assert!(!said.to_ascii_lowercase().contains("content-length"), "{said}");
        assert!(is_a_stretch(&source, &out, 0) > 10);
    }
}

#[test]
fn who_hears_a_listener_is_given_an_end_where_the_broadcast_breaks_off() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 23).expect("a source");
    let (station, _, url) = station(&network, &source);
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let at = free.to_string();
    let (mut listener, out) = network.get("listener", &url, &["--transport", "http", "--listen", &at]);
    until("something is heard", || std::fs::metadata(&out).is_ok_and(|m| m.len() > 0));
    on_the_air(free);
    let mut stream = TcpStream::connect(free).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(b"GET /radio/one HTTP/1.1\r\nHost: x\r\n\r\n").expect("taken");
    let (mut got, mut buf) = (Vec::new(), [0; 4096]);
    while got.len() < 20_000 {
        let n = stream.read(&mut buf).expect("sound");
        got.extend_from_slice(&buf[..n]);
    }
    station.signal("KILL");
    listener.signal("TERM");
    stream.read_to_end(&mut got).expect("an end without a cut");
    listener.end();
    assert!(got.ends_with(b"\r\n0\r\n\r\n"), "the body has its end");
    // A page of 27 bytes: no packet, and the last one of its stream.
    let last = got.windows(4).rposition(|w| w == b"OggS").expect("a page");
    assert_eq!((got[last + 5], got[last + 26], got.len() - last), (4, 0, 27 + 7));
}

#[test]
fn a_real_player_hears_a_host() {
    if !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let tone = network.path("tone.opus");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", "sine=440:duration=20", "-c:a", "libopus"]);
    ffmpeg.args(["-page_duration", "200000"]).arg(&tone);
    assert!(ffmpeg.status().is_ok_and(|s| s.success()));
    let (_station, at, _url) = station(&network, &tone);
    on_the_air(at);
    let out = network.path("heard.wav");
    let mut player = Command::new("ffmpeg");
    player.args(["-v", "error", "-t", "3", "-i", &format!("http://{at}/radio/one")]).arg(&out);
    let heard = player.output().expect("ffmpeg");
    assert!(heard.status.success(), "{}", String::from_utf8_lossy(&heard.stderr));
    let sound = std::fs::read(&out).expect("sound");
    assert!(sound.len() > 3 * 48_000 * 2 * 9 / 10, "{} bytes", sound.len());
}
