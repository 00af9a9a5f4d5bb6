//! BLAKE3 of many pages at once.
//!
//! A page of 4 KB is four chunks, a quarter of what AVX-512 hashes side by side and half of what AVX2 does. So the
//! chunks of different pages go through the registers together: 0.22 s a GiB instead of 0.42 (AVX-512, pages of 4200
//! bytes; `cargo bench -p iceshare --bench store`). The vector code is the `blake3` crate's; only the tree of each page
//! is walked here (BLAKE3 paper, section 2.4), every level of all pages in one go.

use blake3::IncrementCounter;
use blake3::platform::{Platform, le_bytes_from_words_32};
use blake3::{BLOCK_LEN, CHUNK_LEN, OUT_LEN};
use icet::key::Hash;

/// The initial chaining value (section 2.2, table 1).
const IV: [u32; 8] =
    [0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A, 0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19];
// Domain flags (section 2.2, table 3).
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;

/// With fewer lanes a page alone fills them.
const LANES: usize = 8;
/// Pages of which the chunks are hashed together: more gain nothing, and fall out of the second level cache.
const BATCH: usize = 64;

/// The BLAKE3 hashes of `pages`, in their order.
#[must_use]
pub fn hash_pages<P: AsRef<[u8]>>(pages: &[P]) -> Vec<Hash> {
    let platform = Platform::detect();
    let mut hashes = Vec::with_capacity(pages.len());
    if platform.simd_degree() < LANES {
        hashes.extend(pages.iter().map(|page| hash_page(page.as_ref())));
        return hashes;
    }
    let mut trees = Trees { platform, values: Vec::new(), parents: Vec::new(), to: Vec::new() };
    for batch in pages.chunks(BATCH) {
        let batch: Vec<&[u8]> = batch.iter().map(AsRef::as_ref).collect();
        trees.hash(&batch, &mut hashes);
    }
    hashes
}

/// The hash of one page.
#[must_use]
pub fn hash_page(page: &[u8]) -> Hash {
    Hash(*blake3::hash(page).as_bytes())
}

/// A page's chaining values among all.
struct Tree {
    start: usize,
    values: usize,
}

/// The trees of a batch of pages.
struct Trees {
    platform: Platform,
    /// The chaining values of all pages, one page's after the other's.
    values: Vec<[u8; OUT_LEN]>,
    /// What comes out of the vector code, before each value is put where it belongs.
    parents: Vec<u8>,
    /// Where that is.
    to: Vec<usize>,
}

impl Trees {
    fn hash(&mut self, pages: &[&[u8]], hashes: &mut Vec<Hash>) {
        // A page of one chunk is a tree of one node, and no other's neighbour.
        let mut trees = Vec::with_capacity(pages.len());
        let mut start = 0;
        for page in pages.iter().filter(|p| p.len() > CHUNK_LEN) {
            let values = page.len().div_ceil(CHUNK_LEN);
            trees.push(Tree { start, values });
            start += values;
        }
        self.values.clear();
        self.values.resize(start, [0; OUT_LEN]);
        self.whole_chunks(pages, &trees);
        for (page, tree) in large(pages).zip(&trees) {
            let whole = page.len() / CHUNK_LEN;
            if let (Some(rest @ [_, ..]), Some(value)) =
                (page.get(whole * CHUNK_LEN..), self.values.get_mut(tree.start + whole))
            {
                *value = last_chunk(self.platform, rest, whole as u64);
            }
        }
        while self.one_level(&mut trees) {}
        let mut roots = self.roots(&trees).into_iter();
        hashes.extend(pages.iter().map(|page| match page.len() {
            0..=CHUNK_LEN => hash_page(page),
            _ => roots.next().unwrap_or_else(|| hash_page(page)),
        }));
    }

    /// The chaining values of all whole chunks: the first of each page, then the second of each.
    fn whole_chunks(&mut self, pages: &[&[u8]], trees: &[Tree]) {
        let most = pages.iter().map(|p| p.len() / CHUNK_LEN).max().unwrap_or(0);
        let mut chunks: Vec<&[u8; CHUNK_LEN]> = Vec::with_capacity(trees.len());
        for index in 0..most {
            chunks.clear();
            self.to.clear();
            for (page, tree) in large(pages).zip(trees) {
                let chunk = page.get(index * CHUNK_LEN..).and_then(|rest| rest.first_chunk());
                if let Some(chunk) = chunk {
                    chunks.push(chunk);
                    self.to.push(tree.start + index);
                }
            }
            self.parents.resize(chunks.len() * OUT_LEN, 0);
            let (counter, no) = (index as u64, IncrementCounter::No);
            self.platform.hash_many(&chunks, &IV, counter, no, 0, CHUNK_START, CHUNK_END, &mut self.parents);
            self.put();
        }
    }

