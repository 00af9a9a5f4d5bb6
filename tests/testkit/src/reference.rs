//! A second protocol, so that two can share a host: `KIT1 FIRST LAST MEDIA\n` over TCP, answered with the bytes.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use iceshare::icet::{Abilities, MediaId, NetKind};
use iceshare::net::Context;
use iceshare::protocol::{
    ErrorKind, PayloadProtocol, Piece, Registration, Request, SettingError, Settings, TransportError, What,
};
use iceshare::shelf::{Ask, Shelf};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest line.
const LINE: u64 = 256;
/// Bytes of one write.
const CHUNK: u64 = 8 * 1024;

#[derive(Debug)]
struct Reference;

pub(crate) const REGISTRATION: Registration = Registration {
    name: "testkit-reference",
    krate: env!("CARGO_PKG_NAME"),
    version: env!("CARGO_PKG_VERSION"),
    about: "bytes over TCP, to share a host with what is tested",
    settings: &[],
    build,
};

fn build(_: &Settings) -> Result<Arc<dyn PayloadProtocol>, SettingError> {
    Ok(Arc::new(Reference))
}

fn parse(line: &str) -> Option<(u64, u64, MediaId)> {
    let mut words = line.trim_end().strip_prefix("KIT1 ")?.split(' ');
    let (first, last) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    Some((first, last, MediaId::from_hex(words.next()?)?))
}

async fn serve(stream: TcpStream, cx: &Context, shelf: &Arc<Shelf>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(LINE).read_line(&mut line).await?;
    let Some((first, last, id)) = parse(&line) else { return Ok(()) };
    let Some(media) = shelf.find_id(&id) else { return Ok(()) };
    let what = What::Bytes { first, last: Some(last) };
    let ask = Ask { media: &media, protocol: cx.protocol(), what: &what, ticket: None, proved: None };
    let Ok(admission) = shelf.admit(ask) else { return Ok(()) };
    let mut at = first;
    while at <= last {
        let n = usize::try_from(CHUNK.min(last - at + 1)).unwrap_or(0);
        admission.permit(n).await.map_err(std::io::Error::other)?;
        stream.write_all(&media.read(at, n)?).await?;
        at += n as u64;
    }
    Ok(())
}

fn broken(e: std::io::Error) -> TransportError {
    TransportError::new(ErrorKind::Broken, "the connection broke").because(e)
}

impl PayloadProtocol for Reference {
    fn abilities(&self) -> Abilities {
        Abilities::BYTES | Abilities::ORDERED
    }

    fn dials(&self) -> Option<NetKind> {
        Some(NetKind::Tcp)
    }

    fn serve(&self, cx: Context, shelf: Arc<Shelf>) -> BoxFuture<'static, Result<String, TransportError>> {
        let mut incoming = cx.accept_tcp(|first| first.starts_with(b"KIT1 "));
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

    fn fetch(&self, _: Context, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
        let begin = async move {
            let (What::Bytes { first, last: Some(last) }, Some(addr)) =
                (request.what, request.host.addrs.first())
            else {
                return Err(TransportError::new(ErrorKind::Local, "bytes with an end, from an address"));
            };
            let mut stream = TcpStream::connect(addr.at).await.map_err(broken)?;
            let line = format!("KIT1 {first} {last} {}\n", request.media);
            stream.write_all(line.as_bytes()).await.map_err(broken)?;
            Ok((stream, last - first + 1))
        };
        let pieces = |(stream, left): (TcpStream, u64)| {
            stream::try_unfold((stream, left), |(mut stream, left)| async move {
                let mut buf = bytes::BytesMut::with_capacity(16 * 1024);
                match stream.read_buf(&mut buf).await.map_err(broken)? {
                    0 if left > 0 => Err(broken(std::io::ErrorKind::UnexpectedEof.into())),
                    0 => Ok(None),
                    n => Ok(Some((Piece::Bytes(buf.freeze()), (stream, left.saturating_sub(n as u64))))),
                }
            })
        };
        stream::once(begin)
            .flat_map(move |begun| match begun {
                Ok(begun) => pieces(begun).boxed(),
                Err(e) => stream::iter([Err(e)]).boxed(),
            })
            .boxed()
    }
}
