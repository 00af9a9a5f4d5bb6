use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::fixture::{Fixture, PAGE_TIME};
use super::*;
use crate::ogg::page;

struct Place {
    dir: TempDir,
    store: Store,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("data")).unwrap();
        Place { dir, store }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("song.ogg")
    }

    fn part(&self) -> PathBuf {
        self.dir.path().join("song.ogg.part")
    }

    fn fetch(&self, media: &Fixture) -> Result<Arc<MediaStore>, StoreError> {
        self.store.fetch(media.manifest.clone(), Target::File(self.out()))
    }

    /// A fetch that knows all slices.
    fn begin(&self, media: &Fixture) -> Arc<MediaStore> {
        let fetch = self.fetch(media).unwrap();
        media.all_proven().for_each(|s| drop(fetch.put_slice(&s).unwrap()));
        fetch
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_finished_fetch_is_the_original_and_can_be_shared() {
    let (media, place) = (Fixture::new(300, 1), Place::new());
    let fetch = place.begin(&media);
    assert_eq!(fetch.file(), place.part());
    let mut changed = fetch.changed();
    changed.mark_unchanged();
    for first in [100, 0, 200] {
        assert_eq!(fetch.put_pages(first, media.run(first, first + 99)).unwrap(), 100);
    }
    assert!(changed.has_changed().unwrap());
    assert!(fetch.is_complete());
    assert_eq!(fetch.finish().unwrap(), place.out());
    assert_eq!(fs::read(place.out()).unwrap(), media.bytes());
    assert_eq!(place.names(), ["data", "song.ogg"]);
    // Goes on from there, in this process and in the next.
    for store in [&place.store, &Store::open(place.store.dir()).unwrap()] {
        let shared = store.get(&media.manifest.id()).unwrap();
        assert_eq!(shared.read(0, usize::MAX).unwrap(), media.bytes());
        assert_eq!(shared.proven_slice(4).unwrap(), media.proven(4));
        assert_eq!(store.list().unwrap(), [media.manifest.id()]);
        assert!(shared.is_complete() && !shared.is_stale());
        assert_eq!(shared.put_pages(5, media.run(5, 9)).unwrap(), 0);
    }
    assert_eq!(fetch.finish().unwrap(), place.out());
}

#[test]
fn only_the_publishers_pages_are_stored() {
    let (media, place) = (Fixture::new(100, 1), Place::new());
    let fetch = place.fetch(&media).unwrap();
    assert!(matches!(fetch.put_pages(0, media.run(0, 0)), Err(PutError::UnknownSlice { page: 0 })));
    fetch.put_slice(&media.proven(0)).unwrap();
    assert!(matches!(fetch.put_pages(63, media.run(63, 64)), Err(PutError::UnknownSlice { page: 64 })));
    fetch.put_slice(&media.proven(1)).unwrap();
    assert!(matches!(fetch.put_pages(100, media.run(0, 0)), Err(PutError::Beyond { page: 100 })));
    assert!(matches!(fetch.put_pages(u64::MAX, media.run(0, 1)), Err(PutError::Beyond { .. })));
    let altered = |page: u64, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = media.pages[usize::try_from(page).unwrap()].to_vec();
        change(&mut bytes);
        Bytes::from(bytes)
    };
    let at = (0..100).find(|p| media.run(*p, *p)[0].len() > 500).unwrap();
    let flip: &dyn Fn(&mut Vec<u8>) = &|b| b[300] ^= 4;
    let mended: &dyn Fn(&mut Vec<u8>) = &|b| {
        b[300] ^= 4;
        page::seal(b);
    };
    let cut: &dyn Fn(&mut Vec<u8>) = &|b| b.truncate(20);
    let longer: &dyn Fn(&mut Vec<u8>) = &|b| b.push(0);
    let crc: &dyn Fn(&mut Vec<u8>) = &|b| b[22] ^= 1;
    for change in [flip, mended, cut, longer, crc] {
        let mut run = media.run(at, 99).to_vec();
        run[0] = altered(at, change);
        assert!(matches!(fetch.put_pages(at, &run), Err(PutError::Altered { page }) if page == at));
    }
    // A sound page in another's place.
    assert!(matches!(fetch.put_pages(3, media.run(4, 4)), Err(PutError::Altered { page: 3 })));
    // One bad page in a run keeps the good ones before it out: the caller may put those again.
    let mut run = media.run(10, 20).to_vec();
    run[10] = altered(20, &|b| b[5] ^= 1);
    assert!(matches!(fetch.put_pages(10, &run), Err(PutError::Altered { page: 20 })));
    assert_eq!(fetch.held(), 0);
    assert_eq!(fs::read(place.part()).unwrap(), vec![0; media.bytes().len()], "nothing of it was written");
    // Slices of another media, or altered ones.
    let other = Fixture::new(100, 2);
    assert!(matches!(fetch.put_slice(&other.proven(0)), Err(StoreError::Slice(_))));
    let mut bad = media.proven(1);
    bad.proof[0].0[0] ^= 1;
    assert!(matches!(fetch.put_slice(&bad), Err(StoreError::Slice(_))));
}

