//! What is on, as the stream itself says it.

use std::time::Duration;

use iceshare::Media;
use iceshare::live::NowOn;
use iceshare::ogg::PageHeader;
use tokio::time::Instant;

use crate::escape::brief;
use crate::output::note;

/// Follows the pages of live media, and says when another title is on.
#[derive(Default)]
pub(crate) struct Now(NowOn);

impl Now {
    /// Looks at the next page.
    pub(crate) fn page(&mut self, bytes: &[u8]) {
        let Ok(header) = PageHeader::parse(bytes) else { return };
        if self.0.page(&header, bytes)
            && let Some(title) = self.0.title()
        {
            note(format!("now: {}", brief(title)));
        }
    }
}

/// Says what is on, of media that somebody else reads; never ends.
pub(crate) async fn tell(media: &Media) {
    let (mut reader, mut now, mut begun) = (media.live_reader().quiet(), Now::default(), None);
    // How it ends is told otherwise.
    while let Ok(Some(page)) = reader.next().await {
        // What was on earlier comes at once, and is heard one after the other.
        if !page.ahead {
            let (at, first) = *begun.get_or_insert((Instant::now(), page.time));
            let heard =
                u64::try_from(page.time.saturating_sub(first)).map_or(Duration::ZERO, Duration::from_micros);
            tokio::time::sleep_until(at + heard).await;
        }
        now.page(&page.bytes);
    }
    std::future::pending().await
}
