//! A host, a receiver, and what lies between them.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use iceshare::icet::message::Need;
use iceshare::icet::ticket::TicketBody;
use iceshare::icet::{
    Abilities, HostAddr, Identity, MediaPath, NetAddr, NetKind, Now, PageSet, PeerKey, ProtocolName, Ticket,
    TicketKey,
};
use iceshare::net::{Context, Net, NetConfig};
use iceshare::protocol::{ErrorKind, Piece, Protocol, Request, TransportError, What};
use iceshare::publish::{self, Publish};
use iceshare::shelf::{Anonymous, Clock, Shelf, ShelfConfig};
use iceshare::store::{Store, Target};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::emulator::Emulator;
use crate::failure::ensure;
use crate::media::{self, Media};
use crate::receive::{Expected, Matcher, missing, rest};
use crate::{Failure, Subject};

/// The tracker that hands out the tickets here.
pub const TRACKER: PeerKey = PeerKey([9; 32]);
/// Its epoch.
pub const EPOCH: u64 = 4;
/// Milliseconds of [`patience`].
static PATIENCE: AtomicU64 = AtomicU64::new(45_000);

/// How long cases wait for the next piece, and for what is to be gone. It fits a machine that has much else to do.
#[must_use]
pub fn patience() -> Duration {
    Duration::from_millis(PATIENCE.load(Ordering::Relaxed))
}

/// Has all cases of this process wait that long.
pub fn set_patience(patience: Duration) {
    PATIENCE.store(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Requests without any progress after which a protocol that loses is given up.
const FRUITLESS: u32 = 40;

#[derive(Debug)]
struct Clocks(Instant);

impl Clock for Clocks {
    fn now(&self) -> Now {
        Now::from_origin(self.0.elapsed())
    }
    fn wall_ms(&self) -> u64 {
        wall_ms()
    }
}

/// Milliseconds since 1970, which is tracker time here.
#[must_use]
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// How a peer is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Its upload limit over all protocols, in bytes a second.
    pub up: Option<u64>,
    /// What requests without a ticket get.
    pub anonymous: Anonymous,
}

impl Default for Options {
    fn default() -> Options {
        Options { up: None, anonymous: Anonymous::Allow }
    }
}

/// A peer with one protocol.
#[derive(Debug)]
pub struct Peer {
    /// Its ports.
    pub net: Net,
    /// What the transport sees of it.
    pub cx: Context,
    /// What it serves.
    pub shelf: Arc<Shelf>,
    /// Its media on disk.
    pub store: Store,
    /// The transport.
    pub protocol: Protocol,
    /// What it announces.
    pub endpoint: String,
    /// Its key.
    pub identity: Identity,
    folder: TempDir,
}

impl Peer {
    /// Starts one that serves, with a key that no other has, in no process: transports may find a peer by its key alone.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn start(subject: &Subject, options: Options) -> Result<Peer, Failure> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        seed[8..12].copy_from_slice(&std::process::id().to_be_bytes());
        Peer::start_as(subject, Identity::from_seed(&seed), options).await
    }

    /// The same with a key of one's own.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn start_as(subject: &Subject, identity: Identity, options: Options) -> Result<Peer, Failure> {
        let folder = TempDir::new()?;
        let store = Store::open(folder.path().join("data"))?;
        let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let net = Net::bind(NetConfig::new(listen, identity.clone())).await?;
        let shelf = Shelf::new(ShelfConfig {
            host: identity.key(),
            up: options.up,
            anonymous: options.anonymous,
            clock: Arc::new(Clocks(Instant::now())),
        });
        let protocol = subject.build()?;
        let cx = net.context(protocol.name.clone());
        let endpoint = protocol.implementation.serve(cx.clone(), shelf.clone()).await?;
        shelf.set_ticket_key(TRACKER, EPOCH, ticket_key(&identity.key()), 0);
        Ok(Peer { net, cx, shelf, store, protocol, endpoint, identity, folder })
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> PeerKey {
        self.identity.key()
    }

    /// The protocol's name.
    #[must_use]
    pub fn name(&self) -> &ProtocolName {
        &self.protocol.name
    }

    /// What the transport declares.
    #[must_use]
    pub fn abilities(&self) -> Abilities {
        self.protocol.implementation.abilities()
    }

    /// Publishes pages at a path, and serves them.
    ///
    /// # Errors
    /// If core does not publish it.
    pub fn publish(&self, path: &MediaPath, pages: &[Bytes]) -> Result<Media, Failure> {
        self.publish_as(&self.identity, path, pages)
    }

    /// The same, signed by somebody else.
    ///
    /// # Errors
    /// If core does not publish it.
    pub fn publish_as(&self, who: &Identity, path: &MediaPath, pages: &[Bytes]) -> Result<Media, Failure> {
        let (file, name) =
            tempfile::Builder::new().suffix(".opus").tempfile_in(self.folder.path())?.keep()?;
        drop(file);
        std::fs::write(&name, pages.concat())?;
        let publish = Publish { file: name, path: path.clone(), title: None, repair_to: None };
        let prepared = publish::scan(&self.store, who, &publish, &mut |_| {})?;
        let found = prepared.media().manifest().pages;
        ensure!(found == pages.len() as u64, "the suite's own media: {found} pages of {}", pages.len());
        self.shelf.put(prepared.media());
        Ok(Media::new(prepared.media(), pages))
    }

    /// Serves another peer's media, of which it holds no page yet, and the slices that `proven` says.
    ///
    /// # Errors
    /// The disk's.
    pub fn join(&self, media: &Media, proven: impl IntoIterator<Item = u64>) -> Result<Media, Failure> {
        let mine = self.store.fetch(media.store.manifest().clone(), Target::Own)?;
        for slice in proven {
            let slice = media.store.proven_slice(slice).ok_or_else(|| Failure::new("no such slice"))?;
            mine.put_slice(&slice)?;
        }
        self.shelf.put(mine.clone());
        Ok(media.held_as(mine))
    }

    /// How others reach it.
    #[must_use]
    pub fn address(&self) -> HostAddr {
        let dials = self.protocol.implementation.dials();
        let addrs = self.net.local_addrs().into_iter().filter(|a| Some(a.kind) == dials).collect();
        HostAddr {
            key: self.key(),
            protocol: self.name().clone(),
            addrs,
            endpoint: self.endpoint.clone(),
            abilities: self.abilities(),
        }
    }

    /// A port of it.
    #[must_use]
    pub fn port(&self, kind: NetKind) -> Option<SocketAddr> {
        self.net.local_addrs().iter().find(|a| a.kind == kind).map(|a| a.at)
    }

    /// What a good ticket of this host says.
    #[must_use]
    pub fn ticket_body(&self, media: &Media, receiver: &PeerKey, pages: PageSet, number: u64) -> TicketBody {
        TicketBody {
            tracker: TRACKER,
            epoch: EPOCH,
            assignment: number,
            receiver: *receiver,
            host: self.key(),
            media: media.store.id(),
            version: media.store.manifest().version,
            pages,
            protocol: self.name().clone(),
            rate: None,
            need: Need::Bulk,
            expiry: wall_ms() + 600_000,
        }
    }

    /// Signs a ticket as this host's tracker does.
    #[must_use]
    pub fn issue(&self, body: &TicketBody) -> Ticket {
        ticket_key(&self.key()).issue(body)
    }

    /// Begins a fetch.
    #[must_use]
    pub fn fetch(&self, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
        self.protocol.implementation.fetch(self.cx.clone(), request)
    }

    /// Bytes that the shelf let the protocol send.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.shelf.served_totals().by_protocol.get(self.name()).copied().unwrap_or(0)
    }
}

