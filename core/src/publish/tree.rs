//! The Merkle tree over slices that stand in a side file, built and read on disk: memory does not grow with the media.

use std::io;
use std::os::unix::fs::FileExt;

use icet::key::Hash;
use icet::merkle;

use crate::store::side::{Side, read_at_most};

/// Hashes handled at once; even.
const BLOCK: usize = 2048;

/// Gives each of the first `count` slots the proof of its slice; returns the root. The levels of the tree stand behind the slots
/// meanwhile.
///
/// # Errors
/// The disk's; `InvalidData` if a slice is missing.
pub(crate) fn prove(side: &Side, count: u64) -> io::Result<Hash> {
    let file = side.file();
    let base = side.slots_end(count);
    let slice = |index| side.read_slot(index)?.ok_or(io::Error::from(io::ErrorKind::InvalidData));

    // Where each level begins and how many hashes it has, leaves first.
    let mut levels = vec![(base, count)];
    let mut block = Vec::with_capacity(32 * BLOCK);
    for index in 0..count {
        block.extend_from_slice(&merkle::leaf(&slice(index)?.slice).0);
        if block.len() == 32 * BLOCK || index + 1 == count {
            file.write_all_at(&block, base + 32 * (index + 1) - block.len() as u64)?;
            block.clear();
        }
    }
    let mut below = vec![0; 32 * BLOCK];
    while let Some(&(from, n)) = levels.last().filter(|(_, n)| *n > 1) {
        let to = from + 32 * n;
        let mut written = to;
        for first in (0..n).step_by(BLOCK) {
            let len = usize::try_from((n - first).min(BLOCK as u64)).unwrap_or(BLOCK);
            file.read_exact_at(&mut below[..32 * len], from + 32 * first)?;
            for pair in below[..32 * len].as_chunks::<32>().0.chunks(2) {
                match pair {
                    [l, r] => block.extend_from_slice(&merkle::node(&Hash(*l), &Hash(*r)).0),
                    other => other.iter().for_each(|h| block.extend_from_slice(h)),
                }
            }
            file.write_all_at(&block, written)?;
            written += block.len() as u64;
            block.clear();
        }
        levels.push((to, n.div_ceil(2)));
    }
    let hash = |at| {
        let mut hash = [0; 32];
        match read_at_most(file, &mut hash, at)? {
            32 => Ok(Hash(hash)),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    };
    for index in 0..count {
        let mut proof = Vec::new();
        let mut i = index;
        for (at, n) in &levels {
            if i ^ 1 < *n {
                proof.push(hash(at + 32 * (i ^ 1))?);
            }
            i /= 2;
        }
        side.write_slot(index, &slice(index)?.slice, &proof)?;
    }
    let root = hash(levels.last().map_or(base, |(at, _)| *at))?;
    file.set_len(base)?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use icet::merkle::{Tree, leaf, verify};

    use super::*;

    #[test]
    fn equals_the_tree_in_memory() {
        for count in (1..20_u64).chain([63, 64, 65, 4095, 4096, 4097, 5000]) {
            let side = Side::begin(tempfile::tempfile().unwrap()).unwrap();
            let slices: Vec<_> = (0..count).map(|i| i.to_be_bytes()).collect();
            for (i, slice) in (0..).zip(&slices) {
                side.write_slot(i, slice, &[]).unwrap();
            }
            let root = prove(&side, count).unwrap();
            let tree = Tree::new(slices.iter().map(|s| leaf(s)).collect()).unwrap();
            assert_eq!(root, tree.root());
            for (i, slice) in (0..).zip(&slices) {
                let proven = side.read_slot(i).unwrap().unwrap();
                assert_eq!(proven.slice[..], slice[..]);
                assert_eq!(Some(&proven.proof), tree.proof(i).as_ref());
                assert!(verify(&root, count, i, leaf(slice), &proven.proof));
            }
            assert!(side.read_slot(count).unwrap().is_none(), "nothing of the tree stays");
        }
    }

    #[test]
    fn a_missing_slice_is_an_error() {
        let side = Side::begin(tempfile::tempfile().unwrap()).unwrap();
        side.write_slot(1, b"x", &[]).unwrap();
        assert_eq!(prove(&side, 2).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
