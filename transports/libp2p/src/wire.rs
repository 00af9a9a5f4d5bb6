//! Names and texts of the protocol: keys as peer ids, endpoints, addresses of relays. Normative text:
//! `proto-spec/spec/libp2p.md`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use iceshare::icet::{PeerKey, limits};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;
use libp2p::{Multiaddr, PeerId, StreamProtocol, identity};
use thiserror::Error;

/// The stream protocol. One request on each stream.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/iceshare/pages/1");

/// How our nodes call themselves to others, and the family of protocols that they speak (`identify`).
pub(crate) const AGENT: &str = concat!("iceshare/", env!("CARGO_PKG_VERSION"));
pub(crate) const FAMILY: &str = "iceshare/1";

/// Most entries of an endpoint that are looked at.
const ENTRIES: usize = 16;
/// Most relays that can be set.
const RELAYS: usize = 8;
/// The lowest port that an endpoint may name.
const LOWEST_PORT: u16 = 1024;

/// The peer id of a key: the identity multihash of its protobuf form. None if the key is no point of the curve.
#[must_use]
pub fn peer_id(key: &PeerKey) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(&key.0).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// The key that a peer id stands for. None if it is not an ed25519 key.
#[must_use]
pub fn key_of(peer: &PeerId) -> Option<PeerKey> {
    // Multihash code 0 is the identity: the digest is the key's protobuf form.
    let hash = peer.as_ref();
    let key = identity::PublicKey::try_decode_protobuf(hash.digest()).ok().filter(|_| hash.code() == 0)?;
    Some(PeerKey(key.try_into_ed25519().ok()?.to_bytes()))
}

/// What a host announces beside the addresses that a tracker proves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// The UDP port of libp2p's QUIC at the host's IPv4 addresses.
    pub quic4: Option<u16>,
    /// The same at its IPv6 addresses.
    pub quic6: Option<u16>,
    /// Relays at which the host can be reached.
    pub relays: Vec<PeerId>,
}

impl Endpoint {
    /// Reads what `host` announced. Entries that are not understood, or of another peer, are left out.
    #[must_use]
    pub fn parse(text: &str, host: &PeerId) -> Endpoint {
        let mut endpoint = Endpoint::default();
        if text.len() > limits::ENDPOINT {
            return endpoint;
        }
        for entry in entries(text).take(ENTRIES).filter_map(|e| e.parse::<Multiaddr>().ok()) {
            let parts: Vec<_> = entry.iter().collect();
            match &parts[..] {
                [ip, Protocol::Udp(port), Protocol::QuicV1, Protocol::P2p(who)]
                    if who == host && *port >= LOWEST_PORT =>
                {
                    // The addresses are the proved ones: a host names no other.
                    match ip {
                        Protocol::Ip4(ip) if ip.is_unspecified() => endpoint.quic4 = Some(*port),
                        Protocol::Ip6(ip) if ip.is_unspecified() => endpoint.quic6 = Some(*port),
                        _ => {}
                    }
                }
                [.., Protocol::P2p(relay), Protocol::P2pCircuit, Protocol::P2p(who)]
                    if who == host && relay != host && !endpoint.relays.contains(relay) =>
                {
                    endpoint.relays.push(*relay);
                }
                _ => {}
            }
        }
        endpoint
    }

    /// The text that `host` announces: as many entries as fit.
    #[must_use]
    pub fn to_text(&self, host: &PeerId) -> String {
        let quic = |ip: IpAddr, port| Multiaddr::from(ip).with(Protocol::Udp(port)).with(Protocol::QuicV1);
        let circuit = |relay| Multiaddr::empty().with(Protocol::P2p(relay)).with(Protocol::P2pCircuit);
        let quic4 = self.quic4.map(|port| quic(Ipv4Addr::UNSPECIFIED.into(), port));
        let quic6 = self.quic6.map(|port| quic(Ipv6Addr::UNSPECIFIED.into(), port));
        let mut text = String::new();
        for entry in quic4.into_iter().chain(quic6).chain(self.relays.iter().copied().map(circuit)) {
            let entry = entry.with(Protocol::P2p(*host)).to_string();
            if text.len() + 1 + entry.len() > limits::ENDPOINT {
                break;
            }
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&entry);
        }
        text
    }
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|e| !e.is_empty())
}

/// A relay that the user knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Who it is.
    pub peer: PeerId,
    /// Where it is, without its id, in the order to try.
    pub at: Vec<Multiaddr>,
}

/// Why a text is no list of relays.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct RelayError {
    /// The entry.
    pub text: String,
    why: &'static str,
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why)
    }
}

