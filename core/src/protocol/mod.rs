//! The payload protocol trait: what a crate implements to carry pages, and the registry that finds it.
//!
//! A payload protocol looks up a media path at a host, takes a range, and delivers bytes. That is all: it has no
//! delivery guarantee to give and no integrity to prove. Core splits what comes into pages, checks each against its
//! record, and asks elsewhere for what is missing.
//!
//! # Writing one
//!
//! [`guide`] leads there, step by step, with a transport that stands whole in it. In short:
//!
//! 1. Implement [`PayloadProtocol`] for a type that holds the transport's settings.
//! 2. Register it: `iceshare::register_payload_protocol!("carrier", "Pages by carrier pigeon.", SETTINGS, Carrier::build);`
//! 3. In the binary's crate, name it once: `use iceshare_transport_carrier as _;`. A Cargo dependency alone links
//!    nothing, silently.
//! 4. In a test: `iceshare_testkit::conformance!("carrier");` (crate `iceshare-testkit`) tries every duty that is named here
//!    and in `proto-spec/spec/payload.md`, over real sockets, as far as the abilities that are declared ask for it.
//!
//! *Declare* with [`PayloadProtocol::abilities`] only what works: the driver asks for pages where the protocol has
//! [`Abilities::PAGES`], else for bytes where it has [`Abilities::BYTES`] and the offset is known, else for time.
//!
//! *Serve*: [`serve::deliver`](crate::serve::deliver) finds the media, plans the answer, asks the shelf, and gives bytes as the
//! limits let them pass; over a reliable stream, [`stream::Server`](crate::stream::Server) does all of it. Who does it by hand
//! finds media with [`Shelf::find_id`], asks [`Shelf::admit`] before sending anything, and awaits
//! [`Admission::permit`](crate::shelf::Admission::permit) before each write: that is what makes `--up` hold over all
//! protocols together.
//!
//! *Fetch*: return a stream of [`Piece`]s. Dropping the stream cancels the request, soon, also while the host waits for pages.
//! What was not held at the host is told by an error at the end ([`ErrorKind::NoRange`]), whatever came before it.

mod settings;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use thiserror::Error;

pub use icet::stream::{Span, What};
pub use icet::{
    Abilities, HostAddr, MediaId, MediaPath, NetAddr, NetKind, PageNo, PageSet, PeerKey, ProtocolName, Ticket,
};

pub use self::settings::{Reading, Setting, SettingError, Settings};
use crate::net::Context;
use crate::shelf::Shelf;

#[doc = include_str!("guide.md")]
#[doc = "# All of it"]
#[doc = "```no_run"]
#[doc = include_str!("parrot.rs")]
#[doc = "```"]
pub mod guide {}

#[doc(hidden)]
pub use inventory as __inventory;

/// A payload protocol with its settings: serves a peer's media, and fetches from other peers.
pub trait PayloadProtocol: fmt::Debug + Send + Sync + 'static {
    /// What it can do. Constant for the life of the value.
    fn abilities(&self) -> Abilities;

    /// Which kind of the host's ports a receiver dials; none if it needs no network address (then the endpoint
    /// says all).
    fn dials(&self) -> Option<NetKind>;

    /// Begins to serve from `shelf` and returns the opaque endpoint to announce (often empty: at most 512 bytes).
    /// Long work goes to [`Context::spawn`], and ends when [`Context::closed`] says so.
    fn serve(&self, cx: Context, shelf: Arc<Shelf>) -> BoxFuture<'static, Result<String, TransportError>>;

    /// Whether each request under way has a connection of its own, with a congestion control of its own, as in HTTP/1.1. Then no more
    /// are made to one host at once than keep its line busy: others' traffic shares that line (RFC 9112, section 9.4).
    fn connects_each(&self) -> bool {
        false
    }

    /// Requests one range. Nothing is sent until the stream is polled; dropping it cancels. The stream ends after
    /// the range, or with one error; so it does when the peer shuts down ([`Context::while_open`]).
    fn fetch(&self, cx: Context, request: Request) -> BoxStream<'static, Result<Piece, TransportError>>;
}

/// One request to one host.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who, and where. A protocol that proves keys must refuse any other key than `host.key`.
    pub host: HostAddr,
    /// The media's path, the same on every protocol.
    pub path: MediaPath,
    /// The media.
    pub media: MediaId,
    /// Version of its manifest.
    pub version: u64,
    /// Which part.
    pub what: What,
    /// What admits us.
    pub ticket: Option<Ticket>,
}