#[test]
fn a_killed_fetch_resumes_with_every_page() {
    let (media, place) = (Fixture::new(1000, 3), Place::new());
    let fetch = place.begin(&media);
    for first in (0..1000).step_by(100) {
        fetch.put_pages(first, media.run(first, first + 29)).unwrap();
    }
    let held = fetch.map();
    drop(fetch); // No close: as after kill -9.
    let fetch = place.fetch(&media).unwrap();
    assert_eq!(fetch.map(), held);
    assert!((0..16).all(|i| fetch.has_slice(i)));
    fetch.put_pages(30, media.run(30, 99)).unwrap();
    fetch.close().unwrap();
    assert!(matches!(fetch.put_pages(130, media.run(130, 140)), Err(PutError::Store(StoreError::Closed))));
    assert!(matches!(fetch.finish(), Err(StoreError::Incomplete { missing: 630 })));
    let again = place.fetch(&media).unwrap();
    assert!(again.has(99) && !again.has(130) && again.held() == 370);
}

#[test]
fn the_map_may_be_behind_or_ahead_of_the_part_file() {
    let (media, place) = (Fixture::new(500, 4), Place::new());
    let fetch = place.begin(&media);
    fetch.put_pages(0, media.run(0, 99)).unwrap();
    fetch.put_pages(200, media.run(200, 299)).unwrap();
    drop(fetch);
    let part = OpenOptions::new().write(true).open(place.part()).unwrap();
    // Written, but killed before the map: not lost.
    part.write_all_at(&media.run(350, 360).concat(), media.offset(350)).unwrap();
    // In the map, but lost (or altered) on disk: fetched again.
    part.write_all_at(b"x", media.offset(250) + 26).unwrap();
    part.write_all_at(&[0; 27], media.offset(99)).unwrap();
    let fetch = place.fetch(&media).unwrap();
    let expected = |p: u64| p < 99 || (200..300).contains(&p) && p != 250 || (350..=360).contains(&p);
    assert!((0..500).all(|p| fetch.has(p) == expected(p)));
    // And so says the map on disk: closed cleanly and opened, it is the same.
    fetch.close().unwrap();
    let fetch = place.fetch(&media).unwrap();
    assert!((0..500).all(|p| fetch.has(p) == expected(p)));
}

#[test]
fn a_clean_close_is_believed_only_while_the_part_file_is_untouched() {
    let (media, place) = (Fixture::new(100, 5), Place::new());
    let fetch = place.begin(&media);
    fetch.put_pages(0, media.run(0, 49)).unwrap();
    fetch.close().unwrap();
    drop(fetch);
    let part = OpenOptions::new().write(true).open(place.part()).unwrap();
    part.write_all_at(b"x", media.offset(10) + 20).unwrap();
    part.set_times(fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH)).unwrap();
    let fetch = place.fetch(&media).unwrap();
    assert!(!fetch.has(10) && fetch.held() == 49);
    drop(fetch);
    fs::remove_file(place.part()).unwrap();
    let fetch = place.fetch(&media).unwrap();
    assert_eq!(fetch.held(), 0);
    assert!(fetch.has_slice(1), "slices outlive the part file");
}

