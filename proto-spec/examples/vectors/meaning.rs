//! What a value means, as JSON with the names of the specification.

use icet::media::{Signed, Slice};
use icet::message::{
    Assignment, Dial, Givers, Intent, KeyProof, Mark, Need, Outcome, Position, Shortage, Source, ToPeer,
    ToTracker,
};
use icet::stream::{Ending, PagesAnswer, PagesRequest, Piece, What};
use icet::ticket::{Ticket, TicketBody};
use icet::{HostAddr, Ip, Kind, Limits, Manifest, NetAddr, NetKind, Offer, PageRanges, PageSet, ProvenSlice};
use serde_json::{Value, json};

use super::world::{hex, num};

fn list<'a, T: 'a>(items: impl IntoIterator<Item = &'a T>, f: impl Fn(&T) -> Value) -> Value {
    Value::Array(items.into_iter().map(f).collect())
}

fn maybe<T>(value: Option<T>, f: impl FnOnce(T) -> Value) -> Value {
    value.map_or(Value::Null, f)
}

fn addr(a: &NetAddr) -> Value {
    json!({ "kind": net_kind(a.kind), "ip": a.at.ip().to_string(), "port": a.at.port() })
}

fn net_kind(k: NetKind) -> Value {
    json!(k.to_string())
}

fn offer(o: &Offer) -> Value {
    json!({
        "name": o.name.as_str(), "abilities": o.abilities.0, "serves": o.serves, "endpoint": o.endpoint,
        "dials": maybe(o.dials, net_kind),
    })
}

fn limits(l: &Limits) -> Value {
    json!({ "up": maybe(l.up, num), "down": maybe(l.down, num) })
}

fn host(h: &HostAddr) -> Value {
    json!({
        "key": hex(&h.key.0), "protocol": h.protocol.as_str(), "addrs": list(&h.addrs, addr),
        "endpoint": h.endpoint, "abilities": h.abilities.0,
    })
}

fn signed(s: &Signed) -> Value {
    json!({ "body": hex(&s.body), "signature": hex(&s.signature.0) })
}

pub(crate) fn proven(p: &ProvenSlice) -> Value {
    json!({ "slice": hex(&p.slice), "proof": list(&p.proof, |h| json!(hex(&h.0))) })
}

pub(crate) fn ranges(r: &PageRanges) -> Value {
    Value::Array(r.runs().map(|(a, b)| json!([a, b])).collect())
}

pub(crate) fn page_set(s: &PageSet) -> Value {
    json!({
        "first": s.first, "last": s.last,
        "stripe": maybe(s.stripe, |s| json!({ "index": s.index, "of": s.of, "group": s.group })),
    })
}

fn position(p: Position) -> Value {
    match p {
        Position::Page(n) => json!({ "page": num(n) }),
        Position::Byte(n) => json!({ "byte": num(n) }),
        Position::Time(n) => json!({ "time": num(n) }),
    }
}

fn intent(i: Intent) -> Value {
    json!(match i {
        Intent::Whole => "whole",
        Intent::Play => "play",
        Intent::Share => "share",
    })
}

fn need(n: Need) -> Value {
    json!(match n {
        Need::Urgent => "urgent",
        Need::Steady => "steady",
        Need::Bulk => "bulk",
        Need::Spare => "spare",
        Need::Reserve => "reserve",
    })
}

fn dial(d: Dial) -> Value {
    json!(match d {
        Dial::Receiver => "receiver",
        Dial::Host => "host",
        Dial::Both => "both",
    })
}

fn outcome(o: Outcome) -> Value {
    json!(match o {
        Outcome::Done => "done",
        Outcome::Stopped => "stopped",
        Outcome::Unreachable => "unreachable",
        Outcome::Refused => "refused",
        Outcome::Broken => "broken",
        Outcome::Stalled => "stalled",
        Outcome::Incomplete => "incomplete",
        Outcome::Altered => "altered",
    })
}

fn ticket(t: &Ticket) -> Value {
    json!({ "body": hex(&t.body), "mac": hex(&t.mac.0) })
}

fn source(s: &Source) -> Value {
    json!({ "host": host(&s.host), "dial": dial(s.dial), "ticket": ticket(&s.ticket) })
}

fn assignment(a: &Assignment) -> Value {
    json!({
        "id": num(a.id), "media": hex(&a.media.0), "pages": page_set(&a.pages), "need": need(a.need),
        "source": source(&a.source), "stand_ins": list(&a.stand_ins, source), "deadline": a.deadline,
        "lapse": a.lapse,
    })
}

