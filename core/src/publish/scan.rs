//! Reads a file once, from the first byte to the last: pages, times, hashes.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use icet::key::Hash;
use icet::media::{SLICE_PAGES, StreamInfo};
use icet::{Identity, Kind, Manifest, MediaId, PageFlags, PageRecord, SignedManifest, Slice, limits};

use crate::hash::hash_pages;
use crate::ogg::{LogicalStream, PagePlace, ScanEvent, ScanMode, ScannedPage, Timeline, scan_reader};
use crate::store::side::{Side, Stamp};
use crate::store::{Store, StoreError, disk};

use super::{
    LISTED_DAMAGES, Publish, PublishError, ScanProgress, last_version, next_version, record_version, tree,
};

/// Bytes between two calls of the progress function.
const STEP: u64 = 1 << 20;

/// The title of a media with these tags.
pub(super) fn title(publish: &Publish, tags: &[(String, String)]) -> String {
    let tag = || tags.iter().find(|(name, _)| name == "TITLE").map(|(_, value)| value.clone());
    publish.title.clone().or_else(tag).unwrap_or_default()
}

/// Scans `file` and leaves its side file in the store.
pub(super) fn scan(
    store: &Store,
    identity: &Identity,
    file: &Path,
    publish: &Publish,
    progress: &mut dyn FnMut(ScanProgress),
) -> Result<(), PublishError> {
    let id = MediaId::of(&identity.key(), &publish.path);
    let target = store.published_side(&id);
    let temp = target.with_extension("scanning");
    let fail = |e| StoreError::io("write", &temp, e);
    // What a killed scan left is written over; what another process is writing is not.
    let side = disk::open_locked(&temp).map_err(fail)?.ok_or_else(|| StoreError::InUse(temp.clone()))?;
    side.set_len(0).map_err(fail)?;
    let scanned = scan_to(store, identity, file, publish, progress, side).and_then(|()| {
        // Whoever has the old one open keeps it.
        let placed = fs::rename(&temp, &target).and_then(|()| disk::sync_folder(&target));
        placed.map_err(|e| StoreError::io("write", &target, e).into())
    });
    if scanned.is_err() {
        let _ = fs::remove_file(&temp);
    }
    scanned
}

fn scan_to(
    store: &Store,
    identity: &Identity,
    file: &Path,
    publish: &Publish,
    progress: &mut dyn FnMut(ScanProgress),
    side: File,
) -> Result<(), PublishError> {
    let id = MediaId::of(&identity.key(), &publish.path);
    let fail = |e| PublishError::from(StoreError::io("write", store.published_side(&id), e));
    let fail_file = |e| PublishError::from(StoreError::reading(file, e));
    let mut side = Side::begin(side).map_err(fail)?;
    let reader = File::open(file).map_err(fail_file)?;
    let stamp = Stamp::of(&reader.metadata().map_err(fail_file)?);

    let mut gather = Gather::new(&side);
    let (mut damages, mut count) = (Vec::new(), 0_u64);
    let mut told = 0;
    let scanned = scan_reader(&reader, ScanMode::Lenient, |event| {
        match event {
            // After the first damage only the others are looked for.
            ScanEvent::Page(page) if count == 0 => {
                if let Err(stop) = gather.page(&page) {
                    return ControlFlow::Break(stop);
                }
                if page.offset >= told + STEP {
                    told = page.offset;
                    let pages = gather.timeline.pages();
                    progress(ScanProgress { bytes: page.offset, total: stamp.size(), pages });
                }
            }
            ScanEvent::Page(_) => {}
            ScanEvent::Damage(damage) => {
                count += 1;
                if damages.len() < LISTED_DAMAGES {
                    damages.push(damage);
                }
            }
        }
        ControlFlow::Continue(())
    });
    let stats = match scanned.map_err(|e| PublishError::of_scan(file, e))? {
        ControlFlow::Continue(stats) => stats,
        ControlFlow::Break(Stop::Disk(e)) => return Err(fail(e)),
        ControlFlow::Break(Stop::TooMany) => {
            return Err(PublishError::TooManyPages { file: file.to_owned() });
        }
    };
    if count > 0 {
        return Err(PublishError::Damaged { file: file.to_owned(), damages, count });
    }
    gather.flush().map_err(fail)?;
    let timeline = gather.timeline;
    let unchanged = |m: fs::Metadata| Stamp::of(&m) == stamp && stamp.size() == stats.bytes;
    if !unchanged(reader.metadata().map_err(fail_file)?) {
        return Err(PublishError::Changed(file.to_owned()));
    }
    progress(ScanProgress { bytes: stats.bytes, total: stats.bytes, pages: stats.pages });

    let root = tree::prove(&side, stats.pages.div_ceil(SLICE_PAGES)).map_err(fail)?;
    let first = timeline.links().next();
    let tags: Vec<_> = timeline.comments().tags().iter().take(limits::TAGS).cloned().collect();
    let manifest = Manifest {
        kind: Kind::File,
        path: publish.path.clone(),
        publisher: identity.key(),
        version: 0,
        pages: stats.pages,
        bytes: stats.bytes,
        duration: u64::try_from(timeline.duration()).unwrap_or(0),
        root,
        setup: first.map_or(0, |l| l.setup_span),
        links: timeline.link_count(),
        streams: streams(&timeline),
        title: title(publish, &tags),
        tags,
        signed_at: 0,
        group: None,
    };
    let signed = match store.last_published(&id) {
        // Nothing but its file is new: the same manifest, so that those who have it need not look at it again.
        Some(last) if is_same(&last, &manifest) && last.version >= last_version(store, &id)? => last,
        _ => sign(store, identity, id, manifest)?,
    };
    side.set_manifest(&signed).map_err(fail)?;
    side.set_origin(file).map_err(fail)?;
    side.set_state(true, Some(stamp)).map_err(fail)?;
    side.file().sync_data().map_err(fail)
}

