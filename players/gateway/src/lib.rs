//! A local HTTP gateway: gives any player a seekable file out of an IceShare swarm, while it is still arriving.
//!
//! It listens on a loopback address only, answers to loopback names only ([`Gateway`] explains what it refuses),
//! and serves at unguessable paths what its user opened, and nothing else:
//!
//! | path | what |
//! | --- | --- |
//! | `/TOKEN/NAME` | the media: GET and HEAD, single byte ranges, a true length and type |
//! | `/TOKEN/` | a page with a player and the page table as a seek bar |
//! | `/TOKEN/NAME` of live media | the links of the chain as they are. With `Icy-MetaData: 1` (ffmpeg, mpv and GStreamer say so, and VLC once it sees `Icy-Name`) titles come
//!   between the bytes, and another link begins only where the setup changes: players lose sound at links, or play it twice. It ends at another codec; who asks again within 15 s goes on there |
//! | `/TOKEN/NAME?chain=flat` | live media as one logical stream, for players that stop where a link of a chain ends, as browsers do. It
//!   ends where the codec or its setup changes |
//! | `/TOKEN/NAME?chain=links` | the links as they are, whatever is said of titles |
//! | `/TOKEN/table.json` | the page table, who sends, and what is on, as the page shows them |
//!
//! A page of the media that is late makes the response wait; a response never carries bytes that were not
//! verified. Where the media cannot be had any more, the connection closes before the promised length.

mod body;
mod flat;
mod guard;
mod media;
mod pace;
mod page;
mod playable;
pub mod range;
mod serve;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use iceshare::net::{Slot, SlotLimits, Slots, Standing};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use playable::{Pages, Playable, Reader, Run, Sender, State, Stats, Table};
use serve::{Entry, Offers};

/// What a connection may hold unsent: in hyper, and in the kernel. Small, because players open ranges to the end
/// and drop them: what waits here was fetched in vain.
const UNSENT: usize = 64 * 1024;
/// Players open about a dozen at most. When there are more, those go that were never served.
const CONNECTIONS: usize = 128;
/// An idle connection, or one that does not finish its request, is closed after this.
const IDLE: Duration = Duration::from_secs(60);
/// Between tries after the system refused to accept (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no gateway.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The address is one that other machines could reach.
    #[error(
        "the gateway serves this machine only: {0} is not a loopback address; use 127.0.0.1:PORT or [::1]:PORT"
    )]
    NotLoopback(SocketAddr),
    /// The port is taken, or the like.
    #[error("cannot listen on {addr} for players: {source}; choose another --gateway port, or 0 for any")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The system gave no randomness for a token.
    #[error("the system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

/// A running gateway. Dropping it stops it.
///
/// It refuses, before it looks at a path: a `Host` that is not a loopback literal or `localhost` at its own port
/// (421), and a request that a page of another origin made (`Origin`, `Sec-Fetch-Site`; 403). It sends no CORS
/// headers. What is not on offer is 404, whatever it is.
pub struct Gateway {
    addr: SocketAddr,
    offers: Arc<Offers>,
    stop: CancellationToken,
}

/// Where an offered media is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// URL of the media, for a player.
    pub media: String,
    /// URL of the page with a player and a live seek bar.
    pub page: String,
    token: String,
}

