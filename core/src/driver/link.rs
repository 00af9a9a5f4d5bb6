//! The connection to a tracker: dialled, up, and while it is in doubt, another one dialled beside it.

use icet::message::{Ping, ToPeer};
use icet::{NetKind, Now};
use tokio_util::task::AbortOnDropHandle;

use super::watch::{Sign, Watch};
use crate::net::session::{ConnectError, PeerSession};

/// Nonce of the questions whether a tracker is still there; the engine counts its own from 1.
const ALIVE: u64 = u64::MAX;

type Dial = AbortOnDropHandle<Result<PeerSession, ConnectError>>;

/// State of the connection.
pub(super) enum Link {
    Down,
    Dialing(Dial),
    Up(Box<Up>),
}

/// A session, and what is done about it.
pub(super) struct Up {
    pub(super) session: PeerSession,
    watch: Watch,
    /// Dials another one.
    other: Option<Dial>,
}

/// What happens to it.
pub(super) enum LinkEvent {
    Up(PeerSession),
    Failed(ConnectError),
    Message(ToPeer),
    /// Another session to the same tracker stands, and the one before has not spoken.
    Moved(PeerSession),
    /// There is no other way for now.
    Stuck(ConnectError),
    Lost(String),
}

impl Up {
    pub(super) fn new(now: Now, session: PeerSession) -> Up {
        let watch = Watch::new(now, &session.vitals());
        Up { session, watch, other: None }
    }

    /// Looks how the session does; `dial` another one, by this carrier first.
    pub(super) fn look(
        &mut self,
        now: Now,
        waits: impl FnOnce() -> bool,
        dial: impl FnOnce(NetKind) -> Dial,
    ) {
        match self.watch.look(now, &self.session.vitals(), waits) {
            None => {}
            Some(Sign::Ask) => {
                // Full: then it does not answer as it is.
                let _ = self.session.sender().try_send(&Ping { nonce: ALIVE }.into());
                self.watch.look(now, &self.session.vitals(), || false);
            }
            Some(Sign::Doubt) => {
                let first = match self.session.remote().kind {
                    NetKind::Udp => NetKind::Tcp,
                    NetKind::Tcp => NetKind::Udp,
                };
                tracing::debug!(carrier = ?self.session.remote().kind, "the tracker is silent; trying another way to it");
                self.other = Some(dial(first));
            }
            Some(Sign::Alive) => {
                tracing::debug!("the tracker speaks again");
                self.other = None;
            }
        }
    }

    /// Whether it does not seem to pass.
    pub(super) fn in_doubt(&self) -> bool {
        self.watch.in_doubt()
    }

    /// When to look at the latest.
    pub(super) fn next(&self) -> Option<Now> {
        self.watch.next()
    }

    /// Another session was tried in vain.
    pub(super) fn stuck(&mut self, now: Now) {
        self.watch.failed(now);
    }
}

impl Link {
    /// Cancel-safe: nothing is lost if another branch wins.
    pub(super) async fn event(&mut self) -> LinkEvent {
        match self {
            Link::Down => std::future::pending().await,
            Link::Dialing(job) => match job.await {
                Ok(Ok(session)) => LinkEvent::Up(session),
                Ok(Err(e)) => LinkEvent::Failed(e),
                Err(e) => LinkEvent::Lost(e.to_string()),
            },
            Link::Up(up) => {
                let Up { session, other, .. } = &mut **up;
                let tried = async {
                    match other {
                        Some(job) => job.await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    message = session.recv() => match message {
                        Ok(m) => LinkEvent::Message(m),
                        Err(e) => LinkEvent::Lost(e.to_string()),
                    },
                    tried = tried => {
                        *other = None;
                        match tried {
                            Ok(Ok(session)) => LinkEvent::Moved(session),
                            Ok(Err(e)) => LinkEvent::Stuck(e),
                            Err(e) => LinkEvent::Lost(e.to_string()),
                        }
                    }
                }
            }
        }
    }
}
