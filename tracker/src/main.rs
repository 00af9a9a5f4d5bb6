//! `icetracker`: the tracker as a program.

use std::io::Write;
use std::process::ExitCode;

use icetracker::server;
use tokio::signal::unix::{SignalKind, signal};

mod cli;

fn main() -> ExitCode {
    let options = match cli::read() {
        Ok(cli::Wanted::Run(options)) => *options,
        Ok(cli::Wanted::Replay(file)) => return replay(&file),
        Err(e) => return fail_with(2, &e),
    };
    if let Err(e) = iceshare::net::raise_open_files() {
        tracing::warn!("cannot raise the number of open files: {e}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&e),
    };
    let code = runtime.block_on(run(options));
    // A disk that hangs must not keep the program.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    code
}

/// Exit code 0: all that was compared is the same, also where the log was cut off.
fn replay(file: &std::path::Path) -> ExitCode {
    let seen = match server::replay(file) {
        Ok(seen) => seen,
        Err(e) => return fail(&e),
    };
    let end = match seen.end {
        server::LogEnd::Stopped => "the log ends with the tracker",
        server::LogEnd::Full => "the log ends at its limit",
        server::LogEnd::Cut => "the log is cut off there",
    };
    let text = format!("{} inputs, {} comparisons, all the same; {end}\n", seen.inputs, seen.checks);
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn fail(e: &dyn std::error::Error) -> ExitCode {
    fail_with(1, e)
}

/// 1: it failed; 2: the command line or the configuration is wrong.
fn fail_with(code: u8, e: &dyn std::error::Error) -> ExitCode {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let c_text = c.to_string();
        // Some errors name their cause themselves.
        if !text.contains(&c_text) {
            text = format!("{text}: {c_text}");
        }
        cause = c.source();
    }
    eprintln!("icetracker: {}", text.replace('\n', " "));
    ExitCode::from(code)
}

async fn run(options: server::Options) -> ExitCode {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (mut interrupt, mut terminate) = match signals {
        (Ok(i), Ok(t)) => (i, t),
        (Err(e), _) | (_, Err(e)) => return fail(&e),
    };
    let mut running = match server::run(options).await {
        Ok(running) => running,
        // What was named is not what it must be.
        Err(e @ server::RunError::Token { .. }) => return fail_with(2, &e),
        Err(e) => return fail(&e),
    };
    announce(&running);
    let failed = tokio::select! {
        _ = interrupt.recv() => false,
        _ = terminate.recv() => false,
        () = running.failed() => true,
    };
    if failed {
        eprintln!("icetracker: the swarm failed; please report what stands above");
    }
    tracing::info!("stopping");
    let stopped = tokio::select! {
        stopped = running.shutdown() => stopped,
        // Whoever asks twice means it.
        _ = interrupt.recv() => return ExitCode::from(130),
    };
    match stopped {
        Ok(()) if failed => ExitCode::from(1),
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("icetracker: the last changes could not be written: {why}");
            ExitCode::from(1)
        }
    }
}

/// Tells scripts where the tracker is: these lines are stable.
fn announce(running: &server::Running) {
    let mut text = String::from("icetracker ready");
    if let Some(addr) = running.icet().first() {
        text.push_str(&format!(" icet://{addr}"));
    }
    if let Some(addr) = running.web() {
        text.push_str(&format!(" web http://{addr}"));
    }
    text.push_str(&format!("\nkey {}\n", running.key()));
    let mut out = std::io::stdout().lock();
    // Whoever started it may not listen; it runs all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
