//! Streams of [`wire::PROTOCOL`](crate::wire::PROTOCOL): which come in, and on which connection ours go out.
//!
//! `libp2p-stream` would do, but takes any connection of a peer, so a relayed one when there is a direct one beside it.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::task::{Context, Poll};

use iceshare::protocol::{ErrorKind, TransportError};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot};

use crate::wire;

/// A stream that we opened, or why not.
pub(crate) type Reply = oneshot::Sender<Result<Stream, TransportError>>;
/// Streams that others open, with the key that they proved.
pub(crate) type Inbound = mpsc::Sender<(PeerId, Stream)>;

/// How good a way is: the least is the best. TCP costs the least; what a relay carries is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    Tcp,
    Quic,
    Relayed,
}

impl Way {
    fn of(endpoint: &ConnectedPoint) -> Way {
        let addr = endpoint.get_remote_address();
        if endpoint.is_relayed() {
            Way::Relayed
        } else if wire::socket_of(addr).is_some_and(|(.., udp)| udp) {
            Way::Quic
        } else {
            Way::Tcp
        }
    }
}

#[derive(Debug)]
pub(crate) struct Behaviour {
    inbound: Inbound,
    connections: HashMap<PeerId, Vec<(Way, ConnectionId)>>,
    orders: VecDeque<(PeerId, ConnectionId, Reply)>,
}

impl Behaviour {
    pub(crate) fn new(inbound: Inbound) -> Behaviour {
        Behaviour { inbound, connections: HashMap::new(), orders: VecDeque::new() }
    }

    /// The best way to a peer that is open.
    pub(crate) fn way(&self, peer: &PeerId) -> Option<Way> {
        self.best(peer).map(|(way, _)| way)
    }

    fn best(&self, peer: &PeerId) -> Option<(Way, ConnectionId)> {
        self.connections.get(peer)?.iter().copied().min()
    }

    /// Opens a stream on the best connection of a peer; without one the reply is dropped.
    pub(crate) fn open(&mut self, peer: PeerId, reply: Reply) {
        if let Some((_, connection)) = self.best(&peer) {
            self.orders.push_back((peer, connection, reply));
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler { peer, inbound: self.inbound.clone(), orders: VecDeque::new() })
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler { peer, inbound: self.inbound.clone(), orders: VecDeque::new() })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(e) => {
                self.connections.entry(e.peer_id).or_default().push((Way::of(e.endpoint), e.connection_id));
            }
            FromSwarm::ConnectionClosed(e) => {
                if let Some(mine) = self.connections.get_mut(&e.peer_id) {
                    mine.retain(|(_, id)| *id != e.connection_id);
                    if mine.is_empty() {
                        self.connections.remove(&e.peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        match self.orders.pop_front() {
            Some((peer_id, connection, event)) => Poll::Ready(ToSwarm::NotifyHandler {
                peer_id,
                handler: NotifyHandler::One(connection),
                event,
            }),
            // Orders come between two polls of the swarm, which polls all of it.
            None => Poll::Pending,
        }
    }
}

/// The streams of one connection.
#[derive(Debug)]
pub(crate) struct Handler {
    peer: PeerId,
    inbound: Inbound,
    orders: VecDeque<Reply>,
}

impl Handler {
    /// A stream that nobody takes is reset: the peer asks elsewhere.
    fn hand_over(&self, stream: Stream) {
        if self.inbound.try_send((self.peer, stream)).is_err() {
            tracing::debug!(peer = %self.peer, "too many streams wait; one was reset");
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Reply;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(wire::PROTOCOL), ())
    }

    fn on_behaviour_event(&mut self, reply: Reply) {
        self.orders.push_back(reply);
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Reply, Infallible>> {
        while let Some(reply) = self.orders.pop_front() {
            if !reply.is_closed() {
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(wire::PROTOCOL), reply);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Reply>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                self.hand_over(stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: reply,
            }) => {
                let _ = reply.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: reply, error }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => TransportError::new(
                        ErrorKind::Protocol,
                        format!("the host speaks libp2p, but not {}", wire::PROTOCOL),
                    ),
                    StreamUpgradeError::Timeout => {
                        TransportError::new(ErrorKind::Broken, "the host takes no stream")
                    }
                    StreamUpgradeError::Io(e) => {
                        TransportError::new(ErrorKind::Broken, "the connection broke").because(e)
                    }
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = reply.send(Err(error));
            }
            _ => {}
        }
    }
}
