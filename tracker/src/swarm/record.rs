//! The swarm's inputs as data: what a log of them holds, and a digest of what comes out, so that a run can be repeated.
//!
//! A log is a sequence of [`Record`]s: how the swarm was made, then each [`Input`] in its order, and after those that had
//! effects a [`Record::Check`], the running hash of all effects so far. The same inputs, given to a swarm of the same make, have
//! the same effects, bit by bit: [`Replay`] sees to it.
//!
//! The secret of the tickets is not in a log, nor what is derived from it: a replay makes tickets with a secret of its own, and
//! the digest leaves out their MACs, hosts' ticket keys and the numbers of reserves. Nothing that comes in depends on them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use icet::media::Signed;
use icet::message::{Assignment, ToPeer, ToTracker};
use icet::{MediaId, MediaPath, NetAddr, NetKind, Now, PeerKey, SignedManifest, TicketKey, frame};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use thiserror::Error;

use super::rules::{Operation, Rules};
use super::{
    ConnId, Contribution, DialId, Effect, KnownMedia, KnownName, KnownProtocol, Quotas, SliceMark, Store,
    Swarm, SwarmConfig,
};

/// Version of the format of logs.
const VERSION: u64 = 2;
/// Bytes of the running hash that a check has.
pub const CHECK: usize = 16;

/// Something that was given to a swarm.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub enum Input {
    /// See [`Swarm::restore_name`].
    Name(KnownName),
    /// See [`Swarm::restore_media`].
    Media(KnownMedia),
    /// See [`Swarm::restore_rules`].
    Rules(Rules),
    /// See [`Swarm::handle_operation`].
    Operation {
        /// When.
        now: Now,
        /// Milliseconds since 1970.
        wall_ms: u64,
        /// What.
        operation: Operation,
    },
    /// See [`Swarm::restore_protocol`].
    Protocol(KnownProtocol),
    /// See [`Swarm::handle_connect`].
    Connect {
        /// When.
        now: Now,
        /// The session.
        conn: ConnId,
        /// Its key.
        peer: PeerKey,
        /// Where it comes from.
        from: SocketAddr,
        /// Its carrier.
        kind: NetKind,
        /// What the catalogue knows of the key.
        contribution: Contribution,
    },
    /// See [`Swarm::handle_disconnect`].
    Disconnect {
        /// When.
        now: Now,
        /// The session.
        conn: ConnId,
    },
    /// See [`Swarm::handle_message`].
    Message {
        /// When.
        now: Now,
        /// Milliseconds since 1970.
        wall_ms: u64,
        /// The session.
        conn: ConnId,
        /// What it says.
        message: ToTracker,
    },
    /// See [`Swarm::handle_dialed`].
    Dialed {
        /// When.
        now: Now,
        /// Which dial.
        id: DialId,
        /// What became of it.
        outcome: Result<(), String>,
    },
    /// See [`Swarm::handle_timeout`].
    Timeout {
        /// When.
        now: Now,
        /// Milliseconds since 1970.
        wall_ms: u64,
    },
}

/// One record of a log.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Record {
    /// The first: how the swarm was made, without its secret.
    Made(SwarmConfig),
    /// An input.
    Input(Input),
    /// The running hash of all effects so far.
    Check([u8; CHECK]),
    /// Nothing follows: the log was ended on purpose, at its limit (true) or with the tracker (false).
    End {
        /// Whether the limit ended it.
        full: bool,
    },
}

/// Why bytes are not a record.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Not of the shape of a record.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Of another version.
    #[error("format {0} of the log is not known here, only {VERSION}")]
    Version(u64),
}

impl From<minicbor::decode::Error> for RecordError {
    fn from(e: minicbor::decode::Error) -> RecordError {
        RecordError::Malformed(e.to_string())
    }
}

type Out<'a> = Encoder<&'a mut Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn bad(what: impl Into<String>) -> RecordError {
    RecordError::Malformed(what.into())
}

