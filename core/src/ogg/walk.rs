//! Finds pages and damage in a window that moves over a bitstream: what [`super::scan`] and [`super::split`] share.

use memchr::memmem;
use thiserror::Error;

use super::page::{self, CAPTURE_PATTERN, HeaderError, MIN_PAGE_LEN, PageHeader};

/// What is wrong in a bitstream. Offsets and lengths are in bytes, counted from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Damage {
    /// Bytes that belong to no page.
    #[error("{len} bytes that are no Ogg page at offset {offset}")]
    Junk {
        /// Where they begin.
        offset: u64,
        /// How many they are.
        len: u64,
    },
    /// A page whose checksum is wrong, or that lost its end to the sound page that follows it.
    #[error("damaged Ogg page of {len} bytes at offset {offset} (checksum)")]
    BadCrc {
        /// Where the page begins.
        offset: u64,
        /// Its bytes, up to where it says that it ends or to the next sound page.
        len: u64,
    },
    /// The last page is cut off.
    #[error("Ogg page cut off at offset {offset}: {len} bytes where it has at least {expected}")]
    Truncated {
        /// Where the page begins.
        offset: u64,
        /// Bytes that are there.
        len: u64,
        /// Bytes that it has by its header; when the header too is cut off, those that a header needs.
        expected: u64,
    },
    /// There is no sound page in it, or none where one could expect it.
    #[error("not an Ogg file: no Ogg page found in the first {searched} bytes")]
    NotOgg {
        /// How far was searched.
        searched: u64,
    },
}

/// What to do next with the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The window begins with this page, whose checksum is right: take its `total_len` bytes from the window.
    Page(PageHeader),
    /// Tell of it; the window stays.
    Damage(Damage),
    /// Take this many damaged bytes from the window.
    Skip(usize),
    /// The window must have at least so many bytes, more than it has now (never more than a page has).
    Need(usize),
    /// Nothing more to come; after [`Damage::NotOgg`], the rest of the window is of no interest.
    End,
}

/// A damaged region whose end is not known yet.
#[derive(Debug, Clone, Copy)]
struct Region {
    start: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Junk,
    BadCrc { claimed_end: u64 },
    Cut { expected: u64 },
}

/// Bytes that may be summed up in vain, at most, before damaged pages are skipped whole.
const CREDIT_MAX: u64 = 16 << 20;
/// ... and how much of that each byte earns.
const CREDIT_PER_BYTE: u64 = 4;

/// The state between two steps: no bytes, a few numbers.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    /// Where the window begins.
    offset: u64,
    /// Where the first page must have begun, or the bitstream is not Ogg.
    search_limit: Option<u64>,
    pages: u64,
    damaged: u64,
    region: Option<Region>,
    /// A page at the window's beginning that was found sound, but must wait until the damage before it is told.
    verified: Option<PageHeader>,
    /// Damage to tell before anything else.
    closed: Option<Damage>,
    // A stranger can fill a stream with headers that each claim 65,307 bytes: at 27 bytes a header, every byte would be summed
    // up 2,400 times. Sums that fail are therefore paid from a credit; without any left, the whole claimed page is skipped.
    credit: u64,
    gave_up: bool,
    /// Bytes summed up so far: the work done.
    #[cfg(test)]
    pub(super) summed: u64,
}

impl Walk {
    pub(super) fn new(search_limit: Option<u64>) -> Self {
        Self {
            offset: 0,
            search_limit,
            pages: 0,
            damaged: 0,
            region: None,
            verified: None,
            closed: None,
            credit: CREDIT_MAX,
            gave_up: false,
            #[cfg(test)]
            summed: 0,
        }
    }

    /// Where the window begins, in bytes from the beginning of the bitstream.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Sound pages so far.
    pub(super) fn pages(&self) -> u64 {
        self.pages
    }

