//! Live media in the store: rings of what is listened to, journals of what is broadcast.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use icet::live::{SignedBatch, SignedHead};
use icet::media::{MediaError, Signed};
use icet::{MediaId, PageNo, SignedManifest, frame, limits};
use thiserror::Error;

use super::ring::{Ring, Window};
use super::{MediaStore, Store, StoreError, disk};
use crate::live::{ChainError, Taken};

/// Pages whose batches go into one file of a journal, and files that are kept: more than any window has.
const LOGGED: u64 = 4096;
const LOGS: usize = 64;
const LOCK: &str = "lock";
/// Who makes or sweeps rings holds it: a ring that is just being made is not locked yet.
const MAKING: &str = "making";
const MANIFEST: &str = "manifest";
const HEADS: &str = "heads";

/// Why something of a live media was refused.
#[derive(Debug, Error)]
pub enum LivePut {
    /// Not signed by the publisher, of another broadcast, or beyond limits.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// Signed, but it does not follow.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It is a file.
    #[error("this media is not live")]
    NotLive,
}

/// A broadcast that can go on where it stopped.
#[derive(Debug)]
pub struct Resumed {
    /// Its media, with all that was kept.
    pub media: Arc<MediaStore>,
    /// The last batch that was signed.
    pub last: SignedBatch,
    /// Heads that were kept, oldest first.
    pub heads: Vec<SignedHead>,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Store {
    /// A ring for a live media that is to be listened to. It is gone when the media is dropped.
    ///
    /// # Errors
    /// The disk's.
    pub fn listen(&self, manifest: SignedManifest, window: Window) -> Result<Arc<MediaStore>, StoreError> {
        let all = self.dir().join("live");
        let _making = sweep(&all).map_err(|e| StoreError::io("sweep", &all, e))?;
        let (own, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = all.join(format!("{}-{own}-{number}", manifest.id()));
        // Of an earlier process with our number.
        let _ = fs::remove_dir_all(&dir);
        let lock = enter(&dir)?;
        Ok(Arc::new(MediaStore::in_ring(manifest, self.pool(), Ring::new(dir, window, true, lock))))
    }

    /// Removes the rings that processes left which were killed. Blocking.
    ///
    /// # Errors
    /// The disk's.
    pub fn sweep_live(&self) -> Result<(), StoreError> {
        let all = self.dir().join("live");
        if !all.exists() {
            return Ok(());
        }
        sweep(&all).map(drop).map_err(|e| StoreError::io("sweep", &all, e))
    }

    /// Begins the journal of a broadcast, in place of the one before under this media's id.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process broadcasts it, or the disk's.
    pub fn broadcast(&self, manifest: SignedManifest, window: Window) -> Result<Arc<MediaStore>, StoreError> {
        let dir = self.dir().join("broadcast").join(manifest.id().to_string());
        let lock = enter(&dir)?;
        self.begin_journal(dir, lock, manifest, window)
    }

    /// The same in place of a broadcast that was resumed, and whose manifest is outdated.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn broadcast_anew(
        &self,
        old: &MediaStore,
        manifest: SignedManifest,
        window: Window,
    ) -> Result<Arc<MediaStore>, StoreError> {
        let ring = old.ring.as_ref().ok_or(StoreError::Closed)?;
        let lock = ring.lock().map_err(|e| StoreError::io("keep", ring.dir(), e))?;
        self.begin_journal(ring.dir().to_owned(), lock, manifest, window)
    }

    fn begin_journal(
        &self,
        dir: PathBuf,
        lock: File,
        manifest: SignedManifest,
        window: Window,
    ) -> Result<Arc<MediaStore>, StoreError> {
        let fail = |e| StoreError::io("write", &dir, e);
        for file in files(&dir).map_err(fail)? {
            if file.file_name().is_none_or(|n| n != LOCK) {
                fs::remove_file(&file).map_err(fail)?;
            }
        }
        let text = format!("{}\n", life().unwrap_or_default());
        let mut head = text.into_bytes();
        head.extend(frame::encode(manifest.signed()));
        disk::replace(&dir.join(MANIFEST), &head).map_err(fail)?;
        Ok(Arc::new(MediaStore::in_ring(manifest, self.pool(), Ring::new(dir, window, false, lock))))
    }

    /// The broadcast under an id, if its journal is whole, it did not end, and the machine was not restarted since: else pages may
    /// have been sent that the disk does not know. Blocking; reads what was kept.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process broadcasts it, or the disk's.
    pub fn resume_broadcast(&self, id: &MediaId, window: Window) -> Result<Option<Resumed>, StoreError> {
        let dir = self.dir().join("broadcast").join(id.to_string());
        if !dir.join(MANIFEST).exists() {
            return Ok(None);
        }
        let lock = enter(&dir)?;
        let fail = |e| StoreError::reading(&dir, e);
        let head = fs::read(dir.join(MANIFEST)).map_err(fail)?;
        let mut parts = head.splitn(2, |b| *b == b'\n');
        let (Some(of), Some(signed)) = (parts.next(), parts.next()) else { return Ok(None) };
        let same = life().is_some_and(|l| l.as_bytes() == of);
        let manifest = frame::decode::<Signed>(signed).ok().and_then(|s| SignedManifest::verify(s).ok());
        // Something else was published under this id since, if another version is on record.
        let recorded = crate::publish::last_version(self, id)?;
        let good = |m: &SignedManifest| same && m.id() == *id && m.version >= recorded;
        let Some(manifest) = manifest.filter(good) else { return Ok(None) };
        let media =
            Arc::new(MediaStore::in_ring(manifest, self.pool(), Ring::new(dir.clone(), window, false, lock)));
        let mut last = None;
        for log in logs(&dir).map_err(fail)? {
            let mut bytes = Vec::new();
            File::open(&log).and_then(|mut f| f.read_to_end(&mut bytes)).map_err(fail)?;
            let (mut rest, mut whole) = (minicbor::Decoder::new(&bytes), 0);
            while let Ok(signed) = rest.decode::<Signed>() {
                let Ok(batch) = SignedBatch::verify(signed, media.manifest()) else { return Ok(None) };
                if media.restore(&batch).is_err() {
                    return Ok(None);
                }
                (last, whole) = (Some(batch), rest.position());
            }
            // A last batch that is cut off was never shown to anybody.
            if whole < bytes.len() {
                let cut = fs::OpenOptions::new().write(true).open(&log);
                cut.and_then(|f| f.set_len(whole as u64)).map_err(fail)?;
            }
        }
        let resumed = last.filter(|b| !b.ends && media.has(b.next().saturating_sub(1)));
        let heads = heads(&dir, media.manifest()).map_err(fail)?;
        Ok(resumed.map(|last| Resumed {
            heads: heads.into_iter().filter(|h| h.next <= last.next()).collect(),
            media,
            last,
        }))
    }
}

/// What changes when the machine is restarted; none if the system does not tell.
fn life() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

fn enter(dir: &Path) -> Result<File, StoreError> {
    disk::private_dir(dir).map_err(|e| StoreError::io("create", dir, e))?;
    let lock = disk::open_locked(&dir.join(LOCK)).map_err(|e| StoreError::io("create", dir, e))?;
    lock.ok_or_else(|| StoreError::InUse(dir.to_owned()))
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect()
}

fn logs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = files(dir)?;
    all.retain(|p| p.extension().is_some_and(|e| e == "batches"));
    all.sort();
    Ok(all)
}

