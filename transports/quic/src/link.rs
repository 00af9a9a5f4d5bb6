//! Connections with other peers: one is enough for requests in both directions, whoever opened it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use iceshare::icet::stream::{ALPN, EndCode};
use iceshare::icet::{NetKind, PeerKey};
use iceshare::net::{Context, Place, Served, Slots};
use iceshare::protocol::{ErrorKind, HostAddr, TransportError};
use iceshare::stream::Doubt;
use quinn::{Connection, ConnectionError, VarInt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::config::Config;
use crate::serve::Host;
use crate::wire::Seen;

/// After so long without an answer the next address is dialled beside (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Hosts of which is kept in mind that they are being dialled.
const DIALLING: usize = 1024;

/// What a connection is closed with (stream.md, section 6).
pub(crate) mod close {
    use quinn::VarInt;

    pub(crate) const DONE: VarInt = VarInt::from_u32(0);
    pub(crate) const BUSY: VarInt = VarInt::from_u32(2);
}

/// One connection.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) key: PeerKey,
    /// Its place among those that others opened, if the other end opened it.
    place: Option<Arc<Place>>,
    /// Requests under way, in both directions.
    requests: watch::Sender<usize>,
    /// Those of ours.
    pub(crate) fetches: Arc<AtomicU32>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) doubt: Doubt,
}

