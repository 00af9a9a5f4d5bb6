//! The fields that this protocol adds to HTTP: reading and writing `Range`, `Content-Range`, tickets and entity tags.
//! No IO; every function takes any input. The normative text is `proto-spec/spec/http.md`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use iceshare::icet::{MediaId, PageSet, Stripe, Ticket, frame, limits};

/// Value of `Accept-Ranges`.
pub const ACCEPT_RANGES: &str = "bytes, pages, proofs, t";
/// Media type of a signed manifest: CBOR `[body, signature]` as IceT carries it.
pub const MANIFEST_TYPE: &str = "application/vnd.iceshare.manifest+cbor";
/// Media type of proofs: a CBOR sequence (RFC 8742) of proven slices.
pub const PROOFS_TYPE: &str = "application/cbor-seq";
/// Field of a 503: the first page of what was asked for that the host does not hold yet.
pub const MISSING: &str = "iceshare-missing-page";
/// Field of a 206 to `t:npt`: which bytes the time range became (W3C Media Fragments).
pub const MAPPING: &str = "content-range-mapping";
/// Last page of a range that goes on without end (2^40 - 1), as RFC 8673 has a very large last byte.
pub const ENDLESS: u64 = limits::PAGES - 1;
/// Byte ranges of one request; with more, the field is ignored.
pub const BYTE_RANGES: usize = 16;

/// One byte range (RFC 9110, section 14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `first-last` or `first-`.
    From {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte, inclusive.
        last: Option<u64>,
    },
    /// `-n`: the last `n` bytes.
    Suffix(u64),
}

impl ByteRange {
    /// First and last byte of it in a representation of `len` bytes; none if it has none there.
    #[must_use]
    pub fn within(self, len: u64) -> Option<(u64, u64)> {
        match self {
            ByteRange::From { first, last } if first < len => {
                Some((first, last.unwrap_or(u64::MAX).min(len - 1)))
            }
            ByteRange::Suffix(n) if n > 0 && len > 0 => Some((len - n.min(len), len - 1)),
            _ => None,
        }
    }
}

/// What a `Range` field asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// `bytes=`, one range or several, each syntactically valid.
    Bytes(Vec<ByteRange>),
    /// `pages=first-last`, `pages=first-`, each with `;stripe=index/of` or `;stripe=index/of/group`.
    Pages(PageSet),
    /// `pages=-n`: the last n pages of a file.
    LastPages(u64),
    /// `proofs=first-last`, slices of a file; or `proofs=first-`, of live media the batches from that of this page on.
    Proofs {
        /// First slice, or page.
        first: u64,
        /// Last slice, inclusive; [`ENDLESS`] if the end is open.
        last: u64,
    },
    /// `t:npt=from-to`, W3C Media Fragments, in microseconds.
    Time {
        /// Start.
        from: u64,
        /// End, exclusive; open if none.
        to: Option<u64>,
        /// Whether the setup pages come first.
        include_setup: bool,
    },
    /// A unit that is ours, with something that we do not serve: several ranges, or no range at all. Answered with 416.
    Refused(Unit),
    /// A unit that we do not know, or malformed `bytes`: to be ignored (RFC 9110, section 14.2).
    Ignored,
}

/// A range unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of the physical bitstream.
    Bytes,
    /// Pages.
    Pages,
    /// Slices of page records with their proofs.
    Proofs,
    /// Media time (normal play time).
    Time,
}

impl Unit {
    /// As it stands in `Content-Range`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Pages => "pages",
            Unit::Proofs => "proofs",
            Unit::Time => "t:npt",
        }
    }
}

