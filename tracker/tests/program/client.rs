//! A peer made by hand: a session, and the messages that came and nobody looked for yet.

use std::collections::VecDeque;

use iceshare::net::session::{ConnectOptions, PeerSession, connect_with};
use iceshare::net::{Net, NetConfig};
use icet::message::{
    Assignment, ErrorMessage, Got, Have, Hello, InfoAnswer, InfoRequest, Intent, Join, KeyProof, MediaAnswer,
    Outcome, Publish, Report, Served, ServedItem, ToPeer, ToTracker, Welcome,
};
use icet::{
    Abilities, Identity, Limits, MediaPath, NetKind, Offer, PageRanges, ProvenSlice, SignedManifest, ticket,
};
use tokio::time::timeout;

use crate::tracker::{PATIENCE, Tracker};

pub(crate) struct Client {
    pub(crate) identity: Identity,
    pub(crate) welcome: Welcome,
    session: PeerSession,
    waiting: VecDeque<ToPeer>,
    request: u64,
    // Answers dial-backs.
    net: Net,
}

impl Client {
    /// Opens a session over one carrier; `flight` goes with the hello.
    pub(crate) async fn connect(
        tracker: &Tracker,
        identity: Identity,
        carrier: NetKind,
        flight: &[ToTracker],
    ) -> Client {
        let config = NetConfig::new(vec!["127.0.0.1:0".parse().unwrap()], identity.clone());
        let net = Net::bind(config).await.unwrap();
        let offer = Offer {
            name: "http".parse().unwrap(),
            abilities: Abilities::PAGES | Abilities::BYTES,
            serves: true,
            endpoint: String::new(),
            dials: Some(NetKind::Tcp),
        };
        let hello = Hello {
            version: icet::VERSION,
            agent: "test <b>\u{1b}[31m".to_owned(),
            proof: KeyProof::Channel,
            offers: vec![offer],
            reach: net.local_addrs(),
            limits: Limits::default(),
            epoch: None,
            instance: None,
        };
        let mut first = vec![hello.into()];
        first.extend(flight.iter().cloned());
        let options = ConnectOptions { only: Some(carrier), ..ConnectOptions::default() };
        let at = tracker.icet.to_string();
        let session = connect_with(&net, &at, Some(tracker.key), &first, options).await.unwrap();
        assert_eq!(session.remote().kind, carrier);
        let mut client =
            Client { identity, welcome: NOBODY, session, waiting: VecDeque::new(), request: 100, net };
        client.welcome = client
            .expect("welcome", |m| match m {
                ToPeer::Welcome(w) => Some(w.clone()),
                _ => None,
            })
            .await;
        client
    }

    pub(crate) async fn send(&self, message: impl Into<ToTracker>) {
        self.session.send(&message.into()).await.unwrap();
    }

    /// The first message that `wanted` takes, of those that came or will.
    pub(crate) async fn expect<T>(&mut self, what: &str, wanted: impl Fn(&ToPeer) -> Option<T>) -> T {
        for i in 0..self.waiting.len() {
            if let Some(found) = wanted(&self.waiting[i]) {
                self.waiting.remove(i);
                return found;
            }
        }
        loop {
            let message = timeout(PATIENCE, self.session.recv()).await;
            let message = message.unwrap_or_else(|_| panic!("no {what}; there was {:?}", self.waiting));
            let message = message.unwrap_or_else(|e| panic!("no {what}: {e}; there was {:?}", self.waiting));
            if let Some(found) = wanted(&message) {
                return found;
            }
            self.waiting.push_back(message);
        }
    }

    fn next_request(&mut self) -> u64 {
        self.request += 1;
        self.request
    }

    /// The answer to a publication or a join, or the error.
    pub(crate) async fn answer(&mut self, request: u64) -> Result<MediaAnswer, ErrorMessage> {
        self.expect("answer", |m| match m {
            ToPeer::MediaAnswer(a) if a.request == request => Some(Ok(a.clone())),
            ToPeer::ErrorMessage(e) if e.request == Some(request) => Some(Err(e.clone())),
            _ => None,
        })
        .await
    }

    pub(crate) async fn publish(
        &mut self,
        manifest: &SignedManifest,
        slices: &[ProvenSlice],
    ) -> Result<MediaAnswer, ErrorMessage> {
        let request = self.next_request();
        self.send(publish(request, manifest, slices)).await;
        self.answer(request).await
    }

