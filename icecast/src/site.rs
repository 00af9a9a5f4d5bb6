//! What an agent shows. To its operator: a page that says of each listener what became of it and why, the same as JSON, Icecast's
//! `status-json.xsl` with the swarm's listeners counted in, and figures for Prometheus. To everybody, if asked for: a *door*, which sends each
//! listener to where there is a place.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use iceshare::html::escaped;
use iceshare::net::{SlotLimits, Slots, Standing};
use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::guide::{Decision, Guide, Swarm};

/// Connections at once, and how long one may take for a request's header, and live.
const CONNECTIONS: usize = 256;
const HEADER: Duration = Duration::from_secs(10);
const CONNECTION: Duration = Duration::from_secs(60);

/// Who comes to the door waits so long at most until the tracker was asked about it.
const ASKED: Duration = Duration::from_secs(5);
/// Addresses at the door that wait to be asked about.
const KNOCKS: usize = 256;
/// Listeners sent away that are shown.
const GONE: usize = 20;

/// Addresses at the door of which it is not known whether they give.
#[derive(Debug, Clone, Default)]
pub struct Knocks(Arc<Mutex<BTreeSet<IpAddr>>>);

impl Knocks {
    fn add(&self, ip: IpAddr) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < KNOCKS {
            all.insert(ip);
        }
    }

    /// Those that came since this was asked last.
    #[must_use]
    pub fn take(&self) -> Vec<IpAddr> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }
}

/// One mount as the agent sees it.
#[derive(Debug, Clone, Default)]
pub struct Station {
    /// Its `icet://` link, once it is announced.
    pub link: Option<String>,
    /// Where the server says that it is listened to.
    pub url: String,
    /// Why it is not in the swarm, if so.
    pub trouble: Option<String>,
    /// Places at the server; none: as many as come.
    pub limit: Option<usize>,
    /// What the tracker says; none: nothing, just now.
    pub swarm: Option<Swarm>,
    /// All listeners of the server but the agent's own.
    pub decisions: Vec<Decision>,
    /// Listeners sent away since the agent began.
    pub sent_away: u64,
    /// The last of them, the latest first.
    pub gone: VecDeque<Decision>,
    /// Whom it sent away lately.
    pub guide: Guide,
}

impl Station {
    /// A listener was sent away.
    pub fn went(&mut self, who: Decision) {
        self.sent_away += 1;
        self.gone.push_front(who);
        self.gone.truncate(GONE);
    }

    fn here(&self) -> u64 {
        self.decisions.len() as u64
    }

    fn in_swarm(&self) -> u64 {
        self.swarm.as_ref().map_or(0, |s| s.listeners)
    }
}

/// All that is shown.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The server.
    pub server: String,
    /// Whether nobody is sent away: it is only shown who would be.
    pub dry: bool,
    /// What keeps the agent from its work just now.
    pub trouble: Option<String>,
    /// What the server itself tells (`/status-json.xsl`).
    pub status: Value,
    /// The mounts by their names.
    pub stations: BTreeMap<String, Station>,
    /// Where those go for whom the door has no place; none: they are told so.
    pub overflow: Option<String>,
}

#[derive(Serialize)]
struct Row<'a> {
    id: u64,
    ip: IpAddr,
    agent: &'a str,
    connected_s: u64,
    verdict: crate::guide::Verdict,
    because: &'static str,
    peers: u64,
    sent_bytes: u64,
    weight: f64,
}

fn row(d: &Decision) -> Row<'_> {
    Row {
        id: d.listener.id,
        ip: d.listener.ip,
        agent: &d.listener.agent,
        connected_s: d.listener.connected.as_secs(),
        verdict: d.verdict,
        because: d.verdict.because(),
        peers: d.giver.map_or(0, |g| g.peers),
        sent_bytes: d.giver.map_or(0, |g| g.sent),
        weight: d.giver.map_or(0.0, |g| f64::from(g.weight) / 1000.0),
    }
}

