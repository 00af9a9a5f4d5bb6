//! Encoders that stream into a broadcast as into an Icecast server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use iceshare::ogg::{SplitEvent, Splitter};
use iceshare_tests::media::opus_like;
use iceshare_tests::{Network, PATIENCE, Proc, have};

const SECRET: &str = "c291cmNlOnMzY3JldA=="; // source:s3cret

/// A broadcast that waits for its encoder, and where that may come.
fn station(network: &Network) -> (Proc, String) {
    let tracker = network.tracker.url.as_str();
    let args = ["broadcast", "--tracker", tracker, "--as", "radio/one", "--listen-source", "127.0.0.1:0"];
    let station = network.run("station", &[&args[..], &["--source-password", "s3cret"]].concat());
    let door = station.error_line("where encoders may come", |l| {
        let (_, rest) = l.split_once("icecast://source:s3cret@")?;
        Some(rest.split('/').next()?.to_owned())
    });
    (station, door)
}

fn link(station: &Proc) -> String {
    station.line("its link", |l| l.starts_with("icet://").then(|| l.trim().to_owned()))
}

/// What a connection says to `head`, as far as `until`.
fn say(door: &str, head: &str, until: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(door).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(head.replace('\n', "\r\n").as_bytes()).expect("taken");
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !said.ends_with(until.as_bytes()) && stream.read(&mut byte).expect("an answer") > 0 {
        said.push(byte[0]);
    }
    (stream, String::from_utf8(said).expect("text"))
}

/// The bodies of a file's pages: what stays of a page in another link.
fn bodies(file: &Path) -> Vec<Vec<u8>> {
    let mut splitter = Splitter::new();
    splitter.push(std::fs::read(file).expect("a file").into());
    let mut bodies = Vec::new();
    while let Some(event) = splitter.next() {
        let SplitEvent::Page { bytes, .. } = event else { panic!("{}: {event:?}", file.display()) };
        bodies.push(bytes[27 + usize::from(bytes[26])..].to_vec());
    }
    bodies
}