fn record(r: &icet::PageRecord) -> Value {
    json!({ "len": r.len, "crc": r.crc, "hash": hex(&r.hash.0), "flags": r.flags.0, "time": r.time })
}

pub(crate) fn batch(b: &icet::live::Batch) -> Value {
    json!({
        "broadcast": hex(&b.broadcast.0), "first": b.first, "offset": b.offset, "time": b.time, "previous": hex(&b.previous.0),
        "records": list(&b.records, record), "ends": b.ends,
    })
}

pub(crate) fn head(h: &icet::live::Head) -> Value {
    json!({
        "broadcast": hex(&h.broadcast.0), "next": h.next, "offset": h.offset, "time": h.time, "last": hex(&h.last.0),
        "link": h.link, "link_offset": h.link_offset, "link_time": h.link_time, "setup": list(&h.setup, record),
        "key": h.key, "signed_at": h.signed_at, "title": maybe(h.title.as_ref(), |t| json!(t)),
        "ended": maybe(h.ended, |e| json!(e)),
    })
}

fn live_head(m: &icet::message::Head) -> Value {
    json!({
        "media": hex(&m.media.0), "head": signed(&m.head),
        "earlier": maybe(m.earlier.as_ref(), |e| list(e, signed)), "time": maybe(m.time, |t| json!(t)),
    })
}

pub(crate) fn slice(s: &Slice) -> Value {
    json!({ "index": s.index, "offset": s.offset, "time": s.time, "records": list(&s.records, record) })
}

pub(crate) fn manifest(m: &Manifest) -> Value {
    let kind = match m.kind {
        Kind::File => "file",
        Kind::Live => "live",
    };
    let stream = |s: &icet::media::StreamInfo| {
        json!({
            "serial": s.serial, "codec": s.codec, "rate": s.rate, "channels": s.channels,
            "size": maybe(s.size, |(w, h)| json!([w, h])),
        })
    };
    json!({
        "kind": kind, "path": m.path.as_str(), "publisher": hex(&m.publisher.0), "version": num(m.version),
        "pages": m.pages, "bytes": num(m.bytes), "duration": num(m.duration), "root": hex(&m.root.0), "setup": m.setup,
        "links": m.links, "streams": list(&m.streams, stream), "title": m.title,
        "tags": list(&m.tags, |(n, v)| json!([n, v])), "signed_at": m.signed_at,
        "group": maybe(m.group.as_ref(), |g| json!(g.as_str())),
    })
}

pub(crate) fn ticket_body(b: &TicketBody) -> Value {
    json!({
        "tracker": hex(&b.tracker.0), "epoch": num(b.epoch), "assignment": num(b.assignment),
        "receiver": hex(&b.receiver.0), "host": hex(&b.host.0), "media": hex(&b.media.0), "version": num(b.version),
        "pages": page_set(&b.pages), "protocol": b.protocol.as_str(), "rate": maybe(b.rate, num),
        "expiry": num(b.expiry), "need": need(b.need),
    })
}

fn shortage(s: &Shortage) -> Value {
    json!({
        "media": hex(&s.media.0), "hosts": s.hosts, "unshared": s.unshared, "unreachable": s.unreachable, "failed": s.failed,
        "protocols": list(&s.protocols, |p| json!(p.as_str())), "unwilling": s.unwilling, "silent": s.silent,
    })
}

