//! How many copies there are of each unit of a media, in classes that can be searched a word at a time.

use icet::Manifest;

use super::bits::Bits;
use super::board::PeerIx;

/// No peer: their numbers begin with 1.
const NOBODY: PeerIx = PeerIx(0);

/// Most pages of a unit, and about how many bytes one has.
const UNIT: (u64, u64) = (16, 64 << 10);

/// Pages of a unit, the grain in which copies are counted and bulk is ordered: about 64 KB, so that a copy can soon be
/// passed on whatever the length of pages.
pub(crate) fn unit(manifest: &Manifest) -> u64 {
    (UNIT.1 * manifest.pages.max(1) / manifest.bytes.max(1)).clamp(1, UNIT.0)
}

/// Holders of a unit that are known by name.
const NAMED: usize = 4;

/// Classes of copies: 0, 1, 2, 3, 4-5, 6-8, 9-15, 16 and more.
pub(crate) const CLASSES: usize = 8;

fn class(count: u32) -> usize {
    match count {
        0..=3 => count as usize,
        4..=5 => 4,
        6..=8 => 5,
        9..=15 => 6,
        _ => 7,
    }
}

/// Counts by unit. Copies are those of members that hold a part of the media; members that hold all of it would only add
/// the same to each unit, and are counted apart.
#[derive(Debug)]
pub(crate) struct Rarity {
    copies: Vec<u16>,
    flying: Vec<u16>,
    classes: [Bits; CLASSES],
    /// Some who hold each unit, so that one that few hold is found in a crowd that is too large to be searched.
    named: Vec<[PeerIx; NAMED]>,
}

impl Rarity {
    /// Bytes that it takes for `units` units.
    pub(crate) fn bytes(units: u64) -> u64 {
        units * (4 + 8 * NAMED as u64) + CLASSES as u64 * Bits::bytes(units)
    }

    pub(crate) fn new(units: u64) -> Rarity {
        let n = usize::try_from(units).unwrap_or(usize::MAX);
        let mut classes: [Bits; CLASSES] = std::array::from_fn(|_| Bits::new(units));
        classes[0] = Bits::full(units);
        Rarity { copies: vec![0; n], flying: vec![0; n], classes, named: vec![[NOBODY; NAMED]; n] }
    }

    /// Units of class `c`, counting copies and what is on its way.
    pub(crate) fn class(&self, c: usize) -> &Bits {
        &self.classes[c]
    }

    fn at(&self, unit: u64) -> (u16, u16) {
        usize::try_from(unit)
            .ok()
            .and_then(|i| Some((*self.copies.get(i)?, *self.flying.get(i)?)))
            .unwrap_or((0, 0))
    }

    /// Copies of a unit among members that hold a part.
    pub(crate) fn copies(&self, unit: u64) -> u16 {
        self.at(unit).0
    }

    /// Assignments under way that bring some of a unit.
    pub(crate) fn flying(&self, unit: u64) -> u16 {
        self.at(unit).1
    }

    fn change(&mut self, unit: u64, copies: i8, flying: i8) {
        let Ok(i) = usize::try_from(unit) else { return };
        let (Some(c), Some(f)) = (self.copies.get_mut(i), self.flying.get_mut(i)) else { return };
        let before = class(u32::from(*c) + u32::from(*f));
        *c = c.saturating_add_signed(copies.into());
        *f = f.saturating_add_signed(flying.into());
        let after = class(u32::from(*c) + u32::from(*f));
        if before != after {
            self.classes[before].clear(unit, unit);
            self.classes[after].set(unit, unit);
        }
    }

    pub(crate) fn add_copy(&mut self, unit: u64) {
        self.change(unit, 1, 0);
    }

    pub(crate) fn remove_copy(&mut self, unit: u64) {
        self.change(unit, -1, 0);
    }

    fn named_mut(&mut self, unit: u64) -> Option<&mut [PeerIx; NAMED]> {
        self.named.get_mut(usize::try_from(unit).ok()?)
    }

    /// Remembers a holder of a unit, instead of the one that was longest if there are many.
    pub(crate) fn name(&mut self, unit: u64, peer: PeerIx) {
        let Some(named) = self.named_mut(unit).filter(|n| !n.contains(&peer)) else { return };
        if let Some(free) = named.iter_mut().find(|n| **n == NOBODY) {
            *free = peer;
        } else {
            named.rotate_left(1);
            named[NAMED - 1] = peer;
        }
    }

    /// A holder holds the units `first ..= last` no longer, or is not believed.
    pub(crate) fn unname(&mut self, first: u64, last: u64, peer: PeerIx) {
        for unit in first..=last {
            let named = self.named_mut(unit);
            named.into_iter().flatten().filter(|n| **n == peer).for_each(|n| *n = NOBODY);
        }
    }

    /// Some who hold a unit.
    pub(crate) fn named(&self, unit: u64) -> impl Iterator<Item = PeerIx> {
        let named = usize::try_from(unit).ok().and_then(|i| self.named.get(i));
        named.into_iter().flatten().copied().filter(|n| *n != NOBODY)
    }

    /// An assignment of the units `first ..= last` began.
    pub(crate) fn take_off(&mut self, first: u64, last: u64) {
        (first..=last).for_each(|u| self.change(u, 0, 1));
    }

    /// It ended.
    pub(crate) fn land(&mut self, first: u64, last: u64) {
        (first..=last).for_each(|u| self.change(u, 0, -1));
    }
}