fn size(d: &mut Decoder<'_>) -> Result<usize, RecordError> {
    usize::try_from(d.u64()?).map_err(|_| bad("a number that is too large"))
}

fn option<T>(
    d: &mut Decoder<'_>,
    read: impl FnOnce(&mut Decoder<'_>) -> Result<T, RecordError>,
) -> Result<Option<T>, RecordError> {
    if d.datatype()? == Type::Null {
        d.null()?;
        return Ok(None);
    }
    read(d).map(Some)
}

fn path(d: &mut Decoder<'_>) -> Result<MediaPath, RecordError> {
    MediaPath::new(d.str()?).map_err(|e| bad(e.to_string()))
}

fn write_config(e: &mut Out<'_>, c: &SwarmConfig) -> Written {
    let q = &c.quotas;
    e.bytes(&c.tracker.0)?.u64(c.epoch)?.u64(c.seed)?.u32(c.ack_delay_ms)?.bool(c.explain)?;
    e.u64(u64::try_from(c.off_air.as_millis()).unwrap_or(u64::MAX))?;
    for rate in [
        q.messages_per_second,
        q.message_burst,
        q.prefix_messages_per_second,
        q.joins_per_minute,
        q.publishes_per_minute,
        q.dials_per_ip_per_minute,
        q.dials_per_prefix_per_minute,
    ] {
        e.f64(rate)?;
    }
    for n in [
        q.memberships,
        q.media_per_key,
        q.map_bytes_per_key,
        q.map_bytes,
        q.sessions_per_prefix,
        q.sessions,
        q.media,
        q.dials,
    ] {
        e.u64(n as u64)?;
    }
    Ok(())
}

fn read_config(d: &mut Decoder<'_>) -> Result<SwarmConfig, RecordError> {
    let tracker: PeerKey = d.decode()?;
    let (epoch, seed) = (d.u64()?, d.u64()?);
    // Any secret will do: what is made with it is not compared.
    let mut c = SwarmConfig::new(tracker, [0; 32], epoch, seed);
    c.ack_delay_ms = d.u32()?;
    c.explain = d.bool()?;
    c.off_air = Duration::from_millis(d.u64()?);
    let mut rate = || d.f64();
    c.quotas = Quotas {
        messages_per_second: rate()?,
        message_burst: rate()?,
        prefix_messages_per_second: rate()?,
        joins_per_minute: rate()?,
        publishes_per_minute: rate()?,
        dials_per_ip_per_minute: rate()?,
        dials_per_prefix_per_minute: rate()?,
        memberships: size(d)?,
        media_per_key: size(d)?,
        map_bytes_per_key: size(d)?,
        map_bytes: size(d)?,
        sessions_per_prefix: size(d)?,
        sessions: size(d)?,
        media: size(d)?,
        dials: size(d)?,
    };
    Ok(c)
}

fn write_name(e: &mut Out<'_>, n: &KnownName) -> Written {
    e.str(n.path.as_str())?.bytes(&n.owner.0)?.u64(n.version)?.u64(n.used_ms)?;
    match &n.moved {
        Some(moved) => e.str(moved.as_str())?.ok(),
        None => e.null()?.ok(),
    }
}

fn write_media(e: &mut Out<'_>, m: &KnownMedia) -> Written {
    e.bytes(&frame::encode(m.manifest.signed()))?.u64(m.hits)?.array(m.slices.len() as u64)?;
    for (index, mark) in &m.slices {
        e.u64(*index)?.u64(mark.offset)?.i64(mark.time)?;
    }
    Ok(())
}

fn read_media(d: &mut Decoder<'_>) -> Result<KnownMedia, RecordError> {
    let signed: Signed = frame::decode(d.bytes()?)?;
    let manifest = SignedManifest::verify(signed).map_err(|e| bad(e.to_string()))?;
    let hits = d.u64()?;
    let count = d.array()?.ok_or_else(|| bad("slices without a number"))?;
    let mut slices = Vec::new();
    for _ in 0..count {
        slices.push((d.u64()?, SliceMark { offset: d.u64()?, time: d.i64()? }));
    }
    Ok(KnownMedia { manifest, slices, hits })
}

fn write_record(e: &mut Out<'_>, record: &Record) -> Written {
    match record {
        Record::Made(c) => {
            e.u8(0)?.u64(VERSION)?;
            write_config(e, c)
        }
        Record::Check(hash) => e.u8(1)?.bytes(hash)?.ok(),
        Record::End { full } => e.u8(2)?.bool(*full)?.ok(),
        Record::Input(input) => write_input(e, input),
    }
}

fn write_input(e: &mut Out<'_>, input: &Input) -> Written {
    match input {
        Input::Name(n) => {
            e.u8(3)?;
            write_name(e, n)
        }
        Input::Media(m) => {
            e.u8(4)?;
            write_media(e, m)
        }
        Input::Protocol(p) => e.u8(10)?.encode(p)?.ok(),
        Input::Rules(rules) => e.u8(11)?.encode(rules)?.ok(),
        Input::Operation { now, wall_ms, operation } => {
            e.u8(12)?.u64(now.0)?.u64(*wall_ms)?.encode(operation)?.ok()
        }
        Input::Connect { now, conn, peer, from, kind, contribution: c } => {
            e.u8(5)?.u64(now.0)?.u64(conn.0)?.bytes(&peer.0)?;
            e.encode(NetAddr { kind: *kind, at: *from })?.u64(c.sent)?.u64(c.received)?.ok()
        }
        Input::Disconnect { now, conn } => e.u8(6)?.u64(now.0)?.u64(conn.0)?.ok(),
        Input::Message { now, wall_ms, conn, message } => {
            e.u8(7)?.u64(now.0)?.u64(*wall_ms)?.u64(conn.0)?.bytes(&frame::encode(message))?.ok()
        }
        Input::Dialed { now, id, outcome } => {
            e.u8(8)?.u64(now.0)?.u64(id.0)?;
            match outcome {
                Ok(()) => e.null()?.ok(),
                Err(why) => e.str(why)?.ok(),
            }
        }
        Input::Timeout { now, wall_ms } => e.u8(9)?.u64(now.0)?.u64(*wall_ms)?.ok(),
    }
}

impl Record {
    /// Its CBOR.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Writing to a Vec cannot fail.
        let result = write_record(&mut Encoder::new(&mut out), self);
        debug_assert!(result.is_ok());
        out
    }

    /// The record whose CBOR is all of `bytes`.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Record, RecordError> {
        let mut d = Decoder::new(bytes);
        let record = Record::read(&mut d)?;
        if d.position() != bytes.len() {
            return Err(bad("something follows the record"));
        }
        Ok(record)
    }

    fn read(d: &mut Decoder<'_>) -> Result<Record, RecordError> {
        let kind = d.u8()?;
        let input = match kind {
            0 => {
                let version = d.u64()?;
                if version != VERSION {
                    return Err(RecordError::Version(version));
                }
                return Ok(Record::Made(read_config(d)?));
            }
            1 => {
                let hash = d.bytes()?.try_into().map_err(|_| bad("a check of another length"))?;
                return Ok(Record::Check(hash));
            }
            2 => return Ok(Record::End { full: d.bool()? }),
            3 => Input::Name(KnownName {
                path: path(d)?,
                owner: d.decode()?,
                version: d.u64()?,
                used_ms: d.u64()?,
                moved: option(d, path)?,
            }),
            4 => Input::Media(read_media(d)?),
            5 => {
                let (now, conn, peer) = (Now(d.u64()?), ConnId(d.u64()?), d.decode()?);
                let NetAddr { kind, at } = d.decode()?;
                let contribution = Contribution { sent: d.u64()?, received: d.u64()? };
                Input::Connect { now, conn, peer, from: at, kind, contribution }
            }
            6 => Input::Disconnect { now: Now(d.u64()?), conn: ConnId(d.u64()?) },
            7 => {
                let (now, wall_ms, conn) = (Now(d.u64()?), d.u64()?, ConnId(d.u64()?));
                let message = ToTracker::from_body(d.bytes()?).map_err(|e| bad(e.to_string()))?;
                Input::Message { now, wall_ms, conn, message }
            }
            8 => {
                let (now, id) = (Now(d.u64()?), DialId(d.u64()?));
                let why = option(d, |d| Ok(d.str()?.to_owned()))?;
                Input::Dialed { now, id, outcome: why.map_or(Ok(()), Err) }
            }
            9 => Input::Timeout { now: Now(d.u64()?), wall_ms: d.u64()? },
            10 => Input::Protocol(d.decode()?),
            11 => Input::Rules(d.decode()?),
            12 => Input::Operation { now: Now(d.u64()?), wall_ms: d.u64()?, operation: d.decode()? },
            other => return Err(bad(format!("kind {other} is not known"))),
        };
        Ok(Record::Input(input))
    }
}

