//! Live media with real programs: what listeners get is what the source sent, from where they came in.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use iceshare::ogg::{PageHeader, SplitEvent, Splitter, Timeline};
use iceshare_tests::media::opus_like;
use iceshare_tests::{Network, PATIENCE, Proc, have};

/// The pages of a file, and how many of them are setup.
pub(crate) fn pages(file: &Path) -> (Vec<Bytes>, usize) {
    let mut splitter = Splitter::new();
    splitter.push(std::fs::read(file).expect("a file").into());
    splitter.gap();
    let (mut pages, mut setup, mut timeline) = (Vec::new(), 0, Timeline::new());
    while let Some(event) = splitter.next() {
        let SplitEvent::Page { header, bytes } = event else { panic!("{}: {event:?}", file.display()) };
        if timeline.page(&header, &bytes).setup && timeline.link_count() == 1 {
            setup = pages.len() + 1;
        }
        pages.push(bytes);
    }
    (pages, setup)
}

/// Waits until something is true of the disk.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

pub(crate) fn broadcast(network: &Network, who: &str, from: &Path, more: &[&str]) -> (Proc, String) {
    let from = from.to_string_lossy();
    let args =
        [&["broadcast", "--tracker", &network.tracker.url, "--as", "radio/one", "--from", &from], more]
            .concat();
    let proc = network.run(who, &args);
    let url = proc.line("its link", |l| l.starts_with("icet://").then(|| l.trim().to_owned()));
    (proc, url)
}

/// What a page has beside serial number, page number and checksum, which a broadcaster may have to change.
fn content(page: &Bytes) -> (&[u8], &[u8]) {
    (&page[..14], &page[26..])
}

/// The pages of a recording. Where it stops, the last page of the source is marked as such; here it is not.
fn stretch(source: &[Bytes], recorded: &Path) -> Vec<Bytes> {
    let (mut pages, _) = pages(recorded);
    if let Some(last) = pages.last_mut() {
        let mut page = last.to_vec();
        page[5] &= !4;
        let page = Bytes::from(page);
        if source.iter().any(|p| content(p) == content(&page)) {
            *last = page;
        }
    }
    pages
}

/// Checks that `recorded` is the setup pages of the source and then pages of it in a row, the source over and over; `restarts` times it
/// may begin anew in the middle. Each time it begins it is a link with a serial number of its own. How many pages are behind the setup.
pub(crate) fn is_a_stretch(source: &Path, recorded: &Path, mut restarts: usize) -> usize {
    let (source, setup) = pages(source);
    let recorded = stretch(&source, recorded);
    assert!(recorded.len() > setup, "only {} pages", recorded.len());
    let contents = |pages: &[Bytes]| pages.iter().map(|p| content(p).1.to_vec()).collect::<Vec<_>>();
    assert_eq!(contents(&recorded[..setup]), contents(&source[..setup]), "setup pages come first");
    let label = |page: &Bytes| {
        let header = PageHeader::parse(page).expect("a page");
        (header.serial, header.sequence)
    };
    let (mut serial, _) = label(&recorded[0]);
    let mut serials = vec![serial];
    let rest = &recorded[setup..];
    let mut at = source.iter().position(|p| content(p) == content(&rest[0])).expect("a page of the source");
    for (i, page) in rest.iter().enumerate() {
        // A link that was left in the middle has an end with nothing to be heard.
        let header = PageHeader::parse(page).expect("a page");
        if i + 1 == rest.len() && header.eos && header.segments <= 1 {
            break;
        }
        if restarts > 0 && content(page) != content(&source[at]) && content(page) == content(&source[0]) {
            (restarts, at) = (restarts - 1, 0);
        }
        assert!(
            content(page) == content(&source[at]),
            "page {i} behind the setup: a gap, a repeat, or altered"
        );
        if at == 0 {
            serial = label(page).0;
            assert!(!serials.contains(&serial), "a link with the serial number of another");
            serials.push(serial);
        }
        assert_eq!(label(page), (serial, label(&source[at]).1), "page {i} behind the setup");
        at = (at + 1) % source.len();
    }
    assert_eq!(restarts, 0, "it never began anew");
    rest.len()
}

fn has_an_end(recorded: &Path) -> bool {
    pages(recorded).0.last().and_then(|p| PageHeader::parse(p).ok()).is_some_and(|header| header.eos)
}

