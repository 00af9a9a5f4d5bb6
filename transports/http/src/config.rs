//! Settings.

use std::time::Duration;

use iceshare::protocol::{Setting, SettingError, Settings};

/// What can be set with `--set http.key=value`.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting { key: "connections", default: "512", about: "connections that may be open to us at once" },
    Setting {
        key: "per-ip",
        default: "64",
        about: "of them, those from one IP address (loopback aside); where all are taken, idle ones make room",
    },
    Setting {
        key: "header-timeout",
        default: "30",
        about: "seconds that a request's header may take, and a connection may be idle",
    },
    Setting {
        key: "stall-timeout",
        default: "30",
        about: "seconds that a receiver may take no byte, and that pages are waited for",
    },
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
    pub(crate) header_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) connect_timeout: Duration,
}

impl Config {
    pub(crate) fn read(settings: &Settings) -> Result<Config, SettingError> {
        let read = settings.of(crate::NAME, SETTINGS);
        Ok(Config {
            connections: read.number("connections", 1..=65_536)?,
            per_ip: read.number("per-ip", 1..=65_536)?,
            header_timeout: read.seconds("header-timeout", 600)?,
            stall_timeout: read.seconds("stall-timeout", 600)?,
            connect_timeout: read.seconds("connect-timeout", 60)?,
        })
    }
}
