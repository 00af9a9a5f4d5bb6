//! The ports: who answers, who is refused, and that garbage harms nobody. Real sockets on loopback, port 0.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use icet::{Identity, NetAddr, NetKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::session::Dialer;
use super::*;
use crate::protocol::ErrorKind;

type Outcome = Result<(), Box<dyn Error>>;

pub(super) fn loopback() -> Vec<SocketAddr> {
    vec![SocketAddr::from(([127, 0, 0, 1], 0))]
}

async fn peer(seed: u8) -> Result<(Net, Context), Box<dyn Error>> {
    let net = Net::bind(NetConfig::new(loopback(), Identity::from_seed(&[seed; 32]))).await?;
    let cx = net.context("test".parse()?);
    Ok((net, cx))
}

fn at(net: &Net) -> SocketAddr {
    net.inner.ports[0].addr
}

#[tokio::test]
async fn both_ends_prove_their_key_over_quic_and_tls() -> Outcome {
    let ((a, ca), (b, cb)) = (peer(1).await?, peer(2).await?);
    let mut quic = cb.accept_quic(b"test/1");
    let mut tls = cb.accept_tls(b"test/1");

    let connection = ca.connect_quic(at(&b), b.key(), b"test/1").await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(b"over quic").await?;
    send.finish()?;
    let (there, who) = quic.recv().await.ok_or("no connection")?;
    assert_eq!(who, a.key());
    let (mut back, mut from) = there.accept_bi().await?;
    assert_eq!(from.read_to_end(100).await?, b"over quic");
    back.write_all(b"answer").await?;
    back.finish()?;
    assert_eq!(recv.read_to_end(100).await?, b"answer");

    let mut stream = ca.connect_tls(at(&b), b.key(), b"test/1").await?;
    stream.write_all(b"over tls").await?;
    stream.shutdown().await?;
    let (mut there, who) = tls.recv().await.ok_or("no connection")?;
    assert_eq!(who, a.key());
    let mut got = Vec::new();
    there.read_to_end(&mut got).await?;
    assert_eq!(got, b"over tls");
    Ok(())
}

/// On loopback far larger packets go through than over Ethernet, and quinn's batches of them are more than one call takes.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn packets_grow_to_what_the_path_takes() -> Outcome {
    let ((_a, ca), (b, cb)) = (peer(1).await?, peer(2).await?);
    let mut quic = cb.accept_quic(b"test/1");
    let connection = ca.connect_quic(at(&b), b.key(), b"test/1").await?;
    let (there, _) = quic.recv().await.ok_or("no connection")?;
    // Both ways.
    for (from, to) in [(&connection, &there), (&there, &connection)] {
        to.set_receive_window(quinn::VarInt::from_u32(4 << 20));
        let (mut send, _) = from.open_bi().await?;
        let sent = tokio::spawn(async move {
            for _ in 0..64 {
                send.write_chunk(Bytes::from(vec![7; 1 << 20])).await?;
            }
            send.finish()?;
            Ok::<_, Box<dyn Error + Send + Sync>>(())
        });
        let (_, mut receive) = to.accept_bi().await?;
        let mut got = 0;
        while let Some(chunk) = receive.read_chunk(usize::MAX, true).await? {
            got += chunk.bytes.len();
        }
        assert_eq!(got, 64 << 20);
        sent.await?.map_err(|e| e.to_string())?;
        let path = from.stats().path;
        assert!(path.current_mtu > 15_000 && path.black_holes_detected == 0, "{path:?}");
    }
    Ok(())
}

#[tokio::test]
async fn another_key_and_another_protocol_are_told_apart() -> Outcome {
    let ((a, ca), (b, cb)) = (peer(1).await?, peer(2).await?);
    let _quic = cb.accept_quic(b"test/1");
    let _tls = cb.accept_tls(b"test/1");
    let kind = |r: Option<crate::protocol::TransportError>| r.map(|e| e.kind);
    // a's own key is not what b has.
    assert_eq!(kind(ca.connect_quic(at(&b), a.key(), b"test/1").await.err()), Some(ErrorKind::WrongKey));
    assert_eq!(kind(ca.connect_tls(at(&b), a.key(), b"test/1").await.err()), Some(ErrorKind::WrongKey));
    assert_eq!(kind(ca.connect_quic(at(&b), b.key(), b"test/2").await.err()), Some(ErrorKind::Protocol));
    assert_eq!(kind(ca.connect_tls(at(&b), b.key(), b"test/2").await.err()), Some(ErrorKind::Protocol));
    let gone = at(&b);
    b.shutdown().await;
    assert_eq!(kind(ca.connect_tls(gone, b.key(), b"test/1").await.err()), Some(ErrorKind::Unreachable));
    Ok(())
}

