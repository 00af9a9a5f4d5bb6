//! Who is given how much where upload is scarce: who gives half of what it takes has a full share, who gives nothing a
//! quarter of one; who gives more than it takes comes first among those with a full share. Keys that never gave count as one
//! if they come from one address, so that many of them take no more.
//!
//! Shares order bulk only, and only among those who want at once: what is to spare goes to whoever wants it, and what a
//! playhead waits for comes by its deadline, whoever waits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use icet::{Now, Scope};

use super::board::{Board, PeerIx};
use super::peer::{Fading, Peer};
use super::reach;

/// What a newcomer may take before it gave anything, in bytes; what a key must have given to stand for itself.
const GRACE: f64 = 1e6;
/// Part of what it took that a peer must have given for a full share.
const FULL: f64 = 0.5;
/// The share of who gives nothing; and how often as much as it takes a peer gives that counts most.
const LEAST: f64 = 0.25;
const MOST: f64 = 2.0;
/// Half-life of what somebody was given lately, and of what is known of an address.
const LATELY: Duration = Duration::from_secs(10);
const KNOWN: Duration = Duration::from_secs(3600);
/// Bytes that count of what one address alone confirms, and addresses that are remembered of a host's receivers.
const ALONE: f64 = GRACE / 16.0;
const WITNESSES: usize = 32;
/// Less than this (bytes) is not worth remembering of an address.
const WORTH: f64 = 16e3;
/// How often addresses are looked through.
const SWEEP: Duration = Duration::from_secs(60);

/// What keys of one address gave, took and were given lately, as long as each of them had given little.
#[derive(Debug, Default)]
struct Account {
    sent: Fading,
    received: Fading,
    lately: Fading,
}

/// Accounts of addresses.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    all: HashMap<IpAddr, Account>,
    swept: Now,
}

impl Accounts {
    /// Forgets what has faded.
    pub(crate) fn sweep(&mut self, now: Now) {
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            let worth = |a: &Account| a.received.now(now, KNOWN) + a.lately.now(now, LATELY);
            self.all.retain(|_, a| worth(a) >= WORTH);
        }
    }
}

fn merit(sent: f64, received: f64) -> f64 {
    (sent + GRACE) / (received + GRACE)
}

/// Where a peer comes from: an address, of IPv6 the network that one subscriber has.
fn home(p: &Peer) -> IpAddr {
    match p.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::from((u128::from(ip) >> 64 << 64).to_be_bytes()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The address whose account a peer is on; none if it stands for itself.
fn account(p: &Peer) -> Option<IpAddr> {
    let ip = home(p);
    // In a private network everybody may come from one address.
    (p.credit.counted < GRACE && Scope::of(ip) == Scope::Public).then_some(ip)
}

/// What of a host's gifts counts, by where the receivers were.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    counted: f64,
    by: Vec<(IpAddr, f64)>,
}

impl Credit {
    /// So many bytes more that are confirmed from an address; what of them counts. One address counts for little beyond what
    /// others confirm: else two would make each other generous.
    fn add(&mut self, from: IpAddr, bytes: f64) -> f64 {
        let i = self.by.iter().position(|(ip, _)| *ip == from).unwrap_or_else(|| {
            if self.by.len() >= WITNESSES {
                self.by.remove(0);
            }
            self.by.push((from, 0.0));
            self.by.len() - 1
        });
        let one = &mut self.by[i].1;
        let most = ALONE + (self.counted - *one) / 3.0;
        let counts = bytes.min((most - *one).max(0.0));
        *one += counts;
        self.counted += counts;
        counts
    }
}

impl Board {
    /// How much a peer counts by what it gives: 1 as a newcomer, 0.25 if it gives nothing, up to 2.
    pub(crate) fn weight(&self, now: Now, peer: PeerIx) -> f64 {
        self.peers.get(&peer).map_or(LEAST, |p| self.weight_of(now, p))
    }

    pub(crate) fn weight_of(&self, now: Now, p: &Peer) -> f64 {
        let own = merit(p.contribution.sent as f64, p.contribution.received as f64);
        let of_address = account(p).and_then(|ip| self.accounts.all.get(&ip));
        let merit =
            of_address.map_or(own, |a| own.min(merit(a.sent.now(now, KNOWN), a.received.now(now, KNOWN))));
        (merit / FULL).clamp(LEAST, 1.0).max(merit.min(MOST))
    }

    /// The part of a full share that is due to a peer: 0.25 to 1.
    pub(crate) fn share(&self, now: Now, peer: PeerIx) -> f64 {
        self.weight(now, peer).min(1.0)
    }

    /// Bytes that a peer, or all of its account, were given lately, over the share that is due.
    pub(crate) fn had(&self, now: Now, peer: PeerIx) -> f64 {
        let Some(p) = self.peers.get(&peer) else { return 0.0 };
        let of_address = account(p).and_then(|ip| self.accounts.all.get(&ip));
        let lately = of_address.map_or(&p.lately, |a| &a.lately);
        lately.now(now, LATELY).max(0.0) / self.share(now, peer)
    }

    /// When a peer, or somebody on its account, was given something last.
    pub(crate) fn given(&self, peer: PeerIx) -> Now {
        let Some(p) = self.peers.get(&peer) else { return Now::ZERO };
        let of_address = account(p).and_then(|ip| self.accounts.all.get(&ip));
        of_address.map_or(&p.lately, |a| &a.lately).at()
    }

    /// A peer was ordered to fetch `bytes`; less than 0: what was ordered does not come.
    pub(crate) fn give(&mut self, now: Now, peer: PeerIx, bytes: f64) {
        let Some(p) = self.peers.get_mut(&peer) else { return };
        p.lately.add(now, LATELY, bytes);
        if let Some(ip) = account(p) {
            self.accounts.all.entry(ip).or_default().lately.add(now, LATELY, bytes);
        }
    }

    /// `bytes` from a host to a receiver were confirmed by both. What passes within one network costs nobody else anything:
    /// it speaks for nobody, and against nobody.
    pub(crate) fn enter_account(&mut self, now: Now, host: PeerIx, receiver: PeerIx, bytes: f64) {
        let Some(from) = self.peers.get(&receiver).map(home) else { return };
        if let Some(ip) = self.peers.get(&receiver).and_then(account) {
            self.accounts.all.entry(ip).or_default().received.add(now, KNOWN, bytes);
        }
        let Some(h) = self.peers.get_mut(&host) else { return };
        let counts = h.credit.add(from, bytes);
        if let Some(ip) = account(h) {
            self.accounts.all.entry(ip).or_default().sent.add(now, KNOWN, counts);
        }
    }

    /// Whether two peers are seen in one network that is not private.
    pub(crate) fn are_neighbours(&self, a: PeerIx, b: PeerIx) -> bool {
        let ip = |p: PeerIx| self.peers.get(&p).map(Peer::ip);
        ip(a).zip(ip(b)).is_some_and(|(a, b)| reach::neighbours(a, b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_makes_nobody_generous_and_many_do() {
        let ip = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut alone = Credit::default();
        let two: f64 = (0..100).map(|i| alone.add(ip(i % 2), 1e6)).sum();
        assert!(two < GRACE && (two - alone.counted).abs() < 1.0, "{two}");
        let mut liked = Credit::default();
        let all: f64 = (0..200).map(|i| liked.add(ip(i % 40), 64e3)).sum();
        assert!(all > 8e6, "{all}");
        assert!(liked.by.len() <= WITNESSES);
    }
}