impl Input {
    /// The CBOR of its record.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let result = write_input(&mut Encoder::new(&mut out), self);
        debug_assert!(result.is_ok());
        out
    }

    /// In a few words, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let at = |now: &Now| format!("at {:.6} s", now.0 as f64 / 1e6);
        match self {
            Input::Name(n) => format!("path {} from the catalogue", n.path),
            Input::Media(m) => format!("media {} from the catalogue", m.manifest.path),
            Input::Rules(_) => "rules from the catalogue".to_owned(),
            Input::Operation { now, .. } => format!("the operator's doing {}", at(now)),
            Input::Protocol(p) => format!("protocol {} from the catalogue", p.name),
            Input::Connect { now, conn, peer, .. } => {
                format!("session {} of {} begins {}", conn.0, peer.short(), at(now))
            }
            Input::Disconnect { now, conn } => format!("session {} ends {}", conn.0, at(now)),
            Input::Message { now, conn, message, .. } => {
                format!("message {} in session {} {}", message.number(), conn.0, at(now))
            }
            Input::Dialed { now, id, outcome } => {
                let what = if outcome.is_ok() { "proved" } else { "failed" };
                format!("dial-back {} {what} {}", id.0, at(now))
            }
            Input::Timeout { now, .. } => format!("a timer {}", at(now)),
        }
    }
}