fn ticket_key(host: &PeerKey) -> TicketKey {
    TicketKey::derive(&[7; 32], host)
}

/// How a fetch ended.
pub type End = Result<(), TransportError>;

/// A host and a receiver.
#[derive(Debug)]
pub struct World {
    /// What is tested.
    pub subject: Subject,
    /// Who serves.
    pub host: Peer,
    /// Who fetches.
    pub receiver: Peer,
    /// Where the receiver dials instead of the host itself.
    pub route: Option<SocketAddr>,
    /// The network between them, if it is not loopback as it is.
    pub network: Option<Emulator>,
}

impl World {
    /// Starts both with default options.
    ///
    /// # Errors
    /// If that is not possible.
    pub async fn new(subject: &Subject) -> Result<World, Failure> {
        World::with(subject, Options::default()).await
    }

    /// Starts both, the host with these options.
    ///
    /// # Errors
    /// If that is not possible.
    pub async fn with(subject: &Subject, options: Options) -> Result<World, Failure> {
        let host = Peer::start(subject, options).await?;
        let receiver = Peer::start(subject, Options::default()).await?;
        let mut world = World { subject: subject.clone(), host, receiver, route: None, network: None };
        if let (Some(link), Some(to)) = (subject.link(), world.host.port(NetKind::Udp)) {
            let network = Emulator::start(to, link).await?;
            world.route = Some(network.addr());
            world.network = Some(network);
        }
        Ok(world)
    }

    /// Whether the transport declares it.
    #[must_use]
    pub fn can(&self, abilities: Abilities) -> bool {
        self.host.abilities().has(abilities)
    }

