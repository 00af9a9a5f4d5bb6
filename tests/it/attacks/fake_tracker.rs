//! A tracker that lies: real peers publish on it and join from it, and it answers with what a test wants.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use iceshare::net::session::{Listener, TrackerSession};
use icet::message::{
    Assign, Assignment, Dial, InfoAnswer, MediaAnswer, Need, Pong, Slices, Source, ToPeer, ToTracker, Welcome,
};
use icet::ticket::TicketBody;
use icet::{
    HostAddr, Identity, MediaId, NetKind, PageSet, PeerKey, ProvenSlice, Signed, SignedManifest, Ticket,
    TicketKey,
};

use super::stranger;

/// How it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// Not at all: the media that was published last.
    Not,
    /// A bit of the manifest is turned.
    Manifest,
    /// The manifest that was published first.
    Rollback,
    /// The manifest of another path.
    OtherPath,
    /// A bit of every slice is turned.
    Slices,
}

struct Host {
    key: PeerKey,
    at: SocketAddr,
    offer: icet::Offer,
}

struct Book {
    lie: Lie,
    manifests: Vec<Signed>,
    slices: Vec<ProvenSlice>,
    host: Option<Host>,
    assignments: u64,
}

/// The epoch of its tickets.
pub(super) const EPOCH: u64 = 5;
const TICKET_SECRET: [u8; 32] = [9; 32];

pub(super) struct FakeTracker {
    pub(super) url: String,
    key: PeerKey,
    book: Arc<Mutex<Book>>,
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl FakeTracker {
    pub(super) async fn start() -> FakeTracker {
        let identity = Identity::from_seed(&[0xee; 32]);
        let key = identity.key();
        let listen = vec!["127.0.0.1:0".parse().expect("an address")];
        let mut listener = Listener::bind(listen, identity).await.expect("a free port");
        let at = listener.local_addrs().first().expect("a port").at;
        let book =
            Book { lie: Lie::Not, manifests: Vec::new(), slices: Vec::new(), host: None, assignments: 0 };
        let book = Arc::new(Mutex::new(book));
        let shared = book.clone();
        tokio::spawn(async move {
            while let Some(session) = listener.accept().await {
                tokio::spawn(talk(shared.clone(), key, session));
            }
        });
        FakeTracker { url: format!("icet://{at}"), key, book }
    }

    pub(super) fn lie(&self, lie: Lie) {
        lock(&self.book).lie = lie;
    }

    /// The key and the port of who published last.
    pub(super) fn host(&self) -> (PeerKey, SocketAddr) {
        lock(&self.book).host.as_ref().map(|h| (h.key, h.at)).expect("a publisher")
    }

    /// What a good ticket for these pages of the media says.
    pub(super) fn ticket_body(&self, media: MediaId, pages: PageSet) -> TicketBody {
        let mut book = lock(&self.book);
        book.ticket_body(self.key, media, pages)
    }

    pub(super) fn issue(&self, body: &TicketBody) -> Ticket {
        TicketKey::derive(&TICKET_SECRET, &body.host).issue(body)
    }

    /// The media that was published last.
    pub(super) fn manifest(&self) -> SignedManifest {
        let signed = lock(&self.book).manifests.last().cloned().expect("a manifest");
        SignedManifest::verify(signed).expect("a good manifest")
    }
}

impl Book {
    fn ticket_body(&mut self, tracker: PeerKey, media: MediaId, pages: PageSet) -> TicketBody {
        self.assignments += 1;
        let manifest = self.manifests.last().cloned().and_then(|m| SignedManifest::verify(m).ok());
        TicketBody {
            tracker,
            epoch: EPOCH,
            assignment: self.assignments,
            receiver: PeerKey([3; 32]),
            host: self.host.as_ref().expect("a publisher").key,
            media,
            version: manifest.expect("a manifest").version,
            pages,
            protocol: stranger::http(),
            rate: None,
            expiry: wall_ms() + 60_000,
            need: icet::message::Need::Bulk,
        }
    }

    /// The manifest that is told.
    fn manifest(&self) -> Option<Signed> {
        let mut told = match self.lie {
            Lie::Rollback | Lie::OtherPath => self.manifests.first(),
            _ => self.manifests.last(),
        }
        .cloned()?;
        if self.lie == Lie::Manifest {
            let mut body = told.body.to_vec();
            let at = body.len() - 1;
            body[at] ^= 1;
            // A body that is no CBOR any more would be refused for that.
            if minicbor_breaks(&body) {
                body[at] ^= 1;
                told.signature.0[0] ^= 1;
            }
            told.body = body.into();
        }
        Some(told)
    }

