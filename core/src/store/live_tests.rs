//! Rings and journals of live media.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use icet::live::SignedHead;
use icet::{PageNo, PageSet};
use tempfile::TempDir;

use super::{LivePut, MediaStore, PutError, Store, Window};
use crate::live::tests::{identity, manifest, opus, sign};
use crate::live::{Broadcaster, ChainError, DELAY, Signed, Taken};
use crate::protocol::What;
use crate::serve::{Source, Unavailable, plan, plan_around_holes};

const GAP: Duration = Duration::from_millis(20);

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

fn broadcast(count: u32, ends: bool) -> (Vec<Bytes>, Vec<Signed>, icet::live::SignedHead) {
    let pages = opus(7, count);
    let (signed, head) = sign(Broadcaster::new(&manifest(1), identity(), DELAY), &pages, GAP, ends);
    (pages, signed, head.unwrap())
}

fn put(media: &MediaStore, signed: &[Signed]) {
    for s in signed {
        assert_eq!(media.put_batch(s.batch.signed().clone()).unwrap(), Taken::New);
        media.put_pages(s.batch.first, &s.pages).unwrap();
    }
}

fn read(media: &MediaStore, page: PageNo) -> Bytes {
    let span = media.span(page).unwrap();
    media.read(span.offset, span.record.len as usize).unwrap()
}

#[test]
fn who_joins_in_the_middle_has_setup_and_a_window() {
    let (_dir, store) = store();
    let (pages, signed, head) = broadcast(200, false);
    let media = store.listen(manifest(1), Window::default()).unwrap();
    assert!(media.is_live() && !media.is_complete() && media.live_base().is_none());
    assert!(media.put_head(head.signed().clone()).unwrap().is_some());
    // Setup first: its records are the head's.
    assert_eq!(media.live_setup(), Some((0, 2)));
    assert_eq!(media.put_pages(0, &pages[..2]).unwrap(), 2);
    put(&media, &signed[5..]);
    let base = signed[5].batch.first;
    assert_eq!(media.live_base(), Some(base));
    for page in (0..2).chain(base..202) {
        assert!(media.has(page), "{page}");
        assert_eq!(read(&media, page), pages[usize::try_from(page).unwrap()]);
    }
    assert!(!media.has(2) && !media.has(base - 1) && !media.has(202));
    assert_eq!(
        (media.first_missing(0), media.first_held(2), media.first_missing(base)),
        (Some(2), Some(base), Some(202))
    );
    // An older head changes nothing; neither does a page that came twice.
    let (_, _, older) = broadcast(100, false);
    assert_eq!(media.put_head(older.signed().clone()).unwrap(), None);
    assert_eq!(media.put_pages(base, &pages[usize::try_from(base).unwrap()..][..1]).unwrap(), 0);
    let kept = media.file();
    drop(media);
    assert!(!kept.exists(), "a listener's ring goes with it");
}

#[test]
fn nothing_gets_in_that_its_publisher_did_not_sign_in_its_place() {
    let (_dir, store) = store();
    let (pages, signed, _) = broadcast(200, false);
    let media = store.listen(manifest(1), Window::default()).unwrap();
    assert!(
        matches!(media.put_pages(0, &pages[..1]), Err(PutError::UnknownSlice { page: 0 })),
        "no record yet"
    );
    put(&media, &signed[..2]);
    let next = signed[2].batch.first;
    let at = |p: PageNo| &pages[usize::try_from(p).unwrap()];
    // A page in another's place, a page with one bit flipped, a page cut short, one that comes before its record.
    media.put_batch(signed[2].batch.signed().clone()).unwrap();
    let mut flipped = at(next).to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    for wrong in [at(next + 1).clone(), flipped.into(), at(next).slice(..at(next).len() - 1)] {
        assert!(matches!(media.put_pages(next, &[wrong]), Err(PutError::Altered { page }) if page == next));
    }
    // Of a run with one wrong page none counts.
    let run = [at(next).clone(), at(next).clone()];
    assert!(media.put_pages(next, &run).is_err());
    assert!(!media.has(next));
    // A batch that is altered, and one that leaves others out.
    let mut altered = signed[3].batch.signed().clone();
    altered.body[60] ^= 1;
    assert!(matches!(media.put_batch(altered), Err(LivePut::Media(_))));
    let gap = media.put_batch(signed[4].batch.signed().clone());
    assert!(matches!(gap, Err(LivePut::Chain(ChainError::Gap { .. }))));
    assert_eq!(media.put_batch(signed[1].batch.signed().clone()).unwrap(), Taken::Known);
    assert_eq!(media.put_batch(signed[3].batch.signed().clone()).unwrap(), Taken::New);
}

