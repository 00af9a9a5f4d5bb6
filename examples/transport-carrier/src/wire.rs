//! What lies in the shared directory.
//!
//! ```text
//! DIR/id                       32 hexadecimal digits: which directory it is
//! DIR/KEY/                     mailbox of the host with this key
//! DIR/KEY/alive                rewritten every second while the host is there
//! DIR/KEY/TOKEN/               a request; removed: it is over, for whichever side removed it
//! DIR/KEY/TOKEN/up/            what the receiver says
//! DIR/KEY/TOKEN/down/          what the host says
//! …/00000000, 00000001, …      its bytes in order; who has read a file removes it
//! …/00000007.end               instead of file 7: nothing follows
//! ```
//!
//! Everything appears under its name when it is whole: it is written beside and renamed. Names that begin with a dot are
//! being made or removed. At most [`WINDOW`] files of a direction lie unread.

use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use iceshare::protocol::PeerKey;
use iceshare::stream::{Inbound, Lost, Outbound};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep};

/// Files of one direction that may lie unread.
pub const WINDOW: u64 = 8;
/// Bytes of a file, at most.
const FILE: usize = 256 * 1024;
/// How long it takes to look again, at first and after a while.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(25));
/// How often a host says that it is there.
pub(crate) const BEAT: Duration = Duration::from_secs(1);
/// When it has not said so for so long, it is gone.
const SILENCE: Duration = Duration::from_secs(6);
/// The host's sign of life.
pub(crate) const ALIVE: &str = "alive";

/// A fresh random name: 32 hexadecimal digits.
///
/// # Errors
/// If the system has no randomness.
pub(crate) fn token() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Whether a name could be one of ours. Names of others are left alone.
pub(crate) fn is_token(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The shared directory.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    dir: PathBuf,
    pub(crate) id: String,
}

impl Shared {
    /// Opens it, and makes it if it is not there.
    pub(crate) fn open(dir: &Path) -> io::Result<Shared> {
        fs::create_dir_all(dir)?;
        let file = dir.join("id");
        if !file.try_exists()? {
            let new = dir.join(format!(".id-{}", token()?));
            fs::write(&new, token()?)?;
            // Unless somebody was faster: a link never replaces.
            let linked = fs::hard_link(&new, &file);
            fs::remove_file(&new)?;
            linked.or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })?;
        }
        let id = fs::read_to_string(&file)?;
        if !is_token(&id) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the directory's id is damaged"));
        }
        Ok(Shared { dir: dir.to_owned(), id })
    }

    /// A host's mailbox.
    pub(crate) fn mailbox(&self, host: &PeerKey) -> PathBuf {
        self.dir.join(host.0.iter().map(|b| format!("{b:02x}")).collect::<String>())
    }
}

/// Takes a directory away, at once for all who look.
pub(crate) fn discard(dir: &Path) {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { return };
    let gone = parent.join(format!(".gone-{}", name.to_string_lossy()));
    if fs::rename(dir, &gone).is_ok() {
        let _ = fs::remove_dir_all(&gone);
    }
}

/// A request that the receiver has made; it is over when this is dropped.
#[derive(Debug)]
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn make(mailbox: &Path) -> io::Result<Place> {
        let name = token()?;
        let new = mailbox.join(format!(".new-{name}"));
        fs::create_dir(&new)?;
        fs::create_dir(new.join("up"))?;
        fs::create_dir(new.join("down"))?;
        let place = mailbox.join(name);
        fs::rename(&new, &place)?;
        Ok(Place(place))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        discard(&self.0);
    }
}

