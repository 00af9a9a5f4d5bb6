//! Why a page is, or is not, under way to a peer.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use icet::message::Need;
use serde::Serialize;

use super::Shared;
use super::api::{Refusal, find};
use super::params::Params;
use crate::swarm::{Considered, Decided, Ordered, Reason, Verdict, Why, WhyError};

fn verdict(v: Verdict) -> (&'static str, &'static str) {
    match v {
        Verdict::Able => ("able", "could send it"),
        Verdict::Dark => (
            "dark",
            "failed this receiver and has sent it nothing since: after others, one small order at a time",
        ),
        Verdict::NoRoom => ("no_room", "has as much to send as it can"),
        Verdict::Avoided => ("avoided", "failed this receiver a moment ago"),
        Verdict::Distrusted => ("map_not_believed", "several did not find there what it said it holds"),
        Verdict::Untrusted => ("no_trust", "altered pages, or ignored what it was asked"),
        Verdict::Silent => ("silent", "does not answer the tracker"),
        Verdict::GivesNothing => {
            ("gives_nothing", "gives this receiver nothing of this media now: so its user chose")
        }
        Verdict::Apart => ("apart", "no punch came through its NAT and the receiver's a while ago"),
        Verdict::NoRoute => ("no_route", "no address of it was proved that the receiver may be told"),
        Verdict::NoProtocol => ("no_protocol", "serves over no protocol that the receiver speaks"),
        Verdict::Gone => ("gone", "has no session any more"),
        Verdict::Lacks => ("lacks_it", "does not hold the page"),
    }
}

fn reason(r: Reason) -> (&'static str, &'static str) {
    match r {
        Reason::Held => ("held", "The receiver holds the page."),
        Reason::Ordered => ("ordered", "It is under way, see the orders."),
        Reason::WantsNone => ("wants_none", "The receiver only shares: it wants no pages."),
        Reason::Gone => ("receiver_gone", "The receiver has no session."),
        Reason::EarlierOrders => {
            ("earlier_orders", "Orders from before this start of the tracker may still bring it.")
        }
        Reason::Paused => {
            ("receiver_paused", "The receiver gave orders back or was silent: it gets none for a moment.")
        }
        Reason::ReceiverFull => ("receiver_full", "The receiver has as much under way as its line takes."),
        Reason::NobodyHolds => ("nobody_holds_it", "Nobody with a session holds the page."),
        Reason::NoProtocol => {
            ("no_protocol", "Nobody who holds it serves over a protocol that the receiver speaks.")
        }
        Reason::NoRoute => ("no_route", "Nobody who holds it has an address that the receiver may be told."),
        Reason::GiveNothing => (
            "hosts_give_nothing",
            "Nobody who holds it gives this receiver anything of this media now: so their users chose.",
        ),
        Reason::HostsSilent => ("hosts_silent", "Nobody who holds it answers the tracker."),
        Reason::Avoided => {
            ("hosts_avoided", "All who hold it failed the receiver a moment ago, or are not trusted.")
        }
        Reason::HostsFull => ("hosts_full", "All who hold it have as much to send as they can."),
        Reason::Waits => (
            "waits",
            "Somebody could send it, but other pages come first: nearer to the playhead, or rarer; or a player does not need it yet.",
        ),
    }
}

fn need(n: Need) -> &'static str {
    match n {
        Need::Urgent => "urgent",
        Need::Steady => "steady",
        Need::Bulk => "bulk",
        Need::Spare => "spare",
        Need::Reserve => "reserve",
    }
}

#[derive(Serialize)]
struct Host {
    peer: String,
    publisher: bool,
    verdict: &'static str,
    because: &'static str,
    protocol: Option<String>,
    score: f64,
    success: Option<f64>,
    /// Bytes a second.
    rate: Option<f64>,
    wait_ms: Option<f64>,
    trust: f64,
}