impl Swarm {
    /// Gives an input to the method that is for it.
    pub fn feed(&mut self, input: Input) {
        match input {
            Input::Name(n) => self.restore_name(n),
            Input::Media(m) => self.restore_media(m),
            Input::Protocol(p) => self.restore_protocol(&p),
            Input::Rules(rules) => self.restore_rules(rules),
            Input::Operation { now, wall_ms, operation } => {
                // Whoever asked was told.
                let _ = self.handle_operation(now, wall_ms, operation);
            }
            Input::Connect { now, conn, peer, from, kind, contribution } => {
                self.handle_connect(now, conn, peer, from, kind, contribution);
            }
            Input::Disconnect { now, conn } => self.handle_disconnect(now, conn),
            Input::Message { now, wall_ms, conn, message } => {
                self.handle_message(now, wall_ms, conn, message);
            }
            Input::Dialed { now, id, outcome } => self.handle_dialed(now, id, outcome),
            Input::Timeout { now, wall_ms } => self.handle_timeout(now, wall_ms),
        }
    }
}

/// A running hash of effects.
#[derive(Debug, Clone, Default)]
pub struct Digest(blake3::Hasher);

/// An assignment without what the tracker's secret makes.
fn without_secrets(mut a: Assignment, reserve: bool) -> Assignment {
    for s in std::iter::once(&mut a.source).chain(&mut a.stand_ins) {
        s.ticket.mac.0 = [0; 32];
        if reserve {
            // Its number is in it.
            s.ticket.body = Vec::new().into();
        }
    }
    if reserve {
        a.id = 0;
    }
    a
}

