//! The Merkle tree over a media's slices, of the shape of RFC 9162 section 2.1: split at the largest power of two.
//!
//! `leaf = BLAKE3("IceShare/1 slice\0" || slice bytes)`, `node = BLAKE3("IceShare/1 node\0" || left || right)`.

use crate::key::Hash;
use crate::limits;

/// The hash of a slice as it was received.
#[must_use]
pub fn leaf(slice: &[u8]) -> Hash {
    Hash(*blake3::Hasher::new().update(b"IceShare/1 slice\0").update(slice).finalize().as_bytes())
}

/// The hash of the node above two.
#[must_use]
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut h = blake3::Hasher::new();
    Hash(*h.update(b"IceShare/1 node\0").update(&left.0).update(&right.0).finalize().as_bytes())
}

/// All levels of a tree: 64 bytes a slice, for a publisher that must prove any of them.
#[derive(Debug, Clone)]
pub struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// The tree over `leaves`; none if there is no leaf.
    #[must_use]
    pub fn new(leaves: Vec<Hash>) -> Option<Tree> {
        if leaves.is_empty() {
            return None;
        }
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|l| l.len() > 1) {
            let up = below.chunks(2).map(|c| if let [l, r] = c { node(l, r) } else { c[0] }).collect();
            levels.push(up);
        }
        Some(Tree { levels })
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.levels[self.levels.len() - 1][0]
    }

    /// Number of leaves.
    #[must_use]
    pub fn leaves(&self) -> u64 {
        self.levels[0].len() as u64
    }

    /// The siblings on the way from leaf `index` to the root, lowest first; none beyond the end.
    #[must_use]
    pub fn proof(&self, index: u64) -> Option<Vec<Hash>> {
        let mut i = usize::try_from(index).ok().filter(|i| *i < self.levels[0].len())?;
        let mut out = Vec::new();
        for level in &self.levels {
            if let Some(sibling) = level.get(i ^ 1) {
                out.push(*sibling);
            }
            i /= 2;
        }
        Some(out)
    }
}

/// Whether `leaf` stands at `index` among `count` leaves under `root`.
#[must_use]
pub fn verify(root: &Hash, count: u64, index: u64, leaf: Hash, proof: &[Hash]) -> bool {
    if index >= count || proof.len() > limits::PROOF {
        return false;
    }
    let (mut i, mut n, mut at) = (index, count, leaf);
    let mut proof = proof.iter();
    while n > 1 {
        if i % 2 == 1 || i + 1 < n {
            let Some(sibling) = proof.next() else { return false };
            at = if i % 2 == 1 { node(sibling, &at) } else { node(&at, sibling) };
        }
        i /= 2;
        n = n.div_ceil(2);
    }
    proof.next().is_none() && at == *root
}
