//! The command line and the configuration file.

use std::io::IsTerminal;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand};
use icet::PeerKey;
use icetracker::config::{self, Keys};
use icetracker::server::{Options, RecordOptions, RunError, check_token};
use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// Tells IceShare peers which pages to fetch, from whom, over what.
///
/// When it is ready it prints `icetracker ready icet://ADDR:PORT web http://ADDR:PORT` (the last two words only with
/// --web), then `key KEY`. It runs until it is interrupted or terminated.
#[derive(Debug, Parser)]
#[command(name = "icetracker", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Address for IceT: QUIC on UDP and TLS on TCP at the same port. May be given several times. Port 0 means any
    /// free one [default: 0.0.0.0:4237 and, if the machine has IPv6, [::]:4237]
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    listen: Vec<SocketAddr>,
    /// Address for the web page, the JSON API and /metrics, readable by everyone who reaches it. Port 0 means any
    /// free one [default: no web]
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    web: Option<SocketAddr>,
    /// File with a token that opens the operator's part of the web: ban keys, withdraw media, say who may publish, set
    /// limits [default: no such part]
    #[arg(long, value_name = "FILE")]
    web_token: Option<PathBuf>,
    /// Let only this key publish. May be given several times [default: who may publish is what the operator's part said last,
    /// at first everyone]
    #[arg(long, value_name = "KEY")]
    publisher: Vec<PeerKey>,
    /// Folder of the tracker's key and catalogue; made if it is not there [default: $XDG_DATA_HOME/iceshare-tracker,
    /// or ~/.local/share/iceshare-tracker]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Keep why recent assignments were made, for /api/media/PATH/why: up to 100 MB
    #[arg(long)]
    explain: bool,
    /// A broadcast whose broadcaster is gone for so many seconds, and of which nobody gets a page any more, is off the air: those who
    /// listen are told, and it is listed no more [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = off_air)]
    off_air: Option<Duration>,
    /// Log all that the swarm is told into FILE, which must not be there yet, for `icetracker replay`. It holds peers'
    /// keys and addresses and what they fetched, but no secret
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// The log ends when it has this many bytes
    #[arg(long, value_name = "BYTES", default_value_t = RECORD)]
    record_limit: u64,
    /// TOML file with any of `listen` (one address, or a list), `web`, `web_token`, `publishers` (one key, or a list), `data`,
    /// `explain` and `off_air`; options given here win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log more to stderr; twice for details of sessions. The variable RUST_LOG chooses finer
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

/// What it does instead of running a tracker.
#[derive(Debug, Subcommand)]
enum Command {
    /// Give a fresh swarm what a log of --record holds, and compare what comes out bit by bit
    Replay {
        /// The log
        file: PathBuf,
    },
}

/// What the user wants.
pub(crate) enum Wanted {
    /// To run a tracker.
    Run(Box<Options>),
    /// To replay a log.
    Replay(PathBuf),
}

/// Bytes of a log, if the user does not say.
const RECORD: u64 = 1 << 30;

/// The names of the options.
const KEYS: [&str; 7] = ["listen", "web", "web_token", "publishers", "data", "explain", "off_air"];
/// Seconds of `--off-air`.
const OFF_AIR: RangeInclusive<u64> = 5..=86_400;

