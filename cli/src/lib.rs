//! The `iceshare` command, as a library: a program that links other payload protocols besides is made of one call.
//!
//! ```no_run
//! // use your_transport as _;   // registers itself by being linked
//! fn main() -> std::process::ExitCode {
//!     iceshare_cli::main()
//! }
//! ```
//!
//! What is linked is what `protocols` lists, `--transport` and `--set` know, and a tracker hears of; nothing else has to
//! be told of it.

mod args;
mod commands;
mod config;
mod demo;
mod doors;
mod escape;
mod failure;
mod figures;
mod giving;
mod listen_source;
mod notices;
mod output;
mod peer;
mod progress;
mod rate;
mod recent;
mod share;
mod source;
mod titles;
mod transports;
mod tree;
mod waiting;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use args::{Cli, Command};
use clap::FromArgMatches;
use config::Settings;
use failure::{FAILED, Failure, INTERRUPTED, Outcome};
use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

/// The whole command, with the arguments of this process: what it prints, and its exit code, are in the README.
#[must_use]
pub fn main() -> ExitCode {
    let parsed = Cli::with_help().try_get_matches().and_then(|m| Cli::from_arg_matches(&m));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version too come this way, and go to standard output.
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(FAILED));
        }
    };
    logs(cli.common.verbose);
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                output::note(format!("iceshare: {text}"));
            }
            failure.exit_code()
        }
    }
}

/// Logs go to standard error: warnings, and with `-v` more. `RUST_LOG` overrules.
fn logs(verbose: u8) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        let (all, ours) = match verbose {
            0 => ("warn", "warn"),
            1 => ("warn", "info"),
            2 => ("info", "debug"),
            _ => ("debug", "trace"),
        };
        // Ours are all that begin so; protocols may come from anywhere.
        let crates = ["iceshare".to_owned(), "icetracker".to_owned()].into_iter().chain(transports::crates());
        let directives: Vec<_> = crates.map(|krate| format!("{krate}={ours}")).collect();
        // What a socket refuses (a route that is down, a packet too large) is tried otherwise, and no news to a user.
        let quiet = if verbose < 2 { "quinn_udp=error," } else { "" };
        tracing_subscriber::EnvFilter::new(format!("{all},{quiet}{}", directives.join(",")))
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(|| output::LogWriter)
        .init();
}

fn start(cli: Cli) -> Outcome {
    // Whatever the command: a program that has one name twice is not to be trusted with it.
    transports::registry()?;
    let settings = Settings::load(&cli.common)?;
    if let Err(e) = iceshare::net::raise_open_files() {
        tracing::warn!(error = %e, "cannot raise the number of open files");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed(format!("cannot start: {e}")))?;
    let outcome = runtime.block_on(async {
        let (stop, again) = (CancellationToken::new(), CancellationToken::new());
        let second = tokio::spawn(signals(stop.clone(), again.clone()));
        let mut run = std::pin::pin!(run(cli.command, &settings, &stop, &again));
        tokio::select! {
            // The first signal ends the command in its own way; the second does not wait for that.
            outcome = &mut run => outcome,
            _ = second => tokio::select! {
                outcome = &mut run => outcome,
                _ = tokio::time::timeout(ORDER, IN_ORDER.write()) => Err(Failure::with(INTERRUPTED, "stopped at once")),
            },
        }
    });
    // Blocking work (a scan) that is still under way must not keep the process.
    runtime.shutdown_background();
    outcome
}

/// Held (shared) by a command that ends in order after a second signal, too, and soon: that is waited for ...
static IN_ORDER: RwLock<()> = RwLock::const_new(());
/// ... so long at most.
const ORDER: Duration = Duration::from_secs(10);

/// One Ctrl-C may come as several signals (to the process, and to its group), all of one kind.
const SAME_SIGNAL: Duration = Duration::from_millis(300);

/// Whether SIGHUP is ignored, as `nohup` has it: then it stays so.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).is_some_and(|m| m & 1 != 0)
}

/// Cancels `stop` at the first SIGINT, SIGTERM or SIGHUP, and `again` at the second; returns then.
async fn signals(stop: CancellationToken, again: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    let mut hangup = if ignores_hangup() { None } else { signal(SignalKind::hangup()).ok() };
    let hung_up = async |hangup: &mut Option<tokio::signal::unix::Signal>| match hangup {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    };
    let mut first = None;
    loop {
        let kind = tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
            _ = hung_up(&mut hangup) => SignalKind::hangup(),
        };
        stop.cancel();
        let (before, at) = *first.get_or_insert_with(|| (kind, Instant::now()));
        if before != kind || at.elapsed() > SAME_SIGNAL {
            again.cancel();
            return;
        }
    }
}

async fn run(
    command: Command,
    settings: &Settings,
    stop: &CancellationToken,
    again: &CancellationToken,
) -> Outcome {
    match command {
        Command::Publish(args) => commands::publish(&args, settings, stop).await,
        Command::Serve(args) => commands::serve(&args, settings, stop).await,
        Command::Broadcast(args) => commands::broadcast(&args, settings, stop, again).await,
        Command::Icecast(args) => commands::icecast(&args, settings, stop).await,
        Command::Get(args) => commands::get(&args, settings, stop).await,
        Command::Play(args) => commands::play(&args, settings, stop).await,
        Command::Info(args) => listing(commands::info(&args, settings, stop).await),
        Command::Protocols(args) => listing(commands::protocols(&args, settings)),
        Command::Verify(args) => blocking(move || commands::verify(&args), stop).await,
        Command::Trust(args) => commands::trust(&args, settings),
        Command::Demo(args) => demo::demo(&args, settings, stop).await,
    }
}

/// Of what only lists something, who reads it may have read enough.
fn listing(outcome: Outcome) -> Outcome {
    outcome.or_else(|failure| if failure.is_unread() { Ok(()) } else { Err(failure) })
}

/// Runs blocking work; a signal does not wait for it.
async fn blocking(work: impl FnOnce() -> Outcome + Send + 'static, stop: &CancellationToken) -> Outcome {
    tokio::select! {
        () = stop.cancelled() => Err(Failure::interrupted()),
        done = tokio::task::spawn_blocking(work) => {
            done.unwrap_or_else(|e| Err(Failure::failed(format!("internal error: {e}"))))
        }
    }
}
