//! What a reader of live media could not give, for people.

use std::time::Duration;

use icet::PageNo;
use tokio::sync::broadcast::{self, error::RecvError};

use super::Media;

/// Notices that wait for who asks too slowly; the older ones are lost.
pub(super) const WAITING: usize = 16;

/// That something of live media is left out, or begins elsewhere than asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Nobody keeps what was on then: a reader begins with the oldest there is.
    BeginsLater {
        /// How long ago that was on that was asked for.
        back: Duration,
        /// How much later it begins.
        later: Duration,
    },
    /// A reader was too slow for the window that is kept, and goes on further ahead.
    FellBehind {
        /// Pages that are left out.
        pages: u64,
        /// How long they sound.
        lost: Duration,
    },
    /// Pages did not come in time, or not at all, and are left out.
    LeftOut {
        /// The first of them.
        first: PageNo,
        /// How many; none: nobody knows, since nothing behind them is here either.
        pages: Option<u64>,
    },
}

/// Notices of a media, as they come.
#[derive(Debug)]
pub struct Notices(broadcast::Receiver<Notice>);

impl Notices {
    /// Waits for the next one. None: there are none any more.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            match self.0.recv().await {
                Ok(notice) => return Some(notice),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl Media {
    /// What readers of live media could not give, from now on. Where nobody asks, the log has it.
    #[must_use]
    pub fn notices(&self) -> Notices {
        Notices(self.shared.notices.subscribe())
    }

    pub(super) fn notice(&self, notice: Notice) {
        if self.shared.notices.send(notice).is_err() {
            tracing::warn!(?notice, "live media");
        }
    }
}