#[test]
fn damaged_slices_on_disk_are_never_believed() {
    let (media, place) = (Fixture::new(640, 6), Place::new());
    let fetch = place.begin(&media);
    fetch.put_pages(0, media.run(0, 639)).unwrap();
    drop(fetch);
    let side_path = disk::with_suffix(&place.part(), ".iceshare");
    let bytes = fs::read(&side_path).unwrap();
    let slice = media.proven(3).slice.to_vec();
    let at = bytes.windows(slice.len()).position(|w| w == slice).unwrap() as u64;
    OpenOptions::new().write(true).open(&side_path).unwrap().write_all_at(b"?", at + 500).unwrap();
    let fetch = place.fetch(&media).unwrap();
    assert!((0..640).all(|p| fetch.has(p) != (192..256).contains(&p)));
    assert!(fetch.slice(3).is_none() && fetch.proven_slice(3).is_none());
    fetch.put_slice(&media.proven(3)).unwrap();
    fetch.put_pages(192, media.run(192, 255)).unwrap();
    fetch.finish().unwrap();
}

#[test]
fn outputs_are_never_overwritten() {
    let (media, place) = (Fixture::new(10, 7), Place::new());
    fs::write(place.out(), "mine").unwrap();
    assert!(matches!(place.fetch(&media), Err(StoreError::Exists(p)) if p == place.out()));
    fs::remove_file(place.out()).unwrap();
    let fetch = place.begin(&media);
    fetch.put_pages(0, media.run(0, 9)).unwrap();
    fs::write(place.out(), "mine").unwrap();
    assert!(matches!(fetch.finish(), Err(StoreError::Exists(_))));
    assert_eq!(fs::read(place.out()).unwrap(), b"mine");
    fs::remove_file(place.out()).unwrap();
    assert_eq!(fetch.finish().unwrap(), place.out());
    assert_eq!(place.names(), ["data", "song.ogg"]);
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let (media, place) = (Fixture::new(10, 7), Place::new());
    fs::write(place.part(), "somebody's").unwrap();
    assert!(matches!(place.fetch(&media), Err(StoreError::Foreign(_))));
    assert_eq!(place.names(), ["data", "song.ogg.part"]);
    assert_eq!(fs::read(place.part()).unwrap(), b"somebody's");
    fs::remove_file(place.part()).unwrap();
    let side = disk::with_suffix(&place.part(), ".iceshare");
    fs::write(&side, "somebody's notes").unwrap();
    assert!(matches!(place.fetch(&media), Err(StoreError::Damaged { .. })));
    assert_eq!(fs::read(&side).unwrap(), b"somebody's notes");
    let target = Target::File(place.dir.path().join("no/such/song.ogg"));
    let error = place.store.fetch(media.manifest.clone(), target).unwrap_err();
    assert!(matches!(error, StoreError::NoFolder(_)), "{error}");
}

#[test]
fn another_version_or_media_is_told_apart() {
    let place = Place::new();
    let (first, second) = (Fixture::version(50, 8, 1), Fixture::version(50, 9, 2));
    place.begin(&first).put_pages(0, first.run(0, 0)).unwrap();
    let error = place.fetch(&second).unwrap_err();
    assert!(matches!(error, StoreError::OtherVersion { held: 1, wanted: 2, .. }), "{error}");
    assert!(error.to_string().contains("song.ogg.part.iceshare"), "{error}");
    // The same pages under a newer manifest: the fetch goes on.
    let fetch = place.begin(&first);
    fetch.put_pages(0, first.run(0, 20)).unwrap();
    drop(fetch);
    let renewed = Fixture::version(50, 8, 3);
    let fetch = place.fetch(&renewed).unwrap();
    assert_eq!((fetch.held(), fetch.manifest().version), (21, 3));
    drop(fetch);
    assert_eq!(place.fetch(&renewed).unwrap().held(), 21);
    // In the data directory an older version makes room.
    let own = |m: &Fixture| place.store.fetch(m.manifest.clone(), Target::Own).unwrap();
    let fetch = own(&first);
    first.all_proven().for_each(|s| drop(fetch.put_slice(&s).unwrap()));
    fetch.put_pages(0, first.run(0, 49)).unwrap();
    fetch.finish().unwrap();
    assert!(own(&first).is_complete());
    let newer = own(&second);
    assert_eq!(newer.held(), 0);
    assert!(!place.store.dir().join("fetched").join(format!("{}.ogg", first.manifest.id())).exists());
}

