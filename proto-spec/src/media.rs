//! What a publisher signs: the manifest, and under its root the slices of page records.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::key::{Hash, Identity, PeerKey, Signature};
use crate::limits;
use crate::merkle;
use crate::pages::PageNo;
use crate::path::{MediaId, MediaPath};

/// Pages in a slice; the last slice of a file may have fewer.
pub const SLICE_PAGES: u64 = 64;

/// A file or a live stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// Complete, of a known length.
    #[n(0)]
    File,
    /// Continuous.
    #[n(1)]
    Live,
}

/// What a page is, as bits; the wire form is a `uint`. Unknown bits are kept and ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct PageFlags(#[n(0)] pub u8);

impl PageFlags {
    /// Begins a logical stream (BOS).
    pub const BOS: PageFlags = PageFlags(1);
    /// Ends a logical stream (EOS).
    pub const EOS: PageFlags = PageFlags(1 << 1);
    /// Belongs to a logical stream's header packets: a decoder needs it before any other page of its link.
    pub const SETUP: PageFlags = PageFlags(1 << 2);
    /// Begins with a packet continued from the page before.
    pub const CONTINUED: PageFlags = PageFlags(1 << 3);
    /// A keyframe begins on it (video), or any page on which decoding can begin (audio).
    pub const KEYFRAME: PageFlags = PageFlags(1 << 4);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn has(self, other: PageFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for PageFlags {
    type Output = PageFlags;
    fn bitor(self, other: PageFlags) -> PageFlags {
        PageFlags(self.0 | other.0)
    }
}

/// What is known of a page before it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PageRecord {
    /// Length of the whole page in bytes, 27 to 65,307.
    #[n(0)]
    pub len: u32,
    /// The CRC in its Ogg header.
    #[n(1)]
    pub crc: u32,
    /// BLAKE3 of the whole page.
    #[n(2)]
    pub hash: Hash,
    /// What the page is.
    #[n(3)]
    pub flags: PageFlags,
    /// Media time at which its content starts, in microseconds after the slice's [`Slice::time`]; may be negative
    /// where logical streams are interleaved.
    #[n(4)]
    pub time: i64,
}

/// 64 page records (the last slice of a file: 1 to 64).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Slice {
    /// Its index: its first page is `index * 64`.
    #[n(0)]
    pub index: u64,
    /// Offset of its first page in the physical bitstream, in bytes.
    #[n(1)]
    pub offset: u64,
    /// Media time of its first page, in microseconds from page 0.
    #[n(2)]
    pub time: i64,
    /// The records, in order.
    #[n(3)]
    pub records: Vec<PageRecord>,
}

/// Why a slice or a manifest was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MediaError {
    /// Not CBOR of the right shape.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A field beyond its limits, or fields that contradict each other.
    #[error("impossible {0}")]
    Impossible(&'static str),
    /// The signature does not match the publisher's key.
    #[error("the manifest's signature is wrong: it was altered, or was not made by its publisher")]
    Signature,
    /// The slice is not under the manifest's root.
    #[error("slice {0} is not part of the media that the publisher signed")]
    Proof(u64),
}

impl Slice {
    /// First page of the slice.
    #[must_use]
    pub fn first_page(&self) -> PageNo {
        self.index * SLICE_PAGES
    }

    /// Record and byte offset of `page`, if the slice has it.
    #[must_use]
    pub fn page(&self, page: PageNo) -> Option<(PageRecord, u64)> {
        let i = usize::try_from(page.checked_sub(self.first_page())?).ok()?;
        let record = *self.records.get(i)?;
        Some((record, self.offset + self.records[..i].iter().map(|r| u64::from(r.len)).sum::<u64>()))
    }

    /// Bytes of all its pages.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.records.iter().map(|r| u64::from(r.len)).sum()
    }

    /// The canonical CBOR that goes under the Merkle tree.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        crate::frame::encode(self)
    }

    /// Decodes a slice and checks what can be checked without its media.
    ///
    /// # Errors
    /// [`MediaError::Malformed`] or [`MediaError::Impossible`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Slice, MediaError> {
        if bytes.len() > limits::SLICE {
            return Err(MediaError::Impossible("slice: too large"));
        }
        let slice: Slice = crate::frame::decode(bytes).map_err(|_| MediaError::Malformed("slice"))?;
        let good = slice.index <= limits::PAGES / SLICE_PAGES
            && slice.offset <= limits::PAGES * 65_307
            && (1..=64).contains(&slice.records.len())
            && slice.records.iter().all(|r| limits::PAGE_BYTES.contains(&r.len))
            && slice.records.iter().all(|r| slice.time.checked_add(r.time).is_some());
        if good { Ok(slice) } else { Err(MediaError::Impossible("slice")) }
    }
}

