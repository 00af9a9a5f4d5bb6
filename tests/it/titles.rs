//! Titles that come beside a stream: links of their own, through which the sound goes on as if nothing had happened.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use iceshare::live::Titles;
use iceshare::ogg::page::seal;
use iceshare::ogg::{SplitEvent, Splitter, Timeline};
use iceshare_tests::{Network, Proc, have};

use crate::source::{SECRET, encoder, link, say, station, tone};

/// The pages of a file, of which titles are set before those with these numbers.
fn with_titles(from: &Path, to: &Path, titles: &[usize]) {
    let mut splitter = Splitter::new();
    splitter.push(std::fs::read(from).expect("a file").into());
    let (mut t, mut out, mut number, mut links) = (Titles::default(), Vec::new(), 0, 0_u32);
    while let Some(event) = splitter.next() {
        let SplitEvent::Page { header, bytes } = event else { panic!("{event:?}") };
        if titles.contains(&number) {
            t.set(vec![("TITLE".to_owned(), format!("before page {number}"))]).expect("a title");
        }
        for (header, page) in t.page(&header, bytes) {
            // A broadcast gives each link a serial number of its own.
            links += u32::from(header.bos);
            let mut page = page.to_vec();
            page[14..18].copy_from_slice(&links.to_le_bytes());
            seal(&mut page);
            out.extend_from_slice(&page);
        }
        number += 1;
    }
    std::fs::write(to, out).expect("written");
}

/// The titles of a file's links.
fn titles(file: &Path) -> Vec<String> {
    let mut splitter = Splitter::new();
    splitter.push(Bytes::from(std::fs::read(file).expect("a file")));
    let (mut timeline, mut titles) = (Timeline::new(), Vec::<String>::new());
    while let Some(event) = splitter.next() {
        let SplitEvent::Page { header, bytes } = event else { panic!("{event:?}") };
        timeline.page(&header, &bytes);
        let title = timeline.link_comments().and_then(|c| c.title());
        if title.is_some_and(|t| titles.last().is_none_or(|last| last != t)) {
            titles.extend(title.map(str::to_owned));
        }
    }
    titles
}

pub(crate) fn samples(bytes: &[u8]) -> Vec<i32> {
    bytes.as_chunks::<2>().0.iter().map(|s| i16::from_le_bytes(*s).into()).collect()
}

/// What ffmpeg hears as players do: from a pipe, with no end to look for.
fn ffmpeg(file: &Path) -> Vec<i32> {
    let mut c = Command::new("ffmpeg");
    c.args(["-v", "fatal", "-i", "pipe:0", "-f", "s16le", "-"]);
    let out = c.stdin(File::open(file).expect("a file")).output().expect("ffmpeg");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    samples(&out.stdout)
}

fn decoder(program: &str, args: &[&str], file: &Path) -> Vec<i32> {
    let raw = file.with_extension("raw");
    let text = |p: &Path| p.to_string_lossy().into_owned();
    let args = args.iter().map(|a| match *a {
        "IN" => text(file),
        "OUT" => text(&raw),
        a => a.to_owned(),
    });
    let out = Command::new(program).args(args).output().expect("a decoder");
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    samples(&std::fs::read(raw).expect("decoded"))
}

type Decoder = fn(&Path) -> Vec<i32>;

/// A rising tone of 12 s with five titles on the way sounds as without. The largest difference.
fn difference(network: &Network, codec: &str, hear: Decoder) -> i32 {
    let (plain, titled) =
        (network.path(&format!("plain.{codec}.ogg")), network.path(&format!("titled.{codec}.ogg")));
    let rising = "aevalsrc=0.4*sin(2*PI*(200+30*t)*t)|0.3*sin(2*PI*(300+50*t)*t):d=12:s=48000";
    let mut c = Command::new("ffmpeg");
    c.args(["-v", "error", "-y", "-f", "lavfi", "-i", rising, "-c:a", codec, "-page_duration", "200000"]);
    assert!(c.arg(&plain).status().is_ok_and(|s| s.success()));
    let at = [9, 10, 20, 31, 42];
    with_titles(&plain, &titled, &at);
    assert_eq!(titles(&titled), at.map(|n| format!("before page {n}")));
    let (plain, titled) = (hear(&plain), hear(&titled));
    assert!(plain.len() >= 2 * 570_000, "{} samples", plain.len());
    assert_eq!(plain.len(), titled.len(), "{codec}: a gap or a repeat");
    plain.iter().zip(&titled).map(|(a, b)| (a - b).abs()).max().unwrap_or(0)
}

