//! Broadcasting: pages of a source into the journal, onto the shelf, and told to the tracker.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use icet::key::Hash;
use icet::media::{MediaError, Signed};
use icet::{IcetUrl, Manifest, MediaId, MediaPath, Now, PeerKey, limits};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::session::Order;
use super::{Media, OpenError, Peer};
use crate::live::{Broadcaster, DELAY, Earlier, SourceError};
use crate::ogg::{PageHeader, Timeline};
use crate::publish::{self, PublishError};
use crate::store::{MediaStore, StoreError, Window};

/// How often heads are told.
const HEAD: Duration = Duration::from_millis(1000);

/// What to broadcast as what.
#[derive(Debug, Clone)]
pub struct BroadcastOptions {
    /// Its name on the tracker.
    pub path: MediaPath,
    /// Title for people; none: taken from the source's tags, else empty.
    pub title: Option<String>,
    /// How long a page waits for the signature of its batch.
    pub delay: Duration,
    /// What is kept for those who come late.
    pub window: Window,
}

impl BroadcastOptions {
    /// The usual ones.
    #[must_use]
    pub fn new(path: MediaPath) -> BroadcastOptions {
        BroadcastOptions { path, title: None, delay: DELAY, window: Window::default() }
    }
}

/// Why a broadcast did not begin, or broke off.
#[derive(Debug, Error)]
pub enum BroadcastError {
    /// The tracker, or what it thinks of it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The journal.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The manifest.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// What the source sends cannot be broadcast.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Something could not be signed.
    #[error(transparent)]
    Sign(#[from] MediaError),
    /// The title is too long.
    #[error("the title has more than {} bytes", limits::TEXT)]
    Title,
    /// No randomness for a broadcast id.
    #[error("the system gave no random bytes")]
    Random,
}

/// A broadcast that is announced.
#[derive(Debug)]
pub struct Broadcast<'p> {
    peer: &'p Peer,
    tracker: IcetUrl,
    options: BroadcastOptions,
    media: Media,
    broadcaster: Broadcaster,
    resumed: bool,
    earlier: Earlier,
    /// The same as the tracker is told it.
    told: Arc<[Signed]>,
}

impl Peer {
    /// Announces a broadcast: the one whose journal is here, if it can go on, else a new one. `first`: the first pages of the source, all
    /// setup pages among them; they are only looked at.
    ///
    /// # Errors
    /// [`BroadcastError`].
    pub async fn broadcast(
        &self,
        tracker: &IcetUrl,
        options: BroadcastOptions,
        first: &[(PageHeader, Bytes)],
    ) -> Result<Broadcast<'_>, BroadcastError> {
        let identity = self.identity().clone();
        let id = MediaId::of(&identity.key(), &options.path);
        let manifest = options.manifest(self.key(), first)?;
        let (window, delay) = (options.window, options.delay);
        let begin = |old: Option<Arc<MediaStore>>| {
            let (store, identity, manifest) = (self.store().clone(), identity.clone(), manifest.clone());
            tokio::task::spawn_blocking(move || {
                if old.is_none()
                    && let Some(old) = store.resume_broadcast(&id, window)?
                {
                    let broadcaster = Broadcaster::resume(old.media.manifest(), identity, delay, &old.last);
                    return Ok((old.media, broadcaster, Some(Earlier::resume(old.heads))));
                }
                let manifest = publish::sign(&store, &identity, id, manifest)?;
                let broadcaster = Broadcaster::new(&manifest, identity, delay);
                let media = match old {
                    Some(old) => store.broadcast_anew(&old, manifest, window)?,
                    None => store.broadcast(manifest, window)?,
                };
                Ok::<_, BroadcastError>((media, broadcaster, None))
            })
        };
        let (store, mut broadcaster, mut resumed) = begin(None).await.map_err(|_| OpenError::Closed)??;
        let mut media = self.announce(tracker, store.clone()).await;
        // Something else was published there meanwhile, from another data folder: a new broadcast in place of that.
        if let Err(OpenError::Outdated(_)) = &media {
            self.outdated(tracker, store.manifest()).await?;
            let anew;
            (anew, broadcaster, resumed) = begin(Some(store)).await.map_err(|_| OpenError::Closed)??;
            media = self.announce(tracker, anew).await;
        }
        let (resumed, earlier) = (resumed.is_some(), resumed.unwrap_or_default());
        let told = earlier.signed().cloned().collect();
        Ok(Broadcast {
            peer: self,
            tracker: tracker.clone(),
            options,
            media: media?,
            broadcaster,
            resumed,
            earlier,
            told,
        })
    }
}

