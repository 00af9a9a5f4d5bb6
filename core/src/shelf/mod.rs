//! What hosts serve from, and who may have how much of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use icet::message::Need;
use icet::ticket::TicketBody;
use icet::{MediaId, MediaPath, Now, PeerKey, ProtocolName, Ticket, TicketKey};
use thiserror::Error;

use crate::protocol::{ErrorKind, What};
use crate::store::MediaStore;

mod giving;
mod limiter;
mod scope;
#[cfg(test)]
mod tests;
mod tickets;
mod upload;

use giving::Given;
pub use giving::{Giving, Share};
use limiter::{Bucket, Class, Flow};
use scope::{bytes_asked, bytes_of, within};
use tickets::{Purse, Tickets};
use upload::Upload;

/// Time, for the shelf.
pub trait Clock: std::fmt::Debug + Send + Sync + 'static {
    /// Monotonic time.
    fn now(&self) -> Now;
    /// Wall clock, milliseconds since 1970.
    fn wall_ms(&self) -> u64;
}

/// What requests without a ticket get.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Anonymous {
    /// Nothing.
    Deny,
    /// At most this part (0 to 1) of the upload rate, after all ticketed requests. Without an upload rate: as `Allow`; if it comes to
    /// less than a byte a second: as `Deny`.
    Share(f64),
    /// Whatever ticketed requests leave.
    Allow,
}

/// Settings of a shelf.
#[derive(Debug, Clone)]
pub struct ShelfConfig {
    /// This peer: tickets must be for it.
    pub host: PeerKey,
    /// Upload over all protocols together, in bytes a second; none: unlimited.
    pub up: Option<u64>,
    /// What requests without a ticket get.
    pub anonymous: Anonymous,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// A request, as a transport understood it.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The media, from [`Shelf::find`].
    pub media: &'a MediaStore,
    /// Over which protocol.
    pub protocol: &'a ProtocolName,
    /// Which part.
    pub what: &'a What,
    /// The ticket, if one was brought.
    pub ticket: Option<&'a Ticket>,
    /// The requester's key, if the transport proved it.
    pub proved: Option<PeerKey>,
}

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Denied {
    /// Without a ticket nothing is served here.
    #[error("a ticket is needed: ask the tracker for an assignment")]
    NoTicket,
    /// Malformed, or not made by the tracker for this host.
    #[error("the ticket is forged, or was made for another host")]
    Forged,
    /// From a tracker that this host has no session with.
    #[error("the ticket is from a tracker that this host is not in a session with")]
    UnknownTracker,
    /// From before the tracker's restart.
    #[error("the ticket is from an earlier life of the tracker")]
    OldEpoch,
    /// Expired.
    #[error("the ticket has expired")]
    Expired,
    /// For another host.
    #[error("the ticket is for another host")]
    OtherHost,
    /// For another media, or another version of it.
    #[error("the ticket is for another media or version")]
    OtherMedia,
    /// For another protocol.
    #[error("the ticket is for another protocol")]
    OtherProtocol,
    /// For another receiver than the connection's key.
    #[error("the ticket is for another receiver")]
    OtherReceiver,
    /// The request reaches beyond the ticket's pages.
    #[error("the request reaches beyond the ticket's pages")]
    OtherPages,
    /// The ticket is being used by another request right now.
    #[error("the ticket is in use by another request")]
    InUse,
    /// The ticket's bytes are used up, or fewer are left than were asked for.
    #[error("the ticket is used up, or fewer bytes are left of it than were asked for")]
    Spent,
    /// A ticket that is good only while the tracker is silent, and to this host it speaks.
    #[error("the ticket is good only while the tracker is silent, and it is not")]
    TrackerSpeaks,
    /// This host gives nothing at present, as its user wants.
    #[error("this host gives nothing at present")]
    Rests,
    /// This host gives nothing of this media, as its user wants.
    #[error("this host gives nothing of this media")]
    Withheld,
    /// This host is too busy.
    #[error("this host is busy")]
    Busy,
    /// The media was taken off the shelf, or its file changed.
    #[error("the media is no longer served here")]
    Withdrawn,
}

