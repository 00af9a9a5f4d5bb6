//! `gappy`: a host pushes pages in datagrams, as one would over a lossy radio link, and drops some pages on purpose.
//!
//! Datagrams on the peer's UDP port, integers big endian: `kind (40-43), token (8), …`
//! - 40 ASK: cookie (8), media id (32), version (8), then path, page set and ticket, each with its length (2)
//! - 41 DATA: sequence (4), bytes of pages; a page that is left out takes a sequence number, too
//! - 42 END: outcome (1)
//! - 44 PROVE: cookie (8), for the next ASK: that its sender is where he says
//! - 43 HEARD: next sequence number that is expected (4); the largest one: stop

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use iceshare::icet::{MediaId, MediaPath, NetKind, PageSet, PeerKey, frame};
use iceshare::net::{Context, DatagramSender, Datagrams};
use iceshare::protocol::{
    Abilities, ErrorKind, PayloadProtocol, Piece, Request, Setting, SettingError, Settings, TransportError,
    What,
};
use iceshare::shelf::{Ask, Shelf};
use iceshare::store::MediaStore;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

pub(super) const NAME: &str = "gappy";

const SETTINGS: &[Setting] = &[
    Setting { key: "loss", default: "20", about: "per cent of the pages that are left out" },
    Setting { key: "seed", default: "1", about: "which pages those are" },
    Setting {
        key: "fault",
        default: "0",
        about: "1: no cookies are asked for; 2: the order of datagrams is not looked at",
    },
];

iceshare::register_payload_protocol!(NAME, "pages in datagrams, with losses", SETTINGS, Gappy::build);

const ASK: u8 = 40;
const DATA: u8 = 41;
const END: u8 = 42;
const HEARD: u8 = 43;
const PROVE: u8 = 44;
const STOP: u32 = u32::MAX;
/// What can be wrong on purpose.
const NO_COOKIES: u64 = 1;
const NO_ORDER: u64 = 2;
/// Bytes of a page in one datagram.
const PAYLOAD: usize = 1100;
/// Datagrams that may be on their way.
const WINDOW: u32 = 64;
/// Datagrams that wait for the one who fetches.
const QUEUE: usize = 4 * WINDOW as usize;
/// After so long without a word it is said again.
const AGAIN: Duration = Duration::from_millis(200);
/// After so long without a word nobody is there.
const GONE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Gappy {
    loss: u64,
    seed: u64,
    fault: u64,
    /// The datagrams of each peer in this process that uses this value.
    hubs: Mutex<HashMap<PeerKey, Arc<Hub>>>,
}

#[derive(Debug)]
struct Hub {
    sender: DatagramSender,
    shelf: Mutex<Option<(Context, Arc<Shelf>)>>,
    /// Our requests.
    fetches: Mutex<HashMap<u64, mpsc::Sender<Bytes>>>,
    /// Requests that we serve: what their receivers have heard.
    served: Mutex<HashMap<(SocketAddr, u64), watch::Sender<u32>>>,
    /// Where cookies come from.
    cookies: RandomState,
    loss: u64,
    seed: u64,
    fault: u64,
}

impl Gappy {
    fn build(settings: &Settings) -> Result<Arc<dyn PayloadProtocol>, SettingError> {
        let read = settings.of(NAME, SETTINGS);
        let (loss, seed) = (read.number("loss", 0..=100)?, read.number("seed", 0..=u64::MAX)?);
        let fault = read.number("fault", 0..=2)?;
        Ok(Arc::new(Gappy { loss, seed, fault, hubs: Mutex::default() }))
    }

    fn hub(&self, cx: &Context) -> Result<Arc<Hub>, TransportError> {
        let mut hubs = self.hubs.lock().unwrap();
        if let Some(hub) = hubs.get(&cx.identity().key()) {
            return Ok(hub.clone());
        }
        let datagrams = cx.datagrams(ASK..=PROVE)?;
        let hub = Arc::new(Hub {
            sender: datagrams.sender(),
            shelf: Mutex::default(),
            fetches: Mutex::default(),
            served: Mutex::default(),
            cookies: RandomState::new(),
            loss: self.loss,
            seed: self.seed,
            fault: self.fault,
        });
        hubs.insert(cx.identity().key(), hub.clone());
        cx.spawn(hub.clone().hear(datagrams, cx.clone()));
        Ok(hub)
    }
}

