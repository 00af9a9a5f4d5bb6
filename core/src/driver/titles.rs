//! What is on where one listens: titles, when they are heard.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{LiveReader, Media};
use crate::live::NowOn;
use crate::ogg::PageHeader;

/// The titles of live media as who listens from where this peer came in (or so much earlier as it was opened with) hears them, from now on
/// and without a pause.
#[derive(Debug)]
pub struct HeardTitles {
    reader: LiveReader,
    now: NowOn,
    /// When the first page was heard, and its time.
    begun: Option<(Instant, i64)>,
}

impl HeardTitles {
    /// Waits until something else is on, and tells it: a stranger's text, to be escaped; the inner none if nothing says what is on. None:
    /// nothing comes any more.
    pub async fn next(&mut self) -> Option<Option<String>> {
        loop {
            // How it ends is told otherwise.
            let page = self.reader.next().await.ok().flatten()?;
            // What was on earlier comes at once, and is heard one after the other.
            if !page.ahead {
                let (at, first) = *self.begun.get_or_insert((Instant::now(), page.time));
                let heard = u64::try_from(page.time.saturating_sub(first)).unwrap_or(0);
                sleep_until(at + Duration::from_micros(heard)).await;
            }
            let header = PageHeader::parse(&page.bytes).ok()?;
            if self.now.page(&header, &page.bytes) {
                return Some(self.now.title().map(str::to_owned));
            }
        }
    }
}

impl Media {
    /// Follows the titles of live media, beside who reads them.
    #[must_use]
    pub fn heard_titles(&self) -> HeardTitles {
        HeardTitles { reader: self.live_reader().quiet(), now: NowOn::default(), begun: None }
    }
}