    /// Damaged bytes so far, those of a region still open included.
    pub(super) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Looks at the window, which begins at `offset()`. `last`: no bytes come after it. The caller does what the step says, then calls
    /// again. With `last`, after `End`, walking may go on in other bytes (behind a gap).
    pub(super) fn step(&mut self, window: &[u8], last: bool) -> Step {
        if let Some(damage) = self.closed.take() {
            return Step::Damage(damage);
        }
        if let Some(header) = self.verified.take() {
            return self.page(header);
        }
        if self.gave_up {
            return Step::End;
        }
        if self.search_limit.is_some_and(|limit| self.pages == 0 && self.offset >= limit) {
            return self.end();
        }
        if window.is_empty() {
            return if last { self.end() } else { Step::Need(MIN_PAGE_LEN) };
        }
        match PageHeader::parse(window) {
            Ok(header) => match window.get(..header.total_len()) {
                Some(bytes) if self.sum(bytes) == header.crc => match self.close(false) {
                    Some(damage) => {
                        self.verified = Some(header);
                        Step::Damage(damage)
                    }
                    None => self.page(header),
                },
                Some(bytes) => {
                    let len = bytes.len() as u64;
                    self.open(Kind::BadCrc { claimed_end: self.offset + len });
                    match self.credit.checked_sub(len) {
                        Some(credit) => {
                            self.credit = credit;
                            self.search(window)
                        }
                        None => self.skip(bytes.len()),
                    }
                }
                None => self.cut_off(window, header.total_len(), last),
            },
            Err(HeaderError::Incomplete { needed }) => self.cut_off(window, needed, last),
            Err(HeaderError::NoCapture | HeaderError::Version(_)) => {
                self.open(Kind::Junk);
                self.search(window)
            }
        }
    }

    fn sum(&mut self, bytes: &[u8]) -> u32 {
        #[cfg(test)]
        {
            self.summed += bytes.len() as u64;
        }
        page::crc(bytes)
    }

    fn page(&mut self, header: PageHeader) -> Step {
        self.advance(header.total_len());
        self.pages += 1;
        Step::Page(header)
    }

    fn advance(&mut self, len: usize) {
        let len = len as u64;
        self.offset += len;
        self.credit = CREDIT_MAX.min(self.credit + CREDIT_PER_BYTE * len);
    }

    fn cut_off(&mut self, window: &[u8], needed: usize, last: bool) -> Step {
        if !last {
            return Step::Need(needed);
        }
        // A stray "O" at the end of junk is junk.
        let captured = window.len() >= CAPTURE_PATTERN.len() || self.region.is_none();
        self.open(if captured { Kind::Cut { expected: needed as u64 } } else { Kind::Junk });
        self.search(window)
    }

    /// Skips to where the next page may begin, at least one byte on.
    fn search(&mut self, window: &[u8]) -> Step {
        let rest = &window[1..];
        let skip = match memmem::find(rest, &CAPTURE_PATTERN) {
            Some(at) => at,
            // The pattern may begin in the last three bytes.
            None => {
                let begun = (1..CAPTURE_PATTERN.len()).rev().find(|&n| rest.ends_with(&CAPTURE_PATTERN[..n]));
                rest.len() - begun.unwrap_or(0)
            }
        };
        self.skip(1 + skip)
    }

    fn skip(&mut self, len: usize) -> Step {
        let stop = match self.region {
            // Look what stands where the damaged page should end.
            Some(Region { kind: Kind::BadCrc { claimed_end }, .. }) if claimed_end > self.offset => {
                claimed_end
            }
            _ => u64::MAX,
        };
        let limit = self.search_limit.filter(|_| self.pages == 0).unwrap_or(u64::MAX);
        let most = stop.min(limit).saturating_sub(self.offset);
        let len = usize::try_from(most).map_or(len, |most| len.min(most));
        self.advance(len);
        self.damaged += len as u64;
        Step::Skip(len)
    }

    /// Begins a damaged region here, unless it belongs to the one that is open.
    fn open(&mut self, kind: Kind) {
        let within = match (self.region.map(|region| region.kind), kind) {
            (None, _) => false,
            (Some(Kind::Junk), kind) => matches!(kind, Kind::Junk),
            (Some(Kind::BadCrc { claimed_end }), _) => self.offset < claimed_end,
            (Some(Kind::Cut { .. }), _) => true,
        };
        if !within {
            self.closed = self.close(false);
            self.region = Some(Region { start: self.offset, kind });
        }
    }

    /// Ends the open region here.
    fn close(&mut self, at_end: bool) -> Option<Damage> {
        let Region { start: offset, kind } = self.region.take()?;
        let len = self.offset - offset;
        Some(match kind {
            Kind::Junk => Damage::Junk { offset, len },
            Kind::Cut { expected } if at_end => Damage::Truncated { offset, len, expected },
            Kind::BadCrc { .. } | Kind::Cut { .. } => Damage::BadCrc { offset, len },
        })
    }

    fn end(&mut self) -> Step {
        let not_ogg = self.search_limit.is_some() && self.pages == 0;
        match self.close(true) {
            Some(Damage::Junk { .. }) | None if not_ogg => {
                self.gave_up = true;
                Step::Damage(Damage::NotOgg { searched: self.offset })
            }
            Some(damage) => Step::Damage(damage),
            None => Step::End,
        }
    }
}
