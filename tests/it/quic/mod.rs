//! What is QUIC's own in the QUIC transport: keys, connections that are shared, streams that mean no good.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use iceshare::icet::stream::{ALPN, EndCode, PagesAnswer, split};
use iceshare::icet::{NetAddr, NetKind, PageSet, PeerKey};
use iceshare::protocol::{ErrorKind, Registration, Registry, Request, What};
use iceshare::shelf::Anonymous;
use iceshare::store::MediaStore;
use iceshare_tests::{PATIENCE, media};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::host::{Host, Made, bytes, content, give};

/// As it is linked in.
fn quic() -> Registration {
    let _ = iceshare_transport_quic::NAME;
    *Registry::linked().unwrap().registrations().iter().find(|r| r.name == "quic").unwrap()
}

fn made(settings: &[(&'static str, &'static str)]) -> Made {
    Made { settings: settings.to_vec(), ..Made::of(quic()) }
}

/// A host of a media of 300 pages, and a receiver.
async fn pair(host: Made, receiver: Made) -> (Host, Arc<MediaStore>, Host) {
    let host = Host::start(1, host).await;
    let file = host.dir.path().join("a.opus");
    media::opus_like(&file, 1_250_000, 4200, 5).unwrap();
    let published = host.publish(&file, "music/a b.opus");
    (host, published, Host::start(2, receiver).await)
}

fn pages(first: u64, last: u64) -> What {
    What::Pages(PageSet::range(first, last))
}

/// The kind of error that a fetch ends with.
async fn kind(receiver: &Host, request: Request) -> Option<ErrorKind> {
    receiver.fetch(request).await.1.err().map(|e| e.kind)
}

#[tokio::test]
async fn one_connection_carries_requests_both_ways() {
    let (host, media, receiver) = pair(made(&[]), made(&[])).await;
    let theirs = receiver.join(&media);
    give(&media, &theirs, 0, 9);
    // Without an address there is no way but a connection that is there.
    let mut back = receiver.request(&theirs, pages(0, 9));
    back.host.addrs.clear();
    assert_eq!(kind(&host, back.clone()).await, Some(ErrorKind::Unreachable));
    let (pieces, end) = receiver.fetch(host.request(&media, pages(10, 19))).await;
    assert!(end.is_ok() && bytes(&pieces) == content(&media, 10..20), "{end:?}");
    let (pieces, end) = host.fetch(back).await;
    assert!(end.is_ok() && bytes(&pieces) == content(&media, 0..10), "{end:?}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_replaced() {
    let (host, media, receiver) = pair(made(&[("idle-timeout", "1")]), made(&[])).await;
    let request = host.request(&media, pages(3, 3));
    assert!(receiver.fetch(request.clone()).await.1.is_ok());
    // One that is idle for less time than the receiver's.
    let at = host.host_addr().addrs.iter().find(|a| a.kind == NetKind::Udp).unwrap().at;
    let other = receiver.cx.connect_quic(at, host.identity.key(), ALPN).await.unwrap();
    timeout(PATIENCE, other.closed()).await.unwrap();
    let mut kept = request.clone();
    kept.host.addrs.clear();
    assert_eq!(kind(&receiver, kept).await, Some(ErrorKind::Unreachable));
    assert!(receiver.fetch(request).await.1.is_ok());
}

#[tokio::test]
async fn only_the_assignments_host_hears_of_the_ticket() {
    let (host, media, receiver) = pair(made(&[]), made(&[])).await;
    let mut request = host.request(&media, pages(3, 3));
    request.host.key = PeerKey([7; 32]);
    assert_eq!(kind(&receiver, request).await, Some(ErrorKind::WrongKey));
    assert_eq!(host.shelf.served_totals().bytes, 0);
}

#[tokio::test]
async fn a_ticket_is_its_receivers_alone() {
    let denying = Made { anonymous: Anonymous::Deny, ..made(&[]) };
    let (host, media, receiver) = pair(denying, made(&[])).await;
    let thief = Host::start(3, made(&[])).await;
    let mut request = host.request(&media, pages(10, 19));
    request.ticket = Some(host.ticket(&media, &receiver, PageSet::range(10, 19), 1));
    assert_eq!(kind(&thief, request.clone()).await, Some(ErrorKind::Denied));
    let (pieces, end) = receiver.fetch(request).await;
    assert!(end.is_ok() && bytes(&pieces) == content(&media, 10..20), "{end:?}");
}

#[tokio::test]
async fn an_address_that_is_silent_delays_but_little() {
    let (host, media, receiver) = pair(made(&[]), made(&[])).await;
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut request = host.request(&media, pages(3, 3));
    request.host.addrs.insert(0, NetAddr { kind: NetKind::Udp, at: silent.local_addr().unwrap() });
    let before = std::time::Instant::now();
    assert!(receiver.fetch(request.clone()).await.1.is_ok());
    assert!(before.elapsed() < Duration::from_secs(3), "the first address's time is not waited for");
    request.host.addrs.truncate(1);
    request.host.key = PeerKey([7; 32]);
    assert_eq!(kind(&receiver, request).await, Some(ErrorKind::Unreachable));
}

/// Passes datagrams between one receiver and whichever host stands in the channel; none: they are lost.
async fn relay(to: tokio::sync::watch::Receiver<Option<SocketAddr>>) -> SocketAddr {
    let (near, far) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let at = near.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut a, mut b) = (vec![0; 65_535], vec![0; 65_535]);
        let mut receiver = at;
        loop {
            tokio::select! {
                Ok((n, from)) = near.recv_from(&mut a) => {
                    receiver = from;
                    let host = *to.borrow();
                    if let Some(host) = host {
                        let _ = far.send_to(&a[..n], host).await;
                    }
                }
                Ok((n, from)) = far.recv_from(&mut b) => {
                    if Some(from) == *to.borrow() {
                        let _ = near.send_to(&b[..n], receiver).await;
                    }
                }
            }
        }
    });
    at
}