#[test]
fn who_comes_in_the_middle_misses_nothing_from_there_on() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 7).expect("a source");
    let (_broadcast, url) = broadcast(&network, "station", &source, &["--loop", "--delay", "100ms"]);
    let (mut first, a) = network.get("first", &url, &["--for", "9s"]);
    let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
    until("the first listener hears something", || size(&a) > 6000);
    let (mut second, b) = network.get("second", &url, &["--for", "4s"]);
    second.ends_with(0);
    first.ends_with(0);
    let (first, second) = (is_a_stretch(&source, &a, 0), is_a_stretch(&source, &b, 0));
    assert!(has_an_end(&a) && has_an_end(&b), "where a recording stops, its streams have last pages");
    assert!(first > second, "9 s are {first} pages, 4 s are {second}");
}

#[test]
fn a_broadcaster_that_is_killed_goes_on_and_so_do_its_listeners() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 8).expect("a source");
    let (mut station, url) = broadcast(&network, "station", &source, &["--loop"]);
    let (mut listener, out) = network.get("listener", &url, &["--for", "10s"]);
    let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
    until("the listener hears something", || size(&out) > 4000);
    station.kill();
    let before = size(&out);
    let (_station, again) = broadcast(&network, "station", &source, &["--loop"]);
    assert_eq!(again, url);
    let (back, most) = (Instant::now(), Duration::from_secs(8));
    until("it goes on", || size(&out) > before + 2000);
    assert!(back.elapsed() < most, "{:?} after the broadcaster was back", back.elapsed());
    listener.ends_with(0);
    // Without a word of the system on its restarts a new broadcast begins instead.
    if Path::new("/proc/sys/kernel/random/boot_id").exists() {
        is_a_stretch(&source, &out, 1);
    }
}

#[test]
fn the_owner_of_a_path_can_always_go_on() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 10).expect("a source");
    let text = source.to_string_lossy();
    let key = network.path("key");
    let key = key.to_string_lossy();
    let mine = ["--key", &key];
    let publish = |who| {
        let args = ["publish", &text, "--tracker", &network.tracker.url, "--as", "radio/one", "--key", &key];
        let proc = network.run(who, &args);
        let url = proc.line("its link", |l| l.starts_with("icet://").then(|| l.trim().to_owned()));
        (proc, url)
    };
    let end = |mut proc: Proc| {
        proc.signal("TERM");
        proc.ends_with(130);
    };
    let heard = |who: &str, url: &str| {
        let (mut get, out) = network.get(who, url, &["--for", "1s"]);
        get.ends_with(0);
        is_a_stretch(&source, &out, 0);
    };
    let live = [&mine[..], &["--loop"]].concat();
    // A file, a broadcast, the file, the broadcast: from one data folder.
    let (proc, url) = publish("a");
    end(proc);
    let (proc, _) = broadcast(&network, "a", &source, &live);
    heard("b", &url);
    end(proc);
    end(publish("a").0);
    let (proc, _) = broadcast(&network, "a", &source, &live);
    end(proc);
    // And from two, that know nothing of each other but the key.
    let (proc, _) = broadcast(&network, "other", &source, &live);
    end(proc);
    let (proc, again) = broadcast(&network, "a", &source, &live);
    assert_eq!(again, url);
    heard("c", &url);
    end(proc);
    end(publish("other").0);
    end(publish("a").0);
}

#[test]
fn a_broadcast_whose_broadcaster_is_gone_is_off_the_air() {
    let network = Network::with(&["--off-air", "5"]);
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 11).expect("a source");
    let (mut station, url) = broadcast(&network, "station", &source, &["--loop"]);
    let (get, out) = network.get("get", &url, &["--json"]);
    let play = network.run("play", &["play", &url]);
    play.line("its link", |l| l.starts_with("http://").then_some(()));
    let (slow, played) = (network.run("slow", &["play", &url]), network.path("played.opus"));
    let link = slow.line("its link", |l| l.starts_with("http://").then(|| l.trim().to_owned()));
    let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
    until("the listener hears something", || size(&out) > 4000);
    let fetched = std::process::Command::new("curl").args(["-sS", "-o"]).arg(&played).arg(&link).spawn();
    until("its player hears something", || size(&played) > 4000);
    station.kill();
    let told = get.line("what was recorded", |l| l.contains("broke_off").then(|| l.to_owned()));
    assert!(told.contains("off the air"), "{told}");
    get.error_line("its closing note", |l| l.contains("; it broke off").then_some(()));
    for mut listener in [play, get, slow] {
        listener.ends_with(5);
        assert!(listener.stderr().contains("off the air"), "{}", listener.stderr());
    }
    is_a_stretch(&source, &out, 0);
    assert!(has_an_end(&out));
    // Its player heard it to the end: no connection that breaks.
    assert!(fetched.expect("curl").wait().is_ok_and(|s| s.success()));
    is_a_stretch(&source, &played, 0);
    network.run("info", &["info", &url]).ends_with(4);
    // Who comes back goes on all the same.
    let (_station, again) = broadcast(&network, "station", &source, &["--loop"]);
    assert_eq!(again, url);
    network.run("info", &["info", &url]).ends_with(0);
}

