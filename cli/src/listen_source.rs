//! Sources that come to us: encoders that stream to an Icecast server stream into a broadcast as well.
//!
//! The source protocol of Icecast 2.4: `PUT` with `Expect: 100-continue`, the old `SOURCE`, basic authentication, and
//! `/admin/metadata`. The body of a source often has no length and is not chunked either, which HTTP does not allow
//! (RFC 9112, section 6.3), so this is no HTTP server; heads are parsed by one's parser.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};
use iceshare::html::is_bidi_control;
use iceshare::live::TitleError;
use iceshare::net::{Slot, SlotLimits, Slots, Standing};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::output::note;

/// Bytes of a head, and of a chunk's, at most.
const HEAD: usize = 16 << 10;
const CHUNK_HEAD: usize = 128;
/// How long a head may take, and a source be silent (as Icecast's `source-timeout`).
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once: one source, and strangers.
const PLACES: SlotLimits = SlotLimits { all: 32, each: 8 };
/// Bytes read at once, and pieces in hand.
const BLOCK: usize = 32 << 10;
const QUEUE: usize = 16;
/// An encoder that is sent away may send for so long before the connection is cut, so that it gets to read why.
const GOODBYE: Duration = Duration::from_secs(3);
/// Of wrong passwords is told so often at most.
const STRANGER: Duration = Duration::from_secs(10);
/// Bytes of a title and of an artist at most.
const TITLE: usize = iceshare::icet::limits::TITLE;
/// The user name that encoders send if none is set.
const USER: &str = "source";

/// A source that has begun.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// Its program, if it says, and from where it came.
    pub(crate) who: String,
    /// What it sends, until it ends. Dropping this ends it.
    pub(crate) bytes: mpsc::Receiver<Bytes>,
    /// Takes why it is sent away, before that: it is told. Dropped when all of it was taken.
    pub(crate) refuse: oneshot::Sender<&'static str>,
}

/// A title that comes beside a stream.
#[derive(Debug)]
pub(crate) struct Title {
    /// Names and values of tags.
    pub(crate) tags: Vec<(String, String)>,
    /// Takes what became of it.
    pub(crate) done: oneshot::Sender<Result<(), TitleError>>,
}

/// Where sources may come, and with which password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Door {
    pub(crate) listen: SocketAddr,
    pub(crate) password: String,
    /// The password is a random one of ours, which only we can tell.
    pub(crate) told: bool,
}