#[test]
fn encoders_of_every_kind_follow_each_other_in_one_broadcast() {
    let network = Network::new();
    let files = [1, 2, 3].map(|seed| {
        let file = network.path(&format!("{seed}.opus"));
        opus_like(&file, if seed == 1 { 400_000 } else { 40_000 }, 1200, seed).expect("a source");
        std::fs::read(file).expect("a file")
    });
    let (station, door) = station(&network);
    let auth = format!("Authorization: Basic {SECRET}\n");
    // BUTT, ices2, ezstream; half of it at first.
    let (mut old, said) = say(&door, &format!("SOURCE /live HTTP/1.0\n{auth}ice-name: one\n\n"), "\r\n\r\n");
    assert_eq!(said, "HTTP/1.0 200 OK\r\n\r\n");
    let mut rest = files[0].as_slice();
    let mut send = |bytes: usize| {
        let part;
        (part, rest) = rest.split_at(bytes.min(rest.len()));
        old.write_all(part).expect("taken");
    };
    send(50_000);
    let (mut listener, out) = network.get("listener", &link(&station), &[]);
    let deadline = Instant::now() + PATIENCE;
    let wait = |what: &str, holds: &mut dyn FnMut() -> bool| {
        while !holds() {
            assert!(Instant::now() < deadline, "{what}: {}", listener.stderr());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    };
    wait("the listener hears something", &mut || {
        send(100);
        std::fs::metadata(&out).is_ok_and(|m| m.len() > 2000)
    });
    // Meanwhile nobody else comes in.
    let (_, said) = say(&door, &format!("SOURCE /b HTTP/1.0\n{auth}\n"), "\n\n");
    assert!(said.starts_with("HTTP/1.1 403 ") && said.contains("another source is on the air"), "{said}");
    let (_, said) = say(&door, "PUT /b HTTP/1.1\nAuthorization: Basic c291cmNlOngK\n\n", "\n\n");
    assert!(said.starts_with("HTTP/1.1 401 ") && said.contains("WWW-Authenticate: Basic"), "{said}");
    send(usize::MAX);
    old.shutdown(Shutdown::Write).expect("an end");
    assert_eq!(old.read(&mut [0]).ok(), Some(0), "it is let go");

    // libshout: chunks.
    let put = format!("PUT /live HTTP/1.1\n{auth}Transfer-Encoding: chunked\nExpect: 100-continue\n\n");
    let (mut new, said) = say(&door, &put, "\r\n\r\n");
    assert_eq!(said, "HTTP/1.1 100 Continue\r\n\r\n");
    for chunk in files[1].chunks(3001) {
        let chunk = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
        new.write_all(&chunk).expect("taken");
    }
    new.write_all(b"0\r\n\r\n").expect("taken");
    let mut said = String::new();
    new.read_to_string(&mut said).expect("an answer");
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");

    // No Ogg: only that encoder goes.
    let (mut mp3, _) = say(&door, &format!("SOURCE /live HTTP/1.0\n{auth}\n"), "\r\n\r\n");
    mp3.write_all(&[0xff, 0xfb, 0x90, 0x64].repeat(100)).expect("taken");
    // What it sent may be unread then, and the connection is reset.
    let _ = mp3.read(&mut [0]);

    let (mut ice, said) = say(&door, &format!("SOURCE /live ICE/1.0\n{auth}\n"), "\r\n\r\n");
    assert!(said.starts_with("HTTP/1.0 200 "), "{said}");
    ice.write_all(&files[2]).expect("taken");
    ice.shutdown(Shutdown::Write).expect("an end");

    let [first, second, third] = [1, 2, 3].map(|seed| bodies(&network.path(&format!("{seed}.opus"))));
    wait("the listener hears the end", &mut || bodies_so_far(&out).last() == third.last());
    listener.signal("INT");
    listener.end();
    let heard = bodies(&out);
    let mut heard = &heard[..];
    for (part, name) in [(&third, "third"), (&second, "second"), (&first, "first")] {
        let (before, end) = heard.split_at(heard.len().saturating_sub(part.len()));
        if name == "first" {
            // From where the listener came in, behind the setup.
            assert!(heard.len() > 4 && part.ends_with(&heard[2..]), "the first is not whole");
        } else {
            assert!(end == &part[..], "the {name} is not whole");
            heard = before;
        }
    }
}

/// The same of a file that is being written.
fn bodies_so_far(file: &Path) -> Vec<Vec<u8>> {
    if file.exists() { bodies(file) } else { Vec::new() }
}

#[test]
fn ffmpeg_streams_into_a_broadcast() {
    if !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let (station, door) = station(&network);
    let tone = "aevalsrc=0.5*sin(2*PI*(200+30*t)*t):d=20:s=16000";
    let encoder = |password: &str| {
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-re", "-f", "lavfi", "-i", tone, "-c:a", "flac"]);
        ffmpeg.args(["-page_duration", "200000", "-f", "ogg"]);
        ffmpeg.arg(format!("icecast://source:{password}@{door}/live.oga"));
        Proc::start(ffmpeg)
    };
    let mut wrong = encoder("wrong");
    assert_ne!(wrong.end(), Some(0));
    assert!(wrong.stderr().contains("401"), "{}", wrong.stderr());
    let _encoder = encoder("s3cret");
    let (mut listener, out) = network.get("listener", &link(&station), &["--for", "3s"]);
    listener.ends_with(0);
    let sound = crate::live::decoded(&out);
    let whole = network.path("whole.oga");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", tone, "-c:a", "flac"]);
    assert!(ffmpeg.arg(&whole).status().is_ok_and(|s| s.success()));
    let whole = crate::live::decoded(&whole);
    assert!(sound.len() >= 3 * 16_000 * 2, "{} bytes", sound.len());
    let from = whole.windows(64).step_by(2).position(|w| *w == sound[..64]).expect("a place in the tone");
    assert!(whole[2 * from..].starts_with(&sound), "a gap, a repeat, or another sound");
}

#[test]
fn libshout_streams_into_a_broadcast() {
    // GStreamer's shout2send is libshout, which most encoders are built on.
    if !have("gst-launch-1.0") || !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let (station, door) = station(&network);
    let port = door.rsplit(':').next().expect("a port");
    let mut gst = Command::new("gst-launch-1.0");
    gst.args([
        "-q",
        "audiotestsrc",
        "is-live=true",
        "!",
        "audioconvert",
        "!",
        "vorbisenc",
        "!",
        "oggmux",
        "!",
    ]);
    gst.args(["shout2send", "ip=127.0.0.1", "password=s3cret", "mount=/live.ogg", "protocol=http"]);
    let encoder = Proc::start({
        gst.arg(format!("port={port}"));
        gst
    });
    let (mut listener, out) = network.get("listener", &link(&station), &["--for", "2s"]);
    listener.ends_with(0);
    let sound = crate::live::decoded(&out);
    assert!(sound.len() >= 2 * 44_100 * 2, "{} bytes; {}", sound.len(), encoder.stderr());
}
