//! What is on, as the stream itself says it.

use iceshare::Media;
use iceshare::ogg::{Comments, PageHeader, Timeline};

use crate::escape::brief;
use crate::output::note;

/// Follows the pages of live media, and says when another title is on.
#[derive(Default)]
pub(crate) struct Now {
    timeline: Timeline,
    told: Option<String>,
}

impl Now {
    /// Looks at the next page.
    pub(crate) fn page(&mut self, bytes: &[u8]) {
        let Ok(header) = PageHeader::parse(bytes) else { return };
        self.timeline.page(&header, bytes);
        let Some(title) = self.timeline.link_comments().and_then(title) else { return };
        if self.told.as_ref() != Some(&title) {
            note(format!("now: {}", brief(&title)));
            self.told = Some(title);
        }
    }
}

/// Artist and title, as far as they are there.
fn title(comments: &Comments) -> Option<String> {
    let parts: Vec<&str> = ["ARTIST", "TITLE"].into_iter().filter_map(|n| comments.get(n)).collect();
    (!parts.is_empty()).then(|| parts.join(" - "))
}

/// Says what is on, of media that somebody else reads; never ends.
pub(crate) async fn tell(media: &Media) {
    let (mut reader, mut now) = (media.live_reader().quiet(), Now::default());
    // How it ends is told otherwise.
    while let Ok(Some(page)) = reader.next().await {
        now.page(&page.bytes);
    }
    std::future::pending().await
}