/// A TLS client without a certificate gets nowhere: a peer is its key.
#[tokio::test]
async fn a_client_without_a_key_is_refused() -> Outcome {
    #[derive(Debug)]
    struct Anything;
    use rustls::client::danger::*;
    impl ServerCertVerifier for Anything {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            vec![rustls::SignatureScheme::ED25519]
        }
    }
    let (b, cb) = peer(2).await?;
    let mut tls = cb.accept_tls(b"test/1");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"test/1".to_vec()];
    let tcp = TcpStream::connect(at(&b)).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = rustls::pki_types::ServerName::try_from("a")?;
    // In TLS 1.3 the client learns of it with its first read.
    if let Ok(mut stream) = connector.connect(name, tcp).await {
        let mut byte = [0];
        assert!(stream.read(&mut byte).await.is_err());
    }
    b.shutdown().await;
    assert!(tls.recv().await.is_none());
    Ok(())
}

/// The rest of its first bytes cannot come any more: nobody waits for it, nor looks again and again.
#[tokio::test]
async fn who_goes_in_the_middle_of_its_first_bytes_is_given_up() -> Outcome {
    let hour = Duration::from_secs(3600);
    let patience = Patience { first_bytes: hour, ..Patience::default() };
    let config = NetConfig { patience, ..NetConfig::new(loopback(), Identity::from_seed(&[1; 32])) };
    let net = Net::bind(config).await?;
    let _taker = net.context("test".parse()?).accept_tcp(|b| b.starts_with(b"GET "));
    let mut stream = TcpStream::connect(at(&net)).await?;
    stream.write_all(b"GE").await?;
    stream.shutdown().await?;
    let end = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0])).await?;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    Ok(())
}

/// More connections that say nothing, and more handshakes that stop, than there are places: others still get in.
#[tokio::test]
async fn strangers_make_room_for_newer_ones() -> Outcome {
    let ((a, ca), (_b, cb)) = (peer(1).await?, peer(2).await?);
    let mut tls = ca.accept_tls(b"test/1");
    let mut plain = ca.accept_tcp(|b| b.starts_with(b"GET "));
    let mut strangers = Vec::new();
    for n in 0..700_u32 {
        let mut stream = TcpStream::connect(at(&a)).await?;
        if n % 2 == 0 {
            // The beginning of a record, whose rest never comes.
            stream.write_all(&[0x16, 3, 1, 1, 0]).await?;
        }
        strangers.push(stream);
    }
    let mut stream = cb.connect_tls(at(&a), a.key(), b"test/1").await?;
    stream.write_all(b"x").await?;
    let (mut there, _) = tls.recv().await.ok_or("no connection")?;
    assert_eq!(there.read_u8().await?, b'x');
    let mut stream = TcpStream::connect(at(&a)).await?;
    stream.write_all(b"GET / HTTP/1.1").await?;
    assert!(plain.recv().await.is_some());
    // Nobody waited for the time that strangers have to run out.
    let first = strangers.first_mut().ok_or("no stranger")?;
    let end = tokio::time::timeout(Duration::from_secs(20), first.read(&mut [0])).await?;
    assert!(matches!(end, Ok(0) | Err(_)), "the oldest stranger is still there: {end:?}");
    Ok(())
}

#[tokio::test]
async fn dial_back_proves_a_key_over_both_carriers_and_nothing_else() -> Outcome {
    let (b, _cb) = peer(2).await?;
    let dialer = Dialer::new(&Identity::from_seed(&[9; 32]))?;
    let patience = Duration::from_secs(5);
    for addr in b.local_addrs() {
        dialer.dial_back(addr, b.key(), patience).await?;
        let other = Identity::from_seed(&[3; 32]).key();
        let refused = dialer.dial_back(addr, other, patience).await;
        assert!(matches!(refused, Err(DialError::WrongKey { got, .. }) if got == b.key()), "{refused:?}");
    }
    for nobody in ["0.0.0.0:9", "224.0.0.1:9", "255.255.255.255:9", "127.0.0.1:0"] {
        let addr = NetAddr { kind: NetKind::Udp, at: nobody.parse()? };
        let refused = dialer.dial_back(addr, b.key(), patience).await;
        assert!(matches!(refused, Err(DialError::Unreachable { .. })), "{nobody}: {refused:?}");
    }
    Ok(())
}

