use std::fs::OpenOptions;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use icet::PageFlags;
use tempfile::TempDir;

use super::*;
use crate::ogg::{ScanEvent, ScanMode, Timeline, scan_slice};
use crate::store::Target;

struct Place {
    dir: TempDir,
    store: Store,
    identity: Identity,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("data")).unwrap();
        Place { dir, store, identity: Identity::from_seed(&[3; 32]) }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("song.ogg")
    }

    fn scan(&self, file: &Path) -> Result<Prepared, PublishError> {
        self.titled(file, None)
    }

    fn titled(&self, file: &Path, title: Option<&str>) -> Result<Prepared, PublishError> {
        let publish = Publish {
            file: file.to_owned(),
            path: "music/song.ogg".parse().unwrap(),
            title: title.map(str::to_owned),
            repair_to: None,
        };
        scan(&self.store, &self.identity, &publish, &mut |_| {})
    }

    fn data(&self) -> Vec<PathBuf> {
        let names = fs::read_dir(self.store.dir().join("published")).unwrap();
        names.map(|e| e.unwrap().path()).collect()
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn sound() -> impl Iterator<Item = PathBuf> {
    let is_ogg = |p: &PathBuf| {
        p.extension().is_some_and(|x| ["ogg", "oga", "ogv", "opus", "spx"].iter().any(|e| x == *e))
    };
    let is_sound = |p: &PathBuf| !p.file_name().unwrap().to_string_lossy().starts_with("damaged");
    let all = fs::read_dir(fixture("")).unwrap().map(|e| e.unwrap().path());
    all.filter(move |p| is_ogg(p) && is_sound(p))
}

fn pages(file: &[u8]) -> Vec<Bytes> {
    let mut pages = Vec::new();
    let end = scan_slice(file, ScanMode::Strict, |event| {
        if let ScanEvent::Page(page) = event {
            pages.push(Bytes::copy_from_slice(page.bytes));
        }
        ControlFlow::<()>::Continue(())
    });
    assert!(end.is_ok());
    pages
}

#[test]
fn every_codec_is_published_and_arrives_whole() {
    assert!(sound().count() > 15);
    for file in sound() {
        let place = Place::new();
        let name = file.display();
        let bytes = fs::read(&file).unwrap();
        let pages = pages(&bytes);
        let prepared = place.scan(&file).unwrap();
        let manifest = prepared.manifest();
        assert_eq!((manifest.bytes, manifest.pages), (bytes.len() as u64, pages.len() as u64));
        assert_eq!(manifest.version, manifest.signed_at, "the first version is the time");
        assert_eq!(manifest.publisher, place.identity.key());
        assert!(prepared.rescanned());

        // What the records say is what the timeline says.
        let host = prepared.media();
        let mut timeline = Timeline::new();
        for (number, page) in (0..).zip(&pages) {
            let header = crate::ogg::PageHeader::parse(page).unwrap();
            let place = timeline.page(&header, page);
            let span = host.span(number).unwrap();
            assert_eq!((span.time, span.record.crc), (place.time, header.crc), "{name} {number}");
            assert_eq!(span.record.flags.has(PageFlags::SETUP), place.setup);
            assert_eq!(span.record.flags.has(PageFlags::KEYFRAME), place.keyframe);
            assert_eq!(span.record.flags.has(PageFlags::BOS), header.bos);
            assert_eq!(host.page_at_byte(span.offset), Some(number));
        }
        assert_eq!(manifest.duration, u64::try_from(timeline.duration()).unwrap());
        assert_eq!(manifest.links, timeline.link_count());
        assert_eq!(host.read(0, usize::MAX).unwrap(), bytes, "{name}");

        // Somebody else fetches it.
        let receiver = Store::open(place.dir.path().join("receiver")).unwrap();
        let fetch = receiver.fetch(manifest.clone(), Target::File(place.file())).unwrap();
        for index in 0..manifest.slices() {
            fetch.put_slice(&host.proven_slice(index).unwrap()).unwrap();
        }
        assert_eq!(fetch.put_pages(0, &pages).unwrap(), manifest.pages);
        assert_eq!(fs::read(fetch.finish().unwrap()).unwrap(), bytes);
    }
}

#[test]
fn streams_titles_and_tags_are_told() {
    let place = Place::new();
    let prepared = place.scan(&fixture("theora-vorbis.ogv")).unwrap();
    let mut streams: Vec<_> = prepared.manifest().streams.iter().map(|s| s.codec.clone()).collect();
    streams.sort();
    assert_eq!(streams, ["theora", "vorbis"]);
    let theora = prepared.manifest().streams.iter().find(|s| s.codec == "theora").unwrap();
    assert!(theora.rate.is_some_and(|r| r >= 1000) && theora.size.is_some());
    assert_eq!(prepared.manifest().mime(), "video/ogg");
    let before = prepared.manifest().version;
    let prepared = place.titled(&fixture("opus.opus"), Some("A title")).unwrap();
    assert_eq!(prepared.manifest().title, "A title");
    assert!(prepared.manifest().version > before);
    assert!(matches!(
        place.titled(&fixture("opus.opus"), Some(&"x".repeat(2000))),
        Err(PublishError::Title(2000))
    ));
}

#[test]
fn versions_grow_with_content_and_only_then() {
    let place = Place::new();
    let file = place.file();
    let ago = |s| SystemTime::now() - Duration::from_secs(s);
    let write = |from: &str, seconds| {
        fs::copy(fixture(from), &file).unwrap();
        OpenOptions::new().write(true).open(&file).unwrap().set_modified(ago(seconds)).unwrap();
    };
    write("opus.opus", 100);
    let first = place.scan(&file).unwrap();
    // Unchanged: not even read, also by the next process.
    let again = place.scan(&file).unwrap();
    assert!(!again.rescanned() && Arc::ptr_eq(&again.media(), &first.media()));
    let next = Store::open(place.store.dir()).unwrap();
    let publish =
        Publish { file: file.clone(), path: "music/song.ogg".parse().unwrap(), title: None, repair_to: None };
    let again = scan(&next, &place.identity, &publish, &mut |_| panic!("no scan")).unwrap();
    assert_eq!(again.manifest(), first.manifest());
    // Touched, or the same content elsewhere: read again, but the same manifest.
    write("opus.opus", 50);
    let touched = place.scan(&file).unwrap();
    assert!(touched.rescanned());
    assert_eq!(touched.manifest(), first.manifest());
    assert!(first.media().is_stale() && first.media().read(0, 1).is_err());
    let moved = place.dir.path().join("moved.ogg");
    fs::rename(&file, &moved).unwrap();
    assert!(touched.media().is_stale());
    assert_eq!(place.scan(&moved).unwrap().manifest(), first.manifest());
    // Other content, and the first one again.
    write("vorbis.ogg", 40);
    let second = place.scan(&file).unwrap();
    assert_eq!(second.manifest().id(), first.manifest().id());
    assert!(second.manifest().version > first.manifest().version);
    write("opus.opus", 30);
    let third = place.scan(&file).unwrap().manifest().version;
    assert!(third > second.manifest().version);
    // Versions outlive everything else that is known of a media.
    place.store.remove(&first.manifest().id()).unwrap();
    assert!(place.scan(&file).unwrap().manifest().version > third);
}

/// By the clock, so that nothing need be remembered; by the record, where the clock is slow or was put back.
#[test]
fn versions_follow_the_clock_and_never_go_back() {
    let place = Place::new();
    let id = place.scan(&fixture("opus.opus")).unwrap().manifest().id();
    place.store.remove(&id).unwrap();
    for (recorded, time, expected) in [
        (None, 1000, 1000),
        (None, 0, 1),
        (Some(1000), 1000, 1001),
        (Some(5000), 1000, 5001),
        (Some(7), 1000, 1000),
    ] {
        let record = place.store.version_record(&id);
        match recorded {
            Some(n) => fs::write(&record, format!("{n}\n")).unwrap(),
            None => fs::remove_file(&record).unwrap_or(()),
        }
        assert_eq!(next_version(&place.store, &id, time).unwrap(), expected, "{recorded:?} {time}");
    }
}

#[test]
fn what_is_no_sound_ogg_file_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let noise = place.dir.path().join("noise");
    fs::write(&noise, vec![7; 100_000]).unwrap();
    assert!(matches!(place.scan(&noise), Err(PublishError::NotOgg { searched: 100_000, .. })));
    fs::write(&noise, b"").unwrap();
    assert!(matches!(place.scan(&noise), Err(PublishError::NotOgg { searched: 0, .. })));
    assert!(matches!(place.scan(place.dir.path()), Err(PublishError::NotAFile(_))));
    assert!(matches!(place.scan(Path::new("/dev/zero")), Err(PublishError::NotAFile(_))));
    assert!(matches!(place.scan(Path::new("/no/such")), Err(PublishError::Store(StoreError::Io { .. }))));
    for name in ["damaged-crc.opus", "damaged-cut-off.opus", "damaged-junk.opus"] {
        let error = place.scan(&fixture(name)).unwrap_err();
        assert!(
            matches!(&error, PublishError::Damaged { damages, count, .. } if damages.len() as u64 == *count),
            "{error}"
        );
        assert!(error.to_string().contains("offset"), "{error}");
    }
    assert!(place.data().is_empty());
}