    /// A request for a part of a media of the host, without a ticket.
    #[must_use]
    pub fn request(&self, media: &Media, what: What) -> Request {
        let mut host = self.host.address();
        if let (Some(at), Some(kind)) = (self.route, self.host.protocol.implementation.dials()) {
            host.addrs = vec![NetAddr { kind, at }];
        }
        Request {
            host,
            path: media.store.path().clone(),
            media: media.store.id(),
            version: media.store.manifest().version,
            what,
            ticket: None,
        }
    }

    /// The same with a ticket for these pages; `number` is the assignment's.
    #[must_use]
    pub fn ticketed(&self, media: &Media, what: What, pages: PageSet, number: u64) -> Request {
        let body = self.host.ticket_body(media, &self.receiver.key(), pages, number);
        Request { ticket: Some(self.host.issue(&body)), ..self.request(media, what) }
    }

    /// Pages of a set, in the best unit that the protocol takes (of one that takes bytes or time, from the first to the
    /// last of them).
    #[must_use]
    pub fn unit(&self, media: &Media, set: PageSet) -> What {
        let last = set.last.unwrap_or(u64::MAX).min(media.pages() - 1);
        if self.can(Abilities::PAGES) {
            // Who takes no open ends is not asked for one.
            let last = if self.can(Abilities::OPEN) { set.last } else { Some(last) };
            What::Pages(PageSet { last, ..set })
        } else if self.can(Abilities::BYTES) {
            What::Bytes { first: media.offset(set.first), last: Some(media.offset(last + 1) - 1) }
        } else {
            let time = |page| media.store.span(page).map(|s| u64::try_from(s.time).unwrap_or(0));
            What::Time { from: time(set.first).unwrap_or(0), to: time(last + 1) }
        }
    }

    /// Begins a fetch of the receiver.
    #[must_use]
    pub fn stream(&self, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
        self.receiver.fetch(request)
    }

    /// Another receiver, that has no connection yet: one may be kept for a host's key, whatever its address.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn visitor(&self) -> Result<Peer, Failure> {
        Peer::start(&self.subject, Options::default()).await
    }

    /// Carries a request out, and compares what comes with what is expected: which parts of it came, and the end.
    ///
    /// # Errors
    /// If something else came, or nothing at all for [`patience`].
    pub async fn fetch(
        &self,
        request: Request,
        expected: &Expected,
    ) -> Result<(Vec<Range<u64>>, End), Failure> {
        self.fetch_as(&self.receiver, request, expected).await
    }

    /// The same as another receiver.
    ///
    /// # Errors
    /// As [`World::fetch`].
    pub async fn fetch_as(
        &self,
        receiver: &Peer,
        request: Request,
        expected: &Expected,
    ) -> Result<(Vec<Range<u64>>, End), Failure> {
        let served = self.host.served();
        let mut stream = receiver.fetch(request);
        let mut matcher = Matcher::new(expected, self.can(Abilities::ORDERED));
        let end = loop {
            match next(&mut stream).await? {
                Some(Ok(piece)) => matcher.push(&piece)?,
                Some(Err(e)) => break Err(e),
                None => break Ok(()),
            }
            // Others may be served beside it; what came of this one was permitted before in any case.
            let permitted = self.host.served() - served;
            ensure!(
                matcher.bytes() <= permitted,
                "{} bytes came, but the shelf permitted {permitted}: await Admission::permit before each write",
                matcher.bytes()
            );
        };
        matcher.end(end.is_ok())?;
        Ok((matcher.finish()?, end))
    }

    /// Fetches until all came that is expected; asks again for what is missing if the protocol does not promise
    /// to deliver everything.
    ///
    /// # Errors
    /// If it does not come, or something else does.
    pub async fn whole(&self, media: &Media, what: What) -> Result<(), Failure> {
        let expected = Expected::of(media, what);
        let (mut what, mut covered, mut fruitless) = (expected.what.clone(), Vec::new(), 0);
        // Where the answer's first byte stands in the media, if it has no holes and bytes can be asked for.
        let base = match &expected.what {
            What::Pages(s) if s.stripe.is_none() && self.can(Abilities::BYTES) => Some(media.offset(s.first)),
            What::Bytes { first, .. } => Some(*first),
            _ => None,
        };
        loop {
            let shown = format!("{what:?}");
            let part = Expected::of(media, what.clone());
            let shift = shift(&expected, &part, media);
            let (came, end) =
                self.fetch(self.request(media, what), &part).await.map_err(|e| e.when(&shown))?;
            let before: u64 =
                missing(expected.bytes.len() as u64, &covered).iter().map(|r| r.end - r.start).sum();
            covered.extend(came.into_iter().map(|r| r.start + shift..r.end + shift));
            let left = missing(expected.bytes.len() as u64, &covered);
            let Some(gap) = left.first() else {
                return match end {
                    // Where something may be lost, the last word may be.
                    Err(e) if self.can(Abilities::ORDERED) || !e.kind.retryable() => {
                        Err(Failure::from(e).when(format!("{shown} ended after all had come")))
                    }
                    _ => Ok(()),
                };
            };
            if self.can(Abilities::ORDERED) {
                let why =
                    end.err().map_or("and ended well".to_owned(), |e| format!("and then {:?}: {e}", e.kind));
                return Err(Failure::new(format!("{shown}: bytes {gap:?} of it did not come, {why}")));
            }
            if let Err(e) = end
                && !e.kind.retryable()
            {
                return Err(Failure::from(e).when(&shown));
            }
            let after: u64 = left.iter().map(|r| r.end - r.start).sum();
            fruitless = if after < before { 0 } else { fruitless + 1 };
            ensure!(
                fruitless < FRUITLESS,
                "{shown}: nothing new in {fruitless} requests, {after} bytes are missing"
            );
            what = rest(&expected, gap, base);
        }
    }

    /// Expects an error of this kind, and nothing before it.
    ///
    /// # Errors
    /// If it is another, or none.
    pub async fn refused(&self, request: Request, kind: ErrorKind) -> Result<(), Failure> {
        let what = format!("{:?} of {:?}", request.what, request.path.as_str());
        let mut stream = self.stream(request);
        loop {
            match next(&mut stream).await.map_err(|e| e.when(&what))? {
                Some(Ok(Piece::Bytes(b) | Piece::Fragment { bytes: b, .. })) if !b.is_empty() => {
                    return Err(Failure::new(format!("{what}: {} bytes instead of {kind:?}", b.len())));
                }
                Some(Ok(_)) => {}
                Some(Err(e)) => {
                    ensure!(e.kind == kind, "{what}: {:?} ({e}) instead of {kind:?}", e.kind);
                    return Ok(());
                }
                None => return Err(Failure::new(format!("{what}: it ended well instead of {kind:?}"))),
            }
        }
    }

    /// Fetches once, and takes whatever comes, which must not be more than `most` bytes; how many, and how it ended. None: it is
    /// silent for `patience`.
    ///
    /// # Errors
    /// If more comes.
    pub async fn anything(
        &self,
        request: Request,
        most: u64,
        patience: Duration,
    ) -> Result<(u64, Option<End>), Failure> {
        anything(self.stream(request), most, patience).await
    }

    /// A media of `count` mixed pages on the host, at `music/kit.opus`.
    ///
    /// # Errors
    /// If core does not publish it.
    pub fn music(&self, count: usize) -> Result<Media, Failure> {
        self.host.publish(&path("music/kit.opus")?, &media::pages(1, media::mixed(1, count)))
    }

    /// Shuts both down.
    pub async fn end(self) {
        self.receiver.net.shutdown().await;
        self.host.net.shutdown().await;
    }
}