#[test]
fn what_is_before_the_window_goes_and_setup_stays() {
    let (_dir, store) = store();
    let (pages, signed, _) = broadcast(500, false);
    let window = Window { time: Duration::from_secs(2), bytes: 1 << 30 };
    let media = store.listen(manifest(1), window).unwrap();
    put(&media, &signed);
    let base = media.live_base().unwrap();
    // 2 s at 50 pages a second, and what its first batch has besides.
    assert!((502 - 115..=502 - 100).contains(&base), "{base}");
    assert!(!media.has(base - 1) && media.has(base));
    assert_eq!((read(&media, 0), read(&media, 1)), (pages[0].clone(), pages[1].clone()));
    let narrow = Window { time: Duration::from_secs(600), bytes: 1000 };
    let media = store.listen(manifest(1), narrow).unwrap();
    put(&media, &signed);
    let first = media.span(media.live_base().unwrap()).unwrap().offset;
    let end = media.span(501).unwrap().end();
    assert!(end - first <= 1000, "{}", end - first);
}

#[test]
fn a_window_is_served_by_page_and_without_an_end() {
    let (_dir, store) = store();
    let (_, signed, _) = broadcast(200, false);
    let media = store.listen(manifest(1), Window::default()).unwrap();
    put(&media, &signed[4..8]);
    let (base, next) = (signed[4].batch.first, signed[8].batch.first);
    let open = |first| What::Pages(PageSet { first, last: None, stripe: None });
    let last = icet::limits::PAGES - 1;
    // From what is held, and from what is to come; not from what is gone.
    for first in [base, next, next + 100] {
        let planned = plan(&media, &open(first)).unwrap();
        let set = PageSet { first, last: Some(last), stripe: None };
        assert_eq!((planned.what, planned.source), (What::Pages(set), Source::Pages(set)));
        let proofs = plan(&media, &What::Proofs { first, last }).unwrap();
        assert_eq!(proofs.source, Source::Batches(first));
    }
    assert_eq!(plan(&media, &open(base - 1)).unwrap_err(), Unavailable::Missing(base - 1));
    assert_eq!(
        plan(&media, &What::Proofs { first: base - 1, last }).unwrap_err(),
        Unavailable::Missing(base - 1)
    );
    assert!(plan(&media, &What::Proofs { first: base, last: base + 1 }).is_err(), "batches have no last one");
    let closed = What::Pages(PageSet::range(base + 1, base + 3));
    assert!(matches!(plan_around_holes(&media, &closed).unwrap(), (p, None) if p.what == closed));
    for what in [What::Bytes { first: 0, last: None }, What::Time { from: 0, to: None }] {
        assert!(plan(&media, &what).is_err(), "{what:?}");
    }
}

fn written(store: &Store, signed: &[Signed]) -> Arc<MediaStore> {
    let media = store.broadcast(manifest(1), Window::default()).unwrap();
    signed.iter().for_each(|s| media.append(s).unwrap());
    media
}

#[test]
fn a_journal_knows_the_heads_that_were_kept() {
    let (_dir, store) = store();
    let (_, signed, head) = broadcast(200, false);
    let before = icet::live::Head { signed_at: head.signed_at + 1, ..(*head).clone() };
    let heads = [SignedHead::sign(before, &identity()).unwrap(), head];
    let media = written(&store, &signed);
    let id = media.id();
    media.keep_heads(heads[..1].iter().map(|h| h.signed())).unwrap();
    media.keep_heads(heads.iter().map(|h| h.signed())).unwrap();
    let file = media.file().join("heads");
    drop(media);
    let Some(resumed) = store.resume_broadcast(&id, Window::default()).unwrap() else { return };
    assert_eq!(resumed.heads, heads);
    drop(resumed);
    // What is not whole is left out, and of a journal without any nothing is known.
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
    let resumed = store.resume_broadcast(&id, Window::default()).unwrap().unwrap();
    assert_eq!(resumed.heads, heads[..heads.len() - 1]);
    drop(resumed);
    std::fs::remove_file(&file).unwrap();
    assert!(store.resume_broadcast(&id, Window::default()).unwrap().unwrap().heads.is_empty());
}

