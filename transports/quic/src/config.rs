//! Settings.

use std::time::Duration;

use iceshare::protocol::{Setting, SettingError, Settings};

/// What can be set with `--set quic.key=value`.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        key: "connections",
        default: "512",
        about: "connections that others may have open to us at once",
    },
    Setting { key: "per-ip", default: "64", about: "of them, those from one IP address (loopback aside)" },
    Setting { key: "streams", default: "64", about: "requests that run at once on one connection" },
    Setting {
        key: "window",
        default: "16",
        about: "MiB that may be on their way to us, or from us, on one connection (but 4 to us for each request of \
                ours); its share of the round trip is the ceiling of the rate",
    },
    Setting {
        key: "idle-timeout",
        default: "20",
        about: "seconds that a connection without requests is kept",
    },
    Setting { key: "request-timeout", default: "10", about: "seconds that a receiver's request may take" },
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
    pub(crate) streams: u32,
    /// Bytes.
    pub(crate) window: u32,
    pub(crate) idle_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) connect_timeout: Duration,
}

impl Config {
    pub(crate) fn read(settings: &Settings) -> Result<Config, SettingError> {
        let read = settings.of(crate::NAME, SETTINGS);
        Ok(Config {
            connections: read.number("connections", 1..=65_536)?,
            per_ip: read.number("per-ip", 1..=65_536)?,
            streams: read.number("streams", 1..=1024)?,
            window: read.number("window", 1..=1024_u32)? << 20,
            idle_timeout: read.seconds("idle-timeout", 600)?,
            request_timeout: read.seconds("request-timeout", 600)?,
            stall_timeout: read.seconds("stall-timeout", 600)?,
            connect_timeout: read.seconds("connect-timeout", 60)?,
        })
    }
}
