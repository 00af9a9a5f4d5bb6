//! The side file of a media: its manifest, its page map and its slices with their proofs, in one sparse file.
//!
//! | offset | what |
//! | --- | --- |
//! | 0 | magic, then the [`State`], with a check: small, so that it is written in one piece |
//! | 512 | path of the media's file, if it is served in place |
//! | 8 KiB and 128 KiB | the signed manifest, at one of both places in turn |
//! | 256 KiB | page map and map of known slices, one bit each, least significant first (only while the media is fetched) |
//! | behind that | a slot of 5 KiB for each slice |
//!
//! Nothing in it is believed: the manifest's signature is checked when it is read, and each slice against the manifest's root.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use icet::key::Hash;
use icet::media::Signed;
use icet::{PageMap, ProvenSlice, SignedManifest, limits};
use minicbor::{Decode, Encode};

const MAGIC: &[u8; 16] = b"IceShare side 1\n";
const STATE_ROOM: usize = 496;
const ORIGIN_AT: u64 = 512;
const ORIGIN_ROOM: usize = 7 * 1024;
const MANIFEST_AT: [u64; 2] = [8 << 10, 128 << 10];
/// A manifest, its signature and CBOR around them.
const MANIFEST_ROOM: usize = limits::MANIFEST + 256;
const BODY_AT: u64 = 256 << 10;
/// Room of a slice (at most 4096 bytes), its proof (at most 31 hashes; a file's tree has at most 20 levels) and 4 bytes before them.
const SLOT: usize = 5 << 10;
const SLOT_PROOF: usize = 31;

/// What tells whether a file was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Stamp {
    #[n(0)]
    size: u64,
    #[n(1)]
    seconds: i64,
    #[n(2)]
    nanoseconds: i64,
    #[n(3)]
    inode: u64,
}

impl Stamp {
    pub(crate) fn of(m: &Metadata) -> Stamp {
        Stamp { size: m.size(), seconds: m.mtime(), nanoseconds: m.mtime_nsec(), inode: m.ino() }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

/// What changes in the life of a side file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct State {
    /// All pages stand in the media's file, and `stamp` is that file's.
    #[n(1)]
    pub(crate) complete: bool,
    /// Closed in an orderly way: the page map is right as long as the part file has this stamp.
    #[n(2)]
    pub(crate) stamp: Option<Stamp>,
    /// Whether there are maps. Without, all slices are there, and the media was complete from the beginning.
    #[n(3)]
    pub(crate) maps: bool,
    #[n(4)]
    manifest_len: u32,
    #[n(5)]
    manifest_hash: Hash,
    /// Whether the manifest stands at the second place.
    #[n(6)]
    second: bool,
}

impl State {
    fn new(maps: bool) -> State {
        // The first manifest goes to the first place.
        State {
            complete: false,
            stamp: None,
            maps,
            manifest_len: 0,
            manifest_hash: Hash([0; 32]),
            second: true,
        }
    }
}

/// Why a file is not a side file.
#[derive(Debug)]
pub(crate) enum SideError {
    /// Never finished being made: as good as none.
    Blank,
    /// Something else.
    Damaged(&'static str),
    /// The system.
    Io(io::Error),
}

impl From<io::Error> for SideError {
    fn from(e: io::Error) -> SideError {
        match e.kind() {
            io::ErrorKind::UnexpectedEof => SideError::Damaged("it is cut off"),
            _ => SideError::Io(e),
        }
    }
}

/// Which of the two maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Map {
    /// Pages held.
    Pages,
    /// Slices known.
    Slices,
}

/// An open side file.
#[derive(Debug)]
pub(crate) struct Side {
    file: File,
    state: Mutex<State>,
    maps: bool,
    pages: u64,
}

fn words(n: u64) -> u64 {
    n.div_ceil(64)
}

impl Side {
    /// Makes a side file out of an empty one. Only with the last write it becomes one.
    pub(crate) fn create(file: File, manifest: &SignedManifest, maps: bool) -> io::Result<Side> {
        file.write_all_at(MAGIC, 0)?;
        let mut side = Side { file, state: Mutex::new(State::new(maps)), maps, pages: manifest.pages };
        side.set_manifest(manifest)?;
        Ok(side)
    }