/// A request under way: the connection is not idle.
#[derive(Debug)]
pub(crate) struct Busy(watch::Sender<usize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

impl Link {
    fn new(connection: Connection, key: PeerKey, place: Option<Arc<Place>>) -> Link {
        Link {
            connection,
            key,
            place,
            requests: watch::Sender::new(0),
            fetches: Arc::default(),
            seen: Arc::default(),
            doubt: Doubt::default(),
        }
    }

    /// It is of use as long as the guard lives, and is not closed to make room for another; afterwards a ticket still speaks
    /// for it.
    pub(crate) fn serve(&self, ticket: bool) -> Option<Served> {
        self.place.as_ref().map(|place| place.serve(ticket))
    }

    /// Returns when another connection has its place.
    async fn taken(&self) {
        match &self.place {
            Some(place) => place.taken().await,
            None => std::future::pending().await,
        }
    }

    /// One more request.
    pub(crate) fn begin(&self) -> Busy {
        self.requests.send_modify(|n| *n += 1);
        Busy(self.requests.clone())
    }

    pub(crate) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Whether the other end closed it because it has too many.
    pub(crate) fn was_one_too_many(&self) -> bool {
        matches!(self.connection.close_reason(), Some(ConnectionError::ApplicationClosed(c)) if c.error_code == close::BUSY)
    }

    /// Whether it leads to the host where that is now. One that began anew listens elsewhere, and its old end says nothing more.
    fn leads_to(&self, host: &HostAddr) -> bool {
        let remote = self.connection.remote_address();
        let same = |a: SocketAddr| a.port() == remote.port() && a.ip() == remote.ip().to_canonical();
        let mut addrs = host.addrs.iter().filter(|a| a.kind == NetKind::Udp).peekable();
        // Where the other end dialled, a NAT may stand between its address and those that are told.
        self.place.is_some() || addrs.peek().is_none() || addrs.any(|a| same(a.at))
    }

    /// Returns when no request was under way for so long.
    async fn idle(&self, patience: Duration) {
        let mut requests = self.requests.subscribe();
        loop {
            // The sender is ours.
            let _ = requests.wait_for(|n| *n == 0).await;
            tokio::select! {
                () = sleep(patience) => return,
                _ = requests.changed() => {}
            }
        }
    }

    /// Answers what the other end asks, until the connection closes or was idle for long enough.
    pub(crate) async fn tend(&self, links: &Links, cx: &Context, patience: Duration) {
        let idle = self.idle(patience);
        tokio::pin!(idle);
        loop {
            tokio::select! {
                stream = self.connection.accept_bi() => match (stream, links.host.get()) {
                    (Ok((send, receive)), Some(host)) => {
                        let answer = host.answer(self, send, receive);
                        cx.spawn(answer);
                    }
                    (Ok((mut send, mut receive)), None) => {
                        let code = VarInt::from_u32(EndCode::NO_MEDIA.0.into());
                        let _ = (send.reset(code), receive.stop(code));
                    }
                    (Err(_), _) => return,
                },
                () = &mut idle => return self.connection.close(close::DONE, b"idle"),
                () = self.taken() => return self.connection.close(close::BUSY, b"busy"),
                // Answers under way may end; the context's grace limits them.
                () = cx.closed().cancelled() => return,
            }
        }
    }
}

/// All connections of this protocol.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) config: Config,
    /// Set once something is served.
    pub(crate) host: OnceLock<Arc<Host>>,
    open: Mutex<HashMap<PeerKey, Vec<Link>>>,
    /// So that many requests to one host at once make one connection.
    dialling: Mutex<HashMap<PeerKey, Arc<tokio::sync::Mutex<()>>>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    pub(crate) fn new(config: Config) -> Links {
        Links { config, host: OnceLock::new(), open: Mutex::default(), dialling: Mutex::default() }
    }

    /// Keeps a connection that we opened for requests, until [`Links::remove`].
    fn add(&self, connection: Connection, key: PeerKey) -> Link {
        let link = Link::new(connection, key, None);
        lock(&self.open).entry(key).or_default().push(link.clone());
        link
    }

    /// The same of one that the other end opened; none if there is no place for it.
    pub(crate) fn accept(&self, slots: &Slots, connection: Connection, key: PeerKey) -> Option<Link> {
        let slot = slots.enter(connection.remote_address().ip())?;
        let link = Link::new(connection, key, Some(Place::new(slot)));
        lock(&self.open).entry(key).or_default().push(link.clone());
        Some(link)
    }

    pub(crate) fn remove(&self, link: &Link) {
        let mut open = lock(&self.open);
        if let Some(links) = open.get_mut(&link.key) {
            links.retain(|l| l.connection.stable_id() != link.connection.stable_id());
            if links.is_empty() {
                open.remove(&link.key);
            }
        }
    }

    /// The newest connection with the host that is good.
    fn find(&self, host: &HostAddr) -> Option<Link> {
        let good = |l: &&Link| l.is_open() && !l.doubt.is_raised() && l.leads_to(host);
        lock(&self.open).get(&host.key).and_then(|links| links.iter().rev().find(good).cloned())
    }

    /// A connection with the host, and whether it was there before.
    pub(crate) async fn to(
        self: &Arc<Links>,
        cx: &Context,
        host: &HostAddr,
    ) -> Result<(Link, bool), TransportError> {
        if let Some(link) = self.find(host) {
            return Ok((link, true));
        }
        let turn = {
            let mut dialling = lock(&self.dialling);
            if dialling.len() >= DIALLING {
                dialling.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            dialling.entry(host.key).or_default().clone()
        };
        let _turn = turn.lock().await;
        if let Some(link) = self.find(host) {
            return Ok((link, false));
        }
        let connection = self.dial(cx, host).await?;
        let link = self.add(connection, host.key);
        let (links, mine, spawner) = (self.clone(), link.clone(), cx.clone());
        let cx = cx.clone();
        spawner.spawn(async move {
            mine.tend(&links, &cx, links.config.idle_timeout).await;
            links.remove(&mine);
        });
        Ok((link, false))
    }

    /// Dials the host's addresses, each a little after the one before, and takes the first that answers.
    async fn dial(&self, cx: &Context, host: &HostAddr) -> Result<Connection, TransportError> {
        let mut addrs = host.addrs.iter().filter(|a| a.kind == NetKind::Udp).map(|a| a.at);
        let mut last = TransportError::new(ErrorKind::Unreachable, "the host has no UDP address");
        let mut dials = FuturesUnordered::new();
        let mut next = addrs.next();
        loop {
            if let Some(addr) = next.take() {
                dials.push(self.dial_one(cx, addr, host.key));
            }
            let answer = tokio::select! {
                answer = dials.next() => answer,
                () = sleep(STAGGER), if addrs.size_hint().1 != Some(0) => {
                    next = addrs.next();
                    if next.is_some() {
                        continue;
                    }
                    dials.next().await
                }
            };
            match answer {
                Some(Ok(connection)) => return Ok(connection),
                Some(Err(e)) => {
                    // A wrong key says more than silence.
                    if last.kind != ErrorKind::WrongKey {
                        last = e;
                    }
                    next = addrs.next();
                }
                None => return Err(last),
            }
        }
    }

    async fn dial_one(
        &self,
        cx: &Context,
        addr: SocketAddr,
        key: PeerKey,
    ) -> Result<Connection, TransportError> {
        let silent =
            |_| TransportError::new(ErrorKind::Unreachable, format!("no answer from {addr} over UDP"));
        let connection = timeout(self.config.connect_timeout, cx.connect_quic(addr, key, ALPN));
        let connection = connection.await.map_err(silent)??;
        connection.set_receive_window(VarInt::from_u32(self.config.window));
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(self.config.streams));
        Ok(connection)
    }
}
