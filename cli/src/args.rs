//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use iceshare::icet::message::Intent;
use iceshare::icet::{IcetUrl, MediaPath, ProtocolName};
use iceshare::shelf::Anonymous;
use iceshare::store::{Target, Window};
use iceshare::{Media, OpenOptions};
use jiff::{ToSpan, Zoned};

use crate::failure::Failure;
use crate::rate::Rate;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 tracker unreachable, 4 no such media, \
    5 nobody had good data, 6 key or version refused, 130 interrupted";

/// Spreads Ogg media from listener to listener.
#[derive(Debug, Parser)]
#[command(name = "iceshare", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// Payload protocols to use [default: all; see `iceshare protocols`]
    #[arg(long, global = true, value_name = "NAME[,NAME]", value_delimiter = ',', value_parser = parse_name)]
    pub(crate) transport: Vec<String>,
    /// Setting of a payload protocol (see `iceshare protocols`); each once, over what the configuration says
    #[arg(long, global = true, value_name = "NAME.key=value")]
    pub(crate) set: Vec<Set>,
    /// Upload limit over all protocols together: 1MB is bytes a second, 8mbit is bits
    #[arg(long, global = true, value_name = "RATE")]
    pub(crate) up: Option<Rate>,
    /// Download limit
    #[arg(long, global = true, value_name = "RATE")]
    pub(crate) down: Option<Rate>,
    /// Folder for keys, for what is trusted and for what is fetched
    #[arg(long, global = true, value_name = "DIR", env = "ICESHARE_DATA", value_parser = perhaps())]
    pub(crate) data: Option<PathBuf>,
    /// Secret key of this peer; made if it is not there [default: DIR/key to publish, DIR/listener to fetch]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// TOML file with the same names as these options
    #[arg(long, global = true, value_name = "FILE", env = "ICESHARE_CONFIG", value_parser = perhaps())]
    pub(crate) config: Option<PathBuf>,
    /// Where to listen for other peers, UDP and TCP; port 0 means any [default: all addresses, any port]
    #[arg(long, global = true, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub(crate) listen: Vec<SocketAddr>,
    /// What requests without a ticket may have of the upload: deny, allow, or a share like 20% [default: allow]
    #[arg(long, global = true, value_name = "SHARE", value_parser = parse_anonymous)]
    pub(crate) anonymous: Option<Anonymous>,
    #[command(flatten)]
    pub(crate) give: crate::giving::Flags,
    /// Tell more; twice: everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// A path, or nothing: an empty variable is as good as none.
fn perhaps() -> impl clap::builder::TypedValueParser<Value = PathBuf> {
    use clap::builder::{OsStringValueParser, TypedValueParser};
    OsStringValueParser::new().map(PathBuf::from)
}

/// Common options that matter to a command which does not go to the network; the others are left out of its help.
const MATTER: [(&str, &[&str]); 3] = [
    ("verify", &["verbose"]),
    ("trust", &["data", "config", "verbose"]),
    ("protocols", &["transport", "set", "config", "verbose"]),
];