    /// Makes a side file whose manifest comes last: slots can be written at once, [`Side::set_manifest`] completes it.
    pub(crate) fn begin(file: File) -> io::Result<Side> {
        file.write_all_at(MAGIC, 0)?;
        Ok(Side { file, state: Mutex::new(State::new(false)), maps: false, pages: 0 })
    }

    /// Reads what `file` says.
    pub(crate) fn open(file: File) -> Result<(Side, SignedManifest), SideError> {
        let mut head = [0; 16 + STATE_ROOM];
        let len = read_at_most(&file, &mut head, 0)?;
        if len == 0 {
            return Err(SideError::Blank);
        }
        let head = head.get(..len).and_then(|h| h.strip_prefix(MAGIC));
        let rest = head.ok_or(SideError::Damaged("it does not begin as a side file of iceshare does"))?;
        let Some(state) = unseal(rest).and_then(|b| icet::frame::decode::<State>(b).ok()) else {
            return Err(SideError::Blank);
        };
        let len = usize::try_from(state.manifest_len).unwrap_or(usize::MAX);
        if len > MANIFEST_ROOM {
            return Err(SideError::Damaged("its manifest is too large"));
        }
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, MANIFEST_AT[usize::from(state.second)])?;
        if Hash(*blake3::hash(&bytes).as_bytes()) != state.manifest_hash {
            return Err(SideError::Damaged("its manifest was altered"));
        }
        let signed: Signed =
            icet::frame::decode(&bytes).map_err(|_| SideError::Damaged("it holds no manifest"))?;
        let manifest =
            SignedManifest::verify(signed).map_err(|_| SideError::Damaged("its manifest is not valid"))?;
        let side = Side { file, state: Mutex::new(state), maps: state.maps, pages: manifest.pages };
        Ok((side, manifest))
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> State {
        *self.lock()
    }

    pub(crate) fn set_state(&self, complete: bool, stamp: Option<Stamp>) -> io::Result<()> {
        self.change_state(|s| State { complete, stamp, ..s })
    }

    fn change_state(&self, change: impl FnOnce(State) -> State) -> io::Result<()> {
        let mut state = self.lock();
        let new = change(*state);
        let block = seal(&icet::frame::encode(&new));
        debug_assert!(block.len() <= STATE_ROOM);
        self.file.write_all_at(&block, MAGIC.len() as u64)?;
        *state = new;
        Ok(())
    }

    /// Writes the manifest, or replaces it by one with the same pages. The old one counts until the new one is there.
    pub(crate) fn set_manifest(&mut self, manifest: &SignedManifest) -> io::Result<()> {
        let bytes = icet::frame::encode(manifest.signed());
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if bytes.len() > MANIFEST_ROOM {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the manifest is too large"));
        }
        let second = !self.state().second;
        self.file.write_all_at(&bytes, MANIFEST_AT[usize::from(second)])?;
        self.pages = manifest.pages;
        let manifest_hash = Hash(*blake3::hash(&bytes).as_bytes());
        self.change_state(|s| State { manifest_len: len, manifest_hash, second, ..s })
    }

