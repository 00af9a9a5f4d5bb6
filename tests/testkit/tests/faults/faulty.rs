//! Pages over TCP with a fault on demand. `FAULT/1` and a frame with a request; answered with pieces: 1 and a page number (8
//! bytes), 2 and bytes after their length (4), 3 and how it ended (1).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use iceshare::icet::stream::PagesRequest;
use iceshare::icet::{MediaPath, frame, limits};
use iceshare::net::Context;
use iceshare::protocol::{
    Abilities, ErrorKind, NetKind, PayloadProtocol, Piece, Registration, Request, Setting, SettingError,
    Settings, TransportError, What,
};
use iceshare::serve::{Delivery, Refusal, Wanted, deliver};
use iceshare::shelf::Shelf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

macro_rules! faults {
    ($($fault:ident)*) => {
        /// What is wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Fault { $($fault,)* }

        fn parse(name: &str) -> Option<Fault> {
            match name {
                $(stringify!($fault) => Some(Fault::$fault),)*
                _ => None,
            }
        }
    };
}

faults! {
    None Unpermitted Short Hole Swapped TooMuch WrongMark NoStripes AnyVersion ByPath Decoded Overdeclared Unknown
    ClaimsKeys MissingUntold Impatient Eager Deaf DeafWaiting HostHoards ReceiverHoards Lumps PermitLater NoTicket
    TicketIgnored BreakIsEnd BreakUnseen Believes Insatiable Panics OneByOne LeaksMemory LeaksTasks LeaksSockets
    Crowded Immortal Stays Lingers HostBelieves Reserves HalfHour Patient
}

pub(crate) const REGISTRATION: Registration = Registration {
    name: "faulty",
    krate: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    about: "pages over TCP with a fault on demand",
    settings: &[
        Setting { key: "fault", default: "None", about: "what is wrong" },
        Setting {
            key: "patience",
            default: "20",
            about: "seconds that a host waits for a request, and for its reader",
        },
    ],
    build,
};

const HELLO: &[u8] = b"FAULT/1\n";
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of one piece.
const PIECE: usize = 256 * 1024;
const KINDS: [ErrorKind; 5] =
    [ErrorKind::NoMedia, ErrorKind::NoRange, ErrorKind::Denied, ErrorKind::Busy, ErrorKind::Broken];

fn build(settings: &Settings) -> Result<Arc<dyn PayloadProtocol>, SettingError> {
    let name = settings.get("fault").unwrap_or("None");
    let fault = parse(name).ok_or_else(|| SettingError::Value {
        protocol: "faulty",
        key: "fault".to_owned(),
        value: name.to_owned(),
        why: "no such fault".to_owned(),
    })?;
    let patience =
        settings.get("patience").and_then(|p| p.parse().ok()).map_or(PATIENCE, Duration::from_secs);
    Ok(Arc::new(Faulty(fault, patience)))
}

#[derive(Debug)]
struct Faulty(Fault, Duration);

#[derive(Clone)]
struct Host {
    fault: Fault,
    patience: Duration,
    cx: Context,
    shelf: Arc<Shelf>,
    open: Arc<AtomicUsize>,
}

/// Writes pieces.
struct Out(OwnedWriteHalf, Duration);

impl Out {
    async fn all(&mut self, bytes: &[u8]) -> io::Result<()> {
        tokio::time::timeout(self.1, self.0.write_all(bytes)).await?
    }

    async fn page(&mut self, page: u64) -> io::Result<()> {
        let mut head = vec![1];
        head.put_u64(page);
        self.all(&head).await
    }

    async fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(PIECE) {
            let mut head = vec![2];
            head.put_u32(u32::try_from(part.len()).unwrap());
            self.all(&head).await?;
            self.all(part).await?;
        }
        Ok(())
    }

    async fn end(&mut self, kind: Option<ErrorKind>) -> io::Result<()> {
        let code = kind.map_or(0, |k| KINDS.iter().position(|o| *o == k).unwrap_or(4) + 1);
        self.all(&[3, u8::try_from(code).unwrap()]).await
    }
}

