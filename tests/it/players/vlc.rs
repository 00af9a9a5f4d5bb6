//! VLC, driven over its remote control.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use iceshare_tests::{PATIENCE, Proc, have};
use tempfile::TempDir;

use super::sound::Sound;
use super::{Playing, SEEK, large, text};
use crate::tones::tone_at;

/// VLC refuses to be root: then it is nobody, in a folder where nobody may write.
pub(super) fn command(folder: &Path) -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
    let mut vlc = Command::new(if root { "setpriv" } else { "vlc" });
    if root {
        vlc.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "vlc"]);
    }
    vlc.env("HOME", folder).env("XDG_RUNTIME_DIR", folder);
    vlc
}

struct Vlc {
    control: BufReader<UnixStream>,
    sound: Sound,
    process: Proc,
    _folder: TempDir,
}

impl Vlc {
    /// Plays `what`, or the large file if it is none, at the pace of its clock.
    fn start(what: Option<&str>) -> Vlc {
        let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("no temporary folder: {e}"));
        let open = std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777));
        open.unwrap_or_else(|e| panic!("{}: {e}", folder.path().display()));
        let (pipe, sound) = Sound::pipe(folder.path());
        let socket = folder.path().join("control");
        let mut vlc = command(folder.path());
        vlc.args(["-I", "oldrc", "--rc-fake-tty", "--rc-unix", &text(&socket)]);
        vlc.args(["--no-metadata-network-access", "--play-and-exit", "--vout", "vdummy", "--aout", "afile"]);
        vlc.args(["--no-audiofile-wav", "--audiofile-format", "s16", "--audiofile-channels", "2"]);
        vlc.args(["--audiofile-file", &text(&pipe)]);
        vlc.arg(what.map_or_else(|| text(&large(folder.path())), str::to_owned));
        let process = Proc::start(vlc);
        process.line("that it listens", |l| l.contains("interface initialized").then_some(()));
        let control = UnixStream::connect(&socket).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
        control.set_read_timeout(Some(PATIENCE)).unwrap_or_else(|e| panic!("{}: {e}", socket.display()));
        Vlc { control: BufReader::new(control), sound, process, _folder: folder }
    }

    fn command(&mut self, command: &str) {
        let sent = self.control.get_mut().write_all(format!("{command}\n").as_bytes());
        sent.unwrap_or_else(|e| panic!("vlc: {e}"));
    }

    /// What it answers with a number, between lines of other news.
    fn number(&mut self, question: &str) -> u64 {
        self.command(question);
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let read = self.control.read_line(&mut line);
            assert!(
                read.is_ok_and(|n| n > 0),
                "vlc did not answer {question}; it said:\n{said}{}{}",
                self.process.stdout(),
                self.process.stderr()
            );
            if let Ok(n) = line.trim().parse() {
                return n;
            }
            said += &line;
        }
    }

    /// Hears the beginning, asks for the length, seeks and hears the sound there; the length in seconds.
    fn seek(&mut self) -> u64 {
        self.sound.until(&[tone_at(0)], "the first tone");
        let length = loop {
            let length = self.number("get_length");
            if length > 0 {
                break length;
            }
            self.sound.window();
        };
        // In the middle of a tone; it may land in the one before, since the real bitrate is one per cent above the nominal.
        let to = SEEK + 2;
        self.command(&format!("seek {to}"));
        self.sound.until(&[tone_at(to - 5), tone_at(to)], "the tones of where it sought to");
        length
    }
}

#[test]
fn vlc_knows_the_duration_and_seeks() {
    if !have("ffmpeg") || !have("vlc") {
        return;
    }
    let p = Playing::slow();
    let mut vlc = Vlc::start(Some(&p.url));
    let length = vlc.seek();
    p.sought("VLC");
    let at = vlc.number("get_time");
    assert!((u64::from(SEEK)..u64::from(SEEK) + 30).contains(&at), "at {at} s after a seek to {SEEK} s");
    vlc.command("quit");
    vlc.process.ends_with(0);
    assert_eq!(length, Vlc::start(None).seek(), "another duration than the file's");
}
