//! Headers of the HTTP transport.

use iceshare_transport_http::wire::{self, ContentRange, Range};

/// A header's text, read as everything that it could be: what is read can be written and read again.
pub fn wire(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Range::parse(text) {
        Range::Pages(set) => {
            assert!(set.last.is_none_or(|l| l >= set.first), "a set does not end before it begins");
            assert_eq!(Range::parse(&wire::range_of_pages(&set)), Range::Pages(set), "page sets survive");
        }
        Range::Bytes(ranges) => {
            for range in ranges {
                for len in [0, 1, 1000, u64::MAX] {
                    if let Some((first, last)) = range.within(len) {
                        assert!(first <= last && last < len, "within {len}");
                    }
                }
            }
        }
        Range::Time { from, to, include_setup } => {
            assert!(to.is_none_or(|t| t > from));
            let to = to.map(wire::to_npt).unwrap_or_default();
            let option = if include_setup { ";include-setup" } else { "" };
            let again = format!("t:npt={}-{to}{option}", wire::to_npt(from));
            assert_eq!(Range::parse(&again), Range::parse(text), "times survive");
        }
        Range::Proofs { first, last } => assert!(first <= last),
        Range::LastPages(_) | Range::Refused(_) | Range::Ignored => {}
    }
    if let Some(range) = ContentRange::parse(text) {
        assert!(range.span.is_none_or(|(first, last)| first <= last));
        assert_eq!(ContentRange::parse(&range.to_string()), Some(range), "content ranges survive");
    }
    if let Some(ticket) = wire::ticket(text) {
        assert_eq!(wire::ticket(&wire::bearer(&ticket)), Some(ticket), "tickets survive");
    }
    if let Some((media, version)) = wire::media_of_etag(text) {
        assert_eq!(wire::media_of_etag(&wire::etag(&media, version)), Some((media, version)));
    }
}
