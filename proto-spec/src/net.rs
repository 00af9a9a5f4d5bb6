//! Where a peer can be reached, over what, and what it can give.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use minicbor::{Decode, Decoder, Encode, Encoder};
use thiserror::Error;

use crate::key::PeerKey;
use crate::limits;

/// Name of a payload protocol: 1 to 32 of `a`-`z`, `0`-`9`, `-`, `.`; the first a letter. To a tracker it is a
/// string with statistics, nothing more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolName(String);

/// Why a text is not a protocol name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a protocol name is 1 to {} of a-z, 0-9, - and ., the first a letter", limits::PROTOCOL)]
pub struct ProtocolNameError;

impl ProtocolName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProtocolName {
    type Err = ProtocolNameError;
    fn from_str(s: &str) -> Result<Self, ProtocolNameError> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if s.len() <= limits::PROTOCOL
            && s.starts_with(|c: char| c.is_ascii_lowercase())
            && s.bytes().all(good)
        {
            Ok(ProtocolName(s.to_owned()))
        } else {
            Err(ProtocolNameError)
        }
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<C> Encode<C> for ProtocolName {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ProtocolName {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.str()?.parse().map_err(|_| crate::refuse("not a protocol name"))
    }
}

/// Which kind of port an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum NetKind {
    /// UDP (QUIC for IceT's own handshakes).
    #[n(0)]
    Udp,
    /// TCP (TLS for IceT's own handshakes).
    #[n(1)]
    Tcp,
}

impl fmt::Display for NetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NetKind::Udp => "udp",
            NetKind::Tcp => "tcp",
        })
    }
}

/// An IP address. CBOR: 4 or 16 bytes. IPv4-mapped IPv6 addresses are turned into IPv4 on decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ip(pub IpAddr);

impl<C> Encode<C> for Ip {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        match self.0 {
            IpAddr::V4(ip) => e.bytes(&ip.octets())?.ok(),
            IpAddr::V6(ip) => e.bytes(&ip.octets())?.ok(),
        }
    }
}

impl<'b, C> Decode<'b, C> for Ip {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let ip = d.bytes()?;
        if let Ok(v4) = <[u8; 4]>::try_from(ip) {
            Ok(Ip(IpAddr::V4(Ipv4Addr::from(v4))))
        } else if let Ok(v6) = <[u8; 16]>::try_from(ip) {
            Ok(Ip(IpAddr::V6(Ipv6Addr::from(v6)).to_canonical()))
        } else {
            Err(crate::refuse("an IP address is 4 or 16 bytes"))
        }
    }
}

/// A port at an IP address. CBOR: `[kind, ip (4 or 16 bytes), port]`. In a hello an unspecified IP means "the
/// one you see me come from".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetAddr {
    /// UDP or TCP.
    pub kind: NetKind,
    /// Where. IPv4-mapped IPv6 addresses are turned into IPv4 on decoding.
    pub at: SocketAddr,
}

impl fmt::Display for NetAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.at)
    }
}

impl<C> Encode<C> for NetAddr {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(3)?.encode_with(self.kind, ctx)?.encode_with(Ip(self.at.ip()), ctx)?;
        e.u16(self.at.port())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for NetAddr {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        if d.array()? != Some(3) {
            return Err(crate::refuse("an address is an array of 3"));
        }
        let kind = d.decode_with(ctx)?;
        let Ip(ip) = d.decode_with(ctx)?;
        Ok(NetAddr { kind, at: SocketAddr::new(ip, d.u16()?) })
    }
}

/// What a payload protocol can do: a set of bits, `uint` in CBOR. Unknown bits are kept and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Abilities(pub u32);

