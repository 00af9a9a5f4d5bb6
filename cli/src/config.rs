//! The configuration file, and how it and the command line make the settings of a run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use iceshare::icet::IcetUrl;
use iceshare::protocol::{RegistryError, SettingError};
use iceshare::shelf::Anonymous;
use icetracker::config::{self, Keys};

use crate::args::{Common, parse_anonymous, parse_tracker};
use crate::failure::Failure;
use crate::giving::{self, OfMedia, Rules};
use crate::rate::Rate;

/// The names of the options.
const KEYS: [&str; 17] = [
    "transport",
    "set",
    "up",
    "down",
    "data",
    "key",
    "listen",
    "anonymous",
    "tracker",
    "give-hours",
    "give-lan",
    "give-once",
    "give-metered",
    "metered",
    "give-day",
    "give-month",
    "give-media",
];

/// One of a few words, as behind the flag.
fn word<T: clap::ValueEnum>(s: &str) -> Result<T, String> {
    T::from_str(s, false).map_err(|_| {
        let all = T::value_variants().iter().filter_map(T::to_possible_value);
        let all: Vec<_> = all.map(|v| v.get_name().to_owned()).collect();
        format!("it is one of {}", all.join(", "))
    })
}

/// What of the settings of payload protocols stands in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfFile {
    path: PathBuf,
    /// Whether it chooses them.
    transport: bool,
    /// (protocol, key).
    set: Vec<(String, String)>,
}

impl OfFile {
    fn brought(&self, e: &RegistryError) -> bool {
        match e {
            RegistryError::Setting(
                SettingError::Unknown { protocol, key, .. } | SettingError::Value { protocol, key, .. },
            ) => self.set.iter().any(|(p, k)| p == protocol && k == key),
            RegistryError::Unknown { names, .. } => {
                self.transport || self.set.iter().any(|(p, _)| names.contains(p))
            }
            RegistryError::Repeated(_) => self.transport,
            _ => false,
        }
    }
}

/// What a run goes by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    of_file: Option<OfFile>,
    /// Names of payload protocols; empty: all.
    pub(crate) transport: Vec<String>,
    /// (protocol, key, value); each key once.
    pub(crate) set: Vec<(String, String, String)>,
    pub(crate) up: Option<Rate>,
    pub(crate) down: Option<Rate>,
    pub(crate) data: PathBuf,
    /// The key file that was named, if one was.
    pub(crate) key: Option<PathBuf>,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) anonymous: Anonymous,
    pub(crate) tracker: Option<IcetUrl>,
    pub(crate) give: Rules,
}

impl Settings {
    /// Why payload protocols refuse these settings; with the file's name, if it is that which names them.
    pub(crate) fn refused(&self, e: &RegistryError) -> Failure {
        let text = crate::failure::whole(e);
        match self.of_file.as_ref().filter(|file| file.brought(e)) {
            Some(file) => Failure::usage(format!("{}: {text}", file.path.display())),
            None => Failure::usage(text),
        }
    }

    /// What was set on the command line for payload protocols that this run does not use.
    pub(crate) fn in_vain(&self) -> Vec<String> {
        let of_file = |p: &String, k: &String| {
            self.of_file.as_ref().is_some_and(|file| file.set.iter().any(|(fp, fk)| (fp, fk) == (p, k)))
        };
        let unused = |p: &String| !self.transport.is_empty() && !self.transport.contains(p);
        let vain = self.set.iter().filter(|(p, k, _)| unused(p) && !of_file(p, k));
        let used = self.transport.join(",");
        vain.map(|(p, k, _)| format!("--set {p}.{k} changes nothing: {p} is not in use (--transport {used})"))
            .collect()
    }