/// A slice as it travels: its bytes, and the siblings that lead to the manifest's root. Checked as received.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ProvenSlice {
    /// CBOR of a [`Slice`].
    #[n(0)]
    pub slice: ByteVec,
    /// Siblings from the leaf upwards.
    #[n(1)]
    pub proof: Vec<Hash>,
}

impl ProvenSlice {
    /// The slice, if it stands under the root of `manifest` and fits it.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub fn verify(&self, manifest: &Manifest) -> Result<Slice, MediaError> {
        let slice = Slice::from_bytes(&self.slice)?;
        let leaf = merkle::leaf(&self.slice);
        if !merkle::verify(&manifest.root, manifest.slices(), slice.index, leaf, &self.proof) {
            return Err(MediaError::Proof(slice.index));
        }
        let left = manifest.pages - slice.first_page();
        let end = slice.offset.checked_add(slice.bytes());
        let last = left <= SLICE_PAGES;
        if slice.records.len() as u64 != left.min(SLICE_PAGES)
            || end.is_none_or(|e| if last { e != manifest.bytes } else { e > manifest.bytes })
        {
            return Err(MediaError::Impossible("slice: does not fit its manifest"));
        }
        Ok(slice)
    }
}

/// A logical stream of the first link.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StreamInfo {
    /// Ogg serial number.
    #[n(1)]
    pub serial: u32,
    /// `vorbis`, `opus`, `flac`, `speex`, `theora`, `skeleton`, or `unknown`.
    #[n(2)]
    pub codec: String,
    /// Samples a second (audio), or frames per 1000 seconds (video).
    #[n(3)]
    pub rate: Option<u64>,
    /// Channels (audio).
    #[n(4)]
    pub channels: Option<u8>,
    /// Width and height in pixels (video).
    #[n(5)]
    pub size: Option<(u32, u32)>,
}

/// The signed description of a media. Its size does not grow with the media.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    /// File or live.
    #[n(1)]
    pub kind: Kind,
    /// Its name on the tracker.
    #[n(2)]
    pub path: MediaPath,
    /// Who signs.
    #[n(3)]
    pub publisher: PeerKey,
    /// Grows with every change; a lower one is refused once a higher one was seen.
    #[n(4)]
    pub version: u64,
    /// Number of pages.
    #[n(5)]
    pub pages: u64,
    /// Length in bytes.
    #[n(6)]
    pub bytes: u64,
    /// Duration in microseconds; 0 if no logical stream has times.
    #[n(7)]
    pub duration: u64,
    /// Root of the page table; of live media, the broadcast: 32 random bytes.
    #[n(8)]
    pub root: Hash,
    /// Number of pages at the beginning that hold the first link's setup, all logical streams together.
    #[n(9)]
    pub setup: u64,
    /// Links of the chain; 1 for a file that is not chained.
    #[n(10)]
    pub links: u64,
    /// Logical streams of the first link.
    #[n(11)]
    pub streams: Vec<StreamInfo>,
    /// Title, for people; may be empty.
    #[n(12)]
    pub title: String,
    /// Tags as in Vorbis comments: name in upper case, value.
    #[n(13)]
    pub tags: Vec<(String, String)>,
    /// When it was signed: wall clock, seconds since 1970.
    #[n(14)]
    pub signed_at: u64,
    /// The group of alternatives that it belongs to, if any.
    #[n(15)]
    pub group: Option<MediaPath>,
}

impl Manifest {
    /// That of a broadcast, of version 0, which says nothing yet of what it has.
    #[must_use]
    pub fn live(path: MediaPath, publisher: PeerKey, broadcast: Hash) -> Manifest {
        Manifest {
            kind: Kind::Live,
            path,
            publisher,
            version: 0,
            pages: 0,
            bytes: 0,
            duration: 0,
            root: broadcast,
            setup: 0,
            links: 0,
            streams: Vec::new(),
            title: String::new(),
            tags: Vec::new(),
            signed_at: 0,
            group: None,
        }
    }

