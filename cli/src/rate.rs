//! Rates and sizes as people write them.

use std::fmt;
use std::str::FromStr;

use indicatif::DecimalBytes;
use thiserror::Error;

/// Bytes a second, never 0. Reads `500kB`, `1MB`, `1.5MiB` (bytes) and `8mbit`, `64kbit` (bits); `/s` may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rate(pub(crate) u64);

/// Why a text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum RateError {
    #[error("a rate is a number and a unit, as in 500kB or 1MB (bytes a second), or 8mbit (bits a second)")]
    Shape,
    #[error("{0:?} could mean bits or bytes: write {1}B for bytes, or {1}bit for bits")]
    Ambiguous(String, &'static str),
    #[error(
        "{0:?} is no unit of a rate: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB (bytes), bit, kbit, mbit, gbit, tbit (bits)"
    )]
    Unit(String),
    #[error("a rate below one byte a second would move nothing; leave it out for no limit")]
    Zero,
    #[error("a rate beyond 2^63 bytes a second is no limit: leave it out")]
    Large,
}

/// Bits in one `unit`.
fn bits(unit: &str) -> Result<u64, RateError> {
    const K: u64 = 1000;
    const KI: u64 = 1024;
    Ok(match unit {
        "" | "B" => 8,
        "kB" | "KB" => 8 * K,
        "MB" => 8 * K * K,
        "GB" => 8 * K * K * K,
        "TB" => 8 * K * K * K * K,
        "KiB" | "kiB" => 8 * KI,
        "MiB" => 8 * KI * KI,
        "GiB" => 8 * KI * KI * KI,
        "TiB" => 8 * KI * KI * KI * KI,
        _ => match unit.to_ascii_lowercase().as_str() {
            "bit" => 1,
            "kbit" => K,
            "mbit" => K * K,
            "gbit" => K * K * K,
            "tbit" => K * K * K * K,
            "b" => return Err(RateError::Ambiguous(unit.to_owned(), "")),
            "k" | "kb" | "kib" => return Err(RateError::Ambiguous(unit.to_owned(), "k")),
            "m" | "mb" | "mib" => return Err(RateError::Ambiguous(unit.to_owned(), "M")),
            "g" | "gb" | "gib" => return Err(RateError::Ambiguous(unit.to_owned(), "G")),
            "t" | "tb" | "tib" => return Err(RateError::Ambiguous(unit.to_owned(), "T")),
            _ => return Err(RateError::Unit(unit.to_owned())),
        },
    })
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(s: &str) -> Result<Rate, RateError> {
        let s = s.strip_suffix("/s").unwrap_or(s);
        let split = s.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(s.len());
        let (number, unit) = s.split_at(split);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |d: &str| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
            return Err(RateError::Shape);
        }
        let bits = u128::from(bits(unit.trim_start())?);
        // Exact: no floating point on the way.
        let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| RateError::Shape)?);
        let number: u128 = format!("{whole}{fraction}").parse().map_err(|_| RateError::Large)?;
        let bytes = number.checked_mul(bits).ok_or(RateError::Large)? / scale / 8;
        match u64::try_from(bytes) {
            Ok(0) => Err(RateError::Zero),
            Ok(n) if n <= i64::MAX as u64 => Ok(Rate(n)),
            _ => Err(RateError::Large),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", DecimalBytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        let cases = [
            ("1", 1),
            ("1000", 1000),
            ("1B", 1),
            ("500kB", 500_000),
            ("500KB", 500_000),
            ("1MB", 1_000_000),
            ("1 MB", 1_000_000),
            ("1MB/s", 1_000_000),
            ("1.5MB", 1_500_000),
            ("0.001kB", 1),
            ("1KiB", 1024),
            ("1.5MiB", 1_572_864),
            ("1GiB", 1_073_741_824),
            ("8bit", 1),
            ("8mbit", 1_000_000),
            ("8Mbit", 1_000_000),
            ("8mbit/s", 1_000_000),
            ("64kbit", 8000),
            ("1gbit", 125_000_000),
            ("0.1mbit", 12_500),
            ("9bit", 1),
            ("9000000000GB", 9_000_000_000_000_000_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Rate(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        let ambiguous = |unit: &str, say| Err(RateError::Ambiguous(unit.to_owned(), say));
        let cases: [(&str, Result<Rate, RateError>); 22] = [
            ("", Err(RateError::Shape)),
            ("MB", Err(RateError::Shape)),
            ("-1MB", Err(RateError::Shape)),
            ("+1MB", Err(RateError::Shape)),
            (".5MB", Err(RateError::Shape)),
            ("1.MB", Err(RateError::Shape)),
            ("1.2.3MB", Err(RateError::Shape)),
            ("1e6", Err(RateError::Unit("e6".into()))),
            ("1MB ", Err(RateError::Unit("MB ".into()))),
            ("1parsec", Err(RateError::Unit("parsec".into()))),
            ("1MB/min", Err(RateError::Unit("MB/min".into()))),
            ("1b", ambiguous("b", "")),
            ("1k", ambiguous("k", "k")),
            ("1kb", ambiguous("kb", "k")),
            ("1mb", ambiguous("mb", "M")),
            ("1Mb", ambiguous("Mb", "M")),
            ("1M", ambiguous("M", "M")),
            ("1gb", ambiguous("gb", "G")),
            ("0", Err(RateError::Zero)),
            ("7bit", Err(RateError::Zero)),
            ("10000000000GB", Err(RateError::Large)),
            ("99999999999999999999999999999999999999999", Err(RateError::Large)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Rate>(), expected, "{text}");
        }
    }
}