impl BroadcastOptions {
    /// A manifest of a new broadcast whose source begins with these pages.
    fn manifest(&self, key: PeerKey, first: &[(PageHeader, Bytes)]) -> Result<Manifest, BroadcastError> {
        let mut timeline = Timeline::new();
        for (header, bytes) in first {
            if timeline.pages() == 0 && !header.bos {
                return Err(SourceError::NoBeginning.into());
            }
            timeline.page(header, bytes);
        }
        if self.title.as_ref().is_some_and(|t| t.len() > limits::TEXT) {
            return Err(BroadcastError::Title);
        }
        let tags: Vec<_> = timeline.comments().tags().iter().take(limits::TAGS).cloned().collect();
        let tag = || tags.iter().find(|(name, _)| name == "TITLE").map(|(_, value)| value.clone());
        let mut broadcast = [0; 32];
        getrandom::fill(&mut broadcast).map_err(|_| BroadcastError::Random)?;
        Ok(Manifest {
            streams: publish::streams(&timeline),
            title: self.title.clone().or_else(tag).unwrap_or_default(),
            tags,
            ..Manifest::live(self.path.clone(), key, Hash(broadcast))
        })
    }
}

impl Broadcast<'_> {
    /// The media.
    #[must_use]
    pub fn media(&self) -> &Media {
        &self.media
    }

    /// Whether an earlier broadcast goes on.
    #[must_use]
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Takes the `first` pages of the source, and what it sends behind them until the sender is dropped. Pages are in the journal before
    /// anybody sees them.
    ///
    /// Where another program with our key broadcast on the same path meanwhile, this one cannot go on: it begins another broadcast there with
    /// what the source sends next, and tells `anew` its media.
    ///
    /// # Errors
    /// [`BroadcastError`]: the disk, a source that cannot be broadcast, or the media failed at the tracker.
    pub async fn run(
        mut self,
        first: Vec<(PageHeader, Bytes)>,
        mut source: mpsc::Receiver<(PageHeader, Bytes)>,
        mut anew: impl FnMut(&Media),
    ) -> Result<Media, BroadcastError> {
        let origin = Instant::now();
        let now = || Now::from_origin(origin.elapsed());
        let mut heads = interval(HEAD);
        heads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for (header, bytes) in first {
            self.broadcaster.page(now(), &header, bytes)?;
        }
        while !self.broadcaster.has_ended() {
            let due = self.broadcaster.poll_timeout();
            let due = due.map(|t| tokio::time::Instant::from_std(origin) + Duration::from_micros(t.0));
            tokio::select! {
                piece = source.recv() => match piece {
                    Some((header, bytes)) => self.broadcaster.page(now(), &header, bytes)?,
                    None => self.broadcaster.end(),
                },
                () = async { sleep_until(due.unwrap_or_else(tokio::time::Instant::now)).await }, if due.is_some() => {}
                _ = heads.tick() => self.tell_head(now()).await?,
            }
            let mut first = self.media.store().next_record().is_none();
            while let Some(signed) = self.broadcaster.poll(now())? {
                let store = self.media.store().clone();
                let appended = tokio::task::spawn_blocking(move || store.append(&signed)).await;
                appended.map_err(|_| OpenError::Closed)??;
                // Who waits for the very beginning need not wait for a second.
                if std::mem::take(&mut first) {
                    self.tell_head(now()).await?;
                }
            }
            match self.media.failure() {
                Some(OpenError::Outdated(_)) => {
                    self.begin_anew(now()).await?;
                    anew(&self.media);
                }
                Some(e) => return Err(e.into()),
                None => {}
            }
            if self.broadcaster.is_over() {
                break;
            }
        }
        self.tell_head(now()).await?;
        Ok(self.media)
    }

    /// Begins another broadcast in place of one that the tracker takes no more.
    async fn begin_anew(&mut self, now: Now) -> Result<(), BroadcastError> {
        let old = self.media.store().clone();
        self.peer.outdated(&self.tracker, old.manifest()).await?;
        let (store, identity) = (self.peer.store().clone(), self.peer.identity().clone());
        let (id, window) = (self.media.id(), self.options.window);
        let manifest = self.options.manifest(identity.key(), self.broadcaster.setup())?;
        let begun = tokio::task::spawn_blocking(move || {
            let manifest = publish::sign(&store, &identity, id, manifest)?;
            Ok::<_, BroadcastError>(store.broadcast_anew(&old, manifest, window)?)
        });
        let begun = begun.await.map_err(|_| OpenError::Closed)??;
        self.broadcaster = self.broadcaster.anew(begun.manifest(), now)?;
        (self.earlier, self.told, self.resumed) = (Earlier::default(), Arc::default(), false);
        self.media = self.peer.announce(&self.tracker, begun).await?;
        Ok(())
    }

    async fn tell_head(&mut self, now: Now) -> Result<(), BroadcastError> {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        let Some(head) = self.broadcaster.head(now, wall)? else { return Ok(()) };
        let order = Order::Engine(crate::engine::io::Command::Head {
            handle: self.media.shared.handle,
            head: head.signed().clone(),
            earlier: self.told.clone(),
        });
        let _ = self.media.shared.orders.send(order);
        let store = self.media.store().clone();
        if self.earlier.note(&head, store.live_base().unwrap_or(0)) {
            self.told = self.earlier.signed().cloned().collect();
            let told = self.told.clone();
            let kept = tokio::task::spawn_blocking(move || store.keep_heads(told.iter())).await;
            kept.map_err(|_| OpenError::Closed)??;
        }
        Ok(())
    }
}
