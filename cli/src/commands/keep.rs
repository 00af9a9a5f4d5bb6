//! `iceshare broadcast --keep`: the broadcast as a file, which is shared under the same link once it has ended.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use iceshare::icet::{IcetUrl, Identity, MediaPath};
use iceshare::ogg::{SplitEvent, Splitter};
use iceshare::publish::{Publish, scan};
use iceshare::{Media, OpenError, Peer};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::RwLockReadGuard;
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
    /// The page that comes next in it.
    next: u64,
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
            let (pages, len, last) = whole(&file)?;
            let known = pages.checked_sub(1).and_then(|p| store.span(p).filter(|_| store.has(p)));
            let same = known.is_some_and(|s| {
                s.record.len as usize == last.len()
                    && store.read(s.offset, last.len()).is_ok_and(|page| page == last)
            });
            // What a kill left of a page is none.
            if same {
                file.set_len(len)?;
            }
            Ok::<_, io::Error>(same.then_some((pages, len)))
        });
        let found = found.await.map_err(|e| Failure::failed(format!("internal error: {e}")))?;
        let Some((pages, len)) = found.map_err(|e| self.broken(&e))? else {
            return Err(Failure::failed(format!(
                "{} exists, and is not the beginning of this broadcast: move it away, or choose another name with --keep (a broadcast that has ended is shared with iceshare publish)",
                self.file.display()
            )));
        };
        self.out.seek(io::SeekFrom::Start(len)).await.map_err(|e| self.broken(&e))?;
        self.next = pages;
        Ok(())
    }

    /// Of a broadcast that goes on, a new file has not what was heard before.
    pub(super) fn say_what_lacks(&self) {
        if !self.before {
            note(format!(
                "{} is new: it gets what comes from now on, not what this broadcast had before (to go on with a file, name it)",
                self.name()
            ));
        }
    }

    /// Writes what is broadcast, up to its end.
    pub(super) async fn all(&mut self, media: &Media) -> Outcome {
        // From now on to the end of the command: the file is whole, and shared or not, whenever that comes.
        self.in_order = Some(crate::IN_ORDER.read().await);
        let reader = media.live_reader();
        let mut reader = if self.next > 0 { reader.from_page(self.next) } else { reader };
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
