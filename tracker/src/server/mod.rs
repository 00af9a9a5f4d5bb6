//! The tracker as a server: thin drivers around the pure [`swarm`](crate::swarm).
//!
//! One task owns the swarm (`mind`). Sessions give it events over a bounded queue, and take its messages from
//! bounded queues of their own: a peer that does not read is disconnected, and never makes the swarm wait. The disk is
//! the business of the catalogue's thread, dial-backs and slices that of tasks of their own.

use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use iceshare::net::BindError;
use iceshare::net::session::{Dialer, Listener};
use icet::{NetKind, PeerKey};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalogue::{
    Announce, CatalogueError, Disk, Index, Journal, Persist, Writer, Written, load_or_create_identity,
};
use crate::swarm::record::Input;
use crate::swarm::{OFF_AIR, Quotas, Swarm, SwarmConfig};
use crate::web;

mod mind;
mod record;
mod session;
mod traffic;

pub use mind::{Busy, Observer, OperateError, Operator};
pub use record::{LogEnd, RecordOptions, ReplayFailure, Replayed, replay};
pub use traffic::{Traffic, TrafficCounts};

use record::Recorder;

/// How long sessions have to take the goodbye.
const GRACE: Duration = Duration::from_secs(4);

/// How a tracker is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Addresses for IceT, each with QUIC on UDP and TLS on TCP at the same port; port 0 means any free one. None
    /// given: port 4237 of all IPv4 addresses, and of all IPv6 addresses if the machine has any.
    pub listen: Vec<SocketAddr>,
    /// Address for the web page, the JSON API and the metrics; port 0 means any free one. None: no web.
    pub web: Option<SocketAddr>,
    /// Folder of key and catalogue; made if it is not there.
    pub data: PathBuf,
    /// Limits on strangers.
    pub quotas: Quotas,
    /// Whether decisions are kept, so that it can be told later why they were made.
    pub explain: bool,
    /// A broadcast whose broadcaster is gone for so long, and of which nobody gets a page any more, is taken off.
    pub off_air: Duration,
    /// File with the token of the operator's part of the web; none: it has no such part.
    pub web_token: Option<PathBuf>,
    /// Who may publish from this start on, until the operator says otherwise; none: as it was when the tracker stopped, at first
    /// everyone.
    pub publishers: Option<Vec<PeerKey>>,
    /// Where all that the swarm is given is logged, so that it can be replayed; none: nowhere.
    pub record: Option<RecordOptions>,
}

impl Options {
    /// With default addresses and quotas, and no web.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Options {
        Options {
            listen: Vec::new(),
            web: None,
            data: data.into(),
            quotas: Quotas::default(),
            explain: false,
            off_air: OFF_AIR,
            web_token: None,
            publishers: None,
            record: None,
        }
    }
}

