//! `iceshare icecast`: beside an Icecast server, its mounts as live media, and guidance for its places.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use iceshare::icet::{IcetUrl, MediaPath, Now};
use iceshare::{BroadcastOptions, Media, Peer};
use iceshare_icecast::admin::{AdminError, Listener, Mount, Server};
use iceshare_icecast::guide::{self, Swarm, Verdict};
use iceshare_icecast::site::{self, Knocks, Side, State};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::args;
use crate::config::Settings;
use crate::escape::printable;
use crate::failure::{Failure, Outcome};
use crate::output::{self, note};
use crate::peer::{self, Role};
use crate::source::{self, How, Source};

/// How often the server and the tracker are asked.
const EVERY: Duration = Duration::from_secs(2);
/// How long the tracker's word may take.
const WORD: Duration = Duration::from_millis(1500);
/// A mount that could not be broadcast is tried again after so long.
const AGAIN: Duration = Duration::from_secs(10);

pub(crate) async fn icecast(args: &args::Icecast, settings: &Settings, stop: &CancellationToken) -> Outcome {
    let tracker = peer::tracker(&args.tracker.tracker, settings)?;
    crate::transports::for_live(settings)?;
    let server = Server::new(args.server.clone(), args.admin_user.clone(), args.admin_password.clone());
    // A password that is wrong now is wrong later; a server that is not there may come.
    match server.mounts().await {
        Err(e @ AdminError::Password) => return Err(Failure::usage(e.to_string())),
        Err(e @ AdminError::Answer { .. }) => return Err(Failure::from_error(crate::failure::FAILED, &e)),
        Ok(_) | Err(_) => {}
    }
    let web = open(args.web, "--web").await?;
    let door = match args.door {
        Some(door) => Some(open(door, "--door").await?),
        None => None,
    };
    let (peer, _kept) = peer::start(settings, Role::Publisher).await?;
    let peer = Arc::new(peer);
    let knocks = Knocks::default();
    let (show, shown) = watch::channel(Arc::new(State::default()));
    let serve = |(listener, at): (TcpListener, SocketAddr), side, what: &str| {
        note(format!("{what}: http://{at}/"));
        AbortOnDropHandle::new(tokio::spawn(site::serve(
            listener,
            side,
            shown.clone(),
            knocks.clone(),
            stop.clone(),
        )))
    };
    let _web = serve(web, Side::Operator, "what becomes of whom, and why");
    let _door = door.map(|door| serve(door, Side::Door, "door for listeners"));
    let mut agent = Agent {
        args,
        server,
        tracker,
        peer: peer.clone(),
        mirrors: BTreeMap::new(),
        left_out: BTreeSet::new(),
        state: State {
            server: args.server.to_string(),
            dry: args.dry_run,
            overflow: args.overflow.clone(),
            ..State::default()
        },
        knocks: knocks.clone(),
        began: Instant::now(),
    };
    let run = async {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            agent.turn().await;
            show.send_replace(Arc::new(agent.state.clone()));
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = run => {}
    }
    agent.close().await;
    if let Some(peer) = Arc::into_inner(peer) {
        peer.shutdown().await;
    }
    Err(Failure::interrupted())
}

async fn open(at: SocketAddr, flag: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let opened = async {
        let listener = TcpListener::bind(at).await?;
        let at = listener.local_addr()?;
        Ok((listener, at))
    };
    opened.await.map_err(|e: std::io::Error| Failure::failed(format!("{flag} {at} cannot be opened: {e}")))
}

/// A mount that is broadcast.
struct Mirror {
    told: Arc<Told>,
    task: AbortOnDropHandle<()>,
}

/// What a mirror tells of itself.
#[derive(Default)]
struct Told {
    media: Mutex<Option<Media>>,
    /// Why it is not broadcast, if so.
    trouble: Mutex<Option<String>>,
}

