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
        about: "MiB that may be on their way to us, or from us, on one connection; its share of the round trip \
                is the ceiling of the rate",
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
        let number = |key: &'static str, default: u32, max: u32| match settings.get(key) {
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
        let size = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        let time = |n: u32| Duration::from_secs(n.into());
        Ok(Config {
            connections: size(number("connections", 512, 65_536)?),
            per_ip: size(number("per-ip", 64, 65_536)?),
            streams: number("streams", 64, 1024)?,
            window: number("window", 16, 1024)? << 20,
            idle_timeout: time(number("idle-timeout", 20, 600)?),
            request_timeout: time(number("request-timeout", 10, 600)?),
            stall_timeout: time(number("stall-timeout", 30, 600)?),
            connect_timeout: time(number("connect-timeout", 3, 60)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_what_the_settings_say_and_values_are_checked() -> Result<(), SettingError> {
        let config = Config::read(&Settings::default())?;
        let said: Vec<String> = SETTINGS.iter().map(|s| s.default.to_owned()).collect();
        let seconds = |d: Duration| d.as_secs().to_string();
        let read = [
            config.connections.to_string(),
            config.per_ip.to_string(),
            config.streams.to_string(),
            (config.window >> 20).to_string(),
            seconds(config.idle_timeout),
            seconds(config.request_timeout),
            seconds(config.stall_timeout),
            seconds(config.connect_timeout),
        ];
        assert_eq!(said, read);
        for (key, most) in [("per-ip", "from 1 to 65536"), ("window", "from 1 to 1024")] {
            for bad in ["0", "-1", "x", "999999999"] {
                let settings = Settings(vec![(key.to_owned(), bad.to_owned())]);
                assert!(Config::read(&settings).is_err_and(|e| e.to_string().contains(most)));
            }
        }
        Ok(())
    }
}