#[test]
fn decoders_hear_five_titles_go_by_without_a_gap_or_a_repeat() {
    if !["ffmpeg", "oggdec", "opusdec"].into_iter().all(have) {
        return;
    }
    let network = Network::new();
    let oggdec: Decoder = |f| decoder("oggdec", &["-Q", "-R", "-o", "OUT", "IN"], f);
    let opusdec: Decoder =
        |f| decoder("opusdec", &["--quiet", "--rate", "48000", "--no-dither", "IN", "OUT"], f);
    // Sample by sample.
    assert_eq!(difference(&network, "libvorbis", oggdec), 0);
    assert_eq!(difference(&network, "flac", ffmpeg), 0);
    // A decoder of Opus comes from another state, and has nearly, but not quite, lost it after 400 ms: up to some 10 of 32768.
    for hear in [opusdec, ffmpeg as Decoder] {
        let most = difference(&network, "libopus", hear);
        assert!(most <= 16, "{most}");
    }
}

#[test]
fn a_title_that_an_encoder_s_user_sets_is_in_the_stream() {
    if !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let (station, door) = station(&network);
    let set = |song: &str| {
        let at = format!("GET /admin/metadata?mode=updinfo&mount=/live.oga&song={song} HTTP/1.0\n");
        say(&door, &format!("{at}Authorization: Basic {SECRET}\n\n"), "</iceresponse>\n").1
    };
    assert!(set("too+early").contains("<return>0</return>"), "nobody is on the air");
    let _encoder = encoder("s3cret", &door);
    let (mut listener, out) = network.get("listener", &link(&station), &["--for", "8s"]);
    let deadline = std::time::Instant::now() + iceshare_tests::PATIENCE;
    let heard = |bytes: u64| {
        while std::fs::metadata(&out).map_or(0, |m| m.len()) < bytes {
            assert!(std::time::Instant::now() < deadline, "nothing is heard");
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
    };
    heard(4_000);
    let long = "x".repeat(2000);
    for song in ["one", "t%C3%BCo+%26+more", "abc%E2%80%AEgpj.exe", &long] {
        let said = set(song);
        assert!(said.contains("<return>1</return>"), "{said}");
        let more = std::fs::metadata(&out).map_or(0, |m| m.len()) + 4_000;
        heard(more);
    }
    let (_, said) = say(&door, "GET /admin/metadata?mode=updinfo&song=x HTTP/1.0\n\n", "\n\n");
    assert!(said.starts_with("HTTP/1.1 401 "), "{said}");
    listener.ends_with(0);
    assert_eq!(titles(&out), ["one", "tüo & more", "abcgpj.exe", &long[..256]]);
    // What is too long for heads is cut, and not left out.
    listener.error_line("the long title", |l| l.starts_with("now: xxx").then_some(()));
    let (sound, whole) = (ffmpeg(&out), ffmpeg(&tone(&network)));
    assert!(sound.len() >= 8 * 16_000, "{} samples", sound.len());
    let from = whole.windows(64).position(|w| *w == sound[..64]).expect("a place in the tone");
    assert!(whole[from..].starts_with(&sound), "a gap, a repeat, or another sound");
}

#[test]
fn a_player_that_wants_one_stream_gets_one_with_titles_beside_it() {
    if !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let (station, door) = station(&network);
    let mut first = encoder("s3cret", &door);
    let play = network.run("listener", &["play", &link(&station)]);
    let url = play.line("its http:// link", |l| l.starts_with("http://").then(|| l.trim().to_owned()));
    let flat = format!("{url}?chain=flat");
    let (at, path) = flat.trim_start_matches("http://").split_once('/').expect("a path");
    // A player that asks for titles between the bytes, and ffmpeg, which does so too.
    let ask = format!("GET /{path} HTTP/1.0\nHost: {at}\nIcy-MetaData: 1\n\n");
    let (mut player, head) = say(at, &ask, "\r\n\r\n");
    assert!(head.contains("200 OK") && head.contains("icy-metaint: 16000"), "{head}");
    // By the link as it is, the same as far as nothing else begins.
    let plain = ask.replace("?chain=flat", "");
    let (mut other_player, head) = say(at, &plain, "\r\n\r\n");
    assert!(head.contains("200 OK") && head.contains("icy-metaint: 16000"), "{head}");
    let raw = network.path("heard.raw");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i", &flat, "-t", "10", "-f", "s16le", "-y"]).arg(&raw);
    let mut ffmpeg = Proc::start(ffmpeg);
    let (mut all, mut block) = (Vec::new(), [0; 4096]);
    for song in ["one", "two"] {
        let head = format!("GET /admin/metadata?mode=updinfo&song={song} HTTP/1.0\n");
        let (_, said) = say(&door, &format!("{head}Authorization: Basic {SECRET}\n\n"), "</iceresponse>\n");
        assert!(said.contains("<return>1</return>"), "{said}");
        while !String::from_utf8_lossy(&all).contains(&format!("StreamTitle='{song}';")) {
            let n = player.read(&mut block).expect("more");
            assert!(n > 0, "it ends before title {song}");
            all.extend_from_slice(&block[..n]);
        }
    }
    ffmpeg.ends_with(0);
    assert_eq!(ffmpeg.stderr(), "");
    let (heard, whole) = (samples(&std::fs::read(&raw).expect("heard")), self::ffmpeg(&tone(&network)));
    assert!(heard.len() >= 10 * 16_000 - 4_096, "{} samples", heard.len());
    let from = whole.windows(64).position(|w| *w == heard[..64]).expect("a place in the tone");
    assert!(whole[from..].starts_with(&heard), "a gap, a repeat, or another sound");
    // What else is there says it, too.
    let page = url.rsplit_once('/').expect("a path").0.trim_start_matches("http://").to_owned();
    let (_, token) = page.split_once('/').expect("a token");
    let table = iceshare_tests::process::http_get(at, &format!("/{token}/table.json"));
    assert!(table.contains("\"now\":\"two\"") && table.contains("\"live\":true"), "{table}");
    // A head is told once a second.
    crate::live::until("the tracker knows what is on", || {
        let api = network.tracker.get("/api/media/radio/one");
        assert!(!api.contains("pages_held"), "{api}");
        api.contains("\"now\":\"two\"")
    });
    let info = network.run("asker", &["info", &link(&station)]);
    info.line("what is on", |l| l.strip_prefix("on now").map(|t| assert_eq!(t.trim(), "two")));

    // At another rate the one ends, and for the other a link begins, the second in all.
    first.signal("INT");
    first.end();
    let encode = |args: &[&str], name: &str| {
        let mut c = Command::new("ffmpeg");
        c.args(["-v", "error", "-re", "-f", "lavfi", "-i", "sine=330:sample_rate=48000"]).args(args);
        c.args(["-f", "ogg", "-content_type", "audio/ogg"]);
        c.arg(format!("icecast://source:s3cret@{door}/{name}"));
        Proc::start(c)
    };
    let begins = |all: &[u8], what: &[u8]| all.windows(what.len()).filter(|w| *w == what).count();
    let mut second = encode(&["-c:a", "flac", "-page_duration", "200000"], "live.oga");
    player.read_to_end(&mut all).expect("an end, not a break");
    assert_eq!(begins(&all, b"\x7fFLAC"), 1);
    let mut heard = Vec::new();
    while begins(&heard, b"\x7fFLAC") < 2 {
        let n = other_player.read(&mut block).expect("more");
        assert!(n > 0, "it ends where the rate changes");
        heard.extend_from_slice(&block[..n]);
    }
    // At another codec that ends, too, and who asks again hears it.
    second.signal("INT");
    second.end();
    let _third = encode(&["-c:a", "libopus"], "live.opus");
    other_player.read_to_end(&mut heard).expect("an end, not a break");
    assert_eq!((begins(&heard, b"\x7fFLAC"), begins(&heard, b"OpusHead")), (2, 0));
    let (mut again, _) = say(at, &plain, "\r\n\r\n");
    let mut heard = Vec::new();
    while begins(&heard, b"OpusHead") < 1 {
        let n = again.read(&mut block).expect("more");
        assert!(n > 0, "it ends");
        heard.extend_from_slice(&block[..n]);
    }
}
