//! Serving: each stream that another peer opens is one request.

use std::sync::Arc;

use iceshare::net::Context;
use iceshare::serve::Delivery;
use iceshare::shelf::Shelf;
use iceshare::stream::{Server, Timing};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::streams::Asked;
use crate::{io, wire};

/// Answers what comes in until the peer closes and the last answer has ended; then the node may end too.
pub(crate) async fn run(
    cx: Context,
    shelf: Arc<Shelf>,
    config: Config,
    mut inbound: mpsc::Receiver<Asked>,
    over: CancellationToken,
) {
    let timing = Timing { request: config.request_timeout, stall: config.stall_timeout };
    let server = Server { shelf, protocol: cx.protocol().clone(), timing };
    let places = Arc::new(Semaphore::new(config.requests));
    let answers = TaskTracker::new();
    loop {
        let (peer, stream, place) = tokio::select! {
            next = inbound.recv() => match next { Some(next) => next, None => break },
            () = cx.closed().cancelled() => break,
        };
        // This loop does nothing else, so that no stream waits for it.
        let Ok(turn) = places.clone().try_acquire_owned() else {
            tracing::debug!(%peer, "too many requests; one was reset");
            continue;
        };
        let server = server.clone();
        cx.spawn(answers.track_future(async move {
            let (read, write) = io::answering(stream);
            let admitted =
                |d: &Delivery| Some(place.as_ref().map(|place| place.serve(d.supply.is_ticketed())));
            if let Err(e) = server.answer_if(read, write, wire::key_of(&peer), admitted).await {
                tracing::trace!(%peer, error = %e, "an answer ended early");
            }
            drop(turn);
        }));
    }
    answers.close();
    answers.wait().await;
    over.cancel();
}
