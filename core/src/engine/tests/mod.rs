//! Lock-step tests: the real engine, a tracker played by the test, and a clock that the test turns.

mod acks;
mod arbitrary;
mod fetching;
mod publishing;
mod reserve;
mod session;
mod ways;

use std::time::Duration;

use icet::key::Hash;
use icet::message::{
    Assign, Assignment, Dial, ErrorCode, ErrorMessage, Got, Have, Hello, Intent, KeyProof, MediaAnswer, Need,
    Outcome, Report, Source, ToPeer, ToTracker, Welcome,
};
use icet::ticket::Ticket;
use icet::{
    Abilities, HostAddr, Identity, Kind, Limits, Manifest, MediaPath, NetAddr, NetKind, Now, PageMap, PageNo,
    PageRanges, PageSet, PeerKey, SignedManifest, TicketKey,
};

use super::Engine;
use super::io::{Action, Command, Config, FetchEvent, FetchId, Handle};

pub(super) const H: Handle = Handle(7);

pub(super) fn config() -> Config {
    Config {
        hello: Hello {
            version: 1,
            agent: "test".into(),
            proof: KeyProof::Channel,
            offers: Vec::new(),
            reach: Vec::new(),
            limits: Limits::default(),
            epoch: None,
            instance: None,
        },
        fetches: 4,
        per_host: 2,
        connects_each: std::collections::BTreeSet::new(),
        stall: Duration::from_secs(10),
        stall_urgent: Duration::from_secs(2),
        silence: Duration::from_secs(1),
        ack_delay: Duration::from_millis(200),
        backoff: (Duration::from_millis(500), Duration::from_secs(60)),
        seed: 1,
    }
}

pub(super) fn tracker() -> PeerKey {
    PeerKey([0xee; 32])
}

pub(super) fn path() -> MediaPath {
    MediaPath::new("music/a.ogg").unwrap()
}

pub(super) fn publisher() -> Identity {
    Identity::from_seed(&[9; 32])
}

/// A manifest of so many pages of about 4 KB.
pub(super) fn manifest(pages: u64, version: u64) -> SignedManifest {
    let m = Manifest {
        kind: Kind::File,
        path: path(),
        publisher: publisher().key(),
        version,
        pages,
        bytes: pages * 4000,
        duration: 0,
        root: Hash([0; 32]),
        setup: 1,
        links: 1,
        streams: Vec::new(),
        title: String::new(),
        tags: Vec::new(),
        signed_at: 0,
        group: None,
    };
    SignedManifest::sign(m, &publisher()).unwrap()
}

pub(super) fn source(host: u8) -> Source {
    Source {
        host: HostAddr {
            key: PeerKey([host; 32]),
            protocol: "http".parse().unwrap(),
            addrs: Vec::new(),
            endpoint: String::new(),
            abilities: Abilities::default(),
        },
        dial: Dial::Receiver,
        ticket: Ticket { body: Vec::new().into(), mac: Hash([0; 32]) },
    }
}

pub(super) fn assignment(id: u64, pages: PageSet, need: Need, hosts: &[u8]) -> Assignment {
    Assignment {
        id,
        media: manifest(1, 1).id(),
        pages,
        need,
        source: source(hosts[0]),
        stand_ins: hosts[1..].iter().map(|h| source(*h)).collect(),
        deadline: None,
        lapse: 20_000,
    }
}

pub(super) fn welcome(epoch: u64) -> ToPeer {
    Welcome {
        version: 1,
        epoch,
        time: 0,
        observed: NetAddr { kind: NetKind::Tcp, at: "192.0.2.1:1".parse().unwrap() },
        ticket_key: TicketKey([0; 32]),
        ack_delay: 1000,
    }
    .into()
}

pub(super) fn error(code: ErrorCode, request: u64, retry: Option<u32>) -> ToPeer {
    ErrorMessage { code, request: Some(request), media: None, text: String::new(), retry }.into()
}

/// A fetch that was started.
#[derive(Debug, Clone)]
pub(super) struct Started {
    pub(super) id: FetchId,
    pub(super) pages: PageSet,
    pub(super) host: u8,
}

/// An engine, its clock, and what it did since the test last looked.
pub(super) struct Rig {
    pub(super) e: Engine,
    pub(super) now: Now,
    pub(super) pages: u64,
    pub(super) starts: Vec<Started>,
    pub(super) stops: Vec<FetchId>,
    pub(super) sent: Vec<ToTracker>,
    pub(super) rest: Vec<Action>,
}

impl Rig {
    pub(super) fn with(config: Config) -> Rig {
        let mut r = Rig {
            e: Engine::new(config),
            now: Now(1_000_000),
            pages: 0,
            starts: Vec::new(),
            stops: Vec::new(),
            sent: Vec::new(),
            rest: Vec::new(),
        };
        r.drain();
        r
    }

    pub(super) fn new() -> Rig {
        Rig::with(config())
    }

    /// A media of so many pages, joined and accepted, of which none is held.
    pub(super) fn joined(pages: u64) -> Rig {
        Rig::joined_with(config(), pages)
    }

    pub(super) fn joined_with(config: Config, pages: u64) -> Rig {
        let mut r = Rig::with(config);
        r.join(pages);
        r.connect(1);
        r.answer(1);
        r.accept(PageMap::new(pages));
        r.clear();
        r
    }