    /// Notes where the media's file is.
    pub(crate) fn set_origin(&self, path: &Path) -> io::Result<()> {
        let block = seal(path.as_os_str().as_bytes());
        if block.len() > ORIGIN_ROOM {
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, "the file's path is too long"));
        }
        self.file.write_all_at(&block, ORIGIN_AT)
    }

    /// Where the media's file is, if noted.
    pub(crate) fn origin(&self) -> io::Result<Option<PathBuf>> {
        let mut block = [0; ORIGIN_ROOM];
        let len = read_at_most(&self.file, &mut block, ORIGIN_AT)?;
        let path = block.get(..len).and_then(unseal).filter(|p| !p.is_empty());
        Ok(path.map(|p| PathBuf::from(OsStr::from_bytes(p))))
    }

    fn slices(&self) -> u64 {
        self.pages.div_ceil(icet::media::SLICE_PAGES)
    }

    fn map_at(&self, map: Map) -> u64 {
        match map {
            Map::Pages => BODY_AT,
            Map::Slices => BODY_AT + 8 * words(self.pages),
        }
    }

    /// Reads a map; bits beyond the end of the side file are unset.
    pub(crate) fn read_map(&self, map: Map) -> io::Result<PageMap> {
        let bits = if map == Map::Pages { self.pages } else { self.slices() };
        let mut out = PageMap::new(bits);
        let mut block = [0; 4096];
        let (mut at, end) = (0, 8 * words(bits));
        while at < end {
            let want = usize::try_from((end - at).min(4096)).unwrap_or(4096);
            let len = read_at_most(&self.file, &mut block[..want], self.map_at(map) + at)?;
            for (i, byte) in block[..len].iter().enumerate().filter(|(_, b)| **b != 0) {
                let first = 8 * (at + i as u64);
                (0..8).filter(|bit| byte >> bit & 1 == 1).for_each(|bit| {
                    out.insert(first + bit);
                });
            }
            if len < want {
                break;
            }
            at += len as u64;
        }
        Ok(out)
    }

    /// Writes the bits `first ..= last` of a map, and those that share words with them.
    pub(crate) fn write_map(&self, map: Map, bits: &PageMap, first: u64, last: u64) -> io::Result<()> {
        let (a, b) = (first / 64, last / 64 + 1);
        let range = usize::try_from(a).unwrap_or(usize::MAX)..usize::try_from(b).unwrap_or(usize::MAX);
        let words = bits.words().get(range).unwrap_or_default();
        let at = self.map_at(map) + 8 * a;
        // Almost always a few pages in one or two words.
        match words {
            [one] => self.file.write_all_at(&one.to_le_bytes(), at),
            _ => {
                let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
                self.file.write_all_at(&bytes, at)
            }
        }
    }

    fn slot_at(&self, index: u64) -> u64 {
        let maps = if self.maps { 8 * (words(self.pages) + words(self.slices())) } else { 0 };
        BODY_AT + maps.next_multiple_of(4096) + index * SLOT as u64
    }

    /// Where the first `count` slots end.
    pub(crate) fn slots_end(&self, count: u64) -> u64 {
        self.slot_at(count)
    }

    /// Writes a slice and its proof.
    pub(crate) fn write_slot(&self, index: u64, slice: &[u8], proof: &[Hash]) -> io::Result<()> {
        let lens = (u16::try_from(slice.len()), u8::try_from(proof.len()));
        let (Ok(slice_len), Ok(proof_len)) = lens else { return Err(io::ErrorKind::InvalidInput.into()) };
        if slice.len() > limits::SLICE || proof.len() > SLOT_PROOF {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut slot = Vec::with_capacity(SLOT);
        slot.extend_from_slice(&slice_len.to_le_bytes());
        slot.extend_from_slice(&[proof_len, 1]);
        slot.extend_from_slice(slice);
        proof.iter().for_each(|h| slot.extend_from_slice(&h.0));
        self.file.write_all_at(&slot, self.slot_at(index))
    }

    /// Reads a slice with its proof; none if there is none. Not verified.
    pub(crate) fn read_slot(&self, index: u64) -> io::Result<Option<ProvenSlice>> {
        let mut slot = [0; SLOT];
        let len = read_at_most(&self.file, &mut slot, self.slot_at(index))?;
        Ok(slot.get(..len).and_then(parse_slot))
    }
}

fn parse_slot(slot: &[u8]) -> Option<ProvenSlice> {
    let ([a, b, proofs, 1], rest) = slot.split_first_chunk::<4>()? else { return None };
    let (slice, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*a, *b])))?;
    let proof = rest.get(..32 * usize::from(*proofs))?;
    let proof = proof.as_chunks::<32>().0.iter().map(|h| Hash(*h)).collect();
    Some(ProvenSlice { slice: slice.to_vec().into(), proof })
}

