//! Listeners of a broadcaster, with real programs: what a player at each of them hears, over each payload protocol alone, and where many
//! listen to one on a small uplink when members, the broadcaster and the tracker fail. (`tests/lab/crowd` does the same in a lab.)
//!
//! A player begins when it has as much in hand as the tracker suggests, and plays as fast as it sounds. It stalls when the next page has
//! not come by the time that it is due: all that it plays later is later by so much.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use iceshare::ogg::{SplitEvent, Splitter, Timeline};
use iceshare_tests::media::opus_like;
use iceshare_tests::{Network, PATIENCE, Tracker, have, long};

use crate::live::broadcast;

/// What a player has in hand before sound: the tracker's `buffer`.
const BUFFER: Duration = Duration::from_secs(2);
const KBIT: u64 = 64;
/// Pages of 200 ms make a player no worse than this.
const LATE: Duration = Duration::from_millis(20);

/// Pages as they came: when, and the media time from the first one on at which they end.
type Came = Arc<Mutex<Vec<(Instant, Duration)>>>;

/// One who listens, through a pipe.
struct Listener {
    get: Child,
    came: Came,
}

impl Listener {
    fn new(network: &Network, who: &str, url: &str, more: &[&str]) -> Listener {
        let mut get = network.command(who, &[&["get", url, "-o", "-", "--up", "1mbit"], more].concat());
        get.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut get = get.spawn().expect("a listener");
        let mut out = get.stdout.take().expect("its output");
        let came = Came::default();
        let seen = came.clone();
        std::thread::spawn(move || {
            let (mut splitter, mut timeline, mut first) = (Splitter::new(), Timeline::new(), None);
            let mut some = [0; 65_536];
            while let Ok(n) = out.read(&mut some)
                && n > 0
            {
                let now = Instant::now();
                splitter.push(some[..n].to_vec().into());
                while let Some(event) = splitter.next() {
                    let SplitEvent::Page { header, bytes } = event else { continue };
                    if timeline.page(&header, &bytes).setup {
                        continue;
                    }
                    let end = timeline.duration();
                    // Where it came in the middle, the first page says where.
                    let from = *first.get_or_insert(end);
                    let end = Duration::from_micros(u64::try_from(end - from).unwrap_or(0));
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push((now, end));
                }
            }
        });
        Listener { get, came }
    }

    /// How much of it came.
    fn far(&self) -> Duration {
        self.pages().last().map_or(Duration::ZERO, |(_, end)| *end)
    }

    fn pages(&self) -> Vec<(Instant, Duration)> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When its player waited, and for how long; and how long it played in all.
    fn waits(&self) -> (Vec<(Instant, Duration)>, Duration) {
        let pages = self.pages();
        let Some((began, _)) = pages.iter().find(|(_, end)| *end >= BUFFER) else {
            return Default::default();
        };
        let (mut base, mut waits, mut before) = (*began, Vec::new(), Duration::ZERO);
        for (came, end) in &pages {
            // It sounds where the one before ends.
            let due = base + before;
            if *came > due + LATE {
                waits.push((due, *came - due));
                base += *came - due;
            }
            before = *end;
        }
        (waits, before)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.get.kill();
        let _ = self.get.wait();
    }
}