/// SplitMix64.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

struct Wanted {
    media: MediaId,
    version: u64,
    path: MediaPath,
    set: PageSet,
    ticket: Option<iceshare::icet::Ticket>,
}

fn ask(token: u64, request: &Request, set: PageSet) -> Vec<u8> {
    let mut out = vec![ASK];
    out.put_u64(token);
    out.put_u64(0);
    out.put_slice(&request.media.0);
    out.put_u64(request.version);
    let ticket = request.ticket.as_ref().map(frame::encode).unwrap_or_default();
    for part in [request.path.as_str().as_bytes(), &frame::encode(&set), &ticket] {
        out.put_u16(u16::try_from(part.len()).unwrap_or(0));
        out.put_slice(part);
    }
    out
}

/// Anything may come: none if it is no request.
fn read_ask(mut b: Bytes) -> Option<Wanted> {
    let mut id = [0; 32];
    b.try_copy_to_slice(&mut id).ok()?;
    let version = b.try_get_u64().ok()?;
    let mut part = || {
        let n = usize::from(b.try_get_u16().ok()?);
        (n <= b.len()).then(|| b.split_to(n))
    };
    let (path, set, ticket) = (part()?, part()?, part()?);
    let ticket = if ticket.is_empty() { None } else { Some(frame::decode(&ticket).ok()?) };
    let path = MediaPath::new(std::str::from_utf8(&path).ok()?).ok()?;
    Some(Wanted { media: MediaId(id), version, path, set: frame::decode(&set).ok()?, ticket })
}

const OUTCOMES: [Option<ErrorKind>; 5] = [
    None,
    Some(ErrorKind::NoMedia),
    Some(ErrorKind::NoRange),
    Some(ErrorKind::Denied),
    Some(ErrorKind::Busy),
];

impl Hub {
    async fn hear(self: Arc<Hub>, mut datagrams: Datagrams, cx: Context) {
        loop {
            let heard = tokio::select! {
                d = datagrams.recv() => d,
                () = cx.closed().cancelled() => None,
            };
            let Some((mut b, from)) = heard else {
                // Those who fetch hear that nothing comes any more.
                return self.fetches.lock().unwrap().clear();
            };
            let (Ok(kind), Ok(token)) = (b.try_get_u8(), b.try_get_u64()) else { continue };
            match kind {
                ASK => self.clone().asked(token, b, from),
                HEARD => {
                    let served = self.served.lock().unwrap();
                    if let (Some(watch), Ok(next)) = (served.get(&(from, token)), b.try_get_u32()) {
                        watch.send_modify(|heard| *heard = next.max(*heard));
                    }
                }
                _ => {
                    let mut whole = vec![kind];
                    whole.extend_from_slice(&b);
                    if let Some(fetch) = self.fetches.lock().unwrap().get(&token) {
                        // Full: lost, as datagrams are.
                        let _ = fetch.try_send(whole.into());
                    }
                }
            }
        }
    }

    fn asked(self: Arc<Hub>, token: u64, mut b: Bytes, from: SocketAddr) {
        let Some((cx, shelf)) = self.shelf.lock().unwrap().clone() else { return };
        let cookie = self.cookies.hash_one(from);
        let Ok(shown) = b.try_get_u64() else { return };
        let Some(wanted) = read_ask(b) else { return };
        if shown != cookie && self.fault != NO_COOKIES {
            // Anybody can write any sender on a datagram: nothing long goes where nobody has answered from.
            let mut prove = vec![PROVE];
            prove.put_u64(token);
            prove.put_u64(cookie);
            let sender = self.sender.clone();
            return cx.spawn(async move {
                let _ = sender.send_to(&prove, from).await;
            });
        }
        let (told, heard) = watch::channel(0);
        let mut served = self.served.lock().unwrap();
        if served.contains_key(&(from, token)) || served.len() >= 256 {
            return;
        }
        served.insert((from, token), told);
        drop(served);
        let hub = self.clone();
        cx.clone().spawn(async move {
            let kind = tokio::select! {
                pushed = hub.push(&cx, &shelf, wanted, token, from, heard) => pushed.err(),
                () = cx.closed().cancelled() => Some(ErrorKind::Busy),
            };
            let outcome = OUTCOMES.iter().position(|o| *o == kind).unwrap_or(0);
            let mut end = vec![END];
            end.put_u64(token);
            end.put_u8(u8::try_from(outcome).unwrap_or(0));
            for _ in 0..3 {
                let _ = hub.sender.send_to(&end, from).await;
            }
            hub.served.lock().unwrap().remove(&(from, token));
        });
    }

