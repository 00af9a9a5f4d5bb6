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
use iceshare::icet::{NetKind, PageNo, limits};
use iceshare::net::Context;
use iceshare::protocol::{ErrorKind, Piece, Request, TransportError, What};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wire::{self, ContentRange, Unit};

/// Idle connections to one host that are kept.
const IDLE_PER_HOST: usize = 8;
/// How long they are kept: less than hosts do by default.
const IDLE_TIME: Duration = Duration::from_secs(20);
/// Connections that are tried when a host closes them before it answers.
const TRIES: u32 = 3;
/// How long the head of an answer may take.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// Bytes that hyper reads at once at most.
const READ: usize = 512 * 1024;
/// When a request is dropped with no more than this to come, the rest is read, to keep the connection.
const DRAIN: u64 = 128 * 1024;

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

fn misbehaved(what: impl Into<String>) -> TransportError {
    TransportError::new(ErrorKind::Protocol, what)
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

    async fn connect(&self, cx: &Context, addr: SocketAddr) -> Result<Sender, TransportError> {
        let unreachable = |e: io::Error| {
            TransportError::new(ErrorKind::Unreachable, format!("no connection to {addr}")).because(e)
        };
        let stream = timeout(self.connect_timeout, TcpStream::connect(addr))
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
            .map_err(unreachable)?;
        // A request is one small write, and waits for nothing.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken("the connection broke", e))?;
        // Ends when the sender and the body are dropped: that is how a request is cancelled. Those in the pool wait for nobody when
        // the peer shuts down.
        let closed = cx.closed().clone();
        cx.spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(e) = ended {
                        tracing::trace!(error = %e, "a connection to a host ended");
                    }
                }
                () = closed.cancelled() => {}
            }
        });
        Ok(sender)
    }

    /// Sends the request to the first of the host's addresses that can be reached.
    async fn send(
        &self,
        cx: &Context,
        request: &Request,
    ) -> Result<(SocketAddr, Sender, Response<Incoming>), TransportError> {
        let mut last = TransportError::new(ErrorKind::Unreachable, "the host has no TCP address");
        for addr in request.host.addrs.iter().filter(|a| a.kind == NetKind::Tcp).map(|a| a.at) {
            // A kept connection may have been closed meanwhile: then a fresh one is tried.
            if let Some(mut sender) = self.take(addr)
                && let Ok(Ok(response)) = timeout(HEAD_TIME, sender.send_request(build(request, addr)?)).await
            {
                return Ok((addr, sender, response));
            }
            for tried in 1.. {
                match self.connect(cx, addr).await {
                    Ok(mut sender) => {
                        match timeout(HEAD_TIME, sender.send_request(build(request, addr)?)).await {
                            Ok(Ok(response)) => return Ok((addr, sender, response)),
                            // A host in a flood of strangers makes room for newer ones: another try has its chance too.
                            Ok(Err(_)) if tried < TRIES => {}
                            Ok(Err(e)) => return Err(broken("the host closed the connection", e)),
                            Err(_) => {
                                return Err(TransportError::new(
                                    ErrorKind::Broken,
                                    format!("{addr} does not answer"),
                                ));
                            }
                        }
                    }
                    Err(e) => {
                        last = e;
                        break;
                    }
                }
            }
        }
        Err(last)
    }
}

fn build(request: &Request, addr: SocketAddr) -> Result<HttpRequest<Empty<Bytes>>, TransportError> {
    let range = match &request.what {
        What::Pages(set) => wire::range_of_pages(set),
        What::Bytes { first, last: Some(last) } => format!("bytes={first}-{last}"),
        What::Bytes { first, last: None } => format!("bytes={first}-"),
        What::Time { from, to } => {
            format!("t:npt={}-{}", wire::to_npt(*from), to.map(wire::to_npt).unwrap_or_default())
        }
        What::Proofs { first, last } => format!("proofs={first}-{last}"),
        other => return Err(unknown(other)),
    };
    let mut http = HttpRequest::get(format!("/{}", request.path.to_url_path()))
        .header(header::HOST, addr.to_string())
        .header(header::RANGE, range)
        // Of another media at this path, or another version, nothing is wanted.
        .header(header::IF_MATCH, wire::etag(&request.media, request.version));
    if let Some(ticket) = &request.ticket {
        http = http.header(header::AUTHORIZATION, wire::bearer(ticket));
    }
    http.body(Empty::new())
        .map_err(|e| TransportError::new(ErrorKind::Local, "the request cannot be written").because(e))
}

