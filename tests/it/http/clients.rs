//! Programs that everybody has fetch from a host: curl and aria2. What they get, ffmpeg and oggz-validate accept.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;

use iceshare::icet::NetKind;
use iceshare::store::MediaStore;
use iceshare_tests::{PATIENCE, have, media};
use tokio::process::Command;
use tokio::time::timeout;

use super::cut::Cut;
use super::{http, pair};
use crate::host::{Host, Made, content};
use crate::tones;

/// Runs a program to its end, off the runtime's threads.
async fn run_to_end(program: &str, args: &[&str], dir: &Path) -> Output {
    let child = Command::new(program)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap()
}

/// The same of a program that must end well; its standard output.
async fn run(program: &str, args: &[&str], dir: &Path) -> Vec<u8> {
    let out = run_to_end(program, args, dir).await;
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn url_at(addr: SocketAddr) -> String {
    format!("http://{addr}/music/a%20b.opus")
}

fn url(host: &Host) -> String {
    url_at(host.addr(NetKind::Tcp))
}

#[tokio::test]
async fn curl_fetches_resumes_and_asks_for_ranges_and_pages() {
    if !have("curl") {
        return;
    }
    let (host, media, _) = pair(Made::of(http())).await;
    let (url, dir) = (url(&host), host.dir.path());
    let all = content(&media, 0..media.manifest().pages);
    let curl = async |args: &[&str]| run("curl", &[&["-sSf"], args, &[&url]].concat(), dir).await;
    assert!(curl(&[]).await == all);
    assert!(curl(&["-r", "1000-1999"]).await == all[1000..2000]);
    assert!(curl(&["-r", "-500"]).await == all[all.len() - 500..]);
    assert!(curl(&["-H", "Range: pages=10-19"]).await == content(&media, 10..20));
    assert!(
        curl(&["-H", "Range: pages=3-30;stripe=1/3"]).await
            == content(&media, (3..31).filter(|p| p % 3 == 1))
    );
    let head = String::from_utf8(curl(&["-I"]).await).unwrap().to_lowercase();
    assert!(head.contains("accept-ranges: bytes, pages, proofs, t"), "{head}");
    std::fs::write(dir.join("part"), &all[..123_456]).unwrap();
    curl(&["-C", "-", "-o", "part"]).await;
    assert!(std::fs::read(dir.join("part")).unwrap() == all);
    let several = curl(&["-r", "0-9,20-29"]).await;
    let has = |part: &[u8]| several.windows(part.len()).any(|w| w == part);
    assert!(has(&all[..10]) && has(&all[20..30]));
}

/// A host of 6 MB, so that aria2 finds it worth several connections, and so slow that it has the time to make them.
async fn large() -> (Host, Arc<MediaStore>, Vec<u8>) {
    let host = Host::start(1, Made { up: Some(2_000_000), ..Made::of(http()) }).await;
    let file = host.dir.path().join("a.opus");
    media::opus_like(&file, 6_000_000, 4200, 5).unwrap();
    let media = host.publish(&file, "music/a b.opus");
    let all = std::fs::read(&file).unwrap();
    (host, media, all)
}

const ARIA2: [&str; 10] =
    ["--no-conf", "-q", "-x4", "-s4", "-k1M", "--file-allocation=none", "--max-tries=1", "-c", "-o", "out"];

#[tokio::test]
async fn aria2_fetches_over_several_connections_and_continues_after_a_cut() {
    if !have("aria2c") {
        return;
    }
    let (host, _media, all) = large().await;
    let dir = host.dir.path();
    let cut = Cut::after(3_000_000, host.addr(NetKind::Tcp)).await;
    let broken = run_to_end("aria2c", &[&ARIA2[..], &[&url_at(cut.addr)]].concat(), dir).await;
    assert!(!broken.status.success() && dir.join("out.aria2").exists(), "{broken:?}");
    assert!(cut.connections() >= 4, "only {} connections", cut.connections());
    let whole = Cut::after(usize::MAX, host.addr(NetKind::Tcp)).await;
    run("aria2c", &[&ARIA2[..], &[&url_at(whole.addr)]].concat(), dir).await;
    assert!(std::fs::read(dir.join("out")).unwrap() == all);
    let asked = whole.asked();
    let more = union(&asked, all.len());
    assert!(more < all.len() - 2_000_000, "3 MB of {} were there, but it asked for {asked:?}", all.len());
}

/// Bytes that are in one of these ranges at least.
fn union(ranges: &[(usize, Option<usize>)], len: usize) -> usize {
    let mut ranges = ranges.to_vec();
    ranges.sort_unstable();
    let (mut count, mut end) = (0, 0);
    for (first, last) in ranges {
        let last = last.map_or(len, |l| l + 1).min(len);
        count += last.saturating_sub(first.max(end));
        end = end.max(last);
    }
    count
}

#[tokio::test]
async fn curl_and_aria2_go_on_where_a_file_ends() {
    let (host, _media, all) = large().await;
    let dir = host.dir.path();
    for (program, args) in [("curl", &["-sSf", "-C", "-", "-o", "out"][..]), ("aria2c", &ARIA2)] {
        if !have(program) {
            continue;
        }
        let head = 3_456_789;
        std::fs::write(dir.join("out"), &all[..head]).unwrap();
        let way = Cut::after(usize::MAX, host.addr(NetKind::Tcp)).await;
        run(program, &[args, &[&url_at(way.addr)]].concat(), dir).await;
        assert!(std::fs::read(dir.join("out")).unwrap() == all, "{program}");
        let asked = way.asked();
        assert!(
            !asked.is_empty() && asked.iter().all(|(first, _)| first + 16 * 1024 > head),
            "{program} asked for {asked:?}"
        );
    }
}

#[tokio::test]
async fn curl_goes_on_after_a_cut() {
    if !have("curl") {
        return;
    }
    let (host, _media, all) = large().await;
    let dir = host.dir.path();
    let cut = Cut::after(3_000_000, host.addr(NetKind::Tcp)).await;
    let args = ["-sSf", "-C", "-", "-o", "out"];
    let broken = run_to_end("curl", &[&args[..], &[&url_at(cut.addr)]].concat(), dir).await;
    assert!(!broken.status.success(), "{broken:?}");
    let part = std::fs::read(dir.join("out")).unwrap();
    assert!(part.len() > 2_900_000 && all.starts_with(&part), "{} bytes", part.len());
    run("curl", &[&args[..], &[&url(&host)]].concat(), dir).await;
    assert!(std::fs::read(dir.join("out")).unwrap() == all);
}

/// 30 s of rising tones in pages of about a second, by ffmpeg: extension, encoder, and whether decoding from the middle gives
/// exactly the samples that decoding the whole does.
const CODECS: [(&str, &str, bool); 3] =
    [("ogg", "libvorbis", true), ("oga", "flac", true), ("opus", "libopus", false)];

/// A host of it, and where it is.
async fn encoded(extension: &str, encoder: &str) -> (Host, Arc<MediaStore>, String) {
    let host = Host::start(1, Made::of(http())).await;
    let (name, tones) = (format!("whole.{extension}"), tones::source(30));
    let input = ["-v", "error", "-f", "lavfi", "-i", &tones, "-ac", "2"];
    run("ffmpeg", &[&input[..], &["-c:a", encoder, &name]].concat(), host.dir.path()).await;
    let file = host.dir.path().join("whole");
    std::fs::rename(host.dir.path().join(name), &file).unwrap();
    let media = host.publish(&file, "tones");
    let url = format!("http://{}/tones", host.addr(NetKind::Tcp));
    (host, media, url)
}

/// What ffmpeg decodes of a file, without a complaint.
async fn decoded(host: &Host, file: &str, more: &[&str]) -> Vec<u8> {
    let input = ["-v", "warning", "-xerror", "-nostdin", "-i", file];
    let output = ["-f", "s16le", "-ac", "2", "-ar", "48000", "-"];
    let out = run_to_end("ffmpeg", &[&input[..], more, &output].concat(), host.dir.path()).await;
    let complaints = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && complaints.is_empty(), "ffmpeg: {complaints}");
    out.stdout
}

