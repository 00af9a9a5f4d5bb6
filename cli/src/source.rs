//! Where the pages of a broadcast come from: a file, standard input, or a URL (an Icecast mount, any HTTP Ogg).

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use iceshare::live::{Repage, Titles};
use iceshare::ogg::{Damage, PageHeader, SplitEvent, Splitter, Timeline};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::escape::brief;
use crate::failure::Failure;
use crate::listen_source::{self, Arrived, Door, Title};
use crate::output::note;
use crate::recent::Recent;

/// Bytes read at once.
const BLOCK: usize = 32 * 1024;
/// What an encoder is told that sends something else.
const NO_OGG: &str = "this is no Ogg: set the encoder to Ogg with Opus, Vorbis or FLAC";
/// Why it is sent away, if it begins like it.
const NO_PAGE: &str = "no Ogg page came of it";
/// What a page begins with.
const OGG: &[u8] = b"OggS";
/// The first page of a source comes within so many bytes, which are more than a page has, or it is something else than Ogg. Icecast sends
/// as many at once.
const SEARCH: u64 = 64 * 1024;
/// An encoder that sends nothing for so long is spoken of.
const QUIET: Duration = Duration::from_secs(3);
/// Pages in hand between the source and the broadcast.
const QUEUE: usize = 256;
/// Logical streams of a link that are followed.
const STREAMS: usize = 64;
/// Setup pages that are looked for a page of sound.
const SETUP: usize = 256;
/// Pauses before a URL is asked again; how long it may take to answer, and be silent.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
const ANSWER: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(20);
/// What we call ourselves where we listen, with a word by which we, and nobody else, know our own connections among a server's listeners.
pub(crate) static AGENT: LazyLock<String> = LazyLock::new(|| {
    let mut word = [0; 8];
    // Without randomness nobody would be told from us; such a system starts no session either.
    let _ = getrandom::fill(&mut word);
    let word: String = word.iter().map(|b| format!("{b:02x}")).collect();
    format!("iceshare/{} (relay {word})", env!("CARGO_PKG_VERSION"))
});

/// `--from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum From {
    Stdin,
    File(PathBuf),
    /// `http://HOST[:PORT]/PATH`: authority, address to dial, and what is asked for.
    Http {
        authority: String,
        dial: String,
        path: String,
    },
    /// Encoders come to us.
    Listen(Door),
}

impl FromStr for From {
    type Err = String;

    fn from_str(s: &str) -> Result<From, String> {
        if s == "-" {
            return Ok(From::Stdin);
        }
        if s.is_empty() {
            return Err("name a file, a URL, or - for standard input".to_owned());
        }
        let Some((scheme, rest)) = s.split_once("://") else { return Ok(From::File(PathBuf::from(s))) };
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(format!("{scheme}: sources are http:// URLs, files, or - for standard input"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let bad =
            authority.is_empty() || authority.contains('@') || s.chars().any(|c| c.is_control() || c == ' ');
        if bad {
            return Err("a URL is http://HOST[:PORT]/PATH, without a user name".to_owned());
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok());
        let dial = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let path = path.split('#').next().unwrap_or_default();
        Ok(From::Http { authority: authority.to_owned(), dial, path: format!("/{path}") })
    }
}

/// How a source is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct How {
    /// What messages about it begin with, where there are several.
    pub(crate) named: Option<String>,
    /// A file begins anew when it ends.
    pub(crate) again: bool,
    /// A URL that is not there yet is asked again until it is.
    pub(crate) waits: bool,
    /// Longer pages are cut into shorter ones.
    pub(crate) page_time: Option<Duration>,
}

/// Pages on their way from a source.
pub(crate) type Pages = mpsc::Receiver<(PageHeader, Bytes)>;

/// A source that was opened, and its first pages: all setup pages, and one behind them.
pub(crate) struct Source {
    pub(crate) first: Vec<(PageHeader, Bytes)>,
    /// The pages behind them.
    pub(crate) pages: Pages,
}

impl Source {
    /// Opens it and waits for its first pages.
    pub(crate) async fn open(from: &From, how: How) -> Result<Source, Failure> {
        let (out, mut pages) = mpsc::channel(QUEUE);
        let (failed, mut failure) = mpsc::channel(1);
        let from = from.clone();
        let named = how.named.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let name = match &from {
            From::Stdin => "standard input".to_owned(),
            From::File(path) => path.display().to_string(),
            From::Http { authority, path, .. } => format!("http://{authority}{path}"),
            From::Listen(door) => format!("what comes to {}", door.listen),
        };
        tokio::spawn(async move {
            let read = match &from {
                From::Stdin => stdin(how, out).await,
                From::File(path) => file(path, how, out).await,
                From::Http { .. } => http(&from, how, out).await,
                From::Listen(door) => listen(door.clone(), how, out).await,
            };
            if let Err(why) = read
                && let Err(why) = failed.send(why).await
            {
                note(format!("iceshare: {named}the source has failed: {}", why.0));
            }
        });
        let (mut first, mut timeline) = (Vec::new(), Timeline::new());
        loop {
            match pages.recv().await {
                Some((header, bytes)) => {
                    let place = timeline.page(&header, &bytes);
                    first.push((header, bytes));
                    if !place.setup || first.len() >= SETUP {
                        return Ok(Source { first, pages });
                    }
                }
                None => {
                    let nothing = if first.is_empty() {
                        "it is not Ogg: no page in it"
                    } else {
                        "it ends before any sound"
                    };
                    let why = failure.recv().await.unwrap_or_else(|| nothing.to_owned());
                    return Err(Failure::failed(format!("cannot broadcast {name}: {why}")));
                }
            }
        }
    }
}

/// Cuts what is read into pages and hands them on.
struct Reading {
    out: mpsc::Sender<(PageHeader, Bytes)>,
    splitter: Splitter,
    pace: Option<Paced>,
    seen: u64,
    pages: u64,
    recent: Option<Recent>,
    repage: Option<Repage>,
    titles: Titles,
    begun: Begun,
}

/// Logical streams whose last page has not come.
#[derive(Debug, Default)]
struct Begun {
    serials: HashSet<u32>,
    /// The last page began none.
    body: bool,
}

impl Begun {
    fn page(&mut self, header: &PageHeader) {
        // The links before are over, whether or not they say so.
        if header.bos && self.body {
            self.serials.clear();
        }
        self.body = !header.bos;
        if header.eos {
            self.serials.remove(&header.serial);
        } else if header.bos && self.serials.len() < STREAMS {
            self.serials.insert(header.serial);
        }
    }

