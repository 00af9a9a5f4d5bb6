//! Titles and tags: Vorbis comments, which all codecs in Ogg share (<https://xiph.org/vorbis/doc/v-comment.html>).

/// Most tags that are kept.
pub const MAX_TAGS: usize = 64;
/// So many bytes of a tag are kept at most, of name, `=` and value together: longer ones are cut. Pictures are passed over.
pub const MAX_TAG_LEN: usize = 1024;
/// Names of tags that hold pictures, of which a part is worth nothing.
const PICTURES: [&str; 2] = ["METADATA_BLOCK_PICTURE", "COVERART"];

/// Tags, in their order. They are a stranger's words: escape them before showing them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comments {
    tags: Vec<(String, String)>,
}

impl Comments {
    /// Names in upper case, and values. At most [`MAX_TAGS`]; a name may occur several times.
    #[must_use]
    pub fn tags(&self) -> &[(String, String)] {
        &self.tags
    }

    /// The first value of a tag; its name in upper case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.tags.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The title, if there is one.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.get("TITLE")
    }

    /// Adds the tags of another logical stream that are not there yet.
    pub(super) fn merge(&mut self, other: Comments) {
        for tag in other.tags {
            if self.tags.len() < MAX_TAGS && !self.tags.contains(&tag) {
                self.tags.push(tag);
            }
        }
    }

    /// Adds one `NAME=value`, if it is one; or the beginning of one that is longer than what is kept.
    fn add(&mut self, comment: &[u8], is_cut: bool) {
        let text = String::from_utf8_lossy(comment);
        // Bytes that were no UTF-8 have grown.
        let kept = text.get(..text.floor_char_boundary(MAX_TAG_LEN)).unwrap_or_default();
        // The cut may be in the middle of a character.
        let kept = if is_cut { kept.trim_end_matches(char::REPLACEMENT_CHARACTER) } else { kept };
        let Some((name, value)) = kept.split_once('=') else { return };
        let is_name = !name.is_empty() && name.bytes().all(|byte| (0x20..=0x7d).contains(&byte));
        let name = name.to_ascii_uppercase();
        let is_worthless = is_cut && PICTURES.contains(&name.as_str());
        if is_name && !is_worthless && self.tags.len() < MAX_TAGS {
            self.tags.push((name, value.to_owned()));
        }
    }
}

/// Reads comments that come in parts, in bounded memory: a picture of megabytes is passed over, not held.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    state: State,
    /// Bytes of the field being read.
    field: Vec<u8>,
    /// Comments still to come.
    left: u32,
    found: Comments,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes to pass over, then a number.
    Skip {
        bytes: u64,
        then: Number,
    },
    Read(Number),
    /// A comment of which `len` bytes are kept, and more to be passed over.
    Comment {
        len: usize,
        more: u64,
    },
    Done,
}

#[derive(Debug, Clone, Copy)]
enum Number {
    VendorLen,
    Count,
    CommentLen,
}

impl Reader {
    /// `prefix`: bytes of the packet ahead of the comments proper.
    pub(super) fn new(prefix: usize) -> Self {
        let state = State::Skip { bytes: prefix as u64, then: Number::VendorLen };
        Self { state, field: Vec::new(), left: 0, found: Comments::default() }
    }

    /// Takes the next part of the packet.
    pub(super) fn push(&mut self, mut part: &[u8]) {
        loop {
            match self.state {
                State::Skip { bytes, then } => {
                    let skip = usize::try_from(bytes).map_or(part.len(), |bytes| bytes.min(part.len()));
                    part = &part[skip..];
                    let bytes = bytes - skip as u64;
                    if bytes > 0 {
                        self.state = State::Skip { bytes, then };
                        return;
                    }
                    self.state = State::Read(then);
                }
                State::Read(number) => {
                    if !self.fill(&mut part, 4) {
                        return;
                    }
                    let value = self.field.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
                    self.field.clear();
                    self.number(number, value);
                }
                State::Comment { len, more } => {
                    if !self.fill(&mut part, len) {
                        return;
                    }
                    self.found.add(&self.field, more > 0);
                    self.field.clear();
                    self.comment_done(more);
                }
                State::Done => return,
            }
        }
    }

    /// Moves bytes to the field until it has `len`; false if there are too few.
    fn fill(&mut self, part: &mut &[u8], len: usize) -> bool {
        let (taken, rest) = part.split_at(part.len().min(len.saturating_sub(self.field.len())));
        self.field.extend_from_slice(taken);
        *part = rest;
        self.field.len() >= len
    }

