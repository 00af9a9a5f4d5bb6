//! The demo's cast: a tracker, an origin with a small uplink, and peers, each with ports, key and folder of its own.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use iceshare::icet::message::{Intent, Position};
use iceshare::icet::{IcetUrl, Identity, MediaPath, PeerKey};
use iceshare::publish::{Publish, scan};
use iceshare::shelf::Anonymous;
use iceshare::store::Target;
use iceshare::{Media, OpenOptions, Peer, PeerConfig};
use icetracker::server::{Options, Running};

use super::snapshot::{Flow, Host, Snapshot, Verdict};
use crate::config::Settings;
use crate::failure::{FAILED, Failure};
use crate::peer::{AGENT, opened, started};
use crate::progress::Rate;
use crate::transports;

/// Upload of each peer as a part of the origin's, in hundredths, in turn.
const PARTS: [u64; 6] = [100, 150, 75, 200, 125, 50];
/// The origin's uplink is such that one copy of the media takes about so long to leave it.
const ONE_COPY: u64 = 9;
/// ... but within these limits, in bytes a second.
const UPLINK: std::ops::RangeInclusive<u64> = 16_000..=16_000_000;
/// A peer that gets no good page for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everyone.
pub(crate) struct Swarm {
    tracker: Running,
    url: IcetUrl,
    source: PathBuf,
    settings: Settings,
    members: Vec<Member>,
    since: Instant,
}

struct Member {
    name: String,
    peer: Peer,
    media: Media,
    limit: u64,
    /// Its copy; the source for the origin.
    file: PathBuf,
    out: Rate,
    from: Vec<Rate>,
    complete: Option<Duration>,
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// With instances of the payload protocols of its own: each serves one peer.
async fn peer(folder: &Path, up: u64, settings: &Settings) -> Result<(Peer, Identity), Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|e| Failure::failed(format!("the system gives no randomness: {e}")))?;
    let identity = Identity::from_seed(&seed);
    let config = PeerConfig {
        identity: identity.clone(),
        data_dir: folder.to_owned(),
        listen: vec![any_port()],
        up: Some(up),
        down: None,
        protocols: transports::chosen(settings)?,
        anonymous: Anonymous::Deny,
        agent: AGENT.to_owned(),
    };
    Ok((Peer::start(config).await.map_err(started)?, identity))
}

impl Swarm {
    /// Tracker and origin: the media is published when it returns. The origin's uplink is chosen by the media's
    /// length, if the settings do not name one.
    pub(crate) async fn begin(
        folder: &Path,
        source: &Path,
        path: MediaPath,
        settings: &Settings,
    ) -> Result<Swarm, Failure> {
        let length = fs::metadata(source).map_err(|e| cannot("read", source, &e))?.len();
        let up = settings.up.map(|r| r.0);
        let limit = up.unwrap_or((length / ONE_COPY).clamp(*UPLINK.start(), *UPLINK.end()));
        let options = Options {
            listen: vec![any_port()],
            web: Some(any_port()),
            ..Options::new(folder.join("tracker"))
        };
        let tracker = icetracker::server::run(options).await.map_err(|e| Failure::from_error(FAILED, &e))?;
        let at = tracker.icet().first().copied().unwrap_or_else(any_port);
        let url = IcetUrl {
            host: at.ip().to_string(),
            port: at.port(),
            path: None,
            key: None,
            tracker: Some(tracker.key()),
        };
        let (origin, identity) = peer(&folder.join("origin"), limit, settings).await?;
        let publish = Publish { file: source.to_owned(), path, title: None, repair_to: None };
        let store = origin.store().clone();
        let prepared = tokio::task::spawn_blocking(move || scan(&store, &identity, &publish, &mut |_| {}))
            .await
            .map_err(|e| Failure::failed(format!("internal error: {e}")))?
            .map_err(|e| Failure::from_error(FAILED, &e))?;
        let media = origin.publish(&url, &prepared).await.map_err(opened)?;
        let url = media.url();
        let member = Member {
            name: "origin".into(),
            peer: origin,
            media,
            limit,
            file: source.to_owned(),
            out: Rate::default(),
            from: Vec::new(),
            complete: None,
        };
        let since = Instant::now();
        Ok(Swarm {
            tracker,
            url,
            source: source.to_owned(),
            settings: settings.clone(),
            members: vec![member],
            since,
        })
    }

    /// One more peer joins and begins to fetch; `listens` marks the one that a player is given.
    pub(crate) async fn join(&mut self, folder: &Path, listens: bool) -> Result<Media, Failure> {
        let n = self.members.len();
        let part = PARTS.get((n - 1) % PARTS.len()).copied().unwrap_or(100);
        let limit = self.members.first().map_or(0, |o| o.limit) * part / 100;
        let folder = folder.join(format!("peer-{n}"));
        fs::create_dir_all(&folder).map_err(|e| cannot("make", &folder, &e))?;
        let file = folder.join("copy.ogg");
        let (peer, _) = peer(&folder, limit, &self.settings).await?;
        let at = listens.then_some(Position::Byte(0));
        let options = OpenOptions { at, ..OpenOptions::new(Intent::Whole, Target::File(file.clone())) };
        let media = peer.open(&self.url, options).await.map_err(opened)?;
        let (name, out) = (format!("peer {n}{}", if listens { "♪" } else { "" }), Rate::default());
        let member =
            Member { name, peer, media: media.clone(), limit, file, out, from: Vec::new(), complete: None };
        self.members.push(member);
        Ok(media)
    }

