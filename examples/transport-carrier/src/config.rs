//! Settings.

use std::path::PathBuf;

use iceshare::protocol::{Setting, SettingError, Settings};

/// What can be set with `--set carrier.key=value`.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        key: "dir",
        default: "",
        about: "directory that all peers share; without one, iceshare-carrier in the system's temporary directory",
    },
    Setting { key: "requests", default: "256", about: "requests that are answered at once; others wait" },
];

/// The values.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) dir: PathBuf,
    pub(crate) requests: usize,
}

impl Config {
    pub(crate) fn read(settings: &Settings) -> Result<Config, SettingError> {
        let read = settings.of(crate::NAME, SETTINGS);
        let dir = match read.text("dir") {
            "" => std::env::temp_dir().join("iceshare-carrier"),
            dir => PathBuf::from(dir),
        };
        Ok(Config { dir, requests: read.number("requests", 1..=65_536)? })
    }
}
