//! The body of an answer: file contents in large pieces, read into the buffers that go to the socket.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, Stream};
use http_body::{Body as HttpBody, Frame, SizeHint};
use iceshare::icet::frame;
use iceshare::shelf::Admission;
use iceshare::store::MediaStore;
use tokio::time::timeout;

use crate::plan::{Part, Source};

/// Bytes read and written at once, at most and at least (while the upload limit makes each wait).
const CHUNK: (u64, u64) = (256 * 1024, 4 * 1024);
/// When a permit takes longer, the next piece is smaller, so that something keeps moving.
const WAIT: Duration = Duration::from_millis(100);
/// Slices that are sent at once.
const SLICES: u64 = 16;

/// What hyper sends.
pub(crate) struct Body {
    bytes: BoxStream<'static, io::Result<Bytes>>,
    /// What is left of a body of known length.
    left: Option<u64>,
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
    Body { bytes: Box::pin(stream::iter((!bytes.is_empty()).then_some(Ok(bytes)))), left }
}

/// The length of the body, if it is known before it is sent.
pub(crate) fn length(source: &Source) -> Option<u64> {
    match source {
        Source::Parts { parts, .. } => Some(parts.iter().map(Part::len).sum()),
        Source::Pages(_) | Source::Slices { .. } => None,
    }
}

/// The body that `source` says. Pages that are waited for may take `patience` each.
pub(crate) fn of(media: Arc<MediaStore>, admission: Admission, source: Source, patience: Duration) -> Body {
    let left = length(&source);
    let mut writer = Writer { media, admission, chunk: CHUNK.1 * 4, patience, todo: VecDeque::new() };
    match source {
        Source::Parts { parts, wait } => {
            writer.todo.extend(parts.into_iter().map(|part| Todo::Part(part, wait)));
        }
        Source::Pages(set) => writer.todo.push_back(Todo::Pages(set.next_from(0), set)),
        Source::Slices { first, last } => writer.todo.push_back(Todo::Slices(first, last)),
    }
    let bytes = stream::try_unfold(writer, |mut writer| async move {
        Ok(writer.next().await?.map(|bytes| (bytes, writer)))
    });
    Body { bytes: Box::pin(bytes), left }
}

enum Todo {
    /// A part, and whether what is not held of it is waited for.
    Part(Part, bool),
    /// Pages of a set from this one on, as they come.
    Pages(Option<u64>, iceshare::icet::PageSet),
    /// Slices, both inclusive.
    Slices(u64, u64),
}

struct Writer {
    media: Arc<MediaStore>,
    admission: Admission,
    todo: VecDeque<Todo>,
    /// Bytes to be read next.
    chunk: u64,
    patience: Duration,
}

impl Writer {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.todo.pop_front() {
                None => return Ok(None),
                Some(Todo::Part(Part::Literal(bytes), _)) => {
                    self.permit(bytes.len()).await?;
                    return Ok(Some(bytes));
                }
                Some(Todo::Part(Part::Span { offset, len }, wait)) => {
                    let mut n = len.min(self.chunk);
                    if wait {
                        n = n.min(self.arrived(offset).await?);
                    }
                    if n < len {
                        let rest = Part::Span { offset: offset + n, len: len - n };
                        self.todo.push_front(Todo::Part(rest, wait));
                    }
                    return self.read(offset, n).await.map(Some);
                }
                Some(Todo::Pages(at, set)) => {
                    let end = self.media.manifest().pages;
                    let Some(page) = at.filter(|p| *p < end) else { continue };
                    self.wait_for(|m| m.has(page)).await?;
                    let gone = || io::Error::other("the page's record is gone");
                    let first = self.media.span(page).ok_or_else(gone)?;
                    // Neighbours that are there too go with it.
                    let (mut to, mut next) = (first.end(), set.next_from(page + 1));
                    while let Some(p) = next.filter(|p| *p < end && self.media.has(*p)) {
                        let fits = |s: &iceshare::store::PageSpan| {
                            s.offset == to && s.end() - first.offset <= self.chunk
                        };
                        let Some(span) = self.media.span(p).filter(fits) else { break };
                        to = span.end();
                        next = set.next_from(p + 1);
                    }
                    self.todo.push_front(Todo::Pages(next, set));
                    return self.read(first.offset, to - first.offset).await.map(Some);
                }
                Some(Todo::Slices(first, last)) => {
                    let to = last.min(first + SLICES - 1);
                    if to < last {
                        self.todo.push_front(Todo::Slices(to + 1, last));
                    }
                    let media = self.media.clone();
                    let encode = move || {
                        let known = (first..=to).filter_map(|i| media.proven_slice(i));
                        known.flat_map(|s| frame::encode(&s)).collect::<Vec<u8>>()
                    };
                    let bytes = tokio::task::spawn_blocking(encode).await.map_err(io::Error::other)?;
                    if !bytes.is_empty() {
                        self.permit(bytes.len()).await?;
                        return Ok(Some(bytes.into()));
                    }
                }
            }
        }
    }

    /// Waits until something holds of the media, for `patience` at most from one arrival to the next.
    async fn wait_for(&self, holds: impl Fn(&MediaStore) -> bool) -> io::Result<()> {
        let mut changed = self.media.changed();
        while !holds(&self.media) {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no page came");
            timeout(self.patience, changed.changed()).await.map_err(late)?.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Waits for the page that has the byte at `offset`; how many bytes are held from there on, as far as it matters.
    async fn arrived(&self, offset: u64) -> io::Result<u64> {
        self.wait_for(|m| m.page_at_byte(offset).is_some_and(|p| m.has(p))).await?;
        let mut page = self.media.page_at_byte(offset);
        let mut end = offset;
        while let Some(span) = page.filter(|p| self.media.has(*p)).and_then(|p| self.media.span(p)) {
            end = span.end();
            if end - offset >= self.chunk {
                break;
            }
            page = page.map(|p| p + 1);
        }
        Ok((end - offset).max(1))
    }

    async fn permit(&mut self, bytes: usize) -> io::Result<()> {
        let before = Instant::now();
        self.admission.permit(bytes).await.map_err(io::Error::other)?;
        let slow = before.elapsed() > WAIT;
        self.chunk = if slow { (self.chunk / 2).max(CHUNK.1) } else { (self.chunk * 2).min(CHUNK.0) };
        Ok(())
    }

    async fn read(&mut self, offset: u64, len: u64) -> io::Result<Bytes> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.permit(len).await?;
        let media = self.media.clone();
        // A disk may be slow: not on a thread that serves others.
        let read = tokio::task::spawn_blocking(move || media.read(offset, len));
        let bytes = read.await.map_err(io::Error::other)??;
        if bytes.len() == len {
            Ok(bytes)
        } else {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was served"))
        }
    }
}
