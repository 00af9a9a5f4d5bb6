//! `iceshare broadcast --keep`: the broadcast as a file, which is shared under the same link once it has ended.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use iceshare::icet::{IcetUrl, Identity, MediaPath, PageNo};
use iceshare::ogg::{SplitEvent, Splitter};
use iceshare::publish::{Publish, scan};
use iceshare::store::{MediaStore, Window};
use iceshare::{Media, OpenError, Peer};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::{RwLockReadGuard, watch};
use tokio_util::sync::CancellationToken;

use crate::escape::printable;
use crate::failure::{Failure, Outcome};
use crate::output::note;
use crate::peer;
use crate::share::{Sharer, Strictness, Wanted};

/// A file that a broadcast is written to.
pub(super) struct Keep {
    file: PathBuf,
    out: tokio::fs::File,
    /// It was there before: what of this broadcast is in it, by an earlier run.
    before: bool,
    /// The page of the broadcast that comes next in it.
    next: PageNo,
    /// It lacks pages that came before those in it, or between them.
    lacks: bool,
    /// The page that comes next, while it is written.
    written: watch::Sender<Option<PageNo>>,
    in_order: Option<RwLockReadGuard<'static, ()>>,
}

/// Whole pages at the beginning of a file: how many, how many bytes, and the last one.
fn whole(file: &std::fs::File) -> io::Result<(u64, u64, Bytes)> {
    let (mut file, mut splitter) = (io::BufReader::new(file), Splitter::new());
    let (mut pages, mut len, mut last) = (0, 0, Bytes::new());
    let mut block = vec![0; 64 << 10];
    loop {
        let n = file.read(&mut block)?;
        splitter.push(Bytes::copy_from_slice(block.get(..n).unwrap_or_default()));
        while let Some(event) = splitter.next() {
            let SplitEvent::Page { bytes, .. } = event else { return Ok((pages, len, last)) };
            (pages, len, last) = (pages + 1, len + bytes.len() as u64, bytes);
        }
        if n == 0 {
            return Ok((pages, len, last));
        }
    }
}

/// The page of a broadcast that comes behind a file of so many whole pages, the last one of which is `last`. None if that is no page of it, or
/// none any more that its journal has.
fn behind(store: &MediaStore, pages: u64, last: &Bytes) -> Option<PageNo> {
    let same = |page: &PageNo| {
        let span = store.span(*page).filter(|s| s.record.len as usize == last.len() && store.has(*page));
        span.is_some_and(|s| store.read(s.offset, last.len()).is_ok_and(|page| page == last))
    };
    let held = store.live_base()?..store.next_record()?;
    // A file that was begun later than the broadcast has fewer.
    let count = pages.checked_sub(1).filter(|p| held.contains(p));
    let page = count.filter(same).or_else(|| held.rev().find(same))?;
    Some(page + 1)
}

/// The page that comes next in a file without a whole page, if it is empty or has the beginning of the first one.
fn first(store: &MediaStore, file: &mut std::fs::File) -> io::Result<Option<PageNo>> {
    let begun = file.metadata()?.len();
    let page = match (store.span(0).filter(|_| store.has(0)), store.next_record()) {
        (Some(span), _) => store.read(span.offset, span.record.len as usize)?,
        (None, next) => return Ok(next.or(Some(0)).filter(|_| begun == 0)),
    };
    let mut there = Vec::new();
    file.seek(io::SeekFrom::Start(0))?;
    file.take(page.len() as u64 + 1).read_to_end(&mut there)?;
    Ok(page.starts_with(&there).then_some(0))
}

/// How far a file is, for the source to wait where that is far behind.
pub(super) struct Pace {
    store: Arc<MediaStore>,
    window: Window,
    written: watch::Receiver<Option<PageNo>>,
}

impl Pace {
    /// Waits while more than half of the window is still to be written: what the window moves past cannot be read any more.
    pub(super) async fn wait(&mut self) {
        let (store, window) = (&self.store, self.window);
        let far = |next: PageNo| {
            let newest = store.last_held().and_then(|last| store.span(last));
            let Some((due, newest)) = store.span(next).zip(newest) else { return false };
            let time = u128::try_from(newest.time.saturating_sub(due.time)).unwrap_or(0);
            2 * time > window.time.as_micros() || newest.offset.saturating_sub(due.offset) > window.bytes / 2
        };
        // Its other end is dropped with what writes.
        let _ = self.written.wait_for(|next| !next.is_some_and(far)).await;
    }
}

