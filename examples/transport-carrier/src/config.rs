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
        let dir = match settings.get("dir") {
            None | Some("") => std::env::temp_dir().join("iceshare-carrier"),
            Some(dir) => PathBuf::from(dir),
        };
        let requests = match settings.get("requests") {
            None => 256,
            Some(value) => {
                let number = value.parse().ok().filter(|n| (1..=65_536).contains(n));
                number.ok_or_else(|| SettingError::Value {
                    protocol: crate::NAME,
                    key: "requests".to_owned(),
                    value: value.to_owned(),
                    why: "it takes a whole number from 1 to 65536".to_owned(),
                })?
            }
        };
        Ok(Config { dir, requests })
    }
}