fn masked(message: &ToPeer) -> Vec<u8> {
    match message {
        ToPeer::Welcome(w) => {
            let mut w = w.clone();
            w.ticket_key = TicketKey([0; 32]);
            frame::encode(&ToPeer::from(w))
        }
        ToPeer::Assign(m) => {
            let mut m = m.clone();
            m.assignments = m.assignments.into_iter().map(|a| without_secrets(a, false)).collect();
            frame::encode(&ToPeer::from(m))
        }
        ToPeer::Reserve(m) => {
            let mut m = m.clone();
            m.assignments = m.assignments.into_iter().map(|a| without_secrets(a, true)).collect();
            frame::encode(&ToPeer::from(m))
        }
        other => frame::encode(other),
    }
}

fn write_effect(e: &mut Out<'_>, effect: &Effect) -> Written {
    match effect {
        Effect::Send { conn, message } => e.u8(0)?.u64(conn.0)?.bytes(&masked(message))?.ok(),
        Effect::Answer { conn, message, media, version, slices } => {
            e.u8(1)?.u64(conn.0)?.bytes(&masked(message))?.encode(media)?.u64(*version)?;
            e.encode(slices)?.ok()
        }
        Effect::Close { conn, why } => e.u8(2)?.u64(conn.0)?.str(why)?.ok(),
        Effect::Dial { id, addr, key } => e.u8(3)?.u64(id.0)?.encode(addr)?.encode(key)?.ok(),
        Effect::Store(store) => {
            e.u8(4)?;
            write_store(e, store)
        }
    }
}

fn write_store(e: &mut Out<'_>, store: &Store) -> Written {
    let media = |e: &mut Out<'_>, id: &MediaId| e.encode(id)?.ok();
    match store {
        Store::Name(n) => {
            e.u8(0)?;
            write_name(e, n)
        }
        Store::Forget { path } => e.u8(1)?.str(path.as_str())?.ok(),
        Store::Manifest { manifest } => e.u8(2)?.encode(manifest.signed())?.ok(),
        Store::Slice { media: id, version, index, mark, slice } => {
            e.u8(3)?;
            media(e, id)?;
            e.u64(*version)?.u64(*index)?.u64(mark.offset)?.i64(mark.time)?.encode(slice)?.ok()
        }
        Store::Withdrawn { media: id } => {
            e.u8(4)?;
            media(e, id)
        }
        Store::Hits { media: id, hits } => {
            e.u8(5)?;
            media(e, id)?;
            e.u64(*hits)?.ok()
        }
        Store::Rules(rules) => e.u8(8)?.encode(rules)?.ok(),
        Store::Protocol(p) => e.u8(7)?.encode(p)?.ok(),
        Store::Contribution { peer, contribution: c } => {
            e.u8(6)?.encode(peer)?.u64(c.sent)?.u64(c.received)?.ok()
        }
    }
}

impl Digest {
    /// Takes in an effect, without what depends on the tracker's secret.
    pub fn add(&mut self, effect: &Effect) {
        let mut bytes = Vec::new();
        let result = write_effect(&mut Encoder::new(&mut bytes), effect);
        debug_assert!(result.is_ok());
        self.0.update(&bytes);
    }

    /// The hash of all that was taken in.
    #[must_use]
    pub fn check(&self) -> [u8; CHECK] {
        let mut out = [0; CHECK];
        self.0.finalize_xof().fill(&mut out);
        out
    }
}

/// A swarm that is made and fed from a log.
#[derive(Debug, Default)]
pub struct Replay {
    swarm: Option<Swarm>,
    digest: Digest,
    inputs: u64,
    checks: u64,
    now: Now,
    open: BTreeSet<ConnId>,
    /// The last input, and effects since the last check.
    last: String,
    since: Vec<Effect>,
    ended: Option<bool>,
}

