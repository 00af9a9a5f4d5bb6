//! `iceshare get`: an exact copy, into a file or a pipe.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use iceshare::icet::MediaPath;
use iceshare::icet::message::Intent;
use iceshare::store::Target;
use iceshare::{Media, OpenError, Peer};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio_util::sync::CancellationToken;

use super::late::{in_its_place, is_late};
use super::record::record;
use crate::args::{self, ProgressKind};
use crate::config::Settings;
use crate::doors;
use crate::escape::printable;
use crate::failure::{FAILED, Failure, Outcome};
use crate::figures::Figures;
use crate::notices;
use crate::output::{self, note};
use crate::peer::{self, Own, Role};
use crate::progress::{fetch_bar, say_when_quiet, tell, watch};
use crate::waiting::{Protocols, last_reason};

/// So long without a good page, and the fetch is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// So long is waited for the tracker's word on how we stand.
pub(super) const STANDING: Duration = Duration::from_secs(1);
/// Read at once for a pipe.
const BLOCK: usize = 256 * 1024;

/// Where the copy goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Output {
    File(PathBuf),
    Pipe,
}

pub(crate) async fn get(args: &args::Get, settings: &Settings, stop: &CancellationToken) -> Outcome {
    let path = args.url.path.as_ref().ok_or_else(|| Failure::usage("the link names no media"))?;
    let output = output_for(args, path)?;
    if args.json && output == Output::Pipe {
        return Err(Failure::usage("--json and -o - both want standard output: choose one"));
    }
    let (peer, _kept) = peer::start(settings, Role::Listener).await?;
    let started = Instant::now();
    let outcome = loop {
        let opened = tokio::select! {
            () = stop.cancelled() => Err(Failure::interrupted()),
            media = open(&peer, settings, args, &output) => media,
        };
        let late = async {
            let media = opened.as_ref().ok()?.media();
            if !is_late(media, &args.later).await {
                return None;
            }
            media.leave();
            Some(match args.time {
                Some(_) => Err(Failure::with(5, "the broadcast has ended: there is nothing left to record")),
                None => in_its_place(&peer, &args.url).await,
            })
        };
        let late = tokio::select! {
            () = stop.cancelled() => Some(Err(Failure::interrupted())),
            late = late => late,
        };
        match late {
            None => break opened,
            Some(Ok(())) => {}
            Some(Err(failure)) => break Err(failure),
        }
    };
    let outcome = match outcome {
        Ok(opened) => {
            let media = opened.media();
            if media.is_live() {
                let outcome = match crate::transports::for_live(settings) {
                    Ok(()) => live(media, args, settings, &output, stop).await,
                    Err(failure) => Err(failure),
                };
                media.leave();
                peer.shutdown().await;
                return outcome;
            }
            // What was complete before is somebody's: shared, or kept.
            let ours = !media.store().is_complete();
            let fetched = tokio::select! {
                () = stop.cancelled() => Err(Failure::interrupted()),
                fetched = fetch(media, args, settings, &output, started) => fetched,
            };
            if fetched.is_ok() {
                share(&peer, args.share_for, stop).await;
            }
            media.leave();
            finish(&peer, opened, ours, fetched.is_ok()).await;
            fetched
        }
        Err(failure) => Err(failure),
    };
    peer.shutdown().await;
    outcome
}

fn output_for(args: &args::Get, path: &MediaPath) -> Result<Output, Failure> {
    let file = match &args.output {
        Some(o) if o == "-" => return Ok(Output::Pipe),
        Some(o) if o.is_empty() => {
            return Err(Failure::usage(
                "-o is empty: name a file, a folder, or - for standard output; without -o the file gets its own name",
            ));
        }
        Some(o) if o.as_encoded_bytes().ends_with(b"/") && !Path::new(o).is_dir() => {
            let e = iceshare::store::StoreError::NoFolder(PathBuf::from(o));
            return Err(Failure::from_error(FAILED, &e));
        }
        Some(o) if Path::new(o).is_dir() => Path::new(o).join(plain_name(path)),
        Some(o) => PathBuf::from(o),
        None => PathBuf::from(plain_name(path)),
    };
    if file.symlink_metadata().is_ok() {
        let e = iceshare::store::StoreError::Exists(file);
        return Err(Failure::from_error(FAILED, &e));
    }
    Ok(Output::File(file))
}

/// The last part of a media path as a name for a file that hides nowhere and is taken for no flag.
fn plain_name(path: &MediaPath) -> String {
    let name = path.file_name();
    if name.starts_with(['.', '-']) { format!("_{name}") } else { name.to_owned() }
}

/// Records live media.
async fn live(
    media: &Media,
    args: &args::Get,
    settings: &Settings,
    output: &Output,
    stop: &CancellationToken,
) -> Outcome {
    let (protocols, notices) = (Protocols::of(settings), media.notices());
    let recording = async {
        match output {
            Output::Pipe => {
                let stdout = io::stdout().as_fd().try_clone_to_owned()?;
                let out = tokio::fs::File::from_std(stdout.into());
                record(media, out, args.time, None, args.json, &protocols, stop).await
            }
            Output::File(file) => {
                let name = file.display().to_string();
                let new = std::fs::File::options().write(true).create_new(true).open(file);
                let new = new.map_err(|e| Failure::failed(format!("cannot write {name}: {e}")))?;
                let out = tokio::fs::File::from_std(new);
                let recorded = record(media, out, args.time, Some(&name), args.json, &protocols, stop).await;
                // An empty one would be in the way of the next attempt.
                if recorded.is_err() && file.metadata().is_ok_and(|m| m.len() == 0) {
                    let _ = std::fs::remove_file(file);
                }
                recorded
            }
        }
    };
    tokio::select! {
        recorded = recording => recorded,
        () = tell(media), if args.progress == ProgressKind::Lines => Ok(()),
        () = notices::tell(notices) => Ok(()),
        () = say_when_quiet(media, &protocols, true) => Ok(()),
    }
}

