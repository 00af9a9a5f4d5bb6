//! Serving: connections from core's port, requests to the shelf.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use iceshare::icet::{MediaPath, ProtocolName, Ticket, frame};
use iceshare::net::Context;
use iceshare::protocol::What;
use iceshare::shelf::{Ask, Denied, Shelf};
use iceshare::store::MediaStore;
use tokio::net::TcpStream;

use crate::body::{self, Body};
use crate::config::Config;
use crate::plan::{Partial, Plan, plan};
use crate::wire::{self, Range};

/// How long a request's header may take, and a connection may lie idle between requests.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Seconds after which what is missing here may be asked for again.
const RETRY: &str = "2";
const MANIFEST_TYPE: &str = "application/vnd.iceshare.manifest+cbor";
const PROOFS_TYPE: &str = "application/cbor-seq";

/// Begins to serve.
pub(crate) fn start(cx: &Context, shelf: &Arc<Shelf>, config: Config) {
    let mut incoming = cx.accept_tcp(|first| first.first().is_some_and(u8::is_ascii_uppercase));
    let server = Arc::new(Server { shelf: shelf.clone(), protocol: cx.protocol().clone() });
    let doors = Arc::new(Doors { config, open: Mutex::default() });
    let (cx, spawner) = (cx.clone(), cx.clone());
    spawner.spawn(async move {
        loop {
            let (stream, from) = tokio::select! {
                c = incoming.recv() => match c { Some(c) => c, None => return },
                () = cx.closed().cancelled() => return,
            };
            if let Some(pass) = Pass::new(&doors, from) {
                cx.spawn(connection(server.clone(), stream, pass, cx.clone()));
            }
        }
    });
}

/// How many connections are open, in all and by address.
#[derive(Debug)]
struct Doors {
    config: Config,
    open: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// One open connection.
struct Pass {
    doors: Arc<Doors>,
    ip: IpAddr,
}

impl Pass {
    fn new(doors: &Arc<Doors>, from: SocketAddr) -> Option<Pass> {
        let ip = from.ip().to_canonical();
        let mut open = doors.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, mine) = (open.0, open.1.get(&ip).copied().unwrap_or(0));
        // A whole swarm may run on this machine.
        if all >= doors.config.connections || mine >= doors.config.per_ip && !ip.is_loopback() {
            tracing::debug!(%ip, "too many HTTP connections; one was closed");
            return None;
        }
        open.0 += 1;
        *open.1.entry(ip).or_default() += 1;
        Some(Pass { doors: doors.clone(), ip })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut open = self.doors.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.0 -= 1;
        if let Some(n) = open.1.get_mut(&self.ip) {
            *n -= 1;
            if *n == 0 {
                open.1.remove(&self.ip);
            }
        }
    }
}

async fn connection(server: Arc<Server>, stream: TcpStream, pass: Pass, cx: Context) {
    // Heads and small bodies must not wait for each other (RFC 9293, section 3.7.4).
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(&request)) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_headers(64).max_buf_size(64 * 1024);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        r = connection => if let Err(e) = r {
            tracing::trace!(error = %e, "an HTTP connection ended");
        },
        () = cx.closed().cancelled() => {}
    }
    drop(pass);
}