#[test]
fn a_kept_file_that_somebody_changed_is_mended() {
    let (media, place) = (Fixture::new(100, 7), Place::new());
    let fetch = || place.store.fetch(media.manifest.clone(), Target::Own).unwrap();
    let first = fetch();
    media.all_proven().for_each(|s| drop(first.put_slice(&s).unwrap()));
    first.put_pages(0, media.run(0, 99)).unwrap();
    let path = first.finish().unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"?", media.offset(40) + 3).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!(first.is_stale());
    let second = fetch();
    assert!(second.held() == 99 && !second.has(40));
    second.put_pages(40, media.run(40, 40)).unwrap();
    assert_eq!(second.finish().unwrap(), path);
    assert_eq!(fs::read(path).unwrap(), media.bytes());
}

#[test]
fn a_folder_that_may_not_be_written_is_told() {
    // Not even root may create files here.
    let folder = std::path::Path::new("/sys/kernel");
    if !folder.is_dir() || fs::File::create(folder.join("x")).is_ok() {
        return;
    }
    let (media, place) = (Fixture::new(10, 7), Place::new());
    let target = Target::File(folder.join("song.ogg"));
    let error = place.store.fetch(media.manifest, target).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    assert!(error.to_string().contains("choose another place"), "{error}");
    assert!(matches!(Store::open(folder.join("data")), Err(StoreError::ReadOnly { .. })));
}

#[test]
fn one_fetch_to_a_file_at_a_time() {
    let (media, place) = (Fixture::new(100, 7), Place::new());
    let fetch = place.begin(&media);
    let other = Store::open(place.dir.path().join("other data")).unwrap();
    let again = || other.fetch(media.manifest.clone(), Target::File(place.out()));
    assert!(matches!(again(), Err(StoreError::InUse(_))));
    assert!(Arc::ptr_eq(&fetch, &place.fetch(&media).unwrap()), "in one process it is the same");
    drop(fetch);
    again().unwrap();
}

#[test]
fn a_full_disk_is_a_clear_error_and_nothing_counts() {
    let (media, place) = (Fixture::new(100, 7), Place::new());
    let fetch = place.begin(&media);
    fetch.put_pages(0, media.run(0, 9)).unwrap();
    let full = || OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    fetch.swap_media_file(full());
    let error = fetch.put_pages(5, media.run(5, 20)).unwrap_err();
    assert!(matches!(error, PutError::Store(StoreError::NoSpace { .. })), "{error}");
    assert!(error.to_string().contains("song.ogg.part"), "{error}");
    assert_eq!(fetch.held(), 10);
    fetch.swap_media_file(OpenOptions::new().read(true).write(true).open(place.part()).unwrap());
    assert_eq!(fetch.put_pages(5, media.run(5, 20)).unwrap(), 11);
    let (start, end) = (media.offset(5), media.offset(21));
    let read = fetch.read(start, usize::try_from(end - start).unwrap()).unwrap();
    assert_eq!(read, media.run(5, 20).concat());
    drop(fetch);
    assert_eq!(place.fetch(&media).unwrap().held(), 21);
}

#[test]
fn a_folder_that_cannot_hold_it_is_told_before() {
    let place = Place::new();
    let media = Fixture::new(10, 1);
    let mut manifest = media.manifest.manifest().clone();
    manifest.pages = icet::limits::FILE_PAGES;
    manifest.bytes = manifest.pages * 60_000;
    let identity = icet::Identity::from_seed(&[9; 32]);
    let manifest = SignedManifest::sign(manifest, &identity).unwrap();
    let error = place.store.fetch(manifest, Target::File(place.out())).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    assert_eq!(place.names(), ["data"]);
}

