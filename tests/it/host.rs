//! One host and one receiver of a payload protocol, in this process and without a tracker.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt;
use iceshare::icet::ticket::TicketBody;
use iceshare::icet::{HostAddr, Identity, NetKind, Now, PageSet, PeerKey, Ticket, TicketKey};
use iceshare::net::{Context, Net, NetConfig};
use iceshare::protocol::{Piece, Protocol, Registration, Registry, Request, TransportError, What};
use iceshare::publish::{self, Publish};
use iceshare::shelf::{Anonymous, Clock, Shelf, ShelfConfig};
use iceshare::store::{MediaStore, Store, Target};
use tempfile::TempDir;

/// The tracker that signs this module's tickets.
pub(crate) const TRACKER: PeerKey = PeerKey([9; 32]);
/// Its epoch.
const EPOCH: u64 = 4;

#[derive(Debug)]
struct Clocks(Instant);

impl Clock for Clocks {
    fn now(&self) -> Now {
        Now::from_origin(self.0.elapsed())
    }
    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::try_from(since.as_millis()).unwrap()
    }
}

/// A peer with one protocol.
pub(crate) struct Host {
    pub(crate) net: Net,
    pub(crate) cx: Context,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) store: Store,
    pub(crate) protocol: Protocol,
    pub(crate) endpoint: String,
    pub(crate) identity: Identity,
    pub(crate) dir: TempDir,
}

/// How a host is made.
pub(crate) struct Made {
    pub(crate) registration: Registration,
    pub(crate) settings: Vec<(&'static str, &'static str)>,
    pub(crate) anonymous: Anonymous,
    pub(crate) up: Option<u64>,
}

impl Made {
    pub(crate) fn of(registration: Registration) -> Made {
        Made { registration, settings: Vec::new(), anonymous: Anonymous::Allow, up: None }
    }
}

impl Host {
    /// A host that serves; its key is made from `seed`.
    pub(crate) async fn start(seed: u8, made: Made) -> Host {
        let identity = Identity::from_seed(&[seed; 32]);
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path().join("data")).unwrap();
        let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let net = Net::bind(NetConfig::new(listen, identity.clone())).await.unwrap();
        let shelf = Shelf::new(ShelfConfig {
            host: identity.key(),
            up: made.up,
            anonymous: made.anonymous,
            clock: Arc::new(Clocks(Instant::now())),
        });
        let name = made.registration.name.to_owned();
        let own = |(k, v): &(&str, &str)| (name.clone(), (*k).to_owned(), (*v).to_owned());
        let settings: Vec<_> = made.settings.iter().map(own).collect();
        let registry = Registry::of([made.registration]).unwrap();
        let protocol = registry.build(&[], &settings).unwrap().remove(0);
        let cx = net.context(protocol.name.clone());
        let endpoint = protocol.implementation.serve(cx.clone(), shelf.clone()).await.unwrap();
        shelf.set_ticket_key(TRACKER, EPOCH, ticket_key(&identity), 0);
        Host { net, cx, shelf, store, protocol, endpoint, identity, dir }
    }

    /// Publishes a file at `path`, and serves it.
    pub(crate) fn publish(&self, file: &Path, path: &str) -> Arc<MediaStore> {
        let publish =
            Publish { file: file.to_owned(), path: path.parse().unwrap(), title: None, repair_to: None };
        let prepared = publish::scan(&self.store, &self.identity, &publish, &mut |_| {}).unwrap();
        self.shelf.put(prepared.media());
        prepared.media()
    }

    /// Serves another host's media, of which it holds nothing yet but all slices.
    pub(crate) fn join(&self, media: &MediaStore) -> Arc<MediaStore> {
        let mine = self.store.fetch(media.manifest().clone(), Target::Own).unwrap();
        for slice in 0..media.manifest().slices() {
            mine.put_slice(&media.proven_slice(slice).unwrap()).unwrap();
        }
        self.shelf.put(mine.clone());
        mine
    }

    pub(crate) fn addr(&self, kind: NetKind) -> SocketAddr {
        self.net.local_addrs().iter().find(|a| a.kind == kind).unwrap().at
    }

    /// How others reach it.
    pub(crate) fn host_addr(&self) -> HostAddr {
        let dials = self.protocol.implementation.dials();
        let addrs = self.net.local_addrs().into_iter().filter(|a| Some(a.kind) == dials).collect();
        HostAddr {
            key: self.identity.key(),
            protocol: self.protocol.name.clone(),
            addrs,
            endpoint: self.endpoint.clone(),
            abilities: self.protocol.implementation.abilities(),
        }
    }

    /// A request for a part of its media.
    pub(crate) fn request(&self, media: &MediaStore, what: What) -> Request {
        Request {
            host: self.host_addr(),
            path: media.path().clone(),
            media: media.id(),
            version: media.manifest().version,
            what,
            ticket: None,
        }
    }

    /// A ticket for `receiver`.
    pub(crate) fn ticket(&self, media: &MediaStore, receiver: &Host, pages: PageSet, id: u64) -> Ticket {
        self.ticket_of(media, receiver, pages, id, icet::message::Need::Bulk)
    }

    /// The same, of another need.
    pub(crate) fn ticket_of(
        &self,
        media: &MediaStore,
        receiver: &Host,
        pages: PageSet,
        id: u64,
        need: icet::message::Need,
    ) -> Ticket {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        ticket_key(&self.identity).issue(&TicketBody {
            tracker: TRACKER,
            epoch: EPOCH,
            assignment: id,
            receiver: receiver.identity.key(),
            host: self.identity.key(),
            media: media.id(),
            version: media.manifest().version,
            pages,
            protocol: self.protocol.name.clone(),
            rate: None,
            expiry: u64::try_from(wall.as_millis()).unwrap() + 60_000,
            need,
        })
    }

    /// Carries a request out; what came, and how it ended.
    pub(crate) async fn fetch(&self, request: Request) -> (Vec<Piece>, Result<(), TransportError>) {
        let mut pieces = self.protocol.implementation.fetch(self.cx.clone(), request);
        let mut got: Vec<Piece> = Vec::new();
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => got.push(piece),
                Err(e) => return (got, Err(e)),
            }
        }
        (got, Ok(()))
    }
}

fn ticket_key(host: &Identity) -> TicketKey {
    TicketKey::derive(&[7; 32], &host.key())
}

/// The bytes of all pieces together.
pub(crate) fn bytes(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        if let Piece::Bytes(b) = piece {
            out.extend_from_slice(b);
        }
    }
    out
}

/// The bytes of some pages.
pub(crate) fn content(media: &MediaStore, pages: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let one = |page| {
        let span = media.span(page).unwrap();
        media.read(span.offset, usize::try_from(span.record.len).unwrap()).unwrap()
    };
    pages.into_iter().flat_map(one).collect()
}

/// Gives `to` some pages of `from`.
pub(crate) fn give(from: &MediaStore, to: &MediaStore, first: u64, last: u64) {
    let pages: Vec<Bytes> = (first..=last).map(|p| content(from, [p]).into()).collect();
    to.put_pages(first, &pages).unwrap();
}
