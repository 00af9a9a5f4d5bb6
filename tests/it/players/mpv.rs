//! mpv, driven over its JSON IPC.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Instant;

use iceshare_tests::{PATIENCE, Proc, have};
use serde_json::{Value, json};

use super::sound::Sound;
use super::{Playing, SEEK, text};
use crate::tones;

struct Mpv {
    ipc: BufReader<UnixStream>,
    sound: Sound,
    process: Proc,
}

impl Mpv {
    /// Starts it without media. What it plays, as fast as it can, goes to [`Sound`].
    fn start(p: &Playing, args: &[&str]) -> Mpv {
        let (pipe, sound) = Sound::pipe(p.net.dir.path());
        let socket = p.net.path("mpv");
        let mut mpv = Command::new("mpv");
        mpv.args(["--no-config", "--no-input-terminal", "--msg-level=all=error,ipc=v", "--idle=yes"]);
        mpv.args(["--vo=null", "--ao=pcm", "--ao-pcm-waveheader=no", "--audio-format=s16"]);
        mpv.arg(format!("--ao-pcm-file={}", text(&pipe)))
            .arg(format!("--input-ipc-server={}", text(&socket)));
        let process = Proc::start({
            mpv.args(args);
            mpv
        });
        process.line("that it listens", |l| l.contains("Listening to IPC socket").then_some(()));
        let ipc = UnixStream::connect(&socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
        Mpv { ipc: BufReader::new(ipc), sound, process }
    }

    fn command(&mut self, command: &Value) {
        let line = format!("{}\n", json!({ "command": command }));
        self.ipc.get_mut().write_all(line.as_bytes()).unwrap_or_else(|e| panic!("mpv: {e}"));
    }

    /// Waits for what `f` finds in an answer or event.
    fn until<T>(&mut self, what: &str, f: impl Fn(&Value) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut said = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut line = String::new();
            let read =
                self.ipc.get_ref().set_read_timeout(Some(left)).and_then(|()| self.ipc.read_line(&mut line));
            assert!(
                read.is_ok_and(|n| n > 0),
                "mpv never said {what}; it said:\n{said}{}{}",
                self.process.stdout(),
                self.process.stderr()
            );
            let value: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
            if let Some(found) = f(&value) {
                return found;
            }
            said += &line;
        }
    }

    fn event(&mut self, name: &str) -> Value {
        self.until(name, |m| (m["event"] == name).then(|| m.clone()))
    }
}

/// What mpv says and plays when it opens a media, seeks in it and plays two seconds from there.
#[derive(Debug, PartialEq)]
struct Sought {
    duration: f64,
    at: f64,
    sound: Vec<u8>,
}

fn seek(p: &Playing, what: &str) -> Sought {
    let mut mpv = Mpv::start(p, &["--pause", &format!("--end={}", SEEK + 2)]);
    mpv.command(&json!(["observe_property", 1, "duration"]));
    mpv.command(&json!(["loadfile", what]));
    let duration = mpv.until("the duration", |m| (m["name"] == "duration").then(|| m["data"].as_f64())?);
    mpv.event("playback-restart");
    mpv.command(&json!(["seek", SEEK, "absolute+exact"]));
    mpv.event("playback-restart");
    mpv.command(&json!(["get_property", "time-pos"]));
    let at = mpv.until("where it is", |m| m["data"].as_f64());
    mpv.command(&json!(["set_property", "pause", false]));
    assert_eq!(mpv.event("end-file")["reason"], "eof");
    mpv.command(&json!(["quit"]));
    // More than there should be: then they differ.
    let sound = mpv.sound.seconds(10);
    mpv.process.ends_with(0);
    Sought { duration, at, sound }
}

#[test]
fn mpv_knows_the_duration_and_seeks() {
    if !have("ffmpeg") || !have("mpv") {
        return;
    }
    let p = Playing::slow();
    let gateway = seek(&p, &p.url);
    p.sought("mpv");
    let file = seek(&p, &text(&p.file));
    assert_eq!(
        (gateway.duration, gateway.at),
        (file.duration, file.at),
        "duration and place, not the file's"
    );
    assert!((f64::from(SEEK) - gateway.at).abs() < 0.5, "at {} s after a seek to {SEEK} s", gateway.at);
    assert_eq!(tones::tones(&gateway.sound), [tones::tone_at(SEEK)], "the sound of another place");
    assert!(gateway.sound == file.sound, "other sound than in the file");
}

#[test]
fn mpv_has_sound_after_the_first_pages() {
    if !have("ffmpeg") || !have("mpv") {
        return;
    }
    let p = Playing::slow();
    let mut mpv = Mpv::start(&p, &[]);
    mpv.command(&json!(["loadfile", p.url]));
    mpv.sound.until(&[tones::tone_at(0)], "the first tone");
    p.barely_begun("mpv");
}
