//! The TCP port: TLS for IceT's own protocols, and plain connections of payload protocols, told apart by the first
//! bytes. A connection that says nothing, or nothing that anybody knows, is closed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tracing::{debug, warn};

use super::{Inner, dial, tls};

/// Connections that have not yet said what they are, and TLS handshakes under way: in all, and from one address.
const UNDECIDED_ALL: usize = 512;
const UNDECIDED_EACH: usize = 64;
/// Bytes that a matcher gets to see.
const PEEK: usize = 16;
/// First byte of a TLS record that begins a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Who has connections that are still undecided.
#[derive(Debug, Default)]
pub(super) struct Undecided(Mutex<HashMap<IpAddr, usize>>);

struct Slot {
    inner: Arc<Inner>,
    ip: IpAddr,
}

impl Undecided {
    fn enter(inner: &Arc<Inner>, ip: IpAddr) -> Option<Slot> {
        let mut all = inner.undecided.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = all.get(&ip).copied().unwrap_or(0);
        // A whole swarm may run on this machine.
        if mine >= UNDECIDED_EACH && !ip.is_loopback() || all.values().sum::<usize>() >= UNDECIDED_ALL {
            return None;
        }
        all.insert(ip, mine + 1);
        Some(Slot { inner: inner.clone(), ip })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut all = self.inner.undecided.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = all.get_mut(&self.ip) {
            *n -= 1;
            if *n == 0 {
                all.remove(&self.ip);
            }
        }
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
                // Mostly: too many open files. Others may free some.
                if !matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    warn!(error = %e, "cannot accept a TCP connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                continue;
            }
        };
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let Some(slot) = Undecided::enter(&inner, from.ip()) else {
            debug!(%from, "too many undecided connections");
            continue;
        };
        let inner = inner.clone();
        inner.clone().spawn(async move {
            if let Err(e) = decide(&inner, stream, from).await {
                debug!(%from, error = %e, "TCP connection closed");
            }
            drop(slot);
        });
    }
}

/// What the first bytes say.
enum Kind {
    Tls,
    Plain(usize),
    Nobody,
}

async fn decide(inner: &Inner, stream: TcpStream, from: SocketAddr) -> io::Result<()> {
    let kind = timeout(inner.patience.first_bytes, classify(inner, &stream)).await??;
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
            let config = inner.tls.read().unwrap_or_else(PoisonError::into_inner).clone();
            let stream =
                timeout(inner.patience.handshake, TlsAcceptor::from(config).accept(stream)).await??;
            hand_over(inner, stream).await
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