impl Cli {
    /// The definition, with help that tells of those options only that matter.
    pub(crate) fn with_help() -> clap::Command {
        let all = Cli::command();
        let common: Vec<clap::Arg> = all.get_arguments().filter(|a| a.is_global_set()).cloned().collect();
        MATTER.iter().fold(all, |all, (name, matter)| {
            let hidden = common.iter().filter(|a| !matter.contains(&a.get_id().as_str()));
            let hidden: Vec<_> = hidden.map(|a| a.clone().hide(true)).collect();
            all.mut_subcommand(name, |command| command.args(hidden))
        })
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish Ogg files on a tracker and share them until stopped
    Publish(Publish),
    /// Publish all Ogg files of a folder tree, and follow what changes there
    Serve(Serve),
    /// Broadcast live media: from a URL (an Icecast mount, say), a file, or a pipe
    Broadcast(Broadcast),
    /// Stand beside an Icecast server: broadcast its Ogg mounts in the swarm too, and keep its places for those who share
    Icecast(Icecast),
    /// Fetch an exact copy; an interrupted fetch is resumed
    Get(Get),
    /// Give a player a link to media that are still arriving
    Play(Play),
    /// Show what a tracker knows of a media
    Info(Info),
    /// List the payload protocols of this build, and what each can do
    Protocols(Protocols),
    /// Check Ogg files page by page
    Verify(Verify),
    /// List or forget the keys of trackers and publishers that were trusted on first use
    Trust(Trust),
    /// Show a swarm at work: tracker, origin and peers, in one process
    Demo(Demo),
}

/// `--tracker`, from the command line or the configuration.
#[derive(Debug, Clone, Args)]
pub(crate) struct TrackerArg {
    /// The tracker: icet://HOST[:PORT]
    #[arg(long, value_name = "icet://HOST:PORT", value_parser = parse_tracker)]
    pub(crate) tracker: Option<IcetUrl>,
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Ogg files; they are served from where they stand
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) tracker: TrackerArg,
    /// Media path on the tracker [default: the file's name]
    #[arg(long = "as", value_name = "PATH")]
    pub(crate) path: Option<MediaPath>,
    /// Title, for people [default: from the file's tags]
    #[arg(long)]
    pub(crate) title: Option<String>,
    /// If a file is damaged, write its clean pages to NAME.repaired.EXT beside it, and publish that
    #[arg(long)]
    pub(crate) repair: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The folder; media paths are paths below it
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) tracker: TrackerArg,
}

