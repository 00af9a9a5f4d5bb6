//! Real players on `iceshare play`, each in a file of its own: of the gateway's URL it says what it says of the file, a
//! seek fetches what is sought, sound comes before the file.

mod codecs;
mod ffmpeg;
mod gstreamer;
mod mpv;
mod plain;
mod radio;
mod sound;
mod vlc;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use iceshare_tests::process::http_get;
use iceshare_tests::{Network, Proc};

use crate::tones;

/// The whole large file would take four minutes from such an origin.
const SLOW: &str = "100kB";
/// Parts of the large file, one after another, and seconds of each.
const PARTS: u32 = 16;
const PART: u32 = 50;
/// Where the players seek to in 800 s, in seconds.
const SEEK: u32 = 720;

fn run(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn output(program: &str, args: &[&str]) -> String {
    run(Command::new(program).args(args))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// 800 s of noise with the tones of [`tones`](crate::tones), 26 MB of constant 256 kbit/s Vorbis in pages of 200 ms: VLC seeks by the
/// nominal bitrate, so that must be the real one, and knows no duration where the last page is longer than 17 kB.
fn large(folder: &Path) -> PathBuf {
    static MADE: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = MADE.get_or_init(|| {
        let made = tempfile::tempdir().unwrap_or_else(|e| panic!("no temporary folder: {e}"));
        let (part, whole) = (text(&made.path().join("part.ogg")), text(&made.path().join("whole.ogg")));
        let (noise, tones) = (format!("anoisesrc=d={PART}:c=pink:r=48000:a=0.3:seed=7"), tones::source(PART));
        let mix = "[0][1]amix=inputs=2:normalize=0,aformat=channel_layouts=stereo";
        let (rate, copies) = ("256k", (PARTS - 1).to_string());
        let input =
            ["-v", "error", "-f", "lavfi", "-i", &noise, "-f", "lavfi", "-i", &tones, "-filter_complex", mix];
        let managed = ["-c:a", "libvorbis", "-b:a", rate, "-minrate", rate, "-maxrate", rate, &part];
        output("ffmpeg", &[&input[..], &managed].concat());
        let copy =
            ["-v", "error", "-stream_loop", &copies, "-i", &part, "-c", "copy", "-page_duration", "200000"];
        output("ffmpeg", &[&copy[..], &[&whole]].concat());
        std::fs::read(&whole).unwrap_or_else(|e| panic!("{whole}: {e}"))
    });
    assert!(bytes.len() > 25_000_000);
    let file = folder.join("large.ogg");
    std::fs::write(&file, bytes).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    file
}

/// A media that a publisher with a thin uplink shares, open in `iceshare play`.
struct Playing {
    url: String,
    file: PathBuf,
    play: Proc,
    _publisher: Proc,
    net: Network,
}

impl Playing {
    fn of(net: Network, file: PathBuf, up: &str) -> Playing {
        let (publisher, link) = net.publish("publisher", &file, &["--up", up]);
        let play = net.run("listener", &["play", &link]);
        let url = play.line("its http:// link", |l| l.starts_with("http://").then(|| l.trim().to_owned()));
        Playing { url, file, play, _publisher: publisher, net }
    }

    fn slow() -> Playing {
        let net = Network::new();
        let file = large(net.dir.path());
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

    /// Sound was heard from the beginning: the file was not waited for.
    fn barely_begun(&self, who: &str) {
        let pages = self.pages();
        let held = pages.iter().filter(|p| **p).count();
        eprintln!("{who}: the first sound with {held} of {} pages", pages.len());
        assert!(held < pages.len() / 4, "{who}: sound only after {held} of {} pages", pages.len());
    }
}
