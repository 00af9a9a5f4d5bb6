//! `iceshare broadcast`: live media from a file, a pipe or a URL.

use std::time::Duration;

use iceshare::store::Window;
use iceshare::{BroadcastError, BroadcastOptions, Media, Peer};
use tokio_util::sync::CancellationToken;

use crate::args;
use crate::config::Settings;
use crate::failure::{FAILED, Failure, Outcome};
use crate::listen_source::Door;
use crate::output::{self, note};
use crate::peer::{self, Role};
use crate::source::{From, Source};

/// When a source has ended, those who listen may fetch the rest for as long as something is sent in so long.
const LINGER: Duration = Duration::from_secs(5);

pub(crate) async fn broadcast(
    args: &args::Broadcast,
    settings: &Settings,
    stop: &CancellationToken,
) -> Outcome {
    let tracker = peer::tracker(&args.tracker.tracker, settings)?;
    let from = match (&args.from, args.listen_source) {
        (Some(from), _) => from.clone(),
        (None, Some(listen)) => {
            let password = args.source_password.clone().map_or_else(new_password, Ok)?;
            From::Listen(Door { listen, password })
        }
        (None, None) => {
            return Err(Failure::usage("where do the pages come from? --from or --listen-source"));
        }
    };
    if args.again && !matches!(from, From::File(_)) {
        return Err(Failure::usage("--loop is for a file"));
    }
    crate::transports::for_live(settings)?;
    // A source that is none is found before anything is announced.
    let source = tokio::select! {
        () = stop.cancelled() => return Err(Failure::interrupted()),
        source = Source::open(&from, args.again) => source?,
    };
    let (peer, _kept) = peer::start(settings, Role::Publisher).await?;
    let options = BroadcastOptions {
        title: args.title.clone(),
        delay: args.delay,
        window: Window { time: args.window, ..Window::default() },
        ..BroadcastOptions::new(args.path.clone())
    };
    let run = async {
        let broadcast = peer.broadcast(&tracker, options, &source.first).await.map_err(failure)?;
        let media = broadcast.media().clone();
        output::result(media.url().to_string())?;
        note(if broadcast.resumed() {
            "the broadcast goes on where it stopped; Ctrl-C interrupts it, and the same command goes on with it"
        } else {
            "broadcasting; Ctrl-C interrupts it, and the same command goes on with it"
        });
        broadcast.run(source.first, source.pages).await.map_err(failure)
    };
    let outcome = tokio::select! {
        () = stop.cancelled() => Err(Failure::interrupted()),
        ended = run => match ended {
            Ok(media) => over(&peer, &media, stop).await,
            Err(e) => Err(e),
        },
    };
    peer.shutdown().await;
    outcome
}

/// A password for encoders, of letters and digits that go into a URL.
fn new_password() -> Result<String, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| Failure::failed(format!("no random password: {e}")))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// The source has ended: who listens gets the rest, then the media is taken off the tracker.
async fn over(peer: &Peer, media: &Media, stop: &CancellationToken) -> Outcome {
    note("the source has ended; those who listen get the rest");
    let mut sent = None;
    loop {
        let now = peer.stats().served.bytes;
        if sent.replace(now) == Some(now) {
            break;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(LINGER) => {}
        }
    }
    media.withdraw(false);
    Ok(())
}

pub(super) fn failure(e: BroadcastError) -> Failure {
    match e {
        BroadcastError::Open(e) => peer::opened(e),
        e => Failure::from_error(FAILED, &e),
    }
}
