//! Who comes when a broadcast has ended already, and its publisher may be about to put a file in its place.

use std::time::{Duration, Instant};

use iceshare::icet::{IcetUrl, Kind};
use iceshare::{Media, OpenError, Peer};

use crate::args::Later;
use crate::failure::{Failure, Outcome};
use crate::output::note;
use crate::peer;

/// So long is waited for what the tracker knows of a broadcast, which it sends behind its answer.
const WORD: Duration = Duration::from_millis(500);
/// How often it is looked for the file.
const LOOK: Duration = Duration::from_millis(250);
/// So long after the broadcast is gone; and while it is there though it has ended, which is as long as somebody hears its rest.
const GONE: Duration = Duration::from_secs(5);
const THERE: Duration = Duration::from_secs(120);
/// No such media.
const NONE: u8 = 4;

/// Whether what was opened is a broadcast that had ended by then, so that there is next to nothing to hear of it. Who asks for what was on
/// earlier (`--at`) gets that all the same.
pub(super) async fn is_late(media: &Media, later: &Later) -> bool {
    later.at.is_none() && media.came_too_late(WORD).await
}

/// Waits for what takes the place of a broadcast that has ended.
pub(super) async fn in_its_place(peer: &Peer, url: &IcetUrl) -> Outcome {
    note("the broadcast has ended; waiting whether a file takes its place under this link");
    let (begun, mut gone) = (Instant::now(), None);
    loop {
        match peer.info(url).await {
            // A file; or it is on again.
            Ok(info) if info.manifest.kind == Kind::File || !info.ended => return Ok(()),
            Ok(_) => gone = None,
            Err(OpenError::NoMedia { .. }) => {
                gone.get_or_insert_with(Instant::now);
            }
            Err(e) => return Err(peer::opened(e)),
        }
        if gone.is_some_and(|at| at.elapsed() >= GONE) || begun.elapsed() >= THERE {
            return Err(Failure::with(NONE, "the broadcast has ended, and no file has taken its place"));
        }
        tokio::time::sleep(LOOK).await;
    }
}
