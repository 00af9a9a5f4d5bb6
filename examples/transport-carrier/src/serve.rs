//! Serving: a mailbox, and a task for each request in it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use iceshare::net::Context;
use iceshare::protocol::{ErrorKind, TransportError};
use iceshare::shelf::Shelf;
use iceshare::stream::{Server, Timing};
use tokio::time::{Instant, sleep, timeout};

use crate::config::Config;
use crate::wire::{self, Reader, Shared, Writer};

/// How long it takes to look into the mailbox again.
const PAUSE: Duration = Duration::from_millis(10);
/// How long an answer may lie there.
const FETCHED: Duration = Duration::from_secs(60);

/// Requests at work.
type Taken = Arc<Mutex<HashSet<String>>>;

fn lock(taken: &Taken) -> MutexGuard<'_, HashSet<String>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to serve; the endpoint.
pub(crate) fn start(cx: &Context, shelf: Arc<Shelf>, config: &Config) -> Result<String, TransportError> {
    let local = |e: io::Error| {
        let what = format!("cannot use the shared directory {}", config.dir.display());
        TransportError::new(ErrorKind::Local, what).because(e)
    };
    let shared = Shared::open(&config.dir).map_err(local)?;
    let mailbox = shared.mailbox(&cx.identity().key());
    // Whatever an earlier life left there.
    wire::discard(&mailbox);
    fs::create_dir_all(&mailbox).map_err(local)?;
    fs::write(mailbox.join(wire::ALIVE), b"").map_err(local)?;
    let server = Server { shelf, protocol: cx.protocol().clone(), timing: Timing::default() };
    cx.spawn(attend(cx.clone(), server, mailbox, config.requests));
    Ok(shared.id)
}

/// Looks for requests until the peer shuts down; then the mailbox goes, and with it all requests.
async fn attend(cx: Context, server: Server, mailbox: PathBuf, most: usize) {
    let taken = Taken::default();
    let mut beat = Instant::now();
    while !cx.closed().is_cancelled() {
        if beat.elapsed() > wire::BEAT {
            beat = Instant::now();
            // A full disk, say: receivers will take it for what it is, the end.
            let _ = fs::write(mailbox.join(wire::ALIVE), b"");
        }
        for name in requests(&mailbox) {
            if lock(&taken).len() >= most {
                break;
            }
            if lock(&taken).insert(name.clone()) {
                cx.spawn(answer(server.clone(), mailbox.join(&name), name, taken.clone()));
            }
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = cx.closed().cancelled() => {}
        }
    }
    wire::discard(&mailbox);
}

/// What lies in the mailbox and is ours to answer: no link to elsewhere.
fn requests(mailbox: &Path) -> Vec<String> {
    let entries = fs::read_dir(mailbox).into_iter().flatten().flatten();
    let real = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    real.filter_map(|e| e.file_name().into_string().ok()).filter(|n| wire::is_token(n)).collect()
}

async fn answer(server: Server, place: PathBuf, name: String, taken: Taken) {
    let (inbound, outbound) = (Reader::new(place.join("up"), None), Writer::new(place.join("down")));
    // The receiver was told what it can be told; no key is proved.
    if server.answer(inbound, outbound, None).await.is_ok() {
        let gone = wire::look(|| Ok((!place.exists()).then_some(())));
        if timeout(FETCHED, gone).await.is_err() {
            wire::discard(&place);
        }
    }
    lock(&taken).remove(&name);
}