impl Denied {
    /// What a transport tells the requester.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            Denied::InUse | Denied::Busy | Denied::Rests | Denied::TrackerSpeaks => ErrorKind::Busy,
            Denied::Withdrawn => ErrorKind::NoMedia,
            _ => ErrorKind::Denied,
        }
    }
}

/// Bytes served under one assignment (or without ticket) since they were last asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The tracker of the ticket; none without ticket.
    pub tracker: Option<PeerKey>,
    /// The assignment; 0 without ticket.
    pub assignment: u64,
    /// The media.
    pub media: MediaId,
    /// Bytes.
    pub bytes: u64,
}

/// What was served since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServedTotals {
    /// All bytes.
    pub bytes: u64,
    /// Bytes without ticket.
    pub anonymous: u64,
    /// Bytes by protocol.
    pub by_protocol: BTreeMap<ProtocolName, u64>,
    /// Bytes by receiver (of a ticket), at most the 4096 that came first.
    pub by_receiver: BTreeMap<PeerKey, u64>,
    /// Requests refused.
    pub denied: u64,
}

/// What hosts serve from, and who may have how much of it. One for all protocols of a peer.
#[derive(Debug)]
pub struct Shelf {
    config: ShelfConfig,
    media: Mutex<HashMap<MediaId, Entry>>,
    tickets: Mutex<Tickets>,
    upload: Arc<Upload>,
    given: Given,
    served: Mutex<Account>,
}

#[derive(Debug)]
struct Entry {
    media: Arc<MediaStore>,
    gone: Arc<AtomicBool>,
    /// Grows with each put: the last one at a path is found.
    order: u64,
}

#[derive(Debug, Default)]
struct Account {
    fresh: HashMap<(Option<PeerKey>, u64, MediaId), u64>,
    totals: ServedTotals,
}

