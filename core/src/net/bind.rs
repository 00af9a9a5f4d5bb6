//! Sockets: UDP and TCP on one port number, IPv4 and IPv6.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Resource, getrlimit, setrlimit};
use thiserror::Error;

/// Bytes that the kernel should buffer of each UDP socket, both ways (it may give less).
const UDP_BUFFER: usize = 4 << 20;
/// Connections that wait to be accepted; the system may allow fewer. A stranger's handshake is dropped by the kernel
/// where it is full.
const BACKLOG: i32 = 4096;
/// How often a port that is free for UDP but not for TCP is tried again, when any port will do.
const TRIES: usize = 16;

/// Why no socket could be opened.
#[derive(Debug, Error)]
pub enum BindError {
    /// No address was given.
    #[error("no address to listen on; give one, such as 0.0.0.0:0 for any free port")]
    NoAddress,
    /// Somebody else listens there.
    #[error(
        "{kind} port {addr} is in use: stop the program that has it, or choose another port (port 0 takes any free one)"
    )]
    InUse {
        /// `UDP` or `TCP`.
        kind: &'static str,
        /// The address.
        addr: SocketAddr,
    },
    /// Not an address of this machine.
    #[error("{addr} is no address of this machine; listen on one that is, or on 0.0.0.0 or [::] for all")]
    NotOurs {
        /// The address.
        addr: SocketAddr,
    },
    /// The system refuses.
    #[error("this user may not listen on {kind} {addr}; choose a port above 1023")]
    Forbidden {
        /// `UDP` or `TCP`.
        kind: &'static str,
        /// The address.
        addr: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {kind} {addr}")]
    Io {
        /// `UDP` or `TCP`.
        kind: &'static str,
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] super::tls::TlsError),
}

impl BindError {
    pub(super) fn new(kind: &'static str, addr: SocketAddr, source: io::Error) -> BindError {
        match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { kind, addr },
            io::ErrorKind::AddrNotAvailable => BindError::NotOurs { addr },
            io::ErrorKind::PermissionDenied => BindError::Forbidden { kind, addr },
            _ => BindError::Io { kind, addr, source },
        }
    }
}

/// Lets this process open as many files as the system allows it: each TCP connection takes one, and the usual limit is
/// 1024. For programs to call before they bind.
///
/// # Errors
/// What the system says; the limit is then as it was.
pub fn raise_open_files() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// How many files this process may have open.
pub(super) fn open_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Both sockets of one listening address, not blocking.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    /// With the port that was taken.
    pub(super) addr: SocketAddr,
}

/// Opens UDP and TCP at `addr`. An IPv6 socket takes IPv4 too only if `dual`.
pub(super) fn open(addr: SocketAddr, dual: bool) -> Result<Sockets, BindError> {
    let mut tries = TRIES;
    loop {
        let udp = udp(addr, dual).map_err(|e| BindError::new("UDP", addr, e))?;
        let got = udp.local_addr().map_err(|e| BindError::new("UDP", addr, e))?;
        match tcp(got, dual) {
            Ok(tcp) => return Ok(Sockets { udp, tcp, addr: got }),
            Err(e) if addr.port() == 0 && tries > 1 && e.kind() == io::ErrorKind::AddrInUse => tries -= 1,
            Err(e) => return Err(BindError::new("TCP", got, e)),
        }
    }
}

fn socket(addr: SocketAddr, kind: SocketType, dual: bool) -> io::Result<rustix::fd::OwnedFd> {
    let family = if addr.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let fd = rustix::net::socket(family, kind, None)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, !dual)?;
    }
    Ok(fd)
}

pub(super) fn udp(addr: SocketAddr, dual: bool) -> io::Result<UdpSocket> {
    let fd = socket(addr, SocketType::DGRAM, dual)?;
    // Best effort: the system caps it.
    let _ = sockopt::set_socket_recv_buffer_size(&fd, UDP_BUFFER);
    let _ = sockopt::set_socket_send_buffer_size(&fd, UDP_BUFFER);
    rustix::net::bind(&fd, &addr)?;
    let socket = UdpSocket::from(fd);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn tcp(addr: SocketAddr, dual: bool) -> io::Result<TcpListener> {
    let fd = socket(addr, SocketType::STREAM, dual)?;
    // So that a restart does not wait for connections of the run before (TIME_WAIT).
    sockopt::set_socket_reuseaddr(&fd, true)?;
    rustix::net::bind(&fd, &addr)?;
    rustix::net::listen(&fd, BACKLOG)?;
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The unspecified address of a family.
pub(super) fn any(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// The largest UDP payload that goes to `to` without fragments, as far as the system knows the way: that of the first link,
/// or less where it has heard of a narrower one. None if it does not tell. Sends nothing.
pub(super) fn path_payload(to: SocketAddr) -> Option<u16> {
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    let socket = UdpSocket::bind((any(to.is_ipv6()), 0)).ok()?;
    socket.connect(to).ok()?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let mtu = if to.is_ipv6() { sockopt::ipv6_mtu(&socket).ok()? } else { sockopt::ip_mtu(&socket).ok()? };
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let mtu = return None;
    let headers = if to.is_ipv6() { 48 } else { 28 };
    Some(u16::try_from(mtu.saturating_sub(headers)).unwrap_or(u16::MAX))
}

/// The address of this machine from which packets to `towards` would leave. Sends nothing.
pub(super) fn source_ip(towards: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((any(towards.is_ipv6()), 0)).ok()?;
    socket.connect(towards).ok()?;
    let ip = socket.local_addr().ok()?.ip().to_canonical();
    (!ip.is_unspecified()).then_some(ip)
}
