//! Which packets came, and when to say so (RFC 9000, section 13.2).

use iceshare::icet::Now;

use super::ranges::RangeSet;
use super::rtt::MAX_ACK_DELAY;
use crate::wire::{ACK_RANGES, Ack};

/// So many packets that want an acknowledgement are acknowledged at once.
const AT_ONCE: u32 = 2;

/// The receiving side of acknowledgements.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    received: RangeSet,
    largest: Option<(u64, Now)>,
    /// Packets that want an acknowledgement and had none.
    waiting: u32,
    /// Without waiting for more.
    at_once: bool,
    deadline: Option<Now>,
}

impl Acks {
    /// A packet came.
    pub(crate) fn received(&mut self, now: Now, number: u64, eliciting: bool) {
        let in_order = self.largest.is_none_or(|(l, _)| number == l + 1);
        if self.largest.is_none_or(|(l, _)| number > l) {
            self.largest = Some((number, now));
        }
        self.received.insert(number, number + 1);
        if self.received.len() > ACK_RANGES + 1 {
            self.received.pop_first();
        }
        if eliciting {
            self.waiting += 1;
            self.at_once |= self.waiting >= AT_ONCE || !in_order;
            self.deadline.get_or_insert(now + MAX_ACK_DELAY);
        }
    }

    /// The highest packet number that came.
    pub(crate) fn largest(&self) -> u64 {
        self.largest.map_or(0, |(n, _)| n)
    }

    /// Whether an acknowledgement must go now.
    pub(crate) fn is_due(&self, now: Now) -> bool {
        self.at_once || self.deadline.is_some_and(|d| d <= now)
    }

    /// Whether one may go with another frame.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting > 0
    }

    /// When one must go at the latest.
    pub(crate) fn deadline(&self) -> Option<Now> {
        self.deadline
    }

    /// The acknowledgement; with it everything is said.
    pub(crate) fn take(&mut self, now: Now) -> Option<Ack> {
        let (_, at) = self.largest?;
        (self.waiting, self.at_once, self.deadline) = (0, false, None);
        let delay = u64::try_from(now.since(at).as_micros()).unwrap_or(0);
        let ranges = self.received.iter_down().map(|(a, b)| (a, b - 1)).collect();
        Some(Ack { ranges, delay })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_gaps_are_told_at_once_and_single_packets_soon() {
        let mut acks = Acks::default();
        acks.received(Now(0), 0, true);
        assert!(acks.is_wanted() && !acks.is_due(Now(24_999)) && acks.is_due(Now(25_000)));
        acks.received(Now(10), 1, true);
        assert!(acks.is_due(Now(10)));
        assert_eq!(acks.take(Now(15)), Some(Ack { ranges: vec![(0, 1)], delay: 5 }));
        assert!(!acks.is_wanted() && !acks.is_due(Now(1_000_000)));
        acks.received(Now(20), 2, false);
        assert!(!acks.is_wanted());
        acks.received(Now(30), 5, true);
        assert!(acks.is_due(Now(30)));
        assert_eq!(acks.take(Now(30)).map(|a| a.ranges), Some(vec![(5, 5), (0, 2)]));
    }

    #[test]
    fn the_newest_ranges_are_kept() {
        let mut acks = Acks::default();
        for n in 0..1000 {
            acks.received(Now(n), n * 2, true);
        }
        let ranges = acks.take(Now(1000)).map(|a| a.ranges).unwrap_or_default();
        assert_eq!((ranges.len(), ranges[0]), (ACK_RANGES + 1, (1998, 1998)));
    }
}
