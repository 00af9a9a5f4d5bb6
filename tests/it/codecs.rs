//! Every codec through both ways in, for a listener who comes in the middle: the packets of the source, without a gap or a repeat, and
//! decoders take them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use iceshare_tests::process::http_get;
use iceshare_tests::{Network, PATIENCE, Proc, have};

use crate::source::{icecast, link, station};

/// Seconds that are recorded.
const RECORDED: usize = 4;

const SOUND: &str = "anoisesrc=d=90:c=pink:r=48000:a=0.4:seed=5";
const PICTURES: [&str; 6] = ["-f", "lavfi", "-i", "testsrc2=d=90:s=320x240:r=25", "-c:v", "libtheora"];

fn ffmpeg(args: &[&str]) -> Command {
    let mut c = Command::new("ffmpeg");
    c.args(["-v", "error", "-nostdin"]).args(args);
    c
}

fn said(mut command: Command) -> String {
    let out = command.output().expect("ffmpeg");
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && errors.is_empty(), "{command:?}: {errors}");
    String::from_utf8(out.stdout).expect("text")
}

fn source(net: &Network, name: &str, codec: &str, more: &[&str]) -> PathBuf {
    let file = net.path(name);
    let mut c = ffmpeg(&["-f", "lavfi", "-i", SOUND]);
    c.args(more).args(["-c:a", codec, "-page_duration", "200000"]).arg(&file);
    said(c);
    file
}

/// A hash of each packet of one of a file's streams.
fn packets(file: &Path, stream: &str) -> Vec<String> {
    let mut c = ffmpeg(&["-i"]);
    c.arg(file).args(["-map", stream, "-c", "copy", "-f", "framehash", "-"]);
    let lines = said(c);
    // Behind stream, times, duration and size; what a demuxer adds may follow.
    let hash = |l: &str| l.split(',').nth(5).map(|h| h.trim().to_owned());
    lines.lines().filter(|l| !l.starts_with('#')).filter_map(hash).collect()
}

/// Records from the middle, and compares.
fn is_heard(net: &Network, who: &str, url: &str, source: &Path, streams: &[&str]) {
    let (mut listener, out) = net.get(who, url, &["--for", &format!("{RECORDED}s")]);
    listener.ends_with(0);
    for stream in streams {
        let (all, heard) = (packets(source, stream), packets(&out, stream));
        let begin = heard.get(..2).unwrap_or_else(|| panic!("{who}: nothing of {stream}"));
        let from = all.windows(2).position(|w| w == begin);
        let from = from.unwrap_or_else(|| panic!("{who}: the first of {stream} is none of the source"));
        let same = heard.iter().zip(&all[from..]).take_while(|(a, b)| a == b).count();
        assert_eq!(same, heard.len(), "{who}: a gap, a repeat or something else in {stream}");
        let share = all.len() * (RECORDED - 1) / 90;
        assert!(heard.len() >= share, "{who}: only {} packets of {stream}", heard.len());
    }
    let mut c = ffmpeg(&["-i"]);
    c.arg(&out).args(["-f", "null", "-"]);
    assert_eq!(said(c), "");
}

fn through_both_ways(name: &str, codec: &str, more: &[&str], streams: &[&str]) {
    if !["ffmpeg", "icecast2"].into_iter().all(have) {
        return;
    }
    let net = Network::new();
    let file = source(&net, name, codec, more);
    let encoder = |door: &str| {
        let mut c = ffmpeg(&["-re", "-i"]);
        c.arg(&file).args(["-c", "copy", "-page_duration", "200000", "-f", "ogg"]);
        c.arg(format!("icecast://source:s3cret@{door}/{name}"));
        Proc::start(c)
    };
    let (station, door) = station(&net);
    let _encoder = encoder(&door);
    is_heard(&net, "direct", &link(&station), &file, streams);

    let (_server, at) = icecast(&net);
    let _other = encoder(&at);
    let deadline = Instant::now() + PATIENCE;
    while !http_get(&at, "/status-json.xsl").contains(name) {
        assert!(Instant::now() < deadline, "the encoder does not come to Icecast");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let mount = format!("http://{at}/{name}");
    let args = ["broadcast", "--tracker", &net.tracker.url, "--as", "radio/two", "--from", &mount];
    let relay = net.run("relay", &args);
    is_heard(&net, "relayed", &link(&relay), &file, streams);
}

#[test]
fn vorbis_is_heard_as_sent() {
    through_both_ways("radio.ogg", "libvorbis", &[], &["0:a"]);
}

#[test]
fn opus_is_heard_as_sent() {
    through_both_ways("radio.opus", "libopus", &[], &["0:a"]);
}

#[test]
fn flac_is_heard_as_sent() {
    through_both_ways("radio.oga", "flac", &[], &["0:a"]);
}

#[test]
fn theora_with_vorbis_is_heard_and_seen_as_sent() {
    through_both_ways("radio.ogv", "libvorbis", &PICTURES, &["0:a", "0:v"]);
}