#[derive(Debug, Args)]
pub(crate) struct Broadcast {
    #[command(flatten)]
    pub(crate) tracker: TrackerArg,
    /// Media path on the tracker
    #[arg(long = "as", value_name = "PATH")]
    pub(crate) path: MediaPath,
    /// Where the Ogg pages come from: an http:// URL, a file (as fast as it sounds), or - for standard input (as fast as they come)
    #[arg(long, value_name = "URL|FILE|-")]
    pub(crate) from: Option<crate::source::From>,
    /// Instead: take the stream of an encoder that speaks Icecast's source protocol (ffmpeg, liquidsoap, ices2, ezstream,
    /// BUTT, Mixxx), at this address and port; any mount will do
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "from")]
    pub(crate) listen_source: Option<SocketAddr>,
    /// Password of the encoder, whose user name is source [default: a random one, which is told]
    #[arg(
        long,
        value_name = "PASSWORD",
        env = "ICESHARE_SOURCE_PASSWORD",
        hide_env_values = true,
        requires = "listen_source"
    )]
    pub(crate) source_password: Option<String>,
    /// Begin the file anew when it ends
    #[arg(long = "loop")]
    pub(crate) again: bool,
    /// Title, for people [default: from the source's tags]
    #[arg(long)]
    pub(crate) title: Option<String>,
    /// How long a page may wait for the signature that it shares with those behind it
    #[arg(long, value_name = "TIME", value_parser = parse_delay, allow_hyphen_values = true, default_value = "250ms")]
    pub(crate) delay: Duration,
    /// Cut longer pages of the source into pages of so long, packets untouched: what is passed on in small pieces is heard sooner
    #[arg(long, value_name = "TIME", value_parser = parse_page_time, allow_hyphen_values = true)]
    pub(crate) page_time: Option<Duration>,
    /// How much is kept for those who come late, or listen later; 1 GiB at most (on disk it may be 4 MiB more)
    #[arg(long, value_name = "TIME", value_parser = parse_window, allow_hyphen_values = true, default_value = "30m")]
    pub(crate) window: Duration,
    /// End with code 1 if the URL has nothing yet, instead of waiting for it
    #[arg(long, requires = "from")]
    pub(crate) no_wait: bool,
    /// Write all of it to this file, too (a new one, or that of a broadcast that goes on); when the broadcast ends, the file is shared under the same link
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Icecast {
    #[command(flatten)]
    pub(crate) tracker: TrackerArg,
    /// The server
    #[arg(long, value_name = "http://HOST[:PORT]", default_value = "http://127.0.0.1:8000")]
    pub(crate) server: iceshare_icecast::admin::Address,
    /// <admin-user> of its configuration
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub(crate) admin_user: String,
    /// <admin-password> of its configuration; better in the environment than here, where others see it
    #[arg(long, value_name = "PASSWORD", env = "ICESHARE_ICECAST_PASSWORD", hide_env_values = true)]
    pub(crate) admin_password: String,
    /// Only this mount, as in /live.ogg, whatever its source calls it; may be given several times [default: all that say they are Ogg]
    #[arg(long, value_name = "/MOUNT", value_parser = parse_mount)]
    pub(crate) mount: Vec<String>,
    /// What media paths begin with, before the mounts' names
    #[arg(long, value_name = "PATH")]
    pub(crate) prefix: Option<MediaPath>,
    /// Places for listeners at the server, on each mount or on one: who shares in the swarm keeps his, others are sent away when
    /// there are more than that. Set Icecast's own max-listeners at least 2 higher
    #[arg(long, value_name = "[/MOUNT=]N", value_parser = parse_limit)]
    pub(crate) limit: Vec<(Option<String>, usize)>,
    /// Send nobody away, only show who would be
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Where the operator sees what becomes of whom and why: a page, /report.json, /status-json.xsl (listeners of the swarm counted in), /metrics
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0", value_parser = parse_address)]
    pub(crate) web: SocketAddr,
    /// A door for everybody: http://ADDR:PORT/MOUNT sends a listener to the server if there is a place
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub(crate) door: Option<SocketAddr>,
    /// Where the door sends those for whom there is no place [default: it tells them the link]
    #[arg(long, value_name = "URL", requires = "door", value_parser = parse_web)]
    pub(crate) overflow: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Link to the media
    #[arg(value_name = "URL", value_parser = parse_media)]
    pub(crate) url: IcetUrl,
    /// Where to: a file that does not exist yet, a folder, or - for standard output [default: the last part of the media path]
    #[arg(short, long, value_name = "FILE|-")]
    pub(crate) output: Option<OsString>,
    /// Go on sharing for so long afterwards, as in 10m or 1h
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true)]
    pub(crate) share_for: Option<Duration>,
    /// Of live media: record so much of it; without it, until the broadcast ends or you stop it
    #[arg(long = "for", value_name = "TIME", value_parser = parse_some_time, allow_hyphen_values = true)]
    pub(crate) time: Option<Duration>,
    #[command(flatten)]
    pub(crate) later: Later,
    /// Figures as JSON on standard output at the end
    #[arg(long)]
    pub(crate) json: bool,
    /// How progress is shown on standard error: a bar on a terminal, or lines that a program can read
    #[arg(long, value_name = "HOW", value_enum, default_value_t = ProgressKind::Bar)]
    pub(crate) progress: ProgressKind,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressKind {
    /// A bar, if standard error is a terminal
    Bar,
    /// A line whenever pages came, at most five a second: `progress held=N pages=N bytes=N hosts=N over=NAME:PAGES,…`, of live media
    /// without held and pages
    Lines,
}

#[derive(Debug, Args)]
pub(crate) struct Play {
    /// Link to the media
    #[arg(value_name = "URL", value_parser = parse_media)]
    pub(crate) url: IcetUrl,
    /// Player to start, and end with; {} in it stands for the http:// link, else that comes last
    #[arg(long, value_name = "CMD")]
    pub(crate) player: Option<String>,
    /// Loopback address for players
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0", value_parser = parse_address)]
    pub(crate) gateway: SocketAddr,
    /// Keep what was fetched in the data folder afterwards
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) later: Later,
}

/// Where in live media one begins, and how much of it is kept.
#[derive(Debug, Args)]
pub(crate) struct Later {
    /// Of live media: begin with what was on so long ago, as in -10m, or at that time, as in 18:30, by the clock, also where the
    /// source paused or was off the air. Listeners keep 30 minutes as a rule
    #[arg(long, value_name = "-TIME|HH:MM", value_parser = parse_at, allow_hyphen_values = true)]
    pub(crate) at: Option<At>,
    /// Of live media: how much is kept, to pause in and to pass on; 1 GiB at most
    #[arg(long, value_name = "TIME", value_parser = parse_window, allow_hyphen_values = true, default_value = "30m")]
    pub(crate) window: Duration,
}