#[tokio::test]
async fn pages_behind_the_setup_pages_decode_to_the_sound_of_their_place() {
    if !have("curl") || !have("ffmpeg") || !have("oggz-validate") {
        return;
    }
    for (extension, encoder, exact) in CODECS {
        let (host, media, url) = encoded(extension, encoder).await;
        let dir = host.dir.path();
        let pages = async |range: String| run("curl", &["-sSf", "-H", &range, &url], dir).await;
        let setup = pages(format!("Range: pages=0-{}", media.manifest().setup - 1)).await;
        let part = pages("Range: pages=10-19".to_owned()).await;
        assert!(part == content(&media, 10..20), "{extension}: other pages");
        std::fs::write(dir.join("part"), [setup, part].concat()).unwrap();
        // It is a stream that would go on.
        run("oggz-validate", &["-p", "part"], dir).await;
        let sound = decoded(&host, "part", &[]).await;
        let second = |page| media.span(page).unwrap().time;
        let (from, to) = (second(10), second(20));
        let second = tones::RATE as usize * tones::FRAME;
        let frames = i64::try_from(sound.len() / tones::FRAME).unwrap();
        let off = frames - (to - from) * i64::from(tones::RATE) / 1_000_000;
        assert!(off.abs() < 2000, "{extension}: {frames} samples of what sounds from {from} to {to} us");
        let middle = &sound[second..sound.len() - second];
        if exact {
            let whole = decoded(&host, "whole", &[]).await;
            let at = whole.windows(middle.len()).position(|w| w == middle);
            let expected =
                usize::try_from(from * i64::from(tones::RATE) / 1_000_000).unwrap() * tones::FRAME + second;
            assert!(at.is_some_and(|at| at.abs_diff(expected) < 8000), "{extension}: {at:?}, not {expected}");
        }
        let tones_there: Vec<_> = (from + 1_000_000..to - 1_000_000)
            .step_by(500_000)
            .map(|t| tones::tone_at(u32::try_from(t / 1_000_000).unwrap()))
            .collect();
        assert!(tones::tones(middle).iter().all(|t| tones_there.contains(t)), "{extension}");
    }
}