/// Why the options make no sense.
#[derive(Debug, Error)]
pub(crate) enum OptionsError {
    #[error("cannot read the configuration {}", .0.display())]
    Unreadable(PathBuf, #[source] std::io::Error),
    #[error("{}: {why}", .file.display())]
    Config { file: PathBuf, why: String },
    #[error("no home folder to keep data in: choose a folder with --data")]
    NoHome,
}

/// What the user asked for. Ends the program itself for `--help` and (with code 2) for what is no option.
pub(crate) fn read() -> Result<Wanted, OptionsError> {
    let cli = Cli::parse();
    let level = match cli.verbose {
        // What a socket refuses (a route that is down) is tried otherwise, and no news to an operator.
        0 => "warn,quinn_udp=error",
        1 => "icetracker=info,iceshare=info,warn,quinn_udp=error",
        2 => "icetracker=debug,iceshare=debug,info",
        _ => "icetracker=trace,iceshare=trace,debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    match cli.command {
        Some(Command::Replay { file }) => Ok(Wanted::Replay(file)),
        None => merge(cli).map(|o| Wanted::Run(Box::new(o))),
    }
}

fn merge(cli: Cli) -> Result<Options, OptionsError> {
    let of_flag = cli.web_token.is_some();
    let config = match &cli.config {
        Some(file) => config(file)?,
        None => Options::new(PathBuf::new()),
    };
    // Told here, with the configuration's name, and not when the web is to begin.
    if let (Some(file), Some(token), false) = (&cli.config, &config.web_token, of_flag) {
        let told = |e: RunError| OptionsError::Config { file: file.clone(), why: format!("web_token: {e}") };
        check_token(token).map_err(told)?;
    }
    let given = |p: PathBuf| Some(p).filter(|p| !p.as_os_str().is_empty());
    let data = cli.data.or_else(|| given(config.data.clone())).map_or_else(default_data, Ok)?;
    Ok(Options {
        listen: if cli.listen.is_empty() { config.listen } else { cli.listen },
        web: cli.web.or(config.web),
        web_token: cli.web_token.or(config.web_token),
        publishers: Some(cli.publisher).filter(|p| !p.is_empty()).or(config.publishers),
        data,
        quotas: config.quotas,
        explain: cli.explain || config.explain,
        off_air: cli.off_air.unwrap_or(config.off_air),
        record: cli.record.map(|file| RecordOptions { file, limit: cli.record_limit }),
    })
}

/// The options of a configuration file; an empty `data` if it names none.
fn config(file: &Path) -> Result<Options, OptionsError> {
    let text = config::read(file).map_err(|e| OptionsError::Unreadable(file.to_owned(), e))?;
    parse(&text, file.parent().unwrap_or(Path::new("")))
        .map_err(|why| OptionsError::Config { file: file.to_owned(), why })
}

/// Paths in the file are relative to its folder, wherever the program is started.
fn parse(text: &str, folder: &Path) -> Result<Options, String> {
    let at = |name: &str, s: &str| address(s).map_err(|why| format!("{name} = {s:?}: {why}"));
    let mut keys = Keys::of(text, &KEYS)?;
    let mut options = Options::new(PathBuf::new());
    let listen = keys.list("listen")?;
    if listen.as_ref().is_some_and(Vec::is_empty) {
        return Err(
            "listen = []: name at least one address, or leave the line out (all addresses, port 4237)"
                .to_owned(),
        );
    }
    let listen = listen.unwrap_or_default();
    options.listen = listen.iter().map(|s| at("listen", s)).collect::<Result<_, _>>()?;
    options.web = keys.text("web")?.map(|s| at("web", &s)).transpose()?;
    options.explain = keys.truth("explain")?;
    if let Some(given) = keys.amount("off_air")? {
        options.off_air = off_air(&given).map_err(|why| format!("off_air = {given}: {why}"))?;
    }
    let key = |k: &String| -> Result<PeerKey, String> {
        k.parse().map_err(|_| format!("publishers: {k:?} is no key of 64 hexadecimal digits"))
    };
    options.publishers =
        keys.list("publishers")?.map(|all| all.iter().map(key).collect::<Result<_, _>>()).transpose()?;
    options.web_token = keys.text("web_token")?.map(|f| folder.join(f));
    options.data = keys.text("data")?.map(|d| folder.join(d)).unwrap_or_default();
    Ok(options)
}

/// Seconds, with or without the unit.
fn off_air(s: &str) -> Result<Duration, String> {
    let seconds = s.strip_suffix('s').unwrap_or(s).trim_end().parse().ok().filter(|s| OFF_AIR.contains(s));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| format!("it takes seconds from {} to {}, as in 60", OFF_AIR.start(), OFF_AIR.end()))
}

/// `ADDR:PORT`, where ADDR may be a name of this machine.
fn address(s: &str) -> Result<SocketAddr, String> {
    if let Ok(addr) = s.parse() {
        return Ok(addr);
    }
    if !s.contains(':') {
        return Err(format!("an address has a port, as in {s}:4237 or 0.0.0.0:0"));
    }
    let found =
        s.to_socket_addrs().map_err(|e| format!("no address and port ({e}), as 127.0.0.1:4237 is"))?;
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.into_iter().next().ok_or_else(|| "the name has no address".to_owned())
}