/// When something was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// So long ago.
    Ago(Duration),
    /// When a clock here last showed that.
    Clock(jiff::civil::Time),
}

impl At {
    /// How long before `now`.
    fn ago(self, now: &Zoned) -> Duration {
        let time = match self {
            At::Ago(ago) => return ago,
            At::Clock(time) => time,
        };
        let day = |back: i64| {
            let date = now.date().checked_sub(back.days()).ok()?;
            date.to_datetime(time).to_zoned(now.time_zone().clone()).ok()
        };
        let last = [0, 1].into_iter().filter_map(day).find(|at| at <= now);
        last.map_or(Duration::ZERO, |at| now.duration_since(&at).unsigned_abs())
    }
}

impl Later {
    /// The same as options.
    pub(crate) fn options(&self, intent: Intent, target: Target) -> OpenOptions {
        let window = Window { time: self.window, ..Window::default() };
        let back = self.at.map(|at| at.ago(&Zoned::now()));
        OpenOptions { back, window, ..OpenOptions::new(intent, target) }
    }

    /// Says so if it was said of what is no live media.
    pub(crate) fn fits(&self, media: &Media) -> Result<(), Failure> {
        if self.at.is_some() && !media.is_live() {
            return Err(Failure::usage("--at is for live media, and this is a file: seek in the player"));
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Link to the media
    #[arg(value_name = "URL", value_parser = parse_media)]
    pub(crate) url: IcetUrl,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Protocols {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Ogg files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Trust {
    /// Forget the key of this tracker (icet://HOST:PORT) or of the publisher of this media
    #[arg(long, value_name = "URL")]
    pub(crate) forget: Option<IcetUrl>,
    /// As JSON
    #[arg(long, conflicts_with = "forget")]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Ogg file to spread [default: a bundled sample]; it is read, never changed
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// End when every peer has everything
    #[arg(long)]
    pub(crate) once: bool,
    /// Number of peers besides the origin
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u8).range(2..=32))]
    pub(crate) peers: u8,
    /// Loopback address for players
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0", value_parser = parse_address)]
    pub(crate) gateway: SocketAddr,
}

fn parse_mount(s: &str) -> Result<String, String> {
    let odd = |c: char| c.is_control() || "?#".contains(c);
    if !s.starts_with('/') || s.len() < 2 || s.contains(odd) {
        return Err("a mount begins with a slash, as in /live.ogg".to_owned());
    }
    Ok(s.to_owned())
}

fn parse_limit(s: &str) -> Result<(Option<String>, usize), String> {
    let (mount, n) = match s.rsplit_once('=') {
        Some((mount, n)) => (Some(parse_mount(mount)?), n),
        None => (None, s),
    };
    let n = n.parse().map_err(|_| "it is a number of listeners, or /MOUNT=NUMBER".to_owned())?;
    Ok((mount, n))
}

fn parse_web(s: &str) -> Result<String, String> {
    let rest = s.strip_prefix("http://").or_else(|| s.strip_prefix("https://"));
    let good = rest.is_some_and(|r| !r.is_empty() && !r.starts_with('/'));
    if !good || s.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("it is an http:// or https:// URL".to_owned());
    }
    Ok(s.to_owned())
}

/// One `--set`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    pub(crate) protocol: String,
    pub(crate) key: String,
    pub(crate) value: String,
}

impl FromStr for Set {
    type Err = String;
    fn from_str(s: &str) -> Result<Set, String> {
        // Names of protocols may have dots, keys of settings have none.
        let parts = s.split_once('=').and_then(|(name, value)| Some((name.rsplit_once('.')?, value)));
        match parts {
            Some(((protocol, key), value)) if !key.is_empty() => {
                protocol.parse::<ProtocolName>().map_err(|e| e.to_string())?;
                Ok(Set { protocol: protocol.into(), key: key.into(), value: value.into() })
            }
            _ => Err("a setting is NAME.key=value, as `iceshare protocols` lists them".into()),
        }
    }
}

/// A name in a list, which may have blanks around it.
fn parse_name(s: &str) -> Result<String, String> {
    match s.trim() {
        "" => Err("a name is missing: NAME or NAME,NAME, as `iceshare protocols` lists them".into()),
        name => Ok(name.into()),
    }
}

