//! Hosts and receivers that mean no good.

use iceshare::icet::{HostAddr, MediaId, NetAddr, NetKind, PageSet, PeerKey};
use iceshare::protocol::{ErrorKind, Request, What};
use iceshare_tests::{PATIENCE, media};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::raw::{get, say};
use super::{http, pair};
use crate::host::{Host, Made, bytes};

/// What a fetch from a host with this answer comes to.
async fn against(answer: &'static [u8], what: What) -> (usize, Result<(), ErrorKind>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let host = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                request.push(byte);
            }
            let _ = stream.write_all(answer).await;
        }
    });
    let receiver = Host::start(2, Made::of(http())).await;
    let request = Request {
        host: HostAddr {
            key: PeerKey([1; 32]),
            protocol: "http".parse().unwrap(),
            addrs: vec![NetAddr { kind: NetKind::Tcp, at }],
            endpoint: String::new(),
            abilities: receiver.protocol.implementation.abilities(),
        },
        path: "a".parse().unwrap(),
        media: MediaId([2; 32]),
        version: 1,
        what,
        ticket: None,
    };
    let (pieces, end) = timeout(PATIENCE, receiver.fetch(request)).await.unwrap();
    host.abort();
    (bytes(&pieces).len(), end.map_err(|e| e.kind))
}

