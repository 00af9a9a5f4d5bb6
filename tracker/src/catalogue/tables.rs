//! The tables of the catalogue's redb file, and one transaction over them.

use std::collections::BTreeMap;

use icet::{MediaId, frame};
use redb::{
    Database, Error, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};

use crate::swarm::io::{KnownProtocol, Store};

type Id = &'static [u8; 32];

/// Version of the layout of the tables.
pub(super) const FORMAT: u64 = 1;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const SECRETS: TableDefinition<&str, Id> = TableDefinition::new("secrets");
/// Path to owner, highest version, last use in milliseconds since 1970, and where its media went (empty: nowhere).
const NAMES: TableDefinition<&str, (Id, u64, u64, &str)> = TableDefinition::new("names");
/// Media id to CBOR of the signed manifest.
const MANIFESTS: TableDefinition<Id, &[u8]> = TableDefinition::new("manifests");
/// Media id, version and index to byte offset and media time of a slice in SLICES, so that a start need not read those.
const MARKS: TableDefinition<(Id, u64, u64), (u64, i64)> = TableDefinition::new("slice marks");
/// Media id, version and index to CBOR of the proven slice.
pub(super) const SLICES: TableDefinition<(Id, u64, u64), &[u8]> = TableDefinition::new("slices");
/// Key to bytes sent and received.
pub(super) const CONTRIBUTION: TableDefinition<Id, (u64, u64)> = TableDefinition::new("contribution");
/// Media id to the number of joins.
const HITS: TableDefinition<Id, u64> = TableDefinition::new("hits");

/// Name of a protocol to CBOR of what was learned of it; at most PROTOCOLS_MOST rows: their names come from strangers.
const PROTOCOLS: TableDefinition<&str, &[u8]> = TableDefinition::new("protocols");
const PROTOCOLS_MOST: u64 = 256;

/// CBOR of the operator's rules, under one key.
const RULES: TableDefinition<&str, &[u8]> = TableDefinition::new("rules");

/// A row of NAMES.
pub(super) struct NameRow {
    pub(super) owner: [u8; 32],
    pub(super) version: u64,
    pub(super) used_ms: u64,
    pub(super) moved: String,
}

/// A row of MARKS.
pub(super) struct MarkRow {
    pub(super) media: [u8; 32],
    pub(super) version: u64,
    pub(super) index: u64,
    pub(super) offset: u64,
    pub(super) time: i64,
}

/// What a start needs, as it stands in the file.
#[derive(Default)]
pub(super) struct Raw {
    pub(super) names: Vec<(String, NameRow)>,
    /// In the order of their ids.
    pub(super) manifests: Vec<([u8; 32], Vec<u8>)>,
    /// In the order of their media.
    pub(super) marks: Vec<MarkRow>,
    pub(super) hits: BTreeMap<[u8; 32], u64>,
    pub(super) protocols: Vec<Vec<u8>>,
    pub(super) rules: Option<Vec<u8>>,
}

impl Raw {
    pub(super) fn read(db: &Database) -> Result<Raw, Error> {
        let txn = db.begin_read()?;
        let mut raw = Raw::default();
        for row in txn.open_table(NAMES)?.iter()? {
            let (path, row) = row?;
            let (owner, version, used_ms, moved) = row.value();
            let row = NameRow { owner: *owner, version, used_ms, moved: moved.to_owned() };
            raw.names.push((path.value().to_owned(), row));
        }
        for row in txn.open_table(MANIFESTS)?.iter()? {
            let (id, signed) = row?;
            raw.manifests.push((*id.value(), signed.value().to_vec()));
        }
        for row in txn.open_table(MARKS)?.iter()? {
            let (key, mark) = row?;
            let ((media, version, index), (offset, time)) = (key.value(), mark.value());
            raw.marks.push(MarkRow { media: *media, version, index, offset, time });
        }
        for row in txn.open_table(HITS)?.iter()? {
            let (id, hits) = row?;
            raw.hits.insert(*id.value(), hits.value());
        }
        raw.rules = txn.open_table(RULES)?.get("rules")?.map(|r| r.value().to_vec());
        for row in txn.open_table(PROTOCOLS)?.iter()? {
            raw.protocols.push(row?.1.value().to_vec());
        }
        Ok(raw)
    }
}

