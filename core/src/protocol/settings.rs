//! Settings of payload protocols.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use thiserror::Error;

/// A setting that a protocol knows, for `iceshare protocols` and error messages.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// Its default, as one would write it.
    pub default: &'static str,
    /// What it does, with its unit.
    pub about: &'static str,
}

/// Settings of a protocol from `--set NAME.key=value` and the configuration file, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings(pub Vec<(String, String)>);

impl Settings {
    /// The last value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// To read them as what `protocol` has declared, with its defaults.
    #[must_use]
    pub fn of(&self, protocol: &'static str, declared: &'static [Setting]) -> Reading<'_> {
        Reading { protocol, declared, given: self }
    }
}

/// Reads the values of a protocol's settings; the default where none was given.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    protocol: &'static str,
    declared: &'static [Setting],
    given: &'a Settings,
}

impl<'a> Reading<'a> {
    /// As it was written. Empty for a key that was not declared.
    #[must_use]
    pub fn text(&self, key: &str) -> &'a str {
        let default = || self.declared.iter().find(|s| s.key == key).map_or("", |s| s.default);
        self.given.get(key).unwrap_or_else(default)
    }

    /// A whole number.
    ///
    /// # Errors
    /// [`SettingError::Value`] for anything else, and outside of `range`.
    pub fn number<N>(&self, key: &str, range: RangeInclusive<N>) -> Result<N, SettingError>
    where
        N: std::str::FromStr + PartialOrd + Display,
    {
        let number = self.text(key).parse().ok().filter(|n| range.contains(n));
        number.ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            self.refused(key, format!("it takes a whole number from {least} to {most}"))
        })
    }

    /// Whole seconds from 1 to `most`.
    ///
    /// # Errors
    /// [`SettingError::Value`] for anything else.
    pub fn seconds(&self, key: &str, most: u64) -> Result<Duration, SettingError> {
        self.number(key, 1..=most).map(Duration::from_secs)
    }

    /// `on` or `off`.
    ///
    /// # Errors
    /// [`SettingError::Value`] for anything else.
    pub fn switch(&self, key: &str) -> Result<bool, SettingError> {
        match self.text(key) {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(self.refused(key, "it takes on or off")),
        }
    }

    /// Says that the value cannot be taken, and what can: `it takes …`.
    #[must_use]
    pub fn refused(&self, key: &str, why: impl Into<String>) -> SettingError {
        let (key, value) = (key.to_owned(), self.text(key).to_owned());
        SettingError::Value { protocol: self.protocol, key, value, why: why.into() }
    }
}

/// Why settings were refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingError {
    /// No such setting.
    #[error("{protocol} has no setting {key:?}; it has: {known}")]
    Unknown {
        /// The protocol.
        protocol: &'static str,
        /// What was given.
        key: String,
        /// What there is.
        known: String,
    },
    /// A value that the setting cannot take.
    #[error("{protocol}.{key}={value}: {why}")]
    Value {
        /// The protocol.
        protocol: &'static str,
        /// The setting.
        key: String,
        /// What was given.
        value: String,
        /// What it takes.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: &[Setting] = &[
        Setting { key: "connections", default: "512", about: "" },
        Setting { key: "patience", default: "30", about: "" },
        Setting { key: "punch", default: "on", about: "" },
    ];

    fn with(key: &str, value: &str) -> Settings {
        Settings(vec![(key.to_owned(), "other".to_owned()), (key.to_owned(), value.to_owned())])
    }

    #[test]
    fn defaults_hold_until_something_is_given() -> Result<(), SettingError> {
        let (none, some) = (Settings::default(), with("connections", "7"));
        assert_eq!(none.of("x", DECLARED).number("connections", 1..=1000_u32)?, 512);
        assert_eq!(some.of("x", DECLARED).number("connections", 1..=1000_u32)?, 7);
        assert_eq!(none.of("x", DECLARED).seconds("patience", 600)?, Duration::from_secs(30));
        assert!(none.of("x", DECLARED).switch("punch")?);
        assert!(!with("punch", "off").of("x", DECLARED).switch("punch")?);
        Ok(())
    }

    #[test]
    fn what_cannot_be_taken_is_refused_with_what_can() {
        for bad in ["0", "-1", "x", "1001", "99999999999999999999999", "7.5", "", " 7"] {
            let said = with("connections", bad).of("x", DECLARED).number("connections", 1..=1000_u16);
            let said = said.expect_err(bad).to_string();
            assert_eq!(said, format!("x.connections={bad}: it takes a whole number from 1 to 1000"));
        }
        let said = with("punch", "yes").of("x", DECLARED).switch("punch").map_err(|e| e.to_string());
        assert_eq!(said, Err("x.punch=yes: it takes on or off".to_owned()));
        assert!(Settings::default().of("x", DECLARED).seconds("patience", 29).is_err());
    }
}
