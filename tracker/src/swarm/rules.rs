//! The operator's rules: who is banned, who may publish, what was withdrawn, and limits; and what happens when they change.

use icet::message::ErrorCode;
use icet::{MediaPath, Now, PeerKey};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::board::MediaIx;
use super::session::{Refused, refuse};
use super::{ConnId, Effect, Quotas, Store, Swarm};

/// Most keys and paths in each list of the rules.
pub const LISTED: usize = 10_000;

const BANNED: &str = "the operator of this tracker has banned this key";

/// Limits that an operator may change while the tracker runs; none: as it was started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Sessions in all.
    #[n(0)]
    pub sessions: Option<u64>,
    /// Sessions from one prefix at once.
    #[n(1)]
    pub sessions_per_prefix: Option<u64>,
    /// Media in all.
    #[n(2)]
    pub media: Option<u64>,
    /// Media that one key may own.
    #[n(3)]
    pub media_per_key: Option<u64>,
    /// Manifests a minute of one key.
    #[n(4)]
    pub publishes_per_minute: Option<u64>,
    /// Joins a minute of one key.
    #[n(5)]
    pub joins_per_minute: Option<u64>,
}

impl Limits {
    /// These limits over others.
    fn over(&self, quotas: &Quotas) -> Quotas {
        let mut q = quotas.clone();
        let set = |to: &mut usize, from: Option<u64>| {
            *to = from.map_or(*to, |n| usize::try_from(n).unwrap_or(usize::MAX));
        };
        set(&mut q.sessions, self.sessions);
        set(&mut q.sessions_per_prefix, self.sessions_per_prefix);
        set(&mut q.media, self.media);
        set(&mut q.media_per_key, self.media_per_key);
        let rate = |to: &mut f64, from: Option<u64>| *to = from.map_or(*to, |n| n as f64);
        rate(&mut q.publishes_per_minute, self.publishes_per_minute);
        rate(&mut q.joins_per_minute, self.joins_per_minute);
        q
    }
}

/// What an operator has ruled; the catalogue keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Rules {
    /// Keys that have no session here, in order.
    #[n(0)]
    pub banned: Vec<PeerKey>,
    /// Whether only `publishers` may publish; else everyone may.
    #[n(1)]
    pub listed_only: bool,
    /// Keys that may publish then, in order.
    #[n(2)]
    pub publishers: Vec<PeerKey>,
    /// Paths that nobody may publish at, in order.
    #[n(3)]
    pub withdrawn: Vec<MediaPath>,
    /// Limits.
    #[n(4)]
    pub limits: Limits,
}

