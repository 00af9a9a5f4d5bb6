//! When what is due. Most of it is due so long after it is put in, always as long: that waits in queues, in which nothing need
//! be compared with half a minute's other timers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use icet::Now;

use super::board::Timer;

/// Kinds of timers that have a queue of their own.
const QUEUES: usize = 2;

/// Timers, by when they are due; those of one moment in their own order.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    queues: [VecDeque<(Now, Timer)>; QUEUES],
    others: BinaryHeap<Reverse<(Now, Timer)>>,
}

impl Timers {
    pub(crate) fn put(&mut self, when: Now, timer: Timer) {
        let queue = match timer {
            Timer::Look(_) => self.queues.first_mut(),
            Timer::Forget(_) => self.queues.last_mut(),
            _ => None,
        };
        // What would stand out of order is one of the others.
        match queue.filter(|q| q.back().is_none_or(|last| *last <= (when, timer))) {
            Some(queue) => queue.push_back((when, timer)),
            None => self.others.push(Reverse((when, timer))),
        }
    }

    /// The next one.
    pub(crate) fn first(&self) -> Option<(Now, Timer)> {
        let other = self.others.peek().map(|Reverse(next)| next);
        self.queues.iter().filter_map(VecDeque::front).chain(other).min().copied()
    }

    /// Takes the next one out, if it is due.
    pub(crate) fn due(&mut self, now: Now) -> Option<Timer> {
        let next = self.first().filter(|(when, _)| *when <= now)?;
        match self.queues.iter_mut().find(|q| q.front() == Some(&next)) {
            Some(queue) => queue.pop_front(),
            None => self.others.pop().map(|Reverse(next)| next),
        };
        Some(next.1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn timers_come_in_the_order_of_one_heap(
            ops in proptest::collection::vec((any::<bool>(), 0u64..20, 0u64..4, 0u64..3), 0..200),
        ) {
            let (mut timers, mut model, mut now) = (Timers::default(), BinaryHeap::new(), 0);
            for (put, when, id, kind) in ops {
                if put {
                    let timer = [Timer::Look(id), Timer::Forget(id), Timer::Flush][usize::try_from(kind).unwrap()];
                    timers.put(Now(now + when), timer);
                    model.push(Reverse((Now(now + when), timer)));
                } else {
                    now += when;
                    let due = model.peek().is_some_and(|Reverse((at, _))| at.0 <= now);
                    let expected = if due { model.pop().map(|Reverse((_, timer))| timer) } else { None };
                    prop_assert_eq!(timers.due(Now(now)), expected);
                }
                prop_assert_eq!(timers.first(), model.peek().map(|Reverse(next)| *next));
            }
        }
    }
}
