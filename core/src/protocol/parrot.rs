//! Pages over bare TCP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use iceshare::icet::stream::EndCode;
use iceshare::net::Context;
use iceshare::protocol::{
    Abilities, ErrorKind, NetKind, PayloadProtocol, Piece, Request, SettingError, Settings, TransportError,
};
use iceshare::shelf::Shelf;
use iceshare::stream::{Answer, Inbound, IoRead, IoWrite, Lost, Outbound, Server, Timing, ask};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

pub(crate) const NAME: &str = "parrot";

/// What a connection begins with, so that the host's port knows whose it is.
const HELLO: &[u8] = b"PARROT/1\n";
/// For a connection, and for the answer to a request.
const PATIENCE: Duration = Duration::from_secs(10);

iceshare::register_payload_protocol!(NAME, "pages over bare TCP", &[], build);

fn build(_: &Settings) -> Result<Arc<dyn PayloadProtocol>, SettingError> {
    Ok(Arc::new(Parrot))
}

#[derive(Debug)]
struct Parrot;

impl PayloadProtocol for Parrot {
    fn abilities(&self) -> Abilities {
        [Abilities::OPEN, Abilities::STRIPES, Abilities::PROOFS, Abilities::ORDERED, Abilities::LIVE]
            .into_iter()
            .fold(Abilities::PAGES, |all, one| all | one)
    }

    fn dials(&self) -> Option<NetKind> {
        Some(NetKind::Tcp)
    }

    fn connects_each(&self) -> bool {
        true
    }

    fn serve(&self, cx: Context, shelf: Arc<Shelf>) -> BoxFuture<'static, Result<String, TransportError>> {
        let mut incoming = cx.accept_tcp(|first| first.starts_with(HELLO));
        let server = Server { shelf, protocol: cx.protocol().clone(), timing: Timing::default() };
        cx.clone().spawn(async move {
            while let Some((stream, _)) = incoming.recv().await {
                cx.spawn(answer(server.clone(), stream));
            }
        });
        Box::pin(async { Ok(String::new()) })
    }

    fn fetch(&self, cx: Context, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
        let begun = async move { begin(request).await.map(Answer::into_stream) };
        cx.while_open(stream::once(begun).try_flatten().boxed())
    }
}

async fn answer(server: Server, mut stream: TcpStream) {
    let mut hello = [0; HELLO.len()];
    if stream.read_exact(&mut hello).await.is_ok() {
        let (read, write) = stream.into_split();
        // How it ended is for a log: the receiver was told what it can be told.
        let _ = server.answer(Requests(IoRead::new(read)), Line(IoWrite::new(write)), None).await;
    }
}

async fn begin(request: Request) -> Result<Answer<IoRead<OwnedReadHalf>, Line>, TransportError> {
    let unreachable = |why: &str| TransportError::new(ErrorKind::Unreachable, format!("parrot: {why}"));
    let addr = request.host.addrs.iter().find(|a| a.kind == NetKind::Tcp);
    let addr = addr.ok_or_else(|| unreachable("the host has no TCP address"))?.at;
    let connected = timeout(PATIENCE, TcpStream::connect(addr)).await;
    let mut stream = connected
        .map_err(|_| unreachable("no answer"))?
        .map_err(|e| unreachable("no connection").because(e))?;
    let broken = |e| TransportError::new(ErrorKind::Broken, "parrot: the connection broke").because(e);
    stream.write_all(HELLO).await.map_err(broken)?;
    let (read, write) = stream.into_split();
    ask(IoRead::new(read), Line(IoWrite::new(write)), &request, PATIENCE).await
}

/// What we write. The end of a request closes nothing: that the connection closes is how a host hears that its receiver
/// has gone.
struct Line(IoWrite<OwnedWriteHalf>);

impl Outbound for Line {
    async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), Lost> {
        self.0.write(chunks).await
    }

    async fn finish(&mut self) -> Result<(), Lost> {
        self.0.flush().await
    }

    fn reset(&mut self, code: EndCode) {
        self.0.reset(code);
    }
}

/// What the host reads: a connection that closes is a request given up.
struct Requests(IoRead<OwnedReadHalf>);

impl Inbound for Requests {
    async fn read(&mut self) -> Result<Option<Bytes>, Lost> {
        match self.0.read().await {
            Ok(None) => Err(Lost::GivenUp(None)),
            more => more,
        }
    }
}
