//! GStreamer, by its programs `gst-play-1.0` and `gst-discoverer-1.0`.

use std::process::Command;

use iceshare_tests::{PATIENCE, Proc, have};

use super::sound::Sound;
use super::{Playing, SEEK, output, plain, text};
use crate::tones;

/// The line that names the duration.
fn duration(what: &str) -> String {
    let said = output("gst-discoverer-1.0", &["-t", &PATIENCE.as_secs().to_string(), what]);
    let line = said.lines().find(|l| l.trim_start().starts_with("Duration:"));
    line.unwrap_or_else(|| panic!("no duration of {what}:\n{said}")).trim().to_owned()
}

/// Seconds of sound from where it seeks to. It may play a moment of the beginning before.
fn sought(p: &Playing, what: &str, seconds: usize) -> Vec<u8> {
    let (pipe, mut sound) = Sound::pipe(p.net.dir.path());
    let mut player = Command::new("gst-play-1.0");
    let form = "audioconvert dithering=none ! audioresample ! audio/x-raw,format=S16LE,rate=48000,channels=2";
    player.args(["--no-interactive", "--no-position", "--videosink=fakesink"]);
    player.arg(format!("--audiosink={form} ! filesink buffer-mode=unbuffered location={}", text(&pipe)));
    player.arg(format!("--start-position={SEEK}")).arg(what);
    let _player = Proc::start(player);
    sound.until(&[tones::tone_at(SEEK)], "the tone of where it sought to");
    sound.seconds(seconds)
}

#[test]
fn gstreamer_seeks() {
    if !have("ffmpeg") || !have("gst-play-1.0") {
        return;
    }
    let p = Playing::slow();
    let gateway = sought(&p, &p.url, 2);
    p.sought("GStreamer");
    // In a file on disk it seeks more exactly than behind HTTP.
    let file = sought(&p, &text(&p.file), 4);
    let second = &gateway[gateway.len() / 4..gateway.len() / 4 * 3];
    assert!(file.windows(second.len()).any(|w| w == second), "other sound than in the file");
}

/// Over HTTP it never asks for the last byte of a file (`bytes=…-(N-2)`), so it lacks the last page and says a little less
/// than of the file on disk, whoever serves it.
#[test]
fn gstreamer_knows_the_duration() {
    if !have("ffmpeg") || !have("gst-discoverer-1.0") {
        return;
    }
    let p = Playing::slow();
    let server = plain::Server::of(&p.file);
    assert_eq!(duration(&p.url), duration(&server.url), "another duration than from a plain web server");
}
