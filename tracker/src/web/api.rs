//! The JSON API. All of it is `GET`; a refusal is `{"error": "…"}` with a status that fits.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use icet::path::PathError;
use icet::{MediaPath, SignedManifest};
use serde::Serialize;

use super::params::Params;
use super::views::{Detail, Facts, Figures, Item, Peer, Protocol, Summary};
use super::{Cache, Shared};
use crate::catalogue;
use crate::server::{Busy, TrafficCounts};

type Site = State<Arc<Shared>>;

/// Media in an answer, if the question does not say, and at most.
const MEDIA: (usize, usize) = (50, 200);
/// Peers in an answer.
const PEERS: (usize, usize) = (100, 1000);
/// Longest search text, in bytes.
const SEARCH: usize = 256;

/// Why a request is not answered.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    why: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Refusal {
        Refusal { status, why: why.into() }
    }
}

impl From<Busy> for Refusal {
    fn from(e: Busy) -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, e.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(serde_json::json!({ "error": self.why }))).into_response();
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(header::ALLOW, axum::http::HeaderValue::from_static("GET, HEAD"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = axum::http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, axum::http::HeaderValue::from_static("1"));
        }
        response
    }
}

impl Shared {
    pub(super) async fn summary(&self) -> Result<Arc<Summary>, Busy> {
        self.summary.get((), self.site.observer.ask(Summary::of)).await
    }
}

/// The swarm answers, and the catalogue can be written.
pub(super) async fn healthz(State(shared): Site) -> Result<&'static str, Refusal> {
    shared.summary().await?;
    match shared.site.writer.trouble() {
        None => Ok("ok\n"),
        Some(why) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}

#[derive(Serialize)]
struct Status {
    program: &'static str,
    version: &'static str,
    key: String,
    epoch: u64,
    uptime_s: u64,
    port: u16,
    sessions: u64,
    peers: u64,
    media: u64,
    members: u64,
    listeners: u64,
    assignments: Assignments,
    acknowledged: Acknowledged,
    dial_backs: DialBacks,
    messages: Messages,
    sessions_opened: Opened,
    page_map_bytes: u64,
    /// Whether there is an operator's part.
    operator: bool,
    /// Why the catalogue cannot be written, if so.
    trouble: Option<String>,
}

#[derive(Serialize)]
struct Assignments {
    running: u64,
    made: u64,
}

#[derive(Serialize)]
struct Acknowledged {
    pages: u64,
    bytes_by_publishers: u64,
    bytes_by_peers: u64,
}

#[derive(Serialize)]
struct DialBacks {
    ordered: u64,
    proved: u64,
    failed: u64,
}

#[derive(Serialize)]
struct Messages {
    received: u64,
    sent: u64,
    bytes_received: u64,
    bytes_sent: u64,
    over_quota: u64,
}

#[derive(Serialize)]
struct Opened {
    quic: u64,
    tls: u64,
    cut_for_not_reading: u64,
}

pub(super) async fn status(State(shared): Site) -> Result<Response, Refusal> {
    let summary = shared.summary().await?;
    let (site, t) = (&shared.site, &summary.totals);
    let traffic: TrafficCounts = site.traffic.counts();
    let status = Status {
        program: "icetracker",
        version: env!("CARGO_PKG_VERSION"),
        key: site.key.to_string(),
        epoch: site.epoch,
        uptime_s: site.started.elapsed().as_secs(),
        port: site.port,
        sessions: t.sessions,
        peers: t.peers,
        media: t.media,
        members: t.members,
        listeners: t.listeners,
        assignments: Assignments { running: t.running, made: t.assigned },
        acknowledged: Acknowledged {
            pages: t.acked_pages,
            bytes_by_publishers: t.acked_from_publisher,
            bytes_by_peers: t.acked_bytes.saturating_sub(t.acked_from_publisher),
        },
        dial_backs: DialBacks {
            ordered: t.dials,
            proved: traffic.dials_proved,
            failed: traffic.dials_failed,
        },
        messages: Messages {
            received: traffic.messages_in,
            sent: traffic.messages_out,
            bytes_received: traffic.bytes_in,
            bytes_sent: traffic.bytes_out,
            over_quota: t.refused,
        },
        sessions_opened: Opened {
            quic: traffic.sessions_quic,
            tls: traffic.sessions_tls,
            cut_for_not_reading: traffic.slow,
        },
        page_map_bytes: t.map_bytes,
        operator: site.operator.is_some(),
        trouble: site.writer.trouble(),
    };
    Ok(Json(status).into_response())
}

