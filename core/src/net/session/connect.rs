//! Dialling a tracker: QUIC first (unless the caller knows better), TLS over TCP a little later, the first that stands is the session
//! (in the manner of Happy Eyeballs, RFC 8305).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use icet::message::ToTracker;
use icet::{ALPN, NetAddr, NetKind, PeerKey};
use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout};

use super::super::{DialError, Inner, Net, dial};
use super::{PeerSession, SendError, Session};

/// Addresses of a tracker that are tried.
const ADDRESSES: usize = 4;

/// How to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectOptions {
    /// How long after one try the next begins (if the one before has not failed earlier).
    pub stagger: Duration,
    /// How long it may take in all.
    pub timeout: Duration,
    /// When all tries over TCP have failed, how much longer those over QUIC get.
    pub quic_alone: Duration,
    /// Which carrier is tried first at each address: UDP means QUIC, TCP means TLS.
    pub first: NetKind,
    /// Only this carrier: UDP means QUIC, TCP means TLS.
    pub only: Option<NetKind>,
}

impl Default for ConnectOptions {
    /// 300 ms, 10 s, 2 s, both carriers, QUIC first.
    fn default() -> ConnectOptions {
        ConnectOptions {
            stagger: Duration::from_millis(300),
            timeout: Duration::from_secs(10),
            quic_alone: Duration::from_secs(2),
            first: NetKind::Udp,
            only: None,
        }
    }
}

/// Why there is no session.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The name leads nowhere.
    #[error("no address for {authority}: check the tracker's name")]
    Resolve {
        /// `host:port`.
        authority: String,
        /// What the resolver says.
        #[source]
        source: io::Error,
    },
    /// No answer, over any address and carrier.
    #[error("the tracker at {authority} cannot be reached ({tried})")]
    Unreachable {
        /// `host:port`.
        authority: String,
        /// What was tried, and what happened.
        tried: String,
    },
    /// Another key answered than the link (or the first use) says.
    #[error("{addr} answered with key {got}, but the tracker's key is {expected}")]
    WrongKey {
        /// Where.
        addr: NetAddr,
        /// The pinned key.
        expected: PeerKey,
        /// The key that it proved.
        got: PeerKey,
    },
    /// Something answers there, but it is no tracker, or not one of this version.
    #[error("what answers at {authority} is no tracker of this version ({tried})")]
    Refused {
        /// `host:port`.
        authority: String,
        /// What was tried, and what happened.
        tried: String,
    },
    /// A message of the first flight is too large.
    #[error(transparent)]
    Send(#[from] SendError),
}

/// [`connect_with`] the default options.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    net: &Net,
    authority: &str,
    pin: Option<PeerKey>,
    first_flight: &[ToTracker],
) -> Result<PeerSession, ConnectError> {
    connect_with(net, authority, pin, first_flight, ConnectOptions::default()).await
}

