//! `iceshare play`: a link for a player, and the player too if wanted.

use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use iceshare::icet::message::Intent;
use iceshare::{Media, OpenError};
use iceshare_gateway::{Gateway, Offered};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::get::STANDING;
use super::late::{in_its_place, is_late};
use crate::args;
use crate::config::Settings;
use crate::failure::{FAILED, Failure, Outcome};
use crate::figures::Figures;
use crate::notices;
use crate::output::{self, note};
use crate::peer::{self, Own, Role};
use crate::progress::{fetch_bar, say_when_quiet, watch};
use crate::waiting::Protocols;

/// How long a player may take to end after an interrupt, which it mostly gets itself from the terminal.
const GRACE: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(250);

pub(crate) async fn play(args: &args::Play, settings: &Settings, stop: &CancellationToken) -> Outcome {
    // Mistakes in the player's command come before anything is fetched.
    let player = args.player.as_deref().map(words).transpose()?;
    let gateway = Gateway::start(args.gateway).await.map_err(|e| {
        let usage = matches!(e, iceshare_gateway::GatewayError::NotLoopback(_));
        Failure::from_error(if usage { crate::failure::USAGE } else { FAILED }, &e)
    })?;
    let (peer, _kept) = peer::start(settings, Role::Listener).await?;
    let opened = async {
        loop {
            let own = Own::open(&peer, settings, &args.url, Intent::Play, &args.later).await?;
            if !is_late(&own.media, &args.later).await {
                return Ok(own);
            }
            own.media.leave();
            in_its_place(&peer, &args.url).await?;
        }
    };
    let opened = tokio::select! {
        () = stop.cancelled() => Err(Failure::interrupted()),
        opened = opened => opened,
    };
    let outcome = match opened {
        Ok(own) => {
            // What was complete before is somebody's: shared, or kept.
            let keep = args.keep || own.media.store().is_complete();
            let live = own.media.is_live();
            let fit = if live { crate::transports::for_live(settings) } else { args.later.fits(&own.media) };
            let outcome = match fit {
                Ok(()) => with(&own.media, &gateway, player, &Protocols::of(settings), stop).await,
                Err(failure) => Err(failure),
            };
            drop(gateway);
            own.media.leave();
            own.end(&peer, keep).await;
            outcome
        }
        Err(failure) => Err(failure),
    };
    peer.shutdown().await;
    outcome
}

async fn with(
    media: &Media,
    gateway: &Gateway,
    player: Option<Vec<String>>,
    protocols: &Protocols,
    stop: &CancellationToken,
) -> Outcome {
    let (started, notices) = (Instant::now(), media.notices());
    let offered = gateway.offer(media.clone()).map_err(|e| Failure::from_error(FAILED, &e))?;
    output::result(&offered.media)?;
    note(format!("seek bar and figures: {}", offered.page));
    // Counts links that end for a player at another codec.
    let mut left =
        gateway.left(&offered).ok_or_else(|| Failure::failed("internal error: nothing is offered"))?;
    let others = left.clone();
    let child = player.as_ref().map(|p| start(p, &offered.media)).transpose()?;
    let plays = child.is_some();
    let ended = async {
        let Some(mut child) = child else {
            return tokio::select! {
                () = stop.cancelled() => Err(Failure::interrupted()),
                () = heard_to_the_end(media, gateway, &offered) => Ok(()),
            };
        };
        loop {
            let outcome = until_ended(child, stop).await;
            let again = left.has_changed().unwrap_or(false) && !stop.is_cancelled();
            let Some(player) = player.as_ref().filter(|_| again) else { return outcome };
            left.mark_unchanged();
            note("the broadcast goes on in another codec: the player is started again");
            child = start(player, &offered.media)?;
        }
    };
    let bar = fetch_bar(media.manifest().bytes);
    let live = media.is_live();
    let outcome = tokio::select! {
        outcome = ended => outcome,
        failure = failed(media) => Err(failure),
        () = watch(media, &bar), if !live => Ok(()),
        () = say_when_quiet(media, protocols, live) => Ok(()),
        () = crate::titles::tell(media), if live => Ok(()),
        () = notices::tell(notices), if live => Ok(()),
        () = tell_of_codecs(others), if live && !plays => Ok(()),
    };
    bar.finish_and_clear();
    if live {
        let p = media.progress();
        note(format!("{} bytes came, {} pages refused", p.bytes, p.bad));
        // Its player ended well; the broadcast did not.
        return match outcome {
            Ok(()) if media.is_off_air() => Err(peer::opened(OpenError::OffAir)),
            outcome => outcome,
        };
    }
    let (progress, elapsed) = (media.progress(), started.elapsed());
    let figures =
        Figures::new(&progress, media.manifest().bytes, elapsed, media.ask_standing(STANDING).await);
    note(figures.played_line());
    figures.standing_lines().iter().for_each(note);
    outcome
}