    /// Reads the configuration file, if one is named, and lays the flags over it.
    pub(crate) fn load(flags: &Common) -> Result<Settings, Failure> {
        // A variable that is set to nothing names no file, and no folder either.
        let given = |path: &Option<PathBuf>| path.clone().filter(|p| !p.as_os_str().is_empty());
        let path = given(&flags.config);
        let file = match &path {
            Some(path) => {
                let text = config::read(path).map_err(|e| {
                    Failure::usage(format!("cannot read the configuration {}: {e}", path.display()))
                })?;
                parse(&text, path.parent().unwrap_or(Path::new("")))
                    .map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?
            }
            None => Given::default(),
        };
        let data = match given(&flags.data).or(file.data) {
            Some(data) => data,
            None => default_data()?,
        };
        let mut set = file.set;
        for (i, s) in flags.set.iter().enumerate() {
            if flags.set.iter().take(i).any(|t| (&t.protocol, &t.key) == (&s.protocol, &s.key)) {
                return Err(Failure::usage(format!(
                    "--set {}.{} is given twice: say it once",
                    s.protocol, s.key
                )));
            }
            // What is said on the command line goes over the file.
            set.retain(|(p, k, _)| (p, k) != (&s.protocol, &s.key));
            set.push((s.protocol.clone(), s.key.clone(), s.value.clone()));
        }
        let of_file = path.map(|path| OfFile {
            path,
            transport: flags.transport.is_empty(),
            set: {
                let ours = |p: &str, k: &str| {
                    flags.set.iter().any(|s| (s.protocol.as_str(), s.key.as_str()) == (p, k))
                };
                set.iter().filter(|(p, k, _)| !ours(p, k)).map(|(p, k, _)| (p.clone(), k.clone())).collect()
            },
        });
        let or = |flag: &Vec<_>, file| if flag.is_empty() { file } else { flag.clone() };
        Ok(Settings {
            of_file,
            transport: if flags.transport.is_empty() { file.transport } else { flags.transport.clone() },
            set,
            up: flags.up.or(file.up),
            down: flags.down.or(file.down),
            key: flags.key.clone().or(file.key),
            data,
            listen: or(&flags.listen, file.listen),
            anonymous: flags.anonymous.or(file.anonymous).unwrap_or(Anonymous::Allow),
            tracker: file.tracker,
            give: Rules::new(&flags.give, file.give)?.check_clock()?,
        })
    }
}

/// `$XDG_DATA_HOME/iceshare`, or what the system has in its place.
fn default_data() -> Result<PathBuf, Failure> {
    use etcetera::BaseStrategy;
    etcetera::choose_base_strategy().map(|s| s.data_dir().join("iceshare")).map_err(|_| {
        Failure::usage("there is no home folder: say with --data DIR where to keep keys and media")
    })
}

/// The file, checked.
#[derive(Debug, Default, PartialEq)]
struct Given {
    transport: Vec<String>,
    set: Vec<(String, String, String)>,
    up: Option<Rate>,
    down: Option<Rate>,
    data: Option<PathBuf>,
    key: Option<PathBuf>,
    listen: Vec<SocketAddr>,
    anonymous: Option<Anonymous>,
    tracker: Option<IcetUrl>,
    give: giving::Flags,
}

/// A value as it would stand behind `--set`.
fn setting(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::Boolean(b) => Some(b.to_string()),
        value => config::plain(value).ok(),
    }
}