/// Why a tracker does not run.
#[derive(Debug, Error)]
pub enum RunError {
    /// The data folder.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// A port for IceT.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The port for the web.
    #[error("cannot listen for the web on {addr}: {why} (choose another address with --web)")]
    Web {
        /// Where.
        addr: SocketAddr,
        /// What the system said.
        why: io::Error,
    },
    /// The token of the operator.
    #[error("no token for the operator in {}: {why}", .file.display())]
    Token {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The log of the swarm is there already.
    #[error("{} exists already, and no log is overwritten: name another file behind --record, or move it away", .0.display())]
    Recorded(PathBuf),
    /// The log of the swarm.
    #[error("cannot record into {}: {why}", .file.display())]
    Record {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// No thread, or no randomness.
    #[error("the system refuses what a tracker needs: {0}")]
    System(#[from] io::Error),
}

/// A tracker that runs. Dropping it stops it without goodbye; see [`Running::shutdown`].
#[derive(Debug)]
pub struct Running {
    key: PeerKey,
    icet: Vec<SocketAddr>,
    web: Option<SocketAddr>,
    observer: Observer,
    mind: JoinHandle<()>,
    accept: JoinHandle<Listener>,
    tasks: TaskTracker,
    writer: Writer,
    stop: Stop,
}

/// Ends the tasks when dropped.
#[derive(Debug, Default)]
struct Stop {
    accepting: CancellationToken,
    mind: CancellationToken,
    web: CancellationToken,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.accepting.cancel();
        self.mind.cancel();
        self.web.cancel();
    }
}

/// Starts a tracker; when it returns, the tracker is ready.
///
/// # Errors
/// [`RunError`]; each says what to do.
pub async fn run(options: Options) -> Result<Running, RunError> {
    let token = options.web_token.as_deref().map(read_token).transpose()?;
    let data = options.data.clone();
    let open = move || -> Result<_, CatalogueError> {
        let disk = Disk::open(&data)?;
        let identity = load_or_create_identity(&data)?;
        Ok((disk, identity))
    };
    let (disk, identity) = tokio::task::spawn_blocking(open).await.map_err(io::Error::other)??;
    let key = identity.key();
    // The ports come before the epoch: a start that fails for a port counts for nothing.
    let listener = listen(&options.listen, &identity).await?;
    let web_listener = match options.web {
        Some(addr) => {
            let fail = |why| RunError::Web { addr, why };
            Some(TcpListener::bind(addr).await.map_err(fail)?)
        }
        None => None,
    };
    let dialer = Dialer::new(&identity)?;
    let begin = move || disk.begin().map(|contents| (disk, contents));
    let (disk, contents) = tokio::task::spawn_blocking(begin).await.map_err(io::Error::other)??;

    let index = Arc::new(Index::default());
    contents.media.iter().for_each(|m| index.put(m.manifest.clone()));
    let written = Arc::new(Written::default());
    let announce: Vec<Arc<dyn Announce>> = vec![Arc::new(Journal), index.clone(), written.clone()];
    let writer = Writer::start(Arc::new(disk), announce)?;

    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    let mut config = SwarmConfig::new(key, contents.secret, contents.epoch, u64::from_le_bytes(seed));
    config.quotas = options.quotas;
    config.explain = options.explain;
    config.off_air = options.off_air;
    let mut recorder = None;
    if let Some(record) = options.record {
        let file = record.file.clone();
        let fail = |why: io::Error| match why.kind() {
            io::ErrorKind::AlreadyExists => RunError::Recorded(file),
            _ => RunError::Record { file, why },
        };
        recorder = Some(Recorder::start(record, &config).map_err(fail)?);
    }
    let mut feed = |swarm: &mut Swarm, input: Input| {
        recorder.iter_mut().for_each(|r| r.input(&input));
        swarm.feed(input);
    };
    let mut swarm = Swarm::new(config);
    tracing::info!(%key, epoch = contents.epoch, media = contents.media.len(), "the catalogue is read");
    contents.names.into_iter().for_each(|n| feed(&mut swarm, Input::Name(n)));
    contents.media.into_iter().for_each(|m| feed(&mut swarm, Input::Media(m)));
    let mut rules = contents.rules;
    if let Some(publishers) = options.publishers {
        (rules.listed_only, rules.publishers) = (true, publishers);
    }
    feed(&mut swarm, Input::Rules(rules));
    let wall = mind::wall_ms();
    contents.protocols.into_iter().for_each(|p| feed(&mut swarm, Input::Protocol(p.aged(wall))));

    let stop = Stop::default();
    let traffic = Arc::new(Traffic::default());
    let tasks = TaskTracker::new();
    let (events, observer, mind) = mind::start(
        swarm,
        recorder,
        writer.clone(),
        dialer,
        traffic.clone(),
        tasks.clone(),
        stop.mind.clone(),
    );
    let icet: Vec<SocketAddr> =
        listener.local_addrs().iter().filter(|a| a.kind == NetKind::Udp).map(|a| a.at).collect();
    let operator = token.map(|token| Operator::new(&token, events.clone(), writer.clone()));
    let accept = session::Accept {
        events,
        writer: writer.clone(),
        traffic: traffic.clone(),
        tasks: tasks.clone(),
        stop: stop.accepting.clone(),
    };
    let accept = tokio::spawn(accept.run(listener));
    let mut web = None;
    if let Some(listener) = web_listener {
        web = Some(listener.local_addr()?);
        let port = icet.first().map_or(0, SocketAddr::port);
        let (epoch, started) = (contents.epoch, Instant::now());
        let (observer, writer) = (observer.clone(), writer.clone());
        let site =
            web::Site { key, epoch, started, port, observer, operator, index, traffic, writer, written };
        tasks.spawn(web::serve(listener, site, stop.web.clone()));
    }
    Ok(Running { key, icet, web, observer, mind, accept, tasks, writer, stop })
}

/// Least length of a token, in bytes: it can be guessed from afar.
const TOKEN: usize = 16;

/// Whether a file has a token for the operator.
///
/// # Errors
/// [`RunError::Token`] says what is wrong with it.
pub fn check_token(file: &Path) -> Result<(), RunError> {
    read_token(file).map(drop)
}

fn read_token(file: &Path) -> Result<Vec<u8>, RunError> {
    let fail = |why: String| RunError::Token { file: file.to_owned(), why };
    let mut text = Vec::new();
    let read = std::fs::File::open(file).and_then(|f| f.take(4096).read_to_end(&mut text));
    read.map_err(|e| fail(format!("{e} (make one as with: openssl rand -hex 32)")))?;
    let token = text.trim_ascii();
    if token.len() < TOKEN || !token.iter().all(u8::is_ascii_graphic) {
        return Err(fail(format!(
            "a token has at least {TOKEN} characters, without spaces (make one as with: openssl rand -hex 32)"
        )));
    }
    Ok(token.to_vec())
}

async fn listen(addrs: &[SocketAddr], identity: &icet::Identity) -> Result<Listener, BindError> {
    if !addrs.is_empty() {
        return Listener::bind(addrs.to_vec(), identity.clone()).await;
    }
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, icet::DEFAULT_PORT));
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, icet::DEFAULT_PORT));
    match Listener::bind(vec![v4, v6], identity.clone()).await {
        // A machine without IPv6.
        Err(BindError::Io { addr, .. } | BindError::NotOurs { addr }) if addr.is_ipv6() => {
            tracing::info!("no IPv6 on this machine");
            Listener::bind(vec![v4], identity.clone()).await
        }
        other => other,
    }
}