/// Takes what begins with 30, changes what begins with 31.
#[derive(Debug)]
struct Greedy(mpsc::Sender<Option<u8>>);

impl DatagramTap for Greedy {
    fn take(&self, _: Instant, datagram: &mut [u8], _: SocketAddr) -> bool {
        let taken = datagram[0] == 30;
        if taken {
            let _ = self.0.try_send(Some(datagram[1]));
        } else {
            datagram[1] += 1;
        }
        taken
    }

    fn flush(&self) {
        let _ = self.0.try_send(None);
    }
}

async fn tap(here: &Datagrams, there: &mut Datagrams, from: SocketAddr, to: SocketAddr) -> Outcome {
    let (tell, mut told) = mpsc::channel(8);
    let greedy: Arc<dyn DatagramTap> = Arc::new(Greedy(tell));
    there.tap(Arc::downgrade(&greedy));
    here.send_to(&[30, 7], to).await?;
    assert_eq!((told.recv().await, told.recv().await), (Some(Some(7)), Some(None)));
    here.send_to(&[31, 7], to).await?;
    assert_eq!(there.recv().await.map(|(d, from)| (d.to_vec(), from)), Some((vec![31, 8], from)));
    assert_eq!(told.recv().await, Some(None), "nothing that it left");
    drop(greedy);
    here.send_to(&[30, 7], to).await?;
    assert_eq!(there.recv().await.map(|d| d.0.to_vec()), Some(vec![30, 7]), "it is gone");
    Ok(())
}

#[tokio::test]
async fn raw_datagrams_and_quic_share_the_port() -> Outcome {
    let ((a, ca), (b, cb)) = (peer(1).await?, peer(2).await?);
    let mut quic = cb.accept_quic(b"test/1");
    let here = ca.datagrams(20..=63)?;
    let mut there = cb.datagrams(20..=63)?;
    assert!(cb.datagrams(63..=63).is_err());
    let connection = ca.connect_quic(at(&b), b.key(), b"test/1").await?;
    let (accepted, _) = quic.recv().await.ok_or("no connection")?;
    // 1 MiB over QUIC while datagrams go both ways past it.
    let load = tokio::spawn(async move {
        let mut send = connection.open_bi().await?.0;
        send.write_all(&vec![5; 1 << 20]).await?;
        send.finish()?;
        send.stopped().await?;
        Ok::<_, Box<dyn Error + Send + Sync>>(connection)
    });
    let sink = tokio::spawn(async move {
        let mut recv = accepted.accept_bi().await?.1;
        let got = recv.read_to_end(2 << 20).await?;
        Ok::<_, Box<dyn Error + Send + Sync>>((got.len(), accepted))
    });
    for i in 0..64u8 {
        here.send_to(&[20, i, i], at(&b)).await?;
        let (got, from) = there.recv().await.ok_or("closed")?;
        assert_eq!((&got[..], from), (&[20, i, i][..], at(&a)));
    }
    let batch = here.sender().max_segments().min(8);
    let many: Vec<u8> = (0..batch).flat_map(|i| [21, u8::try_from(i).unwrap_or(0), 0, 0]).collect();
    here.sender().send_many(&many, 4, at(&b)).await?;
    for i in 0..batch {
        let (got, _) = there.recv().await.ok_or("closed")?;
        assert_eq!(&got[..], &many[4 * i..4 * i + 4]);
    }
    assert!(here.send_to(&[64], at(&b)).await.is_err(), "a first byte of QUIC's");
    // What is nobody's goes to quinn, which drops it.
    let stranger = UdpSocket::bind("127.0.0.1:0").await?;
    stranger.send_to(&[200; 30], at(&b)).await?;
    stranger.send_to(&[3; 3], at(&b)).await?;
    stranger.send_to(&[22, 1], at(&b)).await?;
    assert_eq!(there.recv().await.map(|d| d.0), Some(Bytes::from_static(&[22, 1])));
    tap(&here, &mut there, at(&a), at(&b)).await?;
    let _connection = load.await?.map_err(|e| e.to_string())?;
    assert_eq!(sink.await?.map_err(|e| e.to_string())?.0, 1 << 20);
    Ok(())
}

