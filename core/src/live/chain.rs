//! Batches of records that follow each other: what a receiver of live media believes. Sans-IO.

use std::collections::VecDeque;

use icet::live::SignedBatch;
use icet::{PageNo, PageRecord};
use thiserror::Error;

/// What became of a batch that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It follows the last one, or is the first.
    New,
    /// It is one of those that are known.
    Known,
    /// All its pages lie before the first that is known.
    Old,
}

/// Why a batch was refused, though its publisher signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChainError {
    /// Batches before it are missing: somebody dropped them, or sends them in another order.
    #[error("records from page {first} on came where those of page {expected} should have")]
    Gap {
        /// The page that should have been its first.
        expected: PageNo,
        /// Its first page.
        first: PageNo,
    },
    /// There is another one in its place: its publisher signed two.
    #[error("the publisher signed two different batches of records for page {first}")]
    Fork {
        /// Its first page.
        first: PageNo,
    },
}

/// Consecutive batches of one broadcast. The caller has checked their signatures.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    batches: VecDeque<SignedBatch>,
    records: usize,
}

/// Where a page stands, and what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Offset of its first byte in the physical bitstream.
    pub offset: u64,
    /// Its record.
    pub record: PageRecord,
    /// Media time at which its content starts, in microseconds from page 0.
    pub time: i64,
}

impl Chain {
    /// Takes a batch: any as the first, then those only that follow.
    ///
    /// # Errors
    /// [`ChainError`]; then nothing changed.
    pub fn take(&mut self, batch: SignedBatch) -> Result<Taken, ChainError> {
        let Some((last, base)) = self.batches.back().zip(self.base()) else {
            self.push(batch);
            return Ok(Taken::New);
        };
        let (first, expected) = (batch.first, last.next());
        if batch.follows(last) {
            self.push(batch);
            Ok(Taken::New)
        } else if self.batches.iter().rev().take_while(|b| b.first >= first).any(|b| b.hash() == batch.hash())
        {
            Ok(Taken::Known)
        } else if first > expected {
            Err(ChainError::Gap { expected, first })
        } else if batch.next() <= base {
            Ok(Taken::Old)
        } else {
            Err(ChainError::Fork { first })
        }
    }

    fn push(&mut self, batch: SignedBatch) {
        self.records += batch.records.len();
        self.batches.push_back(batch);
    }

    /// Batches, and records in them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batches.len()
    }

    /// Whether nothing was taken yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Records that are kept.
    #[must_use]
    pub fn records(&self) -> usize {
        self.records
    }

    /// Forgets batches of which all pages lie before `page`; the last one stays, so that what follows can be told.
    pub fn forget_before(&mut self, page: PageNo) {
        while self.batches.len() > 1 && self.batches.front().is_some_and(|b| b.next() <= page) {
            let gone = self.batches.pop_front();
            self.records -= gone.map_or(0, |b| b.records.len());
        }
    }

    /// The first page that has a record.
    #[must_use]
    pub fn base(&self) -> Option<PageNo> {
        self.batches.front().map(|b| b.first)
    }

    /// The last batch.
    #[must_use]
    pub fn last(&self) -> Option<&SignedBatch> {
        self.batches.back()
    }

    /// All batches, in order.
    pub fn batches(&self) -> impl DoubleEndedIterator<Item = &SignedBatch> {
        self.batches.iter()
    }

    /// Whether the broadcast ends with the last batch.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.last().is_some_and(|b| b.ends)
    }

    /// The batch that has `page`; behind the last page of a broadcast that ended, the one that says so.
    #[must_use]
    pub fn batch_of(&self, page: PageNo) -> Option<&SignedBatch> {
        let i = self.batches.partition_point(|b| b.first <= page).checked_sub(1)?;
        self.batches.get(i).filter(|b| page < b.next() || b.ends && page == b.next())
    }

    /// Where `page` stands.
    #[must_use]
    pub fn place(&self, page: PageNo) -> Option<Place> {
        let batch = self.batch_of(page)?;
        let (record, offset) = batch.page(page)?;
        Some(Place { offset, record, time: batch.time + record.time })
    }

    /// The page that has the byte at `offset`.
    #[must_use]
    pub fn page_at_byte(&self, offset: u64) -> Option<PageNo> {
        let i = self.batches.partition_point(|b| b.offset <= offset).checked_sub(1)?;
        let batch = self.batches.get(i)?;
        let mut end = batch.offset;
        let within = batch.records.iter().position(|r| {
            end += u64::from(r.len);
            offset < end
        })?;
        Some(batch.first + within as u64)
    }

    /// The last page whose content starts at or before `us` microseconds of media time; none if that is older than what is known.
    #[must_use]
    pub fn page_at_time(&self, us: i64) -> Option<PageNo> {
        self.batches.iter().rev().find_map(|b| {
            let within = b.records.iter().rposition(|r| b.time + r.time <= us)?;
            Some(b.first + within as u64)
        })
    }
}
