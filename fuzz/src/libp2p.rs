//! What hosts announce, and what other peers name to be dialed, over `libp2p`.

use std::net::IpAddr;

use iceshare::icet::{Identity, limits};
use iceshare_transport_libp2p::wire::{self, Endpoint};
use libp2p::{Multiaddr, PeerId};

fn host() -> PeerId {
    wire::peer_id(&Identity::from_seed(&[1; 32]).key()).expect("a key of an identity is a point")
}

/// Endpoints and lists of relays as text, addresses as bytes.
pub fn endpoint(data: &[u8]) {
    let host = host();
    if let Ok(text) = std::str::from_utf8(data) {
        // So that the fuzzer need not find out what peers are called.
        let relay = wire::peer_id(&Identity::from_seed(&[2; 32]).key()).expect("a point");
        for text in
            [text.to_owned(), text.replace("HOST", &host.to_string()).replace("RELAY", &relay.to_string())]
        {
            let read = Endpoint::parse(&text, &host);
            assert!(text.len() <= limits::ENDPOINT || read == Endpoint::default());
            assert!([read.quic4, read.quic6].iter().flatten().all(|port| *port >= 1024));
            assert!(read.relays.len() <= 16 && !read.relays.contains(&host));
            let again = read.to_text(&host);
            assert!(again.len() <= limits::ENDPOINT);
            let back = Endpoint::parse(&again, &host);
            assert!(
                back.quic4 == read.quic4 && back.quic6 == read.quic6 && read.relays.starts_with(&back.relays)
            );
            // Of another peer's announcement nothing is taken.
            assert_eq!(Endpoint::parse(&again, &relay), Endpoint::default());
            if let Ok(relays) = wire::relays(&text) {
                assert!(relays.len() <= 8);
                let entry = |r: &wire::Relay| -> Vec<String> {
                    r.at.iter().map(|a| format!("{a}/p2p/{}", r.peer)).collect()
                };
                let all: Vec<String> = relays.iter().flat_map(entry).collect();
                assert_eq!(wire::relays(&all.join(" ")), Ok(relays));
            }
        }
    }
    if let Ok(addr) = Multiaddr::try_from(data.to_vec())
        && let Some(ip) = wire::punchable(&addr)
    {
        let (at, port, _) = wire::socket_of(&addr).expect("what is punched has a port");
        assert!(at == ip && port >= 1024 && !wire::is_relayed(&addr));
        assert!(!matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()));
    }
}