/// Keeps what was learned of a protocol; where there are too many, in the place of the one that was learned of least lately.
fn put_protocol(txn: &WriteTransaction, known: &KnownProtocol) -> Result<(), Error> {
    let mut table = txn.open_table(PROTOCOLS)?;
    let name = known.name.as_str();
    if table.len()? >= PROTOCOLS_MOST && table.get(name)?.is_none() {
        let mut oldest: Option<(u64, String)> = None;
        for row in table.iter()? {
            let (name, row) = row?;
            let at = frame::decode::<KnownProtocol>(row.value()).map_or(0, |k| k.wall_ms);
            if oldest.as_ref().is_none_or(|(than, _)| at < *than) {
                oldest = Some((at, name.value().to_owned()));
            }
        }
        if let Some((_, name)) = oldest {
            table.remove(name.as_str())?;
        }
    }
    table.insert(name, frame::encode(known).as_slice())?;
    Ok(())
}

/// Counts a start, and makes the tables and the secret at the first. Returns format, secret and epoch; changes
/// nothing in a file of another format.
pub(super) fn begin(db: &Database) -> Result<(u64, [u8; 32], u64), Error> {
    let txn = db.begin_write()?;
    let (format, secret, epoch);
    {
        let mut meta = txn.open_table(META)?;
        format = meta.get("format")?.map_or(FORMAT, |f| f.value());
        epoch = meta.get("epoch")?.map_or(0, |e| e.value()).saturating_add(1);
        meta.insert("format", format)?;
        meta.insert("epoch", epoch)?;
        let mut secrets = txn.open_table(SECRETS)?;
        let kept = secrets.get("tickets")?.map(|s| *s.value());
        secret = match kept {
            Some(s) => s,
            None => {
                let mut s = [0; 32];
                getrandom::fill(&mut s).map_err(|e| Error::Io(std::io::Error::other(e)))?;
                secrets.insert("tickets", &s)?;
                s
            }
        };
        // Opening makes them, so that reads need not care.
        txn.open_table(NAMES)?;
        txn.open_table(MANIFESTS)?;
        txn.open_table(MARKS)?;
        txn.open_table(SLICES)?;
        txn.open_table(CONTRIBUTION)?;
        txn.open_table(HITS)?;
        txn.open_table(PROTOCOLS)?;
        txn.open_table(RULES)?;
    }
    if format == FORMAT {
        txn.commit()?;
    } else {
        txn.abort()?;
    }
    Ok((format, secret, epoch))
}

/// All of `writes`, in order, in one transaction.
pub(super) fn apply(db: &Database, writes: &[Store]) -> Result<(), Error> {
    let mut txn = db.begin_write()?;
    // Makes a start after a kill quick: no walk over the whole file.
    txn.set_quick_repair(true);
    for write in writes {
        match write {
            Store::Name(n) => {
                let moved = n.moved.as_ref().map_or("", |m| m.as_str());
                let row = (&n.owner.0, n.version, n.used_ms, moved);
                txn.open_table(NAMES)?.insert(n.path.as_str(), row)?;
            }
            Store::Forget { path } => {
                txn.open_table(NAMES)?.remove(path.as_str())?;
            }
            Store::Manifest { manifest } => {
                let id = manifest.id();
                drop_slices(&txn, &id, Some(manifest.version))?;
                let bytes = frame::encode(manifest.signed());
                txn.open_table(MANIFESTS)?.insert(&id.0, bytes.as_slice())?;
            }
            Store::Slice { media, version, index, mark, slice } => {
                let key = (&media.0, *version, *index);
                txn.open_table(SLICES)?.insert(key, frame::encode(slice).as_slice())?;
                txn.open_table(MARKS)?.insert(key, (mark.offset, mark.time))?;
            }
            Store::Withdrawn { media } => {
                drop_slices(&txn, media, None)?;
                txn.open_table(MANIFESTS)?.remove(&media.0)?;
                txn.open_table(HITS)?.remove(&media.0)?;
            }
            Store::Hits { media, hits } => {
                txn.open_table(HITS)?.insert(&media.0, *hits)?;
            }
            Store::Rules(rules) => {
                txn.open_table(RULES)?.insert("rules", frame::encode(rules).as_slice())?;
            }
            Store::Protocol(known) => put_protocol(&txn, known)?,
            Store::Contribution { peer, contribution: c } => {
                txn.open_table(CONTRIBUTION)?.insert(&peer.0, (c.sent, c.received))?;
            }
        }
    }
    txn.commit()?;
    Ok(())
}

/// Removes the slices of `media`, except those of version `keep`.
fn drop_slices(txn: &WriteTransaction, media: &MediaId, keep: Option<u64>) -> Result<(), Error> {
    let all = || (&media.0, 0, 0)..=(&media.0, u64::MAX, u64::MAX);
    txn.open_table(SLICES)?.retain_in(all(), |(_, version, _), _| Some(version) == keep)?;
    txn.open_table(MARKS)?.retain_in(all(), |(_, version, _), _| Some(version) == keep)?;
    Ok(())
}
