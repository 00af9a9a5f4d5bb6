//! A peer that moves no bytes: it takes assignments up in their order, and acknowledges their pages in batches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use iceshare_sim::SimMedia;
use icet::message::{
    Assign, Cancel, Got, Have, Hello, Intent, Join, KeyProof, Leave, Outcome, Report, Served, ServedItem,
    ToPeer, ToTracker,
};
use icet::{Abilities, Limits, MediaId, Offer, PageNo, PageRanges, PeerKey, ProtocolName};

/// Pages of one acknowledgement.
pub(crate) const BATCH: u64 = 16;

/// What hosts sent, by assignment: in place of the transfers, of which there are none.
#[derive(Debug, Default)]
pub(crate) struct Sent(Mutex<BTreeMap<PeerKey, BTreeMap<u64, u64>>>);

impl Sent {
    fn add(&self, host: PeerKey, assignment: u64, bytes: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(host).or_default().entry(assignment).or_default() += bytes;
    }

    /// A host's report of what it sent since the last one.
    pub(crate) fn report(&self, host: &PeerKey) -> Option<ToTracker> {
        let items = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(host)?;
        let items = items.into_iter().map(|(assignment, bytes)| ServedItem { assignment, bytes }).collect();
        Some(Served { items }.into())
    }
}

/// An assignment under way.
#[derive(Debug)]
struct Work {
    id: u64,
    next: PageNo,
    last: PageNo,
    bytes: u64,
    pages: u64,
    host: PeerKey,
    protocol: ProtocolName,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Peer {
    media: Arc<SimMedia>,
    id: MediaId,
    sent: Arc<Sent>,
    work: VecDeque<Work>,
    held: u64,
    requests: u64,
    /// Assignments that came.
    pub(crate) assigned: u64,
}

/// What a peer says first. `rate`: bytes a second that it claims for both directions.
pub(crate) fn hello(rate: u64) -> ToTracker {
    // The protocol needs no address: nothing is dialled back, since nobody would answer.
    let offer = Offer {
        name: "load".parse().unwrap_or_else(|_| unreachable!("a protocol name")),
        abilities: Abilities::PAGES
            | Abilities::PROOFS
            | Abilities::ORDERED
            | Abilities::PROVES_KEY
            | Abilities::RELAYED,
        serves: true,
        endpoint: String::new(),
        dials: None,
    };
    Hello {
        version: 1,
        agent: "iceshare-load".to_owned(),
        proof: KeyProof::Channel,
        offers: vec![offer],
        reach: Vec::new(),
        limits: Limits { up: Some(rate), down: Some(rate) },
        epoch: None,
        instance: None,
    }
    .into()
}

impl Peer {
    pub(crate) fn new(media: Arc<SimMedia>, sent: Arc<Sent>) -> Peer {
        let id = media.manifest.id();
        Peer { media, id, sent, work: VecDeque::new(), held: 0, requests: 0, assigned: 0 }
    }

    /// Joins as one that holds `have` already.
    pub(crate) fn join(&mut self, have: PageRanges) -> ToTracker {
        self.held = have.count();
        self.requests += 1;
        let manifest = self.media.manifest.manifest();
        Join {
            request: self.requests,
            path: manifest.path.clone(),
            publisher: Some(manifest.publisher),
            version: manifest.version,
            have,
            intent: Intent::Whole,
            at: None,
            back: None,
            running: Vec::new(),
        }
        .into()
    }

    /// Takes a message of the tracker. False: it is an error.
    pub(crate) fn take(&mut self, message: &ToPeer) -> bool {
        match message {
            ToPeer::Assign(Assign { assignments, .. }) => {
                for a in assignments {
                    let last = a.pages.last.unwrap_or(a.pages.first);
                    let (host, protocol) = (a.source.host.key, a.source.host.protocol.clone());
                    self.work.push_back(Work {
                        id: a.id,
                        next: a.pages.first,
                        last,
                        bytes: 0,
                        pages: 0,
                        host,
                        protocol,
                    });
                    self.assigned += 1;
                }
            }
            ToPeer::Cancel(Cancel { assignments }) => self.work.retain(|w| !assignments.contains(&w.id)),
            ToPeer::ErrorMessage(_) | ToPeer::Withdrawn(_) => return false,
            _ => {}
        }
        true
    }

    /// Whether something is assigned.
    pub(crate) fn is_busy(&self) -> bool {
        !self.work.is_empty()
    }

    /// The next batch has come: what is said of it, and how many pages it has. One that has all begins anew.
    pub(crate) fn batch(&mut self) -> (Vec<ToTracker>, u64) {
        let Some(mut work) = self.work.pop_front() else { return (Vec::new(), 0) };
        let last = work.last.min(work.next + BATCH - 1);
        let pages = last - work.next + 1;
        let bytes: u64 = (work.next..=last).map(|p| u64::from(self.media.len_of(p))).sum();
        let got = vec![Got { assignment: work.id, pages: PageRanges::one(work.next, last) }];
        let mut out: Vec<ToTracker> = vec![Have { media: self.id, got, lost: PageRanges::new() }.into()];
        work.next = last + 1;
        work.bytes += bytes;
        work.pages += pages;
        self.held += pages;
        if work.next > work.last {
            self.sent.add(work.host, work.id, work.bytes);
            let report = Report {
                media: self.id,
                assignment: work.id,
                host: work.host,
                protocol: work.protocol,
                outcome: Outcome::Done,
                bytes: work.bytes,
                pages: work.pages,
                bad: 0,
                first_byte: Some(50),
                total: 250,
                last: true,
            };
            out.push(report.into());
        } else {
            self.work.push_front(work);
        }
        if self.work.is_empty() && self.held >= self.media.manifest.manifest().pages {
            out.push(Leave { media: self.id }.into());
            out.push(self.join(PageRanges::new()));
        }
        (out, pages)
    }
}