fn letters(seen: &[u8]) -> bool {
    seen.len() >= 4 && seen.starts_with(b"GET ")
}

#[tokio::test]
async fn plain_connections_are_told_apart_by_their_first_bytes() -> Outcome {
    let (b, cb) = peer(2).await?;
    let mut plain = cb.accept_tcp(letters);
    // Byte by byte is enough.
    let mut slow = TcpStream::connect(at(&b)).await?;
    slow.set_nodelay(true)?;
    for byte in b"GET /" {
        slow.write_all(&[*byte]).await?;
        tokio::task::yield_now().await;
    }
    let (mut there, from) = plain.recv().await.ok_or("none")?;
    assert_eq!(from, slow.local_addr()?);
    let mut got = [0; 5];
    there.read_exact(&mut got).await?;
    assert_eq!(&got, b"GET /", "nothing was taken");
    // Garbage is closed at once, without waiting for the timeout.
    let mut garbage = TcpStream::connect(at(&b)).await?;
    garbage.write_all(&[0x80; 64]).await?;
    let mut rest = Vec::new();
    let closed = garbage.read_to_end(&mut rest).await;
    assert!(rest.is_empty() && closed.is_ok_and(|n| n == 0) || rest.is_empty());
    // TLS garbage too.
    let mut garbage = TcpStream::connect(at(&b)).await?;
    garbage.write_all(&[0x16, 3, 1, 0, 5, 9, 9, 9, 9, 9, 9]).await?;
    let mut rest = Vec::new();
    let _ = garbage.read_to_end(&mut rest).await;
    assert!(rest.len() < 64, "at most an alert");
    // And the port still works.
    let dialer = Dialer::new(&Identity::from_seed(&[9; 32]))?;
    for addr in b.local_addrs() {
        dialer.dial_back(addr, b.key(), Duration::from_secs(5)).await?;
    }
    Ok(())
}

/// A connection that says nothing, or half of something, is closed after its time.
#[tokio::test]
async fn silent_connections_are_closed() -> Outcome {
    let short = Duration::from_millis(20);
    let mut config = NetConfig::new(loopback(), Identity::from_seed(&[2; 32]));
    config.patience = Patience { first_bytes: short, handshake: short, hello: short };
    let b = Net::bind(config).await?;
    let mut silent = TcpStream::connect(at(&b)).await?;
    let mut half = TcpStream::connect(at(&b)).await?;
    half.write_all(&[0x16, 3]).await?;
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
    let _ = half.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    Ok(())
}

