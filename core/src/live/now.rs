//! What is on, as the stream itself says it: the tags of its present link. Sans-IO.

use crate::html::is_bidi_control;
use crate::ogg::{Codec, Comments, PageHeader, Timeline};

/// A title has so many bytes at most; what is longer is cut.
const TITLE: usize = icet::limits::TITLE;

/// Follows the pages of live media, and tells when another title is on, or other codecs.
#[derive(Debug, Default)]
pub struct NowOn {
    timeline: Timeline,
    title: Option<String>,
    /// The link whose codecs these are.
    link: Option<u64>,
    codecs: Vec<Codec>,
    /// Those before, until somebody asks.
    changed: Option<Vec<Codec>>,
}

impl NowOn {
    /// Looks at the next page. Whether another title is on from it on, or none any more.
    pub fn page(&mut self, header: &PageHeader, bytes: &[u8]) -> bool {
        let place = self.timeline.page(header, bytes);
        // Behind its setup pages a link has said all.
        if place.setup {
            return false;
        }
        if self.link.replace(place.link) != Some(place.link) {
            let streams = self.timeline.link().map(|l| l.streams.as_slice()).unwrap_or_default();
            let codecs = streams.iter().map(|s| s.format.codec).collect();
            let before = std::mem::replace(&mut self.codecs, codecs);
            self.changed = Some(before).filter(|before| !before.is_empty() && *before != self.codecs);
        }
        let title = self.timeline.link_comments().and_then(title);
        let other = title != self.title;
        self.title = title;
        other
    }

    /// Artist and title of what is on; of a stranger, to be escaped.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// Codecs of the present link's logical streams, in their order.
    #[must_use]
    pub fn codecs(&self) -> &[Codec] {
        &self.codecs
    }

    /// Codecs of the link before, if the last page began one with others; told once.
    pub fn changed_from(&mut self) -> Option<Vec<Codec>> {
        self.changed.take()
    }
}

/// Artist and title, as far as they are there, without what turns the reading direction.
pub(super) fn title(comments: &Comments) -> Option<String> {
    let parts: Vec<&str> = ["ARTIST", "TITLE"].into_iter().filter_map(|n| comments.get(n)).collect();
    let mut title = parts.join(" - ");
    title.retain(|c| !is_bidi_control(c));
    title.truncate(title.floor_char_boundary(TITLE));
    (!title.is_empty()).then_some(title)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::live::Titles;
    use crate::live::tests::opus;

    #[test]
    fn titles_are_told_when_their_links_sound() {
        let (mut now, mut titles, mut told) = (NowOn::default(), Titles::default(), Vec::new());
        let mut look = |header: &PageHeader, bytes: &Bytes| {
            if now.page(header, bytes) {
                told.push(now.title().map(str::to_owned));
            }
        };
        for (i, page) in opus(7, 9).into_iter().enumerate() {
            let tags = match i {
                3 => vec![("ARTIST", "a".to_owned()), ("TITLE", "b".to_owned())],
                5 => vec![("TITLE", "ü".repeat(200))],
                6 => vec![("TITLE", "abc\u{202e}gpj.exe\u{61c}".to_owned())],
                7 => vec![("ALBUM", "c".to_owned())],
                _ => Vec::new(),
            };
            if !tags.is_empty() {
                titles.set(tags.into_iter().map(|(n, v)| (n.to_owned(), v)).collect()).unwrap();
            }
            let header = PageHeader::parse(&page).unwrap();
            titles.page(&header, page).iter().for_each(|(h, p)| look(h, p));
        }
        assert_eq!(
            told,
            [Some("a - b".to_owned()), Some("ü".repeat(128)), Some("abcgpj.exe".to_owned()), None]
        );
    }
}