impl Told {
    fn media(&self) -> MutexGuard<'_, Option<Media>> {
        self.media.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Agent<'a> {
    args: &'a args::Icecast,
    server: Server,
    tracker: IcetUrl,
    peer: Arc<Peer>,
    mirrors: BTreeMap<String, Mirror>,
    /// Mounts of which it was said that they are left out.
    left_out: BTreeSet<String>,
    state: State,
    knocks: Knocks,
    began: Instant,
}

impl Agent<'_> {
    /// Looks at the server once, asks the tracker, and sends away whom it must.
    async fn turn(&mut self) {
        let looked = self.look().await;
        let trouble = looked.err().map(|e| e.to_string());
        if trouble != self.state.trouble {
            match &trouble {
                Some(why) => note(format!("iceshare: {}; trying again", printable(why))),
                None => note("the server answers again"),
            }
            self.state.trouble = trouble;
        }
        if self.state.trouble.is_some() {
            // What was seen before holds no longer.
            self.state.stations.values_mut().for_each(|s| s.decisions.clear());
        }
    }

    /// Ends the broadcasts, so that nothing holds the peer any more.
    async fn close(self) {
        for (_, mirror) in self.mirrors {
            mirror.task.abort();
            let _ = mirror.task.await;
        }
    }

    async fn look(&mut self) -> Result<(), AdminError> {
        let mounts = self.server.mounts().await?;
        // Who names a mount knows what it sends: ffmpeg calls everything audio/mpeg unless it is told.
        let (mounts, others): (Vec<Mount>, Vec<Mount>) = mounts.into_iter().partition(|m| {
            if self.args.mount.is_empty() { m.is_ogg() } else { self.args.mount.contains(&m.name) }
        });
        for m in others.iter().filter(|_| self.args.mount.is_empty()) {
            if self.left_out.insert(m.name.clone()) {
                let (name, kind) = (printable(&m.name), printable(&m.media_type));
                note(format!(
                    "{name} is left out: its source calls it {kind}; if it sends Ogg all the same, name it with --mount"
                ));
            }
        }
        self.state.stations.retain(|name, _| mounts.iter().any(|m| m.name == *name));
        let knocks = self.knocks.take();
        for mount in &mounts {
            if !self.mirrors.contains_key(&mount.name) {
                self.mirror(&mount.name);
            }
            match self.guide(mount, &knocks).await {
                // Its source has just gone.
                Err(AdminError::NoMount(_)) => drop(self.state.stations.remove(&mount.name)),
                other => other?,
            }
        }
        self.state.status = self.server.status().await?;
        Ok(())
    }

    /// Begins to broadcast a mount.
    fn mirror(&mut self, name: &str) {
        let path = name.trim_start_matches('/');
        let path = self.args.prefix.as_ref().map_or(path.to_owned(), |p| format!("{p}/{path}"));
        let told = Arc::new(Told::default());
        let task = match path.parse::<MediaPath>() {
            Ok(path) => {
                let (url, name) = (self.server.url(name), printable(name));
                let (peer, tracker, told) = (self.peer.clone(), self.tracker.clone(), told.clone());
                tokio::spawn(async move { mirror(&peer, &tracker, path, (&url, &name), &told).await })
            }
            Err(e) => {
                note(format!("iceshare: {} is not broadcast: {e}", printable(name)));
                *told.trouble() = Some(e.to_string());
                tokio::spawn(async {})
            }
        };
        self.mirrors.insert(name.to_owned(), Mirror { told, task: AbortOnDropHandle::new(task) });
    }

    /// Decides on the listeners of a mount.
    async fn guide(&mut self, mount: &Mount, knocks: &[IpAddr]) -> Result<(), AdminError> {
        let ours = |l: &Listener| l.agent == *source::AGENT;
        let listeners: Vec<_> =
            self.server.listeners(&mount.name).await?.into_iter().filter(|l| !ours(l)).collect();
        let told = self.mirrors.get(&mount.name).map(|m| m.told.clone());
        let media = told.as_ref().and_then(|t| t.media().clone());
        let mut addresses = guide::addresses(&listeners);
        addresses.extend(knocks.iter().filter(|ip| !listeners.iter().any(|l| l.ip == **ip)));
        addresses.truncate(iceshare::icet::limits::ITEMS);
        let swarm = match &media {
            Some(media) => media.guidance(addresses.clone(), WORD).await.map(|g| Swarm::new(&g, &addresses)),
            None => None,
        };
        let station = self.state.stations.entry(mount.name.clone()).or_default();
        station.link = media.as_ref().map(|m| m.url().to_string());
        station.url.clone_from(&mount.url);
        station.trouble = told.as_ref().and_then(|t| t.trouble().clone());
        station.limit = limit(&self.args.limit, &mount.name);
        let now = Now::from_origin(self.began.elapsed());
        station.decisions = station.guide.decide(now, station.limit, swarm.as_ref(), &listeners);
        station.swarm = swarm;
        if self.args.dry_run {
            return Ok(());
        }
        let away = station.decisions.iter().filter(|d| d.verdict == Verdict::Away).cloned();
        for d in away.collect::<Vec<_>>() {
            if self.server.send_away(&mount.name, d.listener.id).await? {
                note(format!(
                    "{} at {} ({}, {} s) {}",
                    d.listener.ip,
                    printable(&mount.name),
                    printable(&d.listener.agent),
                    d.listener.connected.as_secs(),
                    d.verdict.because()
                ));
                station.went(d);
            }
        }
        Ok(())
    }
}