#[test]
fn those_who_listen_to_the_end_end_well() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 18_600, 1200, 12).expect("a source");
    let (mut station, url) = broadcast(&network, "station", &source, &[]);
    let (mut get, out) = network.get("get", &url, &[]);
    let mut play = network.run("play", &["play", &url]);
    play.line("its link", |l| l.starts_with("http://").then_some(()));
    for listener in [&mut get, &mut play] {
        listener.ends_with(0);
        assert!(listener.stderr().contains("the broadcast has ended"), "{}", listener.stderr());
    }
    station.ends_with(0);
    is_a_stretch(&source, &out, 0);
}

#[test]
fn an_interrupt_ends_a_broadcast_for_all_who_listen() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 13).expect("a source");
    let (mut station, url) = broadcast(&network, "station", &source, &["--loop"]);
    let (mut get, out) = network.get("get", &url, &[]);
    let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
    until("the listener hears something", || size(&out) > 4000);
    station.signal("INT");
    station.ends_with(0);
    get.ends_with(0);
    assert!(get.stderr().contains("the broadcast has ended"), "{}", get.stderr());
    is_a_stretch(&source, &out, 0);
    network.run("info", &["info", &url]).ends_with(4);
}

#[test]
fn two_programs_with_one_key_do_not_push_each_other_out() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 15).expect("a source");
    let key = network.path("key");
    let (mut station, url) =
        broadcast(&network, "one", &source, &["--loop", "--key", &key.to_string_lossy()]);
    let (mut get, out) = network.get("get", &url, &["--for", "12s"]);
    // A copy of the key: nothing on this machine tells that it is in use.
    let copy = network.path("copy");
    std::fs::copy(&key, &copy).expect("a copy");
    let (tracker, from) = (network.tracker.url.as_str(), source.to_string_lossy());
    let args = ["broadcast", "--tracker", tracker, "--as", "radio/one", "--from", &from, "--loop", "--key"];
    let mut second = network.run("two", &[&args[..], &[&copy.to_string_lossy()]].concat());
    second.ends_with(6);
    assert!(second.stderr().contains("another program with this key"), "{}", second.stderr());
    get.ends_with(0);
    is_a_stretch(&source, &out, 0);
    assert!(!station.stderr().contains("ends the session"), "{}", station.stderr());
    // With the first gone it is let in.
    station.signal("TERM");
    station.ends_with(130);
    let second = network.run("two", &[&args[..], &[&copy.to_string_lossy()]].concat());
    second.line("its link", |l| l.starts_with("icet://").then_some(()));
}

#[test]
fn who_falls_behind_what_others_keep_goes_on_further_ahead() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 14).expect("a source");
    let (_station, url) = broadcast(&network, "station", &source, &["--loop", "--window", "5s"]);
    let (mut get, out) = network.get("get", &url, &[]);
    let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
    until("the listener hears something", || size(&out) > 4000);
    get.signal("STOP");
    // What it needs next is gone by then.
    network.get("another", &url, &["--for", "9s"]).0.ends_with(0);
    let before = size(&out);
    get.signal("CONT");
    until("it goes on", || size(&out) > before + 12_000);
    get.signal("INT");
    get.ends_with(130);
    assert_eq!(get.stderr().matches("fell too far behind").count(), 1, "{}", get.stderr());
    // Setup, a stretch, perhaps the setup of the link that it is in then, and a stretch.
    let (source, setup) = pages(&source);
    let place =
        |p: &Bytes| source.iter().position(|s| content(s) == content(p)).expect("a page of the source");
    let places: Vec<_> = stretch(&source, &out).iter().map(place).collect();
    let breaks = places[setup..].windows(2).filter(|w| w[1] != (w[0] + 1) % source.len()).count();
    assert!((1..=2).contains(&breaks), "{places:?}");
}