#[tokio::test]
async fn a_host_that_came_back_is_reached_though_its_old_connection_seems_open() {
    let (host, media, receiver) = pair(made(&[]), made(&[])).await;
    let udp = |host: &Host| host.host_addr().addrs.iter().find(|a| a.kind == NetKind::Udp).map(|a| a.at);
    let (way, to) = tokio::sync::watch::channel(udp(&host));
    let mut request = host.request(&media, pages(3, 3));
    request.host.addrs = vec![NetAddr { kind: NetKind::Udp, at: relay(to).await }];
    assert!(receiver.fetch(request.clone()).await.1.is_ok());
    // It vanishes, and who waits gives up.
    way.send_replace(None);
    assert!(timeout(Duration::from_secs(4), receiver.fetch(request.clone())).await.is_err());
    // Another life of it has the same key, and knows nothing of the connection.
    let again = Host::start(1, made(&[])).await;
    again.shelf.put(media.clone());
    way.send_replace(udp(&again));
    let (pieces, end) = timeout(Duration::from_secs(4), receiver.fetch(request)).await.unwrap();
    assert!(end.is_ok() && bytes(&pieces) == content(&media, [3]), "{end:?}");
}

#[tokio::test]
async fn more_requests_than_streams_wait_for_their_turn() {
    let (host, media, receiver) = pair(made(&[("streams", "4")]), made(&[])).await;
    let one = |page| {
        let (host, media, receiver) = (&host, &media, &receiver);
        async move {
            let (pieces, end) = receiver.fetch(host.request(media, pages(page, page))).await;
            assert!(end.is_ok() && bytes(&pieces) == content(media, [page]), "{page}: {end:?}");
        }
    };
    timeout(PATIENCE, join_all((0..200).map(one))).await.unwrap();
}

#[tokio::test]
async fn a_dropped_fetch_ends_at_the_host() {
    let (_host, media, receiver) = pair(made(&[]), made(&[])).await;
    let partial = Host::start(3, Made { anonymous: Anonymous::Deny, ..made(&[]) }).await;
    let part = partial.join(&media);
    give(&media, &part, 0, 1);
    let open = PageSet { first: 0, last: None, stripe: None };
    let mut request = partial.request(&part, What::Pages(open));
    request.ticket = Some(partial.ticket(&part, &receiver, open, 1));
    let mut stream = receiver.protocol.implementation.fetch(receiver.cx.clone(), request.clone());
    assert!(stream.next().await.unwrap().is_ok());
    assert_eq!(kind(&receiver, request.clone()).await, Some(ErrorKind::Busy));
    // The host waits for pages and writes nothing; it hears of the end all the same.
    drop(stream);
    request.what = pages(0, 0);
    let free = async { while kind(&receiver, request.clone()).await == Some(ErrorKind::Busy) {} };
    timeout(Duration::from_secs(2), free).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_is_served_keeps_its_place_and_an_idle_one_makes_room() {
    let (_host, media, receiver) = pair(made(&[]), made(&[])).await;
    let partial = Host::start(3, made(&[("connections", "1")])).await;
    let part = partial.join(&media);
    give(&media, &part, 0, 1);
    let one = partial.request(&part, pages(0, 0));
    let open = partial.request(&part, What::Pages(PageSet { first: 0, last: None, stripe: None }));
    let mut waiting = receiver.protocol.implementation.fetch(receiver.cx.clone(), open);
    assert!(waiting.next().await.unwrap().is_ok());
    let other = Host::start(4, made(&[])).await;
    assert_eq!(kind(&other, one.clone()).await, Some(ErrorKind::Busy));
    // Idle, the first has to go when another comes.
    drop(waiting);
    let admitted = async { while kind(&other, one.clone()).await.is_some() {} };
    timeout(PATIENCE, admitted).await.unwrap();
    let mut kept = one;
    kept.host.addrs.clear();
    assert_eq!(kind(&receiver, kept.clone()).await, Some(ErrorKind::Unreachable));
    assert_eq!(kind(&other, kept).await, None);
}

#[tokio::test]
async fn streams_that_mean_no_good_are_ended() {
    let (host, media, receiver) = pair(made(&[("request-timeout", "1")]), made(&[])).await;
    let at = host.host_addr().addrs.iter().find(|a| a.kind == NetKind::Udp).unwrap().at;
    let stranger = receiver.cx.connect_quic(at, host.identity.key(), ALPN).await.unwrap();
    // Garbage is answered, silence is not.
    for (said, answered) in [(&b"GET / HTTP/1.1\r\n\r\n"[..], true), (b"\0\0\0", false)] {
        let (mut send, mut receive) = stranger.open_bi().await.unwrap();
        send.write_all(said).await.unwrap();
        let end = timeout(PATIENCE, receive.read_to_end(4096));
        match end.await.unwrap() {
            Ok(all) => {
                let body = split(&all).unwrap().unwrap().0;
                let refused = PagesAnswer::from_body(body).unwrap();
                assert!(answered, "{said:?}");
                assert!(matches!(refused, PagesAnswer::Refused(e) if e.code == EndCode::BAD_REQUEST));
            }
            Err(e) => assert!(!answered, "{said:?}: {e}"),
        }
    }
    // Streams of the other kind are not even allowed.
    assert!(timeout(Duration::from_millis(200), stranger.open_uni()).await.is_err());
    // The same connection's good requests are answered.
    assert!(receiver.fetch(host.request(&media, pages(0, 3))).await.1.is_ok());
    assert!(stranger.close_reason().is_none());
}