async fn read_request(read: &mut OwnedReadHalf, fault: Fault) -> io::Result<PagesRequest> {
    let mut hello = [0; HELLO.len()];
    read.read_exact(&mut hello).await?;
    let mut len = [0; 4];
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let (mut begun, mut room) = (Vec::new(), Vec::new());
    loop {
        if let (Fault::HostBelieves, true, Some(claimed)) = (fault, room.is_empty(), begun.first_chunk::<4>())
        {
            // Nothing is written there, so that it takes no memory.
            room.reserve((u32::from_be_bytes(*claimed) as usize).min(1 << 30));
            room.push(0_u8);
        }
        if let Some((body, _)) = iceshare::icet::stream::split(&begun).map_err(|_| bad())? {
            let request = PagesRequest::from_body(body);
            assert!(fault != Fault::Panics || request.is_ok(), "a request that cannot be read");
            return request.map_err(|_| bad());
        }
        match read.read(&mut len).await? {
            0 => return Err(bad()),
            n => begun.extend_from_slice(&len[..n]),
        }
    }
}

impl Host {
    async fn serve(self, stream: TcpStream) {
        let _ = self.answer(stream).await;
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    async fn answer(&self, stream: TcpStream) -> io::Result<()> {
        let (mut read, write) = stream.into_split();
        let forever = Duration::from_secs(3600);
        let patience = if self.fault == Fault::HalfHour { forever } else { self.patience };
        let mut request = tokio::time::timeout(patience, read_request(&mut read, self.fault)).await??;
        match self.fault {
            Fault::LeaksMemory => std::mem::forget(vec![1_u8; 20_000]),
            Fault::LeaksTasks | Fault::Lingers => self.cx.spawn(std::future::pending()),
            Fault::LeaksSockets => std::mem::forget(std::net::UdpSocket::bind(("127.0.0.1", 0))?),
            Fault::Immortal => drop(tokio::spawn(std::future::pending::<()>())),
            Fault::NoStripes => {
                if let What::Pages(set) = &mut request.what {
                    set.stripe = None;
                }
            }
            _ => {}
        }
        let deaf = matches!(self.fault, Fault::Deaf | Fault::DeafWaiting);
        let gone = async move {
            if deaf {
                std::future::pending::<()>().await;
            }
            // Nothing follows a request, so it is the end.
            let _ = read.read(&mut [0]).await;
        };
        tokio::select! {
            written = self.write(Out(write, if self.fault == Fault::Patient { forever } else { self.patience }), request) => written,
            () = gone => Ok(()),
        }
    }

    async fn write(&self, mut out: Out, request: PagesRequest) -> io::Result<()> {
        let (mut path, mut media, mut version) = (request.path, request.media, request.version);
        if self.fault == Fault::Decoded {
            path = MediaPath::from_url_path(path.as_str()).unwrap_or(path);
        }
        if let Some(found) = self.shelf.find(&path)
            && (self.fault == Fault::ByPath || self.fault == Fault::AnyVersion && found.id() == media)
        {
            (media, version) = (found.id(), found.manifest().version);
        }
        let ticket = request.ticket.as_ref().filter(|_| self.fault != Fault::TicketIgnored);
        let wanted =
            Wanted { path: &path, media: &media, version, what: &request.what, ticket, proved: None };
        let Delivery { mut supply, left_out, what, .. } =
            match deliver(&self.shelf, self.cx.protocol(), &wanted, PATIENCE) {
                Ok(delivery) => delivery,
                Err(refusal) => {
                    let kind = match refusal {
                        Refusal::NoMedia => ErrorKind::NoMedia,
                        other => other.kind(),
                    };
                    return out.end(Some(kind)).await;
                }
            };
        if matches!(self.fault, Fault::Unpermitted | Fault::PermitLater)
            && let Some(found) = self.shelf.find_id(&media)
            && let What::Pages(set) = what
        {
            let pages = set.iter(found.manifest().pages);
            for page in pages.filter(|p| found.has(*p)) {
                let span = found.span(page).ok_or(io::ErrorKind::NotFound)?;
                out.page(page).await?;
                out.bytes(&found.read(span.offset, span.record.len as usize)?).await?;
            }
            if self.fault == Fault::PermitLater {
                while supply.next().await?.is_some() {}
            }
            return out.end(None).await;
        }
        let mut count = 0;
        let mut held: Vec<Bytes> = Vec::new();
        let hoards = matches!(self.fault, Fault::HostHoards | Fault::Lumps);
        loop {
            let next = supply.next();
            tokio::pin!(next);
            let chunk = match (self.fault, futures_util::poll!(next.as_mut())) {
                (_, std::task::Poll::Ready(chunk)) => chunk,
                (Fault::Impatient, _) => return out.end(None).await,
                _ => next.await,
            };
            let chunk = match chunk {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(e) => return out.end(Some(e.kind())).await,
            };
            count += 1;
            if let Some(page) = chunk.page {
                let off = u64::from(self.fault == Fault::WrongMark);
                out.page(page + off).await?;
            }
            let mut bytes = chunk.bytes;
            match self.fault {
                Fault::Hole if bytes.len() > 2000 => bytes = [&bytes[..1000], &bytes[1100..]].concat().into(),
                Fault::Swapped if bytes.len() > 2000 => {
                    bytes = [&bytes[1000..], &bytes[..1000]].concat().into()
                }
                Fault::Short => bytes.truncate(bytes.len().saturating_sub(1)),
                _ => {}
            }
            if hoards {
                held.push(bytes);
            } else if let Err(e) = out.bytes(&bytes).await
                && self.fault != Fault::Deaf
            {
                return Err(e);
            }
        }
        for bytes in held {
            out.bytes(&bytes).await?;
        }
        if self.fault == Fault::TooMuch && count > 0 {
            out.bytes(b"and more").await?;
        }
        let missing = left_out.is_some() && self.fault != Fault::MissingUntold;
        out.end(missing.then_some(ErrorKind::NoRange)).await
    }
}

/// An answer on its way.
struct Answer {
    fault: Fault,
    read: OwnedReadHalf,
    _write: OwnedWriteHalf,
    left: u64,
    over: bool,
}

fn failed(kind: ErrorKind, why: &str) -> TransportError {
    TransportError::new(kind, format!("faulty: {why}"))
}

/// The most that can come.
fn most(what: &What) -> u64 {
    match what {
        What::Pages(set) => {
            set.count(set.last.map_or(limits::FILE_PAGES, |l| l.saturating_add(1))).saturating_mul(65_307)
        }
        What::Bytes { first, last } => last.map_or(u64::MAX, |l| l - first + 1),
        _ => 0,
    }
}

async fn begin(fault: Fault, request: Request) -> Result<Answer, TransportError> {
    let left = match &request.what {
        What::Pages(_) | What::Bytes { .. } => most(&request.what),
        _ => return Err(failed(ErrorKind::Local, "it knows pages and bytes only")),
    };
    let addr = request.host.addrs.iter().find(|a| a.kind == NetKind::Tcp);
    let addr = addr.ok_or_else(|| failed(ErrorKind::Unreachable, "no address"))?.at;
    let stream = TcpStream::connect(addr).await;
    let mut stream = stream.map_err(|e| failed(ErrorKind::Unreachable, "nobody there").because(e))?;
    let mut said = HELLO.to_vec();
    let ticket = request.ticket.filter(|_| fault != Fault::NoTicket);
    let Request { path, media, version, what, .. } = request;
    frame::write(&PagesRequest { path, media, version, what, ticket }, &mut said);
    let sent = stream.write_all(&said).await;
    sent.map_err(|e| failed(ErrorKind::Broken, "not sent").because(e))?;
    let (read, write) = stream.into_split();
    let boundless = matches!(fault, Fault::Insatiable | Fault::TooMuch);
    let left = if boundless { u64::MAX } else { left };
    Ok(Answer { fault, read, _write: write, left, over: false })
}

impl Answer {
    async fn next(&mut self) -> Result<Option<Piece>, TransportError> {
        if self.over {
            return Ok(None);
        }
        match self.piece().await {
            Ok(Ok(piece)) => Ok(Some(piece)),
            Ok(Err(end)) => {
                self.over = true;
                end.map_or(Ok(None), |kind| Err(failed(kind, "the host says so")))
            }
            Err(_) if self.fault == Fault::BreakIsEnd => Ok(None),
            Err(_) if self.fault == Fault::BreakUnseen => std::future::pending().await,
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                Err(failed(ErrorKind::Protocol, "nonsense").because(e))
            }
            Err(e) => Err(failed(ErrorKind::Broken, "the connection broke").because(e)),
        }
    }