#[test]
fn many_damages_are_counted_and_some_listed() {
    let place = Place::new();
    let page = fs::read(fixture("one-page.ogg")).unwrap();
    let junk: Vec<_> = std::iter::repeat_n([page.as_slice(), b"junk"].concat(), 50).flatten().collect();
    fs::write(place.file(), junk).unwrap();
    let error = place.scan(&place.file()).unwrap_err();
    assert!(
        matches!(&error, PublishError::Damaged { damages, count: 50, .. } if damages.len() == LISTED_DAMAGES)
    );
    assert!(error.to_string().contains("and 30 more"), "{error}");
}

#[test]
fn clean_pages_of_a_damaged_file_can_be_published() {
    for name in ["damaged-crc.opus", "damaged-cut-off.opus", "damaged-junk.opus"] {
        let place = Place::new();
        let publish = Publish {
            file: fixture(name),
            path: "a".parse().unwrap(),
            title: None,
            repair_to: Some(place.file()),
        };
        let repair = || scan(&place.store, &place.identity, &publish, &mut |_| {});
        let prepared = repair().unwrap();
        let old = fs::metadata(fixture(name)).unwrap().len();
        let repaired = prepared.repaired().unwrap();
        assert_eq!(
            (repaired.file.clone(), repaired.left_out),
            (place.file(), old - prepared.manifest().bytes)
        );
        assert!(repaired.left_out > 0);
        let new = fs::read(place.file()).unwrap();
        assert_eq!(pages(&new).len() as u64, prepared.manifest().pages);
        assert_eq!(prepared.media().file(), fs::canonicalize(place.file()).unwrap());
        let files = || fs::read_dir(place.file().parent().unwrap()).unwrap().count();
        let before = files();
        // The same again: the copy is there.
        let again = repair().unwrap();
        assert_eq!(again.repaired(), prepared.repaired());
        assert_eq!(again.manifest(), prepared.manifest());
        // Another file is not touched.
        let other = [&new[..], b"x"].concat();
        fs::write(place.file(), &other).unwrap();
        assert!(matches!(repair(), Err(PublishError::NotTheCopy(_))));
        assert_eq!(fs::read(place.file()).unwrap(), other);
        assert_eq!(files(), before, "nothing is left over");
    }
    // A sound file needs none.
    let place = Place::new();
    let publish = Publish {
        file: fixture("opus.opus"),
        path: "a".parse().unwrap(),
        title: None,
        repair_to: Some(place.file()),
    };
    assert!(scan(&place.store, &place.identity, &publish, &mut |_| {}).unwrap().repaired().is_none());
    assert!(!place.file().exists());
}

