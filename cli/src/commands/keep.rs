//! `iceshare broadcast --keep`: the broadcast as a file, which is shared under the same link once it has ended.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use iceshare::icet::{IcetUrl, Identity, MediaPath};
use iceshare::store::StoreError;
use iceshare::{Media, Peer};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use crate::escape::printable;
use crate::failure::{FAILED, Failure, Outcome};
use crate::output::note;
use crate::peer;
use crate::share::{Sharer, Strictness, Wanted};

/// A file that a broadcast is written to.
pub(super) struct Keep {
    file: PathBuf,
    out: tokio::fs::File,
}

impl Keep {
    /// Makes the file, which must not exist.
    pub(super) fn new(file: &Path) -> Result<Keep, Failure> {
        let out = std::fs::File::options().write(true).create_new(true).open(file);
        let out = out.map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Failure::from_error(FAILED, &StoreError::Exists(file.to_owned())),
            _ => Failure::failed(format!("cannot write {}: {e}", file.display())),
        })?;
        Ok(Keep { file: file.to_owned(), out: tokio::fs::File::from_std(out) })
    }

    /// Writes what is broadcast, up to its end.
    pub(super) async fn all(&mut self, media: &Media) -> Outcome {
        let mut reader = media.live_reader();
        while let Some(page) = reader.next().await.map_err(peer::opened)? {
            self.out.write_all(&page.bytes).await.map_err(|e| self.broken(&e))?;
        }
        self.out.sync_all().await.map_err(|e| self.broken(&e))
    }

    fn broken(&self, e: &io::Error) -> Failure {
        Failure::failed(format!("cannot write {}: {e}", self.file.display()))
    }

    /// Shares the file in place of the broadcast, until it is stopped.
    pub(super) async fn share(
        self,
        peer: &Peer,
        identity: &Identity,
        tracker: IcetUrl,
        (path, title): (MediaPath, Option<String>),
        stop: &CancellationToken,
    ) -> Failure {
        note(format!(
            "the broadcast is in {}, and can be heard under its link from now on",
            printable(&self.file.display().to_string())
        ));
        let wanted = BTreeMap::from([(path, Wanted { file: self.file, title, repair_to: None })]);
        Sharer::new(peer, identity, tracker, Strictness::All).run(|| Ok(wanted.clone()), stop).await
    }

    /// Removes the file if nothing came into it: it would be in the way of the next attempt.
    pub(super) fn drop_if_empty(&self) {
        if self.file.metadata().is_ok_and(|m| m.len() == 0) {
            let _ = std::fs::remove_file(&self.file);
        }
    }
}
