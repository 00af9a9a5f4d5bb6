//! Streams of [`wire::PROTOCOL`](crate::wire::PROTOCOL): which come in, and on which connection ours go out.
//!
//! `libp2p-stream` would do, but takes any connection of a peer, so a relayed one when there is a direct one beside it.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use iceshare::net::{Place, Served};
use iceshare::protocol::{ErrorKind, TransportError};
use iceshare::stream::{Doubt, Listening};
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

use crate::gate::Places;
use crate::wire;

/// A stream that we opened, and what is to be kept beside it; or why not.
pub(crate) type Reply = oneshot::Sender<Result<(Stream, Held), TransportError>>;
/// A stream that another peer opened, the key that it proved, and its connection's place among those that others opened.
pub(crate) type Asked = (PeerId, Stream, Option<Arc<Place>>);
pub(crate) type Inbound = mpsc::Sender<Asked>;

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

/// One request of ours: who listens to it; and a connection that the other end opened is of use meanwhile.
#[derive(Debug)]
pub(crate) struct Held {
    listening: Listening,
    _served: Option<Served>,
}

impl Held {
    /// Something of the request came.
    pub(crate) fn heard(&mut self) {
        self.listening.heard();
    }
}

/// A connection.
#[derive(Debug)]
struct Known {
    way: Way,
    id: ConnectionId,
    doubt: Doubt,
    /// If the other end opened it.
    place: Option<Arc<Place>>,
}

/// A stream to open on a connection.
#[derive(Debug)]
pub(crate) struct Ask {
    reply: Reply,
    held: Held,
}

#[derive(Debug)]
pub(crate) struct Behaviour {
    inbound: Inbound,
    connections: HashMap<PeerId, Vec<Known>>,
    orders: VecDeque<(PeerId, ConnectionId, Ask)>,
    places: Places,
}

impl Behaviour {
    pub(crate) fn new(inbound: Inbound, places: Places) -> Behaviour {
        Behaviour { inbound, connections: HashMap::new(), orders: VecDeque::new(), places }
    }

    /// The best way to a peer that is open, and still leads there as far as requests tell.
    pub(crate) fn way(&self, peer: &PeerId) -> Option<Way> {
        self.best(peer).map(|c| c.way)
    }

    fn best(&self, peer: &PeerId) -> Option<&Known> {
        let good = self.connections.get(peer)?.iter().filter(|c| !c.doubt.is_raised());
        good.min_by_key(|c| (c.way, c.id))
    }

    /// Opens a stream on the best connection of a peer; without one the reply is dropped.
    pub(crate) fn open(&mut self, peer: PeerId, reply: Reply) {
        if let Some(Known { id, doubt, place, .. }) = self.best(&peer) {
            let served = place.as_ref().map(|place| place.serve(true));
            let ask = Ask { reply, held: Held { listening: doubt.listen(), _served: served } };
            self.orders.push_back((peer, *id, ask));
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let place = self.places.of(id);
        Ok(Handler { peer, inbound: self.inbound.clone(), place, orders: VecDeque::new() })
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler { peer, inbound: self.inbound.clone(), place: None, orders: VecDeque::new() })
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(e) => {
                let id = e.connection_id;
                let place = self.places.of(id);
                let known = Known { way: Way::of(e.endpoint), id, doubt: Doubt::default(), place };
                self.connections.entry(e.peer_id).or_default().push(known);
            }
            FromSwarm::ConnectionClosed(e) => {
                if let Some(mine) = self.connections.get_mut(&e.peer_id) {
                    mine.retain(|c| c.id != e.connection_id);
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
    place: Option<Arc<Place>>,
    orders: VecDeque<Ask>,
}

impl Handler {
    /// A stream that nobody takes is reset: the peer asks elsewhere.
    fn hand_over(&self, stream: Stream) {
        if self.inbound.try_send((self.peer, stream, self.place.clone())).is_err() {
            tracing::debug!(peer = %self.peer, "too many streams wait; one was reset");
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Ask;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Ask;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(wire::PROTOCOL), ())
    }

    fn on_behaviour_event(&mut self, ask: Ask) {
        self.orders.push_back(ask);
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Ask, Infallible>> {
        while let Some(ask) = self.orders.pop_front() {
            if !ask.reply.is_closed() {
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(wire::PROTOCOL), ask);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        Poll::Pending
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Ask>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                self.hand_over(stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: Ask { reply, mut held },
            }) => {
                held.heard();
                let _ = reply.send(Ok((stream, held)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: Ask { reply, .. }, error }) => {
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
