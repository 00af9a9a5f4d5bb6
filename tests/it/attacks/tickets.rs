//! Tickets that are stale, foreign, forged, or used again, at the port of a real peer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use iceshare_tests::{Proc, binary, media};
use iceshare_transport_http::wire;
use icet::key::Hash;
use icet::ticket::TicketBody;
use icet::{PageSet, PeerKey, Ticket, TicketKey};

use super::fake_tracker::{EPOCH, FakeTracker, wall_ms};
use super::liar::pages;
use super::stranger::{Answer, get, read, runtime};

struct Scene {
    dir: tempfile::TempDir,
    tracker: FakeTracker,
    at: SocketAddr,
    host: PeerKey,
    file: Vec<u8>,
    _publisher: Proc,
    _rt: tokio::runtime::Runtime,
}

fn publish(dir: &std::path::Path, who: &str, tracker: &str, more: &[&str]) -> Proc {
    let file = dir.join("song.opus");
    let mut c = std::process::Command::new(binary("iceshare"));
    c.args(["publish", &file.to_string_lossy(), "--tracker", tracker, "--anonymous", "deny"]);
    c.args(more).arg("--data").arg(dir.join(who)).args(["--listen", "127.0.0.1:0"]);
    let proc = Proc::start(c);
    proc.line("its link", |l| l.starts_with("icet://").then_some(()));
    proc
}

/// A publisher who serves nobody without a ticket.
fn scene(more: &[&str]) -> Scene {
    let rt = runtime();
    let tracker = rt.block_on(FakeTracker::start());
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("song.opus");
    media::opus_like(&file, 600_000, 4200, 71).expect("a file");
    let publisher = publish(dir.path(), "publisher", &tracker.url, more);
    let (host, at) = tracker.host();
    Scene { file: read(&file), dir, tracker, at, host, _publisher: publisher, _rt: rt }
}

impl Scene {
    fn body(&self, first: u64, last: u64) -> TicketBody {
        self.tracker.ticket_body(self.tracker.manifest().id(), PageSet::range(first, last))
    }

    fn ask(&self, ticket: &Ticket, range: &str) -> Answer {
        let bearer = format!("Authorization: {}", wire::bearer(ticket));
        get(self.at, "/song.opus", &[&bearer, &format!("Range: {range}")])
    }

    /// Refused with this status, without a byte of the media.
    fn refused(&self, what: &str, status: u16, answer: &Answer) {
        assert_eq!(answer.status, status, "{what}: {}", answer.head);
        assert!(answer.body.len() < 300, "{what}: {} bytes came", answer.body.len());
        let text = String::from_utf8_lossy(&answer.body);
        assert!(!text.contains("OggS"), "{what}: media came");
    }
}

