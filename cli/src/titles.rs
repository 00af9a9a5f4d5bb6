//! What is on, as the stream itself says it.

use iceshare::Media;
use iceshare::live::NowOn;
use iceshare::ogg::PageHeader;

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
    let mut titles = media.heard_titles();
    while let Some(title) = titles.next().await {
        title.iter().for_each(|title| note(format!("now: {}", brief(title))));
    }
    std::future::pending().await
}
