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
    Setting { key: "max-datagram", default: "8952", about: "bytes of the largest datagram, 1200 or more" },
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
        let number = |key: &'static str, default: u64, min: u64, max: u64| match settings.get(key) {
            None => Ok(default),
            Some(value) => {
                value.parse().ok().filter(|n| (min..=max).contains(n)).ok_or_else(|| SettingError::Value {
                    protocol: crate::NAME,
                    key: key.to_owned(),
                    value: value.to_owned(),
                    why: format!("it takes a whole number from {min} to {max}"),
                })
            }
        };
        let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let time = Duration::from_secs;
        let (least, most) = (MIN_DATAGRAM as u64, MAX_DATAGRAM as u64);
        Ok(Config {
            associations: size(number("associations", 1024, 1, 65_536)?),
            per_ip: size(number("per-ip", 64, 1, 65_536)?),
            connect_timeout: time(number("connect-timeout", 3, 1, 60)?),
            stall_timeout: time(number("stall-timeout", 30, 1, 600)?),
            window: number("window", 4096, 64, 65_536)? * 1024,
            max_datagram: size(number("max-datagram", most, least, most)?),
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
            config.associations.to_string(),
            config.per_ip.to_string(),
            seconds(config.connect_timeout),
            seconds(config.stall_timeout),
            (config.window / 1024).to_string(),
            config.max_datagram.to_string(),
        ];
        assert_eq!(said, read);
        for bad in ["0", "-1", "x", "999999999", "1199"] {
            let settings = Settings(vec![("max-datagram".to_owned(), bad.to_owned())]);
            assert!(Config::read(&settings).is_err_and(|e| e.to_string().contains("from 1200 to 8952")));
        }
        Ok(())
    }
}
