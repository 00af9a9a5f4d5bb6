//! One UDP socket for QUIC and for the datagrams of payload protocols, told apart by their first byte (RFC 9443).
//!
//! QUIC keeps the bytes that RFC 9443 gives it: 64 to 127 (short headers) and 192 to 255 (long headers); we never
//! offer to grease the fixed bit (RFC 9287), so a peer's QUIC packets do not begin otherwise. The rest, 0 to 63 and
//! 128 to 191, is for transports to register.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::mpsc;

/// Datagrams that wait for their transport; what comes when so many wait is dropped, as a network would.
const QUEUE: usize = 2048;
/// Largest payload of a UDP datagram over IPv4, also of all segments together that the kernel takes in one call.
const LARGEST: usize = 65_507;
/// Route of bytes that belong to QUIC or to nobody.
const QUIC: u8 = u8::MAX;

type Inbound = (Bytes, SocketAddr);

/// Sees a transport's datagrams where the system put them, before they are copied and queued; see [`Datagrams::tap`]. It is called
/// by who reads the socket for all, QUIC included: it does not wait for anything, and nothing that strangers can make costly.
pub trait DatagramTap: fmt::Debug + Send + Sync {
    /// A datagram that came by `now`, and who sent it (which proves nothing). True: that is all of it; false: it is queued.
    fn take(&self, now: Instant, datagram: &mut [u8], from: SocketAddr) -> bool;

    /// All was given that the system had at once.
    fn flush(&self);
}

#[derive(Debug)]
struct Route {
    /// None: its tap panicked, and the transport is over.
    queue: Option<mpsc::Sender<Inbound>>,
    tap: Option<Weak<dyn DatagramTap>>,
    dropped: Arc<AtomicU64>,
}

impl Route {
    fn tap(&self) -> Option<Arc<dyn DatagramTap>> {
        self.tap.as_ref().and_then(Weak::upgrade)
    }
}

/// What a tap does; none if it panics. Who reads the socket does so under QUIC's own lock, which a panic would poison, and all
/// connections with it.
fn isolated<T>(f: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).ok()
}

/// Which first byte goes where; shared by all sockets of a peer.
#[derive(Debug)]
pub(super) struct Routes {
    table: [AtomicU8; 256],
    routes: RwLock<Vec<Option<Route>>>,
}

impl Routes {
    pub(super) fn new() -> Arc<Routes> {
        Arc::new(Routes { table: [const { AtomicU8::new(QUIC) }; 256], routes: RwLock::default() })
    }

    fn of(&self, first: u8) -> u8 {
        self.table[usize::from(first)].load(Ordering::Relaxed)
    }

    /// Takes the datagrams of transports out of a received buffer and moves those of QUIC together, at its start.
    /// The kernel may have merged several datagrams of one sender (GRO), each `stride` bytes long but the last.
    /// Says whether taps saw some.
    fn sort(&self, buf: &mut [u8], meta: &mut RecvMeta) -> bool {
        let len = meta.len.min(buf.len());
        let stride = if meta.stride == 0 { len } else { meta.stride };
        if len == 0 || (0..len).step_by(stride).all(|at| self.of(buf[at]) == QUIC) {
            return false;
        }
        let from = canonical(meta.addr);
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let (mut keep, mut tapped, mut panicked) = (0, false, None);
        let now = Instant::now();
        for at in (0..len).step_by(stride) {
            let end = (at + stride).min(len);
            let to = self.of(buf[at]);
            if to == QUIC {
                buf.copy_within(at..end, keep);
                keep += end - at;
            } else if let Some(Some(route)) = routes.get(usize::from(to)) {
                let datagram = &mut buf[at..end];
                if let Some(tap) = route.tap().filter(|_| panicked != Some(to)) {
                    tapped = true;
                    match isolated(|| tap.take(now, datagram, from)) {
                        Some(true) => continue,
                        Some(false) => {}
                        None => panicked = Some(to),
                    }
                }
                let queued = route.queue.as_ref().filter(|_| panicked != Some(to));
                let queued =
                    queued.is_some_and(|q| q.try_send((Bytes::copy_from_slice(datagram), from)).is_ok());
                if !queued {
                    route.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        drop(routes);
        panicked.into_iter().for_each(|id| self.end(id));
        meta.len = keep;
        tapped
    }

    fn flush(&self) {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let taps = (0_u8..).zip(routes.iter()).filter_map(|(id, r)| Some((id, r.as_ref()?.tap()?)));
        let panicked: Vec<u8> =
            taps.filter(|(_, tap)| isolated(|| tap.flush()).is_none()).map(|(id, _)| id).collect();
        drop(routes);
        panicked.into_iter().for_each(|id| self.end(id));
    }

    /// A tap panicked: its transport hears that its datagrams are over, and all others go on.
    fn end(&self, id: u8) {
        tracing::error!(
            "a payload protocol on the UDP port panicked (see above); it is off until the program is started again"
        );
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(route)) = routes.get_mut(usize::from(id)) {
            (route.tap, route.queue) = (None, None);
        }
    }

    fn set_tap(&self, id: u8, tap: Weak<dyn DatagramTap>) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(route)) = routes.get_mut(usize::from(id)) {
            route.tap = Some(tap);
        }
    }