/// Name and fields of a message to a tracker.
pub(crate) fn to_tracker(m: &ToTracker) -> (&'static str, Value) {
    match m {
        ToTracker::Hello(m) => {
            let proof = match m.proof {
                KeyProof::Channel => "channel",
            };
            let v = json!({
                "version": m.version, "agent": m.agent, "proof": proof, "offers": list(&m.offers, offer),
                "reach": list(&m.reach, addr), "limits": limits(&m.limits), "epoch": maybe(m.epoch, num),
                "instance": maybe(m.instance, |i| json!(hex(&i.0))),
            });
            ("hello", v)
        }
        ToTracker::Publish(m) => (
            "publish",
            json!({ "request": num(m.request), "manifest": signed(&m.manifest), "slices": list(&m.slices, proven) }),
        ),
        ToTracker::Join(m) => {
            let v = json!({
                "request": num(m.request), "path": m.path.as_str(),
                "publisher": maybe(m.publisher, |k| json!(hex(&k.0))), "version": num(m.version), "have": ranges(&m.have),
                "intent": intent(m.intent), "at": maybe(m.at, position), "running": list(&m.running, |n| num(*n)),
                "back": m.back,
            });
            ("join", v)
        }
        ToTracker::Focus(m) => {
            let v = json!({
                "media": hex(&m.media.0), "at": position(m.at), "rate": maybe(m.rate, num), "urgent": num(m.urgent),
                "intent": intent(m.intent),
            });
            ("focus", v)
        }
        ToTracker::Have(m) => {
            let got = list(&m.got, |g| json!({ "assignment": num(g.assignment), "pages": ranges(&g.pages) }));
            ("have", json!({ "media": hex(&m.media.0), "got": got, "lost": ranges(&m.lost) }))
        }
        ToTracker::Report(m) => {
            let v = json!({
                "media": hex(&m.media.0), "assignment": num(m.assignment), "host": hex(&m.host.0),
                "protocol": m.protocol.as_str(), "outcome": outcome(m.outcome), "bytes": num(m.bytes),
                "pages": num(m.pages), "bad": num(m.bad), "first_byte": m.first_byte, "total": m.total, "last": m.last,
            });
            ("report", v)
        }
        ToTracker::Served(m) => {
            let items = list(&m.items, |i| json!({ "assignment": num(i.assignment), "bytes": num(i.bytes) }));
            ("served", json!({ "items": items }))
        }
        ToTracker::Leave(m) => ("leave", json!({ "media": hex(&m.media.0) })),
        ToTracker::Slices(m) => ("slices", slices(m)),
        ToTracker::Locate(m) => {
            ("locate", json!({ "request": num(m.request), "media": hex(&m.media.0), "at": position(m.at) }))
        }
        ToTracker::Withdraw(m) => (
            "withdraw",
            json!({
                "media": hex(&m.media.0), "moved": maybe(m.moved.as_ref(), |p| json!(p.as_str())), "release": m.release,
            }),
        ),
        ToTracker::InfoRequest(m) => {
            ("info-request", json!({ "request": num(m.request), "path": m.path.as_str() }))
        }
        ToTracker::Ping(m) => ("ping", json!({ "nonce": num(m.nonce) })),
        ToTracker::Reach(m) => ("reach", json!({ "reach": list(&m.reach, addr) })),
        ToTracker::Allow(m) => {
            let v = json!({
                "up": maybe(m.up, num), "down": maybe(m.down, num), "near": m.near,
                "withheld": list(&m.withheld, |i| json!(hex(&i.0))), "once": maybe(m.once, |o| json!(o)),
            });
            ("allow", v)
        }
        ToTracker::Head(m) => ("head", live_head(m)),
        ToTracker::Audience(m) => {
            let ips = list(&m.addresses, |ip: &Ip| json!(ip.0.to_string()));
            ("audience", json!({ "request": num(m.request), "media": hex(&m.media.0), "addresses": ips }))
        }
        ToTracker::StandingRequest(m) => ("standing-request", json!({ "request": num(m.request) })),
        _ => ("unknown", Value::Null),
    }
}

fn slices(m: &icet::message::Slices) -> Value {
    json!({ "media": hex(&m.media.0), "request": num(m.request), "slices": list(&m.slices, proven) })
}