impl Running {
    /// The tracker's key.
    #[must_use]
    pub fn key(&self) -> PeerKey {
        self.key
    }

    /// Where it takes IceT, over both carriers; never empty.
    #[must_use]
    pub fn icet(&self) -> &[SocketAddr] {
        &self.icet
    }

    /// Where its web page is, if it has one.
    #[must_use]
    pub fn web(&self) -> Option<SocketAddr> {
        self.web
    }

    /// Lets others look into the swarm.
    #[must_use]
    pub fn observer(&self) -> Observer {
        self.observer.clone()
    }

    /// Returns if the tracker fails, which it should never do. Cancel safe.
    pub async fn failed(&mut self) {
        // The mind ends by itself only if it panicked.
        if !self.mind.is_finished() {
            let _ = (&mut self.mind).await;
        }
    }

    /// Says goodbye to all peers, writes what is left to disk, and closes the ports. Takes a few seconds at most.
    ///
    /// # Errors
    /// Why the last writes failed, in words.
    pub async fn shutdown(self) -> Result<(), String> {
        let Running { mind, accept, tasks, writer, stop, .. } = self;
        stop.accepting.cancel();
        let listener = accept.await;
        stop.mind.cancel();
        if !mind.is_finished() {
            let _ = mind.await;
        }
        stop.web.cancel();
        tasks.close();
        // What still waits (a dial-back, a peer that is slow to take the goodbye) is not worth more.
        let _ = tokio::time::timeout(GRACE, tasks.wait()).await;
        if let Ok(listener) = listener {
            listener.shutdown().await;
        }
        tokio::task::spawn_blocking(move || writer.close()).await.map_err(|e| e.to_string())?
    }
}
