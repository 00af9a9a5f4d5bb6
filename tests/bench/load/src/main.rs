//! Load on a tracker. See `tests/bench/load.sh`, which runs it against `icetracker` and `opentracker` pinned to one core each.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use icet::PeerKey;

mod announce;
mod crowd;
mod measure;
mod mind;
mod peer;
mod session;

#[derive(Debug, Parser)]
struct Cli {
    /// Seed of keys and choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Sessions of a crowd with an IceT tracker.
    Crowd {
        /// Where it listens, as it says itself.
        #[arg(long)]
        tracker: SocketAddr,
        /// Its key.
        #[arg(long)]
        key: PeerKey,
        /// Its process.
        #[arg(long)]
        pid: u32,
        /// Peers that fetch.
        #[arg(long, default_value_t = 2000)]
        peers: usize,
        /// Peers that joined and do nothing.
        #[arg(long, default_value_t = 0)]
        idle: usize,
        /// Percent of them over TLS, the others over QUIC.
        #[arg(long, default_value_t = 0)]
        tls: usize,
        /// Pages of the media, 4 KiB each at the mean.
        #[arg(long, default_value_t = 16_384)]
        pages: u32,
        /// Bytes a second that each peer says it can send and receive.
        #[arg(long, default_value_t = 512 << 10)]
        rate: u64,
        /// How busy the tracker is to be, of one core (what others keep it from counts as well).
        #[arg(long, default_value_t = 0.5)]
        busy: f64,
        /// Seconds in which the pace for that is found.
        #[arg(long, default_value_t = 12)]
        settle: u64,
        /// Seconds that are measured.
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
    /// Announces to a BitTorrent tracker over UDP.
    Announce {
        /// Where it listens.
        #[arg(long)]
        tracker: SocketAddr,
        /// Its process.
        #[arg(long)]
        pid: u32,
        /// Torrents.
        #[arg(long, default_value_t = 10_000)]
        torrents: u64,
        /// Seconds before the measured ones, in which it is filled.
        #[arg(long, default_value_t = 10)]
        settle: u64,
        /// Seconds that are measured.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// The info hashes that `announce` uses, one a line.
    Hashes {
        /// Torrents.
        #[arg(long, default_value_t = 10_000)]
        torrents: u64,
    },
    /// The tracker's mind alone, in virtual time.
    Mind {
        /// Peers that fetch.
        #[arg(long, default_value_t = 2000)]
        peers: u64,
        /// Pages of the media.
        #[arg(long, default_value_t = 16_384)]
        pages: u32,
        /// Bytes a second of each peer, both ways.
        #[arg(long, default_value_t = 512 << 10)]
        rate: u64,
        /// Seconds of virtual time that are measured, after as many that are not.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{}", e.chain().map(ToString::to_string).collect::<Vec<_>>().join(": "));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    iceshare::net::raise_open_files()?;
    // One thread: the other core is the tracker's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let figures = match cli.what {
        What::Crowd { tracker, key, pid, peers, idle, tls, pages, rate, busy, settle, seconds } => {
            let (settle, seconds) = (Duration::from_secs(settle), Duration::from_secs(seconds));
            let crowd = crowd::Crowd { pid, peers, idle, tls, rate, busy, settle, seconds, seed: cli.seed };
            runtime.block_on(async {
                let endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
                let target = session::Target { addr: tracker, key, endpoint };
                crowd.run(target, pages).await
            })?
        }
        What::Announce { tracker, pid, torrents, settle, seconds } => runtime.block_on(announce::run(
            pid,
            tracker,
            torrents,
            Duration::from_secs(settle),
            Duration::from_secs(seconds),
            cli.seed,
        ))?,
        What::Hashes { torrents } => {
            let hex = |h: [u8; 20]| h.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let all: Vec<String> = (0..torrents).map(|i| hex(announce::info_hash(i))).collect();
            return Ok(std::io::Write::write_all(
                &mut std::io::stdout(),
                (all.join("\n") + "\n").as_bytes(),
            )?);
        }
        What::Mind { peers, pages, rate, seconds } => mind::run(peers, pages, rate, seconds, cli.seed),
    };
    Ok(std::io::Write::write_all(&mut std::io::stdout(), format!("{figures}\n").as_bytes())?)
}