    pub(super) fn join(&mut self, pages: u64) {
        self.pages = pages;
        let command = Command::Join {
            handle: H,
            path: path(),
            publisher: None,
            version: 0,
            held: PageRanges::new(),
            intent: Intent::Whole,
            at: None,
            back: None,
        };
        self.command(command);
    }

    pub(super) fn accept(&mut self, held: PageMap) {
        self.command(Command::Accept { handle: H, held, bytes: self.pages * 4000, version: 1 });
    }

    pub(super) fn connect(&mut self, epoch: u64) {
        self.e.handle_connected(self.now, tracker());
        self.drain();
        self.tell(welcome(epoch));
    }

    /// The tracker restarts under a new epoch.
    pub(super) fn restart(&mut self) {
        self.disconnect();
        self.millis(500);
        self.connect(2);
        self.answer(1);
        self.clear();
    }

    pub(super) fn disconnect(&mut self) {
        self.e.handle_disconnected(self.now);
        self.drain();
    }

    /// Answers the last join or publish.
    pub(super) fn answer(&mut self, version: u64) {
        let request = self.sent.iter().rev().find_map(|m| match m {
            ToTracker::Join(m) => Some(m.request),
            ToTracker::Publish(m) => Some(m.request),
            _ => None,
        });
        self.answer_to(request.expect("a join was sent"), version);
    }

    pub(super) fn answer_to(&mut self, request: u64, version: u64) {
        let manifest = manifest(self.pages, version);
        let answer = MediaAnswer {
            request,
            media: manifest.id(),
            manifest: manifest.signed().clone(),
            slices: Vec::new(),
            listeners: 1,
            hits: 1,
            estimate: None,
            buffer: 0,
        };
        self.tell(answer.into());
    }

    pub(super) fn command(&mut self, c: Command) {
        self.e.handle_command(self.now, c);
        self.drain();
    }

    pub(super) fn tell(&mut self, m: ToPeer) {
        self.e.handle_message(self.now, m);
        self.drain();
    }

    pub(super) fn assign(&mut self, assignments: Vec<Assignment>) {
        self.tell(Assign::from(assignments).into());
    }

    pub(super) fn event(&mut self, id: FetchId, e: FetchEvent) {
        self.e.handle_fetch(self.now, id, e);
        self.drain();
    }

    pub(super) fn page(&mut self, id: FetchId, page: PageNo) {
        self.event(id, FetchEvent::Page { page, len: 4000 });
    }

    pub(super) fn pages(&mut self, id: FetchId, pages: std::ops::RangeInclusive<PageNo>) {
        pages.for_each(|p| self.page(id, p));
    }

    pub(super) fn ended(&mut self, id: FetchId, outcome: Outcome) {
        self.event(id, FetchEvent::Ended(outcome));
    }

    /// Turns the clock, letting every alarm on the way go off at its time.
    pub(super) fn pass(&mut self, d: Duration) {
        let end = self.now + d;
        while let Some(t) = self.e.poll_timeout().filter(|t| *t <= end) {
            assert!(t >= self.now || self.e.timers.len() > 0);
            self.now = self.now.max(t);
            self.e.handle_timeout(self.now);
            assert!(self.e.poll_timeout().is_none_or(|t| t > self.now), "an alarm that does not move on");
            self.drain();
        }
        self.now = end;
    }

    pub(super) fn millis(&mut self, ms: u64) {
        self.pass(Duration::from_millis(ms));
    }

    pub(super) fn drain(&mut self) {
        while let Some(action) = self.e.poll_action() {
            match action {
                Action::Send(m) => self.sent.push(m),
                Action::Start { fetch, pages, source, .. } => {
                    self.starts.push(Started { id: fetch, pages, host: source.host.key.0[0] });
                }
                Action::Stop { fetch } => self.stops.push(fetch),
                other => self.rest.push(other),
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.starts.clear();
        self.stops.clear();
        self.sent.clear();
        self.rest.clear();
    }

    /// What was started since the last look: first and last page, host.
    pub(super) fn started(&mut self) -> Vec<(FetchId, PageNo, Option<PageNo>, u8)> {
        std::mem::take(&mut self.starts)
            .into_iter()
            .map(|s| (s.id, s.pages.first, s.pages.last, s.host))
            .collect()
    }

    pub(super) fn one_started(&mut self) -> FetchId {
        let started = self.started();
        assert_eq!(started.len(), 1, "{started:?}");
        started[0].0
    }

    pub(super) fn reports(&self) -> Vec<Report> {
        self.sent
            .iter()
            .filter_map(|m| if let ToTracker::Report(r) = m { Some(r.clone()) } else { None })
            .collect()
    }

    /// Assignment, host, outcome, last.
    pub(super) fn outcomes(&self) -> Vec<(u64, u8, Outcome, bool)> {
        self.reports().iter().map(|r| (r.assignment, r.host.0[0], r.outcome, r.last)).collect()
    }

    pub(super) fn haves(&self) -> Vec<Have> {
        self.sent
            .iter()
            .filter_map(|m| if let ToTracker::Have(h) = m { Some(h.clone()) } else { None })
            .collect()
    }

    /// Acknowledged runs by assignment, in the order they were sent.
    pub(super) fn acked(&self) -> Vec<(u64, Vec<(PageNo, PageNo)>)> {
        let got = |g: &Got| (g.assignment, g.pages.runs().collect());
        self.haves().iter().flat_map(|h| h.got.iter().map(got).collect::<Vec<_>>()).collect()
    }
}
