//! Checks an Ogg file page by page, and says where it is bad.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::ogg::{Codec, Damage, Link, PageHeader, ScanError, ScanEvent, ScanMode, Timeline, scan_reader};

/// Damages, and gaps, that are told one by one; the others are only counted.
pub const DAMAGES: usize = 1000;
/// Changes of codecs that are told.
pub const CODECS: usize = 100;
/// Logical streams at a time whose pages are counted.
const STREAMS: usize = 1024;
/// Pages between two calls of the progress function.
const STEP: u64 = 256;

/// A place where the pages of a logical stream do not follow one another, though each is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The logical stream's serial number.
    pub serial: u32,
    /// Where the page stands that should have another number, in bytes.
    pub offset: u64,
    /// The sequence number that it should have.
    pub expected: u32,
    /// The one that it has.
    pub found: u32,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { serial, offset, expected, found } = *self;
        let (ahead, behind) = (found.wrapping_sub(expected), expected.wrapping_sub(found));
        let s = |n| if n == 1 { "" } else { "s" };
        write!(f, "at offset {offset}: logical stream {serial:#010x} ")?;
        if ahead < behind {
            write!(f, "lacks {ahead} page{}: number {expected} should follow, it is {found}", s(ahead))
        } else {
            write!(
                f,
                "goes back by {behind} page{}: number {expected} should follow, it is {found}",
                s(behind)
            )
        }
    }
}

/// What is known of a logical stream.
#[derive(Debug, Clone, Copy)]
struct Counted {
    /// The next page's number.
    next: u32,
    /// The last page was marked as the end.
    ended: bool,
    /// Nothing but setup came yet.
    setup: bool,
}

/// Counts the pages of each logical stream.
#[derive(Debug, Default)]
struct Sequences(HashMap<u32, Counted>);

/// A break in a logical stream.
enum Break {
    Gap(Gap),
    Join(Gap),
}

impl Sequences {
    /// Looks at the next sound page.
    fn page(&mut self, header: &PageHeader, setup: bool, offset: u64) -> Option<Break> {
        let (serial, found) = (header.serial, header.sequence);
        // Each link of a chain counts anew, with the same serial number too.
        let before = if header.bos { None } else { self.0.get(&serial).copied() };
        if self.0.len() >= STREAMS && !self.0.contains_key(&serial) {
            // Those that ended are remembered only as long as there is room.
            self.0.retain(|_, s| !s.ended);
        }
        if self.0.len() < STREAMS || self.0.contains_key(&serial) {
            let setup = setup && before.is_none_or(|s| s.setup);
            self.0.insert(serial, Counted { next: found.wrapping_add(1), ended: header.eos, setup });
        }
        let before = before.filter(|s| s.next != found)?;
        let gap = Gap { serial, offset, expected: before.next, found };
        let ahead = found.wrapping_sub(before.next) < before.next.wrapping_sub(found);
        Some(if before.setup && !setup && ahead { Break::Join(gap) } else { Break::Gap(gap) })
    }

    /// Pages were lost to a damage that is told by itself: counting begins anew.
    fn damage(&mut self) {
        self.0.clear();
    }
}

/// What is in a file.
#[derive(Debug, Clone)]
pub struct VerifyReport {
    /// Sound pages.
    pub pages: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes that belong to no sound page.
    pub damaged_bytes: u64,
    /// Places that are bad, the first [`DAMAGES`] of them.
    pub damages: Vec<Damage>,
    /// How many there are.
    pub damage_count: u64,
    /// Places where sound pages of a logical stream are missing or repeated, the first [`DAMAGES`] of them. What damages
    /// took away does not count.
    pub gaps: Vec<Gap>,
    /// How many there are.
    pub gap_count: u64,
    /// Where a logical stream has its setup pages and then goes on further ahead, as who joins a broadcast in the middle hears and
    /// records it: the first pages behind such a jump. At most one a stream; they are no gaps.
    pub joins: Vec<Gap>,
    /// How long it lasts, in microseconds; 0 if no logical stream has times.
    pub duration: u64,
    /// Links of the chain.
    pub links: u64,
    /// The first link's logical streams; none if there is no sound page.
    pub first: Option<Link>,
    /// Codecs of the logical streams of the links, each time they are other ones than those of the link before; [`CODECS`] times at most.
    pub codecs: Vec<Vec<Codec>>,
    /// Its tags.
    pub tags: Vec<(String, String)>,
}

impl VerifyReport {
    /// Whether every byte belongs to a sound page.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage_count == 0
    }

    /// Whether the pages of each logical stream follow one another, as far as they are sound.
    #[must_use]
    pub fn is_gapless(&self) -> bool {
        self.gap_count == 0
    }
}