#[test]
fn a_file_that_changes_under_the_scan_is_refused() {
    let place = Place::new();
    let unit = fs::read(fixture("huge-pages.ogg")).unwrap();
    fs::write(place.file(), unit.repeat(20)).unwrap();
    let old = SystemTime::now() - Duration::from_secs(100);
    let file = OpenOptions::new().write(true).open(place.file()).unwrap();
    file.set_modified(old).unwrap();
    let publish = Publish { file: place.file(), path: "a".parse().unwrap(), title: None, repair_to: None };
    let mut calls = Vec::new();
    let error = scan(&place.store, &place.identity, &publish, &mut |p| {
        calls.push(p);
        file.write_all_at(&unit[..1], 0).unwrap();
    });
    assert!(matches!(error, Err(PublishError::Changed(_))));
    assert!(place.data().is_empty());
    assert!(calls.len() >= 3 && calls.windows(2).all(|c| c[0].bytes < c[1].bytes));
    assert!(calls.iter().all(|c| c.total == 20 * unit.len() as u64 && c.bytes <= c.total));
}

#[test]
fn one_scan_of_a_media_at_a_time_and_killed_ones_do_no_harm() {
    let place = Place::new();
    let id = MediaId::of(&place.identity.key(), &"music/song.ogg".parse().unwrap());
    let temp = place.store.published_side(&id).with_extension("scanning");
    fs::write(&temp, "left by a killed scan").unwrap();
    let held = fs::File::open(&temp).unwrap();
    held.lock().unwrap();
    assert!(matches!(place.scan(&fixture("opus.opus")), Err(PublishError::Store(StoreError::InUse(_)))));
    drop(held);
    assert!(place.scan(&fixture("opus.opus")).is_ok());
    assert!(!temp.exists());
}
