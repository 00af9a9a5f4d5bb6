//! Hosts that lie about what they serve and what they have.

use iceshare::driver::OpenOptions;
use iceshare::store::Target;
use std::time::{Duration, Instant};

use iceshare_tests::{Network, media, same};
use icet::IcetUrl;
use icet::message::Intent;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use super::dripper;
use super::liar::{Drops, Liar, Lie};
use super::stranger::{eventually, get, port_of_host, read, runtime};
use iceshare_transport_http as _;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// How far the tracker trusts the peer of this key.
fn trust(net: &Network, liar: &Liar) -> f64 {
    let peers = json(&net.tracker.get("/api/peers"));
    let of = |p: &Value| (p["key"] == liar.key.short().as_str()).then(|| p["trust"].as_f64()).flatten();
    let found = peers["peers"].as_array().and_then(|all| all.iter().find_map(of));
    found.unwrap_or_else(|| panic!("the liar is not listed: {peers}"))
}

struct Scene {
    net: Network,
    file: std::path::PathBuf,
    url: String,
    publisher: iceshare_tests::Proc,
    liar: Liar,
    rt: tokio::runtime::Runtime,
}

/// A publisher with a thin uplink, and a liar with a broad one.
fn scene(lie: Lie) -> Scene {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 1_500_000, 4200, 41).expect("a file");
    let (publisher, url) = net.publish("publisher", &file, &["--up", "600kB"]);
    let rt = runtime();
    let liar = rt.block_on(Liar::join(&net.tracker.url, "song.opus", &file, lie));
    Scene { net, file, url, publisher, liar, rt }
}

fn altered_pages_go_nowhere(lie: Lie) {
    let mut s = scene(lie);
    // A first receiver gets the identical file, and counts what was wrong.
    let (mut first, out) = s.net.get("first", &s.url, &["--json"]);
    first.ends_with(0);
    assert!(same(&s.file, &out), "an altered page was stored");
    let figures = json(&first.stdout());
    assert!(s.liar.altered() > 0, "nobody asked the liar, so that nothing was tested");
    assert!(figures["bad_pages"].as_u64() > Some(0), "no bad page was counted: {figures}");
    let at_first = s.liar.asked();
    // A second one tells the tracker the same: now the liar is out.
    let (second, out) = s.net.get("second", &s.url, &["--share-for", "10m"]);
    second.error_line("that it is complete and shares", |l| l.contains("sharing").then_some(()));
    assert!(same(&s.file, &out));
    // What it passes on is the publisher's.
    s.publisher.kill();
    let (mut third, out) = s.net.get("third", &s.url, &["--json"]);
    third.ends_with(0);
    assert!(same(&s.file, &out), "an altered page was passed on");
    let before = trust(&s.net, &s.liar);
    eprintln!("the liar was asked {at_first} times by the first, {} in all; trust {before}", s.liar.asked());
    assert!(before < 0.7, "the liar is trusted as before: {before}");
    let at_third = s.liar.asked();
    let (mut fourth, out) = s.net.get("fourth", &s.url, &["--json"]);
    fourth.ends_with(0);
    assert!(same(&s.file, &out));
    assert!(
        s.liar.asked() - at_third < at_first.max(2),
        "the liar is used as before: {} requests, {at_first} at first",
        s.liar.asked() - at_third
    );
    let host = port_of_host(&s.rt, &s.net.tracker.url, "song.opus", 0xcc);
    assert!(get(host, "/song.opus", &[]).body == read(&s.file), "a peer serves something else");
}

#[test]
fn a_page_with_an_altered_byte_is_never_stored_or_passed_on() {
    altered_pages_go_nowhere(Lie::Alter);
}

#[test]
fn nor_is_one_whose_checksum_was_mended() {
    altered_pages_go_nowhere(Lie::AlterAndMend);
}

