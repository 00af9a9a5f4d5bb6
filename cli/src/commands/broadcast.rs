//! `iceshare broadcast`: live media from a file, a pipe or a URL.

use std::time::{Duration, Instant};

use iceshare::icet::IcetUrl;
use iceshare::live::NowOn;
use iceshare::store::Window;
use iceshare::{BroadcastError, BroadcastOptions, Media, Peer};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::keep::{Keep, Pace};
use crate::args;
use crate::config::Settings;
use crate::doors;
use crate::failure::{FAILED, Failure, INTERRUPTED, Outcome};
use crate::listen_source::Door;
use crate::output::{self, note};
use crate::peer::{self, Kept, Role};
use crate::source::{From, How, Pages, Source};
use crate::titles::named;

/// When a source has ended, those who listen may fetch the rest for as long as something is sent in so long, and somebody listens.
const LINGER: Duration = Duration::from_secs(5);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long its answer is waited for: it may be far.
const ANSWER: Duration = Duration::from_secs(2);
/// What is told when a broadcast begins anew.
pub(super) const ANEW: &str = "another program with this key was on the air under this link meanwhile; from now on a new broadcast of ours \
                               is, which has nothing of what was on before";

pub(crate) async fn broadcast(
    args: &args::Broadcast,
    settings: &Settings,
    stop: &CancellationToken,
    again: &CancellationToken,
) -> Outcome {
    let tracker = peer::tracker(&args.tracker.tracker, settings)?;
    let from = match (&args.from, args.listen_source) {
        (Some(from), _) => from.clone(),
        (None, Some(listen)) => {
            let password = args.source_password.clone().map_or_else(new_password, Ok)?;
            From::Listen(Door { listen, password, told: args.source_password.is_none() })
        }
        (None, None) => {
            return Err(Failure::usage(
                "where do the pages come from? --from URL, FILE or - (standard input); or --listen-source ADDR:PORT, \
                 to which an encoder streams as to an Icecast server",
            ));
        }
    };
    if args.again && !matches!(from, From::File(_)) {
        return Err(Failure::usage("--loop is for a file"));
    }
    crate::transports::for_live(settings)?;
    let how = How { again: args.again, waits: !args.no_wait, page_time: args.page_time, named: None };
    let (peer, kept) = peer::start(settings, Role::Publisher).await?;
    // Encoders may come much later than who wants to know the link.
    let told = matches!(from, From::Listen(_));
    if told {
        let key = Some(peer.key());
        output::result(IcetUrl { path: Some(args.path.clone()), key, ..tracker.clone() }.to_string())?;
        note("this link can be heard once an encoder streams to us");
    }
    // A source that is none is found before anything is announced.
    let source = tokio::select! {
        () = stop.cancelled() => Err(Failure::interrupted()),
        source = Source::open(&from, how) => source,
    };
    let begun = source.and_then(|source| Ok((source, args.keep.as_deref().map(Keep::new).transpose()?)));
    let mut keep = None;
    let outcome = match begun {
        Ok((source, to)) => {
            keep = to;
            let signals = (stop, again);
            let outcome = on_air(args, signals, (&peer, &kept), (tracker, told), source, &mut keep).await;
            keep.iter().for_each(Keep::drop_if_empty);
            outcome
        }
        Err(e) => Err(e),
    };
    peer.shutdown().await;
    drop(keep);
    outcome
}