/// A standing order lasts a day at most; and its rate, in bytes a second, if its ticket says none.
const STANDING_MS: u64 = 24 * 3600 * 1000;
const STANDING_RATE: u64 = 1 << 20;
/// Receivers that are counted one by one.
const RECEIVERS: usize = 4096;

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    /// An empty shelf.
    #[must_use]
    pub fn new(mut config: ShelfConfig) -> Arc<Shelf> {
        let share = match config.anonymous {
            Anonymous::Share(part) => Some(part),
            Anonymous::Allow | Anonymous::Deny => None,
        };
        // Nothing would come of a request, however long it waits: it is better told.
        if share.is_some_and(|part| part <= 0.0 || limiter::rate_of(part, config.up) == Some(0)) {
            config.anonymous = Anonymous::Deny;
        }
        let upload = Upload::new(config.up, share, config.clock.clone());
        let (media, tickets, served) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Shelf { config, media, tickets, upload, given: Given::default(), served })
    }

    /// What is given from now on. When it rests, requests without a ticket end at once, others within 5 seconds; rates and media
    /// hold for new ones.
    pub fn give(&self, giving: Giving) {
        self.given.set(giving, self.config.clock.now());
    }

    /// What is given.
    #[must_use]
    pub fn giving(&self) -> Giving {
        self.given.get()
    }

    /// How many bytes may still be given, to all together; then requests end. None: no ceiling. At most one write more is given.
    pub fn allow(&self, left: Option<u64>) {
        self.given.set_left(left);
    }

    /// Puts a media on the shelf; replaces another version of it.
    pub fn put(&self, media: Arc<MediaStore>) {
        let mut all = lock(&self.media);
        let order = all.values().map(|e| e.order + 1).max().unwrap_or(0);
        let id = media.id();
        if let Some(old) = all.get_mut(&id)
            && Arc::ptr_eq(&old.media, &media)
        {
            old.order = order;
            return;
        }
        if let Some(old) = all.insert(id, Entry { media, gone: Arc::default(), order }) {
            old.gone.store(true, Ordering::Relaxed);
        }
    }

    /// Takes a media off; requests under way end at their next [`Admission::permit`].
    pub fn remove(&self, id: &MediaId) {
        if let Some(old) = lock(&self.media).remove(id) {
            old.gone.store(true, Ordering::Relaxed);
        }
    }

    /// The media at `path`, the one put last if several publishers use that path. Not live media, which has no bytes or
    /// times to be asked for: see [`Shelf::find_id`].
    #[must_use]
    pub fn find(&self, path: &MediaPath) -> Option<Arc<MediaStore>> {
        self.find_for(path, None)
    }

    /// The media at `path` that `ticket` names, where several publishers use that path.
    #[must_use]
    pub fn find_for(&self, path: &MediaPath, ticket: Option<&Ticket>) -> Option<Arc<MediaStore>> {
        let named = ticket.and_then(tickets::read).map(|body| body.media);
        let all = lock(&self.media);
        if let Some(entry) = named.and_then(|id| all.get(&id)).filter(|e| e.media.path() == path) {
            return Some(entry.media.clone());
        }
        let here = all.values().filter(|e| e.media.path() == path);
        here.max_by_key(|e| e.order).map(|e| e.media.clone())
    }

    /// The media with this id.
    #[must_use]
    pub fn find_id(&self, id: &MediaId) -> Option<Arc<MediaStore>> {
        lock(&self.media).get(id).map(|e| e.media.clone())
    }

    /// All media on the shelf.
    #[must_use]
    pub fn media(&self) -> Vec<Arc<MediaStore>> {
        lock(&self.media).values().map(|e| e.media.clone()).collect()
    }

    /// Whether a request is served. To be asked before anything of it is sent.
    ///
    /// # Errors
    /// [`Denied`] says why not.
    pub fn admit(self: &Arc<Shelf>, ask: Ask<'_>) -> Result<Admission, Denied> {
        let admission = self.decide(ask);
        if admission.is_err() {
            lock(&self.served).totals.denied += 1;
        }
        admission
    }

    fn decide(self: &Arc<Shelf>, ask: Ask<'_>) -> Result<Admission, Denied> {
        let media = ask.media.id();
        let gone = lock(&self.media).get(&media).map(|e| e.gone.clone()).ok_or(Denied::Withdrawn)?;
        if ask.media.is_stale() {
            return Err(Denied::Withdrawn);
        }
        let shared =
            self.given.admit(self.config.clock.now(), media, ask.media.path(), ask.ticket.is_some())?;
        let proofs = matches!(ask.what, What::Proofs { .. });
        let ticket = match ask.ticket {
            None if self.config.anonymous == Anonymous::Deny => return Err(Denied::NoTicket),
            None => None,
            Some(ticket) => Some(self.use_ticket(ticket, &ask, proofs)?),
        };
        let rate = ticket.as_ref().and_then(|(_, body)| body.rate);
        Ok(Admission {
            shelf: self.clone(),
            media,
            protocol: ask.protocol.clone(),
            gone,
            proofs,
            rate: rate.map(|r| Mutex::new(Bucket::new(r, self.config.clock.now()))),
            shared,
            flow: self.upload.flow(),
            class: match ticket.as_ref().map(|(_, body)| body.need) {
                Some(Need::Urgent | Need::Steady) => Class::Urgent,
                Some(Need::Bulk | Need::Spare | Need::Reserve) => Class::Ticketed,
                None => Class::Anonymous,
            },
            ticket: ticket.map(|(id, body)| (id, body.receiver)),
        })
    }

    fn use_ticket(
        &self,
        ticket: &Ticket,
        ask: &Ask<'_>,
        proofs: bool,
    ) -> Result<(tickets::Id, TicketBody), Denied> {
        let clock = &self.config.clock;
        let body = lock(&self.tickets).check(ticket, &self.config.host, clock.now(), clock.wall_ms())?;
        if body.need == Need::Reserve && !lock(&self.tickets).may_use_reserve(&body.tracker) {
            return Err(Denied::TrackerSpeaks);
        }
        if body.media != ask.media.id() || body.version != ask.media.manifest().version {
            return Err(Denied::OtherMedia);
        }
        if body.protocol != *ask.protocol {
            return Err(Denied::OtherProtocol);
        }
        if ask.proved.is_some_and(|key| key != body.receiver) {
            return Err(Denied::OtherReceiver);
        }
        if !within(ask.media, ask.what, &body.pages) {
            return Err(Denied::OtherPages);
        }
        // Looked up without the lock: it may read from disk.
        let (mut bytes, asked) = (bytes_of(ask.media, &body.pages), bytes_asked(ask.media, ask.what));
        if ask.media.is_live() && body.pages.last.is_none() {
            // A standing order: its rate, for as long as it is good.
            let life = body.expiry.saturating_sub(clock.wall_ms()).min(STANDING_MS);
            bytes = (u128::from(body.rate.unwrap_or(STANDING_RATE)) * u128::from(life) / 1000)
                .try_into()
                .unwrap_or(u64::MAX / 4);
        }
        let mut tickets = lock(&self.tickets);
        let id =
            if proofs { tickets.begin_proofs(&body, bytes)? } else { tickets.begin(&body, bytes, asked)? };
        Ok((id, body))
    }

    /// The key of the tickets that `tracker` hands out for this host, from the welcome of a session, and how far tracker time
    /// is ahead of the wall clock in milliseconds. Ends [`Shelf::tracker_lost`].
    pub fn set_ticket_key(&self, tracker: PeerKey, epoch: u64, key: TicketKey, tracker_time_offset: i64) {
        lock(&self.tickets).set_key(tracker, epoch, key, tracker_time_offset);
    }

    /// The session with `tracker` broke: for 10 minutes, tickets that were valid then stay valid.
    pub fn tracker_lost(&self, tracker: &PeerKey) {
        lock(&self.tickets).lost(tracker, self.config.clock.now());
    }

    /// The session with `tracker` stands after all (see [`Shelf::tracker_lost`]).
    pub fn tracker_speaks(&self, tracker: &PeerKey) {
        lock(&self.tickets).speaks(tracker);
    }

    /// Whether a request came, since this was last asked, that is served only while `tracker` is silent: then it is time to
    /// ask it something.
    #[must_use]
    pub fn was_asked_in_reserve(&self, tracker: &PeerKey) -> bool {
        lock(&self.tickets).was_asked(tracker)
    }

    /// Bytes that a connection with this shortest round trip may hold back and have on its way together, so that the upload limit is used and holds: whatever is more leaves
    /// all at once when a line comes back that was cut.
    #[must_use]
    pub fn in_hand(&self, trip: Duration) -> u64 {
        let Some(up) = self.config.up else { return u64::MAX };
        let two = trip.as_micros().saturating_mul(2).saturating_mul(up.into()) / 1_000_000;
        u64::try_from(two).unwrap_or(u64::MAX).saturating_add(self.upload.quantum() as u64)
    }

    /// A carrier sent so many bytes once more of itself: the upload limit counts them too.
    pub fn sent_again(&self, bytes: u64) {
        self.upload.owe(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// What was served since the last call.
    #[must_use]
    pub fn drain_served(&self) -> Vec<Served> {
        let fresh = std::mem::take(&mut lock(&self.served).fresh);
        let one = |((tracker, assignment, media), bytes)| Served { tracker, assignment, media, bytes };
        fresh.into_iter().map(one).collect()
    }

    /// What was served since the start.
    #[must_use]
    pub fn served_totals(&self) -> ServedTotals {
        lock(&self.served).totals.clone()
    }

    fn account(&self, admission: &Admission, bytes: u64) {
        let mut account = lock(&self.served);
        let key = match &admission.ticket {
            Some((id, _)) => (Some(id.tracker), id.assignment(), admission.media),
            None => (None, 0, admission.media),
        };
        *account.fresh.entry(key).or_default() += bytes;
        let totals = &mut account.totals;
        totals.bytes += bytes;
        *totals.by_protocol.entry(admission.protocol.clone()).or_default() += bytes;
        match &admission.ticket {
            None => totals.anonymous += bytes,
            Some((_, receiver)) => {
                if totals.by_receiver.len() < RECEIVERS || totals.by_receiver.contains_key(receiver) {
                    *totals.by_receiver.entry(*receiver).or_default() += bytes;
                }
            }
        }
    }
}

/// A request that is served. Dropping it ends the request.
#[derive(Debug)]
pub struct Admission {
    shelf: Arc<Shelf>,
    media: MediaId,
    protocol: ProtocolName,
    gone: Arc<AtomicBool>,
    proofs: bool,
    rate: Option<Mutex<Bucket>>,
    /// The rate of all requests for its media.
    shared: Option<Arc<Mutex<Bucket>>>,
    flow: Flow,
    class: Class,
    ticket: Option<(tickets::Id, PeerKey)>,
}

impl Admission {
    /// Waits until `bytes` may be written, and counts them as served.
    ///
    /// # Errors
    /// [`Denied::Spent`] once the ticket's bytes are used up, [`Denied::Withdrawn`] if the media is no longer served,
    /// [`Denied::Rests`] if nothing is given any more.
    pub async fn permit(&self, bytes: usize) -> Result<(), Denied> {
        self.permit_from(Purse::Pages, bytes).await
    }

    /// The same for bytes that are sent once more, since they were lost on the way: a ticket buys as many of them as its pages
    /// have, apart.
    ///
    /// # Errors
    /// As [`Admission::permit`].
    pub async fn permit_again(&self, bytes: usize) -> Result<(), Denied> {
        self.permit_from(Purse::Again, bytes).await
    }

    async fn permit_from(&self, purse: Purse, bytes: usize) -> Result<(), Denied> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Denied::Withdrawn);
        }
        if let Some((id, _)) = &self.ticket {
            let purse = if self.proofs { Purse::Proofs } else { purse };
            lock(&self.shelf.tickets).spend(id, bytes as u64, purse)?;
        }
        self.turn(bytes).await;
        if self.gone.load(Ordering::Relaxed) {
            return Err(Denied::Withdrawn);
        }
        self.shelf.given.spend(self.shelf.config.clock.now(), bytes as u64, self.ticket.is_some())?;
        self.shelf.account(self, bytes as u64);
        Ok(())
    }

    /// Waits until the ticket's own rate and that of its media allow it, then for its turn among all requests.
    async fn turn(&self, bytes: usize) {
        let now = self.shelf.config.clock.now();
        let take = |bucket: &Mutex<Bucket>| {
            let mut bucket = lock(bucket);
            let after = bucket.ready(now);
            bucket.take(now, bytes);
            after
        };
        let after = self.rate.iter().chain(self.shared.as_deref()).map(take).max().unwrap_or(now);
        if after > now {
            tokio::time::sleep(after.since(now)).await;
        }
        self.shelf.upload.turn(self.flow, self.class, bytes).await;
    }

    /// Bytes that are worth asking for at once: what leaves together had to wait together.
    #[must_use]
    pub fn quantum(&self) -> usize {
        let buckets = self.rate.iter().chain(self.shared.as_deref());
        let own = buckets.map(|bucket| lock(bucket).quantum()).min().unwrap_or(usize::MAX);
        own.min(self.shelf.upload.quantum())
    }

    /// Whether the request came with a ticket.
    #[must_use]
    pub fn is_ticketed(&self) -> bool {
        self.ticket.is_some()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shelf.upload.end(self.flow);
        if let Some((id, _)) = &self.ticket
            && !self.proofs
        {
            lock(&self.shelf.tickets).end(id);
        }
    }
}