/// Opens a session to the tracker at `authority` (`host:port`, as [`icet::IcetUrl::authority`] gives it) and sends
/// `first_flight` (hello, join, focus) together with the end of the handshake, without waiting for an answer.
/// With a `pin` only a tracker that proves this key will do. Cancel safe: dropped, it leaves nothing behind.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect_with(
    net: &Net,
    authority: &str,
    pin: Option<PeerKey>,
    first_flight: &[ToTracker],
    options: ConnectOptions,
) -> Result<PeerSession, ConnectError> {
    let end = Instant::now() + options.timeout;
    let resolve = |source| ConnectError::Resolve { authority: authority.to_owned(), source };
    let found = timeout(options.timeout, tokio::net::lookup_host(authority)).await;
    let found = found.map_err(|_| resolve(io::ErrorKind::TimedOut.into()))?.map_err(resolve)?;
    let addrs = interleave(found);
    if addrs.is_empty() {
        return Err(resolve(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
    }
    let session = race(net, &addrs, pin, options, end).await.map_err(|e| e.name(authority))?;
    for message in first_flight {
        session.send(message).await?;
    }
    Ok(session)
}

/// At most four, families in turn, in the resolver's order.
fn interleave(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let all: Vec<SocketAddr> = found.collect();
    let first_v6 = all.first().is_some_and(SocketAddr::is_ipv6);
    let (mut a, mut b): (VecDeque<_>, VecDeque<_>) = all.into_iter().partition(|x| x.is_ipv6() == first_v6);
    let mut out: Vec<SocketAddr> = Vec::new();
    while let Some(next) = a.pop_front() {
        if !out.contains(&next) {
            out.push(next);
        }
        if !b.is_empty() {
            std::mem::swap(&mut a, &mut b);
        }
    }
    out.truncate(ADDRESSES);
    out
}

struct Failed(Vec<DialError>);

impl Failed {
    /// The most telling of the failures.
    fn name(self, authority: &str) -> ConnectError {
        let authority = authority.to_owned();
        let tried = self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let mut refused = false;
        for e in self.0 {
            match e {
                DialError::WrongKey { addr, expected, got } => {
                    return ConnectError::WrongKey { addr, expected, got };
                }
                DialError::Refused { .. } | DialError::HungUp { .. } => refused = true,
                DialError::Unreachable { .. } | DialError::Local { .. } => {}
            }
        }
        if refused {
            ConnectError::Refused { authority, tried }
        } else {
            ConnectError::Unreachable { authority, tried }
        }
    }
}

type Try = BoxFuture<'static, Result<PeerSession, DialError>>;

async fn race(
    net: &Net,
    addrs: &[SocketAddr],
    pin: Option<PeerKey>,
    options: ConnectOptions,
    end: Instant,
) -> Result<PeerSession, Failed> {
    let kinds = match options.first {
        NetKind::Udp => [NetKind::Udp, NetKind::Tcp],
        NetKind::Tcp => [NetKind::Tcp, NetKind::Udp],
    };
    let mut tries: VecDeque<NetAddr> = addrs
        .iter()
        .flat_map(|at| kinds.map(|kind| NetAddr { kind, at: *at }))
        .filter(|a| options.only.is_none_or(|k| k == a.kind))
        .collect();
    let mut running: FuturesUnordered<Try> = FuturesUnordered::new();
    let mut failures = Vec::new();
    let (mut next, mut end, mut tcp_left) = (Instant::now(), end, addrs.len());
    loop {
        if Instant::now() >= next
            && let Some(addr) = tries.pop_front()
        {
            running.push(Box::pin(attempt(net.inner.clone(), addr, pin, options.timeout)));
            next = Instant::now() + options.stagger;
        }
        tokio::select! {
            Some(done) = running.next(), if !running.is_empty() => match done {
                Ok(session) => return Ok(session),
                Err(e) => {
                    if let DialError::Unreachable { addr: NetAddr { kind: NetKind::Tcp, .. }, .. } = &e {
                        tcp_left = tcp_left.saturating_sub(1);
                        if tcp_left == 0 {
                            end = end.min(Instant::now() + options.quic_alone);
                        }
                    }
                    failures.push(e);
                    if running.is_empty() && tries.is_empty() {
                        return Err(Failed(failures));
                    }
                    next = Instant::now();
                }
            },
            () = sleep_until(next), if !tries.is_empty() => {}
            () = sleep_until(end) => {
                let silent = |addr| DialError::Unreachable { addr, why: "no answer in time".to_owned() };
                let told: Vec<NetAddr> = failures.iter().map(DialError::addr).collect();
                let all = addrs.iter().flat_map(|at| [NetKind::Udp, NetKind::Tcp].map(|kind| NetAddr { kind, at: *at }));
                failures.extend(all.filter(|a| options.only.is_none_or(|k| k == a.kind) && !told.contains(a)).map(silent));
                return Err(Failed(failures));
            }
        }
    }
}

async fn attempt(
    inner: Arc<Inner>,
    addr: NetAddr,
    pin: Option<PeerKey>,
    patience: Duration,
) -> Result<PeerSession, DialError> {
    match addr.kind {
        NetKind::Udp => {
            let none =
                || DialError::Unreachable { addr, why: "no UDP socket of this address family".to_owned() };
            let port = inner.port_for(addr.at).ok_or_else(none)?;
            let (endpoint, credentials, limits) = (&port.endpoint, &inner.credentials, &inner.limits);
            let dialled = dial::patiently(patience, |patience| {
                dial::dial_quic(endpoint, credentials, limits, addr.at, pin, ALPN, patience)
            });
            let (connection, key) = dialled.await?;
            let refused = |e: quinn::ConnectionError| DialError::Refused { addr, why: e.to_string() };
            let streams = connection.open_bi().await.map_err(refused)?;
            Ok(Session::over_quic(connection, streams, key, addr))
        }
        NetKind::Tcp => {
            let dialled = dial::patiently(patience, |patience| {
                dial::dial_tls(&inner.credentials, addr.at, pin, ALPN, patience)
            });
            let (stream, key) = dialled.await?;
            Ok(Session::over_tls(stream, key, addr))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() -> Result<(), std::net::AddrParseError> {
        let addrs = ["[::1]:1", "[::2]:1", "[::2]:1", "1.1.1.1:1", "[::3]:1", "2.2.2.2:1"];
        let addrs = addrs.map(str::parse::<SocketAddr>).into_iter().collect::<Result<Vec<_>, _>>()?;
        let out: Vec<String> = interleave(addrs.into_iter()).iter().map(ToString::to_string).collect();
        assert_eq!(out, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1"]);
        Ok(())
    }
}
