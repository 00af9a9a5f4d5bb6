//! Why nothing comes, for people: what the tracker said, and what our own tries met.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use icet::message::Shortage;
use icet::{PeerKey, ProtocolName};

use crate::protocol::TransportError;

/// Ways that are remembered.
const WAYS: usize = 64;

/// A way by which a fetch failed, and nothing came since.
#[derive(Debug, Clone)]
pub struct FetchFailure {
    /// The host that was asked.
    pub host: PeerKey,
    /// Over what.
    pub protocol: ProtocolName,
    /// What happened. Partly a stranger's text: to be escaped before it is shown.
    pub error: Arc<TransportError>,
    /// When.
    pub at: Instant,
}

/// What stands in the way of one media.
#[derive(Debug, Default)]
pub(crate) struct Standstill {
    pub(crate) shortage: Option<Shortage>,
    failures: BTreeMap<(PeerKey, ProtocolName), (Arc<TransportError>, Instant)>,
}

impl Standstill {
    pub(crate) fn failed(&mut self, now: Instant, host: PeerKey, protocol: &ProtocolName, e: TransportError) {
        let way = (host, protocol.clone());
        if self.failures.len() >= WAYS && !self.failures.contains_key(&way) {
            let oldest = self.failures.iter().min_by_key(|(_, (_, at))| *at).map(|(way, _)| way.clone());
            oldest.into_iter().for_each(|way| drop(self.failures.remove(&way)));
        }
        self.failures.insert(way, (Arc::new(e), now));
    }

    pub(crate) fn came(&mut self, host: PeerKey, protocol: &ProtocolName) {
        if !self.failures.is_empty() {
            self.failures.remove(&(host, protocol.clone()));
        }
    }

    /// The latest first.
    pub(crate) fn failures(&self) -> Vec<FetchFailure> {
        let all = self.failures.iter().map(|((host, protocol), (error, at))| FetchFailure {
            host: *host,
            protocol: protocol.clone(),
            error: error.clone(),
            at: *at,
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|f| std::cmp::Reverse(f.at));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::protocol::ErrorKind;

    #[test]
    fn failures_are_kept_by_way_until_something_comes() {
        let (mut s, begin) = (Standstill::default(), Instant::now());
        let name = |n: &str| n.parse::<ProtocolName>().expect("a name");
        let error = |text: &str| TransportError::new(ErrorKind::Unreachable, text);
        let at = |n| begin + Duration::from_millis(n);
        s.failed(at(1), PeerKey([1; 32]), &name("http"), error("no answer"));
        s.failed(at(2), PeerKey([1; 32]), &name("quic"), error("refused"));
        s.failed(at(3), PeerKey([1; 32]), &name("http"), error("no answer at all"));
        let said: Vec<_> =
            s.failures().into_iter().map(|f| (f.protocol.to_string(), f.error.context.clone())).collect();
        assert_eq!(
            said,
            [("http".to_owned(), "no answer at all".to_owned()), ("quic".to_owned(), "refused".to_owned())]
        );
        s.came(PeerKey([1; 32]), &name("http"));
        assert_eq!(s.failures().len(), 1);
        for i in 0..200 {
            s.failed(at(10 + u64::from(i)), PeerKey([i; 32]), &name("udp"), error("x"));
        }
        assert_eq!(s.failures().len(), WAYS);
        assert_eq!(s.failures().first().map(|f| f.host), Some(PeerKey([199; 32])));
    }
}
