//! Whether the other end of a connection is still heard of, as far as requests tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Who has heard nothing for so long when a request is given up doubts that the other end is still there.
pub const DOUBT: Duration = Duration::from_millis(900);

/// Of one connection: a request over it was given up of which nothing more was heard. Carriers notice late that the other end is gone, or that
/// the way there passes again after it was cut (as late as that took, at worst), so a new request is better off with a new
/// connection.
#[derive(Debug, Clone, Default)]
pub struct Doubt(Arc<AtomicBool>);

impl Doubt {
    /// Whether there is one. It is over as soon as anything is heard.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// For one request, from its beginning until it is dropped.
    #[must_use]
    pub fn listen(&self) -> Listening {
        Listening { doubt: self.clone(), since: Instant::now() }
    }
}

/// A request under way, see [`Doubt::listen`].
#[derive(Debug)]
pub struct Listening {
    doubt: Doubt,
    since: Instant,
}

impl Listening {
    /// Something of the request came.
    pub fn heard(&mut self) {
        self.since = Instant::now();
        self.doubt.0.store(false, Ordering::Relaxed);
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if self.since.elapsed() > DOUBT {
            self.doubt.0.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_hears_nothing_until_it_gives_up_doubts_and_whoever_hears_something_does_not() {
        let doubt = Doubt::default();
        let (mut one, other) = (doubt.listen(), doubt.listen());
        tokio::time::advance(DOUBT * 2).await;
        one.heard();
        drop(other);
        assert!(doubt.is_raised());
        one.heard();
        assert!(!doubt.is_raised());
        drop(one);
        assert!(!doubt.is_raised(), "it was heard just now");
    }
}
