//! How much a path to another peer can hold.

use std::time::Duration;

use tokio::net::TcpStream;

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

/// The round trip of a TCP connection, as far as it matters for how much the system holds of it.
pub const TCP_TRIP: Duration = Duration::from_millis(100);
/// A larger buffer is the system's business, which makes it as large as the path wants.
const TCP_HELD: u64 = 128 << 10;

/// Lets the system hold no more of a connection than so many bytes, on their way and before it, if that is little: what it kept while a line was
/// cut leaves all at once when it comes back.
pub fn hold_little(tcp: &TcpStream, bytes: u64) {
    if let Some(bytes) = usize::try_from(bytes).ok().filter(|_| bytes <= TCP_HELD) {
        // Best effort.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(tcp, bytes);
    }
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
