//! The `Range` header (RFC 9110, section 14), for one representation of a known length.

use http::HeaderMap;
use http::header::{IF_RANGE, RANGE};

/// What part of a representation a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// All of it: there is no range, or none that we must honour.
    Whole,
    /// The bytes `first ..= last`; both lie within the representation.
    Part {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte, inclusive.
        last: u64,
    },
    /// Nothing of it: answered with 416.
    Unsatisfiable,
}

/// Reads the value of a `Range` header for a representation of `length` bytes.
///
/// Other units than `bytes` and invalid sets are ignored, as section 14.2 says. So are sets of several ranges:
/// no player sends them, and a server may answer with the whole.
#[must_use]
pub fn select(value: &str, length: u64) -> Selection {
    let Some((unit, set)) = value.split_once('=') else { return Selection::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    let mut specs = set.split(',').map(str::trim).filter(|s| !s.is_empty());
    let (Some(spec), None) = (specs.next(), specs.next()) else { return Selection::Whole };
    let Some((first, last)) = spec.split_once('-') else { return Selection::Whole };
    match (position(first), position(last)) {
        _ if first.is_empty() && last.is_empty() => Selection::Whole,
        (None, Some(count)) if first.is_empty() => {
            if count == 0 || length == 0 {
                Selection::Unsatisfiable
            } else {
                Selection::Part { first: length.saturating_sub(count), last: length - 1 }
            }
        }
        (Some(first), None) if last.is_empty() => from(first, u64::MAX, length),
        (Some(first), Some(last)) if first <= last => from(first, last, length),
        _ => Selection::Whole,
    }
}

fn from(first: u64, last: u64, length: u64) -> Selection {
    if first >= length {
        Selection::Unsatisfiable
    } else {
        Selection::Part { first, last: last.min(length - 1) }
    }
}

/// A decimal number of any length; one beyond 64 bits is beyond every file, so it stays at the maximum.
fn position(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.bytes().fold(0u64, |n, b| n.saturating_mul(10).saturating_add(u64::from(b - b'0'))))
}

/// What a GET with `headers` selects from a representation of `length` bytes whose strong entity tag is `etag`
/// (with its quotes). A range holds only while `If-Range` does (section 13.1.5); a date there never does, since
/// we send none.
#[must_use]
pub fn select_from(headers: &HeaderMap, etag: &str, length: u64) -> Selection {
    let mut ranges = headers.get_all(RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Selection::Whole };
    if headers.get_all(IF_RANGE).iter().any(|v| v.as_bytes().trim_ascii() != etag.as_bytes()) {
        return Selection::Whole;
    }
    range.to_str().map_or(Selection::Whole, |value| select(value, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(first: u64, last: u64) -> Selection {
        Selection::Part { first, last }
    }

    #[test]
    fn known_values() {
        let cases = [
            ("bytes=0-", part(0, 99)),
            ("bytes=0-0", part(0, 0)),
            ("bytes=5-9", part(5, 9)),
            ("bytes=99-", part(99, 99)),
            ("bytes=90-1000", part(90, 99)),
            ("bytes=-1", part(99, 99)),
            ("bytes=-1000", part(0, 99)),
            ("bytes=-0", Selection::Unsatisfiable),
            ("bytes=100-", Selection::Unsatisfiable),
            ("bytes=100-200", Selection::Unsatisfiable),
            ("bytes=99999999999999999999999999-", Selection::Unsatisfiable),
            ("bytes=0-99999999999999999999999999", part(0, 99)),
            ("BYTES= 1-2 ,", part(1, 2)),
            ("bytes=", Selection::Whole),
            ("bytes=-", Selection::Whole),
            ("bytes=9-5", Selection::Whole),
            ("bytes=a-b", Selection::Whole),
            ("bytes=+1-2", Selection::Whole),
            ("bytes=1 -2", Selection::Whole),
            ("bytes=--1", Selection::Whole),
            ("bytes=0-1,3-4", Selection::Whole),
            ("pages=0-1", Selection::Whole),
            ("bytes 0-1", Selection::Whole),
            ("", Selection::Whole),
        ];
        for (value, expected) in cases {
            assert_eq!(select(value, 100), expected, "{value:?}");
        }
        assert_eq!(select("bytes=0-", 0), Selection::Unsatisfiable);
        assert_eq!(select("bytes=-5", 0), Selection::Unsatisfiable);
    }

    #[test]
    fn if_range_guards_the_range() {
        let with = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().expect("a header value"));
            }
            select_from(&headers, "\"tag\"", 100)
        };
        assert_eq!(with(&[("range", "bytes=1-2")]), part(1, 2));
        assert_eq!(with(&[("range", "bytes=1-2"), ("if-range", "\"tag\"")]), part(1, 2));
        assert_eq!(with(&[("range", "bytes=1-2"), ("if-range", "\"other\"")]), Selection::Whole);
        assert_eq!(with(&[("range", "bytes=1-2"), ("if-range", "W/\"tag\"")]), Selection::Whole);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(with(&[("range", "bytes=1-2"), ("if-range", date)]), Selection::Whole);
        assert_eq!(with(&[("range", "bytes=1-2"), ("range", "bytes=3-4")]), Selection::Whole);
    }

    proptest! {
        #[test]
        fn stays_within_the_file(value in ".*", length: u64) {
            if let Selection::Part { first, last } = select(&value, length) {
                prop_assert!(first <= last && last < length);
            }
        }

        #[test]
        fn stays_within_the_file_when_it_looks_like_a_range(
            value in "bytes=[ 0-9]{0,22}-[ 0-9]{0,22}(,[0-9-]{0,3})?", length: u64,
        ) {
            if let Selection::Part { first, last } = select(&value, length) {
                prop_assert!(first <= last && last < length);
            }
        }

        #[test]
        fn agrees_with_the_slice_that_it_names(length in 1u64..1000, a in 0u64..1200, b in 0u64..1200) {
            let all: Vec<u64> = (0..length).collect();
            let pick = |s: Selection| match s {
                Selection::Part { first, last } => all.iter().copied().filter(|i| (first..=last).contains(i)).collect(),
                Selection::Whole => all.clone(),
                Selection::Unsatisfiable => vec![],
            };
            let closed: Vec<u64> = all.iter().copied().filter(|i| (a..=b).contains(i)).collect();
            let expected = if a > b { all.clone() } else { closed };
            prop_assert_eq!(pick(select(&format!("bytes={a}-{b}"), length)), expected);
            let open: Vec<u64> = all.iter().copied().filter(|i| *i >= a).collect();
            prop_assert_eq!(pick(select(&format!("bytes={a}-"), length)), open);
            let suffix: Vec<u64> = all.iter().copied().filter(|i| *i + a >= length).collect();
            prop_assert_eq!(pick(select(&format!("bytes=-{a}"), length)), suffix);
        }
    }
}