/// What an operator does.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    /// Ends a key's session, withdraws what it published, and lets it in no more.
    #[n(0)]
    Ban(#[n(0)] PeerKey),
    /// Lets a banned key in again.
    #[n(1)]
    Lift(#[n(0)] PeerKey),
    /// Takes the media at a path off, and lets nobody publish there.
    #[n(2)]
    Withdraw(#[n(0)] MediaPath),
    /// Lets its owner publish at a path again.
    #[n(3)]
    Allow(#[n(0)] MediaPath),
    /// Says who may publish.
    #[n(4)]
    Publishers {
        /// Only the keys of the list; else everyone.
        #[n(0)]
        listed_only: bool,
        /// The list.
        #[n(1)]
        publishers: Vec<PeerKey>,
    },
    /// Sets all limits.
    #[n(5)]
    Limits(#[n(0)] Limits),
}

/// Why an operation is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OperationError {
    /// Nothing to withdraw or allow at that path.
    #[error("no media there")]
    NoMedia,
    /// Nothing to lift.
    #[error("this key is not banned")]
    NotBanned,
    /// Too many.
    #[error("a list of the rules takes at most {LISTED} entries")]
    TooMany,
    /// A limit that would lock everyone out, the operator's own peers too.
    #[error("a limit of 0 would keep everyone out: ban keys, or stop the tracker")]
    Zero,
}

/// Puts `item` into an ordered list; false if it was there.
fn put<T: Ord>(list: &mut Vec<T>, item: T) -> Result<bool, OperationError> {
    match list.binary_search(&item) {
        Ok(_) => Ok(false),
        Err(_) if list.len() >= LISTED => Err(OperationError::TooMany),
        Err(at) => {
            list.insert(at, item);
            Ok(true)
        }
    }
}

fn take<T: Ord>(list: &mut Vec<T>, item: &T) -> bool {
    let found = list.binary_search(item);
    found.map(|at| list.remove(at)).is_ok()
}

/// Rules, and the quotas that hold where they say nothing.
#[derive(Debug, Default)]
pub(crate) struct Ruled {
    rules: Rules,
    quotas: Option<Quotas>,
}

impl Swarm {
    /// What the operator ruled.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.ruled.rules
    }

    /// Gives back the rules from the catalogue. Before any session.
    pub fn restore_rules(&mut self, mut rules: Rules) {
        rules.banned.sort_unstable();
        rules.publishers.sort_unstable();
        rules.withdrawn.sort_unstable();
        self.ruled.rules = rules;
        self.apply_limits();
    }

    fn apply_limits(&mut self) {
        let started = self.ruled.quotas.get_or_insert_with(|| self.board.config.quotas.clone());
        self.board.config.quotas = self.ruled.rules.limits.over(started);
    }

    /// The operator does something. What it is, is checked by then: the server lets only an operator in.
    ///
    /// # Errors
    /// [`OperationError`]; nothing is changed then.
    pub fn handle_operation(
        &mut self,
        now: Now,
        wall_ms: u64,
        operation: Operation,
    ) -> Result<(), OperationError> {
        self.board.set_wall(now, wall_ms);
        let rules = &mut self.ruled.rules;
        match operation {
            Operation::Ban(key) => {
                put(&mut rules.banned, key)?;
                self.expel(now, &key);
            }
            Operation::Lift(key) => {
                if !take(&mut rules.banned, &key) {
                    return Err(OperationError::NotBanned);
                }
            }
            Operation::Withdraw(path) => {
                let media = self.names.media(&path).ok_or(OperationError::NoMedia)?;
                put(&mut rules.withdrawn, path)?;
                self.take_off(now, media);
            }
            Operation::Allow(path) => {
                if !take(&mut rules.withdrawn, &path) {
                    return Err(OperationError::NoMedia);
                }
            }
            Operation::Publishers { listed_only, mut publishers } => {
                if publishers.len() > LISTED {
                    return Err(OperationError::TooMany);
                }
                publishers.sort_unstable();
                publishers.dedup();
                (rules.listed_only, rules.publishers) = (listed_only, publishers);
            }
            Operation::Limits(limits) => {
                let all = [limits.sessions, limits.sessions_per_prefix, limits.joins_per_minute];
                if all.contains(&Some(0)) {
                    return Err(OperationError::Zero);
                }
                rules.limits = limits;
                self.apply_limits();
            }
        }
        self.effects.push_back(Effect::Store(Store::Rules(self.ruled.rules.clone())));
        self.turn(now);
        Ok(())
    }

    /// Takes a media off; its path stays its owner's.
    fn take_off(&mut self, now: Now, media: MediaIx) {
        let Some(path) = self.board.media.get(&media).map(|m| m.manifest.path.clone()) else { return };
        self.remove_media(now, media, &super::publish::Gone::TakenOff);
        if let Some(known) = self.names.get(&path).map(|n| n.known.clone()) {
            self.names.put(known.clone(), None, 0);
            self.effects.push_back(Effect::Store(Store::Name(known)));
        }
    }

    /// A key is banned: what it published goes, and its session.
    fn expel(&mut self, now: Now, key: &PeerKey) {
        let media = self.board.media.iter().filter(|(_, m)| m.manifest.publisher == *key);
        let mut media: Vec<MediaIx> = media.map(|(ix, _)| *ix).collect();
        media.sort_unstable();
        media.into_iter().for_each(|ix| self.take_off(now, ix));
        let mut conns: Vec<ConnId> =
            self.sessions.iter().filter(|(_, s)| s.key == *key).map(|(conn, _)| *conn).collect();
        conns.sort_unstable();
        for conn in conns {
            self.send(conn, refuse(ErrorCode::FORBIDDEN, BANNED));
            self.close(conn, BANNED);
        }
    }

    /// Whether a key may have a session.
    pub(crate) fn check_ban(&self, key: &PeerKey) -> Result<(), &'static str> {
        if self.ruled.rules.banned.binary_search(key).is_ok() { Err(BANNED) } else { Ok(()) }
    }

    /// Whether a key may publish at a path.
    pub(crate) fn check_publisher(&self, key: &PeerKey, path: &MediaPath) -> Result<(), Refused> {
        let rules = &self.ruled.rules;
        if rules.listed_only && rules.publishers.binary_search(key).is_err() {
            let why = format!("only listed keys may publish on this tracker: ask its operator to list {key}");
            return Err(refuse(ErrorCode::FORBIDDEN, why));
        }
        if rules.withdrawn.binary_search(path).is_ok() {
            let why = format!("the operator of this tracker has withdrawn {path}");
            return Err(refuse(ErrorCode::FORBIDDEN, super::join::truncated(why)));
        }
        Ok(())
    }

    /// What is said of a media that is not there.
    pub(crate) fn absent(&self, path: &MediaPath) -> Refused {
        let name = self.names.get(path);
        let text = if self.ruled.rules.withdrawn.binary_search(path).is_ok() {
            "the operator of this tracker has withdrawn it".to_owned()
        } else if let Some(to) = name.and_then(|n| n.known.moved.as_ref()) {
            format!("it moved to {to}")
        } else if name.is_some_and(|n| self.check_ban(&n.known.owner).is_err()) {
            "the operator of this tracker has banned its publisher".to_owned()
        } else {
            "no such media here".to_owned()
        };
        refuse(ErrorCode::NO_MEDIA, super::join::truncated(text))
    }
}