    /// Counts the time from now on.
    pub(crate) fn start_clock(&mut self) {
        self.since = Instant::now();
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// The tracker's own page.
    pub(crate) fn web(&self) -> Option<SocketAddr> {
        self.tracker.web()
    }

    /// A future for each peer, by its number: that it has everything.
    pub(crate) fn arrivals(&self) -> tokio::task::JoinSet<(usize, Result<(), Failure>)> {
        let mut set = tokio::task::JoinSet::new();
        for (i, member) in self.members.iter().enumerate().skip(1) {
            let media = member.media.clone();
            set.spawn(async move { (i, media.complete(Some(PATIENCE)).await.map_err(opened)) });
        }
        set
    }

    pub(crate) fn arrived(&mut self, number: usize) {
        let at = self.elapsed();
        if let Some(member) = self.members.get_mut(number) {
            member.complete = Some(at);
        }
    }

    /// What is to be seen now.
    pub(crate) fn snapshot(&mut self, player: &str, page: &str, verdict: Option<Verdict>) -> Snapshot {
        let now = Instant::now();
        let keys: HashMap<PeerKey, usize> =
            self.members.iter().enumerate().map(|(i, m)| (m.peer.key(), i)).collect();
        let count = self.members.len();
        let hosts = self.members.iter_mut().map(|m| m.look(&keys, count, now)).collect();
        let (title, bytes, pages, duration) = match self.members.first() {
            Some(origin) => {
                let m = origin.media.manifest();
                let title = if m.title.is_empty() { m.path.file_name() } else { &m.title };
                (title.to_owned(), m.bytes, m.pages, Duration::from_micros(m.duration))
            }
            None => Default::default(),
        };
        Snapshot {
            title,
            bytes,
            pages,
            duration,
            player: player.to_owned(),
            page: page.to_owned(),
            tracker: self.web().map(|a| format!("http://{a}/")).unwrap_or_default(),
            elapsed: self.since.elapsed(),
            hosts,
            verdict,
        }
    }

    /// First page after so long, at each peer.
    pub(crate) fn first_pages(&self) -> Vec<Duration> {
        self.members.iter().skip(1).filter_map(|m| m.media.progress().first_page).collect()
    }

    /// Pages that came twice, all peers together.
    pub(crate) fn duplicates(&self) -> u64 {
        self.members.iter().map(|m| m.media.progress().duplicates).sum()
    }

    /// Compares the peers' files with the source, and gives the source's hash too.
    pub(crate) async fn compare(&self) -> Result<(Verdict, String), Failure> {
        let source = self.source.clone();
        let copies: Vec<PathBuf> = self.members.iter().skip(1).map(|m| m.file.clone()).collect();
        tokio::task::spawn_blocking(move || {
            let wanted = hash(&source).map_err(|e| cannot("read", &source, &e))?;
            let equal = copies.iter().filter(|f| hash(f).is_ok_and(|h| h == wanted)).count();
            Ok((Verdict { equal, peers: copies.len() }, wanted.to_hex().to_string()))
        })
        .await
        .map_err(|e| Failure::failed(format!("internal error: {e}")))?
    }

    /// Everybody leaves, the tracker last.
    pub(crate) async fn end(self) {
        let mut leaving = tokio::task::JoinSet::new();
        for member in self.members {
            leaving.spawn(member.peer.shutdown());
        }
        leaving.join_all().await;
        if let Err(error) = self.tracker.shutdown().await {
            tracing::warn!(error, "the tracker did not end in order");
        }
    }
}

impl Member {
    fn look(&mut self, keys: &HashMap<PeerKey, usize>, count: usize, now: Instant) -> Host {
        let progress = self.media.progress();
        let mut from = vec![Flow::default(); count];
        for ((key, _), flow) in &progress.flows {
            if let Some(f) = keys.get(key).and_then(|i| from.get_mut(*i)) {
                f.bytes += flow.bytes;
            }
        }
        self.from.resize_with(count, Rate::default);
        for (flow, rate) in from.iter_mut().zip(&mut self.from) {
            flow.rate = rate.update(flow.bytes, now);
        }
        let sent = self.peer.stats().served.bytes;
        Host {
            name: self.name.clone(),
            map: self.media.store().map(),
            limit: self.limit,
            sent,
            out: self.out.update(sent, now),
            from,
            bad: progress.bad,
            complete: self.complete,
        }
    }
}

fn hash(file: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut fs::File::open(file)?, &mut hasher)?;
    Ok(hasher.finalize())
}

fn cannot(doing: &str, path: &Path, e: &io::Error) -> Failure {
    Failure::failed(format!("cannot {doing} {}: {e}", path.display()))
}