    fn slices(&self) -> Vec<ProvenSlice> {
        let alter = |s: &ProvenSlice| {
            let mut slice = icet::Slice::from_bytes(&s.slice).expect("a slice");
            slice.records[0].hash.0[0] ^= u8::from(self.lie == Lie::Slices);
            ProvenSlice { slice: slice.to_bytes().into(), proof: s.proof.clone() }
        };
        self.slices.iter().map(alter).collect()
    }

    fn order(&mut self, tracker: PeerKey, receiver: PeerKey, media: MediaId) -> Option<Assign> {
        let pages = SignedManifest::verify(self.manifests.last()?.clone()).ok()?.pages;
        let pages = PageSet::range(0, pages - 1);
        let body = TicketBody { receiver, ..self.ticket_body(tracker, media, pages) };
        let ticket = TicketKey::derive(&TICKET_SECRET, &body.host).issue(&body);
        let host = self.host.as_ref()?;
        let source = Source {
            host: HostAddr {
                key: host.key,
                protocol: stranger::http(),
                addrs: vec![icet::NetAddr { kind: NetKind::Tcp, at: host.at }],
                endpoint: host.offer.endpoint.clone(),
                abilities: host.offer.abilities,
            },
            dial: Dial::Receiver,
            ticket,
        };
        let assignment = Assignment {
            id: body.assignment,
            media,
            pages,
            need: Need::Bulk,
            source,
            stand_ins: Vec::new(),
            deadline: None,
            lapse: 60_000,
        };
        Some(vec![assignment].into())
    }
}

fn minicbor_breaks(body: &[u8]) -> bool {
    icet::frame::decode::<icet::Manifest>(body).is_err()
}

async fn talk(book: Arc<Mutex<Book>>, tracker: PeerKey, mut session: TrackerSession) -> Option<()> {
    let (peer, remote) = (session.peer(), session.remote());
    let mut announced = None;
    loop {
        let message = session.recv().await.ok()?;
        let mut answers: Vec<ToPeer> = Vec::new();
        {
            let mut book = lock(&book);
            match message {
                ToTracker::Hello(h) => {
                    let tcp = h.reach.iter().find(|a| a.kind == NetKind::Tcp).map(|a| a.at);
                    announced = tcp.zip(h.offers.into_iter().find(|o| o.name == stranger::http()));
                    answers.push(
                        Welcome {
                            version: 1,
                            epoch: EPOCH,
                            time: wall_ms(),
                            observed: remote,
                            ticket_key: TicketKey::derive(&TICKET_SECRET, &peer),
                            ack_delay: 100,
                        }
                        .into(),
                    );
                }
                ToTracker::Publish(p) => {
                    let (at, offer) = announced.clone()?;
                    book.host = Some(Host { key: peer, at, offer });
                    if !book.manifests.contains(&p.manifest) {
                        book.manifests.push(p.manifest.clone());
                        book.slices = p.slices;
                    }
                    answers.push(answer(p.request, p.manifest, Vec::new())?.into());
                }
                ToTracker::Join(j) => {
                    let told = answer(j.request, book.manifest()?, book.slices())?;
                    let media = told.media;
                    answers.push(told.into());
                    answers.extend(book.order(tracker, peer, media).map(ToPeer::from));
                }
                ToTracker::InfoRequest(i) => {
                    let info = InfoAnswer {
                        request: i.request,
                        manifest: book.manifest()?,
                        listeners: 0,
                        hits: 0,
                        complete: 1,
                        sent: 0,
                        received: 0,
                        alternatives: Vec::new(),
                        head: None,
                    };
                    answers.push(info.into());
                }
                ToTracker::Locate(l) => {
                    let slices = Slices { media: l.media, request: l.request, slices: book.slices() };
                    answers.push(slices.into());
                }
                ToTracker::Ping(p) => answers.push(Pong { nonce: p.nonce, time: wall_ms() }.into()),
                _ => {}
            }
        }
        for m in answers {
            session.send(&m).await.ok()?;
        }
    }
}

fn answer(request: u64, manifest: Signed, slices: Vec<ProvenSlice>) -> Option<MediaAnswer> {
    let read: icet::Manifest = icet::frame::decode(&manifest.body).ok()?;
    let media = read.id();
    Some(MediaAnswer { request, media, manifest, slices, listeners: 1, hits: 1, estimate: None, buffer: 500 })
}
