//! The small world that all vectors speak of: four keys, one media of 130 pages, one ticket.

use icet::frame;
use icet::key::Hash;
use icet::media::{PageFlags, SLICE_PAGES, StreamInfo};
use icet::merkle::{self, Tree};
use icet::message::{Dial, Source};
use icet::ticket::TicketBody;
use icet::{
    Abilities, HostAddr, Identity, Kind, Manifest, MediaId, MediaPath, NetAddr, NetKind, PageRecord, PageSet,
    ProtocolName, ProvenSlice, SignedManifest, Slice, TicketKey,
};
use serde_json::{Value, json};

/// Pages of the media: two full slices and one of 2.
pub(crate) const PAGES: u64 = 130;
/// The tracker's durable secret.
pub(crate) const SECRET: [u8; 32] = [9; 32];

/// All vector files: name and content.
pub(crate) fn files() -> Vec<(&'static str, String)> {
    let pretty = |v: Value| serde_json::to_string_pretty(&v).unwrap_or_default() + "\n";
    vec![
        ("messages.json", pretty(super::messages::file())),
        ("frames.json", pretty(super::messages::frames())),
        ("media.json", pretty(super::media::file())),
        ("tickets.json", pretty(super::media::tickets())),
        ("names.json", pretty(super::names::file())),
        ("pages.json", pretty(super::names::pages())),
        ("stream.json", pretty(super::stream::file())),
        ("live.json", pretty(super::live::file())),
    ]
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A number in JSON: beyond 2^53 as a string, since not every JSON reader keeps it.
pub(crate) fn num(n: u64) -> Value {
    if n <= 1 << 53 { json!(n) } else { json!(n.to_string()) }
}

/// Publisher 1, tracker 2, host 3, receiver 4.
pub(crate) fn identity(n: u8) -> Identity {
    Identity::from_seed(&[n; 32])
}

pub(crate) fn path() -> MediaPath {
    MediaPath::new("music/Søren – Étude №1.opus").expect("a media path")
}

pub(crate) fn id() -> MediaId {
    MediaId::of(&identity(1).key(), &path())
}

fn ogg_crc(page: &[u8]) -> u32 {
    page.iter().fold(0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte) << 24,
            |c, _| if c >> 31 == 1 { c << 1 ^ 0x04c1_1db7 } else { c << 1 },
        )
    })
}

/// Page `n`: one segment of `n % 200 + 1` bytes, each `n % 251`; granule position `960 * n`; serial 7.
pub(crate) fn page(n: u64) -> Vec<u8> {
    let byte = |n: u64| u8::try_from(n).expect("below 256");
    let len = byte(n % 200 + 1);
    let flags = u8::from(n == 0) * 2 + u8::from(n == PAGES - 1) * 4;
    let mut page = b"OggS\0".to_vec();
    page.push(flags);
    page.extend_from_slice(&(960 * n).to_le_bytes());
    page.extend_from_slice(&7u32.to_le_bytes());
    page.extend_from_slice(&u32::try_from(n).expect("small").to_le_bytes());
    page.extend_from_slice(&[0; 4]);
    page.extend_from_slice(&[1, len]);
    page.extend(std::iter::repeat_n(byte(n % 251), usize::from(len)));
    let crc = ogg_crc(&page);
    page[22..26].copy_from_slice(&crc.to_le_bytes());
    page
}

pub(crate) fn record(n: u64) -> PageRecord {
    let page = page(n);
    let flags = match n {
        0 => PageFlags::BOS | PageFlags::SETUP,
        1 => PageFlags::SETUP,
        129 => PageFlags::EOS | PageFlags::KEYFRAME,
        _ => PageFlags::KEYFRAME,
    };
    let time = |n: u64| i64::try_from(n.saturating_sub(2) * 20_000).expect("small");
    PageRecord {
        len: u32::try_from(page.len()).expect("small"),
        crc: u32::from_le_bytes([page[22], page[23], page[24], page[25]]),
        hash: Hash(*blake3::hash(&page).as_bytes()),
        flags,
        time: time(n) - time(n - n % SLICE_PAGES),
    }
}

pub(crate) fn slice(index: u64) -> Slice {
    let first = index * SLICE_PAGES;
    Slice {
        index,
        offset: (0..first).map(|n| page(n).len() as u64).sum(),
        time: i64::try_from(first.saturating_sub(2) * 20_000).expect("small"),
        records: (first..PAGES.min(first + SLICE_PAGES)).map(record).collect(),
    }
}

pub(crate) fn tree() -> Tree {
    let leaves = (0..PAGES.div_ceil(SLICE_PAGES)).map(|i| merkle::leaf(&slice(i).to_bytes())).collect();
    Tree::new(leaves).expect("three slices")
}

pub(crate) fn proven(index: u64) -> ProvenSlice {
    ProvenSlice { slice: slice(index).to_bytes().into(), proof: tree().proof(index).expect("in the tree") }
}

pub(crate) fn manifest() -> Manifest {
    Manifest {
        kind: Kind::File,
        path: path(),
        publisher: identity(1).key(),
        version: 3,
        pages: PAGES,
        bytes: (0..PAGES).map(|n| page(n).len() as u64).sum(),
        duration: 2_560_000,
        root: tree().root(),
        setup: 2,
        links: 1,
        streams: vec![StreamInfo {
            serial: 7,
            codec: "opus".to_owned(),
            rate: Some(48_000),
            channels: Some(2),
            size: None,
        }],
        title: "Étude №1".to_owned(),
        tags: vec![("ARTIST".to_owned(), "Søren".to_owned()), ("DATE".to_owned(), "2026".to_owned())],
        signed_at: 1_767_225_600,
        group: None,
    }
}

pub(crate) fn signed() -> SignedManifest {
    SignedManifest::sign(manifest(), &identity(1)).expect("a good manifest")
}

pub(crate) fn http() -> ProtocolName {
    "http".parse().expect("a protocol name")
}

pub(crate) fn addr(kind: NetKind, at: &str) -> NetAddr {
    NetAddr { kind, at: at.parse().expect("an address") }
}

pub(crate) fn ticket_body() -> TicketBody {
    TicketBody {
        tracker: identity(2).key(),
        epoch: 5,
        assignment: 77,
        receiver: identity(4).key(),
        host: identity(3).key(),
        media: id(),
        version: 3,
        pages: PageSet::range(64, 79),
        protocol: http(),
        rate: Some(1_000_000),
        expiry: 1_767_225_660_000,
        need: icet::message::Need::Urgent,
    }
}

pub(crate) fn source() -> Source {
    Source {
        host: HostAddr {
            key: identity(3).key(),
            protocol: http(),
            addrs: vec![addr(NetKind::Tcp, "192.0.2.7:40001"), addr(NetKind::Tcp, "[2001:db8::7]:40001")],
            endpoint: String::new(),
            abilities: Abilities::PAGES | Abilities::BYTES | Abilities::PROOFS | Abilities::ORDERED,
        },
        dial: Dial::Receiver,
        ticket: TicketKey::derive(&SECRET, &identity(3).key()).issue(&ticket_body()),
    }
}

/// The body of a frame with `n` and the map that `edit` writes.
pub(crate) fn raw(n: u64, edit: impl FnOnce(&mut minicbor::Encoder<Vec<u8>>)) -> Vec<u8> {
    let mut e = minicbor::Encoder::new(Vec::new());
    e.array(2).and_then(|e| e.u64(n)).expect("a Vec takes all");
    edit(&mut e);
    e.into_writer()
}

pub(crate) fn cbor<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    frame::encode(value)
}