/// One who says half a word and leaves is let go at once; on this one thread, it would otherwise be the end of everything.
#[tokio::test]
async fn who_leaves_in_the_middle_of_a_word_is_forgotten() -> Outcome {
    let (b, cb) = peer(2).await?;
    let _plain = cb.accept_tcp(letters);
    for said in [&b"G"[..], b"GE", b"no", b"\x16"] {
        let mut gone = TcpStream::connect(at(&b)).await?;
        gone.write_all(said).await?;
        gone.shutdown().await?;
        let mut rest = Vec::new();
        let answer = tokio::time::timeout(Duration::from_secs(30), gone.read_to_end(&mut rest)).await;
        assert!(answer.is_ok(), "{said:?}: the connection is still open");
    }
    b.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_port_in_use_is_named() -> Outcome {
    let (a, _) = peer(1).await?;
    let taken = at(&a);
    let config = NetConfig::new(vec![taken], Identity::from_seed(&[2; 32]));
    let error = Net::bind(config).await.err().ok_or("bound twice")?;
    assert!(matches!(error, BindError::InUse { addr, .. } if addr == taken));
    assert!(
        error.to_string().contains(&taken.to_string()) && error.to_string().contains("choose another port")
    );
    assert!(matches!(
        Net::bind(NetConfig::new(vec!["192.0.2.1:0".parse()?], Identity::from_seed(&[2; 32]))).await,
        Err(BindError::NotOurs { .. })
    ));
    assert!(matches!(
        Net::bind(NetConfig::new(Vec::new(), Identity::from_seed(&[2; 32]))).await,
        Err(BindError::NoAddress)
    ));
    Ok(())
}

#[tokio::test]
async fn both_families_share_a_port_number_and_shutdown_ends_tasks() -> Outcome {
    let Ok(both) = Net::bind(NetConfig::new(vec!["[::]:0".parse()?], Identity::from_seed(&[1; 32]))).await
    else {
        return Ok(()); // no IPv6 here
    };
    let port = at(&both).port();
    let v4 = SocketAddr::from(([127, 0, 0, 1], port));
    let dialer = Dialer::new(&Identity::from_seed(&[9; 32]))?;
    for kind in [NetKind::Udp, NetKind::Tcp] {
        dialer.dial_back(NetAddr { kind, at: v4 }, both.key(), Duration::from_secs(5)).await?;
    }
    assert!(both.reach(v4.ip()).iter().any(|a| a.at == v4), "the address that reaches 127.0.0.1 is itself");
    // Where a tracker is reached over IPv6, it hears of the way over IPv4 too.
    let way = std::net::UdpSocket::bind("0.0.0.0:0")?;
    if way.connect("192.0.2.1:1").is_ok() {
        let at = SocketAddr::new(way.local_addr()?.ip(), port);
        assert!(both.reach("::1".parse()?).iter().any(|a| a.at == at), "{at}");
    }
    let cx = both.context("test".parse()?);
    let (told, mut hears) = mpsc::channel::<()>(1);
    let closed = cx.closed().clone();
    cx.spawn(async move {
        closed.cancelled().await;
        drop(told);
    });
    both.shutdown().await;
    assert!(hears.recv().await.is_none());
    Ok(())
}

/// Passes datagrams on between one client and `to`, while `open`.
async fn relay(to: SocketAddr, open: Arc<AtomicBool>) -> Result<SocketAddr, Box<dyn Error>> {
    let near = UdpSocket::bind(("127.0.0.1", 0)).await?;
    let far = UdpSocket::bind(("127.0.0.1", 0)).await?;
    far.connect(to).await?;
    let addr = near.local_addr()?;
    tokio::spawn(async move {
        let (mut there, mut back, mut client) = ([0; 2048], [0; 2048], None);
        loop {
            // A refusal of nobody's port is an error too, of which nothing is to be made.
            tokio::select! {
                got = near.recv_from(&mut there) => if let Ok((n, from)) = got {
                    client = Some(from);
                    if open.load(Ordering::Relaxed) {
                        let _ = far.send(&there[..n]).await;
                    }
                },
                got = far.recv(&mut back) => if let (Ok(n), Some(to)) = (got, client)
                    && open.load(Ordering::Relaxed)
                {
                    let _ = near.send_to(&back[..n], to).await;
                },
            }
        }
    });
    Ok(addr)
}

#[tokio::test]
async fn a_new_start_tells_connections_of_the_old_one_that_they_are_over() -> Outcome {
    let ((_a, ca), (b, cb)) = (peer(1).await?, peer(2).await?);
    let mut quic = cb.accept_quic(b"test/1");
    let open = Arc::new(AtomicBool::new(true));
    let way = relay(at(&b), open.clone()).await?;
    let connection = ca.connect_quic(way, b.key(), b"test/1").await?;
    let (there, _) = quic.recv().await.ok_or("no connection")?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(b"hello").await?;
    let (mut back, from) = there.accept_bi().await?;
    back.write_all(b"hello").await?;
    recv.read_exact(&mut [0; 5]).await?;
    // What says that it ends is lost, as if it had been killed.
    open.store(false, Ordering::Relaxed);
    let again = NetConfig::new(vec![at(&b)], Identity::from_seed(&[2; 32]));
    b.shutdown().await;
    drop((b, there, back, from, quic, cb));
    // The old endpoint lets go of its port in the background.
    let bound = async {
        loop {
            match Net::bind(again.clone()).await {
                Err(BindError::InUse { .. }) => tokio::task::yield_now().await,
                other => break other,
            }
        }
    };
    let _b = tokio::time::timeout(quic::IDLE, bound).await??;
    open.store(true, Ordering::Relaxed);
    send.write_all(b"still there?").await?;
    let end = tokio::time::timeout(quic::IDLE / 3, connection.closed()).await?;
    assert_eq!(end, quinn::ConnectionError::Reset);
    Ok(())
}
