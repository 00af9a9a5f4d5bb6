//! The bytes of an answer: file contents in large pieces, read into the buffers that go to the socket.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use icet::{PageNo, PageSet, frame};
use thiserror::Error;
use tokio::time::timeout;

use super::plan::{Part, Source};
use crate::protocol::ErrorKind;
use crate::shelf::{Admission, Denied};
use crate::store::{MediaStore, PageSpan};

/// Slices that are looked up at once.
pub const SLICES: u64 = 16;

/// Why the bytes of an answer end early.
#[derive(Debug, Error)]
pub enum SupplyError {
    /// The shelf lets no more pass.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// What is waited for did not come.
    #[error("no page came in {} s", .0.as_secs())]
    Late(Duration),
    /// The window of a live media has moved past this page.
    #[error("page {0} is older than what is kept here")]
    Gone(PageNo),
    /// The disk's fault, or the file became shorter.
    #[error("the media cannot be read")]
    Read(#[source] io::Error),
}

impl SupplyError {
    /// What a transport tells the requester.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            SupplyError::Denied(why) => why.kind(),
            SupplyError::Late(_) | SupplyError::Gone(_) => ErrorKind::NoRange,
            SupplyError::Read(_) => ErrorKind::Broken,
        }
    }
}

impl From<SupplyError> for io::Error {
    fn from(e: SupplyError) -> io::Error {
        match e {
            SupplyError::Read(e) => e,
            SupplyError::Late(_) => io::Error::new(io::ErrorKind::TimedOut, e),
            SupplyError::Denied(_) | SupplyError::Gone(_) => io::Error::other(e),
        }
    }
}

/// Some bytes of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The page that they begin, if they do, it is known, and it does not follow from what came before.
    pub page: Option<PageNo>,
    /// The bytes; never empty.
    pub bytes: Bytes,
}

/// The bytes of an answer, each chunk after the shelf let it pass. Dropping it ends the request.
#[derive(Debug)]
pub struct Supply {
    media: Arc<MediaStore>,
    admission: Arc<Admission>,
    todo: VecDeque<Todo>,
    /// Bytes to be read and written at once.
    chunk: u64,
    patience: Duration,
    /// Offset behind the last bytes of the media.
    at: Option<u64>,
}

#[derive(Debug)]
enum Todo {
    /// A part, and whether what is not held of it is waited for.
    Part(Part, bool),
    /// Pages of a set from this one on, as they come.
    Pages(Option<u64>, PageSet),
    /// Batches from that of this page on, as they come.
    Batches(PageNo),
    /// Slices, both inclusive.
    Slices(u64, u64),
}

impl Supply {
    /// The bytes of `source`. Pages that are waited for may take `patience` each.
    #[must_use]
    pub fn new(
        media: Arc<MediaStore>,
        admission: impl Into<Arc<Admission>>,
        source: Source,
        patience: Duration,
    ) -> Supply {
        let admission = admission.into();
        let todo = match source {
            Source::Parts { parts, wait } => parts.into_iter().map(|part| Todo::Part(part, wait)).collect(),
            Source::Pages(set) => VecDeque::from([Todo::Pages(set.next_from(0), set)]),
            Source::Live { setup, pages } => {
                VecDeque::from([Todo::Part(setup, false), Todo::Pages(pages.next_from(0), pages)])
            }
            Source::Batches(first) => VecDeque::from([Todo::Batches(first)]),
            Source::Slices { first, last } => VecDeque::from([Todo::Slices(first, last)]),
        };
        let chunk = admission.quantum() as u64;
        Supply { media, admission, todo, chunk, patience, at: None }
    }

    /// Whether the request came with a ticket.
    #[must_use]
    pub fn is_ticketed(&self) -> bool {
        self.admission.is_ticketed()
    }

    /// As [`Supply::next`], but about `bytes` at most: more only where a page has more.
    ///
    /// # Errors
    /// [`SupplyError`], after which nothing more comes.
    pub async fn next_within(&mut self, bytes: usize) -> Result<Option<Chunk>, SupplyError> {
        let most = u64::try_from(bytes).unwrap_or(u64::MAX).max(1);
        let chunk = self.chunk;
        self.chunk = chunk.min(most);
        let next = self.next().await;
        self.chunk = chunk;
        next
    }

