//! Settings.

use std::time::Duration;

use iceshare::protocol::{Setting, SettingError, Settings};

use crate::wire::{self, Relay};

/// What can be set with `--set libp2p.key=value`.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        key: "relay",
        default: "none",
        about: "relays to be reached through and to reach others through, each /…/p2p/ID, separated by spaces or commas",
    },
    Setting {
        key: "quic-port",
        default: "0",
        about: "UDP port of libp2p's own QUIC, beside that of --listen; off: none is opened, others' are dialed all the same, and there is no hole punching over UDP",
    },
    Setting {
        key: "punch",
        default: "on",
        about: "whether relayed connections are replaced by direct ones through NATs",
    },
    Setting { key: "connections", default: "512", about: "connections that may be open to us at once" },
    Setting { key: "per-ip", default: "64", about: "of them, those from one IP address (loopback aside)" },
    Setting {
        key: "requests",
        default: "1024",
        about: "requests that are answered at once; more are refused as busy",
    },
    Setting { key: "request-timeout", default: "10", about: "seconds that a receiver's request may take" },
    Setting {
        key: "idle-timeout",
        default: "30",
        about: "seconds that a connection without requests is kept",
    },
    Setting {
        key: "stall-timeout",
        default: "30",
        about: "seconds that a receiver may take no byte, and that pages are waited for",
    },
    Setting {
        key: "connect-timeout",
        default: "5",
        about: "seconds that a connection to a host may take to open",
    },
];

/// The values.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) relays: Vec<Relay>,
    /// None: no QUIC.
    pub(crate) quic_port: Option<u16>,
    pub(crate) punch: bool,
    pub(crate) connections: u32,
    pub(crate) per_ip: usize,
    pub(crate) requests: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) connect_timeout: Duration,
}

impl Config {
    pub(crate) fn read(settings: &Settings) -> Result<Config, SettingError> {
        let read = settings.of(crate::NAME, SETTINGS);
        let quic_port = match read.text("quic-port") {
            "off" => None,
            port => Some(
                port.parse()
                    .map_err(|_| read.refused("quic-port", "it takes a port, 0 for any free one, or off"))?,
            ),
        };
        let relays = match read.text("relay") {
            "none" => "",
            text if text.trim().is_empty() => {
                return Err(read.refused("relay", "it takes addresses of relays, or none"));
            }
            text => text,
        };
        let relays = wire::relays(relays).map_err(|e| read.refused("relay", format!("{}: {e}", e.text)))?;
        Ok(Config {
            relays,
            quic_port,
            punch: read.switch("punch")?,
            connections: read.number("connections", 1..=65_536)?,
            per_ip: read.number("per-ip", 1..=65_536)?,
            requests: read.number("requests", 1..=65_536)?,
            request_timeout: read.seconds("request-timeout", 600)?,
            idle_timeout: read.seconds("idle-timeout", 600)?,
            stall_timeout: read.seconds("stall-timeout", 600)?,
            connect_timeout: read.seconds("connect-timeout", 600)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, value: &str) -> Result<Config, SettingError> {
        Config::read(&Settings(vec![(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn defaults_can_be_read() -> Result<(), SettingError> {
        let config = Config::read(&Settings::default())?;
        assert_eq!((config.quic_port, config.punch, config.per_ip), (Some(0), true, 64));
        assert!(config.relays.is_empty());
        Ok(())
    }

    #[test]
    fn values_are_checked() -> Result<(), SettingError> {
        assert_eq!(with("quic-port", "off")?.quic_port, None);
        assert!(!with("punch", "off")?.punch);
        let bad = [
            ("per-ip", "0"),
            ("connections", "-1"),
            ("requests", "x"),
            ("stall-timeout", "601"),
            ("quic-port", "65536"),
            ("punch", "yes"),
            ("relay", "/ip4/192.0.2.1/tcp/4001"),
            ("relay", ""),
            ("relay", " "),
        ];
        for (key, value) in bad {
            assert!(with(key, value).is_err_and(|e| e.to_string().contains(key)), "{key}={value}");
        }
        Ok(())
    }
}