#[test]
fn what_cannot_be_broadcast_is_told() {
    let network = Network::new();
    let source = network.path("source.opus");
    opus_like(&source, 60_000, 1200, 9).expect("a source");
    let _station = broadcast(&network, "station", &source, &["--loop"]);
    let tracker = network.tracker.url.as_str();
    let text = source.to_string_lossy();
    let mut other = network
        .run("other", &["broadcast", "--tracker", tracker, "--as", "radio/one", "--from", &text, "--loop"]);
    other.ends_with(6);
    assert!(other.stderr().contains("another key owns radio/one"), "{}", other.stderr());
    // MP3, or anything else that is not Ogg.
    let garbage = network.path("garbage");
    std::fs::write(&garbage, vec![0x55; 300_000]).expect("a file");
    let garbage = garbage.to_string_lossy();
    let mut none = network.run("none", &["broadcast", "--tracker", tracker, "--as", "x", "--from", &garbage]);
    none.ends_with(1);
    assert!(none.stderr().contains("is not Ogg"), "{}", none.stderr());
    let mut file = network.run("file", &["publish", &text, "--tracker", tracker, "--as", "a/file"]);
    let link = file.line("its link", |l| l.starts_with("icet://").then(|| l.trim().to_owned()));
    let (mut get, _) = network.get("get", &link, &["--for", "3s"]);
    get.ends_with(2);
    file.signal("TERM");
    file.ends_with(130);
}

/// What ffmpeg makes of a file: samples of 16 bits, one channel.
pub(crate) fn decoded(file: &Path) -> Vec<u8> {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(file).args(["-f", "s16le", "-ac", "1", "-"]);
    let out = ffmpeg.output().expect("ffmpeg");
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn players_go_on_from_link_to_link() {
    if !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let source = network.path("source.opus");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", "sine=f=440:d=3", "-c:a", "libopus"]);
    ffmpeg.args(["-page_duration", "200000"]).arg(&source);
    assert!(ffmpeg.status().is_ok_and(|s| s.success()));
    let (mut station, url) = broadcast(&network, "station", &source, &["--loop"]);
    let (mut get, out) = network.get("get", &url, &["--for", "8s"]);
    let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
    until("the listener hears something", || size(&out) > 20_000);
    station.kill();
    let (_station, _) = broadcast(&network, "station", &source, &["--loop"]);
    get.ends_with(0);
    // From a pipe, as players listen: in a file some look for its end first, and complain of any chain.
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "warning", "-i", "-", "-f", "s16le", "-ac", "1", "-ar", "8000", "-"]);
    let heard = ffmpeg.stdin(std::fs::File::open(&out).expect("a recording")).output().expect("ffmpeg");
    let complaints = String::from_utf8_lossy(&heard.stderr);
    assert!(heard.status.success() && complaints.is_empty(), "{complaints}");
    assert!(heard.stdout.len() > 7 * 16_000, "{} bytes of 8 s", heard.stdout.len());
}

#[test]
fn the_sound_of_a_listener_in_the_middle_is_the_source_s() {
    if !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let source = network.path("source.oga");
    // A tone that rises, so that no stretch is like another; FLAC, so that samples are equal.
    let tone = "aevalsrc=0.5*sin(2*PI*(200+30*t)*t):d=30:s=16000";
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", tone, "-c:a", "flac", "-page_duration", "200000"]);
    assert!(ffmpeg.arg(&source).status().is_ok_and(|s| s.success()));
    let (_station, url) = broadcast(&network, "station", &source, &[]);
    let (mut first, a) = network.get("first", &url, &["--for", "3s"]);
    first.ends_with(0);
    let (mut second, b) = network.get("second", &url, &["--for", "4s"]);
    second.ends_with(0);
    let whole = decoded(&source);
    for (file, seconds) in [(a, 3), (b, 4)] {
        let sound = decoded(&file);
        assert!(sound.len() >= seconds * 16_000 * 2, "{} bytes of {seconds} s", sound.len());
        let from =
            whole.windows(64).step_by(2).position(|w| *w == sound[..64]).expect("a place in the source");
        assert!(
            whole[2 * from..].starts_with(&sound),
            "a gap, a repeat, or another sound, from sample {from} on"
        );
    }
}