impl State {
    /// The report for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let station = |(name, s): (&String, &Station)| {
            json!({
                "mount": name, "link": s.link, "url": s.url, "trouble": s.trouble, "limit": s.limit, "guided": s.swarm.is_some(),
                "listeners": s.here() + s.in_swarm(), "listeners_icecast": s.here(), "listeners_swarm": s.in_swarm(),
                "hits_swarm": s.swarm.as_ref().map(|w| w.hits), "sent_away": s.sent_away,
                "decisions": s.decisions.iter().map(row).collect::<Vec<_>>(),
                "gone": s.gone.iter().map(row).collect::<Vec<_>>(),
            })
        };
        json!({
            "server": self.server, "dry_run": self.dry, "trouble": self.trouble,
            "mounts": self.stations.iter().map(station).collect::<Vec<_>>(),
        })
    }

    /// Icecast's own status with the listeners of the swarm counted in, and the agent's own connections left out.
    #[must_use]
    pub fn status(&self) -> Value {
        let mut status = self.status.clone();
        if !status.get("icestats").is_some_and(Value::is_object) {
            status = json!({ "icestats": {} });
        }
        let mounted = |source: &Value| {
            let url = source.get("listenurl")?.as_str()?;
            let (_, rest) = url.split_once("://")?;
            self.stations.get(&format!("/{}", rest.split_once('/')?.1))
        };
        let count = |source: &mut Value| {
            let Some(s) = mounted(source) else { return };
            let Some(fields) = source.as_object_mut() else { return };
            fields.insert("listeners".to_owned(), json!(s.here() + s.in_swarm()));
            fields.insert("listeners_icecast".to_owned(), json!(s.here()));
            fields.insert("listeners_swarm".to_owned(), json!(s.in_swarm()));
            fields.insert("iceshare".to_owned(), json!(s.link));
        };
        // Absent, one, or a list: as there are none, one, or several.
        match status.pointer_mut("/icestats/source") {
            Some(Value::Array(all)) => all.iter_mut().for_each(count),
            Some(one) => count(one),
            None => {}
        }
        status
    }

    /// Figures for Prometheus.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // Prometheus has floating-point numbers only.
    pub fn metrics(&self) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe_gauge!("iceshare_icecast_listeners", "Listeners at the server and in the swarm");
            describe_gauge!("iceshare_icecast_places", "Places at the server, where they are limited");
            describe_gauge!("iceshare_icecast_guided", "Whether the tracker says who gives");
            describe_counter!("iceshare_icecast_sent_away_total", "Listeners sent away from the server");
            for (name, s) in &self.stations {
                let mount = || ("mount", name.clone());
                gauge!("iceshare_icecast_listeners", &[mount(), ("at", "icecast".to_owned())])
                    .set(s.here() as f64);
                gauge!("iceshare_icecast_listeners", &[mount(), ("at", "swarm".to_owned())])
                    .set(s.in_swarm() as f64);
                if let Some(limit) = s.limit {
                    gauge!("iceshare_icecast_places", &[mount()]).set(limit as f64);
                }
                gauge!("iceshare_icecast_guided", &[mount()]).set(f64::from(u8::from(s.swarm.is_some())));
                counter!("iceshare_icecast_sent_away_total", &[mount()]).absolute(s.sent_away);
            }
        });
        recorder.handle().render()
    }

    /// The page for people.
    #[must_use]
    pub fn page(&self) -> String {
        let mut out = String::from(HEAD);
        let _ = write!(out, "<h1>Listeners of {}</h1>", escaped(&self.server));
        if let Some(trouble) = &self.trouble {
            let _ = write!(
                out,
                "<p class=trouble role=alert>{}; the server serves everybody</p>",
                escaped(trouble)
            );
        }
        if self.dry {
            out.push_str("<p class=note>Nobody is sent away: this only shows who would be (--dry-run).</p>");
        }
        for (name, s) in &self.stations {
            let places = s.limit.map_or("as many as come".to_owned(), |n| n.to_string());
            let guided = if s.swarm.is_some() { "yes" } else { "no: the tracker does not say who gives" };
            let _ = write!(
                out,
                "<section><h2>{}</h2><dl><div><dt>at the server</dt><dd>{}</dd></div><div><dt>in the swarm</dt><dd>{}</dd></div>\
                 <div><dt>places</dt><dd>{places}</dd></div><div><dt>sent away so far</dt><dd>{}</dd></div></dl>\
                 <p>Guided by the tracker: {guided}.</p>",
                escaped(name),
                s.here(),
                s.in_swarm(),
                s.sent_away
            );
            if let Some(trouble) = &s.trouble {
                let _ = write!(out, "<p class=trouble role=alert>Not in the swarm: {}</p>", escaped(trouble));
            }
            if let Some(link) = &s.link {
                let _ = write!(out, "<p class=link>{}</p>", escaped(link));
            }
            out.push_str(
                "<div class=wide><table><thead><tr><th>address<th>player<th>listens<th>gave<th>counts<th>what becomes of it</tr></thead><tbody>",
            );
            for d in s.decisions.iter().chain(&s.gone) {
                let r = row(d);
                let class = if r.verdict == crate::guide::Verdict::Away { " class=away" } else { "" };
                let counts = if d.giver.is_some() { format!("{:.2}", r.weight) } else { "–".to_owned() };
                let _ = write!(
                    out,
                    "<tr{class}><td>{}<td>{}<td>{} s<td>{:.1} MB<td>{counts}<td>{}</tr>",
                    r.ip,
                    escaped(r.agent),
                    r.connected_s,
                    r.sent_bytes as f64 / 1e6,
                    r.because
                );
            }
            if s.decisions.is_empty() && s.gone.is_empty() {
                out.push_str("<tr><td colspan=6>nobody listens at the server now</tr>");
            }
            out.push_str("</tbody></table></div></section>");
        }
        if self.stations.is_empty() {
            out.push_str("<p>No Ogg mount has a source now.</p>");
        }
        out.push_str("</main></body></html>");
        out
    }
}