/// The player's command as words, in a shell's quoting.
fn words(command: &str) -> Result<Vec<String>, Failure> {
    match shlex::split(command) {
        Some(words) if !words.is_empty() => Ok(words),
        _ => Err(Failure::usage("--player needs a command, its quotes closed: --player 'mpv --no-video'")),
    }
}

fn with_link(mut words: Vec<String>, link: &str) -> Vec<String> {
    if words.iter().any(|w| w.contains("{}")) {
        words.iter_mut().for_each(|w| *w = w.replace("{}", link));
    } else {
        words.push(link.to_owned());
    }
    words
}

fn start(player: &[String], link: &str) -> Result<Child, Failure> {
    let words = with_link(player.to_vec(), link);
    let (program, arguments) =
        words.split_first().ok_or_else(|| Failure::usage("--player needs a command"))?;
    Command::new(program)
        .args(arguments)
        // Results of ours go to standard output; what a player says does not belong there.
        .stdout(Stdio::from(std::io::stderr()))
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Failure::failed(format!("cannot start the player {program}: {e}")))
}

async fn until_ended(mut child: Child, stop: &CancellationToken) -> Outcome {
    let said = |status: std::io::Result<ExitStatus>| match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::failed(format!("the player ended with {status}"))),
        Err(e) => Err(Failure::failed(format!("the player: {e}"))),
    };
    tokio::select! {
        status = child.wait() => said(status),
        () = stop.cancelled() => {
            // Dropped, and so killed, if it does not end.
            let _ = tokio::time::timeout(GRACE, child.wait()).await;
            Err(Failure::interrupted())
        }
    }
}

/// Ends when the media does (withdrawn, refused), which a player sees as a broken connection. A broadcast that has ended is no failure,
/// nor is one that broke off before all was heard: its player hears the rest.
async fn failed(media: &Media) -> Failure {
    let failure = ended(media).await;
    match failure {
        Some(e) => peer::opened(e),
        None => {
            note(if media.is_off_air() {
                "the broadcast broke off: its broadcaster is gone; what has come of it is played to the end"
            } else {
                "the broadcast has ended"
            });
            std::future::pending().await
        }
    }
}

/// Waits until nothing comes any more: for what reason, or none of a broadcast of which the rest can be heard.
async fn ended(media: &Media) -> Option<OpenError> {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        let over = media.is_live() && media.store().ended().is_some();
        match media.failure() {
            Some(OpenError::Withdrawn(_) | OpenError::OffAir) if media.is_live() => return None,
            Some(e) => return Some(e).filter(|_| !over),
            None if over && media.store().came_to_the_end() => return None,
            None => {}
        }
    }
}

/// Says when the link ends for a player at another codec; never ends.
async fn tell_of_codecs(mut left: watch::Receiver<u64>) {
    while left.changed().await.is_ok() {
        note(
            "the broadcast goes on in another codec, and the link ended for the player: open it again there (--player does so by itself)",
        );
    }
    std::future::pending().await
}

/// Waits for the end of a broadcast, and until nobody hears it here any more.
async fn heard_to_the_end(media: &Media, gateway: &Gateway, offered: &Offered) {
    if ended(media).await.is_some() {
        // That is told otherwise.
        std::future::pending::<()>().await;
    }
    let mut tick = tokio::time::interval(TICK);
    while gateway.listeners(offered) > 0 {
        tick.tick().await;
    }
    // What was written last is on its way to the player yet.
    tokio::time::sleep(GRACE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_goes_to_the_player() {
        let line = |c: &str| words(c).map(|w| with_link(w, "http://l/").join("|"));
        assert_eq!(line("mpv"), Ok("mpv|http://l/".into()));
        assert_eq!(line("mpv --title='a b' {} --x"), Ok("mpv|--title=a b|http://l/|--x".into()));
        assert_eq!(line("sh -c 'ffplay {} # \"'"), Ok("sh|-c|ffplay http://l/ # \"".into()));
        assert!(line("").is_err() && line("mpv 'x").is_err());
    }
}
