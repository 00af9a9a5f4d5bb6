//! Which tickets are good, and what is left of each: sans-IO, time as an argument.

use std::collections::HashMap;
use std::time::Duration;

use icet::ticket::TicketBody;
use icet::{Now, PeerKey, Ticket, TicketKey};

use super::Denied;

/// How long tickets that expire after their tracker was lost are still honoured.
const LOST_GRACE: Duration = Duration::from_secs(600);
/// How far clocks may be apart, in milliseconds.
const SKEW: u64 = 5_000;
/// Bytes of proofs that one assignment may have.
const PROOFS: u64 = 1 << 20;
/// Assignments that are remembered at most; beyond, the ones that expire first are forgotten (and refused: see `floor`).
const REMEMBERED: usize = 65_536;

#[derive(Debug)]
struct TrackerKey {
    epoch: u64,
    key: TicketKey,
    /// Milliseconds that tracker time is ahead of our wall clock.
    offset: i64,
    lost: Option<Now>,
}

#[derive(Debug)]
struct Used {
    left: u64,
    proofs_left: u64,
    busy: bool,
    expiry: u64,
}

/// An assignment at this host.
pub(super) type Id = (PeerKey, u64, u64);

/// All trackers' keys, and the assignments seen.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    trackers: HashMap<PeerKey, TrackerKey>,
    used: HashMap<Id, Used>,
    /// Tickets that expire before this (their tracker's time) may have been forgotten, and are refused.
    floor: u64,
}

/// A ticket as what it says, before anything of it was checked.
pub(super) fn read(ticket: &Ticket) -> Option<TicketBody> {
    (ticket.body.len() <= icet::limits::TICKET).then(|| icet::frame::decode(&ticket.body).ok()).flatten()
}

impl Tickets {
    pub(super) fn set_key(&mut self, tracker: PeerKey, epoch: u64, key: TicketKey, offset: i64) {
        self.trackers.insert(tracker, TrackerKey { epoch, key, offset, lost: None });
    }

    pub(super) fn lost(&mut self, tracker: &PeerKey, now: Now) {
        if let Some(t) = self.trackers.get_mut(tracker) {
            t.lost.get_or_insert(now);
        }
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
            silent <= LOST_GRACE && body.expiry.saturating_add(60_000) >= lost_at
        });
        if (fresh || excused) && body.expiry >= self.floor { Ok(body) } else { Err(Denied::Expired) }
    }

    /// Begins a request for pages under a checked ticket; `bytes` is what its pages have.
    pub(super) fn begin(&mut self, body: &TicketBody, bytes: u64) -> Result<Id, Denied> {
        let (id, used) = self.used(body, bytes);
        if used.busy {
            return Err(Denied::InUse);
        }
        if used.left == 0 {
            return Err(Denied::Spent);
        }
        used.busy = true;
        Ok(id)
    }

    /// Begins a request for proofs.
    pub(super) fn begin_proofs(&mut self, body: &TicketBody, bytes: u64) -> Result<Id, Denied> {
        let (id, used) = self.used(body, bytes);
        if used.proofs_left == 0 { Err(Denied::Spent) } else { Ok(id) }
    }

    fn used(&mut self, body: &TicketBody, bytes: u64) -> (Id, &mut Used) {
        let id = (body.tracker, body.epoch, body.assignment);
        if self.used.len() >= REMEMBERED && !self.used.contains_key(&id) {
            self.forget_earliest();
        }
        let used = self.used.entry(id).or_insert(Used {
            left: bytes.saturating_add(bytes / 4),
            proofs_left: PROOFS,
            busy: false,
            expiry: body.expiry,
        });
        (id, used)
    }

    fn forget_earliest(&mut self) {
        let mut expiries: Vec<u64> = self.used.values().map(|u| u.expiry).collect();
        let (_, median, _) = expiries.select_nth_unstable(REMEMBERED / 2);
        self.floor = self.floor.max(*median);
        let floor = self.floor;
        self.used.retain(|_, u| u.busy || u.expiry >= floor);
    }

    /// Takes from what is left; refuses once nothing is.
    pub(super) fn spend(&mut self, id: &Id, bytes: u64, proofs: bool) -> Result<(), Denied> {
        let used = self.used.get_mut(id).ok_or(Denied::Expired)?;
        let left = if proofs { &mut used.proofs_left } else { &mut used.left };
        if *left < bytes {
            return Err(Denied::Spent);
        }
        *left -= bytes;
        Ok(())
    }

    /// Ends a request for pages.
    pub(super) fn end(&mut self, id: &Id) {
        if let Some(used) = self.used.get_mut(id) {
            used.busy = false;
        }
    }
}
