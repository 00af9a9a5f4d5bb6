//! `--page-time`: shorter pages with the same packets, through which decoders hear the same; and ends that validators accept.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use iceshare::live::Repage;
use iceshare::ogg::page::packet_parts;
use iceshare::ogg::{PageHeader, SplitEvent, Splitter, Timeline};
use iceshare_tests::{Network, PATIENCE, have};

use crate::live::until;
use crate::source::{SECRET, encoder, is_of_the_tone, link, say, station_with};

fn pages(file: &Path) -> Vec<Bytes> {
    let mut splitter = Splitter::new();
    splitter.push(std::fs::read(file).expect("a file").into());
    let mut pages = Vec::new();
    while let Some(event) = splitter.next() {
        let SplitEvent::Page { bytes, .. } = event else { panic!("{}: {event:?}", file.display()) };
        pages.push(bytes);
    }
    pages
}

fn repaged(file: &Path, page_time: Duration) -> PathBuf {
    let (mut repage, mut out) = (Repage::new(page_time), Vec::new());
    for page in pages(file) {
        let header = PageHeader::parse(&page).expect("a page");
        repage.page(&header, page).iter().for_each(|(_, p)| out.extend_from_slice(p));
    }
    repage.end().iter().for_each(|(_, p)| out.extend_from_slice(p));
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    let to = file.with_file_name(format!("short.{name}"));
    std::fs::write(&to, out).expect("written");
    to
}

/// The longest page of each logical stream that has times, the last ones left out, in milliseconds.
fn longest(file: &Path) -> Vec<i64> {
    let (mut timeline, mut ends, mut longest) = (Timeline::new(), Vec::new(), Vec::new());
    for page in pages(file) {
        let header = PageHeader::parse(&page).expect("a page");
        let place = timeline.page(&header, &page);
        let streams = &timeline.link().expect("a link").streams;
        ends.resize(streams.len(), 0);
        longest.resize(streams.len(), 0);
        let end = streams[place.stream].end;
        if !place.setup && !header.eos {
            longest[place.stream] = longest[place.stream].max((end - ends[place.stream]) / 1000);
        }
        ends[place.stream] = end;
    }
    longest
}

/// What ffmpeg decodes, as players do: from a pipe.
fn decoded(file: &Path, what: &[&str]) -> Vec<u8> {
    let mut c = Command::new("ffmpeg");
    c.args(["-v", "error", "-i", "pipe:0"]).args(what).arg("-");
    let out = c.stdin(File::open(file).expect("a file")).output().expect("ffmpeg");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.is_empty(), "{}: {said}", file.display());
    out.stdout
}

const SOUND: [&str; 4] = ["-map", "0:a", "-f", "s16le"];
/// Each picture with its time.
const PICTURES: [&str; 4] = ["-map", "0:v", "-f", "framemd5"];

fn made(network: &Network, name: &str, args: &[&str]) -> PathBuf {
    let file = network.path(name);
    let mut c = Command::new("ffmpeg");
    c.args([
        "-v",
        "error",
        "-y",
        "-f",
        "lavfi",
        "-i",
        "aevalsrc=0.4*sin(2*PI*(200+30*t)*t)|0.3*sin(900*t*t):d=9:s=48000",
    ]);
    assert!(c.args(args).arg(&file).status().is_ok_and(|s| s.success()), "{name}");
    file
}

#[test]
fn decoders_hear_and_see_the_same_in_shorter_pages() {
    if !["ffmpeg", "oggz-validate"].into_iter().all(have) {
        return;
    }
    let network = Network::new();
    let video = [
        "-f",
        "lavfi",
        "-i",
        "testsrc=d=9:s=160x120:r=25",
        "-c:v",
        "libtheora",
        "-g",
        "40",
        "-c:a",
        "libvorbis",
    ];
    for (name, args, most) in [
        ("a.opus", &["-c:a", "libopus"][..], &[200][..]),
        ("b.opus", &["-c:a", "libopus", "-frame_duration", "60", "-b:a", "256k"], &[200]),
        ("a.ogg", &["-c:a", "libvorbis"], &[200]),
        ("b.ogg", &["-c:a", "libvorbis", "-q:a", "10"], &[200]),
        ("a.oga", &["-c:a", "flac"], &[200]),
        ("a.spx", &["-ar", "16000", "-ac", "1", "-c:a", "libspeex"], &[200]),
        ("a.ogv", &video, &[200, 200]),
    ] {
        let long = made(&network, name, args);
        let short = repaged(&long, Duration::from_millis(200));
        assert!(longest(&long).iter().all(|ms| *ms > 300), "{name}: {:?}", longest(&long));
        let now = longest(&short);
        assert!(
            now.len() == most.len() && now.iter().zip(most).all(|(n, m)| n <= m && *n > 100),
            "{name}: {now:?}"
        );
        assert!(decoded(&long, &SOUND) == decoded(&short, &SOUND), "{name}: another sound");
        if most.len() > 1 {
            assert!(decoded(&long, &PICTURES) == decoded(&short, &PICTURES), "{name}: other pictures");
        }
        // (Of Speex it does not know how long packets are.)
        if !name.ends_with("spx") {
            valid(&short);
        }
    }
}