    fn number(&mut self, number: Number, value: u32) {
        self.state = match number {
            Number::VendorLen => State::Skip { bytes: value.into(), then: Number::Count },
            Number::Count if value == 0 => State::Done,
            Number::Count => {
                self.left = value;
                State::Read(Number::CommentLen)
            }
            Number::CommentLen => {
                let len = usize::try_from(value).unwrap_or(MAX_TAG_LEN).min(MAX_TAG_LEN);
                State::Comment { len, more: u64::from(value).saturating_sub(len as u64) }
            }
        };
    }

    fn comment_done(&mut self, more: u64) {
        self.left -= 1;
        let full = self.left == 0 || self.found.tags.len() == MAX_TAGS;
        self.state = if full { State::Done } else { State::Skip { bytes: more, then: Number::CommentLen } };
    }

    /// What was found up to here. A packet cut off gives the tags before the cut.
    pub(super) fn finish(self) -> Comments {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(comments: &[&[u8]]) -> Vec<u8> {
        let mut packet = b"\x03vorbis\x04\0\0\0test".to_vec();
        packet.extend(u32::try_from(comments.len()).unwrap().to_le_bytes());
        for comment in comments {
            packet.extend(u32::try_from(comment.len()).unwrap().to_le_bytes());
            packet.extend_from_slice(comment);
        }
        packet
    }

    fn read(packet: &[u8], cut: usize) -> Comments {
        let mut reader = Reader::new(7);
        packet.chunks(cut).for_each(|part| reader.push(part));
        assert!(reader.field.capacity() <= 2 * MAX_TAG_LEN);
        reader.finish()
    }

    #[test]
    fn tags_come_out_in_upper_case_and_order() {
        let found = read(&packet(&[b"title=A \xc3\xa4", b"ARTIST=x=y", b"Artist=z", b"EMPTY="]), 3);
        let tags: Vec<_> = found.tags().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(tags, [("TITLE", "A ä"), ("ARTIST", "x=y"), ("ARTIST", "z"), ("EMPTY", "")]);
        assert_eq!((found.title(), found.get("ARTIST")), (Some("A ä"), Some("x=y")));
    }

    #[test]
    fn bad_tags_are_passed_over() {
        let picture = [&b"METADATA_BLOCK_PICTURE="[..], &[b'A'; 3_000_000]].concat();
        let found = read(
            &packet(&[b"no equals sign", b"=no name", b"na\xc3\xa4me=x", &picture, b"TITLE=t\xff"]),
            65_025,
        );
        assert_eq!(found.tags(), [("TITLE".to_owned(), "t\u{fffd}".to_owned())]);
    }

    #[test]
    fn long_tags_are_cut_where_a_character_ends() {
        // The cut is in the middle of a character.
        let long = ["TITLE=x".as_bytes(), "ü".repeat(2000).as_bytes()].concat();
        let grown = [&b"G="[..], &[0xff; 900]].concat();
        let found = read(&packet(&[&long, b"ARTIST=a", &grown, &long]), 100);
        let title = format!("x{}", "ü".repeat(508));
        assert_eq!(found.title(), Some(title.as_str()));
        assert_eq!((found.get("ARTIST"), found.get("G").map(str::len)), (Some("a"), Some(1020)));
        assert_eq!(found.tags().len(), 4);
    }

    #[test]
    fn numbers_are_bounded() {
        assert_eq!(read(&packet(&[&b"A=b"[..]].repeat(100)), 1000).tags().len(), MAX_TAGS);
        let longest = [&b"A="[..], &[b'x'; MAX_TAG_LEN - 2]].concat();
        let longer = [&longest[..], b"x"].concat();
        let found = read(&packet(&[&longer, &longest, &longer]), 10);
        assert!(
            found.tags().iter().all(|(_, value)| value.len() == MAX_TAG_LEN - 2) && found.tags().len() == 3
        );
        // Lengths that lie.
        let mut lie = packet(&[]);
        lie.truncate(19);
        lie.extend([0xff; 8]);
        lie.extend([b'x'; 100]);
        assert_eq!(read(&lie, 7), Comments::default());
        assert_eq!(read(b"\x03vorbis\xff\xff\xff\xff", 5), Comments::default());
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(bytes in proptest::collection::vec(prop_oneof![3 => Just(0_u8), 1 => 0_u8..8, 1 => any::<u8>()], 0..300), cut in 1_usize..50) {
            let packet = [b"\x03vorbis", &bytes[..]].concat();
            prop_assert_eq!(read(&packet, cut), read(&packet, usize::MAX));
        }
    }
}