impl Host {
    fn of(c: &Considered) -> Host {
        let (word, because) = verdict(c.verdict);
        Host {
            peer: c.peer.short(),
            publisher: c.publisher,
            verdict: word,
            because,
            protocol: c.protocol.as_ref().map(ToString::to_string),
            score: c.score,
            success: c.success,
            rate: c.rate,
            wait_ms: c.wait.map(|s| s * 1000.0),
            trust: c.trust,
        }
    }
}

#[derive(Serialize)]
struct Order {
    assignment: u64,
    first_page: u64,
    last_page: u64,
    host: String,
    protocol: Option<String>,
    need: &'static str,
    age_ms: u128,
    bytes: u64,
    bytes_acknowledged: u64,
    deadline_ms: Option<u128>,
    repeats_a_slower_one: bool,
    runs: bool,
    stand_ins: Vec<String>,
}

impl Order {
    fn of(o: &Ordered) -> Order {
        Order {
            assignment: o.assignment,
            first_page: o.pages.0,
            last_page: o.pages.1,
            host: o.host.short(),
            protocol: o.protocol.as_ref().map(ToString::to_string),
            need: need(o.need),
            age_ms: o.age.as_millis(),
            bytes: o.bytes.0,
            bytes_acknowledged: o.bytes.1,
            deadline_ms: o.deadline.map(|d| d.as_millis()),
            repeats_a_slower_one: o.hedge,
            runs: o.runs,
            stand_ins: o.stand_ins.iter().map(icet::PeerKey::short).collect(),
        }
    }
}

#[derive(Serialize)]
struct Decision {
    age_ms: u128,
    assignment: u64,
    first_page: u64,
    last_page: u64,
    host: String,
    protocol: String,
    need: &'static str,
    repeats_a_slower_one: bool,
    /// As they were then.
    hosts: Vec<Host>,
}

impl Decision {
    fn of(d: &Decided) -> Decision {
        Decision {
            age_ms: d.age.as_millis(),
            assignment: d.assignment,
            first_page: d.pages.0,
            last_page: d.pages.1,
            host: d.host.short(),
            protocol: d.protocol.to_string(),
            need: need(d.need),
            repeats_a_slower_one: d.hedge,
            hosts: d.hosts.iter().map(Host::of).collect(),
        }
    }
}

#[derive(Serialize)]
struct Explanation {
    peer: String,
    page: u64,
    reason: &'static str,
    because: &'static str,
    orders: Vec<Order>,
    hosts: Vec<Host>,
    decisions: Vec<Decision>,
    /// Whether the tracker keeps decisions (`--explain`).
    decisions_kept: bool,
}

impl Explanation {
    fn of(w: &Why) -> Explanation {
        let (word, because) = reason(w.reason);
        Explanation {
            peer: w.receiver.short(),
            page: w.page,
            reason: word,
            because,
            orders: w.orders.iter().map(Order::of).collect(),
            hosts: w.hosts.iter().map(Host::of).collect(),
            decisions: w.decided.iter().map(Decision::of).collect(),
            decisions_kept: w.kept,
        }
    }
}

/// `GET /api/media/PATH/why?peer=…&page=…`.
pub(super) async fn why(shared: &Shared, path: &str, params: &Params) -> Result<Response, Refusal> {
    let missing = |name: &str| {
        let why = format!("{name} is missing: ask as in /api/media/PATH/why?peer=0123abcd&page=17");
        Refusal::new(StatusCode::BAD_REQUEST, why)
    };
    let page = params.number("page", 0..=usize::MAX)?.ok_or_else(|| missing("page"))? as u64;
    let peer = params.text("peer")?.ok_or_else(|| missing("peer"))?.to_ascii_lowercase();
    let id = find(shared, path)?.id();
    let found = shared.site.observer.ask(move |swarm| swarm.why(&id, &peer, page)).await?;
    let found = found.map_err(|e| {
        let status = match e {
            WhyError::NoMedia | WhyError::NoPeer | WhyError::NoPage(_) => StatusCode::NOT_FOUND,
            WhyError::Ambiguous => StatusCode::BAD_REQUEST,
        };
        Refusal::new(status, e.to_string())
    })?;
    Ok(Json(Explanation::of(&found)).into_response())
}
