//! A media as a file that can be read and sought while it is still arriving.

use std::future::Future;
use std::io::{self, SeekFrom};
use std::pin::Pin;
use std::sync::{MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use icet::message::Position;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::Media;
use super::media::Stage;
use super::turns::{ReaderId, Turns};

/// A reader that waits says again where it stands, after so long: another reader of the same media may have had the focus
/// since.
const REMIND: Duration = Duration::from_millis(700);
/// The focus follows a reader that is not waiting at least after so many bytes.
const FOLLOW: u64 = 256 * 1024;
/// Seconds of media that are wanted at once ahead of a reader.
const URGENT_SECONDS: u64 = 4;
const URGENT_BYTES: std::ops::RangeInclusive<u64> = 64 * 1024..=4 << 20;

/// Reads a media from any offset. A read of bytes that have not arrived moves the tracker's focus there and waits;
/// a late page makes a read late, never wrong and never short.
#[derive(Debug)]
pub struct MediaReader {
    media: Media,
    id: ReaderId,
    at: u64,
    focus: Option<u64>,
    /// Whether the page of `focus` was told.
    exact: bool,
    wait: Option<Waiting>,
    urgent: u64,
}

/// Resolves when something of the media changed, or it is time to remind the tracker.
struct Waiting {
    change: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    remind: Pin<Box<Sleep>>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiting")
    }
}

async fn change(mut store: watch::Receiver<u64>, mut stage: watch::Receiver<Stage>) {
    tokio::select! {
        r = store.changed() => if r.is_err() { std::future::pending::<()>().await },
        r = stage.changed() => if r.is_err() { std::future::pending::<()>().await },
    }
}

fn turns(media: &Media) -> MutexGuard<'_, Turns> {
    media.shared.turns.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for MediaReader {
    fn drop(&mut self) {
        turns(&self.media).leave(self.id);
    }
}

impl MediaReader {
    pub(crate) fn new(media: Media) -> MediaReader {
        let m = media.manifest();
        let rate = m.bytes.saturating_mul(1_000_000).checked_div(m.duration).unwrap_or(128 * 1024);
        let urgent = (rate.saturating_mul(URGENT_SECONDS)).clamp(*URGENT_BYTES.start(), *URGENT_BYTES.end());
        let id = turns(&media).enter();
        MediaReader { media, id, at: 0, focus: None, exact: false, wait: None, urgent }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.media.manifest().bytes
    }

    /// Whether the media has no bytes (it never does).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the next read begins, in bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Moves the next read; past the end reads give nothing.
    pub fn set_position(&mut self, at: u64) {
        if at != self.at {
            self.at = at;
            if self.wait.take().is_some() {
                turns(&self.media).got(self.id);
            }
        }
    }

    /// Moves the next read to the page whose content starts at `time` microseconds of media time, or where it is
    /// about to be if the tracker must be asked first.
    pub fn seek_time(&mut self, time: u64) {
        let store = self.media.store();
        let span = store.page_at_time(time).and_then(|p| store.span(p));
        let m = self.media.manifest();
        let guess = || {
            u64::try_from(u128::from(m.bytes) * u128::from(time) / u128::from(m.duration.max(1)))
                .map_or(m.bytes, |b| b.min(m.bytes))
        };
        let at = span.map_or_else(guess, |s| s.offset);
        self.set_position(at);
    }

    /// How many bytes from `at` on can be read now, at most `want`.
    fn available(&self, want: usize) -> Option<usize> {
        let store = self.media.store();
        let mut page = store.page_at_byte(self.at)?;
        let mut have = 0u64;
        while have < want as u64 && store.has(page) {
            let Some(span) = store.span(page) else { break };
            have = span.end() - self.at;
            page += 1;
        }
        (have > 0).then(|| want.min(usize::try_from(have).unwrap_or(want)))
    }

    /// By page where it is known: what the tracker makes of a byte is a guess within a slice, and may miss the page
    /// that is waited for.
    fn say_where(&mut self) {
        let page = self.media.store().page_at_byte(self.at);
        if page.is_none() {
            self.media.locate(Position::Byte(self.at));
        }
        self.media.focus(page.map_or(Position::Byte(self.at), Position::Page), self.urgent);
        self.focus = Some(self.at);
        self.exact = page.is_some();
    }
}

impl AsyncRead for MediaReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.len().saturating_sub(self.at);
        let want = buf.remaining().min(usize::try_from(left).unwrap_or(usize::MAX)).min(256 * 1024);
        if want == 0 {
            return Poll::Ready(Ok(()));
        }
        let complete = self.media.store().is_complete();
        loop {
            // Subscribed before the look, so that no change is missed in between.
            let waits = (self.media.store().changed(), self.media.shared.stage.subscribe());
            let n = if complete { Some(want) } else { self.available(want) };
            if let Some(n) = n {
                if self.wait.take().is_some() {
                    turns(&self.media).got(self.id);
                }
                let at = self.at;
                let read = self.media.store().read_into(at, &mut buf.initialize_unfilled()[..n])?;
                if read == 0 {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the file of a media ended before the media does: it was changed while in use",
                    )));
                }
                buf.advance(read);
                self.at += read as u64;
                let moved = !complete && self.focus.is_none_or(|f| self.at < f || self.at - f > FOLLOW);
                if moved && turns(&self.media).follow(self.id, Instant::now()) {
                    self.say_where();
                }
                return Poll::Ready(Ok(()));
            }
            if let Some(e) = self.media.failure() {
                return Poll::Ready(Err(io::Error::other(e)));
            }
            let known = self.media.store().page_at_byte(self.at).is_some();
            let news = self.focus != Some(self.at) || known && !self.exact;
            if news && turns(&self.media).wait(self.id, Instant::now()) {
                self.say_where();
            }
            match &mut self.wait {
                None => {
                    let remind = Box::pin(tokio::time::sleep_until(Instant::now() + REMIND));
                    self.wait = Some(Waiting { change: Box::pin(change(waits.0, waits.1)), remind });
                }
                Some(wait) => {
                    if wait.remind.as_mut().poll(cx).is_ready() {
                        wait.remind.as_mut().reset(Instant::now() + REMIND);
                        if turns(&self.media).wait(self.id, Instant::now()) {
                            self.say_where();
                        } else {
                            // Said anew when its turn comes.
                            self.focus = None;
                        }
                        continue;
                    }
                    ready!(wait.change.as_mut().poll(cx));
                    wait.change = Box::pin(change(waits.0, waits.1));
                }
            }
        }
    }
}

impl AsyncSeek for MediaReader {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        let target = match position {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => self.len().checked_add_signed(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
        };
        let target = target
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a seek to before the beginning"))?;
        self.set_position(target);
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.at))
    }
}