/// What a fetch delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes that continue the ones before.
    Bytes(Bytes),
    /// The next bytes begin this page. (A protocol that knows says so; the receiver copes without.)
    Page(PageNo),
    /// Something is missing here: the next bytes may begin anywhere, the receiver looks for a page.
    Gap,
    /// Bytes of a page from `offset` on, apart from the bytes that come one after the other, in any order: for protocols that
    /// lose parts of pages and know which. The receiver keeps them until the page is whole, and may ask any host that has
    /// [`Abilities::SPANS`] for what is missing.
    Fragment {
        /// Which page.
        page: PageNo,
        /// Offset of the first byte in the page.
        offset: u32,
        /// The bytes.
        bytes: Bytes,
    },
}

/// What went wrong, as far as it matters to who tries next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No connection to the host.
    Unreachable,
    /// Another key answered than the assignment's.
    WrongKey,
    /// The host has no such media, or not this version of it.
    NoMedia,
    /// The range is not there (yet, or at all).
    NoRange,
    /// The host does not admit us: no ticket, a bad one, or no share left.
    Denied,
    /// The host is busy; later, perhaps.
    Busy,
    /// The connection broke.
    Broken,
    /// The host does not keep to the protocol.
    Protocol,
    /// A fault on our side (disk, settings).
    Local,
}

impl ErrorKind {
    /// Whether the same request to the same host may succeed soon.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(self, ErrorKind::Busy | ErrorKind::Broken | ErrorKind::NoRange)
    }
}

/// An error of a transport: a kind to act on, and a text for people.
#[derive(Debug, Error)]
#[error("{context}")]
pub struct TransportError {
    /// What to make of it.
    pub kind: ErrorKind,
    /// What was tried and what happened.
    pub context: String,
    /// The cause, if there is one.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TransportError {
    /// An error without a cause.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> TransportError {
        TransportError { kind, context: context.into(), source: None }
    }

    /// The same with a cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TransportError {
        self.source = Some(source.into());
        self
    }
}

/// One linked-in protocol. Made by [`register_payload_protocol!`](crate::register_payload_protocol).
#[derive(Debug, Clone, Copy)]
pub struct Registration {
    /// Its name: all that a tracker ever learns of it.
    pub name: &'static str,
    /// The crate that brings it.
    pub krate: &'static str,
    /// That crate's version.
    pub version: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// Its settings.
    pub settings: &'static [Setting],
    /// Makes the protocol with its settings.
    pub build: fn(&Settings) -> Result<Arc<dyn PayloadProtocol>, SettingError>,
}

impl Registration {
    /// What one of its settings takes, in words, as in "a whole number from 1 to 64": what it says of a value that nothing takes.
    /// None if it takes any text, or does not say.
    #[must_use]
    pub fn takes(&self, key: &str) -> Option<String> {
        match (self.build)(&Settings(vec![(key.to_owned(), "\0".to_owned())])) {
            Err(SettingError::Value { why, .. }) => why.strip_prefix("it takes ").map(str::to_owned),
            _ => None,
        }
    }
}

inventory::collect!(Registration);

/// Registers a payload protocol: name, one line about it, its settings (`&'static [Setting]`), and the function that builds it.
#[macro_export]
macro_rules! register_payload_protocol {
    ($name:expr, $about:expr, $settings:expr, $build:expr) => {
        $crate::protocol::__inventory::submit! {
            $crate::protocol::Registration {
                name: $name,
                krate: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
                about: $about,
                settings: $settings,
                build: $build,
            }
        }
    };
}

/// Why a set of protocols could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// Two crates registered one name.
    #[error("two linked crates both call their protocol {name:?}: {first} and {second}; leave one out")]
    Twice {
        /// The name.
        name: &'static str,
        /// One crate.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A name that the wire does not allow.
    #[error("crate {krate} registers {name:?}, which is no protocol name")]
    BadName {
        /// The name.
        name: &'static str,
        /// The crate.
        krate: &'static str,
    },
    /// Nothing of that name is linked.
    #[error("no protocol {} here; this build has: {known}", quoted(names))]
    Unknown {
        /// What was asked for and is not there, each once.
        names: Vec<String>,
        /// What there is.
        known: String,
    },
    /// One name was asked for more than once.
    #[error("protocol {0:?} is given twice: say it once")]
    Repeated(String),
    /// Nothing at all is linked or chosen.
    #[error("no payload protocol is chosen")]
    None,
    /// A protocol refused its settings.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" or ")
}

