//! How much was given today and this month, by all commands of one data folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Zoned;
use serde::{Deserialize, Serialize};

/// Bytes given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Used {
    pub(super) day: u64,
    pub(super) month: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Page {
    /// `2026-11-27`, local time.
    date: String,
    bytes_today: u64,
    bytes_this_month: u64,
}

/// The file. Commands write to it in turn.
#[derive(Debug)]
pub(super) struct Ledger {
    file: PathBuf,
    lock: PathBuf,
}

impl Ledger {
    pub(super) fn new(data: &Path) -> Ledger {
        Ledger { file: data.join("given.json"), lock: data.join("given.lock") }
    }

    /// Adds what was given since the last call, and says what all together gave.
    ///
    /// # Errors
    /// Whatever the disk says; an unreadable file too, since to begin anew would give more than was wanted.
    pub(super) fn add(&self, now: &Zoned, bytes: u64) -> io::Result<Used> {
        let lock = File::create(&self.lock)?;
        lock.lock()?;
        let date = now.date().to_string();
        let mut page: Page = match fs::read(&self.file) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| {
                io::Error::other(format!("{} is damaged ({e}): remove it to count anew", self.file.display()))
            })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Page::default(),
            Err(e) => return Err(e),
        };
        let month = |date: &str| date.rsplit_once('-').map(|(month, _)| month.to_owned());
        let fresh = page.date != date;
        if fresh {
            page.bytes_today = 0;
            if month(&page.date) != month(&date) {
                page.bytes_this_month = 0;
            }
            page.date = date;
        }
        let used = |page: &Page| Used { day: page.bytes_today, month: page.bytes_this_month };
        if bytes == 0 && !fresh {
            return Ok(used(&page));
        }
        page.bytes_today = page.bytes_today.saturating_add(bytes);
        page.bytes_this_month = page.bytes_this_month.saturating_add(bytes);
        let next = self.file.with_extension("json.new");
        fs::write(&next, serde_json::to_vec(&page)?)?;
        fs::rename(&next, &self.file)?;
        Ok(used(&page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: &str) -> Zoned {
        format!("{day}T12:00:00[UTC]").parse().expect("a moment")
    }

    #[test]
    fn days_and_months_are_counted_apart_over_restarts() {
        let dir = tempfile::tempdir().expect("a folder");
        let add = |day, bytes| {
            let used = Ledger::new(dir.path()).add(&at(day), bytes).expect("a good disk");
            (used.day, used.month)
        };
        assert_eq!(add("2026-11-27", 10), (10, 10));
        assert_eq!(add("2026-11-27", 5), (15, 15));
        assert_eq!(add("2026-11-28", 1), (1, 16));
        assert_eq!(add("2026-12-28", 2), (2, 2));
        assert_eq!(add("2027-12-28", 3), (3, 3), "another year");
    }

    #[test]
    fn a_damaged_file_is_no_licence_to_give() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("given.json"), b"{").expect("a good disk");
        let error = Ledger::new(dir.path()).add(&at("2026-11-27"), 1).expect_err("damaged");
        assert!(error.to_string().contains("remove it"), "{error}");
    }
}