fn default_data() -> Result<PathBuf, OptionsError> {
    // A relative path there is to be ignored (XDG Base Directory Specification).
    let xdg = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let base = xdg.or_else(|| std::env::home_dir().map(|h| h.join(".local/share")));
    base.filter(|b| b.is_absolute()).map(|b| b.join("iceshare-tracker")).ok_or(OptionsError::NoHome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Result<Options, String> {
        let cli = Cli::try_parse_from([&["icetracker"], args].concat()).map_err(|e| e.to_string())?;
        merge(cli).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.toml");
        std::fs::write(
            &file,
            "listen = [\"127.0.0.1:1\", \"[::1]:2\"]\nweb = \"127.0.0.1:3\"\ndata = \"d\"\n",
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let o = options(&["--config", file]).unwrap();
        assert_eq!(o.listen, ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
        assert_eq!((o.web, o.data), (Some("127.0.0.1:3".parse().unwrap()), dir.path().join("d")));
        // One address needs no list.
        let one = dir.path().join("one.toml");
        std::fs::write(&one, "listen = \"127.0.0.1:7\"\noff_air = 9\n").unwrap();
        let o = options(&["--config", one.to_str().unwrap(), "--data", "/x"]).unwrap();
        assert_eq!((o.listen, o.off_air), (vec!["127.0.0.1:7".parse().unwrap()], Duration::from_secs(9)));
        let o = options(&["--config", file, "--listen", "127.0.0.1:9", "--data", "/x"]).unwrap();
        assert_eq!((o.listen, o.data), (vec!["127.0.0.1:9".parse().unwrap()], PathBuf::from("/x")));
    }

    #[test]
    fn a_bad_file_is_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.toml");
        for (text, why) in [
            (
                "web = \"127.0.0.1:3\"\nlisen = []\n",
                "t.toml: \"lisen\" is none of its keys, which are listen, web,",
            ),
            ("explain = true\nweb = [", "t.toml: line 2, \"web = [\": "),
            ("web = 5", "t.toml: web = 5: it takes a text"),
            ("listen = 3", "listen = 3: it takes a text or a list of texts"),
            ("listen = []", "listen = []: name at least one address"),
            ("listen = [3]", "listen = [3]: it takes a text or a list of texts"),
            ("explain = \"yes\"", "explain = \"yes\": it takes true or false"),
            ("off_air = 1", "off_air = 1: it takes seconds from 5 to 86400"),
            ("off_air = \"soon\"", "off_air = soon: it takes seconds from 5 to 86400"),
            ("web_token = \"short\"", "t.toml: web_token: no token for the operator in "),
            ("publishers = \"me\"", "publishers: \"me\" is no key of 64 hexadecimal digits"),
            ("web = \"127.0.0.1\"", "web = \"127.0.0.1\": an address has a port"),
            ("listen = [\"127.0.0.1:99999\"]", "listen = \"127.0.0.1:99999\": no address and port"),
        ] {
            std::fs::write(&file, text).unwrap();
            let e = options(&["--data", "/x", "--config", file.to_str().unwrap()]).unwrap_err();
            assert!(e.contains(why), "{e}");
            assert!(!e.contains('\n'), "{e}");
        }
        let e = options(&["--config", "/nonexistent/t.toml"]).unwrap_err();
        assert!(e.contains("cannot read the configuration /nonexistent/t.toml"), "{e}");
    }

    #[test]
    fn off_air_takes_seconds_and_says_so() {
        let after = |s| options(&["--data", "/x", "--off-air", s]).map(|o| o.off_air.as_secs());
        assert_eq!((after("20"), after("20s")), (Ok(20), Ok(20)));
        for bad in ["4", "1m", "", "soon", "86401"] {
            assert!(after(bad).is_err_and(|e| e.contains("it takes seconds from 5 to 86400")), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert!(options(&["--data", "/x", "--listen", "127.0.0.1"]).unwrap_err().contains("has a port"));
        assert!(options(&["--data", "/x", "--web", "nonsense:port"]).is_err());
        let o = options(&["--data", "/x", "--web", "localhost:0"]).unwrap();
        assert!(o.web.unwrap().ip().is_loopback());
    }
}