/// A chosen protocol: its registration and the value built from its settings.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// Its name, checked.
    pub name: ProtocolName,
    /// Where it comes from.
    pub registration: Registration,
    /// The protocol.
    pub implementation: Arc<dyn PayloadProtocol>,
}

/// The protocols that are there, sorted by name.
#[derive(Debug, Clone)]
pub struct Registry(Vec<Registration>);

impl Registry {
    /// All that are linked into this binary.
    ///
    /// # Errors
    /// [`RegistryError::Twice`], [`RegistryError::BadName`].
    pub fn linked() -> Result<Registry, RegistryError> {
        Registry::of(inventory::iter::<Registration>().copied())
    }

    /// Just these (tests, static libraries, WebAssembly).
    ///
    /// # Errors
    /// [`RegistryError::Twice`], [`RegistryError::BadName`].
    pub fn of(registrations: impl IntoIterator<Item = Registration>) -> Result<Registry, RegistryError> {
        let mut all: Vec<Registration> = registrations.into_iter().collect();
        all.sort_by_key(|r| (r.name, r.krate));
        for pair in all.windows(2) {
            if pair[0].name == pair[1].name {
                return Err(RegistryError::Twice {
                    name: pair[0].name,
                    first: pair[0].krate,
                    second: pair[1].krate,
                });
            }
        }
        if let Some(r) = all.iter().find(|r| r.name.parse::<ProtocolName>().is_err()) {
            return Err(RegistryError::BadName { name: r.name, krate: r.krate });
        }
        Ok(Registry(all))
    }

    /// The registrations, sorted by name.
    #[must_use]
    pub fn registrations(&self) -> &[Registration] {
        &self.0
    }

    /// Builds the protocols `names` (all if empty) with `settings`: `(protocol, key, value)` each. Settings of those that are not
    /// named must be right, too.
    ///
    /// # Errors
    /// See [`RegistryError`]; an unknown name lists what is there, and so does an unknown setting.
    pub fn build(
        &self,
        names: &[String],
        settings: &[(String, String, String)],
    ) -> Result<Vec<Protocol>, RegistryError> {
        let find = |name: &String| self.0.iter().find(|r| r.name == *name);
        let mut unknown: Vec<String> = Vec::new();
        for name in names.iter().chain(settings.iter().map(|(name, _, _)| name)) {
            if find(name).is_none() && !unknown.contains(name) {
                unknown.push(name.clone());
            }
        }
        if !unknown.is_empty() {
            let known = self.0.iter().map(|r| r.name).collect::<Vec<_>>().join(", ");
            return Err(RegistryError::Unknown { names: unknown, known });
        }
        let mut chosen: Vec<_> = names.iter().filter_map(find).collect();
        if names.is_empty() {
            chosen = self.0.iter().collect();
        }
        chosen.sort_by_key(|r| r.name);
        if let Some(pair) = chosen.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(RegistryError::Repeated(pair[0].name.to_owned()));
        }
        let build = |r: &Registration| -> Result<Protocol, RegistryError> {
            let mine: Vec<_> = settings
                .iter()
                .filter(|(n, _, _)| n == r.name)
                .map(|(_, k, v)| (k.clone(), v.clone()))
                .collect();
            if let Some((key, _)) = mine.iter().find(|(k, _)| r.settings.iter().all(|s| s.key != k)) {
                let known: Vec<_> = r.settings.iter().map(|s| s.key).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(SettingError::Unknown { protocol: r.name, key: key.clone(), known }.into());
            }
            let name = r.name.parse().map_err(|_| RegistryError::BadName { name: r.name, krate: r.krate })?;
            Ok(Protocol { name, registration: *r, implementation: (r.build)(&Settings(mine))? })
        };
        for (name, _, _) in settings {
            // What is not used is built only to be looked at.
            find(name).map(build).transpose()?;
        }
        let out = chosen.into_iter().map(build).collect::<Result<Vec<_>, _>>()?;
        if out.is_empty() { Err(RegistryError::None) } else { Ok(out) }
    }
}