#[test]
fn a_served_file_that_changes_is_noticed() {
    let (media, place) = (Fixture::new(100, 7), Place::new());
    let fetch = place.begin(&media);
    fetch.put_pages(0, media.run(0, 99)).unwrap();
    fetch.finish().unwrap();
    assert!(!fetch.is_stale());
    let file = OpenOptions::new().write(true).open(place.out()).unwrap();
    file.write_all_at(b"x", 1000).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!(fetch.is_stale());
    assert!(fetch.read(0, 10).is_err() && fetch.read_into(0, &mut [0; 10]).is_err());
    assert!(place.store.get(&media.manifest.id()).is_none());
    assert!(place.store.list().unwrap().is_empty());
    fs::remove_file(place.out()).unwrap();
    assert!(fetch.is_stale());
}

#[test]
fn a_fetch_killed_while_it_finished_is_tidied_up() {
    let (media, place) = (Fixture::new(100, 7), Place::new());
    let fetch = place.begin(&media);
    fetch.put_pages(0, media.run(0, 99)).unwrap();
    let side = disk::with_suffix(&place.part(), ".iceshare");
    fetch.finish().unwrap();
    // As if the side file had not been moved yet.
    let placed = place.store.dir().join("placed").join(format!("{}.iceshare", media.manifest.id()));
    fs::rename(&placed, &side).unwrap();
    drop(fetch);
    assert!(matches!(place.fetch(&media), Err(StoreError::Exists(_))));
    assert!(placed.exists() && !side.exists());
    // As if killed before that: the part file has not got its name yet.
    fs::rename(place.out(), place.part()).unwrap();
    fs::rename(&placed, &side).unwrap();
    let fetch = place.fetch(&media).unwrap();
    assert!(fetch.is_complete());
    fetch.finish().unwrap();
    assert_eq!(fs::read(place.out()).unwrap(), media.bytes());
}

#[test]
fn forgetting_removes_only_what_is_ours() {
    let (media, place) = (Fixture::new(100, 7), Place::new());
    let finish = |target| {
        let fetch = place.store.fetch(media.manifest.clone(), target).unwrap();
        media.all_proven().for_each(|s| drop(fetch.put_slice(&s).unwrap()));
        fetch.put_pages(0, media.run(0, 99)).unwrap();
        fetch.finish().unwrap()
    };
    let own = finish(Target::Own);
    finish(Target::File(place.out()));
    place.store.remove(&media.manifest.id()).unwrap();
    assert!(!own.exists() && place.out().exists());
    assert!(place.store.get(&media.manifest.id()).is_none());
}

#[test]
fn bytes_and_times_lead_to_pages() {
    let (media, place) = (Fixture::new(1000, 10), Place::new());
    let all = place.begin(&media);
    let other = Store::open(place.dir.path().join("other")).unwrap();
    let some = other.fetch(media.manifest.clone(), Target::Own).unwrap();
    for i in [0, 5, 6, 15] {
        some.put_slice(&media.proven(i)).unwrap();
    }
    let known = |p: u64| [0, 5, 6, 15].contains(&(p / Fixture::SLICE));
    for page in 0..1000 {
        let (offset, len) = (media.offset(page), media.run(page, page)[0].len() as u64);
        for byte in [offset, offset + len / 2, offset + len - 1] {
            assert_eq!(all.page_at_byte(byte), Some(page));
            assert_eq!(some.page_at_byte(byte), Some(page).filter(|p| known(*p)));
        }
        let time = page * PAGE_TIME.unsigned_abs();
        assert_eq!(all.page_at_time(time), Some(page));
        assert_eq!(all.page_at_time(time + 19_999), Some(page));
        // At the end of a slice only the next one tells that nothing of it comes before.
        let sure = known(page) && (page % 64 != 63 || known(page + 1) || page == 999);
        assert_eq!(some.page_at_time(time), Some(page).filter(|_| sure), "{page}");
        let span = all.span(page).unwrap();
        assert_eq!((span.offset, span.end(), span.time), (offset, offset + len, page as i64 * PAGE_TIME));
    }
    assert_eq!(all.page_at_byte(media.bytes().len() as u64), None);
    assert_eq!(all.page_at_time(u64::MAX), Some(999));
    assert_eq!(all.span(1000), None);
    all.put_pages(10, media.run(10, 20)).unwrap();
    let runs: Vec<_> = all.table().runs.iter().map(|r| (r.first, r.last, r.held, r.time.unwrap())).collect();
    assert_eq!(runs, [(0, 9, false, 0), (10, 20, true, 10 * PAGE_TIME), (21, 999, false, 21 * PAGE_TIME)]);
}