#[test]
fn positions_are_those_that_an_encoder_writes_itself() {
    if !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    // For each packet that ends a page: its number and the page's position.
    let positions = |file: &Path| {
        let mut packets = 0_usize;
        let mut all = Vec::new();
        for page in pages(file) {
            let header = PageHeader::parse(&page).expect("a page");
            packets += packet_parts(&page).filter(|p| p.ends).count();
            all.extend(header.granule.map(|g| (packets, g)));
        }
        all
    };
    for codec in ["libopus", "libvorbis", "flac"] {
        let bits = ["-fflags", "+bitexact", "-c:a", codec];
        let long = made(&network, &format!("long.{codec}.ogg"), &bits);
        let fine =
            made(&network, &format!("fine.{codec}.ogg"), &[&bits[..], &["-page_duration", "1"]].concat());
        let ours = positions(&repaged(&long, Duration::from_millis(110)));
        let theirs = positions(&fine);
        assert!(ours.len() > 60 && theirs.len() >= ours.len(), "{codec}: {} pages", ours.len());
        // (The last page may have a packet of nothing more.)
        for position in ours.into_iter().rev().skip(1) {
            assert!(theirs.contains(&position), "{codec}: {position:?}");
        }
    }
}

#[test]
fn an_encoder_s_pages_are_broadcast_in_shorter_ones() {
    if !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let (station, door) = station_with(&network, &["--page-time", "110ms"]);
    let _encoder = encoder("s3cret", &door);
    let (mut listener, out) = network.get("listener", &link(&station), &["--for", "4s"]);
    listener.ends_with(0);
    assert!(longest(&out)[0] <= 110, "{:?}", longest(&out));
    is_of_the_tone(&network, &out, 4);
}

/// What has to say of a file who looks for mistakes.
fn valid(file: &Path) {
    let text = file.to_string_lossy().into_owned();
    for program in ["oggz-validate", "opusinfo", "ogginfo"] {
        let fits = match program {
            "opusinfo" => text.ends_with(".opus"),
            // (It dislikes the packet of nothing with which ffmpeg ends FLAC.)
            "ogginfo" => !text.ends_with(".opus") && !text.ends_with(".oga"),
            _ => true,
        };
        if !fits || !have(program) {
            continue;
        }
        let out = Command::new(program).arg(file).output().expect("a validator");
        let said = [out.stdout, out.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let bad = said.lines().find(|l| l.contains("WARNING") || l.contains("rror") || l.contains("buggy"));
        assert!(out.status.success() && bad.is_none(), "{program} of {text}: {said}");
    }
}

#[test]
fn a_link_that_an_encoder_leaves_has_an_end_and_validators_find_nothing() {
    if !["ffmpeg", "oggz-validate"].into_iter().all(have) {
        return;
    }
    for (codec, name) in [("libopus", "kept.opus"), ("libvorbis", "kept.ogg")] {
        let network = Network::new();
        let source = std::fs::read(made(&network, "source.ogg", &["-c:a", codec])).expect("a file");
        let kept = network.path(name);
        let keep = kept.to_string_lossy().into_owned();
        let (mut station, door) = station_with(&network, &["--keep", &keep]);
        let head = format!("SOURCE /live HTTP/1.0\nAuthorization: Basic {SECRET}\n\n");
        let size = || std::fs::metadata(&kept).map_or(0, |m| m.len());
        let set = |song: &str| {
            let at = format!("GET /admin/metadata?mode=updinfo&song={song} HTTP/1.0\n");
            say(&door, &format!("{at}Authorization: Basic {SECRET}\n\n"), "</iceresponse>\n").1
        };
        // One that breaks off in the middle of a page; one with titles that ends as it should.
        for (part, titles) in [(source.len() * 2 / 3, false), (source.len(), true)] {
            let before = size();
            let (mut stream, said) = say(&door, &head, "\r\n\r\n");
            assert!(said.contains("200 OK"), "{said}");
            let (first, rest) = source[..part].split_at(source.len() / 3);
            stream.write_all(first).expect("taken");
            until("it is kept", || size() > before + 10_000);
            if titles {
                let said = set("one+more");
                assert!(said.contains("<return>1</return>"), "{said}");
            }
            stream.write_all(rest).expect("taken");
            stream.shutdown(Shutdown::Write).expect("an end");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let _ = stream.read(&mut [0; 64]);
        }
        let said = |what| station.stderr().matches(what).count();
        until("the end of both", || {
            said("broke off in the middle") == 1 && said("has ended its stream") == 1
        });
        station.signal("INT");
        station.error_line_within(Duration::from_secs(60), "a file", |l| {
            l.contains("sharing 1 file").then_some(())
        });
        let all = pages(&kept);
        let flags = all.iter().map(|p| PageHeader::parse(p).expect("a page")).collect::<Vec<_>>();
        let count = |f: fn(&PageHeader) -> bool| flags.iter().filter(|h| f(h)).count();
        assert_eq!((count(|h| h.bos), count(|h| h.eos)), (3, 3), "{codec}: links and their ends");
        for (before, next) in flags.iter().zip(&flags[1..]) {
            assert_eq!(before.eos, next.bos, "{codec}: a link begins where one ended");
        }
        valid(&kept);
        station.signal("TERM");
        station.end();
    }
}
