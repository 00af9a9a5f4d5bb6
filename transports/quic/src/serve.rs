//! Serving: connections from core's port, requests to the shelf.

use std::sync::Arc;

use iceshare::net::{Context, SlotLimits, Slots};
use iceshare::serve::Delivery;
use iceshare::shelf::Shelf;
use iceshare::stream::{ALPN, Server, Timing};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::Semaphore;

use crate::link::{Link, Links, close};
use crate::wire::{Receiving, Sending};

/// Who answers requests.
#[derive(Debug)]
pub(crate) struct Host {
    server: Server,
    /// Most bytes that a connection buffers for sending.
    window: u64,
    /// For requests without a ticket: nobody without one can fill all places for good.
    anonymous: Arc<Semaphore>,
}

/// Begins to serve.
pub(crate) fn start(cx: &Context, shelf: &Arc<Shelf>, links: &Arc<Links>) {
    let config = links.config;
    let timing = Timing { request: config.request_timeout, stall: config.stall_timeout };
    let server = Server { shelf: shelf.clone(), protocol: cx.protocol().clone(), timing };
    let anonymous = Arc::new(Semaphore::new(config.connections.div_ceil(2)));
    let host = Host { server, window: config.window.into(), anonymous };
    if links.host.set(Arc::new(host)).is_err() {
        tracing::warn!("one instance of the QUIC protocol serves one shelf; the second is not served");
        return;
    }
    let mut incoming = cx.accept_quic(ALPN);
    let slots = Slots::new(SlotLimits { all: config.connections, each: config.per_ip });
    let (cx, links, spawner) = (cx.clone(), links.clone(), cx.clone());
    spawner.spawn(async move {
        loop {
            let (connection, key) = tokio::select! {
                c = incoming.recv() => match c { Some(c) => c, None => return },
                () = cx.closed().cancelled() => return,
            };
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(config.streams));
            let Some(link) = links.accept(&slots, connection.clone(), key) else {
                tracing::debug!(from = %connection.remote_address(), "too many QUIC connections; one was closed");
                connection.close(close::BUSY, b"busy");
                continue;
            };
            let (cx, links, spawner) = (cx.clone(), links.clone(), cx.clone());
            spawner.spawn(async move {
                // Who opened it closes it first: only then nobody's request is cut off.
                link.tend(&links, &cx, config.idle_timeout * 2).await;
                links.remove(&link);
            });
        }
    });
}

impl Host {
    /// Answers one stream.
    pub(crate) fn answer(
        self: &Arc<Host>,
        link: &Link,
        stream: SendStream,
        receive: RecvStream,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (host, link, busy) = (self.clone(), link.clone(), link.begin());
        async move {
            let (connection, seen) = (link.connection.clone(), link.seen.clone());
            let shelf = Some(host.server.shelf.clone());
            let send = Sending { stream, connection, seen, window: host.window, shelf };
            let admitted = |delivery: &Delivery| {
                let ticket = delivery.supply.is_ticketed();
                let permit =
                    (!ticket).then(|| host.anonymous.clone().try_acquire_owned()).transpose().ok()?;
                Some((permit, link.serve(ticket)))
            };
            let answered =
                host.server.answer_if(Receiving::<1>::new(receive), send, Some(link.key), admitted).await;
            if let Err(e) = answered {
                tracing::debug!(receiver = %link.key.short(), error = %e, "a request ended early");
            }
            drop(busy);
        }
    }
}
