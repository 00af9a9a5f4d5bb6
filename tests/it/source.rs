//! Encoders that stream into a broadcast as into an Icecast server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use iceshare::ogg::{SplitEvent, Splitter};
use iceshare_tests::media::opus_like;
use iceshare_tests::process::http_get;
use iceshare_tests::{Network, PATIENCE, Proc, have};

pub(crate) const SECRET: &str = "c291cmNlOnMzY3JldA=="; // source:s3cret

/// A broadcast that waits for its encoder, and where that may come.
pub(crate) fn station(network: &Network) -> (Proc, String) {
    station_with(network, &[])
}

pub(crate) fn station_with(network: &Network, more: &[&str]) -> (Proc, String) {
    let tracker = network.tracker.url.as_str();
    let args = ["broadcast", "--tracker", tracker, "--as", "radio/one", "--listen-source", "127.0.0.1:0"];
    let station = network.run("station", &[&args[..], &["--source-password", "s3cret"], more].concat());
    // The password, which was set, is not told.
    let door = station.error_line("where encoders may come", |l| {
        let (_, rest) = l.split_once("icecast://source@")?;
        Some(rest.split('/').next()?.to_owned())
    });
    (station, door)
}

/// The link of a broadcast that is on the air.
pub(crate) fn link(station: &Proc) -> String {
    station.error_line("that it is on the air", |l| l.contains("Ctrl-C ends it").then_some(()));
    told_link(station)
}

/// The first link that a command tells.
pub(crate) fn told_link(station: &Proc) -> String {
    station.line("its link", |l| l.starts_with("icet://").then(|| l.trim().to_owned()))
}

/// What a connection says to `head`, as far as `until`.
pub(crate) fn say(door: &str, head: &str, until: &str) -> (TcpStream, String) {
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
    // Who waits for a word gets one: before its stream, if it says what it is, else behind its beginning.
    let aac = format!("PUT /live HTTP/1.1\n{auth}Content-Type: audio/aac\nExpect: 100-continue\n\n");
    let (_, said) = say(&door, &aac, "\n\n");
    assert!(said.starts_with("HTTP/1.1 415 ") && said.contains("audio/aac cannot be broadcast"), "{said}");
    let put = format!("PUT /live HTTP/1.1\n{auth}Content-Type: audio/ogg\nExpect: 100-continue\n\n");
    let (mut liar, said) = say(&door, &put, "\r\n\r\n");
    assert_eq!(said, "HTTP/1.1 100 Continue\r\n\r\n");
    liar.write_all(&[0xff, 0xfb, 0x90, 0x64].repeat(100)).expect("taken");
    let mut said = String::new();
    liar.read_to_string(&mut said).expect("an answer, and no reset");
    assert!(said.starts_with("HTTP/1.1 415 ") && said.contains("no Ogg"), "{said}");

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

/// The answer to a request and its body, which comes behind a `100 Continue` if the request waits for one.
fn put(door: &str, head: &str, body: &[u8]) -> String {
    let head = format!("PUT /x.ogg HTTP/1.1\nAuthorization: Basic {SECRET}\n{head}\n\n");
    let until = if head.contains("Expect") { "\r\n\r\n" } else { "" };
    let (mut stream, said) = say(door, &head, until);
    assert!(until.is_empty() || said == "HTTP/1.1 100 Continue\r\n\r\n", "{said}");
    stream.write_all(body).expect("taken");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("an answer");
    said
}

#[test]
fn a_body_that_has_an_end_is_answered_there() {
    let network = Network::new();
    let file = network.path("one.opus");
    opus_like(&file, 40_000, 1200, 1).expect("a source");
    let file = std::fs::read(file).expect("a file");
    let (station, door) = station(&network);
    // No Ogg, and shorter than its first page.
    for short in ["hello", "Ogg", "OggS and no page"] {
        let chunk = format!("{:x}\r\n{short}\r\n0\r\n\r\n", short.len());
        let said = put(&door, "Expect: 100-continue\nTransfer-Encoding: chunked", chunk.as_bytes());
        assert!(said.starts_with("HTTP/1.1 415 ") && said.contains("no Ogg"), "{short}: {said}");
        let said = put(&door, &format!("Content-Length: {}", short.len()), short.as_bytes());
        assert!(said.starts_with("HTTP/1.1 415 ") && said.contains("no Ogg"), "{short}: {said}");
    }
    // curl -T FILE, one after the other: the place is free at once.
    for expect in ["\nExpect: 100-continue", "", ""] {
        let said = put(&door, &format!("Content-Length: {}{expect}", file.len()), &file);
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.contains("was taken"), "{said}");
    }
    link(&station);
}

