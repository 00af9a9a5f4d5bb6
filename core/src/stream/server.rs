//! The host's side of a stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use icet::stream::{Accepted, EndCode, Ending, PagesAnswer, PagesRequest, Piece, split};
use icet::{PeerKey, ProtocolName, frame};
use thiserror::Error;
use tokio::time::timeout;

use super::{Inbound, Lost, Outbound, code_of};
use crate::serve::{Chunk, Delivery, Refusal, Unavailable, Wanted, deliver};
use crate::shelf::{Denied, Shelf};

/// How long the other end may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// For its request.
    pub request: Duration,
    /// To take a byte; and how long pages are waited for that are still arriving.
    pub stall: Duration,
}

impl Default for Timing {
    /// 10 and 30 seconds.
    fn default() -> Timing {
        Timing { request: Duration::from_secs(10), stall: Duration::from_secs(30) }
    }
}

/// Answers requests from a shelf.
#[derive(Debug, Clone)]
pub struct Server {
    /// What is served.
    pub shelf: Arc<Shelf>,
    /// Under which protocol's name.
    pub protocol: ProtocolName,
    /// How long others may take.
    pub timing: Timing,
}

/// How a request ended that was not answered to its end.
#[derive(Debug, Error)]
pub enum Ended {
    /// The receiver wants no more.
    #[error("the receiver wants no more")]
    Stopped,
    /// It took or sent nothing for too long.
    #[error("the receiver is too slow")]
    Slow,
    /// It does not keep to the protocol.
    #[error("the receiver does not keep to the protocol: {0}")]
    Breach(String),
    /// The stream is gone.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// What to tell the receiver of a refusal.
fn ending(refusal: Refusal) -> Ending {
    let (code, number) = match refusal {
        Refusal::Unavailable(Unavailable::Beyond { total }) => (EndCode::BEYOND, Some(total)),
        Refusal::Unavailable(Unavailable::Missing(page)) => (EndCode::MISSING, Some(page)),
        other => (code_of(other.kind()), None),
    };
    Ending { number, ..Ending::new(code, &refusal.to_string()) }
}

impl Server {
    /// Reads one request and answers it. `proved` is the key that the other end proved, if the carrier proves keys. Dropping
    /// the future resets the stream.
    ///
    /// # Errors
    /// [`Ended`], for a log: the receiver was told what it can be told.
    pub async fn answer<I: Inbound, O: Outbound>(
        &self,
        inbound: I,
        outbound: O,
        proved: Option<PeerKey>,
    ) -> Result<(), Ended> {
        self.answer_if(inbound, outbound, proved, |_| Some(())).await
    }

    /// The same; but of a request that the shelf admits, `admitted` hears first. What it gives is kept until the end; none
    /// refuses the request, as busy.
    ///
    /// # Errors
    /// As [`Server::answer`].
    pub async fn answer_if<I: Inbound, O: Outbound, T: Send>(
        &self,
        mut inbound: I,
        outbound: O,
        proved: Option<PeerKey>,
        admitted: impl FnOnce(&Delivery) -> Option<T> + Send,
    ) -> Result<(), Ended> {
        let mut out = Out { outbound: Some(outbound), stall: self.timing.stall };
        let request = match timeout(self.timing.request, read_request(&mut inbound)).await {
            Ok(Ok(request)) => request,
            Ok(Err(Ended::Breach(why))) => {
                let refused = PagesAnswer::Refused(Ending::new(EndCode::BAD_REQUEST, &why));
                out.send(&mut [answer_frame(&refused)]).await?;
                out.finish().await?;
                return Err(Ended::Breach(why));
            }
            Ok(Err(e)) => return Err(e),
            Err(_) => return Err(out.reset(EndCode::BAD_REQUEST, Ended::Slow)),
        };
        let stopped = out.stopped();
        let answered = tokio::select! {
            biased;
            r = self.respond(&mut out, &request, proved, admitted) => return r,
            e = silence(&mut inbound) => e,
            () = stopped => Ended::Stopped,
        };
        let code =
            if matches!(answered, Ended::Breach(_)) { EndCode::BAD_REQUEST } else { EndCode::COMPLETE };
        Err(out.reset(code, answered))
    }