/// `told`: its link was told already.
async fn on_air(
    args: &args::Broadcast,
    (stop, again): (&CancellationToken, &CancellationToken),
    (peer, kept): (&Peer, &Kept),
    (tracker, told): (IcetUrl, bool),
    source: Source,
    keep: &mut Option<Keep>,
) -> Outcome {
    let options = BroadcastOptions {
        title: args.title.clone(),
        delay: args.delay,
        window: Window { time: args.window, ..Window::default() },
        ..BroadcastOptions::new(args.path.clone())
    };
    let window = options.window;
    let keeps = keep.is_some();
    let mut signals = Signals::new();
    // Once it is cancelled, no more pages are taken, as if the source had ended.
    let enough = CancellationToken::new();
    let run = async {
        let broadcast = peer.broadcast(&tracker, options, &source.first).await.map_err(failure)?;
        let media = broadcast.media().clone();
        if let Some(keep) = keep.as_mut() {
            if let Err(why) = keep.goes_on(&media).await {
                // Nothing of it was heard yet.
                if !broadcast.resumed() {
                    media.withdraw(false);
                }
                return Err(why);
            }
            if broadcast.resumed() {
                keep.begins_now(&media);
            }
        }
        if !told {
            output::result(media.url().to_string())?;
        }
        let begins =
            if broadcast.resumed() { "the broadcast goes on where it stopped" } else { "broadcasting" };
        note(format!(
            "{begins}; Ctrl-C ends it, SIGTERM only interrupts it: then the same command goes on with it"
        ));
        let pace = keep.as_ref().map(|keep| keep.pace(&media, window));
        let writing = async {
            match keep.as_mut() {
                Some(keep) => keep.all(&media).await,
                None => std::future::pending().await,
            }
        };
        let mut now = NowOn::default();
        for (header, bytes) in &source.first {
            now.page(header, bytes);
        }
        let run = broadcast.run(source.first, until(source.pages, now, pace, enough.clone()), |_| note(ANEW));
        tokio::pin!(run, writing);
        let written = tokio::select! {
            ended = &mut run => {
                let media = ended.map_err(failure)?;
                return Ok((media, if keeps { writing.await } else { Ok(()) }));
            }
            written = &mut writing => written,
        };
        // Listeners are not to miss anything because of a disk that is full.
        if let Err(why) = &written {
            note(format!("iceshare: {}; the broadcast goes on without", why.text().unwrap_or_default()));
        }
        run.await.map_err(failure).map(|media| (media, written))
    };
    let asked = async {
        stop.cancelled().await;
        if !signals.ends().await {
            return;
        }
        enough.cancel();
        std::future::pending().await
    };
    tokio::select! {
        () = asked => Err(Failure::interrupted()),
        never = doors::watch(peer) => match never {},
        ended = run => match ended {
            Ok((media, written)) => {
                // Who asked for the end asks once more to leave at once.
                let (why, stop) =
                    if enough.is_cancelled() { ("the broadcast ends", again) } else { ("the source has ended", stop) };
                let Some(keep) = keep.as_ref().filter(|_| written.is_ok()) else {
                    over(peer, &media, &format!("{why}; those who listen get the rest"), stop).await;
                    media.withdraw(false);
                    return written;
                };
                let why = format!(
                    "{why}; {}; those who listen get the rest, then the file takes its place under its link",
                    keep.what()
                );
                let identity = &kept.claim.key.identity;
                let both = async {
                    let prepared = keep.prepare(peer, identity, &args.path, args.title.as_ref());
                    tokio::join!(over(peer, &media, &why, stop), prepared)
                };
                tokio::select! {
                    _ = both => {}
                    () = stop.cancelled() => {}
                }
                media.withdraw(false);
                if stop.is_cancelled() {
                    let left = format!("stopped at once: {}, which is not shared", keep.what());
                    return Err(Failure::with(INTERRUPTED, left));
                }
                keep.share(peer, identity, tracker, (args.path.clone(), args.title.clone()), stop).await
            }
            Err(e) => Err(e),
        },
    }
}

/// A password for encoders, of letters and digits that go into a URL.
fn new_password() -> Result<String, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| Failure::failed(format!("no random password: {e}")))?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Tells an interrupt from the keyboard, which ends the broadcast, from the signals of those who run programs: a service that is started
/// again goes on with it.
struct Signals(Option<tokio::signal::unix::Signal>);

impl Signals {
    fn new() -> Signals {
        // Where it cannot be had, a signal only interrupts.
        Signals(signal(SignalKind::interrupt()).ok())
    }

    /// Whether the signal that came was an interrupt.
    async fn ends(&mut self) -> bool {
        let Some(interrupts) = &mut self.0 else { return false };
        tokio::select! {
            biased;
            _ = interrupts.recv() => true,
            () = std::future::ready(()) => false,
        }
    }
}

/// The pages of a source, until `enough`, no faster than they are kept; says when it changes its codecs.
fn until(mut pages: Pages, mut now: NowOn, mut pace: Option<Pace>, enough: CancellationToken) -> Pages {
    let (out, taken) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let next = async {
                if let Some(pace) = &mut pace {
                    pace.wait().await;
                }
                pages.recv().await
            };
            let page = tokio::select! {
                () = enough.cancelled() => None,
                page = next => page,
            };
            let Some(page) = page else { break };
            now.page(&page.0, &page.1);
            if let Some(before) = now.changed_from() {
                let (before, now) = (named(&before), named(now.codecs()));
                note(format!(
                    "the source sends {now} now, {before} before: players that cannot go on with that begin again"
                ));
            }
            if out.send(page).await.is_err() {
                break;
            }
        }
    });
    taken
}

/// Nothing comes any more: waits until who listens has the rest.
async fn over(peer: &Peer, media: &Media, why: &str, stop: &CancellationToken) {
    note(why);
    let url = media.url();
    let mut sent = (peer.stats().served.bytes, Instant::now());
    loop {
        let nobody = async {
            let info = tokio::time::timeout(ANSWER, peer.info(&url)).await;
            matches!(info, Ok(Ok(info)) if info.answer.listeners == 0)
        };
        tokio::select! {
            () = stop.cancelled() => break,
            nobody = nobody => if nobody { break },
        }
        let now = peer.stats().served.bytes;
        if sent.0 != now {
            sent = (now, Instant::now());
        } else if sent.1.elapsed() >= LINGER {
            break;
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

pub(super) fn failure(e: BroadcastError) -> Failure {
    match e {
        BroadcastError::Open(e) => peer::opened(e),
        e => Failure::from_error(FAILED, &e),
    }
}