/// Why a file could not be checked at all.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// It cannot be opened or read.
    #[error("cannot read {file}")]
    Io {
        /// Which.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not Ogg.
    #[error("{file} is not an Ogg file: no Ogg page in its first {searched} bytes")]
    NotOgg {
        /// Which.
        file: PathBuf,
        /// How far was searched.
        searched: u64,
    },
}

/// Reads all of `file`, whatever is bad in it. `progress` hears of bytes read and bytes there are. Memory does not grow
/// with the file.
///
/// # Errors
/// [`VerifyError`]: damage is no error but part of the report.
pub fn verify_file(file: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, VerifyError> {
    let fail = |source| VerifyError::Io { file: file.to_owned(), source };
    let reader = File::open(file).map_err(fail)?;
    let meta = reader.metadata().map_err(fail)?;
    if meta.is_dir() {
        return Err(fail(io::ErrorKind::IsADirectory.into()));
    }
    let mut timeline = Timeline::new();
    let (mut damages, mut damage_count) = (Vec::new(), 0);
    let (mut gaps, mut gap_count, mut sequences) = (Vec::new(), 0, Sequences::default());
    let (mut joins, mut codecs) = (Vec::new(), Vec::<Vec<Codec>>::new());
    let scanned = scan_reader(reader, ScanMode::Lenient, |event| {
        match event {
            ScanEvent::Page(page) => {
                let setup = timeline.page(&page.header, page.bytes).setup;
                // Behind its setup pages all streams of a link are known.
                let link = timeline.link().filter(|_| !setup && codecs.len() < CODECS);
                let present = link.map(|l| l.streams.iter().map(|s| s.format.codec));
                if let Some(present) =
                    present.filter(|p| codecs.last().is_none_or(|c| !p.clone().eq(c.iter().copied())))
                {
                    codecs.push(present.collect());
                }
                match sequences.page(&page.header, setup, page.offset) {
                    Some(Break::Gap(gap)) => {
                        gap_count += 1;
                        if gaps.len() < DAMAGES {
                            gaps.push(gap);
                        }
                    }
                    Some(Break::Join(join)) if joins.len() < DAMAGES => joins.push(join),
                    _ => {}
                }
                if timeline.pages().is_multiple_of(STEP) {
                    progress(page.offset, meta.len());
                }
            }
            ScanEvent::Damage(damage) => {
                damage_count += 1;
                sequences.damage();
                if damages.len() < DAMAGES {
                    damages.push(damage);
                }
            }
        }
        ControlFlow::<()>::Continue(())
    });
    let stats = match scanned {
        Ok(ControlFlow::Continue(stats)) => stats,
        Ok(ControlFlow::Break(())) => return Err(fail(io::ErrorKind::Interrupted.into())),
        Err(ScanError::Damage(Damage::NotOgg { searched })) => {
            return Err(VerifyError::NotOgg { file: file.to_owned(), searched });
        }
        Err(ScanError::Damage(_)) => return Err(fail(io::ErrorKind::InvalidData.into())),
        Err(ScanError::Io { source, .. }) => return Err(fail(source)),
    };
    progress(stats.bytes, stats.bytes);
    Ok(VerifyReport {
        pages: stats.pages,
        bytes: stats.bytes,
        damaged_bytes: stats.damaged,
        damages,
        damage_count,
        gaps,
        gap_count,
        joins,
        duration: u64::try_from(timeline.duration()).unwrap_or(0),
        links: timeline.link_count(),
        first: timeline.links().next().cloned(),
        codecs,
        tags: timeline.comments().tags().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
    }

    fn fixtures(damaged: bool) -> Vec<PathBuf> {
        let all = std::fs::read_dir(fixture("")).unwrap().map(|e| e.unwrap().path());
        let ogg = |p: &PathBuf| p.extension().is_some_and(|x| x != "md" && x != "sh" && x != "py");
        let bad = |p: &PathBuf| p.file_name().unwrap().to_string_lossy().starts_with("damaged");
        all.filter(|p| ogg(p) && bad(p) == damaged).collect()
    }

    #[test]
    fn each_codec_of_a_chain_is_told_when_it_comes() {
        let dir = tempfile::tempdir().unwrap();
        let chain = dir.path().join("chain.ogg");
        let parts = ["opus.opus", "vorbis.ogg", "theora-vorbis.ogv"];
        let bytes: Vec<u8> = parts.iter().flat_map(|p| std::fs::read(fixture(p)).unwrap()).collect();
        std::fs::write(&chain, bytes).unwrap();
        let report = verify_file(&chain, &mut |_, _| {}).unwrap();
        let video = vec![Codec::Theora, Codec::Vorbis];
        assert_eq!(report.codecs, [vec![Codec::Opus], vec![Codec::Vorbis], video]);
        // Of links that are alike nothing new is told.
        let same = verify_file(&fixture("chained-opus.opus"), &mut |_, _| {}).unwrap();
        assert_eq!(same.codecs, [vec![Codec::Opus]]);
    }

    #[test]
    fn sound_files_are_sound_and_damaged_ones_are_told_where() {
        for file in fixtures(false) {
            let report = verify_file(&file, &mut |_, _| {}).unwrap();
            assert!(report.is_sound() && report.pages > 0 && report.first.is_some(), "{}", file.display());
            let cut_out = file.file_name().unwrap().to_string_lossy().starts_with("cut-out");
            assert!(report.is_gapless() || cut_out, "{}: {:?}", file.display(), report.gaps);
        }
        let damaged = fixtures(true);
        assert!(damaged.len() >= 3);
        for file in damaged {
            let report = verify_file(&file, &mut |_, _| {}).unwrap();
            assert!(!report.is_sound() && report.damaged_bytes > 0, "{}", file.display());
            assert_eq!(report.damages.len() as u64, report.damage_count);
        }
    }

    #[test]
    fn pages_that_lack_or_repeat_are_told_with_their_stream() {
        let bytes = std::fs::read(fixture("opus.opus")).unwrap();
        let starts: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"OggS")).collect();
        assert!(starts.len() > 6);
        let serial = u32::from_le_bytes(bytes[14..18].try_into().unwrap());
        let page = |n: usize| &bytes[starts[n]..starts.get(n + 1).copied().unwrap_or(bytes.len())];
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut order: Vec<usize> = (0..starts.len()).collect();
        order.insert(3, 2);
        order.remove(6);
        let pages: Vec<&[u8]> = order.iter().map(|n| page(*n)).collect();
        std::fs::write(file.path(), pages.concat()).unwrap();
        let report = verify_file(file.path(), &mut |_, _| {}).unwrap();
        let at = |n: usize| pages[..n].iter().map(|p| p.len() as u64).sum();
        let twice = Gap { serial, offset: at(3), expected: 3, found: 2 };
        let lacking = Gap { serial, offset: at(6), expected: 5, found: 6 };
        assert!(report.is_sound() && !report.is_gapless());
        assert_eq!((report.gaps, report.gap_count), (vec![twice, lacking], 2));
        assert!(twice.to_string().contains("goes back by 1 page: number 3"), "{twice}");
        assert!(lacking.to_string().contains("lacks 1 page: number 5"), "{lacking}");
    }

    #[test]
    fn a_recording_that_begins_in_the_middle_is_sound() {
        let bytes = std::fs::read(fixture("opus.opus")).unwrap();
        let starts: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"OggS")).collect();
        let page = |n: usize| &bytes[starts[n]..starts.get(n + 1).copied().unwrap_or(bytes.len())];
        let check = |order: &[usize]| {
            let file = tempfile::NamedTempFile::new().unwrap();
            let pages: Vec<&[u8]> = order.iter().map(|n| page(*n)).collect();
            std::fs::write(file.path(), pages.concat()).unwrap();
            let report = verify_file(file.path(), &mut |_, _| {}).unwrap();
            (report.joins.iter().map(|j| (j.expected, j.found)).collect::<Vec<_>>(), report.gap_count)
        };
        assert_eq!(check(&[0, 1, 4, 5, 6]), (vec![(2, 4)], 0));
        // Two of them, one after the other.
        assert_eq!(check(&[0, 1, 4, 5, 0, 1, 3, 4]), (vec![(2, 4), (2, 3)], 0));
        // What is missing later, or among the setup pages, is a gap.
        assert_eq!(check(&[0, 1, 3, 5]), (vec![(2, 3)], 1));
        assert_eq!(check(&[0, 1, 2, 1]).1, 1);
    }

    #[test]
    fn what_is_not_there_or_not_ogg_is_an_error() {
        assert!(matches!(verify_file(&fixture("nothing"), &mut |_, _| {}), Err(VerifyError::Io { .. })));
        assert!(matches!(verify_file(&fixture(""), &mut |_, _| {}), Err(VerifyError::Io { .. })));
        let noise = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(noise.path(), vec![1; 5000]).unwrap();
        assert!(matches!(verify_file(noise.path(), &mut |_, _| {}), Err(VerifyError::NotOgg { .. })));
    }
}