    /// None if one of the bytes is QUIC's or taken.
    pub(super) fn register(
        self: &Arc<Routes>,
        first: RangeInclusive<u8>,
        sender: DatagramSender,
    ) -> Option<Datagrams> {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let quic = |b: u8| matches!(b, 64..=127 | 192..=255);
        if first.is_empty() || first.clone().any(|b| quic(b) || self.of(b) != QUIC) {
            return None;
        }
        let free = routes.iter().position(Option::is_none).unwrap_or(routes.len());
        let id = u8::try_from(free).ok().filter(|id| *id != QUIC)?;
        let (queue, inbound) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let route = Some(Route { queue: Some(queue), tap: None, dropped: dropped.clone() });
        match routes.get_mut(free) {
            Some(slot) => *slot = route,
            None => routes.push(route),
        }
        for b in first.clone() {
            self.table[usize::from(b)].store(id, Ordering::Relaxed);
        }
        Some(Datagrams { inbound, sender, dropped, first, id, routes: self.clone() })
    }

    fn unregister(&self, first: RangeInclusive<u8>, id: u8) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        for b in first {
            self.table[usize::from(b)].store(QUIC, Ordering::Relaxed);
        }
        if let Some(slot) = routes.get_mut(usize::from(id)) {
            *slot = None;
        }
    }
}

/// The socket that quinn sees.
#[derive(Debug)]
pub(super) struct Demux {
    pub(super) inner: Arc<dyn AsyncUdpSocket>,
    pub(super) routes: Arc<Routes>,
}