impl Abilities {
    /// Takes ranges of page numbers.
    pub const PAGES: Abilities = Abilities(1);
    /// Takes ranges of bytes.
    pub const BYTES: Abilities = Abilities(1 << 1);
    /// Takes ranges of media time.
    pub const TIME: Abilities = Abilities(1 << 2);
    /// Takes ranges without an end: pages as they come.
    pub const OPEN: Abilities = Abilities(1 << 3);
    /// Takes stripes of page numbers.
    pub const STRIPES: Abilities = Abilities(1 << 4);
    /// Carries slices with their proofs.
    pub const PROOFS: Abilities = Abilities(1 << 5);
    /// Delivers in order and without gaps, or fails.
    pub const ORDERED: Abilities = Abilities(1 << 6);
    /// Proves the host's key on its connections.
    pub const PROVES_KEY: Abilities = Abilities(1 << 7);
    /// Takes spans of pages: what is missing of a page of which fragments came.
    pub const SPANS: Abilities = Abilities(1 << 8);
    /// Needs no address of a host whose endpoint says enough (through a relay, say): two peers that both have it can
    /// meet where no address is proved or may be told.
    pub const RELAYED: Abilities = Abilities(1 << 9);
    /// Carries live media: slices without an end are the batches of records, as they come.
    pub const LIVE: Abilities = Abilities(1 << 10);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn has(self, other: Abilities) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether a protocol with these carries live media: an open-ended set of pages, in order or so that what is missing of them is known, and
    /// the records of them as they come.
    #[must_use]
    pub fn carries_live(self) -> bool {
        let all = [Abilities::LIVE, Abilities::PAGES, Abilities::OPEN, Abilities::PROOFS];
        let either = [Abilities::ORDERED, Abilities::SPANS];
        all.into_iter().all(|a| self.has(a)) && either.into_iter().any(|a| self.has(a))
    }

    /// Name of each known bit, in their order.
    pub const NAMES: [(Abilities, &'static str); 11] = [
        (Abilities::PAGES, "pages"),
        (Abilities::BYTES, "bytes"),
        (Abilities::TIME, "time"),
        (Abilities::OPEN, "open-ended"),
        (Abilities::STRIPES, "stripes"),
        (Abilities::PROOFS, "proofs"),
        (Abilities::ORDERED, "ordered"),
        (Abilities::PROVES_KEY, "proves-key"),
        (Abilities::SPANS, "spans"),
        (Abilities::RELAYED, "relayed"),
        (Abilities::LIVE, "live"),
    ];
}

impl std::ops::BitOr for Abilities {
    type Output = Abilities;
    fn bitor(self, other: Abilities) -> Abilities {
        Abilities(self.0 | other.0)
    }
}

impl fmt::Display for Abilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Abilities::NAMES.iter().filter(|(a, _)| self.has(*a)).map(|(_, n)| *n).collect();
        f.write_str(&names.join(" "))
    }
}

impl<C> Encode<C> for Abilities {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u32(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Abilities {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(Abilities(d.u32()?))
    }
}

/// One payload protocol that a peer has.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Offer {
    /// Its name.
    #[n(1)]
    pub name: ProtocolName,
    /// What the peer's implementation can do with it.
    #[n(2)]
    pub abilities: Abilities,
    /// Whether the peer serves over it (else it only fetches).
    #[n(3)]
    pub serves: bool,
    /// What a receiver's implementation needs beside the peer's addresses: opaque to the tracker, often empty.
    #[n(4)]
    pub endpoint: String,
    /// The kind of port that receivers dial; none if the protocol needs no network address of the peer.
    #[n(5)]
    pub dials: Option<NetKind>,
}

/// Rates that a peer allows, in bytes a second. None means unlimited or unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Limits {
    /// Upload, over all protocols together.
    #[n(1)]
    pub up: Option<u64>,
    /// Download.
    #[n(2)]
    pub down: Option<u64>,
}

/// How to reach a host over one protocol, as an assignment tells it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HostAddr {
    /// Who must be there.
    #[n(1)]
    pub key: PeerKey,
    /// The protocol to use.
    #[n(2)]
    pub protocol: ProtocolName,
    /// Addresses of the kind that the protocol dials, in order of preference; each proved by the tracker.
    #[n(3)]
    pub addrs: Vec<NetAddr>,
    /// The host's opaque endpoint for this protocol.
    #[n(4)]
    pub endpoint: String,
    /// What the host said it can do over it.
    #[n(5)]
    pub abilities: Abilities,
}