#[test]
fn a_reader_is_never_shown_an_altered_page() {
    let s = scene(Lie::AlterAndMend);
    let seen = s.rt.block_on(async {
        let peer = super::stranger::peer(&s.net, "reader", 0xdd, None).await;
        let url: IcetUrl = s.url.parse().expect("a link");
        let options = OpenOptions::new(Intent::Play, Target::Own);
        let media = peer.open(&url, options).await.expect("a media");
        let (mut reader, mut seen) = (media.reader(), Vec::new());
        let read = tokio::time::timeout(iceshare_tests::PATIENCE, reader.read_to_end(&mut seen)).await;
        read.expect("in time").expect("the whole file");
        assert!(s.liar.altered() > 0, "nobody asked the liar, so that nothing was tested");
        assert!(media.progress().bad > 0, "no bad page was counted");
        peer.shutdown().await;
        seen
    });
    assert!(seen == read(&s.file), "a reader saw something else than was published");
}

/// Half of a page comes from the liar, altered, and the rest from the publisher. Who lied is not known, and the one who did not
/// shall not pay for it: it is asked for all of that page, and nothing is said against it.
#[test]
fn a_liar_who_breaks_off_costs_no_honest_host_anything() {
    let net = Network::new();
    let file = net.path("song.opus");
    media::opus_like(&file, 1_500_000, 4200, 43).expect("a file");
    let (_publisher, url) = net.publish("publisher", &file, &["--transport", "udp", "--up", "600kB"]);
    let rt = runtime();
    let liar = rt.block_on(Liar::join(&net.tracker.url, "song.opus", &file, Lie::BreakOff));
    let (mut mixed, mut said) = (0, String::new());
    for who in ["first", "second", "third", "fourth"] {
        let (mut get, out) = net.get(who, &url, &["--transport", "http,udp", "-vvv"]);
        get.ends_with(0);
        assert!(same(&file, &out), "an altered page was stored");
        said = get.stderr();
        mixed += said.lines().filter(|l| l.contains("parts of a page from several hosts do not fit")).count();
        // The liar speaks http only.
        let blamed =
            |l: &&str| l.contains("reported") && l.contains("by=udp") && l.contains("outcome=Incomplete");
        let blamed: Vec<_> = said.lines().filter(blamed).collect();
        assert!(blamed.is_empty(), "the publisher is blamed: {blamed:?}");
    }
    assert!(liar.altered() > 0, "nobody asked the liar, so that nothing was tested");
    assert!(mixed > 0, "no page was put together of both, so that nothing was tested: {said}");
}

#[test]
fn a_page_map_that_lies_stops_nobody() {
    let s = scene(Lie::Absent);
    for who in ["first", "second", "third"] {
        let (mut get, out) = s.net.get(who, &s.url, &["--json"]);
        get.ends_with(0);
        assert!(same(&s.file, &out));
    }
    let asked = s.liar.asked();
    assert!(asked > 0, "nobody asked the liar, so that nothing was tested");
    let (mut fourth, out) = s.net.get("fourth", &s.url, &["--json"]);
    fourth.ends_with(0);
    assert!(same(&s.file, &out));
    let more = s.liar.asked() - asked;
    eprintln!("three receivers asked the liar {asked} times, a fourth {more} times");
    assert!(more <= asked / 3, "the liar is used as before: {asked} by three, {more} by one more");
    let _ = eventually("the tracker lists the liar", || Some(trust(&s.net, &s.liar)));
}

/// Two honest hosts of 300 kB/s each for 3 MB, and perhaps a host that drips: how long a receiver takes.
struct Drought {
    net: Network,
    file: std::path::PathBuf,
    url: String,
    _hosts: [iceshare_tests::Proc; 2],
}

impl Drought {
    fn new(protocol: &str) -> Drought {
        let net = Network::new();
        let file = net.path("song.opus");
        media::opus_like(&file, 3_000_000, 4200, 47).expect("a file");
        let more = ["--transport", protocol, "--up", "300kB"];
        let (publisher, url) = net.publish("publisher", &file, &more);
        let (other, _) = net.get("other", &url, &[&more[..], &["--share-for", "10m"]].concat());
        other.error_line("that it is complete and shares", |l| l.contains("sharing").then_some(()));
        Drought { net, file, url, _hosts: [publisher, other] }
    }

