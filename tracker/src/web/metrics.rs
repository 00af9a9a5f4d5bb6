//! Figures for Prometheus, read from the swarm at each scrape: nothing is counted twice, and trackers that run in
//! one process do not share a recorder.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::Shared;
use super::api::Refusal;
use super::views::Summary;
use crate::server::TrafficCounts;

pub(super) async fn render(State(shared): State<Arc<Shared>>) -> Result<Response, Refusal> {
    let summary = shared.summary().await?;
    let site = &shared.site;
    let uptime = site.started.elapsed().as_secs_f64();
    let text = text(&summary, &site.traffic.counts(), &site.written.counts(), site.epoch, uptime);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

#[allow(clippy::cast_precision_loss)] // Prometheus has floating-point numbers only.
fn text(
    summary: &Summary,
    traffic: &TrafficCounts,
    written: &[(&'static str, u64)],
    epoch: u64,
    uptime: f64,
) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        let t = &summary.totals;
        let now = |name: &'static str, help: &'static str, value: u64| {
            describe_gauge!(name, help);
            gauge!(name).set(value as f64);
        };
        now("icetracker_epoch", "Number of this start of the tracker", epoch);
        now("icetracker_sessions", "Sessions of peers", t.sessions);
        now("icetracker_peers", "Different keys that have a session", t.peers);
        now("icetracker_media", "Media in the catalogue", t.media);
        now("icetracker_members", "Memberships in the swarms of all media", t.members);
        now("icetracker_listeners", "Members that play or fetch", t.listeners);
        now("icetracker_assignments_running", "Assignments that run", t.running);
        now("icetracker_page_map_bytes", "Memory for the page maps of peers", t.map_bytes);
        describe_gauge!("icetracker_uptime_seconds", "Time since the tracker started");
        gauge!("icetracker_uptime_seconds").set(uptime);

        let since = |name: &'static str, help: &'static str, value: u64| {
            describe_counter!(name, help);
            counter!(name).absolute(value);
        };
        since("icetracker_assignments_total", "Assignments made", t.assigned);
        since("icetracker_acknowledged_pages_total", "Pages that receivers acknowledged", t.acked_pages);
        since("icetracker_quota_refusals_total", "Messages refused for a quota", t.refused);
        since("icetracker_dial_backs_ordered_total", "Dial-backs ordered", t.dials);
        since(
            "icetracker_slow_sessions_total",
            "Sessions closed because the peer did not read",
            traffic.slow,
        );

        let labelled =
            |name: &'static str, label: &'static str, help: &'static str, of: &[(&'static str, u64)]| {
                describe_counter!(name, help);
                for (value, n) in of {
                    counter!(name, label => *value).absolute(*n);
                }
            };
        let by_peers = t.acked_bytes.saturating_sub(t.acked_from_publisher);
        labelled(
            "icetracker_acknowledged_bytes_total",
            "from",
            "Bytes of pages that receivers acknowledged, by who sent them",
            &[("publisher", t.acked_from_publisher), ("peer", by_peers)],
        );
        labelled(
            "icetracker_dial_backs_total",
            "outcome",
            "Dial-backs that ended",
            &[("proved", traffic.dials_proved), ("failed", traffic.dials_failed)],
        );
        labelled(
            "icetracker_messages_total",
            "direction",
            "Messages of IceT",
            &[("received", traffic.messages_in), ("sent", traffic.messages_out)],
        );
        labelled(
            "icetracker_message_bytes_total",
            "direction",
            "Bytes of the frames of IceT",
            &[("received", traffic.bytes_in), ("sent", traffic.bytes_out)],
        );
        labelled(
            "icetracker_sessions_opened_total",
            "carrier",
            "Sessions that peers opened",
            &[("quic", traffic.sessions_quic), ("tls", traffic.sessions_tls)],
        );
        labelled(
            "icetracker_catalogue_writes_total",
            "kind",
            "Changes of the catalogue that are durable",
            written,
        );

        describe_gauge!("icetracker_protocol_hosts", "Peers that serve over a payload protocol");
        describe_counter!("icetracker_protocol_assignments_total", "Assignments made for a payload protocol");
        describe_counter!("icetracker_fetches_total", "Reported fetches by payload protocol and outcome");
        describe_counter!("icetracker_protocol_bytes_total", "Bytes acknowledged by payload protocol");
        describe_gauge!("icetracker_protocol_goodput_bytes", "Bytes a second of a fetch, as learned");
        describe_gauge!("icetracker_protocol_first_byte_seconds", "Time to the first byte, as learned");
        describe_gauge!("icetracker_protocol_success_ratio", "Share of fetches that end well, as learned");
        describe_gauge!("icetracker_protocol_page_share_ratio", "Share of the pages that came lately");
        describe_counter!("icetracker_protocol_deadlines_total", "Assignments with a deadline, by outcome");
        for p in &summary.protocols {
            let name = || p.name.clone();
            if let Some(rate) = p.goodput {
                gauge!("icetracker_protocol_goodput_bytes", "protocol" => name()).set(rate);
            }
            if let Some(ms) = p.first_byte_ms {
                gauge!("icetracker_protocol_first_byte_seconds", "protocol" => name()).set(ms / 1000.0);
            }
            gauge!("icetracker_protocol_success_ratio", "protocol" => name()).set(p.success);
            gauge!("icetracker_protocol_page_share_ratio", "protocol" => name()).set(p.share);
            let met = p.deadlines.saturating_sub(p.missed);
            for (outcome, n) in [("met", met), ("missed", p.missed)] {
                counter!("icetracker_protocol_deadlines_total", "protocol" => name(), "outcome" => outcome)
                    .absolute(n);
            }
            gauge!("icetracker_protocol_hosts", "protocol" => name()).set(p.hosts as f64);
            counter!("icetracker_protocol_assignments_total", "protocol" => name()).absolute(p.assigned);
            counter!("icetracker_fetches_total", "protocol" => name(), "outcome" => "done").absolute(p.done);
            counter!("icetracker_fetches_total", "protocol" => name(), "outcome" => "failed")
                .absolute(p.failed);
            counter!("icetracker_protocol_bytes_total", "protocol" => name()).absolute(p.bytes);
        }
    });
    recorder.handle().render()
}
