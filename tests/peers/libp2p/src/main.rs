//! A receiver that knows nothing of this project but its specifications (`proto-spec/spec/libp2p.md`, `stream.md`): a few
//! lines over rust-libp2p, as anybody would write them, and a CBOR library. A test fetches pages of a real host with it.
//!
//!     libp2p-receiver IP PORT KEY PATH MEDIA-ID VERSION FIRST-PAGE LAST-PAGE > pages.ogg
//!
//! KEY and MEDIA-ID are 64 hexadecimal digits. Without a ticket: the host must serve anybody.

use std::error::Error;
use std::io::Write;
use std::net::IpAddr;

use futures_util::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::swarm::StreamProtocol;
use libp2p::{identity, noise, tcp, yamux};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

const PAGES: StreamProtocol = StreamProtocol::new("/iceshare/pages/1");
/// stream.md, section 1.
const FRAME: usize = 4096;

type Failure = Box<dyn Error>;

fn hex32(text: &str) -> Result<[u8; 32], Failure> {
    let digits = |i| text.get(i..i + 2).ok_or("64 hexadecimal digits are needed");
    let bytes: Vec<u8> = (0..64)
        .step_by(2)
        .map(|i| Ok(u8::from_str_radix(digits(i)?, 16)?))
        .collect::<Result<_, Failure>>()?;
    Ok(<[u8; 32]>::try_from(bytes).map_err(|_| "64 hexadecimal digits are needed")?)
}

/// stream.md, section 2: pages `first` to `last` of one version of a media.
fn request(path: &str, media: &[u8; 32], version: u64, first: u64, last: u64) -> Result<Vec<u8>, Failure> {
    let mut body = Encoder::new(Vec::new());
    body.map(4)?.u8(1)?.str(path)?.u8(2)?.bytes(media)?.u8(3)?.u64(version)?;
    body.u8(4)?.map(1)?.u8(0)?.array(2)?.u64(first)?.u64(last)?;
    let body = body.into_writer();
    Ok([&u32::try_from(body.len())?.to_be_bytes()[..], &body[..]].concat())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [ip, port, key, path, media, version, first, last] = &args[..] else {
        return Err("usage: libp2p-receiver IP PORT KEY PATH MEDIA-ID VERSION FIRST-PAGE LAST-PAGE".into());
    };
    let request = request(path, &hex32(media)?, version.parse()?, first.parse()?, last.parse()?)?;

    // libp2p.md, section 1: the key is the identity.
    let key = identity::ed25519::PublicKey::try_from_bytes(&hex32(key)?)?;
    let host = identity::PublicKey::from(key).to_peer_id();
    let ip: IpAddr = ip.parse()?;
    let at = Multiaddr::from(ip).with(Protocol::Tcp(port.parse()?)).with(Protocol::P2p(host));

    let mut swarm = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| libp2p_stream::Behaviour::new())?
        .build();
    let mut control = swarm.behaviour().new_control();
    swarm.dial(at)?;
    tokio::spawn(async move {
        loop {
            if let libp2p::swarm::SwarmEvent::OutgoingConnectionError { error, .. } =
                swarm.select_next_some().await
            {
                eprintln!("{error}");
            }
        }
    });

    let mut stream = control.open_stream(host, PAGES).await?;
    stream.write_all(&request).await?;
    stream.flush().await?;

    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let len = usize::try_from(u32::from_be_bytes(head))?;
    if len > FRAME {
        return Err("an answer that is too long".into());
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    let mut answer = Decoder::new(&body);
    if (answer.array()?, answer.u8()?) != (Some(2), 0) {
        return Err(format!("refused: {}", minicbor::display(&body)).into());
    }

    // Pieces: a small answer is simply read to its end.
    let mut pieces = Vec::new();
    stream.read_to_end(&mut pieces).await?;
    let (mut pieces, mut out) = (Decoder::new(&pieces), std::io::stdout().lock());
    loop {
        match pieces.datatype()? {
            Type::Bytes => out.write_all(pieces.bytes()?)?,
            Type::Map => break,
            // Page marks and gaps.
            _ => pieces.skip()?,
        }
    }
    out.flush()?;
    let ending = &pieces.input()[pieces.position()..];
    let mut ending_reader = Decoder::new(ending);
    // {1: code, ...}; 0 is well.
    if (ending_reader.map()?.is_some(), ending_reader.u8()?, ending_reader.u16()?) == (true, 1, 0) {
        Ok(())
    } else {
        Err(format!("it ended early: {}", minicbor::display(ending)).into())
    }
}
