//! Listening later, with real programs: what one hears is what was on then, and a pause costs nothing as long as the window lasts.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use iceshare::ogg::{SplitEvent, Splitter, Timeline};
use iceshare_tests::{Network, PATIENCE, Proc, Tracker, have};

use crate::live::{decoded, until};
use crate::source::{SECRET, link, say, station};

/// Samples a second of what is broadcast.
const RATE: usize = 2000;
/// A tone that rises, so that no moment is like another.
const SOUND: &str = "aevalsrc=0.5*sin(2*PI*(100+t)*t):d=400:s=2000";

/// An encoder of which the test says how far it is: the time in a broadcast is as much as was sent.
struct Encoder {
    to: TcpStream,
    bytes: Vec<u8>,
    /// Where pages end, and media time there in microseconds.
    ends: Vec<(usize, i64)>,
    sent: usize,
}

impl Encoder {
    /// Encodes a sound, of which a file stays.
    fn new(network: &Network, door: &str, sound: &str) -> (Encoder, PathBuf) {
        let file = network.path("source.oga");
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-y", "-v", "error", "-f", "lavfi", "-i", sound, "-c:a", "flac"]);
        assert!(ffmpeg.args(["-page_duration", "200000"]).arg(&file).status().is_ok_and(|s| s.success()));
        let bytes = std::fs::read(&file).expect("a file");
        let mut splitter = Splitter::new();
        splitter.push(bytes.clone().into());
        let (mut ends, mut at, mut timeline) = (Vec::new(), 0, Timeline::new());
        while let Some(SplitEvent::Page { header, bytes }) = splitter.next() {
            timeline.page(&header, &bytes);
            at += bytes.len();
            ends.push((at, timeline.duration()));
        }
        let head = format!("SOURCE /live HTTP/1.0\nAuthorization: Basic {SECRET}\n\n");
        let (to, _) = say(door, &head, "\r\n\r\n");
        (Encoder { to, bytes, ends, sent: 0 }, file)
    }

    /// Sends what there is up to a time, at once.
    fn sends(&mut self, seconds: u32) {
        let end = self.ends.iter().rfind(|(_, t)| *t <= i64::from(seconds) * 1_000_000).expect("a page").0;
        self.to.write_all(&self.bytes[self.sent..end]).expect("taken");
        self.sent = end;
    }
}

/// From which second of the source on a recording is that, without a gap or a repeat; and how many it has.
fn place(whole: &[u8], recording: &Path) -> (f64, f64) {
    let sound = decoded(recording);
    let at = whole.windows(96).step_by(2).position(|w| *w == sound[..96]).expect("a place in the source");
    assert!(whole[2 * at..].starts_with(&sound), "a gap, a repeat, or another sound, from sample {at} on");
    #[expect(clippy::cast_precision_loss)]
    let seconds = |samples: usize| samples as f64 / RATE as f64;
    (seconds(at), seconds(sound.len() / 2))
}

#[test]
fn who_wants_what_was_on_two_minutes_ago_hears_that() {
    if !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let (station, door) = station(&network);
    let (mut encoder, file) = Encoder::new(&network, &door, SOUND);
    encoder.sends(300);
    let url = link(&station);
    let whole = decoded(&file);
    // Who asks for more than anybody has gets what there is, and is told.
    let (mut first, all) = network.get("first", &url, &["--at", "-1h", "--for", "290s"]);
    first.ends_with(0);
    let said = first.stderr();
    let words = [
        "nobody keeps what was on at ",
        " (1h ago), if anything was; beginning with the oldest there is, of ",
    ];
    assert!(words.iter().all(|w| said.contains(w)), "{said}");
    assert_eq!(place(&whole, &all).0.to_bits(), 0f64.to_bits());
    // Somebody who listens all the time, from the beginning on.
    let (mut other, heard) = network.get("other", &url, &["--at", "-1h"]);
    // The tracker hears once a second how far the broadcast is.
    let (deadline, mut edge, mut places) = (Instant::now() + PATIENCE, 300, Vec::new());
    for n in 0.. {
        edge += 1;
        encoder.sends(edge);
        let (mut later, out) = network.get(&format!("later{n}"), &url, &["--at", "-2m", "--for", "10s"]);
        later.ends_with(0);
        let (at, long) = place(&whole, &out);
        assert!((9.5..11.0).contains(&long), "{long} s");
        places.push(at);
        let wanted = f64::from(edge) - 120.0;
        if (wanted - 2.0..=wanted + 0.5).contains(&at) {
            assert!(!later.stderr().contains("nobody keeps"), "{}", later.stderr());
            break;
        }
        assert!(Instant::now() < deadline, "{places:?} at {edge}");
    }
    // Who catches up while it goes on misses nothing.
    encoder.sends(390);
    let (mut catching_up, out) = network.get("catching", &url, &["--at", "-5m", "--for", "250s"]);
    catching_up.ends_with(0);
    let (_, long) = place(&whole, &out);
    assert!(long > 249.0, "{long} s");
    other.signal("INT");
    other.ends_with(130);
    assert_eq!(place(&whole, &heard).0.to_bits(), 0f64.to_bits());
}