    async fn push(
        &self,
        cx: &Context,
        shelf: &Arc<Shelf>,
        wanted: Wanted,
        token: u64,
        to: SocketAddr,
        mut heard: watch::Receiver<u32>,
    ) -> Result<(), ErrorKind> {
        let media = shelf.find_id(&wanted.media).filter(|m| m.path() == &wanted.path);
        let media = media.filter(|m| m.manifest().version == wanted.version).ok_or(ErrorKind::NoMedia)?;
        let pages = media.manifest().pages;
        if wanted.set.next_from(0).is_none_or(|p| p >= pages) {
            return Err(ErrorKind::NoRange);
        }
        let what = What::Pages(wanted.set);
        let protocol = cx.protocol();
        let ask = Ask { media: &media, protocol, what: &what, ticket: wanted.ticket.as_ref(), proved: None };
        let admission = shelf.admit(ask).map_err(|d| d.kind())?;
        let (mut sequence, mut patience) = (0u32, GONE);
        for page in wanted.set.iter(pages) {
            if !arrived(&media, page, wanted.set.last.is_none(), &mut heard).await? {
                return Ok(());
            }
            if mix(self.seed ^ mix(token) ^ mix(page)) % 100 < self.loss {
                sequence += 1;
                continue;
            }
            let span = media.span(page).ok_or(ErrorKind::NoRange)?;
            let len = usize::try_from(span.record.len).unwrap_or(0);
            admission.permit(len).await.map_err(|d| d.kind())?;
            let bytes = media.read(span.offset, len).map_err(|_| ErrorKind::NoRange)?;
            for part in bytes.chunks(PAYLOAD) {
                // What was not heard of in time was lost, or the word of it was: go on.
                while sequence >= heard.borrow().saturating_add(WINDOW) {
                    if timeout(AGAIN, heard.changed()).await.is_err() {
                        patience = patience.checked_sub(AGAIN).ok_or(ErrorKind::Busy)?;
                        break;
                    }
                    patience = GONE;
                }
                if *heard.borrow() == STOP {
                    return Ok(());
                }
                let mut datagram = vec![DATA];
                datagram.put_u64(token);
                datagram.put_u32(sequence);
                datagram.put_slice(part);
                self.sender.send_to(&datagram, to).await.map_err(|_| ErrorKind::Busy)?;
                sequence += 1;
            }
        }
        Ok(())
    }
}