impl Range {
    /// Reads the value of a `Range` field.
    #[must_use]
    pub fn parse(value: &str) -> Range {
        let Some((unit, ranges)) = value.split_once('=') else { return Range::Ignored };
        let (unit, ranges) = (unit.trim(), ranges.trim());
        let is = |name: &str| unit.eq_ignore_ascii_case(name);
        if is("bytes") {
            bytes(ranges).map_or(Range::Ignored, Range::Bytes)
        } else if is("pages") {
            pages(ranges).unwrap_or(Range::Refused(Unit::Pages))
        } else if is("proofs") {
            match first_last(ranges) {
                Some((first, last)) if last.unwrap_or(ENDLESS) <= ENDLESS => {
                    Range::Proofs { first, last: last.unwrap_or(ENDLESS) }
                }
                _ => Range::Refused(Unit::Proofs),
            }
        } else if is("t:npt") {
            time(ranges).unwrap_or(Range::Refused(Unit::Time))
        } else {
            Range::Ignored
        }
    }
}

/// Digits only (no sign, no blank), as RFC 9110 has it; values beyond 2^64 - 1 are as good as that.
fn number(s: &str) -> Option<u64> {
    if s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(s.parse().unwrap_or(u64::MAX))
}

/// `first-last` or `first-`.
fn first_last(s: &str) -> Option<(u64, Option<u64>)> {
    let (first, last) = s.split_once('-')?;
    let first = number(first)?;
    let last = if last.is_empty() { None } else { Some(number(last)?) };
    last.is_none_or(|l| first <= l).then_some((first, last))
}

fn bytes(ranges: &str) -> Option<Vec<ByteRange>> {
    let mut out = Vec::new();
    for range in ranges.split(',').map(|r| r.trim_matches([' ', '\t'])).filter(|r| !r.is_empty()) {
        out.push(match range.strip_prefix('-') {
            Some(n) => ByteRange::Suffix(number(n)?),
            None => {
                let (first, last) = first_last(range)?;
                ByteRange::From { first, last }
            }
        });
        if out.len() > BYTE_RANGES {
            return None;
        }
    }
    (!out.is_empty()).then_some(out)
}

fn pages(range: &str) -> Option<Range> {
    let (range, stripe) = match range.split_once(';') {
        Some((range, parameter)) => (range, Some(stripe(parameter)?)),
        None => (range, None),
    };
    if let Some(n) = range.strip_prefix('-') {
        return (stripe.is_none()).then_some(Range::LastPages(number(n)?));
    }
    let (first, last) = first_last(range)?;
    // The largest last page is the open end.
    let last = last.filter(|l| *l < ENDLESS);
    (first < limits::PAGES).then_some(Range::Pages(PageSet { first, last, stripe }))
}

fn stripe(parameter: &str) -> Option<Stripe> {
    let mut numbers = parameter.trim_matches(' ').strip_prefix("stripe=")?.splitn(3, '/');
    let mut next = || numbers.next().map(|n| number(n).and_then(|n| u16::try_from(n).ok()));
    let (index, of) = (next()??, next()??);
    let group = match next() {
        Some(group) => group?,
        None => 1,
    };
    Stripe::new(index, of, group)
}

fn time(range: &str) -> Option<Range> {
    let (range, include_setup) = match range.split_once(';') {
        Some((range, option)) if option.trim_matches(' ') == "include-setup" => (range, true),
        Some(_) => return None,
        None => (range, false),
    };
    let (from, to) = range.split_once('-')?;
    let from = if from.is_empty() { 0 } else { npt(from)? };
    let to = if to.is_empty() { None } else { Some(npt(to)?) };
    (to.is_none_or(|t| from < t)).then_some(Range::Time { from, to, include_setup })
}