/// A time as people write it.
fn parse_time(s: &str) -> Result<Duration, String> {
    if s.strip_prefix('-').is_some_and(|s| s.starts_with(|c: char| c.is_ascii_digit())) {
        return Err("a time is not negative here: a number and a unit, as in 90s or 10m".to_owned());
    }
    humantime::parse_duration(s)
        .map_err(|_| "a time is a number and a unit, as in 90s, 10m or 1h 30m (units: s, m, h, d)".to_owned())
}

/// Some time: not none at all.
fn parse_some_time(s: &str) -> Result<Duration, String> {
    match parse_time(s)? {
        Duration::ZERO => {
            Err("of no time at all nothing would be recorded: 10s, say, or leave it out".to_owned())
        }
        time => Ok(time),
    }
}

/// When something was on: how long ago, or at what time of the day.
fn parse_at(s: &str) -> Result<At, String> {
    if let Some(ago) = s.strip_prefix('-') {
        return parse_time(ago).map(At::Ago);
    }
    s.parse().map(At::Clock).map_err(|_| {
        "it is a time ago, as in -90s, -10m or -1h30m, or a time of the last day, as in 18:30 or 18:30:15"
            .to_owned()
    })
}

/// A window of live media.
fn parse_window(s: &str) -> Result<Duration, String> {
    // `0` lacks a unit, and means the same.
    let window = if s.trim() == "0" { Duration::ZERO } else { parse_time(s)? };
    if window < Duration::from_secs(5) {
        return Err(
            "who listens begins some seconds back, and a connection may pause: 5s at least".to_owned()
        );
    }
    Ok(window)
}

/// A time from nothing to ten seconds.
fn parse_delay(s: &str) -> Result<Duration, String> {
    let delay = parse_time(s)?;
    if delay > Duration::from_secs(10) {
        return Err("listeners would hear everything that much later: 10s at most".to_owned());
    }
    Ok(delay)
}

fn parse_page_time(s: &str) -> Result<Duration, String> {
    let time = parse_time(s)?;
    if time < Duration::from_millis(20) {
        return Err(
            "each page costs some 80 bytes besides its packets: 20ms at least, 200ms is usual".to_owned()
        );
    }
    Ok(time)
}

/// A link to a tracker, without a path.
pub(crate) fn parse_tracker(s: &str) -> Result<IcetUrl, String> {
    if s.contains(',') {
        return Err(
            "it is one tracker, not a list: to publish on several, run one command for each, with a --data \
                    folder of its own"
                .into(),
        );
    }
    let url: IcetUrl = s.parse().map_err(|e: iceshare::icet::url::UrlError| e.to_string())?;
    if url.path.is_some() {
        return Err("a tracker's link has no path: icet://HOST[:PORT] (the media path goes to --as)".into());
    }
    Ok(url)
}

/// A link to a media.
fn parse_media(s: &str) -> Result<IcetUrl, String> {
    let url: IcetUrl = s.parse().map_err(|e: iceshare::icet::url::UrlError| e.to_string())?;
    if url.path.is_none() {
        return Err("the link names a tracker, but no media on it: icet://HOST[:PORT]/PATH".into());
    }
    Ok(url)
}

/// An address with its port.
pub(crate) fn parse_address(s: &str) -> Result<SocketAddr, String> {
    s.parse().map_err(|_| {
        "it is an IP address and a port, as in 127.0.0.1:4238, [::1]:4238 or 0.0.0.0:0".to_owned()
    })
}