/// The places of a mount: its own limit, else that of all.
fn limit(limits: &[(Option<String>, usize)], mount: &str) -> Option<usize> {
    let own = limits.iter().rfind(|(m, _)| m.as_deref() == Some(mount));
    own.or_else(|| limits.iter().rfind(|(m, _)| m.is_none())).map(|(_, n)| *n)
}

/// Broadcasts a mount, at this URL and by this name, for as long as the agent runs.
async fn mirror(peer: &Peer, tracker: &IcetUrl, path: MediaPath, (url, name): (&str, &str), told: &Told) {
    loop {
        if let Err(why) = broadcast(peer, tracker, &path, (url, name), told).await {
            let why = why.text().unwrap_or_default().to_owned();
            // Once is enough, until it is something else.
            if told.trouble().replace(why.clone()).as_ref() != Some(&why) {
                note(format!("iceshare: {name} is not broadcast: {why}; trying again"));
            }
        }
        sleep(AGAIN).await;
    }
}

async fn broadcast(
    peer: &Peer,
    tracker: &IcetUrl,
    path: &MediaPath,
    (url, name): (&str, &str),
    told: &Told,
) -> Outcome {
    let from: source::From = url.parse().map_err(|e: String| Failure::failed(e))?;
    let how = How { named: Some(name.to_owned()), ..How::default() };
    let source = Source::open(&from, how).await?;
    let options = BroadcastOptions::new(path.clone());
    let broadcast =
        peer.broadcast(tracker, options, &source.first).await.map_err(super::broadcast::failure)?;
    if told.trouble().take().is_some() {
        note(format!("{name} is broadcast"));
    }
    if told.media().replace(broadcast.media().clone()).is_none() {
        output::result(broadcast.media().url().to_string())?;
    }
    let anew = |media: &Media| {
        note(format!("{name}: {}", super::broadcast::ANEW));
        *told.media() = Some(media.clone());
    };
    broadcast.run(source.first, source.pages, anew).await.map_err(super::broadcast::failure)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_has_its_own_limit_or_that_of_all() {
        let limits = [(None, 10), (Some("/a".to_owned()), 3), (None, 20)];
        assert_eq!((limit(&limits, "/a"), limit(&limits, "/b")), (Some(3), Some(20)));
        assert_eq!(limit(&limits[1..2], "/b"), None);
    }
}
