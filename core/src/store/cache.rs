//! The slices used last, decoded.

use std::collections::HashMap;
use std::sync::Arc;

use icet::Slice;

/// 64 records are about 3.6 KB decoded: at most 1 MB a media that is in use.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct SliceCache {
    slices: HashMap<u64, (Arc<Slice>, u64)>,
    clock: u64,
}

impl SliceCache {
    pub(crate) fn get(&mut self, index: u64) -> Option<Arc<Slice>> {
        self.clock += 1;
        let (slice, used) = self.slices.get_mut(&index)?;
        *used = self.clock;
        Some(slice.clone())
    }

    pub(crate) fn put(&mut self, slice: Arc<Slice>) {
        if self.slices.len() >= MOST && !self.slices.contains_key(&slice.index) {
            // Room for several at once, so that a long walk does not search for the oldest at each step.
            let mut ages: Vec<u64> = self.slices.values().map(|(_, used)| *used).collect();
            let (_, limit, _) = ages.select_nth_unstable(MOST / 8);
            let limit = *limit;
            self.slices.retain(|_, (_, used)| *used > limit);
        }
        self.clock += 1;
        self.slices.insert(slice.index, (slice, self.clock));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_used_and_stays_small() {
        let mut cache = SliceCache::default();
        for index in 0..10_000 {
            cache.put(Arc::new(Slice { index, offset: 0, time: 0, records: Vec::new() }));
            assert!(cache.get(0).is_some(), "used all the time");
            assert!(cache.get(index).is_some());
            assert!(cache.slices.len() <= MOST);
        }
        assert!(cache.get(9_900).is_some());
        assert!(cache.get(5_000).is_none());
    }
}