#[test]
fn who_asks_without_a_password_is_no_stranger_and_a_password_that_was_set_is_not_told() {
    let network = Network::new();
    let (station, door) = station(&network);
    // libshout asks so at first.
    let ask = "SOURCE /live HTTP/1.1\nConnection: keep-alive\nContent-Length: 0\n\n";
    let (_, said) = say(&door, ask, "\n\n");
    assert!(said.starts_with("HTTP/1.1 401 ") && said.contains("WWW-Authenticate: Basic"), "{said}");
    // And then with it, over a body that has no length.
    let ask = ask.replace("\n\n", &format!("\nAuthorization: Basic {SECRET}\n\n"));
    let (mut source, said) = say(&door, &ask, "\r\n\r\n");
    assert_eq!(said, "HTTP/1.1 200 OK\r\n\r\n");
    let file = network.path("one.opus");
    opus_like(&file, 40_000, 1200, 1).expect("a source");
    source.write_all(&std::fs::read(file).expect("a file")).expect("taken");
    link(&station);
    assert!(!station.stderr().contains("was refused"), "{}", station.stderr());
    let (_, said) = say(&door, "SOURCE /live HTTP/1.0\nAuthorization: Basic c291cmNlOngK\n\n", "\n\n");
    assert!(said.starts_with("HTTP/1.1 401 "), "{said}");
    station.error_line("that a stranger came", |l| l.contains("was refused").then_some(()));
    assert!(!station.stderr().contains("s3cret"), "{}", station.stderr());
    // One of the station's own is.
    let args = [
        "broadcast",
        "--tracker",
        &network.tracker.url,
        "--as",
        "radio/two",
        "--listen-source",
        "127.0.0.1:0",
    ];
    let own = network.run("own", &args);
    let password = own.error_line("its password", |l| {
        let (_, rest) = l.split_once("icecast://source:")?;
        Some(rest.split('@').next()?.to_owned())
    });
    assert_eq!(password.len(), 16);
}

/// The same of a file that is being written.
fn bodies_so_far(file: &Path) -> Vec<Vec<u8>> {
    if file.exists() { bodies(file) } else { Vec::new() }
}

/// A tone that rises, so that no stretch of it is like another; as FLAC, so that samples are equal.
const TONE: &str = "aevalsrc=0.5*sin(2*PI*(200+30*t)*t):d=120:s=16000";

/// ffmpeg, which streams the tone to an Icecast server.
pub(crate) fn encoder(password: &str, door: &str) -> Proc {
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-re", "-f", "lavfi", "-i", TONE, "-c:a", "flac"]);
    ffmpeg.args(["-page_duration", "200000", "-f", "ogg"]);
    Proc::start({
        ffmpeg.arg(format!("icecast://source:{password}@{door}/live.oga"));
        ffmpeg
    })
}

/// All of the tone.
pub(crate) fn tone(network: &Network) -> std::path::PathBuf {
    let whole = network.path("whole.oga");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", TONE, "-c:a", "flac"]);
    assert!(ffmpeg.arg(&whole).status().is_ok_and(|s| s.success()));
    whole
}

/// Checks that `seconds` of the tone were recorded, without a gap or a repeat.
pub(crate) fn is_of_the_tone(network: &Network, recorded: &Path, seconds: usize) {
    let sound = crate::live::decoded(recorded);
    let whole = crate::live::decoded(&tone(network));
    assert!(sound.len() >= seconds * 16_000 * 2, "{} bytes", sound.len());
    let from = whole.windows(64).step_by(2).position(|w| *w == sound[..64]).expect("a place in the tone");
    assert!(whole[2 * from..].starts_with(&sound), "a gap, a repeat, or another sound");
}

#[test]
fn ffmpeg_streams_into_a_broadcast() {
    if !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let (station, door) = station(&network);
    let mut wrong = encoder("wrong", &door);
    assert_ne!(wrong.end(), Some(0));
    assert!(wrong.stderr().contains("401"), "{}", wrong.stderr());
    let _encoder = encoder("s3cret", &door);
    let (mut listener, out) = network.get("listener", &link(&station), &["--for", "3s"]);
    listener.ends_with(0);
    is_of_the_tone(&network, &out, 3);
}

/// Checks that the encoder that `command` makes for a port is heard.
fn is_heard(program: &str, command: impl FnOnce(&Network, &str) -> Command) {
    if !have(program) || !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let (station, door) = station(&network);
    let encoder = Proc::start(command(&network, door.rsplit(':').next().expect("a port")));
    station.error_line(&format!("{program} on the air"), |l| l.starts_with("on the air: ").then_some(()));
    let (mut listener, out) = network.get("listener", &link(&station), &["--for", "2s"]);
    listener.ends_with(0);
    let sound = crate::live::decoded(&out);
    assert!(sound.len() >= 2 * 44_100 * 2, "{} bytes; {}", sound.len(), encoder.stderr());
}

/// Half a minute of a tone in Ogg Vorbis.
fn vorbis(network: &Network) -> String {
    let file = network.path("tone.ogg");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", "sine=440:sample_rate=44100:duration=30"]);
    assert!(ffmpeg.args(["-c:a", "libvorbis"]).arg(&file).status().is_ok_and(|s| s.success()));
    file.to_string_lossy().into_owned()
}

