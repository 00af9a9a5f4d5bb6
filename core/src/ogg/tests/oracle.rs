//! Beside other programs: the `ogg` crate, and ffmpeg's tools.

use std::io::Cursor;
use std::process::Command;

use super::fixtures::{FIXTURES, Fixture, follow, path, read};
use crate::ogg::page::packet_parts;
use crate::ogg::*;

/// Packets as we cut them: serial, bytes, granule position of the page where they end.
fn our_packets(file: &[u8]) -> Vec<(u32, Vec<u8>, Option<i64>)> {
    let mut open: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut packets = Vec::new();
    let mut splitter = Splitter::new();
    splitter.push(bytes::Bytes::copy_from_slice(file));
    while let Some(SplitEvent::Page { header, bytes }) = splitter.next() {
        for part in packet_parts(&bytes) {
            let at = open.iter().position(|(serial, _)| *serial == header.serial).unwrap_or_else(|| {
                open.push((header.serial, Vec::new()));
                open.len() - 1
            });
            open[at].1.extend_from_slice(part.data);
            if part.ends {
                packets.push((header.serial, open.swap_remove(at).1, header.granule));
            }
        }
    }
    packets
}

#[test]
fn the_ogg_crate_finds_the_same_packets() {
    // It refuses a serial number that comes again, as it may in a chain.
    let readable =
        |fixture: &&Fixture| fixture.damage.is_empty() && fixture.name != "chained-same-serial.opus";
    for fixture in FIXTURES.iter().filter(readable) {
        let file = read(fixture.name);
        let mut reader = ogg::PacketReader::new(Cursor::new(&file));
        let mut theirs = Vec::new();
        while let Some(packet) =
            reader.read_packet().unwrap_or_else(|error| panic!("{}: {error}", fixture.name))
        {
            let granule = i64::from_le_bytes(packet.absgp_page().to_le_bytes());
            theirs.push((packet.stream_serial(), packet.data.clone(), (granule != -1).then_some(granule)));
        }
        assert_eq!(our_packets(&file), theirs, "{}", fixture.name);
    }
}

#[test]
fn the_ogg_crate_finds_the_same_pages() {
    for fixture in FIXTURES.iter().filter(|fixture| fixture.damage.is_empty()) {
        let file = read(fixture.name);
        let (mut at, mut pages) = (0, 0);
        while let Some(header) = file[at..].first_chunk::<27>() {
            let (mut parser, segments) = ogg::reading::PageParser::new(*header).unwrap();
            let body = parser.parse_segments(file[at + 27..at + 27 + segments].to_vec());
            at += 27 + segments;
            parser.parse_packet_data(file[at..at + body].to_vec()).unwrap();
            at += body;
            pages += 1;
        }
        assert_eq!((pages, at), (fixture.pages, file.len()), "{}", fixture.name);
    }
}

/// The program, if it is installed; without it the test is skipped, unless nothing may be skipped.
fn program(name: &str) -> Option<Command> {
    let installed = Command::new(name).arg("-version").output().is_ok_and(|output| output.status.success());
    if !installed {
        let required = std::env::var_os("ICESHARE_REQUIRE_INTEROP").is_some_and(|value| value == "1");
        assert!(!required, "{name} is missing, and ICESHARE_REQUIRE_INTEROP=1");
        eprintln!("skipped: no {name}");
        return None;
    }
    Some(Command::new(name))
}

/// Microseconds by which other programs' durations may differ: ffprobe counts what a decoder drops at the beginning (Opus: 6.5 ms, Speex:
/// up to 20 ms).
const TOLERANCE: i64 = 25_000;

#[test]
fn ffprobe_tells_the_same_durations() {
    for fixture in FIXTURES {
        // Of chains it sees one link only; of cut-outs, some by their raw positions. Those are decoded below.
        let plain = fixture.links.len() == 1 && !fixture.name.starts_with("cut-out") && fixture.duration > 0;
        if !plain || !fixture.damage.is_empty() {
            continue;
        }
        let Some(mut ffprobe) = program("ffprobe") else { return };
        ffprobe
            .args(["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"])
            .arg(path(fixture.name));
        let output = String::from_utf8(ffprobe.output().unwrap().stdout).unwrap();
        let (seconds, fraction) = output.trim().split_once('.').unwrap_or_else(|| panic!("{output}"));
        let theirs = seconds.parse::<i64>().unwrap() * 1_000_000 + fraction.parse::<i64>().unwrap();
        let ours = follow(&read(fixture.name)).0.duration();
        assert!((ours - theirs).abs() <= TOLERANCE, "{}: {ours} µs, ffprobe {theirs} µs", fixture.name);
    }
}

#[test]
fn ffmpeg_decodes_as_much_from_chains_and_cut_outs() {
    for name in [
        "chained-vorbis.ogg",
        "chained-opus.opus",
        "chained-same-serial.opus",
        "cut-out-vorbis.ogg",
        "cut-out-opus.opus",
        "cut-out-flac.oga",
        "cut-out-speex.spx",
    ] {
        let Some(mut ffmpeg) = program("ffmpeg") else { return };
        ffmpeg.args(["-v", "error", "-nostdin", "-i"]).arg(path(name));
        ffmpeg.args(["-f", "s16le", "-ac", "1", "-ar", "48000", "-"]);
        let samples = i64::try_from(ffmpeg.output().unwrap().stdout.len() / 2).unwrap();
        let theirs = samples * 1_000_000 / 48_000;
        let ours = follow(&read(name)).0.duration();
        assert!((ours - theirs).abs() <= TOLERANCE, "{name}: {ours} µs, ffmpeg {theirs} µs");
    }
}
