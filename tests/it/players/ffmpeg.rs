//! ffmpeg and ffprobe.

use std::process::Command;

use iceshare_tests::{Network, Proc, have};

use super::{Playing, SEEK, output, text};

/// The duration in seconds by ffprobe.
fn seconds(what: &str) -> String {
    output("ffprobe", &["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", what])
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
    assert_eq!(seconds(&p.url), seconds(&text(&p.file)), "another duration than the file's");
    let at = SEEK.to_string();
    let part = |what: &str| md5(&["-ss", &at, "-i", what, "-t", "2"]);
    assert_eq!(part(&p.url), part(&text(&p.file)), "other sound than in the file");
    p.sought("ffmpeg");
}

#[test]
fn ffmpeg_has_sound_after_the_first_pages() {
    if !have("ffmpeg") {
        return;
    }
    let mut p = Playing::slow();
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-nostdin", "-stats_period", "0.1", "-progress", "pipe:1", "-i", &p.url]);
    ffmpeg.args(["-f", "null", "-"]);
    let player = Proc::start(ffmpeg);
    player.line("a second of sound", |l| {
        l.strip_prefix("out_time_us=")?.trim().parse().ok().filter(|t: &i64| *t >= 1_000_000)
    });
    p.barely_begun("ffmpeg");
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
