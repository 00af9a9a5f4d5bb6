//! Fetching: a request as a stream of pieces.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use iceshare::icet::stream::EndCode;
use iceshare::protocol::{ErrorKind, NetKind, Piece, Request, TransportError};
use iceshare::stream::kind_of;

use crate::assoc::{Over, Read};
use crate::hub::{Hub, RequestId};
use crate::wire::{Body, CloseReason};

/// Bytes that are taken at once.
const TAKE: usize = 128 * 1024;

/// Requests a range; see [`iceshare::protocol::PayloadProtocol::fetch`].
pub(crate) fn fetch(
    hub: impl FnOnce() -> Result<Arc<Hub>, TransportError> + Send + 'static,
    request: Request,
) -> BoxStream<'static, Result<Piece, TransportError>> {
    let begun = async move {
        let fetch = Fetch::begin(hub()?, &request)?;
        let pieces =
            stream::try_unfold(fetch, |mut f| async move { Ok(f.next().await?.map(|piece| (piece, f))) });
        Ok::<_, TransportError>(pieces)
    };
    stream::once(begun).try_flatten().boxed()
}

/// A request on its way. Dropped, it tells the host to stop.
struct Fetch {
    hub: Arc<Hub>,
    id: RequestId,
    peer: String,
    taken: VecDeque<Piece>,
    over: bool,
}

fn error(kind: ErrorKind, what: impl std::fmt::Display) -> TransportError {
    TransportError::new(kind, format!("udp: {what}"))
}

impl Fetch {
    fn begin(hub: Arc<Hub>, request: &Request) -> Result<Fetch, TransportError> {
        let addrs = request.host.addrs.iter().filter(|a| a.kind == NetKind::Udp);
        let addrs: Vec<SocketAddr> = addrs.map(|a| a.at).collect();
        if addrs.is_empty() {
            return Err(error(ErrorKind::Unreachable, "the host has no UDP address"));
        }
        let id = hub.request(request.host.key, &addrs, |a, window| {
            let body = Body::of(request, window).write();
            a.request(body.into(), &request.what, window)
        });
        let id = id.ok_or_else(|| error(ErrorKind::Local, "no association"))?;
        Ok(Fetch { hub, id, peer: request.host.key.short(), taken: VecDeque::new(), over: false })
    }

    /// Takes what came, up to [`TAKE`] bytes; or says how it ended.
    async fn take(&mut self) -> Result<(), TransportError> {
        let id = self.id;
        let (taken, hub) = (&mut self.taken, &self.hub);
        let end = poll_fn(|cx| {
            let read = hub.read(id, cx.waker(), |a| {
                let mut bytes = 0;
                loop {
                    match a.read(id.1) {
                        Some(Read::Piece(piece)) => {
                            if let Piece::Bytes(b) | Piece::Fragment { bytes: b, .. } = &piece {
                                bytes += b.len();
                            }
                            taken.push_back(piece);
                            if bytes >= TAKE {
                                return Some(None);
                            }
                        }
                        _ if !taken.is_empty() => return Some(None),
                        Some(Read::End(code)) => return Some(Some(Ok(code))),
                        Some(Read::Pending) => return a.over().map(|over| Some(Err(over))),
                        None => return Some(Some(Err(Over::Left))),
                    }
                }
            });
            match read {
                Some(None) if hub.is_closed() => Poll::Ready(Some(Err(Over::Left))),
                Some(None) => Poll::Pending,
                Some(Some(end)) => Poll::Ready(end),
                None => Poll::Ready(Some(Err(Over::Left))),
            }
        });
        match end.await {
            None => Ok(()),
            Some(Ok(EndCode::COMPLETE)) => {
                self.over = true;
                Ok(())
            }
            Some(Ok(code)) => {
                self.over = true;
                Err(error(kind_of(code), format_args!("host {} ends with code {}", self.peer, code.0)))
            }
            Some(Err(over)) => {
                self.over = true;
                Err(self.lost(over))
            }
        }
    }

    fn lost(&self, over: Over) -> TransportError {
        let peer = &self.peer;
        match over {
            Over::Unreachable => error(ErrorKind::Unreachable, format_args!("host {peer} does not answer")),
            Over::WrongKey => {
                error(ErrorKind::WrongKey, format_args!("somebody else than host {peer} answers"))
            }
            Over::Silent => error(ErrorKind::Broken, format_args!("host {peer} fell silent")),
            Over::Breach(why) => error(ErrorKind::Protocol, format_args!("host {peer}: {why}")),
            Over::Closed(CloseReason::Busy) => error(ErrorKind::Busy, format_args!("host {peer} is busy")),
            Over::Closed(_) => error(ErrorKind::Broken, format_args!("host {peer} closed the association")),
            Over::Left if self.hub.is_closed() => error(ErrorKind::Local, "shut down"),
            Over::Left => error(ErrorKind::Broken, format_args!("the association with host {peer} is gone")),
        }
    }

    async fn next(&mut self) -> Result<Option<Piece>, TransportError> {
        loop {
            if let Some(piece) = self.taken.pop_front() {
                return Ok(Some(piece));
            }
            if self.over {
                return Ok(None);
            }
            self.take().await?;
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.hub.forget(self.id);
    }
}
