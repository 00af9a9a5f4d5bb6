//! The tracker's web: a page for people, a JSON API for programs, metrics for Prometheus.
//!
//! Everything is read only and public, no addresses of peers, no secrets; but for the operator's part (`operator`), which needs a
//! token. It looks into the swarm through an [`Observer`], so that however many clients, however slow, never make the swarm
//! wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use iceshare::net::{Slot, SlotLimits, Slots, Standing};
use icet::PeerKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalogue::{Index, Writer, Written};
use crate::server::{Busy, Observer, Operator, Traffic};

mod api;
mod metrics;
mod operator;
mod params;
mod views;
mod why;

/// Connections at once.
const CONNECTIONS: usize = 512;
/// How long a request's header may take, and how long a connection may idle.
const HEADER: Duration = Duration::from_secs(15);
/// How long a connection may live, however busy.
const CONNECTION: Duration = Duration::from_secs(300);
/// Longest path and query, in bytes. A media path of 1024 bytes is at most three times as long, escaped.
const URI: usize = 8 << 10;
/// Longest body of a request of the operator, in bytes: 10,000 keys.
const BODY: usize = 1 << 20;
/// How long what was seen of the swarm stays good enough.
const FRESH: Duration = Duration::from_millis(500);
/// Searches at once: each may go through the whole index.
const SEARCHES: usize = 2;

/// What the web shows.
#[derive(Debug)]
pub struct Site {
    /// The tracker's key.
    pub key: PeerKey,
    /// Its epoch.
    pub epoch: u64,
    /// When it started.
    pub started: Instant,
    /// Port for IceT.
    pub port: u16,
    /// Sees the swarm.
    pub observer: Observer,
    /// Does what an operator may, if there is a token.
    pub operator: Option<Operator>,
    /// All media.
    pub index: Arc<Index>,
    /// The server's counters.
    pub traffic: Arc<Traffic>,
    /// Writes the catalogue.
    pub writer: Writer,
    /// What it wrote.
    pub written: Arc<Written>,
}

struct Shared {
    site: Site,
    searches: Semaphore,
    summary: Cache<(), views::Summary>,
    media: Cache<icet::MediaId, Option<views::Detail>>,
    peers: Cache<usize, Vec<views::Peer>>,
}

/// What was seen a moment ago, so that many clients cost the swarm one look. One look at a time.
struct Cache<K, V>(Mutex<HashMap<K, (Instant, Arc<V>)>>);

impl<K: Eq + Hash + Clone, V> Cache<K, V> {
    /// Entries of all keys together.
    const SIZE: usize = 256;

    fn new() -> Cache<K, V> {
        Cache(Mutex::new(HashMap::new()))
    }

    async fn get(&self, key: K, look: impl Future<Output = Result<V, Busy>>) -> Result<Arc<V>, Busy> {
        let mut kept = self.0.lock().await;
        if let Some((at, v)) = kept.get(&key)
            && at.elapsed() < FRESH
        {
            return Ok(v.clone());
        }
        let v = Arc::new(look.await?);
        if kept.len() >= Self::SIZE {
            kept.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if kept.len() < Self::SIZE {
            kept.insert(key, (Instant::now(), v.clone()));
        }
        Ok(v)
    }
}

/// Serves until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, site: Site, stop: CancellationToken) {
    let router = router(site);
    let slots = Slots::new(SlotLimits { all: CONNECTIONS, each: CONNECTIONS });
    let connections = TaskTracker::new();
    loop {
        let (stream, from) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of file descriptors, most likely: others close some.
                    tracing::warn!("web: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let Some(slot) = slots.enter(from.ip()).map(Arc::new) else { continue };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = slot.taken() => tracing::debug!("web: a newer connection took the place of an idle one"),
                _ = tokio::time::timeout(CONNECTION, connection(stream, router, slot.clone())) => {}
            }
        });
    }
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, router: Router, slot: Arc<Slot>) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        let serving = slot.serve(Standing::Guest);
        let answer = router.call(request);
        async move {
            let answer = answer.await;
            drop(serving);
            answer
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(e) = served {
        tracing::debug!("web: {e}");
    }
}

fn router(site: Site) -> Router {
    let shared = Shared {
        site,
        searches: Semaphore::new(SEARCHES),
        summary: Cache::new(),
        media: Cache::new(),
        peers: Cache::new(),
    };
    Router::new()
        .route("/", get(|| async { asset("text/html; charset=utf-8", include_str!("assets/index.html")) }))
        .route(
            "/page.js",
            get(|| async { asset("text/javascript; charset=utf-8", include_str!("assets/page.js")) }),
        )
        .route(
            "/page.css",
            get(|| async { asset("text/css; charset=utf-8", include_str!("assets/page.css")) }),
        )
        .route("/healthz", get(api::healthz))
        .route("/metrics", get(metrics::render))
        .route("/api/status", get(api::status))
        .route("/api/media", get(api::list))
        .route("/api/media/{*path}", get(api::media))
        .route("/api/protocols", get(api::protocols))
        .route("/api/peers", get(api::peers))
        .route("/api/operator/rules", get(operator::rules))
        .route("/api/operator/publishers", put(operator::publishers))
        .route("/api/operator/limits", put(operator::limits))
        .route("/api/operator/bans/{key}", put(operator::ban).delete(operator::lift))
        .route("/api/operator/media/{*path}", put(operator::allow).delete(operator::withdraw))
        .fallback(|uri: Uri| async move {
            api::Refusal::new(StatusCode::NOT_FOUND, format!("nothing at {}", uri.path()))
        })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            let path = uri.path();
            let why = if path.starts_with(operator::PREFIX) {
                format!("{method} does nothing at {path}")
            } else {
                format!("{method} does nothing here: all is read only, ask for {path} with GET")
            };
            api::Refusal::new(StatusCode::METHOD_NOT_ALLOWED, why)
        })
        .layer(from_fn(short))
        .layer(DefaultBodyLimit::max(BODY))
        .layer(from_fn(headers))
        .with_state(Arc::new(shared))
}

/// Refuses requests for what is too long to be anything here.
async fn short(request: Request, next: Next) -> Response {
    let len = request.uri().path_and_query().map_or(0, |p| p.as_str().len());
    if len <= URI {
        return next.run(request).await;
    }
    let why = format!("path and query have at most {URI} bytes together, not {len}: ask for less");
    api::Refusal::new(StatusCode::URI_TOO_LONG, why).into_response()
}

fn asset(kind: &'static str, body: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// Headers that every response has. Reading is open to pages from anywhere, since nothing of it depends on who asks; the
/// operator's part is for this page only.
async fn headers(request: Request, next: Next) -> Response {
    let operators = request.uri().path().starts_with(operator::PREFIX);
    let mut response = next.run(request).await;
    let (open, keep) = if operators { (None, "no-store") } else { (Some("*"), "no-cache") };
    if let Some(origin) = open {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static(origin));
    }
    let set = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::CACHE_CONTROL, keep),
    ];
    for (name, value) in set {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
