//! Settings.

use std::time::Duration;

use iceshare::protocol::{Setting, SettingError, Settings};

/// What can be set with `--set http.key=value`.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting { key: "connections", default: "512", about: "connections that may be open to us at once" },
    Setting { key: "per-ip", default: "64", about: "of them, those from one IP address" },
    Setting {
        key: "connect-timeout",
        default: "3",
        about: "seconds that a connection to a host may take to open",
    },
];

/// The values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    pub(crate) connections: usize,
    pub(crate) per_ip: usize,
    pub(crate) connect_timeout: Duration,
}

impl Config {
    pub(crate) fn read(settings: &Settings) -> Result<Config, SettingError> {
        let number = |key: &'static str, default: u64, max: u64| match settings.get(key) {
            None => Ok(default),
            Some(value) => {
                value.parse().ok().filter(|n| (1..=max).contains(n)).ok_or_else(|| SettingError::Value {
                    protocol: crate::NAME,
                    key: key.to_owned(),
                    value: value.to_owned(),
                    why: format!("it takes a whole number from 1 to {max}"),
                })
            }
        };
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Ok(Config {
            connections: size(number("connections", 512, 65_536)?),
            per_ip: size(number("per-ip", 64, 65_536)?),
            connect_timeout: Duration::from_secs(number("connect-timeout", 3, 60)?),
        })
    }
}
