//! This process as a peer.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use iceshare::icet::IcetUrl;
use iceshare::icet::message::{Intent, Position};
use iceshare::keyring::{Claim, KeyError};
use iceshare::store::{MediaStore, Store, StoreError, Target};
use iceshare::{Media, OpenError, OpenOptions, Peer, PeerConfig, StartError, keyring};
use tempfile::TempDir;

use crate::args::Later;
use crate::config::Settings;
use crate::escape::printable;
use crate::failure::{FAILED, Failure};
use crate::giving::Keeper;
use crate::output::note;
use crate::transports;

/// What trackers and other peers see us as.
pub(crate) const AGENT: &str = concat!("iceshare ", env!("CARGO_PKG_VERSION"));

/// What a command is at a tracker: whose key it shows there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The owner of what it publishes.
    Publisher,
    /// Somebody who fetches. Several commands may do so at once, each with a key of its own.
    Listener,
}

/// Commands that may fetch at once by one data folder.
const LISTENERS: u32 = 64;

/// A key that no other command uses: a tracker has one session for each.
fn claim(settings: &Settings, role: Role) -> Result<Claim, KeyError> {
    match (&settings.key, role) {
        (Some(key), _) => keyring::claim(key),
        (None, Role::Publisher) => keyring::claim(&settings.data.join("key")),
        (None, Role::Listener) => keyring::claim_one_of(&settings.data.join("listener"), LISTENERS),
    }
}

fn no_key(e: &KeyError) -> Failure {
    match e {
        KeyError::InUse(path) => Failure::failed(format!(
            "another iceshare is using the key {}: give all files to one command, or name another key with --key, or \
             another folder with --data",
            path.display()
        )),
        e => Failure::from_error(FAILED, e),
    }
}

/// What goes with a peer, to be kept as long as it.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Its key, which no other command uses meanwhile.
    pub(crate) claim: Claim,
    /// What it gives.
    pub(crate) giving: Keeper,
}

/// Starts a peer by the settings.
pub(crate) async fn start(settings: &Settings, role: Role) -> Result<(Peer, Kept), Failure> {
    let protocols = transports::chosen(settings)?;
    settings.in_vain().iter().for_each(note);
    // A key is made where there is none, but not the folders of a mistyped name.
    let folder = settings.key.as_deref().and_then(Path::parent).filter(|f| !f.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|f| !f.is_dir()) {
        return Err(Failure::usage(format!(
            "there is no folder {} for the key: mend its name (--key, or key = … in the configuration), or make the folder first",
            printable(&folder.display().to_string())
        )));
    }
    let by = settings.clone();
    let claim = tokio::task::spawn_blocking(move || claim(&by, role))
        .await
        .map_err(|e| Failure::failed(format!("internal error: {e}")))?
        .map_err(|e| no_key(&e))?;
    if let Some(warning) = &claim.key.warning {
        note(format!("iceshare: {warning}"));
    }
    let listen = if settings.listen.is_empty() { vec![anywhere()] } else { settings.listen.clone() };
    let config = PeerConfig {
        identity: claim.key.identity.clone(),
        data_dir: settings.data.clone(),
        listen,
        up: settings.up.map(|r| r.0),
        down: settings.down.map(|r| r.0),
        protocols,
        anonymous: settings.anonymous,
        agent: AGENT.to_owned(),
    };
    let peer = Peer::start(config).await.map_err(started)?;
    let (store, data) = (peer.store().clone(), settings.data.clone());
    // What goes wrong with it is no reason not to start.
    let _ = tokio::task::spawn_blocking(move || tidy(&store, &data)).await;
    let giving = Keeper::start(&settings.give, settings.up, &settings.data, &peer).await?;
    Ok((peer, Kept { claim, giving }))
}

/// Removes what killed commands left in the data folder, and forgets files that are gone.
fn tidy(store: &Store, data: &Path) {
    for entry in fs::read_dir(data).into_iter().flatten().flatten() {
        let is_folder = entry.file_type().is_ok_and(|t| t.is_dir());
        if is_folder && entry.file_name().to_string_lossy().starts_with(BESIDE) {
            let alone = File::open(entry.path()).is_ok_and(|f| f.try_lock().is_ok());
            if let Err(error) = if alone { fs::remove_dir_all(entry.path()) } else { Ok(()) } {
                tracing::warn!(%error, folder = %entry.path().display(), "a copy that is left over was not removed");
            }
        }
    }
    if let Err(error) = store.sweep_live() {
        tracing::warn!(%error, "live media that killed commands left was not removed");
    }
    match store.forget_gone() {
        Ok(gone) => {
            for file in gone.iter().take(FORGOTTEN) {
                let file = printable(&file.display().to_string());
                note(format!("iceshare: {file} was moved or removed, and is forgotten"));
            }
            if gone.len() > FORGOTTEN {
                note(format!("iceshare: and so are {} more files", gone.len() - FORGOTTEN));
            }
        }
        Err(error) => tracing::warn!(%error, "files that are gone were not forgotten"),
    }
}