fn is_same(last: &SignedManifest, new: &Manifest) -> bool {
    let last = last.manifest();
    *last == Manifest { version: last.version, signed_at: last.signed_at, ..new.clone() }
}

/// Signs under a new version, which is on record before anybody can see it.
pub(crate) fn sign(
    store: &Store,
    identity: &Identity,
    id: MediaId,
    manifest: Manifest,
) -> Result<SignedManifest, PublishError> {
    let signed_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let version = next_version(store, &id, signed_at)?;
    let signed = SignedManifest::sign(Manifest { version, signed_at, ..manifest }, identity)?;
    record_version(store, &id, version)?;
    Ok(signed)
}

/// The logical streams of the first link, and the first of each further codec in later ones.
pub(crate) fn streams(timeline: &Timeline) -> Vec<StreamInfo> {
    let mut all: Vec<StreamInfo> = Vec::new();
    for (i, link) in timeline.links().enumerate() {
        let found = link.streams.iter().map(stream_info);
        let new: Vec<_> = found.filter(|s| i == 0 || all.iter().all(|a| a.codec != s.codec)).collect();
        all.extend(new);
    }
    all.truncate(limits::STREAMS);
    all
}

fn stream_info(stream: &LogicalStream) -> StreamInfo {
    let format = &stream.format;
    let frames = format.frame_rate.map(|(n, d)| u64::from(n.get()) * 1000 / u64::from(d.get()));
    StreamInfo {
        serial: stream.serial,
        codec: format.codec.name().to_owned(),
        rate: format.sample_rate.map(|r| u64::from(r.get())).or(frames),
        channels: format.channels,
        size: format.size,
    }
}

enum Stop {
    Disk(std::io::Error),
    TooMany,
}

/// Gathers records into slices, and writes those to their slots.
struct Gather<'a> {
    side: &'a Side,
    timeline: Timeline,
    slice: Slice,
    /// The pages of the slice, which are hashed together.
    bytes: Vec<u8>,
}

impl Gather<'_> {
    fn new(side: &Side) -> Gather<'_> {
        let records = Vec::with_capacity(64);
        Gather {
            side,
            timeline: Timeline::new(),
            slice: Slice { index: 0, offset: 0, time: 0, records },
            bytes: Vec::new(),
        }
    }

    fn page(&mut self, page: &ScannedPage<'_>) -> Result<(), Stop> {
        if self.timeline.pages() == limits::FILE_PAGES {
            return Err(Stop::TooMany);
        }
        let place = self.timeline.page(&page.header, page.bytes);
        if self.slice.records.len() as u64 == SLICE_PAGES {
            self.flush().map_err(Stop::Disk)?;
        }
        if self.slice.records.is_empty() {
            self.slice.offset = page.offset;
            self.slice.time = place.time;
        }
        self.slice.records.push(PageRecord {
            len: u32::try_from(page.bytes.len()).unwrap_or(u32::MAX),
            crc: page.header.crc,
            hash: Hash([0; 32]),
            flags: flags(&place),
            time: place.time - self.slice.time,
        });
        self.bytes.extend_from_slice(page.bytes);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if !self.slice.records.is_empty() {
            let mut rest = &self.bytes[..];
            let pages: Vec<&[u8]> =
                self.slice.records.iter().map_while(|r| rest.split_off(..r.len as usize)).collect();
            for (record, hash) in self.slice.records.iter_mut().zip(hash_pages(&pages)) {
                record.hash = hash;
            }
            self.bytes.clear();
            self.side.write_slot(self.slice.index, &self.slice.to_bytes(), &[])?;
            self.slice.index += 1;
            self.slice.records.clear();
        }
        Ok(())
    }
}

pub(crate) fn flags(place: &PagePlace) -> PageFlags {
    [
        (place.bos, PageFlags::BOS),
        (place.eos, PageFlags::EOS),
        (place.setup, PageFlags::SETUP),
        (place.continued, PageFlags::CONTINUED),
        (place.keyframe, PageFlags::KEYFRAME),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .fold(PageFlags::default(), |all, (_, flag)| all | flag)
}