/// What an answer that is not 206 means.
fn refusal(addr: SocketAddr, status: StatusCode, headers: &HeaderMap) -> TransportError {
    let kind = match status {
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::PRECONDITION_FAILED => ErrorKind::NoMedia,
        StatusCode::RANGE_NOT_SATISFIABLE => ErrorKind::NoRange,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ErrorKind::Denied,
        StatusCode::SERVICE_UNAVAILABLE if headers.contains_key(wire::MISSING) => ErrorKind::NoRange,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => ErrorKind::Busy,
        StatusCode::INTERNAL_SERVER_ERROR | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => {
            ErrorKind::Broken
        }
        _ => ErrorKind::Protocol,
    };
    TransportError::new(kind, format!("{addr} answers {status}"))
}

/// What an answer promises.
#[derive(Debug, PartialEq, Eq)]
struct Promise {
    /// Page that the body begins with, if known.
    page: Option<PageNo>,
    /// Bytes of the body, if the range tells.
    exact: Option<u64>,
    /// Bytes that the body can have at most.
    most: u64,
    /// What was asked for and is not sent.
    short: Option<String>,
}

/// Checks that what comes is what was asked for, or a beginning of it.
fn check(what: &What, headers: &HeaderMap) -> Result<Promise, TransportError> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|v| v != "identity") {
        return Err(misbehaved("the host sends an encoding that nobody asked for"));
    }
    let value = headers.get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
    let Some(ContentRange { unit, span: Some((first, last)), total, stripe }) =
        value.and_then(ContentRange::parse)
    else {
        return Err(misbehaved("the host sends 206 without a range that can be read"));
    };
    let wrong = || misbehaved(format!("the host sends {unit:?} {first}-{last}, which was not asked for"));
    let ends = total.is_some_and(|t| last + 1 >= t);
    let short = |asked: Option<u64>| {
        asked.is_some_and(|a| last < a && !ends).then(|| format!("the host holds it up to {last} only"))
    };
    let cap = |count: u64, each: u64| count.saturating_mul(each);
    match what {
        What::Pages(set) => {
            let starts = set.next_from(0) == Some(first) || set.first == first;
            if unit != Unit::Pages || !starts || set.last.is_some_and(|l| last > l) || stripe != set.stripe {
                return Err(wrong());
            }
            let most = cap(set.count(last.saturating_add(1)), u64::from(*limits::PAGE_BYTES.end()));
            Ok(Promise { page: set.next_from(0), exact: None, most, short: short(set.last) })
        }
        What::Bytes { first: asked, last: to } => {
            if unit != Unit::Bytes || first != *asked || to.is_some_and(|l| last > l) {
                return Err(wrong());
            }
            let exact = last - first + 1;
            Ok(Promise { page: None, exact: Some(exact), most: exact, short: short(*to) })
        }
        What::Time { .. } => {
            if unit != Unit::Bytes || !headers.contains_key(wire::MAPPING) {
                return Err(wrong());
            }
            let exact = last - first + 1;
            Ok(Promise { page: None, exact: Some(exact), most: exact, short: None })
        }
        What::Proofs { first: asked, last: to } => {
            if unit != Unit::Proofs || first != *asked || last > *to {
                return Err(wrong());
            }
            // A slice, its siblings, and the CBOR around them.
            let each = (limits::SLICE + limits::PROOF * 34 + 16) as u64;
            Ok(Promise {
                page: None,
                exact: None,
                most: cap(last - first + 1, each),
                short: short(Some(*to)),
            })
        }
        other => Err(unknown(other)),
    }
}