/// Takes one source at a time, and titles beside it. The address that it listens on.
///
/// # Errors
/// The system's, if it cannot listen there.
pub(crate) async fn open(
    door: Door,
) -> io::Result<(SocketAddr, mpsc::Receiver<Arrived>, mpsc::Receiver<Title>)> {
    let listener = TcpListener::bind(door.listen).await?;
    let address = listener.local_addr()?;
    let (out, arrived) = mpsc::channel(1);
    let (titles, told) = mpsc::channel(QUEUE);
    let password = blake3::hash(door.password.as_bytes());
    let house =
        Arc::new(House { password, seat: Semaphore::new(1), out, titles, stranger: Mutex::default() });
    tokio::spawn(async move {
        let slots = Slots::new(PLACES);
        while !house.out.is_closed() {
            let Ok((stream, from)) = listener.accept().await else {
                // Out of descriptors, most likely.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Some(slot) = slots.enter(from.ip()) else { continue };
            let house = house.clone();
            tokio::spawn(async move {
                if let Some(Err(e)) = slot.hold(house.serve(stream, from, &slot)).await {
                    tracing::debug!(%from, error = %e, "a connection of a source ended");
                }
            });
        }
    });
    Ok((address, arrived, told))
}

struct House {
    password: blake3::Hash,
    /// One source at a time.
    seat: Semaphore,
    out: mpsc::Sender<Arrived>,
    titles: mpsc::Sender<Title>,
    /// When a wrong password was last told of.
    stranger: Mutex<Option<Instant>>,
}

impl House {
    async fn serve(&self, mut stream: TcpStream, from: SocketAddr, slot: &Slot) -> io::Result<()> {
        let mut begun = BytesMut::new();
        let head = match timeout(PATIENCE, head(&mut stream, &mut begun)).await {
            Ok(Ok(head)) => head,
            Ok(Err(Bad::Io(e))) => return Err(e),
            Ok(Err(Bad::Request(why))) => return answer(&mut stream, "400 Bad Request", "", why).await,
            Err(_) => return answer(&mut stream, "408 Request Timeout", "", "no request came").await,
        };
        let method = match head.what {
            What::Other => {
                let more = "Allow: SOURCE, PUT, OPTIONS\r\n";
                let why = "this takes streams of sources, over PUT or SOURCE; listeners use the icet:// link";
                let status = if head.method == "OPTIONS" { "200 OK" } else { "405 Method Not Allowed" };
                return answer(&mut stream, status, more, why).await;
            }
            what => what,
        };
        // Equal hashes are compared in constant time.
        if head.login.is_none_or(|(user, password)| user != USER || blake3::hash(&password) != self.password)
        {
            // Some (libshout) ask once without.
            if head.authorizes && self.tells_of_a_stranger(Instant::now()) {
                note(format!("{from} was refused: its user name (it is source) or its password is wrong"));
            }
            let more = "WWW-Authenticate: Basic realm=\"IceShare\"\r\n";
            let why =
                "the user name is source, and the password is the one that the broadcast was started with";
            return answer(&mut stream, "401 Unauthorized", more, why).await;
        }
        match method {
            What::Source { .. } if head.coding == Coding::Chunks && !head.is_http_1_1 => {
                answer(&mut stream, "400 Bad Request", "", "HTTP/1.0 knows no chunks").await
            }
            What::Source { .. } if head.content.as_deref().is_some_and(|c| !may_be_ogg(c)) => {
                let content = head.content.unwrap_or_default();
                note(format!("{from} was sent away: it announced {content}, and only Ogg can be broadcast"));
                let why = format!("{content} cannot be broadcast: {OGG_ONLY}");
                answer(&mut stream, UNSUPPORTED, "", &why).await
            }
            What::Source { continues } => {
                let Ok(seat) = self.seat.try_acquire() else {
                    note(format!("a second source from {from} was refused"));
                    return answer(&mut stream, "403 Forbidden", "", "another source is on the air").await;
                };
                slot.stand(Standing::Served);
                let version = if head.is_http_1_1 { "HTTP/1.1" } else { "HTTP/1.0" };
                // What says where it ends is answered there. Who sends without an end wants to hear first that it may.
                let go = match head.coding {
                    _ if continues => Some("100 Continue"),
                    Coding::Length(_) => None,
                    Coding::Open | Coding::Chunks => Some("200 OK"),
                };
                if let Some(go) = go {
                    stream.write_all(format!("{version} {go}\r\n\r\n").as_bytes()).await?;
                }
                let answered = go.is_some() && !continues;
                let (to, bytes) = mpsc::channel(QUEUE);
                let (refuse, refused) = oneshot::channel();
                let who = head.agent.map_or_else(|| from.to_string(), |a| format!("{a} at {from}"));
                if self.out.send(Arrived { who, bytes, refuse }).await.is_err() {
                    return Ok(());
                }
                let whole = body(&mut stream, begun, head.coding, &to).await?;
                // Who hears that it is over may come again at once.
                drop((seat, to));
                // Who was told 200 already can only be cut off.
                if answered {
                    return Ok(());
                }
                match timeout(PATIENCE, refused).await {
                    Ok(Ok(why)) => {
                        answer(&mut stream, UNSUPPORTED, "", why).await?;
                        // A connection that is closed with something unread is reset, and the answer lost.
                        let mut rest = [0; 4096];
                        let read = async { while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {} };
                        let _ = timeout(GOODBYE, read).await;
                        Ok(())
                    }
                    _ if whole => answer(&mut stream, "200 OK", "", "the stream was taken").await,
                    _ => Ok(()),
                }
            }
            What::Title | What::Other => {
                let (good, said) = match self.title(&head.query).await {
                    Ok(()) => (1, "Metadata update successful".to_owned()),
                    Err(why) => (0, why),
                };
                let text = format!(
                    "<?xml version=\"1.0\"?>\n<iceresponse><message>{said}</message><return>{good}</return></iceresponse>\n"
                );
                reply(&mut stream, "200 OK", "Content-Type: text/xml\r\n", &text).await
            }
        }
    }
}

impl House {
    /// Whether it is told that somebody came with a wrong password: not of each one who guesses.
    fn tells_of_a_stranger(&self, now: Instant) -> bool {
        let mut told = self.stranger.lock().unwrap_or_else(PoisonError::into_inner);
        let tells = told.is_none_or(|at| now.duration_since(at) >= STRANGER);
        if tells {
            *told = Some(now);
        }
        tells
    }

    /// Hands a title on; why not, if it is not taken.
    async fn title(&self, query: &str) -> Result<(), String> {
        let tags = tags(query)?;
        let nobody = || TitleError::Nothing.to_string();
        // Nobody takes it while no encoder is here.
        if self.seat.available_permits() > 0 {
            return Err(nobody());
        }
        let (done, set) = oneshot::channel();
        self.titles.try_send(Title { tags, done }).map_err(|_| nobody())?;
        match timeout(PATIENCE, set).await {
            Ok(Ok(set)) => set.map_err(|e| e.to_string()),
            _ => Err(nobody()),
        }
    }
}

/// The tags that a request for a title names: `song`, or `artist` and `title`; cut to what heads carry, since longer ones are shown nowhere.
fn tags(query: &str) -> Result<Vec<(String, String)>, String> {
    let fields: Vec<(&str, String)> =
        query.split('&').filter_map(|f| f.split_once('=')).map(|(n, v)| (n, plain(v))).collect();
    let get = |name: &str| {
        let value = fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.trim())?;
        let value = value.get(..value.floor_char_boundary(TITLE)).unwrap_or_default().trim_end();
        Some(value.to_owned()).filter(|v| !v.is_empty())
    };
    if get("mode").is_some_and(|mode| mode != "updinfo") {
        return Err("only mode=updinfo is known here".to_owned());
    }
    let title = get("title").or_else(|| get("song")).ok_or("neither song nor title is given")?;
    let artist = get("artist").map(|artist| ("ARTIST".to_owned(), artist));
    Ok(artist.into_iter().chain([("TITLE".to_owned(), title)]).collect())
}

