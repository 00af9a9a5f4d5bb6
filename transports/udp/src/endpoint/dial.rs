//! A handshake that this peer began.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use iceshare::icet::Now;
use snow::HandshakeState;

use crate::wire::datagram::{AssocId, Datagram};

/// The first repetition comes after so long, each further one after twice as long.
const AGAIN: Duration = Duration::from_millis(300);
/// Addresses that are tried at once.
const ADDRESSES: usize = 8;

type Out = VecDeque<(SocketAddr, Vec<u8>)>;

/// Its state: knocking at all addresses, until one of them sends a cookie.
pub(super) struct Dial {
    addrs: Vec<SocketAddr>,
    hello: Option<(SocketAddr, Option<HandshakeState>, Vec<u8>)>,
    wait: Duration,
    at: Now,
    deadline: Now,
    /// Somebody else than the peer answered somewhere.
    another: bool,
}

impl Dial {
    pub(super) fn new(now: Now, addrs: &[SocketAddr], patience: Duration) -> Dial {
        let addrs = addrs.iter().take(ADDRESSES).copied().collect();
        Dial { addrs, hello: None, wait: AGAIN, at: now + AGAIN, deadline: now + patience, another: false }
    }

    pub(super) fn knock(&self, id: AssocId, out: &mut Out) {
        let knock = Datagram::Knock { initiator: id }.write();
        out.extend(self.addrs.iter().map(|to| (*to, knock.clone())));
    }

    /// Whether a cookie from there is wanted.
    pub(super) fn expects_cookie(&self, from: SocketAddr) -> bool {
        self.hello.is_none() && self.addrs.contains(&from)
    }

    /// The peer is not there. Says whether it may be nowhere.
    pub(super) fn is_not_at(&mut self, at: SocketAddr) -> bool {
        self.another = true;
        self.addrs.retain(|a| *a != at);
        self.addrs.is_empty()
    }

    pub(super) fn found_another(&self) -> bool {
        self.another
    }

    /// The cookie is there: the next message.
    pub(super) fn hello(
        &mut self,
        now: Now,
        to: SocketAddr,
        state: HandshakeState,
        datagram: Vec<u8>,
        out: &mut Out,
    ) {
        out.push_back((to, datagram.clone()));
        self.hello = Some((to, Some(state), datagram));
        (self.wait, self.at) = (AGAIN, now + AGAIN);
    }

    /// What reads the answer, if one is expected from there; once.
    pub(super) fn state(&mut self, from: SocketAddr) -> Option<HandshakeState> {
        self.hello.as_mut().filter(|(to, _, _)| *to == from)?.1.take()
    }

    /// When something is to be done.
    pub(super) fn next(&self) -> Now {
        self.at.min(self.deadline)
    }

    pub(super) fn is_over(&self, now: Now) -> bool {
        self.deadline <= now
    }

    /// Says it again.
    pub(super) fn again(&mut self, now: Now, id: AssocId, out: &mut Out) {
        match &self.hello {
            Some((to, _, datagram)) => out.push_back((*to, datagram.clone())),
            None => self.knock(id, out),
        }
        self.wait *= 2;
        self.at = now + self.wait;
    }
}