/// Of something that this protocol has no range unit for.
fn unknown(what: &What) -> TransportError {
    TransportError::new(ErrorKind::Local, format!("HTTP has no range unit for {what:?}"))
}

/// Requests a range; see [`iceshare::protocol::PayloadProtocol::fetch`].
pub(crate) fn fetch(
    pool: Arc<Pool>,
    cx: Context,
    request: Request,
) -> BoxStream<'static, Result<Piece, TransportError>> {
    let begun = async move {
        let (addr, sender, response) = pool.send(&cx, &request).await?;
        let (head, body) = response.into_parts();
        let mut promise = match head.status {
            StatusCode::PARTIAL_CONTENT => check(&request.what, &head.headers)?,
            // A server that knows no ranges sends all, from the beginning: good for those who want that.
            StatusCode::OK => match &request.what {
                What::Bytes { first: 0, last } => {
                    let most = last.map_or(u64::MAX, |l| l.saturating_add(1));
                    Promise { page: None, exact: None, most, short: None }
                }
                _ => return Err(misbehaved("the host sends all of it, not the range that was asked for")),
            },
            status => return Err(refusal(addr, status, &head.headers)),
        };
        let cut = head.status == StatusCode::OK;
        let announced = body.size_hint().exact();
        if let (Some(exact), Some(announced)) = (promise.exact, announced)
            && exact != announced
        {
            return Err(misbehaved(format!("the host announces {announced} bytes for a range of {exact}")));
        }
        let first = promise.page.take().map(|page| Ok(Piece::Page(page)));
        let body = Receiving {
            pool,
            cx,
            addr,
            sender: Some(sender),
            body: Some(body),
            left: promise.most,
            exact: promise.exact.is_some(),
            cut,
            last: promise.short.map(|why| TransportError::new(ErrorKind::NoRange, why)),
        };
        let pieces = stream::try_unfold(body, |mut body| async move {
            Ok(body.next().await?.map(|bytes| (Piece::Bytes(bytes), body)))
        });
        Ok(stream::iter(first).chain(pieces))
    };
    stream::once(begun).try_flatten().boxed()
}

/// A body on its way. When it has ended well, its connection goes back to the pool; when dropped before, the connection
/// is closed, unless the rest is hardly worth it.
struct Receiving {
    pool: Arc<Pool>,
    cx: Context,
    addr: SocketAddr,
    sender: Option<Sender>,
    body: Option<Incoming>,
    /// Bytes that may still come.
    left: u64,
    /// Whether exactly so many must come.
    exact: bool,
    /// Whether to stop when they have come, without complaint.
    cut: bool,
    /// What the stream ends with, if not well.
    last: Option<TransportError>,
}