/// Normal play time (Media Fragments URI 1.0, section 4.2.1): seconds, or hours and minutes before them; to microseconds.
#[must_use]
pub fn npt(s: &str) -> Option<u64> {
    let (whole, fraction) = s.split_once('.').unwrap_or((s, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let parts: Vec<&str> = whole.split(':').collect();
    let seconds = match parts[..] {
        [s] => number(s)?,
        [m, s] => clock(0, m, s)?,
        [h, m, s] => clock(number(h)?, m, s)?,
        _ => return None,
    };
    let micros = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = micros.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    // So much that it lies behind the end of any media, and no sum overflows.
    Some(seconds.saturating_mul(1_000_000).saturating_add(micros).min(i64::MAX as u64))
}

fn clock(hours: u64, minutes: &str, seconds: &str) -> Option<u64> {
    let part = |s: &str| number(s).filter(|n| s.len() == 2 && *n < 60);
    hours.checked_mul(3600)?.checked_add(part(minutes)? * 60 + part(seconds)?)
}

/// Microseconds as normal play time, in seconds.
#[must_use]
pub fn to_npt(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

/// A `Range` value for a set of pages.
#[must_use]
pub fn range_of_pages(set: &PageSet) -> String {
    format!("pages={set}")
}

/// A `Content-Range` value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// Its unit.
    pub unit: Unit,
    /// First and last that are sent; none: nothing of what was asked for is there (416).
    pub span: Option<(u64, u64)>,
    /// How many there are; none: not known, or without end.
    pub total: Option<u64>,
    /// Of the pages, only these.
    pub stripe: Option<Stripe>,
}

impl ContentRange {
    /// Reads the value of a `Content-Range` field.
    #[must_use]
    pub fn parse(value: &str) -> Option<ContentRange> {
        let (unit, rest) = value.trim().split_once(' ')?;
        let is = |u: Unit| unit.eq_ignore_ascii_case(u.name());
        let unit = [Unit::Bytes, Unit::Pages, Unit::Proofs].into_iter().find(|u| is(*u))?;
        let (rest, stripe) = match rest.split_once(';') {
            Some((rest, parameter)) if unit == Unit::Pages => (rest, Some(stripe(parameter)?)),
            Some(_) => return None,
            None => (rest, None),
        };
        let (span, total) = rest.trim_matches(' ').split_once('/')?;
        let total = if total == "*" { None } else { Some(number(total)?) };
        let span = match span {
            "*" => None,
            span => {
                let (first, last) = first_last(span)?;
                Some((first, last.filter(|l| total.is_none_or(|t| *l < t))?))
            }
        };
        Some(ContentRange { unit, span, total, stripe })
    }
}

impl std::fmt::Display for ContentRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.unit.name())?;
        match self.span {
            Some((first, last)) => write!(f, "{first}-{last}/")?,
            None => f.write_str("*/")?,
        }
        match self.total {
            Some(total) => write!(f, "{total}")?,
            None => f.write_str("*")?,
        }
        if let Some(s) = self.stripe {
            write!(f, ";stripe={}/{}/{}", s.index, s.of, s.group)?;
        }
        Ok(())
    }
}

/// The strong entity tag of one version of a media.
#[must_use]
pub fn etag(media: &MediaId, version: u64) -> String {
    format!("\"{media}-{version}\"")
}

/// What an entity tag of ours names.
#[must_use]
pub fn media_of_etag(tag: &str) -> Option<(MediaId, u64)> {
    let inner = tag.trim().strip_prefix('"')?.strip_suffix('"')?;
    let (id, version) = inner.split_once('-')?;
    Some((MediaId::from_hex(id)?, number(version)?))
}

/// Whether `tag` stands in a list of entity tags (`If-Match`, `If-None-Match`), or the list is `*`. A weak one matches only
/// if `weak` (RFC 9110, section 8.8.3.2).
#[must_use]
pub fn lists_tag(list: &str, tag: &str, weak: bool) -> bool {
    list.trim() == "*"
        || list.split(',').map(str::trim).any(|t| t == tag || weak && t.strip_prefix("W/") == Some(tag))
}

/// The `Authorization` value that carries a ticket (RFC 6750): base64url (RFC 4648, section 5, without padding) of its CBOR.
#[must_use]
pub fn bearer(ticket: &Ticket) -> String {
    format!("Bearer {}", URL_SAFE_NO_PAD.encode(frame::encode(ticket)))
}

