//! Ports on loopback, and strangers.

use std::future::poll_fn;

use libp2p::core::Endpoint as Role;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);
const REUSE: DialOpts = DialOpts { role: Role::Dialer, port_use: PortUse::Reuse };

fn quic(seed: u8) -> Quic {
    let keys = Keypair::ed25519_from_bytes([seed; 32]).expect("a key");
    Quic::new(&Identity::from_seed(&[seed; 32]), &keys, QuicLimits::PEER, (PATIENCE, u64::MAX)).expect("QUIC")
}

async fn next(quic: &mut Quic) -> Event {
    let event = poll_fn(|cx| Pin::new(&mut *quic).poll(cx));
    timeout(PATIENCE, event).await.expect("an event")
}

async fn listening(seed: u8) -> (Quic, SocketAddr) {
    let mut quic = quic(seed);
    let any = "/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("an address");
    quic.listen_on(ListenerId::next(), any).expect("a port");
    match next(&mut quic).await {
        TransportEvent::NewAddress { listen_addr, .. } => {
            let at = parse(&listen_addr).expect("an address of QUIC");
            (quic, at)
        }
        other => panic!("{other:?}"),
    }
}

async fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut packet = vec![0; 2048];
    let len = timeout(PATIENCE, socket.recv(&mut packet)).await.expect("a packet").expect("a packet");
    packet.truncate(len);
    packet
}

/// Destination and source of a long header (RFC 9000, section 17.2).
fn ids(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = packet.get(5..)?.split_first()?;
    let (to, rest) = rest.split_at_checked(usize::from(*len))?;
    let (len, rest) = rest.split_first()?;
    Some((to, rest.get(..usize::from(*len))?))
}

#[tokio::test]
async fn both_ends_prove_who_they_are() {
    let (mut host, at) = listening(1).await;
    let mut guest = quic(2);
    let dialed = tokio::spawn(guest.dial(multiaddr(at), REUSE).expect("a dial"));
    let TransportEvent::Incoming { upgrade, .. } = next(&mut host).await else { panic!("no connection") };
    let ids = [dialed.await.expect("no panic"), upgrade.await].map(|opened| opened.expect("a connection").0);
    let of = |seed| wire::peer_id(&Identity::from_seed(&[seed; 32]).key()).expect("a point");
    assert_eq!(ids, [of(1), of(2)]);
}

#[tokio::test]
async fn under_a_flood_of_first_packets_strangers_prove_their_address_first() {
    const FLOOD: usize = 200;
    let (mut host, at) = listening(1).await;
    // What dials begin with whose answers nobody takes.
    let nobody = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let nowhere = multiaddr(nobody.local_addr().expect("an address"));
    let mut dialer = quic(2);
    let mut dials = JoinSet::new();
    let (mut retries, mut answers) = (0, 0);
    for _ in 0..FLOOD {
        dials.spawn(dialer.dial(nowhere.clone(), REUSE).expect("a dial"));
        // The dials before may send theirs again.
        let mut first = receive(&nobody).await;
        while first.len() < 1200 {
            first = receive(&nobody).await;
        }
        let (_, me) = ids(&first).expect("a long header");
        nobody.send_to(&first, at).await.expect("sent");
        loop {
            let answer = receive(&nobody).await;
            if ids(&answer).is_some_and(|(to, _)| to == me) {
                // A Retry (section 17.2.5), which is no longer than what it answers.
                let retry = answer[0] & 0xf0 == 0xf0;
                assert!(!retry || answer.len() < first.len());
                *if retry { &mut retries } else { &mut answers } += 1;
                break;
            }
        }
    }
    assert!((1..=32).contains(&answers) && retries >= FLOOD - 32, "{answers} answers, {retries} retries");
    let open: usize = host.listeners.iter().map(|l| l.endpoint.open_connections()).sum();
    assert!(open <= 32, "{open}");
    // Who means it is let in.
    let dialed = tokio::spawn(quic(3).dial(multiaddr(at), REUSE).expect("a dial"));
    assert!(matches!(next(&mut host).await, TransportEvent::Incoming { .. }));
    assert!(dialed.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn a_listener_ends_when_it_is_removed() {
    let (mut host, _) = listening(1).await;
    let id = host.listeners.iter().next().expect("one").id;
    assert!(host.remove_listener(id));
    assert!(!host.remove_listener(id));
    let TransportEvent::ListenerClosed { listener_id, .. } = next(&mut host).await else { panic!("no end") };
    assert_eq!(listener_id, id);
}

#[test]
fn only_addresses_of_quic_are_taken() {
    for wrong in [
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/127.0.0.1/udp/1",
        "/ip4/127.0.0.1/udp/1/quic",
        "/ip4/127.0.0.1/udp/1/quic-v1/webtransport",
        "/dns4/peer.example/udp/1/quic-v1",
    ] {
        assert_eq!(parse(&wrong.parse().expect("a multiaddr")), None, "{wrong}");
    }
    let at = "/ip6/::1/udp/4001/quic-v1".parse::<Multiaddr>().expect("a multiaddr");
    assert_eq!(parse(&at), Some("[::1]:4001".parse().expect("an address")));
}