impl Receiving {
    async fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        loop {
            if self.cut && self.left == 0 {
                self.body = None;
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            match body.frame().await {
                Some(Ok(frame)) => {
                    let Ok(mut bytes) = frame.into_data() else { continue };
                    if bytes.is_empty() {
                        continue;
                    }
                    let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                    if bytes.len() > left && !self.cut {
                        self.close();
                        return Err(misbehaved("the host sends more than was asked for"));
                    }
                    bytes.truncate(left);
                    self.left -= bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Some(Err(e)) => {
                    self.close();
                    return Err(broken("the connection broke in the middle", e));
                }
                None if self.exact && self.left > 0 => {
                    self.close();
                    let why = format!("{} bytes of the range did not come", self.left);
                    return Err(TransportError::new(ErrorKind::Broken, why));
                }
                None => {
                    self.body = None;
                    self.keep();
                    return self.last.take().map_or(Ok(None), Err);
                }
            }
        }
    }

    fn close(&mut self) {
        self.body = None;
        self.sender = None;
    }

    /// Gives the connection back once it can take another request.
    fn keep(&mut self) {
        let Some(mut sender) = self.sender.take() else { return };
        let (pool, addr) = (self.pool.clone(), self.addr);
        if sender.is_ready() {
            return pool.put(addr, sender);
        }
        self.cx.spawn(async move {
            // Ready as soon as the connection's task has seen the end too.
            if timeout(Duration::from_secs(1), sender.ready()).await.is_ok_and(|r| r.is_ok()) {
                pool.put(addr, sender);
            }
        });
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let (Some(mut body), Some(mut sender)) = (self.body.take(), self.sender.take()) else { return };
        if body.size_hint().exact().is_none_or(|left| left > DRAIN)
            || tokio::runtime::Handle::try_current().is_err()
        {
            return;
        }
        let (pool, addr) = (self.pool.clone(), self.addr);
        self.cx.spawn(async move {
            let rest = async move {
                while let Some(Ok(_)) = body.frame().await {}
                sender.ready().await.map(|()| sender)
            };
            if let Ok(Ok(sender)) = timeout(Duration::from_secs(2), rest).await {
                pool.put(addr, sender);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iceshare::icet::{PageSet, Stripe};

    fn answer(range: &str, what: What) -> Result<Promise, ErrorKind> {
        let mut headers = HeaderMap::new();
        if let Ok(value) = range.parse() {
            headers.insert(header::CONTENT_RANGE, value);
        }
        headers.insert(wire::MAPPING, header::HeaderValue::from_static("{ }"));
        check(&what, &headers).map_err(|e| e.kind)
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        let pages = |a, b| What::Pages(PageSet::range(a, b));
        let bytes = |first, last| What::Bytes { first, last: Some(last) };
        let stripe = What::Pages(PageSet { first: 0, last: Some(99), stripe: Stripe::new(1, 4, 1) });
        for (range, what) in [
            ("pages 11-19/230", pages(10, 19)),
            ("pages 10-20/230", pages(10, 19)),
            ("bytes 10-19/230", pages(10, 19)),
            ("pages 10-19/15", pages(10, 19)),
            ("pages 10-19/230;stripe=1/4/1", pages(10, 19)),
            ("pages 1-99/230", stripe.clone()),
            ("pages 1-99/230;stripe=2/4/1", stripe.clone()),
            ("bytes 0-9/10", bytes(1, 9)),
            ("bytes 1-10/100", bytes(1, 9)),
            ("proofs 0-5/9", What::Proofs { first: 0, last: 4 }),
            ("pages */230", pages(10, 19)),
            ("nonsense", pages(10, 19)),
        ] {
            assert_eq!(answer(range, what), Err(ErrorKind::Protocol), "{range}");
        }
    }

    #[test]
    fn a_beginning_is_taken_and_told() {
        let pages = |a, b| What::Pages(PageSet::range(a, b));
        let whole = answer("pages 10-19/230", pages(10, 19));
        assert!(whole.is_ok_and(|p| p.page == Some(10) && p.short.is_none() && p.most == 10 * 65_307));
        assert!(answer("pages 10-15/230", pages(10, 19)).is_ok_and(|p| p.short.is_some()));
        assert!(answer("pages 10-15/16", pages(10, 19)).is_ok_and(|p| p.short.is_none()), "the media's end");
        let open = What::Pages(PageSet { first: 3, last: None, stripe: None });
        assert!(answer("pages 3-1099511627775/*", open).is_ok_and(|p| p.short.is_none()));
        let stripe = What::Pages(PageSet { first: 0, last: Some(99), stripe: Stripe::new(1, 4, 1) });
        assert!(answer("pages 1-99/230;stripe=1/4/1", stripe).is_ok_and(|p| p.page == Some(1)));
        let bytes = answer("bytes 5-9/10", What::Bytes { first: 5, last: Some(20) });
        assert!(bytes.is_ok_and(|p| p.exact == Some(5) && p.short.is_none()));
    }
}