/// Name and fields of a message to a peer.
pub(crate) fn to_peer(m: &ToPeer) -> (&'static str, Value) {
    match m {
        ToPeer::Welcome(m) => {
            let v = json!({
                "version": m.version, "epoch": num(m.epoch), "time": num(m.time), "observed": addr(&m.observed),
                "ticket_key": hex(&m.ticket_key.0), "ack_delay": m.ack_delay,
            });
            ("welcome", v)
        }
        ToPeer::MediaAnswer(m) => {
            let v = json!({
                "request": num(m.request), "media": hex(&m.media.0), "manifest": signed(&m.manifest),
                "slices": list(&m.slices, proven), "listeners": num(m.listeners), "hits": num(m.hits),
                "estimate": maybe(m.estimate, num), "buffer": m.buffer,
            });
            ("media-answer", v)
        }
        ToPeer::Assign(m) => {
            let shortages = maybe(m.shortages.as_ref(), |all| json!(list(all, shortage)));
            ("assign", json!({ "assignments": list(&m.assignments, assignment), "shortages": shortages }))
        }
        ToPeer::Cancel(m) => ("cancel", json!({ "assignments": list(&m.assignments, |n| num(*n)) })),
        ToPeer::Slices(m) => ("slices", slices(m)),
        ToPeer::InfoAnswer(m) => {
            let v = json!({
                "request": num(m.request), "manifest": signed(&m.manifest), "listeners": num(m.listeners),
                "hits": num(m.hits), "complete": num(m.complete), "sent": num(m.sent), "received": num(m.received),
                "alternatives": list(&m.alternatives, |p| json!(p.as_str())), "head": maybe(m.head.as_deref(), signed),
            });
            ("info-answer", v)
        }
        ToPeer::ErrorMessage(m) => {
            let v = json!({
                "code": m.code.0, "request": maybe(m.request, num), "media": maybe(m.media, |i| json!(hex(&i.0))),
                "text": m.text, "retry": m.retry,
            });
            ("error", v)
        }
        ToPeer::Withdrawn(m) => (
            "withdrawn",
            json!({
                "media": hex(&m.media.0), "moved": maybe(m.moved.as_ref(), |p| json!(p.as_str())),
                "operator": m.operator,
            }),
        ),
        ToPeer::Pong(m) => ("pong", json!({ "nonce": num(m.nonce), "time": num(m.time) })),
        ToPeer::ReachResult(m) => {
            ("reach-result", json!({ "addr": addr(&m.addr), "proved": m.proved, "why": m.why }))
        }
        ToPeer::Invite(m) => {
            let v = json!({
                "assignment": num(m.assignment), "media": hex(&m.media.0), "receiver": host(&m.receiver),
                "dial": dial(m.dial), "lapse": m.lapse,
            });
            ("invite", v)
        }
        ToPeer::Reserve(m) => ("reserve", json!({ "assignments": list(&m.assignments, assignment) })),
        ToPeer::Standing(m) => {
            let mark = |m: &Mark| json!({ "reason": m.reason.0, "count": num(m.count) });
            let v = json!({
                "request": num(m.request), "sent": num(m.sent), "received": num(m.received), "weight": m.weight,
                "peers": num(m.peers), "ahead": num(m.ahead), "trust": m.trust, "marks": list(&m.marks, mark),
            });
            ("standing", v)
        }
        ToPeer::Guidance(m) => {
            let givers = |g: &Givers| json!({ "index": g.index, "peers": num(g.peers), "sent": num(g.sent), "weight": g.weight });
            let v = json!({
                "request": num(m.request), "listeners": num(m.listeners), "hits": num(m.hits),
                "givers": list(&m.givers, givers),
            });
            ("guidance", v)
        }
        ToPeer::Knock(_) => ("knock", json!({})),
        ToPeer::Head(m) => ("head", live_head(m)),
        ToPeer::Newer(m) => ("newer", json!({ "manifest": signed(&m.manifest) })),
        _ => ("unknown", Value::Null),
    }
}

fn what(w: &What) -> Value {
    match w {
        What::Pages(set) => json!({ "pages": page_set(set) }),
        What::Bytes { first, last } => {
            json!({ "bytes": { "first": num(*first), "last": maybe(*last, num) } })
        }
        What::Time { from, to } => json!({ "time": { "from": num(*from), "to": maybe(*to, num) } }),
        What::Proofs { first, last } => json!({ "proofs": { "first": num(*first), "last": num(*last) } }),
        What::Spans(spans) => {
            json!({ "spans": list(spans, |s| json!({ "page": num(s.page), "offset": s.offset, "length": s.len })) })
        }
    }
}

pub(crate) fn request(r: &PagesRequest) -> Value {
    json!({
        "path": r.path.as_str(), "media": hex(&r.media.0), "version": num(r.version), "what": what(&r.what),
        "ticket": maybe(r.ticket.as_ref(), ticket),
    })
}

fn ending(e: &Ending) -> Value {
    json!({ "code": e.code.0, "text": e.text, "number": maybe(e.number, num) })
}

pub(crate) fn answer(a: &PagesAnswer) -> Value {
    match a {
        PagesAnswer::Accepted(a) => json!({ "accepted": { "what": what(&a.what), "total": num(a.total) } }),
        PagesAnswer::Refused(e) => json!({ "refused": ending(e) }),
    }
}

/// Of bytes, only how many.
pub(crate) fn piece(p: &Piece) -> Value {
    match p {
        Piece::Bytes(n) => json!({ "bytes": n }),
        Piece::Page(page) => json!({ "page": num(*page) }),
        Piece::Gap => json!({ "gap": true }),
        Piece::Ending(e) => json!({ "ending": ending(e) }),
    }
}