    async fn respond<O: Outbound, T: Send>(
        &self,
        out: &mut Out<O>,
        request: &PagesRequest,
        proved: Option<PeerKey>,
        admitted: impl FnOnce(&Delivery) -> Option<T> + Send,
    ) -> Result<(), Ended> {
        let wanted = Wanted {
            path: &request.path,
            media: &request.media,
            version: request.version,
            what: &request.what,
            ticket: request.ticket.as_ref(),
            proved,
        };
        let mut delivery = match deliver(&self.shelf, &self.protocol, &wanted, self.timing.stall) {
            Ok(delivery) => delivery,
            Err(refusal) => {
                out.send(&mut [answer_frame(&PagesAnswer::Refused(ending(refusal)))]).await?;
                return out.finish().await;
            }
        };
        let Some(_kept) = admitted(&delivery) else {
            let busy = Refusal::Denied(Denied::Busy);
            out.send(&mut [answer_frame(&PagesAnswer::Refused(ending(busy)))]).await?;
            return out.finish().await;
        };
        let Delivery { what, total, left_out, .. } = &delivery;
        let last = match left_out {
            None => Ending::new(EndCode::COMPLETE, ""),
            Some(page) => ending(Unavailable::Missing(*page).into()),
        };
        let accepted = PagesAnswer::Accepted(Accepted { what: what.clone(), total: *total });
        // It goes with the first bytes, unless those have to wait.
        let mut before = answer_frame(&accepted);
        let last = loop {
            let next = delivery.supply.next();
            tokio::pin!(next);
            let chunk = match futures_util::poll!(next.as_mut()) {
                std::task::Poll::Ready(chunk) => chunk,
                std::task::Poll::Pending => {
                    if !before.is_empty() {
                        out.send(&mut [std::mem::take(&mut before)]).await?;
                    }
                    next.await
                }
            };
            match chunk {
                Ok(Some(Chunk { page, bytes })) => {
                    let mut head = std::mem::take(&mut before).to_vec();
                    head.extend(page.map(Piece::page_mark).unwrap_or_default());
                    head.extend(Piece::bytes_head(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
                    out.send(&mut [head.into(), bytes]).await?;
                }
                Ok(None) => break last,
                Err(e) => break Ending::new(code_of(e.kind()), &e.to_string()),
            }
        };
        let last = [&before[..], &frame::encode(&last)].concat();
        out.send(&mut [last.into()]).await?;
        out.finish().await
    }
}

fn answer_frame(answer: &PagesAnswer) -> Bytes {
    let mut bytes = Vec::new();
    frame::write(answer, &mut bytes);
    bytes.into()
}

/// The request, once its frame is there.
async fn read_request(inbound: &mut impl Inbound) -> Result<PagesRequest, Ended> {
    let mut begun = Vec::new();
    loop {
        let Some(bytes) = inbound.read().await? else { return Err(Ended::Stopped) };
        begun.extend_from_slice(&bytes);
        match split(&begun) {
            Ok(None) => {}
            Ok(Some((body, taken))) if taken == begun.len() => {
                return PagesRequest::from_body(body).map_err(|e| Ended::Breach(e.to_string()));
            }
            Ok(Some(_)) => return Err(Ended::Breach("something follows the request".to_owned())),
            Err(e) => return Err(Ended::Breach(e.to_string())),
        }
    }
}

/// Returns when the receiver says anything more than its end.
async fn silence(inbound: &mut impl Inbound) -> Ended {
    match inbound.read().await {
        Ok(None) => std::future::pending().await,
        Ok(Some(_)) => Ended::Breach("something follows the request".to_owned()),
        Err(e) => Ended::Lost(e),
    }
}

/// A direction that is reset when it is dropped unfinished.
struct Out<O: Outbound> {
    outbound: Option<O>,
    stall: Duration,
}

impl<O: Outbound> Out<O> {
    /// Writes all of `chunks`.
    async fn send(&mut self, chunks: &mut [Bytes]) -> Result<(), Ended> {
        let Some(outbound) = &mut self.outbound else { return Ok(()) };
        while chunks.iter().any(|c| !c.is_empty()) {
            match timeout(self.stall, outbound.write(chunks)).await {
                Ok(written) => written?,
                Err(_) => return Err(self.reset(EndCode::FAILED, Ended::Slow)),
            }
        }
        match timeout(self.stall, outbound.flush()).await {
            Ok(flushed) => Ok(flushed?),
            Err(_) => Err(self.reset(EndCode::FAILED, Ended::Slow)),
        }
    }

    async fn finish(&mut self) -> Result<(), Ended> {
        let Some(mut outbound) = self.outbound.take() else { return Ok(()) };
        match timeout(self.stall, outbound.finish()).await {
            Ok(finished) => Ok(finished?),
            Err(_) => Err(Ended::Slow),
        }
    }

    fn reset(&mut self, code: EndCode, why: Ended) -> Ended {
        if let Some(mut outbound) = self.outbound.take() {
            outbound.reset(code);
        }
        why
    }

    fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.outbound.as_ref().map(Outbound::stopped);
        async move {
            match stopped {
                Some(stopped) => stopped.await,
                None => std::future::pending().await,
            }
        }
    }
}

impl<O: Outbound> Drop for Out<O> {
    fn drop(&mut self) {
        if let Some(outbound) = &mut self.outbound {
            outbound.reset(EndCode::FAILED);
        }
    }
}