/// Length, a check over length and bytes, and the bytes.
fn seal(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes();
    let check = blake3::Hasher::new().update(&len).update(bytes).finalize();
    [&len[..], &check.as_bytes()[..8], bytes].concat()
}

fn unseal(block: &[u8]) -> Option<&[u8]> {
    let (len, rest) = block.split_first_chunk::<2>()?;
    let (check, rest) = rest.split_first_chunk::<8>()?;
    let bytes = rest.get(..usize::from(u16::from_le_bytes(*len)))?;
    (blake3::Hasher::new().update(len).update(bytes).finalize().as_bytes()[..8] == check[..]).then_some(bytes)
}

/// Reads until `buf` is full or the file ends.
pub(crate) fn read_at_most(file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], at + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture::Fixture;

    fn file() -> File {
        tempfile::tempfile().unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let media = Fixture::new(1000, 1);
        let file = file();
        let side = Side::create(file.try_clone().unwrap(), &media.manifest, true).unwrap();
        let mut map = PageMap::new(1000);
        for page in [0, 63, 64, 640, 999] {
            map.insert(page);
            side.write_map(Map::Pages, &map, page, page).unwrap();
        }
        let mut slices = PageMap::new(16);
        slices.insert(15);
        side.write_map(Map::Slices, &slices, 15, 15).unwrap();
        let last = media.proven(15);
        side.write_slot(15, &last.slice, &last.proof).unwrap();
        side.set_origin(Path::new("/x/y.ogg")).unwrap();
        let stamp = Stamp::of(&file.metadata().unwrap());
        side.set_state(true, Some(stamp)).unwrap();

        let (side, manifest) = Side::open(file).unwrap();
        assert_eq!(manifest, media.manifest);
        assert_eq!(side.read_map(Map::Pages).unwrap(), map);
        assert_eq!(side.read_map(Map::Slices).unwrap(), slices);
        assert_eq!(side.read_slot(15).unwrap(), Some(last));
        assert_eq!(side.read_slot(14).unwrap(), None);
        assert_eq!(side.read_slot(16).unwrap(), None);
        assert_eq!(side.origin().unwrap(), Some(PathBuf::from("/x/y.ogg")));
        assert_eq!((side.state().complete, side.state().stamp), (true, Some(stamp)));
    }

    #[test]
    fn a_side_file_that_was_never_finished_is_blank() {
        let f = file();
        assert!(matches!(Side::open(f.try_clone().unwrap()), Err(SideError::Blank)));
        f.write_all_at(MAGIC, 0).unwrap();
        assert!(matches!(Side::open(f.try_clone().unwrap()), Err(SideError::Blank)));
        f.write_all_at(b"something else", 0).unwrap();
        assert!(matches!(Side::open(f), Err(SideError::Damaged(_))));
    }

    #[test]
    fn an_altered_byte_in_state_or_manifest_is_seen() {
        let media = Fixture::new(3, 1);
        for at in [20, 40, MANIFEST_AT[0] + 10, MANIFEST_AT[0] + 150] {
            let f = file();
            Side::create(f.try_clone().unwrap(), &media.manifest, true).unwrap();
            let mut byte = [0];
            f.read_exact_at(&mut byte, at).unwrap();
            f.write_all_at(&[byte[0] ^ 1], at).unwrap();
            assert!(Side::open(f).is_err(), "{at}");
        }
    }

    #[test]
    fn slots_that_lie_are_none() {
        for slot in [&[][..], &[1, 0, 0], &[0xff, 0xff, 0, 1], &[0, 0, 200, 1], &[0, 0, 0, 0]] {
            assert_eq!(parse_slot(slot), None);
        }
        assert!(parse_slot(&[1, 0, 0, 1, 7]).is_some());
    }
}
