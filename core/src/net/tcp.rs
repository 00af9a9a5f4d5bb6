//! The TCP port: TLS for IceT's own protocols, and plain connections of payload protocols, told apart by the first
//! bytes. A connection that says nothing, or nothing that anybody knows, is closed.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::net::{RecvFlags, sockopt};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tracing::{debug, warn};

use super::slots::{Slot, SlotLimits, Slots};
use super::{Inner, bind, dial, tls};

/// Most connections that have not yet said what they are, and most TLS handshakes under way; fewer where few files may
/// be open.
const UNDECIDED: usize = 512;
const HANDSHAKES: usize = 512;
/// Bytes that a matcher gets to see.
const PEEK: usize = 16;
/// First byte of a TLS record that begins a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// Between tries after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Places for connections that have shown nothing yet. Who says nothing cannot disturb those who shake hands: saying
/// something is what costs.
#[derive(Debug)]
pub(super) struct Newcomers {
    undecided: Slots,
    handshakes: Slots,
}

impl Newcomers {
    pub(super) fn new() -> Newcomers {
        // Of the files that may be open at most a quarter, so that there are some for whoever is decided.
        let files = bind::open_files() / 8;
        let few = |most: usize| Slots::new(SlotLimits { all: files.clamp(16, most), each: usize::MAX });
        Newcomers { undecided: few(UNDECIDED), handshakes: few(HANDSHAKES) }
    }
}

/// Takes connections until the peer shuts down.
pub(super) async fn accept(inner: Arc<Inner>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = inner.closed.cancelled() => return,
            a = listener.accept() => a,
        };
        let (stream, from) = match accepted {
            Ok(a) => a,
            Err(e) => {
                // Mostly: too many open files. Strangers give some back.
                if !matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    warn!(error = %e, "cannot accept a TCP connection");
                    inner.newcomers.undecided.push_out();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        // There is always one: who is undecided is never served.
        let Some(slot) = inner.newcomers.undecided.enter(from.ip()) else { continue };
        let inner = inner.clone();
        inner.clone().spawn(async move {
            if let Err(e) = decide(&inner, stream, from, slot).await {
                debug!(%from, error = %e, "TCP connection closed");
            }
        });
    }
}

fn crowded() -> io::Error {
    io::Error::other("a newer connection took its place")
}

/// What the first bytes say.
enum Kind {
    Tls,
    Plain(usize),
    Nobody,
}

async fn decide(inner: &Inner, stream: TcpStream, from: SocketAddr, slot: Slot) -> io::Result<()> {
    // Closed without a word, an undecided connection leaves nothing in the kernel either (TIME_WAIT).
    let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
    let first_bytes = timeout(inner.patience.first_bytes, classify(inner, &stream));
    let kind = slot.hold(first_bytes).await.ok_or_else(crowded)???;
    let _ = sockopt::set_socket_linger(&stream, None);
    dial::tame(&stream);
    match kind {
        Kind::Nobody => Ok(()),
        Kind::Plain(i) => {
            let matchers = inner.matchers.read().unwrap_or_else(PoisonError::into_inner);
            match matchers.get(i).map(|m| m.taker.try_send((stream, from))) {
                Some(Ok(())) => Ok(()),
                _ => Err(io::Error::other("its protocol is busy")),
            }
        }
        Kind::Tls => {
            drop(slot);
            let Some(slot) = inner.newcomers.handshakes.enter(from.ip()) else { return Err(crowded()) };
            let config = inner.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
            let handshake = async {
                let accept = TlsAcceptor::from(config).accept(stream);
                hand_over(inner, timeout(inner.patience.handshake, accept).await??).await
            };
            slot.hold(handshake).await.ok_or_else(crowded)?
        }
    }
}

/// Waits for enough bytes to tell, without taking them.
async fn classify(inner: &Inner, stream: &TcpStream) -> io::Result<Kind> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // `WouldBlock` clears the readiness: the next turn comes with more bytes.
        match stream.try_io(Interest::READABLE, || look(inner, stream)) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            seen => return seen,
        }
        // Of a connection that was closed at the other end it never is cleared, and no more bytes come.
        if ready.is_read_closed() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// What the bytes say that are there; `WouldBlock` if they are too few.
fn look(inner: &Inner, stream: &TcpStream) -> io::Result<Kind> {
    let mut buf = [0; PEEK];
    let (_, n) = rustix::net::recv(stream, &mut buf, RecvFlags::PEEK)?;
    let seen = buf.get(..n).unwrap_or(&buf);
    match seen.first() {
        None => return Err(io::ErrorKind::UnexpectedEof.into()),
        Some(&TLS_HANDSHAKE) => return Ok(Kind::Tls),
        Some(_) => {}
    }
    let matchers = inner.matchers.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(i) = matchers.iter().position(|m| !m.taker.is_closed() && (m.matches)(seen)) {
        return Ok(Kind::Plain(i));
    }
    if seen.len() < PEEK { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(Kind::Nobody) }
}

async fn hand_over(inner: &Inner, mut stream: tokio_rustls::server::TlsStream<TcpStream>) -> io::Result<()> {
    let alpn = stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
    if alpn == icet::ALPN_DIAL_BACK {
        // The handshake was the answer.
        return timeout(inner.patience.first_bytes, stream.shutdown()).await?;
    }
    let key = tls::key_of_tls(stream.get_ref().1).map_err(io::Error::other)?;
    let taker = inner.tls_takers.lock().unwrap_or_else(PoisonError::into_inner).get(&alpn[..]).cloned();
    let Some(taker) = taker else {
        return Err(io::Error::other("TLS without a protocol that we have"));
    };
    taker.try_send((TlsStream::Server(stream), key)).map_err(|_| io::Error::other("its protocol is busy"))
}