/// Why a replay cannot go on.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// A log begins with how the swarm was made, and has that once.
    #[error("a log begins with how the swarm was made, and has that once")]
    Order,
    /// No tracker gives its swarm such a thing: time that runs backwards or is no time, a session that is there already.
    #[error("{0} makes no sense there")]
    Senseless(String),
    /// Other effects than in the log.
    #[error(
        "after input {input} ({what}) the effects are others than in the log: {got} instead of {logged}; these are:\n{effects}"
    )]
    Differs {
        /// Number of the last input before the check, from 1.
        input: u64,
        /// What it was.
        what: String,
        /// The running hash as logged.
        logged: String,
        /// The running hash now.
        got: String,
        /// The effects since the last check that was the same, cut off after some.
        effects: String,
    },
}

/// Latest time that a log may tell, microseconds of a clock or milliseconds since 1970: a thousand years.
const TIME: u64 = 31_556_952_000_000_000;

/// Whether a tracker could give its swarm this input: the swarm relies on it.
fn sensible(input: &Input, last: &mut Now, open: &mut BTreeSet<ConnId>) -> bool {
    let (now, wall_ms) = match input {
        Input::Name(_) | Input::Media(_) | Input::Protocol(_) | Input::Rules(_) => return *last == Now::ZERO,
        Input::Connect { now, conn, .. } => (*now, if open.insert(*conn) { 0 } else { u64::MAX }),
        Input::Disconnect { now, conn } => {
            open.remove(conn);
            (*now, 0)
        }
        Input::Message { now, wall_ms, .. }
        | Input::Timeout { now, wall_ms }
        | Input::Operation { now, wall_ms, .. } => (*now, *wall_ms),
        Input::Dialed { now, .. } => (*now, 0),
    };
    now >= std::mem::replace(last, now) && now.0 <= TIME && wall_ms <= TIME
}

/// Effects that are kept to show where a difference is.
const SHOWN: usize = 64;

impl Replay {
    /// Takes the next record of a log.
    ///
    /// # Errors
    /// [`ReplayError`]; the replay is over then.
    pub fn take(&mut self, record: Record) -> Result<(), ReplayError> {
        if self.ended.is_some() {
            return Err(ReplayError::Order);
        }
        match (record, &mut self.swarm) {
            (Record::Made(config), swarm @ None) => *swarm = Some(Swarm::new(config)),
            (Record::Input(input), Some(swarm)) => {
                self.inputs += 1;
                self.last = input.describe();
                if !sensible(&input, &mut self.now, &mut self.open) {
                    return Err(ReplayError::Senseless(self.last.clone()));
                }
                swarm.feed(input);
                while let Some(effect) = swarm.poll_effect() {
                    self.digest.add(&effect);
                    if self.since.len() < SHOWN {
                        self.since.push(effect);
                    }
                }
            }
            (Record::Check(logged), Some(_)) => {
                self.checks += 1;
                let got = self.digest.check();
                let since = std::mem::take(&mut self.since);
                if got != logged {
                    let hex = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
                    let line = |e: &Effect| {
                        let mut line = format!("  {e:?}");
                        line.truncate(line.floor_char_boundary(400));
                        line
                    };
                    return Err(ReplayError::Differs {
                        input: self.inputs,
                        what: self.last.clone(),
                        logged: hex(&logged),
                        got: hex(&got),
                        effects: since.iter().map(line).collect::<Vec<_>>().join("\n"),
                    });
                }
            }
            (Record::End { full }, Some(_)) => self.ended = Some(full),
            _ => return Err(ReplayError::Order),
        }
        Ok(())
    }

    /// Inputs, and checks that were the same.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.inputs, self.checks)
    }

    /// Whether the log was ended on purpose, and if so, whether because it was full.
    #[must_use]
    pub fn ended(&self) -> Option<bool> {
        self.ended
    }

    /// The swarm as it is now.
    #[must_use]
    pub fn swarm(&self) -> Option<&Swarm> {
        self.swarm.as_ref()
    }
}
