//! Checks an Ogg file page by page, and says where it is bad.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::ogg::{Damage, Link, ScanError, ScanEvent, ScanMode, Timeline, scan_reader};

/// Damages that are told one by one; the others are only counted.
pub const DAMAGES: usize = 1000;
/// Pages between two calls of the progress function.
const STEP: u64 = 256;

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
    /// How long it lasts, in microseconds; 0 if no logical stream has times.
    pub duration: u64,
    /// Links of the chain.
    pub links: u64,
    /// The first link's logical streams; none if there is no sound page.
    pub first: Option<Link>,
    /// Its tags.
    pub tags: Vec<(String, String)>,
}

impl VerifyReport {
    /// Whether every byte belongs to a sound page.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage_count == 0
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
    let scanned = scan_reader(reader, ScanMode::Lenient, |event| {
        match event {
            ScanEvent::Page(page) => {
                timeline.page(&page.header, page.bytes);
                if timeline.pages().is_multiple_of(STEP) {
                    progress(page.offset, meta.len());
                }
            }
            ScanEvent::Damage(damage) => {
                damage_count += 1;
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
        duration: u64::try_from(timeline.duration()).unwrap_or(0),
        links: timeline.link_count(),
        first: timeline.links().next().cloned(),
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
    fn sound_files_are_sound_and_damaged_ones_are_told_where() {
        for file in fixtures(false) {
            let report = verify_file(&file, &mut |_, _| {}).unwrap();
            assert!(report.is_sound() && report.pages > 0 && report.first.is_some(), "{}", file.display());
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
    fn what_is_not_there_or_not_ogg_is_an_error() {
        assert!(matches!(verify_file(&fixture("nothing"), &mut |_, _| {}), Err(VerifyError::Io { .. })));
        assert!(matches!(verify_file(&fixture(""), &mut |_, _| {}), Err(VerifyError::Io { .. })));
        let noise = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(noise.path(), vec![1; 5000]).unwrap();
        assert!(matches!(verify_file(noise.path(), &mut |_, _| {}), Err(VerifyError::NotOgg { .. })));
    }
}
