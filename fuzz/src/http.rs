//! Targets of `iceshare-transport-http`.

use iceshare_transport_http::wire::{self, Bytes, Range};

/// A header's value: `Range`, `Content-Range` and `Authorization`.
pub fn wire(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Range::parse(text) {
        Some(Range::Pages(set)) => {
            assert!(set.last.is_none_or(|l| l >= set.first));
            assert_eq!(Range::parse(&format!("pages={set}")), Some(Range::Pages(set)));
            let _ = set.count(1_000_000);
        }
        Some(Range::Bytes(bytes)) => {
            for len in [0, 1, 1000, u64::MAX] {
                if let Some((first, last)) = bytes.within(len) {
                    assert!(first <= last && last < len);
                }
            }
            let again = match bytes {
                Bytes::From(first, Some(last)) => format!("bytes={first}-{last}"),
                Bytes::From(first, None) => format!("bytes={first}-"),
                Bytes::Last(n) => format!("bytes=-{n}"),
            };
            assert_eq!(Range::parse(&again), Some(Range::Bytes(bytes)));
        }
        Some(Range::Time { from, to, setup }) => {
            assert!(to.is_none_or(|t| t > from));
            let (to, setup) =
                (to.map(wire::npt_text).unwrap_or_default(), if setup { ";include-setup" } else { "" });
            assert_eq!(
                Range::parse(&format!("t:npt={}-{to}{setup}", wire::npt_text(from))),
                Range::parse(text),
                "times survive"
            );
        }
        Some(Range::Proofs { first, last }) => assert!(first <= last),
        None => {}
    }
    if let Some((_, first, last)) = wire::content_range(text) {
        assert!(first <= last);
    }
    if let Some(ticket) = wire::ticket(text) {
        assert_eq!(wire::ticket(&wire::bearer(&ticket)), Some(ticket));
    }
}