const HEAD: &str = "<!doctype html><html lang=en><head><meta charset=utf-8><meta http-equiv=refresh content=3>\
<meta name=viewport content='width=device-width'><title>IceShare beside Icecast</title><style>\
:root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;margin:0 auto;max-width:64rem;padding:1rem;\
background:light-dark(#f6f8fa,#10161c);color:light-dark(#17202a,#e4ebf1)}\
section{background:light-dark(#fff,#18212a);border:1px solid light-dark(#d8e0e7,#2b3947);border-radius:.6rem;padding:1rem;margin:1rem 0}\
h1{font-size:1.5rem}h2{margin:0;font-size:1.15rem}dl{display:flex;flex-wrap:wrap;gap:1.5rem}dl div{display:flex;flex-direction:column-reverse}\
dt{color:light-dark(#53616e,#9db0c0);font-size:.9rem}dd{margin:0;font-size:1.4rem;font-weight:600}\
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem .3rem 0;\
border-bottom:1px solid light-dark(#d8e0e7,#2b3947);overflow-wrap:anywhere}.away td{color:light-dark(#a02622,#ff9d97)}\
.link{overflow-wrap:anywhere;font-family:ui-monospace,monospace;font-size:.85rem}\
.trouble{padding:.6rem;border:2px solid light-dark(#a02622,#ff9d97);border-radius:.4rem}</style></head><body><main>";

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// For the operator.
    Operator,
    /// For everybody.
    Door,
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
    response
}

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json; charset=utf-8";

/// Answers a request for `path` from `ip`.
#[must_use]
pub fn answer(side: Side, method: &Method, path: &str, ip: IpAddr, state: &State) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "all is read only here\n".to_owned());
    }
    match (side, path) {
        (Side::Operator, "/") => text(StatusCode::OK, "text/html; charset=utf-8", state.page()),
        (Side::Operator, "/report.json") => text(StatusCode::OK, JSON, state.json().to_string()),
        (Side::Operator, "/metrics") => {
            text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", state.metrics())
        }
        (_, "/status-json.xsl") => text(StatusCode::OK, JSON, state.status().to_string()),
        (Side::Operator, _) => text(
            StatusCode::NOT_FOUND,
            PLAIN,
            "here are /, /report.json, /status-json.xsl and /metrics\n".to_owned(),
        ),
        (Side::Door, path) => door(path, ip, state),
    }
}

/// Whether somebody at the door finds no place, but nobody asked the tracker yet whether it gives.
fn is_unknown(path: &str, ip: IpAddr, state: &State) -> bool {
    let name = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    state.stations.get(name.as_ref()).is_some_and(|s| {
        s.swarm.as_ref().is_some_and(|w| !w.asked.contains(&ip))
            && !s.guide.has_place(ip, s.limit, s.swarm.as_ref(), &s.decisions)
    })
}

