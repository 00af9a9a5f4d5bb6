//! `iceshare info`: what a tracker knows of a media.

use iceshare::{Info, Standing};
use indicatif::DecimalBytes;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::config::Settings;
use crate::escape::printable;
use crate::failure::{Failure, Outcome};
use crate::giving::Told;
use crate::output;
use crate::peer::{self, Role};
use crate::progress::clock;

#[derive(Serialize)]
struct Report<'a> {
    url: String,
    media: String,
    title: &'a str,
    /// What is on, of live media that says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<&'a str>,
    kind: &'static str,
    mime: &'static str,
    publisher: String,
    version: u64,
    /// The signature was checked, and the key stands to what is pinned or remembered.
    signature: &'static str,
    /// Seconds since 1970.
    signed_at: u64,
    /// None of live media, which has no length; so of the next three.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    links: Option<u64>,
    streams: Vec<Stream<'a>>,
    tags: Vec<(&'a str, &'a str)>,
    listeners: u64,
    hits: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<u64>,
    alternatives: Vec<&'a str>,
    /// Bytes of ours that the tracker could confirm.
    sent: u64,
    received: u64,
    /// How our key stands with the tracker; null if it does not tell.
    standing: Option<&'a Standing>,
    /// What these settings give to others.
    giving: Told,
}

#[derive(Serialize)]
struct Stream<'a> {
    serial: u32,
    codec: &'a str,
    rate: Option<u64>,
    channels: Option<u8>,
    size: Option<(u32, u32)>,
}

pub(crate) async fn info(args: &args::Info, settings: &Settings, stop: &CancellationToken) -> Outcome {
    let (peer, kept) = peer::start(settings, Role::Listener).await?;
    let outcome = tokio::select! {
        () = stop.cancelled() => Err(Failure::interrupted()),
        info = peer.info(&args.url) => info.map_err(peer::opened),
    };
    peer.shutdown().await;
    let info = outcome?;
    let report = report(&info, kept.giving.told());
    if args.json {
        output::json(&report)?;
    } else {
        show(&report)?;
    }
    Ok(())
}

fn report(info: &Info, giving: Told) -> Report<'_> {
    let m = info.manifest.manifest();
    let a = &info.answer;
    let of_file = |n| (m.kind == iceshare::icet::Kind::File).then_some(n);
    Report {
        url: info.url.to_string(),
        media: m.id().to_string(),
        title: &m.title,
        now: info.now.as_deref(),
        kind: match m.kind {
            iceshare::icet::Kind::File => "file",
            iceshare::icet::Kind::Live => "live",
        },
        mime: m.mime(),
        publisher: m.publisher.to_string(),
        version: m.version,
        signature: "good",
        signed_at: m.signed_at,
        bytes: of_file(m.bytes),
        pages: of_file(m.pages),
        duration_us: of_file(m.duration),
        links: of_file(m.links),
        streams: m
            .streams
            .iter()
            .map(|s| Stream {
                serial: s.serial,
                codec: &s.codec,
                rate: s.rate,
                channels: s.channels,
                size: s.size,
            })
            .collect(),
        tags: m.tags.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect(),
        listeners: a.listeners,
        hits: a.hits,
        complete: of_file(a.complete),
        alternatives: a.alternatives.iter().map(|p| p.as_str()).collect(),
        sent: a.sent,
        received: a.received,
        standing: info.standing.as_ref(),
        giving,
    }
}

fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Titles, tags and codec names were written by strangers: escaped, each on its line.
fn show(r: &Report<'_>) -> Outcome {
    let mut lines = vec![("link", r.url.clone())];
    if !r.title.is_empty() {
        lines.push(("title", printable(r.title)));
    }
    lines.extend(r.now.map(|now| ("on now", printable(now))));
    let long = r.duration_us.filter(|d| *d > 0).map(|d| format!(", {}", clock(d))).unwrap_or_default();
    let chain = r.links.filter(|n| *n > 1).map(|n| format!(", {n} links")).unwrap_or_default();
    // Live media has no length.
    lines.push(match r.bytes.zip(r.pages) {
        None => (r.kind, "continuous".to_owned()),
        Some((bytes, pages)) => {
            (r.kind, format!("{}{long}, {}{chain}", DecimalBytes(bytes), counted(pages, "page")))
        }
    });
    for s in &r.streams {
        let mut text = printable(s.codec);
        match (s.rate, s.size) {
            (Some(rate), Some((w, h))) => {
                text += &format!(", {w}×{h}, {}.{:03} frames/s", rate / 1000, rate % 1000);
            }
            (Some(rate), None) => text += &format!(", {rate} Hz"),
            (None, Some((w, h))) => text += &format!(", {w}×{h}"),
            (None, None) => {}
        }
        if let Some(channels) = s.channels {
            text += &format!(", {channels} channel{}", if channels == 1 { "" } else { "s" });
        }
        lines.push(("stream", text));
    }
    for (name, value) in &r.tags {
        lines.push(("tag", format!("{}={}", printable(name), printable(value))));
    }
    lines.push(("signature", format!("good, version {} by {}", r.version, r.publisher)));
    lines.push(("swarm", {
        let complete = r.complete.map(|n| format!(", {n} with all of it")).unwrap_or_default();
        format!("{}, {}{complete}", counted(r.listeners, "listener"), counted(r.hits, "hit"))
    }));
    lines.extend(r.alternatives.iter().map(|a| ("also as", printable(a))));
    let (given, got) = (DecimalBytes(r.sent), DecimalBytes(r.received));
    lines.push(("we", format!("gave {given} and received {got} at this tracker, as both ends confirmed it")));
    if let Some(standing) = r.standing {
        lines.push(("standing", standing.effect()));
        lines.extend(standing.doubts().map(|doubts| ("trust", doubts)));
    }
    lines.push(("giving", r.giving.line()));
    for (name, value) in lines {
        output::result(format!("{name:<10} {value}"))?;
    }
    Ok(())
}