/// Heads of a journal, as far as they are whole.
fn heads(dir: &Path, manifest: &SignedManifest) -> io::Result<Vec<SignedHead>> {
    let bytes = match fs::read(dir.join(HEADS)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let (mut rest, mut heads) = (minicbor::Decoder::new(&bytes), Vec::new());
    while let Some(head) = rest.decode::<Signed>().ok().and_then(|s| SignedHead::verify(s, manifest).ok()) {
        heads.push(head);
    }
    Ok(heads)
}

/// Removes rings of processes that were killed. As long as what is returned is kept, nobody else makes one or sweeps.
fn sweep(all: &Path) -> io::Result<File> {
    disk::private_dir(all)?;
    let making = fs::OpenOptions::new().write(true).create(true).truncate(false).open(all.join(MAKING))?;
    making.lock()?;
    for dir in files(all)?.into_iter().filter(|f| f.is_dir()) {
        if let Ok(Some(_lock)) = disk::open_locked(&dir.join(LOCK)) {
            let _ = fs::remove_dir_all(&dir);
        }
    }
    Ok(making)
}

impl MediaStore {
    /// Whether it is live: pages come without end.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.ring.is_some()
    }

    /// The page behind the last one that there can be.
    #[must_use]
    pub fn page_end(&self) -> PageNo {
        self.ring.as_ref().map_or(self.manifest.pages, Ring::end)
    }

    /// The page behind the last, of a broadcast that ended.
    #[must_use]
    pub fn ended(&self) -> Option<PageNo> {
        self.ring.as_ref().map(Ring::end).filter(|end| *end < limits::PAGES)
    }

    /// Whether a broadcast has ended, and its last page is here.
    #[must_use]
    pub fn came_to_the_end(&self) -> bool {
        self.ended().is_some_and(|end| end.checked_sub(1).is_none_or(|last| self.has(last)))
    }

    /// Takes a batch of records, after it was verified.
    ///
    /// # Errors
    /// [`LivePut`].
    pub fn put_batch(&self, signed: Signed) -> Result<Taken, LivePut> {
        let ring = self.ring.as_ref().ok_or(LivePut::NotLive)?;
        let batch = SignedBatch::verify(signed, &self.manifest)?;
        let taken = ring.put_batch(batch)?;
        if taken == Taken::New {
            self.bump();
        }
        Ok(taken)
    }

    /// Takes a head, after it was verified: what a newcomer begins with. None if it is older than one before.
    ///
    /// # Errors
    /// [`LivePut`].
    pub fn put_head(&self, signed: Signed) -> Result<Option<SignedHead>, LivePut> {
        let ring = self.ring.as_ref().ok_or(LivePut::NotLive)?;
        let head = SignedHead::verify(signed, &self.manifest)?;
        if !ring.put_head(&head) {
            return Ok(None);
        }
        self.bump();
        Ok(Some(head))
    }

    /// The batch that has `page`, as a host hands it out; behind the last page of a broadcast that ended, the one that says so.
    #[must_use]
    pub fn batch_of(&self, page: PageNo) -> Option<SignedBatch> {
        self.ring.as_ref()?.batch_of(page)
    }

    /// The first page that has a record here.
    #[must_use]
    pub fn live_base(&self) -> Option<PageNo> {
        self.ring.as_ref()?.base()
    }

    /// Whether `page` lies before the window of a live media, and is not held for being setup: it will not come any more.
    #[must_use]
    pub fn is_gone(&self, page: PageNo) -> bool {
        self.live_base().is_some_and(|base| page < base) && !self.has(page)
    }

    /// Forgets the window of live media, to begin anew at `page` further on: what lies between is not to be had any more. Setup pages
    /// are those of the last head from then on. Does nothing where `page` follows what is known.
    pub fn begin_anew(&self, page: PageNo) {
        if self.ring.as_ref().is_some_and(|ring| ring.begin_anew(page)) {
            self.bump();
        }
    }

    /// The page behind the last that has a record here.
    #[must_use]
    pub fn next_record(&self) -> Option<PageNo> {
        self.ring.as_ref()?.next_record()
    }

    /// The last page of the window that is held.
    #[must_use]
    pub fn last_held(&self) -> Option<PageNo> {
        self.ring.as_ref()?.last_held()
    }

    /// Setup pages of the current link, as far as is known: the first, and the one behind the last.
    #[must_use]
    pub fn live_setup(&self) -> Option<(PageNo, PageNo)> {
        self.ring.as_ref()?.setup()
    }

    /// Those of the link that `page` is in.
    #[must_use]
    pub fn live_setup_at(&self, page: PageNo) -> Option<(PageNo, PageNo)> {
        self.ring.as_ref()?.setup_at(page)
    }

    /// Whether the broadcaster said that no page comes any more, in what its tracker hands to who joins; none before that came.
    #[must_use]
    pub fn is_announced_as_over(&self) -> Option<bool> {
        self.ring.as_ref()?.ended_by_head()
    }

    /// Media time of the newest page that is known of, held or not, in microseconds from page 0.
    #[must_use]
    pub fn newest_time(&self) -> Option<i64> {
        self.ring.as_ref()?.newest_time()
    }

    /// Writes down what a broadcaster signed, and only then shows it.
    ///
    /// # Errors
    /// The disk's; then nothing of it was shown.
    pub fn append(&self, signed: &crate::live::Signed) -> Result<(), StoreError> {
        let Some(ring) = &self.ring else { return Err(StoreError::Closed) };
        let mut at = signed.batch.offset;
        for page in &signed.pages {
            ring.write(at, page)?;
            at += page.len() as u64;
        }
        log(ring.dir(), &signed.batch)?;
        // What was signed here is right.
        let _ = ring.put_batch(signed.batch.clone());
        let kept = ring.put_pages(signed.batch.first, &signed.pages);
        self.bump();
        kept.map(drop).map_err(|_| StoreError::Closed)
    }

    /// Writes heads down, in place of those before: with a journal that goes on they tell what was on when.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep_heads<'a>(&self, heads: impl Iterator<Item = &'a Signed>) -> Result<(), StoreError> {
        let Some(ring) = &self.ring else { return Err(StoreError::Closed) };
        let path = ring.dir().join(HEADS);
        let bytes: Vec<u8> = heads.flat_map(frame::encode).collect();
        // After a crash of the machine no journal goes on, so nothing waits for the disk.
        let temp = disk::with_suffix(&path, ".new");
        let written = fs::write(&temp, bytes).and_then(|()| fs::rename(&temp, &path));
        written.map_err(|e| StoreError::io("write", &path, e))
    }

    /// Takes a batch of a journal, with its pages if they are still there.
    fn restore(&self, batch: &SignedBatch) -> Result<(), ()> {
        let ring = self.ring.as_ref().ok_or(())?;
        ring.put_batch(batch.clone()).map_err(drop)?;
        let mut at = batch.offset;
        let mut pages: Vec<Bytes> = Vec::new();
        for record in &batch.records {
            match ring.read(at, record.len as usize) {
                Ok(bytes) => pages.push(bytes),
                // Before the window, its files were removed.
                Err(_) => return Ok(()),
            }
            at += u64::from(record.len);
        }
        ring.put_pages(batch.first, &pages).map(drop).map_err(drop)
    }
}

/// Appends a batch to the journal; begins a new file now and then, and removes old ones.
fn log(dir: &Path, batch: &SignedBatch) -> Result<(), StoreError> {
    let index = batch.first / LOGGED;
    let path = dir.join(format!("{index:012}.batches"));
    let fail = |e| StoreError::io("write", &path, e);
    let fresh = !path.exists();
    let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).map_err(fail)?;
    file.write_all(&frame::encode(batch.signed())).map_err(fail)?;
    if fresh {
        let all = logs(dir).map_err(fail)?;
        for old in all.iter().rev().skip(LOGS) {
            let _ = fs::remove_file(old);
        }
    }
    Ok(())
}
