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
        let time = Duration::from_secs;
        Ok(Config {
            connections: size(number("connections", 512, 65_536)?),
            per_ip: size(number("per-ip", 64, 65_536)?),
            header_timeout: time(number("header-timeout", 30, 600)?),
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
            seconds(config.header_timeout),
            seconds(config.stall_timeout),
            seconds(config.connect_timeout),
        ];
        assert_eq!(said, read);
        for bad in ["0", "-1", "x", "999999999"] {
            let settings = Settings(vec![("per-ip".to_owned(), bad.to_owned())]);
            assert!(Config::read(&settings).is_err_and(|e| e.to_string().contains("from 1 to 65536")));
        }
        Ok(())
    }
}