/// Sends a listener to where there is a place.
fn door(path: &str, ip: IpAddr, state: &State) -> Response<Full<Bytes>> {
    let name = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    let Some(s) = state.stations.get(name.as_ref()) else {
        return text(StatusCode::NOT_FOUND, PLAIN, "there is no such mount now\n".to_owned());
    };
    let to = |url: &str| {
        let mut response = text(StatusCode::FOUND, PLAIN, format!("{url}\n"));
        HeaderValue::try_from(url).ok().map(|url| {
            response.headers_mut().insert(header::LOCATION, url);
            response
        })
    };
    let url = if s.guide.has_place(ip.to_canonical(), s.limit, s.swarm.as_ref(), &s.decisions) {
        Some(&s.url)
    } else {
        state.overflow.as_ref()
    };
    url.and_then(|url| to(url)).unwrap_or_else(|| {
        let link = s.link.as_deref().unwrap_or_default();
        let mut response = text(
            StatusCode::SERVICE_UNAVAILABLE,
            PLAIN,
            format!("all places here are taken; listen in the swarm: iceshare play '{link}'\n"),
        );
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        response
    })
}

/// Serves until `stop` is cancelled. Who comes to the door, finds no place, and was not asked about, is put among the `knocks` and waits.
pub async fn serve(
    listener: TcpListener,
    side: Side,
    state: watch::Receiver<Arc<State>>,
    knocks: Knocks,
    stop: CancellationToken,
) {
    let slots = Slots::new(SlotLimits { all: CONNECTIONS, each: CONNECTIONS });
    loop {
        let (stream, from) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others close some.
                    tracing::warn!(%error, "a connection was not taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let Some(slot) = slots.enter(from.ip()).map(Arc::new) else { continue };
        let (state, knocks, stop) = (state.clone(), knocks.clone(), stop.clone());
        tokio::spawn(async move {
            let serving = slot.clone();
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let (serving, mut state, knocks) =
                    (serving.serve(Standing::Guest), state.clone(), knocks.clone());
                async move {
                    let (path, ip) = (request.uri().path(), from.ip().to_canonical());
                    let deadline = tokio::time::Instant::now() + ASKED;
                    while side == Side::Door && is_unknown(path, ip, &state.borrow_and_update()) {
                        knocks.add(ip);
                        if !matches!(tokio::time::timeout_at(deadline, state.changed()).await, Ok(Ok(()))) {
                            break;
                        }
                    }
                    let seen = state.borrow().clone();
                    drop(serving);
                    Ok::<_, Infallible>(answer(side, request.method(), path, ip, &seen))
                }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER).max_buf_size(16 << 10);
            let served = http.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = stop.cancelled() => {}
                () = slot.taken() => {}
                _ = tokio::time::timeout(CONNECTION, served) => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use icet::Now;

    use super::*;
    use crate::admin::Listener;
    use crate::guide::Giver;

    fn ip(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    /// Two listeners for one place; who comes from 2 and from 3 gives.
    fn state() -> State {
        let listener = |id, from, agent: &str| Listener {
            id,
            ip: ip(from),
            agent: agent.to_owned(),
            connected: Duration::from_secs(60),
        };
        let giver = Giver { peers: 1, sent: 2_500_000, weight: 1500 };
        let givers = HashMap::from([(ip(2), giver), (ip(3), giver)]);
        let asked = [1, 2, 3].map(ip).into();
        let swarm = Swarm { listeners: 40, hits: 90, asked, givers };
        let mut guide = Guide::default();
        let all = [listener(1, 1, "<script>"), listener(2, 2, "mpv")];
        let decisions = guide.decide(Now::ZERO, Some(1), Some(&swarm), &all);
        let station = Station {
            link: Some("icet://t/radio".to_owned()),
            url: "http://radio.example:8000/live.oga".to_owned(),
            trouble: None,
            limit: Some(1),
            swarm: Some(swarm),
            decisions,
            sent_away: 1,
            gone: VecDeque::new(),
            guide,
        };
        State {
            server: "http://127.0.0.1:8000".to_owned(),
            status: json!({ "icestats": { "admin": "x", "source":
                { "listeners": 3, "listenurl": "http://radio.example:8000/live.oga", "dummy": null } } }),
            stations: BTreeMap::from([("/live.oga".to_owned(), station)]),
            ..State::default()
        }
    }

    fn ask(side: Side, path: &str, from: u8, state: &State) -> (u16, Option<String>) {
        let response = answer(side, &Method::GET, path, ip(from), state);
        let to = response.headers().get(header::LOCATION).map(|v| v.to_str().unwrap().to_owned());
        (response.status().as_u16(), to)
    }

    #[test]
    fn the_station_s_tools_see_all_listeners_where_icecast_told_its_own() {
        let mut s = state();
        let source = |s: &State| s.status().pointer("/icestats/source").unwrap().clone();
        assert_eq!(source(&s)["listeners"], 42);
        assert_eq!(
            (&source(&s)["listeners_icecast"], &source(&s)["listeners_swarm"]),
            (&json!(2), &json!(40))
        );
        assert_eq!(s.status()["icestats"]["admin"], "x", "the rest stays as it is");
        let one = s.status["icestats"]["source"].take();
        let other = json!({ "listeners": 7, "listenurl": "http://radio.example:8000/x.mp3" });
        s.status["icestats"]["source"] = json!([other, one]);
        assert_eq!((&source(&s)[0]["listeners"], &source(&s)[1]["listeners"]), (&json!(7), &json!(42)));
        s.status = Value::Null;
        assert_eq!(s.status(), json!({ "icestats": {} }));
        let text = s.metrics();
        assert!(text.contains("iceshare_icecast_listeners{mount=\"/live.oga\",at=\"swarm\"} 40"), "{text}");
        assert!(text.contains("iceshare_icecast_sent_away_total{mount=\"/live.oga\"} 1"), "{text}");
    }

    #[test]
    fn who_went_is_shown_for_a_while_and_knocks_are_bounded() {
        let mut s = state();
        let station = s.stations.get_mut("/live.oga").unwrap();
        let who = station.decisions.pop().unwrap();
        for _ in 0..30 {
            station.went(who.clone());
        }
        assert_eq!((station.sent_away, station.gone.len()), (31, 20));
        assert_eq!(s.json()["mounts"][0]["gone"][0]["ip"], "192.0.2.1");
        assert_eq!(s.page().matches("is sent away").count(), 20);
        let knocks = Knocks::default();
        for n in 0..300_u32 {
            knocks.add(IpAddr::from((0x0a00_0000 + n).to_be_bytes()));
        }
        assert_eq!((knocks.take().len(), knocks.take().len()), (256, 0));
    }

    #[test]
    fn the_operator_reads_why_and_strangers_text_stays_text() {
        let s = state();
        let page = s.page();
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
        assert!(page.contains("is sent away") && page.contains("stays: gives in the swarm"));
        let rows = s.json()["mounts"][0]["decisions"].clone();
        assert_eq!((&rows[0]["verdict"], &rows[0]["sent_bytes"]), (&json!("gives"), &json!(2_500_000)));
        assert_eq!((&rows[1]["verdict"], &rows[1]["weight"]), (&json!("away"), &json!(0.0)));
    }

    #[test]
    fn the_door_sends_each_to_where_there_is_a_place() {
        let mut s = state();
        let place = (302, Some("http://radio.example:8000/live.oga".to_owned()));
        assert_eq!(ask(Side::Door, "/live.oga", 4, &s).0, 503);
        assert_eq!(ask(Side::Door, "/live.oga", 3, &s).0, 503, "a giver has the only place");
        s.stations.get_mut("/live.oga").unwrap().limit = Some(2);
        assert_eq!(ask(Side::Door, "/live.oga", 3, &s), place);
        s.overflow = Some("http://low.example/".to_owned());
        s.stations.get_mut("/live.oga").unwrap().limit = Some(1);
        assert_eq!(ask(Side::Door, "/live.oga", 4, &s), (302, Some("http://low.example/".to_owned())));
        s.stations.get_mut("/live.oga").unwrap().limit = None;
        assert_eq!(ask(Side::Door, "/live%2Eoga", 4, &s), place);
        assert_eq!(ask(Side::Door, "/other", 4, &s).0, 404);
        s.stations.get_mut("/live.oga").unwrap().limit = Some(1);
        let unknown = |n| is_unknown("/live.oga", ip(n), &s);
        assert!(unknown(4) && !unknown(3), "the tracker was asked about the one only");
        assert!(!is_unknown("/other", ip(4), &s));
        s.stations.get_mut("/live.oga").unwrap().limit = None;
        assert!(!is_unknown("/live.oga", ip(4), &s), "whoever it is, there is a place");
        // What the operator sees is not everybody's.
        assert_eq!(ask(Side::Door, "/report.json", 4, &s).0, 404);
        assert_eq!(ask(Side::Operator, "/nothing", 4, &s).0, 404);
        let posted = answer(Side::Door, &Method::POST, "/live.oga", ip(4), &s);
        assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
