//! Buffers that come back.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;

type Spare = Mutex<Vec<Vec<u8>>>;

/// Buffers that were given away as [`Bytes`] and came back when these were dropped: their memory is warm, need not be zeroed
/// again, and does not go to the system and back. Clones share them.
#[derive(Debug, Clone)]
pub struct BufferPool {
    spare: Arc<Spare>,
    most: usize,
}

/// A buffer that was given away.
struct Lent {
    bytes: Vec<u8>,
    spare: Weak<Spare>,
    most: usize,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(spare) = self.spare.upgrade() else { return };
        let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < self.most {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl BufferPool {
    /// Keeps `most` buffers for their next use.
    #[must_use]
    pub fn new(most: usize) -> BufferPool {
        BufferPool { spare: Arc::default(), most }
    }

    /// The buffer that came back last, with what was in it.
    #[must_use]
    pub fn take(&self) -> Option<Vec<u8>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Gives all of `bytes` away. The buffer comes back, if the pool is there then and has room.
    #[must_use]
    pub fn lend(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { bytes, spare: Arc::downgrade(&self.spare), most: self.most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_when_nobody_looks_at_them_any_more() {
        let pool = BufferPool::new(1);
        assert_eq!(pool.take(), None);
        let lent = pool.lend(vec![1, 2, 3]);
        let part = lent.slice(1..);
        drop(lent);
        assert_eq!(pool.take(), None, "a part of it is in use");
        assert_eq!(part, [2, 3][..]);
        drop(part);
        drop(pool.lend(vec![4]));
        assert_eq!(pool.take(), Some(vec![1, 2, 3]), "and the second found no room");
        assert_eq!(pool.take(), None);
        let late = pool.lend(vec![5]);
        drop(pool);
        assert_eq!(late, [5][..]);
    }
}
