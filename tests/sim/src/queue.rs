//! What happens when: events in the order of their time, and of their making where that is the same.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use icet::Now;

/// Events to come.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Entry<E>>,
    next: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Now,
    number: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Queue<E> {
        Queue { heap: BinaryHeap::new(), next: 0 }
    }

    pub(crate) fn push(&mut self, at: Now, event: E) {
        self.next += 1;
        self.heap.push(Entry { at, number: self.next, event });
    }

    pub(crate) fn next_at(&self) -> Option<Now> {
        self.heap.peek().map(|e| e.at)
    }

    pub(crate) fn pop(&mut self) -> Option<E> {
        self.heap.pop().map(|e| e.event)
    }

    /// Events that were ever put in.
    pub(crate) fn made(&self) -> u64 {
        self.next
    }
}

// The heap gives the greatest: that is the earliest.
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Entry<E>) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Entry<E>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Entry<E>) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Entry<E> {}
