//! What stands in the headers, sans-IO: `Range` in, `Content-Range` and its like out. `proto-spec/spec/http.md` is the
//! normative text.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use iceshare::icet::{Manifest, PageSet, Stripe, Ticket, frame, limits};

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// `pages=10-19`, `pages=10-`, `pages=10-;stripe=1/4`.
    Pages(PageSet),
    /// `bytes=…`.
    Bytes(Bytes),
    /// `t:npt=10-20`, in microseconds, the end exclusive.
    Time {
        /// Start.
        from: u64,
        /// End; open if none.
        to: Option<u64>,
        /// `;include-setup`.
        setup: bool,
    },
    /// `proofs=0-3`: slices.
    Proofs {
        /// First slice.
        first: u64,
        /// Last slice, inclusive.
        last: u64,
    },
}

/// A range of bytes (RFC 9110, section 14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    /// From this offset, to that one (inclusive) or to the end.
    From(u64, Option<u64>),
    /// The last so many.
    Last(u64),
}

impl Bytes {
    /// First and last offset within `len` bytes; none: not satisfiable.
    #[must_use]
    pub fn within(self, len: u64) -> Option<(u64, u64)> {
        let end = len.checked_sub(1)?;
        match self {
            Bytes::From(first, last) => (first <= end).then(|| (first, last.map_or(end, |l| l.min(end)))),
            Bytes::Last(0) => None,
            Bytes::Last(n) => Some((len.saturating_sub(n), end)),
        }
    }
}

fn number(s: &str) -> Option<u64> {
    // No sign, no space, at most 19 digits: what `u64` holds.
    (!s.is_empty() && s.len() <= 19 && s.bytes().all(|b| b.is_ascii_digit()))
        .then(|| s.parse().ok())
        .flatten()
}

/// `a-b` or `a-`.
fn pair(s: &str) -> Option<(u64, Option<u64>)> {
    let (a, b) = s.split_once('-')?;
    let first = number(a)?;
    let last = if b.is_empty() { None } else { Some(number(b)?) };
    last.is_none_or(|l| l >= first).then_some((first, last))
}

/// Normal play time (RFC 2326, section 3.6; W3C Media Fragments, section 4.2.1): `12.5` or `1:02:03.25`, in microseconds.
fn npt(s: &str) -> Option<u64> {
    let (whole, fraction) = s.split_once('.').map_or((s, ""), |(w, f)| (w, f));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let micros = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = micros.fold(0u64, |n, d| n * 10 + u64::from(d - b'0'));
    let parts: Vec<u64> = whole.split(':').map(number).collect::<Option<_>>()?;
    let seconds = match parts.as_slice() {
        [s] => *s,
        [m, s] if *s < 60 => m.checked_mul(60)?.checked_add(*s)?,
        [h, m, s] if *m < 60 && *s < 60 => h.checked_mul(3600)?.checked_add(m * 60 + s)?,
        _ => return None,
    };
    seconds.checked_mul(1_000_000)?.checked_add(micros)
}

fn stripe(s: &str) -> Option<Stripe> {
    let mut parts =
        s.strip_prefix("stripe=")?.split('/').map(|n| number(n).and_then(|n| u16::try_from(n).ok()));
    let (index, of) = (parts.next()??, parts.next()??);
    let group = parts.next().unwrap_or(Some(1))?;
    if parts.next().is_some() { None } else { Stripe::new(index, of, group) }
}

impl Range {
    /// Reads a `Range` header. None: to be ignored, as RFC 9110, section 14.2 has it for unknown units, several ranges and
    /// malformed ones.
    #[must_use]
    pub fn parse(header: &str) -> Option<Range> {
        let (unit, set) = header.trim().split_once('=')?;
        let set = set.trim();
        if set.contains(',') {
            return None;
        }
        match unit.trim().to_ascii_lowercase().as_str() {
            "bytes" => match set.strip_prefix('-') {
                Some(suffix) => number(suffix).map(|n| Range::Bytes(Bytes::Last(n))),
                None => pair(set).map(|(a, b)| Range::Bytes(Bytes::From(a, b))),
            },
            "pages" => {
                let (set, rest) = set.split_once(';').map_or((set, None), |(s, r)| (s, Some(r)));
                let (first, last) = pair(set.trim_end())?;
                let stripe = match rest {
                    None => None,
                    Some(r) => Some(stripe(r.trim())?),
                };
                (first < limits::PAGES).then_some(Range::Pages(PageSet { first, last, stripe }))
            }
            "proofs" => match pair(set)? {
                (first, Some(last)) => Some(Range::Proofs { first, last }),
                (_, None) => None,
            },
            "t:npt" => {
                let (set, rest) = set.split_once(';').map_or((set, None), |(s, r)| (s, Some(r.trim())));
                if rest.is_some_and(|r| r != "include-setup") {
                    return None;
                }
                let (a, b) = set.trim_end().split_once('-')?;
                let from = npt(a)?;
                let to = if b.is_empty() { None } else { Some(npt(b)?) };
                to.is_none_or(|t| t > from).then_some(Range::Time { from, to, setup: rest.is_some() })
            }
            _ => None,
        }
    }
}