    /// The media's id.
    #[must_use]
    pub fn id(&self) -> MediaId {
        MediaId::of(&self.publisher, &self.path)
    }

    /// Number of slices.
    #[must_use]
    pub fn slices(&self) -> u64 {
        self.pages.div_ceil(SLICE_PAGES)
    }

    /// MIME type for a player: `audio/ogg`, `video/ogg` or `application/ogg` (RFC 5334).
    #[must_use]
    pub fn mime(&self) -> &'static str {
        let is = |names: &[&str]| self.streams.iter().any(|s| names.contains(&s.codec.as_str()));
        if is(&["theora"]) {
            "video/ogg"
        } else if !self.streams.is_empty() && !is(&["unknown"]) {
            "audio/ogg"
        } else {
            "application/ogg"
        }
    }

    fn check(&self) -> Result<(), MediaError> {
        let bad = |what| Err(MediaError::Impossible(what));
        if self.kind == Kind::File {
            if !(1..=limits::FILE_PAGES).contains(&self.pages) {
                return bad("manifest: number of pages");
            }
            let (min, max) = (limits::PAGE_BYTES.start(), limits::PAGE_BYTES.end());
            if !(self.pages * u64::from(*min)..=self.pages * u64::from(*max)).contains(&self.bytes) {
                return bad("manifest: number of bytes");
            }
        }
        if self.kind == Kind::Live && (self.pages, self.bytes, self.duration) != (0, 0, 0) {
            return bad("manifest: number of pages");
        }
        if self.setup > self.pages || self.links > self.pages || self.duration > i64::MAX as u64 {
            return bad("manifest: setup pages, links or duration");
        }
        if self.streams.len() > limits::STREAMS
            || self.streams.iter().any(|s| s.codec.len() > limits::PROTOCOL)
        {
            return bad("manifest: logical streams");
        }
        let long = |s: &String| s.len() > limits::TEXT;
        if long(&self.title)
            || self.tags.len() > limits::TAGS
            || self.tags.iter().any(|(n, v)| long(n) || long(v))
        {
            return bad("manifest: title or tags");
        }
        Ok(())
    }
}

/// Bytes with a signature over them, to be checked as received.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Signed {
    /// What was signed.
    #[n(0)]
    pub body: ByteVec,
    /// ed25519 over the kind's context and the body.
    #[n(1)]
    pub signature: Signature,
}

const MANIFEST_CONTEXT: &[u8] = b"IceShare/1 manifest\0";

/// A manifest whose signature and limits were checked, beside the bytes that were signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedManifest {
    manifest: Manifest,
    signed: Signed,
}

impl SignedManifest {
    /// Signs a manifest.
    ///
    /// # Errors
    /// [`MediaError::Impossible`] if a field exceeds its limits or the manifest names another publisher.
    pub fn sign(manifest: Manifest, identity: &Identity) -> Result<SignedManifest, MediaError> {
        manifest.check()?;
        if manifest.publisher != identity.key() {
            return Err(MediaError::Impossible("manifest: signed by another key than its publisher's"));
        }
        let body = crate::frame::encode(&manifest);
        if body.len() > limits::MANIFEST {
            return Err(MediaError::Impossible("manifest: too large"));
        }
        let signature = identity.sign(MANIFEST_CONTEXT, &body);
        Ok(SignedManifest { manifest, signed: Signed { body: body.into(), signature } })
    }

    /// Checks limits and signature of what was received.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub fn verify(signed: Signed) -> Result<SignedManifest, MediaError> {
        if signed.body.len() > limits::MANIFEST {
            return Err(MediaError::Impossible("manifest: too large"));
        }
        let manifest: Manifest =
            crate::frame::decode(&signed.body).map_err(|_| MediaError::Malformed("manifest"))?;
        manifest.check()?;
        if !manifest.publisher.verify(MANIFEST_CONTEXT, &signed.body, &signed.signature.0) {
            return Err(MediaError::Signature);
        }
        Ok(SignedManifest { manifest, signed })
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bytes and signature, to be passed on.
    #[must_use]
    pub fn signed(&self) -> &Signed {
        &self.signed
    }
}

impl std::ops::Deref for SignedManifest {
    type Target = Manifest;
    fn deref(&self) -> &Manifest {
        &self.manifest
    }
}
