//! How much a path to another peer can hold.

use std::time::Duration;

/// Bytes a microsecond that we want to fill a path with: 2.5 Gbit/s.
const FASTEST: u64 = 312;
/// Bytes in flight that any path may have: enough that nothing waits for us.
const LEAST: u64 = 512 << 10;

/// Most bytes that are worth having in flight on a path whose shortest round trip was `shortest` (a very long one, if it is not known
/// yet). More only waits in queues, as on loopback, where no loss ends the growth of a congestion window; and bytes that waited
/// are in no cache any more when their turn comes.
#[must_use]
pub fn pipe(shortest: Duration) -> u64 {
    u64::try_from(shortest.as_micros()).unwrap_or(u64::MAX).saturating_mul(FASTEST).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_paths_hold_little_and_far_ones_much() {
        assert_eq!(pipe(Duration::from_micros(150)), 512 << 10);
        assert!(pipe(Duration::from_millis(100)) > 16 << 20);
        assert_eq!(pipe(Duration::MAX), u64::MAX);
    }
}