    async fn piece(&mut self) -> io::Result<Result<Piece, Option<ErrorKind>>> {
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        match self.read.read_u8().await? {
            1 => Ok(Ok(Piece::Page(self.read.read_u64().await?))),
            2 => {
                let mut len = self.read.read_u32().await? as usize;
                if self.fault == Fault::Reserves {
                    let mut bytes = Vec::with_capacity(len.min(1 << 30));
                    (&mut self.read).take(len as u64).read_to_end(&mut bytes).await?;
                    return Ok(Ok(Piece::Bytes(bytes.into())));
                } else if self.fault == Fault::Believes {
                    // As far as this machine has it.
                    len = len.min(200 << 20);
                } else if len > PIECE && self.fault != Fault::Insatiable || len as u64 > self.left {
                    return Err(bad());
                }
                self.left = self.left.saturating_sub(len as u64);
                let mut bytes = vec![1; len.min(if self.fault == Fault::Insatiable { PIECE } else { len })];
                self.read.read_exact(&mut bytes).await?;
                Ok(Ok(Piece::Bytes(bytes.into())))
            }
            3 => match self.read.read_u8().await? {
                0 => Ok(Err(None)),
                code => Ok(Err(Some(*KINDS.get(usize::from(code) - 1).ok_or_else(bad)?))),
            },
            // One that has no other way to tell goes on and on.
            _ if self.fault == Fault::Insatiable => {
                let mut bytes = vec![0; PIECE];
                let n = self.read.read(&mut bytes).await?;
                bytes.truncate(n);
                if n == 0 {
                    Err(io::ErrorKind::UnexpectedEof.into())
                } else {
                    Ok(Ok(Piece::Bytes(bytes.into())))
                }
            }
            _ => Err(bad()),
        }
    }
}