/// The ticket of an `Authorization` value; none if it is no ticket.
#[must_use]
pub fn ticket(authorization: &str) -> Option<Ticket> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Bearer") || token.len() > 2 * limits::TICKET {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token.trim_matches(' ').trim_end_matches('=')).ok()?;
    let ticket: Ticket = frame::decode(&bytes).ok()?;
    (ticket.body.len() <= limits::TICKET).then_some(ticket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(first: u64, last: Option<u64>, stripe: Option<Stripe>) -> Range {
        Range::Pages(PageSet { first, last, stripe })
    }

    #[test]
    fn ranges_are_read_as_the_specification_says() {
        use ByteRange::{From, Suffix};
        let stripe = |i, of, g| Stripe::new(i, of, g);
        let bytes = |r: &[ByteRange]| Range::Bytes(r.to_vec());
        let time = |from, to, include_setup| Range::Time { from, to, include_setup };
        for (value, want) in [
            ("bytes=0-99", bytes(&[From { first: 0, last: Some(99) }])),
            ("Bytes=5-", bytes(&[From { first: 5, last: None }])),
            ("bytes=-7", bytes(&[Suffix(7)])),
            (
                "bytes=0-0, 5-9,,-1",
                bytes(&[From { first: 0, last: Some(0) }, From { first: 5, last: Some(9) }, Suffix(1)]),
            ),
            ("bytes=9-5", Range::Ignored),
            ("bytes=", Range::Ignored),
            ("bytes=+1-2", Range::Ignored),
            ("bytes=a-b", Range::Ignored),
            ("bytes 0-1", Range::Ignored),
            ("seconds=1-2", Range::Ignored),
            ("", Range::Ignored),
            ("bytes=0-99999999999999999999999", bytes(&[From { first: 0, last: Some(u64::MAX) }])),
            ("pages=10-19", set(10, Some(19), None)),
            ("PAGES=10-", set(10, None, None)),
            ("pages=10-1099511627775", set(10, None, None)),
            ("pages=10-;stripe=1/4", set(10, None, stripe(1, 4, 1))),
            ("pages=10-99; stripe=1/4/16", set(10, Some(99), stripe(1, 4, 16))),
            ("pages=-3", Range::LastPages(3)),
            ("pages=10-;stripe=4/4", Range::Refused(Unit::Pages)),
            ("pages=10-;stripe=1", Range::Refused(Unit::Pages)),
            ("pages=10-;stripe=1/4/0", Range::Refused(Unit::Pages)),
            ("pages=10-;stripe=1/4/1/1", Range::Refused(Unit::Pages)),
            ("pages=10-;colour=1", Range::Refused(Unit::Pages)),
            ("pages=0-1,4-5", Range::Refused(Unit::Pages)),
            ("pages=", Range::Refused(Unit::Pages)),
            ("pages=1099511627776-", Range::Refused(Unit::Pages)),
            ("proofs=0-3", Range::Proofs { first: 0, last: 3 }),
            ("proofs=7-", Range::Proofs { first: 7, last: ENDLESS }),
            ("proofs=7-1099511627776", Range::Refused(Unit::Proofs)),
            ("t:npt=10-20", time(10_000_000, Some(20_000_000), false)),
            ("t:npt=10-20;include-setup", time(10_000_000, Some(20_000_000), true)),
            ("t:npt=-0:10.5", Range::Refused(Unit::Time)),
            ("t:npt=-00:10.5", time(0, Some(10_500_000), false)),
            ("t:npt=1:02:03.0000019-", time(3_723_000_001, None, false)),
            ("t:npt=20-10", Range::Refused(Unit::Time)),
            ("t:npt=10-20;exclude", Range::Refused(Unit::Time)),
        ] {
            assert_eq!(Range::parse(value), want, "{value}");
        }
    }

    #[test]
    fn byte_ranges_within_a_length() {
        let from = |first, last| ByteRange::From { first, last };
        assert_eq!(from(0, None).within(10), Some((0, 9)));
        assert_eq!(from(9, Some(100)).within(10), Some((9, 9)));
        assert_eq!(from(10, None).within(10), None);
        assert_eq!(ByteRange::Suffix(3).within(10), Some((7, 9)));
        assert_eq!(ByteRange::Suffix(30).within(10), Some((0, 9)));
        assert_eq!(ByteRange::Suffix(0).within(10), None);
    }

    #[test]
    fn content_ranges_are_read_strictly() {
        for good in [
            "pages 10-19/230",
            "bytes 0-0/1",
            "pages */230",
            "pages 10-1099511627775/*",
            "pages 3-9/10;stripe=1/2/3",
            "proofs 0-1/2",
        ] {
            assert_eq!(ContentRange::parse(good).map(|c| c.to_string()).as_deref(), Some(good));
        }
        for bad in [
            "pages 10-19",
            "pages 19-10/230",
            "pages 10-230/230",
            "seconds 1-2/3",
            "bytes 0-1/2;stripe=0/1/1",
            "pages 1-/2",
            "pages",
        ] {
            assert_eq!(ContentRange::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn entity_tags() {
        let id = MediaId([7; 32]);
        let tag = etag(&id, 3);
        assert_eq!(media_of_etag(&tag), Some((id, 3)));
        assert!(lists_tag(&format!("\"a\", {tag}"), &tag, false) && lists_tag("*", &tag, false));
        assert!(!lists_tag(&format!("W/{tag}"), &tag, false) && lists_tag(&format!("W/{tag}"), &tag, true));
    }

    #[test]
    fn tickets_travel_as_bearer_tokens() {
        use iceshare::icet::ticket::TicketBody;
        use iceshare::icet::{PeerKey, TicketKey};
        let body = TicketBody {
            tracker: PeerKey([1; 32]),
            epoch: 2,
            assignment: 3,
            receiver: PeerKey([4; 32]),
            host: PeerKey([5; 32]),
            media: MediaId([6; 32]),
            version: 7,
            pages: PageSet::range(8, 9),
            protocol: "http".parse().unwrap_or_else(|_| unreachable!()),
            rate: None,
            expiry: 10,
            need: iceshare::icet::message::Need::Bulk,
        };
        let issued = TicketKey([9; 32]).issue(&body);
        let value = bearer(&issued);
        assert_eq!(ticket(&value), Some(issued.clone()));
        assert_eq!(ticket(&value.replace("Bearer", "bearer")), Some(issued));
        for bad in ["", "Bearer", "Bearer ", "Bearer !!!!", "Basic dTpw", &value[..value.len() - 5]] {
            assert_eq!(ticket(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(first in 0..limits::PAGES - 1, len in prop::option::of(0u64..1000), s in prop::option::of((0u16..20, 1u16..20, 1u16..100))) {
            let last = len.map(|l| (first + l).min(ENDLESS - 1)).filter(|l| *l >= first);
            let stripe = s.and_then(|(i, of, g)| Stripe::new(i, of, g));
            let set = PageSet { first, last, stripe };
            prop_assert_eq!(Range::parse(&range_of_pages(&set)), Range::Pages(set));
        }

        #[test]
        fn anything_is_read_without_panic(text in "\\PC{0,60}") {
            let _ = (Range::parse(&text), ContentRange::parse(&text), ticket(&text), media_of_etag(&text), npt(&text));
        }

        #[test]
        fn near_misses_too(text in "(bytes|pages|proofs|t:npt)[= ][-0-9;:,./a-z* ]{0,30}") {
            let _ = (Range::parse(&text), ContentRange::parse(&text));
        }

        #[test]
        fn times_survive(us in 0..i64::MAX as u64) {
            prop_assert_eq!(npt(&to_npt(us)), Some(us));
        }
    }
}
