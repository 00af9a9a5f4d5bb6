//! Serving: connections from core's port, requests to the shelf.

use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioTimer;
use iceshare::icet::path::PathError;
use iceshare::icet::{MediaPath, PageNo, ProtocolName, Ticket, frame};
use iceshare::net::{Context, Slot, SlotLimits, Slots, Standing, TCP_TRIP, hold_little};
use iceshare::shelf::{Ask, Denied, Shelf};
use iceshare::store::MediaStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::body::{self, Body};
use crate::config::Config;
use crate::guests::Guests;
use crate::plan::{Refusal, plan};
use crate::watch::Watched;
use crate::wire::{self, MISSING, Range};

/// Seconds after which what is missing here may be asked for again.
const RETRY: &str = "2";
/// Bytes of an answer that the system takes before it has sent them, beyond what is on its way.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 128 * 1024;
/// Connections too many that are told so at once (others are just closed), and for how long.
const GOODBYES: usize = 64;
const GOODBYE: Duration = Duration::from_secs(1);
/// What a connection too many hears.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Methods that begin an HTTP request here; others are answered 405, so that people see what happens.
const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT "];

/// Whether a connection's first bytes are an HTTP/1 request. Empty lines before it are ignored (RFC 9112, section 2.2), two at most.
fn is_http(first: &[u8]) -> bool {
    let without = |first| <[u8]>::strip_prefix(first, b"\r\n").unwrap_or(first);
    METHODS.iter().any(|m| without(without(first)).starts_with(m))
}

/// Begins to serve.
pub(crate) fn start(cx: &Context, shelf: &Arc<Shelf>, config: Config) {
    let mut incoming = cx.accept_tcp(is_http);
    let guests = Guests::new(config.connections, config.per_ip);
    let (shelf, protocol, closed) = (shelf.clone(), cx.protocol().clone(), cx.closed().clone());
    let server = Arc::new(Server { shelf, protocol, config, guests, closed });
    let slots = Slots::new(SlotLimits { all: config.connections, each: config.per_ip });
    let goodbyes = Arc::new(Semaphore::new(GOODBYES));
    let (cx, spawner) = (cx.clone(), cx.clone());
    spawner.spawn(async move {
        loop {
            let (stream, from) = tokio::select! {
                c = incoming.recv() => match c { Some(c) => c, None => return },
                () = cx.closed().cancelled() => return,
            };
            match slots.enter(from.ip()) {
                Some(slot) => cx.spawn(connection(server.clone(), stream, from.ip(), slot, cx.clone())),
                None => {
                    tracing::debug!(%from, "too many HTTP connections; one was closed");
                    if let Ok(permit) = goodbyes.clone().try_acquire_owned() {
                        cx.spawn(async move {
                            let _ = timeout(GOODBYE, say_too_many(stream)).await;
                            drop(permit);
                        });
                    }
                }
            }
        }
    });
}

/// Closed with its request unread, a connection would be reset, and the answer lost.
async fn say_too_many(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(TOO_MANY).await?;
    stream.shutdown().await?;
    let mut request = [0; 1024];
    while stream.read(&mut request).await? > 0 {}
    Ok(())
}