impl Keep {
    /// Makes the file, or takes one that an earlier run of this broadcast may have begun.
    pub(super) fn new(file: &Path) -> Result<Keep, Failure> {
        let mut options = std::fs::File::options();
        options.read(true).write(true);
        let (out, before) = match options.clone().create_new(true).open(file) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => (options.open(file), true),
            new => (new, false),
        };
        let out = out.map_err(|e| Failure::failed(format!("cannot write {}: {e}", file.display())))?;
        Ok(Keep {
            file: file.to_owned(),
            out: tokio::fs::File::from_std(out),
            before,
            next: 0,
            lacks: false,
            written: watch::Sender::new(Some(0)),
            in_order: None,
        })
    }

    /// Goes on behind what is in the file, if that is the beginning of this broadcast.
    pub(super) async fn goes_on(&mut self, media: &Media) -> Outcome {
        if !self.before {
            return Ok(());
        }
        let file = self.out.try_clone().await.map_err(|e| self.broken(&e))?.into_std().await;
        let store = media.store().clone();
        let found = tokio::task::spawn_blocking(move || {
            let mut file = file;
            let (pages, len, last) = whole(&file)?;
            let next = if pages == 0 { first(&store, &mut file)? } else { behind(&store, pages, &last) };
            // What a kill left of a page is none.
            if next.is_some() {
                file.set_len(len)?;
            }
            Ok::<_, io::Error>(next.map(|next| (next, len, next != pages)))
        });
        let found = found.await.map_err(|e| Failure::failed(format!("internal error: {e}")))?;
        let Some((next, len, lacks)) = found.map_err(|e| self.broken(&e))? else {
            return Err(Failure::failed(format!(
                "{} exists, and this broadcast does not go on where it ends: move it away, or choose another name with --keep (a broadcast that has ended is shared with iceshare publish)",
                self.file.display()
            )));
        };
        self.out.seek(io::SeekFrom::Start(len)).await.map_err(|e| self.broken(&e))?;
        (self.next, self.lacks) = (next, lacks);
        self.written.send_replace(Some(next));
        Ok(())
    }

    /// Of a broadcast that goes on, a new file has not what was heard before.
    pub(super) fn begins_now(&mut self, media: &Media) {
        if self.before {
            return;
        }
        (self.next, self.lacks) = (media.store().next_record().unwrap_or(0), true);
        self.written.send_replace(Some(self.next));
        note(format!(
            "{} is new: it gets what comes from now on, not what this broadcast had before (to go on with a file, name it)",
            self.name()
        ));
    }

    /// How far it is with what is broadcast.
    pub(super) fn pace(&self, media: &Media, window: Window) -> Pace {
        Pace { store: media.store().clone(), window, written: self.written.subscribe() }
    }

    /// What is in it, for people.
    pub(super) fn what(&self) -> String {
        let what = if self.lacks { "what was kept of it" } else { "all of it" };
        format!("{what} is in {}", self.name())
    }

    /// Writes what is broadcast from its first page on, or from where the file ends, up to its end.
    pub(super) async fn all(&mut self, media: &Media) -> Outcome {
        // From now on to the end of the command: the file is whole, and shared or not, whenever that comes.
        self.in_order = Some(crate::IN_ORDER.read().await);
        let outcome = self.write(media).await;
        self.written.send_replace(None);
        outcome
    }

    async fn write(&mut self, media: &Media) -> Outcome {
        // Not as one who listens: much may have come by now.
        let mut reader = media.live_reader().from_page(self.next);
        let over = |e| match e {
            OpenError::Outdated(_) => Failure::with(
                e.exit_code(),
                format!(
                    "{} ends where another program with this key went on the air under this link",
                    self.file.display()
                ),
            ),
            e => peer::opened(e),
        };
        while let Some(page) = reader.next().await.map_err(over)? {
            self.out.write_all(&page.bytes).await.map_err(|e| self.broken(&e))?;
            if page.ahead {
                continue;
            }
            if let Some(pages) = page.number.checked_sub(self.next).filter(|pages| *pages > 0) {
                self.lacks = true;
                note(format!("{} lacks {pages} pages: its disk is too slow", self.name()));
            }
            self.next = page.number + 1;
            self.written.send_replace(Some(self.next));
        }
        self.out.sync_all().await.map_err(|e| self.broken(&e))
    }

    fn broken(&self, e: &io::Error) -> Failure {
        Failure::failed(format!("cannot write {}: {e}", self.file.display()))
    }

    /// Its name, for people.
    pub(super) fn name(&self) -> String {
        printable(&self.file.display().to_string())
    }

    /// Scans the whole file, so that it can be announced the moment the broadcast is taken off. What is wrong with it is told then.
    pub(super) async fn prepare(
        &self,
        peer: &Peer,
        identity: &Identity,
        path: &MediaPath,
        title: Option<&String>,
    ) {
        let (store, identity) = (peer.store().clone(), identity.clone());
        let publish =
            Publish { file: self.file.clone(), path: path.clone(), title: title.cloned(), repair_to: None };
        let scanned =
            tokio::task::spawn_blocking(move || scan(&store, &identity, &publish, &mut |_| {}).map(drop));
        if let Ok(Err(error)) = scanned.await {
            tracing::debug!(%error, "what was kept could not be scanned");
        }
    }

    /// Shares the file in place of the broadcast, until it is stopped: that is how it ends well.
    pub(super) async fn share(
        &self,
        peer: &Peer,
        identity: &Identity,
        tracker: IcetUrl,
        (path, title): (MediaPath, Option<String>),
        stop: &CancellationToken,
    ) -> Outcome {
        let wanted = BTreeMap::from([(path, Wanted { file: self.file.clone(), title, repair_to: None })]);
        Sharer::new(peer, identity, tracker, Strictness::All).run(|| Ok(wanted.clone()), stop).await
    }

    /// Removes the file if nothing came into it: it would be in the way of the next attempt.
    pub(super) fn drop_if_empty(&self) {
        if !self.before && self.file.metadata().is_ok_and(|m| m.len() == 0) {
            let _ = std::fs::remove_file(&self.file);
        }
    }
}
