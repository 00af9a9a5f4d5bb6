//! What the publisher of live media signs while it goes on: batches of page records, and heads.
//!
//! `proto-spec/spec/icet.md`, section 16.

use minicbor::{Decode, Encode};

use crate::key::{Hash, Identity, PeerKey};
use crate::limits;
use crate::media::{Kind, Manifest, MediaError, PageRecord, Signed};
use crate::pages::PageNo;

const BATCH_CONTEXT: &[u8] = b"IceShare/1 record\0";
const HEAD_CONTEXT: &[u8] = b"IceShare/1 head\0";

/// What stands before the first batch of a broadcast, where others have the hash of the batch before.
pub const NO_BATCH: Hash = Hash([0; 32]);

/// The broadcast that a live manifest is of: 32 random bytes, where a file's has the root of its page table. None of a file.
#[must_use]
pub fn broadcast(manifest: &Manifest) -> Option<Hash> {
    (manifest.kind == Kind::Live).then_some(manifest.root)
}

/// Records of consecutive pages, 1 to 64 (none only in the last of a broadcast). CBOR: an array.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Batch {
    /// Which broadcast.
    #[n(0)]
    pub broadcast: Hash,
    /// Its first page.
    #[n(1)]
    pub first: PageNo,
    /// Offset of its first page in the physical bitstream, in bytes.
    #[n(2)]
    pub offset: u64,
    /// Media time of its first page, in microseconds from page 0.
    #[n(3)]
    pub time: i64,
    /// Hash of the batch before ([`SignedBatch::hash`]), [`NO_BATCH`] if it is the first.
    #[n(4)]
    pub previous: Hash,
    /// The records; their times count from [`Batch::time`].
    #[n(5)]
    pub records: Vec<PageRecord>,
    /// Whether the broadcast ends with it.
    #[n(6)]
    pub ends: bool,
}

impl Batch {
    /// The page behind its last one.
    #[must_use]
    pub fn next(&self) -> PageNo {
        self.first + self.records.len() as u64
    }

    /// Offset of the first byte behind its pages.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.records.iter().map(|r| u64::from(r.len)).sum::<u64>()
    }

    /// Record and byte offset of `page`, if the batch has it.
    #[must_use]
    pub fn page(&self, page: PageNo) -> Option<(PageRecord, u64)> {
        let i = usize::try_from(page.checked_sub(self.first)?).ok()?;
        let (record, before) = (*self.records.get(i)?, self.records.get(..i)?);
        Some((record, self.offset + before.iter().map(|r| u64::from(r.len)).sum::<u64>()))
    }

    fn check(&self) -> Result<(), MediaError> {
        let first = self.first == 0;
        let good = self.first <= limits::PAGES - limits::RECORDS as u64
            && self.offset <= limits::PAGES * 65_307
            && first == (self.previous == NO_BATCH)
            && (!first || self.offset == 0)
            && (!self.records.is_empty() || self.ends && !first)
            && sound(&self.records, self.time);
        if good { Ok(()) } else { Err(MediaError::Impossible("batch of records")) }
    }
}

fn sound(records: &[PageRecord], time: i64) -> bool {
    let near = |t: i64| (-limits::TIME..=limits::TIME).contains(&t);
    records.len() <= limits::RECORDS
        && near(time)
        && records.iter().all(|r| limits::PAGE_BYTES.contains(&r.len) && near(r.time))
}

/// What a joiner needs to begin: at most a second old where it is handed out. CBOR: a map.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Head {
    /// Which broadcast.
    #[n(1)]
    pub broadcast: Hash,
    /// The page that comes next: all before it are in batches.
    #[n(2)]
    pub next: PageNo,
    /// Offset of that page, in bytes.
    #[n(3)]
    pub offset: u64,
    /// Media time at which that page's content starts, as far as is known, in microseconds from page 0.
    #[n(4)]
    pub time: i64,
    /// Hash of the last batch.
    #[n(5)]
    pub last: Hash,
    /// First page of the current link.
    #[n(6)]
    pub link: PageNo,
    /// Offset of that page, in bytes.
    #[n(7)]
    pub link_offset: u64,
    /// Media time of that page, in microseconds from page 0.
    #[n(8)]
    pub link_time: i64,
    /// Records of the link's setup pages, 1 to 64 from its first page on; their times count from [`Head::link_time`].
    #[n(9)]
    pub setup: Vec<PageRecord>,
    /// The last page behind them at which decoding can begin; [`Head::next`] if there is none yet.
    #[n(10)]
    pub key: PageNo,
    /// When it was signed: wall clock, milliseconds since 1970. For display.
    #[n(11)]
    pub signed_at: u64,
    /// What is on: artist and title, as the tags of the link say it.
    #[n(12)]
    pub title: Option<String>,
    /// Whether no page comes any more. None as if false.
    #[n(13)]
    pub ended: Option<bool>,
}

impl Head {
    /// The first page behind the setup pages of the current link.
    #[must_use]
    pub fn after_setup(&self) -> PageNo {
        self.link + self.setup.len() as u64
    }