    pub(crate) async fn join(&mut self, path: &MediaPath) -> Result<MediaAnswer, ErrorMessage> {
        let request = self.next_request();
        self.send(join(request, path)).await;
        self.answer(request).await
    }

    pub(crate) async fn info(&mut self, path: &MediaPath) -> Result<InfoAnswer, ErrorMessage> {
        let request = self.next_request();
        self.send(InfoRequest { request, path: path.clone() }).await;
        self.expect("info", |m| match m {
            ToPeer::InfoAnswer(a) if a.request == request => Some(Ok(a.clone())),
            ToPeer::ErrorMessage(e) if e.request == Some(request) => Some(Err(e.clone())),
            _ => None,
        })
        .await
    }

    /// Waits until a dial-back proved that we are where we say.
    pub(crate) async fn until_reached(&mut self) {
        self.expect("proof of an address", |m| match m {
            ToPeer::ReachResult(r) if r.addr.kind == NetKind::Tcp => {
                assert!(r.proved, "{r:?}");
                Some(())
            }
            _ => None,
        })
        .await;
    }

    pub(crate) async fn assignment(&mut self) -> Assignment {
        self.expect("assignment", |m| match m {
            ToPeer::Assign(a) => a.assignments.first().cloned(),
            _ => None,
        })
        .await
    }

    /// Says that all of an assignment came from its host, and how; returns its bytes.
    pub(crate) async fn got(&self, a: &Assignment, manifest: &SignedManifest, slices: &[ProvenSlice]) -> u64 {
        let records = slices.iter().flat_map(|s| s.verify(manifest).unwrap().records);
        let bytes =
            records.enumerate().filter(|(n, _)| a.pages.has(*n as u64)).map(|(_, r)| u64::from(r.len)).sum();
        let last = a.pages.last.unwrap();
        let got = vec![Got { assignment: a.id, pages: PageRanges::one(a.pages.first, last) }];
        self.send(Have { media: a.media, got, lost: PageRanges::new() }).await;
        let report = Report {
            media: a.media,
            assignment: a.id,
            host: a.source.host.key,
            protocol: a.source.host.protocol.clone(),
            outcome: Outcome::Done,
            bytes,
            pages: last - a.pages.first + 1,
            bad: 0,
            first_byte: Some(1),
            total: 5,
            last: true,
        };
        self.send(report).await;
        bytes
    }

    /// Checks a ticket that a receiver got for us, and says that we served it.
    pub(crate) async fn served(&self, a: &Assignment, receiver: &Client, bytes: u64) {
        let ticket: ticket::TicketBody = self.welcome.ticket_key.check(&a.source.ticket).unwrap();
        assert_eq!((ticket.receiver, ticket.host), (receiver.identity.key(), self.identity.key()));
        assert_eq!((ticket.assignment, ticket.pages, ticket.epoch), (a.id, a.pages, self.welcome.epoch));
        self.send(Served { items: vec![ServedItem { assignment: a.id, bytes }] }).await;
    }

    /// Waits for the end of the session; why it ended.
    pub(crate) async fn end(&mut self) -> String {
        let drain = async {
            loop {
                if let Err(e) = self.session.recv().await {
                    return e.to_string();
                }
            }
        };
        timeout(PATIENCE, drain).await.expect("the session does not end")
    }

    pub(crate) async fn close(self) {
        self.session.close("done").await;
        self.net.shutdown().await;
    }
}

const NOBODY: Welcome = Welcome {
    version: 0,
    epoch: 0,
    time: 0,
    observed: icet::NetAddr {
        kind: NetKind::Udp,
        at: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
    },
    ticket_key: icet::TicketKey([0; 32]),
    ack_delay: 0,
};

pub(crate) fn publish(request: u64, manifest: &SignedManifest, slices: &[ProvenSlice]) -> Publish {
    Publish { request, manifest: manifest.signed().clone(), slices: slices.to_vec() }
}

pub(crate) fn join(request: u64, path: &MediaPath) -> Join {
    Join {
        request,
        path: path.clone(),
        publisher: None,
        version: 0,
        have: PageRanges::new(),
        intent: Intent::Whole,
        at: None,
        back: None,
        running: Vec::new(),
    }
}
