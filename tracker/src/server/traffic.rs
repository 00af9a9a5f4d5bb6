//! What the server itself counts; all else is counted by the swarm.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Traffic {
    pub(super) sessions_quic: AtomicU64,
    pub(super) sessions_tls: AtomicU64,
    pub(super) messages_in: AtomicU64,
    pub(super) messages_out: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) slow: AtomicU64,
    pub(super) dials_proved: AtomicU64,
    pub(super) dials_failed: AtomicU64,
}

/// [`Traffic`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrafficCounts {
    /// Sessions that came over QUIC.
    pub sessions_quic: u64,
    /// Sessions that came over TLS on TCP.
    pub sessions_tls: u64,
    /// Messages from peers.
    pub messages_in: u64,
    /// Messages to peers.
    pub messages_out: u64,
    /// Bytes of frames from peers.
    pub bytes_in: u64,
    /// Bytes of frames to peers.
    pub bytes_out: u64,
    /// Sessions closed because the peer did not read.
    pub slow: u64,
    /// Dial-backs that found the key.
    pub dials_proved: u64,
    /// Dial-backs that did not.
    pub dials_failed: u64,
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Traffic {
    /// Reads all counters.
    #[must_use]
    pub fn counts(&self) -> TrafficCounts {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        TrafficCounts {
            sessions_quic: get(&self.sessions_quic),
            sessions_tls: get(&self.sessions_tls),
            messages_in: get(&self.messages_in),
            messages_out: get(&self.messages_out),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            slow: get(&self.slow),
            dials_proved: get(&self.dials_proved),
            dials_failed: get(&self.dials_failed),
        }
    }
}
