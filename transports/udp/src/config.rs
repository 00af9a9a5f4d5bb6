//! Settings.

use std::time::Duration;

use iceshare::protocol::{Setting, SettingError, Settings};

use crate::wire::{MAX_DATAGRAM, MIN_DATAGRAM};

/// What can be set with `--set udp.key=value`.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting { key: "associations", default: "1024", about: "peers that may be in touch at once" },
    Setting { key: "per-ip", default: "64", about: "of them, those from one IP address (loopback aside)" },
    Setting { key: "connect-timeout", default: "3", about: "seconds that a handshake may take" },
    Setting { key: "stall-timeout", default: "30", about: "seconds that pages are waited for" },
    Setting { key: "window", default: "4096", about: "KiB of one request that may wait for their reader" },
    Setting { key: "max-datagram", default: "8952", about: "bytes of the largest datagram" },
];

/// The values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    pub(crate) associations: usize,
    pub(crate) per_ip: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    /// Bytes.
    pub(crate) window: u64,
    pub(crate) max_datagram: usize,
}

impl Config {
    pub(crate) fn read(settings: &Settings) -> Result<Config, SettingError> {
        let read = settings.of(crate::NAME, SETTINGS);
        Ok(Config {
            associations: read.number("associations", 1..=65_536)?,
            per_ip: read.number("per-ip", 1..=65_536)?,
            connect_timeout: read.seconds("connect-timeout", 60)?,
            stall_timeout: read.seconds("stall-timeout", 600)?,
            window: read.number("window", 64..=65_536_u64)? * 1024,
            max_datagram: read.number("max-datagram", MIN_DATAGRAM..=MAX_DATAGRAM)?,
        })
    }
}