/// Lets time pass in which things go on by themselves; ends when something holds.
fn passes(most: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + most;
    while Instant::now() < end {
        if holds() {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    false
}

#[test]
fn over_each_protocol_alone_nobody_waits() {
    let over = |transport: &str| {
        let network = Network::new();
        let source = network.path("source.opus");
        opus_like(&source, 25_000, 1200, 61).expect("a source");
        let alone = ["--transport", transport];
        let (_station, url) =
            broadcast(&network, "station", &source, &[&["--loop"][..], &alone[..]].concat());
        let listener = |n| Listener::new(&network, &format!("listener{n}"), &url, &alone);
        let listeners: Vec<_> = (0..3).map(listener).collect();
        let heard = || listeners.iter().all(|l| l.far() > Duration::from_secs(10));
        assert!(passes(PATIENCE, heard), "over {transport} somebody hears nothing");
        for (n, l) in listeners.iter().enumerate() {
            let (waits, played) = l.waits();
            assert!(played > BUFFER && waits.is_empty(), "over {transport} listener {n} waited: {waits:?}");
        }
    };
    std::thread::scope(|s| {
        for transport in ["http", "quic", "udp", "libp2p"] {
            s.spawn(move || over(transport));
        }
    });
}

#[test]
fn a_crowd_on_a_small_uplink_survives_what_fails() {
    if !have("ffmpeg") {
        return;
    }
    // A minute, in which nothing else should keep the machine busy: with the long tests, or for as many as one says.
    let peers = std::env::var("ICESHARE_CROWD").ok().and_then(|n| n.parse().ok());
    let Some(peers) = peers.or_else(|| long().then_some(40_usize)) else {
        eprintln!("skipped: a long test; set ICESHARE_LONG=1, or ICESHARE_CROWD to the number of listeners");
        return;
    };
    let mut network = Network::new();
    let source = network.path("source.opus");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", "anoisesrc=d=300:c=pink:r=48000", "-c:a", "libopus"]);
    ffmpeg.args(["-vbr", "off", "-b:a", &format!("{KBIT}k"), "-page_duration", "200000"]).arg(&source);
    assert!(ffmpeg.status().is_ok_and(|s| s.success()));
    let up = format!("{}kbit", KBIT * 5 / 2);
    let (station, url) = broadcast(&network, "station", &source, &["--loop", "--up", &up]);
    let mut crowd = Vec::new();
    for n in 0..peers {
        crowd.push(Listener::new(&network, &format!("listener{n}"), &url, &[]));
        passes(Duration::from_millis(150), || false);
    }
    assert!(passes(PATIENCE, || crowd.iter().all(|l| l.far() > BUFFER)), "somebody hears nothing");
    passes(Duration::from_secs(5), || false);

    let began = Instant::now();
    // A quarter of them, at once.
    drop(crowd.split_off(peers - peers / 4));
    passes(Duration::from_secs(8), || false);
    // The broadcaster's link.
    let cut = Instant::now();
    station.signal("STOP");
    passes(Duration::from_secs(3), || false);
    station.signal("CONT");
    let back = Instant::now();
    passes(Duration::from_secs(8), || false);
    // The tracker.
    let (listen, data) = (network.tracker.listen(), network.tracker.data.clone());
    network.tracker.proc.kill();
    passes(Duration::from_secs(10), || false);
    network.tracker = Tracker::start(&data, &listen);
    passes(Duration::from_secs(8), || false);
    let before: Vec<_> = crowd.iter().map(Listener::far).collect();
    let more = || crowd.iter().zip(&before).all(|(l, before)| l.far() > *before + Duration::from_secs(2));
    assert!(passes(Duration::from_secs(30), more), "somebody did not recover");

    let (mut stalled, mut by_the_cut, mut played) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for (n, l) in crowd.iter().enumerate() {
        let (waits, its) = l.waits();
        played += its;
        for (at, time) in waits {
            eprintln!(
                "listener {n} waited {time:?}, {:?} after it began to fail",
                at.saturating_duration_since(began)
            );
            // Nobody can hear what nobody has.
            let of_cut = at >= cut && at < back + Duration::from_secs(1);
            assert!(!of_cut || time < Duration::from_secs(4), "{time:?} for a cut of 3 s");
            *(if of_cut { &mut by_the_cut } else { &mut stalled }) += time;
        }
    }
    let share = stalled.as_secs_f64() / played.as_secs_f64();
    eprintln!(
        "{} listeners played {played:?}, stalled {stalled:?} ({:.2} %), and {by_the_cut:?} by the cut",
        crowd.len(),
        100.0 * share
    );
    assert!(share < 0.01, "stalled {stalled:?} of {played:?}");
}
