//! `plain-bytes`: `BYTES PATH MEDIA VERSION FIRST LAST TICKET` in one line of text over TCP, each without blanks (`-` for what
//! is absent, the path as in a URL, hexadecimal digits for the ticket); answered `OK LENGTH` or `NO KIND`, and the bytes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use iceshare::icet::{MediaId, MediaPath, NetKind, Ticket, frame};
use iceshare::net::Context;
use iceshare::protocol::{
    Abilities, ErrorKind, PayloadProtocol, Piece, Request, SettingError, Settings, TransportError, What,
};
use iceshare::shelf::{Ask, Shelf};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(super) const NAME: &str = "plain-bytes";

iceshare::register_payload_protocol!(NAME, "byte ranges over bare TCP", &[], Plain::build);

/// Longest line.
const LINE: u64 = 8192;
const PATIENCE: Duration = Duration::from_secs(10);
const CHUNK: u64 = 64 * 1024;
const KINDS: [(&str, ErrorKind); 4] = [
    ("media", ErrorKind::NoMedia),
    ("range", ErrorKind::NoRange),
    ("ticket", ErrorKind::Denied),
    ("busy", ErrorKind::Busy),
];

#[derive(Debug)]
struct Plain;

impl Plain {
    fn build(_: &Settings) -> Result<Arc<dyn PayloadProtocol>, SettingError> {
        Ok(Arc::new(Plain))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(s: &str) -> Option<Vec<u8>> {
    let digit = |c: &u8| char::from(*c).to_digit(16);
    let pair = |c: &[u8]| u8::try_from(digit(c.first()?)? * 16 + digit(c.get(1)?)?).ok();
    s.as_bytes().chunks(2).map(pair).collect()
}

struct Wanted {
    path: MediaPath,
    media: MediaId,
    version: u64,
    first: u64,
    last: Option<u64>,
    ticket: Option<Ticket>,
}

fn read_line(line: &str) -> Option<Wanted> {
    let [verb, path, media, version, first, last, ticket] =
        line.split_whitespace().collect::<Vec<_>>()[..].try_into().ok()?;
    let absent = |s: &str| s == "-";
    Some(Wanted {
        path: MediaPath::from_url_path(path).ok().filter(|_| verb == "BYTES")?,
        media: MediaId::from_hex(media)?,
        version: version.parse().ok()?,
        first: first.parse().ok()?,
        last: if absent(last) { None } else { Some(last.parse().ok()?) },
        ticket: if absent(ticket) { None } else { Some(frame::decode(&unhex(ticket)?).ok()?) },
    })
}

async fn serve(stream: TcpStream, cx: &Context, shelf: &Arc<Shelf>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    timeout(PATIENCE, (&mut stream).take(LINE).read_line(&mut line)).await??;
    let no = |kind: ErrorKind| {
        let word = KINDS.iter().find(|(_, k)| *k == kind).map_or("busy", |(w, _)| w);
        format!("NO {word}\n")
    };
    let Some(wanted) = read_line(&line) else { return Ok(()) };
    let media = shelf.find_id(&wanted.media).filter(|m| m.path() == &wanted.path);
    let Some(media) = media.filter(|m| m.manifest().version == wanted.version) else {
        return stream.write_all(no(ErrorKind::NoMedia).as_bytes()).await;
    };
    // As far as it is held without a hole.
    let held = media.page_at_byte(wanted.first).and_then(|page| match media.first_missing(page) {
        None => Some(media.manifest().bytes),
        Some(missing) if missing > page => media.span(missing - 1).map(|s| s.end()),
        Some(_) => None,
    });
    let Some(end) =
        held.map(|h| wanted.last.map_or(h, |l| h.min(l.saturating_add(1)))).filter(|e| *e > wanted.first)
    else {
        return stream.write_all(no(ErrorKind::NoRange).as_bytes()).await;
    };
    let what = What::Bytes { first: wanted.first, last: Some(end - 1) };
    let protocol = cx.protocol();
    let ask = Ask { media: &media, protocol, what: &what, ticket: wanted.ticket.as_ref(), proved: None };
    let admission = match shelf.admit(ask) {
        Ok(admission) => admission,
        Err(why) => return stream.write_all(no(why.kind()).as_bytes()).await,
    };
    stream.write_all(format!("OK {}\n", end - wanted.first).as_bytes()).await?;
    let mut at = wanted.first;
    while at < end {
        let n = usize::try_from(CHUNK.min(end - at)).unwrap_or(0);
        admission.permit(n).await.map_err(std::io::Error::other)?;
        stream.write_all(&media.read(at, n)?).await?;
        at += n as u64;
    }
    stream.shutdown().await
}

struct Fetch {
    stream: BufReader<TcpStream>,
    left: u64,
    /// Whether the answer is shorter than the range.
    short: bool,
}

fn broken(e: std::io::Error) -> TransportError {
    TransportError::new(ErrorKind::Broken, "plain-bytes: the connection broke").because(e)
}

impl Fetch {
    async fn begin(request: &Request) -> Result<Fetch, TransportError> {
        let What::Bytes { first, last } = request.what else {
            return Err(TransportError::new(ErrorKind::Local, "plain-bytes knows bytes only"));
        };
        let nobody = || TransportError::new(ErrorKind::Unreachable, "plain-bytes: nobody there");
        let at = request.host.addrs.iter().find(|a| a.kind == NetKind::Tcp).ok_or_else(nobody)?.at;
        let stream = timeout(PATIENCE, TcpStream::connect(at)).await.map_err(|_| nobody())?;
        let mut stream = BufReader::new(stream.map_err(|e| nobody().because(e))?);
        let ticket = request.ticket.as_ref().map_or("-".to_owned(), |t| hex(&frame::encode(t)));
        let line = format!(
            "BYTES {} {} {} {first} {} {ticket}\n",
            request.path.to_url_path(),
            request.media,
            request.version,
            last.map_or("-".to_owned(), |l| l.to_string()),
        );
        stream.write_all(line.as_bytes()).await.map_err(broken)?;
        let mut answer = String::new();
        let read = timeout(PATIENCE, (&mut stream).take(64).read_line(&mut answer)).await;
        read.map_err(|e| broken(e.into()))?.map_err(broken)?;
        match answer.trim_end().split_once(' ') {
            Some(("OK", n)) => {
                let wrong = || TransportError::new(ErrorKind::Protocol, "plain-bytes: a wrong length");
                let left: u64 = n.parse().map_err(|_| wrong())?;
                let asked = last.map(|l| l - first + 1);
                if asked.is_some_and(|a| left > a) {
                    return Err(wrong());
                }
                Ok(Fetch { stream, left, short: asked.is_some_and(|a| left < a) })
            }
            Some(("NO", word)) => {
                let kind = KINDS.iter().find(|(w, _)| *w == word).map_or(ErrorKind::Protocol, |(_, k)| *k);
                Err(TransportError::new(kind, format!("plain-bytes: refused ({word})")))
            }
            _ => Err(TransportError::new(ErrorKind::Protocol, "plain-bytes: no answer")),
        }
    }

    async fn next(&mut self) -> Result<Option<Piece>, TransportError> {
        if self.left == 0 {
            let short = || TransportError::new(ErrorKind::NoRange, "plain-bytes: the host holds no more");
            return if self.short { Err(short()) } else { Ok(None) };
        }
        let mut buf = bytes::BytesMut::with_capacity(usize::try_from(self.left.min(CHUNK)).unwrap_or(0));
        let n = (&mut self.stream).take(self.left.min(CHUNK)).read_buf(&mut buf).await.map_err(broken)?;
        if n == 0 {
            return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.left -= n as u64;
        Ok(Some(Piece::Bytes(buf.freeze())))
    }
}

impl PayloadProtocol for Plain {
    fn abilities(&self) -> Abilities {
        Abilities::BYTES | Abilities::ORDERED
    }

    fn dials(&self) -> Option<NetKind> {
        Some(NetKind::Tcp)
    }

    fn serve(&self, cx: Context, shelf: Arc<Shelf>) -> BoxFuture<'static, Result<String, TransportError>> {
        let mut incoming = cx.accept_tcp(|first| first.starts_with(b"BYTES "));
        let spawner = cx.clone();
        spawner.spawn(async move {
            while let Some((stream, _)) = incoming.recv().await {
                let (cx, shelf) = (cx.clone(), shelf.clone());
                cx.clone().spawn(async move {
                    let _ = serve(stream, &cx, &shelf).await;
                });
            }
        });
        Box::pin(async { Ok(String::new()) })
    }

    fn fetch(&self, cx: Context, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
        let begin = async move { Fetch::begin(&request).await };
        let pieces = stream::once(begin).flat_map(|begun| match begun {
            Err(e) => stream::iter([Err(e)]).boxed(),
            Ok(fetch) => stream::try_unfold(fetch, |mut fetch| async move {
                Ok(fetch.next().await?.map(|piece| (piece, fetch)))
            })
            .boxed(),
        });
        cx.while_open(pieces.boxed())
    }
}
