//! `iceshare demo`: a tracker, an origin and a small swarm in one process, to look at.

mod draw;
mod snapshot;
mod swarm;
mod view;

use std::path::{Path, PathBuf};
use std::time::Duration;

use iceshare::icet::MediaPath;
use iceshare_gateway::{Gateway, Offered};
use indicatif::DecimalBytes;
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::config::Settings;
use crate::failure::{FAILED, Failure, Outcome};
use crate::output::{self, note};
use crate::transports;
use snapshot::{Snapshot, Verdict, ratio};
use swarm::Swarm;
use view::View;

/// Ninety seconds of sound, made for this; `cli/assets/make_sample.py` tells how.
const SAMPLE: &[u8] = include_bytes!("../../assets/sample.opus");
const SAMPLE_NAME: &str = "sample.opus";
/// Between two pictures.
const FRAME: Duration = Duration::from_millis(100);

pub(crate) async fn demo(args: &args::Demo, settings: &Settings, stop: &CancellationToken) -> Outcome {
    // Mistakes in them come before anything is begun.
    transports::chosen(settings)?;
    let gateway = Gateway::start(args.gateway).await.map_err(|e| Failure::from_error(FAILED, &e))?;
    let folder = tempfile::Builder::new()
        .prefix("iceshare-demo-")
        .tempdir()
        .map_err(|e| Failure::failed(format!("no folder for the demo: {e}")))?;
    let (source, path) = source(args.file.as_deref(), folder.path())?;
    let begun = tokio::select! {
        () = stop.cancelled() => return Err(Failure::interrupted()),
        begun = Swarm::begin(folder.path(), &source, path, settings) => begun,
    };
    let mut swarm = begun?;
    let outcome = perform(args, &mut swarm, &gateway, folder.path(), stop).await;
    drop(gateway);
    swarm.end().await;
    outcome
}

/// The file to spread, and its name in the swarm.
fn source(file: Option<&Path>, folder: &Path) -> Result<(PathBuf, MediaPath), Failure> {
    let Some(file) = file else {
        let sample = folder.join(SAMPLE_NAME);
        std::fs::write(&sample, SAMPLE)
            .map_err(|e| Failure::failed(format!("cannot write the sample: {e}")))?;
        let path = MediaPath::new(SAMPLE_NAME).map_err(|e| Failure::from_error(FAILED, &e))?;
        return Ok((sample, path));
    };
    let name = file.file_name().and_then(|n| n.to_str()).and_then(|n| MediaPath::new(n).ok());
    let path = name.map_or_else(|| MediaPath::new("media.ogg"), Ok);
    Ok((file.to_owned(), path.map_err(|e| Failure::from_error(FAILED, &e))?))
}

async fn perform(
    args: &args::Demo,
    swarm: &mut Swarm,
    gateway: &Gateway,
    folder: &Path,
    stop: &CancellationToken,
) -> Outcome {
    // Everyone is there before the link is told: the last to come is the one that a player listens to, since it has
    // to rely on the others most.
    let mut joined = None;
    swarm.start_clock();
    for number in 1..=args.peers {
        let listens = number == args.peers;
        tokio::select! {
            () = stop.cancelled() => return Err(Failure::interrupted()),
            media = swarm.join(folder, listens) => joined = Some(media?),
        }
    }
    let Some(media) = joined else { return Err(Failure::usage("a demo needs peers")) };
    let offered = gateway.offer(media).map_err(|e| Failure::from_error(FAILED, &e))?;
    output::result(&offered.media)?;
    let mut view = View::open();
    if matches!(view, View::Lines(_)) {
        note(format!("watch it arrive: {}", offered.page));
    }
    if let Err(failure) = watch(swarm, &mut view, &offered, None, stop).await {
        if failure.is_interrupt() {
            let (verdict, hash) = swarm.compare().await?;
            let last = swarm.snapshot(&offered.media, &offered.page, Some(verdict));
            drop(view);
            show(&figures(&last, swarm, &hash))?;
        }
        return Err(failure);
    }
    let (verdict, hash) = swarm.compare().await?;
    let last = swarm.snapshot(&offered.media, &offered.page, Some(verdict));
    view.show(&last);
    let figures = figures(&last, swarm, &hash);
    let verdict_of = || match verdict {
        Verdict { equal, peers } if equal == peers => Ok(()),
        Verdict { equal, peers } => {
            Err(Failure::failed(format!("{} of {peers} copies differ from the source", peers - equal)))
        }
    };
    if args.once {
        drop(view);
        show(&figures)?;
        return verdict_of();
    }
    if matches!(view, View::Lines(_)) {
        show(&figures)?;
        note("the link for players stays open; Ctrl-C ends the demo");
        stop.cancelled().await;
    } else {
        // Still moving: a player may be listening.
        let _ = watch(swarm, &mut view, &offered, Some(verdict), stop).await;
        drop(view);
        show(&figures)?;
    }
    verdict_of()?;
    if stop.is_cancelled() { Err(Failure::interrupted()) } else { Ok(()) }
}