/// Paths in the file are relative to its folder.
fn parse(text: &str, folder: &Path) -> Result<Given, String> {
    fn read<T, E: ToString>(
        name: &str,
        value: Option<String>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, String> {
        value.map(|v| parse(&v).map_err(|e| format!("{name} = {v:?}: {}", e.to_string()))).transpose()
    }
    let mut file = Keys::of(text, &KEYS)?;
    let mut set = Vec::new();
    let mut protocols = file.table("set")?;
    for protocol in protocols.names() {
        let mut keys = protocols.table(&protocol)?;
        for key in keys.names() {
            // Of several, as a list or as one text.
            let value = match keys.any(&key) {
                Some(toml::Value::Array(all)) if !all.is_empty() => {
                    all.into_iter().map(setting).collect::<Option<Vec<_>>>().map(|all| all.join(","))
                }
                value => value.and_then(setting),
            };
            let value = value.ok_or_else(|| {
                format!(
                    "set.{protocol}.{key}: a setting is a text, a number, true or false, or a list of them"
                )
            })?;
            set.push((protocol.clone(), key, value));
        }
    }
    let listen = file.list("listen")?.unwrap_or_default();
    let listen = listen
        .iter()
        .map(|a| {
            a.parse().map_err(|_| {
                format!("listen = {a:?}: an address is ADDR:PORT, as in 0.0.0.0:4238 or [::1]:4238")
            })
        })
        .collect::<Result<_, _>>()?;
    let transport = file.list("transport")?;
    if transport.as_ref().is_some_and(Vec::is_empty) {
        return Err(
            "transport = []: name at least one payload protocol, or leave the line out for all".to_owned()
        );
    }
    let mut media = file.table("give-media")?;
    let mut give_media = Vec::new();
    for path in media.names() {
        let share = media.amount(&path)?.unwrap_or_default();
        let of_media = OfMedia::new(&path, &share);
        give_media.push(of_media.map_err(|e| format!("give-media.{path:?} = {share:?}: {e}"))?);
    }
    Ok(Given {
        transport: transport.unwrap_or_default(),
        set,
        up: read("up", file.amount("up")?, str::parse)?,
        down: read("down", file.amount("down")?, str::parse)?,
        data: file.text("data")?.map(|p| folder.join(p)),
        key: file.text("key")?.map(|p| folder.join(p)),
        listen,
        anonymous: read("anonymous", file.amount("anonymous")?, parse_anonymous)?,
        tracker: read("tracker", file.text("tracker")?, parse_tracker)?,
        give: giving::Flags {
            give_hours: read("give-hours", file.text("give-hours")?, str::parse)?,
            give_lan: file.truth("give-lan")?,
            give_once: file.truth("give-once")?,
            give_metered: read("give-metered", file.yes("give-metered")?, word)?,
            metered: read("metered", file.yes("metered")?, word)?,
            give_day: read("give-day", file.amount("give-day")?, str::parse)?,
            give_month: read("give-month", file.amount("give-month")?, str::parse)?,
            give_media,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
        transport = ["http", "quic"]
        up = "1MB"
        down = "8mbit"
        data = "media"
        key = "/keys/mine"
        listen = "127.0.0.1:0, [::1]:7000"
        anonymous = "20%"
        tracker = "icet://tracker.example"
        give-hours = "22:00-07:00"
        give-lan = true
        give-once = true
        give-metered = "no"
        metered = "auto"
        give-day = "5GB"
        give-month = "50GB"
        [give-media]
        talks = "none"
        "music/a.ogg" = "500kB"
        [set.http]
        anonymous-share = 0.2
        window = 16
        plain = true
        name = "x"
    "#;

    #[test]
    fn the_file_has_the_names_of_the_flags() {
        let given = parse(FULL, Path::new("/etc/iceshare")).expect("a good file");
        assert_eq!(given.transport, ["http", "quic"]);
        assert_eq!((given.up, given.down), (Some(Rate(1_000_000)), Some(Rate(1_000_000))));
        assert_eq!(given.data.as_deref(), Some(Path::new("/etc/iceshare/media")));
        assert_eq!(given.key.as_deref(), Some(Path::new("/keys/mine")));
        assert_eq!(given.listen.len(), 2);
        assert_eq!(given.anonymous, Some(Anonymous::Share(0.2)));
        let give = &given.give;
        assert_eq!(give.give_hours.as_ref().map(ToString::to_string).as_deref(), Some("22:00-07:00"));
        assert!(give.give_lan && give.give_once && give.give_metered == Some(giving::YesNo::No));
        assert_eq!((give.give_day, give.give_month), ("5GB".parse().ok(), "50GB".parse().ok()));
        assert_eq!(give.give_media, ["music/a.ogg=500kB".parse().unwrap(), "talks=none".parse().unwrap()]);
        let set: Vec<_> = given.set.iter().map(|(p, k, v)| format!("{p}.{k}={v}")).collect();
        assert_eq!(set, ["http.anonymous-share=0.2", "http.name=x", "http.plain=true", "http.window=16"]);
        let list = parse("[set.libp2p]\nrelay = [\"/a\", \"/b\"]", Path::new("")).expect("a good file");
        assert_eq!(list.set, [("libp2p".into(), "relay".into(), "/a,/b".into())]);
        assert_eq!(parse("", Path::new("")), Ok(Given::default()));
        let truth = parse("give-metered = false\nmetered = true", Path::new("")).expect("a good file").give;
        assert_eq!(
            (truth.give_metered, truth.metered),
            (Some(giving::YesNo::No), Some(giving::Metered::Yes))
        );
        // A number means what it means behind the flag.
        let plain = parse("up = 100\ndown = 5e3", Path::new("")).expect("a good file");
        assert_eq!((plain.up, plain.down), (Some(Rate(100)), Some(Rate(5000))));
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("upp = \"1MB\"", "\"upp\" is none of its keys, which are transport, set, up,"),
            ("up = true", "up = true: it takes a text"),
            ("tracker = 5", "tracker = 5: it takes a text"),
            ("data = [\"a\"]", "data = [\"a\"]: it takes a text"),
            ("listen = [5]", "listen = [5]: it takes a text or a list"),
            ("set = 3", "set = 3: it takes a table"),
            ("[set]\nhttp = 3", "set.http = 3: it takes a table"),
            ("up = -5", "number and a unit"),
            ("anonymous = 20", "20%"),
            ("tracker = \"icet://a,icet://b\"", "one tracker"),
            ("up = \"1mb\"", "bits or bytes"),
            ("listen = [\"localhost\"]", "ADDR:PORT"),
            ("tracker = \"icet://h/path\"", "no path"),
            ("anonymous = \"maybe\"", "deny"),
            ("[set.http]\nx = []", "set.http.x"),
            ("[set.http]\nx = [[1]]", "set.http.x"),
            ("[set.http]\nx = { y = 1 }", "set.http.x"),
            ("transport = ", "transport"),
            ("transport = []", "at least one"),
            ("give-hours = \"night\"", "22:00-07:00"),
            ("give-day = \"5GB/s\"", "500MB"),
            ("give-metered = \"maybe\"", "it is one of yes, no"),
            ("metered = \"maybe\"", "it is one of yes, no, auto"),
            ("metered = 3", "true or false"),
            ("give-lan = \"no\"", "give-lan = \"no\": it takes true or false"),
            ("[give-media]\ntalks = \"some\"", "none or a rate"),
            ("[give-media]\n\"../a\" = \"none\"", "give-media"),
        ];
        for (text, word) in cases {
            let error = parse(text, Path::new("")).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn what_protocols_refuse_is_told_with_the_file_that_says_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("iceshare.toml");
        let refused = |text: &str, set: &[&str], transport: &[&str]| {
            std::fs::write(&path, text).expect("written");
            let flags = Common {
                config: Some(path.clone()),
                data: Some("/d".into()),
                set: set.iter().map(|s| s.parse().expect("a setting")).collect(),
                transport: transport.iter().map(ToString::to_string).collect(),
                ..Common::default()
            };
            let settings = Settings::load(&flags).expect("settings");
            let failure = crate::transports::chosen(&settings).expect_err(text);
            let said = failure.text().unwrap_or_default().to_owned();
            (said.starts_with(&format!("{}: ", path.display())), said)
        };
        for text in [
            "[set.http]\nconnections = \"many\"",
            "[set.http]\nwindows = 3",
            "[set.gopher]\nx = 1",
            "transport = \"gopher\"",
            "transport = [\"http\", \"http\"]",
        ] {
            let (named, said) = refused(text, &[], &[]);
            assert!(named, "{said}");
        }
        for (set, transport) in [("http.connections=many", "http"), ("gopher.x=1", "http")] {
            let (named, said) = refused("[set.http]\nconnections = 9", &[set], &[transport]);
            assert!(!named, "{said}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("iceshare.toml");
        std::fs::write(&path, FULL).expect("written");
        let mut flags = Common { config: Some(path), up: Some(Rate(5)), ..Common::default() };
        flags.set.push("http.name=y".parse().expect("a setting"));
        flags.listen.push("127.0.0.1:9".parse().expect("an address"));
        let settings = Settings::load(&flags).expect("settings");
        assert_eq!((settings.up, settings.down), (Some(Rate(5)), Some(Rate(1_000_000))));
        assert_eq!(settings.set.last(), Some(&("http".into(), "name".into(), "y".into())));
        assert_eq!(settings.listen.len(), 1);
        assert_eq!(settings.data, dir.path().join("media"));
        // Of one setting, once, and over the file's.
        let values: Vec<_> = settings.set.iter().filter(|(_, k, _)| k == "name").collect();
        assert_eq!(values.len(), 1, "{values:?}");
        flags.set.push("http.name=z".parse().expect("a setting"));
        let twice = Settings::load(&flags).expect_err("twice");
        assert!(twice.text().is_some_and(|t| t.contains("--set http.name is given twice")));
        let missing = Common { config: Some(dir.path().join("none")), ..Common::default() };
        assert!(Settings::load(&missing).expect_err("no file").text().is_some_and(|t| t.contains("none")));
        // Nor does it wait for the end of what has none.
        let endless = Common { config: Some("/dev/zero".into()), ..Common::default() };
        assert!(Settings::load(&endless).expect_err("endless").text().is_some_and(|t| t.contains("1048576")));
        // Set to nothing, as a script does that wants none.
        let none = Common { config: Some("".into()), data: Some("/d".into()), ..Common::default() };
        assert_eq!(Settings::load(&none).expect("no file").data, Path::new("/d"));
        let plain = Common { data: Some("/d".into()), ..Common::default() };
        assert_eq!(Settings::load(&plain).expect("settings").data, Path::new("/d"));
    }
}
