//! Requests and their answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::Poll;

use futures_util::stream::{self, StreamExt};
use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::body::{self, Body};
use crate::flat::{self, Joined, Left};
use crate::guard;
use crate::page;
use crate::playable::{Playable, Table};
use crate::range::{Selection, select_from};

/// A media on offer.
pub(crate) struct Entry {
    pub(crate) media: Arc<dyn Playable>,
    /// The last segment of its URL, decoded.
    pub(crate) file: String,
    /// What is on, of live media.
    pub(crate) now: watch::Receiver<Option<String>>,
    /// Cancelled when the offer is withdrawn.
    pub(crate) gone: CancellationToken,
    /// Live media: a copy for each response under way.
    pub(crate) reading: Arc<()>,
    /// Live media: somebody was given all up to its end.
    pub(crate) ended: Arc<AtomicBool>,
    /// Live media: where a response could not go on.
    pub(crate) left: Arc<Left>,
}

/// What is on offer, by token.
#[derive(Default)]
pub(crate) struct Offers(RwLock<HashMap<String, Arc<Entry>>>);

impl Offers {
    pub(crate) fn put(&self, token: String, entry: Entry) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(token, Arc::new(entry));
    }

    pub(crate) fn remove(&self, token: &str) {
        if let Some(entry) = self.0.write().unwrap_or_else(PoisonError::into_inner).remove(token) {
            entry.gone.cancel();
        }
    }

    pub(crate) fn get(&self, token: &str) -> Option<Arc<Entry>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }
}

/// Answers one request to the gateway at `port`.
pub(crate) fn answer<B>(offers: &Offers, port: u16, request: &Request<B>) -> Response<Body> {
    let mut response = match guard::check(request.headers(), request.uri(), port) {
        Ok(()) => route(offers, request),
        Err(status) => plain(status, "This address is for programs on this machine.\n"),
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // The address holds the token: it must not leave with a link.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    response
}

fn route<B>(offers: &Offers, request: &Request<B>) -> Response<Body> {
    let not_found = || plain(StatusCode::NOT_FOUND, "Not found.\n");
    let mut segments = request.uri().path().strip_prefix('/').unwrap_or_default().splitn(2, '/');
    let (token, rest) = (segments.next().unwrap_or_default(), segments.next());
    let Some(entry) = offers.get(token) else { return not_found() };
    let Some(name) = rest.map(|r| percent_decode_str(r).decode_utf8_lossy()) else {
        return redirect(&format!("/{token}/"));
    };
    let head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "This can be read only.\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
    };
    let mut response = if name == entry.file.as_str() {
        let query = request.uri().query().unwrap_or_default();
        media(&entry, request.headers(), query, head)
    } else if name == "table.json" {
        table(&entry)
    } else if name.is_empty() {
        html(&entry)
    } else {
        return not_found();
    };
    if head {
        *response.body_mut() = body::empty();
    }
    response
}

