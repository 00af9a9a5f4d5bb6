//! Which tickets are good, and what is left of each: sans-IO, time as an argument.

use std::collections::HashMap;
use std::time::Duration;

use icet::ticket::TicketBody;
use icet::{Now, PeerKey, ProtocolName, Ticket, TicketKey};

use super::Denied;

/// How long tickets that expire after their tracker was lost are still honoured.
const LOST_GRACE: Duration = Duration::from_secs(600);
/// How far clocks may be apart, in milliseconds.
const SKEW: u64 = 5_000;
/// A ticket may have expired so long before its tracker was lost: a session notices its end late. In milliseconds.
const NOTICED_LATE: u64 = 60_000;
/// Bytes of proofs that one assignment may have at least, and as a part of its pages' bytes.
const PROOFS: (u64, u64) = (1 << 20, 16);
/// Assignments of one tracker that are remembered at most; beyond, those that expire first are forgotten (and refused: see `floor`).
const REMEMBERED: usize = 65_536;

#[derive(Debug)]
struct Tracker {
    epoch: u64,
    key: TicketKey,
    /// Milliseconds that tracker time is ahead of our wall clock.
    offset: i64,
    lost: Option<Now>,
    /// A reserve's ticket came while it was not.
    asked: bool,
    /// By epoch, assignment and protocol. Apart for each tracker: none can push out what another one's receivers have used.
    used: HashMap<Key, Used>,
    /// Those in use.
    busy: usize,
    /// Tickets that expire at this time or before may have been forgotten, and are refused.
    floor: Option<u64>,
}

#[derive(Debug)]
struct Used {
    left: u64,
    /// Bytes that may be sent once more, since the way to the receiver lost them.
    again_left: u64,
    proofs_left: u64,
    busy: bool,
    expiry: u64,
}

/// What of a ticket bytes are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purse {
    /// Pages, sent for the first time.
    Pages,
    /// What was lost on the way and is sent once more.
    Again,
    /// Proofs.
    Proofs,
}

/// Epoch, assignment, and protocol: who goes over to another one, since this one fell silent, may find the old request still open.
type Key = (u64, u64, ProtocolName);

/// An assignment over one protocol at this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) tracker: PeerKey,
    key: Key,
}

impl Id {
    /// Number of the assignment.
    pub(super) fn assignment(&self) -> u64 {
        self.key.1
    }
}

/// All trackers' keys, and the assignments seen.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    trackers: HashMap<PeerKey, Tracker>,
}

/// A ticket as what it says, before anything of it was checked.
pub(super) fn read(ticket: &Ticket) -> Option<TicketBody> {
    (ticket.body.len() <= icet::limits::TICKET).then(|| icet::frame::decode(&ticket.body).ok()).flatten()
}

fn key_of(body: &TicketBody) -> Key {
    (body.epoch, body.assignment, body.protocol.clone())
}

impl Tickets {
    pub(super) fn set_key(&mut self, tracker: PeerKey, epoch: u64, key: TicketKey, offset: i64) {
        match self.trackers.get_mut(&tracker) {
            Some(t) => (t.epoch, t.key, t.offset, t.lost) = (epoch, key, offset, None),
            None => {
                let used = HashMap::new();
                self.trackers.insert(
                    tracker,
                    Tracker { epoch, key, offset, lost: None, asked: false, used, busy: 0, floor: None },
                );
            }
        }
    }

    pub(super) fn lost(&mut self, tracker: &PeerKey, now: Now) {
        if let Some(t) = self.trackers.get_mut(tracker) {
            t.lost.get_or_insert(now);
        }
    }

    pub(super) fn speaks(&mut self, tracker: &PeerKey) {
        if let Some(t) = self.trackers.get_mut(tracker) {
            t.lost = None;
        }
    }

    /// Whether tickets of a reserve are good: the tracker was lost. If it was not, it is noted that somebody thinks so.
    pub(super) fn may_use_reserve(&mut self, tracker: &PeerKey) -> bool {
        let Some(t) = self.trackers.get_mut(tracker) else { return false };
        t.asked = t.lost.is_none();
        t.lost.is_some()
    }

    /// Whether somebody thought so since this was last asked.
    pub(super) fn was_asked(&mut self, tracker: &PeerKey) -> bool {
        self.trackers.get_mut(tracker).is_some_and(|t| std::mem::take(&mut t.asked))
    }