/// Reads the addresses of relays: multiaddrs that end with the relay's id. Several of one relay belong together.
///
/// # Errors
/// [`RelayError`] of the first that is none.
pub fn relays(text: &str) -> Result<Vec<Relay>, RelayError> {
    let mut relays: Vec<Relay> = Vec::new();
    for entry in entries(text) {
        let wrong = |why| RelayError { text: entry.to_owned(), why };
        let shape = "it takes addresses like /ip4/192.0.2.1/udp/4238/quic-v1/p2p/12D3Koo… or /dns/relay.example/tcp/4238/p2p/12D3Koo…";
        let mut at: Multiaddr = entry.parse().map_err(|_| wrong(shape))?;
        let Some(Protocol::P2p(peer)) = at.pop() else { return Err(wrong(shape)) };
        let parts: Vec<_> = at.iter().collect();
        let transport = match &parts[..] {
            [host, Protocol::Tcp(port)] | [host, Protocol::Udp(port), Protocol::QuicV1] if *port != 0 => host,
            _ => return Err(wrong(shape)),
        };
        let named = matches!(
            transport,
            Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)
        );
        if !named {
            return Err(wrong(shape));
        }
        let known = relays.iter_mut().find(|r| r.peer == peer);
        if let Some(relay) = known {
            if !relay.at.contains(&at) {
                relay.at.push(at);
            }
            continue;
        }
        if relays.len() == RELAYS {
            return Err(wrong("at most 8 relays can be set"));
        }
        relays.push(Relay { peer, at: vec![at] });
    }
    Ok(relays)
}

/// The IP address and port that a multiaddr begins with, and whether it is UDP. None if it begins with anything else.
#[must_use]
pub fn socket_of(addr: &Multiaddr) -> Option<(IpAddr, u16, bool)> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip).to_canonical(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some((ip, port, false)),
        Protocol::Udp(port) => Some((ip, port, true)),
        _ => None,
    }
}

/// The IP address that a punch to this address would hit. None if it is not one that others may have dialed: TCP or QUIC
/// at an IP address, at a port from 1024 on, and nothing else.
#[must_use]
pub fn punchable(addr: &Multiaddr) -> Option<IpAddr> {
    let parts: Vec<_> = addr.iter().skip(1).collect();
    let (last, rest) = parts.split_last()?;
    let parts = if matches!(last, Protocol::P2p(_)) { rest } else { &parts[..] };
    let direct = matches!(parts, [Protocol::Tcp(_)] | [Protocol::Udp(_), Protocol::QuicV1]);
    let (ip, port, _) = socket_of(addr).filter(|_| direct)?;
    (port >= LOWEST_PORT).then_some(ip)
}

/// Whether a connection of this address goes through a relay.
#[must_use]
pub fn is_relayed(addr: &Multiaddr) -> bool {
    addr.iter().any(|p| p == Protocol::P2pCircuit)
}

/// The innermost cause: what wraps it says nothing to people.
pub(crate) fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}

/// An address as people read it, without what says who is there.
fn place(addr: &Multiaddr) -> String {
    let (mut host, mut port) = (None, None);
    for part in addr {
        match part {
            Protocol::Ip4(ip) => host = Some(ip.to_string()),
            Protocol::Ip6(ip) => host = Some(format!("[{ip}]")),
            Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
                host = Some(name.into_owned())
            }
            Protocol::Tcp(n) => port = Some(("tcp", n)),
            Protocol::Udp(n) => port = Some(("udp", n)),
            _ => {}
        }
    }
    let relayed = addr.iter().any(|p| p == Protocol::P2pCircuit);
    match (host, port) {
        (Some(host), Some((kind, port))) => {
            format!("{kind}:{host}:{port}{}", if relayed { " (a relay)" } else { "" })
        }
        _ => addr.to_string(),
    }
}