#[test]
fn what_was_on_before_a_broadcaster_was_off_the_air_is_still_to_be_had() {
    if !have("ffmpeg") {
        return;
    }
    let mut network = Network::with(&["--off-air", "5"]);
    let (mut station, door) = crate::source::station(&network);
    let (mut encoder, file) = Encoder::new(&network, &door, SOUND);
    encoder.sends(100);
    let url = link(&station);
    let whole = decoded(&file);
    // It hears when the tracker gives the broadcast up.
    let (mut last, all) = network.get("last", &url, &["--at", "-1h"]);
    until("a listener has something", || std::fs::metadata(&all).is_ok_and(|m| m.len() > 100_000));
    station.signal("TERM");
    station.end();
    last.ends_with(5);
    let heard = |network: &Network, who: &str| {
        let (mut later, out) = network.get(who, &url, &["--at", "-70s", "--for", "20s"]);
        later.ends_with(0);
        assert!(!later.stderr().contains("nobody keeps"), "{}", later.stderr());
        place(&whole, &out)
    };
    // Back, with something else.
    let (station, door) = crate::source::station(&network);
    let (mut encoder, _) = Encoder::new(&network, &door, "sine=f=440:d=400:r=2000");
    encoder.sends(30);
    link(&station);
    let (at, long) = heard(&network, "later");
    assert!((50.0..75.0).contains(&at) && long > 19.0, "{long} s from {at} s on");
    // So is the tracker, that knows nothing any more.
    network.tracker.proc.kill();
    let (data, listen) = (network.tracker.data.clone(), network.tracker.listen());
    network.tracker = Tracker::start(&data, &listen);
    network.tracker.until("/api/media", "that it is on", |s| s.contains("radio/one").then_some(()));
    let (at, long) = heard(&network, "latest");
    assert!((50.0..75.0).contains(&at) && long > 19.0, "{long} s from {at} s on");
}

/// A player that can pause: it reads what the link of `iceshare play` gives when it likes, and sockets hold little for it.
struct Player {
    play: Proc,
    from: TcpStream,
    heard: Vec<u8>,
}

impl Player {
    fn new(network: &Network, who: &str, url: &str, more: &[&str]) -> Player {
        let play = network.run(who, &[&["play", url], more].concat());
        let http = play.line("its link", |l| l.starts_with("http://").then(|| l.trim().to_owned()));
        let (authority, path) = http.trim_start_matches("http://").split_once('/').expect("a link");
        let connecting = async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(4096)?;
            socket.connect(authority.parse().expect("an address")).await?.into_std()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut from = runtime.block_on(connecting).expect("a connection");
        from.set_nonblocking(false).expect("a socket");
        from.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // Of HTTP/1.0, so that what comes is the stream itself.
        from.write_all(format!("GET /{path} HTTP/1.0\r\nHost: {authority}\r\n\r\n").as_bytes())
            .expect("taken");
        Player { play, from, heard: Vec::new() }
    }

    /// Reads so many bytes more.
    fn reads(&mut self, bytes: usize) {
        let mut some = [0; 4096];
        let end = self.heard.len() + bytes;
        while self.heard.len() < end {
            let n = self.from.read(&mut some).expect("it goes on");
            assert!(n > 0, "it ended: {}", self.play.stderr());
            self.heard.extend_from_slice(&some[..n]);
        }
    }

    /// What pages have, of those that came whole, apart from serial numbers and checksums.
    fn pages(&self) -> Vec<Vec<u8>> {
        let body = self.heard.windows(4).position(|w| w == b"\r\n\r\n").expect("a header") + 4;
        contents(&self.heard[body..])
    }
}

fn contents(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut splitter = Splitter::new();
    splitter.push(stream.to_vec().into());
    let mut pages = Vec::new();
    while let Some(SplitEvent::Page { bytes, .. }) = splitter.next() {
        pages.push(bytes[26..].to_vec());
    }
    pages
}

#[test]
fn a_pause_costs_nothing_while_the_window_lasts_and_is_told_when_it_was_too_long() {
    if !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let (station, door) = station(&network);
    let (mut encoder, file) = Encoder::new(&network, &door, SOUND);
    encoder.sends(60);
    let url = link(&station);
    let mut patient = Player::new(&network, "patient", &url, &["--at", "-20s"]);
    let mut hasty = Player::new(&network, "hasty", &url, &["--at", "-20s", "--window", "5s"]);
    patient.reads(40_000);
    hasty.reads(40_000);
    // Both pause, and the broadcast goes on; one keeps two minutes more than it is behind, and no more. Somebody else is slower than
    // what they need to have it all.
    encoder.sends(390);
    let (mut other, _) = network.get("other", &url, &["--at", "-380s", "--for", "370s", "--down", "120KB"]);
    other.ends_with(0);
    patient.reads(1_100_000);
    hasty.reads(400_000);
    let said = (patient.play.stderr(), hasty.play.stderr());
    assert!(!said.0.contains("fell too far behind"), "{}", said.0);
    // (Twice, if it took something in the middle of what came.)
    assert!((1..=2).contains(&said.1.matches("fell too far behind").count()), "{}", said.1);
    let source = contents(&std::fs::read(&file).expect("a file"));
    let heard = patient.pages();
    let setup = source.iter().zip(&heard).take_while(|(a, b)| a == b).count();
    // (All of it, if it was too soon for the tracker to know better.)
    let first = heard
        .get(setup)
        .map_or(setup, |heard| source.iter().position(|p| p == heard).expect("a page of the source"));
    assert!(source[first..].starts_with(&heard[setup..]), "a gap or a repeat behind page {first}");
}
