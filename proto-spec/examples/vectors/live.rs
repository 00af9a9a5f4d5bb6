//! Vectors of what the publisher of live media signs while it goes on.

use icet::key::Hash;
use icet::live::{Batch, Head, NO_BATCH, SignedBatch, SignedHead};
use icet::media::{MediaError, Signed};
use icet::{Kind, Manifest};
use serde_json::{Value, json};

use super::meaning;
use super::world::{cbor, hex, identity, manifest, page, record};

const BATCH: &[u8] = b"IceShare/1 record\0";
const HEAD: &[u8] = b"IceShare/1 head\0";

/// The live manifest that all here is of.
pub(crate) fn live() -> Manifest {
    Manifest { kind: Kind::Live, pages: 0, bytes: 0, duration: 0, setup: 0, links: 0, ..manifest() }
}

/// Three batches, of pages 0 to 2, 3 and 4, and none: the last ends the broadcast.
pub(crate) fn batches() -> Vec<SignedBatch> {
    let mut all: Vec<SignedBatch> = Vec::new();
    for (first, count, ends) in [(0, 3, false), (3, 2, false), (5, 0, true)] {
        let before = all.last();
        let batch = Batch {
            broadcast: live().root,
            first,
            offset: before.map_or(0, |b| b.end()),
            time: i64::try_from(first).unwrap_or(0) * 20_000,
            previous: before.map_or(NO_BATCH, SignedBatch::hash),
            records: (first..first + count).map(record).collect(),
            ends,
        };
        all.extend(SignedBatch::sign(batch, &identity(1)));
    }
    all
}

pub(crate) fn head() -> Head {
    let batches = batches();
    Head {
        broadcast: live().root,
        next: 5,
        offset: batches.get(1).map_or(0, |b| b.end()),
        time: 100_000,
        last: batches.get(1).map_or(NO_BATCH, SignedBatch::hash),
        link: 0,
        link_offset: 0,
        link_time: 0,
        setup: (0..2).map(record).collect(),
        key: 4,
        signed_at: 1_767_225_600_123,
        title: None,
        ended: None,
    }
}

/// One that was told before it.
pub(crate) fn earlier_head() -> Head {
    let batches = batches();
    Head {
        next: 3,
        offset: batches.first().map_or(0, |b| b.end()),
        time: 40_000,
        last: batches.first().map_or(NO_BATCH, SignedBatch::hash),
        key: 2,
        signed_at: 1_767_225_599_119,
        ..head()
    }
}

/// The same, that says what is on.
pub(crate) fn titled_head() -> Head {
    Head { title: Some("Clara Schumann - Romanze für Violine und Klavier".to_owned()), ..head() }
}

/// The last one of a broadcast.
pub(crate) fn last_head() -> Head {
    Head { ended: Some(true), ..head() }
}

fn sign_anyway(context: &[u8], body: Vec<u8>) -> Signed {
    Signed { signature: identity(1).sign(context, &body), body: body.into() }
}

fn trailing(body: &[u8]) -> Vec<u8> {
    [body, &[0]].concat()
}

/// Batches that must be refused under the live manifest.
pub(crate) fn bad_batches() -> Vec<(&'static str, Signed, MediaError)> {
    let good = batches().swap_remove(1);
    let edited = |edit: &dyn Fn(&mut Batch)| {
        let mut b = (*good).clone();
        edit(&mut b);
        sign_anyway(BATCH, cbor(&b))
    };
    let body = &good.signed().body;
    let mut altered = good.signed().clone();
    altered.body[50] ^= 1;
    let other = Signed { signature: identity(2).sign(BATCH, body), body: body.clone() };
    let impossible = MediaError::Impossible("batch of records");
    vec![
        ("altered", altered, MediaError::Signature),
        ("signer", other, MediaError::Signature),
        ("context", sign_anyway(HEAD, body.to_vec()), MediaError::Signature),
        ("trailing", sign_anyway(BATCH, trailing(body)), MediaError::Malformed("batch of records")),
        (
            "broadcast",
            edited(&|b| b.broadcast = Hash([9; 32])),
            MediaError::Impossible("batch: of another broadcast"),
        ),
        ("no-records", edited(&|b| b.records.clear()), impossible),
        ("65-records", edited(&|b| b.records = vec![record(3); 65]), impossible),
        ("page-too-short", edited(&|b| b.records[0].len = 26), impossible),
        ("no-previous", edited(&|b| b.previous = NO_BATCH), impossible),
        ("first-with-previous", edited(&|b| (b.first, b.offset) = (0, 0)), impossible),
        ("beyond", edited(&|b| b.first = (1 << 40) - 63), impossible),
        ("time-too-far", edited(&|b| b.time = (1 << 60) + 1), impossible),
        ("record-too-far", edited(&|b| b.records[1].time = -(1 << 60) - 1), impossible),
    ]
}

/// Heads that must be refused under the live manifest.
pub(crate) fn bad_heads() -> Vec<(&'static str, Signed, MediaError)> {
    let edited = |edit: &dyn Fn(&mut Head)| {
        let mut h = head();
        edit(&mut h);
        sign_anyway(HEAD, cbor(&h))
    };
    let body = cbor(&head());
    let mut altered = sign_anyway(HEAD, body.clone());
    altered.body[50] ^= 1;
    let impossible = MediaError::Impossible("head");
    vec![
        ("altered", altered, MediaError::Signature),
        ("context", sign_anyway(BATCH, body.clone()), MediaError::Signature),
        ("trailing", sign_anyway(HEAD, trailing(&body)), MediaError::Malformed("head")),
        (
            "broadcast",
            edited(&|h| h.broadcast = Hash([9; 32])),
            MediaError::Impossible("head: of another broadcast"),
        ),
        ("no-setup", edited(&|h| h.setup.clear()), impossible),
        ("65-setup-pages", edited(&|h| h.setup = vec![record(0); 65]), impossible),
        ("key-in-setup", edited(&|h| h.key = 1), impossible),
        ("key-beyond", edited(&|h| h.key = 6), impossible),
        ("link-beyond", edited(&|h| h.link_offset = h.offset), impossible),
        ("title-too-long", edited(&|h| h.title = Some("x".repeat(257))), impossible),
    ]
}

pub(crate) fn file() -> Value {
    let signed = |s: &Signed| json!({ "body": hex(&s.body), "signature": hex(&s.signature.0) });
    let batches: Vec<_> = batches()
        .iter()
        .map(|b| json!({ "signed": signed(b.signed()), "hash": hex(&b.hash().0), "fields": meaning::batch(b) }))
        .collect();
    let heads: Vec<_> = [head(), titled_head(), last_head()]
        .into_iter()
        .filter_map(|h| SignedHead::sign(h, &identity(1)).ok())
        .map(|h| json!({ "signed": signed(h.signed()), "fields": meaning::head(&h) }))
        .collect();
    let refused = |all: Vec<(&'static str, Signed, MediaError)>| {
        let one = |(name, s, e): (_, Signed, MediaError)| json!({ "name": name, "signed": signed(&s), "error": e.to_string() });
        all.into_iter().map(one).collect::<Vec<_>>()
    };
    json!({
        "publisher": hex(&identity(1).key().0),
        "broadcast": hex(&live().root.0),
        "batches": { "chain": batches, "invalid": refused(bad_batches()) },
        "heads": { "valid": heads, "invalid": refused(bad_heads()) },
        "pages": (0..5).map(|n| hex(&page(n))).collect::<Vec<_>>(),
    })
}