async fn connection(server: Arc<Server>, stream: TcpStream, ip: IpAddr, slot: Slot, cx: Context) {
    let config = server.config;
    // Best effort. Of who reads nothing the system would else keep megabytes.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
    hold_little(&stream, server.shelf.in_hand(TCP_TRIP));
    let at = Arc::new(At { ip, slot: Arc::new(slot) });
    let place = at.clone();
    let service = service_fn(move |request| {
        let (server, at) = (server.clone(), at.clone());
        async move { Ok::<_, Infallible>(server.answer(&request, &at)) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(config.header_timeout);
    http.max_headers(64).max_buf_size(64 * 1024);
    let connection = http.serve_connection(Watched::new(stream, config.stall_timeout), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        r = connection.as_mut() => r,
        () = place.slot.taken() => return tracing::debug!("a newer HTTP connection took the place of an idle one"),
        () = cx.closed().cancelled() => {
            // The answer under way may end; the context's grace limits it.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = result {
        tracing::trace!(error = %e, "an HTTP connection ended");
    }
}

#[derive(Debug)]
struct Server {
    shelf: Arc<Shelf>,
    protocol: ProtocolName,
    config: Config,
    /// For requests without ticket that are being served.
    guests: Arc<Guests>,
    /// Once the peer shuts down.
    closed: CancellationToken,
}

/// Where a request comes from.
#[derive(Debug)]
struct At {
    ip: IpAddr,
    slot: Arc<Slot>,
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// An answer without the media's bytes.
fn plain(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = Response::new(body::full(format!("{why}\n")));
    *response.status_mut() = status;
    set(response.headers_mut(), header::CONTENT_TYPE, "text/plain; charset=utf-8");
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn denied(why: Denied) -> Response<Body> {
    let status = match why {
        Denied::NoTicket | Denied::Forged | Denied::UnknownTracker | Denied::OldEpoch | Denied::Expired => {
            StatusCode::UNAUTHORIZED
        }
        Denied::Withdrawn => StatusCode::NOT_FOUND,
        Denied::InUse | Denied::Busy | Denied::TrackerSpeaks => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::FORBIDDEN,
    };
    let mut response = plain(status, &why.to_string());
    let headers = response.headers_mut();
    match status {
        // RFC 6750, section 3.
        StatusCode::UNAUTHORIZED if why == Denied::NoTicket => {
            set(headers, header::WWW_AUTHENTICATE, "Bearer realm=\"iceshare\"");
        }
        StatusCode::UNAUTHORIZED => {
            set(headers, header::WWW_AUTHENTICATE, "Bearer realm=\"iceshare\", error=\"invalid_token\"");
        }
        StatusCode::SERVICE_UNAVAILABLE => set(headers, header::RETRY_AFTER, RETRY),
        _ => {}
    }
    response
}

fn refused(why: Refusal) -> Response<Body> {
    match why {
        Refusal::Unsatisfiable(range) => {
            let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE, "nothing lies in that range");
            set(response.headers_mut(), header::CONTENT_RANGE, &range);
            response
        }
        Refusal::Missing(page) => missing(page),
    }
}

fn missing(page: PageNo) -> Response<Body> {
    let why = format!("this peer does not hold page {page} yet");
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, &why);
    set(response.headers_mut(), header::RETRY_AFTER, RETRY);
    set(response.headers_mut(), HeaderName::from_static(MISSING), &page.to_string());
    response
}

/// What to answer to a request without a media path.
fn no_path(e: PathError) -> Response<Body> {
    match e {
        PathError::Empty => plain(StatusCode::NOT_FOUND, "this is an IceShare peer; a media has a path"),
        e => plain(StatusCode::BAD_REQUEST, &e.to_string()),
    }
}

impl Server {
    fn answer(&self, request: &Request<Incoming>, at: &At) -> Response<Body> {
        let mut response = self.respond(request, at);
        let headers = response.headers_mut();
        set(headers, header::ACCEPT_RANGES, wire::ACCEPT_RANGES);
        set(headers, header::VARY, "Accept, Authorization");
        set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        response
    }

    fn respond(&self, request: &Request<Incoming>, at: &At) -> Response<Body> {
        let headers = request.headers();
        // RFC 9112, section 3.2.
        let hosts = headers.get_all(header::HOST).iter().count();
        if hosts > 1 || (hosts == 0 && request.version() >= Version::HTTP_11) {
            return plain(StatusCode::BAD_REQUEST, "a request has one Host field");
        }
        // Of a field that is no list there may be one (RFC 9110, section 5.3): which one is meant, nobody knows.
        if headers.get_all(header::RANGE).iter().count() > 1 {
            return plain(StatusCode::BAD_REQUEST, "a request has one Range field at most");
        }
        let head = request.method() == Method::HEAD;
        if !head && request.method() != Method::GET {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here");
            set(response.headers_mut(), header::ALLOW, "GET, HEAD");
            return response;
        }
        let path = match MediaPath::from_url_path(request.uri().path()) {
            Ok(path) => path,
            Err(e) => return no_path(e),
        };
        let ticket = match headers.get(header::AUTHORIZATION) {
            None => None,
            Some(value) => match value.to_str().ok().and_then(wire::ticket) {
                Some(ticket) => Some(ticket),
                None => return denied(Denied::Forged),
            },
        };
        let if_match = text(headers, header::IF_MATCH);
        let Some(media) = self.find(&path, ticket.as_ref(), if_match) else {
            return plain(StatusCode::NOT_FOUND, "no such media here");
        };
        let wants_manifest = text(headers, header::ACCEPT).is_some_and(|list| {
            list.split(',').any(|t| t.split(';').next().unwrap_or(t).trim() == wire::MANIFEST_TYPE)
        });
        let mut etag = wire::etag(&media.id(), media.manifest().version);
        if wants_manifest {
            // Another representation of the same resource has another tag (RFC 9110, section 8.8.3).
            etag.insert_str(etag.len() - 1, "-manifest");
        }
        let is_none_match = text(headers, header::IF_NONE_MATCH);
        let mut response = if if_match.is_some_and(|list| !wire::lists_tag(list, &etag, false)) {
            plain(StatusCode::PRECONDITION_FAILED, "another version of the media is served here")
        } else if is_none_match.is_some_and(|list| wire::lists_tag(list, &etag, true)) {
            let mut response = Response::new(body::full(""));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else if wants_manifest {
            let mut response = Response::new(body::full(frame::encode(media.manifest().signed())));
            set(response.headers_mut(), header::CONTENT_TYPE, wire::MANIFEST_TYPE);
            response
        } else {
            let fresh = text(headers, header::IF_RANGE).is_none_or(|v| v.trim() == etag);
            let range = match text(headers, header::RANGE) {
                // Of HEAD, a range says nothing (RFC 9110, section 14.2).
                Some(range) if fresh && !head => Range::parse(range),
                _ => Range::Ignored,
            };
            self.media(&media, &range, ticket.as_ref(), head, at)
        };
        set(response.headers_mut(), header::ETAG, &etag);
        response
    }

    /// The media at the path. Where several publishers use one path, a ticket or an entity tag says whose is meant.
    fn find(
        &self,
        path: &MediaPath,
        ticket: Option<&Ticket>,
        if_match: Option<&str>,
    ) -> Option<Arc<MediaStore>> {
        let named = if_match.and_then(wire::media_of_etag).and_then(|(id, _)| self.shelf.find_id(&id));
        named.filter(|m| m.path() == path).or_else(|| self.shelf.find_for(path, ticket))
    }

    fn media(
        &self,
        media: &Arc<MediaStore>,
        range: &Range,
        ticket: Option<&Ticket>,
        head: bool,
        at: &At,
    ) -> Response<Body> {
        let plan = match plan(media, range, &boundary()) {
            Ok(plan) => plan,
            Err(why) => return refused(why),
        };
        let length = plan.source.length();
        let mut response = if head {
            Response::new(body::full(""))
        } else {
            let ask = Ask { media, protocol: &self.protocol, what: &plan.what, ticket, proved: None };
            match self.shelf.admit(ask) {
                Ok(admission) => {
                    let sending = if admission.is_ticketed() {
                        (at.slot.serve(Standing::Friend), None)
                    } else {
                        match self.guests.enter(at.ip) {
                            Some(guest) => (at.slot.serve(Standing::Guest), Some(guest)),
                            None => return denied(Denied::Busy),
                        }
                    };
                    let patience = self.config.stall_timeout;
                    let closed = self.closed.clone();
                    Response::new(
                        body::of(media.clone(), admission, plan.source, patience, closed).keeps(sending),
                    )
                }
                Err(why) => return denied(why),
            }
        };
        *response.status_mut() = plan.status;
        let headers = response.headers_mut();
        set(headers, header::CONTENT_TYPE, &plan.content_type);
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        if let Some(range) = &plan.content_range {
            set(headers, header::CONTENT_RANGE, &range.to_string());
        }
        if let Some(mapping) = &plan.mapping {
            set(headers, HeaderName::from_static(wire::MAPPING), mapping);
        }
        response
    }
}

/// Separates the parts of a multipart body; nobody can guess it, so no media can contain it.
fn boundary() -> String {
    let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("iceshare-{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_known_by_their_method() {
        assert!(is_http(b"GET / HTTP/1.1\r\n") && is_http(b"HEAD /a"));
        assert!(is_http(b"\r\nGET / HTTP/1.1\r\n") && is_http(b"\r\n\r\nGET /a"));
        assert!(!is_http(b"\r\n") && !is_http(b"\r\n\r\n\r\nGET /a"));
        assert!(!is_http(b"GE") && !is_http(b"GETX / HTTP/1") && !is_http(b"\x16\x03") && !is_http(b""));
    }

    #[test]
    fn boundaries_differ() {
        assert_ne!(boundary(), boundary());
    }
}