#[test]
fn a_journal_goes_on_where_it_stopped() {
    let (_dir, store) = store();
    let (pages, signed, _) = broadcast(200, false);
    let media = written(&store, &signed);
    assert_eq!(media.next_record(), Some(202));
    let id = media.id();
    assert!(matches!(store.resume_broadcast(&id, Window::default()), Err(super::StoreError::InUse(_))));
    drop(media);
    let resumed = store.resume_broadcast(&id, Window::default()).unwrap();
    // Without a word of the system on its restarts nothing is resumed.
    let Some(resumed) = resumed else {
        assert!(!std::path::Path::new("/proc/sys/kernel/random/boot_id").exists());
        return;
    };
    assert_eq!(resumed.last, signed.last().unwrap().batch);
    for page in 0..202 {
        assert_eq!(read(&resumed.media, page), pages[usize::try_from(page).unwrap()]);
    }
    // It goes on, and can stop once more.
    let again = Broadcaster::resume(&manifest(1), identity(), DELAY, &resumed.last);
    let (more, _) = sign(again, &opus(8, 20), GAP, false);
    more.iter().for_each(|s| resumed.media.append(s).unwrap());
    drop(resumed);
    let once_more = store.resume_broadcast(&id, Window::default()).unwrap().unwrap();
    assert_eq!(once_more.last, more.last().unwrap().batch);
}

#[test]
fn a_journal_that_is_not_whole_is_not_resumed() {
    let spoil = |how: &dyn Fn(&std::path::Path)| {
        let (_dir, store) = store();
        let (_, signed, _) = broadcast(200, false);
        let media = written(&store, &signed);
        let (id, dir) = (media.id(), media.file());
        drop(media);
        how(&dir);
        store.resume_broadcast(&id, Window::default()).unwrap().map(|r| (r.last, signed))
    };
    let logs = |dir: &std::path::Path| dir.join(format!("{:012}.batches", 0));
    let pages = |dir: &std::path::Path| dir.join(format!("{:010}.pages", 0));
    if spoil(&|_| {}).is_none() {
        return;
    }
    // The last batch was cut off: it was never shown, and its pages' numbers are free.
    let (last, signed) = spoil(&|dir| {
        let log = std::fs::read(logs(dir)).unwrap();
        std::fs::write(logs(dir), &log[..log.len() - 5]).unwrap();
    })
    .unwrap();
    assert_eq!(last, signed[signed.len() - 2].batch);
    let altered = |dir: &std::path::Path| {
        let mut bytes = std::fs::read(pages(dir)).unwrap();
        let at = bytes.len() - 3;
        bytes[at] ^= 1;
        std::fs::write(pages(dir), bytes).unwrap();
    };
    assert!(spoil(&altered).is_none(), "a page that is not what was signed");
    assert!(spoil(&|dir| std::fs::write(logs(dir), b"\x82").unwrap()).is_none(), "no batch");
    let other_life = |dir: &std::path::Path| {
        let manifest = std::fs::read(dir.join("manifest")).unwrap();
        let end = manifest.iter().position(|b| *b == b'\n').unwrap();
        std::fs::write(dir.join("manifest"), [b"another life".as_slice(), &manifest[end..]].concat())
            .unwrap();
    };
    assert!(spoil(&other_life).is_none(), "the machine was restarted");
}

#[test]
fn a_broadcast_that_ended_is_over() {
    let (_dir, store) = store();
    let (_, signed, _) = broadcast(50, true);
    let media = written(&store, &signed);
    // Two of setup, and an end that the source did not give.
    assert_eq!((media.ended(), media.page_end()), (Some(53), 53));
    let id = media.id();
    drop(media);
    assert!(store.resume_broadcast(&id, Window::default()).unwrap().is_none());
    // The next one begins at the beginning.
    let next = store.broadcast(manifest(2), Window::default()).unwrap();
    assert_eq!((next.next_record(), next.has(0)), (None, false));
}

#[test]
fn who_fell_behind_begins_anew_further_on() {
    let (_dir, store) = store();
    let (pages, signed, head) = broadcast(200, false);
    let media = store.listen(manifest(1), Window::default()).unwrap();
    put(&media, &signed[..3]);
    assert!(media.put_head(head.signed().clone()).unwrap().is_some());
    let (next, far) = (signed[2].batch.next(), signed[6].batch.first);
    // What follows, or is known, is no reason to forget anything.
    for page in [0, next] {
        media.begin_anew(page);
        assert_eq!((media.next_record(), media.live_base()), (Some(next), Some(0)));
    }
    media.begin_anew(far);
    assert_eq!((media.next_record(), media.last_held()), (None, None));
    assert!(media.has(0) && media.has(1) && !media.has(2), "setup stays");
    put(&media, &signed[6..]);
    assert_eq!(media.live_base(), Some(far));
    assert!(media.is_gone(next) && !media.is_gone(0) && !media.is_gone(far));
    assert_eq!(read(&media, far), pages[usize::try_from(far).unwrap()]);
}

