//! Real players on `iceshare play`: the duration is right, a seek fetches what is sought, sound comes before the file.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use iceshare_tests::process::http_get;
use iceshare_tests::{Network, Proc, have};

/// The whole large file would take two minutes from such an origin.
const SLOW: &str = "100kB";
/// Where the players seek to in 400 s, in seconds.
const SEEK: u32 = 360;

fn output(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).stdin(Stdio::null()).output();
    let out = out.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// 400 s of noise as constant 256 kbit/s Vorbis, 12.8 MB: VLC seeks by the nominal bitrate, so that must be the real one.
fn large(net: &Network) -> PathBuf {
    let (part, file) = (net.path("part.ogg"), net.path("large.ogg"));
    let noise = "anoisesrc=d=50:c=pink:r=48000:a=0.4:seed=7";
    let rate = "256k";
    let head = ["-v", "error", "-f", "lavfi", "-i", noise, "-ac", "2", "-c:a", "libvorbis"];
    let managed = ["-b:a", rate, "-minrate", rate, "-maxrate", rate, &text(&part)];
    output("ffmpeg", &[&head[..], &managed[..]].concat());
    let copies = ["-v", "error", "-stream_loop", "7", "-i", &text(&part), "-c", "copy", &text(&file)];
    output("ffmpeg", &copies);
    assert!(std::fs::metadata(&file).is_ok_and(|m| m.len() > 12_000_000));
    file
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A media that a publisher with a thin uplink shares, open in `iceshare play`.
struct Playing {
    url: String,
    file: PathBuf,
    play: Proc,
    _publisher: Proc,
    _net: Network,
}

impl Playing {
    fn of(net: Network, file: PathBuf, up: &str) -> Playing {
        let (publisher, link) = net.publish("publisher", &file, &["--up", up]);
        let play = net.run("listener", &["play", &link]);
        let url = play.line("its http:// link", |l| l.starts_with("http://").then(|| l.trim().to_owned()));
        Playing { url, file, play, _publisher: publisher, _net: net }
    }

    fn slow() -> Playing {
        let net = Network::new();
        let file = large(&net);
        Playing::of(net, file, SLOW)
    }

    /// Which pages are there, as the gateway tells.
    fn pages(&self) -> Vec<bool> {
        let rest = self.url.trim_start_matches("http://");
        let (authority, path) = rest.split_once('/').unwrap_or_else(|| panic!("{}", self.url));
        let folder = path.rsplit_once('/').map_or("", |(f, _)| f);
        let body = http_get(authority, &format!("/{folder}/table.json"));
        let table: serde_json::Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"));
        let number = |v: &serde_json::Value| v.as_u64().unwrap_or_else(|| panic!("{table}"));
        let mut pages = Vec::new();
        for run in table["runs"].as_array().unwrap_or_else(|| panic!("{table}")) {
            let (first, last) = (number(&run["first"]), number(&run["last"]));
            assert!(run["state"] != "partial", "the table is too coarse for this test");
            pages.extend((first..=last).map(|_| run["state"] == "held"));
        }
        assert_eq!(pages.len() as u64, number(&table["pages"]));
        pages
    }

    /// After a seek to 90 %: what is there was fetched, what lies between the start and it was not.
    fn sought(&self, who: &str) {
        let pages = self.pages();
        let share = |percent: usize| pages.len() * percent / 100;
        let held = |from: usize, to: usize| pages.iter().take(to).skip(from).filter(|p| **p).count();
        let (middle, there) = (held(share(20), share(85)), held(share(85), pages.len()));
        eprintln!(
            "{who}: {} of {} pages held: {} of the first 20 %, {middle} of the middle, {there} of the last 15 %",
            held(0, pages.len()),
            pages.len(),
            held(0, share(20)),
        );
        assert!(there > 1, "{who} sought, but nothing there was fetched");
        assert!(middle <= pages.len() / 25, "{who} sought, but {middle} pages of the middle were fetched");
    }

    fn seconds(&self) -> f64 {
        seconds(&text(&self.file))
    }
}

/// The duration in seconds by ffprobe.
fn seconds(what: &str) -> f64 {
    let args = ["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", what];
    output("ffprobe", &args).parse().unwrap_or_else(|e| panic!("{what}: {e}"))
}

fn near(got: f64, expected: f64, tolerance: f64, who: &str) {
    assert!((got - expected).abs() <= tolerance, "{who} says {got} s, but it is {expected} s");
}

fn md5(args: &[&str]) -> String {
    output("ffmpeg", &[&["-v", "error", "-nostdin"], args, &["-f", "md5", "-"]].concat())
}

#[test]
fn ffmpeg_knows_the_duration_and_seeks() {
    if !have("ffmpeg") || !have("ffprobe") {
        return;
    }
    let p = Playing::slow();
    near(seconds(&p.url), p.seconds(), 0.01, "ffprobe");
    let at = SEEK.to_string();
    let part = |what: &str| md5(&["-ss", &at, "-i", what, "-t", "2"]);
    let started = Instant::now();
    assert_eq!(part(&p.url), part(&text(&p.file)), "other sound than in the file");
    eprintln!("ffmpeg: 2 s of sound from {at} s on after {:.1} s", started.elapsed().as_secs_f64());
    p.sought("ffmpeg");
}

#[test]
fn sound_comes_after_the_first_pages() {
    if !have("ffmpeg") {
        return;
    }
    let mut p = Playing::slow();
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-nostdin", "-stats_period", "0.1", "-progress", "pipe:1", "-i", &p.url]);
    ffmpeg.args(["-f", "null", "-"]);
    let started = Instant::now();
    let player = Proc::start(ffmpeg);
    player.line("a second of sound", |l| {
        l.strip_prefix("out_time_us=")?.trim().parse().ok().filter(|t: &i64| *t >= 1_000_000)
    });
    let after = started.elapsed();
    let pages = p.pages();
    let held = pages.iter().filter(|p| **p).count();
    eprintln!("first second of sound after {:.1} s, {held} of {} pages", after.as_secs_f64(), pages.len());
    assert!(held < pages.len() / 4, "sound only after {held} of {} pages", pages.len());
    drop(player);
    p.play.signal("INT");
    p.play.ends_with(130);
}

#[test]
fn a_complete_play_is_the_sound_of_the_source() {
    if !have("ffmpeg") {
        return;
    }
    for (name, codec) in [
        ("a.ogg", &["-c:a", "libvorbis", "-q:a", "5"][..]),
        ("a.opus", &["-c:a", "libopus", "-b:a", "96k"]),
        ("a.oga", &["-c:a", "flac"]),
    ] {
        let net = Network::new();
        let file = net.path(name);
        let noise = "anoisesrc=d=20:c=pink:r=48000:a=0.4:seed=3";
        let to = text(&file);
        let args = [&["-v", "error", "-f", "lavfi", "-i", noise, "-ac", "2"], codec, &[&to]].concat();
        output("ffmpeg", &args);
        let p = Playing::of(net, file, "4MB");
        assert_eq!(md5(&["-i", &p.url]), md5(&["-i", &text(&p.file)]), "{name} sounds otherwise");
        assert!(p.pages().iter().all(|held| *held), "{name} was played to its end");
    }
}