fn media(entry: &Entry, headers: &HeaderMap, query: &str, head: bool) -> Response<Body> {
    let media = entry.media.as_ref();
    // VLC comes again at the end of what it takes for radio, and would hear the last minutes over and over.
    if entry.ended.load(Ordering::Relaxed) {
        return plain(StatusCode::GONE, "The broadcast has ended.\n");
    }
    // A head tells nothing of what comes.
    let from = entry.left.page().filter(|_| !head);
    if let Some(pages) = media.open_live(from) {
        let ended = entry.ended.clone();
        let end = stream::poll_fn(move |_| {
            ended.store(true, Ordering::Relaxed);
            Poll::Ready(None)
        });
        let mut response = Response::new(body::empty());
        set(&mut response, CONTENT_TYPE, media.mime());
        set(&mut response, ACCEPT_RANGES, "none");
        set(&mut response, CACHE_CONTROL, "no-store");
        let pages = pages.chain(end).boxed();
        // VLC asks for titles only once it was told that this is radio.
        let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '_' };
        let name: String = media.name().chars().map(printable).collect();
        set(&mut response, HeaderName::from_static("icy-name"), &name);
        // Who takes titles between the bytes needs no links for them: players lose up to 0.4 s at each, or play a part twice.
        let titles = headers.get("icy-metadata").is_some_and(|v| v == "1");
        let joined = match query.split('&').find_map(|q| q.strip_prefix("chain=")) {
            Some("flat") => Some(Joined::One),
            Some("links") => None,
            Some(_) => return plain(StatusCode::BAD_REQUEST, "chain= takes flat or links.\n"),
            None => titles.then_some(Joined::Setups),
        };
        let pages = match joined {
            Some(joined) => {
                if titles {
                    set(&mut response, HeaderName::from_static("icy-metaint"), &flat::EVERY.to_string());
                }
                flat::flat(pages, joined, titles, entry.left.clone())
            }
            None => flat::links(pages),
        };
        if !head {
            *response.body_mut() = body::live(pages, entry.gone.clone(), entry.reading.clone());
        }
        return response;
    }
    let length = media.length();
    let etag = format!("\"{}\"", media.etag());
    // RFC 9110, section 14.2: a range in anything but a GET is ignored.
    let selection = if head { Selection::Whole } else { select_from(headers, &etag, length) };
    let mut response = Response::new(body::empty());
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let matches = |t: &str| t == "*" || t.strip_prefix("W/").unwrap_or(t) == etag;
    if known.flat_map(|v| v.split(',')).any(|t| matches(t.trim())) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        let (status, count) = match selection {
            Selection::Whole => (StatusCode::OK, length),
            Selection::Part { first, last } => (StatusCode::PARTIAL_CONTENT, last - first + 1),
            Selection::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0),
        };
        *response.status_mut() = status;
        let start = match selection {
            Selection::Part { first, last } => {
                set(&mut response, CONTENT_RANGE, &format!("bytes {first}-{last}/{length}"));
                first
            }
            Selection::Unsatisfiable => {
                set(&mut response, CONTENT_RANGE, &format!("bytes */{length}"));
                0
            }
            Selection::Whole => 0,
        };
        set(&mut response, CONTENT_LENGTH, &count.to_string());
        set(&mut response, CONTENT_TYPE, media.mime());
        if !head && count > 0 {
            *response.body_mut() = body::read(media, start, count, entry.gone.clone());
        }
    }
    set(&mut response, ETAG, &etag);
    set(&mut response, ACCEPT_RANGES, "bytes");
    set(&mut response, CACHE_CONTROL, "no-cache");
    response
}

fn table(entry: &Entry) -> Response<Body> {
    let media = entry.media.as_ref();
    #[derive(serde::Serialize)]
    struct Live {
        title: String,
        live: bool,
        /// What is on, of live media.
        now: Option<String>,
        length: u64,
        #[serde(flatten)]
        table: Table,
        stats: crate::playable::Stats,
        standing: Option<Stands>,
    }
    #[derive(serde::Serialize)]
    struct Stands {
        #[serde(flatten)]
        standing: iceshare::Standing,
        /// What it does for us, in words.
        effect: String,
        /// Why we are trusted less, in words.
        doubts: Option<String>,
    }
    let stands = |standing: iceshare::Standing| {
        let (effect, doubts) = (standing.effect(), standing.doubts());
        Stands { standing, effect, doubts }
    };
    let live = Live {
        title: media.title(),
        live: media.is_live(),
        now: entry.now.borrow().clone(),
        length: media.length(),
        table: media.table().joined(Table::MOST_RUNS),
        stats: media.stats(),
        standing: media.standing().map(stands),
    };
    match serde_json::to_vec(&live) {
        Ok(json) => with_type(body::full(json), "application/json"),
        Err(error) => {
            tracing::warn!(%error, "page table");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "The page table could not be written.\n")
        }
    }
}

fn html(entry: &Entry) -> Response<Body> {
    let page = page::render(entry.media.as_ref(), &entry.file);
    let mut response = with_type(body::full(page.html), "text/html; charset=utf-8");
    set(&mut response, CONTENT_SECURITY_POLICY, &page.policy);
    response
}

fn redirect(to: &str) -> Response<Body> {
    let mut response = plain(StatusCode::PERMANENT_REDIRECT, "");
    set(&mut response, LOCATION, to);
    response
}

fn with_type(body: Body, mime: &str) -> Response<Body> {
    let mut response = Response::new(body);
    set(&mut response, CONTENT_TYPE, mime);
    set(&mut response, CACHE_CONTROL, "no-store");
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = with_type(body::full(text), "text/plain; charset=utf-8");
    *response.status_mut() = status;
    response
}

/// Sets a header whose value we made; one that HTTP does not allow (it cannot come from a checked manifest) is
/// left out rather than sent half.
fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
