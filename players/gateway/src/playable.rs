//! What the gateway serves: anything of a known length that can be read and sought, and the figures beside it.

use std::io;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use iceshare::Standing;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncSeek};

/// A reader over a media that may still be arriving: a read of what is not there yet waits for it.
pub trait Reader: AsyncRead + AsyncSeek + Send + Unpin {}
impl<R: AsyncRead + AsyncSeek + Send + Unpin> Reader for R {}

/// Pages of live media, and their numbers.
pub type Pages = BoxStream<'static, io::Result<(u64, Bytes)>>;

/// A media that a player can be given. Implemented for [`iceshare::Media`]; small, so that tests can make one.
pub trait Playable: Send + Sync + 'static {
    /// Length in bytes. It never changes.
    fn length(&self) -> u64;
    /// Its media type, as in RFC 5334.
    fn mime(&self) -> &str;
    /// What names exactly these bytes, for the entity tag: printable ASCII without quotes.
    fn etag(&self) -> String;
    /// The file name that players see; any text, escaped where it is used.
    fn name(&self) -> String;
    /// A title for people; any text, may be empty.
    fn title(&self) -> String;
    /// A new reader at the first byte. An error of the reader, or an end before [`length`](Self::length), ends the
    /// response there, which a player sees as a broken connection.
    fn open_reader(&self) -> Box<dyn Reader>;
    /// Live media: all pages that a player gets, with their numbers, from where it comes in, or from a page on, for as long as it listens.
    /// Then length and reader are not asked for.
    fn open_live(&self, from: Option<u64>) -> Option<Pages> {
        let _ = from;
        None
    }
    /// Live media: what is on, each time that it is something else, when who listens from now on hears it; none where nothing says it.
    fn open_titles(&self) -> Option<BoxStream<'static, Option<String>>> {
        None
    }
    /// Whether it is live.
    fn is_live(&self) -> bool {
        false
    }
    /// Bytes a second that a response need not exceed; none: as fast as its client reads.
    fn pace(&self) -> Option<u64> {
        None
    }
    /// The page table, as a seek bar shows it.
    fn table(&self) -> Table;
    /// Who sends, and how fast.
    fn stats(&self) -> Stats;
    /// How we stand with the tracker, if it tells.
    fn standing(&self) -> Option<Standing> {
        None
    }
}

/// Which pages are there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Table {
    /// Pages of the media.
    pub pages: u64,
    /// Pages held, verified.
    pub held: u64,
    /// Duration in microseconds; 0 if it is unknown.
    pub duration_us: u64,
    /// All pages in order, as runs of one state; at most [`Table::MOST_RUNS`] in what a page is sent.
    pub runs: Vec<Run>,
}

/// Neighbouring pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Run {
    /// The first page.
    pub first: u64,
    /// The last page, inclusive.
    pub last: u64,
    /// How many of them are held.
    pub held: u64,
    /// The same in a word.
    pub state: State,
    /// Media time at which the run begins, in microseconds, where it is known.
    pub from_us: Option<u64>,
    /// Media time at which it ends.
    pub to_us: Option<u64>,
}

/// How much of a run is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All of it.
    Held,
    /// Some of it.
    Partial,
    /// Nothing.
    Missing,
}

impl Table {
    /// More runs than these would be finer than any seek bar.
    pub const MOST_RUNS: usize = 1024;

    /// The same table in at most `most` runs (at least one): neighbours are joined, which makes them partial.
    #[must_use]
    pub fn joined(mut self, most: usize) -> Table {
        let group = self.runs.len().div_ceil(most.max(1));
        if group > 1 {
            self.runs = self.runs.chunks(group).filter_map(join).collect();
        }
        self
    }
}

fn join(runs: &[Run]) -> Option<Run> {
    let (head, tail) = (runs.first()?, runs.last()?);
    let held = runs.iter().map(|r| r.held).sum();
    let pages: u64 = runs.iter().map(|r| r.last - r.first + 1).sum();
    let state = match held {
        0 => State::Missing,
        h if h == pages => State::Held,
        _ => State::Partial,
    };
    let (from_us, to_us) = (head.from_us, tail.to_us);
    Some(Run { first: head.first, last: tail.last, held, state, from_us, to_us })
}

/// Figures for people.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Stats {
    /// Bytes that came over the network since it was opened, verified.
    pub fetched: u64,
    /// From the start to the first page, in milliseconds.
    pub first_page_ms: Option<u64>,
    /// Pages that failed their check.
    pub bad: u64,
    /// Pages that came twice.
    pub duplicates: u64,
    /// Peers that play or fetch it, as the tracker says.
    pub listeners: u64,
    /// Who sent what, most first.
    pub hosts: Vec<Sender>,
}

/// What one host sent over one protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sender {
    /// The host's key, shortened.
    pub host: String,
    /// Name of the payload protocol.
    pub protocol: String,
    /// Bytes that were of use.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(lengths: &[(u64, bool)]) -> Table {
        let mut table = Table::default();
        for (len, held) in lengths {
            let (first, last) = (table.pages, table.pages + len - 1);
            let count = if *held { *len } else { 0 };
            let state = if *held { State::Held } else { State::Missing };
            let (from_us, to_us) = (Some(first * 1000), Some((last + 1) * 1000));
            table.runs.push(Run { first, last, held: count, state, from_us, to_us });
            table.pages += len;
            table.held += count;
        }
        table
    }

    proptest! {
        #[test]
        fn joining_keeps_every_page(
            lengths in proptest::collection::vec((1u64..50, any::<bool>()), 0..200), most in 1usize..64,
        ) {
            let before = table(&lengths);
            let after = before.clone().joined(most);
            prop_assert!(after.runs.len() <= most);
            prop_assert_eq!(after.runs.iter().map(|r| r.last - r.first + 1).sum::<u64>(), before.pages);
            prop_assert_eq!(after.runs.iter().map(|r| r.held).sum::<u64>(), before.held);
            for pair in after.runs.windows(2) {
                prop_assert_eq!(pair[0].last + 1, pair[1].first);
                prop_assert_eq!(pair[0].to_us, pair[1].from_us);
            }
            for r in &after.runs {
                let all = r.last - r.first + 1;
                let state = if r.held == 0 { State::Missing } else if r.held == all { State::Held } else { State::Partial };
                prop_assert_eq!(r.state, state);
            }
        }
    }
}