/// `deny`, `allow` or `20%`.
pub(crate) fn parse_anonymous(s: &str) -> Result<Anonymous, String> {
    match s {
        "deny" => Ok(Anonymous::Deny),
        "allow" => Ok(Anonymous::Allow),
        _ => {
            let percent =
                s.strip_suffix('%').and_then(|p| p.parse().ok()).filter(|p| (0.0..=100.0).contains(p));
            percent.map(|p: f64| Anonymous::Share(p / 100.0)).ok_or_else(|| {
                "it is deny, allow, or a share of the upload from 0% to 100%, as in 20%".into()
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_of_what_was_on() {
        let now: Zoned = "2026-05-01T18:30:15+02:00[Europe/Berlin]".parse().expect("a time");
        let ago = |s: &str| parse_at(s).map(|at| at.ago(&now).as_secs());
        assert_eq!(ago("-10m"), Ok(600));
        assert_eq!(ago("-1h 30s"), Ok(3630));
        assert_eq!((ago("18:30"), ago("17:30:05")), (Ok(15), Ok(3610)));
        assert_eq!(ago("18:31"), Ok(24 * 3600 - 45), "that was yesterday");
        assert!(ago("10m").is_err() && ago("-10").is_err() && ago("25:00").is_err() && ago("").is_err());
    }

    #[test]
    fn settings_of_protocols() {
        let set = |p: &str, k: &str, v: &str| Ok(Set { protocol: p.into(), key: k.into(), value: v.into() });
        assert_eq!("http.key=value".parse(), set("http", "key", "value"));
        assert_eq!("http.key=a=b.c".parse(), set("http", "key", "a=b.c"));
        assert_eq!("my.own.key=".parse(), set("my.own", "key", ""));
        for bad in ["http", "http.key", "key=value", ".key=value", "http.=value", "HTTP.key=value", "=", ""] {
            assert!(bad.parse::<Set>().is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_of_names_may_have_blanks() {
        let cli = |list| Cli::try_parse_from(["iceshare", "protocols", "--transport", list]);
        let names = cli("http, quic").map(|c| c.common.transport).map_err(|e| e.to_string());
        assert_eq!(names, Ok(vec!["http".to_owned(), "quic".to_owned()]));
        for bad in ["", "http,", " , quic"] {
            assert!(cli(bad).is_err_and(|e| e.to_string().contains("a name is missing")), "{bad:?}");
        }
    }

    #[test]
    fn shares_of_anonymous_requests() {
        assert_eq!(parse_anonymous("deny"), Ok(Anonymous::Deny));
        assert_eq!(parse_anonymous("allow"), Ok(Anonymous::Allow));
        assert_eq!(parse_anonymous("25%"), Ok(Anonymous::Share(0.25)));
        for bad in ["", "25", "101%", "-1%", "NaN%", "%", "yes"] {
            assert!(parse_anonymous(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_time("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "soon", "10", "5 parsecs", "-1s"] {
            assert!(parse_time(bad).is_err_and(|e| e.contains("10m")), "{bad}");
        }
    }

    #[test]
    fn help_tells_of_options_that_matter() {
        let help = |command: &str| {
            let shown = Cli::with_help().try_get_matches_from(["iceshare", command, "--help"]);
            shown.expect_err("help").to_string()
        };
        for hidden in
            ["--up", "--listen", "--data", "--config", "--anonymous", "--set", "--key", "--transport"]
        {
            assert!(!help("verify").contains(hidden), "{hidden}");
            assert!(help("get").contains(hidden), "{hidden}");
        }
        assert!(help("verify").contains("--verbose") && help("trust").contains("--data"));
        assert!(help("protocols").contains("--set") && !help("protocols").contains("--listen"));
        // They are taken all the same: one configuration goes for all commands.
        let matches =
            Cli::with_help().try_get_matches_from(["iceshare", "--up", "1MB", "verify", "--data", "d", "f"]);
        let cli = Cli::from_arg_matches(&matches.expect("a good line")).expect("a good line");
        assert_eq!((cli.common.up, cli.common.data), (Some(Rate(1_000_000)), Some("d".into())));
    }

    #[test]
    fn flags_of_all_commands_go_before_and_after() {
        for line in ["iceshare --up 1MB get icet://h/a", "iceshare get icet://h/a --up 1MB"] {
            let cli = Cli::try_parse_from(line.split(' ')).expect("a good line");
            assert_eq!(cli.common.up, Some(Rate(1_000_000)));
        }
        for line in
            ["get icet://h", "publish f --tracker icet://h/a", "get http://h/a", "get icet://h/a --up 1mb"]
        {
            let e = Cli::try_parse_from(format!("iceshare {line}").split(' ')).expect_err(line);
            assert_eq!(e.exit_code(), 2);
        }
    }
}
