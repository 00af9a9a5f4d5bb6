//! Fetching: pooled connections, one request at a time on each.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap};
use hyper::{Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::TokioIo;
use iceshare::icet::NetKind;
use iceshare::protocol::{ErrorKind, Piece, Request, TransportError, What};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wire;

/// Idle connections to one host that are kept.
const IDLE_PER_HOST: usize = 8;
/// How long they are kept: less than hosts do.
const IDLE_TIME: Duration = Duration::from_secs(20);
/// Bytes that hyper reads at once at most.
const READ: usize = 512 * 1024;

type Sender = SendRequest<Empty<Bytes>>;

/// Connections that wait for their next request.
#[derive(Debug)]
pub(crate) struct Pool {
    connect_timeout: Duration,
    idle: Mutex<HashMap<SocketAddr, Vec<(Sender, Instant)>>>,
}

fn broken(what: &str, e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TransportError {
    TransportError::new(ErrorKind::Broken, what.to_owned()).because(e)
}

impl Pool {
    pub(crate) fn new(connect_timeout: Duration) -> Pool {
        Pool { connect_timeout, idle: Mutex::default() }
    }

    fn take(&self, addr: SocketAddr) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.values_mut().for_each(|v| v.retain(|(s, at)| !s.is_closed() && at.elapsed() < IDLE_TIME));
        idle.retain(|_, v| !v.is_empty());
        idle.get_mut(&addr).and_then(Vec::pop).map(|(s, _)| s)
    }

    fn put(&self, addr: SocketAddr, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = idle.entry(addr).or_default();
        if mine.len() < IDLE_PER_HOST {
            mine.push((sender, Instant::now()));
        }
    }

    async fn connect(&self, addr: SocketAddr) -> Result<Sender, TransportError> {
        let unreachable = |e: io::Error| {
            TransportError::new(ErrorKind::Unreachable, format!("no connection to {addr}")).because(e)
        };
        let stream = timeout(self.connect_timeout, TcpStream::connect(addr))
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
            .map_err(unreachable)?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken("the connection broke", e))?;
        // Ends when the sender and the body are dropped: that is how a request is cancelled.
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::trace!(error = %e, "a connection to a host ended");
            }
        });
        Ok(sender)
    }

    /// Sends the request to the first of the host's addresses that answers.
    async fn send(
        &self,
        request: &Request,
    ) -> Result<(SocketAddr, Sender, Response<Incoming>), TransportError> {
        let mut last = TransportError::new(ErrorKind::Unreachable, "the host has no TCP address");
        for addr in request.host.addrs.iter().filter(|a| a.kind == NetKind::Tcp).map(|a| a.at) {
            // A kept connection may have been closed meanwhile: then a fresh one is tried.
            if let Some(mut sender) = self.take(addr)
                && let Ok(response) = sender.send_request(build(request, addr)?).await
            {
                return Ok((addr, sender, response));
            }
            match self.connect(addr).await {
                Ok(mut sender) => {
                    let response = sender.send_request(build(request, addr)?).await;
                    return response
                        .map(|r| (addr, sender, r))
                        .map_err(|e| broken("the host closed the connection", e));
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

fn build(request: &Request, addr: SocketAddr) -> Result<HttpRequest<Empty<Bytes>>, TransportError> {
    let range = match &request.what {
        What::Pages(set) => format!("pages={set}"),
        What::Bytes { first, last: Some(last) } => format!("bytes={first}-{last}"),
        What::Bytes { first, last: None } => format!("bytes={first}-"),
        What::Time { from, to } => {
            format!("t:npt={}-{}", wire::npt_text(*from), to.map(wire::npt_text).unwrap_or_default())
        }
        What::Proofs { first, last } => format!("proofs={first}-{last}"),
    };
    let mut http = HttpRequest::get(format!("/{}", request.path.to_url_path()))
        .header(header::HOST, addr.to_string())
        .header(header::RANGE, range)
        .header(header::IF_MATCH, format!("\"{}-{}\"", request.media, request.version));
    if let Some(ticket) = &request.ticket {
        http = http.header(header::AUTHORIZATION, wire::bearer(ticket));
    }
    http.body(Empty::new())
        .map_err(|e| TransportError::new(ErrorKind::Local, "the request cannot be written").because(e))
}

/// What an answer that is not 206 means.
fn refusal(status: StatusCode, addr: SocketAddr) -> TransportError {
    let kind = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::PRECONDITION_FAILED => ErrorKind::NoMedia,
        StatusCode::RANGE_NOT_SATISFIABLE => ErrorKind::NoRange,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => ErrorKind::Busy,
        _ => ErrorKind::Protocol,
    };
    TransportError::new(kind, format!("{addr} answers {status}"))
}

/// Checks that what comes is (a beginning of) what was asked for.
fn check(what: &What, headers: &HeaderMap) -> Result<(), TransportError> {
    let wrong =
        || TransportError::new(ErrorKind::Protocol, "the host sends another range than was asked for");
    let value = headers.get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
    let range = value.and_then(wire::content_range);
    let fits = |unit: &str, first: u64, last: Option<u64>| {
        range.is_some_and(|(u, a, b)| u == unit && a == first && last.is_none_or(|l| b <= l))
    };
    let good = match what {
        What::Pages(set) => fits("pages", set.first, set.last),
        What::Bytes { first, last } => fits("bytes", *first, *last),
        What::Proofs { first, last } => fits("proofs", *first, Some(*last)),
        What::Time { .. } => headers.contains_key("content-range-mapping"),
    };
    if good { Ok(()) } else { Err(wrong()) }
}

/// Requests a range; see [`iceshare::protocol::PayloadProtocol::fetch`].
pub(crate) fn fetch(pool: Arc<Pool>, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
    let begun = async move {
        let (addr, sender, response) = pool.send(&request).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(refusal(response.status(), addr));
        }
        check(&request.what, response.headers())?;
        let first = match &request.what {
            What::Pages(set) => set.next_from(0).map(Piece::Page),
            _ => None,
        };
        // More than was announced cannot come: HTTP frames the body. More than was asked for would be announced.
        let most = match &request.what {
            What::Bytes { first, last: Some(last) } => Some(last - first + 1),
            _ => None,
        };
        let announced = response.body().size_hint().exact();
        if most.zip(announced).is_some_and(|(most, announced)| announced > most) {
            return Err(TransportError::new(ErrorKind::Protocol, "the host sends more than was asked for"));
        }
        let body = Receiving { pool, addr, sender: Some(sender), body: response.into_body(), left: most };
        let pieces = stream::try_unfold(body, |mut body| async move {
            Ok(body.next().await?.map(|bytes| (Piece::Bytes(bytes), body)))
        });
        Ok(stream::iter(first.map(Ok)).chain(pieces))
    };
    stream::once(begun).try_flatten().boxed()
}

/// A body on its way. When it has ended well, its connection goes back to the pool; when dropped before, it is closed.
struct Receiving {
    pool: Arc<Pool>,
    addr: SocketAddr,
    sender: Option<Sender>,
    body: Incoming,
    left: Option<u64>,
}

impl Receiving {
    async fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    if let Some(left) = &mut self.left {
                        *left = left.checked_sub(bytes.len() as u64).ok_or_else(|| {
                            TransportError::new(ErrorKind::Protocol, "the host sends more than was asked for")
                        })?;
                    }
                    return Ok(Some(bytes));
                }
                Some(Err(e)) => return Err(broken("the connection broke in the middle", e)),
                None => {
                    if let Some(sender) = self.sender.take() {
                        let (pool, addr) = (self.pool.clone(), self.addr);
                        // Ready as soon as the connection's task has seen the end too.
                        tokio::spawn(async move {
                            let mut sender = sender;
                            if timeout(Duration::from_secs(1), sender.ready()).await.is_ok_and(|r| r.is_ok())
                            {
                                pool.put(addr, sender);
                            }
                        });
                    }
                    return Ok(None);
                }
            }
        }
    }
}