type Pieces = BoxStream<'static, Result<Piece, TransportError>>;

fn pieces(fault: Fault, request: Request) -> Pieces {
    stream::once(begin(fault, request))
        .flat_map(|begun| match begun {
            Err(e) => stream::iter([Err(e)]).boxed(),
            Ok(answer) => stream::try_unfold(answer, |mut answer| async move {
                Ok(answer.next().await?.map(|piece| (piece, answer)))
            })
            .boxed(),
        })
        .boxed()
}

/// The same, read by a task that does not wait for who polls.
#[allow(clippy::disallowed_methods, reason = "that is the fault")]
fn ahead(cx: &Context, mut pieces: Pieces) -> Pieces {
    let (told, mut hears) = mpsc::unbounded_channel();
    cx.spawn(async move {
        while let Some(piece) = pieces.next().await {
            if told.send(piece).is_err() {
                return;
            }
        }
    });
    stream::poll_fn(move |cx| hears.poll_recv(cx)).boxed()
}

impl PayloadProtocol for Faulty {
    fn abilities(&self) -> Abilities {
        let all =
            Abilities::PAGES | Abilities::BYTES | Abilities::OPEN | Abilities::STRIPES | Abilities::ORDERED;
        match self.0 {
            Fault::Overdeclared => all | Abilities::PROOFS,
            Fault::Unknown => all | Abilities(1 << 30),
            Fault::ClaimsKeys => all | Abilities::PROVES_KEY,
            _ => all,
        }
    }

    fn dials(&self) -> Option<NetKind> {
        Some(NetKind::Tcp)
    }

    fn serve(&self, cx: Context, shelf: Arc<Shelf>) -> BoxFuture<'static, Result<String, TransportError>> {
        let mut incoming = cx.accept_tcp(|first| first.starts_with(b"F"));
        let host = Host { fault: self.0, patience: self.1, cx: cx.clone(), shelf, open: Arc::default() };
        cx.clone().spawn(async move {
            while let Some((stream, _)) = incoming.recv().await {
                let open = host.open.fetch_add(1, Ordering::Relaxed);
                match host.fault {
                    Fault::OneByOne => host.clone().serve(stream).await,
                    Fault::Crowded if open >= 20 => {
                        host.open.fetch_sub(1, Ordering::Relaxed);
                    }
                    _ => cx.spawn(host.clone().serve(stream)),
                }
            }
        });
        Box::pin(async { Ok(String::new()) })
    }

    fn fetch(&self, cx: Context, request: Request) -> Pieces {
        let pieces = pieces(self.0, request);
        match self.0 {
            Fault::Eager | Fault::ReceiverHoards => cx.while_open(ahead(&cx, pieces)),
            Fault::Stays => pieces,
            _ => cx.while_open(pieces),
        }
    }
}