/// Kept readable in a URL's path; all else is escaped.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl Gateway {
    /// Listens on `addr`, which must be a loopback address; port 0 means any free one.
    ///
    /// # Errors
    /// See [`GatewayError`].
    pub async fn start(addr: SocketAddr) -> Result<Gateway, GatewayError> {
        if !addr.ip().is_loopback() {
            return Err(GatewayError::NotLoopback(addr));
        }
        let failed = |source| GatewayError::Bind { addr, source };
        let listener = listen(addr).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let gateway =
            Gateway { addr: bound, offers: Arc::new(Offers::default()), stop: CancellationToken::new() };
        tokio::spawn(accept(listener, bound.port(), gateway.offers.clone(), gateway.stop.clone()));
        Ok(gateway)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Puts a media on offer under a new unguessable path.
    ///
    /// # Errors
    /// [`GatewayError::Random`].
    pub fn offer(&self, media: impl Playable) -> Result<Offered, GatewayError> {
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(GatewayError::Random)?;
        let token = random.iter().fold(String::new(), |t, b| t + &format!("{b:02x}"));
        let file = file_name(&media.name());
        let page = format!("http://{}/{token}/", self.addr);
        let url = format!("{page}{}", utf8_percent_encode(&file, SEGMENT));
        let gone = self.stop.child_token();
        let now = watch::Sender::new(None);
        let on = now.subscribe();
        if let Some(mut titles) = media.open_titles() {
            let gone = gone.clone();
            tokio::spawn(async move {
                let follow = async {
                    while let Some(title) = titles.next().await {
                        now.send_replace(title);
                    }
                };
                tokio::select! { () = gone.cancelled() => {}, () = follow => {} }
            });
        }
        let media: Arc<dyn Playable> = Arc::new(media);
        self.offers.put(
            token.clone(),
            Entry {
                media,
                file,
                now: on,
                gone,
                reading: Arc::default(),
                ended: Arc::default(),
                left: Arc::default(),
            },
        );
        Ok(Offered { media: url, page, token })
    }

    /// Players that hear a live media just now; one that has heard its end is none.
    #[must_use]
    pub fn listeners(&self, offered: &Offered) -> usize {
        self.offers.get(&offered.token).map_or(0, |entry| Arc::strong_count(&entry.reading) - 1)
    }

    /// Counts the responses that ended though the broadcast goes on, since it goes on with another codec: who asks again soon gets that from
    /// its beginning. None: it is not on offer.
    #[must_use]
    pub fn left(&self, offered: &Offered) -> Option<watch::Receiver<u64>> {
        self.offers.get(&offered.token).map(|entry| entry.left.count.subscribe())
    }

    /// Takes a media off. Responses under way end with a closed connection.
    pub fn withdraw(&self, offered: &Offered) {
        self.offers.remove(&offered.token);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// The name under which a media is served: one path segment that collides with nothing of ours.
fn file_name(name: &str) -> String {
    let name: String = name.chars().filter(|c| !c.is_control() && *c != '/' && *c != '\\').collect();
    match name.as_str() {
        "" | "." | ".." | "table.json" => format!("media-{}", name.trim_matches('.')),
        _ => name,
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    // Inherited by the connections.
    socket.set_send_buffer_size(u32::try_from(UNSENT).unwrap_or(u32::MAX))?;
    socket.bind(addr)?;
    socket.listen(128)
}

async fn accept(listener: TcpListener, port: u16, offers: Arc<Offers>, stop: CancellationToken) {
    // Any page in a browser, any program here, may open connections and say nothing: they keep no player out.
    let slots = Slots::new(SlotLimits { all: CONNECTIONS, each: CONNECTIONS });
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let Some(slot) = slots.enter(from.ip()).map(Arc::new) else { continue };
                let (offers, stop) = (offers.clone(), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = slot.taken() => tracing::debug!("a newer connection took the place of an idle one"),
                        () = converse(stream, port, offers, slot.clone()) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the gateway cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, port: u16, offers: Arc<Offers>, slot: Arc<Slot>) {
    // A response's head and first bytes go out at once; a failure here costs delay only.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let response = serve::answer(&offers, port, &request);
        tracing::debug!(
            method = %request.method(),
            range = request.headers().get("range").and_then(|r| r.to_str().ok()),
            status = response.status().as_u16(),
            "gateway request"
        );
        let response = if response.status().is_success() {
            let serving = slot.serve(Standing::Friend);
            response.map(|body| body::keeping(body, serving))
        } else {
            response
        };
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(UNSENT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "gateway connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_one_segment_and_never_ours() {
        for (name, expected) in [
            ("song.opus", "song.opus"),
            ("a b.ogg", "a b.ogg"),
            ("", "media-"),
            ("..", "media-"),
            ("table.json", "media-table.json"),
            ("a/b\\c\n.ogg", "abc.ogg"),
        ] {
            assert_eq!(file_name(name), expected);
        }
    }

    #[tokio::test]
    async fn other_machines_are_never_served() {
        for addr in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:127.0.0.1]:0"] {
            let refused = Gateway::start(addr.parse().expect("an address")).await;
            assert!(matches!(refused, Err(GatewayError::NotLoopback(_))), "{addr}");
        }
    }
}
