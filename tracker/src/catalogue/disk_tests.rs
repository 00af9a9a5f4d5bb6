use super::*;
use crate::catalogue::samples::{self, identity};

/// A media of `count` slices, and its slices as writes.
pub(crate) fn media(seed: u8, path: &str, version: u64, count: u64) -> (SignedManifest, Vec<Store>) {
    let (manifest, slices) = samples::media(seed, path, version, count);
    let write = |slice: ProvenSlice| {
        let s = slice.verify(&manifest).unwrap();
        let mark = SliceMark { offset: s.offset, time: s.time };
        Store::Slice { media: manifest.id(), version, index: s.index, mark, slice }
    };
    let writes = slices.into_iter().map(write).collect();
    (manifest, writes)
}

fn slices_of(writes: &[Store]) -> Vec<ProvenSlice> {
    let slice = |w: &Store| match w {
        Store::Slice { slice, .. } => slice.clone(),
        _ => panic!("only slices"),
    };
    writes.iter().map(slice).collect()
}

fn message(e: &CatalogueError) -> String {
    e.to_string()
}

#[test]
fn what_was_committed_is_there_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (manifest, slices) = media(1, "a/b.opus", 3, 5);
    let id = manifest.id();
    let peer = identity(9).key();
    let name = KnownName {
        path: manifest.path.clone(),
        owner: manifest.publisher,
        version: 3,
        used_ms: 77,
        moved: Some(MediaPath::new("c").unwrap()),
    };
    let contribution = Contribution { sent: 10, received: 20 };
    let (secret, epoch) = {
        let disk = Disk::open(dir.path()).unwrap();
        let start = disk.begin().unwrap();
        assert!(start.media.is_empty() && start.names.is_empty());
        let mut writes = vec![Store::Name(name.clone()), Store::Manifest { manifest: manifest.clone() }];
        writes.extend(slices[1..].iter().cloned());
        writes.push(Store::Hits { media: id, hits: 4 });
        writes.push(Store::Contribution { peer, contribution });
        disk.commit(&writes).unwrap();
        (start.secret, start.epoch)
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds a secret");
    }
    let disk = Disk::open(dir.path()).unwrap();
    let start = disk.begin().unwrap();
    assert_eq!((start.secret, start.epoch), (secret, epoch + 1));
    assert_eq!(start.names, [name]);
    let kept = &start.media[0];
    assert_eq!((&kept.manifest, kept.hits), (&manifest, 4));
    assert_eq!(kept.slices.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(kept.slices[1].1.time, 128_000_000);
    assert_eq!(disk.contribution(&peer).unwrap(), contribution);
    assert_eq!(disk.contribution(&identity(8).key()).unwrap(), Contribution::default());
    // Slice 0 is not there, and the others come in the order asked for.
    let got = disk.slices(&id, 3, &[4, 0, 2]).unwrap();
    assert_eq!(got, [slices_of(&slices)[4].clone(), slices_of(&slices)[2].clone()]);
    assert!(disk.slices(&id, 2, &[4]).unwrap().is_empty());
}

#[test]
fn a_newer_version_drops_the_slices_of_the_old_one_and_a_withdrawal_all() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(dir.path()).unwrap();
    disk.begin().unwrap();
    let (v1, s1) = media(1, "a", 1, 3);
    let (v2, s2) = media(1, "a", 2, 2);
    let (other, s3) = media(2, "b", 1, 2);
    let id = v1.id();
    let all =
        [vec![Store::Manifest { manifest: v1 }], s1, vec![Store::Manifest { manifest: other.clone() }], s3];
    disk.commit(&all.concat()).unwrap();
    disk.commit(&[vec![Store::Manifest { manifest: v2.clone() }], s2.clone()].concat()).unwrap();
    // The same manifest once more keeps its slices.
    disk.commit(&[Store::Manifest { manifest: v2.clone() }]).unwrap();
    assert!(disk.slices(&id, 1, &[0, 1, 2]).unwrap().is_empty());
    assert_eq!(disk.slices(&id, 2, &[0, 1, 2]).unwrap(), slices_of(&s2));
    let start = disk.begin().unwrap();
    assert_eq!(start.media.iter().map(|m| (m.manifest.version, m.slices.len())).collect::<Vec<_>>().len(), 2);
    assert!(start.media.iter().all(|m| m.slices.len() == 2));

    disk.commit(&[Store::Hits { media: id, hits: 1 }, Store::Withdrawn { media: id }]).unwrap();
    assert!(disk.slices(&id, 2, &[0, 1]).unwrap().is_empty());
    let start = disk.begin().unwrap();
    assert_eq!(start.media.len(), 1);
    assert_eq!((&start.media[0].manifest, start.media[0].slices.len()), (&other, 2));
}

#[test]
fn a_second_tracker_on_the_folder_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Disk::open(dir.path()).unwrap();
    let e = Disk::open(dir.path()).unwrap_err();
    assert!(message(&e).contains("another icetracker runs on the data folder"), "{e}");
}

#[test]
fn damage_is_an_error_and_the_file_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE);
    std::fs::write(&file, b"this was never a catalogue").unwrap();
    let e = Disk::open(dir.path()).unwrap_err();
    assert!(message(&e).contains("is damaged"), "{e}");
    assert_eq!(std::fs::read(&file).unwrap(), b"this was never a catalogue");
    std::fs::remove_file(&file).unwrap();

    let (manifest, slices) = media(1, "a", 1, 30);
    {
        let disk = Disk::open(dir.path()).unwrap();
        disk.begin().unwrap();
        disk.commit(&[vec![Store::Manifest { manifest }], slices].concat()).unwrap();
    }
    let good = std::fs::read(&file).unwrap();
    // Cut, or with a flipped bit anywhere: never a panic, and never what was not written.
    let mut refused = 0;
    for at in (0..good.len()).step_by(good.len() / 40) {
        for cut in [false, true] {
            let mut bad = good.clone();
            if cut {
                bad.truncate(at)
            } else {
                bad[at] ^= 0x10
            }
            std::fs::write(&file, &bad).unwrap();
            match Disk::open(dir.path()).and_then(|d| d.begin()) {
                Ok(start) => assert!(start.media.iter().all(|m| m.manifest.path.as_str() == "a")),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 40, "only {refused} of 80 damaged files were refused");
}

#[test]
fn a_folder_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let e = Disk::open(&file.join("data")).unwrap_err();
    assert!(message(&e).contains("cannot use the data folder"), "{e}");
    // A later format is refused and not touched.
    {
        let db = Database::create(dir.path().join(FILE)).unwrap();
        let txn = db.begin_write().unwrap();
        txn.open_table(redb::TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 9).unwrap();
        txn.commit().unwrap();
    }
    let disk = Disk::open(dir.path()).unwrap();
    let e = disk.begin().unwrap_err();
    assert!(message(&e).contains("written by a later icetracker"), "{e}");
}