#[test]
fn many_threads_put_and_read() {
    let (media, place) = (Fixture::new(2000, 11), Place::new());
    let fetch = place.begin(&media);
    std::thread::scope(|s| {
        for t in 0..4_u64 {
            let (fetch, media) = (&fetch, &media);
            s.spawn(move || {
                for i in 0..200 {
                    let first = (i * 7 + t * 450) % 200 * 10;
                    fetch.put_pages(first, media.run(first, first + 9)).unwrap();
                    let span = fetch.span(first).unwrap();
                    let read = fetch.read(span.offset, span.record.len as usize).unwrap();
                    assert_eq!(read, media.run(first, first)[0]);
                }
            });
        }
    });
    assert!(fetch.is_complete());
    drop(fetch);
    let fetch = place.fetch(&media).unwrap();
    assert!(fetch.is_complete());
    fetch.finish().unwrap();
    assert_eq!(fs::read(place.out()).unwrap(), media.bytes());
}

#[test]
fn a_fetch_without_a_page_leaves_nothing() {
    let (media, place) = (Fixture::new(100, 1), Place::new());
    let fetch = place.begin(&media);
    assert_eq!(place.names(), ["data", "song.ogg.part", "song.ogg.part.iceshare"]);
    fetch.close().unwrap();
    assert_eq!(place.names(), ["data"]);
    drop(fetch);
    // One page is worth keeping, and is kept in what follows.
    let fetch = place.begin(&media);
    fetch.put_pages(7, media.run(7, 7)).unwrap();
    fetch.close().unwrap();
    drop(fetch);
    let fetch = place.fetch(&media).unwrap();
    assert!(fetch.has(7));
    fetch.close().unwrap();
    assert_eq!(place.names(), ["data", "song.ogg.part", "song.ogg.part.iceshare"]);
}

#[test]
fn long_names_are_fetched_too() {
    let (media, place) = (Fixture::new(64, 1), Place::new());
    let name = "n".repeat(disk::NAME);
    let out = place.dir.path().join(&name);
    let fetch = || place.store.fetch(media.manifest.clone(), Target::File(out.clone())).unwrap();
    let first = fetch();
    media.all_proven().for_each(|s| drop(first.put_slice(&s).unwrap()));
    first.put_pages(0, media.run(0, 9)).unwrap();
    drop(first);
    let again = fetch();
    assert_eq!(again.held(), 10);
    again.put_pages(10, media.run(10, 63)).unwrap();
    again.finish().unwrap();
    assert_eq!(place.names(), ["data", &name]);
    let error =
        place.store.fetch(media.manifest.clone(), Target::File(out.with_file_name(name.clone() + "n")));
    assert!(matches!(error, Err(StoreError::LongName(_))));
}

#[test]
fn a_copy_beside_is_known_to_nobody_until_it_is_adopted() {
    for complete in [true, false] {
        let (media, place) = (Fixture::new(64, 1), Place::new());
        let folder = place.dir.path().join("beside");
        fs::create_dir(&folder).unwrap();
        let own = place.store.fetch(media.manifest.clone(), Target::Own).unwrap();
        let copy =
            place.store.fetch(media.manifest.clone(), Target::Beside(folder.join("copy.ogg"))).unwrap();
        media.all_proven().for_each(|s| drop(copy.put_slice(&s).unwrap()));
        copy.put_pages(0, media.run(0, if complete { 63 } else { 40 })).unwrap();
        if complete {
            copy.finish().map(drop).unwrap()
        } else {
            copy.close().unwrap()
        }
        assert_eq!(fs::read_dir(place.store.dir().join("placed")).unwrap().count(), 0);
        assert!(matches!(place.store.adopt(&copy), Err(StoreError::InUse(_))));
        own.close().unwrap();
        drop(own);
        place.store.adopt(&copy).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        drop(copy);
        let store = Store::open(place.store.dir()).unwrap();
        let kept = store.fetch(media.manifest.clone(), Target::Own).unwrap();
        assert_eq!((kept.is_complete(), kept.held()), (complete, if complete { 64 } else { 41 }));
        let end = usize::try_from(kept.span(40).unwrap().offset).unwrap();
        assert_eq!(kept.read(0, end).unwrap(), media.bytes()[..end]);
    }
}