    /// Whether what ends here ends in the middle of a stream, as that of a program that was killed does.
    fn broke_off(&self) -> bool {
        !self.serials.is_empty()
    }
}

/// When a file's pages are due.
struct Paced {
    began: Instant,
    timeline: Timeline,
}

impl Reading {
    fn new(out: mpsc::Sender<(PageHeader, Bytes)>, how: &How) -> Reading {
        Reading {
            out,
            splitter: Splitter::new(),
            pace: None,
            seen: 0,
            pages: 0,
            recent: None,
            repage: how.page_time.map(Repage::new),
            titles: Titles::default(),
            begun: Begun::default(),
        }
    }

    /// Reads to the end. False: nobody takes the pages any more.
    async fn all(&mut self, mut from: impl AsyncRead + Unpin) -> Result<bool, String> {
        let mut buf = vec![0; BLOCK];
        loop {
            let n = from.read(&mut buf).await.map_err(|e| format!("it cannot be read: {e}"))?;
            let Some(bytes) = buf.get(..n).filter(|b| !b.is_empty()) else {
                return self.end().await;
            };
            if !self.push(Bytes::copy_from_slice(bytes)).await? {
                return Ok(false);
            }
        }
    }

    async fn push(&mut self, bytes: Bytes) -> Result<bool, String> {
        self.seen += bytes.len() as u64;
        self.splitter.push(bytes);
        let goes_on = self.cut().await?;
        if self.pages == 0 && self.seen >= SEARCH {
            return Err("it is not Ogg".to_owned());
        }
        Ok(goes_on)
    }

    /// The source has ended: hands on what is left.
    async fn end(&mut self) -> Result<bool, String> {
        self.splitter.gap();
        let goes_on = self.cut().await?;
        let rest = self.repage.as_mut().map(Repage::end).unwrap_or_default();
        Ok(goes_on && self.hand_on(rest).await)
    }

    /// Hands pages on when they are due, with their titles. False: nobody takes them any more.
    async fn hand_on(&mut self, pages: Vec<(PageHeader, Bytes)>) -> bool {
        for (header, bytes) in pages {
            if let Some(pace) = &mut self.pace {
                let place = pace.timeline.page(&header, &bytes);
                let due = Duration::from_micros(u64::try_from(place.time).unwrap_or(0));
                sleep_until(pace.began + due).await;
            }
            for page in self.titles.page(&header, bytes) {
                if self.out.send(page).await.is_err() {
                    return false;
                }
            }
        }
        true
    }

