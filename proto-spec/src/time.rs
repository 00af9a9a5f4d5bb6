//! Clocks. **Now** is monotonic and local; it never goes on the wire.

use std::time::Duration;

/// A moment on a monotonic clock of this process (or of a simulator), in microseconds from its own origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Now(pub u64);

impl Now {
    /// The origin of the clock.
    pub const ZERO: Now = Now(0);

    /// The moment `d` after the clock's origin.
    #[must_use]
    pub fn from_origin(d: Duration) -> Now {
        Now(u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
    }

    /// Time since `earlier`, zero if that lies in the future.
    #[must_use]
    pub fn since(self, earlier: Now) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Now {
    type Output = Now;
    fn add(self, d: Duration) -> Now {
        Now(self.0.saturating_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX)))
    }
}