impl AsyncUdpSocket for Demux {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(segment) = transmit.segment_size.filter(|_| transmit.contents.len() > LARGEST) else {
            return self.inner.try_send(transmit);
        };
        // Of segments as large as loopback's or jumbo frames', the kernel takes fewer at once than quinn gives. If it is full
        // in between, quinn sends all again, and the other end drops what came twice.
        let at_once = (LARGEST / segment).max(1) * segment;
        transmit.contents.chunks(at_once).try_for_each(|contents| {
            let segment_size = (contents.len() > segment).then_some(segment);
            self.inner.try_send(&Transmit { contents, segment_size, ..*transmit })
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let n = std::task::ready!(self.inner.poll_recv(cx, bufs, meta))?;
        let mut tapped = false;
        for (buf, meta) in bufs.iter_mut().zip(meta.iter_mut()).take(n) {
            tapped |= self.routes.sort(buf, meta);
        }
        if tapped {
            self.routes.flush();
        }
        Poll::Ready(Ok(n))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    /// One: quinn makes its buffers so many times as large as the largest datagram that we take, and the kernel merges no
    /// more than fits into one of those.
    fn max_receive_segments(&self) -> usize {
        1
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Raw datagrams of one transport on the peer's UDP socket. Dropping it gives its first bytes free.
#[derive(Debug)]
pub struct Datagrams {
    inbound: mpsc::Receiver<Inbound>,
    sender: DatagramSender,
    dropped: Arc<AtomicU64>,
    first: RangeInclusive<u8>,
    id: u8,
    routes: Arc<Routes>,
}

impl Datagrams {
    /// The next datagram and who sent it (which proves nothing: addresses can be forged). None: the peer is shut down, or the
    /// [`Datagrams::tap`] panicked, and nothing comes any more. Cancel safe.
    pub async fn recv(&mut self) -> Option<(Bytes, SocketAddr)> {
        self.inbound.recv().await
    }

    /// Waits for a datagram and takes it and at most `most` in all that have come already. How many; 0: as none
    /// of [`Datagrams::recv`]. Cancel safe.
    pub async fn recv_many(&mut self, into: &mut Vec<(Bytes, SocketAddr)>, most: usize) -> usize {
        self.inbound.recv_many(into, most).await
    }

    /// A datagram that has come already.
    pub fn try_recv(&mut self) -> Option<(Bytes, SocketAddr)> {
        self.inbound.try_recv().ok()
    }

    /// Datagrams go to `tap` from now on, and only those that it leaves into the queue. A tap that is dropped sees no more.
    pub fn tap(&self, tap: Weak<dyn DatagramTap>) {
        self.routes.set_tap(self.id, tap);
    }

    /// For sending; as many as wanted.
    #[must_use]
    pub fn sender(&self) -> DatagramSender {
        self.sender.clone()
    }

    /// See [`DatagramSender::send_to`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.sender.send_to(datagram, to).await
    }

    /// Datagrams that came when the queue of 2048 was full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.routes.unregister(self.first.clone(), self.id);
    }
}

/// Sends raw datagrams from the peer's UDP socket.
#[derive(Debug, Clone)]
pub struct DatagramSender {
    /// One for each listening address.
    sockets: Arc<Vec<Arc<dyn AsyncUdpSocket>>>,
    first: (u8, u8),
}

impl DatagramSender {
    pub(super) fn new(sockets: Vec<Arc<dyn AsyncUdpSocket>>, first: &RangeInclusive<u8>) -> DatagramSender {
        DatagramSender { sockets: Arc::new(sockets), first: (*first.start(), *first.end()) }
    }

    /// The socket for an address, and the address in that socket's family.
    fn socket(&self, to: SocketAddr) -> io::Result<(&Arc<dyn AsyncUdpSocket>, SocketAddr)> {
        let family =
            |v6: bool| self.sockets.iter().find(move |s| s.local_addr().is_ok_and(|a| a.is_ipv6() == v6));
        if let Some(s) = family(to.is_ipv6()) {
            return Ok((s, to));
        }
        match (to.ip(), family(true)) {
            // Both families on one socket.
            (IpAddr::V4(ip), Some(s)) => {
                Ok((s, SocketAddrV6::new(ip.to_ipv6_mapped(), to.port(), 0, 0).into()))
            }
            _ => Err(io::Error::new(io::ErrorKind::AddrNotAvailable, "no socket of this address family")),
        }
    }

    /// Sends one datagram; waits while the socket's buffer is full. `Ok` does not mean that it arrives.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if its first byte is not of the registered range (the other end would take
    /// it for something else); [`io::ErrorKind::AddrNotAvailable`] without a socket of that address family; what
    /// the system says.
    pub async fn send_to(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        self.send(datagram, None, to).await
    }

    /// Sends several datagrams with one call of the system where it can (GSO): `datagrams` is cut every `size`
    /// bytes, at most [`DatagramSender::max_segments`] pieces.
    ///
    /// # Errors
    /// As [`DatagramSender::send_to`].
    pub async fn send_many(&self, datagrams: &[u8], size: usize, to: SocketAddr) -> io::Result<()> {
        if size == 0 || datagrams.len().div_ceil(size) > self.max_segments() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more datagrams than one call can send"));
        }
        self.send(datagrams, (datagrams.len() > size).then_some(size), to).await
    }

    /// How many datagrams one [`DatagramSender::send_many`] takes.
    #[must_use]
    pub fn max_segments(&self) -> usize {
        self.sockets.iter().map(|s| s.max_transmit_segments()).min().unwrap_or(1)
    }

    async fn send(&self, contents: &[u8], segment: Option<usize>, to: SocketAddr) -> io::Result<()> {
        let ours = |b: &u8| (self.first.0..=self.first.1).contains(b);
        if !contents.iter().step_by(segment.unwrap_or(usize::MAX)).all(ours) || contents.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the first byte is not of our range"));
        }
        let (socket, destination) = self.socket(to)?;
        let transmit = Transmit { destination, ecn: None, contents, segment_size: segment, src_ip: None };
        loop {
            match socket.try_send(&transmit) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let mut poller = socket.clone().create_io_poller();
                    poll_fn(|cx| poller.as_mut().poll_writable(cx)).await?;
                }
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sender() -> DatagramSender {
        DatagramSender::new(Vec::new(), &(0..=3))
    }

    #[test]
    fn ranges_of_quic_and_taken_ones_are_refused() {
        let routes = Routes::new();
        assert!(routes.register(60..=64, sender()).is_none());
        assert!(routes.register(190..=192, sender()).is_none());
        let first = routes.register(20..=30, sender());
        assert!(first.is_some());
        assert!(routes.register(30..=31, sender()).is_none());
        drop(first);
        assert!(routes.register(30..=31, sender()).is_some());
    }

    proptest! {
        /// Whatever the kernel merged: each datagram comes out once, whole, in order, on its side.
        #[test]
        fn merged_datagrams_are_sorted(stride in 1usize..40, firsts in prop::collection::vec(any::<u8>(), 1..20), last in 1usize..40) {
            let routes = Routes::new();
            let mut ours = routes.register(0..=63, sender()).ok_or_else(|| TestCaseError::fail("register"))?;
            let last = last.min(stride);
            let mut datagrams: Vec<Vec<u8>> = Vec::new();
            for (i, f) in firsts.iter().enumerate() {
                let len = if i + 1 == firsts.len() { last } else { stride };
                let mut d = vec![u8::try_from(i).unwrap_or(0); len];
                d[0] = *f;
                datagrams.push(d);
            }
            let mut buf = datagrams.concat();
            let addr = SocketAddr::from(([127, 0, 0, 1], 9));
            let mut meta = RecvMeta { addr, len: buf.len(), stride, ecn: None, dst_ip: None };
            routes.sort(&mut buf, &mut meta);
            let quic: Vec<u8> = datagrams.iter().filter(|d| d[0] > 63).flatten().copied().collect();
            prop_assert_eq!(&buf[..meta.len], &quic[..]);
            for d in datagrams.iter().filter(|d| d[0] <= 63) {
                let got = ours.try_recv();
                prop_assert_eq!(got.as_ref().map(|g| &g.0[..]), Some(&d[..]));
            }
            prop_assert!(ours.try_recv().is_none());
        }
    }

    /// Panics at every datagram that begins with 1.
    #[derive(Debug)]
    struct Breaks;

    impl DatagramTap for Breaks {
        fn take(&self, _: Instant, datagram: &mut [u8], _: SocketAddr) -> bool {
            assert!(datagram[0] != 1, "a tap that panics");
            false
        }

        fn flush(&self) {}
    }

    #[tokio::test]
    async fn a_tap_that_panics_ends_its_own_transport_and_no_other() {
        let routes = Routes::new();
        let mut broken = routes.register(0..=9, sender()).unwrap();
        let mut sound = routes.register(10..=19, sender()).unwrap();
        let tap: Arc<dyn DatagramTap> = Arc::new(Breaks);
        broken.tap(Arc::downgrade(&tap));
        let addr = SocketAddr::from(([127, 0, 0, 1], 9));
        let receive = |firsts: [u8; 3]| {
            let mut buf = firsts;
            let mut meta = RecvMeta { addr, len: 3, stride: 1, ecn: None, dst_ip: None };
            routes.sort(&mut buf, &mut meta);
            routes.flush();
            buf[..meta.len].to_vec()
        };
        assert_eq!(receive([0, 10, 200]), [200]);
        assert_eq!(receive([1, 11, 201]), [201], "what comes with it is still given out");
        assert_eq!(receive([2, 12, 202]), [202]);
        assert_eq!(broken.recv().await.unwrap().0[0], 0);
        assert!(broken.recv().await.is_none(), "its transport hears that it is over");
        assert_eq!(broken.dropped(), 2);
        for first in [10, 11, 12] {
            assert_eq!(sound.recv().await.unwrap().0[0], first);
        }
        // Its bytes are not QUIC's before it is gone.
        assert_eq!(receive([3, 13, 203]), [203]);
        drop(broken);
        assert!(routes.register(0..=9, sender()).is_some());
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let routes = Routes::new();
        let ours = routes.register(0..=63, sender());
        let addr = SocketAddr::from(([127, 0, 0, 1], 9));
        for _ in 0..QUEUE + 5 {
            let mut buf = [1, 2, 3];
            let mut meta = RecvMeta { addr, len: 3, stride: 3, ecn: None, dst_ip: None };
            routes.sort(&mut buf, &mut meta);
            assert_eq!(meta.len, 0);
        }
        assert_eq!(ours.map(|o| o.dropped()), Some(5));
    }
}