    /// What a ticket says, if it is genuine and not expired. `wall`: our wall clock in milliseconds.
    pub(super) fn check(
        &self,
        ticket: &Ticket,
        host: &PeerKey,
        now: Now,
        wall: u64,
    ) -> Result<TicketBody, Denied> {
        let claimed = read(ticket).ok_or(Denied::Forged)?;
        let known = self.trackers.get(&claimed.tracker).ok_or(Denied::UnknownTracker)?;
        let body = known.key.check(ticket).map_err(|_| Denied::Forged)?;
        if body.host != *host {
            return Err(Denied::OtherHost);
        }
        // Assignments of the life before go on; those of still earlier ones are history.
        if body.epoch.saturating_add(1) < known.epoch {
            return Err(Denied::OldEpoch);
        }
        let time = wall.saturating_add_signed(known.offset);
        let fresh = body.expiry.saturating_add(SKEW) >= time;
        let excused = known.lost.is_some_and(|lost| {
            let silent = now.since(lost);
            let lost_at = time.saturating_sub(u64::try_from(silent.as_millis()).unwrap_or(u64::MAX));
            silent <= LOST_GRACE && body.expiry.saturating_add(NOTICED_LATE) >= lost_at
        });
        let forgotten =
            known.floor.is_some_and(|floor| body.expiry <= floor) && !known.used.contains_key(&key_of(&body));
        if (fresh || excused) && !forgotten { Ok(body) } else { Err(Denied::Expired) }
    }

    /// Begins a request for pages under a checked ticket; `bytes` is what its pages have, `asked` what those have that are
    /// asked for: where less is left, nothing begins that would have to be broken off.
    pub(super) fn begin(&mut self, body: &TicketBody, bytes: u64, asked: u64) -> Result<Id, Denied> {
        let (id, used) = self.used(body, bytes)?;
        if used.busy {
            return Err(Denied::InUse);
        }
        if used.left < asked.max(1) {
            return Err(Denied::Spent);
        }
        used.busy = true;
        if let Some(tracker) = self.trackers.get_mut(&id.tracker) {
            tracker.busy += 1;
        }
        Ok(id)
    }

    /// Begins a request for proofs. Any number of them may run beside the one for pages.
    pub(super) fn begin_proofs(&mut self, body: &TicketBody, bytes: u64) -> Result<Id, Denied> {
        let (id, used) = self.used(body, bytes)?;
        if used.proofs_left == 0 { Err(Denied::Spent) } else { Ok(id) }
    }

    fn used(&mut self, body: &TicketBody, bytes: u64) -> Result<(Id, &mut Used), Denied> {
        let tracker = self.trackers.get_mut(&body.tracker).ok_or(Denied::UnknownTracker)?;
        let key = key_of(body);
        if tracker.used.len() >= REMEMBERED && !tracker.used.contains_key(&key) {
            // What is in use is never forgotten; so many at once are too many.
            if tracker.busy > REMEMBERED / 2 {
                return Err(Denied::Busy);
            }
            tracker.forget_earliest();
        }
        let used = tracker.used.entry(key.clone()).or_insert_with(|| {
            let left = bytes.saturating_add(bytes / 4);
            let proofs_left = PROOFS.0.max(bytes / PROOFS.1);
            Used { left, again_left: bytes, proofs_left, busy: false, expiry: body.expiry }
        });
        Ok((Id { tracker: body.tracker, key }, used))
    }

    fn get(&mut self, id: &Id) -> Option<&mut Used> {
        self.trackers.get_mut(&id.tracker)?.used.get_mut(&id.key)
    }

    /// Takes from what is left; refuses once nothing is.
    pub(super) fn spend(&mut self, id: &Id, bytes: u64, purse: Purse) -> Result<(), Denied> {
        let used = self.get(id).ok_or(Denied::Expired)?;
        let left = match purse {
            Purse::Pages => &mut used.left,
            Purse::Again => &mut used.again_left,
            Purse::Proofs => &mut used.proofs_left,
        };
        if *left < bytes {
            return Err(Denied::Spent);
        }
        *left -= bytes;
        Ok(())
    }

    /// Ends a request for pages.
    pub(super) fn end(&mut self, id: &Id) {
        if let Some(used) = self.get(id)
            && std::mem::take(&mut used.busy)
            && let Some(tracker) = self.trackers.get_mut(&id.tracker)
        {
            tracker.busy -= 1;
        }
    }
}

impl Tracker {
    /// Makes room for a quarter at least, if no more than half are in use.
    fn forget_earliest(&mut self) {
        let mut expiries: Vec<u64> = self.used.values().filter(|u| !u.busy).map(|u| u.expiry).collect();
        let middle = expiries.len() / 2;
        if expiries.is_empty() {
            return;
        }
        let (_, median, _) = expiries.select_nth_unstable(middle);
        let floor = self.floor.map_or(*median, |f| f.max(*median));
        self.floor = Some(floor);
        self.used.retain(|_, u| u.busy || u.expiry > floor);
    }
}