enum Opened {
    File(Media),
    Pipe(Own),
}

impl Opened {
    fn media(&self) -> &Media {
        match self {
            Opened::File(media) => media,
            Opened::Pipe(own) => &own.media,
        }
    }
}

async fn open(
    peer: &Peer,
    settings: &Settings,
    args: &args::Get,
    output: &Output,
) -> Result<Opened, Failure> {
    let Output::File(file) = output else {
        return Own::open(peer, settings, &args.url, Intent::Whole, &args.later).await.map(Opened::Pipe);
    };
    let options = args.later.options(Intent::Whole, Target::File(file.clone()));
    peer.open(&args.url, options).await.map(Opened::File).map_err(peer::opened)
}

async fn fetch(
    media: &Media,
    args: &args::Get,
    settings: &Settings,
    output: &Output,
    started: Instant,
) -> Outcome {
    if args.time.is_some() {
        return Err(Failure::usage("--for is for live media, and this is a file"));
    }
    args.later.fits(media)?;
    let bytes = media.manifest().bytes;
    // At a low download limit even a page may take longer.
    let slowest = settings.down.map_or(0, |r| 4 * 65_307 / r.0);
    let patience = PATIENCE.max(Duration::from_secs(slowest));
    let complete = media.complete(Some(patience));
    let protocols = Protocols::of(settings);
    let copy = async {
        match output {
            Output::Pipe => pipe(media, bytes).await,
            Output::File(_) => Ok(()),
        }
    };
    let both = async {
        let complete = async {
            complete.await.map_err(|e| match e {
                OpenError::NoData(..) => peer::opened(e).add(&last_reason(media, &protocols)),
                e => peer::opened(e),
            })
        };
        tokio::try_join!(complete, copy).map(|_| ())
    };
    let bar = fetch_bar(bytes);
    tokio::select! {
        done = both => {
            bar.finish_and_clear();
            done?;
        }
        () = watch(media, &bar), if args.progress == ProgressKind::Bar => {}
        () = tell(media), if args.progress == ProgressKind::Lines => {}
        () = say_when_quiet(media, &protocols, true) => {}
    }
    let (progress, elapsed) = (media.progress(), started.elapsed());
    let figures = Figures::new(&progress, bytes, elapsed, media.ask_standing(STANDING).await);
    note(format!("{}: {}", printable(&name_of(output, media)), figures.line()));
    figures.standing_lines().iter().for_each(note);
    if args.json {
        output::json(&figures)?;
    }
    Ok(())
}

fn name_of(output: &Output, media: &Media) -> String {
    match output {
        Output::File(file) => file.display().to_string(),
        Output::Pipe => media.manifest().path.to_string(),
    }
}

/// Writes all bytes in order, as they arrive.
async fn pipe(media: &Media, bytes: u64) -> Outcome {
    let mut reader = BufReader::with_capacity(BLOCK, media.reader());
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    let mut out = tokio::fs::File::from_std(stdout.into());
    let copied = async {
        let n = tokio::io::copy_buf(&mut reader, &mut out).await?;
        out.flush().await?;
        Ok::<_, io::Error>(n)
    };
    match copied.await {
        Ok(n) if n == bytes => Ok(()),
        Ok(n) => Err(Failure::failed(format!("only {n} of {bytes} bytes could be read"))),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
            Err(Failure::failed("the program that reads the pipe went away"))
        }
        Err(e) => Err(Failure::failed(format!("cannot write to the pipe: {e}"))),
    }
}

async fn share(peer: &Peer, share_for: Option<Duration>, stop: &CancellationToken) {
    if let Some(time) = share_for {
        note(format!("sharing for {}; Ctrl-C ends it", humantime::format_duration(time)));
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = stop.cancelled() => {}
            never = doors::watch(peer) => match never {},
        }
    }
}

/// Leaves the disk in order: a part that can be resumed at once, and nothing of what went to a pipe.
async fn finish(peer: &Peer, opened: Opened, ours: bool, done: bool) {
    let text = kept(opened.media());
    let stays = match opened {
        Opened::Pipe(own) => own.end(peer, !(done && ours)).await,
        Opened::File(media) if !done => {
            peer::close(media.store().clone()).await;
            true
        }
        Opened::File(_) => true,
    };
    if !done && stays {
        note(text);
    }
}

fn kept(media: &Media) -> String {
    let p = media.progress();
    if p.held == 0 {
        return "no page arrived, and nothing is kept".to_owned();
    }
    let then = match media.failure() {
        Some(OpenError::Withdrawn(_) | OpenError::TakenOff) => "for when it is published again",
        _ => "the same command goes on from there",
    };
    format!("{} of {} pages are kept: {then}", p.held, p.pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_neither_hide_nor_look_like_flags() {
        for (path, name) in [("a/song.opus", "song.opus"), ("a/.bashrc", "_.bashrc"), ("-rf", "_-rf")] {
            assert_eq!(plain_name(&path.parse().expect("a path")), name);
        }
    }
}