/// Waits for a page if `wait`; false: the receiver is gone.
async fn arrived(
    media: &MediaStore,
    page: u64,
    wait: bool,
    heard: &mut watch::Receiver<u32>,
) -> Result<bool, ErrorKind> {
    let mut changed = media.changed();
    while !media.has(page) {
        if !wait {
            return Err(ErrorKind::NoRange);
        }
        tokio::select! {
            c = timeout(GONE, changed.changed()) => {
                c.map_err(|_| ErrorKind::NoRange)?.map_err(|_| ErrorKind::NoRange)?;
            }
            stopped = heard.wait_for(|h| *h == STOP) => {
                drop(stopped);
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// A request on its way; dropped, it tells the host to stop.
struct Fetch {
    hub: Arc<Hub>,
    cx: Context,
    token: u64,
    to: SocketAddr,
    ask: Vec<u8>,
    inbound: mpsc::Receiver<Bytes>,
    next: u32,
    /// What waits behind a gap.
    held: Option<Bytes>,
    over: bool,
}

impl Fetch {
    fn heard(&self, next: u32) -> Vec<u8> {
        let mut out = vec![HEARD];
        out.put_u64(self.token);
        out.put_u32(next);
        out
    }

    async fn next(&mut self) -> Result<Option<Piece>, TransportError> {
        let failed = |kind, what: &str| TransportError::new(kind, format!("gappy: {what}"));
        if let Some(held) = self.held.take() {
            return Ok(Some(Piece::Bytes(held)));
        }
        let mut patience = GONE;
        while !self.over {
            let Ok(datagram) = timeout(AGAIN, self.inbound.recv()).await else {
                patience = patience.checked_sub(AGAIN).ok_or_else(|| failed(ErrorKind::Broken, "silence"))?;
                if self.next == 0 {
                    let _ = self.hub.sender.send_to(&self.ask, self.to).await;
                }
                continue;
            };
            let Some(mut b) = datagram else {
                let _ = self.hub.sender.send_to(&self.heard(STOP), self.to).await;
                return Err(failed(ErrorKind::Local, "shut down"));
            };
            match b.try_get_u8() {
                Ok(PROVE) if self.next == 0 => {
                    if let (Some(cookie), true) = (self.ask.get_mut(9..17), b.len() == 8) {
                        cookie.copy_from_slice(&b);
                        let _ = self.hub.sender.send_to(&self.ask, self.to).await;
                    }
                }
                Ok(END) => {
                    self.over = true;
                    let outcome = b.try_get_u8().ok().and_then(|o| OUTCOMES.get(usize::from(o)).copied());
                    match outcome {
                        Some(None) => {}
                        Some(Some(kind)) => return Err(failed(kind, "refused")),
                        None => return Err(failed(ErrorKind::Protocol, "an unknown outcome")),
                    }
                }
                Ok(DATA) => {
                    let Ok(mut sequence) = b.try_get_u32() else { continue };
                    if self.hub.fault == NO_ORDER {
                        sequence = self.next;
                    }
                    if sequence < self.next || b.is_empty() {
                        continue;
                    }
                    let gap = sequence > self.next;
                    self.next = sequence + 1;
                    if self.next.is_multiple_of(WINDOW / 4) || gap {
                        let _ = self.hub.sender.send_to(&self.heard(self.next), self.to).await;
                    }
                    if gap {
                        self.held = Some(b);
                        return Ok(Some(Piece::Gap));
                    }
                    return Ok(Some(Piece::Bytes(b)));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.hub.fetches.lock().unwrap().remove(&self.token);
        if !self.over {
            let (stop, sender, to) = (self.heard(STOP), self.hub.sender.clone(), self.to);
            self.cx.spawn(async move {
                let _ = sender.send_to(&stop, to).await;
            });
        }
    }
}

impl PayloadProtocol for Gappy {
    fn abilities(&self) -> Abilities {
        Abilities::PAGES | Abilities::OPEN | Abilities::STRIPES
    }

    fn dials(&self) -> Option<NetKind> {
        Some(NetKind::Udp)
    }

    fn serve(&self, cx: Context, shelf: Arc<Shelf>) -> BoxFuture<'static, Result<String, TransportError>> {
        let hub = self.hub(&cx);
        Box::pin(async move {
            *hub?.shelf.lock().unwrap() = Some((cx, shelf));
            Ok(String::new())
        })
    }

    fn fetch(&self, cx: Context, request: Request) -> BoxStream<'static, Result<Piece, TransportError>> {
        let hub = self.hub(&cx);
        let begin = async move {
            let hub = hub?;
            let What::Pages(set) = request.what else {
                return Err(TransportError::new(ErrorKind::Local, "gappy knows pages only"));
            };
            let to = request.host.addrs.iter().find(|a| a.kind == NetKind::Udp).map(|a| a.at);
            let to = to.ok_or_else(|| TransportError::new(ErrorKind::Unreachable, "no UDP address"))?;
            let (told, inbound) = mpsc::channel(QUEUE);
            let token = RandomState::new().build_hasher().finish();
            hub.fetches.lock().unwrap().insert(token, told);
            if cx.closed().is_cancelled() {
                hub.fetches.lock().unwrap().clear();
            }
            let ask = ask(token, &request, set);
            let fetch = Fetch { hub, cx, token, to, ask, inbound, next: 0, held: None, over: false };
            let sent = fetch.hub.sender.send_to(&fetch.ask, to).await;
            sent.map_err(|e| TransportError::new(ErrorKind::Unreachable, "gappy: not sent").because(e))?;
            Ok(fetch)
        };
        stream::once(begin)
            .flat_map(|begun| match begun {
                Err(e) => stream::iter([Err(e)]).boxed(),
                Ok(fetch) => stream::try_unfold(fetch, |mut fetch| async move {
                    Ok(fetch.next().await?.map(|piece| (piece, fetch)))
                })
                .boxed(),
            })
            .boxed()
    }
}