/// Why a dial failed, for people.
pub(crate) fn dial_error(error: &DialError) -> String {
    match error {
        DialError::WrongPeerId { obtained, .. } => {
            let who = key_of(obtained).map_or_else(|| obtained.to_string(), |k| k.short().to_string());
            format!("somebody else answers there: {who}")
        }
        DialError::LocalPeerId { .. } => "this peer itself answers there".to_owned(),
        DialError::Transport(tried) => {
            let each: Vec<String> = tried.iter().map(|(a, e)| format!("{}: {}", place(a), root(e))).collect();
            each.join("; ")
        }
        DialError::NoAddresses => "no address is known".to_owned(),
        e => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use iceshare::icet::Identity;
    use proptest::prelude::*;

    use super::*;

    fn peer(seed: u8) -> PeerId {
        peer_id(&Identity::from_seed(&[seed; 32]).key()).expect("a key of an identity is a point")
    }

    #[test]
    fn keys_and_peer_ids_are_the_same_thing() {
        let key = Identity::from_seed(&[7; 32]).key();
        let pair = identity::Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes");
        let id = pair.public().to_peer_id();
        assert_eq!(peer_id(&key), Some(id));
        assert_eq!(key_of(&id), Some(key));
        assert!(id.to_string().starts_with("12D3KooW"));
        // A hash of a key, not the key itself.
        let hashed: PeerId = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC".parse().expect("a peer id");
        assert_eq!(key_of(&hashed), None);
    }

    #[test]
    fn what_is_announced_can_be_read() {
        let (me, a, b) = (peer(1), peer(2), peer(3));
        let endpoint = Endpoint { quic4: Some(4001), quic6: Some(4002), relays: vec![a, b] };
        let text = endpoint.to_text(&me);
        assert!(
            text.len() <= limits::ENDPOINT
                && text.contains(&format!("/ip4/0.0.0.0/udp/4001/quic-v1/p2p/{me}"))
        );
        assert_eq!(Endpoint::parse(&text, &me), endpoint);
        assert_eq!(Endpoint::default().to_text(&me), "");
        let many = Endpoint { relays: (10..40).map(peer).collect(), ..endpoint };
        let read = Endpoint::parse(&many.to_text(&me), &me);
        assert_eq!((read.quic4, &read.relays[..]), (Some(4001), many.relays.get(..2).unwrap_or_default()));
    }

    #[test]
    fn entries_that_could_aim_are_left_out() {
        let (me, other, relay) = (peer(1), peer(2), peer(3));
        for entry in [
            format!("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/{me}"),
            format!("/ip4/0.0.0.0/udp/53/quic-v1/p2p/{me}"),
            format!("/ip4/0.0.0.0/udp/4001/quic-v1/p2p/{other}"),
            "/ip4/0.0.0.0/udp/4001/quic-v1".to_owned(),
            format!("/ip4/192.0.2.1/tcp/4001/p2p/{me}"),
            format!("/dns/victim.example/udp/4001/quic-v1/p2p/{me}"),
            format!("/p2p/{relay}/p2p-circuit/p2p/{other}"),
            format!("/p2p/{relay}/p2p-circuit"),
            format!("/p2p/{me}/p2p-circuit/p2p/{me}"),
            "nonsense".to_owned(),
        ] {
            assert_eq!(Endpoint::parse(&entry, &me), Endpoint::default(), "{entry}");
        }
        // Of an address of a relay only its id counts.
        let text = format!(
            "/ip4/192.0.2.1/tcp/80/p2p/{relay}/p2p-circuit/p2p/{me},/p2p/{relay}/p2p-circuit/p2p/{me}"
        );
        assert_eq!(Endpoint::parse(&text, &me), Endpoint { relays: vec![relay], ..Endpoint::default() });
    }

    #[test]
    fn people_read_addresses_without_ids() {
        let id = peer(1);
        let text = |addr: &str| place(&addr.replace("ID", &id.to_string()).parse().expect("an address"));
        assert_eq!(text("/ip4/192.0.2.1/tcp/58101/p2p/ID"), "tcp:192.0.2.1:58101");
        assert_eq!(text("/ip6/2001:db8::1/udp/9/quic-v1"), "udp:[2001:db8::1]:9");
        assert_eq!(
            text("/dns/relay.example/tcp/4238/p2p/ID/p2p-circuit/p2p/ID"),
            "tcp:relay.example:4238 (a relay)"
        );
        assert_eq!(text("/memory/1"), "/memory/1");
    }

    #[test]
    fn relays_are_given_by_address_and_id() {
        let (a, b) = (peer(1), peer(2));
        let text = format!(
            "/ip4/192.0.2.1/udp/4238/quic-v1/p2p/{a} /ip4/192.0.2.1/tcp/4238/p2p/{a},/dns4/relay.example/tcp/4238/p2p/{b}"
        );
        let relays = relays(&text).expect("relays");
        let [first, second] = &relays[..] else { panic!("{relays:?}") };
        assert_eq!((first.peer, first.at.len(), second.peer), (a, 2, b));
        for bad in [
            "x",
            "/ip4/192.0.2.1/tcp/1",
            "/ip4/192.0.2.1/tcp/0/p2p/ID",
            "/ip4/1.2.3.4/udp/9/p2p/ID",
            "/tcp/9/p2p/ID",
        ] {
            let bad = bad.replace("ID", &a.to_string());
            assert!(super::relays(&bad).is_err_and(|e| e.text == bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_dialed_unless_it_is_the_hosts(text in "[/a-z0-9., :-]{0,600}") {
            let endpoint = Endpoint::parse(&text, &peer(1));
            prop_assert_eq!(endpoint, Endpoint::default());
        }

        #[test]
        fn every_endpoint_comes_back(quic4: Option<u16>, quic6: Option<u16>, relays in proptest::collection::btree_set(2_u8..9, 0..3)) {
            let fits = |p: Option<u16>| p.filter(|p| *p >= LOWEST_PORT);
            let relays = relays.into_iter().map(peer).collect();
            let endpoint = Endpoint { quic4: fits(quic4), quic6: fits(quic6), relays };
            prop_assert_eq!(Endpoint::parse(&endpoint.to_text(&peer(1)), &peer(1)), endpoint);
        }
    }
}
