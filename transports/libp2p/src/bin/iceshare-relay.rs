//! `iceshare-relay`: a relay for peers behind NATs, as a program.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use iceshare::keyring;
use iceshare_transport_libp2p::relay::{Limits, Options, Relay};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Connects IceShare peers that cannot reach each other: circuit relay v2 of libp2p, for whoever runs a tracker. Peers
/// use it with `--set libp2p.relay=ADDRESS`, the addresses that it prints.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where to listen, TCP and UDP; may be repeated
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:4238")]
    listen: Vec<SocketAddr>,
    /// An IP address by which peers reach it, if that is none of this machine's; may be repeated
    #[arg(long, value_name = "IP")]
    announce: Vec<IpAddr>,
    /// The key file; it is created if it is not there
    #[arg(long, value_name = "FILE", default_value = "iceshare-relay.key")]
    key: PathBuf,
    /// Peers that can be reached through it at once, those that only fetch but have set it among them; beyond so many, one that nobody calls just now goes for a newcomer
    #[arg(long, value_name = "N", default_value_t = Limits::default().reservations)]
    reservations: usize,
    /// Connections that it carries at once; those who call from one network have half of what is still free at most
    #[arg(long, value_name = "N", default_value_t = Limits::default().circuits)]
    circuits: usize,
    /// Of them, those of one peer
    #[arg(long, value_name = "N", default_value_t = Limits::default().circuits_per_peer)]
    circuits_per_peer: usize,
    /// MiB that it carries for one connection, both ways together
    #[arg(long, value_name = "MIB", default_value_t = Limits::default().circuit_bytes >> 20, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    circuit_mib: u64,
    /// Seconds that one connection may last
    #[arg(long, value_name = "S", default_value_t = Limits::default().circuit_time.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    circuit_time: u64,
    /// Connections from one IP address (loopback aside)
    #[arg(long, value_name = "N", default_value_t = Limits::default().per_ip)]
    per_ip: usize,
    /// More of what happens
    #[arg(short, long)]
    verbose: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("iceshare-relay: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let filter = if args.verbose { "iceshare_transport_libp2p=debug,info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let key = keyring::load_or_create(&args.key)?;
    if let Some(warning) = &key.warning {
        eprintln!("iceshare-relay: {warning}");
    }
    let relay = Relay::start(Options {
        identity: key.identity,
        listen: args.listen,
        announce: args.announce,
        limits: Limits {
            reservations: args.reservations,
            circuits: args.circuits,
            circuits_per_peer: args.circuits_per_peer,
            circuit_bytes: args.circuit_mib << 20,
            circuit_time: Duration::from_secs(args.circuit_time),
            per_ip: args.per_ip,
        },
    })
    .await?;
    // This line is stable: scripts read it.
    let mut text = String::from("iceshare-relay ready");
    relay.addresses().iter().for_each(|a| text.push_str(&format!(" {a}")));
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("cannot write to stdout")?;
    drop(out);
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stopping.cancel();
    });
    relay.run(stop).await?;
    Ok(())
}
