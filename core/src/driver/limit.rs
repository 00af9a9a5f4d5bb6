//! The download limit, over all fetches together.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Bytes a second that may be taken from the network; what is not taken is held back by the flow control of each
/// connection.
#[derive(Debug)]
pub(crate) struct DownLimit(Option<(DefaultDirectRateLimiter, NonZeroU32)>);

impl DownLimit {
    /// `rate` in bytes a second; none: no limit.
    pub(crate) fn new(rate: Option<u64>) -> DownLimit {
        DownLimit(rate.map(|r| {
            let per_second = NonZeroU32::new(u32::try_from(r).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
            // A tenth of a second, but at least one read's worth.
            let burst = NonZeroU32::new((per_second.get() / 10).max(16 * 1024)).unwrap_or(per_second);
            (RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)), burst)
        }))
    }

    /// Waits until `n` bytes more are within the limit.
    pub(crate) async fn take(&self, n: usize) {
        let Some((limiter, burst)) = &self.0 else { return };
        let mut left = u32::try_from(n).unwrap_or(u32::MAX);
        while let Some(part) = NonZeroU32::new(left.min(burst.get())) {
            // Within the burst, so it cannot be refused.
            if limiter.until_n_ready(part).await.is_err() {
                return;
            }
            left -= part.get();
        }
    }
}