    /// Joins neighbours in each tree that is not down to its two last; whether there was one.
    fn one_level(&mut self, trees: &mut [Tree]) -> bool {
        let mut pairs: Vec<[u8; BLOCK_LEN]> = Vec::new();
        self.to.clear();
        for tree in trees.iter().filter(|t| t.values > 2) {
            let values = self.values.get(tree.start..tree.start + tree.values).unwrap_or_default();
            let (both, _) = values.as_chunks::<2>();
            pairs.extend(both.iter().map(pair));
            self.to.extend(tree.start..tree.start + both.len());
        }
        self.join(&pairs, PARENT);
        self.put();
        for tree in trees.iter_mut().filter(|t| t.values > 2) {
            let joined = tree.values.div_ceil(2);
            if tree.values % 2 == 1 {
                self.values.swap(tree.start + tree.values - 1, tree.start + joined - 1);
            }
            tree.values = joined;
        }
        !pairs.is_empty()
    }

    fn roots(&mut self, trees: &[Tree]) -> Vec<Hash> {
        let last_two = |tree: &Tree| self.values.get(tree.start..)?.first_chunk().map(pair);
        let pairs: Vec<[u8; BLOCK_LEN]> = trees.iter().filter_map(last_two).collect();
        self.join(&pairs, PARENT | ROOT);
        let (roots, _) = self.parents.as_chunks();
        roots.iter().map(|root| Hash(*root)).collect()
    }

    fn join(&mut self, pairs: &[[u8; BLOCK_LEN]], flags: u8) {
        self.parents.resize(pairs.len() * OUT_LEN, 0);
        let pairs: Vec<&[u8; BLOCK_LEN]> = pairs.iter().collect();
        self.platform.hash_many(&pairs, &IV, 0, IncrementCounter::No, flags, 0, 0, &mut self.parents);
    }

    /// Puts each value that came out where it belongs.
    fn put(&mut self) {
        let (parents, _) = self.parents.as_chunks();
        for (parent, to) in parents.iter().zip(&self.to) {
            if let Some(value) = self.values.get_mut(*to) {
                *value = *parent;
            }
        }
    }
}

fn large<'a>(pages: &'a [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    pages.iter().copied().filter(|p| p.len() > CHUNK_LEN)
}

fn pair([left, right]: &[[u8; OUT_LEN]; 2]) -> [u8; BLOCK_LEN] {
    let mut block = [0; BLOCK_LEN];
    let (a, b) = block.split_at_mut(OUT_LEN);
    a.copy_from_slice(left);
    b.copy_from_slice(right);
    block
}

/// The chaining value of a page's last chunk, which is not whole.
fn last_chunk(platform: Platform, bytes: &[u8], counter: u64) -> [u8; OUT_LEN] {
    let mut value = IV;
    let last = bytes.len().div_ceil(BLOCK_LEN) - 1;
    for (i, part) in bytes.chunks(BLOCK_LEN).enumerate() {
        let flags = if i == 0 { CHUNK_START } else { 0 } | if i == last { CHUNK_END } else { 0 };
        let mut block = [0; BLOCK_LEN];
        for (to, from) in block.iter_mut().zip(part) {
            *to = *from;
        }
        let len = u8::try_from(part.len()).unwrap_or(u8::MAX);
        platform.compress_in_place(&mut value, &block, len, counter, flags);
    }
    le_bytes_from_words_32(&value)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn page(len: usize, seed: usize) -> Bytes {
        (0..len).map(|i| (i * 31 + i / 256 + seed).to_le_bytes()[0]).collect()
    }

    fn agree(pages: &[Bytes]) {
        let expected: Vec<Hash> = pages.iter().map(|p| hash_page(p)).collect();
        assert_eq!(hash_pages(pages), expected);
    }

    #[test]
    fn every_shape_of_a_tree_agrees_with_the_crate() {
        for chunks in 0..=64 {
            let around = [0, 1, 27, 63, 64, 65, 1023].map(|more| page(chunks * CHUNK_LEN + more, chunks));
            agree(&around);
            agree(&around[..1]);
        }
        agree(&[]);
        agree(&[page(65_307, 1)]);
    }

    proptest! {
        #[test]
        fn a_run_of_any_pages_agrees_with_the_crate(lens in proptest::collection::vec(0..9000_usize, 0..150)) {
            let pages: Vec<Bytes> = lens.iter().enumerate().map(|(i, len)| page(*len, i)).collect();
            agree(&pages);
        }
    }
}
