//! The body of an answer: file contents in large pieces, straight from the page cache to the socket.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use iceshare::icet::PageSet;
use iceshare::shelf::Admission;
use iceshare::store::MediaStore;

/// Bytes read and written at once.
const CHUNK: u64 = 256 * 1024;

/// What hyper sends.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A small body that is there already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is metered.
pub(crate) fn metered(bytes: Bytes, admission: Admission) -> Body {
    let parts = stream::once(async move {
        admission.permit(bytes.len()).await.map_err(io::Error::other)?;
        Ok(bytes)
    });
    frames(parts.boxed())
}

fn frames(parts: BoxStream<'static, io::Result<Bytes>>) -> Body {
    BodyExt::boxed_unsync(StreamBody::new(parts.map(|r| r.map(Frame::data))))
}

/// Extents `(offset, length)` of the file, one after the other; each is known to be held.
pub(crate) fn extents(media: Arc<MediaStore>, admission: Admission, extents: Vec<(u64, u64)>) -> Body {
    let mut extents = extents;
    extents.retain(|(_, len)| *len > 0);
    extents.reverse();
    let parts = stream::try_unfold((media, admission, extents), |(media, admission, mut left)| async move {
        let Some((offset, len)) = left.pop() else { return Ok(None) };
        let part = len.min(CHUNK);
        if len > part {
            left.push((offset + part, len - part));
        }
        let bytes = read(&media, &admission, offset, part).await?;
        Ok(Some((bytes, (media, admission, left))))
    });
    frames(parts.boxed())
}

/// The pages of `set` as they come; what has not arrived is waited for.
pub(crate) fn pages(media: Arc<MediaStore>, admission: Admission, set: PageSet) -> Body {
    let end = media.manifest().pages;
    let start = set.next_from(0).filter(|p| *p < end);
    let parts = stream::try_unfold((media, admission, start), move |(media, admission, at)| async move {
        let Some(page) = at else { return Ok(None) };
        let mut changed = media.changed();
        while !media.has(page) {
            changed.changed().await.map_err(io::Error::other)?;
        }
        let gone = || io::Error::other("the page's record is gone");
        let first = media.span(page).ok_or_else(gone)?;
        // Neighbours that are there too go with it.
        let (mut to, mut next) = (first.end(), set.next_from(page + 1).filter(|p| *p < end));
        while let Some(p) = next.filter(|p| media.has(*p)) {
            let Some(span) = media.span(p).filter(|s| s.offset == to && s.end() - first.offset <= CHUNK)
            else {
                break;
            };
            to = span.end();
            next = set.next_from(p + 1).filter(|p| *p < end);
        }
        let bytes = read(&media, &admission, first.offset, to - first.offset).await?;
        Ok(Some((bytes, (media, admission, next))))
    });
    frames(parts.boxed())
}

async fn read(media: &MediaStore, admission: &Admission, offset: u64, len: u64) -> io::Result<Bytes> {
    let len = usize::try_from(len).map_err(io::Error::other)?;
    admission.permit(len).await.map_err(io::Error::other)?;
    let bytes = media.read(offset, len)?;
    if bytes.len() == len {
        Ok(bytes)
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was served"))
    }
}
