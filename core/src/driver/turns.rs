//! Whose turn it is to say where a media is played, when several readers wait for different places: sans-IO, time as an
//! argument.
//!
//! A tracker knows one focus of a peer and media. Readers that pulled it to and fro faster than a page takes to arrive would all
//! get nothing.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Who got what it waited for keeps the focus so long at least...
const LEAST: Duration = Duration::from_secs(1);
/// ... and who did not, so long at most, where another one waits: a large page takes its time on a slow line.
const MOST: Duration = Duration::from_secs(8);

/// A reader.
pub(crate) type ReaderId = u64;

#[derive(Debug, Clone, Copy)]
struct Turn {
    reader: ReaderId,
    since: Instant,
    /// Whether it waits for a page.
    waits: bool,
}

/// Of one media.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    readers: ReaderId,
    turn: Option<Turn>,
    /// Who waits for a turn, in order.
    queue: VecDeque<ReaderId>,
}

impl Turns {
    /// One more reader.
    pub(crate) fn enter(&mut self) -> ReaderId {
        self.readers += 1;
        self.readers
    }

    /// Whether a reader that waits for a page may say where. If not, it is to ask again.
    pub(crate) fn wait(&mut self, reader: ReaderId, now: Instant) -> bool {
        let over = self.turn.is_none_or(|t| {
            let held = now.duration_since(t.since);
            held >= if t.waits { MOST } else { LEAST }
        });
        if let Some(turn) = self.turn.as_mut().filter(|t| t.reader == reader)
            && (self.queue.is_empty() || !over)
        {
            turn.waits = true;
            return true;
        }
        if !self.queue.contains(&reader) {
            self.queue.push_back(reader);
        }
        if !over || self.queue.front() != Some(&reader) {
            return false;
        }
        self.queue.pop_front();
        self.turn = Some(Turn { reader, since: now, waits: true });
        true
    }

    /// A reader got what it waited for.
    pub(crate) fn got(&mut self, reader: ReaderId) {
        self.queue.retain(|r| *r != reader);
        if let Some(turn) = self.turn.as_mut().filter(|t| t.reader == reader) {
            turn.waits = false;
        }
    }

    /// Whether a reader that waits for nothing may say where it is: nobody else has a need.
    pub(crate) fn follow(&mut self, reader: ReaderId, now: Instant) -> bool {
        if !self.queue.is_empty() || self.turn.is_some_and(|t| t.reader != reader && t.waits) {
            return false;
        }
        self.turn = Some(Turn { reader, since: now, waits: false });
        true
    }

    /// A reader is no more.
    pub(crate) fn leave(&mut self, reader: ReaderId) {
        self.queue.retain(|r| *r != reader);
        if self.turn.is_some_and(|t| t.reader == reader) {
            self.turn = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn one_reader_alone_says_what_it_likes() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let a = turns.enter();
        for i in 0..200 {
            assert!(turns.wait(a, now + TICK * i));
        }
        turns.got(a);
        assert!(turns.follow(a, now + TICK * 200) && turns.wait(a, now + TICK * 200));
    }

    #[test]
    fn two_that_wait_take_turns_that_are_long_enough_for_a_page() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        let (a, b) = (turns.enter(), turns.enter());
        // Each page takes 3 s from the moment at which its reader has the focus.
        let (mut last, mut pages) = (None, [0; 2]);
        for i in 0..600 {
            let now = start + TICK * i;
            for reader in [a, b] {
                if turns.wait(reader, now) && last.is_none_or(|(r, _)| r != reader) {
                    last = Some((reader, now));
                }
            }
            if let Some((reader, since)) = last.filter(|(_, since)| now.duration_since(*since) >= TICK * 30) {
                turns.got(reader);
                pages[usize::try_from(reader - 1).unwrap()] += 1;
                last = Some((reader, since + TICK * 30));
            }
        }
        assert!(pages.iter().all(|n| *n >= 6), "{pages:?} of 20 in all");
    }

    #[test]
    fn who_gets_nothing_gives_way_and_comes_again() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        let (a, b) = (turns.enter(), turns.enter());
        assert!(turns.wait(a, start) && !turns.wait(b, start));
        assert!(turns.wait(a, start + MOST - TICK) && !turns.wait(b, start + MOST - TICK));
        assert!(!turns.wait(a, start + MOST), "another one waits");
        assert!(turns.wait(b, start + MOST) && !turns.wait(a, start + MOST + TICK));
        assert!(turns.wait(a, start + MOST * 2));
    }

    #[test]
    fn who_leaves_or_has_enough_blocks_nobody() {
        let (mut turns, start) = (Turns::default(), Instant::now());
        let (a, b, c) = (turns.enter(), turns.enter(), turns.enter());
        assert!(turns.wait(a, start) && !turns.wait(b, start) && !turns.wait(c, start));
        turns.leave(b);
        turns.leave(a);
        assert!(turns.wait(c, start));
        turns.got(c);
        assert!(!turns.wait(a, start + TICK) && turns.wait(a, start + LEAST));
        assert!(!turns.follow(c, start + LEAST), "a waits");
        turns.got(a);
        assert!(turns.follow(c, start + LEAST));
    }
}