    /// Hands on what is whole.
    async fn cut(&mut self) -> Result<bool, String> {
        while let Some(event) = self.splitter.next() {
            match event {
                SplitEvent::Page { header, bytes } => {
                    self.pages += 1;
                    self.begun.page(&header);
                    let new: Vec<_> = match &mut self.recent {
                        Some(recent) => recent.page(Instant::now(), header, bytes).collect(),
                        None => vec![(header, bytes)],
                    };
                    for (header, bytes) in new {
                        let parts = match &mut self.repage {
                            Some(repage) => repage.page(&header, bytes),
                            None => vec![(header, bytes)],
                        };
                        if !self.hand_on(parts).await {
                            return Ok(false);
                        }
                    }
                }
                SplitEvent::Skipped(damage) => skipped(&damage),
            }
        }
        Ok(true)
    }
}

fn skipped(damage: &Damage) {
    tracing::warn!(%damage, "left out of the broadcast");
}

async fn stdin(how: How, out: mpsc::Sender<(PageHeader, Bytes)>) -> Result<(), String> {
    let stdin =
        std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| format!("it cannot be read: {e}"))?;
    let mut reading = Reading::new(out, &how);
    if reading.all(tokio::fs::File::from_std(stdin.into())).await? && reading.begun.broke_off() {
        note(
            "standard input ends in the middle of its stream: the program that wrote it was killed, or failed",
        );
    }
    Ok(())
}

async fn file(path: &PathBuf, how: How, out: mpsc::Sender<(PageHeader, Bytes)>) -> Result<(), String> {
    let mut reading = Reading::new(out, &how);
    reading.pace = Some(Paced { began: Instant::now(), timeline: Timeline::new() });
    loop {
        let before = reading.pages;
        let file = tokio::fs::File::open(path).await.map_err(|e| format!("it cannot be opened: {e}"))?;
        if !reading.all(file).await? || !how.again {
            return Ok(());
        }
        if reading.pages == before {
            return Err("it has no Ogg page".to_owned());
        }
    }
}

/// Follows a URL, and asks again when it breaks off, and before it is there if it is to wait.
async fn http(from: &From, how: How, out: mpsc::Sender<(PageHeader, Bytes)>) -> Result<(), String> {
    let mut reading = Reading::new(out, &how);
    reading.recent = Some(Recent::default());
    let named = how.named.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    let mut pause = PAUSE.0;
    // What is told of a source that is not there, or not any more.
    let mut told = false;
    loop {
        let before = reading.pages;
        let why = match request(from).await {
            Ok(mut body) => loop {
                match timeout(SILENCE, body.frame()).await {
                    Ok(Some(Ok(frame))) => {
                        if let Ok(bytes) = frame.into_data() {
                            if !reading.push(bytes).await? {
                                return Ok(());
                            }
                            if told && reading.pages > before {
                                told = false;
                                let what = if before == 0 { "there" } else { "back" };
                                note(format!("{named}the source is {what}"));
                            }
                        }
                    }
                    Ok(Some(Err(e))) => break e.to_string(),
                    Ok(None) => break "it ended".to_owned(),
                    Err(_) => break format!("nothing came for {} s", SILENCE.as_secs()),
                }
            },
            Err(why) => why,
        };
        if reading.pages == 0 && !how.waits {
            return Err(why);
        }
        // Nobody takes its pages any more.
        if reading.out.is_closed() {
            return Ok(());
        }
        pause = if reading.pages > before { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
        if !std::mem::replace(&mut told, true) {
            note(match reading.pages {
                0 => format!(
                    "{named}waiting for the source, which is not there yet ({why}); it is asked again, after half a second first, then after up to {} s",
                    PAUSE.1.as_secs()
                ),
                _ => format!(
                    "{named}the source broke off ({why}); it is asked again until it is back, after half a second first, then after up to {} s",
                    PAUSE.1.as_secs()
                ),
            });
        }
        reading.seen = 0;
        reading.splitter = Splitter::new();
        reading.recent.iter_mut().for_each(Recent::is_back);
        sleep(pause).await;
    }
}

/// Takes one encoder's stream after the other.
async fn listen(door: Door, how: How, out: mpsc::Sender<(PageHeader, Bytes)>) -> Result<(), String> {
    // A password that its user set stands in no log.
    let (secret, note_on) = match door.told {
        true => (format!(":{}", door.password), ""),
        false => (String::new(), ", with the password that was set"),
    };
    let (address, mut sources, mut titles) =
        listen_source::open(door).await.map_err(|e| format!("sources cannot come there: {e}"))?;
    note(format!(
        "waiting for an encoder that streams Ogg to icecast://source{secret}@{address}/live{note_on}"
    ));
    let mut reading = Reading::new(out, &how);
    while let Some(Arrived { who, mut bytes, refuse }) = sources.recv().await {
        (reading.splitter, reading.seen, reading.pages) = (Splitter::new(), 0, 0);
        reading.begun = Begun::default();
        let (mut begun, mut quiet, mut away) = (false, false, None);
        loop {
            let piece = tokio::select! {
                biased;
                // The sender lives as long as the door is open.
                Some(title) = titles.recv() => {
                    set_title(&mut reading.titles, title);
                    continue;
                }
                piece = timeout(QUIET, bytes.recv()) => piece,
            };
            let Ok(piece) = piece else {
                if !std::mem::replace(&mut quiet, true) {
                    note(format!(
                        "nothing comes of {who}, which has the place; when it is silent for {} s, the place is free",
                        listen_source::PATIENCE.as_secs()
                    ));
                }
                continue;
            };
            let Some(piece) = piece else { break };
            if std::mem::take(&mut quiet) {
                note(format!("it comes again of {who}"));
            }
            if !begun && !piece.starts_with(OGG.get(..piece.len()).unwrap_or(OGG)) {
                away = Some("it sends no Ogg");
                break;
            }
            if !std::mem::replace(&mut begun, true) {
                note(format!("on the air: {who}"));
            }
            match reading.push(piece).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(_) => {
                    away = Some(NO_PAGE);
                    break;
                }
            }
        }
        if away.is_none() {
            if !reading.end().await? {
                return Ok(());
            }
            // What ends before it has a page is no Ogg either.
            away = (begun && !quiet && reading.pages == 0).then_some(NO_PAGE);
        }
        if let Some(why) = away {
            note(format!("{who} was sent away, for {why}: {}", listen_source::OGG_ONLY));
            // Gone already: then nobody need be told.
            let _ = refuse.send(NO_OGG);
            continue;
        }
        drop(refuse);
        let what = match (begun, quiet) {
            (_, true) => format!("nothing came of {who} any more, and its place is free"),
            (true, false) if reading.begun.broke_off() => {
                format!(
                    "the stream of {who} broke off in the middle: the encoder was killed, or the connection is cut"
                )
            }
            (true, false) => "the encoder has ended its stream".to_owned(),
            (false, false) => format!("{who} went away before it sent anything"),
        };
        note(format!("{what}; the broadcast goes on when it, or another, comes again"));
    }
    Ok(())
}