    fn check(&self) -> Result<(), MediaError> {
        let bytes: u64 = self.setup.iter().map(|r| u64::from(r.len)).sum();
        let good = self.next < limits::PAGES
            && self.offset <= limits::PAGES * 65_307
            && self.title.as_ref().is_none_or(|t| t.len() <= limits::TITLE)
            && !self.setup.is_empty()
            && sound(&self.setup, self.link_time)
            && self.link.checked_add(self.setup.len() as u64).is_some_and(|p| p <= self.key)
            && self.key <= self.next
            && self.link_offset.checked_add(bytes).is_some_and(|o| o <= self.offset);
        if good { Ok(()) } else { Err(MediaError::Impossible("head")) }
    }
}

/// A batch whose signature and limits were checked, beside the bytes that were signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBatch {
    batch: Batch,
    signed: Signed,
    hash: Hash,
}

/// A head whose signature and limits were checked, beside the bytes that were signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    head: Head,
    signed: Signed,
}

fn hash_of(body: &[u8]) -> Hash {
    let mut h = blake3::Hasher::new();
    h.update(BATCH_CONTEXT).update(body);
    Hash(*h.finalize().as_bytes())
}

fn sign(
    body: Vec<u8>,
    most: usize,
    context: &[u8],
    identity: &Identity,
    what: &'static str,
) -> Result<Signed, MediaError> {
    if body.len() > most {
        return Err(MediaError::Impossible(what));
    }
    let signature = identity.sign(context, &body);
    Ok(Signed { body: body.into(), signature })
}

fn open<'b, T: Decode<'b, ()>>(
    signed: &'b Signed,
    most: usize,
    context: &[u8],
    publisher: &PeerKey,
    what: &'static str,
) -> Result<T, MediaError> {
    if signed.body.len() > most {
        return Err(MediaError::Impossible(what));
    }
    if !publisher.verify(context, &signed.body, &signed.signature.0) {
        return Err(MediaError::Signature);
    }
    crate::frame::decode(&signed.body).map_err(|_| MediaError::Malformed(what))
}

impl SignedBatch {
    /// Signs a batch.
    ///
    /// # Errors
    /// [`MediaError::Impossible`] if a field exceeds its limits.
    pub fn sign(batch: Batch, identity: &Identity) -> Result<SignedBatch, MediaError> {
        batch.check()?;
        let body = crate::frame::encode(&batch);
        let hash = hash_of(&body);
        let signed = sign(body, limits::BATCH, BATCH_CONTEXT, identity, "batch of records")?;
        Ok(SignedBatch { batch, signed, hash })
    }

    /// Checks what was received: signature of the manifest's publisher, its broadcast, limits.
    ///
    /// # Errors
    /// See [`MediaError`]; [`MediaError::Impossible`] too if it is of another broadcast.
    pub fn verify(signed: Signed, manifest: &Manifest) -> Result<SignedBatch, MediaError> {
        let batch: Batch =
            open(&signed, limits::BATCH, BATCH_CONTEXT, &manifest.publisher, "batch of records")?;
        batch.check()?;
        if broadcast(manifest) != Some(batch.broadcast) {
            return Err(MediaError::Impossible("batch: of another broadcast"));
        }
        let hash = hash_of(&signed.body);
        Ok(SignedBatch { batch, signed, hash })
    }

    /// The bytes and signature, to be passed on.
    #[must_use]
    pub fn signed(&self) -> &Signed {
        &self.signed
    }

    /// What the next batch names as the one before: BLAKE3 over the context and the body.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Whether it follows `before` without a gap.
    #[must_use]
    pub fn follows(&self, before: &SignedBatch) -> bool {
        self.batch.previous == before.hash
            && self.batch.first == before.batch.next()
            && self.batch.offset == before.batch.end()
            && !before.batch.ends
    }
}

impl std::ops::Deref for SignedBatch {
    type Target = Batch;
    fn deref(&self) -> &Batch {
        &self.batch
    }
}

impl SignedHead {
    /// Signs a head.
    ///
    /// # Errors
    /// [`MediaError::Impossible`] if a field exceeds its limits.
    pub fn sign(head: Head, identity: &Identity) -> Result<SignedHead, MediaError> {
        head.check()?;
        let signed = sign(crate::frame::encode(&head), limits::BATCH, HEAD_CONTEXT, identity, "head")?;
        Ok(SignedHead { head, signed })
    }

    /// Checks what was received: signature of the manifest's publisher, its broadcast, limits.
    ///
    /// # Errors
    /// See [`MediaError`]; [`MediaError::Impossible`] too if it is of another broadcast.
    pub fn verify(signed: Signed, manifest: &Manifest) -> Result<SignedHead, MediaError> {
        let head: Head = open(&signed, limits::BATCH, HEAD_CONTEXT, &manifest.publisher, "head")?;
        head.check()?;
        if broadcast(manifest) != Some(head.broadcast) {
            return Err(MediaError::Impossible("head: of another broadcast"));
        }
        Ok(SignedHead { head, signed })
    }

    /// The bytes and signature, to be passed on.
    #[must_use]
    pub fn signed(&self) -> &Signed {
        &self.signed
    }
}

impl std::ops::Deref for SignedHead {
    type Target = Head;
    fn deref(&self) -> &Head {
        &self.head
    }
}