#[test]
fn what_is_gone_is_forgotten() {
    let (media, place) = (Fixture::new(64, 1), Place::new());
    let fetch = place.begin(&media);
    fetch.put_pages(0, media.run(0, 63)).unwrap();
    fetch.finish().unwrap();
    drop(fetch);
    let record = place.store.placed_side(&media.manifest.id());
    assert_eq!(place.store.forget_gone().unwrap(), Vec::<PathBuf>::new());
    assert!(record.exists());
    fs::remove_file(place.out()).unwrap();
    assert_eq!(place.store.forget_gone().unwrap(), [place.out()]);
    assert!(!record.exists());
    assert_eq!(place.store.forget_gone().unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn files_are_opened_again_when_they_are_needed() {
    let place = Place::new();
    let media = Fixture::new(64, 7);
    let fetch = place.begin(&media);
    fetch.put_pages(0, media.run(0, 63)).unwrap();
    fetch.finish().unwrap();
    assert!(fetch.has_open_files());
    // Others push it out of the pool.
    let side = place.store.placed_side(&media.manifest.id());
    let stamp = side::Stamp::of(&fs::metadata(place.out()).unwrap());
    for _ in 0..200 {
        place.store.pool.keep(Arc::new(files::Files::open(&place.out(), &side, stamp).unwrap()));
    }
    assert!(!fetch.has_open_files());
    assert_eq!(fetch.read(0, usize::MAX).unwrap(), media.bytes());
    assert!(fetch.has_open_files());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Runs in any order, kills and closes in between: what was put is held, and nothing else.
    #[test]
    fn any_order_of_runs_and_kills(
        steps in proptest::collection::vec((0..200_u64, 1..40_u64, 0..6_u8), 1..20),
        seed in 0..4_u64,
    ) {
        let (media, place) = (Fixture::new(200, seed), Place::new());
        let mut fetch = place.begin(&media);
        let mut held = icet::PageMap::new(200);
        for (first, len, fate) in steps {
            let last = (first + len).min(200) - 1;
            let new = (first..=last).filter(|p| held.insert(*p)).count() as u64;
            prop_assert_eq!(fetch.put_pages(first, media.run(first, last)).unwrap(), new);
            if fate < 2 {
                if fate == 0 { fetch.close().unwrap(); }
                drop(fetch);
                fetch = place.fetch(&media).unwrap();
            }
            prop_assert_eq!(&fetch.map(), &held);
            for page in held.to_ranges().pages() {
                let span = fetch.span(page).unwrap();
                let read = fetch.read(span.offset, span.record.len as usize).unwrap();
                prop_assert_eq!(&read, &media.run(page, page)[0]);
            }
        }
    }

    /// Whatever happens to the side file, no page is held that is not the publisher's.
    #[test]
    fn side_files_may_hold_anything(damage in proptest::collection::vec((0..300_000_usize, any::<u8>()), 1..30)) {
        let (media, place) = (Fixture::new(200, 1), Place::new());
        let fetch = place.begin(&media);
        fetch.put_pages(0, media.run(0, 99)).unwrap();
        drop(fetch);
        let side = disk::with_suffix(&place.part(), ".iceshare");
        let mut bytes = fs::read(&side).unwrap();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        fs::write(&side, &bytes).unwrap();
        if let Ok(fetch) = place.fetch(&media) {
            prop_assert!((100..200).all(|p| !fetch.has(p)));
            prop_assert!((0..4).all(|i| fetch.proven_slice(i).is_none_or(|s| s == media.proven(i))));
        }
    }
}