    /// The next bytes, as soon as they may be sent; none at the end. What was read and not sent counts as served.
    ///
    /// # Errors
    /// [`SupplyError`], after which nothing more comes.
    pub async fn next(&mut self) -> Result<Option<Chunk>, SupplyError> {
        loop {
            match self.todo.pop_front() {
                None => return Ok(None),
                Some(Todo::Part(Part::Literal(bytes), _)) => {
                    self.permit(bytes.len()).await?;
                    return Ok(Some(Chunk { page: None, bytes }));
                }
                Some(Todo::Part(Part::Span { offset, len, page }, wait)) => {
                    let mut n = len.min(self.chunk);
                    if wait {
                        n = n.min(self.arrived(offset).await?);
                    }
                    if n < len {
                        let rest = Part::Span { offset: offset + n, len: len - n, page: None };
                        self.todo.push_front(Todo::Part(rest, wait));
                    }
                    return self.read(offset, n, page).await.map(Some);
                }
                Some(Todo::Pages(at, set)) => {
                    let Some(page) = at else { continue };
                    self.wait_for(|m| m.has(page) || page >= m.page_end() || m.is_gone(page)).await?;
                    if self.media.is_gone(page) {
                        return Err(SupplyError::Gone(page));
                    }
                    let end = self.media.page_end();
                    if page >= end {
                        continue;
                    }
                    let first = self.media.span(page).ok_or(SupplyError::Gone(page))?;
                    // Neighbours that are there too go with it.
                    let (mut to, mut next) = (first.end(), set.next_from(page + 1));
                    while let Some(p) = next.filter(|p| *p < end && self.media.has(*p)) {
                        let fits = |s: &PageSpan| s.offset == to && s.end() - first.offset <= self.chunk;
                        let Some(span) = self.media.span(p).filter(fits) else { break };
                        to = span.end();
                        next = set.next_from(p + 1);
                    }
                    self.todo.push_front(Todo::Pages(next, set));
                    return self.read(first.offset, to - first.offset, Some(page)).await.map(Some);
                }
                Some(Todo::Batches(page)) => {
                    self.wait_for(|m| m.batch_of(page).is_some() || m.is_gone(page)).await?;
                    let batch = self.media.batch_of(page).ok_or(SupplyError::Gone(page))?;
                    if !batch.ends {
                        self.todo.push_front(Todo::Batches(batch.next()));
                    }
                    let bytes = frame::encode(batch.signed());
                    self.permit(bytes.len()).await?;
                    return Ok(Some(Chunk { page: None, bytes: bytes.into() }));
                }
                Some(Todo::Slices(first, last)) => {
                    let to = last.min(first + SLICES - 1);
                    if to < last {
                        self.todo.push_front(Todo::Slices(to + 1, last));
                    }
                    let slices = slices(&self.media, first, to).await?;
                    let bytes = slices.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>().concat();
                    if !bytes.is_empty() {
                        self.permit(bytes.len()).await?;
                        return Ok(Some(Chunk { page: None, bytes: bytes.into() }));
                    }
                }
            }
        }
    }

    /// For sending some of it once more.
    #[must_use]
    pub fn again(&self) -> Again {
        Again { media: self.media.clone(), admission: self.admission.clone() }
    }

    /// Waits until something holds of the media, for `patience` at most from one arrival to the next.
    async fn wait_for(&self, holds: impl Fn(&MediaStore) -> bool) -> Result<(), SupplyError> {
        let mut changed = self.media.changed();
        while !holds(&self.media) {
            let next = timeout(self.patience, changed.changed()).await;
            // The sender lives as long as the media, which we hold.
            next.map_err(|_| SupplyError::Late(self.patience))?
                .map_err(|e| SupplyError::Read(io::Error::other(e)))?;
        }
        Ok(())
    }

    /// Waits for the page that has the byte at `offset`; how many bytes are held from there on, as far as it matters.
    async fn arrived(&self, offset: u64) -> Result<u64, SupplyError> {
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

    async fn permit(&self, bytes: usize) -> Result<(), SupplyError> {
        Ok(self.admission.permit(bytes).await?)
    }

    async fn read(&mut self, offset: u64, len: u64, page: Option<PageNo>) -> Result<Chunk, SupplyError> {
        let size = usize::try_from(len).map_err(|e| SupplyError::Read(io::Error::other(e)))?;
        self.permit(size).await?;
        let bytes = read(&self.media, offset, size).await?;
        let follows = self.at.replace(offset + len) == Some(offset);
        Ok(Chunk { page: page.filter(|_| !follows), bytes })
    }
}

/// Slices `first ..= last` with their proofs as hosts send them, by their indices, as far as they are known here. A few at
/// once: each call is a hop to the disk's threads.
///
/// # Errors
/// [`SupplyError::Read`] while the program ends.
pub async fn slices(
    media: &Arc<MediaStore>,
    first: u64,
    last: u64,
) -> Result<Vec<(u64, Vec<u8>)>, SupplyError> {
    let media = media.clone();
    let encode = move || {
        let known = (first..=last).filter_map(|i| Some((i, media.proven_slice(i)?)));
        known.map(|(i, s)| (i, frame::encode(&s))).collect()
    };
    let known = tokio::task::spawn_blocking(encode).await;
    known.map_err(|e| SupplyError::Read(io::Error::other(e)))
}

/// Reads bytes that are held.
async fn read(media: &Arc<MediaStore>, offset: u64, len: usize) -> Result<Bytes, SupplyError> {
    let read = match media.read_ready(offset, len) {
        Some(read) => read,
        None => {
            let media = media.clone();
            // A disk may be slow: not on a thread that serves others.
            let read = tokio::task::spawn_blocking(move || media.read(offset, len));
            read.await.map_err(|e| SupplyError::Read(io::Error::other(e)))?
        }
    };
    let bytes = read.map_err(SupplyError::Read)?;
    if bytes.len() != len {
        let short =
            io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was served");
        return Err(SupplyError::Read(short));
    }
    Ok(bytes)
}

/// Bytes of a request once more, for protocols that lose some; beside its [`Supply`], under the same admission.
#[derive(Debug, Clone)]
pub struct Again {
    media: Arc<MediaStore>,
    admission: Arc<Admission>,
}

impl Again {
    /// The media.
    #[must_use]
    pub fn media(&self) -> &Arc<MediaStore> {
        &self.media
    }

    /// `len` bytes from `offset` on, which were sent before, as soon as they may be sent.
    ///
    /// # Errors
    /// [`SupplyError`].
    pub async fn read(&self, offset: u64, len: usize) -> Result<Bytes, SupplyError> {
        self.permit(len).await?;
        read(&self.media, offset, len).await
    }

    /// Waits until so many bytes, which the caller has, may be sent.
    ///
    /// # Errors
    /// [`SupplyError::Denied`].
    pub async fn permit(&self, len: usize) -> Result<(), SupplyError> {
        Ok(self.admission.permit_again(len).await?)
    }
}