fn set_title(titles: &mut Titles, title: Title) {
    let what = brief(&title.tags.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" - "));
    let set = titles.set(title.tags);
    note(match &set {
        Ok(()) => format!("now: {what}"),
        Err(e) => format!("the title {what} is not written into the stream: {e}"),
    });
    // Who asked may be gone.
    let _ = title.done.send(set);
}

async fn request(from: &From) -> Result<Incoming, String> {
    let From::Http { authority, dial, path } = from else { return Err("no URL".to_owned()) };
    let asked = async {
        let stream = tokio::net::TcpStream::connect(dial).await.map_err(|e| format!("no connection: {e}"))?;
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(|e| format!("no connection: {e}"))?;
        tokio::spawn(connection);
        let request = hyper::Request::get(path.as_str())
            .header(hyper::header::HOST, authority.as_str())
            .header(hyper::header::USER_AGENT, AGENT.as_str())
            .body(Empty::<Bytes>::new())
            .map_err(|e| format!("no such URL: {e}"))?;
        let response = sender.send_request(request).await.map_err(|e| format!("no answer: {e}"))?;
        if response.status() != hyper::StatusCode::OK {
            return Err(format!("its server answers {}", response.status()));
        }
        Ok(response.into_body())
    };
    timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(format!("no answer in {} s", ANSWER.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_cut_is_told_from_one_that_ends() {
        let (mut begun, page) = (Begun::default(), |serial, bos, eos| PageHeader {
            continued: false,
            bos,
            eos,
            granule: None,
            serial,
            sequence: 0,
            crc: 0,
            segments: 0,
            body_len: 0,
        });
        assert!(!begun.broke_off(), "nothing came");
        for header in
            [page(1, true, false), page(2, true, false), page(1, false, false), page(1, false, true)]
        {
            begun.page(&header);
        }
        assert!(begun.broke_off(), "the second stream goes on");
        begun.page(&page(2, false, true));
        assert!(!begun.broke_off());
        // A link that was cut, and one behind it that ended.
        for header in
            [page(3, true, false), page(3, false, false), page(4, true, false), page(4, false, true)]
        {
            begun.page(&header);
        }
        assert!(!begun.broke_off());
    }

    #[test]
    fn sources_as_they_are_written() {
        let http = |a: &str, d: &str, p: &str| {
            Ok(From::Http { authority: a.into(), dial: d.into(), path: p.into() })
        };
        assert_eq!("-".parse(), Ok(From::Stdin));
        assert_eq!("a/b.ogg".parse(), Ok(From::File("a/b.ogg".into())));
        assert_eq!("http://h/m.ogg?x=1#f".parse(), http("h", "h:80", "/m.ogg?x=1"));
        assert_eq!("HTTP://[::1]:8000".parse(), http("[::1]:8000", "[::1]:8000", "/"));
        for bad in ["", "https://h/m", "ftp://h", "http://", "http://u:p@h/m", "http://h/a b", "icet://h/m"] {
            assert!(bad.parse::<From>().is_err(), "{bad}");
        }
    }
}
