//! Five minutes of a broadcast, with titles on the way, in every player: what it plays is compared with the source sample by sample. The
//! encoder sends five times as fast as it sounds, and no player minds.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use iceshare_tests::{Network, PATIENCE, Proc, have};

use super::{output, text, vlc};
use crate::source::{SECRET, link, say, station};
use crate::titles::samples;

const RATE: usize = 48_000;
/// Seconds of the source, and of those that a player must have played.
const SOURCE: usize = 330;
const HEARD: usize = 300;
/// Seconds after which decoders that came in the middle have forgotten that.
const SETTLED: usize = 10;
/// What decoders of one codec differ by: dither, and how they round.
const MOST: i32 = 3;
/// Seconds at which titles are set, for players who come after ten.
const TITLES: [u64; 4] = [40, 100, 180, 260];
const COME: u64 = 10;

const PLAYERS: [&str; 4] = ["ffmpeg", "mpv", "vlc", "gst-launch-1.0"];

/// A player that writes what it hears of `url` to a file: one channel of 16 bits.
fn player(program: &str, url: &str, folder: &Path) -> (Proc, PathBuf) {
    let raw = folder.join(format!("{program}.raw"));
    let to = text(&raw);
    let mut c = if program == "vlc" { vlc::command(folder) } else { Command::new(program) };
    match program {
        "ffmpeg" => {
            c.args(["-v", "error", "-nostdin", "-i", url, "-f", "s16le", "-ac", "1", "-ar", "48000"]).arg(&to)
        }
        "mpv" => {
            c.args(["--no-config", "--no-input-terminal", "--really-quiet", "--vo=null", "--ao=pcm"]);
            c.args(["--ao-pcm-waveheader=no", "--audio-format=s16", url]).arg(format!("--ao-pcm-file={to}"))
        }
        "vlc" => {
            let out = format!("std{{access=file,mux=raw,dst={to}}}");
            c.args(["-I", "dummy", "--no-metadata-network-access", url, "--sout"]);
            c.arg(format!("#transcode{{acodec=s16l,channels=1,samplerate=48000}}:{out}")).arg("vlc://quit")
        }
        _ => {
            let form = "audioconvert dithering=none ! audioresample ! audio/x-raw,format=S16LE,channels=1,rate=48000";
            c.args(["-q", "playbin", &format!("uri={url}")]);
            c.arg(format!("audio-sink={form} ! filesink sync=false location={to}"))
        }
    };
    (Proc::start(c), raw)
}

/// Where `heard` lies in `source`, if all of it does.
fn place(source: &[i32], heard: &[i32]) -> Option<usize> {
    let near = |a: &i32, b: &i32| (a - b).abs() <= MOST;
    let begin = heard.get(..256)?;
    source.windows(256).position(|w| w.iter().zip(begin).all(|(a, b)| near(a, b)))
}

/// Checks that a player heard the source from somewhere on to its end, and says nothing else.
fn compare(program: &str, codec: &str, source: &[i32], raw: &Path) {
    let heard = samples(&std::fs::read(raw).unwrap_or_else(|e| panic!("{program}: {e}")));
    let seconds = heard.len() / RATE;
    assert!(heard.len() < source.len() + RATE, "{program}, {codec}: {seconds} s of {SOURCE}");
    assert!(seconds >= HEARD, "{program}, {codec}: only {seconds} s");
    let heard = &heard[SETTLED * RATE..];
    let from = place(source, heard).unwrap_or_else(|| panic!("{program}, {codec}: no sound of the source"));
    // What an encoder's last packet has too much is not known of live media.
    let same = heard.iter().zip(&source[from..]).take_while(|(a, b)| (*a - *b).abs() <= MOST).count();
    assert!(
        same >= (source.len() - from).min(heard.len()),
        "{program}, {codec}: a gap, a repeat, or another sound {} s after it came in",
        SETTLED + same / RATE
    );
    assert!(same + SETTLED * RATE >= HEARD * RATE, "{program}, {codec}: only {} s", SETTLED + same / RATE);
    assert!(from + same + RATE / 2 > source.len(), "{program}, {codec}: the end is missing");
}

fn five_minutes(codec: &str, name: &str) {
    if !PLAYERS.into_iter().all(have) {
        return;
    }
    let net = Network::new();
    let file = net.path(name);
    let noise = format!("anoisesrc=d={SOURCE}:c=pink:r={RATE}:a=0.4:seed=11");
    let to = text(&file);
    output(
        "ffmpeg",
        &["-v", "error", "-f", "lavfi", "-i", &noise, "-c:a", codec, "-page_duration", "200000", &to],
    );
    let (mut station, door) = station(&net);
    let mut encoder = Command::new("ffmpeg");
    encoder.args([
        "-v",
        "error",
        "-nostdin",
        "-stats_period",
        "0.2",
        "-progress",
        "pipe:1",
        "-readrate",
        "5",
    ]);
    encoder.args(["-i", &to, "-c", "copy", "-page_duration", "200000", "-f", "ogg"]);
    encoder.arg(format!("icecast://source:s3cret@{door}/{name}"));
    let mut encoder = Proc::start(encoder);
    let sent = |encoder: &Proc, second: u64| {
        encoder.line(&format!("that {second} s are sent"), |l| {
            let us: u64 = l.strip_prefix("out_time_us=")?.trim().parse().ok()?;
            (us >= second * 1_000_000).then_some(())
        });
    };
    let url = link(&station);
    let play = net.run("listener", &["play", &url]);
    let url = play.line("its http:// link", |l| l.starts_with("http://").then(|| l.trim().to_owned()));
    sent(&encoder, COME);
    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("no temporary folder: {e}"));
    let open = std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777));
    open.unwrap_or_else(|e| panic!("{}: {e}", folder.path().display()));
    let mut players = PLAYERS.map(|p| (p, player(p, &url, folder.path())));
    for second in TITLES {
        sent(&encoder, second);
        let head = format!("GET /admin/metadata?mode=updinfo&song=at+{second} HTTP/1.0\n");
        let (_, said) = say(&door, &format!("{head}Authorization: Basic {SECRET}\n\n"), "</iceresponse>\n");
        assert!(said.contains("<return>1</return>"), "{said}");
        station.error_line("the title", |l| l.contains(&format!("now: at {second}")).then_some(()));
    }
    encoder.ends_with(0);
    station.signal("INT");
    station.end();
    for (program, (player, _)) in &mut players {
        let code = player.end_within(PATIENCE + Duration::from_secs(60));
        assert_eq!(code, Some(0), "{program}: {}", player.stderr());
    }
    let reference = net.path("reference.raw");
    output(
        "ffmpeg",
        &["-v", "error", "-i", &to, "-f", "s16le", "-ac", "1", "-ar", "48000", &text(&reference)],
    );
    let source = samples(&std::fs::read(reference).unwrap_or_else(|e| panic!("{e}")));
    for (program, (_, raw)) in &players {
        compare(program, codec, &source, raw);
    }
}

#[test]
fn five_minutes_of_vorbis() {
    five_minutes("libvorbis", "radio.ogg");
}

#[test]
fn five_minutes_of_opus() {
    five_minutes("libopus", "radio.opus");
}

#[test]
fn five_minutes_of_flac() {
    five_minutes("flac", "radio.oga");
}