/// Text as forms send it: UTF-8, or Latin-1 from older programs. Of characters that steer a terminal or turn the reading direction
/// nothing goes into the stream.
fn plain(coded: &str) -> String {
    let spaced = coded.replace('+', " ");
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(&spaced).collect();
    let text =
        String::from_utf8(bytes).unwrap_or_else(|e| e.as_bytes().iter().map(|b| char::from(*b)).collect());
    text.chars().filter(|c| !c.is_control() && !is_bidi_control(*c)).collect()
}

const UNSUPPORTED: &str = "415 Unsupported Media Type";
/// What an encoder whose stream is no Ogg is told.
pub(crate) const OGG_ONLY: &str =
    "set the encoder to Ogg with Opus, Vorbis or FLAC (content type audio/ogg or application/ogg)";

/// Whether a stream that is announced so may be Ogg. What says nothing of it may: the bytes tell. So may MP3, since ffmpeg calls all
/// that it sends audio/mpeg unless it is told otherwise.
fn may_be_ogg(content: &str) -> bool {
    let kind = content.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((class, name)) = kind.split_once('/') else { return true };
    let ogg = ["ogg", "opus", "vorbis", "flac", "speex", "theora", "mpeg"];
    !matches!(class, "audio" | "video") || ogg.iter().any(|o| name.contains(o))
}

/// Hands on what a source sends; whether it came to its end, and was not sent away. Nothing behind a length is read.
async fn body(
    stream: &mut TcpStream,
    mut begun: BytesMut,
    coding: Coding,
    to: &mpsc::Sender<Bytes>,
) -> io::Result<bool> {
    let mut chunks = Chunks::default();
    let mut left = if let Coding::Length(len) = coding { len } else { u64::MAX };
    loop {
        let (bytes, over) = match coding {
            Coding::Open => (begun.split().freeze(), false),
            Coding::Length(_) => {
                let n = begun.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                left -= n as u64;
                (begun.split_to(n).freeze(), left == 0)
            }
            Coding::Chunks => chunks.take(&mut begun)?,
        };
        if !bytes.is_empty() && to.send(bytes).await.is_err() {
            return Ok(false);
        }
        if over {
            return Ok(true);
        }
        begun.reserve(BLOCK);
        let mut more = (&mut *stream).take(left);
        let read = tokio::select! {
            read = timeout(PATIENCE, more.read_buf(&mut begun)) => read,
            () = to.closed() => return Ok(false),
        };
        match read {
            Ok(Ok(0)) => return Ok(!matches!(coding, Coding::Length(_))),
            Ok(read) => {
                read?;
            }
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// What a connection wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// To send a stream; whether it waits until it may.
    Source {
        continues: bool,
    },
    /// To tell a title.
    Title,
    Other,
}

/// What tells where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    /// The end of the connection.
    Open,
    Length(u64),
    Chunks,
}

/// The head of a request.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    what: What,
    method: String,
    is_http_1_1: bool,
    coding: Coding,
    agent: Option<String>,
    /// The content type that it announces.
    content: Option<String>,
    /// It brings a name and a password, or something else in their place.
    authorizes: bool,
    login: Option<(String, Vec<u8>)>,
    /// Behind the question mark of what is asked for.
    query: String,
}