/// Looks until there is something.
pub(crate) async fn look<T>(mut find: impl FnMut() -> Result<Option<T>, Lost>) -> Result<T, Lost> {
    let mut pause = PAUSE.0;
    loop {
        if let Some(found) = find()? {
            return Ok(found);
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Whether the host is still there.
#[derive(Debug)]
pub(crate) struct Watch {
    alive: PathBuf,
    seen: Option<SystemTime>,
    since: Instant,
}

impl Watch {
    pub(crate) fn new(mailbox: &Path) -> Watch {
        Watch { alive: mailbox.join(ALIVE), seen: None, since: Instant::now() }
    }

    /// Clocks of two machines are not compared: the sign must change.
    fn check(&mut self) -> Result<(), Lost> {
        let broken = |why: &str| Lost::Broken(io::Error::new(io::ErrorKind::ConnectionAborted, why));
        let Ok(changed) = fs::metadata(&self.alive).and_then(|m| m.modified()) else {
            return Err(broken("the host has left"));
        };
        if self.seen != Some(changed) {
            (self.seen, self.since) = (Some(changed), Instant::now());
        }
        if self.since.elapsed() > SILENCE { Err(broken("the host shows no sign of life")) } else { Ok(()) }
    }
}

/// The direction that we read.
#[derive(Debug)]
pub(crate) struct Reader {
    dir: PathBuf,
    next: u64,
    /// At the receiver: the request itself, and an eye on the host.
    mine: Option<(Place, Watch)>,
}

impl Reader {
    pub(crate) fn new(dir: PathBuf, mine: Option<(Place, Watch)>) -> Reader {
        Reader { dir, next: 0, mine }
    }
}

fn name(number: u64) -> String {
    format!("{number:08}")
}

impl Inbound for Reader {
    async fn read(&mut self) -> Result<Option<Bytes>, Lost> {
        // What was given away last is done with now, and makes room. (Done here, so that a read that is cancelled loses nothing.)
        if let Some(last) = self.next.checked_sub(1) {
            let _ = fs::remove_file(self.dir.join(name(last)));
        }
        let file = self.dir.join(name(self.next));
        let end = file.with_extension("end");
        let there = look(|| {
            if file.exists() {
                return Ok(Some(true));
            }
            if end.exists() {
                return Ok(Some(false));
            }
            if !self.dir.exists() {
                return Err(Lost::GivenUp(None));
            }
            if let Some((_, watch)) = &mut self.mine {
                watch.check()?;
            }
            Ok(None)
        })
        .await?;
        if !there {
            return Ok(None);
        }
        // Whatever lies there: no more of it is read than may be.
        let mut bytes = Vec::new();
        let opened = tokio::fs::File::open(&file).await.map_err(Lost::Broken)?;
        let n = opened.take(FILE as u64 + 1).read_to_end(&mut bytes).await.map_err(Lost::Broken)?;
        if n == 0 || n > FILE {
            return Err(Lost::Broken(io::Error::new(io::ErrorKind::InvalidData, "a file of a wrong size")));
        }
        self.next += 1;
        Ok(Some(bytes.into()))
    }
}

/// The direction that we write.
#[derive(Debug)]
pub(crate) struct Writer {
    dir: PathBuf,
    next: u64,
    tries: u64,
    finished: bool,
}

impl Writer {
    pub(crate) fn new(dir: PathBuf) -> Writer {
        Writer { dir, next: 0, tries: 0, finished: false }
    }

    fn request(&self) -> &Path {
        self.dir.parent().unwrap_or(&self.dir)
    }

    /// Puts a file under its name, and is done with it: nothing is awaited between the two.
    fn put(&mut self, from: &Path, to: &str) -> Result<(), Lost> {
        fs::rename(from, self.dir.join(to)).map_err(|_| Lost::GivenUp(None))?;
        self.next += 1;
        Ok(())
    }

    fn beside(&mut self) -> PathBuf {
        self.tries += 1;
        self.dir.join(format!(".new-{}", self.tries))
    }
}

impl Outbound for Writer {
    async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), Lost> {
        let oldest = self.next.checked_sub(WINDOW).map(|n| self.dir.join(name(n)));
        look(|| {
            if !self.dir.exists() {
                return Err(Lost::GivenUp(None));
            }
            Ok(oldest.as_ref().is_none_or(|o| !o.exists()).then_some(()))
        })
        .await?;
        let mut bytes = Vec::new();
        for chunk in chunks.iter() {
            let room = FILE - bytes.len();
            bytes.extend(chunk.iter().take(room));
        }
        let (mut taken, new) = (bytes.len(), self.beside());
        tokio::fs::write(&new, bytes).await.map_err(|_| Lost::GivenUp(None))?;
        self.put(&new, &name(self.next))?;
        for chunk in chunks {
            let n = taken.min(chunk.len());
            chunk.advance(n);
            taken -= n;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Lost> {
        let new = self.beside();
        tokio::fs::write(&new, b"").await.map_err(|_| Lost::GivenUp(None))?;
        self.put(&new, &format!("{}.end", name(self.next)))?;
        self.finished = true;
        Ok(())
    }

    fn reset(&mut self, _: iceshare::icet::stream::EndCode) {
        self.finished = true;
        discard(self.request());
    }

    fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let dir = self.dir.clone();
        async move {
            let _ = look(|| Ok((!dir.exists()).then_some(()))).await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            discard(self.request());
        }
    }
}