/// The parts of a `multipart/byteranges` body, one after another.
fn parts(head: &str, body: &[u8]) -> Vec<u8> {
    let boundary = head.lines().find_map(|l| l.split_once("multipart/byteranges; boundary=")).unwrap().1;
    let mark = format!("\r\n--{}", boundary.trim());
    let find =
        |from: usize, what: &[u8]| body[from..].windows(what.len()).position(|w| w == what).map(|i| from + i);
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(start) = find(at, b"\r\n\r\n") {
        let end = find(start, mark.as_bytes()).unwrap();
        out.extend_from_slice(&body[start + 4..end]);
        at = end + mark.len();
    }
    out
}

#[tokio::test]
async fn a_time_range_with_setup_decodes_to_these_seconds() {
    if !have("curl") || !have("ffmpeg") {
        return;
    }
    for (extension, encoder, exact) in CODECS {
        let (host, media, url) = encoded(extension, encoder).await;
        let dir = host.dir.path();
        let range = "Range: t:npt=10-20;include-setup";
        let body = run("curl", &["-sSf", "-D", "head", "-H", range, &url], dir).await;
        let head = std::fs::read_to_string(dir.join("head")).unwrap();
        let part = parts(&head, &body);
        assert!(
            part.len() < usize::try_from(media.manifest().bytes / 2).unwrap(),
            "{extension}: {} bytes",
            part.len()
        );
        std::fs::write(dir.join("part"), part).unwrap();
        let second = tones::RATE as usize * tones::FRAME;
        if exact {
            let (sound, whole) = (decoded(&host, "part", &[]).await, decoded(&host, "whole", &[]).await);
            let ten = &whole[10 * second..20 * second];
            assert!(sound.windows(ten.len()).any(|w| w == ten), "{extension}: without the ten seconds");
            assert!(sound.len() < 13 * second, "{extension}: {} seconds", sound.len() / second);
        } else {
            // By the times that the stream itself tells.
            let sound = decoded(&host, "part", &["-copyts", "-af", "atrim=start=10:end=20"]).await;
            assert_eq!(sound.len(), 10 * second, "{extension}: not ten seconds");
            assert_eq!(tones::tones(&sound), [tones::tone_at(10), tones::tone_at(15)], "{extension}");
        }
    }
}
