//! Vectors of what is signed, proved and MACed.

use icet::key::Hash;
use icet::media::{MediaError, Signed};
use icet::merkle::{self, Tree};
use icet::{Kind, Manifest, ProvenSlice, SignedManifest, Slice, Ticket, TicketKey};
use serde_json::{Value, json};

use super::meaning;
use super::world::{
    PAGES, SECRET, cbor, hex, id, identity, manifest, page, proven, record, signed, slice, ticket_body, tree,
};

const CONTEXT: &[u8] = b"IceShare/1 manifest\0";

fn sign_anyway(m: &Manifest) -> Signed {
    let body = cbor(m);
    Signed { signature: identity(1).sign(CONTEXT, &body), body: body.into() }
}

/// Signed manifests that must be refused.
pub(crate) fn bad_manifests() -> Vec<(&'static str, Signed, MediaError, &'static str)> {
    let good = signed().signed().clone();
    let edited = |edit: &dyn Fn(&mut Manifest)| {
        let mut m = manifest();
        edit(&mut m);
        sign_anyway(&m)
    };
    let mut altered = good.clone();
    let at = altered.body.windows(4).position(|w| w == b"2026").expect("the date");
    altered.body[at + 3] ^= 1;
    let mut signature = good.clone();
    signature.signature.0[40] ^= 1;
    let context =
        Signed { signature: identity(1).sign(b"IceShare/1 group\0", &good.body), body: good.body.clone() };
    let other = Signed { signature: identity(2).sign(CONTEXT, &good.body), body: good.body.clone() };
    let mut trailing = good.body.to_vec();
    trailing.push(0);
    let trailing = Signed { signature: identity(1).sign(CONTEXT, &trailing), body: trailing.into() };
    let impossible = |what| MediaError::Impossible(what);
    vec![
        ("altered", altered, MediaError::Signature, "a tag was altered"),
        ("signature", signature, MediaError::Signature, "one bit of the signature"),
        ("context", context, MediaError::Signature, "signed as something else"),
        ("signer", other, MediaError::Signature, "signed by another key than the publisher that it names"),
        ("trailing", trailing, MediaError::Malformed("manifest"), "something follows the map"),
        (
            "no-pages",
            edited(&|m| m.pages = 0),
            impossible("manifest: number of pages"),
            "a file without pages",
        ),
        (
            "too-many-pages",
            edited(&|m| m.pages = (1 << 26) + 1),
            impossible("manifest: number of pages"),
            "a file of more than 2^26 pages",
        ),
        (
            "too-few-bytes",
            edited(&|m| m.bytes = m.pages * 27 - 1),
            impossible("manifest: number of bytes"),
            "fewer bytes than its pages have headers",
        ),
        (
            "too-many-bytes",
            edited(&|m| m.bytes = m.pages * 65_307 + 1),
            impossible("manifest: number of bytes"),
            "more bytes than its pages can hold",
        ),
        (
            "setup",
            edited(&|m| m.setup = m.pages + 1),
            impossible("manifest: setup pages, links or duration"),
            "more setup pages than pages",
        ),
        (
            "title",
            edited(&|m| m.title = "x".repeat(1025)),
            impossible("manifest: title or tags"),
            "a title of 1025 bytes",
        ),
        (
            "tags",
            edited(&|m| m.tags = vec![(String::new(), String::new()); 65]),
            impossible("manifest: title or tags"),
            "65 tags",
        ),
        (
            "streams",
            edited(&|m| m.streams = vec![m.streams[0].clone(); 33]),
            impossible("manifest: logical streams"),
            "33 logical streams",
        ),
    ]
}

/// Slices that must be refused under the manifest of the world.
pub(crate) fn bad_slices() -> Vec<(&'static str, ProvenSlice, MediaError, &'static str)> {
    let with = |edit: &dyn Fn(&mut Slice)| {
        let mut s = slice(1);
        edit(&mut s);
        ProvenSlice { slice: cbor(&s).into(), proof: proven(1).proof }
    };
    let mut short_proof = proven(1);
    short_proof.proof.pop();
    let mut long_proof = proven(1);
    long_proof.proof.push(Hash([0; 32]));
    let mut trailing = proven(1);
    trailing.slice.push(0);
    let impossible = MediaError::Impossible("slice");
    vec![
        ("hash", with(&|s| s.records[5].hash.0[0] ^= 1), MediaError::Proof(1), "one bit of a page's hash"),
        ("moved", with(&|s| s.index = 0), MediaError::Proof(0), "the slice of another index"),
        ("beyond", with(&|s| s.index = 3), MediaError::Proof(3), "an index beyond the end"),
        ("offset", with(&|s| s.offset += 1), MediaError::Proof(1), "another offset"),
        ("proof-short", short_proof, MediaError::Proof(1), "a proof with a hash too few"),
        ("proof-long", long_proof, MediaError::Proof(1), "a proof with a hash too many"),
        (
            "proof-other",
            ProvenSlice { slice: proven(1).slice, proof: proven(0).proof },
            MediaError::Proof(1),
            "the proof of another slice",
        ),
        ("trailing", trailing, MediaError::Malformed("slice"), "something follows the slice"),
        ("no-records", with(&|s| s.records.clear()), impossible, "no records"),
        ("65-records", with(&|s| s.records.push(record(0))), impossible, "65 records"),
        ("page-too-short", with(&|s| s.records[0].len = 26), impossible, "a page of 26 bytes"),
        ("page-too-long", with(&|s| s.records[0].len = 65_308), impossible, "a page of 65308 bytes"),
        (
            "time-overflow",
            with(&|s| (s.time, s.records[1].time) = (i64::MAX, 1)),
            impossible,
            "a time that overflows",
        ),
    ]
}