/// How many entries an answer has at most, of what was asked for and (unless told, at most).
fn limited(params: &Params, (unless_told, most): (usize, usize)) -> Result<usize, Refusal> {
    Ok(params.number("limit", 1..=most)?.unwrap_or(unless_told))
}

#[derive(Serialize)]
struct List {
    media: Vec<Item>,
    /// What to give as `after` for more.
    next: Option<String>,
    /// Media that match, before and after these too.
    total: usize,
}

pub(super) async fn list(State(shared): Site, params: Params) -> Result<Response, Refusal> {
    let text = params.text("q")?.unwrap_or_default();
    if text.len() > SEARCH {
        let why = format!("q takes at most {SEARCH} bytes, not {}: search for fewer words", text.len());
        return Err(Refusal::new(StatusCode::BAD_REQUEST, why));
    }
    let bad = |e: PathError| {
        let why = format!("after takes a media path, as `next` of the answer before has it: {e}");
        Refusal::new(StatusCode::BAD_REQUEST, why)
    };
    let after = params.text("after")?.map(MediaPath::new).transpose().map_err(bad)?;
    let limit = limited(&params, MEDIA)?;
    let search = catalogue::Query { words: catalogue::Query::words_of(text), after, limit };
    let found = {
        let _turn = shared.searches.acquire().await.map_err(|_| Busy)?;
        let index = shared.site.index.clone();
        tokio::task::spawn_blocking(move || index.find(&search)).await.map_err(|_| Busy)?
    };
    let ids: Vec<_> = found.media.iter().map(|m| m.id()).collect();
    let look = move |swarm: &crate::swarm::Swarm| -> Vec<Option<Figures>> {
        ids.iter().map(|id| swarm.media_view(id).map(|m| Figures::of(&m))).collect()
    };
    let figures = shared.site.observer.ask(look).await?;
    let key = &shared.site.key;
    let media: Vec<Item> = found
        .media
        .iter()
        .zip(figures)
        .map(|(m, figures)| Item { facts: Facts::of(m, key), figures })
        .collect();
    let next = found.media.last().filter(|_| found.more).map(|m| m.path.to_string());
    Ok(Json(List { media, next, total: found.total }).into_response())
}

#[derive(Serialize)]
struct One {
    #[serde(flatten)]
    facts: Facts,
    #[serde(flatten)]
    detail: Option<Detail>,
}

/// The media at a raw path, which is decoded exactly once, by the same rules as in a link.
pub(super) fn find(shared: &Shared, path: &str) -> Result<Arc<SignedManifest>, Refusal> {
    let path =
        MediaPath::from_url_path(path).map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, e.to_string()))?;
    let missing = || Refusal::new(StatusCode::NOT_FOUND, format!("no media {path}"));
    shared.site.index.get(&path).ok_or_else(missing)
}

pub(super) async fn media(State(shared): Site, uri: Uri, params: Params) -> Result<Response, Refusal> {
    let path = uri.path().strip_prefix("/api/media/").unwrap_or_default();
    // A media may be called `why`, but nobody asks about a peer's page there.
    let asks = |of: &str| {
        let named = params.has("peer") || params.has("page");
        named || find(&shared, path).is_err() && find(&shared, of).is_ok()
    };
    if let Some(of) = path.strip_suffix("/why").filter(|of| asks(of)) {
        return super::why::why(&shared, of, &params).await;
    }
    let manifest = find(&shared, path)?;
    let id = manifest.id();
    let look = shared.site.observer.ask(move |swarm| Detail::of(swarm, &id));
    let detail = shared.media.get(id, look).await?;
    let one = One { facts: Facts::of(&manifest, &shared.site.key), detail: (*detail).clone() };
    Ok(Json(one).into_response())
}

#[derive(Serialize)]
struct Protocols<'a> {
    protocols: &'a [Protocol],
}

pub(super) async fn protocols(State(shared): Site) -> Result<Response, Refusal> {
    let summary = shared.summary().await?;
    Ok(Json(Protocols { protocols: &summary.protocols }).into_response())
}

#[derive(Serialize)]
struct Peers<'a> {
    peers: &'a [Peer],
    total: u64,
}

pub(super) async fn peers(State(shared): Site, params: Params) -> Result<Response, Refusal> {
    let limit = limited(&params, PEERS)?;
    let skip = params.number("skip", 0..=usize::MAX)?.unwrap_or(0);
    let look = shared.site.observer.ask(move |s| s.peers(skip, PEERS.1).into_iter().map(Peer::of).collect());
    let cache: &Cache<usize, Vec<Peer>> = &shared.peers;
    let found = cache.get(skip, look).await?;
    let total = shared.summary().await?.totals.peers;
    Ok(Json(Peers { peers: found.get(..limit).unwrap_or(&found), total }).into_response())
}