#[test]
fn gstreamer_is_heard() {
    is_heard("gst-launch-1.0", |_, port| {
        let mut c = Command::new("gst-launch-1.0");
        c.args([
            "-q",
            "audiotestsrc",
            "is-live=true",
            "!",
            "audio/x-raw,rate=44100",
            "!",
            "audioconvert",
            "!",
        ]);
        c.args(["vorbisenc", "!", "oggmux", "!", "shout2send", "ip=127.0.0.1", "password=s3cret"]);
        c.args(["mount=/live.ogg", "protocol=http", &format!("port={port}")]);
        c
    });
}

#[test]
fn ezstream_is_heard() {
    is_heard("ezstream", |network, port| {
        let (config, tone) = (network.path("ezstream.xml"), vorbis(network));
        let text = format!(
            "<ezstream><servers><server><hostname>127.0.0.1</hostname><port>{port}</port>\
             <password>s3cret</password></server></servers>\
             <streams><stream><mountpoint>/live.ogg</mountpoint><format>Ogg</format></stream></streams>\
             <intakes><intake><type>file</type><filename>{tone}</filename></intake></intakes></ezstream>"
        );
        std::fs::write(&config, text).expect("a file");
        let mut c = Command::new("ezstream");
        c.arg("-c").arg(config);
        c
    });
}

#[test]
fn ices_is_heard() {
    is_heard("ices2", |network, port| {
        let (config, list, tone) = (network.path("ices.xml"), network.path("list"), vorbis(network));
        let (logs, file) = (network.path("").display().to_string(), list.display().to_string());
        std::fs::write(list, format!("{tone}\n")).expect("a file");
        let text = format!(
            "<ices><background>0</background><logpath>{logs}</logpath><logfile>ices.log</logfile>\
             <consolelog>1</consolelog><stream><metadata><name>one</name></metadata><input>\
             <module>playlist</module><param name=\"type\">basic</param>\
             <param name=\"file\">{file}</param></input><instance><hostname>127.0.0.1</hostname>\
             <port>{port}</port><password>s3cret</password><mount>/live.ogg</mount></instance></stream></ices>"
        );
        std::fs::write(&config, text).expect("a file");
        let mut c = Command::new("ices2");
        c.arg(config);
        c
    });
}

#[test]
fn liquidsoap_is_heard() {
    is_heard("liquidsoap", |_, port| {
        let script = format!(
            "set(\"init.allow_root\", true) output.icecast(%vorbis, host=\"127.0.0.1\", port={port}, \
             password=\"s3cret\", mount=\"live.ogg\", mksafe(sine()))"
        );
        let mut c = Command::new("liquidsoap");
        c.arg(script);
        c
    });
}

/// A real Icecast server on a free port of loopback.
pub(crate) fn icecast(network: &Network) -> (Proc, String) {
    // It cannot be told to choose one: somebody else may take it in between.
    for _ in 0..3 {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let (config, dir) = (network.path("icecast.xml"), network.path("").display().to_string());
        let share = "/usr/share/icecast2";
        let text = format!(
            "<icecast><limits><sources>2</sources></limits><authentication>\
             <source-password>s3cret</source-password><admin-user>a</admin-user>\
             <admin-password>s3cret</admin-password></authentication><hostname>localhost</hostname>\
             <listen-socket><port>{}</port><bind-address>127.0.0.1</bind-address></listen-socket>\
             <paths><basedir>{share}</basedir><logdir>{dir}</logdir><webroot>{share}/web</webroot>\
             <adminroot>{share}/admin</adminroot></paths>\
             <logging><accesslog>-</accesslog><errorlog>-</errorlog><loglevel>3</loglevel></logging>\
             <security><chroot>0</chroot><changeowner><user>nobody</user><group>nogroup</group>\
             </changeowner></security></icecast>",
            free.port()
        );
        std::fs::write(&config, text).expect("a file");
        let mut c = Command::new("icecast2");
        c.arg("-c").arg(&config);
        let server = Proc::start(c);
        let started = server.error_line("icecast2", |l| match l {
            l if l.contains("server started") => Some(true),
            l if l.contains("Could not create listener") => Some(false),
            _ => None,
        });
        if started {
            return (server, free.to_string());
        }
    }
    panic!("icecast2 found no free port three times");
}

#[test]
fn an_icecast_mount_is_broadcast() {
    if !have("icecast2") || !have("ffmpeg") {
        return;
    }
    let network = Network::new();
    let (_server, at) = icecast(&network);
    let _encoder = encoder("s3cret", &at);
    let deadline = Instant::now() + PATIENCE;
    while !http_get(&at, "/status-json.xsl").contains("live.oga") {
        assert!(Instant::now() < deadline, "the encoder does not come to Icecast");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let mount = format!("http://{at}/live.oga");
    let tracker = network.tracker.url.as_str();
    let station =
        network.run("station", &["broadcast", "--tracker", tracker, "--as", "radio/one", "--from", &mount]);
    let (mut listener, out) = network.get("listener", &link(&station), &["--for", "3s"]);
    listener.ends_with(0);
    is_of_the_tone(&network, &out, 3);
}