/// What names of folders with a second copy begin with.
const BESIDE: &str = "beside-";
/// Forgotten files that are named.
const FORGOTTEN: usize = 3;

/// A folder for a second copy, gone when this is dropped. As long as it is locked, [`tidy`] lets it be.
#[derive(Debug)]
struct Beside {
    folder: TempDir,
    _lock: File,
}

impl Beside {
    fn new(data: &Path) -> io::Result<Beside> {
        loop {
            let folder = tempfile::Builder::new().prefix(BESIDE).tempdir_in(data)?;
            // Another command may tidy up between the two.
            let Ok(lock) = File::open(folder.path()) else { continue };
            lock.lock()?;
            if fs::metadata(folder.path()).is_ok_and(|m| lock.metadata().is_ok_and(|l| l.ino() == m.ino())) {
                return Ok(Beside { folder, _lock: lock });
            }
        }
    }
}

/// A media that is fetched into the data folder, to be read from there.
pub(crate) struct Own {
    pub(crate) media: Media,
    /// Where another command fetches it too, the copy of this one; it is gone when this is dropped.
    beside: Option<Beside>,
}

impl Own {
    /// Opens it.
    pub(crate) async fn open(
        peer: &Peer,
        settings: &Settings,
        url: &IcetUrl,
        intent: Intent,
        later: &Later,
    ) -> Result<Own, Failure> {
        let options = |target| OpenOptions { at: Some(Position::Byte(0)), ..later.options(intent, target) };
        match peer.open(url, options(Target::Own)).await {
            Err(OpenError::InUse(_)) => {}
            first => return Ok(Own { media: first.map_err(opened)?, beside: None }),
        }
        let beside = Beside::new(&settings.data).map_err(|e| {
            Failure::failed(format!("no folder for a second copy in {}: {e}", settings.data.display()))
        })?;
        let target = Target::Beside(beside.folder.path().join("copy.ogg"));
        let media = peer.open(url, options(target)).await.map_err(opened)?;
        Ok(Own { media, beside: Some(beside) })
    }

    /// After the media was left: what was fetched is kept in order, or removed. Tells whether it could be kept.
    pub(crate) async fn end(self, peer: &Peer, keep: bool) -> bool {
        let Own { media, beside } = self;
        let (store, id) = (media.store().clone(), media.id());
        if keep {
            close(store.clone()).await;
            if beside.is_some() && store.held() > 0 {
                return adopt(peer.store().clone(), store).await;
            }
        } else if beside.is_some() {
            // Its folder goes, with all that is in it.
            drop(beside);
        } else if let Err(error) = peer.store().remove(&id) {
            tracing::warn!(%error, "what was fetched was not removed from the data folder");
        }
        keep
    }
}

/// Makes a second copy the one that is kept.
async fn adopt(to: Store, copy: Arc<MediaStore>) -> bool {
    let adopted = tokio::task::spawn_blocking(move || to.adopt(&copy));
    match adopted.await {
        Ok(Ok(())) => return true,
        Ok(Err(StoreError::InUse(_))) => note(
            "iceshare: this second copy is not kept, since another command still fetches the first one: \
             keep that one, or choose another folder with --data",
        ),
        Ok(Err(e)) => note(format!("iceshare: this second copy is not kept: {}", printable(&e.to_string()))),
        Err(_) => {}
    }
    false
}

/// Leaves a copy as it can be resumed, or used.
pub(crate) async fn close(store: Arc<MediaStore>) {
    let closed = tokio::task::spawn_blocking(move || {
        if store.is_complete() { store.finish().map(drop) } else { store.close() }
    });
    if let Ok(Err(error)) = closed.await {
        tracing::warn!(%error, "the unfinished copy was not closed in order; it is checked when it is resumed");
    }
}

/// All addresses, any port: IPv6 takes IPv4 too, where there is IPv6.
fn anywhere() -> SocketAddr {
    let dual = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    if UdpSocket::bind(dual).is_ok() { dual } else { (Ipv4Addr::UNSPECIFIED, 0).into() }
}

pub(crate) fn started(e: StartError) -> Failure {
    Failure::from_error(FAILED, &e)
}

pub(crate) fn opened(e: OpenError) -> Failure {
    let failure = Failure::from_error(e.exit_code(), &e);
    match e {
        OpenError::NoMedia { why: None, .. } => failure
            .add("a broadcast is there once its first encoder streams: look at the link, or try again then"),
        _ => failure,
    }
}

/// The tracker that the command line or the configuration names.
pub(crate) fn tracker(given: &Option<IcetUrl>, settings: &Settings) -> Result<IcetUrl, Failure> {
    given.clone().or_else(|| settings.tracker.clone()).ok_or_else(|| {
        Failure::usage(
            "say where to publish: --tracker icet://HOST:PORT (or tracker = … in the configuration)",
        )
    })
}