#[derive(Debug)]
struct Server {
    shelf: Arc<Shelf>,
    protocol: ProtocolName,
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// An answer without the media's bytes.
fn plain(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = Response::new(body::full(format!("{why}\n")));
    *response.status_mut() = status;
    set(response.headers_mut(), header::CONTENT_TYPE, "text/plain; charset=utf-8");
    response
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn denied(why: Denied) -> Response<Body> {
    let status = match why {
        Denied::NoTicket => StatusCode::UNAUTHORIZED,
        Denied::Withdrawn => StatusCode::NOT_FOUND,
        Denied::InUse | Denied::Busy => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::FORBIDDEN,
    };
    let mut response = plain(status, &why.to_string());
    match why {
        Denied::NoTicket => {
            set(response.headers_mut(), header::WWW_AUTHENTICATE, "Bearer realm=\"iceshare\"")
        }
        Denied::InUse | Denied::Busy => set(response.headers_mut(), header::RETRY_AFTER, RETRY),
        _ => {}
    }
    response
}

impl Server {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let head = request.method() == Method::HEAD;
        if !head && request.method() != Method::GET {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here");
            set(response.headers_mut(), header::ALLOW, "GET, HEAD");
            return response;
        }
        let headers = request.headers();
        let ticket = match text(headers, header::AUTHORIZATION).map(wire::ticket) {
            Some(None) => return plain(StatusCode::UNAUTHORIZED, "the Authorization header holds no ticket"),
            Some(ticket) => ticket,
            None => None,
        };
        let path = MediaPath::from_url_path(request.uri().path()).ok();
        let Some(media) = path.and_then(|p| self.shelf.find_for(&p, ticket.as_ref())) else {
            return plain(StatusCode::NOT_FOUND, "no such media here");
        };
        let etag = wire::etag(media.manifest());
        if text(headers, header::IF_MATCH).is_some_and(|m| !listed(m, &etag)) {
            return plain(StatusCode::PRECONDITION_FAILED, "another version of the media is served here");
        }
        let mut response = if text(headers, header::ACCEPT) == Some(MANIFEST_TYPE) {
            let mut response = Response::new(body::full(frame::encode(media.manifest().signed())));
            set(response.headers_mut(), header::CONTENT_TYPE, MANIFEST_TYPE);
            response
        } else if text(headers, header::IF_NONE_MATCH).is_some_and(|m| listed(m, &etag)) {
            let mut response = Response::new(body::full(""));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            let fresh = text(headers, header::IF_RANGE).is_none_or(|v| v.trim() == etag);
            // A range on HEAD means nothing (RFC 9110, section 14.2).
            let range = text(headers, header::RANGE).filter(|_| fresh && !head).and_then(Range::parse);
            self.media(&media, range, ticket.as_ref(), head)
        };
        let headers = response.headers_mut();
        set(headers, header::ETAG, &etag);
        set(headers, header::ACCEPT_RANGES, "bytes, pages, proofs, t");
        set(headers, header::VARY, "Accept");
        set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        response
    }

    fn media(
        &self,
        media: &Arc<MediaStore>,
        range: Option<Range>,
        ticket: Option<&Ticket>,
        head: bool,
    ) -> Response<Body> {
        let m = media.manifest();
        if head {
            let mut response = Response::new(body::full(""));
            set(response.headers_mut(), header::CONTENT_TYPE, m.mime());
            set(response.headers_mut(), header::CONTENT_LENGTH, &m.bytes.to_string());
            return response;
        }
        let admit = |what: &What| {
            self.shelf.admit(Ask { media, protocol: &self.protocol, what, ticket, proved: None })
        };
        match plan(media, range) {
            Plan::Unsatisfiable(range) => {
                let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE, "nothing lies in that range");
                set(response.headers_mut(), header::CONTENT_RANGE, &range);
                response
            }
            Plan::Missing => {
                let mut response =
                    plain(StatusCode::SERVICE_UNAVAILABLE, "this peer does not hold that part (yet)");
                set(response.headers_mut(), header::RETRY_AFTER, RETRY);
                response
            }
            Plan::Extents { what, extents, partial } => {
                let admission = match admit(&what) {
                    Ok(a) => a,
                    Err(why) => return denied(why),
                };
                let len: u64 = extents.iter().map(|(_, len)| len).sum();
                let mut response = Response::new(body::extents(media.clone(), admission, extents));
                let headers = response.headers_mut();
                set(headers, header::CONTENT_LENGTH, &len.to_string());
                set(headers, header::CONTENT_TYPE, m.mime());
                match &partial {
                    Some(Partial::Range(range)) => set(headers, header::CONTENT_RANGE, range),
                    Some(Partial::Mapping(mapping)) => {
                        set(headers, header::HeaderName::from_static("content-range-mapping"), mapping);
                    }
                    None => {}
                }
                if partial.is_some() {
                    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                }
                response
            }
            Plan::Coming { set: pages, content_range } => {
                let admission = match admit(&What::Pages(pages)) {
                    Ok(a) => a,
                    Err(why) => return denied(why),
                };
                let mut response = Response::new(body::pages(media.clone(), admission, pages));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                set(response.headers_mut(), header::CONTENT_TYPE, m.mime());
                set(response.headers_mut(), header::CONTENT_RANGE, &content_range);
                response
            }
            Plan::Proofs { first, last, content_range } => {
                let admission = match admit(&What::Proofs { first, last }) {
                    Ok(a) => a,
                    Err(why) => return denied(why),
                };
                let mut bytes = Vec::new();
                for slice in (first..=last).filter_map(|i| media.proven_slice(i)) {
                    bytes.extend_from_slice(&frame::encode(&slice));
                }
                let len = bytes.len();
                let mut response = Response::new(body::metered(bytes.into(), admission));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                set(response.headers_mut(), header::CONTENT_TYPE, PROOFS_TYPE);
                set(response.headers_mut(), header::CONTENT_LENGTH, &len.to_string());
                set(response.headers_mut(), header::CONTENT_RANGE, &content_range);
                response
            }
        }
    }
}

/// Whether a list of entity tags (RFC 9110, section 13.1) has this strong one.
fn listed(list: &str, etag: &str) -> bool {
    list.trim() == "*" || list.split(',').any(|t| t.trim() == etag)
}
