//! What is on, and in which codecs, as the stream itself says it.

use iceshare::Media;
use iceshare::live::NowOn;
use iceshare::ogg::{Codec, PageHeader};

use crate::escape::brief;
use crate::output::note;

/// Follows the pages of live media, and says when another title is on.
#[derive(Default)]
pub(crate) struct Now(NowOn);

impl Now {
    /// Looks at the next page.
    pub(crate) fn page(&mut self, bytes: &[u8]) {
        let Ok(header) = PageHeader::parse(bytes) else { return };
        let other = self.0.page(&header, bytes);
        if let Some(before) = self.0.changed_from() {
            note(format!("from here on {}, {} before", named(self.0.codecs()), named(&before)));
        }
        if other && let Some(title) = self.0.title() {
            note(format!("now: {}", brief(title)));
        }
    }
}

/// Codecs for people.
pub(crate) fn named(codecs: &[Codec]) -> String {
    codecs.iter().map(|c| c.name()).collect::<Vec<_>>().join(" and ")
}

/// Says what is on, of media that somebody else reads; never ends.
pub(crate) async fn tell(media: &Media) {
    let mut titles = media.heard_titles();
    while let Some(title) = titles.next().await {
        title.iter().for_each(|title| note(format!("now: {}", brief(title))));
    }
    std::future::pending().await
}