/// The media's strong entity tag: its id and version.
#[must_use]
pub fn etag(manifest: &Manifest) -> String {
    format!("\"{}-{}\"", manifest.id(), manifest.version)
}

/// Seconds with microseconds, as normal play time.
#[must_use]
pub fn npt_text(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// A bearer token (RFC 6750) that carries a ticket: base64url of its CBOR.
#[must_use]
pub fn bearer(ticket: &Ticket) -> String {
    format!("Bearer {}", URL_SAFE_NO_PAD.encode(frame::encode(ticket)))
}

/// The ticket of an `Authorization` header; none: there is none in it.
#[must_use]
pub fn ticket(header: &str) -> Option<Ticket> {
    let (scheme, token) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.len() > 2 * limits::TICKET {
        return None;
    }
    frame::decode(&URL_SAFE_NO_PAD.decode(token.trim().trim_end_matches('=')).ok()?).ok()
}

/// Reads `UNIT A-B/N` of a `Content-Range` header; `*` and a very large end are as in RFC 8673.
#[must_use]
pub fn content_range(header: &str) -> Option<(&str, u64, u64)> {
    let (unit, rest) = header.trim().split_once(' ')?;
    let (range, _) = rest.split_once('/')?;
    match pair(range)? {
        (first, Some(last)) => Some((unit, first, last)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_read_as_the_specification_says() {
        let pages = |first, last, stripe| Some(Range::Pages(PageSet { first, last, stripe }));
        for (header, wanted) in [
            ("pages=10-19", pages(10, Some(19), None)),
            ("Pages = 10-19", pages(10, Some(19), None)),
            ("pages=10-", pages(10, None, None)),
            ("pages=10-;stripe=1/4", pages(10, None, Stripe::new(1, 4, 1))),
            ("pages=0-99;stripe=0/2/16", pages(0, Some(99), Stripe::new(0, 2, 16))),
            ("pages=10-;stripe=4/4", None),
            ("pages=10-;what=1", None),
            ("pages=9-8", None),
            ("pages=-5", None),
            ("pages=1-2,4-5", None),
            ("bytes=0-", Some(Range::Bytes(Bytes::From(0, None)))),
            ("bytes=5-9", Some(Range::Bytes(Bytes::From(5, Some(9))))),
            ("bytes=-500", Some(Range::Bytes(Bytes::Last(500)))),
            ("bytes=99999999999999999999-", None),
            ("bytes=+5-9", None),
            ("bytes=0-1,3-4", None),
            ("proofs=0-3", Some(Range::Proofs { first: 0, last: 3 })),
            ("proofs=2-", None),
            ("t:npt=10-20", Some(Range::Time { from: 10_000_000, to: Some(20_000_000), setup: false })),
            ("t:npt=0:01:02.5-;include-setup", Some(Range::Time { from: 62_500_000, to: None, setup: true })),
            ("t:npt=20-10", None),
            ("t:npt=1.2.3-4", None),
            ("furlongs=1-2", None),
            ("", None),
        ] {
            assert_eq!(Range::parse(header), wanted, "{header}");
        }
    }

    #[test]
    fn byte_ranges_lie_within_the_media() {
        assert_eq!(Bytes::From(0, None).within(100), Some((0, 99)));
        assert_eq!(Bytes::From(50, Some(500)).within(100), Some((50, 99)));
        assert_eq!(Bytes::From(100, None).within(100), None);
        assert_eq!(Bytes::Last(30).within(100), Some((70, 99)));
        assert_eq!(Bytes::Last(300).within(100), Some((0, 99)));
        assert_eq!(Bytes::Last(0).within(100), None);
    }

    proptest! {
        #[test]
        fn no_header_panics(s in "\\PC{0,80}", t in "(pages|bytes|t:npt|proofs)=[0-9:./;a-z-]{0,40}") {
            let _ = (Range::parse(&s), Range::parse(&t), ticket(&s), content_range(&s));
        }

        #[test]
        fn page_sets_round_trip(first in 0..limits::PAGES, more in prop::option::of(0u64..1000), of in 1u16..20, group in 1u16..9) {
            let set = PageSet { first, last: more.map(|m| first + m), stripe: Stripe::new(of - 1, of, group) };
            prop_assert_eq!(Range::parse(&format!("pages={set}")), Some(Range::Pages(set)));
        }
    }
}