#[tokio::test]
async fn bad_hosts_are_found_out() {
    use ErrorKind::{Broken, Busy, Denied, NoMedia, NoRange, Protocol};
    let pages = || What::Pages(PageSet::range(10, 19));
    let some = || What::Bytes { first: 0, last: Some(9) };
    let later = || What::Bytes { first: 5, last: Some(9) };
    let cases: &[(&'static str, What, usize, Result<(), ErrorKind>)] = &[
        (
            "HTTP/1.1 206 P\r\nContent-Range: pages 10-19/99\r\nContent-Length: 5\r\n\r\nhello",
            pages(),
            5,
            Ok(()),
        ),
        (
            "HTTP/1.1 206 P\r\nContent-Range: pages 11-19/99\r\nContent-Length: 5\r\n\r\nhello",
            pages(),
            0,
            Err(Protocol),
        ),
        ("HTTP/1.1 206 P\r\nContent-Length: 5\r\n\r\nhello", pages(), 0, Err(Protocol)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", pages(), 0, Err(Protocol)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, world", some(), 10, Ok(())),
        ("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello, world", later(), 0, Err(Protocol)),
        (
            "HTTP/1.1 206 P\r\nContent-Range: bytes 0-9/99\r\nContent-Length: 11\r\n\r\nhello world",
            some(),
            0,
            Err(Protocol),
        ),
        (
            "HTTP/1.1 206 P\r\nContent-Range: bytes 0-9/99\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n",
            some(),
            0,
            Err(Protocol),
        ),
        (
            "HTTP/1.1 206 P\r\nContent-Range: bytes 0-9/99\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            some(),
            5,
            Err(Broken),
        ),
        (
            "HTTP/1.1 206 P\r\nContent-Range: bytes 0-9/99\r\nContent-Length: 10\r\n\r\nhello",
            some(),
            5,
            Err(Broken),
        ),
        (
            "HTTP/1.1 206 P\r\nContent-Encoding: gzip\r\nContent-Range: bytes 0-9/99\r\nContent-Length: 10\r\n\r\nhello worl",
            some(),
            0,
            Err(Protocol),
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n",
            some(),
            0,
            Err(Protocol),
        ),
        ("HTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n", some(), 0, Err(NoMedia)),
        ("HTTP/1.1 412 N\r\nContent-Length: 0\r\n\r\n", some(), 0, Err(NoMedia)),
        ("HTTP/1.1 403 N\r\nContent-Length: 0\r\n\r\n", some(), 0, Err(Denied)),
        ("HTTP/1.1 416 N\r\nContent-Length: 0\r\n\r\n", some(), 0, Err(NoRange)),
        ("HTTP/1.1 503 N\r\nContent-Length: 0\r\n\r\n", some(), 0, Err(Busy)),
        ("HTTP/1.1 503 N\r\nIceShare-Missing-Page: 3\r\nContent-Length: 0\r\n\r\n", some(), 0, Err(NoRange)),
        ("SSH-2.0-OpenSSH_9.9\r\n", some(), 0, Err(Broken)),
        ("", some(), 0, Err(Broken)),
    ];
    for (answer, what, len, end) in cases {
        assert_eq!(against(answer.as_bytes(), what.clone()).await, (*len, *end), "{answer}");
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_the_next_address_is_tried() {
    let (host, media, receiver) = pair(Made::of(http())).await;
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut request = host.request(&media, What::Pages(PageSet::range(0, 0)));
    request.host.addrs.insert(0, NetAddr { kind: NetKind::Tcp, at: dead });
    assert!(receiver.fetch(request.clone()).await.1.is_ok());
    request.host.addrs.truncate(1);
    assert_eq!(receiver.fetch(request.clone()).await.1.unwrap_err().kind, ErrorKind::Unreachable);
    request.host.addrs.clear();
    assert_eq!(receiver.fetch(request).await.1.unwrap_err().kind, ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_header_that_never_ends_is_cut_off() {
    let made = Made { settings: vec![("header-timeout", "1")], ..Made::of(http()) };
    let (host, _, _) = pair(made).await;
    let mut slow = TcpStream::connect(host.addr(NetKind::Tcp)).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nX: ").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, slow.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.len() < 200);
    // And one that is too large.
    let huge = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut stream = TcpStream::connect(host.addr(NetKind::Tcp)).await.unwrap();
    let _ = stream.write_all(huge.as_bytes()).await;
    rest.clear();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    assert!(!rest.starts_with(b"HTTP/1.1 2"));
}

#[tokio::test]
async fn who_does_not_read_loses_the_connection() {
    let made = Made { settings: vec![("stall-timeout", "1"), ("connections", "1")], ..Made::of(http()) };
    let host = Host::start(1, made).await;
    let file = host.dir.path().join("big.opus");
    iceshare_tests::media::opus_like(&file, 40_000_000, 40_000, 5).unwrap();
    let media = host.publish(&file, "big.opus");
    let addr = host.addr(NetKind::Tcp);
    let mut idle = TcpStream::connect(addr).await.unwrap();
    idle.write_all(b"GET /big.opus HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    // It has begun; now it is the only one that the host lets in.
    idle.readable().await.unwrap();
    let head = "HEAD /big.opus HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert_eq!(say(addr, head).await.status, 503);
    timeout(PATIENCE, async { while say(addr, head).await.status != 200 {} }).await.unwrap();
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert!((rest.len() as u64) < media.manifest().bytes, "it was cut off");
}

#[tokio::test]
async fn a_withdrawn_media_is_gone() {
    let (host, media, receiver) = pair(Made::of(http())).await;
    host.shelf.remove(&media.id());
    let end = receiver.fetch(host.request(&media, What::Pages(PageSet::range(0, 0)))).await.1;
    assert_eq!(end.unwrap_err().kind, ErrorKind::NoMedia);
    assert_eq!(get(host.addr(NetKind::Tcp), "/music/a%20b.opus", "").await.status, 404);
}

/// A player that stops reading has no more of an answer taken from the disk than is on its way, and little besides; else some hundreds
/// of them take a gigabyte of the system's memory, and everybody's time.
#[tokio::test]
async fn who_reads_nothing_is_sent_little() {
    const IDLE: u64 = 16;
    let host = Host::start(1, Made::of(http())).await;
    let file = host.dir.path().join("long.opus");
    media::opus_like(&file, 24_000_000, 4200, 6).unwrap();
    let long = host.publish(&file, "music/long.opus");
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let mut stream = TcpStream::connect(host.addr(NetKind::Tcp)).await.unwrap();
        stream.write_all(b"GET /music/long.opus HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut status = [0; 12];
        timeout(PATIENCE, stream.read_exact(&mut status)).await.unwrap().unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        idle.push(stream);
    }
    // While somebody who reads gets all of it.
    let receiver = Host::start(2, Made::of(http())).await;
    let all = What::Pages(PageSet { first: 0, last: None, stripe: None });
    let (pieces, end) = receiver.fetch(host.request(&long, all)).await;
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(bytes(&pieces).len() as u64, long.manifest().bytes);
    let sent = host.shelf.served_totals().anonymous - long.manifest().bytes;
    assert!((IDLE * 1000..IDLE * 1_500_000).contains(&sent), "{sent} bytes for {IDLE} who read nothing");
}