enum Bad {
    Io(io::Error),
    Request(&'static str),
}

/// Reads a head; what follows it stays in `begun`.
async fn head(stream: &mut TcpStream, begun: &mut BytesMut) -> Result<Head, Bad> {
    loop {
        if let Some((head, len)) = parse(begun).map_err(Bad::Request)? {
            begun.advance(len);
            return Ok(head);
        }
        if begun.len() > HEAD {
            return Err(Bad::Request("the head of the request is too long"));
        }
        match stream.read_buf(begun).await {
            Ok(0) => return Err(Bad::Io(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(e) => return Err(Bad::Io(e)),
        }
    }
}

/// The head at the beginning of `bytes` and its length, if it is whole.
fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, &'static str> {
    // Some encoders name the protocol ICE/1.0, which is HTTP/1.0 by another name and one byte shorter.
    let line = bytes.iter().position(|b| *b == b'\n');
    let ice = line.and_then(|end| bytes.get(..end)?.trim_ascii_end().strip_suffix(b" ICE/1.0"));
    let (renamed, shift);
    let bytes = match (ice, line) {
        (Some(begin), Some(end)) => {
            renamed = [begin, b" HTTP/1.0\r", bytes.get(end..).unwrap_or_default()].concat();
            shift = renamed.len().cast_signed() - bytes.len().cast_signed();
            &renamed[..]
        }
        _ => {
            shift = 0;
            bytes
        }
    };
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len.saturating_add_signed(-shift),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err("this is no request of a source"),
    };
    let value = |name: &str| {
        let mut all = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
        all.next().and_then(|h| std::str::from_utf8(h.value).ok()).map(str::trim)
    };
    let path = request.path.unwrap_or_default();
    let (place, query) = path.split_once('?').unwrap_or((path, ""));
    let what = match request.method {
        Some("GET") if place == "/admin/metadata" || place == "/admin.cgi" => What::Title,
        Some("PUT" | "SOURCE") => {
            let expects = value("Expect").is_some_and(|e| e.eq_ignore_ascii_case("100-continue"));
            What::Source { continues: expects && request.version == Some(1) }
        }
        _ => What::Other,
    };
    let login = value("Authorization").and_then(|v| {
        let (scheme, code) = v.split_once(' ')?;
        let plain = STANDARD.decode(code.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let colon = plain.iter().position(|b| *b == b':')?;
        let user = String::from_utf8(plain.get(..colon)?.to_vec()).ok()?;
        Some((user, plain.get(colon + 1..)?.to_vec()))
    });
    let coding = match value("Content-Length") {
        _ if value("Transfer-Encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) => Coding::Chunks,
        // SOURCE has no length, even where libshout says that it is 0.
        Some(len) if request.method == Some("PUT") => {
            Coding::Length(len.parse().map_err(|_| "its Content-Length is no number")?)
        }
        _ => Coding::Open,
    };
    let printable = |a: &str| a.chars().filter(|c| !c.is_control()).take(80).collect::<String>();
    let head = Head {
        what,
        method: request.method.unwrap_or_default().to_owned(),
        is_http_1_1: request.version == Some(1),
        coding,
        agent: value("User-Agent").map(printable).filter(|a| !a.is_empty()),
        content: value("Content-Type").map(printable).filter(|a| !a.is_empty()),
        authorizes: value("Authorization").is_some(),
        login,
        query: query.to_owned(),
    };
    Ok(Some((head, len)))
}

/// Takes chunks apart (RFC 9112, section 7.1).
#[derive(Debug, Default)]
struct Chunks {
    /// Bytes of the present chunk that are still to come.
    left: u64,
    /// The line end behind a chunk is still to come.
    behind: bool,
}

impl Chunks {
    /// The bytes of chunks at the front of `begun`, and whether that was the last one.
    fn take(&mut self, begun: &mut BytesMut) -> io::Result<(Bytes, bool)> {
        let bad = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let mut out = BytesMut::new();
        loop {
            if self.left > 0 {
                let n = begun.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                if n == 0 {
                    return Ok((out.freeze(), false));
                }
                out.unsplit(begun.split_to(n));
                self.left -= n as u64;
                self.behind = self.left == 0;
            } else if self.behind {
                match begun.get(..2) {
                    None => return Ok((out.freeze(), false)),
                    Some(b"\r\n") => begun.advance(2),
                    Some(_) => return Err(bad("a chunk is longer than it says")),
                }
                self.behind = false;
            } else {
                match httparse::parse_chunk_size(begun) {
                    Ok(httparse::Status::Complete((_, 0))) => return Ok((out.freeze(), true)),
                    Ok(httparse::Status::Complete((len, size))) => {
                        begun.advance(len);
                        self.left = size;
                    }
                    Ok(httparse::Status::Partial) if begun.len() < CHUNK_HEAD => {
                        return Ok((out.freeze(), false));
                    }
                    _ => return Err(bad("the size of a chunk makes no sense")),
                }
            }
        }
    }
}

async fn answer(stream: &mut TcpStream, status: &str, more: &str, text: &str) -> io::Result<()> {
    let more = format!("{more}Content-Type: text/plain; charset=utf-8\r\n");
    reply(stream, status, &more, &format!("{text}\n")).await
}

async fn reply(stream: &mut TcpStream, status: &str, more: &str, text: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nServer: iceshare/{}\r\n{more}Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
        env!("CARGO_PKG_VERSION"),
        text.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Head {
        let (head, len) = parse(text.as_bytes()).expect("a request").expect("a whole one");
        assert_eq!(len, text.len(), "{text}");
        head
    }

    #[test]
    fn the_heads_that_encoders_send() {
        // ffmpeg
        let head = parsed(
            "PUT /live.opus HTTP/1.1\r\nUser-Agent: Lavf/59\r\nExpect: 100-continue\r\nContent-Type: audio/ogg\r\n\
             Authorization: Basic c291cmNlOmhhY2ttZTo=\r\n\r\n",
        );
        assert_eq!(head.what, What::Source { continues: true });
        assert_eq!(head.agent.as_deref(), Some("Lavf/59"));
        assert_eq!(
            head.login,
            Some(("source".to_owned(), b"hackme:".to_vec())),
            "a password may have a colon"
        );
        assert!(head.coding == Coding::Open && head.authorizes);
        // libshout
        let head = parsed("PUT /live HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
        assert!(head.coding == Coding::Chunks && head.is_http_1_1);
        let head = parsed("SOURCE /live HTTP/1.1\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n");
        assert!(head.coding == Coding::Open && !head.authorizes, "it asks, and would stream over the same");
        // curl -T
        assert_eq!(parsed("PUT /l HTTP/1.1\r\nContent-Length: 40000\r\n\r\n").coding, Coding::Length(40_000));
        let head = parsed("PUT /l HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(head.coding, Coding::Chunks, "the length says nothing then");
        // ices2, BUTT: the old way
        let head = parsed("SOURCE /live HTTP/1.0\r\nice-name: one\r\nexpect: 100-continue\r\n\r\n");
        assert_eq!(head.what, What::Source { continues: false }, "HTTP/1.0 knows no 100");
        let head = parsed("SOURCE /live ICE/1.0\r\nice-name: one\r\n\r\n");
        assert_eq!((head.what, head.is_http_1_1), (What::Source { continues: false }, false));
        assert_eq!(parsed("SOURCE /live ICE/1.0\nice-name: one\n\n").method, "SOURCE");
        assert_eq!(parsed("GET /admin/metadata?mode=updinfo&song=x HTTP/1.0\r\n\r\n").what, What::Title);
        assert_eq!(parsed("GET / HTTP/1.1\r\n\r\n").what, What::Other);
        for partial in ["", "PUT", "PUT / HTTP/1.1\r\nExp", "SOURCE / ICE/1.0\r\n"] {
            assert_eq!(parse(partial.as_bytes()), Ok(None), "{partial}");
        }
        for bad in [
            "\0",
            "PUT\r\n\r\n",
            "PUT / HTTP/2.0\r\n\r\n",
            "SOURCE pass /live\r\n\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_body_ends_where_its_length_says() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut source =
            TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connected");
        let (mut stream, _) = listener.accept().await.expect("accepted");
        source.write_all(b"S0123next").await.expect("sent");
        let (to, mut bytes) = mpsc::channel(QUEUE);
        let whole = body(&mut stream, BytesMut::from(&b"Ogg"[..]), Coding::Length(8), &to).await;
        assert!(whole.expect("read"), "whole");
        let mut next = [0; 4];
        stream.read_exact(&mut next).await.expect("more");
        assert_eq!(&next, b"next", "what is behind it is unread");
        // What came with the head ends there, too, and what is cut short is not whole.
        assert!(body(&mut stream, BytesMut::from(&b"abcd"[..]), Coding::Length(2), &to).await.expect("read"));
        drop(source);
        assert!(!body(&mut stream, BytesMut::new(), Coding::Length(2), &to).await.expect("read"));
        drop(to);
        let mut all = Vec::new();
        while let Some(piece) = bytes.recv().await {
            all.extend_from_slice(&piece);
        }
        assert_eq!(all, b"OggS0123ab");
    }

    #[test]
    fn what_cannot_be_ogg_is_known_by_its_name() {
        for good in [
            "audio/ogg",
            "application/ogg",
            "video/ogg",
            "Audio/OGG; codecs=opus",
            "audio/x-ogg",
            "audio/opus",
            "",
        ] {
            assert!(may_be_ogg(good), "{good}");
        }
        assert!(may_be_ogg("application/octet-stream") && may_be_ogg("audio/flac") && may_be_ogg("ogg"));
        for bad in ["audio/aac", "audio/aacp", "AUDIO/AAC;x", "video/webm", "audio/x-matroska"] {
            assert!(!may_be_ogg(bad), "{bad}");
        }
    }

    #[test]
    fn titles_as_programs_send_them() {
        let tag = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        let song = tags("mode=updinfo&mount=/live&song=A+%26+B%20-%20C%C3%BC");
        assert_eq!(song, Ok(vec![tag("TITLE", "A & B - Cü")]));
        let both = tags("mount=/l&mode=updinfo&charset=UTF-8&artist=X&title=Y");
        assert_eq!(both, Ok(vec![tag("ARTIST", "X"), tag("TITLE", "Y")]));
        assert_eq!(tags("song=%FCber%0a"), Ok(vec![tag("TITLE", "über")]), "Latin-1");
        let turned = tags("song=abc%E2%80%AEgpj.exe%D8%9C%E2%81%A6");
        assert_eq!(turned, Ok(vec![tag("TITLE", "abcgpj.exe")]), "what it is called is what it looks like");
        for len in [TITLE, TITLE + 1, 1016, 4096, 5000] {
            let long = tags(&format!("artist=y{0}&title=x{0}", "%C3%BC".repeat(len / 2)));
            let cut = "ü".repeat((TITLE - 1) / 2);
            assert_eq!(
                long,
                Ok(vec![tag("ARTIST", &format!("y{cut}")), tag("TITLE", &format!("x{cut}"))]),
                "{len}"
            );
        }
        for none in ["", "song=%E2%80%AE", "mode=updinfo", "song=", "song=+", "mode=other&song=x"] {
            assert!(tags(none).is_err(), "{none}");
        }
    }

    #[test]
    fn chunks_come_apart_wherever_they_are_cut() {
        let wire = b"4\r\nOggS\r\n10;x=y\r\n0123456789abcdef\r\n0\r\n\r\n";
        for cut in 0..wire.len() {
            let (mut chunks, mut begun, mut out, mut over) =
                (Chunks::default(), BytesMut::new(), Vec::new(), false);
            for part in [&wire[..cut], &wire[cut..]] {
                begun.extend_from_slice(part);
                if !over {
                    let (bytes, last) = chunks.take(&mut begun).expect("good chunks");
                    out.extend_from_slice(&bytes);
                    over = last;
                }
            }
            assert!(over, "cut at {cut}");
            assert_eq!(out, b"OggS0123456789abcdef", "cut at {cut}");
        }
        for bad in [&b"4\r\nOggSx\r\n"[..], b"zz\r\n", b"fffffffffffffffffff\r\n", &[b'1'; 200]] {
            assert!(Chunks::default().take(&mut BytesMut::from(bad)).is_err());
        }
    }
}