#[test]
fn only_good_tickets_open_a_host() {
    let s = scene(&[]);
    let lie = |f: &dyn Fn(&mut TicketBody)| {
        let mut body = s.body(0, 9);
        f(&mut body);
        s.tracker.issue(&body)
    };
    // None, and none that can be read.
    s.refused("no ticket", 401, &get(s.at, "/song.opus", &[]));
    s.refused("no ticket, pages", 401, &get(s.at, "/song.opus", &["Range: pages=0-3"]));
    for junk in ["Bearer", "Bearer AAAA", "Bearer ////", "Basic dXNlcjpwYXNz", "Bearer \u{1}"] {
        let answer = get(s.at, "/song.opus", &[&format!("Authorization: {junk}"), "Range: pages=0-3"]);
        assert!([400, 401].contains(&answer.status), "{junk:?}: {}", answer.head);
        assert!(answer.body.len() < 300);
    }
    // Forged: under another key, with its MAC altered, with its pages altered under the old MAC.
    let good = lie(&|_| {});
    let guessed = TicketKey([1; 32]).issue(&s.body(0, 9));
    s.refused("under a guessed key", 401, &s.ask(&guessed, "pages=0-9"));
    let mut mac = good.mac;
    mac.0[31] ^= 1;
    s.refused("another MAC", 401, &s.ask(&Ticket { mac, ..good.clone() }, "pages=0-9"));
    s.refused("no MAC", 401, &s.ask(&Ticket { mac: Hash([0; 32]), ..good.clone() }, "pages=0-9"));
    let wider = icet::frame::encode(&TicketBody { pages: PageSet::range(0, 99), ..s.body(0, 9) });
    s.refused("wider", 401, &s.ask(&Ticket { body: wider.into(), mac: good.mac }, "pages=0-99"));
    // Stale: expired, or of a life of the tracker long before.
    s.refused("expired", 401, &s.ask(&lie(&|b| b.expiry = wall_ms() - 60_000), "pages=0-9"));
    s.refused("old epoch", 401, &s.ask(&lie(&|b| b.epoch = EPOCH - 2), "pages=0-9"));
    // Foreign: for another host, another tracker, media, version, protocol.
    s.refused("another host", 401, &s.ask(&lie(&|b| b.host = PeerKey([4; 32])), "pages=0-9"));
    s.refused("another tracker", 401, &s.ask(&lie(&|b| b.tracker = PeerKey([4; 32])), "pages=0-9"));
    s.refused("another media", 403, &s.ask(&lie(&|b| b.media.0[0] ^= 1), "pages=0-9"));
    s.refused("another version", 403, &s.ask(&lie(&|b| b.version += 1), "pages=0-9"));
    let other = |b: &mut TicketBody| b.protocol = "other".parse().expect("a name");
    s.refused("another protocol", 403, &s.ask(&lie(&other), "pages=0-9"));
    // For other pages, in every unit.
    for range in ["pages=10-19", "pages=5-10", "pages=0-", "bytes=0-", "bytes=200000-200010", "t:npt=60-61"] {
        s.refused(range, 403, &s.ask(&lie(&|_| {}), range));
    }
    // A time that begins in its pages and ends long after them: no more than the ticket's bytes, and a quarter.
    let end = pages(&s.file)[9].end;
    let answer = s.ask(&lie(&|_| {}), "t:npt=0-100");
    assert!(answer.body.len() <= end + end / 4, "{} bytes of {end}", answer.body.len());
    // A good one opens its pages, and just these, after all that.
    let answer = s.ask(&good, "pages=0-9");
    assert_eq!(answer.status, 206, "{}", answer.head);
    assert!(answer.body == s.file[..end], "other bytes than pages 0 to 9");
}

#[test]
fn a_ticket_of_one_host_opens_no_other() {
    let s = scene(&[]);
    let ticket = s.tracker.issue(&s.body(0, 9));
    // The same media at another host of the same tracker.
    let _second = publish(s.dir.path(), "second", &s.tracker.url, &[]);
    let (other, at) = s.tracker.host();
    assert_ne!(other, s.host);
    let bearer = format!("Authorization: {}", wire::bearer(&ticket));
    s.refused("at another host", 401, &get(at, "/song.opus", &[&bearer, "Range: pages=0-9"]));
    assert_eq!(s.ask(&ticket, "pages=0-9").status, 206);
}

#[test]
fn a_ticket_is_good_for_its_bytes_once() {
    let s = scene(&[]);
    let ticket = s.tracker.issue(&s.body(10, 29));
    let all = pages(&s.file);
    let size = all[29].end - all[10].start;
    let first = s.ask(&ticket, "pages=10-29");
    assert_eq!((first.status, first.body.len()), (206, size), "{}", first.head);
    // A quarter is left: for all of it again that is too little, and so nothing of it is begun.
    for again in 0..4 {
        s.refused(&format!("use {again} after the first"), 403, &s.ask(&ticket, "pages=10-29"));
    }
    // A few pages that were lost on the way may be asked for again, within the quarter.
    let mut came = size;
    for page in (10..=29).chain(10..=29) {
        let answer = s.ask(&ticket, &format!("pages={page}-{page}"));
        assert!([206, 403].contains(&answer.status), "{}", answer.head);
        came += if answer.status == 206 { answer.body.len() } else { 0 };
    }
    assert!(came > size, "nothing of the quarter was given");
    assert!(came <= size + size / 4, "replayed, it gave {came} bytes of {size}");
}

#[test]
fn a_ticket_is_used_by_one_at_a_time() {
    // So slow that the first is still at it.
    let s = scene(&["--up", "100kB"]);
    let ticket = s.tracker.issue(&s.body(0, 139));
    let mut first = TcpStream::connect(s.at).expect("the host listens");
    let request = format!(
        "GET /song.opus HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nRange: pages=0-139\r\n\r\n",
        s.at,
        wire::bearer(&ticket)
    );
    first.write_all(request.as_bytes()).expect("sent");
    let mut some = [0; 64];
    first.read_exact(&mut some).expect("an answer");
    assert!(some.starts_with(b"HTTP/1.1 206"), "{}", String::from_utf8_lossy(&some));
    s.refused("in use", 503, &s.ask(&ticket, "pages=0-139"));
}