/// Shows what happens until every peer has everything, or (with a verdict) until the user leaves.
async fn watch(
    swarm: &mut Swarm,
    view: &mut View,
    offered: &Offered,
    verdict: Option<Verdict>,
    stop: &CancellationToken,
) -> Outcome {
    let mut arrivals = swarm.arrivals();
    let mut frame = tokio::time::interval(FRAME);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Err(Failure::interrupted()),
            control_c = view.quit() => {
                if control_c {
                    // As if the signal had come.
                    stop.cancel();
                }
                return Err(Failure::interrupted());
            }
            arrival = arrivals.join_next(), if verdict.is_none() => match arrival {
                None => return Ok(()),
                Some(Ok((number, Ok(())))) => swarm.arrived(number),
                Some(Ok((number, Err(failure)))) => {
                    let text = failure.text().unwrap_or_default();
                    return Err(Failure::failed(format!("peer {number} did not get everything: {text}")));
                }
                Some(Err(e)) => return Err(Failure::failed(format!("internal error: {e}"))),
            },
            _ = frame.tick() => view.show(&swarm.snapshot(&offered.media, &offered.page, verdict)),
        }
    }
}

/// What it came to, line by line.
fn figures(s: &Snapshot, swarm: &Swarm, hash: &str) -> Vec<String> {
    let (origin, peers) = s.sources();
    let percent = |n| 100.0 * ratio(n, origin + peers);
    let bad: u64 = s.peers().iter().map(|p| p.bad).sum();
    let sent = s.hosts.first().map_or(0, |o| o.sent);
    let ms = |d: Option<Duration>| d.map_or(0, |d| d.as_millis());
    let first = swarm.first_pages();
    let complete: Vec<Duration> = s.peers().iter().filter_map(|p| p.complete).collect();
    let last = complete.iter().max().copied().unwrap_or_default();
    let arrived = if complete.len() == s.peers().len() {
        format!("all arrived      after {:.1} s", last.as_secs_f64())
    } else {
        let (some, all) = (complete.len(), s.peers().len());
        format!(
            "stopped          after {:.1} s: {some} of {all} peers had everything",
            s.elapsed.as_secs_f64()
        )
    };
    let verdict = s.verdict.unwrap_or(Verdict { equal: 0, peers: 0 });
    vec![
        format!(
            "origin sent      {}: {:.2} copies, for {} peers",
            DecimalBytes(sent),
            s.copies(),
            s.peers().len()
        ),
        format!("peers received   {} from the origin ({:.0} %)", DecimalBytes(origin), percent(origin)),
        format!("                 {} from each other ({:.0} %)", DecimalBytes(peers), percent(peers)),
        format!("pages verified   {}; {bad} bad, {} came twice", s.verified(), swarm.duplicates()),
        format!(
            "first page       after {} to {} ms",
            ms(first.iter().min().copied()),
            ms(first.iter().max().copied())
        ),
        arrived,
        format!("equal to source  {} of {} copies (BLAKE3 {hash})", verdict.equal, verdict.peers),
    ]
}

fn show(figures: &[String]) -> Outcome {
    figures.iter().try_for_each(output::result)?;
    Ok(())
}
