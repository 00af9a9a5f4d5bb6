//! rust-libp2p, with streams of `libp2p-stream`.

use bytes::Bytes;
use futures_util::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::swarm::{Stream, StreamProtocol, SwarmEvent};
use libp2p::{PeerId, Swarm, noise, tcp, yamux};

use crate::carrier::{Read, Write};
use crate::{Failure, ready, send, take};

const BYTES: StreamProtocol = StreamProtocol::new("/bytes/1");

impl Read for Stream {
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        Ok(AsyncReadExt::read(self, into).await?)
    }
}

impl Write for Stream {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        Ok(self.write_all(&bytes).await?)
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.close().await?)
    }
}

fn node() -> Result<Swarm<libp2p_stream::Behaviour>, Failure> {
    Ok(libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)?
        .with_quic()
        .with_behaviour(|_| libp2p_stream::Behaviour::new())?
        .build())
}

pub(crate) async fn serve(file: String, over: &str) -> Result<(), Failure> {
    let mut swarm = node()?;
    let listen = match over {
        "libp2p-quic" => "/ip4/127.0.0.1/udp/0/quic-v1",
        _ => "/ip4/127.0.0.1/tcp/0",
    };
    swarm.listen_on(listen.parse()?)?;
    let mut streams = swarm.behaviour().new_control().accept(BYTES)?;
    tokio::spawn(async move {
        while let Some((_, mut stream)) = streams.next().await {
            let file = file.clone();
            tokio::spawn(async move { send(&file, &mut stream).await });
        }
    });
    let me = *swarm.local_peer_id();
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            ready(address.with(Protocol::P2p(me)))?;
        }
    }
}

pub(crate) async fn fetch(from: Multiaddr, out: &str) -> Result<(), Failure> {
    let Some(Protocol::P2p(host)) = from.iter().last() else {
        return Err("an address ends with a peer id".into());
    };
    let host: PeerId = host;
    let mut swarm = node()?;
    let mut control = swarm.behaviour().new_control();
    swarm.dial(from)?;
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    let mut stream = control.open_stream(host, BYTES).await?;
    take(&mut stream, out).await
}
