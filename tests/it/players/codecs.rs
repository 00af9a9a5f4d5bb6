//! A source that goes on with another codec, and players that are started again there.

use std::path::{Path, PathBuf};
use std::process::Command;

use iceshare_tests::{Network, have};

use super::text;
use crate::live::broadcast;
use crate::titles::samples;

const MONO: [&str; 6] = ["-f", "s16le", "-ac", "1", "-ar", "48000"];
/// What resampling and rounding may do to a sample of 16 bits.
const MOST: i32 = 3;

fn ffmpeg(args: &[&str]) {
    let made = Command::new("ffmpeg").args(["-v", "error", "-nostdin", "-y"]).args(args).status();
    assert!(made.is_ok_and(|s| s.success()), "ffmpeg {args:?}");
}

/// What a player heard, in the order of its runs.
fn heard(folder: &Path, player: &str) -> Vec<Vec<i32>> {
    let files = std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("a file").path());
    let mut files: Vec<PathBuf> =
        files.filter(|f| f.file_name().is_some_and(|n| n.to_string_lossy().starts_with(player))).collect();
    files.sort_by_key(|f| f.metadata().and_then(|m| m.modified()).expect("a time"));
    files.iter().map(|f| samples(&std::fs::read(f).expect("heard"))).collect()
}

#[test]
fn players_are_started_again_where_the_codec_changes() {
    if !["ffmpeg", "mpv"].into_iter().all(have) {
        return;
    }
    let network = Network::new();
    let (first, second) = (network.path("first.opus"), network.path("second.ogg"));
    let tone = |hertz: u32| format!("aevalsrc=0.4*sin(2*PI*({hertz}+30*t)*t):d=12:s=48000");
    let encode = |hertz, codec: &str, file: &Path| {
        let form = ["-f", "lavfi", "-i", &tone(hertz), "-c:a", codec, "-page_duration", "200000"];
        ffmpeg(&[&form[..], &[&text(file)]].concat());
    };
    encode(200, "libopus", &first);
    encode(300, "libvorbis", &second);
    let source = network.path("source.ogg");
    let bytes = [&first, &second].map(|f| std::fs::read(f).expect("made")).concat();
    std::fs::write(&source, bytes).expect("written");
    let whole = network.path("whole.raw");
    ffmpeg(&[&["-i", &text(&second)][..], &MONO[..], &[&text(&whole)]].concat());
    let whole = samples(&std::fs::read(&whole).expect("decoded"));

    let folder = network.path("heard");
    std::fs::create_dir(&folder).expect("a folder");
    let (mut station, url) = broadcast(&network, "station", &source, &[]);
    let to = |player: &str| format!("{}/{player}-$$.raw", folder.display());
    let mono = MONO.join(" ");
    let mpv = "mpv --no-config --no-input-terminal --really-quiet --vo=null --ao=pcm --ao-pcm-waveheader=no --audio-format=s16";
    let commands = [
        ("ffmpeg", format!("exec ffmpeg -v error -nostdin -i {{}} {mono} {}", to("ffmpeg"))),
        ("mpv", format!("exec {mpv} {{}} --ao-pcm-file={}", to("mpv"))),
    ];
    let mut plays = commands.map(|(player, command)| {
        let command = format!("sh -c '{command}'");
        (player, network.run(player, &["play", &url, "--player", &command]))
    });
    station.error_line("that the codec changes", |l| {
        l.contains("the source sends vorbis now, opus before").then_some(())
    });
    for (player, play) in &mut plays {
        play.ends_with(0);
        let said = play.stderr();
        assert_eq!(said.matches("the player is started again").count(), 1, "{player}: {said}");
        let heard = heard(&folder, player);
        assert_eq!(heard.len(), 2, "{player}: {said}");
        assert!(heard[0].len() > 48_000, "{player} heard {} samples of the first", heard[0].len());
        let apart = whole.iter().zip(&heard[1]).map(|(a, b)| (a - b).abs()).max();
        // From a stream that cannot be sought, the last block of Vorbis may sound to its end.
        let more = heard[1].len().checked_sub(whole.len());
        assert!(
            more.is_some_and(|more| more < 1024),
            "{player}: all of the second, and nothing else: {more:?} samples more"
        );
        assert!(apart.is_some_and(|a| a <= MOST), "{player}: {apart:?}");
    }
    station.ends_with(0);
}