/// Sizes of the trees whose roots and proofs are listed.
const TREES: [u64; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 64, 65];

fn trees() -> Value {
    let leaf = |n: u64| merkle::leaf(&n.to_be_bytes());
    let mut all = Vec::new();
    for n in TREES {
        let Some(tree) = Tree::new((0..n).map(leaf).collect()) else { continue };
        let at = [0, n / 2, n - 1];
        let proofs: Vec<_> = at
            .iter()
            .map(|i| {
                let proof: Vec<_> = tree.proof(*i).unwrap_or_default().iter().map(|h| hex(&h.0)).collect();
                json!({ "index": i, "proof": proof })
            })
            .collect();
        all.push(json!({ "leaves": n, "root": hex(&tree.root().0), "proofs": proofs }));
    }
    Value::Array(all)
}

pub(crate) fn file() -> Value {
    let signed_json = |s: &Signed| json!({ "body": hex(&s.body), "signature": hex(&s.signature.0) });
    let keys: Vec<_> =
        (1..=4u8).map(|n| json!({ "seed": hex(&[n; 32]), "key": hex(&identity(n).key().0) })).collect();
    let live =
        Manifest { kind: Kind::Live, pages: 0, bytes: 0, duration: 0, setup: 0, links: 0, ..manifest() };
    let live = SignedManifest::sign(live, &identity(1)).map(|s| {
        json!({ "name": "live", "signed": signed_json(s.signed()), "fields": meaning::manifest(s.manifest()), "media": hex(&s.id().0), "slices": s.slices() })
    });
    let good = signed();
    let manifests = [
        Ok(
            json!({ "name": "file", "signed": signed_json(good.signed()), "fields": meaning::manifest(good.manifest()), "media": hex(&id().0), "slices": good.slices() }),
        ),
        live,
    ];
    let slices: Vec<_> = (0..3)
        .map(|i| json!({ "name": format!("slice-{i}"), "proven": meaning::proven(&proven(i)), "fields": meaning::slice(&slice(i)) }))
        .collect();
    let pages: Vec<_> =
        [0, 1, 63, 64, PAGES - 1].iter().map(|n| json!({ "page": n, "hex": hex(&page(*n)) })).collect();
    let refused_manifests: Vec<_> = bad_manifests()
        .into_iter()
        .map(|(name, s, e, why)| json!({ "name": name, "signed": signed_json(&s), "why": why, "error": e.to_string() }))
        .collect();
    let refused_slices: Vec<_> = bad_slices()
        .into_iter()
        .map(|(name, s, e, why)| json!({ "name": name, "proven": meaning::proven(&s), "why": why, "error": e.to_string() }))
        .collect();
    json!({
        "keys": keys,
        "manifests": { "valid": manifests.into_iter().flatten().collect::<Vec<_>>(), "invalid": refused_manifests },
        "slices": { "of": "file", "valid": slices, "invalid": refused_slices },
        "pages": pages,
        "trees": { "leaf": "the number of the leaf, 8 bytes big endian", "trees": trees() },
        "root": hex(&tree().root().0),
    })
}

/// Tickets that the host 3 must refuse: forged, or malformed.
pub(crate) fn bad_tickets() -> Vec<(&'static str, Ticket, &'static str, &'static str)> {
    let key = TicketKey::derive(&SECRET, &identity(3).key());
    let good = key.issue(&ticket_body());
    let mut mac = good.clone();
    mac.mac.0[31] ^= 0x80;
    let mut body = good.clone();
    let last = body.body.len() - 1;
    body.body[last] ^= 1;
    let other = TicketKey::derive(&SECRET, &identity(4).key()).issue(&ticket_body());
    let plain = Ticket { mac: Hash(*blake3::hash(&good.body).as_bytes()), body: good.body.clone() };
    // Signed by the tracker all the same: a ticket of a broken tracker.
    let no_map = {
        let mut h = blake3::Hasher::new_keyed(&key.0);
        h.update(b"IceShare/1 ticket\0").update(&[0x80]);
        Ticket { body: vec![0x80].into(), mac: Hash(*h.finalize().as_bytes()) }
    };
    vec![
        ("mac", mac, "forged", "one bit of the MAC"),
        ("body", body, "forged", "one bit of the body"),
        ("host", other, "forged", "made for another host"),
        ("unkeyed", plain, "forged", "a hash without the key"),
        ("no-map", no_map, "malformed", "an empty array under a good MAC"),
    ]
}

pub(crate) fn tickets() -> Value {
    let key = TicketKey::derive(&SECRET, &identity(3).key());
    let ticket = key.issue(&ticket_body());
    let json = |t: &Ticket| json!({ "body": hex(&t.body), "mac": hex(&t.mac.0) });
    let refused: Vec<_> = bad_tickets()
        .into_iter()
        .map(|(name, t, error, why)| json!({ "name": name, "ticket": json(&t), "error": error, "why": why }))
        .collect();
    json!({
        "secret": hex(&SECRET),
        "host": hex(&identity(3).key().0),
        "key": hex(&key.0),
        "valid": [{ "name": "ticket", "ticket": json(&ticket), "hex": hex(&cbor(&ticket)), "fields": meaning::ticket_body(&ticket_body()) }],
        "invalid": refused,
    })
}