    fn receive(&self, who: &str, protocol: &str) -> Duration {
        let began = Instant::now();
        let (mut get, out) = self.net.get(who, &self.url, &["--transport", protocol, "--json", "-vvv"]);
        get.ends_with(0);
        assert!(same(&self.file, &out));
        began.elapsed()
    }
}

/// So many times what it takes without the one who drips, and a second or two until that one is left, and the machine's moods.
fn is_near(with: Duration, without: Duration, times: f64) -> bool {
    with < without.mul_f64(times) + Duration::from_secs(3)
}

fn a_dripping_host_holds_nobody_up(drops: Drops) {
    a_dripping_host_costs_at_most(1.5, drops);
}

fn a_dripping_host_costs_at_most(times: f64, drops: Drops) {
    let scene = Drought::new("http");
    let without = scene.receive("before", "http");
    let rt = runtime();
    let liar = rt.block_on(Liar::join(&scene.net.tracker.url, "song.opus", &scene.file, Lie::Drip(drops)));
    for who in ["first", "second"] {
        let before = liar.asked();
        let with = scene.receive(who, "http");
        eprintln!("{drops:?}: {who} {with:?}, without {without:?}, asked {} times", liar.asked() - before);
        assert!(is_near(with, without, times), "{who}: {with:?} with a host that drips, {without:?} without");
    }
    assert!(liar.asked() > 0, "nobody asked it, so that nothing was tested");
}

const HALF_A_SECOND: Duration = Duration::from_millis(500);

#[test]
fn a_host_that_drips_from_the_first_byte_holds_nobody_up() {
    a_dripping_host_holds_nobody_up(Drops { free: 0, each: 1, every: HALF_A_SECOND, head: false });
}

#[test]
fn nor_one_that_drips_after_half_of_a_page() {
    a_dripping_host_holds_nobody_up(Drops { free: 2100, each: 1, every: HALF_A_SECOND, head: false });
}

#[test]
fn one_that_drips_just_so_much_that_it_counts_delays_but_holds_nobody_up() {
    // It does what the slowest honest line may do: it is left once it is late, not at once.
    let drops = Drops { free: 0, each: 270, every: HALF_A_SECOND, head: false };
    a_dripping_host_costs_at_most(4.0, drops);
}

#[test]
fn nor_one_whose_head_drips() {
    a_dripping_host_holds_nobody_up(Drops { free: 0, each: 1, every: HALF_A_SECOND, head: true });
}

/// The host of an order and both of its stand-ins may drip, and the receiver knows nobody else; the tracker does.
#[test]
fn nor_do_three_at_once() {
    let scene = Drought::new("http");
    let without = scene.receive("before", "http");
    let rt = runtime();
    let drops = Drops { free: 2100, each: 1, every: HALF_A_SECOND, head: false };
    let join = |seed| {
        rt.block_on(Liar::join_as(seed, &scene.net.tracker.url, "song.opus", &scene.file, Lie::Drip(drops)))
    };
    let liars = [0xb1, 0xb2, 0xb3].map(join);
    for who in ["first", "second"] {
        let with = scene.receive(who, "http");
        let asked = liars.each_ref().map(Liar::asked);
        eprintln!("three that drip: {who} {with:?}, without {without:?}, asked {asked:?} times");
        assert!(
            is_near(with, without, 1.5),
            "{who}: {with:?} with three hosts that drip, {without:?} without"
        );
    }
    assert!(liars.iter().all(|l| l.asked() > 0), "one was not asked, so that nothing was tested");
}

#[test]
fn nor_one_that_drips_over_streams_of_quic() {
    let scene = Drought::new("quic");
    let without = scene.receive("before", "quic");
    let rt = runtime();
    let dripper = rt.block_on(dripper::join(&scene.net, &scene.url));
    for who in ["first", "second"] {
        let with = scene.receive(who, "quic");
        eprintln!("quic: {who} {with:?}, without {without:?}");
        assert!(is_near(with, without, 1.5), "{who}: {with:?} with a host that drips, {without:?} without");
    }
    rt.block_on(dripper.shutdown());
}
