//! Uploading a published media's slices: a few messages ahead of what the tracker confirmed.

use std::collections::VecDeque;

use icet::message::{Ping, Pong, Slices};
use icet::{Now, ProvenSlice};

use super::Engine;
use super::io::{Action, Handle};
use super::media::{MESSAGE, Role, slice_bytes};
use super::timers::Timer;

/// Messages that the tracker has not confirmed.
const AHEAD: usize = 2;
/// Slices in a message.
const SLICES: usize = 64;

/// A ping follows each message: its pong says that the tracker has taken what came before it.
#[derive(Debug, Default)]
pub(super) struct Upload {
    /// First slice that the tracker has not confirmed.
    confirmed: u64,
    /// First slice to ask the driver for.
    next: u64,
    /// What the driver was asked for.
    asked: Option<u64>,
    /// Nonce of the ping, and the first slice after the message, of each message under way.
    ahead: VecDeque<(u64, u64)>,
    /// The driver has no more.
    all: bool,
}

impl Upload {
    fn rewind(&mut self) {
        self.next = self.confirmed;
        self.ahead.clear();
        self.all = false;
    }
}

impl Engine {
    fn upload_of(&mut self, handle: Handle) -> Option<&mut Upload> {
        match &mut self.media.get_mut(&handle)?.role {
            Role::Publish { upload, .. } => Some(upload),
            Role::Join(_) => None,
        }
    }

    /// The session is gone: what it did not confirm is sent again in the next.
    pub(super) fn pause_uploads(&mut self) {
        for handle in self.media.keys().copied().collect::<Vec<_>>() {
            if let Some(u) = self.upload_of(handle) {
                u.rewind();
            }
        }
    }

    /// Another epoch: the tracker may have lost everything. (It ignores what it has.)
    pub(super) fn restart_uploads(&mut self) {
        for handle in self.media.keys().copied().collect::<Vec<_>>() {
            if let Some(u) = self.upload_of(handle) {
                u.confirmed = 0;
                u.rewind();
            }
        }
    }

    /// The tracker asked for a pause.
    pub(super) fn postpone_upload(&mut self, handle: Handle, until: Now) {
        let Some(u) = self.upload_of(handle) else { return };
        if u.all && u.ahead.is_empty() {
            return;
        }
        u.rewind();
        self.timers.set(Timer::Upload(handle), until);
        self.session.pings.retain(|_, h| *h != handle);
    }

    /// Asks the driver for slices if the tracker can take more.
    pub(super) fn want_upload(&mut self, handle: Handle) {
        let ready = self.session.is_up() && !self.session.is_opening(handle);
        if !ready || self.timers.is_set(Timer::Upload(handle)) {
            return;
        }
        let Some(u) = self.upload_of(handle) else { return };
        if u.all || u.asked.is_some() || u.ahead.len() >= AHEAD {
            return;
        }
        let from = u.next;
        u.asked = Some(from);
        self.actions.push_back(Action::WantUpload { handle, from });
    }

    pub(super) fn upload(&mut self, now: Now, handle: Handle, slices: Vec<ProvenSlice>) {
        let up = self.session.is_up() && !self.session.is_opening(handle);
        let paused = self.timers.is_set(Timer::Upload(handle));
        let Some(media) = self.media.get(&handle).and_then(|m| m.id) else { return };
        let Some(u) = self.upload_of(handle) else { return };
        let Some(asked) = u.asked.take() else { return };
        if !up || paused {
            return;
        }
        if asked != u.next {
            // The session changed meanwhile.
            return self.want_upload(handle);
        }
        if slices.is_empty() {
            u.all = true;
            return;
        }
        let mut at = asked;
        let mut slices = slices.into_iter().peekable();
        while slices.peek().is_some() {
            let (mut part, mut bytes) = (Vec::new(), 0);
            while let Some(s) = slices
                .next_if(|s| part.len() < SLICES && (part.is_empty() || bytes + slice_bytes(s) <= MESSAGE))
            {
                bytes += slice_bytes(&s);
                at = index(&s).map_or(at + 1, |i| (i + 1).max(at));
                part.push(s);
            }
            let nonce = self.session.number();
            self.session.pings.insert(nonce, handle);
            if let Some(u) = self.upload_of(handle) {
                u.next = at;
                u.ahead.push_back((nonce, at));
            }
            self.send(Slices { media, request: 0, slices: part });
            self.send(Ping { nonce });
            self.expect(now);
        }
        self.want_upload(handle);
    }

    pub(super) fn pong(&mut self, _: Now, m: &Pong) {
        let Some(handle) = self.session.pings.remove(&m.nonce) else { return };
        if let Some(u) = self.upload_of(handle)
            && u.ahead.iter().any(|(n, _)| *n == m.nonce)
        {
            while let Some((nonce, end)) = u.ahead.pop_front() {
                u.confirmed = end;
                if nonce == m.nonce {
                    break;
                }
            }
        }
        self.want_upload(handle);
    }
}

/// The index in a slice's first bytes.
fn index(s: &ProvenSlice) -> Option<u64> {
    let mut d = minicbor::Decoder::new(&s.slice);
    d.array().ok()?;
    d.u64().ok()
}
