//! `iceshare get` of live media: from where it comes in, for a time or until the broadcast ends.

use std::time::Duration;

use iceshare::live::Ending;
use iceshare::{LivePage, Media, OpenError};
use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Outcome};
use crate::output::{self, note};
use crate::peer;
use crate::titles::Now;
use crate::waiting::{Protocols, last_reason};

/// Without a first page for so long, it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Recorded {
    /// Setup pages that were put in front.
    setup: u64,
    /// First and last page behind them.
    first: Option<u64>,
    last: Option<u64>,
    pages: u64,
    bytes: u64,
    /// Pages in between that did not come in time.
    left_out: u64,
    /// Whether the broadcast had ended.
    ended: bool,
    /// Why it ends before that, if nobody wanted it to.
    broke_off: Option<String>,
}

impl Recorded {
    fn note(&mut self, page: &LivePage) {
        self.bytes += page.bytes.len() as u64;
        if page.ahead {
            self.setup += 1;
            return;
        }
        if let Some(last) = self.last {
            self.left_out += page.number - last - 1;
        }
        self.first.get_or_insert(page.number);
        self.last = Some(page.number);
        self.pages += 1;
    }
}

fn unwritten(e: &std::io::Error, name: &str) -> Failure {
    match e.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::failed("the program that reads the pipe went away"),
        _ => Failure::failed(format!("cannot write {name}: {e}")),
    }
}

/// Writes pages to `out` as they come; to a file, whose name is given, one page of each stream later, so that its end can be marked.
#[allow(clippy::too_many_arguments)]
pub(super) async fn record(
    media: &Media,
    mut out: impl AsyncWrite + Unpin,
    time: Option<Duration>,
    file: Option<&str>,
    json: bool,
    protocols: &Protocols,
    stop: &CancellationToken,
) -> Outcome {
    let name = file.unwrap_or("standard output");
    let mut reader = media.live_reader();
    let (mut recorded, mut now, mut ending) = (Recorded::default(), Now::default(), Ending::default());
    let (mut begun, mut stopped, mut failure) = (None, false, None);
    loop {
        let next = async {
            match recorded.first {
                Some(_) => reader.next().await.map_err(peer::opened),
                None => tokio::time::timeout(PATIENCE, reader.next())
                    .await
                    .map_err(|_| {
                        let why = last_reason(media, protocols);
                        Failure::with(5, format!("no page came in {} s", PATIENCE.as_secs())).add(&why)
                    })?
                    .map_err(peer::opened),
            }
        };
        let page = tokio::select! {
            () = stop.cancelled() => { stopped = true; break }
            page = next => page,
        };
        let page = match page {
            Ok(Some(page)) => page,
            Ok(None) if media.is_off_air() => {
                failure = Some(peer::opened(OpenError::OffAir));
                break;
            }
            Ok(None) => {
                recorded.ended = true;
                break;
            }
            // What was recorded is told all the same.
            Err(e) if recorded.first.is_some() => {
                failure = Some(e);
                break;
            }
            Err(e) => return Err(e),
        };
        if !page.ahead {
            let from = *begun.get_or_insert(page.time);
            let time = time.map(|t| i64::try_from(t.as_micros()).unwrap_or(i64::MAX));
            if time.is_some_and(|t| page.time.saturating_sub(from) >= t) {
                break;
            }
        }
        recorded.note(&page);
        now.page(&page.bytes);
        // Who reads a pipe listens, and need not wait for a page.
        let pages = if file.is_some() { ending.page(page.bytes) } else { vec![page.bytes] };
        for page in pages {
            out.write_all(&page).await.map_err(|e| unwritten(&e, name))?;
        }
    }
    for page in ending.close() {
        out.write_all(&page).await.map_err(|e| unwritten(&e, name))?;
    }
    out.flush().await?;
    recorded.broke_off = failure.as_ref().and_then(Failure::text).map(str::to_owned);
    note(format!(
        "{}: {} pages, {} bytes{}{}",
        crate::escape::printable(name),
        recorded.setup + recorded.pages,
        recorded.bytes,
        if recorded.left_out > 0 { format!(", {} left out", recorded.left_out) } else { String::new() },
        match (recorded.ended, &recorded.broke_off) {
            (true, _) => "; the broadcast has ended",
            (_, Some(_)) => "; it broke off",
            _ => "",
        },
    ));
    if json {
        output::json(&recorded)?;
    }
    if recorded.ended && recorded.pages == 0 {
        return Err(Failure::with(5, "the broadcast ended before a page of it came"));
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    // Without a time, an interrupt is how one ends a recording; it is told apart by its code all the same.
    if stopped { Err(Failure::interrupted()) } else { Ok(()) }
}
