//! The body of an answer, as hyper takes it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream};
use http_body::{Body as HttpBody, Frame, SizeHint};
use iceshare::live::Unended;
use iceshare::net::Serving;
use iceshare::serve::{Chunk, Source, Supply, SupplyError};
use iceshare::shelf::{Admission, Denied};
use iceshare::store::MediaStore;
use tokio_util::sync::CancellationToken;

use crate::guests::Guest;

/// What hyper sends.
pub(crate) struct Body {
    bytes: BoxStream<'static, io::Result<Bytes>>,
    /// What is left of a body of known length.
    left: Option<u64>,
    sending: Option<WhileSent>,
}

/// Kept while an answer is sent.
pub(crate) type WhileSent = (Serving, Option<Guest>);

impl Body {
    pub(crate) fn keeps(mut self, sending: WhileSent) -> Body {
        self.sending = Some(sending);
        self
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = std::task::ready!(Pin::new(&mut self.bytes).poll_next(cx));
        if let (Some(Ok(bytes)), Some(left)) = (&next, &mut self.left) {
            *left = left.saturating_sub(bytes.len() as u64);
        }
        Poll::Ready(next.map(|r| r.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A small body that is there already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    let bytes = bytes.into();
    let left = Some(bytes.len() as u64);
    Body { bytes: Box::pin(stream::iter((!bytes.is_empty()).then_some(Ok(bytes)))), left, sending: None }
}

/// So much longer than by others is waited for live media by players, which cannot ask somebody else: until it is known whether its broadcaster comes
/// back.
const LONGER: u32 = 5;

/// The body that `source` says. Pages that are waited for may take `patience` each. What players get of live media ends well when `closed` is
/// cancelled.
pub(crate) fn of(
    media: Arc<MediaStore>,
    admission: Admission,
    source: Source,
    patience: Duration,
    closed: CancellationToken,
) -> Body {
    if let Source::Live { .. } = source {
        let supply = Supply::new(media, admission, source, patience * LONGER);
        return Body { bytes: Box::pin(for_players(supply, closed)), left: None, sending: None };
    }
    let left = source.length();
    let supply = Supply::new(media, admission, source, patience);
    let bytes = stream::try_unfold(supply, |mut supply| async move {
        Ok(supply.next().await?.map(|chunk| (chunk.bytes, supply)))
    });
    Body { bytes: Box::pin(bytes), left, sending: None }
}

/// Live media as players take it: where it breaks off each logical stream is given an end.
fn for_players(supply: Supply, closed: CancellationToken) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let state = (supply, closed, Unended::default());
    stream::unfold(Some(state), |state| async move {
        let (mut supply, closed, mut unended) = state?;
        let next = tokio::select! {
            biased;
            next = supply.next() => next,
            () = closed.cancelled() => Ok(None),
        };
        match next {
            Ok(Some(Chunk { bytes, .. })) => {
                unended.bytes(bytes.clone());
                Some((Ok(bytes), Some((supply, closed, unended))))
            }
            Ok(None) | Err(SupplyError::Late(_) | SupplyError::Denied(Denied::Withdrawn)) => {
                unended.close().map(|end| (Ok(end), None))
            }
            Err(e) => Some((Err(e.into()), None)),
        }
    })
}