/// Where in the whole answer a later part of it begins.
fn shift(whole: &Expected, part: &Expected, media: &Media) -> u64 {
    match (&whole.what, &part.what) {
        (What::Pages(_), What::Pages(s)) => {
            let first = part.marks.first().map_or(s.first, |(p, _)| *p);
            whole.marks.iter().find(|(p, _)| *p == first).map_or(0, |(_, o)| *o)
        }
        (What::Pages(s), What::Bytes { first, .. }) => first - media.offset(s.first),
        (What::Bytes { first: a, .. }, What::Bytes { first: b, .. }) => b - a,
        _ => 0,
    }
}

/// Takes whatever comes; see [`World::anything`].
///
/// # Errors
/// If more than `most` bytes come.
pub async fn anything(
    mut stream: BoxStream<'static, Result<Piece, TransportError>>,
    most: u64,
    patience: Duration,
) -> Result<(u64, Option<End>), Failure> {
    let mut bytes = 0;
    loop {
        let Ok(piece) = timeout(patience, stream.next()).await else { return Ok((bytes, None)) };
        match piece {
            Some(Ok(Piece::Bytes(b) | Piece::Fragment { bytes: b, .. })) => {
                bytes += b.len() as u64;
                ensure!(bytes <= most, "{bytes} bytes came, at most {most} can be of the range");
            }
            Some(Ok(_)) => {}
            Some(Err(e)) => return Ok((bytes, Some(Err(e)))),
            None => return Ok((bytes, Some(Ok(())))),
        }
    }
}

/// The next piece, within [`patience`].
///
/// # Errors
/// If nothing comes.
pub async fn next(
    stream: &mut BoxStream<'static, Result<Piece, TransportError>>,
) -> Result<Option<Result<Piece, TransportError>>, Failure> {
    let late = |_| Failure::new(format!("neither a piece nor an end for {} s", patience().as_secs()));
    timeout(patience(), stream.next()).await.map_err(late)
}

/// A media path.
///
/// # Errors
/// If it is none.
pub fn path(text: &str) -> Result<MediaPath, Failure> {
    Ok(MediaPath::new(text)?)
}