/// Two links of 100 pages each, behind two of setup: what was signed, and a head of each.
fn two_links() -> (Vec<Bytes>, Vec<Signed>, [icet::live::SignedHead; 2]) {
    let new = || Broadcaster::new(&manifest(1), identity(), DELAY);
    let one = opus(7, 100);
    let (_, before) = sign(new(), &one, GAP, false);
    let (signed, after) = sign(new(), &[one, opus(8, 100)].concat(), GAP, false);
    // The first link has an end, too.
    let pages = signed.iter().flat_map(|s| s.pages.clone()).collect();
    (pages, signed, [before.unwrap(), after.unwrap()])
}

#[test]
fn who_begins_further_back_has_the_setup_of_that_link_and_of_the_next() {
    let (_dir, store) = store();
    let (pages, signed, [old, new]) = two_links();
    let (link, end) = (new.link, pages.len() as u64);
    assert!(old.link == 0 && link >= 102 && end == link + 102);
    let media = store.listen(manifest(1), Window::default()).unwrap();
    media.put_head(old.signed().clone()).unwrap();
    media.put_head(new.signed().clone()).unwrap();
    assert_eq!((media.live_setup_at(50), media.live_setup_at(150)), (Some((0, 2)), Some((link, link + 2))));
    media.put_pages(0, &pages[..2]).unwrap();
    let from = signed.iter().position(|s| s.batch.first > 40).unwrap();
    let base = signed[from].batch.first;
    put(&media, &signed[from..]);
    let page = |p: PageNo| &pages[usize::try_from(p).unwrap()];
    for p in (0..2).chain(base..end) {
        assert_eq!(read(&media, p), *page(p), "{p}");
    }
    assert_eq!(media.live_setup_at(50), Some((0, 2)));
    // It passes both on: with an end, and without.
    for setup in [PageSet::range(0, 1), PageSet::range(link, link + 1)] {
        assert!(matches!(plan_around_holes(&media, &What::Pages(setup)).unwrap(), (_, None)));
    }
    assert_eq!(media.newest_time(), Some(media.span(end - 1).unwrap().time));
}

#[test]
fn setup_is_kept_for_as_long_as_pages_of_its_link() {
    let (_dir, store) = store();
    let (pages, signed, [_, new]) = two_links();
    let (link, at) = (new.link, usize::try_from(new.link).unwrap());
    let window = Window { time: Duration::from_millis(2500), bytes: 1 << 30 };
    let media = store.listen(manifest(1), window).unwrap();
    put(&media, &signed);
    let base = media.live_base().unwrap();
    assert!((20..link).contains(&base), "{base}");
    assert_eq!((read(&media, 0), read(&media, 1)), (pages[0].clone(), pages[1].clone()));
    assert_eq!((read(&media, link), read(&media, link + 1)), (pages[at].clone(), pages[at + 1].clone()));
    // The next link goes on: when nothing of the old one is left, its setup goes too.
    let narrow = Window { time: Duration::from_millis(1500), bytes: 1 << 30 };
    let media = store.listen(manifest(1), narrow).unwrap();
    put(&media, &signed);
    assert!(media.live_base().unwrap() > link + 2);
    assert!(!media.has(0) && media.has(link) && media.live_setup_at(50).is_none());
    assert_eq!(read(&media, link + 1), pages[at + 1]);
}

#[test]
fn records_that_are_far_ahead_push_no_page_out_that_is_to_come() {
    let (_dir, store) = store();
    let (pages, signed, _) = broadcast(500, false);
    let window = Window { time: Duration::from_secs(2), bytes: 1 << 30 };
    let media = store.listen(manifest(1), window).unwrap();
    for s in &signed {
        media.put_batch(s.batch.signed().clone()).unwrap();
    }
    for s in &signed {
        assert_eq!(media.put_pages(s.batch.first, &s.pages).unwrap(), s.pages.len() as u64);
    }
    assert!((502 - 115..=502 - 100).contains(&media.live_base().unwrap()));
    assert_eq!(read(&media, 501), pages[501]);
}
